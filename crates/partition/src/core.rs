//! One partition on one node: its cursors, its role, and which rule an input belongs to. The rules of a
//! leader are in `leader`, those of a follower in `follower`; what both need is here.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::config::Durability;
use varve_types::{BrokerEpoch, LeaderEpoch, NodeId, Offset};

use crate::epochs::Epochs;
use crate::follower::Follower;
use crate::input::{Assignment, Input, Now, Position, Ticket};
use crate::invariants::Cursors;
use crate::leader::{Leader, Replica};
use crate::output::{Output, Rejection};
use crate::pending_acks::PendingAcks;
use crate::planted::{self, Plant};
use crate::producer_state::ProducerTable;

/// What a partition's topic and node ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreConfig {
    /// What `acks=all` waits for, and what a replica's word of its log end rests on.
    pub durability: Durability,
    /// Least in-sync replicas for `acks=all`.
    pub min_insync_replicas: usize,
    /// A replica that has not reached the leader's log end for so long leaves the in-sync replicas,
    /// milliseconds (`replica.lag.time.max.ms`).
    pub replica_lag_ms: u64,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            min_insync_replicas: 1,
            replica_lag_ms: 10_000,
        }
    }
}

/// Time after which a proposal or a failed fetch is repeated, milliseconds.
pub(crate) const RETRY_MS: u64 = 200;

/// What the log held when it was opened. All of it counts as flushed: opening makes it so.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Oldest offset.
    pub log_start: Offset,
    /// One past the last record.
    pub log_end: Offset,
    /// High watermark as it was last saved; `log_start` when it was not.
    pub high_watermark: Offset,
    /// Leader epochs found in the log.
    pub epochs: Epochs,
    /// Producer sessions found in the log.
    pub producers: ProducerTable,
}

#[derive(Debug)]
pub(crate) enum Role {
    /// Takes appends.
    Leader(Leader),
    /// Copies a leader.
    Follower(Follower),
    /// Nobody leads, or nothing is known yet.
    Idle,
    /// Out of service until the process starts again: I/O failed, or the log contradicts the metadata.
    Failed,
}

/// The state machine of one partition on one node.
#[derive(Debug)]
pub struct Core {
    pub(crate) me: NodeId,
    pub(crate) broker_epoch: BrokerEpoch,
    pub(crate) role: Role,
    pub(crate) config: CoreConfig,
    /// The assignment in force.
    pub(crate) assigned: Option<Assignment>,
    /// A newer one that waits until the log is at rest.
    pub(crate) next: Option<Assignment>,
    pub(crate) cursors: Cursors,
    pub(crate) epochs: Epochs,
    pub(crate) producers: ProducerTable,
    /// Nothing below can turn out to belong to an aborted transaction that is not known as such.
    last_stable: Offset,
    /// Monotonic time of the step, milliseconds.
    pub(crate) now_ms: u64,
    /// Told to the leader, one more with each message.
    pub(crate) sequence: u64,
    /// Names of fetches.
    pub(crate) next_fetch: u64,
    /// The log is being cut; nothing else is decided meanwhile.
    pub(crate) cutting: bool,
    /// It is not cut, but thrown away and begun anew.
    pub(crate) begun_anew: bool,
    /// The last unclean election that the high watermark is newer than, as far as is known. Of a saved one
    /// that is not known.
    unclean_epoch: Option<LeaderEpoch>,
    /// It was assigned before in this process. Only a planted bug looks at it.
    was_assigned: bool,
    /// In this step the high watermark was given up.
    begins_anew: bool,
    /// Always empty, but for a planted bug.
    pub(crate) remembered: BTreeMap<NodeId, Replica>,
    /// `acks=all`, waiting for the high watermark.
    pub(crate) committing: PendingAcks,
    /// `acks=leader`, waiting for the write.
    pub(crate) writing: PendingAcks,
}

