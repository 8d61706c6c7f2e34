//! Damage at rest. K2: each kind of file cut at every byte of its last 64 KiB. K3: every bit of its last
//! 8 KiB and of its header flipped, and random bits of a larger log. K4: blocks replaced by zeros, by ones, by
//! what was there before a truncation, by those of another partition; whole batches likewise.
//!
//! What is allowed: the log is refused; or a client that checks what it is served notices; or `verify` finds
//! it; or no answer changes (S3, S6). Three holes are known and counted, not hidden, all in the few batches
//! past the last index entry after an unclean stop: a changed leader epoch, a last batch that looks like a
//! torn write, and a batch of elsewhere that is good by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_storage::{LogConfig, LogError, inspect};
use varve_vfs::Vfs;
use varve_vfs::mem::MemVfs;

use super::driver::{Disk, Driver, dir, open_log};
use super::faults::caught;
use super::oracle::{Expect, check, serve};
use super::workloads::config;
use super::world::Setup;
use super::{Effort, Tally};
use crate::plants;
use crate::rng::Rng;

/// Bytes of one batch's leader epoch, from its start.
const EPOCH_AT: std::ops::Range<u64> = 12..16;

/// A log at rest, and what it must say.
struct Subject {
    name: &'static str,
    disk: MemVfs,
    /// The disk before its end was truncated and written anew with batches of the same sizes.
    older: MemVfs,
    expect: Arc<Expect>,
    config: LogConfig,
    clean: bool,
    /// Bytes of the active segment that index entries cover.
    checkpoint: u64,
}

/// How many batches: enough for 64 KiB of each kind of file, or a few.
#[derive(Debug, Clone, Copy)]
struct Size {
    sealed: usize,
    active: usize,
}

const FULL: Size = Size {
    sealed: 1150,
    active: 700,
};
const MEDIUM: Size = Size {
    sealed: 200,
    active: 120,
};
const SMALL: Size = Size {
    sealed: 60,
    active: 40,
};

fn subject(size: Size, partition: i32, clean: bool) -> Result<Subject, String> {
    let disk = MemVfs::new();
    let config = LogConfig {
        segment_bytes: 1 << 30,
        index_interval_bytes: 256,
        ..config()
    };
    let setup = Setup {
        partition,
        ..Setup::one(config)
    };
    let mut d = Driver::new(&disk, setup, Disk::Good, false);
    d.open(false)?;
    for part in 0..4 {
        d.begin_epoch()?;
        d.append(&vec![20 + part; size.sealed / 4])?;
    }
    d.flush()?;
    d.roll()?;
    d.begin_epoch()?;
    d.append(&vec![20; size.active / 2])?;
    d.snapshot(1500)?;
    let middle = d.end();
    let tail = vec![20; size.active - size.active / 2];
    d.append(&tail)?;
    d.flush()?;
    d.flush_index()?;
    let older = disk.image();
    d.truncate(middle)?;
    d.append(&tail)?;
    d.snapshot(3000)?;
    d.flush()?;
    d.flush_index()?;
    if clean {
        d.close_and_reopen()?;
    }
    let active = disk.read(&active_log(&disk)).map_err(|e| e.to_string())?;
    if !clean {
        // Flushed and not indexed, then written and not flushed.
        d.append(&[20; 10])?;
        d.flush()?;
        d.append(&[20; 3])?;
    }
    d.abandon();
    Ok(Subject {
        name: if clean { "clean" } else { "unclean" },
        disk: disk.image(),
        older,
        expect: d.promised(),
        config,
        clean,
        checkpoint: active.len() as u64,
    })
}

fn files_with(disk: &MemVfs, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    disk.for_each_file(&mut |path, _| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let fits = match extension {
            "manifest" | "leader-epoch" => name == extension,
            _ => path.extension().is_some_and(|e| e == extension),
        };
        if fits && path.starts_with(dir()) {
            found.push(path.to_owned());
        }
    });
    found
}

fn active_log(disk: &MemVfs) -> PathBuf {
    files_with(disk, "log").pop().unwrap_or_default()
}

/// Every kind of file, sealed ones before active ones.
fn kinds(disk: &MemVfs) -> Vec<PathBuf> {
    let kinds = [
        "log",
        "index",
        "timeindex",
        "manifest",
        "leader-epoch",
        "snapshot",
    ];
    kinds
        .iter()
        .flat_map(|kind| files_with(disk, kind))
        .collect()
}

/// What became of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The log was not opened.
    Refused,
    /// A client that checks what it is served notices.
    ByClient,
    /// `verify` finds it, and nobody else.
    ByVerify,
    /// No answer has changed.
    Harmless,
    /// Known hole: another leader epoch past the checkpoint.
    EpochHole,
    /// Known hole: what was acknowledged past the checkpoint looks like a torn write.
    LooksTorn,
    /// Known hole: a batch that is good by itself, of elsewhere, past the checkpoint.
    Unbound,
}

