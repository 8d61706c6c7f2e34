//! Produce over several partitions, ProduceStream and Subscribe: order, limits, ends, and what cancelling leaves
//! behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use v1::produce_stream_response::Event as P;
use v1::subscribe_response::Event as S;

use crate::support::{
    Code, Rpc, anchor, at, current_end, record, refused, refused_item, request, run, shared, soon,
    v1, value,
};

type Results = Streaming<v1::ProduceStreamResponse>;

/// A stream that is written to by hand.
struct Writer {
    requests: Option<mpsc::Sender<v1::ProduceStreamRequest>>,
    results: Results,
}

impl Writer {
    async fn open(rpc: &Rpc) -> Self {
        let (requests, receiver) = mpsc::channel(4096);
        let mut client = rpc.producer();
        let opened = client.produce_stream(ReceiverStream::new(receiver));
        let results = soon("the stream to open", opened)
            .await
            .unwrap()
            .into_inner();
        Self {
            requests: Some(requests),
            results,
        }
    }

    async fn send(&self, request_id: i64, request: v1::ProduceRequest) {
        let message = v1::ProduceStreamRequest {
            request_id,
            request: Some(request),
        };
        self.requests.as_ref().unwrap().send(message).await.unwrap();
    }

    async fn next(&mut self) -> Option<P> {
        let next = soon("an event", self.results.message()).await;
        next.unwrap().map(|m| m.event.unwrap())
    }

