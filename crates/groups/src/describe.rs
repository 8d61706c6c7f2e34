//! Groups as operators see them. Reads only.

use crate::group::Group;
use crate::{GroupDescription, GroupListing, GroupState, MemberDescription, Tick};

impl Group {
    pub(crate) fn state(&self) -> GroupState {
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
            members: self.members.len(),
        }
    }

    pub(crate) fn describe(&self, now: Tick) -> GroupDescription {
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
            })
            .collect();
        GroupDescription {
            group: self.name.clone(),
            state: self.state(),
            group_epoch: self.epoch,
            assignment_epoch: self.epoch,
            assignor: self.assignor.name(),
            members,
        }
    }
}
