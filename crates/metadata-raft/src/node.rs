//! One node of the consensus: starting it, what it knows, stopping it.
//!
//! Invariants: the identity of the cluster is on disk before the first message of that cluster is acted on; an
//! empty store remembers no cluster, so that a half-done founding can be done again; after a fatal error the
//! node answers nothing but that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, Raft};
use parking_lot::Mutex;
use tokio::sync::watch;
use varve_metadata::Leadership;
use varve_metadata::log::{Later, MetadataLog};
use varve_types::{ClusterId, NodeId};
use varve_vfs::Vfs;

use crate::config::RaftConfig;
use crate::disk::Loaded;
use crate::error::StartError;
use crate::files::Identity;
use crate::machine::{Machine, MachineHandle, blocking};
use crate::message::Hello;
use crate::network::{Network, Speaker, Transport};
use crate::serve::Incoming;
use crate::store::{Store, StoreHandle};
use crate::types::{LogId, Member, Membership, Payload, RaftId, TypeConfig, raft_id};

pub(crate) type Metrics = openraft::RaftMetrics<TypeConfig>;

/// What a node is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It asks its seeds for a cluster.
    Asking,
    /// It has asked a leader to be let in.
    Joining,
    /// It is a member.
    Member,
    /// It was removed, and asks no more until it starts again.
    Removed,
}

/// One member, as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its raft id.
    pub id: RaftId,
    /// Who and where it is.
    pub member: Member,
    /// It votes.
    pub voter: bool,
    /// Last entry that it has; known to the leader alone.
    pub matched: Option<u64>,
}

/// What an operator wants to know.
#[derive(Debug, Clone)]
pub struct Status {
    /// This node's raft id.
    pub id: RaftId,
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// What it is about.
    pub phase: Phase,
    /// What keeps it from being a member, in words.
    pub notices: Vec<String>,
    /// Who leads.
    pub leadership: Leadership,
    /// Last entry in its log.
    pub last_log: Option<u64>,
    /// Last entry applied.
    pub applied: Option<u64>,
    /// Last entry in the newest snapshot.
    pub snapshot: Option<u64>,
    /// Last entry purged.
    pub purged: Option<u64>,
    /// Members, voters and others, by raft id.
    pub members: Vec<MemberStatus>,
    /// A change of the members is on its way.
    pub changing: bool,
    /// Why the node is out of service, if it is.
    pub failure: Option<String>,
    /// The consensus in its own words, for whoever looks for a fault.
    pub detail: String,
}

#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    pub(crate) notices: Vec<String>,
}

/// Everything that the tasks of a node share.
pub(crate) struct Inner {
    pub(crate) config: RaftConfig,
    pub(crate) id: RaftId,
    pub(crate) speaker: Arc<Speaker>,
    pub(crate) raft: Raft<TypeConfig, MachineHandle>,
    pub(crate) machine: Arc<Machine>,
    pub(crate) store: Mutex<Option<StoreHandle>>,
    pub(crate) leadership: watch::Sender<Leadership>,
    /// Which node was heard last as leader, and when.
    pub(crate) heard_leader: Mutex<Option<(NodeId, tokio::time::Instant)>>,
    pub(crate) progress: Mutex<Progress>,
    /// One change of the members at a time.
    pub(crate) changes: tokio::sync::Mutex<()>,
    /// One adoption of a cluster at a time.
    pub(crate) adopting: tokio::sync::Mutex<()>,
    pub(crate) incoming: tokio::sync::Mutex<Option<Incoming>>,
    /// Members that this leader has removed.
    pub(crate) removed: Mutex<BTreeSet<RaftId>>,
    pub(crate) stopping: watch::Sender<bool>,
    closed: watch::Receiver<bool>,
}

/// A node of the consensus on metadata. Cheap to clone; [`MetadataRaft::shutdown`] ends it.
#[derive(Clone)]
pub struct MetadataRaft {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for MetadataRaft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MetadataRaft({})", self.inner.config.node)
    }
}

