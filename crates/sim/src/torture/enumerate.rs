//! K1, crash-state enumeration: the history of each workload is cut off after every step, in every state
//! that [`crate::disk::states`] knows, and what is left is opened. Each such log is recovered twice with a
//! power cut in between, appended to, flushed, cut off again and recovered once more; for a part of them
//! recovery itself is cut off at every step.
//!
//! K7: the process is killed after every step instead, the next process acknowledges more, and then the
//! power goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use varve_vfs::Vfs;
use varve_vfs::mem::MemVfs;

use super::driver::{Disk, Driver, explained_by_reorder};
use super::faults::caught;
use super::oracle::{Expect, Served};
use super::workloads::Workload;
use super::world::{Setup, StartError, World};
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
    let mut driver = Driver::new(&disk, workload.setup(), Disk::Good, true);
    caught(|| workload.run(&mut driver))?;
    driver.abandon();
    driver
        .recorder()
        .map(Recorder::trace)
        .ok_or_else(|| "nothing was recorded".to_owned())
}

/// Opens what is left. A refusal is an error here.
fn open(disk: &MemVfs, setup: &Setup, clean: bool) -> Result<World, String> {
    let world = try_open(disk, setup, clean).map_err(|e| e.to_string())?;
    match world.refused() {
        Some(found) => Err(found.to_string()),
        None => Ok(world),
    }
}

fn try_open(disk: &MemVfs, setup: &Setup, clean: bool) -> Result<World, StartError> {
    let vfs: Arc<dyn Vfs> = plants::wrap(Arc::new(disk.clone()));
    let mut world = World::open(&vfs, setup, clean)?;
    world.sweep();
    Ok(world)
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
    setup: &Setup,
    expect: &Expect,
    may_refuse: bool,
) -> Result<Outcome, String> {
    check_files(left, expect)?;
    if expect.logs.is_empty() {
        return Ok(Outcome::Fine);
    }
    let before = left.fork();
    let world = try_open(left, setup, expect.clean).map_err(|e| format!("not opened: {e}"))?;
    // The others are what they must be, whatever became of one.
    let first = world.check(expect)?;
    if let Some(found) = world.refused() {
        // What the journal puts back comes first.
        let same = fingerprint_of_data(left) == fingerprint_of_data(&before);
        if setup.journal.is_none() && !same {
            return Err(format!("refused, and the files were changed: {found}"));
        }
        if may_refuse && explained_by_reorder(found.reason) {
            return Ok(Outcome::Refused);
        }
        return Err(format!("refused: {found}"));
    }
    drop(world);
    again(left, setup, expect, &first)?;
    live_on(left, setup, &first)?;
    Ok(Outcome::Fine)
}

/// After a power cut right after recovery, recovery comes to the same (S8).
fn again(left: &MemVfs, setup: &Setup, expect: &Expect, first: &[Served]) -> Result<(), String> {
    left.crash_losing_unsynced();
    let world = open(left, setup, false).map_err(|e| format!("the second recovery: {e}"))?;
    let second = world
        .check(expect)
        .map_err(|e| format!("the second recovery: {e}"))?;
    same(first, &second, "when repeated")
}

fn same(first: &[Served], second: &[Served], when: &str) -> Result<(), String> {
    for (number, (a, b)) in first.iter().zip(second).enumerate() {
        if a != b {
            return Err(format!(
                "recovery of log {number} gave {} to {}, and {} to {} {when}: S8",
                a.start, a.end, b.start, b.end
            ));
        }
    }
    Ok(())
}

/// What is acknowledged after recovery is there after the next power cut. A log whose records have keys is
/// compacted then, which changes no answer.
fn live_on(left: &MemVfs, setup: &Setup, first: &[Served]) -> Result<(), String> {
    left.crash_losing_unsynced();
    let mut world = open(left, setup, false).map_err(|e| format!("the third recovery: {e}"))?;
    let mut right: Vec<(i64, Vec<u8>)> = Vec::new();
    for (number, before) in first.iter().enumerate() {
        let (acked, batch) = world
            .put(number, 111)
            .map_err(|e| format!("log {number} cannot be appended to after recovery: {e}"))?;
        let mut bytes = before.bytes.clone();
        bytes.extend_from_slice(&batch.to_bytes());
        right.push((acked.get(), bytes));
    }
    drop(world);
    left.crash_losing_unsynced();
    let mut world =
        open(left, setup, false).map_err(|e| format!("the recovery after more appends: {e}"))?;
    let last = world.serve()?;
    for (number, (last, (acked, bytes))) in last.iter().zip(&right).enumerate() {
        if last.end != *acked || last.bytes != *bytes {
            return Err(format!(
                "log {number}: {acked} was acknowledged after recovery, and {} is left",
                last.end
            ));
        }
    }
    if setup.keyed {
        world.compact_and_compare(&last)?;
    }
    Ok(())
}

