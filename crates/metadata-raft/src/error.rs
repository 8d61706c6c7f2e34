//! What can go wrong with the store and the start of a node.
//!
//! Invariant: each says what happened to which file, and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_metadata::snapshot::SnapshotError;
use varve_storage::LogError;
use varve_vfs::VfsError;

use crate::codec::CodecError;

/// The raft store cannot be read, or can no longer be written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] VfsError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file is not what was written.
    #[error(
        "{} is damaged: {why}. The node takes no part in the cluster's metadata, because a guess \
         could undo what was agreed on. Nothing was changed. If the other nodes are well, wipe the \
         data directory of this node and let it join as a new node", path.display()
    )]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An earlier failure took the store out of service.
    #[error(
        "the raft store in {} refuses writes after a failure: {cause}. Nothing was written. Repair \
         the disk, then restart the node", dir.display()
    )]
    Failed {
        /// The directory.
        dir: PathBuf,
        /// The failure.
        cause: Arc<str>,
    },
}

impl StoreError {
    /// The disk is full, and nothing was changed: the same call can be made again.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io(error) => error.is_no_space(),
            Self::Log(error) => error.is_no_space(),
            Self::Damaged { .. } | Self::Failed { .. } => false,
        }
    }

    pub(crate) fn damaged(path: &Path, why: &CodecError) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }

    pub(crate) fn damage(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            why: why.into(),
        }
    }

    pub(crate) fn snapshot(path: &Path, why: &SnapshotError) -> Self {
        Self::damage(path, why.to_string())
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error.to_string())
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is configured with what cannot be.
    #[error("the cluster's metadata cannot start: {0}. Nothing was changed")]
    Config(String),
    /// Another process runs on a copy of the data directory, or all who answer are of another cluster.
    #[error("{0}. Nothing was changed")]
    Refused(String),
    /// The consensus did not start.
    #[error("the cluster's metadata did not start: {0}")]
    Raft(String),
}
