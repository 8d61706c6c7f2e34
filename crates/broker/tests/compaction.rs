//! Compaction while the broker serves: appends and reads go on, committed offsets survive it, and nobody is in
//! its way when it has to stop.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::{batch, create_with, fetch_one, metric, produce, until, watched};
use varve_broker::Broker;
use varve_broker_api::{Broker as _, CommitOffsets, Context, GetOffsets, OffsetCommit};
use varve_record::{Batch, BatchBuilder, Compression, iter_batches};
use varve_types::{ErrorKind, Offset, PartitionId, TopicName, TopicPartition};
use varve_vfs::mem::MemVfs;

const COMPACT: &[(&str, &str)] = &[("cleanup.policy", "compact"), ("segment.bytes", "4096")];

fn keyed(key: &str, value: Option<&str>) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, None);
    let now = varve_vfs::Clock::wall_ms(&varve_vfs::SystemClock::new());
    let value = value.map(str::as_bytes);
    builder
        .append(now, Some(key.as_bytes()), value, &[])
        .unwrap();
    builder.build_batch().unwrap()
}

async fn fill(broker: &Broker, topic: &TopicName, from: usize, to: usize) {
    for i in from..to {
        let (key, value) = (format!("k{}", i % 5), format!("{i} {}", "v".repeat(500)));
        produce(broker, topic, 0, keyed(&key, Some(&value)))
            .await
            .unwrap();
    }
}

/// All records that can be read, as key and beginning of the value, by offset.
async fn scan(broker: &Broker, topic: &TopicName) -> BTreeMap<i64, (String, String)> {
    let (mut offset, mut found) = (0, BTreeMap::new());
    loop {
        let fetched = fetch_one(broker, topic, 0, offset).await.unwrap();
        for batch in iter_batches(fetched.batches) {
            for record in batch.unwrap().records().unwrap() {
                let record = record.unwrap();
                let text = |b: Option<bytes::Bytes>| {
                    String::from_utf8(b.unwrap_or_default().to_vec()).unwrap()
                };
                let value = text(record.value);
                let head = value.split(' ').next().unwrap_or_default().to_owned();
                found.insert(record.offset.get(), (text(record.key), head));
            }
        }
        if fetched.next_offset >= fetched.high_watermark {
            return found;
        }
        assert!(
            fetched.next_offset.get() > offset,
            "a reader gets past every gap: at {offset}, stable below {}, high watermark {}",
            fetched.last_stable,
            fetched.high_watermark
        );
        offset = fetched.next_offset.get();
    }
}

fn size(broker: &Broker, topic: &TopicName) -> u64 {
    let info = broker.partitions(&Context::anonymous(), topic).unwrap();
    info.iter().map(|p| p.size_bytes).sum()
}