/// Cuts recovery of `left` off after each of its steps; each time the next recovery must come to what an
/// uninterrupted one comes to. Returns how many states that were.
fn interrupt_recovery(left: &MemVfs, setup: &Setup, expect: &Expect) -> Result<u64, String> {
    let whole = left.fork();
    let Ok(world) = open(&whole, setup, expect.clean) else {
        return Ok(0);
    };
    let right = world.check(expect)?;
    drop(world);
    let recorder: Recorder<()> = Recorder::new(left);
    let vfs = plants::wrap(Arc::new(recorder.clone()));
    let world = World::open(&vfs, setup, expect.clean).map_err(|e| e.to_string())?;
    drop(world);
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
            let told = |e: String| format!("recovery cut off in state {state}, then: {e}");
            let world = open(&again, setup, false).map_err(told)?;
            let found = world.check(expect).map_err(told)?;
            same(&right, &found, "after").map_err(told)?;
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
        let setup = self.workload.setup();
        let may_refuse = pending.reorders_log(state);
        let copy = self
            .tally
            .states
            .is_multiple_of(RECOVERY_EVERY)
            .then(|| left.fork());
        let mut found = visit(&left, &setup, expect, may_refuse);
        if let (Ok(Outcome::Fine), Some(copy), false) = (&found, copy, expect.logs.is_empty()) {
            match interrupt_recovery(&copy, &setup, expect) {
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
            kill_then_cut(disk, &workload.setup(), expect).map(|n| format!("{n} states, all fine"))
        } else {
            visit(
                &left,
                &workload.setup(),
                expect,
                pending.reorders_log(state),
            )
            .and_then(|o| {
                let left = state.apply(disk);
                interrupt_recovery(&left, &workload.setup(), expect).map(|_| format!("{o:?}"))
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
        if !point.is_multiple_of(stride) || expect.logs.is_empty() {
            return true;
        }
        match kill_then_cut(disk, &workload.setup(), expect) {
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

/// Kills the process on `disk`, lets the next one recover and acknowledge two batches in each log, and cuts the
/// power in several ways. Everything the second process acknowledged or called flushed must be there.
pub(super) fn kill_then_cut(disk: &MemVfs, setup: &Setup, expect: &Expect) -> Result<u64, String> {
    let next = disk.fork();
    next.kill_process();
    let vfs = plants::wrap(Arc::new(next.clone()));
    let told = |e: String| format!("after a kill: {e}");
    let mut world = World::open(&vfs, setup, expect.clean).map_err(|e| told(e.to_string()))?;
    if let Some(found) = world.refused() {
        return Err(told(found.to_string()));
    }
    let found = world.check(expect).map_err(told)?;
    let mut right: Vec<(i64, Vec<u8>)> = found.into_iter().map(|s| (s.end, s.bytes)).collect();
    // What recovery calls flushed counts at once.
    let mut states = cut_and_compare(&next, setup, &right, &world)?;
    for size in [90, 700] {
        for (number, (end, bytes)) in right.iter_mut().enumerate() {
            let (acked, batch) = world.put(number, size).map_err(told)?;
            *end = acked.get();
            bytes.extend_from_slice(&batch.to_bytes());
        }
        states += cut_and_compare(&next, setup, &right, &world)?;
    }
    for removal in world.leftovers.drain(..) {
        removal.run().map_err(|e| told(e.to_string()))?;
    }
    states += cut_and_compare(&next, setup, &right, &world)?;
    Ok(states)
}

fn cut_and_compare(
    disk: &MemVfs,
    setup: &Setup,
    right: &[(i64, Vec<u8>)],
    before: &World,
) -> Result<u64, String> {
    let pending = Pending::of(disk, 0);
    let ends: Vec<i64> = right.iter().map(|(end, _)| *end).collect();
    let mut rng = Rng::new(ends.iter().sum::<i64>() as u64);
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
        let told = |e: String| {
            format!("a kill, then acks up to {ends:?}, then a power cut ({state}): {e}")
        };
        let world = open(&left, setup, false).map_err(told)?;
        let found = world.serve().map_err(told)?;
        for (number, (found, (end, bytes))) in found.iter().zip(right).enumerate() {
            if found.bytes != *bytes || found.end != *end {
                return Err(told(format!(
                    "{} to {} of log {number} is left: S11",
                    found.start, found.end
                )));
            }
        }
        let epochs = |world: &World| -> Vec<_> {
            let logs = world.logs.iter().flatten();
            logs.map(varve_storage::Log::last_epoch).collect()
        };
        let (now, then) = (epochs(&world), epochs(before));
        if now.iter().zip(&then).any(|(now, then)| now < then) {
            return Err(told(format!("epochs {now:?} are left of {then:?}: S11")));
        }
    }
    Ok(states)
}
