//! A recorded history of a disk: every operation that changes something, in order, with marks of what the
//! program promised in between. Replaying a prefix gives the disk as it was at that moment, unsynced
//! changes included.
//!
//! Invariant: a replay of the whole trace on the same start is the recorded disk. Reads are not recorded.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use varve_vfs::mem::MemVfs;
use varve_vfs::{DirEntry, File, LockError, LockGuard, Mapped, Space, Vfs, VfsError};

/// One step of a history. Files are numbered by handle.
#[derive(Debug, Clone)]
pub enum Step<M> {
    /// Directories made.
    MakeDirs(PathBuf),
    /// File made and opened as that number.
    Create(PathBuf, usize),
    /// File opened as that number.
    Open(PathBuf, usize),
    /// Bytes written to a file at a position.
    Write(usize, u64, Bytes),
    /// Length set.
    SetLen(usize, u64),
    /// File synced.
    Sync(usize),
    /// Directory synced.
    SyncDir(PathBuf),
    /// Renamed.
    Rename(PathBuf, PathBuf),
    /// File removed.
    Remove(PathBuf),
    /// Directory removed with all it holds.
    RemoveDir(PathBuf),
    /// The process was killed: what was written stays readable, and nothing more.
    Kill,
    /// The power was cut on a disk that writes in order: of the last `lost` changes nothing arrived but the
    /// first `torn` bytes of the first.
    PowerCut {
        /// Changes lost.
        lost: u64,
        /// Bytes of the first lost write that arrived.
        torn: usize,
    },
    /// What the program promises from here on.
    Mark(M),
}

/// A history and the disk it began with.
#[derive(Debug)]
pub struct Trace<M> {
    /// The disk before the first step.
    pub start: MemVfs,
    /// The steps.
    pub steps: Vec<Step<M>>,
}

/// Records what happens on a disk. Clones record into the same history.
#[derive(Debug)]
pub struct Recorder<M> {
    start: MemVfs,
    disk: MemVfs,
    steps: Arc<Mutex<Steps<M>>>,
}

#[derive(Debug)]
struct Steps<M> {
    all: Vec<Step<M>>,
    handles: usize,
}

impl<M> Clone for Recorder<M> {
    fn clone(&self) -> Self {
        Self {
            start: self.start.clone(),
            disk: self.disk.clone(),
            steps: self.steps.clone(),
        }
    }
}

impl<M: Clone + Send + std::fmt::Debug + 'static> Recorder<M> {
    /// Records from now on what happens on `disk`, of which everything must be durable.
    #[must_use]
    pub fn new(disk: &MemVfs) -> Self {
        Self {
            start: disk.fork(),
            disk: disk.clone(),
            steps: Arc::new(Mutex::new(Steps {
                all: Vec::new(),
                handles: 0,
            })),
        }
    }

    fn steps(&self) -> MutexGuard<'_, Steps<M>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, step: Step<M>) {
        self.steps().all.push(step);
    }

    /// Notes a promise.
    pub fn mark(&self, mark: M) {
        self.push(Step::Mark(mark));
    }

    /// Kills the process: all handles are dead.
    pub fn kill(&self) {
        self.disk.kill_process();
        self.push(Step::Kill);
    }

    /// Cuts the power: see [`Step::PowerCut`].
    pub fn power_cut(&self, lost: u64, torn: usize) {
        power_cut(&self.disk, lost, torn);
        self.push(Step::PowerCut { lost, torn });
    }

    /// The history so far.
    #[must_use]
    pub fn trace(&self) -> Trace<M> {
        Trace {
            start: self.start.fork(),
            steps: self.steps().all.clone(),
        }
    }

    fn wrap(&self, file: Arc<dyn File>, step: impl FnOnce(usize) -> Step<M>) -> Arc<dyn File> {
        let mut steps = self.steps();
        let number = steps.handles;
        steps.handles += 1;
        steps.all.push(step(number));
        drop(steps);
        Arc::new(RecordedFile {
            file,
            number,
            to: self.clone(),
        })
    }
}

fn power_cut(disk: &MemVfs, lost: u64, torn: usize) {
    disk.crash_in_order(disk.changes().saturating_sub(lost), torn);
}

