//! What is known from outside: what was shown, what was acknowledged, what was refused, who led. It never
//! asks a core for its opinion of these.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::PartitionKey;
use varve_partition::Accepted;
use varve_types::config::Durability;
use varve_types::{Acks, LeaderEpoch, NodeId, Offset};

use super::invariants;
use super::node::Node;
use super::world::{Produce, World};

/// One partition, as the world has seen it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The value at each offset, as it was shown first. A value takes as many offsets as it has records.
    pub(super) shown: Vec<u64>,
    /// Where each acknowledged value (`acks=all`) begins.
    pub(super) acknowledged: BTreeMap<u64, (Offset, u32)>,
    /// Records below have been removed on some node. What a producer repeats after that is new again to a
    /// replica that began without them (the sessions go with the records).
    pub(super) trimmed: Offset,
    /// Values that were surely not appended.
    pub(super) refused: BTreeSet<u64>,
    /// Who led in which epoch.
    leaders: BTreeMap<LeaderEpoch, NodeId>,
    /// For each epoch, the least and the greatest end that its leader has told clients.
    pub(super) latest: BTreeMap<LeaderEpoch, (Offset, Offset)>,
}

/// Everything that is known from outside.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) seen: BTreeMap<PartitionKey, Seen>,
}

impl Oracle {
    pub(super) fn records(&self) -> u64 {
        self.seen.values().map(|s| s.shown.len() as u64).sum()
    }

    pub(super) fn partition(&mut self, key: PartitionKey) -> &mut Seen {
        self.seen.entry(key).or_default()
    }

    /// R1: a node appends as the leader of an epoch.
    pub(super) fn leads(
        &mut self,
        key: PartitionKey,
        epoch: LeaderEpoch,
        node: NodeId,
    ) -> Result<(), String> {
        let first = *self.partition(key).leaders.entry(epoch).or_insert(node);
        if first == node {
            return Ok(());
        }
        Err(format!(
            "R1: nodes {first} and {node} both lead in epoch {epoch}"
        ))
    }

    /// A producer that does not repeat was told that nothing was appended.
    pub(super) fn refused(&mut self, produce: &Produce) -> Result<(), String> {
        let seen = self.partition(produce.key);
        seen.refused.insert(produce.value);
        invariants::refused_is_invisible::check(seen)
    }

    pub(super) fn final_check(&self, nodes: &BTreeMap<NodeId, Node>) -> Result<(), String> {
        for (key, seen) in &self.seen {
            invariants::acknowledged_is_there::check(seen)?;
            invariants::once_and_in_order::check(seen)?;
            invariants::log_matching::check_all(*key, seen, nodes)?;
        }
        Ok(())
    }
}

impl World {
    /// A leader answers an append with success.
    pub(super) fn acknowledged(
        &mut self,
        produce: &Produce,
        accepted: &Accepted,
    ) -> Result<(), String> {
        if accepted.deduplicated {
            self.count("repeat answered with the first offset");
        }
        if produce.acks != Acks::All {
            return Ok(());
        }
        let seen = self.oracle.partition(produce.key);
        let at = (accepted.base_offset, produce.records);
        let first = *seen.acknowledged.entry(produce.value).or_insert(at);
        if first == at || first.0 < seen.trimmed {
            return Ok(());
        }
        Err(format!(
            "P1: value {:x} was acknowledged at {} and at {}",
            produce.value, first.0, at.0
        ))
    }

    /// After each step of a core: what it shows from now on is what was shown before, and is safe.
    pub(super) fn check_shown(&mut self, id: NodeId, key: PartitionKey) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let (Some(replica), Some(log)) = (node.replicas.get_mut(&key), node.disks.get(&key)) else {
            return Ok(());
        };
        let (from, to) = (replica.shown.max(log.start), replica.core.high_watermark());
        replica.shown = replica.shown.max(to);
        let led = replica.core.leader_epoch().zip(replica.core.latest());
        let seen = self.oracle.partition(key);
        let before = seen.shown.len();
        invariants::consistent_read::check(id, log, seen, from, to)?;
        if let Some((epoch, latest)) = led {
            invariants::latest_is_monotonic::check(seen, epoch, latest)?;
        }
        if self.oracle.partition(key).shown.len() > before {
            self.check_candidates(key)?;
        }
        Ok(())
    }

    /// A node has become leader.
    pub(super) fn check_new_leader(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        epoch: LeaderEpoch,
    ) -> Result<(), String> {
        self.count("leader elected");
        let seen = self.oracle.partition(key);
        let in_flight = !seen.acknowledged.is_empty();
        let log = self.nodes.get(&id).and_then(|n| n.disks.get(&key));
        // One that learns late of its election need not hold what a later leader has committed since.
        let current = self.controller.state.partition_at(key);
        if let Some(log) = log
            && current.is_some_and(|p| p.leader_epoch == epoch)
        {
            invariants::leader_completeness::check(id, epoch, log, seen)?;
        }
        if in_flight {
            self.count("leader elected with records committed");
        }
        Ok(())
    }

    /// The metadata changed: everybody it would elect must hold what was committed.
    pub(super) fn check_metadata(&mut self) -> Result<(), String> {
        self.controller.state.check()?;
        for key in self.keys() {
            let partition = self.controller.state.partition_at(key);
            let Some(partition) = partition else { continue };
            let (isr, elr) = (partition.isr.len(), partition.elr.len());
            if isr < self.knobs.min_insync {
                self.count("fewer than min.insync.replicas in sync");
            }
            if elr > 0 && isr == 0 {
                self.count("only eligible replicas are left");
            }
            self.check_candidates(key)?;
        }
        Ok(())
    }

    fn check_candidates(&self, key: PartitionKey) -> Result<(), String> {
        let (Some(partition), Some(seen)) = (
            self.controller.state.partition_at(key),
            self.oracle.seen.get(&key),
        ) else {
            return Ok(());
        };
        // With durability=replicated, what a node lost shows when it registers again, as having stopped
        // uncleanly; until then it is not running.
        let counts = |id: &NodeId| {
            let node = self.nodes.get(id)?;
            let known = self.controller.state.node(*id)?;
            if known.directory.0 != node.directory {
                // The disk it was in sync on is gone. That is one of the losses a topic bears (R16).
                return None;
            }
            let running = node.up && node.epoch == Some(known.epoch);
            (running || self.knobs.durability == Durability::Fsync).then_some(node)
        };
        invariants::leader_candidate_completeness::check(
            key,
            partition,
            seen,
            counts,
            self.knobs.durability,
        )
    }
}
