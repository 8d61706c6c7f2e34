//! `varve cluster`, the part that changes a cluster: drain, resume, decommission, leaders and replicas. The cluster
//! carries on with what was started whether or not anybody watches; `--wait` only follows its progress.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use varve_client::{Admin, ClientError, RpcError, proto as v1};
use varve_types::ErrorKind;

use crate::args::{Global, OutputArgs};
use crate::confirm::confirm;
use crate::connection::suggest_topic;
use crate::failure::{FAILED, Failure, TIMEOUT};
use crate::operate_args::{OperateCommand, TargetArgs, WaitArgs};
use crate::output::{Output, numbers, print_line, print_message, print_table};
use crate::watch::watch;
use crate::words::count;

/// Time between looks of `--wait`.
const LOOK: Duration = Duration::from_millis(500);
/// Partitions of one request.
const AT_ONCE: usize = 1000;

/// Runs a command.
///
/// # Errors
/// [`Failure`], with what was and was not changed.
pub async fn run(global: &Global, admin: &Admin, command: OperateCommand) -> Result<u8, Failure> {
    match command {
        OperateCommand::Nodes { form } => nodes(admin, form.output).await,
        OperateCommand::Drain {
            node,
            force,
            wait,
            form,
        } => drain(global, admin, (node, force), wait, form.output).await,
        OperateCommand::Resume { node, form } => {
            let request = v1::ResumeNodeRequest {
                node_id: Some(node),
            };
            let answer = admin.resume_node(request).await?;
            if !form.output.is_text() {
                print_message(form.output, "ResumeNodeResponse", &answer)?;
            } else if !global.quiet {
                print_line(&format!("node {node}: {}", word(answer.state())))?;
            }
            Ok(0)
        }
        OperateCommand::Decommission {
            node,
            dead,
            wait,
            form,
        } => {
            let question = format!(
                "this moves all replicas away from node {node} and removes it from the cluster{}",
                if dead {
                    "; it must never start again"
                } else {
                    ""
                }
            );
            confirm(global, &question)?;
            decommission(global, admin, (node, dead), wait, form.output).await
        }
        OperateCommand::TransferLeader {
            partition,
            to,
            form,
        } => transfer(global, admin, &partition, to, form.output).await,
        OperateCommand::ElectLeaders { topics, form } => {
            let request = v1::ElectPreferredLeadersRequest { topics };
            let answer = admin.elect_preferred_leaders(request).await?;
            if !form.output.is_text() {
                print_message(form.output, "ElectPreferredLeadersResponse", &answer)?;
            } else if !global.quiet {
                let moved = count(answer.started, "leadership");
                print_line(&match answer.skipped {
                    0 => format!("moved {moved}"),
                    skipped => format!("moved {moved}; {skipped} could not be moved"),
                })?;
            }
            Ok(0)
        }
        OperateCommand::Reassign {
            partitions,
            target,
            dry_run,
            wait,
            form,
        } => {
            let partitions = all_of(admin, &partitions).await?;
            reassign(global, admin, partitions, (target, dry_run), wait, form).await
        }
        OperateCommand::Upgrade { action, form } => {
            crate::upgrade::run(global, admin, action, form.output).await
        }
        OperateCommand::Reassignments { watch: again, form } => {
            let look = || async move {
                let moves = admin.all_reassignments().await?;
                let over = moves.is_empty();
                print_moves(moves, form.output)?;
                Ok(over.then_some(0))
            };
            match again {
                true => watch(look).await,
                false => look().await.map(Option::unwrap_or_default),
            }
        }
    }
}

/// A state as people read it.
fn word(state: v1::NodeState) -> String {
    let state = state.as_str_name().trim_start_matches("NODE_STATE_");
    state.to_ascii_lowercase()
}

