//! @generated from `messages/offset_delete.txt` by `cargo xtask kafka`: do not edit.
//!
//! `OffsetDelete`, version 0.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `OffsetDelete`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetDeleteRequest {
    /// Version 0.
    pub group_id: Text,
    /// Version 0.
    pub topics: Vec<OffsetDeleteRequestTopic>,
}

impl Wire for OffsetDeleteRequest {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            group_id: s.string("group_id")?,
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("group_id", &self.group_id)?;
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `OffsetDelete`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetDeleteRequestTopic {
    /// Version 0.
    pub name: Text,
    /// Version 0.
    pub partitions: Vec<OffsetDeleteRequestPartition>,
}

impl Wire for OffsetDeleteRequestTopic {
    const LEAST_BYTES: usize = 6;

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

/// Part `partitions` of `OffsetDelete`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetDeleteRequestPartition {
    /// Version 0.
    pub partition_index: i32,
}

impl Wire for OffsetDeleteRequestPartition {
    const LEAST_BYTES: usize = 4;

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

/// Response of `OffsetDelete`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetDeleteResponse {
    /// Version 0.
    pub error_code: i16,
    /// Version 0.
    pub throttle_time_ms: i32,
    /// Version 0.
    pub topics: Vec<OffsetDeleteResponseTopic>,
}

impl Wire for OffsetDeleteResponse {
    const LEAST_BYTES: usize = 10;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            error_code: s.int16("error_code")?,
            throttle_time_ms: s.int32("throttle_time_ms")?,
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int16(self.error_code);
        w.int32(self.throttle_time_ms);
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `OffsetDelete`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetDeleteResponseTopic {
    /// Version 0.
    pub name: Text,
    /// Version 0.
    pub partitions: Vec<OffsetDeleteResponsePartition>,
}

impl Wire for OffsetDeleteResponseTopic {
    const LEAST_BYTES: usize = 6;

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

/// Part `partitions` of `OffsetDelete`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetDeleteResponsePartition {
    /// Version 0.
    pub partition_index: i32,
    /// Version 0.
    pub error_code: i16,
}

impl Wire for OffsetDeleteResponsePartition {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_index: s.int32("partition_index")?,
            error_code: s.int16("error_code")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_index);
        w.int16(self.error_code);
        w.tag_count(0);
        Ok(())
    }
}
