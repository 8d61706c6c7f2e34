//! A partition's directory with anything in it: it opens or is refused, and what it then serves is right.

use std::collections::BTreeMap;
use std::sync::Arc;

use varve_record::{BatchBuilder, Compression, Sequenced, iter_batches};
use varve_storage::format::{
    Companion, ENTRY_BYTES, HEADER_BYTES, INDEX_MAGIC, SegmentHeader, TIME_ENTRY_BYTES,
    TIME_INDEX_MAGIC, TimeEntry,
};
use varve_storage::{
    Log, LogConfig, LogError, OpenMode, ReadError, ReadMode, ReadOutcome, ReadView, inspect as look,
};
use varve_types::{LeaderEpoch, Offset};
use varve_vfs::Vfs;

use super::image::{CLEAN, Image, dir, identity, put, sealed_index};
use super::seeds;

const NOW: i64 = 1_700_000_000_000;

/// Small segments and runs, so that a few hundred bytes have all there is to have.
#[must_use]
pub fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 20,
        segment_ms: i64::MAX,
        index_interval_bytes: 256,
        retention_bytes: None,
        retention_ms: None,
    }
}

/// Opens the log of an image.
///
/// # Errors
/// Those of [`Log::open`].
pub fn open(vfs: &Arc<dyn Vfs>, clean: bool) -> Result<Log, LogError> {
    let mode = OpenMode { clean };
    let (log, recovery) = Log::open(vfs.clone(), &dir(), identity(), config(), mode, NOW)?;
    recovery.leftovers.run().expect("a disk in memory removes");
    Ok(log)
}

/// One batch of three records.
#[must_use]
pub fn batch(base: Offset, epoch: LeaderEpoch) -> Sequenced {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for i in 0..3 {
        let value = [base.get() as u8; 40];
        builder.append(NOW + i, None, Some(&value), &[]).unwrap();
    }
    builder.build_batch().unwrap().sequence(base, epoch)
}

type Files = BTreeMap<String, Vec<u8>>;

fn files(vfs: &dyn Vfs) -> Files {
    let entries = vfs.list(&dir()).unwrap();
    let content = |name: &str| vfs.read(&dir().join(name)).unwrap();
    entries
        .iter()
        .map(|e| (e.name.clone(), content(&e.name)))
        .collect()
}

/// An image is opened, read, opened again, written to.
///
/// # Panics
/// When a property is broken.
pub fn recovery(data: &[u8]) {
    let image = Image::parse(data);
    let (_, vfs) = image.mount();
    let before = files(&*vfs);
    let first = match open(&vfs, image.flags & CLEAN != 0) {
        Ok(log) => log,
        Err(LogError::Corrupt(_)) => return assert_unchanged(&before, &files(&*vfs)),
        Err(error) => panic!("a disk in memory does not fail: {error}"),
    };
    let ends = (first.log_start(), first.log_end(), first.segments());
    assert_eq!(
        first.flushed(),
        first.log_end(),
        "all that is there is kept"
    );
    let gaps = image.has_gaps();
    let served = serve(&first.view(), first.segments() == 1, gaps);
    look_around(&first, gaps);
    first.close(false).unwrap();
    let settled = files(&*vfs);
    // As the first time: what a clean start takes on trust, an unclean one may find damaged.
    let second = open(&vfs, image.flags & CLEAN != 0).expect("what was recovered opens");
    assert_eq!(
        (second.log_start(), second.log_end(), second.segments()),
        ends
    );
    assert_eq!(serve(&second.view(), second.segments() == 1, gaps), served);
    assert_same(
        &settled,
        &files(&*vfs),
        "recovery of a recovered log does nothing",
    );
    go_on(second, &vfs);
}

/// Names the first file that is not as it was.
fn assert_same(before: &Files, after: &Files, what: &str) {
    let names: Vec<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        assert_eq!(before.get(name), after.get(name), "{name}: {what}");
    }
}

/// A refusal changes nothing but what can be derived.
fn assert_unchanged(before: &Files, after: &Files) {
    let kept = |files: &Files| -> Files {
        let derived = |name: &str| name.ends_with("index");
        let kept = files.iter().filter(|(name, _)| !derived(name));
        kept.map(|(n, b)| (n.clone(), b.clone())).collect()
    };
    assert_same(&kept(before), &kept(after), "a refusal changes nothing");
}

