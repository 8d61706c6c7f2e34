//! Reads as a member of a consumer group: partitions come and go as the group's coordinator decides,
//! positions are committed.
//!
//! A background task speaks to the coordinator (one long-polled heartbeat). Partitions that must be given
//! up are committed and dropped in [`GroupConsumer::next_batch`], by the caller, and only then
//! confirmed, so that no record is processed by two members at a time. A batch counts as processed when
//! the caller comes back for the next one: delivery is at least once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use varve_proto::v1;
use varve_types::{ErrorKind, GroupName, PartitionId, TopicName, TopicPartition};

use crate::admin::Admin;
use crate::backoff::{Backoff, Random};
use crate::connect::Client;
use crate::consumer::{
    Assignment, ConsumerConfig, End, Feed, FetchedBatch, Resolved, Start, resolve,
};
use crate::error::{ClientError, RpcError};

/// How long an answer that is not held may take: a coordinator that is silent for longer is looked for
/// elsewhere.
const ANSWER: Duration = Duration::from_secs(10);

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

/// What the background task tells the consumer. In order.
enum Control {
    Assigned(Vec<(TopicPartition, Resolved)>),
    /// Give up; confirm by sending.
    Revoke(BTreeSet<TopicPartition>, oneshot::Sender<()>),
    /// Already taken away.
    Lost(BTreeSet<TopicPartition>),
    Fatal(ClientError),
}

/// What both sides know.
#[derive(Debug, Default)]
struct Membership {
    epoch: i32,
}

type SharedMembership = Arc<Mutex<Membership>>;

fn lock(shared: &SharedMembership) -> MutexGuard<'_, Membership> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub struct GroupConsumer {
    client: Client,
    config: GroupConfig,
    member_id: String,
    feed: Feed,
    owned: BTreeSet<TopicPartition>,
    /// The batch the caller is working on.
    current: Option<(TopicPartition, i64)>,
    /// Processed and not committed.
    dirty: BTreeMap<TopicPartition, i64>,
    commit_at: Instant,
    membership: SharedMembership,
    control: mpsc::UnboundedReceiver<Control>,
    /// What is being given up and not confirmed yet. Kept here, so that a caller who drops the call that
    /// is committing it leaves nothing half done.
    giving_up: Option<(BTreeSet<TopicPartition>, oneshot::Sender<()>)>,
    leave: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupConsumer")
            .field("member_id", &self.member_id)
            .field("owned", &self.owned)
            .finish_non_exhaustive()
    }
}

impl GroupConsumer {
    /// Joins the group, in the background.
    ///
    /// # Errors
    /// [`ClientError::Config`] when there is nothing to subscribe to.
    pub fn join(client: Client, config: GroupConfig) -> Result<Self, ClientError> {
        if config.topics.is_empty() && config.topic_pattern.is_empty() {
            return Err(ClientError::Config(
                "a group member needs a topic or a pattern".to_owned(),
            ));
        }
        let member_id = uuid::Uuid::new_v4().to_string();
        let membership = SharedMembership::default();
        let (tell, control) = mpsc::unbounded_channel();
        let (leave, left) = oneshot::channel();
        let member = Member {
            client: client.clone(),
            config: config.clone(),
            member_id: member_id.clone(),
            membership: membership.clone(),
            owned: BTreeSet::new(),
            revoking: None,
            tell,
            interval: Duration::from_secs(5),
            failures: 0,
            random: Random::new(uuid::Uuid::new_v4().as_u64_pair().0),
        };
        Ok(Self {
            feed: Feed::new(client.clone(), config.consumer.clone()),
            task: tokio::spawn(member.run(left)),
            commit_at: Instant::now(),
            owned: BTreeSet::new(),
            current: None,
            dirty: BTreeMap::new(),
            leave: Some(leave),
            client,
            config,
            member_id,
            membership,
            control,
            giving_up: None,
        })
    }

    /// This member's id.
    #[must_use]
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// Partitions this member owns now.
    #[must_use]
    pub const fn owned(&self) -> &BTreeSet<TopicPartition> {
        &self.owned
    }

    /// The next batch, waiting for one. The batch before counts as processed with this call. May be
    /// dropped and called again without loss.
    ///
    /// # Errors
    /// [`ClientError`] that ends the membership, or that of one partition.
    pub async fn next_batch(&mut self) -> Result<FetchedBatch, ClientError> {
        self.mark_current();
        loop {
            self.give_up().await;
            let commit_at = match self.config.auto_commit {
                Some(_) if !self.dirty.is_empty() => self.commit_at,
                _ => Instant::now() + Duration::from_secs(3600),
            };
            tokio::select! {
                biased;
                control = self.control.recv() => match control {
                    None => return Err(ClientError::Closed),
                    Some(control) => self.on_control(control)?,
                },
                () = tokio::time::sleep_until(commit_at) => self.auto_commit().await,
                batch = self.feed.next(), if !self.feed.is_done() => match batch {
                    Err(ClientError::Closed) if self.feed.is_done() => {}
                    Err(error) => return Err(error),
                    Ok(batch) => {
                        let name = TopicPartition::new(batch.topic.clone(), batch.partition);
                        self.current = Some((name, batch.next_offset));
                        return Ok(batch);
                    }
                },
            }
        }
    }

