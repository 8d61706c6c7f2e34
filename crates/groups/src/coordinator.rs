//! All groups of one node: the core that is stepped.
//!
//! Invariants: every call is answered exactly once; an offset is in the table only after its append was
//! reported durable; what changes one group touches no other. Never waits, never reads a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use varve_types::{ErrorKind, GroupName, MemberId, TopicName, TopicPartition, limits};

use crate::codec;
use crate::group::{Env, Group, farewell, unknown_member};
use crate::offsets::{Change, Committed};
use crate::writes::{Answer, Write};
use crate::{
    AppendId, Failure, Heartbeat, Input, OffsetCommit, Output, Reply, Tick, Ticket, TopicState,
};

/// Times and bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Session timeout of members that name none, milliseconds.
    pub session_timeout_ms: u64,
    /// Least session timeout a member can ask for, milliseconds.
    pub session_timeout_min_ms: u64,
    /// Greatest session timeout a member can ask for, milliseconds.
    pub session_timeout_max_ms: u64,
    /// Heartbeats are due this often, and held no longer than this, milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Time to give up partitions for members that name none, milliseconds.
    pub rebalance_timeout_ms: u64,
    /// Most members of one group (`group.max.size`).
    pub group_max_size: usize,
    /// Most groups of this node.
    pub groups_max: usize,
    /// Offsets of a group are removed when it has been empty for this long and they are this old,
    /// milliseconds (`offsets.retention.minutes`).
    pub offsets_retention_ms: i64,
    /// Expired offsets are looked for this often, milliseconds.
    pub expiry_interval_ms: u64,
    /// Most appends of one group under way; further commits are told to come back.
    pub max_pending_appends: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            session_timeout_min_ms: limits::SESSION_TIMEOUT_MIN_MS,
            session_timeout_max_ms: limits::SESSION_TIMEOUT_MAX_MS,
            heartbeat_interval_ms: 5_000,
            rebalance_timeout_ms: 60_000,
            group_max_size: limits::GROUP_MAX_MEMBERS,
            groups_max: limits::GROUPS_MAX,
            offsets_retention_ms: 7 * 24 * 3_600 * 1_000,
            expiry_interval_ms: 600_000,
            max_pending_appends: 1_000,
        }
    }
}

/// Matches topic patterns. Pure: the same question has the same answer for ever.
pub trait Matcher {
    /// Whether `pattern` matches the whole of `topic`.
    ///
    /// # Errors
    /// Why the pattern is not valid, whatever the topic.
    fn matches(&self, pattern: &str, topic: &str) -> Result<bool, String>;
}

/// All groups of one node.
pub struct Coordinator {
    config: Config,
    matcher: Box<dyn Matcher + Send>,
    /// `None` until the first metadata.
    topics: Option<Arc<BTreeMap<TopicName, TopicState>>>,
    loaded: bool,
    draining: bool,
    groups: BTreeMap<GroupName, Group>,
    /// When a group has something to do by itself.
    deadlines: BTreeSet<(Tick, GroupName)>,
    /// Callers not yet answered, with the member whose heartbeat is parked.
    open: BTreeMap<Ticket, Option<(GroupName, MemberId)>>,
    /// Groups of the appends under way.
    appends: BTreeMap<AppendId, GroupName>,
    next_append: u64,
    next_expiry: Tick,
    /// Groups this step changed.
    touched: BTreeSet<GroupName>,
}

impl Coordinator {
    /// A coordinator without groups that waits to be loaded.
    #[must_use]
    pub fn new(config: Config, matcher: Box<dyn Matcher + Send>) -> Self {
        Self {
            config,
            matcher,
            topics: None,
            loaded: false,
            draining: false,
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            open: BTreeMap::new(),
            appends: BTreeMap::new(),
            next_append: 0,
            next_expiry: Tick(0),
            touched: BTreeSet::new(),
        }
    }

