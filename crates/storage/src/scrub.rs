//! Looking at every byte of a live log again, a little at a time: bits rot in files that nobody reads. Works on
//! a [`ReadView`] beside the writer and the readers, and asks the disk, not the memory.
//!
//! Invariants: only what was flushed is looked at, so nothing that is being written is called damaged; the
//! log is never changed; memory that readers use stays as it was.

use std::path::Path;
use std::sync::Arc;

use varve_types::Offset;
use varve_vfs::{Vfs, VfsError};

use crate::error::ReadError;
use crate::faults::{index_faults, missing, small_file_fault};
use crate::format::{Companion, INDEX_MAGIC, chain_start};
use crate::read_view::{ReadMode, ReadOutcome, ReadView, Sealed};
use crate::segment::{Kind, intact_companions};
use crate::walk::{Damage, Limits, Seen, Walk};

/// One segment of a live log being looked at. See [`ReadView::scrub`].
pub struct SegmentScrub {
    at: Sealed,
    walk: Walk,
    /// Bytes of index files that were read and not told yet.
    index_bytes: u64,
    /// Found and not told yet.
    found: Vec<Damage>,
}

impl std::fmt::Debug for SegmentScrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentScrub")
            .field("base", &self.at.segment.base)
            .field("position", &self.walk.position)
            .finish_non_exhaustive()
    }
}

/// What one step of a scrub has done.
#[derive(Debug, Default)]
pub struct ScrubStep {
    /// Bytes read from the disk.
    pub bytes: u64,
    /// What was found.
    pub damage: Vec<Damage>,
    /// There is nothing left to look at.
    pub done: bool,
}

impl ReadView {
    /// First offsets of all segments and the bytes of each, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<(Offset, u64)> {
        let all = self.sealed.iter().chain(std::iter::once(&self.active));
        all.map(|s| (s.segment.base, s.size)).collect()
    }

    /// Begins to look at the segment whose first offset is `base`: at everything below `flushed`, and at its
    /// index files. `None` when the log has no such segment.
    ///
    /// # Errors
    /// [`ReadError::Stale`] when the segment was removed meanwhile; else what the disk says.
    pub fn scrub(&self, base: Offset, flushed: Offset) -> Result<Option<SegmentScrub>, ReadError> {
        let mut all = self.sealed.iter().chain(std::iter::once(&self.active));
        let Some(at) = all.find(|s| s.segment.base == base) else {
            return Ok(None);
        };
        let is_sealed = base != self.active.segment.base;
        let segment = &at.segment;
        let file = segment.log_file().map_err(stale)?;
        let mut found = Vec::new();
        let (index, mut bad) = index_of(at, Kind::Index)?;
        found.append(&mut bad);
        let mut runs: Vec<Companion> = Vec::new();
        match &index {
            Some(bytes) if segment.owns(INDEX_MAGIC, bytes) => {
                runs.extend(intact_companions(bytes, segment.id).map(|(_, c)| c));
                runs.retain(|c| c.end <= at.size);
            }
            None if is_sealed => found.push(missing(&segment.path(Kind::Index))),
            _ => {}
        }
        let (times, mut bad) = index_of(at, Kind::TimeIndex)?;
        found.append(&mut bad);
        let bytes = |b: &Option<Vec<u8>>| b.as_ref().map_or(0, |b| b.len() as u64);
        let chain = chain_start(&segment.home.identity, segment.id, base);
        let limits = Limits {
            size: at.size,
            end: Some(at.end),
            gaps: segment.compacted,
            upto: (flushed < at.end).then_some(flushed),
            past_cache: true,
            learn_epochs: false,
        };
        let epochs = self.epochs.clone();
        Ok(Some(SegmentScrub {
            at: at.clone(),
            walk: Walk::new(file, base, Some(chain), runs, epochs, limits),
            index_bytes: bytes(&index) + bytes(&times),
            found,
        }))
    }

    /// Where a reader can go on who met damage at `offset`: behind the damaged batch, if what follows can be
    /// told from it, else at the next place that the index knows. Blocks.
    #[must_use]
    pub fn readable_after(&self, offset: Offset) -> Offset {
        let mut all = self
            .sealed
            .iter()
            .rev()
            .chain(std::iter::once(&self.active));
        let at = if offset >= self.active.segment.base {
            &self.active
        } else {
            match all.find(|s| s.segment.base <= offset) {
                Some(at) => at,
                None => return self.log_start(),
            }
        };
        let run = at.segment.next_run(offset).filter(|run| *run < at.end);
        let next = run.unwrap_or(at.end).max(offset);
        let behind = self.headers(offset).next().and_then(Result::ok);
        match behind.map(|h| h.next_offset()) {
            Some(behind) if behind > offset && behind < next => {
                let upto = self.log_end();
                let read = self.read(behind, 1, upto, true, ReadMode::Blocking, None);
                let found = matches!(read, Ok(ReadOutcome::Slice(s)) if !s.bytes.is_empty());
                if found { behind } else { next }
            }
            _ => next,
        }
    }

    /// Looks at the files beside the segments: manifest, leader epochs, snapshots.
    ///
    /// # Errors
    /// When the directory cannot be listed or a file not be read.
    pub fn scrub_small_files(&self) -> Result<ScrubStep, VfsError> {
        let home = &self.active.segment.home;
        let mut step = ScrubStep {
            done: true,
            ..ScrubStep::default()
        };
        for entry in home.vfs.list(&home.dir)? {
            let path = home.dir.join(&entry.name);
            if entry.is_dir {
                continue;
            }
            let Some(check) = small_file_fault(&entry.name) else {
                continue;
            };
            // A snapshot may be replaced by a newer one at any time.
            let Some(bytes) = read_fresh(&home.vfs, &path)? else {
                continue;
            };
            step.bytes += bytes.len() as u64;
            step.damage.extend(check(&home.identity, &path, &bytes));
        }
        Ok(step)
    }
}