/// Reads all there is. Offsets follow each other; in a log of one segment, all of which recovery has looked
/// at, every checksum is right. Damage in older segments is met by an error at the latest.
fn serve(view: &ReadView, all_verified: bool, gaps: bool) -> Vec<u8> {
    let (mut next, mut bytes, mut cursor) = (view.log_start(), Vec::new(), None);
    while next < view.log_end() {
        let read = view.read(
            next,
            700,
            view.log_end(),
            true,
            ReadMode::Blocking,
            cursor.as_ref(),
        );
        let slice = match read {
            Ok(ReadOutcome::Slice(slice)) => slice,
            Ok(ReadOutcome::WouldBlock) => panic!("a blocking read does not block"),
            Err(ReadError::Corrupt { .. }) if !all_verified => return bytes,
            Err(error) => panic!("{error}"),
        };
        assert!(slice.next_offset > next, "a read moves forward");
        let mut at = slice.base_offset;
        assert!(gaps || at <= next);
        for batch in iter_batches(slice.bytes.clone()) {
            let batch = batch.expect("whole batches are served");
            let base = batch.header.base_offset;
            assert!(
                base == at || (gaps && base > at),
                "offsets follow each other: {base} comes after {at}"
            );
            at = batch.header.next_offset();
            if all_verified {
                batch.verify_crc().expect("what is served verifies");
            }
        }
        assert!(at == slice.next_offset || (gaps && slice.bytes.is_empty()));
        next = slice.next_offset;
        cursor = slice.cursor;
        bytes.extend_from_slice(&slice.bytes);
    }
    bytes
}

