//! Reads, deadlines and calls that end early: what is refused is refused with the code and reason of the
//! schema, and changes nothing.

use prost::Message as _;

use crate::raw_client::{Raw, frame};
use crate::support::{
    Bed, Code, anchor, at, current_end, eventually, from, position, refused, refused_item, request,
    run, shared, span, told, tp, v1,
};

#[test]
fn offset_out_of_range() {
    run(async {
        let rpc = shared().await;
        let name = "i-range";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["a", "b", "c", "d"]).await;
        let trim = |offset| v1::DeleteRecordsRequest {
            deletes: vec![v1::DeleteBefore {
                topic_partition: Some(tp(name, 0)),
                before: Some(v1::delete_before::Before::Offset(offset)),
            }],
        };
        rpc.topics().delete_records(trim(2)).await.unwrap();
        let before = rpc.world(name).await;
        for offset in [0, 1, 5, i64::MAX] {
            let status = refused(
                "fetch",
                rpc.fetch(from(name, 0, offset)).await,
                Code::OutOfRange,
                "OFFSET_OUT_OF_RANGE",
            );
            assert_eq!(told(&status, "log_start_offset").as_deref(), Some("2"));
            assert_eq!(told(&status, "high_watermark").as_deref(), Some("4"));
            let subscribe = v1::SubscribeRequest {
                topic: name.into(),
                start: at(offset),
                ..Default::default()
            };
            let mut events = rpc
                .consumer()
                .subscribe(subscribe)
                .await
                .unwrap()
                .into_inner();
            let closed = events.message().await.unwrap().unwrap().event;
            let Some(v1::subscribe_response::Event::Closed(closed)) = closed else {
                panic!("{closed:?}");
            };
            refused_item(
                "subscribe",
                closed.error.as_ref(),
                Code::OutOfRange,
                "OFFSET_OUT_OF_RANGE",
            );
            refused(
                "end",
                events.message().await,
                Code::OutOfRange,
                "OFFSET_OUT_OF_RANGE",
            );
        }
        for (policy, next) in [
            (v1::OutOfRangePolicy::Earliest, 4),
            (v1::OutOfRangePolicy::Latest, 4),
        ] {
            let request = v1::FetchRequest {
                out_of_range: policy as i32,
                ..from(name, 0, 0)
            };
            let found = rpc.fetch(request).await.unwrap();
            assert_eq!(found.next_offset, next);
            let count = if policy == v1::OutOfRangePolicy::Earliest {
                2
            } else {
                0
            };
            assert_eq!(found.records.len(), count);
        }
        let beyond = rpc
            .topics()
            .delete_records(trim(5))
            .await
            .unwrap()
            .into_inner();
        let Some(v1::delete_records_result::Outcome::Error(error)) = &beyond.results[0].outcome
        else {
            panic!("{beyond:?}");
        };
        refused_item("trim", Some(error), Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
        assert_eq!(rpc.world(name).await, before);
        assert_eq!(
            rpc.fetch(from(name, 0, 4)).await.unwrap().records.len(),
            0,
            "the end is in range"
        );
    });
}

#[test]
fn reads_that_make_no_sense() {
    run(async {
        use v1::start_position::Position as P;
        let rpc = shared().await;
        let name = "i-read";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["a"]).await;
        let ok = || from(name, 0, 0);
        for (what, request) in [
            ("negative offset", from(name, 0, -1)),
            (
                "negative last",
                v1::FetchRequest {
                    start: position(P::Last(-1)),
                    ..ok()
                },
            ),
            (
                "unknown anchor",
                v1::FetchRequest {
                    start: position(P::Anchor(9)),
                    ..ok()
                },
            ),
            (
                "committed without group",
                v1::FetchRequest {
                    start: anchor(v1::StartAnchor::Committed),
                    ..ok()
                },
            ),
            (
                "negative records",
                v1::FetchRequest {
                    max_records: -1,
                    ..ok()
                },
            ),
            (
                "negative bytes",
                v1::FetchRequest {
                    max_bytes: -1,
                    ..ok()
                },
            ),
            (
                "negative least bytes",
                v1::FetchRequest {
                    min_bytes: i64::MIN,
                    ..ok()
                },
            ),
            (
                "negative wait",
                v1::FetchRequest {
                    max_wait: Some(prost_types::Duration {
                        seconds: -1,
                        nanos: 0,
                    }),
                    ..ok()
                },
            ),
            (
                "wait that is no time",
                v1::FetchRequest {
                    max_wait: Some(prost_types::Duration {
                        seconds: 0,
                        nanos: i32::MAX,
                    }),
                    ..ok()
                },
            ),
            (
                "unknown encoding",
                v1::FetchRequest {
                    encoding: 7,
                    ..ok()
                },
            ),
            (
                "unknown policy",
                v1::FetchRequest {
                    out_of_range: -7,
                    ..ok()
                },
            ),
            (
                "negative epoch",
                v1::FetchRequest {
                    leader_epoch: Some(-1),
                    ..ok()
                },
            ),
            (
                "epoch beyond 31 bits",
                v1::FetchRequest {
                    leader_epoch: Some(i64::MAX),
                    ..ok()
                },
            ),
        ] {
            refused(
                what,
                rpc.fetch(request).await,
                Code::InvalidArgument,
                "INVALID_REQUEST",
            );
        }
        let queries = |count: usize| v1::ListOffsetsRequest {
            queries: vec![
                v1::OffsetQuery {
                    isolation: v1::Isolation::Unspecified.into(),
                    with_timestamp: false,
                    topic_partition: Some(tp(name, 0)),
                    position: None
                };
                count
            ],
        };
        for (what, request) in [("no query", queries(0)), ("1001 queries", queries(1001))] {
            let answer = rpc.consumer().list_offsets(request).await;
            refused(what, answer, Code::InvalidArgument, "INVALID_REQUEST");
        }
        let deletes = v1::DeleteRecordsRequest::default();
        let answer = rpc.topics().delete_records(deletes).await;
        refused(
            "no deletes",
            answer,
            Code::InvalidArgument,
            "INVALID_REQUEST",
        );
        // Extremes that mean something.
        for start in [
            P::Last(i64::MAX),
            P::TimestampMs(i64::MIN),
            P::TimestampMs(i64::MAX),
            P::Last(0),
        ] {
            let request = v1::FetchRequest {
                start: position(start),
                max_records: i32::MAX,
                max_bytes: i64::MAX,
                ..ok()
            };
            assert!(rpc.fetch(request).await.is_ok(), "{start:?}");
        }
    });
}

