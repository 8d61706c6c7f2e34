//! Several brokers, one log service: what is acknowledged survives the death of its leader, nothing is
//! acknowledged by a leader that is alone, and who comes back gets in line.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::Duration;

use crate::support::cluster::{Nodes, SESSION};
use crate::support::{batch, fetch_one, idempotent_batch, new_topic, produce, read_all, until};
use futures_util::FutureExt as _;
use futures_util::future::select_all;
use rustix::io::Errno;
use varve_broker::Broker;
use varve_broker_api::{
    Appended, Broker as _, Context, Error, Fetch, FetchPartition, Fetched, InitProducer, Isolation,
    OffsetQuery, Operations as _, Position, Produce,
};
use varve_types::{
    Acks, ErrorKind, NodeId, Offset, PartitionId, Sequence, TopicName, TopicPartition,
};
use varve_vfs::fault::Op;

/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// More bytes than anything here has in flight.
const IN_FLIGHT: usize = 8 << 20;

async fn create(nodes: &Nodes, name: &str, partitions: i32, configs: &[(&str, &str)]) -> TopicName {
    let mut request = new_topic(name, partitions);
    request.replication_factor = Some(3);
    let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    request.configs = configs.iter().map(pair).collect();
    let broker = &nodes.brokers[&NodeId(1)];
    let created = broker.create_topic(&Context::anonymous(), request).await;
    created.unwrap().name
}

