//! @generated from `messages/incremental_alter_configs.txt` by `cargo xtask kafka`: do not edit.
//!
//! `IncrementalAlterConfigs`, versions 0 to 1.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `IncrementalAlterConfigs`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IncrementalAlterConfigsRequest {
    /// Versions 0 to 1.
    pub resources: Vec<AlterConfigsResource>,
    /// Versions 0 to 1.
    pub validate_only: bool,
}

impl Wire for IncrementalAlterConfigsRequest {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            resources: s.array("resources")?,
            validate_only: s.boolean("validate_only")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("resources", &self.resources)?;
        w.boolean(self.validate_only);
        w.tag_count(0);
        Ok(())
    }
}

/// Part `resources` of `IncrementalAlterConfigs`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlterConfigsResource {
    /// Versions 0 to 1.
    pub resource_type: i8,
    /// Versions 0 to 1.
    pub resource_name: Text,
    /// Versions 0 to 1.
    pub configs: Vec<AlterableConfig>,
}

impl Wire for AlterConfigsResource {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            resource_type: s.int8("resource_type")?,
            resource_name: s.string("resource_name")?,
            configs: s.array("configs")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int8(self.resource_type);
        w.string("resource_name", &self.resource_name)?;
        w.array("configs", &self.configs)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `configs` of `IncrementalAlterConfigs`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlterableConfig {
    /// Versions 0 to 1.
    pub name: Text,
    /// Versions 0 to 1.
    pub config_operation: i8,
    /// Versions 0 to 1, may be null.
    pub value: Option<Text>,
}

impl Wire for AlterableConfig {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
            config_operation: s.int8("config_operation")?,
            value: s.string_or_null("value", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.int8(self.config_operation);
        w.string_or_null("value", self.value.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `IncrementalAlterConfigs`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IncrementalAlterConfigsResponse {
    /// Versions 0 to 1.
    pub throttle_time_ms: i32,
    /// Versions 0 to 1.
    pub responses: Vec<AlterConfigsResourceResponse>,
}

impl Wire for IncrementalAlterConfigsResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            responses: s.array("responses")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.array("responses", &self.responses)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `responses` of `IncrementalAlterConfigs`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlterConfigsResourceResponse {
    /// Versions 0 to 1.
    pub error_code: i16,
    /// Versions 0 to 1, may be null.
    pub error_message: Option<Text>,
    /// Versions 0 to 1.
    pub resource_type: i8,
    /// Versions 0 to 1.
    pub resource_name: Text,
}

impl Wire for AlterConfigsResourceResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            resource_type: s.int8("resource_type")?,
            resource_name: s.string("resource_name")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.int8(self.resource_type);
        w.string("resource_name", &self.resource_name)?;
        w.tag_count(0);
        Ok(())
    }
}
