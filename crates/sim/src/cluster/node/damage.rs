//! A damaged replica, as the node that finds it must treat it: it is held, the controller is asked whether
//! it can be spared, and only then it begins anew (decision 20).

use varve_metadata::PartitionKey;
use varve_partition::Input;
use varve_types::NodeId;

use super::super::disk::Log;
use super::super::world::{Addr, Message, World};
use super::Damage;

/// After so long without an answer the controller is asked again, milliseconds.
const ASK_AGAIN_MS: u64 = 600;

impl World {
    /// A record of the replica turns out to be damaged.
    pub(in crate::cluster) fn damage(&mut self, id: NodeId, key: PartitionKey) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.up && !n.paused) else {
            return;
        };
        if let Some(replica) = node.replicas.get(&key) {
            let life = replica.life;
            node.damaged.insert(key, Damage { life, ask_at: now });
            self.count("damaged replica");
            self.say(|_| format!("node {id} finds partition {} damaged", key.partition));
        }
    }

    pub(super) fn ask_about_damage(&mut self, id: NodeId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let Some(epoch) = node.epoch else { return };
        let mut asks = Vec::new();
        for (key, damage) in node.damaged.iter_mut().filter(|(_, d)| d.ask_at <= now) {
            damage.ask_at = now + ASK_AGAIN_MS;
            let (key, node, life) = (*key, id, damage.life);
            asks.push(Message::Damaged {
                key,
                node,
                life,
                epoch,
            });
        }
        for message in asks {
            self.send(Addr::Node(id), Addr::Controller, message);
        }
    }

    /// It is the last one. A damaged record is better than no partition.
    pub(super) fn keep_damaged(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        life: u64,
    ) -> Result<(), String> {
        if !self.is_held(id, key, life) {
            return Ok(());
        }
        self.let_go(id, key)
    }

    /// It is given up: its log goes, and an empty one follows the leader. What the node knows of the metadata
    /// includes the loss before that.
    pub(super) fn begin_anew(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        life: u64,
        version: u64,
    ) -> Result<(), String> {
        if !self.is_held(id, key, life) {
            return Ok(());
        }
        self.learn(id, version, false)?;
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.applied >= version) else {
            return Ok(());
        };
        let (Some(epoch), Some(_)) = (node.epoch, node.damaged.get(&key)) else {
            return Ok(());
        };
        node.replicas.remove(&key);
        node.disks.insert(key, Log::default());
        self.say(|_| format!("node {id} starts partition {} from scratch", key.partition));
        self.open(id, key, epoch)?;
        self.let_go(id, key)
    }

    fn is_held(&self, id: NodeId, key: PartitionKey, life: u64) -> bool {
        let node = self.nodes.get(&id);
        node.and_then(|n| n.damaged.get(&key))
            .is_some_and(|d| d.life == life)
    }

    /// The replica hears of the metadata again.
    fn let_go(&mut self, id: NodeId, key: PartitionKey) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        node.damaged.remove(&key);
        let view = self.controller.view(node.applied);
        match view.assignments.get(&key) {
            Some(assignment) => self.step(id, key, Input::Assign(assignment.clone())),
            None => Ok(()),
        }
    }
}
