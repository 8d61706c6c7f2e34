//! A node that serves what a test tells it to, a network that can be cut, and small things.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use varve_broker::peer::{
    Answer, Answers, MarkerOrder, MarkerOutcome, PeerError, PeerService, Peers as _, Records,
    Registration, Tell, ToLeader,
};
use varve_broker_api::Error;
use varve_metadata::log::Later;
use varve_metadata::{Heartbeat, NodeState, Output, PartitionKey};
use varve_partition::{FetchId, Position};
use varve_peer_grpc::{
    CallsHandle, ClientOptions, Identity, PeerClient, PeerServer, RaftHandler, ServeError,
    ServerOptions,
};
use varve_tls::{ClientTls, ServerTls};
use varve_types::{BrokerEpoch, ClusterId, LeaderEpoch, NodeId, Offset, PartitionId, TopicId};

/// Longest wait of a test for something that must happen.
pub const SOON: Duration = Duration::from_secs(20);
/// The cluster of every test.
pub const CLUSTER: ClusterId = ClusterId(0xc1);
/// The node that serves.
pub const LEADER: NodeId = NodeId(1);
/// The node that calls.
pub const FOLLOWER: NodeId = NodeId(2);

type Reply = dyn Fn(ToLeader) -> Option<Answer> + Send + Sync;

/// A leader that answers each message as it is told to.
pub struct Fake {
    pub reply: Box<Reply>,
    pub output: Mutex<Output>,
    /// Calls of `tell`.
    pub tells: AtomicUsize,
    /// Calls of `next` that gave something.
    pub reads: Arc<AtomicUsize>,
    /// Streams open now, each half counted.
    pub halves: Arc<AtomicUsize>,
    /// Every read gives one answer of this size without being asked.
    pub flood: Option<usize>,
    pub beats: Mutex<Vec<Heartbeat>>,
    /// What registrations are answered; `None`: never.
    pub registered: Mutex<Option<Result<(), Error>>>,
    pub registrations: Mutex<Vec<Registration>>,
    /// What becomes of markers.
    pub outcomes: Mutex<Vec<MarkerOutcome>>,
    pub orders: Mutex<Vec<MarkerOrder>>,
}

impl Fake {
    pub fn new(reply: impl Fn(ToLeader) -> Option<Answer> + Send + Sync + 'static) -> Self {
        Self {
            reply: Box::new(reply),
            output: Mutex::new(Output::Alive {
                node: FOLLOWER,
                state: NodeState::Active,
                may_stop: false,
                emptied: false,
            }),
            tells: AtomicUsize::new(0),
            reads: Arc::default(),
            halves: Arc::default(),
            flood: None,
            beats: Mutex::default(),
            registered: Mutex::default(),
            registrations: Mutex::default(),
            outcomes: Mutex::default(),
            orders: Mutex::default(),
        }
    }
}

struct Half(Arc<AtomicUsize>);

impl Half {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct FakeAnswers {
    due: mpsc::UnboundedReceiver<Answer>,
    reads: Arc<AtomicUsize>,
    flood: Option<usize>,
    _half: Half,
}

impl Answers for FakeAnswers {
    fn next(&mut self) -> Later<'_, Option<Vec<Answer>>> {
        Box::pin(async move {
            let answers = match self.flood {
                Some(bytes) => vec![records(0, 0, Bytes::from(vec![7; bytes]))],
                None => {
                    let mut answers = Vec::new();
                    if self.due.recv_many(&mut answers, 1_000).await == 0 {
                        // The telling half has gone; this one is told in other ways.
                        return std::future::pending().await;
                    }
                    answers
                }
            };
            self.reads.fetch_add(1, Ordering::SeqCst);
            Some(answers)
        })
    }
}

/// What the server calls.
pub struct Service(pub Arc<Fake>);

impl PeerService for Service {
    fn connected(&self, follower: NodeId) -> (Tell, Box<dyn Answers>) {
        assert_eq!(follower, FOLLOWER);
        let (sender, due) = mpsc::unbounded_channel();
        let fake = Arc::clone(&self.0);
        let half = Half::new(&fake.halves);
        let answers = FakeAnswers {
            due,
            reads: Arc::clone(&fake.reads),
            flood: fake.flood,
            _half: Half::new(&fake.halves),
        };
        let tell = move |messages: Vec<ToLeader>| {
            let _open = &half;
            fake.tells.fetch_add(1, Ordering::SeqCst);
            for answer in messages.into_iter().filter_map(|m| (fake.reply)(m)) {
                let _ = sender.send(answer);
            }
        };
        (Box::new(tell), Box::new(answers))
    }

    fn register(&self, registration: Registration) -> Later<'static, Result<(), Error>> {
        self.0.registrations.lock().unwrap().push(registration);
        let answer = self.0.registered.lock().unwrap().clone();
        Box::pin(async move {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }

    fn write_markers(&self, order: MarkerOrder) -> Later<'static, Vec<MarkerOutcome>> {
        self.0.orders.lock().unwrap().push(order);
        let outcomes = self.0.outcomes.lock().unwrap().clone();
        Box::pin(async move { outcomes })
    }

    fn heartbeat(&self, beat: Heartbeat) -> Later<'static, Output> {
        self.0.beats.lock().unwrap().push(beat);
        let output = *self.0.output.lock().unwrap();
        Box::pin(async move { output })
    }
}

