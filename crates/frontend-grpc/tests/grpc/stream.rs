//! Subscribe and FetchStream.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use varve_proto::v1;
use varve_proto::v1::fetch_stream_request::Command as C;
use varve_proto::v1::fetch_stream_response::Event as F;
use varve_proto::v1::start_position::Position;
use varve_proto::v1::subscribe_response::Event as S;

use crate::{Harness, assert_fails, batch, encoded, endpoint, soon, start, tp};

fn subscribe(topic: &str) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        topic: topic.to_owned(),
        ..Default::default()
    }
}

fn current_end() -> Option<v1::EndPosition> {
    Some(v1::EndPosition {
        position: Some(v1::end_position::Position::CurrentEnd(true)),
    })
}

async fn next(stream: &mut Streaming<v1::SubscribeResponse>) -> Option<S> {
    soon(stream.message())
        .await
        .unwrap()
        .map(|m| m.event.unwrap())
}

/// The next event that is not about progress.
async fn news(stream: &mut Streaming<v1::SubscribeResponse>) -> Option<S> {
    loop {
        match next(stream).await {
            Some(S::Progress(_)) => {}
            other => return other,
        }
    }
}

fn texts(chunk: &v1::RecordChunk) -> Vec<String> {
    let text = |r: &v1::ConsumedRecord| String::from_utf8(r.value.clone().unwrap().into()).unwrap();
    chunk.records.iter().map(text).collect()
}

#[tokio::test]
async fn a_bounded_subscription_delivers_everything_and_ends_with_ok() {
    let h = Harness::start().await;
    h.broker.topic("orders", 3);
    h.append("orders", 0, &["a", "b"]).await;
    h.append("orders", 1, &["c"]).await;
    let request = v1::SubscribeRequest {
        end: current_end(),
        ..subscribe("orders")
    };
    let mut stream = h.consumer().subscribe(request).await.unwrap().into_inner();
    let (mut all, mut opened, mut closed) = (Vec::new(), 0, Vec::new());
    while let Some(event) = next(&mut stream).await {
        match event {
            S::Records(chunk) => all.extend(texts(&chunk)),
            S::Progress(p) if p.next_offset == 0 => opened += 1,
            S::Progress(_) => {}
            S::Closed(c) => {
                assert!(c.error.is_none());
                closed.push((c.partition, c.next_offset));
            }
            S::Drain(_) => panic!("no drain"),
        }
    }
    all.sort();
    closed.sort_unstable();
    assert_eq!((all, opened), (vec!["a".into(), "b".into(), "c".into()], 3));
    assert_eq!(closed, [(0, 2), (1, 1), (2, 0)]);
}

#[tokio::test]
async fn a_subscription_follows_the_log_and_new_partitions_until_the_topic_goes() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let mut stream = h
        .consumer()
        .subscribe(subscribe("orders"))
        .await
        .unwrap()
        .into_inner();
    let Some(S::Progress(open)) = next(&mut stream).await else {
        panic!("progress at open")
    };
    assert!(open.caught_up);
    h.append("orders", 0, &["now"]).await;
    let Some(S::Records(chunk)) = news(&mut stream).await else {
        panic!("records")
    };
    assert_eq!(
        (texts(&chunk), chunk.next_offset, chunk.credit_used),
        (vec!["now".into()], 1, 0)
    );
    let request = v1::AddPartitionsRequest {
        topic: "orders".to_owned(),
        partition_count: 2,
        ..Default::default()
    };
    h.topics().add_partitions(request).await.unwrap();
    h.append("orders", 1, &["later"]).await;
    let Some(S::Records(chunk)) = news(&mut stream).await else {
        panic!("records")
    };
    assert_eq!((texts(&chunk), chunk.partition), (vec!["later".into()], 1));
    let delete = v1::DeleteTopicRequest {
        topic: "orders".to_owned(),
        ..Default::default()
    };
    h.topics().delete_topic(delete).await.unwrap();
    for _ in 0..2 {
        let Some(S::Closed(closed)) = news(&mut stream).await else {
            panic!("closed")
        };
        assert_eq!(
            closed.error.unwrap().reason,
            v1::ErrorReason::TopicNotFound as i32
        );
    }
    assert_fails(
        soon(stream.message()).await,
        Code::NotFound,
        "TOPIC_NOT_FOUND",
    );
}

#[tokio::test]
async fn a_subscription_resumes_and_stops_after_max_records() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.append("orders", 0, &["a", "b", "c", "d"]).await;
    let request = v1::SubscribeRequest {
        resume_offsets: [(0, 1)].into(),
        max_records: 2,
        start: start(Position::Offset(99)),
        ..subscribe("orders")
    };
    let mut stream = h.consumer().subscribe(request).await.unwrap().into_inner();
    let Some(S::Records(chunk)) = news(&mut stream).await else {
        panic!("records")
    };
    assert_eq!(
        (texts(&chunk), chunk.next_offset),
        (vec!["b".into(), "c".into()], 3)
    );
    assert!(news(&mut stream).await.is_none());
}

