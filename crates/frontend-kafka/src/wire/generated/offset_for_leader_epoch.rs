//! @generated from `messages/offset_for_leader_epoch.txt` by `cargo xtask kafka`: do not edit.
//!
//! `OffsetForLeaderEpoch`, versions 0 to 4.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `OffsetForLeaderEpoch`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetForLeaderEpochRequest {
    /// Versions 3 to 4.
    pub replica_id: i32,
    /// Versions 0 to 4.
    pub topics: Vec<OffsetForLeaderTopic>,
}

impl Default for OffsetForLeaderEpochRequest {
    fn default() -> Self {
        Self {
            replica_id: -2,
            topics: Vec::new(),
        }
    }
}

impl Wire for OffsetForLeaderEpochRequest {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            replica_id: if version >= 3 { s.int32("replica_id")? } else { -2 },
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 3 {
            w.int32(self.replica_id);
        }
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `OffsetForLeaderEpoch`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetForLeaderTopic {
    /// Versions 0 to 4.
    pub topic: Text,
    /// Versions 0 to 4.
    pub partitions: Vec<OffsetForLeaderPartition>,
}

impl Wire for OffsetForLeaderTopic {
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

/// Part `partitions` of `OffsetForLeaderEpoch`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetForLeaderPartition {
    /// Versions 0 to 4.
    pub partition: i32,
    /// Versions 2 to 4.
    pub current_leader_epoch: i32,
    /// Versions 0 to 4.
    pub leader_epoch: i32,
}

impl Default for OffsetForLeaderPartition {
    fn default() -> Self {
        Self {
            partition: 0,
            current_leader_epoch: -1,
            leader_epoch: 0,
        }
    }
}

impl Wire for OffsetForLeaderPartition {
    const LEAST_BYTES: usize = 8;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            partition: s.int32("partition")?,
            current_leader_epoch: if version >= 2 { s.int32("current_leader_epoch")? } else { -1 },
            leader_epoch: s.int32("leader_epoch")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.partition);
        if version >= 2 {
            w.int32(self.current_leader_epoch);
        }
        w.int32(self.leader_epoch);
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `OffsetForLeaderEpoch`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetForLeaderEpochResponse {
    /// Versions 2 to 4.
    pub throttle_time_ms: i32,
    /// Versions 0 to 4.
    pub topics: Vec<OffsetForLeaderTopicResult>,
}

impl Wire for OffsetForLeaderEpochResponse {
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

/// Part `topics` of `OffsetForLeaderEpoch`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetForLeaderTopicResult {
    /// Versions 0 to 4.
    pub topic: Text,
    /// Versions 0 to 4.
    pub partitions: Vec<EpochEndOffset>,
}

impl Wire for OffsetForLeaderTopicResult {
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

/// Part `partitions` of `OffsetForLeaderEpoch`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochEndOffset {
    /// Versions 0 to 4.
    pub error_code: i16,
    /// Versions 0 to 4.
    pub partition: i32,
    /// Versions 1 to 4.
    pub leader_epoch: i32,
    /// Versions 0 to 4.
    pub end_offset: i64,
}

impl Default for EpochEndOffset {
    fn default() -> Self {
        Self {
            error_code: 0,
            partition: 0,
            leader_epoch: -1,
            end_offset: -1,
        }
    }
}

impl Wire for EpochEndOffset {
    const LEAST_BYTES: usize = 14;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            error_code: s.int16("error_code")?,
            partition: s.int32("partition")?,
            leader_epoch: if version >= 1 { s.int32("leader_epoch")? } else { -1 },
            end_offset: s.int64("end_offset")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int16(self.error_code);
        w.int32(self.partition);
        if version >= 1 {
            w.int32(self.leader_epoch);
        }
        w.int64(self.end_offset);
        w.tag_count(0);
        Ok(())
    }
}
