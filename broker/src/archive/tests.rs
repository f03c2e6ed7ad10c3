//! The archive on a store in memory, with a backend that says what the test says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use proptest::prelude::*;

use super::index::{Claim, generations, json, text};
use super::mark::Mark;
use super::writer::Writer;
use super::*;
use crate::backend::{Backend, Cancel, Check, EventStream, Filter, Health, Origin, Presence, Submitted, View};
use crate::error::Error;
use crate::execution::{
    Attempt, Completeness, ContainerRole, Cursor, Event, EventKind, ExecutionId, FinishAction, Follow, Gap, GapReason,
    Instance, InstancePosition, LogChunk, LogLine, LogMode, Notice, Outcome, Policies, Position, ResultSource,
    Severity, State, StreamKey, Submit, Tenant, WatchOptions,
};

const EVERYTHING: WatchOptions = WatchOptions {
    logs: LogMode::Lines,
    containers: Vec::new(),
    tail_lines: None,
    since: None,
    follow: Follow::UntilTheEnd,
    max_log_bytes: None,
};

fn address() -> Address {
    Address {
        instance: "main".parse().unwrap(),
        tenant: "default".parse().unwrap(),
        target: "prod".parse().unwrap(),
        id: "a".parse().unwrap(),
    }
}

fn execution(state: State) -> Execution {
    let outcome = Outcome {
        state,
        class: None,
        reason: String::new(),
        message: String::new(),
        containers: Vec::new(),
        exit_code: Some(0),
    };
    Execution {
        address: address(),
        labels: BTreeMap::new(),
        state,
        state_reason: String::new(),
        outcome: state.is_final().then_some(outcome),
        attempts: vec![attempt(state)],
        policies: Policies {
            start_deadline: None,
            run_deadline: None,
            finish: FinishAction::Delete,
            ttl: Duration::from_hours(24),
            result: ResultSource::Sidecar,
            result_max_bytes: 1,
            deciding_containers: Vec::new(),
            drain_deadline: Duration::from_secs(30),
            infra_retry: None,
            orphan_after: None,
        },
        created: Some(Timestamp::UNIX_EPOCH),
        started: None,
        ended: Some(Timestamp::now()).filter(|_| state.is_final()),
        digest: "d".repeat(64),
        cancel: None,
        released: None,
        pod_json: None,
    }
}

fn attempt(state: State) -> Attempt {
    Attempt {
        number: 1,
        state,
        pod_name: "a-1".to_owned(),
        pod_namespace: "pods".to_owned(),
        pod_uid: "uid".to_owned(),
        node_name: "node".to_owned(),
    }
}

fn instance(container: &str) -> Instance {
    Instance { attempt: 1, container: container.to_owned(), restart: 0, role: ContainerRole::Deciding }
}

fn stream_key(container: &str) -> StreamKey {
    StreamKey { attempt: 1, container: container.to_owned(), restart: 0 }
}

/// Tells a story as a backend does: each event with the cursor after it.
struct Teller {
    cursor: Cursor,
    marks: BTreeMap<String, Mark>,
    events: Vec<Event>,
}

impl Teller {
    fn new() -> Self {
        let cursor = Cursor::start(address().hash());
        let mut teller = Self { cursor, marks: BTreeMap::new(), events: Vec::new() };
        teller.say(EventKind::StateChanged(Box::new(execution(State::Running))));
        teller.cursor.attempts_started = 1;
        teller.say(EventKind::AttemptStarted(attempt(State::Running)));
        teller
    }

    fn say(&mut self, kind: EventKind) {
        self.events.push(Event { cursor: self.cursor.clone(), kind });
    }

    fn lines(&mut self, container: &str, lines: &[(i64, String)]) {
        let key = stream_key(container);
        let mark = self.marks.entry(container.to_owned()).or_insert(Mark::START);
        let mut position = self.cursor.stream(&key);
        self.cursor.set_stream(&key, position);
        let before = self.cursor.clone();
        let lines: Vec<_> = lines.iter().map(|(nanos, content)| line(*nanos, content)).collect();
        for line in &lines {
            *mark = mark.after(line.nanos);
            position = mark.position(&line.content);
        }
        self.cursor.set_stream(&key, position);
        self.say(EventKind::LogChunk(LogChunk { instance: instance(container), lines, before }));
    }

    fn gap(&mut self, container: &str) {
        self.say(EventKind::LogGap(rotated(container)));
    }

