//! What the coordinator wants done, in order: appends to `__transaction_state`, markers, and answers. A refusal
//! is an answer like any other. Never performs anything.

use varve_types::{ErrorKind, LeaderEpoch, ProducerId, TransactionalId};

use crate::codec::CodecError;
use crate::{AppendId, Cause, Place, State, Ticket};

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What programs match on.
    pub kind: ErrorKind,
    /// What happened, to what, and what to do next.
    pub message: String,
    /// Field of the request at fault, for `InvalidRequest`.
    pub field: Option<&'static str>,
    /// Values of the message under stable names.
    pub metadata: Vec<(&'static str, String)>,
}

impl Failure {
    /// A failure of `kind` with a sentence for people.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            field: None,
            metadata: Vec::new(),
        }
    }

    /// `InvalidRequest` about one field.
    #[must_use]
    pub fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            field: Some(field),
            ..Self::new(ErrorKind::InvalidRequest, message)
        }
    }

    /// Adds a value that the message mentions.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }
}

/// Markers that end one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    /// Transactional id.
    pub name: TransactionalId,
    /// Producer of the markers: one epoch above that of the transaction's records, or the same where they are numbered.
    pub producer: ProducerId,
    /// Which transaction of its epoch is ended, for a producer that keeps it.
    pub number: Option<i64>,
    /// Commit, or abort.
    pub commit: bool,
    /// Epoch of this coordinator: a partition that has heard of a newer one refuses.
    pub coordinator_epoch: LeaderEpoch,
    /// Partitions that are not known to have it.
    pub partitions: Vec<Place>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Append this record to the partition of `__transaction_state`, in the order of the outputs, and come back
    /// with `Durable` or `Failed`.
    Append {
        /// Comes back with the completion.
        id: AppendId,
        /// Transactional id.
        name: TransactionalId,
        /// Key.
        key: Vec<u8>,
        /// Value; `None`: tombstone.
        value: Option<Vec<u8>>,
    },
    /// Tell these partitions how the transaction ended, and come back with `MarkersDone` or `MarkersFailed`. Told
    /// again when nothing comes back; a repeat does no harm.
    SendMarkers(Markers),
    /// Answer a caller.
    Reply {
        /// Caller.
        ticket: Ticket,
        /// Answer.
        reply: Reply,
    },
    /// A replayed record could not be understood and was left out; for the log.
    LoadSkipped {
        /// Why.
        error: CodecError,
    },
}

/// Answer to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To `Init`: the session to use. Durable.
    Session(ProducerId),
    /// To `Add`: the partitions are registered. Durable.
    Added,
    /// To `Verify`, and to `Add` where they were registered before: they are. Durable, and remembered: this coordinator
    /// may have been replaced since, and the transaction be over.
    Verified,
    /// To `End`: the decision is durable, and every partition will learn of it. The session to use from now on.
    Ended(ProducerId),
    /// To `Abort`: the decision is durable.
    Aborted,
    /// To `List`, ordered by name.
    Transactions(Vec<Listing>),
    /// To `Get`.
    Transaction(Box<Description>),
    /// Refused.
    Failed(Failure),
}

/// A transactional id in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Name.
    pub name: TransactionalId,
    /// Its session.
    pub producer: ProducerId,
    /// State of its present or last transaction.
    pub state: State,
    /// When the open transaction began, milliseconds since the Unix epoch.
    pub started_ms: Option<i64>,
}

/// A transactional id in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Name.
    pub name: TransactionalId,
    /// Its session.
    pub producer: ProducerId,
    /// State of its present or last transaction.
    pub state: State,
    /// Who wanted it.
    pub cause: Cause,
    /// Timeout of its transactions, milliseconds.
    pub timeout_ms: u32,
    /// When the open transaction began, milliseconds since the Unix epoch.
    pub started_ms: Option<i64>,
    /// When the state was reached, milliseconds since the Unix epoch.
    pub updated_ms: i64,
    /// Partitions of the open transaction.
    pub partitions: Vec<Place>,
    /// Of those, the ones that are not known to have the marker yet.
    pub untold: Vec<Place>,
    /// An append about it is under way, or its outcome is unknown.
    pub writing: bool,
}
