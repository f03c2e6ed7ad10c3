//! Executions for the wire.

use podbroker_proto::v1 as wire;

use super::count;
use super::enums::{wire_class, wire_finish, wire_result_source, wire_role, wire_state};
use super::time::{wire_duration, wire_timestamp};
use crate::execution::{
    Attempt, CancelIntent, ContainerOutcome, Execution, FailureClass, InfraRetry, Outcome, Policies,
};

/// An execution as its caller sees it.
pub(in crate::api) fn execution(execution: Execution) -> wire::Execution {
    wire::Execution {
        name: execution.address.name().to_string(),
        execution_id: execution.address.id.to_string(),
        target: execution.address.target.to_string(),
        tenant: execution.address.tenant.to_string(),
        labels: execution.labels.into_iter().collect(),
        state: wire_state(execution.state).into(),
        state_reason: execution.state_reason,
        outcome: execution.outcome.map(outcome),
        attempts: execution.attempts.into_iter().map(attempt).collect(),
        policies: Some(policies(execution.policies)),
        create_time: execution.created.map(wire_timestamp),
        start_time: execution.started.map(wire_timestamp),
        end_time: execution.ended.map(wire_timestamp),
        spec_digest: execution.digest,
        cancel: execution.cancel.map(cancel_intent),
        release_time: execution.released.map(wire_timestamp),
        pod_json: execution.pod_json.unwrap_or_default(),
        job_json: execution.job_json.unwrap_or_default(),
    }
}

pub(super) fn outcome(outcome: Outcome) -> wire::Outcome {
    wire::Outcome {
        state: wire_state(outcome.state).into(),
        failure_class: class(outcome.class),
        reason: outcome.reason,
        message: outcome.message,
        containers: outcome.containers.into_iter().map(container).collect(),
        exit_code: outcome.exit_code,
    }
}

fn class(class: Option<FailureClass>) -> i32 {
    class.map_or(wire::FailureClass::Unspecified, wire_class).into()
}

fn container(container: ContainerOutcome) -> wire::ContainerOutcome {
    wire::ContainerOutcome {
        container: container.container,
        role: wire_role(container.role).into(),
        exit_code: container.exit_code,
        signal: container.signal,
        reason: container.reason,
        message: container.message,
        restart_count: count(container.restarts),
        start_time: container.started.map(wire_timestamp),
        end_time: container.ended.map(wire_timestamp),
    }
}

pub(super) fn attempt(attempt: Attempt) -> wire::Attempt {
    wire::Attempt {
        number: count(attempt.number),
        state: wire_state(attempt.state).into(),
        pod_name: attempt.pod_name,
        pod_namespace: attempt.pod_namespace,
        pod_uid: attempt.pod_uid,
        node_name: attempt.node_name,
        batch_job_id: attempt.job_id,
        job_name: attempt.job_name,
    }
}

fn policies(policies: Policies) -> wire::Policies {
    wire::Policies {
        deadlines: Some(wire::Deadlines {
            start: policies.start_deadline.map(wire_duration),
            run: policies.run_deadline.map(wire_duration),
        }),
        finish: Some(wire::FinishPolicy {
            action: wire_finish(policies.finish).into(),
            ttl: Some(wire_duration(policies.ttl)),
        }),
        result: Some(wire::ResultPolicy {
            source: wire_result_source(policies.result).into(),
            max_bytes: count(policies.result_max_bytes),
        }),
        deciding_containers: policies.deciding_containers,
        infra_retry: policies.infra_retry.map(infra_retry),
        orphan: policies.orphan_after.map(|after| wire::OrphanPolicy { cancel_after: Some(wire_duration(after)) }),
        drain_deadline: Some(wire_duration(policies.drain_deadline)),
    }
}

fn infra_retry(policy: InfraRetry) -> wire::InfraRetryPolicy {
    wire::InfraRetryPolicy {
        failure_classes: policy.classes.into_iter().map(|class| wire_class(class).into()).collect(),
        max_attempts: count(policy.max_attempts),
        max_free_attempts: count(policy.max_free_attempts),
        backoff: Some(wire_duration(policy.backoff)),
    }
}

fn cancel_intent(intent: CancelIntent) -> wire::CancelIntent {
    wire::CancelIntent {
        requested_by: intent.by,
        reason: intent.reason,
        failure_class: wire_class(intent.class).into(),
        request_time: Some(wire_timestamp(intent.at)),
    }
}
