//! What a log may be after a crash, and the check that it is that: a prefix of what was written with
//! everything in it that a flush reported, byte for byte, and the same answers about epochs, times and
//! snapshots. Of a compacted log: as before a change or as after it, and in either case whoever replays it
//! comes to the same values ([`super::keyed`]). Knows nothing about how the log keeps its promise.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use varve_record::{BatchHeader, Sequenced, iter_batches};
use varve_storage::{Log, ReadMode, ReadOutcome, ReadView};
use varve_types::Offset;

use super::keyed;

/// Largest read in one call: odd, so that reads end within batches.
const READ_BYTES: usize = 3_333;

/// A run of batches: contiguous, unless some were compacted.
#[derive(Debug, Clone, Default)]
pub struct Content {
    batches: Vec<(BatchHeader, Bytes)>,
}

impl Content {
    /// The batches of a log as they were served.
    #[must_use]
    pub fn of(served: &Served) -> Self {
        let all = iter_batches(served.bytes.clone().into());
        let batches = all.flatten().map(|b| (b.header, b.bytes)).collect();
        Self { batches }
    }

    /// Bytes of all batches that lie wholly below `end`.
    #[must_use]
    pub fn bytes_below(&self, end: i64) -> Bytes {
        let below = self.between(i64::MIN, end);
        below.flat_map(|(_, bytes)| bytes.iter().copied()).collect()
    }

    /// Adds a batch at the end.
    pub fn push(&mut self, batch: &Sequenced) {
        self.batches.push((*batch.header(), batch.to_bytes()));
    }

    /// Number of batches.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Forgets batches that are not wholly below `end`; `None` forgets all.
    pub fn cut(&mut self, end: Option<i64>) {
        self.batches
            .retain(|(h, _)| end.is_some_and(|end| h.next_offset().get() <= end));
    }

    /// Forgets batches that lie wholly below `start`.
    pub fn trim(&mut self, start: i64) {
        self.batches.retain(|(h, _)| h.next_offset().get() > start);
    }

    /// The batches of `start..end`; the first may begin before.
    fn between(&self, start: i64, end: i64) -> impl Iterator<Item = &(BatchHeader, Bytes)> {
        let inside =
            move |h: &BatchHeader| h.next_offset().get() > start && h.next_offset().get() <= end;
        self.batches.iter().filter(move |(h, _)| inside(h))
    }

    /// Offset after the last record.
    #[must_use]
    pub fn end(&self) -> Option<i64> {
        self.batches.last().map(|(h, _)| h.next_offset().get())
    }
}

/// One thing that the log may be.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// All that was written, in its order; the log is a prefix of it.
    pub content: Arc<Content>,
    /// First offset that readers may see.
    pub start: i64,
    /// Everything below was reported as flushed.
    pub floor: i64,
    /// The newest leader epoch that a flush has covered, 0 for none.
    pub epoch: i32,
    /// Of a log that is compacted.
    pub keyed: Option<Keyed>,
}

/// What is promised of a log that is compacted.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// All that was ever written and not cut off again.
    pub written: Arc<Content>,
    /// The log may have become this instead of `content`. What it is, is known once the change was made; before
    /// that only that a replay comes to the same.
    pub becomes: Option<Arc<OnceLock<Content>>>,
}

/// What was promised at some moment.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// By log: it is one of these. Without any there is nothing to look at.
    pub logs: Vec<Vec<Candidate>>,
    /// Snapshots that were written, by offset: one that is found is one of these.
    pub snapshots: Arc<Vec<(i64, Vec<u8>)>>,
    /// Files outside the log, each with the contents it may have; `None`: no file.
    pub files: Vec<(PathBuf, Vec<Option<Vec<u8>>>)>,
    /// The log was closed cleanly, so that the next start may be told so.
    pub clean: bool,
    /// Process crashes only, and everything written must be there.
    pub whole: bool,
}

