//! TopicService, GroupService and ClusterService.

use tonic::{Code, Request};
use tonic_types::StatusExt;
use varve_proto::v1;
use varve_proto::v1::cluster_service_client::ClusterServiceClient;
use varve_proto::v1::group_service_client::GroupServiceClient;

use crate::{Harness, assert_fails, soon, tp};

fn create(topic: &str) -> v1::CreateTopicRequest {
    v1::CreateTopicRequest {
        topic: topic.to_owned(),
        partition_count: 2,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_topic_lives_from_create_to_delete() {
    let h = Harness::start().await;
    let request = v1::CreateTopicRequest {
        configs: [("retention.ms".to_owned(), "1000".to_owned())].into(),
        labels: [("team".to_owned(), "pay".to_owned())].into(),
        ..create("orders")
    };
    let dry = v1::CreateTopicRequest {
        validate_only: true,
        ..request.clone()
    };
    assert!(h.topics().create_topic(dry).await.is_ok());
    let get = || v1::GetTopicRequest {
        topic: "orders".to_owned(),
    };
    assert_fails(
        h.topics().get_topic(get()).await,
        Code::NotFound,
        "TOPIC_NOT_FOUND",
    );
    let made = h
        .topics()
        .create_topic(request.clone())
        .await
        .unwrap()
        .into_inner()
        .topic
        .unwrap();
    assert_eq!(
        (made.partition_count, made.internal, made.topic_id.len()),
        (2, false, 36)
    );
    let twice = h.topics().create_topic(request).await.unwrap_err();
    assert_eq!(
        twice.get_details_resource_info().unwrap().resource_name,
        "orders"
    );
    assert_fails(
        Err::<(), _>(twice),
        Code::AlreadyExists,
        "TOPIC_ALREADY_EXISTS",
    );
    let seen = h
        .topics()
        .get_topic(get())
        .await
        .unwrap()
        .into_inner()
        .topic
        .unwrap();
    assert_eq!(seen, made);
    let configs = v1::GetTopicConfigsRequest {
        topic: "orders".to_owned(),
        names: vec!["retention.ms".to_owned()],
    };
    let found = h
        .topics()
        .get_topic_configs(configs)
        .await
        .unwrap()
        .into_inner()
        .configs;
    assert_eq!((found.len(), found[0].value.as_str()), (1, "1000"));
    assert_eq!(found[0].source, v1::ConfigSource::Topic as i32);
    let unknown = v1::GetTopicConfigsRequest {
        topic: "orders".to_owned(),
        names: vec!["retention.mz".to_owned()],
    };
    assert_fails(
        h.topics().get_topic_configs(unknown).await,
        Code::InvalidArgument,
        "INVALID_CONFIG",
    );
    let change = v1::ConfigChange {
        name: "retention.ms".to_owned(),
        operation: v1::ConfigOperation::Delete as i32,
        value: String::new(),
    };
    let update = v1::UpdateTopicConfigsRequest {
        topic: "orders".to_owned(),
        changes: vec![change],
        validate_only: false,
    };
    let changed = h
        .topics()
        .update_topic_configs(update)
        .await
        .unwrap()
        .into_inner()
        .topic
        .unwrap();
    assert!(changed.configs.is_empty());
    h.append("orders", 0, &["a", "b"]).await;
    let deletes = vec![
        v1::DeleteBefore {
            topic_partition: tp("orders", 0),
            before: Some(v1::delete_before::Before::Offset(1)),
        },
        v1::DeleteBefore {
            topic_partition: tp("orders", 9),
            before: Some(v1::delete_before::Before::CurrentEnd(true)),
        },
    ];
    let results = h
        .topics()
        .delete_records(v1::DeleteRecordsRequest { deletes })
        .await
        .unwrap();
    let results = results.into_inner().results;
    assert_eq!(
        results[0].outcome,
        Some(v1::delete_records_result::Outcome::LogStartOffset(1))
    );
    assert!(
        matches!(&results[1].outcome, Some(v1::delete_records_result::Outcome::Error(e)) if e.reason == 21)
    );
    let list = v1::ListPartitionsRequest {
        topic: "orders".to_owned(),
        page_size: 1,
        ..Default::default()
    };
    let page = h
        .topics()
        .list_partitions(list.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            page.partitions[0].log_start_offset,
            page.partitions[0].high_watermark
        ),
        (1, 2)
    );
    let rest = v1::ListPartitionsRequest {
        page_token: page.next_page_token,
        ..list
    };
    let page = h.topics().list_partitions(rest).await.unwrap().into_inner();
    assert_eq!(
        (page.partitions[0].partition, page.next_page_token.as_str()),
        (1, "")
    );
    let delete = v1::DeleteTopicRequest {
        topic: "orders".to_owned(),
        ..Default::default()
    };
    h.topics().delete_topic(delete).await.unwrap();
    assert_fails(
        h.topics().get_topic(get()).await,
        Code::NotFound,
        "TOPIC_NOT_FOUND",
    );
}

#[tokio::test]
async fn bad_names_never_become_topics() {
    let h = Harness::start().await;
    for bad in [
        "",
        ".",
        "..",
        "a/b",
        "a\0b",
        "ä",
        "a b",
        "__varve_x",
        &"x".repeat(250),
    ] {
        let status = h.topics().create_topic(create(bad)).await.unwrap_err();
        let field = &status.get_details_bad_request().unwrap().field_violations[0].field;
        assert_eq!(field, "topic", "{bad:?}");
        assert_fails(
            Err::<(), _>(status),
            Code::InvalidArgument,
            "INVALID_REQUEST",
        );
    }
    for count in [-1, 10_001, i32::MAX, i32::MIN] {
        let request = v1::CreateTopicRequest {
            partition_count: count,
            ..create("orders")
        };
        assert_fails(
            h.topics().create_topic(request).await,
            Code::InvalidArgument,
            "INVALID_REQUEST",
        );
    }
    let request = v1::CreateTopicRequest {
        partitioner: 2,
        ..create("orders")
    };
    assert_fails(
        h.topics().create_topic(request).await,
        Code::Unimplemented,
        "UNSUPPORTED_FEATURE",
    );
    let request = v1::CreateTopicRequest {
        request_id: "not-a-uuid".to_owned(),
        ..create("orders")
    };
    assert_fails(
        h.topics().create_topic(request).await,
        Code::InvalidArgument,
        "INVALID_REQUEST",
    );
    let all = v1::ListTopicsRequest {
        include_internal: true,
        ..Default::default()
    };
    assert!(
        h.topics()
            .list_topics(all)
            .await
            .unwrap()
            .into_inner()
            .topics
            .is_empty()
    );
}

#[tokio::test]
async fn topics_are_listed_in_pages_and_by_pattern() {
    let h = Harness::start().await;
    for n in 0..7 {
        h.broker.topic(&format!("t{n}"), 1);
    }
    h.broker.topic("__consumer_offsets", 1);
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::ListTopicsRequest {
            page_size: 3,
            page_token: token,
            ..Default::default()
        };
        let page = h.topics().list_topics(request).await.unwrap().into_inner();
        names.extend(page.topics.into_iter().map(|t| t.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["t0", "t1", "t2", "t3", "t4", "t5", "t6"]);
    let count = async |request| {
        h.topics()
            .list_topics(request)
            .await
            .map(|r| r.into_inner().topics.len())
    };
    let pattern = |p: &str| v1::ListTopicsRequest {
        name_pattern: p.to_owned(),
        ..Default::default()
    };
    assert_eq!(count(pattern("t[0-2]")).await.unwrap(), 3);
    assert_eq!(count(pattern("t")).await.unwrap(), 0, "whole names only");
    let internal = v1::ListTopicsRequest {
        include_internal: true,
        ..Default::default()
    };
    assert_eq!(count(internal).await.unwrap(), 8);
    for bad in [
        pattern("("),
        pattern("(a{1000}){1000}"),
        v1::ListTopicsRequest {
            page_size: -1,
            ..Default::default()
        },
        v1::ListTopicsRequest {
            page_token: "guess".to_owned(),
            ..Default::default()
        },
    ] {
        assert_fails(count(bad).await, Code::InvalidArgument, "INVALID_REQUEST");
    }
}

#[tokio::test]
async fn groups_are_listed_committed_to_and_deleted() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let mut groups = GroupServiceClient::new(h.channel.clone());
    let commit = v1::CommitOffsetsRequest {
        group: "billing".to_owned(),
        offsets: vec![v1::PartitionCommit {
            topic_partition: tp("orders", 0),
            offset: 5,
            ..Default::default()
        }],
        ..Default::default()
    };
    assert!(
        groups
            .commit_offsets(commit)
            .await
            .unwrap()
            .into_inner()
            .failures
            .is_empty()
    );
    let get = v1::GetOffsetsRequest {
        group: "billing".to_owned(),
        ..Default::default()
    };
    let offsets = groups.get_offsets(get).await.unwrap().into_inner().offsets;
    assert_eq!((offsets.len(), offsets[0].offset), (1, 5));
    let list = groups
        .list_groups(v1::ListGroupsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(list.groups[0].state, v1::GroupState::Empty as i32);
    let queues = v1::ListGroupsRequest {
        kinds: vec![2],
        ..Default::default()
    };
    assert!(
        groups
            .list_groups(queues)
            .await
            .unwrap()
            .into_inner()
            .groups
            .is_empty()
    );
    let reset = v1::ResetOffsetsRequest {
        group: "billing".to_owned(),
        ..Default::default()
    };
    assert_fails(
        groups.reset_offsets(reset).await,
        Code::InvalidArgument,
        "INVALID_REQUEST",
    );
    let delete = || v1::DeleteGroupRequest {
        group: "billing".to_owned(),
    };
    groups.delete_group(delete()).await.unwrap();
    assert_fails(
        groups.delete_group(delete()).await,
        Code::NotFound,
        "GROUP_NOT_FOUND",
    );
    let describe = v1::GetGroupRequest {
        group: "../x".to_owned(),
    };
    assert_fails(
        groups.get_group(describe).await,
        Code::InvalidArgument,
        "INVALID_REQUEST",
    );
    let beat = v1::HeartbeatRequest {
        group: "g".to_owned(),
        member_epoch: 4,
        member_id: "m".to_owned(),
        ..Default::default()
    };
    assert_fails(
        groups.heartbeat(beat).await,
        Code::FailedPrecondition,
        "UNKNOWN_MEMBER",
    );
}

#[tokio::test]
async fn the_cluster_describes_itself() {
    let h = Harness::start().await;
    h.broker.topic("orders", 3);
    let mut cluster = ClusterServiceClient::new(h.channel.clone());
    let info = cluster
        .get_server_info(v1::GetServerInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((info.node_id, info.cluster_id.len()), (1, 36));
    assert_eq!(info.limits.unwrap().max_request_bytes, 16 << 20);
    let health = cluster
        .get_cluster_health(v1::GetClusterHealthRequest {})
        .await
        .unwrap();
    assert!(health.into_inner().healthy);
    let wanted = v1::GetMetadataRequest {
        topics: vec!["orders".to_owned(), "nope".to_owned()],
        all_topics: false,
    };
    let table = cluster.get_metadata(wanted).await.unwrap().into_inner();
    assert_eq!((table.nodes.len(), table.controller_node_id), (1, Some(1)));
    let by_name = |n: &str| table.topics.iter().find(|t| t.topic == n).unwrap();
    assert_eq!(by_name("orders").partitions.len(), 3);
    assert_eq!(
        by_name("nope").error.as_ref().unwrap().reason,
        v1::ErrorReason::TopicNotFound as i32
    );
    // Before a topic is said not to exist, the other nodes are asked.
    h.broker.topic_elsewhere("new", 2);
    let wanted = v1::GetMetadataRequest {
        topics: vec!["new".to_owned()],
        all_topics: false,
    };
    let table = cluster.get_metadata(wanted).await.unwrap().into_inner();
    assert_eq!(table.topics[0].partitions.len(), 2, "{table:?}");
    let bad = v1::GetMetadataRequest {
        topics: vec!["a/b".to_owned()],
        all_topics: false,
    };
    assert_fails(
        cluster.get_metadata(bad).await,
        Code::InvalidArgument,
        "INVALID_REQUEST",
    );
    let mut call = Request::new(v1::GetServerInfoRequest {});
    call.metadata_mut().insert(
        "varve-required-features",
        "fetch-stream,teleport".parse().unwrap(),
    );
    assert_fails(
        cluster.get_server_info(call).await,
        Code::Unimplemented,
        "UNSUPPORTED_FEATURE",
    );
}

#[tokio::test]
async fn metadata_is_watched() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let mut cluster = ClusterServiceClient::new(h.channel.clone());
    let watch = v1::WatchMetadataRequest {
        topics: Vec::new(),
        all_topics: true,
    };
    let mut stream = cluster.watch_metadata(watch).await.unwrap().into_inner();
    let first = soon(stream.message()).await.unwrap().unwrap();
    assert!(first.full);
    assert_eq!(first.topics.len(), 1);
    h.broker.topic("payments", 2);
    let second = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!((second.full, second.topics.len()), (true, 2));
    assert!(second.metadata_version > first.metadata_version);
    h.shutdown.cancel();
    assert_fails(
        soon(stream.message()).await,
        Code::Unavailable,
        "SHUTTING_DOWN",
    );
}
