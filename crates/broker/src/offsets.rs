//! Offsets by position, time or group: resolving them, trimming to them, resetting groups to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use varve_broker_api::{
    Before, CommittedOffset, Context, DeleteBefore, Error, FetchPartition, Isolation, OffsetCommit,
    OffsetFound, OffsetQuery, Position, ResetOffsets, ResetTarget, Result,
};
use varve_record::iter_batches;
use varve_storage::ReadError;
use varve_types::{ErrorKind, Offset, PartitionId, TopicPartition, limits};

use crate::isolation::Sight;
use crate::lane::Command;
use crate::partition::Partition;
use crate::reader::{self, OLD_VIEWS_MOST, read_error};
use crate::registry::{Readable, Registry};
use crate::reject;
use crate::work::blocking;

/// How long a question about a partition waits for a new leader to learn what is committed.
const END_KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// Time between looks.
const END_LOOK: Duration = Duration::from_millis(5);

/// Answers one query.
pub(crate) async fn find(
    registry: &Registry,
    query: &OffsetQuery,
    rack: &str,
) -> Result<OffsetFound> {
    let Readable { partition, copy } = registry.readable(&query.partition, rack)?;
    if copy {
        return find_in_copy(registry, &partition, query.position);
    }
    if registry.cluster().is_some() {
        // What failed here ends where it failed, and whoever leads by now goes on.
        if partition.offline().is_some() && partition.leading().is_none() {
            return Err(registry.not_leading(&partition.id));
        }
        know_the_end(registry, &partition).await?;
    }
    let (offset, timestamp_ms) = match query.position {
        None => (None, None),
        Some(position) => {
            let (offset, timestamp) = resolve_for(&partition, position, query.isolation).await?;
            let time = match timestamp {
                None if query.with_time => time_at(&partition, offset).await,
                found => found,
            };
            (Some(offset), time)
        }
    };
    partition.view()?;
    Ok(OffsetFound {
        last_stable: partition.last_stable(),
        offset,
        timestamp_ms,
        log_start: partition.log_start(),
        high_watermark: partition.high_watermark(),
        leader_epoch: partition.leader_epoch(),
    })
}

/// Answers for a copy whether a reader may go on at an offset. Everything else is the leader's to say, who
/// may be ahead.
fn find_in_copy(
    registry: &Registry,
    partition: &Arc<Partition>,
    position: Option<Position>,
) -> Result<OffsetFound> {
    let (start, end) = (partition.log_start(), partition.log_end());
    match position {
        Some(Position::Offset(offset)) if (start..=end).contains(&offset) => Ok(OffsetFound {
            last_stable: partition.last_stable(),
            offset: Some(offset),
            timestamp_ms: None,
            log_start: start,
            // The reader has seen it at the leader: it is committed, though this copy may not know yet.
            high_watermark: partition.high_watermark().max(offset),
            leader_epoch: partition.leader_epoch(),
        }),
        _ => Err(registry.not_leading(&partition.id)),
    }
}

/// Waits until a leader that has just been elected knows of everything its predecessors had committed: an
/// end that lies before records that were acknowledged would be a lie.
async fn know_the_end(registry: &Registry, partition: &Arc<Partition>) -> Result<()> {
    let deadline = tokio::time::Instant::now() + END_KNOWN_WITHIN;
    while partition.high_watermark() < partition.epoch_start() {
        if partition.leading().is_none() {
            return Err(registry.not_leading(&partition.id));
        }
        if tokio::time::Instant::now() >= deadline {
            let text = format!(
                "partition {} has a new leader that does not know yet how far records are \
                 committed: {} of {} offsets; try again, and check for replicas that are out of \
                 sync",
                partition.id,
                partition.high_watermark(),
                partition.epoch_start()
            );
            return Err(Error::new(ErrorKind::LeaderNotAvailable, text)
                .with("topic", &partition.id.topic)
                .with("partition", partition.id.partition));
        }
        tokio::time::sleep(END_LOOK).await;
    }
    Ok(())
}

/// The offset of a position, with the record's time when it was found by time.
pub(crate) async fn resolve(
    partition: &Arc<Partition>,
    position: Position,
) -> Result<(Offset, Option<i64>)> {
    resolve_for(partition, position, Isolation::Uncommitted).await
}

