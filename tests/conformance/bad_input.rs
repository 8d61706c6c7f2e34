//! Topics, configs, names and paging: what is refused is refused with the code and reason of the schema,
//! and changes nothing.

use std::collections::BTreeMap;

use crate::support::{Bed, Code, Rpc, from, refused, request, run, shared, tp, v1};

/// Names no topic, group or producer may have.
const BAD_NAMES: [&str; 8] = ["", ".", "..", "a/b", "a\0b", "a b", "ä", "../../etc/passwd"];

fn create(topic: &str) -> v1::CreateTopicRequest {
    v1::CreateTopicRequest {
        topic: topic.to_owned(),
        ..Default::default()
    }
}

fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

async fn all_refused(
    rpc: &Rpc,
    prefix: &str,
    reason: &str,
    rows: Vec<(&str, v1::CreateTopicRequest)>,
) {
    let before = rpc.world(prefix).await;
    for (what, request) in rows {
        let dry = v1::CreateTopicRequest {
            validate_only: true,
            ..request.clone()
        };
        for request in [dry, request] {
            let answer = rpc.topics().create_topic(request).await;
            refused(what, answer, Code::InvalidArgument, reason);
            assert_eq!(rpc.world(prefix).await, before, "{what}: something changed");
        }
    }
}

#[test]
fn bad_names() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        let rpc = bed.rpc.clone();
        let long = "x".repeat(250);
        let rows =
            BAD_NAMES
                .iter()
                .copied()
                .chain([long.as_str(), "__varve_x", "__consumer_offsets"]);
        let rows = rows.map(|name| (name, create(name))).collect();
        all_refused(&rpc, "", "INVALID_REQUEST", rows).await;
        for bad in BAD_NAMES.iter().copied().chain([long.as_str()]) {
            let code = Code::InvalidArgument;
            let answer = rpc
                .topics()
                .get_topic(v1::GetTopicRequest { topic: bad.into() })
                .await;
            refused(bad, answer, code, "INVALID_REQUEST");
            let request = v1::DeleteTopicRequest {
                topic: bad.into(),
                ..Default::default()
            };
            refused(
                bad,
                rpc.topics().delete_topic(request).await,
                code,
                "INVALID_REQUEST",
            );
            refused(
                bad,
                rpc.produce(request_to(bad)).await,
                code,
                "INVALID_REQUEST",
            );
            refused(
                bad,
                rpc.fetch(from(bad, 0, 0)).await,
                code,
                "INVALID_REQUEST",
            );
            let request = v1::SubscribeRequest {
                topic: bad.into(),
                ..Default::default()
            };
            let opened = rpc.consumer().subscribe(request).await.map(|_| ());
            refused(bad, opened, code, "INVALID_REQUEST");
        }
        // The longest name is fine, on disk too.
        let longest = "x".repeat(249);
        rpc.create(&longest, 1).await;
        rpc.put(&longest, 0, &["v"]).await;
        assert_eq!(rpc.values(&longest, 0).await, ["v"]);
        bed.stop().await;
    });
}

fn request_to(topic: &str) -> v1::ProduceRequest {
    request(topic, 0, &["x"])
}

#[test]
fn internal_topics_are_read_only() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        let rpc = bed.rpc.clone();
        let name = "__consumer_offsets";
        rpc.create("t", 1).await;
        rpc.put("t", 0, &["x"]).await;
        let commit = v1::CommitOffsetsRequest {
            group: "g".into(),
            offsets: vec![v1::PartitionCommit {
                topic_partition: Some(tp("t", 0)),
                offset: 1,
                ..Default::default()
            }],
            ..Default::default()
        };
        assert!(
            rpc.groups()
                .commit_offsets(commit)
                .await
                .unwrap()
                .into_inner()
                .failures
                .is_empty()
        );
        let listed = |include_internal| {
            let rpc = rpc.clone();
            async move {
                let request = v1::ListTopicsRequest {
                    include_internal,
                    ..Default::default()
                };
                let topics = rpc
                    .topics()
                    .list_topics(request)
                    .await
                    .unwrap()
                    .into_inner()
                    .topics;
                topics.iter().any(|t| t.name == name && t.internal)
            }
        };
        assert!(listed(true).await && !listed(false).await);
        let (code, reason) = (Code::FailedPrecondition, "POLICY_VIOLATION");
        refused("produce", rpc.produce(request_to(name)).await, code, reason);
        let request = v1::DeleteTopicRequest {
            topic: name.into(),
            ..Default::default()
        };
        refused(
            "delete",
            rpc.topics().delete_topic(request).await,
            code,
            reason,
        );
        let request = v1::AddPartitionsRequest {
            topic: name.into(),
            partition_count: 99,
            ..Default::default()
        };
        refused(
            "add",
            rpc.topics().add_partitions(request).await,
            code,
            reason,
        );
        let request = v1::UpdateTopicConfigsRequest {
            topic: name.into(),
            changes: vec![v1::ConfigChange {
                name: "retention.ms".into(),
                operation: 1,
                value: "1".into(),
            }],
            ..Default::default()
        };
        refused(
            "configs",
            rpc.topics().update_topic_configs(request).await,
            code,
            reason,
        );
        let found = rpc
            .fetch(v1::FetchRequest {
                topic: name.into(),
                ..Default::default()
            })
            .await;
        assert!(found.is_ok(), "clients may read it");
        bed.stop().await;
    });
}

