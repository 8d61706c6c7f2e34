//! What the metrics say of groups. The coordinators are tasks of their own, so they are asked before a scrape and
//! their answers are kept for it; the lag is made at scrape time from the partitions as they are then. Groups beyond
//! `metrics.groups.max` are counted and have no series of their own.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::DescriptorEncoder;
use varve_groups::{GroupState, Survey};

use crate::scrape::{Labels, family, has_series};
use crate::start::{Broker, Inner};

/// Longest time a scrape waits for the coordinator: what was known before is shown then.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was last told of groups.
#[derive(Debug, Default)]
pub(crate) struct GroupGauges(ArcSwap<Survey>);

impl Broker {
    /// Asks the coordinators for what the metrics say of groups. Called before each scrape; bounded in time.
    pub async fn refresh_group_metrics(&self) {
        let survey = self.inner.groups.survey(self.inner.config.groups_metrics);
        if let Ok(Some(seen)) = tokio::time::timeout(PATIENCE, survey).await {
            self.inner.group_gauges.0.store(Arc::new(seen));
        }
    }
}

impl GroupGauges {
    pub(crate) fn encode(&self, inner: &Inner, e: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let seen = self.0.load();
        let (mut members, mut states) = (Vec::new(), Vec::new());
        let (mut committed, mut lags, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        for (listing, offsets) in &seen.groups {
            let group = listing.group.as_str();
            let count = i64::try_from(listing.members).unwrap_or(i64::MAX);
            members.push((labels(&[("group", group)]), count));
            for (state, name) in STATES {
                let value = i64::from(*state == listing.state);
                states.push((labels(&[("group", group), ("state", name)]), value));
            }
            let mut sum: Option<(&str, i64)> = None;
            for offset in offsets {
                let (topic, number) = (offset.partition.topic.as_str(), offset.partition.partition);
                let mut place = labels(&[("group", group), ("topic", topic)]);
                place.push(("partition", number.to_string()));
                let has_series = has_series(inner, &offset.partition.topic);
                if has_series {
                    committed.push((place.clone(), offset.offset.get()));
                }
                let Ok(partition) = inner.registry.partition(&offset.partition) else {
                    continue;
                };
                let lag = partition.high_watermark().get() - offset.offset.get();
                if has_series {
                    lags.push((place, lag.max(0)));
                }
                // Offsets are ordered by topic, so the sums of a topic are next to each other.
                sum = match sum {
                    Some((of, so_far)) if of == topic => Some((of, so_far + lag.max(0))),
                    other => {
                        push_sum(&mut sums, group, other);
                        Some((topic, lag.max(0)))
                    }
                };
            }
            push_sum(&mut sums, group, sum);
        }
        let counts: Vec<(Labels, i64)> = STATES
            .iter()
            .map(|(state, name)| {
                let count = seen.states.get(state).copied().unwrap_or_default();
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                (labels(&[("state", name)]), count)
            })
            .collect();
        let name = "consumer_groups";
        family(e, name, "Groups that this node coordinates", &counts)?;
        let name = "consumer_group_members";
        family(e, name, "Members of a group", &members)?;
        let name = "consumer_group_state";
        family(e, name, "1 for the state that the group is in", &states)?;
        let name = "consumer_group_committed_offset";
        family(e, name, "Next offset that the group will read", &committed)?;
        let name = "consumer_group_lag";
        family(
            e,
            name,
            "Records between the committed offset and the end of the log",
            &lags,
        )?;
        let name = "consumer_group_lag_sum";
        family(
            e,
            name,
            "Lag of a group over all partitions of a topic",
            &sums,
        )
    }
}

const STATES: &[(GroupState, &str)] = &[
    (GroupState::Empty, "empty"),
    (GroupState::Stable, "stable"),
    (GroupState::Reconciling, "reconciling"),
];

fn push_sum(sums: &mut Vec<(Labels, i64)>, group: &str, sum: Option<(&str, i64)>) {
    if let Some((topic, lag)) = sum {
        sums.push((labels(&[("group", group), ("topic", topic)]), lag));
    }
}

fn labels(pairs: &[(&'static str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| (*k, (*v).to_owned())).collect()
}
