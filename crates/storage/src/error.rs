//! What can go wrong with a log, told to people: what happened, to which file, whether anything changed,
//! and what to do next.

use std::path::PathBuf;
use std::sync::Arc;

use varve_types::{LeaderEpoch, Offset};
use varve_vfs::VfsError;

/// Damage that no crash explains. Nothing was changed, and the log is not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corruption {
    /// The damaged file, or the directory.
    pub file: PathBuf,
    /// Byte position in it.
    pub position: u64,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// The rule that refused it.
    pub reason: crate::recovery::Reason,
}

impl std::fmt::Display for Corruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} at byte {}: {}; expected {}, found {}. Nothing was changed. {}",
            self.file.display(),
            self.position,
            self.reason,
            self.expected,
            self.found,
            self.reason.advice(),
        )
    }
}

/// Why a log was not opened or not changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Damage that no crash explains.
    #[error("{0}")]
    Corrupt(Box<Corruption>),
    /// An earlier write or sync failed, so what is on the disk is not known.
    #[error(
        "the log in {} refuses writes after a failure: {cause}. Nothing was written. Repair the \
         disk, then reopen the log",
        dir.display()
    )]
    Failed {
        /// The log's directory.
        dir: PathBuf,
        /// The failure.
        cause: Arc<str>,
    },
    /// The disk is full. The log is as it was before the call and usable: try again when there is space.
    #[error("the disk is full: {0}. Nothing was appended; reads still work")]
    NoSpace(VfsError),
    /// The disk failed. A log that was open refuses every change from now on.
    #[error("{0}")]
    Io(#[from] VfsError),
    /// Batches of an older leader epoch after those of a newer one.
    #[error(
        "a batch at offset {offset} has leader epoch {epoch}, which is older than that of batches \
         already in the log in {}. Nothing was appended",
        dir.display()
    )]
    EpochGoesBack {
        /// The log's directory.
        dir: PathBuf,
        /// Offset of the batch.
        offset: Offset,
        /// Its epoch.
        epoch: LeaderEpoch,
    },
    /// The journal still holds records of the log, which a replay would bring back.
    #[error(
        "the log in {} was not truncated: the journal still holds records of it. Sync the log's \
         files and void its records in the journal first",
        dir.display()
    )]
    InJournal {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The offset is outside the log.
    #[error("offset {offset} is outside the log in {}, which holds {start} to {end}. Nothing was \
        changed", dir.display())]
    OutOfRange {
        /// The log's directory.
        dir: PathBuf,
        /// As asked.
        offset: Offset,
        /// First offset of the log.
        start: Offset,
        /// One past the last offset.
        end: Offset,
    },
}

impl LogError {
    /// The disk is full; everything goes on once there is space.
    #[must_use]
    pub const fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace(_))
    }
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is not in the log.
    #[error("offset {offset} is outside the log, which holds {start} to {end}")]
    OutOfRange {
        /// As asked.
        offset: Offset,
        /// First offset of the log.
        start: Offset,
        /// One past the last offset.
        end: Offset,
    },
    /// The log was truncated, or the segment removed, after this view was made. Take a new view.
    #[error("the log changed after this view was taken; take a new one")]
    Stale,
    /// The bytes are not what the log wrote.
    #[error("{} at byte {position}: expected {expected}, found {found}", file.display())]
    Corrupt {
        /// The segment file.
        file: PathBuf,
        /// Byte position in it.
        position: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The disk failed.
    #[error("{0}")]
    Io(#[from] VfsError),
}