#[test]
fn unknown_config_key() {
    run(async {
        let rpc = shared().await;
        rpc.create("i-config", 1).await;
        let with = |key, value| v1::CreateTopicRequest {
            configs: configs(&[(key, value)]),
            ..create("i-config-new")
        };
        let rows = vec![
            ("unknown key", with("retention.mss", "1")),
            ("empty key", with("", "1")),
            (
                "Kafka's key whose value would promise something",
                with("remote.storage.enable", "true"),
            ),
            ("no number", with("retention.ms", "soon")),
            ("below the range", with("max.message.bytes", "-1")),
            ("above the range", with("max.message.bytes", "104857601")),
            ("empty value", with("retention.ms", "")),
            (
                "min.insync.replicas above the replicas",
                with("min.insync.replicas", "2"),
            ),
            (
                "huge value",
                with("cleanup.policy", "delete,delete,delete,x"),
            ),
        ];
        all_refused(&rpc, "i-config", "INVALID_CONFIG", rows).await;

        let before = rpc.world("i-config").await;
        let change = |name: &str, operation: i32, value: &str| v1::ConfigChange {
            name: name.to_owned(),
            operation,
            value: value.to_owned(),
        };
        let good = || change("retention.ms", 1, "1000");
        let rows = [
            (
                "unknown key",
                vec![good(), change("retention.mss", 1, "1")],
                "INVALID_CONFIG",
            ),
            (
                "bad value",
                vec![good(), change("segment.bytes", 1, "-1")],
                "INVALID_CONFIG",
            ),
            (
                "append to no list",
                vec![good(), change("segment.bytes", 3, "1")],
                "INVALID_CONFIG",
            ),
            (
                "more in sync than replicas",
                vec![good(), change("min.insync.replicas", 1, "2")],
                "INVALID_CONFIG",
            ),
            (
                "unknown operation",
                vec![good(), change("segment.ms", 9, "1")],
                "INVALID_REQUEST",
            ),
            ("twice", vec![good(), good()], "INVALID_REQUEST"),
            ("none", vec![], "INVALID_REQUEST"),
        ];
        for (what, changes, reason) in rows {
            let request = v1::UpdateTopicConfigsRequest {
                topic: "i-config".into(),
                changes,
                validate_only: false,
            };
            let answer = rpc.topics().update_topic_configs(request).await;
            refused(what, answer, Code::InvalidArgument, reason);
            assert_eq!(
                rpc.world("i-config").await,
                before,
                "{what}: something changed"
            );
        }
        let request = v1::GetTopicConfigsRequest {
            topic: "i-config".into(),
            names: vec!["x".into()],
        };
        let answer = rpc.topics().get_topic_configs(request).await;
        refused("name", answer, Code::InvalidArgument, "INVALID_CONFIG");
    });
}

