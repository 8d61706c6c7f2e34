//! The rim of the transactions core: one task for each partition of `__transaction_state` that this node leads. It
//! owns the core, feeds it calls, time and metadata, appends what it decides, has its markers sent, and brings the
//! completions back.
//!
//! Invariants: appends are handed to the log in the order the core decided them, in this leadership only; a partition
//! that could not be read whole answers nothing but that; a caller that goes away changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use varve_broker_api::Error;
use varve_txn::{
    AppendId, Coordinator, Failure, Input, Lost, Markers, Now, Output, Reply, Tick, Ticket,
};
use varve_types::{ErrorKind, LeaderEpoch, PartitionId};
use varve_vfs::Clock;

use super::loading::{Load, Loading};
use super::markers::{Sender, Sent};
use crate::internal_topic::{InternalTopic, KeyValue, Replayed, TRANSACTIONS};
use crate::leaderships::unwritten;
use crate::node_count::Share;
use crate::registry::Registry;

/// Calls that may wait for the task.
const QUEUE: usize = 4096;
/// Longest sleep of a task that has nothing to do.
const IDLE: Duration = Duration::from_secs(60);

/// What the task is told.
enum Message {
    Call {
        input: Box<Input>,
        reply: oneshot::Sender<Reply>,
    },
    Appended {
        ids: Vec<AppendId>,
        result: Result<(), (Lost, Error)>,
    },
    Sent(Sent),
    Drain,
}

/// Handle to the coordinator of one leadership.
#[derive(Clone)]
pub(crate) struct Host {
    messages: mpsc::Sender<Message>,
    /// Transactional ids, and of these with a transaction that is open or being completed.
    counts: Arc<(AtomicI64, AtomicI64)>,
}

impl Host {
    /// Reads the partition and starts the task.
    pub(crate) fn start(
        config: varve_txn::Config,
        registry: Arc<Registry>,
        topic: InternalTopic,
        clock: Arc<dyn Clock>,
        (number, epoch): (PartitionId, LeaderEpoch),
        sender: Arc<Sender>,
        (loading, ids): (&Loading, Share),
    ) -> Self {
        let (messages, inbox) = mpsc::channel(QUEUE);
        let counts = Arc::<(AtomicI64, AtomicI64)>::default();
        let task = Task {
            counts: Arc::clone(&counts),
            ids,
            core: Coordinator::new(config, epoch),
            callers: BTreeMap::new(),
            outputs: Vec::new(),
            messages: messages.downgrade(),
            version: registry.watch(),
            registry,
            topic,
            clock,
            number,
            epoch,
            sender,
            unread: false,
        };
        crate::work::spawn(task.run(inbox, loading.begin()));
        Self { messages, counts }
    }

    /// Transactional ids, and open transactions among them.
    pub(crate) fn counts(&self) -> (i64, i64) {
        let (ids, open) = &*self.counts;
        (ids.load(Ordering::Relaxed), open.load(Ordering::Relaxed))
    }

    /// One call. Safe to drop.
    pub(crate) async fn call(&self, input: Input) -> Result<Reply, Error> {
        let (reply, answer) = oneshot::channel();
        let input = Box::new(input);
        let call = Message::Call { input, reply };
        self.messages.send(call).await.map_err(|_| stopped())?;
        match answer.await.map_err(|_| stopped())? {
            Reply::Failed(failure) => Err(error(failure)),
            reply => Ok(reply),
        }
    }

    /// Refuses everything from now on.
    pub(crate) async fn drain(&self) {
        let _ = self.messages.send(Message::Drain).await;
    }
}

fn stopped() -> Error {
    Error::new(
        ErrorKind::ShuttingDown,
        "the transaction coordinator has stopped; the change may or may not have been made; find \
         the new coordinator and ask it",
    )
}

/// The same failure in the words of the API.
fn error(failure: Failure) -> Error {
    Error {
        field: failure.field,
        metadata: failure.metadata,
        ..Error::new(failure.kind, failure.message)
    }
}

/// What a failed append left behind, going by its error alone.
fn lost(error: &Error) -> Lost {
    match error.kind {
        ErrorKind::NotLeader
        | ErrorKind::FencedLeaderEpoch
        | ErrorKind::NotEnoughReplicas
        | ErrorKind::StorageFull
        | ErrorKind::TopicNotFound
        | ErrorKind::LeaderNotAvailable
        | ErrorKind::ShuttingDown => Lost::Refused,
        _ => Lost::Unknown,
    }
}

