//! Walking a segment batch by batch with everything checked: checksum, place, leader epoch, and the running
//! CRC of the index. Goes on behind damage, so that one walk finds all of it. For the offline check and for the
//! scrub of a live log.
//!
//! Invariants: every byte of the file up to the end of the walk is in a batch that was reported good or in a
//! damaged range; the walk moves forward with every step, whatever the bytes are. It changes nothing.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use varve_record::{BatchHeader, HEADER_BYTES};
use varve_types::{LeaderEpoch, Offset, OffsetRange};
use varve_vfs::{File, VfsError};

use crate::check::{Mismatch, check_batch};
use crate::epoch_index::EpochIndex;
use crate::format::Companion;
use crate::tail::chain_after;

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes of a file that are not what the log wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} at byte {position}: expected {expected}, found {found}", file.display())]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// First byte of the damaged range.
    pub position: u64,
    /// Byte after it.
    pub end: u64,
    /// Offsets that can no longer be read. `None`: the file can be derived, or no record is lost with it.
    pub offsets: Option<OffsetRange>,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// One step of a walk.
#[derive(Debug)]
pub(crate) enum Seen {
    Batch(BatchHeader),
    Damage(Damage),
    End,
}

/// Where a walk ends, and what it may take for granted.
pub(crate) struct Limits {
    /// Bytes of the file that belong to the log.
    pub(crate) size: u64,
    /// Offset at `size`, if it is known.
    pub(crate) end: Option<Offset>,
    /// A compaction wrote the segment: offsets may be missing between batches, and before `end`.
    pub(crate) gaps: bool,
    /// Batches that reach past this offset are not looked at.
    pub(crate) upto: Option<Offset>,
    /// Read from the disk rather than from memory, and leave memory as it was.
    pub(crate) past_cache: bool,
    /// The list of epochs may lag behind the log, as a crash leaves it: a newer epoch than all is noted.
    pub(crate) learn_epochs: bool,
}

pub(crate) struct Walk {
    file: Arc<dyn File>,
    limits: Limits,
    epochs: EpochIndex,
    /// Intact index entries that are not reached yet.
    runs: VecDeque<Companion>,
    pub(crate) position: u64,
    pub(crate) next: Offset,
    /// The running CRC; `None` behind damage, until the next index entry states it.
    chain: Option<u32>,
    /// The run that grows, if it is known from its start.
    run: Option<Companion>,
    max_timestamp: Option<i64>,
    /// Damage that was found with the last step and is not told yet.
    pending: Option<Damage>,
    window: Vec<u8>,
    window_at: u64,
    /// Bytes read so far.
    pub(crate) bytes: u64,
}

impl Walk {
    /// From the start of the segment that begins at `base`; `chain` is what precedes its first batch.
    pub(crate) fn new(
        file: Arc<dyn File>,
        base: Offset,
        chain: Option<u32>,
        runs: Vec<Companion>,
        epochs: EpochIndex,
        limits: Limits,
    ) -> Self {
        Self {
            file,
            limits,
            epochs,
            runs: runs.into(),
            position: 0,
            next: base,
            chain,
            run: None,
            max_timestamp: Some(i64::MIN),
            pending: None,
            window: Vec::new(),
            window_at: 0,
            bytes: 0,
        }
    }

    /// The epochs that are known by now.
    pub(crate) fn epochs(&self) -> &EpochIndex {
        &self.epochs
    }

    /// The last batch closed a run, and the index agrees with it.
    pub(crate) fn at_run_end(&self) -> bool {
        self.run.is_none() && self.pending.is_none()
    }

    /// Index entries behind the end of the walk: bytes that were flushed and are not there.
    pub(crate) fn left_over(&self) -> Option<&Companion> {
        self.runs.back().filter(|run| run.end > self.position)
    }

    /// Bytes `at..at + len`, or as many as there are.
    fn load(&mut self, at: u64, len: usize) -> Result<&[u8], VfsError> {
        let have = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + len as u64 > have {
            let left = usize::try_from(self.limits.size.saturating_sub(at)).unwrap_or(usize::MAX);
            let want = len.max(CHUNK_BYTES).min(left);
            self.window.clear();
            self.window_at = at;
            if self.limits.past_cache {
                self.read_past_cache(at, want)?;
            } else {
                self.file.read_into(at, want, &mut self.window)?;
            }
            self.bytes += self.window.len() as u64;
        }
        let from = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        let to = from.saturating_add(len).min(self.window.len());
        Ok(self.window.get(from..to).unwrap_or_default())
    }

