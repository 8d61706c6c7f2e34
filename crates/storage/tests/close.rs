//! What an orderly stop costs: as many syncs as there is something to sync, and none for a log that was only
//! opened and read.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use crate::common::*;
use varve_storage::Log;
use varve_vfs::Vfs;
use varve_vfs::fault::{FaultVfs, Op};

const CHANGES: [Op; 7] = [
    Op::Write,
    Op::Sync,
    Op::SyncDir,
    Op::Create,
    Op::Rename,
    Op::Remove,
    Op::SetLen,
];

/// Opens on a disk that counts.
fn counted(vfs: &Arc<dyn Vfs>, clean: bool) -> (Arc<FaultVfs>, Log) {
    let faults = FaultVfs::new(vfs.clone());
    let counting: Arc<dyn Vfs> = faults.clone();
    let (log, _) = open(&counting, config(), clean);
    (faults, log)
}

fn changes(faults: &FaultVfs) -> u64 {
    CHANGES.iter().map(|op| faults.count(*op)).sum()
}

#[test]
fn a_log_that_nobody_wrote_is_opened_and_closed_without_a_change() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    let made = fill(&mut log, 20);
    log.close(true).unwrap();

    let (faults, mut log) = counted(&vfs, true);
    // A new leader that gets no records leaves no trace.
    let next = log.last_epoch().unwrap().next();
    log.begin_epoch(next).unwrap();
    let end = log.log_end();
    let all = slice(
        log.view()
            .read(
                o(0),
                1 << 20,
                end,
                true,
                varve_storage::ReadMode::Blocking,
                None,
            )
            .unwrap(),
    );
    assert_eq!(all.bytes, bytes_of(&made));
    log.close(true).unwrap();
    assert_eq!(changes(&faults), 0);

    let (log, recovery) = open(&vfs, config(), true);
    assert_eq!(log.log_end(), end);
    assert_eq!(log.last_epoch().map(|e| e.next()), Some(next));
    assert_eq!((recovery.bytes_cut, recovery.indexes_rebuilt), (0, 0));
}

#[test]
fn a_log_that_was_written_rolled_or_recovered_is_synced_when_it_is_closed() {
    type Change = fn(&mut Log);
    let all: [(&str, bool, Change); 4] = [
        ("appended", true, |log| drop(fill(log, 1))),
        ("rolled", true, |log| log.roll().unwrap()),
        ("trimmed", true, |log| drop(log.trim(o(3)).unwrap())),
        ("recovered", false, |_| {}),
    ];
    for (what, clean, change) in all {
        let (disk, vfs) = mem();
        let (mut log, _) = open(&vfs, config(), false);
        fill(&mut log, 20);
        log.close(clean).unwrap();
        let (faults, mut log) = counted(&vfs, clean);
        change(&mut log);
        let (end, before) = (log.log_end(), faults.count(Op::Sync));
        log.close(true).unwrap();
        assert!(faults.count(Op::Sync) > before, "{what}");
        // What an orderly stop has synced needs no scan, even without power since.
        disk.crash_losing_unsynced();
        let (log, recovery) = open(&vfs, config(), true);
        assert_eq!(log.log_end(), end, "{what}");
        assert_eq!(recovery.indexes_rebuilt, 0, "{what}");
    }
}

/// The flush that a trim needs first writes a manifest, too: it must not have the trim in it, as long as the
/// flush may find no space.
#[test]
fn a_trim_whose_flush_finds_no_space_leaves_no_trace() {
    use varve_vfs::fault::Op;
    use varve_vfs::mem::Answer;
    let (mem, vfs) = mem();
    let small = varve_storage::LogConfig {
        segment_bytes: 2000,
        ..config()
    };
    let (mut log, _) = open(&vfs, small, false);
    fill(&mut log, 60);
    // Of the small files that the flush replaces, the manifest comes first.
    mem.set_hook(Some(std::sync::Arc::new(|call| {
        if call.op == Op::Create && call.path.ends_with("leader-epoch.tmp") {
            Answer::Fail(rustix::io::Errno::NOSPC)
        } else {
            Answer::Go
        }
    })));
    let refused = log.trim(o(90)).map(drop).unwrap_err();
    assert!(refused.is_no_space(), "{refused}");
    assert_eq!(log.log_start(), o(0));
    mem.set_hook(None);
    drop(log);
    mem.kill_process();
    let (mut log, _) = open(&vfs, small, false);
    assert_eq!((log.log_start(), log.log_end()), (o(0), o(180)));
    drop(log.trim(o(90)).unwrap());
    assert_eq!(log.log_start(), o(90));
}
