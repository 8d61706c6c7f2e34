//! Counters and histograms of the broker; those of topics are in [`crate::topic_metrics`]. Per-partition gauges are
//! made at scrape time from what the partitions publish anyway, so that they cost nothing in between.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::topic_metrics::TopicMetrics;

/// Label of produce latency.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AcksLabel {
    pub(crate) acks: String,
}

/// Label of how something ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabel {
    pub(crate) result: String,
}

/// What the broker counts.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) topics: TopicMetrics,
    pub(crate) produce_seconds: Family<AcksLabel, Histogram>,
    pub(crate) answers_owed: Gauge,
    pub(crate) append_seconds: Histogram,
    pub(crate) fsync_seconds: Histogram,
    pub(crate) partition_repairs_in_progress: Gauge,
    pub(crate) deleted_bytes: Counter,
    /// Elections that this node has won.
    pub(crate) leader_elections: Counter,
    pub(crate) journal_groups: Counter,
    pub(crate) journal_bytes: Counter,
    /// Groups that found no room and were flushed file by file.
    pub(crate) journal_full: Counter,
    pub(crate) journal_live_bytes: Gauge,
    pub(crate) compaction_runs: Family<ResultLabel, Counter>,
    pub(crate) compaction_read_bytes: Counter,
    pub(crate) compaction_written_bytes: Counter,
    pub(crate) compaction_removed_records: Counter,
    pub(crate) compaction_seconds: Histogram,
    pub(crate) disk_total_bytes: Gauge,
    pub(crate) disk_free_bytes: Gauge,
    /// Producer sessions that were forgotten for others.
    pub(crate) producer_sessions_evicted: Counter,
    /// 0 ok, 1 low, 2 writes refused.
    pub(crate) space_alert: Gauge,
}

fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 18))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            topics: TopicMetrics::default(),
            produce_seconds: Family::new_with_constructor(latency),
            answers_owed: Gauge::default(),
            append_seconds: latency(),
            fsync_seconds: latency(),
            partition_repairs_in_progress: Gauge::default(),
            deleted_bytes: Counter::default(),
            leader_elections: Counter::default(),
            journal_groups: Counter::default(),
            journal_bytes: Counter::default(),
            journal_full: Counter::default(),
            journal_live_bytes: Gauge::default(),
            compaction_runs: Family::default(),
            compaction_read_bytes: Counter::default(),
            compaction_written_bytes: Counter::default(),
            compaction_removed_records: Counter::default(),
            compaction_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 18)),
            disk_total_bytes: Gauge::default(),
            disk_free_bytes: Gauge::default(),
            producer_sessions_evicted: Counter::default(),
            space_alert: Gauge::default(),
        }
    }

    pub(crate) fn register(&self, r: &mut Registry) {
        let m = self.clone();
        r.register_collector(Box::new(m.topics));
        r.register_with_unit(
            "produce_duration",
            "Time from the admission of a batch to its answer",
            Unit::Seconds,
            m.produce_seconds,
        );
        r.register(
            "produce_answers_owed",
            "Pending acknowledgements: appends without an answer yet",
            m.answers_owed,
        );
        r.register_with_unit(
            "log_append_duration",
            "Time of one vectored write",
            Unit::Seconds,
            m.append_seconds,
        );
        r.register_with_unit(
            "log_fsync_duration",
            "Time of one flush",
            Unit::Seconds,
            m.fsync_seconds,
        );
        r.register(
            "partition_repairs_in_progress",
            "Damaged replicas on this node that are being copied again",
            m.partition_repairs_in_progress,
        );
        r.register(
            "log_deleted_bytes",
            "Bytes deleted by retention and trims",
            m.deleted_bytes,
        );
        r.register(
            "leader_elections",
            "Times that this node became the leader of a partition",
            m.leader_elections,
        );
        self.register_compaction(r);
        r.register(
            "journal_groups",
            "Groups of appends made durable by one sync of the journal",
            m.journal_groups,
        );
        r.register(
            "journal_bytes",
            "Bytes of batches written to the journal",
            m.journal_bytes,
        );
        r.register(
            "journal_full",
            "Groups that found no room in the journal, so each file was synced",
            m.journal_full,
        );
        r.register(
            "journal_live_bytes",
            "Upper bound of the journal bytes that a start after a crash would read",
            m.journal_live_bytes,
        );
        r.register(
            "storage_disk_total_bytes",
            "Size of the data disk",
            m.disk_total_bytes,
        );
        r.register(
            "storage_free_bytes",
            "Free bytes on the data disk",
            m.disk_free_bytes,
        );
        r.register(
            "producer_sessions_evicted",
            "Producer sessions that the node has forgotten to make room for others",
            m.producer_sessions_evicted,
        );
        r.register(
            "storage_free_space_alert",
            "0: ok, 1: low, 2: writes are refused",
            m.space_alert,
        );
    }
    fn register_compaction(&self, r: &mut Registry) {
        let m = self.clone();
        r.register(
            "compaction_runs",
            "Compactions of one partition, by result: ok, stopped or failed",
            m.compaction_runs,
        );
        r.register(
            "compaction_read_bytes",
            "Bytes of the segments that compaction rewrote",
            m.compaction_read_bytes,
        );
        r.register(
            "compaction_written_bytes",
            "Bytes of the segments that replaced them",
            m.compaction_written_bytes,
        );
        r.register(
            "compaction_removed_records",
            "Records that compaction dropped",
            m.compaction_removed_records,
        );
        r.register_with_unit(
            "compaction_duration",
            "Time of one compaction of one partition",
            Unit::Seconds,
            m.compaction_seconds,
        );
    }
}
