//! A partition as everybody but its lane sees it: cursors published by the lane, an immutable view of
//! the log to read from, and the readers that wait at its end.
//!
//! Invariants: only the owning lane publishes; cursors only grow, unless a replica cuts its log (the high watermark is
//! published before readers are woken, so a woken reader sees it); once offline, a partition stays offline until
//! restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use varve_broker_api::Error;
use varve_partition::AbortedList;
use varve_storage::{ReadBuffers, ReadView};
use varve_types::{ErrorKind, LeaderEpoch, NodeId, Offset, TopicConfig, TopicPartition};
use varve_vfs::Workers;

use crate::admission::{Place, Uncommitted};
use crate::cluster::repair::Repairer;
use crate::damage::DamageList;
use crate::failure::FirstFailure;
use crate::inbox::Inbox;
use crate::isolation::Stable;
use crate::lane::Command;
use crate::metrics::Metrics;
use crate::reader::Cursors;
use crate::refusals::Refusals;
use crate::topic_metrics::TopicCounters;
use crate::transactions::Registered;
use crate::waiters::Waiters;

/// Where the logs of followers end, as they said last to the leader. For people and for metrics: nothing is
/// decided on it.
#[derive(Debug, Default)]
pub(crate) struct Followers(Mutex<BTreeMap<NodeId, Offset>>);

impl Followers {
    pub(crate) fn note(&self, node: NodeId, end: Offset) {
        self.0.lock().insert(node, end);
    }

    /// `None`: it has not been heard of in this leadership.
    pub(crate) fn end_of(&self, node: NodeId) -> Option<Offset> {
        self.0.lock().get(&node).copied()
    }

    fn forget(&self) {
        self.0.lock().clear();
    }
}

/// Handle to a partition of this node.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) id: TopicPartition,
    /// Which of its lane's partitions this is.
    pub(crate) slot: u32,
    pub(crate) lane: Arc<Inbox<Command>>,
    pub(crate) waiters: Waiters,
    /// Shared with the other partitions of its topic.
    pub(crate) counters: Arc<TopicCounters>,
    pub(crate) cursors: Cursors,
    /// Shared by all partitions.
    pub(crate) buffers: ReadBuffers,
    /// Who reads what is not in memory.
    pub(crate) workers: Workers,
    /// What is known to be damaged.
    pub(crate) damage: DamageList,
    pub(crate) followers: Followers,
    pub(crate) stable: Stable,
    /// What clients have appended that waits for other replicas.
    uncommitted: Uncommitted,
    /// Producers whose transaction this partition is known to be registered in.
    pub(crate) registered: Registered,
    /// What was refused a moment ago, and may be repeated.
    pub(crate) refusals: Refusals,
    /// Who sees to it when this is damaged; `None`: there are no other replicas.
    pub(crate) repairer: Option<Repairer>,
    config: ArcSwap<TopicConfig>,
    view: ArcSwapOption<ReadView>,
    high_watermark: AtomicI64,
    log_start: AtomicI64,
    log_end: AtomicI64,
    flushed: AtomicI64,
    size_bytes: AtomicU64,
    segments: AtomicU64,
    leader_epoch: AtomicI32,
    /// Epoch in which this node leads; negative when it does not.
    leading: AtomicI32,
    /// Where the log ended when this node began to lead.
    epoch_start: AtomicI64,
    offline: OnceLock<String>,
    /// The log failed while it was open: nothing above the flushed cursor is shown from then on.
    failed: AtomicBool,
    /// Who hears of that.
    failure: FirstFailure,
    deleted: AtomicBool,
    /// A move adds this replica.
    joining: AtomicBool,
}

