//! What callers are told from the archive.

use super::*;

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
    // The first ten lines of each are 7 bytes each with their ends, the others 8; "base" and "side" take turns.
    assert_eq!((texts(&little, "base"), texts(&little, "side")), (words(0..11), words(0..3)));
    assert_eq!(gaps(&little), [GapReason::BudgetExceeded; 2]);
    let so_far = watch(&backend, b"", WatchOptions { follow: Follow::SoFar, ..EVERYTHING }).await;
    assert_eq!(texts(&so_far, "base"), words(0..100));
    assert!(!so_far.iter().any(|event| matches!(event.kind, EventKind::End(_))));
}

#[tokio::test]
async fn a_byte_budget_counts_over_the_whole_watch_and_what_just_fits_is_no_gap() {
    let world = World::new();
    let backend = Fake::new(Some(story()));
    let archive = world.archived(&backend).await;
    *backend.events.lock().unwrap() = None;
    let backend = served(&backend, &archive);
    let told = async |cursor: &[u8], bytes| {
        watch(&backend, cursor, WatchOptions { max_log_bytes: Some(bytes), ..EVERYTHING }).await
    };

    let all = 10 * 7 + 90 * 8 + 10 * 7 + 20 * 8;
    let whole = told(b"", all).await;
    assert_eq!((texts(&whole, "base"), texts(&whole, "side")), (words(0..100), words(0..30)));
    assert_eq!(gaps(&whole), []);
    let nearly = told(b"", all - 1).await;
    assert_eq!((texts(&nearly, "base"), texts(&nearly, "side")), (words(0..100), words(0..29)));
    assert_eq!(gaps(&nearly), [GapReason::BudgetExceeded]);
    // Who goes on has no new budget.
    let little = told(b"", 100).await;
    let last = little.iter().rfind(|event| matches!(event.kind, EventKind::LogChunk(_))).unwrap();
    let rest = told(&last.cursor.encode(), 100).await;
    assert_eq!((texts(&rest, "base"), texts(&rest, "side")), (vec![], vec![]));
    assert_eq!(gaps(&rest), [GapReason::BudgetExceeded; 2]);
    assert!(matches!(rest.last().unwrap().kind, EventKind::End(_)));
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

#[tokio::test]
async fn a_submit_finds_what_is_only_in_the_archive() {
    let world = World::new();
    let digest = crate::execution::spec_digest(&request().workload, &request().labels, &request().policies, None);
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

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_keeps_nobody_from_a_live_execution() {
    let world = World::new();
    let archive = world.archive().await;
    world.store.breaks(Fault::Silent, "");
    let backend = Fake::new(Some(story()));
    let archived = served(&backend, &archive);
    let began = Instant::now();
    assert_eq!(texts(&watch(&archived, b"", EVERYTHING).await, "base"), words(0..100));
    for _ in 0..100 {
        assert_eq!(archived.submit(&address().tenant, request()).await.unwrap().claim, "claim");
    }
    assert!(archived.get(&address().tenant, &address().id, View::Basic).await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(4), "only the first one waits: {:?}", began.elapsed());
    *backend.events.lock().unwrap() = None;
    let unknown = archived.get(&address().tenant, &address().id, View::Basic).await;
    assert!(matches!(unknown, Err(Error::Archive { .. })), "not knowing is not knowing that there is none");
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
