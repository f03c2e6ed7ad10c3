//! How an attempt that is a job ended: a pure function of the job and its pods, written into the record once.
//!
//! Whether it succeeded is the job's to say. Why not is best known to the pod: exit codes, memory, evictions. A pod that was
//! deleted says nothing by that, since AWS Batch deletes every pod soon after its end. What only the job knows, a timeout, a
//! node that was taken away, an end that somebody asked for, stands in its words.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::deletion::Deletion;
use super::super::status::{self, container_outcome, is_out_of_memory, with_container};
use super::super::view::{ContainerView, Nature, Presence, Termination, View};
use super::merge::of_job;
use super::part::Part;
use super::{Earlier, PodName, Record, Turn, Written};
use crate::backend::job::{Job, JobAttempt, JobState};
use crate::execution::{CancelIntent, ContainerOutcome, ContainerRole, FailureClass, Outcome, State};

/// An annotation has an end, and an array may have thousands of children: so many containers are kept, those that failed first.
const MOST_CONTAINERS: usize = 200;

/// What is written of one message; the kubelet keeps as much.
const LONGEST_MESSAGE: usize = 4096;

/// All messages together. Everything in the annotations of an object may take 256 KiB.
const ALL_MESSAGES: usize = 48 << 10;

/// What was written of one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndView<'a> {
    outcome: &'a Outcome,
    pod: &'a PodName,
}

impl<'a> EndView<'a> {
    pub(super) fn of(record: &'a Record, turn: Turn) -> Option<Self> {
        let written = record.written.as_ref()?;
        match turn {
            Turn::Latest => Some(Self { outcome: &written.outcome, pod: &written.pod }),
            Turn::Earlier(index) => {
                written.earlier.get(index).map(|earlier| Self { outcome: &earlier.outcome, pod: &earlier.pod })
            }
        }
    }

    pub(super) fn outcome(&self) -> &'a Outcome {
        self.outcome
    }

    pub(super) fn pod(&self) -> &'a PodName {
        self.pod
    }
}

/// What is to be written about a record whose job has ended; its views, oldest first. `None` if it has not.
pub(super) fn judge(views: &[&View], now: Timestamp) -> Option<Written> {
    let (latest, before) = views.split_last()?;
    let record = latest.record().filter(|record| record.has_ended())?;
    let ranked = if record.is_of_cluster() { Some(blamed_first(latest, record)) } else { None };
    let latest = ranked.as_ref().unwrap_or(latest);
    let record = latest.record()?;
    let job = record.job.as_deref()?;
    let earlier = before.iter().enumerate().filter_map(|(index, view)| {
        let record = view.record()?;
        Some(Earlier { outcome: bounded(earlier(view, record, index)), pod: pod_name(view, record, index) })
    });
    let status = status::status(latest);
    Some(Written {
        outcome: bounded(outcome(latest, record, job)),
        started: status.started.or(job.started),
        ended: job.stopped.or(Some(now)),
        at: now,
        pod: pod_name(latest, record, before.len()),
        earlier: earlier.collect(),
        children: record.size(),
        is_forgotten: job.is_forgotten(),
    })
}

/// The same with the pod in front that the Job of the cluster failed by: the latest one that failed by itself. Those that its
/// controller has deleted because of that come last.
fn blamed_first(view: &View, record: &Record) -> View {
    let mut parts = record.parts.clone();
    parts.sort_by_key(|part| {
        let rank = match by_pod(part) {
            Some(FailureClass::PodDeleted) => 2,
            Some(_) => 0,
            None => 1,
        };
        let ended = part.view.containers.iter().filter_map(|container| container.termination()?.ended).max();
        (rank, Reverse(ended))
    });
    let mut containers = view.containers.clone();
    containers.sort_by_key(|container| {
        let slot = container.name.split('/').next();
        parts.iter().position(|part| part.slot.as_deref() == slot).unwrap_or(usize::MAX)
    });
    View { containers, nature: Nature::Record(Arc::new(Record { parts, ..record.clone() })), ..view.clone() }
}

