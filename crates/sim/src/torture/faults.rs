//! K8, failing calls: in each workload the k-th call of a kind fails and the next one would succeed, for
//! every k. After a failed write or sync the log acknowledges nothing more (S4), and what it did acknowledge
//! is there for the next process and after the next power cut.
//!
//! K9, a full disk: space ends after every so many bytes. What does not fit is refused and leaves no trace,
//! reads go on, and once there is space again so does the log, without being opened again (S7).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use varve_storage::JournalConfig;
use varve_vfs::fault::Op;
use varve_vfs::mem::{Answer, MemVfs};

use super::driver::{Disk, Driver};
use super::enumerate::{Outcome, kill_then_cut, visit};
use super::workloads::Workload;
use super::world::journal_dir;
use super::{Effort, Tally};
use crate::disk::states::{CrashState, Pending};
use crate::rng::Rng;

/// Most bytes between two budgets of the full suite.
const BUDGET_STEP: u64 = 512;
/// Budgets of the full suite, at least.
const BUDGETS: u64 = 1_000;

/// A way for a call to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A sync of a file says EIO.
    Sync,
    /// A sync of a file says that the disk is full.
    SyncNoSpace,
    /// A sync of a directory says EIO.
    SyncDir,
    /// A write says EIO, and nothing of it arrives.
    Write,
    /// A half of a write arrives, and then it says EIO.
    ShortWrite,
    /// A read says EIO.
    Read,
    /// A creation says EIO.
    Create,
    /// A rename says EIO.
    Rename,
    /// A change of a length says EIO.
    SetLen,
    /// A removal says EIO.
    Remove,
}

impl Kind {
    /// All of them, with their names on the command line.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Sync, "sync"),
        (Self::SyncNoSpace, "sync-nospace"),
        (Self::SyncDir, "sync-dir"),
        (Self::Write, "write"),
        (Self::ShortWrite, "short-write"),
        (Self::Read, "read"),
        (Self::Create, "create"),
        (Self::Rename, "rename"),
        (Self::SetLen, "set-len"),
        (Self::Remove, "remove"),
    ];

    const fn op(self) -> Op {
        match self {
            Self::Sync | Self::SyncNoSpace => Op::Sync,
            Self::SyncDir => Op::SyncDir,
            Self::Write | Self::ShortWrite => Op::Write,
            Self::Read => Op::Read,
            Self::Create => Op::Create,
            Self::Rename => Op::Rename,
            Self::SetLen => Op::SetLen,
            Self::Remove => Op::Remove,
        }
    }

    const fn answer(self, len: usize) -> Answer {
        match self {
            Self::ShortWrite => Answer::Short(len / 2, Errno::IO),
            Self::SyncNoSpace => Answer::Fail(Errno::NOSPC),
            _ => Answer::Fail(Errno::IO),
        }
    }
}

/// Fails the `nth` call of a kind (1 is the first), unless `quiet`. Returns the counter of such calls.
fn fail_nth(disk: &MemVfs, kind: Kind, nth: u64, quiet: Arc<AtomicBool>) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    disk.set_hook(Some(Arc::new(move |call| {
        if call.op != kind.op() || quiet.load(Ordering::Relaxed) {
            return Answer::Go;
        }
        if counter.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            kind.answer(call.len)
        } else {
            Answer::Go
        }
    })));
    count
}

/// A panic is a violation like any other, where the build can catch it.
pub(super) fn caught<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// What came of a run.
#[derive(Debug, Clone, Copy, Default)]
struct Came {
    hit: bool,
    refused: bool,
    endings: u64,
    latched: bool,
    found_no_space: bool,
}

/// Runs the workload with one failing call.
fn run_failing(workload: &dyn Workload, kind: Kind, nth: u64) -> Result<Came, String> {
    let disk = MemVfs::new();
    let mut driver = Driver::new(&disk, workload.setup(), Disk::Failing, false);
    let count = fail_nth(&disk, kind, nth, driver.quiet());
    let result = caught(|| workload.run(&mut driver));
    let mut came = Came {
        hit: count.load(Ordering::Relaxed) >= nth,
        ..Came::default()
    };
    if driver.gave_up {
        came.refused = true;
        return Ok(came);
    }
    result?;
    came.endings = endings(&disk, &mut driver, workload, true)?;
    Ok(came)
}

/// The process ends here: by a kill, or by a power cut that keeps all, loses all, or chooses.
fn endings(
    disk: &MemVfs,
    driver: &mut Driver,
    workload: &dyn Workload,
    may_refuse: bool,
) -> Result<u64, String> {
    disk.set_hook(None);
    driver.abandon();
    let expect = driver.promised();
    if expect.logs.is_empty() {
        return Ok(0);
    }
    let setup = workload.setup();
    let mut states = caught(|| kill_then_cut(disk, &setup, &expect))?;
    let pending = Pending::of(disk, 0);
    let mut rng = Rng::new(pending.changes.len() as u64);
    let mut all = vec![pending.random(&mut rng), pending.random(&mut rng)];
    for rest in [true, false] {
        all.push(CrashState {
            point: 0,
            rest,
            kept_to: 0,
            fates: Vec::new(),
        });
    }
    for state in all {
        let left = state.apply(disk);
        let told = |e: String| format!("then a power cut ({state}): {e}");
        let may_refuse = may_refuse && (!state.rest || !state.fates.is_empty());
        let outcome = caught(|| visit(&left, &setup, &expect, may_refuse)).map_err(told)?;
        states += u64::from(outcome == Outcome::Fine);
    }
    Ok(states)
}

