//! What this node holds no more: replicas that have moved elsewhere, topics that are deleted, and what a crash
//! has left of either.
//!
//! Invariants: a directory goes only when the metadata says that this node does not hold the partition; the
//! directory of a replica that has moved away goes only once the journal has nothing of it, since the same
//! partition may come back, and a replay would mix what it was with what it is.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use varve_broker_api::TopicInfo;
use varve_metadata::PartitionKey;
use varve_types::PartitionId;

use super::reconcile::Reconciler;
use super::{InCluster, key};
use crate::lane::Command;
use crate::opener::Opener;
use crate::partition::Partition;
use crate::registry::View;
use crate::work::blocking;

/// Time before a directory that could not be removed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Replicas on their way out of this node.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaving(Arc<Mutex<BTreeSet<PartitionKey>>>);

impl Leaving {
    /// Whether the files of this one are not gone yet.
    pub(super) fn contains(&self, key: PartitionKey) -> bool {
        self.0.lock().contains(&key)
    }
}

impl Reconciler {
    /// Closes what this node holds no more, and has its files removed.
    pub(super) async fn close(&mut self, old: &View, gone: Vec<(PartitionKey, Arc<Partition>)>) {
        if gone.is_empty() {
            return;
        }
        let present = self.registry.view();
        let (mut closed, mut deleted) = (Vec::new(), BTreeSet::new());
        for (key, partition) in gone {
            self.told.remove(&key);
            self.cluster.repairs.forget(key);
            tracing::info!(partition = %partition.id, "this node holds the partition no more");
            let Some(topic) = old.topics.get(&partition.id.topic) else {
                closed.push(partition);
                continue;
            };
            let stays = present.topics.get(&topic.info.name);
            if stays.is_some_and(|t| t.info.id == topic.info.id) {
                self.moved(key, partition, &topic.info);
            } else {
                deleted.insert(self.registry.opener.dir_name(&topic.info));
                closed.push(partition);
            }
        }
        self.registry.close(&closed).await;
        for name in deleted {
            self.registry.opener.remove_topic_dir(&name).await;
        }
    }

    /// Has a replica let go of and its files removed, by a task: it waits for a disk, and others need not.
    fn moved(&self, key: PartitionKey, partition: Arc<Partition>, info: &TopicInfo) {
        partition.mark_deleted();
        self.leaving.0.lock().insert(key);
        let out = Moved {
            opener: self.registry.opener.clone(),
            cluster: Arc::clone(&self.cluster),
            leaving: self.leaving.clone(),
            dir: self.registry.opener.partition_dir(info, key.partition),
            partition,
            key,
        };
        self.cluster.keep(&tokio::spawn(out.run()));
    }

    /// Removes what a crash has left of topics that are deleted and of replicas that are elsewhere.
    pub(super) async fn sweep(&self, names: BTreeSet<String>, held: &BTreeSet<PartitionKey>) {
        let opener = self.registry.opener.clone();
        let view = self.registry.view();
        let kept: BTreeSet<PathBuf> = view
            .topics
            .values()
            .flat_map(|t| {
                let mine = (0..t.info.partitions).map(PartitionId);
                let mine = mine.filter(|p| held.contains(&key(t.info.id, *p)));
                mine.map(|p| opener.partition_dir(&t.info, p))
            })
            .collect();
        let workers = self.registry.opener.config.workers.clone();
        let swept = blocking(&workers, move || opener.sweep(&names, &kept));
        if let Ok(Err(error)) = swept.await {
            tracing::warn!(%error, "directories of partitions that are not held here are left over");
        }
    }
}

/// One replica that has moved elsewhere.
struct Moved {
    opener: Opener,
    cluster: Arc<InCluster>,
    leaving: Leaving,
    key: PartitionKey,
    partition: Arc<Partition>,
    dir: PathBuf,
}

impl Moved {
    async fn run(self) {
        let (reply, left) = oneshot::channel();
        let slot = self.partition.slot;
        if self
            .partition
            .lane
            .push(Command::Leave { slot, reply })
            .is_err()
        {
            // The node is stopping: the next start sweeps.
            return;
        }
        match left.await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                tracing::error!(
                    partition = %self.partition.id, dir = %self.dir.display(), why,
                    "the files of a replica that has moved elsewhere stay until this node is started again"
                );
                return;
            }
            Err(_) => return,
        }
        self.opener
            .remove_dir(super::replace::aside(&self.dir))
            .await;
        // Until it is gone, a new one would be begun among what is left.
        while !self.opener.remove_dir(self.dir.clone()).await {
            tokio::time::sleep(AGAIN).await;
        }
        self.leaving.0.lock().remove(&self.key);
        self.cluster.repairs.wake.notify_one();
    }
}
