//! What a journal holds after a crash, and how it comes back into the segment files.
//!
//! The number of the newest good group decides: it was written after all before it were synced, so each of
//! those it calls live must be there, whole. One that is not is corruption, and nothing is changed. The
//! newest itself may be torn; then nothing in it was acknowledged.
//!
//! Bytes are put back only into the segment that the manifest lists last (those before it were synced before
//! it was listed), and only without leaving a gap.

use std::collections::{BTreeMap, btree_map};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_record::{BatchHeader, check_stored};
use varve_vfs::{File, Vfs, VfsError};

use super::{GROUP_MAX_ROWS, SUFFIX};
use crate::format::{
    FormatError, GROUP_HEADER_BYTES, Group, GroupPlace, JournalFileHeader, LogIdentity, Manifest,
    PAGE_BYTES, ROW_BYTES, Row, RowKind, chain_start, chain_step,
};
use crate::segment::{Kind, MANIFEST, segment_file_name};

/// Why a journal was not opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Groups that were synced are damaged or missing: records that were acknowledged may be in them.
    #[error(
        "journal file {} is damaged at byte {position}: expected {expected}, found {found}. \
         Nothing was changed. The file may hold acknowledged records: restore it, or, to continue \
         without the records that only it holds, move the journal directory away and start again", file.display()
    )]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Byte position in it.
        position: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The disk failed.
    #[error("{0}")]
    Io(#[from] VfsError),
}

pub(super) struct FoundFile {
    pub(super) path: PathBuf,
    pub(super) header: JournalFileHeader,
    pub(super) file: Arc<dyn File>,
}

/// The journal files in `dir`. Files that were being made are removed.
pub(super) fn find_files(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    owner: u128,
) -> Result<Vec<FoundFile>, JournalError> {
    let mut found = Vec::new();
    for entry in vfs.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir || !entry.name.ends_with(SUFFIX) {
            if entry.name.ends_with(".tmp") {
                vfs.remove_file(&path)?;
            }
            continue;
        }
        let file = vfs.open_write(&path)?;
        let mut page = Vec::new();
        file.read_into(0, PAGE_BYTES as usize, &mut page)?;
        let header = JournalFileHeader::decode(&page).map_err(|e: FormatError| {
            corrupt(&path, 0, "a journal file's header", e.to_string())
        })?;
        if header.owner != owner {
            let expected = format!("a file of data directory {owner:032x}");
            let found = format!("one of {:032x}", header.owner);
            return Err(corrupt(&path, 0, expected, found));
        }
        found.push(FoundFile { path, header, file });
    }
    // Whoever made a file may have died before its name was synced, and what is written now must not go with it.
    vfs.sync_dir(dir)?;
    Ok(found)
}

