//! What gets into the archive, who writes it, and how long it stays.

use super::*;

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
    let (keeping, _gone) = world.keeps(&second, &backend);
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
async fn a_broker_whose_clock_runs_ahead_of_the_stores_deletes_nothing_before_its_time() {
    let world = World::new();
    world.store.lags(400 * 24 * 3600);
    let stores_now = Timestamp::now() - jiff::SignedDuration::from_hours(400 * 24);
    // It ended just now by the clocks of its cluster and of the store.
    let mut events = story();
    if let Some(EventKind::End(last)) = events.last_mut().map(|event| &mut event.kind) {
        last.ended = Some(stores_now);
    }
    let backend = Fake::new(Some(events));
    let archive = world.archived(&backend).await;
    assert_eq!(archive.today(), stores_now.to_string()[..10]);
    // As a replica has written it whose clock is right.
    let day = archive.store.day(&stores_now.to_string()[..10], &address().hash());
    archive.store.put(&day, "").await.unwrap();
    let is_there = async || archive.outcome(&archive.store, &address()).await.unwrap().is_some();
    // The retention is a day.
    tokio::time::sleep(Duration::from_hours(20)).await;
    assert!(is_there().await, "by this machine's clock it ended more than a year ago");
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
    let (keeping, _gone) = world.keeps(&second, &backend);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(writer.run(&*backend, &world.stop).await, crate::archive::writer::Ending::Durable);
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
    let (keeping, _gone) = world.keeps(&second, &backend);
    assert_eq!(second.may_go(&address()), Parting::Stay);
    tokio::time::sleep(URGENT).await;
    assert_eq!(second.may_go(&address()), Parting::Stay);
    keeping.await.unwrap();
    assert_eq!(second.may_go(&address()), Parting::Go);
    drop(stuck);
    *backend.events.lock().unwrap() = None;
    assert_eq!(texts(&watch(&served(&backend, &second), b"", EVERYTHING).await, "base"), words(0..100));
}

#[test]
fn the_memory_of_many_writers_is_bounded_together() {
    let budget = Budget::new(10_000, ArchiveCounters::default().held);
    let mut segments: Vec<_> =
        (0..50).map(|_| crate::archive::segment::Segment::new(Arc::clone(&budget), Vec::new())).collect();
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
            let last = json(&crate::archive::Ended { execution: execution(State::Succeeded) });
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
            let last = json(&crate::archive::Ended { execution: execution(State::Succeeded) });
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
