//! All logs of a disk and its journal, opened as a start of the server does it, and used as the server does: for
//! the driver, and for what the suites do to a disk that a crash has left.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use varve_record::Sequenced;
use varve_storage::journal::{JournalError, Replay, Written};
use varve_storage::{
    Corruption, FlushDone, FlushTarget, Journal, JournalConfig, JournalEntry, Log, LogConfig,
    LogError, LogIdentity, OpenMode, Removal,
};
use varve_types::{LeaderEpoch, Offset};
use varve_vfs::{Vfs, VfsError};

use super::driver::{MAP_BYTES, NOW, build, dir_of, eager, identity};
use super::keyed;
use super::oracle::{Content, Expect, Served, check, serve, serve_sparse};
use crate::rng::Rng;

/// Identity of the data directory.
const OWNER: u128 = 0x5eed;

/// What a workload runs on.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Sizes and times of each log.
    pub config: LogConfig,
    /// Partition of the first log.
    pub partition: i32,
    /// How many logs.
    pub logs: usize,
    /// The journal of the disk, if it has one.
    pub journal: Option<JournalConfig>,
    /// Records have keys, and the logs are compacted.
    pub keyed: bool,
}

impl Setup {
    /// One log, and nothing else.
    #[must_use]
    pub const fn one(config: LogConfig) -> Self {
        Self {
            config,
            partition: 3,
            logs: 1,
            journal: None,
            keyed: false,
        }
    }

    /// Whose log it is.
    #[must_use]
    pub fn identity(&self, number: usize) -> LogIdentity {
        identity(self.partition + number as i32)
    }

    /// All that a client gets of a log.
    ///
    /// # Errors
    /// What a client would notice.
    pub fn serve(&self, log: &Log) -> Result<Served, String> {
        if self.keyed {
            serve_sparse(&log.view())
        } else {
            serve(&log.view())
        }
    }
}

/// The directory of the journal.
#[must_use]
pub fn journal_dir() -> PathBuf {
    PathBuf::from("/data/journal")
}

