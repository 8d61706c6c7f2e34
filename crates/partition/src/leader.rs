//! The rules of a leader: which offset a batch gets, what counts as evidence that a follower holds it,
//! when it is committed, and who is in sync.
//!
//! Invariants: the high watermark waits for the *maximal* ISR, that is everybody who is in sync or may
//! have become so (KIP-497, KIP-966); it rests while fewer than `min.insync.replicas` are in sync; only
//! what a follower said in this leader epoch, in its latest run, counts (KIP-903). Never changes the
//! in-sync replicas itself: it proposes, and obeys what the metadata says.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::config::Durability;
use varve_types::{Acks, BrokerEpoch, LeaderEpoch, NodeId, Offset};

use crate::core::{Core, CoreConfig, RETRY_MS, Role};
use crate::input::{Append, IsrRefusal, Now, Position, Ticket};
use crate::invariants::Cursors;
use crate::output::{Accepted, FetchGrant, FetchRefusal, Output, Rejection};
use crate::planted::{self, Plant};
use crate::producer_state::Verdict;

/// What a follower has shown in this leader epoch.
#[derive(Debug, Clone, Copy)]
struct Evidence {
    broker_epoch: BrokerEpoch,
    sequence: u64,
    /// Newest change of the assignment it knew.
    partition_epoch: i32,
    /// Its log agrees with ours up to here.
    written: Offset,
    /// And is on its stable storage up to here.
    flushed: Offset,
    /// The leader's log end when it last asked, and when that was.
    asked: (Offset, u64),
    /// When it last said anything, monotonic milliseconds.
    heard_ms: u64,
}

/// A follower that is about to join is not waited for when it has been silent for so long, milliseconds. One
/// that keeps up says something with every append.
const JOIN_WAIT_MS: u64 = 500;

/// A follower, as its leader sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replica {
    evidence: Option<Evidence>,
    /// When it last had everything, monotonic milliseconds.
    caught_up_ms: u64,
    /// It has had everything once, in this epoch and run: it may be waited for.
    joins: bool,
    /// Not proposed again before; 0: at any time.
    rejoin_at: u64,
}

impl Replica {
    /// How far its log counts as held, under the topic's durability; `None`: nothing is known.
    fn shown(&self, durability: Durability) -> Option<Offset> {
        let evidence = self.evidence?;
        Some(match durability {
            Durability::Fsync if !planted::is(Plant::WrittenIsFlushed) => evidence.flushed,
            _ => evidence.written,
        })
    }

    /// Until when the high watermark waits for it although it is not in sync, if it says nothing more.
    fn awaited_until(&self) -> Option<u64> {
        let waits = self.joins && self.rejoin_at == 0;
        let evidence = self.evidence.filter(|_| waits)?;
        Some(evidence.heard_ms + JOIN_WAIT_MS)
    }
}

/// An ISR change that may or may not have been made.
#[derive(Debug, Clone)]
struct Proposal {
    isr: BTreeSet<NodeId>,
    /// Everybody who was proposed on this partition epoch: any of those proposals may still arrive.
    maximal: BTreeSet<NodeId>,
    retry_at: u64,
}

/// What only a leader knows.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) epoch: LeaderEpoch,
    /// The log ended here when the epoch began.
    pub(crate) epoch_start: Offset,
    partition_epoch: i32,
    isr: BTreeSet<NodeId>,
    pub(crate) followers: BTreeMap<NodeId, Replica>,
    proposal: Option<Proposal>,
}

impl Leader {
    pub(crate) fn next_deadline(
        &self,
        now_ms: u64,
        config: &CoreConfig,
        log_end: Offset,
    ) -> Option<u64> {
        if let Some(proposal) = &self.proposal {
            return Some(proposal.retry_at);
        }
        let behind = |r: &&Replica| r.shown(config.durability) < Some(log_end);
        let in_sync = |node: &NodeId| self.isr.contains(node);
        let followers = self.followers.iter();
        let lagging = followers.clone().filter(|(n, r)| in_sync(n) && behind(r));
        let lagging = lagging.map(|(_, r)| r.caught_up_ms + config.replica_lag_ms + 1);
        let joining = followers.clone().filter(|(n, r)| !in_sync(n) && behind(r));
        let joining = joining.filter_map(|(_, r)| r.awaited_until());
        let joining = joining.filter(|until| now_ms <= *until).map(|at| at + 1);
        let waiting = followers.filter(|(n, r)| !in_sync(n) && r.rejoin_at > 0);
        let waiting = waiting.map(|(_, r)| r.rejoin_at);
        lagging.chain(joining).chain(waiting).min()
    }

