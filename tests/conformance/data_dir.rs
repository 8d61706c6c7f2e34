//! Data directories: whose they are, and what happens when their disk is full or their bytes are damaged.

use std::path::{Path, PathBuf};

use varve_server::embedded;
use varve_tests::small_disk::SmallDisk;

use crate::support::{
    Bed, Code, at, eventually, from, refused, refused_item, request, run, told, v1,
};

#[test]
fn a_second_server_on_the_same_directory() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        bed.rpc.create("t", 1).await;
        bed.rpc.put("t", 0, &["a"]).await;
        let before = bed.rpc.world("").await;
        let second = embedded::start(&bed.dir)
            .await
            .map(drop)
            .unwrap_err()
            .to_string();
        let pid = std::process::id();
        assert!(
            second.contains(&format!("is in use by pid {pid}")),
            "{second}"
        );
        assert_eq!(bed.rpc.world("").await, before);
        bed.rpc.put("t", 0, &["b"]).await;
        bed.stop().await;
        // The refused one has not taken the clean mark of the first away.
        bed.resume().await;
        assert_eq!(bed.rpc.values("t", 0).await, ["a", "b"]);
        bed.stop().await;
    });
}

#[test]
fn a_directory_of_another_cluster_or_node() {
    run(async {
        let mut bed = Bed::start(&[("cluster.id", "11111111-2222-3333-4444-555555555555")]).await;
        bed.rpc.create("t", 1).await;
        bed.rpc.put("t", 0, &["a"]).await;
        bed.stop().await;
        let files = listing(&bed.dir);
        for (settings, says) in [
            (
                [("cluster.id", "99999999-2222-3333-4444-555555555555")],
                "belongs to cluster",
            ),
            ([("node.id", "2")], "belongs to node 1, not 2"),
        ] {
            let error = embedded::start_with(&bed.dir, &settings)
                .await
                .map(drop)
                .unwrap_err();
            let error = format!("{error:#}");
            assert!(
                error.contains(says) && error.contains("nothing was changed"),
                "{error}"
            );
            assert_eq!(listing(&bed.dir), files, "{says}: something changed");
        }
        bed.resume().await;
        assert_eq!(bed.rpc.values("t", 0).await, ["a"]);
        bed.stop().await;
    });
}

/// Every file below `dir` with its size.
fn listing(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                // Who holds the lock is written by whoever asks.
                false if path.ends_with("LOCK") => {}
                false => all.push((path.clone(), path.metadata().unwrap().len())),
            }
        }
    }
    all.sort();
    all
}

/// Writes until nothing more is taken; returns what was acknowledged and the refusal.
async fn fill(bed: &Bed, topic: &str, start: usize, bytes: usize) -> (Vec<String>, tonic::Status) {
    let mut acknowledged = Vec::new();
    for n in start..start + 2000 {
        let value = format!("{n}-{}", "x".repeat(bytes));
        match bed.rpc.produce(request(topic, 0, &[&value])).await {
            Ok(_) => acknowledged.push(value),
            Err(status) => return (acknowledged, status),
        }
    }
    panic!("the disk never filled up");
}

#[test]
fn disk_full() {
    let Some(disk) = SmallDisk::mount("size=48m") else {
        return;
    };
    run(async {
        let root = disk.path().to_owned();
        let settings = [
            ("storage.min_free_bytes", "0"),
            ("offsets.topic.num.partitions", "1"),
        ];
        let mut bed = Bed::start_in(root.clone(), &settings).await;
        bed.rpc
            .create_with("t", 1, &[("segment.bytes", "4194304")])
            .await;
        // What an operator can remove to make room.
        std::fs::write(root.join("ballast"), vec![1; 16 << 20]).unwrap();

        let (mut acknowledged, status) = fill(&bed, "t", 0, 300_000).await;
        refused(
            "full",
            Err::<(), _>(status),
            Code::ResourceExhausted,
            "STORAGE_FULL",
        );
        let before = bed.rpc.world("t").await;
        let small = bed
            .rpc
            .produce(request("t", 0, &[&"y".repeat(900_000)]))
            .await;
        refused("still full", small, Code::ResourceExhausted, "STORAGE_FULL");
        assert_eq!(
            bed.rpc.world("t").await,
            before,
            "a refused append changed something"
        );
        assert_eq!(
            bed.rpc.values("t", 0).await,
            acknowledged,
            "reads are served from a full disk"
        );

        std::fs::remove_file(root.join("ballast")).unwrap();
        let value = "after".to_owned();
        eventually("writes to be taken again", || async {
            bed.rpc.produce(request("t", 0, &["after"])).await.is_ok()
        })
        .await;
        acknowledged.push(value);
        let values = bed.rpc.values("t", 0).await;
        assert_eq!(
            values, acknowledged,
            "nothing that was acknowledged is lost, and nothing is twice"
        );

        // Full again, now across a restart.
        let (more, status) = fill(&bed, "t", 5000, 300_000).await;
        refused(
            "full again",
            Err::<(), _>(status),
            Code::ResourceExhausted,
            "STORAGE_FULL",
        );
        acknowledged.extend(more);
        // Whether a stop can be clean on a full disk is the node's business; the data must be there.
        let _ = bed.take().shutdown().await;
        assert!(disk.options("size=64m"));
        bed.resume().await;
        assert_eq!(bed.rpc.values("t", 0).await, acknowledged);
        bed.rpc.put("t", 0, &["end"]).await;
        bed.stop().await;
    });
}

