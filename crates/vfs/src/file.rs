//! The two traits of the seam, [`Vfs`] and [`File`], and the errors they speak. Both are object safe and
//! shared as `Arc<dyn _>`. Positions are bytes from the start of a file; there is no file cursor, so any
//! number of threads may read one handle.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A failed operation on a file or directory. Says what was tried, on what, and the system's reason.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} {}: {io}", path.display())]
pub struct VfsError {
    /// What was tried, as a verb: `write`, `sync`, `rename`.
    pub op: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's reason.
    pub io: io::Error,
}

impl VfsError {
    /// Pairs a reason with what was tried.
    pub fn new(op: &'static str, path: &Path, io: impl Into<io::Error>) -> Self {
        Self {
            op,
            path: path.to_owned(),
            io: io.into(),
        }
    }

    /// The path does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.io.kind() == io::ErrorKind::NotFound
    }

    /// The disk, or a quota on it, is full: nothing is broken, and space may come back.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(
            self.io.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process, or another part of this one, holds it.
    #[error("{} is in use by {}", .dir.display(), .pid.map_or_else(|| "another process".to_owned(), |p| format!("pid {p}")))]
    Held {
        /// Directory of the lock file.
        dir: PathBuf,
        /// The holder, as it wrote itself into the file.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    Vfs(#[from] VfsError),
}

/// Holds a lock until dropped.
pub struct LockGuard(#[allow(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl LockGuard {
    pub(crate) fn new(holder: impl Send + Sync + 'static) -> Self {
        Self(Box::new(holder))
    }
}

impl std::fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockGuard")
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Its name. Names that are not UTF-8 are replaced lossily: none of ours are.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
}

/// Space of the disk that holds a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub total: u64,
    /// What an unprivileged process may still write.
    pub available: u64,
}

/// Bytes of a file, read-only, as they were at one moment. Whatever becomes of the file, these bytes stay: a
/// mapping of the file itself would turn a cut by another process, or a bad sector, into a SIGBUS.
pub enum Mapped {
    /// A mapping of sealed memory.
    Mmap(memmap2::Mmap),
    /// A copy in memory of the process, for small files and disks that are not real.
    Owned(Vec<u8>),
}

impl std::ops::Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mmap(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapped({} bytes)", self.len())
    }
}

/// An open file.
pub trait File: Send + Sync + std::fmt::Debug {
    /// The path it was opened by; a rename since is not seen.
    fn path(&self) -> &Path;

    /// Appends up to `len` bytes from position `at` to `buf` and returns how many. Fewer only at the end
    /// of the file.
    ///
    /// # Errors
    /// What the system says; `buf` then keeps what was read before.
    fn read_into(&self, at: u64, len: usize, buf: &mut Vec<u8>) -> Result<usize, VfsError>;

    /// As [`File::read_into`], but returns only what is in memory already, which may be fewer bytes.
    /// `None`: the read would block, or the file system cannot tell.
    ///
    /// # Errors
    /// What the system says.
    fn read_into_nowait(
        &self,
        at: u64,
        len: usize,
        buf: &mut Vec<u8>,
    ) -> Result<Option<usize>, VfsError>;

