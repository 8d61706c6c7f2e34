//! What the metrics say of groups. The coordinator is a task of its own, so it is asked before a scrape and
//! its answers are kept for it; the lag is made at scrape time from the partitions as they are then.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::DescriptorEncoder;
use varve_groups::{CommittedOffset, GroupListing, GroupState, Input, Reply};

use crate::scrape::{Labels, family, has_series};
use crate::start::{Broker, Inner};

/// Longest time a scrape waits for the coordinator: what was known before is shown then.
const PATIENCE: Duration = Duration::from_secs(2);

/// A group when it was last asked.
#[derive(Debug)]
struct Seen {
    listing: GroupListing,
    offsets: Vec<CommittedOffset>,
}

/// Every group when last asked.
#[derive(Debug, Default)]
pub(crate) struct GroupGauges(ArcSwap<Vec<Seen>>);

impl Broker {
    /// Asks the coordinator for what the metrics say of groups. Called before each scrape; bounded in time.
    pub async fn refresh_group_metrics(&self) {
        if let Ok(Some(seen)) = tokio::time::timeout(PATIENCE, self.look_at_groups()).await {
            self.inner.group_gauges.0.store(Arc::new(seen));
        }
    }

    async fn look_at_groups(&self) -> Option<Vec<Seen>> {
        let groups = &self.inner.groups;
        let listed = groups.call(|ticket| Input::ListGroups { ticket }).await;
        let Ok(Reply::Groups(listed)) = listed else {
            return None;
        };
        let mut seen = Vec::with_capacity(listed.len());
        for listing in listed {
            let group = listing.group.clone();
            let offsets = groups.look(|ticket| Input::GetOffsets {
                ticket,
                group,
                partitions: Vec::new(),
                require_stable: false,
            });
            // A group that is gone by now is left out.
            if let Ok(Reply::Offsets(offsets)) = offsets.await {
                seen.push(Seen { listing, offsets });
            }
        }
        Some(seen)
    }
}

impl GroupGauges {
    pub(crate) fn encode(&self, inner: &Inner, e: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let seen = self.0.load();
        let (mut members, mut states) = (Vec::new(), Vec::new());
        let (mut committed, mut lags, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        for Seen { listing, offsets } in seen.iter() {
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