/// Every other question a log answers. Answers may be errors; none may be a panic.
fn look_around(log: &Log, gaps: bool) {
    let view = log.view();
    for timestamp in [i64::MIN, 0, NOW, NOW + 12, NOW + 23, i64::MAX] {
        if let Ok(Some((offset, found))) = view.offset_for_timestamp(timestamp, log.log_end()) {
            assert!(found >= timestamp && offset >= log.log_start() && offset < log.log_end());
        }
    }
    let mut last = None;
    for header in view.headers(log.log_start()).flatten() {
        let base = header.base_offset;
        assert!(last.is_none_or(|end| base == end || (gaps && base > end)));
        last = Some(header.next_offset());
    }
    for epoch in [0, 1, 2, 7, i32::MAX] {
        let epoch = LeaderEpoch::new(epoch).unwrap();
        let _ = log.end_offset_for_epoch(epoch);
    }
    for pair in log.epochs().entries().windows(2) {
        assert!(pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
    }
    if let Some((offset, _)) = log.latest_snapshot(log.log_end()) {
        assert!(offset <= log.log_end());
    }
}

/// A log that opened can be written, closed and opened again with what was written.
fn go_on(mut log: Log, vfs: &Arc<dyn Vfs>) {
    let end = log.log_end();
    if end.checked_add(1 << 20).is_none() {
        return;
    }
    let epoch = log.last_epoch().unwrap_or_default();
    let written = batch(end, epoch);
    match log.append(std::slice::from_ref(&written), NOW) {
        Ok(_) => {}
        Err(LogError::EpochGoesBack { .. }) => return,
        Err(error) => panic!("{error}"),
    }
    log.close(true).expect("a log is closed");
    let log = open(vfs, true).expect("a log that was closed cleanly opens");
    assert_eq!(log.log_end(), written.header().next_offset());
    let upto = log.log_end();
    let read = log
        .view()
        .read(end, 1 << 20, upto, true, ReadMode::Blocking, None);
    match read {
        Ok(ReadOutcome::Slice(slice)) => assert_eq!(slice.bytes, written.to_bytes()),
        other => panic!("{other:?}"),
    }
}

/// The offline tool over an image: it ends, and it finds what recovery refuses.
///
/// # Panics
/// When a property is broken.
pub fn inspect(data: &[u8]) {
    let image = Image::parse(data);
    let (_, vfs) = image.mount();
    let before = files(&*vfs);
    let report = look::verify(&vfs, &dir()).expect("a disk in memory is read");
    let good = look::dump(&vfs, &dir())
        .expect("a directory is listed")
        .filter(|seen| matches!(seen, Ok(batch) if batch.fault.is_none()))
        .count();
    // Behind damage the check goes on where an index says that a batch begins; a dump knows no index.
    assert!(report.batches <= good as u64 || !report.problems.is_empty());
    assert_eq!(files(&*vfs), before, "looking changes nothing");
}

/// An offset index: its parts, and lookups through it.
///
/// # Panics
/// When a property is broken.
pub fn index(data: &[u8]) {
    let right = sealed_index(*INDEX_MAGIC, ENTRY_BYTES, data);
    for bytes in [data, &right] {
        let Ok(header) = SegmentHeader::decode(INDEX_MAGIC, &identity(), bytes) else {
            continue;
        };
        assert_eq!(
            header.encode(INDEX_MAGIC, &identity()),
            bytes[..HEADER_BYTES]
        );
        for (number, entry) in bytes[HEADER_BYTES..].chunks_exact(ENTRY_BYTES).enumerate() {
            let number = number as u32;
            if let Some(seen) = Companion::decode(entry, header.segment_id, number) {
                assert_eq!(seen.encode(header.segment_id, number)[..], *entry);
            }
        }
    }
    lookups("00000000000000000000.index", data, true);
    lookups("00000000000000000000.index", &right, false);
}

/// As [`index()`], for a time index.
///
/// # Panics
/// When a property is broken.
pub fn time_index(data: &[u8]) {
    let right = sealed_index(*TIME_INDEX_MAGIC, TIME_ENTRY_BYTES, data);
    for bytes in [data, &right] {
        let Ok(header) = SegmentHeader::decode(TIME_INDEX_MAGIC, &identity(), bytes) else {
            continue;
        };
        for (number, entry) in bytes[HEADER_BYTES..]
            .chunks_exact(TIME_ENTRY_BYTES)
            .enumerate()
        {
            let number = number as u32;
            if let Some(seen) = TimeEntry::decode(entry, header.segment_id, number) {
                assert_eq!(seen.encode(header.segment_id, number)[..], *entry);
            }
        }
    }
    lookups("00000000000000000000.timeindex", data, true);
    lookups("00000000000000000000.timeindex", &right, false);
}

/// Puts `bytes` in place of an index of a sealed segment behind an open log, and asks for every offset and
/// time in it. Damage that checksums show costs time and no answer (`damage_only`); an index that lies with
/// right checksums may make a read fail, and never panic or answer with other records.
fn lookups(name: &str, bytes: &[u8], damage_only: bool) {
    let image = seeds::golden_image();
    let (_, vfs) = image.mount();
    let log = open(&vfs, false).expect("the golden log opens");
    put(&*vfs, &dir().join(name), bytes);
    log.release_idle();
    let view = log.view();
    // Bytes that the fuzzer made from the golden index may have right checksums and lie all the same.
    let honest = damage_only && !decodes_as_other(&image, name, bytes);
    for offset in 0..log.log_end().get() {
        let offset = Offset::new(offset).unwrap();
        match view.read(offset, 1, log.log_end(), true, ReadMode::Blocking, None) {
            Ok(ReadOutcome::Slice(slice)) => {
                assert!(slice.base_offset <= offset && offset < slice.next_offset);
                for batch in iter_batches(slice.bytes) {
                    batch.unwrap().verify_crc().unwrap();
                }
            }
            Err(ReadError::Corrupt { .. }) if !honest => {}
            other => panic!("offset {offset}: {other:?}"),
        }
        let wanted = NOW + offset.get();
        match view.offset_for_timestamp(wanted, log.log_end()) {
            Ok(found) if honest => assert_eq!(found, Some((offset, wanted))),
            Ok(found) => assert!(found.is_none_or(|(_, time)| time >= wanted)),
            Err(ReadError::Corrupt { .. }) if !honest => {}
            Err(error) => panic!("time {wanted}: {error}"),
        }
    }
}

/// Whether some entry of `bytes` is valid in its place and is not the golden one.
fn decodes_as_other(image: &Image, name: &str, bytes: &[u8]) -> bool {
    let number = super::image::NAMES.iter().position(|n| *n == name);
    let golden = image
        .files
        .iter()
        .find(|(n, _)| Some(usize::from(*n)) == number)
        .map(|(_, content)| content.as_slice())
        .unwrap_or_default();
    let (magic, width) = if name.ends_with("timeindex") {
        (TIME_INDEX_MAGIC, TIME_ENTRY_BYTES)
    } else {
        (INDEX_MAGIC, ENTRY_BYTES)
    };
    let Ok(header) = SegmentHeader::decode(magic, &identity(), bytes) else {
        return false;
    };
    let entries = bytes[HEADER_BYTES..].chunks_exact(width);
    let theirs = golden[HEADER_BYTES..].chunks_exact(width);
    let valid = |number: usize, entry: &[u8]| {
        let number = number as u32;
        if width == ENTRY_BYTES {
            Companion::decode(entry, header.segment_id, number).is_some()
        } else {
            TimeEntry::decode(entry, header.segment_id, number).is_some()
        }
    };
    let mut theirs = theirs.map(Some).chain(std::iter::repeat(None));
    entries
        .enumerate()
        .any(|(n, entry)| theirs.next().flatten() != Some(entry) && valid(n, entry))
}
