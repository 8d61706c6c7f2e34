//! @generated from `messages/delete_topics.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DeleteTopics`, versions 0 to 6.

use crate::wire::codec::{EncodeError, Source, Text, Uuid, Wire, Writer};

/// Request of `DeleteTopics`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteTopicsRequest {
    /// Version 6.
    pub topics: Vec<DeleteTopicState>,
    /// Versions 0 to 5.
    pub topic_names: Vec<Text>,
    /// Versions 0 to 6.
    pub timeout_ms: i32,
}

impl Wire for DeleteTopicsRequest {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            topics: if version == 6 { s.array("topics")? } else { Vec::new() },
            topic_names: if version <= 5 { s.array("topic_names")? } else { Vec::new() },
            timeout_ms: s.int32("timeout_ms")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version == 6 {
            w.array("topics", &self.topics)?;
        } else {
            w.must_be_default("topics", self.topics.is_empty())?;
        }
        if version <= 5 {
            w.array("topic_names", &self.topic_names)?;
        }
        w.int32(self.timeout_ms);
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DeleteTopics`, version 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteTopicState {
    /// Version 6, may be null.
    pub name: Option<Text>,
    /// Version 6.
    pub topic_id: Uuid,
}

impl Wire for DeleteTopicState {
    const LEAST_BYTES: usize = 18;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version == 6 { s.string_or_null("name", true)? } else { None },
            topic_id: if version == 6 { s.uuid("topic_id")? } else { Uuid::ZERO },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version == 6 {
            w.string_or_null("name", self.name.as_ref(), true)?;
        } else {
            w.must_be_default("name", self.name.is_none())?;
        }
        if version == 6 {
            w.uuid(self.topic_id);
        } else {
            w.must_be_default("topic_id", self.topic_id == Uuid::ZERO)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DeleteTopics`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteTopicsResponse {
    /// Versions 1 to 6.
    pub throttle_time_ms: i32,
    /// Versions 0 to 6.
    pub responses: Vec<DeletableTopicResult>,
}

impl Wire for DeleteTopicsResponse {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 1 { s.int32("throttle_time_ms")? } else { 0 },
            responses: s.array("responses")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 1 {
            w.int32(self.throttle_time_ms);
        }
        w.array("responses", &self.responses)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `responses` of `DeleteTopics`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeletableTopicResult {
    /// Versions 0 to 6, may be null in version 6.
    pub name: Option<Text>,
    /// Version 6.
    pub topic_id: Uuid,
    /// Versions 0 to 6.
    pub error_code: i16,
    /// Versions 5 to 6, may be null.
    pub error_message: Option<Text>,
}

impl Wire for DeletableTopicResult {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: s.string_or_null("name", version == 6)?,
            topic_id: if version == 6 { s.uuid("topic_id")? } else { Uuid::ZERO },
            error_code: s.int16("error_code")?,
            error_message: if version >= 5 { s.string_or_null("error_message", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string_or_null("name", self.name.as_ref(), version == 6)?;
        if version == 6 {
            w.uuid(self.topic_id);
        }
        w.int16(self.error_code);
        if version >= 5 {
            w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
