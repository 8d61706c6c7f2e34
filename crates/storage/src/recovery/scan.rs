//! Reading a segment batch by batch with every checksum computed, and looking for batches behind damage.
//! Reads only.

use std::sync::Arc;

use varve_record::{BatchHeader, HEADER_BYTES, check_stored};
use varve_types::{Offset, limits};
use varve_vfs::{File, VfsError};

use crate::check::check_written;

/// Bytes read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// Bytes that are not a batch, where one should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) position: u64,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// Walks a file from a position that is the start of a batch.
pub(crate) struct Scanner {
    file: Arc<dyn File>,
    end: u64,
    pub(crate) position: u64,
    /// Offsets may be missing between batches.
    gaps: bool,
    window: Vec<u8>,
    window_at: u64,
}

impl Scanner {
    pub(crate) fn new(file: Arc<dyn File>, position: u64, end: u64, gaps: bool) -> Self {
        Self {
            file,
            end,
            position,
            gaps,
            window: Vec::new(),
            window_at: position,
        }
    }

    /// At least `len` bytes at the position, or all that are left.
    fn bytes(&mut self, len: usize) -> Result<&[u8], VfsError> {
        let left = (self.end - self.position) as usize;
        let len = len.min(left);
        let have =
            (self.window_at + self.window.len() as u64).saturating_sub(self.position) as usize;
        if have < len || self.position < self.window_at {
            self.window.clear();
            self.window_at = self.position;
            self.file.read_into(
                self.position,
                len.max(WINDOW_BYTES).min(left),
                &mut self.window,
            )?;
        }
        Ok(&self.window[(self.position - self.window_at) as usize..])
    }

    /// The next batch, which must be whole, have a right checksum, and begin at `expected`, or past it in a
    /// compacted segment. `Ok(None)` at
    /// the end of the file.
    pub(crate) fn next(
        &mut self,
        expected: Offset,
    ) -> Result<Result<Option<BatchHeader>, Damage>, VfsError> {
        if self.position >= self.end {
            return Ok(Ok(None));
        }
        let position = self.position;
        let damage = |found: String| {
            let expected = format!("a complete batch at offset {expected}");
            Ok(Err(Damage {
                position,
                expected,
                found,
            }))
        };
        let size = match BatchHeader::parse(self.bytes(HEADER_BYTES)?) {
            Ok(header) if header.base_offset == expected => header.size(),
            Ok(header) if self.gaps && header.base_offset > expected => header.size(),
            Ok(header) => return damage(format!("one at offset {}", header.base_offset)),
            Err(e) => return damage(e.to_string()),
        };
        match check_written(self.bytes(size)?) {
            Ok(header) => {
                self.position += header.size() as u64;
                Ok(Ok(Some(header)))
            }
            Err(found) => damage(found),
        }
    }
}

/// Looks at every byte position in `from..end` for a whole batch with a right checksum whose offset is
/// `expected` or later: proof that what lies before it is not the end of a torn write.
pub(crate) fn batch_behind(
    file: &Arc<dyn File>,
    from: u64,
    end: u64,
    expected: Offset,
) -> Result<Option<u64>, VfsError> {
    const MAGIC_AT: usize = 16;
    let mut window = Vec::new();
    let mut at = from;
    while at + HEADER_BYTES as u64 <= end {
        window.clear();
        let len = (WINDOW_BYTES + HEADER_BYTES).min((end - at) as usize);
        file.read_into(at, len, &mut window)?;
        if window.len() < HEADER_BYTES {
            break;
        }
        let starts = window.len() - HEADER_BYTES + 1;
        for start in 0..starts {
            // Most bytes of most files fail here, before anything is parsed.
            if window[start + MAGIC_AT] != 2 {
                continue;
            }
            let position = at + start as u64;
            let Ok(header) = BatchHeader::parse(&window[start..]) else {
                continue;
            };
            let plausible = header.base_offset >= expected
                && header.base_offset.since(expected) <= u64::from(u32::MAX)
                && header.size() <= limits::BATCH_MAX_BYTES
                && position + header.size() as u64 <= end;
            if !plausible {
                continue;
            }
            let mut batch = Vec::new();
            file.read_into(position, header.size(), &mut batch)?;
            if check_stored(&batch).is_ok() {
                return Ok(Some(position));
            }
        }
        at += starts as u64;
    }
    Ok(None)
}
