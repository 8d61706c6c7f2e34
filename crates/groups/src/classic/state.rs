//! One classic group: its state, its generation, and the passage from one to the next.
//!
//! Invariants: see [`crate::classic`]; a member waits with at most one join and one sync. Never touches
//! offsets.

use std::collections::BTreeMap;

use varve_types::MemberId;

use crate::classic::members::Peer;
use crate::classic::{ClassicError, ClassicState};
use crate::codec::{self, ClassicMemberRecord, ClassicRecord};
use crate::config::Config;
use crate::{AppendId, ClassicSynced, Failure, Output, Reply, Tick, Ticket};

/// What one call or deadline may look at, and where its outputs go.
pub(crate) struct Step<'a> {
    pub(crate) now: Tick,
    pub(crate) config: &'a Config,
    pub(crate) out: &'a mut Vec<Output>,
}

impl Step<'_> {
    pub(crate) fn answer(&mut self, ticket: Ticket, reply: Reply) {
        self.out.push(Output::Reply { ticket, reply });
    }

    pub(crate) fn refuse(&mut self, ticket: Ticket, error: ClassicError) {
        self.answer(ticket, Reply::ClassicFailed(error));
    }
}

/// What is to be written of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing.
    Nothing,
    /// The group as it is; nobody waits.
    Record,
    /// The assignment of this generation; those who sync wait.
    Assignment,
    /// A static member's new id; its join waits.
    Instance(Ticket, MemberId),
    /// A static member's new id, and otherwise what was written last; the next generation waits.
    Name(MemberId),
}

/// A generation that is due waits this long before it looks again whether new ids are durable, milliseconds.
const NAMING_PAUSE_MS: u64 = 100;

/// Joins are gathered for a while when a group begins, so that those who start together are assigned
/// together.
#[derive(Debug)]
pub(super) struct Gathering {
    /// What is left of the time to gather, milliseconds.
    pub(super) rest_ms: u64,
    /// Somebody came since the last look.
    pub(super) grew: bool,
}

#[derive(Debug)]
pub(crate) struct Classic {
    pub(crate) state: ClassicState,
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: Option<MemberId>,
    pub(crate) members: BTreeMap<MemberId, Peer>,
    pub(super) instances: BTreeMap<String, MemberId>,
    /// Ids that were given out and have not come back, with the end of the wait.
    pub(crate) promised: BTreeMap<MemberId, Tick>,
    /// When joining, or assigning, is over.
    pub(super) until: Option<Tick>,
    pub(super) gathering: Option<Gathering>,
    pub(crate) wanted: Wanted,
    /// The assignment of this generation is being written.
    pub(super) committing: bool,
    /// The record that was asked for last: it, or an older one, may be in the log.
    pub(crate) written: Option<ClassicRecord>,
    /// The write that removes the record, unless a newer one was asked for. It may have been refused.
    pub(crate) erased: Option<AppendId>,
}

impl Classic {
    pub(crate) const fn new(generation: i32) -> Self {
        Self {
            state: ClassicState::Empty,
            generation,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            promised: BTreeMap::new(),
            until: None,
            gathering: None,
            wanted: Wanted::Nothing,
            committing: false,
            written: None,
            erased: None,
        }
    }

    /// Nobody is there, and nobody was asked to come back.
    pub(crate) fn is_deserted(&self) -> bool {
        self.members.is_empty() && self.promised.is_empty()
    }

    /// A record may be in the log, and is to stay there.
    pub(crate) const fn is_logged(&self) -> bool {
        self.written.is_some() && self.erased.is_none()
    }

    pub(crate) fn deadline(&self) -> Option<Tick> {
        let promised = self.promised.values().copied();
        let silent = self.members.values().filter_map(Peer::deadline);
        promised.chain(silent).chain(self.until).min()
    }

    /// Does what is due.
    pub(crate) fn expire(&mut self, step: &mut Step<'_>) {
        let now = step.now;
        self.promised.retain(|_, until| *until > now);
        let silent = |peer: &Peer| peer.deadline().is_some_and(|t| t <= now);
        let lost: Vec<_> = self
            .members
            .iter()
            .filter(|(_, peer)| silent(peer))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &lost {
            self.remove(step, id);
        }
        if !lost.is_empty() {
            self.members_left(step);
        }
        if self.until.is_some_and(|t| t <= now) {
            match self.state {
                ClassicState::PreparingRebalance => self.joining_is_over(step),
                _ => self.assigning_is_over(step),
            }
        }
        self.try_begin_generation(step);
    }

    /// Members are gone: the others join again.
    pub(super) fn members_left(&mut self, step: &mut Step<'_>) {
        if matches!(
            self.state,
            ClassicState::Stable | ClassicState::CompletingRebalance
        ) {
            self.prepare_rebalance(step);
        }
    }