impl Partition {
    pub(crate) fn new(
        id: TopicPartition,
        slot: u32,
        lane: Arc<Inbox<Command>>,
        config: TopicConfig,
        metrics: &Metrics,
        buffers: ReadBuffers,
        repairer: Option<Repairer>,
    ) -> Self {
        Self {
            counters: metrics.topics.of(id.topic.as_str()),
            id,
            slot,
            lane,
            waiters: Waiters::default(),
            cursors: Cursors::default(),
            buffers,
            workers: Workers::Threads,
            damage: DamageList::default(),
            followers: Followers::default(),
            stable: Stable::default(),
            uncommitted: Uncommitted::new(usize::MAX),
            registered: Registered::default(),
            refusals: Refusals::default(),
            repairer,
            config: ArcSwap::from_pointee(config),
            view: ArcSwapOption::empty(),
            high_watermark: AtomicI64::new(0),
            log_start: AtomicI64::new(0),
            log_end: AtomicI64::new(0),
            flushed: AtomicI64::new(0),
            size_bytes: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            leader_epoch: AtomicI32::new(0),
            leading: AtomicI32::new(-1),
            epoch_start: AtomicI64::new(0),
            offline: OnceLock::new(),
            failed: AtomicBool::new(false),
            failure: FirstFailure::default(),
            deleted: AtomicBool::new(false),
            joining: AtomicBool::new(false),
        }
    }

    /// What is not in memory is read by `workers`.
    pub(crate) fn read_by(mut self, workers: Workers) -> Self {
        self.workers = workers;
        self
    }

    /// No more than so many bytes of clients wait for other replicas.
    pub(crate) fn waiting_for(mut self, bytes: usize) -> Self {
        self.uncommitted = Uncommitted::new(bytes);
        self
    }

    /// A place for so many bytes that wait until they are committed.
    ///
    /// # Errors
    /// That there is none, and nothing is being committed.
    pub(crate) async fn place(&self, bytes: usize) -> Result<Place, Error> {
        let committed = || self.high_watermark();
        let Some(place) = self.uncommitted.place(bytes, committed).await else {
            let text = format!(
                "partition {} is not committing at present, and its replication backlog is full; \
                 nothing was appended; try again",
                self.id
            );
            return Err(Error::new(ErrorKind::Throttled, text)
                .with("topic", &self.id.topic)
                .with("partition", self.id.partition)
                .after(Duration::from_millis(100)));
        };
        Ok(place)
    }

    /// `failure` hears of it when the log fails.
    pub(crate) fn telling(mut self, failure: FirstFailure) -> Self {
        self.failure = failure;
        self
    }