/// As [`resolve`], for readers whose log ends where `isolation` says.
async fn resolve_for(
    partition: &Arc<Partition>,
    position: Position,
    isolation: Isolation,
) -> Result<(Offset, Option<i64>)> {
    let end = match isolation {
        Isolation::Committed => partition.last_stable(),
        Isolation::Uncommitted => partition.high_watermark(),
    };
    let start = partition.log_start();
    Ok(match position {
        Position::Offset(offset) => (offset, None),
        Position::Earliest => (start, None),
        Position::Latest => (end, None),
        Position::Last(records) => {
            let back = end.get().saturating_sub_unsigned(records).max(start.get());
            (Offset::new(back).unwrap_or(start), None)
        }
        Position::Timestamp(_) | Position::MaxTimestamp => {
            let mut found = find_time(partition, position, end).await?;
            // The log was changed under the view: a newer one shows where the records are.
            for _ in 1..OLD_VIEWS_MOST {
                if !matches!(found, Err(ReadError::Stale)) {
                    break;
                }
                found = find_time(partition, position, end).await?;
            }
            match found {
                Ok(Some((offset, time))) => (offset, Some(time)),
                Ok(None) => (end, None),
                Err(error) => return Err(read_error(partition, start, &error, None)),
            }
        }
    })
}

async fn find_time(
    partition: &Arc<Partition>,
    position: Position,
    end: Offset,
) -> Result<std::result::Result<Option<(Offset, i64)>, ReadError>> {
    let view = partition.view()?;
    let ms = match position {
        Position::Timestamp(ms) => ms,
        _ => view.max_timestamp().unwrap_or(i64::MAX),
    };
    // Finding a time may read cold index and log pages.
    let found = blocking(&partition.workers, move || {
        view.offset_for_timestamp(ms, end)
    });
    found.await.map_err(|e| reject::storage(partition, &e))
}

/// Time of the first committed record at or behind an offset; `None` when there is none, or it cannot be read: a time
/// is for people to look at, and no reason to refuse them the rest.
pub(crate) async fn time_at(partition: &Arc<Partition>, offset: Offset) -> Option<i64> {
    if offset >= partition.high_watermark() {
        return None;
    }
    let request = FetchPartition {
        topic: partition.id.topic.clone(),
        partition: partition.id.partition,
        offset: offset.max(partition.log_start()),
        max_bytes: 1,
        leader_epoch: None,
    };
    let sight = Sight::Of(Isolation::Uncommitted);
    let fetched = reader::read_one(partition, &request, 1, true, sight)
        .await
        .ok()?;
    for batch in iter_batches(fetched.batches) {
        let batch = batch.ok()?;
        batch.verify_crc().ok()?;
        for record in batch.records().ok()? {
            let record = record.ok()?;
            if record.offset >= request.offset {
                return Some(record.timestamp);
            }
        }
    }
    None
}

/// Adds to committed offsets how old the first record is that the group has not read, where this node leads.
pub(crate) async fn with_times(
    registry: &Registry,
    mut offsets: Vec<CommittedOffset>,
) -> Vec<CommittedOffset> {
    for found in &mut offsets {
        let behind = found.high_watermark.is_some_and(|end| found.offset < end);
        if let (true, Ok(partition)) = (behind, registry.leading(&found.partition)) {
            found.next_time_ms = time_at(&partition, found.offset).await;
        }
    }
    offsets
}

/// Moves a log start forward.
pub(crate) async fn delete_before(registry: &Registry, item: &DeleteBefore) -> Result<Offset> {
    let partition = registry.leading(&item.partition)?;
    if partition.config().cleanup.compact && !partition.config().cleanup.delete {
        let text = format!(
            "topic {:?} is compacted, so its records cannot be deleted by offset; nothing was \
             deleted",
            item.partition.topic.as_str()
        );
        return Err(Error::new(ErrorKind::PolicyViolation, text));
    }
    let position = match item.before {
        Before::Offset(offset) => Position::Offset(offset),
        Before::Timestamp(ms) => Position::Timestamp(ms),
        Before::End => Position::Latest,
    };
    let (to, _) = resolve(&partition, position).await?;
    if let Some(reason) = partition.offline() {
        tracing::debug!(partition = %partition.id, reason, "trim refused");
        return Err(partition.offline_error());
    }
    let (reply, answer) = oneshot::channel();
    let command = Command::Trim {
        slot: partition.slot,
        to,
        reply,
    };
    let shutting_down = || Error::new(ErrorKind::ShuttingDown, "the broker is shutting down");
    partition.lane.push(command).map_err(|_| shutting_down())?;
    answer.await.map_err(|_| shutting_down())?
}

/// Refuses metadata that is too long and, unless the caller may commit them, positions that no record can have yet.
pub(crate) fn check_commit(
    registry: &Registry,
    ctx: &Context,
    commit: &OffsetCommit,
) -> Result<()> {
    registry
        .topic(&commit.partition.topic)?
        .check_number(commit.partition.partition)?;
    if commit.metadata.len() > limits::COMMIT_METADATA_MAX_BYTES {
        return Err(Error::invalid(
            "offsets.metadata",
            format!(
                "commit metadata has at most {} bytes; found {}",
                limits::COMMIT_METADATA_MAX_BYTES,
                commit.metadata.len()
            ),
        ));
    }
    // Only its leader knows where a partition ends.
    if !ctx.commits_ahead
        && let Ok(partition) = registry.leading(&commit.partition)
        && commit.offset > partition.seen_end()
    {
        return Err(reject::out_of_range(&partition, commit.offset));
    }
    Ok(())
}

