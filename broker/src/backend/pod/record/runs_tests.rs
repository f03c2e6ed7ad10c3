use serde_json::{Value, json};

use super::super::super::events::{Access, Early};
use super::super::Ledger;
use super::super::named::work;
use super::super::play::{Batch, address, at, attempt, carrier, ends, job, pod, record, runs as running, waits};
use super::*;
use crate::backend::job::{Job, JobAttempt, JobState};
use crate::execution::PolicyRequest;

const NOTHING: [(&str, u32, Option<GapReason>); 0] = [];
const LOST: Option<GapReason> = Some(GapReason::PodDeleted);

/// How the record's job ended, as it was written.
fn written(state: &str, class: Option<&str>, more: &Value) -> (&'static str, Value) {
    let mut written = json!({
        "state": state, "class": class, "reason": "", "message": "", "containers": [], "exit_code": null,
        "started": null, "ended": at(20), "at": at(25),
    });
    written.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ("outcome-is", written)
}

fn ended(name: &str, exit_code: i64, restarts: u32) -> Value {
    json!({ "containers": [{
        "container": name, "role": "DECIDING", "exit_code": exit_code, "signal": null, "reason": "", "message": "",
        "restarts": restarts, "started": at(10), "ended": at(20),
    }] })
}

fn of(view: &View) -> Vec<Run> {
    runs(view, view.record().unwrap(), &[])
}

/// The views of a record in which that was written after the job and the pods were seen.
fn views(extra: &[(&str, Value)], job: Option<Job>, pods: &[Value]) -> Vec<View> {
    let mut ledger = Ledger::new(Arc::new(Batch::default()));
    let (hash, mut early) = (address().hash(), Early::default());
    ledger.take_record(&hash, record(&PolicyRequest::default(), &[]), &mut early, Access::Open);
    for pod in pods {
        ledger.take_pod(&carrier(pod), &mut early, Access::Open);
    }
    if let Some(job) = job {
        ledger.describe(job, at(20));
    }
    ledger.take_record(&hash, record(&PolicyRequest::default(), extra), &mut early, Access::Open)
}

/// The runs of the latest attempt: container, restart, and why its lines are lost.
fn told(extra: &[(&str, Value)], job: Option<Job>, pods: &[Value]) -> Vec<(String, u32, Option<GapReason>)> {
    let views = views(extra, job, pods);
    let reason = |log| match log {
        Log::Of(_) => None,
        Log::Lost(reason, _) => Some(reason),
    };
    of(views.last().unwrap()).into_iter().map(|run| (run.container, run.restart, reason(run.log))).collect()
}

fn check(found: &[(String, u32, Option<GapReason>)], expected: &[(&str, u32, Option<GapReason>)]) {
    let found: Vec<_> = found.iter().map(|(name, restart, log)| (name.as_str(), *restart, *log)).collect();
    assert_eq!(found, expected);
}

fn child(index: u32, turn: u32, version: u64, status: Value) -> Value {
    let mut pod = pod(&format!("p{index}-{turn}"), &format!("job-1:{index}"), turn, version, status);
    pod["metadata"]["uid"] = json!(format!("p{index}-{turn}"));
    pod
}

fn array(state: JobState, children: &[(JobState, u32)]) -> Job {
    Job { children: Some(children.to_vec()), ..job("job-1", state) }
}

#[test]
fn a_pod_that_is_there_is_read_also_if_it_was_first_seen_at_its_end() {
    check(&told(&[], None, &[pod("p", "job-1", 1, 7, waits())]), &NOTHING);
    check(&told(&[], None, &[pod("p", "job-1", 1, 7, running())]), &[("main", 0, None)]);
    let mut going = pod("p", "job-1", 1, 7, ends(0, "Completed"));
    going["metadata"]["deletionTimestamp"] = json!(at(20));
    check(&told(&[], None, &[going]), &[("main", 0, None)]);
}

#[test]
fn a_pod_that_has_not_said_yet_that_it_ran_is_read_once_the_job_has() {
    let p = || [pod("p", "job-1", 1, 7, waits())];
    check(&told(&[], Some(job("job-1", JobState::Succeeded)), &p()), &NOTHING);
    check(&told(&[written("SUCCEEDED", None, &json!({}))], None, &p()), &[("main", 0, None)]);
    check(&told(&[written("FAILED", Some("APPLICATION"), &ended("main", 3, 0))], None, &p()), &[("main", 0, None)]);
    check(&told(&[written("FAILED", Some("APPLICATION"), &json!({}))], None, &p()), &NOTHING);
    // The kubelet made the end up.
    let refused = json!({ "phase": "Failed", "containerStatuses": [{
        "name": "main", "state": { "terminated": { "exitCode": 137, "reason": "ContainerStatusUnknown" } },
        "restartCount": 0, "image": "", "imageID": "", "ready": false,
    }] });
    let refused = [pod("p", "job-1", 1, 7, refused)];
    check(&told(&[written("FAILED", Some("EVICTED"), &json!({}))], None, &refused), &NOTHING);
}

