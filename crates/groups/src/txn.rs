//! Offsets that are committed in a transaction: they are pending until the marker of their producer says
//! what becomes of them.
//!
//! Invariants: pending offsets are not read as committed; what a group's table holds is what a replay of
//! the log gives at the same place. Never decides about transactions.

use std::collections::BTreeSet;

use varve_types::{
    ErrorKind, GroupName, MemberId, Offset, PartitionId, ProducerId, TopicPartition,
};

use crate::codec::{self, CodecError, Key};
use crate::commits::{change_of, too_many};
use crate::coordinator::Coordinator;
use crate::group::Group;
use crate::planted::{self, Plant};
use crate::rules::unknown_member;
use crate::writes::{Answer, Write};
use crate::{ClassicError, Failure, OffsetCommit, Output, Reply, Tick, Ticket};

/// A commit of a transaction, without caller and group.
pub(crate) struct TxnCommit {
    pub(crate) member: Option<MemberId>,
    pub(crate) member_epoch: i32,
    pub(crate) producer: ProducerId,
    pub(crate) since: Option<Offset>,
    pub(crate) offsets: Vec<OffsetCommit>,
    pub(crate) wall_ms: i64,
}

/// The marker that ends a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TxnEnd {
    pub(crate) producer: ProducerId,
    /// Its offset, where the producer keeps its epoch.
    pub(crate) kept_at: Option<Offset>,
    pub(crate) committed: bool,
}

impl TxnEnd {
    /// Whether it ends what `producer` has pending, of a batch that was verified when the log ended at `since`.
    pub(crate) fn ends(&self, producer: ProducerId, since: Offset) -> bool {
        let this = producer.epoch == self.producer.epoch
            && self.kept_at.is_some_and(|marker| since <= marker);
        producer.epoch < self.producer.epoch || this
    }
}

impl Coordinator {
    pub(crate) fn get_offsets(
        &self,
        name: &GroupName,
        partitions: &[TopicPartition],
        require_stable: bool,
    ) -> Reply {
        let Some(group) = self.groups.get(name) else {
            return Reply::Offsets(Vec::new());
        };
        let mut offsets = group.offsets.read(partitions);
        if !require_stable {
            return Reply::Offsets(offsets);
        }
        let unstable = group.unstable(partitions);
        if unstable.is_empty() {
            return Reply::Offsets(offsets);
        }
        offsets.retain(|o| unstable.binary_search(&o.partition).is_err());
        Reply::OffsetsUnstable { offsets, unstable }
    }

    /// Whether a member that speaks the classic protocol may commit; `Ok` for others.
    pub(crate) fn check_classic_commit(
        &mut self,
        now: Tick,
        name: &GroupName,
        member: Option<&MemberId>,
        generation: i32,
    ) -> Result<(), ClassicError> {
        let (Some(group), Some(id)) = (self.groups.get_mut(name), member) else {
            return Ok(());
        };
        match &mut group.classic {
            Some(classic) => classic.commits(now, id, generation)?,
            None => group.mixed_commits(now, id, generation)?,
        }
        self.touched.insert(name.clone());
        Ok(())
    }

    pub(crate) fn txn_commit(
        &mut self,
        now: Tick,
        ticket: Ticket,
        name: &GroupName,
        commit: TxnCommit,
        out: &mut Vec<Output>,
    ) -> Result<Option<Reply>, Failure> {
        let epoch = commit.member_epoch;
        let member = self.committer(name, commit.member, epoch);
        let member = member.as_ref();
        if let Err(error) = self.check_classic_commit(now, name, member, epoch) {
            return Ok(Some(Reply::ClassicFailed(error)));
        }
        match (self.groups.get(name), member) {
            (Some(group), Some(_)) if group.classic.is_none() => {
                group.check_commit(member, epoch, &commit.offsets)?
            }
            (None, Some(id)) => return Err(unknown_member(name, id)),
            // Without a member the producer alone says who may.
            _ => {}
        }
        let results: Vec<_> = commit
            .offsets
            .iter()
            .map(|o| self.check_offset(o))
            .collect();
        let changes: Vec<_> = commit
            .offsets
            .into_iter()
            .zip(&results)
            .filter(|(_, result)| result.is_ok())
            .map(|(offset, _)| change_of(offset, commit.wall_ms))
            .collect();
        if changes.is_empty() {
            return Ok(Some(Reply::Committed(results)));
        }
        let most = self.config.max_pending_appends;
        let (group, _) = self.open_group(now, name)?;
        if group.writes.len() >= most {
            return Err(too_many(group));
        }
        let value = |c: &Option<_>| c.as_ref().map(codec::encode_value);
        let records = changes
            .iter()
            .map(|(p, c)| (codec::encode_key(name, p), value(c)))
            .collect();
        let write = Write {
            ticket: Some(ticket),
            changes,
            answer: Answer::TxnCommit {
                producer: commit.producer,
                since: commit.since.unwrap_or_default(),
                results,
            },
            ..Write::new()
        };
        self.note_txn(commit.producer, name);
        let id = self.queue(name, write);
        out.push(Output::TxnAppend {
            id,
            group: name.clone(),
            producer: commit.producer,
            since: commit.since,
            records,
        });
        Ok(None)
    }

