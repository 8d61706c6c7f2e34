//! How far the limits of this node are used: one metric for all that can refuse or shrink something, named by the
//! configuration key that raises it.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use varve_broker_api::UnreadBudget;

/// One limit.
struct Limit {
    key: &'static str,
    used: Box<dyn Fn() -> usize + Send + Sync>,
    max: usize,
}

/// Limits of a node whose use is known.
#[derive(Default)]
pub(crate) struct Limits(Vec<Limit>);

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|limit| limit.key))
            .finish()
    }
}

impl Limits {
    /// Adds a limit that the configuration key sets to `max`.
    pub(crate) fn add(
        &mut self,
        key: &'static str,
        max: usize,
        used: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        let used = Box::new(used);
        self.0.push(Limit { key, used, max });
    }

    /// Adds the memory for what is read and not taken.
    pub(crate) fn unread(&mut self, budget: &Arc<UnreadBudget>) {
        let held = Arc::clone(budget);
        self.add("memory.unread.max_bytes", budget.limit(), move || {
            held.held()
        });
    }
}

impl Collector for Limits {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        type Value = fn(&Limit) -> i64;
        let families: [(&str, &str, Value); 2] = [
            (
                "limit_used",
                "What is used of a limit, by the configuration key that sets it",
                |limit| i64::try_from((limit.used)()).unwrap_or(i64::MAX),
            ),
            (
                "limit_max",
                "A limit, by the configuration key that sets it",
                |limit| i64::try_from(limit.max).unwrap_or(i64::MAX),
            ),
        ];
        for (name, help, value) in families {
            let kind = ConstGauge::new(0i64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for limit in &self.0 {
                let gauge = ConstGauge::new(value(limit));
                gauge.encode(family.encode_family(&[("key", limit.key)])?)?;
            }
        }
        Ok(())
    }
}
