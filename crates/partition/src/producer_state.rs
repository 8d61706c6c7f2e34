//! Idempotent producers of one partition (KIP-98): for each session the last five batches, so that a
//! repeated batch gets its old answer and a gap is refused. The table is derivable from the log;
//! [`ProducerTable::encode`] only saves reading it all again after a restart.
//!
//! Invariants: a session's epoch never decreases; a session remembers at most
//! `limits::PRODUCER_BATCHES_REMEMBERED` batches, contiguous in sequence.

use std::collections::{BTreeMap, VecDeque};

use varve_record::BatchHeader;
use varve_types::{Offset, ProducerId, Sequence, limits};

use crate::input::Replicated;
use crate::output::Rejection;

/// A remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) first: Sequence,
    pub(crate) base_offset: Offset,
    pub(crate) records: u32,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) epoch: i16,
    pub(crate) last_used_ms: i64,
    pub(crate) batches: VecDeque<Remembered>,
}

impl Session {
    fn next(&self) -> Sequence {
        self.batches
            .back()
            .map_or(Sequence::ZERO, |b| b.first.plus(b.records))
    }
}

/// What to do with an idempotent batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// New: append it.
    Append,
    /// Known: answer as then.
    Duplicate {
        /// Where it was appended.
        base_offset: Offset,
    },
}

/// Every session of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerTable {
    pub(crate) sessions: BTreeMap<i64, Session>,
    /// Sessions as they were before appends that are not written yet, newest last, each with the offset of its
    /// append.
    undo: Vec<(Offset, i64, Option<Session>)>,
}

impl ProducerTable {
    /// Judges a batch. Changes nothing.
    pub(crate) fn judge(
        &self,
        producer: ProducerId,
        sequence: Sequence,
        records: u32,
        now_ms: i64,
    ) -> Result<Verdict, Rejection> {
        let Some(session) = self.sessions.get(&producer.id) else {
            if sequence != Sequence::ZERO {
                return Err(Rejection::UnknownProducer);
            }
            let full = self.sessions.len() >= limits::PRODUCERS_PER_PARTITION_MAX;
            return if full && self.oldest_idle(now_ms).is_none() {
                Err(Rejection::TooManyProducers)
            } else {
                Ok(Verdict::Append)
            };
        };
        if producer.epoch < session.epoch {
            return Err(Rejection::ProducerFenced {
                current_epoch: session.epoch,
            });
        }
        let expected = if producer.epoch > session.epoch {
            Sequence::ZERO
        } else {
            session.next()
        };
        if sequence == expected {
            return Ok(Verdict::Append);
        }
        if producer.epoch == session.epoch {
            let known = session
                .batches
                .iter()
                .find(|b| b.first == sequence && b.records == records);
            if let Some(batch) = known {
                return Ok(Verdict::Duplicate {
                    base_offset: batch.base_offset,
                });
            }
        }
        Err(Rejection::OutOfOrderSequence {
            expected: expected.get(),
        })
    }

    /// Records an append that was judged [`Verdict::Append`]. Undone by [`Self::roll_back`] until
    /// [`Self::settle`] covers it.
    pub(crate) fn append(
        &mut self,
        producer: ProducerId,
        first: Sequence,
        records: u32,
        base_offset: Offset,
        now_ms: i64,
    ) {
        if self.sessions.len() >= limits::PRODUCERS_PER_PARTITION_MAX
            && !self.sessions.contains_key(&producer.id)
            && let Some(idle) = self.oldest_idle(now_ms)
        {
            let old = self.sessions.remove(&idle);
            self.undo.push((base_offset, idle, old));
        }
        let before = self.sessions.get(&producer.id).cloned();
        self.undo.push((base_offset, producer.id, before));
        self.note(producer, first, records, base_offset, now_ms);
    }

    fn note(
        &mut self,
        producer: ProducerId,
        first: Sequence,
        records: u32,
        base_offset: Offset,
        now_ms: i64,
    ) {
        let session = self.sessions.entry(producer.id).or_insert_with(|| Session {
            epoch: producer.epoch,
            last_used_ms: now_ms,
            batches: VecDeque::new(),
        });
        if producer.epoch != session.epoch {
            session.epoch = producer.epoch;
            session.batches.clear();
        }
        session.last_used_ms = session.last_used_ms.max(now_ms);
        if session.batches.len() == limits::PRODUCER_BATCHES_REMEMBERED {
            session.batches.pop_front();
        }
        session.batches.push_back(Remembered {
            first,
            base_offset,
            records,
        });
    }

    /// The appends below `end` are in the log: what is refused later does not undo them.
    pub(crate) fn settle(&mut self, end: Offset) {
        self.undo.retain(|(base_offset, ..)| *base_offset >= end);
    }

    /// The appends that no [`Self::settle`] has covered are not in the log.
    pub(crate) fn roll_back(&mut self) {
        while let Some((_, id, old)) = self.undo.pop() {
            match old {
                Some(session) => self.sessions.insert(id, session),
                None => self.sessions.remove(&id),
            };
        }
    }

    /// Learns from a batch that is in the log, when state is rebuilt after a restart.
    pub fn replay(&mut self, header: &BatchHeader) {
        if let Some((producer, first)) = header.producer() {
            let records = header.last_offset_delta.unsigned_abs().saturating_add(1);
            self.note(
                producer,
                first,
                records,
                header.base_offset,
                header.max_timestamp,
            );
        }
    }

