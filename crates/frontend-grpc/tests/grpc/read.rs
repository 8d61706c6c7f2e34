//! Fetch and ListOffsets.

use std::time::Duration;

use tonic::{Code, Request};
use varve_proto::v1;
use varve_proto::v1::offset_result::Outcome;
use varve_proto::v1::start_position::Position;

use crate::{Harness, assert_fails, batch, encoded, soon, start, tp};

fn fetch(topic: &str) -> v1::FetchRequest {
    v1::FetchRequest {
        topic: topic.to_owned(),
        ..Default::default()
    }
}

fn values(records: &[v1::ConsumedRecord]) -> Vec<&[u8]> {
    records
        .iter()
        .map(|r| r.value.as_deref().unwrap())
        .collect()
}

#[tokio::test]
async fn a_fetch_begins_where_it_is_told_and_keeps_its_bounds() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.append("orders", 0, &["a", "b", "c"]).await;
    h.append("orders", 0, &["d"]).await;
    type Row = (Option<Position>, i32, Vec<&'static [u8]>, i64);
    let rows: Vec<Row> = vec![
        (None, 0, vec![b"a", b"b", b"c", b"d"], 4),
        (Some(Position::Offset(1)), 0, vec![b"b", b"c", b"d"], 4),
        (Some(Position::Offset(1)), 1, vec![b"b"], 2),
        (Some(Position::Offset(4)), 0, vec![], 4),
        (Some(Position::Last(2)), 0, vec![b"c", b"d"], 4),
        (
            Some(Position::Anchor(v1::StartAnchor::Latest as i32)),
            0,
            vec![],
            4,
        ),
        (Some(Position::TimestampMs(0)), 2, vec![b"a", b"b"], 2),
        (Some(Position::TimestampMs(i64::MAX)), 0, vec![], 4),
    ];
    for (position, max_records, expected, next) in rows {
        let request = v1::FetchRequest {
            start: position.map(|p| start(p).unwrap()),
            max_records,
            ..fetch("orders")
        };
        let read = h.consumer().fetch(request).await.unwrap().into_inner();
        assert_eq!(values(&read.records), expected, "{position:?}");
        assert_eq!(
            (read.next_offset, read.high_watermark),
            (next, 4),
            "{position:?}"
        );
    }
}

#[tokio::test]
async fn bad_fetches_are_refused_with_their_reason() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.append("orders", 0, &["a"]).await;
    let at = |n| start(Position::Offset(n));
    let anchor = |n| start(Position::Anchor(n));
    let rows = vec![
        (fetch("nope"), Code::NotFound, "TOPIC_NOT_FOUND"),
        (fetch(""), Code::InvalidArgument, "INVALID_REQUEST"),
        (fetch(".."), Code::InvalidArgument, "INVALID_REQUEST"),
        (fetch("a/b"), Code::InvalidArgument, "INVALID_REQUEST"),
        (
            fetch(&"x".repeat(250)),
            Code::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            v1::FetchRequest {
                partition: 1,
                ..fetch("orders")
            },
            Code::NotFound,
            "PARTITION_NOT_FOUND",
        ),
        (
            v1::FetchRequest {
                partition: -1,
                ..fetch("orders")
            },
            Code::NotFound,
            "PARTITION_NOT_FOUND",
        ),
        (
            v1::FetchRequest {
                start: at(2),
                ..fetch("orders")
            },
            Code::OutOfRange,
            "OFFSET_OUT_OF_RANGE",
        ),
        (
            v1::FetchRequest {
                start: at(i64::MAX),
                ..fetch("orders")
            },
            Code::OutOfRange,
            "OFFSET_OUT_OF_RANGE",
        ),
        (
            v1::FetchRequest {
                start: at(-1),
                ..fetch("orders")
            },
            Code::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            v1::FetchRequest {
                start: anchor(3),
                ..fetch("orders")
            },
            Code::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            v1::FetchRequest {
                start: anchor(77),
                ..fetch("orders")
            },
            Code::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            v1::FetchRequest {
                max_bytes: -5,
                ..fetch("orders")
            },
            Code::InvalidArgument,
            "INVALID_REQUEST",
        ),
        (
            v1::FetchRequest {
                leader_epoch: Some(-5),
                ..fetch("orders")
            },
            Code::InvalidArgument,
            "INVALID_REQUEST",
        ),
    ];
    for (request, code, why) in rows {
        assert_fails(soon(h.consumer().fetch(request)).await, code, why);
    }
    let internal = h.consumer().fetch(fetch("__consumer_offsets")).await;
    assert_fails(internal, Code::NotFound, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn a_start_outside_the_log_follows_the_policy() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    for value in ["a", "b", "c"] {
        h.append("orders", 0, &[value]).await;
    }
    h.broker.drop_before("orders", 0, 1);
    for (policy, next, count) in [
        (v1::OutOfRangePolicy::Earliest, 3, 2),
        (v1::OutOfRangePolicy::Latest, 3, 0),
    ] {
        let request = v1::FetchRequest {
            start: start(Position::Offset(99)),
            out_of_range: policy as i32,
            ..fetch("orders")
        };
        let read = h.consumer().fetch(request).await.unwrap().into_inner();
        assert_eq!(
            (read.next_offset, read.records.len(), read.log_start_offset),
            (next, count, 1)
        );
    }
}

