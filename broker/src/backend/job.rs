//! The words between the engine, which knows executions, and what runs a target's jobs, which knows AWS Batch: plain values and one
//! trait. The engine asks nobody else about jobs, and who runs them knows nothing of objects in the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;

use super::log_group::LogGroup;
use super::{Check, Health};
use crate::error::Error;
use crate::execution::{FailureClass, Policies, Workload};

/// Where a job stands, in the words of AWS Batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    /// Accepted.
    Submitted,
    /// It waits for jobs that it depends on.
    Pending,
    /// It waits for room.
    Runnable,
    /// Its pod is made; images are pulled and init containers run.
    Starting,
    /// Its containers run.
    Running,
    /// It ended with exit code 0.
    Succeeded,
    /// It ended otherwise.
    Failed,
}

/// A job as it was described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id; children of an array have `:index` behind that of their parent and are not described one by one.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The key that it was made with, from its tags; empty if somebody took it away.
    pub key: String,
    /// Where it stands.
    pub state: JobState,
    /// `statusReason`.
    pub reason: String,
    /// It ended, or is to end, because somebody asked for it.
    pub is_terminated: bool,
    /// When it was accepted.
    pub created: Option<Timestamp>,
    /// When its first container started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub stopped: Option<Timestamp>,
    /// For an array: how many children stand where.
    pub children: Option<Vec<(JobState, u32)>>,
    /// Pods that were made for it, oldest first, the current one last; empty for arrays.
    pub attempts: Vec<JobAttempt>,
}

/// What is said of a job that is not known any more. Batch itself never says so: it leaves the job out.
const FORGOTTEN: &str = "AWS Batch does not know this job any more (it keeps a job for 7 days after its end), so how it ended \
                         cannot be known";

impl Job {
    /// A job that is not described any more, with what was known of it.
    pub fn forgotten(id: &str, known: Option<Self>) -> Self {
        let known = known.unwrap_or_else(|| Self {
            id: id.to_owned(),
            name: String::new(),
            key: String::new(),
            state: JobState::Submitted,
            reason: String::new(),
            is_terminated: false,
            created: None,
            started: None,
            stopped: None,
            children: None,
            attempts: Vec::new(),
        });
        Self { state: JobState::Failed, reason: FORGOTTEN.to_owned(), ..known }
    }

    /// How it ended cannot be known.
    pub fn is_forgotten(&self) -> bool {
        self.state == JobState::Failed && self.reason == FORGOTTEN
    }
}

/// One pod that was made for a job, as far as Batch tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobAttempt {
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The node's name.
    pub node: String,
    /// Init containers first.
    pub containers: Vec<JobContainer>,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub stopped: Option<Timestamp>,
    /// `statusReason` of the attempt.
    pub reason: String,
}

/// How a container of a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobContainer {
    /// Its name.
    pub name: String,
    /// Unset while it runs, or if Batch does not know.
    pub exit_code: Option<i32>,
    /// At most 255 characters.
    pub reason: String,
}

/// What a job is made from.
#[derive(Debug, Clone)]
pub struct Work<'a> {
    /// The job's name: that of the record, a DNS label. The same whoever asks, and taken anew by a later execution of that id.
    pub name: &'a str,
    /// For a tag: the name and the record's uid, so that jobs of an earlier record of that name are told apart. At most 100
    /// characters of a-z, 0-9, `-` and `/`. In a plan, where there is no record yet, the uid is a placeholder.
    pub key: &'a str,
    /// What to run.
    pub workload: &'a Workload,
    /// How.
    pub policies: &'a Policies,
    /// Labels that its pods must have, so that the watch sees them.
    pub labels: &'a [(String, String)],
}

/// What a submit led to.
#[derive(Debug)]
pub enum Submission {
    /// The job was made.
    Made {
        /// Its id.
        id: String,
    },
    /// It was refused, and would be again.
    Refused {
        /// What that is called.
        class: FailureClass,
        /// Why, for a person.
        message: String,
    },
    /// It was certainly not made, and may be tried again.
    NotMade(Error),
    /// Nobody knows.
    Unknown(Error),
}

/// What happens to jobs, as numbers since the start; one for all targets.
#[derive(Debug, Default)]
pub struct JobCounters {
    duplicates: AtomicU64,
    unsettled: AtomicU64,
}

impl JobCounters {
    /// Jobs were found that should not be, and were ended.
    pub fn add_duplicates(&self, count: u64) {
        self.duplicates.fetch_add(count, Ordering::Relaxed);
    }

    /// A submit was not answered.
    pub fn add_unsettled(&self) {
        self.unsettled.fetch_add(1, Ordering::Relaxed);
    }

    /// Jobs that should not have been.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Submits of which nobody knew whether a job was made.
    pub fn unsettled(&self) -> u64 {
        self.unsettled.load(Ordering::Relaxed)
    }
}

/// Runs the jobs of a target.
#[async_trait]
pub trait Jobs: Send + Sync + 'static {
    /// What would be sent, as JSON. What cannot be expressed is `INVALID_SPEC` with every field. Asks nobody.
    fn plan(&self, work: &Work<'_>) -> Result<Vec<u8>, Error>;

    /// Whether the definition and the queue would take it; for a validation, which makes nothing.
    async fn validate(&self, work: &Work<'_>) -> Result<(), Error>;

    /// Asks for a job, once: nothing is repeated inside.
    async fn submit(&self, work: &Work<'_>) -> Submission;

    /// All jobs with that name and key, oldest first, whatever their state.
    async fn find(&self, name: &str, key: &str) -> Result<Vec<Job>, Error>;

    /// Asks for the end of a job, in any state. Harmless for one that has ended.
    async fn end(&self, id: &str, reason: &str) -> Result<(), Error>;

    /// Describes the job from now on, until it has ended or is forgotten. Harmless if it is followed already.
    fn follow(&self, id: &str);

    /// Something is known to have happened to the job: it is described soon.
    fn hasten(&self, id: &str);

    /// Nobody wants to know any more.
    fn forget(&self, id: &str);

    /// What descriptions of followed jobs bring, when they differ from the one before. Taken once, by the engine.
    fn changes(&self) -> BoxStream<'static, Job>;

    /// Where lines of its pods are shipped to, if somebody has said so.
    fn log_group(&self) -> Option<Arc<dyn LogGroup>> {
        None
    }

    /// Whether what jobs are described as is in step. Of one who is asked for each job, that is nothing that can be out of step.
    fn health(&self) -> Health {
        Health::Serving
    }

    /// Walks the chain from the broker to a running job.
    fn check(&self) -> BoxStream<'static, Check>;
}
