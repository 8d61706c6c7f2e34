//! This node's membership: it registers, and says again and again that it is alive, until it may stop.
//!
//! A node that is told that it was emptied asks to stop, so that nothing depends on it, and is forgotten then.
//!
//! Invariants: a run has one incarnation per registration; a node that is told of a later registration under
//! its name registers again; what it says of itself it has applied.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use varve_metadata::{
    Command, Event, FeatureRange, Heartbeat, MetadataLog, NodeState, Output, ProposeError,
};
use varve_types::BrokerEpoch;

use super::{ClusterConfig, ControllerHandle};
use crate::config::BrokerConfig;
use crate::peer::Peers;

/// Time before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// How a registration ends.
#[derive(PartialEq, Eq)]
enum End {
    /// Another is needed.
    Again,
    /// The node was decommissioned.
    Forgotten,
}

/// The task that keeps a node in the cluster.
pub(crate) struct Member {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) cluster: ClusterConfig,
    pub(crate) log: Arc<dyn MetadataLog>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) controller: ControllerHandle,
    /// Broker epoch of the run before, if it stopped cleanly.
    pub(crate) clean: Option<BrokerEpoch>,
    pub(crate) epoch: watch::Sender<Option<BrokerEpoch>>,
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) may_stop: watch::Sender<bool>,
    /// It was decommissioned.
    pub(crate) gone: watch::Sender<bool>,
    /// When the controller answered last.
    pub(crate) heard: watch::Sender<tokio::time::Instant>,
}

impl Member {
    /// Runs until dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let epoch = self.register().await;
            self.clean = None;
            self.epoch.send_replace(Some(epoch));
            tracing::info!(
                node_id = self.config.node.0,
                broker_epoch = epoch.get(),
                "registered"
            );
            if self.stay(epoch).await == End::Forgotten {
                // The process goes on until somebody stops it, and is no node of the cluster.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn register(&self) -> BrokerEpoch {
        let command = Command::RegisterNode {
            node: self.config.node,
            incarnation: uuid::Uuid::new_v4().as_u128(),
            directory: self.config.directory,
            address: self.config.address.clone(),
            peer_address: self.cluster.peer_address.clone(),
            rack: self.config.rack.clone(),
            features: FeatureRange::THIS_PROGRAM,
            version: self.config.version.to_owned(),
            clean: self.clean,
        };
        let mut told = String::new();
        loop {
            let why = match self.log.propose(command.clone()).await {
                Ok(Event::NodeRegistered { epoch, .. }) => return epoch,
                Ok(other) => format!("an unexpected event: {other:?}"),
                Err(error) => {
                    if let ProposeError::Rejected(rejection) = &error {
                        let text = rejection.to_string();
                        if text != told {
                            tracing::error!(
                                node_id = self.config.node.0,
                                reason = text,
                                "this node cannot join the cluster yet; trying again"
                            );
                            told = text;
                        }
                    }
                    error.to_string()
                }
            };
            tracing::debug!(why, "not registered yet");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Heartbeats of one registration, until it ends.
    async fn stay(&mut self, epoch: BrokerEpoch) -> End {
        let mut state = NodeState::Fenced;
        // This node is empty and wants to leave for good.
        let mut leaving = false;
        let mut wait = Duration::ZERO;
        loop {
            let moving = state == NodeState::Fenced || leaving || *self.stopping.borrow();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Being let in, and out, should not wait for a heartbeat's time.
                Ok(()) = self.applied.changed(), if moving => {}
                Ok(()) = self.stopping.changed() => {}
            }
            self.applied.mark_unchanged();
            let answer = self.beat(epoch, leaving).await;
            if matches!(answer, Some(Output::Alive { .. })) {
                self.heard.send_replace(tokio::time::Instant::now());
            }
            match answer {
                Some(Output::Alive {
                    state: now,
                    may_stop,
                    emptied,
                    ..
                }) => {
                    state = now;
                    if leaving && may_stop && !emptied && !*self.stopping.borrow() {
                        tracing::info!(
                            "an operator keeps this node in the cluster; registering again"
                        );
                        self.gone.send_replace(false);
                        return End::Again;
                    }
                    leaving |= emptied;
                    if leaving && may_stop && !self.gone.send_replace(true) {
                        tracing::warn!(
                            node_id = self.config.node.0,
                            "this node was decommissioned and holds no replicas; stop it"
                        );
                    }
                    if may_stop && *self.stopping.borrow() {
                        self.may_stop.send_replace(true);
                    }
                    wait = if state == NodeState::Fenced || leaving || *self.stopping.borrow() {
                        RETRY.min(self.cluster.heartbeat_interval)
                    } else {
                        self.cluster.heartbeat_interval
                    };
                }
                Some(Output::MustRegister { found: None, .. }) if leaving => {
                    self.gone.send_replace(true);
                    tracing::info!("this node was removed from the cluster; stop it");
                    return End::Forgotten;
                }
                Some(Output::MustRegister { found, .. }) => {
                    tracing::warn!(
                        ?found,
                        broker_epoch = epoch.get(),
                        "another process registered under this node's id; registering again"
                    );
                    return End::Again;
                }
                Some(Output::NotController { .. }) | None => {
                    wait = RETRY.min(self.cluster.heartbeat_interval);
                }
            }
        }
    }

    async fn beat(&self, epoch: BrokerEpoch, leaving: bool) -> Option<Output> {
        let beat = Heartbeat {
            node: self.config.node,
            epoch,
            metadata_version_applied: *self.applied.borrow(),
            wants_shutdown: leaving || *self.stopping.borrow(),
        };
        let leader = self.log.leadership().leader?;
        if leader == self.config.node {
            return self.controller.heartbeat(beat).await;
        }
        let address = varve_metadata::log::read(&*self.log, |state| {
            state.node(leader).map(|n| n.peer_address.clone())
        })?;
        match self.peers.heartbeat(leader, address, beat).await {
            Ok(output) => Some(output),
            Err(error) => {
                tracing::debug!(%error, "heartbeat failed");
                None
            }
        }
    }
}
