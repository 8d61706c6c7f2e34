//! Replay of `__consumer_offsets` into the groups of a coordinator that begins.
//!
//! Invariants: nothing that is read may stop it; a group that has passed from one protocol to the other is of the one
//! that its latest record says, whether or not what is left of the other is removed; a partition that two records claim
//! goes to the one that comes first in the log, because the other's member was never told (its answer waited for the
//! write that took the partition from the first, and that write is not there).

use std::collections::BTreeMap;

use varve_types::{GroupName, MemberId, TopicName, TopicPartition};

use crate::codec::{self, ClassicRecord, CodecError, GroupRecord, Key, MemberRecord};
use crate::coordinator::{Coordinator, env_of};
use crate::group::{Env, Group};
use crate::member::restored;
use crate::{Output, Tick};

/// What has been read of one group's membership.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    group: Option<GroupRecord>,
    classic: Option<ClassicRecord>,
    /// By member, with the place of its record in the log.
    members: BTreeMap<MemberId, (u64, MemberRecord)>,
    read: u64,
}

impl Coordinator {
    pub(crate) fn load(
        &mut self,
        now: Tick,
        key: &[u8],
        value: Option<&[u8]>,
        out: &mut Vec<Output>,
    ) {
        assert!(!self.loaded, "replay comes before Loaded");
        if let Err(error) = self.load_record(now, key, value) {
            out.push(Output::LoadSkipped { error });
        }
    }

    fn load_record(
        &mut self,
        now: Tick,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), CodecError> {
        match codec::decode_any_key(key)? {
            Key::Offset(name, partition) => {
                let committed = value.map(codec::decode_value).transpose()?;
                let topic = self.loading_topic(partition.topic);
                let partition = TopicPartition::new(topic, partition.partition);
                let group = self.loading_group(now, name);
                group.offsets.apply((partition, committed));
            }
            Key::Classic(name) => {
                let record = value.map(codec::decode_classic).transpose()?;
                self.loading.entry(name).or_default().classic = record;
            }
            Key::Group(name) => {
                let record = value.map(codec::decode_group).transpose()?;
                self.loading.entry(name).or_default().group = record;
            }
            Key::Member(name, id) => {
                let record = value.map(codec::decode_member).transpose()?;
                let loading = self.loading.entry(name).or_default();
                loading.read += 1;
                match record {
                    Some(record) => loading.members.insert(id, (loading.read, record)),
                    None => loading.members.remove(&id),
                };
            }
        }
        Ok(())
    }

    /// The same name, in memory once.
    fn loading_topic(&mut self, name: TopicName) -> TopicName {
        if let Some(known) = self.loading_topics.get(&name) {
            return known.clone();
        }
        self.loading_topics.insert(name.clone());
        name
    }

    /// A group of which something is read. It is settled with all others at the end.
    pub(crate) fn loading_group(&mut self, now: Tick, name: GroupName) -> &mut Group {
        let group = self.groups.entry(name.clone());
        group.or_insert_with(|| Box::new(Group::new(name, now)))
    }

    pub(crate) fn finish_loading(&mut self, now: Tick, out: &mut Vec<Output>) {
        assert!(!self.loaded, "Loaded comes once");
        self.loaded = true;
        self.loading_topics.clear();
        self.next_expiry = now.plus(self.config.expiry_interval_ms);
        // How long a group has been empty is not known, so it counts from now and keeps its offsets for
        // the whole retention: too long is safe, too short loses positions.
        for (name, group) in &mut self.groups {
            group.empty_since = Some(now);
            self.touched.insert(name.clone());
        }
        let env = env_of(
            now,
            &self.config,
            &self.topics,
            &*self.matcher,
            self.draining,
        );
        for (name, loading) in std::mem::take(&mut self.loading) {
            self.touched.insert(name.clone());
            let group = self
                .groups
                .entry(name.clone())
                .or_insert_with(|| Box::new(Group::new(name, now)));
            group.restore(env, loading);
            // What the policy is now may not be what it was.
            if group.passes_back(env) {
                group.downgrade(env, out);
            }
        }
        self.remove_dangling(out);
    }
}

impl Group {
    /// Takes over what the log says of the membership.
    fn restore(&mut self, env: Env<'_>, loading: Loading) {
        self.epoch = loading.group.map_or(0, |g| g.epoch);
        self.journal.restored(loading.group);
        let epochs = loading.members.values();
        let latest = epochs.map(|(_, r)| r.epoch.max(r.previous_epoch)).max();
        self.epoch = self.epoch.max(latest.unwrap_or(0));
        if let Some(record) = loading.classic {
            if record.generation >= self.epoch {
                let former = loading.members.into_keys().collect();
                return self.restore_passed(env, record, former);
            }
            // It has passed to the consumer protocol since.
            self.epoch = self.epoch.max(record.generation);
            self.classic_over = true;
        }
        let mut records: Vec<_> = loading.members.into_iter().collect();
        records.sort_by_key(|(_, (place, _))| *place);
        let mut consistent = true;
        for (id, (_, record)) in records {
            self.journal.restored_member(&id);
            consistent &= self.restore_member(env, id, record);
        }
        if !consistent {
            self.journal.contradicted(env.now);
        }
        if self.members.is_empty() {
            return;
        }
        self.empty_since = None;
        self.aim(env);
        // A group at rest goes on as it was; any other gets a new epoch, since nobody knows the target of
        // before.
        if !self.is_stable() {
            self.retarget(env);
        }
    }

    /// A classic group, with what is left of the members it had before, in the other protocol.
    fn restore_passed(&mut self, env: Env<'_>, record: ClassicRecord, former: Vec<MemberId>) {
        for id in &former {
            self.journal.restored_member(id);
        }
        if !former.is_empty() {
            self.journal.contradicted(env.now);
        }
        self.restore_classic(env, record);
    }

    /// Whether all of it is taken over.
    fn restore_member(&mut self, env: Env<'_>, id: MemberId, record: MemberRecord) -> bool {
        let granted = codec::partition_set(&record.granted);
        let mut member = restored(record, env);
        if let Some(instance) = &member.instance {
            if self.instances.contains_key(instance) {
                return false;
            }
            self.instances.insert(instance.clone(), id.clone());
        }
        let mut whole = true;
        for partition in granted {
            if self.owners.contains_key(&partition) {
                whole = member.granted.contains(&partition) && whole;
                continue;
            }
            self.owners.insert(partition.clone(), id.clone());
            member.granted.insert(partition);
        }
        if !member.departed {
            member.reported = member.granted.clone();
        }
        member.target = member.granted.clone();
        self.members.insert(id, member);
        whole
    }
}
