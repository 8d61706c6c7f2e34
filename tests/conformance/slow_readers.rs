//! Readers that stop reading cost a bounded amount of memory and slow nobody. The node is a process of its
//! own here, so that its memory can be told from that of the clients.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_stream::StreamExt as _;
use varve_tests::node::{Node, free_port};

use crate::raw_client::frame;
use crate::support::{Rpc, anchor, from, loudly, run, span, tp, v1};

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

fn fetch_commands(encoding: v1::ReadEncoding) -> Vec<v1::fetch_stream_request::Command> {
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
    commands
}

async fn fetch_stream(
    rpc: &Rpc,
    encoding: v1::ReadEncoding,
) -> tonic::Streaming<v1::FetchStreamResponse> {
    let commands = stream::iter(fetch_commands(encoding))
        .map(|c| v1::FetchStreamRequest { command: Some(c) })
        .chain(stream::pending());
    rpc.consumer()
        .fetch_stream(commands)
        .await
        .unwrap()
        .into_inner()
}

/// Streams and connections of [`a_thousand_readers_that_never_read`], of each protocol.
const DEAF: usize = 500;
/// What all of them may cost.
const DEAF_BYTES: u64 = 192 << 20;
/// Streams of one connection.
const STREAMS: usize = 50;

/// A connection whose socket nobody reads, whatever its windows allow.
type Deaf = Box<dyn std::any::Any + Send>;

/// A socket that takes little.
async fn small_socket(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address).await.unwrap()
}

/// A socket that is written and never read.
struct WriteOnly(TcpStream);

