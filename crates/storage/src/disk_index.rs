//! Lookups in the `.index` file of a segment that no longer grows. In memory is one entry for each block of
//! 4 KiB of the file (the *fences*, 24 bytes for 64 entries), so that a lookup by offset or by time reads
//! exactly one block, with one `pread`, however large the index is.
//!
//! Invariants: a place that a lookup returns is the start of a batch at or before the one asked for; an
//! entry is used only if its own checksum is right, so a damaged, cut or foreign file costs time and no
//! answer. The file is never mapped: a page fault cannot say "it would block", and it turns an error of the
//! disk, or another process that cuts the file, into a signal that ends this one.

use varve_types::Offset;
use varve_vfs::{File, VfsError};

use crate::format::{Companion, ENTRY_BYTES, HEADER_BYTES};
use crate::read_view::ReadMode;
use crate::segment::{Place, Point};

/// A page of the page cache. Entries never straddle one: header and entries have 64 bytes each.
const BLOCK_BYTES: usize = 4096;
const SLOTS: u32 = (BLOCK_BYTES / ENTRY_BYTES) as u32;
/// Bytes read at once when all blocks are looked at.
const SWEEP_BYTES: usize = 256 * BLOCK_BYTES;

const _: () = assert!(HEADER_BYTES == ENTRY_BYTES, "the header takes one slot");

/// The first intact entry of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fence {
    block: u32,
    point: Point,
}

/// What is kept in memory of an index file.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    /// By block, and so by offset and by largest timestamp.
    fences: Vec<Fence>,
    /// Entries of the file when it was looked at.
    entries: u32,
}

/// What a lookup needs to know about its segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) id: u64,
    pub(crate) base: Offset,
}

impl Owner {
    /// Nothing is known: the whole segment may have to be searched.
    pub(crate) const fn start(self) -> Place {
        Place {
            position: 0,
            first: self.base,
            next: None,
        }
    }

    /// Where a run of this segment begins, without knowledge of what follows.
    pub(crate) fn place_of(self, point: &Point) -> Place {
        Place {
            position: u64::from(point.position),
            first: self.base.plus(u64::from(point.offset)),
            next: None,
        }
    }
}

impl Fences {
    /// Fences of an index whose entries are those of `points`, which are in memory still.
    pub(crate) fn of(points: &[Point]) -> Self {
        let entries = u32::try_from(points.len()).unwrap_or(u32::MAX);
        let blocks = (entries + SLOTS).div_ceil(SLOTS);
        let fence = |block: u32| {
            let first = (block * SLOTS).saturating_sub(1);
            let point = *points.get(first as usize)?;
            Some(Fence { block, point })
        };
        Self {
            fences: (0..blocks).filter_map(fence).collect(),
            entries,
        }
    }

    /// Reads all of an index file once, in large pieces.
    pub(crate) fn sweep(file: &dyn File, owner: Owner) -> Result<Self, VfsError> {
        let len = file.len()?;
        let entries = u32::try_from(len.saturating_sub(HEADER_BYTES as u64) / ENTRY_BYTES as u64);
        let entries = entries.unwrap_or(u32::MAX);
        let mut fences = Vec::new();
        let mut piece = Vec::new();
        let mut at = 0;
        while at < len {
            piece.clear();
            file.read_into(at, SWEEP_BYTES, &mut piece)?;
            if piece.is_empty() {
                break;
            }
            for (i, bytes) in piece.chunks(BLOCK_BYTES).enumerate() {
                let block = u32::try_from(at / BLOCK_BYTES as u64).unwrap_or(u32::MAX) + i as u32;
                if let Some(first) = intact(bytes, block, owner.id).next() {
                    let point = Point::of(&first, owner.base);
                    fences.push(Fence { block, point });
                }
            }
            at += SWEEP_BYTES as u64;
        }
        Ok(Self { fences, entries })
    }