    pub(crate) fn config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }

    pub(crate) fn set_config(&self, config: TopicConfig) {
        self.config.store(Arc::new(config));
    }

    /// One past the last committed record. Readers see nothing at or above it.
    pub(crate) fn high_watermark(&self) -> Offset {
        load(&self.high_watermark)
    }

    /// Where readers of committed records stop.
    pub(crate) fn last_stable(&self) -> Offset {
        self.stable.last_stable().min(self.high_watermark())
    }

    pub(crate) fn log_start(&self) -> Offset {
        load(&self.log_start)
    }

    pub(crate) fn log_end(&self) -> Offset {
        load(&self.log_end)
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn segments(&self) -> u64 {
        self.segments.load(Ordering::Relaxed)
    }

    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch::new(self.leader_epoch.load(Ordering::Acquire)).unwrap_or_default()
    }

    pub(crate) fn set_leader_epoch(&self, epoch: LeaderEpoch) {
        self.leader_epoch.store(epoch.get(), Ordering::Release);
    }

    /// Epoch in which this node leads the partition, as far as its lane knows.
    pub(crate) fn leading(&self) -> Option<LeaderEpoch> {
        LeaderEpoch::new(self.leading.load(Ordering::SeqCst))
    }

    /// One past what a reader may have seen, where this node leads. A leader that has just been elected may not know
    /// yet how far its predecessor had committed; but that is in its log.
    pub(crate) fn seen_end(&self) -> Offset {
        self.high_watermark().max(self.epoch_start())
    }

    /// Where the log ended when this node began to lead: below lies what earlier leaders may have committed.
    pub(crate) fn epoch_start(&self) -> Offset {
        load(&self.epoch_start)
    }

    /// A move adds this replica: what it copies is nobody's safety yet, and may be slow.
    pub(crate) fn joining(&self) -> bool {
        self.joining.load(Ordering::Relaxed)
    }

    pub(crate) fn set_joining(&self, joining: bool) {
        self.joining.store(joining, Ordering::Relaxed);
    }

    pub(crate) fn set_leading(&self, epoch: Option<LeaderEpoch>) {
        self.followers.forget();
        self.refusals.forget();
        if epoch.is_some() {
            let end = self.log_end.load(Ordering::SeqCst);
            self.epoch_start.store(end, Ordering::SeqCst);
        }
        self.registered.begin(epoch);
        let epoch = epoch.map_or(-1, LeaderEpoch::get);
        self.leading.store(epoch, Ordering::SeqCst);
    }

    /// Why the partition takes no appends, if it does not.
    pub(crate) fn offline(&self) -> Option<&str> {
        self.offline.get().map(String::as_str)
    }

    /// Everything below is on stable storage.
    pub(crate) fn flushed(&self) -> Offset {
        load(&self.flushed)
    }

    pub(crate) fn set_flushed(&self, flushed: Offset) {
        self.flushed.store(flushed.get(), Ordering::SeqCst);
    }

    /// A write or sync of the open log failed: what is not flushed may be in memory only and gone with the
    /// next start, so readers see what is flushed and no more.
    pub(crate) fn set_failed(&self, reason: &str) {
        if !self.failed.swap(true, Ordering::SeqCst) {
            self.counters.log_failures.inc();
        }
        self.set_offline(format!(
            "{reason}. The log takes no records until the node restarts; check the disk first. \
             Records below offset {} are on disk and can still be read",
            self.flushed()
        ));
        self.failure
            .tell(|| format!("the log of {} failed: {reason}", self.id));
    }

    /// Whether a write or sync of the open log has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Where readers stop, if not at the high watermark.
    pub(crate) fn read_limit(&self) -> Option<Offset> {
        self.has_failed().then(|| self.flushed())
    }

    /// Takes the partition out of service; the first reason stays.
    pub(crate) fn set_offline(&self, reason: String) {
        if self.offline.set(reason.clone()).is_ok() {
            tracing::error!(
                topic = %self.id.topic, partition = self.id.partition.0, reason,
                "the partition is offline"
            );
        }
        self.waiters.wake();
    }

    /// Takes a replica out of service that another one takes the place of. Nobody reads it any more.
    pub(crate) fn retire(&self, reason: String) {
        let _ = self.offline.set(reason);
        self.view.store(None);
        self.waiters.wake();
    }

    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.waiters.wake();
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Publishes what the log holds now.
    pub(crate) fn publish(&self, view: Arc<ReadView>, size_bytes: u64, segments: u64) {
        self.log_end.store(view.log_end().get(), Ordering::Release);
        self.log_start
            .store(view.log_start().get(), Ordering::Release);
        self.size_bytes.store(size_bytes, Ordering::Relaxed);
        self.segments.store(segments, Ordering::Relaxed);
        self.view.store(Some(view));
    }

    /// Lets readers see everything below `high_watermark`, those of committed records everything below
    /// `last_stable`, and wakes who waits. Both in one call, the last stable offset first: nobody meets a high
    /// watermark whose last stable offset lags for no reason.
    pub(crate) fn advance(
        &self,
        high_watermark: Offset,
        last_stable: Offset,
        aborted: &AbortedList,
    ) {
        self.stable.publish(last_stable, aborted);
        self.high_watermark
            .store(high_watermark.get(), Ordering::SeqCst);
        self.waiters.wake();
    }

    /// The log to read from.
    pub(crate) fn view(&self) -> Result<Arc<ReadView>, Error> {
        if self.deleted.load(Ordering::Acquire) {
            return Err(topic_not_found(self.id.topic.as_str()));
        }
        match self.view.load_full() {
            Some(view) => Ok(view),
            None => Err(self.offline_error()),
        }
    }

    /// The error of a partition that is not in service.
    pub(crate) fn offline_error(&self) -> Error {
        let reason = self.offline().unwrap_or("it is still opening");
        Error::new(
            ErrorKind::LeaderNotAvailable,
            format!(
                "partition {} is offline: {reason}; nothing was written",
                self.id
            ),
        )
        .with("topic", &self.id.topic)
        .with("partition", self.id.partition)
    }
}

fn load(cursor: &AtomicI64) -> Offset {
    match Offset::new(cursor.load(Ordering::SeqCst)) {
        Some(offset) => offset,
        None => unreachable!("cursors are stored from offsets"),
    }
}

/// The error of a topic that does not exist.
pub(crate) fn topic_not_found(topic: &str) -> Error {
    Error::new(
        ErrorKind::TopicNotFound,
        format!("topic {topic:?} not found"),
    )
    .with("topic", topic)
}
