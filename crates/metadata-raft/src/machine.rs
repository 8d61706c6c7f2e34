//! The cluster state as openraft's state machine: applied here, shown to everybody, kept as snapshots.
//!
//! Invariants: entries are applied in order, each once; an entry that this program cannot read, or whose
//! command belongs to a feature level that it does not know, stops the node and is never skipped; so does one
//! whose refusal says that this node is not what it should be; what a
//! command did is kept by its log id for the newest entries, so results never travel. A snapshot is encoded
//! under a read lock: applying waits for the encoding (milliseconds per 10,000 partitions), never for the disk.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use varve_metadata::{Command, Event, Rejection, State, apply, command_codec, features, snapshot};
use varve_vfs::{Vfs, Workers};

use crate::error::StoreError;
use crate::patience::Patience;
use crate::snapshot_file::Snapshots;
use crate::types::{
    Entry, LogId, Membership, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};

/// How many results are kept for those that wait for them.
const RESULTS_KEPT: usize = 4096;

/// What a command did.
pub type Outcome = Result<Event, Rejection>;

#[derive(Debug, Default)]
struct Inner {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// What the newest commands did, by log id, ascending.
    results: VecDeque<(LogId, Outcome)>,
}

/// The state of one node, shared by those who read it.
#[derive(Debug)]
pub struct Machine {
    inner: RwLock<Inner>,
    snapshots: Mutex<Snapshots>,
    workers: Workers,
    version: watch::Sender<u64>,
    /// Index after the newest that is applied.
    next: watch::Sender<u64>,
    patience: Patience,
}

/// openraft's handle on the state.
#[derive(Debug, Clone)]
pub struct MachineHandle(pub Arc<Machine>);

impl Machine {
    /// The state as the newest snapshot in `dir` has it.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, workers: Workers) -> Result<Arc<Self>, StoreError> {
        let (snapshots, state) = Snapshots::open(vfs, dir)?;
        let mut inner = Inner::default();
        if let (Some(state), Some((meta, _))) = (state, snapshots.current()) {
            inner.state = state;
            inner.applied = meta.last_log_id;
            inner.membership = meta.last_membership;
        }
        Ok(Arc::new(Self {
            version: watch::Sender::new(inner.state.version()),
            next: watch::Sender::new(inner.applied.map_or(0, |id| id.index + 1)),
            inner: RwLock::new(inner),
            snapshots: Mutex::new(snapshots),
            patience: Patience::default(),
            workers,
        }))
    }

    /// The node is about to end: a full disk is not waited for any more.
    pub fn give_up(&self) {
        self.patience.give_up();
    }

    /// Shows the newest state. Changes wait meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.read().state)
    }

    /// Last entry that is applied.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        self.inner.read().applied
    }

    /// The newest members that are applied.
    #[must_use]
    pub fn membership(&self) -> Membership {
        self.inner.read().membership.membership().clone()
    }

    /// Follows the version of the state.
    #[must_use]
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Follows the index after the newest that is applied.
    #[must_use]
    pub fn applied_next(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// What the command with that log id did; `None`: it is too old, came with a snapshot, or another entry has
    /// its index.
    #[must_use]
    pub fn result(&self, id: &LogId) -> Option<Outcome> {
        let inner = self.inner.read();
        let at = inner
            .results
            .binary_search_by(|(found, _)| found.cmp(id))
            .ok()?;
        inner.results.get(at).map(|(_, outcome)| outcome.clone())
    }

    fn apply(&self, entry: &Entry) -> io::Result<()> {
        let id = entry.log_id;
        let command = match &entry.payload {
            Payload::Normal(command) => Some(decoded(&id, &command.0)?),
            Payload::Blank | Payload::Membership(_) => None,
        };
        let mut inner = self.inner.write();
        let due = inner.applied.map_or(0, |last| last.index + 1);
        if id.index < due {
            return Err(io::Error::other(format!(
                "entry {id} of the metadata log is already applied"
            )));
        }
        if let Some(command) = command {
            let outcome = apply(&mut inner.state, command);
            if let Err(rejection) = &outcome
                && rejection.is_fatal()
            {
                return Err(io::Error::other(format!(
                    "entry {id} of the metadata log cannot be applied: {rejection}"
                )));
            }
            if inner.results.len() == RESULTS_KEPT {
                inner.results.pop_front();
            }
            inner.results.push_back((id, outcome));
        }
        if let Payload::Membership(membership) = &entry.payload {
            inner.membership = StoredMembership::new(Some(id), membership.clone());
        }
        inner.applied = Some(id);
        let version = inner.state.version();
        drop(inner);
        self.publish(version, id.index + 1);
        Ok(())
    }

    fn publish(&self, version: u64, next: u64) {
        self.version
            .send_if_modified(|seen| std::mem::replace(seen, version) != version);
        self.next.send_replace(next);
    }

    fn build(&self) -> Result<(SnapshotMeta, Bytes), StoreError> {
        let (meta, state) = {
            let inner = self.inner.read();
            let meta = SnapshotMeta {
                last_log_id: inner.applied,
                last_membership: inner.membership.clone(),
            };
            (meta, Bytes::from(snapshot::encode(&inner.state)))
        };
        self.patience
            .insist(|| self.snapshots.lock().put(&meta, &state))?;
        Ok((meta, state))
    }

    fn install(&self, meta: &SnapshotMeta, bytes: &Bytes) -> io::Result<()> {
        let state = snapshot::decode(bytes).map_err(|e| io::Error::other(e.to_string()))?;
        self.patience
            .insist(|| self.snapshots.lock().put(meta, bytes))?;
        let version = state.version();
        let mut inner = self.inner.write();
        inner.state = state;
        inner.applied = meta.last_log_id;
        inner.membership = meta.last_membership.clone();
        drop(inner);
        self.publish(version, meta.last_log_id.map_or(0, |id| id.index + 1));
        Ok(())
    }
}

fn decoded(id: &LogId, bytes: &[u8]) -> io::Result<Command> {
    let command =
        command_codec::decode(bytes).map_err(|e| io::Error::other(format!("entry {id}: {e}")))?;
    if command.level() > features::KNOWN_LEVEL {
        return Err(io::Error::other(format!(
            "entry {id} of the metadata log needs feature level {}, but this program supports \
             levels up to {}: start a newer program on this node (nothing was changed)",
            command.level(),
            features::KNOWN_LEVEL
        )));
    }
    Ok(command)
}

/// Runs what blocks: on a thread for such work, or at once where workers are tasks.
///
/// # Errors
/// A panic in it, in words.
pub async fn blocking<T: Send + 'static>(
    workers: &Workers,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    match workers {
        Workers::Threads => tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| e.to_string()),
        Workers::Tasks(_) => Ok(work()),
    }
}

impl RaftSnapshotBuilder<TypeConfig> for MachineHandle {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let machine = self.0.clone();
        let workers = machine.workers.clone();
        let built = blocking(&workers, move || machine.build()).await;
        let (meta, snapshot) = built.map_err(io::Error::other)??;
        Ok(Snapshot { meta, snapshot })
    }
}

impl RaftStateMachine<TypeConfig> for MachineHandle {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let inner = self.0.inner.read();
        Ok((inner.applied, inner.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            self.0.apply(&entry)?;
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        let (machine, meta) = (self.0.clone(), meta.clone());
        let workers = machine.workers.clone();
        let installed = blocking(&workers, move || machine.install(&meta, &snapshot)).await;
        installed.map_err(io::Error::other)?
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.0.snapshots.lock().current();
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}
