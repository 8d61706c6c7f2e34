//! Producers of one partition (KIP-98): for each idempotent session the last five batches, so that a repeated
//! batch gets its old answer and a gap is refused, and for each transaction where it began and how it ended. The
//! table is derivable from the log; [`ProducerTable::encode`] only saves reading it all again after a restart.
//!
//! Invariants: a session's epoch never decreases; a session remembers at most
//! `limits::PRODUCER_BATCHES_REMEMBERED` batches, contiguous in sequence; a session has at most one open
//! transaction, of its own epoch, and is not forgotten while it has. Without one, the session that was used least
//! recently gives way when the table is full. Sessions age by the clocks of nodes, never by the times of clients. A
//! marker raises the session's epoch above that of the transaction it ends, so nothing that belongs to the transaction
//! can follow it (KIP-890). Where the producer keeps its epoch (KIP-98), markers are numbered, and what was verified
//! before the last one begins nothing. Of which kind an end is shows when it comes, so nothing is verified for longer
//! than that.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use varve_record::{BatchHeader, EndMarker, Marker};
use varve_types::{Offset, ProducerId, Sequence, limits};

use crate::input::{Append, Heard, Replicated, TransactionEnd, Verified};
use crate::output::Rejection;
use crate::planted::{self, Plant};
use crate::transactions::{Aborted, AbortedList, Transactions};

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
    /// First offset of the transaction that is open.
    pub(crate) open: Option<Offset>,
    /// Where the marker is that raised the session to this epoch, or the last one that ended a transaction of it.
    pub(crate) marker: Option<Offset>,
    /// Greatest coordinator epoch of a marker; -1 before the first.
    pub(crate) coordinator_epoch: i32,
    /// Which transaction of this epoch the last marker that kept the epoch has ended; 0: there was none.
    pub(crate) number: i64,
}

impl Session {
    pub(crate) const fn new(epoch: i16, last_used_ms: i64) -> Self {
        Self {
            epoch,
            last_used_ms,
            batches: VecDeque::new(),
            open: None,
            marker: None,
            coordinator_epoch: -1,
            number: 0,
        }
    }

    /// Where its next batch begins; `None`: wherever it says. What is left of a session in the log may be the end of a
    /// transaction alone: where it keeps the epoch, the sequences go on behind batches that retention has removed.
    /// Where it raised the epoch, the first of the new one begins anew.
    fn next(&self) -> Option<Sequence> {
        match self.batches.back() {
            Some(last) => Some(last.first.plus(last.records)),
            None if self.number > 0 => None,
            None => Some(Sequence::ZERO),
        }
    }

    /// Offset of the last that is known of it.
    fn last(&self) -> Option<Offset> {
        let batch = self.batches.back().map(|b| b.base_offset);
        batch.max(self.marker)
    }

    /// A newer session of the same producer begins.
    fn raise(&mut self, epoch: i16) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.batches.clear();
            self.marker = None;
            self.number = 0;
        }
    }
}

/// A session, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Active {
    /// Id and epoch.
    pub producer: ProducerId,
    /// Sequence of the last record; `None`: there is none in this epoch.
    pub last: Option<Sequence>,
    /// When it was last used, milliseconds since the Unix epoch.
    pub last_used_ms: i64,
    /// Greatest coordinator epoch of a marker; `None`: there was none.
    pub coordinator_epoch: Option<i32>,
    /// First offset of the transaction that is open.
    pub open: Option<Offset>,
}

/// What to do with a batch.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerTable {
    pub(crate) sessions: BTreeMap<i64, Session>,
    /// Sessions beyond which others give way.
    most: usize,
    pub(crate) transactions: Transactions,
    /// Sessions as they were before appends that are not written yet, newest last, each with the offset of its
    /// append.
    undo: Vec<(Offset, i64, Option<Session>)>,
}

impl Default for ProducerTable {
    fn default() -> Self {
        Self::restored(BTreeMap::new(), Transactions::default())
    }
}

