use std::sync::Arc;

use super::super::attempts::tests::{Pods, at, view, wants};
use super::*;

fn of(views: impl IntoIterator<Item = Arc<View>>) -> Attempts {
    let mut views = views.into_iter();
    let first = Attempts::of(views.next().unwrap());
    views.fold(first, |attempts, view| attempts.with(view))
}

fn here(attempts: &Attempts) -> Option<(Timestamp, Act)> {
    due(attempts, Followed::NotHere { alone: None })
}

#[test]
fn what_does_not_start_is_ended_at_its_deadline_and_what_runs_is_not() {
    assert_eq!(here(&of([view(1, Pods::Waits, 0, None, &[])])), Some((at(100), Act::EndForStart)));
    assert_eq!(here(&of([view(1, Pods::Runs, 5, None, &[])])), None);
}

#[test]
fn what_was_forgotten_is_deleted_after_its_ttl_and_what_was_released_after_a_grace() {
    assert_eq!(here(&of([view(1, Pods::Succeeded, 10, None, &[])])), Some((at(610), Act::Delete)));
    let released = [("released-at", serde_json::json!(at(200)))];
    assert_eq!(here(&of([view(1, Pods::Succeeded, 10, None, &released)])), Some((at(205), Act::Delete)));
}

#[test]
fn what_runs_on_after_the_outcome_is_ended_after_the_ttl_once() {
    assert_eq!(here(&of([view(1, Pods::Decided, 10, None, &[])])), Some((at(610), Act::EndTheRest)));
    let decided = [("decided-at", serde_json::json!(at(610)))];
    assert_eq!(here(&of([view(1, Pods::Decided, 10, None, &decided)])), None);
}

#[test]
fn who_still_reads_here_is_waited_for_until_the_drain_deadline() {
    let released = [("released-at", serde_json::json!(at(200)))];
    let attempts = of([view(1, Pods::Succeeded, 10, None, &released)]);
    assert_eq!(due(&attempts, Followed::Here), Some((at(230), Act::Delete)));
}

#[test]
fn nothing_is_deleted_before_a_create_on_its_way_has_met_its_object() {
    let released = [("released-at", serde_json::json!(at(20)))];
    assert_eq!(here(&of([view(1, Pods::Succeeded, 10, None, &released)])), Some((at(60), Act::Delete)));
}

#[test]
fn another_attempt_is_made_and_nothing_is_deleted_in_between() {
    let policy = || Some(wants(3, 3));
    assert_eq!(here(&of([view(1, Pods::Evicted, 10, policy(), &[])])), Some((at(20), Act::Next(2))));
    assert_eq!(here(&of([view(1, Pods::BeingEvicted, 10, policy(), &[])])), None);
    let both = of([view(1, Pods::Evicted, 10, policy(), &[]), view(2, Pods::Runs, 30, policy(), &[])]);
    assert_eq!(here(&both), None);
    let both = of([view(1, Pods::Evicted, 10, policy(), &[]), view(2, Pods::Waits, 30, policy(), &[])]);
    assert_eq!(here(&both), Some((at(100), Act::EndForStart)), "each has its own start deadline");
}

#[test]
fn an_attempt_that_was_made_beside_a_stop_is_stopped() {
    let stop = serde_json::json!({ "by": "ann", "reason": "", "class": "CANCELLED_BY_CALLER", "at": at(50) });
    let first = view(1, Pods::Evicted, 10, Some(wants(3, 3)), &[("stop", stop)]);
    let both = of([first, view(2, Pods::Runs, 55, Some(wants(3, 3)), &[])]);
    let Some((when, Act::Stop(intent))) = here(&both) else { panic!("nothing is due") };
    assert_eq!((when, intent.by.as_str()), (at(50), "ann"));
}
