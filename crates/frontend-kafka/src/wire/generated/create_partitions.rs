//! @generated from `messages/create_partitions.txt` by `cargo xtask kafka`: do not edit.
//!
//! `CreatePartitions`, versions 0 to 3.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `CreatePartitions`, versions 0 to 3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreatePartitionsRequest {
    /// Versions 0 to 3.
    pub topics: Vec<CreatePartitionsTopic>,
    /// Versions 0 to 3.
    pub timeout_ms: i32,
    /// Versions 0 to 3.
    pub validate_only: bool,
}

impl Wire for CreatePartitionsRequest {
    const LEAST_BYTES: usize = 7;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topics: s.array("topics")?,
            timeout_ms: s.int32("timeout_ms")?,
            validate_only: s.boolean("validate_only")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("topics", &self.topics)?;
        w.int32(self.timeout_ms);
        w.boolean(self.validate_only);
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `CreatePartitions`, versions 0 to 3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreatePartitionsTopic {
    /// Versions 0 to 3.
    pub name: Text,
    /// Versions 0 to 3.
    pub count: i32,
    /// Versions 0 to 3, may be null.
    pub assignments: Option<Vec<CreatePartitionsAssignment>>,
}

impl Wire for CreatePartitionsTopic {
    const LEAST_BYTES: usize = 7;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
            count: s.int32("count")?,
            assignments: s.array_or_null("assignments", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.int32(self.count);
        w.array_or_null("assignments", self.assignments.as_deref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `assignments` of `CreatePartitions`, versions 0 to 3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreatePartitionsAssignment {
    /// Versions 0 to 3.
    pub broker_ids: Vec<i32>,
}

impl Wire for CreatePartitionsAssignment {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            broker_ids: s.array("broker_ids")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("broker_ids", &self.broker_ids)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `CreatePartitions`, versions 0 to 3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreatePartitionsResponse {
    /// Versions 0 to 3.
    pub throttle_time_ms: i32,
    /// Versions 0 to 3.
    pub results: Vec<CreatePartitionsTopicResult>,
}

impl Wire for CreatePartitionsResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            results: s.array("results")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.array("results", &self.results)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `results` of `CreatePartitions`, versions 0 to 3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreatePartitionsTopicResult {
    /// Versions 0 to 3.
    pub name: Text,
    /// Versions 0 to 3.
    pub error_code: i16,
    /// Versions 0 to 3, may be null.
    pub error_message: Option<Text>,
}

impl Wire for CreatePartitionsTopicResult {
    const LEAST_BYTES: usize = 5;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}