#[tokio::test]
async fn idle_partitions_send_progress() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let request = v1::SubscribeRequest {
        idle_heartbeat: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..subscribe("orders")
    };
    let mut stream = h.consumer().subscribe(request).await.unwrap().into_inner();
    for _ in 0..2 {
        assert!(matches!(next(&mut stream).await, Some(S::Progress(p)) if p.caught_up));
    }
}

#[tokio::test]
async fn bad_subscriptions_fail_at_once() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let rows = vec![
        (subscribe("nope"), Code::NotFound, "TOPIC_NOT_FOUND"),
        (subscribe(".."), Code::InvalidArgument, "INVALID_REQUEST"),
        (
            v1::SubscribeRequest {
                partitions: vec![1],
                ..subscribe("orders")
            },
            Code::NotFound,
            "PARTITION_NOT_FOUND",
        ),
        (
            v1::SubscribeRequest {
                resume_offsets: [(1, 0)].into(),
                ..subscribe("orders")
            },
            Code::NotFound,
            "PARTITION_NOT_FOUND",
        ),
    ];
    for (request, code, why) in rows {
        assert_fails(h.consumer().subscribe(request).await, code, why);
    }
    let request = v1::SubscribeRequest {
        start: start(Position::Offset(5)),
        ..subscribe("orders")
    };
    let mut stream = h.consumer().subscribe(request).await.unwrap().into_inner();
    let Some(S::Closed(closed)) = next(&mut stream).await else {
        panic!("closed")
    };
    assert_eq!(
        closed.error.unwrap().reason,
        v1::ErrorReason::OffsetOutOfRange as i32
    );
    assert_fails(
        soon(stream.message()).await,
        Code::OutOfRange,
        "OFFSET_OUT_OF_RANGE",
    );
}

fn fill(partition: i32, bytes: usize) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(partition),
        batch: encoded(batch(&[&vec![b'x'; bytes]])),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_a_few_messages_and_no_more() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    for _ in 0..64 {
        h.producer().produce(fill(0, 500_000)).await.unwrap();
    }
    let window = 256 * 1024;
    let channel = endpoint(h.address)
        .initial_stream_window_size(Some(window))
        .initial_connection_window_size(Some(window))
        .connect()
        .await
        .unwrap();
    let mut consumer = v1::consumer_service_client::ConsumerServiceClient::new(channel);
    let mut stream = consumer
        .subscribe(subscribe("orders"))
        .await
        .unwrap()
        .into_inner();
    assert!(matches!(next(&mut stream).await, Some(S::Progress(_))));
    soon(async {
        while h.broker.fetched_bytes() < 500_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Time in which a reader without bound would have gone through all 32 MB.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        h.broker.fetched_bytes() <= 1_100_000,
        "{} bytes were read",
        h.broker.fetched_bytes()
    );
    let mut total = 0;
    while total < 64 {
        match next(&mut stream).await {
            Some(S::Records(chunk)) => total += chunk.records.len(),
            other => assert!(matches!(other, Some(S::Progress(_)))),
        }
    }
}

/// A FetchStream with its sending end.
struct Pipe {
    tx: mpsc::Sender<v1::FetchStreamRequest>,
    rx: Streaming<v1::FetchStreamResponse>,
}

impl Pipe {
    async fn open(h: &Harness, open: v1::FetchStreamOpen) -> Self {
        let (tx, commands) = mpsc::channel(64);
        tx.send(v1::FetchStreamRequest {
            command: Some(C::Open(open)),
        })
        .await
        .unwrap();
        let rx = h
            .consumer()
            .fetch_stream(ReceiverStream::new(commands))
            .await
            .unwrap()
            .into_inner();
        Self { tx, rx }
    }

    async fn batches(h: &Harness) -> Self {
        let encoding = v1::ReadEncoding::Batches as i32;
        Self::open(
            h,
            v1::FetchStreamOpen {
                encoding,
                ..Default::default()
            },
        )
        .await
    }

    async fn send(&self, command: C) {
        self.tx
            .send(v1::FetchStreamRequest {
                command: Some(command),
            })
            .await
            .unwrap();
    }

    async fn add(&self, id: i64, partition: i32, credit: i64) {
        self.send(C::Add(v1::FetchStreamAdd {
            subscription_id: id,
            topic_partition: tp("orders", partition),
            initial_credit_bytes: credit,
            ..Default::default()
        }))
        .await;
    }

