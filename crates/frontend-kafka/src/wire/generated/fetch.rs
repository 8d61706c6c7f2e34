//! @generated from `messages/fetch.txt` by `cargo xtask kafka`: do not edit.
//!
//! `Fetch`, versions 0 to 18.

use bytes::Bytes;

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `Fetch`, versions 0 to 18.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// Versions 12 to 18, tagged 0, may be null.
    pub cluster_id: Option<Text>,
    /// Versions 0 to 14.
    pub replica_id: i32,
    /// Versions 15 to 18, tagged 1.
    pub replica_state: ReplicaState,
    /// Versions 0 to 18.
    pub max_wait_ms: i32,
    /// Versions 0 to 18.
    pub min_bytes: i32,
    /// Versions 3 to 18.
    pub max_bytes: i32,
    /// Versions 4 to 18.
    pub isolation_level: i8,
    /// Versions 7 to 18.
    pub session_id: i32,
    /// Versions 7 to 18.
    pub session_epoch: i32,
    /// Versions 0 to 18.
    pub topics: Vec<FetchTopic>,
    /// Versions 7 to 18.
    pub forgotten_topics_data: Vec<ForgottenTopic>,
    /// Versions 11 to 18.
    pub rack_id: Text,
}

impl Default for FetchRequest {
    fn default() -> Self {
        Self {
            cluster_id: None,
            replica_id: -1,
            replica_state: ReplicaState::default(),
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 2147483647,
            isolation_level: 0,
            session_id: 0,
            session_epoch: -1,
            topics: Vec::new(),
            forgotten_topics_data: Vec::new(),
            rack_id: Text::EMPTY,
        }
    }
}

