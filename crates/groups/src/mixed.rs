//! Members that speak the classic protocol in a group of the consumer protocol: they join, ask for their
//! assignment, are told to join again, and leave, while the coordinator assigns.
//!
//! A join is answered at once with the epoch of the member as generation; a sync with what it may own. A
//! heartbeat tells it to join again when there is something to give up or to get. What it says that it owns
//! when it joins is what frees partitions for others, so G1 holds between members of both protocols.
//!
//! Never passes the group from one protocol to the other by itself: see [`crate::classic`].

use std::collections::BTreeSet;

use varve_types::{MemberId, TopicName};

use crate::classic::{Waiting, assignment};
use crate::codec::{self, CONSUMER_PROTOCOL, EmbeddedSubscription};
use crate::group::{Env, Group};
use crate::member::ClassicSide;
use crate::{
    ClassicError, ClassicHeartbeat, ClassicJoin, ClassicJoined, ClassicLeave, ClassicSync,
    ClassicSynced, Failure, Output, Reply, Subscription, Tick,
};

impl Group {
    /// One join. Returns the member's id and the answer.
    ///
    /// # Errors
    /// The refusal; nothing was changed, but for an id that was promised.
    pub(crate) fn mixed_join(
        &mut self,
        env: Env<'_>,
        join: &ClassicJoin,
        out: &mut Vec<Output>,
    ) -> Result<(MemberId, Reply), ClassicError> {
        let config = env.config;
        let limits = config.session_timeout_min_ms..=config.session_timeout_max_ms;
        if !limits.contains(&join.session_timeout_ms) {
            return Err(ClassicError::InvalidSessionTimeout);
        }
        if !self.supports(join) {
            return Err(ClassicError::InconsistentProtocol);
        }
        let said = join.protocols.first().map_or(&[][..], |(_, said)| said);
        let subscription = codec::decode_subscription(said)
            .map_err(|error| ClassicError::Failed(self.unreadable(&error)))?;
        let (id, new) = match &join.member {
            None => self.admit_unknown(env, join, out)?,
            Some(id) => self.admit_known(env, id, join)?,
        };
        self.take_over(env, &id, new, join, subscription);
        self.settle_join(env.now, &id);
        let reply = self.mixed_joined(&id);
        if self.passes_back(env) {
            self.downgrade(env, out);
        }
        Ok((id, reply))
    }

    fn unreadable(&self, error: &codec::CodecError) -> Failure {
        Failure::invalid(
            "protocols",
            format!(
                "group {} uses the consumer protocol, and the member's subscription cannot be \
                 read: {error}; the member was not added",
                self.name
            ),
        )
        .with("group", &self.name)
    }

    /// Whether a member with these protocols can be one beside the others that speak the classic protocol:
    /// they may be left to themselves.
    fn supports(&self, join: &ClassicJoin) -> bool {
        if join.protocol_type != CONSUMER_PROTOCOL || join.protocols.is_empty() {
            return false;
        }
        let instance = join.instance.as_ref().filter(|i| !i.is_empty());
        let holder = instance.and_then(|i| self.instances.get(i));
        let me = join.member.as_ref().or(holder);
        let others: Vec<&ClassicSide> = self
            .members
            .iter()
            .filter(|(id, _)| Some(*id) != me)
            .filter_map(|(_, m)| m.classic.as_ref())
            .collect();
        join.protocols.iter().any(|(name, _)| {
            let knows = |side: &&ClassicSide| side.protocols.iter().any(|(n, _)| n == name);
            others.iter().all(knows)
        })
    }

    /// # Errors
    /// `InconsistentProtocol` when members that speak the classic protocol are not let in.
    const fn check_admits_classic(env: Env<'_>) -> Result<(), ClassicError> {
        if env.config.migration.upgrades() || env.config.migration.downgrades() {
            return Ok(());
        }
        Err(ClassicError::InconsistentProtocol)
    }

    /// A member without id: whether it is new, or takes the place of its instance.
    fn admit_unknown(
        &mut self,
        env: Env<'_>,
        join: &ClassicJoin,
        out: &mut Vec<Output>,
    ) -> Result<(MemberId, bool), ClassicError> {
        let id = join.proposed.clone();
        if self.members.contains_key(&id) || self.promised.contains_key(&id) {
            // The id was to be unique: this is a call that was repeated.
            return Err(ClassicError::MemberIdRequired(id));
        }
        let instance = join.instance.as_ref().filter(|i| !i.is_empty());
        if let Some(holder) = instance.and_then(|i| self.instances.get(i)).cloned() {
            if !self.speaks_classic(&holder) {
                Self::check_admits_classic(env)?;
            }
            self.take_place(&holder, &id, out);
            return Ok((id, false));
        }
        Self::check_admits_classic(env)?;
        if self.members.len() + self.promised.len() >= env.config.group_max_size {
            return Err(ClassicError::GroupFull);
        }
        if instance.is_none() && join.require_known_member_id {
            let until = env.now.plus(join.session_timeout_ms);
            self.promised.insert(id.clone(), until);
            return Err(ClassicError::MemberIdRequired(id));
        }
        self.add(env, &id, instance);
        Ok((id, true))
    }

