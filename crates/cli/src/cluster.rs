//! `varve cluster`: nodes, topics and what is wrong with the cluster.

use std::collections::BTreeSet;

use varve_client::{Admin, RpcError, proto as v1};

use crate::args::{ClusterCommand, Global};
use crate::connection::Settings;
use crate::failure::{CONDITION, Failure};
use crate::operate;
use crate::output::{
    Output, numbers, print_line, print_message, print_table, print_value, to_json,
};
use crate::replicas;
use crate::watch::watch;
use crate::words::count;

/// Runs a command.
///
/// # Errors
/// [`Failure`] when the cluster does not answer.
pub async fn run(global: &Global, command: ClusterCommand) -> Result<u8, Failure> {
    let settings = Settings::resolve(global)?;
    let admin = &settings.admin()?;
    match command {
        ClusterCommand::Operate(command) => operate::run(global, admin, command).await,
        ClusterCommand::Info { form } => info(admin, form.output).await,
        ClusterCommand::Health {
            watch: again,
            exit_when_healthy,
            exit_code,
            form,
        } => {
            let code = |healthy| if healthy || !exit_code { 0 } else { CONDITION };
            if !again {
                return Ok(code(health(admin, form.output).await?));
            }
            watch(|| async move {
                let healthy = health(admin, form.output).await?;
                Ok((exit_when_healthy && healthy).then(|| code(healthy)))
            })
            .await
        }
        ClusterCommand::Metadata {
            mut topics,
            more_topics,
            internal,
            form,
            json,
        } => {
            topics.extend(more_topics);
            let output = if json { Output::Json } else { form.output };
            metadata(admin, topics, internal, output).await
        }
    }
}

async fn info(admin: &Admin, output: Output) -> Result<u8, Failure> {
    let info = admin.get_server_info(v1::GetServerInfoRequest {}).await?;
    let nodes = admin
        .get_metadata(v1::GetMetadataRequest::default())
        .await?;
    if !output.is_text() {
        let mut value = to_json("GetServerInfoResponse", &info)?;
        value["nodes"] = to_json("GetMetadataResponse", &nodes)?["nodes"].take();
        print_value(output, &value)?;
        return Ok(0);
    }
    let limits = info.limits.unwrap_or_default();
    let controller = nodes
        .controller_node_id
        .map_or_else(|| "none".to_owned(), |id| format!("node {id}"));
    let answered = format!(
        "node {}, varve {} {}",
        info.node_id, info.version, info.revision
    );
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("CLUSTER", info.cluster_id),
        row("ANSWERED BY", answered.trim_end().to_owned()),
        row("CONTROLLER", controller),
        row("FEATURES", info.features.join(", ")),
        row("MAX REQUEST", count(limits.max_request_bytes, "byte")),
        row("MAX FETCH", count(limits.max_fetch_bytes, "byte")),
    ];
    if output == Output::Wide {
        for (listener, address) in info.listeners {
            rows.push(row(
                &format!("{} LISTENER", listener.to_uppercase()),
                address,
            ));
        }
    }
    print_table(&["INFO", ""], rows)?;
    print_line("")?;
    print_nodes(nodes.nodes)?;
    Ok(0)
}

fn print_nodes(nodes: Vec<v1::Node>) -> Result<(), Failure> {
    let rows = nodes.into_iter().map(|node| {
        let state = node.state().as_str_name().trim_start_matches("NODE_STATE_");
        let state = state.to_ascii_lowercase();
        vec![
            node.node_id.to_string(),
            node.address,
            state,
            node.rack,
            node.version,
        ]
    });
    print_table(
        &["NODE", "ADDRESS", "STATE", "RACK", "VERSION"],
        rows.collect(),
    )
}

async fn health(admin: &Admin, output: Output) -> Result<bool, Failure> {
    let health = admin
        .get_cluster_health(v1::GetClusterHealthRequest {})
        .await?;
    if !output.is_text() {
        print_message(output, "GetClusterHealthResponse", &health)?;
        return Ok(health.healthy);
    }
    print_line(if health.healthy {
        "healthy"
    } else {
        "not healthy"
    })?;
    for sentence in sentences(&health, &jiff::Zoned::now()) {
        print_line(&sentence)?;
    }
    if output == Output::Wide {
        if let Some(id) = health.controller_node_id {
            print_line(&format!("node {id} is the controller"))?;
        }
        let short = replicas::short(admin, &[], replicas::Wanted::ANY).await?;
        match short.is_empty() {
            true => {
                print_line("every partition has a leader and all its replicas are in sync")?;
            }
            false => {
                print_line("")?;
                replicas::print(output, short)?;
            }
        }
    }
    Ok(health.healthy)
}

