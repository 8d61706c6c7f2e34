//! What a read costs: how many files it opens, how many bytes it reads of which, and that a read which must
//! not wait does not. Counted at the seam, so that the numbers are those of any disk.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::IoSlice;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::common::*;
use varve_storage::{Log, LogConfig, ReadMode, ReadOutcome};
use varve_types::Offset;
use varve_vfs::mem::MemVfs;
use varve_vfs::{DirEntry, File, LockError, LockGuard, Mapped, RealVfs, Space, Vfs, VfsError};

/// What was asked of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Open(String),
    Read { file: String, at: u64, len: usize },
    Other(&'static str),
}

/// A disk in memory that writes down what is asked of it. `cold`: nothing is in the page cache.
#[derive(Debug, Clone)]
struct Counting {
    disk: MemVfs,
    calls: Arc<Mutex<Vec<Call>>>,
    cold: Arc<Mutex<bool>>,
}

#[derive(Debug)]
struct Counted {
    file: Arc<dyn File>,
    vfs: Counting,
}

fn name(path: &Path) -> String {
    path.extension()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

impl Counting {
    fn new() -> (Self, Arc<dyn Vfs>) {
        let counting = Self {
            disk: MemVfs::new(),
            calls: Arc::default(),
            cold: Arc::default(),
        };
        let vfs: Arc<dyn Vfs> = Arc::new(counting.clone());
        (counting, vfs)
    }

    fn push(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn set_cold(&self, cold: bool) {
        *self.cold.lock().unwrap() = cold;
    }

    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        let vfs = self.clone();
        Arc::new(Counted { file, vfs })
    }
}

impl File for Counted {
    fn path(&self) -> &Path {
        self.file.path()
    }
    fn read_into(&self, at: u64, len: usize, buf: &mut Vec<u8>) -> Result<usize, VfsError> {
        let file = name(self.path());
        self.vfs.push(Call::Read { file, at, len });
        self.file.read_into(at, len, buf)
    }
    fn read_into_nowait(
        &self,
        at: u64,
        len: usize,
        buf: &mut Vec<u8>,
    ) -> Result<Option<usize>, VfsError> {
        if *self.vfs.cold.lock().unwrap() {
            return Ok(None);
        }
        self.read_into(at, len, buf).map(Some)
    }
    fn write_all_at(&self, bufs: &[IoSlice<'_>], at: u64) -> Result<(), VfsError> {
        self.file.write_all_at(bufs, at)
    }
    fn sync_data(&self) -> Result<(), VfsError> {
        self.vfs.push(Call::Other("sync"));
        self.file.sync_data()
    }
    fn sync_all(&self) -> Result<(), VfsError> {
        self.vfs.push(Call::Other("sync"));
        self.file.sync_all()
    }
    fn len(&self) -> Result<u64, VfsError> {
        self.vfs.push(Call::Other("stat"));
        self.file.len()
    }
    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        self.file.set_len(len)
    }
    fn map_read(&self) -> Result<Mapped, VfsError> {
        self.vfs.push(Call::Other("map"));
        self.file.map_read()
    }
}

impl Vfs for Counting {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        Ok(self.wrap(self.disk.create_new(path)?))
    }
    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        Ok(self.wrap(self.disk.open_write(path)?))
    }
    fn open_read(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.push(Call::Open(name(path)));
        Ok(self.wrap(self.disk.open_read(path)?))
    }
    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        self.disk.exists(path)
    }
    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, VfsError> {
        self.disk.list(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.disk.create_dir_all(dir)
    }
    fn remove_file(&self, path: &Path) -> Result<(), VfsError> {
        self.disk.remove_file(path)
    }
    fn remove_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.disk.remove_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        self.disk.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        self.disk.sync_dir(dir)
    }
    fn free_space(&self, path: &Path) -> Result<Space, VfsError> {
        self.disk.free_space(path)
    }
    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        self.disk.lock(path)
    }
}

/// Batches of a segment: enough for several index blocks.
const BATCHES: usize = 1_000;

/// Two sealed segments with an index of 1,000 entries each, an active one, everything flushed.
fn filled(vfs: &Arc<dyn Vfs>) -> Log {
    let every_batch = LogConfig {
        index_interval_bytes: 1,
        ..config()
    };
    let (mut log, _) = open(vfs, every_batch, false);
    for _ in 0..2 {
        fill(&mut log, BATCHES);
        log.roll().unwrap();
    }
    fill(&mut log, 10);
    log.flush_now().unwrap();
    log
}

