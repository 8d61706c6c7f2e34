//! The bytes of a compacted log on disk: golden files of the second version of the manifest and of a compacted
//! segment. `VARVE_BLESS=1 cargo test -p varve-storage --test compaction_format` writes them anew.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;

use crate::common::keyed::*;
use crate::common::*;
use varve_storage::format::{CompactedSegment, ListedSegment, Manifest};
use varve_types::Offset;
use varve_vfs::mem::MemVfs;
use varve_vfs::{RealVfs, Vfs};

const GOLDEN: [&str; 8] = [
    "00000000000000000000-2.log",
    "00000000000000000000-2.index",
    "00000000000000000000-2.timeindex",
    "00000000000000000006.log",
    "00000000000000000006.index",
    "00000000000000000006.timeindex",
    "leader-epoch",
    "manifest",
];

fn testdata() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata-compacted")
}

/// A log with a tombstone, a producer whose records are gone, and a gap, compacted and closed.
fn compacted() -> MemVfs {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    log.begin_epoch(epoch(1)).unwrap();
    put_now(&mut log, &[("a", Some("1")), ("b", Some("1"))]);
    put_as(&mut log, 7, 0, false, &[("a", Some("2"))]);
    put_now(&mut log, &[("a", Some("3")), ("b", None), ("c", Some("1"))]);
    seal_off(&mut log);
    put_now(&mut log, &[("c", Some("2"))]);
    compact(&mut log);
    log.close(true).unwrap();
    mem
}

#[test]
fn files_are_the_golden_ones() {
    let mem = compacted();
    if std::env::var_os("VARVE_BLESS").is_some() {
        RealVfs.create_dir_all(&testdata()).unwrap();
        for name in GOLDEN {
            let path = testdata().join(name);
            if RealVfs.exists(&path).unwrap() {
                RealVfs.remove_file(&path).unwrap();
            }
            let bytes = mem.read(&dir().join(name)).unwrap();
            let file = RealVfs.create_new(&path).unwrap();
            file.write_all_at(&[std::io::IoSlice::new(&bytes)], 0)
                .unwrap();
        }
    }
    for name in GOLDEN {
        let golden = RealVfs.read(&testdata().join(name)).unwrap();
        assert!(
            golden == mem.read(&dir().join(name)).unwrap(),
            "{name} differs from its golden file"
        );
    }
}

#[test]
fn the_golden_log_opens_and_reads() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    vfs.create_dir_all(&dir()).unwrap();
    for name in GOLDEN {
        let bytes = RealVfs.read(&testdata().join(name)).unwrap();
        vfs.create_new(&dir().join(name)).unwrap();
        put(&*vfs, &dir().join(name), &bytes);
    }
    let (log, recovery) = open(&vfs, config(), true);
    assert_eq!((recovery.bytes_cut, recovery.indexes_rebuilt), (0, 0));
    assert_eq!((log.log_start(), log.log_end()), (o(0), o(7)));
    assert_eq!(offsets(&log.view()), [3, 4, 5, 6]);
}

#[test]
fn a_manifest_of_the_version_before_is_written_until_something_was_compacted() {
    let plain = ListedSegment {
        id: 3,
        base: o(10),
        created_ms: NOW,
        compacted: None,
    };
    let first = Manifest {
        log_start: o(10),
        next_segment_id: 4,
        segments: vec![plain],
        clean_upto: Offset::ZERO,
        epochs: Vec::new(),
    };
    let bytes = first.encode(&identity());
    assert_eq!((bytes[8], bytes.len()), (1, 56 + 24 + 4));
    assert_eq!(Manifest::decode(&identity(), &bytes), Ok(first.clone()));
    let compacted = ListedSegment {
        id: 9,
        base: o(2),
        created_ms: NOW,
        compacted: Some(CompactedSegment {
            end: o(10),
            size: 400,
            horizon_ms: NOW + 5,
        }),
    };
    let second = Manifest {
        next_segment_id: 10,
        segments: vec![compacted, plain],
        clean_upto: o(10),
        epochs: vec![(epoch(1), o(0)), (epoch(4), o(3))],
        ..first
    };
    let bytes = second.encode(&identity());
    assert_eq!((bytes[8], bytes.len()), (2, 64 + 2 * 48 + 2 * 12 + 4));
    assert_eq!(Manifest::decode(&identity(), &bytes), Ok(second.clone()));
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(Manifest::decode(&identity(), &bad).is_err(), "byte {at}");
    }
    // A compacted segment ends where the next one begins, and is never the last.
    let gap = Manifest {
        segments: vec![
            compacted,
            ListedSegment {
                base: o(11),
                ..plain
            },
        ],
        ..second.clone()
    };
    let last = Manifest {
        segments: vec![compacted],
        ..second
    };
    for wrong in [gap, last] {
        assert!(Manifest::decode(&identity(), &wrong.encode(&identity())).is_err());
    }
}
