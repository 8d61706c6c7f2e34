//! Internal topics that coordinators keep what they know in, `__consumer_offsets` and `__transaction_state`: made
//! when they are first needed, appended to with the guarantees of any `acks=all` write, replayed when a coordinator
//! starts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use varve_broker_api::{CreateTopic, Error, FetchPartition};
use varve_partition::Verified;
use varve_record::{BatchBuilder, Compression, Marker, iter_batches};
use varve_types::{
    Acks, ErrorKind, LeaderEpoch, Offset, PartitionId, ProducerId, TopicName, limits,
};
use varve_vfs::Clock;

use crate::admission::Admission;
use crate::config::BrokerConfig;
use crate::isolation::Sight;
use crate::partition::Partition;
use crate::produce::{Receipt, Terms, enqueue};
use crate::reader;
use crate::registry::{Registry, Topic};

/// Name of the topic of groups.
pub(crate) const OFFSETS: &str = TopicName::OFFSETS;
/// Name of the topic of transactions.
pub(crate) const TRANSACTIONS: &str = TopicName::TRANSACTIONS;

/// Bytes of appends in flight: a budget of their own, so that a flood of records never delays a commit.
const IN_FLIGHT_BYTES: usize = 8 * 1024 * 1024;

/// Bytes read at a time on replay.
const REPLAY_BYTES: usize = 1024 * 1024;

/// Bytes of keys and values in one batch, unless one record alone has more. The largest commit of offsets has less: it
/// must be in the log whole or not at all, because it is answered so.
const BATCH_BYTES: usize = 6 * 1024 * 1024;
const _: () = assert!(
    BATCH_BYTES > limits::REQUEST_MAX_PARTITIONS * (limits::COMMIT_METADATA_MAX_BYTES + 1024)
);

/// Bytes of keys and values up to which appends that have nothing to do with each other share a batch.
pub(crate) const SHARED_BYTES: usize = 512 * 1024;
/// Records up to which they do.
pub(crate) const SHARED_RECORDS: usize = BATCH_RECORDS;
const _: () = assert!(SHARED_BYTES < BATCH_BYTES);

/// Bytes of a record beside its key and value, about.
const RECORD_OVERHEAD: usize = 16;

/// Records of one batch.
const BATCH_RECORDS: usize = 131_072;

/// Times that a read which met compaction is repeated before it is given up.
const STALE_MOST: u32 = 100;
/// Time between looks at a high watermark, and at a log that has changed.
const LOOK: Duration = Duration::from_millis(10);

/// A key and a value; `None`: a tombstone.
pub(crate) type KeyValue = (Vec<u8>, Option<Vec<u8>>);

/// Whose transaction a batch belongs to, and what is known of the partition's registration in it.
pub(crate) type Writer = (ProducerId, Verified);

/// The end of a producer's transaction in a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// Producer of the marker.
    pub(crate) producer: ProducerId,
    /// Offset of the marker, where it left its producer the epoch.
    pub(crate) kept_at: Option<Offset>,
    /// Committed; else aborted.
    pub(crate) committed: bool,
}

/// What a replay finds.
#[derive(Debug)]
pub(crate) enum Replayed {
    /// A record; `producer`: of that producer's transaction, in the batch at this offset.
    Record {
        producer: Option<(ProducerId, Offset)>,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    /// The end of a producer's transaction in this partition.
    End(Ended),
}

/// Access to one internal topic.
pub(crate) struct InternalTopic {
    name: TopicName,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    admission: Admission,
    partitions: i32,
    segment_bytes: u64,
}

impl InternalTopic {
    /// The topic of groups.
    pub(crate) fn offsets(
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        config: &BrokerConfig,
    ) -> Self {
        let sizes = (config.offsets_partitions, config.offsets_segment_bytes);
        Self::new(OFFSETS, registry, clock, sizes)
    }

    /// The topic of transactions.
    pub(crate) fn transactions(
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        config: &BrokerConfig,
    ) -> Self {
        let sizes = (config.transactions_partitions, config.offsets_segment_bytes);
        Self::new(TRANSACTIONS, registry, clock, sizes)
    }

    fn new(
        name: &'static str,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        (partitions, segment_bytes): (i32, u64),
    ) -> Self {
        Self {
            name: name_of(name),
            registry,
            clock,
            admission: Admission::new(IN_FLIGHT_BYTES),
            partitions,
            segment_bytes,
        }
    }

    /// Its name.
    pub(crate) const fn name(&self) -> &TopicName {
        &self.name
    }

    /// Whether records go into the log together or not at all.
    pub(crate) fn is_one_batch(records: &[KeyValue]) -> bool {
        parts(records).count() <= 1
    }

