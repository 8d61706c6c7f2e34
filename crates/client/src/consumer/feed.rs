//! Between the fetcher and the positions: messages are cut into batches and checked, subscriptions opened and
//! closed as positions say, credit given back.
//!
//! Invariants: a batch is given only after its checksum was checked, if that is wanted; a subscription that
//! was closed gives nothing, whatever is still on its way; what fails is told once, after everything that
//! arrived before it.

use std::collections::{BTreeSet, VecDeque};
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc;
use varve_record::iter_batches;
use varve_types::TopicPartition;

use super::batch::corrupt;
use super::{ConsumerConfig, FetchedBatch, Resolved};
use crate::connect::Client;
use crate::error::ClientError;
use crate::fetcher::{self, Command, Item, Subscription};
use crate::positions::Positions;

/// Bytes of one partition that may be on their way to the application.
const PARTITION_WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// Least window of a partition.
const PARTITION_WINDOW_MIN_BYTES: usize = 256 * 1024;

/// See the module.
pub(crate) struct Feed {
    config: ConsumerConfig,
    commands: mpsc::UnboundedSender<Command>,
    items: mpsc::UnboundedReceiver<Item>,
    pub positions: Positions<FetchedBatch>,
    failures: VecDeque<ClientError>,
}

impl Feed {
    pub fn new(client: Client, config: ConsumerConfig) -> Self {
        let (commands, items) = fetcher::start(client, config.rack.clone());
        Self {
            config,
            commands,
            items,
            positions: Positions::default(),
            failures: VecDeque::new(),
        }
    }

    pub const fn config(&self) -> &ConsumerConfig {
        &self.config
    }

    /// Starts to read a partition, one of about `of` partitions.
    pub fn add(&mut self, partition: TopicPartition, at: Resolved, grant: u64, of: usize) {
        let id = self
            .positions
            .assign(partition.clone(), at.start, at.end, grant);
        self.open(id, partition, at.start, of);
    }

    fn open(&mut self, id: Option<u64>, partition: TopicPartition, next_offset: i64, of: usize) {
        let Some(id) = id else { return };
        let window = (self.config.prefetch_bytes / of.max(1))
            .clamp(PARTITION_WINDOW_MIN_BYTES, PARTITION_WINDOW_BYTES);
        let _ = self.commands.send(Command::Add(Subscription {
            id,
            topic: partition.topic,
            partition: partition.partition.0,
            next_offset,
            window,
            out_of_range: self.config.out_of_range,
        }));
    }

    fn close(&self, id: Option<u64>) {
        if let Some(id) = id {
            let _ = self.commands.send(Command::Remove(id));
        }
    }

