use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use super::super::Finalizer;
use super::super::events::PodEvent;
use super::super::following::{Followed, Interest};
use super::super::notices::notices;
use super::super::status::tests::pod;
use super::*;
use crate::execution::PolicyDefaults;

pub(in crate::backend::pod) fn settings() -> PodSettings {
    PodSettings {
        instance: "main".parse().unwrap(),
        target: "prod".parse().unwrap(),
        namespace: "n".to_owned(),
        defaults: PolicyDefaults::default(),
        result_image: "busybox:1".to_owned(),
        finalizer: Finalizer::Keep,
        records: None,
    }
}

fn hub() -> Arc<Hub> {
    Arc::new(Hub::new(Arc::new(settings()), ServerClock::default(), None))
}

fn read(pod: Value) -> Carrier {
    serde_json::from_value(pod).unwrap()
}

fn creating() -> Carrier {
    read(pod(json!({ "phase": "Pending" })))
}

fn running() -> Carrier {
    let mut running = pod(json!({ "phase": "Running", "containerStatuses": [{
        "name": "base", "state": { "running": { "startedAt": "2026-11-21T08:00:02Z" } },
        "restartCount": 0, "image": "", "imageID": "", "ready": true,
    }] }));
    running["metadata"]["resourceVersion"] = json!("9");
    read(running)
}

fn hear(hub: &Hub, uid: &str) {
    let event = json!({
        "metadata": { "name": "e" }, "involvedObject": { "kind": "Pod", "name": "x-1", "uid": uid },
        "reason": "FailedMount", "message": "no such secret", "lastTimestamp": "2026-11-21T08:00:02Z",
    });
    let event: Event = serde_json::from_value(event).unwrap();
    hub.hear(&event.involved_object, PodEvent::of(&event).unwrap());
}

fn only(hub: &Hub) -> Arc<View> {
    let all = hub.all();
    assert_eq!(all.len(), 1);
    Arc::clone(all[0].latest())
}

fn codes(hub: &Hub) -> Vec<&'static str> {
    notices(&only(hub)).into_iter().map(|keyed| keyed.notice.code).collect()
}

#[test]
fn an_event_explains_its_pod_whichever_comes_first_and_those_who_follow_are_told() {
    let late = hub();
    late.apply(&creating());
    let hash = late.hash(&only(&late));
    let mut followed = late.follow(&hash, Interest::Caller).unwrap();
    followed.attempts.mark_unchanged();
    hear(&late, "u");
    assert_eq!(codes(&late), ["VOLUME_NOT_READY"]);
    assert!(followed.attempts.has_changed().unwrap());
    let early = hub();
    hear(&early, "u");
    early.apply(&creating());
    assert_eq!(codes(&early), ["VOLUME_NOT_READY"]);
}

#[test]
fn an_event_of_an_earlier_pod_of_that_name_explains_nothing() {
    let hub = hub();
    hub.apply(&creating());
    hear(&hub, "another");
    assert_eq!(codes(&hub), [""; 0]);
}

#[test]
fn what_events_said_is_dropped_when_the_pod_runs_and_kept_while_it_waits() {
    let hub = hub();
    hub.apply(&creating());
    hear(&hub, "u");
    hub.apply(&creating());
    assert_eq!(only(&hub).events.len(), 1);
    hub.apply(&running());
    assert_eq!(only(&hub).events.len(), 0);
    assert!(hub.state().waiting.is_empty());
    hear(&hub, "u");
    assert_eq!(only(&hub).events.len(), 0);
}

#[test]
fn a_refusal_is_told_to_those_who_wait_and_taken_back() {
    let hub = hub();
    hub.apply(&creating());
    hub.allow_events(Access::Refused);
    assert_eq!(codes(&hub), ["EVENTS_NOT_READABLE"]);
    hub.allow_events(Access::Open);
    assert_eq!(codes(&hub), [""; 0]);
}

#[test]
fn what_a_list_does_not_have_is_gone_unless_it_is_newer() {
    let hub = hub();
    hub.apply(&creating());
    hub.keep_listed(&HashSet::new(), 6);
    assert_eq!(hub.all().len(), 1);
    let hash = hub.hash(&only(&hub));
    let followed = hub.follow(&hash, Interest::Caller).unwrap();
    hub.keep_listed(&HashSet::new(), 7);
    assert!(hub.all().is_empty());
    assert!(followed.attempts.borrow().is_gone());
}

#[test]
fn who_keeps_a_copy_is_told_all_and_counts_as_nobody() {
    let hub = hub();
    hub.apply(&creating());
    let hash = hub.hash(&only(&hub));
    let copying = hub.follow(&hash, Interest::Copy).unwrap();
    assert_eq!(hub.is_followed(&hash), Followed::NotHere { alone: None });
    let following = hub.follow(&hash, Interest::Caller).unwrap();
    assert_eq!(hub.is_followed(&hash), Followed::Here);
    drop(following);
    assert_eq!(hub.is_followed(&hash), Followed::NotHere { alone: None });
    hub.keep_listed(&HashSet::new(), 7);
    assert!(copying.attempts.borrow().is_gone());
}

#[test]
fn a_pod_that_was_tampered_with_is_forgotten_with_its_last_readable_version() {
    let hub = hub();
    hub.apply(&creating());
    let mut tampered = pod(json!({ "phase": "Running" }));
    tampered["metadata"]["annotations"] = json!({});
    hub.apply(&read(tampered.clone()));
    assert_eq!(hub.all().len(), 1);
    hub.forget(&read(tampered));
    assert!(hub.all().is_empty());
}
