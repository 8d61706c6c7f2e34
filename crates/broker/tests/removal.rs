//! Removing files takes as long as it takes, and nobody waits for that: not the next leader of another partition,
//! not a topic of the same name, not a replica that comes back, not a start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::path::Path;

use crate::support::cluster::Nodes;
use crate::support::gate::Gate;
use crate::support::{batch, new_topic, produce, read_all, until};
use varve_broker_api::{Broker as _, Context, Operations as _, Reassign, Target};
use varve_types::{NodeId, PartitionId, TopicName, TopicPartition};
use varve_vfs::Vfs as _;
use varve_vfs::mem::MemVfs;

async fn create(nodes: &Nodes, name: &str, on: &[i32]) -> TopicName {
    let mut request = new_topic(name, 1);
    request.replication_factor = Some(on.len() as i32);
    request.placement = [(0, on.iter().map(|n| NodeId(*n)).collect())].into();
    let broker = &nodes.brokers[&NodeId(1)];
    let created = broker.create_topic(&Context::anonymous(), request).await;
    created.unwrap().name
}

async fn delete(nodes: &Nodes, topic: &TopicName) {
    let broker = &nodes.brokers[&NodeId(1)];
    let deleted = broker
        .delete_topic(&Context::anonymous(), topic, None)
        .await;
    deleted.unwrap();
}

async fn append(nodes: &Nodes, topic: &TopicName, value: &str) {
    let mut last = None;
    for _ in 0..200 {
        let (_, broker) = nodes.leader(topic.as_str(), 0).await;
        match produce(&broker, topic, 0, batch(&[value])).await {
            Ok(_) => return,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{value} is never acknowledged: {last:?}");
}

async fn move_to(nodes: &Nodes, topic: &TopicName, on: &[i32]) {
    let on: Vec<NodeId> = on.iter().map(|n| NodeId(*n)).collect();
    let target = Target::Nodes(on.clone());
    let request = Reassign {
        items: vec![(TopicPartition::new(topic.clone(), PartitionId(0)), target)],
        validate_only: false,
    };
    let broker = &nodes.brokers[&NodeId(1)];
    let told = broker.reassign(&Context::anonymous(), request).await;
    told.unwrap().remove(0).unwrap();
    until(&format!("it is on {on:?}"), || {
        let p = nodes.partition(topic.as_str(), 0);
        p.replicas == on && !p.is_reassigning() && p.isr.len() == on.len()
    })
    .await;
}

/// Directories below `topics/`: those of a topic, and those that are to be removed.
fn left(disk: &MemVfs, topic: &TopicName) -> (usize, usize) {
    let all = disk.list(Path::new("/data/topics")).unwrap();
    let begin = format!("{topic}-");
    let mine = all.iter().filter(|e| e.name.starts_with(&begin)).count();
    let graves = all.iter().filter(|e| e.name.ends_with(".deleted")).count();
    (mine, graves)
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_follow_each_other_while_the_files_of_a_topic_are_removed() {
    let mut nodes = Nodes::new(3).await;
    let gate = Gate::default();
    let large = create(&nodes, "large", &[1, 2, 3]).await;
    let orders = create(&nodes, "orders", &[3, 2, 1]).await;
    append(&nodes, &large, "old").await;
    append(&nodes, &orders, "a").await;
    for disk in nodes.disks.values() {
        gate.shut(disk);
    }
    delete(&nodes, &large).await;
    until("each node removes it", || gate.waiting() == 3).await;
    let (dead, _) = nodes.leader("orders", 0).await;
    let alive = if dead == NodeId(1) { 2 } else { 1 };
    nodes.shared.lead(NodeId(alive));
    let disk = nodes.kill(dead).await;
    append(&nodes, &orders, "b").await;
    nodes.active(2).await;
    assert_eq!(gate.waiting(), 3, "also in what was killed");
    // A node that starts does not wait for it either, and a topic of that name is another one.
    gate.shut(&disk);
    nodes.restart(dead, disk).await;
    until("it is removed there, too", || gate.waiting() == 4).await;
    nodes.active(3).await;
    let large = create(&nodes, "large", &[1, 2, 3]).await;
    append(&nodes, &large, "new").await;
    nodes.in_sync("orders", 0, 3).await;
    nodes.in_sync("large", 0, 3).await;
    for disk in nodes.disks.values() {
        assert_eq!(left(disk, &large), (1, 1));
    }
    gate.open();
    until("only the new one is there", || {
        nodes
            .disks
            .values()
            .all(|disk| left(disk, &large) == (1, 0))
    })
    .await;
    for (topic, wanted) in [(&large, &["new"][..]), (&orders, &["a", "b"])] {
        let (_, broker) = nodes.leader(topic.as_str(), 0).await;
        assert_eq!(read_all(&broker, topic, 0).await, wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_comes_back_while_what_it_was_is_removed() {
    let nodes = Nodes::new(3).await;
    let gate = Gate::default();
    let orders = create(&nodes, "orders", &[2, 1]).await;
    for value in ["a", "b", "c"] {
        append(&nodes, &orders, value).await;
    }
    let disk = &nodes.disks[&NodeId(2)];
    gate.shut(disk);
    for times in 1..3 {
        move_to(&nodes, &orders, &[1, 3]).await;
        until("it is out of its place", || left(disk, &orders).1 == times).await;
        until("it is being removed", || gate.waiting() == 1).await;
        move_to(&nodes, &orders, &[2, 1]).await;
    }
    // The topic goes as well, with the replica that is there now.
    append(&nodes, &orders, "d").await;
    delete(&nodes, &orders).await;
    until("three are to be removed", || left(disk, &orders) == (0, 3)).await;
    assert_eq!(gate.waiting(), 1, "one after the other");
    gate.open();
    until("nothing is left", || {
        nodes.disks.values().all(|disk| left(disk, &orders).1 == 0)
    })
    .await;
}
