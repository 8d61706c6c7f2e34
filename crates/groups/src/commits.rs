//! The coordinator's calls about committed offsets: checks, appends, and what their completion changes.
//!
//! Invariant: an offset is in the table only after its append was reported durable.

use std::collections::BTreeSet;

use varve_types::text::counted;
use varve_types::{ErrorKind, GroupName, MemberId, TopicPartition, limits};

use crate::classic::Step;
use crate::codec;
use crate::config::Config;
use crate::coordinator::{Coordinator, group_not_found};
use crate::group::Group;
use crate::journal::{Record, Wait};
use crate::offsets::{Change, Committed};
use crate::planted::{self, Plant};
use crate::rules::unknown_member;
use crate::writes::{Answer, Write};
use crate::{AppendId, Failure, OffsetCommit, Output, Reply, Tick, Ticket};

impl Coordinator {
    #[expect(clippy::too_many_arguments, reason = "the fields of one input")]
    pub(crate) fn commit(
        &mut self,
        now: Tick,
        ticket: Ticket,
        name: &GroupName,
        (member, member_epoch): (Option<MemberId>, i32),
        offsets: Vec<OffsetCommit>,
        wall_ms: i64,
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        let member = self.committer(name, member, member_epoch);
        if let Err(error) = self.check_classic_commit(now, name, member.as_ref(), member_epoch) {
            return Ok(Some(Reply::ClassicFailed(error)));
        }
        match (self.groups.get(name), &member) {
            (Some(group), Some(_)) if group.classic.is_some() => {}
            (Some(group), _) => group.check_commit(member.as_ref(), member_epoch, &offsets)?,
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

    /// Who commits. A simple consumer may call itself as it likes: without an epoch it is no member, and may commit
    /// while the group has none.
    pub(crate) fn committer(
        &self,
        name: &GroupName,
        member: Option<MemberId>,
        member_epoch: i32,
    ) -> Option<MemberId> {
        let members = self.groups.get(name).map_or(0, |g| g.member_count());
        member.filter(|_| member_epoch >= 0 || members > 0)
    }

    pub(crate) fn set_offsets(
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

    pub(crate) fn check_offset(&self, commit: &OffsetCommit) -> Result<(), Failure> {
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
                "topic {topic} has no partition {}; it has {}, counted from 0; its offset was not \
                 committed",
                commit.partition.partition,
                counted(state.partitions, "partition")
            ),
        )
        .with("topic", topic)
        .with("partition", commit.partition.partition))
    }

    pub(crate) fn delete_offsets(
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

    pub(crate) fn delete_group(
        &mut self,
        ticket: Ticket,
        name: &GroupName,
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        let group = self.find(name)?;
        group.check_empty("deletion")?;
        group.check_no_txn()?;
        let changes = removals(group, |_| true);
        if changes.is_empty() && !group.journal.has_group_record() && !group.has_classic_record() {
            return Ok(Some(Reply::GroupDeleted));
        }
        self.begin(name, Some(ticket), changes, Answer::DeleteGroup, out)
    }

    /// Asks for an append. The table changes when it is durable.
    pub(crate) fn begin(
        &mut self,
        name: &GroupName,
        ticket: Option<Ticket>,
        changes: Vec<Change>,
        answer: Answer,
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        let most = self.config.max_pending_appends;
        let Some(group) = self.groups.get_mut(name) else {
            return Err(group_not_found(name));
        };
        if ticket.is_some() && group.writes.len() >= most {
            return Err(too_many(group));
        }
        let mut records: Vec<Record> = changes.iter().map(|c| record_of(name, c)).collect();
        // Who deletes a group deletes what is known of it as such, in the same batch.
        let forgets = matches!(answer, Answer::DeleteGroup) && group.has_classic_record();
        if forgets {
            records.push((codec::encode_classic_key(name), None));
        }
        let membership = matches!(answer, Answer::DeleteGroup) && group.journal.has_group_record();
        if membership {
            group.journal.group_record_removed();
            records.push((codec::encode_group_key(name), None));
        }
        let mut write = Write {
            ticket,
            changes,
            answer,
            membership,
            ..Write::new()
        };
        let mut early = None;
        if planted::is(Plant::CommitBeforeDurable)
            && let Answer::Commit(results) = &mut write.answer
        {
            early = Some(Reply::Committed(std::mem::take(results)));
            write.ticket = None;
        }
        let id = self.append(name, records, write, out);
        if forgets {
            self.forgets_classic(name, id);
        }
        Ok(early)
    }

    /// Hands a batch out and keeps what its completion means.
    pub(crate) fn append(
        &mut self,
        name: &GroupName,
        records: Vec<Record>,
        write: Write,
        out: &mut Vec<Output>,
    ) -> AppendId {
        let id = self.queue(name, write);
        out.push(Output::Append {
            id,
            group: name.clone(),
            records,
        });
        id
    }

    /// The place of a write among those of its group.
    pub(crate) fn queue(&mut self, name: &GroupName, mut write: Write) -> AppendId {
        let id = AppendId(self.next_append);
        self.next_append += 1;
        self.touched.insert(name.clone());
        let Some(group) = self.groups.get_mut(name) else {
            unreachable!("only a group that exists writes")
        };
        write.id = id;
        group.writes.push(write);
        self.appends.insert(id, name.clone());
        id
    }

    /// Asks for a write of the membership that changed; answers go with it, or with the one they wait for.
    pub(crate) fn write_membership(&mut self, now: Tick, name: &GroupName, out: &mut Vec<Output>) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        if let Some(records) = group.membership_records(now) {
            let write = Write {
                membership: true,
                held: group.journal.take_held(),
                ..Write::new()
            };
            let mut write = write;
            let early = match planted::is(Plant::GrantBeforeDurable) {
                true => std::mem::take(&mut write.held),
                false => Vec::new(),
            };
            self.append(name, records, write, out);
            self.touched.remove(name);
            if let Some(group) = self.groups.get_mut(name) {
                out.extend(early.into_iter().map(|held| group.release(now, held)));
            }
            return;
        }
        match group.journal.wait() {
            Wait::Next => {}
            Wait::Pending => {
                let held = group.journal.take_held();
                if let Some(write) = group.writes.last_membership() {
                    write.held.extend(held);
                }
            }
            Wait::No => {
                for held in group.journal.take_held() {
                    let reply = group.release(now, held);
                    out.push(reply);
                }
            }
        }
    }

