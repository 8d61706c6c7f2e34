//! A disk in memory that knows what is durable. Writes, lengths and names stay pending until the file or
//! directory is synced; [`MemVfs::crash`] then asks for each pending change whether it reached the disk, so
//! a test can walk through what a power cut may leave. A sync of a file does not make its name durable: that
//! is the directory's sync. Handles from before a crash only fail.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::file::{DirEntry, File, LockError, LockGuard, Mapped, Space, Vfs, VfsError};

/// A change that no sync had covered when the power went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsynced<'a> {
    /// A name created, removed or renamed.
    Name {
        /// The path it is about.
        path: &'a Path,
        /// Number of the change, counted over the whole disk.
        when: u64,
    },
    /// Bytes written.
    Write {
        /// The file, by the name it was made with.
        path: &'a Path,
        /// Position.
        at: u64,
        /// Number of bytes.
        len: usize,
        /// Number of the change, counted over the whole disk.
        when: u64,
    },
    /// A length set.
    SetLen {
        /// The file, by the name it was made with.
        path: &'a Path,
        /// The length.
        len: u64,
        /// Number of the change, counted over the whole disk.
        when: u64,
    },
}

impl Unsynced<'_> {
    /// Number of the change, counted over the whole disk. A crash that keeps exactly the changes below
    /// some number is one of a disk that writes in order.
    #[must_use]
    pub const fn when(&self) -> u64 {
        match self {
            Self::Name { when, .. } | Self::Write { when, .. } | Self::SetLen { when, .. } => *when,
        }
    }
}

/// What became of an unsynced change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It had reached the disk.
    Keep,
    /// It is gone. For a name, all later unsynced names are gone too: directories are journaled in order.
    Lose,
    /// Only the first so many bytes of a write had reached the disk.
    Tear(usize),
}

