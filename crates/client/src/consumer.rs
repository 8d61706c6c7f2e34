//! Reads given partitions from a start to an end.
//!
//! Batches come as they are stored: checksums are checked and payloads decompressed here, by whoever
//! calls. Nothing is skipped silently: a damaged batch or a lost range is an error.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use varve_proto::v1;
use varve_record::{BatchError, RecordRef, RecordView, Records, StoredBatch, iter_batches};
use varve_types::{PartitionId, TopicName, TopicPartition};

use crate::admin::Admin;
use crate::connect::Client;
use crate::error::ClientError;
use crate::fetcher::{self, Command, Item, Subscription};

/// Bytes of one partition that may be on their way to the application.
const PARTITION_WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// Least window of a partition.
const PARTITION_WINDOW_MIN_BYTES: usize = 256 * 1024;

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

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest record.
    Earliest,
    /// Records appended from now on.
    Latest,
    /// This offset.
    Offset(i64),
    /// The first record at or after this time, in milliseconds since the epoch.
    Timestamp(i64),
    /// The last so many records.
    Last(i64),
    /// So many records after the oldest.
    AfterEarliest(i64),
}

/// Where reading ends; all are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Never: follow the log.
    Never,
    /// The high watermark as it is now.
    CurrentEnd,
    /// This offset.
    Offset(i64),
    /// The first record at or after this time, in milliseconds since the epoch.
    Timestamp(i64),
}

/// A partition to read.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Topic.
    pub topic: TopicName,
    /// Partition.
    pub partition: i32,
    /// Where to begin.
    pub start: Start,
    /// Where to end.
    pub end: End,
}

/// A partition with numbers for its positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// First offset to read.
    pub start: i64,
    /// One past the last offset to read; `None`: follow.
    pub end: Option<i64>,
}

/// One batch of records.
#[derive(Debug, Clone)]
pub struct FetchedBatch {
    /// Topic.
    pub topic: TopicName,
    /// Partition.
    pub partition: PartitionId,
    /// The batch as stored. It may hold records that were not asked for;
    /// [`FetchedBatch::records`] leaves them out.
    pub batch: StoredBatch,
    /// Where to continue after this batch: the offset to commit.
    pub next_offset: i64,
    /// One past the last committed record when the batch was read.
    pub high_watermark: i64,
    from: i64,
    to: i64,
}

impl FetchedBatch {
    /// The records that were asked for, decompressed once.
    ///
    /// # Errors
    /// [`ClientError::Corrupt`] when the payload is damaged.
    pub fn records(&self) -> Result<FetchedRecords, ClientError> {
        let partition = || TopicPartition::new(self.topic.clone(), self.partition);
        let inner = self
            .batch
            .records()
            .map_err(|source| ClientError::Corrupt {
                partition: partition(),
                offset: self.batch.header.base_offset.get(),
                source,
            })?;
        Ok(FetchedRecords {
            inner,
            partition: partition(),
            from: self.from,
            to: self.to,
        })
    }
}

/// The records of a fetched batch.
#[derive(Debug)]
pub struct FetchedRecords {
    inner: Records,
    partition: TopicPartition,
    from: i64,
    to: i64,
}

impl FetchedRecords {
    /// The next record, borrowed: nothing is allocated.
    ///
    /// # Errors
    /// [`ClientError::Corrupt`] when the record is damaged.
    pub fn next_ref(&mut self) -> Result<Option<RecordRef<'_>>, ClientError> {
        // Records before the range are few (the rest of one batch), so they are walked over.
        while let Some(skipped) = self.peek_is_before() {
            if !skipped {
                break;
            }
        }
        let (to, partition) = (self.to, &self.partition);
        match self.inner.next_ref() {
            None => Ok(None),
            Some(Ok(record)) if record.offset.get() >= to => Ok(None),
            Some(Ok(record)) => Ok(Some(record)),
            Some(Err(source)) => Err(corrupt(partition, to, source)),
        }
    }

    /// Skips the next record when it lies before the range: `Some(true)` when it did.
    fn peek_is_before(&mut self) -> Option<bool> {
        if self.from == i64::MIN {
            return Some(false);
        }
        let mut ahead = self.inner.clone();
        let before = ahead
            .next_ref()?
            .is_ok_and(|record| record.offset.get() < self.from);
        if before {
            self.inner = ahead;
        } else {
            self.from = i64::MIN;
        }
        Some(before)
    }
}

fn corrupt(partition: &TopicPartition, offset: i64, source: BatchError) -> ClientError {
    ClientError::Corrupt {
        partition: partition.clone(),
        offset,
        source,
    }
}

