//! What a start has to read, and what a stop has to write.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{Fixture, batch, idempotent_batch, new_topic, produce, read_all};
use rustix::io::Errno;
use varve_broker_api::{Broker as _, Context, InitProducer};
use varve_types::Sequence;
use varve_vfs::fault::Op;
use varve_vfs::mem::{Answer, MemVfs};
use varve_vfs::{SystemClock, Vfs};

fn snapshots(disk: &dyn Vfs, dir: &Path) -> usize {
    let files = disk.list(dir).unwrap();
    files
        .iter()
        .filter(|f| f.name.ends_with(".snapshot"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_saved_while_a_log_grows_so_that_a_kill_costs_no_scan_of_all_of_it() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    let (ctx, init) = (Context::anonymous(), InitProducer { name: None });
    let session = f.broker.init_producer(&ctx, init).await.unwrap().producer;
    let dir = f.partition_dir("orders", 0);
    let large = "x".repeat(900 << 10);
    let seq = |n| Sequence::new(n).unwrap();
    for n in 0..11 {
        let one = idempotent_batch(session, seq(n), &[&large]);
        produce(&f.broker, &topic, 0, one).await.unwrap();
    }
    assert_eq!(snapshots(&*f.disk, &dir), 2, "one for each 4 MiB");

    // Killed: the disk as it is, page cache and all, under a new process.
    let f = f.kill_and_restart().await;
    assert_eq!(
        snapshots(&*f.disk, &f.partition_dir("orders", 0)),
        2,
        "they describe records that are there"
    );
    let again = idempotent_batch(session, seq(10), &[&large]);
    let again = produce(&f.broker, &topic, 0, again).await.unwrap();
    assert!(again.deduplicated, "the session goes on after its snapshot");
    let next = idempotent_batch(session, seq(11), &["y"]);
    let next = produce(&f.broker, &topic, 0, next).await.unwrap();
    assert!(!next.deduplicated);
    assert_eq!(read_all(&f.broker, &topic, 0).await.len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_syncs_what_was_written_and_leaves_the_rest_alone() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 40).await;
    for partition in 0..40 {
        let one = batch(&[&format!("in {partition}")]);
        produce(&f.broker, &topic, partition, one).await.unwrap();
    }
    assert!(f.broker.shutdown().await);

    let f = f.restart(true).await;
    produce(&f.broker, &topic, 7, batch(&["more"]))
        .await
        .unwrap();
    let before = f.faults.count(Op::Sync);
    assert!(f.broker.shutdown().await);
    let synced = f.faults.count(Op::Sync) - before;
    assert!(
        (1..10).contains(&synced),
        "{synced} syncs for one partition"
    );

    let disk = Arc::clone(&f.disk);
    disk.crash_losing_unsynced();
    let f = f.restart(true).await;
    for partition in 0..40 {
        let mut expected = vec![format!("in {partition}")];
        if partition == 7 {
            expected.push("more".to_owned());
        }
        assert_eq!(read_all(&f.broker, &topic, partition).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_that_asks_for_more_replicas_than_there_are_changes_no_other_config() {
    let f = Fixture::new().await;
    let mut request = new_topic("orders", 1);
    let small = ("segment.bytes".to_owned(), "4096".to_owned());
    request.configs.extend([small]);
    let ctx = Context::anonymous();
    let topic = f.broker.create_topic(&ctx, request).await.unwrap().name;
    f.broker.shutdown().await;

    let f = Fixture::with(f.disk, Arc::new(SystemClock::new()), |config| {
        let two = ("min.insync.replicas".to_owned(), "2".to_owned());
        config.topic_defaults.extend([two]);
    })
    .await;
    for _ in 0..4 {
        let large = batch(&[&"x".repeat(2_000)]);
        produce(&f.broker, &topic, 0, large).await.unwrap();
    }
    let files = f.disk.list(&f.partition_dir("orders", 0)).unwrap();
    let segments = files.iter().filter(|e| e.name.ends_with(".log")).count();
    assert!(segments > 1, "the topic's own segment.bytes holds");
}

/// The next `times` syncs of a segment fail.
fn fail_syncs(disk: &MemVfs, times: u32) -> Arc<AtomicU32> {
    let left = Arc::new(AtomicU32::new(times));
    let kept = Arc::clone(&left);
    disk.set_hook(Some(Arc::new(move |call| {
        let segment = call.path.extension().is_some_and(|e| e == "log");
        let fails = |left: u32| (call.op == Op::Sync && segment && left > 0).then(|| left - 1);
        match kept.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails) {
            Ok(_) => Answer::Fail(Errno::IO),
            Err(_) => Answer::Go,
        }
    })));
    left
}

/// What a recovery could not make durable the next attempt writes again: a power cut afterwards costs nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_once_while_a_log_is_opened_takes_no_partition_out_of_service() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    produce(&f.broker, &topic, 0, batch(&["a"])).await.unwrap();
    let left = Arc::new(f.disk.image());
    let failures = fail_syncs(&left, 1);
    f.broker.shutdown().await;
    let unclean = |_: &mut varve_broker::BrokerConfig| {};
    let clock = || Arc::new(SystemClock::new());
    let f = Fixture::with(left, clock(), unclean).await;
    assert_eq!(failures.load(Ordering::SeqCst), 0, "recovery syncs");
    assert!(f.broker.storage_health().is_good());
    produce(&f.broker, &topic, 0, batch(&["b"])).await.unwrap();
    let f = f.crash_and_restart().await;
    assert_eq!(read_all(&f.broker, &topic, 0).await, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_disk_goes_on_failing_is_offline_and_the_node_starts() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    produce(&f.broker, &topic, 0, batch(&["a"])).await.unwrap();
    let left = Arc::new(f.disk.image());
    fail_syncs(&left, u32::MAX);
    f.broker.shutdown().await;
    let unclean = |_: &mut varve_broker::BrokerConfig| {};
    let clock = || Arc::new(SystemClock::new());
    let f = Fixture::with(Arc::clone(&left), clock(), unclean).await;
    let offline = f.broker.storage_health().offline;
    assert!(offline[0].1.contains("cannot sync"), "{offline:?}");
    left.set_hook(None);
    let f = f.restart(false).await;
    assert_eq!(read_all(&f.broker, &topic, 0).await, ["a"]);
}
