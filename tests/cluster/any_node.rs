//! Three nodes, any of which answers: calls as a client without any library makes them, through the generated
//! stubs, and every command of the command line.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Code, Request, Response};
use varve_client::RpcError;
use varve_proto::v1;
use varve_proto::v1::cluster_service_client::ClusterServiceClient;
use varve_proto::v1::consumer_service_client::ConsumerServiceClient;
use varve_proto::v1::group_service_client::GroupServiceClient;
use varve_proto::v1::producer_service_client::ProducerServiceClient;
use varve_proto::v1::topic_service_client::TopicServiceClient;
use varve_tests::cluster::Cluster;
use varve_tls::{ClientFiles, ClientTls, Connector};
use varve_types::ErrorKind;

use crate::secure;

/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 3;

async fn channel(cluster: &Cluster, id: usize) -> Channel {
    let node = cluster.node(id);
    let tls = node.client_ca().map(|ca| {
        let files = ClientFiles {
            ca: Some(ca.to_owned()),
            identity: None,
        };
        ClientTls::load(files).unwrap()
    });
    let endpoint = Channel::from_shared(format!("http://{}", node.address())).unwrap();
    let connector = Connector::new(tls, None);
    endpoint.connect_with_connector(connector).await.unwrap()
}

fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn text<T>(response: &Response<T>, key: &str) -> Option<String> {
    let value = response.metadata().get(key)?;
    Some(value.to_str().unwrap().to_owned())
}

fn tp(partition: i32) -> Option<v1::TopicPartition> {
    Some(v1::TopicPartition {
        topic: "orders".to_owned(),
        partition,
    })
}

fn create(cluster: &Cluster) -> Vec<usize> {
    let args = ["topic", "create", "orders", "-p", "3", "-r", "3"];
    let made = varve_tests::run(cluster.node(1), &args);
    assert!(made.status.success(), "{made:?}");
    cluster.wait_in_sync("orders", 3);
    let leaders = cluster.partitions("orders").unwrap();
    leaders
        .into_iter()
        .map(|(leader, _)| leader.unwrap())
        .collect()
}

fn record(value: &str) -> v1::Record {
    v1::Record {
        value: Some(value.as_bytes().to_vec().into()),
        ..Default::default()
    }
}

fn produce(partition: Option<i32>, values: &[&str]) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: "orders".to_owned(),
        partition,
        records: values.iter().map(|value| record(value)).collect(),
        ..Default::default()
    }
}

fn fetch(partition: i32) -> v1::FetchRequest {
    v1::FetchRequest {
        topic: "orders".to_owned(),
        partition,
        ..Default::default()
    }
}

/// Appends and reads through every node, and what the answers say of who gave them.
async fn append_and_read(cluster: &Cluster, leaders: &[usize]) {
    for id in 1..=3 {
        let channel = channel(cluster, id).await;
        let mut producer = ProducerServiceClient::new(channel.clone());
        let mut consumer = ConsumerServiceClient::new(channel);
        for partition in 0..PARTITIONS {
            let leader = leaders[partition as usize];
            let value = format!("through {id}");
            let request = call(produce(Some(partition), &[&value]));
            let answer = producer.produce(request).await.unwrap();
            assert_eq!(text(&answer, "varve-node"), Some(id.to_string()));
            let told = text(&answer, "varve-leader");
            let wanted = format!("{};epoch=", cluster.node(leader).address());
            assert_eq!(told.is_some(), leader != id);
            assert!(told.is_none_or(|told| told.starts_with(&wanted)));
            let read = consumer.fetch(call(fetch(partition))).await.unwrap();
            let records = &read.get_ref().records;
            assert_eq!(records.len(), id);
            assert_eq!(records[id - 1].value.as_deref(), Some(value.as_bytes()));
            // Who can find the leader is told instead.
            for (key, value) in [("varve-forward", "never"), ("varve-hop", "9")] {
                let mut request = call(fetch(partition));
                request.metadata_mut().insert(key, value.parse().unwrap());
                match consumer.fetch(request).await {
                    Ok(_) => assert_eq!(leader, id),
                    Err(status) => {
                        assert_ne!(leader, id);
                        assert_eq!(status.code(), Code::FailedPrecondition);
                        let error = RpcError::from_status(&status);
                        assert_eq!(error.kind, Some(ErrorKind::NotLeader));
                        let address = error.leader.unwrap().address;
                        assert_eq!(address, cluster.node(leader).address());
                    }
                }
            }
        }
        // A long poll is held where the records come.
        let mut held = fetch(0);
        held.start = Some(v1::StartPosition {
            position: Some(v1::start_position::Position::Offset(id as i64)),
        });
        held.max_wait = Some(prost_types::Duration {
            seconds: 2,
            nanos: 0,
        });
        let empty = consumer.fetch(call(held)).await.unwrap().into_inner();
        assert!(empty.records.is_empty());
        assert_eq!(empty.next_offset, id as i64);
    }
}

