//! What readers see of transactions, by every way to read.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use varve_proto::v1;
use varve_proto::v1::consume_request::Command as C;
use varve_proto::v1::consume_response::Event as E;
use varve_proto::v1::fetch_stream_request::Command as F;
use varve_proto::v1::fetch_stream_response::Event as G;
use varve_proto::v1::offset_result::Outcome;
use varve_proto::v1::start_position::Position;
use varve_proto::v1::subscribe_response::Event as S;

use crate::transaction::{end, init, produce, service};
use crate::{Harness, assert_fails, soon, start, tp};

const COMMITTED: v1::Isolation = v1::Isolation::ReadCommitted;
const ALL: v1::Isolation = v1::Isolation::ReadUncommitted;
/// No isolation of ours.
const UNKNOWN: i32 = 9;

/// A log of one record outside transactions, one of an aborted and one of an open one.
async fn log(h: &Harness) -> v1::TransactionSession {
    h.broker.topic("orders", 1);
    h.append("orders", 0, &["plain"]).await;
    let first = init(h).await;
    h.producer()
        .produce(produce(&first, "orders", 0, "aborted"))
        .await
        .unwrap();
    let abort = end(&first, v1::TransactionOutcome::Abort);
    let answer = service(h).end_transaction(abort).await.unwrap();
    let session = answer.into_inner().session.unwrap();
    h.producer()
        .produce(produce(&session, "orders", 0, "open"))
        .await
        .unwrap();
    session
}

async fn commit(h: &Harness, session: &v1::TransactionSession) {
    let commit = end(session, v1::TransactionOutcome::Commit);
    service(h).end_transaction(commit).await.unwrap();
}

fn texts(records: &[v1::ConsumedRecord]) -> Vec<String> {
    let text = |r: &v1::ConsumedRecord| String::from_utf8(r.value.clone().unwrap().into()).unwrap();
    records.iter().map(text).collect()
}

#[tokio::test]
async fn a_fetch_sees_what_its_isolation_shows() {
    let h = Harness::start().await;
    let session = log(&h).await;
    let fetch = |isolation: i32| v1::FetchRequest {
        topic: "orders".to_owned(),
        isolation,
        ..Default::default()
    };
    for isolation in [v1::Isolation::Unspecified, COMMITTED] {
        let read = h.consumer().fetch(fetch(isolation.into())).await.unwrap();
        let read = read.into_inner();
        assert_eq!(texts(&read.records), ["plain"]);
        assert_eq!((read.next_offset, read.high_watermark), (2, 3));
        assert_eq!(read.last_stable_offset, Some(2));
    }
    let read = h.consumer().fetch(fetch(ALL.into())).await.unwrap();
    let read = read.into_inner();
    assert_eq!(texts(&read.records), ["plain", "aborted", "open"]);
    assert_eq!((read.next_offset, read.last_stable_offset), (3, Some(2)));
    let latest = v1::FetchRequest {
        start: start(Position::Anchor(v1::StartAnchor::Latest.into())),
        ..fetch(0)
    };
    let read = h.consumer().fetch(latest).await.unwrap().into_inner();
    assert_eq!(read.next_offset, 2);
    commit(&h, &session).await;
    let read = h.consumer().fetch(fetch(0)).await.unwrap().into_inner();
    assert_eq!(texts(&read.records), ["plain", "open"]);
    assert_eq!(read.last_stable_offset, Some(3));
    let answer = h.consumer().fetch(fetch(UNKNOWN)).await;
    assert_fails(answer, Code::InvalidArgument, "INVALID_REQUEST");
}

