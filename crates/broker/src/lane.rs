//! A lane: one thread that owns a fixed set of partitions, each a `partition::Core` over a
//! `storage::Log`. It takes all commands that wait, lets the cores decide, writes once per partition,
//! publishes, answers. It never awaits and never flushes; reads never come here.
//!
//! [`Lane::run_once`] is a plain function; the thread around it is [`spawn`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use varve_broker_api::{Appended, Error};
use varve_partition::{Accepted, Append, Assignment, Core, CoreConfig, Input, Now, Output, Ticket};
use varve_record::{Batch, Sequenced};
use varve_storage::{ChangeDone, FlushDone, FlushError, Log, LogConfig};
use varve_types::config::Durability;
use varve_types::{Acks, ErrorKind, LeaderEpoch, NodeId, Offset, TopicConfig};
use varve_vfs::{Clock, Tick};

use crate::admission::Permit;
use crate::changes::Changing;
use crate::cleaner::{Candidate, Cleaner, InstallReply, Part, RunReply};
use crate::closing::{Closing, Unsaved, close_all};
use crate::committer::{FILE_BYTES, FlushJob, Work};
use crate::flusher::{ChangeJob, Flushers};
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::reject;

/// Bytes after which a group is written, so that one flush does not hold too many answers.
const GROUP_MAX_BYTES: usize = 4 * 1024 * 1024;

/// One append on its way.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) batch: Batch,
    pub(crate) acks: Acks,
    pub(crate) expected_offset: Option<Offset>,
    pub(crate) arrived: Tick,
    pub(crate) reply: oneshot::Sender<Result<Appended, Error>>,
    /// Held until the answer.
    pub(crate) permit: Permit,
}

/// What a lane is told.
#[derive(Debug)]
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
    /// The topic's configuration changed.
    Configure { slot: u32, config: Box<TopicConfig> },
    /// Forget a partition whose topic is deleted.
    Close {
        slot: u32,
        reply: oneshot::Sender<()>,
    },
    /// Time has passed: flush what waits for time.
    Tick,
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
    pub(crate) epoch: LeaderEpoch,
}

/// An answer that is still owed.
#[derive(Debug)]
struct Owed {
    reply: oneshot::Sender<Result<Appended, Error>>,
    acks: Acks,
    records: u32,
    append_time_ms: i64,
    arrived: Tick,
    _permit: Permit,
}

/// A partition and what only its lane knows about it.
pub(crate) struct Owned {
    pub(crate) partition: Arc<Partition>,
    pub(crate) core: Core,
    pub(crate) log: Log,
    /// Batches with offsets, not written yet.
    writes: Vec<Sequenced>,
    write_bytes: usize,
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
}

