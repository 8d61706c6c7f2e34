//! Work that the log's owner hands to other threads: syncing ([`FlushTarget`]) and unlinking ([`Removal`]).
//! Both own what they need, so the log goes on meanwhile, and both only report: what a success or failure
//! means is decided by the log when it is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use varve_types::Offset;
use varve_vfs::{File, Vfs, VfsError};

use crate::format::LogIdentity;
use crate::planted::{self, Plant};
use crate::segment::{Home, Replacement, Segment};

/// What a thread has to do to make a change of the manifest durable. Give the result to
/// [`crate::Log::change_done`] or [`crate::Log::change_failed`].
#[derive(Debug)]
#[must_use = "nothing is changed until it has run"]
pub struct ChangeTarget {
    pub(crate) home: Arc<Home>,
    /// What must be on disk before the manifest may say what it says.
    pub(crate) flush: Option<FlushTarget>,
    pub(crate) replace: Replacement,
}

/// A change that is durable.
#[derive(Debug, Clone)]
pub struct ChangeDone {
    pub(crate) flush: Option<FlushDone>,
    pub(crate) manifest: u64,
}

impl ChangeTarget {
    /// The log.
    #[must_use]
    pub fn identity(&self) -> LogIdentity {
        self.home.identity
    }

    /// Flushes what must be flushed, then replaces the manifest. Blocks.
    ///
    /// # Errors
    /// The first step that failed. With [`FlushError::retry`] the disk is full and nothing is lost: the
    /// change stays pending, and another target may be run later. After a failure of a flush of this log it
    /// does nothing.
    pub fn run(self) -> Result<ChangeDone, FlushError> {
        let flush = self.flush.map(FlushTarget::run).transpose()?;
        self.home.check_not_failed()?;
        self.home.replace(&self.replace).map_err(|error| {
            let retry = error.is_no_space();
            if !retry {
                self.home.failed.store(true, Ordering::Release);
            }
            FlushError { error, retry }
        })?;
        Ok(ChangeDone {
            flush,
            manifest: self.replace.version,
        })
    }
}

impl Home {
    /// A sync after a failed one proves nothing.
    fn check_not_failed(&self) -> Result<(), FlushError> {
        if self.failed.load(Ordering::Acquire) {
            let error = VfsError::new("sync", &self.dir, std::io::Error::other(GIVEN_UP));
            return Err(FlushError {
                error,
                retry: false,
            });
        }
        Ok(())
    }
}

/// Why a flush that was taken before a failure does nothing.
const GIVEN_UP: &str = "an earlier write or sync of this log failed";

/// Everything that must be synced before the log is durable up to [`FlushTarget::upto`].
#[derive(Debug)]
#[must_use = "nothing is durable until it has run"]
pub struct FlushTarget {
    pub(crate) home: Arc<Home>,
    /// Index files of these: without its header a segment that no manifest lists yet is not known again,
    /// so the headers go first.
    pub(crate) headers: Vec<PathBuf>,
    /// Segments that were rolled since the last flush, and the active one if the manifest will say that the
    /// log starts within what waits in it: synced before the manifest may list their successor.
    pub(crate) sealed: Vec<Arc<dyn File>>,
    /// Index files of segments whose last entries were written after their own flush.
    pub(crate) indexes: Vec<PathBuf>,
    /// Small files to replace: manifest, leader epochs. Syncs the directory, and so the new files' names.
    pub(crate) replace: Vec<Replacement>,
    pub(crate) active: Option<Arc<dyn File>>,
    pub(crate) done: FlushDone,
    pub(crate) bytes: u64,
}

/// A flush that succeeded. Give it to [`crate::Log::flush_done`].
#[derive(Debug, Clone)]
pub struct FlushDone {
    /// Everything below is on stable storage.
    pub upto: Offset,
    pub(crate) identity: LogIdentity,
    pub(crate) reach: Reach,
    pub(crate) generation: u64,
    pub(crate) manifest: u64,
    pub(crate) epochs: u64,
    pub(crate) position: u64,
    pub(crate) segment_id: u64,
    pub(crate) segment_base: Offset,
    /// Index files numbered below this were synced.
    pub(crate) indexes_below: u64,
}

/// A flush that failed. Give it to [`crate::Log::flush_failed`].
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct FlushError {
    /// What failed.
    pub error: VfsError,
    /// Only a small file found no space and no sync has failed: the log goes on, nothing was acknowledged,
    /// and a later flush may succeed. Otherwise the log must not be written again.
    pub retry: bool,
}

/// What a flush makes durable, and whether acknowledgements follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The files, and acknowledgements follow.
    Files,
    /// The files, so that the journal need not hold the records any more. Acknowledgements follow the journal
    /// alone, which thereby knows exactly how far they may have come.
    FilesOnly,
    /// The journal.
    Journal,
}

