//! Bad files under a whole node: what it refuses to start on, what it takes out of service, what it tells, and
//! what it leaves alone. Each file by itself is tested in the storage crate.

use std::path::{Path, PathBuf};

use serde_json::Value;
use varve_server::embedded;

use crate::health::get;
use crate::support::{Bed, Code, eventually, from, refused, request, run, told, v1};

fn topics(bed: &Bed) -> PathBuf {
    bed.dir.join("data/topics")
}

/// The directory of partition 0 of a topic.
fn partition(bed: &Bed, topic: &str) -> PathBuf {
    let mut entries = std::fs::read_dir(topics(bed)).unwrap().map(|e| e.unwrap());
    let entry = entries.find(|e| {
        e.file_name()
            .to_string_lossy()
            .starts_with(&format!("{topic}-"))
    });
    entry.unwrap().path().join("0")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

async fn storage(bed: &Bed) -> Value {
    let (_, body) = get(bed.http(), "/healthz").await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    body["storage"].clone()
}

async fn refusal(bed: &Bed) -> String {
    let error = embedded::start(&bed.dir).await.map(drop).unwrap_err();
    format!("{error:#}")
}

#[test]
fn what_the_node_does_not_start_on() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        bed.rpc.create("t", 1).await;
        bed.rpc.put("t", 0, &["a"]).await;
        bed.stop().await;
        let meta = bed.dir.join("data/meta.toml");
        let metadata = bed.dir.join("data/metadata");
        let (text, state) = (
            std::fs::read_to_string(&meta).unwrap(),
            std::fs::read(&metadata).unwrap(),
        );
        let newer = text.replace("format_version = 1", "format_version = 2");
        for (content, says) in [
            (newer, "layout version 2, but this program supports up to 1"),
            (
                text.replace("format_version = 1", "format_version = 0"),
                "layout version 0 does not exist",
            ),
            ("garbage".to_owned(), "cannot be read"),
            (String::new(), "cannot be read"),
            (format!("{text}surprise = 1\n"), "cannot be read"),
        ] {
            std::fs::write(&meta, content).unwrap();
            let error = refusal(&bed).await;
            assert!(error.contains(says), "{error}");
        }
        std::fs::write(&meta, &text).unwrap();
        for content in [
            b"garbage".to_vec(),
            state[..state.len() - 1].to_vec(),
            Vec::new(),
        ] {
            std::fs::write(&metadata, content).unwrap();
            let error = refusal(&bed).await;
            assert!(error.contains("does not start"), "{error}");
        }
        // A link in the place of a file could lead to anybody's.
        std::fs::write(bed.dir.join("elsewhere"), &state).unwrap();
        std::fs::remove_file(&metadata).unwrap();
        std::os::unix::fs::symlink(bed.dir.join("elsewhere"), &metadata).unwrap();
        let error = refusal(&bed).await;
        assert!(error.contains("symbolic link"), "{error}");
        std::fs::remove_file(&metadata).unwrap();
        std::fs::write(&metadata, &state).unwrap();
        bed.resume().await;
        assert_eq!(
            bed.rpc.values("t", 0).await,
            ["a"],
            "no refusal has changed anything"
        );
        bed.stop().await;
    });
}

#[test]
fn strangers_in_the_data_directory_are_left_alone() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        bed.rpc.create("t", 1).await;
        bed.rpc.put("t", 0, &["a"]).await;
        bed.stop().await;
        let data = bed.dir.join("data");
        let strangers = [
            data.join("lost+found"),
            topics(&bed).join("lost+found"),
            topics(&bed).join("nobody-00000000"),
            partition(&bed, "t").join("sub"),
            partition(&bed, "t").with_file_name("0.damaged"),
            partition(&bed, "t").with_file_name("77"),
        ];
        for dir in &strangers {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("file"), "mine").unwrap();
        }
        std::fs::write(partition(&bed, "t").join("README"), "mine").unwrap();
        // Hints that are not understood are no reason not to start.
        std::fs::write(data.join("scrub"), "garbage").unwrap();
        std::fs::write(data.join("LOCK"), "garbage").unwrap();
        bed.resume().await;
        assert_eq!(bed.rpc.values("t", 0).await, ["a"]);
        assert_eq!(storage(&bed).await["healthy"], true);
        bed.stop().await;
        for dir in &strangers {
            assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "mine");
        }
        assert!(partition(&bed, "t").join("README").exists());
    });
}

#[test]
fn a_partition_that_is_a_link_is_offline() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        bed.rpc.create("t", 1).await;
        bed.rpc.create("u", 1).await;
        bed.rpc.put("t", 0, &["a"]).await;
        bed.rpc.put("u", 0, &["a"]).await;
        bed.stop().await;
        let (dir, away) = (partition(&bed, "t"), bed.dir.join("away"));
        std::fs::rename(&dir, &away).unwrap();
        std::os::unix::fs::symlink(&away, &dir).unwrap();
        bed.resume().await;
        let answer = bed.rpc.produce(request("t", 0, &["b"])).await;
        let status = refused("produce", answer, Code::Unavailable, "LEADER_NOT_AVAILABLE");
        assert!(status.message().contains("symbolic link"), "{status}");
        bed.rpc.put("u", 0, &["b"]).await;
        bed.stop().await;
        std::fs::remove_file(&dir).unwrap();
        std::fs::rename(&away, &dir).unwrap();
        bed.resume().await;
        assert_eq!(bed.rpc.values("t", 0).await, ["a"]);
        bed.stop().await;
    });
}

