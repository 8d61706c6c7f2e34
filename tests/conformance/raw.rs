//! Bytes that no gRPC library would send, to every method and to the bare port: each is refused, costs a
//! bounded amount of memory, harms nobody else, and nothing panics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::future::join_all;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use varve_tests::node::Node;

use crate::raw_client::{Answer, Raw, frame};
use crate::support::{Code, Rpc, loudly, no_panics, run, run_within, shared, soon, v1};

/// Path of a method and the full name of its request, for every method of the schema.
fn methods() -> Vec<(String, String)> {
    let set = FileDescriptorSet::decode(varve_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut all = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                all.push((path, method.input_type().trim_start_matches('.').to_owned()));
            }
        }
    }
    assert!(all.len() >= 30, "the schema has its methods");
    all
}

/// Every message of the schema by full name.
fn messages() -> BTreeMap<String, DescriptorProto> {
    fn add(all: &mut BTreeMap<String, DescriptorProto>, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for nested in &message.nested_type {
            add(all, &name, nested);
        }
        all.insert(name, message.clone());
    }
    let set = FileDescriptorSet::decode(varve_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut all = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            add(&mut all, file.package(), message);
        }
    }
    all
}

/// Bytes that look random and are the same in every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

fn tag(out: &mut Vec<u8>, field: i32) {
    let mut encoded = BytesMut::new();
    prost::encoding::encode_varint((u64::from(field.unsigned_abs()) << 3) | 2, &mut encoded);
    out.extend_from_slice(&encoded);
}

/// `inner` as a field of a message.
fn wrapped(field: i32, inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inner.len() + 16);
    tag(&mut out, field);
    let mut length = BytesMut::new();
    prost::encoding::encode_varint(inner.len() as u64, &mut length);
    out.extend_from_slice(&length);
    out.extend_from_slice(inner);
    out
}

/// The node of `rpc` answers as if nothing had been.
async fn still_serves(rpc: &Rpc, what: &str) {
    let mut client = rpc.cluster();
    let info = client.get_server_info(v1::GetServerInfoRequest {});
    let info = soon(what, info).await;
    assert!(info.is_ok(), "after {what}: {info:?}");
    no_panics();
}

/// A call that may go on for ever when its bytes happen to mean something: it is left after a while.
async fn call(raw: &Raw, path: &str, headers: &[(&str, &str)], body: Bytes) -> Option<Answer> {
    let call = raw.call(path, headers, body);
    tokio::time::timeout(Duration::from_millis(400), call)
        .await
        .ok()
}

#[test]
fn noise_to_every_method() {
    run(async {
        let rpc = shared().await;
        let valid = v1::ProduceRequest {
            topic: "raw-none".into(),
            partition: Some(0),
            records: vec![v1::Record::default(); 3],
            ..Default::default()
        }
        .encode_to_vec();
        let mut bodies: Vec<(String, Bytes)> = Vec::new();
        for seed in 0..6 {
            bodies.push(("noise".into(), frame(&noise(seed, 1 << (2 * seed)))));
        }
        for cut in [1, 5, valid.len() - 1] {
            bodies.push(("half a message".into(), frame(&valid[..cut])));
        }
        bodies.push(("no frame".into(), Bytes::new()));
        bodies.push(("half a frame".into(), frame(&valid).slice(..4)));
        bodies.push((
            "a frame without its end".into(),
            frame(&valid).slice(..valid.len()),
        ));
        let mut huge = BytesMut::new();
        huge.put_u8(0);
        huge.put_u32(u32::MAX);
        huge.put_slice(b"x");
        bodies.push(("a length of 4 GiB".into(), huge.freeze()));
        let mut packed = BytesMut::from(&frame(&valid)[..]);
        packed[0] = 1;
        bodies.push(("compressed with nothing".into(), packed.clone().freeze()));
        packed[0] = 77;
        bodies.push(("a flag that is none".into(), packed.freeze()));
        // Groups of an unknown field within each other, and a field within itself.
        bodies.push(("deep groups".into(), frame(&vec![0x7b; 100_000])));
        let mut deep = Vec::new();
        for _ in 0..2000 {
            deep = wrapped(1, &deep);
        }
        bodies.push(("deep nesting".into(), frame(&deep)));
        bodies.push((
            "wrong wire types".into(),
            frame(&[0x0d, 1, 2, 3, 4, 0x11, 1, 2, 3, 4, 5, 6, 7, 8]),
        ));
        bodies.push((
            "text that is no UTF-8".into(),
            frame(&wrapped(1, &[0xff, 0xfe, 0x80])),
        ));
        bodies.push(("a field number of 0".into(), frame(&[0, 0, 0, 0])));
        bodies.push(("an endless varint".into(), frame(&[0xff; 64])));

        let calls = methods().into_iter().map(|(path, _)| {
            let (address, bodies) = (rpc.address, bodies.clone());
            async move {
                let raw = Raw::connect(address).await;
                for (what, body) in bodies {
                    if let Some(answer) = call(&raw, &path, &[], body).await {
                        let told = answer.status().is_some() || answer.reset.is_some();
                        assert!(told, "{path}: {what}: {answer:?}");
                    }
                }
            }
        });
        join_all(calls).await;
        still_serves(&rpc, "noise").await;
    });
}

