//! @generated from `messages/find_coordinator.txt` by `cargo xtask kafka`: do not edit.
//!
//! `FindCoordinator`, versions 0 to 6.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `FindCoordinator`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FindCoordinatorRequest {
    /// Versions 0 to 3.
    pub key: Text,
    /// Versions 1 to 6.
    pub key_type: i8,
    /// Versions 4 to 6.
    pub coordinator_keys: Vec<Text>,
}

impl Wire for FindCoordinatorRequest {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            key: if version <= 3 { s.string("key")? } else { Text::EMPTY },
            key_type: if version >= 1 { s.int8("key_type")? } else { 0 },
            coordinator_keys: if version >= 4 { s.array("coordinator_keys")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version <= 3 {
            w.string("key", &self.key)?;
        } else {
            w.must_be_default("key", self.key.is_empty())?;
        }
        if version >= 1 {
            w.int8(self.key_type);
        } else {
            w.must_be_default("key_type", self.key_type == 0)?;
        }
        if version >= 4 {
            w.array("coordinator_keys", &self.coordinator_keys)?;
        } else {
            w.must_be_default("coordinator_keys", self.coordinator_keys.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `FindCoordinator`, versions 0 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FindCoordinatorResponse {
    /// Versions 1 to 6.
    pub throttle_time_ms: i32,
    /// Versions 0 to 3.
    pub error_code: i16,
    /// Versions 1 to 3, may be null.
    pub error_message: Option<Text>,
    /// Versions 0 to 3.
    pub node_id: i32,
    /// Versions 0 to 3.
    pub host: Text,
    /// Versions 0 to 3.
    pub port: i32,
    /// Versions 4 to 6.
    pub coordinators: Vec<Coordinator>,
}

impl Wire for FindCoordinatorResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: if version >= 1 { s.int32("throttle_time_ms")? } else { 0 },
            error_code: if version <= 3 { s.int16("error_code")? } else { 0 },
            error_message: if (1..=3).contains(&version) { s.string_or_null("error_message", true)? } else { None },
            node_id: if version <= 3 { s.int32("node_id")? } else { 0 },
            host: if version <= 3 { s.string("host")? } else { Text::EMPTY },
            port: if version <= 3 { s.int32("port")? } else { 0 },
            coordinators: if version >= 4 { s.array("coordinators")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 1 {
            w.int32(self.throttle_time_ms);
        }
        if version <= 3 {
            w.int16(self.error_code);
        } else {
            w.must_be_default("error_code", self.error_code == 0)?;
        }
        if (1..=3).contains(&version) {
            w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        }
        if version <= 3 {
            w.int32(self.node_id);
        } else {
            w.must_be_default("node_id", self.node_id == 0)?;
        }
        if version <= 3 {
            w.string("host", &self.host)?;
        } else {
            w.must_be_default("host", self.host.is_empty())?;
        }
        if version <= 3 {
            w.int32(self.port);
        } else {
            w.must_be_default("port", self.port == 0)?;
        }
        if version >= 4 {
            w.array("coordinators", &self.coordinators)?;
        } else {
            w.must_be_default("coordinators", self.coordinators.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `coordinators` of `FindCoordinator`, versions 4 to 6.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coordinator {
    /// Versions 4 to 6.
    pub key: Text,
    /// Versions 4 to 6.
    pub node_id: i32,
    /// Versions 4 to 6.
    pub host: Text,
    /// Versions 4 to 6.
    pub port: i32,
    /// Versions 4 to 6.
    pub error_code: i16,
    /// Versions 4 to 6, may be null.
    pub error_message: Option<Text>,
}

impl Wire for Coordinator {
    const LEAST_BYTES: usize = 14;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            key: if version >= 4 { s.string("key")? } else { Text::EMPTY },
            node_id: if version >= 4 { s.int32("node_id")? } else { 0 },
            host: if version >= 4 { s.string("host")? } else { Text::EMPTY },
            port: if version >= 4 { s.int32("port")? } else { 0 },
            error_code: if version >= 4 { s.int16("error_code")? } else { 0 },
            error_message: if version >= 4 { s.string_or_null("error_message", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 4 {
            w.string("key", &self.key)?;
        } else {
            w.must_be_default("key", self.key.is_empty())?;
        }
        if version >= 4 {
            w.int32(self.node_id);
        } else {
            w.must_be_default("node_id", self.node_id == 0)?;
        }
        if version >= 4 {
            w.string("host", &self.host)?;
        } else {
            w.must_be_default("host", self.host.is_empty())?;
        }
        if version >= 4 {
            w.int32(self.port);
        } else {
            w.must_be_default("port", self.port == 0)?;
        }
        if version >= 4 {
            w.int16(self.error_code);
        } else {
            w.must_be_default("error_code", self.error_code == 0)?;
        }
        if version >= 4 {
            w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
