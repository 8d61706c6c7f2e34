//! The cluster as its clients see it: nodes, partitions, what is wrong. Made from the metadata; cursors of
//! partitions that this node does not lead are as it knows them, or not known.

use std::sync::atomic::Ordering;

use varve_broker_api as api;
use varve_metadata::{NodeState, State};
use varve_types::text::counted;
use varve_types::{ErrorKind, NodeId, Offset, PartitionId, TopicId, TopicPartition};

use super::InCluster;
use crate::registry::{Registry, Topic};
use crate::start::Inner;

impl InCluster {
    pub(crate) fn nodes(&self) -> Vec<api::NodeStatus> {
        let controller = self.log.leadership().leader;
        varve_metadata::log::read(&*self.log, |state| {
            let status = |(id, node): (&NodeId, &varve_metadata::Node)| api::NodeStatus {
                node: *id,
                address: node.address.clone(),
                listeners: Default::default(),
                rack: node.rack.clone(),
                state: state_of(state, *id, node),
                version: node.version.clone(),
                controller: controller == Some(*id),
            };
            state.nodes().iter().map(status).collect()
        })
    }

    pub(crate) fn health(&self, low_space: bool) -> api::ClusterHealth {
        let controller = self.log.leadership().leader;
        let mut health = varve_metadata::log::read(&*self.log, health_of);
        health.controller = controller;
        let since = |id: &NodeId| Some((*id, self.absent.since(*id)?));
        health.offline_since = health.offline.iter().filter_map(since).collect();
        if low_space {
            health.low_space.push(self.me);
        }
        health
    }

    /// Who agrees on the metadata, as far as this node knows.
    pub(crate) fn quorum(&self) -> api::Result<api::Quorum> {
        let known = self.members.as_ref().and_then(|members| members.quorum());
        known.ok_or_else(|| {
            let text = "this node does not know how the metadata are agreed on";
            api::Error::new(ErrorKind::UnsupportedFeature, text)
        })
    }

    /// Whether this node takes part, and has caught up since it was started: then the next one may be
    /// restarted. A replica that falls behind later is no reason to send clients elsewhere, nor is one whose
    /// log is out of service, which waiting would not mend.
    pub(crate) fn readiness(&self, registry: &Registry) -> Result<(), String> {
        if self.is_gone() {
            return Err("decommissioned".to_owned());
        }
        let Some(epoch) = *self.epoch.borrow() else {
            return Err("not registered in the cluster yet".to_owned());
        };
        if self.log.leadership().leader.is_none() {
            return Err("no controller is known".to_owned());
        }
        let (state, lacking) = self.look(|state| {
            let node = state.node(self.me).filter(|n| n.epoch == epoch);
            (node.map(|n| n.state), lacking(state, self.me, registry))
        });
        match state {
            None => return Err("not registered in the cluster yet".to_owned()),
            Some(NodeState::Fenced) => return Err("not admitted to the cluster yet".to_owned()),
            Some(NodeState::Draining) => return Err("draining".to_owned()),
            Some(NodeState::Active) => {}
        }
        if lacking == 0 {
            self.caught_up.store(true, Ordering::Relaxed);
        }
        match self.caught_up.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(format!("out of sync: {}", counted(lacking, "partition"))),
        }
    }
}

/// A node's state as people see it.
pub(crate) fn state_of(state: &State, id: NodeId, node: &varve_metadata::Node) -> api::NodeState {
    match node.state {
        NodeState::Fenced => api::NodeState::Offline,
        _ if node.decommissioning => api::NodeState::Decommissioning,
        NodeState::Active => api::NodeState::Active,
        NodeState::Draining if state.led_by(id) == 0 => api::NodeState::Drained,
        NodeState::Draining => api::NodeState::Draining,
    }
}

/// Partitions that are short of this node's replica, those on the move aside.
fn lacking(state: &State, me: NodeId, registry: &Registry) -> usize {
    let view = registry.view();
    let lacks = |p: &varve_metadata::Partition| {
        !p.isr.contains(&me) && !p.adding.contains(&me) && !p.removing.contains(&me)
    };
    let held = state.partitions_of(me).filter(|(_, _, p)| lacks(p));
    let online = |(id, topic, _): &(TopicPartition, TopicId, &varve_metadata::Partition)| {
        let own = view.by_key.get(&super::key(*topic, id.partition));
        own.is_none_or(|p| p.offline().is_none())
    };
    held.filter(online).count()
}

fn health_of(state: &State) -> api::ClusterHealth {
    let mut health = api::ClusterHealth::default();
    for (id, node) in state.nodes() {
        match node.state {
            NodeState::Active => {}
            NodeState::Draining => health.draining.push(*id),
            NodeState::Fenced => health.offline.push(*id),
        }
    }
    for topic in state.topics().values() {
        for partition in &topic.partitions {
            let in_sync = partition.isr.len();
            health.leaderless += u64::from(partition.leader.is_none());
            health.under_replicated += u64::from(in_sync < partition.target().len());
            health.under_min_isr += u64::from(in_sync < topic.min_insync_replicas(partition));
            let preferred = partition.preferred_leader();
            health.non_preferred +=
                u64::from(partition.leader.is_some() && partition.leader != preferred);
        }
    }
    health
}

impl Inner {
    pub(crate) fn describe_all(
        &self,
        cluster: &InCluster,
        topic: &Topic,
    ) -> Vec<api::PartitionInfo> {
        let found = varve_metadata::log::read(&*cluster.log, |state| {
            let found = state.topic_by_id(topic.info.id);
            found.map(|(_, topic)| topic.partitions.clone())
        });
        let found = found.unwrap_or_default();
        let describe = |(number, partition): (usize, varve_metadata::Partition)| {
            let number = PartitionId(number as i32);
            let own = topic.partitions.get(&number).map(|p| self.describe(p));
            let cursor =
                |take: fn(&api::PartitionInfo) -> Offset| own.as_ref().map_or(Offset::ZERO, take);
            api::PartitionInfo {
                partition: number,
                leader: partition.leader,
                leader_epoch: partition.leader_epoch,
                replicas: partition.replicas,
                in_sync: partition.isr,
                log_start: cursor(|p| p.log_start),
                high_watermark: cursor(|p| p.high_watermark),
                log_end: cursor(|p| p.log_end),
                size_bytes: own.as_ref().map_or(0, |p| p.size_bytes),
                error: match partition.leader {
                    Some(node) if node == cluster.me => own.and_then(|p| p.error),
                    // Its leader knows more.
                    _ => {
                        let id = TopicPartition::new(topic.info.name.clone(), number);
                        Some(self.registry.not_leading(&id))
                    }
                },
            }
        };
        found.into_iter().enumerate().map(describe).collect()
    }
}
