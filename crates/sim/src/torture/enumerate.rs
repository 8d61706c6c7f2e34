//! K1, crash-state enumeration: the history of each workload is cut off after every step, in every state
//! that [`crate::disk::states`] knows, and what is left is opened. Each such log is recovered twice with a
//! power cut in between, appended to, flushed, cut off again and recovered once more; for a part of them
//! recovery itself is cut off at every step.
//!
//! K7: the process is killed after every step instead, the next process acknowledges more, and then the
//! power goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use varve_storage::{Log, LogConfig, LogError};
use varve_vfs::Vfs;
use varve_vfs::mem::MemVfs;

use super::driver::{Disk, Driver, NOW, build, explained_by_reorder, offset, open_log};
use super::faults::caught;
use super::oracle::{Candidate, Expect, Served, check};
use super::workloads::Workload;
use super::{Effort, Tally};
use crate::disk::states::{CrashState, Pending, fingerprint, fingerprint_of_data, listing};
use crate::disk::trace::{Recorder, Replay, Step, Trace};
use crate::plants;
use crate::rng::Rng;

/// Distinct states per workload that the full suite must visit.
pub const FULL_STATES: u64 = 10_000;
/// And what a test visits, of the systematic and of the wilder ones.
const BOUNDED_STATES: usize = 130;
/// Recovery is cut off at every step for one state in so many.
const RECOVERY_EVERY: u64 = 64;
/// Wilder states are thinned out to about so many per workload.
const WILD_STATES: usize = 14_000;

/// What came of one state.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As promised.
    Fine,
    /// Refused, and writes had been lost out of order.
    Refused,
}

/// Runs a workload on a good disk and returns its history.
///
/// # Errors
/// What the driver finds on the way.
pub fn record(workload: &dyn Workload) -> Result<Trace<Arc<Expect>>, String> {
    let disk = MemVfs::new();
    let mut driver = Driver::new(&disk, workload.config(), 3, Disk::Good, true);
    caught(|| workload.run(&mut driver))?;
    driver.abandon();
    driver
        .recorder()
        .map(Recorder::trace)
        .ok_or_else(|| "nothing was recorded".to_owned())
}

fn open(disk: &MemVfs, config: LogConfig, clean: bool) -> Result<Log, LogError> {
    let vfs: Arc<dyn Vfs> = plants::wrap(Arc::new(disk.clone()));
    let (log, recovery) = open_log(&vfs, config, 3, clean)?;
    let _ = recovery.leftovers.run();
    Ok(log)
}

fn check_files(disk: &MemVfs, expect: &Expect) -> Result<(), String> {
    for (path, allowed) in &expect.files {
        let found = disk.read(path).ok();
        if !allowed.contains(&found) {
            let len = found.map(|f| f.len());
            return Err(format!(
                "{}: {len:?} bytes, none of the contents it may have",
                path.display()
            ));
        }
    }
    Ok(())
}

/// Looks at what a power cut has left: see the module.
///
/// # Errors
/// What must not be.
pub fn visit(
    left: &MemVfs,
    config: LogConfig,
    expect: &Expect,
    may_refuse: bool,
) -> Result<Outcome, String> {
    check_files(left, expect)?;
    if expect.log.is_empty() {
        return Ok(Outcome::Fine);
    }
    let before = left.fork();
    let log = match open(left, config, expect.clean) {
        Ok(log) => log,
        Err(LogError::Corrupt(found)) => {
            if fingerprint_of_data(left) != fingerprint_of_data(&before) {
                return Err(format!("refused, and the files were changed: {found}"));
            }
            if may_refuse && explained_by_reorder(found.reason) {
                return Ok(Outcome::Refused);
            }
            return Err(format!("refused: {found}"));
        }
        Err(e) => return Err(format!("not opened: {e}")),
    };
    let first = check(&log, expect)?;
    drop(log);
    again(left, config, expect, &first)?;
    live_on(left, config, &first)?;
    Ok(Outcome::Fine)
}

/// After a power cut right after recovery, recovery comes to the same (S8).
fn again(left: &MemVfs, config: LogConfig, expect: &Expect, first: &Served) -> Result<(), String> {
    left.crash_losing_unsynced();
    let log = open(left, config, false).map_err(|e| format!("the second recovery: {e}"))?;
    let second = check(&log, expect).map_err(|e| format!("the second recovery: {e}"))?;
    if second == *first {
        Ok(())
    } else {
        Err(format!(
            "recovery gave {} to {}, and {} to {} when repeated: S8",
            first.start, first.end, second.start, second.end
        ))
    }
}

