//! `varve consume -g`: as a member of a consumer group. A batch is committed only after it was printed and
//! written out.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use varve_client::{
    Assignment, End, GroupConfig, GroupConsumer, Start, StartPolicy, consumer::resolve, proto as v1,
};
use varve_types::{GroupName, TopicName, TopicPartition};

use crate::args::ConsumeArgs;
use crate::connection::{Settings, suggest_topic};
use crate::consume::{Printer, consumer_config, idle_timeout, partitions_of, topics};
use crate::failure::Failure;
use crate::offset::{From, Spec};
use crate::produce::interrupted;

/// How often a member that stops at the end looks whether it is there.
const END_CHECK: Duration = Duration::from_millis(500);

/// Runs until the end, the count, silence or an interrupt.
///
/// # Errors
/// [`Failure`]; what was printed before has been committed where possible.
pub async fn run(
    settings: &Settings,
    args: &ConsumeArgs,
    spec: Spec,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let config = group_config(settings, args, spec).await?;
    let ends = match spec.end {
        None | Some(End::Never) => None,
        Some(end) => Some(ends(settings, &config.topics, end).await?),
    };
    if config.topic_pattern.is_empty() {
        // A topic that is missing would be waited for without a word.
        let admin = settings.admin()?;
        for topic in &config.topics {
            let request = v1::GetTopicRequest {
                topic: topic.to_string(),
            };
            if let Err(error) = admin.get_topic(request).await {
                return Err(suggest_topic(&admin, topic.as_str(), error).await);
            }
        }
    }
    let group = config.group.clone();
    let mut member = GroupConsumer::join(settings.data_client()?, config)?;
    let result = follow(settings, args, &group, &mut member, ends, printer).await;
    printer.flush()?;
    let closed = member.close().await;
    result?;
    closed?;
    Ok(())
}

async fn group_config(
    settings: &Settings,
    args: &ConsumeArgs,
    spec: Spec,
) -> Result<GroupConfig, Failure> {
    let name = args.group.as_deref().unwrap_or_default();
    let group = GroupName::new(name).map_err(|error| Failure::usage(error.to_string()))?;
    let mut config = GroupConfig::new(group, Vec::new());
    if args.regex {
        let patterns: Vec<&String> = args.topics.iter().chain(&args.more_topics).collect();
        config.topic_pattern = patterns
            .iter()
            .map(|p| format!("(?:{p})"))
            .collect::<Vec<_>>()
            .join("|");
    } else {
        config.topics = topics(settings, args).await?;
    }
    config.start = StartPolicy(match spec.start {
        None | Some(From::Stored) => Start::Earliest,
        Some(From::Place(start)) => start,
    });
    config.instance_id = args.instance_id.clone();
    config.auto_commit = (!args.no_commit).then_some(args.commit_interval);
    let policy = match config.start.0 {
        Start::Latest => v1::OutOfRangePolicy::Latest,
        _ => v1::OutOfRangePolicy::Earliest,
    };
    config.consumer = varve_client::ConsumerConfig {
        out_of_range: policy,
        ..consumer_config(settings, args)?
    };
    Ok(config)
}

/// One past the last record to print, of every partition.
async fn ends(
    settings: &Settings,
    topics: &[TopicName],
    end: End,
) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
    let admin = settings.admin()?;
    let mut assignments = Vec::new();
    for topic in topics {
        for partition in partitions_of(&admin, topic, &[]).await? {
            let topic = topic.clone();
            assignments.push(Assignment {
                topic,
                partition,
                start: Start::Earliest,
                end,
            });
        }
    }
    let resolved = resolve(admin.client(), settings.timeout(), &assignments).await?;
    let ends = assignments
        .into_iter()
        .zip(resolved)
        .map(|(assignment, at)| {
            let partition = varve_types::PartitionId(assignment.partition);
            // A partition that is empty ends where it begins.
            let end = at.end.unwrap_or(i64::MAX);
            let end = if end <= at.start { 0 } else { end };
            (TopicPartition::new(assignment.topic, partition), end)
        });
    Ok(ends.collect())
}

async fn follow(
    settings: &Settings,
    args: &ConsumeArgs,
    group: &GroupName,
    member: &mut GroupConsumer,
    ends: Option<BTreeMap<TopicPartition, i64>>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let stop = interrupted();
    tokio::pin!(stop);
    let idle = idle_timeout(args);
    let mut reached: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    let mut silent_since = tokio::time::Instant::now();
    while !printer.is_full() {
        // What was taken must be written out before the next call counts it as processed.
        printer.flush()?;
        let batch = match member.next_batch().now_or_never() {
            Some(batch) => batch?,
            None => {
                let wait = if ends.is_some() {
                    idle.min(END_CHECK)
                } else {
                    idle
                };
                let batch = tokio::select! {
                    biased;
                    () = &mut stop => return Ok(()),
                    batch = tokio::time::timeout(wait, member.next_batch()) => batch,
                };
                match batch {
                    Ok(batch) => batch?,
                    Err(_) if silent_since.elapsed() >= idle => return Ok(()),
                    Err(_) => {
                        if let Some(ends) = &ends
                            && at_end(settings, group, member, ends, &reached).await?
                        {
                            return Ok(());
                        }
                        continue;
                    }
                }
            }
        };
        silent_since = tokio::time::Instant::now();
        let partition = TopicPartition::new(batch.topic.clone(), batch.partition);
        let next = printer.print(&batch)?;
        if next != batch.next_offset {
            printer.flush()?;
            member.processed_up_to(next);
        }
        reached.insert(partition, next);
        if stop.as_mut().now_or_never().is_some() {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether every partition of this member has been read to its end, here or by a commit of before.
async fn at_end(
    settings: &Settings,
    group: &GroupName,
    member: &GroupConsumer,
    ends: &BTreeMap<TopicPartition, i64>,
    reached: &BTreeMap<TopicPartition, i64>,
) -> Result<bool, Failure> {
    if member.owned().is_empty() {
        return Ok(false);
    }
    let mut open: Vec<&TopicPartition> = member
        .owned()
        .iter()
        .filter(|partition| {
            let end = ends.get(*partition).copied().unwrap_or(0);
            end > reached.get(*partition).copied().unwrap_or(0)
        })
        .collect();
    if open.is_empty() {
        return Ok(true);
    }
    let wire = |partition: &TopicPartition| v1::TopicPartition {
        topic: partition.topic.to_string(),
        partition: partition.partition.0,
    };
    let request = v1::GetOffsetsRequest {
        group: group.to_string(),
        partitions: open.iter().map(|partition| wire(partition)).collect(),
        include_lag: false,
    };
    let committed = settings.admin()?.get_offsets(request).await?.offsets;
    open.retain(|partition| {
        let name = Some(wire(partition));
        let at = committed
            .iter()
            .find(|c| c.topic_partition == name)
            .map(|c| c.offset);
        at.is_none_or(|at| at < ends.get(*partition).copied().unwrap_or(0))
    });
    Ok(open.is_empty())
}
