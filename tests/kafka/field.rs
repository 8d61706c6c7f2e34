//! What clients of the field do that ours do not, byte for byte: headers of batches that are filled in otherwise,
//! static members that come back under a name that is taken, and members of KIP-848 that state only what has changed.

use bytes::Bytes;
use varve_broker_api::{Broker as _, Context};
use varve_frontend_kafka::wire::generated::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use varve_frontend_kafka::wire::generated::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use varve_frontend_kafka::wire::generated::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use varve_frontend_kafka::wire::generated::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use varve_frontend_kafka::wire::generated::sync_group::SyncGroupRequest;
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_record::{BatchBuilder, Compression, iter_batches};

use crate::Bed;
use crate::client::{Client, ask};
use crate::seen::{Which, fetched, produce};

/// Three records of the times 10, 30 and 20, with other fields in the header of their batch.
fn batch(codec: Compression, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut batch = BatchBuilder::new(codec, None);
    for (time, value) in [(10, "a"), (30, "b"), (20, "c")] {
        let value = Some(value.as_bytes());
        batch.append(time, None, value, &[]).unwrap();
    }
    let mut bytes = batch.build().unwrap().to_vec();
    change(&mut bytes);
    let crc = varve_record::crc::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_clients_fill_in_otherwise_are_taken_and_put_right() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("field", 1).await;
    let mut appended = 0;
    for codec in Compression::ALL {
        // As KafkaJS has it: no producer, and its epoch and sequence 0.
        let kafka_js = batch(codec, |b| b[51..57].fill(0));
        // As sarama had it before 2025: no largest time.
        let no_time = batch(codec, |b| {
            b[35..43].copy_from_slice(&(-1_i64).to_be_bytes())
        });
        let other_time = batch(codec, |b| b[35..43].copy_from_slice(&99_i64.to_be_bytes()));
        for records in [kafka_js, no_time, other_time] {
            let answer = produce(&mut client, 3, "field", records).await;
            assert_eq!(
                (answer.error_code, answer.base_offset),
                (0, appended),
                "{codec}"
            );
            appended += 3;
        }
    }
    let part = fetched(&mut client, 11, "field", 0, Which::All).await;
    let mut read = 0;
    for batch in iter_batches(part.records.unwrap()) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        assert_eq!(batch.header.max_timestamp, 30);
        read += batch.records().unwrap().count() as i64;
    }
    assert_eq!(read, appended);
    // Searches by time go by what the records say.
    for (time, offset, found) in [(25, 1, 30), (31, -1, -1), (-3, 1, 30)] {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: Text::from_static("field"),
                partitions: vec![ListOffsetsPartition {
                    timestamp: time,
                    ..ListOffsetsPartition::default()
                }],
            }],
            ..ListOffsetsRequest::default()
        };
        let answer = ask!(client, 7, ListOffsets, request);
        let part = &answer.topics[0].partitions[0];
        assert_eq!(
            (part.error_code, part.offset, part.timestamp),
            (0, offset, found)
        );
    }
    bed.stop().await;
}

const GROUP: Text = Text::from_static("field");

fn join(member: &Text, instance: Option<Text>) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: GROUP,
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member.clone(),
        group_instance_id: instance,
        protocol_type: Text::from_static("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Text::from_static("range"),
            metadata: Bytes::from_static(b"topics"),
        }],
        ..JoinGroupRequest::default()
    }
}

