//! openraft's log storage: entries in memory for readers, and one worker that owns the [`Disk`].
//!
//! Invariants: writes reach the disk in the order of the calls; a completion is called only after the fsync
//! that covers its entries, in order; a vote, a cut and a purge are on stable storage when their call
//! returns; appends that wait together share one fsync. After a failure every call fails, so the node is out; a
//! full disk is waited for. Unless workers are tasks, it never does disk work on a thread of the runtime.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, entry::RaftEntry};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use varve_vfs::{Pace, Vfs, Workers};

use crate::disk::{Disk, Loaded, Prepared, prepare};
use crate::entry;
use crate::error::StoreError;
use crate::files::Identity;
use crate::patience::Patience;
use crate::types::{Entry, LogId, Payload, RaftId, TypeConfig, Vote, log_id};

/// How long a committed index may wait for its own sync.
const COMMITTED_SYNC_AFTER: Duration = Duration::from_millis(50);
/// Most bytes that one fsync covers.
const GROUP_MAX_BYTES: usize = 4 * 1024 * 1024;
/// About how many bytes of entries a reader gets at once.
const READ_MAX_BYTES: usize = 1024 * 1024;

type Reply = oneshot::Sender<io::Result<()>>;

enum Op {
    Append {
        entries: Vec<Prepared>,
        bytes: usize,
        done: IOFlushed<TypeConfig>,
    },
    Vote(Vote, Reply),
    Identity(Identity, Reply),
    Committed(Option<LogId>),
    Begin(u64),
    Truncate(Option<LogId>, Reply),
    Purge(LogId, Reply),
}

/// What readers see.
#[derive(Debug, Default)]
struct Shown {
    entries: VecDeque<Entry>,
    /// Index of the first entry, or of the next if there is none.
    first: u64,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl Shown {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn last(&self) -> Option<LogId> {
        self.entries.back().map(|e| e.log_id).or(self.purged)
    }
}

/// The way to the worker.
#[derive(Debug, Clone)]
struct Ops {
    queue: mpsc::Sender<Op>,
    /// Wakes a worker that is a task, also when the last of these is gone.
    told: Arc<Told>,
}

#[derive(Debug, Default)]
struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Ops {
    fn send(&self, op: Op) -> io::Result<()> {
        self.queue.send(op).map_err(|_| gone())?;
        self.told.0.notify_one();
        Ok(())
    }
}

/// The log storage of one node.
#[derive(Debug)]
pub struct Store {
    shown: Arc<Mutex<Shown>>,
    ops: Ops,
    patience: Arc<Patience>,
    closed: watch::Receiver<bool>,
}

/// A handle for what openraft does not ask of a store.
#[derive(Clone)]
pub struct StoreHandle {
    ops: Ops,
    patience: Arc<Patience>,
}

impl Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreHandle")
    }
}

/// Reads entries; any number of them.
#[derive(Debug, Clone)]
pub struct Reader {
    shown: Arc<Mutex<Shown>>,
}

impl Store {
    /// Opens the store in `dir` and starts its worker.
    ///
    /// # Errors
    /// As [`Disk::open`].
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        owner: RaftId,
        workers: &Workers,
    ) -> Result<(Self, Loaded), StoreError> {
        let (disk, loaded) = Disk::open(vfs, dir, owner)?;
        let shown = Shown {
            entries: loaded.entries.iter().cloned().collect(),
            first: loaded.purged.map_or(0, |id| id.index + 1),
            purged: loaded.purged,
            vote: loaded.vote,
            committed: loaded.committed,
        };
        let (queue, waiting) = mpsc::channel();
        let (alive, closed) = watch::channel(false);
        let patience = Arc::new(Patience::default());
        let waits = Arc::clone(&patience);
        let wake = Arc::<Notify>::default();
        let ops = Ops {
            queue,
            told: Arc::new(Told(Arc::clone(&wake))),
        };
        match workers {
            Workers::Threads => {
                let thread = std::thread::Builder::new().name("varve-raft-log".to_owned());
                let run = move || {
                    write(disk, &waiting, &waits);
                    alive.send_replace(true);
                };
                if let Err(error) = thread.spawn(run) {
                    let why = format!("its thread did not start: {error}");
                    return Err(StoreError::damage(dir, why));
                }
            }
            Workers::Tasks(pace) => {
                let pace = Arc::clone(pace);
                tokio::spawn(async move {
                    write_as_task(disk, waiting, &wake, &*pace, &waits).await;
                    alive.send_replace(true);
                });
            }
        }
        let store = Self {
            shown: Arc::new(Mutex::new(shown)),
            ops,
            patience,
            closed,
        };
        Ok((store, loaded))
    }

    /// For what openraft does not ask.
    #[must_use]
    pub fn handle(&self) -> StoreHandle {
        StoreHandle {
            ops: self.ops.clone(),
            patience: Arc::clone(&self.patience),
        }
    }

    /// Turns to `true` when the worker is done with the files: after all handles are gone.
    #[must_use]
    pub fn closed(&self) -> watch::Receiver<bool> {
        self.closed.clone()
    }
}

