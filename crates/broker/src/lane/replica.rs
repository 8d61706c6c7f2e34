//! A lane's part in replication: what a core of a cluster asks for beside appends. The leader's side parks
//! the fetches of followers; the follower's side writes what came and cuts what has to go.
//!
//! Invariants: a fetch that waits is answered while the same leadership lasts, or refused; a log is cut only
//! at rest, with nothing of it left in the journal; a flush that began before a cut counts for nothing after
//! it; whoever asked gets an answer, if the partition is closed too.

use std::sync::Arc;

use varve_metadata::PartitionKey;
use varve_partition::{
    Assignment, FetchGrant, FetchId, FetchRefusal, Fetched, Input, IsrRefusal, Output, Position,
    Replicated, Ticket,
};
use varve_record::Sequenced;
use varve_types::{BrokerEpoch, LeaderEpoch, Offset};
use varve_vfs::Tick;

use super::give_up::GoneReply;
use super::{Lane, Owned, now};
use crate::cluster::fill::fill_gaps;
use crate::cluster::followers::{FollowerQueue, Ready};
use crate::cluster::isr::Wish;
use crate::cluster::links::Links;
use crate::committer::{FlushJob, Work};
use crate::opener::rebuild_producers;

/// A fetch of a follower that has just come.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: FetchId,
    pub(crate) position: Position,
    /// Where the answer goes.
    pub(crate) queue: Arc<FollowerQueue>,
}

/// What a leader answered, its batches checked.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) batches: Vec<Sequenced>,
    pub(crate) high_watermark: Offset,
    pub(crate) log_start: Offset,
}

/// A fetch that waits for something to read.
#[derive(Debug)]
struct Parked {
    id: FetchId,
    queue: Arc<FollowerQueue>,
    epoch: LeaderEpoch,
    grant: FetchGrant,
    since: Tick,
}

/// What a core has asked to be cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    to: Offset,
    /// Everything goes, and the log begins anew there.
    anew: bool,
}

/// What only its lane knows of a partition's replication.
#[derive(Debug)]
pub(crate) struct Copying {
    pub(crate) key: PartitionKey,
    parked: Vec<Parked>,
    /// The batches of the answer that the core is looking at.
    arrived: Option<(FetchId, Vec<Sequenced>)>,
    cut: Option<Cut>,
    /// The committer is asked to make the journal's entries void, or the files are being synced for that.
    clearing: bool,
    /// Epoch in which this node leads, as it was told to others.
    led: Option<LeaderEpoch>,
    /// The controller was told that this replica is of no use.
    lost: bool,
    /// Who waits until this replica is let go of.
    leaving: Option<GoneReply>,
}

impl Copying {
    pub(crate) const fn new(key: PartitionKey) -> Self {
        Self {
            key,
            parked: Vec::new(),
            arrived: None,
            cut: None,
            clearing: false,
            led: None,
            lost: false,
            leaving: None,
        }
    }

    /// Nothing may be flushed: the log is about to be cut.
    pub(crate) const fn cutting(&self) -> bool {
        self.cut.is_some()
    }

    /// The replica is given up: the controller knows.
    pub(super) fn leave(&mut self, reply: GoneReply) {
        self.lost = true;
        self.leaving = Some(reply);
    }

    /// It is given up, and nobody is at work on what the journal has of it.
    pub(super) const fn may_leave(&self) -> bool {
        self.leaving.is_some() && !self.clearing
    }

    /// The committer is asked to make the journal's entries void.
    pub(super) const fn clear(&mut self) {
        self.clearing = true;
    }

    /// Who waited for it to go.
    pub(super) const fn left(&mut self) -> Option<GoneReply> {
        self.leaving.take()
    }

    /// Refuses every fetch that waits.
    pub(crate) fn refuse_all(&mut self, why: FetchRefusal) {
        for parked in self.parked.drain(..) {
            parked.queue.push(Ready::refused(self.key, parked.id, why));
        }
    }
}

impl Lane {
    pub(super) fn step(&mut self, slot: u32, input: Input) {
        if let Some(owned) = self.slots.get_mut(&slot) {
            owned.core.step(now(&*self.clock), input, &mut self.outputs);
            self.perform_outputs(slot);
        }
    }

    pub(super) fn assign(&mut self, slot: u32, assignment: Assignment) {
        if let Some(owned) = self.slots.get_mut(&slot) {
            owned.partition.set_leader_epoch(assignment.leader_epoch);
        }
        self.step(slot, Input::Assign(assignment));
    }

