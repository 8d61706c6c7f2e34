//! `varve cluster`: what the cluster consists of, and what is wrong with it.

use varve_client::{Admin, RpcError, proto as v1};

use crate::args::{ClusterCommand, Global};
use crate::connection::Settings;
use crate::failure::{CONDITION, Failure};
use crate::group::WATCH_PAUSE;
use crate::operate;
use crate::output::{
    Output, numbers, print_line, print_message, print_table, print_value, to_json,
};

/// Runs a command.
///
/// # Errors
/// [`Failure`] when the cluster does not answer.
pub async fn run(global: &Global, command: ClusterCommand) -> Result<u8, Failure> {
    let settings = Settings::resolve(global)?;
    let admin = settings.admin()?;
    match command {
        ClusterCommand::Operate(command) => operate::run(global, &admin, command).await,
        ClusterCommand::Info { form } => info(&admin, form.output).await,
        ClusterCommand::Health {
            watch,
            exit_when_healthy,
            exit_code,
            form,
        } => loop {
            let healthy = health(&admin, form.output).await?;
            if !watch || exit_when_healthy && healthy {
                return Ok(if healthy || !exit_code { 0 } else { CONDITION });
            }
            tokio::time::sleep(WATCH_PAUSE).await;
        },
        ClusterCommand::Metadata {
            mut topics,
            more_topics,
            form,
            json,
        } => {
            topics.extend(more_topics);
            let output = if json { Output::Json } else { form.output };
            metadata(&admin, topics, output).await
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
        .map_or_else(|| "none".to_owned(), |id| id.to_string());
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = vec![
        row("CLUSTER", info.cluster_id),
        row(
            "ANSWERED BY",
            format!(
                "node {}, varve {} {}",
                info.node_id, info.version, info.revision
            )
            .trim_end()
            .to_owned(),
        ),
        row("CONTROLLER", controller),
        row("FEATURES", info.features.join(", ")),
        row("MAX REQUEST", format!("{} bytes", limits.max_request_bytes)),
        row("MAX FETCH", format!("{} bytes", limits.max_fetch_bytes)),
    ];
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
    let mut rows = Vec::new();
    let mut row = |what: &str, wrong: bool, value: String| {
        if wrong || output == Output::Wide {
            rows.push(vec![what.to_owned(), value]);
        }
    };
    let no_controller = health.controller_node_id.is_none();
    let controller = health
        .controller_node_id
        .map_or_else(|| "none".to_owned(), |id| id.to_string());
    row("controller", no_controller, controller);
    for (what, nodes) in [
        ("nodes offline", &health.offline_node_ids),
        ("nodes draining", &health.draining_node_ids),
        ("nodes low on space", &health.low_space_node_ids),
    ] {
        row(what, !nodes.is_empty(), numbers(nodes));
    }
    for (what, count) in [
        ("partitions without leader", health.leaderless_partitions),
        (
            "partitions under-replicated",
            health.under_replicated_partitions,
        ),
        (
            "partitions refusing writes",
            health.under_min_isr_partitions,
        ),
        (
            "partitions off their preferred leader",
            health.non_preferred_leaders,
        ),
    ] {
        row(what, count != 0, count.to_string());
    }
    if !rows.is_empty() {
        print_table(&["WHAT", "FOUND"], rows)?;
    }
    Ok(health.healthy)
}

async fn metadata(admin: &Admin, topics: Vec<String>, output: Output) -> Result<u8, Failure> {
    let all_topics = topics.is_empty();
    let metadata = admin
        .get_metadata(v1::GetMetadataRequest { topics, all_topics })
        .await?;
    let missing = metadata.topics.iter().find_map(|topic| topic.error.clone());
    if output.is_text() {
        print_line(&format!("cluster {}", metadata.cluster_id))?;
        print_line("")?;
        print_nodes(metadata.nodes)?;
        print_line("")?;
        print_partitions(metadata.topics)?;
    } else {
        print_message(output, "GetMetadataResponse", &metadata)?;
    }
    match missing {
        None => Ok(0),
        Some(error) => Err(varve_client::ClientError::from(RpcError::from_partition(error)).into()),
    }
}

fn print_partitions(topics: Vec<v1::TopicMetadata>) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for topic in topics {
        for partition in topic.partitions {
            let leader = partition.leader_node_id;
            rows.push(vec![
                topic.topic.clone(),
                partition.partition.to_string(),
                leader.map_or_else(|| "-".to_owned(), |id| id.to_string()),
                numbers(&partition.replica_node_ids),
                numbers(&partition.in_sync_node_ids),
            ]);
        }
    }
    print_table(
        &["TOPIC", "PARTITION", "LEADER", "REPLICAS", "IN-SYNC"],
        rows,
    )
}
