//! What consoles and tools ask before anything else: access rules, quotas, credentials, features, what has configs and
//! which, and who agrees on the metadata.

use varve_frontend_kafka::wire::generated::describe_acls::DescribeAclsRequest;
use varve_frontend_kafka::wire::generated::describe_client_quotas::DescribeClientQuotasRequest;
use varve_frontend_kafka::wire::generated::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResult,
};
use varve_frontend_kafka::wire::generated::describe_quorum::{
    DescribeQuorumRequest, RequestPartitionData, RequestTopicData,
};
use varve_frontend_kafka::wire::generated::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, UserName,
};
use varve_frontend_kafka::wire::generated::list_config_resources::ListConfigResourcesRequest;
use varve_frontend_kafka::wire::generated::update_features::{
    FeatureUpdateKey, UpdateFeaturesRequest,
};
use varve_frontend_kafka::wire::{ErrorCode, Text};

use crate::Bed;
use crate::client::{Client, ask};

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_not_is_said_to_be_none() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    for version in 1..=3 {
        let answer = ask!(
            client,
            version,
            DescribeAcls,
            DescribeAclsRequest::default()
        );
        assert_eq!(answer.error_code, ErrorCode::SecurityDisabled.code());
        assert!(answer.error_message.is_some() && answer.resources.is_empty());
    }
    for version in 0..=1 {
        let request = DescribeClientQuotasRequest::default();
        let answer = ask!(client, version, DescribeClientQuotas, request);
        assert_eq!((answer.error_code, answer.entries), (0, Some(Vec::new())));
    }
    let all = DescribeUserScramCredentialsRequest::default();
    let answer = ask!(client, 0, DescribeUserScramCredentials, all);
    assert_eq!((answer.error_code, answer.results.len()), (0, 0));
    let one = DescribeUserScramCredentialsRequest {
        users: Some(vec![UserName {
            name: Text::from_static("alice"),
        }]),
    };
    let answer = ask!(client, 0, DescribeUserScramCredentials, one);
    let code = ErrorCode::ResourceNotFound.code();
    assert_eq!((answer.error_code, answer.results[0].error_code), (0, code));
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_with_configs_are_listed_by_type() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    // Version 0 asks for subscriptions to metrics alone.
    let request = ListConfigResourcesRequest::default();
    let answer = ask!(client, 0, ListConfigResources, request);
    assert_eq!((answer.error_code, answer.config_resources.len()), (0, 0));
    for (types, expected) in [
        (vec![], vec![(2, "orders"), (4, "1"), (8, "1")]),
        (vec![2], vec![(2, "orders")]),
        (vec![16, 32], vec![]),
        (vec![4], vec![(4, "1")]),
    ] {
        let request = ListConfigResourcesRequest {
            resource_types: types,
        };
        let answer = ask!(client, 1, ListConfigResources, request);
        assert_eq!(answer.error_code, 0);
        let found = answer.config_resources.iter();
        let found = found.filter(|r| !r.resource_name.as_str().starts_with("__"));
        let found: Vec<_> = found
            .map(|r| (r.resource_type, r.resource_name.as_str()))
            .collect();
        assert_eq!(found, expected);
    }
    let request = ListConfigResourcesRequest {
        resource_types: vec![3],
    };
    let answer = ask!(client, 1, ListConfigResources, request);
    assert_eq!(answer.error_code, ErrorCode::UnsupportedVersion.code());
    bed.stop().await;
}

