//! @generated from `messages/consumer_group_heartbeat.txt` by `cargo xtask kafka`: do not edit.
//!
//! `ConsumerGroupHeartbeat`, versions 0 to 1.

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `ConsumerGroupHeartbeat`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupHeartbeatRequest {
    /// Versions 0 to 1.
    pub group_id: Text,
    /// Versions 0 to 1.
    pub member_id: Text,
    /// Versions 0 to 1.
    pub member_epoch: i32,
    /// Versions 0 to 1, may be null.
    pub instance_id: Option<Text>,
    /// Versions 0 to 1, may be null.
    pub rack_id: Option<Text>,
    /// Versions 0 to 1.
    pub rebalance_timeout_ms: i32,
    /// Versions 0 to 1, may be null.
    pub subscribed_topic_names: Option<Vec<Text>>,
    /// Version 1, may be null.
    pub subscribed_topic_regex: Option<Text>,
    /// Versions 0 to 1, may be null.
    pub server_assignor: Option<Text>,
    /// Versions 0 to 1, may be null.
    pub topic_partitions: Option<Vec<RequestTopicPartitions>>,
}

impl Default for ConsumerGroupHeartbeatRequest {
    fn default() -> Self {
        Self {
            group_id: Text::EMPTY,
            member_id: Text::EMPTY,
            member_epoch: 0,
            instance_id: None,
            rack_id: None,
            rebalance_timeout_ms: -1,
            subscribed_topic_names: None,
            subscribed_topic_regex: None,
            server_assignor: None,
            topic_partitions: None,
        }
    }
}

impl Wire for ConsumerGroupHeartbeatRequest {
    const LEAST_BYTES: usize = 16;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            group_id: s.string("group_id")?,
            member_id: s.string("member_id")?,
            member_epoch: s.int32("member_epoch")?,
            instance_id: s.string_or_null("instance_id", true)?,
            rack_id: s.string_or_null("rack_id", true)?,
            rebalance_timeout_ms: s.int32("rebalance_timeout_ms")?,
            subscribed_topic_names: s.array_or_null("subscribed_topic_names", true)?,
            subscribed_topic_regex: if version == 1 { s.string_or_null("subscribed_topic_regex", true)? } else { None },
            server_assignor: s.string_or_null("server_assignor", true)?,
            topic_partitions: s.array_or_null("topic_partitions", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("group_id", &self.group_id)?;
        w.string("member_id", &self.member_id)?;
        w.int32(self.member_epoch);
        w.string_or_null("instance_id", self.instance_id.as_ref(), true)?;
        w.string_or_null("rack_id", self.rack_id.as_ref(), true)?;
        w.int32(self.rebalance_timeout_ms);
        w.array_or_null("subscribed_topic_names", self.subscribed_topic_names.as_deref(), true)?;
        if version == 1 {
            w.string_or_null("subscribed_topic_regex", self.subscribed_topic_regex.as_ref(), true)?;
        } else {
            w.must_be_default("subscribed_topic_regex", self.subscribed_topic_regex.is_none())?;
        }
        w.string_or_null("server_assignor", self.server_assignor.as_ref(), true)?;
        w.array_or_null("topic_partitions", self.topic_partitions.as_deref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topic_partitions` of `ConsumerGroupHeartbeat`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestTopicPartitions {
    /// Versions 0 to 1.
    pub topic_id: Uuid,
    /// Versions 0 to 1.
    pub partitions: Vec<i32>,
}

impl Wire for RequestTopicPartitions {
    const LEAST_BYTES: usize = 18;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topic_id: s.uuid("topic_id")?,
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.uuid(self.topic_id);
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `ConsumerGroupHeartbeat`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerGroupHeartbeatResponse {
    /// Versions 0 to 1.
    pub throttle_time_ms: i32,
    /// Versions 0 to 1.
    pub error_code: i16,
    /// Versions 0 to 1, may be null.
    pub error_message: Option<Text>,
    /// Versions 0 to 1, may be null.
    pub member_id: Option<Text>,
    /// Versions 0 to 1.
    pub member_epoch: i32,
    /// Versions 0 to 1.
    pub heartbeat_interval_ms: i32,
    /// Versions 0 to 1, may be null.
    pub assignment: Option<Assignment>,
}

impl Wire for ConsumerGroupHeartbeatResponse {
    const LEAST_BYTES: usize = 18;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            member_id: s.string_or_null("member_id", true)?,
            member_epoch: s.int32("member_epoch")?,
            heartbeat_interval_ms: s.int32("heartbeat_interval_ms")?,
            assignment: s.structure_or_null("assignment", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.string_or_null("member_id", self.member_id.as_ref(), true)?;
        w.int32(self.member_epoch);
        w.int32(self.heartbeat_interval_ms);
        w.structure_or_null("assignment", self.assignment.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `assignment` of `ConsumerGroupHeartbeat`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assignment {
    /// Versions 0 to 1.
    pub topic_partitions: Vec<ResponseTopicPartitions>,
}

impl Wire for Assignment {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topic_partitions: s.array("topic_partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("topic_partitions", &self.topic_partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part of `ConsumerGroupHeartbeat`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseTopicPartitions {
    /// Versions 0 to 1.
    pub topic_id: Uuid,
    /// Versions 0 to 1.
    pub partitions: Vec<i32>,
}

impl Wire for ResponseTopicPartitions {
    const LEAST_BYTES: usize = 18;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topic_id: s.uuid("topic_id")?,
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.uuid(self.topic_id);
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}
