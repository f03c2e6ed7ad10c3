use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use super::super::events::{self, PodEvent};
use super::super::status::tests::{pod, view_of};
use super::*;

fn event(reason: &str, path: &str, message: &str, at: &str) -> PodEvent {
    let event = json!({
        "metadata": { "name": "e", "namespace": "n" },
        "involvedObject": { "kind": "Pod", "name": "x-1", "uid": "u", "fieldPath": path },
        "reason": reason, "message": message, "lastTimestamp": at,
    });
    let event: Event = serde_json::from_value(event).unwrap();
    PodEvent::of(&event).unwrap()
}

fn with_events(status: Value, events: Vec<PodEvent>) -> View {
    let mut view = view_of(&pod(status));
    for event in events {
        events::keep(&mut view.events, event);
    }
    view
}

fn codes(view: &View) -> Vec<&'static str> {
    notices(view).into_iter().map(|keyed| keyed.notice.code).collect()
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({ "phase": "Pending", "containerStatuses": [{
        "name": "base", "state": { "waiting": { "reason": reason, "message": message } },
        "restartCount": 0, "image": "", "imageID": "", "ready": false,
    }] })
}

const FIRST: &str = "2026-11-21T08:00:02Z";
const LATER: &str = "2026-11-21T08:02:05Z";
const MOUNT: &str = "MountVolume.SetUp failed for volume \"keys\" : secret \"keys\" not found";

#[test]
fn a_volume_that_cannot_be_mounted_is_named_once() {
    let missing = |at| event("FailedMount", "", MOUNT, at);
    let view = with_events(waiting("ContainerCreating", ""), vec![missing(FIRST)]);
    assert_eq!(codes(&view), ["VOLUME_NOT_READY"]);
    assert_eq!(why(&view), format!("a volume is not ready: {MOUNT}"));
    // The kubelet repeats it, and sums up every two minutes.
    let sum = "Unable to attach or mount volumes: unmounted volumes=[keys], unattached volumes=[], failed to process \
               volumes=[]: timed out waiting for the condition";
    let later = with_events(
        waiting("ContainerCreating", ""),
        vec![missing(FIRST), event("FailedMount", "", sum, LATER), missing(LATER)],
    );
    assert_eq!(notices(&later), notices(&view));
}

#[test]
fn a_cause_stands_above_what_only_takes_long() {
    let vague = "MountVolume.SetUp failed for volume \"kube-api-access-xb225\" : failed to sync configmap cache: timed out \
                 waiting for the condition";
    let (cause, slow) = (event("FailedMount", "", MOUNT, FIRST), event("FailedMount", "", vague, LATER));
    let said = |events: Vec<PodEvent>| why(&with_events(waiting("ContainerCreating", ""), events));
    assert_eq!(said(vec![slow.clone()]), format!("a volume is not ready: {vague}"));
    for order in [vec![slow.clone(), cause.clone()], vec![cause.clone(), slow.clone()], vec![slow.clone(), cause, slow]]
    {
        assert_eq!(said(order), format!("a volume is not ready: {MOUNT}"));
    }
}

#[test]
fn what_was_overcome_is_not_told() {
    let events = || {
        vec![
            event("Pulling", "spec.containers{base}", "Pulling image \"big:1\"", LATER),
            event("FailedMount", "", MOUNT, FIRST),
        ]
    };
    let view = with_events(waiting("ContainerCreating", ""), events());
    assert_eq!(codes(&view), ["PULLING_IMAGE"]);
    assert_eq!(why(&view), "container base: pulling image \"big:1\"");
    let failed = with_events(waiting("ErrImagePull", "no such image"), events());
    assert_eq!(codes(&failed), ["IMAGE_PULL_FAILED"]);
    let running = json!({ "phase": "Running", "containerStatuses": [{
        "name": "base", "state": { "running": { "startedAt": LATER } },
        "restartCount": 0, "image": "", "imageID": "", "ready": true,
    }] });
    assert_eq!(codes(&with_events(running, events())), [""; 0]);
}

