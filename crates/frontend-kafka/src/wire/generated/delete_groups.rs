//! @generated from `messages/delete_groups.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DeleteGroups`, versions 0 to 3.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `DeleteGroups`, versions 0 to 3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteGroupsRequest {
    /// Versions 0 to 3.
    pub groups_names: Vec<Text>,
}

impl Wire for DeleteGroupsRequest {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            groups_names: s.array("groups_names")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("groups_names", &self.groups_names)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DeleteGroups`, versions 0 to 3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteGroupsResponse {
    /// Versions 0 to 3.
    pub throttle_time_ms: i32,
    /// Versions 0 to 3.
    pub results: Vec<DeletableGroupResult>,
}

impl Wire for DeleteGroupsResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            results: s.array("results")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.array("results", &self.results)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `results` of `DeleteGroups`, versions 0 to 3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeletableGroupResult {
    /// Versions 0 to 3.
    pub group_id: Text,
    /// Versions 0 to 3.
    pub error_code: i16,
    /// Version 3, may be null.
    pub error_message: Option<Text>,
}

impl Wire for DeletableGroupResult {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            group_id: s.string("group_id")?,
            error_code: s.int16("error_code")?,
            error_message: if version == 3 { s.string_or_null("error_message", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("group_id", &self.group_id)?;
        w.int16(self.error_code);
        if version == 3 {
            w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
