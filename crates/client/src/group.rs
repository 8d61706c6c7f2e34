//! Reads as a member of a consumer group: partitions come and go as the group's coordinator decides,
//! positions are committed.
//!
//! A background task speaks to the coordinator (one long-polled heartbeat). Partitions that must be given
//! up are committed and dropped in [`GroupConsumer::poll`] and its like, by the caller, and only then
//! confirmed, so that no record is processed by two members at a time. What was given counts as processed when
//! the caller comes back for more: delivery is at least once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use varve_proto::v1;
use varve_types::{GroupName, TopicName, TopicPartition};

use crate::connect::Client;
use crate::consumer::commit::{Committer, Running, poll_running, running};
use crate::consumer::common::Core;
use crate::consumer::listener::Silent;
use crate::consumer::{
    ConsumerConfig, ConsumerRecord, FetchedBatch, Polled, Rebalance, RebalanceListener, Resolved,
    Start, verbs,
};
use crate::error::ClientError;
use crate::membership::{Control, Member, SharedMembership};

/// Where a group begins in a partition without a committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartPolicy(pub Start);

/// Settings of a [`GroupConsumer`].
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// Group.
    pub group: GroupName,
    /// Topics.
    pub topics: Vec<TopicName>,
    /// RE2 pattern over whole topic names, in addition. Empty: none.
    pub topic_pattern: String,
    /// Stable id of this instance: its partitions wait for it over a restart. Empty: none.
    pub instance_id: String,
    /// Assignor: "uniform" or "range". Empty: the server's default.
    pub assignor: String,
    /// Where to begin without a committed offset.
    pub start: StartPolicy,
    /// Commit what was processed this often, when given up, and at the end. `None`: only
    /// [`GroupConsumer::commit`] does.
    pub auto_commit: Option<Duration>,
    /// Time to finish work on partitions that are given up.
    pub rebalance_timeout: Duration,
    /// Settings of the reading.
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// A member of `group` that reads `topics`.
    #[must_use]
    pub fn new(group: GroupName, topics: Vec<TopicName>) -> Self {
        Self {
            group,
            topics,
            topic_pattern: String::new(),
            instance_id: String::new(),
            assignor: String::new(),
            start: StartPolicy(Start::Earliest),
            auto_commit: Some(Duration::from_secs(5)),
            rebalance_timeout: Duration::from_secs(60),
            consumer: ConsumerConfig {
                out_of_range: v1::OutOfRangePolicy::Earliest,
                ..ConsumerConfig::default()
            },
        }
    }
}

/// A change of what is assigned, from when it is told until it is done. Kept by the consumer, so that a caller
/// who drops the call in which it happens leaves nothing half done.
enum Step {
    /// The listener is told of new partitions; then they are read.
    Assigned {
        grant: u64,
        partitions: Vec<(TopicPartition, Resolved)>,
        rebalance: Rebalance,
        call: Running<()>,
    },
    /// The listener is told of partitions to give up; then what was processed is committed, and they are
    /// confirmed.
    Revoked {
        partitions: BTreeSet<TopicPartition>,
        done: oneshot::Sender<()>,
        at: Revoking,
    },
    /// The listener is told of partitions that are lost.
    Lost { call: Running<()> },
}

/// How far giving up is.
enum Revoking {
    /// A commit of before is under way: it must not overtake one of the listener.
    Settling,
    Called(Rebalance, Running<()>),
    Committing,
}

/// A member of a consumer group.
///
/// ```no_run
/// use std::time::Duration;
/// use varve_client::{Client, ClientConfig, GroupConfig, GroupConsumer};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new(ClientConfig::default())?;
/// let config = GroupConfig::new("billing".parse()?, vec!["orders".parse()?]);
/// let mut consumer = GroupConsumer::join(client, config)?;
/// for _ in 0..100 {
///     if let Some(batch) = consumer.poll(Duration::from_secs(1)).await? {
///         for record in batch.records()? {
///             println!("{:?}", record?.value);
///         }
///     }
/// }
/// // Commits what was processed, and leaves.
/// consumer.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct GroupConsumer {
    core: Core,
    config: GroupConfig,
    committer: Committer,
    member_id: Arc<str>,
    listener: Mutex<Box<dyn RebalanceListener>>,
    control: mpsc::UnboundedReceiver<Control>,
    step: Option<Step>,
    leave: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupConsumer")
            .field("member_id", &self.member_id)
            .field("assignment", self.assignment())
            .finish_non_exhaustive()
    }
}

impl GroupConsumer {
    /// Joins the group, in the background.
    ///
    /// # Errors
    /// [`ClientError::Config`] when there is nothing to subscribe to.
    pub fn join(client: Client, config: GroupConfig) -> Result<Self, ClientError> {
        Self::join_with(client, config, Silent)
    }

