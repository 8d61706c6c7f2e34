//! What a partition decided. The rim performs outputs in order.

use varve_types::{ErrorKind, LeaderEpoch, Offset};

use crate::input::Ticket;

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
    /// This node does not lead, or the partition is offline.
    Offline,
    /// Fewer in-sync replicas than `min.insync.replicas`.
    NotEnoughReplicas,
    /// The log ends elsewhere than the caller expected.
    ExpectedOffset {
        /// Where it ends.
        actual: Offset,
    },
    /// A newer session of this producer exists.
    ProducerFenced {
        /// Its epoch.
        current_epoch: i16,
    },
    /// The partition does not know this session, and the batch is not its first.
    UnknownProducer,
    /// A gap or an old sequence.
    OutOfOrderSequence {
        /// The sequence that would be appended.
        expected: i32,
    },
    /// Too many producer sessions on this partition.
    TooManyProducers,
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
            Self::NotEnoughReplicas => ErrorKind::NotEnoughReplicas,
            Self::ExpectedOffset { .. } => ErrorKind::ExpectedOffsetMismatch,
            Self::ProducerFenced { .. } => ErrorKind::ProducerFenced,
            Self::UnknownProducer => ErrorKind::UnknownProducer,
            Self::OutOfOrderSequence { .. } => ErrorKind::OutOfOrderSequence,
            Self::TooManyProducers => ErrorKind::Throttled,
            Self::StorageFull => ErrorKind::StorageFull,
            Self::StorageFailed => ErrorKind::StorageError,
        }
    }
}

/// An output of [`crate::Core::step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}
