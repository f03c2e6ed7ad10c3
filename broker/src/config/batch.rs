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
    /// The log group of CloudWatch Logs that lines of pods are shipped to; name or ARN.
    pub log_group: Option<String>,
    /// What the name of a container's stream in it begins with, up to the container's id.
    #[serde(default = "default_log_stream_prefix")]
    pub log_stream_prefix: String,
}

/// A log group by the parts of what was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogGroup<'a> {
    /// What a request says: the name or the ARN, without the `:*` that some pages show behind it.
    pub identifier: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Region and account, if it is an ARN.
    pub region: Option<&'a str>,
    /// See `region`.
    pub account: Option<&'a str>,
}

/// As Container Insights sets Fluent Bit up:
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Container-Insights-setup-logs-FluentBit.html>
pub const LOG_STREAM_PREFIX: &str = "{node}-application.var.log.containers.{pod}_{namespace}_{container}-";

fn default_log_stream_prefix() -> String {
    LOG_STREAM_PREFIX.to_owned()
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

    /// The log group, if what is configured can be one.
    pub fn log_group(&self) -> Option<LogGroup<'_>> {
        let identifier = self.log_group.as_deref()?;
        let identifier = identifier.strip_suffix(":*").unwrap_or(identifier);
        let (mut region, mut account, mut name) = (None, None, identifier);
        if identifier.starts_with("arn:") {
            let parts: Vec<&str> = identifier.splitn(7, ':').collect();
            let ["arn", partition, "logs", its_region, owner, "log-group", its_name] = parts[..] else { return None };
            let is_account = owner.len() == 12 && owner.bytes().all(|c| c.is_ascii_digit());
            if !partition.starts_with("aws") || !is_account {
                return None;
            }
            (region, account, name) = (Some(its_region), Some(owner), its_name);
        }
        // The limits of CreateLogGroup.
        let is_name = name.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-/.#".contains(&c));
        ((1..=512).contains(&name.len()) && is_name).then_some(LogGroup { identifier, name, region, account })
    }

    /// A stream's name has neither `:` nor `*`, and without these two a prefix would not tell containers apart.
    fn has_usable_prefix(&self) -> bool {
        let prefix = self.log_stream_prefix.as_str();
        let filled = ["{node}", "{pod}", "{namespace}", "{container}"]
            .iter()
            .fold(prefix.to_owned(), |text, name| text.replace(name, ""));
        let is_plain = !filled.contains([':', '*', '{', '}']) && prefix.len() <= 256;
        is_plain && prefix.contains("{pod}") && prefix.contains("{container}")
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
        let group = self.log_group();
        if self.log_group.is_some() && group.is_none() {
            let why = "must be a log group: a name, such as /aws/containerinsights/CLUSTER/application, or an ARN";
            return Err(Problem::new("batch.log_group", why));
        }
        if group.and_then(|group| group.region).is_some_and(|its_region| its_region != region) {
            return Err(Problem::new("batch.log_group", format!("must be in the target's region, {region}")));
        }
        if self.log_group.is_none() && self.log_stream_prefix != LOG_STREAM_PREFIX {
            return Err(Problem::new("batch.log_stream_prefix", "belongs to batch.log_group, which is not set"));
        }
        if !self.has_usable_prefix() {
            let why = format!(
                "must have {{pod}} and {{container}}, may have {{node}} and {{namespace}}, and no other braces, colons or stars; such \
                 as {LOG_STREAM_PREFIX}"
            );
            return Err(Problem::new("batch.log_stream_prefix", why));
        }
        Ok(())
    }
}

/// A name of AWS Batch, with or without a revision, or an ARN.
fn is_resource(text: &str) -> bool {
    let name = text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_:/.".contains(&c));
    (1..=256).contains(&text.len()) && name
}
