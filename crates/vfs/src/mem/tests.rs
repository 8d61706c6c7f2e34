//! The disk in memory keeps what it promises, and no more.

use super::*;

fn write(file: &dyn File, bytes: &[u8], at: u64) {
    file.write_all_at(&[IoSlice::new(bytes)], at).unwrap();
}

#[test]
fn a_crash_keeps_only_what_was_synced() {
    let disk = MemVfs::new();
    let (a, b) = (Path::new("/a"), Path::new("/b"));
    let file = disk.create_new(a).unwrap();
    write(&*file, b"synced", 0);
    file.sync_data().unwrap();
    write(&*file, b"lost", 6);
    disk.sync_dir(Path::new("/")).unwrap();
    let unnamed = disk.create_new(b).unwrap();
    write(&*unnamed, b"x", 0);
    unnamed.sync_data().unwrap();
    assert_eq!(disk.read(a).unwrap(), b"syncedlost");

    disk.crash_losing_unsynced();
    assert_eq!(disk.read(a).unwrap(), b"synced");
    assert!(
        !disk.exists(b).unwrap(),
        "a synced file without a synced name is gone"
    );
    assert!(
        file.sync_data().is_err(),
        "handles of the old life are dead"
    );
}

#[test]
fn the_chooser_may_tear_a_write() {
    let disk = MemVfs::new();
    let file = disk.create_new(Path::new("/a")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    write(&*file, b"first", 0);
    write(&*file, b"second", 5);
    let mut asked = 0;
    disk.crash(&mut |_| {
        asked += 1;
        if asked == 1 {
            Fate::Lose
        } else {
            Fate::Tear(3)
        }
    });
    assert_eq!(disk.read(Path::new("/a")).unwrap(), b"\0\0\0\0\0sec");
}

#[test]
fn a_killed_process_leaves_its_writes_and_no_locks() {
    let disk = MemVfs::new();
    let file = disk.create_new(Path::new("/a")).unwrap();
    let guard = disk.lock(Path::new("/LOCK")).unwrap();
    assert!(matches!(
        disk.lock(Path::new("/LOCK")),
        Err(LockError::Held { .. })
    ));
    write(&*file, b"kept", 0);
    disk.kill_process();
    assert_eq!(disk.read(Path::new("/a")).unwrap(), b"kept");
    let again = disk.lock(Path::new("/LOCK")).unwrap();
    drop(guard);
    assert!(
        disk.lock(Path::new("/LOCK")).is_err(),
        "an old guard releases nothing"
    );
    drop(again);
}

#[test]
fn a_failed_sync_loses_what_it_should_have_written_though_the_next_one_succeeds() {
    let disk = MemVfs::new();
    let path = Path::new("/a");
    let file = disk.create_new(path).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    write(&*file, b"one", 0);
    file.sync_data().unwrap();
    write(&*file, b"two", 3);
    disk.set_hook(Some(Arc::new(|call| {
        if call.op == Op::Sync {
            Answer::Fail(Errno::IO)
        } else {
            Answer::Go
        }
    })));
    assert!(file.sync_data().is_err());
    disk.set_hook(None);
    write(&*file, b"three", 6);
    file.sync_data().unwrap();
    assert_eq!(disk.read(path).unwrap(), b"onetwothree", "still readable");
    let lost = disk.fork();
    lost.crash_losing_unsynced();
    assert_eq!(lost.read(path).unwrap(), b"one\0\0\0three");
    let lucky = disk.fork();
    lucky.crash(&mut |_| Fate::Keep);
    assert_eq!(
        lucky.read(path).unwrap(),
        b"onetwothree",
        "it may have arrived"
    );
    write(&*file, b"wo", 4);
    file.sync_data().unwrap();
    disk.crash_losing_unsynced();
    assert_eq!(disk.read(path).unwrap(), b"one\0wothree", "written again");
}

#[test]
fn a_write_may_leave_only_its_length_or_only_its_end() {
    let disk = MemVfs::new();
    let path = Path::new("/a");
    let file = disk.create_new(path).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    write(&*file, b"ab", 0);
    file.sync_data().unwrap();
    write(&*file, b"cdef", 1);
    let after = |fate: Fate| {
        let copy = disk.fork();
        copy.crash(&mut |_| fate);
        copy.read(path).unwrap()
    };
    assert_eq!(after(Fate::Zeros), b"ab\0\0\0");
    assert_eq!(after(Fate::Tail(2)), b"ab\0ef");
    assert_eq!(after(Fate::Tear(1)), b"ac");
    assert_eq!(after(Fate::Lose), b"ab");
    assert_eq!(disk.read(path).unwrap(), b"acdef", "a copy is a copy");
}

#[test]
fn directories_do_not_wait_for_each_other() {
    let disk = MemVfs::new();
    for dir in ["/a", "/b"] {
        disk.create_dir_all(Path::new(dir)).unwrap();
    }
    disk.sync_dir(Path::new("/")).unwrap();
    for path in ["/a/1", "/b/1", "/a/2", "/b/2"] {
        disk.create_new(Path::new(path)).unwrap();
    }
    disk.crash(&mut |change| match change {
        Unsynced::Name { path, .. } if path.ends_with("1") && path.starts_with("/a") => Fate::Lose,
        _ => Fate::Keep,
    });
    let there = ["/a/1", "/a/2", "/b/1", "/b/2"].map(|p| disk.exists(Path::new(p)).unwrap());
    assert_eq!(there, [false, false, true, true], "in order within one");
}

#[test]
fn the_hook_sees_each_operation_and_cuts_writes() {
    let disk = MemVfs::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    disk.set_hook(Some(Arc::new(move |call| {
        log.lock().unwrap().push((call.op, call.len));
        if call.op == Op::Write && call.len > 3 {
            Answer::Short(3, Errno::NOSPC)
        } else {
            Answer::Go
        }
    })));
    let path = Path::new("/a");
    let file = disk.create_new(path).unwrap();
    write(&*file, b"ab", 0);
    let error = file.write_all_at(&[IoSlice::new(b"cdefg")], 2).unwrap_err();
    assert!(error.is_no_space());
    file.sync_data().unwrap();
    assert_eq!(disk.read(path).unwrap(), b"abcde");
    let ops: Vec<(Op, usize)> = seen.lock().unwrap().clone();
    assert_eq!(
        ops,
        [
            (Op::Create, 0),
            (Op::Write, 2),
            (Op::Write, 5),
            (Op::Sync, 0),
            (Op::Read, 5)
        ]
    );
}

#[test]
fn damage_is_at_rest() {
    let disk = MemVfs::new();
    let path = Path::new("/a");
    let file = disk.create_new(path).unwrap();
    write(&*file, b"abc", 0);
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert!(disk.damage(path, &mut |bytes| bytes[1] ^= 1));
    assert_eq!(disk.read(path).unwrap(), b"acc");
    disk.crash_losing_unsynced();
    assert_eq!(disk.read(path).unwrap(), b"acc");
    assert!(!disk.damage(Path::new("/b"), &mut |_| {}));
}
