//! Groups by unary calls: sharing by heartbeats, a member that falls silent, and the work of an operator.

use std::collections::BTreeSet;
use std::time::Duration;

use v1::reset_offsets_request::Target as T;
use v1::start_position::Position as P;

use crate::support::{Bed, Code, Rpc, from, refused, refused_item, run, shared, span, tp, v1};

/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member that heartbeats.
struct Member {
    rpc: Rpc,
    group: String,
    id: String,
    epoch: i32,
    owned: BTreeSet<(String, i32)>,
}

fn pairs(partitions: &[v1::TopicPartition]) -> BTreeSet<(String, i32)> {
    partitions
        .iter()
        .map(|p| (p.topic.clone(), p.partition))
        .collect()
}

impl Member {
    async fn join(rpc: &Rpc, group: &str, id: &str, topics: &[&str]) -> Self {
        let mut member = Self {
            rpc: rpc.clone(),
            group: group.to_owned(),
            id: id.to_owned(),
            epoch: 0,
            owned: BTreeSet::new(),
        };
        let subscription = v1::GroupSubscription {
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            ..Default::default()
        };
        member
            .beat_with(v1::HeartbeatRequest {
                subscription: Some(subscription),
                ..Default::default()
            })
            .await;
        member
    }

    async fn beat_with(&mut self, request: v1::HeartbeatRequest) {
        let owned = self.owned.iter().map(|(t, p)| tp(t, *p)).collect();
        let request = v1::HeartbeatRequest {
            group: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            owned: Some(v1::OwnedPartitions { partitions: owned }),
            max_wait: span(50),
            ..request
        };
        let reply = self
            .rpc
            .groups()
            .heartbeat(request)
            .await
            .unwrap()
            .into_inner();
        self.epoch = reply.member_epoch;
        if let Some(assignment) = reply.assignment {
            self.owned = pairs(&assignment.partitions);
        }
    }

    async fn beat(&mut self) {
        self.beat_with(v1::HeartbeatRequest::default()).await;
    }

    fn commit(&self, topic: &str, partition: i32, offset: i64) -> v1::CommitOffsetsRequest {
        v1::CommitOffsetsRequest {
            group: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            offsets: vec![v1::PartitionCommit {
                topic_partition: Some(tp(topic, partition)),
                offset,
                ..Default::default()
            }],
        }
    }
}

