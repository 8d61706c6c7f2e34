//! A lane: one worker that owns a fixed set of partitions, each a `partition::Core` over a
//! `storage::Log`. It takes all commands that wait, lets the cores decide, writes once per partition,
//! publishes, answers. It never awaits and never flushes; reads never come here.
//!
//! [`Lane::run_once`] is a plain function; the worker around it is started by [`spawn`].

mod append;
mod flush;
mod give_up;
mod replica;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use varve_broker_api::{Appended, Error};
use varve_metadata::PartitionKey;
use varve_partition::{
    Assignment, Core, CoreConfig, FetchId, FetchRefusal, Input, IsrRefusal, Now, Output, Position,
    Ticket,
};
use varve_record::{Batch, Sequenced};
use varve_storage::{ChangeDone, FlushDone, FlushError, Log, LogConfig};
use varve_types::{
    Acks, BrokerEpoch, LeaderEpoch, NodeId, Offset, ProducerId, Sequence, TopicConfig,
};
use varve_vfs::{Clock, Tick, Workers};

use crate::admission::Permit;
use crate::changes::Changing;
use crate::cleaner::{Candidate, Cleaner, InstallReply, Part, RunReply};
use crate::closing::{Closing, Unsaved, close_all};
use crate::cluster::Rim;
use crate::committer::{FILE_BYTES, Work};
use crate::flusher::{ChangeJob, Flushers};
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::produce::Terms;
use crate::producer_sessions::{Advice, ProducerSessions};
use crate::work::{Take, Worker};

use replica::Copying;
pub(crate) use replica::{Arrived, Asked};

/// Bytes after which a group is written, so that one flush does not hold too many answers.
const GROUP_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What a partition that is alone is told of replicas that are behind.
pub(crate) const REPLICA_LAG: Duration = Duration::from_secs(10);

/// One append on its way.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) batch: Batch,
    pub(crate) terms: Terms,
    pub(crate) arrived: Tick,
    pub(crate) reply: oneshot::Sender<Result<Appended, Error>>,
    /// Its bytes are held until they are safe on this node, the rest until the answer.
    pub(crate) permit: Permit,
}

/// What a lane is told.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all commands are appends: a box for each would cost more than the room in the others"
)]
pub(crate) enum Command {
    /// Owns a partition from here on and leads it in this epoch.
    Open(Box<Opening>),
    /// Append a batch.
    Produce { slot: u32, arrival: Arrival },
    /// A flush ended.
    Flushed {
        slot: u32,
        result: Result<FlushDone, FlushError>,
    },
    /// Sync the files, so that the journal need not hold the records any more.
    Relieve { slot: u32 },
    /// That has been done.
    Relieved {
        slot: u32,
        result: Result<FlushDone, FlushError>,
    },
    /// A change of what a log consists of came back.
    Changed {
        slot: u32,
        result: Result<ChangeDone, FlushError>,
    },
    /// Hand out a compaction.
    Compact { slot: u32, reply: RunReply },
    /// Make a part of a compaction part of the log.
    Install {
        slot: u32,
        part: Part,
        reply: InstallReply,
    },
    /// The cleaner is done with the partition.
    CompactionOver { slot: u32 },
    /// Move the log start.
    Trim {
        slot: u32,
        to: Offset,
        reply: oneshot::Sender<Result<Offset, Error>>,
    },
    /// Tell of the producers.
    Producers {
        slot: u32,
        reply: crate::inspect::ProducersReply,
    },
    /// The topic's configuration changed.
    Configure { slot: u32, config: Box<TopicConfig> },
    /// Let go of a damaged replica that does not count any more, with what the metadata say of it now: that
    /// another node leads it.
    GiveUp {
        slot: u32,
        assignment: Box<Assignment>,
        reply: give_up::GoneReply,
    },
    /// Let go of a replica that is elsewhere now.
    Leave {
        slot: u32,
        reply: give_up::GoneReply,
    },
    /// Forget a partition whose topic is deleted.
    Close {
        slot: u32,
        reply: oneshot::Sender<()>,
    },
    /// The metadata changed.
    Assign {
        slot: u32,
        assignment: Box<Assignment>,
    },
    /// This node registered, or did so again.
    Registered(BrokerEpoch),
    /// A follower asks for records.
    ReplicaFetch {
        slot: u32,
        key: PartitionKey,
        asked: Box<Asked>,
    },
    /// A follower has flushed more.
    ReplicaProgress { slot: u32, position: Position },
    /// The leader answered.
    Fetched {
        slot: u32,
        id: FetchId,
        result: Result<Arrived, FetchRefusal>,
    },
    /// The leader will not answer.
    FetchFailed { slot: u32, id: FetchId },
    /// A fetch was held back, and it is its turn.
    FetchHeld { slot: u32, id: FetchId },
    /// The controller refused other in-sync replicas.
    IsrRefused {
        slot: u32,
        partition_epoch: i32,
        why: IsrRefusal,
    },
    /// The journal's entries of a log are void; `false`: there was no room to say so.
    Voided {
        slot: u32,
        result: Result<bool, String>,
    },
    /// Time has passed: flush what waits for time.
    Tick,
    /// Time has passed in a cluster.
    TickReplicas,
    /// Apply retention and forget idle producers.
    Housekeeping,
    /// Flush and close everything; the lane ends. Answers whether all of it is safely on disk.
    Shutdown { reply: oneshot::Sender<bool> },
}