    async fn event(&mut self) -> F {
        soon(self.rx.message())
            .await
            .unwrap()
            .unwrap()
            .event
            .unwrap()
    }

    async fn positioned(&mut self) -> v1::FetchStreamPositioned {
        match self.event().await {
            F::Positioned(positioned) => positioned,
            other => panic!("not positioned: {other:?}"),
        }
    }

    async fn records(&mut self) -> v1::FetchStreamRecords {
        match self.event().await {
            F::Records(records) => records,
            other => panic!("no records: {other:?}"),
        }
    }
}

#[tokio::test]
async fn credit_holds_a_partition_back_and_no_other() {
    let h = Harness::start().await;
    h.broker.topic("orders", 2);
    for partition in 0..2 {
        for _ in 0..4 {
            h.producer()
                .produce(fill(partition, 100_000))
                .await
                .unwrap();
        }
    }
    let mut pipe = Pipe::batches(&h).await;
    pipe.add(7, 0, 1).await;
    let positioned = pipe.positioned().await;
    assert_eq!(
        (
            positioned.subscription_id,
            positioned.next_offset,
            positioned.high_watermark
        ),
        (7, 0, 4)
    );
    let first = pipe.records().await;
    assert_eq!(
        (first.subscription_id, first.next_offset),
        (7, 1),
        "one chunk overdraws the credit"
    );
    assert_eq!(
        first.credit_used,
        i64::try_from(first.batches[0].data.len()).unwrap()
    );
    pipe.add(8, 1, 1 << 30).await;
    assert_eq!(pipe.positioned().await.subscription_id, 8);
    let mut end = 0;
    while end < 4 {
        let records = pipe.records().await;
        assert_eq!(records.subscription_id, 8, "subscription 7 has no credit");
        end = records.next_offset;
    }
    pipe.send(C::Credit(v1::FetchStreamCredit {
        subscription_id: 7,
        bytes: first.credit_used,
    }))
    .await;
    let second = pipe.records().await;
    assert_eq!((second.subscription_id, second.next_offset), (7, 2));
}

#[tokio::test]
async fn a_fetch_stream_follows_seeks_and_removes() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let mut pipe = Pipe::batches(&h).await;
    pipe.add(1, 0, 1 << 20).await;
    assert_eq!(pipe.positioned().await.next_offset, 0);
    h.append("orders", 0, &["a", "b"]).await;
    assert_eq!(pipe.records().await.next_offset, 2);
    pipe.send(C::Seek(v1::FetchStreamSeek {
        subscription_id: 1,
        start: start(Position::Offset(1)),
        initial_credit_bytes: 1 << 20,
    }))
    .await;
    assert_eq!(pipe.positioned().await.next_offset, 1);
    assert_eq!(pipe.records().await.next_offset, 2);
    pipe.send(C::Remove(v1::FetchStreamRemove { subscription_id: 1 }))
        .await;
    let F::Closed(closed) = pipe.event().await else {
        panic!("closed")
    };
    assert_eq!(
        (closed.subscription_id, closed.next_offset, closed.error),
        (1, 2, None)
    );
    // Credit for what is gone is no fault.
    pipe.send(C::Credit(v1::FetchStreamCredit {
        subscription_id: 1,
        bytes: 5,
    }))
    .await;
    pipe.add(2, 9, 1).await;
    let F::Closed(closed) = pipe.event().await else {
        panic!("closed")
    };
    assert_eq!(
        closed.error.unwrap().reason,
        v1::ErrorReason::PartitionNotFound as i32
    );
    pipe.add(3, -9, 1).await;
    let F::Closed(closed) = pipe.event().await else {
        panic!("closed")
    };
    assert_eq!(
        (closed.subscription_id, closed.error.unwrap().reason),
        (3, v1::ErrorReason::PartitionNotFound as i32)
    );
}

#[tokio::test]
async fn large_runs_of_batches_arrive_as_they_were_stored() {
    const BATCHES: i64 = 300;
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let mut sent = Vec::new();
    for n in 0..BATCHES {
        let value: Vec<u8> = (0..150_000_i64).map(|i| (n + i) as u8).collect();
        let one = batch(&[&value]);
        sent.extend_from_slice(&one[16..]);
        let request = v1::ProduceRequest {
            batch: encoded(one),
            ..fill(0, 1)
        };
        h.producer().produce(request).await.unwrap();
    }
    let mut pipe = Pipe::batches(&h).await;
    pipe.add(1, 0, 1 << 40).await;
    pipe.positioned().await;
    let (mut next, mut read, mut together) = (0, Vec::new(), 0);
    while next < BATCHES {
        let before = next;
        let records = pipe.records().await;
        let [one] = &records.batches[..] else {
            panic!("one run of batches")
        };
        assert_eq!(
            (one.format, records.credit_used),
            (2, i64::try_from(one.data.len()).unwrap())
        );
        for stored in varve_record::iter_batches(one.data.clone()) {
            let stored = stored.unwrap();
            assert_eq!(stored.header.base_offset.get(), next);
            next = stored.header.next_offset().get();
            read.extend_from_slice(&stored.bytes[16..]);
        }
        assert_eq!(records.next_offset, next);
        together = together.max(next - before);
    }
    assert!(
        read == sent,
        "every byte after the server's own fields is the producer's"
    );
    // As many as fit a read travel together once the client has shown that it reads: six of these.
    assert_eq!(together, 6);
}

