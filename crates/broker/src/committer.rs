//! Group commit over all partitions of a disk. Lanes hand over what to make durable; small appends of many
//! partitions become one write and one sync of the journal, large ones a sync of their own files by the
//! flusher threads. Files behind the journal are synced in the background, so that it has room again.
//!
//! Invariants: an answer follows only what the journal or the file has synced; a partition whose
//! acknowledgements have followed the journal leaves it, durably, before they may follow its file; nothing is
//! acknowledged through a journal that failed. A full journal delays nobody: files are synced instead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use varve_storage::journal::{NewFile, NewFileSpec, Written};
use varve_storage::{FlushDone, FlushError, FlushTarget, Journal, JournalEntry, LogIdentity};
use varve_vfs::{Clock, VfsError};

use crate::inbox::Inbox;
use crate::lane::Command;
use crate::metrics::Metrics;
use crate::stall::FlushWatch;

/// Bytes of one partition from which a flush goes to its file alone: the second copy would cost more than
/// the flush it saves. Between this and [`JOURNAL_BYTES`] a partition stays where it was.
pub(crate) const FILE_BYTES: u64 = 256 * 1024;
/// Bytes below which a flush goes to the journal again.
const JOURNAL_BYTES: u64 = 128 * 1024;
/// Bytes of one group of the journal, so that one sync does not hold too many answers.
const GROUP_BYTES: u64 = 4 * 1024 * 1024;

/// One flush of one partition.
#[derive(Debug)]
pub(crate) struct FlushJob {
    pub(crate) lane: Arc<Inbox<Command>>,
    pub(crate) slot: u32,
    /// What to sync where the files are flushed.
    pub(crate) target: FlushTarget,
    /// The same for the journal, where that is possible.
    pub(crate) entry: Option<JournalEntry>,
    /// Only to make room in the journal: no acknowledgement follows.
    pub(crate) relief: bool,
}

/// What the committer is told.
#[derive(Debug)]
pub(crate) enum Work {
    Flush(Box<FlushJob>),
    /// The files of a log were synced; `follow`: its acknowledgements may follow the journal from there.
    Synced {
        done: FlushDone,
        follow: bool,
    },
    /// The log is about to be cut: its entries must count for nothing. Its files are synced.
    Void {
        identity: LogIdentity,
        lane: Arc<Inbox<Command>>,
        slot: u32,
    },
    /// The log is deleted.
    Forget(LogIdentity),
    /// A journal file was made, or could not be.
    Made(Result<NewFile, VfsError>),
}

/// Work that nobody waits for.
#[derive(Debug)]
pub(crate) enum Background {
    Relief(Box<FlushJob>),
    Make(NewFileSpec),
}

/// Where a log's lane is.
type Home = (Arc<Inbox<Command>>, u32);

/// The state of the worker that commits.
pub(crate) struct Committer {
    journal: Option<Journal>,
    direct: Arc<Inbox<FlushJob>>,
    background: Arc<Inbox<Background>>,
    homes: BTreeMap<LogIdentity, Home>,
    /// Logs that were told to sync their files.
    asked: BTreeSet<LogIdentity>,
    /// Logs whose flushes are large.
    large: BTreeSet<LogIdentity>,
    /// Logs whose files were synced for an answer, to be told to the journal with its next group.
    follows: BTreeMap<LogIdentity, FlushDone>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    watch: Arc<FlushWatch>,
}

impl Committer {
    pub(crate) fn new(
        journal: Option<Journal>,
        direct: Arc<Inbox<FlushJob>>,
        background: Arc<Inbox<Background>>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        watch: Arc<FlushWatch>,
    ) -> Self {
        Self {
            journal,
            direct,
            background,
            homes: BTreeMap::new(),
            asked: BTreeSet::new(),
            large: BTreeSet::new(),
            follows: BTreeMap::new(),
            clock,
            metrics,
            watch,
        }
    }