    fn mark_current(&mut self) {
        if let Some((partition, next_offset)) = self.current.take()
            && self.owned.contains(&partition)
        {
            if self.dirty.is_empty() {
                let interval = self.config.auto_commit.unwrap_or_default();
                self.commit_at = Instant::now() + interval;
            }
            self.dirty.insert(partition, next_offset);
        }
    }

    /// Says that the last batch was processed only up to `next_offset`.
    pub fn processed_up_to(&mut self, next_offset: i64) {
        if let Some((_, position)) = &mut self.current {
            *position = next_offset;
        }
        self.mark_current();
    }

    /// Forgets the last batch: it was not processed and will be delivered again.
    pub fn not_processed(&mut self) {
        self.current = None;
    }

    fn on_control(&mut self, control: Control) -> Result<(), ClientError> {
        match control {
            Control::Assigned(partitions) => {
                let of = self.owned.len() + partitions.len();
                for (partition, at) in partitions {
                    self.feed
                        .add(partition.topic.clone(), partition.partition.0, at, of);
                    self.owned.insert(partition);
                }
            }
            Control::Revoke(partitions, done) => {
                for partition in &partitions {
                    self.feed.remove(&partition.topic, partition.partition);
                }
                self.giving_up = Some((partitions, done));
            }
            Control::Lost(partitions) => {
                for partition in &partitions {
                    self.feed.remove(&partition.topic, partition.partition);
                }
                self.forget(&partitions);
            }
            Control::Fatal(error) => return Err(error),
        }
        Ok(())
    }

    /// Commits what is to be given up and confirms. May be dropped and called again, which begins the
    /// commit again.
    async fn give_up(&mut self) {
        if self.giving_up.is_some() && self.config.auto_commit.is_some() {
            self.auto_commit().await;
        }
        if let Some((partitions, done)) = self.giving_up.take() {
            self.forget(&partitions);
            let _ = done.send(());
        }
    }

    fn forget(&mut self, partitions: &BTreeSet<TopicPartition>) {
        for partition in partitions {
            self.owned.remove(partition);
            self.dirty.remove(partition);
            if self
                .current
                .as_ref()
                .is_some_and(|(current, _)| current == partition)
            {
                self.current = None;
            }
        }
    }

    async fn auto_commit(&mut self) {
        if let Err(error) = self.commit().await {
            tracing::warn!(group = %self.config.group, %error, "offsets were not committed");
        }
        self.commit_at = Instant::now() + self.config.auto_commit.unwrap_or_default();
    }

    /// Commits what was processed.
    ///
    /// # Errors
    /// [`ClientError`]; what was not committed is tried again with the next commit.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        let offsets: Vec<v1::PartitionCommit> = self
            .dirty
            .iter()
            .map(|(partition, offset)| v1::PartitionCommit {
                topic_partition: Some(wire_partition(partition)),
                offset: *offset,
                ..Default::default()
            })
            .collect();
        let (client, group) = (&self.client, self.config.group.as_str());
        let response = client
            .retrying(client.config().request_timeout, || {
                let committed = client.at_coordinator(group, ANSWER, true, |address| {
                    let request = v1::CommitOffsetsRequest {
                        group: group.to_owned(),
                        member_id: self.member_id.clone(),
                        // Read for every attempt: a heartbeat may have raised it.
                        member_epoch: lock(&self.membership).epoch,
                        offsets: offsets.clone(),
                    };
                    let mut request = tonic::Request::new(request);
                    request.set_timeout(client.config().request_timeout.min(ANSWER));
                    async move {
                        let mut service = client.group_service(&address, true)?;
                        Ok(service.commit_offsets(request).await?.into_inner())
                    }
                });
                async move {
                    match committed.await {
                        // Only rejoining helps, which drops these partitions anyway.
                        Err(ClientError::Rpc(error)) if is_out(error.kind) => Ok(Err(error)),
                        other => other.map(Ok),
                    }
                }
            })
            .await?;
        self.dirty.clear();
        let response = response.map_err(ClientError::Rpc)?;
        match response
            .failures
            .into_iter()
            .find_map(|failure| failure.error)
        {
            Some(error) => Err(RpcError::from_partition(error).into()),
            None => Ok(()),
        }
    }

    /// Commits what was processed (the last batch included) and leaves the group.
    ///
    /// # Errors
    /// The last commit's error.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.mark_current();
        let result = match self.config.auto_commit {
            Some(_) => self.commit().await,
            None => Ok(()),
        };
        if let Some(leave) = self.leave.take() {
            let _ = leave.send(());
        }
        let _ = (&mut self.task).await;
        result
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether the coordinator does not count this member any more.
const fn is_out(kind: Option<ErrorKind>) -> bool {
    matches!(
        kind,
        Some(ErrorKind::UnknownMember | ErrorKind::FencedMemberEpoch)
    )
}

