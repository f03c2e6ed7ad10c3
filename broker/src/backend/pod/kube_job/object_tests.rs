use serde_json::{Value, json};

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "literals read better without a reference")]
fn object(metadata: Value, spec: Value, status: Value) -> JobObject {
    let mut all =
        json!({ "metadata": { "name": "j", "uid": "u", "resourceVersion": "7" }, "spec": spec, "status": status });
    for (key, value) in metadata.as_object().into_iter().flatten() {
        all["metadata"][key] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    json!([
        { "type": "SuccessCriteriaMet", "status": "True" },
        { "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": "2026-11-22T06:00:09Z" },
    ])
}

#[test]
fn where_a_job_stands() {
    let failed = condition("Failed", "BackoffLimitExceeded", "too often");
    let to_fail = condition("FailureTarget", "BackoffLimitExceeded", "too often");
    let cases = [
        (json!({}), json!({}), JobState::Starting, ""),
        (json!({ "suspend": true }), json!({}), JobState::Runnable, "suspended"),
        (json!({ "suspend": false }), json!({ "active": 1, "ready": 0 }), JobState::Starting, ""),
        (json!({}), json!({ "active": 2, "ready": 1 }), JobState::Running, ""),
        (json!({}), json!({ "conditions": condition("Complete", "", "") }), JobState::Succeeded, ""),
        (json!({}), json!({ "conditions": failed }), JobState::Failed, "BackoffLimitExceeded: too often"),
        // Its pods still end.
        (json!({}), json!({ "conditions": to_fail, "active": 1, "ready": 1 }), JobState::Running, ""),
    ];
    for (spec, status, state, reason) in cases {
        let job = object(json!({}), spec.clone(), status.clone()).describe();
        assert_eq!((job.state, job.reason.as_str()), (state, reason), "{spec} {status}");
        assert_eq!(job.id, "j/u");
    }
}

#[test]
fn a_suspended_job_names_its_queue() {
    let labels = json!({ "labels": { "kueue.x-k8s.io/queue-name": "team-a" } });
    let job = object(labels, json!({ "suspend": true }), json!({})).describe();
    assert_eq!(job.reason, "suspended by Kueue, queue team-a");
}

#[test]
fn only_what_we_asked_for_and_what_then_happened_is_an_end_that_was_asked_for() {
    let asked = || json!({ "annotations": { "podbroker.io/ended-because": "cancelled by ann" } });
    let status = |reason| json!({ "conditions": condition("Failed", reason, "") });
    let cases = [
        (asked(), "DeadlineExceeded", true),
        (asked(), "BackoffLimitExceeded", false),
        (json!({}), "DeadlineExceeded", false),
    ];
    for (metadata, reason, expected) in cases {
        assert_eq!(object(metadata, json!({}), status(reason)).describe().is_terminated, expected, "{reason}");
    }
}

#[test]
fn times_and_counts_are_told() {
    let status = json!({
        "startTime": "2026-11-22T06:00:01Z", "completionTime": "2026-11-22T06:00:08Z", "succeeded": 2, "failed": 1,
        "conditions": condition("Complete", "CompletionsReached", ""),
    });
    let job = object(json!({ "creationTimestamp": "2026-11-22T06:00:00Z" }), json!({}), status).describe();
    let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
    assert_eq!(text(job.created).as_deref(), Some("2026-11-22T06:00:00Z"));
    assert_eq!(text(job.started).as_deref(), Some("2026-11-22T06:00:01Z"));
    assert_eq!(text(job.stopped).as_deref(), Some("2026-11-22T06:00:08Z"));
    let counts = vec![(JobState::Succeeded, 2), (JobState::Failed, 1), (JobState::Running, 0)];
    assert_eq!(job.children, Some(counts));
}

#[test]
fn a_job_that_is_deleted_has_ended_unless_it_had_before() {
    let runs = object(json!({}), json!({}), json!({ "active": 1, "ready": 1 })).describe();
    let gone = deleted(runs);
    assert_eq!((gone.state, gone.is_terminated, gone.reason.as_str()), (JobState::Failed, true, DELETED));
    let done = object(json!({}), json!({}), json!({ "conditions": condition("Complete", "", "") })).describe();
    assert_eq!(deleted(done.clone()), done);
}
