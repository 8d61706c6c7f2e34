//! What goes wrong, when, and how it is all put right in the end.

use std::collections::BTreeSet;

use varve_metadata::{Command, Election, PartitionKey};
use varve_partition::Input;
use varve_types::config::Durability;
use varve_types::{NodeId, Offset};

use super::world::{Addr, Event, World};

impl World {
    pub(super) fn nemesis_acts(&mut self) -> Result<(), String> {
        if self.healed {
            return Ok(());
        }
        let after = 1 + self.rng.below(2 * self.knobs.fault_every_ms);
        self.at(after, Event::Nemesis);
        if !self.controller.created {
            return Ok(());
        }
        let node = self.some_node();
        match self.rng.below(17) {
            0 | 1 => self.kill(node, false),
            2 | 3 => self.kill(node, true),
            4 => self.kill_all(),
            5 => self.pause(node),
            6 => self.isolate(node),
            7 => self.one_way(node),
            8 => self.lose_controller(node),
            9 => self.halves(),
            10 => self.stall(node),
            11 => self.fill(node),
            12 => return self.move_leader(node),
            13 => return self.move_replicas(),
            14 => return self.trim_some(),
            15 => self.wipe(node),
            _ => return self.stop_or_fail(node),
        }
        Ok(())
    }

    /// Leaders more often than others: that is where it hurts.
    fn some_node(&mut self) -> NodeId {
        let leaders: Vec<NodeId> = self
            .keys()
            .iter()
            .filter_map(|key| self.controller.state.partition_at(*key)?.leader)
            .collect();
        let any = NodeId(1 + self.rng.below(self.knobs.nodes as u64) as i32);
        match leaders.is_empty() || self.rng.below(2) == 0 {
            true => any,
            false => leaders[self.rng.below(leaders.len() as u64) as usize],
        }
    }

    /// What a topic with `durability=replicated` does not promise is not asked of it: one node at a time may
    /// stop uncleanly, and only while every replica is in sync.
    fn may_lose_memory(&self) -> bool {
        self.knobs.durability == Durability::Fsync || self.at_full_strength()
    }

    fn at_full_strength(&self) -> bool {
        let full = |key: &PartitionKey| {
            let partition = self.controller.state.partition_at(*key);
            partition.is_some_and(|p| p.isr.len() == p.replicas.len())
        };
        self.nodes.values().all(|n| n.up && n.epoch.is_some()) && self.keys().iter().all(full)
    }

    fn kill(&mut self, id: NodeId, power: bool) {
        let replicated = self.knobs.durability == Durability::Replicated;
        if !self.may_lose_memory() || (replicated && self.knobs.min_insync < 2) {
            return;
        }
        let after = 20 + self.rng.below(1_200);
        self.kill_now(id, power);
        self.at(after, Event::Start(id));
    }

