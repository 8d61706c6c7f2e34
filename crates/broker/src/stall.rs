//! Flushes that take too long: a disk that hangs gives no error, so somebody has to look at the clock. Nothing
//! is done about it but telling: on one node there is nobody to hand the partition to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use varve_types::TopicPartition;
use varve_vfs::{Clock, Tick};

use crate::registry::Registry;

/// A flush that takes longer has stalled.
const STALL: Duration = Duration::from_secs(3);
/// How often is looked for stalls that nobody has asked about.
const LOOK: Duration = Duration::from_millis(500);

/// The flushes that are under way: one per thread at most.
#[derive(Debug, Default)]
pub(crate) struct FlushWatch {
    running: Mutex<Vec<(u32, Tick)>>,
}

impl FlushWatch {
    pub(crate) fn begin(&self, slot: u32, now: Tick) {
        self.running.lock().push((slot, now));
    }

    pub(crate) fn end(&self, slot: u32) {
        let mut running = self.running.lock();
        // A partition has one flush at a time.
        if let Some(at) = running.iter().position(|(s, _)| *s == slot) {
            running.swap_remove(at);
        }
    }

    /// Slots whose flush has stalled, and since how long it runs.
    fn stalled(&self, now: Tick) -> Vec<(u32, Duration)> {
        let running = self.running.lock();
        let since = running.iter().map(|(s, begun)| (*s, now.since(*begun)));
        since.filter(|(_, span)| *span > STALL).collect()
    }

    /// Number of flushes that have stalled.
    pub(crate) fn count(&self, now: Tick) -> usize {
        self.stalled(now).len()
    }

    /// Partitions whose flush has stalled.
    pub(crate) fn partitions(
        &self,
        now: Tick,
        registry: &Registry,
    ) -> Vec<(TopicPartition, Duration)> {
        let stalled = self.stalled(now);
        if stalled.is_empty() {
            return Vec::new();
        }
        let view = registry.view();
        let partitions = view.partitions();
        partitions
            .filter_map(|p| {
                let (_, span) = stalled.iter().find(|(slot, _)| *slot == p.slot)?;
                Some((p.id.clone(), *span))
            })
            .collect()
    }

    /// How long the flush of that slot has stalled.
    pub(crate) fn of(&self, slot: u32, now: Tick) -> Option<Duration> {
        let stalled = self.stalled(now);
        stalled
            .iter()
            .find(|(s, _)| *s == slot)
            .map(|(_, span)| *span)
    }
}

/// Tells each stall once, when it begins and when it ends. Runs until dropped.
pub(crate) async fn run(watch: Arc<FlushWatch>, registry: Arc<Registry>, clock: Arc<dyn Clock>) {
    let mut told: BTreeSet<TopicPartition> = BTreeSet::new();
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = watch.partitions(clock.now(), &registry);
        for (partition, span) in &now {
            if told.insert(partition.clone()) {
                tracing::error!(
                    %partition, seconds = span.as_secs(),
                    "a flush is stuck: the disk does not answer; appends wait and are not \
                     acknowledged"
                );
            }
        }
        told.retain(|partition| {
            let still = now.iter().any(|(p, _)| p == partition);
            if !still {
                tracing::info!(%partition, "the stuck flush has ended");
            }
            still
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_that_takes_long_has_stalled_until_it_ends() {
        let watch = FlushWatch::default();
        let at = |seconds| Tick::from_start(Duration::from_secs(seconds));
        watch.begin(7, at(1));
        watch.begin(8, at(3));
        assert_eq!(watch.count(at(4)), 0);
        assert_eq!(watch.count(at(5)), 1);
        assert_eq!(watch.of(7, at(5)), Some(Duration::from_secs(4)));
        assert_eq!(watch.of(8, at(5)), None);
        watch.end(7);
        assert_eq!(watch.count(at(6)), 0);
        assert_eq!(watch.count(at(60)), 1);
        watch.end(8);
        watch.end(8);
        assert_eq!(watch.count(at(60)), 0);
    }
}
