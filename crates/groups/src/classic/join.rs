//! Joining and leaving a classic group.

use varve_types::{MemberId, limits};

use crate::classic::members::Peer;
use crate::classic::state::{Classic, Step, Wanted};
use crate::classic::{ClassicError, ClassicJoin, ClassicState};
use crate::{Failure, Reply, Ticket};

impl Classic {
    /// One join. Answered in the step, or held until the generation begins. Returns the id of the member
    /// that waits.
    ///
    /// # Errors
    /// The refusal; nothing was changed, but for an id that was promised.
    pub(crate) fn join(
        &mut self,
        step: &mut Step<'_>,
        ticket: Ticket,
        join: &ClassicJoin,
    ) -> Result<Option<MemberId>, ClassicError> {
        let config = step.config;
        let limits = config.session_timeout_min_ms..=config.session_timeout_max_ms;
        if !limits.contains(&join.session_timeout_ms) {
            return Err(ClassicError::InvalidSessionTimeout);
        }
        if !self.supports(join) {
            return Err(ClassicError::InconsistentProtocol);
        }
        self.check_said(join)?;
        let joined = match &join.member {
            None => self.join_unknown(step, ticket, join)?,
            Some(id) => self.join_known(step, ticket, id, join)?,
        };
        self.try_begin_generation(step);
        Ok(joined)
    }

    /// What members say stays in memory: of all members together it is bounded.
    fn check_said(&self, join: &ClassicJoin) -> Result<(), ClassicError> {
        let others = self.members.iter();
        let others = others.filter(|(id, _)| join.member.as_ref() != Some(*id));
        let said = others.map(|(_, member)| member.said()).sum::<usize>();
        let all = said
            + join
                .protocols
                .iter()
                .map(|(_, said)| said.len())
                .sum::<usize>();
        if all <= limits::GROUP_MEMBERS_MAX_BYTES {
            return Ok(());
        }
        let text = format!(
            "the protocol metadata of the {} members of group {} would have {all} bytes in total; the limit is {}; the \
             member was not added; subscribe to fewer topics, or spread the members over several groups",
            self.members.len() + 1,
            join.group,
            limits::GROUP_MEMBERS_MAX_BYTES
        );
        let failure = Failure::invalid("protocols", text);
        Err(ClassicError::Failed(failure.with("group", &join.group)))
    }

    fn join_unknown(
        &mut self,
        step: &mut Step<'_>,
        ticket: Ticket,
        join: &ClassicJoin,
    ) -> Result<Option<MemberId>, ClassicError> {
        let id = join.proposed.clone();
        if self.members.contains_key(&id) || self.promised.contains_key(&id) {
            // The id was to be unique: this is a call that was repeated.
            return Err(ClassicError::MemberIdRequired(id));
        }
        let instance = join.instance.as_ref().filter(|i| !i.is_empty());
        if let Some(holder) = instance.and_then(|i| self.instances.get(i)).cloned() {
            return Ok(self.replace(step, ticket, &holder, join));
        }
        if self.members.len() + self.promised.len() >= step.config.group_max_size {
            return Err(ClassicError::GroupFull);
        }
        if instance.is_none() && join.require_known_member_id {
            let until = step.now.plus(join.session_timeout_ms);
            self.promised.insert(id.clone(), until);
            return Err(ClassicError::MemberIdRequired(id));
        }
        Ok(Some(self.add(step, ticket, id, join)))
    }

    fn join_known(
        &mut self,
        step: &mut Step<'_>,
        ticket: Ticket,
        id: &MemberId,
        join: &ClassicJoin,
    ) -> Result<Option<MemberId>, ClassicError> {
        let instance = join.instance.as_ref().filter(|i| !i.is_empty());
        if instance.is_none() && self.promised.contains_key(id) {
            return Ok(Some(self.add(step, ticket, id.clone(), join)));
        }
        self.check_member(id, instance)?;
        let leads = self.leader.as_ref() == Some(id);
        let same = self
            .members
            .get(id)
            .is_some_and(|m| m.protocols == join.protocols);
        let settled = match self.state {
            ClassicState::Empty | ClassicState::PreparingRebalance => false,
            // The answer to its join was lost.
            ClassicState::CompletingRebalance => same,
            ClassicState::Stable => same && !leads,
        };
        if settled {
            if let Some(peer) = self.members.get_mut(id) {
                peer.alive(step.now);
            }
            let reply = self.joined(id, false);
            step.answer(ticket, reply);
            return Ok(None);
        }
        self.prepare_rebalance(step);
        self.wait_to_join(step, ticket, id, join);
        Ok(Some(id.clone()))
    }

    fn add(
        &mut self,
        step: &mut Step<'_>,
        ticket: Ticket,
        id: MemberId,
        join: &ClassicJoin,
    ) -> MemberId {
        self.promised.remove(&id);
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        let peer = Peer::new(join, step.now);
        if let Some(instance) = &peer.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.members.insert(id.clone(), peer);
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        self.prepare_rebalance(step);
        self.write_name(&id);
        if let Some(gathering) = &mut self.gathering {
            gathering.grew = true;
        }
        self.wait_to_join(step, ticket, &id, join);
        id
    }

