//! Runs a workload against the logs of a disk and keeps the books: what was written, what was reported as
//! flushed, what is in doubt while an operation runs. With a recorder it marks each change of what is promised in
//! the history of the disk; on a failing disk it checks that the log stops, or goes on, as it must.
//!
//! One log is at hand at a time ([`Driver::select`]); most workloads have no other.

mod books;
mod changes;
mod compact;
mod keyed;
mod shared;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use varve_record::{BatchBuilder, Compression, Sequenced};
use varve_storage::{
    FlushDone, FlushTarget, Log, LogConfig, LogError, LogIdentity, OpenMode, Reason, Recovery,
};
use varve_types::{LeaderEpoch, Offset, PartitionId, TopicId};
use varve_vfs::Vfs;
use varve_vfs::mem::MemVfs;

use super::oracle::{Candidate, Expect};
use super::world::{Ledger, Setup};
use crate::disk::trace::Recorder;
use crate::plants;
use crate::rng::Rng;

mod ends;
mod files;

use books::Books;
pub use compact::{Change, DELETE_RETENTION_MS, MAP_BYTES, eager};
pub use keyed::Entry;

/// The server's clock while a workload runs, in milliseconds since 1970.
pub const NOW: i64 = 1_700_000_000_000;

/// Refusals before a full disk gets space again.
const REFUSALS: u64 = 3;

/// What happened that must not; for people.
pub type Violation = String;

/// The first log's directory.
#[must_use]
pub fn dir() -> PathBuf {
    dir_of(0)
}

/// The directory of a log, by its number.
#[must_use]
pub fn dir_of(number: usize) -> PathBuf {
    PathBuf::from(format!("/data/topics/t-00112233/{}", 3 + number))
}

/// Whose log it is, by partition.
#[must_use]
pub const fn identity(partition: i32) -> LogIdentity {
    LogIdentity {
        topic_id: TopicId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        partition: PartitionId(partition),
    }
}

/// What failures of the disk the driver expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// None.
    Good,
    /// Calls fail: the log must stop for ever, or not have noticed at all.
    Failing,
    /// Space runs out: what is refused is refused cleanly.
    Full,
}

/// Runs one workload.
#[derive(Debug)]
pub struct Driver {
    /// The disk itself.
    pub disk: MemVfs,
    vfs: Arc<dyn Vfs>,
    recorder: Option<Recorder<Arc<Expect>>>,
    setup: Setup,
    kind: Disk,
    /// Of the log at hand.
    books: Books,
    /// Its number.
    at: usize,
    /// Of the others; nothing in the place of the one at hand.
    parked: Vec<Option<Books>>,
    ledger: Option<Ledger>,
    now_ms: i64,
    snapshots: Arc<Vec<(i64, Vec<u8>)>>,
    files: Vec<(PathBuf, Vec<Option<Vec<u8>>>)>,
    /// What is promised now.
    expect: Arc<Expect>,
    /// The driver itself reads: nothing shall fail.
    quiet: Arc<AtomicBool>,
    /// Operations that found no space.
    pub refused: u64,
    /// A full disk has made the log refuse changes: allowed where a change was half done.
    pub latched_by_full_disk: bool,
    /// Recovery refused a log of which writes were lost out of order. Nothing can be said of it.
    pub gave_up: bool,
    /// What the workload came by, for the test that it does.
    pub came_by: CameBy,
    rng: Rng,
}

/// How often something happened that a workload is there for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CameBy {
    /// Groups of the journal that made several logs durable.
    pub shared_groups: u64,
    /// Groups that the journal had no room for.
    pub full: u64,
    /// Files of logs synced behind the journal.
    pub relieved: u64,
    /// Records of a log made void.
    pub voided: u64,
    /// Parts of compactions that were installed.
    pub installed: u64,
    /// Batches that those took away.
    pub taken_away: u64,
}

/// Offset from a number that is known to be one.
#[must_use]
pub fn offset(at: i64) -> Offset {
    Offset::new(at).unwrap_or(Offset::ZERO)
}

