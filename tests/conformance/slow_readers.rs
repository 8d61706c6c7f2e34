//! Readers that stop reading cost a bounded amount of memory and slow nobody. The node is a process of its
//! own here, so that its memory can be told from that of the clients.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::stream;
use tokio_stream::StreamExt as _;
use varve_tests::node::Node;

use crate::support::{Rpc, loudly, run, tp, v1};

/// Readers of each kind that stop.
const SLOW: u64 = 8;
/// What one of them may cost.
const EACH: u64 = 16 << 20;

/// Resident memory of a process, in bytes.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[test]
fn slow_readers() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let pid = node.pid();
    let address: SocketAddr = node.address().parse().unwrap();
    run(async move {
        let rpc = Rpc::connect(address).await;
        rpc.create("t", 2).await;
        let value = "x".repeat(1_000_000);
        for partition in 0..2 {
            for _ in 0..40 {
                rpc.put("t", partition, &[&value]).await;
            }
        }
        let before = resident(pid);
        let mut stopped: Vec<Box<dyn std::any::Any + Send>> = Vec::new();
        for encoding in [v1::ReadEncoding::Records, v1::ReadEncoding::Batches] {
            for _ in 0..SLOW / 2 {
                let one = Rpc::connect(address).await;
                let request = v1::SubscribeRequest {
                    topic: "t".into(),
                    encoding: encoding as i32,
                    ..Default::default()
                };
                stopped.push(Box::new(one.consumer().subscribe(request).await.unwrap()));
                stopped.push(Box::new(fetch_stream(&one, encoding).await));
                stopped.push(Box::new(one));
            }
        }
        // Others go on meanwhile: until they have read everything, the stopped ones have filled up.
        let mut others = Duration::ZERO;
        for _ in 0..3 {
            let started = Instant::now();
            assert_eq!(rpc.values("t", 0).await.len(), 40);
            assert_eq!(rpc.values("t", 1).await.len(), 40);
            others = others.max(started.elapsed());
        }
        rpc.put("t", 0, &["after"]).await;
        let grown = resident(pid).saturating_sub(before);
        let allowed = 2 * SLOW * EACH;
        loudly(&format!(
            "slow readers: {} KiB each, others took {others:?}",
            grown / 1024 / (2 * SLOW)
        ));
        assert!(grown < allowed, "{} readers cost {grown} bytes", 2 * SLOW);
        // Held up by the stopped ones, who never read again, they would not come to the end at all.
        assert!(others < Duration::from_secs(60), "{others:?}");
        drop(stopped);
    });
    drop(node);
}

async fn fetch_stream(
    rpc: &Rpc,
    encoding: v1::ReadEncoding,
) -> tonic::Streaming<v1::FetchStreamResponse> {
    use v1::fetch_stream_request::Command as C;
    let open = v1::FetchStreamOpen {
        encoding: encoding as i32,
        ..Default::default()
    };
    let mut commands = vec![C::Open(open)];
    for partition in 0..2 {
        commands.push(C::Add(v1::FetchStreamAdd {
            subscription_id: partition.into(),
            topic_partition: Some(tp("t", partition)),
            initial_credit_bytes: i64::MAX,
            ..Default::default()
        }));
    }
    let commands = stream::iter(commands)
        .map(|c| v1::FetchStreamRequest { command: Some(c) })
        .chain(stream::pending());
    rpc.consumer()
        .fetch_stream(commands)
        .await
        .unwrap()
        .into_inner()
}
