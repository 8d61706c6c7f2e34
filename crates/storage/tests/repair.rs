//! The way out for a damaged log without another replica: what is kept, what is given up, what is moved aside.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::*;
use varve_storage::inspect::verify;
use varve_storage::repair::{self, RepairError};
use varve_storage::{LogConfig, LogError, Reason};
use varve_vfs::Vfs;
use varve_vfs::fault::{FaultVfs, Op};
use varve_vfs::mem::MemVfs;

fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        ..config()
    }
}

/// Ten batches of three records in several segments, closed in order.
fn whole() -> (MemVfs, Vec<u8>) {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, small_segments(), false);
    log.begin_epoch(epoch(1)).unwrap();
    let made = fill(&mut log, 10);
    log.flush_now().unwrap();
    assert!(log.segments() >= 2);
    log.write_snapshot(o(6), b"state").unwrap();
    log.close(true).unwrap();
    (mem, bytes_of(&made))
}

fn logs(vfs: &dyn Vfs) -> Vec<PathBuf> {
    let list = vfs.list(&dir()).unwrap();
    let logs = list
        .iter()
        .filter(|e| e.name.ends_with(".log") && e.len > 0);
    logs.map(|e| dir().join(&e.name)).collect()
}

fn flip(vfs: &dyn Vfs, path: &Path, at: usize) {
    let byte = vfs.read(path).unwrap()[at];
    let file = vfs.open_write(path).unwrap();
    file.write_all_at(&[IoSlice::new(&[byte ^ 1])], at as u64)
        .unwrap();
}

fn backup() -> PathBuf {
    PathBuf::from(format!("{}.damaged", dir().display()))
}

/// Repairs and checks that exactly what was promised is left.
fn repaired(vfs: &Arc<dyn Vfs>, right: &[u8]) -> i64 {
    let before: Vec<_> = content(vfs, &dir());
    let plan = repair::plan(vfs, &dir()).unwrap();
    assert_eq!(content(vfs, &dir()), before, "a plan changes nothing");
    assert!(!plan.is_needless());
    let done = repair::execute(vfs, &plan, NOW).unwrap();
    assert_eq!(done.backup, backup());
    assert_eq!(
        content(vfs, &backup()),
        before,
        "the damaged log is kept whole"
    );
    assert!(done.report.is_good(), "{:?}", done.report);
    assert_eq!(done.report.records, plan.records_kept);
    assert!(verify(vfs, &dir()).unwrap().is_good());
    let (mut log, recovery) = open(vfs, small_segments(), true);
    recovery.leftovers.run().unwrap();
    assert_eq!(log.log_end(), plan.cut_at);
    let kept = read_all(&log.view(), log.log_start(), 4096);
    assert!(right.starts_with(&kept), "what is kept is what was written");
    let cut = plan.cut_at.get();
    // And the log goes on.
    fill(&mut log, 2);
    log.close(true).unwrap();
    cut
}

fn content(vfs: &Arc<dyn Vfs>, dir: &Path) -> Vec<(String, Vec<u8>)> {
    let list = vfs.list(dir).unwrap();
    list.iter()
        .map(|e| (e.name.clone(), vfs.read(&dir.join(&e.name)).unwrap()))
        .collect()
}

#[test]
fn a_sound_log_needs_no_repair() {
    let (mem, _) = whole();
    let vfs: Arc<dyn Vfs> = Arc::new(mem);
    let plan = repair::plan(&vfs, &dir()).unwrap();
    assert!(plan.is_needless(), "{:?}", plan.damage);
    assert_eq!((plan.cut_at, plan.end_seen), (o(30), o(30)));
    assert_eq!(
        (
            plan.records_kept,
            plan.sound_records_given_up,
            plan.bytes_given_up
        ),
        (30, 0, 0)
    );
}

