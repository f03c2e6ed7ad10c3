//! From a record, its job and its parts to the views of its attempts: pure functions.
//!
//! A record carries one attempt, or, if the job tries again by itself, all attempts of the job. Children of an array are one
//! attempt together, in which the containers of each have names of their own.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::container::{ContainerState, ContainerView, Termination};
use super::super::node::NodeContact;
use super::super::view::{Nature, Phase, View};
use super::named::Named;
use super::part::{Part, of_cluster};
use super::verdict::EndView;
use super::{Record, Turn};
use crate::backend::job::{Job, JobAttempt, JobContainer, JobState};
use crate::execution::{ContainerOutcome, ContainerRole, Policies, State};

/// What is known of a record besides itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) job: Option<Arc<Job>>,
    /// When it was heard that the job has ended.
    pub(super) ended: Option<Timestamp>,
    /// When it was heard that the job has left its queue.
    pub(super) left_queue: Option<Timestamp>,
    pub(super) parts: Vec<Arc<Part>>,
}

/// The views of a record's attempts, oldest first; never empty.
pub(super) fn views(bare: &View, record: &Record, seen: &Seen) -> Vec<View> {
    let id = record.job_id();
    let parts: Vec<_> = seen.parts.iter().filter(|part| !id.is_empty() && part.job == id).cloned().collect();
    let job = seen.job.as_ref().filter(|job| job.id == id);
    let first = seen.parts.iter().min_by_key(|part| (part.view.created, part.job.as_str()));
    // Pods of a Job of the cluster may still be those of an earlier record of that name, and its own name tells better.
    let tells = |part: &&Arc<Part>| record.made.is_none() && of_cluster(&part.job).is_none();
    let heard = first.filter(tells).map(|part| part.job.clone());
    let ended = seen.ended.filter(|_| job.is_some());
    let known = Record { parts, job: job.cloned(), ended, heard, ..record.clone() };
    let count = count(&known);
    (0..count)
        .map(|index| {
            let turn = if index + 1 == count { Turn::Latest } else { Turn::Earlier(index) };
            view(bare, &known, seen.left_queue, index, turn)
        })
        .collect()
}

/// How many attempts there are.
fn count(record: &Record) -> usize {
    if record.is_array() {
        return 1;
    }
    if let Some(written) = &record.written {
        return written.earlier.len() + 1;
    }
    let by_parts = record.parts.iter().map(|part| part.turn as usize).max();
    let by_job = record.job.as_ref().map(|job| {
        let all_stopped = !job.attempts.is_empty() && job.attempts.iter().all(|attempt| attempt.stopped.is_some());
        // Between two attempts it waits for the next one.
        job.attempts.len() + usize::from(all_stopped && !record.has_ended())
    });
    by_parts.max(by_job).unwrap_or(1).max(1)
}

fn view(bare: &View, known: &Record, left_queue: Option<Timestamp>, index: usize, turn: Turn) -> View {
    let mine = |part: &&Arc<Part>| part.slot.is_some() || part.turn as usize == index + 1;
    let is_passed = known.parts.iter().any(|part| part.slot.is_none() && part.turn as usize > index + 1);
    let parts: Vec<_> = known.parts.iter().filter(mine).cloned().collect();
    let told = told(known, index);
    let end = EndView::of(known, turn);
    let containers = containers(bare, &parts, told, end);
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    let first =
        |of: fn(&View) -> bool| parts.iter().map(|part| &part.view).find(|view| !view.is_terminal() && of(view));
    let unschedulable = first(|view| view.unschedulable.is_some()).and_then(|view| view.unschedulable.clone());
    let disrupted = parts.iter().find_map(|part| part.view.disruption.clone());
    let latest = parts.last().map(|part| &part.view);
    let node = latest.map(|view| view.node.as_str()).filter(|node| !node.is_empty() && !known.is_array());
    let node = node.or_else(|| told.map(|told| told.node.as_str())).or_else(|| end.map(|end| end.pod().node.as_str()));
    let created = parts.iter().filter_map(|part| part.view.created).min();
    let runs = containers.iter().any(ContainerView::has_run);
    let phase = match (turn, &known.written) {
        (Turn::Latest, Some(written)) if written.outcome.state == State::Succeeded => Phase::Succeeded,
        (Turn::Earlier(_), _) | (Turn::Latest, Some(_)) => Phase::Failed,
        (Turn::Latest, None) if runs => Phase::Running,
        (Turn::Latest, None) => Phase::Pending,
    };
    View {
        attempt: bare.attempt.saturating_add(number),
        node: node.unwrap_or_default().to_owned(),
        phase,
        unschedulable,
        disruption: disrupted,
        nominated: first(|view| !view.nominated.is_empty()).map(|view| view.nominated.clone()).unwrap_or_default(),
        contact: first(|view| view.contact == NodeContact::Lost).map_or(bare.contact, |view| view.contact),
        capacity: latest.map_or(bare.capacity, |view| view.capacity),
        events: if known.is_array() && !known.is_of_cluster() {
            Vec::new()
        } else {
            latest.map(|view| view.events.clone()).unwrap_or_default()
        },
        // A start deadline counts from here: what waits in a queue is not late. A Job may go back into its queue.
        queued_until: if known.is_of_cluster() {
            known.job.as_ref().and_then(|job| job.started).or(left_queue)
        } else {
            created.or(left_queue)
        },
        containers,
        nature: Nature::Record(Arc::new(Record { parts, turn, is_passed, ..known.clone() })),
        ..bare.clone()
    }
}

