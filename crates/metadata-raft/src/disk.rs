//! The raft store on disk, synchronous: entries in a `varve_storage::Log`, one record each at the offset of
//! its index, and the small files beside it.
//!
//! Invariants: whatever a call returned `Ok` for is on stable storage, except the committed index, which
//! follows at the next sync; calls take effect in their order; there is no hole; what was cut never comes
//! back; after a failure every call fails. It never skips an entry that it cannot read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_record::{BatchBuilder, Compression, Sequenced, iter_batches};
use varve_storage::{Log, LogConfig, LogIdentity, OpenMode, ReadMode, ReadOutcome};
use varve_types::{LeaderEpoch, Offset, PartitionId, TopicId};
use varve_vfs::{Vfs, durable};

use crate::codec::CodecError;
use crate::entry;
use crate::error::StoreError;
use crate::files::{
    Committed, Identity, decode_identity, decode_purged, decode_vote, encode_identity,
    encode_purged, encode_vote, load,
};
use crate::types::{Entry, LogId, RaftId, Vote};

const READ_BYTES: usize = 1024 * 1024;

/// What a store holds when it is opened.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Every entry after the purged ones, in order.
    pub entries: Vec<Entry>,
    /// Newest vote.
    pub vote: Option<Vote>,
    /// Last entry that was purged.
    pub purged: Option<LogId>,
    /// Last entry known to be committed.
    pub committed: Option<LogId>,
    /// Whose log this is.
    pub identity: Option<Identity>,
}

impl Loaded {
    /// Nothing was ever promised by this log.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.vote.is_none() && self.purged.is_none()
    }

    /// Last entry, or the last that was purged.
    #[must_use]
    pub fn last(&self) -> Option<LogId> {
        self.entries.last().map(|e| e.log_id).or(self.purged)
    }
}

/// An open store. One owner, which calls from one thread.
#[derive(Debug)]
pub struct Disk {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    owner: RaftId,
    log: Log,
    committed: Committed,
    failed: Option<Arc<str>>,
}

/// An entry ready to be written.
#[derive(Debug)]
pub struct Prepared(Sequenced);

/// Makes an entry ready, on the caller's thread.
///
/// # Errors
/// When it does not fit into a record.
pub fn prepare(entry: &Entry) -> Result<Prepared, StoreError> {
    let fits = |why: String| StoreError::damage(Path::new("an entry of the metadata log"), why);
    let offset =
        offset_of(entry.log_id.index).ok_or_else(|| fits("its index is too large".into()))?;
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder
        .append(0, None, Some(&entry::encode(entry)), &[])
        .map_err(|e| fits(e.to_string()))?;
    let batch = builder.build_batch().map_err(|e| fits(e.to_string()))?;
    // The term is in the entry: the log's own epochs stay unused, so that terms keep their 64 bits.
    Ok(Prepared(batch.sequence(offset, LeaderEpoch::ZERO)))
}

fn offset_of(index: u64) -> Option<Offset> {
    i64::try_from(index).ok().and_then(Offset::new)
}

