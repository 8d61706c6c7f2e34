//! One group: its members, epochs, target assignment, and the reconciliation of members towards it.
//!
//! A partition is *granted* from the moment a reply may carry it until the member has said that it no
//! longer owns it, or is gone. `owners` is the one table of grants, so a partition cannot have two (G1).
//! A member is reconciled only when a reply to it is about to be made: its epoch therefore moves at most
//! once between two replies, and a lost reply costs no more than a repeat.
//!
//! Never touches offsets; never decides by wall clock.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::{ErrorKind, GroupName, MemberId, TopicId, TopicName, TopicPartition, limits};

use crate::assignor::{Assignor, Candidate, assign};
use crate::coordinator::{Config, Matcher};
use crate::member::{Member, Parked, new_member, session_timeout};
use crate::offsets::Offsets;
use crate::writes::Writes;
use crate::{
    Failure, Heartbeat, HeartbeatReply, Output, Reply, Subscription, Tick, Ticket, TopicState,
};

/// What a group may look at while it decides.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    pub(crate) now: Tick,
    pub(crate) config: &'a Config,
    pub(crate) topics: &'a BTreeMap<TopicName, TopicState>,
    pub(crate) matcher: &'a dyn Matcher,
    pub(crate) draining: bool,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: GroupName,
    /// Epoch of the group and of its target: a target is computed with each change.
    pub(crate) epoch: i32,
    pub(crate) assignor: Assignor,
    pub(crate) members: BTreeMap<MemberId, Member>,
    instances: BTreeMap<String, MemberId>,
    owners: BTreeMap<TopicPartition, MemberId>,
    /// Topics that exist among those subscribed to, as the target was computed from.
    subscribed: BTreeMap<TopicName, (TopicId, i32)>,
    /// Grants or the target changed since parked members were looked at.
    dirty: bool,
    /// Since when there are no members.
    pub(crate) empty_since: Option<Tick>,
    pub(crate) offsets: Offsets,
    pub(crate) writes: Writes,
    /// What the coordinator's index of deadlines holds for this group.
    pub(crate) indexed: Option<Tick>,
}

impl Group {
    pub(crate) fn new(name: GroupName, now: Tick) -> Self {
        Self {
            name,
            epoch: 0,
            assignor: Assignor::Uniform,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            owners: BTreeMap::new(),
            subscribed: BTreeMap::new(),
            dirty: false,
            empty_since: Some(now),
            offsets: Offsets::default(),
            writes: Writes::default(),
            indexed: None,
        }
    }

    /// Nothing left to remember.
    pub(crate) fn is_vacant(&self) -> bool {
        self.members.is_empty() && self.offsets.is_empty() && self.writes.is_empty()
    }

