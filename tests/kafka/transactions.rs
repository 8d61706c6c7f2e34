//! Transactions of the first kind (KIP-98) by the Kafka protocol, in every version that has them: the producer
//! registers partitions itself and keeps its epoch.

use bytes::Bytes;
use varve_frontend_kafka::wire::generated::add_offsets_to_txn::AddOffsetsToTxnRequest;
use varve_frontend_kafka::wire::generated::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic,
};
use varve_frontend_kafka::wire::generated::end_txn::EndTxnRequest;
use varve_frontend_kafka::wire::generated::init_producer_id::InitProducerIdRequest;
use varve_frontend_kafka::wire::generated::list_transactions::ListTransactionsRequest;
use varve_frontend_kafka::wire::generated::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use varve_frontend_kafka::wire::generated::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use varve_frontend_kafka::wire::{ErrorCode, Text, Uuid};
use varve_types::ProducerId;

use crate::Bed;
use crate::client::{Client, Patience, ask};
use crate::groups::{GROUP, committed, session, values};

const ID: Text = Text::from_static("payments");
const TOPIC: Text = Text::from_static("orders");

async fn opened(client: &mut Client, version: i16) -> ProducerId {
    let opened = session(client, version).await;
    assert_eq!(opened.error_code, 0, "{opened:?}");
    ProducerId {
        id: opened.producer_id,
        epoch: opened.producer_epoch,
    }
}

/// The codes of registering partitions, in their order.
async fn add(
    client: &mut Client,
    version: i16,
    producer: ProducerId,
    places: &[(&'static str, i32)],
) -> Vec<i16> {
    let topic = |(name, partition): &(&'static str, i32)| AddPartitionsToTxnTopic {
        name: Text::from_static(name),
        partitions: vec![*partition],
    };
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: ID,
        v3_and_below_producer_id: producer.id,
        v3_and_below_producer_epoch: producer.epoch,
        v3_and_below_topics: places.iter().map(topic).collect(),
        ..AddPartitionsToTxnRequest::default()
    };
    let added = ask!(client, version, AddPartitionsToTxn, request);
    let topics = added.results_by_topic_v3_and_below.iter();
    topics
        .map(|t| t.results_by_partition[0].partition_error_code)
        .collect()
}

async fn produce(client: &mut Client, version: i16, records: Bytes) -> i16 {
    let request = ProduceRequest {
        transactional_id: Some(ID),
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: TOPIC,
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(records),
            }],
            ..TopicProduceData::default()
        }],
    };
    let response = ask!(client, version, Produce, request);
    response.responses[0].partition_responses[0].error_code
}

async fn end(client: &mut Client, version: i16, producer: ProducerId, commit: bool) -> i16 {
    let request = EndTxnRequest {
        transactional_id: ID,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        committed: commit,
    };
    ask!(client, version, EndTxn, request).error_code
}

async fn commit_offset(
    client: &mut Client,
    version: i16,
    producer: ProducerId,
    offset: i64,
) -> i16 {
    let request = TxnOffsetCommitRequest {
        transactional_id: ID,
        group_id: GROUP,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: TOPIC,
            partitions: vec![TxnOffsetCommitRequestPartition {
                committed_offset: offset,
                ..TxnOffsetCommitRequestPartition::default()
            }],
            ..TxnOffsetCommitRequestTopic::default()
        }],
        ..TxnOffsetCommitRequest::default()
    };
    let done = ask!(client, version, TxnOffsetCommit, request);
    done.topics[0].partitions[0].error_code
}

async fn add_offsets(client: &mut Client, version: i16, producer: ProducerId) -> i16 {
    let request = AddOffsetsToTxnRequest {
        transactional_id: ID,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        group_id: GROUP,
    };
    ask!(client, version, AddOffsetsToTxn, request).error_code
}