    fn kill_now(&mut self, id: NodeId, power: bool) {
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.up) else {
            return;
        };
        node.kill();
        let mut lost = 0;
        if power {
            for log in node.disks.values_mut() {
                lost += log.power_cut(&mut self.rng);
            }
        }
        self.count(if power { "power cut" } else { "kill" });
        if lost > 0 {
            self.count("power cut that lost batches");
        }
        self.say(|_| format!("node {id} is killed, power lost: {power}, {lost} batches lost"));
    }

    fn kill_all(&mut self) {
        if self.knobs.durability == Durability::Replicated {
            return;
        }
        let power = self.rng.below(2) == 0;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let after = 20 + self.rng.below(800);
            self.kill_now(id, power);
            self.at(after, Event::Start(id));
        }
        self.count("every node killed at once");
    }

    /// A disk is replaced by an empty one: as many at once as the topic can bear, which is one.
    fn wipe(&mut self, id: NodeId) {
        if self.knobs.min_insync < 2 || !self.at_full_strength() {
            return;
        }
        let after = 20 + self.rng.below(1_200);
        let directory = u128::from(self.rng.next()) + 100;
        self.kill_now(id, false);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.disks.clear();
            node.directory = directory;
            node.clean = None;
        }
        self.count("disk replaced by an empty one");
        self.say(|_| format!("the disk of node {id} is replaced"));
        self.at(after, Event::Start(id));
    }

    fn pause(&mut self, id: NodeId) {
        let after = 1 + self.rng.below(1_500);
        if let Some(node) = self.nodes.get_mut(&id).filter(|n| n.up && !n.paused) {
            node.paused = true;
            self.count("pause");
            self.say(|_| format!("node {id} is paused"));
            self.at(after, Event::Resume(id));
        }
    }

    fn everybody(&self) -> BTreeSet<Addr> {
        let nodes = self.nodes.keys().map(|n| Addr::Node(*n));
        nodes.chain([Addr::Controller]).collect()
    }

    fn heal_later(&mut self, fault: u64) {
        let after = 50 + self.rng.below(2_000);
        self.at(after, Event::Heal(fault));
    }

    fn isolate(&mut self, id: NodeId) {
        let fault = self.separate(&BTreeSet::from([Addr::Node(id)]), &self.everybody(), true);
        self.count("node cut off");
        self.say(|_| format!("node {id} is cut off"));
        self.heal_later(fault);
    }

    fn one_way(&mut self, id: NodeId) {
        let (a, b) = (BTreeSet::from([Addr::Node(id)]), self.everybody());
        let fault = match self.rng.below(2) {
            0 => self.separate(&a, &b, false),
            _ => self.separate(&b, &a, false),
        };
        self.count("one-way cut");
        self.say(|_| format!("node {id} is cut off in one direction"));
        self.heal_later(fault);
    }

    /// Followers are there, the controller is not; or the reverse.
    fn lose_controller(&mut self, id: NodeId) {
        let me = BTreeSet::from([Addr::Node(id)]);
        let fault = if self.rng.below(2) == 0 {
            self.separate(&me, &BTreeSet::from([Addr::Controller]), true)
        } else {
            let mut others = self.everybody();
            others.remove(&Addr::Controller);
            self.separate(&me, &others, true)
        };
        self.count("node sees only half of the world");
        self.say(|_| format!("node {id} loses the controller, or everybody else"));
        self.heal_later(fault);
    }

    fn halves(&mut self) {
        let (mut a, mut b) = (BTreeSet::new(), BTreeSet::new());
        for addr in self.everybody() {
            if self.rng.below(2) == 0 {
                a.insert(addr)
            } else {
                b.insert(addr)
            };
        }
        let fault = self.separate(&a, &b, true);
        self.count("network in two halves");
        self.say(|_| format!("network split: {a:?} and {b:?}"));
        self.heal_later(fault);
    }

    fn stall(&mut self, id: NodeId) {
        let until = self.now + self.rng.below(2_000);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.stalled_until = until;
        }
        self.count("disk stalls");
        self.say(|_| format!("the disk of node {id} stalls until {until}"));
    }

    fn fill(&mut self, id: NodeId) {
        let until = self.now + self.rng.below(1_500);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.full_until = until;
        }
        self.count("disk full");
    }

    fn move_leader(&mut self, to: NodeId) -> Result<(), String> {
        for key in self.keys() {
            let how = match self.rng.below(3) {
                0 => Election::Preferred,
                _ => Election::Clean(Some(to)),
            };
            self.elect(key, how)?;
        }
        Ok(())
    }

    fn move_replicas(&mut self) -> Result<(), String> {
        let keys = self.keys();
        if keys.is_empty() {
            return Ok(());
        }
        let key = keys[self.rng.below(keys.len() as u64) as usize];
        let mut nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for n in (1..nodes.len()).rev() {
            nodes.swap(n, self.rng.below(n as u64 + 1) as usize);
        }
        nodes.truncate(self.knobs.replication_factor as usize);
        let cancel = self.rng.below(4) == 0;
        let moved = self.change(Command::Reassign {
            topic_id: key.topic,
            partition: key.partition,
            target: (!cancel).then_some(nodes),
        })?;
        if moved {
            self.count("replicas moved");
        }
        Ok(())
    }

    fn trim_some(&mut self) -> Result<(), String> {
        for key in self.keys() {
            let leads = |n: &&super::node::Node| {
                let replica = n.replicas.get(&key);
                n.up && !n.paused && replica.is_some_and(|r| r.core.leader_epoch().is_some())
            };
            let Some(node) = self.nodes.values().find(leads) else {
                continue;
            };
            let (id, replica) = (node.id, &node.replicas[&key]);
            let room = replica.core.committed().since(replica.core.log_start());
            let to = replica.core.log_start().plus(self.rng.below(room + 1));
            self.trim(id, key, to)?;
        }
        Ok(())
    }

    /// A stop on purpose, or a failed flush: then the process ends at once, and what was not flushed may be
    /// gone.
    fn stop_or_fail(&mut self, id: NodeId) -> Result<(), String> {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        if !node.up || node.paused {
            return Ok(());
        }
        if self.rng.below(3) > 0 {
            node.wants_stop = node.epoch.map(|_| now);
            return Ok(());
        }
        if !self.may_lose_memory() || self.knobs.durability == Durability::Replicated {
            return Ok(());
        }
        self.count("flush failed");
        for key in self.keys() {
            self.step(id, key, Input::StorageFailed)?;
        }
        self.kill(id, true);
        Ok(())
    }

    pub(super) fn heal_everything(&mut self) {
        self.healed = true;
        self.cut.clear();
        self.say(|_| "everything is healed".to_owned());
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.stalled_until = 0;
                node.full_until = 0;
            }
            self.resume_node(id);
            self.at(1, Event::Start(id));
        }
    }

    /// V1: every partition led, every replica in sync and equal, every producer answered.
    pub(super) fn recovered(&self) -> bool {
        self.clients.iter().all(super::clients::Client::content)
            && self.at_full_strength()
            && self.keys().iter().all(|key| self.replicas_agree(*key))
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

    pub(super) fn what_is_missing(&mut self) -> String {
        let mut missing = Vec::new();
        for client in self.clients.iter().filter(|c| !c.content()) {
            missing.push(format!(
                "producer {} has no answers: {}",
                client.number,
                client.state()
            ));
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
            let ends = |n: &super::node::Node| {
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