/// Requests that are split between leaders.
async fn many_partitions(cluster: &Cluster) {
    for id in 1..=3 {
        let channel = channel(cluster, id).await;
        let mut consumer = ConsumerServiceClient::new(channel.clone());
        let query = |partition| v1::OffsetQuery {
            isolation: v1::Isolation::Unspecified.into(),
            with_timestamp: false,
            topic_partition: tp(partition),
            position: None,
        };
        // One that does not exist has an error of its own.
        let queries = [2, 0, 7, 1].map(query).to_vec();
        let request = call(v1::ListOffsetsRequest { queries });
        let answer = consumer.list_offsets(request).await.unwrap().into_inner();
        let outcomes = answer.results.into_iter().map(|r| match r.outcome {
            Some(v1::offset_result::Outcome::Offsets(found)) => found.high_watermark,
            _ => -1,
        });
        assert_eq!(outcomes.collect::<Vec<_>>(), [3, 3, -1, 3], "through {id}");
        let request = v1::SubscribeRequest {
            topic: "orders".to_owned(),
            end: Some(v1::EndPosition {
                position: Some(v1::end_position::Position::CurrentEnd(true)),
            }),
            ..Default::default()
        };
        let mut events = consumer.subscribe(request).await.unwrap().into_inner();
        let mut records = 0;
        while let Some(event) = events.next().await {
            match event.unwrap().event {
                Some(v1::subscribe_response::Event::Records(chunk)) => {
                    records += chunk.records.len();
                }
                Some(v1::subscribe_response::Event::Closed(closed)) => {
                    assert_eq!(closed.error, None);
                }
                _ => {}
            }
        }
        assert_eq!(records, 9, "through {id}");
    }
    for id in 1..=3 {
        let mut topics = TopicServiceClient::new(channel(cluster, id).await);
        let delete = |partition| v1::DeleteBefore {
            topic_partition: tp(partition),
            before: Some(v1::delete_before::Before::Offset(id as i64)),
        };
        let deletes = [1, 2, 0].map(delete).to_vec();
        let request = call(v1::DeleteRecordsRequest { deletes });
        let answer = topics.delete_records(request).await.unwrap().into_inner();
        for result in answer.results {
            let wanted = v1::delete_records_result::Outcome::LogStartOffset(id as i64);
            assert_eq!(result.outcome, Some(wanted), "through {id}");
        }
    }
}

async fn groups(cluster: &Cluster) {
    // Names enough that every node coordinates some.
    let names: Vec<String> = (0..12).map(|n| format!("group-{n}")).collect();
    for (index, group) in names.iter().enumerate() {
        let id = index % 3 + 1;
        let mut service = GroupServiceClient::new(channel(cluster, id).await);
        let commit = |partition| v1::PartitionCommit {
            topic_partition: tp(partition),
            offset: 2,
            ..Default::default()
        };
        let request = v1::CommitOffsetsRequest {
            group: group.clone(),
            offsets: (0..PARTITIONS).map(commit).collect(),
            ..Default::default()
        };
        let answer = service.commit_offsets(call(request)).await.unwrap();
        assert_eq!(answer.into_inner().failures, []);
    }
    let mut coordinators = std::collections::BTreeSet::new();
    for id in 1..=3 {
        let mut service = GroupServiceClient::new(channel(cluster, id).await);
        let answer = service.list_groups(call(v1::ListGroupsRequest::default()));
        let listed = answer.await.unwrap().into_inner().groups;
        let mut wanted = names.clone();
        wanted.sort();
        let found: Vec<String> = listed.iter().map(|g| g.group.clone()).collect();
        assert_eq!(found, wanted, "through {id}");
        coordinators.extend(listed.iter().map(|g| g.coordinator_node_id));
        for (index, group) in names.iter().enumerate() {
            let request = v1::GetGroupRequest {
                group: group.clone(),
            };
            let answer = service.get_group(call(request)).await.unwrap();
            assert_eq!(answer.into_inner().group.unwrap().name, *group);
            let request = v1::GetOffsetsRequest {
                group: group.clone(),
                include_lag: true,
                ..Default::default()
            };
            let answer = service.get_offsets(call(request)).await.unwrap();
            let lags = answer.into_inner().offsets.into_iter().map(|o| o.lag);
            assert_eq!(lags.collect::<Vec<_>>(), [Some(1); 3], "through {id}");
            if index % 3 + 1 != id {
                continue;
            }
            let target = |target| v1::ResetOffsetsRequest {
                group: group.clone(),
                topics: vec!["orders".to_owned()],
                target: Some(target),
                validate_only: true,
                ..Default::default()
            };
            let end = v1::StartPosition {
                position: Some(v1::start_position::Position::Anchor(
                    v1::StartAnchor::Latest.into(),
                )),
            };
            let targets = [
                (v1::reset_offsets_request::Target::Position(end), 3),
                (v1::reset_offsets_request::Target::ShiftBy(-1), 1),
                (v1::reset_offsets_request::Target::ShiftBy(-9), 0),
                (
                    v1::reset_offsets_request::Target::FromGroup(names[0].clone()),
                    2,
                ),
            ];
            for (to, wanted) in targets {
                let answer = service.reset_offsets(call(target(to))).await.unwrap();
                let offsets = answer.into_inner().offsets.into_iter().map(|o| o.offset);
                assert_eq!(offsets.collect::<Vec<_>>(), [wanted; 3], "through {id}");
            }
        }
    }
    assert_eq!(coordinators.len(), 3, "every node coordinates something");
    for (index, group) in names.iter().enumerate() {
        let mut service = GroupServiceClient::new(channel(cluster, 3 - index % 3).await);
        let request = v1::DeleteGroupRequest {
            group: group.clone(),
        };
        service.delete_group(call(request)).await.unwrap();
    }
}