impl SegmentScrub {
    /// First offset of the segment.
    #[must_use]
    pub fn base(&self) -> Offset {
        self.at.segment.base
    }

    /// Looks at the next `budget` bytes or a little more.
    ///
    /// # Errors
    /// [`ReadError::Stale`] when the log was cut or the segment removed meanwhile: take a new view.
    pub fn step(&mut self, budget: u64) -> Result<ScrubStep, ReadError> {
        let mut step = ScrubStep {
            bytes: std::mem::take(&mut self.index_bytes),
            damage: std::mem::take(&mut self.found),
            done: false,
        };
        let before = self.walk.bytes;
        while !step.done && self.walk.bytes - before <= budget {
            match self.walk.step() {
                Ok(Seen::Batch(_)) => {}
                Ok(Seen::Damage(damage)) => step.damage.push(damage),
                Ok(Seen::End) => step.done = true,
                Err(e) => return Err(stale(e)),
            }
        }
        step.bytes += self.walk.bytes - before;
        if self.at.segment.generation() != self.at.generation {
            return Err(ReadError::Stale);
        }
        Ok(step)
    }
}

/// Only a removed segment has no file.
fn stale(error: VfsError) -> ReadError {
    if error.is_not_found() {
        ReadError::Stale
    } else {
        error.into()
    }
}

/// An index file and what is wrong with it.
fn index_of(at: &Sealed, kind: Kind) -> Result<(Option<Vec<u8>>, Vec<Damage>), ReadError> {
    let segment = &at.segment;
    let mut result = (None, Vec::new());
    for _ in 0..2 {
        let path = segment.path(kind);
        let bytes = read_fresh(&segment.home.vfs, &path).map_err(stale)?;
        let found = bytes.as_ref().map_or_else(Vec::new, |bytes| {
            let (identity, id) = (&segment.home.identity, Some(segment.id));
            index_faults(kind, &path, identity, segment.base, id, bytes)
        });
        let good = found.is_empty();
        result = (bytes, found);
        // Once more if not: an entry may have been on its way to the file.
        if good {
            break;
        }
    }
    Ok(result)
}

/// A whole file as the disk has it; `None` when it is not there.
fn read_fresh(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<Option<Vec<u8>>, VfsError> {
    let file = match vfs.open_read(path) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) => return Err(e),
    };
    let len = file.len()?;
    file.drop_cache(0, len);
    let mut bytes = Vec::new();
    file.read_into(0, usize::try_from(len).unwrap_or(usize::MAX), &mut bytes)?;
    Ok(Some(bytes))
}
