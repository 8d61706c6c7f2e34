//! The raft store on disk, synchronous: entries in a `varve_storage::Log`, one record each at the offset of
//! its index, one batch for what is synced together; and the small files beside it.
//!
//! Invariants: whatever a call returned `Ok` for is on stable storage, except the committed index, which
//! follows at the next sync; calls take effect in their order; there is no hole; what was cut never comes
//! back; after a failure every call fails, but for one: a call that found no space may be made again. It never
//! skips an entry that it cannot read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_record::{BatchBuilder, Compression, iter_batches};
use varve_storage::{Log, LogConfig, LogIdentity, OpenMode, ReadMode, ReadOutcome};
use varve_types::{LeaderEpoch, Offset, PartitionId, TopicId};
use varve_vfs::{Vfs, durable};

use crate::codec::CodecError;
use crate::entry;
use crate::error::StoreError;
use crate::files::{
    Committed, Identity, decode_identity, decode_kept, decode_purged, decode_vote, encode_identity,
    encode_kept, encode_purged, encode_vote, load,
};
use crate::types::{Entry, LogId, RaftId, Vote};

/// Most bytes of entries in one batch.
const GROUP_MAX_BYTES: usize = 4 * 1024 * 1024;
/// More than what a record needs beside its value.
const RECORD_OVERHEAD_BYTES: usize = 32;
const READ_BYTES: usize = 1024 * 1024;
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

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
    /// The last group is in the log and not synced: there was no space for what goes with it.
    unflushed: bool,
    failed: Option<Arc<str>>,
}

/// An entry ready to be written.
#[derive(Debug)]
pub struct Prepared {
    index: u64,
    bytes: Vec<u8>,
}

/// Makes an entry ready, on the caller's thread.
#[must_use]
pub fn prepare(entry: &Entry) -> Prepared {
    Prepared {
        index: entry.log_id.index,
        bytes: entry::encode(entry),
    }
}

