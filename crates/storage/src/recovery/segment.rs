//! Recovery of one segment: reads its index, verifies what the plan asks for, and reports what is there.
//! Nothing is written before the verdict; [`Examined::settle`] then makes the file what was decided.

use std::io::IoSlice;
use std::sync::Arc;

use varve_types::{LeaderEpoch, Offset};
use varve_vfs::{File, Mapped, VfsError, durable};

use super::scan::{Damage, Scanner, batch_behind};
use super::{DamageFact, IndexFact};
use crate::format::{
    Companion, ENTRY_BYTES, HEADER_BYTES, INDEX_MAGIC, TIME_ENTRY_BYTES, TIME_INDEX_MAGIC,
    TimeEntry,
};
use crate::planted::{self, Plant};
use crate::segment::{Home, Kind, Segment, index_bytes, intact_companions, time_index_bytes};
use crate::tail::Tail;

/// Bytes below the checkpoint that are verified on every open.
const VERIFY_BACK_BYTES: u64 = 64 * 1024;
/// Bytes rewritten at once.
const REWRITE_BYTES: usize = 1 << 20;

/// What the index file of a segment says.
#[derive(Debug)]
pub(crate) struct IndexSeen {
    pub(crate) fact: IndexFact,
    /// Entries from the first on that are intact and continuous.
    pub(crate) entries: Vec<Companion>,
    /// Bytes up to here were flushed, as some intact entry proves.
    pub(crate) checkpoint: u64,
    /// The file is exactly a header and `entries`.
    pub(crate) exact: bool,
}

/// Reads all of an index file. `log_len` is the length of the `.log` file, or of the part of it that belongs
/// to the log: entries of a compacted segment past that were cut, and do not count.
pub(crate) fn read_index(segment: &Segment, log_len: u64) -> Result<IndexSeen, VfsError> {
    let bytes = read_or_empty(segment, Kind::Index)?;
    let mut seen = IndexSeen {
        fact: IndexFact::Unusable,
        entries: Vec::new(),
        checkpoint: 0,
        exact: false,
    };
    if !segment.owns(INDEX_MAGIC, &bytes) {
        return Ok(seen);
    }
    let (mut position, mut next) = (0, segment.base);
    for (number, entry) in intact_companions(&bytes, segment.id) {
        if segment.compacted && entry.end > log_len {
            continue;
        }
        seen.checkpoint = seen.checkpoint.max(entry.end);
        let follows = entry.first == next || (segment.compacted && entry.first > next);
        let continues =
            number as usize == seen.entries.len() && entry.position == position && follows;
        if continues {
            (position, next) = (entry.end, entry.next);
            seen.entries.push(entry);
        }
    }
    seen.exact = bytes.len() == HEADER_BYTES + seen.entries.len() * ENTRY_BYTES;
    seen.fact = match () {
        () if seen.checkpoint > log_len => IndexFact::Beyond,
        () if position == log_len => IndexFact::Reaches,
        () => IndexFact::Short,
    };
    Ok(seen)
}

/// Reads only the header and the last entry. `Some` with that entry when they say that the index covers
/// the segment from its start to `log_len` and `next`.
pub(crate) fn last_entry_if_complete(
    segment: &Segment,
    log_len: u64,
    next: Offset,
) -> Result<Option<Companion>, VfsError> {
    let home = &segment.home;
    let file = match home.vfs.open_read(&segment.path(Kind::Index)) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) => return Err(e),
    };
    let len = file.len()? as usize;
    let entries = len.saturating_sub(HEADER_BYTES) / ENTRY_BYTES;
    if entries == 0 || len != HEADER_BYTES + entries * ENTRY_BYTES {
        return Ok(None);
    }
    let (mut header, mut entry) = (Vec::new(), Vec::new());
    file.read_into(0, HEADER_BYTES, &mut header)?;
    file.read_into((len - ENTRY_BYTES) as u64, ENTRY_BYTES, &mut entry)?;
    if !segment.owns(INDEX_MAGIC, &header) {
        return Ok(None);
    }
    let last = Companion::decode(&entry, segment.id, (entries - 1) as u32);
    let ends_at = |e: &Companion| e.next == next || (segment.compacted && e.next < next);
    Ok(last.filter(|e| e.end == log_len && ends_at(e)))
}

