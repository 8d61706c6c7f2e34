//! Reads from the replica next door (KIP-392): the leader names it to a reader that says where it is, and that replica
//! serves what is committed.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_frontend_kafka::wire::generated::create_topics::{CreatableTopic, CreateTopicsRequest};
use varve_frontend_kafka::wire::generated::fetch::{
    FetchPartition, FetchRequest, FetchTopic, PartitionData,
};
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_record::{BatchBuilder, Compression, iter_batches};
use varve_tests::cluster::Cluster;

use crate::client::{Client, Patience, ask};
use crate::clients;
use crate::cluster::{KAFKA, kafka_of};
use crate::seen::produce;

const NODES: usize = 3;
const TOPIC: &str = "near";

fn rack(node: usize) -> String {
    format!("rack-{node}")
}

async fn start(dir: &std::path::Path) -> Cluster {
    let dir = dir.to_owned();
    let start = move || {
        let mut cluster = Cluster::prepare(&dir, NODES, &KAFKA);
        for node in 1..=NODES {
            cluster.node_mut(node).set("VARVE_NODE__RACK", &rack(node));
        }
        cluster.start_all();
        cluster
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

/// What a node says to a reader that is there.
async fn read(client: &mut Client, version: i16, rack: &str, offset: i64) -> PartitionData {
    let request = FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 1 << 20,
        rack_id: Text::from(rack),
        topics: vec![FetchTopic {
            topic: Text::from_static(TOPIC),
            partitions: vec![FetchPartition {
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let mut response = ask!(client, version, Fetch, request);
    response.responses.remove(0).partitions.remove(0)
}

/// A reader that asks the leader again has forgotten where to go, or cannot go there: it is told again, at once, though
/// nothing else is new.
async fn in_a_session_it_is_told_each_time(leader: &mut Client, nearer: usize) {
    let mut session = 0;
    for epoch in 0..4 {
        let topic = FetchTopic {
            topic: Text::from_static(TOPIC),
            partitions: vec![FetchPartition {
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        };
        let request = FetchRequest {
            max_wait_ms: 15_000,
            min_bytes: 1 << 20,
            max_bytes: 1 << 20,
            rack_id: Text::from(rack(nearer)),
            session_id: session,
            session_epoch: epoch,
            topics: if epoch == 0 { vec![topic] } else { vec![] },
            ..FetchRequest::default()
        };
        let begun = tokio::time::Instant::now();
        let response = ask!(leader, 12, Fetch, request);
        assert!(begun.elapsed() < Duration::from_secs(10));
        session = response.session_id;
        assert_ne!(session, 0);
        let part = &response.responses[0].partitions[0];
        assert_eq!(
            usize::try_from(part.preferred_read_replica),
            Ok(nearer),
            "{epoch}"
        );
    }
}

/// Values of a partition, none of which lies behind what is committed.
fn values(part: &PartitionData) -> Vec<String> {
    assert_eq!(part.error_code, 0, "{part:?}");
    let mut all = Vec::new();
    for batch in iter_batches(part.records.clone().unwrap()) {
        for record in batch.unwrap().records().unwrap() {
            let record = record.unwrap();
            assert!(record.offset.get() < part.high_watermark);
            all.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        }
    }
    all
}

/// Appends by the leader, which may hear that it leads later than others do.
async fn append(client: &mut Client, value: &str) {
    let mut batch = BatchBuilder::new(Compression::None, None);
    batch.append(1, None, Some(value.as_bytes()), &[]).unwrap();
    let records = batch.build().unwrap();
    let not_yet = ErrorCode::NotLeaderOrFollower.code();
    let patience = Patience::begin();
    loop {
        let answer = produce(client, 9, TOPIC, records.clone()).await;
        if answer.error_code == 0 {
            return;
        }
        assert_eq!(answer.error_code, not_yet, "{answer:?}");
        patience.again(answer).await;
    }
}

/// Fetches that a node has answered.
fn fetches(cluster: &Cluster, node: usize) -> u64 {
    let (_, metrics) = cluster.node(node).get("/metrics");
    let lines = metrics.lines();
    let counted = lines
        .filter(|l| l.starts_with("varve_kafka_requests_total") && l.contains("api=\"Fetch\""));
    counted
        .filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_sent_to_the_replica_in_its_rack_which_serves_what_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path()).await;
    let mut clients = BTreeMap::new();
    for node in 1..=NODES {
        let address = kafka_of(&cluster, node).await;
        clients.insert(node, Client::connect(address.parse().unwrap()).await);
    }
    let topic = CreatableTopic {
        name: Text::from_static(TOPIC),
        num_partitions: 1,
        replication_factor: 3,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        ..CreateTopicsRequest::default()
    };
    let any = clients.get_mut(&1).unwrap();
    assert_eq!(ask!(any, 7, CreateTopics, request).topics[0].error_code, 0);
    let (cluster, leader) = tokio::task::spawn_blocking(move || {
        cluster.wait_in_sync(TOPIC, NODES);
        let leader = cluster.leader(TOPIC, 0);
        (cluster, leader)
    })
    .await
    .unwrap();
    let mut lead = clients.remove(&leader).unwrap();
    let mut appended = Vec::new();
    for n in 0..20 {
        appended.push(n.to_string());
        append(&mut lead, appended.last().unwrap()).await;
    }
    for (node, follower) in &mut clients {
        let preferred = i32::try_from(*node).unwrap();
        for version in 11..=12 {
            // The leader reads nothing for it.
            let sent = read(&mut lead, version, &rack(*node), 0).await;
            assert_eq!(sent.preferred_read_replica, preferred, "version {version}");
            assert_eq!(values(&sent), Vec::<String>::new());
            // Nobody else is named: the reader has come where it was sent.
            let begun = tokio::time::Instant::now();
            loop {
                let near = read(follower, version, &rack(*node), 0).await;
                assert_eq!(near.preferred_read_replica, -1);
                let read = values(&near);
                assert_eq!(read, appended[..read.len()]);
                if read.len() == appended.len() {
                    assert_eq!(near.high_watermark, 20);
                    break;
                }
                assert!(begun.elapsed() < Duration::from_secs(30), "{read:?}");
            }
        }
        // Older versions do not know of it.
        let sent = read(&mut lead, 10, "", 0).await;
        assert_eq!(sent.preferred_read_replica, -1);
        assert_eq!(values(&sent), appended);
    }
    let nearer = *clients.keys().next().unwrap();
    in_a_session_it_is_told_each_time(&mut lead, nearer).await;
    for there in [rack(leader), "rack-9".to_owned(), String::new()] {
        let sent = read(&mut lead, 12, &there, 0).await;
        assert_eq!(sent.preferred_read_replica, -1, "{there:?}");
        assert_eq!(values(&sent), appended);
    }
    // A client that people use goes where it is sent.
    let near = *clients.keys().next().unwrap();
    let before = fetches(&cluster, near);
    let arguments = format!(
        "-C -t {TOPIC} -p 0 -o beginning -c 20 -q -X client.rack={} -f '%s\\n'",
        rack(near)
    );
    let address = kafka_of(&cluster, leader).await;
    if let Some(printed) = clients::kcat(&address, "timeout 60", &arguments).await {
        assert_eq!(printed.lines().collect::<Vec<_>>(), appended);
        assert!(fetches(&cluster, near) > before, "it read from elsewhere");
    }
    tokio::task::spawn_blocking(move || drop(cluster))
        .await
        .unwrap();
}
