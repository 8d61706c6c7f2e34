//! A disk that sees which thread syncs, and that can hold calls of some threads up.

use std::io::IoSlice;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use varve_vfs::{DirEntry, File, LockError, LockGuard, Mapped, Space, Vfs, VfsError};

#[derive(Debug, Default)]
struct State {
    /// Names of threads that synced something.
    syncs: Vec<String>,
    /// Writes and syncs of threads whose name begins so wait.
    held: Option<&'static str>,
    waiting: usize,
}

/// The disk.
#[derive(Debug, Clone)]
pub struct WatchVfs {
    inner: Arc<dyn Vfs>,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl WatchVfs {
    pub fn new(inner: Arc<dyn Vfs>) -> Self {
        Self {
            inner,
            state: Arc::default(),
        }
    }

    /// Threads that have synced so far, by name.
    pub fn syncs_of(&self, prefix: &str) -> usize {
        let state = self.state.0.lock().unwrap();
        state.syncs.iter().filter(|n| n.starts_with(prefix)).count()
    }

    /// From now on writes and syncs of threads whose name begins so wait; `None` lets them go.
    pub fn hold(&self, prefix: Option<&'static str>) {
        self.state.0.lock().unwrap().held = prefix;
        self.state.1.notify_all();
    }

    /// How many calls wait now.
    pub fn waiting(&self) -> usize {
        self.state.0.lock().unwrap().waiting
    }

    fn pass(&self, sync: bool) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default().to_owned();
        let mut state = self.state.0.lock().unwrap();
        if sync {
            state.syncs.push(name.clone());
        }
        while state.held.is_some_and(|held| name.starts_with(held)) {
            state.waiting += 1;
            state = self.state.1.wait(state).unwrap();
            state.waiting -= 1;
        }
    }

    fn file(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        let watch = self.clone();
        Arc::new(WatchFile { inner, watch })
    }
}

#[derive(Debug)]
struct WatchFile {
    inner: Arc<dyn File>,
    watch: WatchVfs,
}

impl File for WatchFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn read_into(&self, at: u64, len: usize, buf: &mut Vec<u8>) -> Result<usize, VfsError> {
        self.inner.read_into(at, len, buf)
    }

    fn read_into_nowait(
        &self,
        at: u64,
        len: usize,
        buf: &mut Vec<u8>,
    ) -> Result<Option<usize>, VfsError> {
        self.inner.read_into_nowait(at, len, buf)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], at: u64) -> Result<(), VfsError> {
        self.watch.pass(false);
        self.inner.write_all_at(bufs, at)
    }

    fn sync_data(&self) -> Result<(), VfsError> {
        self.watch.pass(true);
        self.inner.sync_data()
    }

    fn sync_all(&self) -> Result<(), VfsError> {
        self.watch.pass(true);
        self.inner.sync_all()
    }

    fn len(&self) -> Result<u64, VfsError> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        self.inner.set_len(len)
    }

    fn map_read(&self) -> Result<Mapped, VfsError> {
        self.inner.map_read()
    }
}

impl Vfs for WatchVfs {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.inner.create_new(path).map(|f| self.file(f))
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.inner.open_write(path).map(|f| self.file(f))
    }

    fn open_read(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.inner.open_read(path).map(|f| self.file(f))
    }

    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        self.inner.exists(path)
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
        self.pass(true);
        self.inner.sync_dir(dir)
    }

    fn free_space(&self, path: &Path) -> Result<Space, VfsError> {
        self.inner.free_space(path)
    }

    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        self.inner.lock(path)
    }
}
