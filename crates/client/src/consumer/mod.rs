//! Reads partitions: records in batches or one by one, pause, resume, seek, commits.
//!
//! Batches come as they are stored: checksums are checked and payloads decompressed here, by whoever
//! calls. Nothing is skipped silently: a damaged batch or a lost range is an error.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use varve_proto::v1;
use varve_types::{GroupName, PartitionId, TopicPartition};

use crate::connect::Client;
use crate::error::ClientError;

pub(crate) mod additions;
pub(crate) mod batch;
pub(crate) mod commit;
pub(crate) mod common;
pub(crate) mod feed;
pub(crate) mod listener;
pub(crate) mod place;
pub(crate) mod verbs;

pub use additions::Topics;
pub use batch::{ConsumerRecord, FetchedBatch, FetchedRecords};
pub use commit::{CommittedOffset, GroupProgress};
pub use listener::{Rebalance, RebalanceFuture, RebalanceListener};
pub use place::{Assignment, End, Resolved, Start, resolve};
pub use verbs::{Batches, RecordStream};

use self::additions::Additions;
use self::commit::Committer;
use self::common::Core;
pub(crate) use self::verbs::Polled;

/// Settings of a consumer.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// Bytes that may be on their way to the application, over all partitions.
    pub prefetch_bytes: usize,
    /// Check the checksum of every batch.
    pub check_crcs: bool,
    /// What to do when a position is not in the log any more.
    pub out_of_range: v1::OutOfRangePolicy,
    /// Rack of this client: in-sync followers there may serve.
    pub rack: String,
    /// How long to try to resolve positions while leaders are missing.
    pub open_timeout: Duration,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            prefetch_bytes: 64 * 1024 * 1024,
            check_crcs: true,
            out_of_range: v1::OutOfRangePolicy::Fail,
            rack: String::new(),
            open_timeout: Duration::from_secs(30),
        }
    }
}

/// Where a [`Consumer`] of given partitions commits. The group must have no members: those commit for it
/// themselves.
#[derive(Debug, Clone)]
pub struct CommitConfig {
    /// Group.
    pub group: GroupName,
    /// Commit what was processed this often, and at the end. `None`: only [`Consumer::commit`] and
    /// [`Consumer::commit_offsets`] do.
    pub interval: Option<Duration>,
}

impl CommitConfig {
    /// Commits for `group` every 5 s.
    #[must_use]
    pub const fn new(group: GroupName) -> Self {
        Self {
            group,
            interval: Some(Duration::from_secs(5)),
        }
    }
}

