//! The engine of every streaming read: a set of cursors, one fetch for all of them at a time, and the
//! events that come of it, drawn one by one so that the caller's channel sets the pace.
//!
//! How much is read at a time, and when, is the matter of its [`Window`].
//!
//! Invariants: what a cursor delivers is gapless and in order; after a cursor was removed or opened again
//! nothing that was read for its former self is delivered; a cursor without credit is not fetched; the
//! cursor that delivered last is fetched last, so that no partition starves another.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use varve_broker_api::{
    Broker, Context, Error, Fetch, FetchPartition, Isolation, OffsetFound, OffsetQuery,
    PartitionFetched, Position,
};
use varve_types::{ErrorKind, LeaderEpoch, Offset, Retry, TopicPartition, limits};

use super::Parked;
use super::pace::{Pace, Window};
use crate::shared::Shared;
use crate::translate::corrupt_log;
use crate::translate::fetch::{Chunk, Decoder, Encoding, OutOfRange, Until, too_large};

/// Bytes of a message that are not payload, at most.
const MESSAGE_OVERHEAD: usize = 1024;
/// Least bytes asked of a partition, however small its credit is.
const READ_MIN_BYTES: usize = 64 * 1024;
/// First pause after a fault that may pass.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause after a fault that may pass.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a fetch that could not name every cursor is held.
const PARTIAL_WAIT: Duration = Duration::from_millis(250);

/// What a stream asks of its reader.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Carrier.
    pub encoding: Encoding,
    /// Largest message, in bytes.
    pub message_bytes: usize,
    /// The client refuses larger messages: a batch that does not fit closes its cursor.
    pub strict_size: bool,
    /// Go on by itself after faults that may pass, instead of closing the cursor.
    pub ride_out: bool,
    /// Which records of transactions are delivered.
    pub isolation: Isolation,
}

/// What to read.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Partition.
    pub partition: TopicPartition,
    /// Where to begin.
    pub start: Position,
    /// What to do when that is not in the log, now or later.
    pub out_of_range: OutOfRange,
    /// Where to end.
    pub until: Ending,
    /// Epoch to check with every read.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Payload bytes that may be delivered; `None`: no bound.
    pub credit: Option<i64>,
}

/// Where a cursor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Never.
    Follow,
    /// At a place.
    At(Until),
    /// Where readers of the stream's isolation end when the cursor is opened: the high watermark, or the last
    /// stable offset.
    CurrentEnd,
}

/// A place in one partition.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// Partition.
    pub partition: TopicPartition,
    /// Next offset to be delivered.
    pub next: Offset,
    /// One past the last committed record, as last seen.
    pub high_watermark: Offset,
    /// Where readers of the stream's isolation end, as last seen: at most the high watermark.
    pub end: Offset,
    /// Oldest readable offset, as last seen.
    pub log_start: Offset,
    /// Epoch of the leader, as last seen.
    pub leader_epoch: LeaderEpoch,
    /// Payload bytes that may still be delivered; `None`: no bound.
    pub credit: Option<i64>,
    out_of_range: OutOfRange,
    until: Until,
    expected_epoch: Option<LeaderEpoch>,
    caught_up: bool,
    lost_place: bool,
    /// The next offset as the client last heard it.
    said: Offset,
    /// When something was last said about it.
    spoken: Instant,
    retry_at: Option<Instant>,
    backoff: Duration,
    generation: u64,
}

impl Cursor {
    /// Whether everything that readers of this isolation may see has been delivered.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.next >= self.end
    }

    /// The same partition from another place, with other credit.
    #[must_use]
    pub fn moved(&self, start: Position, credit: Option<i64>) -> Spec {
        Spec {
            partition: self.partition.clone(),
            start,
            out_of_range: self.out_of_range,
            until: Ending::At(self.until),
            leader_epoch: self.expected_epoch,
            credit,
        }
    }

    fn eligible(&self, now: Instant) -> bool {
        self.credit.is_none_or(|c| c > 0) && self.retry_at.is_none_or(|at| at <= now)
    }
}