/// What is acknowledged after recovery is there after the next power cut.
fn live_on(left: &MemVfs, config: LogConfig, first: &Served) -> Result<(), String> {
    left.crash_losing_unsynced();
    let mut log = open(left, config, false).map_err(|e| format!("the third recovery: {e}"))?;
    let epoch = log.last_epoch().map_or(1, varve_types::LeaderEpoch::get);
    let batch = build(first.end, epoch, 111, &mut Rng::new(first.end as u64));
    let acked = log
        .append(std::slice::from_ref(&batch), NOW)
        .and_then(|_| log.flush_now())
        .map_err(|e| format!("the log cannot be appended to after recovery: {e}"))?;
    drop(log);
    left.crash_losing_unsynced();
    let log =
        open(left, config, false).map_err(|e| format!("the recovery after more appends: {e}"))?;
    let last = super::oracle::serve(&log.view())?;
    let mut right = first.bytes.clone();
    right.extend_from_slice(&batch.to_bytes());
    if log.log_end() != acked || last.bytes != right {
        return Err(format!(
            "{acked} was acknowledged after recovery, and {} is left",
            last.end
        ));
    }
    Ok(())
}

/// Cuts recovery of `left` off after each of its steps; each time the next recovery must come to what an
/// uninterrupted one comes to. Returns how many states that were.
fn interrupt_recovery(left: &MemVfs, config: LogConfig, expect: &Expect) -> Result<u64, String> {
    let whole = left.fork();
    let Ok(log) = open(&whole, config, expect.clean) else {
        return Ok(0);
    };
    let right = check(&log, expect)?;
    drop(log);
    let recorder: Recorder<()> = Recorder::new(left);
    let vfs = plants::wrap(Arc::new(recorder.clone()));
    let (log, _) = open_log(&vfs, config, 3, expect.clean).map_err(|e| e.to_string())?;
    drop(log);
    let trace = recorder.trace();
    let mut replay = Replay::new(&trace);
    let mut states = 0;
    for (point, step) in trace.steps.iter().enumerate() {
        replay.step(step).map_err(|e| e.to_string())?;
        let pending = Pending::of(&replay.disk, point + 1);
        let mut rng = Rng::new(point as u64);
        let mut all = vec![pending.random(&mut rng), pending.random(&mut rng)];
        for rest in [true, false] {
            all.push(CrashState {
                point: point + 1,
                rest,
                kept_to: 0,
                fates: Vec::new(),
            });
        }
        for state in all {
            let again = state.apply(&replay.disk);
            states += 1;
            let log = open(&again, config, false)
                .map_err(|e| format!("recovery cut off in state {state}, then: {e}"))?;
            let found = check(&log, expect)
                .map_err(|e| format!("recovery cut off in state {state}, then: {e}"))?;
            if found != right {
                return Err(format!(
                    "recovery cut off in state {state} came to {}, not to {}: S8",
                    found.end, right.end
                ));
            }
        }
    }
    Ok(states)
}

/// Walks a history and looks at its states.
struct Walk<'a> {
    workload: &'a dyn Workload,
    effort: Effort,
    tally: Tally,
    seen: BTreeSet<(u64, usize)>,
    rng: Rng,
}

impl Walk<'_> {
    fn is_over(&self) -> bool {
        self.tally.violations.len() >= self.effort.stop_after
    }

    /// Looks at one state unless an equal one was looked at already. `promise` numbers what is promised.
    fn look(
        &mut self,
        disk: &MemVfs,
        pending: &Pending,
        state: &CrashState,
        expect: &Expect,
        promise: usize,
    ) {
        let left = state.apply(disk);
        if !self.seen.insert((fingerprint(&left), promise)) {
            return;
        }
        self.tally.states += 1;
        let config = self.workload.config();
        let may_refuse = pending.reorders_log(state);
        let copy = self
            .tally
            .states
            .is_multiple_of(RECOVERY_EVERY)
            .then(|| left.fork());
        let mut found = visit(&left, config, expect, may_refuse);
        if let (Ok(Outcome::Fine), Some(copy), false) = (&found, copy, expect.log.is_empty()) {
            match interrupt_recovery(&copy, config, expect) {
                Ok(states) => self.tally.note("in recovery", states),
                Err(e) => found = Err(e),
            }
        }
        match found {
            Ok(Outcome::Fine) => {}
            Ok(Outcome::Refused) => self.tally.refused += 1,
            Err(what) => self.violation(&what, state, disk),
        }
    }

    fn violation(&mut self, what: &str, state: &CrashState, disk: &MemVfs) {
        let files = listing(&state.apply(disk));
        self.tally.violations.push(format!(
            "{what}\n  replay: varve-sim torture --suite {} --workload {} --state {state}\n{files}",
            self.tally.suite,
            self.workload.name(),
        ));
    }
}

