use serde_json::{Value, json};

use super::super::carrier::Carrier;
use super::*;

#[path = "status_kills_tests.rs"]
mod kills;

/// A pod with one container `base` on a node, as the API server would show it.
#[expect(clippy::needless_pass_by_value, reason = "literals read better without a reference")]
pub(in crate::backend::pod) fn pod(status: Value) -> Value {
    json!({
        "metadata": {
            "name": "x-1", "namespace": "n", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-11-21T08:00:00Z",
            "labels": { "podbroker.io/tenant": "default", "podbroker.io/attempt": "1" },
            "annotations": {
                "podbroker.io/execution-id": "x",
                "podbroker.io/submit-before": "2026-11-21T08:10:00Z",
                "podbroker.io/labels": "{}",
                "podbroker.io/policies": serde_json::to_string(
                    &crate::execution::PolicyRequest::default().resolve(&crate::execution::PolicyDefaults::default()).unwrap()
                ).unwrap(),
            },
        },
        "spec": { "nodeName": "node1", "restartPolicy": "Never", "containers": [{ "name": "base" }] },
        "status": status,
    })
}

pub(in crate::backend::pod) fn view_of(pod: &Value) -> View {
    let pod: Carrier = serde_json::from_value(pod.clone()).unwrap();
    View::of(&pod).unwrap()
}

fn told(pod: &Value) -> Status {
    status(&view_of(pod))
}

fn ended(phase: &str, code: i32, reason: &str, at: &str) -> Value {
    let state = json!({ "terminated": {
        "exitCode": code, "reason": reason, "startedAt": "2026-11-21T08:00:05Z", "finishedAt": at,
    } });
    json!({ "phase": phase, "startTime": "2026-11-21T08:00:01Z", "containerStatuses": [{
        "name": "base", "state": state, "restartCount": 0, "image": "", "imageID": "", "ready": false,
    }] })
}

fn annotate(mut pod: Value, key: &str, value: &Value) -> Value {
    pod["metadata"]["annotations"][key] = match value {
        Value::String(text) => json!(text),
        other => json!(other.to_string()),
    };
    pod
}

fn cancelled(pod: Value, class: &str, at: &str) -> Value {
    annotate(pod, "podbroker.io/cancel", &json!({ "by": "ann", "reason": "enough", "class": class, "at": at }))
}

fn class_of(pod: &Value) -> (State, Option<FailureClass>, Option<i32>) {
    let status = told(pod);
    let outcome = status.outcome.expect("it has ended");
    (status.state, outcome.class, outcome.exit_code)
}

const BEFORE: &str = "2026-11-21T08:01:00Z";
const LATER: &str = "2026-11-21T08:01:30Z";

#[test]
fn a_new_pod_is_pending_and_says_why() {
    let mut new = pod(json!({ "phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available",
    }] }));
    new["spec"]["nodeName"] = json!(null);
    let status = told(&new);
    assert_eq!((status.state, status.outcome), (State::Pending, None));
    assert!(status.reason.contains("0/1 nodes are available"));
}

#[test]
fn an_image_that_cannot_be_had_is_named() {
    let waiting = json!({ "phase": "Pending", "containerStatuses": [{
        "name": "base", "state": { "waiting": { "reason": "ImagePullBackOff",
            "message": "Back-off pulling image: ErrImagePull: no such image" } },
        "restartCount": 0, "image": "", "imageID": "", "ready": false,
    }] });
    let status = told(&pod(waiting.clone()));
    assert_eq!(status.state, State::Pending);
    assert!(status.reason.contains("image of container base cannot be had: no such image"), "{}", status.reason);
    let view = View::of(&serde_json::from_value(pod(waiting)).unwrap()).unwrap();
    assert_eq!(start_deadline_class(&view), FailureClass::ImagePull);
}

#[test]
fn exit_codes_decide() {
    assert_eq!(class_of(&pod(ended("Succeeded", 0, "Completed", BEFORE))), (State::Succeeded, None, Some(0)));
    assert_eq!(
        class_of(&pod(ended("Failed", 3, "Error", BEFORE))),
        (State::Failed, Some(FailureClass::Application), Some(3))
    );
    assert_eq!(
        class_of(&pod(ended("Failed", 137, "OOMKilled", BEFORE))),
        (State::Failed, Some(FailureClass::OutOfMemory), Some(137))
    );
}

