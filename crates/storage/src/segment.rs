//! One segment as its readers see it: its files, opened when first needed and shared, and the lookup from
//! offset or timestamp to a byte position. The writer's side of the active segment is `tail`.
//!
//! Invariants: a place that a lookup returns is the start of a batch at or before the one asked for; a
//! damaged index entry is never used, only skipped, so it costs time and no answer. A sealed segment's
//! files never shrink; the active one's may, and `generation` tells readers that it did.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use varve_types::Offset;
use varve_vfs::{File, Vfs, VfsError, durable};

use crate::disk_index::{Fences, Owner};
use crate::format::{
    Companion, ENTRY_BYTES, HEADER_BYTES, INDEX_MAGIC, ListedSegment, LogIdentity, SegmentHeader,
    TIME_ENTRY_BYTES, TIME_INDEX_MAGIC, TimeEntry,
};
use crate::read_view::ReadMode;

/// Suffix of a file that was removed from its log and waits to be unlinked.
pub(crate) const DELETED_SUFFIX: &str = ".deleted";

/// Name of the manifest.
pub(crate) const MANIFEST: &str = "manifest";
/// Name of the epoch file.
pub(crate) const EPOCHS: &str = "leader-epoch";

/// What all segments of a log share.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    pub(crate) identity: LogIdentity,
    /// What the small files on disk say. Held while one is written: a flush on another thread must never
    /// put an older manifest over a newer one.
    pub(crate) small_files: Mutex<SmallFiles>,
    /// A write or sync has failed. Flushes that were taken before it must not go on: a sync after a failed
    /// one proves nothing, and a manifest after it would declare complete what may be lost.
    pub(crate) failed: AtomicBool,
}

/// Versions of the small files that are durable. A version is a count of changes in this process.
#[derive(Debug, Default)]
pub(crate) struct SmallFiles {
    manifest: u64,
    epochs: u64,
}

/// A file that is replaced as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SmallFile {
    Manifest,
    Epochs,
}

/// A small file's next content.
#[derive(Debug)]
pub(crate) struct Replacement {
    pub(crate) file: SmallFile,
    pub(crate) version: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Home {
    /// Makes a small file durable, unless a newer content is already.
    pub(crate) fn replace(&self, next: &Replacement) -> Result<(), VfsError> {
        let mut on_disk = self
            .small_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (name, version) = match next.file {
            SmallFile::Manifest => (MANIFEST, &mut on_disk.manifest),
            SmallFile::Epochs => (EPOCHS, &mut on_disk.epochs),
        };
        if next.version > *version {
            durable::replace(&*self.vfs, &self.dir.join(name), &next.bytes)?;
            *version = next.version;
        }
        Ok(())
    }

    /// Path of a segment's file: its base offset with 20 digits, as in Kafka.
    pub(crate) fn segment_path(&self, base: Offset, kind: Kind) -> PathBuf {
        self.dir.join(segment_file_name(base, kind))
    }

    /// Path of a file of a segment that a compaction wrote: its id too, because the segment that it
    /// replaces may have the same base offset.
    pub(crate) fn compacted_path(&self, base: Offset, id: u64, kind: Kind) -> PathBuf {
        self.dir
            .join(format!("{:020}-{id}.{}", base.get(), kind.extension()))
    }
}

/// Name of a segment's file.
pub(crate) fn segment_file_name(base: Offset, kind: Kind) -> String {
    format!("{:020}.{}", base.get(), kind.extension())
}

/// Name of a listed segment's files without the extension.
pub(crate) fn segment_stem(listed: &ListedSegment) -> String {
    let base = format!("{:020}", listed.base.get());
    match listed.compacted {
        Some(_) => format!("{base}-{}", listed.id),
        None => base,
    }
}

/// The files of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    Index,
    TimeIndex,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Log, Self::Index, Self::TimeIndex];

    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Index => "index",
            Self::TimeIndex => "timeindex",
        }
    }
}

/// One point of the index in memory: 16 bytes per index interval of the active segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    /// First offset of the run, relative to the segment's base.
    pub(crate) offset: u32,
    /// Byte position of the run.
    pub(crate) position: u32,
    /// Largest timestamp from the segment's start to the end of the run.
    pub(crate) max_timestamp: i64,
}

