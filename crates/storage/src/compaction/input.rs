//! Reading segments for a compaction: from the start to the end through a window of bounded size, never
//! mapped, every batch's checksum and the running CRC of the index checked before anything is built from it:
//! damage must not be copied into a new file that says it is whole.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use varve_record::{BatchHeader, HEADER_BYTES as BATCH_HEADER_BYTES, StoredBatch};
use varve_types::Offset;
use varve_vfs::{File, VfsError};

use super::CompactionError;
use crate::buffers::ReadBuffers;
use crate::format::{Companion, ENTRY_BYTES, HEADER_BYTES, chain_start, chain_step};
use crate::read_view::Sealed;
use crate::segment::{Kind, Segment};

/// Bytes read at once where whole batches are wanted.
const WINDOW_BYTES: usize = 1 << 20;
/// Bytes read at once where headers are: small batches share a read, large ones are jumped over.
const HEADERS_BYTES: usize = 16 << 10;
/// Index entries read at once.
const ENTRIES_AT_ONCE: usize = 1024;

/// Walks the batches of one segment.
pub(super) struct Input {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    pub(super) position: u64,
    size: u64,
    next: Offset,
    window: Bytes,
    window_at: u64,
    /// Bytes of a read.
    window_bytes: usize,
    buffers: ReadBuffers,
    /// Bytes read that nobody has been told of.
    io: u64,
}

fn gone(error: VfsError) -> CompactionError {
    if error.is_not_found() {
        CompactionError::Changed
    } else {
        CompactionError::Io(error)
    }
}

impl Input {
    /// From the start of a segment on, into buffers of a pool.
    pub(super) fn new(part: &Sealed, buffers: &ReadBuffers) -> Result<Self, CompactionError> {
        Ok(Self {
            file: part.segment.log_file().map_err(gone)?,
            segment: part.segment.clone(),
            position: 0,
            size: part.size,
            next: part.segment.base,
            window: Bytes::new(),
            window_at: 0,
            window_bytes: WINDOW_BYTES,
            buffers: buffers.clone(),
            io: 0,
        })
    }

    /// As [`Input::new`], for a pass that asks for few whole batches.
    pub(super) fn of_headers(
        part: &Sealed,
        buffers: &ReadBuffers,
    ) -> Result<Self, CompactionError> {
        let input = Self::new(part, buffers)?;
        Ok(Self {
            window_bytes: HEADERS_BYTES,
            ..input
        })
    }

    /// Bytes read since this was last asked.
    pub(super) const fn take_io(&mut self) -> u64 {
        std::mem::replace(&mut self.io, 0)
    }

    fn corrupt(&self, found: String) -> CompactionError {
        CompactionError::Corrupt {
            file: PathBuf::from(self.file.path()),
            position: self.position,
            found,
        }
    }

    /// Makes `len` bytes at the position available, or all that are left.
    fn load(&mut self, len: usize) -> Result<&Bytes, CompactionError> {
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let len = len.min(left);
        let end = self.window_at + self.window.len() as u64;
        if self.position + len as u64 > end {
            // Back to the pool before the next is taken from it.
            self.window = Bytes::new();
            let want = len.max(self.window_bytes).min(left);
            let mut bytes = self.buffers.take(want);
            self.file
                .read_into(self.position, want, &mut bytes)
                .map_err(CompactionError::Io)?;
            self.io += bytes.len() as u64;
            let end = bytes.len();
            self.window = self.buffers.share(bytes, 0, end);
        } else {
            let skip = usize::try_from(self.position - self.window_at).unwrap_or(0);
            self.window = self.window.slice(skip..);
        }
        self.window_at = self.position;
        Ok(&self.window)
    }

    /// The header of the next batch; `None` at the end. Its bytes are loaded only if they are near.
    pub(super) fn header(&mut self) -> Result<Option<BatchHeader>, CompactionError> {
        if self.position >= self.size {
            return Ok(None);
        }
        let parsed = BatchHeader::parse(self.load(BATCH_HEADER_BYTES)?);
        let header = parsed.map_err(|e| self.corrupt(e.to_string()))?;
        let follows = header.base_offset == self.next
            || (self.segment.compacted && header.base_offset > self.next);
        if !follows {
            let (found, next) = (header.base_offset, self.next);
            return Err(self.corrupt(format!("offset {found} follows offset {next}")));
        }
        Ok(Some(header))
    }

