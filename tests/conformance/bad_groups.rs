//! Groups refuse what they should with the code and reason of the schema, and a refusal commits nothing.

use crate::support::{Bed, Code, Rpc, refused, refused_item, run, shared, told, tp, v1};

fn join(group: &str, member: &str, topic: &str) -> v1::HeartbeatRequest {
    v1::HeartbeatRequest {
        group: group.to_owned(),
        member_id: member.to_owned(),
        subscription: Some(v1::GroupSubscription {
            topics: vec![topic.to_owned()],
            ..Default::default()
        }),
        owned: Some(v1::OwnedPartitions::default()),
        ..Default::default()
    }
}

fn commit(group: &str, topic: &str, offset: i64) -> v1::CommitOffsetsRequest {
    v1::CommitOffsetsRequest {
        group: group.to_owned(),
        offsets: vec![v1::PartitionCommit {
            topic_partition: Some(tp(topic, 0)),
            offset,
            ..Default::default()
        }],
        ..Default::default()
    }
}

async fn committed(rpc: &Rpc, request: v1::CommitOffsetsRequest) {
    let answer = rpc
        .groups()
        .commit_offsets(request)
        .await
        .unwrap()
        .into_inner();
    assert!(answer.failures.is_empty(), "{answer:?}");
}

#[test]
fn group_names() {
    run(async {
        let rpc = shared().await;
        rpc.create("g-names", 1).await;
        let before = rpc.world("g-names").await;
        let long = "x".repeat(250);
        for bad in ["", ".", "..", "a/b", "a\0b", "ä", long.as_str()] {
            let code = Code::InvalidArgument;
            let reason = "INVALID_REQUEST";
            refused(
                bad,
                rpc.groups().heartbeat(join(bad, "m", "g-names")).await,
                code,
                reason,
            );
            refused(
                bad,
                rpc.groups()
                    .heartbeat(join("g-names", bad, "g-names"))
                    .await,
                code,
                reason,
            );
            refused(
                bad,
                rpc.groups().commit_offsets(commit(bad, "g-names", 0)).await,
                code,
                reason,
            );
            let request = v1::GetGroupRequest { group: bad.into() };
            refused(bad, rpc.groups().get_group(request).await, code, reason);
            let request = v1::DeleteGroupRequest { group: bad.into() };
            refused(bad, rpc.groups().delete_group(request).await, code, reason);
            let request = v1::GetOffsetsRequest {
                group: bad.into(),
                ..Default::default()
            };
            refused(bad, rpc.groups().get_offsets(request).await, code, reason);
        }
        assert_eq!(rpc.world("g-names").await, before, "no group was made");
    });
}

#[test]
fn groups_that_are_not_there() {
    run(async {
        let rpc = shared().await;
        let (code, reason) = (Code::NotFound, "GROUP_NOT_FOUND");
        let group = || "g-nobody".to_owned();
        let request = v1::GetGroupRequest { group: group() };
        refused("get", rpc.groups().get_group(request).await, code, reason);
        let request = v1::DeleteGroupRequest { group: group() };
        refused(
            "delete",
            rpc.groups().delete_group(request).await,
            code,
            reason,
        );
        let request = v1::RemoveMembersRequest {
            group: group(),
            member_ids: Vec::new(),
        };
        refused(
            "remove",
            rpc.groups().remove_members(request).await,
            code,
            reason,
        );
        let request = v1::DeleteOffsetsRequest {
            group: group(),
            partitions: vec![tp("t", 0)],
        };
        refused(
            "offsets",
            rpc.groups().delete_offsets(request).await,
            code,
            reason,
        );
    });
}