impl StoreHandle {
    /// The node is about to end: a full disk is not waited for any more.
    pub fn give_up(&self) {
        self.patience.give_up();
    }

    /// Replaces the identity; durable on return.
    ///
    /// # Errors
    /// What the disk said.
    pub async fn save_identity(&self, identity: Identity) -> io::Result<()> {
        ask(&self.ops, |reply| Op::Identity(identity, reply)).await
    }
}

async fn ask(ops: &Ops, op: impl FnOnce(Reply) -> Op) -> io::Result<()> {
    let (reply, answer) = oneshot::channel();
    ops.send(op(reply))?;
    answer.await.map_err(|_| gone())?
}

fn gone() -> io::Error {
    io::Error::other("the worker of the metadata log has ended")
}

/// The thread: everything that waits is taken at once, appends next to each other share one fsync.
fn write(mut disk: Disk, ops: &mpsc::Receiver<Op>, patience: &Patience) {
    let mut next = None;
    loop {
        let op = match next.take() {
            Some(op) => op,
            None => match wait(&mut disk, ops) {
                Some(op) => op,
                None => break,
            },
        };
        next = perform(&mut disk, op, ops, patience);
    }
    close(disk);
}

/// The worker as a task.
async fn write_as_task(
    mut disk: Disk,
    ops: mpsc::Receiver<Op>,
    wake: &Notify,
    pace: &dyn Pace,
    patience: &Patience,
) {
    let mut next = None;
    loop {
        let op = match next.take() {
            Some(op) => op,
            None => match ops.try_recv() {
                Ok(op) => {
                    let pause = pace.before("varve-raft-log");
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                    op
                }
                Err(mpsc::TryRecvError::Disconnected) => break,
                Err(mpsc::TryRecvError::Empty) if disk.committed_is_unsynced() => {
                    let quiet = tokio::time::timeout(COMMITTED_SYNC_AFTER, wake.notified()).await;
                    if quiet.is_err() {
                        drop(disk.sync_committed());
                    }
                    continue;
                }
                Err(mpsc::TryRecvError::Empty) => {
                    wake.notified().await;
                    continue;
                }
            },
        };
        next = perform(&mut disk, op, &ops, patience);
    }
    close(disk);
}

fn close(disk: Disk) {
    if let Err(error) = disk.close() {
        tracing::warn!(%error, "the metadata log was not closed cleanly");
    }
}

/// One operation, with the appends that follow it at once. Gives back what follows those.
fn perform(disk: &mut Disk, op: Op, ops: &mpsc::Receiver<Op>, patience: &Patience) -> Option<Op> {
    match op {
        Op::Append {
            mut entries,
            mut bytes,
            done,
        } => {
            let (mut dones, mut next) = (vec![done], None);
            while bytes < GROUP_MAX_BYTES {
                match ops.try_recv() {
                    Ok(Op::Append {
                        entries: more,
                        bytes: of_more,
                        done,
                    }) => {
                        entries.extend(more);
                        bytes += of_more;
                        dones.push(done);
                    }
                    Ok(other) => {
                        next = Some(other);
                        break;
                    }
                    Err(_) => break,
                }
            }
            let mut rest = &entries[..];
            let written = patience.insist(|| disk.append(&mut rest));
            let written = written.map_err(|e| e.to_string());
            for done in dones {
                done.io_completed(written.clone().map_err(io::Error::other));
            }
            return next;
        }
        Op::Vote(vote, reply) => answer(reply, patience.insist(|| disk.save_vote(&vote))),
        Op::Identity(identity, reply) => {
            answer(reply, patience.insist(|| disk.save_identity(&identity)));
        }
        // Nobody waits: a failure latches the store, and the next call reports it.
        Op::Committed(committed) => drop(disk.save_committed(committed)),
        Op::Begin(index) => drop(patience.insist(|| disk.purge(&log_id(0, index - 1)))),
        Op::Truncate(last, reply) => {
            let cut = patience.insist(|| disk.truncate_after(last.as_ref()));
            answer(reply, cut);
        }
        Op::Purge(last, reply) => answer(reply, patience.insist(|| disk.purge(&last))),
    }
    None
}