    /// One round: everything that waits.
    pub(crate) fn round(&mut self, work: &mut VecDeque<Work>) {
        let mut entries = Vec::new();
        let mut files = Vec::new();
        for work in work.drain(..) {
            match work {
                Work::Flush(job) if job.relief => {
                    let _ = self.background.push(Background::Relief(job));
                }
                Work::Flush(mut job) => match self.choose(&mut job) {
                    Some(entry) => entries.push((job, entry)),
                    None => files.push(*job),
                },
                Work::Synced { done, follow } => self.synced(done, follow),
                Work::Void {
                    identity,
                    lane,
                    slot,
                } => {
                    let result = self.void(identity);
                    let _ = lane.push(Command::Voided { slot, result });
                }
                Work::Forget(identity) => self.forget(identity),
                Work::Made(made) => self.made(made),
            }
        }
        while !entries.is_empty() {
            let mut bytes = 0;
            let sizes = entries.iter().map(|(_, entry)| entry.bytes());
            let fitting = sizes.take_while(|size| {
                bytes += size;
                bytes <= GROUP_BYTES
            });
            let count = fitting.count().max(1);
            let group = entries.drain(..count).collect();
            files.extend(self.commit(group));
        }
        self.flush_files(files);
        self.make_room();
    }

    /// The entry, if this flush goes to the journal.
    fn choose(&mut self, job: &mut FlushJob) -> Option<JournalEntry> {
        let journal = self.journal.as_ref()?;
        let identity = job.target.identity();
        let home = || (Arc::clone(&job.lane), job.slot);
        self.homes.entry(identity).or_insert_with(home);
        // What waits for an answer. The target also counts what the journal has and the file has not synced yet.
        let entry = job.entry.as_ref();
        let bytes = entry.map_or_else(|| job.target.bytes(), JournalEntry::bytes);
        if bytes >= FILE_BYTES {
            self.large.insert(identity);
        } else if bytes < JOURNAL_BYTES {
            self.large.remove(&identity);
        }
        if self.large.contains(&identity) && !journal.failed() {
            return None;
        }
        job.entry.take()
    }

