//! What operators see of this front end. Label values come from the schema and from the error table
//! only, so their number is bounded whatever clients send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use prost::Message;
use tonic::Code;

/// Labels of a finished call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    service: &'static str,
    method: &'static str,
    code: &'static str,
}

/// Labels of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    service: &'static str,
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    method: &'static str,
}

/// A method of the served schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rpc {
    /// Full name of the service.
    pub service: &'static str,
    /// Name of the method.
    pub method: &'static str,
    /// It answers with a stream, or may.
    pub streams: bool,
}

/// Calls of anything that is not in the schema are counted under this name.
const OTHER: Rpc = Rpc {
    service: "other",
    method: "other",
    streams: true,
};

fn histogram() -> Histogram {
    // 50 microseconds to 105 seconds, each bucket three times the one before.
    Histogram::new(std::iter::successors(Some(0.000_05), |b| Some(b * 3.0)).take(14))
}

/// Metrics of the front end. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    calls: Family<RpcLabels, Counter>,
    durations: Family<MethodLabels, Histogram, fn() -> Histogram>,
    errors: Family<ReasonLabels, Counter>,
    connections: Gauge,
    connections_refused: Counter,
    streams: Family<StreamLabels, Gauge>,
    methods: Arc<BTreeMap<String, Rpc>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            durations: Family::new_with_constructor(histogram as fn() -> Histogram),
            errors: Family::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            streams: Family::default(),
            methods: Arc::new(methods()),
        }
    }
}

impl Metrics {
    /// Adds every metric to a registry that has the prefix `varve`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "rpc",
            "Completed gRPC calls by service, method and code",
            self.calls.clone(),
        );
        registry.register(
            "rpc_duration_seconds",
            "Time from the arrival of a gRPC call to the end of its answer",
            self.durations.clone(),
        );
        registry.register(
            "rpc_errors",
            "Errors sent to gRPC clients, as statuses and in responses, by reason",
            self.errors.clone(),
        );
        registry.register(
            "connections",
            "Open connections of the gRPC listener",
            self.connections.clone(),
        );
        registry.register(
            "connections_refused",
            "gRPC connections refused because the limit of open connections was reached",
            self.connections_refused.clone(),
        );
        registry.register(
            "streams",
            "Open streaming calls by method",
            self.streams.clone(),
        );
    }

    /// The method that a request path names.
    #[must_use]
    pub fn rpc(&self, path: &str) -> Rpc {
        self.methods.get(path).copied().unwrap_or(OTHER)
    }

    /// Counts a finished call.
    pub fn finished(&self, rpc: Rpc, code: Code, took: Duration) {
        let Rpc {
            service, method, ..
        } = rpc;
        self.calls
            .get_or_create(&RpcLabels {
                service,
                method,
                code: code_name(code),
            })
            .inc();
        self.durations
            .get_or_create(&MethodLabels { service, method })
            .observe(took.as_secs_f64());
    }

    /// Counts an error sent to a client.
    pub fn error(&self, reason: &'static str) {
        self.errors.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a connection until the guard is dropped.
    #[must_use]
    pub fn connection(&self) -> OpenGuard {
        OpenGuard::new(self.connections.clone())
    }

    /// Counts a refused connection.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Counts a stream until the guard is dropped.
    #[must_use]
    pub fn stream(&self, method: &'static str) -> OpenGuard {
        OpenGuard::new(self.streams.get_or_create_owned(&StreamLabels { method }))
    }

    /// Connections open now.
    #[must_use]
    pub fn open_connections(&self) -> i64 {
        self.connections.get()
    }

    /// Streams of a method open now.
    #[must_use]
    pub fn open_streams(&self, method: &'static str) -> i64 {
        self.streams.get_or_create(&StreamLabels { method }).get()
    }
}

/// Counts something as open while it lives.
#[derive(Debug)]
pub struct OpenGuard(Gauge);

impl OpenGuard {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Every method of the schema by its request path. The names live as long as the process: the set is
/// built once per server and its size is that of the schema.
fn methods() -> BTreeMap<String, Rpc> {
    static NAMES: std::sync::OnceLock<BTreeMap<String, Rpc>> = std::sync::OnceLock::new();
    NAMES
        .get_or_init(|| {
            let set = prost_types::FileDescriptorSet::decode(varve_proto::FILE_DESCRIPTOR_SET)
                .unwrap_or_default();
            let mut all = BTreeMap::new();
            for file in set.file {
                for service in &file.service {
                    let full: &'static str = Box::leak(
                        format!("{}.{}", file.package(), service.name()).into_boxed_str(),
                    );
                    for method in &service.method {
                        let streams = method.server_streaming();
                        let method: &'static str =
                            Box::leak(method.name().to_owned().into_boxed_str());
                        let rpc = Rpc {
                            service: full,
                            method,
                            streams,
                        };
                        all.insert(format!("/{full}/{method}"), rpc);
                    }
                }
            }
            all
        })
        .clone()
}

const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_from_the_schema_only() {
        let metrics = Metrics::default();
        let rpc = metrics.rpc("/varve.v1.ProducerService/Produce");
        assert_eq!(
            (rpc.service, rpc.method),
            ("varve.v1.ProducerService", "Produce")
        );
        assert_eq!(metrics.rpc("/varve.v1.ProducerService/Nonsense"), OTHER);
        assert_eq!(metrics.rpc("/x"), OTHER);
    }

    #[test]
    fn metrics_have_the_promised_names() {
        let metrics = Metrics::default();
        let mut registry = Registry::with_prefix("varve");
        metrics.register(&mut registry);
        metrics.finished(
            metrics.rpc("/varve.v1.ConsumerService/Fetch"),
            Code::Ok,
            Duration::ZERO,
        );
        metrics.error("THROTTLED");
        let open = metrics.connection();
        let stream = metrics.stream("Subscribe");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "varve_rpc_total{service=\"varve.v1.ConsumerService\",method=\"Fetch\",code=\"OK\"} 1",
            "varve_rpc_duration_seconds_count{service=\"varve.v1.ConsumerService\",method=\"Fetch\"} 1",
            "varve_rpc_errors_total{reason=\"THROTTLED\"} 1",
            "varve_connections 1",
            "varve_streams{method=\"Subscribe\"} 1",
            "varve_connections_refused_total 0",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        drop((open, stream));
        assert_eq!(
            (
                metrics.open_connections(),
                metrics.open_streams("Subscribe")
            ),
            (0, 0)
        );
    }
}