/// Something to tell the client.
#[derive(Debug)]
pub struct Event<K> {
    /// Cursor.
    pub key: K,
    /// Its state after the event.
    pub cursor: Cursor,
    /// What happened.
    pub what: What,
}

/// What happened to a cursor.
#[derive(Debug)]
pub enum What {
    /// It has a position.
    Opened,
    /// It delivers.
    Records(Chunk),
    /// It has reached the end, see [`Cursor::end`].
    CaughtUp,
    /// It has passed offsets that hold nothing for this reader: markers of transactions, and aborted ones.
    Passed,
    /// Nothing was said about it for a while.
    Idle,
    /// It is finished (`None`) or failed.
    Closed(Option<Error>),
}

/// Ties a result to the cursor it was read for.
#[derive(Debug, Clone)]
pub struct Ticket<K> {
    key: K,
    generation: u64,
}

/// What a fetch of a reader comes to.
pub type Fetched<K> = Result<Vec<(Ticket<K>, PartitionFetched)>, Error>;

#[derive(Debug)]
struct Open<K> {
    ticket: Ticket<K>,
    decoder: Decoder,
    /// Bytes that were read.
    bytes: usize,
}

/// A set of cursors that are read together.
#[derive(Debug)]
pub struct Reader<B, K> {
    shared: Arc<Shared<B>>,
    ctx: Context,
    options: Options,
    cursors: BTreeMap<K, Cursor>,
    arrived: VecDeque<(Ticket<K>, PartitionFetched)>,
    open: Option<Open<K>>,
    events: VecDeque<Event<K>>,
    last_served: Option<K>,
    generations: u64,
    window: Window,
    /// Largest message at present.
    message_bytes: usize,
}

