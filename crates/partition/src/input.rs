//! What happens to a partition.

use varve_types::{Acks, LeaderEpoch, Offset, ProducerId, Sequence};

/// Names one append between its arrival and its answer. Chosen by the rim, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A verified batch, as far as deciding about it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Append {
    /// Its name.
    pub ticket: Ticket,
    /// Number of records, `>= 1`.
    pub records: u32,
    /// Session and sequence of the first record, for idempotent producers.
    pub producer: Option<(ProducerId, Sequence)>,
    /// What the answer waits for.
    pub acks: Acks,
    /// Append only at this offset.
    pub expected_offset: Option<Offset>,
}

/// An input of [`crate::Core::step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// This node leads from here on, in this epoch, alone in sync.
    BecomeLeader(LeaderEpoch),
    /// A batch was offered.
    Append(Append),
    /// The log holds everything below this offset.
    Written(Offset),
    /// Everything below this offset is on stable storage.
    Flushed(Offset),
    /// The writes from this offset on were refused as a whole and undone (no space): the log ends
    /// here again and stays usable.
    WriteRefused(Offset),
    /// A write or flush failed: nothing more is acknowledged from this log by this process.
    StorageFailed,
    /// Records before this offset are gone (retention, DeleteRecords).
    LogStart(Offset),
}
