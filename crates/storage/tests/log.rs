//! The log from outside: what goes in comes out, through rolls, reopens, truncations and retention.

use std::sync::Arc;

use crate::common::*;
use varve_record::Sequenced;
use varve_storage::inspect::{dump, verify};
use varve_storage::{LogConfig, LogError, ReadError, ReadMode};
use varve_types::Offset;
use varve_vfs::{RealVfs, Vfs};

fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 2000,
        ..config()
    }
}

#[test]
fn bytes_come_back_as_written_across_segments() {
    let (_, vfs) = mem();
    let (mut log, recovery) = open(&vfs, small_segments(), false);
    assert!(recovery.created);
    let made = fill(&mut log, 60);
    assert!(log.segments() > 3, "{} segments", log.segments());
    assert_eq!(log.log_end(), o(180));
    let view = log.view();
    for max in [1, 300, 5000, 1 << 20] {
        assert_eq!(
            read_all(&view, Offset::ZERO, max),
            bytes_of(&made),
            "max {max}"
        );
    }
    // From within a batch, the whole batch comes first.
    let found = slice(
        view.read(o(10), 1, o(180), true, ReadMode::Blocking, None)
            .unwrap(),
    );
    assert_eq!(
        (found.base_offset, found.next_offset, found.batches),
        (o(9), o(12), 1)
    );
    assert_eq!(found.last_epoch, Some(epoch(1)));
    let headers: Vec<i64> = view
        .headers(o(10))
        .map(|h| h.unwrap().base_offset.get())
        .collect();
    assert_eq!(headers, (3..60).map(|i| i * 3).collect::<Vec<_>>());
}

#[test]
fn reads_stop_at_batch_boundaries_and_bounds() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    let made = fill(&mut log, 20);
    let view = log.view();
    let read = |offset, max, upto, one| {
        slice(
            view.read(o(offset), max, o(upto), one, ReadMode::Blocking, None)
                .unwrap(),
        )
    };
    assert_eq!(
        read(0, 1 << 20, 31, true).next_offset,
        o(30),
        "cut below the bound"
    );
    assert!(
        read(30, 1 << 20, 31, true).bytes.is_empty(),
        "no whole batch below the bound"
    );
    assert!(
        read(0, 10, 60, false).bytes.is_empty(),
        "too large, and not asked for"
    );
    assert!(read(60, 10, 60, true).bytes.is_empty(), "at the end");
    let two = made[0].size() + made[1].size();
    assert_eq!(read(0, two, 60, false).next_offset, o(6));
    assert_eq!(read(0, two - 1, 60, false).next_offset, o(3));
    let error = view
        .read(o(61), 1, o(100), true, ReadMode::Blocking, None)
        .unwrap_err();
    assert!(matches!(error, ReadError::OutOfRange { .. }), "{error}");
}

#[test]
fn a_cursor_that_does_not_fit_is_ignored() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    fill(&mut log, 30);
    let view = log.view();
    let first = slice(
        view.read(o(0), 500, o(90), true, ReadMode::Blocking, None)
            .unwrap(),
    );
    let cursor = first.cursor.unwrap();
    let wrong = slice(
        view.read(o(60), 1, o(90), true, ReadMode::Blocking, Some(&cursor))
            .unwrap(),
    );
    assert_eq!(wrong.base_offset, o(60));
    let right = slice(
        view.read(
            first.next_offset,
            1,
            o(90),
            true,
            ReadMode::NoWait,
            Some(&cursor),
        )
        .unwrap(),
    );
    assert_eq!(right.base_offset, first.next_offset);
}

#[test]
fn an_old_view_reads_on_after_appends_rolls_and_removals() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, small_segments(), false);
    let made = fill(&mut log, 30);
    log.flush_now().unwrap();
    let old = log.view();
    fill(&mut log, 30);
    let removal = log.trim(o(150)).unwrap();
    assert!(removal.segments >= 2 && removal.bytes > 0);
    assert_eq!(read_all(&old, Offset::ZERO, 700), bytes_of(&made));
    let bytes = removal.bytes;
    assert_eq!(removal.run().unwrap(), bytes);
    let error = log
        .view()
        .read(o(0), 1, o(180), true, ReadMode::Blocking, None)
        .unwrap_err();
    assert!(
        matches!(error, ReadError::OutOfRange { start, .. } if start == o(150)),
        "{error}"
    );
}

