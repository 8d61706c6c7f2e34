//! Runs the controller: time, heartbeats and the newest state in, commands to the metadata log out. On every
//! node; in control only where the metadata log is led.
//!
//! It also forgets nodes that were emptied: out of the agreement on metadata first, then out of the metadata;
//! brings a new cluster to its first feature level; and has the nodes compare their states now and then.
//!
//! Invariants: a plan is made on the newest state that is applied here, and the next one only when every
//! command of the last is answered; heartbeats are answered meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use varve_metadata::{
    Command, Controller, ControllerConfig, Heartbeat, Input, Leadership, MetadataLog, NodeState,
    Output, ProposeError, State,
};
use varve_types::NodeId;
use varve_vfs::Clock;

use super::{Members, upgrade};

/// Heartbeats that may wait.
const QUEUE: usize = 1024;
/// Time between looks when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

type Beat = (Heartbeat, oneshot::Sender<Output>);

/// The way to the controller of this node.
#[derive(Clone)]
pub(crate) struct ControllerHandle(mpsc::Sender<Beat>);

impl ControllerHandle {
    /// A node is alive. `None` when this node is stopping.
    pub(crate) async fn heartbeat(&self, beat: Heartbeat) -> Option<Output> {
        let (reply, answer) = oneshot::channel();
        self.0.send((beat, reply)).await.ok()?;
        answer.await.ok()
    }
}

/// Time between comparisons of the nodes' states.
const COMPARE_EVERY: Duration = Duration::from_secs(60);

/// Time before a node that could not be forgotten is tried again.
const FORGET_AGAIN: Duration = Duration::from_millis(500);

/// Starts the controller. It runs until the handle is gone.
pub(crate) fn start(
    config: ControllerConfig,
    log: Arc<dyn MetadataLog>,
    members: Option<Arc<dyn Members>>,
    clock: Arc<dyn Clock>,
) -> (ControllerHandle, tokio::task::AbortHandle) {
    let (beats, inbox) = mpsc::channel(QUEUE);
    let task = Task {
        controller: Controller::new(config),
        log,
        members,
        clock,
        seen: Leadership::default(),
        version: 0,
        proposing: None,
        forgetting: None,
        tending: None,
        compared: Arc::default(),
        compare_at: 0,
    };
    let task = crate::work::spawn(task.run(inbox));
    (ControllerHandle(beats), task.abort_handle())
}