impl Point {
    pub(crate) fn of(companion: &Companion, base: Offset) -> Self {
        Self {
            // A segment rolls before its offsets or positions pass 32 bits.
            offset: u32::try_from(companion.first.since(base)).unwrap_or(u32::MAX),
            position: u32::try_from(companion.position).unwrap_or(u32::MAX),
            max_timestamp: companion.max_timestamp,
        }
    }
}

/// A place to start reading, and how far it may be from the batch that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: u64,
    /// Offset of the batch at that position.
    pub(crate) first: Offset,
    /// Start of the next run, if one is known: the batch begins before it.
    pub(crate) next: Option<u64>,
}

impl Place {
    /// Behind a run, without knowledge of what follows.
    pub(crate) const fn after(run: &Companion) -> Self {
        Self {
            position: run.end,
            first: run.next,
            next: None,
        }
    }
}

/// An index that is wholly in its file.
#[derive(Debug, Default, Clone)]
struct DiskIndex {
    /// Closed when the segment is idle.
    file: Option<Arc<dyn File>>,
    /// `None` until the first lookup, if the segment was not written by this process.
    fences: Option<Arc<Fences>>,
    /// Missing or not of this segment: lookups go without, until the segment is idle again.
    unusable: bool,
}

#[derive(Debug)]
enum Index {
    /// The active segment, and sealed ones until all their entries are on disk.
    Memory(Vec<Point>),
    Disk(DiskIndex),
}

/// An index that a lookup can use.
enum Usable {
    Memory,
    Disk(Arc<dyn File>, Arc<Fences>),
    None,
    /// It would have to wait for the disk.
    Wait,
}

#[derive(Debug)]
struct Files {
    log: Option<Arc<dyn File>>,
    /// The files carry the suffix of removed ones.
    removed: bool,
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) home: Arc<Home>,
    pub(crate) id: u64,
    pub(crate) base: Offset,
    pub(crate) created_ms: i64,
    /// Written by a compaction: offsets have gaps, and it never grows.
    pub(crate) compacted: bool,
    files: Mutex<Files>,
    index: RwLock<Index>,
    /// Grows whenever bytes of the file are taken away.
    generation: AtomicU64,
}

impl Segment {
    pub(crate) fn new(
        home: &Arc<Home>,
        header: &SegmentHeader,
        log: Option<Arc<dyn File>>,
    ) -> Self {
        let index = match log {
            Some(_) => Index::Memory(Vec::new()),
            None => Index::Disk(DiskIndex::default()),
        };
        Self {
            home: home.clone(),
            id: header.segment_id,
            base: header.base_offset,
            created_ms: header.created_ms,
            compacted: false,
            files: Mutex::new(Files {
                log,
                removed: false,
            }),
            index: RwLock::new(index),
            generation: AtomicU64::new(0),
        }
    }

    /// As [`Segment::new`], for a segment that a compaction wrote.
    pub(crate) fn new_compacted(
        home: &Arc<Home>,
        header: &SegmentHeader,
        log: Option<Arc<dyn File>>,
    ) -> Self {
        Self {
            compacted: true,
            ..Self::new(home, header, log)
        }
    }

    pub(crate) fn header(&self) -> SegmentHeader {
        SegmentHeader {
            segment_id: self.id,
            base_offset: self.base,
            created_ms: self.created_ms,
        }
    }