    /// This node is registered (again): what it says from here on carries this epoch.
    pub(super) fn registered(&mut self, epoch: BrokerEpoch) {
        self.registered = Some(epoch);
        let slots: Vec<u32> = self.slots.keys().copied().collect();
        for slot in slots {
            self.step(slot, Input::Registered(epoch));
        }
    }

    pub(super) fn replica_fetch(&mut self, slot: u32, key: PartitionKey, asked: Asked) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let position = asked.position;
        if !self.slots.contains_key(&slot) {
            let refused = Ready::refused(key, asked.id, FetchRefusal::NotReplica);
            return asked.queue.push(refused);
        }
        self.asking = Some((ticket, asked));
        self.step(slot, Input::ReplicaFetch { ticket, position });
        debug_assert!(self.asking.is_none(), "a fetch is answered in its step");
    }

    pub(super) fn replica_progress(&mut self, slot: u32, position: Position) {
        self.step(slot, Input::ReplicaProgress(position));
    }

    pub(super) fn fetched(
        &mut self,
        slot: u32,
        id: FetchId,
        result: Result<Arrived, FetchRefusal>,
    ) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let result = result.map(|arrived| {
            let batches = fill_gaps(owned.core.log_end(), arrived.batches);
            let fetched = Fetched {
                batches: batches.iter().map(replicated).collect(),
                high_watermark: arrived.high_watermark,
                log_start: arrived.log_start,
            };
            if let Some(copying) = owned.copying.as_mut() {
                copying.arrived = Some((id, batches));
            }
            fetched
        });
        self.step(slot, Input::Fetched { id, result });
        if let Some(owned) = self.slots.get_mut(&slot)
            && let Some(copying) = owned.copying.as_mut()
        {
            copying.arrived = None;
        }
    }

    pub(super) fn fetch_failed(&mut self, slot: u32, id: FetchId) {
        self.step(slot, Input::FetchFailed(id));
    }

    /// It is the turn of a fetch that was held back: what the core asks now is not held back again.
    pub(super) fn fetch_held(&mut self, slot: u32, id: FetchId) {
        self.turn = Some(slot);
        self.step(slot, Input::FetchHeld(id));
        self.turn = None;
    }

    pub(super) fn isr_refused(&mut self, slot: u32, partition_epoch: i32, why: IsrRefusal) {
        let input = Input::IsrRefused {
            partition_epoch,
            why,
        };
        self.step(slot, input);
    }

    /// An output that only a partition with other replicas has.
    pub(super) fn perform_replication(&mut self, slot: u32, output: Output) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let Some(copying) = owned.copying.as_mut() else {
            unreachable!("{output:?} of a partition that is alone")
        };
        let Some(rim) = &self.rim else {
            unreachable!("partitions are copied only in a cluster")
        };
        match output {
            Output::AnswerFetch { ticket, result } => {
                let Some((asked_as, asked)) = self.asking.take() else {
                    unreachable!("{ticket:?} was not asked")
                };
                assert_eq!(asked_as, ticket, "one fetch is asked at a time");
                let refusal = match (result, owned.core.leader_epoch()) {
                    (Ok(grant), Some(epoch)) => {
                        // The queue of that connection has at most one fetch of a partition.
                        copying
                            .parked
                            .retain(|p| !Arc::ptr_eq(&p.queue, &asked.queue));
                        copying.parked.push(Parked {
                            id: asked.id,
                            queue: asked.queue,
                            epoch,
                            grant,
                            since: self.clock.now(),
                        });
                        return;
                    }
                    (Ok(_), None) => FetchRefusal::NotLeader,
                    (Err(refusal), _) => refusal,
                };
                asked
                    .queue
                    .push(Ready::refused(copying.key, asked.id, refusal));
            }
            Output::Fetch {
                id,
                leader,
                position,
            } => {
                let fetch = match self.turn == Some(slot) {
                    true => Links::send,
                    false => Links::fetch,
                };
                let (links, key) = (&rim.links, copying.key);
                fetch(links, leader, &owned.partition, key, id, position);
            }
            Output::Progress { leader, position } => {
                rim.links.progress(leader, copying.key, position);
            }
            Output::WriteReplicated { id, end } => self.stage_copies(slot, id, end),
            Output::Truncate(to) => self.cut(slot, Cut { to, anew: false }),
            Output::Restart(to) => self.cut(slot, Cut { to, anew: true }),
            Output::Trim(to) => self.follow_trim(slot, to),
            Output::ProposeIsr {
                leader_epoch,
                partition_epoch,
                isr,
            } => rim.wish(Wish::Isr {
                partition: Arc::clone(&owned.partition),
                key: copying.key,
                leader_epoch,
                partition_epoch,
                isr,
            }),
            Output::Distrust { leader, why } => {
                tracing::error!(
                    partition = %owned.partition.id, %leader, ?why,
                    "refused what the leader sent"
                );
                if owned.core.failed() {
                    owned.partition.set_offline(format!(
                        "node {leader} leads it, but that node's log contradicts records that this \
                         replica knows to be committed ({why:?}); nothing was changed here; \
                         compare the logs of both nodes"
                    ));
                }
            }
            other => unreachable!("{other:?} is performed elsewhere"),
        }
    }

    fn stage_copies(&mut self, slot: u32, id: FetchId, end: Offset) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let arrived = owned.copying.as_mut().and_then(|c| c.arrived.take());
        let Some((_, batches)) = arrived.filter(|(arrived, _)| *arrived == id) else {
            unreachable!("the core writes only what it is shown")
        };
        let last = batches.last().map(|b| b.header().next_offset());
        assert_eq!(last, Some(end), "all of an answer is written");
        if owned.writes.is_empty() {
            self.dirty.push(slot);
        }
        let bytes: usize = batches.iter().map(Sequenced::size).sum();
        owned.write_bytes += bytes;
        self.group_bytes += bytes;
        owned.writes.extend(batches);
    }

    /// The leader has removed records.
    fn follow_trim(&mut self, slot: u32, to: Offset) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        if owned.partition.offline().is_some() {
            return;
        }
        match owned.log.prepare_trim(to) {
            Ok(_) => self.start_change(slot),
            Err(error) => {
                tracing::warn!(partition = %owned.partition.id, %error, "the leader's log start is not followed");
                self.check_latch(slot);
            }
        }
    }

    fn cut(&mut self, slot: u32, cut: Cut) {
        if let Some(copying) = self.slots.get_mut(&slot).and_then(|o| o.copying.as_mut()) {
            copying.cut = Some(cut);
        }
        // Outputs are being performed: it is begun when they are through.
    }

    /// Cuts, once nothing is under way and the journal holds nothing of the log.
    pub(crate) fn try_cut(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let busy = owned.flushing || owned.changing.running() || !owned.writes.is_empty();
        let Some(copying) = owned.copying.as_mut() else {
            return;
        };
        let Some(cut) = copying.cut else { return };
        if busy || copying.clearing || owned.partition.offline().is_some() {
            return;
        }
        if owned.log.in_journal() {
            copying.clearing = true;
            let work = match owned.log.journal_relief() {
                Some(target) => Work::Flush(Box::new(FlushJob {
                    lane: Arc::clone(&self.inbox),
                    slot,
                    target,
                    entry: None,
                    relief: true,
                })),
                None => Work::Void {
                    identity: *owned.log.identity(),
                    lane: Arc::clone(&self.inbox),
                    slot,
                },
            };
            let _ = self.flush_jobs.push(work);
            return;
        }
        copying.cut = None;
        self.cut_now(slot, cut);
    }

    /// The files were synced for a cut, perhaps.
    pub(super) fn cleared(&mut self, slot: u32) {
        if let Some(copying) = self.slots.get_mut(&slot).and_then(|o| o.copying.as_mut()) {
            copying.clearing = false;
        }
    }

    /// The journal's entries of the log are void, or could not be made so now.
    pub(super) fn voided(&mut self, slot: u32, result: Result<bool, String>) {
        self.cleared(slot);
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        match result {
            Ok(true) => {
                owned.log.journal_voided();
                self.try_cut(slot);
                self.try_leave(slot);
            }
            // No room at present: the next tick asks again.
            Ok(false) => {}
            Err(reason) => {
                if let Some(reply) = owned.copying.as_mut().and_then(Copying::left) {
                    let _ = reply.send(Err(reason.clone()));
                }
                owned.partition.set_failed(&reason);
                self.step(slot, Input::StorageFailed);
            }
        }
    }

    fn cut_now(&mut self, slot: u32, cut: Cut) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let now_ms = self.clock.wall_ms();
        let end = owned.log.log_end();
        let done = if cut.anew {
            owned.log.reset_to(cut.to)
        } else {
            owned.log.truncate_to(cut.to)
        };
        let producers = done.map_err(|e| e.to_string()).and_then(|removal| {
            let committed = owned.core.high_watermark().min(owned.log.log_end());
            let producers =
                rebuild_producers(&mut owned.log, committed, now_ms).map_err(|e| e.to_string());
            producers.map(|p| (removal, p))
        });
        match producers {
            Ok((removal, producers)) => {
                tracing::info!(
                    partition = %owned.partition.id, from = %end, to = %owned.log.log_end(), anew = cut.anew,
                    "truncated the log: the removed records were never committed, or the leader's \
                     log starts later"
                );
                owned.unsaved = crate::closing::Unsaved::new();
                owned.unflushed = None;
                owned.unjournaled.clear();
                owned.unjournaled_bytes = 0;
                let input = Input::Truncated {
                    log_start: owned.log.log_start(),
                    log_end: owned.log.log_end(),
                    flushed: owned.log.flushed(),
                    producers,
                };
                owned.partition.set_flushed(owned.log.flushed());
                owned.publish();
                let _ = self.removals.push(removal);
                self.step(slot, input);
                if let Some(owned) = self.slots.get_mut(&slot) {
                    owned.core.compacted(owned.log.clean_upto());
                    let stable = owned.core.last_stable_offset();
                    let aborted = owned.core.producers().aborted_list();
                    owned.partition.stable.replace(stable, aborted);
                    let end = owned.core.high_watermark();
                    owned.partition.advance(end, stable, aborted);
                }
            }
            Err(reason) => {
                owned.partition.set_failed(&reason);
                self.step(slot, Input::StorageFailed);
            }
        }
    }

    /// What follows from a step of a core that has other replicas, once its outputs are performed.
    pub(super) fn after_step(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let Some(copying) = owned.copying.as_mut() else {
            return;
        };
        let leads = owned.core.leader_epoch();
        if leads != copying.led {
            copying.led = leads;
            if let Some(epoch) = leads {
                // Written down with the first flush; a log that has failed leads nothing.
                let begun = owned.log.begin_epoch(epoch);
                tracing::info!(partition = %owned.partition.id, leader_epoch = %epoch, ok = begun.is_ok(), "leads");
                self.metrics.leader_elections.inc();
            }
            owned.partition.set_leading(leads);
            owned.partition.waiters.wake();
        }
        // A log whose write or sync failed has what it had: this process ends for it, and the next start recovers at
        // least what was told to be flushed, so it stays eligible. Where acknowledged records were not flushed
        // (durability=replicated), that next start is an unclean one, which says so of itself.
        let gone = owned.partition.offline().is_some() && !owned.partition.has_failed();
        if gone && !copying.lost {
            copying.lost = true;
            if let Some(rim) = &self.rim {
                rim.wish(Wish::Lost {
                    partition: Arc::clone(&owned.partition),
                    key: copying.key,
                });
            }
        }
        self.serve(slot, None);
        self.try_cut(slot);
    }

    /// Answers the fetches that have something to read, or may wait no longer; refuses those of a leadership
    /// that is over.
    fn serve(&mut self, slot: u32, late: Option<Tick>) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let Some(copying) = owned.copying.as_mut() else {
            return;
        };
        let (epoch, end) = (owned.core.leader_epoch(), owned.log.log_end());
        let high_watermark = owned.core.committed();
        let (key, partition) = (copying.key, &owned.partition);
        copying.parked.retain(|parked| {
            let ready = if Some(parked.epoch) != epoch {
                Ready::refused(key, parked.id, FetchRefusal::NotLeader)
            } else if end > parked.grant.from
                || high_watermark > parked.grant.high_watermark
                || late.is_some_and(|late| parked.since <= late)
            {
                let partition = Arc::clone(partition);
                Ready::granted(key, parked.id, partition, parked.grant.from, parked.epoch)
            } else {
                return true;
            };
            parked.queue.push(ready);
            false
        });
    }

    /// Time has passed in a cluster.
    pub(super) fn tick_replicas(&mut self) {
        let Some(rim) = &self.rim else { return };
        let time = now(&*self.clock);
        let late = self.clock.now().before(rim.config.park);
        let slots: Vec<u32> = self.slots.keys().copied().collect();
        for slot in slots {
            let Some(owned) = self.slots.get_mut(&slot) else {
                continue;
            };
            let due = owned.core.next_deadline();
            if due.is_some_and(|at| at <= time.mono_ms) {
                self.step(slot, Input::Tick);
            }
            self.serve(slot, Some(late));
            self.try_cut(slot);
            self.try_leave(slot);
        }
    }
}

impl Owned {
    /// No flush may begin now.
    pub(super) fn at_rest_for_cut(&self) -> bool {
        self.copying.as_ref().is_some_and(Copying::cutting)
    }
}

fn replicated(batch: &Sequenced) -> Replicated {
    // Its checksum is right: a payload that is not understood is of a later version, and says nothing here.
    Replicated::of(batch.header(), batch.end_marker().unwrap_or_default())
}
