//! Three nodes, one of which dies or is stopped while the client library works: producers see no error,
//! consumers see every record once and in order, groups go on from what they committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;
use varve_client::{
    Admin, Assignment, Client, ClientConfig, ClientError, Consumer, ConsumerConfig, End,
    GroupConfig, GroupConsumer, Producer, ProducerConfig, RecordRef, Start, proto as v1,
};
use varve_tests::cluster::Cluster;
use varve_tests::wait;
use varve_types::TopicName;

/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 3;

fn client(brokers: &[String]) -> Client {
    Client::new(ClientConfig {
        brokers: brokers.to_vec(),
        ..ClientConfig::default()
    })
    .unwrap()
}

fn create(runtime: &Runtime, cluster: &Cluster, topic: &str) {
    let request = v1::CreateTopicRequest {
        topic: topic.to_owned(),
        partition_count: PARTITIONS,
        replication_factor: 3,
        configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
        ..Default::default()
    };
    let admin = Admin::new(client(&[cluster.node(1).address()]));
    runtime.block_on(admin.create_topic(request)).unwrap();
    cluster.wait_in_sync(topic, 3);
}

/// Numbers for every partition, one after the other, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u64>,
}

impl Load {
    fn start(runtime: &Runtime, client: Client, topic: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let topic: TopicName = topic.parse().unwrap();
        let task = runtime.spawn(async move {
            let producer = Producer::new(client, ProducerConfig::default()).unwrap();
            let mut number = 0u64;
            while !stopped.load(Ordering::SeqCst) {
                let value = number.to_string();
                for partition in 0..PARTITIONS {
                    let record = RecordRef {
                        partition: Some(partition),
                        value: Some(value.as_bytes()),
                        ..Default::default()
                    };
                    producer.enqueue(&topic, record).await.unwrap();
                }
                number += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // The first failure of any record since the beginning is told here.
            producer.flush().await.unwrap();
            number
        });
        Self { stop, task }
    }

    fn finish(self, runtime: &Runtime) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, self.task).await })
            .unwrap()
            .unwrap()
    }
}

/// Offset and number of everything that was read, by partition.
type Seen = Arc<Mutex<BTreeMap<i32, Vec<(i64, u64)>>>>;

fn count(seen: &Seen) -> usize {
    seen.lock().unwrap().values().map(Vec::len).sum()
}

fn note(seen: &Seen, batch: &varve_client::FetchedBatch) {
    let mut seen = seen.lock().unwrap();
    let list = seen.entry(batch.partition.0).or_default();
    for record in batch.records().unwrap() {
        let record = record.unwrap();
        let value = std::str::from_utf8(record.value.as_deref().unwrap()).unwrap();
        list.push((record.offset.get(), value.parse().unwrap()));
    }
}

fn follow(runtime: &Runtime, client: Client, topic: &str) -> Seen {
    let seen = Seen::default();
    let sink = Arc::clone(&seen);
    let assignments = (0..PARTITIONS).map(|partition| Assignment {
        topic: topic.parse().unwrap(),
        partition,
        start: Start::Earliest,
        end: End::Never,
    });
    let assignments = assignments.collect();
    runtime.spawn(async move {
        let mut consumer = Consumer::open(client, ConsumerConfig::default(), assignments)
            .await
            .unwrap();
        loop {
            let batch = consumer.next_batch().await.unwrap().unwrap();
            note(&sink, &batch);
        }
    });
    seen
}

fn more(seen: &Seen, records: usize) {
    let before = count(seen);
    let what = format!("{records} more records after {before}");
    wait::until(&what, PATIENCE, || {
        (count(seen) >= before + records).then_some(())
    });
}

#[test]
fn leaders_that_die_or_stop_cost_no_record_and_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let runtime = Runtime::new().unwrap();
    create(&runtime, &cluster, "events");
    // All that the clients are told is one address, and the address of a node that is not there.
    let brokers = ["127.0.0.1:1".to_owned(), cluster.node(1).address()];
    let load = Load::start(&runtime, client(&brokers), "events");
    let seen = follow(&runtime, client(&brokers), "events");
    more(&seen, 1000);

    let killed = cluster.leader("events", 0);
    cluster.node_mut(killed).kill();
    more(&seen, 3000);
    cluster.node_mut(killed).restart();
    cluster.wait_in_sync("events", 3);
    more(&seen, 1000);

    let stopped = cluster.leader("events", 1);
    assert_eq!(cluster.node_mut(stopped).stop().code(), Some(0));
    more(&seen, 3000);
    cluster.node_mut(stopped).restart();
    cluster.wait_in_sync("events", 3);
    more(&seen, 1000);

    let sent = load.finish(&runtime);
    let total = usize::try_from(sent).unwrap() * PARTITIONS as usize;
    wait::until("everything to be read", PATIENCE, || {
        (count(&seen) >= total).then_some(())
    });
    for (partition, list) in &*seen.lock().unwrap() {
        let wanted: Vec<(i64, u64)> = (0..sent).map(|n| (n as i64, n)).collect();
        assert_eq!(
            list, &wanted,
            "partition {partition}: every record once, in order"
        );
    }
    // What is read from the beginning is the same, from whichever node it is asked for.
    for id in 1..=cluster.count() {
        let args = ["consume", "events", "-o", "beginning", "-e", "-f", "%v\\n"];
        let output = varve_tests::run(cluster.node(id), &args);
        assert!(output.status.success(), "{output:?}");
        let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines, total, "through node {id}");
    }
    runtime.shutdown_background();
}