    /// Stops reading partitions; what is ready of them is thrown away.
    pub fn remove<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            let id = self.positions.remove(partition);
            self.close(id);
        }
    }

    /// As [`Feed::remove`], except that what was processed can still be committed.
    pub fn stop(&mut self, partitions: &BTreeSet<TopicPartition>) {
        for partition in partitions {
            let id = self.positions.stop(partition);
            self.close(id);
        }
    }

    /// Goes on at an offset.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`].
    pub fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), ClientError> {
        let Some(reopen) = self.positions.seek(partition, offset) else {
            return Err(ClientError::NotAssigned(partition.clone()));
        };
        self.close(reopen.close);
        let of = self.positions.assigned().len();
        self.open(reopen.open, partition.clone(), offset, of);
        Ok(())
    }

    /// Whether every partition has reached its end and everything was taken.
    pub fn is_done(&self) -> bool {
        self.positions.is_done() && self.failures.is_empty()
    }

    /// The next batch. Pending, with a waker, while there is none; [`ClientError::Closed`] when nothing is
    /// read.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<FetchedBatch, ClientError>> {
        loop {
            if let Some(batch) = self.positions.take() {
                return Poll::Ready(Ok(batch));
            }
            if let Some(error) = self.failures.pop_front() {
                return Poll::Ready(Err(error));
            }
            // All that is there was taken, and the caller is back for more.
            self.give_credit();
            if self.is_done() {
                return Poll::Ready(Err(ClientError::Closed));
            }
            match ready!(self.items.poll_recv(cx)) {
                None => return Poll::Ready(Err(ClientError::Closed)),
                Some(item) => self.take_in(item),
            }
        }
    }

    fn give_credit(&mut self) {
        for (id, bytes) in self.positions.owed() {
            let _ = self.commands.send(Command::Taken(id, bytes));
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
            } => match self.split(id, batches, high_watermark) {
                Ok(()) => {
                    let ended = self.positions.message_ended(id, next_offset, credit);
                    self.close(ended);
                }
                Err(error) => {
                    self.close(Some(id));
                    if self.positions.failed(id) {
                        self.failures.push_back(error);
                    }
                }
            },
            Item::Positioned { id, next_offset } => {
                let ended = self.positions.moved(id, next_offset);
                self.close(ended);
            }
            Item::Failed { id, error } => {
                if self.positions.failed(id) {
                    self.failures.push_back(error);
                }
            }
        }
    }

    fn split(
        &mut self,
        id: u64,
        batches: Vec<bytes::Bytes>,
        high_watermark: i64,
    ) -> Result<(), ClientError> {
        let Some((partition, mut position, to)) = self.positions.expected(id) else {
            return Ok(());
        };
        let partition = partition.clone();
        for batch in batches.into_iter().flat_map(iter_batches) {
            let batch = batch.map_err(|source| corrupt(&partition, position, source))?;
            let base = batch.header.base_offset.get();
            if self.config.check_crcs {
                batch
                    .verify_crc()
                    .map_err(|source| corrupt(&partition, base, source))?;
            }
            let next = batch.header.next_offset().get();
            if next <= position || base >= to {
                continue;
            }
            let from = std::mem::replace(&mut position, next);
            if batch.header.is_control() {
                continue;
            }
            let fetched = FetchedBatch {
                topic: partition.topic.clone(),
                partition: partition.partition,
                batch,
                next_offset: next.min(to),
                high_watermark,
                from,
                to,
            };
            self.positions.arrived(id, fetched);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use varve_record::{BatchBuilder, Compression};
    use varve_types::{LeaderEpoch, Offset, PartitionId};

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
            positions: Positions::default(),
            failures: VecDeque::new(),
        };
        let partition = TopicPartition::new("t".parse().unwrap(), PartitionId(0));
        feed.add(partition, Resolved { start, end }, 0, 1);
        (feed, commanded)
    }

    /// Everything that is ready.
    fn batches(feed: &mut Feed) -> Vec<FetchedBatch> {
        std::iter::from_fn(|| {
            feed.positions.come_back();
            feed.positions.take()
        })
        .collect()
    }

    fn offsets(batches: &[FetchedBatch]) -> Vec<i64> {
        let records = batches.iter().flat_map(|batch| batch.records().unwrap());
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
        assert!(!feed.is_done());
        let batches = batches(&mut feed);
        assert!(feed.is_done());
        assert_eq!(offsets(&batches), [12, 13, 14, 15, 16]);
        assert_eq!(batches.last().unwrap().next_offset, 17);
        let sent: Vec<_> = std::iter::from_fn(|| commands.try_recv().ok()).collect();
        assert!(
            matches!(sent[..], [Command::Add(_), Command::Remove(1)]),
            "{sent:?}"
        );
        let mut by_ref = batches[0].records().unwrap();
        assert_eq!(by_ref.next_ref().unwrap().unwrap().offset.get(), 12);
    }

    #[test]
    fn a_run_of_batches_in_one_message_and_repeats_after_a_reconnect() {
        let (mut feed, _commands) = feed(0, None);
        let run = [stored(0, 3), stored(3, 2)].concat();
        feed.take_in(records(vec![run.into()], 5));
        feed.take_in(records(vec![stored(3, 2), stored(5, 2)], 7));
        assert_eq!(offsets(&batches(&mut feed)), [0, 1, 2, 3, 4, 5, 6]);
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
            feed.failures.pop_front(),
            Some(ClientError::Corrupt { offset: 0, .. })
        ));
        assert!(feed.is_done());
    }

    #[test]
    fn a_compacted_tail_counts_towards_the_end() {
        let (mut feed, _commands) = feed(0, Some(10));
        feed.take_in(records(vec![stored(0, 3)], 10));
        let batches = batches(&mut feed);
        assert_eq!(offsets(&batches), [0, 1, 2]);
        assert!(feed.is_done());
    }

    #[test]
    fn a_seek_closes_one_subscription_and_opens_another() {
        let (mut feed, mut commands) = feed(0, None);
        let partition = TopicPartition::new("t".parse().unwrap(), PartitionId(0));
        feed.take_in(records(vec![stored(0, 5)], 5));
        feed.seek(&partition, 2).unwrap();
        feed.take_in(records(vec![stored(5, 5)], 10));
        assert!(batches(&mut feed).is_empty(), "all of it is from before");
        let sent: Vec<_> = std::iter::from_fn(|| commands.try_recv().ok()).collect();
        let [Command::Add(_), Command::Remove(1), Command::Add(again)] = &sent[..] else {
            panic!("{sent:?}");
        };
        assert_eq!((again.id, again.next_offset), (2, 2));
        // The server sends whole batches, also where the middle of one was asked for.
        let item = Item::Records {
            id: 2,
            batches: vec![stored(0, 5)],
            next_offset: 5,
            high_watermark: 10,
            credit: 10,
        };
        feed.take_in(item);
        assert_eq!(offsets(&batches(&mut feed)), [2, 3, 4]);
        let other = TopicPartition::new("t".parse().unwrap(), PartitionId(1));
        let refused = feed.seek(&other, 0).unwrap_err();
        assert_eq!(refused, ClientError::NotAssigned(other));
    }

    #[test]
    fn the_rest_of_a_batch_is_given_without_what_was_processed() {
        let (mut feed, _commands) = feed(0, None);
        feed.take_in(records(vec![stored(0, 5)], 5));
        assert!(feed.positions.take().is_some());
        feed.positions.processed_up_to(3);
        assert_eq!(offsets(&batches(&mut feed)), [3, 4]);
    }
}
