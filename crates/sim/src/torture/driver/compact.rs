//! Compaction in its two phases: another thread writes new segments, a change of the manifest puts them into
//! the place of the old ones. Between the two the log goes on. While the change is on its way the books say
//! that the log is as it was or as it will be; afterwards it is the latter.

use std::sync::{Arc, OnceLock};

use varve_storage::{ChangeTarget, Compaction, CompactionConfig, CompactionError};

use super::super::keyed;
use super::super::oracle::Content;
use super::{Disk, Driver, Violation};

/// Room for the keys of any workload.
pub const MAP_BYTES: usize = 1 << 16;
/// How long tombstones and markers stay after their first compaction, in milliseconds.
pub const DELETE_RETENTION_MS: i64 = 1_000;

/// Compacts whatever there is.
#[must_use]
pub const fn eager() -> CompactionConfig {
    CompactionConfig {
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        min_dirty_ratio: 0.0,
        delete_retention_ms: DELETE_RETENTION_MS,
    }
}

/// A change on its way.
#[derive(Debug)]
pub struct Change(ChangeTarget);

impl Driver {
    /// Lets time pass.
    pub fn wait(&mut self, ms: i64) {
        self.now_ms += ms;
    }

    /// Begins a compaction of everything that is sealed and flushed. `None` when there is nothing to do.
    ///
    /// # Errors
    /// A violation.
    pub fn begin_compaction(&mut self) -> Result<Option<Compaction>, Violation> {
        let now = self.now_ms;
        let log = self.log()?;
        let upto = log.flushed();
        Ok(log.prepare_compaction(&eager(), now, upto, MAP_BYTES))
    }

    /// Writes the next part of a compaction and prepares to install it. `None`: the run is over.
    ///
    /// # Errors
    /// A violation.
    pub fn next_part(&mut self, run: &mut Compaction) -> Result<Option<Change>, Violation> {
        let part = match run.next(&|_| true) {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(None),
            Err(error) if self.kind != Disk::Good && error.is_no_space() => {
                self.no_space("compaction")?;
                return Ok(None);
            }
            Err(CompactionError::Io(_)) if self.kind == Disk::Failing => return Ok(None),
            Err(error) => return Err(format!("compaction failed: {error}")),
        };
        if let Err(removal) = self.log()?.prepare_install(part) {
            if !self.books.failed {
                return Err("what was compacted does not fit any more".to_owned());
            }
            let _ = removal.run();
            return Ok(None);
        }
        self.books.becomes = Some(Arc::new(OnceLock::new()));
        if !self.books.failed {
            self.settle();
        }
        Ok(self.log()?.change_target().map(Change))
    }

    /// Makes a change durable and tells the log, again and again while there is no space for it.
    ///
    /// # Errors
    /// A violation.
    pub fn finish_change(&mut self, change: Option<Change>) -> Result<(), Violation> {
        let mut next = change;
        while let Some(Change(target)) = next.take() {
            match target.run() {
                Ok(done) => {
                    let result = self.log()?.change_done(&done);
                    if self.judge("a change", result)?.is_some() {
                        self.changed()?;
                    }
                }
                Err(error) if self.kind == Disk::Good => {
                    return Err(format!("a change failed: {error}"));
                }
                Err(error) => {
                    let retry = error.retry;
                    self.log()?.change_failed(&error);
                    if retry {
                        self.no_space("a change")?;
                        next = self.log()?.change_target().map(Change);
                    } else {
                        self.fail(true);
                    }
                }
            }
        }
        Ok(())
    }

    /// The log is what the change made of it.
    fn changed(&mut self) -> Result<(), Violation> {
        if self.log()?.change_pending() {
            return Err("a change is durable, and still pending".to_owned());
        }
        self.quiet.store(true, std::sync::atomic::Ordering::Relaxed);
        let setup = self.setup;
        let served = setup.serve(self.log()?);
        let served = served.map_err(|e| format!("after a change: {e}"))?;
        if let (Some(log), Some(written)) = (&self.books.log, &self.books.written) {
            keyed::same_answers(log, &served, written)
                .map_err(|e| format!("after a change: {e}"))?;
        }
        self.quiet
            .store(false, std::sync::atomic::Ordering::Relaxed);
        let content = Content::of(&served);
        if let Some(cell) = self.books.becomes.take() {
            let set = cell.set(content.clone());
            assert!(set.is_ok(), "a change is made once");
        }
        self.came_by.installed += 1;
        let before = self.books.content.len();
        self.came_by.taken_away += before.saturating_sub(content.len()) as u64;
        self.books.content = content;
        self.settle();
        let removed = self.log()?.take_removed().run();
        if self.kind == Disk::Good {
            removed.map_err(|e| format!("removal after a change: {e}"))?;
        }
        Ok(())
    }

    /// Compacts and installs everything that can be.
    ///
    /// # Errors
    /// A violation.
    pub fn compact(&mut self) -> Result<(), Violation> {
        let Some(mut run) = self.begin_compaction()? else {
            return Ok(());
        };
        while let Some(change) = self.next_part(&mut run)? {
            self.finish_change(Some(change))?;
        }
        Ok(())
    }
}