fn wire_partition(partition: &TopicPartition) -> v1::TopicPartition {
    v1::TopicPartition {
        topic: partition.topic.to_string(),
        partition: partition.partition.0,
    }
}

fn partitions_of(owned: v1::OwnedPartitions) -> Result<BTreeSet<TopicPartition>, ClientError> {
    let parse = |partition: v1::TopicPartition| {
        let topic = TopicName::new(&partition.topic)
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        Ok(TopicPartition::new(topic, PartitionId(partition.partition)))
    };
    owned.partitions.into_iter().map(parse).collect()
}

struct Revoking {
    partitions: BTreeSet<TopicPartition>,
    done: oneshot::Receiver<()>,
    deadline: Instant,
}

/// The background task.
struct Member {
    client: Client,
    config: GroupConfig,
    member_id: String,
    membership: SharedMembership,
    owned: BTreeSet<TopicPartition>,
    revoking: Option<Revoking>,
    tell: mpsc::UnboundedSender<Control>,
    interval: Duration,
    failures: u32,
    random: Random,
}

impl Member {
    async fn run(mut self, mut left: oneshot::Receiver<()>) {
        loop {
            let epoch = lock(&self.membership).epoch;
            let started = Instant::now();
            let request = self.heartbeat(epoch);
            let client = self.client.clone();
            let answer = tokio::select! {
                biased;
                _ = &mut left => break,
                () = revoked(&mut self.revoking) => {
                    self.given_up();
                    continue;
                }
                answer = call(&client, request, self.interval) => answer,
            };
            let pause = match answer {
                Ok(response) => {
                    self.failures = 0;
                    self.on_answer(epoch, response, started).await
                }
                Err(error) => self.on_error(error),
            };
            let Some(pause) = pause else { return };
            tokio::select! {
                biased;
                _ = &mut left => break,
                () = revoked(&mut self.revoking) => self.given_up(),
                () = tokio::time::sleep(pause) => {}
            }
        }
        let epoch = lock(&self.membership).epoch;
        if epoch != 0 {
            let leave = v1::HeartbeatRequest {
                leave: true,
                keep_assignment: !self.config.instance_id.is_empty(),
                ..self.heartbeat(epoch)
            };
            // The coordinator would find out by itself, only later.
            let _ = call(&self.client, leave, Duration::ZERO).await;
        }
    }

    fn heartbeat(&self, epoch: i32) -> v1::HeartbeatRequest {
        let subscription = v1::GroupSubscription {
            topics: self.config.topics.iter().map(ToString::to_string).collect(),
            topic_pattern: self.config.topic_pattern.clone(),
            assignor: self.config.assignor.clone(),
        };
        let hold = epoch != 0 && self.revoking.is_none();
        let wait = if hold { self.interval } else { Duration::ZERO };
        v1::HeartbeatRequest {
            group: self.config.group.to_string(),
            member_id: self.member_id.clone(),
            member_epoch: epoch,
            instance_id: self.config.instance_id.clone(),
            subscription: (epoch == 0).then_some(subscription),
            owned: Some(v1::OwnedPartitions {
                partitions: self.owned.iter().map(wire_partition).collect(),
            }),
            rack: self.config.consumer.rack.clone(),
            rebalance_timeout: prost_types::Duration::try_from(self.config.rebalance_timeout).ok(),
            max_wait: prost_types::Duration::try_from(wait).ok(),
            ..Default::default()
        }
    }

    /// The front has given up what it was asked to, or its time is up.
    fn given_up(&mut self) {
        if let Some(revoking) = self.revoking.take() {
            if Instant::now() >= revoking.deadline {
                let _ = self.tell.send(Control::Lost(revoking.partitions.clone()));
            }
            self.owned
                .retain(|partition| !revoking.partitions.contains(partition));
        }
    }

