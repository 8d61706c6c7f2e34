//! What readers hold: an immutable snapshot of the log that the writer publishes after every append. Making
//! one costs the same however many segments there are, and reading through one never waits for the writer.
//!
//! Invariants: bytes are returned as stored, whole batches only, never past the view's end or the caller's
//! bound; a read that raced with a truncation is reported as [`ReadError::Stale`], not answered. Every batch
//! is checked on every read, checksum included: damaged bytes end the run before them, and a read that
//! begins with them is an error.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use varve_record::{BatchHeader, HEADER_BYTES};
use varve_types::{LeaderEpoch, Offset, limits};
use varve_vfs::File;

use crate::buffers::ReadBuffers;
use crate::check::check_batch;
use crate::epoch_index::EpochIndex;
use crate::error::ReadError;
use crate::format::{CompactedSegment, ListedSegment};
use crate::header_scan::HeaderScan;
use crate::segment::{Kind, Place, Segment};

/// Bytes read beyond `max_bytes` when it is not known where in its run a batch begins.
const SLACK_BYTES: u64 = 64 * 1024;

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// Answer from memory or say that it would block.
    NoWait,
    /// Wait for the disk.
    Blocking,
}

/// What to read: whole batches from the one that holds `offset` on, from one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRange {
    /// First offset wanted.
    pub offset: Offset,
    /// Most bytes.
    pub max_bytes: usize,
    /// Nothing at or past this offset is returned.
    pub upto: Offset,
    /// The first batch is returned even if it is larger than `max_bytes`.
    pub min_one: bool,
}

/// Where a sequential reader goes on. A hint: one that no longer fits is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    segment_id: u64,
    generation: u64,
    offset: Offset,
    position: u64,
}

/// A run of whole batches as stored.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The batches back to back; empty when there is nothing to read yet. The first one may begin before
    /// the offset that was asked for.
    pub bytes: Bytes,
    /// Base offset of the first batch; the offset asked for when empty.
    pub base_offset: Offset,
    /// Offset to ask for next.
    pub next_offset: Offset,
    /// Leader epoch of the last batch.
    pub last_epoch: Option<LeaderEpoch>,
    /// Number of batches.
    pub batches: u32,
    /// Makes the next read of the same reader cheaper.
    pub cursor: Option<Cursor>,
}

/// Result of a read that did not fail.
#[derive(Debug, Clone)]
pub enum ReadOutcome {
    /// What was read.
    Slice(Slice),
    /// [`ReadMode::NoWait`] and the bytes are not in memory.
    WouldBlock,
}

/// A segment that no longer grows.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) segment: Arc<Segment>,
    /// Offset after its last record.
    pub(crate) end: Offset,
    /// Its bytes.
    pub(crate) size: u64,
    pub(crate) max_timestamp: i64,
    /// The segment's generation when this was true.
    pub(crate) generation: u64,
    /// When the first of its tombstones may go; `i64::MAX` when none waits.
    pub(crate) horizon_ms: i64,
}

/// A snapshot of the log.
#[derive(Debug, Clone)]
pub struct ReadView {
    pub(crate) log_start: Offset,
    pub(crate) sealed: Arc<Vec<Sealed>>,
    pub(crate) active: Sealed,
    /// Which epoch each offset was written in.
    pub(crate) epochs: EpochIndex,
    /// Start of the run that has no index point yet.
    pub(crate) open_run: Option<(Offset, u64)>,
}

/// Where a read begins.
#[derive(Debug, Clone, Copy)]
struct Start {
    position: u64,
    /// Offset of the batch there.
    first: Offset,
    /// Bytes from there in which the batch that is looked for begins.
    run: u64,
    /// The run ends with a batch: the one looked for ends in it as well.
    run_is_known: bool,
}

impl Start {
    const fn exact(position: u64, offset: Offset) -> Self {
        Self {
            position,
            first: offset,
            run: 0,
            run_is_known: false,
        }
    }