impl FlushDone {
    /// The log.
    #[must_use]
    pub const fn identity(&self) -> LogIdentity {
        self.identity
    }
}

impl FlushTarget {
    /// The log.
    #[must_use]
    pub fn identity(&self) -> LogIdentity {
        self.home.identity
    }

    /// The offset (exclusive) that will be durable.
    #[must_use]
    pub const fn upto(&self) -> Offset {
        self.done.upto
    }

    /// The log's directory.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        &self.home.dir
    }

    /// The segment that is written to; those before it are synced whole by this flush.
    #[must_use]
    pub const fn segment_id(&self) -> u64 {
        self.done.segment_id
    }

    /// Bytes of batches that wait for this flush.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Syncs, in the order that keeps every crash in between recoverable: rolled segments, then the small
    /// files that declare them complete, then the active segment. Blocks.
    ///
    /// # Errors
    /// The first step that failed. Nothing is repeated, and after a failure of one flush no other of this log
    /// does anything.
    pub fn run(self) -> Result<FlushDone, FlushError> {
        let home = self.home.clone();
        home.check_not_failed()?;
        let result = self.run_all();
        if matches!(&result, Err(e) if !e.retry) {
            home.failed.store(true, Ordering::Release);
        }
        result
    }

    fn run_all(self) -> Result<FlushDone, FlushError> {
        let fatal = |error| FlushError {
            error,
            retry: false,
        };
        if planted::is(Plant::ManifestBeforeSegments) {
            for next in &self.replace {
                self.home.replace(next).map_err(fatal)?;
            }
        }
        self.sync_files(&self.headers)?;
        for file in &self.sealed {
            sync(file).map_err(fatal)?;
        }
        self.sync_files(&self.indexes)?;
        for next in &self.replace {
            self.home.replace(next).map_err(|error| {
                let retry = error.is_no_space();
                FlushError { error, retry }
            })?;
        }
        if let Some(file) = &self.active
            && !planted::is(Plant::AckBeforeSync)
        {
            sync(file).map_err(fatal)?;
        }
        Ok(self.done)
    }
}

impl FlushTarget {
    fn sync_files(&self, paths: &[PathBuf]) -> Result<(), FlushError> {
        let retry = false;
        for path in paths {
            let synced = match self.home.vfs.open_write(path) {
                Ok(file) => file.sync_data(),
                // Removed by retention meanwhile.
                Err(e) if e.is_not_found() => Ok(()),
                Err(e) => Err(e),
            };
            synced.map_err(|error| FlushError { error, retry })?;
        }
        Ok(())
    }
}

/// Once, whatever it says.
fn sync(file: &Arc<dyn File>) -> Result<(), VfsError> {
    match file.sync_data() {
        Err(_) if planted::is(Plant::RetrySync) => file.sync_data(),
        result => result,
    }
}

/// Files that are no longer part of the log. They have names of their own, or get them first, so they are
/// in nobody's way; unlinking them takes over a second per GiB on some disks. Dropped without running, they
/// are swept when the log is opened next.
#[derive(Debug)]
#[must_use = "the disk space comes back when it runs"]
pub struct Removal {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) paths: Vec<PathBuf>,
    /// Segments whose files are renamed when it runs. A log that is about to use one of their names again
    /// renames them before.
    pub(crate) retired: Vec<Arc<Segment>>,
    /// Number of segments.
    pub segments: usize,
    /// Bytes of batches in them.
    pub bytes: u64,
}

impl Removal {
    pub(crate) fn none(vfs: &Arc<dyn Vfs>) -> Self {
        Self {
            vfs: vfs.clone(),
            paths: Vec::new(),
            retired: Vec::new(),
            segments: 0,
            bytes: 0,
        }
    }

    /// Whether there is nothing to remove.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.retired.is_empty()
    }

    /// Takes over the files of `other`.
    pub fn merge(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.retired.extend(other.retired);
        self.segments += other.segments;
        self.bytes += other.bytes;
    }

    /// Unlinks the files and returns the bytes of batches removed. Slow: for a thread nobody waits on.
    ///
    /// # Errors
    /// The first file that could not be removed; the others are tried all the same.
    pub fn run(self) -> Result<u64, VfsError> {
        let mut first = None;
        let renamed = self.retired.iter().flat_map(|s| {
            s.mark_removed();
            s.removed_paths()
        });
        let paths: Vec<PathBuf> = self.paths.iter().cloned().chain(renamed).collect();
        for path in &paths {
            match self.vfs.remove_file(path) {
                Err(e) if !e.is_not_found() => first = first.or(Some(e)),
                _ => {}
            }
        }
        first.map_or(Ok(self.bytes), Err)
    }
}