/// The longest run of entries from the front that goes into one batch.
fn fitting(entries: &[Prepared]) -> usize {
    let mut bytes = 0;
    for (count, entry) in entries.iter().enumerate() {
        bytes += entry.bytes.len() + RECORD_OVERHEAD_BYTES;
        if count > 0 && bytes > GROUP_MAX_BYTES {
            return count;
        }
    }
    entries.len()
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
        Self::open_with(vfs, dir, owner, SEGMENT_BYTES)
    }

    /// As [`Disk::open`], with segments of another size, for tests.
    ///
    /// # Errors
    /// As [`Disk::open`].
    pub fn open_with(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        owner: RaftId,
        segment_bytes: u64,
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
        let (log, recovery) = Log::open(
            vfs.clone(),
            &log_dir,
            of,
            log_config(segment_bytes),
            mode,
            0,
        )?;
        if recovery.bytes_cut > 0 {
            tracing::info!(
                bytes = recovery.bytes_cut,
                "truncated a torn write at the end of the metadata log"
            );
        }
        let mut disk = Self {
            vfs,
            dir: dir.to_owned(),
            owner,
            log,
            committed,
            unflushed: false,
            failed: None,
        };
        disk.finish_purge(purged.as_ref())?;
        disk.finish_cut()?;
        let entries = disk.read_all(purged.as_ref())?;
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
                "the log starts at entry {start}, but only entries up to {next} were purged"
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

    /// Entries from one offset up to another.
    fn read_entries(&self, from: Offset, end: Offset) -> Result<Vec<Entry>, StoreError> {
        let dir = self.log.dir().to_owned();
        let damaged = |why: String| StoreError::damage(&dir, why);
        let view = self.log.view();
        let (mut next, mut entries) = (from, Vec::new());
        while next < end {
            let read = view
                .read(
                    next,
                    READ_BYTES,
                    self.log.log_end(),
                    true,
                    ReadMode::Blocking,
                    None,
                )
                .map_err(|e| damaged(e.to_string()))?;
            let ReadOutcome::Slice(slice) = read else {
                return Err(damaged(format!("nothing can be read at entry {next}")));
            };
            for batch in iter_batches(slice.bytes) {
                let batch = batch.map_err(|e| damaged(e.to_string()))?;
                let mut at = batch.header.base_offset;
                for record in batch.records().map_err(|e| damaged(e.to_string()))? {
                    let record = record.map_err(|e| damaged(e.to_string()))?;
                    // A group may reach over both ends of what is wanted.
                    if at == next && at < end {
                        let value = record.value.unwrap_or_default();
                        let entry = entry::decode(&value)
                            .map_err(|e: CodecError| damaged(format!("entry {at}: {e}")))?;
                        if offset_of(entry.log_id.index) != Some(at) {
                            return Err(damaged(format!(
                                "the entry at {at} is entry {}",
                                entry.log_id
                            )));
                        }
                        entries.push(entry);
                        next = next.plus(1);
                    }
                    at = at.plus(1);
                }
            }
        }
        Ok(entries)
    }

    /// Every entry; terms never go back.
    fn read_all(&self, purged: Option<&LogId>) -> Result<Vec<Entry>, StoreError> {
        let entries = self.read_entries(self.log.log_start(), self.log.log_end())?;
        let mut last = purged.map_or(0, |id| id.leader_id.term);
        for entry in &entries {
            let id = entry.log_id;
            if id.leader_id.term < last {
                return Err(StoreError::damage(
                    self.log.dir(),
                    format!("entry {id} comes after term {last}"),
                ));
            }
            last = id.leader_id.term;
        }
        Ok(entries)
    }

    /// What the files say together.
    fn check(&self, mut loaded: Loaded) -> Result<Loaded, StoreError> {
        let term = loaded.last().map_or(0, |id| id.leader_id.term);
        let voted = loaded.vote.map_or(0, |v| v.leader_id.term);
        if term > voted {
            let why = format!(
                "the log has entries of term {term}, but the newest vote is of term {voted}"
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
        if let Err(error) = &done
            && !error.is_no_space()
        {
            self.failed = Some(error.to_string().into());
        }
        done
    }

    /// Appends entries that continue the log. What is durable is taken off their front.
    ///
    /// # Errors
    /// What failed. Every later call fails then, unless it was [`StoreError::is_no_space`]: the call may be made
    /// again with what is left, and must be before any other change.
    pub fn append(&mut self, rest: &mut &[Prepared]) -> Result<(), StoreError> {
        self.run(|disk| {
            while !rest.is_empty() {
                let (group, after) = rest.split_at(fitting(rest));
                disk.append_group(group)?;
                *rest = after;
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
            // There may be half a cut from a call that found no space.
            disk.finish_cut()?;
            let next = disk.next_after(last)?;
            if next >= disk.log.log_end() {
                return Ok(());
            }
            let from = disk.group_at(next)?;
            if from < next {
                let kept: Vec<Entry> = disk.read_entries(from, next)?;
                let kept: Vec<Vec<u8>> = kept.iter().map(entry::encode).collect();
                let first = u64::try_from(from.get()).unwrap_or_default();
                let bytes = encode_kept(disk.owner, first, &kept);
                durable::replace(&*disk.vfs, &disk.dir.join("kept"), &bytes)?;
                return disk.cut_within(from, kept);
            }
            remove(disk.log.truncate_to(next)?);
            Ok(())
        })
    }

    /// Where the group begins that an entry is in, or the log.
    fn group_at(&self, at: Offset) -> Result<Offset, StoreError> {
        let found = self.log.view().headers(at).next();
        let header = found
            .transpose()
            .map_err(|e| StoreError::damage(self.log.dir(), e.to_string()))?;
        let base = header.map_or(at, |header| header.base_offset);
        Ok(base.max(self.log.log_start()))
    }

    /// The second half of a cut within a group, whose entries to keep are in the file `kept`: the group goes,
    /// and they are written again. Done again by the next start if it is not finished here.
    fn cut_within(&mut self, from: Offset, kept: Vec<Vec<u8>>) -> Result<(), StoreError> {
        if self.log.log_end() > from {
            remove(self.log.truncate_to(from)?);
            self.unflushed = false;
        }
        let first = u64::try_from(from.get()).unwrap_or_default();
        let kept: Vec<Prepared> = kept
            .into_iter()
            .zip(first..)
            .map(|(bytes, index)| Prepared { index, bytes })
            .collect();
        self.append_group(&kept)?;
        self.vfs.remove_file(&self.dir.join("kept"))?;
        Ok(self.vfs.sync_dir(&self.dir)?)
    }

    fn finish_cut(&mut self) -> Result<(), StoreError> {
        let (path, owner) = (self.dir.join("kept"), self.owner);
        let found = load(&*self.vfs, &path, |b| decode_kept(owner, b))?;
        let Some((first, kept)) = found else {
            return Ok(());
        };
        let from = offset_of(first)
            .filter(|from| (self.log.log_start()..=self.log.log_end()).contains(from));
        match from {
            Some(from) => self.cut_within(from, kept),
            None => Err(StoreError::damage(
                &path,
                format!("the log does not reach entry {first}"),
            )),
        }
    }

    /// One batch, one fsync: a torn write then has nothing whole behind it, so recovery can tell it from damage.
    fn append_group(&mut self, entries: &[Prepared]) -> Result<(), StoreError> {
        let Some(first) = entries.first() else {
            return Ok(());
        };
        if self.unflushed {
            self.log.flush_now()?;
            self.unflushed = false;
            return Ok(());
        }
        let damage = |why: String| StoreError::damage(&self.dir, why);
        let end = self.log.log_end();
        if offset_of(first.index) != Some(end) {
            let why = format!(
                "entry {} does not continue the log, which ends at {end}",
                first.index
            );
            return Err(damage(why));
        }
        let mut builder = BatchBuilder::new(Compression::None, None);
        for entry in entries {
            let added = builder.append(0, None, Some(&entry.bytes), &[]);
            added.map_err(|e| damage(format!("entry {}: {e}", entry.index)))?;
        }
        let batch = builder.build_batch().map_err(|e| damage(e.to_string()))?;
        // The term is in the entry: the log's own epochs stay unused, so that terms keep their 64 bits.
        self.log
            .append(&[batch.sequence(end, LeaderEpoch::ZERO)], 0)?;
        self.unflushed = true;
        self.log.flush_now()?;
        self.unflushed = false;
        Ok(())
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

fn log_config(segment_bytes: u64) -> LogConfig {
    LogConfig {
        segment_bytes,
        segment_ms: i64::MAX,
        retention_bytes: None,
        retention_ms: None,
        ..LogConfig::default()
    }
}

/// A file that could not be unlinked is swept by the next start.
fn remove(removal: varve_storage::Removal) {
    if let Err(error) = removal.run() {
        tracing::warn!(%error, "could not remove files of purged metadata log entries yet");
    }
}
