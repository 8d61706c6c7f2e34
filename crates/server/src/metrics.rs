//! The registry of a node: what broker and front ends count, and what the operating system says about the
//! process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::health::Health;

/// Our metrics, and those of the process. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Mutex<Registries>>,
}

#[derive(Debug)]
struct Registries {
    varve: Registry,
    process: Registry,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
    revision: &'static str,
}

impl Metrics {
    /// A registry with what is known before anything runs.
    #[must_use]
    pub fn new(health: &Health) -> Self {
        let mut varve = Registry::with_prefix("varve");
        let build: Family<Build, Gauge> = Family::default();
        let label = Build {
            version: crate::VERSION,
            revision: crate::REVISION,
        };
        build.get_or_create(&label).set(1);
        varve.register("build_info", "Version of this node", build);
        varve.register_collector(Box::new(NodeState(health.clone())));
        let mut process = Registry::default();
        process.register_collector(Box::new(Process));
        Self {
            inner: Arc::new(Mutex::new(Registries { varve, process })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registries> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds metrics under the prefix `varve`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.lock().varve);
    }

    /// Everything as OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let registries = self.lock();
        let mut out = String::new();
        text::encode_registry(&mut out, &registries.varve)?;
        text::encode_registry(&mut out, &registries.process)?;
        text::encode_eof(&mut out)?;
        Ok(out)
    }
}

#[derive(Debug)]
struct NodeState(Health);

impl Collector for NodeState {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauge_type = ConstGauge::new(0i64).metric_type();
        let mut family = encoder.encode_descriptor(
            "node_state",
            "1 for the state that the node is in",
            None,
            gauge_type,
        )?;
        let state = match (self.0.startup(), self.0.ready()) {
            (Err(_), _) => "starting",
            (Ok(_), Ok(())) => "active",
            (Ok(_), Err(_)) => "not_ready",
        };
        for name in ["starting", "active", "not_ready"] {
            let gauge = ConstGauge::new(i64::from(name == state));
            gauge.encode(family.encode_family(&[("state", name)])?)?;
        }
        Ok(())
    }
}

/// What `/proc/self` says, under the names that Prometheus clients use everywhere.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(p) = Usage::read() else {
            return Ok(());
        };
        let e = &mut encoder;
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory",
                p.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory",
                p.virtual_bytes,
            ),
            ("process_open_fds", "Open files", p.open_files),
            ("process_threads", "Threads", p.threads),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(e.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let cpu = ConstCounter::new(p.cpu_seconds);
        let help = "CPU time, user and system";
        cpu.encode(e.encode_descriptor("process_cpu_seconds", help, None, cpu.metric_type())?)?;
        let Ok(handle) = tokio::runtime::Handle::try_current() else {
            return Ok(());
        };
        let runtime = handle.metrics();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let gauges = [
            (
                "tokio_workers",
                "Worker threads",
                count(runtime.num_workers()),
            ),
            (
                "tokio_alive_tasks",
                "Tasks",
                count(runtime.num_alive_tasks()),
            ),
            (
                "tokio_global_queue_depth",
                "Tasks waiting for a thread",
                count(runtime.global_queue_depth()),
            ),
            (
                "tokio_blocking_threads",
                "Blocking threads",
                count(runtime.num_blocking_threads()),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(e.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

struct Usage {
    resident_bytes: i64,
    virtual_bytes: i64,
    open_files: i64,
    threads: i64,
    cpu_seconds: f64,
}

impl Usage {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Fields are counted after the name, which may hold blanks.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |n: usize| fields.get(n)?.parse::<i64>().ok();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = i64::try_from(rustix::param::page_size()).ok()?;
        let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
        Some(Self {
            cpu_seconds: (field(11)? + field(12)?) as f64 / ticks,
            threads: field(17)?,
            virtual_bytes: field(20)?,
            resident_bytes: field(21)? * page,
            open_files: i64::try_from(open).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_described() {
        let text = Metrics::new(&Health::default()).render().unwrap();
        assert!(text.contains("varve_build_info{version=\""), "{text}");
        assert!(
            text.contains("varve_node_state{state=\"starting\"} 1"),
            "{text}"
        );
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
