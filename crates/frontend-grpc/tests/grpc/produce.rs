//! Produce and ProduceStream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Streaming};
use varve_frontend_grpc::Metrics;
use varve_frontend_grpc::services::producer::Producer;
use varve_frontend_grpc::shared::Shared;
use varve_proto::v1;
use varve_proto::v1::partition_produce_result::Outcome;
use varve_proto::v1::produce_stream_response::Event;
use varve_proto::v1::producer_service_server::ProducerService;
use varve_types::{ErrorKind, limits};

use crate::fake::Fake;
use crate::{Harness, assert_fails, batch, encoded, record, soon};

fn request(topic: &str, records: Vec<v1::Record>) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: topic.to_owned(),
        records,
        ..Default::default()
    }
}

fn appended(result: &v1::PartitionProduceResult) -> &v1::Appended {
    match &result.outcome {
        Some(Outcome::Appended(appended)) => appended,
        other => panic!("not appended: {other:?}"),
    }
}

#[tokio::test]
async fn what_was_produced_is_fetched() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let full = v1::Record {
        key: Some(Bytes::new()),
        value: None,
        headers: vec![
            v1::Header {
                name: "a".to_owned(),
                value: Some(Bytes::from_static(b"1")),
                name_bytes: None,
            },
            v1::Header {
                name: "a".to_owned(),
                ..v1::Header::default()
            },
        ],
        timestamp_ms: Some(77),
    };
    let answer = h
        .producer()
        .produce(request("orders", vec![full.clone(), record(None, "v")]))
        .await;
    let answer = answer.unwrap();
    assert_eq!(answer.metadata().get("varve-node").unwrap(), "1");
    let results = answer.into_inner().results;
    assert_eq!((results.len(), results[0].record_indexes.len()), (1, 0));
    let done = appended(&results[0]);
    assert_eq!(
        (done.base_offset, done.record_count, done.replicas),
        (Some(0), 2, 1)
    );
    let fetch = v1::FetchRequest {
        topic: "orders".to_owned(),
        ..Default::default()
    };
    let read = h.consumer().fetch(fetch).await.unwrap().into_inner();
    assert_eq!(
        (read.next_offset, read.high_watermark, read.records.len()),
        (2, 2, 2)
    );
    let first = &read.records[0];
    assert_eq!((first.offset, first.timestamp_ms), (0, 77));
    assert_eq!(
        (&first.key, &first.value, &first.headers),
        (&full.key, &full.value, &full.headers)
    );
    assert_eq!(
        read.records[1].timestamp_ms, 1_700_000_000_123,
        "the broker's clock"
    );
}

#[tokio::test]
async fn a_session_reaches_the_batch_header() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let opened = h
        .producer()
        .init_producer(v1::InitProducerRequest::default())
        .await
        .unwrap();
    let opened = opened.into_inner();
    let session = v1::ProducerSession {
        producer_id: opened.producer_id,
        producer_epoch: opened.producer_epoch,
        base_sequence: 9,
    };
    let with = v1::ProduceRequest {
        partition: Some(0),
        session: Some(session),
        ..request("orders", vec![record(None, "v")])
    };
    h.producer().produce(with).await.unwrap();
    let fetch = v1::FetchRequest {
        topic: "orders".to_owned(),
        encoding: v1::ReadEncoding::Batches as i32,
        ..Default::default()
    };
    let read = h.consumer().fetch(fetch).await.unwrap().into_inner();
    let header = varve_record::BatchHeader::parse(&read.batches[0].data).unwrap();
    assert_eq!(
        (header.producer_id, header.base_sequence),
        (opened.producer_id, 9)
    );
}

#[tokio::test]
async fn keyed_records_spread_and_say_where_they_went() {
    let h = Harness::start().await;
    h.broker.topic("orders", 8);
    let keys: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    let records = keys.iter().map(|k| record(Some(k), k)).collect();
    let results = h
        .producer()
        .produce(request("orders", records))
        .await
        .unwrap()
        .into_inner()
        .results;
    assert!(results.len() > 1);
    assert!(results.windows(2).all(|w| w[0].partition < w[1].partition));
    let mut seen = 0;
    for result in &results {
        for index in &result.record_indexes {
            let key = keys[usize::try_from(*index).unwrap()].as_bytes();
            let place = varve_types::partitioner::partition_for_key(key, 8);
            assert_eq!(place.0, result.partition);
            seen += 1;
        }
    }
    assert_eq!(seen, 40);
}