/// The reserve refuses writes before the disk is full, and serves reads and what frees space.
#[test]
fn disk_below_its_reserve() {
    let Some(disk) = SmallDisk::mount("size=48m") else {
        return;
    };
    run(async {
        let root = disk.path().to_owned();
        let settings = [
            ("storage.min_free_percent", "50"),
            ("offsets.topic.num.partitions", "1"),
        ];
        let mut bed = Bed::start_in(root.clone(), &settings).await;
        bed.rpc.create("t", 1).await;
        bed.rpc.put("t", 0, &["a"]).await;
        std::fs::write(root.join("ballast"), vec![1; 30 << 20]).unwrap();
        eventually("writes to be refused", || async {
            bed.rpc.produce(request("t", 0, &["?"])).await.is_err()
        })
        .await;
        let before = bed.rpc.world("t").await;
        let answer = bed.rpc.produce(request("t", 0, &["b"])).await;
        refused(
            "below the reserve",
            answer,
            Code::ResourceExhausted,
            "STORAGE_FULL",
        );
        assert_eq!(bed.rpc.world("t").await, before);
        assert_eq!(bed.rpc.values("t", 0).await[0], "a");
        let health = bed
            .rpc
            .cluster()
            .get_cluster_health(v1::GetClusterHealthRequest {})
            .await;
        let health = health.unwrap().into_inner();
        assert_eq!(
            (health.healthy, health.low_space_node_ids),
            (false, vec![1])
        );
        std::fs::remove_file(root.join("ballast")).unwrap();
        eventually("writes to be taken again", || async {
            bed.rpc.produce(request("t", 0, &["b"])).await.is_ok()
        })
        .await;
        bed.stop().await;
    });
}

/// A change of metadata that cannot be stored is not made.
#[test]
fn metadata_that_cannot_be_stored() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        bed.rpc.create("t", 1).await;
        bed.rpc.put("t", 0, &["a"]).await;
        let before = bed.rpc.world("").await;
        // A directory stands where the new file would be written.
        let obstacle = bed.dir.join("data").join("metadata.tmp");
        std::fs::create_dir(&obstacle).unwrap();
        let request = v1::CreateTopicRequest {
            topic: "u".into(),
            ..Default::default()
        };
        let answer = bed.rpc.topics().create_topic(request).await;
        refused("create", answer, Code::Internal, "STORAGE_ERROR");
        assert_eq!(bed.rpc.world("").await, before);
        std::fs::remove_dir(&obstacle).unwrap();
        bed.rpc.create("u", 1).await;
        bed.rpc.put("u", 0, &["b"]).await;
        bed.stop().await;
    });
}

/// The log file of a partition that holds its first offsets.
fn first_segment(bed: &Bed, topic: &str) -> PathBuf {
    listing(&bed.dir.join("data/topics"))
        .into_iter()
        .map(|(path, _)| path)
        .find(|path| {
            path.extension().is_some_and(|e| e == "log")
                && path.to_string_lossy().contains(&format!("/{topic}-"))
                && path
                    .file_stem()
                    .is_some_and(|s| s.to_string_lossy().starts_with("00000000000000000000"))
        })
        .unwrap()
}

