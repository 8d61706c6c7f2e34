//! Compaction leaves offsets without records, and a follower's log goes on without a gap: what is missing
//! between two batches is said by an empty one, as compaction itself leaves them.
//!
//! Invariant: nothing that came from the leader is changed; a filler has no records and no producer.

use varve_record::{Sequenced, filler};
use varve_types::Offset;

/// Puts empty batches where `batches` leave offsets out, from `end` on.
pub(crate) fn fill_gaps(end: Offset, batches: Vec<Sequenced>) -> Vec<Sequenced> {
    let mut expected = end;
    let gap = |batch: &Sequenced, expected: Offset| batch.header().base_offset > expected;
    let mut at = expected;
    let whole = batches.iter().all(|b| {
        let fits = !gap(b, at);
        at = b.header().next_offset();
        fits
    });
    if whole {
        return batches;
    }
    let mut filled = Vec::with_capacity(batches.len() * 2);
    for batch in batches {
        let header = batch.header();
        while header.base_offset > expected {
            let filler = filler(expected, header.base_offset, header);
            expected = filler.header().next_offset();
            filled.push(filler);
        }
        expected = batch.header().next_offset();
        filled.push(batch);
    }
    filled
}
