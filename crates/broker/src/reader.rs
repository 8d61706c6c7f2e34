//! Reading: from an immutable view of the log, never through a lane. A read first tries what the page
//! cache holds, on the caller's task; what is not there is read on a blocking thread. A reader at the end
//! parks once, whatever the number of its partitions.
//!
//! Invariant: nothing at or above the high watermark is ever returned, to readers of committed records nothing at
//! or above the last stable offset.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use varve_broker_api::{
    EpochEnd, Error, Fetch, FetchPartition, Fetched, Isolation, PartitionFetched,
};
use varve_storage::{Cursor, Damage, ReadError, ReadMode, ReadOutcome, ReadRange, ReadView, Slice};
use varve_types::{ErrorKind, LeaderEpoch, Offset, OffsetRange};

use crate::isolation::{self, Sight, Stable};
use crate::partition::Partition;
use crate::registry::Readable;
use crate::reject;
use crate::work::blocking;

/// Sequential readers of one partition whose place in the files is remembered.
const CURSORS: usize = 4;

/// Times in a row that a read may meet a log that forgets what it needs: each is a trim or the end of a compaction.
pub(crate) const OLD_VIEWS_MOST: usize = 4;

/// Where recent readers stopped, so that their next read needs no search. Purely a hint.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    recent: Mutex<Vec<(Offset, Cursor)>>,
}

impl Cursors {
    fn take(&self, offset: Offset) -> Option<Cursor> {
        let mut recent = self.recent.lock();
        let at = recent.iter().position(|(o, _)| *o == offset)?;
        Some(recent.swap_remove(at).1)
    }

    fn put(&self, offset: Offset, cursor: Cursor) {
        let mut recent = self.recent.lock();
        if recent.len() == CURSORS {
            recent.remove(0);
        }
        recent.push((offset, cursor));
    }
}

/// A partition of a fetch with its handle, or why it has none.
pub(crate) struct Wanted {
    pub(crate) request: FetchPartition,
    pub(crate) partition: Result<Readable, Error>,
}

impl Wanted {
    fn readable(&self) -> Option<&Arc<Partition>> {
        self.partition.as_ref().ok().map(|r| &r.partition)
    }
}

/// Reads everything, waiting up to `fetch.max_wait` for `fetch.min_bytes`. Keeps nothing of what it has read while it
/// waits: it may be much.
pub(crate) async fn fetch(fetch: &Fetch, wanted: &[Wanted]) -> Vec<PartitionFetched> {
    let deadline = Instant::now() + fetch.max_wait;
    let (results, enough) = read_all(fetch, wanted).await;
    if enough || fetch.max_wait == Duration::ZERO {
        return results;
    }
    drop(results);
    let parked = Parked::new(wanted);
    loop {
        parked.register();
        // Something may have come between the read and the registration.
        let (results, enough) = read_all(fetch, wanted).await;
        if enough || Instant::now() >= deadline {
            return results;
        }
        drop(results);
        let wait = tokio::time::timeout_at(deadline, parked.notify.notified());
        // A timeout only means that the next read is the last one.
        let _ = wait.await;
    }
}

/// A reader registered with its partitions for as long as it lives.
struct Parked<'a> {
    notify: Arc<Notify>,
    wanted: &'a [Wanted],
}

impl<'a> Parked<'a> {
    fn new(wanted: &'a [Wanted]) -> Self {
        Self {
            notify: Arc::new(Notify::new()),
            wanted,
        }
    }

    fn register(&self) {
        for partition in self.wanted.iter().filter_map(Wanted::readable) {
            partition.waiters.add(&self.notify);
        }
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        for partition in self.wanted.iter().filter_map(Wanted::readable) {
            partition.waiters.remove(&self.notify);
        }
    }
}

/// One pass over all partitions; also whether the answer is worth giving now.
async fn read_all(fetch: &Fetch, wanted: &[Wanted]) -> (Vec<PartitionFetched>, bool) {
    let mut results = Vec::with_capacity(wanted.len());
    let (mut bytes, mut failed, mut passed) = (0, false, false);
    for Wanted { request, partition } in wanted {
        // Once half of the answer is there, the next partition's batches would mostly be read in vain:
        // what is left holds few of them or none. The others come first in the caller's next turn.
        let full = bytes >= fetch.min_bytes && bytes > fetch.max_bytes / 2;
        let left = if full {
            0
        } else {
            fetch.max_bytes.saturating_sub(bytes)
        };
        let left = left.min(request.max_bytes);
        let result = match partition {
            Ok(partition) => {
                let sight = match fetch.raw {
                    true => Sight::RawOf(fetch.isolation),
                    false => Sight::Of(fetch.isolation),
                };
                let min_one = bytes == 0 && fetch.max_bytes > 0;
                read_from(partition, request, left, min_one, sight).await
            }
            Err(error) => Err(error.clone()),
        };
        match &result {
            Ok(fetched) => {
                bytes += fetched.batches.len();
                // All that was there was compacted away: the reader goes on behind it at once.
                passed |= fetched.batches.is_empty() && fetched.next_offset > request.offset;
            }
            Err(_) => failed = true,
        }
        results.push(PartitionFetched {
            topic: request.topic.clone(),
            partition: request.partition,
            result,
        });
    }
    let enough = bytes > 0 && bytes >= fetch.min_bytes;
    (results, failed || passed || enough)
}

