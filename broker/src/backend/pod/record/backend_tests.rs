//! A target with jobs as its callers see it.

use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::play::{World, address, attempt, carrier, ends, job, pod, runs, submit};
use super::*;
use crate::backend::{Backend as _, Cancel, Filter, Origin, View as Depth};
use crate::execution::{
    Completeness, Event, EventKind, FailureClass, Follow, GapReason, LogMode, PolicyRequest, State, Submit, SubmitMode,
    WatchOptions,
};

const EVERYTHING: WatchOptions = WatchOptions {
    logs: LogMode::Lines,
    containers: Vec::new(),
    tail_lines: None,
    since: None,
    follow: Follow::UntilTheEnd,
    max_log_bytes: None,
};

fn request() -> Submit {
    submit(&PolicyRequest::default())
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(10), wait).await.expect("it comes to that");
}

fn lines(events: &[Event]) -> Vec<String> {
    let chunks = events.iter().filter_map(|event| match &event.kind {
        EventKind::LogChunk(chunk) => Some(chunk),
        _ => None,
    });
    let text = |line: &crate::execution::LogLine| String::from_utf8(line.content.to_vec()).unwrap();
    chunks.flat_map(|chunk| chunk.lines.iter().map(text).collect::<Vec<_>>()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_job_is_submitted_watched_to_its_end_and_released() {
    let (world, stop) = (World::new(), CancellationToken::new());
    let backend = world.backend(&stop).await;
    let (tenant, id) = (address().tenant, address().id);
    let submitted = backend.submit(&tenant, request()).await.unwrap();
    assert_eq!((submitted.origin, submitted.execution.state), (Origin::Created, State::Queued));
    until(async || backend.get(&tenant, &id, Depth::Basic).await.unwrap().attempts[0].job_id == "job-1").await;
    let again = backend.submit(&tenant, request()).await.unwrap();
    assert_eq!((again.origin, again.claim, world.batch.submits()), (Origin::Found, submitted.claim.clone(), 1));

    let events = backend.watch(&tenant, &id, &[], EVERYTHING).await.unwrap();
    let acting = async {
        backend.hub.apply_part(&carrier(&pod("p", "job-1", 1, 7, runs())));
        until(async || {
            let listed = backend.list(&tenant, &Filter { limit: 1, ..Filter::default() }).await.unwrap();
            listed[0].state == State::Running
        })
        .await;
        assert_eq!(backend.get(&tenant, &id, Depth::Basic).await.unwrap().attempts[0].pod_name, "p");
        backend.hub.apply_part(&carrier(&pod("p", "job-1", 1, 8, ends(0, "Completed"))));
        backend
            .hub
            .describe_job(Job { attempts: vec![attempt("p", Some(0), "")], ..job("job-1", JobState::Succeeded) });
    };
    let (events, ()) = futures::join!(events.map(Result::unwrap).collect::<Vec<_>>(), acting);

    assert_eq!(lines(&events), ["hello", "world"]);
    assert!(!events.iter().any(|event| matches!(event.kind, EventKind::LogGap(_))));
    let Some(Event { kind: EventKind::End(last), .. }) = events.last() else { panic!("{events:?}") };
    let outcome = last.outcome.as_ref().unwrap();
    assert_eq!(
        (last.state, outcome.exit_code, outcome.containers[0].message.as_str()),
        (State::Succeeded, Some(0), "bye")
    );

    let released = backend.release(&tenant, &id, Some(&submitted.claim)).await.unwrap();
    assert!(released.released.is_some());
    // Not before a straggling create would meet it.
    world.pass(700);
    until(async || {
        let _ = backend.api.get::<serde_json::Value>("nobody").await;
        backend.hub.touch(&address().hash());
        !world.has_record()
    })
    .await;
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_job_and_is_told_when_that_has_ended() {
    let (world, stop) = (World::new(), CancellationToken::new());
    let backend = world.backend(&stop).await;
    let (tenant, id) = (address().tenant, address().id);
    backend.submit(&tenant, request()).await.unwrap();
    until(async || world.annotation("podbroker.io/job").is_some()).await;
    backend.hub.describe_job(job("job-1", JobState::Running));
    let cancel = Cancel { subject: "ann".to_owned(), reason: "enough".to_owned(), claim: None, grace: None };
    let told = backend.cancel(&tenant, &id, cancel).await.unwrap();
    assert_eq!((told.state, told.outcome), (State::Running, None));
    until(async || world.batch.ended() == ["job-1"]).await;
    assert!(world.batch.reasons()[0].contains("cancelled by ann: enough"));
    backend.hub.describe_job(Job { is_terminated: true, ..job("job-1", JobState::Failed) });
    until(async || backend.get(&tenant, &id, Depth::Basic).await.unwrap().state == State::Cancelled).await;
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn lines_of_a_pod_that_nobody_saw_are_marked_as_lost() {
    let (world, stop) = (World::new(), CancellationToken::new());
    let backend = world.backend(&stop).await;
    let (tenant, id) = (address().tenant, address().id);
    backend.submit(&tenant, request()).await.unwrap();
    until(async || world.annotation("podbroker.io/job").is_some()).await;
    let gone =
        Job { attempts: vec![attempt("p", Some(3), "Essential container exited")], ..job("job-1", JobState::Failed) };
    backend.hub.describe_job(gone);
    world.pass(10);
    let _ = backend.api.get::<serde_json::Value>("nobody").await;
    backend.hub.touch(&address().hash());
    until(async || world.outcome().is_some()).await;
    let events = backend.watch(&tenant, &id, &[], EVERYTHING).await.unwrap();
    let events: Vec<_> = events.map(Result::unwrap).collect().await;
    let gaps: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::LogGap(gap) => Some((gap.instance.container.as_str(), gap.reason)),
            _ => None,
        })
        .collect();
    assert_eq!(gaps, [("main", GapReason::PodDeleted)]);
    let is_cut = |event: &Event| matches!(&event.kind, EventKind::LogStreamEnd(_, Completeness::Cut));
    assert!(events.iter().any(is_cut));
    let Some(Event { kind: EventKind::End(last), .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(last.outcome.as_ref().unwrap().class, Some(FailureClass::Application));
    stop.cancel();
}

/// The gaps of a watch: the container, the run, and whether an end of its log was told.
fn gaps(events: &[Event]) -> Vec<(&str, u32, GapReason)> {
    let gaps = events.iter().filter_map(|event| match &event.kind {
        EventKind::LogGap(gap) => Some((gap.instance.container.as_str(), gap.instance.restart, gap.reason)),
        _ => None,
    });
    gaps.collect()
}

#[tokio::test(start_paused = true)]
async fn children_that_nobody_saw_are_marked_and_one_that_was_tried_again_has_both_logs() {
    let (world, stop) = (World::new(), CancellationToken::new());
    let backend = world.backend(&stop).await;
    let (tenant, id) = (address().tenant, address().id);
    backend.submit(&tenant, request()).await.unwrap();
    until(async || world.annotation("podbroker.io/job").is_some()).await;
    let events = backend.watch(&tenant, &id, &[], EVERYTHING).await.unwrap();
    let acting = async {
        let told = |name: &str, turn, version, status| {
            backend.hub.apply_part(&carrier(&pod(name, "job-1:1", turn, version, status)));
        };
        told("p", 1, 7, runs());
        told("p", 1, 8, ends(1, "Error"));
        tokio::time::sleep(Duration::from_secs(20)).await;
        backend.hub.forget_part("p", None);
        // It is over before anybody looks.
        told("q", 2, 9, ends(0, "Completed"));
        let children = Some(vec![(JobState::Succeeded, 3)]);
        backend.hub.describe_job(Job { children, ..job("job-1", JobState::Succeeded) });
        world.pass(10);
        let _ = backend.api.get::<serde_json::Value>("nobody").await;
        backend.hub.touch(&address().hash());
    };
    let (events, ()) = futures::join!(events.map(Result::unwrap).collect::<Vec<_>>(), acting);
    assert_eq!(lines(&events), ["hello", "world", "hello", "world"]);
    let of = |event: &Event| match &event.kind {
        EventKind::LogStreamEnd(instance, Completeness::Complete) => Some(instance.restart),
        _ => None,
    };
    assert_eq!(events.iter().filter_map(of).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(gaps(&events), [("0/main", 0, GapReason::PodDeleted), ("2/main", 0, GapReason::PodDeleted)]);
    // Who comes back with a cursor is told nothing again.
    let cursor = events[events.len() - 2].cursor.encode();
    let again = backend.watch(&tenant, &id, &cursor, EVERYTHING).await.unwrap();
    assert_eq!(gaps(&again.map(Result::unwrap).collect::<Vec<_>>().await), []);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_job_of_which_nothing_was_seen_but_its_success_has_a_gap() {
    let (world, stop) = (World::new(), CancellationToken::new());
    let backend = world.backend(&stop).await;
    let (tenant, id) = (address().tenant, address().id);
    backend.submit(&tenant, request()).await.unwrap();
    until(async || world.annotation("podbroker.io/job").is_some()).await;
    let events = backend.watch(&tenant, &id, &[], EVERYTHING).await.unwrap();
    backend.hub.describe_job(job("job-1", JobState::Succeeded));
    world.pass(10);
    let _ = backend.api.get::<serde_json::Value>("nobody").await;
    backend.hub.touch(&address().hash());
    let events: Vec<_> = events.map(Result::unwrap).collect().await;
    assert_eq!(gaps(&events), [("unknown", 0, GapReason::PodDeleted)]);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_attempt_of_the_jobs_own_is_told_as_ended_once_the_job_says_why_or_does_not_for_too_long() {
    let spot = || attempt("p", Some(143), "Host EC2 (instance i-1) terminated.");
    for (says_so_after, class) in [(5, FailureClass::SpotInterrupted), (300, FailureClass::Application)] {
        let (world, stop) = (World::new(), CancellationToken::new());
        let backend = world.backend(&stop).await;
        let (tenant, id) = (address().tenant, address().id);
        backend.submit(&tenant, request()).await.unwrap();
        until(async || world.annotation("podbroker.io/job").is_some()).await;
        let events = backend.watch(&tenant, &id, &[], EVERYTHING).await.unwrap();
        let began = tokio::time::Instant::now();
        let acting = async {
            let told = |name: &str, turn, version, status| {
                backend.hub.apply_part(&carrier(&pod(name, "job-1", turn, version, status)));
            };
            told("p", 1, 7, runs());
            told("p", 1, 8, ends(143, "Error"));
            told("q", 2, 9, runs());
            tokio::time::sleep(Duration::from_secs(says_so_after)).await;
            let attempts = vec![spot(), attempt("q", None, "")];
            backend.hub.describe_job(Job { attempts, ..job("job-1", JobState::Running) });
            tokio::time::sleep(Duration::from_mins(5)).await;
            told("q", 2, 10, ends(0, "Completed"));
            let attempts = vec![spot(), attempt("q", Some(0), "")];
            backend.hub.describe_job(Job { attempts, ..job("job-1", JobState::Succeeded) });
        };
        let hearing = events.map(Result::unwrap).map(|event| (began.elapsed().as_secs(), event)).collect::<Vec<_>>();
        let (events, ()) = futures::join!(hearing, acting);
        let ends: Vec<_> = events
            .iter()
            .filter_map(|(at, event)| match &event.kind {
                EventKind::AttemptEnded(attempt, outcome) => Some((attempt.number, outcome.class, *at)),
                _ => None,
            })
            .collect();
        let [(1, first, at), (2, None, _)] = ends[..] else { panic!("{ends:?}") };
        // It is waited for as long as for the rest of its lines.
        assert_eq!((first, (5..40).contains(&at)), (Some(class), true), "{ends:?}");
        let Some((_, Event { kind: EventKind::End(last), .. })) = events.last() else { panic!("{events:?}") };
        assert_eq!(last.state, State::Succeeded);
        stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_validation_says_what_would_be_sent_and_makes_nothing() {
    let (world, stop) = (World::new(), CancellationToken::new());
    let backend = world.backend(&stop).await;
    let request = Submit { mode: SubmitMode::ValidateOnly, ..request() };
    let validated = backend.submit(&address().tenant, request).await.unwrap();
    assert_eq!(validated.execution.pod_json.as_deref(), Some(address().pod_name(1).as_bytes()));
    assert_eq!(world.batch.submits(), 0);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_a_job_cannot_have_is_refused_before_anything_is_made() {
    let (world, stop) = (World::new(), CancellationToken::new());
    let backend = world.backend(&stop).await;
    let tenant = address().tenant;
    let sidecar = PolicyRequest { result: Some(ResultSource::Sidecar), ..PolicyRequest::default() };
    let error = backend.submit(&tenant, submit(&sidecar)).await.unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { field: "policies.result.source", .. }), "{error}");
    let retry =
        PolicyRequest { infra_retry: Some(crate::execution::InfraRetryRequest::default()), ..PolicyRequest::default() };
    let mut both = submit(&retry);
    let Workload::Batch(work) = &mut both.workload else { panic!("a job") };
    work.attempts = Some(2);
    let error = backend.submit(&tenant, both).await.unwrap_err();
    let Error::InvalidSpec { violations } = &error else { panic!("{error}") };
    assert_eq!(violations[0].field, "policies.infra_retry");
    assert!(!world.has_record());
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_watch_takes_little_memory() {
    let (world, stop) = (World::new(), CancellationToken::new());
    let backend = world.backend(&stop).await;
    let (tenant, id) = (address().tenant, address().id);
    backend.submit(&tenant, request()).await.unwrap();
    let mut events = backend.watch(&tenant, &id, &[], EVERYTHING).await.unwrap();
    assert!(matches!(events.next().await.unwrap().unwrap().kind, EventKind::StateChanged(_)));
    // Of what triggerers follow, tens of thousands are open at a time.
    assert!(size_of_val(&*events) <= 1024, "{} bytes", size_of_val(&*events));
}
