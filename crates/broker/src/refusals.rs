//! What batches of idempotent producers were refused a moment ago without being appended, so that those behind them
//! are refused for the same reason.
//!
//! A producer has several batches under way. When one is refused for want of space, the next one comes out of
//! sequence, and "out of order" would tell its producer that something is lost: librdkafka takes a new epoch then, and
//! writes twice what it has under way elsewhere. Nothing is lost: the producer repeats the first, and then the next.
//!
//! Invariants: a batch is excused only by the very batch that the log waits for; a refusal that may have left records,
//! or that no repeat would mend, excuses nothing; an excuse ends with its leadership, and soon. One thing is decided on
//! it: a session that the log does not know goes on in the middle only if no batch of it was refused.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use varve_broker_api::Error;
use varve_partition::Rejection;
use varve_types::{ErrorKind, Outcome, ProducerId, Retry, Sequence, TopicPartition};
use varve_vfs::{Clock, Tick};

/// How many refusals of a partition are remembered: five under way, of each of some dozens of producers.
const REMEMBERED: usize = 256;
/// For how long. Clients give a record up after two minutes, unless they are told otherwise.
const FOR: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Refused {
    producer: ProducerId,
    sequence: Sequence,
    error: Error,
    at: Tick,
}

/// The refusals of one partition, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<VecDeque<Refused>>);

impl Refusals {
    /// Remembers that a batch was refused, if a repeat of it may be taken.
    pub(crate) fn note(&self, batch: Option<(ProducerId, Sequence)>, error: &Error, now: Tick) {
        let Some((producer, sequence)) = batch else {
            return;
        };
        if error.outcome() != Outcome::NotApplied || error.retry() != Retry::Later {
            return;
        }
        let mut refused = self.0.lock();
        refused.retain(|r| (r.producer, r.sequence) != (producer, sequence));
        if refused.len() >= REMEMBERED {
            refused.pop_front();
        }
        refused.push_back(Refused {
            producer,
            sequence,
            error: error.clone(),
            at: now,
        });
    }

    /// A batch begins to wait for room. Where nobody waits for it any more before there is some, it counts as refused.
    pub(crate) fn waiting<'a>(
        &'a self,
        batch: Option<(ProducerId, Sequence)>,
        clock: &'a dyn Clock,
    ) -> Waiting<'a> {
        Waiting {
            refusals: self,
            batch,
            clock,
        }
    }

    /// Whether no batch of that session was refused a moment ago: then none before this one is known to be missing.
    pub(crate) fn is_clear_of(&self, batch: Option<(ProducerId, Sequence)>, now: Tick) -> bool {
        let refused = self.0.lock();
        let recent = refused.iter().filter(|r| now.since(r.at) <= FOR);
        !recent
            .into_iter()
            .any(|r| batch.is_some_and(|(producer, _)| producer == r.producer))
    }

    /// The error of a batch that came out of sequence because the one that the log waits for was refused.
    pub(crate) fn excuse(
        &self,
        id: &TopicPartition,
        batch: Option<(ProducerId, Sequence)>,
        rejection: Rejection,
        now: Tick,
    ) -> Option<Error> {
        let awaited = match rejection {
            Rejection::UnknownProducer => Sequence::ZERO,
            Rejection::OutOfOrderSequence { expected } => Sequence::new(expected)?,
            _ => return None,
        };
        let (producer, sequence) = batch?;
        let mut refused = self.0.lock();
        while refused.front().is_some_and(|r| now.since(r.at) > FOR) {
            refused.pop_front();
        }
        let first = refused
            .iter()
            .find(|r| (r.producer, r.sequence) == (producer, awaited))?;
        let text = format!(
            "partition {id} waits for sequence {} of this producer, which it refused ({}); nothing \
             was appended; send that one again first, then sequence {}",
            awaited.get(),
            first.error.kind.reason(),
            sequence.get(),
        );
        Some(Error {
            message: text,
            ..first.error.clone()
        })
    }

    /// Another leadership begins, or none.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }
}

/// A batch that waits for room. Dropped, it was refused: whoever sent it was told so, or is told nothing and repeats.
pub(crate) struct Waiting<'a> {
    refusals: &'a Refusals,
    batch: Option<(ProducerId, Sequence)>,
    clock: &'a dyn Clock,
}