    /// As [`GroupConsumer::join`], and tells `listener` of partitions that come and go.
    ///
    /// # Errors
    /// As [`GroupConsumer::join`].
    pub fn join_with(
        client: Client,
        config: GroupConfig,
        listener: impl RebalanceListener + 'static,
    ) -> Result<Self, ClientError> {
        if config.topics.is_empty() && config.topic_pattern.is_empty() {
            return Err(ClientError::Config(
                "a group member needs a topic or a pattern".to_owned(),
            ));
        }
        let member_id = uuid::Uuid::new_v4().to_string();
        let membership = SharedMembership::default();
        let (tell, control) = mpsc::unbounded_channel();
        let (leave, left) = oneshot::channel();
        let member = Member::new(
            client.clone(),
            config.clone(),
            member_id.clone(),
            membership.clone(),
            tell,
        );
        let member_id: Arc<str> = member_id.into();
        let committer = Committer {
            client: client.clone(),
            group: config.group.clone(),
            member: Some((member_id.clone(), membership)),
        };
        let (reading, commits) = (config.consumer.clone(), Some(committer.clone()));
        Ok(Self {
            core: Core::new(client, reading, commits, config.auto_commit),
            task: tokio::spawn(member.run(left)),
            listener: Mutex::new(Box::new(listener)),
            step: None,
            leave: Some(leave),
            committer,
            config,
            member_id,
            control,
        })
    }

    /// This member's id.
    #[must_use]
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// Partitions this member owns now: its [`GroupConsumer::assignment`].
    #[must_use]
    pub const fn owned(&self) -> &BTreeSet<TopicPartition> {
        self.assignment()
    }

    /// The next batch, waiting for one. What was given before counts as processed with this call. May be
    /// dropped and called again without loss.
    ///
    /// # Errors
    /// [`ClientError`] that ends the membership, or that of one partition, which is then not read any further
    /// until it is sought.
    pub async fn next_batch(&mut self) -> Result<FetchedBatch, ClientError> {
        let batch = std::future::poll_fn(|cx| Polled::poll_batch(self, cx)).await;
        batch.unwrap_or(Err(ClientError::Closed))
    }

