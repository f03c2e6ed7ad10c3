//! What is counted of the archive.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// The archive's counters; cheap to clone.
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
}

impl ArchiveCounters {
    pub(super) fn register(&self, registry: &mut Registry) {
        let Self { executions, segments, bytes, failures, expired, given_up } = self;
        let rows = [
            ("archive_executions", "Executions written to the archive to their end", executions),
            ("archive_segments", "Segments written to the archive", segments),
            ("archive_bytes", "Compressed bytes of log lines written to the archive", bytes),
            ("archive_failures", "Failed requests to the archive", failures),
            ("archive_expired", "Executions that have left the archive", expired),
            ("archive_given_up", "Executions deleted although not all of them was archived", given_up),
        ];
        for (name, help, counter) in rows {
            registry.register(name, help, counter.clone());
        }
    }
}
