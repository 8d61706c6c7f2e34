//! `min.insync.replicas` = 2 and two of three nodes killed, so that no quorum decides about metadata either:
//! the leader that is left acknowledges nothing, refuses before it appends anything, and serves reads.

use std::collections::BTreeSet;
use std::time::Duration;

use tonic::transport::Channel;
use varve_client::RpcError;
use varve_proto::v1;
use varve_proto::v1::consumer_service_client::ConsumerServiceClient;
use varve_proto::v1::partition_produce_result::Outcome;
use varve_proto::v1::producer_service_client::ProducerServiceClient;
use varve_tests::cluster::Cluster;
use varve_tests::wait;
use varve_types::ErrorKind;

/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time after which a replica that is silent does not count; short, so that the test is.
const LAG_MS: &str = "1500";

fn request<T>(message: T, within: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(within);
    request
}

async fn produce(channel: &Channel, value: &str) -> Result<i64, RpcError> {
    let record = v1::Record {
        value: Some(value.as_bytes().to_vec().into()),
        ..Default::default()
    };
    let message = v1::ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(0),
        records: vec![record],
        ..Default::default()
    };
    let answer = ProducerServiceClient::new(channel.clone())
        .produce(request(message, Duration::from_secs(1)))
        .await;
    // What happened to a single partition is the call's own outcome.
    let answer = answer.map_err(|status| RpcError::from_status(&status))?;
    match answer.into_inner().results.remove(0).outcome {
        Some(Outcome::Appended(appended)) => Ok(appended.base_offset.unwrap()),
        other => panic!("{other:?}"),
    }
}

/// Everything committed, as the node says itself.
async fn read(channel: &Channel) -> Result<Vec<String>, tonic::Status> {
    let message = v1::FetchRequest {
        topic: "orders".to_owned(),
        partition: 0,
        ..Default::default()
    };
    let answer = ConsumerServiceClient::new(channel.clone())
        .fetch(request(message, PATIENCE))
        .await?;
    let values = answer.into_inner().records.into_iter();
    Ok(values
        .map(|r| String::from_utf8(r.value.unwrap().to_vec()).unwrap())
        .collect())
}

/// End of the one partition's log at a node, committed or not, from its metrics.
fn log_end(cluster: &Cluster, id: usize) -> u64 {
    let (_, text) = cluster.node(id).get("/metrics");
    let mut lines = text.lines().filter(|line| {
        line.starts_with("varve_partition_log_end_offset{") && line.contains("topic=\"orders\"")
    });
    let value = lines.next().unwrap().rsplit_once(' ').unwrap().1;
    value.parse::<f64>().unwrap() as u64
}

#[test]
fn with_two_of_three_nodes_killed_nothing_is_acknowledged_or_appended_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let env = [("VARVE_REPLICA__LAG__TIME__MAX__MS", LAG_MS)];
    let mut cluster = Cluster::start_with(dir.path(), 3, &env);
    let args = [
        "topic",
        "create",
        "orders",
        "-p",
        "1",
        "-r",
        "3",
        "-c",
        "min.insync.replicas=2",
    ];
    let made = varve_tests::run(cluster.node(1), &args);
    assert!(made.status.success(), "{made:?}");
    cluster.wait_in_sync("orders", 3);
    let leader = cluster.leader("orders", 0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = format!("http://{}", cluster.node(leader).address());
    let channel = runtime
        .block_on(Channel::from_shared(address).unwrap().connect())
        .unwrap();
    let offset = runtime.block_on(produce(&channel, "before"));
    assert_eq!(offset.unwrap(), 0);

    for id in (1..=3).filter(|id| *id != leader) {
        cluster.node_mut(id).kill();
    }
    // What comes before anybody can know of it may be appended; it is not acknowledged.
    let mut unknown = BTreeSet::new();
    let refused = wait::until("a refusal", PATIENCE, || {
        let value = format!("unknown-{}", unknown.len());
        let error = runtime.block_on(produce(&channel, &value)).unwrap_err();
        if error.kind == Some(ErrorKind::NotEnoughReplicas) {
            return Some(error);
        }
        unknown.insert(value);
        None
    });
    let text = refused.to_string();
    assert!(text.contains("nothing was appended"), "{text}");
    let end = log_end(&cluster, leader);
    for n in 0..20 {
        let error = runtime.block_on(produce(&channel, &format!("refused-{n}")));
        let kind = error.unwrap_err().kind;
        assert_eq!(kind, Some(ErrorKind::NotEnoughReplicas), "{n}");
        assert_eq!(runtime.block_on(read(&channel)).unwrap(), ["before"]);
    }
    assert_eq!(log_end(&cluster, leader), end, "nothing was appended");

    for id in (1..=3).filter(|id| *id != leader) {
        cluster.node_mut(id).restart();
    }
    cluster.wait_in_sync("orders", 3);
    let healed = wait::until("writes to go on", PATIENCE, || {
        let (leader, _) = cluster.partitions("orders")?[0];
        let address = format!("http://{}", cluster.node(leader?).address());
        let channel = Channel::from_shared(address).unwrap();
        let channel = runtime.block_on(channel.connect()).ok()?;
        runtime.block_on(produce(&channel, "after")).ok()?;
        runtime.block_on(read(&channel)).ok()
    });
    assert_eq!(healed.first().map(String::as_str), Some("before"));
    assert_eq!(healed.last().map(String::as_str), Some("after"));
    let between = &healed[1..healed.len() - 1];
    let allowed = |value: &String| unknown.contains(value) || value == "after";
    assert!(
        between.iter().all(allowed),
        "what was refused is there: {healed:?}"
    );
}
