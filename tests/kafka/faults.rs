//! What goes wrong around the listener: a disk that is full, requests that never end, payloads that unpack to far more
//! than they are. What was acknowledged stays, and who did nothing wrong is served.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use varve_frontend_kafka::wire::generated::api_versions::ApiVersionsRequest;
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_record::{BatchBuilder, Compression, compress, rewrite};
use varve_tests::node::{Node, http_get, http_get_at};
use varve_tests::small_disk::SmallDisk;
use varve_types::limits;

use crate::Bed;
use crate::client::{Client, ask};
use crate::clients;
use crate::seen::{Own, Which, by_kafka, produce};

/// Longer than a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

async fn is_served(client: &mut Client) {
    let request = ApiVersionsRequest {
        client_software_name: Text::from_static("test"),
        client_software_version: Text::from_static("1.0"),
        ..ApiVersionsRequest::default()
    };
    assert_eq!(ask!(client, 3, ApiVersions, request).error_code, 0);
}

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder
        .append(1, None, Some(value.as_bytes()), &[])
        .unwrap();
    builder.build().unwrap()
}

async fn refusals(bed: &Bed) -> u64 {
    let address = bed.node.http_address();
    let metrics = tokio::task::spawn_blocking(move || http_get_at(address, "/metrics"));
    let (_, metrics) = metrics.await.unwrap().unwrap();
    let line = metrics
        .lines()
        .find(|l| l.starts_with("varve_kafka_errors_total") && l.contains("STORAGE_FULL"));
    line.and_then(|l| l.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_repeated_by_clients_and_costs_nothing_that_was_acknowledged() {
    let Some(disk) = SmallDisk::mount("size=48m") else {
        return;
    };
    let settings = [
        ("storage.min_free_bytes", "0"),
        ("offsets.topic.num.partitions", "1"),
        ("topic.defaults.segment.bytes", "4194304"),
    ];
    let bed = Bed::start_in(disk.path(), &settings).await;
    let mut client = bed.client().await;
    client.create("full", 1).await;
    // What an operator can remove to make room.
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let mut acknowledged: Vec<Vec<u8>> = Vec::new();
    let refused = loop {
        let value = format!("{}-{}", acknowledged.len(), "x".repeat(300_000));
        let answer = produce(&mut client, 9, "full", batch(&value)).await;
        if answer.error_code != 0 {
            break answer;
        }
        assert_eq!(answer.base_offset, acknowledged.len() as i64);
        acknowledged.push(value.into_bytes());
        assert!(acknowledged.len() < 1000, "the disk never filled up");
    };
    let code = ErrorCode::from_code(refused.error_code).unwrap();
    assert_eq!(code, ErrorCode::KafkaStorageError, "{refused:?}");
    assert!(code.is_retriable());
    assert_eq!(refused.base_offset, -1);
    let own = Own::connect(bed.node.client_address()).await;
    let read = async |client: &mut Client| {
        let seen = by_kafka(client, "full", Which::Committed).await;
        assert_eq!(own.read("full", Which::Committed).await, seen);
        let values = seen.into_iter().map(|s| s.value.unwrap());
        values.collect::<Vec<_>>()
    };
    assert!(read(&mut client).await == acknowledged, "readers go on");

    // A client that people use goes on trying until there is room, and what it sends is there once.
    let before = refusals(&bed).await;
    let address = bed.kafka.to_string();
    let waits = tokio::spawn(async move {
        let line = "head -c 300000 /dev/zero | tr '\\0' y |";
        let settings = "-X enable.idempotence=true -X message.timeout.ms=60000";
        clients::kcat(&address, line, &format!("-P -t full -p 0 {settings}")).await
    });
    let begun = Instant::now();
    while !waits.is_finished() && refusals(&bed).await < before + 2 {
        assert!(begun.elapsed() < PATIENCE, "it is not refused");
    }
    std::fs::remove_file(ballast).unwrap();
    let sent = waits.await.unwrap();
    acknowledged.extend(sent.map(|_| vec![b'y'; 300_000]));
    let again = loop {
        let answer = produce(&mut client, 9, "full", batch("after")).await;
        if answer.error_code == 0 {
            break answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer:?}");
    };
    assert_eq!(again.base_offset, acknowledged.len() as i64);
    acknowledged.push(b"after".to_vec());
    assert!(read(&mut client).await == acknowledged);
    bed.stop().await;
}

/// Requests that begin and do not end.
fn unfinished() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![
        ("half a length", vec![0, 0]),
        ("a length", vec![0, 0, 0, 20]),
        ("half a header", vec![0, 0, 0, 20, 0, 18, 0, 3, 0]),
    ];
    // Each says that it is as long as may be: together they are more than the server holds.
    let long = u32::try_from(limits::REQUEST_MAX_BYTES).unwrap();
    let long = [&long.to_be_bytes()[..], &[0, 0, 0, 9]].concat();
    all.extend((0..12).map(|_| ("the longest request", long.clone())));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_do_not_end_close_their_own_connections_only() {
    let bed = Bed::start(&[]).await;
    let mut honest = bed.client().await;
    honest.create("orders", 1).await;
    let begun = Instant::now();
    let mut slow = tokio::task::JoinSet::new();
    for (n, (what, bytes)) in unfinished().into_iter().enumerate() {
        let address = bed.kafka;
        slow.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let (mut rest, mut answer) = (Vec::new(), [0; 1]);
            // Some send a byte now and then: the time of the whole request is what counts.
            let drips = n % 2 == 1 && what == "the longest request";
            loop {
                let read = stream.read(&mut answer);
                match tokio::time::timeout(Duration::from_millis(500), read).await {
                    Ok(Ok(0) | Err(_)) => return (what, rest, begun.elapsed()),
                    Ok(Ok(_)) => rest.extend(answer),
                    Err(_) if drips => {
                        let _ = stream.write_all(&[0]).await;
                    }
                    Err(_) => {}
                }
                assert!(begun.elapsed() < 2 * PATIENCE, "{what} is not closed");
            }
        });
    }
    let mut asked = 0;
    while !slow.is_empty() {
        is_served(&mut honest).await;
        let answer = produce(&mut honest, 9, "orders", batch("honest")).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, asked));
        asked += 1;
        let ended = tokio::time::timeout(Duration::from_millis(100), slow.join_next()).await;
        if let Ok(Some(ended)) = ended {
            let (what, rest, after) = ended.unwrap();
            assert!(rest.is_empty(), "{what} was answered");
            assert!(after > Duration::from_secs(20), "{what}: {after:?}");
        }
    }
    // What they held is given back: a large request is taken.
    let large = batch(&"x".repeat(1_000_000));
    let answer = produce(&mut honest, 9, "orders", large).await;
    assert_eq!(answer.error_code, 0);
    bed.stop().await;
}

