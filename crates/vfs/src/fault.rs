//! A disk that fails when told: the N-th operation of a kind, once or for ever, after a part of a write,
//! or when a budget of bytes is spent. For tests; counts are over the whole file system, so they do not
//! depend on threads or paths. It never fails on its own.

use std::io::IoSlice;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::file::{DirEntry, File, LockError, LockGuard, Mapped, Space, Vfs, VfsError};

/// Kind of operation to count and fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Writes to files.
    Write,
    /// `sync_data` and `sync_all` of files.
    Sync,
    /// `sync_dir`.
    SyncDir,
    /// Creations of files.
    Create,
    /// Renames.
    Rename,
    /// Removals of files.
    Remove,
    /// `set_len`.
    SetLen,
    /// Reads of file content.
    Read,
    /// Questions whether something is there.
    Stat,
    /// Each operation above that changes something.
    Any,
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    op: Op,
    left: u64,
    errno: Errno,
    latch: bool,
    /// Bytes of a failing write that still arrive.
    short: usize,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    budget: Option<u64>,
    counts: [u64; 9],
}

impl State {
    /// Counts one operation; `Some` when it shall fail.
    fn count(&mut self, op: Op) -> Option<Fault> {
        self.counts[op as usize] += 1;
        let mut hit = None;
        for fault in &mut self.faults {
            if fault.op != op && (fault.op != Op::Any || matches!(op, Op::Read | Op::Stat)) {
                continue;
            }
            fault.left = fault.left.saturating_sub(1);
            if fault.left == 0 {
                hit = hit.or(Some(*fault));
            }
        }
        self.faults.retain(|f| f.left > 0 || f.latch);
        hit
    }
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, op: Op, verb: &'static str, path: &Path) -> Result<(), VfsError> {
        match self.state().count(op) {
            Some(fault) => Err(VfsError::new(verb, path, fault.errno)),
            None => Ok(()),
        }
    }
}

/// A [`Vfs`] over another one that injects failures.
#[derive(Debug)]
pub struct FaultVfs {
    inner: Arc<dyn Vfs>,
    shared: Shared,
}

impl FaultVfs {
    /// No faults yet.
    pub fn new(inner: Arc<dyn Vfs>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            shared: Shared::default(),
        })
    }

    /// The `nth` operation of that kind from now (1 is the next) fails once with `errno`.
    pub fn fail_once(&self, op: Op, nth: u64, errno: Errno) {
        self.add(Fault {
            op,
            left: nth,
            errno,
            latch: false,
            short: 0,
        });
    }

    /// From the `nth` operation of that kind on (1 is the next), each fails with `errno`.
    pub fn fail_after(&self, op: Op, nth: u64, errno: Errno) {
        self.add(Fault {
            op,
            left: nth,
            errno,
            latch: true,
            short: 0,
        });
    }

    /// The `nth` write from now fails once with `errno` after its first `written` bytes arrived.
    pub fn fail_write_short(&self, nth: u64, written: usize, errno: Errno) {
        self.add(Fault {
            op: Op::Write,
            left: nth,
            errno,
            latch: false,
            short: written,
        });
    }

    fn add(&self, fault: Fault) {
        assert!(fault.left > 0, "operations are counted from 1");
        self.shared.state().faults.push(fault);
    }

    /// Writes past this many bytes from now are cut there and fail with `ENOSPC`; `None` lifts the limit.
    pub fn set_budget(&self, bytes: Option<u64>) {
        self.shared.state().budget = bytes;
    }

    /// Removes all faults and the budget.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.faults.clear();
        state.budget = None;
    }

    /// Operations of that kind so far, failed ones included. `Op::Any` is the sum of those that change.
    #[must_use]
    pub fn count(&self, op: Op) -> u64 {
        let state = self.shared.state();
        match op {
            Op::Any => state.counts[..Op::Read as usize].iter().sum(),
            _ => state.counts[op as usize],
        }
    }

    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(FaultFile {
            inner: file,
            shared: self.shared.clone(),
        })
    }
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn File>,
    shared: Shared,
}

impl FaultFile {
    fn write_part(&self, bufs: &[IoSlice<'_>], at: u64, part: usize) -> Result<(), VfsError> {
        let all: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        self.inner
            .write_all_at(&[IoSlice::new(&all[..part.min(all.len())])], at)
    }
}

impl File for FaultFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn read_into(&self, at: u64, len: usize, buf: &mut Vec<u8>) -> Result<usize, VfsError> {
        self.shared.check(Op::Read, "read", self.path())?;
        self.inner.read_into(at, len, buf)
    }

