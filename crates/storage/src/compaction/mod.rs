//! Compaction: of each key only the newest record stays. The owner of the log says when
//! ([`Log::dirt`]) and hands out the work ([`Log::prepare_compaction`]); another thread does it, from
//! an immutable snapshot of sealed segments into new files ([`Compaction::next`]); the owner installs each of
//! them by a change of the manifest ([`Log::prepare_install`]), and nothing is seen before that is durable.
//!
//! Invariants: offsets never move; the newest record of a key below the bound is never dropped, but for a
//! tombstone whose time has come; nothing at or past the bound is touched; a file is replaced only by one that
//! is synced; damage stops the run and changes nothing. Memory is bounded: the table of keys has a budget, and
//! when the dirty part does not fit, a shorter part is compacted. This module never starts a thread, reads a
//! clock, or touches the active segment but to look for the end of a transaction.

mod input;
mod map;
mod output;
mod rewrite;
mod survey;

use std::path::PathBuf;
use std::sync::Arc;

use varve_types::Offset;
use varve_types::config::TopicConfig;
use varve_vfs::VfsError;

use crate::buffers::ReadBuffers;
use crate::change::Install;
use crate::config::LogConfig;
use crate::flush::Removal;
use crate::log::Log;
use crate::read_view::{ReadView, Sealed};
use crate::segment::Home;
use survey::Survey;

/// Read buffers of a run: memory fresh from the system for each window would cost more than the read.
const WINDOWS_KEPT: usize = 2;

/// When and how a log is compacted. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompactionConfig {
    /// Segments whose newest record is younger are left alone.
    pub min_lag_ms: i64,
    /// A segment that was begun longer ago makes the log due at once.
    pub max_lag_ms: i64,
    /// Share of dirty bytes at which the log is due, 0 to 1.
    pub min_dirty_ratio: f64,
    /// How long a tombstone stays after it was first compacted, so that readers can see it.
    pub delete_retention_ms: i64,
}

impl From<&TopicConfig> for CompactionConfig {
    fn from(topic: &TopicConfig) -> Self {
        Self {
            min_lag_ms: topic.min_compaction_lag_ms,
            max_lag_ms: topic.max_compaction_lag_ms,
            min_dirty_ratio: topic.min_cleanable_dirty_ratio,
            delete_retention_ms: topic.delete_retention_ms,
        }
    }
}

/// How much of a log waits for compaction.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Dirt {
    /// Bytes that could be compacted now and never were.
    pub dirty_bytes: u64,
    /// Those and the bytes before them.
    pub total_bytes: u64,
    /// It should be compacted.
    pub due: bool,
}

impl Dirt {
    /// Share of dirty bytes, 0 to 1.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.dirty_bytes as f64 / self.total_bytes.max(1) as f64
    }
}

/// Why a compaction ended early. The log is as it was, but for parts that were installed before.
#[derive(Debug, thiserror::Error)]
pub enum CompactionError {
    /// The caller wanted it to.
    #[error("compaction was stopped; nothing was lost")]
    Stopped,
    /// The log was truncated, or segments were removed.
    #[error("the log changed while it was being compacted; compaction is retried later")]
    Changed,
    /// The bytes are not what the log wrote.
    #[error("{} at byte {position}: {found}. Nothing was changed; this log is not compacted again \
        until it is repaired", file.display())]
    Corrupt {
        /// The segment file.
        file: PathBuf,
        /// Byte position in it.
        position: u64,
        /// What is wrong.
        found: String,
    },
    /// A batch cannot be built anew.
    #[error("the batch at offset {offset} of {} cannot be rewritten: {error}. Nothing was changed", file.display())]
    Rebuild {
        /// The segment file.
        file: PathBuf,
        /// Offset of the batch.
        offset: Offset,
        /// Why not.
        error: varve_record::BatchError,
    },
    /// The disk failed or is full. What was written so far is removed.
    #[error("{0}. The segments are unchanged")]
    Io(VfsError),
}

impl CompactionError {
    /// The disk is full: it may work when there is space.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io(error) if error.is_no_space())
    }
}

/// Asked often, with the bytes read and written since; an error ends the run.
pub(crate) type GoOn<'a> = &'a dyn Fn(u64) -> Result<(), CompactionError>;

/// What a run did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactionStats {
    /// Bytes of segments that were rewritten.
    pub read_bytes: u64,
    /// Bytes of those that take their place.
    pub written_bytes: u64,
    /// Records that stayed.
    pub kept_records: u64,
    /// Records that were dropped because a newer one has their key.
    pub superseded_records: u64,
    /// Tombstones and markers whose time had come, and records of aborted transactions.
    pub expired_records: u64,
    /// Records without a key, which nobody can ask for.
    pub keyless_records: u64,
    /// Offset up to which each key was looked at.
    pub upto: i64,
}

/// One run over one log.
#[derive(Debug)]
pub struct Compaction {
    home: Arc<Home>,
    log: LogConfig,
    config: CompactionConfig,
    now_ms: i64,
    log_start: Offset,
    clean_upto: Offset,
    /// Nothing at or past it counts.
    stable: Offset,
    view: Arc<ReadView>,
    /// Sealed segments that may be rewritten.
    inputs: Vec<Sealed>,
    /// When the segment after them was begun.
    inputs_closed_ms: Option<i64>,
    /// The next of them.
    at: usize,
    next_id: u64,
    map_bytes: usize,
    buffers: ReadBuffers,
    generation: u64,
    survey: Option<Survey>,
    /// Producers that have records left in the transaction that is open at this point.
    in_transaction: std::collections::BTreeSet<i64>,
    stats: CompactionStats,
    over: bool,
}

