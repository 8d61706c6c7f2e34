//! Gauges made at scrape time from what the broker publishes anyway.

use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

use crate::start::Inner;

/// Collector over a broker; gives nothing once the broker is gone.
#[derive(Debug)]
pub(crate) struct Scrape(pub(crate) Weak<Inner>);

type Result = std::result::Result<(), std::fmt::Error>;

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> Result {
    let gauge = ConstGauge::new(value);
    let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    gauge.encode(metric)
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result {
        let Some(inner) = self.0.upgrade() else {
            return Ok(());
        };
        let view = inner.registry.view();
        let topics: Vec<_> = view.topics.values().collect();
        let partitions: Vec<_> = view.partitions().collect();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let e = &mut encoder;
        gauge(e, "cluster_nodes", "Nodes of the cluster", 1)?;
        gauge(
            e,
            "cluster_topics",
            "Topics of the cluster",
            count(topics.len()),
        )?;
        gauge(
            e,
            "cluster_partitions",
            "Partitions of the cluster",
            count(partitions.len()),
        )?;
        let offline = count(partitions.iter().filter(|p| p.offline().is_some()).count());
        gauge(
            e,
            "cluster_leaderless_partitions",
            "Partitions without a leader",
            offline,
        )?;
        gauge(
            e,
            "cluster_controller",
            "1 if this node leads the metadata",
            1,
        )?;
        gauge(
            e,
            "under_replicated_partitions",
            "Partitions short of replicas in sync",
            0,
        )?;
        gauge(
            e,
            "under_min_isr_partitions",
            "Partitions below min.insync.replicas",
            0,
        )?;
        let in_flight = i64::try_from(inner.admission.in_flight_bytes()).unwrap_or(i64::MAX);
        gauge(
            e,
            "produce_in_flight_bytes",
            "Bytes admitted and not yet answered",
            in_flight,
        )?;
        let queued = count(inner.lanes.iter().map(|l| l.len()).sum());
        gauge(
            e,
            "lane_queue_length",
            "Commands that wait for a lane",
            queued,
        )?;
        gauge(
            e,
            "log_flush_stalled",
            "Flushes that run for more than 3 seconds; must be 0",
            count(inner.watch.count(inner.clock.now())),
        )?;
        let segments = partitions.iter().map(|p| p.segments()).sum::<u64>();
        gauge(
            e,
            "log_segments",
            "Segments of all partitions",
            segments.cast_signed(),
        )?;
        let help = "Partitions of a topic";
        let gauges: Vec<_> = topics
            .iter()
            .map(|t| {
                (
                    topic_label(t.info.name.as_str()),
                    i64::from(t.info.partitions),
                )
            })
            .collect();
        family(e, "topic_partitions", help, &gauges)?;
        for (name, help, value) in PER_PARTITION {
            let gauges: Vec<_> = partitions
                .iter()
                .map(|p| {
                    let mut labels = topic_label(p.id.topic.as_str());
                    labels.push(("partition", p.id.partition.to_string()));
                    (labels, value(p))
                })
                .collect();
            family(e, name, help, &gauges)?;
        }
        inner.group_gauges.encode(&inner.registry, e)
    }
}

pub(crate) type Labels = Vec<(&'static str, String)>;
type PerPartition = (
    &'static str,
    &'static str,
    fn(&crate::partition::Partition) -> i64,
);

const PER_PARTITION: &[PerPartition] = &[
    (
        "partition_high_watermark",
        "One past the last committed record",
        |p| p.high_watermark().get(),
    ),
    (
        "partition_log_start_offset",
        "Oldest readable offset",
        |p| p.log_start().get(),
    ),
    (
        "partition_log_end_offset",
        "One past the last record of the log",
        |p| p.log_end().get(),
    ),
    ("partition_size_bytes", "Bytes on disk", |p| {
        p.size_bytes().cast_signed()
    }),
    (
        "partition_offline",
        "1 if the partition takes no records; must be 0",
        |p| i64::from(p.offline().is_some()),
    ),
    (
        "partition_damaged_ranges",
        "Damaged places that are known in the partition's files; must be 0",
        |p| i64::try_from(p.damaged().len()).unwrap_or(i64::MAX),
    ),
    ("partition_replicas", "Replicas", |_| 1),
    ("partition_in_sync_replicas", "Replicas in sync", |p| {
        i64::from(p.offline().is_none())
    }),
    (
        "partition_leader",
        "1 if this node leads the partition",
        |p| i64::from(p.offline().is_none()),
    ),
    (
        "partition_leader_is_preferred",
        "1 if the preferred replica leads the partition",
        |p| i64::from(p.offline().is_none()),
    ),
];

fn topic_label(topic: &str) -> Labels {
    vec![("topic", topic.to_owned())]
}

pub(crate) fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    gauges: &[(Labels, i64)],
) -> Result {
    let gauge_type = prometheus_client::metrics::MetricType::Gauge;
    let mut metric = encoder.encode_descriptor(name, help, None, gauge_type)?;
    for (labels, value) in gauges {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
        ConstGauge::new(*value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
