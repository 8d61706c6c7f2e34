//! Operations on a cluster that serves meanwhile: nodes join, leave, are replaced and emptied, replicas and
//! leaderships move, and nothing that was acknowledged is lost. What cannot be is refused and changes nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::cluster::Nodes;
use crate::support::{Fixture, batch, fetch_one, new_topic, produce, read_all, until};
use varve_broker::Broker;
use varve_broker_api::{Broker as _, Context, Error, NodeState, Operations as _, Reassign, Target};
use varve_types::{ErrorKind, NodeId, PartitionId, TopicName, TopicPartition};

fn ctx() -> Context {
    Context::anonymous()
}

fn ids(nodes: &[i32]) -> Vec<NodeId> {
    nodes.iter().map(|n| NodeId(*n)).collect()
}

fn at(topic: &TopicName, partition: i32) -> TopicPartition {
    TopicPartition::new(topic.clone(), PartitionId(partition))
}

/// A topic on these nodes, each partition on the same.
async fn create_on(nodes: &Nodes, name: &str, partitions: i32, on: &[i32]) -> TopicName {
    let mut request = new_topic(name, partitions);
    request.replication_factor = Some(on.len() as i32);
    request.placement = (0..partitions).map(|p| (p, ids(on))).collect();
    let broker = &nodes.brokers[&NodeId(1)];
    broker.create_topic(&ctx(), request).await.unwrap().name
}