impl<B: Broker, K: Ord + Clone + Send + 'static> Reader<B, K> {
    /// A reader without cursors.
    #[must_use]
    pub fn new(shared: Arc<Shared<B>>, ctx: Context, options: Options, pace: &Pace) -> Self {
        Self {
            window: Window::new(pace.clone(), shared.unread.hold(0)),
            message_bytes: 0,
            shared,
            ctx,
            options,
            cursors: BTreeMap::new(),
            arrived: VecDeque::new(),
            open: None,
            events: VecDeque::new(),
            last_served: None,
            generations: 0,
        }
    }

    /// The cursors.
    #[must_use]
    pub const fn cursors(&self) -> &BTreeMap<K, Cursor> {
        &self.cursors
    }

    /// Adds credit to a cursor. Returns whether it became eligible by that.
    pub fn add_credit(&mut self, key: &K, bytes: i64) -> bool {
        let Some(credit) = self.cursors.get_mut(key).and_then(|c| c.credit.as_mut()) else {
            return false;
        };
        let before = *credit;
        *credit = credit.saturating_add(bytes);
        before <= 0 && *credit > 0
    }

    /// Takes a cursor away. Nothing more is delivered for it.
    pub fn remove(&mut self, key: &K) -> Option<Cursor> {
        self.events.retain(|e| e.key != *key);
        self.cursors.remove(key)
    }

    /// Tells the client that a cursor it has taken away is gone.
    pub fn say_closed(&mut self, key: K, cursor: Cursor) {
        self.events.push_back(Event {
            key,
            cursor,
            what: What::Closed(None),
        });
    }

    /// Opens cursors, replacing those of the same keys: each gives `Opened`, or `Closed` with the reason.
    pub async fn open(&mut self, specs: Vec<(K, Spec)>) {
        let queries = specs
            .iter()
            .map(|(_, s)| OffsetQuery {
                isolation: self.options.isolation,
                partition: s.partition.clone(),
                position: Some(s.start),
                with_time: false,
            })
            .collect();
        let found = self.shared.broker.list_offsets(&self.ctx, queries).await;
        for ((key, spec), found) in specs.into_iter().zip(found) {
            self.remove(&key);
            let placed = match found {
                Ok(found) => self.place(&spec, found).await,
                Err(error) => Err(error),
            };
            match placed {
                Ok((next, found)) => self.opened(key, spec, next, &found),
                Err(error) => {
                    let cursor = self.cursor(&spec, Offset::ZERO, None);
                    self.events.push_back(Event {
                        key,
                        cursor,
                        what: What::Closed(Some(error)),
                    });
                }
            }
        }
    }

    fn cursor(&mut self, spec: &Spec, next: Offset, found: Option<&OffsetFound>) -> Cursor {
        self.generations += 1;
        let until = match (spec.until, found) {
            (Ending::At(until), _) => until,
            (Ending::CurrentEnd, Some(f)) => Until {
                offset: Some(f.end(self.options.isolation)),
                timestamp: None,
            },
            _ => Until::default(),
        };
        Cursor {
            partition: spec.partition.clone(),
            next,
            high_watermark: found.map_or(Offset::ZERO, |f| f.high_watermark),
            end: found.map_or(Offset::ZERO, |f| f.end(self.options.isolation)),
            log_start: found.map_or(Offset::ZERO, |f| f.log_start),
            leader_epoch: found.map_or(LeaderEpoch::ZERO, |f| f.leader_epoch),
            credit: spec.credit,
            out_of_range: spec.out_of_range,
            until,
            expected_epoch: spec.leader_epoch,
            caught_up: false,
            lost_place: false,
            said: next,
            spoken: Instant::now(),
            retry_at: None,
            backoff: BACKOFF_MIN,
            generation: self.generations,
        }
    }

    fn opened(&mut self, key: K, spec: Spec, next: Offset, found: &OffsetFound) {
        let mut cursor = self.cursor(&spec, next, Some(found));
        cursor.caught_up = cursor.caught_up();
        self.events.push_back(Event {
            key: key.clone(),
            cursor: cursor.clone(),
            what: What::Opened,
        });
        if cursor.until.offset.is_some_and(|u| u <= next) {
            self.events.push_back(Event {
                key,
                cursor,
                what: What::Closed(None),
            });
        } else {
            self.cursors.insert(key, cursor);
        }
    }

    /// Checks a start against the bounds, and moves it when the policy says so.
    async fn place(&self, spec: &Spec, found: OffsetFound) -> Result<(Offset, OffsetFound), Error> {
        check_epoch(spec, found.leader_epoch)?;
        let at = found.offset.unwrap_or(found.log_start);
        if at >= found.log_start && at <= found.high_watermark {
            return Ok((at, found));
        }
        match spec.out_of_range.fallback() {
            Some(position) => self.locate(&spec.partition, position).await,
            None => Err(out_of_range(&spec.partition, at, &found)),
        }
    }

    async fn locate(
        &self,
        partition: &TopicPartition,
        position: Position,
    ) -> Result<(Offset, OffsetFound), Error> {
        let query = OffsetQuery {
            isolation: self.options.isolation,
            partition: partition.clone(),
            position: Some(position),
            with_time: false,
        };
        let found = self
            .shared
            .broker
            .list_offsets(&self.ctx, vec![query])
            .await;
        let found = found
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(no_answer(partition)))?;
        Ok((found.offset.unwrap_or(found.log_start), found))
    }

    /// Whether [`Reader::recover`] has work.
    #[must_use]
    pub fn has_lost_places(&self) -> bool {
        self.cursors.values().any(|c| c.lost_place)
    }

    /// Moves cursors whose place has left the log to where their policy says.
    pub async fn recover(&mut self) {
        let lost: Vec<(K, Cursor)> = self
            .cursors
            .iter()
            .filter(|(_, c)| c.lost_place)
            .map(|(k, c)| (k.clone(), c.clone()))
            .collect();
        for (key, cursor) in lost {
            let position = cursor.out_of_range.fallback().unwrap_or(Position::Earliest);
            match self.locate(&cursor.partition, position).await {
                Ok((next, found)) => {
                    if let Some(c) = self.cursors.get_mut(&key) {
                        c.lost_place = false;
                        c.next = next;
                        c.high_watermark = found.high_watermark;
                        c.end = found.end(self.options.isolation);
                        c.log_start = found.log_start;
                    }
                }
                Err(error) => self.failed(&key, error),
            }
        }
    }

    /// One read for every cursor that may be read now, held for at most `max_wait`; `None` when there is
    /// no such cursor. The future owns all it needs and may be dropped.
    pub fn fetch(&mut self, max_wait: Duration) -> Option<Parked<Fetched<K>>> {
        let most = self.options.message_bytes - MESSAGE_OVERHEAD;
        self.message_bytes = self.window.next(most);
        let now = Instant::now();
        let after = self
            .last_served
            .as_ref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let upto = match &self.last_served {
            Some(key) => Bound::Included(key),
            // An empty range: everything came in the first part.
            None => return self.fetch_of(self.cursors.iter(), now, max_wait),
        };
        let rotated = self.cursors.range((after, Bound::Unbounded));
        self.fetch_of(
            rotated.chain(self.cursors.range((Bound::Unbounded, upto))),
            now,
            max_wait,
        )
    }

    fn fetch_of<'a>(
        &'a self,
        cursors: impl Iterator<Item = (&'a K, &'a Cursor)>,
        now: Instant,
        mut max_wait: Duration,
    ) -> Option<Parked<Fetched<K>>>
    where
        K: 'a,
    {
        let room = self.message_bytes;
        let most = room.min(limits::READ_CHUNK_BYTES);
        let (mut tickets, mut partitions) = (Vec::new(), Vec::new());
        for (key, cursor) in cursors.filter(|(_, c)| c.eligible(now) && !c.lost_place) {
            if tickets.len() == limits::REQUEST_MAX_PARTITIONS {
                max_wait = max_wait.min(PARTIAL_WAIT);
                break;
            }
            let credit = cursor
                .credit
                .map_or(most, |c| usize::try_from(c).unwrap_or(most));
            tickets.push(Ticket {
                key: key.clone(),
                generation: cursor.generation,
            });
            partitions.push(FetchPartition {
                topic: cursor.partition.topic.clone(),
                partition: cursor.partition.partition,
                offset: cursor.next,
                max_bytes: credit.clamp(READ_MIN_BYTES.min(most), most),
                leader_epoch: cursor.expected_epoch,
            });
        }
        if tickets.is_empty() {
            return None;
        }
        let request = Fetch {
            raw: false,
            isolation: self.options.isolation,
            partitions,
            max_wait,
            min_bytes: 1,
            max_bytes: room,
        };
        let (broker, ctx) = (Arc::clone(&self.shared.broker), self.ctx.clone());
        Some(Box::pin(async move {
            let results = broker.fetch(&ctx, request).await?;
            Ok(tickets.into_iter().zip(results).collect())
        }))
    }

    /// When reads may begin.
    #[must_use]
    pub const fn window(&self) -> &Window {
        &self.window
    }

    /// Forgets what was read and not made into messages: it will be read again.
    pub fn shed(&mut self) {
        if self
            .open
            .as_ref()
            .is_some_and(|open| !open.decoder.is_drained())
        {
            self.open = None;
        }
        self.arrived.retain(|(_, found)| {
            let read = found.result.as_ref();
            read.map_or(true, |read| read.batches.is_empty())
        });
    }

    /// Takes in what a fetch came to.
    pub fn accept(&mut self, fetched: Fetched<K>) {
        match fetched {
            Ok(results) => {
                let bytes = |found: &PartitionFetched| {
                    found.result.as_ref().map_or(0, |read| read.batches.len())
                };
                let all = results.iter().map(|(_, found)| bytes(found)).sum();
                self.window.read(all);
                self.arrived.extend(results);
            }
            Err(error) => {
                let keys: Vec<K> = self.cursors.keys().cloned().collect();
                for key in keys {
                    self.failed(&key, error.clone());
                }
            }
        }
    }

    /// The next thing to tell the client, with at most `max_records` records; `None`: fetch again.
    pub fn next_event(&mut self, max_records: u64) -> Option<Event<K>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if let Some(event) = self.next_chunk(max_records) {
                return Some(event);
            }
            let (ticket, result) = self.arrived.pop_front()?;
            self.take(ticket, result);
        }
    }

    /// Whether events are waiting without another fetch.
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        !self.events.is_empty() || self.open.is_some() || !self.arrived.is_empty()
    }

    fn take(&mut self, ticket: Ticket<K>, result: PartitionFetched) {
        let Some(cursor) = self.cursors.get_mut(&ticket.key) else {
            return;
        };
        if cursor.generation != ticket.generation {
            return;
        }
        match result.result {
            Ok(fetched) => {
                cursor.retry_at = None;
                cursor.backoff = BACKOFF_MIN;
                cursor.high_watermark = fetched.high_watermark;
                cursor.end = fetched.end(self.options.isolation);
                cursor.log_start = fetched.log_start;
                cursor.leader_epoch = fetched.leader_epoch;
                let (from, until) = (cursor.next, cursor.until);
                let encoding = self.options.encoding;
                let bytes = fetched.batches.len();
                let decoder =
                    Decoder::new(encoding, fetched.batches, from, fetched.next_offset, until);
                self.open = Some(Open {
                    ticket,
                    decoder,
                    bytes,
                });
            }
            Err(error) => self.failed(&ticket.key, error),
        }
    }

    fn next_chunk(&mut self, max_records: u64) -> Option<Event<K>> {
        let open = self.open.as_mut()?;
        let key = open.ticket.key.clone();
        let cursor = self
            .cursors
            .get_mut(&key)
            .filter(|c| c.generation == open.ticket.generation);
        let Some(cursor) = cursor else {
            self.open = None;
            return None;
        };
        if cursor.credit.is_some_and(|c| c <= 0) {
            // Chunks of one read beyond the credit are read again when there is credit.
            self.open = None;
            return None;
        }
        let room = self.message_bytes;
        let chunk = match open.decoder.next_chunk(room, max_records) {
            Ok(chunk) => chunk,
            Err(why) => {
                let tp = cursor.partition.clone();
                self.open = None;
                self.close(&key, Some(corrupt_log(&tp.topic, tp.partition, why)));
                return self.events.pop_front();
            }
        };
        cursor.next = cursor.next.max(open.decoder.position());
        let Some(mut chunk) = chunk else {
            let ended = open.decoder.reached_end();
            self.open = None;
            return self.after_read(key, ended);
        };
        let of_read = open.bytes;
        if chunk.bytes() < of_read / 2 {
            chunk.detach();
        }
        if self.options.strict_size
            && chunk.bytes() + MESSAGE_OVERHEAD / 2 > self.options.message_bytes
        {
            let error = too_large(&cursor.partition, &chunk, self.options.message_bytes);
            self.open = None;
            self.close(&key, Some(error));
            return self.events.pop_front();
        }
        if let Some(credit) = &mut cursor.credit {
            *credit = credit.saturating_sub(chunk.payload_bytes);
        }
        cursor.said = cursor.next;
        cursor.spoken = Instant::now();
        self.last_served = Some(key.clone());
        let event = Event {
            key,
            cursor: cursor.clone(),
            what: What::Records(chunk),
        };
        if !self.window.reads_ahead() && of_read > room {
            self.shed();
        }
        Some(event)
    }

    /// What there is to say once everything that was read is delivered.
    fn after_read(&mut self, key: K, ended: bool) -> Option<Event<K>> {
        if ended {
            self.close(&key, None);
            return self.events.pop_front();
        }
        let cursor = self.cursors.get_mut(&key)?;
        let caught_up = cursor.caught_up();
        let news = caught_up && !cursor.caught_up;
        cursor.caught_up = caught_up;
        let passed = cursor.next > cursor.said;
        if !news && !passed {
            return None;
        }
        cursor.said = cursor.next;
        cursor.spoken = Instant::now();
        Some(Event {
            key,
            cursor: cursor.clone(),
            what: match passed {
                true => What::Passed,
                false => What::CaughtUp,
            },
        })
    }

    fn close(&mut self, key: &K, error: Option<Error>) {
        if let Some(cursor) = self.cursors.remove(key) {
            let key = key.clone();
            self.events.push_back(Event {
                key,
                cursor,
                what: What::Closed(error),
            });
        }
    }

    /// Closes every cursor with the same error.
    pub fn close_all(&mut self, error: &Error) {
        let keys: Vec<K> = self.cursors.keys().cloned().collect();
        for key in keys {
            self.close(&key, Some(error.clone()));
        }
    }

    fn failed(&mut self, key: &K, error: Error) {
        let Some(cursor) = self.cursors.get_mut(key) else {
            return;
        };
        if error.kind == ErrorKind::OffsetOutOfRange && cursor.out_of_range.fallback().is_some() {
            cursor.lost_place = true;
            return;
        }
        let passes = error.retry() == Retry::Later && error.kind != ErrorKind::ShuttingDown;
        if self.options.ride_out && passes {
            let wait = error
                .retry_after
                .unwrap_or(cursor.backoff)
                .min(BACKOFF_MAX * 10);
            cursor.retry_at = Some(Instant::now() + wait);
            cursor.backoff = (cursor.backoff * 2).min(BACKOFF_MAX);
            return;
        }
        self.close(key, Some(error));
    }

    /// When a cursor may be read again that had to pause; `None`: none pauses.
    #[must_use]
    pub fn next_retry(&self) -> Option<Instant> {
        let now = Instant::now();
        self.cursors
            .values()
            .filter_map(|c| c.retry_at)
            .filter(|at| *at > now)
            .min()
    }

    /// Brings the bounds of cursors up to date about which nothing was said for `idle`; returns those.
    pub async fn refresh(&mut self, idle: Duration) -> Vec<K> {
        let now = Instant::now();
        let quiet: Vec<(K, TopicPartition)> = self
            .cursors
            .iter()
            .filter(|(_, c)| now.duration_since(c.spoken) >= idle)
            .map(|(k, c)| (k.clone(), c.partition.clone()))
            .collect();
        if quiet.is_empty() {
            return Vec::new();
        }
        let queries = quiet
            .iter()
            .map(|(_, partition)| OffsetQuery {
                isolation: self.options.isolation,
                partition: partition.clone(),
                position: None,
                with_time: false,
            })
            .collect();
        let found = self.shared.broker.list_offsets(&self.ctx, queries).await;
        let mut keys = Vec::with_capacity(quiet.len());
        for ((key, _), found) in quiet.into_iter().zip(found) {
            let Some(cursor) = self.cursors.get_mut(&key) else {
                continue;
            };
            if let Ok(found) = found {
                cursor.high_watermark = found.high_watermark;
                cursor.end = found.end(self.options.isolation);
                cursor.log_start = found.log_start;
            }
            cursor.spoken = now;
            keys.push(key);
        }
        keys
    }

    /// Gives `Idle` for each cursor about which nothing was said for `idle`, with fresh bounds.
    pub async fn speak_of_idle(&mut self, idle: Duration) {
        for key in self.refresh(idle).await {
            if let Some(cursor) = self.cursors.get(&key).cloned() {
                self.events.push_back(Event {
                    key,
                    cursor,
                    what: What::Idle,
                });
            }
        }
    }
}

