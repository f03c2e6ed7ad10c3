//! The Jobs of a target as the watch tells them, and which of them somebody follows.
//!
//! What waits to be taken is bounded by how many are followed: of each only the latest is kept, so a slow taker misses steps in
//! between and never the last one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::object::{JobObject, deleted};
use crate::backend::Health;
use crate::backend::job::Job;

/// The Jobs of a target.
#[derive(Debug)]
pub(super) struct Index {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug)]
struct State {
    /// Whether the watch is in step.
    health: Health,
    /// By id.
    jobs: HashMap<String, Known>,
    followed: HashSet<String>,
    /// Of the followed ones, those that have changed since they were taken.
    changed: BTreeSet<String>,
}

#[derive(Debug)]
struct Known {
    job: Job,
    version: u64,
}

impl Default for Index {
    fn default() -> Self {
        let (jobs, followed, changed) = (HashMap::new(), HashSet::new(), BTreeSet::new());
        Self { state: Mutex::new(State { health: Health::Starting, jobs, followed, changed }), news: Notify::new() }
    }
}

impl Index {
    /// Whether the watch is in step.
    pub(super) fn health(&self) -> Health {
        self.state().health.clone()
    }

    /// Notes how the watch is.
    pub(super) fn set_health(&self, health: Health) {
        self.state().health = health;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A version of a Job, from the watch or from an answer. An older one than the known changes nothing.
    pub(super) fn put(&self, object: &JobObject) {
        self.take(object.id(), Known { job: object.describe(), version: object.version() });
    }

    /// Nothing but this is known of a Job.
    pub(super) fn put_vanished(&self, job: Job) {
        self.take(job.id.clone(), Known { job, version: u64::MAX });
    }

    fn take(&self, id: String, new: Known) {
        let mut state = self.state();
        let known = state.jobs.get(&id);
        if known.is_some_and(|known| known.version > new.version) {
            return;
        }
        let is_news = known.is_none_or(|known| known.job != new.job);
        state.jobs.insert(id.clone(), new);
        if is_news && state.followed.contains(&id) {
            state.changed.insert(id);
            self.news.notify_one();
        }
    }

    /// A Job is no more.
    pub(super) fn remove(&self, object: &JobObject) {
        let job = deleted(object.describe());
        self.go(&object.id(), Some(job));
    }

    /// Jobs that a list of that version did not have are no more. What was learned from a later answer stays.
    pub(super) fn keep(&self, listed: &HashSet<String>, version: u64) {
        let is_gone = |(id, known): &(&String, &Known)| !listed.contains(*id) && known.version <= version;
        let gone: Vec<_> = self.state().jobs.iter().filter(is_gone).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.go(&id, None);
        }
    }

    fn go(&self, id: &str, last: Option<Job>) {
        let mut state = self.state();
        if !state.followed.contains(id) {
            state.jobs.remove(id);
            return;
        }
        let last = last.or_else(|| state.jobs.get(id).map(|known| deleted(known.job.clone())));
        let Some(job) = last else { return };
        // Nothing that comes later is about a Job that is no more.
        state.jobs.insert(id.to_owned(), Known { job, version: u64::MAX });
        state.changed.insert(id.to_owned());
        self.news.notify_one();
    }

    /// Tells of it from now on. Returns whether it is known; if not, somebody has to find out whether there is one.
    pub(super) fn follow(&self, id: &str) -> bool {
        let mut state = self.state();
        let is_known = state.jobs.contains_key(id);
        if !state.followed.insert(id.to_owned()) {
            // Whoever asked first finds out.
            return true;
        }
        if is_known {
            state.changed.insert(id.to_owned());
            self.news.notify_one();
        }
        is_known
    }

    pub(super) fn forget(&self, id: &str) {
        let mut state = self.state();
        state.followed.remove(id);
        state.changed.remove(id);
        if state.jobs.get(id).is_some_and(|known| known.version == u64::MAX) {
            state.jobs.remove(id);
        }
    }

    /// Whether it is followed and nothing is known of it yet.
    pub(super) fn is_missed(&self, id: &str) -> bool {
        let state = self.state();
        state.followed.contains(id) && !state.jobs.contains_key(id)
    }

    /// The next of the followed ones that has changed.
    pub(super) async fn next(&self) -> Job {
        loop {
            if let Some(job) = self.pop() {
                return job;
            }
            self.news.notified().await;
        }
    }

    fn pop(&self) -> Option<Job> {
        let mut state = self.state();
        while let Some(id) = state.changed.pop_first() {
            if let Some(known) = state.jobs.get(&id) {
                return Some(known.job.clone());
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