#[test]
fn ids_and_ports_make_no_new_notice_and_another_cause_does() {
    let key = |message: &str| {
        let event = event("FailedCreatePodSandBox", "", message, FIRST);
        notices(&with_events(waiting("ContainerCreating", ""), vec![event])).remove(0)
    };
    let failed = |id: &str| {
        format!("Failed to create pod sandbox: rpc error: failed to setup network for sandbox \"{id}\": full")
    };
    let (first, second) = (key(&failed("0f3c4d5e6a7b8c9d0e1f")), key(&failed("9a8b7c6d5e4f3a2b1c0d")));
    assert_eq!(first.notice.code, "SANDBOX_FAILED");
    assert_eq!(first.key, second.key);
    assert_ne!(first.key, key("Failed to create pod sandbox: no runtime").key);
    let pull = |port: u32| {
        let words = format!("dial tcp: lookup registry: read udp 10.0.0.2:{port}->10.0.0.10:53: i/o timeout");
        notices(&view_of(&pod(waiting("ErrImagePull", &words)))).remove(0).key
    };
    assert_eq!(pull(41234), pull(50001));
}

#[test]
fn a_gate_queues_and_kueue_is_named() {
    let gated = |gate: &str| {
        let mut gated = pod(json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
            "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates" }] }));
        gated["spec"]["schedulingGates"] = json!([{ "name": gate }]);
        gated["spec"]["nodeName"] = json!(null);
        view_of(&gated)
    };
    let view = gated("kueue.x-k8s.io/admission");
    assert_eq!(codes(&view), ["QUEUED"]);
    assert!(why(&view).starts_with("Kueue holds it"), "{}", why(&view));
    assert_eq!(why(&gated("example.com/hold")), "it is held back by the scheduling gate example.com/hold");
}

#[test]
fn a_start_deadline_does_not_count_the_time_in_a_queue() {
    let now: Timestamp = LATER.parse().unwrap();
    let mut gated = pod(json!({ "phase": "Pending" }));
    gated["spec"]["schedulingGates"] = json!([{ "name": "example.com/hold" }]);
    let (gated, mut free) = (view_of(&gated), view_of(&pod(json!({ "phase": "Pending" }))));
    assert_eq!(free.start_counts_from(), free.created);
    free.inherit(&gated, now);
    assert_eq!(free.start_counts_from(), Some(now));
    let mut later = view_of(&pod(json!({ "phase": "Pending" })));
    later.inherit(&free, Timestamp::MAX);
    assert_eq!(later.start_counts_from(), Some(now));
}