fn read_one(log: &Log, offset: Offset, mode: ReadMode) -> Option<Vec<u8>> {
    let view = log.view();
    match view
        .read(offset, 1, log.log_end(), true, mode, None)
        .unwrap()
    {
        ReadOutcome::Slice(slice) => {
            assert!(slice.base_offset <= offset && offset < slice.next_offset);
            Some(slice.bytes.to_vec())
        }
        ReadOutcome::WouldBlock => None,
    }
}

/// Scattered offsets of the two sealed segments.
fn scattered() -> impl Iterator<Item = Offset> {
    (0..200_i64).map(|n| o((n * 2_654_435_761 + 17) % (2 * BATCHES as i64 * 3)))
}

fn check_cost(calls: &[Call], what: &str) {
    let opens = calls.iter().filter(|c| matches!(c, Call::Open(_))).count();
    let reads = |kind: &str| -> Vec<(u64, usize)> {
        let read = |c: &Call| match c {
            Call::Read { file, at, len } if file == kind => Some((*at, *len)),
            _ => None,
        };
        calls.iter().filter_map(read).collect()
    };
    let (index, log) = (reads("index"), reads("log"));
    assert!(opens <= 2, "{what}: {calls:?}");
    assert!(index.len() <= 1 && log.len() == 1, "{what}: {calls:?}");
    for (at, len) in index {
        assert_eq!(
            at / 4096,
            (at + len as u64 - 1) / 4096,
            "one page: {calls:?}"
        );
    }
    assert!(calls.len() <= opens + 2, "{what}: nothing else: {calls:?}");
}

#[test]
fn a_cold_read_is_one_page_of_the_index_and_one_read_of_the_log() {
    let (counting, vfs) = Counting::new();
    let log = filled(&vfs);
    for offset in scattered() {
        log.release_idle();
        counting.take();
        read_one(&log, offset, ReadMode::Blocking).unwrap();
        check_cost(&counting.take(), &format!("offset {offset}"));
    }
}

#[test]
fn a_lookup_by_time_is_one_page_of_the_index_and_one_read_of_the_log() {
    let (counting, vfs) = Counting::new();
    let log = filled(&vfs);
    for offset in scattered() {
        log.release_idle();
        counting.take();
        let wanted = NOW + offset.get();
        let found = log.view().offset_for_timestamp(wanted, log.log_end());
        assert_eq!(found.unwrap(), Some((offset, wanted)));
        check_cost(&counting.take(), &format!("time {wanted}"));
    }
}

#[test]
fn the_first_lookup_after_a_start_reads_the_index_once_and_later_ones_a_page() {
    let (counting, vfs) = Counting::new();
    filled(&vfs).close(true).unwrap();
    let (log, _) = open(&vfs, config(), true);
    counting.take();
    read_one(&log, o(1_000), ReadMode::Blocking).unwrap();
    let calls = counting.take();
    let of_index = |c: &&Call| matches!(c, Call::Read { file, .. } if file == "index");
    // The header, all of it in one piece, and the block that is looked for.
    assert_eq!(calls.iter().filter(of_index).count(), 3, "{calls:?}");
    for offset in scattered().filter(|offset| *offset < o(3_000)) {
        log.release_idle();
        counting.take();
        read_one(&log, offset, ReadMode::Blocking).unwrap();
        check_cost(&counting.take(), &format!("offset {offset}"));
    }
}

#[test]
fn a_large_batch_behind_small_ones_still_takes_one_read() {
    let (counting, vfs) = Counting::new();
    let (mut log, _) = open(&vfs, config(), false);
    for _ in 0..20 {
        let next = log.log_end();
        log.append(&[batch(next, 1, NOW, 1, 10)], NOW).unwrap();
        let next = log.log_end();
        log.append(&[batch(next, 1, NOW, 1, 30_000)], NOW).unwrap();
    }
    log.roll().unwrap();
    log.flush_now().unwrap();
    for offset in (0..40).map(o) {
        log.release_idle();
        counting.take();
        read_one(&log, offset, ReadMode::Blocking).unwrap();
        check_cost(&counting.take(), &format!("offset {offset}"));
    }
}

#[test]
fn a_read_that_must_not_wait_never_touches_a_cold_disk() {
    let (counting, vfs) = Counting::new();
    let log = filled(&vfs);
    log.release_idle();
    counting.set_cold(true);
    counting.take();
    for offset in scattered() {
        assert_eq!(read_one(&log, offset, ReadMode::NoWait), None);
    }
    assert_eq!(counting.take(), [], "no open, no read, no stat");
    // Warm files with nothing of them in memory: still nothing that waits.
    read_one(&log, o(5), ReadMode::Blocking).unwrap();
    counting.take();
    for offset in scattered().filter(|offset| *offset < o(3_000)) {
        assert_eq!(read_one(&log, offset, ReadMode::NoWait), None);
    }
    assert_eq!(counting.take(), []);
    counting.set_cold(false);
    for offset in scattered().filter(|offset| *offset < o(3_000)) {
        assert!(read_one(&log, offset, ReadMode::NoWait).is_some());
    }
}