    fn end(mut self) -> Vec<Event> {
        for container in self.marks.keys().cloned().collect::<Vec<_>>() {
            let complete = InstancePosition { position: Position::Complete, skip: 0 };
            self.cursor.set_stream(&stream_key(&container), complete);
            self.say(EventKind::LogStreamEnd(instance(&container), Completeness::Complete));
        }
        self.cursor.result_sent = true;
        self.say(EventKind::Result(ResultSource::Sidecar, Ok(Bytes::from_static(b"{\"rows\": 42}"))));
        self.cursor.end_attempt(1);
        let last = execution(State::Succeeded);
        self.say(EventKind::AttemptEnded(attempt(State::Succeeded), last.outcome.clone().unwrap()));
        self.say(EventKind::End(Box::new(last)));
        self.events
    }
}

fn line(nanos: i64, content: &str) -> LogLine {
    LogLine { nanos, content: Bytes::from(content.to_owned()), continues: false, partial: false }
}

fn rotated(container: &str) -> Gap {
    Gap {
        instance: instance(container),
        reason: GapReason::Rotated,
        after: None,
        before: None,
        lines_at_least: 0,
        message: "rotated".to_owned(),
    }
}

/// A backend with at most one execution.
struct Fake {
    events: Mutex<Option<Vec<Event>>>,
    /// A watch breaks off after so many events; the first event is told again by each.
    breaks_after: usize,
    watches: AtomicUsize,
}

impl Fake {
    fn new(events: Option<Vec<Event>>) -> Arc<Self> {
        Arc::new(Self { events: Mutex::new(events), breaks_after: usize::MAX, watches: AtomicUsize::new(0) })
    }

    fn missing() -> Error {
        Error::NoSuchExecution { name: address().name().to_string() }
    }

    fn execution(&self) -> Option<Execution> {
        let events = self.events.lock().unwrap();
        let last = events.as_ref()?.last().map(|event| event.kind.clone());
        Some(match last {
            Some(EventKind::End(last)) => *last,
            _ => execution(State::Running),
        })
    }
}

#[async_trait]
impl Backend for Fake {
    async fn submit(&self, _: &Tenant, _: Submit) -> Result<Submitted, Error> {
        let execution = self.execution().ok_or_else(Self::missing)?;
        Ok(Submitted { execution, claim: "claim".to_owned(), origin: Origin::Found })
    }

    async fn get(&self, _: &Tenant, id: &ExecutionId, _: View) -> Result<Execution, Error> {
        self.execution().filter(|execution| execution.address.id == *id).ok_or_else(Self::missing)
    }

    async fn list(&self, _: &Tenant, _: &Filter) -> Result<Vec<Execution>, Error> {
        Ok(Vec::new())
    }

    async fn watch(&self, _: &Tenant, _: &ExecutionId, cursor: &[u8], _: WatchOptions) -> Result<EventStream, Error> {
        self.watches.fetch_add(1, Ordering::Relaxed);
        let events = self.events.lock().unwrap().clone().ok_or_else(Self::missing)?;
        let had = if cursor.is_empty() {
            0
        } else {
            let stands = place(&Cursor::decode(cursor, &address().hash())?);
            events.iter().position(|event| place(&event.cursor) == stands).map_or(events.len(), |at| at + 1)
        };
        let first = events.first().cloned().filter(|_| had > 0);
        let rest: Vec<_> = first.into_iter().chain(events[had..].to_vec()).take(self.breaks_after).collect();
        Ok(stream::iter(rest).map(Ok).boxed())
    }

    async fn copy(
        &self,
        tenant: &Tenant,
        id: &ExecutionId,
        cursor: &[u8],
        options: WatchOptions,
    ) -> Result<EventStream, Error> {
        self.watch(tenant, id, cursor, options).await
    }

    async fn cancel(&self, _: &Tenant, _: &ExecutionId, _: Cancel) -> Result<Execution, Error> {
        self.execution().ok_or_else(Self::missing)
    }

    async fn release(&self, _: &Tenant, _: &ExecutionId, _: Option<&str>) -> Result<Execution, Error> {
        self.execution().ok_or_else(Self::missing)
    }

    fn census(&self) -> BoxStream<'static, Presence> {
        let all = self.execution().map(|execution| execution.address).into_iter().collect();
        stream::iter([Presence::All(all)]).chain(stream::pending()).boxed()
    }

    fn health(&self) -> Health {
        Health::Serving
    }

    fn check(&self) -> BoxStream<'static, Check> {
        stream::empty().boxed()
    }
}

