//! L2 and L5, consistent read: an offset shows the same record for ever, on every node, whatever `acks`
//! wrote it.

use varve_types::{NodeId, Offset};

use crate::cluster::disk::Log;
use crate::cluster::history::History;
use crate::cluster::invariants::given_up_stays_away;

/// `node` shows `[from, to)` for the first time. What nobody has shown before becomes the truth.
pub(in crate::cluster) fn check(
    node: NodeId,
    log: &Log,
    seen: &mut History,
    from: Offset,
    to: Offset,
) -> Result<(), String> {
    let mut offset = from;
    while offset < to {
        let Some(batch) = log.at(offset) else {
            return Err(format!(
                "L5: node {node} shows {offset} of {from} to {to}, but its log spans {} to {} in \
                 {} batches, {:?} first",
                log.start,
                log.end(),
                log.batches.len(),
                log.batches.first()
            ));
        };
        let at = offset.get() as usize;
        match seen.shown.get(at) {
            Some(shown) if *shown != batch.value => {
                return Err(format!(
                    "L2: node {node} shows {:x} at {offset}, where {shown:x} was shown before",
                    batch.value
                ));
            }
            Some(_) => {}
            None if at == seen.shown.len() => {
                given_up_stays_away::check(node, seen, offset, batch)?;
                seen.shown.push(batch.value);
            }
            None => {
                return Err(format!(
                    "L5: node {node} shows {offset}, but no node has shown {} yet",
                    seen.shown.len()
                ));
            }
        }
        offset = offset.plus(1);
    }
    Ok(())
}
