//! Groups as operators see them. Reads only.

use crate::classic::Classic;
use crate::group::Group;
use crate::{
    ClassicListing, ClassicState, GroupDescription, GroupListing, GroupState, MemberDescription,
    Subscription, Tick,
};

impl Group {
    pub(crate) fn state(&self) -> GroupState {
        if let Some(classic) = &self.classic {
            return match classic.state {
                ClassicState::Empty => GroupState::Empty,
                ClassicState::Stable => GroupState::Stable,
                ClassicState::PreparingRebalance | ClassicState::CompletingRebalance => {
                    GroupState::Reconciling
                }
            };
        }
        match (self.members.is_empty(), self.is_stable()) {
            (true, _) => GroupState::Empty,
            (false, true) => GroupState::Stable,
            (false, false) => GroupState::Reconciling,
        }
    }

    pub(crate) fn listing(&self) -> GroupListing {
        GroupListing {
            group: self.name.clone(),
            state: self.state(),
            members: self.member_count(),
            classic: self.classic_listing(),
        }
    }

    fn classic_listing(&self) -> Option<ClassicListing> {
        self.classic.as_ref().map(|classic| ClassicListing {
            state: classic.state,
            protocol_type: classic.protocol_type.clone(),
            protocol: classic.protocol.clone(),
            leader: classic.leader.clone(),
        })
    }

    fn describe_classic(&self, classic: &Classic, now: Tick) -> GroupDescription {
        let members = classic
            .members
            .iter()
            .map(|(id, m)| MemberDescription {
                member: id.clone(),
                instance: m.instance.clone(),
                client_id: m.client_id.clone(),
                peer: m.peer,
                member_epoch: classic.generation,
                subscription: Subscription::default(),
                owned: Vec::new(),
                target: Vec::new(),
                since_heartbeat_ms: now.since(m.heard),
                classic: Some((m.metadata(&classic.protocol).to_vec(), m.assignment.clone())),
            })
            .collect();
        GroupDescription {
            group: self.name.clone(),
            state: self.state(),
            group_epoch: classic.generation,
            assignment_epoch: classic.generation,
            assignor: "",
            members,
            classic: self.classic_listing(),
        }
    }

    pub(crate) fn describe(&self, now: Tick) -> GroupDescription {
        if let Some(classic) = &self.classic {
            return self.describe_classic(classic, now);
        }
        let members = self
            .members
            .iter()
            .map(|(id, m)| MemberDescription {
                member: id.clone(),
                instance: m.instance.clone(),
                client_id: m.client_id.clone(),
                peer: m.peer,
                member_epoch: m.epoch,
                subscription: m.subscription.clone(),
                owned: m.granted.iter().cloned().collect(),
                target: m.target.iter().cloned().collect(),
                since_heartbeat_ms: now.since(m.heard),
                classic: None,
            })
            .collect();
        GroupDescription {
            group: self.name.clone(),
            state: self.state(),
            group_epoch: self.epoch,
            assignment_epoch: self.epoch,
            assignor: self.assignor.name(),
            members,
            classic: None,
        }
    }
}
