//! Opening a log: from a directory as a crash may have left it to a log whose every byte is accounted for.
//!
//! Order matters and is safe to interrupt anywhere: first everything is looked at and decided, and a refusal
//! changes nothing; then each segment is settled; then the manifest is committed; leftovers are unlinked last,
//! by the caller. Doing it again after a crash in between comes to the same result.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use varve_record::check_stored;
use varve_types::{LeaderEpoch, Offset, limits};
use varve_vfs::{DirEntry, VfsError, durable};

use super::epochs::{KnownEpochs, derive_epochs, stored_epochs};
use super::foreign;
use super::leftovers::{leftovers_of, retire};
use super::segment::{
    Examined, examine, last_entry_if_complete, read_index, replace_time_index, rewrite_and_sync,
    time_index_ends_right, time_index_matches,
};
use super::{
    Decision, DirDecision, Facts, IndexFact, ManifestFact, Plan, Reason, Recovery, Role,
    UnlistedDecision, UnlistedFact, decide, decide_dir, decide_unlisted, plan,
};
use crate::config::{LogConfig, OpenMode};
use crate::epoch_index::EpochIndex;
use crate::error::{Corruption, LogError};
use crate::flush::Removal;
use crate::format::{
    CompactedSegment, Companion, FormatError, INDEX_MAGIC, ListedSegment, LogIdentity, Manifest,
    SegmentHeader, encode_epochs,
};
use crate::journal::Replayed;
use crate::read_view::{ReadView, Sealed};
use crate::segment::{EPOCHS, Home, Kind, MANIFEST, Segment, parse_name};
use crate::snapshot;
use crate::tail::Tail;

/// A log's parts after recovery.
pub(crate) struct Opened {
    pub(crate) home: Arc<Home>,
    pub(crate) log_start: Offset,
    /// Compaction is done below this offset.
    pub(crate) clean_upto: Offset,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) tail: Tail,
    pub(crate) next_segment_id: u64,
    pub(crate) epochs: EpochIndex,
    pub(crate) recovery: Recovery,
}

