//! How a group moves its members towards the target: what they gave up is released, what they are granted
//! follows, and parked heartbeats are answered when that concerns them.
//!
//! A member is reconciled only when a reply to it is about to be made: its epoch therefore moves at most
//! once between two replies, and a lost reply costs no more than a repeat. Never admits or expels anybody.

use std::collections::BTreeMap;

use varve_types::{MemberId, TopicId, TopicName, limits};

use crate::assignor::{Assignor, Candidate, assign};
use crate::group::{Env, Group};
use crate::member::Parked;
use crate::subscription::resolve;
use crate::{Output, Tick, Ticket};

impl Group {
    pub(crate) fn release_given_up(&mut self, id: &MemberId) {
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
            member.since.remove(&partition);
            let owner = self.owners.remove(&partition);
            assert_eq!(
                owner.as_ref(),
                Some(id),
                "G1: {partition} was granted to another member"
            );
            self.journal.mark(id);
            self.dirty = true;
        }
    }

    /// Moves one member towards its target. Called only when it is about to be answered.
    pub(crate) fn reconcile(&mut self, now: Tick, id: &MemberId) {
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
        if member.epoch != self.epoch {
            member.epoch = self.epoch;
            self.journal.mark(id);
        }
        for partition in &member.target {
            if !self.owners.contains_key(partition) {
                self.owners.insert(partition.clone(), id.clone());
                member.granted.insert(partition.clone());
                member.since.insert(partition.clone(), member.epoch);
                self.journal.mark(id);
            }
        }
    }

    pub(crate) fn answer_or_park(
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
    pub(crate) fn retarget(&mut self, env: Env<'_>) {
        assert!(
            self.epoch < i32::MAX,
            "the epochs of group {} are exhausted",
            self.name
        );
        self.epoch += 1;
        self.aim(env);
    }

    /// The target that follows from members and topics now, as near to the one before as can be.
    pub(crate) fn aim(&mut self, env: Env<'_>) {
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
}
