//! @generated from `messages/update_features.txt` by `cargo xtask kafka`: do not edit.
//!
//! `UpdateFeatures`, versions 0 to 2.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `UpdateFeatures`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateFeaturesRequest {
    /// Versions 0 to 2.
    pub timeout_ms: i32,
    /// Versions 0 to 2.
    pub feature_updates: Vec<FeatureUpdateKey>,
    /// Versions 1 to 2.
    pub validate_only: bool,
}

impl Default for UpdateFeaturesRequest {
    fn default() -> Self {
        Self {
            timeout_ms: 60000,
            feature_updates: Vec::new(),
            validate_only: false,
        }
    }
}

impl Wire for UpdateFeaturesRequest {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            timeout_ms: s.int32("timeout_ms")?,
            feature_updates: s.array("feature_updates")?,
            validate_only: if version >= 1 { s.boolean("validate_only")? } else { false },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.timeout_ms);
        w.array("feature_updates", &self.feature_updates)?;
        if version >= 1 {
            w.boolean(self.validate_only);
        } else {
            w.must_be_default("validate_only", !self.validate_only)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `feature_updates` of `UpdateFeatures`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdateKey {
    /// Versions 0 to 2.
    pub feature: Text,
    /// Versions 0 to 2.
    pub max_version_level: i16,
    /// Version 0.
    pub allow_downgrade: bool,
    /// Versions 1 to 2.
    pub upgrade_type: i8,
}

impl Default for FeatureUpdateKey {
    fn default() -> Self {
        Self {
            feature: Text::EMPTY,
            max_version_level: 0,
            allow_downgrade: false,
            upgrade_type: 1,
        }
    }
}

impl Wire for FeatureUpdateKey {
    const LEAST_BYTES: usize = 5;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            feature: s.string("feature")?,
            max_version_level: s.int16("max_version_level")?,
            allow_downgrade: if version == 0 { s.boolean("allow_downgrade")? } else { false },
            upgrade_type: if version >= 1 { s.int8("upgrade_type")? } else { 1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string("feature", &self.feature)?;
        w.int16(self.max_version_level);
        if version == 0 {
            w.boolean(self.allow_downgrade);
        } else {
            w.must_be_default("allow_downgrade", !self.allow_downgrade)?;
        }
        if version >= 1 {
            w.int8(self.upgrade_type);
        } else {
            w.must_be_default("upgrade_type", self.upgrade_type == 1)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `UpdateFeatures`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdateFeaturesResponse {
    /// Versions 0 to 2.
    pub throttle_time_ms: i32,
    /// Versions 0 to 2.
    pub error_code: i16,
    /// Versions 0 to 2, may be null.
    pub error_message: Option<Text>,
    /// Versions 0 to 1.
    pub results: Vec<UpdatableFeatureResult>,
}

impl Wire for UpdateFeaturesResponse {
    const LEAST_BYTES: usize = 8;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            results: if version <= 1 { s.array("results")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        if version <= 1 {
            w.array("results", &self.results)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `results` of `UpdateFeatures`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdatableFeatureResult {
    /// Versions 0 to 2.
    pub feature: Text,
    /// Versions 0 to 2.
    pub error_code: i16,
    /// Versions 0 to 2, may be null.
    pub error_message: Option<Text>,
}

impl Wire for UpdatableFeatureResult {
    const LEAST_BYTES: usize = 5;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            feature: s.string("feature")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("feature", &self.feature)?;
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}