/// Each point of a history with the disk as it was then, and what was promised.
fn each_point(
    trace: &Trace<Arc<Expect>>,
    look: &mut dyn FnMut(usize, &MemVfs, &Expect, usize) -> bool,
) -> Result<(), String> {
    let mut replay = Replay::new(trace);
    let mut expect = Arc::new(Expect::default());
    let mut promise = 0;
    for (i, step) in trace.steps.iter().enumerate() {
        replay
            .step(step)
            .map_err(|e| format!("the history cannot be replayed: {e}"))?;
        if let Step::Mark(next) = step {
            expect = next.clone();
            promise = i;
        }
        if !look(i + 1, &replay.disk, &expect, promise) {
            break;
        }
    }
    Ok(())
}

/// Suite K1 on one workload.
#[must_use]
pub fn k1(workload: &dyn Workload, effort: Effort) -> Tally {
    let mut walk = Walk {
        workload,
        effort,
        tally: Tally::new("k1", workload.name()),
        seen: BTreeSet::new(),
        rng: Rng::new(effort.seed),
    };
    let trace = match record(workload) {
        Ok(trace) => trace,
        Err(e) => {
            walk.tally.violations.push(e);
            return walk.tally;
        }
    };
    let (mut core, mut wild) = (0, 0);
    let counted = each_point(&trace, &mut |point, disk, _, _| {
        let pending = Pending::of(disk, point);
        core += pending.states(&mut Rng::new(0)).len();
        wild += pending.wild(&mut Rng::new(0)).len();
        true
    });
    let (every, every_wild) = if effort.full {
        (1, wild / WILD_STATES + 1)
    } else {
        (core / BOUNDED_STATES + 1, wild / BOUNDED_STATES + 1)
    };
    let systematic = counted.and_then(|()| {
        each_point(&trace, &mut |point, disk, expect, promise| {
            let pending = Pending::of(disk, point);
            let core = thin(pending.states(&mut walk.rng), every, point);
            let wild = thin(pending.wild(&mut walk.rng), every_wild, point * 7);
            for state in core.iter().chain(&wild) {
                if walk.is_over() {
                    return false;
                }
                walk.look(disk, &pending, state, expect, promise);
            }
            true
        })
    });
    if let Err(e) = systematic {
        walk.tally.violations.push(e);
    }
    walk.tally.note("systematic", walk.tally.states);
    fill(&mut walk, &trace);
    walk.tally
}

/// One state in so many.
fn thin(states: Vec<CrashState>, every: usize, from: usize) -> Vec<CrashState> {
    let chosen = states.into_iter().enumerate();
    chosen
        .filter(|(i, _)| (i + from).is_multiple_of(every))
        .map(|(_, state)| state)
        .collect()
}

/// Random states until there are enough.
fn fill(walk: &mut Walk<'_>, trace: &Trace<Arc<Expect>>) {
    let wanted = if walk.effort.full { FULL_STATES } else { 0 };
    // Some histories have few unsynced changes at any time: then there are no more states than these.
    for _ in 0..60 {
        if walk.is_over() || walk.tally.states >= wanted {
            return;
        }
        let result = each_point(trace, &mut |point, disk, expect, promise| {
            let pending = Pending::of(disk, point);
            for _ in 0..2 {
                let state = pending.random(&mut walk.rng);
                walk.look(disk, &pending, &state, expect, promise);
            }
            !walk.is_over() && walk.tally.states < wanted
        });
        if let Err(e) = result {
            walk.tally.violations.push(e);
        }
    }
}

/// Looks at one state of one workload again, and says what came of it.
///
/// # Errors
/// The violation, or why the state cannot be built.
pub fn replay(workload: &dyn Workload, state: &CrashState, suite: &str) -> Result<String, String> {
    let trace = record(workload)?;
    let mut found = Err(format!("the history has no step {}", state.point));
    each_point(&trace, &mut |point, disk, expect, _| {
        if point < state.point {
            return true;
        }
        let pending = Pending::of(disk, point);
        let left = state.apply(disk);
        let files = listing(&left);
        let outcome = if suite == "k7" {
            kill_then_cut(disk, workload.config(), expect).map(|n| format!("{n} states, all fine"))
        } else {
            visit(
                &left,
                workload.config(),
                expect,
                pending.reorders_log(state),
            )
            .and_then(|o| {
                let left = state.apply(disk);
                interrupt_recovery(&left, workload.config(), expect).map(|_| format!("{o:?}"))
            })
        };
        found = outcome
            .map(|o| format!("{o}\n{files}"))
            .map_err(|e| format!("{e}\n{files}"));
        false
    })?;
    found
}

