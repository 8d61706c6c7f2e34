//! @generated from `messages/describe_quorum.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DescribeQuorum`, versions 0 to 2.

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `DescribeQuorum`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeQuorumRequest {
    /// Versions 0 to 2.
    pub topics: Vec<RequestTopicData>,
}

impl Wire for DescribeQuorumRequest {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DescribeQuorum`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestTopicData {
    /// Versions 0 to 2.
    pub topic_name: Text,
    /// Versions 0 to 2.
    pub partitions: Vec<RequestPartitionData>,
}

impl Wire for RequestTopicData {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topic_name: s.string("topic_name")?,
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("topic_name", &self.topic_name)?;
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `DescribeQuorum`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestPartitionData {
    /// Versions 0 to 2.
    pub partition_index: i32,
}

impl Wire for RequestPartitionData {
    const LEAST_BYTES: usize = 5;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_index: s.int32("partition_index")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_index);
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DescribeQuorum`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeQuorumResponse {
    /// Versions 0 to 2.
    pub error_code: i16,
    /// Version 2, may be null.
    pub error_message: Option<Text>,
    /// Versions 0 to 2.
    pub topics: Vec<TopicData>,
    /// Version 2.
    pub nodes: Vec<Node>,
}

impl Wire for DescribeQuorumResponse {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            error_code: s.int16("error_code")?,
            error_message: if version == 2 { s.string_or_null("error_message", true)? } else { None },
            topics: s.array("topics")?,
            nodes: if version == 2 { s.array("nodes")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int16(self.error_code);
        if version == 2 {
            w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        }
        w.array("topics", &self.topics)?;
        if version == 2 {
            w.array("nodes", &self.nodes)?;
        } else {
            w.must_be_default("nodes", self.nodes.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DescribeQuorum`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicData {
    /// Versions 0 to 2.
    pub topic_name: Text,
    /// Versions 0 to 2.
    pub partitions: Vec<PartitionData>,
}

impl Wire for TopicData {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topic_name: s.string("topic_name")?,
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("topic_name", &self.topic_name)?;
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `DescribeQuorum`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionData {
    /// Versions 0 to 2.
    pub partition_index: i32,
    /// Versions 0 to 2.
    pub error_code: i16,
    /// Version 2, may be null.
    pub error_message: Option<Text>,
    /// Versions 0 to 2.
    pub leader_id: i32,
    /// Versions 0 to 2.
    pub leader_epoch: i32,
    /// Versions 0 to 2.
    pub high_watermark: i64,
    /// Versions 0 to 2.
    pub current_voters: Vec<ReplicaState>,
    /// Versions 0 to 2.
    pub observers: Vec<ReplicaState>,
}

impl Wire for PartitionData {
    const LEAST_BYTES: usize = 25;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            partition_index: s.int32("partition_index")?,
            error_code: s.int16("error_code")?,
            error_message: if version == 2 { s.string_or_null("error_message", true)? } else { None },
            leader_id: s.int32("leader_id")?,
            leader_epoch: s.int32("leader_epoch")?,
            high_watermark: s.int64("high_watermark")?,
            current_voters: s.array("current_voters")?,
            observers: s.array("observers")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.partition_index);
        w.int16(self.error_code);
        if version == 2 {
            w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        }
        w.int32(self.leader_id);
        w.int32(self.leader_epoch);
        w.int64(self.high_watermark);
        w.array("current_voters", &self.current_voters)?;
        w.array("observers", &self.observers)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `nodes` of `DescribeQuorum`, version 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Version 2.
    pub node_id: i32,
    /// Version 2.
    pub listeners: Vec<Listener>,
}

impl Wire for Node {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            node_id: if version == 2 { s.int32("node_id")? } else { 0 },
            listeners: if version == 2 { s.array("listeners")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version == 2 {
            w.int32(self.node_id);
        } else {
            w.must_be_default("node_id", self.node_id == 0)?;
        }
        if version == 2 {
            w.array("listeners", &self.listeners)?;
        } else {
            w.must_be_default("listeners", self.listeners.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `listeners` of `DescribeQuorum`, version 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listener {
    /// Version 2.
    pub name: Text,
    /// Version 2.
    pub host: Text,
    /// Version 2.
    pub port: u16,
}

impl Wire for Listener {
    const LEAST_BYTES: usize = 5;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version == 2 { s.string("name")? } else { Text::EMPTY },
            host: if version == 2 { s.string("host")? } else { Text::EMPTY },
            port: if version == 2 { s.uint16("port")? } else { 0 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version == 2 {
            w.string("name", &self.name)?;
        } else {
            w.must_be_default("name", self.name.is_empty())?;
        }
        if version == 2 {
            w.string("host", &self.host)?;
        } else {
            w.must_be_default("host", self.host.is_empty())?;
        }
        if version == 2 {
            w.uint16(self.port);
        } else {
            w.must_be_default("port", self.port == 0)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part of `DescribeQuorum`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaState {
    /// Versions 0 to 2.
    pub replica_id: i32,
    /// Version 2.
    pub replica_directory_id: Uuid,
    /// Versions 0 to 2.
    pub log_end_offset: i64,
    /// Versions 1 to 2.
    pub last_fetch_timestamp: i64,
    /// Versions 1 to 2.
    pub last_caught_up_timestamp: i64,
}

impl Default for ReplicaState {
    fn default() -> Self {
        Self {
            replica_id: 0,
            replica_directory_id: Uuid::ZERO,
            log_end_offset: 0,
            last_fetch_timestamp: -1,
            last_caught_up_timestamp: -1,
        }
    }
}

impl Wire for ReplicaState {
    const LEAST_BYTES: usize = 13;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            replica_id: s.int32("replica_id")?,
            replica_directory_id: if version == 2 { s.uuid("replica_directory_id")? } else { Uuid::ZERO },
            log_end_offset: s.int64("log_end_offset")?,
            last_fetch_timestamp: if version >= 1 { s.int64("last_fetch_timestamp")? } else { -1 },
            last_caught_up_timestamp: if version >= 1 { s.int64("last_caught_up_timestamp")? } else { -1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.replica_id);
        if version == 2 {
            w.uuid(self.replica_directory_id);
        } else {
            w.must_be_default("replica_directory_id", self.replica_directory_id == Uuid::ZERO)?;
        }
        w.int64(self.log_end_offset);
        if version >= 1 {
            w.int64(self.last_fetch_timestamp);
        }
        if version >= 1 {
            w.int64(self.last_caught_up_timestamp);
        }
        w.tag_count(0);
        Ok(())
    }
}