    /// Where to start looking for the batch that holds `offset`. `None`: the block is not in memory, and
    /// `mode` does not wait.
    pub(crate) fn find(
        &self,
        file: &dyn File,
        owner: Owner,
        offset: Offset,
        mode: ReadMode,
    ) -> Result<Option<Place>, VfsError> {
        let relative = offset.since(owner.base);
        let after = self
            .fences
            .partition_point(|f| u64::from(f.point.offset) <= relative);
        let Some(fence) = after.checked_sub(1).and_then(|i| self.fences.get(i)) else {
            return Ok(Some(owner.start()));
        };
        let Some(block) = self.read(file, fence.block, mode)? else {
            return Ok(None);
        };
        let floor = intact(&block, fence.block, owner.id)
            .take_while(|e| e.first <= offset)
            .last();
        Ok(Some(match floor {
            Some(e) if offset < e.next => Place {
                position: e.position,
                first: e.first,
                next: Some(e.end),
            },
            // Between two runs lies a damaged entry; after the last lies what is not indexed.
            Some(e) => Place::after(&e),
            // Damaged since the fence was made.
            None => owner.place_of(&fence.point),
        }))
    }

    /// The first offset after `offset` at which an entry begins, if there is one. Waits for the disk.
    pub(crate) fn next_run(
        &self,
        file: &dyn File,
        owner: Owner,
        offset: Offset,
    ) -> Result<Option<Offset>, VfsError> {
        let relative = offset.since(owner.base);
        let after = self
            .fences
            .partition_point(|f| u64::from(f.point.offset) <= relative);
        if let Some(fence) = after.checked_sub(1).and_then(|i| self.fences.get(i))
            && let Some(block) = self.read(file, fence.block, ReadMode::Blocking)?
            && let Some(e) =
                intact(&block, fence.block, owner.id).find(|entry| entry.first > offset)
        {
            return Ok(Some(e.first));
        }
        let next = self.fences.get(after);
        Ok(next.map(|f| owner.place_of(&f.point).first))
    }

    /// A place before which no record has a timestamp of `timestamp` or more. `None` as in [`Self::find`].
    pub(crate) fn find_time(
        &self,
        file: &dyn File,
        owner: Owner,
        timestamp: i64,
        mode: ReadMode,
    ) -> Result<Option<Place>, VfsError> {
        let after = self
            .fences
            .partition_point(|f| f.point.max_timestamp < timestamp);
        let Some(fence) = after.checked_sub(1).and_then(|i| self.fences.get(i)) else {
            return Ok(Some(owner.start()));
        };
        let Some(block) = self.read(file, fence.block, mode)? else {
            return Ok(None);
        };
        let mut place = owner.place_of(&fence.point);
        for e in intact(&block, fence.block, owner.id) {
            if e.max_timestamp >= timestamp {
                // A damaged entry just before may have held it: begin where intact knowledge ends.
                if e.position == place.position {
                    place.next = Some(e.end);
                }
                break;
            }
            place = Place::after(&e);
        }
        Ok(Some(place))
    }

    /// One block, or as much of it as the file has.
    fn read(
        &self,
        file: &dyn File,
        block: u32,
        mode: ReadMode,
    ) -> Result<Option<Vec<u8>>, VfsError> {
        let at = u64::from(block) * BLOCK_BYTES as u64;
        let end = (u64::from(self.entries) + 1) * ENTRY_BYTES as u64;
        let len = end.saturating_sub(at).min(BLOCK_BYTES as u64) as usize;
        let mut bytes = Vec::with_capacity(len);
        match mode {
            ReadMode::Blocking => {
                file.read_into(at, len, &mut bytes)?;
            }
            ReadMode::NoWait => {
                if file.read_into_nowait(at, len, &mut bytes)? != Some(len) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(bytes))
    }
}

/// Entries of a block that are as they were written, in order.
fn intact(bytes: &[u8], block: u32, segment_id: u64) -> impl Iterator<Item = Companion> + '_ {
    bytes
        .chunks_exact(ENTRY_BYTES)
        .zip(0_u32..)
        .filter_map(move |(entry, slot)| {
            // The header is in front of entry 0.
            let number = (block.checked_mul(SLOTS)? + slot).checked_sub(1)?;
            Companion::decode(entry, segment_id, number)
        })
}
