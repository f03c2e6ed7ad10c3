//! A store that breaks: nobody is harmed, the trouble is told, and what was missed is made up for.

use super::*;
use crate::backend::Verdict;

fn live(backend: &Arc<Fake>, archive: &Arc<Archive>) -> Archived {
    served(backend, archive)
}

/// Whether everything of the story is in the archive, once.
async fn is_whole(backend: &Arc<Fake>, archive: &Arc<Archive>) {
    *backend.events.lock().unwrap() = None;
    let events = watch(&served(backend, archive), b"", EVERYTHING).await;
    assert_eq!((texts(&events, "base"), texts(&events, "side")), (words(0..100), words(0..30)));
    assert!(gaps(&events).is_empty(), "{:?}", gaps(&events));
    assert!(matches!(events.last().unwrap().kind, EventKind::End(_)));
}

#[tokio::test(start_paused = true)]
async fn whatever_is_wrong_with_the_store_executions_run_on_and_are_archived_when_it_is_well() {
    let slow = Fault::Slow(Duration::from_mins(1));
    for (fault, reason) in [
        (Fault::Unavailable, Reason::Away),
        (Fault::Refused, Reason::Refused),
        (Fault::Full, Reason::Full),
        (Fault::Silent, Reason::Away),
        (slow, Reason::Away),
    ] {
        let world = World::new();
        let backend = Fake::new(Some(story()));
        let archive = world.archive().await;
        world.store.breaks(fault, "");
        world.store.taken();
        let (keeping, _gone) = world.keeps(&archive, &backend);
        tokio::time::sleep(Duration::from_mins(5)).await;

        let began = Instant::now();
        assert_eq!(texts(&watch(&live(&backend, &archive), b"", EVERYTHING).await, "base"), words(0..100));
        assert_eq!(live(&backend, &archive).submit(&address().tenant, request()).await.unwrap().claim, "claim");
        assert!(began.elapsed() < Duration::from_secs(7), "{fault:?}: {:?}", began.elapsed());
        assert_eq!(archive.may_go(&address()), Parting::Stay, "{fault:?}");
        let condition = archive.condition().unwrap();
        assert_eq!((condition.reason, condition.waiting), (reason, 1), "{fault:?}");
        assert!(condition.lasts > Duration::from_mins(3), "{fault:?}: {:?}", condition.lasts);
        assert_eq!((archive.counters.trouble.get(), archive.counters.waiting.get()), (1, 1));
        let asked: u64 = world.store.taken().values().sum();
        assert!((3..120).contains(&asked), "{fault:?}: {asked} requests in five minutes");

        world.store.heals();
        // A request that began before has its own time to end in.
        tokio::time::timeout(Duration::from_mins(2), keeping).await.unwrap().unwrap();
        assert_eq!(archive.may_go(&address()), Parting::Go, "{fault:?}");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(archive.condition(), None, "{fault:?}");
        assert_eq!((archive.counters.trouble.get(), archive.counters.waiting.get()), (0, 0));
        assert_eq!((archive.counters.given_up.get(), archive.counters.held.get()), (0, 0));
        is_whole(&backend, &archive).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_breaks_in_mid_run_is_waited_for_with_what_was_heard() {
    for (fault, paths) in [(Fault::Unavailable, ".gz"), (Fault::Refused, "index-"), (Fault::Full, "outcome")] {
        let world = World::new();
        let backend = Fake::new(Some(story()));
        let archive = world.archive().await;
        world.store.breaks(fault, paths);
        let (keeping, _gone) = world.keeps(&archive, &backend);
        tokio::time::sleep(Duration::from_mins(5)).await;
        // The signs of life can be given, and that does not end it.
        assert_eq!(archive.condition().map(|condition| condition.waiting), Some(1), "{fault:?}");
        assert_eq!(archive.may_go(&address()), Parting::Stay);
        assert!(archive.outcome(&archive.store, &address()).await.unwrap().is_none());
        world.store.heals();
        tokio::time::timeout(Duration::from_mins(2), keeping).await.unwrap().unwrap();
        assert_eq!(archive.condition(), None);
        is_whole(&backend, &archive).await;
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_double_nothing() {
    let world = World::new();
    let backend = Fake::new(Some(story()));
    let archive = world.archive().await;
    world.store.breaks(Fault::AnswersLost, "executions");
    let (keeping, _gone) = world.keeps(&archive, &backend);
    tokio::time::sleep(Duration::from_mins(3)).await;
    let claims = generations(&archive.store, &address().hash()).await.unwrap().len();
    assert!((2..20).contains(&claims), "{claims}");
    world.store.heals();
    tokio::time::timeout(Duration::from_mins(2), keeping).await.unwrap().unwrap();
    is_whole(&backend, &archive).await;
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_durable_when_it_can_be_read_and_not_when_the_store_says_conflict() {
    let world = World::new();
    let backend = Fake::new(Some(story()));
    let archive = world.archive().await;
    world.store.breaks(Fault::Conflict, "outcome");
    let (keeping, _gone) = world.keeps(&archive, &backend);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(archive.may_go(&address()), Parting::Stay);
    world.store.heals();
    tokio::time::timeout(Duration::from_mins(2), keeping).await.unwrap().unwrap();
    assert_eq!(archive.may_go(&address()), Parting::Go);
    is_whole(&backend, &archive).await;
}

/// Asks as the reconciler does until the execution may go, and takes it away.
async fn taken_away(archive: &Archive, backend: &Fake, gone: &CancellationToken) {
    while archive.may_go(&address()) == Parting::Stay {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    *backend.events.lock().unwrap() = None;
    gone.cancel();
    archive.standings().clear();
}

fn with_containers(mut story: Vec<Event>) -> Vec<Event> {
    let Some(Event { kind: EventKind::End(last), .. }) = story.last_mut() else { panic!("no end") };
    let container = |name: &str| ContainerOutcome {
        container: name.to_owned(),
        role: ContainerRole::Deciding,
        exit_code: Some(0),
        signal: None,
        reason: String::new(),
        message: String::new(),
        restarts: 0,
        started: Some(Timestamp::UNIX_EPOCH),
        ended: Some(Timestamp::UNIX_EPOCH),
    };
    last.outcome.as_mut().unwrap().containers = vec![container("base"), container("side")];
    story
}

#[tokio::test(start_paused = true)]
async fn what_goes_unarchived_leaves_its_outcome_and_the_word_that_lines_are_missing() {
    let world = World::new();
    let backend = Fake::new(Some(with_containers(story())));
    let archive = world.archive().await;
    world.store.breaks(Fault::Unavailable, "");
    let (keeping, gone) = world.keeps(&archive, &backend);
    let began = Instant::now();
    taken_away(&archive, &backend, &gone).await;
    assert!(began.elapsed() >= archive.settings.patience);
    assert_eq!(archive.counters.given_up.get(), 1);
    tokio::time::sleep(Duration::from_hours(1)).await;
    world.store.heals();
    keeping.await.unwrap();

    let served = served(&backend, &archive);
    let got = served.get(&address().tenant, &address().id, View::Basic).await.unwrap();
    assert_eq!(got.state, State::Succeeded);
    let events = watch(&served, b"", EVERYTHING).await;
    assert!(texts(&events, "base").is_empty());
    assert_eq!(gaps(&events), [GapReason::PodDeleted; 2]);
    let said = |code: &str| {
        let is = |event: &&Event| matches!(&event.kind, EventKind::Notice(notice) if notice.code == code);
        events.iter().filter(is).count()
    };
    assert_eq!(said("ARCHIVE_INCOMPLETE"), 1);
    let ends = events.iter().filter(|event| matches!(event.kind, EventKind::LogStreamEnd(_, Completeness::Cut)));
    assert_eq!(ends.count(), 2);
    assert!(events.iter().any(|event| matches!(event.kind, EventKind::Result(_, Err(_)))));
    assert!(matches!(&events.last().unwrap().kind, EventKind::End(last) if last.state == State::Succeeded));
    assert_eq!((archive.counters.lost.get(), archive.counters.waiting.get()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_archived_before_the_outage_is_told_before_the_word() {
    let world = World::new();
    let whole = with_containers(story());
    let backend = Fake::new(Some(whole.clone()));
    let archive = world.archive().await;
    let mut writer = archive.claim(&address(), &Notify::new()).await.unwrap().unwrap();
    let mut begin = stream::iter(whole[..12].to_vec()).map(Ok).boxed();
    assert_eq!(writer.listen(&mut begin, &world.stop).await, None);
    writer.write(&world.stop).await;
    drop(writer);
    world.store.breaks(Fault::Silent, "");
    let (keeping, gone) = world.keeps(&archive, &backend);
    taken_away(&archive, &backend, &gone).await;
    world.store.heals();
    keeping.await.unwrap();
    let events = watch(&served(&backend, &archive), b"", EVERYTHING).await;
    assert_eq!((texts(&events, "base"), texts(&events, "side")), (words(0..50), words(0..15)));
    assert_eq!(gaps(&events), [GapReason::PodDeleted; 2]);
    assert!(matches!(events.last().unwrap().kind, EventKind::End(_)));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_remembered_that_went_unarchived() {
    let world = World::new();
    let backend = Fake::new(Some(with_containers(story())));
    let archive = world.archive().await;
    let _others = archive.leftovers.acquire_many(u32::try_from(LEFTOVERS).unwrap()).await.unwrap();
    world.store.breaks(Fault::Unavailable, "");
    let (keeping, gone) = world.keeps(&archive, &backend);
    taken_away(&archive, &backend, &gone).await;
    keeping.await.unwrap();
    assert_eq!((archive.counters.lost.get(), archive.counters.waiting.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_do_not_queue_behind_writers() {
    let world = World::new();
    let archive = world.archive().await;
    world.store.breaks(Fault::Slow(Duration::from_secs(5)), "");
    let writing = world.tasks.spawn({
        let archive = Arc::clone(&archive);
        async move {
            let path = archive.store.at(&["busy"]);
            futures::future::join_all((0..2000).map(|_| archive.store.put(&path, "x"))).await.len()
        }
    });
    let signs = || world.store.taken().get("list").copied().unwrap_or_default();
    signs();
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert!(!writing.is_finished());
    let given = signs();
    assert!(given >= 3, "{given} in two minutes");
    assert!(archive.life.is_alive(archive.life.me()));
    assert_eq!(archive.condition(), None, "slow is not away");
    assert_eq!(writing.await.unwrap(), 2000);
}

#[tokio::test(start_paused = true)]
async fn a_check_says_how_the_archive_is_and_what_to_do() {
    let world = World::new();
    let backend = Fake::new(Some(story()));
    let archive = world.archive().await;
    let check = async || live(&backend, &archive).check().collect::<Vec<_>>().await.pop().unwrap();
    let well = check().await;
    assert_eq!((well.link, well.verdict), ("archive", Verdict::Passed));
    for (fault, word) in [(Fault::Refused, "policy"), (Fault::Full, "room"), (Fault::Silent, "reach")] {
        world.store.breaks(fault, "");
        let broken = check().await;
        assert!(matches!(&broken.verdict, Verdict::Warned { fix } if fix.contains(word)), "{broken:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_starts_while_a_store_behind_a_network_is_away_or_refuses_and_not_if_there_is_none() {
    for (fault, reason) in
        [(Fault::Unavailable, Reason::Away), (Fault::Silent, Reason::Away), (Fault::Refused, Reason::Refused)]
    {
        let world = World::new();
        world.store.breaks(fault, "");
        let archive = world.open(Place::Elsewhere, 200, 1 << 20).await.unwrap();
        assert_eq!(archive.condition().map(|condition| condition.reason), Some(reason));
        assert!(archive.store.is_away(), "nobody waits for it");
        world.store.heals();
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(archive.condition(), None);
        let here = World::new();
        here.store.breaks(fault, "");
        assert!(here.open(Place::Here, 200, 1 << 20).await.is_err());
    }
    let world = World::new();
    world.store.breaks(Fault::Missing, "");
    assert!(matches!(world.open(Place::Elsewhere, 200, 1 << 20).await, Err(OpenError::Store(_))));
}