    async fn result(&mut self) -> (i64, v1::partition_produce_result::Outcome) {
        match self.next().await {
            Some(P::Result(result)) => (result.request_id, result.result.unwrap().outcome.unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn limits_come_first_and_results_keep_the_order_of_a_partition() {
    run(async {
        let rpc = shared().await;
        let name = "s-order";
        rpc.create(name, 2).await;
        let mut writer = Writer::open(&rpc).await;
        let Some(P::Limits(limits)) = writer.next().await else {
            panic!("the first event is limits");
        };
        assert!(limits.max_in_flight_requests >= 1 && limits.max_in_flight_bytes >= 1 << 20);
        let window = i64::from(limits.max_in_flight_requests);
        let mut next = [0, 0];
        let mut sent = 0;
        let mut answered = 0;
        while answered < 300 {
            while sent < 300 && sent - answered < window {
                let partition = i32::try_from(sent % 2).unwrap();
                writer
                    .send(sent, request(name, partition, &[&sent.to_string()]))
                    .await;
                sent += 1;
            }
            let (id, outcome) = writer.result().await;
            let v1::partition_produce_result::Outcome::Appended(appended) = outcome else {
                panic!("{outcome:?}");
            };
            let partition = usize::try_from(id % 2).unwrap();
            assert_eq!(
                appended.base_offset,
                Some(next[partition]),
                "request {id} is out of order"
            );
            next[partition] += 1;
            answered += 1;
        }
        for partition in 0..2_i64 {
            let expected: Vec<_> = (0..150).map(|n| (2 * n + partition).to_string()).collect();
            assert_eq!(
                rpc.values(name, i32::try_from(partition).unwrap()).await,
                expected
            );
        }
    });
}

#[test]
fn a_failed_request_does_not_end_the_stream_and_half_close_answers_all() {
    run(async {
        use v1::partition_produce_result::Outcome as O;
        let rpc = shared().await;
        let name = "s-half";
        rpc.create(name, 1).await;
        let mut writer = Writer::open(&rpc).await;
        writer.next().await;
        writer.send(1, request(name, 0, &["a"])).await;
        writer.send(2, request("s-half-none", 0, &["x"])).await;
        writer.send(3, request(name, 9, &["x"])).await;
        writer
            .send(
                4,
                v1::ProduceRequest {
                    partition: None,
                    ..request(name, 0, &["x"])
                },
            )
            .await;
        let nothing = v1::ProduceStreamRequest {
            request_id: 5,
            request: None,
        };
        writer
            .requests
            .as_ref()
            .unwrap()
            .send(nothing)
            .await
            .unwrap();
        writer.send(6, request(name, 0, &["b"])).await;
        writer.requests = None;
        let mut results = BTreeMap::new();
        while let Some(P::Result(result)) = writer.next().await {
            results.insert(result.request_id, result.result.unwrap().outcome.unwrap());
        }
        assert_eq!(
            results.len(),
            6,
            "half-closing answers all that was sent: {results:?}"
        );
        for (id, code, reason) in [
            (2, Code::NotFound, "TOPIC_NOT_FOUND"),
            (3, Code::NotFound, "PARTITION_NOT_FOUND"),
            (4, Code::InvalidArgument, "INVALID_REQUEST"),
            (5, Code::InvalidArgument, "INVALID_REQUEST"),
        ] {
            let Some(O::Error(error)) = results.get(&id) else {
                panic!("{id}: {results:?}");
            };
            refused_item("request", Some(error), code, reason);
        }
        assert_eq!(rpc.values(name, 0).await, ["a", "b"]);
    });
}

/// With a session the batches behind a gap fail until the gap is sent again.
#[test]
fn a_session_on_a_stream_stops_at_a_gap() {
    run(async {
        use v1::partition_produce_result::Outcome as O;
        let rpc = shared().await;
        let name = "s-session";
        rpc.create(name, 1).await;
        let session = rpc
            .producer()
            .init_producer(v1::InitProducerRequest::default())
            .await;
        let session = session.unwrap().into_inner();
        let write = |sequence| v1::ProduceRequest {
            session: Some(v1::ProducerSession {
                producer_id: session.producer_id,
                producer_epoch: session.producer_epoch,
                base_sequence: sequence,
            }),
            ..request(name, 0, &[&sequence.to_string()])
        };
        let mut writer = Writer::open(&rpc).await;
        writer.next().await;
        for (id, sequence) in [(0, 0), (1, 2), (2, 3), (3, 1), (4, 2), (5, 3)] {
            writer.send(id, write(sequence)).await;
        }
        writer.requests = None;
        let mut failed = Vec::new();
        while let Some(P::Result(result)) = writer.next().await {
            if let Some(O::Error(error)) = result.result.unwrap().outcome {
                refused_item(
                    "gap",
                    Some(&error),
                    Code::FailedPrecondition,
                    "OUT_OF_ORDER_SEQUENCE",
                );
                failed.push(result.request_id);
            }
        }
        assert_eq!(failed, [1, 2]);
        assert_eq!(rpc.values(name, 0).await, ["0", "1", "2", "3"]);
    });
}

#[test]
fn more_in_flight_than_allowed_ends_the_stream() {
    run(async {
        let rpc = shared().await;
        let name = "s-breach";
        rpc.create(name, 1).await;
        // A flood cannot always outrun the answers; it does so sooner or later.
        for _ in 0..50 {
            let flood: Vec<_> = (0..2000)
                .map(|n| v1::ProduceStreamRequest {
                    request_id: n,
                    request: Some(request(name, 0, &["x"])),
                })
                .collect();
            let opened = rpc
                .producer()
                .produce_stream(futures_util::stream::iter(flood))
                .await;
            let mut results = opened.unwrap().into_inner();
            let mut acknowledged = 0;
            loop {
                match soon("an event", results.message()).await {
                    Ok(Some(message)) => {
                        acknowledged += usize::from(matches!(message.event, Some(P::Result(_))));
                    }
                    Ok(None) => break,
                    Err(status) => {
                        refused(
                            "breach",
                            Err::<(), _>(status),
                            Code::ResourceExhausted,
                            "FLOW_CONTROL",
                        );
                        assert!(rpc.values(name, 0).await.len() >= acknowledged);
                        rpc.put(name, 0, &["after"]).await;
                        return;
                    }
                }
            }
        }
        panic!("no flood broke the limit");
    });
}

#[test]
fn a_cancelled_stream_appends_whole_requests_or_nothing() {
    run(async {
        let rpc = shared().await;
        let name = "s-cancel";
        rpc.create(name, 1).await;
        let values = vec!["x"; 50];
        let mut acknowledged = 0;
        for round in 0..10 {
            let mut writer = Writer::open(&rpc).await;
            writer.next().await;
            for id in 0..40 {
                writer.send(id, request(name, 0, &values)).await;
            }
            for _ in 0..round {
                writer.result().await;
                acknowledged += 50;
            }
            drop(writer);
        }
        let last = rpc.put(name, 0, &["last"]).await;
        assert_eq!(last % 50, 0, "a request was appended in part");
        assert!(last >= acknowledged, "an acknowledged record is lost");
        // A request that had arrived may still be appended, behind this record.
        let behind = rpc.values(name, 0).await.len() as i64 - (last + 1);
        assert!(behind >= 0 && behind % 50 == 0, "{behind} behind the last");
    });
}

/// Records that go to several partitions: the share of each is appended or not, and the answer says which.
#[test]
fn a_spread_request_tells_what_happened_where() {
    run(async {
        use v1::partition_produce_result::Outcome;
        let rpc = shared().await;
        let name = "p-spread";
        rpc.create(name, 4).await;
        let records: Vec<_> = (0..40)
            .map(|n| record(Some(&format!("key-{n}")), &n.to_string()))
            .collect();
        let spread = v1::ProduceRequest {
            topic: name.into(),
            records,
            ..Default::default()
        };
        let answer = rpc.producer().produce(spread).await.unwrap().into_inner();
        let mut indexes: Vec<i32> = Vec::new();
        for result in &answer.results {
            let Some(Outcome::Appended(appended)) = &result.outcome else {
                panic!("{result:?}");
            };
            assert_eq!(
                usize::try_from(appended.record_count).unwrap(),
                result.record_indexes.len()
            );
            let expected: Vec<_> = result
                .record_indexes
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(rpc.values(name, result.partition).await, expected);
            indexes.extend(&result.record_indexes);
        }
        assert!(answer.results.is_sorted_by_key(|r| r.partition));
        indexes.sort_unstable();
        assert_eq!(indexes, (0..40).collect::<Vec<i32>>());
    });
}

// ---- Subscribe ----

async fn subscribe(rpc: &Rpc, request: v1::SubscribeRequest) -> Streaming<v1::SubscribeResponse> {
    rpc.consumer()
        .subscribe(request)
        .await
        .unwrap()
        .into_inner()
}

/// Every record until the stream ends with OK, by partition.
async fn drain(mut events: Streaming<v1::SubscribeResponse>) -> BTreeMap<i32, Vec<(i64, String)>> {
    let mut all: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    while let Some(message) = soon("an event", events.message()).await.unwrap() {
        if let Some(S::Records(chunk)) = message.event {
            let records = chunk.records.iter().map(|r| (r.offset, value(r)));
            all.entry(chunk.partition).or_default().extend(records);
        }
    }
    all
}

#[test]
fn a_subscription_ends_where_it_was_told() {
    run(async {
        use v1::end_position::Position as E;
        use v1::start_position::Position as B;
        let rpc = shared().await;
        let name = "s-end";
        // The records of one partition are of 1970, and would be over with the first look at retention.
        rpc.create_with(name, 2, &[("retention.ms", "-1")]).await;
        for n in 0..10 {
            rpc.put(name, 0, &[&format!("a{n}")]).await;
            let mut timed = request(name, 1, &[&format!("b{n}")]);
            timed.records[0].timestamp_ms = Some(1000 + n);
            rpc.produce(timed).await.unwrap();
        }
        let sub = || v1::SubscribeRequest {
            topic: name.into(),
            end: current_end(),
            ..Default::default()
        };
        let end = |p| Some(v1::EndPosition { position: Some(p) });
        let offsets = |all: &BTreeMap<i32, Vec<(i64, String)>>, p: i32| -> Vec<i64> {
            all.get(&p)
                .map(|r| r.iter().map(|(o, _)| *o).collect())
                .unwrap_or_default()
        };
        let all = drain(subscribe(&rpc, sub()).await).await;
        assert_eq!(offsets(&all, 0), (0..10).collect::<Vec<_>>());
        assert_eq!(offsets(&all, 1), (0..10).collect::<Vec<_>>());
        assert_eq!(all[&1][3].1, "b3");

        let one = v1::SubscribeRequest {
            partitions: vec![1],
            end: end(E::Offset(4)),
            ..sub()
        };
        let all = drain(subscribe(&rpc, one).await).await;
        assert_eq!(
            (offsets(&all, 0), offsets(&all, 1)),
            (vec![], vec![0, 1, 2, 3])
        );

        let timed = v1::SubscribeRequest {
            partitions: vec![1],
            start: crate::support::position(B::TimestampMs(1003)),
            end: end(E::TimestampMs(1006)),
            ..sub()
        };
        let all = drain(subscribe(&rpc, timed).await).await;
        assert_eq!(offsets(&all, 1), [3, 4, 5]);

        let last = v1::SubscribeRequest {
            start: crate::support::position(B::Last(2)),
            ..sub()
        };
        let all = drain(subscribe(&rpc, last).await).await;
        assert_eq!(
            (offsets(&all, 0), offsets(&all, 1)),
            (vec![8, 9], vec![8, 9])
        );

        let resumed = v1::SubscribeRequest {
            resume_offsets: [(0, 7)].into(),
            start: at(9),
            ..sub()
        };
        let all = drain(subscribe(&rpc, resumed).await).await;
        assert_eq!(
            (offsets(&all, 0), offsets(&all, 1)),
            (vec![7, 8, 9], vec![9])
        );

        for most in [1, 3, 15] {
            let few = v1::SubscribeRequest {
                max_records: most,
                end: None,
                ..sub()
            };
            let all = drain(subscribe(&rpc, few).await).await;
            let count: usize = all.values().map(Vec::len).sum();
            assert_eq!(count as i64, most, "max_records is exact");
        }
        let packed = v1::SubscribeRequest {
            encoding: v1::ReadEncoding::Batches as i32,
            ..sub()
        };
        let mut events = subscribe(&rpc, packed).await;
        let mut records = 0;
        while let Some(message) = soon("an event", events.message()).await.unwrap() {
            if let Some(S::Records(chunk)) = message.event {
                assert!(chunk.records.is_empty() && chunk.credit_used == 0);
                for encoded in chunk.batches {
                    assert_eq!(encoded.format, 2);
                    for batch in varve_record::iter_batches(encoded.data) {
                        let batch = batch.unwrap();
                        batch.verify_crc().unwrap();
                        records += batch.header.record_count;
                    }
                }
            }
        }
        assert_eq!(records, 20);
    });
}

#[test]
fn a_subscription_follows_the_log_and_new_partitions() {
    run(async {
        let rpc = shared().await;
        let name = "s-follow";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["old"]).await;
        let request = v1::SubscribeRequest {
            topic: name.into(),
            start: anchor(v1::StartAnchor::Latest),
            ..Default::default()
        };
        let mut events = subscribe(&rpc, request).await;
        let opened = soon("progress", events.message()).await.unwrap().unwrap();
        let Some(S::Progress(progress)) = opened.event else {
            panic!("{opened:?}");
        };
        assert!(progress.caught_up && progress.next_offset == 1);
        let add = v1::AddPartitionsRequest {
            topic: name.into(),
            partition_count: 2,
            ..Default::default()
        };
        rpc.topics().add_partitions(add).await.unwrap();
        rpc.put(name, 1, &["in a new partition"]).await;
        rpc.put(name, 0, &["new"]).await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let event = soon("records", events.message())
                .await
                .unwrap()
                .unwrap()
                .event;
            if let Some(S::Records(chunk)) = event {
                seen.extend(
                    chunk
                        .records
                        .iter()
                        .map(|r| (chunk.partition, r.offset, value(r))),
                );
            }
        }
        seen.sort();
        assert_eq!(
            seen,
            [
                (0, 1, "new".to_owned()),
                (1, 0, "in a new partition".to_owned())
            ]
        );
        let request = v1::DeleteTopicRequest {
            topic: name.into(),
            ..Default::default()
        };
        rpc.topics().delete_topic(request).await.unwrap();
        let ended = soon("the end", async {
            loop {
                if let Err(status) = events.message().await {
                    return status;
                }
            }
        });
        refused(
            "deleted",
            Err::<(), _>(ended.await),
            Code::NotFound,
            "TOPIC_NOT_FOUND",
        );
    });
}

#[test]
fn the_first_record_is_delivered_soon_after_its_acknowledgement() {
    run(async {
        let rpc = shared().await;
        let reader = crate::support::Rpc::connect(rpc.address).await;
        let name = "s-latency";
        rpc.create(name, 1).await;
        let request = v1::SubscribeRequest {
            topic: name.into(),
            ..Default::default()
        };
        let mut events = subscribe(&reader, request).await;
        events.next().await.unwrap().unwrap();
        let mut delays = Vec::new();
        for n in 0..10 {
            rpc.put(name, 0, &[&n.to_string()]).await;
            let acknowledged = Instant::now();
            loop {
                let event = soon("the record", events.message())
                    .await
                    .unwrap()
                    .unwrap()
                    .event;
                if matches!(event, Some(S::Records(_))) {
                    break;
                }
            }
            delays.push(acknowledged.elapsed());
        }
        // The machine may be busy with other tests: the middle one tells what the node does.
        delays.sort();
        assert!(delays[5] < Duration::from_millis(200), "{delays:?}");
    });
}