/// Refuses: nothing has been changed when this is returned.
pub(super) fn refuse(
    file: &Path,
    position: u64,
    reason: Reason,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> LogError {
    LogError::Corrupt(Box::new(Corruption {
        file: file.to_owned(),
        position,
        expected: expected.into(),
        found: found.into(),
        reason,
    }))
}

/// Opens the log in `home.dir`, or creates it there.
pub(crate) fn open(
    home: &Arc<Home>,
    config: &LogConfig,
    mode: OpenMode,
    now_ms: i64,
    replayed: Replayed,
) -> Result<Opened, LogError> {
    let vfs = &home.vfs;
    if vfs.is_link(&home.dir)? {
        let (expected, found) = ("a directory", "a symbolic link");
        return Err(refuse(&home.dir, 0, Reason::Link, expected, found));
    }
    if !mode.clean || !vfs.exists(&home.dir)? {
        durable::create_dir_all(&**vfs, &home.dir)?;
    }
    let entries = vfs.list(&home.dir)?;
    for entry in &entries {
        let ours = matches!(entry.name.as_str(), MANIFEST | EPOCHS);
        let path = home.dir.join(&entry.name);
        if (ours || parse_name(&entry.name).is_some()) && vfs.is_link(&path)? {
            return Err(refuse(&path, 0, Reason::Link, "a file", "a symbolic link"));
        }
    }
    let path = home.dir.join(MANIFEST);
    let (fact, manifest) = match vfs.read(&path) {
        Err(e) if e.is_not_found() => (ManifestFact::Absent, Err(None)),
        Err(e) => return Err(e.into()),
        Ok(bytes) => match Manifest::decode(&home.identity, &bytes) {
            Ok(manifest) => (ManifestFact::Good, Ok(manifest)),
            Err(e @ FormatError::Foreign { .. }) => (ManifestFact::OtherLog, Err(Some(e))),
            Err(e) => (ManifestFact::Unreadable, Err(Some(e))),
        },
    };
    let is_log = |e: &DirEntry| parse_name(&e.name).is_some_and(|n| n.kind == Kind::Log);
    let has_bytes = entries.iter().any(|e| is_log(e) && e.len > 0);
    match (decide_dir(fact, has_bytes), manifest) {
        (DirDecision::Create, _) => create(home, &entries, now_ms),
        (DirDecision::Open, Ok(manifest)) => {
            Opening::new(home, config, mode, manifest, &entries, replayed).run()
        }
        (decision, manifest) => {
            let reason = match decision {
                DirDecision::Refuse(reason) => reason,
                _ => Reason::ManifestUnreadable,
            };
            let expected = format!("the manifest of {}", home.identity);
            let found = manifest
                .err()
                .flatten()
                .map_or("no file".to_owned(), |e| e.to_string());
            Err(refuse(&path, 0, reason, expected, found))
        }
    }
}

/// A log without records. Whatever else is in the directory is not of this log: a snapshot or an epoch that
/// stayed would be believed once the log is long enough.
fn create(home: &Arc<Home>, found: &[DirEntry], now_ms: i64) -> Result<Opened, LogError> {
    if found.iter().any(|e| e.name == EPOCHS && !e.is_dir) {
        home.vfs.remove_file(&home.dir.join(EPOCHS))?;
    }
    snapshot::remove_after(home, Offset::ZERO)?;
    let header = SegmentHeader {
        segment_id: 0,
        base_offset: Offset::ZERO,
        created_ms: now_ms,
    };
    let tail = Tail::create(home, &header)?;
    let log_start = Offset::ZERO;
    let manifest = Manifest {
        log_start,
        next_segment_id: 1,
        segments: vec![tail.segment.listed()],
        clean_upto: Offset::ZERO,
        epochs: Vec::new(),
    };
    // Syncs the directory, so the segment's files are durable with it.
    commit(home, &manifest)?;
    let names = found.iter().filter(|e| !e.is_dir).map(|e| &*e.name);
    let mut leftovers = Removal::none(&home.vfs);
    leftovers.paths = retire(home, leftovers_of(names, &manifest));
    let recovery = Recovery {
        created: true,
        clean: true,
        decisions: Vec::new(),
        bytes_cut: 0,
        bytes_persisted_again: 0,
        batches_scanned: 0,
        indexes_rebuilt: 0,
        epochs_rebuilt: false,
        leftovers,
        replayed: Replayed::default(),
    };
    Ok(Opened {
        home: home.clone(),
        log_start,
        clean_upto: Offset::ZERO,
        sealed: Vec::new(),
        tail,
        next_segment_id: 1,
        epochs: EpochIndex::default(),
        recovery,
    })
}

/// Makes the manifest durable. For a log that is being opened: nothing else writes it.
fn commit(home: &Home, manifest: &Manifest) -> Result<(), VfsError> {
    let bytes = manifest.encode(&home.identity);
    durable::replace(&*home.vfs, &home.dir.join(MANIFEST), &bytes)
}

/// What was decided about one segment.
enum Verdict {
    Trusted(Sealed),
    Examined(Box<Examined>),
    /// A segment of a compaction that had to be looked at.
    Compacted(Box<Examined>, CompactedSegment),
}

struct Opening<'a> {
    home: &'a Arc<Home>,
    config: &'a LogConfig,
    mode: OpenMode,
    manifest: Manifest,
    /// Lengths of all files, by name.
    files: BTreeMap<String, u64>,
    recovery: Recovery,
    /// First offsets of the epochs met in what was scanned.
    scanned_epochs: Vec<(LeaderEpoch, Offset)>,
}

impl<'a> Opening<'a> {
    fn new(
        home: &'a Arc<Home>,
        config: &'a LogConfig,
        mode: OpenMode,
        manifest: Manifest,
        entries: &[DirEntry],
        replayed: Replayed,
    ) -> Self {
        let files = entries
            .iter()
            .filter(|e| !e.is_dir)
            .map(|e| (e.name.clone(), e.len))
            .collect();
        let recovery = Recovery {
            created: false,
            clean: mode.clean,
            decisions: Vec::new(),
            bytes_cut: 0,
            bytes_persisted_again: 0,
            batches_scanned: 0,
            indexes_rebuilt: 0,
            epochs_rebuilt: false,
            leftovers: Removal::none(&home.vfs),
            replayed,
        };
        let scanned_epochs = Vec::new();
        Self {
            home,
            config,
            mode,
            manifest,
            files,
            recovery,
            scanned_epochs,
        }
    }

