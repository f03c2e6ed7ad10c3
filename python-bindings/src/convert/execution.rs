//! `podbroker.execution`.

use podbroker_client::proto;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{Class, fields, promised, time, tuple};

const MODULE: &str = "podbroker.execution";

/// The answer to a submit.
pub(crate) fn submission(py: Python<'_>, answer: proto::SubmitExecutionResponse) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "Submission");
    CLASS.make(&fields!(py,
        execution: execution(py, promised(py, answer.execution, "the execution")?)?,
        claim: answer.claim,
        created: answer.created,
    ))
}

/// One page of a list.
pub(crate) fn page(py: Python<'_>, answer: proto::ListExecutionsResponse) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "ExecutionPage");
    CLASS.make(&fields!(py,
        executions: tuple(py, answer.executions, execution)?,
        next_page_token: answer.next_page_token,
    ))
}

/// An execution.
pub(crate) fn execution(py: Python<'_>, execution: proto::Execution) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "Execution");
    let pod_json = (!execution.pod_json.is_empty()).then(|| PyBytes::new(py, &execution.pod_json));
    let job_json = (!execution.job_json.is_empty()).then(|| PyBytes::new(py, &execution.job_json));
    CLASS.make(&fields!(py,
        name: execution.name,
        execution_id: execution.execution_id,
        target: execution.target,
        tenant: execution.tenant,
        labels: execution.labels,
        state: state(py, execution.state)?,
        state_reason: execution.state_reason,
        outcome: execution.outcome.map(|made| outcome(py, made)).transpose()?,
        attempts: tuple(py, execution.attempts, attempt)?,
        create_time: time(py, execution.create_time)?,
        start_time: time(py, execution.start_time)?,
        end_time: time(py, execution.end_time)?,
        spec_digest: execution.spec_digest,
        cancel: execution.cancel.map(|intent| cancel_intent(py, intent)).transpose()?,
        release_time: time(py, execution.release_time)?,
        pod_json: pod_json,
        job_json: job_json,
    ))
}

/// An outcome.
pub(super) fn outcome(py: Python<'_>, outcome: proto::Outcome) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "Outcome");
    CLASS.make(&fields!(py,
        state: state(py, outcome.state)?,
        failure_class: failure_class(py, outcome.failure_class)?,
        reason: outcome.reason,
        message: outcome.message,
        containers: tuple(py, outcome.containers, container_outcome)?,
        exit_code: outcome.exit_code,
    ))
}

/// An attempt.
pub(super) fn attempt(py: Python<'_>, attempt: proto::Attempt) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "Attempt");
    CLASS.make(&fields!(py,
        number: attempt.number,
        state: state(py, attempt.state)?,
        pod_name: attempt.pod_name,
        pod_namespace: attempt.pod_namespace,
        pod_uid: attempt.pod_uid,
        node_name: attempt.node_name,
        batch_job_id: attempt.batch_job_id,
        job_name: attempt.job_name,
    ))
}

/// A container's role.
pub(super) fn role(py: Python<'_>, number: i32) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "ContainerRole");
    let role = proto::ContainerRole::try_from(number).ok();
    CLASS.member(py, role.map(|role| role.as_str_name()), "CONTAINER_ROLE_")
}

/// Where a result comes from.
pub(super) fn result_source(py: Python<'_>, number: i32) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "ResultSource");
    let source = proto::ResultSource::try_from(number).ok();
    CLASS.member(py, source.map(|source| source.as_str_name()), "RESULT_SOURCE_")
}

fn container_outcome(py: Python<'_>, outcome: proto::ContainerOutcome) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "ContainerOutcome");
    CLASS.make(&fields!(py,
        container: outcome.container,
        role: role(py, outcome.role)?,
        exit_code: outcome.exit_code,
        signal: outcome.signal,
        reason: outcome.reason,
        message: outcome.message,
        restart_count: outcome.restart_count,
        start_time: time(py, outcome.start_time)?,
        end_time: time(py, outcome.end_time)?,
    ))
}

fn cancel_intent(py: Python<'_>, intent: proto::CancelIntent) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "CancelIntent");
    CLASS.make(&fields!(py,
        requested_by: intent.requested_by,
        reason: intent.reason,
        failure_class: failure_class(py, intent.failure_class)?,
        request_time: time(py, intent.request_time)?,
    ))
}

fn state(py: Python<'_>, number: i32) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "ExecutionState");
    let state = proto::ExecutionState::try_from(number).ok();
    CLASS.member(py, state.map(|state| state.as_str_name()), "EXECUTION_STATE_")
}

/// None when there is none; a class that is not known is still a failure.
fn failure_class(py: Python<'_>, number: i32) -> PyResult<Option<Bound<'_, PyAny>>> {
    static CLASS: Class = Class::new(MODULE, "FailureClass");
    match proto::FailureClass::try_from(number) {
        Ok(proto::FailureClass::Unspecified) => Ok(None),
        class => CLASS.member(py, class.ok().map(|class| class.as_str_name()), "FAILURE_CLASS_").map(Some),
    }
}
