//! One watch on the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use podbroker::auth::Authenticator;
use podbroker::config::Limits;
use podbroker::error::Error;
use podbroker::execution::{Cursor, CursorError, Follow, LogMode, StreamKey};
use podbroker_proto::v1 as wire;
use tonic::{Code, Streaming};
use wire::event::Event as Kind;

use crate::scripted::{Seen, end, execution, lines, state_changed};
use crate::world::{World, reason, watch_request};

async fn watch(world: &World, id: &str) -> Streaming<wire::WatchExecutionResponse> {
    world.client().await.watch_execution(watch_request("alpha", id)).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<wire::WatchExecutionResponse>) -> wire::Event {
    stream.message().await.unwrap().unwrap().event.unwrap()
}

#[tokio::test]
async fn events_arrive_in_order_and_the_stream_ends_after_the_end() {
    let world = World::new();
    let events = world.alpha.expect_watch("x");
    let mut stream = watch(&world, "x").await;
    let texts: [&[u8]; 2] = [b"first", b"\xff not UTF-8"];
    let story = [state_changed("alpha", "x"), lines("alpha", "x", &texts), end("alpha", "x")];
    world.tasks.spawn(async move {
        for event in story {
            events.send(Ok(event)).await.unwrap();
        }
    });

    let first = next(&mut stream).await;
    let Some(Kind::StateChanged(changed)) = first.event else { panic!("{first:?}") };
    assert_eq!(changed.execution.unwrap().name, "targets/alpha/executions/x");
    let second = next(&mut stream).await;
    let Some(Kind::LogChunk(chunk)) = second.event else { panic!("{second:?}") };
    let contents: Vec<&[u8]> = chunk.lines.iter().map(|line| &line.content[..]).collect();
    assert_eq!(contents, texts);
    assert_eq!(chunk.lines[0].time_unix_nanos, 1_700_000_000_000_000_001);
    assert!(matches!(next(&mut stream).await.event, Some(Kind::End(_))));
    assert!(stream.message().await.unwrap().is_none());

    // Both kinds of cursor lead back to the same watch.
    let hash = execution("alpha", "default", "x").address.hash();
    assert_eq!(Cursor::decode(&second.cursor, &hash), Ok(Cursor::start(hash.clone())));
    let inside = [&chunk.line_cursor[..], &1_u32.to_be_bytes()].concat();
    let key = StreamKey { attempt: 1, container: "base".to_owned(), restart: 0 };
    assert_eq!(Cursor::decode(&inside, &hash).unwrap().stream(&key).skip, 1);

    let text = world.metrics.text().unwrap();
    assert!(text.contains("podbroker_lines_total 2"), "{text}");
    assert!(text.contains("podbroker_line_bytes_total 16"), "{text}");
}