#[test]
fn half_a_message_is_refused_or_means_what_is_left() {
    run(async {
        let rpc = shared().await;
        let name = "raw-malformed";
        rpc.create(name, 1).await;
        let valid = crate::support::request(name, 0, &["a", "b"]).encode_to_vec();
        let raw = Raw::connect(rpc.address).await;
        let path = "/varve.v1.ProducerService/Produce";
        let mut expected = Vec::new();
        for cut in 1..valid.len() {
            let answer = raw.call(path, &[], frame(&valid[..cut])).await;
            let status = answer.status().unwrap_or_else(|| panic!("{answer:?}"));
            // Protobuf has no end mark: what is left may be a whole request of fewer fields.
            match v1::ProduceRequest::decode(&valid[..cut]) {
                Ok(left) if left.topic == name && !left.records.is_empty() => {
                    assert_eq!(status.code(), Code::Ok, "cut at {cut}: {status:?}");
                    expected.extend(
                        left.records
                            .into_iter()
                            .map(|r| r.value.unwrap_or_default()),
                    );
                }
                Ok(_) => assert_ne!(status.code(), Code::Ok, "cut at {cut}"),
                Err(_) => {
                    let refused = [Code::InvalidArgument, Code::Internal];
                    assert!(refused.contains(&status.code()), "cut at {cut}: {status:?}");
                }
            }
        }
        // A unary call has one message: what follows it is not looked at.
        let two = [frame(&valid), frame(&valid)].concat();
        let answer = raw.call(path, &[], two.into()).await;
        if answer.status().is_some_and(|s| s.code() == Code::Ok) {
            expected.extend(["a".into(), "b".into()]);
        }
        let appended = rpc.values(name, 0).await;
        let expected: Vec<_> = expected
            .iter()
            .map(|v| String::from_utf8_lossy(v).into_owned())
            .collect();
        assert_eq!(appended, expected, "what was refused appended nothing");
        still_serves(&rpc, "malformed messages").await;
    });
}

#[test]
fn requests_that_are_no_grpc() {
    run(async {
        let rpc = shared().await;
        let raw = Raw::connect(rpc.address).await;
        let body = || frame(&v1::GetServerInfoRequest {}.encode_to_vec());
        let path = "/varve.v1.ClusterService/GetServerInfo";
        let answer = raw.call(path, &[], body()).await;
        assert_eq!(answer.status().unwrap().code(), Code::Ok);
        for kind in [
            "text/html",
            "application/json",
            "application/grpc-web",
            "grpc",
        ] {
            let answer = raw.call(path, &[("content-type", kind)], body()).await;
            assert_eq!(answer.http, 415, "{kind}: {answer:?}");
        }
        for kind in ["application/grpc+proto", "application/grpc;charset=utf-8"] {
            let answer = raw.call(path, &[("content-type", kind)], body()).await;
            assert_eq!(answer.status().unwrap().code(), Code::Ok, "{kind}");
        }
        for path in [
            "/",
            "/varve.v1.ClusterService/Nothing",
            "/varve.v9.X/Y",
            "/%00/..",
            "/a/b/c/d",
        ] {
            let answer = raw.call(path, &[], body()).await;
            let status = answer.status().map(|s| s.code());
            assert!(
                status == Some(Code::Unimplemented) || answer.http == 404,
                "{path}: {answer:?}"
            );
        }
        let answer = raw.call(path, &[("grpc-encoding", "brotli")], body()).await;
        assert_eq!(
            answer.status().unwrap().code(),
            Code::Unimplemented,
            "an encoding that is not served"
        );
        let long = "x".repeat(40_000);
        let answer = raw.call(path, &[("x-long", &long)], body()).await;
        assert!(
            answer.http != 200 || answer.reset.is_some(),
            "headers are bounded: {answer:?}"
        );
        let bad = raw
            .call(path, &[("varve-client-id", &"i".repeat(250))], body())
            .await;
        if let Some(status) = bad.status() {
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        }
        still_serves(&rpc, "requests that are no gRPC").await;
    });
}

