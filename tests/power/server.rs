//! The whole server on a disk that loses power, fails a sync once, fills up or hangs: what a client was told
//! stays true, and what still works goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;
use varve_client::{
    Assignment, Client, ClientConfig, ClientError, Consumer, ConsumerConfig, End, Producer,
    ProducerConfig, RecordRef, Start,
};
use varve_tests::node::Node;
use varve_tests::wait;
use varve_types::TopicName;

use crate::driver::Random;
use varve_tests::machine::{Disk, Tracer, amount, skipped};

const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;

/// Value by partition and offset.
type Records = BTreeMap<(i32, i64), Vec<u8>>;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn topic() -> TopicName {
    "kept".parse().unwrap()
}

fn client(address: &str) -> Client {
    Client::new(ClientConfig {
        brokers: vec![address.to_owned()],
        ..ClientConfig::default()
    })
    .unwrap()
}

fn make_topic(node: &Node) {
    let partitions = PARTITIONS.to_string();
    let made = varve_tests::run(node, &["topic", "create", "kept", "-p", &partitions]);
    assert!(made.status.success(), "{made:?}");
}

/// A producer that gives up on a record after `patience`.
fn producer(address: &str, patience: Duration) -> Producer {
    let config = ProducerConfig {
        linger: Duration::ZERO,
        delivery_timeout: patience,
        ..ProducerConfig::default()
    };
    Producer::new(client(address), config).unwrap()
}

/// Sends one record and waits for its fate; the offset.
async fn send(producer: &Producer, partition: i32, value: &[u8]) -> Result<i64, ClientError> {
    let record = RecordRef {
        partition: Some(partition),
        value: Some(value),
        ..RecordRef::default()
    };
    let ack = producer.send(&topic(), record).await?.await?;
    Ok(ack.offset.unwrap().get())
}

/// A value that nobody else sends.
fn value(partition: i32, number: u64, bytes: usize) -> Vec<u8> {
    let mut value = format!("{partition}/{number} ").into_bytes();
    value.resize(bytes.max(value.len()), b'.');
    value
}

/// Everything in the topic, each partition without gaps.
async fn read_all(address: &str) -> Records {
    let all = (0..PARTITIONS).map(|partition| Assignment {
        topic: topic(),
        partition,
        start: Start::Earliest,
        end: End::CurrentEnd,
    });
    let config = ConsumerConfig::default();
    let opened = Consumer::open(client(address), config, all.collect()).await;
    let mut consumer = opened.unwrap();
    let mut records = Records::new();
    while let Some(batch) = consumer.next_batch().await.unwrap() {
        let partition = batch.partition.0;
        let mut inside = batch.batch.records().unwrap();
        while let Some(record) = inside.next_ref() {
            let record = record.unwrap();
            let place = (partition, record.offset.get());
            let old = records.insert(place, record.value.unwrap().to_vec());
            assert!(old.is_none(), "{place:?} is there twice");
        }
    }
    for partition in 0..PARTITIONS {
        let offsets: Vec<i64> = records
            .keys()
            .filter(|(p, _)| *p == partition)
            .map(|(_, offset)| *offset)
            .collect();
        let expected: Vec<i64> = (0..).take(offsets.len()).collect();
        assert_eq!(offsets, expected, "partition {partition} has no gaps");
    }
    records
}

/// All of `acknowledged` is in `found`, at its place.
fn assert_kept(acknowledged: &Records, found: &Records) {
    for (place, value) in acknowledged {
        assert_eq!(
            found.get(place).map(|v| String::from_utf8_lossy(v)),
            Some(String::from_utf8_lossy(value)),
            "the record acknowledged at {place:?}"
        );
    }
}