/// Suite K8 on one workload.
#[must_use]
pub fn k8(workload: &dyn Workload, effort: Effort) -> Tally {
    let mut tally = Tally::new("k8", workload.name());
    let step = if effort.full { 1 } else { 43 };
    for (number, (kind, name)) in Kind::ALL.into_iter().enumerate() {
        let mut nth = if effort.full { 1 } else { 1 + number as u64 };
        loop {
            tally.states += 1;
            match run_failing(workload, kind, nth) {
                Ok(came) => {
                    tally.refused += u64::from(came.refused);
                    tally.note("endings", came.endings);
                    if !came.hit {
                        tally.note(name, nth - 1);
                        break;
                    }
                }
                Err(what) => tally.violations.push(format!(
                    "{name} number {nth} fails: {what}\n  replay: varve-sim torture --suite k8 --workload {} \
                     --state {name}:{nth}",
                    workload.name()
                )),
            }
            if tally.violations.len() >= effort.stop_after {
                return tally;
            }
            nth += step;
        }
    }
    tally
}

/// Lets space end after `budget` bytes, and counts what is written.
fn limit(disk: &MemVfs, budget: u64, journal: Option<JournalConfig>) -> Arc<AtomicU64> {
    let written = Arc::new(AtomicU64::new(0));
    let sum = written.clone();
    let made: Mutex<BTreeMap<PathBuf, u64>> = Mutex::default();
    disk.set_hook(Some(Arc::new(move |call| {
        let left = budget.saturating_sub(sum.load(Ordering::Relaxed));
        if let Some(config) = journal
            && call.path.starts_with(journal_dir())
        {
            // A file of the journal takes its space when it is made, and is written over after that.
            let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
            let there = made.entry(call.path.to_owned()).or_default();
            let is_made = call.path.extension().is_some_and(|e| e == "journal");
            match call.op {
                Op::Create => *there = 0,
                Op::Write if is_made || *there >= config.file_bytes => return Answer::Go,
                Op::Write => *there += call.len as u64,
                _ => {}
            }
        }
        match call.op {
            Op::Create if left == 0 => Answer::Fail(Errno::NOSPC),
            Op::Write if call.len as u64 > left => {
                sum.store(budget, Ordering::Relaxed);
                Answer::Short(left as usize, Errno::NOSPC)
            }
            Op::Write => {
                sum.fetch_add(call.len as u64, Ordering::Relaxed);
                Answer::Go
            }
            _ => Answer::Go,
        }
    })));
    written
}

fn run_full(workload: &dyn Workload, budget: u64) -> Result<(Came, u64), String> {
    let disk = MemVfs::new();
    let mut driver = Driver::new(&disk, workload.setup(), Disk::Full, false);
    let written = limit(&disk, budget, workload.setup().journal);
    caught(|| workload.run(&mut driver))?;
    let mut came = Came {
        found_no_space: driver.refused > 0,
        latched: driver.latched_by_full_disk,
        ..Came::default()
    };
    came.endings = endings(&disk, &mut driver, workload, true)?;
    Ok((came, written.load(Ordering::Relaxed)))
}

/// Suite K9 on one workload.
#[must_use]
pub fn k9(workload: &dyn Workload, effort: Effort) -> Tally {
    let mut tally = Tally::new("k9", workload.name());
    let size = match run_full(workload, u64::MAX) {
        Ok((_, size)) => size,
        Err(e) => {
            tally.violations.push(e);
            return tally;
        }
    };
    let step = if effort.full {
        (size / BUDGETS).clamp(1, BUDGET_STEP)
    } else {
        size / 16 + 1
    };
    // Not only whole steps: space may end anywhere.
    for (i, budget) in (0..=size).step_by(step as usize).enumerate() {
        let budget = budget + (i as u64 * 37) % step.min(BUDGET_STEP);
        tally.states += 1;
        match run_full(workload, budget) {
            Ok((came, _)) => {
                tally.note("endings", came.endings);
                tally.note("refused cleanly", u64::from(came.found_no_space));
                tally.note("latched within a truncation", u64::from(came.latched));
            }
            Err(what) => tally.violations.push(format!(
                "space for {budget} bytes: {what}\n  replay: varve-sim torture --suite k9 --workload {} --state \
                 budget:{budget}",
                workload.name()
            )),
        }
        if tally.violations.len() >= effort.stop_after {
            break;
        }
    }
    tally
}

/// Runs one case of K8 (`sync:7`) or K9 (`budget:4096`) again.
///
/// # Errors
/// The violation, or that there is no such case.
pub fn replay(workload: &dyn Workload, case: &str) -> Result<String, String> {
    let bad = || format!("{case:?} is not a case; expected KIND:NUMBER or budget:BYTES");
    let (kind, number) = case.split_once(':').ok_or_else(bad)?;
    let number: u64 = number.parse().map_err(|_| bad())?;
    if kind == "budget" {
        return run_full(workload, number).map(|came| format!("{came:?}"));
    }
    let known = Kind::ALL.into_iter().find(|(_, name)| *name == kind);
    let (kind, _) = known.ok_or_else(bad)?;
    run_failing(workload, kind, number).map(|came| format!("{came:?}"))
}
