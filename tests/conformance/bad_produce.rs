//! Produce refuses what it should with the code and reason of the schema, and a refusal appends nothing.

use bytes::Bytes;
use varve_record::{BatchBuilder, Compression};
use varve_types::{ProducerId, Sequence};

use crate::support::{
    Code, Request, Rpc, Status, at, current_end, record, refused, request, run, shared, told, v1,
};

/// A batch as a client sends it.
pub fn batch(
    values: &[&str],
    compression: Compression,
    producer: Option<(i64, i16, i32)>,
) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression, None);
    for value in values {
        builder
            .append(1, Some(b"k"), Some(value.as_bytes()), &[])
            .unwrap();
    }
    if let Some((id, epoch, sequence)) = producer {
        builder.set_producer(ProducerId { id, epoch }, Sequence::new(sequence).unwrap());
    }
    builder.build().unwrap().to_vec()
}

pub fn encoded(topic: &str, data: Vec<u8>) -> v1::ProduceRequest {
    v1::ProduceRequest {
        records: Vec::new(),
        batch: Some(v1::EncodedBatch {
            format: 2,
            data: Bytes::from(data),
        }),
        ..request(topic, 0, &[])
    }
}

/// Sends each request, checks how it is refused, and that afterwards all is as before.
pub async fn all_refused(
    rpc: &Rpc,
    topic: &str,
    rows: Vec<(&str, v1::ProduceRequest, Code, &str)>,
) -> Vec<Status> {
    let before = rpc.world(topic).await;
    let mut statuses = Vec::new();
    for (what, request, code, reason) in rows {
        let answer = rpc.producer().produce(request).await;
        statuses.push(refused(what, answer, code, reason));
        assert_eq!(rpc.world(topic).await, before, "{what}: something changed");
    }
    statuses
}

/// A topic of this test with one record in it.
pub async fn topic(rpc: &Rpc, name: &str, configs: &[(&str, &str)]) {
    rpc.create_with(name, 2, configs).await;
    let first = v1::ProduceRequest {
        records: vec![record(Some("k"), "first")],
        ..request(name, 0, &[])
    };
    rpc.produce(first).await.unwrap();
}

#[test]
fn unknown_topic() {
    run(async {
        let rpc = shared().await;
        topic(&rpc, "p-unknown-orders", &[]).await;
        let rows = vec![
            (
                "unknown topic",
                request("p-unknown-order", 0, &["x"]),
                Code::NotFound,
                "TOPIC_NOT_FOUND",
            ),
            (
                "unknown topic without partition",
                v1::ProduceRequest {
                    partition: None,
                    ..request("p-unknown-x", 0, &["x"])
                },
                Code::NotFound,
                "TOPIC_NOT_FOUND",
            ),
        ];
        all_refused(&rpc, "p-unknown", rows).await;
        let fetch = rpc.fetch(v1::FetchRequest {
            topic: "p-unknown-order".into(),
            ..Default::default()
        });
        refused("fetch", fetch.await, Code::NotFound, "TOPIC_NOT_FOUND");
        let subscribe = v1::SubscribeRequest {
            topic: "p-unknown-order".into(),
            end: current_end(),
            ..Default::default()
        };
        let opened = rpc.consumer().subscribe(subscribe).await;
        refused(
            "subscribe",
            opened.map(|_| ()),
            Code::NotFound,
            "TOPIC_NOT_FOUND",
        );
    });
}

#[test]
fn partition_out_of_range() {
    run(async {
        let rpc = shared().await;
        let name = "p-partition";
        topic(&rpc, name, &[]).await;
        let row = |n| {
            (
                "partition",
                request(name, n, &["x"]),
                Code::NotFound,
                "PARTITION_NOT_FOUND",
            )
        };
        all_refused(&rpc, name, [2, 3, -1, i32::MIN, i32::MAX].map(row).to_vec()).await;
        let mut batch = encoded(name, batch(&["x"], Compression::None, None));
        batch.partition = Some(-1);
        let answer = rpc.producer().produce(batch).await;
        refused("batch", answer, Code::NotFound, "PARTITION_NOT_FOUND");
        for n in [2, -1, i32::MAX] {
            let fetch = v1::FetchRequest {
                partition: n,
                start: at(0),
                topic: name.into(),
                ..Default::default()
            };
            refused(
                "fetch",
                rpc.fetch(fetch).await,
                Code::NotFound,
                "PARTITION_NOT_FOUND",
            );
            let subscribe = v1::SubscribeRequest {
                topic: name.into(),
                partitions: vec![0, n],
                ..Default::default()
            };
            let opened = rpc.consumer().subscribe(subscribe).await.map(|_| ());
            refused("subscribe", opened, Code::NotFound, "PARTITION_NOT_FOUND");
        }
    });
}

