//! Three nodes: clients that know one of them find the others.

use std::time::Duration;

use tonic::transport::Channel;
use varve_frontend_kafka::wire::generated::create_topics::{CreatableTopic, CreateTopicsRequest};
use varve_frontend_kafka::wire::generated::metadata::{MetadataRequest, MetadataResponse};
use varve_frontend_kafka::wire::generated::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_proto::v1::GetServerInfoRequest;
use varve_proto::v1::cluster_service_client::ClusterServiceClient;
use varve_record::{BatchBuilder, Compression};
use varve_tests::cluster::Cluster;

use crate::client::{Client, ask};
use crate::clients;

pub(crate) const KAFKA: [(&str, &str); 3] = [
    ("VARVE_LISTENERS__KAFKA__ADDRESS", "127.0.0.1:0"),
    ("VARVE_LISTENERS__KAFKA__TLS__MODE", "insecure"),
    ("VARVE_AUTO__CREATE__TOPICS__ENABLE", "true"),
];

/// Where a node serves this protocol, as it says itself.
pub(crate) async fn kafka_of(cluster: &Cluster, id: usize) -> String {
    let address = format!("http://{}", cluster.node(id).address());
    let channel = Channel::from_shared(address).unwrap().connect().await;
    let mut service = ClusterServiceClient::new(channel.unwrap());
    let info = service.get_server_info(GetServerInfoRequest {}).await;
    info.unwrap().into_inner().listeners["kafka"].clone()
}

pub(crate) async fn metadata(client: &mut Client) -> MetadataResponse {
    let request = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    ask!(client, 12, Metadata, request)
}

fn produce(partition: i32) -> ProduceRequest {
    let mut batch = BatchBuilder::new(Compression::None, None);
    batch.append(1, None, Some(b"v"), &[]).unwrap();
    ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: Text::from_static("spread"),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: Some(batch.build().unwrap()),
            }],
            ..TopicProduceData::default()
        }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_one_node_finds_the_leaders_of_all_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let start = move || Cluster::start_with(&path, 3, &KAFKA);
    let cluster = tokio::task::spawn_blocking(start).await.unwrap();
    let first = kafka_of(&cluster, 1).await;
    let mut client = Client::connect(first.parse().unwrap()).await;
    let topic = CreatableTopic {
        name: Text::from_static("spread"),
        num_partitions: 6,
        replication_factor: 3,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        ..CreateTopicsRequest::default()
    };
    assert_eq!(
        ask!(client, 7, CreateTopics, request).topics[0].error_code,
        0
    );
    let begun = tokio::time::Instant::now();
    let whole = loop {
        assert!(begun.elapsed() < Duration::from_secs(60));
        let known = metadata(&mut client).await;
        let topic = known
            .topics
            .iter()
            .find(|t| t.name == Some(Text::from_static("spread")));
        let led = topic.is_some_and(|t| t.partitions.iter().all(|p| p.error_code == 0));
        if known.brokers.len() == 3 && led {
            break known;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut nodes = std::collections::BTreeMap::new();
    for broker in &whole.brokers {
        let address = format!("{}:{}", broker.host, broker.port);
        assert_eq!(
            address,
            kafka_of(&cluster, usize::try_from(broker.node_id).unwrap()).await
        );
        nodes.insert(
            broker.node_id,
            Client::connect(address.parse().unwrap()).await,
        );
    }
    // Each of them is to name the others below.
    for client in nodes.values_mut() {
        while metadata(client).await.brokers.len() < 3 {
            assert!(begun.elapsed() < Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let topic = whole
        .topics
        .iter()
        .find(|t| t.name == Some(Text::from_static("spread")));
    let leaders: Vec<(i32, i32)> = topic
        .unwrap()
        .partitions
        .iter()
        .map(|p| (p.partition_index, p.leader_id))
        .collect();
    assert!(leaders.iter().any(|(_, leader)| *leader != leaders[0].1));
    for (partition, leader) in leaders {
        for (node, client) in &mut nodes {
            let response = ask!(client, 10, Produce, produce(partition));
            let part = &response.responses[0].partition_responses[0];
            if *node == leader {
                assert_eq!((part.error_code, part.base_offset), (0, 0));
                continue;
            }
            // Whoever asks the wrong node is told the right one, and where it is.
            assert_eq!(part.error_code, ErrorCode::NotLeaderOrFollower.code());
            assert_eq!(part.current_leader.leader_id, leader);
            let endpoint = &response.node_endpoints[0];
            assert_eq!(endpoint.node_id, leader);
            let same = whole.brokers.iter().find(|b| b.node_id == leader);
            assert_eq!(endpoint.port, same.unwrap().port);
        }
    }
    // The same with a client that people use.
    clients::script("confluent_kafka", "confluent.py", &first, "3").await;
    let modules = "kafka, confluent_kafka";
    clients::script(modules, "kafka_transactions.py", &first, "3").await;
    tokio::task::spawn_blocking(move || drop(cluster))
        .await
        .unwrap();
}
