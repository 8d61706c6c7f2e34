//! @generated from `messages/consumer_group_describe.txt` by `cargo xtask kafka`: do not edit.
//!
//! `ConsumerGroupDescribe`, versions 0 to 1.

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `ConsumerGroupDescribe`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerGroupDescribeRequest {
    /// Versions 0 to 1.
    pub group_ids: Vec<Text>,
    /// Versions 0 to 1.
    pub include_authorized_operations: bool,
}

impl Wire for ConsumerGroupDescribeRequest {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            group_ids: s.array("group_ids")?,
            include_authorized_operations: s.boolean("include_authorized_operations")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("group_ids", &self.group_ids)?;
        w.boolean(self.include_authorized_operations);
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `ConsumerGroupDescribe`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsumerGroupDescribeResponse {
    /// Versions 0 to 1.
    pub throttle_time_ms: i32,
    /// Versions 0 to 1.
    pub groups: Vec<DescribedGroup>,
}

impl Wire for ConsumerGroupDescribeResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            groups: s.array("groups")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.array("groups", &self.groups)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `groups` of `ConsumerGroupDescribe`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Versions 0 to 1.
    pub error_code: i16,
    /// Versions 0 to 1, may be null.
    pub error_message: Option<Text>,
    /// Versions 0 to 1.
    pub group_id: Text,
    /// Versions 0 to 1.
    pub group_state: Text,
    /// Versions 0 to 1.
    pub group_epoch: i32,
    /// Versions 0 to 1.
    pub assignment_epoch: i32,
    /// Versions 0 to 1.
    pub assignor_name: Text,
    /// Versions 0 to 1.
    pub members: Vec<Member>,
    /// Versions 0 to 1.
    pub authorized_operations: i32,
}

impl Default for DescribedGroup {
    fn default() -> Self {
        Self {
            error_code: 0,
            error_message: None,
            group_id: Text::EMPTY,
            group_state: Text::EMPTY,
            group_epoch: 0,
            assignment_epoch: 0,
            assignor_name: Text::EMPTY,
            members: Vec::new(),
            authorized_operations: -2147483648,
        }
    }
}

impl Wire for DescribedGroup {
    const LEAST_BYTES: usize = 20;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            group_id: s.string("group_id")?,
            group_state: s.string("group_state")?,
            group_epoch: s.int32("group_epoch")?,
            assignment_epoch: s.int32("assignment_epoch")?,
            assignor_name: s.string("assignor_name")?,
            members: s.array("members")?,
            authorized_operations: s.int32("authorized_operations")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.string("group_id", &self.group_id)?;
        w.string("group_state", &self.group_state)?;
        w.int32(self.group_epoch);
        w.int32(self.assignment_epoch);
        w.string("assignor_name", &self.assignor_name)?;
        w.array("members", &self.members)?;
        w.int32(self.authorized_operations);
        w.tag_count(0);
        Ok(())
    }
}

/// Part `members` of `ConsumerGroupDescribe`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Versions 0 to 1.
    pub member_id: Text,
    /// Versions 0 to 1, may be null.
    pub instance_id: Option<Text>,
    /// Versions 0 to 1, may be null.
    pub rack_id: Option<Text>,
    /// Versions 0 to 1.
    pub member_epoch: i32,
    /// Versions 0 to 1.
    pub client_id: Text,
    /// Versions 0 to 1.
    pub client_host: Text,
    /// Versions 0 to 1.
    pub subscribed_topic_names: Vec<Text>,
    /// Versions 0 to 1, may be null.
    pub subscribed_topic_regex: Option<Text>,
    /// Versions 0 to 1.
    pub assignment: Assignment,
    /// Versions 0 to 1.
    pub target_assignment: Assignment,
    /// Version 1.
    pub member_type: i8,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            member_id: Text::EMPTY,
            instance_id: None,
            rack_id: None,
            member_epoch: 0,
            client_id: Text::EMPTY,
            client_host: Text::EMPTY,
            subscribed_topic_names: Vec::new(),
            subscribed_topic_regex: None,
            assignment: Assignment::default(),
            target_assignment: Assignment::default(),
            member_type: -1,
        }
    }
}

impl Wire for Member {
    const LEAST_BYTES: usize = 16;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            member_id: s.string("member_id")?,
            instance_id: s.string_or_null("instance_id", true)?,
            rack_id: s.string_or_null("rack_id", true)?,
            member_epoch: s.int32("member_epoch")?,
            client_id: s.string("client_id")?,
            client_host: s.string("client_host")?,
            subscribed_topic_names: s.array("subscribed_topic_names")?,
            subscribed_topic_regex: s.string_or_null("subscribed_topic_regex", true)?,
            assignment: s.structure("assignment")?,
            target_assignment: s.structure("target_assignment")?,
            member_type: if version == 1 { s.int8("member_type")? } else { -1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("member_id", &self.member_id)?;
        w.string_or_null("instance_id", self.instance_id.as_ref(), true)?;
        w.string_or_null("rack_id", self.rack_id.as_ref(), true)?;
        w.int32(self.member_epoch);
        w.string("client_id", &self.client_id)?;
        w.string("client_host", &self.client_host)?;
        w.array("subscribed_topic_names", &self.subscribed_topic_names)?;
        w.string_or_null("subscribed_topic_regex", self.subscribed_topic_regex.as_ref(), true)?;
        w.structure("assignment", &self.assignment)?;
        w.structure("target_assignment", &self.target_assignment)?;
        if version == 1 {
            w.int8(self.member_type);
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part of `ConsumerGroupDescribe`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicPartitions {
    /// Versions 0 to 1.
    pub topic_id: Uuid,
    /// Versions 0 to 1.
    pub topic_name: Text,
    /// Versions 0 to 1.
    pub partitions: Vec<i32>,
}

impl Wire for TopicPartitions {
    const LEAST_BYTES: usize = 19;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topic_id: s.uuid("topic_id")?,
            topic_name: s.string("topic_name")?,
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.uuid(self.topic_id);
        w.string("topic_name", &self.topic_name)?;
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part of `ConsumerGroupDescribe`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assignment {
    /// Versions 0 to 1.
    pub topic_partitions: Vec<TopicPartitions>,
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
