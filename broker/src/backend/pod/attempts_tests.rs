use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::carrier::Carrier;
use super::*;
use crate::execution::{InfraRetryRequest, PolicyDefaults, PolicyRequest};

const START: i64 = 1_795_248_000;

pub(in crate::backend::pod) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

/// How a pod stands.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend::pod) enum Pods {
    Waits,
    Runs,
    Succeeded,
    /// The same, but something else in the pod runs on.
    Decided,
    Failed,
    /// The eviction API took it away before a container had started.
    EvictedEarly,
    /// Or after.
    Evicted,
    /// It was told to end, and has not.
    BeingEvicted,
    /// Its node is no more.
    NodeLost,
}

/// The policy of a caller that wants so many attempts.
pub(in crate::backend::pod) fn wants(max_attempts: u32, max_free_attempts: u32) -> InfraRetryRequest {
    InfraRetryRequest {
        max_attempts: Some(max_attempts),
        max_free_attempts: Some(max_free_attempts),
        ..InfraRetryRequest::default()
    }
}

/// The view of an attempt that ended at a second, if it has.
pub(in crate::backend::pod) fn view(
    number: u32,
    stands: Pods,
    second: i64,
    policy: Option<InfraRetryRequest>,
    extra: &[(&str, Value)],
) -> Arc<View> {
    let request = PolicyRequest {
        infra_retry: policy,
        ttl: Some(Duration::from_mins(10)),
        start_deadline: Some(Duration::from_secs(100)),
        ..PolicyRequest::default()
    };
    let policies = request.resolve(&PolicyDefaults::default()).unwrap();
    let mut annotations = json!({
        "podbroker.io/execution-id": "x",
        "podbroker.io/submit-before": at(0),
        "podbroker.io/labels": "{}",
        "podbroker.io/spec-digest": "d",
        "podbroker.io/policies": serde_json::to_string(&policies).unwrap(),
    });
    for (key, value) in extra {
        annotations[format!("podbroker.io/{key}")] = json!(value.as_str().map_or(value.to_string(), str::to_owned));
    }
    let terminated = |code: i32| {
        json!({ "terminated": {
            "exitCode": code, "startedAt": at(second - 1), "finishedAt": at(second), "reason": "Error",
        } })
    };
    let disrupted = |reason: &str| json!([{ "type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": at(second) }]);
    let (phase, state, conditions) = match stands {
        Pods::Waits => ("Pending", json!({ "waiting": {} }), json!([])),
        Pods::Runs => ("Running", json!({ "running": { "startedAt": at(second) } }), json!([])),
        Pods::Succeeded => ("Succeeded", terminated(0), json!([])),
        Pods::Decided => ("Running", terminated(0), json!([])),
        Pods::Failed => ("Failed", terminated(3), json!([])),
        Pods::EvictedEarly => ("Failed", json!({ "waiting": {} }), disrupted("EvictionByEvictionAPI")),
        Pods::Evicted => ("Failed", terminated(137), disrupted("EvictionByEvictionAPI")),
        Pods::BeingEvicted => ("Running", terminated(137), disrupted("EvictionByEvictionAPI")),
        Pods::NodeLost => ("Failed", json!({ "waiting": {} }), disrupted("DeletionByPodGC")),
    };
    let pod: Carrier = serde_json::from_value(json!({
        "metadata": {
            "name": format!("x-{number}"), "namespace": "n", "uid": format!("u{number}"), "resourceVersion": "7",
            "creationTimestamp": at(0), "finalizers": ["podbroker.io/outcome"],
            "labels": { "podbroker.io/tenant": "default", "podbroker.io/attempt": number.to_string() },
            "annotations": annotations,
        },
        "spec": { "nodeName": "node1", "restartPolicy": "Never", "containers": [{ "name": "base" }] },
        "status": { "phase": phase, "conditions": conditions, "containerStatuses": [{
            "name": "base", "state": state, "restartCount": 0, "image": "", "imageID": "", "ready": false,
        }] },
    }))
    .unwrap();
    Arc::new(View::of(&pod).unwrap())
}

fn intent(class: &str) -> Value {
    json!({ "by": "ann", "reason": "enough", "class": class, "at": at(50) })
}

fn one(stands: Pods, policy: Option<InfraRetryRequest>, extra: &[(&str, Value)]) -> Attempts {
    Attempts::of(view(1, stands, 10, policy, extra))
}

fn class(standing: &Standing) -> Option<FailureClass> {
    standing.status.outcome.as_ref().expect("it has an outcome").class
}

#[test]
fn an_eviction_is_the_outcome_when_nobody_asked_for_more() {
    let standing = one(Pods::EvictedEarly, None, &[]).standing();
    assert_eq!((standing.status.state, class(&standing)), (State::Failed, Some(FailureClass::Evicted)));
    assert_eq!((standing.next, standing.latest), (None, Latest::Speaks));
}

