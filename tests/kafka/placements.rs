//! Three nodes: replicas that cannot be had are refused in the words of the Kafka protocol, tried or in earnest, and
//! nothing is made.

use varve_frontend_kafka::wire::generated::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use varve_frontend_kafka::wire::generated::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};
use varve_frontend_kafka::wire::generated::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use varve_frontend_kafka::wire::generated::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestTopic,
};
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_tests::cluster::Cluster;

use crate::client::{Client, Patience, ask};
use crate::cluster::{KAFKA, kafka_of, metadata};
use crate::groups::{GROUP, produce, values};

const TOPIC: Text = Text::from_static("placed");

fn placed(name: Text, placement: &[&[i32]]) -> CreatableTopic {
    let assignment = |(partition_index, nodes): (i32, &&[i32])| CreatableReplicaAssignment {
        partition_index,
        broker_ids: nodes.to_vec(),
    };
    CreatableTopic {
        name,
        num_partitions: -1,
        replication_factor: -1,
        assignments: (0..).zip(placement).map(assignment).collect(),
        ..CreatableTopic::default()
    }
}

fn numbered(partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic {
        name: Text::from_static("other"),
        num_partitions: partitions,
        replication_factor: replicas,
        ..CreatableTopic::default()
    }
}

async fn create(client: &mut Client, topic: CreatableTopic, validate_only: bool) -> i16 {
    let request = CreateTopicsRequest {
        topics: vec![topic],
        validate_only,
        ..CreateTopicsRequest::default()
    };
    ask!(client, 7, CreateTopics, request).topics[0].error_code
}

async fn grow(client: &mut Client, count: i32, placement: &[&[i32]], validate_only: bool) -> i16 {
    let assignment = |nodes: &&[i32]| CreatePartitionsAssignment {
        broker_ids: nodes.to_vec(),
    };
    let request = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: TOPIC,
            count,
            assignments: Some(placement.iter().map(assignment).collect()),
        }],
        timeout_ms: 10_000,
        validate_only,
    };
    ask!(client, 3, CreatePartitions, request).results[0].error_code
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_cannot_be_are_refused_and_places_are_committed_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let start = move || Cluster::start_with(&path, 3, &KAFKA);
    let cluster = tokio::task::spawn_blocking(start).await.unwrap();
    let first = kafka_of(&cluster, 1).await;
    let mut client = Client::connect(first.parse().unwrap()).await;
    let patience = Patience::begin();
    while metadata(&mut client).await.brokers.len() < 3 {
        patience.again("three nodes").await;
    }
    let (factor, assignment) = (
        ErrorCode::InvalidReplicationFactor.code(),
        ErrorCode::InvalidReplicaAssignment.code(),
    );
    let other = Text::from_static("other");
    for validate_only in [true, false] {
        for (topic, code) in [
            (numbered(1, 4), factor),
            (numbered(1, 100), factor),
            (placed(other.clone(), &[&[9]]), assignment),
            (placed(other.clone(), &[&[1, 1]]), assignment),
            (placed(other.clone(), &[&[1, 2], &[3]]), assignment),
            (placed(other.clone(), &[&[]]), assignment),
        ] {
            let told = create(&mut client, topic.clone(), validate_only).await;
            assert_eq!(told, code, "{topic:?}");
        }
    }
    let gone = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(client.describe("other").await.error_code, gone);
    // One partition on each of two nodes, so that one of them is not led where the group is coordinated.
    let topic = placed(TOPIC, &[&[1], &[2]]);
    assert_eq!(create(&mut client, topic, false).await, 0);
    for validate_only in [true, false] {
        for (count, placement, code) in [
            (3, &[&[10][..]][..], assignment),
            (4, &[&[1]], assignment),
            (3, &[&[1, 2]], assignment),
            (1, &[], ErrorCode::InvalidPartitions.code()),
        ] {
            let told = grow(&mut client, count, placement, validate_only).await;
            assert_eq!(told, code, "{count} {placement:?}");
        }
    }
    assert_eq!(client.describe("placed").await.partitions.len(), 2);
    places_are_committed_by_name(&cluster, &mut client).await;
}

/// Commits of -1 and -2, as KafkaJS makes them: what is committed is where the end and the beginning are, whichever
/// node knows that.
async fn places_are_committed_by_name(cluster: &Cluster, client: &mut Client) {
    let topic = client.describe("placed").await;
    for part in &topic.partitions {
        let id = usize::try_from(part.leader_id).unwrap();
        let address = kafka_of(cluster, id).await;
        let mut leader = Client::connect(address.parse().unwrap()).await;
        if part.partition_index == 0 {
            let patience = Patience::begin();
            let three = || values(&["a", "b", "c"], None);
            while produce(&mut leader, topic.topic_id, three(), None).await != 0 {
                patience.again("three records").await;
            }
        }
    }
    let commit = |offset| OffsetCommitRequest {
        group_id: GROUP,
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC,
            partitions: [0, 1]
                .map(|partition_index| OffsetCommitRequestPartition {
                    partition_index,
                    committed_offset: offset,
                    ..OffsetCommitRequestPartition::default()
                })
                .to_vec(),
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let address = kafka_of(cluster, id).await;
        nodes.push(Client::connect(address.parse().unwrap()).await);
    }
    for (offset, wanted) in [(-1, [3, 0]), (-2, [0, 0]), (-1, [3, 0])] {
        let patience = Patience::begin();
        // One of the three coordinates the group.
        'commits: loop {
            let mut told = Vec::new();
            for node in &mut nodes {
                let answer = ask!(node, 5, OffsetCommit, commit(offset));
                let codes = answer.topics[0].partitions.iter().map(|p| p.error_code);
                let codes: Vec<i16> = codes.collect();
                if codes == [0, 0] {
                    assert_eq!(committed(node).await, wanted, "{offset}");
                    break 'commits;
                }
                told.push(codes);
            }
            patience.again(told).await;
        }
    }
    for node in &mut nodes {
        let answer = ask!(node, 5, OffsetCommit, commit(-3));
        let code = answer.topics[0].partitions[0].error_code;
        assert_ne!(code, 0);
    }
}

async fn committed(node: &mut Client) -> Vec<i64> {
    let request = OffsetFetchRequest {
        group_id: GROUP,
        topics: Some(vec![OffsetFetchRequestTopic {
            name: TOPIC,
            partition_indexes: vec![0, 1],
        }]),
        ..OffsetFetchRequest::default()
    };
    let answer = ask!(node, 5, OffsetFetch, request);
    let parts = answer.topics[0].partitions.iter();
    parts.map(|p| p.committed_offset).collect()
}