    /// What the manifest says of a segment that no compaction wrote.
    pub(crate) fn listed(&self) -> ListedSegment {
        ListedSegment {
            id: self.id,
            base: self.base,
            created_ms: self.created_ms,
            compacted: None,
        }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_when(&self, kind: Kind, removed: bool) -> PathBuf {
        let path = if self.compacted {
            self.home.compacted_path(self.base, self.id, kind)
        } else {
            self.home.segment_path(self.base, kind)
        };
        if !removed {
            return path;
        }
        // The id keeps a removed file apart from those of a later segment with the same base.
        let mut name = path.into_os_string();
        name.push(format!(".{}{DELETED_SUFFIX}", self.id));
        PathBuf::from(name)
    }

    /// Where that file is now.
    pub(crate) fn path(&self, kind: Kind) -> PathBuf {
        self.path_when(kind, self.files().removed)
    }

    /// The `.log` file, opened for reading if it is not open yet.
    pub(crate) fn log_file(&self) -> Result<Arc<dyn File>, VfsError> {
        let mut files = self.files();
        if let Some(file) = &files.log {
            return Ok(file.clone());
        }
        let file = self
            .home
            .vfs
            .open_read(&self.path_when(Kind::Log, files.removed))?;
        files.log = Some(file.clone());
        Ok(file)
    }

    /// The `.log` file if it is open: finding a name may have to wait for the disk.
    pub(crate) fn open_log_file(&self) -> Option<Arc<dyn File>> {
        self.files().log.clone()
    }

    /// Opens the `.log` file for writing and shares that handle from now on.
    pub(crate) fn open_for_write(&self) -> Result<Arc<dyn File>, VfsError> {
        let mut files = self.files();
        let file = self
            .home
            .vfs
            .open_write(&self.path_when(Kind::Log, files.removed))?;
        files.log = Some(file.clone());
        Ok(file)
    }

    /// Lets go of the file handles; the next read opens them again.
    pub(crate) fn release(&self) {
        self.files().log = None;
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Index::Disk(disk) = &mut *index {
            disk.file = None;
            disk.unusable = false;
        }
    }

    /// Gives the files the names of removed ones and returns those. A rename that fails leaves a leftover
    /// under the old name, which the next open sweeps.
    pub(crate) fn mark_removed(&self) -> Vec<PathBuf> {
        let mut files = self.files();
        let mut paths = Vec::new();
        if files.removed {
            return paths;
        }
        for kind in Kind::ALL {
            let to = self.path_when(kind, true);
            if self
                .home
                .vfs
                .rename(&self.path_when(kind, false), &to)
                .is_ok()
            {
                paths.push(to);
            }
        }
        files.removed = true;
        paths
    }

    /// Names of the files once they are removed.
    pub(crate) fn removed_paths(&self) -> [PathBuf; 3] {
        Kind::ALL.map(|kind| self.path_when(kind, true))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Tells readers that bytes are about to be taken away.
    pub(crate) fn bump_generation(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Adds points behind those in memory.
    pub(crate) fn push_points(&self, points: &[Point]) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        match &mut *index {
            Index::Memory(all) => all.extend_from_slice(points),
            Index::Disk(_) => unreachable!("only a segment with its index in memory grows"),
        }
    }

    /// Points in memory of runs that begin below `end`.
    pub(crate) fn points_below(&self, end: u64) -> Vec<Point> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        match &*index {
            Index::Memory(all) => all
                .iter()
                .copied()
                .filter(|p| u64::from(p.position) < end)
                .collect(),
            Index::Disk(_) => Vec::new(),
        }
    }

    /// Replaces the index by points in memory: for a segment that becomes active again.
    pub(crate) fn set_points(&self, points: Vec<Point>) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        *index = Index::Memory(points);
    }

