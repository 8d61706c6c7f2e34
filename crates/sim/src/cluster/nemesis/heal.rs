//! How everything is put right in the end, and what must then come back (V1).

use varve_metadata::{Command, Election, NodeState, PartitionKey};
use varve_types::Offset;

use super::super::clients::Client;
use super::super::knobs::Theme;
use super::super::node::Node;
use super::super::txn::Writer;
use super::super::world::{Event, World};
use super::Plot;

impl World {
    pub(in crate::cluster) fn heal_everything(&mut self) {
        self.healed = true;
        self.cut.clear();
        self.muted.1 = 0;
        self.say(|_| "everything is healed".to_owned());
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.stalled_until = 0;
                node.full_until = 0;
                node.nearly_full_until = 0;
            }
            self.resume_node(id);
            self.at(1, Event::Start(id));
        }
        self.at(500, Event::Plot(Plot::Operator));
    }

    /// After everything is healed somebody looks after the cluster: nodes need not be emptied any more, what was shrunk
    /// grows again, and where an unclean election was wanted once and nobody is eligible, there is another.
    pub(super) fn operator_looks(&mut self) -> Result<(), String> {
        if !self.healed {
            return Ok(());
        }
        self.at(500, Event::Plot(Plot::Operator));
        let nodes = self.controller.state.nodes().iter();
        let emptied: Vec<_> = nodes
            .filter(|(_, n)| n.decommissioning)
            .map(|(id, _)| *id)
            .collect();
        for node in emptied {
            self.change(Command::SetDecommissioning { node, on: false })?;
        }
        for key in self.keys() {
            let Some(partition) = self.controller.state.partition_at(key) else {
                continue;
            };
            let (target, wanted) = (partition.target(), self.knobs.replication_factor as usize);
            if target.len() < wanted && !partition.is_reassigning() {
                let others = self.nodes.keys().filter(|n| !target.contains(n));
                let target = target.iter().chain(others).take(wanted).copied().collect();
                self.reassign(key, Some(target))?;
                continue;
            }
            let lost = partition.leader.is_none() && partition.elr.is_empty();
            if !lost || self.knobs.theme != Theme::Unclean {
                continue;
            }
            let active = |n: &&varve_types::NodeId| {
                let node = self.controller.state.node(**n);
                node.is_some_and(|n| n.state == NodeState::Active)
            };
            if let Some(node) = partition.replicas.iter().find(active).copied() {
                self.elect(key, Election::Unclean(node))?;
            }
        }
        Ok(())
    }

    /// V1: every partition led, every replica in sync and equal, every producer answered.
    pub(in crate::cluster) fn recovered(&self) -> bool {
        self.clients.iter().all(Client::content)
            && self.at_full_strength()
            && self.keys().iter().all(|key| self.replicas_agree(*key))
            && self.transactions.writers.values().all(Writer::content)
            && self.nothing_is_open()
            && self.group_is_content()
    }

    fn replicas_agree(&self, key: PartitionKey) -> bool {
        let Some(partition) = self.controller.state.partition_at(key) else {
            return false;
        };
        let leads = partition
            .leader
            .and_then(|n| self.nodes.get(&n)?.replicas.get(&key));
        leads.is_some_and(|r| r.core.latest().is_some()) && !partition.is_reassigning()
    }

    pub(in crate::cluster) fn what_is_missing(&mut self) -> String {
        let mut missing = Vec::new();
        for client in self.clients.iter().filter(|c| !c.content()) {
            missing.push(format!(
                "producer {} has no answers: {}",
                client.number,
                client.state()
            ));
        }
        for writer in self.transactions.writers.values().filter(|w| !w.content()) {
            missing.push(writer.state());
        }
        if !self.nothing_is_open() {
            missing.push(format!(
                "T4: transactions stay open; {}",
                self.coordinators()
            ));
        }
        if !self.group_is_content() {
            missing.push(format!("the group does not settle: {}", self.group_state()));
        }
        for (id, node) in &self.nodes {
            if !node.up || node.epoch.is_none() {
                missing.push(format!(
                    "node {id} up {} registered {:?}",
                    node.up, node.epoch
                ));
            }
        }
        for key in self.keys() {
            let partition = self.controller.state.partition_at(key);
            let ends = |n: &Node| {
                let core = n.replicas.get(&key).map(|r| &r.core)?;
                let ends: [Offset; 3] = [core.committed(), core.flushed_end(), core.log_end()];
                Some((n.id, ends.map(Offset::get), core.failed()))
            };
            let ends: Vec<_> = self.nodes.values().filter_map(ends).collect();
            missing.push(format!("{partition:?} {ends:?}"));
            let cores = self.nodes.iter().map(|(id, node)| {
                let core = node.replicas.get(&key).map(|r| &r.core);
                format!("node {id} partition {}: {core:?}", key.partition)
            });
            for line in cores.collect::<Vec<_>>() {
                self.say_last(line);
            }
        }
        missing.join("; ")
    }
}