impl Driver {
    /// A workload's logs on an empty disk, recorded from the beginning if `record`.
    #[must_use]
    pub fn new(disk: &MemVfs, setup: Setup, kind: Disk, record: bool) -> Self {
        let recorder = record.then(|| Recorder::new(disk));
        let inner: Arc<dyn Vfs> = match &recorder {
            Some(recorder) => Arc::new(recorder.clone()),
            None => Arc::new(disk.clone()),
        };
        Self {
            disk: disk.clone(),
            vfs: plants::wrap(inner),
            recorder,
            setup,
            kind,
            books: Books::new(setup.keyed),
            at: 0,
            parked: (0..setup.logs)
                .map(|n| (n > 0).then(|| Books::new(setup.keyed)))
                .collect(),
            ledger: None,
            now_ms: NOW,
            snapshots: Arc::default(),
            files: Vec::new(),
            expect: Arc::default(),
            quiet: Arc::default(),
            refused: 0,
            latched_by_full_disk: false,
            gave_up: false,
            came_by: CameBy::default(),
            rng: Rng::new(setup.partition as u64),
        }
    }

    /// The recorder, if there is one.
    #[must_use]
    pub const fn recorder(&self) -> Option<&Recorder<Arc<Expect>>> {
        self.recorder.as_ref()
    }

    /// Set while the driver itself reads, which must not fail.
    #[must_use]
    pub fn quiet(&self) -> Arc<AtomicBool> {
        self.quiet.clone()
    }

    /// What is promised now.
    #[must_use]
    pub fn promised(&self) -> Arc<Expect> {
        self.expect.clone()
    }

