//! Three nodes, one of which dies: leadership moves, and comes back when it is asked for by the Kafka protocol, for the
//! partitions that are named and no other.

use std::time::Duration;

use varve_frontend_kafka::wire::generated::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use varve_frontend_kafka::wire::generated::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, TopicPartitions,
};
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_tests::cluster::Cluster;

use crate::client::{Client, ask};
use crate::cluster::{KAFKA, kafka_of, metadata};
use crate::{groups, records};

/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(90);
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Preferred leaders are node 1's but for one partition, and nodes hold about as much, so that no replica moves.
const TOPICS: [(&str, &[&[i32]]); 3] = [
    ("orders", &[&[1, 2, 3], &[1, 3, 2], &[2, 1, 3]]),
    ("other", &[&[1, 2, 3]]),
    ("alone", &[&[1]]),
];

async fn create(client: &mut Client) {
    for (name, places) in TOPICS {
        let place = |(at, nodes): (i32, &&[i32])| CreatableReplicaAssignment {
            partition_index: at,
            broker_ids: nodes.to_vec(),
        };
        let topic = CreatableTopic {
            name: Text::from_static(name),
            num_partitions: -1,
            replication_factor: -1,
            assignments: (0..).zip(places).map(place).collect(),
            configs: vec![CreatableTopicConfig {
                name: Text::from_static("min.insync.replicas"),
                value: Some(Text::from_static(if name == "alone" { "1" } else { "2" })),
            }],
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..CreateTopicsRequest::default()
        };
        let made = ask!(client, 7, CreateTopics, request);
        assert_eq!(made.topics[0].error_code, 0, "{made:?}");
    }
}

async fn client_of(cluster: &Cluster, id: usize) -> Client {
    let address = kafka_of(cluster, id).await;
    Client::connect(address.parse().unwrap()).await
}

/// Leader, and number of replicas in sync, of each partition of [`TOPICS`], as a node knows them.
async fn known(client: &mut Client) -> Vec<(i32, usize)> {
    let all = metadata(client).await;
    let mut known = Vec::new();
    for (name, _) in TOPICS {
        let mut topics = all.topics.iter();
        let topic = topics.find(|t| t.name.as_ref().is_some_and(|n| n.as_str() == name));
        let mut partitions = topic.map_or(Vec::new(), |t| t.partitions.clone());
        partitions.sort_by_key(|p| p.partition_index);
        let of = partitions.iter();
        known.extend(of.map(|p| (p.leader_id, p.isr_nodes.len())));
    }
    known
}

