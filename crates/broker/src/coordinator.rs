//! The rim of the groups core: one task that owns it, feeds it calls, time and metadata, appends what it
//! decides to `__consumer_offsets`, and brings the completions back.
//!
//! Invariants: of a partition that could not be read whole nothing is known, nothing is decided and nothing is
//! written; appends to one partition are handed to the log in the order the core decided them; a caller that goes away
//! cancels its parked heartbeat and nothing else; offsets are answered only once they are durable. What waits for
//! the task is stepped together, and what comes of it for one partition is one batch: under load the cost of
//! an append is shared by many commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use varve_broker_api::Error;
use varve_groups::codec;
use varve_groups::{AppendId, Coordinator, Failure, Input, Matcher, Output, Reply, Tick, Ticket};
use varve_partition::Verified;
use varve_types::{ErrorKind, GroupName, LeaderEpoch, PartitionId};
use varve_vfs::Clock;

use crate::internal_topic::{
    self, Ended, InternalTopic, KeyValue, OFFSETS, Replayed, Writer, name_of,
};
use crate::leaderships::unwritten;
use crate::node_count::Share;
use crate::registry::Registry;

/// Calls that may wait for the coordinator task.
const QUEUE: usize = 4096;
/// Of those, how many are stepped before what comes of them is performed.
const TOGETHER: usize = 1024;

/// What the task is told.
enum Message {
    Call {
        input: Box<Input>,
        reply: oneshot::Sender<Reply>,
    },
    Cancel(Ticket),
    Appended {
        ids: Vec<AppendId>,
        result: Result<(), Error>,
    },
    /// The end of a producer's transaction is in this partition.
    TransactionEnded {
        number: PartitionId,
        end: Ended,
    },
    Drain,
}

/// Handle to one coordinator of this node.
#[derive(Clone)]
pub(crate) struct Groups {
    messages: mpsc::Sender<Message>,
}

/// Cancels a call whose caller is gone.
struct CancelOnDrop<'a> {
    groups: &'a Groups,
    ticket: Ticket,
    armed: bool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            // A full queue means the heartbeat ends by its own deadline instead.
            let _ = self.groups.messages.try_send(Message::Cancel(self.ticket));
        }
    }
}

impl Groups {
    /// Loads committed offsets, of one partition in one leadership alone if `only` names them, and starts
    /// the task.
    pub(crate) fn start(
        config: varve_groups::Config,
        registry: Arc<Registry>,
        offsets: InternalTopic,
        clock: Arc<dyn Clock>,
        only: Option<(PartitionId, LeaderEpoch)>,
        count: Share,
    ) -> Self {
        let (messages, inbox) = mpsc::channel(QUEUE);
        let task = Task {
            count,
            core: new_core(&config),
            config,
            callers: BTreeMap::new(),
            outputs: Vec::new(),
            messages: messages.downgrade(),
            version: registry.watch(),
            registry,
            offsets,
            clock,
            unread: (BTreeSet::new(), 0),
            only,
        };
        crate::work::spawn(task.run(inbox));
        Self { messages }
    }

    /// One call. Safe to drop.
    pub(crate) async fn call(&self, ticket: Ticket, input: Input) -> Result<Reply, Error> {
        let (reply, answer) = oneshot::channel();
        let commits = matches!(input, Input::Commit { .. } | Input::TxnCommit { .. });
        let group = group_of(&input).filter(|_| commits).cloned();
        let input = Box::new(input);
        self.messages
            .send(Message::Call { input, reply })
            .await
            .map_err(|_| stopped())?;
        let mut cancel = CancelOnDrop {
            groups: self,
            ticket,
            armed: true,
        };
        let answer = answer.await.map_err(|_| stopped());
        cancel.armed = false;
        match answer? {
            Reply::Failed(failure) => Err(error(failure)),
            // A commit of a member of the classic protocol is refused in that protocol's terms; whoever calls in
            // that protocol wants those.
            Reply::ClassicFailed(why) => match group {
                Some(group) => Err(error(why.into_failure(&group))),
                None => Ok(Reply::ClassicFailed(why)),
            },
            reply => Ok(reply),
        }
    }

    /// The marker that ends a producer's transaction is committed in that partition of the topic.
    pub(crate) async fn transaction_ended(&self, number: PartitionId, end: Ended) {
        let ended = Message::TransactionEnded { number, end };
        let _ = self.messages.send(ended).await;
    }

    /// Answers everything that is parked and parks nothing more.
    pub(crate) async fn drain(&self) {
        let _ = self.messages.send(Message::Drain).await;
    }
}

fn stopped() -> Error {
    Error::new(
        ErrorKind::ShuttingDown,
        "the group coordinator has stopped; nothing was changed",
    )
}