fn read_or_empty(segment: &Segment, kind: Kind) -> Result<Mapped, VfsError> {
    match segment.home.vfs.open_read(&segment.path(kind)) {
        Ok(file) => file.map_read(),
        Err(e) if e.is_not_found() => Ok(Mapped::Owned(Vec::new())),
        Err(e) => Err(e),
    }
}

/// A segment after it was looked at.
pub(crate) struct Examined {
    pub(crate) tail: Tail,
    pub(crate) seen: IndexSeen,
    pub(crate) log_len: u64,
    pub(crate) damage: Option<Damage>,
    pub(crate) batches: u64,
    /// Epochs that begin in what was scanned.
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
    /// Entries of the index that the scan has found right.
    kept: Vec<Companion>,
}

/// Verifies a segment from shortly before its checkpoint on, or from its start when `whole`.
pub(crate) fn examine(
    segment: &Arc<Segment>,
    file: Arc<dyn File>,
    log_len: u64,
    seen: IndexSeen,
    whole: bool,
    interval: u64,
) -> Result<Examined, VfsError> {
    let reach = seen.entries.last().map_or(0, |e| e.end);
    let from = reach.saturating_sub(VERIFY_BACK_BYTES);
    let trusted = if whole {
        0
    } else {
        seen.entries.partition_point(|e| e.end <= from)
    };
    let kept = seen.entries[..trusted].to_vec();
    let tail = Tail::after(segment.clone(), file.clone(), &kept);
    let scanner = Scanner::new(file, tail.end, log_len, segment.compacted);
    let mut examined = Examined {
        tail,
        seen,
        log_len,
        damage: None,
        batches: 0,
        epochs: Vec::new(),
        kept,
    };
    examined.scan(scanner, interval)?;
    Ok(examined)
}

impl Examined {
    fn scan(&mut self, mut scanner: Scanner, interval: u64) -> Result<(), VfsError> {
        let mut last_epoch: Option<LeaderEpoch> = None;
        loop {
            // Where the index has a run, the batches must close it exactly as it was closed then.
            let stored = self.seen.entries.get(self.kept.len()).copied();
            let position = scanner.position;
            let header = match scanner.next(self.tail.next)? {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(damage) => {
                    self.damage = Some(damage);
                    break;
                }
            };
            if last_epoch.is_some_and(|last| header.leader_epoch < last) {
                self.damage = Some(Damage {
                    position,
                    expected: format!("leader epoch {} or later", last_epoch.unwrap_or_default()),
                    found: format!("epoch {}", header.leader_epoch),
                });
                break;
            }
            if last_epoch != Some(header.leader_epoch) {
                self.epochs.push((header.leader_epoch, header.base_offset));
                last_epoch = Some(header.leader_epoch);
            }
            self.batches += 1;
            let mark = self.tail.mark();
            let closed = match &stored {
                None => {
                    self.tail.note(&header, interval);
                    continue;
                }
                Some(run) => {
                    self.tail.note(&header, u64::MAX);
                    if self.tail.end < run.end {
                        continue;
                    }
                    self.tail.close_run()
                }
            };
            let stored = stored.unwrap_or_else(|| unreachable!("the run was just looked at"));
            if closed != Some(stored) {
                self.tail.restore(&mark);
                self.damage = Some(Damage {
                    position: stored.position,
                    expected: format!("the batches that the index has for {}", self.tail.next),
                    found: "other batches with valid checksums".into(),
                });
                break;
            }
            self.tail.forget_pending(&stored);
            self.kept.push(stored);
        }
        Ok(())
    }

    pub(crate) fn damage_fact(&self) -> DamageFact {
        match &self.damage {
            None => DamageFact::None,
            Some(d) if d.position < self.seen.checkpoint => DamageFact::BelowCheckpoint,
            Some(_) => DamageFact::AboveCheckpoint,
        }
    }

    /// Whether a good batch lies behind the damage in this file.
    pub(crate) fn batch_behind(&self) -> Result<bool, VfsError> {
        let Some(damage) = &self.damage else {
            return Ok(false);
        };
        let from = damage.position + 1;
        Ok(batch_behind(&self.tail.file, from, self.log_len, self.tail.next)?.is_some())
    }

