//! The proxy does what it is told, and nothing to the bytes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use varve_tests::proxy::{Proxy, Rules, Way};

/// A server that sends back what it gets, and says `end` when no more comes.
fn echo() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        while let Ok(count) = stream.read(&mut buffer) {
            if count == 0 {
                let _ = stream.write_all(b"end");
                break;
            }
            if stream.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    });
    (address, server)
}

fn through(target: &str) -> (Proxy, TcpStream) {
    let proxy = Proxy::start("127.0.0.1:0", target);
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.set_nodelay(true).unwrap();
    (proxy, stream)
}

fn round_trip(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, bytes);
}

/// Whether nothing comes for a while.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let silent = matches!(stream.read(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock);
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    silent
}

#[test]
fn bytes_come_through_late_and_in_slivers() {
    let (target, _server) = echo();
    let (proxy, mut stream) = through(&target);
    round_trip(&mut stream, &[7; 100_000]);
    proxy.set(Rules::both(Way::late(Duration::from_millis(300))));
    let started = Instant::now();
    round_trip(&mut stream, b"late");
    assert!(started.elapsed() >= Duration::from_millis(600));
    let way = Way {
        sliver: 3,
        bytes_per_second: 1_000,
        ..Way::default()
    };
    proxy.set(Rules {
        up: way,
        ..Rules::default()
    });
    let started = Instant::now();
    round_trip(&mut stream, &[9; 500]);
    assert!(
        started.elapsed() >= Duration::from_millis(400),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn each_direction_is_held_by_itself_and_loses_nothing() {
    for up in [true, false] {
        let (target, _server) = echo();
        let (proxy, mut stream) = through(&target);
        round_trip(&mut stream, b"before");
        proxy.set(match up {
            true => Rules {
                up: Way::held(),
                ..Rules::default()
            },
            false => Rules {
                down: Way::held(),
                ..Rules::default()
            },
        });
        stream.write_all(b"held").unwrap();
        assert!(is_silent(&mut stream));
        proxy.heal();
        let mut back = [0; 4];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"held");
        round_trip(&mut stream, b"after");
    }
}

#[test]
fn connections_made_while_it_is_held_hang_and_go_on() {
    let (target, _server) = echo();
    let proxy = Proxy::start("127.0.0.1:0", &target);
    proxy.set(Rules::both(Way::held()));
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.write_all(b"hello").unwrap();
    assert!(is_silent(&mut stream));
    proxy.heal();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

#[test]
fn a_reset_is_an_error_and_not_an_end() {
    let (target, server) = echo();
    let (proxy, mut stream) = through(&target);
    round_trip(&mut stream, b"before");
    proxy.reset_all();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    server.join().unwrap();
    // Others come through, unless they are refused.
    let (target, _server) = echo();
    let (proxy, mut stream) = through(&target);
    round_trip(&mut stream, b"another");
    proxy.set(Rules {
        refuse: true,
        ..Rules::default()
    });
    let mut refused = TcpStream::connect(proxy.address()).unwrap();
    refused
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert!(refused.read(&mut [0]).is_err());
    round_trip(&mut stream, b"the old one stays");
}

#[test]
fn half_closed_connections_still_answer() {
    let (target, server) = echo();
    let (proxy, mut stream) = through(&target);
    round_trip(&mut stream, b"before");
    proxy.half_close_all();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "end");
    server.join().unwrap();
    let _ = stream.shutdown(Shutdown::Both);
}
