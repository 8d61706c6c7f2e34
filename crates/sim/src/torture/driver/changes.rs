//! Operations that take records away: truncation, trims, retention, a new start. While one runs the books say
//! that the log is as before or as after.

use std::sync::Arc;

use varve_storage::{Log, LogConfig, LogError};
use varve_vfs::Vfs;

use super::super::oracle::Candidate;
use super::{Disk, Driver, NOW, Violation, offset, open_log};

impl Driver {
    /// An operation that leaves the log as it was or as `after` says, durably when it returns.
    fn change(
        &mut self,
        what: &str,
        after: impl FnOnce(&mut Self),
        run: impl FnOnce(&mut Log) -> Result<varve_storage::Removal, LogError>,
    ) -> Result<(), Violation> {
        let before = self.books.candidate();
        let (contents, start, floor, epoch) = (
            self.books.contents(),
            self.books.start,
            self.books.floor,
            self.books.flushed_epoch,
        );
        after(self);
        let now = self.books.candidate();
        if !self.books.failed {
            // While it runs: either, and of what it takes away no part was promised to stay.
            let loose = Candidate {
                floor: before.floor.min(now.floor),
                epoch: before.epoch.min(now.epoch),
                ..before
            };
            self.promise(vec![now, loose]);
        }
        let result = run(self.log()?);
        let full = matches!(&result, Err(e) if e.is_no_space());
        match self.judge(what, result)? {
            Some(removal) => {
                self.settle();
                let removed = removal.run();
                if self.kind == Disk::Good {
                    removed.map_err(|e| format!("removal after {what}: {e}"))?;
                }
            }
            None => {
                self.books.set_contents(contents);
                (self.books.start, self.books.floor, self.books.flushed_epoch) =
                    (start, floor, epoch);
                if full {
                    self.settle();
                    self.check_readable()?;
                }
            }
        }
        Ok(())
    }

    /// Truncates the log to `to`.
    ///
    /// # Errors
    /// A violation.
    pub fn truncate(&mut self, to: i64) -> Result<(), Violation> {
        let to = to.max(self.books.start);
        let log = self.books.log.as_ref();
        let entries = log
            .map(|log| log.epochs().entries().to_vec())
            .unwrap_or_default();
        self.change(
            "truncate",
            |d| {
                if to < d.end() {
                    d.books.cut(to);
                    d.books.floor = d.books.floor.min(d.end());
                    let end = d.end();
                    let below = entries.iter().rev().find(|(_, start)| start.get() < end);
                    d.books.flushed_epoch =
                        d.books.flushed_epoch.min(below.map_or(0, |(e, _)| e.get()));
                }
            },
            |log| log.truncate_to(offset(to)),
        )
    }

    /// Moves the log's start.
    ///
    /// # Errors
    /// A violation.
    pub fn trim(&mut self, to: i64) -> Result<(), Violation> {
        let to = to.min(self.end());
        self.change(
            "trim",
            |d| {
                d.books.start = d.books.start.max(to);
                d.books.content.trim(d.books.start);
                d.books.floor = d.books.floor.max(d.books.start);
            },
            |log| log.trim(offset(to)),
        )
    }

    /// Starts the log anew.
    ///
    /// # Errors
    /// A violation.
    pub fn reset(&mut self, to: i64) -> Result<(), Violation> {
        let before = self.books.candidate();
        self.change(
            "reset",
            |d| {
                d.books.content.cut(None);
                (d.books.start, d.books.floor, d.books.flushed_epoch) = (to, to, 0);
            },
            |log| log.reset_to(offset(to)),
        )
        .map_err(|e| {
            format!(
                "{e} (before: {} to {:?})",
                before.start,
                before.content.end()
            )
        })
    }

    /// Retention by size.
    ///
    /// # Errors
    /// A violation.
    pub fn retain(&mut self, bytes: u64) -> Result<(), Violation> {
        let config = LogConfig {
            retention_bytes: Some(bytes),
            ..self.setup.config
        };
        // How far it goes depends on segments, which the books do not know: ask a copy of the log.
        let to = self.retention_goes_to(config)?;
        let upto = offset(self.end());
        self.log()?.set_config(config);
        self.change(
            "retention",
            |d| {
                d.books.start = d.books.start.max(to);
                d.books.content.trim(d.books.start);
                d.books.floor = d.books.floor.max(d.books.start);
            },
            |log| log.apply_retention(NOW, upto),
        )
    }

    fn retention_goes_to(&self, config: LogConfig) -> Result<i64, Violation> {
        if self.books.failed {
            return Ok(self.books.start);
        }
        let copy: Arc<dyn Vfs> = Arc::new(self.disk.image());
        let opened = open_log(&copy, config, self.setup.partition, false);
        let (mut log, _) = opened.map_err(|e| format!("a copy was not opened: {e}"))?;
        let end = log.log_end();
        log.apply_retention(NOW, end)
            .map(drop)
            .map_err(|e| format!("retention of a copy: {e}"))?;
        Ok(log.log_start().get())
    }
}
