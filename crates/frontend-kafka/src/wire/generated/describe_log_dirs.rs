//! @generated from `messages/describe_log_dirs.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DescribeLogDirs`, versions 0 to 5.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `DescribeLogDirs`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeLogDirsRequest {
    /// Versions 0 to 5, may be null.
    pub topics: Option<Vec<DescribableLogDirTopic>>,
}

impl Wire for DescribeLogDirsRequest {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topics: s.array_or_null("topics", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array_or_null("topics", self.topics.as_deref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DescribeLogDirs`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribableLogDirTopic {
    /// Versions 0 to 5.
    pub topic: Text,
    /// Versions 0 to 5.
    pub partitions: Vec<i32>,
}

impl Wire for DescribableLogDirTopic {
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

/// Response of `DescribeLogDirs`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeLogDirsResponse {
    /// Versions 0 to 5.
    pub throttle_time_ms: i32,
    /// Versions 3 to 5.
    pub error_code: i16,
    /// Versions 0 to 5.
    pub results: Vec<DescribeLogDirsResult>,
}

impl Wire for DescribeLogDirsResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: if version >= 3 { s.int16("error_code")? } else { 0 },
            results: s.array("results")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.throttle_time_ms);
        if version >= 3 {
            w.int16(self.error_code);
        }
        w.array("results", &self.results)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `results` of `DescribeLogDirs`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeLogDirsResult {
    /// Versions 0 to 5.
    pub error_code: i16,
    /// Versions 0 to 5.
    pub log_dir: Text,
    /// Versions 0 to 5.
    pub topics: Vec<DescribeLogDirsTopic>,
    /// Versions 4 to 5.
    pub total_bytes: i64,
    /// Versions 4 to 5.
    pub usable_bytes: i64,
    /// Version 5.
    pub is_cordoned: bool,
}

impl Default for DescribeLogDirsResult {
    fn default() -> Self {
        Self {
            error_code: 0,
            log_dir: Text::EMPTY,
            topics: Vec::new(),
            total_bytes: -1,
            usable_bytes: -1,
            is_cordoned: false,
        }
    }
}

impl Wire for DescribeLogDirsResult {
    const LEAST_BYTES: usize = 5;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            error_code: s.int16("error_code")?,
            log_dir: s.string("log_dir")?,
            topics: s.array("topics")?,
            total_bytes: if version >= 4 { s.int64("total_bytes")? } else { -1 },
            usable_bytes: if version >= 4 { s.int64("usable_bytes")? } else { -1 },
            is_cordoned: if version == 5 { s.boolean("is_cordoned")? } else { false },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int16(self.error_code);
        w.string("log_dir", &self.log_dir)?;
        w.array("topics", &self.topics)?;
        if version >= 4 {
            w.int64(self.total_bytes);
        }
        if version >= 4 {
            w.int64(self.usable_bytes);
        }
        if version == 5 {
            w.boolean(self.is_cordoned);
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DescribeLogDirs`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeLogDirsTopic {
    /// Versions 0 to 5.
    pub name: Text,
    /// Versions 0 to 5.
    pub partitions: Vec<DescribeLogDirsPartition>,
}

impl Wire for DescribeLogDirsTopic {
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

/// Part `partitions` of `DescribeLogDirs`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeLogDirsPartition {
    /// Versions 0 to 5.
    pub partition_index: i32,
    /// Versions 0 to 5.
    pub partition_size: i64,
    /// Versions 0 to 5.
    pub offset_lag: i64,
    /// Versions 0 to 5.
    pub is_future_key: bool,
}

impl Wire for DescribeLogDirsPartition {
    const LEAST_BYTES: usize = 21;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_index: s.int32("partition_index")?,
            partition_size: s.int64("partition_size")?,
            offset_lag: s.int64("offset_lag")?,
            is_future_key: s.boolean("is_future_key")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_index);
        w.int64(self.partition_size);
        w.int64(self.offset_lag);
        w.boolean(self.is_future_key);
        w.tag_count(0);
        Ok(())
    }
}
