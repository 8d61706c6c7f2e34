//! How directories that are of no use any more go: each is renamed to a tombstone, durably, which takes a moment, and
//! removed behind that, which takes minutes where there is much in it, and has no end on a disk that hangs. Only
//! tasks wait for either, never the reconciler, on which every failover of this node rests.
//!
//! Invariants: no topic's or partition's directory is ever called like a tombstone, so that nobody opens one, and the
//! next start removes what a crash has left of it; the name of a tombstone is used once, so what is made anew under
//! the old name has nothing to do with it, and nothing is removed by two; a directory goes only when nobody writes
//! into it any more. A few threads do all of it: a disk that hangs takes no more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use varve_types::TopicId;
use varve_vfs::{Vfs, VfsError};

use super::replace::aside_of;
use crate::opener::{Opener, remove};
use crate::work::blocking;

/// What the names of tombstones end with.
const ENDING: &str = ".deleted";
/// Directories that are renamed at once.
const RENAMED_AT_ONCE: usize = 4;
/// Directories that are removed at once: others need the disk more.
const REMOVED_AT_ONCE: usize = 1;
/// Time before a directory that could not be renamed or removed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest such time.
const AGAIN_MAX: Duration = Duration::from_secs(600);

/// Where the tombstones of a node are.
#[derive(Clone)]
pub(super) struct Graveyard {
    opener: Opener,
    names: Arc<Names>,
    renames: Arc<Semaphore>,
    removals: Arc<Semaphore>,
}

/// Names that were not used yet.
#[derive(Debug)]
struct Names {
    topics: PathBuf,
    next: AtomicU64,
}

impl Names {
    /// A name for what is left of something of that topic. An earlier run may have left some.
    fn free(&self, vfs: &dyn Vfs, topic: TopicId) -> Result<PathBuf, VfsError> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let name = format!("{:032x}-{number}{ENDING}", topic.0);
            let tombstone = self.topics.join(name);
            if !vfs.exists(&tombstone)? {
                return Ok(tombstone);
            }
        }
    }
}

/// A directory on its way.
#[derive(Debug)]
struct Buried {
    topic: TopicId,
    dir: PathBuf,
    /// What it is called now; `None`: as before.
    tombstone: Option<PathBuf>,
}

impl Buried {
    /// Renames it, durably; one that is not there is gone. After an error it goes on where it was. Blocking.
    fn rename(&mut self, vfs: &dyn Vfs, names: &Names) -> Result<(), VfsError> {
        if self.tombstone.is_none() {
            if !vfs.exists(&self.dir)? {
                return Ok(());
            }
            let tombstone = names.free(vfs, self.topic)?;
            if let Err(error) = vfs.rename(&self.dir, &tombstone) {
                // The topic that it is in may have gone at the same moment, with all of it.
                return vfs.exists(&self.dir)?.then_some(error).map_or(Ok(()), Err);
            }
            self.tombstone = Some(tombstone);
        }
        vfs.sync_dir(&names.topics)?;
        match self.dir.parent() {
            Some(parent) if parent != names.topics && vfs.exists(parent)? => vfs.sync_dir(parent),
            _ => Ok(()),
        }
    }
}

impl Graveyard {
    pub(super) fn new(opener: Opener) -> Self {
        let names = Names {
            topics: opener.topics_dir(),
            next: AtomicU64::new(0),
        };
        Self {
            opener,
            names: Arc::new(names),
            renames: Arc::new(Semaphore::new(RENAMED_AT_ONCE)),
            removals: Arc::new(Semaphore::new(REMOVED_AT_ONCE)),
        }
    }