/// Waits until the group has committed that.
async fn has_committed(client: &mut Client, topic: Uuid, offset: i64) {
    let patience = Patience::begin();
    loop {
        let now = committed(client, 9, topic, false).await;
        if now.0 == offset {
            return;
        }
        patience.again((now, offset)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_keep_their_epoch_commit_and_abort_in_every_version() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let topic = client.describe("orders").await.topic_id;
    let producer = opened(&mut client, 4).await;
    let mut kept = 0;
    for (round, version) in (0..=4).enumerate() {
        let sequence = i32::try_from(2 * round).unwrap();
        for (nth, commit) in [(0, true), (1, false)] {
            let added = add(&mut client, version.min(3), producer, &[("orders", 0)]).await;
            assert_eq!(added, [0], "version {version}");
            let records = values(&["v"], Some((producer, sequence + nth)));
            let sent = produce(&mut client, 3 + 2 * version, records).await;
            assert_eq!(sent, 0, "version {version}");
            assert_eq!(add_offsets(&mut client, version, producer).await, 0);
            let offset = i64::try_from(2 * round).unwrap() + i64::from(nth);
            let done = commit_offset(&mut client, version, producer, offset).await;
            assert_eq!(done, 0, "version {version}");
            assert_eq!(end(&mut client, version, producer, commit).await, 0);
            // The same again: the answer was lost.
            assert_eq!(end(&mut client, version, producer, commit).await, 0);
            let other = end(&mut client, version, producer, !commit).await;
            assert_eq!(other, ErrorCode::InvalidTxnState.code());
            if commit {
                kept = offset;
            }
        }
        has_committed(&mut client, topic, kept).await;
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_registered_is_refused_and_begins_nothing() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let producer = opened(&mut client, 3).await;
    let records = || values(&["v"], Some((producer, 0)));
    let early = produce(&mut client, 11, records()).await;
    assert_eq!(early, ErrorCode::InvalidTxnState.code());
    // One that there is not, and none is registered.
    let places = [
        ("orders", 0),
        ("orders", 1),
        ("nothing", 0),
        ("__consumer_offsets", 0),
    ];
    let codes = add(&mut client, 3, producer, &places).await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let not_tried = ErrorCode::OperationNotAttempted.code();
    assert_eq!(codes, [not_tried, unknown, unknown, unknown]);
    let still = produce(&mut client, 11, records()).await;
    assert_eq!(still, ErrorCode::InvalidTxnState.code());
    let offsets = commit_offset(&mut client, 3, producer, 0).await;
    assert_eq!(offsets, ErrorCode::InvalidTxnState.code());
    assert_eq!(add(&mut client, 3, producer, &[]).await, [0_i16; 0]);
    // Leaders register the partitions of those who know it.
    assert_eq!(produce(&mut client, 12, records()).await, 0);
    assert_eq!(end(&mut client, 5, producer, false).await, 0);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_is_told_so_in_the_words_of_the_version() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let first = opened(&mut client, 4).await;
    let added = add(&mut client, 3, first, &[("orders", 0)]).await;
    assert_eq!(added, [0]);
    let second = opened(&mut client, 4).await;
    assert!(second.epoch > first.epoch);
    let (old, new) = (ErrorCode::InvalidProducerEpoch, ErrorCode::ProducerFenced);
    for (version, code) in [(1, &old), (2, &new)] {
        let ended = end(&mut client, version, first, true).await;
        assert_eq!(ended, code.code());
        let codes = add(&mut client, version, first, &[("orders", 0)]).await;
        assert_eq!(codes, [code.code()]);
        assert_eq!(add_offsets(&mut client, version, first).await, code.code());
    }
    let late = values(&["late"], Some((first, 0)));
    assert_eq!(produce(&mut client, 11, late).await, old.code());
    // An id that was never this one's is told apart.
    let foreign = ProducerId {
        id: second.id + 77,
        ..second
    };
    let unknown = ErrorCode::InvalidProducerIdMapping.code();
    assert_eq!(end(&mut client, 2, foreign, true).await, unknown);
    let codes = add(&mut client, 3, foreign, &[("orders", 0)]).await;
    assert_eq!(codes, [unknown]);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_found_by_how_long_they_are_open_and_by_a_pattern() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let producer = opened(&mut client, 4).await;
    let wanted = |least: i64, pattern: Option<&'static str>| ListTransactionsRequest {
        duration_filter: least,
        transactional_id_pattern: pattern.map(Text::from_static),
        ..ListTransactionsRequest::default()
    };
    async fn found(client: &mut Client, request: ListTransactionsRequest) -> usize {
        let listed = ask!(client, 2, ListTransactions, request);
        assert_eq!(listed.error_code, 0, "{listed:?}");
        listed.transaction_states.len()
    }
    // Not open yet: there whatever its name is asked for, and for no time.
    assert_eq!(found(&mut client, wanted(-1, None)).await, 1);
    assert_eq!(found(&mut client, wanted(0, None)).await, 0);
    assert_eq!(add(&mut client, 3, producer, &[("orders", 0)]).await, [0]);
    let patience = Patience::begin();
    while found(&mut client, wanted(50, None)).await == 0 {
        patience.again("not open for 50 ms").await;
    }
    assert_eq!(found(&mut client, wanted(3_600_000, None)).await, 0);
    assert_eq!(found(&mut client, wanted(-1, Some("pay.*"))).await, 1);
    assert_eq!(found(&mut client, wanted(50, Some("pay.*"))).await, 1);
    // The whole name is meant.
    assert_eq!(found(&mut client, wanted(-1, Some("pay"))).await, 0);
    let wrong = ask!(client, 2, ListTransactions, wanted(-1, Some("pay(")));
    assert_eq!(wrong.error_code, ErrorCode::InvalidRegularExpression.code());
    bed.stop().await;
}

/// A producer that commits what the coordinator has aborted, and aborts it then as clients do, gets the same answer
/// each time, as from Kafka: its session is over, and a commit of the second kind comes in a wrong state. No answer
/// says that something is to be aborted.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_time_was_over_is_the_end_of_its_session() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let over = ErrorCode::ProducerFenced.code();
    for (ends, produces) in [(4, 11), (5, 12)] {
        let request = InitProducerIdRequest {
            transactional_id: Some(ID),
            transaction_timeout_ms: 100,
            ..InitProducerIdRequest::default()
        };
        let opened = ask!(client, 5, InitProducerId, request);
        assert_eq!(opened.error_code, 0, "{opened:?}");
        let producer = ProducerId {
            id: opened.producer_id,
            epoch: opened.producer_epoch,
        };
        assert_eq!(add(&mut client, 3, producer, &[("orders", 0)]).await, [0]);
        let patience = Patience::begin();
        while add(&mut client, 3, producer, &[("orders", 0)]).await == [0] {
            patience.again("its time is not over").await;
        }
        for commit in [true, false, true] {
            let expected = match commit && ends == 5 {
                true => ErrorCode::InvalidTxnState.code(),
                false => over,
            };
            assert_eq!(end(&mut client, ends, producer, commit).await, expected);
        }
        assert_eq!(add_offsets(&mut client, 4, producer).await, over);
        let late = values(&["late"], Some((producer, 0)));
        assert_eq!(
            produce(&mut client, produces, late).await,
            ErrorCode::InvalidProducerEpoch.code()
        );
    }
    bed.stop().await;
}
