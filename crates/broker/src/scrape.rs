//! Gauges made at scrape time from what the broker publishes anyway.

use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

use varve_broker_api::NodeState;
use varve_types::{NodeId, TopicName};

use crate::config::PerPartition;
use crate::partition::Partition;
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
        let e = &mut encoder;
        whole(e, &inner)?;
        let bytes = inner.admission.in_flight_bytes() + inner.unverified.in_flight_bytes();
        let in_flight = count(bytes);
        gauge(
            e,
            "produce_in_flight_bytes",
            "Bytes admitted but neither safe on this node nor answered yet",
            in_flight,
        )?;
        gauge(
            e,
            "producer_sessions",
            "Sessions of idempotent and transactional producers that are remembered, over all partitions",
            count(inner.sessions.count()),
        )?;
        gauge(
            e,
            "producer_sessions_max",
            "Sessions beyond which those that were used least recently are forgotten",
            count(inner.sessions.most()),
        )?;
        let queued = count(inner.lanes.iter().map(|l| l.len()).sum::<usize>());
        gauge(
            e,
            "lane_queue_length",
            "Commands waiting for a lane",
            queued,
        )?;
        gauge(
            e,
            "log_flush_stalled",
            "Flushes that have been running for more than 3 seconds; must be 0",
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
        for (name, help, value) in PER_REPLICA {
            // What is wrong is shown for every partition; what is well only for those that have series of their own.
            let all = partitions.iter().map(|p| (*p, value(p)));
            let gauges: Vec<_> = all
                .filter(|(p, value)| *value != 0 || has_series(&inner, &p.id.topic))
                .map(|(p, value)| (labels(p), value))
                .collect();
            family(e, name, help, &gauges)?;
        }
        let mut rows = led(&inner, &partitions);
        rows.retain(|row| has_series(&inner, &row.at.id.topic));
        for (name, help, value) in PER_PARTITION {
            let gauges: Vec<_> = rows.iter().map(|r| (labels(r.at), value(r))).collect();
            family(e, name, help, &gauges)?;
        }
        let lags: Vec<_> = rows.iter().flat_map(lag).collect();
        let help = "Records of the leader's log that a follower does not have yet";
        family(e, "replication_lag_records", help, &lags)?;
        let (ids, open) = inner.transactions.counts();
        let help = "Transactional ids that this node coordinates";
        gauge(e, "transactional_ids", help, ids)?;
        let help = "Transactions coordinated by this node that are open or being completed";
        gauge(e, "transactions_open", help, open)?;
        inner.group_gauges.encode(&inner, e)
    }
}

/// Whether the partitions of `topic` have series of their own.
pub(crate) fn has_series(inner: &Inner, topic: &TopicName) -> bool {
    match inner.config.per_partition_metrics {
        PerPartition::All => true,
        PerPartition::User => !topic.is_internal(),
        PerPartition::None => false,
    }
}

