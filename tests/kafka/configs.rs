//! Configs as Kafka's own programs set and read them: every name that Kafka knows, throttles that tools set in passing,
//! the codec of a topic, batches as large as Kafka's, and topics that were refused.

use bytes::Bytes;
use varve_broker_api::{Broker as _, ConfigChange, Context, UpdateConfigs};
use varve_frontend_kafka::wire::generated::alter_configs as whole;
use varve_frontend_kafka::wire::generated::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use varve_frontend_kafka::wire::generated::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
};
use varve_frontend_kafka::wire::generated::fetch::FetchPartition;
use varve_frontend_kafka::wire::generated::incremental_alter_configs as incremental;
use varve_frontend_kafka::wire::generated::init_producer_id::InitProducerIdRequest;
use varve_frontend_kafka::wire::generated::metadata::{MetadataRequest, MetadataRequestTopic};
use varve_frontend_kafka::wire::generated::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_record::{BatchBuilder, BatchHeader, Compression, iter_batches};
use varve_types::kafka_configs::{Fate, Scope};
use varve_types::{ProducerId, Sequence};

use crate::Bed;
use crate::client::{Client, ask};
use crate::records::fetch;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;

/// The code of an attempt to create a topic, and what was said.
async fn create(client: &mut Client, topic: &str, configs: &[(&str, &str)]) -> (i16, String) {
    let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
        name: Text::from(*name),
        value: Some(Text::from(*value)),
    });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Text::from(topic),
            num_partitions: 1,
            replication_factor: 1,
            configs: configs.collect(),
            ..CreatableTopic::default()
        }],
        ..CreateTopicsRequest::default()
    };
    let made = ask!(client, 7, CreateTopics, request).topics.remove(0);
    let said = made.error_message.unwrap_or(Text::EMPTY);
    (made.error_code, said.as_str().to_owned())
}

async fn described(
    client: &mut Client,
    kind: i8,
    name: &str,
) -> Vec<DescribeConfigsResourceResult> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: Text::from(name),
            configuration_keys: None,
        }],
        ..DescribeConfigsRequest::default()
    };
    let mut response = ask!(client, 4, DescribeConfigs, request);
    let result = response.results.remove(0);
    assert_eq!(result.error_code, 0, "{result:?}");
    result.configs
}

/// The value of a config and where it comes from.
fn value(all: &[DescribeConfigsResourceResult], name: &str) -> Option<(String, i8)> {
    let found = all.iter().find(|config| config.name.as_str() == name)?;
    let value = found.value.clone()?;
    Some((value.as_str().to_owned(), found.config_source))
}

