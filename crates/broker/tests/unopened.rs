//! Logs that a start cannot open because the disk fails: what only the journal has of them is put back by a later
//! start, the cluster knows of it before the node serves, the last copy stays what it is, and no clean stop vouches
//! for what nobody could look into.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::support::cluster::Nodes;
use crate::support::{Fixture, batch, new_topic, produce, read_all, until};
use rustix::io::Errno;
use varve_broker::Broker;
use varve_broker_api::{Broker as _, Context};
use varve_types::{ErrorKind, NodeId, TopicName};
use varve_vfs::fault::Op;
use varve_vfs::mem::{Answer, MemVfs};
use varve_vfs::{SystemClock, Vfs};

async fn create(nodes: &Nodes, name: &str, on: &[i32]) -> TopicName {
    let mut request = new_topic(name, 1);
    request.replication_factor = Some(on.len() as i32);
    request.placement = [(0, on.iter().map(|n| NodeId(*n)).collect())].into();
    let all = ("min.insync.replicas".to_owned(), on.len().to_string());
    request.configs.extend([all]);
    let broker = &nodes.brokers[&NodeId(1)];
    let created = broker.create_topic(&Context::anonymous(), request).await;
    created.unwrap().name
}

fn journaled(broker: &Broker) -> f64 {
    crate::support::metric(broker, "varve_journal_groups_total ")
}

