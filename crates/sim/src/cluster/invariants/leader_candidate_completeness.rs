//! R4, leader candidate completeness: whoever the metadata would let lead holds everything that was
//! committed, on stable storage where the topic asks for that, even while its process is down.

use varve_metadata::{Partition, PartitionKey};
use varve_types::config::Durability;
use varve_types::{NodeId, Offset};

use crate::cluster::history::History;
use crate::cluster::node::Node;

pub(in crate::cluster) fn check<'a>(
    key: PartitionKey,
    partition: &Partition,
    seen: &History,
    counts: impl Fn(&NodeId) -> Option<&'a Node>,
    durability: Durability,
) -> Result<(), String> {
    let Some(last) = seen.shown.last() else {
        return Ok(());
    };
    let end = Offset::new(seen.shown.len() as i64).unwrap_or_default();
    let last_offset = Offset::new(seen.shown.len() as i64 - 1).unwrap_or_default();
    for id in partition.isr.iter().chain(&partition.elr) {
        let Some(node) = counts(id) else { continue };
        let log = node.disks.get(&key);
        let held = log.is_some_and(|log| {
            let same = log.at(last_offset).is_some_and(|b| b.value == *last);
            (same || log.start >= end) && log.durable(durability) >= end
        });
        if !held {
            let durable = log.map(|l| l.durable(durability).get());
            return Err(format!(
                "R4: node {id} may lead partition {} (in sync {:?}, eligible {:?}) but holds \
                 {durable:?} of {end} committed records",
                key.partition, partition.isr, partition.elr
            ));
        }
    }
    Ok(())
}
