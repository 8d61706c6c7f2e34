//! @generated from `messages/delete_records.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DeleteRecords`, versions 0 to 2.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `DeleteRecords`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRecordsRequest {
    /// Versions 0 to 2.
    pub topics: Vec<DeleteRecordsTopic>,
    /// Versions 0 to 2.
    pub timeout_ms: i32,
}

impl Wire for DeleteRecordsRequest {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topics: s.array("topics")?,
            timeout_ms: s.int32("timeout_ms")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("topics", &self.topics)?;
        w.int32(self.timeout_ms);
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DeleteRecords`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRecordsTopic {
    /// Versions 0 to 2.
    pub name: Text,
    /// Versions 0 to 2.
    pub partitions: Vec<DeleteRecordsPartition>,
}

impl Wire for DeleteRecordsTopic {
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

/// Part `partitions` of `DeleteRecords`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRecordsPartition {
    /// Versions 0 to 2.
    pub partition_index: i32,
    /// Versions 0 to 2.
    pub offset: i64,
}

impl Wire for DeleteRecordsPartition {
    const LEAST_BYTES: usize = 12;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_index: s.int32("partition_index")?,
            offset: s.int64("offset")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_index);
        w.int64(self.offset);
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DeleteRecords`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRecordsResponse {
    /// Versions 0 to 2.
    pub throttle_time_ms: i32,
    /// Versions 0 to 2.
    pub topics: Vec<DeleteRecordsTopicResult>,
}

impl Wire for DeleteRecordsResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DeleteRecords`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRecordsTopicResult {
    /// Versions 0 to 2.
    pub name: Text,
    /// Versions 0 to 2.
    pub partitions: Vec<DeleteRecordsPartitionResult>,
}

impl Wire for DeleteRecordsTopicResult {
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

/// Part `partitions` of `DeleteRecords`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRecordsPartitionResult {
    /// Versions 0 to 2.
    pub partition_index: i32,
    /// Versions 0 to 2.
    pub low_watermark: i64,
    /// Versions 0 to 2.
    pub error_code: i16,
}

impl Wire for DeleteRecordsPartitionResult {
    const LEAST_BYTES: usize = 14;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_index: s.int32("partition_index")?,
            low_watermark: s.int64("low_watermark")?,
            error_code: s.int16("error_code")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_index);
        w.int64(self.low_watermark);
        w.int16(self.error_code);
        w.tag_count(0);
        Ok(())
    }
}
