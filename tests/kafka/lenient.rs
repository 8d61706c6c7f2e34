//! What simple and old clients say: bytes that are not UTF-8 where the protocol has text, a group without a name,
//! commits under a name of their own, places that exist only with tiers of storage; and very many connections.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use varve_frontend_kafka::wire::generated::api_versions::ApiVersionsRequest;
use varve_frontend_kafka::wire::generated::describe_groups::DescribeGroupsRequest;
use varve_frontend_kafka::wire::generated::find_coordinator::FindCoordinatorRequest;
use varve_frontend_kafka::wire::generated::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol,
};
use varve_frontend_kafka::wire::generated::list_groups::ListGroupsRequest;
use varve_frontend_kafka::wire::generated::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use varve_frontend_kafka::wire::generated::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use varve_frontend_kafka::wire::generated::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestTopic,
};
use varve_frontend_kafka::wire::{
    ErrorCode, Request, Response, Text, decode_response, encode_request,
};

use crate::Bed;
use crate::client::{Client, Patience, ask};

const TOPIC: Text = Text::from_static("orders");

/// Who commits, and with which generation.
#[derive(Clone, Copy)]
struct Who {
    group: &'static str,
    member: &'static str,
    instance: Option<&'static str>,
    generation: i32,
}

const NOBODY: Who = Who {
    group: "",
    member: "",
    instance: None,
    generation: -1,
};

fn commit(who: Who, offset: i64, metadata: &str) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: Text::from_static(who.group),
        member_id: Text::from_static(who.member),
        group_instance_id: who.instance.map(Text::from_static),
        generation_id_or_member_epoch: who.generation,
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC,
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: offset,
                committed_metadata: Some(Text::from(metadata)),
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

/// Commits, however long the coordinator takes to open.
async fn committed(client: &mut Client, who: Who, offset: i64) -> i16 {
    let patience = Patience::begin();
    loop {
        let answer = ask!(client, 7, OffsetCommit, commit(who, offset, "m"));
        match answer.topics[0].partitions[0].error_code {
            code @ 14..=16 => patience.again(code).await,
            code => return code,
        }
    }
}

async fn found(client: &mut Client, group: &'static str) -> (i64, String) {
    let request = OffsetFetchRequest {
        group_id: Text::from_static(group),
        topics: Some(vec![OffsetFetchRequestTopic {
            name: TOPIC,
            partition_indexes: vec![0],
        }]),
        ..OffsetFetchRequest::default()
    };
    let answer = ask!(client, 5, OffsetFetch, request);
    assert_eq!(answer.error_code, 0);
    let place = &answer.topics[0].partitions[0];
    let metadata = place.metadata.as_ref().map(|m| m.as_str().to_owned());
    (place.committed_offset, metadata.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_a_name_keeps_offsets_and_takes_no_members() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let request = FindCoordinatorRequest {
        key: Text::EMPTY,
        ..FindCoordinatorRequest::default()
    };
    assert_eq!(committed(&mut client, NOBODY, 3).await, 0);
    let answer = ask!(client, 2, FindCoordinator, request);
    assert_eq!((answer.error_code, answer.node_id), (0, 1));
    assert_eq!(found(&mut client, "").await, (3, "m".to_owned()));
    let request = DescribeGroupsRequest {
        groups: vec![Text::EMPTY],
        ..DescribeGroupsRequest::default()
    };
    let answer = ask!(client, 5, DescribeGroups, request).groups.remove(0);
    assert_eq!((answer.error_code, answer.group_id), (0, Text::EMPTY));
    assert_eq!(answer.group_state.as_str(), "Empty");
    let answer = ask!(client, 4, ListGroups, ListGroupsRequest::default());
    assert_eq!(answer.groups[0].group_id, Text::EMPTY);
    let join = JoinGroupRequest {
        session_timeout_ms: 10_000,
        protocol_type: Text::from_static("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Text::from_static("range"),
            metadata: Bytes::from_static(&[0; 10]),
        }],
        ..JoinGroupRequest::default()
    };
    let answer = ask!(client, 2, JoinGroup, join);
    assert_eq!(answer.error_code, ErrorCode::InvalidGroupId.code());
    bed.stop().await;
}

/// `assign()` with `group.instance.id` set: the commit names the instance, and its generation is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_simple_consumer_may_call_itself_as_it_likes() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let simple = Who {
        group: "simple",
        ..NOBODY
    };
    let instance = Some("host-1");
    for (offset, who) in [
        (1, Who { instance, ..simple }),
        (2, Who { instance, ..simple }),
        (
            3,
            Who {
                member: "someone",
                ..simple
            },
        ),
    ] {
        assert_eq!(committed(&mut client, who, offset).await, 0, "{offset}");
    }
    assert_eq!(found(&mut client, "simple").await.0, 3);
    // A generation is a member's, and there are none.
    let member = Who {
        member: "someone",
        generation: 5,
        ..simple
    };
    let refused = committed(&mut client, member, 4).await;
    assert_eq!(refused, ErrorCode::UnknownMemberId.code());
    assert_eq!(found(&mut client, "simple").await.0, 3);
    bed.stop().await;
}

