//! One watch over a broker that comes and goes.

use std::time::Duration;

use podbroker_client::proto::ExecutionState::{Pending, Running};
use podbroker_client::{Code, Error, Watch, cursor_after, proto};
use tokio::time::Instant;
use tonic::Status;

use crate::broker::{Broker, Script, Step, end, heartbeat, lines, over_budget, refusal, state};

fn broker(watches: Vec<Vec<Step>>) -> Broker {
    Broker::start(Script { watches: watches.into(), ..Default::default() })
}

fn request() -> proto::WatchExecutionRequest {
    proto::WatchExecutionRequest { name: "targets/t/executions/e".to_owned(), ..Default::default() }
}

/// The cursors of all events; each event of these tests has one of its own.
async fn cursors(watch: &mut Watch) -> Result<Vec<String>, Error> {
    let mut cursors = Vec::new();
    while let Some(event) = watch.next().await {
        cursors.push(String::from_utf8(event?.cursor.to_vec()).unwrap());
    }
    assert!(watch.has_ended());
    Ok(cursors)
}

fn sent_cursors(broker: &Broker) -> Vec<String> {
    broker.seen(|seen| {
        let text = |request: &proto::WatchExecutionRequest| String::from_utf8(request.cursor.clone()).unwrap();
        seen.watches.iter().map(text).collect()
    })
}