/// The next operation; the committed index is synced when there is none for a while.
fn wait(disk: &mut Disk, ops: &mpsc::Receiver<Op>) -> Option<Op> {
    if disk.committed_is_unsynced() {
        match ops.recv_timeout(COMMITTED_SYNC_AFTER) {
            Ok(op) => return Some(op),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => drop(disk.sync_committed()),
        }
    }
    ops.recv().ok()
}

fn answer(reply: Reply, done: Result<(), StoreError>) {
    // Whoever asked may be gone; the operation took place all the same.
    drop(reply.send(done.map_err(io::Error::from)));
}

fn size(entry: &Entry) -> usize {
    entry::HEADER_BYTES
        + match &entry.payload {
            Payload::Normal(command) => command.0.len(),
            Payload::Blank | Payload::Membership(_) => 256,
        }
}

impl RaftLogReader<TypeConfig> for Reader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        Ok(read(&self.shown, range, usize::MAX))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shown.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        Ok(read(&self.shown, start..end, READ_MAX_BYTES))
    }
}

fn read(shown: &Mutex<Shown>, range: impl RangeBounds<u64>, max_bytes: usize) -> Vec<Entry> {
    let shown = shown.lock();
    let from = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    let (first, end) = (shown.first, shown.end());
    let (from, to) = (from.max(first), to.min(end));
    if from >= to {
        return Vec::new();
    }
    let (mut bytes, mut entries) = (0, Vec::new());
    for entry in shown
        .entries
        .range((from - first) as usize..(to - first) as usize)
    {
        bytes += size(entry);
        if bytes > max_bytes && !entries.is_empty() {
            break;
        }
        entries.push(entry.clone());
    }
    entries
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Reader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let shown = self.shown.lock();
        Ok(LogState {
            last_purged_log_id: shown.purged,
            last_log_id: shown.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        Reader {
            shown: self.shown.clone(),
        }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        ask(&self.ops, |reply| Op::Vote(*vote, reply)).await?;
        self.shown.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.shown.lock().committed = committed;
        self.ops.send(Op::Committed(committed))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shown.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let prepared: Vec<Prepared> = entries.iter().map(prepare).collect();
        let bytes = entries.iter().map(size).sum();
        {
            let mut shown = self.shown.lock();
            let starts_at = entries.first().map_or(shown.end(), RaftEntry::index);
            if shown.end() == 0 && starts_at > 0 {
                // A log may begin anywhere, as openraft's own tests do: what is before was never there.
                self.ops.send(Op::Begin(starts_at))?;
                shown.first = starts_at;
            }
            if starts_at != shown.end() {
                return Err(io::Error::other("entries must continue the metadata log"));
            }
            shown.entries.extend(entries);
        }
        let op = Op::Append {
            entries: prepared,
            bytes,
            done,
        };
        self.ops.send(op)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        {
            let mut shown = self.shown.lock();
            let next = last.map_or(0, |id| id.index + 1);
            let keep = next.saturating_sub(shown.first) as usize;
            shown.entries.truncate(keep);
        }
        ask(&self.ops, |reply| Op::Truncate(last, reply)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut shown = self.shown.lock();
            let gone = (upto.index + 1).saturating_sub(shown.first) as usize;
            let len = shown.entries.len();
            shown.entries.drain(..gone.min(len));
            shown.first = shown.first.max(upto.index + 1);
            shown.purged = shown.purged.max(Some(upto));
        }
        ask(&self.ops, |reply| Op::Purge(upto, reply)).await
    }
}
