//! AWS Batch at a target: its executions are jobs instead of pods.

use std::time::Duration;

use serde::Deserialize;

use super::error::Problem;
use super::{Target, duration, eks};

/// The queue and the job definitions of a target whose executions are jobs of AWS Batch on EKS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The queue for jobs that name none; name or ARN.
    pub queue: String,
    /// Others that callers may name.
    #[serde(default)]
    pub more_queues: Vec<String>,
    /// The template for pods; name, name:revision or ARN.
    pub job_definition: Option<String>,
    /// Whether job definitions are registered for pods instead.
    #[serde(default)]
    pub register_definitions: bool,
    /// How long after a submit that was not answered its job is looked for.
    #[serde(default = "default_settle", with = "duration")]
    pub settle: Duration,
    /// How long a job may wait in its queue; for ever without.
    #[serde(default, with = "duration::option")]
    pub queue_deadline: Option<Duration>,
    /// The queue of SQS that events of jobs are put into.
    pub events_queue_url: Option<String>,
}

fn default_settle() -> Duration {
    Duration::from_secs(30)
}

impl Target {
    pub(super) fn check_batch(&self) -> Result<(), Problem> {
        let Some(batch) = &self.batch else { return Ok(()) };
        if self.region.is_empty() {
            return Err(Problem::new("region", "is needed for AWS Batch: the region of the queue"));
        }
        if !self.role_arn.is_empty() && !eks::is_role_arn(&self.role_arn) {
            return Err(Problem::new("role_arn", eks::NO_ROLE_ARN));
        }
        batch.check(&self.region)
    }
}

impl Batch {
    /// Account and name of the queue of events.
    pub fn events_queue(&self) -> Option<(&str, &str)> {
        let mut parts = self.events_queue_url.as_deref()?.strip_prefix("https://")?.split('/');
        let (_, account, name) = (parts.next()?, parts.next()?, parts.next()?);
        let is_account = account.len() == 12 && account.bytes().all(|c| c.is_ascii_digit());
        let plain = name.strip_suffix(".fifo").unwrap_or(name);
        let is_name = !plain.is_empty() && plain.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c));
        (is_account && is_name && name.len() <= 80 && parts.next().is_none()).then_some((account, name))
    }

    /// Requests go to the region's own endpoint, whatever the URL says: another region's would look for a queue that is not there.
    fn has_events_elsewhere(&self, region: &str) -> bool {
        let url = self.events_queue_url.as_deref().unwrap_or_default();
        let host = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
        !host.split('.').any(|part| part == region)
    }

    fn check(&self, region: &str) -> Result<(), Problem> {
        if !is_resource(&self.queue) {
            return Err(Problem::new("batch.queue", "must be the name or the ARN of a job queue"));
        }
        if !self.more_queues.iter().all(|queue| is_resource(queue)) {
            return Err(Problem::new("batch.more_queues", "must be names or ARNs of job queues"));
        }
        if self.job_definition.as_ref().is_some_and(|definition| !is_resource(definition)) {
            return Err(Problem::new("batch.job_definition", "must be a job definition: name, name:revision or ARN"));
        }
        if self.register_definitions && self.job_definition.is_some() {
            let why =
                "and batch.job_definition exclude each other: pods get a definition of their own, or the one for all";
            return Err(Problem::new("batch.register_definitions", why));
        }
        if !(Duration::from_secs(1)..=Duration::from_mins(10)).contains(&self.settle) {
            return Err(Problem::new("batch.settle", "must be \"1s\" to \"10m\""));
        }
        let day = Duration::from_hours(24);
        if self.queue_deadline.is_some_and(|deadline| !(Duration::from_secs(1)..=30 * day).contains(&deadline)) {
            return Err(Problem::new("batch.queue_deadline", "must be \"1s\" to \"30d\""));
        }
        if self.events_queue_url.is_some() && (self.events_queue().is_none() || self.has_events_elsewhere(region)) {
            let why = format!("must be a queue's URL, such as https://sqs.{region}.amazonaws.com/111122223333/events");
            return Err(Problem::new("batch.events_queue_url", why));
        }
        Ok(())
    }
}

/// A name of AWS Batch, with or without a revision, or an ARN.
fn is_resource(text: &str) -> bool {
    let name = text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_:/.".contains(&c));
    (1..=256).contains(&text.len()) && name
}
