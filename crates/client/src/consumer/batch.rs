//! What a consumer gives: batches as they are stored, and single records that share a batch's buffer.
//!
//! Payloads are decompressed once, by whoever asks for the records. Nothing is skipped silently: damage is an
//! error.

use bytes::Bytes;
use varve_record::{BatchError, RecordRef, RecordView, Records, StoredBatch};
use varve_types::{PartitionId, TopicName, TopicPartition};

use crate::error::ClientError;
use crate::positions::Span;

/// One batch of records.
#[derive(Debug, Clone)]
pub struct FetchedBatch {
    /// Topic.
    pub topic: TopicName,
    /// Partition.
    pub partition: PartitionId,
    /// The batch as stored. It may hold records that were not asked for;
    /// [`FetchedBatch::records`] leaves them out.
    pub batch: StoredBatch,
    /// Where to continue after this batch: the offset to commit.
    pub next_offset: i64,
    /// One past the last committed record when the batch was read.
    pub high_watermark: i64,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Span for FetchedBatch {
    fn from(&self) -> i64 {
        self.from
    }

    fn next_offset(&self) -> i64 {
        self.next_offset
    }

    fn starting_at(self, from: i64) -> Self {
        Self { from, ..self }
    }
}

impl FetchedBatch {
    /// The partition with its topic.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), self.partition)
    }

    /// The records that were asked for, decompressed once.
    ///
    /// # Errors
    /// [`ClientError::Corrupt`] when the payload is damaged.
    pub fn records(&self) -> Result<FetchedRecords, ClientError> {
        let inner = self
            .batch
            .records()
            .map_err(|source| ClientError::Corrupt {
                partition: self.topic_partition(),
                offset: self.batch.header.base_offset.get(),
                source,
            })?;
        Ok(FetchedRecords {
            inner,
            partition: self.topic_partition(),
            from: self.from,
            to: self.to,
        })
    }
}

/// The records of a fetched batch.
#[derive(Debug)]
pub struct FetchedRecords {
    inner: Records,
    partition: TopicPartition,
    from: i64,
    to: i64,
}

impl FetchedRecords {
    /// The next record, borrowed: nothing is allocated.
    ///
    /// # Errors
    /// [`ClientError::Corrupt`] when the record is damaged.
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>, ClientError> {
        // Records before the range are few (the rest of one batch), so they are walked over.
        while let Some(skipped) = self.peek_is_before() {
            if !skipped {
                break;
            }
        }
        let (to, partition) = (self.to, &self.partition);
        match self.inner.next_ref() {
            None => Ok(None),
            Some(Ok(record)) if record.offset.get() >= to => Ok(None),
            Some(Ok(record)) => Ok(Some(record)),
            Some(Err(source)) => Err(corrupt(partition, to, source)),
        }
    }

    /// Skips the next record when it lies before the range: `Some(true)` when it did.
    fn peek_is_before(&mut self) -> Option<bool> {
        if self.from == i64::MIN {
            return Some(false);
        }
        let mut ahead = self.inner.clone();
        let before = ahead
            .next_ref()?
            .is_ok_and(|record| record.offset.get() < self.from);
        if before {
            self.inner = ahead;
        } else {
            self.from = i64::MIN;
        }
        Some(before)
    }
}

pub(crate) fn corrupt(partition: &TopicPartition, offset: i64, source: BatchError) -> ClientError {
    ClientError::Corrupt {
        partition: partition.clone(),
        offset,
        source,
    }
}

impl Iterator for FetchedRecords {
    type Item = Result<RecordView, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.peek_is_before() == Some(true) {}
        match self.inner.next()? {
            Ok(record) if record.offset.get() >= self.to => None,
            Ok(record) => Some(Ok(record)),
            Err(source) => Some(Err(corrupt(&self.partition, self.to, source))),
        }
    }
}

/// One record. Key, value and headers are slices of its batch: holding one holds the batch's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// Topic.
    pub topic: TopicName,
    /// Partition.
    pub partition: PartitionId,
    /// Offset. To commit that it was processed, commit the offset after it.
    pub offset: i64,
    /// Milliseconds since the epoch: when it was created or appended, as the topic says.
    pub timestamp: i64,
    /// Key; `None` is null.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers as (name, value), in order; names are UTF-8 and may repeat.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Epoch of the leader that appended it.
    pub leader_epoch: i32,
}

impl ConsumerRecord {
    /// The partition with its topic.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), self.partition)
    }

    /// The value of the first header of this name. `None` too when that header is null.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self
            .headers
            .iter()
            .find(|(other, _)| other.as_ref() == name.as_bytes())?;
        value.as_deref()
    }
}

/// A batch whose records are given one by one.
#[derive(Debug)]
pub(crate) struct OpenBatch {
    /// The giving it belongs to.
    pub serial: u64,
    topic: TopicName,
    partition: PartitionId,
    leader_epoch: i32,
    records: FetchedRecords,
}

impl OpenBatch {
    /// # Errors
    /// [`ClientError::Corrupt`] when the payload is damaged.
    pub fn new(serial: u64, batch: &FetchedBatch) -> Result<Self, ClientError> {
        Ok(Self {
            serial,
            topic: batch.topic.clone(),
            partition: batch.partition,
            leader_epoch: batch.batch.header.leader_epoch.get(),
            records: batch.records()?,
        })
    }

    /// # Errors
    /// [`ClientError::Corrupt`] when the record is damaged.
    pub fn next(&mut self) -> Option<Result<ConsumerRecord, ClientError>> {
        let record = self.records.next()?;
        Some(record.map(|record| ConsumerRecord {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: record.offset.get(),
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
            leader_epoch: self.leader_epoch,
        }))
    }
}