#[test]
fn what_lies_before_the_damage_is_kept_wherever_it_is() {
    let (mem, right) = whole();
    for path in logs(&mem) {
        let len = mem.read(&path).unwrap().len();
        for at in (0..len).step_by(37) {
            let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
            flip(&*vfs, &path, at);
            let plan = repair::plan(&vfs, &dir()).unwrap();
            assert!(plan.cut_at < o(30), "{} byte {at}", path.display());
            assert_eq!(
                plan.records_kept as i64,
                plan.cut_at.get(),
                "three records each, from 0"
            );
            assert!(plan.sound_records_given_up + plan.records_kept <= 30);
            assert!(plan.bytes_given_up > 0);
            repaired(&vfs, &right);
        }
    }
}

#[test]
fn a_missing_a_short_and_a_lost_segment() {
    let (mem, right) = whole();
    let all = logs(&mem);
    let second = all[1].clone();
    let start: i64 = second
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    for case in 0..4 {
        let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
        let expected = match case {
            0 => {
                vfs.remove_file(&second).unwrap();
                start
            }
            1 => {
                vfs.remove_file(&all[0]).unwrap();
                0
            }
            2 => {
                let file = vfs.open_write(all.last().unwrap()).unwrap();
                file.set_len(file.len().unwrap() - 1).unwrap();
                27
            }
            _ => {
                let file = vfs.open_write(&all[0]).unwrap();
                file.set_len(0).unwrap();
                0
            }
        };
        let error = try_open(&vfs, small_segments(), true).err().unwrap();
        assert!(
            matches!(error, LogError::Corrupt(_)),
            "case {case}: {error}"
        );
        assert_eq!(repaired(&vfs, &right), expected, "case {case}");
    }
}

#[test]
fn a_manifest_is_written_anew_from_the_segments() {
    let (mem, right) = whole();
    for lost in [true, false] {
        let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
        let path = dir().join("manifest");
        if lost {
            vfs.remove_file(&path).unwrap();
        } else {
            flip(&*vfs, &path, 33);
        }
        match try_open(&vfs, small_segments(), true) {
            Err(LogError::Corrupt(c)) => assert!(
                matches!(
                    c.reason,
                    Reason::ManifestMissing | Reason::ManifestUnreadable
                ),
                "{c}"
            ),
            other => panic!("{other:?}"),
        }
        assert_eq!(repaired(&vfs, &right), 30, "no record is given up");
    }
}

#[test]
fn a_failure_at_any_step_leaves_the_damaged_log_or_the_kept_one() {
    let (mem, right) = whole();
    flip(&mem, &logs(&mem)[1], 100);
    let before = content(&(Arc::new(mem.image()) as Arc<dyn Vfs>), &dir());
    for step in 1..400 {
        let image = mem.image();
        let faults = FaultVfs::new(Arc::new(image.clone()));
        let vfs: Arc<dyn Vfs> = faults.clone();
        let plan = repair::plan(&vfs, &dir()).unwrap();
        faults.fail_after(Op::Any, step, rustix::io::Errno::IO);
        let done = repair::execute(&vfs, &plan, NOW);
        faults.heal();
        image.crash_losing_unsynced();
        let vfs: Arc<dyn Vfs> = Arc::new(image);
        if done.is_ok() {
            assert!(verify(&vfs, &dir()).unwrap().is_good());
            assert_eq!(content(&vfs, &backup()), before);
            return;
        }
        // Between the two renames the name is empty, and both logs are beside it.
        let there = vfs.exists(&dir()).unwrap();
        let whole = if there { dir() } else { backup() };
        assert_eq!(content(&vfs, &whole), before, "step {step}");
        if there {
            repaired(&vfs, &right);
        }
    }
    panic!("never succeeded");
}

#[test]
fn what_is_no_log_is_refused() {
    let (mem, vfs) = mem();
    varve_vfs::durable::create_dir_all(&mem, &dir()).unwrap();
    let error = repair::plan(&vfs, &dir()).unwrap_err();
    assert!(matches!(error, RepairError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("Nothing was changed"), "{error}");
    assert!(repair::plan(&vfs, Path::new("/absent")).is_err());
}
