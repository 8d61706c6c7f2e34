//! One segment as its readers see it: its files, opened when first needed and shared, and the lookup from
//! offset or timestamp to a byte position. The writer's side of the active segment is `tail`.
//!
//! Invariants: a position that a lookup returns is the start of a batch at or before the one asked for; a
//! damaged index entry is never used, only skipped, so it costs time and no answer. A sealed segment's
//! files never shrink; the active one's may, and `generation` tells readers that it did.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use varve_types::Offset;
use varve_vfs::{File, Mapped, Vfs, VfsError, durable};

use crate::format::{
    Companion, ENTRY_BYTES, HEADER_BYTES, INDEX_MAGIC, ListedSegment, LogIdentity, SegmentHeader,
    TIME_ENTRY_BYTES, TIME_INDEX_MAGIC, TimeEntry,
};

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
        self.dir
            .join(format!("{:020}.{}", base.get(), kind.extension()))
    }

    /// Path of a file of a segment that a compaction wrote: its id too, because the segment that it
    /// replaces may have the same base offset.
    pub(crate) fn compacted_path(&self, base: Offset, id: u64, kind: Kind) -> PathBuf {
        self.dir
            .join(format!("{:020}-{id}.{}", base.get(), kind.extension()))
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
    /// Start of the next run, if one is known: the batch begins before it.
    pub(crate) next: Option<u64>,
}

#[derive(Debug, Default)]
enum Mapping {
    #[default]
    NotYet,
    /// The file's header is right.
    Good(Arc<Mapped>),
    /// Missing or not of this segment: lookups go without.
    Unusable,
}

#[derive(Debug)]
enum Index {
    /// The active segment, and sealed ones until all their entries are on disk.
    Memory(Vec<Point>),
    Disk {
        offsets: Mapping,
        times: Mapping,
    },
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
            None => Index::Disk {
                offsets: Mapping::NotYet,
                times: Mapping::NotYet,
            },
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

