//! The writer's side of a segment: where the next batch goes, and the index entries that are not on disk yet.
//! Batches are gathered into runs of at least the index interval; a closed run becomes a companion entry, is
//! visible to readers at once, and is written to the index file only after its bytes were flushed.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use varve_record::BatchHeader;
use varve_types::{LeaderEpoch, Offset};
use varve_vfs::{File, VfsError};

use crate::format::{
    Companion, ENTRY_BYTES, HEADER_BYTES, INDEX_MAGIC, SegmentHeader, TIME_ENTRY_BYTES,
    TIME_INDEX_MAGIC, chain_start, chain_step,
};
use crate::planted::{self, Plant};
use crate::segment::{Home, Kind, Point, Segment, time_entry};

/// Entries that wait for a write of the index file at most, while bytes are flushed.
const ENTRIES_PER_WRITE: usize = 32;
/// Flushed bytes that the checkpoint on disk may lag behind.
const BYTES_PER_WRITE: u64 = 1 << 20;

/// A run of batches that is still growing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) first: Offset,
    pub(crate) position: u64,
    max_epoch: LeaderEpoch,
    batches: u32,
}

/// The running CRC after one more batch.
pub(crate) fn chain_after(chain: u32, header: &BatchHeader, position: u64) -> u32 {
    if planted::is(Plant::IgnoreChain) {
        return 0;
    }
    chain_step(chain, header, position)
}

/// State of a tail that an append which failed goes back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    end: u64,
    next: Offset,
    max_timestamp: i64,
    first_append_ms: Option<i64>,
    chain: u32,
    run: Option<Run>,
    pending: usize,
}

#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn File>,
    /// Byte position of the next batch.
    pub(crate) end: u64,
    /// Offset of the next record.
    pub(crate) next: Offset,
    /// Largest timestamp so far; `i64::MIN` for none.
    pub(crate) max_timestamp: i64,
    pub(crate) first_append_ms: Option<i64>,
    /// The open run.
    pub(crate) run: Option<Run>,
    chain: u32,
    /// Closed runs that are not in the index file.
    pending: VecDeque<Companion>,
    /// Entries in the index file, and what they cover.
    entries: u32,
    pub(crate) indexed: u64,
    time_entries: u32,
    time_highest: i64,
    /// Bytes up to here are known to be on stable storage.
    pub(crate) flushed: u64,
}

impl Tail {
    /// Tail of a segment without batches, whose index file has its header.
    pub(crate) fn empty(segment: Arc<Segment>, file: Arc<dyn File>) -> Self {
        let chain = chain_start(&segment.home.identity, segment.id, segment.base);
        Self {
            next: segment.base,
            segment,
            file,
            end: 0,
            max_timestamp: i64::MIN,
            first_append_ms: None,
            run: None,
            chain,
            pending: VecDeque::new(),
            entries: 0,
            indexed: 0,
            time_entries: 0,
            time_highest: i64::MIN,
            flushed: 0,
        }
    }

    /// Tail that continues after `companions`, which are all in the index file.
    pub(crate) fn after(
        segment: Arc<Segment>,
        file: Arc<dyn File>,
        companions: &[Companion],
    ) -> Self {
        let mut tail = Self::empty(segment, file);
        let base = tail.segment.base;
        tail.segment
            .set_points(companions.iter().map(|c| Point::of(c, base)).collect());
        for c in companions {
            if time_entry(c, &mut tail.time_highest).is_some() {
                tail.time_entries += 1;
            }
        }
        tail.entries = companions.len() as u32;
        if let Some(last) = companions.last() {
            tail.continue_after(last);
            tail.indexed = last.end;
            tail.flushed = last.end;
        }
        tail
    }

    fn continue_after(&mut self, last: &Companion) {
        self.end = last.end;
        self.next = last.next;
        self.chain = last.chain;
        self.max_timestamp = last.max_timestamp;
        self.run = None;
    }