#[test]
fn segments_roll_by_time() {
    let (_, vfs) = mem();
    let (mut log, _) = open(
        &vfs,
        LogConfig {
            segment_ms: 1000,
            ..config()
        },
        false,
    );
    for (i, at) in [0, 500, 999, 1000, 1500, 2000].into_iter().enumerate() {
        log.append(&batches(o(i as i64 * 3), 1), NOW + at).unwrap();
    }
    assert_eq!(log.segments(), 3);
}

#[test]
fn clean_reopen_scans_little_and_keeps_all() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, small_segments(), false);
    log.begin_epoch(epoch(1)).unwrap();
    let made = fill(&mut log, 50);
    log.close(true).unwrap();
    mem.crash_losing_unsynced();
    for clean in [true, false] {
        let (log, recovery) = open(&vfs, small_segments(), clean);
        assert_eq!(recovery.bytes_cut, 0);
        assert_eq!(recovery.bytes_persisted_again, 0, "all was checkpointed");
        assert_eq!(recovery.indexes_rebuilt, 0);
        assert_eq!((log.log_end(), log.flushed()), (o(150), o(150)));
        assert_eq!(log.last_epoch(), Some(epoch(1)));
        assert_eq!(read_all(&log.view(), Offset::ZERO, 900), bytes_of(&made));
        assert_eq!(read_all(&log.view(), o(100), 900), bytes_of(&made[33..]));
        log.close(true).unwrap();
    }
}

#[test]
fn unclean_reopen_persists_the_tail_again() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    let made = fill(&mut log, 10);
    log.flush_now().unwrap();
    fill(&mut log, 5);
    drop(log);
    mem.kill_process();
    let (log, recovery) = open(&vfs, config(), false);
    assert_eq!(
        log.log_end(),
        o(45),
        "a process crash loses nothing that was written"
    );
    assert!(recovery.bytes_persisted_again > 0);
    assert!(!recovery.lost_bytes());
    assert_eq!(log.flushed(), o(45));
    // Now it counts as durable, so a power cut must not take it away.
    mem.crash_losing_unsynced();
    let (log, _) = open(&vfs, config(), false);
    assert_eq!(log.log_end(), o(45));
    assert_eq!(
        read_all(&log.view(), Offset::ZERO, 900)[..bytes_of(&made).len()],
        bytes_of(&made)
    );
}

#[test]
fn a_flush_makes_a_roll_durable() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, small_segments(), false);
    let made = fill(&mut log, 40);
    let target = log.flush_target().unwrap();
    assert_eq!(target.upto(), o(120));
    assert_eq!(target.bytes(), log.size_bytes());
    let done = target.run().unwrap();
    assert_eq!(log.flushed(), o(0), "not before the log is told");
    assert_eq!(log.flush_done(&done).unwrap(), o(120));
    assert!(log.flush_target().is_none());
    mem.crash_losing_unsynced();
    let (log, _) = open(&vfs, small_segments(), false);
    assert_eq!(read_all(&log.view(), Offset::ZERO, 900), bytes_of(&made));
}

#[test]
fn a_segment_begun_after_the_last_flush_survives_a_killed_process() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, small_segments(), false);
    let made = fill(&mut log, 60);
    let segments = log.segments();
    drop(log);
    mem.kill_process();
    let (mut log, recovery) = open(&vfs, small_segments(), false);
    assert_eq!((log.segments(), recovery.bytes_cut), (segments, 0));
    assert_eq!(read_all(&log.view(), Offset::ZERO, 900), bytes_of(&made));
    fill(&mut log, 1);
    log.flush_now().unwrap();
    assert!(verify(&vfs, &dir()).unwrap().is_good());
}