/// Compares the epoch the client believes in with the one of the leader that answered.
fn check_epoch(spec: &Spec, actual: LeaderEpoch) -> Result<(), Error> {
    let Some(expected) = spec.leader_epoch.filter(|e| *e != actual) else {
        return Ok(());
    };
    let (kind, what) = if expected < actual {
        (ErrorKind::FencedLeaderEpoch, "older")
    } else {
        (ErrorKind::UnknownLeaderEpoch, "newer")
    };
    Err(Error::new(
        kind,
        format!(
            "leader epoch {expected} of {} is {what} than this leader's, {actual}",
            spec.partition
        ),
    )
    .with("leader_epoch", actual))
}

/// The error about an offset that is not in the log.
#[must_use]
pub fn out_of_range(partition: &TopicPartition, at: Offset, found: &OffsetFound) -> Error {
    Error::new(
        ErrorKind::OffsetOutOfRange,
        format!(
            "offset {at} of {partition} is not in the log, which holds {} to {}",
            found.log_start, found.high_watermark
        ),
    )
    .with("topic", &partition.topic)
    .with("partition", partition.partition)
    .with("log_start_offset", found.log_start)
    .with("high_watermark", found.high_watermark)
}

/// The error about a broker that left a question open.
#[must_use]
pub fn no_answer(partition: &TopicPartition) -> Error {
    Error::new(
        ErrorKind::LeaderNotAvailable,
        format!("no node answered for {partition}; nothing was changed; try again"),
    )
}