    /// When [`Input::Tick`] must be sent at the latest; `None` while there is nothing to wait for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        let group = self.deadlines.first().map(|(t, _)| *t);
        let expiry = self.loaded.then_some(self.next_expiry);
        group.into_iter().chain(expiry).min()
    }

    /// Number of groups, for metrics.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Number of members of all groups, for metrics.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.groups.values().map(|g| g.members.len()).sum()
    }

    /// Takes one input at `now` and appends what is to be done to `out`.
    ///
    /// # Panics
    /// On bugs only: a ticket used twice, an unknown append completed, an invariant broken.
    pub fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        let first = out.len();
        if let Some(ticket) = input.ticket() {
            let before = self.open.insert(ticket, None);
            assert!(before.is_none(), "ticket {} is in use", ticket.0);
        }
        self.expire_due(now, out);
        match input.ticket() {
            Some(ticket) if !self.loaded => {
                let failure = Failure::new(
                    ErrorKind::CoordinatorLoading,
                    "the group coordinator is still reading its offsets; try again shortly",
                );
                out.push(Output::Reply {
                    ticket,
                    reply: Reply::Failed(failure),
                });
            }
            _ => self.dispatch(now, input, out),
        }
        self.finish(now, first, out);
    }

    fn dispatch(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        let answer = match input {
            Input::Tick { wall_ms } => return self.tick(now, wall_ms, out),
            Input::Load { key, value } => return self.load(now, &key, value.as_deref(), out),
            Input::Loaded => return self.finish_loading(now, out),
            Input::Topics(topics) => return self.topics_changed(now, topics, out),
            Input::Drain => return self.drain(now, out),
            Input::Cancel { ticket } => return self.cancel(ticket),
            Input::CommitDurable { id } => return self.complete(id, Ok(()), out),
            Input::CommitFailed { id, failure } => return self.complete(id, Err(failure), out),
            Input::Heartbeat { ticket, heartbeat } => {
                (ticket, self.heartbeat(now, ticket, *heartbeat, out))
            }
            Input::Commit {
                ticket,
                group,
                member,
                member_epoch,
                offsets,
                wall_ms,
            } => {
                let commit = (member, member_epoch);
                (
                    ticket,
                    self.commit(now, ticket, &group, commit, offsets, wall_ms, out),
                )
            }
            Input::SetOffsets {
                ticket,
                group,
                offsets,
                wall_ms,
            } => (
                ticket,
                self.set_offsets(now, ticket, &group, offsets, wall_ms, out),
            ),
            Input::GetOffsets {
                ticket,
                group,
                partitions,
            } => {
                let found = self.groups.get(&group).map(|g| g.offsets.read(&partitions));
                (ticket, Ok(Some(Reply::Offsets(found.unwrap_or_default()))))
            }
            Input::DeleteOffsets {
                ticket,
                group,
                partitions,
            } => (ticket, self.delete_offsets(ticket, &group, partitions, out)),
            Input::ListGroups { ticket } => {
                let all = self.groups.values().map(Group::listing).collect();
                (ticket, Ok(Some(Reply::Groups(all))))
            }
            Input::GetGroup { ticket, group } => {
                let found = self
                    .find(&group)
                    .map(|g| Some(Reply::Group(Box::new(g.describe(now)))));
                (ticket, found)
            }
            Input::DeleteGroup { ticket, group } => {
                (ticket, self.delete_group(ticket, &group, out))
            }
            Input::RemoveMembers {
                ticket,
                group,
                members,
            } => (ticket, self.remove_members(now, &group, &members, out)),
        };
        match answer {
            (ticket, Ok(Some(reply))) => out.push(Output::Reply { ticket, reply }),
            (_, Ok(None)) => {}
            (ticket, Err(failure)) => {
                out.push(Output::Reply {
                    ticket,
                    reply: Reply::Failed(failure),
                });
            }
        }
    }

    fn find(&self, group: &GroupName) -> Result<&Group, Failure> {
        self.groups.get(group).ok_or_else(|| group_not_found(group))
    }

    /// The group with what it may look at; makes it when it does not exist and may.
    fn open_group(
        &mut self,
        now: Tick,
        name: &GroupName,
    ) -> Result<(&mut Group, Env<'_>), Failure> {
        if !self.groups.contains_key(name) && self.groups.len() >= self.config.groups_max {
            return Err(Failure::new(
                ErrorKind::Throttled,
                format!(
                    "this node coordinates {} groups, which is its limit; group {name} was not made",
                    self.groups.len()
                ),
            )
            .with("group", name));
        }
        self.touched.insert(name.clone());
        let env = env_of(
            now,
            &self.config,
            &self.topics,
            &*self.matcher,
            self.draining,
        );
        let group = self
            .groups
            .entry(name.clone())
            .or_insert_with(|| Group::new(name.clone(), now));
        Ok((group, env))
    }

    fn heartbeat(
        &mut self,
        now: Tick,
        ticket: Ticket,
        heartbeat: Heartbeat,
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        let epoch = heartbeat.member_epoch;
        if epoch < 0 {
            return Err(Failure::invalid(
                "member_epoch",
                format!("a member epoch is 0 to join, or that of the last reply; found {epoch}"),
            ));
        }
        if !self.groups.contains_key(&heartbeat.group) {
            if heartbeat.leave {
                return Ok(Some(farewell(&self.config)));
            }
            if epoch > 0 {
                return Err(unknown_member(&heartbeat.group, &heartbeat.member));
            }
        }
        let place = (heartbeat.group.clone(), heartbeat.member.clone());
        let (group, env) = self.open_group(now, &place.0)?;
        group.heartbeat(env, ticket, heartbeat, out)?;
        // Either it was answered and `finish` closes the ticket, or it is parked here.
        self.open.insert(ticket, Some(place));
        Ok(None)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one input")]
    fn commit(
        &mut self,
        now: Tick,
        ticket: Ticket,
        name: &GroupName,
        (member, member_epoch): (Option<MemberId>, i32),
        offsets: Vec<OffsetCommit>,
        wall_ms: i64,
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        match (self.groups.get(name), &member) {
            (Some(group), _) => group.check_commit(member.as_ref(), member_epoch)?,
            (None, Some(id)) => return Err(unknown_member(name, id)),
            (None, None) => {}
        }
        let results: Vec<_> = offsets.iter().map(|o| self.check_offset(o)).collect();
        let changes: Vec<Change> = offsets
            .into_iter()
            .zip(&results)
            .filter(|(_, result)| result.is_ok())
            .map(|(commit, _)| change_of(commit, wall_ms))
            .collect();
        if changes.is_empty() {
            return Ok(Some(Reply::Committed(results)));
        }
        self.open_group(now, name)?;
        self.begin(name, Some(ticket), changes, Answer::Commit(results), out)
    }

    fn set_offsets(
        &mut self,
        now: Tick,
        ticket: Ticket,
        name: &GroupName,
        offsets: Vec<OffsetCommit>,
        wall_ms: i64,
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        if let Some(group) = self.groups.get(name) {
            group.check_empty("setting offsets")?;
        }
        for offset in &offsets {
            self.check_offset(offset)?;
        }
        let changes: Vec<_> = offsets.into_iter().map(|o| change_of(o, wall_ms)).collect();
        if changes.is_empty() {
            return Ok(Some(Reply::OffsetsSet(Vec::new())));
        }
        self.open_group(now, name)?;
        self.begin(name, Some(ticket), changes, Answer::SetOffsets, out)
    }

    fn check_offset(&self, commit: &OffsetCommit) -> Result<(), Failure> {
        let topic = &commit.partition.topic;
        let found = commit.metadata.len();
        if found > limits::COMMIT_METADATA_MAX_BYTES {
            return Err(Failure::invalid(
                "metadata",
                format!(
                    "the metadata of the commit for {} has {found} bytes; the limit is {}",
                    commit.partition,
                    limits::COMMIT_METADATA_MAX_BYTES
                ),
            ));
        }
        let state = self.topics.as_ref().and_then(|topics| topics.get(topic));
        let Some(state) = state else {
            return Err(Failure::new(
                ErrorKind::TopicNotFound,
                format!("topic {topic} does not exist; its offset was not committed"),
            )
            .with("topic", topic));
        };
        if (0..state.partitions).contains(&commit.partition.partition.0) {
            return Ok(());
        }
        Err(Failure::new(
            ErrorKind::PartitionNotFound,
            format!(
                "topic {topic} has {} partitions and no partition {}; its offset was not committed",
                state.partitions, commit.partition.partition
            ),
        )
        .with("topic", topic)
        .with("partition", commit.partition.partition))
    }

    fn delete_offsets(
        &mut self,
        ticket: Ticket,
        name: &GroupName,
        partitions: Vec<TopicPartition>,
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        let group = self.find(name)?;
        let mut results = Vec::with_capacity(partitions.len());
        let mut changes: Vec<Change> = Vec::new();
        for partition in partitions {
            if group.is_subscribed(&partition.topic) {
                results.push(Err(Failure::new(
                    ErrorKind::GroupNotEmpty,
                    format!(
                        "members of group {name} are subscribed to topic {}; the offset of \
                         {partition} was kept",
                        partition.topic
                    ),
                )
                .with("group", name)
                .with("topic", &partition.topic)));
            } else {
                results.push(Ok(()));
                changes.push((partition, None));
            }
        }
        if changes.is_empty() {
            return Ok(Some(Reply::OffsetsDeleted(results)));
        }
        self.begin(
            name,
            Some(ticket),
            changes,
            Answer::DeleteOffsets(results),
            out,
        )
    }

    fn delete_group(
        &mut self,
        ticket: Ticket,
        name: &GroupName,
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        let group = self.find(name)?;
        group.check_empty("deletion")?;
        let changes = removals(group, |_| true);
        if changes.is_empty() {
            return Ok(Some(Reply::GroupDeleted));
        }
        self.begin(name, Some(ticket), changes, Answer::DeleteGroup, out)
    }

    fn remove_members(
        &mut self,
        now: Tick,
        name: &GroupName,
        members: &[MemberId],
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        self.find(name)?;
        let (group, env) = self.open_group(now, name)?;
        let expelled: Vec<MemberId> = group
            .members
            .keys()
            .filter(|id| members.is_empty() || members.contains(id))
            .cloned()
            .collect();
        group.expel(env, &expelled, out);
        Ok(Some(Reply::MembersRemoved(expelled)))
    }

    /// Asks for an append. The table changes when it is durable.
    fn begin(
        &mut self,
        name: &GroupName,
        ticket: Option<Ticket>,
        changes: Vec<Change>,
        answer: Answer,
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        self.touched.insert(name.clone());
        let Some(group) = self.groups.get_mut(name) else {
            return Err(group_not_found(name));
        };
        if ticket.is_some() && group.writes.len() >= self.config.max_pending_appends {
            return Err(Failure::new(
                ErrorKind::Throttled,
                format!(
                    "group {name} has {} commits under way, which is the limit; nothing was \
                     committed, try again",
                    group.writes.len()
                ),
            )
            .with("group", name));
        }
        let id = AppendId(self.next_append);
        self.next_append += 1;
        let records = changes
            .iter()
            .map(|(p, c)| {
                (
                    codec::encode_key(name, p),
                    c.as_ref().map(codec::encode_value),
                )
            })
            .collect();
        out.push(Output::Append {
            id,
            group: name.clone(),
            records,
        });
        group.writes.push(Write {
            id,
            ticket,
            changes,
            answer,
            done: None,
        });
        self.appends.insert(id, name.clone());
        Ok(None)
    }

    fn complete(&mut self, id: AppendId, result: Result<(), Failure>, out: &mut Vec<Output>) {
        let Some(name) = self.appends.remove(&id) else {
            panic!("append {} is not under way", id.0)
        };
        let Some(group) = self.groups.get_mut(&name) else {
            unreachable!("a group with appends under way is kept")
        };
        self.touched.insert(name);
        group.writes.complete(id, result);
        while let Some(mut write) = group.writes.pop_complete() {
            let ticket = write.ticket;
            let reply = match write.done.take() {
                Some(Err(failure)) => Reply::Failed(failure),
                _ => {
                    for change in &write.changes {
                        group.offsets.apply(change.clone());
                    }
                    write.reply()
                }
            };
            if let Some(ticket) = ticket {
                out.push(Output::Reply { ticket, reply });
            }
        }
    }

    fn load(&mut self, now: Tick, key: &[u8], value: Option<&[u8]>, out: &mut Vec<Output>) {
        assert!(!self.loaded, "replay comes before Loaded");
        let decoded = codec::decode_key(key)
            .and_then(|k| value.map(codec::decode_value).transpose().map(|v| (k, v)));
        match decoded {
            Ok(((name, partition), committed)) => {
                self.touched.insert(name.clone());
                let group = self
                    .groups
                    .entry(name.clone())
                    .or_insert_with(|| Group::new(name, now));
                group.offsets.apply((partition, committed));
            }
            Err(error) => out.push(Output::LoadSkipped { error }),
        }
    }

    fn finish_loading(&mut self, now: Tick, out: &mut Vec<Output>) {
        assert!(!self.loaded, "Loaded comes once");
        self.loaded = true;
        self.next_expiry = now.plus(self.config.expiry_interval_ms);
        // Members of before are not known, so every group counts as empty from now on and keeps its
        // offsets for the whole retention: too long is safe, too short loses positions.
        for (name, group) in &mut self.groups {
            group.empty_since = Some(now);
            self.touched.insert(name.clone());
        }
        self.remove_dangling(out);
    }

    /// Tombstones offsets of topics that do not exist, except where one is already under way.
    fn remove_dangling(&mut self, out: &mut Vec<Output>) {
        let Some(topics) = self.topics.clone() else {
            return;
        };
        self.remove_where(|_, partition| !topics.contains_key(&partition.topic), out);
    }

    fn remove_where(
        &mut self,
        gone: impl Fn(&Group, &TopicPartition) -> bool,
        out: &mut Vec<Output>,
    ) {
        let mut work = Vec::new();
        for (name, group) in &self.groups {
            let changes = removals(group, |p| gone(group, p));
            if !changes.is_empty() {
                work.push((name.clone(), changes));
            }
        }
        for (name, changes) in work {
            let begun = self.begin(&name, None, changes, Answer::Nobody, out);
            assert!(begun.is_ok(), "own writes of known groups are always begun");
        }
    }

    fn topics_changed(
        &mut self,
        now: Tick,
        topics: Arc<BTreeMap<TopicName, TopicState>>,
        out: &mut Vec<Output>,
    ) {
        let before = self.topics.replace(topics.clone());
        let env = env_of(
            now,
            &self.config,
            &self.topics,
            &*self.matcher,
            self.draining,
        );
        for (name, group) in &mut self.groups {
            if !group.members.is_empty() {
                group.topics_changed(env);
                self.touched.insert(name.clone());
            }
        }
        let Some(before) = before.filter(|_| self.loaded) else {
            return;
        };
        let removed: BTreeSet<TopicName> = before
            .iter()
            .filter(|(name, state)| topics.get(*name).is_none_or(|t| t.id != state.id))
            .map(|(name, _)| name.clone())
            .collect();
        if !removed.is_empty() {
            self.remove_where(|_, partition| removed.contains(&partition.topic), out);
        }
    }

    fn tick(&mut self, now: Tick, wall_ms: i64, out: &mut Vec<Output>) {
        if !self.loaded || now < self.next_expiry {
            return;
        }
        self.next_expiry = now.plus(self.config.expiry_interval_ms);
        let retention = self.config.offsets_retention_ms;
        let mut work = Vec::new();
        for (name, group) in &self.groups {
            let empty_for = group.empty_since.map_or(0, |since| now.since(since));
            let old = i64::try_from(empty_for).unwrap_or(i64::MAX) >= retention;
            // A commit under way is newer than anything that expires: look again next time.
            if group.members.is_empty() && old && group.writes.is_empty() {
                let expired = group.offsets.expired(wall_ms, retention);
                if !expired.is_empty() {
                    work.push((name.clone(), expired));
                }
            }
        }
        for (name, expired) in work {
            let changes = expired.into_iter().map(|p| (p, None)).collect();
            let begun = self.begin(&name, None, changes, Answer::Nobody, out);
            assert!(begun.is_ok(), "own writes of known groups are always begun");
        }
        // What a failed append left behind.
        self.remove_dangling(out);
    }

    fn expire_due(&mut self, now: Tick, out: &mut Vec<Output>) {
        while let Some((deadline, name)) = self.deadlines.first() {
            if *deadline > now {
                return;
            }
            let name = name.clone();
            self.deadlines.pop_first();
            let env = env_of(
                now,
                &self.config,
                &self.topics,
                &*self.matcher,
                self.draining,
            );
            if let Some(group) = self.groups.get_mut(&name) {
                group.indexed = None;
                group.expire(env, out);
                self.touched.insert(name);
            }
        }
    }

    fn drain(&mut self, now: Tick, out: &mut Vec<Output>) {
        self.draining = true;
        let env = env_of(
            now,
            &self.config,
            &self.topics,
            &*self.matcher,
            self.draining,
        );
        for (name, group) in &mut self.groups {
            group.drain(env, out);
            self.touched.insert(name.clone());
        }
    }

    fn cancel(&mut self, ticket: Ticket) {
        // A write under way is not undone by its caller going away; its answer is simply not read.
        let Some(Some((name, member))) = self.open.get(&ticket).cloned() else {
            return;
        };
        if let Some(group) = self.groups.get_mut(&name)
            && group.cancel(&member, ticket)
        {
            self.open.remove(&ticket);
            self.touched.insert(name);
        }
        // Otherwise it came due in this very step: it has its answer, and `finish` closes the ticket.
    }

    /// Settles the groups that changed, closes answered tickets and checks the invariants.
    fn finish(&mut self, now: Tick, first: usize, out: &mut Vec<Output>) {
        let env = env_of(
            now,
            &self.config,
            &self.topics,
            &*self.matcher,
            self.draining,
        );
        for name in std::mem::take(&mut self.touched) {
            let Some(group) = self.groups.get_mut(&name) else {
                continue;
            };
            group.settle(env, out);
            group.assert_invariants();
            let deadline = group.deadline();
            if group.indexed != deadline {
                if let Some(old) = group.indexed {
                    self.deadlines.remove(&(old, name.clone()));
                }
                if let Some(new) = deadline {
                    self.deadlines.insert((new, name.clone()));
                }
                group.indexed = deadline;
            }
            if self.loaded && group.is_vacant() {
                self.groups.remove(&name);
            }
        }
        for output in &out[first..] {
            if let Output::Reply { ticket, .. } = output {
                let open = self.open.remove(ticket);
                assert!(open.is_some(), "ticket {} is answered twice", ticket.0);
            }
        }
    }
}