impl Waiting<'_> {
    /// There is room.
    pub(crate) fn over(mut self) {
        self.batch = None;
    }

    /// It was refused for this reason.
    pub(crate) fn refused(mut self, error: Error) -> Error {
        let batch = self.batch.take();
        self.refusals.note(batch, &error, self.clock.now());
        error
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.batch.is_some() {
            let text = "the broker had no room for the records in time; nothing was appended; try \
                again";
            let error = Error::new(ErrorKind::Throttled, text);
            let now = self.clock.now();
            self.refusals.note(self.batch, &error, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use varve_types::{PartitionId, TopicName};
    use varve_vfs::ManualClock;

    use super::*;

    const P: ProducerId = ProducerId { id: 7, epoch: 0 };

    fn batch(sequence: i32) -> Option<(ProducerId, Sequence)> {
        Some((P, Sequence::new(sequence).unwrap()))
    }

    fn at(seconds: u64) -> Tick {
        Tick::from_start(Duration::from_secs(seconds))
    }

    fn full() -> Error {
        Error::new(ErrorKind::StorageFull, "no space").after(Duration::from_secs(5))
    }

    fn excuse(refusals: &Refusals, sequence: i32, rejection: Rejection) -> Option<ErrorKind> {
        let id = TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(0));
        let error = refusals.excuse(&id, batch(sequence), rejection, at(60))?;
        assert!(error.message.contains("nothing was appended"), "{error:?}");
        assert_eq!(error.retry_after, Some(Duration::from_secs(5)));
        Some(error.kind)
    }

    #[test]
    fn a_batch_behind_one_that_was_refused_is_refused_for_the_same_reason() {
        let refusals = Refusals::default();
        let gap = |expected| Rejection::OutOfOrderSequence { expected };
        assert_eq!(excuse(&refusals, 9, gap(5)), None);
        refusals.note(batch(5), &full(), at(50));
        refusals.note(batch(6), &full(), at(50));
        assert_eq!(excuse(&refusals, 9, gap(5)), Some(ErrorKind::StorageFull));
        // The first was taken in the meantime, the second was not.
        assert_eq!(excuse(&refusals, 9, gap(6)), Some(ErrorKind::StorageFull));
        assert_eq!(excuse(&refusals, 9, gap(7)), None);
        // Of its own session only, and of what is about sequences only.
        refusals.note(
            Some((ProducerId { id: 7, epoch: 1 }, Sequence::ZERO)),
            &full(),
            at(50),
        );
        assert_eq!(excuse(&refusals, 9, Rejection::UnknownProducer), None);
        refusals.note(batch(0), &full(), at(50));
        let unknown = excuse(&refusals, 9, Rejection::UnknownProducer);
        assert_eq!(unknown, Some(ErrorKind::StorageFull));
        let fenced = Rejection::ProducerFenced { current_epoch: 3 };
        assert_eq!(excuse(&refusals, 9, fenced), None);
        refusals.forget();
        assert_eq!(excuse(&refusals, 9, gap(5)), None);
    }

    #[test]
    fn what_no_repeat_mends_and_what_may_be_there_excuse_nothing() {
        let refusals = Refusals::default();
        for kind in [
            ErrorKind::RecordTooLarge,
            ErrorKind::CommitTimeout,
            ErrorKind::NotLeader,
            ErrorKind::OutOfOrderSequence,
        ] {
            refusals.note(batch(5), &Error::new(kind, "no"), at(50));
        }
        refusals.note(None, &full(), at(50));
        let gap = Rejection::OutOfOrderSequence { expected: 5 };
        assert_eq!(excuse(&refusals, 9, gap), None);
    }

    #[test]
    fn a_batch_that_waits_for_room_in_vain_is_refused() {
        let (refusals, clock) = (Refusals::default(), ManualClock::new(0));
        let gap = |expected| Rejection::OutOfOrderSequence { expected };
        refusals.waiting(batch(5), &clock).over();
        assert_eq!(excuse(&refusals, 9, gap(5)), None, "there was room");
        let error = refusals.waiting(batch(5), &clock).refused(full());
        assert_eq!(error.kind, ErrorKind::StorageFull);
        assert_eq!(excuse(&refusals, 9, gap(5)), Some(ErrorKind::StorageFull));
        drop(refusals.waiting(batch(6), &clock));
        let id = TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(0));
        let told = refusals.excuse(&id, batch(9), gap(6), at(1));
        let kind = told.map(|error| error.kind);
        assert_eq!(kind, Some(ErrorKind::Throttled), "nobody waits any more");
    }

    #[test]
    fn refusals_are_forgotten_after_a_while_and_when_there_are_many() {
        let refusals = Refusals::default();
        refusals.note(batch(5), &full(), Tick::ZERO);
        let gap = Rejection::OutOfOrderSequence { expected: 5 };
        assert_eq!(excuse(&refusals, 9, gap), Some(ErrorKind::StorageFull));
        let id = TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(0));
        assert_eq!(refusals.excuse(&id, batch(9), gap, at(121)), None);
        for sequence in 0..1_000 {
            refusals.note(batch(sequence), &full(), at(50));
        }
        assert_eq!(refusals.0.lock().len(), REMEMBERED);
        assert_eq!(excuse(&refusals, 9, gap), None);
    }
}