#[test]
fn truncation_is_durable_and_keeps_whole_batches() {
    for at in [0, 1, 2, 3, 59, 60, 61, 100, 150, 178, 179] {
        let (mem, vfs) = mem();
        let (mut log, _) = open(&vfs, small_segments(), false);
        let made = fill(&mut log, 60);
        log.flush_now().unwrap();
        log.flush_index().unwrap();
        let old = log.view();
        let before = log.flush_target();
        assert!(before.is_none());
        let removal = log.truncate_to(o(at)).unwrap();
        let keep = (at / 3) as usize;
        assert_eq!(log.log_end(), o(keep as i64 * 3), "at {at}");
        assert_eq!(log.flushed(), log.log_end());
        assert_eq!(
            read_all(&log.view(), Offset::ZERO, 900),
            bytes_of(&made[..keep])
        );
        if at < 178 {
            let stale = old.read(o(at.min(170)), 1, o(180), true, ReadMode::Blocking, None);
            let stale = matches!(stale, Err(ReadError::Stale)) || at % 3 == 0;
            assert!(stale || removal.segments > 0, "at {at}");
        }
        removal.run().unwrap();
        mem.crash_losing_unsynced();
        let (mut log, _) = open(&vfs, small_segments(), false);
        assert_eq!(log.log_end(), o(keep as i64 * 3), "at {at} after a crash");
        let again = fill(&mut log, 10);
        log.flush_now().unwrap();
        let all = [bytes_of(&made[..keep]), bytes_of(&again)].concat();
        assert_eq!(read_all(&log.view(), Offset::ZERO, 900), all);
        log.close(true).unwrap();
        let report = verify(&vfs, &dir()).unwrap();
        assert!(report.is_good(), "at {at}: {:?}", report.problems);
    }
}

#[test]
fn a_flush_from_before_a_truncation_counts_for_nothing() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    fill(&mut log, 10);
    let target = log.flush_target().unwrap();
    let removal = log.truncate_to(o(15)).unwrap();
    assert!(removal.is_empty());
    fill(&mut log, 10);
    let flushed = log.flushed();
    let done = target.run().unwrap();
    assert_eq!(log.flush_done(&done).unwrap(), flushed);
    assert_eq!(log.flush_now().unwrap(), o(45));
}

#[test]
fn an_older_flush_never_overwrites_a_newer_manifest() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, small_segments(), false);
    fill(&mut log, 60);
    let late = log.flush_target().unwrap();
    log.flush_now().unwrap();
    let removal = log.trim(o(120)).unwrap();
    removal.run().unwrap();
    let done = late.run().unwrap();
    log.flush_done(&done).unwrap();
    mem.crash_losing_unsynced();
    let (log, _) = open(&vfs, small_segments(), false);
    assert_eq!((log.log_start(), log.log_end()), (o(120), o(180)));
}

#[test]
fn a_log_starts_over_where_it_is_told() {
    for at in [0, 7, 90, 180, 5000] {
        let (mem, vfs) = mem();
        let (mut log, _) = open(&vfs, small_segments(), false);
        fill(&mut log, 60);
        log.write_snapshot(o(90), b"state").unwrap();
        let removal = log.reset_to(o(at)).unwrap();
        assert_eq!(
            (log.log_start(), log.log_end(), log.flushed()),
            (o(at), o(at), o(at))
        );
        assert_eq!(log.last_epoch(), None);
        assert_eq!(log.segments(), 1);
        removal.run().unwrap();
        mem.crash_losing_unsynced();
        let (mut log, _) = open(&vfs, small_segments(), false);
        assert_eq!((log.log_start(), log.log_end()), (o(at), o(at)), "at {at}");
        let made = fill(&mut log, 20);
        assert_eq!(read_all(&log.view(), o(at), 400), bytes_of(&made));
    }
}