#[derive(Debug, Clone)]
enum DataOp {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl DataOp {
    fn apply(&self, data: &mut Vec<u8>, part: usize) {
        match self {
            Self::Write(at, bytes) => {
                let bytes = &bytes[..part.min(bytes.len())];
                let at = *at as usize;
                if data.len() < at + bytes.len() {
                    data.resize(at + bytes.len(), 0);
                }
                data[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::SetLen(len) => data.resize(*len as usize, 0),
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    data: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(u64, DataOp)>,
}

impl Content {
    fn push(&mut self, when: u64, op: DataOp) {
        op.apply(&mut self.data, usize::MAX);
        self.pending.push((when, op));
    }

    fn sync(&mut self) {
        for (_, op) in self.pending.drain(..) {
            op.apply(&mut self.durable, usize::MAX);
        }
    }
}

#[derive(Debug)]
struct Inode {
    path: PathBuf,
    content: Mutex<Content>,
}

impl Inode {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
enum NameOp {
    Link(PathBuf, Arc<Inode>),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
    MakeDir(PathBuf),
    RemoveDir(PathBuf),
}

impl NameOp {
    fn path(&self) -> &Path {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::MakeDir(path) => path,
            Self::RemoveDir(path) | Self::Rename(_, path) => path,
        }
    }

    fn touches(&self, dir: &Path) -> bool {
        let from = if let Self::Rename(from, _) = self {
            from.parent()
        } else {
            None
        };
        self.path().parent() == Some(dir) || from == Some(dir)
    }
}

#[derive(Debug, Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, Arc<Inode>>,
    dirs: BTreeSet<PathBuf>,
}

impl Names {
    fn apply(&mut self, op: &NameOp) {
        match op {
            NameOp::Link(path, inode) => {
                self.files.insert(path.clone(), inode.clone());
            }
            NameOp::Unlink(path) => {
                self.files.remove(path);
            }
            NameOp::Rename(from, to) => self.rename(from, to),
            NameOp::MakeDir(path) => {
                self.dirs.insert(path.clone());
            }
            NameOp::RemoveDir(path) => {
                self.files.retain(|p, _| !p.starts_with(path));
                self.dirs.retain(|p| !p.starts_with(path));
            }
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        if let Some(inode) = self.files.remove(from) {
            self.files.insert(to.to_owned(), inode);
            return;
        }
        let moved = |p: &Path| p.strip_prefix(from).ok().map(|rest| to.join(rest));
        self.dirs = self
            .dirs
            .iter()
            .map(|p| moved(p).unwrap_or_else(|| p.clone()))
            .collect();
        let files = std::mem::take(&mut self.files);
        self.files = files
            .into_iter()
            .map(|(p, i)| (moved(&p).unwrap_or(p), i))
            .collect();
    }
}

#[derive(Debug, Default)]
struct State {
    now: Names,
    durable: Names,
    pending: Vec<(u64, NameOp)>,
    /// Changes so far.
    changes: u64,
    locks: BTreeSet<PathBuf>,
    /// Crashes so far; a handle of an older life is dead.
    life: u64,
}

impl State {
    fn tick(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    fn push(&mut self, op: NameOp) {
        self.now.apply(&op);
        let when = self.tick();
        self.pending.push((when, op));
    }

    fn has_dir(&self, dir: &Path) -> bool {
        dir.parent().is_none() || self.now.dirs.contains(dir)
    }
}

/// The disk. Cheap to clone by `Arc`.
#[derive(Debug, Default, Clone)]
pub struct MemVfs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct MemFile {
    path: PathBuf,
    inode: Arc<Inode>,
    disk: Arc<Mutex<State>>,
    life: u64,
}

fn lock_state(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(op: &'static str, path: &Path) -> VfsError {
    VfsError::new(op, path, io::Error::from(io::ErrorKind::NotFound))
}

impl MemVfs {
    /// An empty disk with the root directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock_state(&self.state)
    }

    /// Cuts the power: `fate` decides each unsynced change, names first, then each file's changes in the
    /// order they were made. Locks are released.
    pub fn crash(&self, fate: &mut dyn FnMut(&Unsynced<'_>) -> Fate) {
        let mut state = self.state();
        let mut names = state.durable.clone();
        for (when, op) in std::mem::take(&mut state.pending) {
            if fate(&Unsynced::Name {
                path: op.path(),
                when,
            }) != Fate::Keep
            {
                break;
            }
            names.apply(&op);
        }
        let mut fresh: BTreeMap<PathBuf, Arc<Inode>> = BTreeMap::new();
        for (path, inode) in &names.files {
            // A file whose directory never became durable is out of reach.
            let reachable = path.ancestors().skip(1).all(|d| {
                d.parent().is_none() || d.as_os_str().is_empty() || names.dirs.contains(d)
            });
            if reachable {
                fresh.insert(path.clone(), Arc::new(surviving(inode, fate)));
            }
        }
        names.files = fresh;
        state.now = names.clone();
        state.durable = names;
        state.locks.clear();
        state.life += 1;
    }

    /// Cuts the power and loses everything unsynced.
    pub fn crash_losing_unsynced(&self) {
        self.crash(&mut |_| Fate::Lose);
    }

    /// Number of changes so far; the next one is this plus 1.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Cuts the power of a disk that writes in order: changes after the first `kept` (see
    /// [`MemVfs::changes`]) are gone unless synced, and of the next one only `torn` bytes arrived.
    pub fn crash_in_order(&self, kept: u64, torn: usize) {
        self.crash(&mut |change| match change.when() {
            when if when <= kept => Fate::Keep,
            when if when == kept + 1 && matches!(change, Unsynced::Write { .. }) => {
                Fate::Tear(torn)
            }
            _ => Fate::Lose,
        });
    }

    /// Ends the process but not the machine: all that was written stays readable, nothing more becomes
    /// durable by that, and handles from before fail.
    pub fn kill_process(&self) {
        let mut state = self.state();
        state.locks.clear();
        state.life += 1;
    }

    /// Copy of this disk as it is, all of it durable, for tests that damage an image many times.
    #[must_use]
    pub fn image(&self) -> Self {
        let state = self.state();
        let mut names = state.now.clone();
        for (path, inode) in &mut names.files {
            let data = inode.content().data.clone();
            let content = Content {
                durable: data.clone(),
                data,
                pending: Vec::new(),
            };
            *inode = Arc::new(Inode {
                path: path.clone(),
                content: Mutex::new(content),
            });
        }
        let state = State {
            now: names.clone(),
            durable: names,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        let state = self.state();
        let inode = state
            .now
            .files
            .get(path)
            .ok_or_else(|| not_found("open", path))?
            .clone();
        let disk = self.state.clone();
        Ok(Arc::new(MemFile {
            path: path.to_owned(),
            inode,
            disk,
            life: state.life,
        }))
    }
}

fn surviving(inode: &Inode, fate: &mut dyn FnMut(&Unsynced<'_>) -> Fate) -> Inode {
    let content = inode.content();
    let path = &inode.path;
    let mut data = content.durable.clone();
    for (when, op) in &content.pending {
        let when = *when;
        let seen = match op {
            DataOp::Write(at, bytes) => Unsynced::Write {
                path,
                at: *at,
                len: bytes.len(),
                when,
            },
            DataOp::SetLen(len) => Unsynced::SetLen {
                path,
                len: *len,
                when,
            },
        };
        match fate(&seen) {
            Fate::Keep => op.apply(&mut data, usize::MAX),
            Fate::Tear(part) => op.apply(&mut data, part),
            Fate::Lose => {}
        }
    }
    let content = Content {
        durable: data.clone(),
        data,
        pending: Vec::new(),
    };
    Inode {
        path: path.clone(),
        content: Mutex::new(content),
    }
}

impl MemFile {
    fn tick(&self) -> u64 {
        lock_state(&self.disk).tick()
    }

    fn content(&self, op: &'static str) -> Result<MutexGuard<'_, Content>, VfsError> {
        if lock_state(&self.disk).life != self.life {
            return Err(VfsError::new(op, &self.path, rustix::io::Errno::IO));
        }
        Ok(self.inode.content())
    }
}

impl File for MemFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_into(&self, at: u64, len: usize, buf: &mut Vec<u8>) -> Result<usize, VfsError> {
        let content = self.content("read")?;
        let at = usize::try_from(at)
            .unwrap_or(usize::MAX)
            .min(content.data.len());
        let end = at.saturating_add(len).min(content.data.len());
        buf.extend_from_slice(&content.data[at..end]);
        Ok(end - at)
    }

    fn read_into_nowait(
        &self,
        at: u64,
        len: usize,
        buf: &mut Vec<u8>,
    ) -> Result<Option<usize>, VfsError> {
        self.read_into(at, len, buf).map(Some)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], at: u64) -> Result<(), VfsError> {
        let bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        let when = self.tick();
        self.content("write")?.push(when, DataOp::Write(at, bytes));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), VfsError> {
        self.content("sync")?.sync();
        Ok(())
    }

    fn sync_all(&self) -> Result<(), VfsError> {
        self.sync_data()
    }

    fn len(&self) -> Result<u64, VfsError> {
        Ok(self.content("stat")?.data.len() as u64)
    }

    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        let when = self.tick();
        self.content("set the length of")?
            .push(when, DataOp::SetLen(len));
        Ok(())
    }

    fn map_read(&self) -> Result<Mapped, VfsError> {
        Ok(Mapped::Owned(self.content("map")?.data.clone()))
    }
}

struct MemLock {
    path: PathBuf,
    disk: Arc<Mutex<State>>,
    life: u64,
}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut state = lock_state(&self.disk);
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

impl Vfs for MemVfs {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        {
            let mut state = self.state();
            if !path.parent().is_none_or(|d| state.has_dir(d)) {
                return Err(not_found("create", path));
            }
            if state.now.files.contains_key(path) {
                let exists = io::Error::from(io::ErrorKind::AlreadyExists);
                return Err(VfsError::new("create", path, exists));
            }
            let inode = Inode {
                path: path.to_owned(),
                content: Mutex::default(),
            };
            state.push(NameOp::Link(path.to_owned(), Arc::new(inode)));
        }
        self.open(path)
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.open(path)
    }

    fn open_read(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.open(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        let state = self.state();
        Ok(state.now.files.contains_key(path) || state.has_dir(path))
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, VfsError> {
        let state = self.state();
        if !state.has_dir(dir) {
            return Err(not_found("list", dir));
        }
        let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
        let mut entries = Vec::new();
        for path in state.now.dirs.iter().filter(|p| p.parent() == Some(dir)) {
            entries.extend(name(path).map(|name| DirEntry {
                name,
                is_dir: true,
                len: 0,
            }));
        }
        for (path, inode) in state
            .now
            .files
            .iter()
            .filter(|(p, _)| p.parent() == Some(dir))
        {
            let len = inode.content().data.len() as u64;
            entries.extend(name(path).map(|name| DirEntry {
                name,
                is_dir: false,
                len,
            }));
        }
        entries.sort();
        Ok(entries)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        let mut state = self.state();
        let mut missing: Vec<&Path> = dir.ancestors().filter(|d| !state.has_dir(d)).collect();
        missing.retain(|d| !d.as_os_str().is_empty());
        for made in missing.into_iter().rev() {
            state.push(NameOp::MakeDir(made.to_owned()));
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<(), VfsError> {
        let mut state = self.state();
        if !state.now.files.contains_key(path) {
            return Err(not_found("remove", path));
        }
        state.push(NameOp::Unlink(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        let mut state = self.state();
        if !state.now.dirs.contains(dir) {
            return Err(not_found("remove", dir));
        }
        state.push(NameOp::RemoveDir(dir.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        let mut state = self.state();
        if !state.now.files.contains_key(from) && !state.now.dirs.contains(from) {
            return Err(not_found("rename", from));
        }
        state.push(NameOp::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        let mut state = self.state();
        if !state.has_dir(dir) {
            return Err(not_found("sync", dir));
        }
        let (synced, pending) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|(_, op)| op.touches(dir));
        state.pending = pending;
        let synced: Vec<(u64, NameOp)> = synced;
        for (_, op) in &synced {
            state.durable.apply(op);
        }
        Ok(())
    }

    fn free_space(&self, _path: &Path) -> Result<Space, VfsError> {
        Ok(Space {
            total: 1 << 40,
            available: 1 << 39,
        })
    }

    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        let mut state = self.state();
        if !state.locks.insert(path.to_owned()) {
            let dir = path.parent().unwrap_or(path).to_owned();
            return Err(LockError::Held {
                dir,
                pid: Some(std::process::id()),
            });
        }
        let life = state.life;
        Ok(LockGuard::new(MemLock {
            path: path.to_owned(),
            disk: self.state.clone(),
            life,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &dyn File, bytes: &[u8], at: u64) {
        file.write_all_at(&[IoSlice::new(bytes)], at).unwrap();
    }

    #[test]
    fn a_crash_keeps_only_what_was_synced() {
        let disk = MemVfs::new();
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let file = disk.create_new(a).unwrap();
        write(&*file, b"synced", 0);
        file.sync_data().unwrap();
        write(&*file, b"lost", 6);
        disk.sync_dir(Path::new("/")).unwrap();
        let unnamed = disk.create_new(b).unwrap();
        write(&*unnamed, b"x", 0);
        unnamed.sync_data().unwrap();
        assert_eq!(disk.read(a).unwrap(), b"syncedlost");

        disk.crash_losing_unsynced();
        assert_eq!(disk.read(a).unwrap(), b"synced");
        assert!(
            !disk.exists(b).unwrap(),
            "a synced file without a synced name is gone"
        );
        assert!(
            file.sync_data().is_err(),
            "handles of the old life are dead"
        );
    }

    #[test]
    fn the_chooser_may_tear_a_write() {
        let disk = MemVfs::new();
        let file = disk.create_new(Path::new("/a")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        write(&*file, b"first", 0);
        write(&*file, b"second", 5);
        let mut asked = 0;
        disk.crash(&mut |_| {
            asked += 1;
            if asked == 1 {
                Fate::Lose
            } else {
                Fate::Tear(3)
            }
        });
        assert_eq!(disk.read(Path::new("/a")).unwrap(), b"\0\0\0\0\0sec");
    }

    #[test]
    fn a_killed_process_leaves_its_writes_and_no_locks() {
        let disk = MemVfs::new();
        let file = disk.create_new(Path::new("/a")).unwrap();
        let guard = disk.lock(Path::new("/LOCK")).unwrap();
        assert!(matches!(
            disk.lock(Path::new("/LOCK")),
            Err(LockError::Held { .. })
        ));
        write(&*file, b"kept", 0);
        disk.kill_process();
        assert_eq!(disk.read(Path::new("/a")).unwrap(), b"kept");
        let again = disk.lock(Path::new("/LOCK")).unwrap();
        drop(guard);
        assert!(
            disk.lock(Path::new("/LOCK")).is_err(),
            "an old guard releases nothing"
        );
        drop(again);
    }
}