#[test]
fn a_pod_that_went_while_its_container_was_created_may_have_run() {
    let extra = [written("FAILED", Some("APPLICATION"), &json!({}))];
    let went = |status: Value| {
        let mut ledger = Ledger::new(Arc::new(Batch::default()));
        let (hash, mut early) = (address().hash(), Early::default());
        ledger.take_record(&hash, record(&PolicyRequest::default(), &extra), &mut early, Access::Open);
        ledger.take_pod(&carrier(&pod("p", "job-1", 1, 7, status)), &mut early, Access::Open);
        let (_, views) = ledger.remove_pod("p", None).views.unwrap();
        of(&views[0]).len()
    };
    assert_eq!(went(waits()), 1);
    let no_image = json!({ "phase": "Pending", "containerStatuses": [{
        "name": "main", "state": { "waiting": { "reason": "ImagePullBackOff" } },
        "restartCount": 0, "image": "", "imageID": "", "ready": false,
    }] });
    assert_eq!(went(no_image), 0);
}

#[test]
fn what_ran_in_a_pod_that_nobody_saw_is_lost() {
    let over = |state, attempts| Job { attempts, ..job("job-1", state) };
    let exited = || vec![attempt("p", Some(3), "")];
    // The pod may still be seen until the end is written.
    check(&told(&[], Some(over(JobState::Failed, exited())), &[]), &NOTHING);
    let failed = || written("FAILED", Some("APPLICATION"), &json!({}));
    check(&told(&[failed()], Some(over(JobState::Failed, exited())), &[]), &[("main", 0, LOST)]);
    // Batch does not say when it started.
    let vague = JobAttempt { started: None, ..attempt("p", Some(3), "") };
    let known = written(
        "FAILED",
        Some("APPLICATION"),
        &json!({ "containers": [{
        "container": "main", "role": "DECIDING", "exit_code": 3, "signal": null, "reason": "", "message": "",
        "restarts": 0, "started": null, "ended": null,
    }] }),
    );
    check(&told(&[known], Some(over(JobState::Failed, vec![vague])), &[]), &[("main", 0, LOST)]);
    // Its node went away, and nobody knows how the container ended.
    let node_lost = JobAttempt { stopped: Some(at(20)), ..attempt("p", None, "Host EC2 (instance i-1) terminated") };
    check(&told(&[failed()], Some(over(JobState::Failed, vec![node_lost])), &[]), &[("main", 0, LOST)]);
    // Another replica wrote it down, and this one was not there.
    check(&told(&[written("FAILED", Some("APPLICATION"), &ended("main", 3, 0))], None, &[]), &[("main", 0, LOST)]);
    // Not even its name is known.
    check(&told(&[written("SUCCEEDED", None, &json!({}))], None, &[]), &[(UNKNOWN, 0, LOST)]);
    let forgotten = || written("FAILED", Some("POD_DELETED"), &json!({ "is_forgotten": true }));
    check(&told(&[forgotten()], None, &[]), &[(UNKNOWN, 0, LOST)]);
    // It never had a pod.
    check(&told(&[written("CANCELLED", Some("CANCELLED_BY_CALLER"), &json!({}))], None, &[]), &NOTHING);
}

#[test]
fn an_earlier_attempt_is_lost_once_a_pod_of_a_later_one_was_seen() {
    let told_of_two =
        || Job { attempts: vec![attempt("p", Some(1), ""), attempt("q", None, "")], ..job("job-1", JobState::Running) };
    let first = |pods: &[Value]| {
        let views = views(&[], Some(told_of_two()), pods);
        of(&views[0]).len()
    };
    assert_eq!(first(&[]), 0, "the watch may be behind");
    assert_eq!(first(&[pod("q", "job-1", 2, 9, running())]), 1);
}