async fn nodes(admin: &Admin, output: Output) -> Result<u8, Failure> {
    let found = admin.list_nodes(v1::ListNodesRequest {}).await?;
    if !output.is_text() {
        print_message(output, "ListNodesResponse", &found)?;
        return Ok(0);
    }
    let rows = found.nodes.into_iter().map(|detail| {
        let node = detail.node.unwrap_or_default();
        let state = match (node.state(), detail.decommissioning) {
            (v1::NodeState::Offline, true) => "offline, decommissioning".to_owned(),
            (state, _) => word(state),
        };
        vec![
            node.node_id.to_string(),
            node.address,
            state,
            detail.replica_count.to_string(),
            detail.leader_count.to_string(),
            node.rack,
            node.version,
        ]
    });
    let headings = [
        "NODE", "ADDRESS", "STATE", "REPLICAS", "LEADERS", "RACK", "VERSION",
    ];
    print_table(&headings, rows.collect())?;
    Ok(0)
}

/// Follows something until it has ended, and says on standard error what has changed.
struct Waiting {
    args: WaitArgs,
    quiet: bool,
    since: Instant,
    told: String,
}

impl Waiting {
    fn new(global: &Global, args: WaitArgs) -> Self {
        Self {
            args,
            quiet: global.quiet,
            since: Instant::now(),
            told: String::new(),
        }
    }

    /// Whether to look again, after a while.
    async fn again(&mut self, now: String) -> Result<bool, Failure> {
        if !self.args.wait {
            return Ok(false);
        }
        if self.told != now {
            if !self.quiet {
                eprintln!("{now}");
            }
            self.told = now;
        }
        if self
            .args
            .within
            .is_some_and(|within| self.since.elapsed() >= within)
        {
            let text = format!("not done in time; the operation continues: {}", self.told);
            return Err(Failure::new(TIMEOUT, text));
        }
        tokio::time::sleep(LOOK).await;
        Ok(true)
    }
}

/// Who waits looks again after a failure that passes, as when nodes come and go.
fn passing(error: &ClientError, wait: WaitArgs) -> bool {
    wait.wait && error.is_retryable()
}

async fn drain(
    global: &Global,
    admin: &Admin,
    (node, force): (i32, bool),
    wait: WaitArgs,
    output: Output,
) -> Result<u8, Failure> {
    let mut waiting = Waiting::new(global, wait);
    let mut begun = false;
    loop {
        let request = v1::DrainNodeRequest {
            node_id: Some(node),
            force,
        };
        let answer = match admin.drain_node(request).await {
            Ok(answer) => answer,
            Err(error) if begun && passing(&error, wait) => {
                waiting.again(error.to_string()).await?;
                continue;
            }
            Err(error) => return Err(name_flag(error, "force", force)),
        };
        begun = true;
        let mut now = format!(
            "node {node}: {}, leads {}",
            word(answer.state()),
            count(answer.remaining_leaders, "partition")
        );
        if answer.stuck_leaders > 0 {
            now += &format!("; no other node can lead {} of them", answer.stuck_leaders);
        }
        // Waiting does not move what no other node can lead.
        let moving = answer.remaining_leaders > answer.stuck_leaders;
        if moving && waiting.again(now.clone()).await? {
            continue;
        }
        if !output.is_text() {
            print_message(output, "DrainNodeResponse", &answer)?;
        } else if !global.quiet {
            print_line(&now)?;
        }
        return Ok(0);
    }
}

async fn decommission(
    global: &Global,
    admin: &Admin,
    (node, dead): (i32, bool),
    wait: WaitArgs,
    output: Output,
) -> Result<u8, Failure> {
    let mut waiting = Waiting::new(global, wait);
    let mut last = None;
    loop {
        let request = v1::DecommissionNodeRequest {
            node_id: Some(node),
            dead,
        };
        let answer = match admin.decommission_node(request).await {
            Ok(answer) => answer,
            Err(error) if last.is_some() && error.kind() == Some(ErrorKind::NodeNotFound) => {
                if !output.is_text() {
                    print_message(
                        output,
                        "DecommissionNodeResponse",
                        &last.unwrap_or_default(),
                    )?;
                } else if !global.quiet {
                    print_line(&format!(
                        "node {node} holds no replicas and was removed from the cluster; it can be stopped"
                    ))?;
                }
                return Ok(0);
            }
            Err(error) if last.is_some() && passing(&error, wait) => {
                waiting.again(error.to_string()).await?;
                continue;
            }
            Err(error) => return Err(name_flag(error, "dead", dead)),
        };
        let now = format!(
            "node {node}: {}, {} left, {} of them moving",
            word(answer.state()),
            count(answer.remaining_replicas, "replica"),
            answer.moving_replicas
        );
        let left = answer.remaining_replicas;
        last = Some(v1::DecommissionNodeResponse {
            remaining_replicas: 0,
            moving_replicas: 0,
            ..answer
        });
        if waiting.again(now.clone()).await? {
            continue;
        }
        if !output.is_text() {
            print_message(output, "DecommissionNodeResponse", &answer)?;
        } else if !global.quiet {
            print_line(&now)?;
            if left > 0 {
                print_line("the move continues; repeat the command or add --wait to follow it")?;
            }
        }
        return Ok(0);
    }
}

