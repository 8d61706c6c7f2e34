//! What makes a broker one node of several: it registers and stays alive, opens and closes partitions as
//! the metadata says, copies from leaders and serves followers, asks for changes of in-sync replicas, and
//! runs the controller while it leads the metadata log.
//!
//! Invariants (the rim's rules of decision 14): nothing is assigned to a core before this node has seen the
//! metadata of its own registration; a fetch that waits is answered while the same leadership lasts; a
//! replica that is removed and added again is another instance; only what every node agrees on is acted on.

mod absent;
pub(crate) mod changes;
mod controller;
pub(crate) mod fill;
pub(crate) mod followers;
pub(crate) mod isr;
pub(crate) mod join;
pub(crate) mod links;
mod member;
mod moved;
mod operate;
pub(crate) mod overview;
pub(crate) mod reconcile;
pub(crate) mod repair;
pub(crate) mod replace;
mod replicas;
mod tombstone;
mod unopened;
mod upgrade;
pub(crate) mod watermarks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use varve_broker_api::{LeaderHint, Quorum};
use varve_metadata::log::Later;
use varve_metadata::{MetadataLog, PartitionKey};
use varve_types::{BrokerEpoch, LeaderEpoch, NodeId, PartitionId, TopicName};

use crate::peer::Peers;
use crate::registry::Registry;
use crate::work::blocking;
use isr::Wish;
use links::Links;
use watermarks::Watermarks;

pub(crate) use controller::ControllerHandle;

/// Time before the controller is told again that a replica here is of no use.
const RETRY_TOLD: Duration = Duration::from_millis(500);
/// How often replicas are told that time has passed.
const TICK: Duration = Duration::from_millis(100);

/// How a node takes part in a cluster.
#[derive(Clone)]
pub struct ClusterConfig {
    /// `host:port` for other nodes.
    pub peer_address: String,
    /// A silent node is given up for dead after so long.
    pub session_timeout: Duration,
    /// How often a node says that it is alive; well below the session timeout.
    pub heartbeat_interval: Duration,
    /// A replica that is behind for so long leaves the in-sync replicas (`replica.lag.time.max.ms`).
    pub replica_lag: Duration,
    /// How long a follower's fetch waits for records.
    pub park: Duration,
    /// How often the high watermarks are saved.
    pub checkpoint_interval: Duration,
    /// A node that wants to stop waits so long for its leaderships to move.
    pub drain_timeout: Duration,
    /// Whether preferred leaders lead again by themselves while this node decides (`auto.leader.rebalance.enable`).
    pub balance_leaders: bool,
    /// Whether replicas move from full nodes to empty ones by themselves while this node decides
    /// (`auto.replica.balance.enable`).
    pub balance_replicas: bool,
    /// Bytes that replicas which moves add may copy to this node in a second, all together; 0: no limit
    /// (`replica.move.max.bytes.per.second`).
    pub move_bytes_per_second: u64,
    /// A replica that was found damaged and copied again, and is found damaged again, waits so long before it
    /// is copied once more, and twice as long the next time.
    pub repair_pause: Duration,
}

impl ClusterConfig {
    /// Defaults for a node that other nodes reach at `peer_address`.
    #[must_use]
    pub const fn new(peer_address: String) -> Self {
        Self {
            peer_address,
            session_timeout: Duration::from_secs(9),
            heartbeat_interval: Duration::from_secs(2),
            replica_lag: Duration::from_secs(10),
            park: Duration::from_secs(3),
            checkpoint_interval: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
            balance_leaders: true,
            balance_replicas: true,
            move_bytes_per_second: 0,
            repair_pause: Duration::from_secs(60),
        }
    }
}

/// Who takes part in the agreement on metadata, beside what the metadata themselves say of nodes.
pub trait Members: Send + Sync + 'static {
    /// Takes a node out for good, whichever node leads. One that takes no part is no error.
    fn remove(&self, node: NodeId) -> Later<'_, Result<(), String>>;

    /// Who takes part, as far as this node knows; `None`: that is not known here.
    fn quorum(&self) -> Option<Quorum> {
        None
    }
}

/// What a broker needs of a cluster.
#[derive(Clone)]
pub struct Cluster {
    /// How it takes part.
    pub config: ClusterConfig,
    /// What all nodes agree on.
    pub log: Arc<dyn MetadataLog>,
    /// The other nodes.
    pub peers: Arc<dyn Peers>,
    /// Who agrees on the metadata; `None` where that is not for the broker to change.
    pub members: Option<Arc<dyn Members>>,
}

/// What lanes need of the cluster.
pub(crate) struct Rim {
    pub(crate) config: ClusterConfig,
    pub(crate) links: Arc<Links>,
    wishes: mpsc::UnboundedSender<Wish>,
}

impl Rim {
    pub(crate) fn new(
        config: ClusterConfig,
        links: Arc<Links>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Wish>) {
        let (wishes, told) = mpsc::unbounded_channel();
        let rim = Self {
            config,
            links,
            wishes,
        };
        (Arc::new(rim), told)
    }

    /// Asks the controller for something.
    pub(crate) fn wish(&self, wish: Wish) {
        // Nobody listens any more at the end of a shutdown.
        let _ = self.wishes.send(wish);
    }
}

