//! The offline check of a log's directory: every byte of every file of the log, and what else lies there.
//!
//! Invariants: a bit that is not as it was written is a problem, in whichever file; what a stop, a kill or a
//! power cut may leave is a note; nothing is opened for writing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_types::Offset;
use varve_vfs::{DirEntry, Vfs, VfsError, durable};

use crate::epoch_index::EpochIndex;
use crate::faults::{index_faults, small_file_fault};
use crate::format::{
    CompactedSegment, Companion, ENTRY_BYTES, HEADER_BYTES, INDEX_MAGIC, ListedSegment,
    LogIdentity, Manifest, SegmentHeader, TIME_ENTRY_BYTES, TIME_INDEX_MAGIC, chain_start,
    decode_epochs, identity_of,
};
use crate::inspect::{Report, problem};
use crate::segment::{
    DELETED_SUFFIX, EPOCHS, Kind, MANIFEST, intact_companions, parse_name, segment_stem, time_entry,
};
use crate::walk::{Limits, Seen, Walk};

/// Checks everything in a log's directory: each batch's checksum and leader epoch, that offsets follow each
/// other within and between segments, each index entry against the batches, the small files; tells of files
/// that are not the log's.
///
/// # Errors
/// When the directory or a file cannot be read at all.
pub fn verify(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<Report, VfsError> {
    verify_with(vfs, dir, &mut |_| {})
}

/// As [`verify`], and tells `progress` the bytes of each piece that was read.
///
/// # Errors
/// As for [`verify`].
pub fn verify_with(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Report, VfsError> {
    let mut check = Verify {
        vfs: vfs.clone(),
        dir: dir.to_owned(),
        report: Report::default(),
        epochs: EpochIndex::default(),
        progress,
    };
    check.run()?;
    Ok(check.report)
}

struct Verify<'a> {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    report: Report,
    epochs: EpochIndex,
    progress: &'a mut dyn FnMut(u64),
}

/// A segment to look at, and whose it is if that is known.
struct Target {
    base: Offset,
    /// Name of its files without the extension.
    stem: String,
    id: Option<u64>,
    /// Written by a compaction: offsets have gaps.
    gaps: bool,
    /// What the manifest says of it then.
    compacted: Option<CompactedSegment>,
}

impl Target {
    fn listed(segment: &ListedSegment) -> Self {
        Self {
            base: segment.base,
            stem: segment_stem(segment),
            id: Some(segment.id),
            gaps: segment.compacted.is_some(),
            compacted: segment.compacted,
        }
    }
}

impl Verify<'_> {
    fn read(&mut self, path: &Path) -> Result<Option<Vec<u8>>, VfsError> {
        match self.vfs.read(path) {
            Ok(bytes) => {
                (self.progress)(bytes.len() as u64);
                Ok(Some(bytes))
            }
            Err(e) if e.is_not_found() => Ok(None),
            // A link in the place of a file is told as such, once.
            Err(_) if self.vfs.is_link(path)? => Ok(None),
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
                    targets.push(Target {
                        base: name.base,
                        stem,
                        id: name.compacted,
                        gaps: name.compacted.is_some(),
                        compacted: None,
                    });
                }
            }
        }
        targets.sort_by_key(|t| t.base);
        self.other_files(&entries)?;
        for i in 0..targets.len() {
            // What follows a listed segment says where it ends.
            let next = targets.get(i + 1).map(|t| t.base);
            self.segment(&targets[i], next)?;
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
                // Without an epoch file they are all that tells of batches that are gone.
                self.epochs = EpochIndex::new(manifest.epochs);
                Ok(manifest.segments.iter().map(Target::listed).collect())
            }
            Some(Err(e)) => {
                self.bad(&path, 0, e.to_string());
                Ok(Vec::new())
            }
            None => {
                self.bad(
                    &path,
                    0,
                    "the manifest is damaged or was written by a newer version",
                );
                Ok(Vec::new())
            }
        }
    }

    /// Everything in the directory but segments and the manifest.
    fn other_files(&mut self, entries: &[DirEntry]) -> Result<(), VfsError> {
        for entry in entries {
            let path = self.dir.join(&entry.name);
            let name = entry.name.as_str();
            let leftover = [DELETED_SUFFIX, durable::TEMP_SUFFIX]
                .iter()
                .any(|suffix| name.ends_with(suffix));
            let small = small_file_fault(name);
            if self.vfs.is_link(&path)? {
                self.bad(&path, 0, "a symbolic link; links are not followed");
            } else if entry.is_dir {
                self.note(&path, 0, "a directory that does not belong to the log");
            } else if leftover {
                self.note(&path, 0, "a leftover; the next start removes it");
            } else if name == MANIFEST || parse_name(name).is_some() {
            } else if let Some(check) = small {
                let (identity, bytes) = (self.report.identity, self.read(&path)?);
                if let (Some(identity), Some(bytes)) = (identity, bytes) {
                    if let Some(d) = check(&identity, &path, &bytes) {
                        self.bad(&path, d.position, format!("{}; it can be rebuilt", d.found));
                    } else if name == EPOCHS {
                        let known = decode_epochs(&identity, &bytes).unwrap_or_default();
                        self.epochs = EpochIndex::new(known);
                    }
                }
            } else {
                self.note(&path, 0, "not a file of this log; it is left alone");
            }
        }
        Ok(())
    }

    fn segment(&mut self, target: &Target, next: Option<Offset>) -> Result<(), VfsError> {
        let stem = &target.stem;
        let path = self.dir.join(format!("{stem}.log"));
        if !self.vfs.exists(&path)? {
            self.bad(
                &path,
                0,
                "the manifest lists this segment, but the file is missing",
            );
            return Ok(());
        }
        if self.vfs.is_link(&path)? {
            return Ok(());
        }
        self.report.segments += 1;
        let file = self.vfs.open_read(&path)?;
        let len = file.len()?;
        let size = target.compacted.map_or(len, |c| c.size);
        if len > size {
            self.note(
                &path,
                size,
                "bytes after a cut; the next start removes them",
            );
        }
        let index_path = self.dir.join(format!("{stem}.index"));
        let index = self.read(&index_path)?;
        if index.is_none() && size > 0 {
            self.note(&index_path, 0, "missing; the next start rebuilds it");
        }
        let index = index.unwrap_or_default();
        let header = self.index_header(target, &index_path, &index);
        let (mut runs, mut chain) = (Vec::new(), None);
        if let (Some(identity), Some(header)) = (self.report.identity, header) {
            runs.extend(intact_companions(&index, header.segment_id).map(|(_, c)| c));
            if target.gaps {
                runs.retain(|c| c.end <= size);
            }
            chain = Some(chain_start(
                &identity,
                header.segment_id,
                header.base_offset,
            ));
        }
        let companions = runs.clone();
        let limits = Limits {
            size,
            end: target.compacted.map(|c| c.end).or(next),
            gaps: target.gaps,
            upto: None,
            past_cache: false,
            learn_epochs: true,
        };
        let mut walk = Walk::new(file, target.base, chain, runs, self.epochs.clone(), limits);
        self.walk(&mut walk)?;
        if let Some(run) = walk.left_over() {
            let (end, good) = (run.end, walk.position);
            let what = format!("bytes up to {end} were flushed, but only {good} are intact");
            self.bad(&index_path, 0, what);
        }
        self.epochs = walk.epochs().clone();
        self.report.log_end = Some(walk.next);
        self.time_index(
            &self.dir.join(format!("{stem}.timeindex")),
            header,
            &companions,
        )
    }

    fn walk(&mut self, walk: &mut Walk) -> Result<(), VfsError> {
        let mut told = 0;
        loop {
            match walk.step()? {
                Seen::Batch(header) => {
                    self.report.batches += 1;
                    self.report.records += u64::from(header.record_count.unsigned_abs());
                    self.report.bytes += header.size() as u64;
                }
                Seen::Damage(d) => {
                    let what = format!("expected {}, found {}", d.expected, d.found);
                    self.bad(&d.file, d.position, what);
                }
                Seen::End => break,
            }
            if walk.bytes > told {
                (self.progress)(walk.bytes - told);
                told = walk.bytes;
            }
        }
        Ok(())
    }

    /// The header of an index file, which also tells whose log this is if nothing else does.
    fn index_header(
        &mut self,
        target: &Target,
        path: &Path,
        bytes: &[u8],
    ) -> Option<SegmentHeader> {
        if bytes.is_empty() {
            return None;
        }
        let stated = bytes.get(..HEADER_BYTES).and_then(identity_of);
        let Some(identity) = self.report.identity.or(stated) else {
            self.bad(path, 0, "the header is damaged; the file will be rebuilt");
            return None;
        };
        self.report.identity = Some(identity);
        for d in index_faults(Kind::Index, path, &identity, target.base, target.id, bytes) {
            let what = format!("expected {}, found {}", d.expected, d.found);
            self.bad(path, d.position, what);
        }
        self.half_entry(path, bytes, ENTRY_BYTES);
        let header = SegmentHeader::decode(INDEX_MAGIC, &identity, bytes).ok()?;
        let ours =
            header.base_offset == target.base && target.id.is_none_or(|id| id == header.segment_id);
        ours.then_some(header)
    }

    fn half_entry(&mut self, path: &Path, bytes: &[u8], entry_bytes: usize) {
        let over = bytes.len().saturating_sub(HEADER_BYTES) % entry_bytes;
        if over > 0 {
            let at = (bytes.len() - over) as u64;
            self.note(path, at, "half an entry, as a crash leaves behind");
        }
    }

    /// The time index, against what the offset index says.
    fn time_index(
        &mut self,
        path: &Path,
        header: Option<SegmentHeader>,
        companions: &[Companion],
    ) -> Result<(), VfsError> {
        let (Some(identity), Some(bytes)) = (self.report.identity, self.read(path)?) else {
            return Ok(());
        };
        let Some(header) = header else {
            return Ok(());
        };
        let (base, id) = (header.base_offset, Some(header.segment_id));
        let faults = index_faults(Kind::TimeIndex, path, &identity, base, id, &bytes);
        for d in &faults {
            let what = format!("expected {}, found {}", d.expected, d.found);
            self.bad(path, d.position, what);
        }
        self.half_entry(path, &bytes, TIME_ENTRY_BYTES);
        let right = time_index(&identity, &header, companions);
        if faults.is_empty() && bytes != right && !right.starts_with(&bytes) {
            let what = "it differs from the offset index and will be rebuilt";
            self.note(path, 0, what);
        }
        Ok(())
    }
}

fn time_index(identity: &LogIdentity, header: &SegmentHeader, companions: &[Companion]) -> Vec<u8> {
    let mut bytes = header.encode(TIME_INDEX_MAGIC, identity);
    let (mut number, mut highest) = (0, i64::MIN);
    for companion in companions {
        if let Some(entry) = time_entry(companion, &mut highest) {
            bytes.extend_from_slice(&entry.encode(header.segment_id, number));
            number += 1;
        }
    }
    bytes
}