#[test]
fn heartbeats_that_make_no_sense() {
    run(async {
        let rpc = shared().await;
        let name = "g-beat";
        rpc.create(name, 1).await;
        let before = rpc.world(name).await;
        let ok = || join(name, "m", name);
        let subscription = |pattern: &str, assignor: &str| {
            Some(v1::GroupSubscription {
                topics: Vec::new(),
                topic_pattern: pattern.to_owned(),
                assignor: assignor.to_owned(),
            })
        };
        for (what, request) in [
            (
                "no subscription",
                v1::HeartbeatRequest {
                    subscription: None,
                    ..ok()
                },
            ),
            (
                "nothing subscribed",
                v1::HeartbeatRequest {
                    subscription: subscription("", ""),
                    ..ok()
                },
            ),
            (
                "bad pattern",
                v1::HeartbeatRequest {
                    subscription: subscription("(", ""),
                    ..ok()
                },
            ),
            (
                "unknown assignor",
                v1::HeartbeatRequest {
                    subscription: subscription("a.*", "sticky"),
                    ..ok()
                },
            ),
            ("bad topic", join(name, "m", "a/b")),
            (
                "negative epoch",
                v1::HeartbeatRequest {
                    member_epoch: -1,
                    ..ok()
                },
            ),
            (
                "bad instance",
                v1::HeartbeatRequest {
                    instance_id: "a/b".into(),
                    ..ok()
                },
            ),
            (
                "long rack",
                v1::HeartbeatRequest {
                    rack: "r".repeat(250),
                    ..ok()
                },
            ),
            (
                "negative wait",
                v1::HeartbeatRequest {
                    max_wait: Some(prost_types::Duration {
                        seconds: -1,
                        nanos: 0,
                    }),
                    ..ok()
                },
            ),
        ] {
            let answer = rpc.groups().heartbeat(request).await;
            refused(what, answer, Code::InvalidArgument, "INVALID_REQUEST");
            assert_eq!(rpc.world(name).await, before, "{what}: something changed");
        }
        let negative = v1::HeartbeatRequest {
            owned: Some(v1::OwnedPartitions {
                partitions: vec![tp(name, -1)],
            }),
            ..ok()
        };
        let answer = rpc.groups().heartbeat(negative).await;
        refused(
            "negative partition",
            answer,
            Code::NotFound,
            "PARTITION_NOT_FOUND",
        );
        let stranger = v1::HeartbeatRequest {
            member_epoch: 3,
            subscription: None,
            ..ok()
        };
        let answer = rpc.groups().heartbeat(stranger).await;
        refused(
            "unknown member",
            answer,
            Code::FailedPrecondition,
            "UNKNOWN_MEMBER",
        );
    });
}

#[test]
fn members_out_of_step() {
    run(async {
        let rpc = shared().await;
        let name = "g-step";
        rpc.create(name, 2).await;
        rpc.put(name, 0, &["a", "b"]).await;
        let first = rpc
            .groups()
            .heartbeat(join(name, "m", name))
            .await
            .unwrap()
            .into_inner();
        assert!(first.member_epoch > 0);
        let beat = |epoch| v1::HeartbeatRequest {
            member_epoch: epoch,
            subscription: None,
            ..join(name, "m", name)
        };
        let answer = rpc.groups().heartbeat(beat(first.member_epoch + 7)).await;
        refused(
            "ahead",
            answer,
            Code::FailedPrecondition,
            "FENCED_MEMBER_EPOCH",
        );
        let by = |member: &str, epoch| v1::CommitOffsetsRequest {
            member_id: member.to_owned(),
            member_epoch: epoch,
            ..commit(name, name, 1)
        };
        let answer = rpc
            .groups()
            .commit_offsets(by("m", first.member_epoch + 7))
            .await;
        refused(
            "commit ahead",
            answer,
            Code::FailedPrecondition,
            "FENCED_MEMBER_EPOCH",
        );
        let answer = rpc
            .groups()
            .commit_offsets(by("m", first.member_epoch - 1))
            .await;
        let status = refused("commit behind", answer, Code::Aborted, "STALE_MEMBER_EPOCH");
        assert_eq!(
            told(&status, "member_epoch"),
            Some(first.member_epoch.to_string())
        );
        let answer = rpc
            .groups()
            .commit_offsets(by("stranger", first.member_epoch))
            .await;
        refused(
            "commit of a stranger",
            answer,
            Code::FailedPrecondition,
            "UNKNOWN_MEMBER",
        );
        let answer = rpc.groups().commit_offsets(commit(name, name, 1)).await;
        refused(
            "commit without member",
            answer,
            Code::FailedPrecondition,
            "GROUP_NOT_EMPTY",
        );
        let request = v1::DeleteGroupRequest { group: name.into() };
        let answer = rpc.groups().delete_group(request).await;
        refused(
            "delete",
            answer,
            Code::FailedPrecondition,
            "GROUP_NOT_EMPTY",
        );
        let reset = v1::ResetOffsetsRequest {
            group: name.into(),
            topics: vec![name.into()],
            target: Some(v1::reset_offsets_request::Target::ShiftBy(1)),
            ..Default::default()
        };
        let reset = v1::ResetOffsetsRequest {
            target: Some(v1::reset_offsets_request::Target::Position(
                v1::StartPosition::default(),
            )),
            ..reset
        };
        let answer = rpc.groups().reset_offsets(reset).await;
        refused("reset", answer, Code::FailedPrecondition, "GROUP_NOT_EMPTY");
        let offsets = v1::GetOffsetsRequest {
            group: name.into(),
            ..Default::default()
        };
        let offsets = rpc
            .groups()
            .get_offsets(offsets)
            .await
            .unwrap()
            .into_inner();
        assert!(
            offsets.offsets.is_empty(),
            "nothing was committed: {offsets:?}"
        );
        committed(&rpc, by("m", first.member_epoch)).await;
    });
}

