//! @generated from `messages/describe_cluster.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DescribeCluster`, versions 0 to 2.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `DescribeCluster`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeClusterRequest {
    /// Versions 0 to 2.
    pub include_cluster_authorized_operations: bool,
    /// Versions 1 to 2.
    pub endpoint_type: i8,
    /// Version 2.
    pub include_fenced_brokers: bool,
}

impl Default for DescribeClusterRequest {
    fn default() -> Self {
        Self {
            include_cluster_authorized_operations: false,
            endpoint_type: 1,
            include_fenced_brokers: false,
        }
    }
}

impl Wire for DescribeClusterRequest {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            include_cluster_authorized_operations: s.boolean("include_cluster_authorized_operations")?,
            endpoint_type: if version >= 1 { s.int8("endpoint_type")? } else { 1 },
            include_fenced_brokers: if version == 2 { s.boolean("include_fenced_brokers")? } else { false },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.boolean(self.include_cluster_authorized_operations);
        if version >= 1 {
            w.int8(self.endpoint_type);
        } else {
            w.must_be_default("endpoint_type", self.endpoint_type == 1)?;
        }
        if version == 2 {
            w.boolean(self.include_fenced_brokers);
        } else {
            w.must_be_default("include_fenced_brokers", !self.include_fenced_brokers)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DescribeCluster`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeClusterResponse {
    /// Versions 0 to 2.
    pub throttle_time_ms: i32,
    /// Versions 0 to 2.
    pub error_code: i16,
    /// Versions 0 to 2, may be null.
    pub error_message: Option<Text>,
    /// Versions 1 to 2.
    pub endpoint_type: i8,
    /// Versions 0 to 2.
    pub cluster_id: Text,
    /// Versions 0 to 2.
    pub controller_id: i32,
    /// Versions 0 to 2.
    pub brokers: Vec<DescribeClusterBroker>,
    /// Versions 0 to 2.
    pub cluster_authorized_operations: i32,
}

impl Default for DescribeClusterResponse {
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            error_code: 0,
            error_message: None,
            endpoint_type: 1,
            cluster_id: Text::EMPTY,
            controller_id: -1,
            brokers: Vec::new(),
            cluster_authorized_operations: -2147483648,
        }
    }
}

impl Wire for DescribeClusterResponse {
    const LEAST_BYTES: usize = 18;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            endpoint_type: if version >= 1 { s.int8("endpoint_type")? } else { 1 },
            cluster_id: s.string("cluster_id")?,
            controller_id: s.int32("controller_id")?,
            brokers: s.array("brokers")?,
            cluster_authorized_operations: s.int32("cluster_authorized_operations")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        if version >= 1 {
            w.int8(self.endpoint_type);
        } else {
            w.must_be_default("endpoint_type", self.endpoint_type == 1)?;
        }
        w.string("cluster_id", &self.cluster_id)?;
        w.int32(self.controller_id);
        w.array("brokers", &self.brokers)?;
        w.int32(self.cluster_authorized_operations);
        w.tag_count(0);
        Ok(())
    }
}

/// Part `brokers` of `DescribeCluster`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeClusterBroker {
    /// Versions 0 to 2.
    pub broker_id: i32,
    /// Versions 0 to 2.
    pub host: Text,
    /// Versions 0 to 2.
    pub port: i32,
    /// Versions 0 to 2, may be null.
    pub rack: Option<Text>,
    /// Version 2.
    pub is_fenced: bool,
}

impl Wire for DescribeClusterBroker {
    const LEAST_BYTES: usize = 11;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            broker_id: s.int32("broker_id")?,
            host: s.string("host")?,
            port: s.int32("port")?,
            rack: s.string_or_null("rack", true)?,
            is_fenced: if version == 2 { s.boolean("is_fenced")? } else { false },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.broker_id);
        w.string("host", &self.host)?;
        w.int32(self.port);
        w.string_or_null("rack", self.rack.as_ref(), true)?;
        if version == 2 {
            w.boolean(self.is_fenced);
        } else {
            w.must_be_default("is_fenced", !self.is_fenced)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