const RUNS: &str = "varve_compaction_runs_total{result=\"ok\"}";

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_value_of_each_key_stays_and_restarts_change_nothing() {
    let disk = Arc::new(MemVfs::new());
    let (broker, watch, _) = watched(&disk).await;
    let topic = create_with(&broker, "state", COMPACT).await;
    fill(&broker, &topic, 0, 100).await;
    until("compaction", || size(&broker, &topic) < 16_000).await;
    let found = scan(&broker, &topic).await;
    let newest: BTreeMap<_, _> = found.values().cloned().collect();
    for i in 95..100 {
        assert_eq!(newest[&format!("k{}", i % 5)], i.to_string());
        assert!(found.contains_key(&i), "at its own offset");
    }
    assert_eq!(watch.syncs_of("varve-lane"), 0, "a lane waited for a sync");
    // A run is counted when it is over, a moment after the last of what it did.
    until("a run is over", || metric(&broker, RUNS) >= 1.0).await;
    assert!(metric(&broker, "varve_compaction_removed_records_total") >= 60.0);
    until("the cleaner rests", || watch.waiting() == 0).await;
    assert!(broker.shutdown().await);
    let (broker, _, _) = watched(&disk).await;
    let again: BTreeMap<_, _> = scan(&broker, &topic).await.values().cloned().collect();
    assert_eq!(again, newest);
    disk.crash_losing_unsynced();
    let left = Arc::new(disk.image());
    broker.shutdown().await;
    let (broker, _, _) = watched(&left).await;
    let again: BTreeMap<_, _> = scan(&broker, &topic).await.values().cloned().collect();
    assert_eq!(again, newest);
    fill(&broker, &topic, 100, 101).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_and_reads_go_on_while_a_compaction_stalls_and_a_stop_does_not_wait_for_it() {
    let disk = Arc::new(MemVfs::new());
    let (broker, watch, _) = watched(&disk).await;
    watch.hold(Some("varve-cleaner"));
    let topic = create_with(&broker, "state", COMPACT).await;
    let gone = create_with(&broker, "gone", COMPACT).await;
    fill(&broker, &topic, 0, 40).await;
    fill(&broker, &gone, 0, 40).await;
    until("the cleaner hangs", || watch.waiting() > 0).await;
    fill(&broker, &topic, 40, 60).await;
    assert_eq!(
        scan(&broker, &topic).await.len(),
        60,
        "nothing is installed yet"
    );
    let ctx = Context::anonymous();
    broker.delete_topic(&ctx, &gone, None).await.unwrap();
    let stopping = tokio::spawn({
        let broker = broker.clone();
        async move { broker.shutdown().await }
    });
    watch.hold(None);
    assert!(stopping.await.unwrap(), "everything is safely on disk");
    let (broker, _, _) = watched(&disk).await;
    let newest: BTreeMap<_, _> = scan(&broker, &topic).await.values().cloned().collect();
    assert_eq!(newest["k4"], "59");
    assert!(broker.topic(&ctx, &gone).is_err());
    fill(&broker, &topic, 60, 61).await;
}

/// A read whose segment is replaced meanwhile is made again from the new one: no reader is told to try again.
#[tokio::test(flavor = "multi_thread")]
async fn readers_notice_nothing_of_segments_that_are_replaced() {
    let disk = Arc::new(MemVfs::new());
    let (broker, _, _) = watched(&disk).await;
    let topic = create_with(&broker, "state", COMPACT).await;
    let runs = || metric(&broker, RUNS);
    for round in 0..8 {
        let before = runs();
        fill(&broker, &topic, round * 40, round * 40 + 40).await;
        let mut scans = 0;
        while runs() <= before || scans == 0 {
            scan(&broker, &topic).await;
            scans += 1;
        }
    }
    let newest: BTreeMap<_, _> = scan(&broker, &topic).await.values().cloned().collect();
    assert_eq!(newest["k4"], "319");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_compaction_and_nothing_else() {
    let disk = Arc::new(MemVfs::new());
    let (broker, watch, faults) = watched(&disk).await;
    watch.hold(Some("varve-cleaner"));
    let topic = create_with(&broker, "state", COMPACT).await;
    fill(&broker, &topic, 0, 60).await;
    until("the cleaner hangs", || watch.waiting() > 0).await;
    faults.set_budget(Some(0));
    watch.hold(None);
    let failed = "varve_compaction_runs_total{result=\"failed\"}";
    until("it failed", || metric(&broker, failed) >= 1.0).await;
    assert_eq!(
        scan(&broker, &topic).await.len(),
        60,
        "the old segments are there"
    );
    faults.heal();
    until("compaction", || size(&broker, &topic) < 16_000).await;
    fill(&broker, &topic, 60, 61).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_key_are_refused() {
    let disk = Arc::new(MemVfs::new());
    let (broker, _, _) = watched(&disk).await;
    let topic = create_with(&broker, "state", COMPACT).await;
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.append(0, None, Some(b"v"), &[]).unwrap();
    let error = produce(&broker, &topic, 0, builder.build_batch().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidRecord);
    produce(&broker, &topic, 0, batch(&["keyed"]))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_survive_compaction_and_deleted_ones_do_not_come_back() {
    let disk = Arc::new(MemVfs::new());
    let (broker, _, _) = watched(&disk).await;
    let ctx = Context::anonymous();
    let orders = create_with(&broker, "orders", &[]).await;
    for _ in 0..8 {
        produce(&broker, &orders, 0, batch(&["a", "b", "c", "d", "e"]))
            .await
            .unwrap();
    }
    let partition = TopicPartition::new(orders.clone(), PartitionId(0));
    let commit = |group: &str, at: i64| CommitOffsets {
        group: group.parse().unwrap(),
        member: None,
        member_epoch: 0,
        offsets: vec![OffsetCommit {
            partition: partition.clone(),
            offset: Offset::new(at).unwrap(),
            leader_epoch: None,
            metadata: "m".repeat(200),
        }],
    };
    let groups = ["a", "b", "c", "d", "e", "f"];
    broker.commit_offsets(&ctx, commit("a", 0)).await.unwrap();
    let internal: TopicName = "__consumer_offsets".parse().unwrap();
    for at in 0..40 {
        for group in groups {
            let done = broker
                .commit_offsets(&ctx, commit(group, at))
                .await
                .unwrap();
            assert!(done[0].is_ok());
        }
    }
    let group = "f".parse().unwrap();
    let partitions = vec![partition.clone()];
    let deleted = broker.delete_offsets(&ctx, &group, partitions).await;
    assert!(deleted.unwrap()[0].is_ok());
    // Enough for the segment with the tombstone to be rolled.
    for _ in 0..20 {
        for group in &groups[..5] {
            broker
                .commit_offsets(&ctx, commit(group, 40))
                .await
                .unwrap();
        }
    }
    until("compaction", || size(&broker, &internal) < 30_000).await;
    assert!(broker.shutdown().await);
    let (broker, _, _) = watched(&disk).await;
    for (i, group) in groups.iter().enumerate() {
        let get = GetOffsets {
            require_stable: false,
            group: group.parse().unwrap(),
            partitions: vec![],
            include_lag: false,
        };
        let found = broker.committed_offsets(&ctx, get).await.unwrap();
        let offsets: Vec<i64> = found.iter().map(|f| f.offset.get()).collect();
        assert_eq!(offsets, vec![40; usize::from(i < 5)], "group {group}");
    }
}