/// Appends one record, as soon as its leader knows that it leads.
async fn append(broker: &Broker, topic: &TopicName, value: &str) {
    let mut last = None;
    for _ in 0..400 {
        match produce(broker, topic, 0, batch(&[value])).await {
            Ok(_) => return,
            Err(error) => {
                let early = [ErrorKind::LeaderNotAvailable, ErrorKind::NotLeader];
                assert!(early.contains(&error.kind), "{error:?}");
                last = Some(error);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is never led: {last:?}");
}

/// Appends until some records are in the journal of the leader alone. Returns all of them.
async fn fill(nodes: &Nodes, topic: &TopicName) -> Vec<String> {
    let mut values = Vec::new();
    let (_, broker) = nodes.leader(topic.as_str(), 0).await;
    let until = journaled(&broker) + 5.0;
    while journaled(&broker) < until {
        let (groups, count) = (journaled(&broker), values.len());
        assert!(count < 1000, "{groups} of {until} groups are there");
        let value = format!("record-{}", values.len());
        append(&broker, topic, &value).await;
        values.push(value);
        // A journal whose file is still being made takes nothing.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    values
}

/// From now on every call of that kind fails in that topic's directory.
fn fail(disk: &MemVfs, op: Op, topic: &TopicName) {
    let part = format!("/{topic}-");
    disk.set_hook(Some(Arc::new(move |call| {
        let of_it = call.path.to_string_lossy().contains(&part);
        match call.op == op && of_it {
            true => Answer::Fail(Errno::IO),
            false => Answer::Go,
        }
    })));
}

fn kept_aside(disk: &dyn Vfs) -> bool {
    let data = disk.list(Path::new("/data")).unwrap();
    data.iter().any(|e| e.name.starts_with("journal.kept-"))
}

/// Elected for it, or with its journal gone, it would lead without what it has acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_only_once_the_cluster_knows_what_could_not_be_opened() {
    let mut nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", &[2, 3]).await;
    let mut values = fill(&nodes, &topic).await;
    let two = nodes.kill(NodeId(2)).await;
    let eligible = || nodes.partition("orders", 0).elr == [NodeId(2)];
    until("it is missed", eligible).await;
    fail(&two, Op::Read, &topic);
    nodes.shared.deaf_to_losses(true);
    let shared = Arc::clone(&nodes.shared);
    let mut start = Box::pin(nodes.restart(NodeId(2), Arc::clone(&two)));
    let look = async {
        // It is told again and again.
        until("it is told", || shared.unheard() >= 3).await;
        let state = shared.look(|state| state.node(NodeId(2)).unwrap().state);
        assert_eq!(state, varve_metadata::NodeState::Fenced);
        assert!(!kept_aside(&*two));
        assert!(!two.list(Path::new("/data/journal")).unwrap().is_empty());
    };
    tokio::select! {
        () = &mut start => panic!("nobody knows yet"),
        () = look => {}
    }
    shared.deaf_to_losses(false);
    start.await;
    let partition = nodes.partition("orders", 0);
    assert_eq!(partition.leader, Some(NodeId(3)));
    assert_eq!((partition.isr, partition.elr), (vec![NodeId(3)], vec![]));
    nodes.active(3).await;
    // The next start can open it, and it catches up.
    let two = nodes.kill(NodeId(2)).await;
    two.set_hook(None);
    nodes.restart(NodeId(2), two).await;
    nodes.in_sync("orders", 0, 2).await;
    let (_, leader) = nodes.leader("orders", 0).await;
    append(&leader, &topic, "at last").await;
    values.push("at last".to_owned());
    assert_eq!(read_all(&leader, &topic, 0).await, values);
}

/// There is nobody else: an error of the disk is no reason to forget what it has, nor what its journal has.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_replica_stays_offline_until_a_start_can_open_it_and_loses_nothing() {
    let mut nodes = Nodes::new(3).await;
    // As many on the other nodes, lest balance moves one.
    for (n, on) in [1, 3, 1, 3].into_iter().enumerate() {
        create(&nodes, &format!("balance-{n}"), &[on]).await;
    }
    let topic = create(&nodes, "orders", &[2]).await;
    let other = create(&nodes, "other", &[2]).await;
    let values = fill(&nodes, &topic).await;
    let mut others = fill(&nodes, &other).await;
    for op in [Op::Read, Op::Stat] {
        let two = nodes.kill(NodeId(2)).await;
        fail(&two, op, &topic);
        nodes.restart(NodeId(2), two).await;
        nodes.active(3).await;
        let (leader, broker) = nodes.leader("orders", 0).await;
        assert_eq!(leader, NodeId(2), "it is counted on");
        let refused = produce(&broker, &topic, 0, batch(&["no"])).await;
        assert_eq!(refused.unwrap_err().kind, ErrorKind::LeaderNotAvailable);
        assert!(!kept_aside(&*nodes.disks[&NodeId(2)]));
        // Others on that node serve, and what they had comes back once.
        let (_, broker) = nodes.leader("other", 0).await;
        others.push(format!("after {op:?}"));
        append(&broker, &other, &others[others.len() - 1]).await;
        assert_eq!(read_all(&broker, &other, 0).await, others);
    }
    let two = nodes.kill(NodeId(2)).await;
    two.set_hook(None);
    nodes.restart(NodeId(2), two).await;
    nodes.active(3).await;
    let (_, broker) = nodes.leader("orders", 0).await;
    for (topic, mut values) in [(topic, values), (other, others)] {
        append(&broker, &topic, "at last").await;
        values.push("at last".to_owned());
        assert_eq!(read_all(&broker, &topic, 0).await, values);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_does_not_vouch_for_a_log_that_was_never_opened() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    let other = f.create("other", 1).await;
    produce(&f.broker, &topic, 0, batch(&["a"])).await.unwrap();
    produce(&f.broker, &other, 0, batch(&["x"])).await.unwrap();
    let dir = f.partition_dir("orders", 0);
    let left = Arc::new(f.disk.image());
    f.broker.shutdown().await;
    let log = left.list(&dir).unwrap();
    let log = log.iter().find(|e| e.name.ends_with(".log")).unwrap();
    // The power went while a batch was written.
    let torn = left.damage(&dir.join(&log.name), &mut |bytes| {
        let half = bytes[..bytes.len() / 2].to_vec();
        bytes.extend(half);
    });
    assert!(torn);
    fail(&left, Op::Read, &topic);
    let f = Fixture::with(Arc::clone(&left), Arc::new(SystemClock::new()), |_| {}).await;
    assert_eq!(f.broker.storage_health().offline.len(), 1);
    produce(&f.broker, &other, 0, batch(&["y"])).await.unwrap();
    assert!(f.broker.shutdown().await, "what was open is on disk");
    let whole = f.broker.opened_every_log();
    left.set_hook(None);
    let f = f.restart(whole).await;
    assert_eq!(read_all(&f.broker, &topic, 0).await, ["a"]);
    produce(&f.broker, &topic, 0, batch(&["b"])).await.unwrap();
    assert_eq!(read_all(&f.broker, &other, 0).await, ["x", "y"]);
    assert!(!whole);
    assert!(f.broker.shutdown().await);
    assert!(f.broker.opened_every_log());
}
