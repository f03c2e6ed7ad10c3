use serde_json::{Value, json};

use super::super::play::{at, attempt, ends, intent, job, pod, record, runs, views};
use super::*;
use crate::execution::PolicyRequest;

fn judged(extra: &[(&str, Value)], job: Job, pods: &[Value]) -> Written {
    let views = views(record(&PolicyRequest::default(), extra), Some(job), pods);
    judge(&views.iter().collect::<Vec<_>>(), at(40)).expect("the job has ended")
}

fn of(job: Job, pods: &[Value]) -> Outcome {
    judged(&[], job, pods).outcome
}

fn failed(reason: &str, attempts: Vec<JobAttempt>) -> Job {
    Job { reason: reason.to_owned(), attempts, ..job("job-1", JobState::Failed) }
}

fn p(status: Value) -> Value {
    pod("p", "job-1", 1, 7, status)
}

#[test]
fn a_job_that_has_not_ended_is_not_judged() {
    let views = views(record(&PolicyRequest::default(), &[]), Some(job("job-1", JobState::Running)), &[p(ends(0, ""))]);
    assert_eq!(judge(&views.iter().collect::<Vec<_>>(), at(40)), None);
}

#[test]
fn success_is_the_jobs_to_say() {
    let done = |attempts| Job { attempts, stopped: Some(at(21)), ..job("job-1", JobState::Succeeded) };
    let written = judged(&[], done(vec![attempt("p", Some(0), "")]), &[p(ends(0, "Completed"))]);
    assert_eq!(
        (written.outcome.state, written.outcome.class, written.outcome.exit_code),
        (State::Succeeded, None, Some(0))
    );
    assert_eq!((written.started, written.ended), (Some(at(10)), Some(at(21))));
    assert_eq!(written.pod, PodName { name: "p".to_owned(), uid: "p".to_owned(), node: "node1".to_owned() });
    assert_eq!(written.outcome.containers[0].message, "bye");
    // Nobody saw its pod.
    let unseen = judged(&[], done(vec![attempt("p", Some(0), "")]), &[]);
    assert_eq!((unseen.outcome.exit_code, unseen.pod.name.as_str()), (Some(0), "p"));
}

