//! @generated from `messages/txn_offset_commit.txt` by `cargo xtask kafka`: do not edit.
//!
//! `TxnOffsetCommit`, versions 0 to 6.

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `TxnOffsetCommit`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnOffsetCommitRequest {
    /// Versions 0 to 6.
    pub transactional_id: Text,
    /// Versions 0 to 6.
    pub group_id: Text,
    /// Versions 0 to 6.
    pub producer_id: i64,
    /// Versions 0 to 6.
    pub producer_epoch: i16,
    /// Versions 3 to 6.
    pub generation_id: i32,
    /// Versions 3 to 6.
    pub member_id: Text,
    /// Versions 3 to 6, may be null.
    pub group_instance_id: Option<Text>,
    /// Versions 0 to 6.
    pub topics: Vec<TxnOffsetCommitRequestTopic>,
}

impl Default for TxnOffsetCommitRequest {
    fn default() -> Self {
        Self {
            transactional_id: Text::EMPTY,
            group_id: Text::EMPTY,
            producer_id: 0,
            producer_epoch: 0,
            generation_id: -1,
            member_id: Text::EMPTY,
            group_instance_id: None,
            topics: Vec::new(),
        }
    }
}

impl Wire for TxnOffsetCommitRequest {
    const LEAST_BYTES: usize = 18;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            transactional_id: s.string("transactional_id")?,
            group_id: s.string("group_id")?,
            producer_id: s.int64("producer_id")?,
            producer_epoch: s.int16("producer_epoch")?,
            generation_id: if version >= 3 { s.int32("generation_id")? } else { -1 },
            member_id: if version >= 3 { s.string("member_id")? } else { Text::EMPTY },
            group_instance_id: if version >= 3 { s.string_or_null("group_instance_id", true)? } else { None },
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("transactional_id", &self.transactional_id)?;
        w.string("group_id", &self.group_id)?;
        w.int64(self.producer_id);
        w.int16(self.producer_epoch);
        if version >= 3 {
            w.int32(self.generation_id);
        } else {
            w.must_be_default("generation_id", self.generation_id == -1)?;
        }
        if version >= 3 {
            w.string("member_id", &self.member_id)?;
        } else {
            w.must_be_default("member_id", self.member_id.is_empty())?;
        }
        if version >= 3 {
            w.string_or_null("group_instance_id", self.group_instance_id.as_ref(), true)?;
        } else {
            w.must_be_default("group_instance_id", self.group_instance_id.is_none())?;
        }
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `TxnOffsetCommit`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnOffsetCommitRequestTopic {
    /// Versions 0 to 5.
    pub name: Text,
    /// Version 6.
    pub topic_id: Uuid,
    /// Versions 0 to 6.
    pub partitions: Vec<TxnOffsetCommitRequestPartition>,
}

impl Wire for TxnOffsetCommitRequestTopic {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version <= 5 { s.string("name")? } else { Text::EMPTY },
            topic_id: if version == 6 { s.uuid("topic_id")? } else { Uuid::ZERO },
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 5 {
            w.string("name", &self.name)?;
        }
        if version == 6 {
            w.uuid(self.topic_id);
        }
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `TxnOffsetCommit`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnOffsetCommitRequestPartition {
    /// Versions 0 to 6.
    pub partition_index: i32,
    /// Versions 0 to 6.
    pub committed_offset: i64,
    /// Versions 2 to 6.
    pub committed_leader_epoch: i32,
    /// Versions 0 to 6, may be null.
    pub committed_metadata: Option<Text>,
}

impl Default for TxnOffsetCommitRequestPartition {
    fn default() -> Self {
        Self {
            partition_index: 0,
            committed_offset: 0,
            committed_leader_epoch: -1,
            committed_metadata: None,
        }
    }
}

impl Wire for TxnOffsetCommitRequestPartition {
    const LEAST_BYTES: usize = 14;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            partition_index: s.int32("partition_index")?,
            committed_offset: s.int64("committed_offset")?,
            committed_leader_epoch: if version >= 2 { s.int32("committed_leader_epoch")? } else { -1 },
            committed_metadata: s.string_or_null("committed_metadata", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.partition_index);
        w.int64(self.committed_offset);
        if version >= 2 {
            w.int32(self.committed_leader_epoch);
        }
        w.string_or_null("committed_metadata", self.committed_metadata.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `TxnOffsetCommit`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnOffsetCommitResponse {
    /// Versions 0 to 6.
    pub throttle_time_ms: i32,
    /// Versions 0 to 6.
    pub topics: Vec<TxnOffsetCommitResponseTopic>,
}

impl Wire for TxnOffsetCommitResponse {
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

/// Part `topics` of `TxnOffsetCommit`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnOffsetCommitResponseTopic {
    /// Versions 0 to 5.
    pub name: Text,
    /// Version 6.
    pub topic_id: Uuid,
    /// Versions 0 to 6.
    pub partitions: Vec<TxnOffsetCommitResponsePartition>,
}

impl Wire for TxnOffsetCommitResponseTopic {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version <= 5 { s.string("name")? } else { Text::EMPTY },
            topic_id: if version == 6 { s.uuid("topic_id")? } else { Uuid::ZERO },
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 5 {
            w.string("name", &self.name)?;
        }
        if version == 6 {
            w.uuid(self.topic_id);
        }
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `TxnOffsetCommit`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnOffsetCommitResponsePartition {
    /// Versions 0 to 6.
    pub partition_index: i32,
    /// Versions 0 to 6.
    pub error_code: i16,
}

impl Wire for TxnOffsetCommitResponsePartition {
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
