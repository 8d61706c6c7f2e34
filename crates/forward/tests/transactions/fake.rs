//! A broker that can answer nothing itself and says who can, and the node that can: it notes what it is sent and
//! answers what a test tells it to.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use varve_broker_api::*;
use varve_forward::{Forwarding, Line, Lines, Metrics, line};
use varve_types::{
    ClusterId, ErrorKind, GroupName, LeaderEpoch, MemberId, NodeId, Offset, ProducerId, TopicId,
    TopicName, TopicPartition, TransactionalId,
};

/// The node that is asked.
pub const ME: NodeId = NodeId(1);
/// The node that knows.
pub const OTHER: NodeId = NodeId(2);

/// What the broker itself says. Everything that is not about transactions, appends and reads is of no use here.
#[derive(Debug, Default)]
pub struct Local {
    /// Transactional ids of this node's own.
    pub own: Vec<TransactionListing>,
}

fn elsewhere(kind: ErrorKind) -> Error {
    let hint = LeaderHint {
        node: OTHER,
        address: "node-2:8270".to_owned(),
        epoch: LeaderEpoch::ZERO,
    };
    Error {
        leader: Some(Box::new(hint)),
        ..Error::new(kind, "ask node 2")
    }
}

fn not_here<T>() -> Result<T> {
    Err(elsewhere(ErrorKind::NotCoordinator))
}

fn useless<T>() -> Result<T> {
    Err(Error::new(
        ErrorKind::UnsupportedFeature,
        "not in this test",
    ))
}

impl Broker for Local {
    type Receipt = Ready<Result<Appended>>;

    async fn produce(&self, _: &Context, _: Produce) -> Result<Self::Receipt> {
        Ok(ready(Err(elsewhere(ErrorKind::NotLeader))))
    }

    async fn fetch(&self, _: &Context, request: Fetch) -> Result<Vec<PartitionFetched>> {
        let failed = |wanted: FetchPartition| PartitionFetched {
            topic: wanted.topic,
            partition: wanted.partition,
            result: Err(elsewhere(ErrorKind::NotLeader)),
        };
        Ok(request.partitions.into_iter().map(failed).collect())
    }

    async fn list_offsets(&self, _: &Context, all: Vec<OffsetQuery>) -> Vec<Result<OffsetFound>> {
        let failed = |_| Err(elsewhere(ErrorKind::NotLeader));
        all.into_iter().map(failed).collect()
    }

    async fn init_transactions(&self, _: &Context, _: InitTransactions) -> Result<ProducerId> {
        not_here()
    }

    async fn add_to_transaction(&self, _: &Context, _: AddToTransaction) -> Result<()> {
        not_here()
    }

    async fn commit_transaction_offsets(
        &self,
        _: &Context,
        _: CommitTransactionOffsets,
    ) -> Result<Vec<Result<()>>> {
        not_here()
    }

    async fn end_transaction(&self, _: &Context, _: EndTransaction) -> Result<ProducerId> {
        not_here()
    }

    async fn transactions(&self, _: &Context) -> Result<Vec<TransactionListing>> {
        Ok(self.own.clone())
    }

    async fn transaction(&self, _: &Context, _: &TransactionalId) -> Result<TransactionInfo> {
        not_here()
    }

    async fn abort_transaction(&self, _: &Context, _: &TransactionalId) -> Result<()> {
        not_here()
    }

    async fn init_producer(&self, _: &Context, _: InitProducer) -> Result<ProducerSession> {
        useless()
    }

    async fn create_topic(&self, _: &Context, _: CreateTopic) -> Result<TopicInfo> {
        useless()
    }

    async fn delete_topic(&self, _: &Context, _: &TopicName, _: Option<TopicId>) -> Result<()> {
        useless()
    }

    fn topic(&self, _: &Context, _: &TopicName) -> Result<TopicInfo> {
        useless()
    }

    fn topics(&self, _: &Context) -> Result<Vec<TopicInfo>> {
        useless()
    }

    fn partitions(&self, _: &Context, _: &TopicName) -> Result<Vec<PartitionInfo>> {
        useless()
    }

    fn topic_configs(&self, _: &Context, _: &TopicName) -> Result<Vec<ConfigEntry>> {
        useless()
    }

    async fn update_topic_configs(&self, _: &Context, _: UpdateConfigs) -> Result<TopicInfo> {
        useless()
    }

    async fn add_partitions(&self, _: &Context, _: AddPartitions) -> Result<TopicInfo> {
        useless()
    }

    async fn delete_records(&self, _: &Context, _: Vec<DeleteBefore>) -> Vec<Result<Offset>> {
        Vec::new()
    }

    async fn heartbeat(&self, _: &Context, _: Heartbeat) -> Result<HeartbeatReply> {
        useless()
    }

    async fn commit_offsets(&self, _: &Context, _: CommitOffsets) -> Result<Vec<Result<()>>> {
        useless()
    }

    async fn committed_offsets(&self, _: &Context, _: GetOffsets) -> Result<Vec<CommittedOffset>> {
        useless()
    }

    async fn reset_offsets(&self, _: &Context, _: ResetOffsets) -> Result<Vec<CommittedOffset>> {
        useless()
    }

