//! What operators see of this front end. Label values come from tables of the protocol only, so their number is
//! bounded whatever clients send.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::wire::ApiKey;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    api: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    api: &'static str,
    version: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabels {
    result: &'static str,
}

fn histogram() -> Histogram {
    // 50 microseconds to 105 seconds, each bucket three times the one before.
    Histogram::new(std::iter::successors(Some(0.000_05), |b| Some(b * 3.0)).take(14))
}

/// Metrics of the front end. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<VersionLabels, Counter>,
    durations: Family<ApiLabels, Histogram, fn() -> Histogram>,
    errors: Family<ReasonLabels, Counter>,
    connections: Gauge,
    refused: Counter,
    closed: Family<ReasonLabels, Counter>,
    sessions: Gauge,
    read_ahead: Family<UseLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram as fn() -> Histogram),
            errors: Family::default(),
            connections: Gauge::default(),
            refused: Counter::default(),
            closed: Family::default(),
            sessions: Gauge::default(),
            read_ahead: Family::default(),
        }
    }
}

impl Metrics {
    /// Adds every metric to a registry that has the prefix `varve`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "kafka_requests",
            "Kafka requests by API and version",
            self.requests.clone(),
        );
        registry.register(
            "kafka_request_duration_seconds",
            "Time from the arrival of a Kafka request to its answer",
            self.durations.clone(),
        );
        registry.register(
            "kafka_errors",
            "Errors sent to Kafka clients, by reason",
            self.errors.clone(),
        );
        registry.register(
            "kafka_connections",
            "Open connections of the Kafka listener",
            self.connections.clone(),
        );
        registry.register(
            "kafka_connections_refused",
            "Kafka connections refused because the limit of open connections was reached",
            self.refused.clone(),
        );
        registry.register(
            "kafka_connections_closed",
            "Kafka connections closed by the server, by reason",
            self.closed.clone(),
        );
        registry.register(
            "kafka_fetch_sessions",
            "Fetch sessions of Kafka consumers",
            self.sessions.clone(),
        );
        registry.register(
            "kafka_read_ahead_bytes",
            "Bytes read ahead for Kafka consumers, by whether they were fetched later",
            self.read_ahead.clone(),
        );
    }

    /// Counts an answered request.
    pub fn answered(&self, key: ApiKey, version: i16, took: Duration) {
        let api = key.name();
        let version = i64::from(version);
        self.requests
            .get_or_create(&VersionLabels { api, version })
            .inc();
        self.durations
            .get_or_create(&ApiLabels { api })
            .observe(took.as_secs_f64());
    }

    /// Counts an error sent to a client.
    pub fn error(&self, reason: &'static str) {
        self.errors.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a connection that the server closed.
    pub fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a connection until the guard is dropped.
    #[must_use]
    pub fn connection(&self) -> OpenGuard {
        self.connections.inc();
        OpenGuard(self.connections.clone())
    }

    /// Counts a refused connection.
    pub fn connection_refused(&self) {
        self.refused.inc();
    }

    /// Connections open now.
    #[must_use]
    pub fn open_connections(&self) -> i64 {
        self.connections.get()
    }

    /// Counts what became of bytes that were read before they were asked for.
    pub fn read_ahead(&self, bytes: usize, used: bool) {
        let result = if used { "used" } else { "unused" };
        let counter = self.read_ahead.get_or_create(&UseLabels { result });
        counter.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Says how many fetch sessions there are.
    pub fn fetch_sessions(&self, count: usize) {
        self.sessions.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Counts something as open while it lives.
#[derive(Debug)]
pub struct OpenGuard(Gauge);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
