//! The cleaner: one thread per disk that compacts the log that needs it most, one at a time. Lanes offer logs
//! that are due; the cleaner asks the lane for the work, does it from a snapshot, and hands each part back to
//! be installed. Appends and reads go on meanwhile, and a lane never waits for it.
//!
//! What it reads and writes is held to `log.cleaner.io.max.bytes.per.second` ([`Rate`]), all runs together.
//!
//! Invariants: a run is given up when its partition goes offline, its topic is deleted, or the broker stops;
//! what was installed before stays, and what was not leaves no files. It never writes to a log by itself.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use varve_storage::{Compacted, Compaction, CompactionError};
use varve_vfs::{Clock, Workers};

use crate::inbox::Inbox;
use crate::lane::Command;
use crate::metrics::{Metrics, ResultLabel};
use crate::partition::Partition;
use crate::rate::Rate;

/// Memory for the keys of one run; Kafka's default. Taken only as far as the records need it.
pub(crate) const MAP_BYTES: usize = 128 * 1024 * 1024;
/// How often a wait for a lane looks whether it still makes sense.
const LOOK: Duration = Duration::from_millis(200);

/// A partition that should be compacted.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) partition: Arc<Partition>,
    /// Share of dirty bytes.
    pub(crate) ratio: f64,
}

/// The cleaner of one disk.
#[derive(Debug)]
pub(crate) struct Cleaner {
    pub(crate) candidates: Arc<Inbox<Candidate>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cleaner {
    /// `io_bytes_per_second` of reads and writes together; 0 for as many as the disk gives.
    pub(crate) fn start(
        workers: &Workers,
        io_bytes_per_second: u64,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> std::io::Result<Self> {
        let candidates: Arc<Inbox<Candidate>> = Inbox::new();
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            stop: Arc::clone(&stop),
            clock: Arc::clone(clock),
            metrics: metrics.clone(),
            rate: RefCell::new(Rate::new(io_bytes_per_second)),
        };
        let queue = Arc::clone(&candidates);
        // It waits for lanes, which as tasks would wait for it.
        let thread = match workers {
            Workers::Threads => {
                let builder = std::thread::Builder::new().name("varve-cleaner".to_owned());
                Some(builder.spawn(move || worker.work(&queue))?)
            }
            Workers::Tasks(_) => None,
        };
        Ok(Self {
            candidates,
            stop,
            thread,
        })
    }

    /// Gives up what is under way and ends the thread. Lanes must still answer or be gone.
    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.candidates.close();
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the cleaner thread panicked");
        }
    }
}

struct Worker {
    stop: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    rate: RefCell<Rate>,
}

impl Worker {
    fn work(&self, queue: &Inbox<Candidate>) {
        let (mut waiting, mut fresh) = (Vec::new(), VecDeque::new());
        loop {
            if waiting.is_empty() || queue.len() > 0 {
                if !queue.take_all(&mut fresh) {
                    return;
                }
                waiting.extend(fresh.drain(..));
            }
            let by_ratio = |c: &(usize, &Candidate)| c.1.ratio;
            let dirtiest = waiting
                .iter()
                .enumerate()
                .max_by(|a, b| by_ratio(a).total_cmp(&by_ratio(b)))
                .map(|(i, _)| i);
            if let Some(i) = dirtiest {
                let candidate: Candidate = waiting.swap_remove(i);
                self.clean(&candidate);
                let partition = &candidate.partition;
                let slot = partition.slot;
                let _ = partition.lane.push(Command::CompactionOver { slot });
            }
        }
    }

    fn goes_on(&self, partition: &Partition) -> bool {
        !self.stop.load(Ordering::Relaxed)
            && partition.offline().is_none()
            && !partition.is_deleted()
    }

    /// Pauses as long as the rate asks for after so many bytes. Returns whether the run goes on.
    fn paced(&self, partition: &Partition, bytes: u64) -> bool {
        let mut pause = match bytes {
            0 => Duration::ZERO,
            _ => self.rate.borrow_mut().spent(bytes, self.clock.now()),
        };
        while pause > Duration::ZERO && self.goes_on(partition) {
            let nap = pause.min(LOOK);
            std::thread::sleep(nap);
            pause -= nap;
        }
        self.goes_on(partition)
    }

    /// Waits for a lane's answer. `None`: it will not come, or nobody needs it any more.
    fn wait<T>(&self, partition: &Partition, answer: &Receiver<T>) -> Option<T> {
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.goes_on(partition) => {}
                Err(RecvTimeoutError::Timeout) => return None,
            }
        }
    }

    fn clean(&self, candidate: &Candidate) {
        let partition = &candidate.partition;
        let (reply, answer) = sync_channel(1);
        let slot = partition.slot;
        if partition
            .lane
            .push(Command::Compact { slot, reply })
            .is_err()
        {
            return;
        }
        let Some(Some(mut run)) = self.wait(partition, &answer) else {
            return;
        };
        let started = self.clock.now();
        let result = self.perform(partition, &mut run);
        let took = self.clock.now().since(started);
        let stats = *run.stats();
        let removed = stats.superseded_records + stats.expired_records + stats.keyless_records;
        self.metrics.compaction_seconds.observe(took.as_secs_f64());
        self.metrics.compaction_read_bytes.inc_by(stats.read_bytes);
        self.metrics
            .compaction_written_bytes
            .inc_by(stats.written_bytes);
        self.metrics.compaction_removed_records.inc_by(removed);
        let label = match &result {
            Ok(()) => "ok",
            Err(CompactionError::Stopped | CompactionError::Changed) => "stopped",
            Err(_) => "failed",
        };
        let label = ResultLabel {
            result: label.to_owned(),
        };
        self.metrics.compaction_runs.get_or_create(&label).inc();
        match result {
            Ok(()) => tracing::info!(
                partition = %partition.id, dirty = format!("{:.0} %", candidate.ratio * 100.0),
                upto = stats.upto, read_bytes = stats.read_bytes,
                written_bytes = stats.written_bytes, kept = stats.kept_records,
                superseded = stats.superseded_records, expired = stats.expired_records,
                without_key = stats.keyless_records, took = ?took, "compacted"
            ),
            Err(error @ (CompactionError::Stopped | CompactionError::Changed)) => {
                tracing::info!(partition = %partition.id, %error, "compaction was interrupted");
            }
            Err(error) => {
                if matches!(error, CompactionError::Corrupt { .. }) {
                    partition.counters.corrupt_batches.inc();
                    partition.ask_repair();
                }
                tracing::error!(partition = %partition.id, %error, "compaction failed");
            }
        }
    }

    fn perform(&self, partition: &Partition, run: &mut Compaction) -> Result<(), CompactionError> {
        let slot = partition.slot;
        while let Some(part) = run.next(&|bytes| self.paced(partition, bytes))? {
            let (reply, answer) = sync_channel(1);
            let command = Command::Install {
                slot,
                part: Box::new(part),
                reply,
            };
            if partition.lane.push(command).is_err() {
                return Err(CompactionError::Stopped);
            }
            match self.wait(partition, &answer) {
                Some(true) => {}
                Some(false) => return Err(CompactionError::Changed),
                None => return Err(CompactionError::Stopped),
            }
        }
        Ok(())
    }
}

/// Who waits for a run; `None` when there is nothing to do.
pub(crate) type RunReply = SyncSender<Option<Compaction>>;
/// Who waits for an install; `false` when the log has changed.
pub(crate) type InstallReply = SyncSender<bool>;
/// A part of a run.
pub(crate) type Part = Box<Compacted>;
