//! @generated from `messages/api_versions.txt` by `cargo xtask kafka`: do not edit.
//!
//! `ApiVersions`, versions 0 to 5.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `ApiVersions`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiVersionsRequest {
    /// Versions 3 to 5.
    pub client_software_name: Text,
    /// Versions 3 to 5.
    pub client_software_version: Text,
    /// Version 5, may be null.
    pub cluster_id: Option<Text>,
    /// Version 5.
    pub node_id: i32,
}

impl Default for ApiVersionsRequest {
    fn default() -> Self {
        Self {
            client_software_name: Text::EMPTY,
            client_software_version: Text::EMPTY,
            cluster_id: None,
            node_id: -1,
        }
    }
}

impl Wire for ApiVersionsRequest {
    const LEAST_BYTES: usize = 1;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            client_software_name: if version >= 3 { s.string("client_software_name")? } else { Text::EMPTY },
            client_software_version: if version >= 3 { s.string("client_software_version")? } else { Text::EMPTY },
            cluster_id: if version == 5 { s.string_or_null("cluster_id", true)? } else { None },
            node_id: if version == 5 { s.int32("node_id")? } else { -1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 3 {
            w.string("client_software_name", &self.client_software_name)?;
        }
        if version >= 3 {
            w.string("client_software_version", &self.client_software_version)?;
        }
        if version == 5 {
            w.string_or_null("cluster_id", self.cluster_id.as_ref(), true)?;
        }
        if version == 5 {
            w.int32(self.node_id);
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `ApiVersions`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiVersionsResponse {
    /// Versions 0 to 5.
    pub error_code: i16,
    /// Versions 0 to 5.
    pub api_keys: Vec<ApiVersion>,
    /// Versions 1 to 5.
    pub throttle_time_ms: i32,
    /// Versions 3 to 5, tagged 0.
    pub supported_features: Vec<SupportedFeatureKey>,
    /// Versions 3 to 5, tagged 1.
    pub finalized_features_epoch: i64,
    /// Versions 3 to 5, tagged 2.
    pub finalized_features: Vec<FinalizedFeatureKey>,
    /// Versions 3 to 5, tagged 3.
    pub zk_migration_ready: bool,
}

impl Default for ApiVersionsResponse {
    fn default() -> Self {
        Self {
            error_code: 0,
            api_keys: Vec::new(),
            throttle_time_ms: 0,
            supported_features: Vec::new(),
            finalized_features_epoch: -1,
            finalized_features: Vec::new(),
            zk_migration_ready: false,
        }
    }
}

impl Wire for ApiVersionsResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let mut m = Self {
            error_code: s.int16("error_code")?,
            api_keys: s.array("api_keys")?,
            throttle_time_ms: if version >= 1 { s.int32("throttle_time_ms")? } else { 0 },
            supported_features: Vec::new(),
            finalized_features_epoch: -1,
            finalized_features: Vec::new(),
            zk_migration_ready: false,
        };
        s.tags(&[0, 1, 2, 3], |s, tag| {
            match tag {
                0 if version >= 3 => m.supported_features = s.array("supported_features")?,
                1 if version >= 3 => m.finalized_features_epoch = s.int64("finalized_features_epoch")?,
                2 if version >= 3 => m.finalized_features = s.array("finalized_features")?,
                3 if version >= 3 => m.zk_migration_ready = s.boolean("zk_migration_ready")?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int16(self.error_code);
        w.array("api_keys", &self.api_keys)?;
        if version >= 1 {
            w.int32(self.throttle_time_ms);
        }
        let tag_0 = version >= 3 && !self.supported_features.is_empty();
        let tag_1 = version >= 3 && self.finalized_features_epoch != -1;
        let tag_2 = version >= 3 && !self.finalized_features.is_empty();
        let tag_3 = version >= 3 && self.zk_migration_ready;
        w.tag_count(u32::from(tag_0) + u32::from(tag_1) + u32::from(tag_2) + u32::from(tag_3));
        if tag_0 {
            w.tag(0, |w| w.array("supported_features", &self.supported_features))?;
        }
        if tag_1 {
            w.tag(1, |w| { w.int64(self.finalized_features_epoch); Ok(()) })?;
        }
        if tag_2 {
            w.tag(2, |w| w.array("finalized_features", &self.finalized_features))?;
        }
        if tag_3 {
            w.tag(3, |w| { w.boolean(self.zk_migration_ready); Ok(()) })?;
        }
        Ok(())
    }
}

/// Part `api_keys` of `ApiVersions`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiVersion {
    /// Versions 0 to 5.
    pub api_key: i16,
    /// Versions 0 to 5.
    pub min_version: i16,
    /// Versions 0 to 5.
    pub max_version: i16,
}

impl Wire for ApiVersion {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            api_key: s.int16("api_key")?,
            min_version: s.int16("min_version")?,
            max_version: s.int16("max_version")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int16(self.api_key);
        w.int16(self.min_version);
        w.int16(self.max_version);
        w.tag_count(0);
        Ok(())
    }
}

/// Part `supported_features` of `ApiVersions`, versions 3 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SupportedFeatureKey {
    /// Versions 3 to 5.
    pub name: Text,
    /// Versions 3 to 5.
    pub min_version: i16,
    /// Versions 3 to 5.
    pub max_version: i16,
}

impl Wire for SupportedFeatureKey {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version >= 3 { s.string("name")? } else { Text::EMPTY },
            min_version: if version >= 3 { s.int16("min_version")? } else { 0 },
            max_version: if version >= 3 { s.int16("max_version")? } else { 0 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 3 {
            w.string("name", &self.name)?;
        } else {
            w.must_be_default("name", self.name.is_empty())?;
        }
        if version >= 3 {
            w.int16(self.min_version);
        } else {
            w.must_be_default("min_version", self.min_version == 0)?;
        }
        if version >= 3 {
            w.int16(self.max_version);
        } else {
            w.must_be_default("max_version", self.max_version == 0)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `finalized_features` of `ApiVersions`, versions 3 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FinalizedFeatureKey {
    /// Versions 3 to 5.
    pub name: Text,
    /// Versions 3 to 5.
    pub max_version_level: i16,
    /// Versions 3 to 5.
    pub min_version_level: i16,
}

impl Wire for FinalizedFeatureKey {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            name: if version >= 3 { s.string("name")? } else { Text::EMPTY },
            max_version_level: if version >= 3 { s.int16("max_version_level")? } else { 0 },
            min_version_level: if version >= 3 { s.int16("min_version_level")? } else { 0 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 3 {
            w.string("name", &self.name)?;
        } else {
            w.must_be_default("name", self.name.is_empty())?;
        }
        if version >= 3 {
            w.int16(self.max_version_level);
        } else {
            w.must_be_default("max_version_level", self.max_version_level == 0)?;
        }
        if version >= 3 {
            w.int16(self.min_version_level);
        } else {
            w.must_be_default("min_version_level", self.min_version_level == 0)?;
        }
        w.tag_count(0);
        Ok(())
    }
}