impl ProducerTable {
    pub(crate) fn restored(sessions: BTreeMap<i64, Session>, transactions: Transactions) -> Self {
        Self {
            sessions,
            most: limits::PRODUCER_SESSIONS_MAX,
            transactions,
            undo: Vec::new(),
        }
    }

    /// From now on, sessions without an open transaction give way beyond this number, at least 1.
    pub fn bound(&mut self, most: usize) {
        self.most = most.max(1);
    }

    /// See [`Self::bound`].
    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    /// Judges a batch. Changes nothing.
    pub(crate) fn judge(&self, append: &Append) -> Result<Verdict, Rejection> {
        match (&append.marker, append.producer, append.unsequenced) {
            (Some(marker), ..) => self.judge_marker(marker),
            (None, Some((producer, sequence)), _) => self.judge_batch(append, producer, sequence),
            (None, None, Some(producer)) => {
                let session = self.sessions.get(&producer.id);
                self.judge_transaction(append, producer, session)?;
                Ok(Verdict::Append)
            }
            (None, None, None) => Ok(Verdict::Append),
        }
    }

    fn judge_batch(
        &self,
        append: &Append,
        producer: ProducerId,
        sequence: Sequence,
    ) -> Result<Verdict, Rejection> {
        let session = self.sessions.get(&producer.id);
        self.judge_transaction(append, producer, session)?;
        let Some(session) = session else {
            // Expired, given up for others, or gone with the log that it wrote to: a client's session outlives ours,
            // and goes on where it was (Kafka since 2.5).
            return if sequence == Sequence::ZERO || append.resumes {
                Ok(Verdict::Append)
            } else {
                Err(Rejection::UnknownProducer)
            };
        };
        let expected = if producer.epoch > session.epoch {
            Some(Sequence::ZERO)
        } else {
            session.next()
        };
        let Some(expected) = expected.filter(|expected| sequence != *expected) else {
            return Ok(Verdict::Append);
        };
        if producer.epoch == session.epoch {
            let same = |b: &&Remembered| b.first == sequence && b.records == append.records;
            if let Some(batch) = session.batches.iter().find(same) {
                return Ok(Verdict::Duplicate {
                    base_offset: batch.base_offset,
                });
            }
        }
        Err(Rejection::OutOfOrderSequence {
            expected: expected.get(),
        })
    }

    /// Whether the batch's session may write now, and into the transaction it says. Asked before the sequence:
    /// batches that follow the one that waits for the coordinator wait for it too, in order.
    fn judge_transaction(
        &self,
        append: &Append,
        producer: ProducerId,
        session: Option<&Session>,
    ) -> Result<(), Rejection> {
        if let Some(session) = session.filter(|s| producer.epoch < s.epoch) {
            return Err(Rejection::ProducerFenced {
                current_epoch: session.epoch,
            });
        }
        if append.transactional && Self::is_over(append.verified, producer, session) {
            return Err(Rejection::TransactionOver);
        }
        if let Some(session) = session.filter(|s| s.open.is_some()) {
            // The open one ends by its marker, and by nothing else.
            return match append.transactional && producer.epoch == session.epoch {
                true => Ok(()),
                false => Err(Rejection::InvalidTransactionState),
            };
        }
        if !append.transactional {
            return Ok(());
        }
        if append.verified == Verified::No && !planted::is(Plant::NoVerification) {
            return Err(Rejection::TransactionUnverified);
        }
        if self.transactions.is_full() {
            return Err(Rejection::TooManyTransactions);
        }
        Ok(())
    }

    /// Whether the transaction that a batch was verified for has ended since, and its session kept its epoch. The
    /// marker that raised the session to this epoch ended one of the epoch before, and says nothing of this one's.
    fn is_over(verified: Verified, producer: ProducerId, session: Option<&Session>) -> bool {
        let Verified::Since(end) = verified else {
            return false;
        };
        let session = session.filter(|s| s.epoch == producer.epoch && s.number > 0);
        let marker = session.and_then(|s| s.marker);
        marker.is_some_and(|at| at >= end)
    }

