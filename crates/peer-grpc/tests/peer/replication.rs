//! Replication streams: what goes through, how much waits, and how they end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::Endpoint;
use varve_broker::peer::{Answer, ToLeader};
use varve_partition::{FetchId, FetchRefusal};
use varve_peer_grpc::Identity;
use varve_proto::peer::v1 as pb;
use varve_proto::peer::v1::replica_service_client::ReplicaServiceClient;
use varve_types::{NodeId, Offset, limits};

use crate::fake::{
    CLUSTER, FOLLOWER, Fake, LEADER, SOON, Served, Stream, fetch, key, position, records,
    replicate, serve, serve_as, until, wire,
};

/// Answers each fetch with its own id as content.
fn echo(message: ToLeader) -> Option<Answer> {
    match message {
        ToLeader::Fetch {
            partition,
            id,
            position,
        } => {
            assert_eq!(position.from, FOLLOWER);
            assert_eq!(i64::from(partition.partition.0), position.log_end.get());
            let content = Bytes::copy_from_slice(&id.0.to_le_bytes());
            Some(records(partition.partition.0, id.0, content))
        }
        ToLeader::Progress { .. } => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_share_one_stream_and_few_messages() {
    const PARTITIONS: i32 = 3_000;
    let served = serve(Fake::new(echo)).await;
    let first = (0..PARTITIONS).map(|p| fetch(p, p as u64));
    let mut stream = replicate(&served.address, first);
    let mut ids: Vec<u64> = Vec::new();
    for answer in stream.take(PARTITIONS as usize).await {
        let id = answer.id.0;
        assert_eq!(answer.partition, key(id as i32));
        assert_eq!(answer.result.unwrap().batches[..], id.to_le_bytes());
        ids.push(id);
    }
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..PARTITIONS as u64));
    let tells = served.fake.tells.load(Ordering::SeqCst);
    assert_eq!(tells, 1, "what waits goes out in one message");
    stream.say.send(fetch(7, 9_999)).unwrap();
    assert_eq!(stream.take(1).await[0].id, FetchId(9_999));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_progress_go_through() {
    let served = serve(Fake::new(|message| match message {
        ToLeader::Fetch { partition, id, .. } => Some(Answer {
            partition,
            id,
            result: Err(FetchRefusal::OutOfRange {
                log_start: Offset::new(3).unwrap(),
            }),
        }),
        ToLeader::Progress {
            partition,
            position,
        } => {
            let told = position.log_end.get() as u64;
            Some(records(partition.partition.0, told, Bytes::new()))
        }
    }))
    .await;
    let progress = ToLeader::Progress {
        partition: key(2),
        position: position(FOLLOWER, 77),
    };
    let mut stream = replicate(&served.address, [fetch(1, 5), progress]);
    let answers = stream.take(2).await;
    assert_eq!(answers[1], records(2, 77, Bytes::new()));
    let start = Offset::new(3).unwrap();
    assert_eq!(
        answers[0].result,
        Err(FetchRefusal::OutOfRange { log_start: start })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_any_legal_size_go_through() {
    let served = serve(Fake::new(|message| match message {
        ToLeader::Fetch { partition, id, .. } => {
            let content = vec![id.0 as u8; id.0 as usize];
            Some(records(partition.partition.0, id.0, content.into()))
        }
        ToLeader::Progress { .. } => None,
    }))
    .await;
    let sizes = [
        limits::BUILT_BATCH_MAX_BYTES,
        0,
        limits::READ_CHUNK_BYTES,
        1,
        limits::BUILT_BATCH_MAX_BYTES,
        700_000,
        700_001,
        700_002,
    ];
    let first = sizes.iter().map(|n| fetch(0, *n as u64));
    let mut stream = replicate(&served.address, first);
    for (answer, size) in stream.take(sizes.len()).await.into_iter().zip(sizes) {
        let batches = answer.result.unwrap().batches;
        assert_eq!(batches.len(), size);
        assert!(batches.iter().all(|b| *b == size as u8));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_follower_holds_up_reading() {
    /// Windows, send buffer, and what is on its way between them, in reads of one mebibyte.
    const MOST: usize = 12;
    let mut fake = Fake::new(echo);
    fake.flood = Some(1024 * 1024);
    let served = serve(fake).await;
    let reads = || served.fake.reads.load(Ordering::SeqCst);
    let channel = Endpoint::from_shared(format!("http://{}", served.address))
        .unwrap()
        .initial_stream_window_size(limits::PEER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .connect_lazy();
    let mut client = ReplicaServiceClient::new(channel)
        .max_decoding_message_size(limits::PEER_RESPONSE_MAX_BYTES);
    let (silent, requests) = tokio::sync::mpsc::channel::<pb::ReplicateRequest>(1);
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(requests));
    let metadata = request.metadata_mut();
    metadata.insert("varve-node", FOLLOWER.to_string().parse().unwrap());
    metadata.insert("varve-cluster", CLUSTER.to_string().parse().unwrap());
    let mut stream = client.replicate(request).await.unwrap().into_inner();
    until("the windows fill", || reads() >= 4).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waiting = reads();
    assert!(waiting <= MOST, "{waiting} reads wait for a slow follower");
    for _ in 0..40 {
        let message = tokio::time::timeout(SOON, stream.message()).await.unwrap();
        assert_eq!(message.unwrap().unwrap().answers.len(), 1);
    }
    assert!(reads() >= 40 && reads() <= 40 + MOST, "{}", reads());
    drop((silent, stream));
    until("both halves end", || {
        served.fake.halves.load(Ordering::SeqCst) == 0
    })
    .await;
}

/// How a stream that says `first` to that server ends.
async fn ended(served: &Served, first: Option<ToLeader>) -> String {
    let stream = replicate(&served.address, first);
    let Stream { say, ended, .. } = stream;
    let ended = tokio::time::timeout(SOON, ended).await.unwrap().unwrap();
    drop(say);
    let error = ended.unwrap_err();
    assert_eq!((error.node, &error.address), (LEADER, &served.address));
    error.why
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_meant_refuses() {
    let other = Identity::new(CLUSTER, NodeId(9));
    let served = serve_as(Fake::new(echo), other).await;
    let why = ended(&served, None).await;
    assert!(why.contains("this is node 9, not node 1"), "{why}");
    let elsewhere = Identity::new(varve_types::ClusterId(0xc2), LEADER);
    let served = serve_as(Fake::new(echo), elsewhere).await;
    let why = ended(&served, None).await;
    assert!(why.contains("belongs to cluster"), "{why}");
    let joining = serve_as(Fake::new(echo), Identity::joining(LEADER)).await;
    let why = ended(&joining, None).await;
    assert!(why.contains("has not joined a cluster yet"), "{why}");
    for served in [served, joining] {
        assert_eq!(served.fake.halves.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_speaks_for_itself_alone() {
    let served = serve(Fake::new(echo)).await;
    let forged = ToLeader::Progress {
        partition: key(0),
        position: position(NodeId(3), 0),
    };
    let why = ended(&served, Some(forged)).await;
    assert_eq!(why, "node 2 sent a position of node 3");
    until("both halves end", || {
        served.fake.halves.load(Ordering::SeqCst) == 0
    })
    .await;
    assert_eq!(served.fake.tells.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_wire_is_noticed_on_both_ends() {
    let served = serve(Fake::new(echo)).await;
    let cut = CancellationToken::new();
    let address = wire(served.address.clone(), cut.clone()).await;
    let mut stream = replicate(&address.to_string(), [fetch(0, 1)]);
    stream.take(1).await;
    cut.cancel();
    let error = stream.end().await.unwrap_err();
    assert_eq!(error.node, LEADER);
    assert!(!error.why.is_empty());
    until("the server has noticed", || {
        served.fake.halves.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_follower_wants_it_to() {
    let served = serve(Fake::new(echo)).await;
    let halves = || served.fake.halves.load(Ordering::SeqCst);
    let mut stream = replicate(&served.address, [fetch(0, 1)]);
    stream.take(1).await;
    assert_eq!(halves(), 2);
    let Stream { say, ended, .. } = stream;
    drop(say);
    let ended = tokio::time::timeout(SOON, ended).await.unwrap().unwrap();
    assert_eq!(ended, Ok(()));
    until("both halves end", || halves() == 0).await;
    let mut stream = replicate(&served.address, [fetch(0, 2)]);
    stream.take(1).await;
    stream.ended.abort();
    until("both halves end", || halves() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_its_streams() {
    let served = serve(Fake::new(echo)).await;
    let mut stream = replicate(&served.address, [fetch(0, 1)]);
    stream.take(1).await;
    served.shutdown.cancel();
    let error = stream.end().await.unwrap_err();
    assert_eq!(error.why, "the node has closed the stream");
    let serving = tokio::time::timeout(SOON, served.serving).await.unwrap();
    serving.unwrap().unwrap();
    until("both halves end", || {
        served.fake.halves.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_told_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = replicate(&address, []).end().await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    let error = replicate("nonsense", []).end().await.unwrap_err();
    assert!(error.why.contains("expected host:port"), "{error}");
}