    /// Makes the file what was decided: cuts it after the last good batch, writes what no checkpoint
    /// covers once more and syncs it, and completes the index files. Returns the tail, the bytes
    /// written again, and how many index files were built anew. After an unclean stop the length is made
    /// durable as well: the process before may have cut the file and died before its sync.
    pub(crate) fn settle(self, clean: bool) -> Result<(Tail, u64, u32), VfsError> {
        let Self {
            mut tail,
            seen,
            log_len,
            kept,
            ..
        } = self;
        let end = tail.end;
        let durable = clean && log_len == end;
        if !durable {
            tail.file.set_len(end)?;
        }
        let from = kept.last().map_or(0, |e| e.end);
        let rewritten = if planted::is(Plant::TrustPageCache) {
            0
        } else {
            rewrite(&tail.file, from, end)?
        };
        if (rewritten > 0 || !durable) && !planted::is(Plant::TrustPageCache) {
            tail.file.sync_data()?;
        }
        tail.flushed = end;
        let home = tail.segment.home.clone();
        let header = tail.segment.header();
        let mut rebuilt = 0;
        if !seen.exact || kept.len() != seen.entries.len() {
            // The file has entries that are damaged, or foreign, or none at all.
            let mut all = kept.clone();
            all.extend(tail.pending_companions());
            rebuilt += 1;
            let path = tail.segment.path(Kind::Index);
            durable::replace(&*home.vfs, &path, &index_bytes(&home, &header, &all))?;
            replace_time_index(&home, &tail.segment, &all)?;
            tail = tail.with_indexed(&all);
        } else {
            tail = tail.with_indexed(&kept);
            if !time_index_matches(&home, &tail.segment, &kept)? {
                rebuilt += 1;
                replace_time_index(&home, &tail.segment, &kept)?;
            }
            tail.write_index()?;
        }
        Ok((tail, rewritten, rebuilt))
    }
}

/// Writes `from..to` over itself: after a crash, what can be read may be in memory only, and a sync of
/// pages that are thought clean would prove nothing.
fn rewrite(file: &Arc<dyn File>, from: u64, to: u64) -> Result<u64, VfsError> {
    let mut at = from;
    let mut bytes = Vec::new();
    while at < to {
        bytes.clear();
        let n = file.read_into(at, REWRITE_BYTES.min((to - at) as usize), &mut bytes)?;
        if n == 0 {
            break;
        }
        file.write_all_at(&[IoSlice::new(&bytes)], at)?;
        at += n as u64;
    }
    Ok(at - from)
}

/// Makes a small file durable, whatever the process before has done with it.
pub(crate) fn rewrite_and_sync(file: &Arc<dyn File>) -> Result<(), VfsError> {
    rewrite(file, 0, file.len()?)?;
    file.sync_data()
}

/// Whether the whole time index is what these companions make.
pub(crate) fn time_index_matches(
    home: &Home,
    segment: &Segment,
    companions: &[Companion],
) -> Result<bool, VfsError> {
    let bytes = read_or_empty(segment, Kind::TimeIndex)?;
    let right = time_index_bytes(home, &segment.header(), companions);
    // A segment without entries needs no file.
    let none = bytes.is_empty() && right.len() == HEADER_BYTES;
    Ok(none || bytes[..] == right[..])
}

pub(crate) fn replace_time_index(
    home: &Home,
    segment: &Segment,
    companions: &[Companion],
) -> Result<(), VfsError> {
    let bytes = time_index_bytes(home, &segment.header(), companions);
    durable::replace(&*home.vfs, &segment.path(Kind::TimeIndex), &bytes)
}

/// Whether the time index of a sealed segment begins and ends as its index says.
pub(crate) fn time_index_ends_right(segment: &Segment, last: &Companion) -> Result<bool, VfsError> {
    let file = match segment.home.vfs.open_read(&segment.path(Kind::TimeIndex)) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return Ok(false),
        Err(e) => return Err(e),
    };
    let len = file.len()? as usize;
    let entries = len.saturating_sub(HEADER_BYTES) / TIME_ENTRY_BYTES;
    if entries == 0 || len != HEADER_BYTES + entries * TIME_ENTRY_BYTES {
        return Ok(false);
    }
    let (mut header, mut entry) = (Vec::new(), Vec::new());
    file.read_into(0, HEADER_BYTES, &mut header)?;
    file.read_into(
        (len - TIME_ENTRY_BYTES) as u64,
        TIME_ENTRY_BYTES,
        &mut entry,
    )?;
    let newest = TimeEntry::decode(&entry, segment.id, (entries - 1) as u32);
    let right = newest.is_some_and(|e| e.timestamp == last.max_timestamp);
    Ok(right && segment.owns(TIME_INDEX_MAGIC, &header))
}