#[tokio::test]
async fn records_without_key_take_turns_by_request() {
    let h = Harness::start().await;
    h.broker.topic("orders", 3);
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let rows = vec![record(None, "a"), record(None, "b")];
        let results = h
            .producer()
            .produce(request("orders", rows))
            .await
            .unwrap()
            .into_inner()
            .results;
        assert_eq!(results.len(), 1);
        used.insert(results[0].partition);
    }
    assert_eq!(used.len(), 3);
}

#[tokio::test]
async fn bad_requests_are_refused_with_their_reason_and_change_nothing() {
    use Code as C;
    let h = Harness::start().await;
    h.broker.topic("orders", 2);
    let one = || vec![record(None, "v")];
    let to = |partition, records| v1::ProduceRequest {
        partition: Some(partition),
        ..request("orders", records)
    };
    let with_batch = |format, data: Vec<u8>| v1::ProduceRequest {
        batch: Some(v1::EncodedBatch {
            format,
            data: data.into(),
        }),
        ..to(0, Vec::new())
    };
    let good = batch(&[b"x"]);
    let broken = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let big = v1::Record {
        value: Some(Bytes::from(vec![7; 1_048_577])),
        ..Default::default()
    };
    let rows: Vec<(&str, v1::ProduceRequest, Code, &str)> = vec![
        (
            "unknown topic",
            request("nope", one()),
            C::NotFound,
            "TOPIC_NOT_FOUND",
        ),
        (
            "empty name",
            request("", one()),
            C::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            "dots",
            request("..", one()),
            C::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            "long name",
            request(&"x".repeat(250), one()),
            C::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            "slash",
            request("a/b", one()),
            C::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            "nul",
            request("a\0b", one()),
            C::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            "internal",
            request("__varve_x", one()),
            C::FailedPrecondition,
            "POLICY_VIOLATION",
        ),
        (
            "partition -1",
            to(-1, one()),
            C::NotFound,
            "PARTITION_NOT_FOUND",
        ),
        (
            "partition 2",
            to(2, one()),
            C::NotFound,
            "PARTITION_NOT_FOUND",
        ),
        (
            "partition max",
            to(i32::MAX, one()),
            C::NotFound,
            "PARTITION_NOT_FOUND",
        ),
        (
            "nothing",
            to(0, Vec::new()),
            C::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            "empty message",
            v1::ProduceRequest::default(),
            C::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            "acks",
            v1::ProduceRequest {
                acks: 9,
                ..to(0, one())
            },
            C::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            "too many",
            to(0, vec![record(None, ""); 10_001]),
            C::InvalidArgument,
            "BATCH_TOO_LARGE",
        ),
        (
            "too large",
            to(0, vec![big]),
            C::InvalidArgument,
            "RECORD_TOO_LARGE",
        ),
        (
            "format",
            with_batch(1, good.to_vec()),
            C::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            "magic",
            with_batch(2, broken(16)),
            C::InvalidArgument,
            "CORRUPT_BATCH",
        ),
        (
            "crc",
            with_batch(2, broken(17)),
            C::InvalidArgument,
            "CORRUPT_BATCH",
        ),
        (
            "payload",
            with_batch(2, broken(good.len() - 2)),
            C::InvalidArgument,
            "CORRUPT_BATCH",
        ),
        (
            "count",
            with_batch(2, broken(60)),
            C::InvalidArgument,
            "CORRUPT_BATCH",
        ),
        (
            "cut",
            with_batch(2, good[..40].to_vec()),
            C::InvalidArgument,
            "CORRUPT_BATCH",
        ),
        (
            "empty batch",
            with_batch(2, Vec::new()),
            C::InvalidArgument,
            "CORRUPT_BATCH",
        ),
        (
            "huge batch",
            with_batch(2, vec![2; limits::BUILT_BATCH_MAX_BYTES + 1]),
            C::InvalidArgument,
            "BATCH_TOO_LARGE",
        ),
        (
            "expected",
            v1::ProduceRequest {
                expected_offset: Some(5),
                ..to(0, one())
            },
            C::Aborted,
            "EXPECTED_OFFSET_MISMATCH",
        ),
    ];
    for (what, request, code, why) in rows {
        let answer = soon(h.producer().produce(request)).await;
        println!("{what}");
        assert_fails(answer, code, why);
    }
    // A request beyond the limit is refused before it is read; the connection stays usable.
    let huge = with_batch(2, vec![0; limits::REQUEST_MAX_BYTES + 1]);
    let answer = soon(h.producer().produce(huge)).await;
    assert_fails(answer, Code::InvalidArgument, "INVALID_REQUEST");
    assert_eq!(h.broker.total("orders"), 0);
    h.append("orders", 0, &["still here"]).await;
    assert_eq!(h.broker.total("orders"), 1);
}

