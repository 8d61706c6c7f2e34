//! @generated from `messages/describe_configs.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DescribeConfigs`, versions 0 to 4.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `DescribeConfigs`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeConfigsRequest {
    /// Versions 0 to 4.
    pub resources: Vec<DescribeConfigsResource>,
    /// Versions 1 to 4.
    pub include_synonyms: bool,
    /// Versions 3 to 4.
    pub include_documentation: bool,
}

impl Wire for DescribeConfigsRequest {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            resources: s.array("resources")?,
            include_synonyms: if version >= 1 { s.boolean("include_synonyms")? } else { false },
            include_documentation: if version >= 3 { s.boolean("include_documentation")? } else { false },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.array("resources", &self.resources)?;
        if version >= 1 {
            w.boolean(self.include_synonyms);
        } else {
            w.must_be_default("include_synonyms", !self.include_synonyms)?;
        }
        if version >= 3 {
            w.boolean(self.include_documentation);
        } else {
            w.must_be_default("include_documentation", !self.include_documentation)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `resources` of `DescribeConfigs`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeConfigsResource {
    /// Versions 0 to 4.
    pub resource_type: i8,
    /// Versions 0 to 4.
    pub resource_name: Text,
    /// Versions 0 to 4, may be null.
    pub configuration_keys: Option<Vec<Text>>,
}

impl Wire for DescribeConfigsResource {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            resource_type: s.int8("resource_type")?,
            resource_name: s.string("resource_name")?,
            configuration_keys: s.array_or_null("configuration_keys", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int8(self.resource_type);
        w.string("resource_name", &self.resource_name)?;
        w.array_or_null("configuration_keys", self.configuration_keys.as_deref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DescribeConfigs`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeConfigsResponse {
    /// Versions 0 to 4.
    pub throttle_time_ms: i32,
    /// Versions 0 to 4.
    pub results: Vec<DescribeConfigsResult>,
}

impl Wire for DescribeConfigsResponse {
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

/// Part `results` of `DescribeConfigs`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeConfigsResult {
    /// Versions 0 to 4.
    pub error_code: i16,
    /// Versions 0 to 4, may be null.
    pub error_message: Option<Text>,
    /// Versions 0 to 4.
    pub resource_type: i8,
    /// Versions 0 to 4.
    pub resource_name: Text,
    /// Versions 0 to 4.
    pub configs: Vec<DescribeConfigsResourceResult>,
}

impl Wire for DescribeConfigsResult {
    const LEAST_BYTES: usize = 7;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            resource_type: s.int8("resource_type")?,
            resource_name: s.string("resource_name")?,
            configs: s.array("configs")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.int8(self.resource_type);
        w.string("resource_name", &self.resource_name)?;
        w.array("configs", &self.configs)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `configs` of `DescribeConfigs`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeConfigsResourceResult {
    /// Versions 0 to 4.
    pub name: Text,
    /// Versions 0 to 4, may be null.
    pub value: Option<Text>,
    /// Versions 0 to 4.
    pub read_only: bool,
    /// Versions 1 to 4.
    pub config_source: i8,
    /// Version 0.
    pub is_default: bool,
    /// Versions 0 to 4.
    pub is_sensitive: bool,
    /// Versions 1 to 4.
    pub synonyms: Vec<DescribeConfigsSynonym>,
    /// Versions 3 to 4.
    pub config_type: i8,
    /// Versions 3 to 4, may be null.
    pub documentation: Option<Text>,
}

impl Default for DescribeConfigsResourceResult {
    fn default() -> Self {
        Self {
            name: Text::EMPTY,
            value: None,
            read_only: false,
            config_source: -1,
            is_default: false,
            is_sensitive: false,
            synonyms: Vec::new(),
            config_type: 0,
            documentation: None,
        }
    }
}

impl Wire for DescribeConfigsResourceResult {
    const LEAST_BYTES: usize = 7;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: s.string("name")?,
            value: s.string_or_null("value", true)?,
            read_only: s.boolean("read_only")?,
            config_source: if version >= 1 { s.int8("config_source")? } else { -1 },
            is_default: if version == 0 { s.boolean("is_default")? } else { false },
            is_sensitive: s.boolean("is_sensitive")?,
            synonyms: if version >= 1 { s.array("synonyms")? } else { Vec::new() },
            config_type: if version >= 3 { s.int8("config_type")? } else { 0 },
            documentation: if version >= 3 { s.string_or_null("documentation", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("name", &self.name)?;
        w.string_or_null("value", self.value.as_ref(), true)?;
        w.boolean(self.read_only);
        if version >= 1 {
            w.int8(self.config_source);
        }
        if version == 0 {
            w.boolean(self.is_default);
        } else {
            w.must_be_default("is_default", !self.is_default)?;
        }
        w.boolean(self.is_sensitive);
        if version >= 1 {
            w.array("synonyms", &self.synonyms)?;
        }
        if version >= 3 {
            w.int8(self.config_type);
        }
        if version >= 3 {
            w.string_or_null("documentation", self.documentation.as_ref(), true)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `synonyms` of `DescribeConfigs`, versions 1 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeConfigsSynonym {
    /// Versions 1 to 4.
    pub name: Text,
    /// Versions 1 to 4, may be null.
    pub value: Option<Text>,
    /// Versions 1 to 4.
    pub source: i8,
}

impl Wire for DescribeConfigsSynonym {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version >= 1 { s.string("name")? } else { Text::EMPTY },
            value: if version >= 1 { s.string_or_null("value", true)? } else { None },
            source: if version >= 1 { s.int8("source")? } else { 0 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 1 {
            w.string("name", &self.name)?;
        } else {
            w.must_be_default("name", self.name.is_empty())?;
        }
        if version >= 1 {
            w.string_or_null("value", self.value.as_ref(), true)?;
        } else {
            w.must_be_default("value", self.value.is_none())?;
        }
        if version >= 1 {
            w.int8(self.source);
        } else {
            w.must_be_default("source", self.source == 0)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
