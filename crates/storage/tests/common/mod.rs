//! Logs on a disk in memory, and batches to put into them.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub mod keyed;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_record::{BatchBuilder, Compression, Sequenced, iter_batches};
use varve_storage::{
    Log, LogConfig, LogError, LogIdentity, OpenMode, ReadMode, ReadOutcome, ReadView, Recovery,
    Slice,
};
use varve_types::{LeaderEpoch, Offset, PartitionId, TopicId};
use varve_vfs::Vfs;
use varve_vfs::mem::MemVfs;

pub const NOW: i64 = 1_700_000_000_000;

pub fn o(offset: i64) -> Offset {
    Offset::new(offset).unwrap()
}

pub fn epoch(epoch: i32) -> LeaderEpoch {
    LeaderEpoch::new(epoch).unwrap()
}

pub fn identity() -> LogIdentity {
    LogIdentity {
        topic_id: TopicId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        partition: PartitionId(3),
    }
}

pub fn dir() -> PathBuf {
    PathBuf::from("/data/topics/t-00112233/3")
}

pub fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 20,
        segment_ms: i64::MAX,
        index_interval_bytes: 256,
        retention_bytes: None,
        retention_ms: None,
    }
}

/// A batch of `records` records with `size` bytes of value each; timestamps rise from `ts`.
pub fn batch(base: Offset, e: i32, ts: i64, records: usize, size: usize) -> Sequenced {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for i in 0..records {
        let fill = (base.get() as u8).wrapping_add(i as u8);
        builder
            .append(ts + i as i64, None, Some(&vec![fill; size]), &[])
            .unwrap();
    }
    builder.build_batch().unwrap().sequence(base, epoch(e))
}

/// `count` batches that continue at `base`, three records each.
pub fn batches(base: Offset, count: usize) -> Vec<Sequenced> {
    let mut next = base;
    let mut all = Vec::new();
    for _ in 0..count {
        let made = batch(
            next,
            1,
            NOW + next.get(),
            3,
            20 + (next.get() as usize * 7) % 90,
        );
        next = made.header().next_offset();
        all.push(made);
    }
    all
}

pub fn bytes_of(batches: &[Sequenced]) -> Vec<u8> {
    batches.iter().flat_map(|b| b.to_bytes()).collect()
}

pub fn try_open(
    vfs: &Arc<dyn Vfs>,
    config: LogConfig,
    clean: bool,
) -> Result<(Log, Recovery), LogError> {
    Log::open(
        vfs.clone(),
        &dir(),
        identity(),
        config,
        OpenMode { clean },
        NOW,
    )
}

pub fn open(vfs: &Arc<dyn Vfs>, config: LogConfig, clean: bool) -> (Log, Recovery) {
    try_open(vfs, config, clean).unwrap_or_else(|e| panic!("{e}"))
}

pub fn mem() -> (MemVfs, Arc<dyn Vfs>) {
    let mem = MemVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    (mem, vfs)
}

/// Appends `count` batches in one call and returns them.
pub fn fill(log: &mut Log, count: usize) -> Vec<Sequenced> {
    let made = batches(log.log_end(), count);
    log.append(&made, NOW).unwrap();
    made
}

pub fn slice(outcome: ReadOutcome) -> Slice {
    match outcome {
        ReadOutcome::Slice(slice) => slice,
        ReadOutcome::WouldBlock => panic!("a blocking read does not block"),
    }
}

/// All bytes from `from` to the end, read in pieces of at most `max` bytes with a cursor.
pub fn read_all(view: &ReadView, from: Offset, max: usize) -> Vec<u8> {
    let (mut next, mut bytes, mut cursor) = (from, Vec::new(), None);
    while next < view.log_end() {
        let outcome = view
            .read(
                next,
                max,
                view.log_end(),
                true,
                ReadMode::Blocking,
                cursor.as_ref(),
            )
            .unwrap();
        let found = slice(outcome);
        assert!(found.next_offset > next, "a read moves forward");
        for batch in iter_batches(found.bytes.clone()) {
            batch.unwrap().verify_crc().unwrap();
        }
        next = found.next_offset;
        cursor = found.cursor;
        bytes.extend_from_slice(&found.bytes);
    }
    bytes
}

pub fn log_file(base: i64) -> PathBuf {
    dir().join(format!("{base:020}.log"))
}

pub fn file(base: i64, extension: &str) -> PathBuf {
    dir().join(format!("{base:020}.{extension}"))
}

/// Replaces a file's content in an image.
pub fn put(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) {
    let f = vfs.open_write(path).unwrap();
    f.set_len(0).unwrap();
    f.write_all_at(&[std::io::IoSlice::new(bytes)], 0).unwrap();
    f.sync_all().unwrap();
}
