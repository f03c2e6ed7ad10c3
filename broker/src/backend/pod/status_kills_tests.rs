//! Who asked for the end of a pod, and whether that is what ended it.

use serde_json::json;

use super::*;

#[test]
fn a_killed_program_that_exits_with_0_is_no_success() {
    let mut killed = pod(ended("Failed", 0, "Completed", LATER));
    killed["status"]["reason"] = json!("DeadlineExceeded");
    let killed = cancelled(killed, "CANCELLED_BY_CALLER", BEFORE);
    let status = told(&killed);
    let outcome = status.outcome.unwrap();
    assert_eq!((status.state, outcome.class), (State::Cancelled, Some(FailureClass::CancelledByCaller)));
    assert_eq!(outcome.message, "cancelled by ann: enough");

    let mut deleted = pod(ended("Succeeded", 0, "Completed", LATER));
    deleted["metadata"]["deletionTimestamp"] = json!("2026-11-21T08:01:30Z");
    deleted["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    assert_eq!(class_of(&deleted).1, Some(FailureClass::PodDeleted));
}

#[test]
fn an_end_before_the_kill_keeps_its_own_outcome() {
    let late = cancelled(pod(ended("Failed", 3, "Error", BEFORE)), "CANCELLED_BY_CALLER", LATER);
    assert_eq!(class_of(&late), (State::Failed, Some(FailureClass::Application), Some(3)));
    let mut deleted = pod(ended("Succeeded", 0, "Completed", BEFORE));
    deleted["metadata"]["deletionTimestamp"] = json!("2026-11-21T09:00:30Z");
    deleted["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    assert_eq!(class_of(&deleted), (State::Succeeded, None, Some(0)));
}

#[test]
fn the_kubelets_own_delete_does_not_hide_whether_the_first_one_ended_the_pod() {
    // (generation, observed by the kubelet, time of its delete) -> class, for a program that exits with 0.
    let cases = [
        (Some(2), Some(2), LATER, Some(FailureClass::PodDeleted)),
        (Some(2), Some(1), BEFORE, None),
        (None, None, "2026-11-21T08:01:02Z", Some(FailureClass::PodDeleted)),
        (None, None, LATER, None),
    ];
    for (generation, observed, at, class) in cases {
        let mut deleted = pod(ended("Succeeded", 0, "Completed", BEFORE));
        deleted["metadata"]["deletionTimestamp"] = json!(at);
        deleted["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        deleted["metadata"]["generation"] = json!(generation);
        deleted["status"]["observedGeneration"] = json!(observed);
        assert_eq!(class_of(&deleted).1, class, "{generation:?} {observed:?} {at}");
    }
}

#[test]
fn in_the_second_of_an_eviction_the_kubelets_last_word_is_waited_for() {
    let evicted = |phase: &str, grace: i64, observed: i64| {
        let mut pod = pod(ended(phase, 0, "Completed", BEFORE));
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T08:01:05Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        pod["metadata"]["generation"] = json!(2);
        pod["status"]["observedGeneration"] = json!(observed);
        pod["status"]["conditions"] = json!([{ "type": "DisruptionTarget", "status": "True",
            "reason": "EvictionByEvictionAPI", "lastTransitionTime": BEFORE }]);
        pod
    };
    for phase in ["Running", "Succeeded"] {
        assert_eq!(told(&evicted(phase, 5, 1)).outcome, None);
    }
    assert_eq!(class_of(&evicted("Succeeded", 0, 2)), (State::Failed, Some(FailureClass::Evicted), Some(0)));
    assert_eq!(class_of(&evicted("Succeeded", 0, 1)), (State::Succeeded, None, Some(0)));
    // The same without a condition: somebody deleted the pod.
    let mut deleted = evicted("Running", 5, 1);
    deleted["status"]["conditions"] = json!([]);
    assert_eq!(told(&deleted).outcome, None);
    // The kubelet made it Failed, so it had a hand in that.
    let mut short = evicted("Failed", 0, 2);
    short["metadata"]["deletionTimestamp"] = json!(null);
    assert_eq!(class_of(&short).1, Some(FailureClass::Evicted));
}

#[test]
fn in_the_second_of_a_cancel_only_the_kubelets_word_makes_a_success() {
    let mut killed = pod(ended("Failed", 0, "Completed", BEFORE));
    killed["status"]["reason"] = json!("DeadlineExceeded");
    assert_eq!(class_of(&cancelled(killed, "CANCELLED_BY_CALLER", BEFORE)).0, State::Cancelled);
    let by_itself = pod(ended("Succeeded", 0, "Completed", LATER));
    assert_eq!(class_of(&cancelled(by_itself, "CANCELLED_BY_CALLER", BEFORE)).0, State::Succeeded);
}

#[test]
fn the_run_deadline_is_a_deadline_unless_it_had_ended_before() {
    let mut late = pod(ended("Failed", 143, "Error", LATER));
    late["status"]["reason"] = json!("DeadlineExceeded");
    late["spec"]["activeDeadlineSeconds"] = json!(60);
    assert_eq!(class_of(&late).1, Some(FailureClass::Deadline));
    let mut early = pod(ended("Failed", 0, "Completed", "2026-11-21T08:00:30Z"));
    early["status"]["reason"] = json!("DeadlineExceeded");
    early["spec"]["activeDeadlineSeconds"] = json!(60);
    assert_eq!(class_of(&early), (State::Succeeded, None, Some(0)));
}

#[test]
fn an_end_at_the_deadline_waits_for_the_kubelets_word() {
    let mut caught = pod(ended("Running", 0, "Completed", "2026-11-21T08:01:01Z"));
    caught["spec"]["activeDeadlineSeconds"] = json!(60);
    assert_eq!(told(&caught).outcome, None);
    caught["status"]["phase"] = json!("Failed");
    caught["status"]["reason"] = json!("DeadlineExceeded");
    assert_eq!(class_of(&caught).1, Some(FailureClass::Deadline));
    let cancelled = cancelled(pod(ended("Running", 0, "Completed", BEFORE)), "CANCELLED_BY_CALLER", BEFORE);
    assert_eq!(told(&cancelled).outcome, None);
}

#[test]
fn a_pod_deleted_before_it_had_a_node_is_over_at_once() {
    let mut unplaced = pod(json!({ "phase": "Pending" }));
    unplaced["spec"]["nodeName"] = json!(null);
    unplaced["metadata"]["deletionTimestamp"] = json!(BEFORE);
    assert_eq!(class_of(&unplaced), (State::Failed, Some(FailureClass::PodDeleted), None));
    let cancelled = cancelled(unplaced, "CANCELLED_BY_CALLER", BEFORE);
    assert_eq!(class_of(&cancelled).0, State::Cancelled);
}

#[test]
fn a_start_deadline_keeps_its_class() {
    for class in ["START_DEADLINE", "IMAGE_PULL", "UNSCHEDULABLE"] {
        let late = cancelled(pod(json!({ "phase": "Failed", "reason": "DeadlineExceeded" })), class, BEFORE);
        let outcome = told(&late).outcome.unwrap();
        assert_eq!(json!(outcome.class.unwrap()), json!(class));
        assert_eq!(outcome.state, State::Failed);
        assert!(!outcome.message.is_empty());
    }
}
