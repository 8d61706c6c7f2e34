//! Appends of one group that are under way. Completions may come back in any order; they take effect
//! in the order of the log, so that the table is always what a replay would give.

use std::collections::VecDeque;

use varve_types::{MemberId, Offset, ProducerId, TopicPartition};

use crate::journal::Held;
use crate::offsets::Change;
use crate::txn::TxnEnd;
use crate::{AppendId, CommittedOffset, Failure, Reply, Ticket};

/// What the caller of a write is told once it is durable.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The coordinator's own write: nobody waits.
    Nobody,
    Commit(Vec<Result<(), Failure>>),
    SetOffsets,
    DeleteOffsets(Vec<Result<(), Failure>>),
    DeleteGroup,
    /// The assignment of this generation of a classic group.
    ClassicAssigned(i32),
    /// Offsets of a producer's transaction, which is open.
    TxnCommit {
        producer: ProducerId,
        /// Where the log ended at most when the batch was verified.
        since: Offset,
        results: Vec<Result<(), Failure>>,
    },
    /// Not a write: the end of a producer's transaction, in its place among the writes.
    TxnEnd(TxnEnd),
    /// The new id of a static member of a classic group.
    ClassicReplaced(MemberId),
    /// The same, while members are joining: nobody is told yet.
    ClassicNamed(MemberId),
}

#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) id: AppendId,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) changes: Vec<Change>,
    pub(crate) answer: Answer,
    pub(crate) done: Option<Result<(), Failure>>,
    /// It writes membership, alone or too.
    pub(crate) membership: bool,
    /// Replies that wait for it and for every membership write before it.
    pub(crate) held: Vec<Held>,
}

impl Write {
    /// A write of nothing for nobody, to be filled in.
    pub(crate) const fn new() -> Self {
        Self {
            id: AppendId(u64::MAX),
            ticket: None,
            changes: Vec::new(),
            answer: Answer::Nobody,
            done: None,
            membership: false,
            held: Vec::new(),
        }
    }

    /// The answer of a durable write.
    pub(crate) fn reply(self) -> Reply {
        match self.answer {
            Answer::Nobody
            | Answer::DeleteGroup
            | Answer::ClassicAssigned(_)
            | Answer::TxnEnd(..)
            | Answer::ClassicNamed(_)
            | Answer::ClassicReplaced(_) => Reply::GroupDeleted,
            Answer::Commit(results) | Answer::TxnCommit { results, .. } => {
                Reply::Committed(results)
            }
            Answer::DeleteOffsets(results) => Reply::OffsetsDeleted(results),
            Answer::SetOffsets => Reply::OffsetsSet(
                self.changes
                    .into_iter()
                    .filter_map(|(p, c)| c.map(|c| CommittedOffset::new(p, &c)))
                    .collect(),
            ),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Writes {
    queue: VecDeque<Write>,
}

impl Writes {
    pub(crate) fn push(&mut self, write: Write) {
        self.queue.push_back(write);
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Partitions that a write under way will set or remove.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.queue
            .iter()
            .flat_map(|w| w.changes.iter().map(|(p, _)| p))
    }

    /// Whether a write under way changes offsets.
    pub(crate) fn has_changes(&self) -> bool {
        self.queue.iter().any(|w| !w.changes.is_empty())
    }

    /// Whether a write under way is of an open transaction; of this producer's, if one is given.
    pub(crate) fn has_txn(&self, producer: Option<i64>) -> bool {
        let of = |id: i64| producer.is_none_or(|p| p == id);
        let mut queue = self.queue.iter();
        queue.any(|w| matches!(w.answer, Answer::TxnCommit { producer, .. } if of(producer.id)))
    }

    /// Partitions that a write of a transaction under way will set.
    pub(crate) fn txn_partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        let of_txn = |w: &&Write| matches!(w.answer, Answer::TxnCommit { .. });
        let writes = self.queue.iter().filter(of_txn);
        writes.flat_map(|w| w.changes.iter().map(|(p, _)| p))
    }

    /// The youngest membership write under way.
    pub(crate) fn last_membership(&mut self) -> Option<&mut Write> {
        self.queue.iter_mut().rev().find(|w| w.membership)
    }

    /// Takes the replies that wait for any write.
    pub(crate) fn take_held(&mut self) -> Vec<Held> {
        let queue = self.queue.iter_mut();
        queue.flat_map(|w| std::mem::take(&mut w.held)).collect()
    }

    /// Notes a completion.
    ///
    /// # Panics
    /// When the append is unknown or was completed before: a bug of the rim.
    pub(crate) fn complete(&mut self, id: AppendId, result: Result<(), Failure>) {
        let Some(write) = self.queue.iter_mut().find(|w| w.id == id) else {
            panic!("append {} is not under way", id.0)
        };
        assert!(write.done.is_none(), "append {} completed twice", id.0);
        write.done = Some(result);
    }

    /// The oldest write, if it is complete.
    pub(crate) fn pop_complete(&mut self) -> Option<Write> {
        self.queue
            .front()
            .is_some_and(|w| w.done.is_some())
            .then(|| self.queue.pop_front())?
    }
}
