//! @generated from `messages/describe_topic_partitions.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DescribeTopicPartitions`, version 0.

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `DescribeTopicPartitions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeTopicPartitionsRequest {
    /// Version 0.
    pub topics: Vec<TopicRequest>,
    /// Version 0.
    pub response_partition_limit: i32,
    /// Version 0, may be null.
    pub cursor: Option<RequestCursor>,
}

impl Default for DescribeTopicPartitionsRequest {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            response_partition_limit: 2000,
            cursor: None,
        }
    }
}

impl Wire for DescribeTopicPartitionsRequest {
    const LEAST_BYTES: usize = 7;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topics: s.array("topics")?,
            response_partition_limit: s.int32("response_partition_limit")?,
            cursor: s.structure_or_null("cursor", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("topics", &self.topics)?;
        w.int32(self.response_partition_limit);
        w.structure_or_null("cursor", self.cursor.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DescribeTopicPartitions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicRequest {
    /// Version 0.
    pub name: Text,
}

impl Wire for TopicRequest {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `cursor` of `DescribeTopicPartitions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestCursor {
    /// Version 0.
    pub topic_name: Text,
    /// Version 0.
    pub partition_index: i32,
}

impl Wire for RequestCursor {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topic_name: s.string("topic_name")?,
            partition_index: s.int32("partition_index")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("topic_name", &self.topic_name)?;
        w.int32(self.partition_index);
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DescribeTopicPartitions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeTopicPartitionsResponse {
    /// Version 0.
    pub throttle_time_ms: i32,
    /// Version 0.
    pub topics: Vec<DescribeTopicPartitionsResponseTopic>,
    /// Version 0, may be null.
    pub next_cursor: Option<ResponseCursor>,
}

impl Wire for DescribeTopicPartitionsResponse {
    const LEAST_BYTES: usize = 7;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            topics: s.array("topics")?,
            next_cursor: s.structure_or_null("next_cursor", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.array("topics", &self.topics)?;
        w.structure_or_null("next_cursor", self.next_cursor.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DescribeTopicPartitions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeTopicPartitionsResponseTopic {
    /// Version 0.
    pub error_code: i16,
    /// Version 0, may be null.
    pub name: Option<Text>,
    /// Version 0.
    pub topic_id: Uuid,
    /// Version 0.
    pub is_internal: bool,
    /// Version 0.
    pub partitions: Vec<DescribeTopicPartitionsResponsePartition>,
    /// Version 0.
    pub topic_authorized_operations: i32,
}

impl Default for DescribeTopicPartitionsResponseTopic {
    fn default() -> Self {
        Self {
            error_code: 0,
            name: None,
            topic_id: Uuid::ZERO,
            is_internal: false,
            partitions: Vec::new(),
            topic_authorized_operations: -2147483648,
        }
    }
}

impl Wire for DescribeTopicPartitionsResponseTopic {
    const LEAST_BYTES: usize = 26;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            error_code: s.int16("error_code")?,
            name: s.string_or_null("name", true)?,
            topic_id: s.uuid("topic_id")?,
            is_internal: s.boolean("is_internal")?,
            partitions: s.array("partitions")?,
            topic_authorized_operations: s.int32("topic_authorized_operations")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int16(self.error_code);
        w.string_or_null("name", self.name.as_ref(), true)?;
        w.uuid(self.topic_id);
        w.boolean(self.is_internal);
        w.array("partitions", &self.partitions)?;
        w.int32(self.topic_authorized_operations);
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `DescribeTopicPartitions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeTopicPartitionsResponsePartition {
    /// Version 0.
    pub error_code: i16,
    /// Version 0.
    pub partition_index: i32,
    /// Version 0.
    pub leader_id: i32,
    /// Version 0.
    pub leader_epoch: i32,
    /// Version 0.
    pub replica_nodes: Vec<i32>,
    /// Version 0.
    pub isr_nodes: Vec<i32>,
    /// Version 0, may be null.
    pub eligible_leader_replicas: Option<Vec<i32>>,
    /// Version 0, may be null.
    pub last_known_elr: Option<Vec<i32>>,
    /// Version 0.
    pub offline_replicas: Vec<i32>,
}

impl Default for DescribeTopicPartitionsResponsePartition {
    fn default() -> Self {
        Self {
            error_code: 0,
            partition_index: 0,
            leader_id: 0,
            leader_epoch: -1,
            replica_nodes: Vec::new(),
            isr_nodes: Vec::new(),
            eligible_leader_replicas: None,
            last_known_elr: None,
            offline_replicas: Vec::new(),
        }
    }
}

impl Wire for DescribeTopicPartitionsResponsePartition {
    const LEAST_BYTES: usize = 20;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            error_code: s.int16("error_code")?,
            partition_index: s.int32("partition_index")?,
            leader_id: s.int32("leader_id")?,
            leader_epoch: s.int32("leader_epoch")?,
            replica_nodes: s.array("replica_nodes")?,
            isr_nodes: s.array("isr_nodes")?,
            eligible_leader_replicas: s.array_or_null("eligible_leader_replicas", true)?,
            last_known_elr: s.array_or_null("last_known_elr", true)?,
            offline_replicas: s.array("offline_replicas")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int16(self.error_code);
        w.int32(self.partition_index);
        w.int32(self.leader_id);
        w.int32(self.leader_epoch);
        w.array("replica_nodes", &self.replica_nodes)?;
        w.array("isr_nodes", &self.isr_nodes)?;
        w.array_or_null("eligible_leader_replicas", self.eligible_leader_replicas.as_deref(), true)?;
        w.array_or_null("last_known_elr", self.last_known_elr.as_deref(), true)?;
        w.array("offline_replicas", &self.offline_replicas)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `next_cursor` of `DescribeTopicPartitions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseCursor {
    /// Version 0.
    pub topic_name: Text,
    /// Version 0.
    pub partition_index: i32,
}

impl Wire for ResponseCursor {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topic_name: s.string("topic_name")?,
            partition_index: s.int32("partition_index")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("topic_name", &self.topic_name)?;
        w.int32(self.partition_index);
        w.tag_count(0);
        Ok(())
    }
}
