//! Taking records away from the end: [`Log::truncate_to`], [`Log::reset_to`]. Both are durable when they
//! return. Taking them from the front is in `change`.
//!
//! Order, so that a crash at any step leaves a log that opens: the manifest is committed before files of
//! dropped segments are renamed; index entries that cover bytes to be cut are removed before the bytes are,
//! because an entry says that its bytes exist; epochs go with them; then the file is cut and synced. Of a
//! compacted segment the manifest says how much belongs to the log, so it comes first there too; such a
//! segment is never written to, and what follows the cut goes to a new one.

use std::sync::Arc;

use varve_types::Offset;
use varve_vfs::{VfsError, durable};

use crate::error::{LogError, ReadError};
use crate::flush::Removal;
use crate::format::Companion;
use crate::header_scan::HeaderScan;
use crate::log::Log;
use crate::read_view::Sealed;
use crate::segment::{Kind, Segment, index_bytes, intact_companions, time_index_bytes};
use crate::snapshot;
use crate::tail::Tail;

impl Log {
    /// Removes all records at and past `offset`, and the rest of a batch that `offset` lies within, so that the log
    /// ends at a batch boundary at or before `offset`, or at the log start. Durable on return. Nothing happens when the
    /// log ends before.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] before the log start; [`LogError::InJournal`], which changes nothing;
    /// [`LogError::NoSpace`] when nothing was changed; else the log is latched.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<Removal, LogError> {
        self.check_usable()?;
        if offset < self.log_start() {
            return Err(self.out_of_range(offset));
        }
        if offset >= self.log_end() {
            return Ok(Removal::none(&self.home.vfs));
        }
        self.check_not_in_journal()?;
        self.change_now()?;
        self.rename_retired();
        // Records before the log start are deleted for good: a cut that would end there leaves an empty log.
        let boundary = self
            .batch_at(offset)
            .map_err(|e| self.fail(Step::Before(e)))?;
        let removed = if boundary < self.log_start {
            self.reset(self.log_start)
        } else {
            self.truncate(offset)
        };
        let removal = removed.map_err(|e| self.fail(e))?;
        self.assert_sane();
        Ok(removal)
    }

    /// Removes all records and starts the log anew at `offset`, wherever that is. Durable on return.
    ///
    /// # Errors
    /// [`LogError::InJournal`], which changes nothing; [`LogError::NoSpace`] when there was no space for the
    /// new segment; else the log is latched.
    pub fn reset_to(&mut self, offset: Offset) -> Result<Removal, LogError> {
        self.check_usable()?;
        self.check_not_in_journal()?;
        self.change_now()?;
        self.rename_retired();
        let removal = self.reset(offset).map_err(|e| self.fail(e))?;
        self.assert_sane();
        Ok(removal)
    }

    fn check_not_in_journal(&self) -> Result<(), LogError> {
        if self.in_journal {
            let dir = self.home.dir.clone();
            return Err(LogError::InJournal { dir });
        }
        Ok(())
    }

    pub(crate) fn out_of_range(&self, offset: Offset) -> LogError {
        LogError::OutOfRange {
            dir: self.home.dir.clone(),
            offset,
            start: self.log_start(),
            end: self.log_end(),
        }
    }

    /// A step that failed because the disk was full before anything was changed is no failure.
    fn fail(&mut self, error: Step) -> LogError {
        match error {
            Step::Before(e) if e.is_no_space() && self.failure().is_none() => LogError::NoSpace(e),
            Step::Before(e) | Step::Within(e) => self.latch(e),
        }
    }

    /// Takes the files of dropped segments out of the way.
    fn retire(&self, dropped: &[Sealed]) -> Removal {
        let mut removal = Removal::none(&self.home.vfs);
        for sealed in dropped {
            removal.paths.extend(sealed.segment.mark_removed());
            removal.segments += 1;
            removal.bytes += sealed.size;
        }
        removal
    }

    /// Base offset of the batch that holds `offset`, which is in the log.
    fn batch_at(&self, offset: Offset) -> Result<Offset, VfsError> {
        let view = self.view();
        let first = view.headers(offset).next();
        match first {
            // In a gap that compaction left, the log may end anywhere.
            Some(Ok(header)) => Ok(header.base_offset.min(offset)),
            Some(Err(ReadError::Io(error))) => Err(error),
            Some(Err(error)) => Err(unreadable(self.tail.file.path(), &error)),
            None => Ok(offset),
        }
    }

    /// Cuts at a batch boundary at or before `offset`, which is at least the first segment's base.
    fn truncate(&mut self, offset: Offset) -> Result<Removal, Step> {
        self.generation += 1;
        self.clean_upto = self.clean_upto.min(offset);
        if let Some(at) = self.compacted_at(offset) {
            let dropped = self.cut_compacted(at, offset)?;
            snapshot::remove_after(&self.home, self.tail.next).map_err(Step::Within)?;
            self.clamp_flushed();
            return Ok(self.retire(&dropped));
        }
        let dropped = self.drop_segments_after(offset)?;
        self.cut_tail(offset).map_err(Step::Within)?;
        snapshot::remove_after(&self.home, self.tail.next).map_err(Step::Within)?;
        self.clamp_flushed();
        Ok(self.retire(&dropped))
    }

    /// Makes the segment that holds `offset` the last one and commits that.
    fn drop_segments_after(&mut self, offset: Offset) -> Result<Vec<Sealed>, Step> {
        if offset >= self.tail.segment.base {
            return Ok(Vec::new());
        }
        let keep = self.sealed.partition_point(|s| s.segment.base <= offset);
        assert!(keep > 0, "the first segment begins at or before the offset");
        let last = self.sealed[keep - 1].clone();
        let tail = self.unseal(&last)?;
        let old_tail = std::mem::replace(&mut self.tail, tail);
        let mut dropped: Vec<Sealed> = Arc::make_mut(&mut self.sealed).drain(keep - 1..).collect();
        dropped.remove(0);
        dropped.push(crate::recovery::open::seal(&old_tail));
        self.sealing.retain(|t| t.segment.base < last.segment.base);
        self.forget_indexes_from(last.segment.base);
        self.sealed_bytes = self.sealed.iter().map(|s| s.size).sum();
        self.commit_manifest().map_err(Step::Within)?;
        Ok(dropped)
    }

    /// The writer's side of a sealed segment.
    fn unseal(&mut self, sealed: &Sealed) -> Result<Tail, Step> {
        if let Some(at) = self
            .sealing
            .iter()
            .position(|t| t.segment.id == sealed.segment.id)
        {
            return Ok(self.sealing.remove(at));
        }
        let companions = stored_companions(&sealed.segment).map_err(Step::Before)?;
        let file = sealed.segment.open_for_write().map_err(Step::Before)?;
        let mut tail = Tail::after(sealed.segment.clone(), file, &companions);
        // A damaged index may cover less than the segment; the batches say the rest.
        let interval = self.config.index_interval_bytes;
        note_batches(&mut tail, sealed.size, sealed.end, interval).map_err(Step::Before)?;
        tail.flushed = sealed.size;
        Ok(tail)
    }

    /// Cuts the active segment.
    fn cut_tail(&mut self, offset: Offset) -> Result<(), VfsError> {
        if offset >= self.tail.next {
            return Ok(());
        }
        let segment = self.tail.segment.clone();
        let stored = stored_companions(&segment)?;
        let kept: Vec<Companion> = stored
            .iter()
            .filter(|c| c.next <= offset)
            .copied()
            .collect();
        // From here on readers of older views are told to take a new one.
        segment.bump_generation();
        if kept.len() < stored.len() {
            let header = segment.header();
            let index = index_bytes(&self.home, &header, &kept);
            durable::replace(&*self.home.vfs, &segment.path(Kind::Index), &index)?;
            let times = time_index_bytes(&self.home, &header, &kept);
            durable::replace(&*self.home.vfs, &segment.path(Kind::TimeIndex), &times)?;
        }
        let (size, file) = (self.tail.end, self.tail.file.clone());
        let first_append_ms = self.tail.first_append_ms;
        let mut tail = Tail::after(segment, file, &kept);
        note_batches(&mut tail, size, offset, self.config.index_interval_bytes)?;
        let mut tail = tail.with_indexed(&kept);
        self.epochs.truncate_to(tail.next);
        self.commit_epochs()?;
        tail.file.set_len(tail.end)?;
        tail.file.sync_data()?;
        tail.flushed = tail.end;
        tail.first_append_ms = first_append_ms.filter(|_| tail.end > 0);
        self.tail = tail;
        Ok(())
    }

    /// The sealed segment that holds `offset`, if a compaction wrote it.
    fn compacted_at(&self, offset: Offset) -> Option<usize> {
        let after = self.sealed.partition_point(|s| s.segment.base <= offset);
        let at = after.checked_sub(1)?;
        let sealed = self.sealed.get(at)?;
        (sealed.segment.compacted && offset < sealed.end).then_some(at)
    }

    /// Cuts the compacted segment number `at` and begins a new one behind it. Returns what was dropped.
    fn cut_compacted(&mut self, at: usize, offset: Offset) -> Result<Vec<Sealed>, Step> {
        let old = self.sealed[at].clone();
        let segment = old.segment.clone();
        let cut = CompactedCut::plan(&old, offset, self.config.index_interval_bytes)
            .map_err(Step::Before)?;
        let tail = self.create_segment(cut.end).map_err(Step::Before)?;
        let old_tail = std::mem::replace(&mut self.tail, tail);
        let mut dropped: Vec<Sealed> = Arc::make_mut(&mut self.sealed).drain(at..).collect();
        dropped.push(crate::recovery::open::seal(&old_tail));
        let keeps = cut.end > segment.base;
        if keeps {
            dropped.remove(0);
            let kept = Sealed {
                end: cut.end,
                size: cut.tail.end,
                max_timestamp: cut.tail.max_timestamp,
                ..old
            };
            Arc::make_mut(&mut self.sealed).push(kept);
        }
        self.sealing.retain(|t| t.segment.base < segment.base);
        self.forget_indexes_from(segment.base);
        self.sealed_bytes = self.sealed.iter().map(|s| s.size).sum();
        self.commit_manifest().map_err(Step::Within)?;
        self.epochs.truncate_to(cut.end);
        self.commit_epochs().map_err(Step::Within)?;
        if keeps {
            segment.bump_generation();
            cut.perform().map_err(Step::Within)?;
            if let Some(kept) = Arc::make_mut(&mut self.sealed).last_mut() {
                kept.generation = segment.generation();
            }
        }
        Ok(dropped)
    }

    fn reset(&mut self, offset: Offset) -> Result<Removal, Step> {
        let mut removal = Removal::none(&self.home.vfs);
        if self.sealed.iter().any(|s| s.segment.base == offset)
            || (self.tail.segment.base == offset && self.tail.end > 0)
        {
            // Cutting the segment of that base to nothing avoids two of one name.
            if self.log_start > offset {
                self.log_start = offset;
                self.commit_manifest().map_err(Step::Within)?;
            }
            removal = self.truncate(offset)?;
        }
        self.generation += 1;
        let mut dropped: Vec<Sealed> = self.sealed.to_vec();
        if self.tail.segment.base != offset || self.tail.end > 0 {
            let tail = self.create_segment(offset).map_err(Step::Before)?;
            let old = std::mem::replace(&mut self.tail, tail);
            dropped.push(crate::recovery::open::seal(&old));
        }
        self.sealed = Arc::new(Vec::new());
        self.sealed_bytes = 0;
        self.sealing.clear();
        self.forget_indexes_from(Offset::ZERO);
        self.clean_upto = self.clean_upto.min(offset);
        self.log_start = offset;
        self.epochs.clear();
        self.set_flushed_to_end();
        self.commit_manifest().map_err(Step::Within)?;
        self.commit_epochs().map_err(Step::Within)?;
        snapshot::remove_after(&self.home, offset).map_err(Step::Within)?;
        removal.merge(self.retire(&dropped));
        Ok(removal)
    }
}

