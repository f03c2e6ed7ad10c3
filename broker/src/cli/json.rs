//! How messages look as JSON: the names of the contract, unset messages as null, enums without their prefix, bytes that are
//! text as text. Programs rely on it: names stay, new ones may come.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podbroker_client::proto;
use podbroker_client::proto::event::Event as Kind;
use serde_json::{Map, Value, json};

/// The name of an enum's value without the prefix of the enum; null for the zero value, which says nothing.
fn word(name: &str, prefix: &str) -> Value {
    match name.strip_prefix(prefix).unwrap_or(name) {
        "UNSPECIFIED" => Value::Null,
        word => json!(word),
    }
}

pub(crate) fn state(state: proto::ExecutionState) -> Value {
    word(state.as_str_name(), "EXECUTION_STATE_")
}

fn failure_class(class: proto::FailureClass) -> Value {
    word(class.as_str_name(), "FAILURE_CLASS_")
}

fn role(role: proto::ContainerRole) -> Value {
    word(role.as_str_name(), "CONTAINER_ROLE_")
}

/// A moment in RFC 3339, a span of time as `3.5s`.
fn time<T: ToString>(time: Option<&T>) -> Value {
    json!(time.map(ToString::to_string))
}

/// Bytes under `key` as text, or under `key_base64` where they are none.
fn put_bytes(object: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(key.to_owned(), json!(text)),
        Err(_) => object.insert(format!("{key}_base64"), json!(STANDARD.encode(bytes))),
    };
}

pub(crate) fn execution(execution: &proto::Execution) -> Value {
    let mut value = json!({
        "name": execution.name,
        "execution_id": execution.execution_id,
        "target": execution.target,
        "tenant": execution.tenant,
        "labels": execution.labels,
        "state": state(execution.state()),
        "state_reason": execution.state_reason,
        "outcome": execution.outcome.as_ref().map(outcome),
        "attempts": execution.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "policies": execution.policies.as_ref().map(policies),
        "create_time": time(execution.create_time.as_ref()),
        "start_time": time(execution.start_time.as_ref()),
        "end_time": time(execution.end_time.as_ref()),
        "spec_digest": execution.spec_digest,
        "cancel": execution.cancel.as_ref().map(cancel),
        "release_time": time(execution.release_time.as_ref()),
    });
    if !execution.pod_json.is_empty() {
        value["pod"] = serde_json::from_slice(&execution.pod_json).unwrap_or_default();
    }
    if !execution.job_json.is_empty() {
        value["job"] = serde_json::from_slice(&execution.job_json).unwrap_or_default();
    }
    value
}

fn outcome(outcome: &proto::Outcome) -> Value {
    json!({
        "state": state(outcome.state()),
        "failure_class": failure_class(outcome.failure_class()),
        "reason": outcome.reason,
        "message": outcome.message,
        "containers": outcome.containers.iter().map(container).collect::<Vec<_>>(),
        "exit_code": outcome.exit_code,
    })
}

fn container(container: &proto::ContainerOutcome) -> Value {
    json!({
        "container": container.container,
        "role": role(container.role()),
        "exit_code": container.exit_code,
        "signal": container.signal,
        "reason": container.reason,
        "message": container.message,
        "restart_count": container.restart_count,
        "start_time": time(container.start_time.as_ref()),
        "end_time": time(container.end_time.as_ref()),
    })
}

fn attempt(attempt: &proto::Attempt) -> Value {
    json!({
        "number": attempt.number,
        "state": state(attempt.state()),
        "pod_name": attempt.pod_name,
        "pod_namespace": attempt.pod_namespace,
        "pod_uid": attempt.pod_uid,
        "node_name": attempt.node_name,
        "batch_job_id": attempt.batch_job_id,
        "job_name": attempt.job_name,
    })
}

fn policies(policies: &proto::Policies) -> Value {
    json!({
        "deadlines": policies.deadlines.as_ref().map(|deadlines| json!({
            "start": time(deadlines.start.as_ref()),
            "run": time(deadlines.run.as_ref()),
        })),
        "finish": policies.finish.as_ref().map(|finish| json!({
            "action": word(finish.action().as_str_name(), "FINISH_ACTION_"),
            "ttl": time(finish.ttl.as_ref()),
        })),
        "result": policies.result.as_ref().map(|result| json!({
            "source": word(result.source().as_str_name(), "RESULT_SOURCE_"),
            "max_bytes": result.max_bytes,
        })),
        "deciding_containers": policies.deciding_containers,
        "drain_deadline": time(policies.drain_deadline.as_ref()),
    })
}

fn cancel(cancel: &proto::CancelIntent) -> Value {
    json!({
        "requested_by": cancel.requested_by,
        "reason": cancel.reason,
        "failure_class": failure_class(cancel.failure_class()),
        "request_time": time(cancel.request_time.as_ref()),
    })
}

