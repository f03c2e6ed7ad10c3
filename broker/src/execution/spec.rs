//! What to run and how: the request as it was sent, and the policies it resolves to.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{ExecutionId, Group, InfraRetry, InfraRetryRequest};

/// Where a container leaves its result, as today's Airflow operators have it.
pub const RESULT_PATH: &str = "/airflow/xcom/return.json";

/// A request to run something.
#[derive(Debug, Clone)]
pub struct Submit {
    /// The caller's name for it.
    pub id: ExecutionId,
    /// Nothing is created after this moment.
    pub submit_before: Timestamp,
    /// What to run.
    pub workload: Workload,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// How to run it, as sent.
    pub policies: PolicyRequest,
    /// The group it belongs to.
    pub group: Option<Group>,
    /// What the answer is to be.
    pub mode: SubmitMode,
    /// Who asks, for the object's annotation.
    pub subject: String,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// A pod as the caller sent it: untyped, so that fields newer than ours reach the API server.
    Pod(Map<String, Value>),
    /// A job from a job definition.
    Batch(Box<BatchWork>),
    /// A Job of the cluster (`batch/v1`), untyped like a pod.
    Job(Map<String, Value>),
}

/// A job from a job definition, in the shapes of AWS Batch. What is absent is the definition's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct BatchWork {
    /// Name, name:revision or ARN.
    pub job_definition: String,
    /// Name or ARN; the target's without.
    pub job_queue: Option<String>,
    /// For the definition's placeholders.
    pub parameters: BTreeMap<String, String>,
    /// `eksPropertiesOverride`.
    pub eks_properties_override: Map<String, Value>,
    /// 2 to 10,000.
    pub array_size: Option<u32>,
    /// Ids of jobs to wait for, at most 20.
    pub depends_on: Vec<String>,
    /// For fair-share queues.
    pub share_identifier: Option<String>,
    /// For fair-share queues.
    pub scheduling_priority: Option<i32>,
    /// `retryStrategy.attempts`, 1 to 10.
    pub attempts: Option<u32>,
    /// `retryStrategy.evaluateOnExit`, at most 5; only with `attempts`. Left out where there are none, like what a broker before it
    /// does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluate_on_exit: Vec<EvaluateOnExit>,
    /// `timeout.attemptDurationSeconds`, at least 60 s.
    pub attempt_timeout: Option<Duration>,
    /// Of the job.
    pub tags: BTreeMap<String, String>,
}

/// When AWS Batch makes another attempt of a job; every condition that is there must hold. Patterns may end with `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvaluateOnExit {
    /// A pattern for the attempt's `statusReason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_status_reason: Option<String>,
    /// A pattern for the container's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_reason: Option<String>,
    /// A pattern for the container's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exit_code: Option<String>,
    /// `RETRY` or `EXIT`.
    pub action: String,
}

/// What a submit is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitMode {
    /// Create it, or find that it was created.
    Create,
    /// Only find it.
    MustExist,
    /// Only ask the cluster whether it would be accepted.
    ValidateOnly,
}

/// What happens to the pod after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishAction {
    /// Delete it.
    Delete,
    /// Delete it if it succeeded.
    DeleteSucceeded,
    /// Keep it for others to delete.
    Keep,
}

/// Where the result comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultSource {
    /// There is none.
    None,
    /// A native sidecar prints it.
    Sidecar,
    /// It is the termination message.
    TerminationMessage,
}

/// Policies as they were sent: what is absent is the target's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PolicyRequest {
    /// Until a deciding container has started.
    pub start_deadline: Option<Duration>,
    /// From the kubelet's acceptance to the end.
    pub run_deadline: Option<Duration>,
    /// After the end.
    pub finish: Option<FinishAction>,
    /// How long an unreleased execution is kept.
    pub ttl: Option<Duration>,
    /// Whether it hands back a value.
    pub result: Option<ResultSource>,
    /// The largest value.
    pub result_max_bytes: Option<u32>,
    /// Whose end decides; empty for all main containers.
    pub deciding_containers: Vec<String>,
    /// How long the rest is waited for after the end.
    pub drain_deadline: Option<Duration>,
    /// When another attempt is made. Left out where it is absent, so that digests of requests without it stay what they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub infra_retry: Option<InfraRetryRequest>,
    /// Cancel it when nobody has followed it for so long; absent for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphan_after: Option<Duration>,
}

