//! Three nodes: replicas are moved and cancelled by the Kafka protocol, each node tells what it holds, and leaders
//! alone tell who writes.

use std::time::Duration;

use varve_frontend_kafka::wire::generated::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use varve_frontend_kafka::wire::generated::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};
use varve_frontend_kafka::wire::generated::describe_log_dirs::DescribeLogDirsRequest;
use varve_frontend_kafka::wire::generated::describe_producers::{
    DescribeProducersRequest, TopicRequest,
};
use varve_frontend_kafka::wire::generated::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsTopics,
    OngoingPartitionReassignment,
};
use varve_frontend_kafka::wire::generated::metadata::MetadataResponsePartition;
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_tests::cluster::Cluster;

use crate::client::{Client, ask};
use crate::clients;
use crate::cluster::{KAFKA, kafka_of, metadata};
use crate::groups::{produce, values};

const TOPIC: Text = Text::from_static("moved");
const SMALL: Text = Text::from_static("small");
/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Topics of one partition on these nodes. Before, between and after the moves of this test no node holds clearly more
/// than another, in this order too: the cluster would move replicas by itself.
async fn create(client: &mut Client) {
    for (name, nodes) in [
        (Text::from_static("three"), vec![3]),
        (TOPIC, vec![1, 2]),
        (SMALL, vec![1]),
        (Text::from_static("two"), vec![2]),
    ] {
        let topic = CreatableTopic {
            name,
            num_partitions: -1,
            replication_factor: -1,
            assignments: vec![CreatableReplicaAssignment {
                partition_index: 0,
                broker_ids: nodes,
            }],
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..CreateTopicsRequest::default()
        };
        let made = ask!(client, 7, CreateTopics, request);
        assert_eq!(made.topics[0].error_code, 0, "{made:?}");
    }
}

