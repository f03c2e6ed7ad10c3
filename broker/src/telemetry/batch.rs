//! What is counted of AWS Batch.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    outcome: &'static str,
}

/// What a message from a queue of events was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum BatchEvent {
    /// The end of a job that is followed.
    End,
    /// Something before the end of a job.
    NoEnd,
    /// The end of a job that nobody follows here.
    Unfollowed,
    /// An event of something else, or of another region.
    Foreign,
    /// No event.
    Malformed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    kind: BatchEvent,
}

/// As many as there are in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
}

/// The counters of AWS Batch; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct BatchCounters {
    requests: Family<RequestLabels, Counter>,
    events: Family<EventLabels, Counter>,
    event_requests: Family<RequestLabels, Counter>,
    receiving: Family<QueueLabels, Gauge>,
}

impl BatchCounters {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Requests to AWS Batch by operation and outcome, without the SDK's own repetitions";
        registry.register("batch_requests", help, self.requests.clone());
        registry.register("batch_events", "Messages from queues of events by what they were", self.events.clone());
        let help = "Requests to SQS for events of jobs by operation and outcome";
        registry.register("batch_event_requests", help, self.event_requests.clone());
        let help = "Whether events of jobs are received from a queue";
        registry.register("batch_events_receiving", help, self.receiving.clone());
    }

    /// A request was answered, or was not.
    pub(crate) fn request(&self, operation: &'static str, outcome: &'static str) {
        self.requests.get_or_create(&RequestLabels { operation, outcome }).inc();
    }

    /// A message came from a queue of events.
    pub(crate) fn event(&self, kind: BatchEvent) {
        self.events.get_or_create(&EventLabels { kind }).inc();
    }

    /// A request to SQS was answered, or was not.
    pub(crate) fn event_request(&self, operation: &'static str, outcome: &'static str) {
        self.event_requests.get_or_create(&RequestLabels { operation, outcome }).inc();
    }

    /// Whether a queue of events is received from now.
    pub(crate) fn receives_events(&self, queue: &str, receives: bool) {
        self.receiving.get_or_create(&QueueLabels { queue: queue.to_owned() }).set(i64::from(receives));
    }
}