    async fn delete_offsets(
        &self,
        _: &Context,
        _: &GroupName,
        _: Vec<TopicPartition>,
    ) -> Result<Vec<Result<()>>> {
        useless()
    }

    async fn groups(&self, _: &Context) -> Result<Vec<GroupListing>> {
        useless()
    }

    async fn group(&self, _: &Context, _: &GroupName) -> Result<GroupInfo> {
        useless()
    }

    async fn delete_group(&self, _: &Context, _: &GroupName) -> Result<()> {
        useless()
    }

    async fn remove_members(
        &self,
        _: &Context,
        _: &GroupName,
        _: Vec<MemberId>,
    ) -> Result<Vec<MemberId>> {
        useless()
    }

    fn node(&self) -> NodeInfo {
        NodeInfo {
            version: "0.0.0",
            revision: "",
            cluster: ClusterId(1),
            node: ME,
            features: Vec::new(),
            max_request_bytes: 1 << 20,
            max_fetch_bytes: 1 << 20,
            request_timeout_ms: 5_000,
            now_ms: 0,
            listeners: Default::default(),
        }
    }

    fn nodes(&self) -> Vec<NodeStatus> {
        let node = |node: NodeId| NodeStatus {
            node,
            address: format!("node-{node}:8270"),
            listeners: Default::default(),
            rack: String::new(),
            state: NodeState::Active,
            version: String::new(),
            controller: false,
        };
        vec![node(ME), node(OTHER)]
    }

    fn health(&self) -> ClusterHealth {
        ClusterHealth::default()
    }

    fn metadata_version(&self) -> u64 {
        1
    }

    async fn metadata_newest(&self) -> bool {
        true
    }

    async fn metadata_changed(&self, _: u64) -> u64 {
        std::future::pending().await
    }
}

/// An answer of the other node.
pub enum Answer {
    Message(Bytes),
    Refused(ErrorKind),
    /// The connection breaks when the call has been heard.
    Broken,
}

pub fn message(message: &impl Message) -> Answer {
    Answer::Message(message.encode_to_vec().into())
}

/// What the other node hears: method, message without frame, and the node that passes it on.
pub type Heard = (String, Bytes, String);

/// The other node. Answers of a method are given in order.
#[derive(Default)]
pub struct Remote {
    answers: Mutex<BTreeMap<&'static str, VecDeque<Answer>>>,
    pub heard: Mutex<Vec<Heard>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

impl Remote {
    pub fn answers(&self, method: &'static str, answer: Answer) {
        let mut answers = self.answers.lock().unwrap();
        answers.entry(method).or_default().push_back(answer);
    }

    /// What was heard of a method.
    pub fn heard_of<T: Message + Default>(&self, method: &str) -> Vec<T> {
        let heard = self.heard.lock().unwrap();
        let of = heard.iter().filter(|(name, _, _)| name == method);
        of.map(|(_, bytes, _)| T::decode(bytes.clone()).unwrap())
            .collect()
    }

    async fn answer(
        self: Arc<Self>,
        request: http::Request<Body>,
    ) -> std::result::Result<http::Response<Body>, std::io::Error> {
        let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let hop = request.headers().get("varve-hop").unwrap();
        let hop = hop.to_str().unwrap().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let heard = (method.clone(), body.slice(5..), hop);
        self.heard.lock().unwrap().push(heard);
        let mut answers = self.answers.lock().unwrap();
        let due = answers.get_mut(method.as_str());
        match due.and_then(VecDeque::pop_front) {
            Some(Answer::Message(bytes)) => {
                let mut frame = BytesMut::new();
                frame.put_u8(0);
                frame.put_u32(u32::try_from(bytes.len()).unwrap());
                frame.put(bytes);
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                let body = Full::new(frame.freeze()).with_trailers(ready(Some(Ok(trailers))));
                let response = http::Response::new(Body::new(body));
                Ok(with_type(response))
            }
            Some(Answer::Refused(kind)) => {
                let details = ErrorDetails::with_error_info(kind.reason(), "varve", []);
                let status = Status::with_error_details(Code::FailedPrecondition, "no", details);
                Ok(status.into_http())
            }
            Some(Answer::Broken) => Err(std::io::ErrorKind::ConnectionReset.into()),
            None => panic!("nothing is to be answered to {method}"),
        }
    }
}

fn with_type(mut response: http::Response<Body>) -> http::Response<Body> {
    let headers = response.headers_mut();
    let value = http::HeaderValue::from_static("application/grpc");
    headers.insert(http::header::CONTENT_TYPE, value);
    response
}

#[derive(Debug)]
struct Wires(Arc<Remote>);

impl Lines for Wires {
    fn line(&self, to: NodeId) -> std::result::Result<Line, String> {
        assert_eq!(to, OTHER);
        let remote = Arc::clone(&self.0);
        Ok(line(tower::service_fn(move |request| {
            Arc::clone(&remote).answer(request)
        })))
    }
}

/// A node that passes calls on to `remote`.
pub fn node(local: Local, remote: &Arc<Remote>) -> Forwarding<Local> {
    let lines = Arc::new(Wires(Arc::clone(remote)));
    Forwarding::new(Arc::new(local), lines, Metrics::default())
}

/// A call of a client.
pub fn call() -> Context {
    Context {
        forward: Some(Arc::default()),
        ..Context::anonymous()
    }
}
