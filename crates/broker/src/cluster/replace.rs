//! A given-up replica is replaced by an empty one, which copies everything from the leader.
//!
//! The order, and what a crash in between leaves: the metadata say that the replica does not count (before:
//! nothing has happened; after: it is opened as it is and catches up, and its damage is found again); the
//! journal's entries of it are void and its lane has let it go; its directory is renamed (after: an empty one is
//! begun, as for every replica that does not count); the empty replica is opened; once it is in sync, what
//! was set aside is taken out of its place and removed.
//!
//! Invariants: a directory is set aside only while another node leads and the metadata do not count this
//! replica; at most one directory is kept aside for a partition, and none where the disk has no room for both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;
use varve_metadata::{Partition as Agreed, PartitionKey, State};
use varve_partition::Assignment;
use varve_vfs::{Vfs, VfsError};

use super::InCluster;
use super::reconcile::{Reconciler, assignment, counts};
use super::repair::Task;
use crate::lane::Command;
use crate::opener::remove;
use crate::registry::Registry;
use crate::work::blocking;

/// What the directory of a partition that is being copied again is called, behind its number.
const ASIDE: &str = ".replaced";

/// What the metadata say of a partition that is being repaired.
pub(super) struct Repairing {
    pub(super) key: PartitionKey,
    pub(super) task: Task,
    /// `None`: this node does not hold it any more.
    pub(super) agreed: Option<(Assignment, Agreed)>,
}

impl Reconciler {
    /// What is being repaired, as the metadata have it.
    pub(super) fn repairing(&self, state: &State) -> Vec<Repairing> {
        let me = self.cluster.me;
        let tasks = self.cluster.repairs.tasks().into_iter();
        tasks
            .map(|(key, task)| {
                let topic = state.topic_by_id(key.topic).map(|(_, t)| t);
                let agreed = topic.and_then(|topic| {
                    let partition = topic.partition(key.partition)?;
                    let held = partition.replicas.contains(&me);
                    held.then(|| (assignment(topic, partition), partition.clone()))
                });
                Repairing { key, task, agreed }
            })
            .collect()
    }

    /// Goes on with every repair, and returns the partitions whose place is free now.
    pub(super) fn repair(&mut self, all: &[Repairing]) -> BTreeSet<PartitionKey> {
        let (me, repairs) = (self.cluster.me, self.cluster.repairs.clone());
        let mut free = BTreeSet::new();
        for Repairing { key, task, agreed } in all {
            let Some((assignment, agreed)) = agreed else {
                repairs.forget(*key);
                continue;
            };
            match *task {
                Task::Finish => {
                    // A replica that was chosen without being whole is no reason to give up the rest.
                    let chosen = agreed.leader == Some(me)
                        && agreed.unclean_epoch == Some(agreed.leader_epoch);
                    if agreed.isr.contains(&me) && !chosen {
                        self.finish(*key);
                    }
                }
                Task::Open => {
                    self.told.remove(key);
                    free.insert(*key);
                }
                Task::TakeOut { .. } if counts(agreed, me) => repairs.called_back(*key),
                Task::TakeOut { slot, epoch } => {
                    let elsewhere = agreed.leader.is_some_and(|leader| leader != me);
                    // The journal is begun anew by the next start, if it has records of what is in that place now.
                    let waits = self.registry.opener.waits_in_journal(*key);
                    if self.cluster.started()
                        && !waits
                        && elsewhere
                        && agreed.leader_epoch >= epoch
                        // What is set aside next is not to be taken for what was set aside before.
                        && !self.finishing.contains(*key)
                        && repairs.leaving(*key)
                    {
                        let out = TakeOut {
                            registry: Arc::clone(&self.registry),
                            cluster: Arc::clone(&self.cluster),
                            key: *key,
                            slot,
                        };
                        // It waits for a disk, perhaps one that hangs, and other partitions need not.
                        self.cluster
                            .keep(&crate::work::spawn(out.run(assignment.clone())));
                    }
                }
            }
        }
        free
    }

    /// The new copy is in sync: what is left of the damaged one is of no use.
    fn finish(&self, key: PartitionKey) {
        let view = self.registry.view();
        let found = view.by_key.get(&key).cloned();
        let topic = found.and_then(|p| {
            let topic = view.topics.get(&p.id.topic)?;
            Some((p, topic.clone()))
        });
        let Some((partition, topic)) = topic else {
            return;
        };
        if !self.finishing.begin(key) {
            return;
        }
        let opener = &self.registry.opener;
        let old = aside(&opener.partition_dir(&topic.info, key.partition));
        let (graveyard, finishing) = (self.graveyard.clone(), self.finishing.clone());
        let cluster = Arc::clone(&self.cluster);
        let out = async move {
            let old = graveyard.bury(key.topic, old).await;
            finishing.end(key);
            cluster.repairs.finished(key);
            tracing::info!(
                topic = %partition.id.topic, partition = key.partition.0, log_end = %partition.log_end(),
                "a damaged replica is repaired and in sync again"
            );
            graveyard.remove(old).await;
        };
        self.cluster.keep(&crate::work::spawn(out));
    }

