//! @generated from `messages/sync_group.txt` by `cargo xtask kafka`: do not edit.
//!
//! `SyncGroup`, versions 0 to 5.

use bytes::Bytes;

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `SyncGroup`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncGroupRequest {
    /// Versions 0 to 5.
    pub group_id: Text,
    /// Versions 0 to 5.
    pub generation_id: i32,
    /// Versions 0 to 5.
    pub member_id: Text,
    /// Versions 3 to 5, may be null.
    pub group_instance_id: Option<Text>,
    /// Version 5, may be null.
    pub protocol_type: Option<Text>,
    /// Version 5, may be null.
    pub protocol_name: Option<Text>,
    /// Versions 0 to 5.
    pub assignments: Vec<SyncGroupRequestAssignment>,
}

impl Wire for SyncGroupRequest {
    const LEAST_BYTES: usize = 9;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            group_id: s.string("group_id")?,
            generation_id: s.int32("generation_id")?,
            member_id: s.string("member_id")?,
            group_instance_id: if version >= 3 { s.string_or_null("group_instance_id", true)? } else { None },
            protocol_type: if version == 5 { s.string_or_null("protocol_type", true)? } else { None },
            protocol_name: if version == 5 { s.string_or_null("protocol_name", true)? } else { None },
            assignments: s.array("assignments")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("group_id", &self.group_id)?;
        w.int32(self.generation_id);
        w.string("member_id", &self.member_id)?;
        if version >= 3 {
            w.string_or_null("group_instance_id", self.group_instance_id.as_ref(), true)?;
        } else {
            w.must_be_default("group_instance_id", self.group_instance_id.is_none())?;
        }
        if version == 5 {
            w.string_or_null("protocol_type", self.protocol_type.as_ref(), true)?;
        }
        if version == 5 {
            w.string_or_null("protocol_name", self.protocol_name.as_ref(), true)?;
        }
        w.array("assignments", &self.assignments)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `assignments` of `SyncGroup`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncGroupRequestAssignment {
    /// Versions 0 to 5.
    pub member_id: Text,
    /// Versions 0 to 5.
    pub assignment: Bytes,
}

impl Wire for SyncGroupRequestAssignment {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            member_id: s.string("member_id")?,
            assignment: s.bytes("assignment")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("member_id", &self.member_id)?;
        w.bytes("assignment", &self.assignment)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `SyncGroup`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncGroupResponse {
    /// Versions 1 to 5.
    pub throttle_time_ms: i32,
    /// Versions 0 to 5.
    pub error_code: i16,
    /// Version 5, may be null.
    pub protocol_type: Option<Text>,
    /// Version 5, may be null.
    pub protocol_name: Option<Text>,
    /// Versions 0 to 5.
    pub assignment: Bytes,
}

impl Wire for SyncGroupResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 1 { s.int32("throttle_time_ms")? } else { 0 },
            error_code: s.int16("error_code")?,
            protocol_type: if version == 5 { s.string_or_null("protocol_type", true)? } else { None },
            protocol_name: if version == 5 { s.string_or_null("protocol_name", true)? } else { None },
            assignment: s.bytes("assignment")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 1 {
            w.int32(self.throttle_time_ms);
        }
        w.int16(self.error_code);
        if version == 5 {
            w.string_or_null("protocol_type", self.protocol_type.as_ref(), true)?;
        }
        if version == 5 {
            w.string_or_null("protocol_name", self.protocol_name.as_ref(), true)?;
        }
        w.bytes("assignment", &self.assignment)?;
        w.tag_count(0);
        Ok(())
    }
}
