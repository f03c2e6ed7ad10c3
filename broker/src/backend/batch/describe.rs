//! The one task that asks AWS Batch about jobs, a hundred at a time, for all targets with the same credentials.
//!
//! A job is due when its pace says so. Whatever is due is described together, and a request that has room left takes along those
//! that would be due next: so jobs at rest gather into full requests by themselves. What is found goes to the job's target when it
//! differs from what was known. An empty answer about a job that was just made is ordinary; one that goes on is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::calls::{Calls, Failed, Operation};
use super::changes::Changes;
use super::job;
use super::pace::Pace;
use crate::backend::job::{Job, JobState};

/// How many AWS Batch describes at once.
pub(super) const PAGE: usize = 100;
/// What is not urgent is done at multiples of this, so that jobs which were made one after the other are asked about together.
const GRID: Duration = Duration::from_secs(2);
/// What somebody only says is looked into at multiples of this: whatever is said, it is at most four calls a second.
const TOLD_GRID: Duration = Duration::from_millis(250);
/// And so often at most for one job, which may be an array with thousands of ends.
const TOLD_AGAIN: Duration = Duration::from_secs(1);
/// How long a job may be unknown before that is believed. Descriptions lag behind a submit by seconds; this is a hundred times
/// that, since a job that is given up runs on.
const PATIENCE: Duration = Duration::from_mins(10);
/// And so many answers in a row must have been without it: the first one after an outage proves nothing.
const ABSENCES: u32 = 3;
/// The pause after a failure: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whoever can describe jobs.
#[async_trait]
pub(super) trait Describe: Send + Sync {
    /// Those that are known, of at most a hundred.
    async fn describe(&self, ids: &[String]) -> Result<Vec<Job>, Failed>;
}

#[async_trait]
impl Describe for Calls {
    async fn describe(&self, ids: &[String]) -> Result<Vec<Job>, Failed> {
        let request = self.client().describe_jobs().set_jobs(Some(ids.to_vec())).send();
        let answer = self.make(Operation::DescribeJobs, request).await?;
        Ok(answer.jobs.iter().flatten().filter_map(job::job).collect())
    }
}

/// A job that somebody wants to know about.
#[derive(Debug)]
struct Followed {
    to: Arc<Changes>,
    pace: Pace,
    due: Instant,
    known: Option<Job>,
    /// Since when it was in no answer.
    missing: Instant,
    /// In how many.
    absences: u32,
    /// When it was last due because of what somebody said.
    told: Option<Instant>,
}

/// Whether what somebody says of a job is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Somebody wants to know about the job; it is described soon.
    Followed,
    /// Nobody does.
    Unfollowed,
}

/// Describes jobs.
#[derive(Debug)]
pub(super) struct Describer {
    followed: Mutex<BTreeMap<String, Followed>>,
    /// Something is due sooner than it was.
    sooner: Notify,
    /// Multiples are counted from here.
    start: Instant,
}

impl Describer {
    pub(super) fn new() -> Self {
        Self { followed: Mutex::default(), sooner: Notify::new(), start: Instant::now() }
    }

    fn followed(&self) -> MutexGuard<'_, BTreeMap<String, Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The moment after a wait, on the grid unless it is urgent.
    fn moment(&self, pace: Pace, wait: Duration) -> Instant {
        let moment = Instant::now() + wait;
        if pace.is_urgent() {
            return moment;
        }
        self.on_grid(moment, GRID)
    }

    fn on_grid(&self, moment: Instant, grid: Duration) -> Instant {
        let steps = moment.saturating_duration_since(self.start).as_nanos().div_ceil(grid.as_nanos());
        self.start + grid * u32::try_from(steps).unwrap_or(u32::MAX)
    }

    pub(super) fn follow(&self, id: &str, to: &Arc<Changes>) {
        let (pace, wait) = Pace::made();
        let due = self.moment(pace, wait);
        let missing = Instant::now();
        let to = Arc::clone(to);
        let fresh = || Followed { to, pace, due, known: None, missing, absences: 0, told: None };
        self.followed().entry(id.to_owned()).or_insert_with(fresh);
        self.sooner.notify_one();
    }

    /// A child of an array hastens its parent.
    pub(super) fn hasten(&self, id: &str) {
        let id = id.split_once(':').map_or(id, |(parent, _)| parent);
        let (pace, wait) = Pace::hastened();
        let soon = self.moment(pace, wait);
        if let Some(job) = self.followed().get_mut(id) {
            job.pace = pace;
            job.due = job.due.min(soon);
            self.sooner.notify_one();
        }
    }

