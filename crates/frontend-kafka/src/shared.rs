//! What all connections share: the broker, bounds, fetch sessions, and names of topics by their ids.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use varve_broker_api::{
    Broker, Context, Error, Fetch, NodeState, PartitionFetched, TopicInfo, Unread,
};
use varve_tls::speech::Speech;
use varve_types::{NodeId, TopicId, TopicName};

use crate::ahead::Source;
use crate::budget::{Budget, CONTROL_MAX_BYTES};
use crate::refused::RefusedTopics;
use crate::server::{Metrics, Options};
use crate::sessions::Sessions;
use crate::translate::host_port;

/// Log lines about faults of clients in one second.
const LINES_PER_SECOND: u64 = 10;
/// What a read may have however much is on its way to readers.
const READ_LEAST_BYTES: usize = 64 * 1024;

/// Keeps clients from filling the log.
#[derive(Debug)]
pub(crate) struct LogLimit {
    began: Instant,
    /// The second, and lines in it.
    state: Mutex<(u64, u64)>,
}

impl LogLimit {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            state: Mutex::new((0, 0)),
        }
    }

    /// Whether one more line may be logged.
    pub(crate) fn allows(&self) -> bool {
        let second = self.began.elapsed().as_secs();
        let mut state = self.state.lock();
        if state.0 != second {
            *state = (second, 0);
        }
        state.1 += 1;
        state.1 <= LINES_PER_SECOND
    }
}

/// Topics as they were at one version of the metadata.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    version: u64,
    /// Ordered by name.
    pub(crate) all: Vec<TopicInfo>,
    by_id: BTreeMap<TopicId, TopicName>,
    /// Whether records get the time of their append, looked up when it is asked for.
    stamped: Vec<OnceLock<bool>>,
}

impl Topics {
    /// The name of a topic.
    pub(crate) fn name(&self, id: TopicId) -> Option<&TopicName> {
        self.by_id.get(&id)
    }

    /// The topic of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&TopicInfo> {
        let found = self.all.binary_search_by(|t| t.name.as_str().cmp(name));
        found.ok().map(|at| &self.all[at])
    }

    /// Whether records of that topic get the time of their append.
    pub(crate) fn stamped(&self, broker: &impl Broker, name: &str) -> bool {
        let found = self.all.binary_search_by(|t| t.name.as_str().cmp(name));
        let Ok(at) = found else {
            return false;
        };
        *self.stamped[at].get_or_init(|| {
            let configs = broker.topic_configs(&Context::anonymous(), &self.all[at].name);
            let mut configs = configs.unwrap_or_default().into_iter();
            configs.any(|c| c.name == "message.timestamp.type" && c.value == "LogAppendTime")
        })
    }
}

/// A node that clients can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) node: NodeId,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) rack: String,
}

/// How many payloads are unpacked at a time: more than there are cores would only take more memory.
fn unpacking_max() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared<B> {
    pub(crate) broker: Arc<B>,
    pub(crate) metrics: Metrics,
    pub(crate) options: Options,
    pub(crate) budget: Arc<Budget>,
    /// Leave to unpack what may grow large: each takes memory that the budget does not count.
    pub(crate) unpacking: Arc<Semaphore>,
    pub(crate) log_limit: LogLimit,
    pub(crate) refused: RefusedTopics,
    pub(crate) sessions: Mutex<Sessions>,
    /// This node's.
    pub(crate) node: NodeId,
    advertised: (String, u16),
    topics: Mutex<Arc<Topics>>,
    began: Instant,
}

impl<B: Broker> Shared<B> {
    /// `None`: the advertised address is not `host:port`.
    pub(crate) fn new(broker: Arc<B>, metrics: Metrics, options: Options) -> Option<Self> {
        let advertised = host_port(&options.advertised)?;
        let info = broker.node();
        // Ids of sessions need only differ from those of the run before.
        let seed = info.now_ms as i32;
        Some(Self {
            node: info.node,
            budget: Budget::new(
                options.budget_bytes,
                options.request_max_bytes,
                options.control_budget_bytes,
                CONTROL_MAX_BYTES,
            ),
            unpacking: Arc::new(Semaphore::new(unpacking_max())),
            log_limit: LogLimit::new(),
            refused: RefusedTopics::default(),
            sessions: Mutex::new(Sessions::new(seed)),
            advertised,
            topics: Mutex::default(),
            began: Instant::now(),
            broker,
            metrics,
            options,
        })
    }

