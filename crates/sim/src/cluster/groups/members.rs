//! Members of the group: they speak often enough, or fall silent for too long; they own what they are told, give up
//! what they are told, and commit offsets, sometimes with an epoch that is over. Some leave, and some die.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::{ErrorKind, NodeId};

use super::super::world::{Addr, Event, Message, World};
use super::{Ask, Group, Reply};

/// First number of a member, as messages name it.
pub(in crate::cluster) const MEMBERS: usize = 100_000;
/// Members at a time.
const COUNT: usize = 3;
/// After so long nobody waits for an answer any more, milliseconds.
const TIMEOUT_MS: u64 = 250;

/// A question that is not answered.
#[derive(Debug, Clone)]
struct Asked {
    request: u64,
    ask: Ask,
    sent: u64,
    /// What a fetch must return at least.
    floor: BTreeMap<i32, u64>,
}

/// A member.
#[derive(Debug)]
pub(in crate::cluster) struct Member {
    epoch: i32,
    owned: BTreeSet<i32>,
    /// An epoch it had, and a partition it owned then.
    former: Option<(i32, i32)>,
    asked: Option<Asked>,
    next_request: u64,
    coordinator: Option<NodeId>,
    silent_until: u64,
    committed_since_heal: bool,
    fetched_since_heal: bool,
}

impl Group {
    fn join(&mut self) -> usize {
        let number = MEMBERS + self.next_member;
        self.next_member += 1;
        let member = Member {
            epoch: 0,
            owned: BTreeSet::new(),
            former: None,
            asked: None,
            next_request: 0,
            coordinator: None,
            silent_until: 0,
            committed_since_heal: false,
            fetched_since_heal: false,
        };
        self.members.insert(number, member);
        number
    }
}

impl World {
    pub(in crate::cluster) fn begin_members(&mut self) {
        for _ in 0..COUNT {
            let number = self.group.join();
            self.at(400, Event::Client(number));
        }
    }

    /// Whether the group has everything that an end of the run waits for (V1).
    pub(in crate::cluster) fn group_is_content(&self) -> bool {
        if !self.knobs.transactions {
            return true;
        }
        let members = &self.group.members;
        let owned: usize = members.values().map(|m| m.owned.len()).sum();
        self.group.seen.covers(self.knobs.partitions)
            && owned == self.knobs.partitions as usize
            && members.values().all(|m| m.fetched_since_heal)
            && members.values().any(|m| m.committed_since_heal)
    }

    /// For people.
    pub(in crate::cluster) fn group_state(&self) -> String {
        format!("{:?}", self.group)
    }

    pub(in crate::cluster) fn member_acts(&mut self, number: usize) {
        let (now, healed) = (self.now, self.healed);
        if !self.group.members.contains_key(&number) {
            return;
        }
        let every = 10 + self.rng.below(40);
        self.at(every, Event::Client(number));
        let what = self.rng.below(100);
        let old = self.rng.below(8) == 0;
        let guess = NodeId(1 + self.rng.below(self.knobs.nodes as u64) as i32);
        if !healed && self.rng.below(200) == 0 {
            return self.member_fails(number);
        }
        let serial = self.group.serial();
        let Group { members, seen, .. } = &mut self.group;
        let Some(member) = members.get_mut(&number).filter(|m| m.silent_until <= now) else {
            return;
        };
        if member
            .asked
            .as_ref()
            .is_some_and(|a| a.sent + TIMEOUT_MS >= now)
        {
            return;
        }
        if member.asked.take().is_some() {
            member.coordinator = None;
        }
        let own = member
            .owned
            .first()
            .map(|partition| (member.epoch, *partition));
        let commit = if old { member.former } else { own };
        let ask = match (what, commit) {
            (0..25, Some((epoch, partition))) if member.epoch > 0 => Ask::Commit {
                member: number,
                epoch,
                partition,
                serial,
            },
            (25..40, _) => Ask::Offsets,
            _ => Ask::Heartbeat {
                member: number,
                epoch: member.epoch,
                owned: member.owned.iter().copied().collect(),
                leave: false,
            },
        };
        member.next_request += 1;
        let request = member.next_request;
        let asked = Asked {
            request,
            ask: ask.clone(),
            sent: now,
            floor: seen.floor(),
        };
        member.asked = Some(asked);
        let to = Addr::Node(member.coordinator.unwrap_or(guess));
        self.send(Addr::Client(number), to, Message::AskGroup { request, ask });
    }

    /// It dies, leaves, or says nothing for too long.
    fn member_fails(&mut self, number: usize) {
        let how = self.rng.below(3);
        let silent = self.now + 200 + self.rng.below(900);
        let Some(member) = self.group.members.get_mut(&number) else {
            return;
        };
        if how == 0 {
            member.silent_until = silent;
            return self.count("member silent for too long");
        }
        let (epoch, coordinator) = (member.epoch, member.coordinator);
        self.group.members.remove(&number);
        if let (1, Some(coordinator)) = (how, coordinator) {
            let ask = Ask::Heartbeat {
                member: number,
                epoch,
                owned: Vec::new(),
                leave: true,
            };
            let message = Message::AskGroup { request: 0, ask };
            self.send(Addr::Client(number), Addr::Node(coordinator), message);
        }
        self.count(if how == 1 {
            "member leaves"
        } else {
            "member dies"
        });
        let another = self.group.join();
        let after = self.rng.below(300);
        self.at(after, Event::Client(another));
    }

    pub(in crate::cluster) fn member_hears(
        &mut self,
        number: usize,
        message: Message,
    ) -> Result<(), String> {
        let Message::GroupTold { request, reply } = message else {
            return Ok(());
        };
        let healed = self.healed;
        let Group { members, seen, .. } = &mut self.group;
        let Some(member) = members.get_mut(&number) else {
            return Ok(());
        };
        let Some(asked) = member.asked.take_if(|a| a.request == request) else {
            return Ok(());
        };
        match (asked.ask, reply) {
            (Ask::Heartbeat { .. }, Reply::Heartbeat(reply)) => {
                if let Some(partition) = member.owned.first() {
                    member.former = Some((member.epoch, *partition));
                }
                member.epoch = reply.member_epoch;
                let told = reply
                    .assignment
                    .map(|list| list.iter().map(|p| p.partition.0).collect());
                seen.told(number, reply.member_epoch, told.as_ref())?;
                if let Some(owned) = told {
                    member.owned = owned;
                }
            }
            (
                Ask::Heartbeat { .. },
                Reply::Failed(ErrorKind::FencedMemberEpoch | ErrorKind::UnknownMember, _),
            ) => {
                seen.forget(number);
                member.epoch = 0;
                member.owned.clear();
            }
            (Ask::Commit { serial, .. }, Reply::Committed) => {
                member.committed_since_heal |= healed;
                seen.acknowledged(serial)?;
            }
            (Ask::Offsets, Reply::Offsets { stable, unstable }) => {
                member.fetched_since_heal |= healed;
                let shown = seen.fetched(&asked.floor, &stable, &unstable)?;
                for serial in shown {
                    self.transactions.seen.offset_shown(serial)?;
                }
            }
            (_, Reply::Failed(_, hint)) => member.coordinator = hint,
            (ask, reply) => {
                return Err(format!("member {number} sends {ask:?} and gets {reply:?}"));
            }
        }
        Ok(())
    }
}
