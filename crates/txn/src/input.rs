//! What the coordinator is told. Plain data; every time is an argument. Never performs anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use varve_types::{ProducerId, TopicId, TransactionalId};

use crate::{Failure, Place};

/// Monotonic time in milliseconds. Only differences mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// This time moved forward by `ms`; stays at the end of time.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Decides when something is due.
    pub tick: Tick,
    /// Wall clock, milliseconds since the Unix epoch. It is written down; a transaction's age after a failover
    /// and the expiry of ids go by it.
    pub wall_ms: i64,
}

/// A caller that waits for an answer. Chosen by the rim, unique among those not yet answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// An append the coordinator asked for. Chosen by the coordinator, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// What a failed append left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Nothing: it is not in the log and never will be.
    Refused,
    /// That is unknown: it may be in the log, or come to be.
    Unknown,
}

/// Which session a producer goes on with when its transaction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next epoch of its id (KIP-890).
    Epoch {
        /// A producer id that nobody has had, for when epochs are used up.
        fresh: i64,
    },
    /// The one it has (KIP-98): its transactions are told apart by their numbers.
    Same,
}

/// One event or call.
#[derive(Debug, Clone)]
pub enum Input {
    /// Time has passed: send it when `next_deadline` is reached.
    Tick,
    /// One record of this partition of `__transaction_state`, oldest first, before [`Input::Loaded`].
    Load {
        /// Key.
        key: Vec<u8>,
        /// Value; `None`: tombstone.
        value: Option<Vec<u8>>,
    },
    /// Replay is complete: everything that was in the log when this leadership began is committed and was
    /// replayed. Before this every call is answered with `CoordinatorLoading`.
    Loaded,
    /// Every topic of the cluster, whenever that changes. A topic that was there and is not any more takes its
    /// partitions out of transactions; one that was never there may be newer than the list.
    Topics(Arc<BTreeSet<TopicId>>),
    /// The node shuts down or does not coordinate these ids any more: calls are refused, nothing new is begun.
    Drain,
    /// The append is durable.
    Durable {
        /// Which.
        id: AppendId,
    },
    /// The append failed.
    Failed {
        /// Which.
        id: AppendId,
        /// What is left of it.
        lost: Lost,
        /// Answer for the caller.
        failure: Failure,
    },
    /// Begins a session: a producer has started, or starts over.
    Init {
        /// Caller.
        ticket: Ticket,
        /// Transactional id.
        name: TransactionalId,
        /// A transaction that is open longer is aborted, milliseconds.
        timeout_ms: u64,
        /// A producer id that nobody has had: for a new transactional id, or when epochs are used up.
        fresh: i64,
        /// The session that the caller has already and wants to leave behind (KIP-360); `None`: it has just
        /// started, and whoever else has one is fenced.
        keep: Option<ProducerId>,
    },
    /// Registers partitions in the producer's transaction, which begins with the first. A leader asks this before
    /// it takes the first batch, if the producer did not.
    Add {
        /// Caller.
        ticket: Ticket,
        /// Transactional id.
        name: TransactionalId,
        /// Its session.
        producer: ProducerId,
        /// Partitions, at least one.
        partitions: Vec<Place>,
    },
    /// Asks whether partitions are registered. Changes nothing.
    Verify {
        /// Caller.
        ticket: Ticket,
        /// Transactional id.
        name: TransactionalId,
        /// Its session.
        producer: ProducerId,
        /// Partitions, at least one.
        partitions: Vec<Place>,
    },
    /// Ends the producer's transaction.
    End {
        /// Caller.
        ticket: Ticket,
        /// Transactional id.
        name: TransactionalId,
        /// Its session.
        producer: ProducerId,
        /// Commit, or abort.
        commit: bool,
        /// Which session the producer goes on with.
        next: Next,
    },
    /// These partitions have the marker, committed; or they are gone, as metadata say that are no older than this
    /// answer; or they refused it because the producer has a greater epoch there already.
    MarkersDone {
        /// Transactional id.
        name: TransactionalId,
        /// Producer of the markers.
        producer: ProducerId,
        /// Their number, as in [`crate::Markers`].
        number: Option<i64>,
        /// Partitions.
        partitions: Vec<Place>,
    },
    /// Some marker did not arrive, or nobody knows whether it did: it is sent again.
    MarkersFailed {
        /// Transactional id.
        name: TransactionalId,
        /// Producer of the markers.
        producer: ProducerId,
        /// Their number.
        number: Option<i64>,
    },
    /// An operator aborts the open transaction.
    Abort {
        /// Caller.
        ticket: Ticket,
        /// Transactional id.
        name: TransactionalId,
    },
    /// Lists every transactional id.
    List {
        /// Caller.
        ticket: Ticket,
    },
    /// Describes one.
    Get {
        /// Caller.
        ticket: Ticket,
        /// Transactional id.
        name: TransactionalId,
    },
}

impl Input {
    /// The caller to answer, if this input is a call.
    #[must_use]
    pub const fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Init { ticket, .. }
            | Self::Add { ticket, .. }
            | Self::Verify { ticket, .. }
            | Self::End { ticket, .. }
            | Self::Abort { ticket, .. }
            | Self::List { ticket }
            | Self::Get { ticket, .. } => Some(*ticket),
            Self::Tick
            | Self::Load { .. }
            | Self::Loaded
            | Self::Topics(_)
            | Self::Drain
            | Self::Durable { .. }
            | Self::Failed { .. }
            | Self::MarkersDone { .. }
            | Self::MarkersFailed { .. } => None,
        }
    }
}
