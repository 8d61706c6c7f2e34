//! Crashes and full disks at every step of a compaction, of its installation and of what comes after: the log
//! opens with the old segments or the new one, and nothing else is left behind.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use crate::common::keyed::*;
use crate::common::*;
use rustix::io::Errno;
use varve_storage::inspect::verify;
use varve_storage::{Log, LogConfig};
use varve_vfs::Vfs;
use varve_vfs::fault::{FaultVfs, Op};
use varve_vfs::mem::{Fate, MemVfs};

fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 900,
        index_interval_bytes: 150,
        ..config()
    }
}

/// A disk with a log of several segments that was compacted once and is dirty again.
fn dirty() -> MemVfs {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, small(), true);
    for round in 0..2 {
        for i in 0..24 {
            let (key, other) = ((i % 7).to_string(), (i % 5).to_string());
            let gone = (i % 3 > 0).then_some("value");
            put_now(&mut log, &[(&key, Some("some value")), (&other, gone)]);
        }
        seal_off(&mut log);
        if round == 0 {
            compact(&mut log);
        }
    }
    put_now(&mut log, &[("active", Some("1"))]);
    log.close(true).unwrap();
    mem.image()
}

fn whole(log: &Log, old: &[i64], new: &[i64], case: &str) {
    let found = offsets(&log.view());
    // Parts are installed one by one, lowest first: a new beginning may have the old end.
    let mixed = (0..=old.last().unwrap() + 1).any(|cut| {
        let begin = new.iter().filter(|o| **o < cut);
        let end = old.iter().filter(|o| **o >= cut);
        begin.chain(end).eq(found.iter())
    });
    assert!(mixed, "{case}: {found:?}");
    assert_eq!(log.log_end(), o(97), "{case}");
}

/// Opens twice: what the first recovery made of it, the second leaves as it is.
fn reopen(disk: &MemVfs, old: &[i64], new: &[i64], case: &str) {
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let (log, recovery) = open(&vfs, small(), false);
    recovery.leftovers.run().unwrap();
    whole(&log, old, new, case);
    let first = offsets(&log.view());
    let segments = log.segments();
    drop(log);
    disk.crash_losing_unsynced();
    let (log, recovery) = open(&vfs, small(), false);
    recovery.leftovers.run().unwrap();
    assert_eq!(
        (offsets(&log.view()), log.segments()),
        (first, segments),
        "{case}"
    );
    log.close(true).unwrap();
    let logs = vfs.list(&dir()).unwrap();
    let logs = logs.iter().filter(|e| e.name.ends_with(".log")).count();
    assert_eq!(logs, segments, "{case}: files of the log and no others");
    assert!(
        !vfs.list(&dir())
            .unwrap()
            .iter()
            .any(|e| e.name.contains(".deleted"))
    );
    let report = verify(&vfs, &dir()).unwrap();
    assert!(report.is_good(), "{case}: {:?}", report.problems);
}

fn old_and_new() -> (Vec<i64>, Vec<i64>) {
    let vfs: Arc<dyn Vfs> = Arc::new(dirty());
    let (mut log, _) = open(&vfs, small(), true);
    let old = offsets(&log.view());
    compact(&mut log);
    let new = offsets(&log.view());
    assert!(new.len() < old.len());
    (old, new)
}

/// Compacts, appends, compacts again, as far as the disk lets it. Returns whether it came to the end.
fn attempt(log: &mut Log) -> bool {
    let end = log.log_end();
    let Some(mut run) = log.prepare_compaction(&eager(), NOW, end, ROOM) else {
        return true;
    };
    loop {
        match run.next(&|_| true) {
            Ok(Some(part)) => log.prepare_install(part).unwrap(),
            Ok(None) => return true,
            Err(_) => return false,
        }
        if log.change_now().is_err() || log.take_removed().run().is_err() {
            return false;
        }
    }
}

