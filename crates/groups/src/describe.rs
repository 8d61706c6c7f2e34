//! Groups as operators see them. Reads only.

use varve_types::{TopicName, TopicPartition};

use crate::classic::{Classic, assignment};
use crate::codec::{self, CONSUMER_PROTOCOL};
use crate::coordinator::Coordinator;
use crate::group::Group;
use crate::{
    ClassicListing, ClassicState, GroupDescription, GroupListing, GroupState, MemberDescription,
    Subscription, Survey, Tick,
};

impl Coordinator {
    pub(crate) fn survey(&self, most: usize) -> Survey {
        let mut survey = Survey::default();
        for group in self.groups.values() {
            *survey.states.entry(group.state()).or_default() += 1;
        }
        let used = self.groups.values().filter(|g| g.member_count() > 0);
        let unused = self.groups.values().filter(|g| g.member_count() == 0);
        let told = used.chain(unused).take(most);
        let told = told.map(|group| (group.listing(), group.offsets.read(&[])));
        survey.groups = told.collect();
        survey
    }
}

impl Classic {
    /// What a member wants and has, if its group is one of consumers and both can be read.
    fn read(&self, metadata: &[u8], assignment: &[u8]) -> (Vec<TopicName>, Vec<TopicPartition>) {
        if self.protocol_type != CONSUMER_PROTOCOL {
            return (Vec::new(), Vec::new());
        }
        let topics = codec::decode_subscription(metadata).map(|s| s.topics);
        let owned = codec::decode_assignment(assignment).map(|a| a.partitions);
        let owned = codec::partition_set(&owned.unwrap_or_default());
        (topics.unwrap_or_default(), owned.into_iter().collect())
    }
}

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

    /// Nobody was ever a member: somebody keeps offsets by this name.
    fn is_simple(&self) -> bool {
        self.classic.is_none() && self.members.is_empty() && self.epoch == 0
    }

    pub(crate) fn listing(&self) -> GroupListing {
        GroupListing {
            group: self.name.clone(),
            state: self.state(),
            members: self.member_count(),
            simple: self.is_simple(),
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
            .map(|(id, m)| {
                let metadata = m.metadata(&classic.protocol).to_vec();
                let (topics, owned) = classic.read(&metadata, &m.assignment);
                MemberDescription {
                    member: id.clone(),
                    instance: m.instance.clone(),
                    client_id: m.client_id.clone(),
                    peer: m.peer,
                    member_epoch: classic.generation,
                    rack: String::new(),
                    subscription: Subscription {
                        topics,
                        ..Subscription::default()
                    },
                    target: owned.clone(),
                    owned,
                    since_heartbeat_ms: now.since(m.heard),
                    classic: Some((metadata, m.assignment.clone())),
                }
            })
            .collect();
        GroupDescription {
            group: self.name.clone(),
            state: self.state(),
            group_epoch: classic.generation,
            assignment_epoch: classic.generation,
            assignor: "",
            members,
            simple: false,
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
                rack: m.rack.clone(),
                subscription: m.subscription.clone(),
                owned: m.granted.iter().cloned().collect(),
                target: m.target.iter().cloned().collect(),
                since_heartbeat_ms: now.since(m.heard),
                classic: m.classic.as_ref().map(|side| {
                    let metadata = side.first().1;
                    let version = codec::answer_version(metadata);
                    (metadata.to_vec(), assignment(version, &m.assignment()))
                }),
            })
            .collect();
        GroupDescription {
            group: self.name.clone(),
            state: self.state(),
            group_epoch: self.epoch,
            assignment_epoch: self.epoch,
            assignor: self.assignor.name(),
            members,
            simple: self.is_simple(),
            classic: None,
        }
    }
}
