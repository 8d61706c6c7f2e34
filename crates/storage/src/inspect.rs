//! Offline looks at a log's files: what is in them ([`dump`]) and whether it is right ([`verify`]). For a
//! stopped server's directory. Opens files for reading only and changes nothing.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_record::{BatchHeader, HEADER_BYTES as BATCH_HEADER_BYTES, check_stored};
use varve_types::Offset;
use varve_vfs::{File, Vfs, VfsError};

use crate::format::{
    Companion, ENTRY_BYTES, HEADER_BYTES, INDEX_MAGIC, ListedSegment, LogIdentity, Manifest,
    SegmentHeader, TIME_INDEX_MAGIC, chain_start, chain_step, decode_epochs, decode_snapshot,
    identity_of,
};
use crate::segment::{EPOCHS, Kind, MANIFEST, companion_at, parse_name, time_entry};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} at byte {position}: {what}", file.display())]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Byte position in it.
    pub position: u64,
    /// What is wrong.
    pub what: String,
}

/// A batch as it lies in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSeen {
    /// The `.log` file.
    pub file: PathBuf,
    /// Byte position in it.
    pub position: u64,
    /// The header.
    pub header: BatchHeader,
    /// What is wrong with the checksum or the length, if anything.
    pub fault: Option<String>,
}

/// Result of [`verify`].
#[derive(Debug, Default)]
pub struct Report {
    /// Whose log it is, if any file says so.
    pub identity: Option<LogIdentity>,
    /// First offset that readers may see, as the manifest says.
    pub log_start: Option<Offset>,
    /// Offset after the last good batch.
    pub log_end: Option<Offset>,
    /// Segments looked at.
    pub segments: usize,
    /// Good batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What would keep the log from being opened, or would make an answer wrong.
    pub problems: Vec<Problem>,
    /// What is not right and does not matter: files that can be derived, leftovers.
    pub notes: Vec<Problem>,
}

