//! What is counted of the archive.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
}

/// The archive's counters and gauges; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ArchiveCounters {
    /// Executions that this replica has written to their end.
    pub executions: Counter,
    /// Segments written.
    pub segments: Counter,
    /// Bytes of segments, compressed.
    pub bytes: Counter,
    /// Requests to the store that failed, and their repetitions.
    pub failures: Counter,
    /// Executions whose retention has passed.
    pub expired: Counter,
    /// Executions that were deleted although not all of them was in the archive.
    pub given_up: Counter,
    /// Executions of which the archive will have nothing, or not all, and no word of it either.
    pub lost: Counter,
    /// 1 while the store cannot be used.
    pub trouble: Gauge,
    /// Executions that wait for the store.
    pub waiting: Gauge,
    /// Bytes that are not in the store yet.
    pub held: Gauge,
    requests: Family<RequestLabels, Counter>,
}

impl ArchiveCounters {
    pub(super) fn register(&self, registry: &mut Registry) {
        let Self { executions, segments, bytes, failures, expired, given_up, lost, trouble, waiting, held, requests } =
            self;
        let rows = [
            ("archive_executions", "Executions written to the archive to their end", executions),
            ("archive_segments", "Segments written to the archive", segments),
            ("archive_bytes", "Compressed bytes of log lines written to the archive", bytes),
            ("archive_failures", "Failed requests to the archive", failures),
            ("archive_expired", "Executions that have left the archive", expired),
            ("archive_given_up", "Executions deleted although not all of them was archived", given_up),
            ("archive_lost", "Executions of which the archive does not say that lines are missing", lost),
        ];
        for (name, help, counter) in rows {
            registry.register(name, help, counter.clone());
        }
        let rows = [
            ("archive_trouble", "1 while the archive cannot be used", trouble),
            ("archive_waiting", "Executions that wait for the archive", waiting),
            ("archive_memory_bytes", "Bytes in memory that are not in the archive yet", held),
        ];
        for (name, help, gauge) in rows {
            registry.register(name, help, gauge.clone());
        }
        let help = "Requests to the archive, without the store's own repetitions";
        registry.register("archive_requests", help, requests.clone());
    }

    /// A request is made.
    pub(crate) fn request(&self, operation: &'static str) {
        self.requests.get_or_create(&RequestLabels { operation }).inc();
    }
}
