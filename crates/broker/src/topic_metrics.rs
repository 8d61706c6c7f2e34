//! Counters of topics. The partitions of a topic that this node holds share one [`TopicCounters`]; the registry of
//! metrics only remembers them weakly.
//!
//! Invariant: the series of a topic are in a scrape exactly as long as this node holds one of its partitions, so that
//! clients that create and delete topics cannot make the scrape grow.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};

/// What is counted for one topic on this node.
#[derive(Debug, Default)]
pub(crate) struct TopicCounters {
    pub(crate) records_produced: Counter,
    pub(crate) bytes_produced: Counter,
    pub(crate) records_fetched: Counter,
    pub(crate) bytes_fetched: Counter,
    pub(crate) corrupt_batches: Counter,
    /// Files beside the batches.
    pub(crate) damaged_files: Counter,
    pub(crate) log_failures: Counter,
    /// Damaged replicas that were given up.
    pub(crate) repairs: Counter,
}

type Series = (&'static str, &'static str, fn(&TopicCounters) -> &Counter);

const SERIES: [Series; 8] = [
    ("records_produced", "Records appended", |t| {
        &t.records_produced
    }),
    ("bytes_produced", "Bytes appended, as stored", |t| {
        &t.bytes_produced
    }),
    ("records_fetched", "Records read by offset", |t| {
        &t.records_fetched
    }),
    ("bytes_fetched", "Bytes read, as stored", |t| {
        &t.bytes_fetched
    }),
    (
        "log_corrupt_batches",
        "Stored batches that failed their checksum; must be 0",
        |t| &t.corrupt_batches,
    ),
    (
        "log_damaged_files",
        "Damaged index files and other files that can be rebuilt from batches; must be 0",
        |t| &t.damaged_files,
    ),
    (
        "log_failures",
        "Logs taken out of service by a failed write or flush; must be 0",
        |t| &t.log_failures,
    ),
    (
        "partition_repairs",
        "Damaged replicas on this node that were replaced by a copy from another node; must be 0",
        |t| &t.repairs,
    ),
];

/// The topics of this node. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopicMetrics(Arc<Mutex<BTreeMap<String, Weak<TopicCounters>>>>);

impl TopicMetrics {
    /// The counters of `topic`, which live as long as somebody holds them.
    pub(crate) fn of(&self, topic: &str) -> Arc<TopicCounters> {
        let mut topics = self.0.lock();
        if let Some(counters) = topics.get(topic).and_then(Weak::upgrade) {
            return counters;
        }
        let counters = Arc::new(TopicCounters::default());
        topics.insert(topic.to_owned(), Arc::downgrade(&counters));
        counters
    }

    /// Every topic that is still held; forgets the others.
    fn held(&self) -> Vec<(String, Arc<TopicCounters>)> {
        let mut held = Vec::new();
        self.0.lock().retain(|topic, counters| {
            let counters = counters.upgrade();
            let is_held = counters.is_some();
            held.extend(counters.map(|counters| (topic.clone(), counters)));
            is_held
        });
        held
    }
}

impl Collector for TopicMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let held = self.held();
        for (name, help, counter) in SERIES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (topic, counters) in &held {
                let value = ConstCounter::new(counter(counters).get());
                value.encode(family.encode_family(&[("topic", topic.as_str())])?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn the_series_of_a_topic_end_with_its_last_holder() {
        let metrics = TopicMetrics::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(metrics.clone()));
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        let (one, two) = (metrics.of("orders"), metrics.of("orders"));
        one.records_produced.inc_by(2);
        two.records_produced.inc_by(3);
        let shown = text();
        assert!(
            shown.contains("records_produced_total{topic=\"orders\"} 5\n"),
            "{shown}"
        );
        drop(one);
        assert!(text().contains("topic=\"orders\""));
        drop(two);
        let shown = text();
        assert!(!shown.contains("orders"), "{shown}");
        assert!(metrics.0.lock().is_empty());
        // A topic of the same name begins anew.
        let again = metrics.of("orders");
        assert_eq!(again.records_produced.get(), 0);
    }
}