    /// Writes one group. Gives back what has to go to the files.
    fn commit(&mut self, group: Vec<(Box<FlushJob>, JournalEntry)>) -> Vec<FlushJob> {
        let Some(journal) = self.journal.as_mut() else {
            unreachable!("there are entries only with a journal")
        };
        let (jobs, entries): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        if journal.failed() {
            fail(jobs, "an earlier write or sync of the journal failed");
            return Vec::new();
        }
        let started = self.clock.now();
        for job in &jobs {
            self.watch.begin(job.slot, started);
        }
        let follows: Vec<FlushDone> = std::mem::take(&mut self.follows).into_values().collect();
        let result = journal.write_following(&entries, &follows);
        for job in &jobs {
            self.watch.end(job.slot);
        }
        let took = self.clock.now().since(started);
        self.metrics.fsync_seconds.observe(took.as_secs_f64());
        match result {
            Ok(Written::Synced) => {
                self.metrics.journal_groups.inc();
                for (job, entry) in jobs.into_iter().zip(entries) {
                    self.metrics.journal_bytes.inc_by(entry.bytes());
                    let result = Ok(entry.done().clone());
                    let slot = job.slot;
                    let _ = job.lane.push(Command::Flushed { slot, result });
                }
                Vec::new()
            }
            Ok(Written::Full) => {
                self.metrics.journal_full.inc();
                jobs.into_iter().map(|job| *job).collect()
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "the journal failed: it acknowledges nothing more; repair the disk, then \
                     restart the node"
                );
                fail(jobs, &error.to_string());
                Vec::new()
            }
        }
    }

    /// Hands flushes of files to the flusher threads.
    fn flush_files(&mut self, jobs: Vec<FlushJob>) {
        let Some(journal) = self.journal.as_mut() else {
            for job in jobs {
                let _ = self.direct.push(job);
            }
            return;
        };
        if jobs.is_empty() {
            return;
        }
        let leaving = jobs.iter().filter(|job| journal.must_leave(&job.target));
        let leaving: Vec<LogIdentity> = leaving.map(|job| job.target.identity()).collect();
        if journal.failed() {
            let jobs = jobs.into_iter().map(Box::new).collect();
            fail(jobs, "an earlier write or sync of the journal failed");
            return;
        }
        if let Err(error) = journal.leave(&leaving) {
            tracing::error!(
                %error,
                "the journal failed: this disk acknowledges nothing more; repair the disk, then \
                 restart the node"
            );
            let jobs = jobs.into_iter().map(Box::new).collect();
            fail(jobs, &error.to_string());
            return;
        }
        for job in jobs {
            // What was synced before is not the end of what is acknowledged any more.
            self.follows.remove(&job.target.identity());
            let _ = self.direct.push(job);
        }
    }

    fn synced(&mut self, done: FlushDone, follow: bool) {
        let Some(journal) = self.journal.as_mut() else {
            return;
        };
        let identity = done.identity();
        journal.synced(&done);
        if follow && !self.large.contains(&identity) {
            self.follows.insert(identity, done);
        } else if !follow {
            self.asked.remove(&identity);
        }
    }

    /// Makes the entries of a log void; `false` when there is no room to say so now.
    fn void(&mut self, identity: LogIdentity) -> Result<bool, String> {
        let Some(journal) = self.journal.as_mut() else {
            return Ok(true);
        };
        if journal.failed() {
            return Err("an earlier write or sync of the journal failed".to_owned());
        }
        match journal.void(identity) {
            Ok(written) => {
                if written == Written::Synced {
                    self.asked.remove(&identity);
                    self.follows.remove(&identity);
                }
                Ok(written == Written::Synced)
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "the journal failed: it acknowledges nothing more; repair the disk, then \
                     restart the node"
                );
                Err(error.to_string())
            }
        }
    }

    fn forget(&mut self, identity: LogIdentity) {
        self.homes.remove(&identity);
        self.asked.remove(&identity);
        self.large.remove(&identity);
        self.follows.remove(&identity);
        if let Some(journal) = self.journal.as_mut() {
            journal.forget(identity);
        }
    }

    fn made(&mut self, made: Result<NewFile, VfsError>) {
        let Some(journal) = self.journal.as_mut() else {
            return;
        };
        match made {
            Ok(file) => journal.add(file),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "could not add a journal file; files are synced one by one in the meantime"
                );
                journal.not_made();
            }
        }
    }

    /// Asks for what gives the journal room again.
    fn make_room(&mut self) {
        let Some(journal) = self.journal.as_mut() else {
            return;
        };
        if let Some(spec) = journal.file_wanted() {
            let _ = self.background.push(Background::Make(spec));
        }
        for identity in journal.due() {
            if !self.asked.contains(&identity)
                && let Some((lane, slot)) = self.homes.get(&identity)
            {
                self.asked.insert(identity);
                let _ = lane.push(Command::Relieve { slot: *slot });
            }
        }
        let live = i64::try_from(journal.live_bytes()).unwrap_or(i64::MAX);
        self.metrics.journal_live_bytes.set(live);
    }
}

/// Tells lanes that their flush has failed for good.
#[expect(clippy::vec_box, reason = "jobs are boxed where they come from")]
fn fail(jobs: Vec<Box<FlushJob>>, why: &str) {
    for job in jobs {
        let io = std::io::Error::other(why.to_owned());
        let error = VfsError::new("make records durable in", job.target.dir(), io);
        let slot = job.slot;
        let error = FlushError {
            error,
            retry: false,
        };
        let result = Err(error);
        let _ = job.lane.push(Command::Flushed { slot, result });
    }
}