/// What is written where there is no job, and none will be made.
pub(super) fn without_job(class: FailureClass, message: String, now: Timestamp) -> Written {
    let state = if class == FailureClass::CancelledByCaller { State::Cancelled } else { State::Failed };
    let message = cut(message);
    let outcome =
        Outcome { state, class: Some(class), reason: String::new(), message, containers: vec![], exit_code: None };
    let (pod, earlier) = (PodName::default(), Vec::new());
    Written { outcome, started: None, ended: Some(now), at: now, pod, earlier, children: None, is_forgotten: false }
}

/// The end of a record that went before anything was written into it.
pub(super) fn vanished() -> Outcome {
    Outcome {
        state: State::Failed,
        class: Some(FailureClass::PodDeleted),
        reason: String::new(),
        message: "somebody deleted the record of the job before it had ended".to_owned(),
        containers: Vec::new(),
        exit_code: None,
    }
}

/// What an intent means, for a person.
pub(super) fn intended(intent: &CancelIntent) -> String {
    let because = if intent.reason.is_empty() { String::new() } else { format!(": {}", intent.reason) };
    match intent.class {
        FailureClass::CancelledByCaller => format!("cancelled by {}{because}", intent.by),
        FailureClass::Orphaned => format!("nobody followed it any more{because}"),
        FailureClass::StartDeadline | FailureClass::ImagePull | FailureClass::Unschedulable => {
            format!("no container had started when the start deadline passed{because}")
        }
        _ if intent.reason.is_empty() => format!("ended by {}", intent.by),
        _ => intent.reason.clone(),
    }
}

/// How an attempt ended that the job has tried again after is not known yet: its pods say no more than that, and the next one's pod
/// came before the description that has the job's words.
pub(in crate::backend::pod) fn is_untold(record: &Record) -> bool {
    let Turn::Earlier(index) = record.turn else { return false };
    let is_told = |job: &Job| {
        let attempt = job.attempts.get(index);
        let has_words = attempt.is_some_and(|told| told.stopped.is_some() || !told.reason.is_empty());
        has_words || job.attempts.len() > index + 1
    };
    let is_known = record.written.is_some() || record.has_ended() || record.job.as_deref().is_some_and(is_told);
    !is_known && by_pods(record).is_none()
}

/// The end of an attempt that the job has tried again after.
pub(super) fn earlier(view: &View, record: &Record, index: usize) -> Outcome {
    let told = record.job.as_ref().and_then(|job| job.attempts.get(index));
    let words = told.map_or("", |told| told.reason.as_str());
    let class = by_pods(record).or_else(|| by_words(words, told)).unwrap_or(FailureClass::Application);
    finished(view, told, Some(class), words, || with_words(view, class, words))
}

fn outcome(view: &View, record: &Record, job: &Job) -> Outcome {
    let told = job.attempts.last();
    let class = (job.state != JobState::Succeeded).then(|| class(view, record, job));
    let words = words(job, told);
    let sentence = || {
        let class = class.unwrap_or(FailureClass::Application);
        match (&view.cancel, class) {
            (Some(intent), class) if job.is_terminated && intent.class == class => intended(intent),
            (_, FailureClass::PodDeleted) if job.is_forgotten() => words.to_owned(),
            (_, FailureClass::PodDeleted) if job.is_terminated => format!("somebody terminated the job: {words}"),
            _ => with_words(view, class, words),
        }
    };
    let mut outcome = finished(view, told, class, words, sentence);
    if let (Some(children), Some(_)) = (&job.children, class)
        && !job.is_forgotten()
    {
        let all: u32 = children.iter().map(|(_, count)| count).sum();
        let failed: u32 = children.iter().filter(|(state, _)| *state == JobState::Failed).map(|(_, count)| count).sum();
        if !record.is_of_cluster() {
            outcome.message = format!("{failed} of {all} children failed: {}", outcome.message);
        } else if all > 1 && failed > 0 {
            outcome.message = format!("{failed} of {all} pods failed: {}", outcome.message);
        }
    }
    outcome
}

