//! What the node makes of a disk that fails, rots or hangs: nothing false is acknowledged or served, the rest goes
//! on, and the operator is told in metrics, health and descriptions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::support::{Fixture, batch, fetch_one, produce, read_all};
use rustix::io::Errno;
use varve_broker::{Broker, BrokerConfig};
use varve_broker_api::{Before, Broker as _, Context, DeleteBefore};
use varve_types::{ClusterId, ErrorKind, NodeId, Offset, PartitionId, TopicName, TopicPartition};
use varve_vfs::fault::Op;
use varve_vfs::mem::MemVfs;
use varve_vfs::{
    Clock, DirEntry, File, LockError, LockGuard, ManualClock, Mapped, Space, SystemClock, Vfs,
    VfsError,
};

/// All metrics as text.
fn metrics(broker: &Broker) -> String {
    let mut registry = prometheus_client::registry::Registry::with_prefix("varve");
    broker.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

fn has(broker: &Broker, line: &str) -> bool {
    metrics(broker).lines().any(|l| l == line)
}

/// Waits, within reason, for what another thread does.
async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn described(broker: &Broker, topic: &TopicName) -> varve_broker_api::PartitionInfo {
    let mut all = broker.partitions(&Context::anonymous(), topic).unwrap();
    all.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_log_is_told_everywhere() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    let other = f.create("others", 1).await;
    produce(&f.broker, &topic, 0, batch(&["a"])).await.unwrap();
    produce(&f.broker, &other, 0, batch(&["x"])).await.unwrap();
    assert!(f.broker.storage_health().is_good());
    assert!(has(
        &f.broker,
        r#"varve_partition_offline{topic="orders",partition="0"} 0"#
    ));
    f.faults.fail_once(Op::Sync, 1, Errno::IO);
    let first = produce(&f.broker, &topic, 0, batch(&["b"]))
        .await
        .unwrap_err();
    assert_eq!(first.kind, ErrorKind::StorageError);
    let why = f.broker.failed().await;
    assert!(
        why.starts_with("the log of orders:0 failed: cannot sync"),
        "{why}"
    );
    let error = produce(&f.broker, &topic, 0, batch(&["c"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::LeaderNotAvailable);
    for part in [
        "partition orders:0 is offline",
        "cannot sync",
        "Input/output error",
        "nothing was written",
        "until the node restarts",
        "below offset 1",
    ] {
        assert!(error.message.contains(part), "{part:?} is not in {error}");
    }
    for line in [
        r#"varve_partition_offline{topic="orders",partition="0"} 1"#,
        r#"varve_partition_offline{topic="others",partition="0"} 0"#,
        r#"varve_log_failures_total{topic="orders"} 1"#,
        r#"varve_log_failures_total{topic="others"} 0"#,
        "varve_cluster_leaderless_partitions 1",
    ] {
        assert!(has(&f.broker, line), "{line}\n{}", metrics(&f.broker));
    }
    let health = f.broker.storage_health();
    assert_eq!(health.offline.len(), 1);
    assert_eq!(
        health.offline[0].0,
        TopicPartition::new(topic.clone(), PartitionId(0))
    );
    assert!(health.offline[0].1.contains("cannot sync"), "{health:?}");
    f.broker.liveness(Duration::from_secs(20)).await.unwrap();
    f.broker.readiness().unwrap();
    let info = described(&f.broker, &topic);
    assert_eq!((info.leader, info.in_sync.len()), (None, 0));
    assert!(info.error.unwrap().message.contains("cannot sync"));
    // What was flushed is read; at its end a reader is told instead of left to wait.
    assert_eq!(read_all(&f.broker, &topic, 0).await, ["a"]);
    let at_end = fetch_one(&f.broker, &topic, 0, 1).await.unwrap_err();
    assert_eq!(at_end.kind, ErrorKind::LeaderNotAvailable, "{at_end}");
    produce(&f.broker, &other, 0, batch(&["y"])).await.unwrap();
}

/// With durability=replicated records are shown before they are flushed. Once a flush has failed they may be
/// in memory only, so they are shown no more.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_above_the_flushed_cursor_is_shown_after_a_failed_flush() {
    let f = Fixture::new().await;
    let mut new = crate::support::new_topic("orders", 1);
    new.configs.insert("durability".into(), "replicated".into());
    new.configs.insert("flush.messages".into(), "2".into());
    new.configs.insert("flush.ms".into(), "100000000".into());
    let topic = f
        .broker
        .create_topic(&Context::anonymous(), new)
        .await
        .unwrap()
        .name;
    let partition = |f: &Fixture| described(&f.broker, &topic);
    let before = f.faults.count(Op::Sync);
    produce(&f.broker, &topic, 0, batch(&["a"])).await.unwrap();
    produce(&f.broker, &topic, 0, batch(&["b"])).await.unwrap();
    eventually("the first flush", || f.faults.count(Op::Sync) > before).await;
    // The flush may take either record or both; wait until its result is in.
    f.broker.liveness(Duration::from_secs(20)).await.unwrap();
    produce(&f.broker, &topic, 0, batch(&["c"])).await.unwrap();
    assert_eq!(partition(&f).high_watermark.get(), 3);
    assert!(
        fetch_one(&f.broker, &topic, 0, 2).await.is_ok(),
        "shown before it is flushed"
    );
    f.faults.fail_after(Op::Sync, 1, Errno::IO);
    let _ = produce(&f.broker, &topic, 0, batch(&["d"])).await;
    eventually("the failure", || {
        !f.broker.storage_health().offline.is_empty()
    })
    .await;
    let error = fetch_one(&f.broker, &topic, 0, 2).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::LeaderNotAvailable, "{error}");
    let kept = fetch_one(&f.broker, &topic, 0, 0).await.unwrap();
    assert!(kept.next_offset.get() <= 2, "{kept:?}");
    // What a reader may still see is what a crash leaves.
    let seen = kept.next_offset;
    let f = f.crash_and_restart().await;
    assert!(described(&f.broker, &topic).log_end >= seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_fails_under_a_trim_is_offline_at_once() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    for value in ["a", "b"] {
        produce(&f.broker, &topic, 0, batch(&[value]))
            .await
            .unwrap();
    }
    f.faults.fail_after(Op::Any, 1, Errno::IO);
    let items = vec![DeleteBefore {
        partition: TopicPartition::new(topic.clone(), PartitionId(0)),
        before: Before::Offset(Offset::new(1).unwrap()),
    }];
    let results = f.broker.delete_records(&Context::anonymous(), items).await;
    assert_eq!(
        results[0].as_ref().unwrap_err().kind,
        ErrorKind::StorageError
    );
    let health = f.broker.storage_health();
    assert_eq!(
        health.offline.len(),
        1,
        "told before anybody writes: {health:?}"
    );
    f.faults.heal();
    let error = produce(&f.broker, &topic, 0, batch(&["c"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::LeaderNotAvailable, "{error}");
}

fn first_log(f: &Fixture, topic: &str) -> PathBuf {
    f.topic_dir(topic).join("0").join(format!("{:020}.log", 0))
}

/// Flips a bit of the record with that value.
fn flip(disk: &MemVfs, path: &Path, value: &str) {
    let bytes = disk.read(path).unwrap();
    let at = bytes
        .windows(value.len())
        .position(|w| w == value.as_bytes())
        .unwrap();
    let file = disk.open_write(path).unwrap();
    file.write_all_at(&[IoSlice::new(&[bytes[at] ^ 4])], at as u64)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_read_meets_is_noted_once_and_passed_around() {
    let disk = Arc::new(MemVfs::new());
    varve_vfs::durable::create_dir_all(&*disk, Path::new("/data")).unwrap();
    let off = |config: &mut BrokerConfig| config.scrub_bytes_per_second = 0;
    let f = Fixture::with(disk, Arc::new(SystemClock::new()), off).await;
    assert_eq!(f.broker.storage_health().scrub, None);
    let topic = f.create("orders", 1).await;
    for value in ["first", "second", "third"] {
        produce(&f.broker, &topic, 0, batch(&[value]))
            .await
            .unwrap();
    }
    flip(&f.disk, &first_log(&f, "orders"), "second");
    let good = fetch_one(&f.broker, &topic, 0, 0).await.unwrap();
    assert_eq!(good.next_offset.get(), 1, "up to the damage");
    for _ in 0..3 {
        let error = fetch_one(&f.broker, &topic, 0, 1).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::CorruptLog);
        assert!(
            error
                .message
                .contains("records from offset 2 on can be read"),
            "{error}"
        );
        let next = error
            .metadata
            .iter()
            .find(|(k, _)| *k == "next_readable_offset");
        assert_eq!(next.map(|(_, v)| v.as_str()), Some("2"));
    }
    assert_eq!(
        fetch_one(&f.broker, &topic, 0, 2)
            .await
            .unwrap()
            .next_offset
            .get(),
        3
    );
    for line in [
        r#"varve_log_corrupt_batches_total{topic="orders"} 1"#,
        r#"varve_partition_damaged_ranges{topic="orders",partition="0"} 1"#,
    ] {
        assert!(has(&f.broker, line), "{line}\n{}", metrics(&f.broker));
    }
    let health = f.broker.storage_health();
    let [damaged] = health.damaged.as_slice() else {
        panic!("{health:?}")
    };
    assert!(
        damaged.file.ends_with("00000000000000000000.log"),
        "{damaged:?}"
    );
    let range = damaged.offsets.unwrap();
    assert_eq!((range.start.get(), range.end.get()), (1, 2));
    let info = described(&f.broker, &topic);
    assert!(info.leader.is_some(), "it serves");
    let error = info.error.unwrap();
    assert!(error.message.contains("offsets 1 to 2"), "{error}");
    // The partition takes records, and is rid of the damage when the records are.
    produce(&f.broker, &topic, 0, batch(&["fourth"]))
        .await
        .unwrap();
    let items = vec![DeleteBefore {
        partition: TopicPartition::new(topic.clone(), PartitionId(0)),
        before: Before::Offset(Offset::new(2).unwrap()),
    }];
    f.broker
        .delete_records(&Context::anonymous(), items)
        .await
        .remove(0)
        .unwrap();
    assert!(f.broker.storage_health().is_good());
    assert!(described(&f.broker, &topic).error.is_none());
}

fn eager(config: &mut BrokerConfig) {
    config.scrub_bytes_per_second = 1 << 30;
    config.scrub_interval = Duration::ZERO;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrub_finds_damage_that_nobody_reads() {
    let disk = Arc::new(MemVfs::new());
    varve_vfs::durable::create_dir_all(&*disk, Path::new("/data")).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let f = Fixture::with(Arc::clone(&disk), Arc::clone(&clock), eager).await;
    let mut new = crate::support::new_topic("orders", 1);
    new.configs.insert("segment.bytes".into(), "4096".into());
    let topic = f
        .broker
        .create_topic(&Context::anonymous(), new)
        .await
        .unwrap()
        .name;
    // A segment each: what is damaged at the very end of a log would keep it from being opened again.
    for value in ["first", "second", "third"] {
        let long = format!("{value}{}", " ".repeat(3_000));
        produce(&f.broker, &topic, 0, batch(&[&long]))
            .await
            .unwrap();
    }
    // Passes end in milliseconds of the same wall clock.
    let passes = |f: &Fixture| f.broker.storage_health().scrub.unwrap().last_pass_ms;
    eventually("a whole pass", || passes(&f).is_some()).await;
    assert!(f.broker.storage_health().is_good());
    let second = first_log(&f, "orders").with_file_name(format!("{:020}.log", 1));
    flip(&f.disk, &second, "second");
    eventually("the flip to be found", || {
        !f.broker.storage_health().is_good()
    })
    .await;
    let health = f.broker.storage_health();
    assert_eq!(health.damaged.len(), 1, "{health:?}");
    let range = health.damaged[0].offsets.unwrap();
    assert_eq!((range.start.get(), range.end.get()), (1, 2), "{health:?}");
    eventually("more passes", || {
        metrics(&f.broker).contains("varve_scrub_damage_total 1")
    })
    .await;
    assert!(has(
        &f.broker,
        r#"varve_log_corrupt_batches_total{topic="orders"} 1"#
    ));
    // A damaged file that can be derived is told as well and loses nothing.
    let epochs = f.topic_dir("orders").join("0").join("leader-epoch");
    let bytes = f.disk.read(&epochs).unwrap();
    let file = f.disk.open_write(&epochs).unwrap();
    file.write_all_at(&[IoSlice::new(&[bytes[40] ^ 1])], 40)
        .unwrap();
    eventually("the file to be found", || {
        has(
            &f.broker,
            r#"varve_log_damaged_files_total{topic="orders"} 1"#,
        )
    })
    .await;
    assert_eq!(f.broker.storage_health().damaged.len(), 2);
    file.write_all_at(&[IoSlice::new(&[bytes[40]])], 40)
        .unwrap();
    let scrub = Path::new("/data/scrub");
    assert!(f.broker.shutdown().await);
    assert!(
        f.disk.exists(scrub).unwrap(),
        "where it was is written down"
    );
    // After a restart the damage is known before the first pass has come to it: here none is due.
    let slow = |config: &mut BrokerConfig| {
        config.clean_start = true;
        config.scrub_bytes_per_second = 1;
        config.scrub_interval = Duration::from_secs(3600);
    };
    let f = Fixture::with(Arc::clone(&disk), Arc::clone(&clock), slow).await;
    eventually("it to be remembered", || {
        !f.broker.storage_health().is_good()
    })
    .await;
    let health = f.broker.storage_health();
    let starts: Vec<_> = health
        .damaged
        .iter()
        .map(|d| d.offsets.map(|r| r.start.get()))
        .collect();
    assert_eq!(starts, [Some(1)], "{health:?}");
    assert!(f.broker.shutdown().await);
    // The file is a hint: garbage in its place costs a pass and no start.
    varve_vfs::durable::replace(&*disk, scrub, b"garbage").unwrap();
    let f = Fixture::with(disk, clock, eager).await;
    eventually("it to be found again", || {
        !f.broker.storage_health().is_good()
    })
    .await;
}

/// Syncs wait here while the gate is shut.
#[derive(Debug, Default)]
struct Gate {
    shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut shut = self.shut.lock().unwrap();
        while *shut {
            shut = self.changed.wait(shut).unwrap();
        }
    }
}

/// A disk that can hang.
#[derive(Debug)]
struct Hanging(MemVfs, Arc<Gate>);

#[derive(Debug)]
struct HangingFile(Arc<dyn File>, Arc<Gate>);

impl File for HangingFile {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn read_into(&self, at: u64, len: usize, buf: &mut Vec<u8>) -> Result<usize, VfsError> {
        self.0.read_into(at, len, buf)
    }
    fn read_into_nowait(
        &self,
        at: u64,
        len: usize,
        buf: &mut Vec<u8>,
    ) -> Result<Option<usize>, VfsError> {
        self.0.read_into_nowait(at, len, buf)
    }
    fn write_all_at(&self, bufs: &[IoSlice<'_>], at: u64) -> Result<(), VfsError> {
        self.0.write_all_at(bufs, at)
    }
    fn sync_data(&self) -> Result<(), VfsError> {
        self.1.pass();
        self.0.sync_data()
    }
    fn sync_all(&self) -> Result<(), VfsError> {
        self.1.pass();
        self.0.sync_all()
    }
    fn len(&self) -> Result<u64, VfsError> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        self.0.set_len(len)
    }
    fn map_read(&self) -> Result<Mapped, VfsError> {
        self.0.map_read()
    }
}

impl Hanging {
    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(HangingFile(file, Arc::clone(&self.1)))
    }
}

impl Vfs for Hanging {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        Ok(self.wrap(self.0.create_new(path)?))
    }
    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        Ok(self.wrap(self.0.open_write(path)?))
    }
    fn open_read(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        self.0.open_read(path)
    }
    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        self.0.exists(path)
    }
    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, VfsError> {
        self.0.list(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.0.create_dir_all(dir)
    }
    fn remove_file(&self, path: &Path) -> Result<(), VfsError> {
        self.0.remove_file(path)
    }
    fn remove_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        self.0.remove_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        self.0.sync_dir(dir)
    }
    fn free_space(&self, path: &Path) -> Result<Space, VfsError> {
        self.0.free_space(path)
    }
    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        self.0.lock(path)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_is_told_while_it_hangs() {
    let gate: Arc<Gate> = Arc::default();
    let disk = MemVfs::new();
    varve_vfs::durable::create_dir_all(&disk, Path::new("/data")).unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let mut config = BrokerConfig::new("/data".into(), ClusterId(1), NodeId(1));
    config.min_free_bytes = 0;
    config.offsets_partitions = 1;
    let vfs: Arc<dyn Vfs> = Arc::new(Hanging(disk, Arc::clone(&gate)));
    let broker = Broker::start(config, vfs, Arc::clone(&clock) as Arc<dyn Clock>)
        .await
        .unwrap();
    let new = crate::support::new_topic("orders", 1);
    let topic = broker
        .create_topic(&Context::anonymous(), new)
        .await
        .unwrap()
        .name;
    gate.set(true);
    let waiting = {
        let (broker, topic) = (broker.clone(), topic.clone());
        tokio::spawn(async move { produce(&broker, &topic, 0, at(1_700_000_000_000)).await })
    };
    eventually("the flush to have begun and stalled", || {
        clock.advance(Duration::from_secs(1));
        !broker.storage_health().stalled.is_empty()
    })
    .await;
    let health = broker.storage_health();
    assert_eq!(health.stalled[0].0.to_string(), "orders:0");
    assert!(health.stalled[0].1 > Duration::from_secs(3));
    assert!(
        has(&broker, "varve_log_flush_stalled 1"),
        "{}",
        metrics(&broker)
    );
    let error = described(&broker, &topic).error.unwrap();
    assert!(error.message.contains("does not answer"), "{error}");
    assert!(!waiting.is_finished(), "nothing is acknowledged meanwhile");
    broker.liveness(Duration::from_secs(20)).await.unwrap();
    gate.set(false);
    waiting.await.unwrap().unwrap();
    eventually("the stall to be over", || broker.storage_health().is_good()).await;
    assert!(has(&broker, "varve_log_flush_stalled 0"));
    assert!(described(&broker, &topic).error.is_none());
    assert!(broker.shutdown().await);
}

/// A batch of one record of that time.
fn at(ms: i64) -> varve_record::Batch {
    let mut builder = varve_record::BatchBuilder::new(varve_record::Compression::None, None);
    builder.append(ms, Some(b"k"), Some(b"v"), &[]).unwrap();
    builder.build_batch().unwrap()
}
