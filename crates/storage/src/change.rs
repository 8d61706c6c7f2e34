//! Changes of what the log consists of, in two phases, so that the writer never waits for a disk: the owner
//! prepares one (cheap, in memory), another thread makes a manifest that says so durable ([`ChangeTarget`]),
//! and the owner is told ([`Log::change_done`]), which swaps the segments, moves the log start and hands out
//! the old files. Trim, retention and the installation of compacted segments are such changes.
//!
//! Invariants: the log start, and readers, see a change only after its manifest is durable, so the log start
//! never goes back, not even over a crash; every manifest that is written while a change is pending has the
//! change in it, so none can take it back; a change is never given up once it is pending, only tried again.
//! This module never deletes a file and never touches the active segment but to roll it.

use std::collections::BTreeSet;
use std::sync::Arc;

use varve_types::Offset;

use crate::error::LogError;
use crate::flush::{ChangeDone, ChangeTarget, FlushError, Removal};
use crate::format::Manifest;
use crate::log::Log;
use crate::planted::{self, Plant};
use crate::read_view::Sealed;

/// A change on its way.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    /// The first manifest that has it.
    version: u64,
    pub(crate) log_start: Offset,
    clean_upto: Offset,
    installs: Vec<Install>,
}

/// Segments that make room for one that a compaction wrote.
#[derive(Debug, Clone)]
pub(crate) struct Install {
    /// Ids of neighbours, in order.
    pub(crate) replaced: Vec<u64>,
    pub(crate) with: Sealed,
}

/// What the log will be once the pending change is durable.
struct Intended {
    log_start: Offset,
    clean_upto: Offset,
    sealed: Vec<Sealed>,
}

impl Log {
    /// What is to be made durable, if a change is pending. May be asked for again after a run that failed
    /// with [`FlushError::retry`]; running two of them does no harm.
    #[must_use]
    pub fn change_target(&self) -> Option<ChangeTarget> {
        let pending = self.pending.as_ref()?;
        if self.failure().is_some() {
            return None;
        }
        // The manifest declares all but the last segment complete, and a log start must never be past what
        // a power cut leaves.
        let incomplete = self.sealing.iter().any(|t| t.flushed < t.end);
        let unflushed = pending.log_start > self.flushed();
        // Acknowledgements do not follow it: where a journal decides on those, it must know how far they came.
        let flush = (incomplete || unflushed)
            .then(|| self.journal_relief())
            .flatten();
        Some(ChangeTarget {
            home: self.home.clone(),
            flush,
            replace: self.next_manifest(),
        })
    }

    /// Accounts for a change that is durable: from here on the log is what it says.
    ///
    /// # Errors
    /// As [`Log::flush_done`].
    pub fn change_done(&mut self, done: &ChangeDone) -> Result<(), LogError> {
        self.check_usable()?;
        self.manifest_durable = self.manifest_durable.max(done.manifest);
        if let Some(flush) = &done.flush {
            self.flush_done(flush)?;
        }
        self.settle_change();
        self.assert_sane();
        Ok(())
    }

    /// Accounts for a run that failed: the log is latched, unless only space for the manifest was missing.
    /// Then the change is still pending.
    pub fn change_failed(&mut self, error: &FlushError) {
        self.flush_failed(error);
    }

    /// Whether a change waits to be made durable.
    #[must_use]
    pub const fn change_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The files that finished changes took out of the log since the last call.
    pub fn take_removed(&mut self) -> Removal {
        let none = Removal::none(&self.home.vfs);
        std::mem::replace(&mut self.removed, none)
    }

    /// Makes a pending change durable here and now. Blocks.
    ///
    /// # Errors
    /// [`LogError::NoSpace`] when it is still pending; else the log is latched.
    pub fn change_now(&mut self) -> Result<(), LogError> {
        let Some(target) = self.change_target() else {
            return Ok(());
        };
        match target.run() {
            Ok(done) => self.change_done(&done),
            Err(error) => {
                self.change_failed(&error);
                let FlushError { error, retry } = error;
                Err(if retry {
                    LogError::NoSpace(error)
                } else {
                    LogError::Io(error)
                })
            }
        }
    }

    /// Asks for the log start to move to `offset` (DeleteRecords), and for the segments before it to go.
    /// Returns whether a change is pending now: not when the log starts there or later.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] past the log end; [`LogError::NoSpace`] when the active segment would have
    /// to be rolled and cannot be: nothing was changed then.
    pub fn prepare_trim(&mut self, offset: Offset) -> Result<bool, LogError> {
        self.check_usable()?;
        if offset > self.log_end() {
            return Err(self.out_of_range(offset));
        }
        if offset > self.intended_start() {
            if offset == self.log_end() {
                self.roll()?;
            }
            self.pend(|p| p.log_start = offset);
        }
        Ok(self.pending.is_some())
    }