pub(crate) type Labels = Vec<(&'static str, String)>;

fn count(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

/// What all nodes say of the cluster alike.
fn whole(e: &mut DescriptorEncoder<'_>, inner: &Inner) -> Result {
    let now = Overview::of(inner);
    for (name, help, value) in [
        (
            "cluster_nodes",
            "Nodes registered in the cluster",
            now.nodes,
        ),
        ("cluster_topics", "Topics in the cluster", now.topics),
        (
            "cluster_partitions",
            "Partitions in the cluster",
            now.partitions,
        ),
        (
            "cluster_leaderless_partitions",
            "Partitions without a leader",
            now.leaderless,
        ),
        (
            "cluster_controller",
            "1 if this node is the controller",
            now.controller,
        ),
        (
            "cluster_reassigning_partitions",
            "Partitions being moved between nodes",
            now.reassigning,
        ),
        (
            "under_replicated_partitions",
            "Under-replicated partitions: fewer in-sync replicas than replicas",
            now.under_replicated,
        ),
        (
            "under_min_isr_partitions",
            "Partitions below min.insync.replicas",
            now.under_min_isr,
        ),
    ] {
        gauge(e, name, help, count(value))?;
    }
    let state = |(name, is): (&str, NodeState)| {
        (
            vec![("state", name.to_owned())],
            i64::from(now.state == Some(is)),
        )
    };
    let states = STATES.map(state);
    family(
        e,
        "cluster_member_state",
        "1 for the state that this node has in the cluster",
        &states,
    )
}

const STATES: [(&str, NodeState); 5] = [
    ("active", NodeState::Active),
    ("draining", NodeState::Draining),
    ("drained", NodeState::Drained),
    ("decommissioning", NodeState::Decommissioning),
    ("offline", NodeState::Offline),
];

/// The cluster in numbers.
#[derive(Default)]
struct Overview {
    nodes: u64,
    topics: u64,
    partitions: u64,
    leaderless: u64,
    controller: u64,
    reassigning: u64,
    under_replicated: u64,
    under_min_isr: u64,
    state: Option<NodeState>,
}

impl Overview {
    fn of(inner: &Inner) -> Self {
        let view = inner.registry.view();
        let Some(cluster) = inner.registry.cluster() else {
            let offline = view.partitions().filter(|p| p.offline().is_some());
            return Self {
                nodes: 1,
                topics: view.topics.len() as u64,
                partitions: view.partitions().count() as u64,
                leaderless: offline.count() as u64,
                controller: 1,
                state: Some(match inner.draining() {
                    true => NodeState::Draining,
                    false => NodeState::Active,
                }),
                ..Self::default()
            };
        };
        let (health, nodes) = (cluster.health(false), cluster.nodes());
        let me = nodes.iter().find(|n| n.node == cluster.me);
        let counted = varve_metadata::log::read(&*cluster.log, |state| {
            let (topics, moves) = (state.topics().len(), state.reassigning().len());
            [topics, state.partition_count(), moves].map(|n| n as u64)
        });
        let [topics, partitions, reassigning] = counted;
        Self {
            nodes: nodes
                .iter()
                .filter(|n| n.state != NodeState::Offline)
                .count() as u64,
            topics,
            partitions,
            leaderless: health.leaderless,
            controller: u64::from(cluster.log.leadership().here),
            reassigning,
            under_replicated: health.under_replicated,
            under_min_isr: health.under_min_isr,
            state: me.map(|n| n.state),
        }
    }
}

/// A partition that this node leads.
struct Led<'a> {
    at: &'a Partition,
    me: NodeId,
    replicas: Vec<NodeId>,
    in_sync: usize,
    leads: bool,
}

/// The partitions that this node leads: others are told of by their leaders. Alone it tells of all.
fn led<'a>(inner: &Inner, partitions: &[&'a Arc<Partition>]) -> Vec<Led<'a>> {
    let me = inner.config.node;
    let Some(cluster) = inner.registry.cluster() else {
        let alone = |at: &&'a Arc<Partition>| {
            let online = at.offline().is_none();
            Led {
                at,
                me,
                replicas: vec![me],
                in_sync: usize::from(online),
                leads: online,
            }
        };
        return partitions.iter().map(alone).collect();
    };
    varve_metadata::log::read(&*cluster.log, |state| {
        let one = |at: &&'a Arc<Partition>| {
            let found = state.partition(&at.id)?;
            (found.leader == Some(me)).then(|| Led {
                at,
                me,
                replicas: found.replicas.clone(),
                in_sync: found.isr.len(),
                leads: true,
            })
        };
        partitions.iter().filter_map(one).collect()
    })
}

fn lag(led: &Led<'_>) -> Vec<(Labels, i64)> {
    let (start, end) = (led.at.log_start(), led.at.log_end());
    let followers = led.replicas.iter().filter(|n| **n != led.me);
    let lag = |node: &NodeId| {
        let has = led.at.followers.end_of(*node).unwrap_or(start);
        let mut labels = labels(led.at);
        labels.push(("follower", node.to_string()));
        (labels, end.get().saturating_sub(has.get()).max(0))
    };
    followers.map(lag).collect()
}

fn labels(partition: &Partition) -> Labels {
    let mut labels = topic_label(partition.id.topic.as_str());
    labels.push(("partition", partition.id.partition.to_string()));
    labels
}

type PerReplica = (&'static str, &'static str, fn(&Partition) -> i64);

/// Of every replica that this node holds.
const PER_REPLICA: &[PerReplica] = &[
    (
        "partition_offline",
        "1 if the partition takes no records; must be 0",
        |p| i64::from(p.offline().is_some()),
    ),
    (
        "partition_damaged_ranges",
        "Known damaged places in the partition's files; must be 0",
        |p| count(p.damaged().len()),
    ),
];

type OfPartition = (&'static str, &'static str, fn(&Led<'_>) -> i64);

/// Of every partition that this node leads.
const PER_PARTITION: &[OfPartition] = &[
    (
        "partition_high_watermark",
        "High watermark: one past the last committed record",
        |p| p.at.high_watermark().get(),
    ),
    (
        "partition_log_start_offset",
        "Log start: the oldest offset that can be read",
        |p| p.at.log_start().get(),
    ),
    (
        "partition_log_end_offset",
        "Log end: one past the last record of the log",
        |p| p.at.log_end().get(),
    ),
    ("partition_size_bytes", "Bytes on disk", |p| {
        p.at.size_bytes().cast_signed()
    }),
    ("partition_replicas", "Replicas", |p| {
        count(p.replicas.len())
    }),
    ("partition_in_sync_replicas", "In-sync replicas", |p| {
        count(p.in_sync)
    }),
    (
        "partition_leader",
        "1 if this node leads the partition",
        |p| i64::from(p.leads),
    ),
    (
        "partition_leader_is_preferred",
        "1 if the preferred replica leads the partition",
        |p| i64::from(p.leads && p.replicas.first() == Some(&p.me)),
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
