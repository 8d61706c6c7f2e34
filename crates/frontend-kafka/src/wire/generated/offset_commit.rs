//! @generated from `messages/offset_commit.txt` by `cargo xtask kafka`: do not edit.
//!
//! `OffsetCommit`, versions 0 to 10.

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `OffsetCommit`, versions 0 to 10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommitRequest {
    /// Versions 0 to 10.
    pub group_id: Text,
    /// Versions 1 to 10.
    pub generation_id_or_member_epoch: i32,
    /// Versions 1 to 10.
    pub member_id: Text,
    /// Versions 7 to 10, may be null.
    pub group_instance_id: Option<Text>,
    /// Versions 2 to 4.
    pub retention_time_ms: i64,
    /// Versions 0 to 10.
    pub topics: Vec<OffsetCommitRequestTopic>,
}

impl Default for OffsetCommitRequest {
    fn default() -> Self {
        Self {
            group_id: Text::EMPTY,
            generation_id_or_member_epoch: -1,
            member_id: Text::EMPTY,
            group_instance_id: None,
            retention_time_ms: -1,
            topics: Vec::new(),
        }
    }
}

impl Wire for OffsetCommitRequest {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            group_id: s.string("group_id")?,
            generation_id_or_member_epoch: if version >= 1 { s.int32("generation_id_or_member_epoch")? } else { -1 },
            member_id: if version >= 1 { s.string("member_id")? } else { Text::EMPTY },
            group_instance_id: if version >= 7 { s.string_or_null("group_instance_id", true)? } else { None },
            retention_time_ms: if (2..=4).contains(&version) { s.int64("retention_time_ms")? } else { -1 },
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("group_id", &self.group_id)?;
        if version >= 1 {
            w.int32(self.generation_id_or_member_epoch);
        }
        if version >= 1 {
            w.string("member_id", &self.member_id)?;
        }
        if version >= 7 {
            w.string_or_null("group_instance_id", self.group_instance_id.as_ref(), true)?;
        } else {
            w.must_be_default("group_instance_id", self.group_instance_id.is_none())?;
        }
        if (2..=4).contains(&version) {
            w.int64(self.retention_time_ms);
        }
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `OffsetCommit`, versions 0 to 10.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetCommitRequestTopic {
    /// Versions 0 to 9.
    pub name: Text,
    /// Version 10.
    pub topic_id: Uuid,
    /// Versions 0 to 10.
    pub partitions: Vec<OffsetCommitRequestPartition>,
}

impl Wire for OffsetCommitRequestTopic {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version <= 9 { s.string("name")? } else { Text::EMPTY },
            topic_id: if version == 10 { s.uuid("topic_id")? } else { Uuid::ZERO },
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 9 {
            w.string("name", &self.name)?;
        }
        if version == 10 {
            w.uuid(self.topic_id);
        }
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `OffsetCommit`, versions 0 to 10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommitRequestPartition {
    /// Versions 0 to 10.
    pub partition_index: i32,
    /// Versions 0 to 10.
    pub committed_offset: i64,
    /// Versions 6 to 10.
    pub committed_leader_epoch: i32,
    /// Version 1.
    pub commit_timestamp: i64,
    /// Versions 0 to 10, may be null.
    pub committed_metadata: Option<Text>,
}

impl Default for OffsetCommitRequestPartition {
    fn default() -> Self {
        Self {
            partition_index: 0,
            committed_offset: 0,
            committed_leader_epoch: -1,
            commit_timestamp: -1,
            committed_metadata: None,
        }
    }
}

impl Wire for OffsetCommitRequestPartition {
    const LEAST_BYTES: usize = 14;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            partition_index: s.int32("partition_index")?,
            committed_offset: s.int64("committed_offset")?,
            committed_leader_epoch: if version >= 6 { s.int32("committed_leader_epoch")? } else { -1 },
            commit_timestamp: if version == 1 { s.int64("commit_timestamp")? } else { -1 },
            committed_metadata: s.string_or_null("committed_metadata", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.partition_index);
        w.int64(self.committed_offset);
        if version >= 6 {
            w.int32(self.committed_leader_epoch);
        }
        if version == 1 {
            w.int64(self.commit_timestamp);
        } else {
            w.must_be_default("commit_timestamp", self.commit_timestamp == -1)?;
        }
        w.string_or_null("committed_metadata", self.committed_metadata.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `OffsetCommit`, versions 0 to 10.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetCommitResponse {
    /// Versions 3 to 10.
    pub throttle_time_ms: i32,
    /// Versions 0 to 10.
    pub topics: Vec<OffsetCommitResponseTopic>,
}

impl Wire for OffsetCommitResponse {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 3 { s.int32("throttle_time_ms")? } else { 0 },
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 3 {
            w.int32(self.throttle_time_ms);
        }
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `OffsetCommit`, versions 0 to 10.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetCommitResponseTopic {
    /// Versions 0 to 9.
    pub name: Text,
    /// Version 10.
    pub topic_id: Uuid,
    /// Versions 0 to 10.
    pub partitions: Vec<OffsetCommitResponsePartition>,
}

impl Wire for OffsetCommitResponseTopic {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version <= 9 { s.string("name")? } else { Text::EMPTY },
            topic_id: if version == 10 { s.uuid("topic_id")? } else { Uuid::ZERO },
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 9 {
            w.string("name", &self.name)?;
        }
        if version == 10 {
            w.uuid(self.topic_id);
        }
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `OffsetCommit`, versions 0 to 10.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetCommitResponsePartition {
    /// Versions 0 to 10.
    pub partition_index: i32,
    /// Versions 0 to 10.
    pub error_code: i16,
}

impl Wire for OffsetCommitResponsePartition {
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