#[tokio::test]
async fn records_come_decoded_when_asked_for() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.append("orders", 0, &["a", "b", "c"]).await;
    let mut pipe = Pipe::open(&h, v1::FetchStreamOpen::default()).await;
    pipe.send(C::Add(v1::FetchStreamAdd {
        subscription_id: 1,
        topic_partition: tp("orders", 0),
        start: start(Position::Offset(1)),
        initial_credit_bytes: 100,
        ..Default::default()
    }))
    .await;
    pipe.positioned().await;
    let records = pipe.records().await;
    let offsets: Vec<_> = records.records.iter().map(|r| r.offset).collect();
    assert_eq!((offsets, records.credit_used), (vec![1, 2], 2));
}

#[tokio::test]
async fn a_batch_that_the_client_would_refuse_closes_its_subscription() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.producer().produce(fill(0, 200_000)).await.unwrap();
    let open = v1::FetchStreamOpen {
        encoding: v1::ReadEncoding::Batches as i32,
        max_message_bytes: 64 * 1024,
        ..Default::default()
    };
    let mut pipe = Pipe::open(&h, open).await;
    pipe.add(1, 0, 1 << 20).await;
    pipe.positioned().await;
    let F::Closed(closed) = pipe.event().await else {
        panic!("closed")
    };
    assert_eq!(
        closed.error.unwrap().reason,
        v1::ErrorReason::BatchTooLarge as i32
    );
}

#[tokio::test]
async fn heartbeats_tell_the_high_watermark_of_paused_partitions() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let open = v1::FetchStreamOpen {
        idle_heartbeat: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..Default::default()
    };
    let mut pipe = Pipe::open(&h, open).await;
    pipe.add(5, 0, 0).await;
    pipe.positioned().await;
    h.append("orders", 0, &["a"]).await;
    loop {
        let F::Heartbeat(beat) = pipe.event().await else {
            panic!("heartbeat")
        };
        if let Some(hw) = beat.high_watermarks.get(&5) {
            assert_eq!(*hw, 1);
            break;
        }
    }
}

#[tokio::test]
async fn broken_protocol_ends_a_fetch_stream_with_a_reason() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let bad: Vec<Vec<Option<C>>> = vec![
        vec![None],
        vec![Some(C::Credit(v1::FetchStreamCredit::default()))],
        vec![Some(C::Open(v1::FetchStreamOpen {
            encoding: 99,
            ..Default::default()
        }))],
        vec![Some(C::Open(v1::FetchStreamOpen::default())); 2],
        vec![
            Some(C::Open(v1::FetchStreamOpen::default())),
            Some(C::Credit(v1::FetchStreamCredit {
                subscription_id: 0,
                bytes: -1,
            })),
        ],
    ];
    for commands in bad {
        let (tx, rx) = mpsc::channel(8);
        for command in commands {
            tx.send(v1::FetchStreamRequest { command }).await.unwrap();
        }
        let mut stream = h
            .consumer()
            .fetch_stream(ReceiverStream::new(rx))
            .await
            .unwrap()
            .into_inner();
        assert_fails(
            soon(stream.message()).await,
            Code::InvalidArgument,
            "INVALID_REQUEST",
        );
    }
}

#[tokio::test]
async fn a_busy_partition_does_not_starve_another() {
    let h = Harness::start().await;
    h.broker.topic("orders", 2);
    for _ in 0..40 {
        h.producer().produce(fill(0, 400_000)).await.unwrap();
    }
    h.producer()
        .produce(v1::ProduceRequest {
            batch: encoded(batch(&[b"small"])),
            ..fill(1, 1)
        })
        .await
        .unwrap();
    let mut pipe = Pipe::batches(&h).await;
    pipe.add(0, 0, 1 << 40).await;
    pipe.add(1, 1, 1 << 40).await;
    let mut before = 0;
    loop {
        match pipe.event().await {
            F::Records(r) if r.subscription_id == 1 => break,
            F::Records(r) => before = r.next_offset,
            F::Positioned(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(
        before < 40,
        "the small partition waited for all of the large one"
    );
}
