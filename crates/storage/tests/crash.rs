//! Crashes, damage and failing disks: what was flushed is never lost, what is damaged is never served as
//! whole, and what cannot be explained is refused without changing a byte.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use crate::common::*;
use rustix::io::Errno;
use varve_storage::inspect::verify;
use varve_storage::{LogConfig, LogError, Reason};
use varve_types::Offset;
use varve_vfs::Vfs;
use varve_vfs::fault::{FaultVfs, Op};
use varve_vfs::mem::MemVfs;

/// Disk with a log whose first ten batches are below the checkpoint and whose last six are written only.
/// Returns its bytes, batch boundaries and the checkpoint.
fn half_flushed() -> (MemVfs, Vec<u8>, Vec<(usize, i64)>, usize) {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    log.begin_epoch(epoch(1)).unwrap();
    let mut all = fill(&mut log, 10);
    log.flush_now().unwrap();
    log.flush_index().unwrap();
    let checkpoint = bytes_of(&all).len();
    all.extend(fill(&mut log, 6));
    let mut ends = vec![(0, 0)];
    for batch in &all {
        let end = ends.last().unwrap().0 + batch.size();
        ends.push((end, batch.header().next_offset().get()));
    }
    (mem, bytes_of(&all), ends, checkpoint)
}

fn refused(result: Result<(varve_storage::Log, varve_storage::Recovery), LogError>) -> Reason {
    match result {
        Ok((log, _)) => panic!("opened, up to offset {}", log.log_end()),
        Err(LogError::Corrupt(found)) => {
            assert!(found.to_string().contains("Nothing was changed"), "{found}");
            found.reason
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn cut_at_every_byte() {
    let (mem, bytes, ends, checkpoint) = half_flushed();
    for len in 0..=bytes.len() {
        let image = mem.image();
        let vfs: Arc<dyn Vfs> = Arc::new(image);
        vfs.open_write(&log_file(0))
            .unwrap()
            .set_len(len as u64)
            .unwrap();
        if len < checkpoint {
            assert_eq!(
                refused(try_open(&vfs, config(), false)),
                Reason::BytesMissing,
                "{len}"
            );
            assert_eq!(
                vfs.read(&log_file(0)).unwrap(),
                bytes[..len],
                "a refusal changes nothing"
            );
            continue;
        }
        let (end, offset) = *ends.iter().rfind(|(end, _)| *end <= len).unwrap();
        let (mut log, recovery) = open(&vfs, config(), false);
        assert_eq!(log.log_end(), o(offset), "cut at {len}");
        assert_eq!(recovery.bytes_cut as usize, len - end);
        assert_eq!(recovery.lost_bytes(), len != end);
        assert_eq!(read_all(&log.view(), Offset::ZERO, 4000), bytes[..end]);
        fill(&mut log, 1);
    }
}

#[test]
fn every_flipped_bit_of_the_end_is_judged_right() {
    let (mem, bytes, ends, checkpoint) = half_flushed();
    let last_start = ends[ends.len() - 2].0;
    let from = bytes.len().saturating_sub(2048);
    assert!(
        from < checkpoint && checkpoint < last_start,
        "the range holds all kinds"
    );
    for at in from..bytes.len() {
        let start = ends.iter().rfind(|(end, _)| *end <= at).unwrap().0;
        // The format's checksum leaves out the epoch, which is guarded below the checkpoint only.
        let in_epoch = (12..16).contains(&(at - start));
        for bit in 0..8 {
            let image = mem.image();
            let vfs: Arc<dyn Vfs> = Arc::new(image);
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            put(&*vfs, &log_file(0), &bad);
            let result = try_open(&vfs, config(), false);
            if at < checkpoint {
                assert_eq!(
                    refused(result),
                    Reason::BelowCheckpoint,
                    "byte {at} bit {bit}"
                );
            } else if in_epoch {
                match result {
                    Ok((log, _)) => assert!(log.log_end() >= o(30)),
                    Err(error) => assert!(matches!(error, LogError::Corrupt(_)), "{error}"),
                }
                continue;
            } else if at < last_start {
                assert_eq!(
                    refused(result),
                    Reason::BatchBehindDamage,
                    "byte {at} bit {bit}"
                );
            } else {
                let (log, recovery) = result.unwrap();
                assert_eq!(
                    log.log_end(),
                    o(ends[ends.len() - 2].1),
                    "byte {at} bit {bit}"
                );
                assert_eq!(recovery.bytes_cut as usize, bytes.len() - last_start);
                continue;
            }
            assert_eq!(
                vfs.read(&log_file(0)).unwrap(),
                bad,
                "a refusal changes nothing"
            );
        }
    }
}

#[test]
fn damage_after_a_clean_stop_is_never_cut() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    let bytes = bytes_of(&fill(&mut log, 5));
    log.close(true).unwrap();
    let image: Arc<dyn Vfs> = Arc::new(mem.image());
    put(
        &*image,
        &log_file(0),
        &[bytes.clone(), vec![7; 10]].concat(),
    );
    assert_eq!(
        refused(try_open(&image, config(), true)),
        Reason::DamageAfterCleanStop
    );
    let (log, recovery) = open(&image, config(), false);
    assert_eq!(
        (log.log_end(), recovery.bytes_cut),
        (o(15), 10),
        "a torn tail when not clean"
    );
}

#[test]
fn a_good_batch_of_another_log_in_the_place_of_ours_is_found() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    let made = fill(&mut log, 5);
    log.close(true).unwrap();
    // Same offsets, same length, right checksum: only the companion knows better.
    let size = 20 + 6 * 7;
    assert_eq!(
        batch(o(6), 1, NOW + 6, 3, size).to_bytes(),
        made[2].to_bytes()
    );
    let foreign = batch(o(6), 1, NOW + 60, 3, size).to_bytes();
    assert_eq!(foreign.len(), made[2].size());
    let mut bytes = bytes_of(&made);
    let at = made[0].size() + made[1].size();
    bytes[at..at + foreign.len()].copy_from_slice(&foreign);
    let image: Arc<dyn Vfs> = Arc::new(mem.image());
    put(&*image, &log_file(0), &bytes);
    assert_eq!(
        refused(try_open(&image, config(), false)),
        Reason::BelowCheckpoint
    );
    let report = verify(&image, &dir()).unwrap();
    assert!(!report.is_good(), "verify compares the companions too");
    assert_eq!(report.batches, 5, "each batch is good by itself");
}

#[test]
fn a_time_index_of_which_a_crash_left_the_name_gets_its_header() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    log.flush_now().unwrap();
    drop(log);
    mem.kill_process();
    vfs.create_new(&file(0, "timeindex")).unwrap();
    let (mut log, _) = open(&vfs, config(), false);
    fill(&mut log, 5);
    log.close(true).unwrap();
    let report = verify(&vfs, &dir()).unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
}