    pub(crate) fn complete(
        &mut self,
        now: Tick,
        id: AppendId,
        result: Result<(), Failure>,
        out: &mut Vec<Output>,
    ) {
        let Some(name) = self.appends.remove(&id) else {
            panic!("append {} is not under way", id.0)
        };
        let Some(group) = self.groups.get_mut(&name) else {
            unreachable!("a group with appends under way is kept")
        };
        let config = &self.config;
        self.touched.insert(name);
        group.writes.complete(id, result);
        Self::settle_writes(now, config, group, out);
    }

    /// What follows from the completed writes at the head of a group's queue.
    pub(crate) fn settle_writes(
        now: Tick,
        config: &Config,
        group: &mut Group,
        out: &mut Vec<Output>,
    ) {
        while let Some(mut write) = group.writes.pop_complete() {
            let held = std::mem::take(&mut write.held);
            let (ticket, membership) = (write.ticket, write.membership);
            let reply = match write.done.take() {
                Some(Err(failure)) => {
                    if membership {
                        group.membership_refused(now, held, &failure, out);
                    }
                    let mut step = Step { now, config, out };
                    group.classic_refused(&mut step, &write.answer, &failure);
                    Reply::Failed(failure)
                }
                _ => {
                    group.take_effect(&write);
                    if membership {
                        group.membership_written();
                    }
                    for held in held {
                        let reply = group.release(now, held);
                        out.push(reply);
                    }
                    let mut step = Step { now, config, out };
                    match group.classic_written(&mut step, &write) {
                        Some(reply) => reply,
                        None => write.reply(),
                    }
                }
            };
            if let Some(ticket) = ticket {
                out.push(Output::Reply { ticket, reply });
            }
        }
    }

    /// Tombstones offsets of topics that do not exist, except where one is already under way.
    pub(crate) fn remove_dangling(&mut self, out: &mut Vec<Output>) {
        let Some(topics) = self.topics.clone() else {
            return;
        };
        self.remove_where(|_, partition| !topics.contains_key(&partition.topic), out);
    }

    pub(crate) fn remove_where(
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
}

pub(crate) fn too_many(group: &Group) -> Failure {
    Failure::new(
        ErrorKind::Throttled,
        format!(
            "group {} has {} commits in progress, which is the limit; nothing was committed; try \
             again",
            group.name,
            group.writes.len()
        ),
    )
    .with("group", &group.name)
}

fn record_of(group: &GroupName, (partition, committed): &Change) -> Record {
    let value = committed.as_ref().map(codec::encode_value);
    (codec::encode_key(group, partition), value)
}

pub(crate) fn change_of(commit: OffsetCommit, wall_ms: i64) -> Change {
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
        .chain(group.offsets.pending())
        .filter(|p| gone(p))
        .collect();
    all.into_iter().map(|p| (p.clone(), None)).collect()
}