impl Wire for FetchRequest {
    const LEAST_BYTES: usize = 16;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let mut m = Self {
            cluster_id: None,
            replica_id: if version <= 14 { s.int32("replica_id")? } else { -1 },
            replica_state: ReplicaState::default(),
            max_wait_ms: s.int32("max_wait_ms")?,
            min_bytes: s.int32("min_bytes")?,
            max_bytes: if version >= 3 { s.int32("max_bytes")? } else { 2147483647 },
            isolation_level: if version >= 4 { s.int8("isolation_level")? } else { 0 },
            session_id: if version >= 7 { s.int32("session_id")? } else { 0 },
            session_epoch: if version >= 7 { s.int32("session_epoch")? } else { -1 },
            topics: s.array("topics")?,
            forgotten_topics_data: if version >= 7 { s.array("forgotten_topics_data")? } else { Vec::new() },
            rack_id: if version >= 11 { s.string("rack_id")? } else { Text::EMPTY },
        };
        s.tags(&[0, 1], |s, tag| {
            match tag {
                0 if version >= 12 => m.cluster_id = s.string_or_null("cluster_id", true)?,
                1 if version >= 15 => m.replica_state = s.structure("replica_state")?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 14 {
            w.int32(self.replica_id);
        } else {
            w.must_be_default("replica_id", self.replica_id == -1)?;
        }
        if version < 15 {
            w.must_be_default("replica_state", self.replica_state == ReplicaState::default())?;
        }
        w.int32(self.max_wait_ms);
        w.int32(self.min_bytes);
        if version >= 3 {
            w.int32(self.max_bytes);
        }
        if version >= 4 {
            w.int8(self.isolation_level);
        }
        if version >= 7 {
            w.int32(self.session_id);
        }
        if version >= 7 {
            w.int32(self.session_epoch);
        }
        w.array("topics", &self.topics)?;
        if version >= 7 {
            w.array("forgotten_topics_data", &self.forgotten_topics_data)?;
        } else {
            w.must_be_default("forgotten_topics_data", self.forgotten_topics_data.is_empty())?;
        }
        if version >= 11 {
            w.string("rack_id", &self.rack_id)?;
        }
        let tag_0 = version >= 12 && self.cluster_id.is_some();
        let tag_1 = version >= 15 && self.replica_state != ReplicaState::default();
        w.tag_count(u32::from(tag_0) + u32::from(tag_1));
        if tag_0 {
            w.tag(0, |w| w.string_or_null("cluster_id", self.cluster_id.as_ref(), true))?;
        }
        if tag_1 {
            w.tag(1, |w| w.structure("replica_state", &self.replica_state))?;
        }
        Ok(())
    }
}

/// Part `replica_state` of `Fetch`, versions 15 to 18.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaState {
    /// Versions 15 to 18.
    pub replica_id: i32,
    /// Versions 15 to 18.
    pub replica_epoch: i64,
}

impl Default for ReplicaState {
    fn default() -> Self {
        Self {
            replica_id: -1,
            replica_epoch: -1,
        }
    }
}

impl Wire for ReplicaState {
    const LEAST_BYTES: usize = 13;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            replica_id: if version >= 15 { s.int32("replica_id")? } else { -1 },
            replica_epoch: if version >= 15 { s.int64("replica_epoch")? } else { -1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 15 {
            w.int32(self.replica_id);
        } else {
            w.must_be_default("replica_id", self.replica_id == -1)?;
        }
        if version >= 15 {
            w.int64(self.replica_epoch);
        } else {
            w.must_be_default("replica_epoch", self.replica_epoch == -1)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `Fetch`, versions 0 to 18.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchTopic {
    /// Versions 0 to 12.
    pub topic: Text,
    /// Versions 13 to 18.
    pub topic_id: Uuid,
    /// Versions 0 to 18.
    pub partitions: Vec<FetchPartition>,
}

impl Wire for FetchTopic {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            topic: if version <= 12 { s.string("topic")? } else { Text::EMPTY },
            topic_id: if version >= 13 { s.uuid("topic_id")? } else { Uuid::ZERO },
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 12 {
            w.string("topic", &self.topic)?;
        }
        if version >= 13 {
            w.uuid(self.topic_id);
        }
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `Fetch`, versions 0 to 18.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPartition {
    /// Versions 0 to 18.
    pub partition: i32,
    /// Versions 9 to 18.
    pub current_leader_epoch: i32,
    /// Versions 0 to 18.
    pub fetch_offset: i64,
    /// Versions 12 to 18.
    pub last_fetched_epoch: i32,
    /// Versions 5 to 18.
    pub log_start_offset: i64,
    /// Versions 0 to 18.
    pub partition_max_bytes: i32,
    /// Versions 17 to 18, tagged 0.
    pub replica_directory_id: Uuid,
    /// Version 18, tagged 1.
    pub high_watermark: i64,
}

impl Default for FetchPartition {
    fn default() -> Self {
        Self {
            partition: 0,
            current_leader_epoch: -1,
            fetch_offset: 0,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 0,
            replica_directory_id: Uuid::ZERO,
            high_watermark: 9223372036854775807,
        }
    }
}

impl Wire for FetchPartition {
    const LEAST_BYTES: usize = 16;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let mut m = Self {
            partition: s.int32("partition")?,
            current_leader_epoch: if version >= 9 { s.int32("current_leader_epoch")? } else { -1 },
            fetch_offset: s.int64("fetch_offset")?,
            last_fetched_epoch: if version >= 12 { s.int32("last_fetched_epoch")? } else { -1 },
            log_start_offset: if version >= 5 { s.int64("log_start_offset")? } else { -1 },
            partition_max_bytes: s.int32("partition_max_bytes")?,
            replica_directory_id: Uuid::ZERO,
            high_watermark: 9223372036854775807,
        };
        s.tags(&[0, 1], |s, tag| {
            match tag {
                0 if version >= 17 => m.replica_directory_id = s.uuid("replica_directory_id")?,
                1 if version == 18 => m.high_watermark = s.int64("high_watermark")?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.partition);
        if version >= 9 {
            w.int32(self.current_leader_epoch);
        }
        w.int64(self.fetch_offset);
        if version >= 12 {
            w.int32(self.last_fetched_epoch);
        } else {
            w.must_be_default("last_fetched_epoch", self.last_fetched_epoch == -1)?;
        }
        if version >= 5 {
            w.int64(self.log_start_offset);
        }
        w.int32(self.partition_max_bytes);
        let tag_0 = version >= 17 && self.replica_directory_id != Uuid::ZERO;
        let tag_1 = version == 18 && self.high_watermark != 9223372036854775807;
        w.tag_count(u32::from(tag_0) + u32::from(tag_1));
        if tag_0 {
            w.tag(0, |w| { w.uuid(self.replica_directory_id); Ok(()) })?;
        }
        if tag_1 {
            w.tag(1, |w| { w.int64(self.high_watermark); Ok(()) })?;
        }
        Ok(())
    }
}

/// Part `forgotten_topics_data` of `Fetch`, versions 7 to 18.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForgottenTopic {
    /// Versions 7 to 12.
    pub topic: Text,
    /// Versions 13 to 18.
    pub topic_id: Uuid,
    /// Versions 7 to 18.
    pub partitions: Vec<i32>,
}

impl Wire for ForgottenTopic {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            topic: if (7..=12).contains(&version) { s.string("topic")? } else { Text::EMPTY },
            topic_id: if version >= 13 { s.uuid("topic_id")? } else { Uuid::ZERO },
            partitions: if version >= 7 { s.array("partitions")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if (7..=12).contains(&version) {
            w.string("topic", &self.topic)?;
        }
        if version >= 13 {
            w.uuid(self.topic_id);
        }
        if version >= 7 {
            w.array("partitions", &self.partitions)?;
        } else {
            w.must_be_default("partitions", self.partitions.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `Fetch`, versions 0 to 18.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchResponse {
    /// Versions 1 to 18.
    pub throttle_time_ms: i32,
    /// Versions 7 to 18.
    pub error_code: i16,
    /// Versions 7 to 18.
    pub session_id: i32,
    /// Versions 0 to 18.
    pub responses: Vec<FetchableTopicResponse>,
    /// Versions 16 to 18, tagged 0.
    pub node_endpoints: Vec<NodeEndpoint>,
}

impl Wire for FetchResponse {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let mut m = Self {
            throttle_time_ms: if version >= 1 { s.int32("throttle_time_ms")? } else { 0 },
            error_code: if version >= 7 { s.int16("error_code")? } else { 0 },
            session_id: if version >= 7 { s.int32("session_id")? } else { 0 },
            responses: s.array("responses")?,
            node_endpoints: Vec::new(),
        };
        s.tags(&[0], |s, tag| {
            match tag {
                0 if version >= 16 => m.node_endpoints = s.array("node_endpoints")?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 1 {
            w.int32(self.throttle_time_ms);
        }
        if version >= 7 {
            w.int16(self.error_code);
        }
        if version >= 7 {
            w.int32(self.session_id);
        } else {
            w.must_be_default("session_id", self.session_id == 0)?;
        }
        w.array("responses", &self.responses)?;
        if version < 16 {
            w.must_be_default("node_endpoints", self.node_endpoints.is_empty())?;
        }
        let tag_0 = version >= 16 && !self.node_endpoints.is_empty();
        w.tag_count(u32::from(tag_0));
        if tag_0 {
            w.tag(0, |w| w.array("node_endpoints", &self.node_endpoints))?;
        }
        Ok(())
    }
}

/// Part `responses` of `Fetch`, versions 0 to 18.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchableTopicResponse {
    /// Versions 0 to 12.
    pub topic: Text,
    /// Versions 13 to 18.
    pub topic_id: Uuid,
    /// Versions 0 to 18.
    pub partitions: Vec<PartitionData>,
}

impl Wire for FetchableTopicResponse {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            topic: if version <= 12 { s.string("topic")? } else { Text::EMPTY },
            topic_id: if version >= 13 { s.uuid("topic_id")? } else { Uuid::ZERO },
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 12 {
            w.string("topic", &self.topic)?;
        }
        if version >= 13 {
            w.uuid(self.topic_id);
        }
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `partitions` of `Fetch`, versions 0 to 18.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionData {
    /// Versions 0 to 18.
    pub partition_index: i32,
    /// Versions 0 to 18.
    pub error_code: i16,
    /// Versions 0 to 18.
    pub high_watermark: i64,
    /// Versions 4 to 18.
    pub last_stable_offset: i64,
    /// Versions 5 to 18.
    pub log_start_offset: i64,
    /// Versions 12 to 18, tagged 0.
    pub diverging_epoch: EpochEndOffset,
    /// Versions 12 to 18, tagged 1.
    pub current_leader: LeaderIdAndEpoch,
    /// Versions 12 to 18, tagged 2.
    pub snapshot_id: SnapshotId,
    /// Versions 4 to 18, may be null.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// Versions 11 to 18.
    pub preferred_read_replica: i32,
    /// Versions 0 to 18, may be null.
    pub records: Option<Bytes>,
}

impl Default for PartitionData {
    fn default() -> Self {
        Self {
            partition_index: 0,
            error_code: 0,
            high_watermark: 0,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: EpochEndOffset::default(),
            current_leader: LeaderIdAndEpoch::default(),
            snapshot_id: SnapshotId::default(),
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: None,
        }
    }
}

impl Wire for PartitionData {
    const LEAST_BYTES: usize = 18;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let mut m = Self {
            partition_index: s.int32("partition_index")?,
            error_code: s.int16("error_code")?,
            high_watermark: s.int64("high_watermark")?,
            last_stable_offset: if version >= 4 { s.int64("last_stable_offset")? } else { -1 },
            log_start_offset: if version >= 5 { s.int64("log_start_offset")? } else { -1 },
            diverging_epoch: EpochEndOffset::default(),
            current_leader: LeaderIdAndEpoch::default(),
            snapshot_id: SnapshotId::default(),
            aborted_transactions: if version >= 4 { s.array_or_null("aborted_transactions", true)? } else { None },
            preferred_read_replica: if version >= 11 { s.int32("preferred_read_replica")? } else { -1 },
            records: s.bytes_or_null("records", true)?,
        };
        s.tags(&[0, 1, 2], |s, tag| {
            match tag {
                0 if version >= 12 => m.diverging_epoch = s.structure("diverging_epoch")?,
                1 if version >= 12 => m.current_leader = s.structure("current_leader")?,
                2 if version >= 12 => m.snapshot_id = s.structure("snapshot_id")?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.partition_index);
        w.int16(self.error_code);
        w.int64(self.high_watermark);
        if version >= 4 {
            w.int64(self.last_stable_offset);
        }
        if version >= 5 {
            w.int64(self.log_start_offset);
        }
        if version < 12 {
            w.must_be_default("diverging_epoch", self.diverging_epoch == EpochEndOffset::default())?;
        }
        if version < 12 {
            w.must_be_default("current_leader", self.current_leader == LeaderIdAndEpoch::default())?;
        }
        if version < 12 {
            w.must_be_default("snapshot_id", self.snapshot_id == SnapshotId::default())?;
        }
        if version >= 4 {
            w.array_or_null("aborted_transactions", self.aborted_transactions.as_deref(), true)?;
        }
        if version >= 11 {
            w.int32(self.preferred_read_replica);
        } else {
            w.must_be_default("preferred_read_replica", self.preferred_read_replica == -1)?;
        }
        w.bytes_or_null("records", self.records.as_ref(), true)?;
        let tag_0 = version >= 12 && self.diverging_epoch != EpochEndOffset::default();
        let tag_1 = version >= 12 && self.current_leader != LeaderIdAndEpoch::default();
        let tag_2 = version >= 12 && self.snapshot_id != SnapshotId::default();
        w.tag_count(u32::from(tag_0) + u32::from(tag_1) + u32::from(tag_2));
        if tag_0 {
            w.tag(0, |w| w.structure("diverging_epoch", &self.diverging_epoch))?;
        }
        if tag_1 {
            w.tag(1, |w| w.structure("current_leader", &self.current_leader))?;
        }
        if tag_2 {
            w.tag(2, |w| w.structure("snapshot_id", &self.snapshot_id))?;
        }
        Ok(())
    }
}

/// Part `diverging_epoch` of `Fetch`, versions 12 to 18.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochEndOffset {
    /// Versions 12 to 18.
    pub epoch: i32,
    /// Versions 12 to 18.
    pub end_offset: i64,
}

impl Default for EpochEndOffset {
    fn default() -> Self {
        Self {
            epoch: -1,
            end_offset: -1,
        }
    }
}

impl Wire for EpochEndOffset {
    const LEAST_BYTES: usize = 13;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            epoch: if version >= 12 { s.int32("epoch")? } else { -1 },
            end_offset: if version >= 12 { s.int64("end_offset")? } else { -1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 12 {
            w.int32(self.epoch);
        } else {
            w.must_be_default("epoch", self.epoch == -1)?;
        }
        if version >= 12 {
            w.int64(self.end_offset);
        } else {
            w.must_be_default("end_offset", self.end_offset == -1)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `current_leader` of `Fetch`, versions 12 to 18.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    /// Versions 12 to 18.
    pub leader_id: i32,
    /// Versions 12 to 18.
    pub leader_epoch: i32,
}

impl Default for LeaderIdAndEpoch {
    fn default() -> Self {
        Self {
            leader_id: -1,
            leader_epoch: -1,
        }
    }
}

impl Wire for LeaderIdAndEpoch {
    const LEAST_BYTES: usize = 9;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            leader_id: if version >= 12 { s.int32("leader_id")? } else { -1 },
            leader_epoch: if version >= 12 { s.int32("leader_epoch")? } else { -1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 12 {
            w.int32(self.leader_id);
        } else {
            w.must_be_default("leader_id", self.leader_id == -1)?;
        }
        if version >= 12 {
            w.int32(self.leader_epoch);
        } else {
            w.must_be_default("leader_epoch", self.leader_epoch == -1)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `snapshot_id` of `Fetch`, versions 12 to 18.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotId {
    /// Versions 0 to 18.
    pub end_offset: i64,
    /// Versions 0 to 18.
    pub epoch: i32,
}

impl Default for SnapshotId {
    fn default() -> Self {
        Self {
            end_offset: -1,
            epoch: -1,
        }
    }
}

impl Wire for SnapshotId {
    const LEAST_BYTES: usize = 13;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            end_offset: s.int64("end_offset")?,
            epoch: s.int32("epoch")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int64(self.end_offset);
        w.int32(self.epoch);
        w.tag_count(0);
        Ok(())
    }
}

/// Part `aborted_transactions` of `Fetch`, versions 4 to 18.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AbortedTransaction {
    /// Versions 4 to 18.
    pub producer_id: i64,
    /// Versions 4 to 18.
    pub first_offset: i64,
}

impl Wire for AbortedTransaction {
    const LEAST_BYTES: usize = 16;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            producer_id: if version >= 4 { s.int64("producer_id")? } else { 0 },
            first_offset: if version >= 4 { s.int64("first_offset")? } else { 0 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 4 {
            w.int64(self.producer_id);
        } else {
            w.must_be_default("producer_id", self.producer_id == 0)?;
        }
        if version >= 4 {
            w.int64(self.first_offset);
        } else {
            w.must_be_default("first_offset", self.first_offset == 0)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `node_endpoints` of `Fetch`, versions 16 to 18.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeEndpoint {
    /// Versions 16 to 18.
    pub node_id: i32,
    /// Versions 16 to 18.
    pub host: Text,
    /// Versions 16 to 18.
    pub port: i32,
    /// Versions 16 to 18, may be null.
    pub rack: Option<Text>,
}

impl Wire for NodeEndpoint {
    const LEAST_BYTES: usize = 11;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            node_id: if version >= 16 { s.int32("node_id")? } else { 0 },
            host: if version >= 16 { s.string("host")? } else { Text::EMPTY },
            port: if version >= 16 { s.int32("port")? } else { 0 },
            rack: if version >= 16 { s.string_or_null("rack", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 16 {
            w.int32(self.node_id);
        } else {
            w.must_be_default("node_id", self.node_id == 0)?;
        }
        if version >= 16 {
            w.string("host", &self.host)?;
        } else {
            w.must_be_default("host", self.host.is_empty())?;
        }
        if version >= 16 {
            w.int32(self.port);
        } else {
            w.must_be_default("port", self.port == 0)?;
        }
        if version >= 16 {
            w.string_or_null("rack", self.rack.as_ref(), true)?;
        } else {
            w.must_be_default("rack", self.rack.is_none())?;
        }
        w.tag_count(0);
        Ok(())
    }
}
