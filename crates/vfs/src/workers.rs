//! Who runs what blocks. A server has threads for it; a simulation of whole servers, which has one thread and a
//! clock of its own, runs the same loops as tasks of its runtime, one piece of work at a time.
//!
//! This is only the choice: those that have loops act on it. It starts nothing itself.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// How long work waits before it begins, in simulated time: a disk that is slow, or stands still.
pub trait Pace: Send + Sync + Debug {
    /// Time from when `worker` has work until it begins with it.
    fn before(&self, worker: &str) -> Duration;
}

/// Who runs what blocks.
#[derive(Debug, Clone, Default)]
pub enum Workers {
    /// Threads of their own.
    #[default]
    Threads,
    /// Tasks of the runtime that starts them, which must have one thread only. A piece of work blocks that
    /// thread until it is done, so the files must be in memory. There is no compaction and no scrub.
    Tasks(Arc<dyn Pace>),
}

impl Workers {
    /// Whether they are tasks.
    #[must_use]
    pub const fn are_tasks(&self) -> bool {
        matches!(self, Self::Tasks(_))
    }

    /// How many threads may share one piece of work that is waited for: `threads`, or one, which is then the
    /// caller's own.
    #[must_use]
    pub const fn at_once(&self, threads: usize) -> usize {
        if self.are_tasks() { 1 } else { threads }
    }
}