async fn append(nodes: &Nodes, topic: &TopicName, partition: i32, value: &str) {
    let mut last = None;
    for _ in 0..200 {
        let (_, broker) = nodes.leader(topic.as_str(), partition).await;
        match produce(&broker, topic, partition, batch(&[value])).await {
            Ok(_) => return,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{value} is never acknowledged: {last:?}");
}

/// What is committed, from whoever leads, once it is at least `count` records.
async fn read(nodes: &Nodes, topic: &TopicName, partition: i32, count: usize) -> Vec<String> {
    for _ in 0..200 {
        let (_, broker) = nodes.leader(topic.as_str(), partition).await;
        if fetch_one(&broker, topic, partition, 0).await.is_ok() {
            let values = read_all(&broker, topic, partition).await;
            if values.len() >= count {
                return values;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{count} records are never there");
}

/// Produces one record after the other to one partition until told to end, and says which were acknowledged.
async fn load(nodes: &Nodes, topic: &TopicName, partition: i32, over: &AtomicBool) -> Vec<String> {
    let mut values = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let value = format!("{partition}-{}", values.len());
        append(nodes, topic, partition, &value).await;
        values.push(value);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    values
}

/// Every value is there, in order. One whose first answer was lost may be there twice.
async fn all_there(nodes: &Nodes, topic: &TopicName, partition: i32, wanted: &[String]) {
    let mut found = read(nodes, topic, partition, wanted.len()).await;
    found.dedup();
    assert_eq!(found, wanted, "partition {partition}");
}

async fn reassign(broker: &Broker, items: Vec<(TopicPartition, Target)>) -> Vec<Result<(), Error>> {
    let request = Reassign {
        items,
        validate_only: false,
    };
    broker.reassign(&ctx(), request).await.unwrap()
}

/// Waits until a partition is on exactly these nodes, in this order, all in sync.
async fn settled(nodes: &Nodes, topic: &TopicName, partition: i32, on: &[i32]) {
    until(&format!("{topic}-{partition} is on {on:?}"), || {
        let p = nodes.partition(topic.as_str(), partition);
        p.replicas == ids(on) && !p.is_reassigning() && p.isr.len() == on.len()
    })
    .await;
}

/// Waits until a partition has three replicas in sync, none of them on that node. Which nodes these are, balance
/// has a say in.
async fn whole_without(nodes: &Nodes, topic: &TopicName, partition: i32, gone: i32) {
    until(&format!("{topic}-{partition} is whole"), || {
        let p = nodes.partition(topic.as_str(), partition);
        let away = !p.replicas.contains(&NodeId(gone));
        away && !p.is_reassigning() && (p.replicas.len(), p.isr.len()) == (3, 3)
    })
    .await;
}

fn state(nodes: &Nodes, broker: i32, of: i32) -> Option<NodeState> {
    let details = nodes.brokers[&NodeId(broker)].node_details(&ctx()).unwrap();
    let found = details.into_iter().find(|n| n.status.node == NodeId(of));
    found.map(|n| n.status.state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decommissioned_node_is_emptied_under_load_and_forgotten() {
    let nodes = Nodes::new(4).await;
    let topic = create_on(&nodes, "orders", 2, &[4, 1, 2]).await;
    let over = AtomicBool::new(false);
    let (broker, leaving) = (nodes.brokers[&NodeId(1)].clone(), NodeId(4));
    let operator = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = broker.decommission_node(&ctx(), leaving, false).await;
        assert_eq!(begun.unwrap().state, NodeState::Decommissioning);
        for _ in 0..600 {
            match broker.decommission_node(&ctx(), leaving, false).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::NodeNotFound, "{error}");
                    over.store(true, Ordering::SeqCst);
                    return;
                }
            }
        }
        panic!("never forgotten");
    };
    let (zero, one, ()) = tokio::join!(
        load(&nodes, &topic, 0, &over),
        load(&nodes, &topic, 1, &over),
        operator
    );
    all_there(&nodes, &topic, 0, &zero).await;
    all_there(&nodes, &topic, 1, &one).await;
    for partition in 0..2 {
        whole_without(&nodes, &topic, partition, 4).await;
    }
    assert!(nodes.removed.list().contains(&leaving));
    let gone = &nodes.brokers[&leaving];
    until("it says that it is of no use", || {
        gone.readiness() == Err("decommissioned".to_owned())
    })
    .await;
    // It does not come back by itself.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(nodes.shared.look(|s| s.node(leaving).is_none()));
    assert!(gone.shutdown().await, "everything is on disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decommission_can_be_ended() {
    let nodes = Nodes::new(4).await;
    let broker = nodes.brokers[&NodeId(1)].clone();
    let node = NodeId(3);
    broker.decommission_node(&ctx(), node, false).await.unwrap();
    broker.resume_node(&ctx(), node).await.unwrap();
    until("it is back", || {
        state(&nodes, 1, 3) == Some(NodeState::Active)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state(&nodes, 1, 3), Some(NodeState::Active));
    until("it is ready", || nodes.brokers[&node].readiness().is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_forgotten_and_its_replicas_are_made_elsewhere() {
    let mut nodes = Nodes::new(4).await;
    let topic = create_on(&nodes, "orders", 3, &[4, 1, 2]).await;
    for partition in 0..3 {
        append(&nodes, &topic, partition, "a").await;
    }
    let dead = NodeId(4);
    let broker = nodes.brokers[&NodeId(1)].clone();
    let alive = broker.decommission_node(&ctx(), dead, true).await;
    assert!(alive.unwrap_err().message.contains("is alive"));
    nodes.kill(dead).await;
    nodes.active(3).await;
    let unsaid = broker.decommission_node(&ctx(), dead, false).await;
    assert!(unsaid.unwrap_err().message.contains("is offline"));
    broker.decommission_node(&ctx(), dead, true).await.unwrap();
    until("it is forgotten", || {
        nodes.shared.look(|s| s.node(dead).is_none())
    })
    .await;
    for partition in 0..3 {
        whole_without(&nodes, &topic, partition, 4).await;
        assert_eq!(read(&nodes, &topic, partition, 1).await, ["a"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced_by_an_empty_one_with_its_id() {
    let mut nodes = Nodes::new(3).await;
    let topic = create_on(&nodes, "orders", 3, &[3, 1, 2]).await;
    for partition in 0..3 {
        for n in 0..20 {
            append(&nodes, &topic, partition, &n.to_string()).await;
        }
    }
    let dead = NodeId(3);
    nodes.kill(dead).await;
    nodes.active(2).await;
    nodes.directories = 5000;
    nodes.join(dead).await;
    nodes.active(3).await;
    let broker = nodes.brokers[&dead].clone();
    until("it has caught up", || broker.readiness().is_ok()).await;
    let wanted: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for partition in 0..3 {
        nodes.in_sync("orders", partition, 3).await;
        let to = at(&topic, partition);
        broker
            .transfer_leadership(&ctx(), to, Some(dead))
            .await
            .unwrap();
        assert_eq!(nodes.partition("orders", partition).leader, Some(dead));
        assert_eq!(read(&nodes, &topic, partition, 20).await, wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_grows_to_three_replicas_and_shrinks_back() {
    let nodes = Nodes::new(3).await;
    // One partition: with more, balance would have its say.
    let topic = create_on(&nodes, "orders", 1, &[2]).await;
    let mut wanted = Vec::new();
    for n in 0..50 {
        append(&nodes, &topic, 0, &n.to_string()).await;
        wanted.push(n.to_string());
    }
    let broker = &nodes.brokers[&NodeId(1)];
    let all = |count| vec![(at(&topic, 0), Target::Count(count))];
    for result in reassign(broker, all(3)).await {
        result.unwrap();
    }
    nodes.in_sync("orders", 0, 3).await;
    assert_eq!(nodes.partition("orders", 0).replicas[0], NodeId(2));
    until("the topic says so", || {
        broker.topic(&ctx(), &topic).unwrap().replication_factor == 3
    })
    .await;
    append(&nodes, &topic, 0, "three").await;
    wanted.push("three".to_owned());
    for result in reassign(broker, all(1)).await {
        result.unwrap();
    }
    settled(&nodes, &topic, 0, &[2]).await;
    append(&nodes, &topic, 0, "one").await;
    wanted.push("one".to_owned());
    all_there(&nodes, &topic, 0, &wanted).await;
    until("the topic says so", || {
        broker.topic(&ctx(), &topic).unwrap().replication_factor == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_moves_to_three_other_nodes_under_load() {
    let nodes = Nodes::new(6).await;
    let topic = create_on(&nodes, "orders", 1, &[1, 2, 3]).await;
    let over = AtomicBool::new(false);
    let broker = nodes.brokers[&NodeId(5)].clone();
    let operator = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let target = Target::Nodes(ids(&[6, 5, 4]));
        for result in reassign(&broker, vec![(at(&topic, 0), target)]).await {
            result.unwrap();
        }
        settled(&nodes, &topic, 0, &[6, 5, 4]).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        over.store(true, Ordering::SeqCst);
    };
    let (wanted, ()) = tokio::join!(load(&nodes, &topic, 0, &over), operator);
    all_there(&nodes, &topic, 0, &wanted).await;
    assert_eq!(broker.reassignments(&ctx()).unwrap(), []);
    until("the files are gone where it was", || {
        use varve_vfs::Vfs as _;
        let empty = |n: i32| {
            let topics = nodes.disks[&NodeId(n)].list(std::path::Path::new("/data/topics"));
            let orders = topics.unwrap().into_iter();
            let mut orders = orders.filter(|e| e.name.starts_with("orders"));
            orders.all(|dir| {
                let dir = std::path::Path::new("/data/topics").join(dir.name);
                nodes.disks[&NodeId(n)].list(&dir).unwrap().is_empty()
            })
        };
        (1..=3).all(empty)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leadership_that_was_moved_stays_where_it_is() {
    let nodes = Nodes::new(3).await;
    let topic = create_on(&nodes, "orders", 1, &[1, 2, 3]).await;
    append(&nodes, &topic, 0, "a").await;
    nodes.in_sync("orders", 0, 3).await;
    let broker = &nodes.brokers[&NodeId(2)];
    let hint = broker
        .transfer_leadership(&ctx(), at(&topic, 0), Some(NodeId(3)))
        .await
        .unwrap();
    assert_eq!((hint.node, hint.address.as_str()), (NodeId(3), "node-3:1"));
    // The balance of leaders comes every second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let now = nodes.partition("orders", 0);
    assert_eq!(
        (now.leader, now.replicas),
        (Some(NodeId(3)), ids(&[3, 1, 2]))
    );
    append(&nodes, &topic, 0, "b").await;
    assert_eq!(read(&nodes, &topic, 0, 2).await, ["a", "b"]);
    // Nobody named: somebody else.
    let hint = broker
        .transfer_leadership(&ctx(), at(&topic, 0), None)
        .await;
    assert_ne!(hint.unwrap().node, NodeId(3));
    let none = broker.elect_preferred_leaders(&ctx(), vec![topic]).await;
    assert_eq!(none.unwrap().skipped, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_leads_nothing_until_it_is_resumed() {
    let nodes = Nodes::new(3).await;
    let topic = create_on(&nodes, "orders", 3, &[2, 1, 3]).await;
    for partition in 0..3 {
        append(&nodes, &topic, partition, "a").await;
        nodes.in_sync("orders", partition, 3).await;
    }
    let broker = nodes.brokers[&NodeId(1)].clone();
    let drained = NodeId(2);
    broker.drain_node(&ctx(), drained, false).await.unwrap();
    until("it leads nothing", || {
        state(&nodes, 3, 2) == Some(NodeState::Drained)
    })
    .await;
    let second = broker.drain_node(&ctx(), NodeId(3), false).await;
    let second = second.unwrap_err();
    assert!(second.message.contains("nothing was changed"), "{second}");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(state(&nodes, 3, 2), Some(NodeState::Drained));
    assert_eq!(
        nodes.brokers[&drained].readiness(),
        Err("draining".to_owned())
    );
    for partition in 0..3 {
        append(&nodes, &topic, partition, "b").await;
    }
    let resumed = broker.resume_node(&ctx(), drained).await.unwrap();
    assert_eq!(resumed, NodeState::Active);
    until("it leads again what it should", || {
        nodes.shared.look(|s| s.led_by(drained) >= 3)
    })
    .await;
    until("it is ready", || {
        nodes.brokers[&drained].readiness().is_ok()
    })
    .await;
    for partition in 0..3 {
        assert_eq!(read(&nodes, &topic, partition, 2).await, ["a", "b"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_gets_its_share() {
    let mut nodes = Nodes::new(3).await;
    let mut request = new_topic("orders", 12);
    request.replication_factor = Some(1);
    let broker = nodes.brokers[&NodeId(1)].clone();
    let topic = broker.create_topic(&ctx(), request).await.unwrap().name;
    for partition in 0..12 {
        append(&nodes, &topic, partition, &partition.to_string()).await;
    }
    nodes.join(NodeId(4)).await;
    nodes.active(4).await;
    until("replicas move to it", || {
        nodes
            .shared
            .look(|s| s.held_by(NodeId(4)) >= 2 && s.reassigning().is_empty())
    })
    .await;
    for partition in 0..12 {
        assert_eq!(
            read(&nodes, &topic, partition, 1).await,
            [partition.to_string()]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_after_the_other_is_restarted_while_production_goes_on() {
    let mut nodes = Nodes::new(3).await;
    let topic = create_on(&nodes, "orders", 3, &[1, 2, 3]).await;
    let mut wanted = Vec::new();
    for n in 1..=3 {
        let node = NodeId(n);
        if nodes.shared.look(|s| s.node(node).is_some()) {
            nodes.shared.lead(NodeId(n % 3 + 1));
        }
        let broker = nodes.brokers.remove(&node).unwrap();
        assert!(broker.shutdown().await, "everything is on disk");
        for i in 0..10 {
            let value = format!("{n}-{i}");
            append(&nodes, &topic, i % 3, &value).await;
            wanted.push((i % 3, value));
        }
        let disk = nodes.disks[&node].clone();
        nodes.start(node, disk, true).await;
        let broker = nodes.brokers[&node].clone();
        until("it is in sync again", || broker.readiness().is_ok()).await;
        for partition in 0..3 {
            let p = nodes.partition("orders", partition);
            assert!(p.isr.contains(&node), "{p:?}");
        }
    }
    for partition in 0..3 {
        let wanted = wanted.iter().filter(|(p, _)| *p == partition);
        let wanted: Vec<String> = wanted.map(|(_, v)| v.clone()).collect();
        all_there(&nodes, &topic, partition, &wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_keep_to_their_rate_and_say_what_is_left() {
    let mut nodes = Nodes::new(2).await;
    let topic = create_on(&nodes, "orders", 1, &[1]).await;
    let value = "x".repeat(100_000);
    for _ in 0..40 {
        append(&nodes, &topic, 0, &value).await;
    }
    nodes.move_limit = 1_000_000;
    nodes.join(NodeId(3)).await;
    nodes.active(3).await;
    let broker = nodes.brokers[&NodeId(1)].clone();
    let began = Instant::now();
    let target = Target::Nodes(ids(&[1, 3]));
    for result in reassign(&broker, vec![(at(&topic, 0), target)]).await {
        result.unwrap();
    }
    let moves = broker.reassignments(&ctx()).unwrap();
    assert_eq!(moves.len(), 1);
    assert_eq!(
        (&moves[0].adding[..], moves[0].leader),
        (&ids(&[3])[..], Some(NodeId(1)))
    );
    assert!(moves[0].remaining_bytes.unwrap() > 1_000_000, "{moves:?}");
    let other = nodes.brokers[&NodeId(2)].reassignments(&ctx()).unwrap();
    assert_eq!(other[0].remaining_bytes, None);
    settled(&nodes, &topic, 0, &[1, 3]).await;
    // Four million bytes at a million a second; the first are free.
    let took = began.elapsed();
    assert!(took > Duration::from_secs(2), "{took:?}");
    assert_eq!(read(&nodes, &topic, 0, 40).await.len(), 40);
}

/// What is flushed is told beside the fetch that is held back, which must not say less afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_with_a_limit_never_asks_with_what_is_old() {
    let mut nodes = Nodes::new(2).await;
    let mut request = new_topic("orders", 1);
    request.replication_factor = Some(1);
    request.placement = [(0, ids(&[1]))].into();
    let fsync = ("durability".to_owned(), "fsync".to_owned());
    request.configs = [fsync].into();
    let broker = nodes.brokers[&NodeId(1)].clone();
    let made = broker.create_topic(&ctx(), request).await.unwrap();
    let value = "x".repeat(500_000);
    for _ in 0..20 {
        append(&nodes, &made.name, 0, &value).await;
    }
    nodes.move_limit = 5_000_000;
    nodes.join(NodeId(3)).await;
    nodes.active(3).await;
    let target = Target::Nodes(ids(&[1, 3]));
    for result in reassign(&broker, vec![(at(&made.name, 0), target)]).await {
        result.unwrap();
    }
    settled(&nodes, &made.name, 0, &[1, 3]).await;
    let (answered, stale) = nodes.net.answered(made.id);
    assert_eq!(stale, 0, "of {answered} fetches");
    assert!(
        answered >= 5,
        "each takes a part of ten megabytes, and there are {answered}"
    );
    assert_eq!(read(&nodes, &made.name, 0, 20).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_can_be_cancelled() {
    let mut nodes = Nodes::new(2).await;
    let topic = create_on(&nodes, "orders", 1, &[1]).await;
    let value = "x".repeat(100_000);
    for _ in 0..30 {
        append(&nodes, &topic, 0, &value).await;
    }
    nodes.move_limit = 10_000;
    nodes.join(NodeId(3)).await;
    nodes.active(3).await;
    let broker = nodes.brokers[&NodeId(2)].clone();
    let target = Target::Nodes(ids(&[3]));
    for result in reassign(&broker, vec![(at(&topic, 0), target)]).await {
        result.unwrap();
    }
    let both = vec![at(&topic, 0), at(&topic, 7)];
    let cancelled = broker.cancel_reassignments(&ctx(), both).await.unwrap();
    assert_eq!(cancelled[0], Ok(()));
    let missing = cancelled[1].as_ref().unwrap_err();
    assert_eq!(missing.kind, ErrorKind::PartitionNotFound);
    settled(&nodes, &topic, 0, &[1]).await;
    let again = broker
        .cancel_reassignments(&ctx(), vec![at(&topic, 0)])
        .await;
    let again = again.unwrap().remove(0).unwrap_err();
    assert_eq!(again.kind, ErrorKind::InvalidRequest);
    assert_eq!(read(&nodes, &topic, 0, 30).await.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut nodes = Nodes::new(4).await;
    let topic = create_on(&nodes, "orders", 1, &[1, 2, 3]).await;
    append(&nodes, &topic, 0, "a").await;
    nodes.in_sync("orders", 0, 3).await;
    nodes.kill(NodeId(4)).await;
    nodes.active(3).await;
    // Those that rest on the node that is gone have no leader for good; only what follows is looked at.
    let before = nodes.partition("orders", 0);
    let broker = nodes.brokers[&NodeId(1)].clone();
    let to = |target| {
        let items = vec![(at(&topic, 0), target)];
        let broker = broker.clone();
        async move { reassign(&broker, items).await.remove(0).unwrap_err() }
    };
    let cases = [
        (
            Target::Nodes(ids(&[1, 9])),
            ErrorKind::NodeNotFound,
            "node 9",
        ),
        (
            Target::Nodes(ids(&[1, 1])),
            ErrorKind::InvalidRequest,
            "distinct",
        ),
        (
            Target::Nodes(Vec::new()),
            ErrorKind::InvalidRequest,
            "distinct",
        ),
        (
            Target::Nodes(ids(&[1, 4])),
            ErrorKind::PolicyViolation,
            "offline",
        ),
        (
            Target::Count(4),
            ErrorKind::InvalidRequest,
            "get 4 replicas, but only 3 nodes",
        ),
        (Target::Count(0), ErrorKind::InvalidRequest, "at least one"),
    ];
    for (target, kind, says) in cases {
        let what = format!("{target:?}");
        let error = to(target).await;
        assert_eq!(error.kind, kind, "{what}: {error}");
        assert!(error.message.contains(says), "{what}: {error}");
        assert!(
            error.message.contains("nothing was changed"),
            "{what}: {error}"
        );
    }
    let places = broker.decommission_node(&ctx(), NodeId(3), false).await;
    let places = places.unwrap_err();
    assert!(
        places
            .message
            .contains("3 replicas, but without node 3 only 2"),
        "{places}"
    );
    for error in [
        broker
            .drain_node(&ctx(), NodeId(9), false)
            .await
            .unwrap_err(),
        broker.resume_node(&ctx(), NodeId(9)).await.unwrap_err(),
        broker
            .decommission_node(&ctx(), NodeId(9), true)
            .await
            .unwrap_err(),
        broker
            .transfer_leadership(&ctx(), at(&topic, 0), Some(NodeId(9)))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::NodeNotFound, "{error}");
    }
    let offline = broker
        .transfer_leadership(&ctx(), at(&topic, 0), Some(NodeId(4)))
        .await;
    assert_eq!(offline.unwrap_err().kind, ErrorKind::LeaderNotAvailable);
    let check = Reassign {
        items: vec![
            (at(&topic, 0), Target::Count(2)),
            (at(&topic, 1), Target::Count(2)),
        ],
        validate_only: true,
    };
    let checked = broker.reassign(&ctx(), check).await.unwrap();
    assert_eq!(checked[0], Ok(()));
    let missing = checked[1].as_ref().unwrap_err();
    assert_eq!(missing.kind, ErrorKind::PartitionNotFound);
    let after = nodes.partition("orders", 0);
    assert_eq!(before, after, "nothing was changed");
    append(&nodes, &topic, 0, "b").await;
    assert_eq!(read(&nodes, &topic, 0, 2).await, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_alone_says_so() {
    let alone = Fixture::new().await;
    let topic = alone.create("orders", 1).await;
    let broker = &alone.broker;
    let details = broker.node_details(&ctx()).unwrap();
    assert_eq!((details.len(), details[0].replicas), (1, 1));
    assert_eq!(broker.reassignments(&ctx()).unwrap(), []);
    // Looking at its level asks nothing of others.
    let features = broker.features(&ctx()).unwrap();
    assert_eq!(features.level, features.possible);
    assert_eq!(features.nodes.len(), 1);
    let items = vec![(at(&topic, 0), Target::Count(2))];
    let request = Reassign {
        items,
        validate_only: false,
    };
    for error in [
        broker
            .drain_node(&ctx(), NodeId(1), true)
            .await
            .unwrap_err(),
        broker.reassign(&ctx(), request).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::PolicyViolation);
        assert!(error.message.contains("is alone"), "{error}");
    }
}