/// Whose bytes were served, and whether a client would have noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Offset after the last record.
    pub end: i64,
    /// First offset.
    pub start: i64,
    /// The bytes from the start to the end.
    pub bytes: Vec<u8>,
}

/// Reads everything as a client does: whole batches, checksums verified, offsets contiguous.
///
/// # Errors
/// What such a client would notice.
pub fn serve(view: &ReadView) -> Result<Served, String> {
    read_all(view, false)
}

/// As [`serve`], of a log that may have been compacted: offsets only rise.
///
/// # Errors
/// What a client would notice.
pub fn serve_sparse(view: &ReadView) -> Result<Served, String> {
    read_all(view, true)
}

fn read_all(view: &ReadView, sparse: bool) -> Result<Served, String> {
    let start = view.log_start();
    let (mut next, mut bytes, mut cursor) = (start, Vec::new(), None);
    while next < view.log_end() {
        let outcome = view
            .read(
                next,
                READ_BYTES,
                view.log_end(),
                true,
                ReadMode::Blocking,
                cursor.as_ref(),
            )
            .map_err(|e| format!("reading at offset {next}: {e}"))?;
        let ReadOutcome::Slice(slice) = outcome else {
            return Err(format!("a blocking read at offset {next} would block"));
        };
        if slice.next_offset <= next {
            return Err(format!("a read at offset {next} gave nothing"));
        }
        let mut expected = None;
        for batch in iter_batches(slice.bytes.clone()) {
            let batch = batch.map_err(|e| format!("a batch after offset {next}: {e}"))?;
            let base = batch.header.base_offset;
            batch
                .verify_crc()
                .map_err(|e| format!("the batch at offset {base}: {e}"))?;
            let follows = |expected| base == expected || (sparse && base > expected);
            if expected.is_some_and(|expected| !follows(expected)) {
                return Err(format!("offset {base} where {expected:?} should be"));
            }
            expected = Some(batch.header.next_offset());
        }
        next = slice.next_offset;
        cursor = slice.cursor;
        bytes.extend_from_slice(&slice.bytes);
    }
    Ok(Served {
        start: start.get(),
        end: view.log_end().get(),
        bytes,
    })
}

/// Checks an open log, by its number, against what was promised.
///
/// # Errors
/// In what way it is none of the candidates.
pub fn check(log: &Log, number: usize, expect: &Expect) -> Result<Served, String> {
    check_one_of(log, &expect.logs[number], expect)
}

/// As [`check`], with these candidates.
///
/// # Errors
/// In what way it is none of them.
pub fn check_one_of(
    log: &Log,
    candidates: &[Candidate],
    expect: &Expect,
) -> Result<Served, String> {
    if log.flushed() != log.log_end() {
        return Err(format!(
            "after recovery {} of {} count as flushed",
            log.flushed(),
            log.log_end()
        ));
    }
    let sparse = candidates.iter().any(|c| c.keyed.is_some());
    let served = read_all(&log.view(), sparse)?;
    let mut why = Vec::new();
    for candidate in candidates {
        match fits(log, &served, candidate, expect.whole) {
            Ok(()) => {
                snapshots(log, expect)?;
                return Ok(served);
            }
            Err(reason) => why.push(reason),
        }
    }
    Err(why.join("; or: "))
}

fn fits(log: &Log, served: &Served, c: &Candidate, whole: bool) -> Result<(), String> {
    let Served { start, end, .. } = *served;
    if start != c.start {
        return Err(format!("the log starts at {start}, not at {}", c.start));
    }
    if end < c.floor {
        return Err(format!(
            "the log ends at {end}, but {} was reported as flushed",
            c.floor
        ));
    }
    let all = c.keyed.as_ref().map_or(&c.content, |k| &k.written);
    let written = all.end().unwrap_or(c.start).max(c.start);
    if whole && end != written {
        return Err(format!(
            "the log ends at {end}, but only the process died at {written}"
        ));
    }
    let becomes = c.keyed.as_ref().and_then(|k| k.becomes.as_ref());
    match becomes.map(|cell| cell.get()) {
        None => same_batches(served, &c.content, c.keyed.is_some())?,
        Some(Some(content)) => same_batches(served, content, true)?,
        // It was never made in this history: a replay tells.
        Some(None) => {}
    }
    match &c.keyed {
        None => {
            epochs(log, &c.content, c.epoch, start, end)?;
            times(log, &c.content, start, end)
        }
        Some(keyed) => {
            epochs(log, &keyed.written, c.epoch, start, end)?;
            keyed::same_answers(log, served, &keyed.written)
        }
    }
}