    /// The disk through which the log works.
    #[must_use]
    pub const fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    /// Offset after the last record written, as the books have it.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.books.end()
    }

    /// First offset of the log.
    #[must_use]
    pub const fn start(&self) -> i64 {
        self.books.start
    }

    /// Takes up another log.
    ///
    /// # Panics
    /// When there is none of that number.
    pub fn select(&mut self, number: usize) {
        if number != self.at {
            let Some(books) = self.parked[number].take() else {
                unreachable!("the books of a log that is not at hand are parked")
            };
            let before = std::mem::replace(&mut self.books, books);
            self.parked[self.at] = Some(before);
            self.at = number;
        }
    }

    /// Promises that the log at hand is one of these; none: there is nothing to look at.
    fn promise(&mut self, log: Vec<Candidate>) {
        self.promise_as(log, false);
    }

    /// With `clean`, the next start may be told that all logs were closed.
    fn promise_as(&mut self, log: Vec<Candidate>, clean: bool) {
        self.books.promised = log;
        let all = (0..self.setup.logs).map(|n| {
            let books = self.parked[n].as_ref().unwrap_or(&self.books);
            books.promised.clone()
        });
        let logs: Vec<Vec<Candidate>> = all.collect();
        let none = logs.iter().any(Vec::is_empty);
        let expect = Expect {
            logs: if none { Vec::new() } else { logs },
            snapshots: self.snapshots.clone(),
            files: self.files.clone(),
            clean,
            whole: false,
        };
        self.set_expect(expect);
    }

    fn set_expect(&mut self, expect: Expect) {
        self.expect = Arc::new(expect);
        if let Some(recorder) = &self.recorder {
            recorder.mark(self.expect.clone());
        }
    }

    /// The books are as they are: that is the promise.
    fn settle(&mut self) {
        let now = self.books.candidates();
        self.promise(now);
    }

    fn log(&mut self) -> Result<&mut Log, Violation> {
        self.books
            .log
            .as_mut()
            .ok_or_else(|| "the workload uses a log that is not open".to_owned())
    }

    /// Judges the result of an operation. `Ok(None)`: it failed as it may.
    fn judge<T>(
        &mut self,
        what: &str,
        result: Result<T, LogError>,
    ) -> Result<Option<T>, Violation> {
        let error = match result {
            Ok(_) if self.books.failed => {
                return Err(format!("{what} succeeded after a failure: S4"));
            }
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        let latched = self
            .books
            .log
            .as_ref()
            .is_some_and(|log| log.failure().is_some());
        // What takes records away may be half done when space runs out; the rest may not.
        let half_done = matches!(what, "truncate" | "reset" | "trim" | "retention");
        match (&error, self.kind) {
            (LogError::Failed { .. }, Disk::Failing | Disk::Full) if self.books.failed => {}
            (LogError::Io(_), Disk::Failing) => self.fail(latched),
            (LogError::Io(e), Disk::Full) if half_done && e.is_no_space() => {
                self.fail(latched);
                self.latched_by_full_disk = true;
            }
            (LogError::NoSpace(_), Disk::Failing | Disk::Full) if !latched => {
                self.no_space(what)?
            }
            _ => return Err(format!("{what} failed: {error}")),
        }
        Ok(None)
    }

    /// The log has failed, if it has. What its cursor says was flushed then must be there later, and from
    /// now on the cursor stands still.
    fn fail(&mut self, latched: bool) {
        if !latched || self.books.failed {
            return;
        }
        self.books.failed = true;
        self.books.frozen = self.books.log.as_ref().map_or(0, |log| log.flushed().get());
        let mut promised = self.books.promised.clone();
        // A truncation that failed half-way promises nothing about what it was to take away.
        let certain = promised.len() == 1;
        for c in promised.iter_mut().filter(|_| certain) {
            let end = c.content.end().unwrap_or(c.start);
            if self.books.frozen <= end {
                c.floor = c.floor.max(self.books.frozen);
            }
        }
        self.promise(promised);
    }

    /// Notes an operation that found no space. After some of them there is space again.
    fn no_space(&mut self, what: &str) -> Result<(), Violation> {
        self.refused += 1;
        if self.kind == Disk::Full {
            if self.refused > REFUSALS {
                return Err(format!(
                    "{what} found no space though there is some again: S7"
                ));
            }
            if self.refused == REFUSALS {
                self.disk.set_hook(None);
            }
        }
        Ok(())
    }

    /// Batches that continue the log, with two records of each size, all of them different.
    pub fn batches(&mut self, sizes: &[usize]) -> Vec<Sequenced> {
        let mut next = self.end();
        let mut made = Vec::new();
        for size in sizes {
            let batch = build(next, self.books.epoch, *size, &mut self.rng);
            next = batch.header().next_offset().get();
            made.push(batch);
        }
        made
    }

    /// Appends one batch of each size in one call.
    ///
    /// # Errors
    /// A violation.
    pub fn append(&mut self, sizes: &[usize]) -> Result<(), Violation> {
        let made = self.batches(sizes);
        self.append_batches(&made)
    }

    /// Appends these batches in one call.
    ///
    /// # Errors
    /// A violation.
    pub fn append_batches(&mut self, made: &[Sequenced]) -> Result<(), Violation> {
        let old = self.books.contents();
        for batch in made {
            self.books.push(batch);
        }
        if !self.books.failed {
            // Its epoch may be noted, and need not be.
            self.settle();
        }
        let result = self.log()?.append(made, NOW);
        let full = matches!(&result, Err(e) if e.is_no_space());
        if self.judge("append", result)?.is_some() {
            self.books.waiting.extend(made.iter().cloned());
        } else {
            self.books.set_contents(old);
            if full {
                self.settle();
                self.check_readable()?;
            }
        }
        Ok(())
    }

    /// Reads are as the books say.
    fn check_readable(&mut self) -> Result<(), Violation> {
        let setup = self.setup;
        let served = setup.serve(self.log()?)?;
        let (start, end) = (self.books.start, self.end());
        if (served.start, served.end) != (start, end) {
            return Err(format!(
                "the log has {} to {} after a refusal, and had {start} to {end}",
                served.start, served.end
            ));
        }
        Ok(())
    }

    fn acked(&mut self, upto: i64, epoch: i32) {
        self.books.floor = self.books.floor.max(upto);
        self.books.flushed_epoch = self.books.flushed_epoch.max(epoch);
        self.settle();
    }

    /// Flushes the files here and now.
    ///
    /// # Errors
    /// A violation.
    pub fn flush(&mut self) -> Result<(), Violation> {
        if self.ledger.is_some() {
            return self.commit_files(&[self.at]);
        }
        let result = self.log()?.flush_now();
        let epoch = self.known_epoch();
        match self.judge("flush", result)? {
            Some(upto) => self.acked(upto.get(), epoch),
            None => self.check_cursor()?,
        }
        Ok(())
    }

    fn known_epoch(&self) -> i32 {
        let log = self.books.log.as_ref();
        log.and_then(Log::last_epoch).map_or(0, LeaderEpoch::get)
    }

    /// After a failure the flushed cursor stands still.
    fn check_cursor(&mut self) -> Result<(), Violation> {
        let floor = self.books.frozen;
        let flushed = self.log()?.flushed().get();
        if self.books.failed && flushed > floor {
            return Err(format!(
                "the flushed cursor went to {flushed} after a failure at {floor}: S4"
            ));
        }
        Ok(())
    }

    /// Takes what must be synced, to be run later.
    ///
    /// # Errors
    /// A violation.
    pub fn target(&mut self) -> Result<Option<(FlushTarget, i32)>, Violation> {
        let epoch = self.known_epoch();
        let target = self.log()?.flush_target();
        if target.is_some() && self.books.failed {
            return Err("a failed log asks to be flushed: S4".to_owned());
        }
        Ok(target.map(|t| (t, epoch)))
    }

    /// Runs a flush on what another thread would be, and tells the log.
    ///
    /// # Errors
    /// A violation.
    pub fn run(&mut self, target: Option<(FlushTarget, i32)>) -> Result<(), Violation> {
        if let Some(done) = self.sync(target)? {
            self.done(&done)?;
        }
        Ok(())
    }

    /// Runs a flush and keeps the news from the log for now.
    ///
    /// # Errors
    /// A violation.
    pub fn sync(
        &mut self,
        target: Option<(FlushTarget, i32)>,
    ) -> Result<Option<(FlushDone, i32)>, Violation> {
        let Some((target, epoch)) = target else {
            return Ok(None);
        };
        match target.run() {
            Ok(done) => Ok(Some((done, epoch))),
            Err(error) => {
                if self.kind == Disk::Good {
                    return Err(format!("a flush failed: {error}"));
                }
                let retry = error.retry;
                self.log()?.flush_failed(&error);
                if retry {
                    self.no_space("flush")?;
                } else {
                    self.fail(true);
                }
                Ok(None)
            }
        }
    }

    /// Tells the log of a flush that succeeded.
    ///
    /// # Errors
    /// A violation.
    pub fn done(&mut self, done: &(FlushDone, i32)) -> Result<(), Violation> {
        let result = self.log()?.flush_done(&done.0);
        match self.judge("the end of a flush", result)? {
            Some(upto) => self.acked(upto.get(), done.1.min(self.known_epoch())),
            None => self.check_cursor()?,
        }
        Ok(())
    }

    /// Makes the checkpoint reach the flushed cursor.
    ///
    /// # Errors
    /// A violation.
    pub fn flush_index(&mut self) -> Result<(), Violation> {
        let result = self.log()?.flush_index();
        self.judge("the index", result).map(drop)
    }

    /// Begins a new segment.
    ///
    /// # Errors
    /// A violation.
    pub fn roll(&mut self) -> Result<(), Violation> {
        let result = self.log()?.roll();
        self.judge("roll", result).map(drop)
    }

    /// A new leader begins.
    ///
    /// # Errors
    /// A violation.
    pub fn begin_epoch(&mut self) -> Result<(), Violation> {
        self.books.epoch += 1;
        let epoch = LeaderEpoch::new(self.books.epoch).unwrap_or_default();
        let result = self.log()?.begin_epoch(epoch);
        self.judge("a new epoch", result).map(drop)
    }

    /// Writes a snapshot at the log's end.
    ///
    /// # Errors
    /// A violation.
    pub fn snapshot(&mut self, bytes: usize) -> Result<(), Violation> {
        let at = self.end();
        let payload: Vec<u8> = (0..bytes).map(|i| (i as i64 * 31 + at) as u8).collect();
        Arc::make_mut(&mut self.snapshots).push((at, payload.clone()));
        if !self.books.failed {
            let log = self.books.promised.clone();
            self.promise(log);
        }
        let result = self.log()?.write_snapshot(offset(at), &payload);
        self.judge("a snapshot", result).map(drop)
    }
}