    /// Takes a directory out of its place, durably, however long that takes. Returns what is to be removed.
    pub(super) async fn bury(&self, topic: TopicId, dir: PathBuf) -> Option<PathBuf> {
        let mut buried = Buried {
            topic,
            dir,
            tombstone: None,
        };
        loop {
            let permit = self.renames.acquire().await;
            let (vfs, names) = (Arc::clone(&self.opener.vfs), Arc::clone(&self.names));
            let renamed = blocking(&self.opener.config.workers, move || {
                let renamed = buried.rename(&*vfs, &names);
                (buried, renamed)
            });
            // The node is stopping, or it panicked: the next start sweeps.
            let (back, renamed) = renamed.await.ok()?;
            drop(permit);
            let Err(error) = renamed else {
                return back.tombstone;
            };
            buried = back;
            tracing::warn!(
                dir = %buried.dir.display(), %error,
                "could not rename a directory that is no longer needed; trying again"
            );
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Removes what is of no use to anybody. One that cannot be removed keeps no other waiting.
    pub(super) async fn remove(&self, dirs: impl IntoIterator<Item = PathBuf>) {
        let mut dirs: Vec<PathBuf> = dirs.into_iter().collect();
        let mut again = AGAIN;
        loop {
            let mut left = Vec::new();
            for dir in dirs {
                if let Err(error) = self.remove_once(&dir).await {
                    tracing::warn!(
                        dir = %dir.display(), %error,
                        "files of a deleted topic or replica are still on the disk; trying again"
                    );
                    left.push(dir);
                }
            }
            if left.is_empty() {
                return;
            }
            dirs = left;
            tokio::time::sleep(again).await;
            again = (2 * again).min(AGAIN_MAX);
        }
    }

    async fn remove_once(&self, dir: &Path) -> Result<(), VfsError> {
        let _permit = self.removals.acquire().await;
        let (vfs, dir) = (Arc::clone(&self.opener.vfs), dir.to_owned());
        let removed = blocking(&self.opener.config.workers, move || remove(&*vfs, &dir));
        // After a panic it is left for the next start.
        removed.await.unwrap_or(Ok(()))
    }

    /// Takes every partition's directory out of its place that is in that of a known topic and is not kept. These
    /// are to be removed, and every other directory that no topic has: tombstones, and topics that were deleted.
    /// Blocking.
    ///
    /// # Errors
    /// What the disk says; `dirs` are to be removed all the same.
    pub(super) fn sweep(
        &self,
        known: &BTreeMap<String, TopicId>,
        kept: &BTreeSet<PathBuf>,
        dirs: &mut Vec<PathBuf>,
    ) -> Result<(), VfsError> {
        let (vfs, topics) = (&*self.opener.vfs, &self.names.topics);
        if !vfs.exists(topics)? {
            return Ok(());
        }
        for entry in vfs.list(topics)?.into_iter().filter(|e| e.is_dir) {
            let dir = topics.join(&entry.name);
            match known.get(&entry.name) {
                Some(topic) => self.sweep_topic(*topic, &dir, kept, dirs)?,
                None => {
                    tracing::warn!(
                        dir = %dir.display(),
                        "removing the files of a deleted topic or replica"
                    );
                    dirs.push(dir);
                }
            }
        }
        Ok(())
    }

    fn sweep_topic(
        &self,
        topic: TopicId,
        place: &Path,
        kept: &BTreeSet<PathBuf>,
        dirs: &mut Vec<PathBuf>,
    ) -> Result<(), VfsError> {
        let vfs = &*self.opener.vfs;
        for entry in vfs.list(place)?.into_iter().filter(|e| e.is_dir) {
            let number = aside_of(&entry.name).unwrap_or(&entry.name);
            if number.parse::<u32>().is_err() || kept.contains(&place.join(number)) {
                continue;
            }
            let dir = place.join(&entry.name);
            tracing::warn!(
                dir = %dir.display(),
                "removing a replica that this node no longer holds"
            );
            let mut buried = Buried {
                topic,
                dir,
                tombstone: None,
            };
            buried.rename(vfs, &self.names)?;
            dirs.extend(buried.tombstone);
        }
        Ok(())
    }
}
