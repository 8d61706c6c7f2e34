//! What is known of the reader at the other end of a connection: how much one answer had better hold, whose turn it is,
//! and what is read ahead for it.
//!
//! An answer that is sent out of a CPU's cache costs half of one that is not, so answers are small where the reader
//! asks again soon, and larger the longer its questions take to come. A reader that has not shown yet that it reads
//! gets little at a time where much is on its way already, and nothing is read ahead for it.
//!
//! Invariants: an answer is never smaller than the reader wants to wait for; where answers are smaller than what it
//! allows, its partitions take turns.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use varve_types::{PartitionId, TopicName};

use crate::ahead::{Habit, Next, ReadAhead, Source};

/// What one answer holds of records at least, if there are as many: about what a CPU keeps close.
const LEAST_BYTES: usize = 1024 * 1024;
/// Bytes for each second that a question takes to come: so the wire is idle for a quarter of the time at 10 Gbit/s.
const BYTES_PER_SECOND: u64 = 4_000_000_000;
/// And for each partition that is asked for: looking at them all is part of an answer's cost.
const BYTES_PER_PARTITION: usize = 16 * 1024;
/// Time that a reader needs for the bytes of an answer, which is not the time that its question takes: 1 GB a second.
const READS_PER_MICROSECOND: u64 = 1000;

/// What the first answer of a connection holds of records where much is on its way, unless one batch is larger.
const FIRST_BYTES: usize = 64 * 1024;
/// An answer is at most this part of what the reader has taken before.
const TAKEN_PER_ANSWER: usize = 4;

/// A partition as readers name it.
pub(crate) type Place = (TopicName, PartitionId);

/// How long the question after an answer takes to come.
#[derive(Debug, Default)]
struct Pace {
    /// When the last answer was sent that nobody asks on before it has come, and bytes of records in it.
    sent: Option<(Instant, usize)>,
    shortest: Option<Duration>,
}

impl Pace {
    fn sent(&mut self, now: Instant, bytes: usize) {
        self.sent = Some((now, bytes));
    }

    fn asked(&mut self, now: Instant) {
        let Some((sent, bytes)) = self.sent.take() else {
            return;
        };
        let reads = u64::try_from(bytes).unwrap_or(u64::MAX) / READS_PER_MICROSECOND;
        let took = now.saturating_duration_since(sent);
        let took = took.saturating_sub(Duration::from_micros(reads));
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
    }

    fn most(&self) -> usize {
        let micros = self.shortest.map_or(0, |shortest| shortest.as_micros());
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        let bytes = micros.saturating_mul(BYTES_PER_SECOND / 1_000_000);
        usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .max(LEAST_BYTES)
    }
}

/// What a question is answered with.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) ahead: Option<ReadAhead>,
    most: usize,
    /// Bytes that are given to a reader which has taken as much as this one.
    trusted: usize,
    /// The partition that had its turn last.
    pub(crate) last: Option<Place>,
}

impl Turn {
    /// Bytes of records that the answer had better not exceed, if the reader asks for so many partitions and wants to
    /// wait for so many bytes. `quiet`: little is on its way to readers.
    pub(crate) fn most(&self, partitions: usize, min_bytes: usize, quiet: bool) -> usize {
        let for_all = partitions.saturating_mul(BYTES_PER_PARTITION);
        let trusted = match quiet {
            true => self.trusted.max(LEAST_BYTES),
            false => self.trusted,
        };
        self.most.max(for_all).min(trusted).max(min_bytes)
    }
}

/// What an answer leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Follows {
    /// What will most likely be asked.
    pub(crate) next: Option<Next>,
    pub(crate) last: Option<Place>,
    /// Bytes of records.
    pub(crate) bytes: usize,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Following {
    ahead: Option<ReadAhead>,
    habit: Habit,
    pace: Pace,
    last: Option<Place>,
    /// Bytes of the answer that is being sent.
    sending: Option<usize>,
    /// Bytes of answers that the socket has taken.
    taken: usize,
}

