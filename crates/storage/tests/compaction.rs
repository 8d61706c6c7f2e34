//! Compaction, case by case: what stays, what goes, when, and where it is found afterwards.

#![allow(clippy::unwrap_used, reason = "tests")]

use crate::common::keyed::*;
use crate::common::*;
use varve_record::{Compression, Marker};
use varve_storage::inspect::verify;
use varve_storage::{CompactionConfig, CompactionError, Log, LogConfig, ReadError, ReadMode};
use varve_types::Offset;

/// Three keys over several segments; the newest of `a` is at 4, of `b` at 3, of `c` at 5.
fn three_keys() -> (varve_vfs::mem::MemVfs, Log) {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    put_now(&mut log, &[("a", Some("1")), ("b", Some("1"))]);
    put_now(&mut log, &[("a", Some("2"))]);
    seal_off(&mut log);
    put_now(&mut log, &[("b", Some("2")), ("a", Some("3"))]);
    seal_off(&mut log);
    put_now(&mut log, &[("c", Some("1"))]);
    seal_off(&mut log);
    (mem, log)
}

#[test]
fn the_newest_record_of_each_key_stays_at_its_offset() {
    let (mem, mut log) = three_keys();
    let before = newest(&records(&log.view()));
    let stats = compact(&mut log);
    assert_eq!(offsets(&log.view()), [3, 4, 5]);
    assert_eq!(newest(&records(&log.view())), before);
    assert_eq!((stats.kept_records, stats.superseded_records), (3, 3));
    assert_eq!(
        (log.log_start(), log.log_end()),
        (o(0), o(6)),
        "offsets are kept"
    );
    assert_eq!(log.segments(), 2, "small neighbours became one");
    log.close(true).unwrap();
    let vfs: std::sync::Arc<dyn varve_vfs::Vfs> = std::sync::Arc::new(mem.image());
    let report = verify(&vfs, &dir()).unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
    let (log, recovery) = open(&vfs, config(), true);
    assert_eq!(
        (recovery.decisions.len(), recovery.leftovers.is_empty()),
        (1, true)
    );
    assert_eq!(offsets(&log.view()), [3, 4, 5]);
}

#[test]
fn a_read_in_a_gap_gives_the_next_record() {
    let (_, mut log) = three_keys();
    put_now(&mut log, &[("d", Some("1"))]);
    compact(&mut log);
    let view = log.view();
    for (at, first) in [(0, 3), (1, 3), (2, 3), (3, 3), (4, 3), (5, 5), (6, 6)] {
        let read = view.read(o(at), 1, view.log_end(), true, ReadMode::Blocking, None);
        let found = slice(read.unwrap());
        assert_eq!(found.base_offset, o(first), "read at {at}");
        let header = view.headers(o(at)).next().unwrap().unwrap();
        assert_eq!(header.base_offset, o(first), "headers from {at}");
    }
    let blind = slice(
        view.read(o(0), 100, o(2), true, ReadMode::Blocking, None)
            .unwrap(),
    );
    assert_eq!(
        (blind.bytes.len(), blind.next_offset),
        (0, o(2)),
        "nothing is left below 2"
    );
    let found = view.offset_for_timestamp(0, view.log_end()).unwrap();
    assert_eq!(found, Some((o(3), NOW)));
}

