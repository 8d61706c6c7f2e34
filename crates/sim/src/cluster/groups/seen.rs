//! What is known of the group from outside: what became durable in `__consumer_offsets`, in its order, and what
//! members were told.

use std::collections::{BTreeMap, BTreeSet};

use varve_groups::codec::{self, Key};
use varve_types::ProducerId;

use super::super::txn::KeyValue;

/// A commit that is durable.
#[derive(Debug, Clone, Copy)]
struct Commit {
    place: u64,
    partition: i32,
    /// Of the transaction that it belongs to.
    producer: Option<ProducerId>,
}

/// A member, as the log has it.
#[derive(Debug, Clone, Default)]
struct Member {
    epoch: i32,
    granted: BTreeSet<i32>,
    /// Epochs at which it was granted what it holds.
    since: BTreeMap<i32, i32>,
}

/// What is known.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Seen {
    places: u64,
    /// By serial number, which is the offset.
    commits: BTreeMap<u64, Commit>,
    members: BTreeMap<String, Member>,
    /// As the group's own record has it, which is not written with every change.
    group_epoch: i32,
    /// What a member was ever granted, with the epoch it had then.
    granted: BTreeSet<(String, i32, i32)>,
    /// Last epoch each member was told.
    told: BTreeMap<usize, i32>,
    /// Place of the newest commit of each partition that somebody was told of.
    acknowledged: BTreeMap<i32, u64>,
}

impl Seen {
    /// Records of `__consumer_offsets` are committed, of the open transaction of that producer if there is one.
    pub(in crate::cluster) fn durable(
        &mut self,
        records: &[KeyValue],
        producer: Option<ProducerId>,
    ) -> Result<(), String> {
        for (key, value) in records {
            let key = codec::decode_any_key(key).map_err(|e| e.to_string())?;
            match (key, value.as_deref()) {
                (Key::Offset(_, at), Some(value)) => {
                    let committed = codec::decode_value(value).map_err(|e| e.to_string())?;
                    self.committed(
                        at.partition.0,
                        committed.offset.get() as u64,
                        &committed.metadata,
                        producer,
                    )?;
                }
                (Key::Offset(..), None) => {
                    return Err("G3: an offset was removed without a request".to_owned());
                }
                (Key::Member(_, id), value) => {
                    let record = value
                        .map(codec::decode_member)
                        .transpose()
                        .map_err(|e| e.to_string())?;
                    self.member(id.as_str(), record)?;
                }
                (Key::Group(_), Some(value)) => {
                    let record = codec::decode_group(value).map_err(|e| e.to_string())?;
                    if record.epoch < self.group_epoch {
                        return Err(format!(
                            "G5: the group's epoch goes from {} to {}",
                            self.group_epoch, record.epoch
                        ));
                    }
                    self.group_epoch = record.epoch;
                }
                // With members and offsets gone it is another group that comes next.
                (Key::Group(_), None) => self.group_epoch = 0,
                (Key::Classic(_), _) => {
                    return Err("no member uses the classic protocol here".to_owned());
                }
            }
        }
        Ok(())
    }

    fn committed(
        &mut self,
        partition: i32,
        serial: u64,
        who: &str,
        producer: Option<ProducerId>,
    ) -> Result<(), String> {
        self.places += 1;
        let commit = Commit {
            place: self.places,
            partition,
            producer,
        };
        // One that was asked for twice counts from its later place.
        self.commits.insert(serial, commit);
        // Who committed, and with which epoch, is in the words of the commit.
        let Some((id, epoch)) = who.split_once('/') else {
            return Ok(());
        };
        let member = self.members.get(id);
        let may = |member: &Member, epoch: i32| {
            let since = member.since.get(&partition);
            epoch == member.epoch || since.is_some_and(|s| *s <= epoch && epoch < member.epoch)
        };
        match (member, epoch.parse::<i32>()) {
            (Some(member), Ok(epoch)) if may(member, epoch) => Ok(()),
            _ => Err(format!(
                "G4: {id} commits partition {partition} with epoch {epoch}, but has {member:?}"
            )),
        }
    }

    fn member(&mut self, id: &str, record: Option<codec::MemberRecord>) -> Result<(), String> {
        let Some(record) = record else {
            self.members.remove(id);
            return Ok(());
        };
        let granted: BTreeSet<i32> = record
            .granted
            .iter()
            .flat_map(|(_, numbers)| numbers)
            .copied()
            .collect();
        let before = self.members.get(id);
        if let Some(before) = before
            && record.epoch < before.epoch
        {
            return Err(format!(
                "G5: the epoch of {id} goes from {} to {}",
                before.epoch, record.epoch
            ));
        }
        let held = |partition: &i32| before.and_then(|m| m.since.get(partition).copied());
        let since = granted
            .iter()
            .map(|p| (*p, held(p).unwrap_or(record.epoch)))
            .collect();
        for partition in &granted {
            self.granted
                .insert((id.to_owned(), record.epoch, *partition));
        }
        let member = Member {
            epoch: record.epoch,
            granted,
            since,
        };
        self.members.insert(id.to_owned(), member);
        Ok(())
    }

