//! Asks for a record's job, once, and again only when it is certain that none was made.
//!
//! The record says who does that, and since when. A submit is sent only while that is fresh: another replica takes over a whole
//! settling delay later, and looks first. So between the latest submit of one and the look of the other lies longer than a
//! request may be under way. A submit that is not answered is settled like that too, by whoever comes first.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::super::attempts::Attempts;
use super::super::carrier::Carrier;
use super::super::manifest;
use super::super::names::{JOB, SUBMITTING};
use super::super::view::View;
use super::runner::{Runner, key, latest_of, lock, text};
use super::verdict::{intended, without_job};
use super::{Made, Submitting};
use crate::backend::job::{Submission, Work};
use crate::error::Error;
use crate::execution::{FailureClass, Workload};

/// The pause before another try of what was certainly not done, doubled up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is to be done after a look at the record.
enum Turn {
    /// Ask for the job.
    Ask(Arc<View>, Box<Workload>),
    /// Nothing: somebody else has it, or it is settled.
    Done,
}

impl Runner {
    /// Begins to ask for the job of an execution's latest record, if that is this replica's to do.
    pub(in crate::backend::pod) fn begin(self: &Arc<Self>, attempts: &Attempts) {
        let view = attempts.latest();
        let is_ours = |by: &str| by == self.replica;
        let is_to_be_made = view
            .record()
            .is_some_and(|record| record.made.is_none() && record.written.is_none() && is_ours(&record.submitting.by));
        if is_to_be_made
            && lock(&self.begun).insert(view.uid.clone())
            && let Some(hand) = self.take_in_hand(view)
        {
            let (runner, view) = (Arc::clone(self), Arc::clone(view));
            self.spawn(async move {
                runner.submit(Arc::clone(&view)).await;
                let known = runner.hub.get(&runner.hash(&view)).and_then(|attempts| latest_of(&attempts, &view.uid));
                let is_open =
                    |view: Arc<View>| view.record().is_some_and(|it| it.made.is_none() && it.written.is_none());
                if !known.is_some_and(is_open) {
                    lock(&runner.begun).remove(&view.uid);
                }
                drop(hand);
            });
        }
    }