    /// Learns from a batch as [`Self::replay`] does, when only its description is at hand.
    pub fn learn(&mut self, batch: &Replicated) {
        if let Some((producer, first)) = batch.producer {
            self.note(
                producer,
                first,
                batch.records,
                batch.base_offset,
                batch.max_timestamp,
            );
        }
    }

    /// Forgets sessions idle for longer than `limits::PRODUCER_IDLE_EXPIRY_MS`.
    pub fn expire(&mut self, now_ms: i64) {
        let oldest = now_ms.saturating_sub(limits::PRODUCER_IDLE_EXPIRY_MS);
        self.sessions.retain(|_, s| s.last_used_ms >= oldest);
    }

    /// The session that has been idle longest, if that is more than a day.
    fn oldest_idle(&self, now_ms: i64) -> Option<i64> {
        const DAY_MS: i64 = 86_400_000;
        let (id, session) = self.sessions.iter().min_by_key(|(_, s)| s.last_used_ms)?;
        (now_ms.saturating_sub(session.last_used_ms) > DAY_MS).then_some(*id)
    }

    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const P: ProducerId = ProducerId { id: 7, epoch: 1 };

    fn seq(n: i32) -> Sequence {
        Sequence::new(n).unwrap()
    }

    fn table() -> ProducerTable {
        let mut t = ProducerTable::default();
        for i in 0..7 {
            t.append(
                P,
                seq(i * 10),
                10,
                Offset::new(i64::from(i) * 10).unwrap(),
                1000,
            );
        }
        t.settle(Offset::new(70).unwrap());
        t
    }

    #[test]
    fn the_last_five_batches_are_remembered() {
        let t = table();
        assert_eq!(t.judge(P, seq(70), 1, 1000), Ok(Verdict::Append));
        for first in [20, 30, 40, 50, 60] {
            let base_offset = Offset::new(i64::from(first)).unwrap();
            assert_eq!(
                t.judge(P, seq(first), 10, 0),
                Ok(Verdict::Duplicate { base_offset })
            );
        }
        let gap = Err(Rejection::OutOfOrderSequence { expected: 70 });
        assert_eq!(t.judge(P, seq(10), 10, 0), gap, "forgotten");
        assert_eq!(t.judge(P, seq(80), 10, 0), gap, "a gap");
        assert_eq!(t.judge(P, seq(60), 9, 0), gap, "same start, other length");
    }

    #[test]
    fn epochs_fence() {
        let mut t = table();
        let old = ProducerId { epoch: 0, ..P };
        let new = ProducerId { epoch: 2, ..P };
        assert_eq!(
            t.judge(old, seq(70), 1, 0),
            Err(Rejection::ProducerFenced { current_epoch: 1 })
        );
        assert_eq!(
            t.judge(new, seq(70), 1, 0),
            Err(Rejection::OutOfOrderSequence { expected: 0 })
        );
        assert_eq!(t.judge(new, seq(0), 1, 0), Ok(Verdict::Append));
        t.append(new, seq(0), 1, Offset::new(70).unwrap(), 0);
        assert_eq!(
            t.judge(P, seq(70), 1, 0),
            Err(Rejection::ProducerFenced { current_epoch: 2 })
        );
    }

    #[test]
    fn unknown_sessions_start_at_zero() {
        let t = ProducerTable::default();
        assert_eq!(t.judge(P, seq(3), 1, 0), Err(Rejection::UnknownProducer));
        assert_eq!(t.judge(P, seq(0), 1, 0), Ok(Verdict::Append));
    }

    #[test]
    fn roll_back_restores_what_settle_kept() {
        let before = table();
        let mut t = before.clone();
        t.append(P, seq(70), 5, Offset::new(70).unwrap(), 2000);
        t.append(
            ProducerId { id: 9, epoch: 0 },
            seq(0),
            5,
            Offset::new(75).unwrap(),
            2000,
        );
        t.roll_back();
        assert_eq!(t, before);
    }

    /// A write ends while the next append waits, and that one then finds no space: the first is in the log, and
    /// its repeat must be known.
    #[test]
    fn roll_back_keeps_what_was_written_meanwhile() {
        let mut t = table();
        t.append(P, seq(70), 5, Offset::new(70).unwrap(), 2000);
        let written = t.clone();
        t.append(P, seq(75), 5, Offset::new(75).unwrap(), 2000);
        t.settle(Offset::new(75).unwrap());
        t.roll_back();
        assert_eq!(t.sessions, written.sessions);
        let base_offset = Offset::new(70).unwrap();
        assert_eq!(
            t.judge(P, seq(70), 5, 0),
            Ok(Verdict::Duplicate { base_offset })
        );
    }

    #[test]
    fn idle_sessions_expire() {
        let mut t = table();
        t.expire(1000 + limits::PRODUCER_IDLE_EXPIRY_MS);
        assert_eq!(t.len(), 1);
        t.expire(1001 + limits::PRODUCER_IDLE_EXPIRY_MS);
        assert!(t.is_empty());
    }

    #[test]
    fn snapshots_round_trip() {
        let t = table();
        assert_eq!(ProducerTable::decode(&t.encode()), Ok(t));
    }

    proptest! {
        #[test]
        fn arbitrary_snapshots_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ProducerTable::decode(&bytes);
        }

        #[test]
        fn truncated_snapshots_are_refused(cut in 0usize..100) {
            let bytes = table().encode();
            prop_assert!(ProducerTable::decode(&bytes[..bytes.len() - 1 - cut.min(bytes.len() - 1)]).is_err());
        }
    }
}