#[tokio::test]
async fn offsets_end_where_the_reader_ends() {
    let h = Harness::start().await;
    log(&h).await;
    let query = |isolation: i32, position| v1::OffsetQuery {
        topic_partition: tp("orders", 0),
        position: start(position),
        isolation,
        ..Default::default()
    };
    let latest = Position::Anchor(v1::StartAnchor::Latest.into());
    let queries = vec![
        query(0, latest),
        query(COMMITTED.into(), latest),
        query(ALL.into(), latest),
        query(COMMITTED.into(), Position::Last(1)),
        query(ALL.into(), Position::Last(1)),
    ];
    let request = v1::ListOffsetsRequest { queries };
    let answer = h.consumer().list_offsets(request).await.unwrap();
    let found = |result: &v1::OffsetResult| match &result.outcome {
        Some(Outcome::Offsets(found)) => {
            assert_eq!(
                (found.high_watermark, found.last_stable_offset),
                (3, Some(2))
            );
            found.offset.unwrap()
        }
        other => panic!("no offsets: {other:?}"),
    };
    let results = answer.into_inner().results;
    let offsets: Vec<i64> = results.iter().map(found).collect();
    assert_eq!(offsets, [2, 2, 3, 1, 2]);
    let queries = vec![query(UNKNOWN, latest)];
    let answer = h
        .consumer()
        .list_offsets(v1::ListOffsetsRequest { queries })
        .await;
    assert_fails(answer, Code::InvalidArgument, "INVALID_REQUEST");
}

fn subscribe(isolation: i32) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        topic: "orders".to_owned(),
        isolation,
        ..Default::default()
    }
}

async fn event(stream: &mut Streaming<v1::SubscribeResponse>) -> Option<S> {
    let message = soon(stream.message()).await.unwrap();
    message.map(|m| m.event.unwrap())
}

#[tokio::test]
async fn a_bounded_subscription_ends_at_the_end_of_its_isolation() {
    let h = Harness::start().await;
    log(&h).await;
    for (isolation, expected, last) in [
        (COMMITTED, vec!["plain"], 2),
        (ALL, vec!["plain", "aborted", "open"], 3),
    ] {
        let request = v1::SubscribeRequest {
            end: Some(v1::EndPosition {
                position: Some(v1::end_position::Position::CurrentEnd(true)),
            }),
            ..subscribe(isolation.into())
        };
        let mut stream = h.consumer().subscribe(request).await.unwrap().into_inner();
        let (mut seen, mut closed) = (Vec::new(), None);
        while let Some(event) = event(&mut stream).await {
            match event {
                S::Records(chunk) => seen.extend(texts(&chunk.records)),
                S::Closed(end) => closed = Some(end),
                _ => {}
            }
        }
        let closed = closed.unwrap();
        assert_eq!((seen, closed.error), (to_owned(&expected), None));
        assert_eq!(closed.next_offset, last, "{isolation:?}");
    }
    let answer = h.consumer().subscribe(subscribe(UNKNOWN)).await;
    assert_fails(answer, Code::InvalidArgument, "INVALID_REQUEST");
}

fn to_owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn a_subscription_is_caught_up_before_an_open_transaction_and_goes_on_behind_it() {
    let h = Harness::start().await;
    let session = log(&h).await;
    let stream = h.consumer().subscribe(subscribe(0)).await.unwrap();
    let mut stream = stream.into_inner();
    let mut seen = Vec::new();
    loop {
        match event(&mut stream).await.unwrap() {
            S::Records(chunk) => seen.extend(texts(&chunk.records)),
            S::Progress(progress) if progress.caught_up => {
                assert_eq!((progress.next_offset, progress.high_watermark), (2, 3));
                break;
            }
            _ => {}
        }
    }
    assert_eq!(seen, ["plain"]);
    commit(&h, &session).await;
    loop {
        if let S::Records(chunk) = event(&mut stream).await.unwrap() {
            assert_eq!(texts(&chunk.records), ["open"]);
            break;
        }
    }
}