    /// Creates the files of a new segment. Not durable: the caller's manifest commit syncs the directory.
    pub(crate) fn create(home: &Arc<Home>, header: &SegmentHeader) -> Result<Self, VfsError> {
        let create = |kind: Kind| {
            let path = home.segment_path(header.base_offset, kind);
            if home.vfs.exists(&path)? {
                // A leftover: what is part of the log is never at the name of a new segment.
                home.vfs.remove_file(&path)?;
            }
            home.vfs.create_new(&path)
        };
        let stale = home.segment_path(header.base_offset, Kind::TimeIndex);
        if home.vfs.exists(&stale)? {
            home.vfs.remove_file(&stale)?;
        }
        let index = create(Kind::Index)?;
        index.write_all_at(
            &[IoSlice::new(&header.encode(INDEX_MAGIC, &home.identity))],
            0,
        )?;
        let log = create(Kind::Log)?;
        let segment = Arc::new(Segment::new(home, header, Some(log.clone())));
        Ok(Self::empty(segment, log))
    }

    /// Says that exactly `companions` are in the index files, and shows all closed runs to readers. What
    /// comes after them and is closed stays queued.
    pub(crate) fn with_indexed(mut self, companions: &[Companion]) -> Self {
        let indexed = companions.last().map_or(0, |c| c.end);
        self.pending.retain(|c| c.end > indexed);
        let base = self.segment.base;
        let shown = companions.iter().chain(self.pending.iter());
        self.segment
            .set_points(shown.map(|c| Point::of(c, base)).collect());
        self.entries = companions.len() as u32;
        self.indexed = indexed;
        (self.time_entries, self.time_highest) = (0, i64::MIN);
        for c in companions {
            if time_entry(c, &mut self.time_highest).is_some() {
                self.time_entries += 1;
            }
        }
        self
    }