impl MetadataRaft {
    /// Opens the store and takes part. Finding or founding the cluster goes on behind; see
    /// [`MetadataRaft::status`].
    ///
    /// # Errors
    /// What cannot be read, or a configuration that contradicts the store. Nothing was changed then.
    pub fn start(
        config: RaftConfig,
        vfs: Arc<dyn Vfs>,
        transport: Arc<dyn Transport>,
    ) -> Later<'static, Result<Self, StartError>> {
        Box::pin(Self::open(config, vfs, transport))
    }

    async fn open(
        config: RaftConfig,
        vfs: Arc<dyn Vfs>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        config.check()?;
        let id = raft_id(config.directory);
        let dir = config.dir.clone();
        let workers = config.workers.clone();
        let opened = blocking(&config.workers, move || {
            let machine = Machine::open(vfs.clone(), &dir, workers.clone())?;
            let opened = Store::open(vfs, &dir, id, &workers);
            opened.map(|(store, loaded)| (machine, store, loaded))
        });
        let (machine, store, loaded) = opened.await.map_err(StartError::Raft)??;
        let empty = loaded.is_empty() && machine.applied().is_none();
        let cluster = cluster_of(&config, loaded.identity.filter(|_| !empty))?;
        let speaker = Arc::new(Speaker {
            transport,
            node: config.node,
            id,
            cluster: parking_lot::RwLock::new(cluster),
            addresses: parking_lot::RwLock::default(),
        });
        let own = newest_membership(&loaded, &machine);
        let own = own.get_node(&id).map(|member| member.address.clone());
        let mut known: BTreeSet<String> = config.seeds.iter().cloned().chain(own).collect();
        // There this process is itself, and does not answer yet.
        known.remove(&config.address);
        if !empty {
            crate::bootstrap::check_surroundings(&speaker, &config.member(), &known).await?;
        }
        let network = Network {
            speaker: speaker.clone(),
            patience: config.call_timeout,
        };
        let openraft = config.openraft().validate();
        let openraft = openraft.map_err(|e| StartError::Config(e.to_string()))?;
        let (handle, closed) = (store.handle(), store.closed());
        let state = MachineHandle(machine.clone());
        let raft = Raft::new(id, Arc::new(openraft), network, store, state).await;
        let raft = raft.map_err(|e| StartError::Raft(e.to_string()))?;
        let inner = Arc::new(Inner {
            config,
            id,
            speaker,
            raft,
            machine,
            store: Mutex::new(Some(handle)),
            leadership: watch::Sender::new(Leadership::default()),
            heard_leader: Mutex::new(None),
            progress: Mutex::new(Progress {
                phase: Phase::Asking,
                notices: Vec::new(),
            }),
            changes: tokio::sync::Mutex::new(()),
            adopting: tokio::sync::Mutex::new(()),
            incoming: tokio::sync::Mutex::new(None),
            removed: Mutex::new(BTreeSet::new()),
            stopping: watch::Sender::new(false),
            closed,
        });
        inner.update_leadership();
        tokio::spawn(watch_leadership(inner.clone()));
        tokio::spawn(crate::bootstrap::run(inner.clone()));
        tokio::spawn(crate::members::keep_voters(inner.clone()));
        Ok(Self { inner })
    }

    /// What an operator wants to know.
    #[must_use]
    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let metrics = inner.metrics();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<RaftId> = membership.voter_ids().collect();
        let matched = |id: &RaftId| {
            let found = metrics.replication.as_ref()?.get(id)?;
            found.as_ref().map(|log_id| log_id.index)
        };
        let members = membership.nodes().map(|(id, member)| MemberStatus {
            id: *id,
            member: member.clone(),
            voter: voters.contains(id),
            matched: matched(id),
        });
        let progress = inner.progress.lock();
        let index = |id: &Option<LogId>| id.map(|id| id.index);
        Status {
            id: inner.id,
            cluster: inner.speaker.cluster(),
            phase: progress.phase,
            notices: progress.notices.clone(),
            leadership: *inner.leadership.borrow(),
            last_log: metrics.last_log_index,
            applied: inner.machine.applied().map(|id| id.index),
            snapshot: index(&metrics.snapshot),
            purged: index(&metrics.purged),
            members: members.collect(),
            changing: !crate::members::is_settled(&metrics),
            failure: failure(&metrics),
            detail: metrics.to_string(),
        }
    }

    /// Resolves with the reason once the node is out of service: a failed disk, an entry that it cannot read.
    pub async fn failed(&self) -> String {
        let mut metrics = self.inner.raft.metrics();
        loop {
            let found = failure(&metrics.borrow_watched());
            if let Some(why) = found {
                return why;
            }
            if metrics.changed().await.is_err() {
                return "it was stopped".to_owned();
            }
        }
    }

    /// The consensus as the broker uses it, compiled in this crate.
    #[must_use]
    pub fn log(&self) -> Arc<dyn MetadataLog> {
        Arc::new(self.clone())
    }

    /// The cluster, once this node belongs to one.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.inner.speaker.cluster()
    }

    /// Leaves the consensus for now and waits until the files are left alone. The members stay as they are.
    pub fn shutdown(&self) -> Later<'_, ()> {
        Box::pin(self.stop())
    }

    async fn stop(&self) {
        let inner = &self.inner;
        inner.stopping.send_replace(true);
        if let Some(store) = &*inner.store.lock() {
            store.give_up();
        }
        inner.machine.give_up();
        if let Err(error) = inner.raft.shutdown().await {
            tracing::warn!(%error, "the metadata consensus did not stop cleanly");
        }
        drop(inner.store.lock().take());
        let mut closed = inner.closed.clone();
        let waited = closed.wait_for(|closed| *closed);
        if tokio::time::timeout(Duration::from_secs(10), waited)
            .await
            .is_err()
        {
            tracing::warn!("the files of the metadata log are still in use");
        }
    }
}