/// Waits until a node knows it so.
async fn until(client: &mut Client, wanted: [(i32, usize); 5]) {
    let begun = tokio::time::Instant::now();
    loop {
        let now = known(client).await;
        if now == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{now:?} is not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The answer to a request for these partitions; `None`: for all.
async fn elect(
    client: &mut Client,
    (version, election_type): (i16, i8),
    partitions: Option<&[(&'static str, &[i32])]>,
) -> ElectLeadersResponse {
    let of = |(name, numbers): &(&'static str, &[i32])| TopicPartitions {
        topic: Text::from_static(name),
        partitions: numbers.to_vec(),
    };
    let request = ElectLeadersRequest {
        election_type,
        topic_partitions: partitions.map(|p| p.iter().map(of).collect()),
        timeout_ms: 30_000,
    };
    ask!(client, version, ElectLeaders, request)
}

/// What each partition was told.
fn told(response: &ElectLeadersResponse) -> Vec<(String, i32, ErrorCode)> {
    assert_eq!(response.error_code, 0, "{response:?}");
    let mut told = Vec::new();
    for topic in &response.replica_election_results {
        for p in &topic.partition_result {
            let code = ErrorCode::from_code(p.error_code).unwrap();
            told.push((topic.topic.as_str().to_owned(), p.partition_id, code));
        }
    }
    told.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    told
}

fn expected(of: &[(&str, i32, ErrorCode)]) -> Vec<(String, i32, ErrorCode)> {
    let of = of.iter();
    of.map(|(topic, number, code)| ((*topic).to_owned(), *number, *code))
        .collect()
}

/// Twenty more records that are acknowledged, in the first partition of the first topic.
async fn produce(client: &mut Client, acknowledged: &mut Vec<String>) {
    let topic = client.describe("orders").await.topic_id;
    let not_yet = ErrorCode::NotLeaderOrFollower.code();
    for _ in 0..20 {
        let value = acknowledged.len().to_string();
        let begun = tokio::time::Instant::now();
        loop {
            let batch = groups::values(&[&value], None);
            let code = groups::produce(client, topic, batch, None).await;
            if code == 0 {
                break;
            }
            assert!(code == not_yet && begun.elapsed() < PATIENCE, "{code}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        acknowledged.push(value);
    }
}

/// Every record of that partition, from its leader.
async fn read(client: &mut Client, count: usize) -> Vec<String> {
    let topic = client.describe("orders").await.topic_id;
    let mut all = Vec::new();
    let begun = tokio::time::Instant::now();
    while all.len() < count {
        assert!(begun.elapsed() < PATIENCE, "{all:?}");
        let from = i64::try_from(all.len()).unwrap();
        let response = ask!(client, 18, Fetch, records::fetch(18, topic, from));
        for (offset, value) in records::values(&response) {
            assert_eq!(offset, i64::try_from(all.len()).unwrap());
            all.push(value);
        }
    }
    all
}

/// While node 1 is dead: what it leads by preference it does not lead, and nobody else is put in its place.
async fn elections_without_the_preferred_leader(client: &mut Client) {
    let (unknown, not_needed, not_there, nobody) = (
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::ElectionNotNeeded,
        ErrorCode::PreferredLeaderNotAvailable,
        ErrorCode::EligibleLeadersNotAvailable,
    );
    let these: [(&str, &[i32]); 4] = [
        ("orders", &[0, 2, 9, -1]),
        ("missing", &[0]),
        ("a/b", &[0]),
        ("alone", &[0]),
    ];
    for (kind, led, unled) in [
        (PREFERRED, not_there, not_there),
        (UNCLEAN, not_needed, nobody),
    ] {
        let response = elect(client, (2, kind), Some(&these)).await;
        let wanted = [
            ("a/b", 0, unknown),
            ("alone", 0, unled),
            ("missing", 0, unknown),
            ("orders", -1, unknown),
            ("orders", 0, led),
            ("orders", 2, not_needed),
            ("orders", 9, unknown),
        ];
        assert_eq!(told(&response), expected(&wanted));
    }
    let all = elect(client, (2, PREFERRED), None).await;
    let wanted = [
        ("alone", 0, not_there),
        ("orders", 0, not_there),
        ("orders", 1, not_there),
        ("other", 0, not_there),
    ];
    assert_eq!(told(&all), expected(&wanted));
    let all = elect(client, (1, UNCLEAN), None).await;
    assert_eq!(told(&all), expected(&[("alone", 0, nobody)]));
    // There is no third kind.
    let response = elect(client, (2, 2), Some(&these)).await;
    assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_comes_back_where_it_is_asked_for_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let asked_only = ("VARVE_AUTO__LEADER__REBALANCE__ENABLE", "false");
    let start = move || {
        let env: Vec<_> = KAFKA.into_iter().chain([asked_only]).collect();
        Cluster::start_with(&path, 3, &env)
    };
    let mut cluster = tokio::task::spawn_blocking(start).await.unwrap();
    let (mut first, mut second, mut third) = (
        client_of(&cluster, 1).await,
        client_of(&cluster, 2).await,
        client_of(&cluster, 3).await,
    );
    create(&mut first).await;
    for client in [&mut first, &mut second, &mut third] {
        until(client, [(1, 3), (1, 3), (2, 3), (1, 3), (1, 1)]).await;
    }
    let mut acknowledged = Vec::new();
    produce(&mut first, &mut acknowledged).await;

    tokio::task::block_in_place(|| cluster.node_mut(1).kill());
    for client in [&mut second, &mut third] {
        until(client, [(2, 2), (3, 2), (2, 2), (2, 2), (-1, 0)]).await;
    }
    produce(&mut second, &mut acknowledged).await;
    elections_without_the_preferred_leader(&mut second).await;

    tokio::task::block_in_place(|| cluster.node_mut(1).restart());
    let mut first = client_of(&cluster, 1).await;
    // In sync, and not a leader by that.
    for client in [&mut first, &mut second, &mut third] {
        until(client, [(2, 3), (3, 3), (2, 3), (2, 3), (1, 1)]).await;
    }
    produce(&mut second, &mut acknowledged).await;
    // The same one twice: there is one election.
    let one: [(&str, &[i32]); 2] = [("orders", &[0, 0]), ("missing", &[0])];
    let (done, unknown) = (ErrorCode::None, ErrorCode::UnknownTopicOrPartition);
    let response = elect(&mut third, (2, PREFERRED), Some(&one)).await;
    let wanted = [
        ("missing", 0, unknown),
        ("orders", 0, done),
        ("orders", 0, done),
    ];
    assert_eq!(told(&response), expected(&wanted));
    for client in [&mut first, &mut second, &mut third] {
        until(client, [(1, 3), (3, 3), (2, 3), (2, 3), (1, 1)]).await;
    }
    produce(&mut first, &mut acknowledged).await;
    let again: [(&str, &[i32]); 1] = [("orders", &[0])];
    for version in 0..=2 {
        let response = elect(&mut third, (version, PREFERRED), Some(&again)).await;
        let wanted = [("orders", 0, ErrorCode::ElectionNotNeeded)];
        assert_eq!(told(&response), expected(&wanted));
    }

    // All that are left.
    let response = elect(&mut second, (2, PREFERRED), None).await;
    let wanted = [("orders", 1, done), ("other", 0, done)];
    assert_eq!(told(&response), expected(&wanted));
    for client in [&mut first, &mut second, &mut third] {
        until(client, [(1, 3), (1, 3), (2, 3), (1, 3), (1, 1)]).await;
        let response = elect(client, (2, PREFERRED), None).await;
        assert_eq!(told(&response), []);
    }
    let there = read(&mut first, acknowledged.len()).await;
    assert_eq!(there, acknowledged);
    tokio::task::spawn_blocking(move || drop(cluster))
        .await
        .unwrap();
}