/// The same failure in the words of the API.
pub(crate) fn error(failure: Failure) -> Error {
    Error {
        field: failure.field,
        metadata: failure.metadata,
        ..Error::new(failure.kind, failure.message)
    }
}

fn new_core(config: &varve_groups::Config) -> Coordinator {
    Coordinator::new(config.clone(), Box::<Patterns>::default())
}

struct Task {
    /// Groups that are known here.
    count: Share,
    core: Coordinator,
    config: varve_groups::Config,
    callers: BTreeMap<Ticket, oneshot::Sender<Reply>>,
    outputs: Vec<Output>,
    messages: mpsc::WeakSender<Message>,
    version: watch::Receiver<u64>,
    registry: Arc<Registry>,
    offsets: InternalTopic,
    clock: Arc<dyn Clock>,
    /// Partitions of `__consumer_offsets` that could not be read at the start, and their number then.
    unread: (BTreeSet<PartitionId>, i32),
    /// The partition whose groups these are, and the leadership; `None`: all of them.
    only: Option<(PartitionId, LeaderEpoch)>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        self.load().await;
        loop {
            self.perform().await;
            let wait = self
                .core
                .next_deadline()
                .map_or(Duration::from_secs(60), |deadline| {
                    Duration::from_millis(deadline.since(self.now()))
                });
            tokio::select! {
                biased;
                message = inbox.recv() => match message {
                    Some(message) => {
                        // Calls that never stop coming must not keep new topics from being heard of.
                        if self.version.has_changed().unwrap_or(false) {
                            self.topics();
                        }
                        self.take(message);
                        for _ in 1..TOGETHER {
                            let Ok(message) = inbox.try_recv() else { break };
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
                () = tokio::time::sleep(wait) => {
                    let wall_ms = self.clock.wall_ms();
                    self.step(Input::Tick { wall_ms });
                }
            }
        }
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.clock.now().since_start().as_millis()).unwrap_or(u64::MAX))
    }

    fn step(&mut self, input: Input) {
        let now = self.now();
        self.core.set_groups_elsewhere(self.count.elsewhere());
        self.core.step(now, input, &mut self.outputs);
        self.count.set(self.core.group_count());
    }

    fn topics(&mut self) {
        self.version.mark_unchanged();
        let topics = Arc::new(self.registry.group_topics());
        self.step(Input::Topics(topics));
    }

    async fn load(&mut self) {
        let mut loaded = self.replay().await;
        // Of groups that are known in part nothing is kept: what became of them since is not known, and they must not
        // be expired, or changed, by what was true once.
        while !self.unread.0.is_empty() {
            let known = self.unread.0.len();
            self.core = new_core(&self.config);
            self.outputs.clear();
            if self.only.is_some() {
                // These are all there are. Whoever calls is refused.
                self.topics();
                return;
            }
            loaded = self.replay().await;
            if self.unread.0.len() == known {
                break;
            }
        }
        self.topics();
        self.step(Input::Loaded);
        tracing::info!(
            records = loaded,
            groups = self.core.group_count(),
            "committed offsets loaded"
        );
    }

