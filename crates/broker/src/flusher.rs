//! Workers that flush files: a lane hands over what to flush and goes on; the committer decides whether the
//! journal or the file makes it durable; the result comes back to the lane as an input. Also the worker that
//! syncs files behind the journal, and the janitor, which unlinks removed files, because freeing a
//! gigabyte can take a second.
//!
//! A flush that failed is never repeated (fsyncgate): the lane latches the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use varve_storage::{ChangeTarget, Journal, Removal};
use varve_vfs::{Clock, Workers};

use crate::committer::{Background, Committer, FlushJob, Work};
use crate::inbox::Inbox;
use crate::lane::Command;
use crate::metrics::Metrics;
use crate::stall::FlushWatch;
use crate::work::{Take, Worker};

/// One change of what a log consists of.
#[derive(Debug)]
pub(crate) struct ChangeJob {
    pub(crate) lane: Arc<Inbox<Command>>,
    pub(crate) slot: u32,
    pub(crate) target: ChangeTarget,
}

/// The flushers, the worker that makes changes of manifests durable, and the janitor of one disk.
#[derive(Debug)]
pub(crate) struct Flushers {
    /// To the committer.
    pub(crate) jobs: Arc<Inbox<Work>>,
    direct: Arc<Inbox<FlushJob>>,
    background: Arc<Inbox<Background>>,
    pub(crate) changes: Arc<Inbox<ChangeJob>>,
    pub(crate) removals: Arc<Inbox<Removal>>,
    pub(crate) watch: Arc<FlushWatch>,
    workers: Workers,
    committer: Option<Worker>,
    others: Vec<Worker>,
}

impl Flushers {
    pub(crate) fn start(
        workers: &Workers,
        threads: usize,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> std::io::Result<Self> {
        let jobs: Arc<Inbox<Work>> = Inbox::new();
        let direct: Arc<Inbox<FlushJob>> = Inbox::new();
        let background: Arc<Inbox<Background>> = Inbox::new();
        let removals: Arc<Inbox<Removal>> = Inbox::new();
        let watch: Arc<FlushWatch> = Arc::default();
        let mut others = Vec::new();
        for n in 0..threads.max(1) {
            let (queue, jobs) = (Arc::clone(&direct), Arc::clone(&jobs));
            let (clock, metrics, watch) = (Arc::clone(clock), metrics.clone(), Arc::clone(&watch));
            let name = format!("varve-flush-{n}");
            let flush = move |taken: &mut VecDeque<FlushJob>| {
                for job in taken.drain(..) {
                    flush(job, &jobs, &*clock, &metrics, &watch);
                }
            };
            others.push(Worker::start(workers, &name, queue, Take::One, flush)?);
        }
        let (queue, told) = (Arc::clone(&background), Arc::clone(&jobs));
        let behind = move |taken: &mut VecDeque<Background>| {
            for work in taken.drain(..) {
                in_background(work, &told);
            }
        };
        others.push(Worker::start(
            workers,
            "varve-relief",
            queue,
            Take::One,
            behind,
        )?);
        let changes: Arc<Inbox<ChangeJob>> = Inbox::new();
        let queue = Arc::clone(&changes);
        let change = |taken: &mut VecDeque<ChangeJob>| {
            for ChangeJob { lane, slot, target } in taken.drain(..) {
                let result = target.run();
                let _ = lane.push(Command::Changed { slot, result });
            }
        };
        others.push(Worker::start(
            workers,
            "varve-change",
            queue,
            Take::One,
            change,
        )?);
        let (queue, deleted) = (Arc::clone(&removals), metrics.deleted_bytes.clone());
        let unlink = move |taken: &mut VecDeque<Removal>| {
            for removal in taken.drain(..) {
                match removal.run() {
                    Ok(bytes) => drop(deleted.inc_by(bytes)),
                    // Left over files are swept when the log is opened next.
                    Err(error) => tracing::warn!(%error, "could not delete a removed segment"),
                }
            }
        };
        others.push(Worker::start(
            workers,
            "varve-janitor",
            queue,
            Take::One,
            unlink,
        )?);
        Ok(Self {
            jobs,
            direct,
            background,
            changes,
            removals,
            watch,
            workers: workers.clone(),
            committer: None,
            others,
        })
    }

    /// Starts to commit what lanes hand over: until then it waits.
    pub(crate) fn commit_with(
        &mut self,
        journal: Option<Journal>,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> std::io::Result<()> {
        let mut committer = Committer::new(
            journal,
            Arc::clone(&self.direct),
            Arc::clone(&self.background),
            Arc::clone(clock),
            metrics.clone(),
            Arc::clone(&self.watch),
        );
        let jobs = Arc::clone(&self.jobs);
        let commit = move |taken: &mut VecDeque<Work>| committer.round(taken);
        let started = Worker::start(&self.workers, "varve-commit", jobs, Take::All, commit)?;
        self.committer = Some(started);
        Ok(())
    }

    /// Finishes what is queued and ends the workers.
    pub(crate) async fn stop(&mut self) {
        self.jobs.close();
        // It hands on what it had.
        if let Some(committer) = self.committer.take()
            && !committer.ended().await
        {
            tracing::error!("the committer panicked");
        }
        self.direct.close();
        self.background.close();
        self.changes.close();
        self.removals.close();
        for worker in self.others.drain(..) {
            if !worker.ended().await {
                tracing::error!("a flusher panicked");
            }
        }
    }
}

fn flush(
    job: FlushJob,
    committer: &Inbox<Work>,
    clock: &dyn Clock,
    metrics: &Metrics,
    watch: &FlushWatch,
) {
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

fn in_background(work: Background, committer: &Inbox<Work>) {
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
