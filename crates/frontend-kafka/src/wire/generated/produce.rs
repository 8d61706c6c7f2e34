//! @generated from `messages/produce.txt` by `cargo xtask kafka`: do not edit.
//!
//! `Produce`, versions 0 to 13.

use bytes::Bytes;

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `Produce`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProduceRequest {
    /// Versions 3 to 13, may be null.
    pub transactional_id: Option<Text>,
    /// Versions 0 to 13.
    pub acks: i16,
    /// Versions 0 to 13.
    pub timeout_ms: i32,
    /// Versions 0 to 13.
    pub topic_data: Vec<TopicProduceData>,
}

impl Wire for ProduceRequest {
    const LEAST_BYTES: usize = 9;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            transactional_id: if version >= 3 { s.string_or_null("transactional_id", true)? } else { None },
            acks: s.int16("acks")?,
            timeout_ms: s.int32("timeout_ms")?,
            topic_data: s.array("topic_data")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 3 {
            w.string_or_null("transactional_id", self.transactional_id.as_ref(), true)?;
        } else {
            w.must_be_default("transactional_id", self.transactional_id.is_none())?;
        }
        w.int16(self.acks);
        w.int32(self.timeout_ms);
        w.array("topic_data", &self.topic_data)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topic_data` of `Produce`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicProduceData {
    /// Versions 0 to 12.
    pub name: Text,
    /// Version 13.
    pub topic_id: Uuid,
    /// Versions 0 to 13.
    pub partition_data: Vec<PartitionProduceData>,
}

impl Wire for TopicProduceData {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version <= 12 { s.string("name")? } else { Text::EMPTY },
            topic_id: if version == 13 { s.uuid("topic_id")? } else { Uuid::ZERO },
            partition_data: s.array("partition_data")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 12 {
            w.string("name", &self.name)?;
        }
        if version == 13 {
            w.uuid(self.topic_id);
        }
        w.array("partition_data", &self.partition_data)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partition_data` of `Produce`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionProduceData {
    /// Versions 0 to 13.
    pub index: i32,
    /// Versions 0 to 13, may be null.
    pub records: Option<Bytes>,
}

impl Wire for PartitionProduceData {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            index: s.int32("index")?,
            records: s.bytes_or_null("records", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.index);
        w.bytes_or_null("records", self.records.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `Produce`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProduceResponse {
    /// Versions 0 to 13.
    pub responses: Vec<TopicProduceResponse>,
    /// Versions 1 to 13.
    pub throttle_time_ms: i32,
    /// Versions 10 to 13, tagged 0.
    pub node_endpoints: Vec<NodeEndpoint>,
}

impl Wire for ProduceResponse {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let mut m = Self {
            responses: s.array("responses")?,
            throttle_time_ms: if version >= 1 { s.int32("throttle_time_ms")? } else { 0 },
            node_endpoints: Vec::new(),
        };
        s.tags(&[0], |s, tag| {
            match tag {
                0 if version >= 10 => m.node_endpoints = s.array("node_endpoints")?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.array("responses", &self.responses)?;
        if version >= 1 {
            w.int32(self.throttle_time_ms);
        }
        if version < 10 {
            w.must_be_default("node_endpoints", self.node_endpoints.is_empty())?;
        }
        let tag_0 = version >= 10 && !self.node_endpoints.is_empty();
        w.tag_count(u32::from(tag_0));
        if tag_0 {
            w.tag(0, |w| w.array("node_endpoints", &self.node_endpoints))?;
        }
        Ok(())
    }
}

/// Part `responses` of `Produce`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicProduceResponse {
    /// Versions 0 to 12.
    pub name: Text,
    /// Version 13.
    pub topic_id: Uuid,
    /// Versions 0 to 13.
    pub partition_responses: Vec<PartitionProduceResponse>,
}

impl Wire for TopicProduceResponse {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version <= 12 { s.string("name")? } else { Text::EMPTY },
            topic_id: if version == 13 { s.uuid("topic_id")? } else { Uuid::ZERO },
            partition_responses: s.array("partition_responses")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 12 {
            w.string("name", &self.name)?;
        }
        if version == 13 {
            w.uuid(self.topic_id);
        }
        w.array("partition_responses", &self.partition_responses)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partition_responses` of `Produce`, versions 0 to 13.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProduceResponse {
    /// Versions 0 to 13.
    pub index: i32,
    /// Versions 0 to 13.
    pub error_code: i16,
    /// Versions 0 to 13.
    pub base_offset: i64,
    /// Versions 2 to 13.
    pub log_append_time_ms: i64,
    /// Versions 5 to 13.
    pub log_start_offset: i64,
    /// Versions 8 to 13.
    pub record_errors: Vec<BatchIndexAndErrorMessage>,
    /// Versions 8 to 13, may be null.
    pub error_message: Option<Text>,
    /// Versions 10 to 13, tagged 0.
    pub current_leader: LeaderIdAndEpoch,
}

impl Default for PartitionProduceResponse {
    fn default() -> Self {
        Self {
            index: 0,
            error_code: 0,
            base_offset: 0,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: LeaderIdAndEpoch::default(),
        }
    }
}

impl Wire for PartitionProduceResponse {
    const LEAST_BYTES: usize = 14;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let mut m = Self {
            index: s.int32("index")?,
            error_code: s.int16("error_code")?,
            base_offset: s.int64("base_offset")?,
            log_append_time_ms: if version >= 2 { s.int64("log_append_time_ms")? } else { -1 },
            log_start_offset: if version >= 5 { s.int64("log_start_offset")? } else { -1 },
            record_errors: if version >= 8 { s.array("record_errors")? } else { Vec::new() },
            error_message: if version >= 8 { s.string_or_null("error_message", true)? } else { None },
            current_leader: LeaderIdAndEpoch::default(),
        };
        s.tags(&[0], |s, tag| {
            match tag {
                0 if version >= 10 => m.current_leader = s.structure("current_leader")?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.index);
        w.int16(self.error_code);
        w.int64(self.base_offset);
        if version >= 2 {
            w.int64(self.log_append_time_ms);
        }
        if version >= 5 {
            w.int64(self.log_start_offset);
        }
        if version >= 8 {
            w.array("record_errors", &self.record_errors)?;
        }
        if version >= 8 {
            w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        }
        if version < 10 {
            w.must_be_default("current_leader", self.current_leader == LeaderIdAndEpoch::default())?;
        }
        let tag_0 = version >= 10 && self.current_leader != LeaderIdAndEpoch::default();
        w.tag_count(u32::from(tag_0));
        if tag_0 {
            w.tag(0, |w| w.structure("current_leader", &self.current_leader))?;
        }
        Ok(())
    }
}

/// Part `record_errors` of `Produce`, versions 8 to 13.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchIndexAndErrorMessage {
    /// Versions 8 to 13.
    pub batch_index: i32,
    /// Versions 8 to 13, may be null.
    pub batch_index_error_message: Option<Text>,
}

impl Wire for BatchIndexAndErrorMessage {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            batch_index: if version >= 8 { s.int32("batch_index")? } else { 0 },
            batch_index_error_message: if version >= 8 { s.string_or_null("batch_index_error_message", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 8 {
            w.int32(self.batch_index);
        } else {
            w.must_be_default("batch_index", self.batch_index == 0)?;
        }
        if version >= 8 {
            w.string_or_null("batch_index_error_message", self.batch_index_error_message.as_ref(), true)?;
        } else {
            w.must_be_default("batch_index_error_message", self.batch_index_error_message.is_none())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `current_leader` of `Produce`, versions 10 to 13.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    /// Versions 10 to 13.
    pub leader_id: i32,
    /// Versions 10 to 13.
    pub leader_epoch: i32,
}

impl Default for LeaderIdAndEpoch {
    fn default() -> Self {
        Self {
            leader_id: -1,
            leader_epoch: -1,
        }
    }
}

impl Wire for LeaderIdAndEpoch {
    const LEAST_BYTES: usize = 9;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            leader_id: if version >= 10 { s.int32("leader_id")? } else { -1 },
            leader_epoch: if version >= 10 { s.int32("leader_epoch")? } else { -1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 10 {
            w.int32(self.leader_id);
        } else {
            w.must_be_default("leader_id", self.leader_id == -1)?;
        }
        if version >= 10 {
            w.int32(self.leader_epoch);
        } else {
            w.must_be_default("leader_epoch", self.leader_epoch == -1)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `node_endpoints` of `Produce`, versions 10 to 13.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeEndpoint {
    /// Versions 10 to 13.
    pub node_id: i32,
    /// Versions 10 to 13.
    pub host: Text,
    /// Versions 10 to 13.
    pub port: i32,
    /// Versions 10 to 13, may be null.
    pub rack: Option<Text>,
}

impl Wire for NodeEndpoint {
    const LEAST_BYTES: usize = 11;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            node_id: if version >= 10 { s.int32("node_id")? } else { 0 },
            host: if version >= 10 { s.string("host")? } else { Text::EMPTY },
            port: if version >= 10 { s.int32("port")? } else { 0 },
            rack: if version >= 10 { s.string_or_null("rack", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 10 {
            w.int32(self.node_id);
        } else {
            w.must_be_default("node_id", self.node_id == 0)?;
        }
        if version >= 10 {
            w.string("host", &self.host)?;
        } else {
            w.must_be_default("host", self.host.is_empty())?;
        }
        if version >= 10 {
            w.int32(self.port);
        } else {
            w.must_be_default("port", self.port == 0)?;
        }
        if version >= 10 {
            w.string_or_null("rack", self.rack.as_ref(), true)?;
        } else {
            w.must_be_default("rack", self.rack.is_none())?;
        }
        w.tag_count(0);
        Ok(())
    }
}