/// A batch that unpacks to more than may be.
fn bomb(codec: Compression) -> Bytes {
    let mut small = BatchBuilder::new(codec, None);
    small.append(1, None, Some(b"v"), &[]).unwrap();
    let header = *small.build_batch().unwrap().header();
    let zeros = vec![0; limits::DECOMPRESSED_MAX_BYTES + 1];
    let mut packed = Vec::new();
    compress::compress(codec, None, &zeros, &mut packed).unwrap();
    rewrite::seal(header, &packed)
}

/// Most memory that a process has had, in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_that_unpack_to_far_more_cost_bounded_memory() {
    const CONNECTIONS: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let start = move || {
        Node::start_with(
            &path,
            &[
                ("VARVE_LISTENERS__KAFKA__ADDRESS", "127.0.0.1:0"),
                ("VARVE_LISTENERS__KAFKA__TLS__MODE", "insecure"),
            ],
        )
    };
    let node = tokio::task::spawn_blocking(start).await.unwrap();
    let (pid, port) = (node.pid(), node.http_port());
    let own = Own::connect(node.address().parse().unwrap()).await;
    let kafka = own.kafka().await;
    let mut honest = Client::connect(kafka).await;
    honest.create("orders", 1).await;
    let bombs = [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ]
    .map(bomb);
    let before = peak(pid);
    let mut all = tokio::task::JoinSet::new();
    for n in 0..CONNECTIONS {
        let bomb = bombs[n % bombs.len()].clone();
        all.spawn(async move {
            let mut client = Client::connect(kafka).await;
            let answer = produce(&mut client, 9, "orders", bomb).await;
            let code = ErrorCode::MessageTooLarge.code();
            assert_eq!(answer.error_code, code, "{answer:?}");
            is_served(&mut client).await;
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
        is_served(&mut honest).await;
    }
    let answer = produce(&mut honest, 9, "orders", batch("honest")).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    // As many at a time as there are cores, each with a buffer that has just grown, and the same again that the
    // allocator has not given back yet; not one for each connection.
    let cores = std::thread::available_parallelism().unwrap().get().max(2) as u64;
    let most = (4 * cores + 2) * limits::DECOMPRESSED_MAX_BYTES as u64;
    let grown = peak(pid) - before;
    assert!(grown < most, "{grown} bytes, at most {most}");
    let healthy = tokio::task::spawn_blocking(move || http_get(port, "/metrics"));
    assert!(healthy.await.unwrap().is_some());
    tokio::task::spawn_blocking(move || drop(node))
        .await
        .unwrap();
}
