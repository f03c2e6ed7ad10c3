use std::collections::BTreeMap;

use futures::StreamExt as _;

use super::*;
use crate::backend::job::JobAttempt;
use crate::identity::eks::{BatchFailure, Happened};

/// AWS Batch as a table, and what it was asked.
#[derive(Default)]
struct Table {
    jobs: Mutex<BTreeMap<String, Job>>,
    calls: Mutex<Vec<(Instant, Vec<String>)>>,
    away: Mutex<u32>,
}

impl Table {
    fn set(&self, id: &str, state: JobState) {
        let mut job = Job::forgotten(id, None);
        (job.state, job.reason) = (state, String::new());
        if state == JobState::Running {
            job.attempts.push(JobAttempt { pod_name: format!("aws-batch.{id}"), ..JobAttempt::default() });
        }
        self.jobs.lock().unwrap().insert(id.to_owned(), job);
    }

    fn calls(&self) -> Vec<(Instant, Vec<String>)> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

#[async_trait]
impl Describe for Table {
    async fn describe(&self, ids: &[String]) -> Result<Vec<Job>, Failed> {
        assert!((1..=PAGE).contains(&ids.len()), "{}", ids.len());
        self.calls.lock().unwrap().push((Instant::now(), ids.to_vec()));
        // As long as a request takes.
        tokio::time::sleep(Duration::from_millis(40)).await;
        let left = self.away.lock().unwrap().checked_sub(1);
        if let Some(left) = left {
            *self.away.lock().unwrap() = left;
            let failure = BatchFailure::Away("gone".to_owned());
            return Err(Failed { operation: Operation::DescribeJobs, failure, happened: Happened::No });
        }
        let jobs = self.jobs.lock().unwrap();
        Ok(ids.iter().filter_map(|id| jobs.get(id).cloned()).collect())
    }
}

struct World {
    table: Arc<Table>,
    describer: Arc<Describer>,
    changes: Arc<Changes>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    fn start() -> Self {
        let world = Self {
            table: Arc::default(),
            describer: Arc::new(Describer::new()),
            changes: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (table, describer, stop) = (Arc::clone(&world.table), Arc::clone(&world.describer), world.stop.clone());
        tokio_util::task::TaskTracker::new().spawn(async move { describer.run(&*table, &stop).await });
        world
    }

    fn follow(&self, id: &str) {
        self.describer.follow(id, &self.changes);
    }

    async fn next(&self) -> Job {
        Arc::clone(&self.changes).stream().next().await.unwrap()
    }

    fn has_news(&self) -> bool {
        use futures::FutureExt as _;
        self.next().now_or_never().is_some()
    }
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_jobs_at_rest_take_at_most_thirty_calls_a_minute() {
    let world = World::start();
    for number in 0..1_000 {
        let id = format!("j{number}");
        world.table.set(&id, if number % 4 == 0 { JobState::Running } else { JobState::Runnable });
        world.follow(&id);
        // They come over ten minutes, at no regular moments.
        pass(Duration::from_millis(600 + number % 7)).await;
    }
    pass(Duration::from_mins(2)).await;
    world.table.calls();
    pass(Duration::from_mins(10)).await;
    let calls = world.table.calls();
    assert!(calls.len() <= 300, "{} calls in ten minutes", calls.len());
    let mut asked: BTreeMap<String, u32> = BTreeMap::new();
    calls.iter().flat_map(|(_, ids)| ids).for_each(|id| *asked.entry(id.clone()).or_default() += 1);
    assert_eq!(asked.len(), 1_000);
    let least = *asked.values().min().unwrap();
    assert!(least >= 9, "a job was asked about only {least} times in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn submits_without_a_pause_take_at_most_thirty_calls_a_minute() {
    let world = World::start();
    for number in 0..600 {
        let id = format!("j{number}");
        world.table.set(&id, JobState::Runnable);
        world.follow(&id);
        pass(Duration::from_millis(100)).await;
    }
    let calls = world.table.calls();
    assert!(calls.len() <= 60, "{} calls in a minute of 600 submits", calls.len());
}

#[tokio::test(start_paused = true)]
async fn what_was_hastened_is_noticed_within_a_tenth_of_a_second_and_told_once() {
    let world = World::start();
    world.table.set("a", JobState::Running);
    world.follow("a");
    assert_eq!(world.next().await.state, JobState::Running);
    pass(Duration::from_mins(3)).await;
    assert!(!world.has_news(), "the same is not told twice");
    world.table.calls();
    world.table.set("a", JobState::Succeeded);
    let before = Instant::now();
    world.describer.hasten("a");
    assert_eq!(world.next().await.state, JobState::Succeeded);
    assert!(before.elapsed() <= Duration::from_millis(100), "{:?}", before.elapsed());
    world.table.calls();
    pass(Duration::from_mins(10)).await;
    assert_eq!(world.table.calls().len(), 0, "what has ended is not asked about");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_comes_late_is_noticed_soon_after_it() {
    for late in [300, 900, 3_000, 9_000] {
        let world = World::start();
        world.table.set("a", JobState::Running);
        world.follow("a");
        world.next().await;
        world.describer.hasten("a");
        pass(Duration::from_millis(late)).await;
        world.table.set("a", JobState::Failed);
        let ended = Instant::now();
        assert_eq!(world.next().await.state, JobState::Failed);
        assert!(ended.elapsed() <= Duration::from_millis(2_100), "{late}: {:?}", ended.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_end_together_are_asked_about_together() {
    let world = World::start();
    for number in 0..250 {
        world.table.set(&format!("j{number}"), JobState::Running);
        world.follow(&format!("j{number}"));
    }
    for _ in 0..250 {
        world.next().await;
    }
    world.table.calls();
    for number in 0..250 {
        world.table.set(&format!("j{number}"), JobState::Succeeded);
        world.describer.hasten(&format!("j{number}"));
    }
    for _ in 0..250 {
        assert_eq!(world.next().await.state, JobState::Succeeded);
    }
    assert_eq!(world.table.calls().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_after_a_submit_is_ordinary_and_one_that_goes_on_is_said() {
    let world = World::start();
    world.follow("a");
    pass(Duration::from_secs(20)).await;
    assert!(!world.has_news());
    world.table.set("a", JobState::Runnable);
    assert_eq!(world.next().await.state, JobState::Runnable);
    world.table.jobs.lock().unwrap().clear();
    pass(PATIENCE.saturating_sub(Duration::from_secs(35))).await;
    assert!(!world.has_news());
    assert!(world.next().await.is_forgotten());
    pass(Duration::from_mins(10)).await;
    assert!(!world.has_news(), "that is told once");
    // It was not so after all.
    world.table.set("a", JobState::Running);
    assert_eq!(world.next().await.state, JobState::Running);
}

#[tokio::test(start_paused = true)]
async fn one_empty_answer_after_a_long_outage_proves_nothing() {
    let world = World::start();
    world.table.set("a", JobState::Runnable);
    world.follow("a");
    world.next().await;
    world.table.jobs.lock().unwrap().clear();
    *world.table.away.lock().unwrap() = 40;
    while *world.table.away.lock().unwrap() > 0 {
        pass(Duration::from_secs(1)).await;
    }
    world.table.calls();
    // An answer comes, and is stale.
    while world.table.calls().is_empty() {
        pass(Duration::from_secs(1)).await;
    }
    pass(Duration::from_secs(1)).await;
    assert!(!world.has_news());
    world.table.set("a", JobState::Running);
    assert_eq!(world.next().await.state, JobState::Running);
}

#[tokio::test(start_paused = true)]
async fn while_batch_is_away_it_is_asked_less_and_less_and_nothing_is_lost() {
    let world = World::start();
    world.table.set("a", JobState::Running);
    *world.table.away.lock().unwrap() = 8;
    world.follow("a");
    world.describer.hasten("a");
    pass(Duration::from_mins(1)).await;
    assert!(world.table.calls().len() <= 8);
    assert_eq!(world.next().await.state, JobState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_child_hastens_its_array_and_what_is_forgotten_is_not_asked_about() {
    let world = World::start();
    world.table.set("a", JobState::Pending);
    world.follow("a");
    world.next().await;
    world.table.calls();
    world.describer.hasten("a:7");
    pass(Duration::from_millis(100)).await;
    assert_eq!(world.table.calls().len(), 1);
    world.describer.forget("a");
    pass(Duration::from_mins(5)).await;
    assert_eq!(world.table.calls().len(), 0);
    world.describer.hasten("never-followed");
}

#[tokio::test(start_paused = true)]
async fn an_end_that_somebody_tells_of_is_looked_into_at_once_and_then_less_and_less_until_it_is_forgotten() {
    let world = World::start();
    world.table.set("a", JobState::Runnable);
    world.follow("a");
    world.next().await;
    pass(Duration::from_mins(3)).await;
    world.table.calls();
    world.table.set("a", JobState::Failed);
    let before = Instant::now();
    assert_eq!(world.describer.heard("a"), Heard::Followed);
    assert_eq!(world.next().await.state, JobState::Failed);
    assert!(before.elapsed() <= Duration::from_millis(300), "{:?}", before.elapsed());
    assert_eq!(world.describer.heard("a"), Heard::Unfollowed);

    world.table.set("b", JobState::Runnable);
    world.follow("b");
    world.next().await;
    pass(Duration::from_mins(3)).await;
    world.table.calls();
    world.describer.heard("b:7");
    pass(Duration::from_mins(2)).await;
    // At once, three times after it, and as it would be without.
    let calls = world.table.calls().len();
    assert!((6..=9).contains(&calls), "{calls}");
    assert!(!world.has_news(), "what was said was not true");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_what_is_said_is_a_few_calls_a_second() {
    let world = World::start();
    for number in 0..50 {
        world.table.set(&format!("j{number}"), JobState::Runnable);
        world.follow(&format!("j{number}"));
        world.next().await;
    }
    pass(Duration::from_mins(3)).await;
    world.table.calls();
    for round in 0..1_000 {
        world.describer.heard(&format!("j{}", round % 50));
        pass(Duration::from_millis(10)).await;
    }
    let calls = world.table.calls().len();
    assert!(calls <= 50, "{calls} calls in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn thousands_of_ends_in_one_array_do_not_put_off_what_is_said_of_it_later() {
    let world = World::start();
    world.table.set("a", JobState::Runnable);
    world.follow("a");
    world.next().await;
    for child in 0..10_000 {
        world.describer.heard(&format!("a:{child}"));
    }
    pass(Duration::from_mins(3)).await;
    world.table.set("a", JobState::Failed);
    let before = Instant::now();
    world.describer.heard("a");
    assert_eq!(world.next().await.state, JobState::Failed);
    assert!(before.elapsed() <= Duration::from_millis(300), "{:?}", before.elapsed());
}