    fn run(mut self) -> Result<Opened, LogError> {
        let candidates = self.unlisted()?;
        let (mut verdicts, swept) = self.judge(&candidates)?;
        self.check_log_start(verdicts.last())?;
        // Reading batches for the epochs may find damage too: before anything is changed.
        let mut epochs = self.epochs_before(&verdicts)?;
        let last = match verdicts.pop() {
            Some(Verdict::Examined(examined)) => *examined,
            _ => unreachable!("the last segment is always examined"),
        };
        self.note_epochs(&mut epochs, &verdicts, &last)?;
        self.sync_headers(&verdicts, &last)?;
        let sealed = self.settle_sealed(verdicts)?;
        let tail = self.settle(last)?;
        self.finish(sealed, tail, &swept, epochs)
    }

    /// Records are deleted from the front only after they were flushed.
    fn check_log_start(&self, last: Option<&Verdict>) -> Result<(), LogError> {
        let start = self.manifest.log_start;
        match last {
            Some(Verdict::Examined(e)) if e.tail.next < start => {
                let path = e.tail.segment.path(Kind::Log);
                let expected = format!("records up to offset {start}, the log start");
                let found = format!("records up to offset {}", e.tail.next);
                Err(refuse(
                    &path,
                    e.tail.end,
                    Reason::BytesMissing,
                    expected,
                    found,
                ))
            }
            _ => Ok(()),
        }
    }

    /// Length of the `.log` file of a segment that no compaction wrote.
    fn log_len(&self, base: Offset) -> Option<u64> {
        self.len_of(&self.home.segment_path(base, Kind::Log))
    }

    fn len_of(&self, path: &Path) -> Option<u64> {
        self.files.get(path.file_name()?.to_str()?).copied()
    }

    fn foreign(&self, path: &Path, found: &LogIdentity) -> LogError {
        let expected = format!("a segment of {}", self.home.identity);
        let found = format!("one of {found}");
        refuse(path, 0, Reason::ForeignSegment, expected, found)
    }

    /// Segments that the manifest does not list and that may continue the log, by base offset.
    fn unlisted(&mut self) -> Result<Vec<SegmentHeader>, LogError> {
        let mut found = Vec::new();
        for name in self.files.keys().filter_map(|name| parse_name(name)) {
            let base = name.base;
            let same = |s: &ListedSegment| s.base == base && s.compacted.is_none();
            // What a compaction wrote is part of the log only if the manifest says so.
            let plain = name.kind == Kind::Log && name.compacted.is_none();
            if !plain || self.manifest.segments.iter().any(same) {
                continue;
            }
            let path = self.home.segment_path(base, Kind::Index);
            let header = match self.home.vfs.read(&path) {
                Ok(bytes) => {
                    match SegmentHeader::decode(INDEX_MAGIC, &self.home.identity, &bytes) {
                        // Sweeping it would delete somebody else's records.
                        Err(FormatError::Foreign { found }) => {
                            return Err(self.foreign(&path, &found));
                        }
                        decoded => decoded.ok(),
                    }
                }
                Err(e) if e.is_not_found() => None,
                Err(e) => return Err(e.into()),
            };
            let fact = match &header {
                Some(h) if h.base_offset != base => UnlistedFact::Unreadable,
                Some(h) if h.segment_id >= self.manifest.next_segment_id => UnlistedFact::Newer,
                Some(_) => UnlistedFact::Older,
                None => UnlistedFact::Unreadable,
            };
            if let (UnlistedDecision::Consider, Some(header)) = (decide_unlisted(fact), header) {
                found.push(header);
            } else if fact == UnlistedFact::Unreadable {
                self.recovery.bytes_cut += self.log_len(base).unwrap_or(0);
            }
        }
        found.sort_by_key(|h| h.base_offset);
        Ok(found)
    }

