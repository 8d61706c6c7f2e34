//! Reads as a member of a consumer group: partitions come and go as the group's coordinator decides,
//! positions are committed.
//!
//! A background task speaks to the coordinator (one long-polled heartbeat). Partitions that must be given
//! up are committed and dropped in [`GroupConsumer::next_batch`], by the caller, and only then
//! confirmed, so that no record is processed by two members at a time. A batch counts as processed when
//! the caller comes back for the next one: delivery is at least once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use varve_proto::v1;
use varve_types::{GroupName, TopicName, TopicPartition};

use crate::connect::Client;
use crate::consumer::{ConsumerConfig, Feed, FetchedBatch, Start};
use crate::error::{ClientError, RpcError};
use crate::membership::{ANSWER, Control, Member, SharedMembership, is_out, lock, wire_partition};

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
        let member = Member::new(
            client.clone(),
            config.clone(),
            member_id.clone(),
            membership.clone(),
            tell,
        );
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