#[test]
fn a_crash_after_any_change_of_the_disk() {
    let base = dirty();
    let (old, new) = old_and_new();
    for at in 0.. {
        let disk = base.image();
        let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
        let (mut log, _) = open(&vfs, small(), true);
        let before = disk.changes();
        assert!(attempt(&mut log));
        let made = disk.changes() - before;
        drop(log);
        disk.crash_in_order(before + at, 40);
        reopen(&disk, &old, &new, &format!("after {at} of {made} changes"));
        if at >= made {
            assert!(at > 30, "{at} changes");
            break;
        }
    }
}

#[test]
fn a_failure_at_any_step_and_the_loss_of_all_or_some_that_was_not_synced() {
    let base = dirty();
    let (old, new) = old_and_new();
    for step in 1.. {
        let mut over = false;
        for fate in 0..4u64 {
            let disk = base.image();
            let faults = FaultVfs::new(Arc::new(disk.clone()));
            let vfs: Arc<dyn Vfs> = faults.clone();
            let (mut log, _) = open(&vfs, small(), true);
            faults.fail_after(Op::Any, step, Errno::IO);
            over = attempt(&mut log);
            drop(log);
            let mut seed = fate * 77 + step;
            disk.crash(&mut |_| {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(99);
                match (fate, seed >> 62) {
                    (0, _) | (_, 0) => Fate::Lose,
                    (_, 1) => Fate::Tear((seed >> 40) as usize % 300),
                    _ => Fate::Keep,
                }
            });
            reopen(&disk, &old, &new, &format!("step {step}, fate {fate}"));
        }
        if over {
            assert!(step > 30, "{step} steps");
            break;
        }
    }
}

#[test]
fn a_full_disk_leaves_the_old_segments_and_no_files() {
    let base = dirty();
    let (old, new) = old_and_new();
    for budget in (0..).step_by(97) {
        let disk = base.image();
        let faults = FaultVfs::new(Arc::new(disk.clone()));
        let vfs: Arc<dyn Vfs> = faults.clone();
        let (mut log, _) = open(&vfs, small(), true);
        faults.set_budget(Some(budget));
        let done = attempt(&mut log);
        faults.heal();
        assert_eq!(log.failure(), None, "a full disk is no failure");
        whole(&log, &old, &new, "while full");
        // A change that waits for space is made up for; after that the log goes on as if nothing was.
        log.change_now().unwrap();
        log.take_removed().run().unwrap();
        let names = vfs.list(&dir()).unwrap();
        let logs = names.iter().filter(|e| e.name.ends_with(".log")).count();
        assert_eq!(logs, log.segments(), "budget {budget}");
        compact(&mut log);
        assert_eq!(offsets(&log.view()), new, "budget {budget}");
        assert_eq!(put_now(&mut log, &[("z", Some("1"))]), o(97));
        if done {
            assert!(budget > 1000);
            break;
        }
    }
}

#[test]
fn a_cut_of_a_compacted_segment_survives_a_crash_after_any_change() {
    let base = dirty();
    for to in [3, 20, 33, 40, 60] {
        for at in 0.. {
            let disk = base.image();
            let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
            let (mut log, _) = open(&vfs, small(), true);
            compact(&mut log);
            let old = offsets(&log.view());
            let before = disk.changes();
            log.truncate_to(o(to)).unwrap().run().unwrap();
            let (end, new) = (log.log_end(), offsets(&log.view()));
            let made = disk.changes() - before;
            drop(log);
            disk.crash_in_order(before + at, 20);
            let (log, recovery) = open(&vfs, small(), false);
            recovery.leftovers.run().unwrap();
            let found = offsets(&log.view());
            let case = format!("cut to {to}, {at} of {made} changes");
            if log.log_end() == end {
                assert_eq!(found, new, "{case}");
            } else {
                assert_eq!((found, log.log_end()), (old, o(97)), "{case}");
            }
            log.close(true).unwrap();
            let report = verify(&vfs, &dir()).unwrap();
            assert!(report.is_good(), "{case}: {:?}", report.problems);
            if at >= made {
                break;
            }
        }
    }
}