    /// A member that comes again, or comes back with the id it was promised.
    fn admit_known(
        &mut self,
        env: Env<'_>,
        id: &MemberId,
        join: &ClassicJoin,
    ) -> Result<(MemberId, bool), ClassicError> {
        let instance = join.instance.as_ref().filter(|i| !i.is_empty());
        let promised = instance.is_none() && self.promised.contains_key(id);
        if !promised {
            self.check_classic_member(id, instance)?;
            return Ok((id.clone(), false));
        }
        Self::check_admits_classic(env)?;
        self.promised.remove(id);
        self.add(env, id, None);
        Ok((id.clone(), true))
    }

    fn speaks_classic(&self, id: &MemberId) -> bool {
        let member = self.members.get(id);
        member.is_some_and(|m| m.classic.is_some())
    }

    /// Checks that a call is of the member it says, and that this speaks the classic protocol.
    fn check_classic_member(
        &self,
        id: &MemberId,
        instance: Option<&String>,
    ) -> Result<(), ClassicError> {
        if let Some(instance) = instance.filter(|i| !i.is_empty()) {
            match self.instances.get(instance) {
                None => return Err(ClassicError::UnknownMember),
                Some(holder) if holder != id => return Err(ClassicError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.speaks_classic(id) {
            return Ok(());
        }
        Err(ClassicError::UnknownMember)
    }

    /// Takes over what an accepted join says. A new subscription is a new target.
    fn take_over(
        &mut self,
        env: Env<'_>,
        id: &MemberId,
        new: bool,
        join: &ClassicJoin,
        subscription: EmbeddedSubscription,
    ) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let topics: BTreeSet<TopicName> = subscription.topics.iter().cloned().collect();
        let changed = new || member.topics != topics;
        member.topics = topics;
        member.subscription = Subscription {
            topics: subscription.topics,
            ..Subscription::default()
        };
        member.rack = subscription.rack.unwrap_or_default();
        member.client_id = join.client_id.clone();
        member.peer = join.peer;
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.departed = false;
        member.reported = codec::partition_set(&subscription.owned);
        let revoking = member.classic.as_ref().is_some_and(|side| side.revoking);
        member.classic = Some(ClassicSide {
            revoking,
            ..ClassicSide::new(join.protocols.clone())
        });
        self.journal.mark(id);
        if changed {
            self.retarget(env);
        }
    }

    /// A member has joined, and has said what it owns: what it has given up is free, and what is free is its
    /// own as far as it is meant for it.
    fn settle_join(&mut self, now: Tick, id: &MemberId) {
        self.release_given_up(id);
        if let Some(member) = self.members.get_mut(id)
            && member.classic.as_ref().is_some_and(|side| !side.revoking)
        {
            member.revoke_by = None;
        }
        self.reconcile(now, id);
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        member.alive(now);
        member.presented = member.epoch;
        // From now on it may be told all of it.
        member.reported = member.granted.clone();
        let unrevoked = member.is_unrevoked();
        let by = now.plus(member.rebalance_timeout_ms);
        if let Some(side) = &mut member.classic {
            side.unsynced = true;
            side.revoking &= unrevoked;
            if !side.revoking {
                member.revoke_by = Some(by);
            }
        }
    }

    /// Answers the joins that waited for a generation when the group passed to the consumer protocol.
    pub(crate) fn answer_joins(&mut self, now: Tick, waiting: Waiting, out: &mut Vec<Output>) {
        for (id, ticket) in waiting {
            // Another one may have taken its place with this very passage.
            let reply = if self.speaks_classic(&id) {
                self.settle_join(now, &id);
                self.mixed_joined(&id)
            } else {
                Reply::ClassicFailed(ClassicError::FencedInstance)
            };
            out.push(Output::Reply { ticket, reply });
        }
    }

    fn mixed_joined(&self, id: &MemberId) -> Reply {
        let member = self.members.get(id);
        let side = member.and_then(|m| m.classic.as_ref());
        Reply::ClassicJoined(Box::new(ClassicJoined {
            member: id.clone(),
            generation: member.map_or(0, |m| m.epoch),
            protocol_type: CONSUMER_PROTOCOL.to_owned(),
            protocol: side.map_or("", |s| s.first().0).to_owned(),
            leader: None,
            members: Vec::new(),
            skip_assignment: false,
        }))
    }

    /// One sync.
    ///
    /// # Errors
    /// The refusal. `RebalanceInProgress` asks the member to join again, and counts as life.
    pub(crate) fn mixed_sync(
        &mut self,
        now: Tick,
        sync: &ClassicSync,
    ) -> Result<Reply, ClassicError> {
        self.check_classic_member(&sync.member, sync.instance.as_ref())?;
        let epoch = self.epoch;
        let Some(member) = self.members.get_mut(&sync.member) else {
            return Err(ClassicError::UnknownMember);
        };
        if sync.generation != member.epoch {
            return Err(ClassicError::IllegalGeneration);
        }
        let Some(side) = &mut member.classic else {
            return Err(ClassicError::UnknownMember);
        };
        let (protocol, metadata) = side.first();
        let differs = |given: &Option<String>, own: &str| given.as_ref().is_some_and(|g| g != own);
        if differs(&sync.protocol_type, CONSUMER_PROTOCOL) || differs(&sync.protocol, protocol) {
            return Err(ClassicError::InconsistentProtocol);
        }
        let (protocol, version) = (protocol.to_owned(), codec::answer_version(metadata));
        member.heard = now;
        member.expires = now.plus(member.session_timeout_ms);
        let by = now.plus(member.rebalance_timeout_ms);
        let unrevoked = !member.granted.is_subset(&member.target);
        if member.epoch < epoch && !unrevoked {
            member.revoke_by.get_or_insert(by);
            return Err(ClassicError::RebalanceInProgress);
        }
        side.unsynced = false;
        if !unrevoked {
            member.revoke_by = None;
        } else if !side.revoking {
            side.revoking = true;
            member.revoke_by = Some(by);
        }
        Ok(Reply::ClassicSynced(ClassicSynced {
            protocol_type: CONSUMER_PROTOCOL.to_owned(),
            protocol,
            assignment: assignment(version, &member.assignment()),
        }))
    }

    /// One heartbeat.
    ///
    /// # Errors
    /// `RebalanceInProgress` asks the member to join again, and counts as life; the other refusals do not.
    pub(crate) fn mixed_heartbeat(
        &mut self,
        now: Tick,
        heartbeat: &ClassicHeartbeat,
    ) -> Result<(), ClassicError> {
        self.check_classic_member(&heartbeat.member, heartbeat.instance.as_ref())?;
        self.check_generation(now, &heartbeat.member, heartbeat.generation)?;
        let epoch = self.epoch;
        let Some(member) = self.members.get_mut(&heartbeat.member) else {
            return Err(ClassicError::UnknownMember);
        };
        let mut missing = member.target.difference(&member.granted);
        let comes = missing.any(|p| !self.owners.contains_key(p));
        if member.epoch < epoch || member.is_unrevoked() || comes {
            let by = now.plus(member.rebalance_timeout_ms);
            member.revoke_by.get_or_insert(by);
            return Err(ClassicError::RebalanceInProgress);
        }
        if member.classic.as_ref().is_some_and(|side| !side.unsynced) {
            // What it was to join again for may be over.
            member.revoke_by = None;
        }
        Ok(())
    }

    /// Whether a member that speaks the classic protocol may commit in this generation. Counts as life. `Ok`
    /// for others.
    ///
    /// # Errors
    /// `IllegalGeneration`.
    pub(crate) fn mixed_commits(
        &mut self,
        now: Tick,
        id: &MemberId,
        generation: i32,
    ) -> Result<(), ClassicError> {
        if !self.speaks_classic(id) {
            return Ok(());
        }
        self.check_generation(now, id, generation)
    }

    fn check_generation(
        &mut self,
        now: Tick,
        id: &MemberId,
        generation: i32,
    ) -> Result<(), ClassicError> {
        match self.members.get_mut(id) {
            None => Err(ClassicError::UnknownMember),
            Some(member) if member.epoch != generation => Err(ClassicError::IllegalGeneration),
            Some(member) => {
                member.alive(now);
                Ok(())
            }
        }
    }

    /// Members leave. One result for each, in order.
    pub(crate) fn mixed_leave(
        &mut self,
        env: Env<'_>,
        leave: &ClassicLeave,
        out: &mut Vec<Output>,
    ) -> Vec<Result<(), ClassicError>> {
        let mut gone = Vec::new();
        let mut results = Vec::with_capacity(leave.members.len());
        for (member, instance) in &leave.members {
            let who = self.who_leaves(member.as_ref(), instance.as_ref());
            results.push(match who {
                Ok(id) if gone.contains(&id) => Err(ClassicError::UnknownMember),
                Ok(id) if self.promised.remove(&id).is_some() => Ok(()),
                Ok(id) => {
                    gone.push(id);
                    Ok(())
                }
                Err(error) => Err(error),
            });
        }
        self.expel(env, &gone, out);
        results
    }

    fn who_leaves(
        &self,
        member: Option<&MemberId>,
        instance: Option<&String>,
    ) -> Result<MemberId, ClassicError> {
        let instance = instance.filter(|i| !i.is_empty());
        let holder = instance.and_then(|i| self.instances.get(i));
        let id = match (instance, holder, member) {
            (Some(_), Some(holder), Some(id)) if holder != id => {
                return Err(ClassicError::FencedInstance);
            }
            (Some(_), Some(holder), _) => holder,
            (None, _, Some(id)) => id,
            _ => return Err(ClassicError::UnknownMember),
        };
        if self.speaks_classic(id) || (instance.is_none() && self.promised.contains_key(id)) {
            return Ok(id.clone());
        }
        Err(ClassicError::UnknownMember)
    }
}