    /// Somebody says that a job, or a child of one, has ended: whether it has is looked into soon.
    pub(super) fn heard(&self, id: &str) -> Heard {
        let id = id.split_once(':').map_or(id, |(parent, _)| parent);
        let mut followed = self.followed();
        let Some(job) = followed.get_mut(id) else { return Heard::Unfollowed };
        let now = Instant::now();
        let earliest = job.told.map_or(now, |told| now.max(told + TOLD_AGAIN));
        let soon = self.on_grid(earliest, TOLD_GRID);
        job.pace = job.pace.told();
        // One that is due before that answers this one, too, and puts nothing off.
        if soon < job.due {
            (job.due, job.told) = (soon, Some(soon));
            self.sooner.notify_one();
        }
        Heard::Followed
    }

    pub(super) fn forget(&self, id: &str) {
        self.followed().remove(id);
    }

    /// Describes what is due, until it is stopped.
    pub(super) async fn run(&self, api: &dyn Describe, stop: &CancellationToken) {
        stop.run_until_cancelled(async {
            let mut pause = None;
            loop {
                self.wait_for_work(pause).await;
                pause = match self.round(api).await {
                    Ok(()) => {
                        if pause.is_some() {
                            info!("jobs of AWS Batch are described again");
                        }
                        None
                    }
                    Err(failed) => {
                        if pause.is_none() {
                            warn!(error = %failed, "jobs of AWS Batch cannot be described");
                        }
                        Some(pause.map_or(FIRST_PAUSE, |pause: Duration| LONGEST_PAUSE.min(pause * 2)))
                    }
                };
            }
        })
        .await;
    }

    async fn wait_for_work(&self, pause: Option<Duration>) {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        loop {
            let due = self.followed().values().map(|job| job.due).min();
            match due {
                Some(due) if due <= Instant::now() => return,
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = self.sooner.notified() => {}
                },
                None => self.sooner.notified().await,
            }
        }
    }

    /// One request: what is due, and what would be due next.
    async fn round(&self, api: &dyn Describe) -> Result<(), Failed> {
        let asked = Instant::now();
        let ids = self.pick(asked);
        if ids.is_empty() {
            return Ok(());
        }
        match api.describe(&ids).await {
            Ok(jobs) => {
                let mut found: BTreeMap<_, _> = jobs.into_iter().map(|job| (job.id.clone(), job)).collect();
                for id in ids {
                    let job = found.remove(&id);
                    self.take_in(&id, job, asked);
                }
                Ok(())
            }
            Err(failed) => {
                let mut followed = self.followed();
                for id in ids {
                    if let Some(job) = followed.get_mut(&id) {
                        job.due = job.due.min(asked);
                    }
                }
                Err(failed)
            }
        }
    }

    /// The next page of jobs. They get their next moments now, so that what happens to them during the request brings those forward.
    fn pick(&self, now: Instant) -> Vec<String> {
        let mut followed = self.followed();
        let mut ids: Vec<_> = followed.iter().map(|(id, job)| (job.due, id.clone())).collect();
        ids.sort_unstable();
        ids.truncate(PAGE);
        for (due, id) in &ids {
            let Some(job) = followed.get_mut(id) else { continue };
            // One that is only taken along keeps a moment that matters.
            if *due <= now || job.pace == Pace::Resting {
                let (pace, wait) = job.pace.next(job.known.as_ref());
                (job.pace, job.due) = (pace, self.moment(pace, wait));
            }
        }
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Takes in what was answered about a job to a question of that moment.
    fn take_in(&self, id: &str, job: Option<Job>, asked: Instant) {
        let mut all = self.followed();
        let Some(followed) = all.get_mut(id) else { return };
        let job = if let Some(job) = job {
            (followed.missing, followed.absences) = (asked, 0);
            job
        } else {
            followed.absences = followed.absences.saturating_add(1);
            if followed.absences < ABSENCES || asked.saturating_duration_since(followed.missing) < PATIENCE {
                return;
            }
            Job::forgotten(id, followed.known.clone())
        };
        // One that is forgotten is asked about until nobody wants to know: its pod may prove that it lives.
        let has_ended = matches!(job.state, JobState::Succeeded | JobState::Failed) && !job.is_forgotten();
        if followed.known.as_ref() != Some(&job) {
            if job.is_forgotten() {
                warn!(job = id, "AWS Batch does not know the job any more");
            }
            followed.to.put(job.clone());
            followed.known = Some(job);
        }
        if has_ended {
            all.remove(id);
        }
    }
}

/// Describes any number of jobs at once; those that are not known are absent.
pub(super) async fn all(api: &dyn Describe, ids: &BTreeSet<String>) -> Result<Vec<Job>, Failed> {
    let ids: Vec<_> = ids.iter().cloned().collect();
    let mut jobs = Vec::with_capacity(ids.len());
    for page in ids.chunks(PAGE) {
        jobs.extend(api.describe(page).await?);
    }
    Ok(jobs)
}

#[cfg(test)]
#[path = "describe_tests.rs"]
mod tests;
