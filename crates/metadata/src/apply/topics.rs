//! Topics come, grow, change and go.

use std::collections::BTreeMap;

use varve_types::{LeaderEpoch, NodeId, PartitionId, TopicId, TopicName, limits};

use super::{check_texts, configs as topic_configs, range};
use crate::index::key;
use crate::leadership::Edit;
use crate::placement::place;
use crate::state::{NodeState, Partition, Rules, State, Topic};
use crate::{CreateTopic, Event, Rejection};

pub(super) fn create(state: &mut State, topic: CreateTopic) -> Result<Event, Rejection> {
    let CreateTopic {
        name,
        id,
        configs,
        labels,
        replication_factor,
        created_ms,
        ..
    } = topic;
    if state.topics.contains_key(&name) {
        return Err(Rejection::TopicExists { name });
    }
    if let Some((other, _)) = state.topic_by_id(id) {
        let name = other.clone();
        return Err(Rejection::TopicIdExists { id, name });
    }
    let rules = Rules::of(&configs)?;
    topic_configs::check(state, &configs)?;
    check_texts("a topic label", &labels)?;
    let most = limits::PARTITIONS_PER_TOPIC_MAX.into();
    range(Rejection::PARTITIONS, topic.partitions.into(), 1, most)?;
    let most = limits::REPLICATION_FACTOR_MAX.into();
    range(
        Rejection::REPLICATION_FACTOR,
        replication_factor.into(),
        1,
        most,
    )?;
    let new = (0, topic.partitions);
    let replicas = place(state, &name, new, replication_factor, &topic.placement)?;
    check_node_load(state, &replicas)?;
    let partitions = new_partitions(state, &name, replicas)?;
    for (number, partition) in partitions.iter().enumerate() {
        state.index.put(key(id, number), None, Some(partition));
    }
    state.index.names.insert(id, name.clone());
    state.topics.insert(
        name.clone(),
        Topic {
            id,
            replication_factor,
            configs,
            labels,
            created_ms,
            partitions,
            rules,
        },
    );
    Ok(Event::TopicCreated { name, id })
}

pub(super) fn delete(
    state: &mut State,
    name: TopicName,
    id: Option<TopicId>,
) -> Result<Event, Rejection> {
    let Some(topic) = state.topics.get(&name) else {
        return Err(Rejection::TopicNotFound { name });
    };
    let found = topic.id;
    if let Some(given) = id.filter(|id| *id != found) {
        return Err(Rejection::TopicIdMismatch { name, found, given });
    }
    for (number, partition) in topic.partitions.iter().enumerate() {
        state.index.put(key(found, number), Some(partition), None);
    }
    state.index.names.remove(&found);
    state.topics.remove(&name);
    Ok(Event::TopicDeleted { name, id: found })
}

pub(super) fn add_partitions(
    state: &mut State,
    name: TopicName,
    total: i32,
    placement: &BTreeMap<i32, Vec<NodeId>>,
) -> Result<Event, Rejection> {
    let Some(topic) = state.topics.get(&name) else {
        return Err(Rejection::TopicNotFound { name });
    };
    let (id, found) = (topic.id, topic.partition_count());
    if total <= found {
        return Err(Rejection::NotMorePartitions {
            name,
            found,
            given: total,
        });
    }
    let most = limits::PARTITIONS_PER_TOPIC_MAX;
    range(Rejection::PARTITIONS, total.into(), 1, most.into())?;
    let new = (found, total);
    let replicas = place(state, &name, new, topic.replication_factor, placement)?;
    check_node_load(state, &replicas)?;
    let partitions = new_partitions(state, &name, replicas)?;
    for (more, partition) in partitions.iter().enumerate() {
        let at = key(id, found as usize + more);
        state.index.put(at, None, Some(partition));
    }
    if let Some(topic) = state.topics.get_mut(&name) {
        topic.partitions.extend(partitions);
    }
    Ok(Event::PartitionsAdded {
        name,
        first: PartitionId(found),
        total,
    })
}

pub(super) fn set_configs(
    state: &mut State,
    name: TopicName,
    configs: BTreeMap<String, String>,
) -> Result<Event, Rejection> {
    if !state.topics.contains_key(&name) {
        return Err(Rejection::TopicNotFound { name });
    }
    let rules = Rules::of(&configs)?;
    topic_configs::check(state, &configs)?;
    let Some(topic) = state.topics.get_mut(&name) else {
        return Err(Rejection::TopicNotFound { name });
    };
    topic.configs = configs;
    let mut changed = Vec::new();
    if topic.rules != rules {
        topic.rules = rules;
        let (id, count) = (topic.id, topic.partitions.len());
        // With a lower min.insync.replicas commits go on without those who were eligible. Every partition
        // changes, so that its leader counts by the new number from a known change on.
        let touched = Edit {
            touch: true,
            ..Edit::default()
        };
        for at in (0..count).map(|number| key(id, number)) {
            if state.edit(at, touched, |_| {}) {
                changed.push(at);
            }
        }
    }
    Ok(Event::TopicConfigsSet { name, changed })
}

/// New partitions are empty, so each active replica is in sync.
fn new_partitions(
    state: &State,
    name: &TopicName,
    replicas: Vec<Vec<NodeId>>,
) -> Result<Vec<Partition>, Rejection> {
    let active = |n: &&NodeId| {
        let node = state.nodes.get(n);
        node.is_some_and(|node| node.state == NodeState::Active)
    };
    let new = |(number, replicas): (usize, Vec<NodeId>)| {
        let mut isr: Vec<NodeId> = replicas.iter().filter(active).copied().collect();
        let Some(leader) = isr.first().copied() else {
            return Err(Rejection::BadPlacement {
                name: name.clone(),
                why: format!("partition {number} has no replica on an active node"),
            });
        };
        isr.sort_unstable();
        Ok(Partition {
            leader: Some(leader),
            replicas,
            adding: Vec::new(),
            removing: Vec::new(),
            leader_epoch: LeaderEpoch::ZERO,
            isr,
            elr: Vec::new(),
            partition_epoch: 0,
            unclean_epoch: None,
        })
    };
    let mut partitions = replicas
        .into_iter()
        .enumerate()
        .map(new)
        .collect::<Result<Vec<_>, _>>()?;
    partitions.shrink_to_fit();
    Ok(partitions)
}

fn check_node_load(state: &State, new: &[Vec<NodeId>]) -> Result<(), Rejection> {
    let mut more: BTreeMap<NodeId, usize> = BTreeMap::new();
    for node in new.iter().flatten() {
        *more.entry(*node).or_default() += 1;
    }
    let max = limits::PARTITIONS_PER_NODE_MAX;
    for (node, more) in more {
        let found = state.held_by(node) + more;
        if found > max {
            return Err(Rejection::NodeFull { node, found, max });
        }
    }
    Ok(())
}
