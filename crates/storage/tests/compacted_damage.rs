//! Damage in segments that a compaction wrote: the offline check and the scrub find it although offsets have
//! gaps, a repair cuts before it, and what is left opens and goes on.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;

use crate::common::keyed::*;
use crate::common::*;
use varve_storage::inspect::verify;
use varve_storage::{Log, LogError, Reason, repair};
use varve_vfs::Vfs;
use varve_vfs::mem::MemVfs;

/// Twelve batches of which every third is superseded: compacted, with gaps, and two plain batches behind.
fn compacted() -> (MemVfs, Arc<dyn Vfs>, Log) {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    log.begin_epoch(epoch(1)).unwrap();
    for n in 0..12 {
        let key = if n % 3 == 1 {
            "again".to_owned()
        } else {
            format!("key-{n}")
        };
        put_now(&mut log, &[(&key, Some("value"))]);
    }
    seal_off(&mut log);
    put_now(&mut log, &[("again", Some("last"))]);
    put_now(&mut log, &[("more", Some("last"))]);
    log.flush_now().unwrap();
    compact(&mut log);
    assert_eq!(log.segments(), 2);
    (mem, vfs, log)
}

fn files(vfs: &dyn Vfs) -> Vec<(PathBuf, Vec<u8>)> {
    let list = vfs.list(&dir()).unwrap();
    let path = |name: &str| dir().join(name);
    list.iter()
        .map(|e| (path(&e.name), vfs.read(&path(&e.name)).unwrap()))
        .collect()
}

fn compacted_log_file(vfs: &dyn Vfs) -> PathBuf {
    let all = files(vfs).into_iter().map(|(path, _)| path);
    let mut named = all.filter(|p| {
        let name = p.file_name().unwrap().to_string_lossy().into_owned();
        name.contains('-') && name.ends_with(".log")
    });
    named.next().unwrap()
}

#[test]
fn the_offline_check_finds_every_bit_of_a_compacted_log() {
    let (_, vfs, log) = compacted();
    log.close(true).unwrap();
    let report = verify(&vfs, &dir()).unwrap();
    assert!(report.is_good() && report.notes.is_empty(), "{report:?}");
    assert_eq!(report.log_end, Some(o(14)));
    let mut flips = 0;
    for (path, bytes) in files(&*vfs) {
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                put(&*vfs, &path, &bad);
                let report = verify(&vfs, &dir()).unwrap();
                assert!(!report.is_good(), "{} byte {at} bit {bit}", path.display());
                flips += 1;
            }
        }
        put(&*vfs, &path, &bytes);
    }
    assert!(flips > 8_000, "{flips}");
    assert!(verify(&vfs, &dir()).unwrap().is_good());
}

/// All that a scrub of the log finds.
fn scrub(log: &Log) -> usize {
    let view = log.view();
    let mut found = view.scrub_small_files().unwrap().damage.len();
    for (base, _) in view.segments() {
        let mut segment = view.scrub(base, log.flushed()).unwrap().unwrap();
        loop {
            let step = segment.step(1 << 20).unwrap();
            found += step.damage.len();
            if step.done {
                break;
            }
        }
    }
    found
}

#[test]
fn a_scrub_takes_gaps_for_what_they_are_and_finds_damage() {
    let (_, vfs, log) = compacted();
    assert_eq!(scrub(&log), 0);
    let path = compacted_log_file(&*vfs);
    let bytes = vfs.read(&path).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        put(&*vfs, &path, &bad);
        assert!(scrub(&log) > 0, "byte {at}");
    }
    put(&*vfs, &path, &bytes);
    assert_eq!(scrub(&log), 0);
}

#[test]
fn a_repair_cuts_a_compacted_segment_before_its_damage() {
    for at in [5_usize, 30, 200, 350] {
        let (_, vfs, log) = compacted();
        let before = records(&log.view());
        log.close(true).unwrap();
        let path = compacted_log_file(&*vfs);
        let mut bytes = vfs.read(&path).unwrap();
        bytes[at] ^= 4;
        put(&*vfs, &path, &bytes);
        let plan = repair::plan(&vfs, &dir()).unwrap();
        assert!(!plan.is_needless());
        let done = repair::execute(&vfs, &plan, NOW).unwrap();
        assert!(done.report.is_good(), "{:?}", done.report);
        let (mut log, _) = open(&vfs, config(), true);
        assert_eq!(log.log_end(), plan.cut_at);
        let kept = records(&log.view());
        assert_eq!(kept.len() as u64, plan.records_kept);
        assert!(before.starts_with(&kept));
        let at = put_now(&mut log, &[("after", Some("1"))]);
        assert_eq!(at, plan.cut_at);
        log.close(true).unwrap();
        assert!(verify(&vfs, &dir()).unwrap().is_good());
    }
}

#[test]
fn without_its_manifest_a_compacted_log_is_not_guessed_at() {
    let (_, vfs, log) = compacted();
    log.close(true).unwrap();
    vfs.remove_file(&dir().join("manifest")).unwrap();
    let before = files(&*vfs);
    let refused = repair::plan(&vfs, &dir()).unwrap_err();
    assert!(refused.to_string().contains("manifest"), "{refused}");
    let refused = try_open(&vfs, config(), false).unwrap_err();
    assert!(matches!(refused, LogError::Corrupt(c) if c.reason == Reason::ManifestMissing));
    assert_eq!(files(&*vfs), before, "nothing was changed");
}

#[test]
fn bytes_that_a_compacted_segment_lost_refuse_the_log() {
    let (_, vfs, log) = compacted();
    log.close(true).unwrap();
    let path = compacted_log_file(&*vfs);
    let bytes = vfs.read(&path).unwrap();
    put(&*vfs, &path, &bytes[..bytes.len() - 1]);
    for clean in [true, false] {
        let refused = try_open(&vfs, config(), clean).unwrap_err();
        assert!(matches!(refused, LogError::Corrupt(c) if c.reason == Reason::BytesMissing));
    }
    assert!(!verify(&vfs, &dir()).unwrap().is_good());
}