#[test]
fn commits_that_make_no_sense() {
    run(async {
        let rpc = shared().await;
        let name = "g-commit";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["a", "b"]).await;
        committed(&rpc, commit(name, name, 1)).await;
        let before = rpc.world(name).await;
        let with = |edit: &dyn Fn(&mut v1::PartitionCommit)| {
            let mut request = commit(name, name, 2);
            edit(&mut request.offsets[0]);
            request
        };
        for (what, request) in [
            (
                "nothing",
                v1::CommitOffsetsRequest {
                    offsets: Vec::new(),
                    ..commit(name, name, 2)
                },
            ),
            (
                "too much",
                v1::CommitOffsetsRequest {
                    offsets: vec![commit(name, name, 2).offsets.remove(0); 1001],
                    ..commit(name, name, 2)
                },
            ),
            ("negative offset", with(&|o| o.offset = -1)),
            ("no partition", with(&|o| o.topic_partition = None)),
            (
                "metadata of 4097 bytes",
                with(&|o| o.metadata = "m".repeat(4097)),
            ),
            (
                "negative leader epoch",
                with(&|o| o.leader_epoch = Some(-1)),
            ),
            (
                "negative member epoch",
                v1::CommitOffsetsRequest {
                    member_epoch: -1,
                    ..commit(name, name, 2)
                },
            ),
        ] {
            let answer = rpc.groups().commit_offsets(request).await;
            refused(what, answer, Code::InvalidArgument, "INVALID_REQUEST");
            assert_eq!(rpc.world(name).await, before, "{what}: something changed");
        }
        let items = [
            (
                "beyond the end",
                with(&|o| o.offset = 3),
                Code::OutOfRange,
                "OFFSET_OUT_OF_RANGE",
            ),
            (
                "far beyond",
                with(&|o| o.offset = i64::MAX),
                Code::OutOfRange,
                "OFFSET_OUT_OF_RANGE",
            ),
            (
                "unknown topic",
                commit(name, "g-commit-none", 0),
                Code::NotFound,
                "TOPIC_NOT_FOUND",
            ),
            (
                "partition",
                with(&|o| o.topic_partition = Some(tp(name, 7))),
                Code::NotFound,
                "PARTITION_NOT_FOUND",
            ),
        ];
        for (what, request, code, reason) in items {
            let answer = rpc
                .groups()
                .commit_offsets(request)
                .await
                .unwrap()
                .into_inner();
            assert_eq!(answer.failures.len(), 1, "{what}");
            refused_item(what, answer.failures[0].error.as_ref(), code, reason);
            assert_eq!(rpc.world(name).await, before, "{what}: something changed");
        }
        // What is right in a request is committed although something else is wrong.
        let mut mixed = with(&|o| o.metadata = "m".repeat(4096));
        mixed.offsets.push(
            with(&|o| o.topic_partition = Some(tp(name, 7)))
                .offsets
                .remove(0),
        );
        let answer = rpc
            .groups()
            .commit_offsets(mixed)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.failures.len(), 1);
        let offsets = v1::GetOffsetsRequest {
            group: name.into(),
            ..Default::default()
        };
        let offsets = rpc
            .groups()
            .get_offsets(offsets)
            .await
            .unwrap()
            .into_inner()
            .offsets;
        assert_eq!((offsets[0].offset, offsets[0].metadata.len()), (2, 4096));
    });
}

