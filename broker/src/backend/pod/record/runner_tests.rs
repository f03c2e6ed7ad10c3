use std::time::Duration;

use serde_json::json;

use super::super::super::status;
use super::super::Step::{self, Conclude, End, EndQueued, Renounce, Settle, Sweep};
use super::super::play::{Answer, Replica, World, at, attempt, carrier, ends, intent, job, pod, runs};
use crate::backend::job::{Job, JobState};

const NOTHING: [Step; 0] = [];
const JOB: &str = "podbroker.io/job";

#[expect(clippy::unnecessary_wraps, reason = "compared with what may be absent")]
fn failed(class: &str) -> Option<(String, Option<String>)> {
    Some(("FAILED".to_owned(), Some(class.to_owned())))
}

#[expect(clippy::unnecessary_wraps, reason = "compared with what may be absent")]
fn cancelled() -> Option<(String, Option<String>)> {
    Some(("CANCELLED".to_owned(), Some("CANCELLED_BY_CALLER".to_owned())))
}

/// A replica with a record whose job was made.
async fn made(world: &World) -> Replica {
    let replica = world.replica("a");
    replica.create().await;
    assert_eq!(world.annotation(JOB).unwrap()["id"], "job-1");
    replica
}

fn ended(state: JobState, exit_code: i32) -> Job {
    Job { attempts: vec![attempt("p", Some(exit_code), "Essential container exited")], ..job("job-1", state) }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_made_once_and_noted_with_everything_that_finds_it_again() {
    let world = World::new();
    let replica = made(&world).await;
    let jobs = world.batch.jobs();
    assert_eq!((jobs.len(), world.batch.finds()), (1, 0));
    let view = replica.latest();
    assert_eq!(
        (jobs[0].name.as_str(), jobs[0].key.clone()),
        (view.pod_name.as_str(), format!("{}/{}", view.pod_name, view.uid))
    );
    let labels = world.batch.labels();
    let hash = super::super::play::address().hash();
    for (key, value) in [
        ("execution", hash.as_str()),
        ("attempt", "1"),
        ("instance", "main"),
        ("target", "prod"),
        ("tenant", "default"),
    ] {
        assert!(labels.contains(&(format!("podbroker.io/{key}"), value.to_owned())), "{key}: {labels:?}");
    }
    assert_eq!(world.batch.followed(), ["job-1"]);
    world.pass(1000);
    replica.hear().await;
    assert_eq!(replica.turn().await, NOTHING);
    assert_eq!(world.batch.submits(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_outcome() {
    let world = World::new();
    world.batch.answers(&[Answer::Refused]);
    let replica = world.replica("a");
    replica.create().await;
    assert_eq!(world.outcome(), failed("INVALID_SPEC"));
    let status = status::status(&replica.latest());
    assert!(status.reason.contains("no such definition"), "{}", status.reason);
    world.pass(1000);
    replica.hear().await;
    assert_eq!(replica.turn().await, NOTHING);
}

#[tokio::test(start_paused = true)]
async fn what_was_certainly_not_made_is_asked_for_again() {
    let world = World::new();
    world.batch.answers(&[Answer::NotMade, Answer::NotMade, Answer::NotMade]);
    made(&world).await;
    assert_eq!((world.batch.submits(), world.batch.finds()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_for_after_the_submit_window() {
    let world = World::new();
    world.batch.answers(&[Answer::NotMade]);
    world.batch.meanwhile(world.passing(601));
    world.replica("a").create().await;
    assert_eq!(world.outcome(), failed("BROKER"));
    assert_eq!((world.batch.submits(), world.batch.jobs().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_try_that_is_not_fresh_any_more_is_renewed_before_it_is_repeated() {
    let world = World::new();
    world.batch.answers(&[Answer::NotMade]);
    world.batch.meanwhile(world.passing(20));
    made(&world).await;
    assert_eq!(world.annotation("podbroker.io/submitting").unwrap()["try"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_settled_by_any_replica_and_nothing_is_made_twice() {
    let world = World::new();
    world.batch.answers(&[Answer::Lost]);
    let (creator, other) = (world.replica("a"), world.replica("b"));
    creator.create().await;
    assert_eq!(world.counters.unsettled(), 1);
    world.pass(29);
    other.hear().await;
    assert_eq!(other.turn().await, NOTHING);
    world.pass(3);
    other.hear().await;
    assert_eq!(other.turn().await, [Settle]);
    assert_eq!(world.annotation(JOB).unwrap()["id"], "job-1");
    assert_eq!((world.batch.submits(), world.counters.duplicates()), (1, 0));
    // A list may have been stale, so others are looked for later, and once more at the end.
    world.pass(33);
    creator.hear().await;
    assert_eq!(creator.turn().await, [Sweep]);
    creator.hub.apply_part(&carrier(&pod("p", "job-1", 1, 7, ends(0, "Completed"))));
    creator.hub.describe_job(ended(JobState::Succeeded, 0));
    assert_eq!(creator.turn().await, [Conclude, Sweep]);
    assert_eq!(world.outcome(), Some(("SUCCEEDED".to_owned(), None)));
    world.pass(1000);
    creator.hear().await;
    assert_eq!(creator.turn().await, NOTHING);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_taken_for_lost() {
    let world = World::new();
    world.batch.answers(&[Answer::Hangs]);
    let replica = world.replica("a");
    replica.create().await;
    assert_eq!((world.counters.unsettled(), world.annotation(JOB)), (1, None));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_made_before_a_crash_is_made_by_another_replica() {
    for answer in [Answer::LostBefore, Answer::Hangs] {
        let world = World::new();
        world.batch.answers(&[answer]);
        let (creator, other) = (world.replica("a"), world.replica("b"));
        creator.create().await;
        world.pass(32);
        other.hear().await;
        assert_eq!(other.turn().await, [Settle]);
        let expected = if answer == Answer::Hangs { 1 } else { 2 };
        assert_eq!((world.batch.submits(), world.batch.jobs().len()), (expected, 1), "{answer:?}");
        assert_eq!(world.annotation(JOB).unwrap()["id"], "job-1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_list_makes_a_second_job_which_is_found_ended_and_counted_once() {
    let world = World::new();
    world.batch.answers(&[Answer::Lost]);
    let replica = world.replica("a");
    replica.create().await;
    world.batch.hide("job-1");
    world.pass(32);
    replica.hear().await;
    assert_eq!(replica.turn().await, [Settle]);
    assert_eq!(world.annotation(JOB).unwrap()["id"], "job-2");
    world.batch.show_all();
    world.pass(32);
    replica.hear().await;
    assert_eq!(replica.turn().await, [Sweep]);
    assert_eq!((world.batch.ended(), world.counters.duplicates()), (vec!["job-1".to_owned()], 1));
    replica.hub.describe_job(Job { id: "job-2".to_owned(), ..ended(JobState::Succeeded, 0) });
    world.pass(6);
    replica.hear().await;
    assert_eq!(replica.turn().await, [Conclude, Sweep]);
    assert_eq!(world.counters.duplicates(), 1, "it is counted once");
}

#[tokio::test(start_paused = true)]
async fn of_several_jobs_the_oldest_is_kept() {
    let world = World::new();
    world.batch.answers(&[Answer::Lost, Answer::Lost]);
    let replica = world.replica("a");
    replica.create().await;
    world.batch.hide("job-1");
    world.pass(32);
    replica.hear().await;
    assert_eq!(replica.turn().await, [Settle]);
    world.batch.show_all();
    world.pass(32);
    replica.hear().await;
    assert_eq!(replica.turn().await, [Settle]);
    assert_eq!(world.annotation(JOB).unwrap()["id"], "job-1");
    assert_eq!((world.batch.ended(), world.counters.duplicates()), (vec!["job-2".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn only_one_of_two_replicas_takes_over() {
    let world = World::new();
    world.batch.answers(&[Answer::LostBefore]);
    let (a, b, c) = (world.replica("a"), world.replica("b"), world.replica("c"));
    a.create().await;
    world.pass(32);
    b.hear().await;
    c.hear().await;
    assert_eq!(b.turn().await, [Settle]);
    // It decided on a version that is not there any more.
    assert_eq!(c.turn().await, [Settle]);
    assert_eq!((world.batch.submits(), world.batch.finds(), world.batch.jobs().len()), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_attempt_has_another_one_meanwhile_is_ended() {
    let world = World::new();
    world.batch.meanwhile(world.writing(JOB, &json!({ "id": "other", "at": at(1) })));
    world.replica("a").create().await;
    assert_eq!(world.annotation(JOB).unwrap()["id"], "other");
    assert_eq!((world.batch.ended(), world.counters.duplicates()), (vec!["job-1".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn another_change_of_the_record_does_not_lose_the_job() {
    let world = World::new();
    world.batch.meanwhile(world.writing("podbroker.io/labels", &json!({})));
    made(&world).await;
    assert_eq!(world.batch.ended(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_while_nobody_knows_of_a_job_ends_the_one_that_is_found() {
    let world = World::new();
    world.batch.answers(&[Answer::Lost]);
    let replica = world.replica("a");
    replica.create().await;
    world.write("podbroker.io/cancel", &intent());
    world.pass(32);
    replica.hear().await;
    assert_eq!(replica.turn().await, [Settle, End]);
    assert_eq!((world.batch.ended(), world.batch.submits()), (vec!["job-1".to_owned()], 1));
    replica.hub.describe_job(Job { is_terminated: true, ..job("job-1", JobState::Failed) });
    assert_eq!(replica.turn().await, [Conclude,]);
    assert_eq!(world.outcome(), cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_cancel_before_any_job_was_made_makes_none() {
    let world = World::new();
    world.batch.answers(&[Answer::LostBefore]);
    let replica = world.replica("a");
    replica.create().await;
    world.write("podbroker.io/cancel", &intent());
    world.pass(32);
    replica.hear().await;
    assert_eq!(replica.turn().await, [Settle]);
    assert_eq!(world.outcome(), cancelled());
    assert_eq!(world.batch.submits(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_between_two_tries_is_heard() {
    let world = World::new();
    world.batch.answers(&[Answer::NotMade, Answer::NotMade]);
    // The try is renewed, and that finds the intent.
    let (pass, write) = (world.passing(20), world.writing("podbroker.io/cancel", &intent()));
    world.batch.meanwhile(move || {
        pass();
        write();
    });
    world.replica("a").create().await;
    assert_eq!(world.outcome(), cancelled());
    assert_eq!(world.batch.submits(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_asked_for_until_the_job_has_ended() {
    let world = World::new();
    let replica = made(&world).await;
    replica.hub.describe_job(job("job-1", JobState::Running));
    world.write("podbroker.io/cancel", &intent());
    world.batch.fail_ends(1);
    world.pass(5);
    replica.hear().await;
    assert_eq!(replica.turn().await, [End]);
    assert_eq!(world.batch.ended(), [""; 0]);
    for count in 1..=2 {
        world.pass(17);
        replica.hear().await;
        assert_eq!(replica.turn().await, [End]);
        assert_eq!(world.batch.ended().len(), count);
    }
    assert!(world.batch.reasons()[0].contains("cancelled by ann: enough"), "{:?}", world.batch.reasons());
    replica.hub.describe_job(Job { is_terminated: true, ..ended(JobState::Failed, 143) });
    world.pass(6);
    replica.hear().await;
    assert_eq!(replica.turn().await, [Conclude]);
    assert_eq!(world.outcome(), cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waited_for_too_long_ends_with_what_it_waited_for() {
    let mut world = World::new();
    world.queue_deadline = Some(Duration::from_mins(10));
    let replica = made(&world).await;
    world.pass(700);
    replica.hear().await;
    assert_eq!(replica.turn().await, NOTHING, "it was not described yet");
    let reason = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - the queue has no room".to_owned();
    replica.hub.describe_job(Job { reason: reason.clone(), ..job("job-1", JobState::Runnable) });
    assert_eq!(replica.turn().await, [EndQueued]);
    assert!(world.batch.reasons()[0].contains(&reason), "{:?}", world.batch.reasons());
    // What it is told to end with becomes its own reason.
    let ended = Job { reason: world.batch.reasons()[0].clone(), is_terminated: true, ..job("job-1", JobState::Failed) };
    replica.hub.describe_job(ended);
    assert_eq!(replica.turn().await, [Conclude]);
    assert_eq!(world.outcome(), failed("START_DEADLINE"));
    let message = world.annotation("podbroker.io/outcome-is").unwrap()["message"].to_string();
    assert!(message.contains("start deadline passed") && message.contains(&reason), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_written_once() {
    let world = World::new();
    let (a, b) = (made(&world).await, world.replica("b"));
    b.hear().await;
    for replica in [&a, &b] {
        replica.hub.describe_job(ended(JobState::Failed, 3));
    }
    b.hub.apply_part(&carrier(&pod("p", "job-1", 1, 7, ends(3, "Error"))));
    assert_eq!(b.turn().await, [Conclude]);
    let written = world.annotation("podbroker.io/outcome-is").unwrap();
    world.pass(7);
    assert_eq!(a.turn().await, NOTHING, "its clock has not moved");
    a.hear().await;
    assert_eq!(a.turn().await, NOTHING);
    assert_eq!(world.annotation("podbroker.io/outcome-is").unwrap(), written);
    assert_eq!(status::status(&a.latest()).outcome, status::status(&b.latest()).outcome);
    assert_eq!(world.batch.followed(), [""; 0], "nobody describes what has ended");
}

#[tokio::test(start_paused = true)]
async fn the_last_words_of_a_pod_are_waited_for_and_not_for_ever() {
    let world = World::new();
    let replica = made(&world).await;
    replica.hub.apply_part(&carrier(&pod("p", "job-1", 1, 7, runs())));
    replica.hub.describe_job(ended(JobState::Failed, 1));
    assert_eq!(replica.turn().await, NOTHING);
    world.pass(7);
    replica.hear().await;
    assert_eq!(replica.turn().await, [Conclude]);
    assert_eq!(world.annotation("podbroker.io/outcome-is").unwrap()["exit_code"], 1, "the job had it too");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_deleted_ends_its_job_and_stays_until_that_has_ended() {
    let world = World::new();
    let replica = made(&world).await;
    replica.hub.describe_job(job("job-1", JobState::Running));
    world.delete(false);
    replica.hear().await;
    assert_eq!(replica.turn().await, [Renounce]);
    assert_eq!(world.batch.ended(), ["job-1"]);
    replica.hub.describe_job(Job { is_terminated: true, ..job("job-1", JobState::Failed) });
    assert_eq!(replica.turn().await, [Conclude]);
    assert_eq!(world.outcome(), failed("POD_DELETED"));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_vanishes_takes_its_job_along() {
    let world = World::new();
    let replica = made(&world).await;
    world.delete(true);
    replica.hear().await;
    assert!(replica.attempts().is_none());
    replica.turn().await;
    assert_eq!((world.batch.ended(), world.batch.followed()), (vec!["job-1".to_owned()], vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_job_without_a_record_is_asked_for_until_it_is_granted() {
    let world = World::new();
    let replica = made(&world).await;
    world.batch.fail_ends(9);
    world.delete(true);
    replica.hear().await;
    let before = tokio::time::Instant::now();
    replica.turn().await;
    assert_eq!(world.batch.ended(), ["job-1"]);
    // Ever more slowly, but never for good.
    assert!((1_000..2_000).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_job_of_an_earlier_record_of_that_name_is_not_taken_for_the_new_ones() {
    let world = World::new();
    let first = made(&world).await;
    world.delete(true);
    first.hear().await;
    world.batch.answers(&[Answer::LostBefore]);
    let second = world.replica("b");
    second.create().await;
    world.pass(32);
    second.hear().await;
    assert_eq!(second.turn().await, [Settle]);
    assert_eq!(world.annotation(JOB).unwrap()["id"], "job-2");
}
