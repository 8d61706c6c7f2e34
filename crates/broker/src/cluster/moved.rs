//! What this node holds no more: replicas that have moved elsewhere, topics that are deleted, and what a crash
//! has left of either.
//!
//! Invariants: a directory goes only when the metadata says that this node does not hold the partition; the
//! directory of a replica that has moved away goes only once the journal has nothing of it, since the same
//! partition may come back, and a replay would mix what it was with what it is; where the journal is kept because it
//! has records of a replica that was never opened, that is at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use varve_broker_api::TopicInfo;
use varve_metadata::PartitionKey;
use varve_types::{PartitionId, TopicId};

use super::reconcile::Reconciler;
use super::tombstone::Graveyard;
use super::{InCluster, key};
use crate::lane::Command;
use crate::opener::Opener;
use crate::partition::Partition;
use crate::registry::View;
use crate::work::blocking;

/// How often somebody who waits for replicas that leave looks whether they have left.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Replicas on their way out of this node.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaving(Arc<Mutex<BTreeSet<PartitionKey>>>);

impl Leaving {
    /// Whether the files of this one are still in their place.
    pub(super) fn contains(&self, key: PartitionKey) -> bool {
        self.0.lock().contains(&key)
    }

    /// Whether it was not among them before.
    pub(super) fn begin(&self, key: PartitionKey) -> bool {
        self.0.lock().insert(key)
    }

    pub(super) fn end(&self, key: PartitionKey) {
        self.0.lock().remove(&key);
    }

    /// Waits until there is none of a topic. One whose files cannot be let go of stays until the next start.
    async fn ended(&self, topic: TopicId) {
        while self.0.lock().iter().any(|key| key.topic == topic) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Reconciler {
    /// Closes what this node holds no more, and has its files removed.
    pub(super) fn close(&mut self, old: &View, gone: Vec<(PartitionKey, Arc<Partition>)>) {
        if gone.is_empty() {
            return;
        }
        let present = self.registry.view();
        let (mut closed, mut deleted) = (Vec::new(), BTreeMap::<_, (_, Vec<_>)>::new());
        for (key, partition) in gone {
            self.told.remove(&key);
            self.cluster.repairs.forget(key);
            tracing::info!(partition = %partition.id, "this node no longer holds the partition");
            let Some(topic) = old.topics.get(&partition.id.topic) else {
                closed.push(partition);
                continue;
            };
            let stays = present.topics.get(&topic.info.name);
            if stays.is_some_and(|t| t.info.id == topic.info.id) {
                self.moved(key, partition, &topic.info);
            } else {
                let name = self.registry.opener.dir_name(&topic.info);
                let of_topic = deleted.entry(topic.info.id);
                of_topic.or_insert((name, Vec::new())).1.push(partition);
            }
        }
        drop(self.registry.begin_close(&closed));
        for (topic, (name, held)) in deleted {
            let dir = self.registry.opener.topics_dir().join(name);
            self.delete(topic, dir, &held);
        }
    }

    /// Has a topic's directory removed, once no lane has anything of it, by a task: others need not wait.
    fn delete(&self, topic: TopicId, dir: PathBuf, held: &[Arc<Partition>]) {
        let closed = self.registry.begin_close(held);
        let (graveyard, leaving) = (self.graveyard.clone(), self.leaving.clone());
        let out = async move {
            for done in closed {
                let _ = done.await;
            }
            leaving.ended(topic).await;
            let left = graveyard.bury(topic, dir).await;
            graveyard.remove(left).await;
        };
        self.cluster.keep(&crate::work::spawn(out));
    }

    /// Has a replica let go of and its files removed, by a task: it waits for a disk, and others need not.
    fn moved(&self, key: PartitionKey, partition: Arc<Partition>, info: &TopicInfo) {
        partition.mark_deleted();
        self.leaving.begin(key);
        let out = Moved {
            opener: self.registry.opener.clone(),
            graveyard: self.graveyard.clone(),
            cluster: Arc::clone(&self.cluster),
            leaving: self.leaving.clone(),
            dir: self.registry.opener.partition_dir(info, key.partition),
            partition,
            key,
        };
        self.cluster.keep(&crate::work::spawn(out.run()));
    }

    /// Removes what a crash has left of topics that are deleted and of replicas that are elsewhere. What could be
    /// in somebody's way is taken out of its place before this ends.
    pub(super) async fn sweep(&self, held: &BTreeSet<PartitionKey>) {
        let opener = &self.registry.opener;
        let view = self.registry.view();
        let known: BTreeMap<String, TopicId> = view
            .topics
            .values()
            .map(|t| (opener.dir_name(&t.info), t.info.id))
            .collect();
        let kept: BTreeSet<PathBuf> = view
            .topics
            .values()
            .flat_map(|t| {
                let mine = (0..t.info.partitions).map(PartitionId);
                let mine = mine.filter(|p| held.contains(&key(t.info.id, *p)));
                mine.map(|p| opener.partition_dir(&t.info, p))
            })
            .collect();
        let (workers, graveyard) = (opener.config.workers.clone(), self.graveyard.clone());
        let swept = blocking(&workers, move || {
            let mut left = Vec::new();
            let swept = graveyard.sweep(&known, &kept, &mut left);
            (left, swept)
        });
        // What is left over by a panic is looked for at the next start.
        let Ok((left, swept)) = swept.await else {
            return;
        };
        if let Err(error) = swept {
            tracing::warn!(
                %error,
                "there are leftover directories of partitions that this node does not hold"
            );
        }
        let graveyard = self.graveyard.clone();
        let out = async move { graveyard.remove(left).await };
        self.cluster.keep(&crate::work::spawn(out));
    }
}

/// One replica that has moved elsewhere.
struct Moved {
    opener: Opener,
    graveyard: Graveyard,
    cluster: Arc<InCluster>,
    leaving: Leaving,
    key: PartitionKey,
    partition: Arc<Partition>,
    dir: PathBuf,
}

impl Moved {
    async fn run(self) {
        if self.opener.waits_in_journal(self.key) {
            tracing::warn!(
                partition = %self.partition.id, dir = %self.dir.display(),
                "a replica that could not be opened has moved to another node: its files stay \
                 while the journal holds records of it, until the next start at the latest"
            );
            while self.opener.waits_in_journal(self.key) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
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
                    "the files of a replica that has moved to another node stay until the next \
                     start"
                );
                return;
            }
            Err(_) => return,
        }
        let aside = super::replace::aside(&self.dir);
        let (graveyard, topic) = (&self.graveyard, self.key.topic);
        // Until both are out of their places, a new one would be begun among them.
        let aside = graveyard.bury(topic, aside).await;
        let left = graveyard.bury(topic, self.dir).await;
        self.leaving.end(self.key);
        self.cluster.repairs.wake.notify_one();
        graveyard.remove(aside.into_iter().chain(left)).await;
    }
}