impl Iterator for FetchedRecords {
    type Item = Result<RecordView, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.peek_is_before() == Some(true) {}
        match self.inner.next()? {
            Ok(record) if record.offset.get() >= self.to => None,
            Ok(record) => Some(Ok(record)),
            Err(source) => Some(Err(corrupt(&self.partition, self.to, source))),
        }
    }
}

struct Part {
    topic: TopicName,
    partition: PartitionId,
    position: i64,
    end: Option<i64>,
}

/// The application's side of a fetcher: partitions, and batches ready to be taken.
pub(crate) struct Feed {
    config: ConsumerConfig,
    commands: mpsc::UnboundedSender<Command>,
    items: mpsc::UnboundedReceiver<Item>,
    parts: BTreeMap<u64, Part>,
    ready: VecDeque<(u64, FetchedBatch)>,
    /// Credit of the message whose batches are being taken.
    owed: VecDeque<(u64, usize)>,
    failure: Option<ClientError>,
    next_id: u64,
}

impl Feed {
    pub fn new(client: Client, config: ConsumerConfig) -> Self {
        let (commands, items) = fetcher::start(client, config.rack.clone());
        Self {
            config,
            commands,
            items,
            parts: BTreeMap::new(),
            ready: VecDeque::new(),
            owed: VecDeque::new(),
            failure: None,
            next_id: 1,
        }
    }

    /// Starts to read a partition, one of about `of` partitions.
    pub fn add(&mut self, topic: TopicName, partition: i32, at: Resolved, of: usize) {
        if at.end.is_some_and(|end| at.start >= end) {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let window = (self.config.prefetch_bytes / of.max(1))
            .clamp(PARTITION_WINDOW_MIN_BYTES, PARTITION_WINDOW_BYTES);
        let subscription = Subscription {
            id,
            topic: topic.clone(),
            partition,
            next_offset: at.start,
            window,
            out_of_range: self.config.out_of_range,
        };
        let partition = PartitionId(partition);
        self.parts.insert(
            id,
            Part {
                topic,
                partition,
                position: at.start,
                end: at.end,
            },
        );
        let _ = self.commands.send(Command::Add(subscription));
    }

    /// Stops reading a partition; what is ready of it is thrown away.
    pub fn remove(&mut self, topic: &TopicName, partition: PartitionId) {
        let ids: Vec<u64> = self
            .parts
            .iter()
            .filter(|(_, part)| part.topic == *topic && part.partition == partition)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.finish(id);
            self.ready.retain(|(other, _)| *other != id);
        }
    }

    fn finish(&mut self, id: u64) {
        self.parts.remove(&id);
        let _ = self.commands.send(Command::Remove(id));
    }

    /// Whether every partition has reached its end and everything was taken.
    pub fn is_done(&self) -> bool {
        self.parts.is_empty() && self.ready.is_empty() && self.failure.is_none()
    }

    /// The next batch, waiting for one. Never resolves when there is nothing to read. May be dropped
    /// and called again without loss.
    pub async fn next(&mut self) -> Result<FetchedBatch, ClientError> {
        loop {
            if let Some((_, batch)) = self.ready.pop_front() {
                return Ok(batch);
            }
            if let Some(error) = self.failure.take() {
                return Err(error);
            }
            // All batches of the last message were taken, and the caller is back for more.
            for (id, bytes) in self.owed.drain(..) {
                let _ = self.commands.send(Command::Taken(id, bytes));
            }
            match self.items.recv().await {
                None => return Err(ClientError::Closed),
                Some(item) => self.take_in(item),
            }
            if self.is_done() {
                return Err(ClientError::Closed);
            }
        }
    }

    fn take_in(&mut self, item: Item) {
        match item {
            Item::Records {
                id,
                batches,
                next_offset,
                high_watermark,
                credit,
            } => {
                self.owed.push_back((id, credit));
                if self.parts.contains_key(&id)
                    && let Err(error) = self.split(id, batches, next_offset, high_watermark)
                {
                    self.finish(id);
                    self.failure.get_or_insert(error);
                }
            }
            Item::Positioned { id, next_offset } => {
                if let Some(part) = self.parts.get_mut(&id) {
                    part.position = next_offset;
                    if part.end.is_some_and(|end| next_offset >= end) {
                        self.finish(id);
                    }
                }
            }
            Item::Failed { id, error } => {
                if self.parts.remove(&id).is_some() {
                    self.failure.get_or_insert(error);
                }
            }
        }
    }