/// What tells one place in a story from another.
fn place(cursor: &Cursor) -> (u32, u32, bool, Vec<u32>, BTreeMap<StreamKey, Position>) {
    let streams = cursor.streams.iter().map(|(key, position)| (key.clone(), position.position));
    let Cursor { attempts_started, attempts_ended, result_sent, .. } = *cursor;
    (attempts_started, attempts_ended, result_sent, cursor.notices.clone(), streams.collect())
}

struct World {
    objects: Arc<InMemory>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl World {
    fn new() -> Self {
        Self { objects: Arc::default(), tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// One more replica's archive on the same store.
    async fn archive(&self) -> Arc<Archive> {
        let settings = Settings {
            instance: "main".parse().unwrap(),
            retention: Duration::from_hours(24),
            segment_bytes: 200,
            flush: Duration::from_mins(1),
            memory: 1 << 20,
            patience: Duration::from_mins(10),
            place: Place::Here,
        };
        let objects = Arc::<InMemory>::clone(&self.objects);
        let counters = ArchiveCounters::default();
        Archive::open(settings, objects, "some/prefix", counters, &self.tasks, &self.stop).await.unwrap()
    }

    /// Archives what a backend has, to its end.
    async fn archived(&self, backend: &Arc<Fake>) -> Arc<Archive> {
        let archive = self.archive().await;
        let (gone, stop) = (CancellationToken::new(), self.stop.clone());
        let urge = archive.enter(&address());
        Arc::clone(&archive).keep(Arc::<Fake>::clone(backend), address(), urge, gone, stop).await;
        archive
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn served(backend: &Arc<Fake>, archive: &Arc<Archive>) -> Archived {
    Archived::new(Arc::<Fake>::clone(backend), Arc::clone(archive), "prod".parse().unwrap())
}

async fn watch(backend: &Archived, cursor: &[u8], options: WatchOptions) -> Vec<Event> {
    let address = address();
    let events = backend.watch(&address.tenant, &address.id, cursor, options).await.unwrap();
    events.map(Result::unwrap).collect().await
}

fn texts(events: &[Event], container: &str) -> Vec<String> {
    let chunks = events.iter().filter_map(|event| match &event.kind {
        EventKind::LogChunk(chunk) if chunk.instance.container == container => Some(&chunk.lines),
        _ => None,
    });
    chunks.flatten().map(|line| String::from_utf8(line.content.to_vec()).unwrap()).collect()
}

fn gaps(events: &[Event]) -> Vec<GapReason> {
    let gap = |event: &Event| match &event.kind {
        EventKind::LogGap(gap) => Some(gap.reason),
        _ => None,
    };
    events.iter().filter_map(gap).collect()
}

fn numbered(range: std::ops::Range<i64>) -> Vec<(i64, String)> {
    range.map(|n| (n, format!("line {n}"))).collect()
}

fn words(range: std::ops::Range<i64>) -> Vec<String> {
    numbered(range).into_iter().map(|(_, text)| text).collect()
}

fn story() -> Vec<Event> {
    let mut teller = Teller::new();
    for ten in 0..10 {
        teller.lines("base", &numbered(ten * 10..ten * 10 + 10));
        teller.lines("side", &numbered(ten * 3..ten * 3 + 3));
    }
    let notice = Notice { code: "CONTAINER_RESTARTED", message: "again".to_owned(), severity: Severity::Info };
    teller.cursor.add_notice(7);
    teller.say(EventKind::Notice(notice));
    teller.end()
}

#[tokio::test]
async fn what_the_cluster_has_no_longer_is_told_from_the_archive() {
    let world = World::new();
    let backend = Fake::new(Some(story()));
    let archive = world.archived(&backend).await;
    assert_eq!(archive.may_go(&address()), Parting::Go);
    *backend.events.lock().unwrap() = None;
    let backend = served(&backend, &archive);

    let events = watch(&backend, b"", EVERYTHING).await;
    assert_eq!(texts(&events, "base"), words(0..100));
    assert_eq!(texts(&events, "side"), words(0..30));
    assert!(matches!(&events[0].kind, EventKind::StateChanged(now) if now.state == State::Ending));
    assert!(matches!(&events.last().unwrap().kind, EventKind::End(last) if last.state == State::Succeeded));
    let count = |wanted: fn(&EventKind) -> bool| events.iter().filter(|event| wanted(&event.kind)).count();
    assert_eq!(count(|kind| matches!(kind, EventKind::Result(_, Ok(value)) if value.starts_with(b"{"))), 1);
    assert_eq!(count(|kind| matches!(kind, EventKind::Notice(_))), 1);
    assert_eq!(count(|kind| matches!(kind, EventKind::AttemptStarted(_))), 1);
    assert_eq!(count(|kind| matches!(kind, EventKind::AttemptEnded(..))), 1);
    assert_eq!(count(|kind| matches!(kind, EventKind::LogStreamEnd(_, Completeness::Complete))), 2);
    assert!(gaps(&events).is_empty());

    let got = backend.get(&address().tenant, &address().id, View::Basic).await.unwrap();
    assert_eq!(got.state, State::Succeeded);
}

#[tokio::test]
async fn another_tenant_does_not_exist_in_the_archive_either() {
    let world = World::new();
    let backend = Fake::new(Some(story()));
    let archive = world.archived(&backend).await;
    *backend.events.lock().unwrap() = None;
    let backend = served(&backend, &archive);
    let other: Tenant = "other".parse().unwrap();
    let got = backend.get(&other, &address().id, View::Basic).await;
    assert!(matches!(got, Err(Error::NoSuchExecution { .. })), "{got:?}");
    let watched = backend.watch(&other, &address().id, b"", EVERYTHING).await;
    assert!(matches!(watched.err(), Some(Error::NoSuchExecution { .. })));
}

#[tokio::test]
async fn wherever_a_live_watch_was_left_it_goes_on_in_the_archive() {
    let world = World::new();
    let story = story();
    let backend = Fake::new(Some(story.clone()));
    let archive = world.archived(&backend).await;
    *backend.events.lock().unwrap() = None;
    let backend = served(&backend, &archive);
    for (index, left) in story.iter().enumerate() {
        let events = watch(&backend, &left.cursor.encode(), EVERYTHING).await;
        let (had, all) = (texts(&story[..=index], "base"), texts(&story, "base"));
        assert_eq!(texts(&events, "base"), all[had.len()..], "after {index}");
        assert!(gaps(&events).is_empty(), "after {index}");
        let results = events.iter().filter(|event| matches!(event.kind, EventKind::Result(..))).count();
        assert_eq!(results, usize::from(!left.cursor.result_sent), "after {index}");
        assert!(matches!(events.last().unwrap().kind, EventKind::End(_)));
    }
    // In the middle of a chunk, as a client that died there has it.
    let chunk = story.iter().find_map(|event| match &event.kind {
        EventKind::LogChunk(chunk) if chunk.lines[0].nanos == 20 => Some(chunk),
        _ => None,
    });
    let mut cursor = chunk.unwrap().before.encode_inside(&stream_key("base"));
    cursor.extend(4_u32.to_be_bytes());
    assert_eq!(texts(&watch(&backend, &cursor, EVERYTHING).await, "base"), words(24..100));
}

#[tokio::test]
async fn cursors_of_the_archive_lead_on_in_the_archive() {
    let world = World::new();
    let backend = Fake::new(Some(story()));
    let archive = world.archived(&backend).await;
    *backend.events.lock().unwrap() = None;
    let backend = served(&backend, &archive);
    let all = watch(&backend, b"", EVERYTHING).await;
    for (index, left) in all.iter().enumerate() {
        let rest = watch(&backend, &left.cursor.encode(), EVERYTHING).await;
        assert_eq!([texts(&all[..=index], "side"), texts(&rest, "side")].concat(), words(0..30), "after {index}");
    }
}

#[tokio::test]
async fn options_hold_in_the_archive_as_they_do_live() {
    let world = World::new();
    let backend = Fake::new(Some(story()));
    let archive = world.archived(&backend).await;
    *backend.events.lock().unwrap() = None;
    let backend = served(&backend, &archive);

    let last = watch(&backend, b"", WatchOptions { tail_lines: Some(7), ..EVERYTHING }).await;
    assert_eq!((texts(&last, "base"), texts(&last, "side")), (words(93..100), words(23..30)));
    let since = Timestamp::from_nanosecond(95).unwrap();
    let young = watch(&backend, b"", WatchOptions { since: Some(since), ..EVERYTHING }).await;
    assert_eq!((texts(&young, "base"), texts(&young, "side")), (words(95..100), vec![]));
    let one = watch(&backend, b"", WatchOptions { containers: vec!["side".to_owned()], ..EVERYTHING }).await;
    assert_eq!((texts(&one, "base"), texts(&one, "side")), (vec![], words(0..30)));
    let none = watch(&backend, b"", WatchOptions { logs: LogMode::None, ..EVERYTHING }).await;
    assert!(texts(&none, "base").is_empty());
    assert!(none.iter().any(|event| matches!(event.kind, EventKind::Result(..))));
    let little = watch(&backend, b"", WatchOptions { max_log_bytes: Some(100), ..EVERYTHING }).await;
    assert!(gaps(&little).contains(&GapReason::BudgetExceeded));
    assert!(texts(&little, "base").len() < 30);
    let so_far = watch(&backend, b"", WatchOptions { follow: Follow::SoFar, ..EVERYTHING }).await;
    assert_eq!(texts(&so_far, "base"), words(0..100));
    assert!(!so_far.iter().any(|event| matches!(event.kind, EventKind::End(_))));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_off_again_and_again_is_archived_whole() {
    let world = World::new();
    let backend = Arc::new(Fake { breaks_after: 3, ..Arc::into_inner(Fake::new(Some(story()))).unwrap() });
    let archive = world.archived(&backend).await;
    assert!(backend.watches.load(Ordering::Relaxed) > 5);
    *backend.events.lock().unwrap() = None;
    let events = watch(&served(&backend, &archive), b"", EVERYTHING).await;
    assert_eq!(texts(&events, "base"), words(0..100));
    assert!(gaps(&events).is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_replica_takes_over_where_a_dead_one_was() {
    let world = World::new();
    let story = story();
    let (first, second) = (world.archive().await, world.archive().await);
    let mut writer = first.claim(&address(), &Notify::new()).await.unwrap().unwrap();
    let mut begin = stream::iter(story[..12].to_vec()).map(Ok).boxed();
    assert_eq!(writer.listen(&mut begin, &world.stop).await, None);
    writer.write(&world.stop).await;
    second.life.sign(&second.store).await.unwrap();
    let backend = Fake::new(Some(story));
    let (gone, stop) = (CancellationToken::new(), world.stop.clone());
    let urge = second.enter(&address());
    let keeping =
        world.tasks.spawn(Arc::clone(&second).keep(Arc::<Fake>::clone(&backend), address(), urge, gone, stop));
    // The first is alive, so the second waits.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(generations(&second.store, &address().hash()).await.unwrap().len(), 1);
    assert_eq!(second.may_go(&address()), Parting::Stay);
    second.store.delete(&second.store.at(&["writers", first.life.me()])).await.unwrap();
    second.life.sign(&second.store).await.unwrap();
    keeping.await.unwrap();
    let known = generations(&second.store, &address().hash()).await.unwrap();
    assert_eq!(known.len(), 2);
    assert!(!known[1].claim.cursor.is_empty());
    *backend.events.lock().unwrap() = None;
    let events = watch(&served(&backend, &second), b"", EVERYTHING).await;
    assert_eq!((texts(&events, "base"), texts(&events, "side")), (words(0..100), words(0..30)));
    assert!(gaps(&events).is_empty());
    assert_eq!(second.may_go(&address()), Parting::Go);
}

#[tokio::test(start_paused = true)]
async fn an_archive_that_cannot_be_written_does_not_keep_pods_for_ever() {
    let world = World::new();
    let archive = world.archive().await;
    assert_eq!(archive.may_go(&address()), Parting::Stay, "one that the census has not told");
    archive.enter(&address());
    tokio::time::advance(Duration::from_hours(9)).await;
    assert_eq!(archive.may_go(&address()), Parting::Stay, "the patience begins with the first question");
    tokio::time::advance(Duration::from_secs(599)).await;
    assert_eq!(archive.may_go(&address()), Parting::Stay);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(archive.may_go(&address()), Parting::Go);
    assert_eq!(archive.counters.given_up.get(), 1);
}

#[tokio::test]
async fn lines_that_were_rotated_away_come_from_the_archive_and_the_rest_live() {
    let world = World::new();
    let whole = story();
    let backend = Fake::new(Some(whole.clone()));
    let archive = world.archive().await;
    let mut writer = archive.claim(&address(), &Notify::new()).await.unwrap().unwrap();
    let mut begin = stream::iter(whole[..14].to_vec()).map(Ok).boxed();
    writer.listen(&mut begin, &world.stop).await;
    writer.write(&world.stop).await;
    let running = whole[..whole.len() - 1].to_vec();
    *backend.events.lock().unwrap() = Some(running);
    let late = watch(&served(&backend, &archive), b"", EVERYTHING).await;
    assert_eq!((texts(&late, "base"), texts(&late, "side")), (words(0..100), words(0..30)));

    // The cluster says that it has them no longer; the watcher stood before that.
    let mut rest = Teller::new();
    rest.lines("base", &numbered(0..10));
    let stood = rest.cursor.encode();
    rest.gap("base");
    *backend.events.lock().unwrap() = Some(rest.events);
    let resumed = watch(&served(&backend, &archive), &stood, EVERYTHING).await;
    assert_eq!(texts(&resumed, "base"), words(10..60), "what the archive has behind the gap");
}

fn request() -> Submit {
    Submit {
        id: address().id,
        submit_before: Timestamp::now(),
        manifest: serde_json::Map::new(),
        labels: BTreeMap::new(),
        policies: crate::execution::PolicyRequest::default(),
        group: None,
        mode: crate::execution::SubmitMode::Create,
        subject: "me".to_owned(),
    }
}

#[tokio::test]
async fn a_submit_finds_what_is_only_in_the_archive() {
    let world = World::new();
    let digest = crate::execution::spec_digest(&request().manifest, &request().labels, &request().policies, None);
    let mut story = story();
    if let Some(Event { kind: EventKind::End(last), .. }) = story.last_mut() {
        last.digest = digest;
    }
    let backend = Fake::new(Some(story));
    let archive = world.archived(&backend).await;
    let archived = served(&backend, &archive);
    let there = archived.submit(&address().tenant, request()).await.unwrap();
    assert_eq!(there.claim, "claim", "the pod is the better witness");
    *backend.events.lock().unwrap() = None;
    let found = archived.submit(&address().tenant, request()).await.unwrap();
    assert_eq!((found.origin, found.execution.state), (Origin::Found, State::Succeeded));
    let other = Submit { labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]), ..request() };
    let refused = archived.submit(&address().tenant, other).await;
    assert!(matches!(refused, Err(Error::IdReused { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_old_enough_expires_and_leaves_nothing() {
    let world = World::new();
    let backend = Fake::new(Some(story()));
    let archive = world.archived(&backend).await;
    assert_eq!(archive.sweep(Timestamp::now()).await.unwrap(), 0);
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(24 * 3);
    assert_eq!(archive.sweep(later).await.unwrap(), 1);
    assert!(archive.outcome(&archive.store, &address()).await.unwrap().is_none());
    let left = archive.store.list(&archive.store.at(&[]), 100).await.unwrap();
    let left: Vec<_> = left.iter().map(|object| object.location.to_string()).collect();
    assert_eq!(left, [format!("some/prefix/main/writers/{}", archive.life.me())]);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_is_younger_than_the_last_look_is_not_dead() {
    let world = World::new();
    let first = world.archive().await;
    let second = world.archive().await;
    assert!(!first.life.is_alive(second.life.me()));
    let waiting = first.life.until_dead(&first.store, second.life.me());
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_err());
    let unknown = first.life.until_dead(&first.store, "nobody");
    assert!(tokio::time::timeout(Duration::from_secs(30), unknown).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_another_replica_has_archived_may_go_here_too() {
    let world = World::new();
    let (first, second) = (world.archive().await, world.archive().await);
    let backend = Fake::new(Some(story()));
    let writer = first.claim(&address(), &Notify::new()).await.unwrap().unwrap();
    let (gone, stop) = (CancellationToken::new(), world.stop.clone());
    let urge = second.enter(&address());
    let keeping =
        world.tasks.spawn(Arc::clone(&second).keep(Arc::<Fake>::clone(&backend), address(), urge, gone, stop));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(writer.run(&*backend, &world.stop).await, super::writer::Ending::Durable);
    assert_eq!(second.may_go(&address()), Parting::Stay);
    tokio::time::advance(URGENT).await;
    assert_eq!(second.may_go(&address()), Parting::Stay, "it looks again now");
    keeping.await.unwrap();
    assert_eq!(second.may_go(&address()), Parting::Go);
    assert_eq!(generations(&second.store, &address().hash()).await.unwrap().len(), 1, "nothing was written twice");
    assert_eq!(second.counters.given_up.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_claimed_an_execution_and_is_stuck_is_taken_over_when_it_is_urgent() {
    let world = World::new();
    let (first, second) = (world.archive().await, world.archive().await);
    let stuck = first.claim(&address(), &Notify::new()).await.unwrap().unwrap();
    let backend = Fake::new(Some(story()));
    let (gone, stop) = (CancellationToken::new(), world.stop.clone());
    let urge = second.enter(&address());
    let keeping =
        world.tasks.spawn(Arc::clone(&second).keep(Arc::<Fake>::clone(&backend), address(), urge, gone, stop));
    assert_eq!(second.may_go(&address()), Parting::Stay);
    tokio::time::sleep(URGENT).await;
    assert_eq!(second.may_go(&address()), Parting::Stay);
    keeping.await.unwrap();
    assert_eq!(second.may_go(&address()), Parting::Go);
    drop(stuck);
    *backend.events.lock().unwrap() = None;
    assert_eq!(texts(&watch(&served(&backend, &second), b"", EVERYTHING).await, "base"), words(0..100));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_keeps_nobody_from_a_live_execution() {
    let world = World::new();
    let open = world.archive().await;
    let hangs = ThrottleConfig {
        wait_get_per_call: Duration::from_hours(1),
        wait_list_per_call: Duration::from_hours(1),
        wait_list_with_delimiter_per_call: Duration::from_hours(1),
        ..ThrottleConfig::default()
    };
    let objects = Arc::new(ThrottledStore::new(Arc::<InMemory>::clone(&world.objects), hangs));
    let store = Arc::new(Store::new(objects, "some/prefix/main".into()));
    let reading = store.for_callers();
    let archive = Arc::new(Archive {
        settings: open.settings.clone(),
        store,
        reading,
        life: Arc::clone(&open.life),
        budget: Budget::new(1 << 20),
        counters: ArchiveCounters::default(),
        readers: Arc::new(Semaphore::new(1)),
        standings: Mutex::default(),
    });
    let backend = Fake::new(Some(story()));
    let archived = served(&backend, &archive);
    let began = Instant::now();
    assert_eq!(texts(&watch(&archived, b"", EVERYTHING).await, "base"), words(0..100));
    assert_eq!(archived.submit(&address().tenant, request()).await.unwrap().claim, "claim");
    assert!(archived.get(&address().tenant, &address().id, View::Basic).await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    *backend.events.lock().unwrap() = None;
    let unknown = archived.get(&address().tenant, &address().id, View::Basic).await;
    assert!(matches!(unknown, Err(Error::Archive { .. })), "not knowing is not knowing that there is none");
}

#[test]
fn the_memory_of_many_writers_is_bounded_together() {
    let budget = Budget::new(10_000);
    let mut segments: Vec<_> = (0..50).map(|_| super::segment::Segment::new(Arc::clone(&budget), Vec::new())).collect();
    let mut marks = HashMap::new();
    let event = || {
        let mut teller = Teller::new();
        teller.lines("base", &numbered(0..1));
        teller.events.pop().unwrap()
    };
    let mut stuck = Vec::new();
    let mut largest = 0;
    for _ in 0..1000 {
        for segment in &mut segments {
            if budget.presses(segment.len()) {
                // What is being written counts until it is written.
                stuck.extend(segment.close());
                continue;
            }
            if stuck.is_empty() {
                segment.take(event(), &mut marks);
            }
        }
        largest = largest.max(budget.held());
    }
    assert!(largest > 10_000, "{largest}");
    assert!(largest < 15_000 + 50 * 200, "{largest}");
    drop((segments, stuck));
    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn a_damaged_object_is_a_gap_and_keeps_nothing_from_expiring() {
    let world = World::new();
    let backend = Fake::new(Some(story()));
    let archive = world.archived(&backend).await;
    *backend.events.lock().unwrap() = None;
    let served = served(&backend, &archive);
    let whole = archive.store.list(&archive.store.execution(&address().hash()), 100).await.unwrap();
    let segments: Vec<_> = whole.iter().filter(|object| object.location.extension() == Some("gz")).collect();
    assert!(segments.len() > 3);
    archive.store.put(&segments[1].location, "garbage").await.unwrap();
    let events = watch(&served, b"", EVERYTHING).await;
    let told = texts(&events, "base");
    assert!(told.len() < 100 && told.last().unwrap() == "line 99", "{told:?}");
    assert!(gaps(&events).contains(&GapReason::ResumeAmbiguous));
    let is_said = |event: &Event| matches!(&event.kind, EventKind::Notice(notice) if notice.code == "ARCHIVE_DAMAGED");
    assert_eq!(events.iter().filter(|event| is_said(event)).count(), 1);
    assert!(matches!(events.last().unwrap().kind, EventKind::End(_)));

    let index = whole.iter().find(|object| object.location.as_ref().contains("index")).unwrap();
    archive.store.put(&index.location, "{").await.unwrap();
    let events = watch(&served, b"", EVERYTHING).await;
    assert_eq!(events.iter().filter(|event| is_said(event)).count(), 1);
    assert!(matches!(events.last().unwrap().kind, EventKind::End(_)));
    archive.store.put(&archive.store.outcome(&address().hash()), "[]").await.unwrap();
    let got = served.get(&address().tenant, &address().id, View::Basic).await;
    assert!(matches!(got, Err(Error::Archive { .. })), "{got:?}");
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(24 * 3);
    assert_eq!(archive.sweep(later).await.unwrap(), 1);
    assert_eq!(archive.sweep(later).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_still_being_written_does_not_expire_however_quiet_it_is() {
    let world = World::new();
    let archive = world.archive().await;
    let _writer = archive.claim(&address(), &Notify::new()).await.unwrap().unwrap();
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(24 * 30);
    assert_eq!(archive.sweep(later).await.unwrap(), 0);
    assert_eq!(generations(&archive.store, &address().hash()).await.unwrap().len(), 1);
    let day = archive.store.list(&archive.store.at(&["days"]), 10).await.unwrap();
    assert!(day[0].location.as_ref().contains(&later.to_string()[..10]), "{day:?}");
}

/// One writer of the property below: it hears the events of a range and closes a segment after some of them.
async fn write(archive: &Arc<Archive>, number: u32, events: &[Event], from: usize, to: usize, lost: Option<usize>) {
    let cursor = if from == 0 { Vec::new() } else { events[from - 1].cursor.encode() };
    let hash = address().hash();
    let claim = Claim { writer: "w".to_owned(), cursor: text(&cursor) };
    archive.store.create(&archive.store.generation(&hash, number, "claim.json"), json(&claim)).await.unwrap();
    let mut writer = Writer::new(Arc::clone(archive), address(), number, cursor);
    let mut heard = events[from..to].to_vec();
    // What this writer could not read is a gap for it.
    if let Some(lost) = lost
        && let Some(event) = heard.get_mut(lost)
        && let EventKind::LogChunk(chunk) = &event.kind
    {
        let container = chunk.instance.container.clone();
        let cursor = chunk.before.clone();
        *event = Event { cursor, kind: EventKind::LogGap(rotated(&container)) };
    }
    let mut heard = stream::iter(heard).map(Ok).boxed();
    writer.listen(&mut heard, &CancellationToken::new()).await;
    writer.write(&CancellationToken::new()).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn of_two_writers_each_line_is_told_once_and_in_order(
        chunks in prop::collection::vec((any::<bool>(), prop::collection::vec((-2_i64..4, "[ab]{0,2}"), 1..8)), 1..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 3),
        lost in prop::option::of(0_usize..20),
        left in any::<prop::sample::Index>(),
    ) {
        // A clock that stands still and goes back; lines that equal one another; two containers.
        let mut teller = Teller::new();
        let mut time = 100;
        for (is_base, lines) in &chunks {
            let lines: Vec<_> = lines.iter().map(|(step, content)| {
                time += step;
                (time, content.clone())
            }).collect();
            teller.lines(if *is_base { "base" } else { "side" }, &lines);
        }
        let events = teller.end();
        let count = events.len() - 1;
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(count + 1)).collect();
        cuts.sort_unstable();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let archive = world.archive().await;
            // The second began where the first had come to, and the first was not dead.
            write(&archive, 1, &events, 0, cuts[1].max(cuts[0]), None).await;
            write(&archive, 2, &events, cuts[0], count, None).await;
            let last = json(&super::Ended { execution: execution(State::Succeeded) });
            archive.store.create(&archive.store.outcome(&address().hash()), last).await.unwrap();
            let backend = served(&Fake::new(None), &archive);
            let all = watch(&backend, b"", EVERYTHING).await;
            for container in ["base", "side"] {
                assert_eq!(texts(&all, container), texts(&events, container));
            }
            assert!(gaps(&all).is_empty(), "{:?}", gaps(&all));
            let left = left.index(count);
            let rest = watch(&backend, &events[left].cursor.encode(), EVERYTHING).await;
            for container in ["base", "side"] {
                let had = texts(&events[..=left], container);
                assert_eq!([had, texts(&rest, container)].concat(), texts(&events, container));
            }
            assert!(gaps(&rest).is_empty());

            // The first could not read something: the second has it, or there is a gap in its place.
            let world = World::new();
            let archive = world.archive().await;
            write(&archive, 1, &events, 0, cuts[2], lost).await;
            write(&archive, 2, &events, cuts[0], count, None).await;
            let last = json(&super::Ended { execution: execution(State::Succeeded) });
            archive.store.create(&archive.store.outcome(&address().hash()), last).await.unwrap();
            let all = watch(&served(&Fake::new(None), &archive), b"", EVERYTHING).await;
            for container in ["base", "side"] {
                let (told, wrote) = (texts(&all, container), texts(&events, container));
                if told != wrote {
                    assert!(told.len() < wrote.len());
                    assert_eq!(gaps(&all), [GapReason::Rotated]);
                }
            }
        });
    }
}
