//! Flipped bits: the offline check finds each one in each file, reads never give one, and the scrub of a live
//! log finds all of them in one pass and leaves the rest readable.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::{NOW, batch, config, dir, epoch, fill, mem, o, open, read_all, slice};
use varve_storage::inspect::verify;
use varve_storage::{Damage, Log, LogConfig, ReadError, ReadMode, ReadView};
use varve_vfs::mem::MemVfs;
use varve_vfs::{RealVfs, Vfs};

/// Every kind of file that a partition has: several segments, two leader epochs, a snapshot, closed cleanly.
fn small_log() -> (MemVfs, Vec<u8>) {
    let (image, vfs) = mem();
    let config = LogConfig {
        segment_bytes: 900,
        ..config()
    };
    let (mut log, _) = open(&vfs, config, false);
    log.begin_epoch(epoch(0)).unwrap();
    for n in 0..12 {
        let e = i32::from(n >= 7);
        let made = batch(log.log_end(), e, NOW + n, 2, 40 + n as usize);
        log.append(&[made], NOW).unwrap();
    }
    log.flush_now().unwrap();
    log.write_snapshot(log.log_end(), b"some state").unwrap();
    assert!(log.segments() >= 2, "{}", log.segments());
    let all = read_all(&log.view(), o(0), 4096);
    log.close(true).unwrap();
    (image, all)
}

fn files(vfs: &dyn Vfs) -> Vec<(PathBuf, Vec<u8>)> {
    let list = vfs.list(&dir()).unwrap();
    let path = |name: &str| dir().join(name);
    list.iter()
        .map(|e| (path(&e.name), vfs.read(&path(&e.name)).unwrap()))
        .collect()
}

fn write(vfs: &dyn Vfs, path: &Path, at: usize, bytes: &[u8]) {
    let file = vfs.open_write(path).unwrap();
    file.write_all_at(&[IoSlice::new(bytes)], at as u64)
        .unwrap();
}

#[test]
fn the_offline_check_finds_every_bit_of_every_file() {
    let (image, _) = small_log();
    let vfs: Arc<dyn Vfs> = Arc::new(image.image());
    let report = verify(&vfs, &dir()).unwrap();
    assert!(report.is_good() && report.notes.is_empty(), "{report:?}");
    let all = files(&*vfs);
    let kinds = ["log", "index", "timeindex", "snapshot"];
    for kind in kinds {
        let some = all
            .iter()
            .any(|(p, b)| p.extension().is_some_and(|e| e == kind) && !b.is_empty());
        assert!(some, "no {kind} file to flip");
    }
    assert!(all.iter().any(|(p, _)| p.ends_with("manifest")));
    assert!(all.iter().any(|(p, _)| p.ends_with("leader-epoch")));
    let mut flips = 0;
    for (path, bytes) in &all {
        for (at, byte) in bytes.iter().enumerate() {
            for bit in 0..8 {
                write(&*vfs, path, at, &[byte ^ (1 << bit)]);
                let report = verify(&vfs, &dir()).unwrap();
                assert!(!report.is_good(), "{} byte {at} bit {bit}", path.display());
                flips += 1;
            }
            write(&*vfs, path, at, &[*byte]);
        }
    }
    assert!(flips > 10_000, "{flips}");
    assert!(verify(&vfs, &dir()).unwrap().is_good());
}

/// A fixed sequence of numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What can be read, batch by batch, over damage: no read gives a wrong byte.
fn readable(view: &ReadView, right: &[u8]) -> usize {
    let (mut next, mut good) = (view.log_start(), 0);
    while next < view.log_end() {
        match view.read(next, 1, view.log_end(), true, ReadMode::Blocking, None) {
            Ok(outcome) => {
                let found = slice(outcome);
                assert!(
                    !found.bytes.is_empty(),
                    "a reader would wait at {next} for ever"
                );
                let at = right
                    .windows(found.bytes.len())
                    .position(|w| w == found.bytes);
                assert!(at.is_some(), "bytes at {next} that were never written");
                good += found.bytes.len();
                next = found.next_offset;
            }
            Err(ReadError::Corrupt { .. }) => next = next.plus(1),
            Err(e) => panic!("{e}"),
        }
    }
    good
}

