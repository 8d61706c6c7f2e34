//! What an unclean election has given up is not seen again until another one brings it back: records of
//! older epochs are shown only where the log had them that was made to lead.

use varve_types::{NodeId, Offset};

use crate::cluster::disk::Batch;
use crate::cluster::history::History;

pub(in crate::cluster) fn check(
    node: NodeId,
    seen: &History,
    offset: Offset,
    batch: &Batch,
) -> Result<(), String> {
    let Some((began, log)) = &seen.founder else {
        return Ok(());
    };
    let kept = log.at(offset).is_some_and(|b| b.value == batch.value);
    if batch.epoch >= *began || kept {
        return Ok(());
    }
    Err(format!(
        "node {node} shows {:x} of epoch {} at {offset}, which the unclean election of epoch {began} gave up",
        batch.value, batch.epoch
    ))
}
