//! @generated from `messages/describe_producers.txt` by `cargo xtask kafka`: do not edit.
//!
//! `DescribeProducers`, version 0.

use crate::wire::codec::{EncodeError, Source, Text, Wire, Writer};

/// Request of `DescribeProducers`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeProducersRequest {
    /// Version 0.
    pub topics: Vec<TopicRequest>,
}

impl Wire for DescribeProducersRequest {
    const LEAST_BYTES: usize = 2;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DescribeProducers`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicRequest {
    /// Version 0.
    pub name: Text,
    /// Version 0.
    pub partition_indexes: Vec<i32>,
}

impl Wire for TopicRequest {
    const LEAST_BYTES: usize = 3;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            name: s.string("name")?,
            partition_indexes: s.array("partition_indexes")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.string("name", &self.name)?;
        w.array("partition_indexes", &self.partition_indexes)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Response of `DescribeProducers`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribeProducersResponse {
    /// Version 0.
    pub throttle_time_ms: i32,
    /// Version 0.
    pub topics: Vec<TopicResponse>,
}

impl Wire for DescribeProducersResponse {
    const LEAST_BYTES: usize = 6;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            throttle_time_ms: s.int32("throttle_time_ms")?,
            topics: s.array("topics")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.throttle_time_ms);
        w.array("topics", &self.topics)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `topics` of `DescribeProducers`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicResponse {
    /// Version 0.
    pub name: Text,
    /// Version 0.
    pub partitions: Vec<PartitionResponse>,
}

impl Wire for TopicResponse {
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

/// Part `partitions` of `DescribeProducers`, version 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionResponse {
    /// Version 0.
    pub partition_index: i32,
    /// Version 0.
    pub error_code: i16,
    /// Version 0, may be null.
    pub error_message: Option<Text>,
    /// Version 0.
    pub active_producers: Vec<ProducerState>,
}

impl Wire for PartitionResponse {
    const LEAST_BYTES: usize = 9;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            partition_index: s.int32("partition_index")?,
            error_code: s.int16("error_code")?,
            error_message: s.string_or_null("error_message", true)?,
            active_producers: s.array("active_producers")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int32(self.partition_index);
        w.int16(self.error_code);
        w.string_or_null("error_message", self.error_message.as_ref(), true)?;
        w.array("active_producers", &self.active_producers)?;
        w.tag_count(0);
        Ok(())
    }
}

/// Part `active_producers` of `DescribeProducers`, version 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerState {
    /// Version 0.
    pub producer_id: i64,
    /// Version 0.
    pub producer_epoch: i32,
    /// Version 0.
    pub last_sequence: i32,
    /// Version 0.
    pub last_timestamp: i64,
    /// Version 0.
    pub coordinator_epoch: i32,
    /// Version 0.
    pub current_txn_start_offset: i64,
}

impl Default for ProducerState {
    fn default() -> Self {
        Self {
            producer_id: 0,
            producer_epoch: 0,
            last_sequence: -1,
            last_timestamp: -1,
            coordinator_epoch: 0,
            current_txn_start_offset: -1,
        }
    }
}

impl Wire for ProducerState {
    const LEAST_BYTES: usize = 37;

    fn read<S: Source>(s: &mut S) -> Result<Self, S::Error> {
        let m = Self {
            producer_id: s.int64("producer_id")?,
            producer_epoch: s.int32("producer_epoch")?,
            last_sequence: s.int32("last_sequence")?,
            last_timestamp: s.int64("last_timestamp")?,
            coordinator_epoch: s.int32("coordinator_epoch")?,
            current_txn_start_offset: s.int64("current_txn_start_offset")?,
        };
        s.tags(&[], |_, _| Ok(false))?;
        Ok(m)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.int64(self.producer_id);
        w.int32(self.producer_epoch);
        w.int32(self.last_sequence);
        w.int64(self.last_timestamp);
        w.int32(self.coordinator_epoch);
        w.int64(self.current_txn_start_offset);
        w.tag_count(0);
        Ok(())
    }
}