#[derive(Debug)]
struct RecordedFile<M> {
    file: Arc<dyn File>,
    number: usize,
    to: Recorder<M>,
}

impl<M: Clone + Send + std::fmt::Debug + 'static> File for RecordedFile<M> {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn read_into(&self, at: u64, len: usize, buf: &mut Vec<u8>) -> Result<usize, VfsError> {
        self.file.read_into(at, len, buf)
    }

    fn read_into_nowait(
        &self,
        at: u64,
        len: usize,
        buf: &mut Vec<u8>,
    ) -> Result<Option<usize>, VfsError> {
        self.file.read_into_nowait(at, len, buf)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], at: u64) -> Result<(), VfsError> {
        self.file.write_all_at(bufs, at)?;
        let bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        self.to.push(Step::Write(self.number, at, bytes.into()));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), VfsError> {
        self.file.sync_data()?;
        self.to.push(Step::Sync(self.number));
        Ok(())
    }

    fn sync_all(&self) -> Result<(), VfsError> {
        self.sync_data()
    }

    fn len(&self) -> Result<u64, VfsError> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        self.file.set_len(len)?;
        self.to.push(Step::SetLen(self.number, len));
        Ok(())
    }

    fn map_read(&self) -> Result<Mapped, VfsError> {
        self.file.map_read()
    }
}

impl<M: Clone + Send + std::fmt::Debug + 'static> Vfs for Recorder<M> {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        let file = self.disk.create_new(path)?;
        Ok(self.wrap(file, |n| Step::Create(path.to_owned(), n)))
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        let file = self.disk.open_write(path)?;
        Ok(self.wrap(file, |n| Step::Open(path.to_owned(), n)))
    }

    fn open_read(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.disk.open_read(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        self.disk.exists(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, VfsError> {
        self.disk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.disk.create_dir_all(dir)?;
        self.push(Step::MakeDirs(dir.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<(), VfsError> {
        self.disk.remove_file(path)?;
        self.push(Step::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.disk.remove_dir_all(dir)?;
        self.push(Step::RemoveDir(dir.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        self.disk.rename(from, to)?;
        self.push(Step::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        self.disk.sync_dir(dir)?;
        self.push(Step::SyncDir(dir.to_owned()));
        Ok(())
    }

    fn free_space(&self, path: &Path) -> Result<Space, VfsError> {
        self.disk.free_space(path)
    }

    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        self.disk.lock(path)
    }
}

/// A disk that a history is played onto, step by step.
#[derive(Debug)]
pub struct Replay {
    /// The disk as it is now.
    pub disk: MemVfs,
    files: Vec<Arc<dyn File>>,
}

impl Replay {
    /// The disk before the first step.
    #[must_use]
    pub fn new<M>(trace: &Trace<M>) -> Self {
        Self {
            disk: trace.start.fork(),
            files: Vec::new(),
        }
    }

    /// Plays one step.
    ///
    /// # Errors
    /// When the disk refuses what it once did: the trace is not of this disk.
    pub fn step<M>(&mut self, step: &Step<M>) -> Result<(), VfsError> {
        match step {
            Step::MakeDirs(dir) => self.disk.create_dir_all(dir)?,
            Step::Create(path, _) => self.files.push(self.disk.create_new(path)?),
            Step::Open(path, _) => self.files.push(self.disk.open_write(path)?),
            Step::Write(file, at, bytes) => {
                self.files[*file].write_all_at(&[IoSlice::new(bytes)], *at)?;
            }
            Step::SetLen(file, len) => self.files[*file].set_len(*len)?,
            Step::Sync(file) => self.files[*file].sync_data()?,
            Step::SyncDir(dir) => self.disk.sync_dir(dir)?,
            Step::Rename(from, to) => self.disk.rename(from, to)?,
            Step::Remove(path) => self.disk.remove_file(path)?,
            Step::RemoveDir(dir) => self.disk.remove_dir_all(dir)?,
            Step::Kill => self.disk.kill_process(),
            Step::PowerCut { lost, torn } => power_cut(&self.disk, *lost, *torn),
            Step::Mark(_) => {}
        }
        Ok(())
    }
}