#[test]
fn batches_that_keep_all_records_are_the_same_bytes_and_others_keep_their_place() {
    for codec in Compression::ALL {
        let (_, vfs) = mem();
        let (mut log, _) = open(&vfs, config(), true);
        let long = "x".repeat(300);
        let whole = builder(codec, NOW, &[("k", Some(&long)), ("l", Some("1"))]);
        let whole = whole.build_batch().unwrap().sequence(o(0), epoch(1));
        let part = builder(codec, NOW + 50, &[("m", Some(&long)), ("n", Some("1"))]);
        let part = part.build_batch().unwrap().sequence(o(2), epoch(1));
        log.append(&[whole.clone(), part], NOW).unwrap();
        put_now(&mut log, &[("m", Some("2"))]);
        seal_off(&mut log);
        compact(&mut log);
        let view = log.view();
        assert_eq!(offsets(&view), [0, 1, 3, 4], "{codec}");
        assert_eq!(read_on(&view, o(0), 1)[..whole.size()], whole.to_bytes());
        let headers: Vec<_> = view.headers(o(0)).map(Result::unwrap).collect();
        let cut = headers[1];
        assert_eq!(
            (cut.base_offset, cut.last_offset_delta, cut.record_count),
            (o(2), 1, 1)
        );
        assert_eq!((cut.compression(), cut.max_timestamp), (codec, NOW + 51));
        assert_eq!(records(&view)[2].timestamp, NOW + 51);
    }
}

#[test]
fn a_tombstone_stays_for_its_time_and_then_goes() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    put_at(&mut log, NOW - 77, &[("a", Some("1")), ("b", Some("1"))]);
    put_at(&mut log, NOW - 7, &[("a", None), ("c", Some("1"))]);
    seal_off(&mut log);
    compact(&mut log);
    assert_eq!(
        offsets(&log.view()),
        [1, 2, 3],
        "the tombstone can still be seen"
    );
    assert_eq!(
        records(&log.view())[1].timestamp,
        NOW - 7,
        "with its own time"
    );
    // Only the horizon of the first compaction counts, and it survives a restart.
    log.close(true).unwrap();
    mem.crash_losing_unsynced();
    let (mut log, _) = open(&vfs, config(), true);
    assert!(!log.dirt(&eager(), NOW + 999, o(4)).due);
    compact_at(&mut log, NOW + 999);
    assert_eq!(offsets(&log.view()), [1, 2, 3]);
    assert!(
        log.dirt(&eager(), NOW + 1000, o(4)).due,
        "its time has come"
    );
    compact_at(&mut log, NOW + 1000);
    assert_eq!(offsets(&log.view()), [1, 3]);
    assert!(
        !log.dirt(&eager(), NOW + 5000, o(4)).due,
        "nothing more to do"
    );
}

#[test]
fn nothing_at_or_past_the_bound_or_too_young_is_touched() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    for i in 0..6 {
        put_at(&mut log, NOW + i, &[("a", Some("1"))]);
        seal_off(&mut log);
    }
    put_now(&mut log, &[("a", Some("active"))]);
    let run = log.prepare_compaction(&eager(), NOW, o(4), ROOM).unwrap();
    perform(&mut log, run).unwrap();
    assert_eq!(offsets(&log.view()), [3, 4, 5, 6]);
    let lag = CompactionConfig {
        min_lag_ms: 10,
        ..eager()
    };
    assert_eq!(log.dirt(&lag, NOW + 13, o(7)).dirty_bytes, 0);
    let run = log.prepare_compaction(&lag, NOW + 14, o(7), ROOM).unwrap();
    perform(&mut log, run).unwrap();
    assert_eq!(offsets(&log.view()), [4, 5, 6]);
    compact(&mut log);
    assert_eq!(
        offsets(&log.view()),
        [5, 6],
        "the active segment is never touched"
    );
}

#[test]
fn memory_for_few_keys_only_means_several_rounds() {
    let (_, vfs) = mem();
    let small = LogConfig {
        segment_bytes: 4000,
        ..config()
    };
    let (mut log, _) = open(&vfs, small, true);
    for i in 0..600 {
        let key = format!("key-{}", i % 150);
        put_now(&mut log, &[(&key, Some("value")), (&key, Some("newer"))]);
    }
    seal_off(&mut log);
    let before = newest(&records(&log.view()));
    let mut rounds = 0;
    // 24 bytes a slot: room for 30 of the 150 keys.
    while let Some(run) = log.prepare_compaction(&eager(), NOW, o(1200), 40 * 24) {
        let stats = perform(&mut log, run).unwrap();
        assert!(stats.upto > 0);
        assert_eq!(newest(&records(&log.view())), before);
        rounds += 1;
        assert!(rounds < 100, "each round gets further");
    }
    assert!(rounds > 10, "{rounds} rounds");
    // What was superseded within one table's reach is gone; the rest goes when it is read again.
    assert!(records(&log.view()).len() < 600);
    log.close(true).unwrap();
    let report = verify(&vfs, &dir()).unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
}

