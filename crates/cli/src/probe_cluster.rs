//! `varve check lag` and `varve check replication`: one question to the cluster, and the answer as an exit code, for
//! whoever watches from outside. They change nothing.
//!
//! Exit codes: 0 all is well, 4 a condition is not met, another when the cluster does not answer.

use clap::Args;
use varve_client::proto as v1;

use crate::args::{Global, OutputArgs};
use crate::connection::Settings;
use crate::failure::{CONDITION, Failure};
use crate::output::{print_line, print_message};

/// Flags of `check lag`.
#[derive(Debug, Clone, Args)]
pub struct LagArgs {
    /// Group
    group: String,
    /// Records that a partition may be behind its end
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    max: i64,
    /// Only partitions of these topics
    #[arg(short, long, value_name = "TOPIC", value_delimiter = ',')]
    topics: Vec<String>,
    /// Form of the output.
    #[command(flatten)]
    form: OutputArgs,
}

/// Flags of `check replication`.
#[derive(Debug, Clone, Copy, Args)]
pub struct ReplicationArgs {
    /// Form of the output.
    #[command(flatten)]
    form: OutputArgs,
}

/// Whether a group has read what there is, but for so many records in each partition.
///
/// # Errors
/// [`Failure`] when there is no such group, or the cluster does not answer.
pub async fn lag(global: &Global, args: &LagArgs) -> Result<u8, Failure> {
    let admin = Settings::resolve(global)?.admin()?;
    // A group that nobody has heard of has no lag either; that is no good news.
    let group = args.group.clone();
    admin.get_group(v1::GetGroupRequest { group }).await?;
    let request = v1::GetOffsetsRequest {
        group: args.group.clone(),
        include_lag: true,
        ..Default::default()
    };
    let mut answer = admin.get_offsets(request).await?;
    answer.offsets.retain(|found| {
        let topic = found.topic_partition.as_ref().map(|at| &at.topic);
        args.topics.is_empty() || topic.is_some_and(|topic| args.topics.contains(topic))
    });
    let mut behind = Vec::new();
    for found in &answer.offsets {
        let at = found.topic_partition.clone().unwrap_or_default();
        match found.lag {
            Some(lag) if lag <= args.max => {}
            Some(lag) => behind.push(format!(
                "{}-{}: {lag} records behind",
                at.topic, at.partition
            )),
            None => behind.push(format!(
                "{}-{}: its end is not known",
                at.topic, at.partition
            )),
        }
    }
    if !args.form.output.is_text() {
        print_message(args.form.output, "GetOffsetsResponse", &answer)?;
    } else if !global.quiet {
        let count = answer.offsets.len();
        for line in &behind {
            print_line(line)?;
        }
        if behind.is_empty() {
            print_line(&format!(
                "{count} partitions of {} are at most {} records behind",
                args.group, args.max
            ))?;
        }
    }
    Ok(if behind.is_empty() { 0 } else { CONDITION })
}

/// Whether every partition has its leader and all its replicas in sync, and every node is there.
///
/// # Errors
/// [`Failure`] when the cluster does not answer.
pub async fn replication(global: &Global, args: ReplicationArgs) -> Result<u8, Failure> {
    let admin = Settings::resolve(global)?.admin()?;
    let health = admin
        .get_cluster_health(v1::GetClusterHealthRequest {})
        .await?;
    let wrong = wrong(&health);
    if !args.form.output.is_text() {
        print_message(args.form.output, "GetClusterHealthResponse", &health)?;
    } else if !global.quiet {
        for line in &wrong {
            print_line(line)?;
        }
        if wrong.is_empty() {
            print_line("every partition has a leader and all its replicas in sync")?;
        }
    }
    Ok(if wrong.is_empty() { 0 } else { CONDITION })
}

fn wrong(health: &v1::GetClusterHealthResponse) -> Vec<String> {
    let mut wrong = Vec::new();
    if health.controller_node_id.is_none() {
        wrong.push("no node decides about metadata".to_owned());
    }
    for node in &health.offline_node_ids {
        wrong.push(format!("node {node} is offline"));
    }
    for (count, what) in [
        (health.leaderless_partitions, "without a leader"),
        (
            health.under_min_isr_partitions,
            "refuse writes: too few replicas are in sync",
        ),
        (
            health.under_replicated_partitions,
            "with replicas out of sync",
        ),
    ] {
        if count > 0 {
            wrong.push(format!("{count} partitions {what}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let mut health = v1::GetClusterHealthResponse {
            controller_node_id: Some(1),
            // Nothing that concerns replication.
            draining_node_ids: vec![2],
            non_preferred_leaders: 7,
            ..Default::default()
        };
        assert!(wrong(&health).is_empty());
        health.offline_node_ids = vec![3];
        health.under_replicated_partitions = 4;
        health.controller_node_id = None;
        assert_eq!(
            wrong(&health),
            [
                "no node decides about metadata",
                "node 3 is offline",
                "4 partitions with replicas out of sync"
            ]
        );
    }
}
