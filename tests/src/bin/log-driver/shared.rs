//! The journal that all logs of a run share (`--journal`), used as the server uses it, but on one thread: small
//! flushes of several logs are one group, large ones go to their files, files behind the journal are synced when
//! it asks for that.

use std::collections::BTreeMap;
use std::sync::Arc;

use varve_storage::journal::{JournalError, Replay, Written};
use varve_storage::{FlushDone, FlushTarget, Journal, JournalConfig, JournalEntry, LogIdentity};
use varve_vfs::{Vfs, VfsError};

use crate::Options;

/// Identity of the directory.
const OWNER: u128 = 0x10_d21e5;
/// Files of the journal at most: few, so that they are used again and again.
const FILES: usize = 4;
/// Least bytes of a file.
const FILE_BYTES: u64 = 64 << 10;

/// A journal at work.
#[derive(Debug)]
pub struct Shared {
    journal: Journal,
    /// Logs whose files were synced for an answer, to be told to the journal with its next group.
    follows: BTreeMap<LogIdentity, FlushDone>,
    /// A flush of so many bytes goes to the file.
    large: u64,
}

impl Shared {
    /// Opens the journal and says what is in it. Not to be used before [`Shared::begin`].
    pub fn open(vfs: &Arc<dyn Vfs>, options: &Options) -> Result<(Self, Replay), JournalError> {
        let config = JournalConfig {
            file_bytes: FILE_BYTES.max((options.batch_bytes * 8).next_multiple_of(4096)),
            files: FILES,
        };
        let dir = options.dir.join("journal");
        let (journal, replay) = Journal::open(Arc::clone(vfs), &dir, OWNER, config, false)?;
        let shared = Self {
            journal,
            follows: BTreeMap::new(),
            large: options.batch_bytes * 3,
        };
        Ok((shared, replay))
    }

    /// Every log is open: what the last run left is void.
    pub fn begin(&mut self) -> Result<(), VfsError> {
        self.journal.begin(&[])
    }

    /// Whether a flush of this many bytes goes to the file alone.
    pub const fn is_large(&self, bytes: u64) -> bool {
        bytes >= self.large
    }

    fn check(&self) -> Result<(), VfsError> {
        if self.journal.failed() {
            let why = std::io::Error::other("the journal has failed before");
            return Err(VfsError::new("write", std::path::Path::new("journal"), why));
        }
        Ok(())
    }

    /// Writes one group.
    pub fn write(&mut self, entries: &[JournalEntry]) -> Result<Written, VfsError> {
        self.check()?;
        if let Some(spec) = self.journal.file_wanted() {
            match spec.make() {
                Ok(file) => self.journal.add(file),
                Err(error) => {
                    eprintln!("no further journal file: {error}");
                    self.journal.not_made();
                }
            }
        }
        let follows: Vec<FlushDone> = std::mem::take(&mut self.follows).into_values().collect();
        self.journal.write_following(entries, &follows)
    }

    /// Before files are synced for an answer.
    pub fn leave(&mut self, target: &FlushTarget) -> Result<(), VfsError> {
        self.check()?;
        if self.journal.must_leave(target) {
            self.journal.leave(&[target.identity()])?;
        }
        self.follows.remove(&target.identity());
        Ok(())
    }

    /// Files were synced; `answer`: an acknowledgement follows.
    pub fn synced(&mut self, done: &FlushDone, answer: bool) {
        self.journal.synced(done);
        if answer {
            self.follows.insert(done.identity(), done.clone());
        }
    }

    /// Makes what there is of a log void. `false` when there was no room for that.
    pub fn void(&mut self, log: LogIdentity) -> Result<bool, VfsError> {
        self.check()?;
        self.follows.remove(&log);
        Ok(self.journal.void(log)? == Written::Synced)
    }

    /// Logs whose files should be synced, so that there is room.
    pub fn due(&self) -> Vec<LogIdentity> {
        self.journal.due()
    }
}
