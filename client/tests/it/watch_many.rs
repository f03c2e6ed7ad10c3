//! Many executions over one stream.

use std::time::Duration;

use podbroker_client::proto::ExecutionState::Running;
use podbroker_client::proto::watch_executions_request::Request;
use podbroker_client::proto::watch_executions_response::Item;
use podbroker_client::{WatchMany, proto};
use tokio::time::Instant;
use tonic::Status;

use crate::broker::{Broker, Burst, Script, end, heartbeat, lines, state};

fn broker(many: Vec<Vec<Burst>>) -> Broker {
    Broker::start(Script { many: many.into(), ..Default::default() })
}

fn add(name: &str) -> proto::WatchExecutionRequest {
    proto::WatchExecutionRequest { name: name.to_owned(), ..Default::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "a burst is made of results")]
fn of(name: &str, event: proto::Event) -> Result<proto::WatchExecutionsResponse, Status> {
    Ok(proto::WatchExecutionsResponse { name: name.to_owned(), item: Some(Item::Event(event)) })
}

#[expect(clippy::unnecessary_wraps, reason = "a burst is made of results")]
fn failure(name: &str, code: tonic::Code, reason: &str) -> Result<proto::WatchExecutionsResponse, Status> {
    let failure = proto::WatchFailure { code: code.into(), reason: reason.to_owned(), ..Default::default() };
    Ok(proto::WatchExecutionsResponse { name: name.to_owned(), item: Some(Item::Failure(failure)) })
}

/// The next event as its execution and cursor, or the reason why it is followed no longer.
async fn next(watch: &mut WatchMany) -> Option<String> {
    let followed = watch.next().await?.unwrap();
    let event = followed.event.map(|event| String::from_utf8(event.cursor.to_vec()).unwrap());
    Some(format!("{} {}", followed.name, event.unwrap_or_else(|error| error.reason)))
}

/// What the broker was asked, as signs, names and cursors.
fn asked(broker: &Broker) -> Vec<String> {
    let one = |request: &proto::WatchExecutionsRequest| match request.request.as_ref().unwrap() {
        Request::Add(add) => format!("+{} {}", add.name, String::from_utf8(add.cursor.clone()).unwrap()),
        Request::Remove(name) => format!("-{name}"),
    };
    broker.seen(|seen| seen.many.iter().map(one).collect())
}

