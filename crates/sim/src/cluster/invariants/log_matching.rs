//! R2, log matching: below their high watermarks all logs are the same, offset by offset. Checked over
//! whole logs when everything has come to rest.

use std::collections::BTreeMap;

use varve_metadata::PartitionKey;
use varve_types::{NodeId, Offset};

use crate::cluster::node::Node;
use crate::cluster::oracle::Seen;

pub(in crate::cluster) fn check_all(
    key: PartitionKey,
    seen: &Seen,
    nodes: &BTreeMap<NodeId, Node>,
) -> Result<(), String> {
    for (id, node) in nodes {
        let (Some(replica), Some(log)) = (node.replicas.get(&key), node.disks.get(&key)) else {
            continue;
        };
        let Some(seen) = seen.histories.get(&replica.since) else {
            continue;
        };
        let mut offset = log.start;
        while offset < replica.core.committed() {
            let found = log.at(offset).map(|b| b.value);
            let shown = seen.shown.get(offset.get() as usize).copied();
            if found != shown {
                return Err(format!(
                    "R2: node {id} has {found:x?} at {offset}, where {shown:x?} was shown"
                ));
            }
            offset = Offset::new(offset.get() + 1).unwrap_or_default();
        }
    }
    Ok(())
}
