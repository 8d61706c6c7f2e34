//! Calls of clients that a node passes on: who may make them, which ones, and who they are said to be from.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use tonic::body::Body;
use tonic::{Code, Request, Status};
use varve_peer_grpc::{CallService, PeerClient};
use varve_proto::v1;
use varve_proto::v1::cluster_service_client::ClusterServiceClient;
use varve_proto::v1::producer_service_client::ProducerServiceClient;
use varve_proto::v1::transaction_service_client::TransactionServiceClient;
use varve_tls::{Callers, ClientFiles, ClientTls, ServerFiles, ServerTls};

use crate::ca::Ca;
use crate::fake::{CLUSTER, Fake, LEADER, Served, client, client_by, serve, serve_by};
use varve_peer_grpc::Identity;

/// What was heard: the method, and who passed it on.
type Heard = Arc<Mutex<Vec<(String, String)>>>;

fn silent() -> Fake {
    Fake::new(|_| None)
}

/// An API that notes what it hears and refuses it.
fn api(heard: &Heard) -> CallService {
    let heard = Arc::clone(heard);
    CallService::new(tower::service_fn(move |request: http::Request<Body>| {
        let hop = request.headers().get("varve-hop").unwrap();
        let hop = hop.to_str().unwrap().to_owned();
        let path = request.uri().path().to_owned();
        heard.lock().unwrap().push((path, hop));
        let answer = Status::aborted("heard").into_http();
        async move { Ok::<_, Infallible>(answer) }
    }))
}

async fn produce(by: &PeerClient, served: &Served) -> Status {
    let calls = by.calls(LEADER, &served.address).unwrap();
    let mut request = Request::new(v1::ProduceRequest::default());
    // What a client says of itself counts for nothing.
    request
        .metadata_mut()
        .insert("varve-hop", "9".parse().unwrap());
    let mut service = ProducerServiceClient::new(calls);
    service.produce(request).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_passes_on_what_is_meant_to_be() {
    let (served, heard) = (serve(silent()).await, Heard::default());
    let early = produce(&client(), &served).await;
    assert_eq!(early.code(), Code::Unavailable);
    assert!(early.message().contains("has not started yet"), "{early}");
    served.calls.serve(api(&heard));
    assert_eq!(produce(&client(), &served).await.message(), "heard");
    let expected = (
        "/varve.v1.ProducerService/Produce".to_owned(),
        "2".to_owned(),
    );
    assert_eq!(*heard.lock().unwrap(), [expected]);
    // Methods that no node has a reason to pass on.
    let calls = client().calls(LEADER, &served.address).unwrap();
    let mut producer = ProducerServiceClient::new(calls.clone());
    let init = producer.init_producer(v1::InitProducerRequest::default());
    let refused = init.await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("is not for nodes"), "{refused}");
    let mut cluster = ClusterServiceClient::new(calls);
    let metadata = cluster.get_metadata(v1::GetMetadataRequest::default());
    assert_eq!(metadata.await.unwrap_err().code(), Code::Unimplemented);
    // Whoever does not say which node it is.
    let plain = format!("http://{}", served.address);
    let mut stranger = ProducerServiceClient::connect(plain).await.unwrap();
    let refused = stranger.produce(v1::ProduceRequest::default()).await;
    let refused = refused.unwrap_err();
    assert!(
        refused.message().contains("varve-node is missing"),
        "{refused}"
    );
    assert_eq!(heard.lock().unwrap().len(), 1, "nothing else was heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_about_transactions_are_passed_on() {
    let (served, heard) = (serve(silent()).await, Heard::default());
    served.calls.serve(api(&heard));
    let calls = client().calls(LEADER, &served.address).unwrap();
    let mut service = TransactionServiceClient::new(calls);
    let init = v1::InitTransactionsRequest::default();
    let commit = v1::CommitTransactionOffsetsRequest::default();
    let end = v1::EndTransactionRequest::default();
    let list = v1::ListTransactionsRequest::default();
    let get = v1::GetTransactionRequest::default();
    let abort = v1::AbortTransactionRequest::default();
    let said = [
        service.init_transactions(init).await.unwrap_err(),
        service
            .commit_transaction_offsets(commit)
            .await
            .unwrap_err(),
        service.end_transaction(end).await.unwrap_err(),
        service.list_transactions(list).await.unwrap_err(),
        service.get_transaction(get).await.unwrap_err(),
        service.abort_transaction(abort).await.unwrap_err(),
    ];
    assert!(said.iter().all(|s| s.message() == "heard"), "{said:?}");
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 6);
    let path = "/varve.v1.TransactionService/";
    assert!(
        heard
            .iter()
            .all(|(p, hop)| p.starts_with(path) && hop == "2")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_passes_calls_on_in_the_name_of_another_node() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new(dir.path(), "ca");
    let (cert, key) = ca.node(LEADER.0);
    let callers = Callers::SignedBy(ca.file.clone());
    let tls = ServerTls::load(ServerFiles { cert, key, callers }).unwrap();
    let served = serve_by(silent(), Identity::new(CLUSTER, LEADER), Some(tls)).await;
    let heard = Heard::default();
    served.calls.serve(api(&heard));
    let by = |identity| {
        let files = ClientFiles {
            ca: Some(ca.file.clone()),
            identity: Some(identity),
        };
        client_by(Some(ClientTls::load(files).unwrap()))
    };
    for (shown, says) in [
        (ca.node(3), "its certificate is node 3's"),
        (
            ca.issue("client", &["somebody.example"]),
            "its certificate names no node",
        ),
    ] {
        let refused = produce(&by(shown), &served).await;
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains(says), "{refused}");
    }
    assert!(heard.lock().unwrap().is_empty());
    assert_eq!(produce(&by(ca.node(2)), &served).await.message(), "heard");
}
