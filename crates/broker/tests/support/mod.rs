//! A broker over a simulated disk.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

pub mod cluster;
pub mod gate;
pub mod transactions;
pub mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use varve_broker::{Broker, BrokerConfig};
use varve_broker_api::{
    Appended, Broker as _, Context, CreateTopic, Error, Fetch, FetchPartition, Fetched, Isolation,
    Produce,
};
use varve_record::{Batch, BatchBuilder, Compression, iter_batches};
use varve_types::{Acks, ClusterId, NodeId, Offset, PartitionId, ProducerId, Sequence, TopicName};
use varve_vfs::fault::FaultVfs;
use varve_vfs::mem::MemVfs;
use varve_vfs::{Clock, SystemClock, Vfs};

/// A broker, its disk, and the faults of that disk.
pub struct Fixture {
    pub broker: Broker,
    pub disk: Arc<MemVfs>,
    pub faults: Arc<FaultVfs>,
}

fn data_dir() -> PathBuf {
    PathBuf::from("/data")
}

impl Fixture {
    pub async fn new() -> Self {
        let disk = Arc::new(MemVfs::new());
        varve_vfs::durable::create_dir_all(&*disk, &data_dir()).unwrap();
        Self::on(disk, false).await
    }

    async fn on(disk: Arc<MemVfs>, clean_start: bool) -> Self {
        Self::with(disk, Arc::new(SystemClock::new()), |config| {
            config.clean_start = clean_start;
        })
        .await
    }

    /// On that disk, by that clock, with another configuration.
    pub async fn with(
        disk: Arc<MemVfs>,
        clock: Arc<dyn Clock>,
        change: impl FnOnce(&mut BrokerConfig),
    ) -> Self {
        let faults = FaultVfs::new(Arc::clone(&disk) as Arc<dyn Vfs>);
        let mut config = BrokerConfig::new(data_dir(), ClusterId(1), NodeId(1));
        config.offsets_partitions = 3;
        config.transactions_partitions = 3;
        config.min_free_bytes = 0;
        change(&mut config);
        let vfs = Arc::clone(&faults) as Arc<dyn Vfs>;
        let broker = Broker::start(config, vfs, clock).await.unwrap();
        Self {
            broker,
            disk,
            faults,
        }
    }

    /// The disk loses power; a new process starts on what is left.
    pub async fn crash_and_restart(self) -> Self {
        self.disk.crash_losing_unsynced();
        // The old process is gone; what it still does in this test must not reach the new one.
        let left = Arc::new(self.disk.image());
        self.broker.shutdown().await;
        Self::on(left, false).await
    }

    /// The process is killed, the disk keeps its power: a new process finds what the page cache has.
    pub async fn kill_and_restart(self) -> Self {
        let left = Arc::new(self.disk.image());
        self.broker.shutdown().await;
        Self::on(left, false).await
    }

    /// Starts again on the same disk.
    pub async fn restart(self, clean: bool) -> Self {
        Self::on(self.disk, clean).await
    }

    pub async fn create(&self, name: &str, partitions: i32) -> TopicName {
        let request = new_topic(name, partitions);
        self.broker
            .create_topic(&Context::anonymous(), request)
            .await
            .unwrap()
            .name
    }

    pub fn topic_dir(&self, topic: &str) -> PathBuf {
        let topics = data_dir().join("topics");
        let entries = self.disk.list(&topics).unwrap();
        let dir = entries.iter().find(|e| e.name.starts_with(topic)).unwrap();
        topics.join(&dir.name)
    }

    pub fn remove_topic_dir(&self, topic: &str) {
        self.disk.remove_dir_all(&self.topic_dir(topic)).unwrap();
    }

    pub fn partition_dir(&self, topic: &str, partition: i32) -> PathBuf {
        self.topic_dir(topic).join(partition.to_string())
    }

    pub fn remove_partition_dir(&self, topic: &str, partition: i32) {
        let dir = self.topic_dir(topic).join(partition.to_string());
        self.disk.remove_dir_all(&dir).unwrap();
    }
}

pub fn new_topic(name: &str, partitions: i32) -> CreateTopic {
    CreateTopic {
        topic: name.parse().unwrap(),
        partitions: Some(partitions),
        replication_factor: None,
        configs: Default::default(),
        labels: Default::default(),
        placement: Default::default(),
        validate_only: false,
        request_id: None,
    }
}

