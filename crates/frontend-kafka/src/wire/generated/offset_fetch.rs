//! @generated from `messages/offset_fetch.txt` by `cargo xtask kafka`: do not edit.
//!
//! `OffsetFetch`, versions 0 to 10.

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `OffsetFetch`, versions 0 to 10.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetFetchRequest {
    /// Versions 0 to 7.
    pub group_id: Text,
    /// Versions 0 to 7, may be null in versions 2 to 7.
    pub topics: Option<Vec<OffsetFetchRequestTopic>>,
    /// Versions 8 to 10.
    pub groups: Vec<OffsetFetchRequestGroup>,
    /// Versions 7 to 10.
    pub require_stable: bool,
}

impl Wire for OffsetFetchRequest {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            group_id: if version <= 7 { s.string("group_id")? } else { Text::EMPTY },
            topics: if version <= 7 { s.array_or_null("topics", version >= 2)? } else { None },
            groups: if version >= 8 { s.array("groups")? } else { Vec::new() },
            require_stable: if version >= 7 { s.boolean("require_stable")? } else { false },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 7 {
            w.string("group_id", &self.group_id)?;
        } else {
            w.must_be_default("group_id", self.group_id.is_empty())?;
        }
        if version <= 7 {
            w.array_or_null("topics", self.topics.as_deref(), version >= 2)?;
        } else {
            w.must_be_default("topics", self.topics.is_none())?;
        }
        if version >= 8 {
            w.array("groups", &self.groups)?;
        } else {
            w.must_be_default("groups", self.groups.is_empty())?;
        }
        if version >= 7 {
            w.boolean(self.require_stable);
        } else {
            w.must_be_default("require_stable", !self.require_stable)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `OffsetFetch`, versions 0 to 7.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetFetchRequestTopic {
    /// Versions 0 to 7.
    pub name: Text,
    /// Versions 0 to 7.
    pub partition_indexes: Vec<i32>,
}

impl Wire for OffsetFetchRequestTopic {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version <= 7 { s.string("name")? } else { Text::EMPTY },
            partition_indexes: if version <= 7 { s.array("partition_indexes")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 7 {
            w.string("name", &self.name)?;
        } else {
            w.must_be_default("name", self.name.is_empty())?;
        }
        if version <= 7 {
            w.array("partition_indexes", &self.partition_indexes)?;
        } else {
            w.must_be_default("partition_indexes", self.partition_indexes.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `groups` of `OffsetFetch`, versions 8 to 10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetFetchRequestGroup {
    /// Versions 8 to 10.
    pub group_id: Text,
    /// Versions 9 to 10, may be null.
    pub member_id: Option<Text>,
    /// Versions 9 to 10.
    pub member_epoch: i32,
    /// Versions 8 to 10, may be null.
    pub topics: Option<Vec<OffsetFetchRequestTopics>>,
}

impl Default for OffsetFetchRequestGroup {
    fn default() -> Self {
        Self {
            group_id: Text::EMPTY,
            member_id: None,
            member_epoch: -1,
            topics: None,
        }
    }
}

impl Wire for OffsetFetchRequestGroup {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            group_id: if version >= 8 { s.string("group_id")? } else { Text::EMPTY },
            member_id: if version >= 9 { s.string_or_null("member_id", true)? } else { None },
            member_epoch: if version >= 9 { s.int32("member_epoch")? } else { -1 },
            topics: if version >= 8 { s.array_or_null("topics", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 8 {
            w.string("group_id", &self.group_id)?;
        } else {
            w.must_be_default("group_id", self.group_id.is_empty())?;
        }
        if version >= 9 {
            w.string_or_null("member_id", self.member_id.as_ref(), true)?;
        }
        if version >= 9 {
            w.int32(self.member_epoch);
        }
        if version >= 8 {
            w.array_or_null("topics", self.topics.as_deref(), true)?;
        } else {
            w.must_be_default("topics", self.topics.is_none())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `OffsetFetch`, versions 8 to 10.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetFetchRequestTopics {
    /// Versions 8 to 9.
    pub name: Text,
    /// Version 10.
    pub topic_id: Uuid,
    /// Versions 8 to 10.
    pub partition_indexes: Vec<i32>,
}

impl Wire for OffsetFetchRequestTopics {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if (8..=9).contains(&version) { s.string("name")? } else { Text::EMPTY },
            topic_id: if version == 10 { s.uuid("topic_id")? } else { Uuid::ZERO },
            partition_indexes: if version >= 8 { s.array("partition_indexes")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if (8..=9).contains(&version) {
            w.string("name", &self.name)?;
        }
        if version == 10 {
            w.uuid(self.topic_id);
        }
        if version >= 8 {
            w.array("partition_indexes", &self.partition_indexes)?;
        } else {
            w.must_be_default("partition_indexes", self.partition_indexes.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `OffsetFetch`, versions 0 to 10.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetFetchResponse {
    /// Versions 3 to 10.
    pub throttle_time_ms: i32,
    /// Versions 0 to 7.
    pub topics: Vec<OffsetFetchResponseTopic>,
    /// Versions 2 to 7.
    pub error_code: i16,
    /// Versions 8 to 10.
    pub groups: Vec<OffsetFetchResponseGroup>,
}

impl Wire for OffsetFetchResponse {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 3 { s.int32("throttle_time_ms")? } else { 0 },
            topics: if version <= 7 { s.array("topics")? } else { Vec::new() },
            error_code: if (2..=7).contains(&version) { s.int16("error_code")? } else { 0 },
            groups: if version >= 8 { s.array("groups")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 3 {
            w.int32(self.throttle_time_ms);
        }
        if version <= 7 {
            w.array("topics", &self.topics)?;
        } else {
            w.must_be_default("topics", self.topics.is_empty())?;
        }
        if (2..=7).contains(&version) {
            w.int16(self.error_code);
        }
        if version >= 8 {
            w.array("groups", &self.groups)?;
        } else {
            w.must_be_default("groups", self.groups.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `OffsetFetch`, versions 0 to 7.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetFetchResponseTopic {
    /// Versions 0 to 7.
    pub name: Text,
    /// Versions 0 to 7.
    pub partitions: Vec<OffsetFetchResponsePartition>,
}

impl Wire for OffsetFetchResponseTopic {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version <= 7 { s.string("name")? } else { Text::EMPTY },
            partitions: if version <= 7 { s.array("partitions")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 7 {
            w.string("name", &self.name)?;
        } else {
            w.must_be_default("name", self.name.is_empty())?;
        }
        if version <= 7 {
            w.array("partitions", &self.partitions)?;
        } else {
            w.must_be_default("partitions", self.partitions.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `OffsetFetch`, versions 0 to 7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetFetchResponsePartition {
    /// Versions 0 to 7.
    pub partition_index: i32,
    /// Versions 0 to 7.
    pub committed_offset: i64,
    /// Versions 5 to 7.
    pub committed_leader_epoch: i32,
    /// Versions 0 to 7, may be null.
    pub metadata: Option<Text>,
    /// Versions 0 to 7.
    pub error_code: i16,
}

impl Default for OffsetFetchResponsePartition {
    fn default() -> Self {
        Self {
            partition_index: 0,
            committed_offset: 0,
            committed_leader_epoch: -1,
            metadata: None,
            error_code: 0,
        }
    }
}

impl Wire for OffsetFetchResponsePartition {
    const LEAST_BYTES: usize = 16;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            partition_index: if version <= 7 { s.int32("partition_index")? } else { 0 },
            committed_offset: if version <= 7 { s.int64("committed_offset")? } else { 0 },
            committed_leader_epoch: if (5..=7).contains(&version) { s.int32("committed_leader_epoch")? } else { -1 },
            metadata: if version <= 7 { s.string_or_null("metadata", true)? } else { None },
            error_code: if version <= 7 { s.int16("error_code")? } else { 0 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 7 {
            w.int32(self.partition_index);
        } else {
            w.must_be_default("partition_index", self.partition_index == 0)?;
        }
        if version <= 7 {
            w.int64(self.committed_offset);
        } else {
            w.must_be_default("committed_offset", self.committed_offset == 0)?;
        }
        if (5..=7).contains(&version) {
            w.int32(self.committed_leader_epoch);
        }
        if version <= 7 {
            w.string_or_null("metadata", self.metadata.as_ref(), true)?;
        } else {
            w.must_be_default("metadata", self.metadata.is_none())?;
        }
        if version <= 7 {
            w.int16(self.error_code);
        } else {
            w.must_be_default("error_code", self.error_code == 0)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `groups` of `OffsetFetch`, versions 8 to 10.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetFetchResponseGroup {
    /// Versions 8 to 10.
    pub group_id: Text,
    /// Versions 8 to 10.
    pub topics: Vec<OffsetFetchResponseTopics>,
    /// Versions 8 to 10.
    pub error_code: i16,
}

impl Wire for OffsetFetchResponseGroup {
    const LEAST_BYTES: usize = 5;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            group_id: if version >= 8 { s.string("group_id")? } else { Text::EMPTY },
            topics: if version >= 8 { s.array("topics")? } else { Vec::new() },
            error_code: if version >= 8 { s.int16("error_code")? } else { 0 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 8 {
            w.string("group_id", &self.group_id)?;
        } else {
            w.must_be_default("group_id", self.group_id.is_empty())?;
        }
        if version >= 8 {
            w.array("topics", &self.topics)?;
        } else {
            w.must_be_default("topics", self.topics.is_empty())?;
        }
        if version >= 8 {
            w.int16(self.error_code);
        } else {
            w.must_be_default("error_code", self.error_code == 0)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `OffsetFetch`, versions 8 to 10.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OffsetFetchResponseTopics {
    /// Versions 8 to 9.
    pub name: Text,
    /// Version 10.
    pub topic_id: Uuid,
    /// Versions 8 to 10.
    pub partitions: Vec<OffsetFetchResponsePartitions>,
}

impl Wire for OffsetFetchResponseTopics {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if (8..=9).contains(&version) { s.string("name")? } else { Text::EMPTY },
            topic_id: if version == 10 { s.uuid("topic_id")? } else { Uuid::ZERO },
            partitions: if version >= 8 { s.array("partitions")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if (8..=9).contains(&version) {
            w.string("name", &self.name)?;
        }
        if version == 10 {
            w.uuid(self.topic_id);
        }
        if version >= 8 {
            w.array("partitions", &self.partitions)?;
        } else {
            w.must_be_default("partitions", self.partitions.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `OffsetFetch`, versions 8 to 10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetFetchResponsePartitions {
    /// Versions 8 to 10.
    pub partition_index: i32,
    /// Versions 8 to 10.
    pub committed_offset: i64,
    /// Versions 8 to 10.
    pub committed_leader_epoch: i32,
    /// Versions 8 to 10, may be null.
    pub metadata: Option<Text>,
    /// Versions 8 to 10.
    pub error_code: i16,
}

impl Default for OffsetFetchResponsePartitions {
    fn default() -> Self {
        Self {
            partition_index: 0,
            committed_offset: 0,
            committed_leader_epoch: -1,
            metadata: None,
            error_code: 0,
        }
    }
}

impl Wire for OffsetFetchResponsePartitions {
    const LEAST_BYTES: usize = 20;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            partition_index: if version >= 8 { s.int32("partition_index")? } else { 0 },
            committed_offset: if version >= 8 { s.int64("committed_offset")? } else { 0 },
            committed_leader_epoch: if version >= 8 { s.int32("committed_leader_epoch")? } else { -1 },
            metadata: if version >= 8 { s.string_or_null("metadata", true)? } else { None },
            error_code: if version >= 8 { s.int16("error_code")? } else { 0 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 8 {
            w.int32(self.partition_index);
        } else {
            w.must_be_default("partition_index", self.partition_index == 0)?;
        }
        if version >= 8 {
            w.int64(self.committed_offset);
        } else {
            w.must_be_default("committed_offset", self.committed_offset == 0)?;
        }
        if version >= 8 {
            w.int32(self.committed_leader_epoch);
        }
        if version >= 8 {
            w.string_or_null("metadata", self.metadata.as_ref(), true)?;
        } else {
            w.must_be_default("metadata", self.metadata.is_none())?;
        }
        if version >= 8 {
            w.int16(self.error_code);
        } else {
            w.must_be_default("error_code", self.error_code == 0)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
