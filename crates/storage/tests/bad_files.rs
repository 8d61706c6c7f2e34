//! Files that no crash leaves: garbage, files of another log, cut and lengthened ones, newer formats, strangers,
//! links, wrong permissions, clocks that go back. Each gives a clear error that changes nothing, or a log with
//! the right records.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::*;
use varve_storage::inspect::verify;
use varve_storage::{Log, LogConfig, LogError, LogIdentity, OpenMode, Reason};
use varve_types::{PartitionId, TopicId};
use varve_vfs::fault::{FaultVfs, Op};
use varve_vfs::mem::MemVfs;
use varve_vfs::{RealVfs, Vfs};

fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        ..config()
    }
}

/// A log in three segments with a snapshot, closed in order, and its bytes.
fn whole_of(identity: LogIdentity, first: i64) -> (MemVfs, Vec<u8>) {
    let (mem, vfs) = mem();
    let mode = OpenMode { clean: false };
    let (mut log, _) =
        Log::open(vfs.clone(), &dir(), identity, small_segments(), mode, NOW).unwrap();
    log.begin_epoch(epoch(1)).unwrap();
    let mut all = Vec::new();
    for n in 0..10 {
        let made = batch(log.log_end(), 1, NOW + first + n, 3, 60);
        log.append(std::slice::from_ref(&made), NOW).unwrap();
        all.extend(made.to_bytes());
    }
    log.flush_now().unwrap();
    log.write_snapshot(log.log_end(), b"state").unwrap();
    log.close(true).unwrap();
    (mem, all)
}

fn whole() -> (MemVfs, Vec<u8>) {
    whole_of(identity(), 0)
}

fn other() -> LogIdentity {
    LogIdentity {
        topic_id: TopicId(99),
        partition: PartitionId(1),
    }
}

fn names(vfs: &dyn Vfs) -> Vec<String> {
    vfs.list(&dir())
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect()
}

fn content(vfs: &dyn Vfs) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let bytes = vfs.read(&dir().join(&name)).unwrap_or_default();
        (name, bytes)
    };
    names(vfs).into_iter().map(read).collect()
}

/// What became of a damaged directory.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Opened, with all records.
    Right,
    Refused(Reason),
}

/// Opens the log and holds it to its word: all records and a directory that is right again, or an error that
/// names a file and has changed nothing but what can be derived.
fn outcome(vfs: &Arc<dyn Vfs>, clean: bool, right: &[u8]) -> Outcome {
    let before = content(&**vfs);
    match try_open(vfs, small_segments(), clean) {
        Ok((log, recovery)) => {
            recovery.leftovers.run().unwrap();
            let found = read_all(&log.view(), o(0), 500);
            assert!(
                found == right,
                "a log that opens has every record: {:?}",
                recovery.decisions
            );
            log.close(true).unwrap();
            Outcome::Right
        }
        Err(LogError::Corrupt(found)) => {
            let text = found.to_string();
            assert!(
                text.contains("expected") && text.contains("Nothing was changed"),
                "{text}"
            );
            let kept = |all: &[(String, Vec<u8>)]| -> Vec<(String, Vec<u8>)> {
                let derived = |n: &str| n.ends_with("index");
                all.iter().filter(|(n, _)| !derived(n)).cloned().collect()
            };
            assert_eq!(kept(&content(&**vfs)), kept(&before), "{text}");
            Outcome::Refused(found.reason)
        }
        Err(e) => panic!("{e}"),
    }
}

fn set(vfs: &dyn Vfs, name: &str, bytes: &[u8]) {
    let path = dir().join(name);
    if !vfs.exists(&path).unwrap() {
        vfs.create_new(&path).unwrap();
    }
    put(vfs, &path, bytes);
}

fn garbage(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let next = |_| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 56) as u8
    };
    (0..len).map(next).collect()
}

/// Whether a file can be derived, and so may be anything.
fn derivable(name: &str) -> bool {
    !(name.ends_with(".log") || name == "manifest")
}