/// A partition to be owned.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) partition: Arc<Partition>,
    pub(crate) core: Core,
    pub(crate) log: Log,
    pub(crate) role: Role,
}

/// Who else holds a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    /// Nobody: this node leads it in this epoch from now on.
    Alone(LeaderEpoch),
    /// Whoever the metadata says: it is told by [`Command::Assign`].
    Copied(PartitionKey),
}

/// An answer that is still owed.
#[derive(Debug)]
struct Owed {
    reply: oneshot::Sender<Result<Appended, Error>>,
    acks: Acks,
    records: u32,
    append_time_ms: i64,
    /// Whose transaction it is of.
    of_transaction: Option<ProducerId>,
    /// Session and place in it.
    producer: Option<(ProducerId, Sequence)>,
    arrived: Tick,
    slot: u32,
    permit: Permit,
}

/// A partition and what only its lane knows about it.
pub(crate) struct Owned {
    pub(crate) partition: Arc<Partition>,
    pub(crate) core: Core,
    pub(crate) log: Log,
    /// Batches with offsets, not written yet.
    writes: Vec<Sequenced>,
    write_bytes: usize,
    /// Ends of batches whose byte permits are held, ascending: not as safe on this node yet as the topic asks.
    unsafe_yet: VecDeque<(Offset, Ticket)>,
    /// Batches written since the last flush began, for the journal.
    unjournaled: Vec<Sequenced>,
    unjournaled_bytes: u64,
    /// A flush is under way.
    flushing: bool,
    /// Since when and from which offset records wait for a flush by time (durability=replicated).
    unflushed: Option<(Tick, Offset)>,
    /// The last flush found no space; it is tried again with the next tick.
    flush_again: bool,
    /// What the next start would have to read.
    unsaved: Unsaved,
    pub(crate) changing: Changing,
    /// What a partition of a cluster needs; `None`: it is alone.
    copying: Option<Copying>,
}

/// The state of a lane.
pub(crate) struct Lane {
    pub(crate) inbox: Arc<Inbox<Command>>,
    pub(crate) slots: BTreeMap<u32, Owned>,
    owed: BTreeMap<Ticket, Owed>,
    next_ticket: u64,
    /// Batches offered to a core in this step.
    offered: Option<(Ticket, Batch)>,
    pub(crate) outputs: Vec<Output>,
    /// Partitions with something to write in this group.
    dirty: Vec<u32>,
    group_bytes: usize,
    pub(crate) clock: Arc<dyn Clock>,
    flush_jobs: Arc<Inbox<Work>>,
    pub(crate) change_jobs: Arc<Inbox<ChangeJob>>,
    pub(crate) removals: Arc<Inbox<varve_storage::Removal>>,
    pub(crate) candidates: Arc<Inbox<Candidate>>,
    metrics: Metrics,
    /// The way to the other nodes; `None`: there are none.
    rim: Option<Arc<Rim>>,
    /// This node's registration, for partitions that are opened later.
    registered: Option<BrokerEpoch>,
    /// The fetch of a follower that a core is asked about in this step.
    asking: Option<(Ticket, Asked)>,
    /// The partition whose fetch was held back, while its core asks afresh.
    turn: Option<u32>,
    workers: Workers,
    number: usize,
    sessions: Arc<ProducerSessions>,
}

