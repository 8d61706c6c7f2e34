//! The log: its writer's state, appends and flushes. Truncation, retention and reset are in `truncate` and
//! `retention`; what readers hold is in `read_view`.
//!
//! Invariants, asserted: batches are contiguous; `log_start <= log_end`; `flushed <= log_end`; a segment is
//! listed in a durable manifest only after all segments before it were synced.

use std::io::IoSlice;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use varve_record::Sequenced;
use varve_types::{LeaderEpoch, Offset, OffsetRange};
use varve_vfs::{Vfs, VfsError};

use crate::change::Pending;
use crate::config::{LogConfig, OpenMode};
use crate::epoch_index::EpochIndex;
use crate::error::LogError;
use crate::flush::{FlushDone, FlushError, FlushTarget, Reach, Removal};
use crate::format::{LogIdentity, SegmentHeader, encode_epochs};
use crate::journal::{LogReplay, Replayed};
use crate::planted::{self, Plant};
use crate::read_view::{ReadView, Sealed};
use crate::recovery::Recovery;
use crate::recovery::open::{open, seal, view};
use crate::segment::{Home, Kind, Replacement, Segment, SmallFile, SmallFiles};
use crate::tail::Tail;

/// Positions and relative offsets in a segment are kept in 32 bits.
const SEGMENT_LIMIT: u64 = u32::MAX as u64;

/// An append that succeeded: the bytes are written, not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offsets of the records.
    pub range: OffsetRange,
    /// Bytes written.
    pub bytes: u64,
}

/// One partition's log. The owner is the only writer; readers use [`Log::view`].
#[derive(Debug)]
pub struct Log {
    pub(crate) home: Arc<Home>,
    pub(crate) config: LogConfig,
    pub(crate) log_start: Offset,
    /// Compaction is done below this offset.
    pub(crate) clean_upto: Offset,
    flushed: Offset,
    pub(crate) sealed: Arc<Vec<Sealed>>,
    /// Bytes in sealed segments.
    pub(crate) sealed_bytes: u64,
    /// Sealed segments whose bytes or index entries are not all on disk yet, oldest first.
    pub(crate) sealing: Vec<Tail>,
    pub(crate) tail: Tail,
    pub(crate) next_segment_id: u64,
    /// Changes of the manifest so far, and how many of them are durable.
    pub(crate) manifest_version: u64,
    pub(crate) manifest_durable: u64,
    /// The manifest that first listed the newest segment: a flush waits for that one, not for others.
    rolled_version: u64,
    /// What is to change once a manifest that says so is durable.
    pub(crate) pending: Option<Pending>,
    /// What such changes took out of the log; nobody has fetched it yet.
    pub(crate) removed: Removal,
    /// Segments whose files may still have their names, until a [`Removal`] renames them.
    pub(crate) retired: Vec<Weak<Segment>>,
    pub(crate) epochs: EpochIndex,
    epochs_durable: u64,
    /// Segments whose index files got their last entries after their own flush.
    pub(crate) unsynced_indexes: Vec<(u64, Arc<Segment>)>,
    /// Numbers them, so that a flush says which ones it has synced.
    next_index_number: u64,
    /// Grows with each truncation, so that a flush from before it counts for nothing.
    pub(crate) generation: u64,
    failed: Option<Arc<str>>,
    /// The journal may hold records of this log.
    pub(crate) in_journal: bool,
    /// The latest time the owner has told.
    pub(crate) now_ms: i64,
    /// The log's end, if everything was found as an orderly stop left it.
    pub(crate) found_whole: Option<Offset>,
}