    /// Bytes to read at once so that, as a rule, no second read is needed.
    fn bytes_for(&self, max_bytes: usize, min_one: bool) -> u64 {
        let most = max_bytes.max(HEADER_BYTES) as u64;
        let want = self.run.min(SLACK_BYTES).saturating_add(most);
        match (min_one, self.run_is_known) {
            (true, true) if self.run <= limits::BATCH_MAX_BYTES as u64 => want.max(self.run),
            // The batch's size is not known: what most have costs less than asking twice.
            (true, _) => want.max(SLACK_BYTES),
            (false, _) => want,
        }
    }
}

/// A segment within a view.
#[derive(Clone, Copy)]
struct Part<'a> {
    at: &'a Sealed,
    is_active: bool,
}

impl Sealed {
    /// What the manifest says of it.
    pub(crate) fn listed(&self) -> ListedSegment {
        let compacted = self.segment.compacted.then_some(CompactedSegment {
            end: self.end,
            size: self.size,
            horizon_ms: self.horizon_ms,
        });
        ListedSegment {
            compacted,
            ..self.segment.listed()
        }
    }

    /// A read is only good if the segment lost no bytes since the view was made.
    fn check_unchanged(&self) -> Result<(), ReadError> {
        if self.segment.generation() == self.generation {
            Ok(())
        } else {
            Err(ReadError::Stale)
        }
    }
}

impl ReadView {
    /// First offset of the log.
    #[must_use]
    pub const fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The largest timestamp of the log's records; `None` when it has none, or none with a time.
    #[must_use]
    pub fn max_timestamp(&self) -> Option<i64> {
        let sealed = self.sealed.iter().filter(|at| at.end > self.log_start);
        let all = sealed.chain(std::iter::once(&self.active));
        all.map(|at| at.max_timestamp).max().filter(|max| *max >= 0)
    }