fn env_of<'a>(
    now: Tick,
    config: &'a Config,
    topics: &'a Option<Arc<BTreeMap<TopicName, TopicState>>>,
    matcher: &'a dyn Matcher,
    draining: bool,
) -> Env<'a> {
    static NONE: BTreeMap<TopicName, TopicState> = BTreeMap::new();
    Env {
        now,
        config,
        topics: topics.as_deref().unwrap_or(&NONE),
        matcher,
        draining,
    }
}

fn group_not_found(name: &GroupName) -> Failure {
    Failure::new(
        ErrorKind::GroupNotFound,
        format!("group {name} does not exist: it has neither members nor offsets"),
    )
    .with("group", name)
}

fn change_of(commit: OffsetCommit, wall_ms: i64) -> Change {
    let committed = Committed {
        offset: commit.offset,
        leader_epoch: commit.leader_epoch,
        metadata: commit.metadata,
        commit_time_ms: wall_ms,
    };
    (commit.partition, Some(committed))
}

/// Removal of what the group holds or is about to hold, where `gone` says so.
fn removals(group: &Group, gone: impl Fn(&TopicPartition) -> bool) -> Vec<Change> {
    let held = group.offsets.iter().map(|(p, _)| p);
    let all: BTreeSet<_> = held
        .chain(group.writes.partitions())
        .filter(|p| gone(p))
        .collect();
    all.into_iter().map(|p| (p.clone(), None)).collect()
}
