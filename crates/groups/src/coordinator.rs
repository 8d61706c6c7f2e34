//! All groups of one node: the core that is stepped.
//!
//! Invariants: every call is answered exactly once; an offset is in the table only after its append was
//! reported durable; what changes one group touches no other. Never waits, never reads a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use varve_types::{ErrorKind, GroupName, MemberId, TopicName};

use crate::config::Config;
use crate::group::{Env, Group, step};
use crate::loading::Loading;
use crate::rules::{farewell, unknown_member};
use crate::txn::{TxnCommit, TxnEnd};
use crate::writes::Answer;
use crate::{AppendId, Failure, Heartbeat, Input, Output, Reply, Tick, Ticket, TopicState};

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
    pub(crate) config: Config,
    pub(crate) matcher: Box<dyn Matcher + Send>,
    /// `None` until the first metadata.
    pub(crate) topics: Option<Arc<BTreeMap<TopicName, TopicState>>>,
    pub(crate) loaded: bool,
    pub(crate) draining: bool,
    /// Membership as it is being read, until everything is.
    pub(crate) loading: BTreeMap<GroupName, Loading>,
    /// Topics of the offsets that are being read: millions of them share few names.
    pub(crate) loading_topics: BTreeSet<TopicName>,
    /// Boxed: the map has room for more entries than there are.
    pub(crate) groups: BTreeMap<GroupName, Box<Group>>,
    /// Groups of the node's other coordinators, which share its limit.
    groups_elsewhere: usize,
    /// Groups that may hold offsets of a producer's open transaction, by its id: all that do, and perhaps more.
    pub(crate) txn_groups: BTreeMap<i64, BTreeSet<GroupName>>,
    /// When a group has something to do by itself.
    deadlines: BTreeSet<(Tick, GroupName)>,
    /// Callers not yet answered, with the place their answer comes from where membership decides it.
    pub(crate) open: BTreeMap<Ticket, Option<Place>>,
    /// Groups of the appends under way.
    pub(crate) appends: BTreeMap<AppendId, GroupName>,
    pub(crate) next_append: u64,
    pub(crate) next_expiry: Tick,
    /// Groups this step changed.
    pub(crate) touched: BTreeSet<GroupName>,
}

