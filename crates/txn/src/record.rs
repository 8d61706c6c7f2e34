//! What is remembered of one transactional id, durably. Plain data; the rules are elsewhere.

use std::collections::BTreeSet;

use varve_types::{PartitionId, ProducerId, TopicId, TopicName};

use crate::planted::{self, Plant};

/// Greatest epoch that a transaction has: its marker needs the next one.
pub(crate) const LAST_EPOCH: i16 = i16::MAX - 1;

/// A partition that takes part in a transaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Topic, by its identity: a topic that comes back under its name is another one.
    pub topic: TopicId,
    /// Its name, for people.
    pub name: TopicName,
    /// Partition.
    pub partition: PartitionId,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.partition)
    }
}

/// Where the present or last transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The session has begun none.
    Empty,
    /// Partitions are registered.
    Ongoing,
    /// It will be committed; partitions are being told.
    PrepareCommit,
    /// It will be aborted; partitions are being told.
    PrepareAbort,
    /// It is committed.
    CompleteCommit,
    /// It is aborted.
    CompleteAbort,
}

impl State {
    /// Whether the decision has been made and partitions may not know it yet.
    #[must_use]
    pub const fn is_deciding(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }

    /// Whether partitions may have an open transaction.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Ongoing) || self.is_deciding()
    }

    /// Whether it was or will be committed; `None` where nothing is decided.
    #[must_use]
    pub const fn commits(self) -> Option<bool> {
        match self {
            Self::PrepareCommit | Self::CompleteCommit => Some(true),
            Self::PrepareAbort | Self::CompleteAbort => Some(false),
            Self::Empty | Self::Ongoing => None,
        }
    }
}

/// Who wanted what the state says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The producer itself.
    Producer,
    /// The transaction's timeout.
    Timeout,
    /// An operator.
    Operator,
    /// A new producer of the same transactional id.
    Successor,
    /// The producer, which begins a new session.
    Renewal,
}

/// What is durable of one transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The session: what the producer uses from now on. After an abort that it does not know of, nobody has it.
    pub producer: ProducerId,
    /// The session before, while its last call may be repeated, or its transaction is being ended. The same as
    /// `producer` where the end of its last transaction has kept the epoch.
    pub previous: Option<ProducerId>,
    /// How many transactions of the session's epoch have been decided and kept it (KIP-98).
    pub number: i64,
    /// A transaction that is open longer is aborted, milliseconds.
    pub timeout_ms: u32,
    /// State.
    pub state: State,
    /// Who wanted it.
    pub cause: Cause,
    /// Partitions of the open transaction.
    pub partitions: BTreeSet<Place>,
    /// When the transaction began, milliseconds since the Unix epoch; `None`: there is none.
    pub started_ms: Option<i64>,
    /// When this was decided, milliseconds since the Unix epoch.
    pub updated_ms: i64,
}

impl Record {
    /// A session that has begun nothing.
    pub(crate) const fn session(producer: ProducerId, timeout_ms: u32, wall_ms: i64) -> Self {
        Self {
            producer,
            previous: None,
            number: 0,
            timeout_ms,
            state: State::Empty,
            cause: Cause::Producer,
            partitions: BTreeSet::new(),
            started_ms: None,
            updated_ms: wall_ms,
        }
    }

    /// Whether the last decision has left the session its epoch.
    #[must_use]
    pub fn keeps_epoch(&self) -> bool {
        self.number > 0 && self.previous == Some(self.producer)
    }

    /// Producer and epoch of the markers that end the transaction: one epoch above that of its records, or the same
    /// with the transaction's number.
    #[must_use]
    pub fn marker_producer(&self) -> Option<(ProducerId, Option<i64>)> {
        let ended = self.previous.filter(|_| self.state.is_deciding())?;
        if self.keeps_epoch() {
            return Some((ended, Some(self.number)));
        }
        let raised = ProducerId {
            epoch: ended.epoch.checked_add(1)?,
            ..ended
        };
        Some((raised, None))
    }

    /// The transaction is decided and its producer goes on with the epoch it has.
    pub(crate) fn decided_in_epoch(&self, commit: bool, wall_ms: i64) -> Self {
        Self {
            number: self.number.saturating_add(1),
            ..self.decided(commit, Cause::Producer, self.producer, wall_ms)
        }
    }

    /// The transaction is decided; `next` is the session from now on.
    pub(crate) fn decided(
        &self,
        commit: bool,
        cause: Cause,
        next: ProducerId,
        wall_ms: i64,
    ) -> Self {
        let (state, ended) = match (self.state == State::Ongoing, commit) {
            (true, true) => (State::PrepareCommit, self.clone()),
            (true, false) => (State::PrepareAbort, self.clone()),
            // Nothing was begun: there is nobody to tell.
            (false, true) => (State::CompleteCommit, self.without_transaction()),
            (false, false) => (State::CompleteAbort, self.without_transaction()),
        };
        Self {
            producer: next,
            previous: Some(self.producer),
            number: 0,
            state,
            cause,
            updated_ms: wall_ms,
            ..ended
        }
    }

    /// Every partition knows the decision.
    pub(crate) fn completed(&self, wall_ms: i64) -> Self {
        let state = match self.state {
            State::PrepareCommit => State::CompleteCommit,
            _ => State::CompleteAbort,
        };
        Self {
            state,
            updated_ms: wall_ms,
            ..self.without_transaction()
        }
    }

    fn without_transaction(&self) -> Self {
        Self {
            partitions: BTreeSet::new(),
            started_ms: None,
            ..self.clone()
        }
    }

    /// The session after this one. `fresh` is an id that nobody has, for when the epochs of this one are used up.
    pub(crate) fn next_session(&self, fresh: i64) -> ProducerId {
        if self.producer.epoch >= LAST_EPOCH {
            return ProducerId {
                id: fresh,
                epoch: 0,
            };
        }
        self.raised()
    }

    /// The same producer, one epoch later. At the last epoch it is one that begins no transaction any more.
    pub(crate) fn raised(&self) -> ProducerId {
        if planted::is(Plant::NoEpochBump) {
            return self.producer;
        }
        ProducerId {
            id: self.producer.id,
            epoch: self.producer.epoch.saturating_add(1),
        }
    }
}
