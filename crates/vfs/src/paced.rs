//! Cold reads that leave the disk to flushes. [`PacedVfs`] wraps another file system; while files of it are
//! being synced, what is not in memory is read in pieces, without the kernel's readahead, and only a few at
//! once on the whole disk. What is in memory is never slowed, and a disk without flushes is read as before.
//!
//! Why: the kernel reads ahead of a sequential reader by megabytes at once. A flush that comes then waits
//! behind all of them in the queue of the disk. Pieces keep the queue short, and cost the reader the
//! readahead's bandwidth only as long as somebody waits for flushes.
//!
//! Invariants: the bytes and errors are those of the file system below; at most [`AT_ONCE`] pieces are read
//! at once while there are flushes; a reader that waits is woken by every piece that ends. [`ColdReads`]
//! decides and has neither clock nor lock of its own. It never delays a write or a sync.

use std::io::IoSlice;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Tick};
use crate::file::{DirEntry, File, LockError, LockGuard, Mapped, Space, Vfs, VfsError};

/// Bytes that a flush may find in front of it for each cold read that is under way.
pub const PIECE_BYTES: usize = 128 * 1024;
/// Pieces that are read from the disk at once while there are flushes.
pub const AT_ONCE: u32 = 2;
/// A disk has flushes for so long after the last one: somebody who flushes now and then finds a short queue too.
pub const FLUSHING_FOR: Duration = Duration::from_millis(500);

/// Whether a cold read may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is flushed: as much as is wanted, in one go.
    Free,
    /// One piece; [`ColdReads::piece_ended`] must follow.
    Piece,
    /// Ask again when a piece has ended.
    Wait,
}

/// Decides how cold reads share a disk with flushes.
#[derive(Debug, Default)]
pub struct ColdReads {
    /// Syncs that are under way.
    flushes: u32,
    last_flush: Option<Tick>,
    /// Pieces that are being read.
    pieces: u32,
}

impl ColdReads {
    /// A sync begins.
    pub fn flush_began(&mut self) {
        self.flushes += 1;
    }

    /// A sync has ended, however.
    ///
    /// # Panics
    /// When none is under way.
    pub fn flush_ended(&mut self, now: Tick) {
        assert!(self.flushes > 0, "a flush ends once");
        self.flushes -= 1;
        self.last_flush = Some(now);
    }

    /// Whether somebody flushes.
    #[must_use]
    pub fn is_flushing(&self, now: Tick) -> bool {
        let recent = |last: Tick| now.since(last) < FLUSHING_FOR;
        self.flushes > 0 || self.last_flush.is_some_and(recent)
    }

    /// Asks for a turn of a cold read.
    pub fn turn(&mut self, now: Tick) -> Turn {
        if !self.is_flushing(now) {
            return Turn::Free;
        }
        if self.pieces >= AT_ONCE {
            return Turn::Wait;
        }
        self.pieces += 1;
        Turn::Piece
    }

    /// A piece was read, or failed.
    ///
    /// # Panics
    /// When none is being read.
    pub fn piece_ended(&mut self) {
        assert!(self.pieces > 0, "a piece ends once");
        self.pieces -= 1;
    }
}

/// The decisions, a clock, and who waits.
#[derive(Debug)]
struct Gate {
    clock: Arc<dyn Clock>,
    reads: Mutex<ColdReads>,
    ended: Condvar,
}