#[tokio::test]
async fn a_deadline_that_has_passed_appends_nothing() {
    let broker = Fake::new();
    broker.topic("orders", 1);
    let shared = Shared::new(
        Arc::clone(&broker),
        Metrics::default(),
        CancellationToken::new(),
        Duration::from_secs(1),
        varve_broker_api::UnreadBudget::new(1 << 20),
    );
    let mut call = Request::new(request("orders", vec![record(None, "v")]));
    call.metadata_mut()
        .insert("grpc-timeout", "0m".parse().unwrap());
    let answer = Producer(Arc::new(shared)).produce(call).await;
    assert_fails(answer, Code::DeadlineExceeded, "COMMIT_TIMEOUT");
    assert_eq!(broker.total("orders"), 0);
}

#[tokio::test]
async fn an_unacknowledged_append_is_a_commit_timeout_before_the_deadline() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.broker.hold_receipts(true);
    let mut call = Request::new(request("orders", vec![record(None, "v")]));
    call.set_timeout(Duration::from_secs(2));
    let answer = soon(h.producer().produce(call)).await;
    assert_fails(answer, Code::DeadlineExceeded, "COMMIT_TIMEOUT");
    assert_eq!(
        h.broker.total("orders"),
        1,
        "the append is there all the same"
    );
}

#[tokio::test]
async fn partial_failures_are_told_apart_and_whole_ones_fail_the_call() {
    let h = Harness::start().await;
    h.broker.topic("orders", 2);
    h.broker.fail("orders", 0, ErrorKind::NotEnoughReplicas);
    let both = || {
        (0..20)
            .map(|n| record(Some(&format!("k{n}")), "v"))
            .collect::<Vec<_>>()
    };
    let results = h
        .producer()
        .produce(request("orders", both()))
        .await
        .unwrap()
        .into_inner()
        .results;
    let Some(Outcome::Error(error)) = &results[0].outcome else {
        panic!("partition 0 must fail")
    };
    assert_eq!(error.reason, v1::ErrorReason::NotEnoughReplicas as i32);
    assert!(error.retryable);
    assert!(appended(&results[1]).record_count > 0);
    h.broker.fail("orders", 1, ErrorKind::NotEnoughReplicas);
    let answer = h.producer().produce(request("orders", both())).await;
    assert_fails(answer, Code::Unavailable, "NOT_ENOUGH_REPLICAS");
    h.broker.fail("orders", 1, ErrorKind::StorageFull);
    assert_eq!(
        h.producer()
            .produce(request("orders", both()))
            .await
            .unwrap()
            .into_inner()
            .results
            .len(),
        2
    );
}

/// A stream with its sending end.
struct Pipe {
    tx: Option<mpsc::Sender<v1::ProduceStreamRequest>>,
    rx: Streaming<v1::ProduceStreamResponse>,
}