#[tokio::test(start_paused = true)]
async fn executions_are_followed_to_their_ends_over_one_stream() {
    let broker = broker(vec![vec![
        vec![of("a", state("a1", Running)), of("", heartbeat())],
        vec![of("b", state("b1", Running)), of("a", end("a2")), of("b", end("b2"))],
    ]]);
    let (follower, mut watch) = broker.client().watch_many();
    assert!(follower.add(add("a")).await);
    assert_eq!(next(&mut watch).await.unwrap(), "a a1");
    assert!(follower.add(add("b")).await);
    drop(follower);
    assert_eq!(next(&mut watch).await.unwrap(), "b b1");
    assert_eq!(next(&mut watch).await.unwrap(), "a a2");
    assert_eq!(next(&mut watch).await.unwrap(), "b b2");
    assert_eq!(next(&mut watch).await, None);
    broker.seen(|seen| assert_eq!(seen.connections, 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_owns_it_adds_and_removes_by_itself() {
    let broker = broker(vec![vec![vec![], vec![of("b", state("b1", Running))], vec![of("b", end("b2"))]]]);
    let (_follower, mut watch) = broker.client().watch_many();
    watch.add(add("a"));
    watch.add(add("b"));
    assert_eq!(next(&mut watch).await.unwrap(), "b b1");
    watch.remove("a".to_owned());
    assert_eq!(next(&mut watch).await.unwrap(), "b b2");
    let mut told = asked(&broker);
    told.sort();
    assert_eq!(told, ["+a ", "+b ", "-a"]);
}

#[tokio::test(start_paused = true)]
async fn each_execution_is_resumed_by_its_own_cursor() {
    let gone = || Err(Status::unavailable("going away"));
    let broker = broker(vec![
        vec![
            vec![of("a", state("a1", Running)), of("a", lines("a2", &["x"]))],
            vec![of("b", state("b1", Running)), gone()],
        ],
        vec![
            vec![],
            vec![of("a", state("a3", Running)), of("b", state("b2", Running)), of("a", end("a4")), of("b", end("b3"))],
        ],
    ]);
    let (follower, mut watch) = broker.client().watch_many();
    follower.add(add("a")).await;
    assert_eq!(next(&mut watch).await.unwrap(), "a a1");
    assert_eq!(next(&mut watch).await.unwrap(), "a a2");
    follower.add(add("b")).await;
    drop(follower);
    let mut rest = Vec::new();
    while let Some(event) = next(&mut watch).await {
        rest.push(event);
    }
    assert_eq!(rest, ["b b1", "a a4", "b b3"], "the repeated states are not shown");
    let mut again = asked(&broker).split_off(2);
    again.sort();
    assert_eq!(again, ["+a a2", "+b b1"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_followed_does_not_end_the_others() {
    let broker = broker(vec![vec![
        vec![failure("a", tonic::Code::NotFound, "NO_SUCH_EXECUTION")],
        vec![failure("b", tonic::Code::Unavailable, "BACKEND_UNAVAILABLE")],
        vec![of("b", end("b1"))],
    ]]);
    let (follower, mut watch) = broker.client().watch_many();
    let begin = Instant::now();
    follower.add(add("a")).await;
    follower.add(add("b")).await;
    drop(follower);
    assert_eq!(next(&mut watch).await.unwrap(), "a NO_SUCH_EXECUTION");
    assert_eq!(next(&mut watch).await.unwrap(), "b b1");
    assert_eq!(next(&mut watch).await, None);
    assert_eq!(asked(&broker), ["+a ", "+b ", "+b "]);
    assert!(begin.elapsed() >= Duration::from_millis(50), "it was not added again at once");
}

#[tokio::test(start_paused = true)]
async fn one_that_was_removed_is_not_heard_of_and_comes_back_over_another_stream() {
    let broker = broker(vec![
        vec![
            vec![of("a", state("a1", Running))],
            vec![of("a", lines("a2", &["late"]))],
            vec![of("b", state("b1", Running))],
        ],
        vec![vec![], vec![of("a", state("a3", Running)), of("a", end("a4")), of("b", end("b2"))]],
    ]);
    let begin = Instant::now();
    let (follower, mut watch) = broker.client().watch_many();
    follower.add(add("a")).await;
    assert_eq!(next(&mut watch).await.unwrap(), "a a1");
    follower.remove("a").await;
    follower.add(add("b")).await;
    assert_eq!(next(&mut watch).await.unwrap(), "b b1");
    follower.add(add("a")).await;
    drop(follower);
    let mut rest = Vec::new();
    while let Some(event) = next(&mut watch).await {
        rest.push(event);
    }
    assert_eq!(rest, ["a a3", "a a4", "b b2"]);
    assert!(begin.elapsed() < Duration::from_secs(1), "it does not wait for the old stream to fall silent");
    let first: Vec<String> = asked(&broker).into_iter().take(3).collect();
    assert_eq!(first, ["+a ", "-a", "+b "]);
}

#[tokio::test(start_paused = true)]
async fn nothing_to_follow_opens_nothing() {
    let broker = broker(vec![]);
    let (follower, mut watch) = broker.client().watch_many();
    assert!(tokio::time::timeout(Duration::from_hours(1), watch.next()).await.is_err());
    broker.seen(|seen| assert_eq!(seen.connections, 0));
    drop(follower);
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_executions_share_a_stream() {
    let names: Vec<String> = (0..1000).map(|number| format!("e{number:03}")).collect();
    let bursts = names.iter().map(|name| vec![of(name, end(name))]).collect();
    let broker = broker(vec![bursts]);
    let (follower, mut watch) = broker.client().watch_many();
    let adding = async {
        for name in &names {
            assert!(follower.add(add(name)).await);
        }
        drop(follower);
    };
    let reading = async {
        let mut count = 0;
        while next(&mut watch).await.is_some() {
            count += 1;
        }
        count
    };
    // The first is polled to its end before the second is over, since it fills a bounded queue that the second empties.
    let ((), count) = tokio::join!(adding, reading);
    assert_eq!(count, 1000);
}
