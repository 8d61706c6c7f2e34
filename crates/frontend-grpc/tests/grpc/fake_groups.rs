//! A group of the broker in memory: who is a member, what each may own, and what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use varve_broker_api::*;
use varve_types::{ErrorKind, MemberId, Offset, PartitionId, TopicName, TopicPartition};

#[derive(Debug, Default)]
pub struct Member {
    pub epoch: i32,
    pub topics: Vec<TopicName>,
    pub owned: BTreeSet<TopicPartition>,
}

#[derive(Debug, Default)]
pub struct Group {
    pub epoch: i32,
    pub members: BTreeMap<MemberId, Member>,
    pub offsets: BTreeMap<TopicPartition, Offset>,
}

impl Group {
    /// What a member may own now: its share, less what others have not given up.
    pub fn may_own(
        &self,
        member: &MemberId,
        partitions: impl Fn(&TopicName) -> usize,
    ) -> BTreeSet<TopicPartition> {
        let index = self.members.keys().position(|m| m == member).unwrap();
        let mut share = BTreeSet::new();
        for topic in &self.members[member].topics {
            let count = partitions(topic);
            for n in (0..count).filter(|n| n % self.members.len() == index) {
                let tp = TopicPartition::new(topic.clone(), PartitionId(i32::try_from(n).unwrap()));
                let held = self
                    .members
                    .iter()
                    .any(|(id, m)| id != member && m.owned.contains(&tp));
                if !held {
                    share.insert(tp);
                }
            }
        }
        share
    }
}

pub fn reply(member_epoch: i32, assignment: Option<Vec<TopicPartition>>) -> HeartbeatReply {
    HeartbeatReply {
        member_epoch,
        assignment,
        heartbeat_interval: Duration::from_secs(2),
        session_timeout: Duration::from_secs(30),
    }
}

pub fn unknown() -> Error {
    Error::new(ErrorKind::UnknownMember, "not a member")
}

pub fn no_group() -> Error {
    Error::new(ErrorKind::GroupNotFound, "no such group")
}
