//! Runs the Jobs of the cluster (`batch/v1`) for the engine, as `backend::batch` runs those of AWS Batch.
//!
//! ```text
//! plan      a caller's Job → the one that is created, pure (`manifest`)
//! submit    one name for each record, so that the API server's 409 says whether it is made; repeated until that is known
//! end       a Job that runs gets a deadline that has passed: its controller ends the pods with their grace, and the Job stays
//!           readable until all are over. A suspended one has no pods and is deleted
//! follow    one watch on Jobs for the target (`feeding`, `index`); `object` says what a Job means, pure
//! ```
//!
//! A Job is owned by its record, so that the garbage collector takes it and its pods away when the record goes.

mod calls;
mod feeding;
mod index;
mod manifest;
mod object;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use kube::core::response;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span, info_span, warn};

use self::feeding::JobIntake;
use self::index::Index;
use self::object::JobObject;
use super::api::{ApiError, PodApi, Run};
use super::names::ENDED;
use super::record::of_cluster;
use super::selection::Selection;
use super::submit::{FIRST_PAUSE, LONGEST_PAUSE, TRY_FOR};
use super::{PodSettings, feed, refusal};
use crate::backend::job::{Job, Jobs, Submission, Work};
use crate::backend::{Check, Health, Verdict};
use crate::error::{Error, Refusal};
use crate::execution::FailureClass;

/// A change that somebody else's crossed is decided anew so often.
const TRIES: u32 = 5;

