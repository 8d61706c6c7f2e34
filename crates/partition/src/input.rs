//! What happens to a partition.

use varve_types::{Acks, BrokerEpoch, LeaderEpoch, NodeId, Offset, ProducerId, Sequence};

use crate::output::FetchRefusal;
use crate::producer_state::ProducerTable;

/// Names one append or one fetch of a follower between its arrival and its answer. Chosen by the rim,
/// never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds that only grow, from any origin. Decides who is in sync.
    pub mono_ms: u64,
    /// Wall clock in milliseconds since the Unix epoch. Only ages producer sessions.
    pub wall_ms: i64,
}

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
    /// Append only in this epoch of the leader: what the caller decided on was read in it.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// What the cluster's metadata says of the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Who leads; `None`: nobody at present.
    pub leader: Option<NodeId>,
    /// Epoch of that leader.
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change of this assignment: an older one is ignored.
    pub partition_epoch: i32,
    /// Nodes that hold the partition.
    pub replicas: Vec<NodeId>,
    /// Replicas in sync.
    pub isr: Vec<NodeId>,
    /// In-sync replicas without which nothing is committed, as the metadata counts them: it comes with the
    /// assignment, so that leader and controller always go by the same number (KIP-966).
    pub min_isr: usize,
    /// The last leader epoch that began with an unclean election, if one ever did.
    pub unclean_epoch: Option<LeaderEpoch>,
}

/// How far a follower's log reaches, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The follower.
    pub from: NodeId,
    /// Its registration: what an earlier run of it said counts no more (KIP-903).
    pub broker_epoch: BrokerEpoch,
    /// Leader epoch it follows.
    pub leader_epoch: LeaderEpoch,
    /// Newest change of the assignment that it knows. What it said before the leader's newest is no reason
    /// to take it in: it may have been removed and added again since.
    pub partition_epoch: i32,
    /// Grows with every message of one run: a late message is no evidence.
    pub sequence: u64,
    /// Its log ends here; it asks for what follows.
    pub log_end: Offset,
    /// Leader epoch of its last record; `None`: its log is empty.
    pub last_epoch: Option<LeaderEpoch>,
    /// It has everything below on stable storage.
    pub flushed: Offset,
}

/// Names one fetch that a follower has under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// A batch that came from the leader, as far as deciding about it needs. The rim has checked its CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicated {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// One past its last offset.
    pub end_offset: Offset,
    /// Epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// Session and sequence of the first record, for idempotent producers.
    pub producer: Option<(ProducerId, Sequence)>,
    /// Number of records the producer sent in it.
    pub records: u32,
    /// Greatest timestamp, milliseconds since the Unix epoch.
    pub max_timestamp: i64,
}

/// What a leader answered a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Batches in order, from the asked offset on; may be empty.
    pub batches: Vec<Replicated>,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's log start.
    pub log_start: Offset,
}

/// Why the controller refused an ISR change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsrRefusal {
    /// The metadata has moved on; the news is on its way.
    Stale,
    /// A proposed replica may not be in sync now (fenced, shutting down, another run).
    Ineligible(NodeId),
}

/// An input of [`crate::Core::step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The metadata changed.
    Assign(Assignment),
    /// This node registered (again): what it says from here on carries this epoch.
    Registered(BrokerEpoch),
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
    /// A follower asks for records.
    ReplicaFetch {
        /// Names the answer.
        ticket: Ticket,
        /// How far its log reaches.
        position: Position,
    },
    /// A follower has flushed more since it asked.
    ReplicaProgress(Position),
    /// The leader answered.
    Fetched {
        /// Which fetch.
        id: FetchId,
        /// Its answer.
        result: Result<Fetched, FetchRefusal>,
    },
    /// No answer will come: the connection is gone, or the wait was too long.
    FetchFailed(FetchId),
    /// The log was cut, or begun anew, as asked.
    Truncated {
        /// Oldest offset now.
        log_start: Offset,
        /// One past the last record now.
        log_end: Offset,
        /// Of that, on stable storage.
        flushed: Offset,
        /// Producer sessions as the remaining log has them.
        producers: ProducerTable,
    },
    /// The controller will not make the ISR change that was proposed on this partition epoch.
    IsrRefused {
        /// Partition epoch of the proposal.
        partition_epoch: i32,
        /// Why.
        why: IsrRefusal,
    },
    /// Time has passed.
    Tick,
}