#[test]
fn garbage_to_the_bare_port() {
    run(async {
        let rpc = shared().await;
        let hello: &[u8] = &[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
        let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
        let mut sent: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"POST /varve.v1.ProducerService/Produce HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
            b"\r\n\r\n\r\n".to_vec(),
            vec![0; 100_000],
            vec![0xff; 100_000],
            hello.to_vec(),
            preface.to_vec(),
            [preface, &[0xff; 1000]].concat(),
            // Frames of streams that were never opened, of unknown types, and larger than allowed.
            [preface, settings, &[0, 0, 4, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4]].concat(),
            [preface, settings, &[0, 0, 0, 99, 0, 0, 0, 0, 1]].concat(),
            [preface, settings, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
            // A header block that is no HPACK, and windows that overflow.
            [preface, settings, &[0, 0, 3, 1, 4, 0, 0, 0, 1, 0xff, 0xff, 0xff]].concat(),
            [preface, settings, &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]].concat(),
        ];
        sent.extend((0..20).map(|seed| noise(seed, 5000)));
        sent.extend((20..40).map(|seed| [preface, settings, &noise(seed, 5000)].concat()));
        let attempts = sent.into_iter().map(|bytes| async move {
            let mut stream = tokio::net::TcpStream::connect(rpc.address).await.unwrap();
            // The server may close before it has read all.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer);
            let ended = tokio::time::timeout(Duration::from_secs(10), read).await;
            assert!(
                ended.is_ok(),
                "the connection is left open after {:?}",
                &bytes[..bytes.len().min(40)]
            );
        });
        join_all(attempts).await;
        // Connections that say nothing at all cost nothing but themselves.
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(tokio::net::TcpStream::connect(rpc.address).await.unwrap());
        }
        still_serves(&rpc, "garbage").await;
    });
}

/// A message of `count` elements of 2 bytes in each repeated field of a request, however deep it sits.
fn crowds(request: &str, count: usize) -> Vec<(String, Vec<u8>)> {
    fn descend(
        all: &BTreeMap<String, DescriptorProto>,
        name: &str,
        path: &mut Vec<(String, i32)>,
        count: usize,
        out: &mut Vec<(String, Vec<u8>)>,
    ) {
        let Some(message) = all.get(name) else { return };
        if path.len() > 4 {
            return;
        }
        for field in &message.field {
            path.push((field.name().to_owned(), field.number()));
            if field.label() == Label::Repeated {
                let mut body = Vec::new();
                for _ in 0..count {
                    tag(&mut body, field.number());
                    body.push(0);
                }
                for (_, number) in path.iter().rev().skip(1) {
                    body = wrapped(*number, &body);
                }
                let names: Vec<_> = path.iter().map(|(name, _)| name.as_str()).collect();
                out.push((names.join("."), body));
            }
            if field.r#type() == Type::Message {
                descend(
                    all,
                    field.type_name().trim_start_matches('.'),
                    path,
                    count,
                    out,
                );
            }
            path.pop();
        }
    }
    let mut out = Vec::new();
    descend(&messages(), request, &mut Vec::new(), count, &mut out);
    out
}

/// Highest resident memory of a process so far, in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// A million empty elements in each repeated field. The node is a process of its own: its memory is
/// measured, and it must live on.
#[test]
fn a_million_empty_elements() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let pid = node.pid();
    let address: SocketAddr = node.address().parse().unwrap();
    run_within(Duration::from_secs(540), async move {
        let rpc = Rpc::connect(address).await;
        let before = peak(pid);
        let mut tried = 0;
        for (path, request) in methods() {
            // Those that a control service reads at all, and those that are too large for it.
            for count in [100_000, 1_000_000] {
                for (field, body) in crowds(&request, count) {
                    let raw = Raw::connect(address).await;
                    if let Some(answer) = call(&raw, &path, &[], frame(&body)).await {
                        let failed = answer.reset.is_some()
                            || answer.status().is_some_and(|s| s.code() != Code::Ok)
                            // An answer within a stream names the request that failed.
                            || !answer.body.is_empty();
                        assert!(failed, "{path} took {count} times {field}: {answer:?}");
                    }
                    tried += 1;
                }
            }
        }
        still_serves(&rpc, "a million empty elements").await;
        let grown = peak(pid).saturating_sub(before);
        loudly(&format!(
            "{tried} crowded messages raised the peak by {} MiB",
            grown >> 20
        ));
        assert!(tried >= 60, "{tried} repeated fields");
        assert!(grown < 512 << 20, "memory grew by {grown} bytes");
    });
    drop(node);
}
