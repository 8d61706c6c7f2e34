//! Heartbeats and messages of the consensus.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use varve_broker::peer::Peers as _;
use varve_metadata::{Heartbeat, NodeState, Output};
use varve_peer_grpc::{CallErrorKind, ClientOptions, Identity, PeerClient};
use varve_types::{BrokerEpoch, ClusterId, NodeId, limits};

use crate::fake::{CLUSTER, FOLLOWER, Fake, LEADER, SOON, client, serve, serve_as};

fn silent() -> Fake {
    Fake::new(|_| None)
}

fn beat(node: NodeId) -> Heartbeat {
    Heartbeat {
        node,
        epoch: BrokerEpoch::new(4).unwrap(),
        metadata_version_applied: 1 << 40,
        wants_shutdown: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_to_a_heartbeat_comes_through() {
    let served = serve(silent()).await;
    let client = client();
    let alive = |state, may_stop, emptied| Output::Alive {
        node: FOLLOWER,
        state,
        may_stop,
        emptied,
    };
    let outputs = [
        alive(NodeState::Fenced, true, false),
        alive(NodeState::Active, false, false),
        alive(NodeState::Draining, false, true),
        Output::MustRegister {
            node: FOLLOWER,
            found: None,
        },
        Output::MustRegister {
            node: FOLLOWER,
            found: BrokerEpoch::new(i64::MAX),
        },
        Output::NotController { node: FOLLOWER },
    ];
    for output in outputs {
        *served.fake.output.lock().unwrap() = output;
        let heard = client.heartbeat(LEADER, served.address.clone(), beat(FOLLOWER));
        assert_eq!(heard.await, Ok(output));
    }
    let beats = served.fake.beats.lock().unwrap().clone();
    assert_eq!(beats, [beat(FOLLOWER); 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_beats_for_itself_alone() {
    let served = serve(silent()).await;
    let heard = client().heartbeat(LEADER, served.address.clone(), beat(NodeId(3)));
    let error = heard.await.unwrap_err();
    assert_eq!(error.why, "node 2 sent a heartbeat of node 3");
    *served.fake.output.lock().unwrap() = Output::NotController { node: NodeId(8) };
    let heard = client().heartbeat(LEADER, served.address.clone(), beat(FOLLOWER));
    let error = heard.await.unwrap_err();
    assert!(error.why.contains("got the answer for node 8"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_the_consensus_come_through_as_they_are() {
    let served = serve(silent()).await;
    let client = client();
    for size in [1, 4_000_000, limits::PEER_RAFT_MAX_BYTES] {
        let message: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let answer = client
            .raft_call(Some(LEADER), &served.address, message.clone().into(), SOON)
            .await
            .unwrap();
        assert!(answer.payload.iter().rev().eq(message.iter()), "{size}");
    }
    let long = Bytes::from(vec![0; limits::PEER_RAFT_MAX_BYTES + 1]);
    let error = client
        .raft_call(None, &served.address, long, SOON)
        .await
        .unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Refused);
    assert!(error.why.contains("4194305 bytes was not sent"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_a_call_are_told_apart() {
    let served = serve(silent()).await;
    let one = Bytes::from_static(b"x");
    let fails = |to, address: String, message: Bytes, timeout| async move {
        let answer = client().raft_call(to, &address, message, timeout).await;
        answer.unwrap_err()
    };
    let address = served.address.clone();
    let never = fails(
        None,
        address.clone(),
        Bytes::new(),
        Duration::from_millis(300),
    )
    .await;
    assert_eq!(never.kind, CallErrorKind::TimedOut, "{never}");
    let other = fails(Some(NodeId(7)), address, one.clone(), SOON).await;
    assert_eq!(other.kind, CallErrorKind::Refused);
    assert!(other.why.contains("this is node 1, not node 7"), "{other}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    let gone = fails(None, nobody, one, SOON).await;
    assert_eq!(gone.kind, CallErrorKind::Unreachable, "{gone}");
    assert!(gone.why.contains("refused"), "{gone}");
    // One that dies while it is being asked may have done it.
    let dies = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = dies.local_addr().unwrap().to_string();
    let heard = tokio::spawn(async move {
        let (mut connection, _) = dies.accept().await.unwrap();
        let (mut all, mut some) = (Vec::new(), [0; 4096]);
        // It speaks HTTP/2 as far as an empty SETTINGS, which is enough to be asked.
        connection
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        // The message: field 1, one byte.
        while !all.windows(3).any(|window| window == b"\x0a\x01x") {
            let read = connection.read(&mut some).await.unwrap();
            assert!(read > 0, "the caller went first");
            all.extend_from_slice(&some[..read]);
        }
    });
    let lost = fails(None, address, Bytes::from_static(b"x"), SOON).await;
    heard.await.unwrap();
    assert_eq!(lost.kind, CallErrorKind::Lost, "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn consensus_reaches_whoever_is_there_and_records_only_the_same_cluster() {
    let joining = serve_as(silent(), Identity::joining(LEADER)).await;
    let member = serve(silent()).await;
    let message = Bytes::from_static(b"abc");
    let call = |identity: Identity, address: String| {
        let client = PeerClient::new(identity, ClientOptions::default());
        let message = message.clone();
        async move { client.raft_call(None, &address, message, SOON).await }
    };
    let ours = || Identity::new(CLUSTER, FOLLOWER);
    for (from, address) in [
        (ours(), &joining.address),
        (Identity::joining(FOLLOWER), &joining.address),
        (Identity::joining(FOLLOWER), &member.address),
    ] {
        let answer = call(from, address.clone()).await.unwrap();
        assert_eq!(answer.payload, b"cba"[..]);
    }
    // Who looks with the directory of another cluster is told who is there; the consensus refuses it the rest.
    let other = Identity::new(ClusterId(1), FOLLOWER);
    let answer = call(other.clone(), member.address.clone()).await.unwrap();
    assert_eq!(answer.payload, b"cba"[..]);
    let client = PeerClient::new(other, ClientOptions::default());
    let heard = client.heartbeat(LEADER, member.address.clone(), beat(FOLLOWER));
    let error = heard.await.unwrap_err();
    assert!(error.why.contains("belongs to cluster"), "{error}");
    // A node that meets itself under another name knows by the number that every answer carries; whatever needs
    // another node is refused.
    let itself = Identity::new(CLUSTER, LEADER);
    let first = call(itself.clone(), member.address.clone()).await.unwrap();
    let again = call(itself.clone(), member.address.clone()).await.unwrap();
    assert!(first.process.is_some() && first.process == again.process);
    let elsewhere = call(itself.clone(), joining.address.clone()).await.unwrap();
    assert_ne!(first.process, elsewhere.process);
    let client = PeerClient::new(itself, ClientOptions::default());
    let heard = client.heartbeat(LEADER, member.address.clone(), beat(LEADER));
    let error = heard.await.unwrap_err();
    assert!(error.why.contains("this is node 1 itself"), "{error}");
}
