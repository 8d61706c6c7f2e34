//! Groups, committed offsets and transactions by the Kafka protocol.

use std::time::Duration;

use bytes::Bytes;
use varve_broker_api::{Broker as _, CommitOffsets, Context, OffsetCommit as Commit};
use varve_frontend_kafka::wire::generated::consumer_group_describe::ConsumerGroupDescribeRequest;
use varve_frontend_kafka::wire::generated::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, RequestTopicPartitions,
};
use varve_frontend_kafka::wire::generated::delete_groups::DeleteGroupsRequest;
use varve_frontend_kafka::wire::generated::describe_groups::DescribeGroupsRequest;
use varve_frontend_kafka::wire::generated::describe_transactions::DescribeTransactionsRequest;
use varve_frontend_kafka::wire::generated::end_txn::EndTxnRequest;
use varve_frontend_kafka::wire::generated::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic,
};
use varve_frontend_kafka::wire::generated::find_coordinator::FindCoordinatorRequest;
use varve_frontend_kafka::wire::generated::init_producer_id::{
    InitProducerIdRequest, InitProducerIdResponse,
};
use varve_frontend_kafka::wire::generated::list_groups::ListGroupsRequest;
use varve_frontend_kafka::wire::generated::list_transactions::ListTransactionsRequest;
use varve_frontend_kafka::wire::generated::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use varve_frontend_kafka::wire::generated::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use varve_frontend_kafka::wire::generated::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use varve_frontend_kafka::wire::generated::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use varve_frontend_kafka::wire::generated::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use varve_frontend_kafka::wire::{ErrorCode, Text, Uuid};
use varve_record::{BatchBuilder, Compression, iter_batches};
use varve_types::{Offset, PartitionId, ProducerId, Sequence, TopicPartition};

use crate::Bed;
use crate::client::{Client, Patience, ask};

pub(crate) const GROUP: Text = Text::from_static("readers");

fn commit(version: i16, id: Uuid, offset: i64) -> OffsetCommitRequest {
    let by_id = version >= 10;
    OffsetCommitRequest {
        group_id: GROUP,
        topics: vec![OffsetCommitRequestTopic {
            name: Text::from_static(if by_id { "" } else { "orders" }),
            topic_id: if by_id { id } else { Uuid::ZERO },
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: offset,
                committed_metadata: Some(Text::from_static("note")),
                ..OffsetCommitRequestPartition::default()
            }],
        }],
        ..OffsetCommitRequest::default()
    }
}

/// What is committed, asked in that version: offset, and error of the partition.
pub(crate) async fn committed(
    client: &mut Client,
    version: i16,
    id: Uuid,
    all: bool,
) -> (i64, i16) {
    if version < 8 {
        let topic = OffsetFetchRequestTopic {
            name: Text::from_static("orders"),
            partition_indexes: vec![0],
        };
        let request = OffsetFetchRequest {
            group_id: GROUP,
            topics: (!all).then(|| vec![topic]),
            ..OffsetFetchRequest::default()
        };
        let response = ask!(client, version, OffsetFetch, request);
        assert_eq!(response.error_code, 0);
        let part = &response.topics[0].partitions[0];
        return (part.committed_offset, part.error_code);
    }
    let by_id = version >= 10;
    let topic = OffsetFetchRequestTopics {
        name: Text::from_static(if by_id { "" } else { "orders" }),
        topic_id: if by_id { id } else { Uuid::ZERO },
        partition_indexes: vec![0],
    };
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: GROUP,
            topics: (!all).then(|| vec![topic]),
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let mut response = ask!(client, version, OffsetFetch, request);
    let group = response.groups.remove(0);
    assert_eq!(group.error_code, 0);
    let part = &group.topics[0].partitions[0];
    (part.committed_offset, part.error_code)
}