    /// Reads what is not known to be unreadable; returns how many records that were.
    async fn replay(&mut self) -> u64 {
        let now = self.now();
        let (core, outputs) = (&mut self.core, &mut self.outputs);
        let mut loaded = 0u64;
        let count = self.registry.topic(&name_of(OFFSETS));
        let count = count.map_or(1, |topic| topic.info.partitions);
        let left_out = &self.unread.0;
        let (unread, count) = self
            .offsets
            .replay(self.only.map(|(number, _)| number), |number, found| {
                if !left_out.contains(&number) {
                    loaded += 1;
                    core.step(now, input(found, (number, count)), outputs);
                }
            })
            .await;
        self.unread.0.extend(unread);
        self.unread.1 = count;
        loaded
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Call { input, reply } => {
                if let Some(failure) = self.unreadable(&input) {
                    let _ = reply.send(Reply::Failed(failure));
                    return;
                }
                if let Some(ticket) = input.ticket() {
                    self.callers.insert(ticket, reply);
                }
                self.step(*input);
            }
            Message::Cancel(ticket) => {
                self.callers.remove(&ticket);
                self.step(Input::Cancel { ticket });
            }
            Message::Appended { ids, result } => {
                let result = result.map_err(|error| unwritten(&error));
                for id in ids {
                    self.step(match &result {
                        Ok(()) => Input::CommitDurable { id },
                        Err(error) => Input::CommitFailed {
                            id,
                            failure: Failure {
                                metadata: error.metadata.clone(),
                                ..Failure::new(error.kind, error.message.clone())
                            },
                        },
                    });
                }
            }
            Message::TransactionEnded { number, .. } if self.unread.0.contains(&number) => {}
            Message::TransactionEnded { number, end } => {
                let topic = self.registry.topic(&name_of(OFFSETS));
                let within = topic.ok().map(|topic| (number, topic.info.partitions));
                self.step(end.input(within));
            }
            Message::Drain => self.step(Input::Drain),
        }
    }

    /// The answer to calls about a group whose offsets could not be read: not that there are none.
    fn unreadable(&self, input: &Input) -> Option<Failure> {
        let (unread, count) = &self.unread;
        if unread.is_empty() {
            return None;
        }
        let group = group_of(input)?;
        let partition = codec::partition_of(group, *count);
        unread.contains(&partition).then(|| {
            Failure::new(
                ErrorKind::LeaderNotAvailable,
                format!(
                    "the offsets of group {:?} are in {}:{partition}, which could not be read when \
                     this node started; nothing was changed; repair that partition, then restart \
                     the node",
                    group.as_str(),
                    OFFSETS
                ),
            )
        })
    }

    async fn perform(&mut self) {
        // Performing an output may add more.
        while !self.outputs.is_empty() {
            let mut runs = Runs::default();
            for output in std::mem::take(&mut self.outputs) {
                match output {
                    Output::Reply { ticket, reply } => {
                        if let Some(caller) = self.callers.remove(&ticket) {
                            let _ = caller.send(reply);
                        }
                    }
                    Output::Append { id, group, records } => {
                        self.append(&mut runs, (id, &group), None, records).await;
                    }
                    Output::TxnAppend {
                        id,
                        group,
                        producer,
                        since,
                        records,
                    } => {
                        let verified = since.map_or(Verified::No, Verified::Since);
                        let producer = Some((producer, verified));
                        self.append(&mut runs, (id, &group), producer, records)
                            .await;
                    }
                    Output::LoadSkipped { error } => {
                        tracing::warn!(%error, "a record of __consumer_offsets was skipped");
                    }
                }
            }
            for (number, run) in runs.0 {
                self.write(number, run).await;
            }
        }
    }

    /// Puts an append behind those for the same partition that are to be written with it.
    async fn append(
        &mut self,
        runs: &mut Runs,
        (id, group): (AppendId, &GroupName),
        producer: Option<Writer>,
        records: Vec<KeyValue>,
    ) {
        let number = match self.only {
            Some((number, _)) => number,
            None => match self.offsets.partition_count().await {
                Ok(count) => codec::partition_of(group, count),
                Err(error) => {
                    return self.take(Message::Appended {
                        ids: vec![id],
                        result: Err(error),
                    });
                }
            },
        };
        if let Some(full) = runs.add(number, id, producer, records) {
            self.write(number, full).await;
        }
    }

    async fn write(&mut self, number: PartitionId, run: Run) {
        // Another leader may have written since, and this node lead again: what was read is out of date then.
        let epoch = self.only.map(|(_, epoch)| epoch);
        let Run {
            producer,
            ids,
            records,
            ..
        } = run;
        let appended = self.offsets.append(number, epoch, producer, &records);
        match appended.await {
            Ok(receipts) => {
                let messages = self.messages.clone();
                crate::work::spawn(async move {
                    let mut result = Ok(());
                    for receipt in receipts {
                        result = result.and(receipt.await.map(|_| ()));
                    }
                    if let Some(messages) = messages.upgrade() {
                        let _ = messages.send(Message::Appended { ids, result }).await;
                    }
                });
            }
            Err(error) => self.take(Message::Appended {
                ids,
                result: Err(error),
            }),
        }
    }
}

/// Appends to one partition that are written as one batch, of one transaction if of any.
#[derive(Debug, Default)]
struct Run {
    producer: Option<Writer>,
    ids: Vec<AppendId>,
    records: Vec<KeyValue>,
    bytes: usize,
}

/// Appends that are to be written, by partition.
#[derive(Debug, Default)]
struct Runs(BTreeMap<PartitionId, Run>);

impl Runs {
    /// Adds an append. Gives back those before it where they do not fit into one batch with it: they are to be
    /// written first.
    fn add(
        &mut self,
        number: PartitionId,
        id: AppendId,
        producer: Option<Writer>,
        records: Vec<KeyValue>,
    ) -> Option<Run> {
        let bytes = internal_topic::bytes_of(&records);
        let run = self.0.entry(number).or_default();
        let count = run.records.len() + records.len();
        let fits = run.producer == producer
            && run.bytes + bytes <= internal_topic::SHARED_BYTES
            && count <= internal_topic::SHARED_RECORDS;
        let full = (!fits && !run.ids.is_empty()).then(|| std::mem::take(run));
        run.producer = producer;
        run.ids.push(id);
        run.records.extend(records);
        run.bytes += bytes;
        full
    }
}