#[test]
fn the_outcome_is_told_while_another_container_still_runs() {
    let mut ending = pod(ended("Running", 4, "Error", BEFORE));
    ending["spec"]["initContainers"] = json!([{ "name": "proxy", "restartPolicy": "Always" }]);
    ending["status"]["initContainerStatuses"] = json!([{
        "name": "proxy", "state": { "running": { "startedAt": BEFORE } },
        "restartCount": 0, "image": "", "imageID": "", "ready": true,
    }]);
    let status = told(&ending);
    assert_eq!(status.state, State::Ending);
    assert_eq!(status.outcome.unwrap().exit_code, Some(4));
}

#[test]
fn it_is_over_when_the_last_container_has_ended_also_before_the_pods_phase_says_so() {
    assert_eq!(told(&pod(ended("Running", 4, "Error", BEFORE))).state, State::Failed);
}

#[test]
fn what_was_decided_does_not_change_when_the_rest_is_ended() {
    let before = told(&pod(ended("Running", 4, "Error", BEFORE))).outcome.unwrap();
    let mut after = pod(ended("Failed", 4, "Error", BEFORE));
    after["status"]["reason"] = json!("DeadlineExceeded");
    after["status"]["message"] = json!("Pod was active on the node longer than the specified deadline");
    let after = annotate(after, "podbroker.io/decided-at", &json!(LATER));
    assert_eq!(told(&after).outcome.unwrap(), before);
}

#[test]
fn the_end_of_a_container_that_never_ran_has_no_exit_code() {
    let mut never = pod(json!({ "phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": [{
        "name": "base", "restartCount": 0, "image": "", "imageID": "", "ready": false,
        "state": { "terminated": { "exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": null } },
    }] }));
    never = cancelled(never, "IMAGE_PULL", BEFORE);
    assert_eq!(class_of(&never), (State::Failed, Some(FailureClass::ImagePull), None));
}

#[test]
fn an_image_name_that_can_be_none_is_hopeless() {
    let waiting = |reason: &str| {
        let pod = pod(json!({ "phase": "Pending", "containerStatuses": [{
            "name": "base", "state": { "waiting": { "reason": reason, "message": "no" } },
            "restartCount": 0, "image": "", "imageID": "", "ready": false,
        }] }));
        View::of(&serde_json::from_value(pod).unwrap()).unwrap()
    };
    assert!(is_hopeless(&waiting("InvalidImageName")));
    assert!(!is_hopeless(&waiting("ErrImagePull")));
}

#[test]
fn a_container_that_will_start_again_has_not_ended() {
    let mut restarting = pod(ended("Running", 1, "Error", BEFORE));
    restarting["spec"]["restartPolicy"] = json!("OnFailure");
    assert_eq!(told(&restarting).outcome, None);
    let mut done = pod(ended("Running", 0, "Completed", BEFORE));
    done["spec"]["restartPolicy"] = json!("OnFailure");
    assert_eq!(told(&done).outcome.unwrap().state, State::Succeeded);
}

#[test]
fn a_container_that_does_not_decide_neither_delays_nor_changes_the_outcome() {
    let mut two = pod(ended("Running", 0, "Completed", BEFORE));
    two["spec"]["containers"] = json!([{ "name": "base" }, { "name": "proxy" }]);
    let policies = crate::execution::PolicyRequest {
        deciding_containers: vec!["base".to_owned()],
        ..crate::execution::PolicyRequest::default()
    };
    let policies = policies.resolve(&crate::execution::PolicyDefaults::default()).unwrap();
    two = annotate(two, "podbroker.io/policies", &json!(serde_json::to_string(&policies).unwrap()));
    assert_eq!(class_of(&two), (State::Ending, None, Some(0)));
    // The broker ended the proxy afterwards, which made the pod fail.
    two["status"]["phase"] = json!("Failed");
    two["status"]["reason"] = json!("DeadlineExceeded");
    two = annotate(two, "podbroker.io/decided-at", &json!(LATER));
    assert_eq!(class_of(&two), (State::Succeeded, None, Some(0)));
}