    /// A marker is never refused for lack of room: the session it leaves is what keeps late batches out. One
    /// that is repeated is not written again. It has the session's epoch then, while the transaction that it
    /// ended had a lower one, so it says nothing of a transaction that the session has begun since.
    fn judge_marker(&self, marker: &TransactionEnd) -> Result<Verdict, Rejection> {
        let Some(session) = self.sessions.get(&marker.producer.id) else {
            return Ok(Verdict::Append);
        };
        if marker.end.coordinator_epoch < session.coordinator_epoch {
            return Err(Rejection::CoordinatorFenced {
                current_epoch: session.coordinator_epoch,
            });
        }
        if marker.producer.epoch < session.epoch {
            return Err(Rejection::ProducerFenced {
                current_epoch: session.epoch,
            });
        }
        if marker.producer.epoch > session.epoch {
            return Ok(Verdict::Append);
        }
        if let Some(number) = marker.end.number {
            return Self::judge_number(session, number);
        }
        match (session.marker, session.open) {
            (Some(base_offset), _) => Ok(Verdict::Duplicate { base_offset }),
            (None, None) => Ok(Verdict::Append),
            (None, Some(_)) => Err(Rejection::InvalidTransactionState),
        }
    }

    /// A marker of the session's own epoch: the last one repeated is known by its number, and one before that is late
    /// and says nothing of what the session has begun since.
    fn judge_number(session: &Session, number: i64) -> Result<Verdict, Rejection> {
        if planted::is(Plant::MarkersUnnumbered) {
            return Ok(Verdict::Append);
        }
        match (number.cmp(&session.number), session.marker) {
            (Ordering::Greater, _) | (Ordering::Equal, None) => Ok(Verdict::Append),
            (Ordering::Equal, Some(base_offset)) => Ok(Verdict::Duplicate { base_offset }),
            (Ordering::Less, _) => Err(Rejection::ProducerFenced {
                current_epoch: session.epoch,
            }),
        }
    }

    /// Records an append that was judged [`Verdict::Append`]. Undone by [`Self::roll_back`] until
    /// [`Self::settle`] covers it.
    pub(crate) fn append(&mut self, append: &Append, base_offset: Offset, now_ms: i64) {
        let batch = Replicated {
            base_offset,
            end_offset: base_offset.plus(append.records.into()),
            leader_epoch: append.leader_epoch.unwrap_or_default(),
            producer: append.producer.filter(|_| append.marker.is_none()),
            unsequenced: append.unsequenced,
            records: append.records,
            max_timestamp: now_ms,
            transactional: append.transactional,
            marker: append.marker,
        };
        self.follow(&batch, Heard::Now(now_ms));
    }

    /// Learns from a batch that a leader has taken and that is not written here yet. Undone as
    /// [`Self::append`] is.
    pub(crate) fn follow(&mut self, batch: &Replicated, heard: Heard) {
        if let Some(id) = producer_of(batch) {
            for (idle, old) in self.make_room(id) {
                self.undo.push((batch.base_offset, idle, Some(old)));
            }
            let before = self.sessions.get(&id).cloned();
            self.undo.push((batch.base_offset, id, before));
            self.note_batch(batch, heard);
        }
    }

    /// Learns from a batch that is in the log.
    pub fn learn(&mut self, batch: &Replicated, heard: Heard) {
        if let Some(id) = producer_of(batch) {
            self.make_room(id);
            self.note_batch(batch, heard);
        }
    }

    /// Learns from a stored batch, when state is rebuilt after a restart. `end` is what a control batch says:
    /// see [`Replicated::of`].
    pub fn replay(&mut self, header: &BatchHeader, end: Option<EndMarker>, now_ms: i64) {
        self.learn(&Replicated::of(header, end), Heard::Late(now_ms));
    }