#[test]
fn the_tail_is_read_without_waiting_and_without_an_index() {
    let (counting, vfs) = Counting::new();
    let mut log = filled(&vfs);
    for _ in 0..50 {
        let written = fill(&mut log, 2);
        counting.take();
        let first = written[0].header().base_offset;
        let read = read_one(&log, first, ReadMode::NoWait).unwrap();
        assert_eq!(read, written[0].to_bytes());
        let calls = counting.take();
        assert!(
            matches!(&calls[..], [Call::Read { file, .. }] if file == "log"),
            "{calls:?}"
        );
    }
}

/// On the machine's own disk, where it can tell: what was just written is in memory.
#[test]
fn the_tail_on_a_real_disk_is_read_without_waiting() {
    let home = tempfile::tempdir().unwrap();
    let probe = home.path().join("probe");
    let file = RealVfs.create_new(&probe).unwrap();
    file.write_all_at(&[IoSlice::new(b"x")], 0).unwrap();
    if file
        .read_into_nowait(0, 1, &mut Vec::new())
        .unwrap()
        .is_none()
    {
        eprintln!("skipped: this file system cannot read without waiting");
        return;
    }
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let dir = home.path().join("log");
    let mode = varve_storage::OpenMode { clean: false };
    let (mut log, _) = Log::open(vfs, &dir, identity(), config(), mode, NOW).unwrap();
    for round in 0..50 {
        let written = fill(&mut log, 2);
        if round % 2 == 0 {
            log.flush_now().unwrap();
        }
        let first = written[0].header().base_offset;
        let read = read_one(&log, first, ReadMode::NoWait).expect("it is in memory");
        assert_eq!(read, written[0].to_bytes());
    }
}

/// Another process cuts, empties and overwrites files behind a reader's back. The process lives, and every
/// answer is an error or the right bytes.
#[test]
fn files_cut_by_another_process_are_an_error_and_not_a_signal() {
    let home = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let dir = home.path().join("log");
    let mode = varve_storage::OpenMode { clean: false };
    let every_batch = LogConfig {
        index_interval_bytes: 1,
        ..config()
    };
    let (mut log, _) = Log::open(vfs, &dir, identity(), every_batch, mode, NOW).unwrap();
    let written = fill(&mut log, BATCHES);
    log.roll().unwrap();
    log.flush_now().unwrap();
    let right = |offset: Offset| {
        let at = written.partition_point(|b| b.header().next_offset() <= offset);
        written[at].to_bytes().to_vec()
    };
    let check = |what: &str, log: &Log| {
        let mut wrong = 0;
        for offset in scattered().filter(|offset| *offset < log.log_end()) {
            let read = log.view();
            let read = read.read(offset, 1, log.log_end(), true, ReadMode::Blocking, None);
            match read {
                Ok(ReadOutcome::Slice(slice)) => assert_eq!(slice.bytes, right(offset), "{what}"),
                Ok(ReadOutcome::WouldBlock) => panic!("a blocking read does not block"),
                Err(_) => wrong += 1,
            }
            // It may be an error, and it must come back.
            let _ = log
                .view()
                .offset_for_timestamp(NOW + offset.get(), log.log_end());
        }
        wrong
    };
    assert_eq!(check("whole", &log), 0);
    let path = |kind: &str| dir.join(format!("{:020}.{kind}", 0));
    let cut = |kind: &str, len: u64| {
        RealVfs
            .open_write(&path(kind))
            .unwrap()
            .set_len(len)
            .unwrap();
    };
    for len in [40_000, 4_096, 100, 64, 10, 0] {
        // Read before and after, so that whatever is kept of the file is kept while it is cut.
        cut("index", len);
        assert_eq!(check("index cut", &log), 0, "the index can be done without");
        log.release_idle();
        assert_eq!(check("index cut, opened again", &log), 0);
    }
    cut("timeindex", 10);
    assert_eq!(check("time index cut", &log), 0);
    for len in [100_000, 5_000, 0] {
        cut("log", len);
        assert!(
            check("log cut", &log) > 0,
            "bytes that are gone are an error"
        );
        log.release_idle();
        assert!(check("log cut, opened again", &log) > 0);
    }
    let gone = log.view().headers(Offset::ZERO).next().unwrap();
    assert!(gone.is_err(), "{gone:?}");
}