/// Names the flag that a refusal speaks of, unless it was given.
fn name_flag(error: ClientError, flag: &str, given: bool) -> Failure {
    let mut failure = Failure::from(error);
    let message = &failure.message;
    if !given && message.contains(flag) && !message.contains("--") {
        failure.message += &format!("; the flag for that is --{flag}");
    }
    failure
}

async fn transfer(
    global: &Global,
    admin: &Admin,
    partition: &str,
    to: Option<i32>,
    output: Output,
) -> Result<u8, Failure> {
    let (topic, Some(number)) = split(partition)? else {
        let text = format!(
            "{partition:?} has no partition number; expected TOPIC:PARTITION, such as {partition}:0"
        );
        return Err(Failure::usage(text));
    };
    let request = v1::TransferLeadershipRequest {
        topic_partition: Some(v1::TopicPartition {
            topic: topic.to_owned(),
            partition: number,
        }),
        target_node_id: to,
    };
    let answer = match admin.transfer_leadership(request).await {
        Ok(answer) => answer,
        Err(error) => return Err(suggest_topic(admin, topic, error).await),
    };
    if !output.is_text() {
        print_message(output, "TransferLeadershipResponse", &answer)?;
    } else if !global.quiet {
        let node = answer.leader.unwrap_or_default().node_id;
        print_line(&format!("{topic}:{number}: node {node} leads now"))?;
    }
    Ok(0)
}

/// `TOPIC` or `TOPIC:PARTITION`.
fn split(text: &str) -> Result<(&str, Option<i32>), Failure> {
    match text.rsplit_once(':') {
        None => Ok((text, None)),
        Some((topic, number)) => match number.parse() {
            Ok(number) => Ok((topic, Some(number))),
            Err(_) => Err(Failure::usage(format!(
                "{text:?} is not a partition; expected TOPIC or TOPIC:PARTITION, such as orders:0"
            ))),
        },
    }
}

/// Every partition that is named, once.
pub async fn all_of(admin: &Admin, texts: &[String]) -> Result<Vec<v1::TopicPartition>, Failure> {
    let mut seen = BTreeSet::new();
    for text in texts {
        let (topic, number) = split(text)?;
        let numbers = match number {
            Some(number) => vec![number],
            None => match admin.all_partitions(topic).await {
                Ok(partitions) => partitions.iter().map(|p| p.partition).collect(),
                Err(error) => return Err(suggest_topic(admin, topic, error).await),
            },
        };
        seen.extend(numbers.into_iter().map(|n| (topic.to_owned(), n)));
    }
    let all = seen.into_iter();
    Ok(all
        .map(|(topic, partition)| v1::TopicPartition { topic, partition })
        .collect())
}

