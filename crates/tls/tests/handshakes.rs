//! Handshakes over loopback with certificates of the test's own: who is let in, what is said to those who are
//! not, and files that change under a running listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "support/ca.rs"]
mod ca;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ca::Ca;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower::Service as _;
use varve_tls::{
    Accepted, Callers, ClientFiles, ClientTls, ConnectError, Connector, Reload, ServerFiles,
    ServerTls, Socket, TlsError, watch,
};
use varve_types::NodeId;

type Pair = (PathBuf, PathBuf);

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn server((cert, key): Pair, callers: Option<&Ca>) -> Arc<ServerTls> {
    let callers = callers.map_or(Callers::Anyone, |ca| Callers::SignedBy(ca.file.clone()));
    let files = ServerFiles { cert, key, callers };
    ServerTls::load(files).unwrap()
}

fn client(ca: &Ca, identity: Option<Pair>) -> Arc<ClientTls> {
    let ca = Some(ca.file.clone());
    ClientTls::load(ClientFiles { ca, identity }).unwrap()
}

/// Connects, says a word and hears one. The node that the server saw, or why the client got nothing.
async fn attempt(
    server: Option<Arc<ServerTls>>,
    client: Option<Arc<ClientTls>>,
    name: Option<&str>,
) -> Result<Option<NodeId>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = Accepted::new(Socket::Tcp(stream), server.as_deref());
        let caller = stream.caller();
        assert_eq!(caller.is_tls(), server.is_some());
        assert_eq!(caller.node(), None);
        // As an HTTP/2 server: the first to speak.
        stream.write_all(b"\0\0\0\x04\0").await.ok()?;
        stream.flush().await.ok()?;
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.ok()?;
        assert_eq!(&said, b"hello");
        Some(caller.node())
    });
    let mut connector = Connector::new(client, name.map(str::to_owned));
    let uri = format!("http://{address}").parse().unwrap();
    let talk = async {
        let mut stream = connector.call(uri).await?.into_inner();
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await?;
        std::io::Result::Ok(())
    };
    let talked = tokio::time::timeout(Duration::from_secs(20), talk).await;
    match talked.expect("a handshake ends") {
        Ok(()) => Ok(serving.await.unwrap().expect("the server heard the client")),
        Err(error) => {
            let reason = ConnectError::within(&error).map(ToString::to_string);
            Err(reason.unwrap_or_else(|| format!("no reason: {error:?}")))
        }
    }
}

#[tokio::test]
async fn certificates_open_the_door() {
    let dir = dir();
    let ca = Ca::new(dir.path(), "ca");
    let tls = server(ca.issue("server", &["localhost", "127.0.0.1"]), None);
    let seen = attempt(Some(Arc::clone(&tls)), Some(client(&ca, None)), None).await;
    assert_eq!(seen, Ok(None));
    let anyone = client(&ca, Some(ca.node(2)));
    let seen = attempt(Some(tls), Some(anyone), Some("localhost")).await;
    assert_eq!(seen, Ok(None), "nobody asked for a certificate");
    let tls = server(ca.node(1), Some(&ca));
    let two = || Some(client(&ca, Some(ca.node(2))));
    for name in ["node-1.peer.varve", "peer.varve"] {
        let seen = attempt(Some(Arc::clone(&tls)), two(), Some(name)).await;
        assert_eq!(seen, Ok(Some(NodeId(2))), "{name}");
    }
    let person = client(&ca, Some(ca.issue("person", &["someone.example"])));
    let seen = attempt(Some(tls), Some(person), Some("peer.varve")).await;
    assert_eq!(seen, Ok(None), "a certificate that names no node");
    assert_eq!(attempt(None, None, None).await, Ok(None));
}

#[tokio::test]
async fn servers_that_are_not_trusted_are_told_apart() {
    let dir = dir();
    let (ca, other) = (Ca::new(dir.path(), "ca"), Ca::new(dir.path(), "other"));
    let why = |tls: Arc<ServerTls>, name: &'static str| {
        let client = client(&ca, None);
        async move {
            attempt(Some(tls), Some(client), Some(name))
                .await
                .unwrap_err()
        }
    };
    let strange = why(server(other.node(1), None), "peer.varve").await;
    assert_eq!(
        strange,
        "the certificate of the server is not signed by a CA that this side trusts"
    );
    let old = ca.issue_until("old", &["peer.varve"], 2020);
    let old = why(server(old, None), "peer.varve").await;
    assert_eq!(old, "the server's certificate has expired");
    let named = why(server(ca.node(1), None), "node-2.peer.varve").await;
    assert!(
        named.starts_with("the certificate of the server is for another name"),
        "{named}"
    );
}