/// Produces to whoever leads, again and again until it is acknowledged; it is there once all the same.
async fn append(nodes: &Nodes, topic: &TopicName, partition: i32, value: &str) -> Appended {
    let (mut last, mut session) = (None, None);
    for _ in 0..200 {
        let (_, broker) = nodes.leader(topic.as_str(), partition).await;
        let anonymous = InitProducer { name: None };
        if session.is_none() {
            let opened = broker.init_producer(&Context::anonymous(), anonymous).await;
            session = opened.ok().map(|opened| opened.producer);
        }
        if let Some(session) = session {
            let batch = idempotent_batch(session, Sequence::ZERO, &[value]);
            match produce(&broker, topic, partition, batch).await {
                Ok(appended) => return appended,
                Err(error) => last = Some(error),
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{value} is never acknowledged: {last:?}");
}

/// Everything committed, from whoever leads, once it is at least `count` records.
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

#[tokio::test(flavor = "multi_thread")]
async fn records_are_on_every_replica_before_they_are_acknowledged() {
    // On a busy machine a replica may be late: it is to be waited for, and not to be given up.
    let nodes = Nodes::patient(3, IN_FLIGHT).await;
    let topic = create(&nodes, "orders", 3, &[]).await;
    for partition in 0..3 {
        for n in 0..20 {
            let appended = append(&nodes, &topic, partition, &format!("{partition}-{n}")).await;
            assert_eq!((appended.replicas, appended.flushed_replicas), (3, 3));
        }
    }
    for partition in 0..3 {
        let values = read(&nodes, &topic, partition, 20).await;
        let wanted: Vec<String> = (0..20).map(|n| format!("{partition}-{n}")).collect();
        assert_eq!(values, wanted);
    }
    let leaders: std::collections::BTreeSet<_> = (0..3)
        .map(|p| nodes.partition("orders", p).leader)
        .collect();
    assert_eq!(leaders.len(), 3, "leaders are spread");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_says_who_leads() {
    // None of them is given up meanwhile: who leads stays who leads.
    let nodes = Nodes::patient(3, IN_FLIGHT).await;
    let topic = create(&nodes, "orders", 1, &[]).await;
    let (leader, _) = nodes.leader("orders", 0).await;
    append(&nodes, &topic, 0, "a").await;
    for (node, broker) in nodes.brokers.iter().filter(|(n, _)| **n != leader) {
        let refused: Error = produce(broker, &topic, 0, batch(&["b"])).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::NotLeader, "node {node}");
        let hint = refused.leader.unwrap();
        assert_eq!(
            (hint.node, hint.address),
            (leader, format!("node-{leader}:1"))
        );
        let refused = fetch_one(broker, &topic, 0, 0).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::NotLeader);
    }
    assert_eq!(read(&nodes, &topic, 0, 1).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_death_of_its_leader() {
    let mut nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", 1, &[("min.insync.replicas", "2")]).await;
    let mut wanted = Vec::new();
    for n in 0..30 {
        let value = format!("before-{n}");
        append(&nodes, &topic, 0, &value).await;
        wanted.push(value);
    }
    let (dead, _) = nodes.leader("orders", 0).await;
    if dead == NodeId(1) {
        nodes.shared.lead(NodeId(2));
    }
    let disk = nodes.kill(dead).await;
    let died = std::time::Instant::now();
    for n in 0..30 {
        let value = format!("after-{n}");
        append(&nodes, &topic, 0, &value).await;
        wanted.push(value);
        if n == 0 {
            let took = died.elapsed();
            assert!(took < Duration::from_secs(20), "failover took {took:?}");
        }
    }
    assert_eq!(read(&nodes, &topic, 0, 60).await, wanted);
    nodes.restart(dead, disk).await;
    nodes.in_sync("orders", 0, 3).await;
    append(&nodes, &topic, 0, "healed").await;
    wanted.push("healed".to_owned());
    // The node that was away has all of it: it leads again, as the preferred replica or after the others.
    crate::support::until("every replica has the end", || {
        nodes.brokers.values().all(|b| {
            let info = b.partitions(&Context::anonymous(), &topic).unwrap();
            // An append of unknown outcome is repeated, so that one record may be there twice.
            info[0].high_watermark.get() >= 61
        })
    })
    .await;
    assert_eq!(read(&nodes, &topic, 0, 61).await, wanted);
}

/// From now on every sync fails on the disk of whoever leads: the node whose broker says that it is to end for it, and
/// why. Another may begin to lead meanwhile, so that each turn asks who does; the disk of one that does not works
/// again.
async fn sync_fails_where_it_is_led(nodes: &Nodes, topic: &TopicName) -> (NodeId, String) {
    let (begun, mut armed) = (std::time::Instant::now(), None);
    loop {
        let took = begun.elapsed();
        assert!(took < PATIENCE, "{armed:?} goes on after {took:?}");
        let (leader, broker) = nodes.leader(topic.as_str(), 0).await;
        if armed != Some(leader) {
            nodes.faults.values().for_each(|faults| faults.heal());
            nodes.faults[&leader].fail_after(Op::Sync, 1, Errno::IO);
            armed = Some(leader);
        }
        // As if nobody waited for other replicas: they may be gone.
        let request = Produce {
            transaction_version: Default::default(),
            transactional_id: None,
            topic: topic.clone(),
            partition: PartitionId(0),
            acks: Acks::Leader,
            batch: batch(&["unknown"]),
            expected_offset: None,
        };
        if let Ok(receipt) = broker.produce(&Context::anonymous(), request).await {
            let _ = tokio::time::timeout(SESSION, receipt).await;
        }
        // One that has just ceased to lead may have met its fault too.
        let told = nodes.brokers.iter();
        let told = told.map(|(node, broker)| Box::pin(broker.failed().map(|why| (*node, why))));
        if let Ok((found, ..)) = tokio::time::timeout(SESSION, select_all(told)).await {
            return found;
        }
    }
}

/// Between the failure of its disk and its end a node that led says nothing of what comes after its own log: a reader
/// that was at the next leader meanwhile would take that for a log that was cut, or begin anew elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_failed_does_not_say_where_the_log_ends() {
    let nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", 1, &[]).await;
    append(&nodes, &topic, 0, "a").await;
    let (failed, _) = sync_fails_where_it_is_led(&nodes, &topic).await;
    // It is about to end, and the others take it for gone.
    nodes.net.cut(failed);
    let other = nodes.brokers.keys().find(|node| **node != failed);
    nodes.shared.lead(*other.unwrap());
    let is_led = || {
        nodes
            .partition("orders", 0)
            .leader
            .is_some_and(|node| node != failed)
    };
    until("another node leads", is_led).await;
    for value in ["b", "c", "d"] {
        append(&nodes, &topic, 0, value).await;
    }
    let (_, next) = nodes.leader("orders", 0).await;
    let (ctx, place) = (
        Context::anonymous(),
        TopicPartition::new(topic.clone(), PartitionId(0)),
    );
    let led = nodes.partition("orders", 0).leader_epoch;
    let end = next.epoch_end(&ctx, &place, led, Some(led)).unwrap();
    let end = end.unwrap().end;
    let old = &nodes.brokers[&failed];
    let told = old.epoch_end(&ctx, &place, led, None).map_err(|e| e.kind);
    assert_eq!(told, Err(ErrorKind::LeaderNotAvailable));
    let read = fetch_one(old, &topic, 0, end.get()).await;
    assert_eq!(
        read.map_err(|e| e.kind).err(),
        Some(ErrorKind::LeaderNotAvailable)
    );
    let latest = OffsetQuery {
        partition: place,
        position: Some(Position::Latest),
        isolation: Isolation::Uncommitted,
        with_time: false,
    };
    let found = old.list_offsets(&ctx, vec![latest]).await.remove(0);
    assert_eq!(found.map_err(|e| e.kind), Err(ErrorKind::NotLeader));
}

/// One leader after the other has a disk that fails, and its process ends for that, as a server does. Each of them has
/// what was acknowledged while it was in sync: somebody leads again as soon as they run.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_on_every_replica_costs_neither_records_nor_the_leader() {
    let mut nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", 1, &[("min.insync.replicas", "2")]).await;
    append(&nodes, &topic, 0, "a").await;
    let mut left = Vec::new();
    while let Some(other) = nodes.brokers.keys().copied().next() {
        let (failing, why) = sync_fails_where_it_is_led(&nodes, &topic).await;
        let sync = why.starts_with("the log of orders:0 failed") && why.contains("cannot sync");
        assert!(sync, "{why}");
        let alive = nodes.brokers.keys().find(|n| **n != failing).copied();
        nodes.shared.lead(alive.unwrap_or(other));
        left.push((failing, nodes.kill(failing).await));
    }
    assert_eq!(left.len(), 3, "the disk of each has failed");
    nodes.shared.lead(left[0].0);
    for (node, disk) in left {
        nodes.restart(node, disk).await;
    }
    nodes.in_sync("orders", 0, 3).await;
    append(&nodes, &topic, 0, "b").await;
    let mut read = read(&nodes, &topic, 0, 2).await;
    read.retain(|value| value != "unknown");
    assert_eq!(read, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_alone_acknowledges_nothing_and_what_it_had_is_cut() {
    let nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", 1, &[("min.insync.replicas", "2")]).await;
    append(&nodes, &topic, 0, "a").await;
    let (old, broker) = nodes.leader("orders", 0).await;
    let controller = (1..=3).map(NodeId).find(|n| *n != old).unwrap();
    nodes.shared.lead(controller);
    nodes.net.cut(old);
    let lost = tokio::spawn({
        let (broker, topic) = (broker.clone(), topic.clone());
        async move { produce(&broker, &topic, 0, batch(&["never", "this"])).await }
    });
    crate::support::until("another leader", || {
        nodes
            .partition("orders", 0)
            .leader
            .is_some_and(|l| l != old)
    })
    .await;
    append(&nodes, &topic, 0, "b").await;
    nodes.net.heal();
    let answer = lost.await.unwrap();
    let kind = answer.unwrap_err().kind;
    assert!(
        matches!(
            kind,
            ErrorKind::CommitTimeout | ErrorKind::NotEnoughReplicas
        ),
        "{kind:?}"
    );
    nodes.in_sync("orders", 0, 3).await;
    append(&nodes, &topic, 0, "c").await;
    assert_eq!(read(&nodes, &topic, 0, 3).await, ["a", "b", "c"]);
    crate::support::until("the old leader has the same log", || {
        let info = broker.partitions(&Context::anonymous(), &topic).unwrap();
        info[0].log_end.get() == 3 && info[0].high_watermark.get() == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_of_three_nodes_down_writes_are_refused_and_reads_go_on() {
    let mut nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", 1, &[("min.insync.replicas", "2")]).await;
    append(&nodes, &topic, 0, "a").await;
    let (leader, broker) = nodes.leader("orders", 0).await;
    nodes.shared.lead(leader);
    let others: Vec<NodeId> = nodes
        .brokers
        .keys()
        .copied()
        .filter(|n| *n != leader)
        .collect();
    for other in others {
        nodes.kill(other).await;
    }
    nodes.in_sync("orders", 0, 1).await;
    let mut refused = None;
    for _ in 0..100 {
        // What is taken before the leader hears of the others waits for them, longer than a test does.
        let asked = tokio::spawn({
            let (broker, topic) = (broker.clone(), topic.clone());
            async move { produce(&broker, &topic, 0, batch(&["b"])).await }
        });
        let answer = tokio::time::timeout(Duration::from_secs(1), asked).await;
        let Ok(Ok(Err(error))) = answer else {
            continue;
        };
        if error.kind == ErrorKind::NotEnoughReplicas {
            refused = Some(error);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = refused.unwrap();
    assert!(
        refused.message.contains("nothing was appended"),
        "{refused}"
    );
    let before = broker.partitions(&Context::anonymous(), &topic).unwrap()[0].log_end;
    let _ = produce(&broker, &topic, 0, batch(&["c"]))
        .await
        .unwrap_err();
    let after = broker.partitions(&Context::anonymous(), &topic).unwrap()[0].log_end;
    assert_eq!(before, after, "nothing was appended");
    assert_eq!(read_all(&broker, &topic, 0).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_moves_leaderships_first() {
    let mut nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", 6, &[]).await;
    for partition in 0..6 {
        append(&nodes, &topic, partition, "a").await;
    }
    nodes.shared.lead(NodeId(1));
    let leaving = NodeId(2);
    let broker = nodes.brokers.remove(&leaving).unwrap();
    assert!(broker.shutdown().await, "everything is on disk");
    for partition in 0..6 {
        let leader = nodes.partition("orders", partition).leader;
        assert!(
            leader.is_some_and(|l| l != leaving),
            "{partition}: {leader:?}"
        );
        append(&nodes, &topic, partition, "b").await;
    }
    let disk = nodes.disks[&leaving].clone();
    nodes.start(leaving, disk, true).await;
    nodes.active(3).await;
    for partition in 0..6 {
        nodes.in_sync("orders", partition, 3).await;
        assert_eq!(read(&nodes, &topic, partition, 2).await, ["a", "b"]);
    }
}

/// It waits for a controller only as long as that one would wait for it: less than the time for a drain.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_stops_once_its_session_is_over() {
    let nodes = Nodes::new(3).await;
    let cut = NodeId(2);
    nodes.shared.lead(NodeId(1));
    nodes.net.cut(cut);
    let leaving = nodes.brokers[&cut].leave();
    let left = tokio::time::timeout(Duration::from_secs(8), leaving).await;
    assert!(
        left.is_ok(),
        "it waits for a controller that it cannot hear"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_gone_from_every_disk_also_from_one_that_was_away() {
    let mut nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", 2, &[]).await;
    append(&nodes, &topic, 0, "a").await;
    let disk = nodes.kill(NodeId(3)).await;
    nodes.active(2).await;
    let broker = nodes.brokers[&NodeId(1)].clone();
    broker
        .delete_topic(&Context::anonymous(), &topic, None)
        .await
        .unwrap();
    nodes.restart(NodeId(3), disk).await;
    let empty = |disk: &varve_vfs::mem::MemVfs| {
        use varve_vfs::Vfs as _;
        let listed = disk.list(std::path::Path::new("/data/topics"));
        listed.is_ok_and(|l| l.is_empty())
    };
    crate::support::until("the files are gone", || {
        nodes.disks.values().all(|d| empty(d))
    })
    .await;
    let missing = broker
        .partitions(&Context::anonymous(), &topic)
        .unwrap_err();
    assert_eq!(missing.kind, ErrorKind::TopicNotFound);
}

/// What a reader in a rack gets of partition 0 from an offset on: the records, and the high watermark.
async fn fetch_in(
    broker: &Broker,
    topic: &TopicName,
    rack: &str,
    offset: i64,
) -> Result<Fetched, Error> {
    let ctx = Context {
        rack: rack.into(),
        ..Context::anonymous()
    };
    let wanted = FetchPartition {
        topic: topic.clone(),
        partition: PartitionId(0),
        offset: Offset::new(offset).unwrap(),
        max_bytes: 1 << 20,
        leader_epoch: None,
    };
    let fetch = Fetch {
        raw: false,
        isolation: varve_broker_api::Isolation::default(),
        partitions: vec![wanted],
        max_wait: Duration::ZERO,
        min_bytes: 1,
        max_bytes: 1 << 20,
    };
    let found = broker.fetch(&ctx, fetch).await.unwrap();
    found.into_iter().next().unwrap().result
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_the_readers_rack_answers_while_it_is_in_sync() {
    let nodes = Nodes::new(3).await;
    let topic = create(&nodes, "orders", 1, &[]).await;
    for value in ["a", "b", "c"] {
        append(&nodes, &topic, 0, value).await;
    }
    nodes.in_sync("orders", 0, 3).await;
    let (leader, at_leader) = nodes.leader("orders", 0).await;
    let whole = fetch_in(&at_leader, &topic, "", 0).await.unwrap();
    let copies = nodes.brokers.iter().filter(|(node, _)| **node != leader);
    let copies: Vec<_> = copies.collect();
    for (node, broker) in &copies {
        let rack = format!("rack-{node}");
        crate::support::until("the copy knows what is committed", || {
            let info = broker.partitions(&Context::anonymous(), &topic).unwrap();
            info[0].high_watermark.get() == 3
        })
        .await;
        let near = fetch_in(broker, &topic, &rack, 0).await.unwrap();
        assert_eq!(near.batches, whole.batches);
        assert_eq!((near.next_offset.get(), near.high_watermark.get()), (3, 3));
        let end = fetch_in(broker, &topic, &rack, 3).await.unwrap();
        assert!(end.batches.is_empty() && end.next_offset.get() == 3);
        // What it cannot have, and who is elsewhere, is sent to the leader.
        for (rack, offset) in [(rack.as_str(), 4), ("", 0), ("rack-9", 0)] {
            let refused = fetch_in(broker, &topic, rack, offset).await.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::NotLeader, "{rack} {offset}");
            assert_eq!(refused.leader.unwrap().node, leader);
        }
    }
    let (node, broker) = copies[0];
    nodes.net.cut(*node);
    append(&nodes, &topic, 0, "d").await;
    nodes.in_sync("orders", 0, 2).await;
    let rack = format!("rack-{node}");
    let refused = fetch_in(broker, &topic, &rack, 0).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NotLeader, "it is out of sync");
    nodes.net.heal();
    nodes.in_sync("orders", 0, 3).await;
    fetch_in(broker, &topic, &rack, 0).await.unwrap();
}

/// Appends a batch of a session at whoever leads; the answer says where, and whether it was there before.
async fn append_in_order(nodes: &Nodes, topic: &TopicName, sent: &varve_record::Batch) -> Appended {
    for _ in 0..200 {
        let (_, broker) = nodes.leader(topic.as_str(), 0).await;
        match produce(&broker, topic, 0, sent.clone()).await {
            Ok(appended) => return appended,
            Err(error) => assert!(
                matches!(
                    error.kind,
                    ErrorKind::NotLeader | ErrorKind::LeaderNotAvailable
                ),
                "{error}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a batch is never acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_hours_apart_break_nothing() {
    const HOUR: i64 = 3_600_000;
    let mut nodes = Nodes::with_clocks(&[-5 * HOUR, 0, 5 * HOUR]).await;
    let configs = [
        ("min.insync.replicas", "2"),
        ("segment.bytes", "4096"),
        // Longer than the clocks are apart: nothing is old by any of them.
        ("retention.ms", "39600000"),
        ("message.timestamp.type", "LogAppendTime"),
    ];
    let topic = create(&nodes, "orders", 1, &configs).await;
    nodes.in_sync("orders", 0, 3).await;
    let session = nodes.brokers[&NodeId(2)]
        .init_producer(&Context::anonymous(), InitProducer { name: None })
        .await
        .unwrap();
    let mut wanted = Vec::new();
    let padding = "x".repeat(1500);
    let mut sequence = Sequence::ZERO;
    for round in 0..2 {
        for leader in [1, 3, 2] {
            let to = Some(NodeId(leader));
            let at = TopicPartition::new(topic.clone(), PartitionId(0));
            let asked = &nodes.brokers[&NodeId(2)];
            let moved = asked
                .transfer_leadership(&Context::anonymous(), at, to)
                .await;
            if nodes.partition("orders", 0).leader != to {
                panic!("node {leader} does not lead: {moved:?}");
            }
            for n in 0..4 {
                let value = format!("{round}-{leader}-{n}-{padding}");
                let sent = idempotent_batch(session.producer, sequence, &[&value]);
                sequence = sequence.plus(1);
                let first = append_in_order(&nodes, &topic, &sent).await;
                // A leader that became one by another clock knows the session's batches all the same.
                let again = append_in_order(&nodes, &topic, &sent).await;
                assert_eq!(again.base_offset, first.base_offset);
                wanted.push(value);
            }
            nodes.in_sync("orders", 0, 3).await;
        }
    }
    // The node whose clock is ahead decides about metadata, and one dies.
    nodes.shared.lead(NodeId(3));
    let disk = nodes.kill(NodeId(1)).await;
    append(&nodes, &topic, 0, "without the one that is behind").await;
    wanted.push("without the one that is behind".to_owned());
    nodes.restart(NodeId(1), disk).await;
    nodes.in_sync("orders", 0, 3).await;
    // Retention has looked meanwhile, by every clock.
    for broker in nodes.brokers.values() {
        let info = broker.partitions(&Context::anonymous(), &topic).unwrap();
        assert_eq!(info[0].log_start, Offset::ZERO);
    }
    assert_eq!(read(&nodes, &topic, 0, wanted.len()).await, wanted);
}