    /// Does what the coordinator and the time ask for. Pending while that goes on: no record is given meanwhile.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        loop {
            ready!(self.poll_step(cx));
            match self.control.poll_recv(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => return Poll::Ready(Err(ClientError::Closed)),
                Poll::Ready(Some(control)) => self.on_control(control)?,
            }
        }
        self.core.poll_commits(cx);
        Poll::Ready(Ok(()))
    }

    fn on_control(&mut self, control: Control) -> Result<(), ClientError> {
        match control {
            Control::Assigned { grant, partitions } => {
                let grants = partitions.iter().map(|(name, _)| (name.clone(), grant));
                let within = self.config.consumer.open_timeout;
                let (grants, none) = (grants.collect(), BTreeMap::new());
                let rebalance = Rebalance::new(self.committer.clone(), grants, none, within, true);
                let call = running(self.listener().on_assigned(rebalance.clone()));
                self.step = Some(Step::Assigned {
                    grant,
                    partitions,
                    rebalance,
                    call,
                });
            }
            // The time to give them up is over already.
            Control::Revoke(partitions, done) if done.is_closed() => self.lose(partitions),
            Control::Revoke(partitions, done) => {
                self.core.feed.stop(&partitions);
                self.step = Some(Step::Revoked {
                    partitions,
                    done,
                    at: Revoking::Settling,
                });
            }
            Control::Lost(partitions) => self.lose(partitions),
            Control::Fatal(error) => return Err(error),
        }
        Ok(())
    }

    fn listener(&mut self) -> &mut dyn RebalanceListener {
        let listener = self.listener.get_mut();
        listener.unwrap_or_else(PoisonError::into_inner).as_mut()
    }

    /// Tells the listener of partitions that are stopped already.
    fn tell_revoked(&mut self, partitions: &BTreeSet<TopicPartition>) -> (Rebalance, Running<()>) {
        let positions = &self.core.feed.positions;
        let grant = |name: &TopicPartition| Some((name.clone(), positions.grant(name)?));
        let grants = partitions.iter().filter_map(grant).collect();
        let processed = positions.processed().into_iter();
        let processed = processed
            .filter(|processed| partitions.contains(&processed.partition))
            .map(|processed| (processed.partition, processed.offset));
        let (committer, within) = (self.committer.clone(), self.config.consumer.open_timeout);
        let rebalance = Rebalance::new(committer, grants, processed.collect(), within, false);
        let call = if rebalance.partitions().is_empty() {
            // They came and go again before anybody was told of them.
            running(std::future::ready(()))
        } else {
            running(self.listener().on_revoked(rebalance.clone()))
        };
        (rebalance, call)
    }

    /// What the listener has committed needs no other commit.
    fn settle(&mut self, rebalance: &Rebalance) {
        for partition in rebalance.take_changes().committed {
            let positions = &mut self.core.feed.positions;
            if let Some(grant) = positions.grant(&partition) {
                positions.settled(&partition, grant, i64::MAX);
            }
        }
    }

    /// What is lost is dropped at once; those who were told that it came are told that it is gone.
    fn lose(&mut self, mut partitions: BTreeSet<TopicPartition>) {
        partitions.retain(|partition| self.assignment().contains(partition));
        if partitions.is_empty() {
            return;
        }
        self.core.feed.remove(&partitions);
        let call = running(self.listener().on_lost(partitions));
        self.step = Some(Step::Lost { call });
    }

    /// Goes on with the change that is under way, if one is.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.step {
                None => return Poll::Ready(()),
                Some(Step::Lost { call }) => {
                    ready!(poll_running(call, cx));
                    self.step = None;
                }
                Some(Step::Assigned { call, .. }) => {
                    ready!(poll_running(call, cx));
                    self.assigned();
                }
                Some(Step::Revoked { at, partitions, .. }) => match at {
                    Revoking::Settling => {
                        ready!(self.core.poll_quiet_commit(cx));
                        let partitions = partitions.clone();
                        let (rebalance, call) = self.tell_revoked(&partitions);
                        if let Some(Step::Revoked { at, .. }) = &mut self.step {
                            *at = Revoking::Called(rebalance, call);
                        }
                    }
                    Revoking::Called(rebalance, call) => {
                        ready!(poll_running(call, cx));
                        let rebalance = rebalance.clone();
                        self.settle(&rebalance);
                        self.commit_revoked();
                    }
                    Revoking::Committing => {
                        ready!(self.core.poll_quiet_commit(cx));
                        self.revoked();
                    }
                },
            }
        }
    }

    /// The listener knows of the new partitions: they are read.
    fn assigned(&mut self) {
        let Some(Step::Assigned {
            grant,
            partitions,
            rebalance,
            ..
        }) = self.step.take()
        else {
            return;
        };
        let changes = rebalance.take_changes();
        let of = self.assignment().len() + partitions.len();
        for (partition, mut at) in partitions {
            if let Some(start) = changes.starts.get(&partition) {
                at.start = *start;
            }
            let paused = changes.paused.contains(&partition);
            self.core.feed.add(partition.clone(), at, grant, of);
            if paused {
                self.core.feed.positions.pause(&partition);
            }
        }
    }

    /// The listener is done with partitions that are to be given up: what it did not commit is committed.
    fn commit_revoked(&mut self) {
        if let Some(Step::Revoked { at, done, .. }) = &mut self.step {
            *at = Revoking::Committing;
            if !done.is_closed() && self.config.auto_commit.is_some() {
                self.core.begin_commit();
            }
        }
    }

    /// All is committed that can be: the partitions are confirmed as given up, if there was time.
    fn revoked(&mut self) {
        let Some(Step::Revoked {
            partitions, done, ..
        }) = self.step.take()
        else {
            return;
        };
        if done.send(()).is_ok() {
            self.core.feed.remove(&partitions);
        } else {
            // It took too long, or this member was expelled meanwhile.
            self.lose(partitions);
        }
    }

    /// Tells the listener that everything is given up, commits what was processed (the last batch included)
    /// and leaves the group. Without automatic commits, only the listener commits.
    ///
    /// # Errors
    /// The last commit's error.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.core.come_back();
        std::future::poll_fn(|cx| self.poll_step(cx)).await;
        // What the coordinator has said meanwhile, except that there is something new.
        while let Ok(control) = self.control.try_recv() {
            if !matches!(control, Control::Assigned { .. } | Control::Fatal(_)) {
                let _ = self.on_control(control);
                std::future::poll_fn(|cx| self.poll_step(cx)).await;
            }
        }
        let result = self.give_up_all().await;
        if let Some(leave) = self.leave.take() {
            let _ = leave.send(());
        }
        let _ = (&mut self.task).await;
        result
    }

    async fn give_up_all(&mut self) -> Result<(), ClientError> {
        let partitions = self.assignment().clone();
        if partitions.is_empty() {
            return Ok(());
        }
        self.core.feed.stop(&partitions);
        std::future::poll_fn(|cx| self.core.poll_quiet_commit(cx)).await;
        let (rebalance, mut call) = self.tell_revoked(&partitions);
        std::future::poll_fn(|cx| poll_running(&mut call, cx)).await;
        self.settle(&rebalance);
        match self.config.auto_commit {
            Some(_) => self.core.commit().await,
            None => Ok(()),
        }
    }
}

impl Polled for GroupConsumer {
    fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<FetchedBatch, ClientError>>> {
        self.core.come_back();
        ready!(self.poll_work(cx))?;
        match self.core.poll_batch(cx) {
            // Nothing is read at present: only the coordinator's word ends that.
            Poll::Ready(Err(ClientError::Closed)) if self.core.feed.is_done() => Poll::Pending,
            batch => batch.map(Some),
        }
    }

    fn poll_record(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ConsumerRecord, ClientError>>> {
        self.core.feed.positions.mark();
        ready!(self.poll_work(cx))?;
        match self.core.poll_record(cx) {
            Poll::Ready(Err(ClientError::Closed)) if self.core.feed.is_done() => Poll::Pending,
            record => record.map(Some),
        }
    }
}

verbs::verbs!(GroupConsumer);

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
