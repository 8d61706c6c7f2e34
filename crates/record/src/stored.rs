//! Batches that come out of a log: a run of them back to back, each read without copying.

use bytes::Bytes;

use crate::batch::payload_of;
use crate::error::BatchError;
use crate::header::{
    ATTR_CONTROL, ATTR_TRANSACTIONAL, BatchHeader, HEADER_BYTES, LENGTH_OVERHEAD, check_stored,
};
use crate::record::Records;

/// Whether a run of whole batches has any that belongs to a transaction, or a marker. Looks at a few bytes of
/// each header alone; what is cut short or damaged is for others to find.
#[must_use]
pub fn has_transactions(mut bytes: &[u8]) -> bool {
    // Length at 8, attributes at 21.
    while let (Some(length), Some(attributes)) = (
        bytes.get(8..).and_then(|b| b.first_chunk::<4>()),
        bytes.get(21..).and_then(|b| b.first_chunk::<2>()),
    ) {
        if i16::from_be_bytes(*attributes) & (ATTR_TRANSACTIONAL | ATTR_CONTROL) != 0 {
            return true;
        }
        let size = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let Some(rest) = bytes.get(size.saturating_add(LENGTH_OVERHEAD)..) else {
            return false;
        };
        bytes = rest;
    }
    false
}

/// One batch of a log. Its length has been checked, its checksum only by
/// [`StoredBatch::verify_crc`].
#[derive(Debug, Clone)]
pub struct StoredBatch {
    /// The header.
    pub header: BatchHeader,
    /// The whole batch, header included.
    pub bytes: Bytes,
}

impl StoredBatch {
    /// Takes the batch at the start of `bytes`.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] when `bytes` ends before the batch does, or what the header breaks.
    pub fn split_from(bytes: &Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let size = header.size();
        if bytes.len() < size {
            return Err(BatchError::Truncated {
                needed: size,
                found: bytes.len(),
            });
        }
        Ok(Self {
            header,
            bytes: bytes.slice(..size),
        })
    }

    /// Checks the checksum.
    ///
    /// # Errors
    /// [`BatchError::Crc`] with both values.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        check_stored(&self.bytes).map(drop)
    }

    /// The records, decompressed once. A control batch has none for readers; check
    /// [`BatchHeader::is_control`] first.
    ///
    /// # Errors
    /// [`BatchError::Decompress`] when the payload is damaged.
    pub fn records(&self) -> Result<Records, BatchError> {
        let body = self.bytes.slice(HEADER_BYTES..);
        payload_of(&self.header, &body).map(|payload| Records::new(&self.header, payload))
    }
}

/// Iterator over a run of stored batches. Ends after the first error.
#[derive(Debug, Clone)]
pub struct StoredBatches {
    rest: Bytes,
}

/// Iterates over `bytes` as batches back to back.
#[must_use]
pub const fn iter_batches(bytes: Bytes) -> StoredBatches {
    StoredBatches { rest: bytes }
}

impl Iterator for StoredBatches {
    type Item = Result<StoredBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = StoredBatch::split_from(&self.rest);
        match &batch {
            Ok(batch) => self.rest = self.rest.slice(batch.bytes.len()..),
            Err(_) => self.rest = Bytes::new(),
        }
        Some(batch)
    }
}
