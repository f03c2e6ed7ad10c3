//! From a Job as the API server has it to our words for it: a pure function.
//!
//! Only the conditions Complete and Failed end a Job; before them its controller has others that say what they will be, while its
//! pods still end. A Job that somebody has deleted is told as one that was ended.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;

use super::super::names::{ENDED, KEY};
use super::super::record::job_id;
use crate::backend::job::{Job, JobState};

/// Kueue looks at Jobs with this label, and says by it which queue they are in.
/// <https://kueue.sigs.k8s.io/docs/tasks/run/jobs/>
const QUEUE: &str = "kueue.x-k8s.io/queue-name";

/// What is said of a Job that is no more.
const DELETED: &str = "the Job was deleted";

/// What is read of a Job.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct JobObject {
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    spec: JobSpec,
    #[serde(default)]
    status: JobStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct JobSpec {
    suspend: Option<bool>,
}

impl JobObject {
    pub(super) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    pub(super) fn id(&self) -> String {
        job_id(self.name(), self.uid())
    }

    /// As a number; the API server orders versions so.
    pub(super) fn version(&self) -> u64 {
        self.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
    }

    /// What it was made for.
    pub(super) fn key(&self) -> &str {
        self.annotation(KEY)
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    pub(super) fn is_over(&self) -> bool {
        self.condition("Complete").or_else(|| self.condition("Failed")).is_some()
    }

    fn annotation(&self, key: &str) -> &str {
        self.metadata.annotations.as_ref().and_then(|all| all.get(key)).map_or("", String::as_str)
    }

    /// The reason, the message and the time of a condition that holds.
    fn condition(&self, kind: &str) -> Option<(&str, &str, Option<Timestamp>)> {
        let all = self.status.conditions.iter().flatten();
        let found = all.into_iter().find(|condition| condition.type_ == kind && condition.status == "True")?;
        let since = found.last_transition_time.as_ref().map(|Time(at)| *at);
        Some((found.reason.as_deref().unwrap_or_default(), found.message.as_deref().unwrap_or_default(), since))
    }

    /// In our words.
    pub(super) fn describe(&self) -> Job {
        let status = &self.status;
        let time = |time: &Option<Time>| time.as_ref().map(|Time(at)| *at);
        let (state, reason, stopped) = match (self.condition("Complete"), self.condition("Failed")) {
            (Some((_, _, since)), _) => (JobState::Succeeded, String::new(), time(&status.completion_time).or(since)),
            (None, Some((reason, message, since))) => (JobState::Failed, join(reason, message), since),
            (None, None) if self.is_suspended() => (JobState::Runnable, self.suspended(), None),
            (None, None) if status.ready.is_some_and(|ready| ready > 0) => (JobState::Running, String::new(), None),
            (None, None) => (JobState::Starting, String::new(), None),
        };
        let count = |number: Option<i32>| u32::try_from(number.unwrap_or(0)).unwrap_or(0);
        let children = vec![
            (JobState::Succeeded, count(status.succeeded)),
            (JobState::Failed, count(status.failed)),
            (JobState::Running, count(status.active)),
        ];
        Job {
            id: self.id(),
            name: self.name().to_owned(),
            key: self.key().to_owned(),
            state,
            // What ends without us asking for it ends for its own reasons, also after we did.
            is_terminated: !self.annotation(ENDED).is_empty() && reason.starts_with("DeadlineExceeded"),
            reason,
            created: time(&self.metadata.creation_timestamp),
            started: time(&status.start_time),
            stopped,
            children: Some(children),
            attempts: Vec::new(),
        }
    }

    fn suspended(&self) -> String {
        let queue = self.metadata.labels.as_ref().and_then(|labels| labels.get(QUEUE));
        queue.map_or_else(|| "suspended".to_owned(), |queue| format!("suspended by Kueue, queue {queue}"))
    }
}

fn join(reason: &str, message: &str) -> String {
    if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") }
}

/// A Job that is no more, by the last that was known of it. One that had ended before stays what it was.
pub(super) fn deleted(job: Job) -> Job {
    if matches!(job.state, JobState::Succeeded | JobState::Failed) {
        return job;
    }
    Job { state: JobState::Failed, is_terminated: true, reason: DELETED.to_owned(), ..job }
}

/// A Job of which nothing is known but that it is no more.
pub(super) fn vanished(id: &str, name: &str) -> Job {
    Job {
        id: id.to_owned(),
        name: name.to_owned(),
        key: String::new(),
        state: JobState::Failed,
        reason: DELETED.to_owned(),
        is_terminated: true,
        created: None,
        started: None,
        stopped: None,
        children: None,
        attempts: Vec::new(),
    }
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
