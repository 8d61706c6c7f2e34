//! One group: its members, epochs, target assignment, and the reconciliation of members towards it.
//!
//! A partition is *granted* from the moment a reply may carry it until the member has said that it no
//! longer owns it, or is gone. `owners` is the one table of grants, so a partition cannot have two (G1).
//! A member is reconciled only when a reply to it is about to be made: its epoch therefore moves at most
//! once between two replies, and a lost reply costs no more than a repeat.
//!
//! Never touches offsets; never decides by wall clock.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::{GroupName, MemberId, TopicId, TopicName, TopicPartition};

use crate::assignor::Assignor;
use crate::classic::{Classic, Step};
use crate::config::Config;
use crate::coordinator::Matcher;
use crate::journal::Journal;
use crate::member::{Member, new_member, session_timeout};
use crate::offsets::Offsets;
use crate::rules::farewell;
use crate::subscription::{check_texts, resolve};
use crate::writes::Writes;
use crate::{Failure, Heartbeat, Output, Reply, Tick, Ticket, TopicState};

/// What a group may look at while it decides.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    pub(crate) now: Tick,
    pub(crate) config: &'a Config,
    pub(crate) topics: &'a BTreeMap<TopicName, TopicState>,
    pub(crate) matcher: &'a dyn Matcher,
    pub(crate) draining: bool,
}