#[test]
fn random_bytes_in_the_place_of_each_file() {
    let (mem, right) = whole();
    for name in names(&mem) {
        for len in [0, 1, 31, 64, 100, 4096] {
            for clean in [true, false] {
                let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
                let old = vfs.read(&dir().join(&name)).unwrap();
                set(&*vfs, &name, &garbage(len, len as u64));
                let was_empty = old.is_empty() && len == 0;
                match outcome(&vfs, clean, &right) {
                    Outcome::Right => assert!(derivable(&name) || was_empty, "{name} {len}"),
                    Outcome::Refused(_) => assert!(!derivable(&name), "{name} {len} {clean}"),
                }
            }
        }
    }
}

#[test]
fn files_of_another_partition() {
    let (mem, right) = whole();
    let (foreign, _) = whole_of(other(), 5_000);
    for name in names(&mem) {
        let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
        let stranger = foreign.read(&dir().join(&name)).unwrap();
        set(&*vfs, &name, &stranger);
        let found = outcome(&vfs, true, &right);
        let empty = stranger.is_empty();
        assert_eq!(
            found == Outcome::Right,
            derivable(&name) || empty,
            "{name}: {found:?}"
        );
        if name == "manifest" {
            assert_eq!(found, Outcome::Refused(Reason::ForeignDirectory));
        }
    }
}

/// With its own index a segment of another log looks whole. It is neither served nor swept.
#[test]
fn a_segment_of_another_partition_with_its_index() {
    let (mem, right) = whole();
    let (foreign, _) = whole_of(other(), 5_000);
    let bases: Vec<String> = names(&mem)
        .iter()
        .filter_map(|n| n.strip_suffix(".log").map(str::to_owned))
        .collect();
    for base in &bases {
        let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
        let log = foreign.read(&dir().join(format!("{base}.log"))).unwrap();
        if log.is_empty() {
            continue;
        }
        for kind in ["log", "index", "timeindex"] {
            let name = format!("{base}.{kind}");
            set(&*vfs, &name, &foreign.read(&dir().join(&name)).unwrap());
        }
        for clean in [true, false] {
            let found = outcome(&vfs, clean, &right);
            assert_eq!(found, Outcome::Refused(Reason::ForeignSegment), "{base}");
        }
    }
    // Beside ours, where a swept leftover of ours might lie.
    let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
    for kind in ["log", "index"] {
        let bytes = foreign
            .read(&dir().join(format!("{}.{kind}", bases[0])))
            .unwrap();
        set(&*vfs, &format!("{:020}.{kind}", 777), &bytes);
    }
    assert_eq!(
        outcome(&vfs, true, &right),
        Outcome::Refused(Reason::ForeignSegment)
    );
}

/// A flipped bit where a segment begins costs that batch, and not the log.
#[test]
fn damage_at_the_start_of_a_sealed_segment_keeps_nobody_from_the_rest() {
    let (mem, right) = whole();
    let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
    let mut bytes = vfs.read(&log_file(0)).unwrap();
    bytes[100] ^= 1;
    put(&*vfs, &log_file(0), &bytes);
    let (log, _) = open(&vfs, small_segments(), true);
    let view = log.view();
    let read = view.read(
        o(0),
        100,
        o(30),
        true,
        varve_storage::ReadMode::Blocking,
        None,
    );
    assert!(
        matches!(read, Err(varve_storage::ReadError::Corrupt { .. })),
        "{read:?}"
    );
    assert_eq!(view.readable_after(o(0)), o(3));
    assert!(right.ends_with(&read_all(&view, o(3), 500)));
}

#[test]
fn an_index_cut_at_every_length() {
    let (mem, right) = whole();
    for name in names(&mem).into_iter().filter(|n| n.ends_with("index")) {
        let bytes = mem.read(&dir().join(&name)).unwrap();
        for len in 0..bytes.len() {
            for clean in [true, false] {
                let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
                set(&*vfs, &name, &bytes[..len]);
                assert_eq!(
                    outcome(&vfs, clean, &right),
                    Outcome::Right,
                    "{name} {len} {clean}"
                );
                let report = verify(&vfs, &dir()).unwrap();
                assert!(report.is_good(), "{name} {len}: {:?}", report.problems);
            }
        }
    }
}