#[test]
fn a_client_without_a_library_may_ask_any_node() {
    let dir = tempfile::tempdir().unwrap();
    simple_clients(&Cluster::start(dir.path()));
}

#[test]
fn a_client_without_a_library_may_ask_any_node_by_tls() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = secure::start(dir.path());
    simple_clients(&cluster);
    topics(&cluster, "tls");
    for id in 1..=3 {
        every_command(&cluster, id, "tls");
    }
}

fn simple_clients(cluster: &Cluster) {
    let leaders = create(cluster);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(append_and_read(cluster, &leaders));
    runtime.block_on(groups(cluster));
    runtime.block_on(many_partitions(cluster));
    for id in 1..=3 {
        let (_, metrics) = cluster.node(id).get("/metrics");
        let forwarded = "varve_rpc_forwarded_total{method=\"Produce\",outcome=\"answered\"}";
        assert!(metrics.contains(forwarded), "node {id}");
    }
}

#[test]
fn an_election_is_a_longer_wait_and_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    let leaders = create(&cluster);
    let runtime = Runtime::new().unwrap();
    let asked = (1..=3).find(|id| *id != leaders[0]).unwrap();
    let channel = runtime.block_on(channel(&cluster, asked));
    let mut producer = ProducerServiceClient::new(channel.clone());
    let mut consumer = ConsumerServiceClient::new(channel.clone());
    let mut groups = GroupServiceClient::new(channel);
    let first = call(produce(Some(0), &["before"]));
    runtime.block_on(producer.produce(first)).unwrap();
    let commit = || {
        let offsets = vec![v1::PartitionCommit {
            topic_partition: tp(0),
            offset: 1,
            ..Default::default()
        }];
        call(v1::CommitOffsetsRequest {
            group: "simple".to_owned(),
            offsets,
            ..Default::default()
        })
    };
    runtime.block_on(groups.commit_offsets(commit())).unwrap();
    cluster.node_mut(leaders[0]).kill();
    runtime.block_on(async {
        // Whether the connection to the dead node ends before a call goes out over it or under the call is chance. In
        // the second case nobody knows what became of the call, and the caller repeats it: nothing was left to take it.
        let answer = loop {
            let after = call(produce(Some(0), &["after"]));
            match producer.produce(after).await {
                Ok(answer) => break answer.into_inner(),
                Err(status) => assert!(status.message().contains("broke"), "{status}"),
            }
        };
        assert_eq!(answer.results.len(), 1);
        let read = consumer.fetch(call(fetch(0))).await.unwrap().into_inner();
        let values: Vec<_> = read.records.into_iter().map(|r| r.value.unwrap()).collect();
        assert_eq!(values, ["before", "after"]);
        while let Err(status) = groups.commit_offsets(commit()).await {
            assert!(status.message().contains("broke"), "{status}");
        }
        let answer = groups.list_groups(call(v1::ListGroupsRequest::default()));
        let listed = answer.await.unwrap().into_inner().groups;
        assert_eq!(listed.len(), 1);
        assert_ne!(listed[0].coordinator_node_id as usize, leaders[0]);
    });
}

