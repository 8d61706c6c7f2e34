//! Reading ahead: what a reader will most likely ask for next is read while its last answer is being sent. In this
//! protocol one answer follows one question, so that the disk, the page cache and the wire would otherwise wait for
//! each other.
//!
//! Invariants: bytes are kept, and never what is said of a partition: whether it is served here, where it begins and
//! how far it is committed is asked when the question comes, and what was read is given only if topic and leadership
//! are still the same. Nothing is kept that ends where the partition ended, so nobody gets less for it. Bytes that are
//! kept count among those on their way, and are let go after [`KEPT_FOR`]; a reader that asks for something else is
//! read ahead for less often.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use varve_broker_api::{
    Context, Error, Fetch, FetchPartition, Fetched, Isolation, PartitionFetched, Unread,
};
use varve_types::{PartitionId, TopicId, TopicName};

/// Longest time for which bytes wait for the question.
pub(crate) const KEPT_FOR: Duration = Duration::from_millis(500);
/// A reader that had no use for what was kept so many times in a row is read ahead for once in 64 answers.
const USELESS_MOST: u32 = 6;

/// Where records come from.
pub(crate) trait Source: Send + Sync {
    /// As the broker reads.
    fn read<'a>(
        &'a self,
        ctx: &'a Context,
        fetch: Fetch,
    ) -> BoxFuture<'a, Result<Vec<PartitionFetched>, Error>>;
    /// Which topic has that name at present.
    fn topic(&self, name: &TopicName) -> Option<TopicId>;
    /// Bytes that may be kept at present.
    fn room(&self) -> usize;
    /// Counts bytes until the guard is dropped.
    fn hold(&self, bytes: usize) -> Unread;
    /// Counts what became of bytes that were read ahead.
    fn note(&self, bytes: usize, used: bool);
}

/// What a reader will most likely ask for.
#[derive(Debug)]
pub(crate) struct Next {
    ctx: Context,
    isolation: Isolation,
    /// In the order of preference that is to be expected.
    partitions: VecDeque<FetchPartition>,
    max_bytes: usize,
}

impl Next {
    /// What follows from an answer. `left_out`: partitions of which the answer has nothing, whatever was found.
    /// `None`: there is nothing more, or nothing was wanted.
    pub(crate) fn after(
        ctx: &Context,
        fetch: &Fetch,
        found: &[PartitionFetched],
        left_out: impl Fn(&FetchPartition) -> bool,
    ) -> Option<Self> {
        let (mut first, mut then) = (VecDeque::new(), Vec::new());
        for (asked, found) in fetch.partitions.iter().zip(found) {
            let Ok(read) = &found.result else {
                continue;
            };
            if left_out(asked) || read.next_offset >= read.end(fetch.isolation) {
                continue;
            }
            let next = FetchPartition {
                offset: read.next_offset,
                leader_epoch: None,
                ..asked.clone()
            };
            // Those for which there was no room come first in the reader's next turn.
            match read.batches.is_empty() {
                true => first.push_back(next),
                false => then.push(next),
            }
        }
        if then.is_empty() {
            return None;
        }
        first.extend(then);
        Some(Self {
            ctx: ctx.clone(),
            isolation: fetch.isolation,
            partitions: first,
            max_bytes: fetch.max_bytes,
        })
    }
}

/// Whether reading ahead has been of use to a reader.
#[derive(Debug, Clone, Default)]
pub(crate) struct Habit {
    /// Times in a row that it was of none.
    useless: Arc<AtomicU32>,
    answers: u32,
}

impl Habit {
    /// Whether to read ahead after this answer.
    fn wants(&mut self) -> bool {
        self.answers = self.answers.wrapping_add(1);
        let useless = self.useless.load(Ordering::Relaxed).min(USELESS_MOST);
        self.answers.is_multiple_of(1 << useless)
    }
}

/// Bytes of one partition.
struct Part {
    asked: FetchPartition,
    topic: Option<TopicId>,
    read: Fetched,
    _held: Unread,
}

