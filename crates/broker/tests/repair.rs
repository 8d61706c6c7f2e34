//! Damage in a cluster: a replica that rots is given up and copied again from those that are whole, whoever finds
//! it, wherever it is and whenever the node dies meanwhile; and the last copy is never given up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::cluster::{Nodes, SESSION};
use crate::support::gate::Gate;
use crate::support::{batch, fetch_one, new_topic, next_place, produce, until};
use rustix::io::Errno;
use varve_broker::Broker;
use varve_broker_api::{
    Before, Broker as _, Context, DeleteBefore, Isolation, Operations as _, Reassign, Target,
};
use varve_types::{ErrorKind, NodeId, Offset, PartitionId, Retry, TopicName, TopicPartition};
use varve_vfs::Vfs;
use varve_vfs::fault::Op;
use varve_vfs::mem::{Answer, Call, MemVfs};

/// A record is about a third of a segment.
const PADDING: usize = 1_200;
/// The scrub begins again as soon as it is through.
const ALWAYS: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(3600);

async fn create(nodes: &Nodes, name: &str, on: &[i32], configs: &[(&str, &str)]) -> TopicName {
    let mut request = new_topic(name, 1);
    request.replication_factor = Some(on.len() as i32);
    request.placement = [(0, on.iter().map(|n| NodeId(*n)).collect())].into();
    request
        .configs
        .insert("segment.bytes".into(), "4096".into());
    let more = configs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    request.configs.extend(more);
    let broker = &nodes.brokers[&NodeId(1)];
    let created = broker.create_topic(&Context::anonymous(), request).await;
    created.unwrap().name
}

fn value(n: usize) -> String {
    format!("record-{n:03}-{}", "x".repeat(PADDING))
}

