//! Records whose jobs are Jobs of the cluster: their pods are told apart by their own names.

use serde_json::{Value, json};

use super::super::{collect, status};
use super::play::{self, address, at, ends, intent, job, record, runs, views};
use super::verdict::judge;
use super::*;
use crate::execution::{FailureClass, Outcome, PolicyRequest, State};

const ID: &str = "j/job-uid";

/// A pod of the only record's Job, made at that second.
#[expect(clippy::needless_pass_by_value, reason = "literals read better without a reference")]
fn pod(name: &str, index: Option<u32>, second: i64, status: Value) -> Value {
    let mut pod = json!({
        "metadata": {
            "name": name, "namespace": "n", "uid": name, "resourceVersion": "7", "creationTimestamp": at(second),
            "labels": {
                "podbroker.io/execution": address().hash(), "podbroker.io/attempt": "1",
                "batch.kubernetes.io/job-name": "j", "batch.kubernetes.io/controller-uid": "job-uid",
            },
        },
        "spec": { "nodeName": "node1", "restartPolicy": "Never", "containers": [{ "name": "main" }] },
        "status": status,
    });
    if let Some(index) = index {
        pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = json!(index.to_string());
    }
    pod
}

fn of(state: JobState, counts: [u32; 3]) -> Job {
    let states = [JobState::Succeeded, JobState::Failed, JobState::Running];
    Job { children: Some(states.into_iter().zip(counts).collect()), ..job(ID, state) }
}

fn view(job: Option<Job>, pods: &[Value], extra: &[(&str, Value)]) -> View {
    let made = json!({ "id": ID, "at": at(1) });
    let mut all = vec![("job", made)];
    all.extend(extra.iter().cloned());
    let mut views = views(record(&PolicyRequest::default(), &all), job, pods);
    assert_eq!(views.len(), 1, "the pods of a Job are one attempt");
    views.pop().unwrap()
}

fn judged(job: Job, pods: &[Value], extra: &[(&str, Value)]) -> Outcome {
    judge(&[&view(Some(job), pods, extra)], at(40)).expect("it has ended").outcome
}

/// It ended at that second.
fn ended(exit_code: i32, second: i64) -> Value {
    let mut status = ends(exit_code, "Error");
    status["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = json!(at(second));
    status
}

fn deleted(mut pod: Value, second: i64) -> Value {
    pod["metadata"]["deletionTimestamp"] = json!(at(second));
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    pod
}

#[test]
fn containers_are_named_by_the_end_of_the_pods_name_and_the_index() {
    let pods = [pod("j-aaaaa", None, 5, ends(1, "Error")), pod("j-7-bbbbb", Some(7), 6, runs())];
    let view = view(Some(of(JobState::Running, [0, 1, 1])), &pods, &[]);
    let names: Vec<_> = view.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["aaaaa/main", "7-bbbbb/main"]);
    assert_eq!(status::status(&view).state, State::Running);
}

#[test]
fn a_lone_pod_is_named_and_several_are_not() {
    let one = view(None, &[pod("j-aaaaa", None, 5, runs())], &[]);
    assert_eq!(one.record().unwrap().pod().0, "j-aaaaa");
    let two = view(None, &[pod("j-aaaaa", None, 5, runs()), pod("j-bbbbb", None, 5, runs())], &[]);
    assert_eq!(two.record().unwrap().pod(), (String::new(), String::new()));
}

#[test]
fn a_suspended_job_is_queued_with_the_reason_also_when_it_ran_before() {
    let suspended = || Job { reason: "suspended by Kueue, queue a".to_owned(), ..of(JobState::Runnable, [0, 0, 0]) };
    let shown = status::status(&view(Some(suspended()), &[], &[]));
    assert_eq!(shown.state, State::Queued);
    assert!(shown.reason.contains("suspended by Kueue, queue a"), "{}", shown.reason);
    let before = deleted(pod("j-aaaaa", None, 5, ended(143, 20)), 15);
    assert_eq!(status::status(&view(Some(suspended()), &[before], &[])).state, State::Queued);
    let ending = deleted(pod("j-aaaaa", None, 5, runs()), 15);
    assert_eq!(status::status(&view(Some(suspended()), &[ending], &[])).state, State::Running);
}