/// A read that is under way.
struct Reading {
    asked: FetchPartition,
    topic: Option<TopicId>,
    found: BoxFuture<'static, Option<Fetched>>,
}

/// What is read for a question that has not come yet.
pub(crate) struct ReadAhead {
    source: Arc<dyn Source>,
    next: Next,
    /// Bytes that were read.
    bytes: usize,
    reading: Option<Reading>,
    parts: HashMap<(TopicName, PartitionId), Part>,
    /// When it is let go.
    until: Instant,
    habit: Arc<AtomicU32>,
    used: bool,
}

impl ReadAhead {
    /// `None`: the reader had no use for it the last times.
    pub(crate) fn new(source: Arc<dyn Source>, next: Next, habit: &mut Habit) -> Option<Self> {
        habit.wants().then(|| Self {
            source,
            next,
            bytes: 0,
            reading: None,
            parts: HashMap::new(),
            until: Instant::now() + KEPT_FOR,
            habit: Arc::clone(&habit.useless),
            used: false,
        })
    }

    /// Reads one partition more; nothing is lost where this is given up. Resolves to false when it has waited long
    /// enough for the question.
    pub(crate) async fn step(&mut self) -> bool {
        if self.reading.is_none() {
            self.reading = self.begin();
        }
        match &mut self.reading {
            Some(reading) => {
                let found = reading.found.as_mut().await;
                if let Some(done) = self.reading.take() {
                    self.keep(done, found);
                }
                true
            }
            None => {
                tokio::time::sleep_until(self.until).await;
                false
            }
        }
    }

    fn begin(&mut self) -> Option<Reading> {
        // As the broker: once half of an answer is there, the rest would mostly be read in vain.
        let most = self.next.max_bytes;
        if self.bytes > most / 2 || self.source.room() <= self.bytes {
            self.next.partitions.clear();
        }
        let asked = self.next.partitions.pop_front()?;
        let fetch = Fetch {
            partitions: vec![FetchPartition {
                max_bytes: asked.max_bytes.min(most - self.bytes),
                ..asked.clone()
            }],
            ..look(self.next.isolation)
        };
        let fetch = Fetch {
            max_bytes: most - self.bytes,
            ..fetch
        };
        let (source, ctx) = (Arc::clone(&self.source), self.next.ctx.clone());
        let topic = source.topic(&asked.topic);
        let found = Box::pin(async move {
            let mut found = source.read(&ctx, fetch).await.ok()?;
            found.pop()?.result.ok()
        });
        Some(Reading {
            asked,
            topic,
            found,
        })
    }

    fn keep(&mut self, reading: Reading, found: Option<Fetched>) {
        let Reading { asked, topic, .. } = reading;
        let Some(read) = found else {
            return;
        };
        let bytes = read.batches.len();
        self.bytes += bytes;
        // What reaches the end of the partition is asked for anew: there may be more of it by then.
        let ends = read.next_offset >= read.end(self.next.isolation);
        if bytes == 0 || bytes > asked.max_bytes || ends {
            self.source.note(bytes, false);
            return;
        }
        let part = Part {
            _held: self.source.hold(bytes),
            topic,
            read,
            asked,
        };
        let place = (part.asked.topic.clone(), part.asked.partition);
        self.parts.insert(place, part);
    }

    /// The answer to a read, with what was read for it and all else as it is now. `None`: little or nothing was read of
    /// it.
    pub(crate) async fn serve(
        mut self,
        ctx: &Context,
        fetch: &Fetch,
    ) -> Option<Vec<PartitionFetched>> {
        if fetch.isolation != self.next.isolation || !fetch.raw || fetch.max_bytes == 0 {
            return None;
        }
        if let Some(mut reading) = self.reading.take() {
            let asked = &reading.asked;
            if fetch.partitions.iter().any(|p| same(p, asked)) {
                // It would be begun anew now otherwise.
                let found = reading.found.as_mut().await;
                self.keep(reading, found);
            }
        }
        let ready: Vec<Option<Part>> = fetch.partitions.iter().map(|p| self.take(p)).collect();
        let bytes: usize = ready.iter().flatten().map(|p| p.read.batches.len()).sum();
        if bytes == 0 || bytes < fetch.min_bytes {
            self.source.note(bytes, false);
            return None;
        }
        self.compose(ctx, fetch, ready).await
    }