/// Where a compacted segment is cut.
struct CompactedCut {
    /// A tail that ends at the cut, with the companions of all runs before it.
    tail: Tail,
    companions: Vec<Companion>,
    /// Where the log will end: at a batch, or within a gap.
    end: Offset,
}

impl CompactedCut {
    fn plan(old: &Sealed, offset: Offset, interval: u64) -> Result<Self, VfsError> {
        let mut companions = stored_companions(&old.segment)?;
        companions.retain(|c| c.next <= offset && c.end <= old.size);
        let file = old.segment.open_for_write()?;
        // A segment of its own, so that nothing changes for readers before the cut.
        let home = &old.segment.home;
        let twin = Arc::new(Segment::new_compacted(home, &old.segment.header(), None));
        let mut tail = Tail::after(twin, file, &companions);
        note_batches(&mut tail, old.size, offset, interval)?;
        let mut end = offset;
        if tail.end < old.size {
            let mut scan = HeaderScan::new(tail.file.clone(), old.size);
            let next = scan.header_at(tail.end).map_err(|e| match e {
                ReadError::Io(e) => e,
                other => unreadable(tail.file.path(), &other),
            })?;
            end = next.base_offset.min(offset);
        }
        tail.close_run();
        companions.extend(tail.pending_companions());
        Ok(Self {
            tail,
            companions,
            end,
        })
    }

