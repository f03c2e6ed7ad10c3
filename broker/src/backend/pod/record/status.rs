//! From the view of a record to where the execution stands: a pure function.
//!
//! The job's own state is seconds old, and the pods' are not: a pod that is there means that the job has left its queue, and a
//! container that runs means that it runs, whatever was described last. But only the job ends an execution, since it may try
//! again; how it ended is what was written into the record then, so that every replica says the same for ever.

use std::sync::Arc;

use super::super::container::ContainerView;
use super::super::notices;
use super::super::status::Status;
use super::super::view::{Presence, View};
use super::merge::is_queued;
use super::part::Part;
use super::verdict::{EndView, vanished};
use super::{Record, Turn};
use crate::backend::job::JobState;
use crate::execution::State;

/// What the view of a record says.
pub(in crate::backend::pod) fn status(view: &View, record: &Record) -> Status {
    let starts = view.deciding().filter(|container| container.has_run()).filter_map(ContainerView::started);
    let written = record.written.as_ref().filter(|_| record.turn == Turn::Latest);
    let started = starts.min().or_else(|| written.and_then(|written| written.started));
    let last = view.deciding().filter_map(|container| container.termination()?.ended).max();
    if let Some(written) = written {
        let (outcome, ended) = (written.outcome.clone(), written.ended.or(Some(written.at)));
        return Status {
            state: outcome.state,
            reason: outcome.message.clone(),
            outcome: Some(outcome),
            started,
            ended,
        };
    }
    if let Turn::Earlier(index) = record.turn {
        let outcome = match EndView::of(record, record.turn) {
            Some(end) => end.outcome().clone(),
            None => super::verdict::earlier(view, record, index),
        };
        let reason = outcome.message.clone();
        return Status { state: outcome.state, reason, outcome: Some(outcome), started, ended: last };
    }
    if view.presence == Presence::Gone {
        let outcome = vanished();
        let reason = outcome.message.clone();
        return Status { state: outcome.state, reason, outcome: Some(outcome), started, ended: last };
    }
    let reason = Some(notices::why(view)).filter(|why| !why.is_empty()).unwrap_or_else(|| words(record));
    Status { state: state(view, record), reason, outcome: None, started, ended: None }
}

/// What the job says of why it does not run. Of one in its queue a notice tells that, and of one that runs its pods do.
fn words(record: &Record) -> String {
    let job = record.job.as_ref().filter(|job| job.state == JobState::Starting && !job.reason.is_empty());
    job.map(|job| format!("AWS Batch says: {}", job.reason)).unwrap_or_default()
}

fn state(view: &View, record: &Record) -> State {
    let runs = |container: &ContainerView| container.has_run();
    let is_over = |part: &Arc<Part>| part.view.is_terminal() || part.view.presence == Presence::Gone;
    let is_suspended = record.is_of_cluster() && record.job.as_ref().is_some_and(|job| is_queued(job));
    if is_suspended && record.parts.iter().all(is_over) {
        // Its pods of before were taken away, and there will be others.
        return State::Queued;
    }
    if view.deciding().any(runs) {
        return State::Running;
    }
    match record.job.as_ref().map(|job| job.state) {
        Some(JobState::Running) => State::Running,
        Some(JobState::Starting | JobState::Succeeded | JobState::Failed) => State::Pending,
        _ if record.parts.iter().any(|part| !part.view.is_terminal()) => State::Pending,
        _ => State::Queued,
    }
}

/// What holds a job back before it has a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::pod) enum Queue<'a> {
    /// It is not made yet.
    Submitting,
    /// Nobody knows whether it is made; that is being found out.
    InDoubt,
    /// It waits, with the job's own words.
    Waits(&'a str),
}

/// What holds the job of a view back; nothing if it is past that.
pub(in crate::backend::pod) fn queue(view: &View) -> Option<Queue<'_>> {
    let record = view.record()?;
    if view.is_terminal() || state(view, record) != State::Queued {
        return None;
    }
    if record.made.is_none() {
        let asked_again = record.submitting.number > 1 || record.doubt.is_some();
        return Some(if asked_again { Queue::InDoubt } else { Queue::Submitting });
    }
    let job = record.job.as_ref().filter(|job| is_queued(job));
    Some(Queue::Waits(job.map_or("", |job| job.reason.as_str())))
}

/// Nothing of a pod's status is on its way any more.
pub(super) fn have_said_all(record: &Record) -> bool {
    let Some(job) = &record.job else { return false };
    let is_seen = |name: &str| record.parts.iter().any(|part| part.view.pod_name == name);
    let has_run = job.children.is_none() && (job.state == JobState::Succeeded || job.started.is_some());
    let never_met = match job.attempts.last() {
        Some(last) => !last.pod_name.is_empty() && !is_seen(&last.pod_name),
        None => has_run && record.parts.is_empty(),
    };
    let children = job.children.as_ref().map(|all| {
        let pods = all.iter().filter(|(state, _)| matches!(state, JobState::Succeeded | JobState::Failed));
        pods.map(|(_, count)| *count as usize).sum::<usize>()
    });
    // Of an array only the number of pods that there may be is known.
    let are_met = children.is_none_or(|children| {
        let mut met: Vec<_> = record.parts.iter().filter_map(|part| part.slot.as_ref()).collect();
        met.sort_unstable();
        met.dedup();
        met.len() >= children
    });
    !never_met && are_met && record.parts.iter().all(|part| part.has_said_all())
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
