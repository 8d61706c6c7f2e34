//! R9, no fenced leader or replica in sync: nobody fenced or unknown is in sync or leads, and nobody who is
//! stopping is let in (KIP-841).

use varve_metadata::{NodeState, State};

use crate::cluster::invariants::metadata_steps::partitions;

pub(in crate::cluster) fn check(before: &State, after: &State) -> Result<(), String> {
    for (key, was, is) in partitions(before, after) {
        for id in is.isr.iter().chain(&is.leader) {
            let state = after.node(*id).map(|n| n.state);
            let joins = was.is_none_or(|was| !was.isr.contains(id));
            let bad = match state {
                Some(NodeState::Active) => false,
                Some(NodeState::Draining) => joins,
                Some(NodeState::Fenced) | None => true,
            };
            if bad {
                return Err(format!(
                    "R9: node {id} is {state:?} and in sync on partition {}: {is:?}",
                    key.partition
                ));
            }
        }
    }
    Ok(())
}
