//! Retention and trims while the broker serves: no lane ever waits for a sync of theirs, nothing is answered
//! before it is durable, and a full disk only delays them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use crate::support::{batch, create_with, produce, until, watched};
use varve_broker::Broker;
use varve_broker_api::{Before, Broker as _, Context, DeleteBefore};
use varve_types::{ErrorKind, Offset, PartitionId, TopicName, TopicPartition};
use varve_vfs::mem::MemVfs;

const SMALL: &[(&str, &str)] = &[("segment.bytes", "4096"), ("retention.bytes", "8192")];
const KEEP: &[(&str, &str)] = &[("segment.bytes", "4096")];

async fn fill(broker: &Broker, topic: &TopicName, count: usize) {
    let value = "v".repeat(900);
    for _ in 0..count {
        produce(broker, topic, 0, batch(&[&value])).await.unwrap();
    }
}

fn log_start(broker: &Broker, topic: &TopicName) -> i64 {
    let info = broker.partitions(&Context::anonymous(), topic).unwrap();
    info[0].log_start.get()
}

fn delete_before(topic: &TopicName, offset: i64) -> Vec<DeleteBefore> {
    vec![DeleteBefore {
        partition: TopicPartition::new(topic.clone(), PartitionId(0)),
        before: Before::Offset(Offset::new(offset).unwrap()),
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_removes_segments_and_no_lane_syncs() {
    let disk = Arc::new(MemVfs::new());
    let (broker, watch, _) = watched(&disk).await;
    let topic = create_with(&broker, "orders", SMALL).await;
    fill(&broker, &topic, 40).await;
    until("retention", || log_start(&broker, &topic) >= 24).await;
    assert_eq!(watch.syncs_of("varve-lane"), 0, "a lane waited for a sync");
    assert!(
        watch.syncs_of("varve-change") >= 2,
        "the manifest was synced"
    );
    let start = log_start(&broker, &topic);
    let info = broker.partitions(&Context::anonymous(), &topic).unwrap();
    assert!(
        info[0].size_bytes >= 8192,
        "never less than the policy keeps"
    );
    assert!(broker.shutdown().await);
    let (broker, _, _) = watched(&disk).await;
    assert!(
        log_start(&broker, &topic) >= start,
        "the log start never goes back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trim_is_answered_once_it_is_durable_and_appends_go_on_meanwhile() {
    let disk = Arc::new(MemVfs::new());
    let (broker, watch, _) = watched(&disk).await;
    let topic = create_with(&broker, "orders", KEEP).await;
    fill(&broker, &topic, 18).await;
    watch.hold(Some("varve-change"));
    let (asker, asked) = (broker.clone(), delete_before(&topic, 10));
    let answer = tokio::spawn(async move {
        let ctx = Context::anonymous();
        asker.delete_records(&ctx, asked).await.remove(0)
    });
    until("the manifest is being written", || watch.waiting() > 0).await;
    // Not enough for another segment, whose manifest would have to wait its turn.
    fill(&broker, &topic, 1).await;
    assert_eq!(
        log_start(&broker, &topic),
        0,
        "nobody sees it before it is durable"
    );
    assert!(!answer.is_finished());
    watch.hold(None);
    assert_eq!(answer.await.unwrap().unwrap(), Offset::new(10).unwrap());
    assert_eq!(log_start(&broker, &topic), 10);
    disk.crash_losing_unsynced();
    let left = Arc::new(disk.image());
    broker.shutdown().await;
    let (broker, _, _) = watched(&left).await;
    assert_eq!(log_start(&broker, &topic), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_delays_a_trim_and_loses_nothing() {
    let disk = Arc::new(MemVfs::new());
    let (broker, _, faults) = watched(&disk).await;
    let topic = create_with(&broker, "orders", KEEP).await;
    fill(&broker, &topic, 20).await;
    faults.set_budget(Some(0));
    let ctx = Context::anonymous();
    let refused = broker.delete_records(&ctx, delete_before(&topic, 10)).await;
    let error = refused[0].as_ref().unwrap_err();
    assert_eq!(error.kind, ErrorKind::StorageFull, "{}", error.message);
    assert_eq!(log_start(&broker, &topic), 0);
    faults.heal();
    until("the trim is made up for", || {
        log_start(&broker, &topic) == 10
    })
    .await;
    fill(&broker, &topic, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_deleted_and_a_broker_stopped_with_a_trim_under_way() {
    let disk = Arc::new(MemVfs::new());
    let (broker, watch, _) = watched(&disk).await;
    let gone = create_with(&broker, "gone", KEEP).await;
    let kept = create_with(&broker, "kept", KEEP).await;
    fill(&broker, &gone, 10).await;
    fill(&broker, &kept, 10).await;
    watch.hold(Some("varve-change"));
    let mut answers = Vec::new();
    for topic in [&gone, &kept] {
        let (asker, asked) = (broker.clone(), delete_before(topic, 6));
        answers.push(tokio::spawn(async move {
            let ctx = Context::anonymous();
            asker.delete_records(&ctx, asked).await.remove(0)
        }));
    }
    until("a manifest is being written", || watch.waiting() > 0).await;
    let ctx = Context::anonymous();
    broker.delete_topic(&ctx, &gone, None).await.unwrap();
    let stopping = tokio::spawn({
        let broker = broker.clone();
        async move { broker.shutdown().await }
    });
    watch.hold(None);
    assert!(stopping.await.unwrap(), "everything is safely on disk");
    let _ = answers.remove(0).await.unwrap();
    let answered = answers.remove(0).await.unwrap();
    let (broker, _, _) = watched(&disk).await;
    let start = log_start(&broker, &kept);
    match answered {
        Ok(offset) => assert_eq!(start, offset.get()),
        Err(_) => assert!(start == 0 || start == 6),
    }
    fill(&broker, &kept, 1).await;
}