#[test]
fn trimming_moves_the_start_for_good() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, small_segments(), false);
    let made = fill(&mut log, 60);
    assert!(matches!(log.trim(o(181)), Err(LogError::OutOfRange { .. })));
    log.trim(o(100)).unwrap().run().unwrap();
    assert_eq!(log.log_start(), o(100));
    mem.crash_losing_unsynced();
    let (mut log, _) = open(&vfs, small_segments(), false);
    assert_eq!(log.log_start(), o(100));
    assert_eq!(read_all(&log.view(), o(100), 900), bytes_of(&made[33..]));
    log.trim(o(180)).unwrap().run().unwrap();
    assert_eq!((log.size_bytes(), log.segments()), (0, 1));
    mem.crash_losing_unsynced();
    let (log, _) = open(&vfs, small_segments(), false);
    assert_eq!((log.log_start(), log.log_end()), (o(180), o(180)));
}

#[test]
fn retention_removes_by_size_and_by_time_below_the_high_watermark() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, small_segments(), false);
    fill(&mut log, 60);
    let all = log.size_bytes();
    log.set_config(LogConfig {
        retention_bytes: Some(4000),
        ..small_segments()
    });
    assert!(
        log.apply_retention(NOW, o(0)).unwrap().is_empty(),
        "nothing is committed"
    );
    let removal = log.apply_retention(NOW, o(180)).unwrap();
    assert!(!removal.is_empty());
    assert!(
        log.size_bytes() >= 4000 && log.size_bytes() < 6000,
        "{} of {all}",
        log.size_bytes()
    );
    assert!(log.log_start() > o(0));
    assert_eq!(log.log_start(), log.view().log_start());

    log.set_config(LogConfig {
        retention_ms: Some(1000),
        ..small_segments()
    });
    assert!(
        log.apply_retention(NOW + 1100, o(180)).unwrap().is_empty(),
        "newest is at NOW + 179"
    );
    let removal = log.apply_retention(NOW + 2000, o(180)).unwrap();
    assert!(removal.segments > 0);
    assert_eq!(
        (log.log_start(), log.log_end(), log.size_bytes()),
        (o(180), o(180), 0)
    );
}

/// A clock was ahead once, or a limit of timestamps was raised: retention goes on by the time of this node.
#[test]
fn records_of_the_future_expire_by_the_time_of_this_node() {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    let (_, vfs) = mem();
    let config = LogConfig {
        retention_ms: Some(60_000),
        segment_ms: 10_000,
        ..small_segments()
    };
    let (mut log, _) = open(&vfs, config, false);
    for i in 0..30i64 {
        let ts = if i < 5 { NOW + 75 * YEAR_MS } else { NOW + i };
        log.append(&[batch(o(i * 3), 1, ts, 3, 60)], NOW + i)
            .unwrap();
    }
    let young = log.apply_retention(NOW + 59_000, o(90)).unwrap();
    assert!(young.is_empty(), "the first segment was sealed after NOW");
    let old = log.apply_retention(NOW + 61_000, o(90)).unwrap();
    assert!(old.segments > 1);
    assert_eq!(log.log_start(), o(90), "none stays for 75 years");
    // The active segment alone: its last record came before it had to end.
    let ahead = batch(o(90), 1, NOW + 75 * YEAR_MS, 3, 60);
    log.append(&[ahead], NOW + 100_000).unwrap();
    let limit = NOW + 100_000 + 10_000 + 60_000;
    assert!(log.apply_retention(limit, o(93)).unwrap().is_empty());
    assert!(!log.apply_retention(limit + 1, o(93)).unwrap().is_empty());
    assert_eq!((log.log_start(), log.size_bytes()), (o(93), 0));
}

