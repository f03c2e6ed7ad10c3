//! What Python hands in, as the contract's messages.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use podbroker_client::{ClientCertificate, Secret, Settings, Token, proto};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// `str | TargetPlace`.
#[derive(FromPyObject)]
pub(crate) enum Target {
    /// A target's name.
    Name(String),
    /// Its parts.
    Place { cluster: String, region: String, role_arn: String, namespace: String },
}

impl From<Target> for proto::TargetSelector {
    fn from(target: Target) -> Self {
        let selector = match target {
            Target::Name(name) => proto::target_selector::Selector::Name(name),
            Target::Place { cluster, region, role_arn, namespace } => {
                let place = proto::TargetPlace { cluster, region, role_arn, namespace };
                proto::target_selector::Selector::Place(place)
            }
        };
        Self { selector: Some(selector) }
    }
}

/// `podbroker.BatchWorkload`.
#[derive(FromPyObject)]
pub(crate) struct BatchWorkload {
    job_definition: String,
    job_queue: String,
    parameters: HashMap<String, String>,
    eks_properties_override_json: Vec<u8>,
    array_size: Option<i32>,
    depends_on_job_ids: Vec<String>,
    share_identifier: String,
    scheduling_priority: Option<i32>,
    attempts: Option<i32>,
    evaluate_on_exit_json: Vec<u8>,
    attempt_timeout: Option<Duration>,
    tags: HashMap<String, String>,
}

impl TryFrom<BatchWorkload> for proto::BatchWorkload {
    type Error = PyErr;

    fn try_from(workload: BatchWorkload) -> PyResult<Self> {
        Ok(Self {
            job_definition: workload.job_definition,
            job_queue: workload.job_queue,
            parameters: workload.parameters,
            eks_properties_override_json: workload.eks_properties_override_json,
            array_size: workload.array_size.unwrap_or_default(),
            depends_on_job_ids: workload.depends_on_job_ids,
            share_identifier: workload.share_identifier,
            scheduling_priority: workload.scheduling_priority.unwrap_or_default(),
            attempts: workload.attempts.unwrap_or_default(),
            evaluate_on_exit_json: workload.evaluate_on_exit_json,
            attempt_timeout: workload.attempt_timeout.map(duration).transpose()?,
            tags: workload.tags,
        })
    }
}

/// What to run: exactly one of the three, the manifest of a pod or of a Job as JSON, or a job of AWS Batch.
pub(crate) fn workload(
    pod: Option<Vec<u8>>,
    batch: Option<BatchWorkload>,
    job: Option<Vec<u8>>,
) -> PyResult<proto::Workload> {
    let workload = match (pod, batch, job) {
        (Some(json), None, None) => {
            let manifest = proto::pod_workload::Manifest::Json(json);
            proto::workload::Workload::Pod(proto::PodWorkload { manifest: Some(manifest) })
        }
        (None, Some(batch), None) => proto::workload::Workload::Batch(batch.try_into()?),
        (None, None, Some(json)) => {
            let manifest = proto::job_workload::Manifest::Json(json);
            proto::workload::Workload::Job(proto::JobWorkload { manifest: Some(manifest) })
        }
        _ => return Err(PyValueError::new_err("exactly one of pod, batch and job says what to run")),
    };
    Ok(proto::Workload { workload: Some(workload) })
}

/// `podbroker.Policies`.
#[derive(FromPyObject)]
pub(crate) struct Policies {
    start_deadline: Option<Duration>,
    run_deadline: Option<Duration>,
    finish: Option<String>,
    ttl: Option<Duration>,
    result: Option<String>,
    result_max_bytes: Option<i32>,
    deciding_containers: Vec<String>,
    drain_deadline: Option<Duration>,
    infra_retry: Option<InfraRetry>,
    orphan_after: Option<Duration>,
}

/// `podbroker.InfraRetry`.
#[derive(FromPyObject)]
pub(crate) struct InfraRetry {
    failure_classes: Vec<String>,
    max_attempts: Option<i32>,
    max_free_attempts: Option<i32>,
    backoff: Option<Duration>,
}

impl TryFrom<InfraRetry> for proto::InfraRetryPolicy {
    type Error = PyErr;

    fn try_from(policy: InfraRetry) -> PyResult<Self> {
        let class = |name: String| {
            let class = word(Some(&name), "FAILURE_CLASS_", proto::FailureClass::from_str_name)?;
            Ok(class.unwrap_or_default().into())
        };
        Ok(Self {
            failure_classes: policy.failure_classes.into_iter().map(class).collect::<PyResult<_>>()?,
            max_attempts: policy.max_attempts.unwrap_or_default(),
            max_free_attempts: policy.max_free_attempts.unwrap_or_default(),
            backoff: policy.backoff.map(duration).transpose()?,
        })
    }
}

impl TryFrom<Policies> for proto::Policies {
    type Error = PyErr;