#[tokio::test]
async fn a_fetch_stream_keeps_the_isolation_it_was_opened_with() {
    let h = Harness::start().await;
    log(&h).await;
    for (isolation, expected) in [
        (COMMITTED, vec!["plain"]),
        (ALL, vec!["plain", "aborted", "open"]),
    ] {
        let (tx, commands) = mpsc::channel(8);
        let mut stream = opened(&h, &tx, commands, isolation.into()).await;
        let add = v1::FetchStreamAdd {
            subscription_id: 1,
            topic_partition: tp("orders", 0),
            initial_credit_bytes: 1000,
            ..Default::default()
        };
        send(&tx, F::Add(add)).await;
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let message = soon(stream.message()).await.unwrap().unwrap();
            if let Some(G::Records(records)) = message.event {
                seen.extend(texts(&records.records));
            }
        }
        assert_eq!(seen, to_owned(&expected));
    }
    let (tx, commands) = mpsc::channel(8);
    let mut stream = opened(&h, &tx, commands, UNKNOWN).await;
    let answer = soon(stream.message()).await;
    assert_fails(answer, Code::InvalidArgument, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_fetch_stream_says_when_it_has_passed_what_its_reader_does_not_get() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.append("orders", 0, &["plain"]).await;
    let (tx, commands) = mpsc::channel(8);
    let mut stream = opened(&h, &tx, commands, 0).await;
    let add = v1::FetchStreamAdd {
        subscription_id: 1,
        topic_partition: tp("orders", 0),
        initial_credit_bytes: 1000,
        ..Default::default()
    };
    send(&tx, F::Add(add)).await;
    let session = init(&h).await;
    h.producer()
        .produce(produce(&session, "orders", 0, "aborted"))
        .await
        .unwrap();
    let abort = end(&session, v1::TransactionOutcome::Abort);
    service(&h).end_transaction(abort).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let message = soon(stream.message()).await.unwrap().unwrap();
        if let Some(G::Records(records)) = message.event {
            seen.extend(texts(&records.records));
            if records.next_offset == 2 {
                break;
            }
            assert_eq!(records.next_offset, 1);
        }
    }
    assert_eq!(seen, ["plain"]);
}

async fn send(tx: &mpsc::Sender<v1::FetchStreamRequest>, command: F) {
    let command = Some(command);
    tx.send(v1::FetchStreamRequest { command }).await.unwrap();
}

async fn opened(
    h: &Harness,
    tx: &mpsc::Sender<v1::FetchStreamRequest>,
    commands: mpsc::Receiver<v1::FetchStreamRequest>,
    isolation: i32,
) -> Streaming<v1::FetchStreamResponse> {
    let open = v1::FetchStreamOpen {
        isolation,
        ..Default::default()
    };
    send(tx, F::Open(open)).await;
    let mut consumer = h.consumer();
    let stream = consumer.fetch_stream(ReceiverStream::new(commands));
    stream.await.unwrap().into_inner()
}

#[tokio::test]
async fn a_member_reads_with_the_isolation_it_joined_with() {
    let h = Harness::start().await;
    log(&h).await;
    for (group, isolation, expected) in [
        ("careful", COMMITTED, vec!["plain"]),
        ("curious", ALL, vec!["plain", "aborted", "open"]),
    ] {
        let (_commands, mut stream) = consume(&h, group, isolation.into()).await;
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let message = soon(stream.message()).await.unwrap().unwrap();
            if let Some(E::Records(chunk)) = message.event {
                seen.extend(texts(&chunk.records));
            }
        }
        assert_eq!(seen, to_owned(&expected), "{group}");
    }
    let (_commands, mut stream) = consume(&h, "lost", UNKNOWN).await;
    let answer = soon(stream.message()).await;
    assert_fails(answer, Code::InvalidArgument, "INVALID_REQUEST");
}

async fn consume(
    h: &Harness,
    group: &str,
    isolation: i32,
) -> (
    mpsc::Sender<v1::ConsumeRequest>,
    Streaming<v1::ConsumeResponse>,
) {
    let (tx, commands) = mpsc::channel(8);
    let join = v1::ConsumeJoin {
        group: group.to_owned(),
        topics: vec!["orders".to_owned()],
        isolation,
        ..Default::default()
    };
    let command = Some(C::Join(join));
    tx.send(v1::ConsumeRequest { command }).await.unwrap();
    let mut consumer = h.consumer();
    let stream = consumer.consume(ReceiverStream::new(commands));
    (tx, stream.await.unwrap().into_inner())
}