#[test]
fn timestamps_find_the_first_record() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, small_segments(), false);
    // Two batches are ahead of their time.
    let mut made: Vec<Sequenced> = Vec::new();
    for i in 0..60i64 {
        let ts = match i {
            10 => NOW + 5_000,
            40 => NOW + 9_000,
            _ => NOW + i * 100,
        };
        made.push(batch(o(i * 3), 1, ts, 3, 60));
    }
    log.append(&made, NOW).unwrap();
    let expect = |ts: i64, upto: i64, from: i64| {
        made.iter()
            .flat_map(|b| {
                (0..3).map(move |i| {
                    (
                        b.header().base_offset.get() + i,
                        b.header().base_timestamp + i,
                    )
                })
            })
            .find(|(offset, t)| *t >= ts && *offset < upto && *offset >= from)
            .map(|(offset, t)| (o(offset), t))
    };
    for stage in 0..3 {
        match stage {
            0 => {}
            1 => {
                log.flush_now().unwrap();
                log.flush_index().unwrap();
                log.flush_now().unwrap();
            }
            _ => {
                log.trim(o(35)).unwrap().run().unwrap();
            }
        }
        let from = log.log_start().get();
        for ts in (NOW - 100..NOW + 9_200).step_by(49) {
            for upto in [180, 100, 32] {
                let found = log.view().offset_for_timestamp(ts, o(upto)).unwrap();
                assert_eq!(
                    found,
                    expect(ts, upto, from),
                    "stage {stage} ts {} upto {upto}",
                    ts - NOW
                );
            }
        }
    }
}

#[test]
fn indexes_may_be_deleted_or_damaged_without_changing_an_answer() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, small_segments(), false);
    let made = fill(&mut log, 60);
    log.begin_epoch(epoch(2)).unwrap();
    log.write_snapshot(o(180), b"state").unwrap();
    log.close(true).unwrap();
    let names: Vec<String> = vfs
        .list(&dir())
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    let derivable = |n: &String| !n.ends_with(".log") && n != "manifest";
    let mut tried = 0;
    for name in names.iter().filter(|n| derivable(n)) {
        let bytes = vfs.read(&dir().join(name)).unwrap();
        for damage in 0..7usize {
            let image = mem.image();
            let vfs: Arc<dyn Vfs> = Arc::new(image);
            let path = dir().join(name);
            let mut bad = bytes.clone();
            match damage {
                0 => vfs.remove_file(&path).unwrap(),
                1 => put(&*vfs, &path, &[]),
                2 => put(&*vfs, &path, &bytes[..bytes.len() - 1]),
                3 => put(&*vfs, &path, &[bytes.clone(), vec![0; 64]].concat()),
                n => {
                    let at = (bytes.len() - 1) * (n - 4) / 2;
                    bad[at] ^= 0x10;
                    put(&*vfs, &path, &bad);
                }
            }
            for clean in [true, false] {
                let (log, _) = open(&vfs, small_segments(), clean);
                assert_eq!(
                    read_all(&log.view(), Offset::ZERO, 700),
                    bytes_of(&made),
                    "{name} {damage}"
                );
                for at in [50, 100, 170] {
                    let read = log
                        .view()
                        .read(o(at), 1, o(180), true, ReadMode::Blocking, None);
                    let found = slice(read.unwrap());
                    assert_eq!(found.base_offset, o(at / 3 * 3), "{name} {damage}");
                    let ts = NOW + at;
                    let found = log.view().offset_for_timestamp(ts, o(180)).unwrap();
                    assert_eq!(found, Some((o(at), ts)), "{name} {damage}");
                }
                let ends = log.end_offset_for_epoch(epoch(1));
                assert_eq!(ends, Some((epoch(1), o(180))), "{name} {damage}");
            }
            tried += 1;
        }
    }
    assert!(tried > 40, "{tried}");
}

