//! Threads that flush: a lane hands over what to flush and goes on; the result comes back to the lane as
//! an input. Also the janitor, which unlinks removed files, because freeing a gigabyte can take a second.
//!
//! A flush that failed is never repeated (fsyncgate): the lane latches the log.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use varve_storage::{ChangeTarget, FlushTarget, Removal};
use varve_vfs::Clock;

use crate::inbox::Inbox;
use crate::lane::Command;
use crate::metrics::Metrics;
use crate::stall::FlushWatch;

/// One flush of one partition.
#[derive(Debug)]
pub(crate) struct FlushJob {
    pub(crate) lane: Arc<Inbox<Command>>,
    pub(crate) slot: u32,
    pub(crate) target: FlushTarget,
}

/// One change of what a log consists of.
#[derive(Debug)]
pub(crate) struct ChangeJob {
    pub(crate) lane: Arc<Inbox<Command>>,
    pub(crate) slot: u32,
    pub(crate) target: ChangeTarget,
}

/// The flusher threads, the thread that makes changes of manifests durable, and the janitor of one disk.
#[derive(Debug)]
pub(crate) struct Flushers {
    pub(crate) jobs: Arc<Inbox<FlushJob>>,
    pub(crate) changes: Arc<Inbox<ChangeJob>>,
    pub(crate) removals: Arc<Inbox<Removal>>,
    pub(crate) watch: Arc<FlushWatch>,
    threads: Vec<JoinHandle<()>>,
}

impl Flushers {
    pub(crate) fn start(
        threads: usize,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> std::io::Result<Self> {
        let jobs: Arc<Inbox<FlushJob>> = Inbox::new();
        let removals: Arc<Inbox<Removal>> = Inbox::new();
        let watch: Arc<FlushWatch> = Arc::default();
        let mut handles = Vec::new();
        for n in 0..threads.max(1) {
            let (jobs, clock, metrics) = (Arc::clone(&jobs), Arc::clone(clock), metrics.clone());
            let watch = Arc::clone(&watch);
            let builder = std::thread::Builder::new().name(format!("varve-flush-{n}"));
            handles.push(builder.spawn(move || flush_loop(&jobs, &*clock, &metrics, &watch))?);
        }
        let changes: Arc<Inbox<ChangeJob>> = Inbox::new();
        let queue = Arc::clone(&changes);
        let builder = std::thread::Builder::new().name("varve-change".to_owned());
        handles.push(builder.spawn(move || {
            while let Some(ChangeJob { lane, slot, target }) = queue.take_one() {
                let result = target.run();
                let _ = lane.push(Command::Changed { slot, result });
            }
        })?);
        let (queue, deleted) = (Arc::clone(&removals), metrics.deleted_bytes.clone());
        let builder = std::thread::Builder::new().name("varve-janitor".to_owned());
        handles.push(builder.spawn(move || {
            while let Some(removal) = queue.take_one() {
                match removal.run() {
                    Ok(bytes) => drop(deleted.inc_by(bytes)),
                    // Left over files are swept when the log is opened next.
                    Err(error) => tracing::warn!(%error, "removed segment could not be unlinked"),
                }
            }
        })?);
        Ok(Self {
            jobs,
            changes,
            removals,
            watch,
            threads: handles,
        })
    }

    /// Finishes what is queued and ends the threads.
    pub(crate) fn stop(&mut self) {
        self.jobs.close();
        self.changes.close();
        self.removals.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a flusher thread panicked");
            }
        }
    }
}

fn flush_loop(jobs: &Inbox<FlushJob>, clock: &dyn Clock, metrics: &Metrics, watch: &FlushWatch) {
    while let Some(FlushJob { lane, slot, target }) = jobs.take_one() {
        let started = clock.now();
        watch.begin(slot, started);
        let result = target.run();
        watch.end(slot);
        let took: Duration = clock.now().since(started);
        metrics.fsync_seconds.observe(took.as_secs_f64());
        // A lane that is gone no longer answers anybody.
        let _ = lane.push(Command::Flushed { slot, result });
    }
}
