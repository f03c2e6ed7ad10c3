//! What is counted of AWS Batch.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    outcome: &'static str,
}

/// The counters of AWS Batch; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct BatchCounters {
    requests: Family<RequestLabels, Counter>,
}

impl BatchCounters {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Requests to AWS Batch by operation and outcome, without the SDK's own repetitions";
        registry.register("batch_requests", help, self.requests.clone());
    }

    /// A request was answered, or was not.
    pub(crate) fn request(&self, operation: &'static str, outcome: &'static str) {
        self.requests.get_or_create(&RequestLabels { operation, outcome }).inc();
    }
}
