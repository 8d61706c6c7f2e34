//! What a batch must show before its bytes are given to anybody: checksum, place, and the leader epoch that
//! the log knows for its offset. The one check of reads and scrubs, so that neither accepts what the other
//! refuses.
//!
//! Invariant: a batch that passes has the bytes it was written with. The checksum covers everything behind
//! it; length and offset are checked by where the batch lies, the leader epoch by the log's own list.

use varve_record::{BatchHeader, check_stored};
use varve_types::{LeaderEpoch, Offset};

use crate::epoch_index::EpochIndex;

/// What should be there, and what is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl EpochIndex {
    /// The leader epoch of the batch at `offset`; `None` when the list does not reach back that far.
    pub(crate) fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self
            .entries()
            .partition_point(|(_, start)| *start <= offset);
        let at = after.checked_sub(1)?;
        self.entries().get(at).map(|(epoch, _)| *epoch)
    }
}

/// Where a batch has its leader epoch.
const EPOCH_AT: usize = 12;

/// As [`check_stored`], for a batch that a log has written: its leader epoch, which the checksum leaves out,
/// must be one at all.
pub(crate) fn check_written(bytes: &[u8]) -> Result<BatchHeader, String> {
    let header = check_stored(bytes).map_err(|e| e.to_string())?;
    let epoch = bytes.get(EPOCH_AT..).and_then(|b| b.first_chunk());
    match epoch.map(|b| i32::from_be_bytes(*b)) {
        Some(epoch) if epoch >= 0 => Ok(header),
        epoch => Err(format!("a leader epoch of {}", epoch.unwrap_or(-1))),
    }
}

/// Checks the batch at the start of `bytes`, which must begin at `offset`.
pub(crate) fn check_batch(
    bytes: &[u8],
    offset: Offset,
    epochs: &EpochIndex,
) -> Result<BatchHeader, Mismatch> {
    let header = check_written(bytes).map_err(|found| Mismatch {
        expected: format!("a complete batch at offset {offset} with a valid checksum"),
        found,
    })?;
    if header.base_offset != offset {
        return Err(Mismatch {
            expected: format!("a batch at offset {offset}"),
            found: format!("one at offset {}", header.base_offset),
        });
    }
    match epochs.epoch_at(offset) {
        Some(epoch) if epoch != header.leader_epoch => Err(Mismatch {
            expected: format!("leader epoch {epoch}"),
            found: format!("leader epoch {}", header.leader_epoch),
        }),
        _ => Ok(header),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_of_an_offset() {
        let at = |e, o| (LeaderEpoch::new(e).unwrap(), Offset::new(o).unwrap());
        let index = EpochIndex::new(vec![at(2, 10), at(5, 30)]);
        let ask = |o| {
            index
                .epoch_at(Offset::new(o).unwrap())
                .map(LeaderEpoch::get)
        };
        assert_eq!(
            [ask(9), ask(10), ask(29), ask(30)],
            [None, Some(2), Some(2), Some(5)]
        );
        assert_eq!(EpochIndex::default().epoch_at(Offset::ZERO), None);
    }
}
