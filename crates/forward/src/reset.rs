//! Resets of offsets: the coordinator writes them, the leaders of the partitions know where they go.
//!
//! Invariant: either every partition of a reset has its place, or nothing is written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use varve_broker_api as api;
use varve_broker_api::{Broker, Context, Error, ResetTarget};
use varve_types::{ErrorKind, GroupName, Offset, PartitionId, TopicPartition, limits};

use crate::groups::own;
use crate::{Forwarding, Result};

/// How long leaders are asked.
const WITHIN: Duration = Duration::from_secs(20);

impl<B: Broker> Forwarding<B> {
    pub(crate) async fn reset(
        &self,
        ctx: &Context,
        reset: api::ResetOffsets,
    ) -> Result<Vec<api::CommittedOffset>> {
        let reset = &reset;
        let local = || async move {
            match self.broker.reset_offsets(ctx, reset.clone()).await {
                // This node coordinates the group, and others know where its offsets go.
                Err(error) if elsewhere(&error, reset) => {
                    let target = ResetTarget::Exactly(self.places(ctx, reset).await?);
                    let exact = api::ResetOffsets {
                        target,
                        ..reset.clone()
                    };
                    self.broker.reset_offsets(ctx, exact).await
                }
                answer => answer,
            }
        };
        self.reset_at(ctx, reset, local).await
    }

    /// The offset of each partition after the reset.
    async fn places(
        &self,
        ctx: &Context,
        reset: &api::ResetOffsets,
    ) -> Result<BTreeMap<TopicPartition, Offset>> {
        let ctx = &own(ctx, WITHIN);
        let current = self.committed_map(ctx, &reset.group).await?;
        let source = match &reset.target {
            ResetTarget::FromGroup(other) => Some(self.committed_map(ctx, other).await?),
            _ => None,
        };
        let wanted = self.covered(ctx, reset, source.as_ref().unwrap_or(&current))?;
        let position = match &reset.target {
            ResetTarget::Position(position) => Some(*position),
            _ => None,
        };
        let queries = wanted
            .iter()
            .map(|partition| api::OffsetQuery {
                isolation: api::Isolation::default(),
                partition: partition.clone(),
                position,
                with_time: false,
            })
            .collect();
        let found = self.find_offsets(ctx, queries).await;
        let mut places = BTreeMap::new();
        for (partition, found) in wanted.into_iter().zip(found) {
            let found = found?;
            let own = current.get(&partition).copied();
            let place = match &reset.target {
                ResetTarget::Position(_) => found.offset,
                ResetTarget::Committed => own,
                ResetTarget::ShiftBy(by) => {
                    own.map(|o| Offset::new(o.get().saturating_add(*by)).unwrap_or(Offset::ZERO))
                }
                ResetTarget::FromGroup(_) => {
                    source.as_ref().and_then(|s| s.get(&partition).copied())
                }
                ResetTarget::Exactly(places) => places.get(&partition).copied(),
            };
            if let Some(place) = place {
                places.insert(
                    partition,
                    place.clamp(found.log_start, found.high_watermark),
                );
            }
        }
        Ok(places)
    }

    async fn committed_map(
        &self,
        ctx: &Context,
        group: &GroupName,
    ) -> Result<BTreeMap<TopicPartition, Offset>> {
        let request = api::GetOffsets {
            require_stable: false,
            group: group.clone(),
            partitions: Vec::new(),
            include_lag: false,
        };
        let found = self.committed(ctx, request).await?;
        Ok(found.into_iter().map(|o| (o.partition, o.offset)).collect())
    }

    /// The partitions a reset names, or those that have an offset.
    fn covered(
        &self,
        ctx: &Context,
        reset: &api::ResetOffsets,
        committed: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<BTreeSet<TopicPartition>> {
        let mut wanted: BTreeSet<TopicPartition> = reset.partitions.iter().cloned().collect();
        for name in &reset.topics {
            let topic = self.broker.topic(ctx, name)?;
            let all = (0..topic.partitions).map(PartitionId);
            wanted.extend(all.map(|p| TopicPartition::new(name.clone(), p)));
        }
        if reset.partitions.is_empty() && reset.topics.is_empty() {
            wanted.extend(committed.keys().cloned());
        }
        let most = limits::PARTITIONS_PER_TOPIC_MAX as usize;
        if wanted.len() > most {
            let text = format!("a reset may cover at most {most} partitions; nothing was changed");
            return Err(Error::new(ErrorKind::InvalidRequest, text));
        }
        Ok(wanted)
    }
}

/// Whether a reset failed at its coordinator for what other nodes know: where partitions end, or what
/// another group has committed.
fn elsewhere(error: &Error, reset: &api::ResetOffsets) -> bool {
    match (error.kind, &reset.target) {
        (ErrorKind::NotLeader | ErrorKind::LeaderNotAvailable, _) => true,
        (
            ErrorKind::NotCoordinator | ErrorKind::CoordinatorLoading,
            ResetTarget::FromGroup(other),
        ) => {
            let about = error.metadata.iter().find(|(key, _)| *key == "group");
            *other != reset.group && about.is_some_and(|(_, group)| group == other.as_str())
        }
        _ => false,
    }
}