    /// What was read for that question.
    fn take(&mut self, wanted: &FetchPartition) -> Option<Part> {
        let place = (wanted.topic.clone(), wanted.partition);
        let part = self.parts.remove(&place)?;
        let fits = same(wanted, &part.asked) && part.read.batches.len() <= wanted.max_bytes;
        if !fits {
            self.source.note(part.read.batches.len(), false);
        }
        fits.then_some(part)
    }

    /// Answers run by run, in the order of preference of the question: what was read ahead, what was not.
    async fn compose(
        &mut self,
        ctx: &Context,
        fetch: &Fetch,
        ready: Vec<Option<Part>>,
    ) -> Option<Vec<PartitionFetched>> {
        let mut all = Vec::with_capacity(ready.len());
        let (mut bytes, mut rest) = (0, ready.into_iter().peekable());
        while let Some(first) = rest.next() {
            let is_ready = first.is_some();
            let mut run = vec![first];
            while let Some(more) = rest.next_if(|part| part.is_some() == is_ready) {
                run.push(more);
            }
            let partitions = &fetch.partitions[all.len()..all.len() + run.len()];
            let is_full = bytes >= fetch.min_bytes && bytes > fetch.max_bytes / 2;
            let asked = Fetch {
                partitions: partitions.to_vec(),
                max_bytes: match is_ready || is_full {
                    true => 0,
                    false => fetch.max_bytes.saturating_sub(bytes),
                },
                min_bytes: fetch.min_bytes.saturating_sub(bytes),
                ..look(fetch.isolation)
            };
            let found = self.source.read(ctx, asked).await.ok()?;
            if found.len() != run.len() {
                return None;
            }
            for (mut found, part) in found.into_iter().zip(run) {
                if let (Ok(now), Some(part)) = (&mut found.result, part) {
                    let has_room = bytes == 0 || bytes + part.read.batches.len() <= fetch.max_bytes;
                    self.give(now, part, has_room, fetch.isolation);
                }
                bytes += found.result.as_ref().map_or(0, |read| read.batches.len());
                all.push(found);
            }
        }
        Some(all)
    }

    /// Puts what was read into what is known now, if it still belongs to it.
    fn give(&mut self, now: &mut Fetched, part: Part, has_room: bool, isolation: Isolation) {
        let is_same = part.topic.is_some()
            && part.topic == self.source.topic(&part.asked.topic)
            && part.read.leader_epoch == now.leader_epoch
            && part.read.next_offset <= now.end(isolation);
        let is_used = is_same && has_room;
        self.source.note(part.read.batches.len(), is_used);
        self.used |= is_used;
        if is_used {
            now.batches = part.read.batches;
            now.next_offset = part.read.next_offset;
            now.aborted = part.read.aborted;
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        for part in self.parts.values() {
            self.source.note(part.read.batches.len(), false);
        }
        if self.used {
            self.habit.store(0, Ordering::Relaxed);
        } else if self.bytes > 0 {
            let more = |n: u32| Some((n + 1).min(USELESS_MOST));
            let _ = self
                .habit
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }
}

/// A question that is answered at once.
fn look(isolation: Isolation) -> Fetch {
    Fetch {
        partitions: Vec::new(),
        max_wait: Duration::ZERO,
        min_bytes: 0,
        max_bytes: 0,
        isolation,
        raw: true,
    }
}

fn same(a: &FetchPartition, b: &FetchPartition) -> bool {
    (a.partition, a.offset) == (b.partition, b.offset) && a.topic == b.topic
}

#[cfg(test)]
mod tests;
