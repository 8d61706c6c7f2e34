//! @generated from `messages/describe_acls.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DescribeAcls`, versions 1 to 3.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `DescribeAcls`, versions 1 to 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeAclsRequest {
    /// Versions 1 to 3.
    pub resource_type_filter: i8,
    /// Versions 1 to 3, may be null.
    pub resource_name_filter: Option<Text>,
    /// Versions 1 to 3.
    pub pattern_type_filter: i8,
    /// Versions 1 to 3, may be null.
    pub principal_filter: Option<Text>,
    /// Versions 1 to 3, may be null.
    pub host_filter: Option<Text>,
    /// Versions 1 to 3.
    pub operation: i8,
    /// Versions 1 to 3.
    pub permission_type: i8,
}

impl Default for DescribeAclsRequest {
    fn default() -> Self {
        Self {
            resource_type_filter: 0,
            resource_name_filter: None,
            pattern_type_filter: 3,
            principal_filter: None,
            host_filter: None,
            operation: 0,
            permission_type: 0,
        }
    }
}

impl Wire for DescribeAclsRequest {
    const LEAST_BYTES: usize = 8;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            resource_type_filter: s.int8("resource_type_filter")?,
            resource_name_filter: s.string_or_null("resource_name_filter", true)?,
            pattern_type_filter: s.int8("pattern_type_filter")?,
            principal_filter: s.string_or_null("principal_filter", true)?,
            host_filter: s.string_or_null("host_filter", true)?,
            operation: s.int8("operation")?,
            permission_type: s.int8("permission_type")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int8(self.resource_type_filter);
        w.string_or_null("resource_name_filter", self.resource_name_filter.as_ref(), true)?;
        w.int8(self.pattern_type_filter);
        w.string_or_null("principal_filter", self.principal_filter.as_ref(), true)?;
        w.string_or_null("host_filter", self.host_filter.as_ref(), true)?;
        w.int8(self.operation);
        w.int8(self.permission_type);
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DescribeAcls`, versions 1 to 3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeAclsResponse {
    /// Versions 1 to 3.
    pub throttle_time_ms: i32,
    /// Versions 1 to 3.
    pub error_code: i16,
    /// Versions 1 to 3, may be null.
    pub error_message: Option<Text>,
    /// Versions 1 to 3.
    pub resources: Vec<DescribeAclsResource>,
}

impl Wire for DescribeAclsResponse {
    const LEAST_BYTES: usize = 9;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            resources: s.array("resources")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.array("resources", &self.resources)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `resources` of `DescribeAcls`, versions 1 to 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeAclsResource {
    /// Versions 1 to 3.
    pub resource_type: i8,
    /// Versions 1 to 3.
    pub resource_name: Text,
    /// Versions 1 to 3.
    pub pattern_type: i8,
    /// Versions 1 to 3.
    pub acls: Vec<AclDescription>,
}

impl Default for DescribeAclsResource {
    fn default() -> Self {
        Self {
            resource_type: 0,
            resource_name: Text::EMPTY,
            pattern_type: 3,
            acls: Vec::new(),
        }
    }
}

impl Wire for DescribeAclsResource {
    const LEAST_BYTES: usize = 5;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            resource_type: s.int8("resource_type")?,
            resource_name: s.string("resource_name")?,
            pattern_type: s.int8("pattern_type")?,
            acls: s.array("acls")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int8(self.resource_type);
        w.string("resource_name", &self.resource_name)?;
        w.int8(self.pattern_type);
        w.array("acls", &self.acls)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `acls` of `DescribeAcls`, versions 1 to 3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AclDescription {
    /// Versions 1 to 3.
    pub principal: Text,
    /// Versions 1 to 3.
    pub host: Text,
    /// Versions 1 to 3.
    pub operation: i8,
    /// Versions 1 to 3.
    pub permission_type: i8,
}

impl Wire for AclDescription {
    const LEAST_BYTES: usize = 5;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            principal: s.string("principal")?,
            host: s.string("host")?,
            operation: s.int8("operation")?,
            permission_type: s.int8("permission_type")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("principal", &self.principal)?;
        w.string("host", &self.host)?;
        w.int8(self.operation);
        w.int8(self.permission_type);
        w.tag_count(0);
        Ok(())
    }
}