    /// Rewrites the index files, then cuts the `.log` file.
    fn perform(&self) -> Result<(), VfsError> {
        let segment = &self.tail.segment;
        let (home, header) = (&segment.home, segment.header());
        let index = index_bytes(home, &header, &self.companions);
        durable::replace(&*home.vfs, &segment.path(Kind::Index), &index)?;
        let times = time_index_bytes(home, &header, &self.companions);
        durable::replace(&*home.vfs, &segment.path(Kind::TimeIndex), &times)?;
        self.tail.file.set_len(self.tail.end)?;
        self.tail.file.sync_data()
    }
}

/// Where a change failed.
enum Step {
    /// Nothing was changed.
    Before(VfsError),
    /// Something may have been changed.
    Within(VfsError),
}

fn unreadable(file: &std::path::Path, error: &ReadError) -> VfsError {
    let damage = std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string());
    VfsError::new("read batches of", file, damage)
}

/// The intact entries of a segment's index file, from the first on without a gap.
fn stored_companions(segment: &Segment) -> Result<Vec<Companion>, VfsError> {
    let bytes = segment.home.vfs.read(&segment.path(Kind::Index))?;
    let mut companions: Vec<Companion> = Vec::new();
    for (number, companion) in intact_companions(&bytes, segment.id) {
        if number as usize != companions.len() {
            break;
        }
        companions.push(companion);
    }
    Ok(companions)
}

/// Accounts for the batches between the tail's end and `size` whose records all lie below `upto`.
fn note_batches(tail: &mut Tail, size: u64, upto: Offset, interval: u64) -> Result<(), VfsError> {
    let mut scan = HeaderScan::new(tail.file.clone(), size);
    while tail.end < size {
        let header = scan.header_at(tail.end).map_err(|e| match e {
            ReadError::Io(e) => e,
            other => unreadable(tail.file.path(), &other),
        })?;
        if header.next_offset() > upto {
            break;
        }
        tail.note(&header, interval);
    }
    Ok(())
}
