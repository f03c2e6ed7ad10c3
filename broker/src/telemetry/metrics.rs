//! Counters and gauges. Labels come from enums and from the configuration, never from callers, so their number is bounded.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as MetricRegistry;

use super::{ArchiveCounters, BatchCounters};
use crate::backend::Health;
use crate::backend::job::JobCounters;
use crate::backend::pod::{Spool, SpoolUse};
use crate::target::Registry;

/// A call of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "each is explained once, in the contract")]
pub enum Rpc {
    SubmitExecution,
    WatchExecution,
    WatchExecutions,
    GetExecution,
    ListExecutions,
    CancelExecution,
    ReleaseExecution,
    ListTargets,
    CheckTarget,
    GetServerInfo,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    rpc: Rpc,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    rpc: Rpc,
}

/// What is counted.
pub struct Metrics {
    registry: MetricRegistry,
    calls: Family<CallLabels, Counter>,
    seconds: Family<RpcLabels, Histogram, fn() -> Histogram>,
    watches: Gauge,
    lines: Counter,
    line_bytes: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// From an index lookup to a cluster that is slow to answer.
fn call_seconds() -> Histogram {
    Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0])
}

impl Metrics {
    /// For these targets, and for the logs that are held.
    pub fn new(targets: &Registry, spool: Arc<Spool>) -> Self {
        let mut registry = MetricRegistry::with_prefix("podbroker");
        let calls = Family::<CallLabels, Counter>::default();
        let seconds = Family::<RpcLabels, Histogram, fn() -> Histogram>::new_with_constructor(call_seconds);
        let (watches, lines, line_bytes) = (Gauge::default(), Counter::default(), Counter::default());
        registry.register("calls", "Calls that have ended, by their code", calls.clone());
        registry.register("call_seconds", "How long calls took that are not streams", seconds.clone());
        registry.register("open_watches", "Executions that are followed now", watches.clone());
        registry.register("lines", "Log lines sent", lines.clone());
        registry.register("line_bytes", "Bytes of log lines sent", line_bytes.clone());
        registry.register_collector(Box::new(Targets(targets.clone())));
        registry.register_collector(Box::new(Logs(spool)));
        Self { registry, calls, seconds, watches, lines, line_bytes }
    }

    /// Counts what happens in an archive, too.
    #[must_use]
    pub fn with_archive(mut self, counters: &ArchiveCounters) -> Self {
        counters.register(&mut self.registry);
        self
    }

    /// Counts what happens to jobs, too.
    #[must_use]
    pub fn with_jobs(mut self, counters: Arc<JobCounters>) -> Self {
        self.registry.register_collector(Box::new(Jobs(counters)));
        self
    }

    /// Counts what is asked of AWS Batch, too.
    #[must_use]
    pub fn with_batch(mut self, counters: &BatchCounters) -> Self {
        counters.register(&mut self.registry);
        self
    }

    /// A call has ended. `code` is the name of a gRPC code.
    pub fn call_ended(&self, rpc: Rpc, code: &'static str, seconds: f64) {
        self.calls.get_or_create(&CallLabels { rpc, code }).inc();
        if !matches!(rpc, Rpc::WatchExecution | Rpc::WatchExecutions | Rpc::CheckTarget) {
            self.seconds.get_or_create(&RpcLabels { rpc }).observe(seconds);
        }
    }

    /// An execution is followed until the guard is dropped.
    pub fn watch_opened(&self) -> WatchGuard {
        self.watches.inc();
        WatchGuard(self.watches.clone())
    }

    /// Lines were sent.
    pub fn lines_sent(&self, lines: usize, bytes: usize) {
        self.lines.inc_by(lines as u64);
        self.line_bytes.inc_by(bytes as u64);
    }

    /// All of it as `OpenMetrics` text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// An execution is followed.
#[derive(Debug)]
pub struct WatchGuard(Gauge);

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Asks the targets when the metrics are read.
#[derive(Debug)]
struct Targets(Registry);

impl Collector for Targets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Whether the watch of a target is in step with its cluster.";
        let mut family = encoder.encode_descriptor("target_serving", help, None, MetricType::Gauge)?;
        for target in self.0.all() {
            let serving = i64::from(target.backend.health() == Health::Serving);
            let labels = [("target", target.name.as_str())];
            ConstGauge::new(serving).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Asks the spool when the metrics are read.
#[derive(Debug)]
struct Logs(Arc<Spool>);

impl Collector for Logs {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let SpoolUse { streams, memory, disk, spilled, dropped_lines } = self.0.used();
        for (name, help, value) in [
            ("log_streams", "Container logs that are read now.", streams),
            ("spool_memory_bytes", "Bytes of log lines held in memory.", memory),
            ("spool_disk_bytes", "Bytes of log lines held on disk.", disk),
        ] {
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        for (name, help, value) in [
            ("spilled_bytes", "Bytes of log lines put on disk.", spilled),
            ("dropped_lines", "Log lines dropped before a slow watcher had them.", dropped_lines),
        ] {
            ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

/// Asks for the numbers of jobs when the metrics are read.
#[derive(Debug)]
struct Jobs(Arc<JobCounters>);

impl Collector for Jobs {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let rows = [
            ("batch_duplicates", "Jobs that were found to be made twice, and ended.", self.0.duplicates()),
            ("batch_unsettled_submits", "Submits of jobs that were not answered.", self.0.unsettled()),
        ];
        for (name, help, value) in rows {
            ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}