#[test]
fn damage_in_a_sealed_segment_is_refused() {
    let (mem, vfs) = mem();
    let config = LogConfig {
        segment_bytes: 1000,
        ..config()
    };
    let (mut log, _) = open(&vfs, config, false);
    fill(&mut log, 30);
    log.close(true).unwrap();
    let bytes = vfs.read(&log_file(0)).unwrap();
    let image: Arc<dyn Vfs> = Arc::new(mem.image());
    put(&*image, &log_file(0), &bytes[..bytes.len() - 1]);
    assert_eq!(
        refused(try_open(&image, config, true)),
        Reason::BytesMissing
    );
    let image: Arc<dyn Vfs> = Arc::new(mem.image());
    put(&*image, &log_file(0), &[bytes.clone(), vec![0]].concat());
    assert_eq!(
        refused(try_open(&image, config, true)),
        Reason::SealedDamaged
    );
    let image: Arc<dyn Vfs> = Arc::new(mem.image());
    let mut bad = bytes;
    bad[200] ^= 1;
    put(&*image, &log_file(0), &bad);
    image.remove_file(&file(0, "index")).unwrap();
    assert_eq!(
        refused(try_open(&image, config, true)),
        Reason::SealedDamaged
    );
    image.remove_file(&log_file(0)).unwrap();
    assert_eq!(
        refused(try_open(&image, config, true)),
        Reason::SegmentMissing
    );
}

/// A workload that touches everything that writes. Stops at the first failure; returns the offset that was
/// last reported as flushed and whether it got through.
fn workload(log: &mut varve_storage::Log, model: &mut Vec<u8>) -> (i64, bool) {
    let mut flushed = 0;
    for round in 0..12i64 {
        let made = batches(log.log_end(), 3);
        if log.append(&made, NOW).is_err() {
            return (flushed, false);
        }
        model.extend(bytes_of(&made));
        if round == 6 && log.write_snapshot(log.log_end(), b"state").is_err() {
            return (flushed, false);
        }
        match log
            .flush_now()
            .and_then(|end| log.flush_index().map(|()| end))
        {
            Ok(end) => flushed = end.get(),
            Err(_) => return (flushed, false),
        }
    }
    (flushed, true)
}