#[test]
fn leader_epochs() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        bed.rpc.create("t", 1).await;
        bed.rpc.put("t", 0, &["a"]).await;
        bed.stop().await;
        bed.resume().await;
        let rpc = bed.rpc.clone();
        let current = rpc.fetch(from("t", 0, 0)).await.unwrap().leader_epoch;
        assert!(current > 0, "a restart begins an epoch");
        let with = |epoch| v1::FetchRequest {
            leader_epoch: Some(epoch),
            ..from("t", 0, 0)
        };
        refused(
            "older",
            rpc.fetch(with(current - 1)).await,
            Code::FailedPrecondition,
            "FENCED_LEADER_EPOCH",
        );
        refused(
            "newer",
            rpc.fetch(with(current + 1)).await,
            Code::Unavailable,
            "UNKNOWN_LEADER_EPOCH",
        );
        assert_eq!(rpc.fetch(with(current)).await.unwrap().records.len(), 1);
        bed.stop().await;
    });
}

#[test]
fn deadline_zero() {
    run(async {
        let rpc = shared().await;
        let name = "i-deadline";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["a"]).await;
        let before = rpc.world(name).await;
        let raw = Raw::connect(rpc.address).await;
        let produce = frame(&request(name, 0, &["x"]).encode_to_vec());
        let path = "/varve.v1.ProducerService/Produce";
        for timeout in ["0m", "0n", "0H"] {
            let answer = raw
                .call(path, &[("grpc-timeout", timeout)], produce.clone())
                .await;
            let status = answer
                .status()
                .unwrap_or_else(|| panic!("no status: {answer:?}"));
            refused(
                timeout,
                Err::<(), _>(status),
                Code::DeadlineExceeded,
                "COMMIT_TIMEOUT",
            );
            assert_eq!(rpc.world(name).await, before, "nothing was appended");
        }
        for bad in ["m", "-1m", "123456789m", "1x"] {
            let answer = raw
                .call(path, &[("grpc-timeout", bad)], produce.clone())
                .await;
            let status = answer
                .status()
                .unwrap_or_else(|| panic!("no status: {answer:?}"));
            refused(
                bad,
                Err::<(), _>(status),
                Code::InvalidArgument,
                "INVALID_REQUEST",
            );
        }
        assert_eq!(rpc.world(name).await, before, "nothing was appended");
        // Reads that cannot wait answer with what is there, or say that the time is over.
        let fetch = frame(
            &v1::FetchRequest {
                max_wait: span(30_000),
                ..from(name, 0, 1)
            }
            .encode_to_vec(),
        );
        let started = std::time::Instant::now();
        let answer = raw
            .call(
                "/varve.v1.ConsumerService/Fetch",
                &[("grpc-timeout", "500m")],
                fetch,
            )
            .await;
        assert_eq!(
            answer.status().unwrap().code(),
            Code::Ok,
            "an empty answer before the deadline"
        );
        assert!(started.elapsed().as_millis() < 5000);
    });
}

#[test]
fn cancelled_calls() {
    run(async {
        let rpc = shared().await;
        let name = "i-cancel";
        rpc.create(name, 1).await;
        let values = vec!["x"; 100];
        for n in 0..40 {
            let (rpc, call) = (rpc.clone(), request(name, 0, &values));
            let call = tokio::spawn(async move { rpc.producer().produce(call).await });
            tokio::time::sleep(std::time::Duration::from_micros(n * 100)).await;
            call.abort();
        }
        // Held calls end when their client goes.
        for _ in 0..10 {
            let held = v1::FetchRequest {
                start: anchor(v1::StartAnchor::Latest),
                max_wait: span(30_000),
                ..from(name, 0, 0)
            };
            let rpc = rpc.clone();
            let call = tokio::spawn(async move { rpc.fetch(held).await });
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            call.abort();
        }
        let last = rpc.put(name, 0, &["last"]).await;
        assert_eq!(
            last % 100,
            0,
            "every cancelled request was appended whole or not at all"
        );
        let all = rpc.values(name, 0).await;
        assert_eq!(all.len() as i64, last + 1);
        assert_eq!(all.last().map(String::as_str), Some("last"));
        let subscribe = v1::SubscribeRequest {
            topic: name.into(),
            end: current_end(),
            ..Default::default()
        };
        let events = rpc.consumer().subscribe(subscribe).await.unwrap();
        drop(events);
        eventually("calls to end", || async {
            rpc.fetch(from(name, 0, 0)).await.is_ok()
        })
        .await;
    });
}
