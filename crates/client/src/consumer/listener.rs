//! What a group tells its member about partitions that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use varve_types::{GroupName, TopicPartition};

use super::commit::{CommittedOffset, Committer, Entry};
use super::place::{Assignment, End, Start, resolve};
use crate::error::ClientError;

/// The work of a callback. It owns what it needs, so that a caller who drops the call in which it runs loses
/// nothing: the next call goes on with it where it was.
pub type RebalanceFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Is called when partitions come and go. Always by the caller of the consumer, inside `poll` and its like (or
/// `close`), so never while records are being processed; no record is given until the work of a callback has
/// ended. Every method does nothing unless it is written.
///
/// Only what changes is told: partitions that stay are in no callback. Each callback is called once for a
/// change.
///
/// ```
/// use varve_client::{Rebalance, RebalanceFuture, RebalanceListener};
///
/// struct Flush;
///
/// impl RebalanceListener for Flush {
///     fn on_revoked(&mut self, rebalance: Rebalance) -> RebalanceFuture {
///         Box::pin(async move {
///             // Finish what is in flight here, then say how far it got.
///             if let Err(error) = rebalance.commit_processed().await {
///                 eprintln!("not committed: {error}");
///             }
///         })
///     }
/// }
/// ```
pub trait RebalanceListener: Send {
    /// These partitions were assigned. Nothing of them was given yet: this is the place to load state, to seek
    /// or to pause.
    fn on_assigned(&mut self, rebalance: Rebalance) -> RebalanceFuture {
        drop(rebalance);
        nothing()
    }

    /// These partitions are to be given up, and still belong to this member: work on them can be ended, and
    /// committed. Only afterwards are automatic commits made and is the group told that they are free.
    /// Whoever takes longer than the rebalance timeout is expelled and loses everything: then
    /// [`RebalanceListener::on_lost`] follows.
    /// Also called for everything that is left when the consumer is closed.
    fn on_revoked(&mut self, rebalance: Rebalance) -> RebalanceFuture {
        drop(rebalance);
        nothing()
    }

    /// These partitions are lost: this member was expelled, or was too slow, and they may belong to others
    /// already. Nothing can be committed; what is in flight should be thrown away.
    fn on_lost(&mut self, partitions: BTreeSet<TopicPartition>) -> RebalanceFuture {
        drop(partitions);
        nothing()
    }
}

fn nothing() -> RebalanceFuture {
    Box::pin(std::future::ready(()))
}

/// For those who want to be told nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silent;

impl RebalanceListener for Silent {}

/// What a callback changes, applied when its work has ended.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub starts: BTreeMap<TopicPartition, i64>,
    pub paused: BTreeSet<TopicPartition>,
    pub committed: BTreeSet<TopicPartition>,
}

#[derive(Debug)]
struct Shared {
    committer: Committer,
    grants: BTreeMap<TopicPartition, u64>,
    partitions: BTreeSet<TopicPartition>,
    processed: BTreeMap<TopicPartition, i64>,
    within: Duration,
    coming: bool,
    changes: Mutex<Changes>,
}

/// Partitions that come or go, and what can be done about them meanwhile. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rebalance {
    shared: Arc<Shared>,
}