    /// Asks the disk and not the memory, and leaves in memory only what was there before.
    fn read_past_cache(&mut self, at: u64, len: usize) -> Result<(), VfsError> {
        let mut probe = Vec::new();
        let hot = self.file.read_into_nowait(at, 1, &mut probe)?;
        let hot = hot.is_some_and(|n| n > 0);
        self.file.drop_cache(at, len as u64);
        self.file.read_into(at, len, &mut self.window)?;
        if !hot {
            self.file.drop_cache(at, len as u64);
        }
        Ok(())
    }

    /// The next batch, or the next damage.
    pub(crate) fn step(&mut self) -> Result<Seen, VfsError> {
        if let Some(damage) = self.pending.take() {
            return Ok(Seen::Damage(damage));
        }
        let (at, offset) = (self.position, self.next);
        if at >= self.limits.size || self.limits.upto.is_some_and(|upto| offset >= upto) {
            return Ok(self.last_words());
        }
        let parsed = match self.load(at, HEADER_BYTES) {
            Ok(head) => BatchHeader::parse(head),
            Err(e) => return self.unreadable(e),
        };
        let header = match parsed {
            Ok(h) if h.base_offset == offset && self.reaches_past(&h) => return Ok(Seen::End),
            Ok(h) if self.past_end(&h) => {
                let expected = format!("a batch that ends by {:?}", self.limits.end);
                let found = format!("one up to offset {}", h.next_offset());
                return Ok(self.damage(None, expected, found));
            }
            Ok(h) => h,
            Err(e) => {
                let expected = format!("a batch header at offset {offset}");
                return Ok(self.damage(None, expected, e.to_string()));
            }
        };
        let offset = if self.follows(&header) {
            header.base_offset
        } else {
            offset
        };
        // A header that states too much must not make the walk read more than there is.
        let left = self.limits.size.saturating_sub(at);
        if header.size() as u64 > left {
            let (expected, found) = (
                format!("a batch of at most {left} bytes"),
                format!("one of {}", header.size()),
            );
            return Ok(self.damage(None, expected, found));
        }
        if self.limits.learn_epochs && self.epochs.last() < Some(header.leader_epoch) {
            self.epochs.begin(header.leader_epoch, offset);
        }
        let epochs = self.epochs.clone();
        let checked = match self.load(at, header.size()) {
            Ok(bytes) => check_batch(bytes, offset, &epochs),
            Err(e) => return self.unreadable(e),
        };
        match checked {
            Ok(header) => Ok(self.accept(header)),
            Err(Mismatch { expected, found }) => Ok(self.damage(Some(header), expected, found)),
        }
    }

    /// Whether the batch may be the next one.
    fn follows(&self, header: &BatchHeader) -> bool {
        let in_gap = self.limits.gaps && header.base_offset > self.next;
        header.base_offset == self.next || in_gap
    }

    /// Whether a batch behind a gap reaches past the end of the segment.
    fn past_end(&self, header: &BatchHeader) -> bool {
        let end = self.limits.end.filter(|_| self.limits.gaps);
        end.is_some_and(|end| header.next_offset() > end)
    }

    /// Whether part of the batch is not flushed yet.
    fn reaches_past(&self, header: &BatchHeader) -> bool {
        let upto = self.limits.upto;
        upto.is_some_and(|upto| header.next_offset() > upto)
    }

    /// A good batch; at the end of a run, the index has to agree.
    fn accept(&mut self, header: BatchHeader) -> Seen {
        let position = self.position;
        let end = position + header.size() as u64;
        self.note(&header, end);
        (self.position, self.next) = (end, header.next_offset());
        if let Some(stored) = self.runs.front().filter(|run| run.end <= end).copied() {
            self.runs.pop_front();
            let seen = self.run.take();
            let same = match (seen, self.chain) {
                (Some(seen), Some(_)) => seen == stored,
                // The run was not seen from its start: its end is all that can be compared.
                _ => stored.end == end && stored.next == self.next,
            };
            self.chain = Some(stored.chain);
            if !same {
                // The batch by itself is good, and so it is told first.
                self.pending = Some(Damage {
                    file: self.file.path().to_owned(),
                    position: stored.position,
                    end: stored.end.max(end),
                    offsets: Some(OffsetRange {
                        start: stored.first,
                        end: stored.next.max(stored.first),
                    }),
                    expected: format!("the batches that the index has there: {stored:?}"),
                    found: format!("other batches with valid checksums: {seen:?}"),
                });
            }
        }
        Seen::Batch(header)
    }