impl Log {
    /// Opens the log in `dir`, or creates it there, durably. After an unclean stop the end of the log is
    /// verified, a torn tail cut, and what no checkpoint covers is written again and synced, so that
    /// everything in the log that is returned counts as flushed.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] for damage that no crash explains; then nothing has been changed. Else what
    /// the disk says.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        identity: LogIdentity,
        config: LogConfig,
        mode: OpenMode,
        now_ms: i64,
    ) -> Result<(Self, Recovery), LogError> {
        Self::open_replayed(vfs, dir, identity, config, mode, now_ms, None)
    }

    /// As [`Log::open`], and first puts back what the journal of the disk holds for the log. Until that journal has
    /// begun anew, each further start puts the same back again: like any log that is in a journal, this one is
    /// truncated only after [`crate::Journal::void`].
    ///
    /// # Errors
    /// As [`Log::open`]; a refusal has changed nothing but what was put back.
    pub fn open_replayed(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        identity: LogIdentity,
        config: LogConfig,
        mode: OpenMode,
        now_ms: i64,
        replay: Option<&LogReplay>,
    ) -> Result<(Self, Recovery), LogError> {
        let replayed = match replay {
            Some(replay) => replay.apply(&*vfs, dir, &identity)?,
            None => Replayed::default(),
        };
        let small_files = Mutex::new(SmallFiles::default());
        let home = Arc::new(Home {
            vfs,
            dir: dir.to_owned(),
            identity,
            small_files,
            failed: AtomicBool::new(false),
        });
        let opened = open(&home, &config, mode, now_ms, replayed)?;
        let whole = opened.recovery.created || opened.recovery.found_whole();
        let log = Self {
            found_whole: whole.then_some(opened.tail.next),
            pending: None,
            removed: Removal::none(&opened.home.vfs),
            retired: Vec::new(),
            home: opened.home,
            config,
            log_start: opened.log_start,
            clean_upto: opened.clean_upto,
            flushed: opened.tail.next,
            sealed_bytes: opened.sealed.iter().map(|s| s.size).sum(),
            sealed: Arc::new(opened.sealed),
            sealing: Vec::new(),
            tail: opened.tail,
            next_segment_id: opened.next_segment_id,
            manifest_version: 0,
            manifest_durable: 0,
            rolled_version: 0,
            epochs_durable: opened.epochs.version(),
            epochs: opened.epochs,
            unsynced_indexes: Vec::new(),
            next_index_number: 0,
            generation: 0,
            failed: None,
            in_journal: replay.is_some(),
            now_ms,
        };
        log.assert_sane();
        Ok((log, opened.recovery))
    }

    /// Compaction, durably, has gone so far: below, each key is there once, and nothing that was aborted.
    #[must_use]
    pub const fn clean_upto(&self) -> Offset {
        self.clean_upto
    }

    /// First offset that readers may see.
    #[must_use]
    pub const fn log_start(&self) -> Offset {
        self.log_start
    }

    /// Offset after the last record written.
    #[must_use]
    pub const fn log_end(&self) -> Offset {
        self.tail.next
    }

    /// Everything below is on stable storage.
    #[must_use]
    pub const fn flushed(&self) -> Offset {
        self.flushed
    }

    /// Bytes of all batches in the log.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.sealed_bytes + self.tail.end
    }

    /// Number of segments, the active one included.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.sealed.len() + 1
    }

    /// Whose log this is.
    #[must_use]
    pub fn identity(&self) -> &LogIdentity {
        &self.home.identity
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.home.dir
    }

    /// The configuration in use.
    #[must_use]
    pub const fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Uses another configuration from now on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// Why the log refuses changes, if it does.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// An immutable view of the log as it is now. O(1).
    #[must_use]
    pub fn view(&self) -> Arc<ReadView> {
        Arc::new(view(self.log_start, &self.sealed, &self.tail, &self.epochs))
    }

    /// Which leader wrote which offsets.
    #[must_use]
    pub const fn epochs(&self) -> &EpochIndex {
        &self.epochs
    }

    /// The newest leader epoch that the log knows.
    #[must_use]
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.last()
    }

    /// Where the records of `epoch` end: see [`EpochIndex::end_offset_for`].
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_offset_for(epoch, self.log_end())
    }

    /// Notes that a leader with `epoch` begins at the log's end. To be called when this replica becomes
    /// leader, before its first append; durable with the next flush. Epochs of appended batches are noted
    /// by the append.
    ///
    /// # Errors
    /// [`LogError::Failed`] after an earlier failure.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), LogError> {
        self.check_usable()?;
        self.epochs.begin(epoch, self.tail.next);
        Ok(())
    }

    pub(crate) fn check_usable(&self) -> Result<(), LogError> {
        match &self.failed {
            None => Ok(()),
            Some(cause) => Err(LogError::Failed {
                dir: self.home.dir.clone(),
                cause: cause.clone(),
            }),
        }
    }

    /// Refuses every change from now on.
    pub(crate) fn latch(&mut self, error: VfsError) -> LogError {
        self.failed.get_or_insert_with(|| error.to_string().into());
        self.home.failed.store(true, Ordering::Release);
        LogError::Io(error)
    }

    pub(crate) fn assert_sane(&self) {
        assert!(
            self.log_start <= self.log_end(),
            "log start is not past log end"
        );
        assert!(
            self.flushed <= self.log_end(),
            "nothing is flushed before it is written"
        );
        assert!(
            self.next_segment_id > self.tail.segment.id,
            "segment ids are used once"
        );
    }

    /// Writes batches at the log's end: one vectored write per segment, rolling by size and time between
    /// batches. Either all of them are in the log or none is. They are not durable yet.
    ///
    /// # Errors
    /// [`LogError::NoSpace`]: the log is as before and usable. [`LogError::EpochGoesBack`]: likewise. Any
    /// other failure latches the log: it refuses every later change, and what this call wrote is unknown.
    ///
    /// # Panics
    /// When the batches do not continue the log: offsets are the caller's.
    pub fn append(&mut self, batches: &[Sequenced], now_ms: i64) -> Result<Appended, LogError> {
        self.check_usable()?;
        self.now_ms = now_ms;
        let start = self.tail.next;
        self.check_batches(batches)?;
        let last = self.last_epoch();
        let changes = batches
            .iter()
            .any(|b| Some(b.header().leader_epoch) != last);
        let epochs = changes.then(|| self.epochs.clone());
        let (segments, mark) = (self.sealing.len(), self.tail.mark());
        let mut rest = batches;
        let mut bytes = 0;
        while !rest.is_empty() {
            match self.append_to_one(rest) {
                Ok((count, written)) => {
                    bytes += written;
                    rest = &rest[count..];
                }
                Err(error) if error.is_no_space() => {
                    if let Some(epochs) = epochs {
                        self.epochs = epochs;
                    }
                    self.undo(segments, &mark).map_err(|e| self.latch(e))?;
                    return Err(LogError::NoSpace(error));
                }
                Err(error) => return Err(self.latch(error)),
            }
        }
        self.assert_sane();
        Ok(Appended {
            range: OffsetRange {
                start,
                end: self.tail.next,
            },
            bytes,
        })
    }

    fn check_batches(&self, batches: &[Sequenced]) -> Result<(), LogError> {
        let mut expected = self.tail.next;
        let mut newest = None;
        for batch in batches {
            let header = batch.header();
            let (offset, epoch) = (header.base_offset, header.leader_epoch);
            assert_eq!(offset, expected, "batches continue the log");
            expected = header.next_offset();
            let back = match newest {
                Some(newest) => epoch < newest,
                None => {
                    self.last_epoch().is_some_and(|last| epoch < last)
                        && !self.epochs.clone().note(epoch, offset)
                }
            };
            if back {
                return Err(LogError::EpochGoesBack {
                    dir: self.home.dir.clone(),
                    offset,
                    epoch,
                });
            }
            newest = Some(epoch);
        }
        Ok(())
    }

    /// Appends as many batches as belong into one segment.
    fn append_to_one(&mut self, batches: &[Sequenced]) -> Result<(usize, u64), VfsError> {
        if self.must_roll(&batches[0], self.tail.end, self.tail.end > 0) {
            self.roll_segment()?;
        }
        let mut end = self.tail.end;
        let mut count = 0;
        let mut slices = Vec::with_capacity(batches.len() * 2);
        for batch in batches {
            if count > 0 && self.must_roll(batch, end, true) {
                break;
            }
            slices.extend(batch.slices().map(IoSlice::new));
            end += batch.size() as u64;
            count += 1;
        }
        self.tail.file.write_all_at(&slices, self.tail.end)?;
        let written = end - self.tail.end;
        self.account(&batches[..count]);
        if planted::is(Plant::IndexBeforeFlush) {
            self.tail.write_index()?;
        }
        Ok((count, written))
    }

    /// Whether a batch that would be written at `end` belongs into a new segment.
    fn must_roll(&self, batch: &Sequenced, end: u64, has_batches: bool) -> bool {
        if !has_batches {
            return false;
        }
        let relative = batch.header().last_offset().since(self.tail.segment.base);
        end + batch.size() as u64 > self.config.segment_bytes.min(SEGMENT_LIMIT)
            || relative >= SEGMENT_LIMIT
            || self.now_ms.saturating_sub(self.begun_ms()) >= self.config.segment_ms
    }

    /// When the active segment got its first batch, as far as is known: milliseconds since the Unix epoch.
    pub(crate) fn begun_ms(&self) -> i64 {
        let begun = self.tail.first_append_ms;
        begun.unwrap_or(self.tail.segment.created_ms)
    }

    /// Bookkeeping for batches that are written.
    fn account(&mut self, batches: &[Sequenced]) {
        self.tail.first_append_ms.get_or_insert(self.now_ms);
        let pending = self.tail.pending();
        for batch in batches {
            let header = batch.header();
            let known = self.epochs.note(header.leader_epoch, header.base_offset);
            assert!(known, "epochs were checked before the write");
            self.tail.note(header, self.config.index_interval_bytes);
        }
        self.tail.publish_points(pending);
    }

    /// Takes back what an append that found no space has written. For good: whoever is told that nothing
    /// was appended must not find it after a power cut.
    fn undo(&mut self, segments: usize, mark: &crate::tail::Mark) -> Result<(), VfsError> {
        if self.sealing.len() > segments {
            // Segments begun by this append: not in any manifest on disk, so their files may just go.
            let first = self.sealing.drain(segments..).collect::<Vec<_>>();
            let mut begun = first.into_iter();
            let Some(old) = begun.next() else {
                unreachable!("there is one more than before")
            };
            let dropped = std::mem::replace(&mut self.tail, old);
            for tail in begun.chain(std::iter::once(dropped)) {
                remove_files(&tail.segment)?;
            }
            self.home.vfs.sync_dir(&self.home.dir)?;
            let keep = self
                .sealed
                .partition_point(|s| s.segment.base < self.tail.segment.base);
            Arc::make_mut(&mut self.sealed).truncate(keep);
            self.sealed_bytes = self.sealed.iter().map(|s| s.size).sum();
        }
        // No view shows what is taken back, so readers need not be told.
        self.tail.restore(mark);
        let shown = self.tail.segment.points_below(self.tail.end);
        self.tail.segment.set_points(shown);
        if planted::is(Plant::LeavePartialAppend) {
            return Ok(());
        }
        self.tail.file.set_len(self.tail.end)?;
        self.tail.file.sync_data()
    }

    /// Begins a new segment at the log's end. Nothing happens when the active one is empty.
    ///
    /// # Errors
    /// [`LogError::NoSpace`]: nothing has changed. Else the log is latched.
    pub fn roll(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        if self.tail.end == 0 {
            return Ok(());
        }
        match self.roll_segment() {
            Ok(()) => Ok(()),
            Err(error) if error.is_no_space() => Err(LogError::NoSpace(error)),
            Err(error) => Err(self.latch(error)),
        }
    }

    /// Creates the next segment's files first: if that fails, nothing has changed.
    pub(crate) fn roll_segment(&mut self) -> Result<(), VfsError> {
        let tail = self.create_segment(self.tail.next)?;
        self.tail.close_run_and_show();
        let old = std::mem::replace(&mut self.tail, tail);
        self.sealed_bytes += old.end;
        Arc::make_mut(&mut self.sealed).push(seal(&old));
        self.sealing.push(old);
        self.manifest_version += 1;
        self.rolled_version = self.manifest_version;
        Ok(())
    }

    pub(crate) fn create_segment(&mut self, base: Offset) -> Result<Tail, VfsError> {
        let header = SegmentHeader {
            segment_id: self.next_segment_id,
            base_offset: base,
            created_ms: self.now_ms,
        };
        let made = Tail::create(&self.home, &header);
        if made.is_err() {
            for kind in Kind::ALL {
                let _ = self
                    .home
                    .vfs
                    .remove_file(&self.home.segment_path(base, kind));
            }
        } else {
            self.next_segment_id += 1;
        }
        made
    }

    pub(crate) fn next_manifest(&self) -> Replacement {
        let bytes = self.manifest().encode(&self.home.identity);
        Replacement {
            file: SmallFile::Manifest,
            version: self.manifest_version,
            bytes,
        }
    }

    fn next_epochs(&self) -> Replacement {
        let bytes = encode_epochs(&self.home.identity, self.epochs.entries());
        Replacement {
            file: SmallFile::Epochs,
            version: self.epochs.version(),
            bytes,
        }
    }

    /// Makes the manifest durable here and now, for changes that must not be undone by a crash. Segments
    /// before the last are synced first: the manifest says that they are complete.
    pub(crate) fn commit_manifest(&mut self) -> Result<(), VfsError> {
        for tail in &mut self.sealing {
            if tail.flushed < tail.end {
                if let Err(error) = tail.sync_whole() {
                    // A failed sync is final, even if all it says is that the disk is full.
                    self.failed.get_or_insert_with(|| error.to_string().into());
                    return Err(error);
                }
                tail.flushed = tail.end;
            }
        }
        self.manifest_version += 1;
        self.home.replace(&self.next_manifest())?;
        self.manifest_durable = self.manifest_version;
        Ok(())
    }

    /// Writes the epoch file here and now.
    pub(crate) fn commit_epochs(&mut self) -> Result<(), VfsError> {
        if self.epochs_durable != self.epochs.version() {
            self.home.replace(&self.next_epochs())?;
            self.epochs_durable = self.epochs.version();
        }
        Ok(())
    }

    /// What must be synced for the log's files to be durable up to its end, whatever a journal holds. `None`
    /// when they are, or when the log has failed. Cheap; taking several before the first has run is allowed.
    #[must_use]
    pub fn flush_target(&self) -> Option<FlushTarget> {
        let manifest_due = self.rolled_version > self.manifest_durable;
        let epochs_due = self.epochs.version() != self.epochs_durable;
        let clean = self.files_are_flushed() && !self.small_files_are_due();
        if clean || self.failed.is_some() {
            return None;
        }
        let mut replace = Vec::new();
        if manifest_due {
            replace.push(self.next_manifest());
        }
        if epochs_due {
            replace.push(self.next_epochs());
        }
        let dirty = self.sealing.iter().filter(|t| t.flushed < t.end);
        let active = self.tail.end > self.tail.flushed;
        // A log start must never be past what a power cut leaves.
        let starts_past = |p: &Pending| manifest_due && p.log_start > self.flushed;
        let early = self.pending.as_ref().filter(|p| active && starts_past(p));
        let early = early.map(|_| &self.tail.file);
        let waiting: u64 = dirty.clone().map(|t| t.end - t.flushed).sum();
        Some(FlushTarget {
            home: self.home.clone(),
            headers: dirty.clone().map(|t| t.segment.path(Kind::Index)).collect(),
            sealed: dirty.map(|t| &t.file).chain(early).cloned().collect(),
            indexes: self.index_paths(),
            replace,
            active: active.then(|| self.tail.file.clone()),
            bytes: waiting + (self.tail.end - self.tail.flushed),
            done: self.done_at_end(Reach::Files),
        })
    }

    /// What is so after a flush of everything there is now.
    pub(crate) fn done_at_end(&self, reach: Reach) -> FlushDone {
        FlushDone {
            upto: self.tail.next,
            identity: self.home.identity,
            reach,
            generation: self.generation,
            // A manifest that is only wanted for a pending change is not written by a flush.
            manifest: if self.rolled_version > self.manifest_durable {
                self.manifest_version
            } else {
                self.manifest_durable
            },
            epochs: self.epochs.version(),
            position: self.tail.end,
            segment_id: self.tail.segment.id,
            segment_base: self.tail.segment.base,
            indexes_below: self.next_index_number,
        }
    }

    /// Whether a small file has to be replaced before what is written can count as durable.
    pub(crate) fn small_files_are_due(&self) -> bool {
        self.rolled_version > self.manifest_durable || self.epochs.version() != self.epochs_durable
    }

    fn index_paths(&self) -> Vec<std::path::PathBuf> {
        let both = [Kind::Index, Kind::TimeIndex];
        self.unsynced_indexes
            .iter()
            .flat_map(|(_, s)| both.map(|kind| s.path(kind)))
            .collect()
    }

    /// Accounts for a flush that succeeded: moves the flushed cursor and writes index entries that are due.
    /// A flush from before a truncation counts for nothing. Returns the flushed cursor.
    ///
    /// # Errors
    /// What the disk says about the index files; the log is latched then, except for a full disk, which
    /// only delays the entries.
    pub fn flush_done(&mut self, done: &FlushDone) -> Result<Offset, LogError> {
        self.check_usable()?;
        if done.generation != self.generation && !planted::is(Plant::CountOldFlush) {
            return Ok(self.flushed);
        }
        if done.reach != Reach::FilesOnly {
            self.flushed = self.flushed.max(done.upto);
        }
        if done.reach == Reach::Journal {
            // The segment file is behind, and so are index entries: they speak of the file.
            self.assert_sane();
            return Ok(self.flushed);
        }
        self.manifest_durable = self.manifest_durable.max(done.manifest);
        self.epochs_durable = self.epochs_durable.max(done.epochs);
        self.unsynced_indexes
            .retain(|(number, _)| *number >= done.indexes_below);
        for tail in &mut self.sealing {
            if tail.next <= done.upto {
                tail.flushed = tail.end;
            } else if tail.segment.id == done.segment_id {
                tail.flushed = tail.flushed.max(done.position);
            }
        }
        if self.tail.segment.id == done.segment_id {
            self.tail.flushed = self.tail.flushed.max(done.position);
        }
        self.write_due_indexes()?;
        self.settle_change();
        self.assert_sane();
        Ok(self.flushed)
    }

    fn write_due_indexes(&mut self) -> Result<(), LogError> {
        let written = self.finish_sealed().and_then(|()| {
            if self.tail.index_write_is_due() {
                self.tail.write_index()
            } else {
                Ok(())
            }
        });
        match written {
            Ok(()) => Ok(()),
            // They can wait: readers have the entries in memory, and recovery starts a bit earlier.
            Err(error) if error.is_no_space() => Ok(()),
            Err(error) => Err(self.latch(error)),
        }
    }

    /// Completes the index files of sealed segments that are flushed.
    fn finish_sealed(&mut self) -> Result<(), VfsError> {
        while let Some(tail) = self.sealing.first_mut() {
            if tail.flushed < tail.end {
                break;
            }
            tail.write_index()?;
            let tail = self.sealing.remove(0);
            tail.segment.index_is_on_disk();
            self.unsynced_indexes
                .push((self.next_index_number, tail.segment));
            self.next_index_number += 1;
        }
        Ok(())
    }

    /// Accounts for a flush that failed: the log refuses every change from now on, unless only space for a
    /// small file was missing ([`FlushError::retry`]).
    pub fn flush_failed(&mut self, error: &FlushError) {
        if !error.retry {
            self.failed.get_or_insert_with(|| error.to_string().into());
        }
    }

    /// Flushes here and now. Blocks. Returns the flushed cursor, which is the log's end.
    ///
    /// # Errors
    /// [`LogError::NoSpace`] when a small file found no space; else the log is latched.
    pub fn flush_now(&mut self) -> Result<Offset, LogError> {
        self.check_usable()?;
        let Some(target) = self.flush_target() else {
            return Ok(self.flushed);
        };
        match target.run() {
            Ok(done) => self.flush_done(&done),
            Err(error) => {
                self.flush_failed(&error);
                let FlushError { error, retry } = error;
                Err(if retry {
                    LogError::NoSpace(error)
                } else {
                    LogError::Io(error)
                })
            }
        }
    }

    /// Writes index entries for all that is flushed, so that recovery would start there.
    ///
    /// # Errors
    /// As [`Log::flush_done`].
    pub fn flush_index(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        if self.tail.flushed == self.tail.end {
            self.tail.close_run_and_show();
        }
        match self.finish_sealed().and_then(|()| self.tail.write_index()) {
            Ok(()) => Ok(()),
            Err(error) if error.is_no_space() => Ok(()),
            Err(error) => Err(self.latch(error)),
        }
    }

    /// A cursor after a truncation can only move back.
    pub(crate) fn clamp_flushed(&mut self) {
        self.flushed = self.flushed.min(self.tail.next);
    }

    /// Nothing before `offset` waits for a flush any more.
    pub(crate) fn count_as_flushed(&mut self, offset: Offset) {
        self.flushed = self.flushed.max(offset);
    }

    /// The log starts anew at its end: nothing is unflushed.
    pub(crate) fn set_flushed_to_end(&mut self) {
        self.flushed = self.tail.next;
    }

    /// Forgets index files that wait for a sync, of segments at or past `base`.
    pub(crate) fn forget_indexes_from(&mut self, base: Offset) {
        self.unsynced_indexes.retain(|(_, s)| s.base < base);
    }
}

fn remove_files(segment: &Segment) -> Result<(), VfsError> {
    for kind in Kind::ALL {
        match segment.home.vfs.remove_file(&segment.path(kind)) {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
