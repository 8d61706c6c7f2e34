//! Commands as tests give them.

#![allow(dead_code, reason = "every test file uses a part")]

use std::collections::BTreeMap;

use varve_metadata::{Command, CreateTopic, FeatureRange, Node, PartitionKey, State, apply};
use varve_types::{DirectoryId, NodeId, PartitionId, TopicId, TopicName};

pub fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

pub fn key(topic: u128, partition: i32) -> PartitionKey {
    PartitionKey {
        topic: TopicId(topic),
        partition: PartitionId(partition),
    }
}

/// Registration of a run of a node; its directory is the node's number and a hundred.
pub fn register(node: i32, incarnation: u128) -> Command {
    Command::RegisterNode {
        node: NodeId(node),
        incarnation,
        directory: DirectoryId(100 + node.unsigned_abs() as u128),
        address: format!("host-{node}:8278"),
        peer_address: format!("host-{node}:8279"),
        rack: String::new(),
        // Of the first program, which wrote the golden files.
        features: FeatureRange { min: 1, max: 1 },
        version: "0.1.0".to_owned(),
        clean: None,
    }
}

pub fn node(state: &State, id: i32) -> &Node {
    state.node(NodeId(id)).unwrap()
}

pub fn unfence(state: &State, id: i32) -> Command {
    let (node, epoch) = (NodeId(id), node(state, id).epoch);
    Command::UnfenceNode { node, epoch }
}

pub fn fence(state: &State, id: i32) -> Command {
    let (node, epoch) = (NodeId(id), node(state, id).epoch);
    Command::FenceNode { node, epoch }
}

pub fn create(topic: &str, id: u128, partitions: i32, replication_factor: i32) -> Command {
    create_with(topic, id, partitions, replication_factor, &[])
}

pub fn create_with(
    topic: &str,
    id: u128,
    partitions: i32,
    replication_factor: i32,
    configs: &[(&str, &str)],
) -> Command {
    let configs = configs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Command::CreateTopic(CreateTopic {
        name: name(topic),
        id: TopicId(id),
        partitions,
        replication_factor,
        configs: configs.collect(),
        labels: BTreeMap::new(),
        created_ms: 1_700_000_000_000,
        placement: BTreeMap::new(),
    })
}

/// Active nodes, then these commands.
pub fn state(nodes: &[i32], commands: impl IntoIterator<Item = Command>) -> State {
    let mut state = State::default();
    for node in nodes {
        apply(&mut state, register(*node, 1)).unwrap();
        let unfence = unfence(&state, *node);
        apply(&mut state, unfence).unwrap();
    }
    for command in commands {
        apply(&mut state, command).unwrap();
    }
    state
}
