//! What operators see of the passing on.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: &'static str,
    outcome: &'static str,
}

/// Counters of passed on calls. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    forwarded: Family<Labels, Counter>,
}

impl Metrics {
    /// Adds the counters to a registry that has the prefix `varve`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "rpc_forwarded",
            "Calls forwarded to the leader of a partition or the coordinator of a group, by method \
             and by whether that node answered",
            self.forwarded.clone(),
        );
    }

    pub(crate) fn forwarded(&self, method: &'static str, answered: bool) {
        let outcome = if answered { "answered" } else { "failed" };
        let labels = Labels { method, outcome };
        self.forwarded.get_or_create(&labels).inc();
    }
}
