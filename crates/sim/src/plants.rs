//! Planted bugs: one safety line is taken out, and a suite must notice. Most live in the storage engine
//! behind its feature `planted`; one is a wrapper of the disk. The choice is per thread.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "planted")]
use varve_storage::planted::Plant as InStorage;
use varve_vfs::{DirEntry, File, LockError, LockGuard, Space, Vfs, VfsError};

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Directories are never synced.
    NoDirSync,
    /// A line of the storage engine.
    #[cfg(feature = "planted")]
    Storage(InStorage),
}

impl Plant {
    /// All that this build has.
    #[must_use]
    pub fn all() -> Vec<Self> {
        #[cfg(feature = "planted")]
        let storage = [
            InStorage::AckBeforeSync,
            InStorage::RetrySync,
            InStorage::CutAtFirstDamage,
            InStorage::TrustPageCache,
            InStorage::IgnoreChain,
            InStorage::ManifestBeforeSegments,
            InStorage::IndexBeforeFlush,
            InStorage::UnlinkBeforeManifest,
            InStorage::CountOldFlush,
            InStorage::LeavePartialAppend,
            InStorage::JournalBeforeSync,
            InStorage::ReuseJournalTooEarly,
            InStorage::InstallBeforeSync,
            InStorage::CountAborted,
        ]
        .map(Plant::Storage);
        #[cfg(not(feature = "planted"))]
        let storage: [Self; 0] = [];
        std::iter::once(Self::NoDirSync).chain(storage).collect()
    }

    /// What it takes out, for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::NoDirSync => "no directory fsync",
            #[cfg(feature = "planted")]
            Self::Storage(plant) => match plant {
                InStorage::AckBeforeSync => "ack before fsync",
                InStorage::RetrySync => "retry of a failed fsync",
                InStorage::CutAtFirstDamage => "cut at first bad CRC",
                InStorage::TrustPageCache => "trust in the page cache after restart",
                InStorage::IgnoreChain => "CRC over the payload only (running chain ignored)",
                InStorage::ManifestBeforeSegments => {
                    "manifest before the sealed segments are synced"
                }
                InStorage::IndexBeforeFlush => "index entry before the flush",
                InStorage::UnlinkBeforeManifest => "files unlinked before the manifest is durable",
                InStorage::CountOldFlush => "flush of before a truncation counted after it",
                InStorage::LeavePartialAppend => "partial append on a full disk not cut back",
                InStorage::JournalBeforeSync => "ack before the journal's fsync",
                InStorage::ReuseJournalTooEarly => {
                    "journal file used again before its logs are synced"
                }
                InStorage::InstallBeforeSync => "manifest before the compacted segment is synced",
                InStorage::CountAborted => "aborted records supersede older ones in a compaction",
            },
        }
    }
}

thread_local! {
    static ACTIVE: Cell<Option<Plant>> = const { Cell::new(None) };
}

/// Plants a bug on this thread; `None` takes it out.
pub fn set(plant: Option<Plant>) {
    ACTIVE.with(|active| active.set(plant));
    #[cfg(feature = "planted")]
    varve_storage::planted::set(match plant {
        Some(Plant::Storage(plant)) => Some(plant),
        _ => None,
    });
}

/// The disk as a log sees it while the bug is planted.
#[must_use]
pub fn wrap(disk: Arc<dyn Vfs>) -> Arc<dyn Vfs> {
    if ACTIVE.with(Cell::get) == Some(Plant::NoDirSync) {
        Arc::new(NoDirSync(disk))
    } else {
        disk
    }
}

/// A disk whose directories are never synced, and that says they were.
#[derive(Debug)]
struct NoDirSync(Arc<dyn Vfs>);

impl Vfs for NoDirSync {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.0.create_new(path)
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.0.open_write(path)
    }

    fn open_read(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.0.open_read(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        self.0.exists(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, VfsError> {
        self.0.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.0.create_dir_all(dir)
    }

    fn remove_file(&self, path: &Path) -> Result<(), VfsError> {
        self.0.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.0.remove_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        self.0.rename(from, to)
    }

    fn sync_dir(&self, _: &Path) -> Result<(), VfsError> {
        Ok(())
    }

    fn free_space(&self, path: &Path) -> Result<Space, VfsError> {
        self.0.free_space(path)
    }

    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        self.0.lock(path)
    }
}
