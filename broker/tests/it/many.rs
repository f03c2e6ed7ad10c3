//! Many executions over one stream.

use podbroker::auth::{AllowedTargets, Authenticator, Caller, Token};
use podbroker::config::Limits;
use podbroker::error::Error;
use podbroker_proto::v1 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};
use wire::event::Event as Kind;
use wire::watch_executions_request::Request as Ask;
use wire::watch_executions_response::Item;

use crate::scripted::{Seen, end, state_changed};
use crate::world::{World, name, reason, watch_request};

type Asks = mpsc::Sender<wire::WatchExecutionsRequest>;
type Answers = Streaming<wire::WatchExecutionsResponse>;

async fn open(world: &World) -> (Asks, Answers) {
    open_as(world, None).await
}

async fn open_as(world: &World, token: Option<&Token>) -> (Asks, Answers) {
    let (asks, requests) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(requests));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {}", token.expose()).parse().unwrap());
    }
    let answers = world.client().await.watch_executions(request).await.unwrap().into_inner();
    (asks, answers)
}

async fn add(asks: &Asks, target: &str, id: &str) {
    ask(asks, Ask::Add(watch_request(target, id))).await;
}

async fn ask(asks: &Asks, request: Ask) {
    asks.send(wire::WatchExecutionsRequest { request: Some(request) }).await.unwrap();
}

async fn next(answers: &mut Answers) -> (String, Item) {
    let answer = answers.message().await.unwrap().unwrap();
    (answer.name, answer.item.unwrap())
}

async fn failure(answers: &mut Answers) -> (String, wire::WatchFailure) {
    match next(answers).await {
        (name, Item::Failure(failure)) => (name, failure),
        other => panic!("{other:?}"),
    }
}