impl Gate {
    fn reads(&self) -> MutexGuard<'_, ColdReads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_flushing(&self) -> bool {
        let now = self.clock.now();
        self.reads().is_flushing(now)
    }

    /// Runs a sync that readers make room for.
    fn flush<T>(&self, sync: impl FnOnce() -> T) -> T {
        self.reads().flush_began();
        let result = sync();
        let now = self.clock.now();
        self.reads().flush_ended(now);
        result
    }

    /// Runs one cold read, told whether it may only take a piece, when it is its turn.
    fn read<T>(&self, read: impl FnOnce(bool) -> T) -> T {
        let mut reads = self.reads();
        loop {
            match reads.turn(self.clock.now()) {
                Turn::Free => {
                    drop(reads);
                    return read(false);
                }
                Turn::Piece => {
                    drop(reads);
                    let result = read(true);
                    self.reads().piece_ended();
                    self.ended.notify_all();
                    return result;
                }
                Turn::Wait => {
                    let woken = self.ended.wait(reads);
                    reads = woken.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// A file system whose cold reads leave the disk to its flushes. Everything on one disk belongs below one
/// of them.
#[derive(Debug)]
pub struct PacedVfs {
    inner: Arc<dyn Vfs>,
    gate: Arc<Gate>,
}

impl PacedVfs {
    /// Paces the reads of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Vfs>, clock: Arc<dyn Clock>) -> Self {
        let gate = Gate {
            clock,
            reads: Mutex::default(),
            ended: Condvar::new(),
        };
        Self {
            inner,
            gate: Arc::new(gate),
        }
    }

    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(PacedFile {
            file,
            gate: Arc::clone(&self.gate),
            without_readahead: AtomicBool::new(false),
        })
    }
}

#[derive(Debug)]
struct PacedFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
    /// What the kernel was told last.
    without_readahead: AtomicBool,
}

impl PacedFile {
    /// Tells the kernel whether to read ahead, if it was told otherwise before.
    fn readahead(&self, wanted: bool) {
        if self.without_readahead.swap(!wanted, Ordering::Relaxed) == wanted {
            self.file.readahead(wanted);
        }
    }
}

/// Bytes from `at` to the end of its piece, `left` at most.
fn piece(at: u64, left: usize) -> usize {
    let into = at % PIECE_BYTES as u64;
    left.min(PIECE_BYTES - into as usize)
}

impl File for PacedFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn read_into(&self, at: u64, len: usize, buf: &mut Vec<u8>) -> Result<usize, VfsError> {
        let mut done = 0;
        while done < len {
            let (at, left) = (at + done as u64, len - done);
            if self.gate.is_flushing() {
                // What is in memory costs the disk nothing.
                self.readahead(false);
                let hot = self.file.read_into_nowait(at, piece(at, left), buf)?;
                if let Some(n) = hot.filter(|n| *n > 0) {
                    done += n;
                    continue;
                }
            }
            let (n, wanted) = self.gate.read(|one| {
                self.readahead(!one);
                let wanted = if one { piece(at, left) } else { left };
                self.file.read_into(at, wanted, buf).map(|n| (n, wanted))
            })?;
            done += n;
            if n < wanted {
                break;
            }
        }
        Ok(done)
    }

    fn read_into_nowait(
        &self,
        at: u64,
        len: usize,
        buf: &mut Vec<u8>,
    ) -> Result<Option<usize>, VfsError> {
        if !self.gate.is_flushing() {
            self.readahead(true);
            return self.file.read_into_nowait(at, len, buf);
        }
        // The kernel begins to read what it does not have, even for those who do not wait: one piece, and
        // nothing behind it.
        self.readahead(false);
        let mut done = 0;
        while done < len {
            let (at, left) = (at + done as u64, len - done);
            let wanted = piece(at, left);
            match self.file.read_into_nowait(at, wanted, buf)? {
                Some(n) => {
                    done += n;
                    if n < wanted {
                        break;
                    }
                }
                None if done == 0 => return Ok(None),
                None => break,
            }
        }
        Ok(Some(done))
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], at: u64) -> Result<(), VfsError> {
        self.file.write_all_at(bufs, at)
    }

    fn sync_data(&self) -> Result<(), VfsError> {
        self.gate.flush(|| self.file.sync_data())
    }

    fn sync_all(&self) -> Result<(), VfsError> {
        self.gate.flush(|| self.file.sync_all())
    }

    fn len(&self) -> Result<u64, VfsError> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        self.file.set_len(len)
    }

    fn map_read(&self) -> Result<Mapped, VfsError> {
        self.file.map_read()
    }

    fn drop_cache(&self, at: u64, len: u64) {
        self.file.drop_cache(at, len);
    }

    fn write_back(&self, at: u64, len: u64) {
        self.file.write_back(at, len);
    }

    fn readahead(&self, wanted: bool) {
        Self::readahead(self, wanted);
    }
}