/// Policies with every default resolved. Kept in the object, since a target's defaults may change while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// Until a deciding container has started.
    pub start_deadline: Option<Duration>,
    /// From the kubelet's acceptance to the end.
    pub run_deadline: Option<Duration>,
    /// After the end.
    pub finish: FinishAction,
    /// How long an unreleased execution is kept.
    pub ttl: Duration,
    /// Whether it hands back a value.
    pub result: ResultSource,
    /// The largest value.
    pub result_max_bytes: u32,
    /// Whose end decides; empty for all main containers.
    pub deciding_containers: Vec<String>,
    /// How long the rest is waited for after the end.
    pub drain_deadline: Duration,
    /// When another attempt is made; absent for never. Left out then, so that a broker before it reads the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra_retry: Option<InfraRetry>,
    /// Cancel it when nobody has followed it for so long; absent for never, and left out like the retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphan_after: Option<Duration>,
}

/// A target's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDefaults {
    /// After the end.
    pub finish: FinishAction,
    /// How long an unreleased execution is kept.
    pub ttl: Duration,
    /// Whether it hands back a value.
    pub result: ResultSource,
    /// The shortest time that may be asked for until an execution that nobody follows is ended.
    pub shortest_orphan: Duration,
}

impl Default for PolicyDefaults {
    fn default() -> Self {
        Self {
            finish: FinishAction::Delete,
            ttl: Duration::from_hours(24),
            result: ResultSource::None,
            shortest_orphan: Duration::from_mins(5),
        }
    }
}

/// A policy outside of its range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {why}")]
pub struct PolicyError {
    /// The field of the request.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

/// The largest result: it travels in one message and is kept in memory.
const MAX_RESULT_BYTES: u32 = 1 << 20;
const DEFAULT_RESULT_BYTES: u32 = 256 << 10;
/// What the kubelet keeps of a termination message.
const MAX_TERMINATION_MESSAGE: u32 = 4096;
const DAY: Duration = Duration::from_hours(24);
/// What replicas have said of whom they follow is kept for longer than this.
pub const LONGEST_ORPHAN: Duration = Duration::from_hours(7 * 24);

impl PolicyRequest {
    /// Applies the defaults and checks the ranges of the contract.
    pub fn resolve(&self, defaults: &PolicyDefaults) -> Result<Policies, PolicyError> {
        let second = Duration::from_secs(1);
        let start_deadline = in_range("policies.deadlines.start", self.start_deadline, second..=365 * DAY)?;
        let run_deadline = in_range("policies.deadlines.run", self.run_deadline, second..=365 * DAY)?;
        let ttl = in_range("policies.finish.ttl", self.ttl, Duration::from_mins(1)..=30 * DAY)?;
        let orphan_after = in_range(
            "policies.orphan.cancel_after",
            self.orphan_after,
            defaults.shortest_orphan..=LONGEST_ORPHAN.max(defaults.shortest_orphan),
        )?;
        let drain = in_range("policies.drain_deadline", self.drain_deadline, second..=Duration::from_mins(10))?;
        let result = self.result.unwrap_or(defaults.result);
        let (limit, default) = match result {
            ResultSource::TerminationMessage => (MAX_TERMINATION_MESSAGE, MAX_TERMINATION_MESSAGE),
            ResultSource::Sidecar | ResultSource::None => (MAX_RESULT_BYTES, DEFAULT_RESULT_BYTES),
        };
        let result_max_bytes = self.result_max_bytes.unwrap_or(default);
        if !(1..=limit).contains(&result_max_bytes) {
            let why = format!("must be 1 to {limit} bytes for this source");
            return Err(PolicyError { field: "policies.result.max_bytes", why });
        }
        Ok(Policies {
            start_deadline,
            run_deadline,
            finish: self.finish.unwrap_or(defaults.finish),
            ttl: ttl.unwrap_or(defaults.ttl),
            result,
            result_max_bytes,
            deciding_containers: self.deciding_containers.clone(),
            drain_deadline: drain.unwrap_or(Duration::from_secs(30)),
            infra_retry: self.infra_retry.as_ref().map(InfraRetryRequest::resolve).transpose()?,
            orphan_after,
        })
    }
}

pub(super) fn in_range(
    field: &'static str,
    value: Option<Duration>,
    range: std::ops::RangeInclusive<Duration>,
) -> Result<Option<Duration>, PolicyError> {
    match value {
        Some(value) if !range.contains(&value) => {
            let why = format!("must be {} to {} seconds", range.start().as_secs(), range.end().as_secs());
            Err(PolicyError { field, why })
        }
        value => Ok(value),
    }
}