#[test]
fn damaged_records_are_never_served() {
    run(async {
        use std::os::unix::fs::FileExt as _;
        let mut bed = Bed::start(&[]).await;
        let rpc = bed.rpc.clone();
        rpc.create("t", 1).await;
        rpc.put("t", 0, &["first"]).await;
        let path = first_segment(&bed, "t");
        rpc.put("t", 0, &["second-second-second"]).await;
        let bytes = std::fs::read(&path).unwrap();
        let place = bytes.windows(6).position(|w| w == b"second").unwrap() as u64;
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"SECOND", place).unwrap();
        let answer = rpc.fetch(from("t", 0, 1)).await;
        refused("records", answer, Code::DataLoss, "CORRUPT_LOG");
        let found = rpc.fetch(from("t", 0, 0)).await.unwrap();
        assert_eq!(
            (found.records.len(), found.next_offset),
            (1, 1),
            "what is sound is served"
        );
        let subscribe = v1::SubscribeRequest {
            topic: "t".into(),
            start: at(1),
            ..Default::default()
        };
        let mut events = rpc
            .consumer()
            .subscribe(subscribe)
            .await
            .unwrap()
            .into_inner();
        let mut closed = None;
        while let Ok(Some(event)) = events.message().await {
            assert!(
                !matches!(event.event, Some(v1::subscribe_response::Event::Records(_))),
                "damaged records were delivered"
            );
            if let Some(v1::subscribe_response::Event::Closed(c)) = event.event {
                closed = Some(c);
            }
        }
        let error = closed.and_then(|c| c.error);
        refused_item("subscribe", error.as_ref(), Code::DataLoss, "CORRUPT_LOG");
        bed.stop().await;
    });
}

#[test]
fn a_missing_partition_is_offline_and_others_serve() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        bed.rpc.create("t", 1).await;
        bed.rpc.create("u", 1).await;
        bed.rpc.put("t", 0, &["a"]).await;
        bed.rpc.put("u", 0, &["a"]).await;
        let partition = first_segment(&bed, "t").parent().unwrap().to_owned();
        bed.stop().await;
        let aside = bed.dir.join("aside");
        std::fs::rename(&partition, &aside).unwrap();
        bed.resume().await;
        let rpc = bed.rpc.clone();
        let answer = rpc.produce(request("t", 0, &["b"])).await;
        refused("produce", answer, Code::Unavailable, "LEADER_NOT_AVAILABLE");
        refused(
            "fetch",
            rpc.fetch(from("t", 0, 0)).await,
            Code::Unavailable,
            "LEADER_NOT_AVAILABLE",
        );
        rpc.put("u", 0, &["b"]).await;
        assert_eq!(rpc.values("u", 0).await, ["a", "b"]);
        bed.stop().await;
        let _ = std::fs::remove_dir_all(&partition);
        std::fs::rename(&aside, &partition).unwrap();
        bed.resume().await;
        assert_eq!(
            bed.rpc.values("t", 0).await,
            ["a"],
            "nothing was lost by the refusal"
        );
        bed.stop().await;
    });
}

#[test]
fn a_read_only_disk_is_told() {
    let Some(disk) = SmallDisk::mount("size=48m") else {
        return;
    };
    run(async {
        let settings = [
            ("storage.min_free_bytes", "0"),
            ("offsets.topic.num.partitions", "1"),
        ];
        let mut bed = Bed::start_in(disk.path().to_owned(), &settings).await;
        bed.rpc.create("t", 1).await;
        bed.rpc.put("t", 0, &["a"]).await;
        bed.stop().await;
        // A file that is open for writing keeps the disk writable: the last handle may go a little later.
        eventually("the disk to be read-only", || async { disk.options("ro") }).await;
        let error = embedded::start_with(&bed.dir, &settings)
            .await
            .map(drop)
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("Read-only file system"), "{text}");
        assert!(disk.options("rw"));
        bed.resume().await;
        assert_eq!(bed.rpc.values("t", 0).await, ["a"]);
        let status = refused(
            "range",
            bed.rpc.fetch(from("t", 0, 9)).await,
            Code::OutOfRange,
            "OFFSET_OUT_OF_RANGE",
        );
        assert_eq!(told(&status, "high_watermark").as_deref(), Some("1"));
        bed.stop().await;
    });
}