/// What a job that failed says of why.
fn words<'a>(job: &'a Job, told: Option<&'a JobAttempt>) -> &'a str {
    let attempt = told.map_or("", |told| told.reason.as_str());
    if job.reason.is_empty() { attempt } else { &job.reason }
}

fn class(view: &View, record: &Record, job: &Job) -> FailureClass {
    let told = job.attempts.last();
    let words = words(job, told);
    match &view.cancel {
        Some(intent) if job.is_terminated => return intent.class,
        _ if is_timeout(words) => return FailureClass::Deadline,
        _ if job.is_terminated => return FailureClass::PodDeleted,
        _ => {}
    }
    // Of a job that nobody knows any more only its pods may know how it ended.
    let is_lost =
        || job.is_forgotten() && !record.parts.iter().any(|part| by_pod(part) == Some(FailureClass::Application));
    let unknown = || if is_lost() { FailureClass::PodDeleted } else { FailureClass::Application };
    by_pods(record).or_else(|| by_words(words, told)).unwrap_or_else(unknown)
}

/// What the pods say, if that is more than that a program failed.
fn by_pods(record: &Record) -> Option<FailureClass> {
    let telling = |class: &FailureClass| *class != FailureClass::Application;
    if record.is_of_cluster() {
        return record.parts.first().and_then(|part| by_pod(part)).filter(telling);
    }
    record.parts.iter().rev().find_map(|part| by_pod(part).filter(telling))
}

fn by_pod(part: &Part) -> Option<FailureClass> {
    let view = &*part.view;
    let ends = || view.deciding().filter_map(|container| container.termination()?.ended);
    // The deletion that comes after every end is in its second or later.
    let was_deleted = view.delete_requested.is_some_and(|at| ends().any(|end| end.as_second() > at.as_second()));
    let alone = View { delete_requested: None, deletion: Deletion::Open, presence: Presence::Present, ..view.clone() };
    match status::status(&alone).outcome.and_then(|outcome| outcome.class) {
        Some(FailureClass::Application) | None if was_deleted => Some(FailureClass::PodDeleted),
        class => class,
    }
}

/// AWS Batch has no words for programs, so its sentences are matched.
fn by_words(words: &str, told: Option<&JobAttempt>) -> Option<FailureClass> {
    let containers = told.into_iter().flat_map(|told| &told.containers);
    let all = containers
        .fold(words.to_ascii_lowercase(), |all, container| all + " " + &container.reason.to_ascii_lowercase());
    let says = |word: &str| all.contains(word);
    if says("host ec2") || says("spot interruption") {
        Some(FailureClass::SpotInterrupted)
    } else if is_timeout(words) {
        Some(FailureClass::Deadline)
    } else if says("oomkilled") || says("outofmemory") {
        Some(FailureClass::OutOfMemory)
    } else if says("imagepull") || says("cannotpullcontainer") || says("invalidimagename") {
        Some(FailureClass::ImagePull)
    } else {
        None
    }
}

/// `Job attempt duration exceeded timeout`; of a Job of the cluster `DeadlineExceeded`.
fn is_timeout(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    words.contains("exceeded timeout") || words.starts_with("deadlineexceeded")
}

fn with_words(view: &View, class: FailureClass, words: &str) -> String {
    let told = if words.is_empty() { String::new() } else { format!(": {words}") };
    match class {
        FailureClass::Deadline => format!("the job's time was up{told}"),
        FailureClass::SpotInterrupted => format!("the job's node was taken away{told}"),
        FailureClass::PodDeleted => format!("somebody deleted the job's pod before it had ended{told}"),
        FailureClass::ImagePull => format!("an image could not be had{told}"),
        FailureClass::OutOfMemory if any(view, |end| end.reason == "OOMKilled") => {
            with_container(view, is_out_of_memory, "was killed for using more memory than allowed")
        }
        FailureClass::Application if any(view, |end| end.exit_code != 0) => {
            with_container(view, |end| end.exit_code != 0, "failed")
        }
        _ => format!("the job failed{told}"),
    }
}