/// The commit in the words of the core.
pub(crate) fn to_core(commit: OffsetCommit) -> varve_groups::OffsetCommit {
    varve_groups::OffsetCommit {
        partition: commit.partition,
        offset: commit.offset,
        leader_epoch: commit.leader_epoch,
        metadata: commit.metadata,
    }
}

/// The committed offset in the words of the API, with the high watermark if `registry` is given.
pub(crate) fn from_core(
    o: varve_groups::CommittedOffset,
    registry: Option<&Registry>,
) -> CommittedOffset {
    let partition = registry.and_then(|r| r.leading(&o.partition).ok());
    CommittedOffset {
        high_watermark: partition.map(|p| p.high_watermark()),
        partition: o.partition,
        offset: o.offset,
        leader_epoch: o.leader_epoch,
        metadata: o.metadata,
        commit_time_ms: o.commit_time_ms,
        next_time_ms: None,
    }
}

/// A reset that was computed and not written.
pub(crate) fn planned(o: OffsetCommit, now_ms: i64) -> CommittedOffset {
    CommittedOffset {
        partition: o.partition,
        offset: o.offset,
        leader_epoch: o.leader_epoch,
        metadata: o.metadata,
        commit_time_ms: now_ms,
        high_watermark: None,
        next_time_ms: None,
    }
}

/// What a reset would commit, ordered by partition.
pub(crate) async fn plan_reset(
    registry: &Registry,
    request: &ResetOffsets,
    current: &[varve_groups::CommittedOffset],
    source: Option<&[varve_groups::CommittedOffset]>,
) -> Result<Vec<OffsetCommit>> {
    if let ResetTarget::Exactly(places) = &request.target {
        let place = |(partition, offset): (&TopicPartition, &Offset)| OffsetCommit {
            partition: partition.clone(),
            offset: *offset,
            leader_epoch: None,
            metadata: String::new(),
        };
        return Ok(places.iter().map(place).collect());
    }
    let committed: BTreeMap<&TopicPartition, Offset> =
        current.iter().map(|o| (&o.partition, o.offset)).collect();
    let source: Option<BTreeMap<&TopicPartition, Offset>> =
        source.map(|s| s.iter().map(|o| (&o.partition, o.offset)).collect());
    let mut plan = Vec::new();
    for id in reset_partitions(registry, request, &committed, source.as_ref())? {
        let partition = registry.leading(&id)?;
        let own = committed.get(&id).copied();
        let offset = match &request.target {
            ResetTarget::Position(position) => Some(resolve(&partition, *position).await?.0),
            ResetTarget::Committed => own,
            ResetTarget::ShiftBy(by) => {
                own.map(|o| Offset::new(o.get().saturating_add(*by)).unwrap_or(Offset::ZERO))
            }
            ResetTarget::Exactly(places) => places.get(&id).copied(),
            ResetTarget::FromGroup(_) => source.as_ref().and_then(|s| s.get(&id).copied()),
        };
        if let Some(offset) = offset {
            let (start, end) = (partition.log_start(), partition.seen_end());
            plan.push(OffsetCommit {
                partition: id,
                offset: offset.clamp(start, end),
                leader_epoch: None,
                metadata: String::new(),
            });
        }
    }
    Ok(plan)
}

fn reset_partitions(
    registry: &Registry,
    request: &ResetOffsets,
    committed: &BTreeMap<&TopicPartition, Offset>,
    source: Option<&BTreeMap<&TopicPartition, Offset>>,
) -> Result<std::collections::BTreeSet<TopicPartition>> {
    let mut wanted: std::collections::BTreeSet<TopicPartition> =
        request.partitions.iter().cloned().collect();
    for name in &request.topics {
        let topic = registry.topic(name)?;
        let all = (0..topic.info.partitions).map(PartitionId);
        wanted.extend(all.map(|p| TopicPartition::new(name.clone(), p)));
    }
    if request.partitions.is_empty() && request.topics.is_empty() {
        let all = source.unwrap_or(committed);
        wanted.extend(all.keys().map(|p| (*p).clone()));
    }
    if wanted.len() > limits::PARTITIONS_PER_TOPIC_MAX as usize {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "a reset may cover at most {} partitions",
                limits::PARTITIONS_PER_TOPIC_MAX
            ),
        ));
    }
    Ok(wanted)
}