#[test]
fn an_instance_has_one_live_member() {
    run(async {
        let rpc = shared().await;
        let name = "g-instance";
        rpc.create(name, 1).await;
        let with = |member: &str| v1::HeartbeatRequest {
            instance_id: "i".into(),
            ..join(name, member, name)
        };
        rpc.groups().heartbeat(with("a")).await.unwrap();
        let before = rpc.world(name).await;
        let answer = rpc.groups().heartbeat(with("b")).await;
        refused("second", answer, Code::AlreadyExists, "INSTANCE_ID_IN_USE");
        assert_eq!(rpc.world(name).await, before);
    });
}

#[test]
fn a_full_group_takes_no_more() {
    run(async {
        let mut bed = Bed::start(&[("group.max.size", "1")]).await;
        let rpc = bed.rpc.clone();
        rpc.create("t", 2).await;
        rpc.groups().heartbeat(join("g", "a", "t")).await.unwrap();
        let before = rpc.world("g").await;
        let answer = rpc.groups().heartbeat(join("g", "b", "t")).await;
        refused("second", answer, Code::ResourceExhausted, "GROUP_FULL");
        assert_eq!(rpc.world("g").await, before);
        bed.stop().await;
    });
}

/// A thousand members come at once to a group that takes a hundred: each is told exactly one of both, and the
/// hundred share every partition.
#[test]
fn a_storm_of_members() {
    run(async {
        let mut bed = Bed::start(&[("group.max.size", "100")]).await;
        let rpc = bed.rpc.clone();
        rpc.create("t", 200).await;
        let joins = (0..1_000).map(|n| {
            let mut client = rpc.groups();
            tokio::spawn(async move {
                let member = format!("m{n}");
                let answer = client.heartbeat(join("g", &member, "t")).await;
                (member, answer)
            })
        });
        let (mut members, mut turned_away) = (Vec::new(), 0);
        for joined in joins.collect::<Vec<_>>() {
            let (member, answer) = joined.await.unwrap();
            match answer {
                Ok(answer) => members.push((member, answer.into_inner())),
                refusal => {
                    refused(&member, refusal, Code::ResourceExhausted, "GROUP_FULL");
                    turned_away += 1;
                }
            }
        }
        assert_eq!((members.len(), turned_away), (100, 900));
        let mut rounds = 0;
        loop {
            for (member, last) in &mut members {
                // What it is given it takes, and what it is to give up it gives up.
                let beat = v1::HeartbeatRequest {
                    member_epoch: last.member_epoch,
                    subscription: None,
                    owned: last.assignment.take(),
                    ..join("g", member, "t")
                };
                *last = rpc.groups().heartbeat(beat).await.unwrap().into_inner();
            }
            let group = v1::GetGroupRequest { group: "g".into() };
            let group = rpc.groups().get_group(group).await.unwrap().into_inner();
            let group = group.group.unwrap();
            let owned = group.members.iter().flat_map(|m| &m.owned);
            let owned: Vec<i32> = owned.map(|p| p.partition).collect();
            let different: std::collections::BTreeSet<i32> = owned.iter().copied().collect();
            assert_eq!(owned.len(), different.len(), "two own one: {owned:?}");
            if owned.len() == 200 && group.state() == v1::GroupState::Stable {
                break;
            }
            rounds += 1;
            assert!(rounds < 100, "the group does not settle: {group:?}");
        }
        bed.stop().await;
    });
}

/// The number of groups of a node is bounded by a key. The refusal is final and names it.
#[test]
fn a_node_with_all_its_groups_makes_no_more() {
    run(async {
        // No member may be gone again before the last one has come, however slow the machine.
        let timeout = ("group.session.timeout.ms", "1800000");
        let mut bed = Bed::start(&[timeout, ("groups.max", "40")]).await;
        let rpc = bed.rpc.clone();
        rpc.create("t", 1).await;
        let groups = 40;
        let tasks = (0..16).map(|lane| {
            let mut client = rpc.groups();
            tokio::spawn(async move {
                for n in (lane..groups).step_by(16) {
                    client
                        .heartbeat(join(&format!("g{n}"), "m", "t"))
                        .await
                        .unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let answer = rpc.groups().heartbeat(join("one-more", "m", "t")).await;
        let status = refused(
            "one more",
            answer,
            Code::FailedPrecondition,
            "POLICY_VIOLATION",
        );
        assert!(
            status.message().contains("40 groups") && status.message().contains("raise groups.max"),
            "{}",
            status.message()
        );
        rpc.groups().heartbeat(join("g5", "m", "t")).await.unwrap();
        bed.stop().await;
    });
}
