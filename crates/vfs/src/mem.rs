//! A disk in memory that knows what is durable. Writes, lengths and names stay pending until the file or
//! directory is synced; [`MemVfs::crash`] then asks for each pending change whether it reached the disk, so
//! a test can walk through what a power cut may leave. A sync of a file does not make its name durable: that
//! is the directory's sync. Handles from before a crash only fail.
//!
//! It is as bad as a disk may be: unsynced changes are lost, kept, torn or turned into zeros one by one;
//! directories are independent of each other; after a failed sync the bytes it should have written stay
//! readable and no later sync makes them durable ([`MemVfs::set_hook`]); bytes at rest change
//! ([`MemVfs::damage`]). It never invents bytes that nobody wrote, and never loses what a sync covered.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::fault::Op;
use crate::file::{DirEntry, File, LockError, LockGuard, Mapped, Space, Vfs, VfsError};

mod content;
#[cfg(test)]
mod tests;

use content::{Content, DataOp};

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
    /// It is gone. For a name, all later unsynced names of the same directory are gone too: a directory
    /// is journaled in order.
    Lose,
    /// Only the first so many bytes of a write had reached the disk.
    Tear(usize),
    /// All but the first so many bytes of a write had reached the disk. Where the file was shorter, the
    /// missing ones read as zeros.
    Tail(usize),
    /// The length that a write gave the file had reached the disk and none of its bytes: what it added
    /// reads as zeros.
    Zeros,
}

/// An operation that is about to happen.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Its kind; never [`Op::Any`].
    pub op: Op,
    /// The file or directory.
    pub path: &'a Path,
    /// Bytes to be written or read; 0 for others.
    pub len: usize,
}

/// What a hook decides about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It happens.
    Go,
    /// It fails. A sync of a file that fails has lost its bytes: they stay readable, and only writing them
    /// again and syncing that makes them durable, as on ext4 and XFS. Other operations change nothing.
    Fail(Errno),
    /// As [`Answer::Fail`], but the first so many bytes of a write arrive.
    Short(usize, Errno),
    /// A sync says that it was done, and was not: what a program would be that forgot it. Other operations happen.
    Pretend,
}

/// Is asked before each operation, without any lock held: it may count, fail or wait.
pub type Hook = Arc<dyn Fn(&Call<'_>) -> Answer + Send + Sync>;

#[derive(Clone, Default)]
struct HookSlot(Option<Hook>);

impl std::fmt::Debug for HookSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Hook" } else { "no hook" })
    }
}

#[derive(Debug)]
struct Inode {
    path: PathBuf,
    content: Mutex<Content>,
}

