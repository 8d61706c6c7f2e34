//! A way out for a log that is refused and has no other replica: keep what lies before the first damage, give up
//! the rest. [`plan`] only looks and says exactly what would be given up; [`execute`] builds the kept log beside
//! the damaged one, checks it, and only then puts it in its place. The damaged one is moved aside, whole.
//!
//! Invariants: nothing of the damaged directory is changed but its name; what takes its place was opened, closed
//! and found right; a crash in between leaves the damaged log, or the kept one, under the name.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_types::{LeaderEpoch, Offset};
use varve_vfs::{Vfs, VfsError, durable};

use crate::Log;
use crate::config::{LogConfig, OpenMode};
use crate::epoch_index::EpochIndex;
use crate::error::LogError;
use crate::faults::{index_faults, small_file_fault};
use crate::format::{
    CompactedSegment, Companion, HEADER_BYTES, INDEX_MAGIC, ListedSegment, LogIdentity, Manifest,
    SegmentHeader, chain_start, decode_epochs, encode_epochs, identity_of,
};
use crate::inspect::{Problem, Report, problem};
use crate::segment::{
    EPOCHS, Kind, MANIFEST, intact_companions, parse_name, segment_file_name, segment_stem,
};
use crate::verify::verify;
use crate::walk::{Limits, Seen, Walk};

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Why a repair was not planned or not made.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The disk failed. The damaged log is where it was.
    #[error(transparent)]
    Io(#[from] VfsError),
    /// The kept log cannot be opened, which is a bug of ours. The damaged log is where it was.
    #[error("the repaired log cannot be opened: {0}. The damaged log is still in its place")]
    Open(#[from] LogError),
    /// Not a log, or one that cannot be repaired this way.
    #[error("{}: {what}. Nothing was changed", dir.display())]
    Refused {
        /// The directory.
        dir: PathBuf,
        /// Why.
        what: String,
    },
}

/// A segment that is kept, whole or in part.
#[derive(Debug, Clone)]
struct Kept {
    listed: ListedSegment,
    /// Bytes of the `.log` file that are kept.
    bytes: u64,
    /// Its index files are right and are kept as they are.
    with_indexes: bool,
}

/// What a repair would do.
#[derive(Debug)]
pub struct RepairPlan {
    /// The log's directory.
    pub dir: PathBuf,
    /// Whose log it is.
    pub identity: LogIdentity,
    /// First offset that readers may see afterwards.
    pub log_start: Offset,
    /// The log ends here afterwards: everything from this offset on is given up.
    pub cut_at: Offset,
    /// Batches that are kept.
    pub batches_kept: u64,
    /// Records in them.
    pub records_kept: u64,
    /// Sound records behind the damage that are given up with it.
    pub sound_records_given_up: u64,
    /// Bytes of segment files that are given up, sound or not.
    pub bytes_given_up: u64,
    /// Highest offset (exclusive) that is seen anywhere in the log.
    pub end_seen: Offset,
    /// All damage.
    pub damage: Vec<Problem>,
    kept: Vec<Kept>,
    next_segment_id: u64,
    epochs: Vec<(LeaderEpoch, Offset)>,
    /// What the manifest says of compaction.
    clean_upto: Offset,
    compacted_epochs: Vec<(LeaderEpoch, Offset)>,
}

impl RepairPlan {
    /// There is nothing to repair: the log is not damaged, or only in files that the next start builds anew.
    #[must_use]
    pub const fn is_needless(&self) -> bool {
        self.damage.is_empty()
    }
}

/// What a repair has done.
#[derive(Debug)]
pub struct Repaired {
    /// Where the damaged log is now, whole.
    pub backup: PathBuf,
    /// The check of the kept log.
    pub report: Report,
}

/// Looks at the log in `dir` and says what cutting it at its first damage would give up. Changes nothing.
///
/// # Errors
/// When the directory cannot be read or is no log.
pub fn plan(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<RepairPlan, RepairError> {
    let refused = |what: String| RepairError::Refused {
        dir: dir.to_owned(),
        what,
    };
    for entry in vfs.list(dir)? {
        if vfs.is_link(&dir.join(&entry.name))? {
            return Err(refused(format!("{} is a symbolic link", entry.name)));
        }
    }
    let manifest_bytes = read(vfs, &dir.join(MANIFEST))?;
    let bases = log_files(vfs, dir)?;
    let mut identity = manifest_bytes.as_deref().and_then(identity_of);
    for base in &bases {
        let index = read(vfs, &plain_path(dir, *base, Kind::Index))?.unwrap_or_default();
        identity = identity.or_else(|| index.get(..HEADER_BYTES).and_then(identity_of));
    }
    let Some(identity) = identity else {
        return Err(refused(
            "no file in it identifies the log, so it cannot be repaired".into(),
        ));
    };
    let manifest = manifest_bytes.map(|bytes| Manifest::decode(&identity, &bytes));
    let mut planner = Planner::new(vfs, dir, identity);
    let manifest = match manifest {
        Some(Ok(manifest)) => Some(manifest),
        other => {
            let what = other.map_or("missing".to_owned(), |m| {
                m.err().map_or_else(String::new, |e| e.to_string())
            });
            planner.bad(
                &dir.join(MANIFEST),
                0,
                format!("{what}; it will be rebuilt from the segments"),
            );
            None
        }
    };
    if manifest.is_none() && has_compacted(vfs, dir)? {
        return Err(refused(
            "the manifest is lost, and only the manifest records which compacted segments belong \
             to the log"
                .into(),
        ));
    }
    let epochs = read(vfs, &dir.join(EPOCHS))?
        .and_then(|bytes| decode_epochs(&identity, &bytes).ok())
        .unwrap_or_default();
    planner.epochs = EpochIndex::new(epochs.clone());
    let segments = planner.segments(manifest.as_ref(), &bases)?;
    planner.run(&segments)?;
    let log_start = manifest
        .as_ref()
        .map(|m| m.log_start)
        .or(segments.first().map(|s| s.base))
        .unwrap_or(Offset::ZERO);
    Ok(planner.finish(log_start, manifest.as_ref(), epochs))
}

fn read(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<Option<Vec<u8>>, VfsError> {
    match vfs.read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// A file of a segment that no compaction wrote.
fn plain_path(dir: &Path, base: Offset, kind: Kind) -> PathBuf {
    dir.join(segment_file_name(base, kind))
}

fn segment_path(dir: &Path, segment: &ListedSegment, kind: Kind) -> PathBuf {
    dir.join(format!("{}.{}", segment_stem(segment), kind.extension()))
}

fn has_compacted(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<bool, VfsError> {
    let entries = vfs.list(dir)?;
    let mut named = entries.iter().filter_map(|e| parse_name(&e.name));
    Ok(named.any(|n| n.compacted.is_some()))
}

fn log_files(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<Vec<Offset>, VfsError> {
    let entries = vfs.list(dir)?;
    let logs = entries.iter().filter(|e| !e.is_dir);
    let named = logs.filter_map(|e| parse_name(&e.name));
    let mut bases: Vec<Offset> = named
        .filter(|n| n.kind == Kind::Log && n.compacted.is_none())
        .map(|n| n.base)
        .collect();
    bases.sort();
    Ok(bases)
}

struct Planner<'a> {
    vfs: &'a Arc<dyn Vfs>,
    dir: &'a Path,
    identity: LogIdentity,
    epochs: EpochIndex,
    kept: Vec<Kept>,
    damage: Vec<Problem>,
    /// Where the log ends afterwards, once damage is met.
    cut_at: Option<Offset>,
    next: Offset,
    end_seen: Offset,
    batches: u64,
    records: u64,
    lost_records: u64,
    lost_bytes: u64,
}

impl<'a> Planner<'a> {
    fn new(vfs: &'a Arc<dyn Vfs>, dir: &'a Path, identity: LogIdentity) -> Self {
        Self {
            vfs,
            dir,
            identity,
            epochs: EpochIndex::default(),
            kept: Vec::new(),
            damage: Vec::new(),
            cut_at: None,
            next: Offset::ZERO,
            end_seen: Offset::ZERO,
            batches: 0,
            records: 0,
            lost_records: 0,
            lost_bytes: 0,
        }
    }

    fn bad(&mut self, file: &Path, position: u64, what: impl Into<String>) {
        self.damage.push(problem(file, position, what));
    }

    /// What the log consists of: as the manifest says, and segments begun after it was written; without a
    /// manifest all that is there.
    fn segments(
        &self,
        manifest: Option<&Manifest>,
        bases: &[Offset],
    ) -> Result<Vec<ListedSegment>, VfsError> {
        let mut all = manifest.map_or_else(Vec::new, |m| m.segments.clone());
        for base in bases {
            if all.iter().any(|s| s.base == *base) {
                continue;
            }
            let index = read(self.vfs, &plain_path(self.dir, *base, Kind::Index))?;
            let header = index
                .and_then(|bytes| SegmentHeader::decode(INDEX_MAGIC, &self.identity, &bytes).ok())
                .filter(|h| h.base_offset == *base);
            let known = match (manifest, &header) {
                (Some(m), Some(h)) => h.segment_id >= m.next_segment_id,
                (Some(_), None) => false,
                (None, _) => true,
            };
            if known {
                all.push(ListedSegment {
                    id: header.as_ref().map_or(0, |h| h.segment_id),
                    base: *base,
                    created_ms: header.as_ref().map_or(0, |h| h.created_ms),
                    compacted: None,
                });
            }
        }
        all.sort_by_key(|s| s.base);
        // Without an index a number is lost; any that grows will do.
        let mut least = 0;
        for segment in all.iter_mut().filter(|s| s.compacted.is_none()) {
            segment.id = segment.id.max(least);
            least = segment.id + 1;
        }
        Ok(all)
    }

    fn run(&mut self, segments: &[ListedSegment]) -> Result<(), VfsError> {
        self.next = segments.first().map_or(Offset::ZERO, |s| s.base);
        for segment in segments {
            let path = segment_path(self.dir, segment, Kind::Log);
            let file = match self.vfs.open_read(&path) {
                Ok(file) => Some(file),
                Err(e) if e.is_not_found() => None,
                Err(e) => return Err(e),
            };
            if self.cut_at.is_none() && (file.is_none() || segment.base != self.next) {
                let what = match file {
                    None => "the segment is missing".to_owned(),
                    Some(_) => format!("the segment before ends at offset {}", self.next),
                };
                self.bad(&path, 0, what);
                self.cut_at = Some(self.next);
            }
            if let Some(file) = file {
                self.segment(segment, file)?;
            }
        }
        Ok(())
    }

    fn segment(
        &mut self,
        segment: &ListedSegment,
        file: Arc<dyn varve_vfs::File>,
    ) -> Result<(), VfsError> {
        let path = segment_path(self.dir, segment, Kind::Index);
        let index = read(self.vfs, &path)?.unwrap_or_default();
        let (identity, id) = (&self.identity, Some(segment.id));
        let faults = index_faults(Kind::Index, &path, identity, segment.base, id, &index);
        let header = SegmentHeader::decode(INDEX_MAGIC, identity, &index).ok();
        let header = header.filter(|h| h.base_offset == segment.base);
        let chain = header.map(|h| chain_start(identity, h.segment_id, h.base_offset));
        let mut runs: Vec<Companion> = header.map_or_else(Vec::new, |h| {
            intact_companions(&index, h.segment_id)
                .map(|(_, c)| c)
                .collect()
        });
        let len = file.len()?;
        let size = segment.compacted.map_or(len, |c| c.size);
        if segment.compacted.is_some() {
            // What is behind was cut.
            runs.retain(|c| c.end <= size);
        }
        let limits = Limits {
            size,
            end: segment.compacted.map(|c| c.end),
            gaps: segment.compacted.is_some(),
            upto: None,
            past_cache: false,
            learn_epochs: true,
        };
        let mut walk = Walk::new(file, segment.base, chain, runs, self.epochs.clone(), limits);
        // Position and offset up to which everything is sound.
        let mut sound = (0, segment.base);
        // Batches since the last place where the index agreed, by offset: it may still disown them.
        let mut recent: Vec<(Offset, u64)> = Vec::new();
        loop {
            match walk.step()? {
                Seen::Batch(header) if self.cut_at.is_none() => {
                    let records = u64::from(header.record_count.unsigned_abs());
                    self.batches += 1;
                    self.records += records;
                    if walk.at_run_end() {
                        recent.clear();
                    }
                    recent.push((header.base_offset, records));
                    sound = (walk.position, walk.next);
                }
                Seen::Batch(header) => {
                    self.lost_records += u64::from(header.record_count.unsigned_abs());
                }
                Seen::Damage(d) => {
                    let what = format!("expected {}, found {}", d.expected, d.found);
                    self.bad(&d.file, d.position, what);
                    if self.cut_at.is_none() {
                        // A run of batches that the index does not know begins before the last of them.
                        let start = d.offsets.map_or(sound.1, |range| range.start.min(sound.1));
                        for (_, records) in recent.iter().filter(|(base, _)| *base >= start) {
                            self.batches -= 1;
                            self.records -= records;
                        }
                        sound = (d.position.min(sound.0), start);
                        self.cut_at = Some(start);
                        self.keep_until(segment, sound.0, start);
                    }
                }
                Seen::End => break,
            }
        }
        self.end_seen = self.end_seen.max(walk.next);
        if self.cut_at.is_some() {
            let kept = self.kept.last().filter(|k| k.listed.base == segment.base);
            let kept = kept.map_or(0, |k| k.bytes);
            self.lost_bytes += len.min(size).saturating_sub(kept);
            return Ok(());
        }
        self.epochs = walk.epochs().clone();
        self.next = walk.next;
        let missing = walk.left_over().map(|run| run.end);
        self.keep(segment, size, faults.is_empty() && missing.is_none());
        if let Some(end) = missing {
            self.bad(
                &path,
                0,
                format!("bytes up to {end} were flushed, but the file has {size}"),
            );
            self.cut_at = Some(self.next);
        }
        Ok(())
    }

    /// Keeps what lies before a cut.
    fn keep_until(&mut self, segment: &ListedSegment, bytes: u64, end: Offset) {
        let Some(compacted) = segment.compacted else {
            return self.keep(segment, bytes, false);
        };
        if end > segment.base {
            let size = bytes;
            let listed = ListedSegment {
                compacted: Some(CompactedSegment {
                    end,
                    size,
                    ..compacted
                }),
                ..*segment
            };
            self.keep(&listed, bytes, false);
        }
    }

    fn keep(&mut self, segment: &ListedSegment, bytes: u64, with_indexes: bool) {
        self.kept.push(Kept {
            listed: *segment,
            bytes,
            with_indexes,
        });
    }

    fn finish(
        mut self,
        log_start: Offset,
        manifest: Option<&Manifest>,
        epochs: Vec<(LeaderEpoch, Offset)>,
    ) -> RepairPlan {
        let cut_at = self.cut_at.unwrap_or(self.next);
        let highest = self.kept.last().map_or(0, |k| k.listed.id + 1);
        let mut next_segment_id = manifest.map_or(highest, |m| m.next_segment_id.max(highest));
        let visible = cut_at >= log_start && !self.kept.is_empty();
        if !visible {
            // Nothing that readers may see is left: an empty log that goes on at the right offset.
            self.kept.clear();
            (self.batches, self.records) = (0, 0);
        }
        // A compacted segment never grows.
        let last = self.kept.last();
        if last.is_none_or(|k| k.listed.compacted.is_some()) {
            let listed = ListedSegment {
                id: next_segment_id,
                base: cut_at.max(log_start),
                created_ms: 0,
                compacted: None,
            };
            self.keep(&listed, 0, false);
            next_segment_id += 1;
        }
        let compacted = self.kept.iter().rfind(|k| k.listed.compacted.is_some());
        let covered = compacted.map_or(Offset::ZERO, |k| {
            k.listed.compacted.map_or(k.listed.base, |c| c.end)
        });
        let clean_upto = manifest.map_or(Offset::ZERO, |m| m.clean_upto);
        let compacted_epochs = manifest.map_or_else(Vec::new, |m| m.epochs.clone());
        RepairPlan {
            dir: self.dir.to_owned(),
            identity: self.identity,
            log_start,
            cut_at: cut_at.max(log_start),
            batches_kept: self.batches,
            records_kept: self.records,
            sound_records_given_up: self.lost_records,
            bytes_given_up: self.lost_bytes,
            end_seen: self.end_seen.max(cut_at),
            damage: self.damage,
            kept: self.kept,
            next_segment_id,
            epochs: epochs.into_iter().filter(|(_, s)| *s <= cut_at).collect(),
            clean_upto: clean_upto.min(cut_at),
            compacted_epochs: compacted_epochs
                .into_iter()
                .filter(|(_, start)| *start < covered)
                .collect(),
        }
    }
}

fn sibling(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Does what the plan says. The caller holds the lock of the data directory and has made the plan under it.
///
/// # Errors
/// [`RepairError`]; the damaged log is where it was then, and what was built beside it may be removed.
pub fn execute(
    vfs: &Arc<dyn Vfs>,
    plan: &RepairPlan,
    now_ms: i64,
) -> Result<Repaired, RepairError> {
    let built = sibling(&plan.dir, ".repair");
    if vfs.exists(&built)? {
        vfs.remove_dir_all(&built)?;
    }
    durable::create_dir_all(&**vfs, &built)?;
    build(vfs, plan, &built)?;
    let mode = OpenMode { clean: false };
    let config = LogConfig {
        retention_bytes: None,
        retention_ms: None,
        ..LogConfig::default()
    };
    let (log, recovery) = Log::open(vfs.clone(), &built, plan.identity, config, mode, now_ms)?;
    let end = log.log_end();
    log.close(true)?;
    recovery.leftovers.run()?;
    let report = verify(vfs, &built)?;
    if end != plan.cut_at || !report.is_good() {
        let what = format!(
            "the repaired log ends at offset {end}, not {}, or is not valid: {:?}",
            plan.cut_at, report.problems
        );
        let dir = plan.dir.clone();
        return Err(RepairError::Refused { dir, what });
    }
    let backup = (1..u32::MAX)
        .map(|n| match n {
            1 => sibling(&plan.dir, ".damaged"),
            n => sibling(&plan.dir, &format!(".damaged-{n}")),
        })
        .find(|path| vfs.exists(path).is_ok_and(|there| !there));
    let Some(backup) = backup else {
        let (dir, what) = (
            plan.dir.clone(),
            "there is no unused name left for a backup".to_owned(),
        );
        return Err(RepairError::Refused { dir, what });
    };
    vfs.rename(&plan.dir, &backup)?;
    vfs.rename(&built, &plan.dir)?;
    vfs.sync_dir(plan.dir.parent().unwrap_or(Path::new(".")))?;
    Ok(Repaired { backup, report })
}

/// Writes the kept log into an empty directory.
fn build(vfs: &Arc<dyn Vfs>, plan: &RepairPlan, to: &Path) -> Result<(), RepairError> {
    for kept in &plan.kept {
        let copies = match kept.with_indexes {
            true => &Kind::ALL[..],
            false => &[Kind::Log],
        };
        for kind in copies {
            let limit = if *kind == Kind::Log {
                kept.bytes
            } else {
                u64::MAX
            };
            let from = segment_path(&plan.dir, &kept.listed, *kind);
            copy(vfs, &from, &segment_path(to, &kept.listed, *kind), limit)?;
        }
    }
    for entry in vfs.list(&plan.dir)? {
        let offset = entry
            .name
            .strip_suffix(".snapshot")
            .and_then(|n| n.parse().ok());
        let from = plan.dir.join(&entry.name);
        let old = offset.is_some_and(|n: i64| n <= plan.cut_at.get());
        let sound = match (small_file_fault(&entry.name), old) {
            (Some(check), true) => check(&plan.identity, &from, &vfs.read(&from)?).is_none(),
            _ => false,
        };
        if sound {
            copy(vfs, &from, &to.join(&entry.name), u64::MAX)?;
        }
    }
    if !plan.epochs.is_empty() {
        let bytes = encode_epochs(&plan.identity, &plan.epochs);
        durable::replace(&**vfs, &to.join(EPOCHS), &bytes)?;
    }
    let manifest = Manifest {
        log_start: plan.log_start,
        next_segment_id: plan.next_segment_id,
        segments: plan.kept.iter().map(|k| k.listed).collect(),
        clean_upto: plan.clean_upto,
        epochs: plan.compacted_epochs.clone(),
    };
    let bytes = manifest.encode(&plan.identity);
    Ok(durable::replace(&**vfs, &to.join(MANIFEST), &bytes)?)
}

/// Copies the first `limit` bytes of a file and syncs the copy; a file that is not there is copied as empty
/// if it is a segment, and not at all otherwise.
fn copy(vfs: &Arc<dyn Vfs>, from: &Path, to: &Path, limit: u64) -> Result<(), VfsError> {
    let source = match vfs.open_read(from) {
        Ok(file) => Some(file),
        Err(e) if e.is_not_found() => None,
        Err(e) => return Err(e),
    };
    if source.is_none() && to.extension().is_none_or(|e| e != "log") {
        return Ok(());
    }
    let target = vfs.create_new(to)?;
    let (mut at, mut bytes) = (0, Vec::new());
    while let Some(source) = source.as_ref().filter(|_| at < limit) {
        bytes.clear();
        let len = usize::try_from(limit - at).map_or(COPY_BYTES, |n| n.min(COPY_BYTES));
        let n = source.read_into(at, len, &mut bytes)?;
        if n == 0 {
            break;
        }
        target.write_all_at(&[IoSlice::new(&bytes)], at)?;
        at += n as u64;
    }
    target.sync_all()
}
