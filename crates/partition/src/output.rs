//! What a partition decided. The rim performs outputs in order.

use varve_types::{BrokerEpoch, ErrorKind, LeaderEpoch, NodeId, Offset};

use crate::input::{FetchId, Position, Ticket};

/// A successful append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// The batch was in the log already; `base_offset` is the original one.
    pub deduplicated: bool,
    /// Epoch of the leader.
    pub leader_epoch: LeaderEpoch,
    /// Replicas that hold the records now.
    pub replicas: u32,
    /// Of those, how many have flushed them.
    pub flushed_replicas: u32,
}

/// A refused append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Nobody leads at present, or this node's log is out of service.
    Offline,
    /// Another node leads.
    NotLeader {
        /// Which.
        leader: NodeId,
        /// In which epoch.
        leader_epoch: LeaderEpoch,
    },
    /// Leadership went away before the append was committed; it may or may not survive.
    LeadershipLost,
    /// Fewer in-sync replicas than `min.insync.replicas`.
    NotEnoughReplicas,
    /// The log ends elsewhere than the caller expected.
    ExpectedOffset {
        /// Where it ends.
        actual: Offset,
    },
    /// The leader is in another epoch than the caller expected.
    FencedLeaderEpoch {
        /// In which.
        current: LeaderEpoch,
    },
    /// A newer session of this producer exists.
    ProducerFenced {
        /// Its epoch.
        current_epoch: i16,
    },
    /// The partition does not know this session, the batch is not its first, and it may not begin in the middle
    /// ([`crate::Append::resumes`]).
    UnknownProducer,
    /// A gap or an old sequence.
    OutOfOrderSequence {
        /// The sequence that would be appended.
        expected: i32,
    },
    /// The first append of a transaction, and nobody has said that the coordinator knows of this partition. The
    /// rim registers it there, durably, and repeats with [`crate::Append::verified`]; clients never see this.
    TransactionUnverified,
    /// The transaction that the batch was verified for has ended, and left the producer its epoch: the batch may be
    /// late, or of the next one. Asked again, the coordinator knows.
    TransactionOver,
    /// The producer has an open transaction here that the batch is no part of, or a marker would end one that
    /// it does not belong to.
    InvalidTransactionState,
    /// A newer coordinator has ended a transaction of this producer.
    CoordinatorFenced {
        /// Its epoch.
        current_epoch: i32,
    },
    /// Too many open and aborted transactions on this partition.
    TooManyTransactions,
    /// No space; the append was undone.
    StorageFull,
    /// I/O failed; the append may or may not survive.
    StorageFailed,
}

impl Rejection {
    /// The kind that clients see.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        match self {
            Self::Offline => ErrorKind::LeaderNotAvailable,
            Self::NotLeader { .. } => ErrorKind::NotLeader,
            Self::LeadershipLost => ErrorKind::CommitTimeout,
            Self::NotEnoughReplicas => ErrorKind::NotEnoughReplicas,
            Self::ExpectedOffset { .. } => ErrorKind::ExpectedOffsetMismatch,
            Self::FencedLeaderEpoch { .. } => ErrorKind::FencedLeaderEpoch,
            Self::ProducerFenced { .. } => ErrorKind::ProducerFenced,
            Self::UnknownProducer => ErrorKind::UnknownProducer,
            Self::OutOfOrderSequence { .. } => ErrorKind::OutOfOrderSequence,
            // Clients would repeat a passing fault for ever.
            Self::TooManyTransactions => ErrorKind::PolicyViolation,
            Self::TransactionUnverified | Self::InvalidTransactionState => {
                ErrorKind::InvalidTransactionState
            }
            Self::TransactionOver => ErrorKind::ConcurrentTransactions,
            Self::CoordinatorFenced { .. } => ErrorKind::NotCoordinator,
            Self::StorageFull => ErrorKind::StorageFull,
            Self::StorageFailed => ErrorKind::StorageError,
        }
    }
}

/// What a follower may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchGrant {
    /// From here on.
    pub from: Offset,
    /// The leader's log is readable below this offset. Equal to `from`: wait for more.
    pub log_end: Offset,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's log start.
    pub log_start: Offset,
}

