//! The workloads whose histories are cut off everywhere. One more is one small file that implements
//! [`Workload`] and a line in [`all`].
//!
//! A workload is a script: it calls the driver, which keeps the books and checks them, and it does the same
//! each time it runs, because histories are replayed.

mod append;
mod close;
mod compaction;
mod epochs;
mod group_commit;
mod index_lag;
mod journal;
mod metadata;
mod recovery;
mod reset;
mod retention;
mod roll;
mod snapshot;
mod trim;
mod truncate;

use varve_storage::LogConfig;

use super::driver::{Driver, Violation};
use super::world::Setup;

/// A script of operations on the logs of a disk.
pub trait Workload: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Sizes of the log.
    fn config(&self) -> LogConfig;

    /// All that it runs on: one log, unless it says otherwise.
    fn setup(&self) -> Setup {
        Setup::one(self.config())
    }

    /// Runs it from an empty disk. It opens the log itself.
    ///
    /// # Errors
    /// What the driver says: something happened that must not.
    fn run(&self, d: &mut Driver) -> Result<(), Violation>;
}

/// What most of them use: small segments and an index entry for every few hundred bytes.
pub(crate) fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 4000,
        segment_ms: i64::MAX,
        index_interval_bytes: 256,
        retention_bytes: None,
        retention_ms: None,
    }
}

/// All workloads, in the order of the table.
#[must_use]
pub fn all() -> Vec<Box<dyn Workload>> {
    vec![
        Box::new(append::Append),
        Box::new(group_commit::GroupCommit),
        Box::new(roll::Roll),
        Box::new(truncate::Truncate),
        Box::new(epochs::Epochs),
        Box::new(snapshot::Snapshot),
        Box::new(retention::Retention),
        Box::new(trim::Trim),
        Box::new(reset::Reset),
        Box::new(close::Close),
        Box::new(recovery::RecoveryItself),
        Box::new(index_lag::IndexLag),
        Box::new(metadata::Metadata),
        Box::new(journal::FollowingJournal),
        Box::new(journal::JournalAndFiles),
        Box::new(compaction::Compaction),
    ]
}