    /// Everybody joins (again). Who waits for an assignment is told so.
    pub(super) fn prepare_rebalance(&mut self, step: &mut Step<'_>) {
        if self.state == ClassicState::PreparingRebalance {
            return;
        }
        self.refuse_syncs(
            step,
            &Reply::ClassicFailed(ClassicError::RebalanceInProgress),
        );
        self.committing = false;
        let longest = self.longest_rebalance_ms();
        let wait = if self.state == ClassicState::Empty {
            let delay = step.config.initial_rebalance_delay_ms.min(longest);
            self.gathering = Some(Gathering {
                rest_ms: longest - delay,
                grew: false,
            });
            delay
        } else {
            longest
        };
        self.state = ClassicState::PreparingRebalance;
        self.until = Some(step.now.plus(wait));
    }

    pub(super) fn longest_rebalance_ms(&self) -> u64 {
        let members = self.members.values();
        members.map(|m| m.rebalance_timeout_ms).max().unwrap_or(0)
    }

    pub(super) fn refuse_syncs(&mut self, step: &mut Step<'_>, reply: &Reply) {
        for peer in self.members.values_mut() {
            if let Some(ticket) = peer.syncing.take() {
                peer.alive(step.now);
                step.answer(ticket, reply.clone());
            }
        }
    }

    /// The generation begins as soon as everybody who is known has joined.
    pub(crate) fn try_begin_generation(&mut self, step: &mut Step<'_>) {
        let joining = self.state == ClassicState::PreparingRebalance && self.gathering.is_none();
        let all = self.members.values().all(|m| m.joining.is_some());
        if joining && all && self.promised.is_empty() && !self.is_naming() {
            self.begin_generation(step);
        }
    }

    /// Some ids are not to be told yet.
    fn is_naming(&self) -> bool {
        self.members.values().any(|m| m.naming)
    }

    fn joining_is_over(&mut self, step: &mut Step<'_>) {
        if self.is_naming() {
            self.until = Some(step.now.plus(NAMING_PAUSE_MS));
            return;
        }
        if let Some(gathering) = &mut self.gathering
            && gathering.grew
            && gathering.rest_ms > 0
        {
            gathering.grew = false;
            let delay = step
                .config
                .initial_rebalance_delay_ms
                .min(gathering.rest_ms);
            gathering.rest_ms -= delay;
            self.until = Some(step.now.plus(delay));
            return;
        }
        self.begin_generation(step);
    }

    /// Those who joined are the members now. Static ones keep their place while their session lasts.
    fn begin_generation(&mut self, step: &mut Step<'_>) {
        self.gathering = None;
        let absent: Vec<_> = self
            .members
            .iter()
            .filter(|(_, m)| m.joining.is_none() && m.instance.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in absent {
            self.remove(step, &id);
        }
        let joined = |m: &Peer| m.joining.is_some();
        if !self.members.is_empty() && !self.members.values().any(joined) {
            // Only static members, none of which is back: their sessions decide.
            self.until = Some(step.now.plus(self.longest_rebalance_ms().max(1)));
            return;
        }
        assert!(
            self.generation < i32::MAX,
            "the group has no generation numbers left"
        );
        self.generation += 1;
        self.committing = false;
        for member in self.members.values_mut() {
            member.assignment.clear();
            member.former = None;
            // A static member that is away has nothing to ask for.
            member.synced = member.joining.is_none();
        }
        if self.members.is_empty() {
            self.become_empty();
            return;
        }
        let led = |id: &MemberId| self.members.get(id).is_some_and(joined);
        if !self.leader.as_ref().is_some_and(led) {
            let first = self.members.iter().find(|(_, m)| joined(m));
            self.leader = first.map(|(id, _)| id.clone());
        }
        self.protocol = self.vote();
        self.state = ClassicState::CompletingRebalance;
        self.until = Some(step.now.plus(self.longest_rebalance_ms()));
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let reply = self.joined(&id, false);
            if let Some(peer) = self.members.get_mut(&id)
                && let Some(ticket) = peer.joining.take()
            {
                peer.alive(step.now);
                step.answer(ticket, reply);
            }
        }
    }

    pub(super) fn become_empty(&mut self) {
        self.state = ClassicState::Empty;
        self.until = None;
        self.leader = None;
        self.protocol.clear();
        self.gathering = None;
        if self.is_logged() {
            self.wanted = Wanted::Record;
        }
    }

    /// Who has not asked for its assignment in time is gone.
    fn assigning_is_over(&mut self, step: &mut Step<'_>) {
        self.until = None;
        if self.committing {
            // The leader has done its part, and so have those who wait with it.
            return;
        }
        let absent: Vec<_> = self
            .members
            .iter()
            .filter(|(_, m)| m.syncing.is_none() && !m.synced)
            .map(|(id, _)| id.clone())
            .collect();
        for id in &absent {
            self.remove(step, id);
        }
        if !absent.is_empty() {
            self.members_left(step);
        }
    }

