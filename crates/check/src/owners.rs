//! Who owned which partition in a group, by what the members themselves wrote down.

use std::collections::{BTreeSet, HashMap};

use crate::verdict::{Findings, Kind};

#[derive(Debug, Default)]
struct Owned {
    by: BTreeSet<u32>,
    /// When each member came to own it last.
    since: HashMap<u32, u64>,
}

impl Owned {
    /// Another member owns it, and this one does not.
    fn is_foreign(&self, member: u32) -> bool {
        !self.by.is_empty() && !self.by.contains(&member)
    }
}

/// A commit of a member, from its call to its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committer {
    member: u32,
    /// When it was called.
    at: u64,
    /// Another member owned the partition at the call.
    foreign: bool,
}

/// The owners of every partition of every group. Time is the number of the event.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    owned: HashMap<(String, i32), Owned>,
    held: HashMap<u32, BTreeSet<(String, i32)>>,
}

impl Owners {
    pub fn own(
        &mut self,
        (line, at): (u64, u64),
        group: String,
        member: u32,
        partition: i32,
        findings: &mut Findings,
    ) {
        let key = (group, partition);
        let owned = self.owned.entry(key.clone()).or_default();
        if let Some(other) = owned.by.iter().find(|other| **other != member) {
            findings.add(Kind::DoubleOwnership, || {
                let group = &key.0;
                format!(
                    "line {line}: group {group}, partition {partition}: assigned to member \
                     {member} while {other} still owns it"
                )
            });
        }
        owned.by.insert(member);
        owned.since.insert(member, at);
        self.held.entry(member).or_default().insert(key);
    }

    pub fn disown(&mut self, group: String, member: u32, partition: i32) {
        let key = (group, partition);
        if let Some(owned) = self.owned.get_mut(&key) {
            owned.by.remove(&member);
        }
        if let Some(held) = self.held.get_mut(&member) {
            held.remove(&key);
        }
    }

    pub fn gone(&mut self, member: u32) {
        for key in self.held.remove(&member).unwrap_or_default() {
            if let Some(owned) = self.owned.get_mut(&key) {
                owned.by.remove(&member);
            }
        }
    }

    /// A member calls for a commit.
    pub fn commit(&self, at: u64, key: &(String, i32), member: u32) -> Committer {
        let foreign = self
            .owned
            .get(key)
            .is_some_and(|owned| owned.is_foreign(member));
        Committer {
            member,
            at,
            foreign,
        }
    }

    /// The commit of a member was accepted.
    pub fn accepted(
        &self,
        line: u64,
        key: &(String, i32),
        committer: Committer,
        findings: &mut Findings,
    ) {
        let member = committer.member;
        let Some(owned) = self.owned.get(key).filter(|owned| owned.is_foreign(member)) else {
            return;
        };
        // It may have owned the partition for a moment in between.
        let meanwhile = owned
            .since
            .get(&member)
            .is_some_and(|since| *since > committer.at);
        if committer.foreign && !meanwhile {
            findings.add(Kind::ZombieCommit, || {
                let ((group, partition), owners) = (key, &owned.by);
                format!("line {line}: group {group}, partition {partition}: member {member}, while {owners:?} owned it")
            });
        }
    }
}