impl Inode {
    fn new(path: &Path, content: Content) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            content: Mutex::new(content),
        })
    }

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

    /// The directories whose names it changes.
    fn dirs(&self) -> impl Iterator<Item = &Path> {
        let from = if let Self::Rename(from, _) = self {
            from.parent()
        } else {
            None
        };
        self.path().parent().into_iter().chain(from)
    }

    fn touches(&self, dir: &Path) -> bool {
        self.dirs().any(|d| d == dir)
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
    hook: HookSlot,
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
        let mut lost: BTreeSet<PathBuf> = BTreeSet::new();
        for (when, op) in std::mem::take(&mut state.pending) {
            let path = op.path();
            let broken = op.dirs().any(|d| lost.contains(d));
            if broken || fate(&Unsynced::Name { path, when }) != Fate::Keep {
                lost.extend(op.dirs().map(Path::to_owned));
            } else {
                names.apply(&op);
            }
        }
        let mut fresh: BTreeMap<PathBuf, Arc<Inode>> = BTreeMap::new();
        for (path, inode) in &names.files {
            // A file whose directory never became durable is out of reach.
            let reachable = path.ancestors().skip(1).all(|d| {
                d.parent().is_none() || d.as_os_str().is_empty() || names.dirs.contains(d)
            });
            if reachable {
                fresh.insert(path.clone(), surviving(inode, fate));
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
            let content = Content::durable(inode.content().data.clone());
            *inode = Inode::new(path, content);
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

    /// Copy of this disk with all that is not durable yet. Without the hook, locks and handles.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.state();
        let mut copies: BTreeMap<usize, Arc<Inode>> = BTreeMap::new();
        let mut copy = |inode: &Arc<Inode>| {
            let key = Arc::as_ptr(inode) as usize;
            let made = copies
                .entry(key)
                .or_insert_with(|| Inode::new(&inode.path, inode.content().clone()));
            made.clone()
        };
        let mut names = |names: &Names| Names {
            files: names
                .files
                .iter()
                .map(|(p, i)| (p.clone(), copy(i)))
                .collect(),
            dirs: names.dirs.clone(),
        };
        let (now, durable) = (names(&state.now), names(&state.durable));
        let pending = state.pending.iter().map(|(when, op)| match op {
            NameOp::Link(path, inode) => (*when, NameOp::Link(path.clone(), copy(inode))),
            other => (*when, other.clone()),
        });
        let state = State {
            now,
            durable,
            pending: pending.collect(),
            changes: state.changes,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Asks `hook` before each operation from now on; `None` for none. Not asked for opening, listing and
    /// asking lengths.
    pub fn set_hook(&self, hook: Option<Hook>) {
        self.state().hook = HookSlot(hook);
    }

    /// Changes bytes at rest: what is readable and what is durable alike. Returns whether the file exists.
    pub fn damage(&self, path: &Path, change: &mut dyn FnMut(&mut Vec<u8>)) -> bool {
        let Some(inode) = self.state().now.files.get(path).cloned() else {
            return false;
        };
        let mut content = inode.content();
        change(&mut content.data);
        change(&mut content.durable);
        true
    }

    /// All files by path with what is readable, in order.
    pub fn for_each_file(&self, look: &mut dyn FnMut(&Path, &[u8])) {
        for (path, inode) in &self.state().now.files {
            look(path, &inode.content().data);
        }
    }

    /// Asks the hook; `false`: a sync is not done and says that it was.
    fn ask(&self, verb: &'static str, op: Op, path: &Path) -> Result<bool, VfsError> {
        let hook = self.state().hook.clone();
        match ask(&hook, op, path, 0) {
            Answer::Go => Ok(true),
            Answer::Pretend => Ok(false),
            Answer::Fail(errno) | Answer::Short(_, errno) => Err(VfsError::new(verb, path, errno)),
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

fn ask(hook: &HookSlot, op: Op, path: &Path, len: usize) -> Answer {
    hook.0
        .as_ref()
        .map_or(Answer::Go, |hook| hook(&Call { op, path, len }))
}

fn surviving(inode: &Inode, fate: &mut dyn FnMut(&Unsynced<'_>) -> Fate) -> Arc<Inode> {
    let content = inode.content().after_crash(&inode.path, fate);
    Inode::new(&inode.path, content)
}

impl MemFile {
    fn tick(&self) -> u64 {
        lock_state(&self.disk).tick()
    }

    fn content(&self, op: &'static str) -> Result<MutexGuard<'_, Content>, VfsError> {
        if lock_state(&self.disk).life != self.life {
            return Err(VfsError::new(op, &self.path, Errno::IO));
        }
        Ok(self.inode.content())
    }

    fn ask(&self, op: Op, len: usize) -> Answer {
        let hook = lock_state(&self.disk).hook.clone();
        ask(&hook, op, &self.path, len)
    }

    fn write(&self, bytes: Vec<u8>, at: u64) -> Result<(), VfsError> {
        let when = self.tick();
        self.content("write")?
            .push(when, DataOp::Write(at, bytes.into()));
        Ok(())
    }

    fn err(&self, verb: &'static str, errno: Errno) -> VfsError {
        VfsError::new(verb, &self.path, errno)
    }
}

impl File for MemFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_into(&self, at: u64, len: usize, buf: &mut Vec<u8>) -> Result<usize, VfsError> {
        if let Answer::Fail(errno) | Answer::Short(_, errno) = self.ask(Op::Read, len) {
            return Err(self.err("read", errno));
        }
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
        let mut bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        match self.ask(Op::Write, bytes.len()) {
            Answer::Go | Answer::Pretend => self.write(bytes, at),
            Answer::Fail(errno) => Err(self.err("write", errno)),
            Answer::Short(part, errno) => {
                bytes.truncate(part);
                if part > 0 {
                    self.write(bytes, at)?;
                }
                Err(self.err("write", errno))
            }
        }
    }

    fn sync_data(&self) -> Result<(), VfsError> {
        match self.ask(Op::Sync, 0) {
            Answer::Go => self.content("sync")?.sync(),
            Answer::Pretend => {}
            Answer::Fail(errno) | Answer::Short(_, errno) => {
                self.content("sync")?.give_up();
                return Err(self.err("sync", errno));
            }
        }
        Ok(())
    }

    fn sync_all(&self) -> Result<(), VfsError> {
        self.sync_data()
    }

    fn len(&self) -> Result<u64, VfsError> {
        Ok(self.content("stat")?.data.len() as u64)
    }

    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        let verb = "set the length of";
        if let Answer::Fail(errno) | Answer::Short(_, errno) = self.ask(Op::SetLen, 0) {
            return Err(self.err(verb, errno));
        }
        let when = self.tick();
        self.content(verb)?.push(when, DataOp::SetLen(len));
        Ok(())
    }

    fn map_read(&self) -> Result<Mapped, VfsError> {
        if let Answer::Fail(errno) | Answer::Short(_, errno) = self.ask(Op::Read, 0) {
            return Err(self.err("map", errno));
        }
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
        self.ask("create", Op::Create, path)?;
        {
            let mut state = self.state();
            if !path.parent().is_none_or(|d| state.has_dir(d)) {
                return Err(not_found("create", path));
            }
            if state.now.files.contains_key(path) {
                let exists = io::Error::from(io::ErrorKind::AlreadyExists);
                return Err(VfsError::new("create", path, exists));
            }
            let inode = Inode::new(path, Content::default());
            state.push(NameOp::Link(path.to_owned(), inode));
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
        self.ask("stat", Op::Stat, path)?;
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
        self.ask("create", Op::Create, dir)?;
        let mut state = self.state();
        let mut missing: Vec<&Path> = dir.ancestors().filter(|d| !state.has_dir(d)).collect();
        missing.retain(|d| !d.as_os_str().is_empty());
        for made in missing.into_iter().rev() {
            state.push(NameOp::MakeDir(made.to_owned()));
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<(), VfsError> {
        self.ask("remove", Op::Remove, path)?;
        let mut state = self.state();
        if !state.now.files.contains_key(path) {
            return Err(not_found("remove", path));
        }
        state.push(NameOp::Unlink(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.ask("remove", Op::Remove, dir)?;
        let mut state = self.state();
        if !state.now.dirs.contains(dir) {
            return Err(not_found("remove", dir));
        }
        state.push(NameOp::RemoveDir(dir.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        self.ask("rename", Op::Rename, from)?;
        let mut state = self.state();
        if !state.now.files.contains_key(from) && !state.now.dirs.contains(from) {
            return Err(not_found("rename", from));
        }
        state.push(NameOp::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        let happens = self.ask("sync", Op::SyncDir, dir)?;
        let mut state = self.state();
        if !state.has_dir(dir) {
            return Err(not_found("sync", dir));
        }
        if !happens {
            return Ok(());
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