    /// Where the records of `epoch` end: see [`EpochIndex::end_offset_for`].
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_offset_for(epoch, self.log_end())
    }

    /// Offset after the last record of the log.
    #[must_use]
    pub const fn log_end(&self) -> Offset {
        self.active.end
    }

    fn part(&self, offset: Offset) -> Part<'_> {
        if offset >= self.active.segment.base {
            return Part {
                at: &self.active,
                is_active: true,
            };
        }
        let after = self.sealed.partition_point(|s| s.segment.base <= offset);
        match after.checked_sub(1).and_then(|i| self.sealed.get(i)) {
            Some(at) => Part {
                at,
                is_active: false,
            },
            None => Part {
                at: &self.active,
                is_active: true,
            },
        }
    }

    fn check(&self, offset: Offset) -> Result<(), ReadError> {
        if offset < self.log_start || offset > self.log_end() {
            let (start, end) = (self.log_start, self.log_end());
            return Err(ReadError::OutOfRange { offset, start, end });
        }
        Ok(())
    }

    fn file(part: &Part<'_>) -> Result<Arc<dyn File>, ReadError> {
        part.at.segment.log_file().map_err(|e| {
            // Only a removed segment has no file.
            if e.is_not_found() {
                ReadError::Stale
            } else {
                e.into()
            }
        })
    }

    /// Reads whole batches from the one that holds `offset` on: at most `max_bytes` of them, all below
    /// `upto` (exclusive) and from one segment. Where compaction has removed that batch, they begin with the
    /// next one. With `min_one` the first batch is returned even if it is larger than `max_bytes`. Nothing
    /// below `upto` gives an empty slice, which says to go on at `upto` if there were records once.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] outside `log_start..=log_end`; [`ReadError::Stale`] when the log was
    /// changed under the view; else what the disk or the bytes say.
    pub fn read(
        &self,
        offset: Offset,
        max_bytes: usize,
        upto: Offset,
        min_one: bool,
        mode: ReadMode,
        cursor: Option<&Cursor>,
    ) -> Result<ReadOutcome, ReadError> {
        let range = ReadRange {
            offset,
            max_bytes,
            upto,
            min_one,
        };
        self.read_into(&ReadBuffers::default(), &range, mode, cursor)
    }

    /// As [`ReadView::read`], into buffers of a pool.
    ///
    /// # Errors
    /// As for [`ReadView::read`].
    pub fn read_into(
        &self,
        buffers: &ReadBuffers,
        range: &ReadRange,
        mode: ReadMode,
        cursor: Option<&Cursor>,
    ) -> Result<ReadOutcome, ReadError> {
        let ReadRange {
            offset,
            max_bytes,
            upto,
            min_one,
        } = *range;
        self.check(offset)?;
        let upto = upto.min(self.log_end());
        let mut from = offset;
        while from < upto {
            let part = self.part(from);
            let file = match mode {
                ReadMode::Blocking => Some(Self::file(&part)?),
                ReadMode::NoWait => part.at.segment.open_log_file(),
            };
            let start = self.start_of(&part, from, mode, cursor);
            let (Some(file), Some(start)) = (file, start) else {
                return Ok(ReadOutcome::WouldBlock);
            };
            let len = start
                .bytes_for(max_bytes, min_one)
                .min(part.at.size.saturating_sub(start.position));
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let found = if len == 0 && part.at.segment.compacted {
                Ok(Found::Gap)
            } else {
                let mut fetch = Fetch {
                    file: &*file,
                    epochs: &self.epochs,
                    position: start.position,
                    first: start.first,
                    limit: part.at.size,
                    end: part.at.end,
                    gaps: part.at.segment.compacted,
                    mode,
                    buf: buffers.take(len),
                    buffers,
                };
                if !fetch.load(len)? {
                    return Ok(ReadOutcome::WouldBlock);
                }
                fetch.collect(from, max_bytes, upto, min_one)
            };
            part.at.check_unchanged()?;
            match found? {
                Found::Slice(mut found) => {
                    if let Some(cursor) = &mut found.cursor {
                        cursor.segment_id = part.at.segment.id;
                        cursor.generation = part.at.segment.generation();
                    }
                    return Ok(ReadOutcome::Slice(found));
                }
                Found::WouldBlock => return Ok(ReadOutcome::WouldBlock),
                // What was there was compacted away: the next record is in a later segment.
                Found::Gap => from = part.at.end.max(from),
            }
        }
        Ok(ReadOutcome::Slice(empty(from.min(upto).max(offset))))
    }

    /// Where to start reading. `None`: the index is not in memory, and `mode` does not wait.
    fn start_of(
        &self,
        part: &Part<'_>,
        offset: Offset,
        mode: ReadMode,
        cursor: Option<&Cursor>,
    ) -> Option<Start> {
        let segment = &part.at.segment;
        if let Some(c) = cursor
            && (c.segment_id, c.offset) == (segment.id, offset)
            && c.generation == segment.generation()
            && c.position < part.at.size
        {
            return Some(Start::exact(c.position, offset));
        }
        if offset == segment.base {
            return Some(Start::exact(0, offset));
        }
        if part.is_active
            && let Some((first, position)) = self.open_run
            && offset >= first
        {
            return Some(Start {
                position,
                first,
                run: part.at.size.saturating_sub(position),
                run_is_known: false,
            });
        }
        let place = segment.find(offset, mode)?;
        // A view older than the index must not be led past its own end.
        let position = place.position.min(part.at.size);
        let end = place.next.unwrap_or(part.at.size).min(part.at.size);
        Some(Start {
            position,
            first: place.first,
            run: end.saturating_sub(position),
            run_is_known: place.next.is_some(),
        })
    }

    /// The first record at or after the log start, and below `upto`, whose timestamp is `timestamp`
    /// (milliseconds) or later: its offset and its timestamp. `None` when there is no such record.
    ///
    /// # Errors
    /// As for [`ReadView::read`].
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        upto: Offset,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let upto = upto.min(self.log_end());
        let sealed = self.sealed.iter().map(|at| Part {
            at,
            is_active: false,
        });
        let active = Part {
            at: &self.active,
            is_active: true,
        };
        for part in sealed.chain(std::iter::once(active)) {
            if part.at.max_timestamp < timestamp || part.at.end <= self.log_start {
                continue;
            }
            if part.at.segment.base >= upto {
                break;
            }
            let found = self.time_in(&part, timestamp, upto);
            part.at.check_unchanged()?;
            if let Some(found) = found? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn time_in(
        &self,
        part: &Part<'_>,
        timestamp: i64,
        upto: Offset,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let open = self
            .open_run
            .filter(|_| part.is_active)
            .map(|(first, position)| Place {
                position,
                first,
                next: None,
            });
        let Some(place) = part.at.segment.find_time(timestamp).or(open) else {
            return Ok(None);
        };
        let mut position = match open {
            Some(open) => place.position.min(open.position),
            None => place.position,
        };
        let file = Self::file(part)?;
        let mut scan = HeaderScan::new(file, part.at.size).ending_by(part.at.end);
        if let Some(next) = place.next {
            // The run has the record: its bytes come with the first header.
            scan.read_ahead(next.saturating_sub(position));
        }
        while position < part.at.size {
            let header = scan.header_at(position)?;
            if header.base_offset >= upto {
                return Ok(None);
            }
            if header.max_timestamp >= timestamp && header.last_offset() >= self.log_start {
                let from = self.log_start;
                if let Some(found) = scan.record_at(position, &header, timestamp, from, upto)? {
                    return Ok(Some(found));
                }
            }
            position += header.size() as u64;
        }
        Ok(None)
    }

    /// Headers of all batches from the one that holds `from` on, in order, over all segments. Reads
    /// headers only. Ends after the first error.
    #[must_use]
    pub fn headers(&self, from: Offset) -> Headers<'_> {
        Headers {
            view: self,
            next: from,
            at: None,
            begun: false,
            failed: false,
        }
    }
}