/// A request whose text is replaced by bytes of the same length.
async fn ask_with_bytes(
    client: &mut Client,
    (version, request): (i16, Request),
    name: &str,
    (text, bytes): (&str, &[u8]),
) -> Response {
    let key = request.key();
    let frame = encode_request(7, Some(Text::from(name)), version, &request).unwrap();
    let mut frame = frame.into_bytes().to_vec();
    assert_eq!(text.len(), bytes.len());
    let at = frame.windows(text.len()).position(|w| w == text.as_bytes());
    let at = at.unwrap();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    client.raw(&frame).await;
    let answer = client.frame().await.expect("an answer");
    decode_response(key, version, answer).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8_is_escaped_and_answered() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let bytes: &[u8] = b"caf\xe9\xff";
    // The name of the client.
    let versions = (0, Request::ApiVersions(ApiVersionsRequest::default()));
    let answer = ask_with_bytes(&mut client, versions, "namex", ("namex", bytes)).await;
    assert!(matches!(answer, Response::ApiVersions(a) if a.error_code == 0));
    // Metadata of a commit.
    let who = Who {
        group: "bytes",
        ..NOBODY
    };
    assert_eq!(committed(&mut client, who, 1).await, 0);
    let request = (7, Request::OffsetCommit(commit(who, 2, "metas")));
    let answer = ask_with_bytes(&mut client, request, "test", ("metas", bytes)).await;
    let Response::OffsetCommit(answer) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    let expected = (2, "caf\\xe9\\xff".to_owned());
    assert_eq!(found(&mut client, "bytes").await, expected);
    // A group and a topic.
    for (at, code) in [("group", 0), ("order", 3)] {
        let mut request = commit(who, 5, "");
        request.group_id = Text::from_static("group");
        let request = (7, Request::OffsetCommit(request));
        let answer = ask_with_bytes(&mut client, request, "test", (at, bytes)).await;
        let Response::OffsetCommit(answer) = answer else {
            panic!("{answer:?}");
        };
        let found = answer.topics[0].partitions[0].error_code;
        assert!(found == code || (14..=16).contains(&found), "{at}: {found}");
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_without_tiers_has_nothing_in_them() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    for (timestamp, expected) in [(-6, (0, -1)), (-5, (0, -1)), (-4, (0, 0)), (-7, (35, -1))] {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: TOPIC,
                partitions: vec![ListOffsetsPartition {
                    current_leader_epoch: -1,
                    timestamp,
                    ..ListOffsetsPartition::default()
                }],
            }],
            ..ListOffsetsRequest::default()
        };
        let answer = ask!(client, 11, ListOffsets, request);
        let place = &answer.topics[0].partitions[0];
        assert_eq!((place.error_code, place.offset), expected, "{timestamp}");
    }
    bed.stop().await;
}

/// This process may open so many files; both ends of a connection are here.
fn raise_open_files(wanted: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: Some(wanted),
        maximum: now.maximum,
    };
    now.current.is_none_or(|n| n >= wanted) || setrlimit(Resource::Nofile, raised).is_ok()
}

async fn is_answered(address: SocketAddr) -> Option<Client> {
    let mut client = Client::over(TcpStream::connect(address).await.ok()?);
    let request = Request::ApiVersions(ApiVersionsRequest::default());
    client.is_answered(0, &request).await.then_some(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_thousand_clients_may_be_connected() {
    if !raise_open_files(4_000) {
        eprintln!("SKIPPED: this process may open too few files for 1,200 connections");
        return;
    }
    let bed = Bed::start(&[]).await;
    let mut open = Vec::new();
    for n in 0..1_200 {
        let client = is_answered(bed.kafka).await;
        open.push(client.unwrap_or_else(|| panic!("connection {n} was not answered")));
    }
    drop(open);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_by_listener_and_by_address() {
    for key in [
        "listeners.kafka.max_connections",
        "listeners.kafka.max_connections_per_address",
    ] {
        let bed = Bed::start(&[(key, "3")]).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(is_answered(bed.kafka).await.unwrap());
        }
        let mut fourth = TcpStream::connect(bed.kafka).await.unwrap();
        let mut said = Vec::new();
        let _ = fourth.read_to_end(&mut said).await;
        assert!(said.is_empty(), "{key}");
        // One that ends makes room.
        open.pop();
        let patience = Patience::begin();
        while is_answered(bed.kafka).await.is_none() {
            patience.again(key).await;
        }
        bed.stop().await;
    }
}