    fn split(
        &mut self,
        id: u64,
        batches: Vec<bytes::Bytes>,
        next_offset: i64,
        high_watermark: i64,
    ) -> Result<(), ClientError> {
        let Some(part) = self.parts.get_mut(&id) else {
            return Ok(());
        };
        let name = || TopicPartition::new(part.topic.clone(), part.partition);
        let to = part.end.unwrap_or(i64::MAX);
        for batch in batches.into_iter().flat_map(iter_batches) {
            let position = part.position;
            let batch = batch.map_err(|source| corrupt(&name(), position, source))?;
            let base = batch.header.base_offset.get();
            if self.config.check_crcs {
                batch
                    .verify_crc()
                    .map_err(|source| corrupt(&name(), base, source))?;
            }
            let next = batch.header.next_offset().get();
            if next <= position || base >= to {
                continue;
            }
            part.position = next;
            if batch.header.is_control() {
                continue;
            }
            let fetched = FetchedBatch {
                topic: part.topic.clone(),
                partition: part.partition,
                batch,
                next_offset: next.min(to),
                high_watermark,
                from: position,
                to,
            };
            self.ready.push_back((id, fetched));
        }
        part.position = part.position.max(next_offset);
        if part.position >= to {
            self.finish(id);
        }
        Ok(())
    }
}

/// See the module.
pub struct Consumer {
    feed: Feed,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

impl Consumer {
    /// Resolves the positions and starts to read.
    ///
    /// # Errors
    /// [`ClientError`] when a topic or partition does not exist, or nobody answers in time.
    pub async fn open(
        client: Client,
        config: ConsumerConfig,
        assignments: Vec<Assignment>,
    ) -> Result<Self, ClientError> {
        let resolved = resolve(&client, config.open_timeout, &assignments).await?;
        let mut topics: Vec<String> = assignments
            .iter()
            .map(|assignment| assignment.topic.to_string())
            .collect();
        topics.sort_unstable();
        topics.dedup();
        client.refresh(&topics).await?;
        let mut feed = Feed::new(client, config);
        let of = assignments.len();
        for (assignment, at) in assignments.into_iter().zip(resolved) {
            feed.add(assignment.topic, assignment.partition, at, of);
        }
        Ok(Self { feed })
    }

