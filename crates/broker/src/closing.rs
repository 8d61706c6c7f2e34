//! What spares the next start work: snapshots of producer sessions while a partition runs, and the orderly end
//! of all logs of a lane.
//!
//! Invariants: a snapshot describes exactly the records of its log, so it is taken when nothing is staged; a
//! start after a kill reads the batches of at most [`SNAPSHOT_BYTES`] (or sixteen times the snapshot, if that
//! is more) for each partition; a snapshot that cannot be written costs the next start time and nothing else.

use varve_partition::{Core, ProducerTable};
use varve_storage::{Log, LogError};
use varve_types::Offset;
use varve_vfs::Workers;

/// Bytes of batches after which sessions are saved, at least.
const SNAPSHOT_BYTES: u64 = 4 << 20;
/// A large snapshot is written after as many times its own size, so that it stays a small share of all writes.
const TIMES_ITS_SIZE: u64 = 16;
/// Threads that close logs at shutdown: they wait for the disk, which syncs many files at once as fast as one.
const CLOSE_THREADS: usize = 16;

/// Bytes appended since the sessions were last saved, and the number at which they are due.
#[derive(Debug)]
pub(crate) struct Unsaved {
    bytes: u64,
    due: u64,
}

impl Unsaved {
    /// For a log that was just opened, with the bytes that its opening had to read.
    pub(crate) const fn new() -> Self {
        Self {
            bytes: 0,
            due: SNAPSHOT_BYTES,
        }
    }

    /// Counts an append.
    pub(crate) const fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Saves the sessions if they are due. `producers` describes the log up to its end.
    pub(crate) fn save_if_due(&mut self, log: &mut Log, producers: &ProducerTable) {
        if self.bytes < self.due {
            return;
        }
        self.bytes = 0;
        match save(log, producers) {
            Ok(size) => self.due = SNAPSHOT_BYTES.max(size * TIMES_ITS_SIZE),
            Err(error) => {
                tracing::warn!(
                    dir = %log.dir().display(), %error,
                    "could not save producer sessions"
                );
            }
        }
    }
}

/// Saves the sessions, even if there are none: that too spares reading the log. Returns the size.
fn save(log: &mut Log, producers: &ProducerTable) -> Result<u64, LogError> {
    let bytes = producers.encode();
    log.write_snapshot(log.log_end(), &bytes)?;
    Ok(bytes.len() as u64)
}

/// One log to close.
pub(crate) struct Closing<T> {
    /// Given back with the result.
    pub(crate) owner: T,
    pub(crate) core: Core,
    pub(crate) log: Log,
    /// There are records that no snapshot covers.
    pub(crate) unsaved: Unsaved,
    /// It is offline, so it cannot be closed in good order.
    pub(crate) offline: bool,
}

/// What became of it: the end of the log, and why it was not closed in good order.
pub(crate) struct Closed<T> {
    pub(crate) owner: T,
    pub(crate) core: Core,
    pub(crate) end: Offset,
    pub(crate) result: Result<(), String>,
}

impl<T> Closing<T> {
    fn run(self) -> Closed<T> {
        let Self {
            owner,
            core,
            mut log,
            unsaved,
            offline,
        } = self;
        let end = log.log_end();
        let close = || {
            if unsaved.bytes > 0 {
                save(&mut log, core.producers())?;
            }
            log.close(true)
        };
        let result = if offline {
            Err("the partition is offline".to_owned())
        } else {
            close().map_err(|e| e.to_string())
        };
        Closed {
            owner,
            core,
            end,
            result,
        }
    }
}

/// Closes many logs at once.
pub(crate) fn close_all<T: Send>(mut logs: Vec<Closing<T>>, workers: &Workers) -> Vec<Closed<T>> {
    if workers.at_once(CLOSE_THREADS) == 1 {
        return logs.into_iter().map(Closing::run).collect();
    }
    let share = logs.len().div_ceil(CLOSE_THREADS).max(1);
    let mut shares = Vec::new();
    while !logs.is_empty() {
        shares.push(logs.split_off(logs.len().saturating_sub(share)));
    }
    std::thread::scope(|scope| {
        let work = |share: Vec<Closing<T>>| {
            scope.spawn(move || share.into_iter().map(Closing::run).collect::<Vec<_>>())
        };
        let threads: Vec<_> = shares.into_iter().map(work).collect();
        let mut closed = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(some) => closed.extend(some),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        closed
    })
}
