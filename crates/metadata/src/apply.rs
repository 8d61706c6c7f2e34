//! The one function that changes a state. A rejection leaves it untouched: everything is checked before
//! anything is written.

use std::collections::BTreeMap;

use varve_types::{
    LeaderEpoch, NodeId, PartitionId, ProducerId, TopicConfig, TopicId, TopicName, limits,
};

use crate::placement::place;
use crate::state::{Node, Partition, State, Topic, check_leadership};
use crate::{Command, CreateTopic, Event, Rejection};

/// Most named producers of a cluster.
const NAMED_PRODUCERS_MAX: usize = 100_000;
/// Most configs or labels of one topic, and the longest text among them in bytes.
const TEXTS_MAX: usize = 64;
const TEXT_MAX_BYTES: usize = 4096;

/// Applies one command.
///
/// # Errors
/// Why it was refused; the state is as it was.
///
/// # Panics
/// When the new state breaks an invariant: a bug of ours.
pub fn apply(state: &mut State, command: Command) -> Result<Event, Rejection> {
    let event = match command {
        Command::RegisterNode {
            node,
            address,
            rack,
        } => register(state, node, address, rack),
        Command::CreateTopic(topic) => create(state, topic),
        Command::DeleteTopic { name, id } => delete(state, name, id),
        Command::AddPartitions {
            name,
            total,
            placement,
        } => add_partitions(state, name, total, &placement),
        Command::SetTopicConfigs { name, configs } => set_configs(state, name, configs),
        Command::ElectLeader {
            name,
            partition,
            leader,
            isr,
        } => elect(state, name, partition, leader, isr),
        Command::ChangeIsr {
            name,
            partition,
            isr,
            partition_epoch,
        } => change_isr(state, name, partition, isr, partition_epoch),
        Command::AllocateProducerIds { count } => allocate(state, count),
        Command::BumpProducerEpoch { name } => bump_producer(state, name),
    }?;
    state.version += 1;
    debug_assert_eq!(state.check(), Ok(()), "every command keeps the invariants");
    Ok(event)
}

fn register(
    state: &mut State,
    node: NodeId,
    address: String,
    rack: String,
) -> Result<Event, Rejection> {
    range("the node id", node.0.into(), 0, i32::MAX.into())?;
    text("the address of a node", &address, 1)?;
    text("the rack of a node", &rack, 0)?;
    state.nodes.insert(node, Node { address, rack });
    Ok(Event::NodeRegistered { node })
}

fn create(state: &mut State, topic: CreateTopic) -> Result<Event, Rejection> {
    let CreateTopic {
        name,
        id,
        configs,
        labels,
        ..
    } = topic;
    if state.topics.contains_key(&name) {
        return Err(Rejection::TopicExists { name });
    }
    if let Some((other, _)) = state.topic_by_id(id) {
        return Err(Rejection::TopicIdExists {
            id,
            name: other.clone(),
        });
    }
    check_texts("a topic config", &configs)?;
    check_texts("a topic label", &labels)?;
    TopicConfig::resolve(&configs, &BTreeMap::new())?;
    let most = limits::PARTITIONS_PER_TOPIC_MAX;
    range(
        "the number of partitions",
        topic.partitions.into(),
        1,
        most.into(),
    )?;
    let nodes = state.nodes.len() as i64;
    range(
        "the replication factor",
        topic.replication_factor.into(),
        1,
        nodes,
    )?;
    let new = (0, topic.partitions);
    let replicas = place(
        state,
        &name,
        new,
        topic.replication_factor,
        &topic.placement,
    )?;
    check_node_load(state, &replicas)?;
    let partitions = replicas.into_iter().map(new_partition).collect();
    let replication_factor = topic.replication_factor;
    let created_ms = topic.created_ms;
    state.topics.insert(
        name.clone(),
        Topic {
            id,
            replication_factor,
            configs,
            labels,
            created_ms,
            partitions,
        },
    );
    Ok(Event::TopicCreated { name, id })
}