/// The code of a change, and what was said.
async fn alter(
    client: &mut Client,
    (kind, resource): (i8, &str),
    changes: &[(i8, &str, Option<&str>)],
) -> (i16, String) {
    let configs = changes
        .iter()
        .map(|(operation, name, value)| incremental::AlterableConfig {
            name: Text::from(*name),
            config_operation: *operation,
            value: value.map(Text::from),
        });
    let request = incremental::IncrementalAlterConfigsRequest {
        resources: vec![incremental::AlterConfigsResource {
            resource_type: kind,
            resource_name: Text::from(resource),
            configs: configs.collect(),
        }],
        validate_only: false,
    };
    let done = ask!(client, 1, IncrementalAlterConfigs, request)
        .responses
        .remove(0);
    let said = done.error_message.unwrap_or(Text::EMPTY);
    (done.error_code, said.as_str().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_topic_config_of_kafka_is_taken_at_its_default_and_shown() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let known = || {
        Scope::Topic
            .configs()
            .filter_map(|c| Some((c.name, c.default?)))
    };
    let all: Vec<(&str, &str)> = known().collect();
    assert_eq!(
        create(&mut client, "orders", &all).await,
        (0, String::new())
    );
    let told = described(&mut client, TOPIC, "orders").await;
    for (name, default) in known() {
        assert_eq!(value(&told, name), Some((default.to_owned(), 1)), "{name}");
    }
    // A mirror deletes what is at its default in the other cluster, set here or not.
    for config in Scope::Topic.configs() {
        for _ in 0..2 {
            let deletion = [(DELETE, config.name, None)];
            let done = alter(&mut client, (TOPIC, "orders"), &deletion).await;
            assert_eq!(done, (0, String::new()), "{}", config.name);
        }
    }
    let told = described(&mut client, TOPIC, "orders").await;
    assert!(
        told.iter().all(|config| config.config_source == 5),
        "{told:?}"
    );
    for config in Scope::Topic.configs().filter(|config| config.is_listed()) {
        let (found, _) = value(&told, config.name).unwrap();
        if matches!(config.fate, Fate::Kept | Fate::KeptAt(..)) {
            assert_eq!(Some(found.as_str()), config.default, "{}", config.name);
        }
    }
    let unknown = alter(
        &mut client,
        (TOPIC, "orders"),
        &[(DELETE, "retention.mss", None)],
    )
    .await;
    assert_eq!(unknown.0, ErrorCode::InvalidConfig.code());
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_taken_as_people_write_them_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::start_in(dir.path(), &[]).await;
    let mut client = bed.client().await;
    let configs = [
        ("compression.type", "uncompressed"),
        ("segment.jitter.ms", " 86400000 "),
        ("preallocate", "TRUE"),
        ("unclean.leader.election.enable", " False"),
        ("max.message.bytes", "10485760"),
        ("leader.replication.throttled.replicas", "0:1"),
    ];
    assert_eq!(create(&mut client, "orders", &configs).await.0, 0);
    let retention = [(SET, "retention.ms", Some(" 86400000 "))];
    assert_eq!(alter(&mut client, (TOPIC, "orders"), &retention).await.0, 0);
    bed.stop().await;
    let bed = Bed::start_in(dir.path(), &[]).await;
    let mut client = bed.client().await;
    let told = described(&mut client, TOPIC, "orders").await;
    for (name, wanted) in [
        ("compression.type", "uncompressed"),
        ("segment.jitter.ms", "86400000"),
        ("preallocate", "true"),
        ("unclean.leader.election.enable", "false"),
        ("max.message.bytes", "10485760"),
        ("leader.replication.throttled.replicas", "0:1"),
        ("retention.ms", "86400000"),
    ] {
        assert_eq!(value(&told, name), Some((wanted.to_owned(), 1)), "{name}");
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_values_change_nothing() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    assert_eq!(
        create(&mut client, "orders", &[("retention.ms", "5")])
            .await
            .0,
        0
    );
    let long = "9".repeat(32_767);
    for (name, bad) in [
        ("remote.storage.enable", "true"),
        ("segment.jitter.ms", "-1"),
        ("segment.index.bytes", "٤٠٩٦"),
        ("preallocate", "yes"),
        ("message.format.version", "3\0"),
        ("leader.replication.throttled.replicas", "0:one"),
        ("segment.jitter.ms", &long),
        ("leader.replication.throttled.replicas", &long),
        ("max.message.bytes", "104857601"),
    ] {
        let changes = [(SET, "retention.ms", Some("6")), (SET, name, Some(bad))];
        let (code, said) = alter(&mut client, (TOPIC, "orders"), &changes).await;
        assert_eq!(code, ErrorCode::InvalidConfig.code(), "{name}: {said}");
        assert!(
            said.contains(name) && said.contains("nothing was changed"),
            "{said}"
        );
        assert!(said.len() < 1_000, "{}", said.len());
    }
    let told = described(&mut client, TOPIC, "orders").await;
    assert_eq!(value(&told, "retention.ms").unwrap().0, "5");
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_this_server_has_is_marked_so_that_mirrors_leave_it_out() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    assert_eq!(
        create(&mut client, "orders", &[("durability", "replicated")])
            .await
            .0,
        0
    );
    let told = described(&mut client, TOPIC, "orders").await;
    let read_only: Vec<_> = told
        .iter()
        .filter(|c| c.read_only)
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(read_only, ["durability"]);
    // It can be changed all the same.
    let changes = [(SET, "durability", Some("fsync"))];
    assert_eq!(alter(&mut client, (TOPIC, "orders"), &changes).await.0, 0);
    // Set by our own API, in our own word.
    let broker = bed.node.broker();
    let change = UpdateConfigs {
        topic: "orders".parse().unwrap(),
        changes: [(
            "compression.type".to_owned(),
            ConfigChange::Set("none".to_owned()),
        )]
        .into(),
        validate_only: false,
    };
    broker
        .update_topic_configs(&Context::anonymous(), change)
        .await
        .unwrap();
    let told = described(&mut client, TOPIC, "orders").await;
    assert_eq!(value(&told, "compression.type").unwrap().0, "uncompressed");
    assert_eq!(value(&told, "durability").unwrap().0, "fsync");
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_topic_is_not_created_by_asking_about_it() {
    let bed = Bed::start(&[("auto.create.topics.enable", "true")]).await;
    let mut client = bed.client().await;
    let ask_about = |name: &'static str| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(Text::from_static(name)),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    let tiers = [
        ("remote.storage.enable", "true"),
        ("cleanup.policy", "compact"),
    ];
    let (code, said) = create(&mut client, "table", &tiers).await;
    assert_eq!(code, ErrorCode::InvalidConfig.code(), "{said}");
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let response = ask!(client, 9, Metadata, ask_about("table"));
    assert_eq!(response.topics[0].error_code, unknown);
    let response = ask!(client, 9, Metadata, ask_about("other"));
    assert_eq!(
        response.topics[0].error_code, 0,
        "others are created as ever"
    );
    // Once it was created with what can be had, it may come and go.
    assert_eq!(create(&mut client, "table", &tiers[1..]).await.0, 0);
    let response = ask!(client, 9, Metadata, ask_about("table"));
    assert_eq!(response.topics[0].error_code, 0);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_set_and_delete_throttles_of_a_node() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let (leader, follower, dirs) = (
        "leader.replication.throttled.rate",
        "follower.replication.throttled.rate",
        "replica.alter.log.dirs.io.max.bytes.per.second",
    );
    // What kafka-reassign-partitions sets for --throttle, and deletes for --verify and --cancel.
    let set = [
        (SET, leader, Some("1000000")),
        (SET, follower, Some("1000000")),
    ];
    assert_eq!(
        alter(&mut client, (BROKER, "1"), &set).await,
        (0, String::new())
    );
    let told = described(&mut client, BROKER, "1").await;
    for name in [leader, follower] {
        assert_eq!(value(&told, name), Some(("1000000".to_owned(), 2)));
    }
    for bad in ["0", "-1", "many"] {
        let (code, said) = alter(&mut client, (BROKER, "1"), &[(SET, leader, Some(bad))]).await;
        assert_eq!(code, ErrorCode::InvalidConfig.code());
        assert!(said.contains(">= 1; nothing was changed"), "{said}");
    }
    let delete = [leader, follower, dirs, "num.io.threads"].map(|name| (DELETE, name, None));
    for resource in ["1", ""] {
        let done = alter(&mut client, (BROKER, resource), &delete).await;
        assert_eq!(done, (0, String::new()));
    }
    assert_eq!(
        value(&described(&mut client, BROKER, "1").await, leader),
        None
    );
    for (resource, name, words) in [
        ("2", leader, "this is node 1"),
        ("1", "log.retention.ms", "topic.defaults.retention.ms"),
        ("1", "num.io.threads", "nothing was changed"),
        ("1", "no.such.config", "unknown broker config"),
    ] {
        let (code, said) = alter(&mut client, (BROKER, resource), &[(SET, name, Some("5"))]).await;
        assert!(code != 0 && said.contains(words), "{code}: {said}");
    }
    // The older call replaces all that was set.
    assert_eq!(alter(&mut client, (BROKER, "1"), &set).await.0, 0);
    let none = whole::AlterConfigsRequest {
        resources: vec![whole::AlterConfigsResource {
            resource_type: BROKER,
            resource_name: Text::from_static("1"),
            configs: Vec::new(),
        }],
        validate_only: false,
    };
    assert_eq!(
        ask!(client, 2, AlterConfigs, none).responses[0].error_code,
        0
    );
    assert_eq!(
        value(&described(&mut client, BROKER, "1").await, leader),
        None
    );
    bed.stop().await;
}

/// The code of an append, and its offset.
async fn produce(client: &mut Client, topic: &str, records: Bytes) -> (i16, i64) {
    let request = ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: Text::from(topic),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(records),
            }],
            ..TopicProduceData::default()
        }],
    };
    let response = ask!(client, 9, Produce, request);
    let part = &response.responses[0].partition_responses[0];
    (part.error_code, part.base_offset)
}

