//! @generated from `messages/join_group.txt` by `cargo xtask kafka`: do not edit.
//!
//! `JoinGroup`, versions 0 to 9.

use bytes::Bytes;

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `JoinGroup`, versions 0 to 9.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupRequest {
    /// Versions 0 to 9.
    pub group_id: Text,
    /// Versions 0 to 9.
    pub session_timeout_ms: i32,
    /// Versions 1 to 9.
    pub rebalance_timeout_ms: i32,
    /// Versions 0 to 9.
    pub member_id: Text,
    /// Versions 5 to 9, may be null.
    pub group_instance_id: Option<Text>,
    /// Versions 0 to 9.
    pub protocol_type: Text,
    /// Versions 0 to 9.
    pub protocols: Vec<JoinGroupRequestProtocol>,
    /// Versions 8 to 9, may be null.
    pub reason: Option<Text>,
}

impl Default for JoinGroupRequest {
    fn default() -> Self {
        Self {
            group_id: Text::EMPTY,
            session_timeout_ms: 0,
            rebalance_timeout_ms: -1,
            member_id: Text::EMPTY,
            group_instance_id: None,
            protocol_type: Text::EMPTY,
            protocols: Vec::new(),
            reason: None,
        }
    }
}

impl Wire for JoinGroupRequest {
    const LEAST_BYTES: usize = 14;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            group_id: s.string("group_id")?,
            session_timeout_ms: s.int32("session_timeout_ms")?,
            rebalance_timeout_ms: if version >= 1 { s.int32("rebalance_timeout_ms")? } else { -1 },
            member_id: s.string("member_id")?,
            group_instance_id: if version >= 5 { s.string_or_null("group_instance_id", true)? } else { None },
            protocol_type: s.string("protocol_type")?,
            protocols: s.array("protocols")?,
            reason: if version >= 8 { s.string_or_null("reason", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("group_id", &self.group_id)?;
        w.int32(self.session_timeout_ms);
        if version >= 1 {
            w.int32(self.rebalance_timeout_ms);
        }
        w.string("member_id", &self.member_id)?;
        if version >= 5 {
            w.string_or_null("group_instance_id", self.group_instance_id.as_ref(), true)?;
        } else {
            w.must_be_default("group_instance_id", self.group_instance_id.is_none())?;
        }
        w.string("protocol_type", &self.protocol_type)?;
        w.array("protocols", &self.protocols)?;
        if version >= 8 {
            w.string_or_null("reason", self.reason.as_ref(), true)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `protocols` of `JoinGroup`, versions 0 to 9.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JoinGroupRequestProtocol {
    /// Versions 0 to 9.
    pub name: Text,
    /// Versions 0 to 9.
    pub metadata: Bytes,
}

impl Wire for JoinGroupRequestProtocol {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
            metadata: s.bytes("metadata")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.bytes("metadata", &self.metadata)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `JoinGroup`, versions 0 to 9.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupResponse {
    /// Versions 2 to 9.
    pub throttle_time_ms: i32,
    /// Versions 0 to 9.
    pub error_code: i16,
    /// Versions 0 to 9.
    pub generation_id: i32,
    /// Versions 7 to 9, may be null.
    pub protocol_type: Option<Text>,
    /// Versions 0 to 9, may be null in versions 7 to 9.
    pub protocol_name: Option<Text>,
    /// Versions 0 to 9.
    pub leader: Text,
    /// Version 9.
    pub skip_assignment: bool,
    /// Versions 0 to 9.
    pub member_id: Text,
    /// Versions 0 to 9.
    pub members: Vec<JoinGroupResponseMember>,
}

impl Default for JoinGroupResponse {
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            error_code: 0,
            generation_id: -1,
            protocol_type: None,
            protocol_name: None,
            leader: Text::EMPTY,
            skip_assignment: false,
            member_id: Text::EMPTY,
            members: Vec::new(),
        }
    }
}

impl Wire for JoinGroupResponse {
    const LEAST_BYTES: usize = 15;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 2 { s.int32("throttle_time_ms")? } else { 0 },
            error_code: s.int16("error_code")?,
            generation_id: s.int32("generation_id")?,
            protocol_type: if version >= 7 { s.string_or_null("protocol_type", true)? } else { None },
            protocol_name: s.string_or_null("protocol_name", version >= 7)?,
            leader: s.string("leader")?,
            skip_assignment: if version == 9 { s.boolean("skip_assignment")? } else { false },
            member_id: s.string("member_id")?,
            members: s.array("members")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 2 {
            w.int32(self.throttle_time_ms);
        }
        w.int16(self.error_code);
        w.int32(self.generation_id);
        if version >= 7 {
            w.string_or_null("protocol_type", self.protocol_type.as_ref(), true)?;
        }
        w.string_or_null("protocol_name", self.protocol_name.as_ref(), version >= 7)?;
        w.string("leader", &self.leader)?;
        if version == 9 {
            w.boolean(self.skip_assignment);
        } else {
            w.must_be_default("skip_assignment", !self.skip_assignment)?;
        }
        w.string("member_id", &self.member_id)?;
        w.array("members", &self.members)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `members` of `JoinGroup`, versions 0 to 9.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JoinGroupResponseMember {
    /// Versions 0 to 9.
    pub member_id: Text,
    /// Versions 5 to 9, may be null.
    pub group_instance_id: Option<Text>,
    /// Versions 0 to 9.
    pub metadata: Bytes,
}

impl Wire for JoinGroupResponseMember {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            member_id: s.string("member_id")?,
            group_instance_id: if version >= 5 { s.string_or_null("group_instance_id", true)? } else { None },
            metadata: s.bytes("metadata")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("member_id", &self.member_id)?;
        if version >= 5 {
            w.string_or_null("group_instance_id", self.group_instance_id.as_ref(), true)?;
        }
        w.bytes("metadata", &self.metadata)?;
        w.tag_count(0);
        Ok(())
    }
}
