//! Collects records into one open batch per partition. No I/O, no clock: the time is an argument,
//! counted from any fixed moment.
//!
//! A batch closes when the next record does not fit, when it has lingered and somebody takes it, or when
//! a flush asks for it. Records without key stick to one partition until its batch closes, then to
//! another at random, so that batches are full (KIP-480). Closed batches wait in order; the memory of
//! everything not yet settled is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use varve_record::{BatchBuilder, BatchError, Compression, HEADER_BYTES, record_size_bound};
use varve_types::{PartitionId, TopicName, partitioner};

use crate::backoff::Random;
use crate::delivery::Delivery;

/// Room of a partition's first batch.
const FIRST_BYTES: usize = 16 * 1024;

/// Settings of a [`Batcher`].
#[derive(Debug, Clone)]
pub struct BatcherConfig {
    /// A batch closes before it grows past this many bytes, uncompressed. One larger record gets a
    /// batch of its own.
    pub batch_bytes: usize,
    /// An open batch waits this long for more records.
    pub linger: Duration,
    /// Bytes of records not yet settled.
    pub buffer_bytes: usize,
    /// Codec.
    pub compression: Compression,
    /// Level on the codec's scale.
    pub level: Option<i32>,
}

/// A partition, by the numbers this batcher gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Index of the topic.
    pub topic: usize,
    /// Partition.
    pub partition: PartitionId,
}

/// A record to append, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// Partition; `None` lets the key, or chance, decide.
    pub partition: Option<PartitionId>,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: Option<&'a [u8]>,
    /// Headers; names are bytes, UTF-8 by custom.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
}

/// Where a record was put.
#[derive(Debug)]
pub struct Appended<'a> {
    /// The batch's fate.
    pub delivery: &'a Arc<Delivery>,
    /// Index of the record in its batch.
    pub index: u32,
    /// A batch was opened or closed: whoever sends should look.
    pub wake: bool,
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The topic's partitions are not known.
    #[error("the topic's partitions are not known yet")]
    UnknownTopic,
    /// No such partition.
    #[error("the topic has {0} partitions")]
    NoSuchPartition(i32),
    /// No memory left until something is settled.
    #[error("the buffer is full")]
    BufferFull,
    /// The record breaks a limit.
    #[error(transparent)]
    Record(#[from] BatchError),
}

/// A batch that takes no more records.
#[derive(Debug)]
pub struct ClosedBatch {
    /// Number of the batch; grows.
    pub id: u64,
    /// Partition.
    pub slot: Slot,
    /// The records.
    pub builder: BatchBuilder,
    /// Its fate.
    pub delivery: Arc<Delivery>,
    /// Bytes to give back when it is settled.
    pub charged: usize,
    /// When its first record came.
    pub created: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    open: Option<ClosedBatch>,
    ready: VecDeque<ClosedBatch>,
    /// Bytes of the last batch that was taken: the next one gets room for about as much.
    last: usize,
}

#[derive(Debug)]
struct Topic {
    name: TopicName,
    queues: Vec<Queue>,
    available: Vec<bool>,
    sticky: Option<usize>,
}

/// See the module.
#[derive(Debug)]
pub struct Batcher {
    config: BatcherConfig,
    topics: Vec<Topic>,
    by_name: BTreeMap<TopicName, usize>,
    active: BTreeSet<Slot>,
    unsettled: BTreeSet<u64>,
    used: usize,
    next_id: u64,
    flushes: usize,
    random: Random,
}

impl Batcher {
    /// An empty batcher. `seed` decides which partitions records without key go to.
    #[must_use]
    pub fn new(config: BatcherConfig, seed: u64) -> Self {
        Self {
            config,
            topics: Vec::new(),
            by_name: BTreeMap::new(),
            active: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            used: 0,
            next_id: 0,
            flushes: 0,
            random: Random::new(seed),
        }
    }

    /// Learns the partitions of a topic, `true` where there is a leader. Partitions are only added.
    pub fn set_topic(&mut self, name: &TopicName, available: &[bool]) -> usize {
        let index = *self.by_name.entry(name.clone()).or_insert_with(|| {
            self.topics.push(Topic {
                name: name.clone(),
                queues: Vec::new(),
                available: Vec::new(),
                sticky: None,
            });
            self.topics.len() - 1
        });
        let topic = &mut self.topics[index];
        if available.len() >= topic.queues.len() {
            topic.queues.resize_with(available.len(), Queue::default);
            topic.available = available.to_vec();
        }
        index
    }