#[test]
fn aborted_records_go_and_markers_outlive_their_records() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    put_now(
        &mut log,
        &[("a", Some("0")), ("b", Some("0")), ("c", Some("0"))],
    );
    put_as(&mut log, 7, 0, true, &[("a", Some("aborted"))]); // 3
    put_as(&mut log, 8, 0, true, &[("b", Some("committed"))]); // 4
    put_marker(&mut log, 7, Marker::Abort); // 5
    put_marker(&mut log, 8, Marker::Commit); // 6
    put_as(&mut log, 7, 1, true, &[("c", Some("committed"))]); // 7
    seal_off(&mut log);
    put_marker(&mut log, 7, Marker::Commit); // 8
    put_now(&mut log, &[("x", Some("0"))]);
    compact(&mut log);
    let all = |log: &Log| -> Vec<i64> {
        let view = log.view();
        view.headers(o(0))
            .map(|h| h.unwrap().base_offset.get())
            .collect()
    };
    assert_eq!(
        offsets(&log.view()),
        [0, 4, 7, 9],
        "a=0 came back, b and c are the committed ones"
    );
    assert_eq!(all(&log), [0, 4, 5, 6, 7, 8, 9]);
    compact_at(&mut log, NOW + 1000);
    assert_eq!(
        all(&log),
        [0, 4, 6, 7, 8, 9],
        "the abort marker had nothing left to say"
    );
    // Once the committed records are superseded their marker waits for its time, then goes.
    put_now(&mut log, &[("b", Some("1"))]);
    seal_off(&mut log);
    compact_at(&mut log, NOW + 2000);
    assert_eq!(offsets(&log.view()), [0, 7, 9, 10]);
    assert!(all(&log).contains(&6));
    compact_at(&mut log, NOW + 3000);
    assert!(!all(&log).contains(&6));
    assert!(all(&log).contains(&8), "its record is still there");
}

#[test]
fn a_transaction_without_an_end_is_a_bound() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    put_now(&mut log, &[("a", Some("0"))]);
    put_now(&mut log, &[("a", Some("1"))]);
    put_as(&mut log, 7, 0, true, &[("a", Some("open"))]); // 2
    put_now(&mut log, &[("a", Some("3"))]);
    seal_off(&mut log);
    compact(&mut log);
    assert_eq!(
        offsets(&log.view()),
        [1, 2, 3],
        "nothing from 2 on counts yet"
    );
    put_marker(&mut log, 7, Marker::Abort);
    seal_off(&mut log);
    compact(&mut log);
    assert_eq!(offsets(&log.view()), [3]);
}

/// A run that is there only for a tombstone does not look into segments that stay as they are; records in them
/// still need the marker of their transaction.
#[test]
fn a_marker_stays_while_records_of_its_transaction_are_in_a_segment_that_is_passed_over() {
    let (_, vfs) = mem();
    let small = LogConfig {
        segment_bytes: 300,
        ..config()
    };
    let (mut log, _) = open(&vfs, small, true);
    let long = "x".repeat(200);
    put_as(&mut log, 7, 0, true, &[("a", Some(&long))]); // 0
    log.roll().unwrap();
    put_marker(&mut log, 7, Marker::Commit); // 1
    put_now(&mut log, &[("t", None)]); // 2
    seal_off(&mut log);
    put_now(&mut log, &[("x", Some("0"))]);
    compact(&mut log);
    assert_eq!(offsets(&log.view()), [0, 2, 3], "the tombstone waits");
    // The first time it goes; the second time a marker without records would.
    for later in [1000, 2000, 3000] {
        compact_at(&mut log, NOW + later);
        let left: Vec<i64> = log
            .view()
            .headers(o(0))
            .map(|h| h.unwrap().base_offset.get())
            .collect();
        assert_eq!(left, [0, 1, 3], "{later} ms later");
    }
}

