//! @generated from `messages/end_txn.txt` by `cargo xtask kafka`: do not edit.
//!
//! `EndTxn`, versions 0 to 5.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `EndTxn`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndTxnRequest {
    /// Versions 0 to 5.
    pub transactional_id: Text,
    /// Versions 0 to 5.
    pub producer_id: i64,
    /// Versions 0 to 5.
    pub producer_epoch: i16,
    /// Versions 0 to 5.
    pub committed: bool,
}

impl Wire for EndTxnRequest {
    const LEAST_BYTES: usize = 13;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            transactional_id: s.string("transactional_id")?,
            producer_id: s.int64("producer_id")?,
            producer_epoch: s.int16("producer_epoch")?,
            committed: s.boolean("committed")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("transactional_id", &self.transactional_id)?;
        w.int64(self.producer_id);
        w.int16(self.producer_epoch);
        w.boolean(self.committed);
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `EndTxn`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTxnResponse {
    /// Versions 0 to 5.
    pub throttle_time_ms: i32,
    /// Versions 0 to 5.
    pub error_code: i16,
    /// Version 5.
    pub producer_id: i64,
    /// Version 5.
    pub producer_epoch: i16,
}

impl Default for EndTxnResponse {
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            error_code: 0,
            producer_id: -1,
            producer_epoch: -1,
        }
    }
}

impl Wire for EndTxnResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            producer_id: if version == 5 { s.int64("producer_id")? } else { -1 },
            producer_epoch: if version == 5 { s.int16("producer_epoch")? } else { -1 },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        if version == 5 {
            w.int64(self.producer_id);
        }
        if version == 5 {
            w.int16(self.producer_epoch);
        }
        w.tag_count(0);
        Ok(())
    }
}