/// What a classic group may look at, with the outputs.
pub(crate) fn step<'a>(env: Env<'a>, out: &'a mut Vec<Output>) -> Step<'a> {
    Step {
        now: env.now,
        config: env.config,
        out,
    }
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: GroupName,
    /// Epoch of the group and of its target: a target is computed with each change.
    pub(crate) epoch: i32,
    pub(crate) assignor: Assignor,
    pub(crate) members: BTreeMap<MemberId, Member>,
    pub(crate) instances: BTreeMap<String, MemberId>,
    pub(crate) owners: BTreeMap<TopicPartition, MemberId>,
    /// Topics that exist among those subscribed to, as the target was computed from.
    pub(crate) subscribed: BTreeMap<TopicName, (TopicId, i32)>,
    /// Grants or the target changed since parked members were looked at.
    pub(crate) dirty: bool,
    /// Since when there are no members.
    pub(crate) empty_since: Option<Tick>,
    pub(crate) offsets: Offsets,
    pub(crate) writes: Writes,
    pub(crate) journal: Journal,
    /// Ids given to members of the classic protocol that have not come back, with the end of the wait. Of
    /// a classic group they are there.
    pub(crate) promised: BTreeMap<MemberId, Tick>,
    /// Set while the group speaks the classic protocol: then `members` is empty.
    pub(crate) classic: Option<Classic>,
    /// The record of the classic group that this was is to be removed.
    pub(crate) classic_over: bool,
    /// The log may lack the record of the classic group that this has become.
    pub(crate) passed: bool,
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
            journal: Journal::default(),
            promised: BTreeMap::new(),
            classic: None,
            classic_over: false,
            passed: false,
            indexed: None,
        }
    }

    /// Nothing left to remember.
    pub(crate) fn is_vacant(&self) -> bool {
        let deserted = |classic: &Classic| classic.is_deserted() && classic.written.is_none();
        self.members.is_empty()
            && self.classic.as_ref().is_none_or(deserted)
            && self.offsets.is_empty()
            && self.writes.is_empty()
            && self.journal.is_blank()
    }

    /// When [`Group::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        let members = self.members.values().filter_map(Member::deadline).min();
        let classic = self.classic.as_ref().and_then(Classic::deadline);
        let all = members.into_iter().chain(self.journal.deadline());
        let promised = self.promised.values().copied();
        all.chain(classic).chain(promised).min()
    }

    pub(crate) fn is_subscribed(&self, topic: &TopicName) -> bool {
        // What members of a classic group read is between them.
        let classic = self.classic.as_ref().is_some_and(|c| !c.members.is_empty());
        classic || self.members.values().any(|m| m.topics.contains(topic))
    }

    /// Members of either protocol.
    pub(crate) fn member_count(&self) -> usize {
        let classic = self.classic.as_ref().map_or(0, |c| c.members.len());
        self.members.len() + classic
    }

    /// Keeps the time since when there are no members.
    pub(crate) fn note_emptiness(&mut self, now: Tick) {
        if self.member_count() > 0 {
            self.empty_since = None;
        } else {
            self.empty_since.get_or_insert(now);
        }
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
        self.journal.hasten(env.now);
        if heartbeat.leave {
            self.leave(env, &heartbeat, out);
            out.push(Output::Reply {
                ticket,
                reply: farewell(env.config),
            });
            return Ok(());
        }
        check_texts(&heartbeat)?;
        let joins = heartbeat.member_epoch == 0;
        let resolved = match (&heartbeat.subscription, joins) {
            (Some(subscription), _) => Some(resolve(env, subscription)?),
            (None, true) => {
                return Err(Failure::invalid(
                    "subscription",
                    format!(
                        "a member that joins group {} needs a subscription",
                        self.name
                    ),
                ));
            }
            (None, false) => None,
        };
        let upgrade = self.plan_upgrade(env, &heartbeat)?;
        let waiting = upgrade.map(|members| self.upgrade(env, members, out));
        let epoch = self.epoch;
        if joins {
            self.admit(env, &heartbeat, out)?;
        } else {
            self.check_member_epoch(&heartbeat)?;
        }
        let id = heartbeat.member.clone();
        let max_wait_ms = heartbeat.max_wait_ms;
        self.update(env, heartbeat, resolved, out);
        if let Some(waiting) = waiting {
            if self.epoch == epoch {
                // Of two records of a group, one of either protocol, that with the greater epoch is right.
                self.retarget(env);
                // It has said what it owns: nothing else may stay its own in the log when that is not meant for it.
                self.release_given_up(&id);
            }
            self.answer_joins(env.now, waiting, out);
        }
        self.reconcile(env.now, &id);
        self.answer_or_park(env, ticket, &id, max_wait_ms, out);
        Ok(())
    }

    /// Checks and makes room for a member that joins, returns, or takes over from its instance.
    fn admit(
        &mut self,
        env: Env<'_>,
        heartbeat: &Heartbeat,
        out: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        let id = &heartbeat.member;
        let instance = heartbeat.instance.as_ref().filter(|i| !i.is_empty());
        if let Some(known) = self.members.get(id) {
            self.check_id(id)?;
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
            self.check_departed(&holder, heartbeat)?;
            self.take_place(&holder, id, out);
            return Ok(());
        }
        self.check_room(env, id)?;
        self.leave_classic();
        self.add(env, id, instance);
        Ok(())
    }

    pub(crate) fn add(&mut self, env: Env<'_>, id: &MemberId, instance: Option<&String>) {
        if let Some(instance) = instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        let member = new_member(instance.cloned(), env);
        self.members.insert(id.clone(), member);
        self.empty_since = None;
    }

    /// A new member id takes over what the holder of its instance id has. The holder, if it is still there,
    /// is fenced.
    pub(crate) fn take_place(&mut self, holder: &MemberId, id: &MemberId, out: &mut Vec<Output>) {
        let Some(mut member) = self.members.remove(holder) else {
            return;
        };
        if let Some(parked) = member.parked.take() {
            let failure = self.fenced(holder, member.presented, member.epoch);
            out.push(Output::Reply {
                ticket: parked.ticket,
                reply: Reply::Failed(failure),
            });
        }
        // Answers to the predecessor may still wait; they are not its own.
        member.held = 0;
        member.unheard = false;
        member.greet = false;
        member.revoke_by = None;
        member.classic = None;
        for partition in &member.granted {
            self.owners.insert(partition.clone(), id.clone());
        }
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.members.insert(id.clone(), member);
        self.journal.mark(holder);
        self.journal.mark(id);
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
        let before = (
            member.departed,
            member.session_timeout_ms,
            member.rebalance_timeout_ms,
        );
        let mut written = changed;
        member.departed = false;
        if joins || !heartbeat.rack.is_empty() {
            written |= member.rack != heartbeat.rack;
            member.rack = heartbeat.rack;
        }
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
        let after = (
            member.departed,
            member.session_timeout_ms,
            member.rebalance_timeout_ms,
        );
        written |= before != after;
        member.heard = env.now;
        member.expires = env.now.plus(member.session_timeout_ms);
        if let (Some(subscription), Some(resolved)) = (heartbeat.subscription, resolved) {
            written |= member.subscription != subscription;
            changed |=
                member.topics != resolved || member.subscription.assignor != subscription.assignor;
            member.topics = resolved;
            member.subscription = subscription;
        }
        if heartbeat.owned.is_some() || joins {
            member.unheard = false;
        }
        match heartbeat.owned {
            Some(owned) => member.reported = owned.into_iter().collect(),
            None if joins => member.reported.clear(),
            None => {}
        }
        if written {
            self.journal.mark(&id);
        }
        if changed {
            self.retarget(env);
        }
        self.release_given_up(&id);
    }

    /// Answers every parked member: the node shuts down.
    pub(crate) fn drain(&mut self, env: Env<'_>, out: &mut Vec<Output>) {
        for member in self.members.values_mut() {
            member.unpark(env.now, env.config, out);
        }
        if let Some(classic) = &mut self.classic {
            classic.drain(&mut step(env, out));
        }
    }

    /// The caller of a parked heartbeat is gone; the session goes on counting from its arrival. Returns
    /// whether the heartbeat was still parked.
    pub(crate) fn cancel(&mut self, now: Tick, id: &MemberId, ticket: Ticket) -> bool {
        let parked = |member: &mut Member| member.parked.take_if(|p| p.ticket == ticket);
        if self.members.get_mut(id).and_then(parked).is_some() {
            return true;
        }
        let classic = self.classic.as_mut();
        classic.is_some_and(|classic| classic.cancel(now, id, ticket))
    }

    fn leave(&mut self, env: Env<'_>, heartbeat: &Heartbeat, out: &mut Vec<Output>) {
        let speaks = |member: &&mut Member| member.classic.is_none();
        let member = self.members.get_mut(&heartbeat.member);
        let Some(member) = member.filter(speaks) else {
            return;
        };
        member.unpark(env.now, env.config, out);
        if heartbeat.keep_assignment && member.instance.is_some() {
            if !member.departed {
                member.departed = true;
                self.journal.mark(&heartbeat.member);
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
            self.journal.mark(id);
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
            if self.passes_back(env) {
                self.downgrade(env, out);
            } else {
                self.retarget(env);
            }
        }
    }

    /// Does what is due: answers held heartbeats, expels silent members and those that do not let go.
    pub(crate) fn expire(&mut self, env: Env<'_>, out: &mut Vec<Output>) {
        if let Some(classic) = &mut self.classic {
            classic.expire(&mut step(env, out));
        }
        self.promised.retain(|_, until| *until > env.now);
        let mut lost = Vec::new();
        for (id, member) in &mut self.members {
            if member.parked.as_ref().is_some_and(|p| p.until <= env.now) {
                member.unpark(env.now, env.config, out);
            }
            if member.is_lost(env.now) {
                lost.push(id.clone());
            }
        }
        self.expel(env, &lost, out);
    }
}
