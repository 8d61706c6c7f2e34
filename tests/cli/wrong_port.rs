//! The wrong port: what a client reads that was given another listener's, what other protocols get at each, and what
//! the node logs of it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use varve_tests::node::{Node, free_port};

use crate::{alone, run};

/// A node with a Kafka listener, and its log.
struct Listening {
    node: Node,
    kafka: String,
    _dir: tempfile::TempDir,
}

fn listening() -> Listening {
    listening_with(&[])
}

fn listening_with(settings: &[(&str, &str)]) -> Listening {
    let dir = tempfile::tempdir().unwrap();
    let kafka = format!("127.0.0.1:{}", free_port());
    let env = [
        ("VARVE_LISTENERS__KAFKA__ADDRESS", kafka.as_str()),
        ("VARVE_LISTENERS__KAFKA__TLS__MODE", "insecure"),
    ];
    let env = [&env[..], settings].concat();
    let mut node = Node::prepare(&dir.path().join("data"), &env);
    node.keep_log(&dir.path().join("log"));
    node.restart();
    Listening {
        node,
        kafka,
        _dir: dir,
    }
}

/// Sends bytes and reads what comes until the other side closes.
fn talk(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end as well.
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn commands_name_the_right_port() {
    let at = listening();
    let grpc = at.node.address();
    let http = format!("127.0.0.1:{}", at.node.http_port());
    for (wrong, what) in [(&at.kafka, "the Kafka listener"), (&http, "the HTTP port")] {
        let error = alone(&["-b", wrong, "topic", "list"]).fails(1);
        assert!(error.contains(what), "{error}");
        assert!(error.contains(&format!("gRPC is at {grpc}")), "{error}");
        for riddle in ["transport error", "compression flag", "UNKNOWN"] {
            assert!(!error.contains(riddle), "{error}");
        }
    }
    at.node.logs("this looks like HTTP/2 (gRPC)");
    run(&at.node, &["topic", "list"]).ok();
}

#[test]
fn a_port_that_says_nothing_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            kept.push(stream);
        }
    });
    let error = alone(&["-b", &address, "topic", "list"]).fails(1);
    assert!(error.contains(&address), "{error}");
    assert!(error.contains("sent nothing"), "{error}");
    assert!(error.contains("not a gRPC port"), "{error}");
}

#[test]
fn other_protocols_at_the_kafka_port_read_where_to_go() {
    let at = listening();
    let grpc = at.node.address();
    let web = talk(&at.kafka, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let web = String::from_utf8_lossy(&web).into_owned();
    assert!(web.starts_with("HTTP/1.1 400 "), "{web}");
    assert!(web.contains("the Kafka listener of node 1"), "{web}");
    let http = format!("HTTP is at 127.0.0.1:{}", at.node.http_port());
    assert!(web.contains(&http) && web.contains(&grpc), "{web}");
    at.node.logs("this looks like HTTP/1");
    // A ClientHello; plaintext is what TLS clients understand as plaintext.
    let hello = [&[0x16, 3, 1, 0, 0x60, 1, 0, 0, 0x5c, 3, 3][..], &[7; 0x5a]].concat();
    let tls = talk(&at.kafka, &hello);
    assert!(tls.starts_with(b"HTTP/1.1 400 "), "{tls:?}");
    at.node.logs("this looks like TLS");
    let log = at.node.log();
    assert!(!log.contains("bytes is announced"), "{log}");
}

#[test]
fn other_protocols_at_the_grpc_port_read_where_to_go() {
    let at = listening();
    let grpc = at.node.address();
    let web = talk(&grpc, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let web = String::from_utf8_lossy(&web).into_owned();
    assert!(web.starts_with("HTTP/1.1 400 "), "{web}");
    let http = format!("127.0.0.1:{}", at.node.http_port());
    assert!(web.contains(&http), "{web}");
    at.node.logs("HTTP/1");
    // ApiVersions as kcat -L begins with it: there is no answer that it would understand.
    let versions = [
        0, 0, 0, 17, 0, 18, 0, 3, 0, 0, 0, 1, 0, 4, b'k', b'c', b'a', b't', 0, 1, 1,
    ];
    assert_eq!(talk(&grpc, &versions), b"");
    at.node
        .logs(&format!("Kafka's protocol is at {}", at.kafka));
    let tls = talk(&grpc, &[&[0x16, 3, 1, 0, 0x60, 1][..], &[7; 0x5f]].concat());
    assert!(tls.starts_with(b"HTTP/1.1 400 "), "{tls:?}");
    at.node.logs("it has no TLS");
    // By TLS, a command says which side is wrong.
    let error = alone(&["-b", &grpc, "--tls", "topic", "list", "--timeout", "3s"]).fails(1);
    assert!(error.contains("does not speak TLS here"), "{error}");
    let noise = talk(&grpc, b"\x00\xff\x00\xff hello hello");
    assert_eq!(noise, b"");
    run(&at.node, &["topic", "list"]).ok();
}

#[test]
fn strangers_do_not_fill_the_log() {
    let at = listening();
    let grpc = at.node.address();
    for _ in 0..100 {
        talk(&grpc, b"GET / HTTP/1.0\r\n\r\n");
    }
    at.node.logs("does not speak gRPC");
    let log = at.node.log();
    let lines = log.matches("does not speak gRPC").count();
    assert!(lines < 100, "{lines} lines about 100 connections");
    run(&at.node, &["topic", "list"]).ok();
}

#[test]
fn a_node_at_its_limit_of_connections_says_so() {
    let most = 20;
    let at = listening_with(&[("VARVE_LISTENERS__CLIENT__MAX_CONNECTIONS", "20")]);
    let grpc = at.node.address();
    let open = || {
        let mut stream = TcpStream::connect(&grpc).unwrap();
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        stream
    };
    let held: Vec<TcpStream> = (0..most).map(|_| open()).collect();
    let refused = varve_tests::wait::until("a refusal", crate::PATIENCE, || {
        let ran = run(&at.node, &["topic", "list", "--timeout", "3s"]);
        (ran.code != Some(0)).then_some(ran)
    });
    let error = refused.fails(1);
    for words in [
        "node 1 refuses new connections",
        "the limit that listeners.client.max_connections sets",
    ] {
        assert!(error.contains(words), "{error}");
    }
    drop(held);
    varve_tests::wait::until("room again", crate::PATIENCE, || {
        run(&at.node, &["topic", "list"]).succeeded()
    });
}