    fn read_into_nowait(
        &self,
        at: u64,
        len: usize,
        buf: &mut Vec<u8>,
    ) -> Result<Option<usize>, VfsError> {
        self.shared.check(Op::Read, "read", self.path())?;
        self.inner.read_into_nowait(at, len, buf)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], at: u64) -> Result<(), VfsError> {
        let total: usize = bufs.iter().map(|b| b.len()).sum();
        let failure = {
            let mut state = self.shared.state();
            let fault = state.count(Op::Write).map(|f| (f.short, f.errno));
            match (fault, state.budget) {
                (None, Some(left)) if (total as u64) > left => {
                    state.budget = Some(0);
                    Some((usize::try_from(left).unwrap_or(total), Errno::NOSPC))
                }
                (None, Some(left)) => {
                    state.budget = Some(left - total as u64);
                    None
                }
                (fault, _) => fault,
            }
        };
        match failure {
            None => self.inner.write_all_at(bufs, at),
            Some((part, errno)) => {
                if part > 0 {
                    self.write_part(bufs, at, part)?;
                }
                Err(VfsError::new("write", self.path(), errno))
            }
        }
    }

    fn sync_data(&self) -> Result<(), VfsError> {
        self.shared.check(Op::Sync, "sync", self.path())?;
        self.inner.sync_data()
    }

    fn sync_all(&self) -> Result<(), VfsError> {
        self.shared.check(Op::Sync, "sync", self.path())?;
        self.inner.sync_all()
    }

    fn len(&self) -> Result<u64, VfsError> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        self.shared
            .check(Op::SetLen, "set the length of", self.path())?;
        self.inner.set_len(len)
    }

    fn map_read(&self) -> Result<Mapped, VfsError> {
        self.inner.map_read()
    }
}

impl Vfs for FaultVfs {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.shared.check(Op::Create, "create", path)?;
        Ok(self.wrap(self.inner.create_new(path)?))
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        Ok(self.wrap(self.inner.open_write(path)?))
    }

    fn open_read(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        Ok(self.wrap(self.inner.open_read(path)?))
    }

    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        self.shared.check(Op::Stat, "stat", path)?;
        self.inner.exists(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, VfsError> {
        self.inner.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.inner.create_dir_all(dir)
    }

    fn remove_file(&self, path: &Path) -> Result<(), VfsError> {
        self.shared.check(Op::Remove, "remove", path)?;
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.inner.remove_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        self.shared.check(Op::Rename, "rename", from)?;
        self.inner.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        self.shared.check(Op::SyncDir, "sync", dir)?;
        self.inner.sync_dir(dir)
    }

    fn free_space(&self, path: &Path) -> Result<Space, VfsError> {
        let mut space = self.inner.free_space(path)?;
        if let Some(left) = self.shared.state().budget {
            space.available = space.available.min(left);
        }
        Ok(space)
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
    use crate::mem::MemVfs;

    #[test]
    fn counts_fails_and_heals() {
        let vfs = FaultVfs::new(Arc::new(MemVfs::new()));
        let file = vfs.create_new(Path::new("/f")).unwrap();
        vfs.fail_once(Op::Sync, 2, Errno::IO);
        file.sync_data().unwrap();
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        vfs.fail_after(Op::Write, 1, Errno::IO);
        let bytes = [IoSlice::new(b"abc")];
        assert!(file.write_all_at(&bytes, 0).is_err() && file.write_all_at(&bytes, 0).is_err());
        vfs.heal();
        file.write_all_at(&bytes, 0).unwrap();
        assert_eq!(
            (
                vfs.count(Op::Sync),
                vfs.count(Op::Write),
                vfs.count(Op::Any)
            ),
            (3, 3, 7)
        );
    }

    #[test]
    fn budget_cuts_the_write_that_passes_it() {
        let vfs = FaultVfs::new(Arc::new(MemVfs::new()));
        let file = vfs.create_new(Path::new("/f")).unwrap();
        vfs.set_budget(Some(4));
        file.write_all_at(&[IoSlice::new(b"abc")], 0).unwrap();
        let error = file.write_all_at(&[IoSlice::new(b"def")], 3).unwrap_err();
        assert!(error.is_no_space());
        assert_eq!(vfs.read(Path::new("/f")).unwrap(), b"abcd");
    }
}