    /// The pause until the next heartbeat; `None` ends the membership.
    async fn on_answer(
        &mut self,
        sent_epoch: i32,
        response: v1::HeartbeatResponse,
        started: Instant,
    ) -> Option<Duration> {
        lock(&self.membership).epoch = response.member_epoch;
        let interval = response
            .heartbeat_interval
            .and_then(|d| Duration::try_from(d).ok());
        if let Some(interval) = interval.filter(|interval| !interval.is_zero()) {
            self.interval = interval;
        }
        let unchanged = sent_epoch == response.member_epoch;
        let quiet = if unchanged {
            // Held by the server for about an interval; if it was not, this side keeps the pace.
            self.interval.saturating_sub(started.elapsed())
        } else {
            Duration::ZERO
        };
        let Some(assignment) = response.assignment else {
            return Some(quiet);
        };
        let target = match partitions_of(assignment) {
            Ok(target) => target,
            Err(error) => {
                let _ = self.tell.send(Control::Fatal(error));
                return None;
            }
        };
        if self.revoking.is_some() {
            return Some(self.interval.min(Duration::from_secs(1)));
        }
        let excess: BTreeSet<_> = self.owned.difference(&target).cloned().collect();
        if !excess.is_empty() {
            let (done, confirmed) = oneshot::channel();
            let _ = self.tell.send(Control::Revoke(excess.clone(), done));
            let deadline = Instant::now() + self.config.rebalance_timeout;
            self.revoking = Some(Revoking {
                partitions: excess,
                done: confirmed,
                deadline,
            });
            return Some(self.interval);
        }
        let added: Vec<_> = target.difference(&self.owned).cloned().collect();
        if added.is_empty() {
            return Some(quiet);
        }
        match self.start_offsets(&added).await {
            Ok(resolved) => {
                let assigned = added.iter().cloned().zip(resolved).collect();
                let _ = self.tell.send(Control::Assigned(assigned));
                self.owned.extend(added);
                Some(Duration::ZERO)
            }
            Err(error) => self.on_error(error),
        }
    }

    /// Committed offsets, or the start that is configured for partitions without one.
    async fn start_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Resolved>, ClientError> {
        let admin = Admin::new(self.client.clone());
        let request = v1::GetOffsetsRequest {
            group: self.config.group.to_string(),
            partitions: partitions.iter().map(wire_partition).collect(),
            include_lag: false,
        };
        let committed = match admin.get_offsets(request).await {
            Ok(response) => response.offsets,
            Err(error) if error.kind() == Some(ErrorKind::GroupNotFound) => Vec::new(),
            Err(error) => return Err(error),
        };
        let find = |partition: &TopicPartition| {
            let wire = wire_partition(partition);
            committed
                .iter()
                .find(|c| c.topic_partition.as_ref() == Some(&wire))
                .map(|c| c.offset)
        };
        let without: Vec<Assignment> = partitions
            .iter()
            .filter(|partition| find(partition).is_none())
            .map(|partition| Assignment {
                topic: partition.topic.clone(),
                partition: partition.partition.0,
                start: self.config.start.0,
                end: End::Never,
            })
            .collect();
        let within = self.interval;
        let mut resolved = resolve(&self.client, within, &without).await?.into_iter();
        let offsets = partitions.iter().map(|partition| match find(partition) {
            Some(start) => Some(Resolved { start, end: None }),
            None => resolved.next(),
        });
        offsets
            .collect::<Option<_>>()
            .ok_or_else(|| ClientError::Protocol("fewer offsets than partitions".to_owned()))
    }

    fn on_error(&mut self, error: ClientError) -> Option<Duration> {
        if is_out(error.kind()) {
            let lost = std::mem::take(&mut self.owned);
            self.revoking = None;
            let _ = self.tell.send(Control::Lost(lost));
            lock(&self.membership).epoch = 0;
            return Some(Duration::ZERO);
        }
        if !error.is_retryable() {
            let _ = self.tell.send(Control::Fatal(error));
            return None;
        }
        tracing::debug!(group = %self.config.group, %error, "heartbeat failed");
        self.failures += 1;
        Some(Backoff::default().pause(self.failures, &mut self.random))
    }
}

/// Resolves when the front has confirmed, or has taken too long; never when nothing is being revoked.
async fn revoked(revoking: &mut Option<Revoking>) {
    match revoking {
        None => std::future::pending().await,
        Some(revoking) => {
            let _ = tokio::time::timeout_at(revoking.deadline, &mut revoking.done).await;
        }
    }
}

/// One heartbeat, at the coordinator.
async fn call(
    client: &Client,
    request: v1::HeartbeatRequest,
    held: Duration,
) -> Result<v1::HeartbeatResponse, ClientError> {
    let timeout = held + client.config().request_timeout.min(ANSWER);
    client
        .at_coordinator(&request.group, ANSWER, true, |address| {
            let mut request = tonic::Request::new(request.clone());
            request.set_timeout(timeout);
            async move {
                let mut service = client.group_service(&address, true)?;
                Ok(service.heartbeat(request).await?.into_inner())
            }
        })
        .await
}