    /// Asks for the job of a record in hand.
    pub(super) async fn submit(&self, view: Arc<View>) {
        let (mut view, mut pause) = (view, FIRST_PAUSE);
        loop {
            let began = Instant::now();
            let trouble = match self.turn(&view).await {
                Ok(Turn::Done) => return,
                // It took so long that another replica may have begun to look.
                Ok(Turn::Ask(..)) if began.elapsed() > self.records.settle / 3 => continue,
                Ok(Turn::Ask(fresh, workload)) => {
                    view = fresh;
                    match self.ask(&view, &workload).await {
                        Ok(Submission::Made { id }) => return self.keep(&view, id).await,
                        Ok(Submission::Refused { class, message }) => {
                            info!(execution = %view.id, message, "the job was refused");
                            return self.close(&view, class, message).await;
                        }
                        Ok(Submission::Unknown(error)) => {
                            self.records.counters.add_unsettled();
                            let error = &error as &dyn std::error::Error;
                            return warn!(execution = %view.id, error, "nobody knows whether the job was made; it will be looked for");
                        }
                        Ok(Submission::NotMade(error)) | Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            debug!(execution = %view.id, error = &trouble as &dyn std::error::Error, "the job was not made yet");
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Reads the record before anything is sent: what the watch has told may be older than a cancel.
    async fn turn(&self, view: &Arc<View>) -> Result<Turn, Error> {
        let Some((view, object)) = self.fetch(view).await? else { return Ok(Turn::Done) };
        let Some(record) = view.record() else { return Ok(Turn::Done) };
        if record.made.is_some() || record.written.is_some() || record.submitting.by != self.replica {
            return Ok(Turn::Done);
        }
        let now = self.api.clock().now();
        if let Some((class, message)) = hindrance(&view, now) {
            self.close(&view, class, message).await;
            return Ok(Turn::Done);
        }
        let age = Duration::try_from(now.duration_since(record.submitting.at)).unwrap_or_default();
        if age < self.records.settle / 3 {
            let workload = self.workload(&view, &object).await?;
            return Ok(Turn::Ask(view, Box::new(workload)));
        }
        let submitting = Submitting { by: self.replica.clone(), at: now, number: record.submitting.number + 1 };
        match self.write(&view, &[(SUBMITTING, text(&submitting)?)]).await? {
            Some(attempts) => {
                let workload = self.workload(&view, &object).await?;
                let view = latest_of(&attempts, &view.uid);
                Ok(view.map_or(Turn::Done, |view| Turn::Ask(view, Box::new(workload))))
            }
            // Somebody has written something else. Whether it is still ours stands in the record.
            None => Err(Error::NotInStep { target: self.settings.target.to_string() }),
        }
    }

    async fn ask(&self, view: &View, workload: &Workload) -> Result<Submission, Error> {
        let number = view.record().map_or(1, |record| record.submitting.number);
        let (key, labels) = (key(&view.pod_name, &view.uid), self.labels(view, view.attempt));
        let work = Work { name: &view.pod_name, key: &key, workload, policies: &view.policies, labels: &labels };
        info!(execution = %view.id, job = view.pod_name, number, "submitting");
        // Nobody looks for it before it must have arrived.
        match tokio::time::timeout(self.records.settle / 3, self.jobs.submit(&work)).await {
            Ok(submission) => Ok(submission),
            Err(late) => Ok(Submission::Unknown(Error::Backend {
                target: self.settings.target.to_string(),
                operation: "submit a job",
                source: late.into(),
            })),
        }
    }

    /// What is to be run: the first record of the execution has it.
    async fn workload(&self, view: &View, object: &Carrier) -> Result<Workload, Error> {
        if let Ok(workload) = manifest::workload(object) {
            return Ok(workload);
        }
        let oldest = self.hub.get(&self.hash(view)).map(|attempts| attempts.oldest().pod_name.clone());
        let name = oldest.unwrap_or_else(|| view.pod_name.clone());
        let record: Carrier = self.api.get(&name).await.map_err(|error| self.error("read a record", error))?;
        manifest::workload(&record).map_err(Error::bug)
    }

    /// Writes down which job was made. It is known to nobody else until then.
    pub(super) async fn keep(&self, view: &View, id: String) {
        let (mut view, mut pause) = (Arc::new(view.clone()), FIRST_PAUSE);
        let made = Made { id, at: self.api.clock().now() };
        info!(execution = %view.id, job = made.id, "the job was made");
        let Ok(annotation) = text(&made) else { return };
        loop {
            let trouble = match self.write(&view, &[(JOB, annotation.clone())]).await {
                Ok(Some(_)) => return,
                Ok(None) => match self.read(&view).await {
                    Ok(Some(now)) => match now.record() {
                        Some(record) if record.made.is_none() && record.written.is_none() => {
                            view = now;
                            continue;
                        }
                        Some(record) if record.job_id() == made.id => return,
                        // Another replica took it for lost meanwhile.
                        _ => return self.end_duplicate(&made.id).await,
                    },
                    Ok(None) => return self.end_duplicate(&made.id).await,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            warn!(execution = %view.id, job = made.id, error = &trouble as &dyn std::error::Error, "a job that was made cannot be noted yet");
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn end_duplicate(&self, id: &str) {
        warn!(job = id, "ending a job that nobody waits for");
        self.records.counters.add_duplicates(1);
        let reason = "podbroker: another job runs this attempt, or nobody wants it any more";
        if let Err(error) = self.jobs.end(id, reason).await {
            warn!(job = id, error = &error as &dyn std::error::Error, "a job that nobody waits for could not be ended");
        }
    }

    /// Writes down that there is no job and why, until that is done or somebody else has settled it.
    pub(super) async fn close(&self, view: &View, class: FailureClass, message: String) {
        let (mut view, mut pause) = (Arc::new(view.clone()), FIRST_PAUSE);
        loop {
            let written = without_job(class, message.clone(), self.api.clock().now());
            let trouble = match self.write_outcome(&view, &written).await {
                Ok(Some(_)) => return,
                Ok(None) => match self.read(&view).await {
                    Ok(Some(now)) if now.record().is_some_and(|it| it.made.is_none() && it.written.is_none()) => {
                        view = now;
                        continue;
                    }
                    Ok(_) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            warn!(execution = %view.id, error = &trouble as &dyn std::error::Error, "how an attempt ended cannot be noted yet");
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Why no job is made any more, if there is none.
pub(super) fn hindrance(view: &View, now: jiff::Timestamp) -> Option<(FailureClass, String)> {
    if let Some(intent) = &view.cancel {
        return Some((intent.class, intended(intent)));
    }
    if view.delete_requested.is_some() {
        let message = "somebody deleted the record of the job before the job was made".to_owned();
        return Some((FailureClass::PodDeleted, message));
    }
    (now > view.submit_before).then(|| {
        let message = format!("the job could not be made before {} (submit_before)", view.submit_before);
        (FailureClass::Broker, message)
    })
}