/// Everything in the partition.
async fn stored(
    client: &mut Client,
    topic: &'static str,
) -> Vec<(BatchHeader, Vec<Option<Bytes>>)> {
    let mut request = fetch(11, varve_frontend_kafka::wire::Uuid::ZERO, 0);
    request.topics[0].topic = Text::from_static(topic);
    request.max_bytes = i32::MAX;
    request.topics[0].partitions = vec![FetchPartition {
        partition: 0,
        partition_max_bytes: i32::MAX,
        ..FetchPartition::default()
    }];
    let mut response = ask!(client, 11, Fetch, request);
    let part = response.responses.remove(0).partitions.remove(0);
    assert_eq!(part.error_code, 0);
    let batches = iter_batches(part.records.unwrap()).map(|batch| {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        let values = batch.records().unwrap().map(|record| record.unwrap().value);
        (batch.header, values.collect())
    });
    batches.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_stored_in_the_codec_of_their_topic() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    for (topic, codec) in [
        ("uncompressed", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ] {
        assert_eq!(
            create(&mut client, topic, &[("compression.type", topic)])
                .await
                .0,
            0
        );
        let session = InitProducerIdRequest {
            transaction_timeout_ms: 1_000,
            ..InitProducerIdRequest::default()
        };
        let session = ask!(client, 4, InitProducerId, session);
        let producer = ProducerId {
            id: session.producer_id,
            epoch: session.producer_epoch,
        };
        let mut next = 0;
        for sent in Compression::ALL {
            let mut builder = BatchBuilder::new(sent, None);
            for at in 0..20 {
                let value = format!("value {at}").repeat(500);
                builder
                    .append(1_000 + at, Some(b"k"), Some(value.as_bytes()), &[])
                    .unwrap();
            }
            builder.set_producer(producer, Sequence::new(next).unwrap());
            let batch = builder.build().unwrap();
            // A repeat is known as one, whatever became of the bytes.
            for _ in 0..2 {
                let done = produce(&mut client, topic, batch.clone()).await;
                assert_eq!(done, (0, next.into()), "{sent} into {topic}");
            }
            next += 20;
        }
        let stored = stored(&mut client, topic).await;
        assert_eq!(stored.len(), Compression::ALL.len());
        for (header, values) in &stored {
            assert_eq!(header.compression(), codec, "{topic}");
            assert_eq!(header.max_timestamp, 1_019);
            assert_eq!(
                header.producer().map(|(producer, _)| producer),
                Some(producer)
            );
            assert_eq!(values.len(), 20);
        }
        assert!(
            stored.windows(2).all(|pair| pair[0].1 == pair[1].1),
            "{topic}"
        );
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_may_be_as_large_as_kafkas() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let configs = [("max.message.bytes", "41943040")];
    assert_eq!(create(&mut client, "large", &configs).await.0, 0);
    assert_eq!(create(&mut client, "small", &[]).await.0, 0);
    // Larger than our own builder makes: one record, its header written by hand.
    let value = vec![7_u8; 20 * 1024 * 1024];
    let batch = large_batch(&value);
    assert_eq!(produce(&mut client, "large", batch.clone()).await, (0, 0));
    let too_large = ErrorCode::MessageTooLarge.code();
    assert_eq!(produce(&mut client, "small", batch).await.0, too_large);
    let stored = stored(&mut client, "large").await;
    assert_eq!(stored.len(), 1);
    assert!(stored[0].1[0].as_deref() == Some(&value[..]));
    bed.stop().await;
}

/// One record without a codec.
fn large_batch(value: &[u8]) -> Bytes {
    let mut small = BatchBuilder::new(Compression::None, None);
    small.append(1_000, None, Some(b"v"), &[]).unwrap();
    let header = *small.build_batch().unwrap().header();
    let mut body = Vec::new();
    // Attributes, no time and offset of its own, no key; then the value and no headers.
    let mut record = vec![0, 0, 0, 1];
    varint(&mut record, value.len());
    record.extend_from_slice(value);
    record.push(0);
    varint(&mut body, record.len());
    body.extend_from_slice(&record);
    varve_record::seal(header, &body)
}

fn varint(out: &mut Vec<u8>, number: usize) {
    let mut left = number << 1;
    while left >= 0x80 {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}