impl Disk {
    /// Opens, or creates, the store in `dir`.
    ///
    /// # Errors
    /// What cannot be read, or damage that a crash does not explain.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        owner: RaftId,
    ) -> Result<(Self, Loaded), StoreError> {
        durable::create_dir_all(&*vfs, dir)?;
        let vote = load(&*vfs, &dir.join("vote"), |b| decode_vote(owner, b))?;
        let purged = load(&*vfs, &dir.join("purged"), |b| decode_purged(owner, b))?;
        let identity = load(&*vfs, &dir.join("identity"), |b| decode_identity(owner, b))?;
        let committed = Committed::open(&*vfs, dir, owner)?;
        // The names found here may be those of a process that died before it synced them.
        vfs.sync_dir(dir)?;
        let of = LogIdentity {
            topic_id: TopicId(u128::from(owner)),
            partition: PartitionId(0),
        };
        let log_dir = dir.join("log");
        let mode = OpenMode { clean: false };
        let (log, recovery) = Log::open(vfs.clone(), &log_dir, of, log_config(), mode, 0)?;
        if recovery.bytes_cut > 0 {
            tracing::info!(
                bytes = recovery.bytes_cut,
                "cut a torn write off the metadata log"
            );
        }
        let mut disk = Self {
            vfs,
            dir: dir.to_owned(),
            owner,
            log,
            committed,
            failed: None,
        };
        disk.finish_purge(purged.as_ref())?;
        let entries = disk.read_entries(purged.as_ref())?;
        let loaded = Loaded {
            entries,
            vote,
            purged,
            committed: disk.committed.value,
            identity,
        };
        disk.check(loaded).map(|loaded| (disk, loaded))
    }

    /// A purge says what it is about to do before it does it, so a crash leaves work, never a hole.
    fn finish_purge(&mut self, purged: Option<&LogId>) -> Result<(), StoreError> {
        let start = self.log.log_start();
        let next = self.next_after(purged)?;
        if start > next {
            let why = format!(
                "the log begins at entry {start}, and entries up to {next} alone were purged"
            );
            return Err(StoreError::damage(&self.dir.join("purged"), why));
        }
        if start < next {
            self.move_start(next)?;
        }
        Ok(())
    }

    fn next_after(&self, last: Option<&LogId>) -> Result<Offset, StoreError> {
        let next = last.map_or(0, |id| id.index.saturating_add(1));
        offset_of(next).ok_or_else(|| StoreError::damage(&self.dir, "an index is too large"))
    }

    fn move_start(&mut self, next: Offset) -> Result<(), StoreError> {
        let removal = if next <= self.log.log_end() {
            self.log.trim(next)?
        } else {
            self.log.reset_to(next)?
        };
        remove(removal);
        Ok(())
    }

    fn read_entries(&self, purged: Option<&LogId>) -> Result<Vec<Entry>, StoreError> {
        let dir = self.log.dir().to_owned();
        let damaged = |why: String| StoreError::damage(&dir, why);
        let (view, end) = (self.log.view(), self.log.log_end());
        let mut at = self.log.log_start();
        let mut last_term = purged.map_or(0, |id| id.leader_id.term);
        let mut entries = Vec::new();
        while at < end {
            let read = view
                .read(at, READ_BYTES, end, true, ReadMode::Blocking, None)
                .map_err(|e| damaged(e.to_string()))?;
            let ReadOutcome::Slice(slice) = read else {
                return Err(damaged(format!("nothing could be read at entry {at}")));
            };
            for batch in iter_batches(slice.bytes) {
                let batch = batch.map_err(|e| damaged(e.to_string()))?;
                for record in batch.records().map_err(|e| damaged(e.to_string()))? {
                    let record = record.map_err(|e| damaged(e.to_string()))?;
                    let value = record.value.unwrap_or_default();
                    let entry = entry::decode(&value)
                        .map_err(|e: CodecError| damaged(format!("entry {at}: {e}")))?;
                    let id = entry.log_id;
                    if offset_of(id.index) != Some(at) || id.leader_id.term < last_term {
                        return Err(damaged(format!(
                            "at entry {at} is entry {id} after term {last_term}"
                        )));
                    }
                    last_term = id.leader_id.term;
                    entries.push(entry);
                    at = at.plus(1);
                }
            }
        }
        Ok(entries)
    }

    /// What the files say together.
    fn check(&self, mut loaded: Loaded) -> Result<Loaded, StoreError> {
        let term = loaded.last().map_or(0, |id| id.leader_id.term);
        let voted = loaded.vote.map_or(0, |v| v.leader_id.term);
        if term > voted {
            let why = format!(
                "the log has entries of term {term}, and the newest vote is of term {voted}"
            );
            return Err(StoreError::damage(&self.dir.join("vote"), why));
        }
        // A committed index follows its entries to the disk, and an installed snapshot may be ahead of the
        // log. Everything here below such an index is committed.
        if loaded.committed > loaded.last() {
            loaded.committed = loaded.last();
        }
        Ok(loaded)
    }

    fn run<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(cause) = &self.failed {
            return Err(StoreError::Failed {
                dir: self.dir.clone(),
                cause: cause.clone(),
            });
        }
        let done = change(self);
        if let Err(error) = &done {
            self.failed = Some(error.to_string().into());
        }
        done
    }

    /// Appends entries that continue the log.
    ///
    /// # Errors
    /// What failed. Every later call fails then.
    pub fn append(&mut self, entries: Vec<Prepared>) -> Result<(), StoreError> {
        self.run(|disk| {
            let batches: Vec<Sequenced> = entries.into_iter().map(|p| p.0).collect();
            if let Some(first) = batches.first() {
                let (found, end) = (first.header().base_offset, disk.log.log_end());
                if found != end {
                    let why =
                        format!("entry {found} does not continue the log, which ends at {end}");
                    return Err(StoreError::damage(&disk.dir, why));
                }
                disk.log.append(&batches, 0)?;
                disk.log.flush_now()?;
            }
            Ok(())
        })
    }

    /// Replaces the vote.
    ///
    /// # Errors
    /// As [`Disk::append`].
    pub fn save_vote(&mut self, vote: &Vote) -> Result<(), StoreError> {
        self.run(|disk| {
            let bytes = encode_vote(disk.owner, vote);
            Ok(durable::replace(
                &*disk.vfs,
                &disk.dir.join("vote"),
                &bytes,
            )?)
        })
    }

    /// Replaces the identity.
    ///
    /// # Errors
    /// As [`Disk::append`].
    pub fn save_identity(&mut self, identity: &Identity) -> Result<(), StoreError> {
        self.run(|disk| {
            let bytes = encode_identity(disk.owner, identity);
            Ok(durable::replace(
                &*disk.vfs,
                &disk.dir.join("identity"),
                &bytes,
            )?)
        })
    }

    /// Notes what is committed. It outlives this process, and the power after [`Disk::sync_committed`].
    ///
    /// # Errors
    /// As [`Disk::append`].
    pub fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StoreError> {
        self.run(|disk| Ok(disk.committed.write(committed)?))
    }

    /// Makes what is committed outlive the power.
    ///
    /// # Errors
    /// As [`Disk::append`].
    pub fn sync_committed(&mut self) -> Result<(), StoreError> {
        self.run(|disk| Ok(disk.committed.sync()?))
    }

    /// Whether [`Disk::sync_committed`] has something to do.
    #[must_use]
    pub const fn committed_is_unsynced(&self) -> bool {
        self.failed.is_none() && self.committed.is_unsynced()
    }

    /// Cuts every entry after `last`; `None`: all.
    ///
    /// # Errors
    /// As [`Disk::append`].
    pub fn truncate_after(&mut self, last: Option<&LogId>) -> Result<(), StoreError> {
        self.run(|disk| {
            let next = disk.next_after(last)?;
            remove(disk.log.truncate_to(next)?);
            Ok(())
        })
    }

    /// Forgets every entry up to `last` and that one; the log may end before it.
    ///
    /// # Errors
    /// As [`Disk::append`].
    pub fn purge(&mut self, last: &LogId) -> Result<(), StoreError> {
        self.run(|disk| {
            let next = disk.next_after(Some(last))?;
            if next <= disk.log.log_start() {
                return Ok(());
            }
            let bytes = encode_purged(disk.owner, last);
            durable::replace(&*disk.vfs, &disk.dir.join("purged"), &bytes)?;
            disk.move_start(next)
        })
    }

    /// Why every call fails, if it does.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Syncs what waits for it.
    ///
    /// # Errors
    /// As [`Disk::append`].
    pub fn close(mut self) -> Result<(), StoreError> {
        self.sync_committed()
    }
}

fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 8 * 1024 * 1024,
        segment_ms: i64::MAX,
        retention_bytes: None,
        retention_ms: None,
        ..LogConfig::default()
    }
}

/// A file that could not be unlinked is swept by the next start.
fn remove(removal: varve_storage::Removal) {
    if let Err(error) = removal.run() {
        tracing::warn!(%error, "files of purged entries of the metadata log could not be removed yet");
    }
}