/// Pods as the kubelet and the controllers of Kubernetes 1.34 leave them: status.reason, status.message, then reason and message
/// of the `DisruptionTarget` condition.
const DISRUPTED: [(&str, &str, &str, &str, FailureClass); 11] = [
    (
        "",
        "",
        "PreemptionByScheduler",
        "default-scheduler: preempting to accommodate a higher priority pod",
        FailureClass::Preempted,
    ),
    ("", "", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", FailureClass::NodeLost),
    ("", "", "DeletionByPodGC", "PodGC: node no longer exists", FailureClass::NodeLost),
    ("", "", "EvictionByEvictionAPI", "Eviction API: evicting", FailureClass::Evicted),
    (
        "Evicted",
        "The node was low on resource: memory.",
        "TerminationByKubelet",
        "The node was low on resource: memory.",
        FailureClass::Evicted,
    ),
    (
        "Evicted",
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi.",
        "",
        "",
        FailureClass::Evicted,
    ),
    (
        "Preempting",
        "Preempted in order to admit critical pod",
        "TerminationByKubelet",
        "Pod was preempted by Kubelet to accommodate a critical pod.",
        FailureClass::Preempted,
    ),
    (
        "",
        "",
        "TerminationByKubelet",
        "Pod was preempted by Kubelet to accommodate a critical pod.",
        FailureClass::Preempted,
    ),
    (
        "Terminated",
        "Pod was terminated in response to imminent node shutdown.",
        "TerminationByKubelet",
        "Pod was terminated in response to imminent node shutdown.",
        FailureClass::NodeLost,
    ),
    (
        "NodeShutdown",
        "Pod was rejected: Pod was rejected as the node is shutting down.",
        "",
        "",
        FailureClass::NodeLost,
    ),
    ("", "", "SomethingNew", "of a later Kubernetes", FailureClass::Evicted),
];

fn disrupted(row: (&str, &str, &str, &str)) -> Value {
    let (reason, message, condition, words) = row;
    let mut pod = pod(ended("Failed", 137, "Error", LATER));
    pod["status"]["reason"] = json!(reason);
    pod["status"]["message"] = json!(message);
    if !condition.is_empty() {
        pod["status"]["conditions"] = json!([{
            "type": "DisruptionTarget", "status": "True", "reason": condition, "message": words, "lastTransitionTime": BEFORE,
        }]);
    }
    pod
}

#[test]
fn disruptions_have_their_classes() {
    for (reason, message, condition, words, class) in DISRUPTED {
        let pod = disrupted((reason, message, condition, words));
        assert_eq!(class_of(&pod).1, Some(class), "{reason} {condition} {words}");
        assert!(!told(&pod).outcome.unwrap().message.is_empty());
    }
}

#[test]
fn a_node_that_goes_away_under_a_pod_that_demands_spot_nodes_was_reclaimed() {
    let affinity = |operator: &str, values: &[&str]| {
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "karpenter.sh/capacity-type", "operator": operator, "values": values }] },
        ] } } } })
    };
    let demands = [
        (json!({ "nodeSelector": { "eks.amazonaws.com/capacityType": "SPOT" } }), true),
        (json!({ "nodeSelector": { "eks.amazonaws.com/capacityType": "ON_DEMAND" } }), false),
        (affinity("In", &["spot"]), true),
        (affinity("In", &["spot", "on-demand"]), false),
        (affinity("NotIn", &["spot"]), false),
        (json!({ "tolerations": [{ "key": "cloud.google.com/gke-spot", "operator": "Exists" }] }), false),
    ];
    for (demand, is_spot) in demands {
        for (reason, message, condition, words, class) in DISRUPTED {
            let mut pod = disrupted((reason, message, condition, words));
            let spec = pod["spec"].as_object_mut().unwrap();
            spec.extend(demand.as_object().unwrap().clone());
            // A taint can be anybody's; what was shut down or is gone was taken.
            let is_taken = class == FailureClass::NodeLost && condition != "DeletionByTaintManager";
            let expected = if is_spot && is_taken { FailureClass::SpotInterrupted } else { class };
            assert_eq!(class_of(&pod).1, Some(expected), "{demand} {reason} {condition}");
        }
    }
}

