//! The classic group protocol by the Kafka protocol: every version of its calls, two members, and what each is told
//! when it is refused.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use varve_frontend_kafka::wire::generated::describe_groups::DescribeGroupsRequest;
use varve_frontend_kafka::wire::generated::heartbeat::HeartbeatRequest;
use varve_frontend_kafka::wire::generated::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use varve_frontend_kafka::wire::generated::leave_group::{LeaveGroupRequest, MemberIdentity};
use varve_frontend_kafka::wire::generated::list_groups::ListGroupsRequest;
use varve_frontend_kafka::wire::generated::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use varve_frontend_kafka::wire::generated::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment,
};
use varve_frontend_kafka::wire::{ErrorCode, Request, Text};
use varve_tests::node::http_get_at;

use crate::Bed;
use crate::client::{Client, ask};

/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// A group one of whose members goes away.
const GONE: &str = "gone";
/// Sessions of the member that stays and of the one that goes away, in milliseconds.
const STAYS: i32 = 60_000;
const GOES: i32 = 6_000;

fn join(group: &'static str, member: &Text) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: Text::from_static(group),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member.clone(),
        protocol_type: Text::from_static("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Text::from_static("range"),
            metadata: Bytes::from_static(b"topics"),
        }],
        ..JoinGroupRequest::default()
    }
}

/// Joins, with the second call that newer versions ask for.
async fn joined(client: &mut Client, version: i16, group: &'static str) -> JoinGroupResponse {
    let first = ask!(client, version, JoinGroup, join(group, &Text::default()));
    if version < 4 {
        return first;
    }
    assert_eq!(first.error_code, ErrorCode::MemberIdRequired.code());
    assert!(first.member_id.as_str().starts_with("test-"), "{first:?}");
    let again = join(group, &first.member_id);
    ask!(client, version, JoinGroup, again)
}

fn sync(group: &'static str, of: &JoinGroupResponse, given: &[(&Text, &str)]) -> SyncGroupRequest {
    let given = given.iter();
    SyncGroupRequest {
        group_id: Text::from_static(group),
        generation_id: of.generation_id,
        member_id: of.member_id.clone(),
        assignments: given
            .map(|(id, text)| SyncGroupRequestAssignment {
                member_id: (*id).clone(),
                assignment: Bytes::copy_from_slice(text.as_bytes()),
            })
            .collect(),
        ..SyncGroupRequest::default()
    }
}

