//! What a recovery knows of the leader epochs: the epoch file, or what the batches of all segments say.
//!
//! Invariant: nothing is changed here; a refusal comes before any change.

use varve_types::{LeaderEpoch, Offset};
use varve_vfs::VfsError;

use super::Reason;
use super::open::refuse;
use super::segment::read_index;
use crate::error::{LogError, ReadError};
use crate::format::decode_epochs;
use crate::header_scan::HeaderScan;
use crate::read_view::Sealed;
use crate::segment::{EPOCHS, Home, Kind};

/// First offsets of the leader epochs.
pub(super) enum KnownEpochs {
    /// As the epoch file says.
    Stored(Vec<(LeaderEpoch, Offset)>),
    /// There is no good file: as the batches of all segments say.
    Derived(Vec<(LeaderEpoch, Offset)>),
}

/// What the epoch file says, if it is good.
pub(super) fn stored_epochs(home: &Home) -> Result<Option<Vec<(LeaderEpoch, Offset)>>, VfsError> {
    match home.vfs.read(&home.dir.join(EPOCHS)) {
        Ok(bytes) => Ok(decode_epochs(&home.identity, &bytes).ok()),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// The first offset of each epoch, from the batches, and from the manifest (`epochs`) for those in compacted
/// segments: there the first batch of an epoch may be gone. Runs whose largest epoch is not new are skipped
/// by their index entry, so that only the batches at a change of leader are read.
pub(super) fn derive_epochs(
    mut epochs: Vec<(LeaderEpoch, Offset)>,
    parts: &[Sealed],
) -> Result<Vec<(LeaderEpoch, Offset)>, LogError> {
    for (i, part) in parts.iter().enumerate() {
        if part.segment.compacted {
            continue;
        }
        let seen = read_index(&part.segment, part.size)?;
        let file = part.segment.log_file()?;
        let mut scan = HeaderScan::new(file, part.size).ending_by(part.end);
        let (mut position, mut next) = (0, part.segment.base);
        let refused = |position: u64, expected: String, found: String| {
            let path = part.segment.path(Kind::Log);
            refuse(&path, position, Reason::BelowCheckpoint, expected, found)
        };
        let mut runs = seen.entries.iter().peekable();
        while position < part.size {
            let newest = epochs.last().map(|(epoch, _)| *epoch);
            while runs.next_if(|r| r.position < position).is_some() {}
            if let Some(run) = runs.next_if(|r| r.position == position)
                && Some(run.max_epoch) == newest
            {
                (position, next) = (run.end, run.next);
                continue;
            }
            let header = scan.header_at(position).map_err(|e| match e {
                ReadError::Io(e) => LogError::Io(e),
                e => refused(position, "a batch header".into(), e.to_string()),
            })?;
            if header.base_offset < next {
                let expected = format!("a batch at offset {next} or later");
                let found = format!("one at offset {}", header.base_offset);
                return Err(refused(position, expected, found));
            }
            next = header.next_offset();
            if newest.is_none_or(|newest| header.leader_epoch > newest) {
                epochs.push((header.leader_epoch, header.base_offset));
            }
            position += header.size() as u64;
        }
        if i + 1 < parts.len() {
            part.segment.release();
        }
    }
    Ok(epochs)
}
