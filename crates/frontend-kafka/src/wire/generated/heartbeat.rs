//! @generated from `messages/heartbeat.txt` by `cargo xtask kafka`: do not edit.
//!
//! `Heartbeat`, versions 0 to 4.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `Heartbeat`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeartbeatRequest {
    /// Versions 0 to 4.
    pub group_id: Text,
    /// Versions 0 to 4.
    pub generation_id: i32,
    /// Versions 0 to 4.
    pub member_id: Text,
    /// Versions 3 to 4, may be null.
    pub group_instance_id: Option<Text>,
}

impl Wire for HeartbeatRequest {
    const LEAST_BYTES: usize = 8;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            group_id: s.string("group_id")?,
            generation_id: s.int32("generation_id")?,
            member_id: s.string("member_id")?,
            group_instance_id: if version >= 3 { s.string_or_null("group_instance_id", true)? } else { None },
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
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `Heartbeat`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeartbeatResponse {
    /// Versions 1 to 4.
    pub throttle_time_ms: i32,
    /// Versions 0 to 4.
    pub error_code: i16,
}

impl Wire for HeartbeatResponse {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 1 { s.int32("throttle_time_ms")? } else { 0 },
            error_code: s.int16("error_code")?,
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
        w.tag_count(0);
        Ok(())
    }
}
