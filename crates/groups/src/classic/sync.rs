//! Assignments of a classic group, heartbeats, and who may commit.

use std::collections::BTreeMap;

use varve_types::{MemberId, limits};

use crate::classic::state::{Classic, Step, Wanted};
use crate::classic::{ClassicError, ClassicState, ClassicSync, ClassicSynced};
use crate::{Failure, Reply, Tick, Ticket};

impl Classic {
    /// One sync. Answered in the step, or held until the leader's assignment is durable. Returns whether
    /// it waits.
    ///
    /// # Errors
    /// The refusal; nothing was changed.
    pub(crate) fn sync(
        &mut self,
        step: &mut Step<'_>,
        ticket: Ticket,
        sync: ClassicSync,
    ) -> Result<bool, ClassicError> {
        self.check_member(&sync.member, sync.instance.as_ref())?;
        if !self.has_generation(&sync.member, sync.generation) {
            return Err(ClassicError::IllegalGeneration);
        }
        let differs = |given: &Option<String>, own: &str| given.as_ref().is_some_and(|g| g != own);
        if self.state == ClassicState::PreparingRebalance {
            return Err(ClassicError::RebalanceInProgress);
        }
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(ClassicError::InconsistentProtocol);
        }
        if self.state == ClassicState::Stable {
            let reply = self.synced(&sync.member);
            if let Some(peer) = self.members.get_mut(&sync.member) {
                peer.alive(step.now);
                peer.synced = true;
            }
            if self.members.values().all(|m| m.synced) {
                self.until = None;
            }
            step.answer(ticket, reply);
            return Ok(false);
        }
        let leads = self.leader.as_ref() == Some(&sync.member);
        if leads && !self.committing {
            self.check_size(&sync)?;
        }
        if let Some(peer) = self.members.get_mut(&sync.member) {
            peer.alive(step.now);
            if let Some(older) = peer.syncing.replace(ticket) {
                step.refuse(older, ClassicError::RebalanceInProgress);
            }
        }
        // What the leader brought first is being written: a repeat changes nothing.
        if leads && !self.committing {
            let mut given: BTreeMap<MemberId, Vec<u8>> = sync.assignments.into_iter().collect();
            for (id, member) in &mut self.members {
                member.assignment = given.remove(id).unwrap_or_default();
            }
            self.committing = true;
            self.wanted = Wanted::Assignment;
        }
        Ok(true)
    }

    /// The group is one record, which has to fit into a batch.
    fn check_size(&self, sync: &ClassicSync) -> Result<(), ClassicError> {
        let given: usize = sync.assignments.iter().map(|(_, a)| a.len()).sum();
        let said = self
            .members
            .values()
            .map(|m| m.metadata(&self.protocol).len());
        let (size, most) = (given + said.sum::<usize>(), limits::GROUP_RECORD_MAX_BYTES);
        if size <= most {
            return Ok(());
        }
        let text = format!(
            "the subscriptions and assignments of the {} members of group {} have {size} bytes; \
             the limit is {most}; nothing was assigned; subscribe to fewer topics, or spread the \
             members over several groups",
            self.members.len(),
            sync.group
        );
        let failure = Failure::invalid("assignments", text);
        Err(ClassicError::Failed(failure.with("group", &sync.group)))
    }

    fn synced(&self, id: &MemberId) -> Reply {
        let member = self.members.get(id);
        Reply::ClassicSynced(ClassicSynced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: member.map(|m| m.assignment.clone()).unwrap_or_default(),
        })
    }

    /// One heartbeat.
    ///
    /// # Errors
    /// `RebalanceInProgress` asks the member to join again, and counts as life; the other refusals do not.
    pub(crate) fn heartbeat(
        &mut self,
        step: &Step<'_>,
        id: &MemberId,
        generation: i32,
        instance: Option<&String>,
    ) -> Result<(), ClassicError> {
        self.check_member(id, instance)?;
        if !self.has_generation(id, generation) {
            return Err(ClassicError::IllegalGeneration);
        }
        if let Some(peer) = self.members.get_mut(id) {
            peer.alive(step.now);
        }
        if self.state == ClassicState::PreparingRebalance {
            return Err(ClassicError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether a member may commit in this generation. Counts as life.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn commits(
        &mut self,
        now: Tick,
        id: &MemberId,
        generation: i32,
    ) -> Result<(), ClassicError> {
        self.check_member(id, None)?;
        if !self.has_generation(id, generation) {
            return Err(ClassicError::IllegalGeneration);
        }
        // Members of a generation that begins have not been told what they own.
        if self.state == ClassicState::CompletingRebalance {
            return Err(ClassicError::RebalanceInProgress);
        }
        if let Some(peer) = self.members.get_mut(id) {
            peer.alive(now);
        }
        Ok(())
    }
}
