//! What a replay of a log comes to: the newest value of each key, of committed transactions only. A compaction
//! may take away whatever does not change that, and nothing else; and no record may say anything but what was
//! once written at its offset. Knows nothing about how a compaction decides.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_record::{Marker, StoredBatch, iter_batches};
use varve_storage::Log;
use varve_types::Offset;

use super::oracle::{Content, Served};

/// One record, as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    key: Option<Bytes>,
    value: Option<Bytes>,
    timestamp: i64,
}

/// What was learned from a run of batches.
#[derive(Debug, Default)]
struct Replayed {
    /// All data records from the start on, by offset.
    records: BTreeMap<i64, Seen>,
    /// By key: where its value was written last, and the value. Deleted keys are not there.
    live: BTreeMap<Bytes, (i64, Bytes)>,
}

fn replay(bytes: Bytes, start: i64) -> Result<Replayed, String> {
    let mut done = Replayed::default();
    let mut newest: BTreeMap<Bytes, (i64, Option<Bytes>)> = BTreeMap::new();
    let mut open: BTreeMap<i64, Vec<(i64, Seen)>> = BTreeMap::new();
    for batch in iter_batches(bytes) {
        let batch = batch.map_err(|e| format!("a replay stops: {e}"))?;
        let told = |e| format!("the batch at offset {}: {e}", batch.header.base_offset);
        let producer = batch.header.producer_id;
        if batch.header.is_control() {
            let ended = batch.marker().map_err(told)?;
            let of_transaction = match ended {
                Some(_) => open.remove(&producer).unwrap_or_default(),
                None => Vec::new(),
            };
            if ended == Some(Marker::Commit) {
                of_transaction
                    .into_iter()
                    .for_each(|(at, seen)| take(&mut newest, at, seen));
            }
            continue;
        }
        for (at, seen) in records(&batch).map_err(told)? {
            if at < start {
                continue;
            }
            done.records.insert(at, seen.clone());
            if batch.header.is_transactional() {
                open.entry(producer).or_default().push((at, seen));
            } else {
                take(&mut newest, at, seen);
            }
        }
    }
    let with_value = |(key, (at, value)): (Bytes, (i64, Option<Bytes>))| Some((key, (at, value?)));
    done.live = newest.into_iter().filter_map(with_value).collect();
    Ok(done)
}

fn take(newest: &mut BTreeMap<Bytes, (i64, Option<Bytes>)>, at: i64, seen: Seen) {
    let Some(key) = seen.key else {
        return;
    };
    // A transaction is applied at its end, and another record may be newer.
    if newest.get(&key).is_none_or(|(before, _)| *before < at) {
        newest.insert(key, (at, seen.value));
    }
}

fn records(batch: &StoredBatch) -> Result<Vec<(i64, Seen)>, varve_record::BatchError> {
    let mut all = Vec::new();
    for record in batch.records()? {
        let record = record?;
        let seen = Seen {
            key: record.key,
            value: record.value,
            timestamp: record.timestamp,
        };
        all.push((record.offset.get(), seen));
    }
    Ok(all)
}

/// Holds what was served against all that was written.
///
/// # Errors
/// A key that was lost or came back, or a record that nobody wrote.
pub fn same_answers(log: &Log, served: &Served, written: &Content) -> Result<(), String> {
    let found = replay(served.bytes.clone().into(), served.start)?;
    let right = replay(written.bytes_below(served.end), served.start)?;
    for (at, seen) in &found.records {
        if right.records.get(at) != Some(seen) {
            return Err(format!("another record than was written at offset {at}"));
        }
    }
    if let Some((key, value)) = right
        .live
        .iter()
        .find(|(k, v)| found.live.get(*k) != Some(v))
    {
        return Err(format!(
            "key {key:?} has its value of offset {}, and a replay finds {:?}",
            value.0,
            found.live.get(key).map(|v| v.0)
        ));
    }
    if let Some((key, value)) = found
        .live
        .iter()
        .find(|(k, _)| !right.live.contains_key(*k))
    {
        return Err(format!(
            "key {key:?} is back with its value of offset {}",
            value.0
        ));
    }
    by_time(log, &found.records, served.end)
}

/// Some records are found by their times, which rise with the offsets.
fn by_time(log: &Log, records: &BTreeMap<i64, Seen>, end: i64) -> Result<(), String> {
    let Some(upto) = Offset::new(end) else {
        return Ok(());
    };
    for (at, seen) in records.iter().step_by(records.len() / 4 + 1) {
        let found = log
            .view()
            .offset_for_timestamp(seen.timestamp, upto)
            .map_err(|e| format!("looking for time {}: {e}", seen.timestamp))?;
        if found.map(|(o, t)| (o.get(), t)) != Some((*at, seen.timestamp)) {
            return Err(format!(
                "time {} is at offset {at}, and {found:?} was found",
                seen.timestamp
            ));
        }
    }
    Ok(())
}