#[test]
fn no_flipped_bit_of_a_log_file_is_ever_read() {
    let (image, right) = small_log();
    let vfs: Arc<dyn Vfs> = Arc::new(image.image());
    let config = LogConfig {
        segment_bytes: 900,
        ..config()
    };
    let (log, _) = open(&vfs, config, true);
    let view = log.view();
    assert_eq!(readable(&view, &right), right.len());
    for (path, bytes) in files(&*vfs) {
        if path.extension().is_none_or(|e| e != "log") {
            continue;
        }
        for (at, byte) in bytes.iter().enumerate() {
            for bit in 0..8 {
                write(&*vfs, &path, at, &[byte ^ (1 << bit)]);
                let good = readable(&view, &right);
                assert!(
                    good < right.len(),
                    "{} byte {at} bit {bit} was served",
                    path.display()
                );
                // What is lost with one bit: its batch, or what lies up to the next index entry.
                assert!(
                    right.len() - good <= 600,
                    "byte {at} bit {bit}: {good} of {}",
                    right.len()
                );
            }
            write(&*vfs, &path, at, &[*byte]);
        }
    }
    assert_eq!(readable(&view, &right), right.len());
}

/// One pass over everything; bytes read and what was found.
fn scrub(log: &Log) -> (u64, Vec<Damage>) {
    let view = log.view();
    let small = view.scrub_small_files().unwrap();
    let (mut bytes, mut found) = (small.bytes, small.damage);
    for (base, _) in view.segments() {
        let mut segment = view.scrub(base, log.flushed()).unwrap().unwrap();
        assert_eq!(segment.base(), base);
        loop {
            let step = segment.step(64 * 1024).unwrap();
            bytes += step.bytes;
            found.extend(step.damage);
            if step.done {
                break;
            }
        }
    }
    assert!(view.scrub(o(i64::MAX), log.flushed()).unwrap().is_none());
    (bytes, found)
}

fn big_log(vfs: &Arc<dyn Vfs>, dir: &Path) -> Log {
    let config = LogConfig {
        segment_bytes: 400_000,
        index_interval_bytes: 4096,
        ..config()
    };
    let mode = varve_storage::OpenMode { clean: false };
    let (mut log, _) = Log::open(
        vfs.clone(),
        dir,
        crate::common::identity(),
        config,
        mode,
        NOW,
    )
    .unwrap();
    for e in 0..40 {
        log.begin_epoch(epoch(e)).unwrap();
        for n in 0..20i64 {
            let size = 100 + (n as usize * 397) % 4000;
            let made = batch(log.log_end(), e, NOW + n, 2, size);
            log.append(&[made], NOW).unwrap();
        }
    }
    log.flush_now().unwrap();
    log.flush_index().unwrap();
    log.write_snapshot(log.log_end(), &[9; 500]).unwrap();
    log
}

fn plant_and_scrub(vfs: &Arc<dyn Vfs>, dir: &Path, log: &Log, count: usize, seed: u64) {
    let (bytes, found) = scrub(log);
    assert_eq!(found, [], "a sound log");
    assert!(bytes >= log.size_bytes(), "{bytes} of {}", log.size_bytes());
    let mut dice = Dice(seed);
    let names: Vec<_> = vfs.list(dir).unwrap();
    let total: u64 = names.iter().map(|e| e.len).sum();
    let mut planted = Vec::new();
    while planted.len() < count {
        let mut at = dice.below(total);
        let entry = names.iter().find(|e| {
            let inside = at < e.len;
            at -= if inside { 0 } else { e.len };
            inside
        });
        let path = dir.join(&entry.unwrap().name);
        if planted.iter().any(|(p, a, _)| (p, a) == (&path, &at)) {
            continue;
        }
        let mut byte = [0];
        vfs.open_read(&path)
            .unwrap()
            .read_at(at, &mut byte)
            .unwrap();
        let bit = dice.below(8);
        write(&**vfs, &path, at as usize, &[byte[0] ^ (1 << bit)]);
        planted.push((path, at, bit));
    }
    let (_, found) = scrub(log);
    for (path, at, bit) in &planted {
        let hit = found
            .iter()
            .any(|d| d.file == *path && (d.position..d.end).contains(at));
        assert!(hit, "{} byte {at} bit {bit} was not found", path.display());
    }
    let lost: u64 = found
        .iter()
        .filter_map(|d| d.offsets.map(|r| r.end.since(r.start)))
        .sum();
    assert!(lost > 0 && lost <= log.log_end().since(o(0)), "{lost}");
}