    /// Decides about every segment. Changes nothing but index files, which can be derived. Returns the
    /// verdicts in order and the candidates that are not part of the log.
    fn judge(
        &mut self,
        candidates: &[SegmentHeader],
    ) -> Result<(Vec<Verdict>, Vec<SegmentHeader>), LogError> {
        let mut verdicts: Vec<Verdict> = Vec::new();
        let listed = self.manifest.segments.clone();
        for (i, segment) in listed.iter().enumerate() {
            let header = SegmentHeader {
                segment_id: segment.id,
                base_offset: segment.base,
                created_ms: segment.created_ms,
            };
            verdicts.push(match (listed.get(i + 1), segment.compacted) {
                (_, Some(compacted)) => self.judge_compacted(&header, compacted)?,
                (Some(next), None) => self.judge_sealed(&header, next.base)?,
                (None, None) => self.judge_growing(&header, Role::Last, candidates)?,
            });
        }
        for (i, header) in candidates.iter().enumerate() {
            let end = match verdicts.last() {
                Some(Verdict::Examined(e)) => e.tail.next,
                _ => unreachable!("the last segment is always examined"),
            };
            if header.base_offset != end {
                return Ok((verdicts, candidates[i..].to_vec()));
            }
            verdicts.push(self.judge_growing(header, Role::Unlisted, &candidates[i + 1..])?);
        }
        Ok((verdicts, Vec::new()))
    }

    fn judge_sealed(&mut self, header: &SegmentHeader, next: Offset) -> Result<Verdict, LogError> {
        let segment = Arc::new(Segment::new(self.home, header, None));
        let len = self.log_len(header.base_offset);
        if let Some(len) = len
            && let Some(last) = last_entry_if_complete(&segment, len, next)?
            && plan(Role::Sealed, true, IndexFact::Reaches) == Plan::Trust
            && self.whole_indexes(&segment, &last)?
            && foreign::begins_right(&segment, len)?
        {
            let max_timestamp = last.max_timestamp;
            let sealed = Sealed {
                segment,
                end: next,
                size: len,
                max_timestamp,
                generation: 0,
                horizon_ms: i64::MAX,
            };
            return Ok(Verdict::Trusted(sealed));
        }
        let len = self.log_len(header.base_offset);
        let examined = self.look(&segment, Role::Sealed, len)?;
        let meets_next = examined.tail.next == next;
        self.verdict(examined, Role::Sealed, meets_next, &[])
    }

    /// A segment that a compaction wrote. It was synced, index and all, before the manifest listed it. Its
    /// file is longer than the manifest says when a truncation was interrupted, and is cut then.
    fn judge_compacted(
        &mut self,
        header: &SegmentHeader,
        listed: CompactedSegment,
    ) -> Result<Verdict, LogError> {
        let segment = Arc::new(Segment::new_compacted(self.home, header, None));
        let CompactedSegment { end, size, .. } = listed;
        let len = self.len_of(&segment.path(Kind::Log));
        if len == Some(size) {
            let last = last_entry_if_complete(&segment, size, end)?;
            let whole = match &last {
                Some(last) => {
                    self.whole_indexes(&segment, last)? && foreign::begins_right(&segment, size)?
                }
                None => size == 0,
            };
            if whole {
                let sealed = Sealed {
                    segment,
                    end,
                    size,
                    max_timestamp: last.map_or(i64::MIN, |l| l.max_timestamp),
                    generation: 0,
                    horizon_ms: listed.horizon_ms,
                };
                return Ok(Verdict::Trusted(sealed));
            }
        }
        if let Some(len) = len
            && len < size
        {
            let (expected, found) = (format!("a file of {size} bytes"), format!("{len} bytes"));
            let (path, reason) = (segment.path(Kind::Log), Reason::BytesMissing);
            return Err(refuse(&path, len, reason, expected, found));
        }
        let mut examined = self.look(&segment, Role::Sealed, len.map(|_| size))?;
        examined.log_len = len.unwrap_or(size);
        let meets_next = examined.tail.end == size && examined.tail.next <= end;
        let Verdict::Examined(examined) = self.verdict(examined, Role::Sealed, meets_next, &[])?
        else {
            unreachable!("an unread segment is not trusted")
        };
        Ok(Verdict::Compacted(examined, listed))
    }

    /// Whether the index of a sealed segment can be used as it is. Its last entries are synced by the flush
    /// after the one that completed the segment, so a power cut may leave holes. Builds a time index
    /// that is not right anew.
    fn whole_indexes(&mut self, segment: &Segment, last: &Companion) -> Result<bool, LogError> {
        let times_right = time_index_ends_right(segment, last)?;
        if self.mode.clean && times_right {
            return Ok(true);
        }
        let seen = read_index(segment, last.end)?;
        if !seen.exact || seen.fact != IndexFact::Reaches {
            return Ok(false);
        }
        // A power cut may leave holes anywhere in it.
        if !times_right || !time_index_matches(self.home, segment, &seen.entries)? {
            replace_time_index(self.home, segment, &seen.entries)?;
            self.recovery.indexes_rebuilt += 1;
        }
        Ok(true)
    }

