//! Brings records, jobs and pods together, whichever comes first.
//!
//! The hub tells it of each and gets the views that follow. It tells `Jobs` which jobs are to be described, and which soon: a
//! container that starts or ends says so seconds before any description does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::super::carrier::Carrier;
use super::super::events::{self, Access, Early, PodEvent};
use super::super::view::{Presence, View};
use super::merge::{Seen, is_queued, views};
use super::part::{Origin, Part, owner};
use crate::backend::Health;
use crate::backend::job::{Job, JobState, Jobs};

/// A record by the hash of its execution and the number in its name.
type Key = (String, u32);

/// What is known of the records of a target.
pub(in crate::backend::pod) struct Ledger {
    jobs: Arc<dyn Jobs>,
    lanes: HashMap<Key, Lane>,
    /// By the id of the job.
    by_job: HashMap<String, Key>,
    /// By the name of the pod.
    by_pod: HashMap<String, Key>,
    /// Jobs whose records went before they had ended.
    abandoned: Vec<String>,
}

/// One record.
#[derive(Default)]
struct Lane {
    record: Option<View>,
    seen: Seen,
    /// Pods that were told before the record, by name.
    early: HashMap<String, Carrier>,
}

/// What follows from something new.
#[derive(Default)]
pub(in crate::backend::pod) struct News {
    /// The hash of the execution, and its views.
    pub(in crate::backend::pod) views: Option<(String, Vec<View>)>,
    /// The pod that changed.
    pub(in crate::backend::pod) part: Option<Arc<View>>,
}

impl Ledger {
    pub(in crate::backend::pod) fn new(jobs: Arc<dyn Jobs>) -> Self {
        let (lanes, by_job, by_pod) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { jobs, lanes, by_job, by_pod, abandoned: Vec::new() }
    }

    /// Whether the descriptions of jobs are in step.
    pub(in crate::backend::pod) fn health(&self) -> Health {
        self.jobs.health()
    }

    /// A version of a record. Returns the views of its attempts, oldest first.
    pub(in crate::backend::pod) fn take_record(
        &mut self,
        hash: &str,
        bare: View,
        early: &mut Early,
        access: Access,
    ) -> Vec<View> {
        let key = (hash.to_owned(), bare.attempt);
        let Some(record) = bare.record() else { return vec![bare] };
        let (job, is_open) = (record.job_id().to_owned(), record.written.is_none());
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.record.as_ref().is_some_and(|known| known.uid != bare.uid) {
            // The name was taken anew. Nothing of the one before is this one's.
            lane.seen = Seen::default();
        }
        lane.record = Some(bare);
        if !job.is_empty() && is_open {
            self.by_job.insert(job.clone(), key.clone());
            self.jobs.follow(&job);
        } else if self.by_job.remove(&job).is_some() {
            self.jobs.forget(&job);
        }
        for (_, pod) in std::mem::take(&mut self.lanes.entry(key.clone()).or_default().early) {
            self.put_part(&key, &pod, early, access);
        }
        self.lanes.get(&key).map(Lane::views).unwrap_or_default()
    }

    /// A record is no more.
    pub(in crate::backend::pod) fn remove_record(&mut self, hash: &str, number: u32) {
        let key = (hash.to_owned(), number);
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        let Some(bare) = lane.record.take() else { return };
        let has_ended = lane.seen.job.as_ref().is_some_and(|job| is_over(job));
        if let Some(record) = bare.record().filter(|record| record.made.is_some()) {
            self.by_job.remove(record.job_id());
            self.jobs.forget(record.job_id());
            if record.written.is_none() && !has_ended {
                self.abandoned.push(record.job_id().to_owned());
            }
        }
        lane.seen = Seen::default();
        self.by_pod.retain(|_, owner| *owner != key);
        self.lanes.remove(&key);
    }

    /// Jobs whose records went before they had ended, since this was asked last.
    pub(in crate::backend::pod) fn take_abandoned(&mut self) -> Vec<String> {
        std::mem::take(&mut self.abandoned)
    }

    /// A version of a pod.
    pub(in crate::backend::pod) fn take_pod(&mut self, pod: &Carrier, early: &mut Early, access: Access) -> News {
        let Some(key) = owner(pod) else { return News::default() };
        let name = pod.metadata.name.clone().unwrap_or_default();
        let lane = self.lanes.entry(key.clone()).or_default();
        self.by_pod.insert(name.clone(), key.clone());
        if lane.record.is_none() {
            lane.early.insert(name, pod.clone());
            return News::default();
        }
        let part = self.put_part(&key, pod, early, access);
        News { views: self.views(&key), part }
    }

