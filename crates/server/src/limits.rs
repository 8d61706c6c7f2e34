//! The metrics about limits: what is used of each, and how much there is, by the configuration key that sets it.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use varve_broker_api::{LimitUse, Limits};

/// See the module.
#[derive(Debug)]
pub(crate) struct LimitMetrics(pub(crate) Arc<Limits>);

impl Collector for LimitMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        type Value = fn(&LimitUse) -> u64;
        let families: [(&str, &str, Value); 2] = [
            (
                "limit_used",
                "What is used of a limit, by the configuration key that sets it",
                |limit| limit.used,
            ),
            (
                "limit_max",
                "A limit, by the configuration key that sets it",
                |limit| limit.max,
            ),
        ];
        for (name, help, value) in families {
            let kind = ConstGauge::new(0i64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for limit in self.0.uses() {
                let gauge = ConstGauge::new(i64::try_from(value(&limit)).unwrap_or(i64::MAX));
                gauge.encode(family.encode_family(&[("key", limit.name)])?)?;
            }
        }
        Ok(())
    }
}