#[test]
fn snapshots_are_checked_and_follow_truncation() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    fill(&mut log, 20);
    for at in [12, 30, 60] {
        log.write_snapshot(o(at), format!("state at {at}").as_bytes())
            .unwrap();
    }
    assert_eq!(
        log.latest_snapshot(o(60)),
        Some((o(60), b"state at 60".to_vec()))
    );
    assert_eq!(
        log.latest_snapshot(o(59)),
        Some((o(30), b"state at 30".to_vec()))
    );
    assert_eq!(log.latest_snapshot(o(29)), None, "only two are kept");
    let path = dir().join(format!("{:020}.snapshot", 60));
    let mut bytes = vfs.read(&path).unwrap();
    bytes[50] ^= 1;
    put(&*vfs, &path, &bytes);
    assert_eq!(
        log.latest_snapshot(o(60)),
        Some((o(30), b"state at 30".to_vec()))
    );
    log.truncate_to(o(31)).unwrap().run().unwrap();
    assert!(!vfs.exists(&path).unwrap());
    log.truncate_to(o(10)).unwrap().run().unwrap();
    assert_eq!(log.latest_snapshot(o(100)), None);
}

#[test]
fn epochs_come_from_leaders_and_batches_and_survive() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, small_segments(), false);
    let mut next = 0;
    for (e, count) in [(1, 20), (4, 20), (5, 20)] {
        let made: Vec<Sequenced> = (0..count)
            .map(|i| batch(o(next + i), e, NOW, 1, 100))
            .collect();
        log.append(&made, NOW).unwrap();
        next += count;
    }
    let back = log.append(&[batch(o(60), 4, NOW, 1, 10)], NOW).unwrap_err();
    assert!(matches!(back, LogError::EpochGoesBack { .. }), "{back}");
    log.begin_epoch(epoch(9)).unwrap();
    log.flush_now().unwrap();
    let ends = |log: &varve_storage::Log| {
        [1, 3, 4, 5, 9].map(|e| {
            log.end_offset_for_epoch(epoch(e))
                .map(|(e, o)| (e.get(), o.get()))
        })
    };
    let right = [
        Some((1, 20)),
        Some((1, 20)),
        Some((4, 40)),
        Some((5, 60)),
        Some((9, 60)),
    ];
    assert_eq!(ends(&log), right);
    mem.crash_losing_unsynced();
    let (mut log, recovery) = open(&vfs, small_segments(), false);
    assert_eq!(ends(&log), right);
    assert!(!recovery.epochs_rebuilt);
    // Another leader was elected: epoch 9 wrote nothing here, so batches of epoch 6 may follow.
    log.append(&[batch(o(60), 6, NOW, 1, 10)], NOW).unwrap();
    assert_eq!(log.last_epoch(), Some(epoch(6)));
    log.truncate_to(o(30)).unwrap().run().unwrap();
    assert_eq!(log.last_epoch(), Some(epoch(4)));
    vfs.remove_file(&dir().join("leader-epoch")).unwrap();
    let (log, recovery) = open(&vfs, small_segments(), false);
    assert!(recovery.epochs_rebuilt);
    assert_eq!(
        log.epochs().entries(),
        [(epoch(1), o(0)), (epoch(4), o(20))]
    );
}

#[test]
fn a_directory_of_another_log_is_refused() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    fill(&mut log, 3);
    log.close(true).unwrap();
    let mut other = identity();
    other.partition.0 += 1;
    let mode = varve_storage::OpenMode { clean: true };
    let error =
        varve_storage::Log::open(vfs.clone(), &dir(), other, config(), mode, NOW).unwrap_err();
    assert!(
        error.to_string().contains("belongs to another log"),
        "{error}"
    );
    vfs.remove_file(&dir().join("manifest")).unwrap();
    let error = try_open(&vfs, config(), true).unwrap_err();
    assert!(error.to_string().contains("no manifest"), "{error}");
}