impl Pipe {
    async fn open(h: &Harness) -> Self {
        let (tx, requests) = mpsc::channel(256);
        let rx = h
            .producer()
            .produce_stream(ReceiverStream::new(requests))
            .await
            .unwrap()
            .into_inner();
        Self { tx: Some(tx), rx }
    }

    async fn send(&self, request_id: i64, request: v1::ProduceRequest) {
        let message = v1::ProduceStreamRequest {
            request_id,
            request: Some(request),
        };
        self.tx.as_ref().unwrap().send(message).await.unwrap();
    }

    async fn event(&mut self) -> Event {
        soon(self.rx.message())
            .await
            .unwrap()
            .unwrap()
            .event
            .unwrap()
    }

    async fn result(&mut self) -> (i64, Outcome) {
        match self.event().await {
            Event::Result(r) => (r.request_id, r.result.unwrap().outcome.unwrap()),
            other => panic!("not a result: {other:?}"),
        }
    }
}

fn to(partition: i32, value: &[u8]) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(partition),
        batch: encoded(batch(&[value])),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_produce_stream_keeps_order_and_outlives_bad_requests() {
    let h = Harness::start().await;
    h.broker.topic("orders", 2);
    let mut pipe = Pipe::open(&h).await;
    let Event::Limits(limits) = pipe.event().await else {
        panic!("limits come first")
    };
    assert_eq!(limits.max_in_flight_requests, 64);
    for n in 0..20 {
        pipe.send(n, to(0, b"v")).await;
    }
    pipe.send(
        20,
        v1::ProduceRequest {
            partition: None,
            ..to(0, b"v")
        },
    )
    .await;
    pipe.send(21, to(7, b"v")).await;
    pipe.send(
        22,
        v1::ProduceRequest {
            batch: encoded(Bytes::from_static(b"junk")),
            ..to(0, b"")
        },
    )
    .await;
    pipe.send(23, to(1, b"w")).await;
    let mut reasons = std::collections::BTreeMap::new();
    let mut offsets = Vec::new();
    for _ in 0..24 {
        match pipe.result().await {
            (id, Outcome::Error(error)) => drop(reasons.insert(id, error.reason)),
            (23, Outcome::Appended(done)) => assert_eq!(done.base_offset, Some(0)),
            (id, Outcome::Appended(done)) => offsets.push((id, done.base_offset.unwrap())),
        }
    }
    offsets.sort_unstable();
    assert!(
        offsets.iter().all(|(id, offset)| id == offset),
        "appended in the order sent: {offsets:?}"
    );
    let expected = [
        (20, v1::ErrorReason::InvalidRequest as i32),
        (21, v1::ErrorReason::PartitionNotFound as i32),
        (22, v1::ErrorReason::CorruptBatch as i32),
    ];
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), expected);
    pipe.tx = None;
    assert!(
        soon(pipe.rx.message()).await.unwrap().is_none(),
        "half-close ends with OK"
    );
}

#[tokio::test]
async fn requests_are_accepted_while_receipts_wait_and_all_are_answered_after_half_close() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.broker.hold_receipts(true);
    let mut pipe = Pipe::open(&h).await;
    assert!(matches!(pipe.event().await, Event::Limits(_)));
    for n in 0..64 {
        pipe.send(n, to(0, b"v")).await;
    }
    pipe.tx = None;
    soon(async {
        while h.broker.total("orders") < 64 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    h.broker.hold_receipts(false);
    let mut ids = Vec::new();
    for _ in 0..64 {
        ids.push(pipe.result().await.0);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..64).collect::<Vec<_>>());
    assert!(soon(pipe.rx.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_client_beyond_its_limits_is_cut_off() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.broker.hold_receipts(true);
    let mut pipe = Pipe::open(&h).await;
    assert!(matches!(pipe.event().await, Event::Limits(_)));
    for n in 0..65 {
        pipe.send(n, to(0, b"v")).await;
    }
    let end = soon(pipe.rx.message()).await;
    assert_fails(end, Code::ResourceExhausted, "FLOW_CONTROL");
    assert_eq!(h.broker.total("orders"), 64);
    soon(async {
        while h.metrics.open_streams("ProduceStream") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