fn empty(offset: Offset) -> Slice {
    Slice {
        bytes: Bytes::new(),
        base_offset: offset,
        next_offset: offset,
        last_epoch: None,
        batches: 0,
        cursor: None,
    }
}

/// What one segment gave.
enum Found {
    Slice(Slice),
    WouldBlock,
    /// No batch that ends past the offset asked for.
    Gap,
}

/// Where the batch that was looked for begins.
enum Skipped {
    To(usize, BatchHeader),
    WouldBlock,
    Gap,
}

/// One read in progress: a buffer that holds the file from `position` on.
struct Fetch<'a> {
    file: &'a dyn File,
    epochs: &'a EpochIndex,
    position: u64,
    /// Offset of the first batch in the buffer.
    first: Offset,
    limit: u64,
    /// Offset after the segment's last record, as the view knows it.
    end: Offset,
    /// Offsets may be missing between batches.
    gaps: bool,
    mode: ReadMode,
    buf: Vec<u8>,
    buffers: &'a ReadBuffers,
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        self.buffers.give_back(std::mem::take(&mut self.buf));
    }
}

impl Fetch<'_> {
    /// Extends the buffer to `len` bytes, or as many as there are. `false`: it would block, and the buffer
    /// is as long as it was.
    fn load(&mut self, len: usize) -> Result<bool, ReadError> {
        let have = self.buf.len();
        let at = self.position + have as u64;
        let len = len
            .saturating_sub(have)
            .min(self.limit.saturating_sub(at) as usize);
        if len == 0 {
            return Ok(true);
        }
        match self.mode {
            ReadMode::Blocking => {
                self.file.read_into(at, len, &mut self.buf)?;
                Ok(true)
            }
            ReadMode::NoWait => Ok(self
                .file
                .read_into_nowait(at, len, &mut self.buf)?
                .is_some()),
        }
    }

    fn corrupt(&self, at: usize, expected: String, found: String) -> ReadError {
        let file = PathBuf::from(self.file.path());
        ReadError::Corrupt {
            file,
            position: self.position + at as u64,
            expected,
            found,
        }
    }

    /// The header at `at` in the buffer, loading more if it must. `None`: it would block.
    fn header(&mut self, at: usize, expected: Offset) -> Result<Option<BatchHeader>, ReadError> {
        if self.buf.len() < at + HEADER_BYTES {
            let before = self.buf.len();
            if !self.load(at + HEADER_BYTES)? || (self.buf.len() < at + HEADER_BYTES) {
                if self.mode == ReadMode::NoWait {
                    return Ok(None);
                }
                let found = format!("{} bytes", self.buf.len().max(before).saturating_sub(at));
                return Err(self.corrupt(at, "a batch header of 61 bytes".into(), found));
            }
        }
        let header = BatchHeader::parse(&self.buf[at..])
            .map_err(|e| self.corrupt(at, "a batch header".into(), e.to_string()))?;
        let follows =
            header.base_offset == expected || (self.gaps && header.base_offset > expected);
        if !follows {
            let found = format!("one at offset {}", header.base_offset);
            return Err(self.corrupt(at, format!("a batch at offset {expected}"), found));
        }
        if header.next_offset() > self.end {
            let found = format!("one up to offset {}", header.next_offset());
            return Err(self.corrupt(at, format!("a batch that ends by {}", self.end), found));
        }
        Ok(Some(header))
    }

    /// Skips to the batch that holds `offset`. Batches in between that are larger than what was loaded are
    /// jumped over, not read.
    fn skip_to(&mut self, offset: Offset) -> Result<Skipped, ReadError> {
        let (mut at, mut expected) = (0, self.first);
        loop {
            if self.gaps && self.position + at as u64 >= self.limit {
                return Ok(Skipped::Gap);
            }
            let Some(header) = self.header(at, expected)? else {
                return Ok(Skipped::WouldBlock);
            };
            if header.last_offset() >= offset {
                return Ok(Skipped::To(at, header));
            }
            expected = header.next_offset();
            at += header.size();
            if at >= self.buf.len() {
                self.position += at as u64;
                self.buf.clear();
                at = 0;
            }
        }
    }

    /// Cuts the slice out of the buffer.
    fn collect(
        &mut self,
        offset: Offset,
        max_bytes: usize,
        upto: Offset,
        min_one: bool,
    ) -> Result<Found, ReadError> {
        let (start, first) = match self.skip_to(offset)? {
            Skipped::To(start, first) => (start, first),
            Skipped::WouldBlock => return Ok(Found::WouldBlock),
            Skipped::Gap => return Ok(Found::Gap),
        };
        let past_upto = first.next_offset() > upto;
        if !past_upto && first.size() > max_bytes && !min_one {
            let from = first.base_offset.min(upto).max(offset);
            return Ok(Found::Slice(empty(from)));
        }
        // One batch at least, and as much as is allowed, with one more read if the skip took its place.
        let goal = start + first.size().max(max_bytes);
        if self.buf.len() < goal && !self.load(goal)? && self.buf.len() < start + first.size() {
            return Ok(Found::WouldBlock);
        }
        let (mut end, mut last, mut batches) = (start, first, 0);
        let mut candidate = first;
        loop {
            let size = candidate.size();
            if self.buf.len() < end + size {
                break;
            }
            let bytes = &self.buf[end..end + size];
            match check_batch(bytes, candidate.base_offset, self.epochs) {
                Ok(header) => last = header,
                // What is sound is given; the next read begins with the damage and reports it.
                Err(_) if batches > 0 => break,
                Err(what) => return Err(self.corrupt(end, what.expected, what.found)),
            }
            if past_upto {
                // It is so and not only stated by a damaged header, which would be waited for in vain.
                let from = candidate.base_offset.min(upto).max(offset);
                return Ok(Found::Slice(empty(from)));
            }
            end += size;
            batches += 1;
            let next = last.next_offset();
            let room = max_bytes.saturating_sub(end - start);
            if next >= upto || room < HEADER_BYTES || self.buf.len() < end + HEADER_BYTES {
                break;
            }
            let Ok(Some(header)) = self.header(end, next) else {
                break;
            };
            if header.next_offset() > upto || header.size() > room {
                break;
            }
            if self.buf.len() < end + header.size() {
                break;
            }
            candidate = header;
        }
        if batches == 0 {
            if self.mode == ReadMode::NoWait {
                return Ok(Found::WouldBlock);
            }
            let found = format!("{} bytes", self.buf.len().saturating_sub(start));
            let expected = format!("a batch of {} bytes", first.size());
            return Err(self.corrupt(start, expected, found));
        }
        let bytes = self
            .buffers
            .share(std::mem::take(&mut self.buf), start, end);
        let next_offset = last.next_offset();
        let position = self.position + end as u64;
        let cursor = Cursor {
            segment_id: 0,
            generation: 0,
            offset: next_offset,
            position,
        };
        Ok(Found::Slice(Slice {
            bytes,
            base_offset: first.base_offset,
            next_offset,
            last_epoch: Some(last.leader_epoch),
            batches,
            cursor: Some(cursor),
        }))
    }
}