    /// Adds a batch to the run that grows.
    fn note(&mut self, header: &BatchHeader, end: u64) {
        self.max_timestamp = self.max_timestamp.map(|t| t.max(header.max_timestamp));
        self.chain = self
            .chain
            .map(|chain| chain_after(chain, header, self.position));
        let starts = self
            .runs
            .front()
            .is_some_and(|run| run.position == self.position);
        if starts && self.chain.is_some() && self.max_timestamp.is_some() {
            self.run = Some(Companion {
                first: header.base_offset,
                next: header.next_offset(),
                position: self.position,
                end,
                max_timestamp: i64::MIN,
                max_epoch: LeaderEpoch::ZERO,
                batches: 0,
                chain: 0,
            });
        }
        if let (Some(run), Some(chain), Some(latest)) =
            (&mut self.run, self.chain, self.max_timestamp)
        {
            (run.next, run.end, run.chain) = (header.next_offset(), end, chain);
            run.max_timestamp = latest;
            run.max_epoch = run.max_epoch.max(header.leader_epoch);
            run.batches += 1;
        }
    }

    /// The file ends: at the right offset, if that is known.
    fn last_words(&mut self) -> Seen {
        match self.limits.end {
            Some(end) if self.limits.gaps => {
                // The last records may be gone as well.
                if self.position >= self.limits.size {
                    self.next = self.next.max(end);
                }
                Seen::End
            }
            Some(end) if self.position >= self.limits.size && self.next != end => {
                let damage = Damage {
                    file: self.file.path().to_owned(),
                    position: self.position,
                    end: self.position,
                    offsets: (self.next < end).then_some(OffsetRange {
                        start: self.next,
                        end,
                    }),
                    expected: format!("the segment to end at offset {end}"),
                    found: format!("a segment that ends at offset {}", self.next),
                };
                self.limits.end = None;
                Seen::Damage(damage)
            }
            _ => Seen::End,
        }
    }

    /// The disk gives an error instead of bytes.
    fn unreadable(&mut self, error: VfsError) -> Result<Seen, VfsError> {
        if error.is_not_found() {
            return Err(error);
        }
        self.window.clear();
        Ok(self.damage(None, "bytes that can be read".into(), error.to_string()))
    }

    /// Passes over what is damaged: one batch, if its header can still be believed, else up to the next
    /// place that the index knows, or the end.
    fn damage(&mut self, header: Option<BatchHeader>, expected: String, found: String) -> Seen {
        let (position, start) = (self.position, self.next);
        let skipped = header.and_then(|h| self.past_one(&h).map(|after| (h, after)));
        if let Some((h, (end, next))) = skipped {
            // Where and how long it is, and its stated checksum, are checked by the running CRC later.
            self.note(&h, end);
            (self.position, self.next) = (end, next);
            self.pass_runs(end);
        } else {
            self.skip_to_run();
        }
        self.max_timestamp = None;
        self.run = None;
        Seen::Damage(Damage {
            file: self.file.path().to_owned(),
            position,
            end: self.position,
            offsets: Some(OffsetRange {
                start,
                end: self.next.max(start),
            }),
            expected,
            found,
        })
    }

    /// Where the batch with this header ends, if what follows begins right there.
    fn past_one(&mut self, header: &BatchHeader) -> Option<(u64, Offset)> {
        let (end, next) = (self.position + header.size() as u64, header.next_offset());
        if !self.follows(header) {
            return None;
        }
        let gaps = self.limits.gaps;
        if end == self.limits.size {
            let fits = |e: Offset| e == next || (gaps && e > next);
            return self.limits.end.is_none_or(fits).then_some((end, next));
        }
        let head = self.load(end, HEADER_BYTES).ok()?;
        let behind = |h: BatchHeader| h.base_offset == next || (gaps && h.base_offset > next);
        let follows = BatchHeader::parse(head).is_ok_and(behind);
        follows.then_some((end, next))
    }

    /// Forgets runs that end at or before `end`; the last of them states the running CRC.
    fn pass_runs(&mut self, end: u64) {
        while let Some(run) = self.runs.front().filter(|run| run.end <= end).copied() {
            self.runs.pop_front();
            self.chain = (run.end == end).then_some(run.chain);
        }
    }

    fn skip_to_run(&mut self) {
        let mut before: Option<Companion> = None;
        while let Some(run) = self.runs.front().copied() {
            if run.position > self.position && run.first > self.next {
                let known = before.filter(|b| b.end == run.position);
                self.chain = known.map(|b| b.chain);
                (self.position, self.next) = (run.position, run.first);
                return;
            }
            before = self.runs.pop_front();
        }
        self.chain = None;
        self.position = self.limits.size;
        self.next = self.limits.end.unwrap_or(self.next).max(self.next);
    }
}