/// Starts the thread of a lane.
pub(crate) fn spawn(
    number: usize,
    inbox: Arc<Inbox<Command>>,
    clock: Arc<dyn Clock>,
    flushers: &Flushers,
    cleaner: &Cleaner,
    metrics: Metrics,
) -> std::io::Result<JoinHandle<()>> {
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
    };
    std::thread::Builder::new()
        .name(format!("varve-lane-{number}"))
        .spawn(move || {
            let mut commands = VecDeque::new();
            while inbox.take_all(&mut commands) {
                lane.run_once(&mut commands);
            }
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
            Command::Relieved { slot, result } => self.flushed(slot, result),
            Command::Open(opening) => self.open(*opening),
            Command::Trim { slot, to, reply } => {
                self.write_group();
                self.trim(slot, to, reply);
            }
            Command::Changed { slot, result } => self.changed(slot, result),
            Command::Compact { slot, reply } => self.compact(slot, &reply),
            Command::Install { slot, part, reply } => self.install(slot, *part, reply),
            Command::CompactionOver { slot } => self.compaction_over(slot),
            Command::Configure { slot, config } => self.configure(slot, &config),
            Command::Close { slot, reply } => {
                self.write_group();
                self.close(slot);
                let _ = reply.send(());
            }
            Command::Tick => self.tick(),
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
            epoch,
        } = opening;
        let mut outputs = std::mem::take(&mut self.outputs);
        core.step(
            now(&*self.clock),
            Input::Assign(alone(core.me(), epoch)),
            &mut outputs,
        );
        assert!(outputs.is_empty(), "a new leader owes nobody anything");
        self.outputs = outputs;
        partition.set_leader_epoch(epoch);
        partition.set_flushed(log.flushed());
        partition.publish(log.view(), log.size_bytes(), log.segments() as u64);
        partition.advance(core.high_watermark());
        let slot = partition.slot;
        let owned = Owned {
            partition,
            core,
            log,
            writes: Vec::new(),
            write_bytes: 0,
            unjournaled: Vec::new(),
            unjournaled_bytes: 0,
            flushing: false,
            unflushed: None,
            flush_again: false,
            unsaved: Unsaved::new(),
            changing: Changing::default(),
        };
        let old = self.slots.insert(slot, owned);
        assert!(old.is_none(), "slot {slot} is owned twice");
    }

    fn produce(&mut self, slot: u32, arrival: Arrival) {
        let Arrival {
            batch,
            acks,
            expected_offset,
            arrived,
            reply,
            permit,
        } = arrival;
        let Some(owned) = self.slots.get_mut(&slot) else {
            let _ = reply.send(Err(Error::new(
                ErrorKind::TopicNotFound,
                "the topic was deleted; nothing was appended",
            )));
            return;
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let header = batch.header();
        let records = header.record_count.unsigned_abs();
        let append = Append {
            ticket,
            records,
            producer: header.producer(),
            acks,
            expected_offset,
        };
        let append_time_ms = self.clock.wall_ms();
        let owed = Owed {
            reply,
            acks,
            records,
            append_time_ms,
            arrived,
            _permit: permit,
        };
        self.owed.insert(ticket, owed);
        self.offered = Some((ticket, batch));
        owned
            .core
            .step(now(&*self.clock), Input::Append(append), &mut self.outputs);
        self.perform_outputs(slot);
        // A duplicate or refused batch was not taken.
        self.offered = None;
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
                        owned.partition.advance(offset);
                    }
                }
                // What only a partition with other replicas asks for; this one is assigned alone.
                other @ (Output::AnswerFetch { .. }
                | Output::Fetch { .. }
                | Output::Progress { .. }
                | Output::WriteReplicated { .. }
                | Output::Truncate(_)
                | Output::Restart(_)
                | Output::Trim(_)
                | Output::ProposeIsr { .. }
                | Output::Distrust { .. }) => {
                    unreachable!("{other:?} of a partition that is alone")
                }
            }
        }
        self.outputs = outputs;
    }

    fn stage(&mut self, slot: u32, ticket: Ticket, base: Offset, epoch: LeaderEpoch) {
        let Some((offered, batch)) = self.offered.take() else {
            unreachable!("the core writes only what it was offered")
        };
        assert_eq!(offered, ticket, "the core writes only what it was offered");
        let Some(owned) = self.slots.get_mut(&slot) else {
            unreachable!("the core is owned")
        };
        if owned.writes.is_empty() {
            self.dirty.push(slot);
        }
        let sequenced = batch.sequence(base, epoch);
        owned.write_bytes += sequenced.size();
        self.group_bytes += sequenced.size();
        owned.writes.push(sequenced);
    }

    fn answer(
        &mut self,
        slot: u32,
        ticket: Ticket,
        result: Result<Accepted, varve_partition::Rejection>,
    ) {
        let Some(owed) = self.owed.remove(&ticket) else {
            unreachable!("ticket {ticket:?} is answered twice")
        };
        let took = self.clock.now().since(owed.arrived);
        let label = crate::metrics::AcksLabel {
            acks: owed.acks.to_string(),
        };
        self.metrics
            .produce_seconds
            .get_or_create(&label)
            .observe(took.as_secs_f64());
        let answer = match result {
            Ok(accepted) => Ok(Appended {
                base_offset: (owed.acks != Acks::None).then_some(accepted.base_offset),
                record_count: owed.records,
                append_time_ms: owed.append_time_ms,
                deduplicated: accepted.deduplicated,
                leader_epoch: accepted.leader_epoch,
                replicas: accepted.replicas,
                flushed_replicas: accepted.flushed_replicas,
            }),
            Err(rejection) => Err(match self.slots.get(&slot) {
                Some(owned) => reject::error(&owned.partition, rejection),
                None => Error::new(rejection.kind(), "the partition was closed"),
            }),
        };
        // The caller may have gone; the append stands.
        let _ = owed.reply.send(answer);
    }

    /// Writes what was staged: one vectored write per partition.
    fn write_group(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        for slot in &dirty {
            self.write_partition(*slot);
        }
        self.dirty = dirty;
        self.dirty.clear();
        self.group_bytes = 0;
    }

    fn write_partition(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let now_ms = self.clock.wall_ms();
        let started = self.clock.now();
        let result = owned.log.append(&owned.writes, now_ms);
        self.metrics
            .append_seconds
            .observe(self.clock.now().since(started).as_secs_f64());
        let records: u64 = owned
            .writes
            .iter()
            .map(|w| u64::from(w.header().record_count.unsigned_abs()))
            .sum();
        let fsync = owned.partition.config().durability == Durability::Fsync;
        if result.is_ok() && fsync {
            owned.keep_for_journal();
        }
        owned.writes.clear();
        let bytes = std::mem::take(&mut owned.write_bytes);
        let input = match result {
            Ok(_) => {
                owned.partition.counters.records_produced.inc_by(records);
                owned.partition.counters.bytes_produced.inc_by(bytes as u64);
                owned.publish();
                owned.unsaved.add(bytes);
                Input::Written(owned.log.log_end())
            }
            Err(error) if error.is_no_space() => {
                tracing::warn!(partition = %owned.partition.id, %error, "append refused");
                Input::WriteRefused(owned.log.log_end())
            }
            Err(error) => {
                owned.partition.set_failed(&error.to_string());
                Input::StorageFailed
            }
        };
        owned.core.step(now(&*self.clock), input, &mut self.outputs);
        self.perform_outputs(slot);
        self.want_flush(slot, started);
        // Nothing is staged now, and the flush is already under way.
        if let Some(owned) = self.slots.get_mut(&slot) {
            owned
                .unsaved
                .save_if_due(&mut owned.log, owned.core.producers());
        }
    }

    /// Starts a flush where the topic's durability asks for one now.
    fn want_flush(&mut self, slot: u32, now: Tick) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let config = owned.partition.config();
        if config.durability == Durability::Replicated {
            let from = owned.log.flushed();
            let (_, from) = *owned.unflushed.get_or_insert((now, from));
            if owned.log.log_end().since(from) < config.flush_messages {
                return;
            }
        }
        self.start_flush(slot);
    }

    pub(crate) fn start_flush(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        if owned.flushing || owned.partition.offline().is_some() {
            return;
        }
        owned.unflushed = None;
        owned.flush_again = false;
        let batches = std::mem::take(&mut owned.unjournaled);
        owned.unjournaled_bytes = 0;
        if owned.log.needs_flush()
            && let Some(target) = owned.log.flush_target()
        {
            let job = Box::new(FlushJob {
                lane: Arc::clone(&self.inbox),
                slot,
                target,
                entry: owned.log.journal_entry(batches),
                relief: false,
            });
            owned.flushing = self.flush_jobs.push(Work::Flush(job)).is_ok();
        }
    }

    /// Has the files synced, if they are behind the journal.
    fn relieve(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let work = match (owned.log.journal_relief(), owned.log.files_synced()) {
            (Some(target), _) => Work::Flush(Box::new(FlushJob {
                lane: Arc::clone(&self.inbox),
                slot,
                target,
                entry: None,
                relief: true,
            })),
            (None, Some(done)) => {
                let follow = false;
                Work::Synced { done, follow }
            }
            // The log has failed: only the journal is known to have its records.
            (None, None) => return,
        };
        let _ = self.flush_jobs.push(work);
    }

    fn flushed(&mut self, slot: u32, result: Result<FlushDone, FlushError>) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let flushed = match result {
            Ok(done) => owned.log.flush_done(&done).map_err(|e| e.to_string()),
            Err(error) => {
                owned.log.flush_failed(&error);
                match owned.log.failure() {
                    Some(_) => Err(error.to_string()),
                    // No space for a small file: nothing was lost, and a later flush covers it too.
                    None => {
                        owned.flush_again = true;
                        Ok(owned.log.flushed())
                    }
                }
            }
        };
        let input = match flushed {
            Ok(upto) => {
                owned.partition.set_flushed(upto);
                Input::Flushed(upto)
            }
            Err(reason) => {
                owned.partition.set_failed(&reason);
                Input::StorageFailed
            }
        };
        owned.core.step(now(&*self.clock), input, &mut self.outputs);
        let behind = owned.log.flushed() < owned.log.log_end();
        let fsync = owned.partition.config().durability == Durability::Fsync;
        let now = !owned.flush_again;
        self.perform_outputs(slot);
        // A manifest that the flush wrote may have had a change in it.
        self.after_change(slot);
        if behind && fsync && now {
            self.start_flush(slot);
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        let due: Vec<u32> = self
            .slots
            .iter()
            .filter(|(_, owned)| {
                owned.flush_again
                    || owned.unflushed.is_some_and(|(since, _)| {
                        now.since(since).as_millis()
                            >= u128::from(owned.partition.config().flush_ms)
                    })
            })
            .map(|(slot, _)| *slot)
            .collect();
        for slot in due {
            self.start_flush(slot);
        }
        let waits = |owned: &Owned| owned.changing.again;
        let again = self.slots.iter().filter(|(_, o)| waits(o));
        let again: Vec<u32> = again.map(|(slot, _)| *slot).collect();
        for slot in again {
            self.start_change(slot);
        }
    }

    fn configure(&mut self, slot: u32, config: &TopicConfig) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        owned.log.set_config(LogConfig::from(config));
        owned.partition.set_config(config.clone());
        owned
            .core
            .set_config(core_config(config), &mut self.outputs);
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
            self.retain(slot, now_ms);
            self.offer(slot, now_ms);
            self.perform_outputs(slot);
        }
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
        let Some(mut owned) = self.slots.remove(&slot) else {
            return;
        };
        owned.partition.mark_deleted();
        let identity = *owned.log.identity();
        let _ = self.flush_jobs.push(Work::Forget(identity));
        drop(owned.finish_changes(false));
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
        for mut closed in close_all(logs.collect()) {
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
                    Output::HighWatermark(offset) => partition.advance(offset),
                    other => unreachable!("{other:?} at shutdown, of a partition that is alone"),
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

    pub(crate) fn publish(&self) {
        let segments = self.log.segments() as u64;
        self.partition
            .publish(self.log.view(), self.log.size_bytes(), segments);
    }
}

/// What a topic's configuration means for its cores.
pub(crate) fn core_config(config: &TopicConfig) -> CoreConfig {
    CoreConfig {
        durability: config.durability,
        min_insync_replicas: config.min_insync_replicas,
        ..CoreConfig::default()
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