    /// Whether a follower has been behind `log_end` for so long that it is not in sync any more.
    fn lags(&self, node: NodeId, now: Now, config: &CoreConfig, log_end: Offset) -> bool {
        self.followers.get(&node).is_some_and(|replica| {
            replica.shown(config.durability) < Some(log_end)
                && now.mono_ms > replica.caught_up_ms + config.replica_lag_ms
        })
    }

    /// Replicas in sync without those that lag: the metadata will leave them out, or cannot be changed at
    /// present.
    fn keeping_up(&self, now: Now, config: &CoreConfig, log_end: Offset) -> BTreeSet<NodeId> {
        let all = self.isr.iter().copied();
        all.filter(|node| !self.lags(*node, now, config, log_end))
            .collect()
    }

    fn maximal_isr(&self) -> BTreeSet<NodeId> {
        match &self.proposal {
            Some(p) if planted::is(Plant::IsrBeforeCommit) => p.isr.clone(),
            Some(p) if !planted::is(Plant::CommittedIsrOnly) => &self.isr | &p.maximal,
            _ => self.isr.clone(),
        }
    }

    pub(crate) fn check(&self, cursors: &Cursors) {
        assert!(
            self.epoch_start <= cursors.log_end,
            "epoch {} began at {} after the log's end {}",
            self.epoch,
            self.epoch_start,
            cursors.log_end
        );
    }
}

impl Core {
    pub(crate) fn become_leader(&mut self, now: Now, epoch: LeaderEpoch, out: &mut Vec<Output>) {
        let start = self.cursors.log_end;
        if !self.epochs.may_follow(epoch, start) {
            return self.contradicted(self.me, out);
        }
        self.epochs.assign(epoch, start);
        if planted::is(Plant::ForgetOpenOnFailover) {
            self.producers.forget_open();
        }
        self.remember_evidence();
        let old = std::mem::take(&mut self.remembered);
        let Some(assigned) = &self.assigned else {
            return;
        };
        let followers = assigned.replicas.iter().filter(|n| **n != self.me);
        let followers = followers
            .map(|node| {
                let fresh = Replica {
                    evidence: None,
                    caught_up_ms: now.mono_ms,
                    joins: false,
                    rejoin_at: 0,
                };
                (*node, old.get(node).copied().unwrap_or(fresh))
            })
            .collect();
        self.role = Role::Leader(Leader {
            epoch,
            epoch_start: start,
            partition_epoch: assigned.partition_epoch,
            isr: assigned.isr.iter().copied().collect(),
            followers,
            proposal: None,
        });
        self.advance_high_watermark(out);
    }

    /// Only a planted bug remembers what followers said in an earlier epoch.
    pub(crate) fn remember_evidence(&mut self) {
        if planted::is(Plant::KeepEvidence)
            && let Role::Leader(leader) = &self.role
        {
            self.remembered = leader.followers.clone();
        }
    }

    /// The metadata changed under the same leader. A proposal built on the old partition epoch can no
    /// longer be made, so it stops counting.
    pub(crate) fn isr_assigned(&mut self, now: Now, out: &mut Vec<Output>) {
        let (Role::Leader(leader), Some(assigned)) = (&mut self.role, &self.assigned) else {
            return;
        };
        leader.partition_epoch = assigned.partition_epoch;
        leader.proposal = None;
        let isr: BTreeSet<NodeId> = assigned.isr.iter().copied().collect();
        let me = self.me;
        leader
            .followers
            .retain(|node, _| assigned.replicas.contains(node));
        for node in assigned.replicas.iter().filter(|n| **n != me) {
            let replica = leader.followers.entry(*node).or_insert(Replica {
                evidence: None,
                caught_up_ms: now.mono_ms,
                joins: false,
                rejoin_at: 0,
            });
            if isr.contains(node) && !leader.isr.contains(node) {
                // It had everything when it was proposed; its time starts now.
                replica.caught_up_ms = now.mono_ms;
            }
        }
        leader.isr = isr;
        self.advance_high_watermark(out);
        self.propose(now, out);
    }