/// What the job says of that attempt.
fn told(record: &Record, index: usize) -> Option<&JobAttempt> {
    record.job.as_ref()?.attempts.get(index)
}

/// The containers as the pods show them. What no pod is there for is taken from what was written, or from the job.
fn containers(
    bare: &View,
    parts: &[Arc<Part>],
    told: Option<&JobAttempt>,
    end: Option<EndView<'_>>,
) -> Vec<ContainerView> {
    let mut found = Named::default();
    for part in parts {
        for container in &part.view.containers {
            let shown = ContainerView { name: part.shown(&container.name), ..container.clone() };
            match found.get_mut(&shown.name) {
                // A child that is tried again has another pod.
                Some(known) if known.restarts > shown.restarts => {}
                Some(known) => *known = shown,
                None => found.push(shown),
            }
        }
    }
    for written in end.iter().flat_map(|end| &end.outcome().containers) {
        match found.get_mut(&written.container) {
            // The last word of a pod that went, or of one that followed it, may have come to another replica only.
            Some(known) if known.restarts < written.restarts => *known = rebuilt(written),
            Some(known) if known.termination().is_none() && written.exit_code.is_some() => *known = rebuilt(written),
            Some(_) => {}
            None => found.push(rebuilt(written)),
        }
    }
    if parts.is_empty()
        && found.is_empty()
        && let Some(told) = told.filter(|told| told.stopped.is_some() && told.started.is_some())
    {
        told.containers.iter().for_each(|container| found.push(of_job(told, container, &bare.policies)));
    }
    found.into_vec()
}

/// A container as an outcome has it.
fn rebuilt(outcome: &ContainerOutcome) -> ContainerView {
    let state = match outcome.exit_code {
        Some(exit_code) => ContainerState::Terminated(Termination {
            exit_code,
            signal: outcome.signal,
            reason: outcome.reason.clone(),
            message: outcome.message.clone(),
            started: outcome.started,
            ended: outcome.ended,
        }),
        // What has started and of whose end nobody heard is no more either.
        None if outcome.started.is_some() => ContainerState::Running { started: outcome.started },
        None => ContainerState::Waiting { reason: outcome.reason.clone(), message: outcome.message.clone() },
    };
    let (name, role, restarts) = (outcome.container.clone(), outcome.role, outcome.restarts);
    ContainerView { name, role, restarts, state, last: None }
}

/// A container as the job has it: without its role, so that it counts as deciding unless others were named.
pub(super) fn of_job(attempt: &JobAttempt, container: &JobContainer, policies: &Policies) -> ContainerView {
    let named = &policies.deciding_containers;
    let decides = named.is_empty() || named.contains(&container.name);
    let state = match container.exit_code {
        Some(exit_code) => ContainerState::Terminated(Termination {
            exit_code,
            signal: None,
            reason: container.reason.clone(),
            message: String::new(),
            started: attempt.started,
            ended: attempt.stopped,
        }),
        // Nobody heard how it ended, as when its node went away.
        None if attempt.started.is_some() && attempt.stopped.is_some() && container.reason.is_empty() => {
            ContainerState::Running { started: attempt.started }
        }
        None => ContainerState::Waiting { reason: container.reason.clone(), message: String::new() },
    };
    ContainerView {
        name: container.name.clone(),
        role: if decides { ContainerRole::Deciding } else { ContainerRole::Other },
        restarts: 0,
        state,
        last: None,
    }
}

/// Whether the job waits in its queue, or for others before that.
pub(super) fn is_queued(job: &Job) -> bool {
    matches!(job.state, JobState::Submitted | JobState::Pending | JobState::Runnable)
}
