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
use crate::consume::{
    ABORTED, HINT_AFTER, Printer, consumer_config, idle_timeout, partitions_of, topics,
};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::offset::{From, Spec};
use crate::told;

/// How often a member that stops at the end checks whether it has reached it.
const END_CHECK: Duration = Duration::from_millis(200);
/// A member that has no partition after this long probably gets none.
const JOIN_TIME: Duration = Duration::from_secs(5);

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
    let mut ends = match spec.end {
        None | Some(End::Never) => None,
        Some(end) => Some(Ends::of(settings, &config, end).await?),
    };
    if config.topic_pattern.is_empty() {
        // Without this check the member would wait for a missing topic in silence.
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
    let mut member = GroupConsumer::join(settings.reading_client(args.isolation)?, config)?;
    let result = follow(settings, args, &group, &mut member, ends.as_mut(), printer).await;
    let result = result.and_then(|()| printer.flush());
    if result.is_err() {
        // Not all of it was written out, so it is not committed: the next member reads it again.
        member.not_processed();
    }
    let closed = member.close().await;
    result?;
    closed?;
    Ok(())
}

/// The topics that the command line names; none when it has expressions.
fn named_topics(args: &ConsumeArgs) -> Vec<TopicName> {
    if args.regex {
        return Vec::new();
    }
    let names = args.topics.iter().chain(&args.more_topics);
    names.filter_map(|name| TopicName::new(name).ok()).collect()
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

/// One past the last record to print, of every partition this member has had so far. Topics that a
/// pattern brings are looked up when they are assigned: their end is the one of that moment.
struct Ends {
    end: End,
    /// Where a partition without a committed offset is begun.
    start: Start,
    known: BTreeMap<TopicPartition, Bounds>,
}

#[derive(Clone, Copy)]
struct Bounds {
    /// Where the member begins if nothing is committed.
    start: i64,
    /// 0 when there is nothing to read at all.
    end: i64,
}

impl Ends {
    async fn of(settings: &Settings, config: &GroupConfig, end: End) -> Result<Self, Failure> {
        let admin = settings.admin()?;
        let mut partitions = Vec::new();
        for topic in &config.topics {
            for partition in partitions_of(&admin, topic, &[]).await? {
                let partition = varve_types::PartitionId(partition);
                partitions.push(TopicPartition::new(topic.clone(), partition));
            }
        }
        let mut ends = Self {
            end,
            start: config.start.0,
            known: BTreeMap::new(),
        };
        ends.learn(settings, partitions).await?;
        Ok(ends)
    }

    /// Looks up the ends of partitions that are new here.
    async fn learn(
        &mut self,
        settings: &Settings,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<(), Failure> {
        let unknown = |partition: &TopicPartition| !self.known.contains_key(partition);
        let new: Vec<TopicPartition> = partitions.into_iter().filter(unknown).collect();
        if new.is_empty() {
            return Ok(());
        }
        let from = |start: Start| {
            let assignment = |partition: &TopicPartition| Assignment {
                topic: partition.topic.clone(),
                partition: partition.partition.0,
                start,
                end: self.end,
            };
            new.iter().map(assignment).collect::<Vec<_>>()
        };
        let admin = settings.admin()?;
        let (client, within) = (admin.client(), settings.timeout());
        let whole = resolve(client, within, &from(Start::Earliest)).await?;
        let begun = resolve(client, within, &from(self.start)).await?;
        for ((partition, whole), begun) in new.into_iter().zip(whole).zip(begun) {
            let end = whole.end.unwrap_or(i64::MAX);
            let bounds = Bounds {
                start: begun.start,
                end: if end <= whole.start { 0 } else { end },
            };
            self.known.insert(partition, bounds);
        }
        Ok(())
    }

    fn get(&self, partition: &TopicPartition) -> Bounds {
        let unknown = Bounds {
            start: 0,
            end: i64::MAX,
        };
        self.known.get(partition).copied().unwrap_or(unknown)
    }
}

async fn follow(
    settings: &Settings,
    args: &ConsumeArgs,
    group: &GroupName,
    member: &mut GroupConsumer,
    mut ends: Option<&mut Ends>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let stop = Interrupts::listen(ABORTED).first();
    tokio::pin!(stop);
    let idle = idle_timeout(args);
    let topics: Vec<TopicName> = named_topics(args);
    let mut reached: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    let mut silent_since = tokio::time::Instant::now();
    let mut checked = tokio::time::Instant::now();
    while !printer.is_full() {
        // What was taken must be written out before the next call counts it as processed.
        printer.flush()?;
        // Also while records keep coming: records beyond the end must not keep this member here.
        if let Some(ends) = ends.as_deref_mut()
            && checked.elapsed() >= END_CHECK
        {
            checked = tokio::time::Instant::now();
            if at_end(settings, group, member, ends, &reached).await? {
                return Ok(());
            }
        }
        let batch = match member.next_batch().now_or_never() {
            Some(batch) => batch?,
            None => {
                let wait = if ends.is_some() {
                    idle.min(END_CHECK)
                } else if printer.tells {
                    idle.min(HINT_AFTER)
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
                        // Partitions come with a rebalance; a member may also get none.
                        let settled =
                            !member.owned().is_empty() || silent_since.elapsed() >= JOIN_TIME;
                        if ends.is_none() && settled {
                            let owned = member.owned().len();
                            printer.tell(&told::waiting(&topics, owned, Some(group.as_str())));
                        }
                        continue;
                    }
                }
            }
        };
        silent_since = tokio::time::Instant::now();
        let partition = TopicPartition::new(batch.topic.clone(), batch.partition);
        let mut end = i64::MAX;
        if let Some(ends) = ends.as_deref_mut() {
            ends.learn(settings, [partition.clone()]).await?;
            end = ends.get(&partition).end;
        }
        if batch.batch.header.base_offset.get() >= end {
            // Records beyond the end are left to the next member.
            member.not_processed();
            member.pause([&partition])?;
            continue;
        }
        let next = printer.print(&batch, end)?;
        if next != batch.next_offset {
            printer.flush()?;
            member.processed_up_to(next);
            member.pause([&partition])?;
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
    ends: &mut Ends,
    reached: &BTreeMap<TopicPartition, i64>,
) -> Result<bool, Failure> {
    if member.owned().is_empty() {
        return Ok(false);
    }
    ends.learn(settings, member.owned().iter().cloned()).await?;
    let mut open: Vec<&TopicPartition> = member
        .owned()
        .iter()
        .filter(|partition| ends.get(partition).end > reached.get(*partition).copied().unwrap_or(0))
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
        require_stable: false,
    };
    let committed = settings.admin()?.offsets_of(request).await?;
    open.retain(|partition| {
        let name = Some(wire(partition));
        let at = committed
            .iter()
            .find(|c| c.topic_partition == name)
            .map(|c| c.offset);
        let bounds = ends.get(partition);
        at.unwrap_or(bounds.start) < bounds.end
    });
    Ok(open.is_empty())
}