fn commit(of: Option<&JoinGroupResponse>, instance: Option<&Text>) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: GROUP,
        generation_id_or_member_epoch: of.map_or(-1, |of| of.generation_id),
        member_id: of.map_or(Text::EMPTY, |of| of.member_id.clone()),
        group_instance_id: instance.cloned(),
        topics: vec![OffsetCommitRequestTopic {
            name: Text::from_static("field"),
            partitions: vec![OffsetCommitRequestPartition::default()],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

async fn committed(client: &mut Client, request: OffsetCommitRequest) -> i16 {
    let answer = ask!(client, 9, OffsetCommit, request);
    answer.topics[0].partitions[0].error_code
}

/// KIP-345: of two processes with one instance id the newer one stays, also when the older one's next word is a commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_was_replaced_is_told_so_when_it_commits() {
    let bed = Bed::start(&[]).await;
    let (mut old, mut new) = (bed.client().await, bed.client().await);
    old.create("field", 1).await;
    let instance = Text::from_static("i-1");
    let first = ask!(
        old,
        9,
        JoinGroup,
        join(&Text::EMPTY, Some(instance.clone()))
    );
    assert_eq!(first.error_code, 0, "{first:?}");
    let sync = |of: &JoinGroupResponse| SyncGroupRequest {
        group_id: GROUP,
        generation_id: of.generation_id,
        member_id: of.member_id.clone(),
        ..SyncGroupRequest::default()
    };
    assert_eq!(ask!(old, 5, SyncGroup, sync(&first)).error_code, 0);
    assert_eq!(
        committed(&mut old, commit(Some(&first), Some(&instance))).await,
        0
    );
    let second = ask!(
        new,
        9,
        JoinGroup,
        join(&Text::EMPTY, Some(instance.clone()))
    );
    assert_eq!(second.error_code, 0, "{second:?}");
    assert_ne!(first.member_id, second.member_id);
    let late = commit(Some(&first), Some(&instance));
    let fenced = ErrorCode::FencedInstanceId.code();
    assert_eq!(committed(&mut old, late).await, fenced);
    // A member without an instance id is only not known.
    let unknown = ErrorCode::UnknownMemberId.code();
    assert_eq!(
        committed(&mut old, commit(Some(&first), None)).await,
        unknown
    );
    let stranger = Text::from_static("i-2");
    let never_there = commit(Some(&first), Some(&stranger));
    assert_eq!(committed(&mut old, never_there).await, unknown);
    // So is one that commits beside the members of a group.
    assert_eq!(committed(&mut old, commit(None, None)).await, unknown);
    // The newer one holds its place.
    assert_eq!(ask!(new, 5, SyncGroup, sync(&second)).error_code, 0);
    let request = commit(Some(&second), Some(&instance));
    assert_eq!(committed(&mut new, request).await, 0);
    bed.stop().await;
}

/// KIP-848: a field that is null is as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_states_only_its_topics_keeps_its_assignor_and_pattern() {
    let bed = Bed::start(&[("group.heartbeat.interval.ms", "100")]).await;
    let mut client = bed.client().await;
    for topic in ["field", "other", "more-1"] {
        client.create(topic, 2).await;
    }
    let beat = |epoch| ConsumerGroupHeartbeatRequest {
        group_id: GROUP,
        member_id: Text::from_static("m"),
        member_epoch: epoch,
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let names = |names: &[&'static str]| {
        let names = names.iter().map(|name| Text::from_static(name));
        Some(names.collect::<Vec<_>>())
    };
    // Who is not there is told so, whatever part of a subscription it states.
    for names in [None, names(&["field"])] {
        let stranger = ConsumerGroupHeartbeatRequest {
            subscribed_topic_names: names,
            ..beat(5)
        };
        let answer = ask!(client, 1, ConsumerGroupHeartbeat, stranger);
        assert_eq!(answer.error_code, ErrorCode::UnknownMemberId.code());
    }
    let joining = ConsumerGroupHeartbeatRequest {
        rebalance_timeout_ms: 10_000,
        subscribed_topic_names: names(&["field"]),
        subscribed_topic_regex: Some(Text::from_static("more-.*")),
        server_assignor: Some(Text::from_static("range")),
        topic_partitions: Some(Vec::new()),
        ..beat(0)
    };
    let ok = |answer: ConsumerGroupHeartbeatResponse| {
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer.member_epoch
    };
    let mut epoch = ok(ask!(client, 1, ConsumerGroupHeartbeat, joining));
    let steps: [(ConsumerGroupHeartbeatRequest, &[&str], &str, &str); 3] = [
        (
            ConsumerGroupHeartbeatRequest {
                subscribed_topic_names: names(&["field", "other"]),
                ..beat(0)
            },
            &["field", "other"],
            "more-.*",
            "range",
        ),
        (
            ConsumerGroupHeartbeatRequest {
                server_assignor: Some(Text::from_static("uniform")),
                ..beat(0)
            },
            &["field", "other"],
            "more-.*",
            "uniform",
        ),
        (
            ConsumerGroupHeartbeatRequest {
                subscribed_topic_regex: Some(Text::EMPTY),
                ..beat(0)
            },
            &["field", "other"],
            "",
            "uniform",
        ),
    ];
    for (mut request, topics, pattern, assignor) in steps {
        request.member_epoch = epoch;
        epoch = ok(ask!(client, 1, ConsumerGroupHeartbeat, request));
        let (ctx, name) = (Context::anonymous(), "field".parse().unwrap());
        let group = bed.node.broker().group(&ctx, &name).await.unwrap();
        let said = &group.members[0].subscription;
        let mut found: Vec<_> = said.topics.iter().map(|topic| topic.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, topics);
        assert_eq!(
            (said.pattern.as_str(), said.assignor.as_str()),
            (pattern, assignor)
        );
    }
    bed.stop().await;
}
