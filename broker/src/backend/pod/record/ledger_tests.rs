use serde_json::json;

use super::super::super::following::Interest;
use super::super::super::notices::notices;
use super::super::super::status::status;
use super::super::play::{World, address, carrier, ends, job, pod, runs, waits};
use super::*;
use crate::execution::State;

fn told(replica: &super::super::play::Replica) -> State {
    status(&replica.latest()).state
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_told_before_its_record_is_not_lost() {
    let world = World::new();
    world.replica("a").create().await;
    let late = world.replica("b");
    late.hub.apply_part(&carrier(&pod("p", "job-1", 1, 7, runs())));
    assert!(late.attempts().is_none());
    late.hear().await;
    assert_eq!(told(&late), State::Running);
    assert_eq!(world.batch.followed(), ["job-1"]);
}

#[tokio::test(start_paused = true)]
async fn who_follows_an_execution_hears_of_its_job_and_its_pods() {
    let world = World::new();
    let replica = world.replica("a");
    replica.create().await;
    let mut following = replica.hub.follow(&address().hash(), Interest::Caller).unwrap();
    following.attempts.mark_unchanged();
    replica.hub.describe_job(job("job-1", JobState::Starting));
    assert!(following.attempts.has_changed().unwrap());
    assert_eq!(status(following.attempts.borrow_and_update().latest()).state, State::Pending);
    replica.hub.apply_part(&carrier(&pod("p", "job-1", 1, 7, runs())));
    assert!(following.attempts.has_changed().unwrap());
    assert_eq!(status(following.attempts.borrow_and_update().latest()).state, State::Running);
}

#[tokio::test(start_paused = true)]
async fn the_logs_of_a_part_are_followed_by_its_own_name_until_it_is_gone() {
    let world = World::new();
    let replica = world.replica("a");
    replica.create().await;
    replica.hub.apply_part(&carrier(&pod("p", "job-1", 1, 7, runs())));
    let part = Arc::clone(&replica.latest().record().unwrap().parts[0].view);
    let mut followed = replica.hub.follow_pod(&part);
    assert_eq!(followed.borrow_and_update().pod_name, "p");
    replica.hub.apply_part(&carrier(&pod("p", "job-1", 1, 8, ends(0, "Completed"))));
    assert!(followed.borrow_and_update().is_terminal());
    // What was told of it last stands, also when it goes with less.
    replica.hub.forget_part("p", None);
    assert_eq!(followed.borrow().presence, Presence::Gone);
    assert!(followed.borrow().container("main").unwrap().termination().is_some());
    assert!(followed.changed().await.is_ok() && followed.changed().await.is_err(), "there is nothing more to come");
    assert_eq!(told(&replica), State::Running, "that is the job's to say");
}

#[tokio::test(start_paused = true)]
async fn an_older_version_of_a_pod_changes_nothing() {
    let world = World::new();
    let replica = world.replica("a");
    replica.create().await;
    replica.hub.apply_part(&carrier(&pod("p", "job-1", 1, 9, runs())));
    replica.hub.apply_part(&carrier(&pod("p", "job-1", 1, 8, waits())));
    assert_eq!(told(&replica), State::Running);
}

#[tokio::test(start_paused = true)]
async fn the_first_word_of_a_deletion_stands() {
    let world = World::new();
    let replica = world.replica("a");
    replica.create().await;
    let deleted = |version, second| {
        let mut pod = pod("p", "job-1", 1, version, runs());
        pod["metadata"]["deletionTimestamp"] = json!(super::super::play::at(second));
        carrier(&pod)
    };
    replica.hub.apply_part(&deleted(8, 15));
    replica.hub.apply_part(&deleted(9, 40));
    let latest = replica.latest();
    let view = &latest.record().unwrap().parts[0].view;
    assert_eq!(view.delete_requested, Some(super::super::play::at(15)));
}

#[tokio::test(start_paused = true)]
async fn what_a_pod_does_hastens_the_description_of_its_job() {
    let world = World::new();
    let replica = world.replica("a");
    replica.create().await;
    let mut hastened = Vec::new();
    for (version, status) in [(7, waits()), (8, waits()), (9, runs()), (10, runs()), (11, ends(0, "Completed"))] {
        replica.hub.apply_part(&carrier(&pod("p", "job-1", 1, version, status)));
        hastened.push(world.batch.hastened());
    }
    assert_eq!(hastened, [1, 1, 2, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn of_an_array_only_the_end_of_all_that_are_there_does() {
    let world = World::new();
    let replica = world.replica("a");
    replica.create().await;
    let child = |index: u32, version, status| {
        carrier(&pod(&format!("p{index}"), &format!("job-1:{index}"), 1, version, status))
    };
    replica.hub.apply_part(&child(0, 7, runs()));
    replica.hub.apply_part(&child(1, 8, runs()));
    replica.hub.apply_part(&child(0, 9, ends(0, "Completed")));
    assert_eq!(world.batch.hastened(), 0);
    replica.hub.apply_part(&child(1, 10, ends(0, "Completed")));
    assert_eq!(world.batch.hastened(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_explains_the_pod_of_a_job() {
    let world = World::new();
    let replica = world.replica("a");
    replica.create().await;
    replica.hub.apply_part(&carrier(&pod("p", "job-1", 1, 7, waits())));
    let event = json!({
        "metadata": { "name": "e" }, "involvedObject": { "kind": "Pod", "name": "p", "uid": "p" },
        "reason": "FailedMount", "message": "no such secret", "lastTimestamp": "2026-11-21T08:00:02Z",
    });
    let event: k8s_openapi::api::core::v1::Event = serde_json::from_value(event).unwrap();
    replica.hub.hear(&event.involved_object, PodEvent::of(&event).unwrap());
    let codes: Vec<_> = notices(&replica.latest()).into_iter().map(|keyed| keyed.notice.code).collect();
    assert_eq!(codes, ["VOLUME_NOT_READY"]);
}

#[tokio::test(start_paused = true)]
async fn a_description_of_an_unknown_job_is_passed_over() {
    let world = World::new();
    let replica = world.replica("a");
    replica.create().await;
    replica.hub.describe_job(job("another", JobState::Running));
    assert_eq!(told(&replica), State::Queued);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_forgotten_for_a_while_goes_on() {
    let world = World::new();
    let replica = world.replica("a");
    replica.create().await;
    replica.hub.describe_job(Job::forgotten("job-1", None));
    assert!(replica.latest().record().unwrap().has_ended());
    replica.hub.describe_job(job("job-1", JobState::Running));
    let latest = replica.latest();
    let record = latest.record().unwrap();
    assert_eq!((record.has_ended(), record.ended, told(&replica)), (false, None, State::Running));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_a_record_that_is_gone() {
    let world = World::new();
    let replica = world.replica("a");
    replica.create().await;
    replica.hub.apply_part(&carrier(&pod("p", "job-1", 1, 7, runs())));
    world.delete(true);
    replica.hear().await;
    let state = replica.hub.state();
    let ledger = state.ledger.as_ref().unwrap();
    assert!(ledger.lanes.is_empty() && ledger.by_job.is_empty() && ledger.by_pod.is_empty());
}