/// A part of a run that can be installed.
#[derive(Debug)]
#[must_use = "its files are leftovers until it is installed"]
pub struct Compacted {
    install: Option<Install>,
    clean_upto: Option<Offset>,
    generation: u64,
}

impl Log {
    /// Sealed segments from the first on that may be rewritten.
    fn compactable(&self, config: &CompactionConfig, now_ms: i64, upto: Offset) -> usize {
        // Without a lag, a producer whose clock is ahead holds nothing up.
        let newest = match config.min_lag_ms {
            0 => i64::MAX,
            lag => now_ms.saturating_sub(lag),
        };
        let waiting = self.sealing.first().map(|t| t.segment.base);
        self.sealed
            .iter()
            .take_while(|s| {
                let old = s.end <= self.clean_upto || s.max_timestamp <= newest;
                let flushed = waiting.is_none_or(|base| s.segment.base < base);
                s.end <= upto && flushed && old
            })
            .count()
    }

    /// How much of the log waits for compaction, of what lies wholly below `upto` (the high watermark, or
    /// the last stable offset). O(segments), no I/O.
    #[must_use]
    pub fn dirt(&self, config: &CompactionConfig, now_ms: i64, upto: Offset) -> Dirt {
        let some = &self.sealed[..self.compactable(config, now_ms, upto)];
        let dirty = some.iter().filter(|s| s.end > self.clean_upto);
        let mut dirt = Dirt {
            dirty_bytes: dirty.clone().map(|s| s.size).sum(),
            total_bytes: some.iter().map(|s| s.size).sum(),
            due: false,
        };
        let oldest = dirty.map(|s| s.segment.created_ms).min();
        let late = oldest.is_some_and(|ms| now_ms.saturating_sub(ms) >= config.max_lag_ms);
        let expired = some.iter().any(|s| s.horizon_ms <= now_ms);
        let enough = dirt.dirty_bytes > 0 && dirt.ratio() >= config.min_dirty_ratio;
        dirt.due = enough || late || expired;
        dirt
    }

    /// A run over what can be compacted now, whether it is due or not; `None` when there is nothing. `upto`
    /// as for [`Log::dirt`]; the run's memory for keys is at most `map_bytes`. O(segments), no I/O.
    #[must_use]
    pub fn prepare_compaction(
        &mut self,
        config: &CompactionConfig,
        now_ms: i64,
        upto: Offset,
        map_bytes: usize,
    ) -> Option<Compaction> {
        let dirt = self.dirt(config, now_ms, upto);
        if self.failure().is_some() || (dirt.dirty_bytes == 0 && !dirt.due) {
            return None;
        }
        let (inputs, after) = self.sealed.split_at(self.compactable(config, now_ms, upto));
        let inputs = inputs.to_vec();
        let after = after.iter().map(|s| s.segment.created_ms);
        let active = self.tail.segment.created_ms;
        let inputs_closed_ms = after.chain([active]).find(|ms| *ms > 0);
        // A run makes at most as many segments as it replaces.
        let next_id = self.next_segment_id;
        self.next_segment_id += inputs.len() as u64;
        Some(Compaction {
            home: self.home.clone(),
            log: self.config,
            config: *config,
            now_ms,
            log_start: self.log_start,
            clean_upto: self.clean_upto,
            stable: upto,
            view: self.view(),
            inputs,
            inputs_closed_ms,
            at: 0,
            next_id,
            map_bytes,
            buffers: ReadBuffers::new(WINDOWS_KEPT),
            generation: self.generation,
            survey: None,
            in_transaction: std::collections::BTreeSet::new(),
            stats: CompactionStats::default(),
            over: false,
        })
    }

    /// Asks for what a run made to become part of the log: see [`Log::change_target`]. O(segments).
    ///
    /// # Errors
    /// The run's files, to be removed, when the log has changed in a way that makes them useless. The rest
    /// of the run is useless then too.
    pub fn prepare_install(&mut self, compacted: Compacted) -> Result<(), Removal> {
        let Compacted {
            install,
            clean_upto,
            generation,
        } = compacted;
        let fits = |install: &Install| self.has_neighbours(&install.replaced);
        let good = generation == self.generation
            && self.failure().is_none()
            && install.as_ref().is_none_or(fits);
        if !good {
            let mut removal = Removal::none(&self.home.vfs);
            removal.retired.extend(install.map(|i| i.with.segment));
            return Err(removal);
        }
        self.pend_install(install, clean_upto);
        Ok(())
    }
}

impl Log {
    /// Whether [`Log::roll`] would help compaction: records of the active segment have waited longer than
    /// `max_lag_ms`.
    #[must_use]
    pub fn active_is_late(&self, config: &CompactionConfig, now_ms: i64) -> bool {
        let begun = self
            .tail
            .first_append_ms
            .unwrap_or(self.tail.segment.created_ms);
        self.tail.end > 0 && now_ms.saturating_sub(begun) >= config.max_lag_ms
    }
}
