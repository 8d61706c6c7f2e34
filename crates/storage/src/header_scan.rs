//! Batch headers of a segment, one after another, and single records found by timestamp.
//!
//! Invariant: a header that was read states a length and offsets within the segment, or it is an error.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use varve_record::{BatchHeader, HEADER_BYTES, StoredBatch};
use varve_types::{Offset, limits};
use varve_vfs::File;

use crate::error::ReadError;

/// Bytes read at once when only headers are wanted.
const HEADER_SCAN_BYTES: usize = 16 * 1024;

/// Reads headers through a small window, so that small batches share a read and large ones are jumped.
pub(crate) struct HeaderScan {
    file: Arc<dyn File>,
    size: u64,
    /// Offset after the segment's last record, if it is known.
    end: Option<Offset>,
    window: Vec<u8>,
    window_at: u64,
    /// Bytes of the next read.
    window_bytes: usize,
}

impl HeaderScan {
    /// A scan of the first `size` bytes of a file.
    pub(crate) fn new(file: Arc<dyn File>, size: u64) -> Self {
        Self {
            file,
            size,
            end: None,
            window: Vec::new(),
            window_at: 0,
            window_bytes: HEADER_SCAN_BYTES,
        }
    }

    /// Every batch must end by `end`.
    pub(crate) fn ending_by(mut self, end: Offset) -> Self {
        self.end = Some(end);
        self
    }

    /// Makes the next read one of so many bytes, if that is not too much.
    pub(crate) fn read_ahead(&mut self, bytes: u64) {
        let most = limits::BATCH_MAX_BYTES as u64;
        self.window_bytes = self.window_bytes.max(bytes.min(most) as usize);
    }

    fn corrupt(&self, position: u64, expected: &str, found: String) -> ReadError {
        let file = PathBuf::from(self.file.path());
        ReadError::Corrupt {
            file,
            position,
            expected: expected.into(),
            found,
        }
    }

    /// The header of the batch at `position`.
    pub(crate) fn header_at(&mut self, position: u64) -> Result<BatchHeader, ReadError> {
        let inside = position >= self.window_at
            && position + HEADER_BYTES as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let len = self
                .window_bytes
                .min(self.size.saturating_sub(position) as usize);
            self.window_bytes = HEADER_SCAN_BYTES;
            self.window.clear();
            self.window_at = position;
            self.file.read_into(position, len, &mut self.window)?;
        }
        let at = (position - self.window_at) as usize;
        let header = BatchHeader::parse(&self.window[at..])
            .map_err(|e| self.corrupt(position, "a batch header", e.to_string()))?;
        if let Some(end) = self.end
            && header.next_offset() > end
        {
            let found = format!("one up to offset {}", header.next_offset());
            let expected = format!("a batch that ends by {end}");
            return Err(self.corrupt(position, &expected, found));
        }
        Ok(header)
    }

    /// The first record of the batch at `position` with that timestamp or later, in `from..upto`.
    pub(crate) fn record_at(
        &self,
        position: u64,
        header: &BatchHeader,
        timestamp: i64,
        from: Offset,
        upto: Offset,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let at = position.checked_sub(self.window_at).map(|at| at as usize);
        let seen = at.and_then(|at| self.window.get(at..at + header.size()));
        let mut bytes = seen.map(<[u8]>::to_vec).unwrap_or_default();
        if bytes.is_empty() {
            self.file.read_into(position, header.size(), &mut bytes)?;
        }
        let corrupt = |e: varve_record::BatchError| {
            self.corrupt(position, "a batch whose records can be read", e.to_string())
        };
        let batch = StoredBatch::split_from(&Bytes::from(bytes)).map_err(corrupt)?;
        batch.verify_crc().map_err(corrupt)?;
        let mut records = batch.records().map_err(corrupt)?;
        while let Some(record) = records.next_ref() {
            let record = record.map_err(corrupt)?;
            if record.offset >= upto {
                break;
            }
            if record.timestamp >= timestamp && record.offset >= from {
                return Ok(Some((record.offset, record.timestamp)));
            }
        }
        Ok(None)
    }
}