/// Starts the worker of a lane.
pub(crate) fn spawn(
    workers: &Workers,
    number: usize,
    inbox: Arc<Inbox<Command>>,
    clock: Arc<dyn Clock>,
    (flushers, cleaner, sessions): (&Flushers, &Cleaner, &Arc<ProducerSessions>),
    metrics: Metrics,
    rim: Option<Arc<Rim>>,
) -> std::io::Result<Worker> {
    let mut lane = Lane {
        inbox: Arc::clone(&inbox),
        slots: BTreeMap::new(),
        owed: BTreeMap::new(),
        next_ticket: 0,
        offered: None,
        outputs: Vec::new(),
        dirty: Vec::new(),
        group_bytes: 0,
        clock,
        flush_jobs: Arc::clone(&flushers.jobs),
        change_jobs: Arc::clone(&flushers.changes),
        removals: Arc::clone(&flushers.removals),
        candidates: Arc::clone(&cleaner.candidates),
        metrics,
        rim,
        registered: None,
        asking: None,
        turn: None,
        workers: workers.clone(),
        number,
        sessions: Arc::clone(sessions),
    };
    let name = format!("varve-lane-{number}");
    Worker::start(workers, &name, inbox, Take::All, move |commands| {
        lane.run_once(commands);
    })
}

