//! The bytes on disk as golden files. That the layout sources are those the document describes is checked with
//! all other formats, in `tests/tidy/formats.rs`.
//! `VARVE_BLESS=1 cargo test -p varve-storage --test format` writes the golden files anew.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;

use crate::common::*;
use varve_storage::format::{
    Companion, LogIdentity, Manifest, SegmentHeader, TimeEntry, decode_epochs, decode_snapshot,
};
use varve_types::{Offset, PartitionId};
use varve_vfs::mem::MemVfs;
use varve_vfs::{RealVfs, Vfs};

const GOLDEN: [&str; 8] = [
    "00000000000000000000.log",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000021.log",
    "00000000000000000021.index",
    "00000000000000000021.timeindex",
    "leader-epoch",
    "manifest",
];

fn crate_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A log of two segments, three epochs and a snapshot, closed cleanly.
fn golden_log() -> MemVfs {
    let (mem, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), true);
    for e in [1, 2] {
        log.begin_epoch(epoch(e)).unwrap();
        for _ in 0..4 {
            let next = log.log_end();
            if next == o(21) {
                log.roll().unwrap();
            }
            log.append(&[batch(next, e, NOW + next.get(), 3, 40)], NOW)
                .unwrap();
        }
    }
    log.begin_epoch(epoch(7)).unwrap();
    log.write_snapshot(o(24), b"derived state").unwrap();
    log.close(true).unwrap();
    mem
}

#[test]
fn files_are_the_golden_ones() {
    let mem = golden_log();
    let snapshot = format!("{:020}.snapshot", 24);
    for name in GOLDEN.iter().copied().chain([snapshot.as_str()]) {
        let bytes = mem.read(&dir().join(name)).unwrap();
        let path = crate_file("testdata").join(name);
        if std::env::var_os("VARVE_BLESS").is_some() {
            let real = RealVfs;
            if real.exists(&path).unwrap() {
                real.remove_file(&path).unwrap();
            }
            let file = real.create_new(&path).unwrap();
            file.write_all_at(&[std::io::IoSlice::new(&bytes)], 0)
                .unwrap();
        }
        let golden = RealVfs.read(&path).unwrap();
        assert!(golden == bytes, "{name} differs from its golden file");
    }
}

#[test]
fn the_golden_log_opens_and_reads() {
    let disk = MemVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(disk);
    vfs.create_dir_all(&dir()).unwrap();
    for entry in RealVfs.list(&crate_file("testdata")).unwrap() {
        let bytes = RealVfs
            .read(&crate_file("testdata").join(&entry.name))
            .unwrap();
        vfs.create_new(&dir().join(&entry.name)).unwrap();
        put(&*vfs, &dir().join(&entry.name), &bytes);
    }
    let (log, recovery) = open(&vfs, config(), true);
    assert_eq!((recovery.bytes_cut, recovery.indexes_rebuilt), (0, 0));
    assert_eq!(
        (log.log_start(), log.log_end(), log.segments()),
        (Offset::ZERO, o(24), 2)
    );
    let epochs = [(epoch(1), o(0)), (epoch(2), o(12)), (epoch(7), o(24))];
    assert_eq!(log.epochs().entries(), epochs);
    assert_eq!(
        log.latest_snapshot(o(24)),
        Some((o(24), b"derived state".to_vec()))
    );
    assert_eq!(
        read_all(&log.view(), Offset::ZERO, 500).len() as u64,
        log.size_bytes()
    );
}

#[test]
fn no_bit_of_a_small_file_may_flip() {
    let mem = golden_log();
    let whole = |name: &str| mem.read(&dir().join(name)).unwrap();
    let manifest = whole("manifest");
    let epochs = whole("leader-epoch");
    let snapshot = whole(&format!("{:020}.snapshot", 24));
    let header = whole("00000000000000000000.index")[..64].to_vec();
    let magic = varve_storage::format::INDEX_MAGIC;
    let me = identity();
    type Check<'a> = Box<dyn Fn(&[u8]) -> bool + 'a>;
    let cases: [(Vec<u8>, Check<'_>); 4] = [
        (manifest, Box::new(|b| Manifest::decode(&me, b).is_ok())),
        (epochs, Box::new(|b| decode_epochs(&me, b).is_ok())),
        (snapshot, Box::new(|b| decode_snapshot(&me, b).is_ok())),
        (
            header,
            Box::new(|b| SegmentHeader::decode(magic, &me, b).is_ok()),
        ),
    ];
    for (bytes, accepts) in cases {
        assert!(accepts(&bytes));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(!accepts(&bad), "byte {at} bit {bit}");
            }
            assert!(!accepts(&bytes[..at]), "cut at {at}");
        }
    }
    let mut other = me;
    other.partition = PartitionId(4);
    assert!(
        Manifest::decode(&other, &whole("manifest")).is_err(),
        "of another partition"
    );
}

#[test]
fn entries_are_valid_in_their_own_place_only() {
    let c = Companion {
        first: o(3),
        next: o(9),
        position: 100,
        end: 300,
        max_timestamp: -1,
        max_epoch: epoch(2),
        batches: 2,
        chain: 77,
    };
    let bytes = c.encode(5, 1);
    assert_eq!(Companion::decode(&bytes, 5, 1), Some(c));
    assert_eq!(Companion::decode(&bytes, 5, 2), None, "another place");
    assert_eq!(Companion::decode(&bytes, 6, 1), None, "another segment");
    let t = TimeEntry {
        timestamp: -5,
        offset: o(3),
        position: 100,
    };
    let times = t.encode(5, 1);
    assert_eq!(TimeEntry::decode(&times, 5, 1), Some(t));
    assert_eq!(TimeEntry::decode(&times, 5, 0), None);
    for at in 0..64 {
        for bit in 0..8 {
            let mut bad = bytes;
            bad[at] ^= 1 << bit;
            assert_eq!(Companion::decode(&bad, 5, 1), None);
            if let Some(byte) = times.get(at) {
                let mut bad = times;
                bad[at] = byte ^ (1 << bit);
                assert_eq!(TimeEntry::decode(&bad, 5, 1), None);
            }
        }
    }
    let _: LogIdentity = identity();
}