#[test]
fn oversized_record() {
    run(async {
        let rpc = shared().await;
        let name = "p-oversized";
        topic(&rpc, name, &[("max.message.bytes", "2048")]).await;
        let (large, half) = ("x".repeat(2049), "x".repeat(1100));
        let rows = vec![
            (
                "record",
                request(name, 0, &[&large]),
                Code::InvalidArgument,
                "RECORD_TOO_LARGE",
            ),
            (
                "last of many",
                request(name, 0, &["a", "b", &large]),
                Code::InvalidArgument,
                "RECORD_TOO_LARGE",
            ),
            (
                "records together",
                request(name, 0, &[&half, &half]),
                Code::InvalidArgument,
                "BATCH_TOO_LARGE",
            ),
            (
                "batch of one record",
                encoded(name, batch(&[&large], Compression::None, None)),
                Code::InvalidArgument,
                "RECORD_TOO_LARGE",
            ),
            (
                "batch",
                encoded(name, batch(&[&half, &half], Compression::None, None)),
                Code::InvalidArgument,
                "BATCH_TOO_LARGE",
            ),
        ];
        let statuses = all_refused(&rpc, name, rows).await;
        assert_eq!(
            told(&statuses[0], "max.message.bytes").as_deref(),
            Some("2048")
        );
        // What fits is taken: the bound is a bound and not an estimate.
        rpc.put(name, 0, &[&"x".repeat(1900)]).await;
    });
}

#[test]
fn too_many_records() {
    run(async {
        let rpc = shared().await;
        let name = "p-many";
        topic(&rpc, name, &[]).await;
        let values = vec!["x"; 10_001];
        let rows = vec![(
            "10,001 records",
            request(name, 0, &values),
            Code::InvalidArgument,
            "BATCH_TOO_LARGE",
        )];
        all_refused(&rpc, name, rows).await;
        assert_eq!(rpc.put(name, 0, &values[..10_000]).await, 1);
    });
}

#[test]
fn requests_that_contradict_themselves() {
    run(async {
        let rpc = shared().await;
        let name = "p-form";
        topic(&rpc, name, &[]).await;
        let one = || request(name, 0, &["x"]);
        let good = || encoded(name, batch(&["x"], Compression::None, None));
        let session = |producer_id, producer_epoch, base_sequence| {
            Some(v1::ProducerSession {
                producer_id,
                producer_epoch,
                base_sequence,
            })
        };
        let with_format = |format| {
            let mut request = good();
            request.batch.as_mut().unwrap().format = format;
            request
        };
        let rows: Vec<(&str, v1::ProduceRequest)> = vec![
            (
                "no topic",
                v1::ProduceRequest {
                    topic: String::new(),
                    ..one()
                },
            ),
            ("neither records nor batch", request(name, 0, &[])),
            (
                "records and batch",
                v1::ProduceRequest {
                    batch: good().batch,
                    ..one()
                },
            ),
            (
                "batch without partition",
                v1::ProduceRequest {
                    partition: None,
                    ..good()
                },
            ),
            (
                "session without partition",
                v1::ProduceRequest {
                    partition: None,
                    session: session(1, 0, 0),
                    ..one()
                },
            ),
            (
                "session with batch",
                v1::ProduceRequest {
                    session: session(1, 0, 0),
                    ..good()
                },
            ),
            (
                "expected offset without partition",
                v1::ProduceRequest {
                    partition: None,
                    expected_offset: Some(1),
                    ..one()
                },
            ),
            (
                "negative expected offset",
                v1::ProduceRequest {
                    expected_offset: Some(-1),
                    ..one()
                },
            ),
            ("unknown acks", v1::ProduceRequest { acks: 9, ..one() }),
            (
                "producer id 0",
                v1::ProduceRequest {
                    session: session(0, 0, 0),
                    ..one()
                },
            ),
            (
                "producer epoch 32768",
                v1::ProduceRequest {
                    session: session(1, 32_768, 0),
                    ..one()
                },
            ),
            (
                "negative sequence",
                v1::ProduceRequest {
                    session: session(1, 0, -1),
                    ..one()
                },
            ),
            ("format 0", with_format(0)),
            ("format 3", with_format(3)),
            ("format -1", with_format(-1)),
        ];
        let rows = rows
            .into_iter()
            .map(|(what, request)| (what, request, Code::InvalidArgument, "INVALID_REQUEST"))
            .collect();
        all_refused(&rpc, name, rows).await;
    });
}

