//! Finds out whether a job was made that nobody knows of, and which of several stays.
//!
//! Whoever does it takes the record over first, so that nobody else does it or submits at the same time. A list of jobs may be
//! stale: what it does not have yet after the settling delay is found by the sweeps that follow, one a settling delay after a job
//! is known and one at its end. The oldest job stays, since everybody finds the same one.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::super::names::{DOUBT, JOB, SUBMITTING};
use super::super::view::View;
use super::runner::{Runner, key, latest_of, text};
use super::submitting::hindrance;
use super::{Doubt, Made, Record, Submitting};
use crate::backend::job::{Job, JobState};
use crate::error::Error;

/// Between two looks that were not answered.
const PAUSE: Duration = Duration::from_millis(500);

impl Runner {
    /// Finds out what became of a submit, and goes on from there.
    pub(super) async fn settle(&self, view: &View) -> Result<(), Error> {
        let Some(record) = view.record() else { return Ok(()) };
        let now = self.api.clock().now();
        let submitting = Submitting { by: self.replica.clone(), at: now, number: record.submitting.number + 1 };
        let others = record.doubt.as_ref().map(|doubt| doubt.others.clone()).unwrap_or_default();
        let doubt = Doubt { since: now, swept: 0, others };
        let annotations = [(SUBMITTING, text(&submitting)?), (DOUBT, text(&doubt)?)];
        // Somebody else was faster, or something else happened to it: what is due then is decided anew.
        let Some(attempts) = self.write(view, &annotations).await? else { return Ok(()) };
        let Some(view) = latest_of(&attempts, &view.uid) else { return Ok(()) };
        warn!(execution = %view.id, number = submitting.number, "looking for a job whose submit was not answered");
        let found = self.look(&view).await?;
        if let Some((oldest, rest)) = found.split_first() {
            return self.adopt(&view, doubt, oldest, rest).await;
        }
        match hindrance(&view, self.api.clock().now()) {
            Some((class, message)) => self.close(&view, class, message).await,
            None => self.submit(view).await,
        }
        Ok(())
    }

    /// Notes the job that a pod names. Nobody has taken the record over since: that would have changed its version.
    pub(super) async fn adopt_heard(&self, view: &View, record: &Record) -> Result<(), Error> {
        let Some(id) = &record.heard else { return Ok(()) };
        let made = Made { id: id.clone(), at: self.api.clock().now() };
        if self.write(view, &[(JOB, text(&made)?)]).await?.is_some() {
            info!(execution = %view.id, job = id, "a pod tells which job was made");
        }
        Ok(())
    }

    async fn adopt(&self, view: &View, doubt: Doubt, oldest: &Job, rest: &[Job]) -> Result<(), Error> {
        info!(execution = %view.id, job = oldest.id, "the job was made, and is kept");
        let made = Made { id: oldest.id.clone(), at: self.api.clock().now() };
        let (others, count) = self.end_others(&doubt, rest).await?;
        let doubt = Doubt { others, ..doubt };
        if self.write(view, &[(JOB, text(&made)?), (DOUBT, text(&doubt)?)]).await?.is_some() {
            self.records.counters.add_duplicates(count);
        }
        Ok(())
    }

    /// Looks for jobs beside the known one, and ends them.
    pub(super) async fn sweep(&self, view: &View, record: &Record) -> Result<(), Error> {
        let Some(doubt) = &record.doubt else { return Ok(()) };
        let found = self.look(view).await?;
        let rest: Vec<_> = found.into_iter().filter(|job| job.id != record.job_id()).collect();
        let (others, count) = self.end_others(doubt, &rest).await?;
        // After the end there is no later one.
        let swept = if record.written.is_some() { 2 } else { 1 };
        let doubt = Doubt { swept, others, ..doubt.clone() };
        if self.write(view, &[(DOUBT, text(&doubt)?)]).await?.is_some() {
            self.records.counters.add_duplicates(count);
        }
        Ok(())
    }

    /// Ends jobs that should not be. Returns all of them that were ever found, and how many are new.
    async fn end_others(&self, doubt: &Doubt, rest: &[Job]) -> Result<(Vec<String>, u64), Error> {
        let (mut others, mut count) = (doubt.others.clone(), 0);
        let known: HashSet<_> = doubt.others.iter().collect();
        for job in rest {
            if !matches!(job.state, JobState::Succeeded | JobState::Failed) {
                warn!(job = job.id, name = job.name, "ending a job that was made twice");
                self.jobs.end(&job.id, "podbroker: another job runs this attempt").await?;
            }
            if !known.contains(&job.id) {
                others.push(job.id.clone());
                count += 1;
            }
        }
        Ok((others, count))
    }

    /// All jobs of a record, oldest first. Asks again for as long as what is asked for may be relied on.
    async fn look(&self, view: &View) -> Result<Vec<Job>, Error> {
        let key = key(&view.pod_name, &view.uid);
        let give_up = Instant::now() + self.records.settle / 3;
        loop {
            match self.jobs.find(&view.pod_name, &key).await {
                Ok(found) => return Ok(found),
                Err(error) if Instant::now() + PAUSE > give_up => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