/// The pause before it is asked again whether there is a Job that nobody has seen.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Runs the Jobs of one target.
pub(super) struct KubeJobs {
    settings: Arc<PodSettings>,
    api: PodApi,
    index: Arc<Index>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl KubeJobs {
    /// Starts the watch, which ends with `stop`.
    pub(super) fn start(
        api: &PodApi,
        settings: &Arc<PodSettings>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<dyn Jobs> {
        let index = Arc::new(Index::default());
        let (feeding, watched, selection) = (api.clone(), Arc::clone(&index), Selection::of_jobs(settings));
        let watching = stop.clone();
        let run = async move {
            let mut intake = JobIntake::new(&watched);
            watching.run_until_cancelled(feed::run(&feeding, &selection, &mut intake)).await;
        };
        tasks.spawn(run.instrument(info_span!("jobs", target = %settings.target)));
        Arc::new(Self {
            settings: Arc::clone(settings),
            api: api.clone(),
            index,
            tasks: tasks.clone(),
            stop: stop.clone(),
        })
    }

    fn error(&self, operation: &'static str, error: ApiError) -> Error {
        refusal::error(&self.settings.target, operation, error)
    }

    /// The Job with that name, if it was made for that record.
    async fn of(&self, name: &str, key: &str) -> Result<Option<JobObject>, ApiError> {
        match self.api.get_job::<JobObject>(name).await {
            Ok(job) => Ok((job.key() == key).then_some(job)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One create, and what its answer means. `None` if asking again may say more.
    async fn create(&self, job: &Value, work: &Work<'_>) -> Result<Option<String>, ApiError> {
        let name = manifest::name(work.name);
        match self.api.create_job::<JobObject>(job, work.name, Run::Real).await {
            Ok(made) => {
                self.index.put(&made);
                Ok(Some(made.id()))
            }
            // Of an earlier create that was not answered, or of another record that had the name; that goes with its record.
            Err(ApiError::Refused(status)) if status.reason == response::reason::ALREADY_EXISTS => {
                let found = self.of(name, work.key).await?;
                Ok(found.map(|job| {
                    self.index.put(&job);
                    job.id()
                }))
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for the end of a Job, as it is now. Nothing is said where something has crossed that.
    async fn ask_for_the_end(&self, name: &str, uid: &str, reason: &str) -> Result<Option<()>, ApiError> {
        let job = match self.api.get_job::<JobObject>(name).await {
            Ok(job) if job.uid() == uid => job,
            Ok(_) => return Ok(Some(())),
            Err(error) if error.code() == Some(404) => return Ok(Some(())),
            Err(error) => return Err(error),
        };
        self.index.put(&job);
        if job.is_over() {
            return Ok(Some(()));
        }
        let asked = if job.is_suspended() {
            let version = job.metadata.resource_version.as_deref().unwrap_or_default();
            self.api.delete_job(name, uid, version).await
        } else {
            let annotations = json!({ ENDED: reason });
            let patch = json!({ "metadata": { "annotations": annotations }, "spec": { "activeDeadlineSeconds": 1 } });
            self.api.patch_job::<JobObject>(name, uid, patch).await.map(|job| self.index.put(&job))
        };
        match asked {
            Ok(()) => Ok(Some(())),
            Err(error) if error.code() == Some(404) => Ok(Some(())),
            Err(error) if error.code() == Some(409) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Jobs for KubeJobs {
    fn plan(&self, work: &Work<'_>) -> Result<Vec<u8>, Error> {
        Ok(manifest::build(&self.settings, work)?.to_string().into_bytes())
    }

    async fn validate(&self, work: &Work<'_>) -> Result<(), Error> {
        let job = manifest::build(&self.settings, work)?;
        let answer = self.api.create_job::<Value>(&job, work.name, Run::Dry).await;
        match answer {
            // It would be the same one.
            Err(ApiError::Refused(status)) if status.reason == response::reason::ALREADY_EXISTS => Ok(()),
            answer => answer.map(drop).map_err(|error| self.error("validate a Job", error)),
        }
    }

    async fn submit(&self, work: &Work<'_>) -> Submission {
        let job = match manifest::build(&self.settings, work) {
            Ok(job) => job,
            Err(error) => return Submission::Refused { class: FailureClass::InvalidSpec, message: error.to_string() },
        };
        let give_up = Instant::now() + TRY_FOR;
        let (mut pause, mut in_doubt) = (FIRST_PAUSE, false);
        loop {
            let error = match self.create(&job, work).await {
                Ok(Some(id)) => return Submission::Made { id },
                Ok(None) => {
                    let name = manifest::name(work.name);
                    let message = format!("there is another Job with the name {name}");
                    self.error(
                        "create a Job",
                        ApiError::Transport { what: "the name is taken", source: Some(message.into()) },
                    )
                }
                Err(error) if error.is_passing() => {
                    in_doubt |= error.code().is_none_or(|code| code >= 500);
                    self.error("create a Job", error)
                }
                Err(error) => {
                    let error = self.error("create a Job", error);
                    return match refused(&error) {
                        Some(class) => Submission::Refused { class, message: error.to_string() },
                        None if in_doubt => Submission::Unknown(error),
                        None => Submission::NotMade(error),
                    };
                }
            };
            if Instant::now() + pause > give_up {
                return if in_doubt { Submission::Unknown(error) } else { Submission::NotMade(error) };
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn find(&self, name: &str, key: &str) -> Result<Vec<Job>, Error> {
        let found = self.of(manifest::name(name), key).await.map_err(|error| self.error("read a Job", error))?;
        Ok(found.iter().map(JobObject::describe).collect())
    }

    async fn end(&self, id: &str, reason: &str) -> Result<(), Error> {
        let Some((name, uid)) = of_cluster(id) else { return Ok(()) };
        let reason = if reason.trim().is_empty() { "ended by podbroker" } else { reason };
        for _ in 0..TRIES {
            match self.ask_for_the_end(name, uid, reason).await {
                Ok(Some(())) => return Ok(()),
                Ok(None) => {}
                Err(error) => return Err(self.error("end a Job", error)),
            }
        }
        Err(Error::NotInStep { target: self.settings.target.to_string() })
    }

    fn follow(&self, id: &str) {
        if self.index.follow(id) {
            return;
        }
        // Made by another replica a moment ago, or deleted while nobody looked.
        let Some((name, uid)) = of_cluster(id) else { return };
        let (id, name, uid) = (id.to_owned(), name.to_owned(), uid.to_owned());
        let (api, index, stop) = (self.api.clone(), Arc::clone(&self.index), self.stop.clone());
        let look = async move {
            while index.is_missed(&id) {
                match api.get_job::<JobObject>(&name).await {
                    Ok(job) if job.uid() == uid => index.put(&job),
                    Ok(_) => index.put_vanished(object::vanished(&id, &name)),
                    Err(error) if error.code() == Some(404) => index.put_vanished(object::vanished(&id, &name)),
                    Err(error) => {
                        warn!(job = name, error = &error as &dyn std::error::Error, "a Job cannot be read yet");
                        tokio::time::sleep(LOOK_AGAIN).await;
                    }
                }
            }
        };
        self.tasks.spawn(async move { stop.run_until_cancelled(look).await }.instrument(Span::current()));
    }

    /// The watch tells everything at once.
    fn hasten(&self, _: &str) {}

    fn forget(&self, id: &str) {
        self.index.forget(id);
    }

    fn health(&self) -> Health {
        self.index.health()
    }

    fn changes(&self) -> BoxStream<'static, Job> {
        stream::unfold(Arc::clone(&self.index), |index| async move {
            let job = index.next().await;
            Some((job, index))
        })
        .boxed()
    }

    fn check(&self) -> BoxStream<'static, Check> {
        let (api, settings) = (self.api.clone(), Arc::clone(&self.settings));
        stream::once(async move { check(&api, &settings).await }).boxed()
    }
}

/// What a refusal that lasts is called; nothing for what may pass.
fn refused(error: &Error) -> Option<FailureClass> {
    match error {
        Error::InvalidSpec { .. } => Some(FailureClass::InvalidSpec),
        Error::Refused { refusal: Refusal::AdmissionDenied, .. } => Some(FailureClass::AdmissionDenied),
        Error::Refused { refusal: Refusal::Quota, .. } => Some(FailureClass::Quota),
        _ => None,
    }
}

/// Whether a Job would be taken, without making one.
async fn check(api: &PodApi, settings: &PodSettings) -> Check {
    let (link, subject) = ("job", String::new());
    match api.create_job::<Value>(&manifest::sample(settings), "check", Run::Dry).await {
        Ok(_) => {
            let detail = format!("a Job would be accepted in {}", settings.namespace);
            Check { link, subject, verdict: Verdict::Passed, detail }
        }
        Err(error) => {
            let fix =
                "mend what the cluster names: the role's verbs on jobs, an admission policy or a quota".to_owned();
            Check { link, subject, verdict: Verdict::Failed { fix }, detail: error.to_string() }
        }
    }
}
