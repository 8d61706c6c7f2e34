//! Threads that flush files: a lane hands over what to flush and goes on; the committer decides whether the
//! journal or the file makes it durable; the result comes back to the lane as an input. Also the thread that
//! syncs files behind the journal, and the janitor, which unlinks removed files, because freeing a
//! gigabyte can take a second.
//!
//! A flush that failed is never repeated (fsyncgate): the lane latches the log.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use varve_storage::{ChangeTarget, Journal, Removal};
use varve_vfs::Clock;

use crate::committer::{Background, Committer, FlushJob, Work};
use crate::inbox::Inbox;
use crate::lane::Command;
use crate::metrics::Metrics;
use crate::stall::FlushWatch;

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
    /// To the committer.
    pub(crate) jobs: Arc<Inbox<Work>>,
    direct: Arc<Inbox<FlushJob>>,
    background: Arc<Inbox<Background>>,
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
        let jobs: Arc<Inbox<Work>> = Inbox::new();
        let direct: Arc<Inbox<FlushJob>> = Inbox::new();
        let background: Arc<Inbox<Background>> = Inbox::new();
        let removals: Arc<Inbox<Removal>> = Inbox::new();
        let watch: Arc<FlushWatch> = Arc::default();
        let mut handles = Vec::new();
        for n in 0..threads.max(1) {
            let (direct, jobs) = (Arc::clone(&direct), Arc::clone(&jobs));
            let (clock, metrics, watch) = (Arc::clone(clock), metrics.clone(), Arc::clone(&watch));
            let builder = std::thread::Builder::new().name(format!("varve-flush-{n}"));
            let run = move || flush_loop(&direct, &jobs, &*clock, &metrics, &watch);
            handles.push(builder.spawn(run)?);
        }
        let (behind, told) = (Arc::clone(&background), Arc::clone(&jobs));
        let builder = std::thread::Builder::new().name("varve-relief".to_owned());
        handles.push(builder.spawn(move || background_loop(&behind, &told))?);
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
            direct,
            background,
            changes,
            removals,
            watch,
            threads: handles,
        })
    }

    /// Starts to commit what lanes hand over: until then it waits.
    pub(crate) fn commit_with(
        &mut self,
        journal: Option<Journal>,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> std::io::Result<()> {
        let committer = Committer::new(
            journal,
            Arc::clone(&self.direct),
            Arc::clone(&self.background),
            Arc::clone(clock),
            metrics.clone(),
            Arc::clone(&self.watch),
        );
        let jobs = Arc::clone(&self.jobs);
        let builder = std::thread::Builder::new().name("varve-commit".to_owned());
        self.threads
            .push(builder.spawn(move || committer.run(&jobs))?);
        Ok(())
    }

    /// Finishes what is queued and ends the threads.
    pub(crate) fn stop(&mut self) {
        self.jobs.close();
        // The committer comes last, and hands on what it had.
        if let Some(committer) = self.threads.pop()
            && committer.join().is_err()
        {
            tracing::error!("the committing thread panicked");
        }
        self.direct.close();
        self.background.close();
        self.changes.close();
        self.removals.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a flusher thread panicked");
            }
        }
    }
}

fn flush_loop(
    direct: &Inbox<FlushJob>,
    committer: &Inbox<Work>,
    clock: &dyn Clock,
    metrics: &Metrics,
    watch: &FlushWatch,
) {
    while let Some(job) = direct.take_one() {
        let (lane, slot) = (job.lane, job.slot);
        let started = clock.now();
        watch.begin(slot, started);
        let result = job.target.run();
        watch.end(slot);
        let took: Duration = clock.now().since(started);
        metrics.fsync_seconds.observe(took.as_secs_f64());
        if let Ok(done) = &result {
            let done = done.clone();
            // Before the lane can hand over the next flush of this log.
            let _ = committer.push(Work::Synced { done, follow: true });
        }
        // A lane that is gone no longer answers anybody.
        let _ = lane.push(Command::Flushed { slot, result });
    }
}

fn background_loop(background: &Inbox<Background>, committer: &Inbox<Work>) {
    while let Some(work) = background.take_one() {
        match work {
            Background::Relief(job) => {
                let (lane, slot) = (job.lane, job.slot);
                let result = job.target.run();
                if let Ok(done) = &result {
                    let (done, follow) = (done.clone(), false);
                    let _ = committer.push(Work::Synced { done, follow });
                }
                let _ = lane.push(Command::Relieved { slot, result });
            }
            Background::Make(spec) => {
                let _ = committer.push(Work::Made(spec.make()));
            }
        }
    }
}