    /// From now on the index is read from disk, where all of it is.
    pub(crate) fn index_is_on_disk(&self) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let fences = match &*index {
            Index::Memory(points) => Some(Arc::new(Fences::of(points))),
            Index::Disk(disk) => disk.fences.clone(),
        };
        *index = Index::Disk(DiskIndex {
            fences,
            ..DiskIndex::default()
        });
    }

    /// Whether these bytes start with the header of this very segment.
    pub(crate) fn owns(&self, magic: &[u8; 8], bytes: &[u8]) -> bool {
        let header = SegmentHeader::decode(magic, &self.home.identity, bytes);
        header.is_ok_and(|h| h.segment_id == self.id && h.base_offset == self.base)
    }

    const fn owner(&self) -> Owner {
        Owner {
            id: self.id,
            base: self.base,
        }
    }

    /// The index, opened and swept now if it is not yet and `mode` allows.
    fn usable(&self, mode: ReadMode) -> Usable {
        let known = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            match &*index {
                Index::Memory(_) => return Usable::Memory,
                Index::Disk(disk) => disk.clone(),
            }
        };
        match known {
            DiskIndex { unusable: true, .. } => return Usable::None,
            DiskIndex {
                file: Some(file),
                fences: Some(fences),
                ..
            } => return Usable::Disk(file, fences),
            _ if mode == ReadMode::NoWait => return Usable::Wait,
            _ => {}
        }
        let opened = self.open_index(known.fences);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let Index::Disk(disk) = &mut *index else {
            return Usable::Memory;
        };
        match opened {
            Some((file, fences)) => {
                disk.file = Some(file.clone());
                disk.fences = Some(fences.clone());
                Usable::Disk(file, fences)
            }
            None => {
                disk.unusable = true;
                Usable::None
            }
        }
    }

    fn open_index(&self, fences: Option<Arc<Fences>>) -> Option<(Arc<dyn File>, Arc<Fences>)> {
        let file = self.home.vfs.open_read(&self.path(Kind::Index)).ok()?;
        if let Some(fences) = fences {
            // Every entry proves by its checksum whose it is.
            return Some((file, fences));
        }
        let mut header = Vec::new();
        file.read_into(0, HEADER_BYTES, &mut header).ok()?;
        if !self.owns(INDEX_MAGIC, &header) {
            return None;
        }
        let fences = Fences::sweep(&*file, self.owner()).ok()?;
        Some((file, Arc::new(fences)))
    }

    /// Where to start looking for the batch that holds `offset`. `None`: it would block.
    pub(crate) fn find(&self, offset: Offset, mode: ReadMode) -> Option<Place> {
        match self.usable(mode) {
            Usable::Disk(file, fences) => fences
                .find(&*file, self.owner(), offset, mode)
                // What cannot be read is searched for in the log itself.
                .unwrap_or(Some(self.owner().start())),
            Usable::None => Some(self.owner().start()),
            Usable::Wait => None,
            Usable::Memory => Some(self.find_in_memory(offset)),
        }
    }

    fn find_in_memory(&self, offset: Offset) -> Place {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let Index::Memory(points) = &*index else {
            return self.owner().start();
        };
        let relative = offset.since(self.base);
        let after = points.partition_point(|p| u64::from(p.offset) <= relative);
        let at = after.checked_sub(1).and_then(|i| points.get(i));
        let owner = self.owner();
        Place {
            next: points.get(after).map(|p| u64::from(p.position)),
            ..at.map_or(owner.start(), |p| owner.place_of(p))
        }
    }

    /// The first offset after `offset` at which an index entry begins, if there is one. Waits for the disk.
    pub(crate) fn next_run(&self, offset: Offset) -> Option<Offset> {
        match self.usable(ReadMode::Blocking) {
            Usable::Disk(file, fences) => {
                let next = fences.next_run(&*file, self.owner(), offset);
                return next.ok().flatten();
            }
            Usable::None | Usable::Wait => return None,
            Usable::Memory => {}
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let Index::Memory(points) = &*index else {
            return None;
        };
        let relative = offset.since(self.base);
        let after = points.partition_point(|p| u64::from(p.offset) <= relative);
        points.get(after).map(|p| self.owner().place_of(p).first)
    }

    /// A place before which no record of this segment has a timestamp of `timestamp` or more. `None`: no
    /// indexed record has one, and the search begins after the last indexed run. Waits for the disk.
    pub(crate) fn find_time(&self, timestamp: i64) -> Option<Place> {
        match self.usable(ReadMode::Blocking) {
            Usable::Disk(file, fences) => {
                let mode = ReadMode::Blocking;
                let found = fences.find_time(&*file, self.owner(), timestamp, mode);
                Some(found.ok().flatten().unwrap_or(self.owner().start()))
            }
            Usable::None | Usable::Wait => Some(self.find_in_time_index(timestamp)),
            Usable::Memory => {
                let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
                let Index::Memory(points) = &*index else {
                    return Some(self.owner().start());
                };
                let at = points.partition_point(|p| p.max_timestamp < timestamp);
                let next = points.get(at + 1).map(|p| u64::from(p.position));
                points.get(at).map(|p| Place {
                    next,
                    ..self.owner().place_of(p)
                })
            }
        }
    }

    /// The time index, for when the offset index, which knows times as well, cannot be used.
    fn find_in_time_index(&self, timestamp: i64) -> Place {
        let Ok(bytes) = self.home.vfs.read(&self.path(Kind::TimeIndex)) else {
            return self.owner().start();
        };
        if !self.owns(TIME_INDEX_MAGIC, &bytes) {
            return self.owner().start();
        }
        let mut last = self.owner().start();
        for entry in
            (0..entry_count(&bytes, TIME_ENTRY_BYTES)).map(|i| time_entry_at(&bytes, self.id, i))
        {
            // What a damaged one said is not known: begin at the last run before it.
            let Some(e) = entry else { break };
            let place = Place {
                position: u64::from(e.position),
                first: e.offset,
                next: None,
            };
            if e.timestamp >= timestamp {
                return place;
            }
            last = place;
        }
        last
    }
}

