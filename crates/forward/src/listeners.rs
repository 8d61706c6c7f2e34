//! Where other nodes serve protocols beside gRPC: each is asked, again and again. What nobody asks for is not kept, and
//! nothing of it is part of the metadata: a node that cannot be asked cannot be reached by those protocols either.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use varve_broker_api::{Boxed, Broker, Context, NodeState, NodeStatus, SharedBroker};
use varve_proto::v1::GetServerInfoRequest;
use varve_types::NodeId;

use crate::Forwarding;

/// Time between looks for nodes that were not asked yet.
const LOOK: Duration = Duration::from_millis(200);
/// Time after which a node is asked again. It may have been started anew, with another address.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a node.
#[derive(Debug)]
struct Known {
    /// When it is to be asked again.
    next: Instant,
    /// Time until then, doubled up to [`AGAIN`] where it gives no answer: it is starting, or its program is older than
    /// the question.
    pause: Duration,
    /// Its listeners by their names.
    listeners: BTreeMap<String, String>,
}

impl Known {
    fn new() -> Self {
        Self {
            next: Instant::now(),
            pause: LOOK / 2,
            listeners: BTreeMap::new(),
        }
    }
}

/// What nodes said.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<BTreeMap<NodeId, Known>>);

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what is known to nodes.
    pub(crate) fn known(&self, mut nodes: Vec<NodeStatus>) -> Vec<NodeStatus> {
        let known = self.lock();
        for node in &mut nodes {
            if let Some(known) = known.get(&node.node) {
                node.listeners.clone_from(&known.listeners);
            }
        }
        nodes
    }
}

impl Forwarding<SharedBroker> {
    /// As [`Self::keep_listeners`], compiled here for every node.
    pub fn run_listeners(self) -> Boxed<'static, ()> {
        Box::pin(async move { self.keep_listeners().await })
    }
}

impl<B: Broker> Forwarding<B> {
    /// Keeps what is known of other nodes' listeners up to date, until dropped.
    pub async fn keep_listeners(&self) {
        loop {
            let nodes = self.broker.nodes();
            let now = Instant::now();
            self.listeners
                .lock()
                .retain(|id, _| nodes.iter().any(|node| node.node == *id));
            let due = |node: &&NodeStatus| {
                let known = self.listeners.lock();
                let next = known.get(&node.node).map(|known| known.next);
                let other = node.node != self.me() && node.state != NodeState::Offline;
                other && next.is_none_or(|next| next <= now)
            };
            let due: Vec<NodeId> = nodes.iter().filter(due).map(|node| node.node).collect();
            join_all(due.into_iter().map(|node| self.ask_listeners(node))).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ask_listeners(&self, node: NodeId) {
        let answer = async {
            let mut service = self.nodes.cluster(node)?;
            let ctx = Context::internal();
            let request = self.nodes.request(&ctx, GetServerInfoRequest {}, PATIENCE);
            let answer = service.get_server_info(request).await;
            answer.map_err(|status| status.to_string())
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let mut known = self.listeners.lock();
        let known = known.entry(node).or_insert_with(Known::new);
        match answer {
            Ok(info) => {
                known.pause = AGAIN;
                known.listeners = info.into_inner().listeners.into_iter().collect();
            }
            // What it said before still holds, most likely.
            Err(why) => {
                known.pause = (known.pause * 2).min(AGAIN);
                tracing::debug!(node = node.0, why, "its listeners are not known");
            }
        }
        known.next = Instant::now() + known.pause;
    }
}