fn delete(state: &mut State, name: TopicName, id: Option<TopicId>) -> Result<Event, Rejection> {
    let Some(topic) = state.topics.get(&name) else {
        return Err(Rejection::TopicNotFound { name });
    };
    let found = topic.id;
    if let Some(given) = id.filter(|id| *id != found) {
        return Err(Rejection::TopicIdMismatch { name, found, given });
    }
    state.topics.remove(&name);
    Ok(Event::TopicDeleted { name, id: found })
}

fn add_partitions(
    state: &mut State,
    name: TopicName,
    total: i32,
    placement: &BTreeMap<i32, Vec<NodeId>>,
) -> Result<Event, Rejection> {
    let Some(topic) = state.topics.get(&name) else {
        return Err(Rejection::TopicNotFound { name });
    };
    let found = topic.partition_count();
    if total <= found {
        return Err(Rejection::NotMorePartitions {
            name,
            found,
            given: total,
        });
    }
    let most = limits::PARTITIONS_PER_TOPIC_MAX;
    range("the number of partitions", total.into(), 1, most.into())?;
    let replicas = place(
        state,
        &name,
        (found, total),
        topic.replication_factor,
        placement,
    )?;
    check_node_load(state, &replicas)?;
    if let Some(topic) = state.topics.get_mut(&name) {
        topic
            .partitions
            .extend(replicas.into_iter().map(new_partition));
    }
    Ok(Event::PartitionsAdded {
        name,
        first: PartitionId(found),
        total,
    })
}

fn set_configs(
    state: &mut State,
    name: TopicName,
    configs: BTreeMap<String, String>,
) -> Result<Event, Rejection> {
    let Some(topic) = state.topics.get_mut(&name) else {
        return Err(Rejection::TopicNotFound { name });
    };
    check_texts("a topic config", &configs)?;
    TopicConfig::resolve(&configs, &BTreeMap::new())?;
    topic.configs = configs;
    Ok(Event::TopicConfigsSet { name })
}

fn elect(
    state: &mut State,
    name: TopicName,
    number: PartitionId,
    leader: Option<NodeId>,
    mut isr: Vec<NodeId>,
) -> Result<Event, Rejection> {
    let partition = find(state, &name, number)?;
    isr.sort_unstable();
    check_leadership(&partition.replicas, leader, &isr).map_err(|why| {
        Rejection::BadLeadership {
            name: name.clone(),
            partition: number,
            why,
        }
    })?;
    if partition.leader_epoch.get() == i32::MAX || partition.partition_epoch == i32::MAX {
        return Err(Rejection::Exhausted {
            what: "the epochs of the partition",
        });
    }
    partition.leader = leader;
    partition.isr = isr;
    partition.leader_epoch = partition.leader_epoch.next();
    partition.partition_epoch += 1;
    Ok(changed(name, number, partition))
}

fn change_isr(
    state: &mut State,
    name: TopicName,
    number: PartitionId,
    mut isr: Vec<NodeId>,
    given: i32,
) -> Result<Event, Rejection> {
    let partition = find(state, &name, number)?;
    let found = partition.partition_epoch;
    if given != found {
        return Err(Rejection::StalePartitionEpoch {
            name,
            partition: number,
            found,
            given,
        });
    }
    isr.sort_unstable();
    check_leadership(&partition.replicas, partition.leader, &isr).map_err(|why| {
        Rejection::BadLeadership {
            name: name.clone(),
            partition: number,
            why,
        }
    })?;
    if found == i32::MAX {
        return Err(Rejection::Exhausted {
            what: "the epochs of the partition",
        });
    }
    partition.isr = isr;
    partition.partition_epoch += 1;
    Ok(changed(name, number, partition))
}

fn changed(name: TopicName, number: PartitionId, partition: &Partition) -> Event {
    Event::PartitionChanged {
        name,
        partition: number,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
    }
}