async fn commit(rpc: &Rpc, group: &str, topic: &str, offsets: &[(i32, i64)]) {
    let request = v1::CommitOffsetsRequest {
        group: group.to_owned(),
        offsets: offsets
            .iter()
            .map(|(partition, offset)| v1::PartitionCommit {
                topic_partition: Some(tp(topic, *partition)),
                offset: *offset,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let answer = rpc
        .groups()
        .commit_offsets(request)
        .await
        .unwrap()
        .into_inner();
    assert!(answer.failures.is_empty(), "{answer:?}");
}

async fn offsets(rpc: &Rpc, group: &str) -> Vec<(i32, i64)> {
    let request = v1::GetOffsetsRequest {
        group: group.to_owned(),
        ..Default::default()
    };
    let answer = rpc
        .groups()
        .get_offsets(request)
        .await
        .unwrap()
        .into_inner();
    answer
        .offsets
        .iter()
        .map(|o| (o.topic_partition.as_ref().unwrap().partition, o.offset))
        .collect()
}

#[test]
fn a_silent_member_is_replaced_and_its_work_goes_on() {
    run(async {
        // The members beat one after the other: the session is to outlast a turn of both on a busy machine.
        let session = Duration::from_secs(5);
        let settings = [
            ("group.session.timeout.ms", "5000"),
            ("group.heartbeat.interval.ms", "200"),
        ];
        let mut bed = Bed::start(&settings).await;
        let rpc = bed.rpc.clone();
        rpc.create("t", 4).await;
        for partition in 0..4 {
            rpc.put("t", partition, &["a", "b", "c"]).await;
        }
        let mut one = Member::join(&rpc, "g", "one", &["t"]).await;
        let mut two = Member::join(&rpc, "g", "two", &["t"]).await;
        let begun = std::time::Instant::now();
        let mut heard = begun;
        while one.owned.len() != 2 || two.owned.len() != 2 {
            let owned = (&one.owned, &two.owned);
            assert!(begun.elapsed() < PATIENCE, "two each: {owned:?}");
            one.beat().await;
            heard = std::time::Instant::now();
            two.beat().await;
        }
        assert!(one.owned.is_disjoint(&two.owned));
        let given_up = two.owned.clone();
        for (topic, partition) in &given_up {
            let answer = rpc
                .groups()
                .commit_offsets(two.commit(topic, *partition, 2))
                .await;
            assert!(answer.unwrap().into_inner().failures.is_empty());
        }
        // Two says no more.
        let silent = std::time::Instant::now();
        while one.owned.len() < 4 {
            one.beat().await;
            // Still less than the session of a member for which none is set.
            assert!(
                silent.elapsed() < session + Duration::from_secs(30),
                "the partitions of a silent member: {:?}",
                one.owned
            );
        }
        assert!(
            heard.elapsed() > session * 7 / 10,
            "not before its session was over"
        );
        for (_, partition) in &given_up {
            let at = offsets(&rpc, "g")
                .await
                .into_iter()
                .find(|(p, _)| p == partition)
                .unwrap()
                .1;
            let found = rpc.fetch(from("t", *partition, at)).await.unwrap();
            assert_eq!(
                (at, found.records.len()),
                (2, 1),
                "work goes on behind what was committed"
            );
        }
        let answer = rpc.groups().commit_offsets(two.commit("t", 0, 3)).await;
        refused(
            "the silent one",
            answer,
            Code::FailedPrecondition,
            "UNKNOWN_MEMBER",
        );
        bed.stop().await;
    });
}

#[test]
fn a_member_that_leaves_frees_its_partitions_at_once() {
    run(async {
        let rpc = shared().await;
        let name = "m-leave";
        rpc.create(name, 2).await;
        let mut one = Member::join(&rpc, name, "one", &[name]).await;
        let mut two = Member::join(&rpc, name, "two", &[name]).await;
        while one.owned.len() != 1 || two.owned.len() != 1 {
            one.beat().await;
            two.beat().await;
        }
        two.owned.clear();
        two.beat_with(v1::HeartbeatRequest {
            leave: true,
            ..Default::default()
        })
        .await;
        while one.owned.len() < 2 {
            one.beat().await;
        }
    });
}

#[test]
fn groups_are_listed_and_described() {
    run(async {
        let rpc = shared().await;
        let name = "m-list";
        rpc.create(name, 2).await;
        rpc.put(name, 0, &["a"]).await;
        for n in 0..3 {
            commit(&rpc, &format!("m-list-{n}"), name, &[(0, 1)]).await;
        }
        let mut member = Member::join(&rpc, "m-list-live", "me", &[name]).await;
        while member.owned.len() < 2 {
            member.beat().await;
        }
        member.beat().await;
        let list = |page_token: &str, states: Vec<i32>| v1::ListGroupsRequest {
            page_size: 2,
            page_token: page_token.to_owned(),
            name_prefix: "m-list-".into(),
            states,
            kinds: vec![v1::GroupKind::Consumer as i32],
        };
        let page = rpc
            .groups()
            .list_groups(list("", Vec::new()))
            .await
            .unwrap()
            .into_inner();
        let names: Vec<_> = page.groups.iter().map(|g| g.group.as_str()).collect();
        assert_eq!(names, ["m-list-0", "m-list-1"]);
        let page = rpc
            .groups()
            .list_groups(list(&page.next_page_token, Vec::new()))
            .await
            .unwrap();
        let page = page.into_inner();
        let names: Vec<_> = page.groups.iter().map(|g| g.group.as_str()).collect();
        assert_eq!(
            (names, page.next_page_token.as_str()),
            (vec!["m-list-2", "m-list-live"], "")
        );
        let stable = list("", vec![v1::GroupState::Stable as i32]);
        let page = rpc.groups().list_groups(stable).await.unwrap().into_inner();
        assert_eq!((page.groups.len(), page.groups[0].member_count), (1, 1));

        let request = v1::GetGroupRequest {
            group: "m-list-live".into(),
        };
        let group = rpc
            .groups()
            .get_group(request)
            .await
            .unwrap()
            .into_inner()
            .group
            .unwrap();
        assert_eq!(group.state(), v1::GroupState::Stable);
        assert_eq!(
            (group.members.len(), group.assignor.as_str()),
            (1, "uniform")
        );
        let me = &group.members[0];
        assert_eq!(
            (me.member_id.as_str(), me.member_epoch),
            ("me", member.epoch)
        );
        assert_eq!(pairs(&me.owned), member.owned);
        assert_eq!(pairs(&me.target), member.owned);
        assert!(me.client_address.starts_with("127.0.0.1:"), "{me:?}");
        let request = v1::GetGroupRequest {
            group: "m-list-0".into(),
        };
        let group = rpc
            .groups()
            .get_group(request)
            .await
            .unwrap()
            .into_inner()
            .group
            .unwrap();
        assert_eq!(
            (group.state(), group.members.len()),
            (v1::GroupState::Empty, 0)
        );
    });
}

#[test]
fn offsets_are_reset_dry_and_for_real() {
    run(async {
        let rpc = shared().await;
        let name = "m-reset";
        rpc.create(name, 2).await;
        for partition in 0..2 {
            rpc.put(name, partition, &["a", "b", "c", "d"]).await;
        }
        commit(&rpc, name, name, &[(0, 2), (1, 3)]).await;
        let reset = |target, topics: &[&str], validate_only| v1::ResetOffsetsRequest {
            group: name.to_owned(),
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            target: Some(target),
            validate_only,
            ..Default::default()
        };
        let to = |p| T::Position(v1::StartPosition { position: Some(p) });
        let earliest = to(P::Anchor(v1::StartAnchor::Earliest as i32));
        let latest = to(P::Anchor(v1::StartAnchor::Latest as i32));
        let cases = [
            ("earliest", earliest, vec![(0, 0), (1, 0)]),
            ("latest", latest, vec![(0, 4), (1, 4)]),
            ("offset", to(P::Offset(1)), vec![(0, 1), (1, 1)]),
            (
                "offset beyond is clamped",
                to(P::Offset(99)),
                vec![(0, 4), (1, 4)],
            ),
            ("last", to(P::Last(1)), vec![(0, 3), (1, 3)]),
            ("back", T::ShiftBy(-2), vec![(0, 1), (1, 1)]),
            ("far back", T::ShiftBy(i64::MIN), vec![(0, 0), (1, 0)]),
            ("far on", T::ShiftBy(i64::MAX), vec![(0, 4), (1, 4)]),
        ];
        for (what, target, expected) in cases {
            let before = offsets(&rpc, name).await;
            let planned = |reset: v1::ResetOffsetsResponse| -> Vec<(i32, i64)> {
                let one = |o: &v1::CommittedOffset| {
                    (o.topic_partition.as_ref().unwrap().partition, o.offset)
                };
                reset.offsets.iter().map(one).collect()
            };
            let dry = rpc
                .groups()
                .reset_offsets(reset(target.clone(), &[], true))
                .await
                .unwrap();
            assert_eq!(planned(dry.into_inner()), expected, "{what}");
            assert_eq!(
                offsets(&rpc, name).await,
                before,
                "{what}: a dry run changed something"
            );
            let real = rpc
                .groups()
                .reset_offsets(reset(target, &[], false))
                .await
                .unwrap();
            assert_eq!(planned(real.into_inner()), expected, "{what}");
            assert_eq!(offsets(&rpc, name).await, expected, "{what}");
        }
        // Another group takes its offsets from this one, and whole topics need no offsets before.
        let copy = v1::ResetOffsetsRequest {
            group: "m-reset-copy".into(),
            topics: vec![name.into()],
            target: Some(T::FromGroup(name.into())),
            ..Default::default()
        };
        let copied = rpc.groups().reset_offsets(copy).await.unwrap().into_inner();
        assert_eq!(copied.offsets.len(), 2);
        assert_eq!(
            offsets(&rpc, "m-reset-copy").await,
            offsets(&rpc, name).await
        );
        let (code, reason) = (Code::InvalidArgument, "INVALID_REQUEST");
        let none = v1::ResetOffsetsRequest {
            group: name.into(),
            ..Default::default()
        };
        refused(
            "no target",
            rpc.groups().reset_offsets(none).await,
            code,
            reason,
        );
        let bad = reset(to(P::Offset(-1)), &[], false);
        refused(
            "negative",
            rpc.groups().reset_offsets(bad).await,
            code,
            reason,
        );
        let unknown = reset(T::ShiftBy(1), &["m-reset-none"], false);
        let answer = rpc.groups().reset_offsets(unknown).await;
        refused("unknown topic", answer, Code::NotFound, "TOPIC_NOT_FOUND");
    });
}

#[test]
fn lag_is_told() {
    run(async {
        let rpc = shared().await;
        let name = "m-lag";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["a", "b", "c"]).await;
        commit(&rpc, name, name, &[(0, 1)]).await;
        let request = v1::GetOffsetsRequest {
            group: name.into(),
            include_lag: true,
            ..Default::default()
        };
        let offsets = rpc
            .groups()
            .get_offsets(request)
            .await
            .unwrap()
            .into_inner()
            .offsets;
        assert_eq!(
            (offsets[0].lag, offsets[0].high_watermark),
            (Some(2), Some(3))
        );
        assert!(offsets[0].commit_time.is_some());
    });
}

#[test]
fn offsets_groups_and_members_are_removed() {
    run(async {
        let rpc = shared().await;
        let name = "m-remove";
        rpc.create(name, 2).await;
        rpc.put(name, 0, &["a"]).await;
        commit(&rpc, name, name, &[(0, 1), (1, 0)]).await;
        let mut member = Member::join(&rpc, name, "me", &[name]).await;
        member.beat().await;
        let delete = || v1::DeleteOffsetsRequest {
            group: name.into(),
            partitions: vec![tp(name, 0)],
        };
        let kept = rpc
            .groups()
            .delete_offsets(delete())
            .await
            .unwrap()
            .into_inner();
        refused_item(
            "subscribed",
            kept.failures[0].error.as_ref(),
            Code::FailedPrecondition,
            "GROUP_NOT_EMPTY",
        );
        assert_eq!(offsets(&rpc, name).await, [(0, 1), (1, 0)]);
        let request = v1::RemoveMembersRequest {
            group: name.into(),
            member_ids: vec!["me".into(), "you".into()],
        };
        let gone = rpc
            .groups()
            .remove_members(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(gone.member_ids, ["me"]);
        let answer = rpc.groups().commit_offsets(member.commit(name, 0, 1)).await;
        refused(
            "expelled",
            answer,
            Code::FailedPrecondition,
            "UNKNOWN_MEMBER",
        );
        let done = rpc
            .groups()
            .delete_offsets(delete())
            .await
            .unwrap()
            .into_inner();
        assert!(done.failures.is_empty());
        assert_eq!(offsets(&rpc, name).await, [(1, 0)]);
        let request = || v1::DeleteGroupRequest { group: name.into() };
        rpc.groups().delete_group(request()).await.unwrap();
        refused(
            "gone",
            rpc.groups().delete_group(request()).await,
            Code::NotFound,
            "GROUP_NOT_FOUND",
        );
        assert_eq!(offsets(&rpc, name).await, []);
    });
}

#[test]
fn committed_offsets_survive_a_restart() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        bed.rpc.create("t", 2).await;
        bed.rpc.put("t", 0, &["a", "b"]).await;
        commit(&bed.rpc, "g", "t", &[(0, 2), (1, 0)]).await;
        bed.stop().await;
        bed.resume().await;
        assert_eq!(offsets(&bed.rpc, "g").await, [(0, 2), (1, 0)]);
        bed.stop().await;
    });
}