    /// How many partitions the topic has. It is made if it is not there.
    pub(crate) async fn partition_count(&self) -> Result<i32, Error> {
        Ok(self.topic().await?.info.partitions)
    }

    async fn topic(&self) -> Result<Arc<Topic>, Error> {
        if let Ok(topic) = self.registry.topic(&self.name) {
            return Ok(topic);
        }
        self.create().await?;
        self.registry.topic(&self.name)
    }

    /// Appends records, in their order, to that partition; in `epoch` of its leader only, if given. They are one
    /// batch, or several where they are too large for that: an image of a group may be. With a `producer` they are
    /// part of its transaction, which the partition is registered in.
    pub(crate) async fn append(
        &self,
        number: PartitionId,
        epoch: Option<LeaderEpoch>,
        producer: Option<Writer>,
        records: &[KeyValue],
    ) -> Result<Vec<Receipt>, Error> {
        let topic = self.topic().await?;
        let partition = topic.partition(number)?;
        let mut receipts = Vec::new();
        for part in parts(records) {
            receipts.push(self.append_batch(partition, epoch, producer, part).await?);
        }
        Ok(receipts)
    }

    async fn append_batch(
        &self,
        partition: &Arc<Partition>,
        epoch: Option<LeaderEpoch>,
        producer: Option<Writer>,
        records: &[KeyValue],
    ) -> Result<Receipt, Error> {
        let now_ms = self.clock.wall_ms();
        let bytes = bytes_of(records) + records.len() * RECORD_OVERHEAD;
        let mut builder = BatchBuilder::with_capacity(Compression::None, None, bytes);
        if let Some((producer, _)) = producer {
            builder.set_transaction_of(producer);
        }
        for (key, value) in records {
            builder
                .append(now_ms, Some(key), value.as_deref(), &[])
                .map_err(|e| internal(&partition.id.topic, &e))?;
        }
        let batch = builder
            .build_batch()
            .map_err(|e| internal(&partition.id.topic, &e))?;
        let size = batch.header().size();
        let Some(permit) = self.admission.admit(size).await else {
            return Err(Error::new(
                ErrorKind::ShuttingDown,
                "the broker is shutting down",
            ));
        };
        let terms = Terms {
            acks: Acks::All,
            leader_epoch: epoch,
            verified: producer.map_or(Verified::No, |(_, verified)| verified),
            ..Terms::new(Acks::All)
        };
        enqueue(partition, batch, terms, permit, self.clock.now())
    }