/// A topic for each node's turn, made at that node.
fn topics(cluster: &Cluster, round: &str) {
    for id in 1..=3 {
        let topic = format!("topic-{round}-{id}");
        let args = ["topic", "create", &topic, "-p", "3", "-r", "3"];
        let made = varve_tests::run(cluster.node(id), &args);
        assert!(made.status.success(), "{made:?}");
        cluster.wait_in_sync(&topic, 3);
    }
}

/// Every command at one node. `round` tells the rounds apart.
fn every_command(cluster: &Cluster, id: usize, round: &str) {
    let node = cluster.node(id);
    let run = |args: &[&str], input: &str| {
        let output = varve_tests::run_with_input(node, args, input.as_bytes());
        assert!(output.status.success(), "node {id}: {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let topic = format!("topic-{round}-{id}");
    let group = format!("group-{round}-{id}");
    let listed = run(&["topic", "list"], "");
    assert!(listed.contains(&topic), "{listed}");
    let lines: String = (0..30).map(|n| format!("key-{n}\t{n}\n")).collect();
    run(&["produce", &topic, "-K", "\\t"], &lines);
    let count = |text: &str| text.lines().count();
    assert_eq!(
        count(&run(&["consume", &topic, "-o", "beginning", "-e"], "")),
        30
    );
    assert_eq!(
        count(&run(&["consume", &topic, "-g", &group, "-e"], "")),
        30
    );
    let described = run(&["topic", "describe", &topic], "");
    assert!(!described.contains("NOT_LEADER"), "{described}");
    let ends = described.lines().rev().take(3).map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns[6].parse::<u64>().unwrap()
    });
    assert_eq!(ends.sum::<u64>(), 30, "{described}");
    assert_eq!(count(&run(&["topic", "offsets", &topic], "")), 4);
    let listed = run(&["group", "list"], "");
    assert!(listed.contains(&group), "{listed}");
    let described = run(&["group", "describe", &group], "");
    let first: Vec<&str> = described
        .lines()
        .nth(1)
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(first[5], "0", "no lag: {described}");
    for to in ["start", "end"] {
        let args = [
            "group", "seek", &group, "--topics", &topic, "--to", to, "-y",
        ];
        assert_eq!(count(&run(&args, "")), 4);
    }
    run(&["topic", "trim", &topic, "-o", "end", "-y"], "");
    assert_eq!(
        count(&run(&["consume", &topic, "-o", "beginning", "-e"], "")),
        0
    );
    run(&["group", "delete", &group, "-y"], "");
    run(
        &["topic", "config", &topic, "--set", "retention.ms=60000"],
        "",
    );
    run(&["cluster", "info"], "");
    run(&["cluster", "metadata"], "");
    run(&["topic", "delete", &topic, "-y"], "");
}

#[test]
fn every_command_works_at_every_node_even_when_one_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    topics(&cluster, "all");
    topics(&cluster, "two");
    for id in 1..=3 {
        every_command(&cluster, id, "all");
    }
    let dead = cluster.controller();
    cluster.node_mut(dead).kill();
    for id in (1..=3).filter(|id| *id != dead) {
        every_command(&cluster, id, "two");
    }
}

/// A node that lags behind by a moment does not say of a topic that is there that it is not.
#[test]
fn a_topic_is_known_everywhere_once_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut nodes = Vec::new();
        for id in 1..=3 {
            let channel = channel(&cluster, id).await;
            nodes.push((
                TopicServiceClient::new(channel.clone()),
                ClusterServiceClient::new(channel),
            ));
        }
        for number in 0..30 {
            let topic = format!("new-{number}");
            let request = v1::CreateTopicRequest {
                topic: topic.clone(),
                partition_count: 1,
                replication_factor: 3,
                ..Default::default()
            };
            nodes[number % 3]
                .0
                .create_topic(call(request))
                .await
                .unwrap();
            for (_, node) in &mut nodes {
                let wanted = v1::GetMetadataRequest {
                    topics: vec![topic.clone()],
                    all_topics: false,
                };
                let table = node.get_metadata(call(wanted)).await.unwrap().into_inner();
                assert_eq!(table.topics[0].error, None, "{topic}");
                assert_eq!(table.topics[0].partitions.len(), 1);
            }
        }
    });
}