#[test]
fn small_files_cut_at_every_length() {
    let (mem, right) = whole();
    for name in ["manifest", "leader-epoch", "00000000000000000030.snapshot"] {
        let bytes = mem.read(&dir().join(name)).unwrap();
        for len in 0..bytes.len() {
            let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
            set(&*vfs, name, &bytes[..len]);
            let found = outcome(&vfs, true, &right);
            let expected = match name {
                "manifest" => Outcome::Refused(Reason::ManifestUnreadable),
                _ => Outcome::Right,
            };
            assert_eq!(found, expected, "{name} {len}");
        }
    }
}

/// Entries for bytes that are not there: what was flushed is missing.
#[test]
fn an_index_from_the_future() {
    let (mem, right) = whole();
    let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
    let (mut log, _) = open(&vfs, small_segments(), true);
    let last = log.view().segments().last().unwrap().0;
    let before = vfs.read(&file(last.get(), "log")).unwrap();
    fill(&mut log, 2);
    log.close(true).unwrap();
    // The index knows two batches more than the file holds.
    let path = file(last.get(), "log");
    put(&*vfs, &path, &before);
    for clean in [true, false] {
        assert_eq!(
            outcome(&vfs, clean, &right),
            Outcome::Refused(Reason::BytesMissing)
        );
    }
}

#[test]
fn a_manifest_from_the_future() {
    use varve_storage::format::Manifest;
    let (mem, right) = whole();
    let bytes = mem.read(&dir().join("manifest")).unwrap();
    let manifest = Manifest::decode(&identity(), &bytes).unwrap();
    // Ids that were used up elsewhere are only skipped.
    let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
    let far = Manifest {
        next_segment_id: manifest.next_segment_id + 1_000_000,
        ..manifest.clone()
    };
    set(&*vfs, "manifest", &far.encode(&identity()));
    assert_eq!(outcome(&vfs, true, &right), Outcome::Right);
    // A segment that is listed and not there.
    let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
    let mut more = manifest.clone();
    let mut next = *more.segments.last().unwrap();
    (next.id, next.base) = (more.next_segment_id, o(30));
    more.next_segment_id += 1;
    more.segments.push(next);
    set(&*vfs, "manifest", &more.encode(&identity()));
    assert_eq!(
        outcome(&vfs, true, &right),
        Outcome::Refused(Reason::SegmentMissing)
    );
    // A log that starts behind its end.
    let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
    let beyond = Manifest {
        log_start: o(500),
        ..manifest
    };
    set(&*vfs, "manifest", &beyond.encode(&identity()));
    assert_eq!(
        outcome(&vfs, true, &right),
        Outcome::Refused(Reason::BytesMissing)
    );
}