/// Producers that go on until nothing works any more; what they were told.
struct Traffic {
    acknowledged: Arc<Mutex<Records>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    /// One producer for each partition, with values of up to `bytes` bytes.
    fn start(runtime: &Runtime, address: &str, bytes: usize) -> Self {
        let acknowledged = Arc::new(Mutex::new(Records::new()));
        let tasks = (0..PARTITIONS).map(|partition| {
            let (address, told) = (address.to_owned(), Arc::clone(&acknowledged));
            runtime.spawn(async move {
                let producer = producer(&address, PATIENCE);
                for number in 0.. {
                    let size = usize::try_from(number * 7919 % bytes as u64).unwrap();
                    let value = value(partition, number, size);
                    match send(&producer, partition, &value).await {
                        Ok(offset) => {
                            told.lock().unwrap().insert((partition, offset), value);
                        }
                        Err(_) => break,
                    }
                }
            })
        });
        Self {
            tasks: tasks.collect(),
            acknowledged,
        }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until that many records are acknowledged.
    fn wait(&self, count: usize) {
        wait::until("acknowledged records", PATIENCE, || {
            (self.count() >= count).then_some(())
        });
    }

    /// Ends the producers; what was acknowledged by then.
    fn end(self) -> Records {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

#[test]
fn a_server_whose_power_is_cut_has_everything_it_acknowledged() {
    if skipped("a power cut under a server") {
        return;
    }
    let runtime = runtime();
    for round in 0..amount(1, 20) {
        let mut random = Random::new(round as u64 + 77);
        let disk = Disk::new(
            256,
            if round % 2 == 0 {
                "ordered"
            } else {
                "writeback"
            },
        );
        let mut node = Node::start(&disk.path().join("data"));
        make_topic(&node);
        let mut kept = Records::new();
        // The second cut finds what the first has left, and a log that was recovered.
        for _ in 0..2 {
            let switch = disk.arm();
            let traffic = Traffic::start(&runtime, &node.address(), 20_000);
            traffic.wait(100 + usize::try_from(random.below(300)).unwrap());
            switch.cut(node.pid());
            node.kill();
            kept.append(&mut traffic.end());
            disk.power_on();
            node.restart();
            let found = runtime.block_on(read_all(&node.address()));
            assert_kept(&kept, &found);
            eprintln!("{} acknowledged, {} found", kept.len(), found.len());
        }
    }
}

/// The directory of a partition's log.
fn log_dir(node: &Node, partition: i32) -> PathBuf {
    let topics = std::fs::read_dir(node.dir().join("topics")).unwrap();
    let ours = topics
        .flatten()
        .find(|e| e.file_name().to_string_lossy().starts_with("kept-"));
    ours.unwrap().path().join(partition.to_string())
}

fn metric(node: &Node, name: &str) -> Option<f64> {
    let (_, text) = node.get("/metrics");
    let line = text.lines().find(|l| l.starts_with(name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// The next `fdatasync` of one log fails, all later ones succeed (fsyncgate): the process ends, because what is in the
/// page cache cannot be believed any more, and the next start goes by the disk.
#[test]
fn a_sync_that_fails_once_ends_the_node_and_loses_nothing() {
    if skipped("a failing sync under a server") {
        return;
    }
    let runtime = runtime();
    let disk = Disk::new(256, "ordered");
    // Without a journal, so that each partition stands for itself.
    let files_only = [("VARVE_JOURNAL__MAX__BYTES", "0")];
    let mut node = Node::start_with(&disk.path().join("data"), &files_only);
    make_topic(&node);
    let address = node.address();
    let mut kept = Records::new();
    let fill = |kept: &mut Records, partitions: &[i32], from: u64| {
        runtime.block_on(async {
            let producer = producer(&address, PATIENCE);
            for number in from..from + 5 {
                for partition in partitions {
                    let value = value(*partition, number, 100);
                    let offset = send(&producer, *partition, &value).await.unwrap();
                    kept.insert((*partition, offset), value);
                }
            }
        });
    };
    fill(&mut kept, &[0, 1, 2, 3], 0);
    assert_eq!(
        metric(&node, "varve_cluster_leaderless_partitions"),
        Some(0.0)
    );

    let log = log_dir(&node, 0).join("00000000000000000000.log");
    let tracer = Tracer::attach(
        node.pid(),
        "fdatasync",
        &[Path::new(&log)],
        "fdatasync:error=EIO:when=1",
    );
    let first = runtime.block_on(async {
        let producer = producer(&address, Duration::from_millis(1_500));
        let sent = send(&producer, 0, &value(0, 100, 100)).await;
        sent.unwrap_err()
    });
    drop(tracer);
    // The disk is fine again; the process does not go on all the same.
    assert_eq!(node.ends().code(), Some(1), "{first}");

    // Whoever supervises it starts it again: everything acknowledged is there, and it takes records.
    node.restart();
    let address = node.address();
    let found = runtime.block_on(read_all(&address));
    assert_kept(&kept, &found);
    runtime.block_on(async {
        let producer = producer(&address, PATIENCE);
        for partition in 0..PARTITIONS {
            let value = value(partition, 300, 100);
            let offset = send(&producer, partition, &value).await.unwrap();
            kept.insert((partition, offset), value);
        }
    });
    let found = runtime.block_on(read_all(&node.address()));
    assert_kept(&kept, &found);
    assert_eq!(
        metric(&node, "varve_cluster_leaderless_partitions"),
        Some(0.0)
    );
}

/// The next `fdatasync` of the journal fails, all later ones succeed: no partition acknowledges anything more, and the
/// process ends.
#[test]
fn a_sync_of_the_journal_that_fails_once_ends_the_node() {
    if skipped("a failing sync under a server") {
        return;
    }
    let runtime = runtime();
    let disk = Disk::new(256, "ordered");
    let mut node = Node::start(&disk.path().join("data"));
    make_topic(&node);
    let address = node.address();
    let mut kept = Records::new();
    runtime.block_on(async {
        let producer = producer(&address, PATIENCE);
        for number in 0..5_000 {
            if metric(&node, "varve_journal_groups_total") > Some(5.0) {
                return;
            }
            for partition in 0..PARTITIONS {
                let value = value(partition, number, 100);
                let offset = send(&producer, partition, &value).await.unwrap();
                kept.insert((partition, offset), value);
            }
        }
        panic!("the journal is never used");
    });
    let journal = disk.path().join("data/journal/0000.journal");
    let tracer = Tracer::attach(
        node.pid(),
        "fdatasync",
        &[&journal],
        "fdatasync:error=EIO:when=1",
    );
    let first = runtime.block_on(async {
        let producer = producer(&address, Duration::from_millis(1_500));
        let sent = send(&producer, 0, &value(0, 10_000, 100)).await;
        sent.unwrap_err()
    });
    drop(tracer);
    assert_eq!(node.ends().code(), Some(1), "{first}");
    node.restart();
    let found = runtime.block_on(read_all(&node.address()));
    assert_kept(&kept, &found);
}

#[test]
fn a_full_disk_refuses_appends_and_serves_again_when_there_is_space() {
    if skipped("a full disk under a server") {
        return;
    }
    let runtime = runtime();
    let disk = Disk::new(32, "ordered");
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![0x5a; 12 << 20]).unwrap();
    let node = Node::start_with(
        &disk.path().join("data"),
        &[("VARVE_OFFSETS__TOPIC__NUM__PARTITIONS", "1")],
    );
    make_topic(&node);
    let address = node.address();
    let mut kept = Records::new();
    let refusals = runtime.block_on(async {
        let impatient = producer(&address, Duration::from_millis(800));
        let mut refused = BTreeSet::new();
        let mut number = 0;
        // Until every partition has refused a record.
        while refused.len() < usize::try_from(PARTITIONS).unwrap() {
            assert!(number < 2_000, "the disk does not fill");
            for partition in 0..PARTITIONS {
                let value = value(partition, number, 64 << 10);
                match send(&impatient, partition, &value).await {
                    Ok(offset) => {
                        kept.insert((partition, offset), value);
                    }
                    Err(_) => {
                        refused.insert(partition);
                    }
                }
            }
            number += 1;
        }
        number
    });
    assert!(refusals > 10, "records went in before");
    let found = runtime.block_on(read_all(&address));
    assert_kept(&kept, &found);
    assert_eq!(
        metric(&node, "varve_cluster_leaderless_partitions"),
        Some(0.0),
        "a full disk takes nothing offline"
    );

    std::fs::remove_file(&filler).unwrap();
    runtime.block_on(async {
        let producer = producer(&address, PATIENCE);
        for partition in 0..PARTITIONS {
            let value = value(partition, u64::MAX, 64 << 10);
            let offset = send(&producer, partition, &value).await.unwrap();
            kept.insert((partition, offset), value);
        }
    });
    let found = runtime.block_on(read_all(&address));
    assert_kept(&kept, &found);
}

#[test]
fn a_hung_disk_acknowledges_nothing_and_loses_nothing() {
    if skipped("a hung disk under a server") {
        return;
    }
    let runtime = runtime();
    let disk = Disk::new(256, "ordered");
    let node = Node::start(&disk.path().join("data"));
    make_topic(&node);
    let traffic = Traffic::start(&runtime, &node.address(), 2_000);
    traffic.wait(50);
    let frozen = disk.freeze();
    // Answers that were on their way when it froze arrive; then there are none for a while.
    let mut still = (traffic.count(), std::time::Instant::now());
    wait::until("producers to hang", PATIENCE, || {
        if traffic.count() != still.0 {
            still = (traffic.count(), std::time::Instant::now());
        }
        (still.1.elapsed() > Duration::from_secs(2)).then_some(())
    });
    assert_eq!(node.get("/metrics").0, 200, "the node answers meanwhile");
    assert_eq!(
        traffic.count(),
        still.0,
        "nothing is acknowledged by a hung disk"
    );
    drop(frozen);
    traffic.wait(still.0 + 100);
    let kept = traffic.end();
    let found = runtime.block_on(read_all(&node.address()));
    assert_kept(&kept, &found);
}