#[test]
fn records_that_break_a_rule() {
    run(async {
        let rpc = shared().await;
        let name = "p-rules";
        topic(&rpc, name, &[]).await;
        let with = |edit: &dyn Fn(&mut v1::Record)| {
            let mut bad = record(Some("k"), "v");
            edit(&mut bad);
            v1::ProduceRequest {
                records: vec![record(Some("k"), "fine"), bad],
                ..request(name, 0, &[])
            }
        };
        let header = |name: &str| v1::Header {
            name: name.to_owned(),
            value: None,
            name_bytes: None,
        };
        let raw = |name: &'static [u8]| v1::Header {
            name_bytes: Some(Bytes::from_static(name)),
            ..header("ignored")
        };
        let rows: Vec<(&str, v1::ProduceRequest)> = vec![
            (
                "header without name",
                with(&|r| r.headers = vec![header("")]),
            ),
            (
                "header whose bytes are no name",
                with(&|r| r.headers = vec![raw(b"")]),
            ),
            (
                "reserved header",
                with(&|r| r.headers = vec![header("varve-x")]),
            ),
            (
                "reserved header in bytes",
                with(&|r| r.headers = vec![raw(b"varve-\xff")]),
            ),
            (
                "time before the epoch",
                with(&|r| r.timestamp_ms = Some(-1)),
            ),
            ("time i64::MIN", with(&|r| r.timestamp_ms = Some(i64::MIN))),
            ("time i64::MAX", with(&|r| r.timestamp_ms = Some(i64::MAX))),
            (
                "time in two hours",
                with(&|r| {
                    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
                    r.timestamp_ms = Some(i64::try_from(now).unwrap() + 7_200_000);
                }),
            ),
        ];
        let rows = rows
            .into_iter()
            .map(|(what, request)| (what, request, Code::InvalidArgument, "INVALID_RECORD"))
            .collect();
        all_refused(&rpc, name, rows).await;
        // Only the bytes of a record are bounded.
        let many = with(&|r| r.headers = vec![header("h"); 1_000]);
        rpc.produce(many).await.unwrap();
        let long = with(&|r| r.headers = vec![header(&"h".repeat(100_000))]);
        rpc.produce(long).await.unwrap();
    });
}

#[test]
fn records_too_old_for_their_topic() {
    run(async {
        let rpc = shared().await;
        let name = "p-old";
        rpc.create_with(name, 1, &[("message.timestamp.before.max.ms", "1000")])
            .await;
        let mut old = request(name, 0, &["x"]);
        old.records[0].timestamp_ms = Some(1);
        let rows = vec![
            ("old record", old, Code::InvalidArgument, "INVALID_RECORD"),
            (
                "old batch",
                encoded(name, batch(&["x"], Compression::None, None)),
                Code::InvalidArgument,
                "INVALID_RECORD",
            ),
        ];
        all_refused(&rpc, name, rows).await;
    });
}

#[test]
fn a_compacted_topic_needs_keys() {
    run(async {
        let rpc = shared().await;
        let name = "p-compacted";
        topic(&rpc, name, &[("cleanup.policy", "compact")]).await;
        let mut builder = BatchBuilder::new(Compression::Zstd, None);
        builder.append(1, Some(b"k"), None, &[]).unwrap();
        builder.append(1, None, Some(b"v"), &[]).unwrap();
        let rows = vec![
            (
                "null key",
                request(name, 0, &["x"]),
                Code::InvalidArgument,
                "INVALID_RECORD",
            ),
            (
                "null key in a packed batch",
                encoded(name, builder.build().unwrap().to_vec()),
                Code::InvalidArgument,
                "INVALID_RECORD",
            ),
        ];
        all_refused(&rpc, name, rows).await;
        // An empty key is a key.
        let empty = v1::ProduceRequest {
            records: vec![record(Some(""), "v")],
            ..request(name, 0, &[])
        };
        rpc.produce(empty).await.unwrap();
    });
}

