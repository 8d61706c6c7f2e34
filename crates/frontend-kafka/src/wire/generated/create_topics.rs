//! @generated from `messages/create_topics.txt` by `cargo xtask kafka`: do not edit.
//!
//! `CreateTopics`, versions 0 to 7.

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `CreateTopics`, versions 0 to 7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopicsRequest {
    /// Versions 0 to 7.
    pub topics: Vec<CreatableTopic>,
    /// Versions 0 to 7.
    pub timeout_ms: i32,
    /// Versions 1 to 7.
    pub validate_only: bool,
}

impl Default for CreateTopicsRequest {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            timeout_ms: 60000,
            validate_only: false,
        }
    }
}

impl Wire for CreateTopicsRequest {
    const LEAST_BYTES: usize = 7;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            topics: s.array("topics")?,
            timeout_ms: s.int32("timeout_ms")?,
            validate_only: if version >= 1 { s.boolean("validate_only")? } else { false },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.array("topics", &self.topics)?;
        w.int32(self.timeout_ms);
        if version >= 1 {
            w.boolean(self.validate_only);
        } else {
            w.must_be_default("validate_only", !self.validate_only)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `CreateTopics`, versions 0 to 7.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreatableTopic {
    /// Versions 0 to 7.
    pub name: Text,
    /// Versions 0 to 7.
    pub num_partitions: i32,
    /// Versions 0 to 7.
    pub replication_factor: i16,
    /// Versions 0 to 7.
    pub assignments: Vec<CreatableReplicaAssignment>,
    /// Versions 0 to 7.
    pub configs: Vec<CreatableTopicConfig>,
}

impl Wire for CreatableTopic {
    const LEAST_BYTES: usize = 10;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
            num_partitions: s.int32("num_partitions")?,
            replication_factor: s.int16("replication_factor")?,
            assignments: s.array("assignments")?,
            configs: s.array("configs")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.int32(self.num_partitions);
        w.int16(self.replication_factor);
        w.array("assignments", &self.assignments)?;
        w.array("configs", &self.configs)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `assignments` of `CreateTopics`, versions 0 to 7.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreatableReplicaAssignment {
    /// Versions 0 to 7.
    pub partition_index: i32,
    /// Versions 0 to 7.
    pub broker_ids: Vec<i32>,
}

impl Wire for CreatableReplicaAssignment {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_index: s.int32("partition_index")?,
            broker_ids: s.array("broker_ids")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_index);
        w.array("broker_ids", &self.broker_ids)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `configs` of `CreateTopics`, versions 0 to 7.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreatableTopicConfig {
    /// Versions 0 to 7.
    pub name: Text,
    /// Versions 0 to 7, may be null.
    pub value: Option<Text>,
}

impl Wire for CreatableTopicConfig {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
            value: s.string_or_null("value", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.string_or_null("value", self.value.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `CreateTopics`, versions 0 to 7.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateTopicsResponse {
    /// Versions 2 to 7.
    pub throttle_time_ms: i32,
    /// Versions 0 to 7.
    pub topics: Vec<CreatableTopicResult>,
}

impl Wire for CreateTopicsResponse {
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

/// Part `topics` of `CreateTopics`, versions 0 to 7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatableTopicResult {
    /// Versions 0 to 7.
    pub name: Text,
    /// Version 7.
    pub topic_id: Uuid,
    /// Versions 0 to 7.
    pub error_code: i16,
    /// Versions 1 to 7, may be null.
    pub error_message: Option<Text>,
    /// Versions 5 to 7, tagged 0.
    pub topic_config_error_code: i16,
    /// Versions 5 to 7.
    pub num_partitions: i32,
    /// Versions 5 to 7.
    pub replication_factor: i16,
    /// Versions 5 to 7, may be null.
    pub configs: Option<Vec<CreatableTopicConfigs>>,
}

impl Default for CreatableTopicResult {
    fn default() -> Self {
        Self {
            name: Text::EMPTY,
            topic_id: Uuid::ZERO,
            error_code: 0,
            error_message: None,
            topic_config_error_code: 0,
            num_partitions: -1,
            replication_factor: -1,
            configs: None,
        }
    }
}

impl Wire for CreatableTopicResult {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let mut m = Self {
            name: s.string("name")?,
            topic_id: if version == 7 { s.uuid("topic_id")? } else { Uuid::ZERO },
            error_code: s.int16("error_code")?,
            error_message: if version >= 1 { s.string_or_null("error_message", true)? } else { None },
            topic_config_error_code: 0,
            num_partitions: if version >= 5 { s.int32("num_partitions")? } else { -1 },
            replication_factor: if version >= 5 { s.int16("replication_factor")? } else { -1 },
            configs: if version >= 5 { s.array_or_null("configs", true)? } else { None },
        };
        s.tags(&[0], |s, tag| {
            match tag {
                0 if version >= 5 => m.topic_config_error_code = s.int16("topic_config_error_code")?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("name", &self.name)?;
        if version == 7 {
            w.uuid(self.topic_id);
        }
        w.int16(self.error_code);
        if version >= 1 {
            w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        }
        if version >= 5 {
            w.int32(self.num_partitions);
        }
        if version >= 5 {
            w.int16(self.replication_factor);
        }
        if version >= 5 {
            w.array_or_null("configs", self.configs.as_deref(), true)?;
        }
        let tag_0 = version >= 5 && self.topic_config_error_code != 0;
        w.tag_count(u32::from(tag_0));
        if tag_0 {
            w.tag(0, |w| { w.int16(self.topic_config_error_code); Ok(()) })?;
        }
        Ok(())
    }
}

/// Part `configs` of `CreateTopics`, versions 5 to 7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatableTopicConfigs {
    /// Versions 5 to 7.
    pub name: Text,
    /// Versions 5 to 7, may be null.
    pub value: Option<Text>,
    /// Versions 5 to 7.
    pub read_only: bool,
    /// Versions 5 to 7.
    pub config_source: i8,
    /// Versions 5 to 7.
    pub is_sensitive: bool,
}

impl Default for CreatableTopicConfigs {
    fn default() -> Self {
        Self {
            name: Text::EMPTY,
            value: None,
            read_only: false,
            config_source: -1,
            is_sensitive: false,
        }
    }
}

impl Wire for CreatableTopicConfigs {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version >= 5 { s.string("name")? } else { Text::EMPTY },
            value: if version >= 5 { s.string_or_null("value", true)? } else { None },
            read_only: if version >= 5 { s.boolean("read_only")? } else { false },
            config_source: if version >= 5 { s.int8("config_source")? } else { -1 },
            is_sensitive: if version >= 5 { s.boolean("is_sensitive")? } else { false },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 5 {
            w.string("name", &self.name)?;
        } else {
            w.must_be_default("name", self.name.is_empty())?;
        }
        if version >= 5 {
            w.string_or_null("value", self.value.as_ref(), true)?;
        } else {
            w.must_be_default("value", self.value.is_none())?;
        }
        if version >= 5 {
            w.boolean(self.read_only);
        } else {
            w.must_be_default("read_only", !self.read_only)?;
        }
        if version >= 5 {
            w.int8(self.config_source);
        }
        if version >= 5 {
            w.boolean(self.is_sensitive);
        } else {
            w.must_be_default("is_sensitive", !self.is_sensitive)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