/// Where an answer comes from that waits for membership to be durable.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) group: GroupName,
    /// The member whose heartbeat it is, if it is one.
    pub(crate) member: Option<MemberId>,
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
            loading: BTreeMap::new(),
            loading_topics: BTreeSet::new(),
            groups: BTreeMap::new(),
            groups_elsewhere: 0,
            txn_groups: BTreeMap::new(),
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

    /// How many groups the node's other coordinators have now: all of them share [`Config::groups_max`].
    pub const fn set_groups_elsewhere(&mut self, count: usize) {
        self.groups_elsewhere = count;
    }

    /// Number of members of all groups, for metrics.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.groups.values().map(|g| g.member_count()).sum()
    }

    /// Takes one input at `now` and appends what is to be done to `out`.
    ///
    /// # Panics
    /// On bugs only: a ticket used twice, an unknown append completed, an invariant broken.
    pub fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        if matches!(input, Input::Load { .. } | Input::LoadTxn { .. }) {
            // Nobody waits and nothing is due before all records are there: millions of them are to be quick.
            return self.dispatch(now, input, out);
        }
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
                    "the group coordinator is still loading its offsets; nothing was changed; try \
                     again shortly",
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
            Input::LoadTxn {
                producer,
                offset,
                key,
                value,
            } => {
                let session = (producer, offset);
                return self.load_txn(now, session, &key, value.as_deref(), out);
            }
            Input::TxnEnded {
                producer,
                kept_at,
                committed,
                within,
            } => {
                let end = TxnEnd {
                    producer,
                    kept_at,
                    committed,
                };
                return self.txn_ended(now, end, within, out);
            }
            Input::Loaded => return self.finish_loading(now, out),
            Input::Topics(topics) => return self.topics_changed(now, topics, out),
            Input::Drain => return self.drain(now, out),
            Input::Cancel { ticket } => return self.cancel(now, ticket),
            Input::CommitDurable { id } => return self.complete(now, id, Ok(()), out),
            Input::CommitFailed { id, failure } => {
                return self.complete(now, id, Err(failure), out);
            }
            Input::Heartbeat { ticket, heartbeat } => {
                (ticket, self.heartbeat(now, ticket, *heartbeat, out))
            }
            Input::ClassicJoin { ticket, join } => {
                (ticket, self.classic_join(now, ticket, &join, out))
            }
            Input::ClassicSync { ticket, sync } => {
                (ticket, self.classic_sync(now, ticket, *sync, out))
            }
            Input::ClassicHeartbeat { ticket, heartbeat } => {
                (ticket, self.classic_heartbeat(now, &heartbeat, out))
            }
            Input::ClassicLeave { ticket, leave } => {
                (ticket, self.classic_leave(now, ticket, &leave, out))
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
                require_stable,
            } => {
                let found = self.get_offsets(&group, &partitions, require_stable);
                (ticket, Ok(Some(found)))
            }
            Input::TxnCommit {
                ticket,
                group,
                member,
                member_epoch,
                producer,
                since,
                offsets,
                wall_ms,
            } => {
                let commit = TxnCommit {
                    member,
                    member_epoch,
                    producer,
                    since,
                    offsets,
                    wall_ms,
                };
                let answer = self.txn_commit(now, ticket, &group, commit, out);
                (ticket, answer)
            }
            Input::DeleteOffsets {
                ticket,
                group,
                partitions,
            } => (ticket, self.delete_offsets(ticket, &group, partitions, out)),
            Input::ListGroups { ticket } => {
                let all = self.groups.values().map(|g| g.listing()).collect();
                (ticket, Ok(Some(Reply::Groups(all))))
            }
            Input::Survey { ticket, most } => {
                (ticket, Ok(Some(Reply::Survey(Box::new(self.survey(most))))))
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
            } => (
                ticket,
                self.remove_members(now, ticket, &group, &members, out),
            ),
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

    pub(crate) fn find(&self, group: &GroupName) -> Result<&Group, Failure> {
        let found = self.groups.get(group).map(|group| &**group);
        found.ok_or_else(|| group_not_found(group))
    }

    /// The group with what it may look at; makes it when it does not exist and may.
    pub(crate) fn open_group(
        &mut self,
        now: Tick,
        name: &GroupName,
    ) -> Result<(&mut Group, Env<'_>), Failure> {
        let count = self.groups.len() + self.groups_elsewhere;
        if count >= self.config.groups_max && !self.groups.contains_key(name) {
            return Err(Failure::new(
                ErrorKind::PolicyViolation,
                format!(
                    "this node coordinates {count} groups, the limit that groups.max sets; group {name} was not \
                     created; delete groups that are not used any more, or raise groups.max"
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
            .or_insert_with(|| Box::new(Group::new(name.clone(), now)));
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
                format!(
                    "a member epoch must be 0 to join, or the one from the last response; found \
                     {epoch}"
                ),
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
        let place = Place {
            group: heartbeat.group.clone(),
            member: Some(heartbeat.member.clone()),
        };
        let (group, env) = self.open_group(now, &place.group)?;
        group.heartbeat(env, ticket, heartbeat, out)?;
        // Either it was answered and `finish` sees to it, or it is parked here.
        self.open.insert(ticket, Some(place));
        Ok(None)
    }

    fn remove_members(
        &mut self,
        now: Tick,
        ticket: Ticket,
        name: &GroupName,
        members: &[MemberId],
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        self.find(name)?;
        let (group, env) = self.open_group(now, name)?;
        let classic = group.classic.iter().flat_map(|c| c.members.keys());
        let expelled: Vec<MemberId> = group
            .members
            .keys()
            .chain(classic)
            .filter(|id| members.is_empty() || members.contains(id))
            .cloned()
            .collect();
        group.expel(env, &expelled, out);
        if let Some(classic) = &mut group.classic {
            classic.expel(&mut step(env, out), &expelled);
        }
        let place = Place {
            group: name.clone(),
            member: None,
        };
        self.open.insert(ticket, Some(place));
        Ok(Some(Reply::MembersRemoved(expelled)))
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
        self.forget_ended_txns();
        let retention = self.config.offsets_retention_ms;
        let mut work = Vec::new();
        for (name, group) in &self.groups {
            let empty_for = group.empty_since.map_or(0, |since| now.since(since));
            let old = i64::try_from(empty_for).unwrap_or(i64::MAX) >= retention;
            // A commit under way is newer than anything that expires: look again next time.
            let idle = group.writes.is_empty() && !group.offsets.has_pending();
            if group.member_count() == 0 && old && idle {
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
        self.retry_forgetting();
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

    fn cancel(&mut self, now: Tick, ticket: Ticket) {
        // A write under way is not undone by its caller going away; its answer is simply not read.
        let Some(Some(place)) = self.open.get(&ticket).cloned() else {
            return;
        };
        if let Some(group) = self.groups.get_mut(&place.group)
            && let Some(member) = &place.member
            && group.cancel(now, member, ticket)
        {
            self.open.remove(&ticket);
            self.touched.insert(place.group);
        }
        // Otherwise it came due in this very step: it has its answer, and `finish` closes the ticket.
    }

    /// Settles the groups that changed, asks for what has to be written, lets the answers go that need not
    /// wait for that, closes their tickets and checks the invariants.
    fn finish(&mut self, now: Tick, first: usize, out: &mut Vec<Output>) {
        let touched = std::mem::take(&mut self.touched);
        let env = env_of(
            now,
            &self.config,
            &self.topics,
            &*self.matcher,
            self.draining,
        );
        for name in &touched {
            if let Some(group) = self.groups.get_mut(name) {
                group.settle(env, out);
                group.note_emptiness(now);
                group.assert_invariants();
            }
        }
        self.hold_back(now, first, out);
        for name in touched {
            if self.loaded {
                self.write_membership(now, &name, out);
                self.write_classic(&name, out);
            }
            self.index(name);
        }
        for output in &out[first..] {
            if let Output::Reply { ticket, .. } = output {
                let open = self.open.remove(ticket);
                assert!(open.is_some(), "ticket {} is answered twice", ticket.0);
            }
        }
    }

    /// Takes the answers that membership decides out of the outputs of this step.
    fn hold_back(&mut self, now: Tick, first: usize, out: &mut Vec<Output>) {
        for output in out.split_off(first) {
            let Output::Reply { ticket, reply } = output else {
                out.push(output);
                continue;
            };
            let groups = &self.groups;
            let decided = |place: &&mut Option<Place>| match reply {
                Reply::Heartbeat(_) | Reply::MembersRemoved(_) => true,
                Reply::ClassicJoined(_) | Reply::ClassicSynced(_) | Reply::ClassicLeft(_) => {
                    let place = place.as_ref();
                    let found = place.and_then(|p| groups.get(&p.group).zip(Some(p)));
                    found.is_some_and(|(group, place)| group.keeps_back(&reply, place))
                }
                _ => false,
            };
            let place = self.open.get_mut(&ticket).filter(decided);
            let Some(place) = place.and_then(Option::take) else {
                out.push(Output::Reply { ticket, reply });
                continue;
            };
            match self.groups.get_mut(&place.group) {
                Some(group) => group.hold(now, ticket, place.member, reply),
                None => out.push(Output::Reply { ticket, reply }),
            }
        }
    }

    /// When the group has something to do next; a group with nothing left is forgotten.
    fn index(&mut self, name: GroupName) {
        let Some(group) = self.groups.get_mut(&name) else {
            return;
        };
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
}

pub(crate) fn env_of<'a>(
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

pub(crate) fn group_not_found(name: &GroupName) -> Failure {
    Failure::new(
        ErrorKind::GroupNotFound,
        format!("group {name} does not exist: it has no members and no offsets"),
    )
    .with("group", name)
}