impl Lane {
    /// Performs all commands, in order, and what follows from them.
    pub(crate) fn run_once(&mut self, commands: &mut VecDeque<Command>) {
        while let Some(command) = commands.pop_front() {
            self.perform(command);
            if self.group_bytes >= GROUP_MAX_BYTES {
                self.write_group();
            }
        }
        self.write_group();
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Produce { slot, arrival } => self.produce(slot, arrival),
            Command::Flushed { slot, result } => {
                if let Some(owned) = self.slots.get_mut(&slot) {
                    owned.flushing = false;
                }
                self.flushed(slot, result);
            }
            Command::Relieve { slot } => self.relieve(slot),
            Command::Relieved { slot, result } => {
                self.cleared(slot);
                self.flushed(slot, result);
            }
            Command::Assign { slot, assignment } => self.assign(slot, *assignment),
            Command::Registered(epoch) => self.registered(epoch),
            Command::ReplicaFetch { slot, key, asked } => self.replica_fetch(slot, key, *asked),
            Command::ReplicaProgress { slot, position } => self.replica_progress(slot, position),
            Command::Fetched { slot, id, result } => self.fetched(slot, id, result),
            Command::FetchFailed { slot, id } => self.fetch_failed(slot, id),
            Command::FetchHeld { slot, id } => self.fetch_held(slot, id),
            Command::IsrRefused {
                slot,
                partition_epoch,
                why,
            } => self.isr_refused(slot, partition_epoch, why),
            Command::Voided { slot, result } => self.voided(slot, result),
            Command::TickReplicas => self.tick_replicas(),
            Command::Open(opening) => self.open(*opening),
            Command::Trim { slot, to, reply } => {
                self.write_group();
                self.trim(slot, to, reply);
            }
            Command::Changed { slot, result } => self.changed(slot, result),
            Command::Compact { slot, reply } => self.compact(slot, &reply),
            Command::Install { slot, part, reply } => self.install(slot, *part, reply),
            Command::CompactionOver { slot } => self.compaction_over(slot),
            Command::Producers { slot, reply } => self.producers(slot, reply),
            Command::Configure { slot, config } => self.configure(slot, &config),
            Command::GiveUp {
                slot,
                assignment,
                reply,
            } => {
                self.write_group();
                self.give_up(slot, *assignment, reply);
            }
            Command::Leave { slot, reply } => {
                self.write_group();
                self.leave(slot, reply);
            }
            Command::Close { slot, reply } => {
                self.write_group();
                self.close(slot);
                let _ = reply.send(());
            }
            Command::Tick => {
                self.tick();
                self.count_sessions();
            }
            Command::Housekeeping => self.housekeeping(),
            Command::Shutdown { reply } => {
                self.write_group();
                let safe = self.shutdown();
                let _ = reply.send(safe);
            }
        }
    }

    fn open(&mut self, opening: Opening) {
        let Opening {
            partition,
            mut core,
            log,
            role,
        } = opening;
        let mut outputs = std::mem::take(&mut self.outputs);
        let time = now(&*self.clock);
        match (role, self.registered) {
            (Role::Alone(epoch), _) => {
                core.step(time, Input::Assign(alone(core.me(), epoch)), &mut outputs);
                partition.set_leader_epoch(epoch);
                partition.set_leading(Some(epoch));
            }
            (Role::Copied(_), Some(epoch)) => {
                core.step(time, Input::Registered(epoch), &mut outputs);
            }
            (Role::Copied(_), None) => {}
        }
        assert!(outputs.is_empty(), "no acknowledgement is pending yet");
        self.outputs = outputs;
        partition.set_flushed(log.flushed());
        partition.publish(log.view(), log.size_bytes(), log.segments() as u64);
        core.compacted(log.clean_upto());
        let aborted = core.producers().aborted_list();
        partition.advance(core.high_watermark(), core.last_stable_offset(), aborted);
        let slot = partition.slot;
        let owned = Owned {
            partition,
            core,
            log,
            writes: Vec::new(),
            write_bytes: 0,
            unsafe_yet: VecDeque::new(),
            unjournaled: Vec::new(),
            unjournaled_bytes: 0,
            flushing: false,
            unflushed: None,
            flush_again: false,
            unsaved: Unsaved::new(),
            changing: Changing::default(),
            copying: match role {
                Role::Alone(_) => None,
                Role::Copied(key) => Some(Copying::new(key)),
            },
        };
        let old = self.slots.insert(slot, owned);
        assert!(old.is_none(), "slot {slot} is owned twice");
    }

    pub(crate) fn perform_outputs(&mut self, slot: u32) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Write {
                    ticket,
                    base_offset,
                    leader_epoch,
                } => {
                    self.stage(slot, ticket, base_offset, leader_epoch);
                }
                Output::Answer { ticket, result } => self.answer(slot, ticket, result),
                Output::HighWatermark(offset) => {
                    if let Some(owned) = self.slots.get(&slot) {
                        let aborted = owned.core.producers().aborted_list();
                        let stable = owned.core.last_stable_offset();
                        owned.partition.advance(offset, stable, aborted);
                    }
                }
                Output::LastStable(_) => {
                    if let Some(owned) = self.slots.get(&slot) {
                        owned.publish_stable();
                        owned.partition.waiters.wake();
                    }
                }
                other => self.perform_replication(slot, other),
            }
        }
        self.outputs = outputs;
        self.give_back_bytes(slot);
        self.after_step(slot);
    }

    fn configure(&mut self, slot: u32, config: &TopicConfig) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let lag = self.rim.as_ref().map(|r| r.config.replica_lag);
        let lag = lag.unwrap_or(REPLICA_LAG);
        owned.log.set_config(LogConfig::from(config));
        owned.partition.set_config(config.clone());
        owned
            .core
            .set_config(core_config(config, lag), &mut self.outputs);
        self.perform_outputs(slot);
        self.want_flush(slot, self.clock.now());
    }

    fn housekeeping(&mut self) {
        let now_ms = self.clock.wall_ms();
        let slots: Vec<u32> = self.slots.keys().copied().collect();
        for slot in slots {
            let Some(owned) = self.slots.get_mut(&slot) else {
                continue;
            };
            owned.core.expire_producers(now_ms);
            owned.publish_stable();
            self.retain(slot, now_ms);
            self.offer(slot, now_ms);
            self.perform_outputs(slot);
        }
    }

    /// Tells how many producer sessions there are here, and lets go of those that were idle longest if the node has
    /// too many.
    fn count_sessions(&mut self) {
        let count = self.slots.values().map(|o| o.core.producers().len()).sum();
        let now = self.clock.now();
        if self.sessions.counted(self.number, count, now) == Advice::Keep {
            return;
        }
        let now_ms = self.clock.wall_ms();
        let idle = self.slots.values().flat_map(|o| o.core.producers().idle());
        let idle = idle.map(|used| u64::try_from(now_ms.saturating_sub(used)).unwrap_or(0));
        let Some(cutoff) = self.sessions.looked(self.number, idle) else {
            return;
        };
        let used_ms = now_ms.saturating_sub(i64::try_from(cutoff).unwrap_or(i64::MAX));
        let mut forgotten = 0;
        for owned in self.slots.values_mut() {
            let before = owned.core.producers().len();
            owned.core.give_way(used_ms.saturating_add(1));
            forgotten += before - owned.core.producers().len();
        }
        self.metrics
            .producer_sessions_evicted
            .inc_by(forgotten as u64);
    }

    /// Takes a partition whose log has latched out of service; what waits for an answer gets one.
    pub(crate) fn check_latch(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let Some(reason) = owned.log.failure() else {
            return;
        };
        owned.partition.set_failed(reason);
        owned
            .core
            .step(now(&*self.clock), Input::StorageFailed, &mut self.outputs);
        self.perform_outputs(slot);
    }

    fn close(&mut self, slot: u32) {
        if let Some(owned) = self.slots.get(&slot) {
            owned.partition.mark_deleted();
            self.release(slot);
        }
    }

    /// Forgets a partition. Its files are for others to take care of.
    fn release(&mut self, slot: u32) {
        let Some(mut owned) = self.slots.remove(&slot) else {
            return;
        };
        let identity = *owned.log.identity();
        let _ = self.flush_jobs.push(Work::Forget(identity));
        drop(owned.finish_changes(false));
        if let Some(copying) = owned.copying.as_mut() {
            copying.refuse_all(FetchRefusal::NotReplica);
        }
        owned
            .core
            .step(now(&*self.clock), Input::StorageFailed, &mut self.outputs);
        self.perform_outputs(slot);
    }

    /// Saves what spares the next start work, flushes, and answers what waited for that.
    fn shutdown(&mut self) -> bool {
        let mut all = std::mem::take(&mut self.slots);
        for owned in all.values_mut() {
            let online = owned.partition.offline().is_none();
            let _ = self.removals.push(owned.finish_changes(online));
        }
        let logs = all.into_iter().map(|(slot, owned)| Closing {
            offline: owned.partition.offline().is_some(),
            owner: (slot, owned.partition),
            core: owned.core,
            log: owned.log,
            unsaved: owned.unsaved,
        });
        let mut safe = true;
        for mut closed in close_all(logs.collect(), &self.workers) {
            let (slot, partition) = closed.owner;
            let input = match &closed.result {
                Ok(()) => Input::Flushed(closed.end),
                Err(_) => Input::StorageFailed,
            };
            let time = now(&*self.clock);
            closed.core.step(time, input, &mut self.outputs);
            safe &= closed.result.is_ok();
            if let Err(reason) = closed.result {
                partition.set_offline(reason);
            }
            for output in std::mem::take(&mut self.outputs) {
                match output {
                    Output::Answer { ticket, result } => self.answer(slot, ticket, result),
                    Output::HighWatermark(offset) => {
                        let aborted = closed.core.producers().aborted_list();
                        partition.advance(offset, closed.core.last_stable_offset(), aborted);
                    }
                    // Nobody is told anything any more.
                    _ => {}
                }
            }
        }
        self.inbox.close();
        safe
    }
}

