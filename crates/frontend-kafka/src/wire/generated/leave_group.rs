//! @generated from `messages/leave_group.txt` by `cargo xtask kafka`: do not edit.
//!
//! `LeaveGroup`, versions 0 to 5.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `LeaveGroup`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaveGroupRequest {
    /// Versions 0 to 5.
    pub group_id: Text,
    /// Versions 0 to 2.
    pub member_id: Text,
    /// Versions 3 to 5.
    pub members: Vec<MemberIdentity>,
}

impl Wire for LeaveGroupRequest {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            group_id: s.string("group_id")?,
            member_id: if version <= 2 { s.string("member_id")? } else { Text::EMPTY },
            members: if version >= 3 { s.array("members")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("group_id", &self.group_id)?;
        if version <= 2 {
            w.string("member_id", &self.member_id)?;
        } else {
            w.must_be_default("member_id", self.member_id.is_empty())?;
        }
        if version >= 3 {
            w.array("members", &self.members)?;
        } else {
            w.must_be_default("members", self.members.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `members` of `LeaveGroup`, versions 3 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberIdentity {
    /// Versions 3 to 5.
    pub member_id: Text,
    /// Versions 3 to 5, may be null.
    pub group_instance_id: Option<Text>,
    /// Version 5, may be null.
    pub reason: Option<Text>,
}

impl Wire for MemberIdentity {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            member_id: if version >= 3 { s.string("member_id")? } else { Text::EMPTY },
            group_instance_id: if version >= 3 { s.string_or_null("group_instance_id", true)? } else { None },
            reason: if version == 5 { s.string_or_null("reason", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
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
        if version == 5 {
            w.string_or_null("reason", self.reason.as_ref(), true)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `LeaveGroup`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaveGroupResponse {
    /// Versions 1 to 5.
    pub throttle_time_ms: i32,
    /// Versions 0 to 5.
    pub error_code: i16,
    /// Versions 3 to 5.
    pub members: Vec<MemberResponse>,
}

impl Wire for LeaveGroupResponse {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 1 { s.int32("throttle_time_ms")? } else { 0 },
            error_code: s.int16("error_code")?,
            members: if version >= 3 { s.array("members")? } else { Vec::new() },
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
        if version >= 3 {
            w.array("members", &self.members)?;
        } else {
            w.must_be_default("members", self.members.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `members` of `LeaveGroup`, versions 3 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberResponse {
    /// Versions 3 to 5.
    pub member_id: Text,
    /// Versions 3 to 5, may be null.
    pub group_instance_id: Option<Text>,
    /// Versions 3 to 5.
    pub error_code: i16,
}

impl Wire for MemberResponse {
    const LEAST_BYTES: usize = 5;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            member_id: if version >= 3 { s.string("member_id")? } else { Text::EMPTY },
            group_instance_id: if version >= 3 { s.string_or_null("group_instance_id", true)? } else { None },
            error_code: if version >= 3 { s.int16("error_code")? } else { 0 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
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
        if version >= 3 {
            w.int16(self.error_code);
        } else {
            w.must_be_default("error_code", self.error_code == 0)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