/// What is wrong, or about to be, one sentence each. Ids of nodes and numbers of partitions are never in one place.
#[must_use]
pub fn sentences(health: &v1::GetClusterHealthResponse, now: &jiff::Zoned) -> Vec<String> {
    let mut all = Vec::new();
    if health.controller_node_id.is_none() {
        all.push("no node is the controller: topics and nodes cannot be changed".to_owned());
    }
    for node in &health.offline_node_ids {
        let since = health.offline_since.get(node);
        let since = since.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok());
        all.push(match since {
            Some(at) => format!("node {node} is offline since {}", clock_time(at, now)),
            None => format!("node {node} is offline"),
        });
    }
    for node in &health.draining_node_ids {
        all.push(format!("node {node} is draining"));
    }
    for node in &health.low_space_node_ids {
        all.push(format!("node {node} is low on disk space"));
    }
    for (number, one, many) in [
        (
            health.leaderless_partitions,
            "has no leader",
            "have no leader",
        ),
        (
            health.under_replicated_partitions,
            "is under-replicated",
            "are under-replicated",
        ),
        (
            health.under_min_isr_partitions,
            "refuses writes: it has fewer in-sync replicas than min.insync.replicas",
            "refuse writes: they have fewer in-sync replicas than min.insync.replicas",
        ),
        (
            health.non_preferred_leaders,
            "is not led by its preferred leader",
            "are not led by their preferred leaders",
        ),
    ] {
        if number != 0 {
            let verb = if number == 1 { one } else { many };
            all.push(format!("{} {verb}", count(number, "partition")));
        }
    }
    for limit in &health.near_limits {
        let v1::NearLimit { name, used, max } = limit;
        let percent = used.saturating_mul(100) / (*max).max(1);
        all.push(format!(
            "the limit {name} of the node that answered is used to {percent} % ({used} of {max}); see docs/limits.md"
        ));
    }
    all
}

/// A time of today as `20:38:51`, another one with its date, in the time zone of this machine.
fn clock_time(at: jiff::Timestamp, now: &jiff::Zoned) -> String {
    let at = at.to_zoned(now.time_zone().clone());
    let form = match at.date() == now.date() {
        true => "%H:%M:%S",
        false => "%Y-%m-%d %H:%M:%S",
    };
    at.strftime(form).to_string()
}

async fn metadata(
    admin: &Admin,
    topics: Vec<String>,
    internal: bool,
    output: Output,
) -> Result<u8, Failure> {
    let all_topics = topics.is_empty();
    let mut metadata = admin
        .get_metadata(v1::GetMetadataRequest { topics, all_topics })
        .await?;
    if all_topics && !internal {
        let own = admin.all_topics("", false).await?;
        let own: BTreeSet<String> = own.into_iter().map(|topic| topic.name).collect();
        metadata.topics.retain(|topic| own.contains(&topic.topic));
    }
    let missing = metadata.topics.iter().find_map(|topic| topic.error.clone());
    if output.is_text() {
        print_line(&format!("cluster {}", metadata.cluster_id))?;
        print_line("")?;
        print_nodes(metadata.nodes)?;
        if !metadata.topics.is_empty() {
            print_line("")?;
            print_partitions(metadata.topics, output)?;
        }
    } else {
        print_message(output, "GetMetadataResponse", &metadata)?;
    }
    match missing {
        None => Ok(0),
        Some(error) => Err(varve_client::ClientError::from(RpcError::from_partition(error)).into()),
    }
}

fn print_partitions(topics: Vec<v1::TopicMetadata>, output: Output) -> Result<(), Failure> {
    let wide = output == Output::Wide;
    let mut rows = Vec::new();
    for topic in topics {
        for partition in topic.partitions {
            let leader = partition.leader_node_id;
            let mut row = vec![
                topic.topic.clone(),
                partition.partition.to_string(),
                leader.map_or_else(|| "-".to_owned(), |id| id.to_string()),
                numbers(&partition.replica_node_ids),
                numbers(&partition.in_sync_node_ids),
            ];
            if wide {
                row.extend([partition.leader_epoch.to_string(), topic.topic_id.clone()]);
            }
            rows.push(row);
        }
    }
    let mut headings = vec!["TOPIC", "PARTITION", "LEADER", "REPLICAS", "IN-SYNC"];
    if wide {
        headings.extend(["EPOCH", "TOPIC-ID"]);
    }
    print_table(&headings, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_told_in_sentences() {
        let now: jiff::Timestamp = "2026-11-24T20:40:00Z".parse().unwrap();
        let now = now.to_zoned(jiff::tz::TimeZone::UTC);
        let at = |text: &str| {
            let at: jiff::Timestamp = text.parse().unwrap();
            prost_types::Timestamp {
                seconds: at.as_second(),
                nanos: 0,
            }
        };
        let health = v1::GetClusterHealthResponse {
            controller_node_id: Some(1),
            offline_node_ids: vec![2, 3, 4],
            offline_since: [
                (3, at("2026-11-24T20:38:51Z")),
                (4, at("2026-11-23T01:02:03Z")),
            ]
            .into(),
            draining_node_ids: vec![5],
            low_space_node_ids: vec![1],
            leaderless_partitions: 1,
            under_replicated_partitions: 6,
            ..Default::default()
        };
        assert_eq!(
            sentences(&health, &now),
            [
                "node 2 is offline",
                "node 3 is offline since 20:38:51",
                "node 4 is offline since 2026-11-23 01:02:03",
                "node 5 is draining",
                "node 1 is low on disk space",
                "1 partition has no leader",
                "6 partitions are under-replicated",
            ]
        );
        let healthy = v1::GetClusterHealthResponse {
            controller_node_id: Some(1),
            healthy: true,
            ..Default::default()
        };
        assert!(sentences(&healthy, &now).is_empty());
    }
}