async fn described(client: &mut Client, kind: i8, name: &str) -> DescribeConfigsResult {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: Text::from(name),
            configuration_keys: None,
        }],
        include_synonyms: true,
        include_documentation: true,
    };
    ask!(client, 4, DescribeConfigs, request).results.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn configs_of_nodes_and_groups_have_kafkas_names_and_cannot_be_changed() {
    let settings = [
        ("group.session.timeout.ms", "30000"),
        ("topic.defaults.retention.ms", "7200000"),
    ];
    let bed = Bed::start(&settings).await;
    let mut client = bed.client().await;
    let node = described(&mut client, 4, "1").await;
    assert_eq!(node.error_code, 0);
    let (set, default) = (4, 5);
    for (name, expected, source) in [
        ("log.retention.ms", "7200000", set),
        ("log.retention.hours", "2", set),
        ("group.consumer.session.timeout.ms", "30000", set),
        ("socket.request.max.bytes", "104857600", default),
        ("max.connections", "50000", default),
        ("node.id", "1", set),
        ("num.partitions", "1", set),
    ] {
        let found = node.configs.iter().find(|c| c.name.as_str() == name);
        let found = found.unwrap_or_else(|| panic!("{name}"));
        let value = found.value.as_ref().map(Text::as_str);
        assert_eq!(
            (value, found.config_source),
            (Some(expected), source),
            "{name}"
        );
        assert!(found.read_only && found.documentation.is_some(), "{name}");
        assert_eq!(found.synonyms.len(), 1, "{name}");
    }
    let group = described(&mut client, 32, "any").await;
    let found: Vec<_> = group.configs.iter().map(|c| c.name.as_str()).collect();
    let expected = [
        "consumer.assignment.interval.ms",
        "consumer.heartbeat.interval.ms",
        "consumer.session.timeout.ms",
    ];
    assert_eq!((group.error_code, found), (0, expected.to_vec()));
    let value = group.configs[2].value.as_ref().map(Text::as_str);
    assert_eq!(value, Some("30000"));
    let metrics = described(&mut client, 16, "any").await;
    let found: Vec<_> = metrics.configs.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(found, ["interval.ms", "match", "metrics"]);
    let loggers = described(&mut client, 8, "1").await;
    assert_eq!((loggers.error_code, loggers.configs.len()), (0, 0));
    for (kind, name) in [(4, "7"), (8, "7"), (3, "x")] {
        let refused = described(&mut client, kind, name).await;
        let code = ErrorCode::InvalidRequest.code();
        assert_eq!(refused.error_code, code, "{kind} {name}");
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quorum_is_as_the_node_knows_it() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let topic = |name: &'static str, number| RequestTopicData {
        topic_name: Text::from_static(name),
        partitions: vec![RequestPartitionData {
            partition_index: number,
        }],
    };
    for version in 0..=2 {
        let request = DescribeQuorumRequest {
            topics: vec![topic("__cluster_metadata", 0), topic("orders", 0)],
        };
        let answer = ask!(client, version, DescribeQuorum, request);
        assert_eq!(answer.error_code, 0);
        let of = &answer.topics[0].partitions[0];
        assert_eq!((of.error_code, of.leader_id), (0, 1));
        let voters: Vec<_> = of.current_voters.iter().map(|v| v.replica_id).collect();
        assert_eq!((voters, of.observers.len()), (vec![1], 0));
        assert_eq!(of.current_voters[0].log_end_offset, of.high_watermark);
        let unknown = ErrorCode::UnknownTopicOrPartition.code();
        assert_eq!(answer.topics[1].partitions[0].error_code, unknown);
        assert_eq!(answer.nodes.len(), usize::from(version == 2));
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn features_are_what_they_are() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let bad = ErrorCode::InvalidUpdateVersion.code();
    for (name, level, code) in [
        ("transaction.version", 2, 0),
        ("transaction.version", 1, bad),
        ("metadata.version", 27, bad),
    ] {
        for version in 0..=2 {
            let request = UpdateFeaturesRequest {
                feature_updates: vec![FeatureUpdateKey {
                    feature: Text::from_static(name),
                    max_version_level: level,
                    allow_downgrade: false,
                    upgrade_type: 1,
                }],
                validate_only: version > 0,
                ..UpdateFeaturesRequest::default()
            };
            let answer = ask!(client, version, UpdateFeatures, request);
            let found = match version {
                2 => answer.error_code,
                _ => answer.results[0].error_code,
            };
            assert_eq!(found, code, "{name} {level} in version {version}");
        }
    }
    bed.stop().await;
}