impl AsyncRead for WriteOnly {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for WriteOnly {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// One connection with that many calls, of which it reads nothing.
async fn deaf_grpc(address: SocketAddr, calls: Vec<(&'static str, Bytes)>) -> Deaf {
    const WINDOW: u32 = (1 << 31) - 1;
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(WriteOnly(small_socket(address).await))
        .await
        .unwrap();
    let mut connection = Box::pin(connection);
    let mut streams = Vec::new();
    for (method, message) in calls {
        let request = http::Request::post(format!("http://{address}{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut ready = send.clone().ready().await.unwrap();
        let (answer, mut body) = ready.send_request(request, false).unwrap();
        // A call of one message waits for the end of its request.
        let ends = method.ends_with("/Subscribe") || method.ends_with("/Fetch");
        body.send_data(message, ends).unwrap();
        streams.push((answer, body));
    }
    // The requests go out.
    let _ = tokio::time::timeout(Duration::from_millis(20), &mut connection).await;
    Box::new((send, connection, streams))
}

/// One connection that asks for everything, five times over, and reads nothing.
async fn deaf_kafka(address: SocketAddr, topic: &str) -> Deaf {
    let mut body = BytesMut::new();
    body.put_slice(&[0, 1, 0, 4, 0, 0, 0, 7, 0xff, 0xff]);
    for number in [-1, 0, 1, 50 << 20] {
        body.put_i32(number);
    }
    body.put_u8(0);
    body.put_i32(1);
    body.put_u16(u16::try_from(topic.len()).unwrap());
    body.put_slice(topic.as_bytes());
    body.put_i32(4);
    for partition in 0..4 {
        body.put_i32(partition);
        body.put_i64(0);
        body.put_i32(50 << 20);
    }
    let mut asked = BytesMut::new();
    for _ in 0..5 {
        asked.put_u32(u32::try_from(body.len()).unwrap());
        asked.put_slice(&body);
    }
    let mut socket = small_socket(address).await;
    socket.write_all(&asked).await.unwrap();
    Box::new(socket)
}

fn framed(message: &impl prost::Message) -> Bytes {
    frame(&message.encode_to_vec())
}

fn calls(n: usize) -> Vec<(&'static str, Bytes)> {
    // A message in batch form holds at least one batch.
    let encoding = match n % 10 {
        0 => v1::ReadEncoding::Batches,
        _ => v1::ReadEncoding::Records,
    };
    (0..STREAMS)
        .map(|stream| match stream % 3 {
            0 => {
                let subscribe = v1::SubscribeRequest {
                    topic: "t".into(),
                    encoding: encoding as i32,
                    start: anchor(v1::StartAnchor::Earliest),
                    ..Default::default()
                };
                ("/varve.v1.ConsumerService/Subscribe", framed(&subscribe))
            }
            1 => {
                let join = v1::ConsumeJoin {
                    group: format!("g{n}-{stream}"),
                    topics: vec!["t".into()],
                    encoding: encoding as i32,
                    ..Default::default()
                };
                let first = v1::ConsumeRequest {
                    command: Some(v1::consume_request::Command::Join(join)),
                };
                ("/varve.v1.ConsumerService/Consume", framed(&first))
            }
            _ => {
                let mut all = BytesMut::new();
                for command in fetch_commands(encoding) {
                    let command = Some(command);
                    all.extend_from_slice(&framed(&v1::FetchStreamRequest { command }));
                }
                ("/varve.v1.ConsumerService/FetchStream", all.freeze())
            }
        })
        .collect()
}

/// Calls of one connection that ask for all of a partition at once, and wait for that much.
fn fetches(min_bytes: i64) -> Vec<(&'static str, Bytes)> {
    let fetch = |partition| v1::FetchRequest {
        max_records: 10_000,
        max_bytes: 16 << 20,
        min_bytes,
        max_wait: span(30_000),
        ..from("t", partition, 0)
    };
    let path = "/varve.v1.ConsumerService/Fetch";
    let one = |n: usize| (path, framed(&fetch(i32::try_from(n % 4).unwrap())));
    (0..STREAMS).map(one).collect()
}

/// A node with 50 MB in a topic, what it costs when `deaf` have come, and that others are served meanwhile.
fn cost(
    what: &str,
    allowed: u64,
    deaf: impl AsyncFnOnce(SocketAddr, SocketAddr) -> Vec<Deaf> + Send,
) {
    let dir = tempfile::tempdir().unwrap();
    let kafka = format!("127.0.0.1:{}", free_port());
    let env = [
        ("VARVE_LISTENERS__KAFKA__ADDRESS", kafka.as_str()),
        ("VARVE_LISTENERS__KAFKA__TLS__MODE", "insecure"),
    ];
    let node = Node::start_with(dir.path(), &env);
    let pid = node.pid();
    let address: SocketAddr = node.address().parse().unwrap();
    let kafka: SocketAddr = kafka.parse().unwrap();
    run(async move {
        let rpc = Rpc::connect(address).await;
        rpc.create("t", 4).await;
        let value = "x".repeat(1000);
        let values = vec![value.as_str(); 256];
        for n in 0..200 {
            rpc.put("t", n % 4, &values).await;
        }
        let whole = async |partition: i32| {
            assert_eq!(rpc.values("t", partition).await.len(), 50 * 256);
        };
        for partition in 0..4 {
            whole(partition).await;
        }
        let before = resident(pid);
        let deaf = deaf(address, kafka).await;
        let mut most = 0;
        // What they cost is looked at for a while: there is no moment at which it must be reached.
        for round in 0..10 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            most = most.max(resident(pid).saturating_sub(before));
            whole(round % 4).await;
        }
        loudly(&format!("{what} that never read: {} MiB", most >> 20));
        assert!(most <= allowed, "{most} bytes");
        drop(deaf);
    });
    drop(node);
}

/// Clients whose windows allow everything and whose sockets take nothing, over both protocols: what they cost together
/// is bounded, however large the batches are that they would have to be given.
#[test]
fn a_thousand_readers_that_never_read() {
    let what = format!("{DEAF} streams and {DEAF} Kafka connections");
    cost(&what, DEAF_BYTES, async |address, kafka| {
        let mut deaf: Vec<Deaf> = Vec::new();
        for n in 0..DEAF / STREAMS {
            deaf.push(deaf_grpc(address, calls(n)).await);
        }
        for _ in 0..DEAF {
            deaf.push(deaf_kafka(kafka, "t").await);
        }
        deaf
    });
}

fn fetching(what: &str, allowed: u64, min_bytes: i64) {
    let what = format!("{DEAF} {what}");
    cost(&what, allowed, async |address, _| {
        let mut deaf: Vec<Deaf> = Vec::new();
        for _ in 0..DEAF / STREAMS {
            deaf.push(deaf_grpc(address, fetches(min_bytes)).await);
        }
        deaf
    });
}

/// Each of them asks for 12 MB. What was read and what is made of it are in memory together for a moment.
#[test]
fn answers_that_are_never_read() {
    fetching("fetches", 2 * DEAF_BYTES, 1);
}

/// Each of them waits for more than the 12 MB that are there: what was looked at is not kept meanwhile.
#[test]
fn fetches_that_wait_for_more_than_there_is() {
    fetching("fetches that wait", 2 * DEAF_BYTES, 16 << 20);
}