impl Found {
    const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ByClient => "seen by the client",
            Self::ByVerify => "seen by verify only",
            Self::Harmless => "no answer changed",
            Self::EpochHole => "HOLE: epoch past the checkpoint",
            Self::LooksTorn => "HOLE: acknowledged and looks torn",
            Self::Unbound => "HOLE: good batch of elsewhere past the checkpoint",
        }
    }
}

/// Opens a damaged copy and asks it everything. `at`: where in which file.
fn judge(s: &Subject, damaged: &MemVfs, file: &Path, at: u64) -> Result<Found, String> {
    let pristine = damaged.fork();
    let vfs = plants::wrap(Arc::new(damaged.clone()));
    let log = match open_log(&vfs, s.config, 3, s.clean) {
        Ok((log, _)) => log,
        Err(LogError::Corrupt(_)) => return Ok(Found::Refused),
        Err(e) => return Err(format!("not opened: {e}")),
    };
    let Ok(served) = serve(&log.view()) else {
        return Ok(Found::ByClient);
    };
    let Err(why) = check(&log, 0, &s.expect) else {
        return Ok(Found::Harmless);
    };
    let vfs: Arc<dyn Vfs> = Arc::new(pristine);
    let report = inspect::verify(&vfs, &dir()).map_err(|e| e.to_string())?;
    if !report.is_good() && served.end >= s.expect.logs[0][0].floor {
        return Ok(Found::ByVerify);
    }
    // Past the checkpoint after an unclean stop nothing is written down yet about the batches.
    if !s.clean && file == active_log(&s.disk) && at >= s.checkpoint {
        if served.end < s.expect.logs[0][0].floor {
            return Ok(Found::LooksTorn);
        }
        if epoch_of_some_batch(&s.disk, file, at) {
            return Ok(Found::EpochHole);
        }
        if whole_batches(damaged, s, file) {
            return Ok(Found::Unbound);
        }
    }
    Err(why)
}

/// Whether the file still is a run of good batches of the same places.
fn whole_batches(damaged: &MemVfs, s: &Subject, file: &Path) -> bool {
    let places = |disk: &MemVfs| -> Option<Vec<(u64, i64, bool)>> {
        let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
        let seen = inspect::dump(&vfs, file).ok()?;
        seen.map(|b| {
            let b = b.ok()?;
            Some((b.position, b.header.base_offset.get(), b.fault.is_none()))
        })
        .collect()
    };
    places(damaged).is_some_and(|found| Some(found) == places(&s.disk))
}

/// Whether the byte is part of a batch's leader epoch.
fn epoch_of_some_batch(disk: &MemVfs, file: &Path, at: u64) -> bool {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let Ok(dump) = inspect::dump(&vfs, file) else {
        return false;
    };
    let mut inside = false;
    for batch in dump.flatten() {
        let from = batch.position;
        inside |= (from + EPOCH_AT.start..from + EPOCH_AT.end).contains(&at);
    }
    inside
}

struct Suite<'a> {
    subject: &'a Subject,
    tally: Tally,
    effort: Effort,
}

impl Suite<'_> {
    /// One damaged copy.
    fn look(&mut self, file: &Path, at: u64, what: &str, change: &mut dyn FnMut(&mut Vec<u8>)) {
        if self.tally.violations.len() >= self.effort.stop_after {
            return;
        }
        let damaged = self.subject.disk.fork();
        damaged.damage(file, change);
        self.tally.states += 1;
        match caught(|| judge(self.subject, &damaged, file, at)) {
            Ok(found) => {
                self.tally.refused += u64::from(found == Found::Refused);
                self.tally.note(found.name(), 1);
            }
            Err(why) => self.tally.violations.push(format!(
                "{} log, {what} byte {at} of {}: {why}",
                self.subject.name,
                file.display()
            )),
        }
    }

    fn done(mut self) -> Tally {
        // What is refused here is damage found, which is the point.
        self.tally.refused = 0;
        self.tally
    }
}

fn suite<'a>(subject: &'a Subject, name: &str, effort: Effort) -> Suite<'a> {
    Suite {
        tally: Tally::new(name, &format!("{} log", subject.name)),
        subject,
        effort,
    }
}

fn read(disk: &MemVfs, file: &Path) -> Vec<u8> {
    disk.read(file).unwrap_or_default()
}

fn k2(subject: &Subject, effort: Effort) -> Tally {
    let mut suite = suite(subject, "k2", effort);
    for file in kinds(&subject.disk) {
        let len = read(&subject.disk, &file).len();
        let step = if effort.full { 1 } else { 1 + len / 40 };
        for at in (len.saturating_sub(64 * 1024)..len).step_by(step) {
            suite.look(&file, at as u64, "cut at", &mut |bytes| bytes.truncate(at));
        }
    }
    suite.done()
}