fn corrupt(
    file: &Path,
    position: u64,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> JournalError {
    JournalError::Corrupt {
        file: file.to_owned(),
        position,
        expected: expected.into(),
        found: found.into(),
    }
}

/// Where a good group header was seen.
struct Seen {
    group: Group,
    file: usize,
    position: u64,
}

/// Outcome of looking at all files.
#[derive(Default)]
pub(super) struct Scanned {
    pub(super) replay: Replay,
    /// Number of the newest group; 0 for none.
    pub(super) newest: u64,
    /// Number of the file the newest group is in, and where the next one may be written.
    pub(super) tail: Option<(u32, u64)>,
    /// The newest group of each file, by the file's number.
    pub(super) newest_of: BTreeMap<u32, u64>,
    pub(super) live_from: u64,
}

impl Scanned {
    /// Whether a file has live groups.
    pub(super) fn is_live(&self, file: u32) -> bool {
        self.newest_of
            .get(&file)
            .is_some_and(|newest| *newest >= self.live_from)
    }
}

/// Finds the groups that are live, and verifies them unless the logs were closed cleanly, so that nothing
/// in the journal is needed.
pub(super) fn scan(
    files: &[FoundFile],
    owner: u128,
    logs_closed: bool,
) -> Result<Scanned, JournalError> {
    let mut seen: BTreeMap<u64, Seen> = BTreeMap::new();
    for (n, file) in files.iter().enumerate() {
        groups_of(file, n, owner, &mut seen)?;
    }
    let Some((&newest, last)) = seen.last_key_value() else {
        return Ok(Scanned::default());
    };
    let live_from = last.group.live_from;
    let newest_of = seen
        .values()
        .map(|s| (files[s.file].header.file, s.group.number))
        .collect();
    let mut scanned = Scanned {
        replay: Replay::default(),
        newest,
        tail: Some((
            files[last.file].header.file,
            last.position + last.group.size(),
        )),
        newest_of,
        live_from,
    };
    if logs_closed {
        return Ok(scanned);
    }
    let replay = &mut scanned.replay;
    for number in live_from..=newest {
        let Some(at) = seen.get(&number) else {
            let before = seen.range(..number).next_back();
            let (path, position) = before
                .map_or((&files[last.file].path, last.position), |(_, s)| {
                    (&files[s.file].path, s.position + s.group.size())
                });
            let expected =
                format!("group {number}, which was synced before group {newest} was written");
            return Err(corrupt(path, position, expected, "no such group"));
        };
        match verify(files, at) {
            Ok(()) => replay.take(files, at),
            // The newest may be torn: it was written and perhaps not synced, so nobody was told.
            Err(_) if number == newest => replay.torn_bytes = at.group.size(),
            Err(Fault::Io(error)) => return Err(error.into()),
            Err(Fault::Damage(position, found)) => {
                let expected = format!("the batches of group {number}, which was synced");
                return Err(corrupt(&files[at.file].path, position, expected, found));
            }
        }
    }
    Ok(scanned)
}

/// Good group headers of one file. Where no group begins, every later page is tried: a damaged one must
/// not hide those behind it.
fn groups_of(
    found: &FoundFile,
    n: usize,
    owner: u128,
    seen: &mut BTreeMap<u64, Seen>,
) -> Result<(), VfsError> {
    let end = found.file.len()?.min(found.header.file_bytes);
    let mut position = PAGE_BYTES;
    let mut page = Vec::new();
    while position < end {
        page.clear();
        found
            .file
            .read_into(position, GROUP_HEADER_BYTES, &mut page)?;
        let place = GroupPlace {
            owner,
            file: found.header.file,
            position,
        };
        let rows = Group::rows_stated(&page).map(|n| n as usize);
        let mut next = position + PAGE_BYTES;
        if let Some(rows) = rows.filter(|rows| *rows <= GROUP_MAX_ROWS) {
            page.clear();
            let head = GROUP_HEADER_BYTES + rows * ROW_BYTES;
            found.file.read_into(position, head, &mut page)?;
            if let Some(group) = Group::decode(&page, place)
                && position + group.size() <= found.header.file_bytes
            {
                next = position + group.size();
                let at = Seen {
                    group,
                    file: n,
                    position,
                };
                seen.insert(at.group.number, at);
            }
        }
        position = next;
    }
    Ok(())
}

enum Fault {
    Io(VfsError),
    Damage(u64, String),
}

impl From<VfsError> for Fault {
    fn from(error: VfsError) -> Self {
        Self::Io(error)
    }
}

/// Every batch of a group: its checksum, and the running CRC of its record.
fn verify(files: &[FoundFile], at: &Seen) -> Result<(), Fault> {
    let mut position = at.position + at.group.head_bytes();
    for row in &at.group.rows {
        let mut bytes = Vec::new();
        let file = &files[at.file].file;
        file.read_into(position, row.bytes as usize, &mut bytes)?;
        verify_row(row, &bytes).map_err(|found| Fault::Damage(position, found))?;
        position += u64::from(row.bytes);
    }
    Ok(())
}

fn verify_row(row: &Row, bytes: &[u8]) -> Result<(), String> {
    if bytes.len() != row.bytes as usize {
        return Err(format!("{} of {} bytes", bytes.len(), row.bytes));
    }
    let mut chain = chain_start(&row.identity, row.segment_id, row.segment_base);
    let (mut at, mut next, mut batches) = (0usize, row.first, 0);
    while at < bytes.len() {
        let header: BatchHeader = check_stored(&bytes[at..]).map_err(|e| e.to_string())?;
        if header.base_offset != next {
            return Err(format!("a batch at offset {}", header.base_offset));
        }
        chain = chain_step(chain, &header, row.position.saturating_add(at as u64));
        next = header.next_offset();
        at += header.size();
        batches += 1;
    }
    if row.kind == RowKind::Batches && (chain != row.chain || batches != row.batches) {
        return Err("valid batches that do not belong to this record".to_owned());
    }
    Ok(())
}

/// One record, and where its batches are.
#[derive(Debug, Clone)]
struct Kept {
    row: Row,
    file: Arc<dyn File>,
    position: u64,
}

/// What a journal holds for one log, oldest first.
#[derive(Debug, Clone, Default)]
pub struct LogReplay {
    entries: Vec<Kept>,
    /// No acknowledgement can have come further than the last record, as long as the log is still in its
    /// segment.
    exact: bool,
}

/// What putting back did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records of the journal that belong to the log's last segment.
    pub entries: u64,
    /// Bytes written into the segment file, synced.
    pub bytes_written: u64,
    /// Byte position in segment `0` of this pair after which no record was ever acknowledged, where the
    /// journal can tell: what is behind may be cut without a question.
    pub acknowledged: Option<(u64, u64)>,
}