impl Report {
    /// Whether every batch and every index entry is right.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Iterator over the batches of a `.log` file or of all `.log` files of a directory. See [`dump`].
pub struct Dump {
    vfs: Arc<dyn Vfs>,
    files: VecDeque<PathBuf>,
    at: Option<(Arc<dyn File>, u64, u64)>,
}

/// Batches of a `.log` file, or of all of a directory in order of their base offsets. After bytes that are
/// not a batch header, which are reported, the iterator goes on with the next file.
///
/// # Errors
/// When the directory cannot be listed.
pub fn dump(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<Dump, VfsError> {
    let is_log = |name: &str| parse_name(name).is_some_and(|n| n.kind == Kind::Log);
    let files = if path.extension().is_some_and(|e| e == "log") {
        VecDeque::from([path.to_owned()])
    } else {
        let entries = vfs.list(path)?;
        entries
            .iter()
            .filter(|e| is_log(&e.name))
            .map(|e| path.join(&e.name))
            .collect()
    };
    Ok(Dump {
        vfs: vfs.clone(),
        files,
        at: None,
    })
}

impl Dump {
    fn step(&mut self) -> Result<Option<BatchSeen>, Problem> {
        loop {
            if self
                .at
                .as_ref()
                .is_none_or(|(_, position, len)| position >= len)
            {
                self.at = None;
                let Some(path) = self.files.pop_front() else {
                    return Ok(None);
                };
                let opened = self.vfs.open_read(&path).and_then(|f| Ok((f.len()?, f)));
                let (len, file) = opened.map_err(|e| problem(&path, 0, e.to_string()))?;
                self.at = Some((file, 0, len));
                continue;
            }
            let Some((file, position, _)) = &mut self.at else {
                return Ok(None);
            };
            let path = file.path().to_owned();
            let (at, mut bytes) = (*position, Vec::new());
            let seen = (|| {
                file.read_into(at, BATCH_HEADER_BYTES, &mut bytes)
                    .map_err(|e| e.to_string())?;
                let header = BatchHeader::parse(&bytes).map_err(|e| e.to_string())?;
                let rest = header.size().saturating_sub(BATCH_HEADER_BYTES);
                let from = at + BATCH_HEADER_BYTES as u64;
                file.read_into(from, rest, &mut bytes)
                    .map_err(|e| e.to_string())?;
                let fault = check_stored(&bytes).err().map(|e| e.to_string());
                Ok(BatchSeen {
                    file: path.clone(),
                    position: at,
                    header,
                    fault,
                })
            })();
            return match seen {
                Ok(seen) => {
                    *position += seen.header.size() as u64;
                    Ok(Some(seen))
                }
                Err(what) => {
                    self.at = None;
                    let what: String = what;
                    Err(problem(&path, at, what))
                }
            };
        }
    }
}

impl Iterator for Dump {
    type Item = Result<BatchSeen, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

fn problem(file: &Path, position: u64, what: impl Into<String>) -> Problem {
    Problem {
        file: file.to_owned(),
        position,
        what: what.into(),
    }
}

/// Checks everything in a log's directory: each batch's checksum, that offsets follow each other within and
/// between segments, each index entry against the batches, the small files.
///
/// # Errors
/// When the directory or a file cannot be read at all.
pub fn verify(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<Report, VfsError> {
    let mut check = Verify {
        vfs: vfs.clone(),
        dir: dir.to_owned(),
        report: Report::default(),
    };
    check.run()?;
    Ok(check.report)
}

struct Verify {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    report: Report,
}

/// A segment to look at, and whose it is if that is known.
struct Target {
    base: Offset,
    /// Name of its files without the extension.
    stem: String,
    id: Option<u64>,
    /// Written by a compaction: offsets have gaps.
    gaps: bool,
    /// What the manifest says where it ends, in offsets and bytes.
    end: Option<(Offset, u64)>,
}

impl Target {
    fn listed(segment: &ListedSegment) -> Self {
        let base = format!("{:020}", segment.base.get());
        Self {
            base: segment.base,
            stem: match segment.compacted {
                Some(_) => format!("{base}-{}", segment.id),
                None => base,
            },
            id: Some(segment.id),
            gaps: segment.compacted.is_some(),
            end: segment.compacted.map(|c| (c.end, c.size)),
        }
    }

    const fn unlisted(base: Offset, stem: String, compacted: Option<u64>) -> Self {
        Self {
            base,
            stem,
            id: compacted,
            gaps: compacted.is_some(),
            end: None,
        }
    }
}

impl Verify {
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, VfsError> {
        match self.vfs.read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn bad(&mut self, file: &Path, position: u64, what: impl Into<String>) {
        self.report.problems.push(problem(file, position, what));
    }

    fn note(&mut self, file: &Path, position: u64, what: impl Into<String>) {
        self.report.notes.push(problem(file, position, what));
    }

    fn run(&mut self) -> Result<(), VfsError> {
        let entries = self.vfs.list(&self.dir)?;
        let mut targets = self.targets()?;
        for entry in &entries {
            let Some(name) = parse_name(&entry.name).filter(|n| n.kind == Kind::Log) else {
                continue;
            };
            let stem = entry.name.trim_end_matches(".log").to_owned();
            if !targets.iter().any(|t| t.stem == stem) {
                let path = self.dir.join(&entry.name);
                self.note(&path, 0, "the manifest does not list this segment");
                if self.report.log_start.is_none() {
                    let target = Target::unlisted(name.base, stem, name.compacted);
                    targets.push(target);
                }
            }
        }
        targets.sort_by_key(|t| t.base);
        for target in targets {
            if let Some(end) = self.report.log_end
                && end != target.base
            {
                let path = self.dir.join(format!("{}.log", target.stem));
                self.bad(&path, 0, format!("the segment before ends at offset {end}"));
            }
            self.segment(&target)?;
        }
        self.epochs()?;
        for entry in entries.iter().filter(|e| e.name.ends_with(".snapshot")) {
            self.snapshot(&self.dir.join(&entry.name))?;
        }
        Ok(())
    }

    /// The segments that the manifest lists.
    fn targets(&mut self) -> Result<Vec<Target>, VfsError> {
        let path = self.dir.join(MANIFEST);
        let Some(bytes) = self.read(&path)? else {
            self.bad(&path, 0, "there is no manifest");
            return Ok(Vec::new());
        };
        self.report.identity = identity_of(&bytes);
        let decoded = self
            .report
            .identity
            .map(|identity| Manifest::decode(&identity, &bytes));
        match decoded {
            Some(Ok(manifest)) => {
                self.report.log_start = Some(manifest.log_start);
                Ok(manifest.segments.iter().map(Target::listed).collect())
            }
            Some(Err(e)) => {
                self.bad(&path, 0, e.to_string());
                Ok(Vec::new())
            }
            None => {
                self.bad(&path, 0, "the manifest is damaged");
                Ok(Vec::new())
            }
        }
    }

    fn segment(&mut self, target: &Target) -> Result<(), VfsError> {
        let stem = &target.stem;
        let path = self.dir.join(format!("{stem}.log"));
        if !self.vfs.exists(&path)? {
            self.bad(
                &path,
                0,
                "the manifest lists this segment, and it is missing",
            );
            return Ok(());
        }
        self.report.segments += 1;
        let index_path = self.dir.join(format!("{stem}.index"));
        let index = self.read(&index_path)?.unwrap_or_default();
        let header = self.index_header(target, &index_path, &index);
        let mut runs = RunCheck::new(self.report.identity, header, &index);
        let mut next = target.base;
        let mut end = 0;
        for seen in dump(&self.vfs, &path)? {
            if target.end.is_some_and(|(_, size)| end >= size) {
                // What follows was cut, and goes at the next start.
                break;
            }
            let batch = match seen {
                Ok(batch) => batch,
                Err(found) => {
                    self.report.problems.push(found);
                    break;
                }
            };
            if let Some(fault) = batch.fault {
                self.bad(&path, batch.position, fault);
                break;
            }
            let follows = batch.header.base_offset == next
                || (target.gaps && batch.header.base_offset > next);
            if !follows {
                let found = batch.header.base_offset;
                self.bad(
                    &path,
                    batch.position,
                    format!("offset {found} follows offset {next}"),
                );
                break;
            }
            runs.batch(&batch.header, batch.position);
            next = batch.header.next_offset();
            end = batch.position + batch.header.size() as u64;
            self.report.batches += 1;
            self.report.records += batch.header.record_count as u64;
            self.report.bytes += batch.header.size() as u64;
        }
        if let Some((offset, size)) = target.end {
            if end != size || next > offset {
                let what =
                    format!("{end} good bytes up to offset {next}, not {size} up to {offset}");
                self.bad(&path, end, what);
            }
            next = offset;
        }
        self.report.log_end = Some(next);
        if let Some(header) = header {
            self.index(&index_path, &index, header, &runs, end);
            self.time_index(&self.dir.join(format!("{stem}.timeindex")), header, &index)?;
        }
        Ok(())
    }

    fn index_header(
        &mut self,
        target: &Target,
        path: &Path,
        bytes: &[u8],
    ) -> Option<SegmentHeader> {
        let identity = self
            .report
            .identity
            .or_else(|| identity_of(bytes.get(..HEADER_BYTES)?))?;
        self.report.identity = Some(identity);
        match SegmentHeader::decode(INDEX_MAGIC, &identity, bytes) {
            Ok(h)
                if h.base_offset == target.base
                    && target.id.is_none_or(|id| id == h.segment_id) =>
            {
                Some(h)
            }
            Ok(h) => {
                let what = format!(
                    "the index is of segment {} at {}",
                    h.segment_id, h.base_offset
                );
                self.note(path, 0, what);
                None
            }
            Err(e) => {
                self.note(path, 0, format!("the index will be built anew: {e}"));
                None
            }
        }
    }

    fn index(
        &mut self,
        path: &Path,
        bytes: &[u8],
        header: SegmentHeader,
        runs: &RunCheck,
        log_end: u64,
    ) {
        for (number, seen) in runs.seen.iter().enumerate() {
            let at = (HEADER_BYTES + number * ENTRY_BYTES) as u64;
            match (companion_at(bytes, header.segment_id, number as u32), seen) {
                (None, _) => self.note(path, at, "a damaged entry; it will be passed over"),
                (Some(entry), None) if entry.end > log_end => {
                    let what =
                        format!("bytes up to {} were flushed; {log_end} are good", entry.end);
                    self.bad(path, at, what);
                }
                (Some(_), None) => self.bad(path, at, "the entry matches no run of batches"),
                (Some(entry), Some(found)) if entry != *found => {
                    self.bad(
                        path,
                        at,
                        format!("the entry is {entry:?}, the batches are {found:?}"),
                    );
                }
                _ => {}
            }
        }
    }

    fn time_index(
        &mut self,
        path: &Path,
        header: SegmentHeader,
        index: &[u8],
    ) -> Result<(), VfsError> {
        let Some(identity) = self.report.identity else {
            return Ok(());
        };
        let mut right = header.encode(TIME_INDEX_MAGIC, &identity);
        let (mut number, mut highest) = (0, i64::MIN);
        for i in 0.. {
            let Some(c) = companion_at(index, header.segment_id, i) else {
                break;
            };
            if let Some(entry) = time_entry(&c, &mut highest) {
                right.extend_from_slice(&entry.encode(header.segment_id, number));
                number += 1;
            }
        }
        let found = self.read(path)?.unwrap_or_default();
        if found != right && !(found.is_empty() && number == 0) {
            self.note(
                path,
                0,
                "it differs from the offset index and will be built anew",
            );
        }
        Ok(())
    }

    fn epochs(&mut self) -> Result<(), VfsError> {
        let path = self.dir.join(EPOCHS);
        if let (Some(identity), Some(bytes)) = (self.report.identity, self.read(&path)?)
            && let Err(e) = decode_epochs(&identity, &bytes)
        {
            self.note(&path, 0, format!("it will be built anew: {e}"));
        }
        Ok(())
    }

    fn snapshot(&mut self, path: &Path) -> Result<(), VfsError> {
        if let (Some(identity), Some(bytes)) = (self.report.identity, self.read(path)?)
            && let Err(e) = decode_snapshot(&identity, &bytes)
        {
            self.note(path, 0, format!("it will be ignored: {e}"));
        }
        Ok(())
    }
}

/// Rebuilds, from the batches, the runs that the index says there are.
struct RunCheck {
    ends: VecDeque<u64>,
    seen: Vec<Option<Companion>>,
    chain: u32,
    open: Option<Companion>,
    max_timestamp: i64,
    done: usize,
}

impl RunCheck {
    fn new(identity: Option<LogIdentity>, header: Option<SegmentHeader>, index: &[u8]) -> Self {
        let (mut ends, mut chain) = (VecDeque::new(), 0);
        if let (Some(identity), Some(header)) = (identity, header) {
            chain = chain_start(&identity, header.segment_id, header.base_offset);
            let count = index.len().saturating_sub(HEADER_BYTES) / ENTRY_BYTES;
            for number in 0..count as u32 {
                // The end of a damaged entry is where the next one begins.
                let end = companion_at(index, header.segment_id, number).map(|c| c.end);
                let next = companion_at(index, header.segment_id, number + 1).map(|c| c.position);
                ends.push_back(end.or(next).unwrap_or(u64::MAX));
            }
        }
        let seen = vec![None; ends.len()];
        Self {
            ends,
            seen,
            chain,
            open: None,
            max_timestamp: i64::MIN,
            done: 0,
        }
    }

    fn batch(&mut self, header: &BatchHeader, position: u64) {
        self.chain = chain_step(self.chain, header, position);
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        let end = position + header.size() as u64;
        let run = self.open.get_or_insert(Companion {
            first: header.base_offset,
            next: header.next_offset(),
            position,
            end,
            max_timestamp: self.max_timestamp,
            max_epoch: header.leader_epoch,
            batches: 0,
            chain: 0,
        });
        run.next = header.next_offset();
        run.end = end;
        run.max_timestamp = self.max_timestamp;
        run.max_epoch = run.max_epoch.max(header.leader_epoch);
        run.batches += 1;
        run.chain = self.chain;
        if self.ends.front().is_some_and(|e| *e <= end) {
            self.ends.pop_front();
            self.seen[self.done] = self.open.take();
            self.done += 1;
        }
    }
}
