//! Acknowledgements of several logs through the journal of their disk, as the server's committing thread has
//! them: one group for all that wait, files where there is no room or no entry, and files behind the journal.

use varve_storage::journal::Written;
use varve_storage::{FlushError, FlushTarget, JournalEntry};
use varve_vfs::VfsError;

use super::{Disk, Driver, Violation};

/// A flush of one log, and its newest epoch when it was asked for.
struct Job {
    number: usize,
    target: FlushTarget,
    epoch: i32,
}

impl Driver {
    /// One round over these logs: through the journal where that is possible.
    ///
    /// # Errors
    /// A violation.
    pub fn commit(&mut self, logs: &[usize]) -> Result<(), Violation> {
        let at = self.at;
        let (mut jobs, mut entries, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for (job, entry) in self.jobs(logs)? {
            match entry {
                Some(entry) => {
                    jobs.push(job);
                    entries.push(entry);
                }
                None => files.push(job),
            }
        }
        files.extend(self.write_group(jobs, &entries)?);
        for job in files {
            self.sync_files_of(job)?;
        }
        self.select(at);
        self.room()
    }

    /// One round over these logs, of flushes so large that they go to the files alone.
    ///
    /// # Errors
    /// A violation.
    pub fn commit_files(&mut self, logs: &[usize]) -> Result<(), Violation> {
        let at = self.at;
        for (job, _) in self.jobs(logs)? {
            self.sync_files_of(job)?;
        }
        self.select(at);
        self.room()
    }

    fn jobs(&mut self, logs: &[usize]) -> Result<Vec<(Job, Option<JournalEntry>)>, Violation> {
        let mut jobs = Vec::new();
        for &number in logs {
            self.select(number);
            let waiting = std::mem::take(&mut self.books.waiting);
            let Some((target, epoch)) = self.target()? else {
                self.check_cursor()?;
                continue;
            };
            if !self.log()?.needs_flush() {
                continue;
            }
            let entry = self.log()?.journal_entry(waiting);
            let job = Job {
                number,
                target,
                epoch,
            };
            jobs.push((job, entry));
        }
        Ok(jobs)
    }

    /// Writes a group. Gives back what has to go to the files.
    fn write_group(
        &mut self,
        jobs: Vec<Job>,
        entries: &[JournalEntry],
    ) -> Result<Vec<Job>, Violation> {
        if entries.is_empty() {
            return Ok(jobs);
        }
        let ledger = self.ledger.as_mut().ok_or("there is no journal")?;
        match ledger.write(entries) {
            Ok(Written::Synced) => {
                self.came_by.shared_groups += u64::from(jobs.len() > 1);
                for (job, entry) in jobs.iter().zip(entries) {
                    self.select(job.number);
                    let done = entry.done().clone();
                    self.done(&(done, job.epoch))?;
                }
                Ok(Vec::new())
            }
            Ok(Written::Full) => {
                self.came_by.full += 1;
                Ok(jobs)
            }
            Err(error) => {
                for job in &jobs {
                    self.journal_failed(job.number, &error)?;
                }
                Ok(Vec::new())
            }
        }
    }

    /// The server latches a log whose flush finds that the journal has failed.
    fn journal_failed(&mut self, number: usize, why: &VfsError) -> Result<(), Violation> {
        if self.kind != Disk::Failing {
            return Err(format!("the journal failed: {why}"));
        }
        self.select(number);
        let error = std::io::Error::other(why.to_string());
        let failure = FlushError {
            error: VfsError::new("make records durable in", &super::dir_of(number), error),
            retry: false,
        };
        self.log()?.flush_failed(&failure);
        self.fail(true);
        Ok(())
    }

    fn sync_files_of(&mut self, job: Job) -> Result<(), Violation> {
        if let Some(ledger) = &mut self.ledger
            && let Err(error) = ledger.leave(&job.target)
        {
            return self.journal_failed(job.number, &error);
        }
        self.select(job.number);
        if let Some(done) = self.sync(Some((job.target, job.epoch)))? {
            if let Some(ledger) = &mut self.ledger {
                ledger.synced(&done.0, true);
            }
            self.done(&done)?;
        }
        Ok(())
    }

    /// Another file for the journal, if one is wanted.
    fn room(&mut self) -> Result<(), Violation> {
        match self.ledger.as_mut().map(super::Ledger::make_room) {
            Some(Err(error)) if self.kind == Disk::Good => {
                Err(format!("no file for the journal: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// Syncs the files behind the journal, so that it has room: of the logs that it asks for, or of all.
    ///
    /// # Errors
    /// A violation; also when an acknowledgement followed.
    pub fn relieve(&mut self, all: bool) -> Result<(), Violation> {
        let at = self.at;
        let due = match self.ledger.as_ref() {
            Some(ledger) => ledger.journal.due(),
            None => Vec::new(),
        };
        for number in 0..self.setup.logs {
            if !all && !due.contains(&self.setup.identity(number)) {
                continue;
            }
            self.select(number);
            let (before, epoch) = (self.log()?.flushed(), self.known_epoch());
            let done = match self.log()?.journal_relief() {
                Some(target) => self.sync(Some((target, epoch)))?,
                None => self.log()?.files_synced().map(|done| (done, epoch)),
            };
            let Some(done) = done else {
                continue;
            };
            if let Some(ledger) = &mut self.ledger {
                ledger.synced(&done.0, false);
                self.came_by.relieved += 1;
            }
            let result = self.log()?.flush_done(&done.0);
            if self.judge("the end of a relief", result)?.is_some()
                && self.log()?.flushed() != before
            {
                return Err("the journal's relief acknowledged something".to_owned());
            }
        }
        self.select(at);
        self.room()
    }

    /// Truncates the log at hand, after what the journal holds of it was synced and made void. Nothing happens
    /// where the journal has no room for that.
    ///
    /// # Errors
    /// A violation.
    pub fn void_and_truncate(&mut self, to: i64) -> Result<(), Violation> {
        self.commit_files(&[self.at])?;
        if self.books.failed || self.log()?.needs_flush() {
            return Ok(());
        }
        let identity = self.setup.identity(self.at);
        let ledger = self.ledger.as_mut().ok_or("there is no journal")?;
        match ledger.void(identity) {
            Ok(Written::Synced) => {
                self.came_by.voided += 1;
                self.log()?.journal_voided();
                self.truncate(to)
            }
            Ok(Written::Full) => Ok(()),
            Err(error) => self.journal_failed(self.at, &error),
        }
    }
}
