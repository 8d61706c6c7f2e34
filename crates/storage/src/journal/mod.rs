//! The journal of a disk: one append and one sync make appends of many logs durable at once. Batches are
//! written to their segment files as always, unsynced, and a second time here; an acknowledgement waits for
//! this copy only. The segment files are synced later, log by log, and the journal file is used again.
//!
//! Invariants: a group is written only after the one before was synced, so a good group proves that all
//! before it were whole; a group is dropped only when every log in it has synced its segment file past it;
//! a journal holds at most `files * file_bytes` bytes, which bounds what a start has to read; after a failed
//! write or sync nothing is written again.
//!
//! It never starts a thread, never reads for readers, never waits for a segment file: when there is no room
//! it says so ([`Written::Full`]) and the caller syncs the segment files themselves.

mod keep;
mod replay;

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_record::Sequenced;
use varve_types::Offset;
use varve_vfs::{File, Vfs, VfsError, durable};

pub use replay::{JournalError, LogReplay, Replay, Replayed};

use crate::flush::{FlushDone, FlushTarget, Reach};
use crate::format::{
    Group, GroupPlace, JournalFileHeader, LogIdentity, PAGE_BYTES, ROW_BYTES, Row, RowKind,
};
use crate::planted::{self, Plant};

/// Suffix of a journal file.
const SUFFIX: &str = ".journal";
/// Zeros that are written at once when a file is made.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// Bytes that ordinary groups leave free in a file: a page for the group that ends a run of records, one for the
/// group that makes another file void before it is written over.
const SPARE_BYTES: u64 = 2 * PAGE_BYTES;
/// Records of one group at most: bounds what a start holds in memory of one group's table.
pub const GROUP_MAX_ROWS: usize = 16 * 1024;

/// Sizes of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalConfig {
    /// Bytes of one file; a multiple of 4,096, at least 16,384.
    pub file_bytes: u64,
    /// Files at most, at least 2. Made one by one, when they are needed.
    pub files: usize,
}

/// Batches of one log that wait to be durable. Made by [`crate::Log::journal_entry`].
#[derive(Debug)]
pub struct JournalEntry {
    pub(crate) row: Row,
    pub(crate) batches: Vec<Sequenced>,
    pub(crate) done: FlushDone,
}

impl JournalEntry {
    /// The log.
    #[must_use]
    pub const fn identity(&self) -> LogIdentity {
        self.row.identity
    }

    /// Bytes of the batches.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.row.bytes as u64
    }

    /// The offset (exclusive) that will be durable.
    #[must_use]
    pub const fn upto(&self) -> Offset {
        self.done.upto
    }

    /// What to tell the log once the entry is written ([`crate::Log::flush_done`]).
    #[must_use]
    pub const fn done(&self) -> &FlushDone {
        &self.done
    }
}

/// What became of a write that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "only `Synced` makes the entries durable"]
pub enum Written {
    /// The entries are durable.
    Synced,
    /// There is no room now, and nothing was written: sync the segment files instead.
    Full,
}

/// How far the file of a segment is needed by the journal: `(segment id, end position)`.
type Need = (u64, u64);

#[derive(Debug)]
struct JournalFile {
    number: u32,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Its length, as its header says.
    bytes: u64,
    /// The newest group in it, but for those of a file in use that were written since; 0 for none.
    newest: u64,
}

/// A file with groups that are still needed.
#[derive(Debug)]
struct InUse {
    file: JournalFile,
    /// Number of its first group.
    first_group: u64,
    /// Logs whose segment files are not known to be synced past what is here.
    needs: BTreeMap<LogIdentity, Need>,
}

/// A journal file that was made and can be added. Making it takes a while: it is written whole.
#[derive(Debug)]
pub struct NewFile(JournalFile);

/// What it takes to make another file, away from the thread that writes.
#[derive(Debug, Clone)]
pub struct NewFileSpec {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    header: JournalFileHeader,
}