#[test]
fn a_kill_for_memory_counts_also_when_the_program_survived_it() {
    let child = told(&pod(ended("Succeeded", 0, "OOMKilled", BEFORE)));
    let outcome = child.outcome.unwrap();
    assert_eq!(
        (child.state, outcome.class, outcome.exit_code),
        (State::Failed, Some(FailureClass::OutOfMemory), Some(0))
    );
    assert_eq!(outcome.reason, "OOMKilled");
    assert!(outcome.message.contains("exit code 0, but a process in it was killed"), "{}", outcome.message);
    // Anybody can send a KILL; only the runtime knows that it was for memory.
    assert_eq!(class_of(&pod(ended("Failed", 137, "Error", BEFORE))).1, Some(FailureClass::Application));
    assert_eq!(class_of(&pod(ended("Failed", 1, "OOMKilled", BEFORE))).1, Some(FailureClass::OutOfMemory));
}

#[test]
fn what_the_kubelet_refuses_was_not_placed() {
    let refusals = [
        (
            "OutOfcpu",
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 4000, used: 0, capacity: 2000",
        ),
        ("NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed"),
        ("UnexpectedAdmissionError", "Pod was rejected: Allocate failed due to no healthy devices present"),
        ("TaintToleration", "Pod was rejected: Predicate TaintToleration failed"),
    ];
    for (reason, message) in refusals {
        let refused = pod(json!({ "phase": "Failed", "reason": reason, "message": message }));
        assert_eq!(class_of(&refused).1, Some(FailureClass::Unschedulable), "{reason}");
    }
}

#[test]
fn a_pod_on_a_lost_node_has_not_ended_before_it_is_said_to_have() {
    let mut lost = pod(json!({ "phase": "Running", "conditions": [
        { "type": "Ready", "status": "False" }, { "type": "ContainersReady", "status": "True" },
        { "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "lastTransitionTime": LATER },
    ], "containerStatuses": [{
        "name": "base", "state": { "running": { "startedAt": BEFORE } },
        "restartCount": 0, "image": "", "imageID": "", "ready": true,
    }] }));
    lost["metadata"]["deletionTimestamp"] = json!(LATER);
    let status = told(&lost);
    assert_eq!((status.state, status.outcome), (State::Running, None));
    assert!(status.reason.contains("node1 does not answer"), "{}", status.reason);
    lost["status"]["phase"] = json!("Failed");
    assert_eq!(class_of(&lost).1, Some(FailureClass::NodeLost));
}

#[test]
fn a_gated_pod_is_queued() {
    let mut gated = pod(json!({ "phase": "Pending" }));
    gated["spec"]["nodeName"] = json!(null);
    gated["spec"]["schedulingGates"] = json!([{ "name": "kueue.x-k8s.io/admission" }]);
    assert_eq!(told(&gated).state, State::Queued);
}

#[test]
fn a_failed_init_container_is_to_blame() {
    let mut failed = pod(json!({ "phase": "Failed", "initContainerStatuses": [{
        "name": "setup", "restartCount": 0, "image": "", "imageID": "", "ready": false,
        "state": { "terminated": { "exitCode": 2, "reason": "Error", "message": "no disk",
            "startedAt": "2026-11-21T08:00:05Z", "finishedAt": BEFORE } },
    }] }));
    failed["spec"]["initContainers"] = json!([{ "name": "setup" }]);
    let outcome = told(&failed).outcome.unwrap();
    assert_eq!((outcome.class, outcome.exit_code), (Some(FailureClass::Application), None));
    assert_eq!(outcome.message, "container setup failed with exit code 2: no disk");
}

#[test]
fn what_is_gone_before_it_ended_was_deleted_and_what_had_ended_stays_as_it_was() {
    let gone = |pod: Value| {
        let view = view_of(&pod);
        status(&View { presence: Presence::Gone, ..view }).outcome.unwrap()
    };
    assert_eq!(gone(pod(json!({ "phase": "Running" }))).class, Some(FailureClass::PodDeleted));
    assert_eq!(gone(pod(ended("Succeeded", 0, "Completed", BEFORE))).state, State::Succeeded);
}

#[test]
fn damaged_marks_make_no_view() {
    let whole = pod(json!({ "phase": "Running" }));
    for key in ["execution-id", "submit-before", "labels", "policies"] {
        let mut damaged = whole.clone();
        damaged["metadata"]["annotations"][format!("podbroker.io/{key}")] = json!("{");
        let pod: Carrier = serde_json::from_value(damaged).unwrap();
        assert!(View::of(&pod).is_err(), "{key}");
    }
}
