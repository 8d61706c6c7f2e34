//! `varve check lag` and `varve check replication`: one question to the cluster, and the answer as an exit code, for
//! whoever watches from outside. They change nothing.
//!
//! Exit codes: 0 all is well, 4 a condition is not met, another when the cluster does not answer.

use std::time::Duration;

use clap::Args;
use varve_client::proto as v1;
use varve_types::size::parse_duration;

use crate::args::{Global, OutputArgs};
use crate::connection::Settings;
use crate::failure::{CONDITION, Failure};
use crate::group::{age, behind_for};
use crate::output::{print_line, print_message};

/// Flags of `check lag`.
#[derive(Debug, Clone, Args)]
pub struct LagArgs {
    /// Group
    group: String,
    /// Records that a partition may be behind its end
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..),
          required_unless_present = "max_age")]
    max: Option<i64>,
    /// How long the first record that was not read may have been there
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    max_age: Option<Duration>,
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

/// Whether a group has read what there is, but for so many records or so much time in each partition.
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
    let now = jiff::Timestamp::now();
    let found = answer.offsets.iter();
    let behind: Vec<String> = found
        .filter_map(|found| {
            let at = found.topic_partition.clone().unwrap_or_default();
            let why = too_far_behind(args, found, now)?;
            Some(format!("{}-{}: {why}", at.topic, at.partition))
        })
        .collect();
    if !args.form.output.is_text() {
        print_message(args.form.output, "GetOffsetsResponse", &answer)?;
    } else if !global.quiet {
        let count = answer.offsets.len();
        for line in &behind {
            print_line(line)?;
        }
        if behind.is_empty() {
            let records = args.max.map(|max| format!("{max} records"));
            let time = args.max_age.map(age);
            let most: Vec<String> = records.into_iter().chain(time).collect();
            print_line(&format!(
                "{count} partitions of {} are at most {} behind",
                args.group,
                most.join(" and ")
            ))?;
        }
    }
    Ok(if behind.is_empty() { 0 } else { CONDITION })
}

/// What is wrong with a partition, if anything is.
fn too_far_behind(
    args: &LagArgs,
    found: &v1::CommittedOffset,
    now: jiff::Timestamp,
) -> Option<String> {
    let Some(lag) = found.lag else {
        return Some("its end is not known".to_owned());
    };
    if args.max.is_some_and(|max| lag > max) {
        return Some(format!("{lag} records behind"));
    }
    let most = args.max_age?;
    match behind_for(found, now) {
        Some(behind) if behind <= most => None,
        Some(behind) => Some(format!("{} behind", age(behind))),
        None => Some("how long it is behind is not known".to_owned()),
    }
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