    /// Writes all of `bufs`, in order, from position `at`.
    ///
    /// # Errors
    /// What the system says. A part may have been written then.
    fn write_all_at(&self, bufs: &[IoSlice<'_>], at: u64) -> Result<(), VfsError>;

    /// Makes written bytes and the length durable (`fdatasync`). A failure means that any unsynced byte of
    /// this file may be lost, and that a second call proves nothing.
    ///
    /// # Errors
    /// What the system says.
    fn sync_data(&self) -> Result<(), VfsError>;

    /// As [`File::sync_data`], with all metadata (`fsync`).
    ///
    /// # Errors
    /// What the system says.
    fn sync_all(&self) -> Result<(), VfsError>;

    /// Length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> Result<u64, VfsError>;

    /// Whether the length is 0.
    ///
    /// # Errors
    /// What the system says.
    fn is_empty(&self) -> Result<bool, VfsError> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or extends it with zeros, to `len` bytes.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, len: u64) -> Result<(), VfsError>;

    /// The whole file as it is now, read-only. What happens to the file later is not seen. Large files are
    /// copied by the kernel into memory that goes back to the system with the last use; for reads of parts,
    /// [`File::read_into`] is cheaper.
    ///
    /// # Errors
    /// What the system says.
    fn map_read(&self) -> Result<Mapped, VfsError>;

    /// A hint: what is in memory of these bytes and not waiting to be written need not stay there. The next
    /// read then asks the disk. Bytes that are being written are untouched. Does nothing where that is unknown.
    fn drop_cache(&self, at: u64, len: u64) {
        let _ = (at, len);
    }

    /// A hint: whoever writes these bytes will sync them soon, so the disk may begin with them now. Does nothing
    /// where that is unknown; nothing is durable by it.
    fn write_back(&self, at: u64, len: u64) {
        let _ = (at, len);
    }

    /// A hint: whether the system should read ahead of sequential reads, as it does by itself. Does nothing
    /// where that is unknown.
    fn readahead(&self, wanted: bool) {
        let _ = wanted;
    }

    /// Reads into `buf` from position `at` and returns how many bytes. Fewer only at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<usize, VfsError> {
        let mut bytes = Vec::with_capacity(buf.len());
        let n = self.read_into(at, buf.len(), &mut bytes)?;
        buf[..n].copy_from_slice(&bytes[..n]);
        Ok(n)
    }
}

/// A file system.
pub trait Vfs: Send + Sync + std::fmt::Debug {
    /// Creates a file that must not exist and opens it for reading and writing.
    ///
    /// # Errors
    /// What the system says; `AlreadyExists` among it.
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, VfsError>;

    /// Opens an existing file for reading and writing. A symbolic link is refused, not followed.
    ///
    /// # Errors
    /// What the system says.
    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>, VfsError>;

    /// Opens an existing file for reading. A symbolic link is refused, not followed.
    ///
    /// # Errors
    /// What the system says.
    fn open_read(&self, path: &Path) -> Result<Arc<dyn File>, VfsError>;

    /// Whether something is at `path`.
    ///
    /// # Errors
    /// What the system says.
    fn exists(&self, path: &Path) -> Result<bool, VfsError>;

    /// Whether `path` itself is a symbolic link, wherever it leads.
    ///
    /// # Errors
    /// What the system says.
    fn is_link(&self, path: &Path) -> Result<bool, VfsError> {
        let _ = path;
        Ok(false)
    }

    /// Entries of a directory, ordered by name.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, VfsError>;

    /// Creates a directory and its missing parents. Not durable: see [`crate::durable::create_dir_all`].
    ///
    /// # Errors
    /// What the system says.
    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError>;

    /// Removes a file. Takes over a second per GiB on some disks: not for a thread that others wait on.
    ///
    /// # Errors
    /// What the system says.
    fn remove_file(&self, path: &Path) -> Result<(), VfsError>;

    /// Removes a directory with all it holds.
    ///
    /// # Errors
    /// What the system says.
    fn remove_dir_all(&self, dir: &Path) -> Result<(), VfsError>;

    /// Renames a file or directory; an existing file at `to` is replaced at once.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError>;

    /// Makes the names in a directory durable: creations, removals and renames so far.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError>;

    /// Space of the disk that holds `path`.
    ///
    /// # Errors
    /// What the system says.
    fn free_space(&self, path: &Path) -> Result<Space, VfsError>;

    /// Whether its paths are those of this machine, where other users may have been given permissions.
    fn is_of_this_machine(&self) -> bool {
        false
    }

    /// Takes the lock file at `path` for this process, without waiting, and writes the process id into it.
    ///
    /// # Errors
    /// [`LockError::Held`] names the holder.
    fn lock(&self, path: &Path) -> Result<LockGuard, LockError>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, path: &Path) -> Result<Vec<u8>, VfsError> {
        let file = self.open_read(path)?;
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        file.read_into(0, len, &mut bytes)?;
        Ok(bytes)
    }
}