    /// Name of a topic.
    #[must_use]
    pub fn topic_name(&self, index: usize) -> Option<&TopicName> {
        self.topics.get(index).map(|topic| &topic.name)
    }

    /// Index of a topic whose partitions are known.
    #[must_use]
    pub fn topic_index(&self, topic: &str) -> Option<usize> {
        self.by_name.get(topic).copied()
    }

    /// Adds a record to the batch of its partition.
    ///
    /// # Errors
    /// [`AppendError`]; the record was not taken.
    #[inline]
    pub fn append(
        &mut self,
        now: Duration,
        topic: usize,
        record: &NewRecord<'_>,
    ) -> Result<Appended<'_>, AppendError> {
        if self
            .topics
            .get(topic)
            .is_none_or(|topic| topic.queues.is_empty())
        {
            return Err(AppendError::UnknownTopic);
        }
        let headers = record
            .headers
            .iter()
            .map(|(n, v)| (n.len(), v.map_or(0, <[u8]>::len)));
        let bound = record_size_bound(
            record.key.map(<[u8]>::len),
            record.value.map(<[u8]>::len),
            headers,
        );
        if self.used + bound > self.config.buffer_bytes && self.used > 0 {
            return Err(AppendError::BufferFull);
        }
        let mut partition = self.choose(topic, record)?;
        let mut wake = false;
        let fits = |open: &ClosedBatch, limit| open.builder.size_estimate() + bound <= limit;
        let queue = &mut self.topics[topic].queues[partition];
        if queue
            .open
            .as_ref()
            .is_some_and(|open| !fits(open, self.config.batch_bytes))
        {
            self.close(topic, partition);
            wake = true;
            // The batch closed, so a record without key moves on.
            partition = self.choose(topic, record)?;
        }
        if self.topics[topic].queues[partition].open.is_none() {
            self.open(now, topic, partition, bound);
            wake = true;
        }
        let Some(open) = &mut self.topics[topic].queues[partition].open else {
            return Err(AppendError::UnknownTopic);
        };
        let before = open.builder.size_estimate();
        let added = open.builder.append_raw(
            record.timestamp_ms,
            record.key,
            record.value,
            record.headers,
        );
        let size = open.builder.size_estimate();
        open.charged += size - before;
        self.used += size - before;
        if let Err(error) = added {
            if open.builder.is_empty() {
                self.discard(topic, partition);
            }
            return Err(error.into());
        }
        let wake = wake || size + HEADER_BYTES >= self.config.batch_bytes;
        match &self.topics[topic].queues[partition].open {
            Some(open) => Ok(Appended {
                delivery: &open.delivery,
                index: open.builder.len() - 1,
                wake,
            }),
            None => Err(AppendError::UnknownTopic),
        }
    }

    fn choose(&mut self, topic: usize, record: &NewRecord<'_>) -> Result<usize, AppendError> {
        let topic = &mut self.topics[topic];
        let count = topic.queues.len();
        if let Some(PartitionId(partition)) = record.partition {
            let index = usize::try_from(partition)
                .ok()
                .filter(|index| *index < count);
            return index.ok_or(AppendError::NoSuchPartition(count as i32));
        }
        if let Some(key) = record.key {
            let PartitionId(partition) = partitioner::partition_for_key(key, count as i32);
            return Ok(partition as usize);
        }
        if let Some(sticky) = topic.sticky.filter(|sticky| *sticky < count) {
            return Ok(sticky);
        }
        let start = self.random.below(count);
        let candidates = (0..count).map(|step| (start + step) % count);
        let chosen = candidates
            .clone()
            .find(|index| topic.available[*index])
            .unwrap_or(start);
        topic.sticky = Some(chosen);
        Ok(chosen)
    }

    fn open(&mut self, now: Duration, topic: usize, partition: usize, bound: usize) {
        let slot = Slot {
            topic,
            partition: PartitionId(partition as i32),
        };
        let name = self.topics[topic].name.clone();
        // Room for a whole batch in each of thousands of partitions would be memory that nobody has counted, for
        // batches that linger ends when they are small.
        let last = self.topics[topic].queues[partition].last;
        let expected = last.saturating_add(last / 4).max(FIRST_BYTES);
        let capacity = expected.min(self.config.batch_bytes).max(bound);
        let batch = ClosedBatch {
            id: self.next_id,
            slot,
            builder: BatchBuilder::with_capacity(
                self.config.compression,
                self.config.level,
                capacity,
            ),
            delivery: Delivery::new(name, slot.partition),
            charged: HEADER_BYTES,
            created: now,
        };
        self.next_id += 1;
        self.used += HEADER_BYTES;
        self.unsettled.insert(batch.id);
        self.active.insert(slot);
        self.topics[topic].queues[partition].open = Some(batch);
    }

    /// Takes back an open batch that has no record.
    fn discard(&mut self, topic: usize, partition: usize) {
        let queue = &mut self.topics[topic].queues[partition];
        let Some(batch) = queue.open.take() else {
            return;
        };
        if queue.ready.is_empty() {
            self.active.remove(&batch.slot);
        }
        self.settle(batch.id, batch.charged);
    }

    fn close(&mut self, topic: usize, partition: usize) {
        let topic = &mut self.topics[topic];
        let queue = &mut topic.queues[partition];
        queue.ready.extend(queue.open.take());
        if topic.sticky == Some(partition) {
            topic.sticky = None;
        }
    }

    /// Partitions that have records waiting here.
    #[must_use]
    pub fn active(&self) -> Vec<Slot> {
        self.active.iter().copied().collect()
    }

    /// Takes the partition's next batch, if one is due: closed, lingered long enough, or flushed.
    pub fn take(&mut self, now: Duration, slot: Slot) -> Option<ClosedBatch> {
        let partition = slot.partition.0 as usize;
        let queue = self.topics.get_mut(slot.topic)?.queues.get_mut(partition)?;
        if queue.ready.is_empty() {
            let due = queue.open.as_ref().is_some_and(|open| {
                self.flushes > 0
                    || now >= open.created + self.config.linger
                    || open.builder.size_estimate() + HEADER_BYTES >= self.config.batch_bytes
            });
            if !due {
                return None;
            }
            self.close(slot.topic, partition);
        }
        self.pop(slot)
    }

    fn pop(&mut self, slot: Slot) -> Option<ClosedBatch> {
        let queue = &mut self.topics[slot.topic].queues[slot.partition.0 as usize];
        let batch = queue.ready.pop_front();
        queue.last = batch
            .as_ref()
            .map_or(queue.last, |b| b.builder.size_estimate());
        if queue.ready.is_empty() && queue.open.is_none() {
            self.active.remove(&slot);
        }
        batch
    }

    /// Takes the batches whose first record came at or before `oldest`: their time is up.
    pub fn expire(&mut self, oldest: Duration) -> Vec<ClosedBatch> {
        let mut expired = Vec::new();
        for slot in self.active() {
            let partition = slot.partition.0 as usize;
            loop {
                let queue = &self.topics[slot.topic].queues[partition];
                let first = queue.ready.front().or(queue.open.as_ref());
                if first.is_none_or(|batch| batch.created > oldest) {
                    break;
                }
                if queue.ready.is_empty() {
                    self.close(slot.topic, partition);
                }
                expired.extend(self.pop(slot));
            }
        }
        expired
    }

    /// Earliest moment after `now` at which an open batch has lingered enough.
    #[must_use]
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        let due = |slot: &Slot| {
            let open = self.topics[slot.topic].queues[slot.partition.0 as usize]
                .open
                .as_ref()?;
            Some(open.created + self.config.linger)
        };
        self.active
            .iter()
            .filter_map(due)
            .filter(|due| *due > now)
            .min()
    }

    /// Gives back what a settled batch had taken.
    pub fn settle(&mut self, id: u64, charged: usize) {
        if self.unsettled.remove(&id) {
            self.used -= charged;
        }
    }

    /// Bytes not yet settled.
    #[must_use]
    pub const fn used_bytes(&self) -> usize {
        self.used
    }

    /// Makes every batch due until [`Batcher::end_flush`]. Returns the number that all batches so far
    /// are below.
    pub const fn begin_flush(&mut self) -> u64 {
        self.flushes += 1;
        self.next_id
    }

    /// Ends a flush.
    pub const fn end_flush(&mut self) {
        self.flushes = self.flushes.saturating_sub(1);
    }

    /// Whether every batch below `id` is settled.
    #[must_use]
    pub fn settled_below(&self, id: u64) -> bool {
        self.unsettled.first().is_none_or(|first| *first >= id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const MS: Duration = Duration::from_millis(1);

    fn batcher(batch_bytes: usize, buffer_bytes: usize) -> Batcher {
        let config = BatcherConfig {
            batch_bytes,
            linger: MS * 5,
            buffer_bytes,
            compression: Compression::None,
            level: None,
        };
        Batcher::new(config, 42)
    }

    fn record<'a>(key: Option<&'a [u8]>, value: &'a [u8]) -> NewRecord<'a> {
        NewRecord {
            partition: None,
            key,
            value: Some(value),
            headers: &[],
            timestamp_ms: 1,
        }
    }

    fn topic(batcher: &mut Batcher, partitions: usize) -> usize {
        batcher.set_topic(&"t".parse().unwrap(), &vec![true; partitions])
    }

    #[test]
    fn a_batch_is_due_after_it_lingered_or_is_full() {
        let mut batcher = batcher(1000, 100_000);
        let t = topic(&mut batcher, 1);
        let slot = Slot {
            topic: t,
            partition: PartitionId(0),
        };
        assert!(
            batcher
                .append(MS * 10, t, &record(None, b"a"))
                .unwrap()
                .wake
        );
        assert!(
            !batcher
                .append(MS * 11, t, &record(None, b"b"))
                .unwrap()
                .wake
        );
        assert_eq!(batcher.next_due(MS * 11), Some(MS * 15));
        assert!(batcher.take(MS * 14, slot).is_none());
        let batch = batcher.take(MS * 15, slot).unwrap();
        assert_eq!(batch.builder.len(), 2);
        assert!(batcher.active().is_empty());
        for _ in 0..4 {
            batcher
                .append(MS * 20, t, &record(None, &[7; 300]))
                .unwrap();
        }
        let full = batcher.take(MS * 20, slot).unwrap();
        assert_eq!(full.builder.len(), 2);
        assert!(full.builder.size_estimate() <= 1000);
    }

    #[test]
    fn keys_keep_to_their_partition_and_the_rest_sticks_until_a_batch_closes() {
        let mut batcher = batcher(400, 1_000_000);
        let t = topic(&mut batcher, 6);
        let key = b"customer-17";
        let expected = partitioner::partition_for_key(key, 6);
        for _ in 0..10 {
            let appended = batcher.append(MS, t, &record(Some(key), &[0; 50])).unwrap();
            assert_eq!(appended.delivery.partition(), expected);
        }
        let mut runs: Vec<(PartitionId, u32)> = Vec::new();
        for _ in 0..600 {
            let appended = batcher.append(MS, t, &record(None, &[0; 100])).unwrap();
            let partition = appended.delivery.partition();
            match runs.last_mut() {
                Some((last, count)) if *last == partition && appended.index > 0 => *count += 1,
                _ => runs.push((partition, 1)),
            }
        }
        assert!(runs.len() > 100, "{}", runs.len());
        assert!(
            runs[1..runs.len() - 1]
                .iter()
                .all(|(_, count)| *count >= 1 && *count <= 3)
        );
        let used: BTreeSet<_> = runs.iter().map(|(partition, _)| *partition).collect();
        assert_eq!(used.len(), 6);
    }

    #[test]
    fn partitions_without_leader_are_avoided() {
        let mut batcher = batcher(400, 1_000_000);
        let t = batcher.set_topic(&"t".parse().unwrap(), &[false, true, false]);
        for _ in 0..100 {
            let appended = batcher.append(MS, t, &record(None, &[0; 100])).unwrap();
            assert_eq!(appended.delivery.partition(), PartitionId(1));
        }
    }

    #[test]
    fn the_buffer_is_bounded_until_batches_are_settled() {
        let mut batcher = batcher(1000, 4000);
        let t = topic(&mut batcher, 1);
        let mut taken = 0;
        while batcher.append(MS, t, &record(None, &[1; 400])).is_ok() {
            taken += 1;
        }
        assert!((5..=9).contains(&taken), "{taken}");
        assert!(batcher.used_bytes() <= 4000);
        let full = batcher.append(MS, t, &record(None, &[1; 400])).unwrap_err();
        assert_eq!(full, AppendError::BufferFull);
        let slot = Slot {
            topic: t,
            partition: PartitionId(0),
        };
        let batch = batcher.take(MS, slot).unwrap();
        batcher.settle(batch.id, batch.charged);
        batcher.settle(batch.id, batch.charged);
        assert!(batcher.append(MS, t, &record(None, &[1; 400])).is_ok());
    }

    #[test]
    fn one_record_larger_than_everything_still_goes_alone() {
        let mut batcher = batcher(1000, 2000);
        let t = topic(&mut batcher, 1);
        batcher
            .append(MS, t, &record(None, &vec![1; 50_000]))
            .unwrap();
        let slot = Slot {
            topic: t,
            partition: PartitionId(0),
        };
        assert_eq!(batcher.take(MS, slot).unwrap().builder.len(), 1);
    }

    #[test]
    fn a_refused_record_leaves_nothing_behind() {
        let mut batcher = batcher(1000, 10_000);
        let t = topic(&mut batcher, 2);
        let huge = vec![0; varve_types::limits::DECOMPRESSED_MAX_BYTES];
        let bad = record(None, &huge);
        assert!(matches!(
            batcher.append(MS, t, &bad),
            Err(AppendError::Record(_))
        ));
        assert_eq!(batcher.used_bytes(), 0);
        assert!(batcher.active().is_empty() && batcher.settled_below(u64::MAX));
        let nowhere = NewRecord {
            partition: Some(PartitionId(2)),
            ..record(None, b"v")
        };
        let error = batcher.append(MS, t, &nowhere).unwrap_err();
        assert_eq!(error, AppendError::NoSuchPartition(2));
        let unknown = batcher.append(MS, 9, &record(None, b"v")).unwrap_err();
        assert_eq!(unknown, AppendError::UnknownTopic);
    }

    #[test]
    fn a_flush_makes_everything_due_and_knows_when_it_is_settled() {
        let mut batcher = batcher(1000, 10_000);
        let t = topic(&mut batcher, 1);
        let slot = Slot {
            topic: t,
            partition: PartitionId(0),
        };
        batcher.append(MS, t, &record(None, b"v")).unwrap();
        assert!(batcher.take(MS, slot).is_none());
        let target = batcher.begin_flush();
        let batch = batcher.take(MS, slot).unwrap();
        assert!(!batcher.settled_below(target));
        batcher.end_flush();
        batcher.append(MS, t, &record(None, b"later")).unwrap();
        assert!(batcher.take(MS, slot).is_none());
        batcher.settle(batch.id, batch.charged);
        assert!(batcher.settled_below(target));
    }

    #[test]
    fn batches_expire_in_order() {
        let mut batcher = batcher(300, 10_000);
        let t = topic(&mut batcher, 1);
        for at in 1..=4 {
            batcher
                .append(MS * at, t, &record(None, &[0; 200]))
                .unwrap();
        }
        let expired = batcher.expire(MS * 2);
        assert_eq!(
            expired.iter().map(|b| b.created).collect::<Vec<_>>(),
            [MS, MS * 2]
        );
        assert_eq!(batcher.expire(MS * 9).len(), 2);
        assert!(batcher.active().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn every_record_is_in_exactly_one_batch_in_order(
            sizes in proptest::collection::vec(0_usize..500, 1..200),
            seed: u64,
        ) {
            let mut batcher = batcher(1000, 1_000_000);
            batcher.random = Random::new(seed);
            let t = topic(&mut batcher, 3);
            let mut expected: BTreeMap<PartitionId, Vec<i64>> = BTreeMap::new();
            for (number, size) in sizes.iter().enumerate() {
                let value = vec![0; *size];
                let key = [number as u8 % 4];
                let key = (number % 3 > 0).then_some(&key[..]);
                let record = NewRecord { timestamp_ms: number as i64, ..record(key, &value) };
                let appended = batcher.append(MS, t, &record).unwrap();
                let partition = appended.delivery.partition();
                expected.entry(partition).or_default().push(number as i64);
            }
            batcher.begin_flush();
            let mut charged = 0;
            for (partition, numbers) in expected {
                let slot = Slot { topic: t, partition };
                let mut found = Vec::new();
                while let Some(batch) = batcher.take(MS, slot) {
                    charged += batch.charged;
                    batcher.settle(batch.id, batch.charged);
                    let batch = batch.builder.build_batch().unwrap();
                    found.extend(batch.records().unwrap().map(|r| r.unwrap().timestamp));
                }
                proptest::prop_assert_eq!(found, numbers);
            }
            proptest::prop_assert!(charged > 0);
            proptest::prop_assert_eq!(batcher.used_bytes(), 0);
            proptest::prop_assert!(batcher.active().is_empty());
        }
    }
}
