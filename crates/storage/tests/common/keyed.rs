//! Logs whose records have keys, and what a compaction has to leave of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_record::{BatchBuilder, BatchHeader, Compression, Marker, Sequenced, iter_batches, seal};
use varve_storage::{
    Compaction, CompactionConfig, CompactionError, CompactionStats, Log, ReadView,
};
use varve_types::{Offset, ProducerId, Sequence};

use super::*;

/// Compacts whatever there is.
pub fn eager() -> CompactionConfig {
    CompactionConfig {
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        min_dirty_ratio: 0.0,
        delete_retention_ms: 1000,
    }
}

/// Room for any number of keys of a test.
pub const ROOM: usize = 1 << 20;

pub type Record<'a> = (&'a str, Option<&'a str>);

pub fn builder(codec: Compression, ts: i64, records: &[Record<'_>]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec, None);
    for (i, (key, value)) in records.iter().enumerate() {
        let value = value.map(str::as_bytes);
        builder
            .append(ts + i as i64, Some(key.as_bytes()), value, &[("h", None)])
            .unwrap();
    }
    builder
}

/// Appends a batch of these records and returns its base offset.
pub fn put_now(log: &mut Log, records: &[Record<'_>]) -> Offset {
    put_at(log, NOW, records)
}

pub fn put_at(log: &mut Log, ts: i64, records: &[Record<'_>]) -> Offset {
    let base = log.log_end();
    let built = builder(Compression::None, ts, records).build_batch();
    log.append(&[built.unwrap().sequence(base, epoch(1))], NOW)
        .unwrap();
    base
}

/// Appends a batch of an idempotent or transactional producer.
pub fn put_as(
    log: &mut Log,
    producer: i64,
    sequence: i32,
    transactional: bool,
    records: &[Record<'_>],
) -> Offset {
    put_as_at(log, NOW, (producer, sequence), transactional, records)
}

/// The same with the times that the producer says.
pub fn put_as_at(
    log: &mut Log,
    ts: i64,
    (producer, sequence): (i64, i32),
    transactional: bool,
    records: &[Record<'_>],
) -> Offset {
    let mut made = builder(Compression::None, ts, records);
    let id = ProducerId {
        id: producer,
        epoch: 0,
    };
    made.set_producer(id, Sequence::new(sequence).unwrap());
    let bytes = made.build().unwrap();
    let header = BatchHeader {
        attributes: if transactional { 0x10 } else { 0 },
        ..BatchHeader::parse(&bytes).unwrap()
    };
    append_made(log, header, &bytes[61..])
}

/// Appends the marker that ends a transaction.
pub fn put_marker(log: &mut Log, producer: i64, marker: Marker) -> Offset {
    let kind = match marker {
        Marker::Abort => 0,
        Marker::Commit => 1,
    };
    let mut made = BatchBuilder::new(Compression::None, None);
    made.append(NOW, Some(&[0, 0, 0, kind]), Some(&[0; 6]), &[])
        .unwrap();
    let bytes = made.build().unwrap();
    let header = BatchHeader {
        attributes: 0x30,
        producer_id: producer,
        producer_epoch: 0,
        base_sequence: -1,
        ..BatchHeader::parse(&bytes).unwrap()
    };
    append_made(log, header, &bytes[61..])
}

fn append_made(log: &mut Log, header: BatchHeader, body: &[u8]) -> Offset {
    let base = log.log_end();
    let header = BatchHeader {
        base_offset: base,
        leader_epoch: epoch(1),
        ..header
    };
    let batch = Sequenced::from_stored(&seal(header, body)).unwrap();
    log.append(&[batch], NOW).unwrap();
    base
}

/// Rolls and flushes, so that everything so far can be compacted.
pub fn seal_off(log: &mut Log) {
    log.roll().unwrap();
    log.flush_now().unwrap();
}

/// Performs a run and installs what it makes.
pub fn perform(log: &mut Log, mut run: Compaction) -> Result<CompactionStats, CompactionError> {
    while let Some(part) = run.next(&|_| true)? {
        if let Err(removal) = log.prepare_install(part) {
            removal.run().unwrap();
            return Err(CompactionError::Changed);
        }
        log.change_now().unwrap();
        log.take_removed().run().unwrap();
    }
    Ok(*run.stats())
}

/// Compacts everything that is sealed.
pub fn compact_at(log: &mut Log, now_ms: i64) -> CompactionStats {
    let end = log.log_end();
    match log.prepare_compaction(&eager(), now_ms, end, ROOM) {
        Some(run) => perform(log, run).unwrap_or_else(|e| panic!("{e}")),
        None => CompactionStats::default(),
    }
}

pub fn compact(log: &mut Log) -> CompactionStats {
    compact_at(log, NOW)
}

/// What is known of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub offset: i64,
    pub timestamp: i64,
    pub key: String,
    pub value: Option<String>,
}

/// All data records from the log start on.
pub fn records(view: &ReadView) -> Vec<Kept> {
    let bytes = read_on(view, view.log_start(), 700);
    let mut all = Vec::new();
    for batch in iter_batches(bytes) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        if batch.header.is_control() {
            continue;
        }
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            if record.offset < view.log_start() {
                continue;
            }
            assert_eq!(record.headers.len(), 1, "headers stay");
            let text = |b: &Bytes| String::from_utf8(b.to_vec()).unwrap();
            all.push(Kept {
                offset: record.offset.get(),
                timestamp: record.timestamp,
                key: record.key.as_ref().map(text).unwrap_or_default(),
                value: record.value.as_ref().map(text),
            });
        }
    }
    all
}

/// All bytes, as a reader gets them who does not mind gaps.
pub fn read_on(view: &ReadView, from: Offset, max: usize) -> Bytes {
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
        assert!(found.next_offset > next, "a read at {next} moves forward");
        next = found.next_offset;
        cursor = found.cursor;
        bytes.extend_from_slice(&found.bytes);
    }
    bytes.into()
}

/// The newest record of each key.
pub fn newest(records: &[Kept]) -> BTreeMap<String, Kept> {
    let pairs = records.iter().map(|r| (r.key.clone(), r.clone()));
    pairs.collect()
}

pub fn offsets(view: &ReadView) -> Vec<i64> {
    records(view).iter().map(|r| r.offset).collect()
}
