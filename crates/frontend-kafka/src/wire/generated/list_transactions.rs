//! @generated from `messages/list_transactions.txt` by `cargo xtask kafka`: do not edit.
//!
//! `ListTransactions`, versions 0 to 2.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `ListTransactions`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListTransactionsRequest {
    /// Versions 0 to 2.
    pub state_filters: Vec<Text>,
    /// Versions 0 to 2.
    pub producer_id_filters: Vec<i64>,
    /// Versions 1 to 2.
    pub duration_filter: i64,
    /// Version 2, may be null.
    pub transactional_id_pattern: Option<Text>,
}

impl Default for ListTransactionsRequest {
    fn default() -> Self {
        Self {
            state_filters: Vec::new(),
            producer_id_filters: Vec::new(),
            duration_filter: -1,
            transactional_id_pattern: None,
        }
    }
}

impl Wire for ListTransactionsRequest {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            state_filters: s.array("state_filters")?,
            producer_id_filters: s.array("producer_id_filters")?,
            duration_filter: if version >= 1 { s.int64("duration_filter")? } else { -1 },
            transactional_id_pattern: if version == 2 { s.string_or_null("transactional_id_pattern", true)? } else { None },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.array("state_filters", &self.state_filters)?;
        w.array("producer_id_filters", &self.producer_id_filters)?;
        if version >= 1 {
            w.int64(self.duration_filter);
        } else {
            w.must_be_default("duration_filter", self.duration_filter == -1)?;
        }
        if version == 2 {
            w.string_or_null("transactional_id_pattern", self.transactional_id_pattern.as_ref(), true)?;
        } else {
            w.must_be_default("transactional_id_pattern", self.transactional_id_pattern.is_none())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `ListTransactions`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListTransactionsResponse {
    /// Versions 0 to 2.
    pub throttle_time_ms: i32,
    /// Versions 0 to 2.
    pub error_code: i16,
    /// Versions 0 to 2.
    pub unknown_state_filters: Vec<Text>,
    /// Versions 0 to 2.
    pub transaction_states: Vec<TransactionState>,
}

impl Wire for ListTransactionsResponse {
    const LEAST_BYTES: usize = 9;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: s.int16("error_code")?,
            unknown_state_filters: s.array("unknown_state_filters")?,
            transaction_states: s.array("transaction_states")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.int16(self.error_code);
        w.array("unknown_state_filters", &self.unknown_state_filters)?;
        w.array("transaction_states", &self.transaction_states)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `transaction_states` of `ListTransactions`, versions 0 to 2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionState {
    /// Versions 0 to 2.
    pub transactional_id: Text,
    /// Versions 0 to 2.
    pub producer_id: i64,
    /// Versions 0 to 2.
    pub transaction_state: Text,
}

impl Wire for TransactionState {
    const LEAST_BYTES: usize = 11;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            transactional_id: s.string("transactional_id")?,
            producer_id: s.int64("producer_id")?,
            transaction_state: s.string("transaction_state")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("transactional_id", &self.transactional_id)?;
        w.int64(self.producer_id);
        w.string("transaction_state", &self.transaction_state)?;
        w.tag_count(0);
        Ok(())
    }
}