/// Reads partitions that the caller names, each from a start to an end. For a share of a topic that a group
/// decides about, see [`GroupConsumer`](crate::GroupConsumer).
///
/// ```no_run
/// use futures_util::StreamExt as _;
/// use varve_client::{Assignment, Client, ClientConfig, Consumer, ConsumerConfig, End, Start};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new(ClientConfig::default())?;
/// let everything = Assignment {
///     topic: "orders".parse()?,
///     partition: 0,
///     start: Start::Earliest,
///     end: End::CurrentEnd,
/// };
/// let mut consumer = Consumer::open(client, ConsumerConfig::default(), vec![everything]).await?;
/// let mut records = consumer.records();
/// while let Some(record) = records.next().await {
///     let record = record?;
///     println!("{} {:?}", record.offset, record.value);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    core: Core,
    /// Partitions that come later.
    additions: Option<Additions>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("assignment", self.assignment())
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// Resolves the positions and starts to read.
    ///
    /// # Errors
    /// [`ClientError`] when a topic or partition does not exist, a partition is named twice, or nobody answers in
    /// time.
    pub async fn open(
        client: Client,
        config: ConsumerConfig,
        assignments: Vec<Assignment>,
    ) -> Result<Self, ClientError> {
        let mut consumer = Self {
            core: Core::new(client, config, None, None),
            additions: None,
        };
        consumer.assign(assignments).await?;
        Ok(consumer)
    }

    /// As [`Consumer::open`], on behalf of a group without members: a partition begins where the group has
    /// committed, and only without a commit at its [`Assignment::start`].
    ///
    /// # Errors
    /// As [`Consumer::open`].
    pub async fn open_in_group(
        client: Client,
        config: ConsumerConfig,
        commits: CommitConfig,
        assignments: Vec<Assignment>,
    ) -> Result<Self, ClientError> {
        let committer = Committer {
            client: client.clone(),
            group: commits.group,
            member: None,
        };
        let mut consumer = Self {
            core: Core::new(client, config, Some(committer), commits.interval),
            additions: None,
        };
        consumer.assign(assignments).await?;
        Ok(consumer)
    }

    /// Reads more partitions.
    ///
    /// # Errors
    /// As [`Consumer::open`]; nothing was changed.
    pub async fn assign(&mut self, mut assignments: Vec<Assignment>) -> Result<(), ClientError> {
        let named = |a: &Assignment| TopicPartition::new(a.topic.clone(), PartitionId(a.partition));
        let names: Vec<TopicPartition> = assignments.iter().map(named).collect();
        for (index, name) in names.iter().enumerate() {
            if self.assignment().contains(name) || names[..index].contains(name) {
                let text = format!("partition {name} is assigned twice; nothing was changed");
                return Err(ClientError::Config(text));
            }
        }
        if let Some(committer) = self.core.committer.clone() {
            let committed = committer.committed(names.clone()).await?;
            for (name, assignment) in names.iter().zip(&mut assignments) {
                if let Some(committed) = committed.get(name) {
                    assignment.start = Start::Offset(committed.offset);
                }
            }
        }
        let client = self.core.client.clone();
        let within = self.core.feed.config().open_timeout;
        let resolved = resolve(&client, within, &assignments).await?;
        let mut topics: Vec<String> = names.iter().map(|name| name.topic.to_string()).collect();
        topics.sort_unstable();
        topics.dedup();
        client.refresh(&topics).await?;
        let of = self.assignment().len() + names.len();
        for (name, at) in names.into_iter().zip(resolved) {
            self.core.feed.add(name, at, 0, of);
        }
        Ok(())
    }

    /// Reads from now on also what comes later: partitions that are added to these topics, and topics that match, each
    /// from its first record. Of these topics, all partitions but those that are assigned at present count as new. The
    /// consumer is never done then.
    pub fn follow(&mut self, topics: Topics) {
        let known: Vec<TopicPartition> = self.assignment().iter().cloned().collect();
        let client = self.core.client.clone();
        self.additions = Some(Additions::watch(client, topics, &known));
    }

    /// Takes in partitions that were found.
    fn poll_additions(&mut self, cx: &mut Context<'_>) {
        let Some(additions) = &mut self.additions else {
            return;
        };
        while let Poll::Ready((name, at)) = additions.poll_next(cx) {
            // Assigned by hand meanwhile, from another place.
            if self.core.feed.positions.assigned().contains(&name) {
                continue;
            }
            let of = self.core.feed.positions.assigned().len() + 1;
            self.core.feed.add(name, at, 0, of);
        }
    }

    /// Stops to read partitions, after an automatic commit of what was processed. Those that are not assigned
    /// are let be.
    ///
    /// # Errors
    /// That of the commit; the partitions are read on.
    pub async fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        self.core.close().await?;
        self.core.feed.remove(partitions);
        Ok(())
    }

    /// Whether every partition has reached its end, and all of it was given.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.additions.is_none() && self.core.feed.is_done()
    }

    /// The next batch, of any partition; in order within each. `None` when every partition has reached
    /// its end. What was given before counts as processed with this call. May be dropped and called again without
    /// loss.
    ///
    /// # Errors
    /// [`ClientError`] of one partition, which is then not read any further until it is sought; others go on
    /// with the next call.
    pub async fn next_batch(&mut self) -> Result<Option<FetchedBatch>, ClientError> {
        std::future::poll_fn(|cx| self.poll_batch(cx))
            .await
            .transpose()
    }

    /// Ends the consumer, after an automatic commit of what was processed, the last batch included.
    ///
    /// # Errors
    /// The commit's error.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.core.close().await
    }
}

impl Polled for Consumer {
    fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<FetchedBatch, ClientError>>> {
        self.core.come_back();
        self.core.poll_commits(cx);
        self.poll_additions(cx);
        if self.is_done() {
            return Poll::Ready(None);
        }
        if self.core.feed.is_done() {
            return Poll::Pending;
        }
        let batch = ready!(self.core.poll_batch(cx));
        Poll::Ready(self.or_done(batch))
    }

    fn poll_record(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ConsumerRecord, ClientError>>> {
        self.core.poll_commits(cx);
        self.poll_additions(cx);
        if self.is_done() {
            return Poll::Ready(None);
        }
        if self.core.feed.is_done() {
            return Poll::Pending;
        }
        let record = ready!(self.core.poll_record(cx));
        Poll::Ready(self.or_done(record))
    }
}

impl Consumer {
    /// Distinguishes the end of everything from what was given.
    fn or_done<T>(&self, given: Result<T, ClientError>) -> Option<Result<T, ClientError>> {
        match given {
            Err(ClientError::Closed) if self.is_done() => None,
            given => Some(given),
        }
    }
}

verbs::verbs!(Consumer);
