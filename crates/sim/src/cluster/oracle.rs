//! What is known from outside: what was shown, what was acknowledged, what was refused, who led. It never
//! asks a core for its opinion of these.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::PartitionKey;
use varve_partition::Accepted;
use varve_types::config::Durability;
use varve_types::{Acks, LeaderEpoch, NodeId, Offset};

use super::history::History;
use super::invariants;
use super::node::Node;
use super::world::{Produce, World};

/// One partition, as the world has seen it.
#[derive(Debug)]
pub(super) struct Seen {
    /// What was shown before any unclean election, and since each.
    pub(super) histories: BTreeMap<Option<LeaderEpoch>, History>,
    /// Values that were surely not appended.
    pub(super) refused: BTreeSet<u64>,
    /// Who led in which epoch.
    leaders: BTreeMap<LeaderEpoch, NodeId>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            histories: BTreeMap::from([(None, History::default())]),
            refused: BTreeSet::new(),
            leaders: BTreeMap::new(),
        }
    }
}

impl Seen {
    /// The history that a leader of that epoch belongs to.
    fn of_epoch(&mut self, epoch: LeaderEpoch) -> Option<&mut History> {
        let mut until = self.histories.range_mut(..=Some(epoch));
        until.next_back().map(|(_, history)| history)
    }

    fn newest(&self) -> Option<&History> {
        self.histories.values().next_back()
    }
}

/// Everything that is known from outside.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) seen: BTreeMap<PartitionKey, Seen>,
}

impl Oracle {
    pub(super) fn records(&self) -> u64 {
        let newest = self.seen.values().filter_map(Seen::newest);
        newest.map(|h| h.shown.len() as u64).sum()
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
            let Some(newest) = seen.newest() else {
                continue;
            };
            invariants::acknowledged_is_there::check(newest)?;
            invariants::once_and_in_order::check(newest)?;
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
        let Some(history) = seen.of_epoch(accepted.leader_epoch) else {
            return Ok(());
        };
        let at = (accepted.base_offset, produce.records);
        let first = *history.acknowledged.entry(produce.value).or_insert(at);
        if first == at || first.0 < history.trimmed {
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
        // What it does not know to be a replica of anything it shows to nobody.
        let Some(assigned) = replica.core.assignment() else {
            return Ok(());
        };
        let since = assigned.unclean_epoch;
        if replica.since != since {
            // After an unclean election all of it is to be proved again.
            replica.since = since;
            replica.shown = Offset::ZERO;
        }
        let (from, to) = (replica.shown.max(log.start), replica.core.high_watermark());
        replica.shown = replica.shown.max(to);
        let led = replica.core.leader_epoch().zip(replica.core.latest());
        let follows = led.is_none() && to > from;
        let Some(history) = self.oracle.partition(key).histories.get_mut(&since) else {
            if to <= from {
                return Ok(());
            }
            return Err(format!(
                "L5: node {id} shows {from} to {to} after the unclean election of epoch {since:?}, \
                 before any node has led"
            ));
        };
        let before = history.shown.len();
        let internal = key.partition.0 >= self.knobs.partitions;
        invariants::consistent_read::check(id, log, history, from, to)?;
        if let Some((epoch, latest)) = led {
            invariants::latest_is_monotonic::check(&mut history.latest, epoch, latest)?;
        }
        let grown = history.shown.len() > before;
        let new = match internal {
            true => history.shown[before..].to_vec(),
            false => Vec::new(),
        };
        if follows {
            self.count("follower shows records");
        }
        if grown {
            self.learn_records(key, &new)?;
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
        let durability = self.knobs.durability;
        let Some(node) = self.nodes.get(&id) else {
            return Ok(());
        };
        let (Some(replica), Some(log)) = (node.replicas.get(&key), node.disks.get(&key)) else {
            return Ok(());
        };
        let since = replica.core.assignment().and_then(|a| a.unclean_epoch);
        let seen = self.oracle.seen.entry(key).or_default();
        let mut given_up = None;
        if let Some(unclean) = since
            && !seen.histories.contains_key(&since)
        {
            let durable = log.durable(durability);
            let history = History::found(unclean, log, durable, seen.histories.values());
            let kept = history.acknowledged.len();
            let before: BTreeSet<_> = seen
                .histories
                .values()
                .flat_map(|h| h.acknowledged.keys())
                .collect();
            given_up = Some(before.len() - kept);
            seen.histories.insert(since, history);
        }
        let Some(history) = seen.histories.get(&since) else {
            return Ok(());
        };
        let in_flight = !history.acknowledged.is_empty();
        // One that learns late of its election need not hold what a later leader has committed since.
        let current = self.controller.state.partition_at(key);
        if current.is_some_and(|p| p.leader_epoch == epoch) {
            invariants::leader_completeness::check(id, epoch, log, history)?;
        }
        if let Some(batches) = given_up {
            self.count("unclean leader begins");
            self.say(|_| format!("{batches} acknowledged batches are given up"));
            if batches > 0 {
                self.count("acknowledged records given up");
            }
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
        // Between an unclean election and the first act of its leader there is no truth to hold.
        let Some(seen) = seen.histories.get(&partition.unclean_epoch) else {
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