impl Core {
    /// A partition over a log that was just opened. It does nothing until it is assigned.
    ///
    /// `instance` is greater than that of any core that this process has had for the partition before: a
    /// replica may be removed and added again, and what was said to and by the first must not be taken
    /// for the second's.
    #[must_use]
    pub fn new(me: NodeId, config: CoreConfig, recovered: Recovered, instance: u32) -> Self {
        let end = recovered.log_end;
        let cursors = Cursors {
            log_start: recovered.log_start,
            high_watermark: recovered.high_watermark.max(recovered.log_start).min(end),
            flushed: end,
            written: end,
            log_end: end,
        };
        cursors.check();
        let mut core = Self {
            me,
            broker_epoch: BrokerEpoch::default(),
            role: Role::Idle,
            config,
            assigned: None,
            next: None,
            cursors,
            epochs: recovered.epochs,
            producers: recovered.producers,
            last_stable: cursors.log_start,
            now_ms: 0,
            sequence: names_from(instance),
            next_fetch: names_from(instance),
            cutting: false,
            begun_anew: false,
            unclean_epoch: None,
            was_assigned: false,
            begins_anew: false,
            remembered: BTreeMap::new(),
            committing: PendingAcks::default(),
            writing: PendingAcks::default(),
        };
        core.producers.trim(cursors.log_start);
        core.last_stable = core.find_last_stable();
        core
    }