type Case = (&'static str, Job, Vec<Value>, FailureClass, Option<i32>);

#[test]
fn the_table_of_failures() {
    use FailureClass::{Application, Deadline, Evicted, ImagePull, NodeLost, OutOfMemory, PodDeleted, SpotInterrupted};
    let exited = "Essential container in task exited";
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" });
    let lost = json!({ "phase": "Failed", "conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "lastTransitionTime": at(15),
    }] });
    let mut deleted = p(ends(137, "Error"));
    deleted["metadata"]["deletionTimestamp"] = json!(at(15));
    deleted["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    let mut deleted_after = p(ends(137, "Error"));
    deleted_after["metadata"]["deletionTimestamp"] = json!(at(20));
    deleted_after["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    let one = |code| vec![attempt("p", Some(code), exited)];
    let memory = JobAttempt {
        containers: vec![JobContainerOf::main(Some(137), "OOMKilled")],
        ..attempt("p", Some(137), exited)
    };
    let cases: Vec<Case> = vec![
        ("exit code", failed(exited, one(3)), vec![p(ends(3, "Error"))], Application, Some(3)),
        ("exit code by the job", failed(exited, one(3)), vec![], Application, Some(3)),
        ("exit code of a pod that was not heard", failed(exited, one(3)), vec![p(runs())], Application, Some(3)),
        ("memory", failed(exited, one(137)), vec![p(ends(137, "OOMKilled"))], OutOfMemory, Some(137)),
        ("memory by the job", failed(exited, vec![memory]), vec![], OutOfMemory, Some(137)),
        ("eviction", failed(exited, vec![]), vec![p(evicted)], Evicted, None),
        ("node", failed(exited, vec![]), vec![p(lost)], NodeLost, None),
        (
            "spot",
            failed("Host EC2 (instance i-0123) terminated.", one(143)),
            vec![p(ends(143, "Error"))],
            SpotInterrupted,
            Some(143),
        ),
        (
            "time",
            Job { is_terminated: true, ..failed("Job attempt duration exceeded timeout", one(137)) },
            vec![p(ends(137, "Error"))],
            Deadline,
            Some(137),
        ),
        (
            "somebody else",
            Job { is_terminated: true, ..failed("Terminated by the console", one(143)) },
            vec![p(ends(143, "Error"))],
            PodDeleted,
            Some(143),
        ),
        ("deleted", failed(exited, one(137)), vec![deleted], PodDeleted, Some(137)),
        ("deleted after its end", failed(exited, one(137)), vec![deleted_after], Application, Some(137)),
        ("image", failed("ImagePullBackOff: no such image", vec![]), vec![], ImagePull, None),
        ("dependency", failed("Dependent Job failed", vec![]), vec![], Application, None),
        ("nothing", failed("", vec![]), vec![], Application, None),
    ];
    for (name, job, pods, class, exit_code) in cases {
        let outcome = of(job, &pods);
        assert_eq!(
            (outcome.class, outcome.exit_code, outcome.state),
            (Some(class), exit_code, State::Failed),
            "{name}"
        );
        assert!(!outcome.message.is_empty(), "{name}");
    }
}

/// A container as the job has it.
struct JobContainerOf;

impl JobContainerOf {
    fn main(exit_code: Option<i32>, reason: &str) -> crate::backend::job::JobContainer {
        crate::backend::job::JobContainer { name: "main".to_owned(), exit_code, reason: reason.to_owned() }
    }
}

#[test]
fn an_intent_counts_if_the_job_was_ended_by_it() {
    let end =
        |is_terminated| Job { is_terminated, ..failed("cancelled by ann: enough", vec![attempt("p", Some(143), "")]) };
    let pods = [p(ends(143, "Error"))];
    let outcome = judged(&[("cancel", intent())], end(true), &pods).outcome;
    assert_eq!((outcome.state, outcome.class), (State::Cancelled, Some(FailureClass::CancelledByCaller)));
    assert_eq!((outcome.message.as_str(), outcome.exit_code), ("cancelled by ann: enough", Some(143)));
    let outcome = judged(&[("cancel", intent())], end(false), &pods).outcome;
    assert_eq!(outcome.class, Some(FailureClass::Application), "it ended by itself");
    let mut late = intent();
    late["class"] = json!("START_DEADLINE");
    let outcome = judged(&[("cancel", late)], end(true), &[]).outcome;
    assert_eq!((outcome.state, outcome.class), (State::Failed, Some(FailureClass::StartDeadline)));
}

#[test]
fn of_a_job_that_nobody_knows_any_more_only_its_pods_know_how_it_ended() {
    let forgotten = || Job::forgotten("job-1", Some(job("job-1", JobState::Running)));
    let written = judged(&[], forgotten(), &[]);
    let outcome = &written.outcome;
    assert_eq!((outcome.state, outcome.class), (State::Failed, Some(FailureClass::PodDeleted)));
    assert!(outcome.message.starts_with("AWS Batch does not know this job any more"), "{}", outcome.message);
    assert!(written.is_forgotten);
    // Only the job can say that it succeeded.
    let done = of(forgotten(), &[p(ends(0, "Completed"))]);
    assert_eq!((done.class, done.exit_code), (Some(FailureClass::PodDeleted), Some(0)));
    let failed = of(forgotten(), &[p(ends(3, "Error"))]);
    assert_eq!((failed.class, failed.exit_code), (Some(FailureClass::Application), Some(3)));
    let array = Job { children: Some(vec![(JobState::Runnable, 5)]), ..job("job-1", JobState::Pending) };
    let array = of(Job::forgotten("job-1", Some(array)), &[]);
    assert!(array.message.starts_with("AWS Batch does not know"), "{}", array.message);
    // It may have run, so another attempt is not for free.
    let bare = record(&PolicyRequest::default(), &[("outcome-is", serde_json::to_value(&written).unwrap())]);
    assert!(views(bare, None, &[])[0].record().unwrap().may_have_run());
}

#[test]
fn a_job_that_nobody_knows_any_more_has_not_ended_while_a_pod_of_it_lives() {
    let of = |job, pods: &[Value]| {
        let views = views(record(&PolicyRequest::default(), &[]), Some(job), pods);
        judge(&views.iter().collect::<Vec<_>>(), at(40)).is_some()
    };
    let forgotten = || Job::forgotten("job-1", None);
    assert!(!of(forgotten(), &[p(runs())]));
    assert!(of(forgotten(), &[p(ends(0, "Completed"))]));
    assert!(of(job("job-1", JobState::Failed), &[p(runs())]));
}

#[test]
fn attempts_before_the_last_keep_how_they_ended() {
    let twice =
        failed("", vec![attempt("p", Some(143), "Host EC2 (instance i-1) terminated."), attempt("q", Some(1), "")]);
    let written = judged(&[], twice, &[p(ends(143, "Error")), pod("q", "job-1", 2, 8, ends(1, "Error"))]);
    assert_eq!((written.outcome.class, written.pod.name.as_str()), (Some(FailureClass::Application), "q"));
    let [earlier] = &written.earlier[..] else { panic!("{:?}", written.earlier) };
    assert_eq!((earlier.outcome.class, earlier.pod.name.as_str()), (Some(FailureClass::SpotInterrupted), "p"));
    // It reads the same when nothing but the record is left.
    let bare = record(&PolicyRequest::default(), &[("outcome-is", serde_json::to_value(&written).unwrap())]);
    let alone = views(bare, None, &[]);
    let outcomes: Vec<_> = alone.iter().map(|view| status::status(view).outcome.unwrap()).collect();
    assert_eq!(outcomes, [earlier.outcome.clone(), written.outcome]);
    assert_eq!(alone.iter().map(|view| view.record().unwrap().pod().0).collect::<Vec<_>>(), ["p", "q"]);
}

#[test]
fn why_an_attempt_before_the_last_ended_is_not_known_before_the_job_was_described() {
    let spot = || attempt("p", Some(143), "Host EC2 (instance i-1) terminated.");
    let first = |status| vec![p(status), pod("q", "job-1", 2, 8, runs())];
    let known = |attempts| Some(Job { attempts, ..job("job-1", JobState::Running) });
    let silent = || JobAttempt { stopped: None, ..attempt("p", None, "") };
    for (job, pods, is_open, class) in [
        (None, first(ends(143, "Error")), true, FailureClass::Application),
        (known(vec![]), first(ends(143, "Error")), true, FailureClass::Application),
        (known(vec![silent()]), first(runs()), true, FailureClass::Application),
        (known(vec![spot()]), first(ends(143, "Error")), false, FailureClass::SpotInterrupted),
        (known(vec![silent(), attempt("q", None, "")]), first(ends(1, "Error")), false, FailureClass::Application),
        (Some(failed("", vec![])), first(ends(1, "Error")), false, FailureClass::Application),
        // Its pod knows it.
        (None, first(ends(137, "OOMKilled")), false, FailureClass::OutOfMemory),
    ] {
        let views = views(record(&PolicyRequest::default(), &[]), job.clone(), &pods);
        let told = views.iter().map(|view| is_untold(view.record().unwrap())).collect::<Vec<_>>();
        assert_eq!(told, [is_open, false], "{job:?}");
        assert_eq!(status::status(&views[0]).outcome.unwrap().class, Some(class), "{job:?}");
    }
}

#[test]
fn of_an_array_the_failed_children_are_named_and_what_is_written_has_an_end() {
    let child = |index: u32| {
        let status = if index % 100 == 99 { ends(3, "Error") } else { ends(0, "Completed") };
        pod(&format!("p{index}"), &format!("job-1:{index}"), 1, 7, status)
    };
    let parent = Job {
        children: Some(vec![(JobState::Succeeded, 297), (JobState::Failed, 3)]),
        ..failed("Array Child Job failed", vec![])
    };
    let written = judged(&[], parent, &(0..300).map(child).collect::<Vec<_>>());
    assert_eq!(written.outcome.containers.len(), MOST_CONTAINERS);
    let failed: Vec<_> =
        written.outcome.containers.iter().take(4).map(|it| (it.container.as_str(), it.exit_code)).collect();
    assert_eq!(failed, [("99/main", Some(3)), ("199/main", Some(3)), ("299/main", Some(3)), ("0/main", Some(0))]);
    assert!(
        written.outcome.message.starts_with("3 of 300 children failed: container 99/main"),
        "{}",
        written.outcome.message
    );
    assert_eq!((written.outcome.exit_code, written.pod), (Some(3), PodName::default()));
}

#[test]
fn long_words_are_cut_between_two_letters() {
    let outcome = of(failed(&"ü".repeat(10_000), vec![]), &[]);
    assert!(outcome.message.len() <= LONGEST_MESSAGE && outcome.reason.len() <= LONGEST_MESSAGE);
    assert!(outcome.reason.chars().all(|letter| letter == 'ü'));
}
