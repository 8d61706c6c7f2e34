//! What clients and tools for Kafka take for granted beyond the plain way: names that begin with `__`, commits of any
//! position, elections that nobody needs, and being told which records of a batch were the cause of its refusal.

use varve_broker_api::{Broker as _, Context};
use varve_frontend_kafka::wire::generated::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use varve_frontend_kafka::wire::generated::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use varve_frontend_kafka::wire::generated::metadata::{MetadataRequest, MetadataRequestTopic};
use varve_frontend_kafka::wire::generated::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use varve_frontend_kafka::wire::generated::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use varve_frontend_kafka::wire::generated::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_record::{BatchBuilder, Compression};

use crate::Bed;
use crate::client::ask;

#[tokio::test(flavor = "multi_thread")]
async fn names_that_begin_with_underscores_are_anybodys() {
    let bed = Bed::start(&[("auto.create.topics.enable", "true")]).await;
    let mut client = bed.client().await;
    let name = "__debezium-heartbeat.orders";
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(Text::from_static(name)),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    let response = ask!(client, 12, Metadata, request);
    let topic = &response.topics[0];
    assert_eq!((topic.error_code, topic.is_internal), (0, false));
    let produced = ask!(client, 9, Produce, keyed(name, &[true]));
    let part = &produced.responses[0].partition_responses[0];
    assert_eq!((part.error_code, part.base_offset), (0, 0));
    // The same to the node's own API.
    let known = bed
        .node
        .broker()
        .topic(&Context::anonymous(), &name.parse().unwrap());
    assert!(!known.unwrap().name.is_internal());
    bed.stop().await;
}

/// A batch of records, each with a key or without.
fn keyed(topic: &'static str, keys: &[bool]) -> ProduceRequest {
    let mut batch = BatchBuilder::new(Compression::Lz4, None);
    for with in keys {
        let key: Option<&[u8]> = with.then_some(b"k");
        batch.append(1, key, Some(b"v"), &[]).unwrap();
    }
    ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: Text::from_static(topic),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(batch.build().unwrap()),
            }],
            ..TopicProduceData::default()
        }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_key_are_named_where_a_compacted_topic_refuses_them() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Text::from_static("table"),
            num_partitions: 1,
            replication_factor: 1,
            configs: vec![CreatableTopicConfig {
                name: Text::from_static("cleanup.policy"),
                value: Some(Text::from_static("compact")),
            }],
            ..CreatableTopic::default()
        }],
        ..CreateTopicsRequest::default()
    };
    let made = ask!(client, 7, CreateTopics, request);
    assert_eq!(made.topics[0].error_code, 0);
    for version in [3, 7, 8, 12] {
        let refused = ask!(
            client,
            version,
            Produce,
            keyed("table", &[true, false, true, false])
        );
        let part = &refused.responses[0].partition_responses[0];
        assert_eq!(part.error_code, ErrorCode::InvalidRecord.code());
        let named: Vec<i32> = part.record_errors.iter().map(|r| r.batch_index).collect();
        let expected: &[i32] = if version < 8 { &[] } else { &[1, 3] };
        assert_eq!(named, expected, "version {version}");
    }
    // What the producer then sends without them goes in.
    let rest = ask!(client, 9, Produce, keyed("table", &[true, true]));
    let part = &rest.responses[0].partition_responses[0];
    assert_eq!((part.error_code, part.base_offset), (0, 0));
    assert!(part.record_errors.is_empty());
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_is_not_needed_where_the_preferred_leader_leads() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 2).await;
    let wanted = |name: &'static str, partitions: Vec<i32>| ElectLeadersRequest {
        election_type: 0,
        topic_partitions: Some(vec![TopicPartitions {
            topic: Text::from_static(name),
            partitions,
        }]),
        timeout_ms: 1_000,
    };
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let not_needed = ErrorCode::ElectionNotNeeded.code();
    for (request, codes) in [
        (
            wanted("orders", vec![1, 0, 7]),
            vec![(1, not_needed), (0, not_needed), (7, unknown)],
        ),
        (wanted("missing", vec![0]), vec![(0, unknown)]),
        (wanted("a/b", vec![0]), vec![(0, unknown)]),
    ] {
        let response = ask!(client, 2, ElectLeaders, request);
        assert_eq!(response.error_code, 0);
        let found = &response.replica_election_results[0].partition_result;
        let found: Vec<_> = found
            .iter()
            .map(|p| (p.partition_id, p.error_code))
            .collect();
        assert_eq!(found, codes);
    }
    // Of all partitions: there is none to elect a leader for.
    let all = ElectLeadersRequest {
        topic_partitions: None,
        ..wanted("orders", Vec::new())
    };
    let response = ask!(client, 2, ElectLeaders, all);
    assert_eq!(response.error_code, 0);
    assert!(response.replica_election_results.is_empty());
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_the_log_has_not_reached_can_be_committed() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("orders", 1).await;
    let commit = |name: &'static str| OffsetCommitRequest {
        group_id: Text::from_static("mirror"),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: Text::from_static(name),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 1_000,
                committed_leader_epoch: -1,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    for (name, code) in [
        ("orders", ErrorCode::None),
        ("missing", ErrorCode::UnknownTopicOrPartition),
    ] {
        let done = ask!(client, 8, OffsetCommit, commit(name));
        assert_eq!(done.topics[0].partitions[0].error_code, code.code());
    }
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: Text::from_static("mirror"),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: Text::from_static("orders"),
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let found = ask!(client, 8, OffsetFetch, request);
    let found = &found.groups[0].topics[0].partitions[0];
    assert_eq!((found.error_code, found.committed_offset), (0, 1_000));
    bed.stop().await;
}