/// Consensus that turns each message round; an empty one is never answered.
pub struct Mirror;

impl RaftHandler for Mirror {
    fn call(&self, from: NodeId, request: Bytes) -> Later<'static, Bytes> {
        assert!([FOLLOWER, LEADER].contains(&from));
        Box::pin(async move {
            if request.is_empty() {
                std::future::pending::<()>().await;
            }
            let mut turned = request.to_vec();
            turned.reverse();
            turned.into()
        })
    }
}

/// A running server.
pub struct Served {
    pub fake: Arc<Fake>,
    pub address: String,
    pub shutdown: CancellationToken,
    pub serving: JoinHandle<Result<(), ServeError>>,
    /// Where calls of clients are answered.
    pub calls: CallsHandle,
}

pub async fn serve(fake: Fake) -> Served {
    serve_as(fake, Identity::new(CLUSTER, LEADER)).await
}

pub async fn serve_as(fake: Fake, identity: Identity) -> Served {
    serve_by(fake, identity, None).await
}

pub async fn serve_by(fake: Fake, identity: Identity, tls: Option<Arc<ServerTls>>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fake = Arc::new(fake);
    let shutdown = CancellationToken::new();
    let options = ServerOptions {
        keepalive_interval: Duration::from_millis(500),
        keepalive_timeout: Duration::from_secs(1),
        ..Default::default()
    };
    let service = Arc::new(Service(Arc::clone(&fake)));
    let calls = CallsHandle::default();
    let mut server =
        PeerServer::new(identity, service, Arc::new(Mirror), options).with_calls(calls.clone());
    if let Some(tls) = tls {
        server = server.with_tls(tls);
    }
    let serving = tokio::spawn(server.serve(listener, shutdown.clone()));
    Served {
        fake,
        address,
        shutdown,
        serving,
        calls,
    }
}

/// A client of the follower.
pub fn client() -> PeerClient {
    client_by(None)
}

pub fn client_by(tls: Option<Arc<ClientTls>>) -> PeerClient {
    let options = ClientOptions {
        keepalive_interval: Duration::from_millis(500),
        keepalive_timeout: Duration::from_secs(1),
        heartbeat_timeout: SOON,
        ..Default::default()
    };
    let identity = Identity::new(CLUSTER, FOLLOWER);
    match tls {
        Some(tls) => PeerClient::with_tls(identity, options, tls),
        None => PeerClient::new(identity, options),
    }
}

/// A stream to a leader.
pub struct Stream {
    /// Where what is said goes in; dropping it ends the stream.
    pub say: mpsc::UnboundedSender<ToLeader>,
    pub answers: mpsc::UnboundedReceiver<Answer>,
    pub ended: JoinHandle<Result<(), PeerError>>,
}

/// Opens a stream that says these things first.
pub fn replicate(address: &str, first: impl IntoIterator<Item = ToLeader>) -> Stream {
    replicate_by(&client(), address, first)
}

pub fn replicate_by(
    client: &PeerClient,
    address: &str,
    first: impl IntoIterator<Item = ToLeader>,
) -> Stream {
    let (say, outgoing) = mpsc::unbounded_channel();
    for message in first {
        say.send(message).unwrap();
    }
    let (sender, answers) = mpsc::unbounded_channel();
    let incoming = Arc::new(move |answers: Vec<Answer>| {
        for answer in answers {
            let _ = sender.send(answer);
        }
    });
    let ended = client.replicate(LEADER, address.to_owned(), outgoing, incoming);
    Stream {
        say,
        answers,
        ended: tokio::spawn(ended),
    }
}

impl Stream {
    /// The next so many answers.
    pub async fn take(&mut self, count: usize) -> Vec<Answer> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let next = tokio::time::timeout(SOON, self.answers.recv()).await;
            taken.push(next.expect("an answer comes").expect("the stream is open"));
        }
        taken
    }

    /// How it ended.
    pub async fn end(self) -> Result<(), PeerError> {
        tokio::time::timeout(SOON, self.ended)
            .await
            .expect("the stream ends")
            .unwrap()
    }
}

pub fn key(partition: i32) -> PartitionKey {
    PartitionKey {
        topic: TopicId(0xabc),
        partition: PartitionId(partition),
    }
}

pub fn position(from: NodeId, log_end: i64) -> Position {
    Position {
        from,
        broker_epoch: BrokerEpoch::ZERO,
        leader_epoch: LeaderEpoch::ZERO,
        partition_epoch: 0,
        sequence: 1,
        log_end: Offset::new(log_end).unwrap(),
        last_epoch: None,
        flushed: Offset::ZERO,
    }
}

pub fn fetch(partition: i32, id: u64) -> ToLeader {
    ToLeader::Fetch {
        partition: key(partition),
        id: FetchId(id),
        position: position(FOLLOWER, i64::from(partition)),
    }
}

pub fn records(partition: i32, id: u64, batches: Bytes) -> Answer {
    Answer {
        partition: key(partition),
        id: FetchId(id),
        result: Ok(Records {
            batches,
            high_watermark: Offset::new(5).unwrap(),
            log_start: Offset::ZERO,
        }),
    }
}

/// Waits until `holds`.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A wire to `target` that goes dead without a word when `cut` is cancelled.
pub async fn wire(target: String, cut: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(&target).await.unwrap();
            let cut = cut.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = cut.cancelled() => {
                        // Both ends stay open: nobody hears anything any more.
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    });
    address
}