/// An event, as `{"cursor": ..., "<kind>": {...}}`.
pub(crate) fn event(event: &proto::Event) -> Value {
    let (kind, body) = match &event.event {
        Some(Kind::StateChanged(it)) => ("state_changed", json!({"execution": it.execution.as_ref().map(execution)})),
        Some(Kind::AttemptStarted(it)) => ("attempt_started", json!({"attempt": it.attempt.as_ref().map(attempt)})),
        Some(Kind::AttemptEnded(it)) => (
            "attempt_ended",
            json!({"attempt": it.attempt.as_ref().map(attempt), "outcome": it.outcome.as_ref().map(outcome)}),
        ),
        Some(Kind::LogChunk(it)) => (
            "log_chunk",
            json!({
                "instance": it.instance.as_ref().map(instance),
                "lines": it.lines.iter().map(line).collect::<Vec<_>>(),
                "line_cursor": STANDARD.encode(&it.line_cursor),
            }),
        ),
        Some(Kind::LogGap(it)) => (
            "log_gap",
            json!({
                "instance": it.instance.as_ref().map(instance),
                "reason": word(it.reason().as_str_name(), "GAP_REASON_"),
                "after": time(it.after.as_ref()),
                "before": time(it.before.as_ref()),
                "lines_at_least": it.lines_at_least,
                "message": it.message,
            }),
        ),
        Some(Kind::LogStreamEnd(it)) => {
            ("log_stream_end", json!({"instance": it.instance.as_ref().map(instance), "complete": it.complete}))
        }
        Some(Kind::Notice(it)) => (
            "notice",
            json!({
                "code": it.code,
                "message": it.message,
                "severity": word(it.severity().as_str_name(), "NOTICE_SEVERITY_"),
            }),
        ),
        Some(Kind::Result(it)) => ("result", result(it)),
        Some(Kind::End(it)) => ("end", json!({"execution": it.execution.as_ref().map(execution)})),
        Some(Kind::Heartbeat(_)) | None => ("heartbeat", json!({})),
    };
    json!({"cursor": STANDARD.encode(&event.cursor), kind: body})
}

fn instance(instance: &proto::ContainerInstance) -> Value {
    json!({
        "attempt": instance.attempt,
        "container": instance.container,
        "restart": instance.restart,
        "role": role(instance.role()),
    })
}

fn line(line: &proto::LogLine) -> Value {
    let mut object = Map::new();
    object.insert("time".to_owned(), json!(super::text::nanos(line.time_unix_nanos)));
    put_bytes(&mut object, "content", &line.content);
    object.insert("continues".to_owned(), json!(line.continues));
    object.insert("partial".to_owned(), json!(line.partial));
    Value::Object(object)
}

fn result(result: &proto::Result) -> Value {
    let mut object = Map::new();
    object.insert("source".to_owned(), word(result.source().as_str_name(), "RESULT_SOURCE_"));
    put_bytes(&mut object, "content", &result.content);
    object.insert("problem".to_owned(), json!(result.problem));
    object.insert("not_json".to_owned(), json!(result.not_json));
    Value::Object(object)
}

pub(crate) fn target(target: &proto::Target) -> Value {
    json!({
        "name": target.name,
        "kind": word(target.kind().as_str_name(), "TARGET_KIND_"),
        "place": target.place.as_ref().map(|place| json!({
            "cluster": place.cluster,
            "region": place.region,
            "role_arn": place.role_arn,
            "namespace": place.namespace,
        })),
        "health": word(target.health().as_str_name(), "TARGET_HEALTH_"),
        "health_reason": target.health_reason,
    })
}

pub(crate) fn check(check: &proto::Check) -> Value {
    json!({
        "link": check.link,
        "subject": check.subject,
        "status": word(check.status().as_str_name(), "CHECK_STATUS_"),
        "detail": check.detail,
        "fix": check.fix,
    })
}

pub(crate) fn server_info(info: &proto::GetServerInfoResponse) -> Value {
    json!({
        "version": info.version,
        "instance": info.instance,
        "features": info.features,
        "max_request_bytes": info.max_request_bytes,
        "max_manifest_bytes": info.max_manifest_bytes,
        "caller_subject": info.caller_subject,
        "caller_tenant": info.caller_tenant,
    })
}

pub(crate) fn submission(answer: &proto::SubmitExecutionResponse) -> Value {
    json!({
        "execution": answer.execution.as_ref().map(execution),
        "claim": answer.claim,
        "created": answer.created,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_base64() {
        let text = proto::LogLine { time_unix_nanos: 1_500_000_000, content: "ä".into(), ..Default::default() };
        let expected =
            json!({"time": "1970-01-01T00:00:01.500000000Z", "content": "ä", "continues": false, "partial": false});
        assert_eq!(line(&text), expected);
        let binary = proto::LogLine { content: vec![0xff, 0x00].into(), ..Default::default() };
        assert_eq!(line(&binary)["content_base64"], "/wA=");
        assert!(line(&binary).get("content").is_none());
    }

    #[test]
    fn an_event_names_its_kind_and_its_words_have_no_prefix() {
        let mut failed = proto::Execution { name: "targets/t/executions/e".to_owned(), ..Default::default() };
        failed.set_state(proto::ExecutionState::Failed);
        failed.outcome = Some(proto::Outcome {
            state: proto::ExecutionState::Failed.into(),
            failure_class: proto::FailureClass::OutOfMemory.into(),
            exit_code: Some(137),
            ..Default::default()
        });
        let end = proto::Event { cursor: "c".into(), event: Some(Kind::End(proto::End { execution: Some(failed) })) };
        let value = event(&end);
        assert_eq!(value["cursor"], "Yw==");
        assert_eq!(value["end"]["execution"]["state"], "FAILED");
        assert_eq!(value["end"]["execution"]["outcome"]["failure_class"], "OUT_OF_MEMORY");
        assert_eq!(value["end"]["execution"]["outcome"]["exit_code"], 137);
        assert_eq!(value["end"]["execution"]["policies"], Value::Null);
        assert!(value["end"]["execution"].get("pod").is_none());
    }
}