#[test]
fn after_one_failure_the_log_does_nothing_and_loses_nothing() {
    let config = LogConfig {
        segment_bytes: 1000,
        ..config()
    };
    for op in [Op::Write, Op::Sync, Op::SyncDir, Op::Create, Op::Rename] {
        for nth in 1.. {
            let (mem, inner) = mem();
            drop(open(&inner, config, false));
            let faults = FaultVfs::new(inner.clone());
            let vfs: Arc<dyn Vfs> = faults.clone();
            let (mut log, _) = open(&vfs, config, true);
            faults.fail_once(op, nth, Errno::IO);
            let mut written = Vec::new();
            let (flushed, through) = workload(&mut log, &mut written);
            if through {
                assert!(nth > 3, "{op:?} was tried");
                break;
            }
            let snapshot_only = log.failure().is_none();
            if !snapshot_only {
                let next = batches(log.log_end(), 1);
                assert!(matches!(
                    log.append(&next, NOW),
                    Err(LogError::Failed { .. })
                ));
                assert!(matches!(
                    log.truncate_to(o(0)),
                    Err(LogError::Failed { .. })
                ));
                assert!(matches!(log.flush_index(), Err(LogError::Failed { .. })));
                assert!(log.flush_target().is_none());
            }
            drop(log);
            mem.crash_losing_unsynced();
            let (log, _) = open(&inner, config, false);
            assert!(
                log.log_end() >= o(flushed),
                "{op:?} {nth}: {} < {flushed}",
                log.log_end()
            );
            let found = read_all(&log.view(), Offset::ZERO, 4000);
            assert!(
                written.starts_with(&found) || found.starts_with(&written),
                "{op:?} {nth}"
            );
        }
    }
}

#[test]
fn a_sync_that_finds_no_space_is_a_failure() {
    let config = LogConfig {
        segment_bytes: 1000,
        ..config()
    };
    for truncate in [true, false] {
        let (_, inner) = mem();
        let faults = FaultVfs::new(inner);
        let vfs: Arc<dyn Vfs> = faults.clone();
        let (mut log, _) = open(&vfs, config, true);
        fill(&mut log, 30);
        faults.fail_once(Op::Sync, 1, Errno::NOSPC);
        let result = if truncate {
            log.truncate_to(o(60)).map(drop)
        } else {
            log.flush_now().map(drop)
        };
        assert!(matches!(result, Err(LogError::Io(_))), "{result:?}");
        assert!(log.failure().is_some());
    }
}

#[test]
fn a_full_disk_refuses_appends_and_nothing_else() {
    let config = LogConfig {
        segment_bytes: 1000,
        ..config()
    };
    for budget in (0..9000).step_by(61) {
        let (mem, inner) = mem();
        drop(open(&inner, config, false));
        let faults = FaultVfs::new(inner.clone());
        let vfs: Arc<dyn Vfs> = faults.clone();
        let (mut log, _) = open(&vfs, config, true);
        faults.set_budget(Some(budget));
        let mut model = Vec::new();
        let (mut refused, mut healed) = (0, false);
        for round in 0..30 {
            let made = batches(log.log_end(), 4);
            let before = (log.log_end(), log.size_bytes(), log.segments());
            match log.append(&made, NOW) {
                Ok(_) => model.extend(bytes_of(&made)),
                Err(error) => {
                    assert!(error.is_no_space(), "{error}");
                    assert_eq!((log.log_end(), log.size_bytes(), log.segments()), before);
                    refused += 1;
                }
            }
            if let Err(error) = log.flush_now() {
                assert!(error.is_no_space(), "{error}");
            }
            assert_eq!(
                read_all(&log.view(), Offset::ZERO, 4000),
                model,
                "budget {budget}"
            );
            if refused > 2 && !healed {
                faults.heal();
                (refused, healed) = (0, true);
            }
            assert!(
                !healed || refused == 0,
                "round {round}: appends work again without a restart"
            );
        }
        faults.heal();
        log.close(true).unwrap();
        mem.crash_losing_unsynced();
        let (log, _) = open(&inner, config, true);
        assert_eq!(read_all(&log.view(), Offset::ZERO, 4000), model);
        let report = verify(&inner, &dir()).unwrap();
        assert!(report.is_good(), "budget {budget}: {:?}", report.problems);
    }
}

#[test]
fn creation_may_be_interrupted_anywhere() {
    let steps = {
        let (mem, vfs) = mem();
        drop(open(&vfs, config(), false));
        mem.changes()
    };
    for kept in 0..=steps {
        let (mem, vfs) = mem();
        drop(open(&vfs, config(), false));
        // What was synced stays; so undo the syncs by failing them.
        let fresh = MemVfs::new();
        let faults = FaultVfs::new(Arc::new(fresh.clone()));
        let failing: Arc<dyn Vfs> = faults.clone();
        faults.fail_after(Op::Any, kept + 1, Errno::IO);
        assert!(try_open(&failing, config(), false).is_err() || kept >= faults.count(Op::Any));
        fresh.crash_in_order(kept, 0);
        let vfs: Arc<dyn Vfs> = Arc::new(fresh);
        let (mut log, _) = open(&vfs, config(), false);
        fill(&mut log, 2);
        log.close(true).unwrap();
        drop(mem);
    }
}