#[test]
fn topics_that_cannot_be_made() {
    run(async {
        let rpc = shared().await;
        rpc.create("i-make", 2).await;
        let new = || create("i-make-new");
        let place = |entries: &[(i32, &[i32])]| v1::CreateTopicRequest {
            placement: entries
                .iter()
                .map(|(partition, nodes)| v1::ReplicaPlacement {
                    partition: *partition,
                    node_ids: nodes.to_vec(),
                })
                .collect(),
            ..new()
        };
        let labels = |name: &str, value: &str| v1::CreateTopicRequest {
            labels: configs(&[(name, value)]),
            ..new()
        };
        let rows = vec![
            (
                "negative partitions",
                v1::CreateTopicRequest {
                    partition_count: -1,
                    ..new()
                },
            ),
            (
                "10,001 partitions",
                v1::CreateTopicRequest {
                    partition_count: 10_001,
                    ..new()
                },
            ),
            (
                "i32::MAX partitions",
                v1::CreateTopicRequest {
                    partition_count: i32::MAX,
                    ..new()
                },
            ),
            (
                "negative replicas",
                v1::CreateTopicRequest {
                    replication_factor: -1,
                    ..new()
                },
            ),
            (
                "more replicas than nodes",
                v1::CreateTopicRequest {
                    replication_factor: 3,
                    ..new()
                },
            ),
            (
                "unknown partitioner",
                v1::CreateTopicRequest {
                    partitioner: 9,
                    ..new()
                },
            ),
            (
                "bad request id",
                v1::CreateTopicRequest {
                    request_id: "x".into(),
                    ..new()
                },
            ),
            ("placement on a node that is not there", place(&[(0, &[9])])),
            ("placement twice on a node", place(&[(0, &[1, 1])])),
            ("placement on none", place(&[(0, &[])])),
            ("placement with a gap", place(&[(1, &[1])])),
            ("placement of a negative partition", place(&[(-1, &[1])])),
            ("placement twice", place(&[(0, &[1]), (0, &[1])])),
            ("placement on a negative node", place(&[(0, &[-1])])),
            (
                "placement that contradicts the count",
                v1::CreateTopicRequest {
                    partition_count: 2,
                    ..place(&[(0, &[1])])
                },
            ),
            ("label without name", labels("", "x")),
            ("label too long", labels("x", &"v".repeat(5000))),
        ];
        all_refused(&rpc, "i-make", "INVALID_REQUEST", rows).await;

        let before = rpc.world("i-make").await;
        let xxh3 = v1::CreateTopicRequest {
            partitioner: v1::Partitioner::Xxh3 as i32,
            ..new()
        };
        let answer = rpc.topics().create_topic(xxh3).await;
        refused(
            "partitioner",
            answer,
            Code::Unimplemented,
            "UNSUPPORTED_FEATURE",
        );
        let answer = rpc.topics().create_topic(create("i-make")).await;
        refused(
            "exists",
            answer,
            Code::AlreadyExists,
            "TOPIC_ALREADY_EXISTS",
        );
        for count in [0, -1, 1, 2, 10_001] {
            let request = v1::AddPartitionsRequest {
                topic: "i-make".into(),
                partition_count: count,
                ..Default::default()
            };
            let answer = rpc.topics().add_partitions(request).await;
            if count == 2 {
                // The total that is there already: repeating the call is harmless.
                if let Err(status) = &answer {
                    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
                }
            } else {
                refused("count", answer, Code::InvalidArgument, "INVALID_REQUEST");
            }
        }
        let request = v1::DeleteTopicRequest {
            topic: "i-make".into(),
            topic_id: uuid::Uuid::new_v4().to_string(),
        };
        let answer = rpc.topics().delete_topic(request).await;
        refused("another id", answer, Code::NotFound, "TOPIC_NOT_FOUND");
        let request = v1::DeleteTopicRequest {
            topic: "i-make".into(),
            topic_id: "x".into(),
        };
        let answer = rpc.topics().delete_topic(request).await;
        refused("no id", answer, Code::InvalidArgument, "INVALID_REQUEST");
        assert_eq!(rpc.world("i-make").await, before);
    });
}

#[test]
fn pages_and_patterns() {
    run(async {
        let rpc = shared().await;
        for n in 0..5 {
            rpc.create(&format!("i-page-{n}"), 1).await;
        }
        let list = |page_size, page_token: &str, name_pattern: &str| v1::ListTopicsRequest {
            page_size,
            page_token: page_token.to_owned(),
            name_prefix: "i-page-".into(),
            name_pattern: name_pattern.to_owned(),
            include_internal: false,
        };
        for (what, request) in [
            ("negative page size", list(-1, "", "")),
            ("page token", list(0, "x", "")),
            ("page token of odd length", list(0, "1a", "")),
            ("page token that is no text", list(0, "1ff", "")),
            ("long page token", list(0, &"1a".repeat(5000), "")),
            ("pattern", list(0, "", "(")),
            ("long pattern", list(0, "", &"x".repeat(5000))),
            (
                "pattern that explodes",
                list(0, "", "((a{1000}){1000}){1000}"),
            ),
        ] {
            let answer = rpc.topics().list_topics(request).await;
            refused(what, answer, Code::InvalidArgument, "INVALID_REQUEST");
        }
        let request = v1::ListGroupsRequest {
            page_size: -5,
            ..Default::default()
        };
        let answer = rpc.groups().list_groups(request).await;
        refused("groups", answer, Code::InvalidArgument, "INVALID_REQUEST");
        let request = v1::ListPartitionsRequest {
            topic: "i-page-0".into(),
            page_size: -5,
            ..Default::default()
        };
        let answer = rpc.topics().list_partitions(request).await;
        refused(
            "partitions",
            answer,
            Code::InvalidArgument,
            "INVALID_REQUEST",
        );

        let (mut token, mut names) = (String::new(), Vec::new());
        loop {
            let page = rpc
                .topics()
                .list_topics(list(2, &token, "i-page-[0-3]"))
                .await
                .unwrap();
            let page = page.into_inner();
            names.extend(page.topics.into_iter().map(|t| t.name));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(names, ["i-page-0", "i-page-1", "i-page-2", "i-page-3"]);
    });
}