    /// Time since the start, for whoever must not have a clock.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What a client that speaks something else is told: what this port is, and where it should go.
    pub(crate) fn elsewhere(&self, speech: Speech) -> String {
        let own = format!("this is the Kafka listener of node {}", self.node);
        let nodes = self.broker.nodes();
        let grpc = nodes.iter().find(|node| node.node == self.node);
        let grpc = grpc.map_or("another port", |node| &node.address);
        let listeners = self.broker.node().listeners;
        match speech {
            Speech::Http1 => match listeners.get("http") {
                Some(http) => format!("{own}; HTTP is at {http}, gRPC at {grpc}"),
                None => format!("{own}; gRPC is at {grpc}"),
            },
            Speech::Tls => format!("{own}, and it has no TLS; gRPC is at {grpc}"),
            Speech::Http2 | Speech::Kafka => format!("{own}; gRPC is at {grpc}"),
        }
    }

    /// Counts an error that is sent to a client.
    pub(crate) fn count(&self, error: &Error) {
        self.metrics.error(error.kind.reason());
    }

    /// Topics as they are now, looked up once for each version of the metadata.
    pub(crate) fn topics(&self) -> Result<Arc<Topics>, Error> {
        let version = self.broker.metadata_version();
        {
            let known = self.topics.lock();
            if known.version == version && version != 0 {
                return Ok(Arc::clone(&known));
            }
        }
        let all = self.broker.topics(&Context::anonymous())?;
        let by_id = all.iter().map(|t| (t.id, t.name.clone())).collect();
        let topics = Arc::new(Topics {
            version,
            stamped: all.iter().map(|_| OnceLock::new()).collect(),
            all,
            by_id,
        });
        *self.topics.lock() = Arc::clone(&topics);
        Ok(topics)
    }

    /// Nodes that serve this protocol and take part, ordered by id.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let mut all: Vec<Endpoint> = Vec::new();
        for status in self.broker.nodes() {
            let address = if status.node == self.node {
                Some(self.advertised.clone())
            } else if status.state == NodeState::Offline {
                None
            } else {
                status
                    .listeners
                    .get(crate::LISTENER)
                    .and_then(|a| host_port(a))
            };
            if let Some((host, port)) = address {
                all.push(Endpoint {
                    node: status.node,
                    host,
                    port,
                    rack: status.rack,
                });
            }
        }
        if !all.iter().any(|e| e.node == self.node) {
            // Not registered yet: whoever asks has reached it nevertheless.
            let (host, port) = self.advertised.clone();
            all.push(Endpoint {
                node: self.node,
                host,
                port,
                rack: String::new(),
            });
        }
        all
    }

    /// What a read may take at present, of what it asks for.
    pub(crate) fn read_share(&self, wanted: usize) -> usize {
        wanted.min(self.options.unread.share().max(READ_LEAST_BYTES))
    }

    /// Whether little is on its way to readers.
    pub(crate) fn is_quiet(&self) -> bool {
        let unread = &self.options.unread;
        unread.held() < unread.limit() / 4
    }

    /// Bytes that may be read before anybody has asked: none when there are many on their way.
    fn spare_share(&self) -> usize {
        let unread = &self.options.unread;
        (unread.limit() / 2).saturating_sub(unread.held()) / 4
    }

    /// Counts bytes of an answer until the guard is dropped.
    pub(crate) fn outgoing(&self, bytes: usize) -> Unread {
        self.options.unread.hold(bytes)
    }
}

impl<B: Broker> Source for Shared<B> {
    fn read<'a>(
        &'a self,
        ctx: &'a Context,
        fetch: Fetch,
    ) -> BoxFuture<'a, Result<Vec<PartitionFetched>, Error>> {
        Box::pin(self.broker.fetch(ctx, fetch))
    }

    fn topic(&self, name: &TopicName) -> Option<TopicId> {
        let topics = self.topics().ok()?;
        topics.get(name.as_str()).map(|topic| topic.id)
    }

    fn room(&self) -> usize {
        self.spare_share()
    }

    fn hold(&self, bytes: usize) -> Unread {
        self.outgoing(bytes)
    }

    fn note(&self, bytes: usize, used: bool) {
        self.metrics.read_ahead(bytes, used);
    }
}
