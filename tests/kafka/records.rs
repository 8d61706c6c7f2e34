//! Records in and out: every version, sessions of reads, and the same log by the node's own API.

use bytes::Bytes;
use varve_broker_api::{Broker as _, Context, Fetch, FetchPartition, Isolation, Produce};
use varve_frontend_kafka::wire::generated::fetch::{
    FetchPartition as Wanted, FetchRequest, FetchResponse, FetchTopic,
};
use varve_frontend_kafka::wire::generated::init_producer_id::InitProducerIdRequest;
use varve_frontend_kafka::wire::generated::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use varve_frontend_kafka::wire::generated::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use varve_frontend_kafka::wire::generated::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use varve_frontend_kafka::wire::{ApiKey, ErrorCode, Request, Text, Uuid};
use varve_record::{BatchBuilder, Compression, Unverified, VerifyLimits, iter_batches};
use varve_types::{Acks, Offset, PartitionId, ProducerId, Sequence};

use crate::Bed;
use crate::client::{Client, Patience, ask};

/// A batch of these values, at times 1, 2, …
fn batch(values: &[&str], session: Option<(ProducerId, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for (at, value) in (1..).zip(values) {
        builder
            .append(at, None, Some(value.as_bytes()), &[])
            .unwrap();
    }
    if let Some((producer, sequence)) = session {
        builder.set_producer(producer, Sequence::new(sequence).unwrap());
    }
    builder.build().unwrap()
}

fn produce(version: i16, topic: Uuid, acks: i16, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData {
        index: 0,
        records: Some(records),
    };
    let by_id = version >= 13;
    ProduceRequest {
        transactional_id: None,
        acks,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: Text::from_static(if by_id { "" } else { "orders" }),
            topic_id: if by_id { topic } else { Uuid::ZERO },
            partition_data: vec![data],
        }],
    }
}

pub(crate) fn fetch(version: i16, topic: Uuid, offset: i64) -> FetchRequest {
    let wanted = Wanted {
        partition: 0,
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        ..Wanted::default()
    };
    let by_id = version >= 13;
    FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic {
            topic: Text::from_static(if by_id { "" } else { "orders" }),
            topic_id: if by_id { topic } else { Uuid::ZERO },
            partitions: vec![wanted],
        }],
        ..FetchRequest::default()
    }
}