    /// Takes one input.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        let (before, stable_before) = (self.cursors, self.last_stable);
        self.now_ms = now.mono_ms;
        let cut = matches!(input, Input::Truncated { .. });
        self.take(now, input, out);
        self.move_last_stable(out);
        self.cursors.check();
        self.cursors.check_stable(self.last_stable);
        if !std::mem::take(&mut self.begins_anew) && !cut {
            self.cursors.check_since(&before);
            assert!(
                self.last_stable >= stable_before,
                "last stable offset went back from {stable_before} to {}",
                self.last_stable
            );
        }
        self.check_role();
    }

    /// The offset of the first record of the oldest transaction that is open, or whose marker is not committed;
    /// the high watermark when there is none.
    fn find_last_stable(&mut self) -> Offset {
        let high_watermark = self.cursors.high_watermark;
        let stable = self.producers.stable_below(high_watermark);
        if planted::is(Plant::LastStableIsHighWatermark) {
            return high_watermark;
        }
        // Records of the transaction may have been removed already.
        stable.max(self.cursors.log_start)
    }

    /// Says so when the last stable offset is another.
    pub(crate) fn move_last_stable(&mut self, out: &mut Vec<Output>) {
        let stable = self.find_last_stable();
        if stable != self.last_stable {
            self.last_stable = stable;
            out.push(Output::LastStable(stable));
        }
    }

    fn take(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        if matches!(self.role, Role::Failed) {
            return self.refuse_all(&input, out);
        }
        match input {
            Input::Assign(assignment) => self.assign(now, assignment, out),
            Input::Registered(epoch) => self.registered(now, epoch, out),
            Input::Append(append) => self.append(now, append, out),
            Input::Written(end) => self.written(now, end, out),
            Input::Flushed(end) => self.flushed(end, out),
            Input::WriteRefused(end) => self.write_refused(now, end, out),
            Input::StorageFailed => self.storage_failed(out),
            Input::LogStart(start) => {
                self.cursors.log_start = start;
                // It may have been given up while they were being removed; they were committed all the same.
                self.cursors.high_watermark = self.cursors.high_watermark.max(start);
                self.producers.trim(start);
            }
            Input::ReplicaFetch { ticket, position } => {
                self.replica_fetch(now, ticket, &position, out);
            }
            Input::ReplicaProgress(position) => self.replica_progress(now, &position, out),
            Input::Fetched { id, result } => self.fetched(now, id, result, out),
            Input::FetchFailed(id) => self.fetch_failed(now, id),
            Input::FetchHeld(id) => self.fetch_held(now, id, out),
            Input::Truncated {
                log_start,
                log_end,
                flushed,
                producers,
            } => self.truncated(now, (log_start, log_end, flushed), producers, out),
            Input::IsrRefused {
                partition_epoch,
                why,
            } => self.isr_refused(now, partition_epoch, why),
            Input::Tick => self.tick(now, out),
        }
    }

    /// What a partition out of service answers.
    fn refuse_all(&self, input: &Input, out: &mut Vec<Output>) {
        match input {
            Input::Append(append) => out.push(Output::Answer {
                ticket: append.ticket,
                result: Err(Rejection::Offline),
            }),
            Input::ReplicaFetch { ticket, .. } => out.push(Output::AnswerFetch {
                ticket: *ticket,
                result: Err(crate::output::FetchRefusal::NotLeader),
            }),
            _ => {}
        }
    }

    /// When [`Input::Tick`] should come at the latest, in milliseconds of [`Now::mono_ms`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        match &self.role {
            Role::Leader(leader) => {
                leader.next_deadline(self.now_ms, &self.config, self.cursors.log_end)
            }
            Role::Follower(follower) => follower.retry_at,
            Role::Idle | Role::Failed => None,
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        match self.role {
            Role::Leader(_) => self.leader_tick(now, out),
            Role::Follower(_) => self.follower_tick(now, out),
            Role::Idle | Role::Failed => {}
        }
    }

    /// Takes a new configuration; it holds for appends from now on.
    pub fn set_config(&mut self, config: CoreConfig, out: &mut Vec<Output>) {
        self.config = config;
        self.advance_high_watermark(out);
    }

    fn assign(&mut self, now: Now, assignment: Assignment, out: &mut Vec<Output>) {
        let known = self.next.as_ref().or(self.assigned.as_ref());
        if known.is_some_and(|a| a.partition_epoch >= assignment.partition_epoch) {
            return;
        }
        self.next = Some(assignment);
        self.settle(now, out);
    }

    /// Puts the newest assignment in force once the log is at rest: what is being written or cut must
    /// have ended, or its end could be told wrongly.
    pub(crate) fn settle(&mut self, now: Now, out: &mut Vec<Output>) {
        let same = |a: &Assignment, b: &Assignment| {
            (a.leader, a.leader_epoch) == (b.leader, b.leader_epoch)
        };
        let Some(next) = self.next.take() else { return };
        if let Some(current) = &self.assigned
            && same(current, &next)
            && !matches!(self.role, Role::Idle)
        {
            self.assigned = Some(next);
            self.isr_assigned(now, out);
            self.tell_progress(out);
            return;
        }
        if self.cutting || self.cursors.written < self.cursors.log_end {
            self.next = Some(next);
            return;
        }
        let (leader, epoch) = (next.leader, next.leader_epoch);
        let void = self.doubt_high_watermark(next.unclean_epoch, out);
        let previous = self.assigned.replace(next).and_then(|a| a.leader);
        if leader == Some(self.me) {
            self.become_leader(now, epoch, out);
        } else {
            self.remember_evidence();
            self.resign(out);
            match leader {
                Some(leader) => {
                    self.become_follower(now, leader, epoch, (previous, void), out);
                }
                None => self.role = Role::Idle,
            }
        }
    }

    /// After an unclean election what was committed before may be void, and the new leader's log may end
    /// below, or differ. So the high watermark begins anew from the start of the log, on a follower and on the
    /// leader itself, which may not have flushed all of what it was told was committed. That holds for one
    /// that was saved by an earlier run too: nothing says on which side of the election.
    /// Returns whether this process has seen such an election come: then no run of this node was in sync since.
    fn doubt_high_watermark(
        &mut self,
        unclean: Option<LeaderEpoch>,
        out: &mut Vec<Output>,
    ) -> bool {
        let first = !std::mem::replace(&mut self.was_assigned, true);
        let planted = match first {
            true => planted::is(Plant::KeepSavedHighWatermark),
            false => planted::is(Plant::KeepHighWatermark),
        };
        let older = self.unclean_epoch < unclean;
        self.unclean_epoch = self.unclean_epoch.max(unclean);
        let start = self.cursors.log_start;
        if older && self.cursors.high_watermark > start && !planted {
            self.cursors.high_watermark = start;
            self.begins_anew = true;
            out.push(Output::HighWatermark(start));
        }
        older && !first
    }

    /// Answers every append that is still owed: whether it survives is for the next leader to show.
    fn resign(&mut self, out: &mut Vec<Output>) {
        self.refuse(Offset::ZERO, true, Rejection::LeadershipLost, out);
    }

    /// Answers what waits for more than `above`; `all`: everything.
    pub(crate) fn refuse(
        &mut self,
        above: Offset,
        all: bool,
        rejection: Rejection,
        out: &mut Vec<Output>,
    ) {
        let tickets: Vec<Ticket> = if all {
            self.writing
                .refuse_all()
                .chain(self.committing.refuse_all())
                .collect()
        } else {
            self.writing
                .refuse_above(above)
                .chain(self.committing.refuse_above(above))
                .collect()
        };
        out.extend(tickets.into_iter().map(|ticket| Output::Answer {
            ticket,
            result: Err(rejection),
        }));
    }

    fn registered(&mut self, now: Now, epoch: BrokerEpoch, out: &mut Vec<Output>) {
        if epoch <= self.broker_epoch {
            return;
        }
        self.broker_epoch = epoch;
        if let Role::Follower(follower) = &mut self.role {
            // What is under way speaks for the run before.
            follower.outstanding = None;
            self.fetch_if_at_rest(now, out);
        }
    }

    fn written(&mut self, now: Now, end: Offset, out: &mut Vec<Output>) {
        assert!(
            end >= self.cursors.written,
            "written end went back to {end}"
        );
        self.cursors.written = end;
        if end == self.cursors.log_end || !planted::is(Plant::RollBackWritten) {
            self.producers.settle(end);
        }
        for (end, ticket, mut accepted) in self.writing.complete(end) {
            (accepted.replicas, accepted.flushed_replicas) = self.holders(end);
            out.push(Output::Answer {
                ticket,
                result: Ok(accepted),
            });
        }
        self.advance_high_watermark(out);
        self.follower_written(now, out);
        self.settle(now, out);
    }

    fn flushed(&mut self, end: Offset, out: &mut Vec<Output>) {
        // Flushes may be reported late and out of order; the cursor keeps the furthest.
        if end <= self.cursors.flushed {
            return;
        }
        self.cursors.flushed = end;
        self.advance_high_watermark(out);
        self.follower_flushed(out);
    }

    fn write_refused(&mut self, now: Now, end: Offset, out: &mut Vec<Output>) {
        assert!(
            end == self.cursors.written,
            "only unwritten appends can be refused"
        );
        self.producers.roll_back();
        self.epochs.truncate(end);
        if let Role::Leader(leader) = &self.role {
            // The epoch itself began; only records of it were undone.
            self.epochs.assign(leader.epoch, leader.epoch_start);
        }
        self.cursors.log_end = end;
        self.refuse(end, false, Rejection::StorageFull, out);
        self.follower_refused(now);
        self.settle(now, out);
    }

    fn storage_failed(&mut self, out: &mut Vec<Output>) {
        self.role = Role::Failed;
        self.refuse(Offset::ZERO, true, Rejection::StorageFailed, out);
    }

    /// How far this replica's own log counts as held, under the topic's durability.
    #[must_use]
    pub fn own_end(&self) -> Offset {
        match self.config.durability {
            Durability::Fsync if !planted::is(Plant::WrittenIsFlushed) => self.cursors.flushed,
            _ => self.cursors.written,
        }
    }

    /// What this replica says of its log.
    pub(crate) fn position(&mut self, leader_epoch: LeaderEpoch) -> Position {
        self.sequence += 1;
        Position {
            from: self.me,
            broker_epoch: self.broker_epoch,
            leader_epoch,
            partition_epoch: self.assigned.as_ref().map_or(0, |a| a.partition_epoch),
            sequence: self.sequence,
            log_end: self.cursors.written,
            last_epoch: self.epochs.before(self.cursors.written),
            flushed: self.cursors.flushed,
        }
    }

    fn check_role(&self) {
        match &self.role {
            Role::Leader(leader) => leader.check(&self.cursors),
            Role::Follower(_) | Role::Idle | Role::Failed => {
                assert!(
                    self.committing.len() + self.writing.len() == 0 || self.next.is_some(),
                    "appends wait although there is no leader"
                );
            }
        }
    }

    /// The high watermark, as this replica tells it to others.
    #[must_use]
    pub const fn committed(&self) -> Offset {
        self.cursors.high_watermark
    }

    /// One past the last record that may be shown.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        if planted::is(Plant::ServeAboveHighWatermark) {
            return self.cursors.written;
        }
        self.cursors.high_watermark
    }

    /// Readers of committed records may read below this offset: the high watermark, or the first record of the
    /// oldest transaction that is not decided below it.
    #[must_use]
    pub const fn last_stable_offset(&self) -> Offset {
        self.last_stable
    }

    /// The end that clients may be told as the latest: a new leader knows it only once its high
    /// watermark has reached the start of its epoch (KIP-207).
    #[must_use]
    pub fn latest(&self) -> Option<Offset> {
        match &self.role {
            Role::Leader(leader) => (self.cursors.high_watermark >= leader.epoch_start)
                .then_some(self.cursors.high_watermark),
            _ => None,
        }
    }

    /// One past the last assigned offset.
    #[must_use]
    pub const fn log_end(&self) -> Offset {
        self.cursors.log_end
    }

    /// Everything below is on this node's stable storage.
    #[must_use]
    pub const fn flushed_end(&self) -> Offset {
        self.cursors.flushed
    }

    /// Oldest offset.
    #[must_use]
    pub const fn log_start(&self) -> Offset {
        self.cursors.log_start
    }

    /// The node this is on.
    #[must_use]
    pub const fn me(&self) -> NodeId {
        self.me
    }

    /// Epoch in which this node leads; `None` when it does not.
    #[must_use]
    pub const fn leader_epoch(&self) -> Option<LeaderEpoch> {
        match &self.role {
            Role::Leader(leader) => Some(leader.epoch),
            _ => None,
        }
    }

    /// Whether the partition is out of service on this node until it starts again.
    #[must_use]
    pub const fn failed(&self) -> bool {
        matches!(self.role, Role::Failed)
    }

    /// The assignment in force.
    #[must_use]
    pub const fn assignment(&self) -> Option<&Assignment> {
        self.assigned.as_ref()
    }

    /// Leader epochs of this log.
    #[must_use]
    pub const fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Appends not answered yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.committing.len() + self.writing.len()
    }

    /// Nobody waits for the answers to these appends any more: there will be none. The appends stand as they are.
    pub fn forget_waiting(&mut self, gone: &BTreeSet<Ticket>) {
        self.committing.forget(gone);
        self.writing.forget(gone);
    }

    /// Producer sessions, for a snapshot.
    #[must_use]
    pub const fn producers(&self) -> &ProducerTable {
        &self.producers
    }

    /// Compaction has dropped every record below `upto` that was aborted: what need not be told any more is forgotten.
    /// Without that the list of a log whose start never moves would only grow.
    pub fn compacted(&mut self, upto: Offset) {
        self.producers.trim(upto);
    }

    /// Forgets producer sessions that were last used before `used_ms`: see [`ProducerTable::give_way`].
    pub fn give_way(&mut self, used_ms: i64) {
        self.producers.give_way(used_ms);
    }

    /// Forgets producer sessions that have been idle too long.
    pub fn expire_producers(&mut self, now_ms: i64) {
        self.producers.expire(now_ms);
    }
}

/// Names of one instance are greater than those of all before it.
fn names_from(instance: u32) -> u64 {
    if planted::is(Plant::ReuseInstance) {
        return 0;
    }
    u64::from(instance) << 32
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
