//! Three nodes: clients that know one of them find the others.

use std::collections::BTreeMap;

use tonic::transport::Channel;
use varve_frontend_kafka::wire::generated::create_topics::{CreatableTopic, CreateTopicsRequest};
use varve_frontend_kafka::wire::generated::metadata::{MetadataRequest, MetadataResponse};
use varve_frontend_kafka::wire::generated::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_proto::v1::GetServerInfoRequest;
use varve_proto::v1::cluster_service_client::ClusterServiceClient;
use varve_record::{BatchBuilder, Compression};
use varve_tests::cluster::Cluster;

use crate::client::{Client, Patience, ask};
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

/// The topic's partitions with their leaders, as that answer has them. `None`: it has not all of them, or knows not
/// every node.
fn leaders(known: &MetadataResponse) -> Option<BTreeMap<i32, i32>> {
    let name = Some(Text::from_static("spread"));
    let topic = known.topics.iter().find(|t| t.name == name)?;
    let led = topic.partitions.iter().filter(|p| p.error_code == 0);
    let led: BTreeMap<_, _> = led.map(|p| (p.partition_index, p.leader_id)).collect();
    (led.len() == 6 && known.brokers.len() == 3).then_some(led)
}

/// Waits until a node knows all leaders, and returns them with where the nodes are.
async fn all_led(client: &mut Client) -> (BTreeMap<i32, i32>, MetadataResponse) {
    let patience = Patience::begin();
    loop {
        let known = metadata(client).await;
        if let Some(leaders) = leaders(&known) {
            return (leaders, known);
        }
        patience.again(known).await;
    }
}

/// The answer of the node that leads a partition, which may hear of that later than others do.
async fn first_append(leader: &mut Client, partition: i32) -> ProduceResponse {
    let not_yet = ErrorCode::NotLeaderOrFollower.code();
    let patience = Patience::begin();
    loop {
        let response = ask!(leader, 10, Produce, produce(partition));
        if response.responses[0].partition_responses[0].error_code != not_yet {
            return response;
        }
        patience.again(response).await;
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
    let (_, whole) = all_led(&mut client).await;
    let mut nodes = BTreeMap::new();
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
    let patience = Patience::begin();
    let leaders = loop {
        let mut known = Vec::new();
        for client in nodes.values_mut() {
            known.push(all_led(client).await.0);
        }
        known.dedup();
        match &*known {
            [all] => break all.clone(),
            // A leadership moves, and not all have heard of it.
            _ => patience.again(&known).await,
        }
    };
    assert!(leaders.values().any(|leader| *leader != leaders[&0]));
    for (partition, leader) in leaders {
        for (node, client) in &mut nodes {
            if *node == leader {
                let response = first_append(client, partition).await;
                let part = &response.responses[0].partition_responses[0];
                assert_eq!((part.error_code, part.base_offset), (0, 0));
                continue;
            }
            let response = ask!(client, 10, Produce, produce(partition));
            let part = &response.responses[0].partition_responses[0];
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