#[test]
fn a_log_that_is_refused_is_told_and_kept() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        bed.rpc.create("t", 1).await;
        bed.rpc.create("u", 1).await;
        for value in ["first", "second", "third"] {
            bed.rpc.put("t", 0, &[value]).await;
        }
        bed.stop().await;
        let log = partition(&bed, "t").join(format!("{:020}.log", 0));
        let bytes = std::fs::read(&log).unwrap();
        let at = bytes.windows(6).position(|w| w == b"second").unwrap();
        flip(&log, at);
        let damaged = std::fs::read(&log).unwrap();
        bed.resume().await;
        let health = storage(&bed).await;
        assert_eq!(health["healthy"], false);
        let offline = &health["offline_partitions"][0];
        assert_eq!(
            (&offline["topic"], &offline["partition"]),
            (&"t".into(), &0.into())
        );
        let reason = offline["reason"].as_str().unwrap();
        for part in [
            "00000000000000000000.log at byte",
            "expected",
            "found",
            "Nothing was changed",
        ] {
            assert!(reason.contains(part), "{part:?} is not in {reason}");
        }
        for path in ["/livez", "/readyz"] {
            assert_eq!(
                get(bed.http(), path).await.unwrap().0,
                200,
                "{path}: the rest serves"
            );
        }
        let (_, metrics) = get(bed.http(), "/metrics").await.unwrap();
        for line in [
            "varve_partition_offline{topic=\"t\",partition=\"0\"} 1",
            "varve_partition_offline{topic=\"u\",partition=\"0\"} 0",
            "varve_cluster_leaderless_partitions 1",
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
        bed.rpc.put("u", 0, &["x"]).await;
        bed.stop().await;
        assert!(
            std::fs::read(&log).unwrap() == damaged,
            "the damaged file is as it was"
        );
        // The way out without another replica.
        let vfs: std::sync::Arc<dyn varve_vfs::Vfs> = std::sync::Arc::new(varve_vfs::RealVfs);
        let plan = varve_storage::repair::plan(&vfs, &partition(&bed, "t")).unwrap();
        assert_eq!((plan.cut_at.get(), plan.sound_records_given_up), (1, 1));
        varve_storage::repair::execute(&vfs, &plan, 0).unwrap();
        bed.resume().await;
        assert_eq!(bed.rpc.values("t", 0).await, ["first"]);
        bed.rpc.put("t", 0, &["second again"]).await;
        assert_eq!(storage(&bed).await["healthy"], true);
        bed.stop().await;
    });
}

#[test]
fn damage_in_a_serving_partition_is_told_and_passed_around() {
    run(async {
        let settings = [("scrub.bytes.per.second", "1GiB"), ("scrub.interval", "0s")];
        let mut bed = Bed::start(&settings).await;
        bed.rpc.create("t", 1).await;
        for value in ["first", "second", "third"] {
            bed.rpc.put("t", 0, &[value]).await;
        }
        let log = partition(&bed, "t").join(format!("{:020}.log", 0));
        let bytes = std::fs::read(&log).unwrap();
        let at = bytes.windows(6).position(|w| w == b"second").unwrap();
        {
            use std::os::unix::fs::FileExt as _;
            let file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
            file.write_all_at(b"S", at as u64).unwrap();
            file.sync_all().unwrap();
        }
        // Nobody has read it: the scrub finds it.
        eventually("the damage to be told", || async {
            storage(&bed).await["healthy"] == false
        })
        .await;
        let health = storage(&bed).await;
        let damaged = &health["damaged"][0];
        assert_eq!(
            (&damaged["first_offset"], &damaged["next_offset"]),
            (&1.into(), &2.into())
        );
        assert!(
            damaged["file"].as_str().unwrap().ends_with(".log"),
            "{damaged}"
        );
        assert!(health["scrub"]["pass_bytes"].is_u64(), "{health}");
        let (_, metrics) = get(bed.http(), "/metrics").await.unwrap();
        let line = "varve_log_corrupt_batches_total{topic=\"t\"} 1";
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        let status = refused(
            "the damaged record",
            bed.rpc.fetch(from("t", 0, 1)).await,
            Code::DataLoss,
            "CORRUPT_LOG",
        );
        assert_eq!(told(&status, "next_readable_offset").as_deref(), Some("2"));
        let found = bed.rpc.fetch(from("t", 0, 0)).await.unwrap();
        assert_eq!((found.records.len(), found.next_offset), (1, 1));
        let found = bed.rpc.fetch(from("t", 0, 2)).await.unwrap();
        assert_eq!((found.records.len(), found.next_offset), (1, 3));
        bed.rpc.put("t", 0, &["fourth"]).await;
        let describe = v1::ListPartitionsRequest {
            topic: "t".into(),
            ..Default::default()
        };
        let answer = bed
            .rpc
            .topics()
            .list_partitions(describe)
            .await
            .unwrap()
            .into_inner();
        let text = format!("{answer:?}");
        assert!(text.contains("damaged records: offsets 1 to 2"), "{text}");
        assert!(
            text.contains("high_watermark: 4"),
            "it is described all the same: {text}"
        );
        let _ = bed.take().shutdown().await;
    });
}