    /// When [`Group::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        self.members.values().map(Member::deadline).min()
    }

    pub(crate) fn is_subscribed(&self, topic: &TopicName) -> bool {
        self.members.values().any(|m| m.topics.contains(topic))
    }

    /// One heartbeat. Answered in `out`, or parked.
    ///
    /// # Errors
    /// The refusal; nothing was changed.
    pub(crate) fn heartbeat(
        &mut self,
        env: Env<'_>,
        ticket: Ticket,
        heartbeat: Heartbeat,
        out: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        if heartbeat.leave {
            self.leave(env, &heartbeat, out);
            out.push(Output::Reply {
                ticket,
                reply: farewell(env.config),
            });
            return Ok(());
        }
        let joins = heartbeat.member_epoch == 0;
        let resolved = match (&heartbeat.subscription, joins) {
            (Some(subscription), _) => Some(resolve(env, subscription)?),
            (None, true) => {
                return Err(Failure::invalid(
                    "subscription",
                    format!("joining group {} needs a subscription", self.name),
                ));
            }
            (None, false) => None,
        };
        if joins {
            self.admit(env, &heartbeat)?;
        } else {
            self.check_member_epoch(&heartbeat)?;
        }
        let id = heartbeat.member.clone();
        let max_wait_ms = heartbeat.max_wait_ms;
        self.update(env, heartbeat, resolved, out);
        self.reconcile(env.now, &id);
        self.answer_or_park(env, ticket, &id, max_wait_ms, out);
        Ok(())
    }

    /// Checks and makes room for a member that joins, returns, or takes over from its instance.
    fn admit(&mut self, env: Env<'_>, heartbeat: &Heartbeat) -> Result<(), Failure> {
        let id = &heartbeat.member;
        let instance = heartbeat.instance.as_ref().filter(|i| !i.is_empty());
        if let Some(known) = self.members.get(id) {
            if known.instance.as_ref() != instance {
                return Err(Failure::invalid(
                    "instance_id",
                    format!(
                        "member {id} of group {} cannot change its instance id",
                        self.name
                    ),
                ));
            }
            return Ok(());
        }
        if let Some(holder) = instance.and_then(|i| self.instances.get(i)).cloned() {
            return self.replace(&holder, heartbeat);
        }
        if self.members.len() >= env.config.group_max_size {
            return Err(Failure::new(
                ErrorKind::GroupFull,
                format!(
                    "group {} has {} members, which is group.max.size; member {id} was not added",
                    self.name,
                    self.members.len()
                ),
            )
            .with("group", &self.name)
            .with("limit", env.config.group_max_size));
        }
        if let Some(instance) = instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.members
            .insert(id.clone(), new_member(heartbeat, instance.cloned(), env));
        self.empty_since = None;
        Ok(())
    }

    /// A new member id takes over what its departed predecessor of the same instance held.
    fn replace(&mut self, holder: &MemberId, heartbeat: &Heartbeat) -> Result<(), Failure> {
        let departed = self.members.get(holder).is_some_and(|m| m.departed);
        if !departed {
            let instance = heartbeat.instance.as_deref().unwrap_or_default();
            return Err(Failure::new(
                ErrorKind::InstanceIdInUse,
                format!(
                    "instance id {instance:?} of group {} is held by the live member {holder}; stop \
                     that one, or wait for its session to end",
                    self.name
                ),
            )
            .with("group", &self.name)
            .with("instance_id", instance)
            .with("member_id", holder));
        }
        let Some(member) = self.members.remove(holder) else {
            return Ok(());
        };
        for partition in &member.granted {
            self.owners
                .insert(partition.clone(), heartbeat.member.clone());
        }
        if let Some(instance) = &member.instance {
            self.instances
                .insert(instance.clone(), heartbeat.member.clone());
        }
        self.members.insert(heartbeat.member.clone(), member);
        Ok(())
    }

    fn check_member_epoch(&self, heartbeat: &Heartbeat) -> Result<(), Failure> {
        let id = &heartbeat.member;
        let given = heartbeat.member_epoch;
        let Some(member) = self.members.get(id) else {
            return Err(unknown_member(&self.name, id));
        };
        if member.departed {
            return Err(self.departed(id));
        }
        if given == member.epoch {
            return Ok(());
        }
        // The reply that moved the epoch was lost: the member repeats itself, and can own nothing
        // that was not granted to it.
        let subset = match &heartbeat.owned {
            Some(owned) => owned.iter().all(|p| member.granted.contains(p)),
            None => member.reported.is_subset(&member.granted),
        };
        if given == member.presented && subset {
            return Ok(());
        }
        Err(self.fenced(id, given, member.epoch))
    }

    fn fenced(&self, id: &MemberId, given: i32, current: i32) -> Failure {
        Failure::new(
            ErrorKind::FencedMemberEpoch,
            format!(
                "member {id} of group {} is at epoch {current}, not {given}; give up every partition \
                 and rejoin with epoch 0",
                self.name
            ),
        )
        .with("group", &self.name)
        .with("member_id", id)
        .with("member_epoch", current)
    }

    fn departed(&self, id: &MemberId) -> Failure {
        Failure::new(
            ErrorKind::FencedMemberEpoch,
            format!(
                "member {id} of group {} has left and its partitions wait for its instance; rejoin \
                 with epoch 0",
                self.name
            ),
        )
        .with("group", &self.name)
        .with("member_id", id)
    }

    /// Takes over what an accepted heartbeat says, and releases what the member gave up.
    fn update(
        &mut self,
        env: Env<'_>,
        heartbeat: Heartbeat,
        resolved: Option<BTreeSet<TopicName>>,
        out: &mut Vec<Output>,
    ) {
        let id = heartbeat.member;
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.unpark(env.now, env.config, out);
        let joins = heartbeat.member_epoch == 0;
        let mut changed = joins && member.epoch == 0;
        member.departed = false;
        member.presented = heartbeat.member_epoch;
        member.client_id = heartbeat.client_id;
        member.peer = heartbeat.peer;
        if joins || heartbeat.session_timeout_ms.is_some() {
            member.session_timeout_ms = session_timeout(heartbeat.session_timeout_ms, env.config);
        }
        if joins || heartbeat.rebalance_timeout_ms.is_some() {
            member.rebalance_timeout_ms = heartbeat
                .rebalance_timeout_ms
                .unwrap_or(env.config.rebalance_timeout_ms);
        }
        member.heard = env.now;
        member.expires = env.now.plus(member.session_timeout_ms);
        if let (Some(subscription), Some(resolved)) = (heartbeat.subscription, resolved) {
            changed |=
                member.topics != resolved || member.subscription.assignor != subscription.assignor;
            member.topics = resolved;
            member.subscription = subscription;
        }
        match heartbeat.owned {
            Some(owned) => member.reported = owned.into_iter().collect(),
            None if joins => member.reported.clear(),
            None => {}
        }
        if changed {
            self.retarget(env);
        }
        self.release_given_up(&id);
    }

    fn release_given_up(&mut self, id: &MemberId) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let (target, reported) = (&member.target, &member.reported);
        let gone: Vec<_> = member
            .granted
            .iter()
            .filter(|p| !target.contains(*p) && !reported.contains(*p))
            .cloned()
            .collect();
        for partition in gone {
            member.granted.remove(&partition);
            let owner = self.owners.remove(&partition);
            assert_eq!(
                owner.as_ref(),
                Some(id),
                "G1: {partition} was granted to another member"
            );
            self.dirty = true;
        }
    }

    /// Moves one member towards its target. Called only when it is about to be answered.
    fn reconcile(&mut self, now: Tick, id: &MemberId) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if !member.granted.is_subset(&member.target) {
            // It keeps its epoch until it has given up the rest, so that it can commit.
            let by = now.plus(member.rebalance_timeout_ms);
            member.revoke_by.get_or_insert(by);
            return;
        }
        member.revoke_by = None;
        assert!(
            member.epoch <= self.epoch,
            "G5: a member's epoch never decreases"
        );
        member.epoch = self.epoch;
        for partition in &member.target {
            if !self.owners.contains_key(partition) {
                self.owners.insert(partition.clone(), id.clone());
                member.granted.insert(partition.clone());
            }
        }
    }

    fn answer_or_park(
        &mut self,
        env: Env<'_>,
        ticket: Ticket,
        id: &MemberId,
        max_wait_ms: u64,
        out: &mut Vec<Output>,
    ) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let wait = max_wait_ms
            .min(member.interval_ms(env.config))
            .min(limits::WAIT_MAX_MS);
        let until = env.now.plus(wait);
        member.parked = Some(Parked { ticket, until });
        if wait == 0 || env.draining || !member.settled() {
            member.unpark(env.now, env.config, out);
        }
    }

    /// Answers the parked members whom a change concerns.
    pub(crate) fn settle(&mut self, env: Env<'_>, out: &mut Vec<Output>) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let parked: Vec<_> = self
            .members
            .iter()
            .filter(|(_, m)| m.parked.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in parked {
            self.reconcile(env.now, &id);
            if let Some(member) = self.members.get_mut(&id)
                && !member.settled()
            {
                member.unpark(env.now, env.config, out);
            }
        }
    }

    /// Answers every parked member: the node shuts down.
    pub(crate) fn drain(&mut self, env: Env<'_>, out: &mut Vec<Output>) {
        for member in self.members.values_mut() {
            member.unpark(env.now, env.config, out);
        }
    }

    /// The caller of a parked heartbeat is gone; the session goes on counting from its arrival. Returns
    /// whether the heartbeat was still parked.
    pub(crate) fn cancel(&mut self, id: &MemberId, ticket: Ticket) -> bool {
        let parked = |member: &mut Member| member.parked.take_if(|p| p.ticket == ticket);
        self.members.get_mut(id).and_then(parked).is_some()
    }

    fn leave(&mut self, env: Env<'_>, heartbeat: &Heartbeat, out: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(&heartbeat.member) else {
            return;
        };
        member.unpark(env.now, env.config, out);
        if heartbeat.keep_assignment && member.instance.is_some() {
            if !member.departed {
                member.departed = true;
                member.reported.clear();
                member.revoke_by = None;
                member.heard = env.now;
                member.expires = env.now.plus(member.session_timeout_ms);
            }
            self.release_given_up(&heartbeat.member);
            return;
        }
        self.expel(env, std::slice::from_ref(&heartbeat.member), out);
    }

    /// Removes members, whose partitions become free at once. Unknown ones are ignored.
    pub(crate) fn expel(&mut self, env: Env<'_>, ids: &[MemberId], out: &mut Vec<Output>) {
        let mut any = false;
        for id in ids {
            let Some(member) = self.members.remove(id) else {
                continue;
            };
            any = true;
            if let Some(parked) = member.parked {
                let failure = self.fenced(id, member.presented, member.epoch);
                out.push(Output::Reply {
                    ticket: parked.ticket,
                    reply: Reply::Failed(failure),
                });
            }
            for partition in &member.granted {
                let owner = self.owners.remove(partition);
                assert_eq!(
                    owner.as_ref(),
                    Some(id),
                    "G1: {partition} has another owner"
                );
            }
            if let Some(instance) = &member.instance {
                self.instances.remove(instance);
            }
        }
        if any {
            if self.members.is_empty() {
                self.empty_since = Some(env.now);
            }
            self.retarget(env);
        }
    }

    /// Does what is due: answers held heartbeats, expels silent members and those that do not let go.
    pub(crate) fn expire(&mut self, env: Env<'_>, out: &mut Vec<Output>) {
        let mut lost = Vec::new();
        for (id, member) in &mut self.members {
            if member.parked.as_ref().is_some_and(|p| p.until <= env.now) {
                member.unpark(env.now, env.config, out);
            }
            let stubborn = member.revoke_by.is_some_and(|t| t <= env.now);
            let silent = member.parked.is_none() && member.expires <= env.now;
            if stubborn || silent {
                lost.push(id.clone());
            }
        }
        self.expel(env, &lost, out);
    }

    /// Topics changed: patterns are resolved again, and a new target follows if it matters.
    pub(crate) fn topics_changed(&mut self, env: Env<'_>) {
        let mut changed = false;
        for member in self.members.values_mut() {
            // A pattern that was accepted once still is; if the matcher thinks otherwise, what it
            // meant before stays.
            if !member.subscription.pattern.is_empty()
                && let Ok(topics) = resolve(env, &member.subscription)
            {
                changed |= topics != member.topics;
                member.topics = topics;
            }
        }
        if changed || self.subscribed != self.existing(env) {
            self.retarget(env);
        }
    }

    fn existing(&self, env: Env<'_>) -> BTreeMap<TopicName, (TopicId, i32)> {
        let mut existing = BTreeMap::new();
        for topic in self.members.values().flat_map(|m| &m.topics) {
            if let Some(state) = env.topics.get(topic)
                && !existing.contains_key(topic)
            {
                existing.insert(topic.clone(), (state.id, state.partitions));
            }
        }
        existing
    }

    /// A new epoch with a new target.
    fn retarget(&mut self, env: Env<'_>) {
        assert!(
            self.epoch < i32::MAX,
            "the epochs of group {} are used up",
            self.name
        );
        self.epoch += 1;
        self.dirty = true;
        self.subscribed = self.existing(env);
        self.assignor = self.preferred_assignor();
        let candidates: Vec<_> = self
            .members
            .iter()
            .map(|(id, m)| Candidate {
                member: id,
                instance: m.instance.as_deref(),
                topics: &m.topics,
                before: &m.target,
            })
            .collect();
        let target = assign(self.assignor, &candidates, |topic| {
            self.subscribed.get(topic).map(|(_, count)| *count)
        });
        for (member, target) in self.members.values_mut().zip(target) {
            member.target = target;
        }
        // Who has left owns nothing any more: what no longer waits for it is free.
        let departed = self.members.iter().filter(|(_, m)| m.departed);
        for id in departed.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.release_given_up(&id);
        }
    }

    /// What most members prefer; `uniform` when none prefers anything or there is a tie.
    fn preferred_assignor(&self) -> Assignor {
        let votes = |assignor: Assignor| {
            self.members
                .values()
                .filter(|m| m.subscription.assignor == assignor.name())
                .count()
        };
        if votes(Assignor::Range) > votes(Assignor::Uniform) {
            Assignor::Range
        } else {
            Assignor::Uniform
        }
    }

    /// Whether a commit of this member at this epoch is allowed.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_commit(
        &self,
        member: Option<&MemberId>,
        member_epoch: i32,
    ) -> Result<(), Failure> {
        let Some(id) = member else {
            return self.check_empty("a commit without member id");
        };
        let Some(member) = self.members.get(id) else {
            return Err(unknown_member(&self.name, id));
        };
        if member.departed {
            return Err(self.departed(id));
        }
        if member_epoch > member.epoch {
            return Err(self.fenced(id, member_epoch, member.epoch));
        }
        if member_epoch < member.epoch {
            return Err(Failure::new(
                ErrorKind::StaleMemberEpoch,
                format!(
                    "member {id} of group {} committed with epoch {member_epoch} but is at {}; \
                     heartbeat, then commit what it still owns",
                    self.name, member.epoch
                ),
            )
            .with("group", &self.name)
            .with("member_id", id)
            .with("member_epoch", member.epoch));
        }
        Ok(())
    }

    /// # Errors
    /// `GroupNotEmpty` when there are members.
    pub(crate) fn check_empty(&self, what: &str) -> Result<(), Failure> {
        if self.members.is_empty() {
            return Ok(());
        }
        let count = self.members.len();
        Err(Failure::new(
            ErrorKind::GroupNotEmpty,
            format!(
                "{what} needs group {} to have no members, and it has {count}; stop them first",
                self.name
            ),
        )
        .with("group", &self.name)
        .with("members", count))
    }

    pub(crate) fn is_stable(&self) -> bool {
        self.members
            .values()
            .all(|m| m.epoch == self.epoch && m.granted == m.target)
    }

    /// The cheap part of the invariants, after every step that touched this group.
    pub(crate) fn assert_invariants(&self) {
        let granted: usize = self.members.values().map(|m| m.granted.len()).sum();
        assert_eq!(granted, self.owners.len(), "G1: each grant has one owner");
        for (id, member) in &self.members {
            assert!(
                member.epoch <= self.epoch,
                "G5: member {id} is ahead of its group"
            );
            assert!(
                !(member.departed && member.parked.is_some()),
                "{id} left and still waits"
            );
            debug_assert!(
                member
                    .granted
                    .iter()
                    .all(|p| self.owners.get(p) == Some(id)),
                "G1: a grant of {id} is not its own"
            );
        }
    }
}