fn join(
    runtime: &Runtime,
    client: Client,
    topic: &str,
    seen: &Seen,
    stop: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<()> {
    let mut config = GroupConfig::new("workers".parse().unwrap(), vec![topic.parse().unwrap()]);
    config.auto_commit = Some(Duration::from_millis(200));
    let (seen, stop) = (Arc::clone(seen), Arc::clone(stop));
    runtime.spawn(async move {
        let mut member = GroupConsumer::join(client, config).unwrap();
        while !stop.load(Ordering::SeqCst) {
            match tokio::time::timeout(Duration::from_millis(100), member.next_batch()).await {
                Ok(Ok(batch)) => note(&seen, &batch),
                Ok(Err(error)) => panic!("the member is out: {error}"),
                Err(_) => {}
            }
        }
        member.close().await.unwrap();
    })
}

/// What a group has committed, and where the partitions end.
fn committed(admin: &Admin, runtime: &Runtime) -> Result<BTreeMap<i32, i64>, ClientError> {
    let request = v1::GetOffsetsRequest {
        group: "workers".to_owned(),
        ..Default::default()
    };
    let found = runtime.block_on(admin.get_offsets(request))?;
    let entry =
        |o: v1::CommittedOffset| (o.topic_partition.unwrap_or_default().partition, o.offset);
    Ok(found.offsets.into_iter().map(entry).collect())
}

#[test]
fn a_group_goes_on_when_its_coordinator_dies() {
    let dir = tempfile::tempdir().unwrap();
    let env = [
        ("VARVE_GROUP__SESSION__TIMEOUT__MS", "6000"),
        ("VARVE_GROUP__HEARTBEAT__INTERVAL__MS", "500"),
    ];
    let mut cluster = Cluster::start_with(dir.path(), 3, &env);
    let runtime = Runtime::new().unwrap();
    create(&runtime, &cluster, "events");
    let brokers: Vec<String> = (1..=3).map(|id| cluster.node(id).address()).collect();
    let load = Load::start(&runtime, client(&brokers), "events");
    let (seen, stop) = (Seen::default(), Arc::new(AtomicBool::new(false)));
    let join = |_| join(&runtime, client(&brokers), "events", &seen, &stop);
    let members: Vec<_> = (0..2).map(join).collect();
    more(&seen, 1000);
    let coordinator = cluster.coordinator("workers");
    cluster.node_mut(coordinator).kill();
    let admin = Admin::new(client(&brokers));
    let before = committed(&admin, &runtime).unwrap();
    // The others take over, with what was committed: it never goes back.
    wait::until("commits at the new coordinator", PATIENCE, || {
        let now = committed(&admin, &runtime).ok()?;
        let kept = before.iter().all(|(p, old)| now.get(p) >= Some(old));
        assert!(kept, "{before:?} became {now:?}");
        let on = now.iter().all(|(p, offset)| before.get(p) < Some(offset));
        (on && now.len() == PARTITIONS as usize).then_some(())
    });
    let groups = runtime.block_on(admin.all_groups()).unwrap();
    let names: Vec<_> = groups.iter().map(|g| g.group.as_str()).collect();
    assert_eq!(names, ["workers"]);
    assert_ne!(groups[0].coordinator_node_id, coordinator as i32);
    cluster.node_mut(coordinator).restart();
    more(&seen, 1000);

    let sent = load.finish(&runtime);
    let ends: BTreeMap<i32, i64> = (0..PARTITIONS).map(|p| (p, sent as i64)).collect();
    wait::until("everything to be committed", PATIENCE, || {
        (committed(&admin, &runtime).ok()? == ends).then_some(())
    });
    stop.store(true, Ordering::SeqCst);
    for member in members {
        runtime.block_on(member).unwrap();
    }
    // At least once: what was not committed when its member lost it came again.
    for (partition, list) in &*seen.lock().unwrap() {
        let numbers: BTreeSet<u64> = list.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..sent).collect(), "partition {partition}");
        assert!(
            list.iter()
                .all(|(offset, number)| *offset == *number as i64)
        );
    }
    runtime.shutdown_background();
}
