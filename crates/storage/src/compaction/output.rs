//! Writing a compacted segment: through a buffer of bounded size, synced as it grows, so that one long sync at
//! the end does not hold up the flushes of others. The files are durable, names and all, when
//! [`Output::finish`] returns, and gone when it was never called.

use std::io::IoSlice;
use std::sync::Arc;

use varve_record::BatchHeader;
use varve_types::Offset;
use varve_vfs::VfsError;

use crate::format::{INDEX_MAGIC, SegmentHeader};
use crate::planted::{self, Plant};
use crate::read_view::Sealed;
use crate::segment::{Home, Kind, Segment};
use crate::tail::Tail;

/// Bytes written at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Bytes written between syncs.
const SYNC_BYTES: u64 = 8 << 20;

pub(super) struct Output {
    /// `None` once it is finished.
    tail: Option<Tail>,
    segment: Arc<Segment>,
    buffer: Vec<u8>,
    written: u64,
    synced: u64,
    interval: u64,
    /// Bytes written that nobody has been told of.
    io: u64,
    /// The earliest delete horizon.
    pub(super) horizon_ms: i64,
}

impl Output {
    pub(super) fn create(
        home: &Arc<Home>,
        header: &SegmentHeader,
        interval: u64,
    ) -> Result<Self, VfsError> {
        let segment = Arc::new(Segment::new_compacted(home, header, None));
        let made = Self::create_files(&segment, header);
        if made.is_err() {
            remove(&segment);
        }
        let tail = Tail::empty(segment.clone(), made?);
        Ok(Self {
            tail: Some(tail),
            segment,
            buffer: Vec::new(),
            written: 0,
            synced: 0,
            interval,
            io: 0,
            horizon_ms: i64::MAX,
        })
    }

    fn create_files(
        segment: &Segment,
        header: &SegmentHeader,
    ) -> Result<Arc<dyn varve_vfs::File>, VfsError> {
        let home = &segment.home;
        for kind in Kind::ALL {
            let path = segment.path(kind);
            if home.vfs.exists(&path)? {
                // Of a compaction before a crash, whose number was free again.
                home.vfs.remove_file(&path)?;
            }
        }
        let index = home.vfs.create_new(&segment.path(Kind::Index))?;
        let bytes = header.encode(INDEX_MAGIC, &home.identity);
        index.write_all_at(&[IoSlice::new(&bytes)], 0)?;
        home.vfs.create_new(&segment.path(Kind::Log))
    }

    fn tail(&mut self) -> &mut Tail {
        match &mut self.tail {
            Some(tail) => tail,
            None => unreachable!("it is finished once"),
        }
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Bytes written since this was last asked.
    pub(super) const fn take_io(&mut self) -> u64 {
        std::mem::replace(&mut self.io, 0)
    }

    /// Bytes that are not written yet.
    pub(super) fn unwritten(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// Adds a batch.
    pub(super) fn append(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<(), VfsError> {
        let interval = self.interval;
        self.tail().note(header, interval);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), VfsError> {
        let (at, file) = (self.written, self.tail().file.clone());
        file.write_all_at(&[IoSlice::new(&self.buffer)], at)?;
        let bytes = self.buffer.len() as u64;
        // The disk works while the next batches are looked at, and the sync has little left to wait for.
        file.write_back(at, bytes);
        self.written += bytes;
        self.io += bytes;
        self.buffer.clear();
        if self.written - self.synced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Syncs, and writes the index entries of what is synced.
    fn sync(&mut self) -> Result<(), VfsError> {
        let written = self.written;
        let tail = self.tail();
        if !planted::is(Plant::InstallBeforeSync) {
            tail.file.sync_data()?;
        }
        tail.flushed = written;
        tail.write_index()?;
        self.synced = written;
        Ok(())
    }

    /// Makes it durable. It stands for all offsets up to `end`.
    pub(super) fn finish(mut self, end: Offset) -> Result<Sealed, VfsError> {
        if !self.buffer.is_empty() {
            self.write()?;
        }
        self.tail().close_run();
        self.sync()?;
        let home = self.segment.home.clone();
        for kind in [Kind::Index, Kind::TimeIndex] {
            match home.vfs.open_write(&self.segment.path(kind)) {
                Ok(file) => file.sync_data()?,
                // A segment without entries has none.
                Err(e) if e.is_not_found() && kind == Kind::TimeIndex => {}
                Err(e) => return Err(e),
            }
        }
        home.vfs.sync_dir(&home.dir)?;
        let max_timestamp = self.tail().max_timestamp;
        self.tail = None;
        self.segment.index_is_on_disk();
        Ok(Sealed {
            segment: self.segment.clone(),
            end,
            size: self.written,
            max_timestamp,
            generation: self.segment.generation(),
            horizon_ms: self.horizon_ms,
        })
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.tail.is_some() {
            remove(&self.segment);
        }
    }
}

/// What cannot be removed now is swept when the log is opened next.
fn remove(segment: &Segment) {
    for kind in Kind::ALL {
        let _ = segment.home.vfs.remove_file(&segment.path(kind));
    }
}