impl NewFileSpec {
    /// Makes the file: written whole and synced, under its name, durable. Blocks.
    ///
    /// # Errors
    /// What the disk says; a half-made file is removed.
    pub fn make(&self) -> Result<NewFile, VfsError> {
        let path = file_path(&self.dir, self.header.file);
        let temp = path.with_extension("tmp");
        let made = self.write(&temp, &path);
        if made.is_err() {
            let _ = self.vfs.remove_file(&temp);
        }
        made
    }

    fn write(&self, temp: &Path, path: &Path) -> Result<NewFile, VfsError> {
        if self.vfs.exists(temp)? {
            self.vfs.remove_file(temp)?;
        }
        let file = self.vfs.create_new(temp)?;
        let head = self.header.encode();
        file.write_all_at(&[IoSlice::new(&head)], 0)?;
        let mut at = head.len() as u64;
        while at < self.header.file_bytes {
            let n = ZEROS.len().min((self.header.file_bytes - at) as usize);
            file.write_all_at(&[IoSlice::new(&ZEROS[..n])], at)?;
            at += n as u64;
        }
        file.sync_all()?;
        self.vfs.rename(temp, path)?;
        self.vfs.sync_dir(&self.dir)?;
        let file = JournalFile {
            number: self.header.file,
            path: path.to_owned(),
            file,
            bytes: self.header.file_bytes,
            newest: 0,
        };
        Ok(NewFile(file))
    }
}

/// A record without batches.
fn sign(kind: RowKind, identity: LogIdentity) -> Row {
    Row {
        kind,
        identity,
        segment_id: 0,
        segment_base: Offset::ZERO,
        position: 0,
        first: Offset::ZERO,
        bytes: 0,
        batches: 0,
        chain: 0,
    }
}

fn follow_row(done: &FlushDone) -> Row {
    Row {
        segment_id: done.segment_id,
        segment_base: done.segment_base,
        position: done.position,
        first: done.upto,
        ..sign(RowKind::Follows, done.identity)
    }
}

fn file_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:04}{SUFFIX}"))
}

/// The journal of one disk. One owner.
#[derive(Debug)]
pub struct Journal {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    owner: u128,
    config: JournalConfig,
    /// Files in use, oldest first; the last one is written to.
    used: VecDeque<InUse>,
    /// Files that can be written over.
    free: Vec<JournalFile>,
    /// Files with groups of the last run that are not void yet.
    old: Vec<JournalFile>,
    /// A file is being made somewhere.
    making: bool,
    files_made: u32,
    next_group: u64,
    /// The lowest group that the newest synced one calls live.
    live_from: u64,
    /// Logs whose acknowledgements follow the journal alone, and the segment for which that holds.
    followers: BTreeMap<LogIdentity, u64>,
    /// Where the next group goes in the last file in use.
    position: u64,
    failed: bool,
}