/// Values of the only partition, with their offsets.
pub(crate) fn values(response: &FetchResponse) -> Vec<(i64, String)> {
    let records = response.responses[0].partitions[0].records.clone();
    let mut all = Vec::new();
    for batch in iter_batches(records.unwrap()) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            let value = record.value.clone().unwrap();
            all.push((
                record.offset.get(),
                String::from_utf8(value.to_vec()).unwrap(),
            ));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_in_and_out_in_every_version() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let id = client.describe("orders").await.topic_id;
    let mut end = 0;
    for version in 3..=13 {
        for acks in [-1, 1] {
            let request = produce(version, id, acks, batch(&["a", "b"], None));
            let response = ask!(client, version, Produce, request);
            let part = &response.responses[0].partition_responses[0];
            assert_eq!((part.error_code, part.base_offset), (0, end), "{version}");
            end += 2;
        }
        let silent = Request::Produce(produce(version, id, 0, batch(&["c"], None)));
        client.send(version, &silent).await;
        end += 1;
    }
    for version in 4..=18 {
        let request = fetch(version, id, end - 3);
        let patience = Patience::begin();
        let (response, read) = loop {
            let response = ask!(client, version, Fetch, request.clone());
            let read = values(&response);
            if read.len() >= 3 {
                break (response, read);
            }
            // What nobody waited for may be on its way.
            patience.again((version, read)).await;
        };
        let read: Vec<&str> = read.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(read, ["a", "b", "c"], "version {version}");
        let part = &response.responses[0].partitions[0];
        assert_eq!((part.error_code, part.high_watermark), (0, end));
        assert_eq!(part.aborted_transactions, None);
    }
    // The same log, by the node's own API.
    let read = Fetch {
        partitions: vec![FetchPartition {
            topic: "orders".parse().unwrap(),
            partition: PartitionId(0),
            offset: Offset::ZERO,
            max_bytes: 1 << 20,
            leader_epoch: None,
        }],
        max_wait: std::time::Duration::ZERO,
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation: Isolation::Committed,
        raw: false,
    };
    let found = bed.node.broker().fetch(&Context::anonymous(), read).await;
    let found = found.unwrap().remove(0).result.unwrap();
    assert_eq!(found.next_offset.get(), end);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_produced_by_the_nodes_own_api_is_fetched_at_its_offset() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let id = client.describe("orders").await.topic_id;
    let ctx = Context::anonymous();
    for n in 0..3_i64 {
        let records = batch(&["own", &n.to_string()], None);
        let sent = Produce {
            transaction_version: Default::default(),
            topic: "orders".parse().unwrap(),
            partition: PartitionId(0),
            acks: Acks::All,
            batch: Unverified(records)
                .verify(&VerifyLimits::default())
                .unwrap(),
            expected_offset: None,
            transactional_id: None,
        };
        let receipt = bed.node.broker().produce(&ctx, sent).await.unwrap();
        let appended = receipt.await.unwrap();
        assert_eq!(appended.base_offset.unwrap().get(), 2 * n);
    }
    let response = ask!(client, 18, Fetch, fetch(18, id, 4));
    let read = values(&response);
    assert_eq!(read, [(4, "own".to_owned()), (5, "2".to_owned())]);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_that_cannot_be_are_refused_by_the_protocols_codes() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let good = batch(&["a"], None);
    let mut damaged = good.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let mut magic = good.to_vec();
    magic[16] = 7;
    let two = [&good[..], &good[..]].concat();
    let other = |name: &'static str, index| {
        let mut request = produce(9, Uuid::ZERO, -1, good.clone());
        request.topic_data[0].name = Text::from_static(name);
        request.topic_data[0].partition_data[0].index = index;
        request
    };
    let of = |records: &[u8], acks| produce(9, Uuid::ZERO, acks, Bytes::copy_from_slice(records));
    for (request, code) in [
        (of(&damaged, -1), ErrorCode::CorruptMessage),
        (of(&magic, -1), ErrorCode::UnsupportedForMessageFormat),
        (of(&two, -1), ErrorCode::InvalidRecord),
        (of(&[], -1), ErrorCode::InvalidRecord),
        (of(&good, 7), ErrorCode::InvalidRequiredAcks),
        (other("nothing", 0), ErrorCode::UnknownTopicOrPartition),
        (other("a/b", 0), ErrorCode::InvalidTopicException),
        (other("orders", 1), ErrorCode::UnknownTopicOrPartition),
        (other("orders", -1), ErrorCode::UnknownTopicOrPartition),
        (
            other("__consumer_offsets", 0),
            ErrorCode::InvalidTopicException,
        ),
    ] {
        let response = ask!(client, 9, Produce, request);
        let part = &response.responses[0].partition_responses[0];
        assert_eq!(part.error_code, code.code(), "{response:?}");
        assert_eq!(part.base_offset, -1);
    }
    let unknown = produce(13, Uuid(5), -1, good.clone());
    let response = ask!(client, 13, Produce, unknown);
    let part = &response.responses[0].partition_responses[0];
    assert_eq!(part.error_code, ErrorCode::UnknownTopicId.code());
    // Nobody would hear of it otherwise.
    let silent = Request::Produce(of(&damaged, 0));
    client.send(9, &silent).await;
    assert_eq!(client.frame().await, None);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_that_are_sent_together_keep_their_order() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    for n in 0..200 {
        let request = produce(9, Uuid::ZERO, -1, batch(&[&n.to_string()], None));
        client.send(9, &Request::Produce(request)).await;
    }
    for n in 0..200 {
        let (_, response) = client.receive(ApiKey::Produce, 9).await;
        let varve_frontend_kafka::wire::Response::Produce(response) = response else {
            panic!("{response:?}")
        };
        let part = &response.responses[0].partition_responses[0];
        assert_eq!((part.error_code, part.base_offset), (0, n));
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_batch_that_is_sent_again_is_there_once() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let mut ids = Vec::new();
    for version in 0..=5 {
        let session = ask!(
            client,
            version,
            InitProducerId,
            InitProducerIdRequest::default()
        );
        assert_eq!((session.error_code, session.producer_epoch), (0, 0));
        ids.push(session.producer_id);
    }
    assert!(ids.windows(2).all(|w| w[0] < w[1]), "{ids:?}");
    let producer = ProducerId {
        id: ids[0],
        epoch: 0,
    };
    for (sequence, code, offset) in [
        (0, 0, 0),
        (0, 0, 0),
        (1, 0, 1),
        (5, ErrorCode::OutOfOrderSequenceNumber.code(), -1),
    ] {
        let records = batch(&["a"], Some((producer, sequence)));
        let response = ask!(client, 9, Produce, produce(9, Uuid::ZERO, -1, records));
        let part = &response.responses[0].partition_responses[0];
        assert_eq!(
            (part.error_code, part.base_offset),
            (code, offset),
            "{sequence}"
        );
    }
    bed.stop().await;
}