async fn event(answers: &mut Answers) -> (String, Kind) {
    match next(answers).await {
        (name, Item::Event(event)) => (name, event.event.unwrap()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_answer_names_its_execution_and_all_ends_when_all_have_ended() {
    let world = World::new();
    let (x, y) = (world.alpha.expect_watch("x"), world.beta.expect_watch("y"));
    let (asks, mut answers) = open(&world).await;
    add(&asks, "alpha", "x").await;
    add(&asks, "beta", "y").await;

    x.send(Ok(state_changed("alpha", "x"))).await.unwrap();
    assert!(matches!(event(&mut answers).await, (of, Kind::StateChanged(_)) if of == name("alpha", "x")));
    y.send(Ok(state_changed("beta", "y"))).await.unwrap();
    assert!(matches!(event(&mut answers).await, (of, Kind::StateChanged(_)) if of == name("beta", "y")));
    // The client asks for nothing more; what it asked for goes on.
    drop(asks);
    x.send(Ok(end("alpha", "x"))).await.unwrap();
    drop(x);
    assert!(matches!(event(&mut answers).await, (_, Kind::End(_))));
    y.send(Ok(end("beta", "y"))).await.unwrap();
    drop(y);
    assert!(matches!(event(&mut answers).await, (_, Kind::End(_))));
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn one_that_cannot_be_followed_does_not_end_the_others() {
    let token = Token::random();
    let targets = AllowedTargets::Only(["alpha".parse().unwrap()].into());
    let caller = Caller { subject: "a".to_owned(), tenant: "default".parse().unwrap(), targets };
    let world = World::with(Authenticator::Tokens(vec![(token.digest(), caller)]), &Limits::default());
    let x = world.alpha.expect_watch("x");
    let (asks, mut answers) = open_as(&world, Some(&token)).await;
    add(&asks, "alpha", "x").await;
    x.send(Ok(state_changed("alpha", "x"))).await.unwrap();
    event(&mut answers).await;

    for (request, code, why) in [
        (watch_request("alpha", "gone"), Code::NotFound, "NO_SUCH_EXECUTION"),
        (watch_request("beta", "y"), Code::PermissionDenied, "TARGET_NOT_ALLOWED"),
        (watch_request("gamma", "z"), Code::NotFound, "NO_SUCH_TARGET"),
        (
            wire::WatchExecutionRequest { name: "??".to_owned(), ..Default::default() },
            Code::InvalidArgument,
            "INVALID_REQUEST",
        ),
    ] {
        let expected = request.name.clone();
        ask(&asks, Ask::Add(request)).await;
        let (of, failure) = failure(&mut answers).await;
        assert_eq!((of, failure.code, failure.reason.as_str()), (expected, i32::from(code), why));
        assert!(!failure.message.is_empty() && failure.retry_delay.is_none());
    }
    x.send(Err(Error::NotInStep { target: "alpha".to_owned() })).await.unwrap();
    let (of, failed) = failure(&mut answers).await;
    assert_eq!((of, failed.reason.as_str()), (name("alpha", "x"), "BACKEND_UNAVAILABLE"));
    assert!(failed.retry_delay.is_some(), "waiting helps");
    // And it may be added again.
    let again = world.alpha.expect_watch("x");
    add(&asks, "alpha", "x").await;
    again.send(Ok(end("alpha", "x"))).await.unwrap();
    assert!(matches!(event(&mut answers).await, (_, Kind::End(_))));
}

#[tokio::test]
async fn one_that_is_removed_is_followed_no_longer() {
    let world = World::new();
    let x = world.alpha.expect_watch("x");
    let (asks, mut answers) = open(&world).await;
    add(&asks, "alpha", "x").await;
    x.send(Ok(state_changed("alpha", "x"))).await.unwrap();
    event(&mut answers).await;

    ask(&asks, Ask::Remove(name("alpha", "x"))).await;
    x.closed().await;
    ask(&asks, Ask::Remove("never added".to_owned())).await;
    drop(asks);
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn one_that_is_added_twice_is_followed_anew_from_the_cursor_given() {
    let world = World::new();
    let (first, second) = (world.alpha.expect_watch("x"), world.alpha.expect_watch("x"));
    let (asks, mut answers) = open(&world).await;
    add(&asks, "alpha", "x").await;
    first.send(Ok(state_changed("alpha", "x"))).await.unwrap();
    event(&mut answers).await;

    let request = wire::WatchExecutionRequest { cursor: b"here".to_vec(), ..watch_request("alpha", "x") };
    ask(&asks, Ask::Add(request)).await;

    first.closed().await;
    second.send(Ok(end("alpha", "x"))).await.unwrap();
    assert!(matches!(event(&mut answers).await, (_, Kind::End(_))));
    let seen = world.alpha.seen();
    let [Seen::Watch(_, _, start, _), Seen::Watch(_, _, cursor, _)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((start.as_slice(), cursor.as_slice()), (b"".as_slice(), b"here".as_slice()));
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_a_heartbeat_of_the_stream_itself() {
    let world = World::new();
    let _x = world.alpha.expect_watch("x");
    let (asks, mut answers) = open(&world).await;
    add(&asks, "alpha", "x").await;
    for _ in 0..2 {
        assert_eq!(event(&mut answers).await, (String::new(), Kind::Heartbeat(wire::Heartbeat {})));
    }
}

#[tokio::test]
async fn a_request_that_asks_for_nothing_ends_the_stream() {
    let world = World::new();
    let (asks, mut answers) = open(&world).await;
    asks.send(wire::WatchExecutionsRequest { request: None }).await.unwrap();
    let status = answers.message().await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
}

#[tokio::test]
async fn each_execution_counts_as_a_watch() {
    let world = World::with(Authenticator::Open, &Limits { max_watches: 1, ..Limits::default() });
    let (x, y) = (world.alpha.expect_watch("x"), world.alpha.expect_watch("y"));
    let (asks, mut answers) = open(&world).await;
    add(&asks, "alpha", "x").await;
    x.send(Ok(state_changed("alpha", "x"))).await.unwrap();
    event(&mut answers).await;

    add(&asks, "alpha", "y").await;
    let (of, failed) = failure(&mut answers).await;
    assert_eq!((of, failed.reason.as_str()), (name("alpha", "y"), "OVERLOADED"));
    assert!(failed.retry_delay.is_some());

    ask(&asks, Ask::Remove(name("alpha", "x"))).await;
    x.closed().await;
    add(&asks, "alpha", "y").await;
    y.send(Ok(end("alpha", "y"))).await.unwrap();
    assert!(matches!(event(&mut answers).await, (_, Kind::End(_))));
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_all_of_its_watches() {
    let world = World::new();
    let (x, y) = (world.alpha.expect_watch("x"), world.alpha.expect_watch("y"));
    let (asks, mut answers) = open(&world).await;
    for (id, events) in [("x", &x), ("y", &y)] {
        add(&asks, "alpha", id).await;
        events.send(Ok(state_changed("alpha", id))).await.unwrap();
        event(&mut answers).await;
    }
    drop((asks, answers));
    x.closed().await;
    y.closed().await;
}
