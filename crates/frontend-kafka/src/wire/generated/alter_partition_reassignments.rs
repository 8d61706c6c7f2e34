//! @generated from `messages/alter_partition_reassignments.txt` by `cargo xtask kafka`: do not edit.
//!
//! `AlterPartitionReassignments`, versions 0 to 1.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `AlterPartitionReassignments`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterPartitionReassignmentsRequest {
    /// Versions 0 to 1.
    pub timeout_ms: i32,
    /// Version 1.
    pub allow_replication_factor_change: bool,
    /// Versions 0 to 1.
    pub topics: Vec<ReassignableTopic>,
}

impl Default for AlterPartitionReassignmentsRequest {
    fn default() -> Self {
        Self {
            timeout_ms: 60000,
            allow_replication_factor_change: true,
            topics: Vec::new(),
        }
    }
}

impl Wire for AlterPartitionReassignmentsRequest {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            timeout_ms: s.int32("timeout_ms")?,
            allow_replication_factor_change: if version == 1 { s.boolean("allow_replication_factor_change")? } else { true },
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.timeout_ms);
        if version == 1 {
            w.boolean(self.allow_replication_factor_change);
        } else {
            w.must_be_default("allow_replication_factor_change", self.allow_replication_factor_change)?;
        }
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `AlterPartitionReassignments`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReassignableTopic {
    /// Versions 0 to 1.
    pub name: Text,
    /// Versions 0 to 1.
    pub partitions: Vec<ReassignablePartition>,
}

impl Wire for ReassignableTopic {
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

/// Part `partitions` of `AlterPartitionReassignments`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReassignablePartition {
    /// Versions 0 to 1.
    pub partition_index: i32,
    /// Versions 0 to 1, may be null.
    pub replicas: Option<Vec<i32>>,
}

impl Wire for ReassignablePartition {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_index: s.int32("partition_index")?,
            replicas: s.array_or_null("replicas", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_index);
        w.array_or_null("replicas", self.replicas.as_deref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `AlterPartitionReassignments`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterPartitionReassignmentsResponse {
    /// Versions 0 to 1.
    pub throttle_time_ms: i32,
    /// Version 1.
    pub allow_replication_factor_change: bool,
    /// Versions 0 to 1.
    pub error_code: i16,
    /// Versions 0 to 1, may be null.
    pub error_message: Option<Text>,
    /// Versions 0 to 1.
    pub responses: Vec<ReassignableTopicResponse>,
}

impl Default for AlterPartitionReassignmentsResponse {
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            allow_replication_factor_change: true,
            error_code: 0,
            error_message: None,
            responses: Vec::new(),
        }
    }
}

impl Wire for AlterPartitionReassignmentsResponse {
    const LEAST_BYTES: usize = 9;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            allow_replication_factor_change: if version == 1 { s.boolean("allow_replication_factor_change")? } else { true },
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            responses: s.array("responses")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.throttle_time_ms);
        if version == 1 {
            w.boolean(self.allow_replication_factor_change);
        }
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.array("responses", &self.responses)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `responses` of `AlterPartitionReassignments`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReassignableTopicResponse {
    /// Versions 0 to 1.
    pub name: Text,
    /// Versions 0 to 1.
    pub partitions: Vec<ReassignablePartitionResponse>,
}

impl Wire for ReassignableTopicResponse {
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

/// Part `partitions` of `AlterPartitionReassignments`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReassignablePartitionResponse {
    /// Versions 0 to 1.
    pub partition_index: i32,
    /// Versions 0 to 1.
    pub error_code: i16,
    /// Versions 0 to 1, may be null.
    pub error_message: Option<Text>,
}

impl Wire for ReassignablePartitionResponse {
    const LEAST_BYTES: usize = 8;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_index: s.int32("partition_index")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_index);
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}