/// A broker whose disk is watched, and whose housekeeping comes with every tick.
pub async fn watched(disk: &Arc<MemVfs>) -> (Broker, watch::WatchVfs, Arc<FaultVfs>) {
    varve_vfs::durable::create_dir_all(&**disk, &data_dir()).unwrap();
    let faults = FaultVfs::new(Arc::clone(disk) as Arc<dyn Vfs>);
    let watch = watch::WatchVfs::new(Arc::clone(&faults) as Arc<dyn Vfs>);
    let mut config = BrokerConfig::new(data_dir(), ClusterId(1), NodeId(1));
    config.offsets_partitions = 3;
    config.transactions_partitions = 3;
    config.min_free_bytes = 0;
    config.housekeeping_interval = Duration::from_millis(500);
    config.offsets_segment_bytes = 4096;
    let eager = [
        ("min.cleanable.dirty.ratio", "0.1"),
        ("delete.retention.ms", "0"),
    ];
    config.topic_defaults = eager.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let broker = Broker::start(
        config,
        Arc::new(watch.clone()),
        Arc::new(SystemClock::new()),
    )
    .await
    .unwrap();
    (broker, watch, faults)
}

/// A topic with these configs and one partition.
pub async fn create_with(broker: &Broker, name: &str, configs: &[(&str, &str)]) -> TopicName {
    let mut request = new_topic(name, 1);
    request.configs = configs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let created = broker.create_topic(&Context::anonymous(), request).await;
    created.unwrap().name
}

/// The first series of a metric; 0 where there is none.
pub fn metric(broker: &Broker, name: &str) -> f64 {
    let mut registry = prometheus_client::registry::Registry::with_prefix("varve");
    broker.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = text.lines().find(|l| l.starts_with(name));
    line.and_then(|l| l.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0.0)
}

/// Waits until `what` holds.
pub async fn until(why: &str, mut what: impl FnMut() -> bool) {
    for _ in 0..400 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {why}");
}

fn builder(values: &[&str]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for value in values {
        builder
            .append(now_ms(), Some(b"k"), Some(value.as_bytes()), &[])
            .unwrap();
    }
    builder
}

fn now_ms() -> i64 {
    varve_vfs::Clock::wall_ms(&SystemClock::new())
}

pub fn batch(values: &[&str]) -> Batch {
    builder(values).build_batch().unwrap()
}

pub fn idempotent_batch(producer: ProducerId, sequence: Sequence, values: &[&str]) -> Batch {
    let mut builder = builder(values);
    builder.set_producer(producer, sequence);
    builder.build_batch().unwrap()
}

pub async fn produce(
    broker: &Broker,
    topic: &TopicName,
    partition: i32,
    batch: Batch,
) -> Result<Appended, Error> {
    let request = Produce {
        transaction_version: Default::default(),
        transactional_id: None,
        topic: topic.clone(),
        partition: PartitionId(partition),
        acks: Acks::All,
        batch,
        expected_offset: None,
    };
    let receipt = broker.produce(&Context::anonymous(), request).await?;
    tokio::time::timeout(Duration::from_secs(20), receipt)
        .await
        .expect("an answer")
}

pub async fn fetch_one(
    broker: &Broker,
    topic: &TopicName,
    partition: i32,
    offset: i64,
) -> Result<Fetched, Error> {
    let fetch = Fetch {
        raw: false,
        isolation: varve_broker_api::Isolation::default(),
        partitions: vec![FetchPartition {
            topic: topic.clone(),
            partition: PartitionId(partition),
            offset: Offset::new(offset).unwrap(),
            max_bytes: 1 << 20,
            leader_epoch: None,
        }],
        max_wait: Duration::ZERO,
        min_bytes: 1,
        max_bytes: 1 << 20,
    };
    broker
        .fetch(&Context::anonymous(), fetch)
        .await?
        .remove(0)
        .result
}

/// Where a reader goes on, or `None` if that fetch has come to the end of what readers of that isolation see. One that
/// is not there and has got nothing asks again, but not for ever: `idle` counts how often that was.
pub async fn next_place(
    from: Offset,
    fetched: &Fetched,
    isolation: Isolation,
    idle: &mut usize,
) -> Option<Offset> {
    let (next, end) = (fetched.next_offset, fetched.end(isolation));
    if next >= end {
        return None;
    }
    *idle += usize::from(next <= from);
    assert!(
        *idle < 400,
        "a reader is kept at {from}: it is to go on at {next}, and the end is {end}"
    );
    match next > from {
        true => tokio::task::yield_now().await,
        false => tokio::time::sleep(Duration::from_millis(50)).await,
    }
    Some(next)
}

/// Values of every committed record, from the log start.
pub async fn read_all(broker: &Broker, topic: &TopicName, partition: i32) -> Vec<String> {
    let info = broker.partitions(&Context::anonymous(), topic).unwrap();
    let mut offset = info[partition as usize].log_start;
    let (mut values, mut idle) = (Vec::new(), 0);
    loop {
        let fetched = fetch_one(broker, topic, partition, offset.get())
            .await
            .unwrap();
        for batch in iter_batches(fetched.batches.clone()) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                if record.offset >= offset {
                    values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                }
            }
        }
        let isolation = Isolation::default();
        match next_place(offset, &fetched, isolation, &mut idle).await {
            Some(next) => offset = next,
            None => return values,
        }
    }
}