#[test]
fn a_start_deadline_counts_from_where_the_job_was_resumed() {
    let resumed = Job { started: Some(at(100)), ..of(JobState::Starting, [0, 0, 1]) };
    let before = deleted(pod("j-aaaaa", None, 5, ended(143, 20)), 15);
    assert_eq!(view(Some(resumed), &[before], &[]).start_counts_from(), Some(at(100)));
}

#[test]
fn a_job_that_succeeded_after_a_retry_has_no_bad_exit_code() {
    let pods = [pod("j-aaaaa", None, 5, ended(3, 10)), pod("j-bbbbb", None, 11, ended(0, 20))];
    let outcome = judged(of(JobState::Succeeded, [1, 1, 0]), &pods, &[]);
    assert_eq!((outcome.state, outcome.class, outcome.exit_code), (State::Succeeded, None, Some(0)));
}

#[test]
fn the_last_pod_that_failed_by_itself_is_blamed() {
    let killed = deleted(pod("j-ccccc", None, 6, ended(143, 31)), 30);
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" });
    let pods = [
        pod("j-zzzzz", None, 1, evicted),
        killed.clone(),
        pod("j-aaaaa", None, 5, ended(3, 20)),
        pod("j-bbbbb", None, 5, ended(4, 29)),
    ];
    let job = || Job { reason: "BackoffLimitExceeded: too often".to_owned(), ..of(JobState::Failed, [0, 4, 0]) };
    let outcome = judged(job(), &pods, &[]);
    assert_eq!((outcome.class, outcome.exit_code), (Some(FailureClass::Application), Some(4)));
    assert!(outcome.message.starts_with("4 of 4 pods failed: container bbbbb/main"), "{}", outcome.message);
    assert_eq!(judged(job(), &[killed], &[]).class, Some(FailureClass::PodDeleted));
}

#[test]
fn how_a_job_ends_by_others() {
    let pods = [deleted(pod("j-aaaaa", None, 5, ended(143, 20)), 15)];
    let late = Job { reason: "DeadlineExceeded: too long".to_owned(), ..of(JobState::Failed, [0, 1, 0]) };
    assert_eq!(judged(late.clone(), &pods, &[]).class, Some(FailureClass::Deadline));
    let asked = Job { is_terminated: true, ..late };
    let outcome = judged(asked.clone(), &pods, &[("cancel", intent())]);
    assert_eq!((outcome.state, outcome.class), (State::Cancelled, Some(FailureClass::CancelledByCaller)));
    let gone = Job { reason: "the Job was deleted".to_owned(), ..asked };
    let outcome = judged(gone, &pods, &[]);
    assert_eq!((outcome.state, outcome.class), (State::Failed, Some(FailureClass::PodDeleted)));
    assert!(outcome.message.contains("the Job was deleted"), "{}", outcome.message);
}

fn saying(mut status: Value, value: &str) -> Value {
    status["containerStatuses"][0]["state"]["terminated"]["message"] = json!(value);
    status
}

#[test]
fn the_value_is_that_of_the_pod_that_succeeded_after_others_failed() {
    let pods =
        [pod("j-aaaaa", None, 5, saying(ended(3, 10), "1")), pod("j-bbbbb", None, 11, saying(ended(0, 20), "2"))];
    let succeeded = view(Some(of(JobState::Succeeded, [1, 1, 0])), &pods, &[]);
    assert_eq!(collect::termination_message(&succeeded).unwrap(), "2");
    let failed = view(Some(of(JobState::Failed, [0, 1, 0])), &pods[..1], &[]);
    assert_eq!(collect::termination_message(&failed).unwrap(), "1");
}

#[test]
fn of_a_job_of_aws_batch_the_first_value_counts_however_its_container_ended() {
    let child = |id: &str, code: i32, value: &str| play::pod(id, id, 1, 7, saying(ends(code, "Error"), value));
    let pods = [child("job-1:0", 3, "1"), child("job-1:1", 0, "2")];
    let views = views(record(&PolicyRequest::default(), &[]), None, &pods);
    assert_eq!(collect::termination_message(&views[0]).unwrap(), "1");
}
