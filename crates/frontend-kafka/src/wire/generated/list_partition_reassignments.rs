//! @generated from `messages/list_partition_reassignments.txt` by `cargo xtask kafka`: do not edit.
//!
//! `ListPartitionReassignments`, version 0.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `ListPartitionReassignments`, version 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPartitionReassignmentsRequest {
    /// Version 0.
    pub timeout_ms: i32,
    /// Version 0, may be null.
    pub topics: Option<Vec<ListPartitionReassignmentsTopics>>,
}

impl Default for ListPartitionReassignmentsRequest {
    fn default() -> Self {
        Self {
            timeout_ms: 60000,
            topics: None,
        }
    }
}

impl Wire for ListPartitionReassignmentsRequest {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            timeout_ms: s.int32("timeout_ms")?,
            topics: s.array_or_null("topics", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.timeout_ms);
        w.array_or_null("topics", self.topics.as_deref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `ListPartitionReassignments`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPartitionReassignmentsTopics {
    /// Version 0.
    pub name: Text,
    /// Version 0.
    pub partition_indexes: Vec<i32>,
}

impl Wire for ListPartitionReassignmentsTopics {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
            partition_indexes: s.array("partition_indexes")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.array("partition_indexes", &self.partition_indexes)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `ListPartitionReassignments`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPartitionReassignmentsResponse {
    /// Version 0.
    pub throttle_time_ms: i32,
    /// Version 0.
    pub error_code: i16,
    /// Version 0, may be null.
    pub error_message: Option<Text>,
    /// Version 0.
    pub topics: Vec<OngoingTopicReassignment>,
}

impl Wire for ListPartitionReassignmentsResponse {
    const LEAST_BYTES: usize = 9;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `ListPartitionReassignments`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OngoingTopicReassignment {
    /// Version 0.
    pub name: Text,
    /// Version 0.
    pub partitions: Vec<OngoingPartitionReassignment>,
}

impl Wire for OngoingTopicReassignment {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `ListPartitionReassignments`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OngoingPartitionReassignment {
    /// Version 0.
    pub partition_index: i32,
    /// Version 0.
    pub replicas: Vec<i32>,
    /// Version 0.
    pub adding_replicas: Vec<i32>,
    /// Version 0.
    pub removing_replicas: Vec<i32>,
}

impl Wire for OngoingPartitionReassignment {
    const LEAST_BYTES: usize = 8;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_index: s.int32("partition_index")?,
            replicas: s.array("replicas")?,
            adding_replicas: s.array("adding_replicas")?,
            removing_replicas: s.array("removing_replicas")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_index);
        w.array("replicas", &self.replicas)?;
        w.array("adding_replicas", &self.adding_replicas)?;
        w.array("removing_replicas", &self.removing_replicas)?;
        w.tag_count(0);
        Ok(())
    }
}
