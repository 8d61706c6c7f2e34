//! A node that makes small appends durable through its journal: what it acknowledged survives a power cut that
//! loses every segment file's unsynced bytes, a full journal delays nobody, a failed one acknowledges nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::path::Path;
use std::sync::Arc;

use crate::support::{Fixture, batch, produce, read_all};
use rustix::io::Errno;
use varve_broker::Broker;
use varve_types::TopicName;
use varve_vfs::fault::Op;
use varve_vfs::mem::MemVfs;
use varve_vfs::{SystemClock, Vfs};

const PARTITIONS: i32 = 8;

async fn with_journal(disk: Arc<MemVfs>, bytes: u64) -> Fixture {
    varve_vfs::durable::create_dir_all(&*disk, Path::new("/data")).unwrap();
    Fixture::with(disk, Arc::new(SystemClock::new()), |config| {
        config.journal_max_bytes = bytes;
    })
    .await
}

/// A counter as the metrics tell it.
fn counter(broker: &Broker, name: &str) -> u64 {
    let mut registry = prometheus_client::registry::Registry::with_prefix("varve");
    broker.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = text.lines().find(|l| l.starts_with(&format!("{name} ")));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// Rounds of one append to each partition, all partitions at once. Returns the values, by partition.
async fn write_rounds(
    f: &Fixture,
    topic: &TopicName,
    rounds: usize,
    size: usize,
) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new(); PARTITIONS as usize];
    for round in 0..rounds {
        let value = format!("{round}-{}", "v".repeat(size));
        let batches = (0..PARTITIONS).map(|p| produce(&f.broker, topic, p, batch(&[&value])));
        let answers = futures_util::future::join_all(batches).await;
        for (answer, values) in answers.into_iter().zip(&mut all) {
            answer.unwrap();
            values.push(value.clone());
        }
    }
    all
}

/// Writes until the journal is in use: its first file is made while others are flushed one by one.
async fn write_until_journaled(f: &Fixture, topic: &TopicName) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new(); PARTITIONS as usize];
    for _ in 0..10_000 {
        for (values, more) in all.iter_mut().zip(write_rounds(f, topic, 1, 10).await) {
            values.extend(more);
        }
        if counter(&f.broker, "varve_journal_groups_total") > 5 {
            return all;
        }
    }
    panic!("the journal is never used");
}

