//! Appends of one group that are under way. Completions may come back in any order; they take effect
//! in the order of the log, so that the table is always what a replay would give.

use std::collections::VecDeque;

use varve_types::TopicPartition;

use crate::offsets::Change;
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
}

#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) id: AppendId,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) changes: Vec<Change>,
    pub(crate) answer: Answer,
    pub(crate) done: Option<Result<(), Failure>>,
}

impl Write {
    /// The answer of a durable write.
    pub(crate) fn reply(self) -> Reply {
        match self.answer {
            Answer::Nobody | Answer::DeleteGroup => Reply::GroupDeleted,
            Answer::Commit(results) => Reply::Committed(results),
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