/// Runs `work` on a log whose process dies after the given number of changes of the disk, and returns that
/// disk as the next process finds it.
fn killed_after(changes: u64, config: LogConfig, work: impl Fn(&mut varve_storage::Log)) -> MemVfs {
    let (mem, inner) = mem();
    let faults = FaultVfs::new(inner);
    let vfs: Arc<dyn Vfs> = faults.clone();
    let (mut log, _) = open(&vfs, config, false);
    faults.fail_after(Op::Any, changes, Errno::IO);
    work(&mut log);
    drop(log);
    mem.kill_process();
    mem
}

#[test]
fn names_and_lengths_that_a_killed_process_left_unsynced_are_durable_after_recovery() {
    let config = LogConfig {
        segment_bytes: 1000,
        ..config()
    };
    for changes in 1..60 {
        let mem = killed_after(changes, config, |log| {
            let made = batches(log.log_end(), 8);
            let _ = log.append(&made, NOW);
            let _ = log.flush_now();
            let _ = log.begin_epoch(epoch(2));
            let _ = log.truncate_to(o(9));
            let _ = log.flush_now();
        });
        let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
        let (log, _) = open(&vfs, config, false);
        let (end, epochs) = (log.log_end(), log.epochs().entries().to_vec());
        let bytes = read_all(&log.view(), Offset::ZERO, 4000);
        drop(log);
        mem.crash_losing_unsynced();
        let (log, _) = open(&vfs, config, false);
        assert_eq!(log.log_end(), end, "killed after {changes} changes");
        assert_eq!(
            log.epochs().entries(),
            epochs,
            "killed after {changes} changes"
        );
        assert_eq!(read_all(&log.view(), Offset::ZERO, 4000), bytes);
    }
}

#[test]
fn a_flush_taken_before_a_failure_does_nothing_after_it() {
    let config = LogConfig {
        segment_bytes: 1000,
        ..config()
    };
    let (_, inner) = mem();
    let faults = FaultVfs::new(inner);
    let vfs: Arc<dyn Vfs> = faults.clone();
    let (mut log, _) = open(&vfs, config, false);
    fill(&mut log, 8);
    let (first, second) = (log.flush_target().unwrap(), log.flush_target().unwrap());
    faults.fail_once(Op::Sync, 1, Errno::IO);
    let error = first.run().unwrap_err();
    let before = faults.count(Op::Any);
    assert!(second.run().is_err(), "it would prove nothing");
    assert_eq!(faults.count(Op::Any), before, "and it touches nothing");
    log.flush_failed(&error);
    assert!(log.failure().is_some());
}

#[test]
fn a_refused_append_stays_refused_after_a_power_cut() {
    let (mem, inner) = mem();
    let faults = FaultVfs::new(inner.clone());
    let vfs: Arc<dyn Vfs> = faults.clone();
    let (mut log, _) = open(&vfs, config(), false);
    fill(&mut log, 2);
    let end = log.log_end();
    let made = batches(end, 3);
    faults.set_budget(Some(made[0].size() as u64 + 70));
    assert!(log.append(&made, NOW).unwrap_err().is_no_space());
    drop(log);
    let last = mem.changes() - 1;
    mem.crash_in_order(last, 0);
    let (log, _) = open(&inner, config(), false);
    assert_eq!(
        log.log_end(),
        end,
        "the cut was durable when it was refused"
    );
}

#[test]
fn an_interrupted_recovery_forgets_no_epoch() {
    let config = LogConfig {
        segment_bytes: 1000,
        ..config()
    };
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config, false);
    for e in 1..6 {
        log.begin_epoch(epoch(e)).unwrap();
        for _ in 0..2 {
            let one = batch(log.log_end(), e, NOW, 3, 60);
            log.append(&[one], NOW).unwrap();
        }
        if e == 1 {
            log.flush_now().unwrap();
        }
    }
    let right = log.epochs().entries().to_vec();
    drop(log);
    let image = mem.image();
    let index: Arc<dyn Vfs> = Arc::new(image.clone());
    put(&*index, &file(0, "index"), b"damaged");
    for step in 1..80 {
        let copy = image.fork();
        let faults = FaultVfs::new(Arc::new(copy.clone()));
        faults.fail_after(Op::Any, step, Errno::IO);
        let failing: Arc<dyn Vfs> = faults;
        let done = try_open(&failing, config, false).is_ok();
        copy.crash(&mut |_| varve_vfs::mem::Fate::Keep);
        let vfs: Arc<dyn Vfs> = Arc::new(copy);
        let (log, _) = open(&vfs, config, false);
        assert_eq!(log.epochs().entries(), right, "cut off after {step} steps");
        if done {
            return;
        }
    }
    panic!("recovery never ended");
}