pub(crate) async fn read_one(
    partition: &Arc<Partition>,
    request: &FetchPartition,
    max_bytes: usize,
    min_one: bool,
    sight: Sight,
) -> Result<Fetched, Error> {
    let readable = Readable {
        partition: Arc::clone(partition),
        copy: false,
    };
    read_from(&readable, request, max_bytes, min_one, sight).await
}

async fn read_from(
    readable: &Readable,
    request: &FetchPartition,
    max_bytes: usize,
    min_one: bool,
    sight: Sight,
) -> Result<Fetched, Error> {
    for _ in 0..OLD_VIEWS_MOST {
        if let Some(fetched) = read_once(readable, request, max_bytes, min_one, sight).await? {
            return Ok(fetched);
        }
    }
    Err(read_error(
        &readable.partition,
        request.offset,
        &ReadError::Stale,
        None,
    ))
}

/// `None`: the log was trimmed, cut or compacted meanwhile. Either the records are no longer where the view had them,
/// or what would have to be left out of them is not known any more.
async fn read_once(
    readable: &Readable,
    request: &FetchPartition,
    max_bytes: usize,
    min_one: bool,
    sight: Sight,
) -> Result<Option<Fetched>, Error> {
    let partition = &readable.partition;
    check_epoch(partition, request.leader_epoch)?;
    // First: of what is forgotten by now the view has nothing.
    let forgotten = partition.stable.forgotten();
    // The view is at least as new as the watermark it is cut at.
    let high_watermark = partition.high_watermark();
    let view = partition.view()?;
    let high_watermark = high_watermark.min(view.log_end());
    let last_stable = partition.last_stable().min(high_watermark);
    let end = match sight {
        Sight::Of(isolation) | Sight::RawOf(isolation) => match isolation {
            Isolation::Committed => last_stable,
            Isolation::Uncommitted => high_watermark,
        },
        Sight::Raw => high_watermark,
    };
    let offset = request.offset;
    // A leader that has just been elected may not know yet how far its predecessor had committed, and a copy
    // not how far its leader has: what a reader has of it already is in this log, and the reader waits.
    let committed = match readable.copy {
        true => view.log_end(),
        false => partition.epoch_start(),
    };
    let behind = offset > high_watermark && offset <= committed;
    // Nothing more will ever come, and what lies above may not be on the disk. Before the range: another node leads by
    // now, and a reader that comes from there with what this one never had is not to begin anew somewhere else.
    let limit = partition.read_limit();
    let stopped = offset > high_watermark && partition.offline().is_some();
    if stopped || limit.is_some_and(|limit| offset >= limit) {
        return Err(partition.offline_error());
    }
    if offset < view.log_start() || offset > high_watermark && !behind {
        return Err(reject::out_of_range(partition, offset));
    }
    let slice = if offset >= end || (max_bytes == 0 && !min_one) {
        None
    } else {
        let range = ReadRange {
            offset,
            max_bytes,
            upto: limit.map_or(end, |limit| limit.min(end)),
            min_one,
        };
        match read(partition, &view, range).await? {
            Seen::Slice(slice) => Some(slice),
            Seen::Nothing => None,
            Seen::OldView => return Ok(None),
        }
    };
    let (batches, next_offset, cursor) = match slice {
        Some(slice) => (slice.bytes, slice.next_offset.max(offset), slice.cursor),
        None => (bytes::Bytes::new(), offset, None),
    };
    let range = (offset, next_offset);
    let aborted = partition.stable.aborted(sight, &batches, forgotten, range);
    let Some(aborted) = aborted else {
        return Ok(None);
    };
    let counters = &partition.counters;
    counters.bytes_fetched.inc_by(batches.len() as u64);
    counters.records_fetched.inc_by(next_offset.since(offset));
    if let Some(cursor) = cursor {
        partition.cursors.put(next_offset, cursor);
    }
    Ok(Some(Fetched {
        aborted: isolation::told(sight, &aborted),
        last_stable,
        batches: Stable::show(sight, batches, &aborted)?,
        next_offset,
        high_watermark,
        log_start: view.log_start(),
        leader_epoch: partition.leader_epoch(),
    }))
}