async fn assert_all_there(f: &Fixture, topic: &TopicName, expected: &[Vec<String>]) {
    for (p, values) in expected.iter().enumerate() {
        let found = read_all(&f.broker, topic, p as i32).await;
        assert_eq!(found.len(), values.len(), "partition {p}");
        assert!(found == *values, "partition {p} has other records");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_that_only_the_journal_has_survive_a_power_cut() {
    let f = with_journal(Arc::new(MemVfs::new()), 16 << 20).await;
    let topic = f.create("t", PARTITIONS).await;
    let written = write_until_journaled(&f, &topic).await;
    let disk = Arc::clone(&f.disk);
    disk.crash_losing_unsynced();
    let left = Arc::new(disk.image());
    // The old process is gone; what it still does in this test must not reach the new one.
    f.broker.shutdown().await;
    let f = with_journal(left, 16 << 20).await;
    assert_all_there(&f, &topic, &written).await;
    // And once more, after further appends.
    let more = write_rounds(&f, &topic, 5, 100).await;
    let f = f.crash_and_restart().await;
    let both: Vec<Vec<String>> = written
        .into_iter()
        .zip(more)
        .map(|(a, b)| a.into_iter().chain(b).collect())
        .collect();
    assert_all_there(&f, &topic, &both).await;
    // That start was one without a journal: what the last one had left was put back, and it is gone.
    assert!(f.disk.list(Path::new("/data/journal")).unwrap().is_empty());
    f.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_journal_is_used_again_and_again() {
    let bytes = 1 << 20;
    let f = with_journal(Arc::new(MemVfs::new()), bytes).await;
    let topic = f.create("t", PARTITIONS).await;
    let written = write_rounds(&f, &topic, 120, 4000).await;
    let through = counter(&f.broker, "varve_journal_bytes_total");
    assert!(through > bytes, "{through} bytes went through it");
    let live = counter(&f.broker, "varve_journal_live_bytes");
    assert!(live <= bytes, "{live} bytes");
    let f = f.crash_and_restart().await;
    assert_all_there(&f, &topic, &written).await;
    f.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_of_the_journal_nothing_is_acknowledged() {
    let f = with_journal(Arc::new(MemVfs::new()), 16 << 20).await;
    let topic = f.create("t", PARTITIONS).await;
    let written = write_until_journaled(&f, &topic).await;
    f.faults.fail_once(Op::Sync, 1, Errno::IO);
    let failed = produce(&f.broker, &topic, 0, batch(&["lost?"])).await;
    assert!(failed.is_err(), "{failed:?}");
    // The disk is fine again, and that changes nothing for this process.
    for p in 0..PARTITIONS {
        let later = produce(&f.broker, &topic, p, batch(&["later"])).await;
        assert!(later.is_err(), "partition {p}: {later:?}");
    }
    let f = f.crash_and_restart().await;
    assert_all_there(&f, &topic, &written).await;
    produce(&f.broker, &topic, 0, batch(&["again"]))
        .await
        .unwrap();
    f.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_needs_no_journal_and_a_deleted_topic_frees_it() {
    let f = with_journal(Arc::new(MemVfs::new()), 1 << 20).await;
    let topic = f.create("t", PARTITIONS).await;
    let written = write_rounds(&f, &topic, 10, 100).await;
    assert!(f.broker.shutdown().await);
    let f = f.restart(true).await;
    assert_all_there(&f, &topic, &written).await;
    f.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_appends_go_to_their_file_alone() {
    let f = with_journal(Arc::new(MemVfs::new()), 16 << 20).await;
    let topic = f.create("t", PARTITIONS).await;
    let large = "x".repeat(300 * 1024);
    let mut written = vec![Vec::new(); PARTITIONS as usize];
    for value in ["small", &large, "small again", &large, "last"] {
        produce(&f.broker, &topic, 0, batch(&[value]))
            .await
            .unwrap();
        written[0].push(value.to_owned());
    }
    let through = counter(&f.broker, "varve_journal_bytes_total");
    assert!(
        through < 100 * 1024,
        "{through} bytes went through the journal"
    );
    let f = f.crash_and_restart().await;
    assert_all_there(&f, &topic, &written).await;
    f.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_appends_stay_in_the_journal_however_much_waits_behind_it() {
    let f = with_journal(Arc::new(MemVfs::new()), 256 << 20).await;
    let topic = f.create("t", PARTITIONS).await;
    let mut written = write_until_journaled(&f, &topic).await;
    let before = counter(&f.broker, "varve_journal_bytes_total");
    // Together far more than what one append may be to go there, and all of it in the journal's first file.
    let (rounds, size) = (8, 100 * 1024);
    let more = write_rounds(&f, &topic, rounds, size).await;
    let through = counter(&f.broker, "varve_journal_bytes_total") - before;
    let sent = (rounds * size * PARTITIONS as usize) as u64;
    assert!(through >= sent, "{through} of {sent} bytes");
    written.iter_mut().zip(more).for_each(|(a, b)| a.extend(b));
    let f = f.crash_and_restart().await;
    assert_all_there(&f, &topic, &written).await;
    f.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_journal_has_of_a_partition_that_does_not_open_is_kept_for_a_start_that_can() {
    let f = with_journal(Arc::new(MemVfs::new()), 16 << 20).await;
    let topic = f.create("t", PARTITIONS).await;
    let mut written = write_until_journaled(&f, &topic).await;
    let manifest = f.partition_dir("t", 0).join("manifest");
    let disk = Arc::clone(&f.disk);
    disk.crash_losing_unsynced();
    let left = Arc::new(disk.image());
    f.broker.shutdown().await;
    let mut flip = |bytes: &mut Vec<u8>| bytes[40] ^= 1;
    left.damage(&manifest, &mut flip);
    let mut left = left;
    // However often it is started.
    for _ in 0..2 {
        let f = with_journal(Arc::clone(&left), 16 << 20).await;
        assert!(produce(&f.broker, &topic, 0, batch(&["no"])).await.is_err());
        // The others have theirs, and go on.
        for (p, values) in written.iter_mut().enumerate().skip(1) {
            let found = read_all(&f.broker, &topic, p as i32).await;
            assert!(found == *values, "partition {p}");
            let more = batch(&["yes"]);
            produce(&f.broker, &topic, p as i32, more).await.unwrap();
            values.push("yes".to_owned());
        }
        left.crash_losing_unsynced();
        left = Arc::new(left.image());
        f.broker.shutdown().await;
    }
    // Somebody has brought the file back.
    left.damage(&manifest, &mut flip);
    let f = with_journal(left, 16 << 20).await;
    assert_all_there(&f, &topic, &written).await;
    f.broker.shutdown().await;
}
