//! What ordinary programs do and brokers trip over: producers that come and go by the thousand, sessions that outlive
//! what is remembered of them, batches of many small records, requests that can never succeed.

use bytes::Bytes;
use varve_frontend_kafka::wire::generated::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use varve_frontend_kafka::wire::generated::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use varve_frontend_kafka::wire::generated::describe_producers::{
    DescribeProducersRequest, TopicRequest,
};
use varve_frontend_kafka::wire::generated::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol,
};
use varve_frontend_kafka::wire::generated::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_record::{BatchBuilder, Compression, iter_batches};
use varve_types::{ProducerId, Sequence};

use crate::Bed;
use crate::client::{Client, Patience, ask};
use crate::seen::{Which, fetched, produce};

fn one(producer: i64, sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.append(5, None, Some(b"value"), &[]).unwrap();
    let producer = ProducerId {
        id: producer,
        epoch: 0,
    };
    builder.set_producer(producer, Sequence::new(sequence).unwrap());
    builder.build().unwrap()
}

async fn sessions(client: &mut Client, topic: &'static str) -> usize {
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: Text::from_static(topic),
            partition_indexes: vec![0],
        }],
    };
    let mut answer = ask!(client, 0, DescribeProducers, request);
    answer
        .topics
        .remove(0)
        .partitions
        .remove(0)
        .active_producers
        .len()
}

/// A script that produces once is a session of its own each time.
#[tokio::test(flavor = "multi_thread")]
async fn producers_that_come_and_go_never_close_a_partition() {
    let bed = Bed::start(&[("producer.sessions.max.bytes", "1MiB")]).await;
    let mut client = bed.client().await;
    client.create("scripts", 1).await;
    let regular = 1 << 40;
    for n in 0..4_000 {
        let answer = produce(&mut client, 9, "scripts", one(n, 0)).await;
        assert_eq!(answer.error_code, 0, "producer {n}");
        if n % 100 == 0 {
            let sequence = i32::try_from(n / 100).unwrap();
            let answer = produce(&mut client, 9, "scripts", one(regular, sequence)).await;
            assert_eq!(answer.error_code, 0, "sequence {sequence}");
        }
    }
    let known = sessions(&mut client, "scripts").await;
    // 320 bytes each.
    assert!((2_000..3_300).contains(&known), "{known}");
    // One that was used meanwhile is known: its repeat is recognized, and a gap is refused.
    let repeat = produce(&mut client, 9, "scripts", one(regular, 39)).await;
    assert_eq!((repeat.error_code, repeat.base_offset), (0, 3_940));
    let gap = produce(&mut client, 9, "scripts", one(regular, 41)).await;
    assert_eq!(gap.error_code, ErrorCode::OutOfOrderSequenceNumber.code());
    bed.stop().await;
}

/// The session expired, gave way, or the topic was made again; the client knows nothing of that (Kafka since 2.5).
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_partition_does_not_know_goes_on() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("resumed", 1).await;
    for sequence in [300, 301] {
        let answer = produce(&mut client, 9, "resumed", one(7, sequence)).await;
        let expected = i64::from(sequence - 300);
        assert_eq!((answer.error_code, answer.base_offset), (0, expected));
    }
    let repeat = produce(&mut client, 9, "resumed", one(7, 300)).await;
    assert_eq!((repeat.error_code, repeat.base_offset), (0, 0));
    for wrong in [303, 299] {
        let answer = produce(&mut client, 9, "resumed", one(7, wrong)).await;
        let code = ErrorCode::OutOfOrderSequenceNumber.code();
        assert_eq!(answer.error_code, code, "sequence {wrong}");
    }
    bed.stop().await;
}

/// Log shippers pack a batch to its bytes, however small the records are.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_many_small_records_is_taken() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("many", 1).await;
    let mut builder = BatchBuilder::new(Compression::Zstd, None);
    for _ in 0..200_000 {
        builder.append(5, None, Some(b""), &[]).unwrap();
    }
    let answer = produce(&mut client, 9, "many", builder.build().unwrap()).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    let part = fetched(&mut client, 12, "many", 0, Which::All).await;
    let batch = iter_batches(part.records.unwrap()).next().unwrap().unwrap();
    assert_eq!(batch.records().unwrap().count(), 200_000);
    bed.stop().await;
}

const GROUP: Text = Text::from_static("ordinary");

fn commit(group: &str) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: Text::from(group),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: Text::from_static("orders"),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: 0,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