    /// G1 and G5: a member hears what it may own.
    pub(super) fn told(
        &mut self,
        number: usize,
        epoch: i32,
        owns: Option<&BTreeSet<i32>>,
    ) -> Result<(), String> {
        let id = format!("m{number}");
        let before = self.told.insert(number, epoch).unwrap_or(0);
        if epoch < before {
            return Err(format!("G5: {id} gets epoch {epoch} after {before}"));
        }
        for partition in owns.into_iter().flatten() {
            if !self
                .granted
                .iter()
                .any(|(who, _, what)| *who == id && what == partition)
            {
                return Err(format!(
                    "G1: {id} was assigned {partition} before that was durable"
                ));
            }
            let holds = |m: &Member| m.granted.contains(partition);
            if !self.members.get(&id).is_some_and(holds) {
                // It is expelled by now, and will be told.
                continue;
            }
            let other = self.members.iter().find(|(who, m)| **who != id && holds(m));
            if let Some((other, _)) = other {
                return Err(format!(
                    "G1: {id} was assigned {partition}, which {other} owns"
                ));
            }
        }
        Ok(())
    }

    /// A member begins anew.
    pub(super) fn forget(&mut self, number: usize) {
        self.told.remove(&number);
    }

    /// Somebody is told that a commit is durable.
    pub(in crate::cluster) fn acknowledged(&mut self, serial: u64) -> Result<(), String> {
        let Some(commit) = self.commits.get(&serial) else {
            return Err(format!(
                "G3: commit {serial} was acknowledged but is not in the log"
            ));
        };
        let newest = self.acknowledged.entry(commit.partition).or_default();
        *newest = (*newest).max(commit.place);
        Ok(())
    }

    /// What a fetch that begins now must return, or something newer.
    pub(super) fn floor(&self) -> BTreeMap<i32, u64> {
        self.acknowledged.clone()
    }

    /// G3: what a fetch returned. Returns the transactions of which it shows offsets.
    pub(super) fn fetched(
        &self,
        floor: &BTreeMap<i32, u64>,
        stable: &BTreeMap<i32, u64>,
        unstable: &[i32],
    ) -> Result<Vec<u64>, String> {
        let mut of_transactions = Vec::new();
        for (partition, serial) in stable {
            let Some(commit) = self.commits.get(serial) else {
                return Err(format!(
                    "G3: offset {serial} of partition {partition} was never durable"
                ));
            };
            let least = floor.get(partition).copied().unwrap_or(0);
            if commit.place < least {
                return Err(format!(
                    "G3: offset {serial} of partition {partition} is at place {}, but one at \
                     {least} was acknowledged",
                    commit.place
                ));
            }
            if commit.producer.is_some() {
                of_transactions.push(*serial);
            }
        }
        let missing = floor
            .keys()
            .find(|p| !stable.contains_key(p) && !unstable.contains(p));
        match missing {
            Some(partition) => Err(format!(
                "G3: the acknowledged offset of partition {partition} is gone"
            )),
            None => Ok(of_transactions),
        }
    }

    /// Whether every member has the same epoch.
    pub(in crate::cluster) fn stable(&self) -> bool {
        let newest = self.members.values().map(|m| m.epoch).max();
        self.members.values().all(|m| Some(m.epoch) == newest)
    }

    /// G2: everything is granted, to somebody.
    pub(in crate::cluster) fn covers(&self, partitions: i32) -> bool {
        let granted: BTreeSet<i32> = self
            .members
            .values()
            .flat_map(|m| &m.granted)
            .copied()
            .collect();
        granted.len() == partitions as usize && self.stable()
    }

    /// What is committed in the end, given which transactions were: the last record in the order of the log counts.
    pub(in crate::cluster) fn table(
        &self,
        committed: impl Fn(ProducerId, u64) -> bool,
    ) -> BTreeMap<i32, u64> {
        let mut newest: BTreeMap<i32, (u64, u64)> = BTreeMap::new();
        for (serial, commit) in &self.commits {
            let counts = |producer| committed(producer, *serial);
            if commit.producer.is_none_or(counts) {
                let entry = newest.entry(commit.partition).or_default();
                *entry = (*entry).max((commit.place, *serial));
            }
        }
        newest
            .into_iter()
            .map(|(partition, (_, serial))| (partition, serial))
            .collect()
    }
}