impl Vfs for PacedVfs {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.inner.create_new(path).map(|f| self.wrap(f))
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.inner.open_write(path).map(|f| self.wrap(f))
    }

    fn open_read(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.inner.open_read(path).map(|f| self.wrap(f))
    }

    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        self.inner.exists(path)
    }

    fn is_link(&self, path: &Path) -> Result<bool, VfsError> {
        self.inner.is_link(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, VfsError> {
        self.inner.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.inner.create_dir_all(dir)
    }

    fn remove_file(&self, path: &Path) -> Result<(), VfsError> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.inner.remove_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        self.inner.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        self.inner.sync_dir(dir)
    }

    fn free_space(&self, path: &Path) -> Result<Space, VfsError> {
        self.inner.free_space(path)
    }

    fn is_of_this_machine(&self) -> bool {
        self.inner.is_of_this_machine()
    }

    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        self.inner.lock(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::real::RealVfs;

    fn at(ms: u64) -> Tick {
        Tick::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn without_flushes_every_read_is_free() {
        let mut reads = ColdReads::default();
        for _ in 0..10 * AT_ONCE {
            assert_eq!(reads.turn(at(0)), Turn::Free);
        }
    }

    #[test]
    fn beside_flushes_a_bounded_number_of_pieces_is_read_at_once() {
        let mut reads = ColdReads::default();
        reads.flush_began();
        for _ in 0..AT_ONCE {
            assert_eq!(reads.turn(at(0)), Turn::Piece);
        }
        assert_eq!(reads.turn(at(0)), Turn::Wait);
        // However long the flush takes.
        assert_eq!(reads.turn(at(60_000)), Turn::Wait);
        reads.piece_ended();
        assert_eq!(reads.turn(at(60_000)), Turn::Piece);
        assert_eq!(reads.turn(at(60_000)), Turn::Wait);
    }

    #[test]
    fn the_disk_is_given_back_some_time_after_the_last_flush() {
        let mut reads = ColdReads::default();
        reads.flush_began();
        reads.flush_began();
        reads.flush_ended(at(100));
        let long = FLUSHING_FOR.as_millis() as u64;
        assert!(reads.is_flushing(at(100 + 2 * long)), "one is under way");
        reads.flush_ended(at(200));
        assert_eq!(reads.turn(at(200 + long - 1)), Turn::Piece);
        // Pieces that are still being read hold up nobody who is free.
        assert_eq!(reads.turn(at(200 + long)), Turn::Free);
        reads.piece_ended();
        reads.flush_began();
        assert_eq!(reads.turn(at(200 + long)), Turn::Piece);
    }

    /// A file of several pieces and its content.
    fn file(vfs: &PacedVfs, dir: &Path) -> (Arc<dyn File>, Vec<u8>) {
        let len = 5 * PIECE_BYTES + 1000;
        let content: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        let file = vfs.create_new(&dir.join("f")).unwrap();
        file.write_all_at(&[IoSlice::new(&content)], 0).unwrap();
        (file, content)
    }

    #[test]
    fn hot_and_cold_reads_give_the_same_bytes_beside_flushes_and_without() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(0));
        let vfs = PacedVfs::new(Arc::new(RealVfs), clock.clone());
        let (file, content) = file(&vfs, dir.path());
        for flushing in [true, false, true] {
            if flushing {
                file.sync_data().unwrap();
            } else {
                clock.advance(FLUSHING_FOR);
            }
            assert_eq!(vfs.gate.is_flushing(), flushing);
            for (from, len) in [(0, 10), (100, 3 * PIECE_BYTES), (7, content.len() * 2)] {
                let expected = &content[from..content.len().min(from + len)];
                let mut hot = b"x".to_vec();
                if let Some(n) = file.read_into_nowait(from as u64, len, &mut hot).unwrap() {
                    assert_eq!(hot[1..], expected[..n]);
                }
                file.drop_cache(0, content.len() as u64);
                let mut cold = b"x".to_vec();
                assert_eq!(
                    file.read_into(from as u64, len, &mut cold).unwrap(),
                    expected.len()
                );
                assert!(cold[1..] == *expected);
            }
            let mut past = Vec::new();
            assert_eq!(file.read_into(1 << 30, 10, &mut past).unwrap(), 0);
        }
        assert_eq!(vfs.gate.reads().pieces, 0);
    }

    #[test]
    fn many_readers_beside_a_flusher_all_come_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(crate::SystemClock::new());
        let vfs = PacedVfs::new(Arc::new(RealVfs), clock);
        let (file, content) = file(&vfs, dir.path());
        file.sync_data().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 * AT_ONCE {
                scope.spawn(|| {
                    for _ in 0..20 {
                        file.drop_cache(0, content.len() as u64);
                        let mut bytes = Vec::new();
                        file.read_into(0, content.len(), &mut bytes).unwrap();
                        assert!(bytes == content);
                    }
                });
            }
            for _ in 0..50 {
                file.sync_data().unwrap();
                assert!(vfs.gate.reads().pieces <= AT_ONCE);
            }
        });
        assert_eq!(vfs.gate.reads().pieces, 0);
        assert_eq!(vfs.gate.reads().flushes, 0);
    }
}