#[test]
fn a_real_disk_gives_the_same_answers() {
    let temp = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let path = temp.path().join("topics/t-00112233/3");
    let open = |clean| {
        let mode = varve_storage::OpenMode { clean };
        varve_storage::Log::open(vfs.clone(), &path, identity(), small_segments(), mode, NOW)
            .unwrap()
    };
    let (mut log, _) = open(true);
    let made = fill(&mut log, 60);
    log.flush_now().unwrap();
    let waits = log
        .view()
        .read(o(0), 400, o(180), true, ReadMode::NoWait, None)
        .unwrap();
    if let varve_storage::ReadOutcome::Slice(found) = waits {
        assert_eq!(found.base_offset, o(0));
    }
    log.close(true).unwrap();
    let (mut log, _) = open(true);
    assert_eq!(read_all(&log.view(), Offset::ZERO, 900), bytes_of(&made));
    log.trim(o(90)).unwrap().run().unwrap();
    log.truncate_to(o(120)).unwrap().run().unwrap();
    log.release_idle();
    assert_eq!(read_all(&log.view(), o(90), 900), bytes_of(&made[30..40]));
    log.close(true).unwrap();
    let report = verify(&vfs, &path).unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
    assert_eq!(
        (report.log_start, report.log_end),
        (Some(o(90)), Some(o(120)))
    );
    let seen = dump(&vfs, &path)
        .unwrap()
        .filter(|b| b.as_ref().is_ok_and(|b| b.fault.is_none()));
    assert_eq!(seen.count() as u64, report.batches);
}

#[test]
fn readers_never_see_bytes_that_a_truncation_replaced() {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use varve_storage::ReadView;

    let temp = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let path = temp.path().join("p");
    let mode = varve_storage::OpenMode { clean: true };
    let opened = varve_storage::Log::open(vfs, &path, identity(), small_segments(), mode, NOW);
    let (mut log, _) = opened.unwrap();
    fill(&mut log, 30);
    let shared: Mutex<Arc<ReadView>> = Mutex::new(log.view());
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reader in 0..2u64 {
            let (shared, done, reads) = (&shared, &done, &reads);
            scope.spawn(move || {
                let mut at = reader;
                while !done.load(Ordering::Relaxed) {
                    let view = shared.lock().unwrap().clone();
                    at = at * 31 % 9973 + 1;
                    let from = o((at % view.log_end().since(Offset::ZERO)) as i64);
                    match view.read(from, 700, view.log_end(), true, ReadMode::Blocking, None) {
                        Ok(outcome) => {
                            for batch in varve_record::iter_batches(slice(outcome).bytes) {
                                batch.unwrap().verify_crc().unwrap();
                            }
                            reads.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(ReadError::Stale) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for round in 0..150i64 {
            let keep = 30 + round * 7 % 40;
            log.truncate_to(o(keep)).unwrap().run().unwrap();
            let next = log.log_end();
            // Other sizes each time, so that old positions are no batch boundaries any more.
            let mut made = Vec::new();
            let mut base = next;
            for i in 0..20 {
                made.push(batch(
                    base,
                    1,
                    NOW,
                    3,
                    10 + ((round * 13 + i * 5) % 80) as usize,
                ));
                base = made[i as usize].header().next_offset();
            }
            log.append(&made, NOW).unwrap();
            *shared.lock().unwrap() = log.view();
        }
        while reads.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// A snapshot or an epoch of a log that was here before is not believed by the one that is made in its place.
#[test]
fn a_new_log_believes_nothing_that_lies_in_its_directory() {
    let (mem, vfs) = mem();
    vfs.create_dir_all(&dir()).unwrap();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    for name in [
        "leader-epoch",
        "00000000000000000024.snapshot",
        "00000000000000000021.index",
    ] {
        let bytes = RealVfs.read(&golden.join(name)).unwrap();
        vfs.create_new(&dir().join(name)).unwrap();
        put(&*vfs, &dir().join(name), &bytes);
    }
    let (mut log, recovery) = open(&vfs, config(), false);
    assert!(recovery.created);
    recovery.leftovers.run().unwrap();
    let names: Vec<String> = mem
        .list(&dir())
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    let made = [
        "00000000000000000000.index",
        "00000000000000000000.log",
        "manifest",
    ];
    assert_eq!(names, made);
    fill(&mut log, 20);
    log.close(true).unwrap();
    let (log, _) = open(&vfs, config(), true);
    assert_eq!(log.latest_snapshot(log.log_end()), None);
    assert_eq!(log.epochs().entries(), [(epoch(1), o(0))]);
}
