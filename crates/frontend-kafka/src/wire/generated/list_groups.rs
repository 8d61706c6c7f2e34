//! @generated from `messages/list_groups.txt` by `cargo xtask kafka`: do not edit.
//!
//! `ListGroups`, versions 0 to 5.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `ListGroups`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListGroupsRequest {
    /// Versions 4 to 5.
    pub states_filter: Vec<Text>,
    /// Version 5.
    pub types_filter: Vec<Text>,
}

impl Wire for ListGroupsRequest {
    const LEAST_BYTES: usize = 1;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            states_filter: if version >= 4 { s.array("states_filter")? } else { Vec::new() },
            types_filter: if version == 5 { s.array("types_filter")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 4 {
            w.array("states_filter", &self.states_filter)?;
        } else {
            w.must_be_default("states_filter", self.states_filter.is_empty())?;
        }
        if version == 5 {
            w.array("types_filter", &self.types_filter)?;
        } else {
            w.must_be_default("types_filter", self.types_filter.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `ListGroups`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListGroupsResponse {
    /// Versions 1 to 5.
    pub throttle_time_ms: i32,
    /// Versions 0 to 5.
    pub error_code: i16,
    /// Versions 0 to 5.
    pub groups: Vec<ListedGroup>,
}

impl Wire for ListGroupsResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 1 { s.int32("throttle_time_ms")? } else { 0 },
            error_code: s.int16("error_code")?,
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
        w.int16(self.error_code);
        w.array("groups", &self.groups)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `groups` of `ListGroups`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListedGroup {
    /// Versions 0 to 5.
    pub group_id: Text,
    /// Versions 0 to 5.
    pub protocol_type: Text,
    /// Versions 4 to 5.
    pub group_state: Text,
    /// Version 5.
    pub group_type: Text,
}

impl Wire for ListedGroup {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            group_id: s.string("group_id")?,
            protocol_type: s.string("protocol_type")?,
            group_state: if version >= 4 { s.string("group_state")? } else { Text::EMPTY },
            group_type: if version == 5 { s.string("group_type")? } else { Text::EMPTY },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("group_id", &self.group_id)?;
        w.string("protocol_type", &self.protocol_type)?;
        if version >= 4 {
            w.string("group_state", &self.group_state)?;
        }
        if version == 5 {
            w.string("group_type", &self.group_type)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