    /// Syncs the segment, its index header first: without that, a segment that no manifest lists yet is not
    /// known again.
    pub(crate) fn sync_whole(&self) -> Result<(), VfsError> {
        let home = &self.segment.home;
        home.vfs
            .open_write(&self.segment.path(Kind::Index))?
            .sync_data()?;
        self.file.sync_data()
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            end: self.end,
            next: self.next,
            max_timestamp: self.max_timestamp,
            first_append_ms: self.first_append_ms,
            chain: self.chain,
            run: self.run,
            pending: self.pending.len(),
        }
    }

    /// Accounts for one batch at the end. Returns the companion when it closed a run.
    pub(crate) fn note(&mut self, header: &BatchHeader, interval: u64) -> Option<Companion> {
        assert!(
            header.base_offset == self.next
                || (self.segment.compacted && header.base_offset > self.next),
            "batches of a segment are contiguous, and in order where some were compacted away"
        );
        self.chain = chain_after(self.chain, header, self.end);
        let run = self.run.get_or_insert(Run {
            first: header.base_offset,
            position: self.end,
            max_epoch: header.leader_epoch,
            batches: 0,
        });
        run.batches += 1;
        run.max_epoch = run.max_epoch.max(header.leader_epoch);
        self.end += header.size() as u64;
        self.next = header.next_offset();
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        if self.end - run.position < interval {
            None
        } else {
            self.close_run()
        }
    }

    /// Ends the open run, if there is one, and queues its companion.
    pub(crate) fn close_run(&mut self) -> Option<Companion> {
        let run = self.run.take()?;
        let companion = Companion {
            first: run.first,
            next: self.next,
            position: run.position,
            end: self.end,
            max_timestamp: self.max_timestamp,
            max_epoch: run.max_epoch,
            batches: run.batches,
            chain: self.chain,
        };
        self.pending.push_back(companion);
        Some(companion)
    }

    /// Ends the open run and shows it to readers.
    pub(crate) fn close_run_and_show(&mut self) {
        let before = self.pending.len();
        self.close_run();
        self.publish_points(before);
    }

    /// Goes back to `mark`. Runs closed since are dropped; readers may not have seen them yet.
    pub(crate) fn restore(&mut self, mark: &Mark) {
        self.end = mark.end;
        self.next = mark.next;
        self.max_timestamp = mark.max_timestamp;
        self.first_append_ms = mark.first_append_ms;
        self.chain = mark.chain;
        self.run = mark.run;
        self.pending.truncate(mark.pending);
    }

    /// The newest closed run that is already in the index file is not kept, so only recovery, which has just
    /// compared the companions, may say that the queue is on disk.
    pub(crate) fn forget_pending(&mut self, on_disk: &Companion) {
        let front = self.pending.pop_front();
        assert_eq!(front.as_ref(), Some(on_disk), "the run is the one on disk");
    }

    /// Points of the runs closed since there were `before` of them.
    pub(crate) fn publish_points(&self, before: usize) {
        if self.pending.len() > before {
            let base = self.segment.base;
            let points: Vec<Point> = self
                .pending
                .iter()
                .skip(before)
                .map(|c| Point::of(c, base))
                .collect();
            self.segment.push_points(&points);
        }
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// All closed runs that are not on disk, oldest first.
    pub(crate) fn pending_companions(&self) -> impl Iterator<Item = &Companion> {
        self.pending.iter()
    }

    /// Whether enough flushed runs wait to be worth a write of the index file.
    pub(crate) fn index_write_is_due(&self) -> bool {
        let ready = self.pending.iter().take_while(|c| c.end <= self.flushed);
        ready.clone().count() >= ENTRIES_PER_WRITE
            || ready
                .last()
                .is_some_and(|c| c.end - self.indexed >= BYTES_PER_WRITE)
    }

    /// Writes the entries of all closed runs that are flushed. On an error nothing is forgotten: the next
    /// call writes the same entries to the same place.
    pub(crate) fn write_index(&mut self) -> Result<(), VfsError> {
        let ready: Vec<Companion> = self
            .pending
            .iter()
            .take_while(|c| c.end <= self.flushed || planted::is(Plant::IndexBeforeFlush))
            .copied()
            .collect();
        let Some(last) = ready.last() else {
            return Ok(());
        };
        let id = self.segment.id;
        let mut entries = Vec::with_capacity(ready.len() * ENTRY_BYTES);
        let mut times = Vec::new();
        let (mut number, mut highest) = (self.time_entries, self.time_highest);
        for (i, c) in ready.iter().enumerate() {
            entries.extend_from_slice(&c.encode(id, self.entries + i as u32));
            if let Some(entry) = time_entry(c, &mut highest) {
                times.extend_from_slice(&entry.encode(id, number));
                number += 1;
            }
        }
        let home = &self.segment.home;
        let at = HEADER_BYTES + self.entries as usize * ENTRY_BYTES;
        let index = home.vfs.open_write(&self.segment.path(Kind::Index))?;
        index.write_all_at(&[IoSlice::new(&entries)], at as u64)?;
        if !times.is_empty() {
            let at = HEADER_BYTES + self.time_entries as usize * TIME_ENTRY_BYTES;
            self.open_time_index()?
                .write_all_at(&[IoSlice::new(&times)], at as u64)?;
        }
        self.entries += ready.len() as u32;
        self.indexed = last.end;
        (self.time_entries, self.time_highest) = (number, highest);
        self.pending.drain(..ready.len());
        Ok(())
    }

    /// The time index file; a segment gets one with its first entry.
    fn open_time_index(&self) -> Result<Arc<dyn File>, VfsError> {
        let home = &self.segment.home;
        let path = self.segment.path(Kind::TimeIndex);
        let file = if home.vfs.exists(&path)? {
            home.vfs.open_write(&path)?
        } else {
            home.vfs.create_new(&path)?
        };
        // A power cut may have left the name of the file and none of its bytes.
        if file.len()? >= HEADER_BYTES as u64 {
            return Ok(file);
        }
        let header = self
            .segment
            .header()
            .encode(TIME_INDEX_MAGIC, &home.identity);
        file.write_all_at(&[IoSlice::new(&header)], 0)?;
        Ok(file)
    }
}
