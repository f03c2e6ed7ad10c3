use serde_json::{Value, json};

use super::super::super::notices::notices;
use super::super::play::{at, attempt, ends, intent, job, pod, record, runs, views, waits};
use super::*;
use crate::backend::job::Job;
use crate::execution::{FailureClass, PolicyRequest, Severity};

fn bare() -> View {
    record(&PolicyRequest::default(), &[])
}

fn of(job: Option<Job>, pods: &[Value]) -> Vec<View> {
    views(bare(), job, pods)
}

fn told(view: &View) -> Status {
    status(view, view.record().unwrap())
}

#[test]
fn the_table_of_states() {
    use JobState::{Failed, Pending, Runnable, Running, Starting, Submitted, Succeeded};
    let p = |status| vec![pod("p", "job-1", 1, 7, status)];
    let cases = [
        (None, vec![], State::Queued),
        (Some(Submitted), vec![], State::Queued),
        (Some(Pending), vec![], State::Queued),
        (Some(Runnable), vec![], State::Queued),
        (Some(Starting), vec![], State::Pending),
        (Some(Running), vec![], State::Running),
        // A pod is newer than any description.
        (None, p(waits()), State::Pending),
        (Some(Runnable), p(waits()), State::Pending),
        (Some(Runnable), p(runs()), State::Running),
        (Some(Starting), p(runs()), State::Running),
        // Only the job ends it, since it may try again.
        (Some(Running), p(ends(0, "Completed")), State::Running),
        (Some(Running), p(ends(1, "Error")), State::Running),
        // And how is said once it is written.
        (Some(Succeeded), p(ends(0, "Completed")), State::Running),
        (Some(Failed), p(ends(1, "Error")), State::Running),
        (Some(Failed), vec![], State::Pending),
    ];
    for (state, pods, expected) in cases {
        let views = of(state.map(|state| job("job-1", state)), &pods);
        let status = told(views.last().unwrap());
        assert_eq!((status.state, status.outcome), (expected, None), "{state:?} with {pods:?}");
    }
}

#[test]
fn pods_of_another_job_count_for_nothing() {
    let views = of(Some(job("job-1", JobState::Runnable)), &[pod("p", "job-2", 1, 7, runs())]);
    assert_eq!(told(&views[0]).state, State::Queued);
    assert!(views[0].containers.is_empty());
}

#[test]
fn what_was_written_is_the_end_whatever_else_is_known() {
    let outcome = json!({
        "state": "FAILED", "class": "OUT_OF_MEMORY", "reason": "OOMKilled", "message": "too much", "exit_code": 137,
        "containers": [{
            "container": "main", "role": "DECIDING", "exit_code": 137, "signal": null, "reason": "OOMKilled", "message": "bye",
            "restarts": 0, "started": at(10), "ended": at(20),
        }],
        "started": at(10), "ended": at(20), "at": at(25), "pod": { "name": "p", "uid": "p", "node": "node1" },
    });
    let bare = record(&PolicyRequest::default(), &[("outcome-is", outcome)]);
    for (job, pods) in [(None, vec![]), (Some(job("job-1", JobState::Running)), vec![pod("p", "job-1", 1, 7, runs())])]
    {
        let views = views(bare.clone(), job, &pods);
        let status = told(&views[0]);
        let outcome = status.outcome.unwrap();
        assert_eq!(
            (status.state, outcome.class, outcome.exit_code),
            (State::Failed, Some(FailureClass::OutOfMemory), Some(137))
        );
        assert_eq!((status.started, status.ended), (Some(at(10)), Some(at(20))));
        assert!(views[0].is_terminal());
        assert_eq!((views[0].node.as_str(), views[0].record().unwrap().pod().0.as_str()), ("node1", "p"));
        // It is known that it has written lines.
        assert!(views[0].container("main").unwrap().has_run());
        assert_eq!(views[0].container("main").unwrap().termination().unwrap().message, "bye");
    }
}

#[test]
fn each_of_the_jobs_own_attempts_is_one() {
    let again = Job {
        attempts: vec![attempt("p", Some(1), "Host EC2 (instance i-1) terminated.")],
        ..job("job-1", JobState::Runnable)
    };
    let first = pod("p", "job-1", 1, 7, ends(143, "Error"));
    // It waits for the second one.
    let waiting = of(Some(again.clone()), std::slice::from_ref(&first));
    let numbers: Vec<_> = waiting.iter().map(|view| (view.attempt, told(view).state)).collect();
    assert_eq!(numbers, [(1, State::Failed), (2, State::Queued)]);
    assert_eq!(told(&waiting[0]).outcome.unwrap().class, Some(FailureClass::SpotInterrupted));
    // Its pod is there before anybody has described it.
    let second = pod("q", "job-1", 2, 8, runs());
    for job in [None, Some(job("job-1", JobState::Running)), Some(again)] {
        let views = of(job, &[first.clone(), second.clone()]);
        let numbers: Vec<_> = views.iter().map(|view| (view.attempt, told(view).state)).collect();
        assert_eq!(numbers, [(1, State::Failed), (2, State::Running)]);
        let pods: Vec<_> = views.iter().map(|view| view.record().unwrap().pod().0).collect();
        assert_eq!(pods, ["p", "q"]);
        assert!(views.iter().all(|view| view.pod_name == bare().pod_name), "one record carries both");
    }
}