struct Task {
    counts: Arc<(AtomicI64, AtomicI64)>,
    ids: Share,
    core: Coordinator,
    callers: BTreeMap<Ticket, oneshot::Sender<Reply>>,
    outputs: Vec<Output>,
    messages: mpsc::WeakSender<Message>,
    version: watch::Receiver<u64>,
    registry: Arc<Registry>,
    topic: InternalTopic,
    clock: Arc<dyn Clock>,
    number: PartitionId,
    epoch: LeaderEpoch,
    sender: Arc<Sender>,
    /// The partition could not be read whole.
    unread: bool,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>, load: Load) {
        self.load(load).await;
        loop {
            self.perform().await;
            let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            let (ids, open) = (self.core.id_count(), self.core.open_count());
            self.counts.0.store(count(ids), Ordering::Relaxed);
            self.counts.1.store(count(open), Ordering::Relaxed);
            let wait = self.core.next_deadline().map_or(IDLE, |deadline| {
                Duration::from_millis(deadline.0.saturating_sub(self.now().tick.0))
            });
            tokio::select! {
                biased;
                message = inbox.recv() => match message {
                    Some(message) => {
                        self.take(message);
                        // What waits too is stepped before anything is written: one batch for all of it.
                        while let Ok(message) = inbox.try_recv() {
                            self.take(message);
                        }
                    }
                    None => return,
                },
                changed = self.version.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.topics();
                }
                () = tokio::time::sleep(wait) => self.step(Input::Tick),
            }
        }
    }

    fn now(&self) -> Now {
        let tick = self.clock.now().since_start().as_millis();
        Now {
            tick: Tick(u64::try_from(tick).unwrap_or(u64::MAX)),
            wall_ms: self.clock.wall_ms(),
        }
    }

    fn step(&mut self, input: Input) {
        let now = self.now();
        self.core.set_ids_elsewhere(self.ids.elsewhere());
        self.core.step(now, input, &mut self.outputs);
        self.ids.set(self.core.id_count());
    }

    fn topics(&mut self) {
        self.version.mark_unchanged();
        let view = self.registry.view();
        let topics: BTreeSet<_> = view.topics.values().map(|t| t.info.id).collect();
        self.step(Input::Topics(Arc::new(topics)));
    }

    async fn load(&mut self, load: Load) {
        let now = self.now();
        let (core, outputs) = (&mut self.core, &mut self.outputs);
        let each = |_, found| match found {
            Replayed::Record { key, value, .. } => {
                core.step(now, Input::Load { key, value }, outputs);
            }
            // Nobody writes to this topic within a transaction.
            Replayed::End { .. } => {}
        };
        let (unread, _) = self.topic.replay(Some(self.number), each).await;
        self.unread = unread.contains(&self.number);
        self.topics();
        if !self.unread {
            self.step(Input::Loaded);
            let (ids, open) = (self.core.id_count(), self.core.open_count());
            tracing::debug!(
                partition = self.number.0,
                transactional_ids = ids,
                open,
                "transactions loaded"
            );
            load.loaded(ids, open);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Call { reply, .. } if self.unread => {
                let _ = reply.send(Reply::Failed(self.unreadable()));
            }
            Message::Call { input, reply } => {
                if let Some(ticket) = input.ticket() {
                    self.callers.insert(ticket, reply);
                }
                self.step(*input);
            }
            Message::Appended { ids, result } => {
                let result = result.map_err(|(lost, error)| (lost, unwritten(&error)));
                for id in ids {
                    self.step(match &result {
                        Ok(()) => Input::Durable { id },
                        Err((lost, error)) => Input::Failed {
                            id,
                            lost: *lost,
                            failure: Failure {
                                metadata: error.metadata.clone(),
                                ..Failure::new(error.kind, error.message.clone())
                            },
                        },
                    });
                }
            }
            Message::Sent(Sent {
                name,
                producer,
                number,
                done,
                again,
            }) => {
                if !done.is_empty() {
                    self.step(Input::MarkersDone {
                        name: name.clone(),
                        producer,
                        number,
                        partitions: done,
                    });
                }
                if again {
                    self.step(Input::MarkersFailed {
                        name,
                        producer,
                        number,
                    });
                }
            }
            Message::Drain => self.step(Input::Drain),
        }
    }

    /// Not that there are no transactions: what there are is unknown.
    fn unreadable(&self) -> Failure {
        Failure::new(
            ErrorKind::LeaderNotAvailable,
            format!(
                "{TRANSACTIONS}:{} could not be read when this node became its coordinator; \
                 nothing was changed; repair that partition, then restart the node",
                self.number
            ),
        )
    }

    async fn perform(&mut self) {
        // Performing an output may add more.
        while !self.outputs.is_empty() {
            let (mut ids, mut records) = (Vec::new(), Vec::new());
            for output in std::mem::take(&mut self.outputs) {
                match output {
                    Output::Reply { ticket, reply } => {
                        if let Some(caller) = self.callers.remove(&ticket) {
                            let _ = caller.send(reply);
                        }
                    }
                    Output::Append { id, key, value, .. } => {
                        ids.push(id);
                        records.push((key, value));
                    }
                    Output::SendMarkers(markers) => self.send(markers),
                    Output::LoadSkipped { error } => {
                        tracing::warn!(%error, "a record of __transaction_state was skipped");
                    }
                }
            }
            if !ids.is_empty() {
                self.append(ids, records).await;
            }
        }
    }

    async fn append(&mut self, ids: Vec<AppendId>, records: Vec<KeyValue>) {
        let (number, epoch) = (self.number, Some(self.epoch));
        // Of several batches some may be there.
        let whole = InternalTopic::is_one_batch(&records);
        match self.topic.append(number, epoch, None, &records).await {
            Ok(receipts) => {
                let messages = self.messages.clone();
                crate::work::spawn(async move {
                    let mut result = Ok(());
                    for receipt in receipts {
                        if let Err(error) = receipt.await {
                            let lost = if whole { lost(&error) } else { Lost::Unknown };
                            result = Err((lost, error));
                        }
                    }
                    if let Some(messages) = messages.upgrade() {
                        let _ = messages.send(Message::Appended { ids, result }).await;
                    }
                });
            }
            Err(error) => {
                let lost = if whole { Lost::Refused } else { Lost::Unknown };
                let result = Err((lost, error));
                self.take(Message::Appended { ids, result });
            }
        }
    }

    fn send(&self, markers: Markers) {
        let (sender, messages) = (Arc::clone(&self.sender), self.messages.clone());
        crate::work::spawn(async move {
            let sent = sender.send(markers).await;
            if let Some(messages) = messages.upgrade() {
                let _ = messages.send(Message::Sent(sent)).await;
            }
        });
    }
}
