//! Topics and their configs by the Kafka protocol, seen by both APIs.

use varve_broker_api::{Broker as _, Context};
use varve_frontend_kafka::wire::generated::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use varve_frontend_kafka::wire::generated::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use varve_frontend_kafka::wire::generated::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use varve_frontend_kafka::wire::generated::describe_cluster::DescribeClusterRequest;
use varve_frontend_kafka::wire::generated::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use varve_frontend_kafka::wire::generated::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, RequestCursor, TopicRequest,
};
use varve_frontend_kafka::wire::generated::incremental_alter_configs as incremental;
use varve_frontend_kafka::wire::generated::metadata::{MetadataRequest, MetadataRequestTopic};
use varve_frontend_kafka::wire::{ErrorCode, Text, Uuid};

use crate::Bed;
use crate::client::ask;

fn creation(name: &'static str, partitions: i32, replicas: i16) -> CreateTopicsRequest {
    let topic = CreatableTopic {
        name: Text::from_static(name),
        num_partitions: partitions,
        replication_factor: replicas,
        ..CreatableTopic::default()
    };
    CreateTopicsRequest {
        topics: vec![topic],
        ..CreateTopicsRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_made_described_grown_and_deleted_in_every_version() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let ctx = Context::anonymous();
    for version in 0..=7 {
        let response = ask!(client, version, CreateTopics, creation("orders", 3, 1));
        assert_eq!(response.topics[0].error_code, 0, "version {version}");
        let known = bed.node.broker().topic(&ctx, &"orders".parse().unwrap());
        assert_eq!(known.unwrap().partitions, 3);
        let again = ask!(client, version, CreateTopics, creation("orders", 3, 1));
        let exists = ErrorCode::TopicAlreadyExists.code();
        assert_eq!(again.topics[0].error_code, exists);
        for version in 0..=13 {
            let request = MetadataRequest {
                topics: (version > 0).then(Vec::new).or(Some(Vec::new())),
                ..MetadataRequest::default()
            };
            let request = match version {
                0 => request,
                _ => MetadataRequest {
                    topics: None,
                    ..request
                },
            };
            let response = ask!(client, version, Metadata, request);
            assert_eq!(response.brokers.len(), 1);
            assert_eq!(response.brokers[0].port, i32::from(bed.kafka.port()));
            let topic = &response.topics[0];
            assert_eq!(topic.name, Some(Text::from_static("orders")));
            assert_eq!(topic.partitions.len(), 3);
            assert_eq!(topic.partitions[2].leader_id, 1);
        }
        let grow = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: Text::from_static("orders"),
                count: 5,
                assignments: None,
            }],
            ..CreatePartitionsRequest::default()
        };
        let grown = ask!(client, version.min(3), CreatePartitions, grow.clone());
        assert_eq!(grown.results[0].error_code, 0, "{grown:?}");
        let fewer = ask!(client, version.min(3), CreatePartitions, grow);
        let invalid = ErrorCode::InvalidPartitions.code();
        assert_eq!(fewer.results[0].error_code, invalid);
        let deletion = match version.min(6) {
            6 => DeleteTopicsRequest {
                topics: vec![DeleteTopicState {
                    name: None,
                    topic_id: client.describe("orders").await.topic_id,
                }],
                ..DeleteTopicsRequest::default()
            },
            _ => DeleteTopicsRequest {
                topic_names: vec![Text::from_static("orders")],
                ..DeleteTopicsRequest::default()
            },
        };
        let gone = ask!(client, version.min(6), DeleteTopics, deletion.clone());
        assert_eq!(gone.responses[0].error_code, 0, "{gone:?}");
        let unknown = ask!(client, version.min(6), DeleteTopics, deletion);
        assert_ne!(unknown.responses[0].error_code, 0);
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_is_refused_by_the_protocols_codes() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let config = |name: &'static str, value: &'static str| CreatableTopicConfig {
        name: Text::from_static(name),
        value: Some(Text::from_static(value)),
    };
    let mut with_config = creation("a", 1, 1);
    with_config.topics[0].configs = vec![config("retention.mss", "1")];
    let mut internal = creation("__varve_mine", 1, 1);
    internal.timeout_ms = 5;
    for (request, code) in [
        (creation("a/b", 1, 1), ErrorCode::InvalidTopicException),
        (creation("a", 0, 1), ErrorCode::InvalidPartitions),
        (creation("a", 1, 0), ErrorCode::InvalidReplicationFactor),
        (creation("a", 1, 3), ErrorCode::InvalidReplicationFactor),
        (with_config, ErrorCode::InvalidConfig),
        (internal, ErrorCode::InvalidTopicException),
    ] {
        let response = ask!(client, 7, CreateTopics, request);
        assert_eq!(response.topics[0].error_code, code.code(), "{response:?}");
        assert!(response.topics[0].error_message.is_some());
    }
    let placed = CreatableReplicaAssignment {
        partition_index: 0,
        broker_ids: vec![1, 2],
    };
    let mut two = creation("a", -1, -1);
    two.topics[0].assignments = vec![placed];
    let response = ask!(client, 7, CreateTopics, two);
    let assignment = ErrorCode::InvalidReplicaAssignment.code();
    assert_eq!(response.topics[0].error_code, assignment, "{response:?}");
    let mut dry = creation("dry", 1, 1);
    dry.validate_only = true;
    assert_eq!(ask!(client, 7, CreateTopics, dry).topics[0].error_code, 0);
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(client.describe("dry").await.error_code, unknown);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_creates_a_topic_only_where_both_sides_allow_it() {
    for (allowed, asked, made) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
    ] {
        let setting = (
            "auto.create.topics.enable",
            if allowed { "true" } else { "false" },
        );
        let bed = Bed::start(&[setting, ("num.partitions", "2")]).await;
        let mut client = bed.client().await;
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(Text::from_static("new")),
                ..MetadataRequestTopic::default()
            }]),
            allow_auto_topic_creation: asked,
            ..MetadataRequest::default()
        };
        let response = ask!(client, 9, Metadata, request);
        let topic = &response.topics[0];
        assert_eq!(
            (topic.error_code == 0, topic.partitions.len()),
            (made, if made { 2 } else { 0 })
        );
        bed.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_replicas_than_nodes_become_as_many_where_that_is_wanted() {
    let bed = Bed::start(&[("create.topics.lower.replication", "true")]).await;
    let mut client = bed.client().await;
    let response = ask!(client, 7, CreateTopics, creation("three", 1, 3));
    assert_eq!(response.topics[0].error_code, 0);
    assert_eq!(response.topics[0].replication_factor, 1);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configs_are_told_and_changed() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: Text::from_static("orders"),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
    };
    let change = |operation: i8, name: &'static str, value: &'static str| {
        let config = incremental::AlterableConfig {
            name: Text::from_static(name),
            config_operation: operation,
            value: Some(Text::from_static(value)),
        };
        incremental::IncrementalAlterConfigsRequest {
            resources: vec![incremental::AlterConfigsResource {
                resource_type: 2,
                resource_name: Text::from_static("orders"),
                configs: vec![config],
            }],
            validate_only: false,
        }
    };
    for (operation, name, value, code) in [
        (0, "retention.ms", "1000", 0),
        (2, "cleanup.policy", "compact", 0),
        (
            0,
            "remote.storage.enable",
            "true",
            ErrorCode::InvalidConfig.code(),
        ),
        (9, "retention.ms", "1", ErrorCode::InvalidConfig.code()),
    ] {
        let request = change(operation, name, value);
        let response = ask!(client, 1, IncrementalAlterConfigs, request);
        assert_eq!(response.responses[0].error_code, code, "{response:?}");
    }
    // Which of the two would count?
    let mut twice = change(0, "retention.ms", "2000");
    let again = change(0, "retention.ms", "3000").resources.remove(0);
    twice.resources[0].configs.extend(again.configs);
    let response = ask!(client, 1, IncrementalAlterConfigs, twice);
    let refused = &response.responses[0];
    assert_eq!(
        refused.error_code,
        ErrorCode::InvalidRequest.code(),
        "{response:?}"
    );
    for version in 0..=4 {
        let request = match version {
            0 => DescribeConfigsRequest {
                include_synonyms: false,
                include_documentation: false,
                ..request.clone()
            },
            1..=2 => DescribeConfigsRequest {
                include_documentation: false,
                ..request.clone()
            },
            _ => request.clone(),
        };
        let response = ask!(client, version, DescribeConfigs, request);
        let configs = &response.results[0].configs;
        let value = |name: &str| {
            let found = configs.iter().find(|c| c.name.as_str() == name).unwrap();
            found.value.clone().unwrap().as_str().to_owned()
        };
        assert_eq!(value("retention.ms"), "1000");
        assert_eq!(value("cleanup.policy"), "delete,compact");
        assert_eq!(value("durability"), "fsync");
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_what_clients_go_by() {
    let bed = Bed::start(&[("num.partitions", "7")]).await;
    let mut client = bed.client().await;
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 4,
            resource_name: Text::from_static("1"),
            configuration_keys: None,
        }],
        ..DescribeConfigsRequest::default()
    };
    let told = ask!(client, 4, DescribeConfigs, request).results.remove(0);
    assert_eq!(told.error_code, 0);
    let value = |name: &str| {
        let found = told.configs.iter().find(|c| c.name.as_str() == name);
        found.map(|c| (c.value.clone().unwrap(), c.read_only))
    };
    for (name, wanted) in [
        ("num.partitions", "7"),
        ("broker.id", "1"),
        ("default.replication.factor", "1"),
        ("auto.create.topics.enable", "false"),
    ] {
        assert_eq!(value(name), Some((Text::from_static(wanted), true)));
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_are_told_in_parts() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("a", 3).await;
    client.create("b", 3).await;
    let mut request = DescribeTopicPartitionsRequest {
        response_partition_limit: 2,
        ..DescribeTopicPartitionsRequest::default()
    };
    let mut seen = Vec::new();
    loop {
        let response = ask!(client, 0, DescribeTopicPartitions, request.clone());
        for topic in &response.topics {
            let name = topic.name.clone().unwrap();
            let of = |p: i32| format!("{name}{p}");
            seen.extend(topic.partitions.iter().map(|p| of(p.partition_index)));
        }
        let Some(cursor) = response.next_cursor else {
            break;
        };
        request.cursor = Some(RequestCursor {
            topic_name: cursor.topic_name,
            partition_index: cursor.partition_index,
        });
    }
    assert_eq!(seen, ["a0", "a1", "a2", "b0", "b1", "b2"]);
    let cluster = ask!(
        client,
        1,
        DescribeCluster,
        DescribeClusterRequest {
            endpoint_type: 1,
            ..DescribeClusterRequest::default()
        }
    );
    assert_eq!((cluster.error_code, cluster.brokers.len()), (0, 1));
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_found_by_their_ids_whatever_name_comes_with_them() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("a", 2).await;
    let known = client.describe("a").await;
    for version in 10..=13 {
        // Java's client leaves the name empty, others null.
        for name in [Some(Text::EMPTY), None] {
            for (topic_id, code) in [
                (known.topic_id, ErrorCode::None),
                (Uuid(77), ErrorCode::UnknownTopicId),
            ] {
                let name = name.clone().or((version < 12).then_some(Text::EMPTY));
                let request = MetadataRequest {
                    topics: Some(vec![MetadataRequestTopic { topic_id, name }]),
                    ..MetadataRequest::default()
                };
                let told = ask!(client, version, Metadata, request).topics.remove(0);
                assert_eq!((told.error_code, told.topic_id), (code.code(), topic_id));
                let found = if code == ErrorCode::None { 2 } else { 0 };
                assert_eq!(told.partitions.len(), found);
            }
        }
    }
    // What may be done with topics is told without being asked for, and names that cannot be are told apart.
    let request = DescribeTopicPartitionsRequest {
        topics: ["a", "b", "c/d"]
            .map(|name| TopicRequest {
                name: Text::from_static(name),
            })
            .to_vec(),
        response_partition_limit: 10,
        ..DescribeTopicPartitionsRequest::default()
    };
    let told = ask!(client, 0, DescribeTopicPartitions, request).topics;
    let codes: Vec<i16> = told.iter().map(|t| t.error_code).collect();
    let (unknown, invalid) = (
        ErrorCode::UnknownTopicOrPartition.code(),
        ErrorCode::InvalidTopicException.code(),
    );
    assert_eq!(codes, [0, unknown, invalid]);
    assert!(told.iter().all(|t| t.topic_authorized_operations > 0));
    bed.stop().await;
}