fn find<'a>(
    state: &'a mut State,
    name: &TopicName,
    number: PartitionId,
) -> Result<&'a mut Partition, Rejection> {
    let Some(topic) = state.topics.get_mut(name) else {
        return Err(Rejection::TopicNotFound { name: name.clone() });
    };
    let partitions = topic.partition_count();
    let index = usize::try_from(number.0).ok();
    index
        .and_then(|n| topic.partitions.get_mut(n))
        .ok_or_else(|| Rejection::PartitionNotFound {
            name: name.clone(),
            partition: number,
            partitions,
        })
}

fn allocate(state: &mut State, count: u32) -> Result<Event, Rejection> {
    range(
        "the number of producer ids",
        count.into(),
        1,
        u32::MAX.into(),
    )?;
    let first = state.next_producer_id();
    let Some(next) = first.checked_add(count.into()) else {
        return Err(Rejection::Exhausted {
            what: "producer ids",
        });
    };
    state.next_producer_id = next;
    Ok(Event::ProducerIdsAllocated { first, count })
}

fn bump_producer(state: &mut State, name: String) -> Result<Event, Rejection> {
    if name.is_empty() || name.len() > limits::NAME_MAX_BYTES {
        let why = format!(
            "it has {} bytes, and 1 to {} fit",
            name.len(),
            limits::NAME_MAX_BYTES
        );
        return Err(Rejection::BadText {
            what: "the name of a producer",
            why,
        });
    }
    let known = state.producers.get(&name).copied();
    if known.is_none() && state.producers.len() >= NAMED_PRODUCERS_MAX {
        return Err(Rejection::Exhausted {
            what: "the names of producers",
        });
    }
    let producer = match known {
        Some(ProducerId { id, epoch }) if epoch < i16::MAX => ProducerId {
            id,
            epoch: epoch + 1,
        },
        // New, or its epochs are used up: an id of its own from the start.
        _ => {
            let id = state.next_producer_id();
            let next = id.checked_add(1).ok_or(Rejection::Exhausted {
                what: "producer ids",
            })?;
            state.next_producer_id = next;
            ProducerId { id, epoch: 0 }
        }
    };
    state.producers.insert(name, producer);
    Ok(Event::ProducerEpochBumped { producer })
}

fn new_partition(replicas: Vec<NodeId>) -> Partition {
    let mut isr = replicas.clone();
    isr.sort_unstable();
    Partition {
        leader: replicas.first().copied(),
        replicas,
        leader_epoch: LeaderEpoch::ZERO,
        isr,
        partition_epoch: 0,
    }
}

fn check_node_load(state: &State, new: &[Vec<NodeId>]) -> Result<(), Rejection> {
    let mut load: BTreeMap<NodeId, i64> = BTreeMap::new();
    let held = state
        .topics
        .values()
        .flat_map(|t| t.partitions.iter().map(|p| &p.replicas));
    for node in held.chain(new).flatten() {
        *load.entry(*node).or_default() += 1;
    }
    let most = limits::PARTITIONS_PER_NODE_MAX as i64;
    let found = load.values().copied().max().unwrap_or(0);
    range("the number of partitions of one node", found, 0, most)
}

fn range(what: &'static str, found: i64, min: i64, max: i64) -> Result<(), Rejection> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(Rejection::OutOfRange {
        what,
        found,
        min,
        max,
    })
}

fn text(what: &'static str, value: &str, min: usize) -> Result<(), Rejection> {
    if (min..=TEXT_MAX_BYTES).contains(&value.len()) {
        return Ok(());
    }
    let why = format!(
        "it has {} bytes, and {min} to {TEXT_MAX_BYTES} fit",
        value.len()
    );
    Err(Rejection::BadText { what, why })
}

fn check_texts(what: &'static str, texts: &BTreeMap<String, String>) -> Result<(), Rejection> {
    if texts.len() > TEXTS_MAX {
        let why = format!("there are {}, and {TEXTS_MAX} fit", texts.len());
        return Err(Rejection::BadText { what, why });
    }
    texts
        .iter()
        .try_for_each(|(k, v)| text(what, k, 1).and_then(|()| text(what, v, 0)))
}