/// Each run of a test suite, each notebook has a group of its own. The limit is a key, and its refusal is final:
/// clients repeat what passes by itself for ever.
#[tokio::test(flavor = "multi_thread")]
async fn groups_beyond_the_limit_are_refused_for_good() {
    let bed = Bed::start(&[("groups.max", "50")]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let mut codes = Vec::new();
    for n in 0..52 {
        let answer = loop {
            let answer = ask!(client, 8, OffsetCommit, commit(&format!("g{n}")));
            match answer.topics[0].partitions[0].error_code {
                14..=16 => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                code => break code,
            }
        };
        codes.push(answer);
    }
    assert_eq!(codes[..50], [0; 50]);
    assert_eq!(codes[50..], [ErrorCode::PolicyViolation.code(); 2]);
    let answer = ask!(client, 8, OffsetCommit, commit("g7"));
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    bed.stop().await;
}

/// A consumer of 700 topics with long names says 300 KB when it joins, for each of its assignors.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_may_subscribe_to_many_topics() {
    let bed = Bed::start(&[("group.initial.rebalance.delay.ms", "0")]).await;
    let mut client = bed.client().await;
    let protocol = |name| JoinGroupRequestProtocol {
        name: Text::from_static(name),
        metadata: Bytes::from(vec![7; 300_000]),
    };
    let request = JoinGroupRequest {
        group_id: GROUP,
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: Text::from_static("connect"),
        protocols: vec![protocol("range"), protocol("roundrobin")],
        ..JoinGroupRequest::default()
    };
    let answer = loop {
        let answer = ask!(client, 3, JoinGroup, request.clone());
        match answer.error_code {
            14..=16 => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            _ => break answer,
        }
    };
    assert_eq!(answer.error_code, 0);
    assert_eq!(answer.members[0].metadata.len(), 300_000);
    bed.stop().await;
}

/// A Java consumer with a pattern joins before it has resolved it, with an empty list of topics.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_topics_joins_and_gets_its_partitions_later() {
    let bed = Bed::start(&[("group.heartbeat.interval.ms", "100")]).await;
    let mut client = bed.client().await;
    client.create("orders", 2).await;
    let beat = |epoch, topics: Option<Vec<Text>>| ConsumerGroupHeartbeatRequest {
        group_id: GROUP,
        member_id: Text::from_static("m"),
        member_epoch: epoch,
        rebalance_timeout_ms: if topics.is_some() { 10_000 } else { -1 },
        topic_partitions: (epoch == 0).then(Vec::new),
        subscribed_topic_names: topics,
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let mut epoch = loop {
        let answer = ask!(client, 0, ConsumerGroupHeartbeat, beat(0, Some(Vec::new())));
        match answer.error_code {
            14..=16 => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            code => {
                assert_eq!(code, 0, "{answer:?}");
                let assigned = answer.assignment.map(|a| a.topic_partitions.len());
                assert_eq!(assigned.unwrap_or(0), 0);
                break answer.member_epoch;
            }
        }
    };
    let mut topics = Some(vec![Text::from_static("orders")]);
    let patience = Patience::begin();
    loop {
        let answer = ask!(
            client,
            0,
            ConsumerGroupHeartbeat,
            beat(epoch, topics.take())
        );
        assert_eq!(answer.error_code, 0, "{answer:?}");
        epoch = answer.member_epoch;
        let assigned = answer.assignment.as_ref();
        let assigned =
            assigned.map(|a| a.topic_partitions.iter().map(|t| t.partitions.len()).sum());
        if assigned == Some(2_usize) {
            break;
        }
        patience.again(&answer).await;
    }
    bed.stop().await;
}

/// No repeat mends these, so that no answer may ask for one.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_succeed_is_refused_for_good() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("final", 1).await;
    for version in [3, 9, 11] {
        let answer = produce(&mut client, version, "final", Bytes::new()).await;
        assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code());
        if version >= 8 {
            let text = answer.error_message.unwrap();
            assert_eq!(
                text.as_str(),
                "the request has no records for final:0; nothing was appended"
            );
        }
    }
    let grow = |name| CreatePartitionsTopic {
        name: Text::from_static(name),
        count: 3,
        assignments: None,
    };
    client.create("once", 1).await;
    let request = CreatePartitionsRequest {
        topics: vec![grow("final"), grow("once"), grow("final")],
        timeout_ms: 10_000,
        validate_only: false,
    };
    let answer = ask!(client, 3, CreatePartitions, request);
    let codes: Vec<_> = answer.results.iter().map(|r| r.error_code).collect();
    let twice = ErrorCode::InvalidRequest.code();
    assert_eq!(codes, [twice, 0, twice]);
    bed.stop().await;
}