/// Entries of an index file, whole ones only.
fn entry_count(map: &[u8], entry_bytes: usize) -> u32 {
    u32::try_from(map.len().saturating_sub(HEADER_BYTES) / entry_bytes).unwrap_or(u32::MAX)
}

pub(crate) fn companion_at(map: &[u8], segment_id: u64, number: u32) -> Option<Companion> {
    let at = HEADER_BYTES + number as usize * ENTRY_BYTES;
    Companion::decode(map.get(at..at + ENTRY_BYTES)?, segment_id, number)
}

pub(crate) fn time_entry_at(map: &[u8], segment_id: u64, number: u32) -> Option<TimeEntry> {
    let at = HEADER_BYTES + number as usize * TIME_ENTRY_BYTES;
    TimeEntry::decode(map.get(at..at + TIME_ENTRY_BYTES)?, segment_id, number)
}

/// Builds the bytes of a `.timeindex` file from all companions of a segment.
pub(crate) fn time_index_bytes(
    home: &Home,
    header: &SegmentHeader,
    companions: &[Companion],
) -> Vec<u8> {
    let mut bytes = header.encode(TIME_INDEX_MAGIC, &home.identity);
    let (mut number, mut highest) = (0, i64::MIN);
    for c in companions {
        if let Some(entry) = time_entry(c, &mut highest) {
            bytes.extend_from_slice(&entry.encode(header.segment_id, number));
            number += 1;
        }
    }
    bytes
}

/// The time entry of a run, if it raised the highest timestamp so far.
pub(crate) fn time_entry(c: &Companion, highest: &mut i64) -> Option<TimeEntry> {
    if c.max_timestamp <= *highest {
        return None;
    }
    *highest = c.max_timestamp;
    let position = u32::try_from(c.position).unwrap_or(u32::MAX);
    Some(TimeEntry {
        timestamp: c.max_timestamp,
        offset: c.first,
        position,
    })
}

/// Builds the bytes of an `.index` file.
pub(crate) fn index_bytes(
    home: &Home,
    header: &SegmentHeader,
    companions: &[Companion],
) -> Vec<u8> {
    let mut bytes = header.encode(INDEX_MAGIC, &home.identity);
    for (number, c) in companions.iter().enumerate() {
        bytes.extend_from_slice(&c.encode(header.segment_id, number as u32));
    }
    bytes
}

/// All intact companions of an index file's bytes, with their numbers.
pub(crate) fn intact_companions(
    bytes: &[u8],
    segment_id: u64,
) -> impl Iterator<Item = (u32, Companion)> + '_ {
    (0..entry_count(bytes, ENTRY_BYTES))
        .filter_map(move |i| companion_at(bytes, segment_id, i).map(|c| (i, c)))
}

/// What the name of a segment's file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentName {
    pub(crate) base: Offset,
    /// The segment's id, in the name of a compacted one only.
    pub(crate) compacted: Option<u64>,
    pub(crate) kind: Kind,
}

/// Whether a directory entry's name is that of a segment file, and of which segment.
pub(crate) fn parse_name(name: &str) -> Option<SegmentName> {
    let (stem, extension) = Path::new(name)
        .file_stem()?
        .to_str()
        .zip(name.rsplit('.').next())?;
    let kind = Kind::ALL.into_iter().find(|k| k.extension() == extension)?;
    let (base, id) = match stem.split_once('-') {
        Some((base, id)) => (base, Some(id)),
        None => (stem, None),
    };
    let digits = base.len() == 20 && base.bytes().all(|b| b.is_ascii_digit());
    let base = Offset::new(base.parse().ok().filter(|_| digits)?)?;
    let compacted = match id {
        Some(id) => {
            let number: u64 = id.parse().ok()?;
            // Only the one way to write a number, so that a name means one segment.
            Some(number).filter(|n| n.to_string() == id).map(Some)?
        }
        None => None,
    };
    Some(SegmentName {
        base,
        compacted,
        kind,
    })
}