    fn try_from(policies: Policies) -> PyResult<Self> {
        let action = word(policies.finish.as_deref(), "FINISH_ACTION_", proto::FinishAction::from_str_name)?;
        let source = word(policies.result.as_deref(), "RESULT_SOURCE_", proto::ResultSource::from_str_name)?;
        Ok(Self {
            deadlines: Some(proto::Deadlines {
                start: policies.start_deadline.map(duration).transpose()?,
                run: policies.run_deadline.map(duration).transpose()?,
            }),
            finish: Some(proto::FinishPolicy {
                action: action.unwrap_or_default().into(),
                ttl: policies.ttl.map(duration).transpose()?,
            }),
            result: Some(proto::ResultPolicy {
                source: source.unwrap_or_default().into(),
                max_bytes: policies.result_max_bytes.unwrap_or_default(),
            }),
            deciding_containers: policies.deciding_containers,
            infra_retry: policies.infra_retry.map(TryInto::try_into).transpose()?,
            orphan: policies
                .orphan_after
                .map(|after| PyResult::Ok(proto::OrphanPolicy { cancel_after: Some(duration(after)?) }))
                .transpose()?,
            drain_deadline: policies.drain_deadline.map(duration).transpose()?,
        })
    }
}

/// `podbroker.Group`.
#[derive(FromPyObject)]
#[expect(clippy::struct_field_names, reason = "the attributes of the Python class")]
pub(crate) struct Group<'py> {
    group_id: String,
    action: String,
    not_before: Option<Bound<'py, PyAny>>,
}

impl TryFrom<Group<'_>> for proto::Group {
    type Error = PyErr;

    fn try_from(group: Group<'_>) -> PyResult<Self> {
        let action = word(Some(&group.action), "GROUP_ACTION_", proto::GroupAction::from_str_name)?;
        Ok(Self {
            group_id: group.group_id,
            action: action.unwrap_or_default().into(),
            not_before: group.not_before.map(|time| timestamp("not_before", &time)).transpose()?,
        })
    }
}

/// The states of a list's filter, from their names.
pub(crate) fn states(names: Vec<String>) -> PyResult<Vec<i32>> {
    let state = |name: String| {
        let state = word(Some(&name), "EXECUTION_STATE_", proto::ExecutionState::from_str_name)?;
        Ok(state.unwrap_or_default().into())
    };
    names.into_iter().map(state).collect()
}

/// A `timedelta`, as the contract has it.
pub(crate) fn duration(duration: Duration) -> PyResult<prost_types::Duration> {
    duration.try_into().map_err(|_| PyValueError::new_err("the timedelta is too long"))
}

/// Seconds as Python's `float`.
pub(crate) fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|cause| PyValueError::new_err(format!("{name} is {value} seconds: {cause}")))
}

/// A `datetime`, which must say its time zone.
pub(crate) fn timestamp(name: &str, value: &Bound<'_, PyAny>) -> PyResult<prost_types::Timestamp> {
    if value.getattr("tzinfo")?.is_none() {
        return Err(PyValueError::new_err(format!("{name} needs a time zone, such as timezone.utc")));
    }
    let time: SystemTime = value.extract()?;
    Ok(time.into())
}

/// The settings of a client, from the arguments of its constructor.
pub(crate) struct Arguments {
    pub(crate) address: String,
    pub(crate) token: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) client_certificate_file: Option<PathBuf>,
    pub(crate) client_key_file: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
    pub(crate) connect_timeout: f64,
    pub(crate) call_timeout: f64,
    pub(crate) retry_for: f64,
}

impl TryFrom<Arguments> for Settings {
    type Error = PyErr;

    fn try_from(arguments: Arguments) -> PyResult<Self> {
        let token = match (arguments.token, arguments.token_file) {
            (None, None) => None,
            (Some(token), None) => Some(Token::Value(Secret::new(token))),
            (None, Some(file)) => Some(Token::File(file)),
            (Some(_), Some(_)) => return Err(PyValueError::new_err("token and token_file exclude each other")),
        };
        let client_certificate = match (arguments.client_certificate_file, arguments.client_key_file) {
            (None, None) => None,
            (Some(certificate_file), Some(key_file)) => Some(ClientCertificate { certificate_file, key_file }),
            _ => return Err(PyValueError::new_err("client_certificate_file and client_key_file belong together")),
        };
        Ok(Self {
            token,
            ca_file: arguments.ca_file,
            client_certificate,
            server_name: arguments.server_name,
            connect_timeout: seconds("connect_timeout", arguments.connect_timeout)?,
            call_timeout: seconds("call_timeout", arguments.call_timeout)?,
            retry_for: seconds("retry_for", arguments.retry_for)?,
            ..Self::new(arguments.address)
        })
    }
}

/// A member of one of the enums of `podbroker`, whose value is the contract's name without its prefix.
fn word<T>(name: Option<&str>, prefix: &str, parse: impl Fn(&str) -> Option<T>) -> PyResult<Option<T>> {
    let parse = |name| {
        parse(&format!("{prefix}{name}")).ok_or_else(|| PyValueError::new_err(format!("`{name}` cannot be asked for")))
    };
    name.map(parse).transpose()
}