fn heartbeat(group: &'static str, of: &JoinGroupResponse) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: Text::from_static(group),
        generation_id: of.generation_id,
        member_id: of.member_id.clone(),
        ..HeartbeatRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_joins_syncs_beats_and_leaves() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    for version in 0..=9 {
        let found = joined(&mut client, version, "each").await;
        assert_eq!(found.error_code, 0, "{version}: {found:?}");
        assert_eq!(found.leader, found.member_id);
        assert_eq!(found.members.len(), 1);
        assert_eq!(&*found.members[0].metadata, b"topics");
        assert_eq!(found.protocol_name, Some(Text::from_static("range")));
        let given = [(&found.member_id, "all of it")];
        let of = version.min(5);
        let told = ask!(client, of, SyncGroup, sync("each", &found, &given));
        assert_eq!(told.error_code, 0, "{of}: {told:?}");
        assert_eq!(&*told.assignment, b"all of it");
        let beat = ask!(client, version.min(4), Heartbeat, heartbeat("each", &found));
        assert_eq!(beat.error_code, 0);
        let mut leave = LeaveGroupRequest {
            group_id: Text::from_static("each"),
            ..LeaveGroupRequest::default()
        };
        let of = version.min(5);
        if of < 3 {
            leave.member_id = found.member_id.clone();
        } else {
            let member = |id: &Text| MemberIdentity {
                member_id: id.clone(),
                ..MemberIdentity::default()
            };
            let stranger = Text::from_static("nobody");
            leave.members = vec![member(&found.member_id), member(&stranger)];
        }
        let left = ask!(client, of, LeaveGroup, leave);
        assert_eq!(left.error_code, 0, "{of}: {left:?}");
        let codes: Vec<i16> = left.members.iter().map(|m| m.error_code).collect();
        let unknown = ErrorCode::UnknownMemberId.code();
        assert_eq!(codes, if of < 3 { vec![] } else { vec![0, unknown] });
        let gone = ask!(client, version.min(4), Heartbeat, heartbeat("each", &found));
        assert_eq!(gone.error_code, unknown);
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_what_one_of_them_assigns() {
    let bed = Bed::start(&[]).await;
    let (mut one, mut two) = (bed.client().await, bed.client().await);
    one.create("orders", 2).await;
    let group = "pair";
    let first = joined(&mut one, 9, group).await;
    let given = [(&first.member_id, "everything")];
    ask!(one, 5, SyncGroup, sync(group, &first, &given));
    // The second one's join is held until the first one has joined again.
    let second = tokio::spawn(async move {
        let found = joined(&mut two, 9, group).await;
        (two, found)
    });
    let rebalance = ErrorCode::RebalanceInProgress.code();
    for _ in 0..200 {
        if ask!(one, 4, Heartbeat, heartbeat(group, &first)).error_code == rebalance {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let again = ask!(one, 9, JoinGroup, join(group, &first.member_id));
    let (mut two, second) = second.await.unwrap();
    assert_eq!((again.error_code, second.error_code), (0, 0));
    assert_eq!(again.generation_id, second.generation_id);
    assert_eq!(again.leader, second.leader);
    assert_eq!((again.members.len(), second.members.len()), (2, 0));
    let given = [
        (&again.member_id, "half"),
        (&second.member_id, "other half"),
    ];
    let told = sync(group, &again, &given);
    let (to_one, to_two) = tokio::join!(async { ask!(one, 5, SyncGroup, told) }, async {
        ask!(two, 5, SyncGroup, sync(group, &second, &[]))
    });
    assert_eq!(&*to_one.assignment, b"half");
    assert_eq!(&*to_two.assignment, b"other half");

    // Commits are for members of the generation, in the protocol's own terms.
    let commit = |generation| OffsetCommitRequest {
        group_id: Text::from_static(group),
        generation_id_or_member_epoch: generation,
        member_id: again.member_id.clone(),
        topics: vec![OffsetCommitRequestTopic {
            name: Text::from_static("orders"),
            partitions: vec![OffsetCommitRequestPartition::default()],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    for version in [2, 7, 9] {
        let code = |response: varve_frontend_kafka::wire::generated::offset_commit::OffsetCommitResponse| {
            response.topics[0].partitions[0].error_code
        };
        let right = ask!(one, version, OffsetCommit, commit(again.generation_id));
        assert_eq!(code(right), 0, "{version}");
        let late = ask!(one, version, OffsetCommit, commit(first.generation_id));
        assert_eq!(code(late), ErrorCode::IllegalGeneration.code(), "{version}");
    }

    // What people see of it.
    let request = DescribeGroupsRequest {
        groups: vec![Text::from_static(group)],
        ..DescribeGroupsRequest::default()
    };
    let found = ask!(one, 5, DescribeGroups, request).groups.remove(0);
    assert_eq!(
        (found.error_code, found.group_state.as_str()),
        (0, "Stable")
    );
    assert_eq!(found.protocol_type.as_str(), "consumer");
    assert_eq!(found.protocol_data.as_str(), "range");
    let mut assigned: Vec<_> = found
        .members
        .iter()
        .map(|m| m.member_assignment.clone())
        .collect();
    assigned.sort();
    assert_eq!(
        assigned,
        [
            Bytes::from_static(b"half"),
            Bytes::from_static(b"other half")
        ]
    );
    let listed = ask!(one, 5, ListGroups, ListGroupsRequest::default()).groups;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].group_type.as_str(), "classic");
    assert_eq!(listed[0].group_state.as_str(), "Stable");
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_joins_are_told_why_and_leave_nothing_behind() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let refused = |request, code: ErrorCode| (request, code.code());
    let group = "bad";
    let mut short = join(group, &Text::default());
    short.session_timeout_ms = 1;
    let mut nameless = join(group, &Text::default());
    nameless.group_id = Text::default();
    let mut silent = join(group, &Text::default());
    silent.protocols.clear();
    let cases = [
        refused(short, ErrorCode::InvalidSessionTimeout),
        refused(nameless, ErrorCode::InvalidGroupId),
        refused(silent, ErrorCode::InconsistentGroupProtocol),
        refused(
            join(group, &Text::from_static("unknown")),
            ErrorCode::UnknownMemberId,
        ),
        refused(
            join(group, &Text::from_static("no id!")),
            ErrorCode::UnknownMemberId,
        ),
    ];
    for (request, code) in cases {
        let answer = ask!(client, 9, JoinGroup, request.clone());
        assert_eq!(answer.error_code, code, "{request:?}");
    }
    let listed = ask!(client, 5, ListGroups, ListGroupsRequest::default()).groups;
    assert!(listed.is_empty(), "{listed:?}");
    // One that speaks of something else than those who are there.
    let found = joined(&mut client, 9, group).await;
    let mut other = join(group, &Text::default());
    other.protocol_type = Text::from_static("connect");
    let answer = ask!(client, 9, JoinGroup, other);
    assert_eq!(
        answer.error_code,
        ErrorCode::InconsistentGroupProtocol.code()
    );
    let told = ask!(client, 5, SyncGroup, sync(group, &found, &[]));
    assert_eq!(told.error_code, 0);
    let mut early = heartbeat(group, &found);
    early.generation_id += 1;
    let answer = ask!(client, 4, Heartbeat, early);
    assert_eq!(answer.error_code, ErrorCode::IllegalGeneration.code());
    bed.stop().await;
}

/// Connections that the listener holds.
async fn connections(bed: &Bed) -> u64 {
    let address = bed.node.http_address();
    let metrics = tokio::task::spawn_blocking(move || http_get_at(address, "/metrics"));
    let (_, metrics) = metrics.await.unwrap().unwrap();
    let mut lines = metrics.lines();
    let line = lines.find_map(|l| l.strip_prefix("varve_kafka_connections "));
    line.unwrap().trim().parse().unwrap()
}

/// A join of a member with that session, whose rebalances may take an hour.
fn long_join(member: &Text, session_timeout_ms: i32) -> JoinGroupRequest {
    JoinGroupRequest {
        session_timeout_ms,
        rebalance_timeout_ms: 3_600_000,
        ..join(GONE, member)
    }
}

/// A group of one member that has been told to join again, and another that had joined: its connection ended while its
/// join was held, and that was noticed.
async fn a_join_is_left_behind(bed: &Bed) -> (Client, JoinGroupResponse) {
    let (mut one, mut two) = (bed.client().await, bed.client().await);
    let asked = ask!(one, 9, JoinGroup, long_join(&Text::default(), STAYS));
    let first = ask!(one, 9, JoinGroup, long_join(&asked.member_id, STAYS));
    let given = [(&first.member_id, "everything")];
    ask!(one, 5, SyncGroup, sync(GONE, &first, &given));
    let asked = ask!(two, 9, JoinGroup, long_join(&Text::default(), GOES));
    let held = Request::JoinGroup(long_join(&asked.member_id, GOES));
    two.send(9, &held).await;
    let begun = Instant::now();
    while ask!(one, 4, Heartbeat, heartbeat(GONE, &first)).error_code == 0 {
        assert!(begun.elapsed() < PATIENCE);
        sleep(LOOK).await;
    }
    assert_eq!(members(&mut one).await, 2);
    drop(two);
    while connections(bed).await > 1 {
        assert!(begun.elapsed() < PATIENCE);
        sleep(LOOK).await;
    }
    (one, first)
}

async fn members(client: &mut Client) -> usize {
    let request = DescribeGroupsRequest {
        groups: vec![Text::from_static(GONE)],
        ..DescribeGroupsRequest::default()
    };
    let found = ask!(client, 5, DescribeGroups, request).groups.remove(0);
    assert_eq!(found.error_code, 0);
    found.members.len()
}

/// Joins again and has the group to itself.
async fn goes_on_alone(client: &mut Client, was: &JoinGroupResponse) {
    let found = ask!(client, 9, JoinGroup, long_join(&was.member_id, STAYS));
    assert_eq!((found.error_code, found.members.len()), (0, 1));
    let given = [(&found.member_id, "everything")];
    let told = ask!(client, 5, SyncGroup, sync(GONE, &found, &given));
    assert_eq!(
        (told.error_code, &*told.assignment),
        (0, &b"everything"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_connection_ends_while_it_joins_is_missed_after_its_session() {
    let bed = Bed::start(&[]).await;
    let (mut one, first) = a_join_is_left_behind(&bed).await;
    let begun = Instant::now();
    while members(&mut one).await > 1 {
        assert!(begun.elapsed() < PATIENCE);
        let told = ask!(one, 4, Heartbeat, heartbeat(GONE, &first)).error_code;
        assert_eq!(told, ErrorCode::RebalanceInProgress.code());
        sleep(LOOK).await;
    }
    goes_on_alone(&mut one, &first).await;
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_waits_for_one_that_is_gone_no_longer_than_its_session() {
    let bed = Bed::start(&[]).await;
    let (mut one, first) = a_join_is_left_behind(&bed).await;
    goes_on_alone(&mut one, &first).await;
    bed.stop().await;
}