#[tokio::test(start_paused = true)]
async fn a_watch_over_a_broken_connection_is_one_sequence() {
    let broker = broker(vec![
        vec![Step::Send(state("1", Pending)), Step::Send(lines("2", &["a", "b"])), Step::Cut],
        vec![Step::Send(state("3", Pending)), Step::Send(lines("4", &["c"])), Step::Send(end("5"))],
    ]);
    let mut watch = broker.client().watch(request());
    assert_eq!(cursors(&mut watch).await.unwrap(), ["1", "2", "4", "5"]);
    assert_eq!(sent_cursors(&broker), ["", "2"]);
    assert_eq!(watch.cursor(), b"5");
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_state_that_changed_while_the_connection_was_broken_is_shown() {
    let broker = broker(vec![
        vec![Step::Send(state("1", Pending)), Step::Cut],
        vec![Step::Send(state("2", Running)), Step::Send(state("3", Running)), Step::Send(end("4"))],
    ]);
    let shown = cursors(&mut broker.client().watch(request())).await.unwrap();
    assert_eq!(shown, ["1", "2", "3", "4"], "only the first event after a resume can be a repetition");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_well_but_too_early_is_opened_anew() {
    let broker = broker(vec![vec![Step::Send(state("1", Running))], vec![], vec![Step::Send(end("2"))]]);
    assert_eq!(cursors(&mut broker.client().watch(request())).await.unwrap(), ["1", "2"]);
    assert_eq!(sent_cursors(&broker), ["", "1", "1"]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_end_is_not_shown() {
    let broker = broker(vec![vec![Step::Send(end("1")), Step::Send(end("2")), Step::Send(state("3", Running))]]);
    assert_eq!(cursors(&mut broker.client().watch(request())).await.unwrap(), ["1"]);
    assert_eq!(sent_cursors(&broker), [""]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_left_after_45_seconds() {
    let broker = broker(vec![vec![Step::Send(state("1", Running)), Step::Hang], vec![Step::Send(end("2"))]]);
    let begin = Instant::now();
    assert_eq!(cursors(&mut broker.client().watch(request())).await.unwrap(), ["1", "2"]);
    assert!((45..46).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_watch_alive_and_are_not_shown() {
    let mut steps = vec![Step::Send(state("1", Running))];
    for _ in 0..10 {
        steps.extend([Step::Pause(Duration::from_secs(15)), Step::Send(heartbeat())]);
    }
    steps.push(Step::Send(end("2")));
    let broker = broker(vec![steps]);
    assert_eq!(cursors(&mut broker.client().watch(request())).await.unwrap(), ["1", "2"]);
    assert_eq!(sent_cursors(&broker), [""]);
}

#[tokio::test(start_paused = true)]
async fn unavailability_is_waited_for_as_long_as_the_broker_asks() {
    let away = refusal(tonic::Code::Unavailable, "DRAINING", Some(Duration::from_secs(20)));
    let overloaded = refusal(tonic::Code::ResourceExhausted, "OVERLOADED", Some(Duration::from_secs(10)));
    let broker = broker(vec![vec![Step::Fail(away)], vec![Step::Fail(overloaded)], vec![Step::Send(end("1"))]]);
    let begin = Instant::now();
    assert_eq!(cursors(&mut broker.client().watch(request())).await.unwrap(), ["1"]);
    assert!(begin.elapsed() >= Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_time_does_not_mend_ends_the_watch() {
    for (code, reason) in [
        (tonic::Code::NotFound, "EXPIRED"),
        (tonic::Code::InvalidArgument, "INVALID_CURSOR"),
        (tonic::Code::Unauthenticated, "UNAUTHENTICATED"),
        (tonic::Code::Internal, "INTERNAL"),
        (tonic::Code::ResourceExhausted, "OVERLOADED"),
    ] {
        let steps = vec![Step::Send(state("1", Running)), Step::Fail(refusal(code, reason, None))];
        let broker = broker(vec![steps, vec![Step::Send(end("2"))]]);
        let mut watch = broker.client().watch(request());
        assert!(watch.next().await.unwrap().is_ok());
        let error = watch.next().await.unwrap().unwrap_err();
        assert_eq!(error.reason, reason);
        assert!(watch.next().await.is_none() && watch.has_ended());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_no_broker_made_is_a_broken_connection() {
    let broker = broker(vec![vec![Step::Fail(Status::internal("a proxy's own"))], vec![Step::Send(end("1"))]]);
    assert_eq!(cursors(&mut broker.client().watch(request())).await.unwrap(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_with_a_limit_gives_up_after_that_time_without_contact() {
    let away = || vec![Step::Fail(refusal(tonic::Code::Unavailable, "BACKEND_UNAVAILABLE", None))];
    let mut watches = vec![vec![Step::Send(state("1", Running)), Step::Pause(Duration::from_secs(10)), Step::Cut]];
    watches.extend((0..1000).map(|_| away()));
    let broker = broker(watches);
    let begin = Instant::now();
    let mut watch = broker.client().watch(request()).retry_for(Duration::from_mins(1));
    assert!(watch.next().await.unwrap().is_ok());
    let error = watch.next().await.unwrap().unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable, "BACKEND_UNAVAILABLE"));
    assert!((64..71).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    let away = error.since.unwrap().elapsed().unwrap().as_secs();
    assert!((54..61).contains(&away), "{away} s");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_waits_says_why() {
    let away = refusal(tonic::Code::Unavailable, "DRAINING", Some(Duration::from_secs(20)));
    let broker = broker(vec![vec![Step::Send(state("1", Running)), Step::Fail(away)], vec![Step::Send(end("2"))]]);
    let mut watch = broker.client().watch(request());
    watch.next().await.unwrap().unwrap();
    assert_eq!(watch.trouble(), None);
    assert!(tokio::time::timeout(Duration::from_secs(10), watch.next()).await.is_err());
    assert_eq!(watch.trouble().unwrap().reason, "DRAINING");
    watch.next().await.unwrap().unwrap();
    assert_eq!(watch.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_a_limit_waits_for_hours() {
    let away = || vec![Step::Fail(refusal(tonic::Code::Unavailable, "BACKEND_UNAVAILABLE", None))];
    let mut watches: Vec<_> = (0..2000).map(|_| away()).collect();
    watches.push(vec![Step::Send(end("1"))]);
    let broker = broker(watches);
    let begin = Instant::now();
    assert_eq!(cursors(&mut broker.client().watch(request())).await.unwrap(), ["1"]);
    let hours = begin.elapsed().as_secs_f64() / 3600.0;
    assert!((1.3..2.8).contains(&hours), "between 2.5 s and 5 s a try: {hours} h");
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_short_patience_gets_every_event() {
    let broker = broker(vec![
        vec![Step::Pause(Duration::from_secs(3)), Step::Send(state("1", Running)), Step::Cut],
        vec![Step::Send(lines("2", &["a"])), Step::Pause(Duration::from_secs(3)), Step::Send(end("3"))],
    ]);
    broker.connect_slowly(Duration::from_secs(2));
    let mut watch = broker.client().watch(request());
    let mut shown = Vec::new();
    while !watch.has_ended() {
        let next = tokio::time::timeout(Duration::from_millis(10), watch.next()).await;
        shown.extend(next.ok().flatten().map(|event| event.unwrap().cursor));
    }
    assert_eq!(shown, ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_starts_where_its_caller_stopped_inside_a_chunk() {
    let proto::event::Event::LogChunk(chunk) = lines("2", &["a", "b", "c"]).event.unwrap() else { unreachable!() };
    let cursor = cursor_after(&chunk, 258);
    assert_eq!(cursor, b"2-line-\x00\x00\x01\x02");
    let broker = broker(vec![vec![Step::Cut], vec![Step::Send(end("3"))]]);
    let mut watch = broker.client().watch(proto::WatchExecutionRequest { cursor: cursor.clone(), ..request() });
    assert_eq!(watch.cursor(), cursor);
    assert_eq!(cursors(&mut watch).await.unwrap(), ["3"]);
    broker.seen(|seen| assert!(seen.watches.len() == 2 && seen.watches.iter().all(|watch| watch.cursor == cursor)));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_does_not_follow_ends_with_the_stream() {
    let options = proto::WatchOptions { no_follow: true, ..Default::default() };
    let broker = broker(vec![vec![Step::Send(state("1", Running)), Step::Send(lines("2", &["a"]))]]);
    let request = proto::WatchExecutionRequest { options: Some(options), ..request() };
    assert_eq!(cursors(&mut broker.client().watch(request)).await.unwrap(), ["1", "2"]);
    assert_eq!(sent_cursors(&broker), [""]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_the_last_lines_is_begun_anew_until_the_first_line() {
    let options = proto::WatchOptions { tail_lines: 2, ..Default::default() };
    let broker = broker(vec![
        vec![Step::Send(state("1", Pending)), Step::Send(state("2", Running)), Step::Cut],
        vec![Step::Send(state("3", Running)), Step::Send(lines("4", &["y", "z"])), Step::Cut],
        vec![Step::Send(state("5", Running)), Step::Send(end("6"))],
    ]);
    let request = proto::WatchExecutionRequest { options: Some(options), ..request() };
    assert_eq!(cursors(&mut broker.client().watch(request)).await.unwrap(), ["1", "2", "4", "6"]);
    assert_eq!(sent_cursors(&broker), ["", "", "4"], "with a cursor the broker would send all lines");
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_bytes_is_for_the_whole_watch_and_the_cursor_has_what_was_used() {
    let options = proto::WatchOptions { max_log_bytes: 10, ..Default::default() };
    let broker = broker(vec![
        vec![Step::Send(lines("1", &["abcd"])), Step::Cut],
        vec![Step::Send(lines("2", &["efghij"])), Step::Send(over_budget("3")), Step::Cut],
        vec![Step::Send(end("4"))],
    ]);
    let request = proto::WatchExecutionRequest { options: Some(options), ..request() };
    assert_eq!(cursors(&mut broker.client().watch(request)).await.unwrap(), ["1", "2", "3", "4"]);
    assert_eq!(sent_cursors(&broker), ["", "1", "3"]);
    let asked: Vec<_> = broker.seen(|seen| {
        let one = |watch: &proto::WatchExecutionRequest| watch.options.as_ref().map(|it| (it.max_log_bytes, it.logs()));
        seen.watches.iter().filter_map(one).collect()
    });
    assert_eq!(asked[0], (10, proto::LogMode::Unspecified));
    assert_eq!(asked[1], (10, proto::LogMode::Unspecified));
    assert_eq!(asked[2].1, proto::LogMode::None);
}
