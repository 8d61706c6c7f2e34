//! `varve check lag` and `varve check replication`: one question to the cluster, and the answer as an exit code, for
//! monitoring. They change nothing.
//!
//! Exit codes: 0 all is well, 4 a condition is not met, another when the cluster does not answer.

use std::time::Duration;

use clap::Args;
use varve_client::proto as v1;
use varve_types::size::parse_duration;

use crate::args::{Global, OutputArgs};
use crate::cluster::sentences;
use crate::connection::Settings;
use crate::failure::{CONDITION, Failure};
use crate::group::{age, behind_for};
use crate::output::{print_line, print_message, print_table};
use crate::words::count;

/// Flags of `check lag`.
#[derive(Debug, Clone, Args)]
pub struct LagArgs {
    /// Name of the group
    group: String,
    /// Fail if a partition is more records behind its end
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    max: Option<i64>,
    /// Fail if the oldest record that was not consumed is older
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    max_age: Option<Duration>,
    /// Look only at these topics
    #[arg(short, long, value_name = "TOPIC", value_delimiter = ',')]
    topics: Vec<String>,
    /// Output format.
    #[command(flatten)]
    form: OutputArgs,
}

/// Flags of `check replication`.
#[derive(Debug, Clone, Copy, Args)]
pub struct ReplicationArgs {
    /// Output format.
    #[command(flatten)]
    form: OutputArgs,
}

/// Shows the lag of a group, or only what is beyond the bounds that were given.
///
/// # Errors
/// [`Failure`] when the group does not exist, or the cluster does not answer.
pub async fn lag(global: &Global, args: &LagArgs) -> Result<u8, Failure> {
    let admin = Settings::resolve(global)?.admin()?;
    // A group that does not exist has no lag either; that is no good news.
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
    let bounded = args.max.is_some() || args.max_age.is_some();
    let mut behind = Vec::new();
    for found in answer.offsets.iter().filter(|_| bounded) {
        let at = found.topic_partition.clone().unwrap_or_default();
        if let Some(why) = too_far_behind(args, found, now) {
            behind.push(format!("{}:{}: {why}", at.topic, at.partition));
        }
    }
    if !args.form.output.is_text() {
        print_message(args.form.output, "GetOffsetsResponse", &answer)?;
    } else if !global.quiet {
        match bounded {
            true => print_verdict(args, &behind, answer.offsets.len())?,
            false => print_lag(&answer.offsets, now)?,
        }
    }
    Ok(if behind.is_empty() { 0 } else { CONDITION })
}

fn print_verdict(args: &LagArgs, behind: &[String], partitions: usize) -> Result<(), Failure> {
    for line in behind {
        print_line(line)?;
    }
    if behind.is_empty() {
        let records = args.max.map(|max| count(max, "record"));
        let most: Vec<String> = records.into_iter().chain(args.max_age.map(age)).collect();
        let partitions = count(partitions, "partition");
        let most = most.join(" and ");
        let group = &args.group;
        print_line(&format!(
            "{group}: {partitions}, none more than {most} behind"
        ))?;
    }
    Ok(())
}

fn print_lag(offsets: &[v1::CommittedOffset], now: jiff::Timestamp) -> Result<(), Failure> {
    let unknown = || "-".to_owned();
    let rows = offsets.iter().map(|found| {
        let at = found.topic_partition.clone().unwrap_or_default();
        vec![
            at.topic,
            at.partition.to_string(),
            found.lag.map_or_else(unknown, |lag| lag.to_string()),
            behind_for(found, now).map_or_else(unknown, age),
        ]
    });
    print_table(&["TOPIC", "PARTITION", "LAG", "BEHIND"], rows.collect())
}

/// Why a partition is beyond a bound, if it is.
fn too_far_behind(
    args: &LagArgs,
    found: &v1::CommittedOffset,
    now: jiff::Timestamp,
) -> Option<String> {
    let Some(lag) = found.lag else {
        return Some("the end of its log is not known".to_owned());
    };
    if args.max.is_some_and(|max| lag > max) {
        return Some(format!("{} behind", count(lag, "record")));
    }
    let most = args.max_age?;
    match behind_for(found, now) {
        Some(behind) if behind <= most => None,
        Some(behind) => Some(format!("{} behind", age(behind))),
        None => Some("the age of its oldest record is not known".to_owned()),
    }
}

/// Whether every partition has a leader, all replicas are in sync, and every node is online.
///
/// # Errors
/// [`Failure`] when the cluster does not answer.
pub async fn replication(global: &Global, args: ReplicationArgs) -> Result<u8, Failure> {
    let admin = Settings::resolve(global)?.admin()?;
    let health = admin
        .get_cluster_health(v1::GetClusterHealthRequest {})
        .await?;
    let wrong = wrong(&health, &jiff::Zoned::now());
    if !args.form.output.is_text() {
        print_message(args.form.output, "GetClusterHealthResponse", &health)?;
    } else if !global.quiet {
        for line in &wrong {
            print_line(line)?;
        }
        if wrong.is_empty() {
            print_line("every partition has a leader and all its replicas are in sync")?;
        }
    }
    Ok(if wrong.is_empty() { 0 } else { CONDITION })
}

/// What of the cluster's health concerns replication.
fn wrong(health: &v1::GetClusterHealthResponse, now: &jiff::Zoned) -> Vec<String> {
    let concerned = v1::GetClusterHealthResponse {
        draining_node_ids: Vec::new(),
        low_space_node_ids: Vec::new(),
        non_preferred_leaders: 0,
        ..health.clone()
    };
    sentences(&concerned, now)
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
        let now = jiff::Zoned::now();
        assert!(wrong(&health, &now).is_empty());
        health.offline_node_ids = vec![3];
        health.under_replicated_partitions = 4;
        health.controller_node_id = None;
        assert_eq!(
            wrong(&health, &now),
            [
                "no node is the controller: topics and nodes cannot be changed",
                "node 3 is offline",
                "4 partitions are under-replicated"
            ]
        );
    }
}