    pub(crate) async fn create(&self) -> Result<(), Error> {
        let topic = self.name.clone();
        let configs = [
            ("cleanup.policy", "compact".to_owned()),
            ("segment.bytes", self.segment_bytes.to_string()),
        ];
        let request = CreateTopic {
            topic,
            partitions: Some(self.partitions),
            replication_factor: None,
            configs: configs.map(|(k, v)| (k.to_owned(), v)).into(),
            labels: BTreeMap::new(),
            placement: BTreeMap::new(),
            validate_only: false,
            request_id: None,
        };
        match self.registry.create_topic(request).await {
            Err(error) if error.kind != ErrorKind::TopicAlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Hands every record and marker to `each`, oldest first per partition. Returns the partitions that could not be
    /// read whole, and how many there are: what they hold is unknown, which is not the same as nothing.
    pub(crate) async fn replay(
        &self,
        only: Option<PartitionId>,
        mut each: impl FnMut(PartitionId, Replayed),
    ) -> (BTreeSet<PartitionId>, i32) {
        let mut unread = BTreeSet::new();
        let Ok(topic) = self.registry.topic(&self.name) else {
            return (unread, 0);
        };
        let wanted = |p: &&Arc<Partition>| only.is_none_or(|only| p.id.partition == only);
        for partition in topic.partitions.values().filter(wanted) {
            if only.is_some() {
                committed_before(partition).await;
            }
            let number = partition.id.partition;
            if let Err(error) = replay_partition(partition, &mut |found| each(number, found)).await
            {
                tracing::error!(
                    partition = %partition.id, %error,
                    "could not read an internal topic"
                );
                unread.insert(partition.id.partition);
            }
        }
        (unread, topic.info.partitions)
    }
}

/// Bytes of keys and values.
pub(crate) fn bytes_of(records: &[KeyValue]) -> usize {
    let bytes = |(key, value): &KeyValue| key.len() + value.as_ref().map_or(0, Vec::len);
    records.iter().map(bytes).sum()
}

/// The records in runs that fit into a batch each.
fn parts(records: &[KeyValue]) -> impl Iterator<Item = &[KeyValue]> {
    let (mut bytes, mut count) = (0, 0);
    records.chunk_by(move |before, _| {
        bytes += bytes_of(std::slice::from_ref(before));
        count += 1;
        let fits = bytes < BATCH_BYTES && count < BATCH_RECORDS;
        if !fits {
            (bytes, count) = (0, 0);
        }
        fits
    })
}

/// Waits until what earlier leaders have committed is known to be committed here (KIP-207).
async fn committed_before(partition: &Partition) {
    while partition.leading().is_some() && partition.high_watermark() < partition.epoch_start() {
        tokio::time::sleep(LOOK).await;
    }
}

async fn replay_partition(
    partition: &Arc<Partition>,
    each: &mut impl FnMut(Replayed),
) -> Result<(), Error> {
    partition.view()?;
    let (mut offset, mut stale) = (partition.log_start(), 0);
    while offset < partition.high_watermark() {
        let next = match replay_chunk(partition, offset, each).await {
            // Compaction has replaced files under the view that was read by: the next view has the new ones. What
            // gives up here is not read again until the next start.
            Err(error)
                if error.kind == ErrorKind::LeaderNotAvailable
                    && partition.offline().is_none()
                    && stale < STALE_MOST =>
            {
                stale += 1;
                tokio::time::sleep(LOOK).await;
                continue;
            }
            read => read?,
        };
        stale = 0;
        // What the page cache holds is read without ever waiting, and others want this thread too.
        tokio::task::yield_now().await;
        if next <= offset {
            let why = format!("a read at offset {offset} made no progress");
            return Err(internal(&partition.id.topic, &why));
        }
        offset = next;
    }
    Ok(())
}

async fn replay_chunk(
    partition: &Arc<Partition>,
    offset: Offset,
    each: &mut impl FnMut(Replayed),
) -> Result<Offset, Error> {
    let request = FetchPartition {
        topic: partition.id.topic.clone(),
        partition: partition.id.partition,
        offset,
        max_bytes: REPLAY_BYTES,
        leader_epoch: None,
    };
    let fetched = reader::read_one(partition, &request, REPLAY_BYTES, true, Sight::Raw).await?;
    for batch in iter_batches(fetched.batches) {
        let batch = batch.map_err(|e| internal(&partition.id.topic, &e))?;
        batch
            .verify_crc()
            .map_err(|e| internal(&partition.id.topic, &e))?;
        if batch.header.is_control() {
            let end = batch.end_marker();
            let end = end.map_err(|e| internal(&partition.id.topic, &e))?;
            if let (Some(end), Some(producer)) = (end, batch.header.session()) {
                each(Replayed::End(Ended {
                    producer,
                    kept_at: end.number.map(|_| batch.header.base_offset),
                    committed: end.marker == Marker::Commit,
                }));
            }
            continue;
        }
        let transactional = batch.header.is_transactional();
        let producer = batch.header.session().filter(|_| transactional);
        let producer = producer.map(|producer| (producer, batch.header.base_offset));
        let records = batch.records();
        for record in records.map_err(|e| internal(&partition.id.topic, &e))? {
            let record = record.map_err(|e| internal(&partition.id.topic, &e))?;
            if let Some(key) = record.key {
                each(Replayed::Record {
                    producer,
                    key: key.to_vec(),
                    value: record.value.map(|v| v.to_vec()),
                });
            }
        }
    }
    Ok(fetched.next_offset)
}

fn internal(topic: &TopicName, error: &impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::CorruptLog, format!("{topic}: {error}"))
}

/// The name of an internal topic.
pub(crate) fn name_of(name: &'static str) -> TopicName {
    match TopicName::new(name) {
        Ok(name) => name,
        Err(error) => unreachable!("{name} is a legal name: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_for_a_batch_becomes_several_in_order() {
        let record = |n: u8, bytes: usize| (vec![n], Some(vec![0; bytes]));
        let sizes = [10, BATCH_BYTES, 5, 5, BATCH_BYTES / 2, BATCH_BYTES / 2, 7];
        let numbers = 0_u8..;
        let records: Vec<_> = numbers
            .zip(sizes)
            .map(|(n, size)| record(n, size))
            .collect();
        let parts: Vec<Vec<u8>> = parts(&records)
            .map(|part| part.iter().map(|(key, _)| key[0]).collect())
            .collect();
        assert_eq!(parts, [vec![0, 1], vec![2, 3, 4, 5], vec![6]]);
        assert_eq!(super::parts(&[]).count(), 0);
        let many = vec![(Vec::new(), None); BATCH_RECORDS + 1];
        let parts: Vec<usize> = super::parts(&many).map(<[_]>::len).collect();
        assert_eq!(parts, [BATCH_RECORDS, 1]);
    }
}