#[test]
fn a_pod_without_a_node_says_what_is_done_about_it() {
    let mut unplaced = pod(json!({ "phase": "Pending", "nominatedNodeName": "node7", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available" }] }));
    unplaced["spec"]["nodeName"] = json!(null);
    let mut view = view_of(&unplaced);
    assert_eq!(codes(&view), ["PREEMPTING", "UNSCHEDULABLE"]);
    events::keep(&mut view.events, event("TriggeredScaleUp", "", "pod triggered scale-up: [{workers 3->4}]", FIRST));
    assert_eq!(codes(&view), ["SCALING_UP", "PREEMPTING", "UNSCHEDULABLE"]);
    assert!(why(&view).starts_with("a node is being added for it"), "{}", why(&view));
}

#[test]
fn a_node_that_does_not_answer_is_a_notice_and_no_outcome() {
    let silent = |ready: Value| {
        let status = json!({ "phase": "Running", "conditions": [
            ready,
            { "type": "ContainersReady", "status": "True" },
        ], "containerStatuses": [{
            "name": "base", "state": { "running": { "startedAt": FIRST } },
            "restartCount": 0, "image": "", "imageID": "", "ready": true,
        }] });
        let view = view_of(&pod(status));
        assert_eq!(super::super::status::status(&view).outcome, None);
        codes(&view)
    };
    assert_eq!(silent(json!({ "type": "Ready", "status": "False" })), ["NODE_UNREACHABLE"]);
    assert_eq!(silent(json!({ "type": "Ready", "status": "True" })), [""; 0]);
    let gate = json!({ "type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady" });
    assert_eq!(silent(gate), [""; 0]);
}

#[test]
fn init_containers_are_counted_and_their_images_are_named() {
    let init = |state: Value| {
        let mut init = pod(json!({ "phase": "Pending", "initContainerStatuses": [
            { "name": "fetch", "state": { "terminated": { "exitCode": 0, "startedAt": FIRST, "finishedAt": FIRST } },
              "restartCount": 0, "image": "", "imageID": "", "ready": true },
            { "name": "unpack", "state": state, "restartCount": 0, "image": "", "imageID": "", "ready": false },
        ] }));
        init["spec"]["initContainers"] = json!([{ "name": "fetch" }, { "name": "unpack" }]);
        view_of(&init)
    };
    let running = init(json!({ "running": { "startedAt": FIRST } }));
    assert_eq!(codes(&running), ["INIT_CONTAINER"]);
    assert_eq!(why(&running), "init container unpack runs, 2 of 2");
    let stuck = init(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off: ErrImagePull: gone" } }));
    assert_eq!(why(&stuck), "the image of container unpack cannot be had: gone");
}

#[test]
fn what_another_attempt_waits_for_is_told_until_the_execution_was_stopped() {
    let waits = |class: &str, number: u32| {
        let mut ended = pod(json!({ "phase": "Failed" }));
        let waits = json!({ "number": number, "class": class, "message": "exceeded quota: q", "at": FIRST });
        ended["metadata"]["annotations"]["podbroker.io/waiting-attempt"] = json!(waits.to_string());
        ended
    };
    let told = notices(&view_of(&waits("QUOTA", 2)));
    assert_eq!(told[0].notice.code, "QUOTA");
    assert_eq!(told[0].notice.message, "attempt 2 waits and is tried again: exceeded quota: q");
    assert_ne!(told[0].key, notices(&view_of(&waits("QUOTA", 3)))[0].key);
    assert_eq!(codes(&view_of(&waits("BROKER", 2))), ["ATTEMPT_WAITS"]);
    for (key, value) in [
        ("stop", json!({ "by": "ann", "reason": "", "class": "CANCELLED_BY_CALLER", "at": FIRST })),
        ("refused-attempt", json!({ "number": 2, "class": "QUOTA", "message": "exceeded quota: q", "at": FIRST })),
    ] {
        let mut stopped = waits("QUOTA", 2);
        stopped["metadata"]["annotations"][format!("podbroker.io/{key}")] = json!(value.to_string());
        assert!(!codes(&view_of(&stopped)).contains(&"QUOTA"), "{key}");
    }
}

#[test]
fn events_that_cannot_be_read_are_told_while_they_would_explain_something() {
    let refused = |status| View { access: Access::Refused, ..view_of(&pod(status)) };
    assert_eq!(codes(&refused(waiting("ContainerCreating", ""))), ["EVENTS_NOT_READABLE"]);
    let ended = json!({ "phase": "Succeeded" });
    assert_eq!(codes(&refused(ended)), [""; 0]);
}

#[test]
fn a_disruption_and_a_deletion_are_told_while_the_pod_still_ends() {
    let mut deleted = pod(json!({ "phase": "Running" }));
    deleted["metadata"]["deletionTimestamp"] = json!(LATER);
    assert_eq!(codes(&view_of(&deleted)), ["DELETE_REQUESTED"]);
    deleted["status"]["conditions"] = json!([{ "type": "DisruptionTarget", "status": "True",
        "reason": "DeletionByTaintManager", "message": "Taint manager: deleting due to NoExecute taint" }]);
    let told = notices(&view_of(&deleted)).remove(0).notice;
    assert_eq!(told.code, "DISRUPTION");
    assert!(told.message.ends_with("Taint manager: deleting due to NoExecute taint"), "{}", told.message);
}