/// Moves partitions, in requests of a size that a server accepts.
pub async fn reassign(
    global: &Global,
    admin: &Admin,
    partitions: Vec<v1::TopicPartition>,
    (target, dry_run): (TargetArgs, bool),
    wait: WaitArgs,
    form: OutputArgs,
) -> Result<u8, Failure> {
    let mut failures = Vec::new();
    for some in partitions.chunks(AT_ONCE) {
        failures.extend(if target.cancel {
            let partitions = some.to_vec();
            let request = v1::CancelReassignmentsRequest { partitions };
            admin.cancel_reassignments(request).await?.failures
        } else {
            let one = |id: &v1::TopicPartition| v1::Reassignment {
                topic_partition: Some(id.clone()),
                node_ids: target.to.clone(),
                replica_count: target.replicas.unwrap_or(0),
            };
            let request = v1::ReassignPartitionsRequest {
                reassignments: some.iter().map(one).collect(),
                validate_only: dry_run,
            };
            admin.reassign_partitions(request).await?.failures
        });
    }
    let failed: Vec<_> = failures
        .iter()
        .filter_map(|f| f.topic_partition.clone())
        .collect();
    if !dry_run && wait.wait {
        let moving = partitions.iter().filter(|p| !failed.contains(p));
        settle(global, admin, moving.cloned().collect(), wait).await?;
    }
    let done = partitions.len() - failures.len();
    let all = failures.is_empty();
    if !form.output.is_text() {
        match target.cancel {
            true => {
                let answer = v1::CancelReassignmentsResponse { failures };
                print_message(form.output, "CancelReassignmentsResponse", &answer)?;
            }
            false => {
                let answer = v1::ReassignPartitionsResponse { failures };
                print_message(form.output, "ReassignPartitionsResponse", &answer)?;
            }
        }
    } else {
        print_failures(failures)?;
        if !global.quiet && done > 0 {
            print_line(&outcome(done, &target, dry_run, wait.wait))?;
        }
    }
    match all {
        true => Ok(0),
        false => {
            let refused = partitions.len() - done;
            let text = format!(
                "{} refused; nothing was changed there",
                count(refused, "partition")
            );
            Err(Failure::new(FAILED, text))
        }
    }
}

/// What became of the partitions that were not refused.
fn outcome(done: usize, target: &TargetArgs, dry_run: bool, waited: bool) -> String {
    let partitions = count(done, "partition");
    match (dry_run, target.cancel, waited) {
        (true, ..) => format!("{partitions} can be moved (dry run)"),
        (false, true, _) => format!("cancelled the moves of {partitions}"),
        (false, false, true) => format!("moved {partitions}"),
        (false, false, false) => {
            format!("moving {partitions}; to follow: varve cluster reassignments --watch")
        }
    }
}

fn print_failures(failures: Vec<v1::ReassignmentFailure>) -> Result<(), Failure> {
    for failure in failures {
        let id = failure.topic_partition.unwrap_or_default();
        let error = RpcError::from_partition(failure.error.unwrap_or_default());
        print_line(&format!("{}:{}: {error}", id.topic, id.partition))?;
    }
    Ok(())
}

/// Waits until none of these is moving.
async fn settle(
    global: &Global,
    admin: &Admin,
    partitions: Vec<v1::TopicPartition>,
    wait: WaitArgs,
) -> Result<(), Failure> {
    let mut waiting = Waiting::new(global, wait);
    loop {
        let moves = match admin.all_reassignments().await {
            Ok(moves) => moves,
            Err(error) if passing(&error, wait) => {
                waiting.again(error.to_string()).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mine = |m: &&v1::ReassignmentProgress| {
            let id = m.topic_partition.as_ref();
            id.is_some_and(|id| partitions.contains(id))
        };
        let mine: Vec<_> = moves.iter().filter(mine).collect();
        if mine.is_empty() {
            return Ok(());
        }
        let bytes: i64 = mine.iter().filter_map(|m| m.remaining_bytes).sum();
        let partitions = count(mine.len(), "partition");
        let now = format!("{partitions} moving, {} left", count(bytes, "byte"));
        waiting.again(now).await?;
    }
}

fn print_moves(moves: Vec<v1::ReassignmentProgress>, output: Output) -> Result<(), Failure> {
    if !output.is_text() {
        let answer = v1::ListReassignmentsResponse {
            reassignments: moves,
            ..Default::default()
        };
        return print_message(output, "ListReassignmentsResponse", &answer);
    }
    let some = |n: Option<String>| n.unwrap_or_else(|| "-".to_owned());
    let rows = moves.into_iter().map(|m| {
        let id = m.topic_partition.unwrap_or_default();
        vec![
            id.topic,
            id.partition.to_string(),
            some(m.leader_node_id.map(|n| n.to_string())),
            numbers(&m.adding_node_ids),
            numbers(&m.removing_node_ids),
            some(m.remaining_bytes.map(|n| n.to_string())),
        ]
    });
    let headings = [
        "TOPIC",
        "PARTITION",
        "LEADER",
        "ADDING",
        "REMOVING",
        "BYTES LEFT",
    ];
    print_table(&headings, rows.collect())
}
