//! @generated from `messages/init_producer_id.txt` by `cargo xtask kafka`: do not edit.
//!
//! `InitProducerId`, versions 0 to 5.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `InitProducerId`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitProducerIdRequest {
    /// Versions 0 to 5, may be null.
    pub transactional_id: Option<Text>,
    /// Versions 0 to 5.
    pub transaction_timeout_ms: i32,
    /// Versions 3 to 5.
    pub producer_id: i64,
    /// Versions 3 to 5.
    pub producer_epoch: i16,
}

impl Default for InitProducerIdRequest {
    fn default() -> Self {
        Self {
            transactional_id: None,
            transaction_timeout_ms: 0,
            producer_id: -1,
            producer_epoch: -1,
        }
    }
}

impl Wire for InitProducerIdRequest {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            transactional_id: s.string_or_null("transactional_id", true)?,
            transaction_timeout_ms: s.int32("transaction_timeout_ms")?,
            producer_id: if version >= 3 { s.int64("producer_id")? } else { -1 },
            producer_epoch: if version >= 3 { s.int16("producer_epoch")? } else { -1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.string_or_null("transactional_id", self.transactional_id.as_ref(), true)?;
        w.int32(self.transaction_timeout_ms);
        if version >= 3 {
            w.int64(self.producer_id);
        } else {
            w.must_be_default("producer_id", self.producer_id == -1)?;
        }
        if version >= 3 {
            w.int16(self.producer_epoch);
        } else {
            w.must_be_default("producer_epoch", self.producer_epoch == -1)?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `InitProducerId`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitProducerIdResponse {
    /// Versions 0 to 5.
    pub throttle_time_ms: i32,
    /// Versions 0 to 5.
    pub error_code: i16,
    /// Versions 0 to 5.
    pub producer_id: i64,
    /// Versions 0 to 5.
    pub producer_epoch: i16,
}

impl Default for InitProducerIdResponse {
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            error_code: 0,
            producer_id: -1,
            producer_epoch: 0,
        }
    }
}

impl Wire for InitProducerIdResponse {
    const LEAST_BYTES: usize = 16;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            producer_id: s.int64("producer_id")?,
            producer_epoch: s.int16("producer_epoch")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.int64(self.producer_id);
        w.int16(self.producer_epoch);
        w.tag_count(0);
        Ok(())
    }
}