    pub(crate) fn append(&mut self, now: Now, append: Append, out: &mut Vec<Output>) {
        assert!(append.records > 0, "an empty batch passed verification");
        match self.judge(now, &append) {
            Err(rejection) => out.push(Output::Answer {
                ticket: append.ticket,
                result: Err(rejection),
            }),
            Ok((epoch, Verdict::Duplicate { base_offset })) => {
                self.wait(append, epoch, base_offset, true, out);
            }
            Ok((epoch, Verdict::Append)) => {
                let base_offset = self.cursors.log_end;
                self.keep_time(now);
                self.producers.append(&append, base_offset, now.wall_ms);
                self.cursors.log_end = base_offset.plus(append.records.into());
                out.push(Output::Write {
                    ticket: append.ticket,
                    base_offset,
                    leader_epoch: epoch,
                });
                self.wait(append, epoch, base_offset, false, out);
            }
        }
    }

    /// Who has everything so far has it until now: an idle partition needs no messages to stay in sync.
    fn keep_time(&mut self, now: Now) {
        let (log_end, durability) = (self.cursors.log_end, self.config.durability);
        if let Role::Leader(leader) = &mut self.role {
            for replica in leader.followers.values_mut() {
                if replica.shown(durability).is_some_and(|end| end >= log_end) {
                    replica.caught_up_ms = now.mono_ms;
                }
            }
        }
    }

    fn judge(&self, now: Now, append: &Append) -> Result<(LeaderEpoch, Verdict), Rejection> {
        // A newer assignment waits for the writes under way: this leadership is over already.
        if let Some(next) = &self.next {
            return Err(not_leader(next.leader, next.leader_epoch, self.me));
        }
        let Role::Leader(leader) = &self.role else {
            return Err(match &self.assigned {
                Some(a) => not_leader(a.leader, a.leader_epoch, self.me),
                None => Rejection::Offline,
            });
        };
        if append
            .leader_epoch
            .is_some_and(|epoch| epoch != leader.epoch)
        {
            return Err(Rejection::FencedLeaderEpoch {
                current: leader.epoch,
            });
        }
        let verdict = self.producers.judge(append);
        // A repeat is in the log: nothing is appended for it, and it is committed or waits for that.
        let repeated = matches!(verdict, Ok(Verdict::Duplicate { .. }));
        if append.acks == Acks::All && !repeated && self.too_few(now, leader) {
            return Err(Rejection::NotEnoughReplicas);
        }
        let verdict = verdict?;
        match append.expected_offset {
            Some(expected) if verdict == Verdict::Append && expected != self.cursors.log_end => {
                Err(Rejection::ExpectedOffset {
                    actual: self.cursors.log_end,
                })
            }
            _ => Ok((leader.epoch, verdict)),
        }
    }

    /// Whether fewer replicas are in sync than `acks=all` asks for. One that lags does not count, even where
    /// the metadata still have it in sync: where no quorum decides about metadata nobody will take it out,
    /// and what is appended would wait for it in vain.
    fn too_few(&self, now: Now, leader: &Leader) -> bool {
        let least = self.config.min_insync_replicas;
        let (config, end) = (&self.config, self.cursors.log_end);
        let keeping_up = leader
            .isr
            .iter()
            .filter(|n| !leader.lags(**n, now, config, end));
        keeping_up.take(least).count() < least && !planted::is(Plant::IgnoreMinIsr)
    }