    /// The newest join of a member is the one that waits.
    fn wait_to_join(
        &mut self,
        step: &mut Step<'_>,
        ticket: Ticket,
        id: &MemberId,
        join: &ClassicJoin,
    ) {
        let Some(peer) = self.members.get_mut(id) else {
            return;
        };
        peer.says(join, step.now);
        if let Some(older) = peer.joining.replace(ticket) {
            step.refuse(older, ClassicError::RebalanceInProgress);
        }
        if self.members.len() == 1 {
            self.protocol_type.clone_from(&join.protocol_type);
        }
    }

    /// An instance that starts again takes its own place under a new id; the old id is fenced.
    fn replace(
        &mut self,
        step: &mut Step<'_>,
        ticket: Ticket,
        holder: &MemberId,
        join: &ClassicJoin,
    ) -> Option<MemberId> {
        let id = join.proposed.clone();
        let mut peer = self.members.remove(holder)?;
        for old in peer.joining.take().into_iter().chain(peer.syncing.take()) {
            step.refuse(old, ClassicError::FencedInstance);
        }
        if let Some(instance) = &peer.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        if self.leader.as_ref() == Some(holder) {
            self.leader = Some(id.clone());
        }
        let known = peer.metadata(&self.protocol).to_vec();
        peer.says(join, step.now);
        let unchanged = peer.metadata(&self.protocol) == known.as_slice();
        self.members.insert(id.clone(), peer);
        let stands =
            self.state == ClassicState::Stable && unchanged && self.vote() == self.protocol;
        if stands {
            // Told when the new id is durable: the next coordinator must know it.
            self.wanted = Wanted::Instance(ticket, id.clone());
            return Some(id);
        }
        self.prepare_rebalance(step);
        self.write_name(&id);
        if let Some(gathering) = &mut self.gathering {
            gathering.grew = true;
        }
        self.wait_to_join(step, ticket, &id, join);
        Some(id)
    }

    /// The log may know an instance under another id, and the next coordinator would fence the new one: a member
    /// is told its id when that is durable.
    fn write_name(&mut self, id: &MemberId) {
        let logged = self.written.is_some();
        let peer = self.members.get_mut(id);
        if let Some(peer) = peer.filter(|p| logged && p.instance.is_some()) {
            peer.naming = true;
            self.wanted = Wanted::Name(id.clone());
        }
    }

    /// A static member's id is durable: it can be told.
    pub(crate) fn named(&mut self, step: &mut Step<'_>, id: &MemberId) {
        if let Some(peer) = self.members.get_mut(id) {
            peer.naming = false;
        }
        self.try_begin_generation(step);
    }

    /// The record of a static member's id was refused: it joins again.
    pub(crate) fn not_named(&mut self, step: &mut Step<'_>, id: &MemberId, failure: &Failure) {
        let Some(peer) = self.members.get_mut(id) else {
            return;
        };
        peer.naming = false;
        if let Some(ticket) = peer.joining.take() {
            step.answer(ticket, Reply::Failed(failure.clone()));
        }
    }

    /// The answer to an instance that took its own place, now that this is durable.
    pub(crate) fn replaced(&self, id: &MemberId) -> Reply {
        if let Err(error) = self.check_member(id, None) {
            return Reply::ClassicFailed(error);
        }
        if self.state != ClassicState::Stable {
            return Reply::ClassicFailed(ClassicError::RebalanceInProgress);
        }
        let leads = self.leader.as_ref() == Some(id);
        self.joined(id, leads)
    }

    /// The record of an instance's new id was refused: everybody joins again.
    pub(crate) fn not_replaced(&mut self, step: &mut Step<'_>) {
        self.members_left(step);
    }

    /// One member leaves.
    ///
    /// # Errors
    /// It is not one, or another one has its place.
    pub(crate) fn leave(
        &mut self,
        step: &mut Step<'_>,
        member: Option<&MemberId>,
        instance: Option<&String>,
    ) -> Result<(), ClassicError> {
        let instance = instance.filter(|i| !i.is_empty());
        let holder = instance.map(|i| self.instances.get(i).cloned());
        let id = match (holder, member) {
            (None, None) | (Some(None), _) => return Err(ClassicError::UnknownMember),
            (Some(Some(holder)), Some(id)) if holder != *id => {
                return Err(ClassicError::FencedInstance);
            }
            (Some(Some(holder)), _) => holder,
            (None, Some(id)) => id.clone(),
        };
        if self.promised.remove(&id).is_some() {
            self.try_begin_generation(step);
            return Ok(());
        }
        if !self.members.contains_key(&id) {
            return Err(ClassicError::UnknownMember);
        }
        self.remove(step, &id);
        self.members_left(step);
        self.try_begin_generation(step);
        Ok(())
    }
}