    fn judge_growing(
        &mut self,
        header: &SegmentHeader,
        role: Role,
        behind: &[SegmentHeader],
    ) -> Result<Verdict, LogError> {
        let segment = Arc::new(Segment::new(self.home, header, None));
        let examined = self.look(&segment, role, self.log_len(segment.base))?;
        // A segment that was begun and got no batch says nothing.
        let behind = if self.never_acknowledged(&examined) {
            &[]
        } else {
            behind
        };
        let next = self.first_with_batch(behind)?;
        let meets_next = next.is_none_or(|h| h.base_offset == examined.tail.next);
        self.verdict(examined, role, meets_next, behind)
    }

    /// The first candidate that begins with a good batch.
    fn first_with_batch<'h>(
        &self,
        candidates: &'h [SegmentHeader],
    ) -> Result<Option<&'h SegmentHeader>, LogError> {
        for header in candidates {
            let file = self
                .home
                .vfs
                .open_read(&self.home.segment_path(header.base_offset, Kind::Log))?;
            let mut bytes = Vec::new();
            file.read_into(0, limits::BATCH_MAX_BYTES, &mut bytes)?;
            if check_stored(&bytes).is_ok_and(|h| h.base_offset == header.base_offset) {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Looks at the first `len` bytes of a segment; `None` when it has no file.
    fn look(
        &mut self,
        segment: &Arc<Segment>,
        role: Role,
        len: Option<u64>,
    ) -> Result<Examined, LogError> {
        let seen = read_index(segment, len.unwrap_or(u64::MAX))?;
        let planned = plan(role, len.is_some(), seen.fact);
        let (Some(len), Plan::VerifyTail | Plan::ScanAll | Plan::Trust) = (len, planned) else {
            let path = segment.path(Kind::Log);
            let Plan::Refuse(reason) = planned else {
                unreachable!("only a refusal is left")
            };
            let found = len.map_or("no file".to_owned(), |len| format!("{len} bytes"));
            let expected = format!("a file of at least {} bytes", seen.checkpoint);
            return Err(refuse(&path, len.unwrap_or(0), reason, expected, found));
        };
        let file = segment.open_for_write()?;
        let whole = planned == Plan::ScanAll;
        if whole {
            let path = segment.path(Kind::Index);
            let index = match self.home.vfs.read(&path) {
                Err(e) if e.is_not_found() => Vec::new(),
                read => read?,
            };
            if let Some((identity, _)) = foreign::owner(&index, &file, len)? {
                return Err(self.foreign(&segment.path(Kind::Log), &identity));
            }
        }
        let interval = self.config.index_interval_bytes;
        let examined = examine(segment, file, len, seen, whole, interval)?;
        self.recovery.batches_scanned += examined.batches;
        Ok(examined)
    }

    fn verdict(
        &mut self,
        examined: Examined,
        role: Role,
        meets_next: bool,
        behind: &[SegmentHeader],
    ) -> Result<Verdict, LogError> {
        let damage = examined.damage_fact();
        let batch_behind = self.first_with_batch(behind)?.is_some()
            || (!self.never_acknowledged(&examined) && examined.batch_behind()?);
        let clean = self.mode.clean;
        let decision = decide(&Facts {
            role,
            damage,
            batch_behind,
            clean,
            meets_next,
        });
        let segment = &examined.tail.segment;
        self.recovery.decisions.push((segment.base, decision));
        if let Decision::Refuse(reason) = decision {
            let path = segment.path(Kind::Log);
            let end = examined.tail.next;
            let error = match examined.damage {
                Some(d) => refuse(&path, d.position, reason, d.expected, d.found),
                None => {
                    let expected = "the segment to end where the next one starts";
                    let found = format!("it ends at offset {end}");
                    refuse(&path, examined.tail.end, reason, expected, found)
                }
            };
            return Err(error);
        }
        Ok(Verdict::Examined(Box::new(examined)))
    }

    /// Whether the journal says that no acknowledgement came past the good bytes of this segment. Then it does
    /// not matter what is behind them.
    fn never_acknowledged(&self, examined: &Examined) -> bool {
        let tail = &examined.tail;
        let exact = self.recovery.replayed.acknowledged;
        // A segment begun after the last flush that listed one has nothing that was acknowledged.
        !tail.segment.compacted && exact.is_some_and(|exact| (tail.segment.id, tail.end) >= exact)
    }

    fn settle(&mut self, mut examined: Examined) -> Result<Tail, LogError> {
        self.scanned_epochs.append(&mut examined.epochs);
        if !examined.tail.segment.compacted {
            self.recovery.bytes_cut += examined.log_len - examined.tail.end;
        }
        let (tail, rewritten, rebuilt) = examined.settle(self.mode.clean)?;
        self.recovery.bytes_persisted_again += rewritten;
        self.recovery.indexes_rebuilt += rebuilt;
        Ok(tail)
    }

    fn settle_sealed(&mut self, verdicts: Vec<Verdict>) -> Result<Vec<Sealed>, LogError> {
        let mut sealed = Vec::new();
        for verdict in verdicts {
            sealed.push(match verdict {
                Verdict::Trusted(sealed) => sealed,
                Verdict::Examined(examined) => seal(&self.settle_one(*examined)?),
                Verdict::Compacted(examined, listed) => Sealed {
                    end: listed.end,
                    horizon_ms: listed.horizon_ms,
                    ..seal(&self.settle_one(*examined)?)
                },
            });
        }
        Ok(sealed)
    }

    fn settle_one(&mut self, examined: Examined) -> Result<Tail, LogError> {
        let mut tail = self.settle(examined)?;
        tail.close_run();
        tail.write_index()?;
        tail.segment.index_is_on_disk();
        tail.segment.release();
        Ok(tail)
    }

    fn finish(
        mut self,
        sealed: Vec<Sealed>,
        tail: Tail,
        swept: &[SegmentHeader],
        epochs: KnownEpochs,
    ) -> Result<Opened, LogError> {
        self.recovery.bytes_cut += swept
            .iter()
            .filter_map(|h| self.log_len(h.base_offset))
            .sum::<u64>();
        let log_end = tail.next;
        let first = sealed.first().map_or(tail.segment.base, |s| s.segment.base);
        let log_start = self.manifest.log_start.max(first).min(log_end);
        let segments: Vec<ListedSegment> = sealed
            .iter()
            .map(Sealed::listed)
            .chain(std::iter::once(tail.segment.listed()))
            .collect();
        let next_id = swept
            .iter()
            .map(|h| h.segment_id)
            .chain(segments.iter().map(|s| s.id))
            .max();
        let next_segment_id = self
            .manifest
            .next_segment_id
            .max(next_id.map_or(0, |id| id + 1));
        let manifest = Manifest {
            log_start,
            next_segment_id,
            segments,
            clean_upto: self.manifest.clean_upto.min(log_end),
            epochs: self.manifest.epochs.clone(),
        };
        if manifest != self.manifest {
            commit(self.home, &manifest)?;
        } else if !self.mode.clean {
            // The process before may have died between a rename and the sync of the directory: what the
            // names say now counts only when it is durable.
            self.home.vfs.sync_dir(&self.home.dir)?;
        }
        let epochs = self.epochs(epochs, &tail)?;
        snapshot::remove_after(self.home, log_end)?;
        let names = self.files.keys().map(|name| &**name);
        self.recovery.leftovers.paths = retire(self.home, leftovers_of(names, &manifest));
        Ok(Opened {
            home: self.home.clone(),
            log_start,
            clean_upto: manifest.clean_upto,
            sealed,
            tail,
            next_segment_id,
            epochs,
            recovery: self.recovery,
        })
    }

    /// A segment that no manifest lists is known by its index header alone: that is durable before the
    /// segment's bytes are.
    fn sync_headers(&self, verdicts: &[Verdict], last: &Examined) -> Result<(), VfsError> {
        let listed = |id: u64| self.manifest.segments.iter().any(|s| s.id == id);
        for e in examined_of(verdicts)
            .chain([last])
            .filter(|e| !listed(e.tail.segment.id))
        {
            let index = self
                .home
                .vfs
                .open_write(&e.tail.segment.path(Kind::Index))?;
            rewrite_and_sync(&index)?;
        }
        Ok(())
    }

    /// Brings a good epoch file up to what was scanned before anything says that these batches need no scan
    /// any more. A recovery after this one would otherwise believe the file and look no further.
    fn note_epochs(
        &mut self,
        known: &mut KnownEpochs,
        verdicts: &[Verdict],
        last: &Examined,
    ) -> Result<(), LogError> {
        let KnownEpochs::Stored(stored) = known else {
            return Ok(());
        };
        let mut entries = stored.clone();
        entries.retain(|(_, start)| *start <= last.tail.next);
        let mut epochs = EpochIndex::new(entries);
        for (epoch, start) in examined_of(verdicts).chain([last]).flat_map(|e| &e.epochs) {
            epochs.begin(*epoch, *start);
        }
        epochs.trim(self.manifest.log_start);
        if stored != epochs.entries() {
            self.recovery.epochs_rebuilt = true;
            let bytes = encode_epochs(&self.home.identity, epochs.entries());
            durable::replace(&*self.home.vfs, &self.home.dir.join(EPOCHS), &bytes)?;
            *stored = epochs.entries().to_vec();
        }
        Ok(())
    }

    /// The epoch file, or, without a good one, what the batches of all segments say.
    fn epochs_before(&self, verdicts: &[Verdict]) -> Result<KnownEpochs, LogError> {
        if let Some(stored) = stored_epochs(self.home)? {
            return Ok(KnownEpochs::Stored(stored));
        }
        let parts: Vec<Sealed> = verdicts
            .iter()
            .map(|verdict| match verdict {
                Verdict::Trusted(sealed) => sealed.clone(),
                Verdict::Examined(examined) | Verdict::Compacted(examined, _) => {
                    seal(&examined.tail)
                }
            })
            .collect();
        derive_epochs(self.manifest.epochs.clone(), &parts).map(KnownEpochs::Derived)
    }

    /// What is known of the epochs, made to agree with the log's end.
    fn epochs(&mut self, known: KnownEpochs, tail: &Tail) -> Result<EpochIndex, LogError> {
        let path = self.home.dir.join(EPOCHS);
        // A flush writes the file before index entries, so a good one knows all that was not scanned.
        let (stored, from_batches) = match known {
            KnownEpochs::Stored(stored) => (Some(stored), std::mem::take(&mut self.scanned_epochs)),
            KnownEpochs::Derived(derived) => (None, derived),
        };
        let mut entries = stored.clone().unwrap_or_default();
        entries.retain(|(_, start)| *start <= tail.next);
        let mut epochs = EpochIndex::new(entries);
        for (epoch, start) in from_batches {
            epochs.begin(epoch, start);
        }
        epochs.trim(self.manifest.log_start);
        if stored.as_deref().unwrap_or_default() != epochs.entries() {
            self.recovery.epochs_rebuilt = true;
            let bytes = encode_epochs(&self.home.identity, epochs.entries());
            durable::replace(&*self.home.vfs, &path, &bytes)?;
        }
        Ok(epochs)
    }
}

/// The segments that were looked at.
fn examined_of(verdicts: &[Verdict]) -> impl Iterator<Item = &Examined> {
    verdicts.iter().filter_map(|v| match v {
        Verdict::Examined(e) | Verdict::Compacted(e, _) => Some(&**e),
        Verdict::Trusted(_) => None,
    })
}

/// What a tail becomes when it is sealed.
pub(crate) fn seal(tail: &Tail) -> Sealed {
    Sealed {
        segment: tail.segment.clone(),
        end: tail.next,
        size: tail.end,
        max_timestamp: tail.max_timestamp,
        generation: tail.segment.generation(),
        horizon_ms: i64::MAX,
    }
}

/// A view of the log as opened.
pub(crate) fn view(
    log_start: Offset,
    sealed: &Arc<Vec<Sealed>>,
    tail: &Tail,
    epochs: &EpochIndex,
) -> ReadView {
    ReadView {
        log_start,
        epochs: epochs.clone(),
        sealed: sealed.clone(),
        active: seal(tail),
        open_run: tail.run.map(|run| (run.first, run.position)),
    }
}
