//! Nodes that show each other certificates.

use std::sync::Arc;

use bytes::Bytes;
use varve_broker::peer::{Peers as _, ToLeader};
use varve_metadata::{Heartbeat, Output};
use varve_peer_grpc::{CallErrorKind, Identity};
use varve_tls::{Callers, ClientFiles, ClientTls, ServerFiles, ServerTls};
use varve_types::{BrokerEpoch, limits};

use crate::ca::Ca;
use crate::fake::{
    CLUSTER, FOLLOWER, Fake, LEADER, SOON, Served, client, client_by, fetch, records, replicate_by,
    serve, serve_by,
};

const BEAT: Heartbeat = Heartbeat {
    node: FOLLOWER,
    epoch: BrokerEpoch::ZERO,
    metadata_version_applied: 0,
    wants_shutdown: false,
};

/// A leader whose certificate is that of `node`.
async fn leader(ca: &Ca, node: i32) -> Served {
    let (cert, key) = ca.node(node);
    let callers = Callers::SignedBy(ca.file.clone());
    let tls = ServerTls::load(ServerFiles { cert, key, callers }).unwrap();
    let fake = Fake::new(|message| match message {
        ToLeader::Fetch { partition, id, .. } => {
            let content = Bytes::from(vec![1; limits::BUILT_BATCH_MAX_BYTES]);
            Some(records(partition.partition.0, id.0, content))
        }
        ToLeader::Progress { .. } => None,
    });
    serve_by(fake, Identity::new(CLUSTER, LEADER), Some(tls)).await
}

/// What a follower with the certificate of `node` has.
fn shown(ca: &Ca, node: Option<i32>) -> Option<Arc<ClientTls>> {
    let files = ClientFiles {
        ca: Some(ca.file.clone()),
        identity: node.map(|node| ca.node(node)),
    };
    Some(ClientTls::load(files).unwrap())
}

/// Why a heartbeat is not heard.
async fn refused(served: &Served, tls: Option<Arc<ClientTls>>) -> String {
    let heard = client_by(tls).heartbeat(LEADER, served.address.clone(), BEAT);
    heard.await.unwrap_err().why
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_certificates_understand_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new(dir.path(), "ca");
    let served = leader(&ca, 1).await;
    let client = client_by(shown(&ca, Some(2)));
    let heard = client.heartbeat(LEADER, served.address.clone(), BEAT).await;
    assert!(matches!(heard, Ok(Output::Alive { .. })), "{heard:?}");
    let message = Bytes::from(vec![3; limits::PEER_RAFT_MAX_BYTES]);
    for to in [None, Some(LEADER)] {
        let answer = client.raft_call(to, &served.address, message.clone(), SOON);
        assert_eq!(answer.await.unwrap().payload, message);
    }
    let mut stream = replicate_by(&client, &served.address, [fetch(0, 1), fetch(0, 2)]);
    for answer in stream.take(2).await {
        assert_eq!(
            answer.result.unwrap().batches.len(),
            limits::BUILT_BATCH_MAX_BYTES
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_pose_as_another() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new(dir.path(), "ca");
    let served = leader(&ca, 1).await;
    let client = client_by(shown(&ca, Some(3)));
    let why = refused(&served, shown(&ca, Some(3))).await;
    let expected =
        "the caller says that it is node 2, but its certificate is node 3's; nothing was done";
    assert_eq!(why, expected);
    let call = client.raft_call(None, &served.address, Bytes::from_static(b"x"), SOON);
    let error = call.await.unwrap_err();
    assert_eq!(
        (error.kind, error.why.as_str()),
        (CallErrorKind::Refused, expected)
    );
    let stream = replicate_by(&client, &served.address, []);
    assert_eq!(stream.end().await.unwrap_err().why, expected);
    let files = ClientFiles {
        ca: Some(ca.file.clone()),
        identity: Some(ca.issue("person", &["someone.example", "peer.varve"])),
    };
    let why = refused(&served, Some(ClientTls::load(files).unwrap())).await;
    assert!(why.contains("its certificate names no node"), "{why}");
    assert!(served.fake.beats.lock().unwrap().is_empty());
    let impostor = leader(&ca, 9).await;
    let why = refused(&impostor, shown(&ca, Some(2))).await;
    assert!(why.contains("is for another name"), "{why}");
    assert!(impostor.fake.beats.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_not_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (Ca::new(dir.path(), "ca"), Ca::new(dir.path(), "other"));
    let served = leader(&ca, 1).await;
    let why = refused(&served, shown(&ca, None)).await;
    assert!(why.contains("requires a certificate"), "{why}");
    let files = ClientFiles {
        ca: Some(ca.file.clone()),
        identity: Some(other.node(2)),
    };
    let why = refused(&served, Some(ClientTls::load(files).unwrap())).await;
    assert!(why.contains("does not know the CA"), "{why}");
    let old = ca.issue_until("old", &["node-2.peer.varve"], 2020);
    let files = ClientFiles {
        ca: Some(ca.file.clone()),
        identity: Some(old),
    };
    let why = refused(&served, Some(ClientTls::load(files).unwrap())).await;
    assert!(why.contains("has expired"), "{why}");
    let strange = leader(&other, 1).await;
    let why = refused(&strange, shown(&ca, Some(2))).await;
    assert!(why.contains("is not signed by a CA"), "{why}");
    assert!(served.fake.beats.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_on_one_side_only_is_said_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new(dir.path(), "ca");
    let served = leader(&ca, 1).await;
    let heard = client().heartbeat(LEADER, served.address.clone(), BEAT);
    let why = heard.await.unwrap_err().why;
    assert!(why.contains("the server speaks TLS here"), "{why}");
    let plain = serve(Fake::new(|_| None)).await;
    let why = refused(&plain, shown(&ca, Some(2))).await;
    assert!(why.contains("the server does not speak TLS here"), "{why}");
}