    /// A session comes: where the table is full, an eighth of it gives way, those that were used least recently. So
    /// many at a time that looking for them costs next to nothing per session.
    fn make_room(&mut self, new: i64) -> Vec<(i64, Session)> {
        if self.sessions.len() < self.most || self.sessions.contains_key(&new) {
            return Vec::new();
        }
        let keep = self.most - (self.most / 8).max(1);
        let ids = self.least_recent(self.sessions.len().saturating_sub(keep));
        let gone = ids.into_iter();
        gone.filter_map(|id| self.sessions.remove(&id).map(|old| (id, old)))
            .collect()
    }

    /// That many sessions without an open transaction, the least recently used.
    fn least_recent(&self, count: usize) -> Vec<i64> {
        let idle = self.sessions.iter().filter(|(_, s)| s.open.is_none());
        let mut idle: Vec<_> = idle
            .map(|(id, s)| (s.last_used_ms, s.last(), *id))
            .collect();
        if let Some(last) = count.checked_sub(1).filter(|last| *last < idle.len()) {
            if planted::is(Plant::EvictMostRecent) {
                idle.select_nth_unstable_by(last, |a, b| b.cmp(a));
            } else {
                idle.select_nth_unstable(last);
            }
            idle.truncate(count);
        }
        idle.into_iter().map(|(.., id)| id).collect()
    }

    fn note_batch(&mut self, batch: &Replicated, heard: Heard) {
        let used_ms = heard.used_ms(batch);
        match (batch.marker, batch.producer, batch.unsequenced) {
            (Some(marker), ..) => self.note_marker(&marker, batch.base_offset, used_ms),
            (None, Some((producer, first)), _) => self.note(producer, Some(first), batch, used_ms),
            (None, None, Some(producer)) => self.note(producer, None, batch, used_ms),
            (None, None, None) => {}
        }
    }

    fn note(
        &mut self,
        producer: ProducerId,
        first: Option<Sequence>,
        batch: &Replicated,
        used_ms: i64,
    ) {
        let session = self
            .sessions
            .entry(producer.id)
            .or_insert_with(|| Session::new(producer.epoch, used_ms));
        session.raise(producer.epoch);
        session.last_used_ms = session.last_used_ms.max(used_ms);
        if let Some(first) = first {
            if session.batches.len() == limits::PRODUCER_BATCHES_REMEMBERED {
                session.batches.pop_front();
            }
            session.batches.push_back(Remembered {
                first,
                base_offset: batch.base_offset,
                records: batch.records,
            });
        }
        if batch.transactional && session.open.is_none() {
            session.open = Some(batch.base_offset);
            self.transactions.moved(None, session.open);
        }
    }

    fn note_marker(&mut self, marker: &TransactionEnd, at: Offset, used_ms: i64) {
        let TransactionEnd { producer, end } = marker;
        let session = self
            .sessions
            .entry(producer.id)
            .or_insert_with(|| Session::new(producer.epoch, used_ms));
        if !planted::is(Plant::NoEpochBumpByMarker) {
            session.raise(producer.epoch);
        }
        session.last_used_ms = session.last_used_ms.max(used_ms);
        session.coordinator_epoch = session.coordinator_epoch.max(end.coordinator_epoch);
        session.number = session.number.max(end.number.unwrap_or(0));
        session.marker = Some(at);
        let open = session.open.take();
        self.transactions.moved(open, None);
        if let Some(first) = open {
            let aborted = end.marker == Marker::Abort;
            self.transactions.ended(producer.id, first, at, aborted);
        }
    }

    /// The appends below `end` are in the log: what is refused later does not undo them.
    pub(crate) fn settle(&mut self, end: Offset) {
        self.undo.retain(|(base_offset, ..)| *base_offset >= end);
    }