#[test]
fn the_last_batch_of_a_producer_stays_without_its_records() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    put_as(&mut log, 7, 0, false, &[("a", Some("1")), ("b", Some("1"))]);
    put_as(&mut log, 7, 2, false, &[("a", Some("2")), ("b", Some("2"))]);
    put_now(&mut log, &[("a", Some("3")), ("b", Some("3"))]);
    seal_off(&mut log);
    compact(&mut log);
    let headers: Vec<_> = log.view().headers(o(0)).map(Result::unwrap).collect();
    let left: Vec<_> = headers
        .iter()
        .map(|h| {
            (
                h.base_offset,
                h.last_offset_delta,
                h.base_sequence,
                h.record_count,
            )
        })
        .collect();
    assert_eq!(left, [(o(2), 1, 2, 0), (o(4), 1, -1, 2)]);
    assert_eq!((headers[0].producer_id, headers[0].producer_epoch), (7, 0));
    put_as(&mut log, 7, 4, false, &[("c", Some("1"))]);
    seal_off(&mut log);
    compact(&mut log);
    let count = log.view().headers(o(0)).count();
    assert_eq!(count, 2, "a later batch tells of the session");
}

/// Records of last month are written today: their producer is as young as their segment.
#[test]
fn the_times_of_a_producer_do_not_make_its_session_old() {
    const WEEK_MS: i64 = varve_types::limits::PRODUCER_IDLE_EXPIRY_MS;
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    let left = |log: &Log| -> Vec<i64> {
        let view = log.view();
        let headers = view.headers(o(0)).map(Result::unwrap);
        headers.map(|h| h.base_offset.get()).collect()
    };
    put_as_at(
        &mut log,
        NOW - 5 * WEEK_MS,
        (7, 0),
        false,
        &[("a", Some("1"))],
    );
    put_as_at(
        &mut log,
        NOW + 5 * WEEK_MS,
        (8, 0),
        false,
        &[("a", Some("2"))],
    );
    for (later, expected) in [
        (0, vec![0, 1, 2]),
        (WEEK_MS - 1, vec![0, 1, 3]),
        (WEEK_MS, vec![4]),
    ] {
        put_now(&mut log, &[("a", Some("3"))]);
        seal_off(&mut log);
        compact_at(&mut log, NOW + later);
        assert_eq!(left(&log), expected, "{later} ms later");
    }
}

#[test]
fn a_log_that_became_empty_has_its_offsets() {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    put_now(&mut log, &[("a", Some("1"))]);
    put_now(&mut log, &[("a", None)]);
    seal_off(&mut log);
    compact(&mut log);
    compact_at(&mut log, NOW + 1000);
    assert_eq!(
        (log.size_bytes(), log.log_start(), log.log_end()),
        (0, o(0), o(2))
    );
    assert_eq!(log.view().headers(o(0)).count(), 0);
    drop(log);
    mem.crash_losing_unsynced();
    let (mut log, _) = open(&vfs, config(), false);
    assert_eq!((log.log_start(), log.log_end()), (o(0), o(2)));
    assert_eq!(put_now(&mut log, &[("b", Some("1"))]), o(2));
    assert_eq!(offsets(&log.view()), [2]);
}