#[test]
fn another_attempt_follows_after_the_pause_and_the_execution_is_pending() {
    let standing = one(Pods::Evicted, Some(wants(2, 2)), &[]).standing();
    assert_eq!((standing.status.state, &standing.status.outcome), (State::Pending, &None));
    assert_eq!(standing.next, Some(Next { number: 2, due: Some(at(20)) }));
    assert_eq!(standing.latest, Latest::HasEnded);
    assert!(standing.status.reason.contains("evicted") && standing.status.reason.contains("attempt 2 follows"));
}

#[test]
fn nothing_is_due_while_the_pod_may_still_run() {
    let standing = one(Pods::BeingEvicted, Some(wants(2, 2)), &[]).standing();
    assert_eq!((standing.status.state, &standing.status.outcome), (State::Running, &None));
    assert_eq!(standing.next, Some(Next { number: 2, due: None }));
    assert_eq!(standing.latest, Latest::Speaks);
}

#[test]
fn which_ends_are_followed_by_another_attempt() {
    // (how it stands, whether another follows by default, and for a caller that wants two)
    let cases = [
        (Pods::Waits, false, false),
        (Pods::Runs, false, false),
        (Pods::Succeeded, false, false),
        (Pods::Failed, false, false),
        (Pods::EvictedEarly, true, true),
        (Pods::Evicted, false, true),
        // The last word of a lost node may be missing: its container may have started.
        (Pods::NodeLost, false, true),
    ];
    for (stands, by_default, when_wanted) in cases {
        let follows = |policy| one(stands, Some(policy), &[]).standing().next.is_some();
        assert_eq!(follows(InfraRetryRequest::default()), by_default, "{stands:?}");
        assert_eq!(follows(wants(2, 2)), when_wanted, "{stands:?}");
    }
}

#[test]
fn the_latest_attempt_speaks() {
    let first = one(Pods::Evicted, Some(wants(2, 2)), &[]);
    let both = first.with(view(2, Pods::Runs, 30, Some(wants(2, 2)), &[]));
    assert_eq!(both.standing().status.state, State::Running);
    assert_eq!(both.standing().status.started, Some(at(9)), "the first container of all");
    let both = first.with(view(2, Pods::Succeeded, 40, Some(wants(2, 2)), &[]));
    let standing = both.standing();
    assert_eq!(
        (standing.status.state, class(&standing), standing.status.ended),
        (State::Succeeded, None, Some(at(40)))
    );
    let both = first.with(view(2, Pods::Evicted, 40, Some(wants(2, 2)), &[]));
    assert_eq!(class(&both.standing()), Some(FailureClass::Evicted), "two were wanted");
}

#[test]
fn a_stop_in_the_pause_cancels_the_execution_and_stays_its_outcome() {
    let stop = ("stop", intent("CANCELLED_BY_CALLER"));
    for extra in [&[stop.clone()][..], &[stop.clone(), ("released-at", json!(at(60)))]] {
        let standing = one(Pods::Evicted, Some(wants(2, 2)), extra).standing();
        assert_eq!(
            (standing.status.state, class(&standing)),
            (State::Cancelled, Some(FailureClass::CancelledByCaller))
        );
        assert_eq!((standing.next, standing.latest), (None, Latest::HasEnded));
        let message = standing.status.outcome.unwrap().message;
        assert!(message.starts_with("cancelled by ann: enough; attempt 1 ended: the pod was evicted"), "{message}");
    }
}

#[test]
fn a_stop_of_an_attempt_that_another_one_followed_means_that_one_too() {
    for extra in [("stop", intent("CANCELLED_BY_CALLER")), ("cancel", intent("CANCELLED_BY_CALLER"))] {
        let first = one(Pods::Evicted, Some(wants(3, 3)), &[extra]);
        let both = first.with(view(2, Pods::Runs, 30, Some(wants(3, 3)), &[]));
        assert_eq!(both.stop().map(|intent| intent.class), Some(FailureClass::CancelledByCaller));
        let both = first.with(view(2, Pods::Evicted, 30, Some(wants(3, 3)), &[]));
        assert_eq!(class(&both.standing()), Some(FailureClass::CancelledByCaller));
        assert_eq!(both.standing().next, None);
    }
}

#[test]
fn the_start_deadline_of_one_attempt_stops_the_execution_only_when_it_is_not_to_go_on() {
    let late = [("cancel", intent("START_DEADLINE"))];
    let named = InfraRetryRequest { classes: vec![FailureClass::StartDeadline], ..wants(3, 3) };
    assert!(one(Pods::EvictedEarly, Some(named.clone()), &late).standing().next.is_some());
    assert_eq!(one(Pods::EvictedEarly, Some(named), &late).stop(), None);
    let standing = one(Pods::EvictedEarly, Some(wants(3, 3)), &late).standing();
    assert_eq!((class(&standing), standing.next), (Some(FailureClass::StartDeadline), None));
}