#[test]
fn compare_and_append() {
    run(async {
        let rpc = shared().await;
        let name = "p-expected";
        topic(&rpc, name, &[]).await;
        let expecting = |offset| v1::ProduceRequest {
            expected_offset: Some(offset),
            ..request(name, 0, &["x"])
        };
        let row = |n| {
            (
                "expected offset",
                expecting(n),
                Code::Aborted,
                "EXPECTED_OFFSET_MISMATCH",
            )
        };
        for status in all_refused(&rpc, name, [0, 2, i64::MAX].map(row).to_vec()).await {
            assert_eq!(told(&status, "actual_offset").as_deref(), Some("1"));
        }
        assert_eq!(
            rpc.produce(expecting(1)).await.unwrap().base_offset,
            Some(1)
        );
    });
}

#[test]
fn producer_sessions() {
    run(async {
        let rpc = shared().await;
        let name = "p-session";
        topic(&rpc, name, &[]).await;
        let init = || v1::InitProducerRequest {
            producer_name: "p-session-billing".to_owned(),
        };
        let session = rpc
            .producer()
            .init_producer(init())
            .await
            .unwrap()
            .into_inner();
        assert!(session.producer_id > 0 && session.idle_expiry.is_some());
        let write = |epoch: i32, sequence: i32| v1::ProduceRequest {
            session: Some(v1::ProducerSession {
                producer_id: session.producer_id,
                producer_epoch: epoch,
                base_sequence: sequence,
            }),
            ..request(name, 0, &["a", "b"])
        };
        let epoch = session.producer_epoch;
        let first = rpc.produce(write(epoch, 0)).await.unwrap();
        let again = rpc.produce(write(epoch, 0)).await.unwrap();
        assert!(!first.deduplicated && again.deduplicated);
        assert_eq!(first.base_offset, again.base_offset);
        let gap = (
            "gap",
            write(epoch, 5),
            Code::FailedPrecondition,
            "OUT_OF_ORDER_SEQUENCE",
        );
        let status = all_refused(&rpc, name, vec![gap]).await.remove(0);
        assert_eq!(told(&status, "expected_sequence").as_deref(), Some("2"));

        let newer = rpc
            .producer()
            .init_producer(init())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (newer.producer_id, newer.producer_epoch),
            (session.producer_id, epoch + 1)
        );
        rpc.produce(write(epoch + 1, 0)).await.unwrap();
        let fenced = (
            "fenced",
            write(epoch, 2),
            Code::FailedPrecondition,
            "PRODUCER_FENCED",
        );
        all_refused(&rpc, name, vec![fenced]).await;
        let mut packed = encoded(
            name,
            batch(&["x"], Compression::Lz4, Some((session.producer_id, 0, 2))),
        );
        packed.batch.as_mut().unwrap().format = 2;
        let fenced = (
            "fenced batch",
            packed,
            Code::FailedPrecondition,
            "PRODUCER_FENCED",
        );
        all_refused(&rpc, name, vec![fenced]).await;
        assert_eq!(rpc.values(name, 0).await, ["first", "a", "b", "a", "b"]);
    });
}

#[test]
fn producer_names() {
    run(async {
        let rpc = shared().await;
        for bad in ["a/b", "..", "a\0b", &"x".repeat(250)] {
            let request = v1::InitProducerRequest {
                producer_name: bad.to_owned(),
            };
            let answer = rpc.producer().init_producer(request).await;
            refused(bad, answer, Code::InvalidArgument, "INVALID_REQUEST");
        }
    });
}

#[test]
fn features_that_the_node_lacks() {
    run(async {
        let rpc = shared().await;
        let name = "p-feature";
        topic(&rpc, name, &[]).await;
        let before = rpc.world(name).await;
        let mut call = Request::new(request(name, 0, &["x"]));
        call.metadata_mut()
            .insert("varve-required-features", "teleport".parse().unwrap());
        let answer = rpc.producer().produce(call).await;
        let status = refused(
            "feature",
            answer,
            Code::Unimplemented,
            "UNSUPPORTED_FEATURE",
        );
        assert_eq!(told(&status, "feature").as_deref(), Some("teleport"));
        for (key, bad) in [("varve-forward", "often"), ("varve-hop", "-1")] {
            let mut call = Request::new(request(name, 0, &["x"]));
            call.metadata_mut().insert(key, bad.parse().unwrap());
            let answer = rpc.producer().produce(call).await;
            refused(key, answer, Code::InvalidArgument, "INVALID_REQUEST");
        }
        assert_eq!(rpc.world(name).await, before);
    });
}
