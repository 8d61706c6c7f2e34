//! How a process begins and ends: a start, a clean stop, a kill, a power cut.

use std::sync::atomic::Ordering;

use varve_storage::LogError;
use varve_types::LeaderEpoch;

use super::super::oracle::{Content, check_one_of};
use super::super::world::{StartError, World};
use super::{Disk, Driver, Expect, Violation, explained_by_reorder};

impl Driver {
    /// Opens the logs and the journal, or creates them.
    ///
    /// # Errors
    /// When something is not what was promised.
    pub fn open(&mut self, clean: bool) -> Result<(), Violation> {
        self.open_as(clean, clean)
    }

    /// With `whole`, everything that was written must be there.
    fn open_as(&mut self, clean: bool, whole: bool) -> Result<(), Violation> {
        for number in 0..self.setup.logs {
            self.select(number);
            if self.books.promised.is_empty() {
                // A log that is being created: there is nothing in it at any time.
                self.settle();
            }
        }
        let mut opened = World::open(&self.vfs, &self.setup, clean);
        if matches!(&opened, Err(StartError::Io(_))) && self.kind != Disk::Good {
            // The failure hit the recovery; the next start gets another chance.
            self.disk.set_hook(None);
            opened = World::open(&self.vfs, &self.setup, clean);
        }
        let world = opened.map_err(|e| format!("the start failed: {e}"))?;
        if let Some(found) = world.refused() {
            self.gave_up =
                self.kind == Disk::Failing && !whole && explained_by_reorder(found.reason);
            return Err(format!("the log was not opened: {found}"));
        }
        self.ledger = world.ledger;
        for (number, log) in world.logs.into_iter().flatten().enumerate() {
            self.select(number);
            self.books.log = Some(log);
            self.adopt(whole)?;
        }
        for removal in world.leftovers {
            let removed = removal.run();
            if self.kind == Disk::Good {
                removed.map_err(|e| format!("leftovers were not removed: {e}"))?;
            }
        }
        self.select(0);
        Ok(())
    }

    /// Whatever was in doubt about the log at hand is decided now.
    fn adopt(&mut self, whole: bool) -> Result<(), Violation> {
        let whole = whole && !self.books.failed;
        let expect = Expect {
            whole,
            ..(*self.expect).clone()
        };
        let log = self.books.log.as_ref().ok_or("the log is not open")?;
        self.quiet.store(true, Ordering::Relaxed);
        let decided = check_one_of(log, &self.books.promised, &expect).map(|served| {
            let fits = self.books.promised.iter().position(|c| {
                let only = std::slice::from_ref(c);
                check_one_of(log, only, &expect).is_ok()
            });
            (served, fits.unwrap_or(0))
        });
        let epoch = log.last_epoch().map_or(0, LeaderEpoch::get);
        self.quiet.store(false, Ordering::Relaxed);
        let (served, fits) = decided.map_err(|e| format!("log {}: {e}", self.at))?;
        let chosen = self.books.promised[fits].clone();
        self.books.content = (*chosen.content).clone();
        self.books.content.cut(Some(served.end));
        self.books.becomes = None;
        if let Some(keyed) = &chosen.keyed {
            let mut written = (*keyed.written).clone();
            written.cut(Some(served.end));
            self.books.written = Some(written);
            self.books.content = Content::of(&served);
        }
        self.books.start = chosen.start;
        self.books.floor = served.end;
        self.books.flushed_epoch = epoch;
        self.books.failed = false;
        self.books.waiting.clear();
        self.settle();
        Ok(())
    }

    /// Closes all logs cleanly and opens them as after a clean stop.
    ///
    /// # Errors
    /// A violation.
    pub fn close_and_reopen(&mut self) -> Result<(), Violation> {
        let mut closed = true;
        let mut epochs = Vec::new();
        for number in 0..self.setup.logs {
            self.select(number);
            epochs.push(self.known_epoch());
            closed &= self.close_one()?;
        }
        self.ledger = None;
        if closed {
            for (number, epoch) in epochs.into_iter().enumerate() {
                self.select(number);
                self.books.floor = self.end();
                self.books.flushed_epoch = epoch;
                self.books.promised = self.books.candidates();
            }
            let promised = self.books.promised.clone();
            self.promise_as(promised, true);
        }
        self.open(closed)
    }

    /// Whether the log at hand was closed cleanly.
    fn close_one(&mut self) -> Result<bool, Violation> {
        let log = self
            .books
            .log
            .take()
            .ok_or("the workload closes a log that is not open")?;
        match log.close(true) {
            Ok(()) if self.books.failed => Err("a clean close after a failure: S4".to_owned()),
            Ok(()) => Ok(true),
            Err(LogError::Io(_) | LogError::Failed { .. }) if self.kind == Disk::Failing => {
                Ok(false)
            }
            Err(LogError::NoSpace(_) | LogError::Failed { .. }) if self.kind != Disk::Good => {
                Ok(false)
            }
            Err(e) => Err(format!("close failed: {e}")),
        }
    }

    fn let_go(&mut self) {
        self.books.log = None;
        for books in self.parked.iter_mut().flatten() {
            books.log = None;
        }
        self.ledger = None;
    }

    /// Kills the process and starts another one.
    ///
    /// # Errors
    /// A violation.
    pub fn kill(&mut self) -> Result<(), Violation> {
        self.let_go();
        match &self.recorder {
            Some(recorder) => recorder.kill(),
            None => self.disk.kill_process(),
        }
        self.open_as(false, true)
    }

    /// Cuts the power, on a disk that writes in order, so that the last `lost` changes are gone and of the
    /// first of these only `torn` bytes arrived; then starts again.
    ///
    /// # Errors
    /// A violation.
    pub fn power_cut(&mut self, lost: u64, torn: usize) -> Result<(), Violation> {
        self.let_go();
        match &self.recorder {
            Some(recorder) => recorder.power_cut(lost, torn),
            None => self
                .disk
                .crash_in_order(self.disk.changes().saturating_sub(lost), torn),
        }
        self.open_as(false, false)
    }

    /// Lets go of everything without a word, as a crash does.
    pub fn abandon(&mut self) {
        self.let_go();
    }
}