    /// The appends that no [`Self::settle`] has covered are not in the log.
    pub(crate) fn roll_back(&mut self) {
        if let Some((first, ..)) = self.undo.first() {
            self.transactions.cut(*first);
        }
        while let Some((_, id, old)) = self.undo.pop() {
            let open = old.as_ref().and_then(|session| session.open);
            let undone = match old {
                Some(session) => self.sessions.insert(id, session),
                None => self.sessions.remove(&id),
            };
            let undone = undone.and_then(|session| session.open);
            self.transactions.moved(undone, open);
        }
    }

    /// Forgets sessions idle for longer than `limits::PRODUCER_IDLE_EXPIRY_MS`.
    pub fn expire(&mut self, now_ms: i64) {
        let oldest = now_ms.saturating_sub(limits::PRODUCER_IDLE_EXPIRY_MS);
        self.sessions
            .retain(|_, s| s.last_used_ms >= oldest || s.open.is_some());
    }

    /// Forgets sessions that were last used before `used_ms`: the node remembers too many.
    pub fn give_way(&mut self, used_ms: i64) {
        self.sessions
            .retain(|_, s| s.last_used_ms >= used_ms || s.open.is_some());
    }

    /// When sessions that may give way were last used, milliseconds since the Unix epoch.
    pub fn idle(&self) -> impl Iterator<Item = i64> {
        let idle = self.sessions.values().filter(|s| s.open.is_none());
        idle.map(|s| s.last_used_ms)
    }

    /// Everything below `high_watermark` is committed. Said now and then while a table is rebuilt, it keeps the
    /// table from growing with every transaction of a long log.
    pub fn committed(&mut self, high_watermark: Offset) {
        self.transactions.stable_below(high_watermark);
    }

    /// See [`crate::Core::last_stable_offset`].
    pub(crate) fn stable_below(&mut self, high_watermark: Offset) -> Offset {
        self.transactions.stable_below(high_watermark)
    }

    /// The log begins at `start` now.
    pub(crate) fn trim(&mut self, start: Offset) {
        self.transactions.trim(start);
    }

    /// Only a planted bug forgets which transactions are open.
    pub(crate) fn forget_open(&mut self) {
        for session in self.sessions.values_mut() {
            self.transactions.moved(session.open.take(), None);
        }
    }

    /// Aborted transactions with an offset in `[from, to)`, by the offset of their marker. Their records are not
    /// for readers of committed ones: those of the same producer from `first` to `last`.
    pub fn aborted(&self, from: Offset, to: Offset) -> impl Iterator<Item = &Aborted> {
        self.aborted_list().overlapping(from, to)
    }

    /// Every aborted transaction that still has records in the log.
    #[must_use]
    pub const fn aborted_list(&self) -> &AbortedList {
        self.transactions.aborted()
    }

    /// The open transaction of each producer that has one: its id, epoch, and the offset of its first record.
    pub fn open(&self) -> impl Iterator<Item = (ProducerId, Offset)> {
        self.sessions.iter().filter_map(|(id, session)| {
            let producer = ProducerId {
                id: *id,
                epoch: session.epoch,
            };
            Some((producer, session.open?))
        })
    }

    /// Every session, by the id of its producer.
    pub fn active(&self) -> impl Iterator<Item = Active> {
        self.sessions.iter().map(|(id, session)| Active {
            producer: ProducerId {
                id: *id,
                epoch: session.epoch,
            },
            last: session
                .batches
                .back()
                .map(|b| b.first.plus(b.records.saturating_sub(1))),
            last_used_ms: session.last_used_ms,
            coordinator_epoch: (session.coordinator_epoch >= 0)
                .then_some(session.coordinator_epoch),
            open: session.open,
        })
    }

    /// Number of open transactions.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.transactions.open_count()
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

fn producer_of(batch: &Replicated) -> Option<i64> {
    let of_marker = batch.marker.map(|marker| marker.producer.id);
    let sequenced = batch.producer.map(|(producer, _)| producer.id);
    of_marker
        .or(sequenced)
        .or(batch.unsequenced.map(|producer| producer.id))
}

#[cfg(test)]
#[path = "producer_tests.rs"]
mod tests;
