//! R3, leader completeness: a new leader's log holds everything that was ever committed.

use varve_types::{LeaderEpoch, NodeId, Offset};

use crate::cluster::disk::Log;
use crate::cluster::history::History;

pub(in crate::cluster) fn check(
    node: NodeId,
    epoch: LeaderEpoch,
    log: &Log,
    seen: &History,
) -> Result<(), String> {
    for (at, value) in seen.shown.iter().enumerate() {
        let offset = Offset::new(at as i64).unwrap_or_default();
        if offset < log.start {
            continue;
        }
        let found = log.at(offset).map(|b| b.value);
        if found != Some(*value) {
            return Err(format!(
                "R3: node {node} leads in epoch {epoch} but has {found:x?} at {offset}, where \
                 {value:x} was shown"
            ));
        }
    }
    Ok(())
}