    /// Goes past the batch of `header`, which [`Input::header`] has just returned.
    pub(super) fn pass(&mut self, header: &BatchHeader) {
        self.position += header.size() as u64;
        self.next = header.next_offset();
        if self.position >= self.window_at + self.window.len() as u64 {
            self.window = Bytes::new();
            self.window_at = self.position;
        }
    }

    /// The whole batch of `header`, checked. Does not go past it.
    pub(super) fn batch(&mut self, header: &BatchHeader) -> Result<StoredBatch, CompactionError> {
        let bytes = self.load(header.size())?.clone();
        let batch = StoredBatch::split_from(&bytes).and_then(|b| b.verify_crc().map(|()| b));
        batch.map_err(|e| self.corrupt(e.to_string()))
    }

    /// A fault in the batch at the position.
    pub(super) fn fault(&self, error: &varve_record::BatchError) -> CompactionError {
        self.corrupt(error.to_string())
    }
}

/// Compares the batches of a segment with its index as they come.
pub(super) struct Proof {
    segment: Arc<Segment>,
    index: Option<Arc<dyn File>>,
    entries: std::vec::IntoIter<Option<Companion>>,
    number: u32,
    expected: Option<Companion>,
    chain: u32,
}

impl Proof {
    pub(super) fn new(segment: &Arc<Segment>) -> Result<Self, CompactionError> {
        let home = &segment.home;
        let index = match home.vfs.open_read(&segment.path(Kind::Index)) {
            Ok(file) => Some(file),
            // It can be derived, so a log without one is whole.
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(CompactionError::Io(e)),
        };
        let mut proof = Self {
            chain: chain_start(&home.identity, segment.id, segment.base),
            segment: segment.clone(),
            index,
            entries: Vec::new().into_iter(),
            number: 0,
            expected: None,
        };
        proof.advance()?;
        Ok(proof)
    }

    /// The next intact entry.
    fn advance(&mut self) -> Result<(), CompactionError> {
        loop {
            match self.entries.next() {
                Some(Some(entry)) => {
                    self.expected = Some(entry);
                    return Ok(());
                }
                Some(None) => {}
                None if !self.refill()? => {
                    self.expected = None;
                    return Ok(());
                }
                None => {}
            }
        }
    }

    fn refill(&mut self) -> Result<bool, CompactionError> {
        let Some(index) = &self.index else {
            return Ok(false);
        };
        let at = HEADER_BYTES + self.number as usize * ENTRY_BYTES;
        let mut bytes = Vec::new();
        index
            .read_into(at as u64, ENTRIES_AT_ONCE * ENTRY_BYTES, &mut bytes)
            .map_err(CompactionError::Io)?;
        let (id, from) = (self.segment.id, self.number);
        let decode = |(i, bytes): (usize, &[u8])| Companion::decode(bytes, id, from + i as u32);
        let entries: Vec<_> = bytes
            .chunks_exact(ENTRY_BYTES)
            .enumerate()
            .map(decode)
            .collect();
        self.number += entries.len() as u32;
        let some = !entries.is_empty();
        self.entries = entries.into_iter();
        Ok(some)
    }

    /// Accounts for the batch at `position`. An error says what does not fit.
    pub(super) fn batch(
        &mut self,
        header: &BatchHeader,
        position: u64,
    ) -> Result<(), CompactionError> {
        self.chain = chain_step(self.chain, header, position);
        let end = position + header.size() as u64;
        while let Some(expected) = self.expected.filter(|e| e.end <= end) {
            if expected.end == end && expected.chain != self.chain {
                return Err(CompactionError::Corrupt {
                    file: self.segment.path(Kind::Log),
                    position: expected.position,
                    found: "valid batches that differ from those in the index".into(),
                });
            }
            self.advance()?;
        }
        Ok(())
    }
}