/// The version is looked at before the checksum, which a newer format may have elsewhere.
#[test]
fn a_newer_format_version() {
    let (mem, right) = whole();
    for name in names(&mem).into_iter().filter(|n| !n.ends_with(".log")) {
        let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
        let mut bytes = vfs.read(&dir().join(&name)).unwrap();
        bytes[8] = 9;
        set(&*vfs, &name, &bytes);
        let error = match try_open(&vfs, small_segments(), true) {
            Err(e) => e.to_string(),
            Ok(_) => String::new(),
        };
        let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
        set(&*vfs, &name, &bytes);
        match outcome(&vfs, true, &right) {
            Outcome::Right => assert!(derivable(&name), "{name}"),
            Outcome::Refused(reason) => {
                assert_eq!(reason, Reason::ManifestUnreadable);
                assert!(
                    error.contains("format version 9 is newer than this program can read"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn strangers_are_left_alone_and_told() {
    let (mem, right) = whole();
    let vfs: Arc<dyn Vfs> = Arc::new(mem.image());
    let strangers = [
        "README",
        "notes.tmp",
        "old.deleted",
        ".hidden",
        "123.log",
        "00000000000000000000.bak",
        "x.snapshot",
    ];
    for name in strangers {
        set(&*vfs, name, b"mine");
    }
    vfs.create_dir_all(&dir().join("lost+found")).unwrap();
    vfs.create_dir_all(&dir().join("00000000000000000500.index"))
        .unwrap();
    // Names that an interrupted change of this log leaves.
    let ours = [
        "manifest.tmp",
        "00000000000000000000.index.tmp",
        "00000000000000000003.log.7.deleted",
    ];
    for name in ours {
        set(&*vfs, name, b"half");
    }
    let report = verify(&vfs, &dir()).unwrap();
    for name in strangers {
        let told = report
            .notes
            .iter()
            .chain(&report.problems)
            .any(|p| p.file.ends_with(name));
        assert!(told, "{name} is not told");
    }
    assert!(report.notes.iter().any(|p| p.file.ends_with("lost+found")));
    assert_eq!(outcome(&vfs, true, &right), Outcome::Right);
    let left = names(&*vfs);
    for name in strangers
        .iter()
        .chain(&["lost+found", "00000000000000000500.index"])
    {
        assert!(left.iter().any(|n| n == name), "{name} was removed");
    }
    for name in ours {
        assert!(!left.iter().any(|n| n == name), "{name} was left");
    }
}

/// A whole log on the real disk, in `root`/3.
fn on_disk(root: &Path) -> (PathBuf, Vec<u8>) {
    let (mem, right) = whole();
    let dir = root.join("3");
    std::fs::create_dir(&dir).unwrap();
    for (name, bytes) in content(&mem) {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    (dir, right)
}

fn open_real(dir: &Path) -> Result<Log, LogError> {
    let (vfs, mode) = (Arc::new(RealVfs), OpenMode { clean: true });
    Log::open(vfs, dir, identity(), small_segments(), mode, NOW).map(|(log, _)| log)
}

#[test]
fn symbolic_links_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let (dir, right) = on_disk(place.path());
    // The directory of a partition.
    let link = place.path().join("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    let error = open_real(&link).unwrap_err().to_string();
    assert!(
        error.contains("symbolic link") && error.contains("Nothing was changed"),
        "{error}"
    );
    // Each file of it.
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    for entry in vfs.list(&dir).unwrap() {
        let (path, away) = (dir.join(&entry.name), place.path().join("away"));
        std::fs::rename(&path, &away).unwrap();
        std::os::unix::fs::symlink(&away, &path).unwrap();
        let report = verify(&vfs, &dir).unwrap();
        let told = report
            .problems
            .iter()
            .any(|p| p.file == path && p.what.contains("link"));
        assert!(told, "{}: {report:?}", entry.name);
        match open_real(&dir) {
            // What is not needed to open is not opened; a snapshot is passed over.
            Ok(log) => {
                assert!(derivable(&entry.name), "{}", entry.name);
                assert_eq!(read_all(&log.view(), o(0), 500), right);
            }
            Err(e) => assert!(
                e.to_string().contains("symbolic link"),
                "{}: {e}",
                entry.name
            ),
        }
        let kept = std::fs::symlink_metadata(&path);
        if kept.is_ok_and(|m| m.is_symlink()) {
            std::fs::remove_file(&path).unwrap();
            std::fs::rename(&away, &path).unwrap();
        }
    }
    assert_eq!(read_all(&open_real(&dir).unwrap().view(), o(0), 500), right);
}

/// As root every file can be read, so the system's answer is injected.
#[test]
fn files_that_may_not_be_read_or_written() {
    let (mem, right) = whole();
    for op in [Op::Read, Op::Create, Op::Write, Op::Rename, Op::Sync] {
        for nth in 1..6 {
            let image = mem.image();
            let faults = FaultVfs::new(Arc::new(image.clone()));
            faults.fail_after(op, nth, rustix::io::Errno::ACCESS);
            let vfs: Arc<dyn Vfs> = faults.clone();
            match try_open(&vfs, small_segments(), false) {
                Ok(_) => {}
                Err(e) => {
                    let text = e.to_string();
                    assert!(
                        text.contains("Permission denied") && text.contains("/3"),
                        "{text}"
                    );
                }
            }
            faults.heal();
            image.kill_process();
            let vfs: Arc<dyn Vfs> = Arc::new(image);
            assert_eq!(outcome(&vfs, false, &right), Outcome::Right, "{op:?} {nth}");
        }
    }
}

#[test]
fn a_real_directory_without_permissions() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = tempfile::tempdir().unwrap();
    let (dir, right) = on_disk(place.path());
    let manifest = dir.join("manifest");
    std::fs::set_permissions(&manifest, std::fs::Permissions::from_mode(0o000)).unwrap();
    match open_real(&dir) {
        // Root may read everything.
        Ok(log) => assert_eq!(read_all(&log.view(), o(0), 500), right),
        Err(e) => assert!(e.to_string().contains("Permission denied"), "{e}"),
    }
    std::fs::set_permissions(&manifest, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(read_all(&open_real(&dir).unwrap().view(), o(0), 500), right);
}

#[test]
fn a_clock_that_goes_back() {
    let (_, vfs) = mem();
    let config = LogConfig {
        segment_ms: 10_000,
        retention_ms: Some(60_000),
        ..config()
    };
    let (mut log, _) = open(&vfs, config, false);
    let mut all = Vec::new();
    let mut put = |log: &mut Log, ts: i64, now: i64| {
        let made = batch(log.log_end(), 1, ts, 1, 30);
        log.append(std::slice::from_ref(&made), now).unwrap();
        all.extend(made.to_bytes());
    };
    put(&mut log, NOW, NOW);
    // A day back: nothing is old by that, nothing rolls, nothing is removed, nothing overflows.
    let back = NOW - 86_400_000;
    put(&mut log, back, back);
    put(&mut log, i64::MIN / 2, i64::MIN);
    put(&mut log, back + 1, back + 1);
    assert_eq!(log.segments(), 1);
    log.flush_now().unwrap();
    for now in [back, 0, i64::MIN] {
        let removal = log.apply_retention(now, log.log_end()).unwrap();
        assert!(removal.is_empty(), "nothing is too old at {now}");
    }
    put(&mut log, NOW + 20_000, NOW + 20_000);
    assert_eq!(
        log.segments(),
        2,
        "the segment is old by the clock that is right again"
    );
    log.close(true).unwrap();
    // Searching by time still gives the first record of that time or later.
    let (log, _) = Log::open(
        vfs.clone(),
        &dir(),
        identity(),
        config,
        OpenMode { clean: true },
        back,
    )
    .unwrap();
    let view = log.view();
    assert_eq!(read_all(&view, o(0), 500), all);
    let ask = |ts| view.offset_for_timestamp(ts, log.log_end()).unwrap();
    assert_eq!(ask(NOW), Some((o(0), NOW)));
    assert_eq!(
        ask(back + 1),
        Some((o(0), NOW)),
        "the first that is late enough, by offset"
    );
    assert_eq!(ask(NOW + 1), Some((o(4), NOW + 20_000)));
    assert_eq!(ask(NOW + 30_000), None);
    assert!(verify(&vfs, &dir()).unwrap().is_good());
}

/// A pipe, a device or a directory in the place of a file blocks nothing.
#[test]
fn what_is_no_file_at_all() {
    let place = tempfile::tempdir().unwrap();
    let (dir, right) = on_disk(place.path());
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    for entry in vfs.list(&dir).unwrap() {
        let (path, away) = (dir.join(&entry.name), place.path().join("away"));
        std::fs::rename(&path, &away).unwrap();
        for directory in [true, false] {
            if directory {
                std::fs::create_dir(&path).unwrap();
            } else {
                let mode = rustix::fs::Mode::RWXU;
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
            }
            match open_real(&dir) {
                Ok(log) => assert_eq!(read_all(&log.view(), o(0), 500), right, "{}", entry.name),
                Err(e) => assert!(e.to_string().contains("/3"), "{}: {e}", entry.name),
            }
            match path.is_dir() {
                true => std::fs::remove_dir(&path).unwrap(),
                false => std::fs::remove_file(&path).unwrap(),
            }
        }
        std::fs::rename(&away, &path).unwrap();
    }
    let file = vfs.open_write(&dir.join("manifest")).unwrap();
    file.write_all_at(&[IoSlice::new(b"V")], 0).unwrap();
    assert_eq!(read_all(&open_real(&dir).unwrap().view(), o(0), 500), right);
}