    /// Answers now, or once what the caller waits for has happened.
    fn wait(
        &mut self,
        append: Append,
        leader_epoch: LeaderEpoch,
        base_offset: Offset,
        deduplicated: bool,
        out: &mut Vec<Output>,
    ) {
        let end = base_offset.plus(append.records.into());
        let (replicas, flushed_replicas) = self.holders(end);
        let accepted = Accepted {
            base_offset,
            deduplicated,
            leader_epoch,
            replicas,
            flushed_replicas,
        };
        let (reached, pending) = match append.acks {
            Acks::None => (true, &mut self.writing),
            Acks::Leader => (end <= self.cursors.written, &mut self.writing),
            Acks::All => (end <= self.cursors.high_watermark, &mut self.committing),
        };
        if reached {
            out.push(Output::Answer {
                ticket: append.ticket,
                result: Ok(accepted),
            });
        } else {
            pending.push(end, append.ticket, accepted);
        }
    }

    /// How many replicas hold everything below `end`, and how many of them on stable storage; this one
    /// counts as soon as the batch has its offset.
    pub(crate) fn holders(&self, end: Offset) -> (u32, u32) {
        let own = u32::from(end <= self.cursors.flushed);
        let Role::Leader(leader) = &self.role else {
            return (1, own);
        };
        let known = || leader.followers.values().filter_map(|r| r.evidence);
        let held = known().filter(|e| end <= e.written).count() as u32;
        let flushed = known().filter(|e| end <= e.flushed).count() as u32;
        (1 + held, own + flushed)
    }

