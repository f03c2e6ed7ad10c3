//! A batch service that is played: what it answers is written by the test.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::at;
use crate::backend::Check;
use crate::backend::job::{Job, JobAttempt, JobContainer, JobState, Jobs, Submission, Work};
use crate::error::Error;
use crate::execution::FailureClass;

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap()
}

/// What becomes of a submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::pod::record) enum Answer {
    Made,
    /// The job is made, and nobody is told.
    Lost,
    /// Nothing is made, and nobody is told.
    LostBefore,
    /// Nothing is made, and that is told.
    NotMade,
    Refused,
    /// The job is made, and the answer does not come.
    Hangs,
}

/// What happens in the midst of a submit.
type Meanwhile = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Played {
    answers: VecDeque<Answer>,
    jobs: Vec<Job>,
    /// Those that a list does not have yet.
    unlisted: HashSet<String>,
    submits: u32,
    finds: u32,
    ends: Vec<(String, String)>,
    /// So many requests for an end fail.
    failing_ends: u32,
    followed: HashSet<String>,
    hastened: u32,
    meanwhile: Option<Meanwhile>,
    labels: Vec<(String, String)>,
}

/// A batch service.
#[derive(Default)]
pub(in crate::backend::pod::record) struct Batch(Mutex<Played>);

fn away() -> Error {
    Error::Backend { target: "prod".to_owned(), operation: "submit a job", source: "no answer".into() }
}

#[async_trait]
impl Jobs for Batch {
    fn plan(&self, work: &Work<'_>) -> Result<Vec<u8>, Error> {
        Ok(work.name.as_bytes().to_vec())
    }

    async fn validate(&self, _: &Work<'_>) -> Result<(), Error> {
        Ok(())
    }

    async fn submit(&self, work: &Work<'_>) -> Submission {
        let answer = {
            let mut played = lock(&self.0);
            played.submits += 1;
            played.labels = work.labels.to_vec();
            let answer = played.answers.pop_front().unwrap_or(Answer::Made);
            if matches!(answer, Answer::Made | Answer::Lost | Answer::Hangs) {
                let id = format!("job-{}", played.jobs.len() + 1);
                let job = Job { name: work.name.to_owned(), key: work.key.to_owned(), ..job(&id, JobState::Submitted) };
                played.jobs.push(job);
            }
            answer
        };
        let meanwhile = lock(&self.0).meanwhile.take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let id = lock(&self.0).jobs.last().map(|job| job.id.clone()).unwrap_or_default();
        match answer {
            Answer::Made => Submission::Made { id },
            Answer::Lost | Answer::LostBefore => Submission::Unknown(away()),
            Answer::NotMade => Submission::NotMade(away()),
            Answer::Refused => {
                Submission::Refused { class: FailureClass::InvalidSpec, message: "no such definition".to_owned() }
            }
            Answer::Hangs => std::future::pending().await,
        }
    }

    async fn find(&self, name: &str, key: &str) -> Result<Vec<Job>, Error> {
        let mut played = lock(&self.0);
        played.finds += 1;
        let listed = played.jobs.iter().filter(|job| !played.unlisted.contains(&job.id));
        Ok(listed.filter(|job| job.name == name && job.key == key).cloned().collect())
    }

    async fn end(&self, id: &str, reason: &str) -> Result<(), Error> {
        let mut played = lock(&self.0);
        if played.failing_ends > 0 {
            played.failing_ends -= 1;
            return Err(away());
        }
        played.ends.push((id.to_owned(), reason.to_owned()));
        if let Some(job) = played.jobs.iter_mut().find(|job| job.id == id) {
            job.is_terminated = true;
        }
        Ok(())
    }

    fn follow(&self, id: &str) {
        lock(&self.0).followed.insert(id.to_owned());
    }

    fn hasten(&self, _: &str) {
        lock(&self.0).hastened += 1;
    }

    fn forget(&self, id: &str) {
        lock(&self.0).followed.remove(id);
    }

    fn changes(&self) -> BoxStream<'static, Job> {
        stream::pending().boxed()
    }

    fn check(&self) -> BoxStream<'static, Check> {
        stream::empty().boxed()
    }
}

impl Batch {
    pub(in crate::backend::pod::record) fn answers(&self, answers: &[Answer]) {
        lock(&self.0).answers.extend(answers);
    }

    pub(in crate::backend::pod::record) fn meanwhile(&self, what: impl FnOnce() + Send + 'static) {
        lock(&self.0).meanwhile = Some(Box::new(what));
    }

    pub(in crate::backend::pod::record) fn hide(&self, id: &str) {
        lock(&self.0).unlisted.insert(id.to_owned());
    }

    pub(in crate::backend::pod::record) fn show_all(&self) {
        lock(&self.0).unlisted.clear();
    }

    pub(in crate::backend::pod::record) fn fail_ends(&self, count: u32) {
        lock(&self.0).failing_ends = count;
    }

    pub(in crate::backend::pod::record) fn submits(&self) -> u32 {
        lock(&self.0).submits
    }

    pub(in crate::backend::pod::record) fn finds(&self) -> u32 {
        lock(&self.0).finds
    }

    pub(in crate::backend::pod::record) fn hastened(&self) -> u32 {
        lock(&self.0).hastened
    }

    pub(in crate::backend::pod::record) fn jobs(&self) -> Vec<Job> {
        lock(&self.0).jobs.clone()
    }

    pub(in crate::backend::pod::record) fn ended(&self) -> Vec<String> {
        lock(&self.0).ends.iter().map(|(id, _)| id.clone()).collect()
    }

    pub(in crate::backend::pod::record) fn reasons(&self) -> Vec<String> {
        lock(&self.0).ends.iter().map(|(_, reason)| reason.clone()).collect()
    }

    pub(in crate::backend::pod::record) fn followed(&self) -> Vec<String> {
        let mut followed: Vec<_> = lock(&self.0).followed.iter().cloned().collect();
        followed.sort();
        followed
    }

    pub(in crate::backend::pod::record) fn labels(&self) -> Vec<(String, String)> {
        lock(&self.0).labels.clone()
    }
}

pub(in crate::backend::pod::record) fn job(id: &str, state: JobState) -> Job {
    Job {
        id: id.to_owned(),
        name: String::new(),
        key: String::new(),
        state,
        reason: String::new(),
        is_terminated: false,
        created: Some(at(0)),
        started: None,
        stopped: None,
        children: None,
        attempts: Vec::new(),
    }
}

/// An attempt of a job, in the pod of that name, with one container that ended so, if it has.
pub(in crate::backend::pod::record) fn attempt(pod: &str, exit_code: Option<i32>, reason: &str) -> JobAttempt {
    let container = JobContainer {
        name: "main".to_owned(),
        exit_code,
        reason: if exit_code.is_some() { "Error" } else { "" }.to_owned(),
    };
    JobAttempt {
        pod_name: pod.to_owned(),
        namespace: "n".to_owned(),
        node: "node1".to_owned(),
        containers: vec![container],
        started: Some(at(10)),
        stopped: exit_code.map(|_| at(20)),
        reason: reason.to_owned(),
    }
}
