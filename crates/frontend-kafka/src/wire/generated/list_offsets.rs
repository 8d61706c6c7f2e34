//! @generated from `messages/list_offsets.txt` by `cargo xtask kafka`: do not edit.
//!
//! `ListOffsets`, versions 0 to 11.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `ListOffsets`, versions 0 to 11.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListOffsetsRequest {
    /// Versions 0 to 11.
    pub replica_id: i32,
    /// Versions 2 to 11.
    pub isolation_level: i8,
    /// Versions 0 to 11.
    pub topics: Vec<ListOffsetsTopic>,
    /// Versions 10 to 11.
    pub timeout_ms: i32,
}

impl Wire for ListOffsetsRequest {
    const LEAST_BYTES: usize = 7;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            replica_id: s.int32("replica_id")?,
            isolation_level: if version >= 2 { s.int8("isolation_level")? } else { 0 },
            topics: s.array("topics")?,
            timeout_ms: if version >= 10 { s.int32("timeout_ms")? } else { 0 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.replica_id);
        if version >= 2 {
            w.int8(self.isolation_level);
        } else {
            w.must_be_default("isolation_level", self.isolation_level == 0)?;
        }
        w.array("topics", &self.topics)?;
        if version >= 10 {
            w.int32(self.timeout_ms);
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `ListOffsets`, versions 0 to 11.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListOffsetsTopic {
    /// Versions 0 to 11.
    pub name: Text,
    /// Versions 0 to 11.
    pub partitions: Vec<ListOffsetsPartition>,
}

impl Wire for ListOffsetsTopic {
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

/// Part `partitions` of `ListOffsets`, versions 0 to 11.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOffsetsPartition {
    /// Versions 0 to 11.
    pub partition_index: i32,
    /// Versions 4 to 11.
    pub current_leader_epoch: i32,
    /// Versions 0 to 11.
    pub timestamp: i64,
    /// Version 0.
    pub max_num_offsets: i32,
}

impl Default for ListOffsetsPartition {
    fn default() -> Self {
        Self {
            partition_index: 0,
            current_leader_epoch: -1,
            timestamp: 0,
            max_num_offsets: 1,
        }
    }
}

impl Wire for ListOffsetsPartition {
    const LEAST_BYTES: usize = 12;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            partition_index: s.int32("partition_index")?,
            current_leader_epoch: if version >= 4 { s.int32("current_leader_epoch")? } else { -1 },
            timestamp: s.int64("timestamp")?,
            max_num_offsets: if version == 0 { s.int32("max_num_offsets")? } else { 1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.partition_index);
        if version >= 4 {
            w.int32(self.current_leader_epoch);
        }
        w.int64(self.timestamp);
        if version == 0 {
            w.int32(self.max_num_offsets);
        } else {
            w.must_be_default("max_num_offsets", self.max_num_offsets == 1)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `ListOffsets`, versions 0 to 11.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListOffsetsResponse {
    /// Versions 2 to 11.
    pub throttle_time_ms: i32,
    /// Versions 0 to 11.
    pub topics: Vec<ListOffsetsTopicResponse>,
}

impl Wire for ListOffsetsResponse {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 2 { s.int32("throttle_time_ms")? } else { 0 },
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 2 {
            w.int32(self.throttle_time_ms);
        }
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `ListOffsets`, versions 0 to 11.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListOffsetsTopicResponse {
    /// Versions 0 to 11.
    pub name: Text,
    /// Versions 0 to 11.
    pub partitions: Vec<ListOffsetsPartitionResponse>,
}

impl Wire for ListOffsetsTopicResponse {
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

/// Part `partitions` of `ListOffsets`, versions 0 to 11.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOffsetsPartitionResponse {
    /// Versions 0 to 11.
    pub partition_index: i32,
    /// Versions 0 to 11.
    pub error_code: i16,
    /// Version 0.
    pub old_style_offsets: Vec<i64>,
    /// Versions 1 to 11.
    pub timestamp: i64,
    /// Versions 1 to 11.
    pub offset: i64,
    /// Versions 4 to 11.
    pub leader_epoch: i32,
}

impl Default for ListOffsetsPartitionResponse {
    fn default() -> Self {
        Self {
            partition_index: 0,
            error_code: 0,
            old_style_offsets: Vec::new(),
            timestamp: -1,
            offset: -1,
            leader_epoch: -1,
        }
    }
}

impl Wire for ListOffsetsPartitionResponse {
    const LEAST_BYTES: usize = 10;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            partition_index: s.int32("partition_index")?,
            error_code: s.int16("error_code")?,
            old_style_offsets: if version == 0 { s.array("old_style_offsets")? } else { Vec::new() },
            timestamp: if version >= 1 { s.int64("timestamp")? } else { -1 },
            offset: if version >= 1 { s.int64("offset")? } else { -1 },
            leader_epoch: if version >= 4 { s.int32("leader_epoch")? } else { -1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.partition_index);
        w.int16(self.error_code);
        if version == 0 {
            w.array("old_style_offsets", &self.old_style_offsets)?;
        } else {
            w.must_be_default("old_style_offsets", self.old_style_offsets.is_empty())?;
        }
        if version >= 1 {
            w.int64(self.timestamp);
        } else {
            w.must_be_default("timestamp", self.timestamp == -1)?;
        }
        if version >= 1 {
            w.int64(self.offset);
        } else {
            w.must_be_default("offset", self.offset == -1)?;
        }
        if version >= 4 {
            w.int32(self.leader_epoch);
        } else {
            w.must_be_default("leader_epoch", self.leader_epoch == -1)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
