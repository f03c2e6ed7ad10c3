//! Connections that end, or fall silent, under calls and watches.

use std::time::Duration;

use podbroker_client::proto;
use podbroker_client::proto::ExecutionState::Running;
use tokio::time::Instant;

use crate::broker::{Answer, Broker, Script, Step, end, execution, heartbeat, lines, state};

fn watch_request() -> proto::WatchExecutionRequest {
    proto::WatchExecutionRequest { name: "targets/t/executions/e".to_owned(), ..Default::default() }
}

fn get() -> proto::GetExecutionRequest {
    proto::GetExecutionRequest { name: "targets/t/executions/e".to_owned(), ..Default::default() }
}

fn heartbeats(minutes: u32) -> Vec<Step> {
    (0..4 * minutes).flat_map(|_| [Step::Pause(Duration::from_secs(15)), Step::Send(heartbeat())]).collect()
}

#[tokio::test(start_paused = true)]
async fn calls_do_not_notice_that_a_broker_asks_for_another_connection() {
    let gets = (0..10).map(|_| Answer::Give(execution(Running))).collect();
    let script = Script { gets, ..Default::default() };
    let broker = Broker::start_ageing(Duration::from_mins(1), Duration::from_secs(10), script);
    let client = broker.client();
    for _ in 0..10 {
        client.get(get()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(25)).await;
    }
    broker.seen(|seen| {
        assert_eq!(seen.gets, 10, "no call was made twice");
        assert!((4..=5).contains(&seen.connections), "{} connections", seen.connections);
    });
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_on_a_connection_that_is_asked_to_end_if_it_does_so_in_time() {
    let mut steps = vec![Step::Send(state("1", Running))];
    steps.extend(heartbeats(1));
    steps.extend([Step::Pause(Duration::from_secs(5)), Step::Send(end("2"))]);
    let script = Script { watches: vec![steps].into(), ..Default::default() };
    let broker = Broker::start_ageing(Duration::from_mins(1), Duration::from_secs(10), script);
    let mut watch = broker.client().watch(watch_request());
    assert_eq!(watch.next().await.unwrap().unwrap().cursor, "1");
    assert_eq!(watch.next().await.unwrap().unwrap().cursor, "2");
    broker.seen(|seen| assert_eq!(seen.watches.len(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_where_it_was_when_its_connection_was_too_old() {
    let mut first = vec![Step::Send(state("1", Running)), Step::Send(lines("2", &["a"]))];
    first.extend(heartbeats(10));
    let second = vec![Step::Send(state("3", Running)), Step::Send(lines("4", &["b"])), Step::Send(end("5"))];
    let script = Script { watches: vec![first, second].into(), ..Default::default() };
    let broker = Broker::start_ageing(Duration::from_mins(1), Duration::from_secs(10), script);
    let begin = Instant::now();
    let mut watch = broker.client().watch(watch_request());
    let mut shown = Vec::new();
    while let Some(event) = watch.next().await {
        shown.push(event.unwrap().cursor);
    }
    assert_eq!(shown, ["1", "2", "4", "5"]);
    assert!((70..72).contains(&begin.elapsed().as_secs()), "at the end of the grace: {:?}", begin.elapsed());
    broker.seen(|seen| assert_eq!((seen.watches[1].cursor.as_slice(), seen.connections), (b"2".as_slice(), 2)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fell_silent_is_noticed_by_its_pings_before_heartbeats_are_missed() {
    let first = vec![Step::Send(state("1", Running)), Step::Hang];
    let script = Script { watches: vec![first, vec![Step::Send(end("2"))]].into(), ..Default::default() };
    let broker = Broker::start(script);
    let mut watch = broker.client().watch(watch_request());
    assert_eq!(watch.next().await.unwrap().unwrap().cursor, "1");
    broker.fall_silent();
    let begin = Instant::now();
    assert_eq!(watch.next().await.unwrap().unwrap().cursor, "2");
    // Every 20 s a ping, and 10 s for its answer.
    assert!((10..=31).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_fell_silent_costs_the_next_call_nothing() {
    let gets = (0..2).map(|_| Answer::Give(execution(Running))).collect();
    let broker = Broker::start(Script { gets, ..Default::default() });
    let client = broker.client();
    client.get(get()).await.unwrap();
    broker.fall_silent();
    tokio::time::sleep(Duration::from_mins(1)).await;
    let begin = Instant::now();
    client.get(get()).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}
