//! @generated from `messages/describe_groups.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DescribeGroups`, versions 0 to 6.

use bytes::Bytes;

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `DescribeGroups`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeGroupsRequest {
    /// Versions 0 to 6.
    pub groups: Vec<Text>,
    /// Versions 3 to 6.
    pub include_authorized_operations: bool,
}

impl Wire for DescribeGroupsRequest {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            groups: s.array("groups")?,
            include_authorized_operations: if version >= 3 { s.boolean("include_authorized_operations")? } else { false },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.array("groups", &self.groups)?;
        if version >= 3 {
            w.boolean(self.include_authorized_operations);
        } else {
            w.must_be_default("include_authorized_operations", !self.include_authorized_operations)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DescribeGroups`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeGroupsResponse {
    /// Versions 1 to 6.
    pub throttle_time_ms: i32,
    /// Versions 0 to 6.
    pub groups: Vec<DescribedGroup>,
}

impl Wire for DescribeGroupsResponse {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 1 { s.int32("throttle_time_ms")? } else { 0 },
            groups: s.array("groups")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 1 {
            w.int32(self.throttle_time_ms);
        }
        w.array("groups", &self.groups)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `groups` of `DescribeGroups`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Versions 0 to 6.
    pub error_code: i16,
    /// Version 6, may be null.
    pub error_message: Option<Text>,
    /// Versions 0 to 6.
    pub group_id: Text,
    /// Versions 0 to 6.
    pub group_state: Text,
    /// Versions 0 to 6.
    pub protocol_type: Text,
    /// Versions 0 to 6.
    pub protocol_data: Text,
    /// Versions 0 to 6.
    pub members: Vec<DescribedGroupMember>,
    /// Versions 3 to 6.
    pub authorized_operations: i32,
}

impl Default for DescribedGroup {
    fn default() -> Self {
        Self {
            error_code: 0,
            error_message: None,
            group_id: Text::EMPTY,
            group_state: Text::EMPTY,
            protocol_type: Text::EMPTY,
            protocol_data: Text::EMPTY,
            members: Vec::new(),
            authorized_operations: -2147483648,
        }
    }
}

impl Wire for DescribedGroup {
    const LEAST_BYTES: usize = 12;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            error_code: s.int16("error_code")?,
            error_message: if version == 6 { s.string_or_null("error_message", true)? } else { None },
            group_id: s.string("group_id")?,
            group_state: s.string("group_state")?,
            protocol_type: s.string("protocol_type")?,
            protocol_data: s.string("protocol_data")?,
            members: s.array("members")?,
            authorized_operations: if version >= 3 { s.int32("authorized_operations")? } else { -2147483648 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int16(self.error_code);
        if version == 6 {
            w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        } else {
            w.must_be_default("error_message", self.error_message.is_none())?;
        }
        w.string("group_id", &self.group_id)?;
        w.string("group_state", &self.group_state)?;
        w.string("protocol_type", &self.protocol_type)?;
        w.string("protocol_data", &self.protocol_data)?;
        w.array("members", &self.members)?;
        if version >= 3 {
            w.int32(self.authorized_operations);
        } else {
            w.must_be_default("authorized_operations", self.authorized_operations == -2147483648)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `members` of `DescribeGroups`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribedGroupMember {
    /// Versions 0 to 6.
    pub member_id: Text,
    /// Versions 4 to 6, may be null.
    pub group_instance_id: Option<Text>,
    /// Versions 0 to 6.
    pub client_id: Text,
    /// Versions 0 to 6.
    pub client_host: Text,
    /// Versions 0 to 6.
    pub member_metadata: Bytes,
    /// Versions 0 to 6.
    pub member_assignment: Bytes,
}

impl Wire for DescribedGroupMember {
    const LEAST_BYTES: usize = 7;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            member_id: s.string("member_id")?,
            group_instance_id: if version >= 4 { s.string_or_null("group_instance_id", true)? } else { None },
            client_id: s.string("client_id")?,
            client_host: s.string("client_host")?,
            member_metadata: s.bytes("member_metadata")?,
            member_assignment: s.bytes("member_assignment")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("member_id", &self.member_id)?;
        if version >= 4 {
            w.string_or_null("group_instance_id", self.group_instance_id.as_ref(), true)?;
        }
        w.string("client_id", &self.client_id)?;
        w.string("client_host", &self.client_host)?;
        w.bytes("member_metadata", &self.member_metadata)?;
        w.bytes("member_assignment", &self.member_assignment)?;
        w.tag_count(0);
        Ok(())
    }
}