#[tokio::test]
async fn callers_that_are_not_trusted_hear_why() {
    let dir = dir();
    let (ca, other) = (Ca::new(dir.path(), "ca"), Ca::new(dir.path(), "other"));
    let tls = server(ca.node(1), Some(&ca));
    let why = |identity| {
        let (tls, client) = (Arc::clone(&tls), client(&ca, identity));
        async move {
            let seen = attempt(Some(tls), Some(client), Some("peer.varve")).await;
            seen.unwrap_err()
        }
    };
    for _ in 0..10 {
        let none = why(None).await;
        assert_eq!(
            none,
            "the server requires a certificate, but none is configured here"
        );
    }
    let strange = why(Some(other.node(2))).await;
    assert_eq!(
        strange,
        "the server does not know the CA of this side's certificate"
    );
    let old = why(Some(ca.issue_until("old", &["node-2.peer.varve"], 2020))).await;
    assert_eq!(
        old,
        "the server says that this side's certificate has expired"
    );
}

#[tokio::test]
async fn tls_on_one_side_only_is_said_plainly() {
    let dir = dir();
    let ca = Ca::new(dir.path(), "ca");
    let tls = server(ca.node(1), None);
    let why = attempt(Some(tls), None, None).await.unwrap_err();
    assert!(why.contains("the server speaks TLS here"), "{why}");
    let why = attempt(None, Some(client(&ca, None)), None).await;
    let why = why.unwrap_err();
    assert!(why.contains("the server does not speak TLS here"), "{why}");
}

#[tokio::test]
async fn new_files_are_used_and_broken_ones_are_not() {
    let dir = dir();
    let (old, new) = (Ca::new(dir.path(), "old"), Ca::new(dir.path(), "new"));
    let (cert, key) = old.issue("server", &["peer.varve"]);
    let tls = server((cert.clone(), key.clone()), None);
    let by = |ca: &Ca| {
        let (tls, client) = (Arc::clone(&tls), client(ca, None));
        async move { attempt(Some(tls), Some(client), Some("peer.varve")).await }
    };
    assert_eq!(tls.reload(), Ok(false), "nothing has changed");
    assert!(by(&old).await.is_ok() && by(&new).await.is_err());
    std::fs::write(&cert, "no certificate").unwrap();
    let fault = tls.reload().unwrap_err();
    assert!(
        matches!(&fault, TlsError::Empty { path, .. } if *path == cert),
        "{fault}"
    );
    assert!(by(&old).await.is_ok(), "the old certificate stays in use");
    let (other, _) = new.issue("other", &["peer.varve"]);
    std::fs::copy(&other, &cert).unwrap();
    let fault = tls.reload().unwrap_err();
    assert!(
        matches!(&fault, TlsError::Unusable { path, .. } if *path == cert),
        "a key of another certificate: {fault}"
    );
    assert!(by(&old).await.is_ok());
    let watching = watch(
        vec![Arc::clone(&tls) as Arc<dyn Reload>],
        Duration::from_millis(50),
    );
    let watching = tokio::spawn(watching);
    new.issue("server", &["peer.varve"]);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while by(&new).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "new files are used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(by(&old).await.is_err());
    watching.abort();
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = dir();
    let ca = Ca::new(dir.path(), "ca");
    let (cert, key) = ca.node(1);
    let load = |cert: &PathBuf, key: &PathBuf| {
        let files = ServerFiles {
            cert: cert.clone(),
            key: key.clone(),
            callers: Callers::Anyone,
        };
        ServerTls::load(files).map(drop)
    };
    assert_eq!(load(&cert, &key), Ok(()));
    let nowhere = dir.path().join("nowhere");
    let error = load(&nowhere, &key).unwrap_err().to_string();
    assert!(
        error.contains("cannot read") && error.contains("nowhere"),
        "{error}"
    );
    let error = load(&cert, &cert).unwrap_err().to_string();
    assert!(
        error.ends_with("node-1.crt holds no private key"),
        "{error}"
    );
    let shown = format!("{:?}", server((cert, key), None));
    assert!(!shown.contains("PRIVATE"), "{shown}");
    let missing = ClientFiles {
        ca: Some(nowhere),
        identity: None,
    };
    assert!(ClientTls::load(missing).is_err());
}
