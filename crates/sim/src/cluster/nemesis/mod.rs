//! What goes wrong, and when. Faults of one moment are here, those that take several steps in `plots`, and
//! how it is all put right in `heal`.

mod heal;
mod plots;

use std::collections::BTreeSet;

use varve_metadata::{Command, Election, NodeState, PartitionKey};
use varve_partition::Input;
use varve_types::NodeId;
use varve_types::config::Durability;

use super::controller::registration;
use super::knobs::Theme;
use super::world::{Addr, Event, World};

pub(super) use self::plots::Plot;

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
        if self.rng.below(2) == 0 {
            match self.knobs.theme {
                Theme::Mixed => {}
                Theme::Unclean => return self.unclean_fault(),
                Theme::Disks => return self.disk_fault(node),
                Theme::Moves => return self.move_something(node),
                Theme::Crashes => {
                    self.crash_several();
                    return Ok(());
                }
            }
        }
        if self.knobs.durability == Durability::Replicated && self.rng.below(4) == 0 {
            // Possible only while everything is whole, so it is tried often.
            self.kill(node, true);
            return Ok(());
        }
        self.any_fault(node)
    }

    fn any_fault(&mut self, node: NodeId) -> Result<(), String> {
        match self.rng.below(24) {
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
            13 | 14 => return self.move_something(node),
            15 => return self.trim_some(),
            16 => self.wipe(node),
            17 => self.unseat_controller(),
            18 => self.crash_several(),
            19 => self.damage_some(node),
            20 => self.set_clock(node),
            21 => return self.take_id(node),
            _ => return self.stop_or_fail(node),
        }
        Ok(())
    }

    fn disk_fault(&mut self, node: NodeId) -> Result<(), String> {
        match self.rng.below(8) {
            0 => self.stall(node),
            1 => return self.stop_or_fail(node),
            2 | 3 => self.damage_some(node),
            _ => self.fill(node),
        }
        Ok(())
    }

    fn move_something(&mut self, node: NodeId) -> Result<(), String> {
        match self.rng.below(8) {
            0 => self.remove_and_add(node),
            1 => self.empty(node),
            2 | 4 => self.flicker(),
            3 => {
                self.move_to_stopping(node);
                Ok(())
            }
            _ => self.move_replicas(),
        }
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

    pub(super) fn at_full_strength(&self) -> bool {
        let full = |key: &PartitionKey| {
            let partition = self.controller.state.partition_at(*key);
            partition.is_some_and(|p| p.isr.len() == p.replicas.len())
        };
        self.nodes.values().all(|n| n.up && n.epoch.is_some()) && self.keys().iter().all(full)
    }

    /// Every partition has more than one replica in sync, and none is damaged: moves may leave less for a while.
    fn has_spare(&self) -> bool {
        if self.nodes.values().any(|n| !n.damaged.is_empty()) {
            return false;
        }
        let spare = |key: &PartitionKey| {
            let partition = self.controller.state.partition_at(*key);
            partition.is_some_and(|p| p.isr.len() >= 2)
        };
        self.keys().iter().all(spare)
    }

    fn kill(&mut self, id: NodeId, power: bool) {
        let replicated = self.knobs.durability == Durability::Replicated;
        let spare = self.knobs.min_insync >= 2 && self.has_spare();
        if !self.may_lose_memory() || (replicated && !spare) {
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
        let damaged = self.nodes.values().any(|n| !n.damaged.is_empty());
        let spare = self.knobs.min_insync >= 2 && self.has_spare();
        if !spare || damaged || !self.at_full_strength() {
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
        self.say(|_| format!("node {id} loses the controller, or every other node"));
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
        // Nearly full, it refuses one write and takes the next.
        let nearly = self.rng.below(3) > 0;
        let longest = if nearly { 4_000 } else { 1_500 };
        let until = self.now + self.rng.below(longest);
        if let Some(node) = self.nodes.get_mut(&id) {
            match nearly {
                true => node.nearly_full_until = until,
                false => node.full_until = until,
            }
        }
        self.count("disk full");
        self.say(|_| format!("the disk of node {id} is full until {until}, nearly: {nearly}"));
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
        let moved = self.reassign(key, (!cancel).then_some(nodes))?;
        if moved {
            self.count("replicas moved");
        }
        Ok(())
    }

    pub(super) fn reassign(
        &mut self,
        key: PartitionKey,
        target: Option<Vec<NodeId>>,
    ) -> Result<bool, String> {
        let made = self.change(Command::Reassign {
            topic_id: key.topic,
            partition: key.partition,
            target,
        })?;
        Ok(made.is_some())
    }

    /// A replica is removed and added again before anybody hears of either; or it is moved to the others and
    /// stays for good.
    fn remove_and_add(&mut self, node: NodeId) -> Result<(), String> {
        for key in self.keys() {
            let Some(partition) = self.controller.state.partition_at(key) else {
                continue;
            };
            let all = partition.target();
            let rest: Vec<NodeId> = all.iter().copied().filter(|n| *n != node).collect();
            let left = rest.len() >= self.knobs.min_insync && rest.len() < all.len();
            if left && self.reassign(key, Some(rest))? && self.reassign(key, Some(all))? {
                self.count("replica removed and added again");
            }
        }
        Ok(())
    }

    /// The controller is to move everything away from a node; or no longer.
    fn empty(&mut self, node: NodeId) -> Result<(), String> {
        let known = self.controller.state.node(node);
        let on = known.is_some_and(|n| !n.decommissioning);
        if self
            .change(Command::SetDecommissioning { node, on })?
            .is_some()
            && on
        {
            self.count("node emptied");
        }
        Ok(())
    }

    /// A record of a replica turns out to be damaged: as many as a topic can bear at once, which is one.
    fn damage_some(&mut self, id: NodeId) {
        let damaged = self.nodes.values().any(|n| !n.damaged.is_empty());
        let last = self.rng.below(4) == 0;
        if damaged || (!last && !self.at_full_strength()) {
            return;
        }
        let keys = self.keys();
        let key = keys[self.rng.below(keys.len() as u64) as usize];
        // Where it is the last of those that count, it has to be kept: that is asked, too.
        let others = |p: &varve_metadata::Partition| p.has_others(id);
        let partition = self.controller.state.partition_at(key);
        if !last || !partition.is_some_and(others) {
            self.damage(id, key);
        }
    }

    fn set_clock(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.clock.jump(&mut self.rng);
            self.count("clock on the wall jumps");
        }
    }

    /// Another process, with a directory of its own, was given the id of a node that lives.
    fn take_id(&mut self, node: NodeId) -> Result<(), String> {
        let known = self.controller.state.node(node);
        if known.is_none_or(|n| n.state != NodeState::Active) {
            return Ok(());
        }
        let (incarnation, directory) = (u128::from(self.rng.next()), u128::from(self.rng.next()));
        let command = registration(node, incarnation, directory, None);
        if self.change(command)?.is_none() {
            self.count("id of a live node refused to another");
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
            if self.is_internal(key) {
                continue;
            }
            let (id, replica) = (node.id, &node.replicas[&key]);
            // Not what is not decided yet (L11).
            let end = replica
                .core
                .committed()
                .min(replica.core.last_stable_offset());
            let room = end.since(replica.core.log_start());
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
}