fn any(view: &View, is_it: impl Fn(&Termination) -> bool) -> bool {
    view.containers.iter().filter_map(ContainerView::termination).any(is_it)
}

fn finished(
    view: &View,
    told: Option<&JobAttempt>,
    class: Option<FailureClass>,
    words: &str,
    sentence: impl FnOnce() -> String,
) -> Outcome {
    let state = match class {
        None => State::Succeeded,
        Some(FailureClass::CancelledByCaller) => State::Cancelled,
        Some(_) => State::Failed,
    };
    let mut containers: Vec<ContainerOutcome> = view.containers.iter().map(container_outcome).collect();
    // Where the pod went before its last word was heard, the job may have it.
    for container in
        told.into_iter().flat_map(|told| told.containers.iter().map(move |it| of_job(told, it, &view.policies)))
    {
        let told = container_outcome(&container);
        match containers.iter_mut().find(|known| known.container == told.container) {
            Some(known) if known.exit_code.is_none() => {
                let (role, restarts, started) = (known.role, known.restarts, known.started.or(told.started));
                *known = ContainerOutcome { role, restarts, started, ..told };
            }
            Some(_) => {}
            None => containers.push(told),
        }
    }
    let deciding = || containers.iter().filter(|it| it.role == ContainerRole::Deciding && it.started.is_some());
    // A job that succeeded may have had pods that failed.
    let decided = deciding().find(|it| it.exit_code.is_some_and(|code| (code != 0) == class.is_some()));
    let decided = decided.or_else(|| deciding().find(|it| it.exit_code.is_some()));
    let reason = match decided {
        Some(container) if matches!(class, None | Some(FailureClass::Application | FailureClass::OutOfMemory)) => {
            container.reason.clone()
        }
        _ => String::new(),
    };
    let reason = if reason.is_empty() { words.to_owned() } else { reason };
    let exit_code = decided.and_then(|container| container.exit_code);
    let message = if class.is_some() { sentence() } else { String::new() };
    Outcome { state, class, reason, message, containers, exit_code }
}

fn pod_name(view: &View, record: &Record, index: usize) -> PodName {
    if record.is_array() && !(record.is_of_cluster() && record.parts.len() == 1) {
        return PodName::default();
    }
    if let Some(part) = record.parts.last() {
        let view = &part.view;
        return PodName { name: view.pod_name.clone(), uid: view.uid.clone(), node: view.node.clone() };
    }
    let told = record.job.as_ref().and_then(|job| job.attempts.get(index));
    let (name, node) =
        told.map_or((String::new(), view.node.clone()), |told| (told.pod_name.clone(), told.node.clone()));
    PodName { name, uid: String::new(), node }
}

/// So much of it that it fits into an annotation.
fn bounded(mut outcome: Outcome) -> Outcome {
    let failed = |container: &ContainerOutcome| container.exit_code.is_none_or(|code| code != 0);
    if outcome.containers.len() > MOST_CONTAINERS {
        outcome.containers.sort_by_key(|container| !failed(container));
        outcome.containers.truncate(MOST_CONTAINERS);
    }
    outcome.message = cut(outcome.message);
    outcome.reason = cut(outcome.reason);
    let mut left = ALL_MESSAGES;
    for container in &mut outcome.containers {
        container.message = cut(std::mem::take(&mut container.message));
        if container.message.len() > left {
            container.message.clear();
        }
        left -= container.message.len();
    }
    outcome
}

fn cut(mut text: String) -> String {
    let mut end = LONGEST_MESSAGE.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
