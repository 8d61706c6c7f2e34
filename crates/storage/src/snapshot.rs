//! Snapshot files: opaque bytes that some state machine derived from the log up to an offset. They only
//! save reading the log, so they are written without a sync, checked when read, and ignored when damaged.

use std::path::PathBuf;

use varve_types::Offset;
use varve_vfs::{VfsError, durable};

use crate::format::{decode_snapshot, encode_snapshot};
use crate::segment::Home;

/// Snapshots kept: the newest, and one more in case it is damaged.
const KEPT: usize = 2;
const SUFFIX: &str = ".snapshot";

fn path(home: &Home, offset: Offset) -> PathBuf {
    home.dir.join(format!("{:020}{SUFFIX}", offset.get()))
}

/// Offsets of all snapshot files, growing.
fn offsets(home: &Home) -> Result<Vec<Offset>, VfsError> {
    let entries = home.vfs.list(&home.dir)?;
    let parse = |name: &str| {
        let digits = name.strip_suffix(SUFFIX).filter(|d| d.len() == 20)?;
        digits.parse().ok().and_then(Offset::new)
    };
    Ok(entries.iter().filter_map(|e| parse(&e.name)).collect())
}

pub(crate) fn write(home: &Home, offset: Offset, payload: &[u8]) -> Result<(), VfsError> {
    let bytes = encode_snapshot(&home.identity, offset, payload);
    durable::replace_unsynced(&*home.vfs, &path(home, offset), &bytes)?;
    let all = offsets(home)?;
    for old in all.iter().rev().skip(KEPT) {
        home.vfs.remove_file(&path(home, *old))?;
    }
    Ok(())
}

/// The newest intact snapshot at or below `upto`.
pub(crate) fn latest(home: &Home, upto: Offset) -> Option<(Offset, Vec<u8>)> {
    let all = offsets(home).ok()?;
    all.into_iter()
        .rev()
        .filter(|offset| *offset <= upto)
        .find_map(|offset| {
            let bytes = home.vfs.read(&path(home, offset)).ok()?;
            decode_snapshot(&home.identity, &bytes)
                .ok()
                .filter(|(stated, _)| *stated == offset)
        })
}

/// Removes snapshots past `end`: they describe records that are gone.
pub(crate) fn remove_after(home: &Home, end: Offset) -> Result<(), VfsError> {
    let mut removed = false;
    for offset in offsets(home)?.into_iter().filter(|offset| *offset > end) {
        home.vfs.remove_file(&path(home, offset))?;
        removed = true;
    }
    if removed {
        home.vfs.sync_dir(&home.dir)?;
    }
    Ok(())
}
