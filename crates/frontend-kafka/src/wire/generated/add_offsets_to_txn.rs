//! @generated from `messages/add_offsets_to_txn.txt` by `cargo xtask kafka`: do not edit.
//!
//! `AddOffsetsToTxn`, versions 0 to 4.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `AddOffsetsToTxn`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddOffsetsToTxnRequest {
    /// Versions 0 to 4.
    pub transactional_id: Text,
    /// Versions 0 to 4.
    pub producer_id: i64,
    /// Versions 0 to 4.
    pub producer_epoch: i16,
    /// Versions 0 to 4.
    pub group_id: Text,
}

impl Wire for AddOffsetsToTxnRequest {
    const LEAST_BYTES: usize = 13;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            transactional_id: s.string("transactional_id")?,
            producer_id: s.int64("producer_id")?,
            producer_epoch: s.int16("producer_epoch")?,
            group_id: s.string("group_id")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("transactional_id", &self.transactional_id)?;
        w.int64(self.producer_id);
        w.int16(self.producer_epoch);
        w.string("group_id", &self.group_id)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `AddOffsetsToTxn`, versions 0 to 4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddOffsetsToTxnResponse {
    /// Versions 0 to 4.
    pub throttle_time_ms: i32,
    /// Versions 0 to 4.
    pub error_code: i16,
}

impl Wire for AddOffsetsToTxnResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.tag_count(0);
        Ok(())
    }
}