impl Owned {
    /// Keeps what was just written for the journal, unless it is so much that the file will be synced anyway.
    fn keep_for_journal(&mut self) {
        self.unjournaled_bytes += self.write_bytes as u64;
        if self.unjournaled_bytes < FILE_BYTES {
            self.unjournaled.append(&mut self.writes);
        } else {
            self.unjournaled.clear();
        }
    }

    /// Lets readers of committed records see everything below the last stable offset.
    pub(crate) fn publish_stable(&self) {
        let aborted = self.core.producers().aborted_list();
        let end = self.core.last_stable_offset();
        self.partition.stable.publish(end, aborted);
    }

    pub(crate) fn publish(&self) {
        let segments = self.log.segments() as u64;
        self.partition
            .publish(self.log.view(), self.log.size_bytes(), segments);
    }
}

/// What a topic's configuration means for its cores.
pub(crate) fn core_config(config: &TopicConfig, replica_lag: Duration) -> CoreConfig {
    CoreConfig {
        durability: config.durability,
        min_insync_replicas: config.min_insync_replicas,
        replica_lag_ms: u64::try_from(replica_lag.as_millis()).unwrap_or(u64::MAX),
    }
}

/// What time it is, for a core.
pub(crate) fn now(clock: &dyn Clock) -> Now {
    Now {
        mono_ms: u64::try_from(clock.now().since_start().as_millis()).unwrap_or(u64::MAX),
        wall_ms: clock.wall_ms(),
    }
}

/// The assignment of a partition that this node alone holds.
fn alone(me: NodeId, leader_epoch: LeaderEpoch) -> Assignment {
    Assignment {
        leader: Some(me),
        leader_epoch,
        partition_epoch: 0,
        replicas: vec![me],
        isr: vec![me],
        min_isr: 1,
        unclean_epoch: None,
    }
}