    /// A pod is no more; this is the last that was seen of it, if that is known.
    pub(in crate::backend::pod) fn remove_pod(&mut self, name: &str, last: Option<&Carrier>) -> News {
        let Some(key) = self.by_pod.remove(name) else { return News::default() };
        let Some(lane) = self.lanes.get_mut(&key) else { return News::default() };
        if lane.early.remove(name).is_some() || lane.record.is_none() {
            if lane.record.is_none() && lane.early.is_empty() {
                self.lanes.remove(&key);
            }
            return News::default();
        }
        let Some(at) = lane.seen.parts.iter().position(|part| part.view.pod_name == name) else {
            return News::default();
        };
        let known = &lane.seen.parts[at];
        let shown = match (last, &lane.record) {
            (Some(last), Some(bare)) if last.metadata.uid.as_deref() == Some(known.view.uid.as_str()) => {
                Origin::of(last).map(|origin| Part::new(bare, last, origin, Some(known)))
            }
            _ => None,
        };
        let shown = shown.unwrap_or_else(|| Part::clone(known));
        let view = View { presence: Presence::Gone, ..View::clone(&shown.view) };
        let part = Arc::new(shown.with(view));
        let view = Arc::clone(&part.view);
        self.jobs.hasten(&part.job);
        lane.seen.parts[at] = part;
        News { views: self.views(&key), part: Some(view) }
    }

    /// The pods that are there.
    pub(in crate::backend::pod) fn pods_but(&self, listed: &HashSet<String>) -> Vec<String> {
        self.by_pod.keys().filter(|name| !listed.contains(*name)).cloned().collect()
    }

    /// What an event says of a pod; `None` if the pod is not known.
    pub(in crate::backend::pod) fn hear(&mut self, name: &str, uid: &str, event: &PodEvent) -> Option<News> {
        let key = self.by_pod.get(name)?.clone();
        let lane = self.lanes.get_mut(&key)?;
        let part = lane.seen.parts.iter_mut().find(|part| part.view.pod_name == name && part.view.uid == uid)?;
        let mut view = View::clone(&part.view);
        if !events::matter(&view) || !events::keep(&mut view.events, event.clone()) {
            return Some(News::default());
        }
        *part = Arc::new(part.with(view));
        let part = Some(Arc::clone(&part.view));
        Some(News { views: self.views(&key), part })
    }

    /// A job was described.
    pub(in crate::backend::pod) fn describe(&mut self, job: Job, now: Timestamp) -> News {
        let Some(key) = self.by_job.get(&job.id).cloned() else { return News::default() };
        let Some(lane) = self.lanes.get_mut(&key) else { return News::default() };
        if is_over(&job) {
            lane.seen.ended.get_or_insert(now);
        } else {
            // It may have been forgotten for a while, and may wait for another try.
            lane.seen.ended = None;
            lane.seen.left_queue = (!is_queued(&job)).then(|| lane.seen.left_queue.unwrap_or(now));
        }
        lane.seen.job = Some(Arc::new(job));
        News { views: self.views(&key), part: None }
    }

    fn views(&self, key: &Key) -> Option<(String, Vec<View>)> {
        let views = self.lanes.get(key)?.views();
        (!views.is_empty()).then(|| (key.0.clone(), views))
    }

    fn put_part(&mut self, key: &Key, pod: &Carrier, early: &mut Early, access: Access) -> Option<Arc<View>> {
        let lane = self.lanes.get_mut(key)?;
        let (bare, origin) = (lane.record.as_ref()?, Origin::of(pod)?);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let at = lane.seen.parts.iter().position(|part| part.view.uid == uid);
        let known = at.map(|at| Arc::clone(&lane.seen.parts[at]));
        let mut part = Part::new(bare, pod, origin, known.as_deref());
        if known.as_ref().is_some_and(|known| known.view.version > part.view.version) {
            return None;
        }
        let mut view = View { access, ..View::clone(&part.view) };
        if known.is_none() {
            early.take(&view.uid, &mut view.events);
        }
        part = part.with(view);
        let is_news = known.as_ref().is_none_or(|known| known.gist() != part.gist());
        let part = Arc::new(part);
        if let Some(at) = at {
            lane.seen.parts[at] = Arc::clone(&part);
        } else {
            let behind = lane.seen.parts.partition_point(|other| other.turn <= part.turn);
            lane.seen.parts.insert(behind, Arc::clone(&part));
        }
        // Of an array only the end of all that are there says something about the job.
        let is_alone = || lane.seen.parts.iter().all(|part| part.has_said_all());
        if is_news && (part.slot.is_none() || is_alone()) {
            self.jobs.hasten(&part.job);
        }
        Some(Arc::clone(&part.view))
    }
}

impl Lane {
    fn views(&self) -> Vec<View> {
        let Some(bare) = &self.record else { return Vec::new() };
        bare.record().map(|record| views(bare, record, &self.seen)).unwrap_or_default()
    }
}

fn is_over(job: &Job) -> bool {
    matches!(job.state, JobState::Succeeded | JobState::Failed)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