#[test]
fn children_of_an_array_are_one_attempt_with_containers_of_their_own() {
    let child = |index: u32, turn, status| pod(&format!("p{index}-{turn}"), &format!("job-1:{index}"), turn, 7, status);
    let parent = Job {
        children: Some(vec![(JobState::Running, 2), (JobState::Succeeded, 1)]),
        ..job("job-1", JobState::Pending)
    };
    let pods =
        [child(0, 1, runs()), child(7, 1, ends(1, "Error")), child(7, 2, ends(0, "Completed")), child(12, 1, waits())];
    let views = of(Some(parent), &pods);
    assert_eq!(views.len(), 1);
    let view = &views[0];
    assert_eq!((told(view).state, view.record().unwrap().pod().0.as_str()), (State::Running, ""));
    let names: Vec<_> = view.containers.iter().map(|container| (container.name.as_str(), container.restarts)).collect();
    // A child that is tried again shows as one that was restarted.
    assert_eq!(names, [("0/main", 0), ("7/main", 1), ("12/main", 0)]);
    let pods = super::super::runs(view, view.record().unwrap(), &[]).into_iter().filter_map(|run| match run.log {
        super::super::Log::Of(pod) => Some((run.container, run.restart, pod.pod_name.clone())),
        super::super::Log::Lost(..) => None,
    });
    let pods: Vec<_> = pods.filter(|(container, ..)| container == "7/main").collect();
    assert_eq!(pods, [("7/main".to_owned(), 0, "p7-1".to_owned()), ("7/main".to_owned(), 1, "p7-2".to_owned())]);
}

#[test]
fn a_start_deadline_counts_from_the_end_of_the_queue() {
    let views = of(Some(job("job-1", JobState::Runnable)), &[]);
    assert_eq!(views[0].queued_until, None);
    let views = of(Some(job("job-1", JobState::Starting)), &[]);
    assert_eq!(views[0].queued_until, Some(at(30)));
    let views = of(Some(job("job-1", JobState::Runnable)), &[pod("p", "job-1", 1, 7, waits())]);
    assert_eq!(views[0].queued_until, Some(at(5)));
}

#[test]
fn what_holds_it_back_is_told() {
    let codes = |views: &[View]| {
        let notices = notices(views.last().unwrap()).into_iter();
        notices.map(|keyed| (keyed.notice.code, keyed.notice.severity)).collect::<Vec<_>>()
    };
    let waiting = |reason: &str| Some(Job { reason: reason.to_owned(), ..job("job-1", JobState::Runnable) });
    assert_eq!(codes(&of(waiting(""), &[])), []);
    let short = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - no instances";
    assert_eq!(codes(&of(waiting(short), &[])), [("QUEUED", Severity::Info)]);
    let never = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - never fits";
    let views_of = of(waiting(never), &[]);
    assert_eq!(codes(&views_of), [("QUEUED", Severity::Warning)]);
    assert!(told(&views_of[0]).reason.contains("never fits"));
    let starting = |reason: &str| Some(Job { reason: reason.to_owned(), ..job("job-1", JobState::Starting) });
    assert_eq!(told(&of(starting("the pod was refused"), &[])[0]).reason, "AWS Batch says: the pod was refused");
    assert_eq!(told(&of(starting(""), &[])[0]).reason, "");
    let pull = json!({ "phase": "Pending", "containerStatuses": [{
        "name": "main", "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } },
        "restartCount": 0, "image": "", "imageID": "", "ready": false,
    }] });
    let views_of = of(waiting(never), &[pod("p", "job-1", 1, 7, pull)]);
    assert_eq!(codes(&views_of), [("IMAGE_PULL_FAILED", Severity::Warning)]);
    let cancelled = record(&PolicyRequest::default(), &[("cancel", intent())]);
    assert_eq!(codes(&views(cancelled, None, &[])), [("CANCEL_REQUESTED", Severity::Info)]);
    let doubted = json!({ "by": "b", "at": at(40), "try": 2 });
    let doubted = record(&PolicyRequest::default(), &[("submitting", doubted), ("job", json!(null))]);
    assert_eq!(codes(&views(doubted, None, &[])), [("SUBMIT_IN_DOUBT", Severity::Warning)]);
}

#[test]
fn a_record_that_is_gone_has_ended() {
    let gone = View { presence: Presence::Gone, ..of(Some(job("job-1", JobState::Running)), &[]).remove(0) };
    let outcome = told(&gone).outcome.unwrap();
    assert_eq!((outcome.state, outcome.class), (State::Failed, Some(FailureClass::PodDeleted)));
}

#[test]
fn last_words_are_those_of_every_pod_that_there_was() {
    let ended = |pods: &[&str], children| Job {
        attempts: pods.iter().map(|pod| attempt(pod, Some(1), "")).collect(),
        children,
        ..job("job-1", JobState::Failed)
    };
    let p = |status| pod("p", "job-1", 1, 7, status);
    let child = |index| pod(&format!("p{index}"), &format!("job-1:{index}"), 1, 7, ends(0, "Completed"));
    let two = || Some(vec![(JobState::Succeeded, 1), (JobState::Failed, 1)]);
    for (job, pods, expected) in [
        (ended(&["p"], None), vec![p(ends(1, "Error"))], true),
        (ended(&["p"], None), vec![p(runs())], false),
        (ended(&["p"], None), vec![p(waits())], false),
        (ended(&["p"], None), vec![], false),
        (ended(&["p", "q"], None), vec![p(ends(1, "Error"))], false),
        (ended(&[""], None), vec![], true),
        (ended(&[], None), vec![], true),
        (ended(&[], two()), vec![child(0)], false),
        (ended(&[], two()), vec![child(0), child(1)], true),
    ] {
        let views = of(Some(job.clone()), &pods);
        assert_eq!(have_said_all(views.last().unwrap().record().unwrap()), expected, "{job:?} {pods:?}");
    }
}