impl Following {
    /// A read has arrived.
    pub(crate) fn asked(&mut self) -> Turn {
        self.pace.asked(Instant::now());
        Turn {
            ahead: self.ahead.take(),
            most: self.pace.most(),
            trusted: self.trusted(),
            last: self.last.take(),
        }
    }

    /// A read is answered, and the answer is about to be sent.
    pub(crate) fn answered(&mut self, follows: Follows, source: impl FnOnce() -> Arc<dyn Source>) {
        let Follows { next, last, bytes } = follows;
        self.last = last;
        self.sending = Some(bytes);
        self.ahead = next
            .filter(|_| self.taken >= FIRST_BYTES)
            .and_then(|next| ReadAhead::new(source(), next, &mut self.habit));
    }

    /// The answer was sent.
    pub(crate) fn sent(&mut self) {
        if let Some(bytes) = self.sending.take() {
            self.pace.sent(Instant::now(), bytes);
            self.taken = self.taken.saturating_add(bytes);
        }
    }

    fn trusted(&self) -> usize {
        (self.taken / TAKEN_PER_ANSWER).max(FIRST_BYTES)
    }

    /// Reads a little more of what will be asked for, or lets it go when that has taken too long; nothing is lost where
    /// this is given up.
    pub(crate) async fn step(&mut self) {
        let waits = match &mut self.ahead {
            Some(ahead) => ahead.step().await,
            None => std::future::pending().await,
        };
        if !waits {
            self.ahead = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the next answer holds at most after these: bytes, and the time until the next question in microseconds.
    fn most(cycles: &[(usize, u64)]) -> usize {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for (bytes, micros) in cycles {
            pace.sent(now, *bytes);
            now += Duration::from_micros(*micros);
            pace.asked(now);
            now += Duration::from_millis(3);
        }
        pace.most()
    }

    #[test]
    fn answers_are_as_large_as_the_questions_are_slow() {
        const MIB: usize = 1 << 20;
        assert_eq!(most(&[]), MIB);
        // Beside the server: what it takes to read a megabyte does not count.
        assert_eq!(most(&[(0, 60)]), MIB);
        assert_eq!(most(&[(MIB, 1200)]), MIB);
        // A millisecond away, and an ocean.
        assert_eq!(most(&[(0, 1000)]), 4_000_000);
        assert_eq!(most(&[(MIB, 81_048)]), 320_000_000);
        // The shortest counts: at other times the reader was busy.
        assert_eq!(most(&[(0, 1000), (0, 70_000), (MIB, 90_000)]), 4_000_000);
        // Whoever asks for much at a time gets more, and nobody less than is waited for.
        let mut following = Following {
            taken: 1 << 40,
            ..Following::default()
        };
        let turn = following.asked();
        let mosts = [(8, 1), (1000, 1), (8, 5 * MIB)]
            .map(|(partitions, min)| turn.most(partitions, min, false));
        assert_eq!(mosts, [MIB, 1000 * 16 * 1024, 5 * MIB]);
    }

    #[test]
    fn a_reader_gets_little_until_it_has_read() {
        let mut following = Following::default();
        assert_eq!(following.asked().most(1000, 1, false), FIRST_BYTES);
        assert_eq!(following.asked().most(1000, 1, true), LEAST_BYTES);
        // It may wait for more than that.
        assert_eq!(following.asked().most(1000, 300_000, false), 300_000);
        let mut mosts = Vec::new();
        for _ in 0..30 {
            let bytes = following.asked().most(1, 1, false);
            mosts.push(bytes);
            following.sending = Some(bytes);
            following.sent();
        }
        assert!(mosts.is_sorted());
        assert_eq!(
            (mosts[0], mosts[1], mosts[29]),
            (FIRST_BYTES, FIRST_BYTES, LEAST_BYTES)
        );
    }
}