/// The partition of a topic, as soon as it is as it should be.
async fn until(
    client: &mut Client,
    topic: &Text,
    good: impl Fn(&MetadataResponsePartition) -> bool,
) -> MetadataResponsePartition {
    let begun = tokio::time::Instant::now();
    loop {
        let found = client.describe(topic.as_str()).await.partitions.pop();
        if let Some(found) = found.clone().filter(&good) {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks for one move in that version; `allow` another number of replicas.
async fn moved(
    client: &mut Client,
    version: i16,
    allow: bool,
    (topic, number): (Text, i32),
    to: Option<&[i32]>,
) -> i16 {
    let request = AlterPartitionReassignmentsRequest {
        allow_replication_factor_change: allow,
        topics: vec![ReassignableTopic {
            name: topic,
            partitions: vec![ReassignablePartition {
                partition_index: number,
                replicas: to.map(<[i32]>::to_vec),
            }],
        }],
        ..AlterPartitionReassignmentsRequest::default()
    };
    let done = ask!(client, version, AlterPartitionReassignments, request);
    assert_eq!(done.error_code, 0, "{done:?}");
    let part = &done.responses[0].partitions[0];
    assert_eq!(part.error_message.is_some(), part.error_code != 0);
    part.error_code
}

/// Moves under way; `None`: of all topics.
async fn listed(client: &mut Client, numbers: Option<&[i32]>) -> Vec<OngoingPartitionReassignment> {
    let topics = numbers.map(|numbers| {
        vec![ListPartitionReassignmentsTopics {
            name: TOPIC,
            partition_indexes: numbers.to_vec(),
        }]
    });
    let request = ListPartitionReassignmentsRequest {
        topics,
        ..ListPartitionReassignmentsRequest::default()
    };
    let listed = ask!(client, 0, ListPartitionReassignments, request);
    assert_eq!(listed.error_code, 0);
    listed
        .topics
        .into_iter()
        .flat_map(|t| t.partitions)
        .collect()
}

/// Bytes of the topic's partition on a node; `None`: it does not hold it.
async fn held(client: &mut Client, topic: &Text) -> Option<i64> {
    let request = DescribeLogDirsRequest { topics: None };
    let all = ask!(client, 5, DescribeLogDirs, request);
    let found = all.results[0].topics.iter().find(|t| t.name == *topic);
    found.map(|t| t.partitions[0].partition_size)
}

async fn refusals(client: &mut Client) {
    let bad = ErrorCode::InvalidReplicaAssignment;
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let long: Vec<i32> = (1..=100_000).collect();
    let none = ErrorCode::NoReassignmentInProgress;
    for (number, to, code) in [
        (0, None, none),
        (0, Some(&[9][..]), bad),
        (0, Some(&[-1]), bad),
        (0, Some(&[1, 1]), bad),
        (0, Some(&[]), bad),
        (0, Some(&long), bad),
        (7, Some(&[1]), unknown),
        (-7, Some(&[1]), unknown),
        (7, None, unknown),
    ] {
        for version in 0..=1 {
            let told = moved(client, version, true, (TOPIC, number), to).await;
            assert_eq!(told, code.code(), "{number}: {to:?}");
        }
    }
    for name in ["nothing", "a/b"] {
        let place = (Text::from_static(name), 0);
        let told = moved(client, 1, true, place, Some(&[1])).await;
        assert_eq!(told, unknown.code());
    }
    let told = moved(client, 1, false, (TOPIC, 0), Some(&[1, 2, 3])).await;
    assert_eq!(told, ErrorCode::InvalidReplicationFactor.code());
    assert_eq!(listed(client, None).await, []);
}

/// A small partition moves, and its place is told by the node that holds it.
async fn a_move_ends(nodes: &mut [Client]) {
    assert!(held(&mut nodes[0], &SMALL).await.is_some());
    let told = moved(&mut nodes[1], 0, true, (SMALL, 0), Some(&[3])).await;
    assert_eq!(told, 0);
    let there = |p: &MetadataResponsePartition| p.replica_nodes == [3] && p.leader_id == 3;
    until(&mut nodes[0], &SMALL, there).await;
    let begun = tokio::time::Instant::now();
    loop {
        let (first, third) = (
            held(&mut nodes[0], &SMALL).await,
            held(&mut nodes[2], &SMALL).await,
        );
        if first.is_none() && third.is_some() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{first:?} {third:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A large one takes its time, so that it can be seen and cancelled.
async fn a_move_is_cancelled(nodes: &mut [Client], leader: usize) {
    let id = nodes[0].describe("moved").await.topic_id;
    let value = "x".repeat(500_000);
    for _ in 0..8 {
        let sent = produce(&mut nodes[leader], id, values(&[&value], None), None).await;
        assert_eq!(sent, 0);
    }
    assert!(held(&mut nodes[0], &TOPIC).await > Some(4_000_000));
    let client = &mut nodes[0];
    assert_eq!(moved(client, 1, false, (TOPIC, 0), Some(&[1, 3])).await, 0);
    for asked in [None, Some(&[0, 0, 5][..])] {
        let now = listed(client, asked).await;
        let [one] = &*now else { panic!("{now:?}") };
        assert_eq!(one.replicas.len(), 3);
        assert_eq!(
            (&*one.adding_replicas, &*one.removing_replicas),
            (&[3][..], &[2][..])
        );
    }
    assert_eq!(listed(client, Some(&[1])).await, []);
    // The number of replicas is that of the end of the move.
    let told = moved(client, 1, false, (TOPIC, 0), Some(&[1, 2, 3])).await;
    assert_eq!(told, ErrorCode::InvalidReplicationFactor.code());
    assert_eq!(moved(client, 0, true, (TOPIC, 0), None).await, 0);
    let back = until(client, &TOPIC, |p| p.replica_nodes == [1, 2]).await;
    assert_eq!(back.isr_nodes.len(), 2);
    assert_eq!(listed(client, None).await, []);
    let again = moved(client, 0, true, (TOPIC, 0), None).await;
    assert_eq!(again, ErrorCode::NoReassignmentInProgress.code());
}

async fn leaders_alone_tell_of_producers(nodes: &mut [Client], leader: usize) {
    for (at, client) in nodes.iter_mut().enumerate() {
        let request = DescribeProducersRequest {
            topics: vec![TopicRequest {
                name: TOPIC,
                partition_indexes: vec![0],
            }],
        };
        let told = ask!(client, 0, DescribeProducers, request);
        let code = match at == leader {
            true => ErrorCode::None,
            false => ErrorCode::NotLeaderOrFollower,
        };
        assert_eq!(told.topics[0].partitions[0].error_code, code.code(), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_moved_and_nodes_tell_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let slow = ("VARVE_REPLICA__MOVE__MAX__BYTES__PER__SECOND", "200KiB");
    let start = move || {
        let env: Vec<_> = KAFKA.into_iter().chain([slow]).collect();
        Cluster::start_with(&path, 3, &env)
    };
    let cluster = tokio::task::spawn_blocking(start).await.unwrap();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let address = kafka_of(&cluster, id).await;
        nodes.push(Client::connect(address.parse().unwrap()).await);
    }
    for client in &mut nodes {
        let begun = tokio::time::Instant::now();
        while metadata(client).await.brokers.len() < 3 {
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    create(&mut nodes[0]).await;
    let whole = |p: &MetadataResponsePartition| p.error_code == 0 && p.isr_nodes.len() == 2;
    for client in &mut nodes {
        until(client, &TOPIC, whole).await;
        until(client, &SMALL, |p| p.error_code == 0).await;
    }
    refusals(&mut nodes[0]).await;
    let leader = until(&mut nodes[0], &TOPIC, whole).await.leader_id;
    let leader = usize::try_from(leader - 1).unwrap();
    leaders_alone_tell_of_producers(&mut nodes, leader).await;
    a_move_is_cancelled(&mut nodes, leader).await;
    a_move_ends(&mut nodes).await;
    // The same with a client that people use.
    let first = kafka_of(&cluster, 1).await;
    clients::script("kafka", "kafka_python.py", &first, "3").await;
    tokio::task::spawn_blocking(move || drop(cluster))
        .await
        .unwrap();
}