/// Suite K7 on one workload: a process dies after every step, the next one acknowledges more, and then the
/// power goes.
#[must_use]
pub fn k7(workload: &dyn Workload, effort: Effort) -> Tally {
    let mut tally = Tally::new("k7", workload.name());
    let trace = match record(workload) {
        Ok(trace) => trace,
        Err(e) => {
            tally.violations.push(e);
            return tally;
        }
    };
    let stride = if effort.full { 1 } else { 9 };
    let result = each_point(&trace, &mut |point, disk, expect, _| {
        if !point.is_multiple_of(stride) || expect.log.is_empty() {
            return true;
        }
        match kill_then_cut(disk, workload.config(), expect) {
            Ok(states) => tally.states += states,
            Err(what) => tally.violations.push(format!(
                "{what}\n  replay: varve-sim torture --suite k7 --workload {} --state {point}:keep:0:",
                workload.name(),
            )),
        }
        tally.violations.len() < effort.stop_after
    });
    if let Err(e) = result {
        tally.violations.push(e);
    }
    tally
}

/// Kills the process on `disk`, lets the next one recover and acknowledge two batches, and cuts the power in
/// several ways. Everything the second process acknowledged or called flushed must be there.
pub(super) fn kill_then_cut(
    disk: &MemVfs,
    config: LogConfig,
    expect: &Expect,
) -> Result<u64, String> {
    let next = disk.fork();
    next.kill_process();
    let vfs = plants::wrap(Arc::new(next.clone()));
    let (mut log, recovery) =
        open_log(&vfs, config, 3, expect.clean).map_err(|e| format!("after a kill: {e}"))?;
    let found = check(&log, expect).map_err(|e| format!("after a kill: {e}"))?;
    let mut states = 0;
    // What recovery calls flushed counts at once.
    states += cut_and_compare(&next, config, &found.bytes, found.end, &log)?;
    let epoch = log.last_epoch().map_or(1, varve_types::LeaderEpoch::get);
    let mut rng = Rng::new(found.end as u64);
    let mut right = found.bytes.clone();
    for size in [90, 700] {
        let batch = build(log.log_end().get(), epoch, size, &mut rng);
        log.append(std::slice::from_ref(&batch), NOW)
            .and_then(|_| log.flush_now())
            .map_err(|e| format!("after a kill: {e}"))?;
        right.extend_from_slice(&batch.to_bytes());
        states += cut_and_compare(&next, config, &right, log.log_end().get(), &log)?;
    }
    recovery
        .leftovers
        .run()
        .map_err(|e| format!("after a kill: {e}"))?;
    states += cut_and_compare(&next, config, &right, log.log_end().get(), &log)?;
    Ok(states)
}

fn cut_and_compare(
    disk: &MemVfs,
    config: LogConfig,
    right: &[u8],
    end: i64,
    before: &Log,
) -> Result<u64, String> {
    let pending = Pending::of(disk, 0);
    let mut rng = Rng::new(end as u64);
    let mut all: Vec<CrashState> = (0..3).map(|_| pending.random(&mut rng)).collect();
    for rest in [true, false] {
        all.push(CrashState {
            point: 0,
            rest,
            kept_to: 0,
            fates: Vec::new(),
        });
    }
    let states = all.len() as u64;
    for state in all {
        let left = state.apply(disk);
        let told =
            |e: String| format!("a kill, then acks up to {end}, then a power cut ({state}): {e}");
        let log = open(&left, config, false).map_err(|e| told(e.to_string()))?;
        let found = super::oracle::serve(&log.view()).map_err(told)?;
        if found.bytes != right || log.log_end() != offset(end) {
            return Err(told(format!(
                "{} to {} is left: S11",
                found.start, found.end
            )));
        }
        if log.last_epoch() < before.last_epoch() {
            return Err(told(format!(
                "epoch {:?} is left of {:?}: S11",
                log.last_epoch(),
                before.last_epoch()
            )));
        }
    }
    Ok(states)
}

/// One candidate from what was served, for suites that go on from there.
#[must_use]
pub fn as_promised(candidates: &[Candidate]) -> Expect {
    Expect {
        log: candidates.to_vec(),
        ..Expect::default()
    }
}