/// Whether a disk that loses an earlier write and keeps a later one may lead to a refusal for this reason,
/// though nothing that was promised is lost.
#[must_use]
pub const fn explained_by_reorder(reason: Reason) -> bool {
    matches!(reason, Reason::BatchBehindDamage | Reason::Gap)
}

/// Opens a log the way the workloads do.
///
/// # Errors
/// As [`Log::open`].
pub fn open_log(
    vfs: &Arc<dyn Vfs>,
    config: LogConfig,
    partition: i32,
    clean: bool,
) -> Result<(Log, Recovery), LogError> {
    let mode = OpenMode { clean };
    Log::open(vfs.clone(), &dir(), identity(partition), config, mode, NOW)
}

/// A batch of two records with values of `size` random bytes each. Equal sizes give equal lengths.
pub fn build(base: i64, epoch: i32, size: usize, rng: &mut Rng) -> Sequenced {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for i in 0..2 {
        let value: Vec<u8> = (0..size).map(|_| rng.next() as u8).collect();
        let added = builder.append(NOW + base + i, None, Some(&value), &[]);
        assert!(added.is_ok(), "a record of {size} bytes fits into a batch");
    }
    let epoch = LeaderEpoch::new(epoch).unwrap_or_default();
    match builder.build_batch() {
        Ok(batch) => batch.sequence(offset(base), epoch),
        Err(e) => unreachable!("two records make a batch: {e}"),
    }
}