    /// Asks for the oldest segments to go that retention by size or time allows and that lie wholly below
    /// `upto`, the high watermark. An active segment that is wholly out of date is rolled first. Returns
    /// whether a change is pending now. O(segments), without a sync.
    ///
    /// # Errors
    /// When the active segment had to be rolled and the disk failed; the log is latched then.
    pub fn prepare_retention(&mut self, now_ms: i64, upto: Offset) -> Result<bool, LogError> {
        self.check_usable()?;
        self.now_ms = now_ms;
        let expired = |newest: i64, created: i64, ended: Option<i64>, limit: Option<i64>| {
            let newest = match newest {
                // Batches without timestamps age from the segment's beginning.
                ..0 => Some(created),
                // A clock was ahead: they age from the segment's end, by the time of this node.
                _ if newest > now_ms => ended,
                _ => Some(newest),
            };
            let age = newest.map(|newest| now_ms.saturating_sub(newest));
            age.zip(limit).is_some_and(|(age, limit)| age > limit)
        };
        let limit = self.config.retention_ms;
        // What is appended after that goes into the next segment.
        let tail_ends = self.begun_ms().saturating_add(self.config.segment_ms);
        let tail_is_old = self.tail.end > 0
            && self.tail.next <= upto
            && expired(
                self.tail.max_timestamp,
                self.tail.segment.created_ms,
                Some(tail_ends),
                limit,
            );
        if tail_is_old {
            match self.roll() {
                // The disk is full, which is a reason to remove what can be removed.
                Err(error) if error.is_no_space() => {}
                rolled => rolled?,
            }
        }
        let intended = self.intended();
        let mut size = intended.sealed.iter().map(|s| s.size).sum::<u64>() + self.tail.end;
        let mut start = intended.log_start;
        // A segment ends when the next one begins.
        let next = intended.sealed.iter().skip(1);
        let ends = next.map(|s| s.segment.created_ms);
        let last = match tail_is_old {
            // It was closed just now, long after its last record.
            true => tail_ends,
            false => self.tail.segment.created_ms,
        };
        let ends = ends.chain([last]);
        let all = intended.sealed.iter().zip(ends);
        for (sealed, ended) in all.filter(|(s, _)| s.end <= upto) {
            let created = sealed.segment.created_ms;
            let ended = Some(ended).filter(|ms| *ms > 0);
            let too_old = expired(sealed.max_timestamp, created, ended, limit);
            let too_much = self
                .config
                .retention_bytes
                .is_some_and(|max| size.saturating_sub(sealed.size) >= max);
            if !too_old && !too_much && sealed.end > self.log_start {
                break;
            }
            size -= sealed.size;
            start = start.max(sealed.end);
        }
        if intended.sealed.first().is_some_and(|s| s.end <= start) {
            self.pend(|p| p.log_start = start);
        }
        Ok(self.pending.is_some())
    }

    /// Moves the log start to `offset` and removes the segments before it. Durable on return. Nothing
    /// happens when the log starts there or later.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] past the log end; [`LogError::NoSpace`] when the log start did not move;
    /// else the log is latched.
    pub fn trim(&mut self, offset: Offset) -> Result<Removal, LogError> {
        self.here_and_now(|log| log.prepare_trim(offset))
    }

    /// As [`Log::prepare_retention`], here and now. Needs space for a new manifest only.
    ///
    /// # Errors
    /// [`LogError::NoSpace`] when nothing was removed; else the log is latched.
    pub fn apply_retention(&mut self, now_ms: i64, upto: Offset) -> Result<Removal, LogError> {
        self.here_and_now(|log| log.prepare_retention(now_ms, upto))
    }

    fn here_and_now(
        &mut self,
        prepare: impl FnOnce(&mut Self) -> Result<bool, LogError>,
    ) -> Result<Removal, LogError> {
        let before = self.pending.clone();
        prepare(self)?;
        if self.change_target().is_some_and(|t| t.flush.is_some()) {
            self.flush_without(before.clone())?;
        }
        if planted::is(Plant::UnlinkBeforeManifest) {
            self.unlink_too_early()?;
        }
        if let Err(error) = self.change_now() {
            // Nobody else has seen it, so it may be forgotten.
            self.pending = before;
            self.manifest_version += 1;
            return Err(error);
        }
        Ok(self.take_removed())
    }

    /// Flushes what a change needs flushed, before any manifest has the change: it may still be forgotten.
    fn flush_without(&mut self, before: Option<Pending>) -> Result<(), LogError> {
        let wanted = std::mem::replace(&mut self.pending, before);
        self.manifest_version += 1;
        if let Some(target) = self.journal_relief() {
            match target.run() {
                Ok(done) => drop(self.flush_done(&done)?),
                Err(error) => {
                    self.flush_failed(&error);
                    let FlushError { error, retry } = error;
                    return Err(if retry {
                        LogError::NoSpace(error)
                    } else {
                        LogError::Io(error)
                    });
                }
            }
        }
        self.manifest_version += 1;
        let version = self.manifest_version;
        self.pending = wanted.map(|wanted| Pending { version, ..wanted });
        Ok(())
    }