/// What a journal holds for all logs.
#[derive(Debug, Default)]
pub struct Replay {
    logs: BTreeMap<LogIdentity, LogReplay>,
    /// Groups that were read.
    pub groups: u64,
    /// Bytes of a last group that was torn: nobody was told that it is durable.
    pub torn_bytes: u64,
}

impl Replay {
    fn take(&mut self, files: &[FoundFile], at: &Seen) {
        self.groups += 1;
        if at.group.rows.is_empty() {
            self.logs.values_mut().for_each(|log| log.exact = false);
        }
        let mut position = at.position + at.group.head_bytes();
        for row in &at.group.rows {
            match row.kind {
                RowKind::Void => {
                    self.logs.remove(&row.identity);
                    continue;
                }
                RowKind::Leaves => {
                    if let Some(log) = self.logs.get_mut(&row.identity) {
                        log.exact = false;
                    }
                    continue;
                }
                RowKind::Batches | RowKind::Follows => {}
            }
            let kept = Kept {
                row: *row,
                file: files[at.file].file.clone(),
                position,
            };
            let log = self.logs.entry(row.identity).or_default();
            log.entries.push(kept);
            log.exact = true;
            position += u64::from(row.bytes);
        }
    }

    /// Whether there is nothing to put back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let mut all = self.logs.values().flat_map(|log| &log.entries);
        !all.any(|kept| kept.row.kind == RowKind::Batches)
    }

    /// What there is for one log.
    #[must_use]
    pub fn log(&self, identity: &LogIdentity) -> Option<&LogReplay> {
        self.logs.get(identity)
    }

    /// The logs that have something.
    pub fn logs(&self) -> btree_map::Keys<'_, LogIdentity, LogReplay> {
        self.logs.keys()
    }
}

impl LogReplay {
    /// Whether there are batches to put back.
    #[must_use]
    pub fn has_batches(&self) -> bool {
        let mut kinds = self.entries.iter().map(|kept| kept.row.kind);
        kinds.any(|kind| kind == RowKind::Batches)
    }

    /// Puts the batches back into the last segment of the log in `dir`, and syncs it. To be
    /// called before the log is opened; doing it again changes nothing. A directory without a readable
    /// manifest is left as it is: opening it will say why.
    ///
    /// # Errors
    /// What the disk says. The journal still holds everything.
    pub fn apply(
        &self,
        vfs: &dyn Vfs,
        dir: &Path,
        identity: &LogIdentity,
    ) -> Result<Replayed, VfsError> {
        let mut done = Replayed::default();
        let manifest = match vfs.read(&dir.join(MANIFEST)) {
            Ok(bytes) => Manifest::decode(identity, &bytes).ok(),
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e),
        };
        let Some(last) = manifest.and_then(|m| m.segments.last().copied()) else {
            return Ok(done);
        };
        let path = dir.join(segment_file_name(last.base, Kind::Log));
        let file = match vfs.open_write(&path) {
            Ok(file) => file,
            Err(e) if e.is_not_found() => return Ok(done),
            Err(e) => return Err(e),
        };
        let mut len = file.len()?;
        for kept in self.entries.iter().filter(|k| k.row.segment_id == last.id) {
            if kept.row.position > len {
                // Only a truncation explains it, and it came after the record. A log that only followed may be
                // truncated without being made void; what was acknowledged since comes behind.
                if kept.row.kind == RowKind::Follows {
                    done.acknowledged = None;
                    continue;
                }
                break;
            }
            let end = kept.row.position + u64::from(kept.row.bytes);
            if kept.row.kind == RowKind::Batches {
                done.entries += 1;
                kept.put_back(&*file)?;
            }
            done.bytes_written += u64::from(kept.row.bytes);
            len = len.max(end);
            done.acknowledged = self.exact.then_some((last.id, end));
        }
        if done.bytes_written > 0 {
            file.sync_data()?;
        }
        Ok(done)
    }
}

impl Kept {
    fn bytes(&self) -> Result<Vec<u8>, VfsError> {
        let mut bytes = Vec::new();
        self.file
            .read_into(self.position, self.row.bytes as usize, &mut bytes)?;
        // Verified when the journal was opened; the disk may still have changed its mind.
        verify_row(&self.row, &bytes).map_err(|found| {
            let damage = std::io::Error::new(std::io::ErrorKind::InvalidData, found);
            VfsError::new("read records again from", self.file.path(), damage)
        })?;
        Ok(bytes)
    }

    /// Writes the batches into the segment file, whether or not they can be read there: that may be from
    /// memory only.
    fn put_back(&self, segment: &dyn File) -> Result<(), VfsError> {
        segment.write_all_at(&[IoSlice::new(&self.bytes()?)], self.row.position)
    }
}