    /// Lets go of the file handle and the mapped indexes; the next read opens them again.
    pub(crate) fn release(&self) {
        self.files().log = None;
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Index::Disk { offsets, times } = &mut *index {
            (*offsets, *times) = (Mapping::NotYet, Mapping::NotYet);
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
            Index::Disk { .. } => unreachable!("only a segment with its index in memory grows"),
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
            Index::Disk { .. } => Vec::new(),
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
        *index = Index::Disk {
            offsets: Mapping::NotYet,
            times: Mapping::NotYet,
        };
    }

    fn map(&self, kind: Kind, magic: &[u8; 8]) -> Mapping {
        let path = self.path(kind);
        let map = || -> Result<Mapped, VfsError> { self.home.vfs.open_read(&path)?.map_read() };
        match map() {
            Ok(map) if self.owns(magic, &map) => Mapping::Good(Arc::new(map)),
            _ => Mapping::Unusable,
        }
    }

    /// Whether these bytes start with the header of this very segment.
    pub(crate) fn owns(&self, magic: &[u8; 8], bytes: &[u8]) -> bool {
        let header = SegmentHeader::decode(magic, &self.home.identity, bytes);
        header.is_ok_and(|h| h.segment_id == self.id && h.base_offset == self.base)
    }

    /// The mapped index files, mapped now if they are not yet. `None`: the index is in memory.
    fn mapped(&self) -> Option<[Option<Arc<Mapped>>; 2]> {
        let good = |m: &Mapping| {
            if let Mapping::Good(map) = m {
                Some(map.clone())
            } else {
                None
            }
        };
        {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            match &*index {
                Index::Memory(_) => return None,
                Index::Disk {
                    offsets: Mapping::NotYet,
                    ..
                } => {}
                Index::Disk { offsets, times } => return Some([good(offsets), good(times)]),
            }
        }
        let fresh_offsets = self.map(Kind::Index, INDEX_MAGIC);
        let fresh_times = self.map(Kind::TimeIndex, TIME_INDEX_MAGIC);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        match &mut *index {
            Index::Memory(_) => None,
            Index::Disk { offsets, times } => {
                (*offsets, *times) = (fresh_offsets, fresh_times);
                Some([good(offsets), good(times)])
            }
        }
    }

    /// Where to start looking for the batch that holds `offset`.
    pub(crate) fn find(&self, offset: Offset) -> Place {
        if let Some([offsets, _]) = self.mapped() {
            return match offsets {
                Some(map) => find_on_disk(&map, self.id, offset),
                None => Place {
                    position: 0,
                    next: None,
                },
            };
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let Index::Memory(points) = &*index else {
            return Place {
                position: 0,
                next: None,
            };
        };
        let relative = offset.since(self.base);
        let after = points.partition_point(|p| u64::from(p.offset) <= relative);
        let position = after
            .checked_sub(1)
            .map_or(0, |i| u64::from(points[i].position));
        Place {
            position,
            next: points.get(after).map(|p| u64::from(p.position)),
        }
    }

    /// A position before which no record of this segment has a timestamp of `timestamp` or more.
    /// `None`: no indexed record has one, and the search begins after the last indexed run.
    pub(crate) fn find_time(&self, timestamp: i64) -> Option<u64> {
        if let Some([offsets, times]) = self.mapped() {
            return find_time_on_disk(offsets.as_deref(), times.as_deref(), self.id, timestamp);
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let Index::Memory(points) = &*index else {
            return Some(0);
        };
        let at = points.partition_point(|p| p.max_timestamp < timestamp);
        points.get(at).map(|p| u64::from(p.position))
    }
}

/// Entries of a mapped index file, whole ones only.
fn entry_count(map: &[u8], entry_bytes: usize) -> u32 {
    u32::try_from(map.len().saturating_sub(HEADER_BYTES) / entry_bytes).unwrap_or(u32::MAX)
}

pub(crate) fn companion_at(map: &[u8], segment_id: u64, number: u32) -> Option<Companion> {
    let at = HEADER_BYTES + number as usize * ENTRY_BYTES;
    Companion::decode(map.get(at..at + ENTRY_BYTES)?, segment_id, number)
}

fn time_entry_at(map: &[u8], segment_id: u64, number: u32) -> Option<TimeEntry> {
    let at = HEADER_BYTES + number as usize * TIME_ENTRY_BYTES;
    TimeEntry::decode(map.get(at..at + TIME_ENTRY_BYTES)?, segment_id, number)
}

/// Number of entries for which `before` holds, given that it holds for a prefix. `None`: a damaged entry
/// was met.
fn partition<T>(
    count: u32,
    entry: impl Fn(u32) -> Option<T>,
    before: impl Fn(&T) -> bool,
) -> Option<u32> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(&entry(middle)?) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Some(low)
}

fn find_on_disk(map: &[u8], segment_id: u64, offset: Offset) -> Place {
    let count = entry_count(map, ENTRY_BYTES);
    let entry = |i: u32| companion_at(map, segment_id, i);
    let floor = match partition(count, entry, |e| e.first <= offset) {
        Some(after) => after.checked_sub(1).and_then(entry),
        // A damaged entry is in the way: look at all of them, and use what is intact.
        None => (0..count)
            .filter_map(entry)
            .take_while(|e| e.first <= offset)
            .last(),
    };
    match floor {
        Some(e) if offset < e.next => Place {
            position: e.position,
            next: Some(e.end),
        },
        // Between two runs lies a damaged entry; after the last lies what is not indexed.
        Some(e) => Place {
            position: e.end,
            next: None,
        },
        None => Place {
            position: 0,
            next: None,
        },
    }
}

fn find_time_on_disk(
    offsets: Option<&Mapped>,
    times: Option<&Mapped>,
    segment_id: u64,
    timestamp: i64,
) -> Option<u64> {
    if let Some(map) = times {
        let count = entry_count(map, TIME_ENTRY_BYTES);
        let entry = |i: u32| time_entry_at(map, segment_id, i);
        if let Some(at) = partition(count, entry, |e| e.timestamp < timestamp)
            && at < count
        {
            return entry(at).map(|e| u64::from(e.position));
        }
        // Past the end, or damaged: the other index has the same knowledge and more entries.
    }
    let Some(map) = offsets else { return Some(0) };
    let count = entry_count(map, ENTRY_BYTES);
    let mut from = 0;
    for e in (0..count).filter_map(|i| companion_at(map, segment_id, i)) {
        if e.max_timestamp >= timestamp {
            // A damaged entry just before may have held it: begin where intact knowledge ends.
            return Some(e.position.min(from));
        }
        from = e.end;
    }
    Some(from)
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