    /// The next batch, of any partition; in order within each. `None` when every partition has reached
    /// its end. May be dropped and called again without loss.
    ///
    /// # Errors
    /// [`ClientError`] of one partition, which is then not read any further; others go on with the
    /// next call.
    pub async fn next_batch(&mut self) -> Result<Option<FetchedBatch>, ClientError> {
        if self.feed.is_done() {
            return Ok(None);
        }
        match self.feed.next().await {
            Ok(batch) => Ok(Some(batch)),
            Err(ClientError::Closed) if self.feed.is_done() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

const fn anchor(anchor: v1::StartAnchor) -> v1::start_position::Position {
    v1::start_position::Position::Anchor(anchor as i32)
}

fn query(assignment: &Assignment, position: v1::start_position::Position) -> v1::OffsetQuery {
    v1::OffsetQuery {
        isolation: v1::Isolation::Unspecified.into(),
        with_timestamp: false,
        topic_partition: Some(v1::TopicPartition {
            topic: assignment.topic.to_string(),
            partition: assignment.partition,
        }),
        position: Some(v1::StartPosition {
            position: Some(position),
        }),
    }
}

/// Turns positions into offsets.
///
/// # Errors
/// The first partition's error, after `within` when a leader is missing.
pub async fn resolve(
    client: &Client,
    within: Duration,
    assignments: &[Assignment],
) -> Result<Vec<Resolved>, ClientError> {
    use v1::start_position::Position;
    let mut queries = Vec::with_capacity(assignments.len() * 2);
    for assignment in assignments {
        queries.push(match assignment.start {
            Start::Earliest | Start::Offset(_) | Start::AfterEarliest(_) => {
                query(assignment, anchor(v1::StartAnchor::Earliest))
            }
            Start::Latest => query(assignment, anchor(v1::StartAnchor::Latest)),
            Start::Timestamp(ms) => query(assignment, Position::TimestampMs(ms)),
            Start::Last(count) => query(assignment, Position::Last(count)),
        });
        queries.push(match assignment.end {
            End::Timestamp(ms) => query(assignment, Position::TimestampMs(ms)),
            _ => query(assignment, anchor(v1::StartAnchor::Latest)),
        });
    }
    let admin = Admin::new(client.clone());
    let answers = admin.list_offsets_within(within, queries).await;
    let offsets = answers
        .into_iter()
        .collect::<Result<Vec<_>, ClientError>>()?;
    let pairs = offsets.chunks_exact(2).zip(assignments);
    Ok(pairs
        .map(|(pair, assignment)| {
            let (first, last) = (&pair[0], &pair[1]);
            let start = match assignment.start {
                Start::Offset(offset) => offset,
                Start::AfterEarliest(count) => first.log_start_offset.saturating_add(count),
                _ => first.offset.unwrap_or(first.log_start_offset),
            };
            let end = match assignment.end {
                End::Never => None,
                End::CurrentEnd => Some(last.high_watermark),
                End::Offset(offset) => Some(offset),
                End::Timestamp(_) => Some(last.offset.unwrap_or(last.high_watermark)),
            };
            Resolved { start, end }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use varve_record::{BatchBuilder, Compression};
    use varve_types::{LeaderEpoch, Offset};

    fn stored(base: i64, count: i64) -> bytes::Bytes {
        let mut builder = BatchBuilder::new(Compression::Lz4, None);
        for index in 0..count {
            builder.append(base + index, None, Some(b"v"), &[]).unwrap();
        }
        let batch = builder.build_batch().unwrap();
        batch
            .sequence(Offset::new(base).unwrap(), LeaderEpoch::ZERO)
            .to_bytes()
    }

    fn feed(start: i64, end: Option<i64>) -> (Feed, mpsc::UnboundedReceiver<Command>) {
        let (commands, commanded) = mpsc::unbounded_channel();
        let (_, items) = mpsc::unbounded_channel();
        let mut feed = Feed {
            config: ConsumerConfig::default(),
            commands,
            items,
            parts: BTreeMap::new(),
            ready: VecDeque::new(),
            owed: VecDeque::new(),
            failure: None,
            next_id: 1,
        };
        feed.add("t".parse().unwrap(), 0, Resolved { start, end }, 1);
        (feed, commanded)
    }

    fn offsets(feed: &Feed) -> Vec<i64> {
        let records = feed
            .ready
            .iter()
            .flat_map(|(_, batch)| batch.records().unwrap());
        records.map(|record| record.unwrap().offset.get()).collect()
    }

    fn records(batches: Vec<bytes::Bytes>, next_offset: i64) -> Item {
        Item::Records {
            id: 1,
            batches,
            next_offset,
            high_watermark: 100,
            credit: 10,
        }
    }

    #[test]
    fn only_the_range_asked_for_is_delivered() {
        let (mut feed, mut commands) = feed(12, Some(17));
        feed.take_in(records(vec![stored(10, 5), stored(15, 5)], 20));
        assert_eq!(offsets(&feed), [12, 13, 14, 15, 16]);
        assert_eq!(feed.ready.back().unwrap().1.next_offset, 17);
        assert!(feed.parts.is_empty() && !feed.is_done());
        let sent: Vec<_> = std::iter::from_fn(|| commands.try_recv().ok()).collect();
        assert!(
            matches!(sent[..], [Command::Add(_), Command::Remove(1)]),
            "{sent:?}"
        );
        let mut by_ref = feed.ready[0].1.records().unwrap();
        assert_eq!(by_ref.next_ref().unwrap().unwrap().offset.get(), 12);
    }

    #[test]
    fn a_run_of_batches_in_one_message_and_repeats_after_a_reconnect() {
        let (mut feed, _commands) = feed(0, None);
        let run = [stored(0, 3), stored(3, 2)].concat();
        feed.take_in(records(vec![run.into()], 5));
        feed.take_in(records(vec![stored(3, 2), stored(5, 2)], 7));
        assert_eq!(offsets(&feed), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn an_empty_range_is_done_at_once() {
        let (feed, _commands) = feed(5, Some(5));
        assert!(feed.is_done());
    }

    #[test]
    fn damage_is_an_error_and_stops_the_partition() {
        let (mut feed, _commands) = feed(0, None);
        let mut damaged = stored(0, 3).to_vec();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        feed.take_in(records(vec![damaged.into()], 3));
        assert!(matches!(
            feed.failure,
            Some(ClientError::Corrupt { offset: 0, .. })
        ));
        assert!(feed.parts.is_empty());
    }

    #[test]
    fn a_compacted_tail_counts_towards_the_end() {
        let (mut feed, _commands) = feed(0, Some(10));
        feed.take_in(records(vec![stored(0, 3)], 10));
        assert_eq!(offsets(&feed), [0, 1, 2]);
        assert!(feed.parts.is_empty());
    }
}