/// The members, as the store has them.
fn newest_membership(loaded: &Loaded, machine: &Machine) -> Membership {
    let in_log = loaded.entries.iter().rev().find_map(|entry| {
        let Payload::Membership(membership) = &entry.payload else {
            return None;
        };
        Some(membership.clone())
    });
    in_log.unwrap_or_else(|| machine.membership())
}

/// The cluster that configuration and store agree on.
fn cluster_of(
    config: &RaftConfig,
    identity: Option<Identity>,
) -> Result<Option<ClusterId>, StartError> {
    let Some(identity) = identity else {
        return Ok(config.cluster);
    };
    if identity.node != config.node {
        return Err(StartError::Config(format!(
            "the log in {} belongs to node {}, but this is node {}",
            config.dir.display(),
            identity.node,
            config.node
        )));
    }
    match config.cluster {
        Some(cluster) if cluster != identity.cluster => Err(StartError::Config(format!(
            "the log in {} belongs to cluster {}, but the node is configured for {cluster}",
            config.dir.display(),
            identity.cluster
        ))),
        _ => Ok(Some(identity.cluster)),
    }
}

fn failure(metrics: &Metrics) -> Option<String> {
    match &metrics.running_state {
        Err(openraft::errors::Fatal::Stopped) | Ok(()) => None,
        Err(fatal) => Some(fatal.to_string()),
    }
}