#[test]
fn an_attempt_that_is_refused_for_good_is_the_outcome() {
    let refused =
        |class: Value| [("refused-attempt", json!({ "number": 2, "class": class, "message": "no", "at": at(30) }))];
    let standing = one(Pods::Evicted, Some(wants(3, 3)), &refused(json!("ADMISSION_DENIED"))).standing();
    assert_eq!((standing.status.state, class(&standing)), (State::Failed, Some(FailureClass::AdmissionDenied)));
    assert!(standing.status.outcome.unwrap().message.starts_with("attempt 2 was refused: no; attempt 1 ended"));
    assert_eq!(standing.next, None);
    // It could not be made at all: what was before stands.
    let standing = one(Pods::Evicted, Some(wants(3, 3)), &refused(Value::Null)).standing();
    assert_eq!((class(&standing), standing.next, standing.latest), (Some(FailureClass::Evicted), None, Latest::Speaks));
}

#[test]
fn an_attempt_that_waits_is_still_due_and_the_reason_says_why() {
    let waits = |number: u32| {
        let waits = json!({ "number": number, "class": "QUOTA", "message": "exceeded quota: q", "at": at(30) });
        one(Pods::Evicted, Some(wants(3, 3)), &[("waiting-attempt", waits)]).standing()
    };
    assert_eq!(waits(2).next, Some(Next { number: 2, due: Some(at(20)) }));
    assert_eq!(waits(2).status.state, State::Pending);
    assert!(waits(2).status.reason.ends_with("; attempt 2 waits: exceeded quota: q"), "{}", waits(2).status.reason);
    assert!(waits(3).status.reason.ends_with("; attempt 2 follows"), "it is about another one");
}

#[test]
fn what_is_being_deleted_is_not_made_again() {
    let policy = || Some(wants(3, 3));
    let first = View::clone(&view(1, Pods::Evicted, 10, policy(), &[]));
    let second = view(2, Pods::Evicted, 30, policy(), &[]);
    let next = |attempts: Attempts| attempts.standing().next;
    assert!(next(Attempts::of(Arc::new(first.clone())).with(Arc::clone(&second))).is_some());
    let let_go = View { has_finalizer: false, ..first.clone() };
    assert_eq!(next(Attempts::of(Arc::new(let_go)).with(Arc::clone(&second))), None);
    let gone = View { presence: Presence::Gone, ..first.clone() };
    assert_eq!(next(Attempts::of(Arc::new(gone)).with(Arc::clone(&second))), None);
    assert_eq!(next(Attempts::of(Arc::clone(&second))), None, "the first one is gone");
    let other = View { digest: "e".to_owned(), ..first };
    assert_eq!(next(Attempts::of(Arc::new(other)).with(second)), None, "two requests");
    assert_eq!(next(one(Pods::Evicted, policy(), &[("released-at", json!(at(60)))])), None);
}

fn ends() -> impl Strategy<Value = Pods> {
    prop_oneof![
        Just(Pods::Succeeded),
        Just(Pods::Failed),
        Just(Pods::EvictedEarly),
        Just(Pods::Evicted),
        Just(Pods::NodeLost),
    ]
}

proptest! {
    #[test]
    fn there_are_never_more_attempts_than_wanted_and_never_two_at_once(
        max in 1_u32..5, free in 1_u32..5, ends in prop::collection::vec((ends(), 0_i64..100), 1..30),
    ) {
        let policy = || Some(wants(max, free));
        let mut attempts = Attempts::of(view(1, Pods::Waits, 0, policy(), &[]));
        let mut now = 0;
        for (end, pause) in ends {
            now += pause;
            let latest = attempts.latest();
            if !is_over(latest) {
                prop_assert_eq!(attempts.standing().next, None, "it still runs");
                attempts = attempts.with(view(latest.attempt, end, now, policy(), &[]));
            }
            let standing = attempts.standing();
            prop_assert_eq!(standing.next.is_some(), standing.status.outcome.is_none());
            let Some(next) = standing.next else { break };
            prop_assert_eq!(next.number, attempts.latest().attempt + 1);
            prop_assert!(attempts.iter().all(|view| is_over(view)), "two at once");
            let due = next.due.expect("it is over");
            prop_assert!(due >= at(now + 10));
            now = due.as_second() - START;
            // Two replicas make the same one.
            for _ in 0..2 {
                attempts = attempts.with(view(next.number, Pods::Waits, now, policy(), &[]));
            }
        }
        prop_assert!(attempts.iter().count() <= max.max(free) as usize);
        let started = attempts.iter().position(|view| may_have_started(view));
        if let Some(before) = started {
            prop_assert!(attempts.iter().count() <= (max as usize).max(before + 1));
        }
    }
}