/// The served bytes are those of the batches below the end. Of a compacted log (`sparse`) the end may lie behind
/// the last batch, but in no batch.
fn same_batches(served: &Served, content: &Content, sparse: bool) -> Result<(), String> {
    let Served { start, end, .. } = *served;
    let mut at = 0;
    let mut last = start;
    for (header, bytes) in content.between(start, end) {
        let same = served.bytes.get(at..at + bytes.len()) == Some(&bytes[..]);
        if !same {
            return Err(format!(
                "other bytes than were written at offset {}",
                header.base_offset
            ));
        }
        at += bytes.len();
        last = header.next_offset().get();
    }
    let within = |h: &BatchHeader| h.base_offset.get() < end && end < h.next_offset().get();
    let between = last < end && !content.batches.iter().any(|(h, _)| within(h));
    if at != served.bytes.len() || (last != end && !(sparse && between)) {
        return Err(format!(
            "the log ends at {end} with {} bytes, of which {at} up to {last} were written",
            served.bytes.len()
        ));
    }
    Ok(())
}

/// Each epoch begins where its first batch lies; one that was flushed is not forgotten.
fn epochs(log: &Log, content: &Content, flushed: i32, start: i64, end: i64) -> Result<(), String> {
    let mut right: Vec<(i32, i64)> = Vec::new();
    for (header, _) in content.between(start, end) {
        let epoch = header.leader_epoch.get();
        if right.last().is_none_or(|(last, _)| *last < epoch) {
            right.push((epoch, header.base_offset.get().max(start)));
        }
    }
    let known = log.epochs().entries();
    let found: Vec<(i32, i64)> = known
        .iter()
        .map(|(e, at)| (e.get(), at.get()))
        .filter(|(_, at)| *at < end)
        .collect();
    if found != right {
        return Err(format!("epochs are {found:?}, the batches say {right:?}"));
    }
    let newest = log.last_epoch().map_or(0, varve_types::LeaderEpoch::get);
    if newest < flushed {
        return Err(format!(
            "epoch {flushed} was flushed, and the newest known is {newest}"
        ));
    }
    Ok(())
}

/// The first record of some batches is found by its time.
fn times(log: &Log, content: &Content, start: i64, end: i64) -> Result<(), String> {
    let all: Vec<&BatchHeader> = content.between(start, end).map(|(h, _)| h).collect();
    let Some(upto) = Offset::new(end) else {
        return Ok(());
    };
    for header in all.iter().step_by(all.len() / 4 + 1) {
        let at = header.base_offset.get().max(start);
        let ts = header.base_timestamp + (at - header.base_offset.get());
        let found = log
            .view()
            .offset_for_timestamp(ts, upto)
            .map_err(|e| format!("looking for time {ts}: {e}"))?;
        if found.map(|(o, t)| (o.get(), t)) != Some((at, ts)) {
            return Err(format!(
                "time {ts} is at offset {at}, and {found:?} was found"
            ));
        }
    }
    Ok(())
}

fn snapshots(log: &Log, expect: &Expect) -> Result<(), String> {
    let Some((offset, payload)) = log.latest_snapshot(log.log_end()) else {
        return Ok(());
    };
    let known = expect
        .snapshots
        .iter()
        .any(|(o, p)| *o == offset.get() && *p == payload);
    if known {
        Ok(())
    } else {
        Err(format!(
            "a snapshot at offset {offset} that was never written"
        ))
    }
}