/// Fetches within a session by ids.
async fn incremental(
    client: &mut Client,
    (id, epoch): (i32, i32),
    request: FetchRequest,
) -> FetchResponse {
    let request = FetchRequest {
        session_id: id,
        session_epoch: epoch,
        ..request
    };
    ask!(client, 18, Fetch, request)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_told_only_what_is_new() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let id = client.describe("orders").await.topic_id;
    let empty = FetchRequest {
        topics: Vec::new(),
        max_wait_ms: 10,
        ..fetch(18, id, 0)
    };
    let begun = incremental(&mut client, (0, 0), fetch(18, id, 0)).await;
    let session = begun.session_id;
    assert!(session > 0 && begun.responses.len() == 1);
    let nothing = incremental(&mut client, (session, 1), empty.clone()).await;
    assert_eq!((nothing.error_code, nothing.responses.len()), (0, 0));
    let request = produce(13, id, -1, batch(&["a"], None));
    let _ = ask!(client, 13, Produce, request);
    let some = incremental(&mut client, (session, 2), empty.clone()).await;
    assert_eq!(values(&some), [(0, "a".to_owned())]);
    // An epoch that was used.
    let again = incremental(&mut client, (session, 2), empty.clone()).await;
    let code = ErrorCode::InvalidFetchSessionEpoch.code();
    assert_eq!(again.error_code, code);
    let unknown = incremental(&mut client, (session ^ 1, 3), empty.clone()).await;
    let code = ErrorCode::FetchSessionIdNotFound.code();
    assert_eq!(unknown.error_code, code);
    let moved = incremental(&mut client, (session, 3), fetch(18, id, 1)).await;
    assert_eq!(moved.responses.len(), 0, "the end was told");
    let ended = incremental(&mut client, (session, -1), fetch(18, id, 0)).await;
    assert_eq!((ended.session_id, values(&ended).len()), (0, 1));
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_cannot_be_are_refused_by_the_protocols_codes() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let id = client.describe("orders").await.topic_id;
    let _ = ask!(
        client,
        13,
        Produce,
        produce(13, id, -1, batch(&["a", "b"], None))
    );
    let with = |change: &dyn Fn(&mut Wanted)| {
        let mut request = fetch(18, id, 0);
        change(&mut request.topics[0].partitions[0]);
        request
    };
    for (request, code) in [
        (with(&|p| p.fetch_offset = 3), ErrorCode::OffsetOutOfRange),
        (with(&|p| p.fetch_offset = -1), ErrorCode::OffsetOutOfRange),
        (
            with(&|p| p.partition = 9),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (
            with(&|p| p.current_leader_epoch = 9),
            ErrorCode::UnknownLeaderEpoch,
        ),
        (fetch(18, Uuid(9), 0), ErrorCode::UnknownTopicId),
    ] {
        let response = ask!(client, 18, Fetch, request);
        let part = &response.responses[0].partitions[0];
        assert_eq!(part.error_code, code.code(), "{response:?}");
        assert_eq!(part.records, Some(Bytes::new()), "never null");
    }
    // A reader whose log goes on where the leader's does not.
    let request = with(&|p| {
        p.fetch_offset = 5;
        p.last_fetched_epoch = 0;
    });
    let response = ask!(client, 18, Fetch, request);
    let part = &response.responses[0].partitions[0];
    let diverging = &part.diverging_epoch;
    assert_eq!(
        (part.error_code, diverging.epoch, diverging.end_offset),
        (0, 0, 2)
    );
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_found_by_name_and_by_time() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let _ = ask!(
        client,
        9,
        Produce,
        produce(9, Uuid::ZERO, -1, batch(&["a", "b", "c"], None))
    );
    for version in 0..=11 {
        for (timestamp, offset, time, since) in [
            (-1, 3, -1, 0),
            (-2, 0, -1, 0),
            (2, 1, 2, 0),
            (9, -1, -1, 0),
            (-3, 2, 3, 7),
            (-4, 0, -1, 8),
            (-5, -1, -1, 9),
        ] {
            if version < since {
                continue;
            }
            let wanted = ListOffsetsPartition {
                partition_index: 0,
                timestamp,
                ..ListOffsetsPartition::default()
            };
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![ListOffsetsTopic {
                    name: Text::from_static("orders"),
                    partitions: vec![wanted],
                }],
                ..ListOffsetsRequest::default()
            };
            let response = ask!(client, version, ListOffsets, request);
            let part = &response.topics[0].partitions[0];
            assert_eq!(part.error_code, 0);
            if version == 0 {
                assert_eq!(part.old_style_offsets, [offset]);
            } else {
                assert_eq!((part.offset, part.timestamp), (offset, time), "{timestamp}");
            }
        }
    }
    for version in 0..=4 {
        let wanted = |leader_epoch| OffsetForLeaderPartition {
            leader_epoch,
            ..OffsetForLeaderPartition::default()
        };
        let request = OffsetForLeaderEpochRequest {
            topics: vec![OffsetForLeaderTopic {
                topic: Text::from_static("orders"),
                partitions: vec![wanted(0)],
            }],
            ..OffsetForLeaderEpochRequest::default()
        };
        let response = ask!(client, version, OffsetForLeaderEpoch, request);
        let part = &response.topics[0].partitions[0];
        assert_eq!((part.error_code, part.end_offset), (0, 3));
    }
    bed.stop().await;
}