fn k3(subject: &Subject, larger: &Subject, effort: Effort) -> Tally {
    let mut suite = suite(subject, "k3", effort);
    let mut rng = Rng::new(effort.seed);
    for file in kinds(&subject.disk) {
        let len = read(&subject.disk, &file).len();
        let tail = len.saturating_sub(8 * 1024);
        let step = if effort.full {
            1
        } else {
            1 + (len - tail) / 50
        };
        let header = (0..64.min(tail)).step_by(if effort.full { 1 } else { 13 });
        for at in header.chain((tail..len).step_by(step)) {
            let all = if effort.full {
                0..8
            } else {
                let bit = rng.below(8) as u8;
                bit..bit + 1
            };
            for bit in all {
                suite.look(&file, at as u64, "a flipped bit in", &mut |bytes| {
                    bytes[at] ^= 1 << bit
                });
            }
        }
    }
    // And anywhere, in a larger one.
    suite.subject = larger;
    let all = kinds(&larger.disk);
    for _ in 0..if effort.full { 100_000 } else { 100 } {
        // Rather one of the first, which hold the records.
        let among = 2 + rng.below(all.len() as u64 - 1);
        let file = &all[rng.below(among) as usize];
        let len = read(&larger.disk, file).len() as u64;
        let (at, bit) = (rng.below(len), rng.below(8));
        suite.look(file, at, "a flipped bit in", &mut |bytes| {
            bytes[at as usize] ^= 1 << bit
        });
    }
    suite.done()
}

fn k4(subject: &Subject, other: &Subject, effort: Effort) -> Tally {
    let mut suite = suite(subject, "k4", effort);
    for file in kinds(&subject.disk) {
        let now = read(&subject.disk, &file);
        let sources = [read(&subject.older, &file), read(&other.disk, &file)];
        for block in [512, 4096] {
            let thin = if effort.full {
                1
            } else {
                1 + now.len() / block / 5
            };
            for from in (0..now.len()).step_by(block * thin) {
                let to = (from + block).min(now.len());
                for fill in [0, 0xff] {
                    suite.look(&file, from as u64, "a filled block at", &mut |bytes| {
                        bytes[from..to].fill(fill)
                    });
                }
                for source in &sources {
                    misdirect(&mut suite, &file, &now, source, from, to);
                }
            }
        }
        if file.extension().is_some_and(|e| e == "log") {
            batches(&mut suite, &file, &now, &sources);
        }
    }
    suite.done()
}

/// Puts the same place of another file there.
fn misdirect(
    suite: &mut Suite<'_>,
    file: &Path,
    now: &[u8],
    source: &[u8],
    from: usize,
    to: usize,
) {
    if let Some(part) = source.get(from..to)
        && now.get(from..to) != Some(part)
    {
        suite.look(file, from as u64, "a misdirected block at", &mut |bytes| {
            bytes[from..to].copy_from_slice(part);
        });
    }
}

/// Runs of one to three whole batches from elsewhere: each is good by itself.
fn batches(suite: &mut Suite<'_>, file: &Path, now: &[u8], sources: &[Vec<u8>]) {
    let vfs: Arc<dyn Vfs> = Arc::new(suite.subject.disk.clone());
    let Ok(dump) = inspect::dump(&vfs, file) else {
        return;
    };
    let mut starts: Vec<usize> = dump.flatten().map(|b| b.position as usize).collect();
    starts.push(now.len());
    let thin = if suite.effort.full {
        1
    } else {
        1 + starts.len() / 12
    };
    for run in 1..=3 {
        for window in starts.windows(run + 1).step_by(thin) {
            for source in sources {
                misdirect(suite, file, now, source, window[0], window[run]);
            }
        }
    }
}

/// Suites K2, K3 and K4, or the one that is named, on a log that was closed cleanly and one that was not.
#[must_use]
pub fn all(only: Option<&str>, effort: Effort) -> Vec<Tally> {
    let mut tallies = Vec::new();
    for clean in [true, false] {
        for name in ["k4", "k2", "k3"] {
            if only.is_none_or(|only| only == name) {
                tallies.push(run(name, clean, effort).unwrap_or_else(|e| {
                    let mut tally = Tally::new(name, "a log to be damaged");
                    tally.violations.push(e);
                    tally
                }));
            }
        }
    }
    tallies
}

fn run(name: &str, clean: bool, effort: Effort) -> Result<Tally, String> {
    let size = match (effort.full, name) {
        (false, _) => SMALL,
        (true, "k3") => MEDIUM,
        (true, _) => FULL,
    };
    let made = subject(size, 3, clean)?;
    Ok(match name {
        "k4" => k4(&made, &subject(size, 4, clean)?, effort),
        "k2" => k2(&made, effort),
        _ if effort.full => k3(&made, &subject(FULL, 3, clean)?, effort),
        _ => k3(&made, &made, effort),
    })
}