impl Ended {
    /// For the core. `within`: the partition that it is in, of how many.
    const fn input(self, within: Option<(PartitionId, i32)>) -> Input {
        Input::TxnEnded {
            producer: self.producer,
            kept_at: self.kept_at,
            committed: self.committed,
            within,
        }
    }
}

/// What a replay found, for the core. `within`: the partition it was found in, of how many.
fn input(found: Replayed, within: (PartitionId, i32)) -> Input {
    match found {
        Replayed::Record {
            producer: None,
            key,
            value,
        } => Input::Load { key, value },
        Replayed::Record {
            producer: Some((producer, offset)),
            key,
            value,
        } => Input::LoadTxn {
            producer,
            offset,
            key,
            value,
        },
        Replayed::End(end) => end.input(Some(within)),
    }
}

pub(crate) fn group_of(input: &Input) -> Option<&GroupName> {
    match input {
        Input::Heartbeat { heartbeat, .. } => Some(&heartbeat.group),
        Input::ClassicJoin { join, .. } => Some(&join.group),
        Input::ClassicSync { sync, .. } => Some(&sync.group),
        Input::ClassicHeartbeat { heartbeat, .. } => Some(&heartbeat.group),
        Input::ClassicLeave { leave, .. } => Some(&leave.group),
        Input::Commit { group, .. }
        | Input::TxnCommit { group, .. }
        | Input::SetOffsets { group, .. }
        | Input::GetOffsets { group, .. }
        | Input::DeleteOffsets { group, .. }
        | Input::GetGroup { group, .. }
        | Input::DeleteGroup { group, .. }
        | Input::RemoveMembers { group, .. } => Some(group),
        _ => None,
    }
}

/// Compiled topic patterns. Patterns come from clients, so size and number are bounded.
#[derive(Default)]
struct Patterns {
    compiled: std::cell::RefCell<BTreeMap<String, Result<regex::Regex, String>>>,
}

/// Patterns kept compiled; the cache is emptied when it is full.
const PATTERNS_MAX: usize = 1_000;

impl Matcher for Patterns {
    fn matches(&self, pattern: &str, topic: &str) -> Result<bool, String> {
        let mut compiled = self.compiled.borrow_mut();
        if compiled.len() >= PATTERNS_MAX && !compiled.contains_key(pattern) {
            compiled.clear();
        }
        let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| {
            regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
                .size_limit(1 << 20)
                .build()
                .map_err(|e| e.to_string())
        });
        regex
            .as_ref()
            .map(|r| r.is_match(topic))
            .map_err(Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_share_a_batch_in_their_order_while_they_fit_and_belong_together() {
        let record = |n: u8, bytes: usize| (vec![n], Some(vec![0; bytes]));
        let (one, other) = (PartitionId(1), PartitionId(2));
        let session = varve_types::ProducerId { id: 7, epoch: 3 };
        let producer = Some((session, Verified::Since(varve_types::Offset::ZERO)));
        let ids = |run: Run| run.ids.iter().map(|id| id.0).collect::<Vec<_>>();
        let mut runs = Runs::default();
        let mut add = |number, id: u64, producer, bytes| {
            let records = vec![record(id as u8, bytes)];
            runs.add(number, AppendId(id), producer, records).map(ids)
        };
        assert_eq!(add(one, 0, None, 10), None);
        assert_eq!(add(other, 1, None, 10), None);
        assert_eq!(add(one, 2, None, 10), None);
        // A transaction's records are in no batch with others.
        assert_eq!(add(one, 3, producer, 10), Some(vec![0, 2]));
        assert_eq!(add(one, 4, producer, 10), None);
        assert_eq!(add(one, 5, None, 10), Some(vec![3, 4]));
        // What is too large for company is alone.
        assert_eq!(
            add(one, 6, None, internal_topic::SHARED_BYTES),
            Some(vec![5])
        );
        assert_eq!(add(one, 7, None, 10), Some(vec![6]));
        let left: Vec<_> = runs
            .0
            .into_values()
            .map(|run| (run.records[0].0[0], ids(run)))
            .collect();
        assert_eq!(left, [(7, vec![7]), (1, vec![1])]);
    }

    #[test]
    fn patterns_match_whole_names() {
        let patterns = Patterns::default();
        assert_eq!(patterns.matches("orders.*", "orders-eu"), Ok(true));
        assert_eq!(patterns.matches("order", "orders"), Ok(false));
        assert_eq!(patterns.matches("a|b", "ab"), Ok(false));
        assert!(patterns.matches("(", "x").is_err());
    }
}