#[tokio::test]
async fn a_long_poll_wakes_with_the_first_record_and_ends_before_its_deadline() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let wait = Some(prost_types::Duration {
        seconds: 15,
        nanos: 0,
    });
    let request = v1::FetchRequest {
        max_wait: wait,
        ..fetch("orders")
    };
    let mut consumer = h.consumer();
    let polled = tokio::spawn(async move { consumer.fetch(request).await });
    h.append("orders", 0, &["x"]).await;
    let read = soon(polled).await.unwrap().unwrap().into_inner();
    assert_eq!(values(&read.records), [b"x"]);
    let mut request = Request::new(v1::FetchRequest {
        max_wait: wait,
        start: start(Position::Offset(1)),
        ..fetch("orders")
    });
    request.set_timeout(Duration::from_secs(3));
    let read = h
        .consumer()
        .fetch(request)
        .await
        .expect("an empty answer is no error")
        .into_inner();
    assert_eq!((read.records.len(), read.next_offset), (0, 1));
}

#[tokio::test]
async fn batches_come_back_byte_for_byte() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let sent = batch(&[b"one", b"two"]);
    for _ in 0..2 {
        let request = v1::ProduceRequest {
            topic: "orders".to_owned(),
            partition: Some(0),
            batch: encoded(sent.clone()),
            ..Default::default()
        };
        h.producer().produce(request).await.unwrap();
    }
    let request = v1::FetchRequest {
        encoding: v1::ReadEncoding::Batches as i32,
        start: start(Position::Offset(1)),
        ..fetch("orders")
    };
    let read = h.consumer().fetch(request).await.unwrap().into_inner();
    assert_eq!(
        (read.batches.len(), read.batches[0].format, read.next_offset),
        (1, 2, 4)
    );
    let data = &read.batches[0].data;
    assert_eq!(data.len(), 2 * sent.len());
    // Base offset and leader epoch are the server's; the rest is as it was sent.
    assert_eq!(data[16..sent.len()], sent[16..]);
    assert_eq!(data[sent.len() + 16..], sent[16..]);
}

#[tokio::test]
async fn offsets_are_listed_per_query() {
    let h = Harness::start().await;
    h.broker.topic("orders", 2);
    h.append("orders", 0, &["a", "b"]).await;
    let query = |p, position: Option<Position>| v1::OffsetQuery {
        isolation: 0,
        with_timestamp: false,
        topic_partition: tp("orders", p),
        position: position.map(|p| start(p).unwrap()),
    };
    let queries = vec![
        query(0, None),
        query(0, Some(Position::Last(1))),
        query(0, Some(Position::TimestampMs(5))),
        query(7, None),
    ];
    let request = v1::ListOffsetsRequest { queries };
    let results = h
        .consumer()
        .list_offsets(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let offsets = |n: usize| match &results[n].outcome {
        Some(Outcome::Offsets(offsets)) => *offsets,
        other => panic!("query {n}: {other:?}"),
    };
    assert_eq!((offsets(0).offset, offsets(0).high_watermark), (None, 2));
    assert_eq!(offsets(1).offset, Some(1));
    assert_eq!(
        (offsets(2).offset, offsets(2).timestamp_ms),
        (Some(0), Some(1_700_000_000_123))
    );
    let Some(Outcome::Error(error)) = &results[3].outcome else {
        panic!("partition 7 must fail")
    };
    assert_eq!(error.reason, v1::ErrorReason::PartitionNotFound as i32);
    for bad in [
        v1::ListOffsetsRequest::default(),
        v1::ListOffsetsRequest {
            queries: vec![v1::OffsetQuery::default()],
        },
        v1::ListOffsetsRequest {
            queries: vec![query(0, None); 1001],
        },
    ] {
        let answer = h.consumer().list_offsets(bad).await;
        assert_fails(answer, Code::InvalidArgument, "INVALID_REQUEST");
    }
}