#[tokio::test]
async fn what_the_watcher_wants_reaches_the_backend() {
    let world = World::new();
    let _events = world.alpha.expect_watch("x");
    let options = wire::WatchOptions {
        logs: wire::LogMode::None.into(),
        containers: vec!["base".to_owned()],
        tail_lines: 5,
        since: Some(prost_types::Timestamp { seconds: 7, nanos: 0 }),
        no_follow: true,
        max_log_bytes: 9,
    };
    let request =
        wire::WatchExecutionRequest { cursor: b"abc".to_vec(), options: Some(options), ..watch_request("alpha", "x") };
    world.client().await.watch_execution(request).await.unwrap();

    let seen = world.alpha.seen();
    let [Seen::Watch(tenant, id, cursor, options)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((tenant.as_str(), id.as_str(), cursor.as_slice()), ("default", "x", b"abc".as_slice()));
    assert_eq!((options.logs, options.follow), (LogMode::None, Follow::SoFar));
    assert_eq!((options.tail_lines, options.max_log_bytes), (Some(5), Some(9)));
    assert_eq!(options.since.unwrap().as_second(), 7);
    assert_eq!(options.containers, ["base"]);
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_a_heartbeat_every_15_seconds() {
    let world = World::new();
    let events = world.alpha.expect_watch("x");
    let mut stream = watch(&world, "x").await;
    let start = tokio::time::Instant::now();

    for beat in 1..=3 {
        let event = next(&mut stream).await;
        assert_eq!(event.event, Some(Kind::Heartbeat(wire::Heartbeat {})));
        assert!(event.cursor.is_empty(), "it must not move the position");
        assert_eq!(start.elapsed().as_secs(), 15 * beat);
    }
    tokio::time::advance(Duration::from_secs(10)).await;
    events.send(Ok(state_changed("alpha", "x"))).await.unwrap();
    assert!(matches!(next(&mut stream).await.event, Some(Kind::StateChanged(_))));
    next(&mut stream).await;
    assert_eq!(start.elapsed().as_secs(), 45 + 10 + 15, "an event starts the silence anew");
}

#[tokio::test]
async fn a_watcher_that_hangs_up_ends_the_stream_of_the_backend_and_nothing_else() {
    let world = World::new();
    let events = world.alpha.expect_watch("x");
    let mut stream = watch(&world, "x").await;
    events.send(Ok(state_changed("alpha", "x"))).await.unwrap();
    next(&mut stream).await;
    assert!(world.metrics.text().unwrap().contains("podbroker_open_watches 1"));

    drop(stream);

    events.closed().await;
    assert!(matches!(world.alpha.seen().as_slice(), [Seen::Watch(..)]), "no cancel");
    let text = world.metrics.text().unwrap();
    assert!(text.contains("podbroker_open_watches 0"), "{text}");
    assert!(text.contains(r#"podbroker_calls_total{rpc="WatchExecution",code="CANCELLED"} 1"#), "{text}");
}

#[tokio::test]
async fn an_error_in_the_middle_ends_the_stream_with_its_row() {
    let world = World::new();
    let events = world.alpha.expect_watch("x");
    let mut stream = watch(&world, "x").await;
    events.send(Ok(state_changed("alpha", "x"))).await.unwrap();
    next(&mut stream).await;

    events.send(Err(Error::Expired { name: "x".to_owned() })).await.unwrap();

    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "EXPIRED"));
    assert!(status.metadata().contains_key("x-request-id"));
    events.closed().await;
}

#[tokio::test]
async fn a_panic_in_the_middle_ends_this_stream_only() {
    let world = World::new();
    world.alpha.expect_stream("x", futures::stream::poll_fn(|_| panic!("as the test said")).boxed());
    let mut stream = watch(&world, "x").await;
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Internal);
    let _events = world.alpha.expect_watch("x");
    watch(&world, "x").await;
}

#[tokio::test]
async fn a_refused_cursor_is_an_invalid_cursor() {
    let world = World::new();
    world.alpha.surprise(crate::scripted::Surprise::Fail(Error::InvalidCursor(CursorError::Damaged)));
    let status = world.client().await.watch_execution(watch_request("alpha", "x")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_CURSOR"));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_does_not_read_stops_the_backend() {
    let world = World::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&asked);
    let content = Bytes::from(vec![b'x'; 64 << 10]);
    let endless = futures::stream::repeat_with(move || {
        counting.fetch_add(1, Ordering::Relaxed);
        Ok(lines("alpha", "x", &[&content]))
    });
    world.alpha.expect_stream("x", endless.boxed());
    let mut stream = watch(&world, "x").await;

    // Time that stands still passes only when nothing else can be done.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let full = asked.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(asked.load(Ordering::Relaxed), full, "nothing is read that cannot be sent");
    assert!((1..200).contains(&full), "{full} chunks of 64 KiB for a watcher that reads nothing");

    while asked.load(Ordering::Relaxed) == full {
        next(&mut stream).await;
    }
}

#[tokio::test]
async fn a_watch_too_many_is_told_to_come_back() {
    let world = World::with(Authenticator::Open, &Limits { max_watches: 1, ..Limits::default() });
    let (first, _second) = (world.alpha.expect_watch("x"), world.alpha.expect_watch("x"));
    let stream = watch(&world, "x").await;

    let status = world.client().await.watch_execution(watch_request("alpha", "x")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "OVERLOADED"));

    drop(stream);
    first.closed().await;
    watch(&world, "x").await;
}