/// Why a start failed as a whole.
#[derive(Debug)]
pub enum StartError {
    /// The disk.
    Io(VfsError),
    /// Anything else.
    Other(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// The journal of a disk, used as the server's committing thread uses it.
#[derive(Debug)]
pub struct Ledger {
    /// The journal itself.
    pub journal: Journal,
    /// Logs whose files were synced for an answer, to be told to the journal with its next group.
    follows: BTreeMap<LogIdentity, FlushDone>,
}

impl Ledger {
    /// Makes another file, if one is wanted and there is space for it.
    ///
    /// # Errors
    /// What the disk says, other than that it is full.
    pub fn make_room(&mut self) -> Result<(), VfsError> {
        let Some(spec) = self.journal.file_wanted() else {
            return Ok(());
        };
        match spec.make() {
            Ok(file) => self.journal.add(file),
            Err(error) => {
                self.journal.not_made();
                if !error.is_no_space() {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Writes one group.
    ///
    /// # Errors
    /// The journal has failed, now or before.
    pub fn write(&mut self, entries: &[JournalEntry]) -> Result<Written, VfsError> {
        self.check()?;
        let follows: Vec<FlushDone> = std::mem::take(&mut self.follows).into_values().collect();
        self.journal.write_following(entries, &follows)
    }

    fn check(&self) -> Result<(), VfsError> {
        if self.journal.failed() {
            let why = std::io::Error::other("an earlier write of the journal has failed");
            return Err(VfsError::new("write", &journal_dir(), why));
        }
        Ok(())
    }

    /// Before the files of a log are synced for an answer.
    ///
    /// # Errors
    /// The journal has failed, now or before.
    pub fn leave(&mut self, target: &FlushTarget) -> Result<(), VfsError> {
        self.check()?;
        if self.journal.must_leave(target) {
            self.journal.leave(&[target.identity()])?;
        }
        self.follows.remove(&target.identity());
        Ok(())
    }

    /// The files of a log were synced; `answer`: acknowledgements have followed.
    pub fn synced(&mut self, done: &FlushDone, answer: bool) {
        self.journal.synced(done);
        if answer {
            self.follows.insert(done.identity(), done.clone());
        }
    }

    /// Makes what the journal holds of a log void.
    ///
    /// # Errors
    /// The journal has failed, now or before.
    pub fn void(&mut self, log: LogIdentity) -> Result<Written, VfsError> {
        self.check()?;
        self.follows.remove(&log);
        self.journal.void(log)
    }
}

/// Compacts everything that is sealed, here and now.
fn compact(log: &mut Log) -> Result<(), String> {
    let end = log.log_end();
    let Some(mut run) = log.prepare_compaction(&eager(), NOW, end, MAP_BYTES) else {
        return Ok(());
    };
    while let Some(part) = run.next(&|_| true).map_err(|e| e.to_string())? {
        if log.prepare_install(part).is_err() {
            return Err("what was compacted does not fit".to_owned());
        }
        log.change_now().map_err(|e| e.to_string())?;
        log.take_removed().run().map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Everything on a disk, open.
#[derive(Debug)]
pub struct World {
    /// The logs, or why one was refused.
    pub logs: Vec<Result<Log, Corruption>>,
    /// The journal. Not begun, and not to be used, while a log is refused.
    pub ledger: Option<Ledger>,
    /// What the logs left to be unlinked.
    pub leftovers: Vec<Removal>,
    setup: Setup,
}

impl World {
    /// Opens everything as a start does.
    ///
    /// # Errors
    /// The disk fails, or the journal is refused.
    pub fn open(vfs: &Arc<dyn Vfs>, setup: &Setup, clean: bool) -> Result<Self, StartError> {
        let mut journal = None;
        let mut replay = Replay::default();
        if let Some(config) = setup.journal {
            let opened = Journal::open(vfs.clone(), &journal_dir(), OWNER, config, clean);
            let (found, of_logs) = opened.map_err(|error| match error {
                JournalError::Io(error) => StartError::Io(error),
                error => StartError::Other(error.to_string()),
            })?;
            (journal, replay) = (Some(found), of_logs);
        }
        let (mut logs, mut leftovers) = (Vec::new(), Vec::new());
        for number in 0..setup.logs {
            let identity = setup.identity(number);
            let opened = Log::open_replayed(
                vfs.clone(),
                &dir_of(number),
                identity,
                setup.config,
                OpenMode { clean },
                NOW,
                replay.log(&identity),
            );
            logs.push(match opened {
                Ok((log, recovery)) => {
                    leftovers.push(recovery.leftovers);
                    Ok(log)
                }
                Err(LogError::Corrupt(found)) => Err(*found),
                Err(LogError::Io(error) | LogError::NoSpace(error)) => {
                    return Err(StartError::Io(error));
                }
                Err(error) => return Err(StartError::Other(error.to_string())),
            });
        }
        drop(replay);
        let ledger = match journal {
            Some(mut journal) => {
                if logs.iter().all(Result::is_ok) {
                    journal.begin(&[]).map_err(StartError::Io)?;
                }
                let follows = BTreeMap::new();
                Some(Ledger { journal, follows })
            }
            None => None,
        };
        Ok(Self {
            logs,
            ledger,
            leftovers,
            setup: *setup,
        })
    }

    /// Unlinks leftovers, as far as that works.
    pub fn sweep(&mut self) {
        for removal in self.leftovers.drain(..) {
            let _ = removal.run();
        }
    }

    /// The first log that was refused.
    #[must_use]
    pub fn refused(&self) -> Option<&Corruption> {
        self.logs.iter().find_map(|log| log.as_ref().err())
    }

    fn log(&mut self, number: usize) -> Result<&mut Log, String> {
        let log = self.logs[number].as_mut();
        log.map_err(|found| format!("log {number} was refused: {found}"))
    }

    /// Holds every log that is open against what was promised. Nothing for one that was refused.
    ///
    /// # Errors
    /// In what way it is something else.
    pub fn check(&self, expect: &Expect) -> Result<Vec<Served>, String> {
        let mut all = Vec::new();
        for (number, log) in self.logs.iter().enumerate() {
            if let Ok(log) = log {
                let served = check(log, number, expect);
                all.push(served.map_err(|e| self.named(number, e))?);
            }
        }
        Ok(all)
    }

    fn named(&self, number: usize, error: String) -> String {
        if self.logs.len() == 1 {
            error
        } else {
            format!("log {number}: {error}")
        }
    }

    /// All that clients get.
    ///
    /// # Errors
    /// What a client would notice.
    pub fn serve(&self) -> Result<Vec<Served>, String> {
        let logs = self.logs.iter().flatten().enumerate();
        logs.map(|(n, log)| self.setup.serve(log).map_err(|e| self.named(n, e)))
            .collect()
    }

    /// Appends a batch with two records of `size` bytes to a log and makes it durable: through the journal, if
    /// there is one and it has room.
    ///
    /// # Errors
    /// What failed.
    pub fn put(&mut self, number: usize, size: usize) -> Result<(Offset, Sequenced), String> {
        let log = self.log(number)?;
        let end = log.log_end().get();
        let epoch = log.last_epoch().map_or(1, LeaderEpoch::get);
        let batch = build(end, epoch, size, &mut Rng::new(end as u64));
        log.append(std::slice::from_ref(&batch), NOW)
            .map_err(|e| e.to_string())?;
        let acked = self
            .acknowledge(number, &batch)
            .map_err(|e| e.to_string())?;
        Ok((acked, batch))
    }

    /// Compacts all that can be, and compares what a replay comes to.
    ///
    /// # Errors
    /// What failed, or differs.
    pub fn compact_and_compare(&mut self, before: &[Served]) -> Result<(), String> {
        for (number, before) in before.iter().enumerate() {
            let setup = self.setup;
            let log = self.log(number)?;
            compact(log).map_err(|e| format!("a compaction after recovery: {e}"))?;
            let written = Content::of(before);
            let served = setup.serve(log)?;
            keyed::same_answers(log, &served, &written)
                .map_err(|e| format!("a compaction after recovery: {e}"))?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, number: usize, batch: &Sequenced) -> Result<Offset, LogError> {
        let Ok(log) = self.logs[number].as_mut() else {
            unreachable!("it was appended to")
        };
        let Some(ledger) = &mut self.ledger else {
            return log.flush_now();
        };
        ledger.make_room()?;
        let target = log.flush_target();
        if let Some(entry) = log.journal_entry(vec![batch.clone()])
            && ledger.write(std::slice::from_ref(&entry))? == Written::Synced
        {
            return log.flush_done(entry.done());
        }
        let Some(target) = target else {
            return Ok(log.flushed());
        };
        ledger.leave(&target)?;
        let done = target.run().map_err(|e| LogError::Io(e.error))?;
        ledger.synced(&done, true);
        log.flush_done(&done)
    }
}