pub(crate) fn values(values: &[&str], transaction: Option<(ProducerId, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for value in values {
        builder
            .append(1, None, Some(value.as_bytes()), &[])
            .unwrap();
    }
    if let Some((producer, sequence)) = transaction {
        builder.set_transaction(producer, Sequence::new(sequence).unwrap());
    }
    builder.build().unwrap()
}

pub(crate) async fn produce(
    client: &mut Client,
    topic: Uuid,
    records: Bytes,
    transaction: Option<&'static str>,
) -> i16 {
    let request = ProduceRequest {
        transactional_id: transaction.map(Text::from_static),
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            topic_id: topic,
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(records),
            }],
            ..TopicProduceData::default()
        }],
    };
    let response = ask!(client, 13, Produce, request);
    response.responses[0].partition_responses[0].error_code
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_committed_and_read_in_every_version_and_by_both_apis() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let id = client.describe("orders").await.topic_id;
    for _ in 0..12 {
        assert_eq!(
            produce(&mut client, id, values(&["v"], None), None).await,
            0
        );
    }
    for version in 0..=6 {
        let request = FindCoordinatorRequest {
            key: if version < 4 { GROUP } else { Text::EMPTY },
            coordinator_keys: if version < 4 { Vec::new() } else { vec![GROUP] },
            ..FindCoordinatorRequest::default()
        };
        let response = ask!(client, version, FindCoordinator, request);
        let found = match version {
            0..=3 => (response.error_code, response.port),
            _ => (
                response.coordinators[0].error_code,
                response.coordinators[0].port,
            ),
        };
        assert_eq!(found, (0, i32::from(bed.kafka.port())));
    }
    for version in 0..=10 {
        let offset = i64::from(version);
        let response = ask!(client, version, OffsetCommit, commit(version, id, offset));
        assert_eq!(response.topics[0].partitions[0].error_code, 0, "{version}");
        for version in 0..=10 {
            let found = committed(&mut client, version, id, false).await;
            assert_eq!(found, (offset, 0), "read in version {version}");
            if version >= 2 {
                assert_eq!(committed(&mut client, version, id, true).await.0, offset);
            }
        }
    }
    // What is committed by the node's own API is read here.
    let place = TopicPartition::new("orders".parse().unwrap(), PartitionId(0));
    let wanted = CommitOffsets {
        group: "readers".parse().unwrap(),
        member: None,
        member_epoch: 0,
        offsets: vec![Commit {
            partition: place,
            offset: Offset::new(7).unwrap(),
            leader_epoch: None,
            metadata: String::new(),
        }],
    };
    let ctx = Context::anonymous();
    let done = bed.node.broker().commit_offsets(&ctx, wanted).await;
    assert!(done.unwrap().iter().all(Result::is_ok));
    assert_eq!(committed(&mut client, 8, id, false).await.0, 7);
    for version in 0..=5 {
        let listed = ask!(client, version, ListGroups, ListGroupsRequest::default());
        let listed = &listed.groups[0];
        assert_eq!(listed.group_id, GROUP);
        // Nobody was ever a member: a classic group without a protocol, by which clients tell it.
        assert_eq!(listed.protocol_type, Text::EMPTY);
        let kind = if version < 5 { "" } else { "classic" };
        assert_eq!(listed.group_type.as_str(), kind);
    }
    let described = ask!(
        client,
        1,
        ConsumerGroupDescribe,
        ConsumerGroupDescribeRequest {
            group_ids: vec![GROUP],
            include_authorized_operations: false,
        }
    );
    let none = ErrorCode::GroupIdNotFound.code();
    assert_eq!(described.groups[0].error_code, none);
    let request = DescribeGroupsRequest {
        groups: vec![GROUP, Text::from_static("nobody")],
        ..DescribeGroupsRequest::default()
    };
    for version in 0..=6 {
        let described = ask!(client, version, DescribeGroups, request.clone());
        let states: Vec<&str> = described
            .groups
            .iter()
            .map(|g| g.group_state.as_str())
            .collect();
        assert_eq!(states, ["Empty", "Dead"]);
    }
    let request = OffsetDeleteRequest {
        group_id: GROUP,
        topics: vec![OffsetDeleteRequestTopic {
            name: Text::from_static("orders"),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    let gone = ask!(client, 0, OffsetDelete, request);
    assert_eq!(
        (gone.error_code, gone.topics[0].partitions[0].error_code),
        (0, 0)
    );
    assert_eq!(committed(&mut client, 8, id, false).await, (-1, 0));
    let response = ask!(client, 9, OffsetCommit, commit(9, id, 1));
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    let request = DeleteGroupsRequest {
        groups_names: vec![GROUP, Text::from_static("nobody")],
    };
    let gone = ask!(client, 2, DeleteGroups, request.clone());
    let codes: Vec<i16> = gone.results.iter().map(|r| r.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::GroupIdNotFound.code()]);
    // Since version 3 with a sentence.
    let gone = ask!(client, 3, DeleteGroups, request);
    assert!(gone.results[1].error_message.is_some(), "{gone:?}");
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_cannot_be_are_refused_by_the_protocols_codes() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let id = client.describe("orders").await.topic_id;
    let with = |change: &dyn Fn(&mut OffsetCommitRequest)| {
        let mut request = commit(9, id, 0);
        change(&mut request);
        request
    };
    for (request, code) in [
        (
            with(&|r| r.group_id = Text::from("/".repeat(90))),
            ErrorCode::InvalidGroupId,
        ),
        (
            with(&|r| r.topics[0].name = Text::from_static("nothing")),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (
            with(&|r| r.topics[0].partitions[0].partition_index = 5),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (
            with(&|r| {
                r.member_id = Text::from_static("m");
                r.generation_id_or_member_epoch = 3;
            }),
            ErrorCode::UnknownMemberId,
        ),
        (
            with(&|r| {
                let long = "x".repeat(5_000);
                r.topics[0].partitions[0].committed_metadata = Some(Text::from(long));
            }),
            ErrorCode::OffsetMetadataTooLarge,
        ),
    ] {
        let response = ask!(client, 9, OffsetCommit, request);
        assert_eq!(response.topics[0].partitions[0].error_code, code.code());
    }
    bed.stop().await;
}

fn beat(member: &'static str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: GROUP,
        member_id: Text::from_static(member),
        member_epoch: epoch,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// Partitions that a member may own.
fn assigned(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let assignment = response.assignment.as_ref()?;
    let topics = assignment.topic_partitions.iter();
    Some(topics.flat_map(|t| t.partitions.clone()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_partitions_by_heartbeats() {
    let bed = Bed::start(&[("group.heartbeat.interval.ms", "100")]).await;
    let mut client = bed.client().await;
    client.create("orders", 4).await;
    let id = client.describe("orders").await.topic_id;
    let join = |member| ConsumerGroupHeartbeatRequest {
        rack_id: Some(Text::from_static("r1")),
        rebalance_timeout_ms: 10_000,
        subscribed_topic_names: Some(vec![Text::from_static("orders")]),
        topic_partitions: Some(Vec::new()),
        ..beat(member, 0)
    };
    let owning = |member, epoch, partitions: Vec<i32>| ConsumerGroupHeartbeatRequest {
        topic_partitions: Some(vec![RequestTopicPartitions {
            topic_id: id,
            partitions,
        }]),
        ..beat(member, epoch)
    };
    let first = ask!(client, 1, ConsumerGroupHeartbeat, join("a"));
    assert_eq!(first.error_code, 0, "{first:?}");
    let mut own = assigned(&first).unwrap();
    own.sort_unstable();
    assert_eq!(own, [0, 1, 2, 3]);
    let mut epoch = first.member_epoch;
    let again = ask!(
        client,
        1,
        ConsumerGroupHeartbeat,
        owning("a", epoch, own.clone())
    );
    assert_eq!((again.error_code, assigned(&again)), (0, None));
    // Another joins: it owns nothing until the first has given something up.
    let second = ask!(client, 1, ConsumerGroupHeartbeat, join("b"));
    assert_eq!(
        (second.error_code, assigned(&second)),
        (0, Some(Vec::new()))
    );
    let mut second_epoch = second.member_epoch;
    let mut half = Vec::new();
    for _ in 0..50 {
        let beaten = ask!(
            client,
            1,
            ConsumerGroupHeartbeat,
            owning("a", epoch, own.clone())
        );
        assert_eq!(beaten.error_code, 0, "{beaten:?}");
        epoch = beaten.member_epoch;
        own = assigned(&beaten).unwrap_or(own);
        let beaten = ask!(
            client,
            1,
            ConsumerGroupHeartbeat,
            owning("b", second_epoch, half.clone())
        );
        assert_eq!(beaten.error_code, 0, "{beaten:?}");
        second_epoch = beaten.member_epoch;
        half = assigned(&beaten).unwrap_or(half);
        if half.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((own.len(), half.len()), (2, 2));
    // A member commits by its epoch, and by an earlier one what it has held since then.
    let mut request = commit(9, id, 0);
    request.member_id = Text::from_static("a");
    request.generation_id_or_member_epoch = epoch;
    let done = ask!(client, 9, OffsetCommit, request.clone());
    assert_eq!(done.topics[0].partitions[0].error_code, 0);
    let stale = ErrorCode::StaleMemberEpoch.code();
    for partition in 0..4 {
        let of = &mut request.topics[0].partitions[0];
        of.partition_index = partition;
        request.generation_id_or_member_epoch = first.member_epoch;
        assert_ne!(epoch, first.member_epoch);
        let done = ask!(client, 9, OffsetCommit, request.clone());
        let expected = if own.contains(&partition) { 0 } else { stale };
        let found = done.topics[0].partitions[0].error_code;
        assert_eq!(found, expected, "{partition} of {own:?}");
    }
    // What it has gained since is not its own by an earlier epoch.
    request.member_id = Text::from_static("b");
    request.topics[0].partitions[0].partition_index = half[0];
    request.generation_id_or_member_epoch = second.member_epoch - 1;
    let early = ask!(client, 9, OffsetCommit, request);
    assert_eq!(early.topics[0].partitions[0].error_code, stale);
    let described = ask!(
        client,
        1,
        ConsumerGroupDescribe,
        ConsumerGroupDescribeRequest {
            group_ids: vec![GROUP],
            include_authorized_operations: true,
        }
    );
    let group = &described.groups[0];
    assert_eq!((group.error_code, group.members.len()), (0, 2));
    assert_eq!(group.members[0].rack_id, Some(Text::from_static("r1")));
    assert_eq!(
        group.members[0].subscribed_topic_names,
        [Text::from_static("orders")]
    );
    let fenced = ask!(client, 1, ConsumerGroupHeartbeat, beat("a", epoch + 7));
    assert_eq!(fenced.error_code, ErrorCode::FencedMemberEpoch.code());
    for member in ["a", "b"] {
        let left = ask!(client, 1, ConsumerGroupHeartbeat, beat(member, -1));
        assert_eq!((left.error_code, left.member_epoch), (0, -1));
    }
    let unknown = ask!(client, 1, ConsumerGroupHeartbeat, beat("a", epoch));
    assert_eq!(unknown.error_code, ErrorCode::UnknownMemberId.code());
    // What a member wants and cannot have is told by codes of its own.
    let assigned_by = ConsumerGroupHeartbeatRequest {
        server_assignor: Some(Text::from_static("magic")),
        ..join("c")
    };
    let refused = ask!(client, 1, ConsumerGroupHeartbeat, assigned_by);
    assert_eq!(refused.error_code, ErrorCode::UnsupportedAssignor.code());
    let long = Text::from("x".repeat(5000));
    for pattern in [Text::from_static("a("), long] {
        let matching = ConsumerGroupHeartbeatRequest {
            subscribed_topic_regex: Some(pattern),
            ..join("c")
        };
        let refused = ask!(client, 1, ConsumerGroupHeartbeat, matching);
        assert_eq!(
            refused.error_code,
            ErrorCode::InvalidRegularExpression.code()
        );
    }
    bed.stop().await;
}

pub(crate) async fn session(client: &mut Client, version: i16) -> InitProducerIdResponse {
    let request = InitProducerIdRequest {
        transactional_id: Some(Text::from_static("payments")),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let patience = Patience::begin();
    loop {
        let opened = ask!(client, version, InitProducerId, request.clone());
        let again = [
            ErrorCode::CoordinatorLoadInProgress,
            ErrorCode::CoordinatorNotAvailable,
            ErrorCode::ConcurrentTransactions,
        ];
        if !again.iter().any(|e| e.code() == opened.error_code) {
            return opened;
        }
        patience.again(opened).await;
    }
}

pub(crate) async fn end(client: &mut Client, producer: ProducerId, commit: bool) -> ProducerId {
    let request = EndTxnRequest {
        transactional_id: Text::from_static("payments"),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        committed: commit,
    };
    let ended = ask!(client, 5, EndTxn, request);
    assert_eq!(ended.error_code, 0);
    ProducerId {
        id: ended.producer_id,
        epoch: ended.producer_epoch,
    }
}

async fn read(client: &mut Client, topic: Uuid, isolation: i8) -> FetchResponse {
    let request = FetchRequest {
        max_wait_ms: 0,
        isolation_level: isolation,
        topics: vec![FetchTopic {
            topic_id: topic,
            partitions: vec![FetchPartition {
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    ask!(client, 18, Fetch, request)
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_committed_and_aborted_and_readers_are_told_which() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let id = client.describe("orders").await.topic_id;
    let opened = session(&mut client, 5).await;
    assert_eq!(opened.error_code, 0, "{opened:?}");
    let first = ProducerId {
        id: opened.producer_id,
        epoch: opened.producer_epoch,
    };
    let name = Some("payments");
    let sent = produce(&mut client, id, values(&["kept"], Some((first, 0))), name).await;
    assert_eq!(sent, 0);
    // Offsets count with the transaction.
    let offsets = TxnOffsetCommitRequest {
        transactional_id: Text::from_static("payments"),
        group_id: GROUP,
        producer_id: first.id,
        producer_epoch: first.epoch,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: Text::from_static("orders"),
            partitions: vec![TxnOffsetCommitRequestPartition {
                committed_offset: 0,
                ..TxnOffsetCommitRequestPartition::default()
            }],
            ..TxnOffsetCommitRequestTopic::default()
        }],
        ..TxnOffsetCommitRequest::default()
    };
    let done = ask!(client, 5, TxnOffsetCommit, offsets);
    assert_eq!(done.topics[0].partitions[0].error_code, 0);
    assert_eq!(committed(&mut client, 9, id, false).await.0, -1);
    let open = read(&mut client, id, 1).await;
    let part = &open.responses[0].partitions[0];
    assert_eq!((part.last_stable_offset, part.high_watermark), (0, 1));
    assert_eq!(part.records, Some(Bytes::new()));
    let second = end(&mut client, first, true).await;
    assert_eq!(second.epoch, first.epoch + 1);
    // The same again: the answer was lost.
    assert_eq!(end(&mut client, first, true).await, second);
    let sent = produce(&mut client, id, values(&["gone"], Some((second, 0))), name).await;
    assert_eq!(sent, 0);
    let third = end(&mut client, second, false).await;
    // Whoever writes in a session that is over is refused.
    let late = produce(&mut client, id, values(&["late"], Some((first, 1))), name).await;
    assert_eq!(late, ErrorCode::InvalidProducerEpoch.code());
    // Markers come after the decision.
    let patience = Patience::begin();
    let whole = loop {
        let whole = read(&mut client, id, 1).await;
        let stable = whole.responses[0].partitions[0].last_stable_offset;
        if stable == 4 {
            break whole;
        }
        patience.again(stable).await;
    };
    let part = &whole.responses[0].partitions[0];
    let batches: Vec<_> = iter_batches(part.records.clone().unwrap())
        .map(|batch| batch.unwrap().header)
        .collect();
    let control: Vec<bool> = batches.iter().map(|header| header.is_control()).collect();
    assert_eq!(control, [false, true, false, true]);
    let aborted = part.aborted_transactions.clone().unwrap();
    let aborted: Vec<_> = aborted
        .iter()
        .map(|a| (a.producer_id, a.first_offset))
        .collect();
    assert_eq!(aborted, [(second.id, 2)]);
    let all = read(&mut client, id, 0).await;
    assert_eq!(all.responses[0].partitions[0].aborted_transactions, None);
    assert_eq!(committed(&mut client, 9, id, false).await.0, 0);
    for version in 0..=2 {
        let all = ListTransactionsRequest::default();
        let listed = ask!(client, version, ListTransactions, all);
        let found = &listed.transaction_states[0];
        assert!(found.transaction_state.as_str().ends_with("Abort"));
    }
    let ids = vec![Text::from_static("payments"), Text::from_static("nobody")];
    let request = DescribeTransactionsRequest {
        transactional_ids: ids,
    };
    let described = ask!(client, 0, DescribeTransactions, request);
    let codes: Vec<i16> = described
        .transaction_states
        .iter()
        .map(|t| t.error_code)
        .collect();
    assert_eq!(codes, [0, ErrorCode::TransactionalIdNotFound.code()]);
    // A new session fences the one before.
    let opened = session(&mut client, 5).await;
    assert_eq!(opened.error_code, 0);
    let fenced = EndTxnRequest {
        transactional_id: Text::from_static("payments"),
        producer_id: third.id,
        producer_epoch: third.epoch,
        committed: true,
    };
    let fenced = ask!(client, 5, EndTxn, fenced);
    assert_eq!(fenced.error_code, ErrorCode::ProducerFenced.code());
    bed.stop().await;
}