    /// The write of an assignment is durable: everybody who waits is told.
    pub(crate) fn assigned(&mut self, step: &mut Step<'_>, generation: i32) {
        if self.state != ClassicState::CompletingRebalance || self.generation != generation {
            return;
        }
        self.state = ClassicState::Stable;
        self.committing = false;
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        for peer in self.members.values_mut() {
            if let Some(ticket) = peer.syncing.take() {
                peer.alive(step.now);
                peer.synced = true;
                let reply = ClassicSynced {
                    protocol_type: protocol_type.clone(),
                    protocol: protocol.clone(),
                    assignment: peer.assignment.clone(),
                };
                step.answer(ticket, Reply::ClassicSynced(reply));
            }
        }
        // Those who have not asked yet have until the end of the rebalance timeout.
        let waits = self.members.values().any(|m| !m.synced);
        self.until = waits.then(|| step.now.plus(self.longest_rebalance_ms()));
    }

    /// The write of an assignment was refused: it does not stand, and everybody joins again.
    pub(crate) fn not_assigned(&mut self, step: &mut Step<'_>, generation: i32, failure: &Failure) {
        if self.state != ClassicState::CompletingRebalance || self.generation != generation {
            return;
        }
        self.refuse_syncs(step, &Reply::Failed(failure.clone()));
        for member in self.members.values_mut() {
            member.assignment.clear();
        }
        self.prepare_rebalance(step);
    }

    /// The record of the group as it is.
    pub(crate) fn record(&self) -> ClassicRecord {
        ClassicRecord {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: (!self.protocol.is_empty()).then(|| self.protocol.clone()),
            leader: self.leader.clone(),
            state_time_ms: -1,
            members: self
                .members
                .iter()
                .map(|(id, m)| ClassicMemberRecord {
                    member: id.clone(),
                    instance: m.instance.clone(),
                    client_id: codec::cut(&m.client_id),
                    client_host: m.peer.map(|p| p.ip().to_string()).unwrap_or_default(),
                    rebalance_timeout_ms: milliseconds(m.rebalance_timeout_ms),
                    session_timeout_ms: milliseconds(m.session_timeout_ms),
                    metadata: m.metadata(&self.protocol).to_vec(),
                    assignment: m.assignment.clone(),
                })
                .collect(),
        }
    }

    /// The record that was asked for last, of those members that are still there, with the ids that they have
    /// now. Generation and assignments stay those that members know of. They are joining, so there is no leader.
    pub(crate) fn renamed_record(&self) -> Option<ClassicRecord> {
        let mut record = self.written.clone()?;
        record.leader = None;
        for mut member in std::mem::take(&mut record.members) {
            let instance = member.instance.as_ref().filter(|i| !i.is_empty());
            let id = match instance {
                Some(instance) => self.instances.get(instance).cloned(),
                None => Some(member.member.clone()).filter(|id| self.members.contains_key(id)),
            };
            let Some(id) = id else {
                continue;
            };
            member.member = id;
            record.members.push(member);
        }
        Some(record)
    }

    /// A group as the log has it: at rest, or, if there are members and no leader, as they were joining; with
    /// sessions that begin anew.
    pub(crate) fn restored(record: ClassicRecord, now: Tick, config: &Config) -> Self {
        let mut classic = Self {
            written: Some(record.clone()),
            ..Self::new(record.generation)
        };
        classic.protocol_type = record.protocol_type;
        classic.protocol = record.protocol.unwrap_or_default();
        for member in record.members {
            let peer = Peer::restored(&member, &classic.protocol, now, config);
            if let Some(instance) = &peer.instance {
                let instances = &mut classic.instances;
                let holder = instances.entry(instance.clone());
                holder.or_insert_with(|| member.member.clone());
            }
            classic.members.insert(member.member, peer);
        }
        let rests = record.leader.is_some();
        let known = |id: &MemberId| classic.members.contains_key(id);
        let first = || classic.members.keys().next().cloned();
        classic.leader = record.leader.filter(known).or_else(first);
        if !classic.members.is_empty() {
            classic.state = ClassicState::Stable;
            if !rests {
                let out = &mut Vec::new();
                classic.prepare_rebalance(&mut Step { now, config, out });
            }
        }
        classic
    }

    pub(crate) fn assert_invariants(&self) {
        let empty = self.members.is_empty();
        match self.state {
            ClassicState::Empty => assert!(empty, "an empty group has no members"),
            ClassicState::PreparingRebalance => assert!(self.until.is_some(), "joining ends"),
            ClassicState::CompletingRebalance | ClassicState::Stable => {
                let leader = self.leader.as_ref();
                assert!(!empty, "a generation has members");
                assert!(
                    leader.is_some_and(|id| self.members.contains_key(id)),
                    "a generation has a leader"
                );
                assert!(
                    self.members.values().all(|m| m.joining.is_none()),
                    "no member waits to join a generation that has started"
                );
                assert!(
                    !self.is_naming(),
                    "ids are durable before a member gets them"
                );
            }
        }
        assert!(
            self.instances
                .values()
                .all(|id| self.members.contains_key(id)),
            "an instance id belongs to a member"
        );
    }
}

fn milliseconds(ms: u64) -> i32 {
    i32::try_from(ms).unwrap_or(i32::MAX)
}
