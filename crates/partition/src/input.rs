//! What happens to a partition.

use varve_record::{BatchHeader, EndMarker};
use varve_types::{Acks, BrokerEpoch, LeaderEpoch, NodeId, Offset, ProducerId, Sequence, limits};

use crate::output::FetchRefusal;
use crate::producer_state::ProducerTable;

/// A day, in milliseconds.
pub(crate) const DAY_MS: i64 = 86_400_000;

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

/// The end of a producer's transaction in this partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionEnd {
    /// Whose. Its epoch is the one that the producer goes on with: greater than that of the transaction, or the same
    /// where the end is numbered.
    pub producer: ProducerId,
    /// How it ended, and who says so.
    pub end: EndMarker,
}

/// What is known of a partition's registration in the transaction that a batch belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verified {
    /// Nothing.
    #[default]
    No,
    /// The coordinator had durably registered this partition in the transaction of the batch's epoch at a time when
    /// this log ended here or later. A marker from here on that leaves the producer its epoch (KIP-98) says that this
    /// transaction is over. What kind of end a transaction will have is not known before it comes: a producer whose
    /// epoch was to be raised (KIP-890) may keep it after all.
    Since(Offset),
}

/// A verified batch, as far as deciding about it needs. [`Append::new`] has nothing special about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Append {
    /// Its name.
    pub ticket: Ticket,
    /// Number of records, `>= 1`.
    pub records: u32,
    /// Session and sequence of the first record, for idempotent producers.
    pub producer: Option<(ProducerId, Sequence)>,
    /// Session of a batch of a transaction that has no sequence: offsets that a coordinator commits for the
    /// producer. Such a batch is not recognised when it is repeated, which does no harm.
    pub unsequenced: Option<ProducerId>,
    /// Where nothing is known of the session, it goes on with this batch, whatever its sequence: no batch before this
    /// one is known to be missing. Otherwise only a first batch begins a session.
    pub resumes: bool,
    /// What the answer waits for.
    pub acks: Acks,
    /// Append only at this offset.
    pub expected_offset: Option<Offset>,
    /// Append only in this epoch of the leader: what the caller decided on was read in it.
    pub leader_epoch: Option<LeaderEpoch>,
    /// It belongs to a transaction of its producer.
    pub transactional: bool,
    /// Without it the first append of a transaction is refused with [`crate::Rejection::TransactionUnverified`].
    pub verified: Verified,
    /// It is a control batch of one record that ends a transaction. `producer` is `None` then.
    pub marker: Option<TransactionEnd>,
}

impl Append {
    /// A plain batch.
    #[must_use]
    pub const fn new(ticket: Ticket, records: u32, acks: Acks) -> Self {
        Self {
            ticket,
            records,
            producer: None,
            unsequenced: None,
            resumes: false,
            acks,
            expected_offset: None,
            leader_epoch: None,
            transactional: false,
            verified: Verified::No,
            marker: None,
        }
    }

    /// The batch that ends a transaction; committed before it is answered.
    #[must_use]
    pub const fn end_of_transaction(ticket: Ticket, end: TransactionEnd) -> Self {
        Self {
            marker: Some(end),
            ..Self::new(ticket, 1, Acks::All)
        }
    }
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

/// A batch that is in some log (it came from the leader, or was read back), as far as deciding about it and
/// learning from it needs. The rim has checked its CRC.
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
    /// Session of a batch of a transaction that has no sequence.
    pub unsequenced: Option<ProducerId>,
    /// Number of records the producer sent in it.
    pub records: u32,
    /// Greatest timestamp, milliseconds since the Unix epoch. A client's, most of the time: it says little of when the
    /// batch was appended.
    pub max_timestamp: i64,
    /// It has records of a transaction.
    pub transactional: bool,
    /// It ends a transaction.
    pub marker: Option<TransactionEnd>,
}

impl Replicated {
    /// What a stored batch tells. `end` is what a control batch says ([`varve_record::StoredBatch::end_marker`]),
    /// `None` for any other batch: this is all that is ever needed of a payload.
    #[must_use]
    pub fn of(header: &BatchHeader, end: Option<EndMarker>) -> Self {
        let ends = end.filter(|_| header.is_control()).zip(header.session());
        Self {
            base_offset: header.base_offset,
            end_offset: header.next_offset(),
            leader_epoch: header.leader_epoch,
            producer: header.producer().filter(|_| !header.is_control()),
            unsequenced: header.transaction_without_sequence(),
            // Compaction leaves fewer records than the producer sent, and the same offsets.
            records: header.last_offset_delta.unsigned_abs().saturating_add(1),
            max_timestamp: header.max_timestamp,
            // One that compaction emptied may outlive its marker: it opens nothing.
            transactional: header.is_transactional()
                && !header.is_control()
                && header.record_count > 0,
            marker: ends.map(|(end, producer)| TransactionEnd { producer, end }),
        }
    }
}

/// When a node comes to know a batch, by its wall clock in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// When it was appended, give or take the way from the leader.
    Now(i64),
    /// Some time after that: it was read back, or copied by a replica that is behind.
    Late(i64),
}

impl Heard {
    /// When the session of the batch counts as used. The time in a batch is its client's, so of one that was heard late
    /// nobody knows it. A session is not given up for an old time: it has a day from now on to be used again. It is
    /// not made younger than that either: its place may be wanted, and a log has the sessions of all its years.
    pub(crate) fn used_ms(self, batch: &Replicated) -> i64 {
        match self {
            Self::Now(ms) => ms,
            Self::Late(ms) => {
                let least = ms.saturating_sub(limits::PRODUCER_IDLE_EXPIRY_MS - DAY_MS);
                batch.max_timestamp.clamp(least, ms)
            }
        }
    }
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
    /// The fetch was held back and never sent, and one may go now. It is asked afresh: where the log ends was
    /// said when it was held back, and has been said again since.
    FetchHeld(FetchId),
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