    /// Moves the high watermark to what every member of the maximal ISR holds.
    pub(crate) fn advance_high_watermark(&mut self, out: &mut Vec<Output>) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let least = self.assigned.as_ref().map_or(usize::MAX, |a| a.min_isr);
        if leader.isr.len() < least && !planted::is(Plant::IgnoreMinIsr) {
            return;
        }
        let mut committed = self.own_end();
        for node in leader.maximal_isr().iter().filter(|n| **n != self.me) {
            let follower = leader.followers.get(node);
            let Some(shown) = follower.and_then(|r| r.shown(self.config.durability)) else {
                return;
            };
            committed = committed.min(shown);
        }
        committed = committed.min(self.slowest_joining());
        if committed <= self.cursors.high_watermark {
            return;
        }
        self.cursors.high_watermark = committed;
        out.push(Output::HighWatermark(committed));
        self.move_last_stable(out);
        for (end, ticket, mut accepted) in self.committing.complete(committed) {
            (accepted.replicas, accepted.flushed_replicas) = self.holders(end);
            out.push(Output::Answer {
                ticket,
                result: Ok(accepted),
            });
        }
    }

    /// The high watermark waits for followers that keep up but are not in sync yet; without that, steady
    /// appends would keep it ahead of them for ever, and they could never join. One that falls behind, that
    /// the controller does not want, or that is silent, is not waited for: most likely it was taken out because
    /// it is dead, and nobody else will say so a second time.
    fn slowest_joining(&self) -> Offset {
        let Role::Leader(leader) = &self.role else {
            return self.cursors.log_end;
        };
        let (durability, lag_ms) = (self.config.durability, self.config.replica_lag_ms);
        let joining = leader.followers.iter().filter(|(node, replica)| {
            let keeps_up = self.now_ms <= replica.caught_up_ms + lag_ms;
            let awaited = replica.awaited_until();
            !leader.isr.contains(node) && keeps_up && awaited.is_some_and(|at| self.now_ms <= at)
        });
        joining
            .filter_map(|(_, r)| r.shown(durability))
            .fold(self.cursors.log_end, Offset::min)
    }

    pub(crate) fn replica_fetch(
        &mut self,
        now: Now,
        ticket: Ticket,
        position: &Position,
        out: &mut Vec<Output>,
    ) {
        let checked = self
            .check_replica(position)
            .and_then(|()| self.check_divergence(position));
        let result = checked.map(|()| FetchGrant {
            from: position.log_end,
            log_end: self.cursors.written,
            high_watermark: self.cursors.high_watermark,
            log_start: self.cursors.log_start,
        });
        out.push(Output::AnswerFetch { ticket, result });
        if result.is_ok() {
            self.hear(now, position, true, out);
        }
    }

    /// More of a log that this leader has compared already is flushed. Without such a comparison it
    /// says nothing.
    pub(crate) fn replica_progress(
        &mut self,
        now: Now,
        position: &Position,
        out: &mut Vec<Output>,
    ) {
        if self.check_replica(position).is_err() {
            return;
        }
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let evidence = leader
            .followers
            .get(&position.from)
            .and_then(|r| r.evidence);
        let compared = evidence.is_some_and(|e| e.broker_epoch == position.broker_epoch);
        if compared && self.check_divergence(position).is_ok() {
            self.hear(now, position, false, out);
        }
    }

    fn check_replica(&self, position: &Position) -> Result<(), FetchRefusal> {
        let Role::Leader(leader) = &self.role else {
            return Err(FetchRefusal::NotLeader);
        };
        if self.next.is_some() {
            return Err(FetchRefusal::NotLeader);
        }
        if position.leader_epoch < leader.epoch && !planted::is(Plant::AcceptOldEpoch) {
            return Err(FetchRefusal::FencedLeaderEpoch(leader.epoch));
        }
        if position.leader_epoch > leader.epoch {
            return Err(FetchRefusal::UnknownLeaderEpoch(leader.epoch));
        }
        let Some(replica) = leader.followers.get(&position.from) else {
            return Err(FetchRefusal::NotReplica);
        };
        match replica.evidence {
            Some(known)
                if (position.broker_epoch, position.sequence)
                    <= (known.broker_epoch, known.sequence) =>
            {
                Err(FetchRefusal::Stale)
            }
            _ => Ok(()),
        }
    }

    /// The follower's log agrees with this one up to its end, or it is told where to look next.
    fn check_divergence(&self, position: &Position) -> Result<(), FetchRefusal> {
        let Cursors {
            log_start, written, ..
        } = self.cursors;
        if position.log_end < log_start {
            return Err(FetchRefusal::OutOfRange { log_start });
        }
        let found = match position.last_epoch {
            None if position.log_end <= written => return Ok(()),
            None => None,
            Some(last) => self.epochs.end_of(last, written),
        };
        let known = position.last_epoch == found.map(|(epoch, _)| epoch);
        if planted::is(Plant::UndefinedEpoch) && !known {
            // As if the leader had no answer: the follower keeps what it has.
            return Ok(());
        }
        match found {
            Some((_, end)) if known && position.log_end <= end => Ok(()),
            Some((epoch, end_offset)) => Err(FetchRefusal::Diverging { epoch, end_offset }),
            // Nothing of its log can be compared with what is left of this one.
            None => Err(FetchRefusal::OutOfRange { log_start }),
        }
    }

    /// Takes a follower's word for where its log ends, and draws the conclusions.
    fn hear(&mut self, now: Now, position: &Position, asked: bool, out: &mut Vec<Output>) {
        let (log_end, durability) = (self.cursors.log_end, self.config.durability);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(replica) = leader.followers.get_mut(&position.from) else {
            return;
        };
        let before = replica.evidence;
        let mut evidence = Evidence {
            broker_epoch: position.broker_epoch,
            sequence: position.sequence,
            partition_epoch: position.partition_epoch,
            written: position.log_end,
            flushed: position.flushed.min(position.log_end),
            asked: match before {
                Some(old) if !asked => old.asked,
                _ => (log_end, now.mono_ms),
            },
            heard_ms: now.mono_ms,
        };
        if let Some(old) = before.filter(|_| planted::is(Plant::IgnoreBrokerEpoch)) {
            evidence.written = evidence.written.max(old.written);
            evidence.flushed = evidence.flushed.max(old.flushed);
        }
        replica.evidence = Some(evidence);
        // KIP-16: it has everything, or everything there was when it asked before.
        let shown = replica.shown(durability);
        if before.is_none_or(|b| b.broker_epoch != position.broker_epoch) {
            replica.joins = false;
        }
        if shown >= Some(log_end) {
            replica.caught_up_ms = now.mono_ms;
            replica.joins = true;
        } else if let Some((_, then_ms)) = before
            .map(|b| b.asked)
            .filter(|(end, _)| shown >= Some(*end))
        {
            replica.caught_up_ms = replica.caught_up_ms.max(then_ms);
            replica.joins = true;
        }
        self.advance_high_watermark(out);
        self.propose(now, out);
    }

    /// Proposes everybody who has earned it (KIP-903, KIP-966), unless a proposal is under way.
    fn propose(&mut self, now: Now, out: &mut Vec<Output>) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        if leader.proposal.is_some() || self.next.is_some() {
            return;
        }
        let high_watermark = if planted::is(Plant::JoinBelowHighWatermark) {
            self.cursors.log_start
        } else {
            self.cursors.high_watermark
        };
        let epoch_start = if planted::is(Plant::JoinBelowEpochStart) {
            self.cursors.log_start
        } else {
            leader.epoch_start
        };
        let durability = self.config.durability;
        let joins = |(node, replica): (&NodeId, &Replica)| {
            let shown = replica.shown(durability)?;
            let knows = replica.evidence?.partition_epoch >= leader.partition_epoch
                || planted::is(Plant::JoinUnaware);
            let earned = shown >= high_watermark && shown >= epoch_start && knows;
            let free = !leader.isr.contains(node) && now.mono_ms >= replica.rejoin_at;
            (earned && free).then_some(*node)
        };
        let joining: BTreeSet<NodeId> = leader.followers.iter().filter_map(joins).collect();
        if !joining.is_empty() {
            let isr = &leader.isr | &joining;
            self.send_proposal(now, isr, out);
        }
    }

    pub(crate) fn leader_tick(&mut self, now: Now, out: &mut Vec<Output>) {
        // Time alone may have ended what it waited for.
        self.advance_high_watermark(out);
        let log_end = self.cursors.log_end;
        let Role::Leader(leader) = &self.role else {
            return;
        };
        match &leader.proposal {
            Some(proposal) if now.mono_ms >= proposal.retry_at => {
                let isr = proposal.isr.clone();
                self.send_proposal(now, isr, out);
            }
            Some(_) => {}
            None => {
                let isr = leader.keeping_up(now, &self.config, log_end);
                if isr == leader.isr {
                    self.propose(now, out);
                    self.forget_waits(now);
                } else {
                    self.send_proposal(now, isr, out);
                }
            }
        }
    }

    /// Waits that are over need no deadline; whoever earns its place later is proposed when it is heard.
    fn forget_waits(&mut self, now: Now) {
        if let Role::Leader(leader) = &mut self.role {
            for replica in leader.followers.values_mut() {
                if replica.rejoin_at <= now.mono_ms {
                    replica.rejoin_at = 0;
                }
            }
        }
    }

    fn send_proposal(&mut self, now: Now, isr: BTreeSet<NodeId>, out: &mut Vec<Output>) {
        let (me, own_epoch) = (self.me, self.broker_epoch);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let mut maximal = isr.clone();
        if let Some(old) = &leader.proposal {
            maximal.extend(&old.maximal);
        }
        let heard = |node: &NodeId| {
            if *node == me {
                return Some(own_epoch);
            }
            let evidence = leader.followers.get(node).and_then(|r| r.evidence);
            evidence.map(|e| e.broker_epoch)
        };
        out.push(Output::ProposeIsr {
            leader_epoch: leader.epoch,
            partition_epoch: leader.partition_epoch,
            isr: isr.iter().map(|node| (*node, heard(node))).collect(),
        });
        leader.proposal = Some(Proposal {
            isr,
            maximal,
            retry_at: now.mono_ms + RETRY_MS,
        });
    }

    /// A refused proposal may still arrive a second time and be made. So it is not dropped: the present
    /// ISR is proposed instead, and once that has moved the partition epoch the other can do no harm.
    pub(crate) fn isr_refused(&mut self, now: Now, partition_epoch: i32, why: IsrRefusal) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if leader.partition_epoch != partition_epoch {
            return;
        }
        let Some(proposal) = &mut leader.proposal else {
            return;
        };
        if let IsrRefusal::Ineligible(node) = why {
            proposal.isr = leader.isr.clone();
            if let Some(replica) = leader.followers.get_mut(&node) {
                replica.rejoin_at = now.mono_ms + 5 * RETRY_MS;
            }
        }
        proposal.retry_at = now.mono_ms + RETRY_MS;
    }
}

fn not_leader(leader: Option<NodeId>, leader_epoch: LeaderEpoch, me: NodeId) -> Rejection {
    match leader {
        Some(leader) if leader != me => Rejection::NotLeader {
            leader,
            leader_epoch,
        },
        _ => Rejection::Offline,
    }
}