#[test]
fn a_child_that_is_tried_again_has_a_run_in_each_of_its_pods() {
    let again = child(7, 2, 9, running());
    check(&told(&[], None, std::slice::from_ref(&again)), &[("7/main", 1, None), ("7/main", 0, LOST)]);
    let first = child(7, 1, 8, ends(1, "Error"));
    let both = [("7/main", 0, None), ("7/main", 1, None)];
    check(&told(&[], None, &[first.clone(), again.clone()]), &both);
    // Whichever is told first, the latest stands for the container.
    check(&told(&[], None, &[again.clone(), first.clone()]), &both);
    let views = views(&[], None, &[again, first]);
    let container = views[0].container("7/main").unwrap();
    assert_eq!((container.restarts, container.termination()), (1, None));
}

#[test]
fn a_later_try_that_only_another_replica_saw_is_lost() {
    let over = written("SUCCEEDED", None, &ended("7/main", 0, 1));
    let first = child(7, 1, 8, ends(1, "Error"));
    check(&told(&[over], None, &[first]), &[("7/main", 0, None), ("7/main", 1, LOST)]);
}

#[test]
fn children_that_nobody_saw_are_named_one_by_one() {
    let pods = [child(0, 1, 7, ends(0, "Completed"))];
    let done = array(JobState::Succeeded, &[(JobState::Succeeded, 3)]);
    check(&told(&[], Some(done.clone()), &pods), &[("0/main", 0, None)]);
    let over = || written("SUCCEEDED", None, &json!({ "children": 3 }));
    check(&told(&[over()], Some(done), &pods), &[("0/main", 0, None), ("1/main", 0, LOST), ("2/main", 0, LOST)]);
    // A replica that came later knows as many.
    let unknown = ["0/unknown", "1/unknown", "2/unknown"].map(|name| (name, 0, LOST));
    check(&told(&[over()], None, &[]), &unknown);
    // Most children of one that was cancelled never ran.
    let cancelled = written("CANCELLED", Some("CANCELLED_BY_CALLER"), &json!({ "children": 3 }));
    check(&told(&[cancelled], None, &pods), &[("0/main", 0, None), (UNKNOWN, 0, LOST)]);
}

#[test]
fn what_the_caller_has_heard_of_is_not_taken_for_unknown() {
    let over = |children: &Value| written("SUCCEEDED", None, children);
    let of = |extra, heard: &[(&str, u32)]| {
        let views = views(&[extra], None, &[]);
        let runs = runs(&views[0], views[0].record().unwrap(), heard);
        runs.into_iter().map(|run| (run.container, run.restart)).collect::<Vec<_>>()
    };
    let expected = |runs: &[(&str, u32)]| runs.iter().map(|(name, run)| ((*name).to_owned(), *run)).collect::<Vec<_>>();
    // What has been told to its end is passed over by its position.
    assert_eq!(of(over(&json!({})), &[("main", 0)]), expected(&[("main", 0)]));
    let array = of(over(&json!({ "children": 2 })), &[("1/main", 0), ("1/main", 1)]);
    assert_eq!(array, expected(&[("1/main", 0), ("1/main", 1), ("0/unknown", 0)]));
}

#[test]
fn the_node_keeps_the_last_two_runs_of_a_container_that_it_starts_again() {
    let mut status = running();
    status["containerStatuses"][0]["restartCount"] = json!(4);
    let kept = [("main", 3, None), ("main", 4, None), ("main", 2, Some(GapReason::Rotated))];
    check(&told(&[], None, &[pod("p", "job-1", 1, 7, status)]), &kept);
}

#[test]
fn a_change_of_one_of_a_thousand_children_looks_at_each_of_them_a_few_times() {
    const CHILDREN: u32 = 1000;
    let mut ledger = Ledger::new(Arc::new(Batch::default()));
    let (hash, mut early) = (address().hash(), Early::default());
    ledger.take_record(&hash, record(&PolicyRequest::default(), &[]), &mut early, Access::Open);
    for index in 0..CHILDREN {
        ledger.take_pod(&carrier(&child(index, 1, 7, running())), &mut early, Access::Open);
    }
    work::take();
    let news = ledger.take_pod(&carrier(&child(500, 1, 8, ends(0, "Completed"))), &mut early, Access::Open);
    let all = CHILDREN as usize;
    let merged = work::take();
    assert!((all..=3 * all).contains(&merged), "{merged} looks for one change");
    let (_, views) = news.views.unwrap();
    assert_eq!(of(&views[0]).len(), all);
    let listed = work::take();
    assert!((all..=2 * all).contains(&listed), "{listed} looks for the runs");
}