    /// Repairs of an earlier run that were not finished.
    pub(super) async fn resume_repairs(&self) {
        let (registry, cluster) = (Arc::clone(&self.registry), Arc::clone(&self.cluster));
        let workers = self.registry.opener.config.workers.clone();
        let resumed = blocking(&workers, move || {
            for (key, partition) in &registry.view().by_key {
                let view = registry.view();
                let Some(topic) = view.topics.get(&partition.id.topic) else {
                    continue;
                };
                let dir = registry.opener.partition_dir(&topic.info, key.partition);
                match registry.opener.vfs.exists(&aside(&dir)) {
                    Ok(true) => cluster.repairs.resume(*key, partition.slot),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(
                            %error,
                            "could not check for the old directory of a damaged replica"
                        );
                    }
                }
            }
        });
        // What is left aside by a panic is looked for at the next start.
        let _ = resumed.await;
    }
}

/// One damaged replica on its way out of its place.
struct TakeOut {
    registry: Arc<Registry>,
    cluster: Arc<InCluster>,
    key: PartitionKey,
    slot: u32,
}

impl TakeOut {
    async fn run(self, newest: Assignment) {
        match self.take_out(newest).await {
            Ok(()) => self.cluster.repairs.left(self.key),
            Err(why) => {
                tracing::error!(
                    topic_id = %self.key.topic, partition = self.key.partition.0, why,
                    "a damaged replica cannot be replaced now; it is out of service, and the node \
                     tries again later"
                );
                self.cluster.repairs.called_back(self.key);
            }
        }
    }

    /// Lets the replica go and renames its directory.
    async fn take_out(&self, newest: Assignment) -> Result<(), String> {
        let view = self.registry.view();
        let found = view.by_key.get(&self.key).filter(|_| self.in_place());
        let partition = found.ok_or("another instance has taken its place")?;
        let topic = view.topics.get(&partition.id.topic);
        let topic = topic.ok_or("its topic was deleted")?;
        let (leader, epoch) = (newest.leader, newest.leader_epoch);
        // It has to know that it leads no more. It is to follow nobody.
        let assignment = Box::new(Assignment {
            leader: None,
            isr: Vec::new(),
            ..newest
        });
        let (reply, gone) = oneshot::channel();
        let command = Command::GiveUp {
            slot: self.slot,
            assignment,
            reply,
        };
        let told = partition.lane.push(command);
        told.map_err(|_| "the node is stopping")?;
        gone.await.map_err(|_| "the node is stopping")??;
        let dir = self
            .registry
            .opener
            .partition_dir(&topic.info, self.key.partition);
        let first = partition.damaged().into_iter().next();
        if !self.in_place() {
            return Err("another instance has taken its place".to_owned());
        }
        let kept = match self.counts() {
            true => None,
            false => self.set_aside(&dir, partition.size_bytes()).await,
        };
        partition.counters.repairs.inc();
        tracing::warn!(
            topic = %partition.id.topic, partition = self.key.partition.0, leader_epoch = %epoch,
            leader = leader.map(|n| n.0), dir = %dir.display(),
            kept = kept.map(|path| path.display().to_string()),
            file = first.as_ref().map(|d| d.file.display().to_string()),
            offset = first.and_then(|d| d.offsets).map(|range| range.start.get()),
            "this replica is damaged: it is dropped and copied again from the leader"
        );
        Ok(())
    }

    /// Whether the files are still those of the damaged instance.
    fn in_place(&self) -> bool {
        let view = self.registry.view();
        let present = view.by_key.get(&self.key);
        present.is_some_and(|p| p.slot == self.slot)
    }

    /// Whether somebody has decided meanwhile that the replica counts.
    fn counts(&self) -> bool {
        self.cluster.look(|state| {
            let agreed = state.partition_at(self.key);
            agreed.is_none_or(|p| counts(p, self.cluster.me))
        })
    }

    /// What cannot be set aside is opened again as it is, and tried again later.
    async fn set_aside(&self, dir: &Path, size: u64) -> Option<PathBuf> {
        let (vfs, place) = (self.registry.opener.vfs.clone(), dir.to_owned());
        let workers = &self.registry.opener.config.workers;
        let moved = blocking(workers, move || set_aside(&*vfs, &place, size)).await;
        match moved {
            Ok(Ok(kept)) => kept,
            Ok(Err(error)) => {
                tracing::error!(
                    dir = %dir.display(), %error,
                    "the directory of a damaged replica could not be renamed"
                );
                None
            }
            Err(_) => None,
        }
    }
}

/// Where the directory of a damaged replica is kept.
pub(crate) fn aside(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(ASIDE);
    PathBuf::from(name)
}

/// The number in the name of such a directory.
pub(crate) fn aside_of(name: &str) -> Option<&str> {
    name.strip_suffix(ASIDE)
}

/// Renames a directory, durably, and removes it where the disk has no room for a second one. What was set aside
/// before is more than what has been copied since, so it stays. Returns where it is kept.
fn set_aside(vfs: &dyn Vfs, dir: &Path, size: u64) -> Result<Option<PathBuf>, VfsError> {
    let kept = aside(dir);
    if !vfs.exists(dir)? {
        return Ok(None);
    }
    if vfs.exists(&kept)? {
        remove(vfs, dir)?;
        return Ok(Some(kept));
    }
    vfs.rename(dir, &kept)?;
    let parent = dir.parent().unwrap_or(Path::new("."));
    vfs.sync_dir(parent)?;
    if vfs.free_space(parent)?.available < size.saturating_mul(2) {
        remove(vfs, &kept)?;
        return Ok(None);
    }
    Ok(Some(kept))
}