/// Appends until it is acknowledged: once, unless an answer was lost.
async fn append(nodes: &Nodes, topic: &TopicName, n: usize) {
    let mut last = None;
    for _ in 0..400 {
        let (_, broker) = nodes.leader(topic.as_str(), 0).await;
        match produce(&broker, topic, 0, batch(&[&value(n)])).await {
            Ok(_) => return,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("record {n} is never acknowledged: {last:?}");
}

async fn fill(nodes: &Nodes, topic: &TopicName, from: usize, to: usize) {
    for n in from..to {
        append(nodes, topic, n).await;
    }
}

/// Reads as a client does: from whoever leads, again after every error that a client asks again after. The first
/// that it does not is what is returned.
async fn read_from_start(nodes: &Nodes, topic: &TopicName) -> Result<Vec<String>, ErrorKind> {
    read_from(nodes, topic, 0).await
}

async fn read_from(nodes: &Nodes, topic: &TopicName, first: i64) -> Result<Vec<String>, ErrorKind> {
    for _ in 0..400 {
        let (_, broker) = nodes.leader(topic.as_str(), 0).await;
        let (mut offset, mut values, mut idle) = (Offset::new(first).unwrap(), Vec::new(), 0);
        let end = loop {
            match fetch_one(&broker, topic, 0, offset.get()).await {
                Ok(fetched) => {
                    for batch in varve_record::iter_batches(fetched.batches.clone()) {
                        let batch = batch.unwrap();
                        for record in batch.records().unwrap() {
                            let value = record.unwrap().value.unwrap().to_vec();
                            values.push(String::from_utf8(value).unwrap());
                        }
                    }
                    let isolation = Isolation::default();
                    match next_place(offset, &fetched, isolation, &mut idle).await {
                        Some(next) => offset = next,
                        None => break Ok(()),
                    }
                }
                Err(error) => break Err(error.kind),
            }
        };
        match end {
            Ok(()) => return Ok(values),
            Err(kind @ ErrorKind::CorruptLog) => return Err(kind),
            Err(kind) => assert!(
                matches!(kind, ErrorKind::LeaderNotAvailable | ErrorKind::NotLeader),
                "{kind:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the reader never comes to the end");
}

/// Every record from 0 to `count`, in order. One whose answer was lost may be there twice.
async fn all_there(nodes: &Nodes, topic: &TopicName, count: usize) {
    let mut found = Vec::new();
    for _ in 0..200 {
        found = read_from_start(nodes, topic).await.unwrap();
        found.dedup();
        if found.len() >= count {
            break;
        }
        // A new leader has yet to hear how far everything is committed.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let wanted: Vec<String> = (0..count).map(value).collect();
    assert!(found == wanted, "{} of {count} records", found.len());
}

fn dir_of(disk: &MemVfs, topic: &TopicName) -> PathBuf {
    let topics = disk.list(Path::new("/data/topics")).unwrap();
    let begin = format!("{}-", topic.as_str());
    let found = topics.into_iter().find(|e| e.name.starts_with(&begin));
    Path::new("/data/topics")
        .join(found.unwrap().name)
        .join("0")
}

/// The batches of a replica, from the start to the end.
fn bytes_of(disk: &MemVfs, topic: &TopicName) -> Vec<u8> {
    let (dir, mut all) = (dir_of(disk, topic), Vec::new());
    disk.for_each_file(&mut |path, bytes| {
        if path.parent() == Some(&dir) && path.extension().is_some_and(|e| e == "log") {
            all.extend_from_slice(bytes);
        }
    });
    all
}

/// Flips a bit of that record on that disk.
fn flip(disk: &MemVfs, topic: &TopicName, n: usize) {
    let (dir, what) = (dir_of(disk, topic), value(n));
    let mut files = Vec::new();
    disk.for_each_file(&mut |path, bytes| {
        let found = bytes.windows(10).position(|w| w == &what.as_bytes()[..10]);
        if path.starts_with(&dir)
            && path.extension().is_some_and(|e| e == "log")
            && let Some(at) = found
        {
            files.push((path.to_owned(), at));
        }
    });
    assert_eq!(files.len(), 1, "a record is in one file");
    for (path, at) in files {
        let mut change = |data: &mut Vec<u8>| {
            if let Some(byte) = data.get_mut(at) {
                *byte ^= 4;
            }
        };
        assert!(disk.damage(&path, &mut change));
    }
}

/// Every replica is in sync, has the same bytes, and nothing is left of those that were damaged.
async fn whole(nodes: &Nodes, topic: &TopicName, count: usize) {
    all_there(nodes, topic, count).await;
    let replicas = nodes.partition(topic.as_str(), 0).replicas;
    nodes.in_sync(topic.as_str(), 0, replicas.len()).await;
    until("all replicas are the same", || {
        let mut all = replicas.iter().map(|n| bytes_of(&nodes.disks[n], topic));
        let first = all.next().unwrap();
        all.all(|bytes| bytes == first)
    })
    .await;
    until("nothing is left aside", || {
        replicas.iter().all(|n| {
            let disk = &nodes.disks[n];
            let topic = dir_of(disk, topic).parent().unwrap().to_owned();
            disk.list(&topic).unwrap().len() == 1
        })
    })
    .await;
    all_there(nodes, topic, count).await;
}

fn metric(broker: &Broker, line: &str) -> bool {
    let mut registry = prometheus_client::registry::Registry::with_prefix("varve");
    broker.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text.lines().any(|l| l == line)
}

fn counter(broker: &Broker, name: &str) -> u64 {
    let mut registry = prometheus_client::registry::Registry::with_prefix("varve");
    broker.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = text.lines().find(|l| l.starts_with(&format!("{name} ")));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

const REPAIRED: &str = r#"varve_partition_repairs_total{topic="orders"} 1"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flips_under_a_leader_costs_nobody_anything() {
    // In a segment that is closed, and in the one that is written to.
    for damaged in [1, 10] {
        let nodes = Nodes::new(3).await;
        let topic = create(&nodes, "orders", &[1, 2, 3], &[]).await;
        fill(&nodes, &topic, 0, 11).await;
        let (leader, broker) = nodes.leader("orders", 0).await;
        let before = nodes.partition("orders", 0);
        flip(&nodes.disks[&leader], &topic, damaged);
        all_there(&nodes, &topic, 11).await;
        assert!(nodes.partition("orders", 0).leader_epoch > before.leader_epoch);
        fill(&nodes, &topic, 11, 15).await;
        whole(&nodes, &topic, 15).await;
        assert!(metric(&broker, REPAIRED));
        until("it is known to be done", || {
            metric(&broker, "varve_partition_repairs_in_progress 0")
        })
        .await;
        let health = broker.storage_health();
        assert!(
            health.is_good() && health.repairing.is_empty(),
            "{health:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrub_of_a_follower_has_it_repaired() {
    let nodes = Nodes::with(3, ALWAYS, LONG).await;
    let topic = create(&nodes, "orders", &[1, 2, 3], &[]).await;
    fill(&nodes, &topic, 0, 11).await;
    let (leader, _) = nodes.leader("orders", 0).await;
    let follower = (1..=3).map(NodeId).find(|n| *n != leader).unwrap();
    flip(&nodes.disks[&follower], &topic, 4);
    until("it is repaired", || {
        metric(&nodes.brokers[&follower], REPAIRED)
    })
    .await;
    whole(&nodes, &topic, 11).await;
    assert_eq!(nodes.partition("orders", 0).leader, Some(leader));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_copies_finds_it_too() {
    let mut nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", &[2, 3, 1], &[]).await;
    fill(&nodes, &topic, 0, 6).await;
    let disk = nodes.kill(NodeId(1)).await;
    nodes.shared.lead(NodeId(3));
    nodes.in_sync("orders", 0, 2).await;
    fill(&nodes, &topic, 6, 12).await;
    // Of what node 1 has to copy; nobody else reads it.
    flip(&nodes.disks[&NodeId(2)], &topic, 7);
    nodes.restart(NodeId(1), disk).await;
    until("it is repaired", || {
        metric(&nodes.brokers[&NodeId(2)], REPAIRED)
    })
    .await;
    whole(&nodes, &topic, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_refused_at_the_start_is_copied_again() {
    let mut nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", &[1, 2, 3], &[]).await;
    fill(&nodes, &topic, 0, 11).await;
    for node in [NodeId(2), NodeId(3)] {
        let disk = nodes.kill(node).await;
        let manifest = dir_of(&disk, &topic).join("manifest");
        assert!(disk.damage(&manifest, &mut |data| data[40] ^= 1));
        nodes.in_sync("orders", 0, 2).await;
        nodes.restart(node, disk).await;
        until("it is repaired", || metric(&nodes.brokers[&node], REPAIRED)).await;
        nodes.in_sync("orders", 0, 3).await;
    }
    whole(&nodes, &topic, 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_alone_stays_as_it_is() {
    let nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", &[2], &[]).await;
    fill(&nodes, &topic, 0, 11).await;
    let disk = &nodes.disks[&NodeId(2)];
    flip(disk, &topic, 4);
    let bytes = bytes_of(disk, &topic);
    for _ in 0..3 {
        let kind = read_from_start(&nodes, &topic).await.unwrap_err();
        assert_eq!(kind, ErrorKind::CorruptLog);
    }
    let broker = &nodes.brokers[&NodeId(2)];
    assert!(
        fetch_one(broker, &topic, 0, 5).await.is_ok(),
        "what is whole is read"
    );
    assert_eq!(nodes.partition("orders", 0).leader, Some(NodeId(2)));
    assert!(bytes_of(disk, &topic) == bytes);
    assert_eq!(broker.storage_health().damaged.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_copy_is_kept_until_there_is_another() {
    let mut nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", &[1, 2, 3], &[]).await;
    fill(&nodes, &topic, 0, 8).await;
    let two = nodes.kill(NodeId(2)).await;
    let three = nodes.kill(NodeId(3)).await;
    nodes.in_sync("orders", 0, 1).await;
    flip(&nodes.disks[&NodeId(1)], &topic, 3);
    let kind = read_from_start(&nodes, &topic).await.unwrap_err();
    assert_eq!(kind, ErrorKind::CorruptLog, "nobody else has it now");
    let bytes = bytes_of(&nodes.disks[&NodeId(1)], &topic);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(bytes_of(&nodes.disks[&NodeId(1)], &topic) == bytes);
    assert_eq!(nodes.partition("orders", 0).isr, [NodeId(1)]);
    // They come back with all of it.
    nodes.restart(NodeId(2), two).await;
    nodes.restart(NodeId(3), three).await;
    until("it is repaired", || {
        metric(&nodes.brokers[&NodeId(1)], REPAIRED)
    })
    .await;
    whole(&nodes, &topic, 8).await;
}

/// Elected on an empty log, it would make the one that has everything cut it.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_replica_is_not_begun_empty_while_nobody_can_be_told() {
    let mut nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", &[2, 3], &[("min.insync.replicas", "2")]).await;
    fill(&nodes, &topic, 0, 4).await;
    let three = nodes.kill(NodeId(3)).await;
    nodes.in_sync("orders", 0, 1).await;
    assert_eq!(nodes.partition("orders", 0).elr, [NodeId(3)]);
    let dir = dir_of(&three, &topic);
    three.remove_dir_all(&dir).unwrap();
    nodes.shared.deaf_to_losses(true);
    nodes.restart(NodeId(3), three).await;
    nodes.active(3).await;
    let two = nodes.kill(NodeId(2)).await;
    let leads = |node| nodes.partition("orders", 0).leader == Some(NodeId(node));
    until("it is elected: the metadata counts on it", || leads(3)).await;
    nodes.restart(NodeId(2), two).await;
    nodes.active(3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!nodes.disks[&NodeId(3)].exists(&dir).unwrap());
    nodes.shared.deaf_to_losses(false);
    let leads = |node| nodes.partition("orders", 0).leader == Some(NodeId(node));
    until("the one that has the records leads", || leads(2)).await;
    all_there(&nodes, &topic, 4).await;
    nodes.in_sync("orders", 0, 2).await;
    whole(&nodes, &topic, 4).await;
}

/// Moves partition 0 to other nodes, and waits until it is there.
async fn move_to(nodes: &Nodes, topic: &TopicName, on: &[i32]) {
    let on: Vec<NodeId> = on.iter().map(|n| NodeId(*n)).collect();
    let item = (
        TopicPartition::new(topic.clone(), PartitionId(0)),
        Target::Nodes(on.clone()),
    );
    let request = Reassign {
        items: vec![item],
        validate_only: false,
    };
    let broker = &nodes.brokers[&NodeId(1)];
    let mut told = broker
        .reassign(&Context::anonymous(), request)
        .await
        .unwrap();
    told.remove(0).unwrap();
    until(&format!("it is on {on:?}"), || {
        let p = nodes.partition(topic.as_str(), 0);
        p.replicas == on && !p.is_reassigning() && p.isr.len() == on.len()
    })
    .await;
}

/// The journal still has records of what the replica was, for files of the same names and numbers.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_comes_back_is_not_mixed_with_what_it_was() {
    let mut nodes = Nodes::new(3).await;
    // The first file of the journal is made while it is not used yet.
    let other = create(&nodes, "other", &[2], &[]).await;
    let journaled = |n| counter(&nodes.brokers[&NodeId(n)], "varve_journal_groups_total");
    for n in 0.. {
        append(&nodes, &other, n).await;
        let groups = journaled(2);
        if groups > 3 {
            break;
        }
        assert!(n < 1000, "{groups} groups are in the journal");
        // Its file is made beside this, which takes its time.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // With it there would be two replicas more on node 2 than on node 3, and balance would move one.
    let broker = nodes.brokers[&NodeId(1)].clone();
    let deleted = broker
        .delete_topic(&Context::anonymous(), &other, None)
        .await;
    deleted.unwrap();
    let topic = create(&nodes, "orders", &[2, 1], &[("min.insync.replicas", "2")]).await;
    let before = journaled(2);
    fill(&nodes, &topic, 0, 8).await;
    assert!(
        journaled(2) > before + 3,
        "it leads, and its journal has the records"
    );
    move_to(&nodes, &topic, &[1, 3]).await;
    // Its log begins later now, so that everything is in another place.
    let before = vec![DeleteBefore {
        partition: TopicPartition::new(topic.clone(), PartitionId(0)),
        before: Before::Offset(Offset::new(7).unwrap()),
    }];
    // The lead may be on its way to the preferred replica: whoever was found then refuses, and the next one is asked.
    let asked = tokio::time::Instant::now();
    loop {
        let (_, leader) = nodes.leader("orders", 0).await;
        let ctx = Context::anonymous();
        let mut trimmed = leader.delete_records(&ctx, before.clone()).await;
        match trimmed.remove(0) {
            Ok(_) => break,
            Err(error) if error.retry() != Retry::Never && asked.elapsed() < SESSION * 10 => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    move_to(&nodes, &topic, &[1, 2]).await;
    let two = nodes.kill(NodeId(2)).await;
    nodes.restart(NodeId(2), two).await;
    nodes.in_sync("orders", 0, 2).await;
    until("both have the same", || {
        let of = |n| bytes_of(&nodes.disks[&NodeId(n)], &topic);
        let (one, two) = (of(1), of(2));
        one.ends_with(&two) && !two.is_empty()
    })
    .await;
    assert_eq!(read_from(&nodes, &topic, 7).await.unwrap(), [value(7)]);
    let health = nodes.brokers[&NodeId(2)].storage_health();
    assert!(
        health.is_good() && health.repairing.is_empty(),
        "{health:?}"
    );
    assert!(!metric(&nodes.brokers[&NodeId(2)], REPAIRED));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_are_damaged_at_once_are_repaired_from_the_third() {
    let nodes = Nodes::with(3, ALWAYS, Duration::from_millis(300)).await;
    let topic = create(&nodes, "orders", &[1, 2, 3], &[]).await;
    fill(&nodes, &topic, 0, 11).await;
    flip(&nodes.disks[&NodeId(1)], &topic, 2);
    flip(&nodes.disks[&NodeId(2)], &topic, 7);
    for node in [1, 2] {
        let broker = &nodes.brokers[&NodeId(node)];
        until("it is repaired", || metric(broker, REPAIRED)).await;
    }
    whole(&nodes, &topic, 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_have_damaged_is_told_and_the_rest_is_kept() {
    let nodes = Nodes::with(3, ALWAYS, Duration::from_millis(300)).await;
    let topic = create(&nodes, "orders", &[1, 2, 3], &[]).await;
    fill(&nodes, &topic, 0, 11).await;
    // Cut off, so that none is repaired from the next before that one is damaged too.
    for node in 1..=3 {
        nodes.net.cut(NodeId(node));
    }
    for node in 1..=3 {
        flip(&nodes.disks[&NodeId(node)], &topic, 5);
    }
    nodes.net.heal();
    until("one is left", || {
        let p = nodes.partition("orders", 0);
        p.isr.len() == 1 && p.elr.is_empty()
    })
    .await;
    // It leads, and what is not damaged of it is read; it is given up by nobody.
    for _ in 0..20 {
        let kind = read_from_start(&nodes, &topic).await.unwrap_err();
        assert_eq!(kind, ErrorKind::CorruptLog);
        let (leader, broker) = nodes.leader("orders", 0).await;
        assert_eq!(nodes.partition("orders", 0).isr, [leader]);
        for offset in [0, 4, 6, 10] {
            assert!(fetch_one(&broker, &topic, 0, offset).await.is_ok());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_rots_on_is_not_copied_to_without_end() {
    let nodes = Nodes::with(3, LONG, LONG).await;
    let topic = create(&nodes, "orders", &[1, 2, 3], &[]).await;
    fill(&nodes, &topic, 0, 8).await;
    flip(&nodes.disks[&NodeId(1)], &topic, 1);
    whole(&nodes, &topic, 8).await;
    let broker = &nodes.brokers[&NodeId(1)];
    assert!(metric(broker, REPAIRED));
    until("it leads again", || {
        nodes.partition("orders", 0).leader == Some(NodeId(1))
    })
    .await;
    flip(&nodes.disks[&NodeId(1)], &topic, 1);
    let kind = read_from_start(&nodes, &topic).await.unwrap_err();
    assert_eq!(kind, ErrorKind::CorruptLog, "not again so soon");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(metric(broker, REPAIRED));
    assert_eq!(nodes.partition("orders", 0).isr.len(), 3);
}

/// From the first call that matches on, the disk takes nothing any more: what a process does that dies there.
fn dies_at(
    disk: &MemVfs,
    when: impl Fn(&Call<'_>) -> bool + Send + Sync + 'static,
) -> Arc<AtomicBool> {
    let dead = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&dead);
    disk.set_hook(Some(Arc::new(move |call: &Call<'_>| {
        if when(call) {
            dead.store(true, Ordering::SeqCst);
        }
        match dead.load(Ordering::SeqCst) {
            true => Answer::Fail(Errno::IO),
            false => Answer::Go,
        }
    })));
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_is_over_while_the_old_files_are_removed() {
    let nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", &[1, 2, 3], &[]).await;
    fill(&nodes, &topic, 0, 11).await;
    let (leader, broker) = nodes.leader("orders", 0).await;
    let gate = Gate::default();
    gate.shut(&nodes.disks[&leader]);
    flip(&nodes.disks[&leader], &topic, 4);
    all_there(&nodes, &topic, 11).await;
    until("the old files are removed", || gate.waiting() == 1).await;
    until("it is known to be done", || {
        metric(&broker, "varve_partition_repairs_in_progress 0")
    })
    .await;
    whole(&nodes, &topic, 11).await;
    // That node goes on doing what the metadata say.
    let other = create(&nodes, "other", &[1, 2, 3], &[]).await;
    append(&nodes, &other, 0).await;
    nodes.in_sync("other", 0, 3).await;
    gate.open();
    until("nothing is left", || {
        let topics = nodes.disks[&leader].list(Path::new("/data/topics"));
        topics
            .unwrap()
            .iter()
            .all(|e| !e.name.ends_with(".deleted"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_a_repair_costs_nothing() {
    type When = fn(&Call<'_>) -> bool;
    let steps: [(&str, When); 6] = [
        ("before the directory is renamed", |c| {
            c.op == Op::Rename && c.path.ends_with("0") && in_topic(c.path)
        }),
        ("before the rename is durable", |c| {
            c.op == Op::SyncDir && in_topic(&c.path.join("0"))
        }),
        ("before the new directory is made", |c| {
            c.op == Op::Create && c.path.ends_with("0") && in_topic(c.path)
        }),
        ("before a segment is begun", |c| {
            c.op == Op::Create
                && c.path.extension().is_some_and(|e| e == "log")
                && in_orders(c.path)
        }),
        ("before the old one is taken out of its place", |c| {
            c.op == Op::Rename && c.path.to_string_lossy().ends_with("0.replaced")
        }),
        ("before the old one is removed", |c| {
            c.op == Op::Remove && c.path.extension().is_some_and(|e| e == "deleted")
        }),
    ];
    for (what, when) in steps {
        let mut nodes = Nodes::with(3, ALWAYS, Duration::from_millis(300)).await;
        nodes.shared.lead(NodeId(3));
        let topic = create(&nodes, "orders", &[1, 2, 3], &[]).await;
        fill(&nodes, &topic, 0, 11).await;
        let (leader, _) = nodes.leader("orders", 0).await;
        if leader == NodeId(3) {
            nodes.shared.lead(NodeId(2));
        }
        flip(&nodes.disks[&leader], &topic, 4);
        let dead = dies_at(&nodes.disks[&leader], when);
        all_there(&nodes, &topic, 11).await;
        until(what, || dead.load(Ordering::SeqCst)).await;
        let disk = nodes.kill(leader).await;
        fill(&nodes, &topic, 11, 14).await;
        nodes.restart(leader, disk).await;
        nodes.in_sync("orders", 0, 3).await;
        fill(&nodes, &topic, 14, 16).await;
        // Where nothing had happened to its files yet, the scrub meets the damage once more.
        whole(&nodes, &topic, 16).await;
    }
}

fn in_topic(path: &Path) -> bool {
    let parent = path.parent().and_then(Path::file_name);
    parent.is_some_and(|n| n.to_string_lossy().starts_with("orders-"))
}

fn in_orders(path: &Path) -> bool {
    path.to_string_lossy().contains("/orders-")
}