impl Journal {
    /// Opens the journal in `dir`, which is created if missing, and says what the last run left in it. The
    /// entries must be given to their logs ([`LogReplay::apply`]) and the logs opened; only then
    /// [`Journal::begin`] makes them void. `owner` is the identity of the data directory. `logs_closed`: the
    /// last run closed every log cleanly, so nothing in the journal is needed, and it is not looked at.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] when synced groups are damaged or missing: then nothing was changed.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        owner: u128,
        config: JournalConfig,
        logs_closed: bool,
    ) -> Result<(Self, Replay), JournalError> {
        assert!(
            config.files >= 2
                && config.file_bytes >= 4 * PAGE_BYTES
                && config.file_bytes.is_multiple_of(PAGE_BYTES),
            "sizes of a journal were checked by the configuration"
        );
        durable::create_dir_all(&*vfs, dir)?;
        let found = replay::find_files(&vfs, dir, owner)?;
        let scanned = replay::scan(&found, owner, logs_closed)?;
        let mut journal = Self {
            vfs,
            dir: dir.to_owned(),
            owner,
            config,
            used: VecDeque::new(),
            free: Vec::new(),
            old: Vec::new(),
            making: false,
            files_made: found
                .iter()
                .map(|f| f.header.file.saturating_add(1))
                .max()
                .unwrap_or(0),
            next_group: scanned.newest.saturating_add(1),
            live_from: scanned.live_from,
            followers: BTreeMap::new(),
            position: PAGE_BYTES,
            failed: false,
        };
        for file in found {
            journal.sort_in(file, &scanned);
        }
        Ok((journal, scanned.replay))
    }

    /// A file with live groups must not be written over before they are void.
    fn sort_in(&mut self, found: replay::FoundFile, scanned: &replay::Scanned) {
        let number = found.header.file;
        let fits = found.header.file_bytes == self.config.file_bytes;
        let file = JournalFile {
            number,
            path: found.path,
            file: found.file,
            bytes: found.header.file_bytes,
            newest: scanned.newest_of.get(&number).copied().unwrap_or(0),
        };
        match scanned.tail {
            // Of whatever length: there the groups of the last run are made void.
            Some((tail, position)) if tail == number => {
                self.position = position;
                self.used.push_back(InUse {
                    file,
                    first_group: self.next_group,
                    needs: BTreeMap::new(),
                });
            }
            _ if fits && !scanned.is_live(number) => self.free.push(file),
            _ => self.old.push(file),
        }
    }

    /// Makes what the last run left void, durably. To be called after every log was opened with its replay
    /// and before the first append: from then on older groups are never read again. `logs` are those whose
    /// acknowledgements will follow the journal ([`crate::Log::files_synced`]).
    ///
    /// # Errors
    /// What the disk says.
    pub fn begin(&mut self, logs: &[FlushDone]) -> Result<(), VfsError> {
        if self.next_group > 1 {
            // Behind the last group there is no live one, and a page was kept free for this; another file without
            // live ones does as well.
            let group = self.group(Vec::new());
            if self.write_group(group, &[], 0)? == Written::Full {
                self.remove_files()?;
            }
        }
        for file in std::mem::take(&mut self.old) {
            let there = self.used.len() + self.free.len();
            if there < self.config.files && file.bytes == self.config.file_bytes {
                self.free.push(file);
            } else {
                self.vfs.remove_file(&file.path)?;
            }
        }
        // The group that makes the others void goes last.
        let config = self.config;
        if let Some(other) = self.used.pop_back_if(|f| f.file.bytes != config.file_bytes) {
            self.vfs.sync_dir(&self.dir)?;
            self.vfs.remove_file(&other.file.path)?;
        }
        let most = (self.room(0) as usize / ROW_BYTES).min(GROUP_MAX_ROWS);
        for some in logs.chunks(most) {
            if self.follow(some)? == Written::Full {
                let Some(spec) = self.file_wanted() else {
                    break;
                };
                match spec.make() {
                    Ok(file) => self.add(file),
                    // The files are synced instead, and reads need no space.
                    Err(error) if error.is_no_space() => {
                        self.not_made();
                        break;
                    }
                    Err(error) => return Err(error),
                }
                let _ = self.follow(some)?;
            }
        }
        Ok(())
    }

    /// From here on acknowledgements of these logs follow the journal alone, so that the next start knows
    /// exactly how far they may have come. Their files have just been synced.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub fn follow(&mut self, logs: &[FlushDone]) -> Result<Written, VfsError> {
        assert!(!self.failed, "nothing is written after a failure");
        let group = self.group(logs.iter().map(follow_row).collect());
        let written = self.write_group(group, &[], SPARE_BYTES)?;
        if written == Written::Synced {
            let of = logs.iter().map(|done| (done.identity, done.segment_id));
            self.followers.extend(of);
        }
        Ok(written)
    }

    /// Ends the journal for good: whoever opens its directory next finds nothing. To be called after
    /// [`Journal::begin`].
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove(mut self) -> Result<(), VfsError> {
        self.remove_files()
    }

    /// Removes all files, of which one at most has live groups: it goes last, because a crash in between must
    /// leave a journal that can be read.
    fn remove_files(&mut self) -> Result<(), VfsError> {
        if let Some(last) = self.used.back_mut() {
            last.file.newest = self.next_group - 1;
        }
        let mut all: Vec<JournalFile> = std::mem::take(&mut self.old);
        all.append(&mut self.free);
        all.extend(self.used.drain(..).map(|f| f.file));
        all.sort_by_key(|f| f.newest);
        for file in all {
            self.vfs.remove_file(&file.path)?;
            self.vfs.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Writes the entries as one group and syncs it. Blocks.
    ///
    /// # Errors
    /// What the disk says. Then nothing is known of these entries, and the journal must not be used again.
    ///
    /// # Panics
    /// After a failure, and for entries that no file has room for (see [`Journal::room`]).
    pub fn write(&mut self, entries: &[JournalEntry]) -> Result<Written, VfsError> {
        self.write_following(entries, &[])
    }

    /// As [`Journal::write`], and first says of some logs that they follow (see [`Journal::follow`]).
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub fn write_following(
        &mut self,
        entries: &[JournalEntry],
        follows: &[FlushDone],
    ) -> Result<Written, VfsError> {
        assert!(!self.failed, "nothing is written after a failure");
        let rows = follows.iter().map(follow_row);
        let group = self.group(rows.chain(entries.iter().map(|e| e.row)).collect());
        if group.payload_bytes() > self.room(group.rows.len()) || group.rows.len() > GROUP_MAX_ROWS
        {
            return Ok(Written::Full);
        }
        let batches: Vec<&Sequenced> = entries.iter().flat_map(|e| &e.batches).collect();
        let written = self.write_group(group, &batches, SPARE_BYTES)?;
        if written == Written::Synced {
            let of = follows.iter().map(|done| (done.identity, done.segment_id));
            self.followers.extend(of);
        }
        if written == Written::Synced
            && let Some(file) = self.used.back_mut()
        {
            for row in entries.iter().map(|e| &e.row) {
                self.followers.insert(row.identity, row.segment_id);
                let need = (row.segment_id, row.position + u64::from(row.bytes));
                let known = file.needs.entry(row.identity).or_insert(need);
                *known = need.max(*known);
            }
        }
        Ok(written)
    }

    /// Makes all entries of a log void, durably: what they hold must have been synced in its segment file.
    /// To be called before the log is truncated, lest a replay brings back what was cut.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub fn void(&mut self, identity: LogIdentity) -> Result<Written, VfsError> {
        assert!(!self.failed, "nothing is written after a failure");
        let group = self.group(vec![sign(RowKind::Void, identity)]);
        let written = self.write_group(group, &[], SPARE_BYTES)?;
        if written == Written::Synced {
            self.followers.remove(&identity);
            self.forget(identity);
        }
        Ok(written)
    }

    /// Whether acknowledgements of this log follow the journal alone so far, so that [`Journal::leave`] must
    /// have succeeded before one may follow from this flush of its files.
    #[must_use]
    pub fn must_leave(&self, target: &FlushTarget) -> bool {
        // A segment that the journal has no record of is not one it speaks about.
        target.done.reach == Reach::Files
            && self.followers.get(&target.identity()) == Some(&target.done.segment_id)
    }

    /// From here on acknowledgements of these logs may follow flushes of their files too, until the next
    /// record of a log. Durable on return; those that do not follow the journal are passed over.
    ///
    /// # Errors
    /// As [`Journal::write`].
    pub fn leave(&mut self, logs: &[LogIdentity]) -> Result<(), VfsError> {
        assert!(!self.failed, "nothing is written after a failure");
        let follow = |log: &&LogIdentity| self.followers.contains_key(log);
        let leaving: Vec<LogIdentity> = logs.iter().filter(follow).copied().collect();
        if leaving.is_empty() {
            return Ok(());
        }
        let rows = leaving.iter().map(|log| sign(RowKind::Leaves, *log));
        let group = self.group(rows.collect());
        if self.write_group(group, &[], SPARE_BYTES)? == Written::Synced {
            self.followers.retain(|log, _| !leaving.contains(log));
            return Ok(());
        }
        // A group without records says it of all logs. Each record left a page for this.
        let group = self.group(Vec::new());
        let written = self.write_group(group, &[], PAGE_BYTES)?;
        assert_eq!(written, Written::Synced, "a page is kept free");
        self.followers.clear();
        Ok(())
    }

    /// Bytes of batches that fit into one group with `rows` records.
    #[must_use]
    pub const fn room(&self, rows: usize) -> u64 {
        let head = (crate::format::GROUP_HEADER_BYTES + rows * crate::format::ROW_BYTES) as u64;
        // The header's page is not for groups either.
        (self.config.file_bytes - PAGE_BYTES - SPARE_BYTES).saturating_sub(head)
    }

    fn group(&self, rows: Vec<Row>) -> Group {
        let live_from = self.used.front().map_or(self.next_group, |f| f.first_group);
        Group {
            number: self.next_group,
            live_from,
            rows,
        }
    }

    /// Leaves at least `spare` bytes in the file.
    fn write_group(
        &mut self,
        mut group: Group,
        batches: &[&Sequenced],
        spare: u64,
    ) -> Result<Written, VfsError> {
        let end = self.position + group.size() + spare;
        if self.used.back().is_none_or(|last| end > last.file.bytes) {
            let Some(file) = self.next_file(&group)? else {
                return Ok(Written::Full);
            };
            if let Some(last) = self.used.back_mut() {
                last.file.newest = self.next_group - 1;
            }
            self.used.push_back(InUse {
                file,
                first_group: self.next_group,
                needs: BTreeMap::new(),
            });
            self.position = PAGE_BYTES;
            group.number = self.next_group;
            group.live_from = self.used.front().map_or(self.next_group, |f| f.first_group);
        }
        self.write_here(&group, batches)?;
        Ok(Written::Synced)
    }

    /// A file to go on in. Its groups are not needed any more; before they are written over, a synced group has
    /// to say so, lest a torn write looks like damage of groups that are needed.
    fn next_file(&mut self, group: &Group) -> Result<Option<JournalFile>, VfsError> {
        self.drop_done();
        let live_from = self.live_from;
        let is_void = |file: &JournalFile| file.newest == 0 || file.newest < live_from;
        if let Some(at) = self.free.iter().rposition(is_void) {
            return Ok(Some(self.free.remove(at)));
        }
        if self.free.is_empty() {
            return Ok(None);
        }
        // What this group says of a log holds until the log's next record, which comes with `group`.
        let leaves = |row: &Row| sign(RowKind::Leaves, row.identity);
        let sign = self.group(group.rows.iter().take(1).map(leaves).collect());
        let end = self.position + sign.size();
        let fits = self.used.back().is_some_and(|last| end <= last.file.bytes);
        assert!(fits, "a page is kept free");
        self.write_here(&sign, &[])?;
        Ok(self.free.pop())
    }

    fn write_here(&mut self, group: &Group, batches: &[&Sequenced]) -> Result<(), VfsError> {
        let size = group.size();
        let Some(target) = self.used.back() else {
            unreachable!("there is a file in use")
        };
        let place = GroupPlace {
            owner: self.owner,
            file: target.file.number,
            position: self.position,
        };
        let head = group.encode(place);
        let padding = (size - group.head_bytes() - group.payload_bytes()) as usize;
        let mut slices = Vec::with_capacity(2 + batches.len() * 2);
        slices.push(IoSlice::new(&head));
        slices.extend(batches.iter().flat_map(|b| b.slices()).map(IoSlice::new));
        slices.push(IoSlice::new(&ZEROS[..padding]));
        let file = &target.file.file;
        let wrote = file.write_all_at(&slices, self.position);
        let sync = || match planted::is(Plant::JournalBeforeSync) {
            true => Ok(()),
            false => file.sync_data(),
        };
        if let Err(error) = wrote.and_then(|()| sync()) {
            self.failed = true;
            return Err(error);
        }
        self.live_from = group.live_from;
        self.next_group += 1;
        self.position += size;
        Ok(())
    }

    /// Files whose logs have all been synced can be written over. The last one is still written to.
    fn drop_done(&mut self) {
        let done = |file: &InUse| file.needs.is_empty() || planted::is(Plant::ReuseJournalTooEarly);
        while self.used.len() > 1 && self.used.front().is_some_and(done) {
            if let Some(done) = self.used.pop_front() {
                self.free.push(done.file);
            }
        }
    }

    /// The segment files of a log are synced up to `position` of segment `segment_id`, and those before it
    /// are synced whole.
    pub fn synced(&mut self, done: &FlushDone) {
        if done.reach != Reach::Journal {
            self.release(done.identity, (done.segment_id, done.position));
        }
    }

    /// Nothing of this log is needed any more: it is deleted.
    pub fn forget(&mut self, identity: LogIdentity) {
        self.followers.remove(&identity);
        self.release(identity, (u64::MAX, u64::MAX));
    }

    fn release(&mut self, identity: LogIdentity, upto: Need) {
        for file in &mut self.used {
            if file.needs.get(&identity).is_some_and(|need| *need <= upto) {
                file.needs.remove(&identity);
            }
        }
        self.drop_done();
    }

    /// Logs whose segment files should be synced now, so that there is room again later: those of the oldest
    /// file, once half of the files are in use.
    #[must_use]
    pub fn due(&self) -> Vec<LogIdentity> {
        let full = self.used.len() * 2 > self.config.files.max(2);
        match self.used.front() {
            Some(oldest) if full && self.used.len() > 1 => oldest.needs.keys().copied().collect(),
            _ => Vec::new(),
        }
    }

    /// What it takes to make another file, if one is wanted now: none is free and there may be more. The
    /// caller makes it and gives it to [`Journal::add`], or says [`Journal::not_made`].
    pub fn file_wanted(&mut self) -> Option<NewFileSpec> {
        let there = self.used.len() + self.free.len();
        // A file may claim the last number there is: then no other gets one, and none gets its.
        let numbered = self.files_made < u32::MAX;
        let room = there < self.config.files && numbered;
        if self.failed || self.making || !self.free.is_empty() || !room {
            return None;
        }
        self.making = true;
        let header = JournalFileHeader {
            owner: self.owner,
            file: self.files_made,
            file_bytes: self.config.file_bytes,
        };
        Some(NewFileSpec {
            vfs: self.vfs.clone(),
            dir: self.dir.clone(),
            header,
        })
    }

    /// Takes over a file that was made.
    pub fn add(&mut self, file: NewFile) {
        self.making = false;
        self.files_made = self.files_made.max(file.0.number.saturating_add(1));
        self.free.push(file.0);
    }

    /// A file could not be made; it may be wanted again.
    pub fn not_made(&mut self) {
        self.making = false;
    }

    /// Whether a write or sync has failed: nothing is acknowledged through this journal any more.
    #[must_use]
    pub const fn failed(&self) -> bool {
        self.failed
    }

    /// Files in use and files in all.
    #[must_use]
    pub fn files(&self) -> (usize, usize) {
        (self.used.len(), self.used.len() + self.free.len())
    }

    /// Bytes of the files in use, at most: what a start would have to read.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        let full = self.used.len().saturating_sub(1) as u64 * self.config.file_bytes;
        full + if self.used.is_empty() {
            0
        } else {
            self.position
        }
    }
}