#[test]
fn the_log_is_cut_anywhere_in_what_was_compacted() {
    for at in 0..=6 {
        let (mem, mut log) = three_keys();
        compact(&mut log);
        let removal = log.truncate_to(o(at)).unwrap();
        removal.run().unwrap();
        // Offset 4 is the second of a batch of two.
        let end = if at == 4 { 3 } else { at };
        assert_eq!(log.log_end(), o(end), "cut at {at}");
        let left: Vec<i64> = [3, 4, 5].into_iter().filter(|o| *o < end).collect();
        assert_eq!(offsets(&log.view()), left, "cut at {at}");
        assert_eq!(put_now(&mut log, &[("z", Some("9"))]), o(end));
        seal_off(&mut log);
        drop(log);
        mem.crash_losing_unsynced();
        let vfs: std::sync::Arc<dyn varve_vfs::Vfs> = std::sync::Arc::new(mem.clone());
        let (mut log, _) = open(&vfs, config(), false);
        let all: Vec<i64> = left.iter().copied().chain([end]).collect();
        assert_eq!(offsets(&log.view()), all);
        compact(&mut log);
        assert_eq!(offsets(&log.view()), all);
        log.close(true).unwrap();
        let report = verify(&vfs, &dir()).unwrap();
        assert!(report.is_good(), "cut at {at}: {:?}", report.problems);
    }
}

#[test]
fn retention_and_trims_take_compacted_segments_too() {
    let (_, vfs) = mem();
    let small = LogConfig {
        segment_bytes: 300,
        retention_ms: Some(5000),
        ..config()
    };
    let (mut log, _) = open(&vfs, small, true);
    for i in 0..12 {
        let key = i.to_string();
        put_at(
            &mut log,
            NOW + i * 1000,
            &[(&key, Some("1")), ("same", Some("1"))],
        );
    }
    seal_off(&mut log);
    compact(&mut log);
    assert_eq!(records(&log.view()).len(), 13);
    log.apply_retention(NOW + 11_000, log.log_end())
        .unwrap()
        .run()
        .unwrap();
    let start = log.log_start();
    assert!(start > o(0) && start <= o(12), "{start}");
    assert!(records(&log.view()).iter().all(|r| r.offset >= start.get()));
    log.trim(o(15)).unwrap().run().unwrap();
    assert_eq!((log.log_start(), offsets(&log.view())[0]), (o(15), 16));
    let below = log
        .view()
        .read(o(14), 100, o(24), true, ReadMode::Blocking, None);
    assert!(matches!(below, Err(ReadError::OutOfRange { .. })));
    compact(&mut log);
    assert_eq!(log.log_start(), o(15));
}

#[test]
fn epochs_are_known_when_their_batches_and_the_epoch_file_are_gone() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    for e in 1..6 {
        log.begin_epoch(epoch(e)).unwrap();
        let batch = builder(
            Compression::None,
            NOW,
            &[("a", Some("1")), ("a", Some("2"))],
        );
        let base = log.log_end();
        let batch = batch.build_batch().unwrap().sequence(base, epoch(e));
        log.append(&[batch], NOW).unwrap();
    }
    seal_off(&mut log);
    let before = log.epochs().entries().to_vec();
    compact(&mut log);
    assert_eq!(offsets(&log.view()), [9]);
    assert_eq!(log.epochs().entries(), before);
    log.close(true).unwrap();
    vfs.remove_file(&dir().join("leader-epoch")).unwrap();
    let (log, recovery) = open(&vfs, config(), true);
    assert!(recovery.epochs_rebuilt);
    assert_eq!(log.epochs().entries(), before);
    assert_eq!(log.end_offset_for_epoch(epoch(2)), Some((epoch(2), o(4))));
}

