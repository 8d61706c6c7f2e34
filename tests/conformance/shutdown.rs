//! The end of a node with everything open: it is announced, it has a reason, and it comes in time.

use std::time::{Duration, Instant};

use futures_util::stream;
use tokio_stream::StreamExt as _;
use v1::{
    consume_request::Command as Consume, consume_response::Event as ConsumeEvent,
    fetch_stream_request::Command as Fetch, fetch_stream_response::Event as FetchEvent,
    produce_stream_response::Event as ProduceEvent, subscribe_response::Event as SubscribeEvent,
};

use crate::support::{Bed, Code, Rpc, refused, request, run, span, tp, v1};

/// A node that waited for its clients would take longer: the held call asks for 30 s, the streams stay open for ever,
/// and who does not read never does. A busy machine takes less.
const IN_TIME: Duration = Duration::from_secs(20);

/// What a stream saw.
#[derive(Debug)]
struct Ended {
    kind: &'static str,
    drained: bool,
    status: Result<(), tonic::Status>,
}

/// Reads a stream to its end; `drain` says which event announces it.
async fn follow<T: Send + 'static>(
    kind: &'static str,
    mut events: tonic::Streaming<T>,
    drain: fn(&T) -> bool,
) -> Ended {
    let mut drained = false;
    loop {
        match events.message().await {
            Ok(Some(event)) => drained |= drain(&event),
            Ok(None) => {
                return Ended {
                    kind,
                    drained,
                    status: Ok(()),
                };
            }
            Err(status) => {
                return Ended {
                    kind,
                    drained,
                    status: Err(status),
                };
            }
        }
    }
}

/// A request stream that says one thing and stays open.
fn once_and_open<T: Send + 'static>(first: Vec<T>) -> impl futures_util::Stream<Item = T> + Send {
    stream::iter(first).chain(stream::pending())
}

async fn open(rpc: &Rpc, n: usize) -> tokio::task::JoinHandle<Ended> {
    let topic = "t".to_owned();
    match n % 5 {
        0 => {
            let request = v1::SubscribeRequest {
                topic,
                ..Default::default()
            };
            let events = rpc
                .consumer()
                .subscribe(request)
                .await
                .unwrap()
                .into_inner();
            tokio::spawn(follow("Subscribe", events, |e| {
                matches!(e.event, Some(SubscribeEvent::Drain(_)))
            }))
        }
        1 => {
            let add = v1::FetchStreamAdd {
                subscription_id: 1,
                topic_partition: Some(tp("t", 0)),
                initial_credit_bytes: 100,
                ..Default::default()
            };
            let commands = [Fetch::Open(v1::FetchStreamOpen::default()), Fetch::Add(add)];
            let commands = commands
                .map(|c| v1::FetchStreamRequest { command: Some(c) })
                .to_vec();
            let events = rpc
                .consumer()
                .fetch_stream(once_and_open(commands))
                .await
                .unwrap()
                .into_inner();
            tokio::spawn(follow("FetchStream", events, |e| {
                matches!(e.event, Some(FetchEvent::Drain(_)))
            }))
        }
        2 => {
            let join = v1::ConsumeJoin {
                group: format!("g{}", n % 7),
                topics: vec![topic],
                ..Default::default()
            };
            let join = vec![v1::ConsumeRequest {
                command: Some(Consume::Join(join)),
            }];
            let events = rpc
                .consumer()
                .consume(once_and_open(join))
                .await
                .unwrap()
                .into_inner();
            tokio::spawn(follow("Consume", events, |e| {
                matches!(e.event, Some(ConsumeEvent::Drain(_)))
            }))
        }
        3 => {
            let first = v1::ProduceStreamRequest {
                request_id: 1,
                request: Some(request("t", 0, &["x"])),
            };
            let events = rpc
                .producer()
                .produce_stream(once_and_open(vec![first]))
                .await
                .unwrap()
                .into_inner();
            tokio::spawn(follow("ProduceStream", events, |e| {
                matches!(e.event, Some(ProduceEvent::Drain(_)))
            }))
        }
        _ => {
            let request = v1::WatchMetadataRequest {
                all_topics: true,
                ..Default::default()
            };
            let events = rpc
                .cluster()
                .watch_metadata(request)
                .await
                .unwrap()
                .into_inner();
            // The schema has no drain event here: the status alone tells.
            tokio::spawn(follow("WatchMetadata", events, |_| true))
        }
    }
}

#[test]
fn shutdown_with_200_streams() {
    run(async {
        let mut bed = Bed::start(&[("shutdown.stream_grace", "1s")]).await;
        bed.rpc.create("t", 4).await;
        bed.rpc.put("t", 0, &["a"]).await;
        let mut rpcs = Vec::new();
        for _ in 0..4 {
            rpcs.push(Rpc::connect(bed.rpc.address).await);
        }
        let mut streams = Vec::new();
        for n in 0..200 {
            streams.push(open(&rpcs[n % 4], n).await);
        }
        // Calls that are held are answered and not left hanging.
        let held = v1::FetchRequest {
            topic: "t".into(),
            partition: 3,
            max_wait: span(30_000),
            ..Default::default()
        };
        let rpc = rpcs[0].clone();
        let mut held = Box::pin(async move { rpc.fetch(held).await });
        assert!(futures_util::poll!(&mut held).is_pending());
        // What is asked later on the same connection is answered, so the held call is with the server.
        assert!(!rpcs[0].values("t", 0).await.is_empty());
        let held = tokio::spawn(held);
        let http = bed.http();
        let started = Instant::now();
        let node = bed.take();
        let stopping = tokio::spawn(node.shutdown());
        let mut unready = false;
        while !stopping.is_finished() {
            if let Some((status, _)) = crate::health::get(http, "/readyz").await {
                unready |= status == 503;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stopping.await.unwrap().unwrap();
        assert!(started.elapsed() < IN_TIME, "took {:?}", started.elapsed());
        assert!(unready, "readiness goes first");
        for stream in streams {
            let ended = stream.await.unwrap();
            assert!(
                ended.drained,
                "{} ended without drain: {:?}",
                ended.kind, ended.status
            );
            refused(ended.kind, ended.status, Code::Unavailable, "SHUTTING_DOWN");
        }
        match held.await.unwrap() {
            Ok(answer) => assert!(answer.records.is_empty()),
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
        bed.resume().await;
        let values = bed.rpc.values("t", 0).await;
        assert_eq!(values.len(), 1 + 40, "what was acknowledged is there");
        bed.stop().await;
    });
}

/// Clients that never read cannot keep a node from stopping.
#[test]
fn shutdown_with_clients_that_do_not_read() {
    run(async {
        let mut bed = Bed::start(&[("shutdown.stream_grace", "500ms")]).await;
        bed.rpc.create("t", 1).await;
        let value = "x".repeat(500_000);
        for _ in 0..20 {
            bed.rpc.put("t", 0, &[&value]).await;
        }
        let mut stuck = Vec::new();
        for _ in 0..10 {
            let rpc = Rpc::connect(bed.rpc.address).await;
            let request = v1::SubscribeRequest {
                topic: "t".into(),
                ..Default::default()
            };
            stuck.push(rpc.consumer().subscribe(request).await.unwrap());
        }
        let started = Instant::now();
        bed.stop().await;
        assert!(started.elapsed() < IN_TIME, "took {:?}", started.elapsed());
        drop(stuck);
    });
}
