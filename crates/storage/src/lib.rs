//! One partition's log as segment files: synchronous, one writer, many readers. A directory holds segments
//! (`.log`: a pure run of record batches, `.index`, `.timeindex`), a `manifest`, a `leader-epoch` file and
//! `.snapshot` files; every byte of them is described in `FORMAT.md`.
//!
//! Invariants: `log_start <= flushed <= log_end` once recovery is done; offsets are contiguous; a batch is
//! written as it was sequenced and never changed; an index entry is written only after the bytes it covers
//! were flushed; the manifest is committed before a file is deleted; after a failed write or sync the log
//! refuses every change until it is opened again, and only a full disk is not a failure. Damage that a crash
//! cannot explain is refused, never cut.
//!
//! It never starts a thread, reads a clock, looks at a high watermark on its own, or decides what an
//! acknowledgement means.
//!
//! # Alone, without a server
//!
//! ```
//! use std::sync::Arc;
//! use varve_record::{BatchBuilder, Compression, iter_batches};
//! use varve_storage::{Log, LogConfig, LogIdentity, OpenMode, ReadMode, ReadOutcome};
//! use varve_types::{LeaderEpoch, PartitionId, TopicId};
//! use varve_vfs::RealVfs;
//!
//! # let home = tempfile::tempdir()?;
//! # let dir = home.path().join("log");
//! let identity = LogIdentity { topic_id: TopicId(7), partition: PartitionId(0) };
//! let (config, mode) = (LogConfig::default(), OpenMode { clean: false });
//! let (mut log, _) = Log::open(Arc::new(RealVfs), &dir, identity, config, mode, 0)?;
//!
//! let mut builder = BatchBuilder::new(Compression::None, None);
//! builder.append(1, Some(b"key"), Some(b"value"), &[])?;
//! let batch = builder.build_batch()?.sequence(log.log_end(), LeaderEpoch::ZERO);
//! let appended = log.append(&[batch], 0)?; // written, and visible to readers
//! assert_eq!(log.flush_now()?, appended.range.end); // durable
//! drop(log); // as after a kill
//!
//! let (log, recovery) = Log::open(Arc::new(RealVfs), &dir, identity, config, mode, 0)?;
//! assert_eq!(recovery.bytes_cut, 0);
//! let (start, end) = (log.log_start(), log.log_end());
//! let ReadOutcome::Slice(slice) = log.view().read(start, 1 << 20, end, true, ReadMode::Blocking, None)?
//! else { unreachable!("a blocking read does not block") };
//! for batch in iter_batches(slice.bytes) {
//!     for record in batch?.records()? {
//!         assert_eq!(record?.value.as_deref(), Some(&b"value"[..]));
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/log.rs` is the same as a program, with many batches read.
//!
//! # The API in short
//!
//! ```text
//! Log::open(vfs: Arc<dyn Vfs>, dir: &Path, LogIdentity, LogConfig, OpenMode { clean }, now_ms) -> Result<(Log, Recovery), LogError>
//!
//! // The writer's side: one owner, `&mut self`.
//! log.append(&[Sequenced], now_ms)   -> Result<Appended { range, bytes }, LogError>  // all or nothing
//! log.begin_epoch(LeaderEpoch)       -> Result<(), LogError>    // a new leader's start, before its first append
//! log.flush_target()                 -> Option<FlushTarget>     // what to sync; Send; run it on another thread
//!   FlushTarget::run(self)           -> Result<FlushDone, FlushError>
//! log.flush_done(&FlushDone)         -> Result<Offset, LogError>   // moves the flushed cursor, writes index entries
//! log.flush_failed(&FlushError)                                 // latches the log unless `error.retry`
//! log.flush_now()                    -> Result<Offset, LogError>   // the three in one, here and now
//! log.flush_index()                  -> Result<(), LogError>    // makes the checkpoint reach the flushed cursor
//! log.roll()                         -> Result<(), LogError>
//! log.truncate_to(Offset)            -> Result<Removal, LogError>  // keeps whole batches below; durable on return
//! log.reset_to(Offset)               -> Result<Removal, LogError>  // empty log that starts there; durable on return
//! log.trim(Offset), log.apply_retention(now_ms, high_watermark) -> Result<Removal, LogError>  // durable on return
//! log.prepare_trim(Offset), log.prepare_retention(now_ms, high_watermark) -> Result<bool, LogError>  // in two phases
//! log.prepare_compaction(&CompactionConfig, now_ms, upto, map_bytes) -> Option<Compaction>
//!   Compaction::next(&mut self, go_on) -> Result<Option<Compacted>, CompactionError>   // on another thread
//! log.prepare_install(Compacted)     -> Result<(), Removal>
//! log.change_target()                -> Option<ChangeTarget>    // what to make durable; run it on another thread
//! log.change_done(&ChangeDone), log.change_failed(&FlushError), log.take_removed() -> Removal
//!   Removal::run(self)               -> Result<u64, VfsError>   // unlinks; slow; on another thread, maybe later
//! log.write_snapshot(Offset, &[u8]), log.latest_snapshot(upto) -> Option<(Offset, Vec<u8>)>
//! log.close(clean)                   -> Result<(), LogError>
//! log.log_start() log_end() flushed() size_bytes() segments() last_epoch() epochs() end_offset_for_epoch(e) failure()
//!
//! // The readers' side: an immutable snapshot, O(1) to make after every append.
//! log.view()                         -> Arc<ReadView>
//! view.read(offset, max_bytes, upto, min_one, ReadMode, Option<&Cursor>) -> Result<ReadOutcome, ReadError>
//! view.read_into(&ReadBuffers, &ReadRange, ReadMode, Option<&Cursor>)  // the same, into pooled buffers
//!   ReadOutcome::{Slice(Slice { bytes, base_offset, next_offset, last_epoch, batches, cursor }), WouldBlock}
//! view.offset_for_timestamp(ts, upto) -> Result<Option<(Offset, i64)>, ReadError>
//! view.headers(from)                 -> Headers: Iterator<Item = Result<BatchHeader, ReadError>>
//! view.log_start() log_end() segments()
//! view.scrub(base, flushed)          -> Result<Option<SegmentScrub>, ReadError>  // looks at every byte again
//!   SegmentScrub::step(&mut self, budget) -> Result<ScrubStep { bytes, damage, done }, ReadError>
//! view.readable_after(offset)        -> Offset   // where to go on behind damage
//! view.scrub_small_files()           -> Result<ScrubStep, VfsError>
//! ```

mod buffers;
mod change;
mod check;
mod closing;
mod compaction;
mod config;
mod disk_index;
mod epoch_index;
mod error;
mod faults;
mod flush;
pub mod format;
mod header_scan;
pub mod inspect;
pub mod journal;
mod journaled;
mod log;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod read_view;
mod recovery;
pub mod repair;
mod scrub;
mod segment;
mod snapshot;
mod tail;
mod truncate;
mod verify;
mod walk;

pub use buffers::ReadBuffers;
pub use compaction::{
    Compacted, Compaction, CompactionConfig, CompactionError, CompactionStats, Dirt,
};
pub use config::{LogConfig, OpenMode};
pub use epoch_index::EpochIndex;
pub use error::{Corruption, LogError, ReadError};
pub use flush::{ChangeDone, ChangeTarget, FlushDone, FlushError, FlushTarget, Removal};
pub use format::LogIdentity;
pub use journal::{Journal, JournalConfig, JournalEntry};
pub use log::{Appended, Log};
pub use read_view::{Cursor, Headers, ReadMode, ReadOutcome, ReadRange, ReadView, Slice};
pub use recovery::{Decision, Reason, Recovery};
pub use scrub::{ScrubStep, SegmentScrub};
pub use walk::Damage;
