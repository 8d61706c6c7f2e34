//! Opening a log: from a directory as a crash may have left it to a log whose every byte is accounted for.
//!
//! Order matters and is safe to interrupt anywhere: first everything is looked at and decided, and a refusal
//! changes nothing; then each segment is settled; then the manifest is committed; leftovers are unlinked last,
//! by the caller. Doing it again after a crash in between comes to the same result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_record::check_stored;
use varve_types::{LeaderEpoch, Offset, limits};
use varve_vfs::{DirEntry, Vfs, VfsError, durable};

use super::segment::{
    Examined, examine, last_entry_if_complete, read_index, replace_time_index,
    time_index_ends_right,
};
use super::{
    Decision, DirDecision, Facts, IndexFact, ManifestFact, Plan, Reason, Recovery, Role,
    UnlistedDecision, UnlistedFact, decide, decide_dir, decide_unlisted, plan,
};
use crate::config::{LogConfig, OpenMode};
use crate::epoch_index::EpochIndex;
use crate::error::{Corruption, LogError, ReadError};
use crate::flush::Removal;
use crate::format::{
    CompactedSegment, Companion, FormatError, INDEX_MAGIC, ListedSegment, Manifest, SegmentHeader,
    decode_epochs, encode_epochs,
};
use crate::read_view::{HeaderScan, ReadView, Sealed};
use crate::segment::{
    DELETED_SUFFIX, EPOCHS, Home, Kind, MANIFEST, Segment, SegmentName, parse_name,
};
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
fn refuse(
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
) -> Result<Opened, LogError> {
    let vfs = &home.vfs;
    durable::create_dir_all(&**vfs, &home.dir)?;
    let entries = vfs.list(&home.dir)?;
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
        (DirDecision::Create, _) => create(home, now_ms),
        (DirDecision::Open, Ok(manifest)) => {
            Opening::new(home, config, mode, manifest, &entries).run()
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

/// A log without records.
fn create(home: &Arc<Home>, now_ms: i64) -> Result<Opened, LogError> {
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
    let recovery = Recovery {
        created: true,
        clean: true,
        decisions: Vec::new(),
        bytes_cut: 0,
        bytes_persisted_again: 0,
        batches_scanned: 0,
        indexes_rebuilt: 0,
        epochs_rebuilt: false,
        leftovers: Removal::none(&home.vfs),
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
        let last = match verdicts.pop() {
            Some(Verdict::Examined(examined)) => *examined,
            _ => unreachable!("the last segment is always examined"),
        };
        let sealed = self.settle_sealed(verdicts)?;
        let tail = self.settle(last)?;
        self.finish(sealed, tail, &swept)
    }

    /// Records are deleted from the front only after they were flushed.
    fn check_log_start(&self, last: Option<&Verdict>) -> Result<(), LogError> {
        let start = self.manifest.log_start;
        match last {
            Some(Verdict::Examined(e)) if e.tail.next < start => {
                let path = e.tail.segment.path(Kind::Log);
                let expected = format!("records up to offset {start}, where the log starts");
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
                Ok(bytes) => SegmentHeader::decode(INDEX_MAGIC, &self.home.identity, &bytes).ok(),
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
                Some(last) => self.whole_indexes(&segment, last)?,
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
            unreachable!("a look is no trust")
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
        if !times_right {
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
        let batch_behind = self.first_with_batch(behind)?.is_some() || examined.batch_behind()?;
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
                    let expected = "the segment to end where the next one begins";
                    let found = format!("it ends at offset {end}");
                    refuse(&path, examined.tail.end, reason, expected, found)
                }
            };
            return Err(error);
        }
        Ok(Verdict::Examined(Box::new(examined)))
    }

    fn settle(&mut self, mut examined: Examined) -> Result<Tail, LogError> {
        self.scanned_epochs.append(&mut examined.epochs);
        if !examined.tail.segment.compacted {
            self.recovery.bytes_cut += examined.log_len - examined.tail.end;
        }
        let (tail, rewritten, rebuilt) = examined.settle()?;
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
        }
        let epochs = self.epochs(&sealed, &tail)?;
        snapshot::remove_after(self.home, log_end)?;
        self.collect_leftovers(&manifest);
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

    /// The epoch file, or what the batches say, made to agree with the log's end.
    fn epochs(&mut self, sealed: &[Sealed], tail: &Tail) -> Result<EpochIndex, LogError> {
        let path = self.home.dir.join(EPOCHS);
        let stored = match self.home.vfs.read(&path) {
            Ok(bytes) => decode_epochs(&self.home.identity, &bytes).ok(),
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e.into()),
        };
        // A flush writes the file before index entries, so a good one knows all that was not scanned.
        let from_batches = match &stored {
            Some(_) => std::mem::take(&mut self.scanned_epochs),
            None => derive_epochs(self.manifest.epochs.clone(), sealed, tail)?,
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

    /// Files that are neither listed nor ours to keep.
    fn collect_leftovers(&mut self, manifest: &Manifest) {
        let listed = |name: SegmentName| {
            manifest.segments.iter().any(|s| {
                let id = s.compacted.map(|_| s.id);
                (s.base, id) == (name.base, name.compacted)
            })
        };
        let mut paths: Vec<PathBuf> = Vec::new();
        for name in self.files.keys() {
            let leftover = match parse_name(name) {
                Some(name) => !listed(name),
                None => name.ends_with(DELETED_SUFFIX) || name.ends_with(durable::TEMP_SUFFIX),
            };
            if leftover {
                paths.push(self.home.dir.join(name));
            }
        }
        self.recovery.leftovers.paths = retire(&*self.home.vfs, paths);
    }
}

/// Gives leftovers names that no new file will get, so that unlinking them can wait.
fn retire(vfs: &dyn Vfs, paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut retired = Vec::new();
    for (i, path) in paths.into_iter().enumerate() {
        if path.to_string_lossy().ends_with(DELETED_SUFFIX) {
            retired.push(path);
            continue;
        }
        let mut name = path.clone().into_os_string();
        name.push(format!(".left{i}{DELETED_SUFFIX}"));
        let to = PathBuf::from(name);
        if vfs.rename(&path, &to).is_ok() {
            retired.push(to);
        }
    }
    retired
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

/// The first offset of each epoch, from the batches, and from the manifest for those in compacted segments:
/// there the first batch of an epoch may be gone. Runs whose largest epoch is not new are skipped by
/// their index entry, so that only the batches at a change of leader are read.
fn derive_epochs(
    mut epochs: Vec<(LeaderEpoch, Offset)>,
    sealed: &[Sealed],
    tail: &Tail,
) -> Result<Vec<(LeaderEpoch, Offset)>, LogError> {
    let active = seal(tail);
    let plain = sealed.iter().filter(|s| !s.segment.compacted);
    for part in plain.chain(std::iter::once(&active)) {
        let seen = read_index(&part.segment, part.size)?;
        let file = part.segment.log_file()?;
        let mut scan = HeaderScan::new(file, part.size);
        let mut position = 0;
        let mut runs = seen.entries.iter().peekable();
        while position < part.size {
            let newest = epochs.last().map(|(epoch, _)| *epoch);
            while runs.next_if(|r| r.position < position).is_some() {}
            if let Some(run) = runs.next_if(|r| r.position == position)
                && Some(run.max_epoch) == newest
            {
                position = run.end;
                continue;
            }
            let header = scan.header_at(position).map_err(|e| match e {
                ReadError::Io(e) => LogError::Io(e),
                e => {
                    let path = part.segment.path(Kind::Log);
                    let reason = Reason::BelowCheckpoint;
                    refuse(&path, position, reason, "a batch header", e.to_string())
                }
            })?;
            if newest.is_none_or(|newest| header.leader_epoch > newest) {
                epochs.push((header.leader_epoch, header.base_offset));
            }
            position += header.size() as u64;
        }
        if part.segment.id != tail.segment.id {
            part.segment.release();
        }
    }
    Ok(epochs)
}

/// A view of the log as opened.
pub(crate) fn view(log_start: Offset, sealed: &Arc<Vec<Sealed>>, tail: &Tail) -> ReadView {
    ReadView {
        log_start,
        sealed: sealed.clone(),
        active: seal(tail),
        open_run: tail.run.map(|run| (run.first, run.position)),
    }
}
