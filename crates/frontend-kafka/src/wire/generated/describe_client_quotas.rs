//! @generated from `messages/describe_client_quotas.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DescribeClientQuotas`, versions 0 to 1.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `DescribeClientQuotas`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeClientQuotasRequest {
    /// Versions 0 to 1.
    pub components: Vec<ComponentData>,
    /// Versions 0 to 1.
    pub strict: bool,
}

impl Wire for DescribeClientQuotasRequest {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            components: s.array("components")?,
            strict: s.boolean("strict")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("components", &self.components)?;
        w.boolean(self.strict);
        w.tag_count(0);
        Ok(())
    }
}

/// Part `components` of `DescribeClientQuotas`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ComponentData {
    /// Versions 0 to 1.
    pub entity_type: Text,
    /// Versions 0 to 1.
    pub match_type: i8,
    /// Versions 0 to 1, may be null.
    pub match_name: Option<Text>,
}

impl Wire for ComponentData {
    const LEAST_BYTES: usize = 4;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            entity_type: s.string("entity_type")?,
            match_type: s.int8("match_type")?,
            match_name: s.string_or_null("match_name", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("entity_type", &self.entity_type)?;
        w.int8(self.match_type);
        w.string_or_null("match_name", self.match_name.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DescribeClientQuotas`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeClientQuotasResponse {
    /// Versions 0 to 1.
    pub throttle_time_ms: i32,
    /// Versions 0 to 1.
    pub error_code: i16,
    /// Versions 0 to 1, may be null.
    pub error_message: Option<Text>,
    /// Versions 0 to 1, may be null.
    pub entries: Option<Vec<EntryData>>,
}

impl Wire for DescribeClientQuotasResponse {
    const LEAST_BYTES: usize = 9;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            entries: s.array_or_null("entries", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.array_or_null("entries", self.entries.as_deref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `entries` of `DescribeClientQuotas`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryData {
    /// Versions 0 to 1.
    pub entity: Vec<EntityData>,
    /// Versions 0 to 1.
    pub values: Vec<ValueData>,
}

impl Wire for EntryData {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            entity: s.array("entity")?,
            values: s.array("values")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("entity", &self.entity)?;
        w.array("values", &self.values)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `entity` of `DescribeClientQuotas`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntityData {
    /// Versions 0 to 1.
    pub entity_type: Text,
    /// Versions 0 to 1, may be null.
    pub entity_name: Option<Text>,
}

impl Wire for EntityData {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            entity_type: s.string("entity_type")?,
            entity_name: s.string_or_null("entity_name", true)?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("entity_type", &self.entity_type)?;
        w.string_or_null("entity_name", self.entity_name.as_ref(), true)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `values` of `DescribeClientQuotas`, versions 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ValueData {
    /// Versions 0 to 1.
    pub key: Text,
    /// Versions 0 to 1.
    pub value: i64,
}

impl Wire for ValueData {
    const LEAST_BYTES: usize = 10;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            key: s.string("key")?,
            value: s.int64("value")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("key", &self.key)?;
        w.int64(self.value);
        w.tag_count(0);
        Ok(())
    }
}
