//! @generated from `messages/add_partitions_to_txn.txt` by `cargo xtask kafka`: do not edit.
//!
//! `AddPartitionsToTxn`, versions 0 to 5.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `AddPartitionsToTxn`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddPartitionsToTxnRequest {
    /// Versions 4 to 5.
    pub transactions: Vec<AddPartitionsToTxnTransaction>,
    /// Versions 0 to 3.
    pub v3_and_below_transactional_id: Text,
    /// Versions 0 to 3.
    pub v3_and_below_producer_id: i64,
    /// Versions 0 to 3.
    pub v3_and_below_producer_epoch: i16,
    /// Versions 0 to 3.
    pub v3_and_below_topics: Vec<AddPartitionsToTxnTopic>,
}

impl Wire for AddPartitionsToTxnRequest {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            transactions: if version >= 4 { s.array("transactions")? } else { Vec::new() },
            v3_and_below_transactional_id: if version <= 3 { s.string("v3_and_below_transactional_id")? } else { Text::EMPTY },
            v3_and_below_producer_id: if version <= 3 { s.int64("v3_and_below_producer_id")? } else { 0 },
            v3_and_below_producer_epoch: if version <= 3 { s.int16("v3_and_below_producer_epoch")? } else { 0 },
            v3_and_below_topics: if version <= 3 { s.array("v3_and_below_topics")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 4 {
            w.array("transactions", &self.transactions)?;
        } else {
            w.must_be_default("transactions", self.transactions.is_empty())?;
        }
        if version <= 3 {
            w.string("v3_and_below_transactional_id", &self.v3_and_below_transactional_id)?;
        } else {
            w.must_be_default("v3_and_below_transactional_id", self.v3_and_below_transactional_id.is_empty())?;
        }
        if version <= 3 {
            w.int64(self.v3_and_below_producer_id);
        } else {
            w.must_be_default("v3_and_below_producer_id", self.v3_and_below_producer_id == 0)?;
        }
        if version <= 3 {
            w.int16(self.v3_and_below_producer_epoch);
        } else {
            w.must_be_default("v3_and_below_producer_epoch", self.v3_and_below_producer_epoch == 0)?;
        }
        if version <= 3 {
            w.array("v3_and_below_topics", &self.v3_and_below_topics)?;
        } else {
            w.must_be_default("v3_and_below_topics", self.v3_and_below_topics.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `transactions` of `AddPartitionsToTxn`, versions 4 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddPartitionsToTxnTransaction {
    /// Versions 4 to 5.
    pub transactional_id: Text,
    /// Versions 4 to 5.
    pub producer_id: i64,
    /// Versions 4 to 5.
    pub producer_epoch: i16,
    /// Versions 4 to 5.
    pub verify_only: bool,
    /// Versions 4 to 5.
    pub topics: Vec<AddPartitionsToTxnTopic>,
}

impl Wire for AddPartitionsToTxnTransaction {
    const LEAST_BYTES: usize = 14;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            transactional_id: if version >= 4 { s.string("transactional_id")? } else { Text::EMPTY },
            producer_id: if version >= 4 { s.int64("producer_id")? } else { 0 },
            producer_epoch: if version >= 4 { s.int16("producer_epoch")? } else { 0 },
            verify_only: if version >= 4 { s.boolean("verify_only")? } else { false },
            topics: if version >= 4 { s.array("topics")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 4 {
            w.string("transactional_id", &self.transactional_id)?;
        } else {
            w.must_be_default("transactional_id", self.transactional_id.is_empty())?;
        }
        if version >= 4 {
            w.int64(self.producer_id);
        } else {
            w.must_be_default("producer_id", self.producer_id == 0)?;
        }
        if version >= 4 {
            w.int16(self.producer_epoch);
        } else {
            w.must_be_default("producer_epoch", self.producer_epoch == 0)?;
        }
        if version >= 4 {
            w.boolean(self.verify_only);
        } else {
            w.must_be_default("verify_only", !self.verify_only)?;
        }
        if version >= 4 {
            w.array("topics", &self.topics)?;
        } else {
            w.must_be_default("topics", self.topics.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part of `AddPartitionsToTxn`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddPartitionsToTxnTopic {
    /// Versions 0 to 5.
    pub name: Text,
    /// Versions 0 to 5.
    pub partitions: Vec<i32>,
}

impl Wire for AddPartitionsToTxnTopic {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
            partitions: s.array("partitions")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.array("partitions", &self.partitions)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `AddPartitionsToTxn`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddPartitionsToTxnResponse {
    /// Versions 0 to 5.
    pub throttle_time_ms: i32,
    /// Versions 4 to 5.
    pub error_code: i16,
    /// Versions 4 to 5.
    pub results_by_transaction: Vec<AddPartitionsToTxnResult>,
    /// Versions 0 to 3.
    pub results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult>,
}

impl Wire for AddPartitionsToTxnResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            error_code: if version >= 4 { s.int16("error_code")? } else { 0 },
            results_by_transaction: if version >= 4 { s.array("results_by_transaction")? } else { Vec::new() },
            results_by_topic_v3_and_below: if version <= 3 { s.array("results_by_topic_v3_and_below")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        w.int32(self.throttle_time_ms);
        if version >= 4 {
            w.int16(self.error_code);
        }
        if version >= 4 {
            w.array("results_by_transaction", &self.results_by_transaction)?;
        } else {
            w.must_be_default("results_by_transaction", self.results_by_transaction.is_empty())?;
        }
        if version <= 3 {
            w.array("results_by_topic_v3_and_below", &self.results_by_topic_v3_and_below)?;
        } else {
            w.must_be_default("results_by_topic_v3_and_below", self.results_by_topic_v3_and_below.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part `results_by_transaction` of `AddPartitionsToTxn`, versions 4 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddPartitionsToTxnResult {
    /// Versions 4 to 5.
    pub transactional_id: Text,
    /// Versions 4 to 5.
    pub topic_results: Vec<AddPartitionsToTxnTopicResult>,
}

impl Wire for AddPartitionsToTxnResult {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let version = s.version();
        let m = Self {
            transactional_id: if version >= 4 { s.string("transactional_id")? } else { Text::EMPTY },
            topic_results: if version >= 4 { s.array("topic_results")? } else { Vec::new() },
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let version = w.version();
        if version >= 4 {
            w.string("transactional_id", &self.transactional_id)?;
        } else {
            w.must_be_default("transactional_id", self.transactional_id.is_empty())?;
        }
        if version >= 4 {
            w.array("topic_results", &self.topic_results)?;
        } else {
            w.must_be_default("topic_results", self.topic_results.is_empty())?;
        }
        w.tag_count(0);
        Ok(())
    }
}

/// Part of `AddPartitionsToTxn`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddPartitionsToTxnTopicResult {
    /// Versions 0 to 5.
    pub name: Text,
    /// Versions 0 to 5.
    pub results_by_partition: Vec<AddPartitionsToTxnPartitionResult>,
}

impl Wire for AddPartitionsToTxnTopicResult {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
            results_by_partition: s.array("results_by_partition")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.array("results_by_partition", &self.results_by_partition)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part of `AddPartitionsToTxn`, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddPartitionsToTxnPartitionResult {
    /// Versions 0 to 5.
    pub partition_index: i32,
    /// Versions 0 to 5.
    pub partition_error_code: i16,
}

impl Wire for AddPartitionsToTxnPartitionResult {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_index: s.int32("partition_index")?,
            partition_error_code: s.int16("partition_error_code")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_index);
        w.int16(self.partition_error_code);
        w.tag_count(0);
        Ok(())
    }
}