/// Why a follower gets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchRefusal {
    /// This node does not lead.
    NotLeader,
    /// The follower's leader epoch is older than this one (KIP-320).
    FencedLeaderEpoch(LeaderEpoch),
    /// The follower knows a newer epoch than this node.
    UnknownLeaderEpoch(LeaderEpoch),
    /// The node is not a replica here.
    NotReplica,
    /// A later run of that node has spoken already, or the message is older than one that was heard.
    Stale,
    /// The logs part: in the leader's log, the largest epoch not above the follower's ends here (KIP-595).
    Diverging {
        /// That epoch.
        epoch: LeaderEpoch,
        /// Its end in the leader's log.
        end_offset: Offset,
    },
    /// The leader's log begins after what was asked for, or all that is left of it is newer than the
    /// follower's last record: begin anew from here.
    OutOfRange {
        /// The beginning of the leader's log.
        log_start: Offset,
    },
}

/// What is wrong with what a leader sent. Nothing of it was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// Its batches do not follow the end of the log, or each other.
    NotContiguous,
    /// A batch has a leader epoch older than one before it, or newer than the leader's own.
    BadEpoch,
    /// Its answer asks to cut the log where that makes it no shorter.
    NoProgress,
    /// Its answer asks to cut below this replica's high watermark: committed records would go.
    BelowHighWatermark {
        /// Where it would have been cut.
        to: Offset,
    },
}

/// An output of [`crate::Core::step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write the ticket's batch at this offset, after everything written before.
    Write {
        /// Which batch.
        ticket: Ticket,
        /// Offset of its first record.
        base_offset: Offset,
        /// Epoch to stamp it with.
        leader_epoch: LeaderEpoch,
    },
    /// Answer the ticket.
    Answer {
        /// Which append.
        ticket: Ticket,
        /// Its result.
        result: Result<Accepted, Rejection>,
    },
    /// Consumers may read below this offset.
    HighWatermark(Offset),
    /// Consumers that read only what is committed by its transaction may read below this offset. Pushed when it
    /// moves; it never passes the high watermark.
    LastStable(Offset),
    /// Answer a follower's fetch; if it was granted nothing to read yet, once there is.
    AnswerFetch {
        /// Which fetch.
        ticket: Ticket,
        /// What it may read.
        result: Result<FetchGrant, FetchRefusal>,
    },
    /// Send a fetch to the leader. An earlier one is forgotten.
    Fetch {
        /// Names it.
        id: FetchId,
        /// Whom to ask.
        leader: NodeId,
        /// What to say.
        position: Position,
    },
    /// Tell the leader that more is flushed.
    Progress {
        /// Whom to tell.
        leader: NodeId,
        /// What to say.
        position: Position,
    },
    /// Write the batches of that answer as they are.
    WriteReplicated {
        /// Which fetch.
        id: FetchId,
        /// The log ends here afterwards.
        end: Offset,
    },
    /// Cut the log so that it ends here, then say [`crate::Input::Truncated`].
    Truncate(Offset),
    /// Throw the whole log away and begin an empty one here, then say [`crate::Input::Truncated`].
    Restart(Offset),
    /// The leader has removed records below this offset: remove them too.
    Trim(Offset),
    /// Ask the controller to change the in-sync replicas (KIP-497), repeatedly if need be.
    ProposeIsr {
        /// Epoch in which this node leads.
        leader_epoch: LeaderEpoch,
        /// Partition epoch the proposal builds on.
        partition_epoch: i32,
        /// In-sync replicas, ascending, each with the run it was heard from in this epoch, if it was.
        isr: Vec<(NodeId, Option<BrokerEpoch>)>,
    },
    /// What the leader sent was not applied. The partition goes on asking, unless the fault is
    /// [`Distrust::BelowHighWatermark`]: then it is out of service, and somebody must look.
    Distrust {
        /// Who sent it.
        leader: NodeId,
        /// What is wrong.
        why: Distrust,
    },
}
