//! @generated from `messages/list_config_resources.txt` by `cargo xtask kafka`: do not edit.
//!
//! `ListConfigResources`, versions 0 to 1.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `ListConfigResources`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListConfigResourcesRequest {
    /// Version 1.
    pub resource_types: Vec<i8>,
}

impl Wire for ListConfigResourcesRequest {
    const LEAST_BYTES: usize = 1;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            resource_types: if version == 1 { s.array("resource_types")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version == 1 {
            w.array("resource_types", &self.resource_types)?;
        } else {
            w.must_be_default("resource_types", self.resource_types.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `ListConfigResources`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListConfigResourcesResponse {
    /// Versions 0 to 1.
    pub throttle_time_ms: i32,
    /// Versions 0 to 1.
    pub error_code: i16,
    /// Versions 0 to 1.
    pub config_resources: Vec<ConfigResource>,
}

impl Wire for ListConfigResourcesResponse {
    const LEAST_BYTES: usize = 8;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            config_resources: s.array("config_resources")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.array("config_resources", &self.config_resources)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `config_resources` of `ListConfigResources`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigResource {
    /// Versions 0 to 1.
    pub resource_name: Text,
    /// Version 1.
    pub resource_type: i8,
}

impl Default for ConfigResource {
    fn default() -> Self {
        Self {
            resource_name: Text::EMPTY,
            resource_type: 16,
        }
    }
}

impl Wire for ConfigResource {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            resource_name: s.string("resource_name")?,
            resource_type: if version == 1 { s.int8("resource_type")? } else { 16 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("resource_name", &self.resource_name)?;
        if version == 1 {
            w.int8(self.resource_type);
        }
        w.tag_count(0);
        Ok(())
    }
}