pub(crate) fn unknown_member(group: &GroupName, id: &MemberId) -> Failure {
    Failure::new(
        ErrorKind::UnknownMember,
        format!(
            "group {group} has no member {id}; give up every partition and rejoin with epoch 0"
        ),
    )
    .with("group", group)
    .with("member_id", id)
}

/// Answer to a member that leaves, however often it says so.
pub(crate) fn farewell(config: &Config) -> Reply {
    Reply::Heartbeat(HeartbeatReply {
        member_epoch: 0,
        assignment: None,
        heartbeat_interval_ms: config.heartbeat_interval_ms,
        session_timeout_ms: config.session_timeout_ms,
    })
}

/// Topics a subscription means now. Names need not exist; patterns match what exists.
fn resolve(env: Env<'_>, subscription: &Subscription) -> Result<BTreeSet<TopicName>, Failure> {
    let bad = |message: String| Failure::invalid("subscription", message);
    if subscription.topics.is_empty() && subscription.pattern.is_empty() {
        return Err(bad(
            "a subscription names at least one topic or a pattern".to_owned()
        ));
    }
    if subscription.topics.len() > limits::REQUEST_MAX_PARTITIONS {
        return Err(bad(format!(
            "a subscription names at most {} topics; this one has {}",
            limits::REQUEST_MAX_PARTITIONS,
            subscription.topics.len()
        )));
    }
    if !subscription.assignor.is_empty() && Assignor::parse(&subscription.assignor).is_none() {
        return Err(bad(format!(
            "the assignor is one of uniform, range; found {:?}",
            subscription.assignor
        )));
    }
    let mut topics: BTreeSet<_> = subscription.topics.iter().cloned().collect();
    if !subscription.pattern.is_empty() {
        let matches = |topic: &str| {
            env.matcher
                .matches(&subscription.pattern, topic)
                .map_err(|why| {
                    bad(format!(
                        "the topic pattern {:?} is not valid: {why}",
                        subscription.pattern
                    ))
                })
        };
        // A bad pattern is refused even where there is no topic to try it on.
        matches("")?;
        for topic in env.topics.keys().filter(|t| !t.is_internal()) {
            if matches(topic.as_str())? {
                topics.insert(topic.clone());
            }
        }
    }
    Ok(topics)
}