impl Inner {
    pub(crate) fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Why nothing is served, if so.
    pub(crate) fn out_of_service(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        match &metrics.running_state {
            Err(fatal) => Some(fatal.to_string()),
            Ok(()) => (*self.stopping.borrow()).then(|| "the node is stopping".to_owned()),
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits; `false`: the node is stopping.
    pub(crate) async fn pause(&self, time: Duration) -> bool {
        let mut stopping = self.stopping.subscribe();
        let stopped = stopping.wait_for(|stopping| *stopping);
        tokio::time::timeout(time, stopped).await.is_err()
    }

    /// How long a quorum may be silent before a leader takes itself for cut off.
    pub(crate) fn lease(&self) -> Duration {
        self.config.election_max + self.config.heartbeat * 2
    }

    /// Leads, and a quorum agreed lately.
    pub(crate) fn leads(&self, metrics: &Metrics) -> bool {
        let alone = metrics
            .membership_config
            .membership()
            .voter_ids()
            .eq([self.id]);
        let acked = metrics.last_quorum_acked.as_ref();
        metrics.state.is_leader() && (alone || acked.is_some_and(|at| at.elapsed() < self.lease()))
    }

    /// The leader that this node knows, with its address.
    pub(crate) fn leader(&self) -> Option<(RaftId, Member)> {
        let metrics = self.metrics();
        let id = metrics.current_leader?;
        let member = metrics
            .membership_config
            .membership()
            .get_node(&id)?
            .clone();
        Some((id, member))
    }

    pub(crate) fn leader_address(&self) -> Option<(RaftId, String)> {
        self.leader().map(|(id, member)| (id, member.address))
    }

    /// Notes where the members of a new membership are.
    fn update_addresses(&self, seen: &mut Option<LogId>) {
        let metrics = self.raft.metrics();
        let stored = metrics.borrow_watched().membership_config.clone();
        if stored.log_id() != seen {
            *seen = *stored.log_id();
            for (id, member) in stored.membership().nodes() {
                self.speaker.note_address(*id, &member.address);
            }
        }
    }

    pub(crate) fn update_leadership(&self) {
        let metrics = self.metrics();
        let leads = self.leads(&metrics);
        let known = metrics.current_leader.filter(|id| leads || *id != self.id);
        let membership = metrics.membership_config.membership();
        let leader: Option<NodeId> = known
            .and_then(|id| membership.get_node(&id))
            .map(|m| m.node);
        let term = metrics.current_term;
        let applied = self.machine.applied();
        let now = Leadership {
            term,
            leader,
            here: leads && applied.is_some_and(|id| id.leader_id.term == term),
        };
        self.leadership
            .send_if_modified(|seen| std::mem::replace(seen, now) != now);
    }

    pub(crate) fn hello(&self) -> Hello {
        let metrics = self.metrics();
        Hello {
            cluster: self.speaker.cluster(),
            member: self.config.member(),
            initialised: metrics.last_log_index.is_some() || metrics.current_term > 0,
            leader: self.leader_address(),
        }
    }

    /// Makes a cluster this node's own, durably.
    pub(crate) async fn adopt(&self, cluster: ClusterId) -> Result<(), String> {
        let _one = self.adopting.lock().await;
        match self.speaker.cluster() {
            Some(ours) if ours == cluster && self.config.cluster.is_none() => return Ok(()),
            Some(ours) if ours != cluster => {
                return Err(format!(
                    "this node belongs to cluster {ours}, not {cluster}"
                ));
            }
            _ => {}
        }
        let store = self.store.lock().clone();
        let Some(store) = store else {
            return Err("the node is stopping".to_owned());
        };
        let identity = Identity {
            cluster,
            node: self.config.node,
        };
        store
            .save_identity(identity)
            .await
            .map_err(|e| e.to_string())?;
        *self.speaker.cluster.write() = Some(cluster);
        tracing::info!(%cluster, "this node is now a member of the cluster");
        Ok(())
    }
}

async fn watch_leadership(inner: Arc<Inner>) {
    let mut metrics = inner.raft.metrics();
    let mut addresses_of = None;
    while !inner.is_stopping() {
        inner.update_addresses(&mut addresses_of);
        // A leader that is cut off hears nothing, so time alone must show it.
        let changed = tokio::time::timeout(inner.config.heartbeat, metrics.changed()).await;
        inner.update_leadership();
        if matches!(changed, Ok(Err(_))) {
            return;
        }
    }
}

/// A request is a run of bytes; this is how many one may have.
pub(crate) fn too_long(request: &Bytes) -> bool {
    request.len() > crate::message::MESSAGE_MAX_BYTES
}
