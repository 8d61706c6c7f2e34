//! @generated from `messages/elect_leaders.txt` by `cargo xtask kafka`: do not edit.
//!
//! `ElectLeaders`, versions 0 to 2.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `ElectLeaders`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectLeadersRequest {
    /// Versions 1 to 2.
    pub election_type: i8,
    /// Versions 0 to 2, may be null.
    pub topic_partitions: Option<Vec<TopicPartitions>>,
    /// Versions 0 to 2.
    pub timeout_ms: i32,
}

impl Default for ElectLeadersRequest {
    fn default() -> Self {
        Self {
            election_type: 0,
            topic_partitions: None,
            timeout_ms: 60000,
        }
    }
}

impl Wire for ElectLeadersRequest {
    const LEAST_BYTES: usize = 7;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            election_type: if version >= 1 { s.int8("election_type")? } else { 0 },
            topic_partitions: s.array_or_null("topic_partitions", true)?,
            timeout_ms: s.int32("timeout_ms")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 1 {
            w.int8(self.election_type);
        } else {
            w.must_be_default("election_type", self.election_type == 0)?;
        }
        w.array_or_null("topic_partitions", self.topic_partitions.as_deref(), true)?;
        w.int32(self.timeout_ms);
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topic_partitions` of `ElectLeaders`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicPartitions {
    /// Versions 0 to 2.
    pub topic: Text,
    /// Versions 0 to 2.
    pub partitions: Vec<i32>,
}

impl Wire for TopicPartitions {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topic: s.string("topic")?,
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("topic", &self.topic)?;
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `ElectLeaders`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ElectLeadersResponse {
    /// Versions 0 to 2.
    pub throttle_time_ms: i32,
    /// Versions 1 to 2.
    pub error_code: i16,
    /// Versions 0 to 2.
    pub replica_election_results: Vec<ReplicaElectionResult>,
}

impl Wire for ElectLeadersResponse {
    const LEAST_BYTES: usize = 8;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: if version >= 1 { s.int16("error_code")? } else { 0 },
            replica_election_results: s.array("replica_election_results")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.throttle_time_ms);
        if version >= 1 {
            w.int16(self.error_code);
        } else {
            w.must_be_default("error_code", self.error_code == 0)?;
        }
        w.array("replica_election_results", &self.replica_election_results)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `replica_election_results` of `ElectLeaders`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaElectionResult {
    /// Versions 0 to 2.
    pub topic: Text,
    /// Versions 0 to 2.
    pub partition_result: Vec<PartitionResult>,
}

impl Wire for ReplicaElectionResult {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topic: s.string("topic")?,
            partition_result: s.array("partition_result")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("topic", &self.topic)?;
        w.array("partition_result", &self.partition_result)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partition_result` of `ElectLeaders`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionResult {
    /// Versions 0 to 2.
    pub partition_id: i32,
    /// Versions 0 to 2.
    pub error_code: i16,
    /// Versions 0 to 2, may be null.
    pub error_message: Option<Text>,
}

impl Wire for PartitionResult {
    const LEAST_BYTES: usize = 8;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_id: s.int32("partition_id")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_id);
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}