struct Task {
    controller: Controller,
    log: Arc<dyn MetadataLog>,
    members: Option<Arc<dyn Members>>,
    clock: Arc<dyn Clock>,
    seen: Leadership,
    version: u64,
    /// Commands of the last plan.
    proposing: Option<JoinHandle<()>>,
    /// Nodes that are empty are being forgotten.
    forgetting: Option<JoinHandle<()>>,
    /// The level is being raised, or states are being compared.
    tending: Option<JoinHandle<()>>,
    /// Version of the state that needs no comparison.
    compared: Arc<AtomicU64>,
    /// When states are compared next, in milliseconds of the clock.
    compare_at: u64,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Beat>) {
        let log = Arc::clone(&self.log);
        self.leads(log.leadership());
        loop {
            if self.proposing.is_none() {
                self.plan();
            }
            if self.forgetting.is_none() {
                self.forget();
            }
            if self.tending.is_none() {
                self.tend();
            }
            let wait = self.controller.next_deadline().map_or(IDLE, |at| {
                Duration::from_millis(at.saturating_sub(self.now()))
            });
            let (busy, forgets) = (self.proposing.is_some(), self.forgetting.is_some());
            let tends = self.tending.is_some();
            tokio::select! {
                biased;
                beat = inbox.recv() => match beat {
                    Some((beat, reply)) => {
                        if let Some(output) = self.step(Input::Heartbeat(beat)).pop() {
                            let _ = reply.send(output);
                        }
                    }
                    None => return,
                },
                leadership = log.leadership_after(self.seen) => self.leads(leadership),
                () = done(&mut self.proposing), if busy => self.proposing = None,
                () = done(&mut self.forgetting), if forgets => self.forgetting = None,
                () = done(&mut self.tending), if tends => self.tending = None,
                version = log.newer_than(self.version), if self.seen.here => self.version = version,
                () = tokio::time::sleep(wait), if !busy => {}
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().since_start().as_millis()).unwrap_or(u64::MAX)
    }

    fn leads(&mut self, leadership: Leadership) {
        if leadership.here && (!self.seen.here || self.seen.term != leadership.term) {
            tracing::info!(term = leadership.term, "this node is the controller");
            let heard = self.log.heard_leader();
            let before = heard.map(|(node, silent)| {
                let silent = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
                (node, self.now().saturating_sub(silent))
            });
            self.step(Input::BecameController { before });
        } else if !leadership.here && self.seen.here {
            tracing::info!(leader = ?leadership.leader, "this node is no longer the controller");
            self.step(Input::LostControl);
        }
        self.seen = leadership;
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let (now, controller) = (self.now(), &mut self.controller);
        let mut out = Vec::new();
        self.log
            .look(&mut |state| controller.step(now, state, input, &mut out));
        out
    }

    fn forget(&mut self) {
        if !self.seen.here {
            return;
        }
        let nodes = varve_metadata::log::read(&*self.log, empty);
        if nodes.is_empty() {
            return;
        }
        let (log, members) = (Arc::clone(&self.log), self.members.clone());
        self.forgetting = Some(crate::work::spawn(async move {
            for node in nodes {
                forget(&*log, members.as_deref(), node).await;
            }
        }));
    }

    fn tend(&mut self) {
        if !self.seen.here {
            return;
        }
        let due = self.now() >= self.compare_at;
        let seen = self.compared.load(Ordering::Relaxed);
        let command = varve_metadata::log::read(&*self.log, |state| {
            let level = upgrade::first_level(state);
            let raise = level.map(|level| Command::FinalizeFeature { level });
            raise.or_else(|| due.then(|| upgrade::comparison(state, seen)).flatten())
        });
        let Some(command) = command else {
            return;
        };
        if matches!(command, Command::CheckState { .. }) {
            let every = u64::try_from(COMPARE_EVERY.as_millis()).unwrap_or(u64::MAX);
            self.compare_at = self.now().saturating_add(every);
        }
        let (log, compared) = (Arc::clone(&self.log), Arc::clone(&self.compared));
        self.tending = Some(crate::work::spawn(async move {
            match log.propose(command.clone()).await {
                Ok(event) => {
                    tracing::debug!(?event, "controller");
                    if let Some(version) = upgrade::compared(&command, &event) {
                        compared.store(version, Ordering::Relaxed);
                    }
                }
                Err(error) => {
                    tracing::debug!(?command, %error, "a command was not applied; it is retried");
                    tokio::time::sleep(FORGET_AGAIN).await;
                }
            }
        }));
    }

    fn plan(&mut self) {
        if !self.seen.here {
            return;
        }
        let (now, controller) = (self.now(), &mut self.controller);
        let mut plan = Vec::new();
        self.log
            .look(&mut |state| plan = controller.plan(state, now));
        if plan.is_empty() {
            return;
        }
        let log = Arc::clone(&self.log);
        self.proposing = Some(crate::work::spawn(async move {
            let proposals = plan.into_iter().map(|command| propose(&*log, command));
            join_all(proposals).await;
        }));
    }
}

/// Nodes that an operator wants to leave, that hold nothing, and on which nothing depends any more.
fn empty(state: &State) -> Vec<NodeId> {
    let nodes = state.nodes().iter();
    nodes
        .filter(|(id, n)| {
            n.decommissioning && n.state == NodeState::Fenced && state.held_by(**id) == 0
        })
        .map(|(id, _)| *id)
        .collect()
}

async fn forget(log: &dyn MetadataLog, members: Option<&dyn Members>, node: NodeId) {
    // As long as the metadata know it, this is tried again: it must not be a member that nobody knows.
    if let Some(members) = members
        && let Err(why) = members.remove(node).await
    {
        tracing::warn!(
            node_id = node.0,
            why,
            "could not remove an empty node from the members yet; trying again"
        );
        return tokio::time::sleep(FORGET_AGAIN).await;
    }
    match log.propose(Command::UnregisterNode { node }).await {
        Ok(_) => tracing::info!(
            node_id = node.0,
            "a decommissioned node was removed from the cluster"
        ),
        Err(error) => {
            tracing::warn!(
                node_id = node.0, %error,
                "could not forget an empty node yet; trying again"
            );
            tokio::time::sleep(FORGET_AGAIN).await;
        }
    }
}

async fn propose(log: &dyn MetadataLog, command: Command) {
    let what = format!("{command:?}");
    match log.propose(command).await {
        Ok(event) => tracing::debug!(?event, "controller"),
        // Something was faster: the next plan sees it.
        Err(ProposeError::Rejected(rejection)) => tracing::debug!(what, %rejection, "controller"),
        Err(error) => {
            tracing::warn!(what, %error, "a controller decision was not applied");
            // The next plan makes it again, and not at once.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Resolves once the task has ended.
async fn done(proposing: &mut Option<JoinHandle<()>>) {
    match proposing {
        Some(task) => {
            let _ = task.await;
        }
        None => std::future::pending().await,
    }
}
