//! Control batches: what a log itself says about a producer's transaction. A transaction ends in each of its
//! partitions with one such batch: one record, no sequence, the transactional and the control bit set.
//!
//! Invariants: this module is the only place that makes or reads a marker; reading is total, and a control
//! batch of another kind, or one whose record is gone, reads as none. Never decides how a transaction ends.

use varve_types::ProducerId;

use crate::batch::{Batch, Sequenced, payload_of};
use crate::builder::BatchBuilder;
use crate::compress::Compression;
use crate::error::BatchError;
use crate::record::Records;
use crate::stored::StoredBatch;

/// Version of a marker's key and value.
const VERSION: i16 = 0;

/// What the log itself says about a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// Its records count.
    Commit,
    /// Its records never were.
    Abort,
}

impl Marker {
    const fn kind(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
        }
    }
}

/// The end of a transaction in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndMarker {
    /// How it ended.
    pub marker: Marker,
    /// Epoch of the coordinator that decided it, `>= 0`; -1 when the record does not say.
    pub coordinator_epoch: i32,
    /// Which of the transactions of its producer's epoch it ends, `>= 1`, for a producer that keeps its epoch from one
    /// transaction to the next. `None`: the marker's epoch is above that of the records, and says it.
    pub number: Option<i64>,
}

/// The batch that ends the transaction of `producer`, written at `now_ms` (milliseconds since the epoch). Its
/// epoch is the one that the producer goes on with: the next one, or the same where the end is numbered.
#[must_use]
pub fn end_marker(producer: ProducerId, end: EndMarker, now_ms: i64) -> Batch {
    let mut key = [0; 4];
    key[..2].copy_from_slice(&VERSION.to_be_bytes());
    key[2..].copy_from_slice(&end.marker.kind().to_be_bytes());
    let mut value = Vec::with_capacity(14);
    value.extend_from_slice(&VERSION.to_be_bytes());
    value.extend_from_slice(&end.coordinator_epoch.to_be_bytes());
    if let Some(number) = end.number {
        value.extend_from_slice(&number.to_be_bytes());
    }
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.set_control(producer);
    let built = builder
        .append(now_ms, Some(&key), Some(&value), &[])
        .and_then(|()| builder.build_batch());
    match built {
        Ok(batch) => batch,
        Err(error) => unreachable!("a record of some bytes is within every limit: {error}"),
    }
}

impl StoredBatch {
    /// What a control batch says. `None` for any other batch, or one whose kind is not known.
    ///
    /// # Errors
    /// What is wrong with the payload.
    pub fn marker(&self) -> Result<Option<Marker>, BatchError> {
        Ok(self.end_marker()?.map(|end| end.marker))
    }

    /// What a control batch says, and who decided it. `None` as for [`StoredBatch::marker`].
    ///
    /// # Errors
    /// What is wrong with the payload.
    pub fn end_marker(&self) -> Result<Option<EndMarker>, BatchError> {
        if !self.header.is_control() {
            return Ok(None);
        }
        read(self.records()?)
    }
}

impl Sequenced {
    /// What a control batch says, as [`StoredBatch::end_marker`].
    ///
    /// # Errors
    /// What is wrong with the payload.
    pub fn end_marker(&self) -> Result<Option<EndMarker>, BatchError> {
        if !self.header().is_control() {
            return Ok(None);
        }
        read(Records::new(
            self.header(),
            payload_of(self.header(), self.body())?,
        ))
    }
}

fn read(mut records: Records) -> Result<Option<EndMarker>, BatchError> {
    let Some(record) = records.next_ref() else {
        return Ok(None);
    };
    let record = record?;
    // Key: version, then kind, two bytes each. Later versions add, so what follows is not looked at.
    let marker = match record.key.and_then(|key| key.get(2..4)) {
        Some([0, 0]) => Marker::Abort,
        Some([0, 1]) => Marker::Commit,
        _ => return Ok(None),
    };
    // Value: version, then the coordinator's epoch, then perhaps the transaction's number.
    let after_version = record.value.and_then(|value| value.get(2..));
    let (epoch, rest) = after_version.and_then(<[u8]>::split_first_chunk).unzip();
    let number = rest.and_then(<[u8]>::first_chunk);
    Ok(Some(EndMarker {
        marker,
        coordinator_epoch: epoch.map_or(-1, |bytes| i32::from_be_bytes(*bytes)),
        number: number
            .map(|bytes| i64::from_be_bytes(*bytes))
            .filter(|n| *n >= 1),
    }))
}