impl Rebalance {
    pub(crate) fn new(
        committer: Committer,
        grants: BTreeMap<TopicPartition, u64>,
        processed: BTreeMap<TopicPartition, i64>,
        within: Duration,
        coming: bool,
    ) -> Self {
        let shared = Shared {
            committer,
            partitions: grants.keys().cloned().collect(),
            grants,
            processed,
            within,
            coming,
            changes: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        let changes = &self.shared.changes;
        changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_changes(&self) -> Changes {
        std::mem::take(&mut *self.changes())
    }

    /// The partitions.
    #[must_use]
    pub fn partitions(&self) -> &BTreeSet<TopicPartition> {
        &self.shared.partitions
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.shared.committer.group
    }

    /// What was processed of these partitions and is not committed yet, as the offset to commit.
    #[must_use]
    pub fn processed(&self) -> &BTreeMap<TopicPartition, i64> {
        &self.shared.processed
    }

    /// Whether this member still holds a partition that came with this change, for all it knows: it was not given
    /// up, not lost, and the session is not over. Never waits, so that work elsewhere can ask before each effect;
    /// keep a clone from [`RebalanceListener::on_assigned`]. What it answers can be too late by the time of a message:
    /// owning a partition is no lock.
    #[must_use]
    pub fn holds(&self, partition: &TopicPartition) -> bool {
        self.grant(partition)
            .is_ok_and(|grant| self.shared.committer.holds(partition, grant))
    }

    fn grant(&self, partition: &TopicPartition) -> Result<u64, ClientError> {
        let grant = self.shared.grants.get(partition).copied();
        grant.ok_or_else(|| ClientError::NotAssigned(partition.clone()))
    }

    /// Commits offsets of these partitions. What is committed here is not committed automatically again.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`] and [`ClientError::InvalidOffset`], when nothing was changed;
    /// [`ClientError::Fenced`] when this member does not hold them any more; otherwise as every call.
    pub async fn commit<O: Into<CommittedOffset>>(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, O)> + Send,
    ) -> Result<(), ClientError> {
        let mut entries = Vec::new();
        for (partition, offset) in offsets {
            let entry = Entry {
                grant: self.grant(&partition)?,
                partition,
                offset: offset.into(),
            };
            entry.check()?;
            entries.push(entry);
        }
        let outcome = self.shared.committer.clone().commit(entries).await;
        let settled = outcome.settled.into_iter().map(|entry| entry.partition);
        self.changes().committed.extend(settled);
        outcome.result
    }

    /// Commits what was processed of these partitions.
    ///
    /// # Errors
    /// As [`Rebalance::commit`].
    pub async fn commit_processed(&self) -> Result<(), ClientError> {
        self.commit(self.shared.processed.clone()).await
    }

    /// Reads a partition from elsewhere than its committed offset. The offset, when it is known.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`] for a partition that is not just being assigned;
    /// [`ClientError::InvalidOffset`]; or why the offset cannot be found.
    pub async fn seek(&self, partition: &TopicPartition, to: Start) -> Result<i64, ClientError> {
        self.coming(partition)?;
        let offset = offset_of(
            &self.shared.committer.client,
            self.shared.within,
            partition,
            to,
        );
        let offset = offset.await?;
        self.changes().starts.insert(partition.clone(), offset);
        Ok(offset)
    }

    /// Gives no records of a partition until it is resumed.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`] for a partition that is not just being assigned.
    pub fn pause(&self, partition: &TopicPartition) -> Result<(), ClientError> {
        self.coming(partition)?;
        self.changes().paused.insert(partition.clone());
        Ok(())
    }

    fn coming(&self, partition: &TopicPartition) -> Result<(), ClientError> {
        if self.shared.coming && self.shared.partitions.contains(partition) {
            return Ok(());
        }
        Err(ClientError::NotAssigned(partition.clone()))
    }
}

/// The offset of a place in a partition.
pub(crate) async fn offset_of(
    client: &crate::connect::Client,
    within: Duration,
    partition: &TopicPartition,
    to: Start,
) -> Result<i64, ClientError> {
    match to {
        Start::Offset(offset) | Start::Last(offset) | Start::AfterEarliest(offset)
            if offset < 0 =>
        {
            Err(ClientError::InvalidOffset {
                partition: partition.clone(),
                offset,
            })
        }
        Start::Offset(offset) => Ok(offset),
        start => {
            let assignment = Assignment {
                topic: partition.topic.clone(),
                partition: partition.partition.0,
                start,
                end: End::Never,
            };
            let found = resolve(client, within, &[assignment]).await?;
            let found = found.first().map(|resolved| resolved.start);
            found.ok_or_else(|| ClientError::Protocol("no offset for a partition".to_owned()))
        }
    }
}