#[test]
fn one_scrub_finds_a_thousand_flips() {
    for seed in 0..3 {
        let (_, vfs) = mem();
        let log = big_log(&vfs, &dir());
        plant_and_scrub(&vfs, &dir(), &log, 1000, seed);
    }
}

#[test]
fn one_scrub_finds_every_bit_of_every_header() {
    let (_, vfs) = mem();
    let log = big_log(&vfs, &dir());
    let path = dir().join(format!("{:020}.log", 0));
    let mut positions = Vec::new();
    for seen in varve_storage::inspect::dump(&vfs, &path).unwrap() {
        positions.push(seen.unwrap().position as usize);
    }
    let bytes = vfs.read(&path).unwrap();
    for &at in positions.iter().take(12).step_by(3) {
        for (at, byte) in bytes.iter().enumerate().skip(at).take(61) {
            for bit in 0..8 {
                write(&*vfs, &path, at, &[byte ^ (1 << bit)]);
                let mut segment = log.view().scrub(o(0), log.flushed()).unwrap().unwrap();
                let step = segment.step(512 * 1024).unwrap();
                let hit = step
                    .damage
                    .iter()
                    .any(|d| (d.position..d.end).contains(&(at as u64)));
                assert!(hit, "byte {at} bit {bit}: {:?}", step.damage);
            }
            write(&*vfs, &path, at, &[*byte]);
        }
    }
}

#[test]
fn a_scrub_on_a_real_disk() {
    let place = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let dir = place.path().join("3");
    let log = big_log(&vfs, &dir);
    plant_and_scrub(&vfs, &dir, &log, 200, 7);
}

#[test]
fn what_is_not_flushed_is_not_looked_at() {
    let (_, vfs) = mem();
    let (mut log, _) = open(&vfs, config(), false);
    fill(&mut log, 5);
    log.flush_now().unwrap();
    let flushed = log.size_bytes();
    fill(&mut log, 5);
    let path = crate::common::log_file(0);
    // Bytes that a later write might still be changing.
    write(&*vfs, &path, flushed as usize + 70, &[0xff; 8]);
    let (_, found) = scrub(&log);
    assert_eq!(found, []);
    log.flush_now().unwrap();
    let (_, found) = scrub(&log);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_scrub_survives_retention_and_truncation_under_it() {
    let (_, vfs) = mem();
    let mut log = big_log(&vfs, &dir());
    let view = log.view();
    let mut first = view.scrub(o(0), log.flushed()).unwrap().unwrap();
    let last = view.segments().last().unwrap().0;
    let mut active = view.scrub(last, log.flushed()).unwrap().unwrap();
    let removal = log.trim(log.flushed()).unwrap();
    removal.run().unwrap();
    // The file is gone; its open handle still gives the right bytes, or the scrub says that it is stale.
    match first.step(1 << 20) {
        Ok(step) => assert_eq!(step.damage, []),
        Err(e) => assert!(matches!(e, ReadError::Stale), "{e}"),
    }
    log.truncate_to(log.log_start()).unwrap().run().unwrap();
    match active.step(1 << 20) {
        Ok(step) => assert!(step.damage.is_empty(), "{:?}", step.damage),
        Err(e) => assert!(matches!(e, ReadError::Stale), "{e}"),
    }
}