    /// The end of a producer's transaction, in every group that it committed offsets of.
    pub(crate) fn txn_ended(
        &mut self,
        now: Tick,
        end: TxnEnd,
        within: Option<(PartitionId, i32)>,
        out: &mut Vec<Output>,
    ) {
        let id = end.producer.id;
        for name in self.txn_groups.remove(&id).unwrap_or_default() {
            let Some(group) = self.groups.get_mut(&name) else {
                continue;
            };
            if !group.has_txn_of(id) {
                continue;
            }
            let elsewhere = |(number, count)| codec::partition_of(&name, count) != number;
            if !within.is_some_and(elsewhere) {
                self.touched.insert(name.clone());
                // Completions may be reported late; the end takes its place behind those writes.
                group.writes.push(Write {
                    answer: Answer::TxnEnd(end),
                    done: Some(Ok(())),
                    ..Write::new()
                });
                Self::settle_writes(now, &self.config, group, out);
            }
            // Ends in another partition, writes that are under way, and a later transaction of the same producer.
            if group.has_txn_of(id) {
                self.note_txn(end.producer, &name);
            }
        }
    }

    /// The group may hold offsets of the producer's transaction from here on.
    fn note_txn(&mut self, producer: ProducerId, name: &GroupName) {
        let groups = self.txn_groups.entry(producer.id).or_default();
        groups.insert(name.clone());
    }

    /// Keeps what it remembers of producers to those that have something open.
    pub(crate) fn forget_ended_txns(&mut self) {
        let groups = &self.groups;
        self.txn_groups.retain(|producer, names| {
            names.retain(|name| groups.get(name).is_some_and(|g| g.has_txn_of(*producer)));
            !names.is_empty()
        });
    }

    pub(crate) fn load_txn(
        &mut self,
        now: Tick,
        session: (ProducerId, Offset),
        key: &[u8],
        value: Option<&[u8]>,
        out: &mut Vec<Output>,
    ) {
        assert!(!self.loaded, "replay comes before Loaded");
        if let Err(error) = self.load_txn_record(now, session, key, value) {
            out.push(Output::LoadSkipped { error });
        }
    }

    fn load_txn_record(
        &mut self,
        now: Tick,
        session: (ProducerId, Offset),
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), CodecError> {
        let Key::Offset(name, partition) = codec::decode_any_key(key)? else {
            return Err(CodecError::Field {
                field: "key",
                why: "only offsets are committed in transactions".to_owned(),
            });
        };
        let committed = value.map(codec::decode_value).transpose()?;
        if planted::is(Plant::ForgetPending) {
            return Ok(());
        }
        self.note_txn(session.0, &name);
        let group = self.loading_group(now, name);
        group.offsets.apply_pending(session, (partition, committed));
        Ok(())
    }
}

impl Group {
    /// Whether offsets of an open transaction of this producer are here, or being written.
    fn has_txn_of(&self, producer: i64) -> bool {
        self.offsets.has_pending_of(producer) || self.writes.has_txn(Some(producer))
    }

    /// Those of `partitions` (of all when that is empty) that a transaction may change, in order. What is
    /// being written counts: its transaction may be committed before we hear that it is durable.
    fn unstable(&self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        let asked: BTreeSet<_> = partitions.iter().collect();
        let wanted = |p: &&TopicPartition| asked.is_empty() || asked.contains(*p);
        let all = self.offsets.pending().chain(self.writes.txn_partitions());
        let found: BTreeSet<_> = all.filter(wanted).collect();
        found.into_iter().cloned().collect()
    }

    /// A write is durable, or the place of the end of a transaction is reached.
    pub(crate) fn take_effect(&mut self, write: &Write) {
        if let Answer::TxnEnd(end) = write.answer {
            self.offsets.end(end);
        }
        for change in &write.changes {
            match write.answer {
                Answer::TxnCommit {
                    producer, since, ..
                } if !planted::is(Plant::PendingCounts) => {
                    self.offsets
                        .apply_pending((producer, since), change.clone());
                }
                _ => self.offsets.apply(change.clone()),
            }
        }
    }

    /// # Errors
    /// `GroupNotEmpty` while transactions have offsets of the group.
    pub(crate) fn check_no_txn(&self) -> Result<(), Failure> {
        if !self.offsets.has_pending() && !self.writes.has_txn(None) {
            return Ok(());
        }
        Err(Failure::new(
            ErrorKind::GroupNotEmpty,
            format!(
                "open transactions hold offsets of group {}, so it was not deleted; wait until \
                 they end, or abort them",
                self.name
            ),
        )
        .with("group", &self.name))
    }
}