/// Iterator over batch headers. See [`ReadView::headers`].
pub struct Headers<'a> {
    view: &'a ReadView,
    next: Offset,
    /// Scan of the current segment and the position of the next header in it.
    at: Option<(HeaderScan, u64, Part<'a>)>,
    /// A header was given: the next batch begins where that one ends.
    begun: bool,
    failed: bool,
}

impl Headers<'_> {
    fn step(&mut self) -> Result<Option<BatchHeader>, ReadError> {
        loop {
            if self.next >= self.view.log_end() {
                return Ok(None);
            }
            let over = |at: &(HeaderScan, u64, Part<'_>)| at.1 >= at.2.at.size;
            if let Some((_, _, part)) = self.at.take_if(|at| over(at))
                && part.at.segment.compacted
            {
                // The rest of the segment was compacted away.
                self.next = self.next.max(part.at.end);
                continue;
            }
            if self.at.is_none() {
                self.view.check(self.next)?;
                let part = self.view.part(self.next);
                let file = ReadView::file(&part)?;
                let start = self
                    .view
                    .start_of(&part, self.next, ReadMode::Blocking, None);
                let position = start.map_or(0, |s| s.position);
                let scan = HeaderScan::new(file, part.at.size).ending_by(part.at.end);
                self.at = Some((scan, position, part));
                if part.at.segment.compacted {
                    continue;
                }
            }
            let Some((scan, position, part)) = &mut self.at else {
                return Ok(None);
            };
            let header = scan.header_at(*position);
            part.at.check_unchanged()?;
            let header = header?;
            let follows = if self.begun {
                header.base_offset == self.next
            } else {
                header.base_offset <= self.next
            };
            let in_gap = part.at.segment.compacted && header.base_offset > self.next;
            if *position + header.size() as u64 > part.at.size || !(follows || in_gap) {
                let found = format!("a batch at offset {}", header.base_offset);
                let expected = format!("a batch with offset {}", self.next);
                let file = part.at.segment.path(Kind::Log);
                return Err(ReadError::Corrupt {
                    file,
                    position: *position,
                    expected,
                    found,
                });
            }
            *position += header.size() as u64;
            if header.last_offset() >= self.next {
                self.next = header.next_offset();
                self.begun = true;
                return Ok(Some(header));
            }
        }
    }
}

impl Iterator for Headers<'_> {
    type Item = Result<BatchHeader, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step().transpose();
        self.failed = matches!(step, Some(Err(_)));
        step
    }
}
