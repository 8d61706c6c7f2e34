//! The log of one partition on one simulated disk: what was written, how far it was flushed, and what a
//! kill or a power cut leaves of it.

use varve_partition::{Epochs, Heard, ProducerTable, Recovered, Replicated, TransactionEnd};
use varve_types::config::Durability;
use varve_types::{LeaderEpoch, Offset, ProducerId, Sequence};

use crate::rng::Rng;

/// Producer sessions that a partition remembers. More than producers that live for one batch can begin while another
/// repeats its own ([`super::clients`]): those that are in use never have to give way.
const SESSIONS_MAX: usize = 512;

/// What kind of batch it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not of a transaction.
    Plain,
    /// Part of a transaction of its producer.
    Transactional,
    /// Offsets that the group's coordinator commits in that producer's transaction.
    Offsets(ProducerId),
    /// The end of one.
    Marker(TransactionEnd),
}

impl Kind {
    /// The session whose transaction the offsets belong to.
    pub(super) const fn offsets_of(self) -> Option<ProducerId> {
        match self {
            Self::Offsets(producer) => Some(producer),
            Self::Plain | Self::Transactional | Self::Marker(_) => None,
        }
    }

    pub(super) const fn is_transactional(self) -> bool {
        matches!(self, Self::Transactional | Self::Offsets(_))
    }

    pub(super) const fn marker(self) -> Option<TransactionEnd> {
        match self {
            Self::Marker(end) => Some(end),
            Self::Plain | Self::Transactional | Self::Offsets(_) => None,
        }
    }
}

/// A batch. Its value is unique among everything that is ever sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) base: Offset,
    pub(super) records: u32,
    pub(super) epoch: LeaderEpoch,
    pub(super) value: u64,
    pub(super) producer: Option<(ProducerId, Sequence)>,
    pub(super) kind: Kind,
}

impl Batch {
    pub(super) fn end(&self) -> Offset {
        self.base.plus(self.records.into())
    }

    pub(super) fn replicated(&self) -> Replicated {
        Replicated {
            base_offset: self.base,
            end_offset: self.end(),
            leader_epoch: self.epoch,
            producer: self.producer,
            unsequenced: self.kind.offsets_of(),
            records: self.records,
            // Clients may say what they like: nothing that matters goes by it.
            max_timestamp: 0,
            transactional: self.kind.is_transactional(),
            marker: self.kind.marker(),
        }
    }
}

/// What is on the disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    pub(super) batches: Vec<Batch>,
    pub(super) start: Offset,
    /// Everything below survives a power cut.
    pub(super) flushed: Offset,
    /// High watermark as it was last saved.
    pub(super) saved_high_watermark: Offset,
    /// Producer sessions as of the log's start, as a snapshot keeps them.
    sessions: ProducerTable,
}

impl Log {
    pub(super) fn end(&self) -> Offset {
        self.batches.last().map_or(self.start, Batch::end)
    }

    /// The batch that holds an offset.
    pub(super) fn at(&self, offset: Offset) -> Option<&Batch> {
        let after = self.batches.partition_point(|b| b.base <= offset);
        let batch = self.batches.get(after.checked_sub(1)?)?;
        (offset < batch.end()).then_some(batch)
    }

    pub(super) fn from(&self, offset: Offset, most: usize) -> Vec<Batch> {
        // As a real log does: the first is the one that holds the offset.
        let first = self.batches.partition_point(|b| b.end() <= offset);
        self.batches[first..].iter().copied().take(most).collect()
    }

    pub(super) fn truncate(&mut self, end: Offset) {
        self.batches.retain(|b| b.end() <= end);
        self.flushed = self.flushed.min(self.end());
    }

    pub(super) fn restart(&mut self, at: Offset) {
        *self = Self {
            batches: Vec::new(),
            start: at,
            flushed: at,
            saved_high_watermark: at,
            sessions: ProducerTable::default(),
        };
    }

    /// Drops whole batches below `to`, which begins one or is the end.
    pub(super) fn trim(&mut self, to: Offset, wall_ms: i64) {
        for batch in self.batches.iter().filter(|b| b.end() <= to) {
            self.sessions
                .learn(&batch.replicated(), Heard::Late(wall_ms));
        }
        self.batches.retain(|b| b.end() > to);
        self.start = self.start.max(to);
        self.flushed = self.flushed.max(self.start);
    }

    /// The power goes: some part of what was not flushed stays, from the front.
    pub(super) fn power_cut(&mut self, rng: &mut Rng) -> u64 {
        let loose = self.batches.iter().filter(|b| b.end() > self.flushed);
        let keep = rng.below(loose.count() as u64 + 1) as usize;
        let firm = self.batches.partition_point(|b| b.end() <= self.flushed);
        let lost = self.batches.len() - firm.saturating_add(keep).min(self.batches.len());
        self.batches.truncate(firm + keep);
        lost as u64
    }

    /// Opens it: everything found is made durable first (rule 14).
    pub(super) fn open(&mut self, wall_ms: i64) -> Recovered {
        self.flushed = self.end();
        Recovered {
            log_start: self.start,
            log_end: self.end(),
            high_watermark: self.saved_high_watermark,
            epochs: self.epochs(),
            producers: self.producers(wall_ms),
        }
    }

    fn epochs(&self) -> Epochs {
        let mut entries: Vec<(LeaderEpoch, Offset)> = Vec::new();
        for batch in &self.batches {
            if entries
                .last()
                .is_none_or(|(epoch, _)| *epoch != batch.epoch)
            {
                entries.push((batch.epoch, batch.base));
            }
        }
        Epochs::new(entries).unwrap_or_default()
    }

    pub(super) fn producers(&self, wall_ms: i64) -> ProducerTable {
        let mut table = self.sessions.clone();
        table.bound(SESSIONS_MAX);
        for batch in &self.batches {
            table.learn(&batch.replicated(), Heard::Late(wall_ms));
        }
        table
    }

    /// How far the log would survive the loss of power, under what the topic promises.
    pub(super) fn durable(&self, durability: Durability) -> Offset {
        match durability {
            Durability::Fsync => self.flushed,
            Durability::Replicated => self.end(),
        }
    }
}