    /// What [`Plant::UnlinkBeforeManifest`] does wrong.
    fn unlink_too_early(&self) -> Result<(), LogError> {
        let start = self.intended_start();
        let mut removal = Removal::none(&self.home.vfs);
        let gone = self.sealed.iter().filter(|s| s.end <= start);
        removal.retired.extend(gone.map(|s| s.segment.clone()));
        removal.run().map(drop).map_err(LogError::Io)
    }

    /// Adds to the pending change.
    fn pend(&mut self, change: impl FnOnce(&mut Pending)) {
        self.manifest_version += 1;
        let version = self.manifest_version;
        let pending = self.pending.get_or_insert_with(|| Pending {
            version,
            log_start: self.log_start,
            clean_upto: self.clean_upto,
            installs: Vec::new(),
        });
        pending.version = version;
        change(pending);
        assert!(
            pending.log_start >= self.log_start,
            "the log start never goes back"
        );
    }

    /// Whether these segments stand side by side in what the log will be.
    pub(crate) fn has_neighbours(&self, ids: &[u64]) -> bool {
        let sealed = self.intended().sealed;
        let at = sealed
            .iter()
            .position(|s| ids.first() == Some(&s.segment.id));
        at.is_some_and(|at| {
            let found = sealed[at..].iter().map(|s| s.segment.id).take(ids.len());
            found.eq(ids.iter().copied())
        })
    }

    /// Adds the result of a compaction to the pending change.
    pub(crate) fn pend_install(&mut self, install: Option<Install>, clean_upto: Option<Offset>) {
        self.pend(|p| {
            p.installs.extend(install);
            p.clean_upto = clean_upto.map_or(p.clean_upto, |upto| upto.max(p.clean_upto));
        });
    }

    fn intended_start(&self) -> Offset {
        self.pending
            .as_ref()
            .map_or(self.log_start, |p| p.log_start)
    }

    fn intended(&self) -> Intended {
        let mut sealed = self.sealed.to_vec();
        let Some(pending) = &self.pending else {
            return Intended {
                log_start: self.log_start,
                clean_upto: self.clean_upto,
                sealed,
            };
        };
        for Install { replaced, with } in &pending.installs {
            let at = sealed
                .iter()
                .position(|s| replaced.first() == Some(&s.segment.id));
            let at =
                at.unwrap_or_else(|| unreachable!("an install is checked when it is prepared"));
            sealed.splice(at..at + replaced.len(), [with.clone()]);
        }
        sealed.retain(|s| s.end > pending.log_start);
        Intended {
            log_start: pending.log_start,
            clean_upto: pending.clean_upto,
            sealed,
        }
    }

    /// What the next manifest says.
    pub(crate) fn manifest(&self) -> Manifest {
        let Intended {
            log_start,
            clean_upto,
            sealed,
        } = self.intended();
        let compacted = sealed.iter().rfind(|s| s.segment.compacted);
        let covered = compacted.map_or(Offset::ZERO, |s| s.end);
        let epochs = self.epochs.entries().iter().copied();
        Manifest {
            log_start,
            next_segment_id: self.next_segment_id,
            clean_upto,
            epochs: epochs.filter(|(_, start)| *start < covered).collect(),
            segments: sealed
                .iter()
                .map(Sealed::listed)
                .chain(std::iter::once(self.tail.segment.listed()))
                .collect(),
        }
    }

    /// Swaps to what is pending, once a manifest that has it is durable.
    pub(crate) fn settle_change(&mut self) {
        let durable = self.manifest_durable;
        if self.pending.as_ref().is_none_or(|p| durable < p.version) {
            return;
        }
        let intended = self.intended();
        self.pending = None;
        let kept: BTreeSet<u64> = intended.sealed.iter().map(|s| s.segment.id).collect();
        let (_, dropped): (Vec<Sealed>, Vec<Sealed>) = self
            .sealed
            .iter()
            .cloned()
            .partition(|s| kept.contains(&s.segment.id));
        self.sealing.retain(|t| kept.contains(&t.segment.id));
        self.log_start = intended.log_start;
        // What was before is gone, and was synced first.
        self.count_as_flushed(intended.log_start);
        self.clean_upto = intended.clean_upto;
        self.sealed_bytes = intended.sealed.iter().map(|s| s.size).sum();
        self.sealed = Arc::new(intended.sealed);
        self.epochs.trim(self.log_start);
        self.retired.retain(|s| s.strong_count() > 0);
        for sealed in dropped {
            self.removed.segments += 1;
            self.removed.bytes += sealed.size;
            self.retired.push(Arc::downgrade(&sealed.segment));
            self.removed.retired.push(sealed.segment);
        }
    }

    /// Gives the files of all removed segments other names now, before new ones may get theirs.
    pub(crate) fn rename_retired(&mut self) {
        for segment in self.retired.drain(..).filter_map(|s| s.upgrade()) {
            segment.mark_removed();
        }
    }
}
