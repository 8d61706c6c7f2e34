//! @generated from `messages/describe_transactions.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DescribeTransactions`, version 0.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `DescribeTransactions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeTransactionsRequest {
    /// Version 0.
    pub transactional_ids: Vec<Text>,
}

impl Wire for DescribeTransactionsRequest {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            transactional_ids: s.array("transactional_ids")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("transactional_ids", &self.transactional_ids)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DescribeTransactions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeTransactionsResponse {
    /// Version 0.
    pub throttle_time_ms: i32,
    /// Version 0.
    pub transaction_states: Vec<TransactionState>,
}

impl Wire for DescribeTransactionsResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            transaction_states: s.array("transaction_states")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.array("transaction_states", &self.transaction_states)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `transaction_states` of `DescribeTransactions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionState {
    /// Version 0.
    pub error_code: i16,
    /// Version 0.
    pub transactional_id: Text,
    /// Version 0.
    pub transaction_state: Text,
    /// Version 0.
    pub transaction_timeout_ms: i32,
    /// Version 0.
    pub transaction_start_time_ms: i64,
    /// Version 0.
    pub producer_id: i64,
    /// Version 0.
    pub producer_epoch: i16,
    /// Version 0.
    pub topics: Vec<TopicData>,
}

impl Wire for TransactionState {
    const LEAST_BYTES: usize = 28;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            error_code: s.int16("error_code")?,
            transactional_id: s.string("transactional_id")?,
            transaction_state: s.string("transaction_state")?,
            transaction_timeout_ms: s.int32("transaction_timeout_ms")?,
            transaction_start_time_ms: s.int64("transaction_start_time_ms")?,
            producer_id: s.int64("producer_id")?,
            producer_epoch: s.int16("producer_epoch")?,
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int16(self.error_code);
        w.string("transactional_id", &self.transactional_id)?;
        w.string("transaction_state", &self.transaction_state)?;
        w.int32(self.transaction_timeout_ms);
        w.int64(self.transaction_start_time_ms);
        w.int64(self.producer_id);
        w.int16(self.producer_epoch);
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DescribeTransactions`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicData {
    /// Version 0.
    pub topic: Text,
    /// Version 0.
    pub partitions: Vec<i32>,
}

impl Wire for TopicData {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topic: s.string("topic")?,
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("topic", &self.topic)?;
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}
