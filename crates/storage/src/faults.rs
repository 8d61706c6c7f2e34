//! What is wrong with the files beside the batches, each on its own: for the offline check and for the scrub.
//! None of them can make an answer wrong, because every use checks the same; but a flipped bit is a disk that
//! flips bits.

use std::path::Path;

use varve_types::Offset;

use crate::format::{
    ENTRY_BYTES, FormatError, HEADER_BYTES, INDEX_MAGIC, LogIdentity, Manifest, SegmentHeader,
    TIME_ENTRY_BYTES, TIME_INDEX_MAGIC, decode_epochs, decode_snapshot,
};
use crate::segment::{EPOCHS, Kind, MANIFEST, companion_at, time_entry_at};
use crate::walk::Damage;

fn derived(path: &Path, range: std::ops::Range<usize>, expected: &str, found: String) -> Damage {
    Damage {
        file: path.to_owned(),
        position: range.start as u64,
        end: range.end as u64,
        offsets: None,
        expected: expected.to_owned(),
        found,
    }
}

pub(crate) fn missing(path: &Path) -> Damage {
    derived(path, 0..0, "an index file", "no file".to_owned())
}

/// Header and entries of an `.index` or `.timeindex` file. Bytes behind the last whole entry are no fault:
/// a crash may leave the half of one.
pub(crate) fn index_faults(
    kind: Kind,
    path: &Path,
    identity: &LogIdentity,
    base: Offset,
    id: Option<u64>,
    bytes: &[u8],
) -> Vec<Damage> {
    let (magic, entry_bytes) = match kind {
        Kind::TimeIndex => (TIME_INDEX_MAGIC, TIME_ENTRY_BYTES),
        _ => (INDEX_MAGIC, ENTRY_BYTES),
    };
    let head = 0..HEADER_BYTES.min(bytes.len());
    let header = match SegmentHeader::decode(magic, identity, bytes) {
        Ok(h) if h.base_offset == base && id.is_none_or(|id| id == h.segment_id) => h,
        Ok(h) => {
            let found = format!("the index of segment {} at {}", h.segment_id, h.base_offset);
            return vec![derived(path, head, "the index of this segment", found)];
        }
        Err(e) => return vec![derived(path, head, "the header of an index", e.to_string())],
    };
    let count = (bytes.len() - HEADER_BYTES) / entry_bytes;
    let mut found = Vec::new();
    for number in 0..u32::try_from(count).unwrap_or(u32::MAX) {
        let intact = match kind {
            Kind::TimeIndex => time_entry_at(bytes, header.segment_id, number).is_some(),
            _ => companion_at(bytes, header.segment_id, number).is_some(),
        };
        if !intact {
            let at = HEADER_BYTES + number as usize * entry_bytes;
            let expected = format!("entry {number} with a valid checksum");
            let what = "a damaged entry, which is skipped".to_owned();
            found.push(derived(path, at..at + entry_bytes, &expected, what));
        }
    }
    found
}

type Check = fn(&LogIdentity, &Path, &[u8]) -> Option<Damage>;

/// How to check a file of that name; `None` when it is none of the small files.
pub(crate) fn small_file_fault(name: &str) -> Option<Check> {
    match name {
        MANIFEST => Some(|identity, path, bytes| {
            whole(path, bytes, Manifest::decode(identity, bytes).err())
        }),
        EPOCHS => {
            Some(|identity, path, bytes| whole(path, bytes, decode_epochs(identity, bytes).err()))
        }
        _ if name.ends_with(".snapshot") => Some(snapshot_fault),
        _ => None,
    }
}

fn whole(path: &Path, bytes: &[u8], error: Option<FormatError>) -> Option<Damage> {
    error.map(|e| {
        derived(
            path,
            0..bytes.len(),
            "an intact file of this log",
            e.to_string(),
        )
    })
}

fn snapshot_fault(identity: &LogIdentity, path: &Path, bytes: &[u8]) -> Option<Damage> {
    match decode_snapshot(identity, bytes) {
        Err(e) => whole(path, bytes, Some(e)),
        Ok((offset, _)) => {
            let name = format!("{:020}.snapshot", offset.get());
            let same = path.file_name().is_some_and(|n| n == name.as_str());
            let found = format!("that of offset {offset}");
            (!same).then(|| derived(path, 0..bytes.len(), "the snapshot of its name", found))
        }
    }
}