/// Where the records of an epoch end. That of the present one is the end of the log: a leader that has just been
/// elected may not know yet how far a reader was let go before.
pub(crate) fn epoch_end(
    partition: &Partition,
    epoch: LeaderEpoch,
    current: Option<LeaderEpoch>,
) -> Result<Option<EpochEnd>, Error> {
    check_epoch(partition, current)?;
    // Its log may have stopped long before that of whoever leads by now.
    if partition.offline().is_some() {
        return Err(partition.offline_error());
    }
    let view = partition.view()?;
    let found = view.end_offset_for_epoch(epoch);
    Ok(found.map(|(epoch, end)| EpochEnd { epoch, end }))
}

fn check_epoch(partition: &Partition, wanted: Option<LeaderEpoch>) -> Result<(), Error> {
    let (Some(wanted), current) = (wanted, partition.leader_epoch()) else {
        return Ok(());
    };
    let (kind, relation) = match wanted.cmp(&current) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less => (ErrorKind::FencedLeaderEpoch, "older"),
        std::cmp::Ordering::Greater => (ErrorKind::UnknownLeaderEpoch, "newer"),
    };
    let text = format!(
        "leader epoch {wanted} is {relation} than epoch {current} of {}",
        partition.id
    );
    Err(Error::new(kind, text).with("leader_epoch", current))
}

/// What a view shows of a range.
enum Seen {
    Slice(Slice),
    Nothing,
    /// The log was changed under the view: a newer one shows it.
    OldView,
}

async fn read(
    partition: &Arc<Partition>,
    view: &Arc<ReadView>,
    range: ReadRange,
) -> Result<Seen, Error> {
    let offset = range.offset;
    let cursor = partition.cursors.take(offset);
    let buffers = &partition.buffers;
    let hot = view.read_into(buffers, &range, ReadMode::NoWait, cursor.as_ref());
    let outcome = match hot {
        Ok(ReadOutcome::WouldBlock) => {
            let (view, buffers) = (Arc::clone(view), buffers.clone());
            let cold = blocking(&partition.workers, move || {
                view.read_into(&buffers, &range, ReadMode::Blocking, cursor.as_ref())
            });
            match cold.await {
                Ok(outcome) => outcome,
                Err(error) => return Err(reject::storage(partition, &error)),
            }
        }
        outcome => outcome,
    };
    match outcome {
        // Nothing may be left of what was there, and then the reader has to go on behind it.
        Ok(ReadOutcome::Slice(slice)) if !slice.bytes.is_empty() || slice.next_offset > offset => {
            Ok(Seen::Slice(slice))
        }
        Ok(_) => Ok(Seen::Nothing),
        Err(ReadError::Stale) => Ok(Seen::OldView),
        Err(error) => {
            let resume = match &error {
                ReadError::Corrupt { .. } => {
                    let view = Arc::clone(view);
                    let next = blocking(&partition.workers, move || view.readable_after(offset));
                    next.await.ok()
                }
                _ => None,
            };
            Err(read_error(partition, offset, &error, resume))
        }
    }
}

/// The error of a failed read; damage is noted. `resume` is where sound records follow, if that is known.
pub(crate) fn read_error(
    partition: &Partition,
    offset: Offset,
    error: &ReadError,
    resume: Option<Offset>,
) -> Error {
    match error {
        ReadError::OutOfRange { .. } => reject::out_of_range(partition, offset),
        ReadError::Stale => Error::new(
            ErrorKind::LeaderNotAvailable,
            format!(
                "the log of {} changed during the read; read again",
                partition.id
            ),
        ),
        ReadError::Corrupt {
            file,
            position,
            expected,
            found,
        } => {
            partition.note_damage(&Damage {
                file: file.clone(),
                position: *position,
                end: *position,
                offsets: Some(OffsetRange {
                    start: offset,
                    end: resume.unwrap_or(offset.plus(1)),
                }),
                expected: expected.clone(),
                found: found.clone(),
            });
            if partition.ask_repair() {
                let text = format!(
                    "partition {} at offset {offset}: {error}; another replica, which is intact, \
                     takes over; read again",
                    partition.id
                );
                return Error::new(ErrorKind::LeaderNotAvailable, text)
                    .with("topic", &partition.id.topic)
                    .with("partition", partition.id.partition)
                    .with("offset", offset);
            }
            let next = resume.map_or(String::new(), |at| {
                format!("; records from offset {at} on can be read")
            });
            let text = format!(
                "partition {} at offset {offset}: {error}; nothing was changed{next}",
                partition.id
            );
            let error = Error::new(ErrorKind::CorruptLog, text)
                .with("topic", &partition.id.topic)
                .with("partition", partition.id.partition)
                .with("offset", offset);
            match resume {
                Some(at) => error.with("next_readable_offset", at),
                None => error,
            }
        }
        ReadError::Io(io) => reject::storage(partition, io),
    }
}