/// The cluster, as the broker's other rooms see it.
pub(crate) struct InCluster {
    pub(crate) me: NodeId,
    pub(crate) config: ClusterConfig,
    pub(crate) log: Arc<dyn MetadataLog>,
    pub(crate) members: Option<Arc<dyn Members>>,
    pub(crate) links: Arc<Links>,
    pub(crate) controller: ControllerHandle,
    /// This run's registration, once it is known.
    pub(crate) epoch: watch::Receiver<Option<BrokerEpoch>>,
    /// Set when this node wants to stop; [`Member`] tells the controller.
    pub(crate) stopping: watch::Sender<bool>,
    /// Set when the controller lets it stop.
    pub(crate) may_stop: watch::Receiver<bool>,
    /// Set once this node is empty and the controller was told to forget it: it is of no use any more.
    pub(crate) gone: watch::Receiver<bool>,
    /// Every replica of this node has been in sync at one time since it was started.
    pub(crate) caught_up: AtomicBool,
    /// Version of the metadata up to which partitions are assigned here.
    pub(crate) applied: watch::Receiver<u64>,
    /// When the controller answered last.
    pub(crate) heard: watch::Receiver<tokio::time::Instant>,
    /// Damaged replicas.
    pub(crate) repairs: Arc<repair::Repairs>,
    /// The journal of the last run is done with: files may be taken out of their places.
    started: AtomicBool,
    pub(crate) producer_ids: changes::ProducerIds,
    pub(crate) tasks: Mutex<Vec<tokio::task::AbortHandle>>,
    /// Set once nothing more is said to other nodes.
    pub(crate) stopped: watch::Sender<bool>,
    /// Since when other nodes are offline.
    pub(crate) absent: absent::Absent,
    /// High watermarks as they were saved last.
    pub(crate) saved: tokio::sync::Mutex<Watermarks>,
}

impl InCluster {
    /// Tells the controller that this node wants to stop, and waits until it may: others lead what it led.
    pub(crate) async fn leave(&self) {
        if *self.may_stop.borrow() || self.is_gone() || self.stopping.send_replace(true) {
            return;
        }
        let mut may_stop = self.may_stop.clone();
        tokio::select! {
            _ = may_stop.wait_for(|may| *may) => tracing::info!(
                "other nodes have taken over this node's partitions"
            ),
            () = self.unheard() => tracing::warn!(
                seconds = self.config.session_timeout.as_secs(),
                "no controller answered within the session timeout, so other nodes have taken over \
                 where they can; this node stops"
            ),
            () = tokio::time::sleep(self.config.drain_timeout) => tracing::warn!(
                seconds = self.config.drain_timeout.as_secs(),
                "the controller did not release this node in time; it stops anyway, and clients \
                 may see errors until its session expires"
            ),
        }
    }

    /// Ends when the controller has not answered for the session timeout.
    async fn unheard(&self) {
        loop {
            let until = *self.heard.borrow() + self.config.session_timeout;
            if tokio::time::Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Every log that the journal of the last run had records of has them.
    pub(crate) fn start_repairs(&self) {
        self.started.store(true, Ordering::SeqCst);
        self.repairs.wake.notify_one();
    }

    fn started(&self) -> bool {
        self.started.load(Ordering::SeqCst)
    }

    /// Ends with the node, if not by itself before.
    pub(crate) fn keep(&self, task: &tokio::task::JoinHandle<()>) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
    }

    /// Whether this node was decommissioned and is forgotten, or about to be.
    pub(crate) fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Ends everything that talks to other nodes.
    pub(crate) fn stop(&self) {
        self.stopped.send_replace(true);
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.links.close();
    }

    /// Saves the high watermarks. `clean`: the run that ends in good order with this.
    pub(crate) async fn save(&self, registry: &Registry, clean: Option<BrokerEpoch>) {
        let view = registry.view();
        let marks = view
            .by_key
            .iter()
            .map(|(key, p)| (*key, p.high_watermark()));
        let marks = Watermarks {
            clean,
            partitions: marks.collect(),
        };
        let mut last = self.saved.lock().await;
        if *last == marks {
            return;
        }
        let (vfs, dir) = (
            Arc::clone(&registry.opener.vfs),
            registry.opener.config.data_dir.clone(),
        );
        let copy = marks.clone();
        let workers = &registry.opener.config.workers;
        let stored = blocking(workers, move || watermarks::store(&*vfs, &dir, &copy));
        match stored.await {
            Ok(Ok(())) => *last = marks,
            Ok(Err(error)) => tracing::warn!(%error, "could not save high watermarks"),
            Err(_) => {}
        }
    }

    /// Whether this node's copy of a partition is in sync with a leader that there is.
    pub(crate) fn in_sync(&self, id: &varve_types::TopicPartition) -> bool {
        varve_metadata::log::read(&*self.log, |state| {
            let topic = state.topic(&id.topic);
            let found = topic.and_then(|topic| topic.partition(id.partition));
            found.is_some_and(|p| p.leader.is_some() && p.isr.contains(&self.me))
        })
    }

    /// Where to go with a partition: its leader, if there is one.
    pub(crate) fn hint(&self, topic: &TopicName, partition: PartitionId) -> Option<LeaderHint> {
        varve_metadata::log::read(&*self.log, |state| {
            let found = state.topic(topic)?.partition(partition)?;
            hint(state, found.leader?, found.leader_epoch)
        })
    }
}

/// The address of a node that leads something in `epoch`.
pub(crate) fn hint(
    state: &varve_metadata::State,
    node: NodeId,
    epoch: LeaderEpoch,
) -> Option<LeaderHint> {
    let address = state.node(node)?.address.clone();
    Some(LeaderHint {
        node,
        address,
        epoch,
    })
}

/// A partition's name everywhere.
pub(crate) const fn key(topic: varve_types::TopicId, partition: PartitionId) -> PartitionKey {
    PartitionKey { topic, partition }
}
