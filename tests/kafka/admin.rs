//! What administrators ask of one node: its log directory, the producers of its partitions, moves that a node that is
//! alone cannot make; and the newest versions of what groups and transactions ask.

use varve_frontend_kafka::wire::generated::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use varve_frontend_kafka::wire::generated::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsRequest, DescribeLogDirsTopic,
};
use varve_frontend_kafka::wire::generated::describe_producers::{
    DescribeProducersRequest, PartitionResponse, TopicRequest,
};
use varve_frontend_kafka::wire::generated::list_partition_reassignments::ListPartitionReassignmentsRequest;
use varve_frontend_kafka::wire::generated::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use varve_frontend_kafka::wire::{ErrorCode, Text, Uuid};
use varve_record::{BatchBuilder, Compression};
use varve_types::{ProducerId, Sequence};

use crate::Bed;
use crate::client::{Client, Patience, ask};
use crate::groups::{GROUP, committed, end, produce, session, values};

/// What is asked about: topics with partitions.
fn topics(asked: &[(&'static str, &[i32])]) -> Vec<DescribableLogDirTopic> {
    let topic = |(name, partitions): &(&'static str, &[i32])| DescribableLogDirTopic {
        topic: Text::from_static(name),
        partitions: partitions.to_vec(),
    };
    asked.iter().map(topic).collect()
}

/// Names with numbers of partitions.
fn held(topics: &[DescribeLogDirsTopic]) -> Vec<(String, Vec<i32>)> {
    let of = |topic: &DescribeLogDirsTopic| {
        let numbers = topic.partitions.iter().map(|p| p.partition_index);
        (topic.name.to_string(), numbers.collect())
    };
    topics.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_where_it_keeps_which_replicas() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 2).await;
    client.create("other", 1).await;
    let id = client.describe("orders").await.topic_id;
    let sent = produce(&mut client, id, values(&["something"], None), None).await;
    assert_eq!(sent, 0);
    for version in 0..=5 {
        let request = DescribeLogDirsRequest { topics: None };
        let all = ask!(client, version, DescribeLogDirs, request);
        assert_eq!(all.error_code, 0);
        let [directory] = &*all.results else {
            panic!("{all:?}")
        };
        assert_eq!(directory.error_code, 0);
        assert!(std::path::Path::new(directory.log_dir.as_str()).is_dir());
        let found = held(&directory.topics);
        assert!(found.contains(&("orders".to_owned(), vec![0, 1])));
        assert!(found.contains(&("other".to_owned(), vec![0])));
        let orders = directory
            .topics
            .iter()
            .find(|t| t.name.as_str() == "orders");
        let [full, empty] = &*orders.unwrap().partitions else {
            panic!("{all:?}")
        };
        assert!(full.partition_size > empty.partition_size, "{full:?}");
        assert_eq!((full.offset_lag, full.is_future_key), (0, false));
        match version {
            ..=3 => assert_eq!((directory.total_bytes, directory.usable_bytes), (-1, -1)),
            _ => assert!(directory.total_bytes >= directory.usable_bytes),
        }
        assert!((directory.usable_bytes > 0) == (version >= 4));
        assert!(!directory.is_cordoned);
    }
    // What is not there is left out; what is named twice is told once.
    for (asked, told) in [
        (topics(&[("orders", &[1])]), vec![("orders", vec![1])]),
        (
            topics(&[("orders", &[1, 1]), ("orders", &[0, 7, -1])]),
            vec![("orders", vec![0, 1])],
        ),
        (topics(&[("nothing", &[0]), ("a/b", &[0])]), vec![]),
        (topics(&[]), vec![]),
    ] {
        let request = DescribeLogDirsRequest {
            topics: Some(asked),
        };
        let some = ask!(client, 4, DescribeLogDirs, request);
        let told: Vec<_> = told.into_iter().map(|(n, p)| (n.to_owned(), p)).collect();
        assert_eq!(held(&some.results[0].topics), told);
    }
    bed.stop().await;
}

async fn producers(
    client: &mut Client,
    topic: &'static str,
    numbers: &[i32],
) -> Vec<PartitionResponse> {
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: Text::from_static(topic),
            partition_indexes: numbers.to_vec(),
        }],
    };
    let mut response = ask!(client, 0, DescribeProducers, request);
    response.topics.remove(0).partitions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_tells_who_writes_to_it() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 2).await;
    let id = client.describe("orders").await.topic_id;
    assert_eq!(
        producers(&mut client, "orders", &[0]).await[0].error_code,
        0
    );
    // One without transactions.
    let mut batch = BatchBuilder::new(Compression::None, None);
    for _ in 0..4 {
        batch.append(1, None, Some(b"v"), &[]).unwrap();
    }
    batch.set_producer(ProducerId { id: 77, epoch: 3 }, Sequence::ZERO);
    let sent = produce(&mut client, id, batch.build().unwrap(), None).await;
    assert_eq!(sent, 0);
    // One with.
    let opened = session(&mut client, 5).await;
    let producer = ProducerId {
        id: opened.producer_id,
        epoch: opened.producer_epoch,
    };
    let records = values(&["a", "b"], Some((producer, 0)));
    assert_eq!(produce(&mut client, id, records, Some("payments")).await, 0);
    let told = producers(&mut client, "orders", &[0, 1]).await;
    assert!(told[1].active_producers.is_empty());
    let of = |told: &[PartitionResponse], producer: i64| {
        let found = told[0].active_producers.iter();
        let mut found = found.filter(|p| p.producer_id == producer);
        found.next().cloned().unwrap()
    };
    let first = of(&told, 77);
    assert_eq!((first.producer_epoch, first.last_sequence), (3, 3));
    assert_eq!(first.current_txn_start_offset, -1);
    assert_eq!(first.coordinator_epoch, -1);
    assert!(first.last_timestamp > 1);
    let open = of(&told, producer.id);
    assert_eq!(open.producer_epoch, i32::from(producer.epoch));
    assert_eq!(open.last_sequence, 1);
    assert_eq!(open.current_txn_start_offset, 4);
    end(&mut client, producer, true).await;
    // The marker raises the epoch, in which nothing was sent yet.
    let patience = Patience::begin();
    let ended = loop {
        let told = producers(&mut client, "orders", &[0]).await;
        let ended = of(&told, producer.id);
        if ended.current_txn_start_offset == -1 {
            break ended;
        }
        patience.again(ended).await;
    };
    assert_eq!(ended.last_sequence, -1);
    assert!(ended.producer_epoch > i32::from(producer.epoch));
    assert!(ended.coordinator_epoch >= 0);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_about_producers_of_nothing_is_told_so() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    for number in [1, -1, i32::MAX, i32::MIN] {
        let told = producers(&mut client, "orders", &[number]).await;
        assert_eq!(
            (told[0].error_code, told[0].partition_index),
            (unknown, number)
        );
    }
    let told = producers(&mut client, "nothing", &[0]).await;
    assert_eq!(told[0].error_code, unknown);
    let told = producers(&mut client, "a/b", &[0]).await;
    assert_eq!(told[0].error_code, ErrorCode::InvalidTopicException.code());
    // One request names no more than it may.
    let all = vec![0; varve_types::limits::PARTITIONS_PER_NODE_MAX + 1];
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: Text::from_static("orders"),
            partition_indexes: all,
        }],
    };
    let request = varve_frontend_kafka::wire::Request::DescribeProducers(request);
    client.send(0, &request).await;
    assert_eq!(client.frame().await, None);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_alone_moves_nothing() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let cases: [(&'static str, i32, Option<Vec<i32>>, ErrorCode); 7] = [
        ("orders", 0, Some(vec![1]), ErrorCode::None),
        (
            "orders",
            0,
            Some(vec![2]),
            ErrorCode::InvalidReplicaAssignment,
        ),
        (
            "orders",
            0,
            Some(vec![]),
            ErrorCode::InvalidReplicaAssignment,
        ),
        ("orders", 0, None, ErrorCode::NoReassignmentInProgress),
        ("orders", 1, Some(vec![1]), unknown),
        ("orders", 1, None, unknown),
        ("nothing", 0, None, unknown),
    ];
    let topic = |(name, number, replicas, _): &(&'static str, i32, Option<Vec<i32>>, _)| {
        ReassignableTopic {
            name: Text::from_static(name),
            partitions: vec![ReassignablePartition {
                partition_index: *number,
                replicas: replicas.clone(),
            }],
        }
    };
    for version in 0..=1 {
        let request = AlterPartitionReassignmentsRequest {
            topics: cases.iter().map(topic).collect(),
            ..AlterPartitionReassignmentsRequest::default()
        };
        let done = ask!(client, version, AlterPartitionReassignments, request);
        assert_eq!(done.error_code, 0, "{done:?}");
        for (told, case) in done.responses.iter().zip(&cases) {
            assert_eq!(told.partitions[0].error_code, case.3.code(), "{case:?}");
            assert_eq!(told.partitions[0].partition_index, case.1);
        }
    }
    let request = ListPartitionReassignmentsRequest::default();
    let listed = ask!(client, 0, ListPartitionReassignments, request);
    assert_eq!((listed.error_code, listed.topics.len()), (0, 0));
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_a_transaction_are_committed_by_the_ids_of_topics() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let id = client.describe("orders").await.topic_id;
    let opened = session(&mut client, 5).await;
    let producer = ProducerId {
        id: opened.producer_id,
        epoch: opened.producer_epoch,
    };
    let sent = values(&["one"], Some((producer, 0)));
    assert_eq!(produce(&mut client, id, sent, Some("payments")).await, 0);
    let topic = |topic_id: Uuid, offset: i64| TxnOffsetCommitRequestTopic {
        topic_id,
        partitions: vec![TxnOffsetCommitRequestPartition {
            committed_offset: offset,
            ..TxnOffsetCommitRequestPartition::default()
        }],
        ..TxnOffsetCommitRequestTopic::default()
    };
    let request = TxnOffsetCommitRequest {
        transactional_id: Text::from_static("payments"),
        group_id: GROUP,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        topics: vec![topic(id, 1), topic(Uuid(9), 1)],
        ..TxnOffsetCommitRequest::default()
    };
    let done = ask!(client, 6, TxnOffsetCommit, request);
    assert_eq!(done.topics[0].topic_id, id);
    assert_eq!(done.topics[0].partitions[0].error_code, 0);
    let unknown = ErrorCode::UnknownTopicId.code();
    assert_eq!(done.topics[1].partitions[0].error_code, unknown);
    end(&mut client, producer, true).await;
    let patience = Patience::begin();
    loop {
        let (offset, error) = committed(&mut client, 9, id, false).await;
        assert_eq!(error, 0);
        if offset == 1 {
            break;
        }
        patience.again(offset).await;
    }
    bed.stop().await;
}