#[test]
fn readers_of_an_old_view_read_on() {
    let (_, mut log) = three_keys();
    let old = log.view();
    let all = read_on(&old, o(0), 1);
    let run = log.prepare_compaction(&eager(), NOW, o(6), ROOM);
    perform(&mut log, run.unwrap()).unwrap();
    // The files are unlinked; who has them open still reads them, others are told.
    for from in [0, 3, 5] {
        match old.read(o(from), 10_000, o(6), true, ReadMode::Blocking, None) {
            Ok(outcome) => {
                let found = slice(outcome);
                assert!(!found.bytes.is_empty());
                assert!(all.windows(found.bytes.len()).any(|w| w == found.bytes));
            }
            Err(error) => assert!(matches!(error, ReadError::Stale), "{error}"),
        }
    }
    assert_eq!(offsets(&log.view()), [3, 4, 5]);
}

#[test]
fn a_run_tells_of_every_byte_it_moves() {
    let (_, mut log) = three_keys();
    let told = std::cell::Cell::new(0);
    let mut run = log.prepare_compaction(&eager(), NOW, o(6), ROOM).unwrap();
    let go_on = |bytes| {
        told.set(told.get() + bytes);
        true
    };
    while let Some(part) = run.next(&go_on).unwrap() {
        log.prepare_install(part).unwrap();
        log.change_now().unwrap();
    }
    let stats = run.stats();
    assert!(stats.read_bytes > 0 && stats.written_bytes > 0);
    // Headers once, records for the keys once, and everything once to be copied: all of it fits into a window.
    assert_eq!(told.get(), 3 * stats.read_bytes + stats.written_bytes);
}

#[test]
fn a_run_whose_segments_are_gone_is_abandoned() {
    let (mem, mut log) = three_keys();
    let names = || varve_vfs::Vfs::list(&mem, &dir()).unwrap().len();
    let mut run = log.prepare_compaction(&eager(), NOW, o(6), ROOM).unwrap();
    let part = run.next(&|_| true).unwrap().unwrap();
    log.truncate_to(o(3)).unwrap().run().unwrap();
    let before = names();
    log.prepare_install(part).unwrap_err().run().unwrap();
    assert_eq!(names(), before - 3, "the new files are removed");
    assert_eq!(offsets(&log.view()), [0, 1, 2]);
    seal_off(&mut log);
    let mut run = log.prepare_compaction(&eager(), NOW, o(3), ROOM).unwrap();
    let stopped = run.next(&|_| false).unwrap_err();
    assert!(matches!(stopped, CompactionError::Stopped), "{stopped}");
    assert!(run.next(&|_| true).unwrap().is_none(), "it is over");
    compact(&mut log);
    assert_eq!(offsets(&log.view()), [1, 2]);
}

#[test]
fn damage_is_found_and_never_copied() {
    for at in 0..80 {
        let (mem, mut log) = three_keys();
        let vfs: std::sync::Arc<dyn varve_vfs::Vfs> = std::sync::Arc::new(mem.clone());
        let bytes = vfs.read(&log_file(0)).unwrap();
        let file = vfs.open_write(&log_file(0)).unwrap();
        let flipped = [bytes[at] ^ 4];
        file.write_all_at(&[std::io::IoSlice::new(&flipped)], at as u64)
            .unwrap();
        let run = log.prepare_compaction(&eager(), NOW, o(6), ROOM).unwrap();
        let error = perform(&mut log, run).unwrap_err();
        assert!(
            matches!(error, CompactionError::Corrupt { .. }),
            "byte {at}: {error}"
        );
        let names = vfs.list(&dir()).unwrap();
        assert!(
            !names
                .iter()
                .any(|e| e.name.contains('-') && e.name != "leader-epoch")
        );
        assert_eq!(log.segments(), 4, "nothing was changed");
        log.check_reads_of_the_rest();
    }
}

trait Rest {
    fn check_reads_of_the_rest(&self);
}

impl Rest for Log {
    fn check_reads_of_the_rest(&self) {
        let found = slice(
            self.view()
                .read(o(3), 1, o(6), true, ReadMode::Blocking, None)
                .unwrap(),
        );
        assert_eq!(found.base_offset, Offset::new(3).unwrap());
    }
}
