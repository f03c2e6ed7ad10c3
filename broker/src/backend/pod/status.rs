//! From a view to where the execution stands and how it ended: a pure function, and the only judge.
//!
//! The order of the questions matters. What the deciding containers did by themselves counts before what was done to them:
//! an execution that had ended when somebody cancelled it keeps its own outcome. But an end after a kill was asked for is a
//! kill, also when the program caught the signal and exited with 0: today's operators call that a success.

use jiff::Timestamp;

use super::deletion::{self, Deletion};
use super::node::{Capacity, Disruption};
use super::view::{ContainerState, ContainerView, Phase, Presence, Restarts, Termination, View};
use super::{notices, record};
use crate::execution::{ContainerOutcome, ContainerRole, FailureClass, Outcome, State};

/// Where an execution stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) state: State,
    /// One sentence, or nothing.
    pub(super) reason: String,
    /// Set from ENDING on.
    pub(super) outcome: Option<Outcome>,
    pub(super) started: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
}

/// What the view says.
pub(super) fn status(view: &View) -> Status {
    if let Some(record) = view.record() {
        return record::status(view, record);
    }
    let started = view.deciding().filter_map(ContainerView::started).min();
    let Some(verdict) = verdict(view) else {
        let running = view.deciding().any(|container| started.is_some() || container.has_run());
        let state = match running {
            true => State::Running,
            false if view.gates.is_empty() => State::Pending,
            false => State::Queued,
        };
        return Status { state, reason: notices::why(view), outcome: None, started, ended: None };
    };
    let outcome = outcome(view, &verdict);
    let ended = view.deciding().filter_map(|container| container.termination()?.ended).max();
    // The kubelet's phase comes a second or two after the last container's end, and says nothing more.
    let all_ended = view.containers.iter().all(|container| container.termination().is_some());
    let over = is_over(view) || all_ended || view.released.is_some();
    let state = if over { outcome.state } else { State::Ending };
    Status { state, reason: outcome.message.clone(), outcome: Some(outcome), started, ended }
}

/// Why an execution ended; `None` while it has not.
enum Verdict {
    Succeeded,
    Failed(FailureClass),
    Cancelled,
}

fn verdict(view: &View) -> Option<Verdict> {
    let ended = view.deciding().all(|container| container.termination().is_some()) && view.deciding().next().is_some();
    let final_end = ended && (is_last(view) || view.is_terminal());
    if !final_end && !is_over(view) {
        return None;
    }
    if final_end && view.decided.is_some() {
        // What still ran was ended after this, by the broker itself.
        return Some(by_exit_codes(view));
    }
    if final_end && !is_over(view) && is_being_ended(view) && !ended_before_the_kill(view) {
        // The container's end comes before the kubelet's word on why: what looks like a success may be a program that caught
        // the signal.
        return None;
    }
    if final_end && deletion::is_in_doubt(view, moment_of_the_kill(view)) {
        return None;
    }
    let killed_by = killed(view);
    Some(match killed_by {
        Some(verdict) if !ended_before_the_kill(view) => verdict,
        _ if final_end => by_exit_codes(view),
        _ => vanished(view),
    })
}

/// The cluster will do nothing more with it: it is terminal, or was deleted before any kubelet had it.
pub(super) fn is_over(view: &View) -> bool {
    // A record that is deleted says nothing about its job.
    view.is_terminal() || (view.record().is_none() && view.delete_requested.is_some() && view.node.is_empty())
}

/// The kubelet has been told to end it, or its time is up.
fn is_being_ended(view: &View) -> bool {
    let last_end = view.deciding().filter_map(|container| container.termination()?.ended).max();
    let is_late = view.deadline.zip(last_end).is_some_and(|(deadline, end)| end.as_second() >= deadline.as_second());
    view.cancel.is_some() || is_late
}

/// The containers that have ended will not be started again.
fn is_last(view: &View) -> bool {
    // With OnFailure the kubelet starts a failed container again; only its phase says that it has given up.
    view.deciding().all(|container| container.termination().is_some_and(|end| end.exit_code == 0))
        || view.restarts == Restarts::Never
}

fn by_exit_codes(view: &View) -> Verdict {
    let failed = view.deciding().filter_map(ContainerView::termination).find(|end| end.exit_code != 0);
    let out_of_memory = view.containers.iter().filter_map(ContainerView::termination).any(is_out_of_memory);
    match failed {
        // The kernel killed a child of the program, which did not mind. What it made is not to be trusted.
        None if view.deciding().filter_map(ContainerView::termination).any(is_out_of_memory) => {
            Verdict::Failed(FailureClass::OutOfMemory)
        }
        None => Verdict::Succeeded,
        Some(_) if out_of_memory => Verdict::Failed(FailureClass::OutOfMemory),
        Some(_) => Verdict::Failed(FailureClass::Application),
    }
}

pub(super) fn is_out_of_memory(end: &Termination) -> bool {
    end.reason == "OOMKilled"
}

/// What was done to the pod from outside, whether or not it was what ended it.
fn killed(view: &View) -> Option<Verdict> {
    if let Some(intent) = &view.cancel {
        return Some(match intent.class {
            FailureClass::CancelledByCaller => Verdict::Cancelled,
            class => Verdict::Failed(class),
        });
    }
    if view.phase == Phase::Failed && view.reason == "DeadlineExceeded" {
        return Some(Verdict::Failed(FailureClass::Deadline));
    }
    if let Some(class) = disruption(view) {
        return Some(Verdict::Failed(class));
    }
    view.delete_requested.map(|_| Verdict::Failed(FailureClass::PodDeleted))
}

/// Who ended it from outside, by what is written in the pod: the kubelet's reason, then the condition. Events have no say, since
/// not every replica has them.
fn disruption(view: &View) -> Option<FailureClass> {
    match view.reason.as_str() {
        "Evicted" => return Some(FailureClass::Evicted),
        // The kubelet makes room for a critical pod.
        "Preempting" | "Preempted" => return Some(FailureClass::Preempted),
        "NodeShutdown" | "Terminated" | "Shutdown" => return Some(shut_down(view)),
        "NodeLost" => return Some(FailureClass::NodeLost),
        _ => {}
    }
    let Disruption { reason, message, .. } = view.disruption.as_deref()?;
    let says = |word: &str| message.to_ascii_lowercase().contains(word);
    Some(match reason.as_str() {
        "PreemptionByScheduler" => FailureClass::Preempted,
        "TerminationByKubelet" if says("preempted") => FailureClass::Preempted,
        "TerminationByKubelet" if says("shutdown") => shut_down(view),
        // A NoExecute taint can be anybody's; a node object that is gone was taken away.
        "DeletionByTaintManager" => FailureClass::NodeLost,
        "DeletionByPodGC" => shut_down(view),
        _ => FailureClass::Evicted,
    })
}

/// The node was shut down or is gone. No pod is told why; one that demands spot nodes was on one, and these go by being
/// reclaimed.
fn shut_down(view: &View) -> FailureClass {
    match view.capacity {
        Capacity::Spot => FailureClass::SpotInterrupted,
        Capacity::Any => FailureClass::NodeLost,
    }
}

/// How many seconds behind the end of the containers the kubelet deletes a pod at the latest, when it was told to end it.
const KUBELETS_DELETE: i64 = 5;

/// Every deciding container had ended when the kill was asked for. The kubelet gives whole seconds.
fn ended_before_the_kill(view: &View) -> bool {
    if view.cancel.is_some() && view.delete_requested.is_none() && view.phase == Phase::Succeeded {
        // The kubelet makes every pod Failed that it ends for its deadline, also one whose program exits with 0.
        return true;
    }
    if view.cancel.is_none() && view.disruption.is_none() && view.reason != "DeadlineExceeded" {
        match view.deletion {
            Deletion::AfterTheEnd => return true,
            Deletion::BeforeTheEnd => return false,
            Deletion::Open | Deletion::Unknown => {}
        }
    }
    let Some(kill) = moment_of_the_kill(view) else { return false };
    let before = |end: &Termination| {
        let Some(ended) = end.ended else { return false };
        // In the second of a cancel or a deadline a program that catches the signal can have ended with 0 too. In the second
        // of anybody else's kill a success is believed, unless the kubelet's last word says that it had ended the pod.
        let is_told = view.deletion == Deletion::BeforeTheEnd || view.phase == Phase::Failed;
        let by_others = view.cancel.is_none() && view.reason != "DeadlineExceeded" && !is_told;
        let same = by_others && end.exit_code == 0 && ended.as_second() == kill.as_second();
        // The time of a deletion that is done is that of the kubelet's own, right behind the end that it has brought about.
        let slack = if view.deletion == Deletion::Unknown { KUBELETS_DELETE } else { 0 };
        ended.as_second() + slack < kill.as_second() || same && slack == 0
    };
    view.deciding().next().is_some() && view.deciding().all(|container| container.termination().is_some_and(before))
}

fn moment_of_the_kill(view: &View) -> Option<Timestamp> {
    if let Some(intent) = &view.cancel {
        return Some(intent.at);
    }
    if view.reason == "DeadlineExceeded" {
        return view.deadline;
    }
    match &view.disruption {
        Some(disruption) => disruption.since,
        None => view.delete_requested,
    }
}

/// It ended, and no deciding container says how.
fn vanished(view: &View) -> Verdict {
    let failed_init = view.containers.iter().any(|container| {
        container.role == ContainerRole::Init && container.termination().is_some_and(|end| end.exit_code != 0)
    });
    if view.presence == Presence::Gone {
        Verdict::Failed(FailureClass::PodDeleted)
    } else if view.phase == Phase::Succeeded {
        Verdict::Succeeded
    } else if view.containers.iter().filter_map(ContainerView::termination).any(is_out_of_memory) {
        Verdict::Failed(FailureClass::OutOfMemory)
    } else if failed_init {
        Verdict::Failed(FailureClass::Application)
    } else if is_refused_by_the_kubelet(view) {
        Verdict::Failed(FailureClass::Unschedulable)
    } else {
        Verdict::Failed(FailureClass::Application)
    }
}

/// The kubelet refused what the scheduler had placed.
fn is_refused_by_the_kubelet(view: &View) -> bool {
    matches!(
        view.reason.as_str(),
        "UnexpectedAdmissionError" | "NodeAffinity" | "NodeName" | "NodePorts" | "TopologyAffinityError"
    ) || view.reason.starts_with("OutOf")
        || view.message.starts_with("Pod was rejected")
}

fn outcome(view: &View, verdict: &Verdict) -> Outcome {
    let (state, class) = match verdict {
        Verdict::Succeeded => (State::Succeeded, None),
        Verdict::Failed(class) => (State::Failed, Some(*class)),
        Verdict::Cancelled => (State::Cancelled, Some(FailureClass::CancelledByCaller)),
    };
    // An end without a beginning is the kubelet's invention for a container that never ran.
    let ends = || view.deciding().filter_map(ContainerView::termination).filter(|end| end.started.is_some());
    let killed = || ends().find(|end| is_out_of_memory(end));
    let deciding = ends().find(|end| end.exit_code != 0).or_else(killed).or_else(|| ends().next());
    let reason = match deciding {
        Some(end) if by_itself(class) => end.reason.clone(),
        _ if !view.reason.is_empty() => view.reason.clone(),
        _ if view.disruption.is_some() => view.disruption.as_ref().map(|it| it.reason.clone()).unwrap_or_default(),
        Some(end) => end.reason.clone(),
        None => String::new(),
    };
    Outcome {
        state,
        class,
        reason,
        message: class.map(|class| sentence(view, class)).unwrap_or_default(),
        containers: view.containers.iter().filter(|container| !container.is_hidden()).map(container_outcome).collect(),
        exit_code: deciding.map(|end| end.exit_code),
    }
}

/// What the containers did, and not what was done to the pod: what the pod says of itself came later, or is about the rest.
fn by_itself(class: Option<FailureClass>) -> bool {
    matches!(class, None | Some(FailureClass::Application | FailureClass::OutOfMemory))
}

/// What happened, for a person.
fn sentence(view: &View, class: FailureClass) -> String {
    let intent = |fallback: &str| match &view.cancel {
        Some(intent) if intent.reason.is_empty() => fallback.to_owned(),
        Some(intent) => format!("{fallback}: {}", intent.reason),
        None => fallback.to_owned(),
    };
    let by = view.cancel.as_ref().map_or("", |intent| intent.by.as_str());
    // An eviction through the API leaves its words in the condition only.
    let words = match &view.disruption {
        Some(disruption) if view.message.is_empty() => disruption.message.as_str(),
        _ => view.message.as_str(),
    };
    let told = if words.is_empty() { String::new() } else { format!(": {words}") };
    let node = if view.node.is_empty() { String::new() } else { format!(" {}", view.node) };
    match class {
        FailureClass::CancelledByCaller => intent(&format!("cancelled by {by}")),
        FailureClass::StartDeadline | FailureClass::ImagePull | FailureClass::Unschedulable
            if view.cancel.is_some() =>
        {
            intent("no container had started when the start deadline passed")
        }
        FailureClass::Orphaned => intent("nobody followed it any more"),
        FailureClass::Deadline => format!("the run deadline passed{told}"),
        FailureClass::PodDeleted => "somebody deleted the pod before it had ended".to_owned(),
        FailureClass::Evicted => format!("the pod was evicted{told}"),
        FailureClass::Preempted => format!("a pod of higher priority took its place{told}"),
        FailureClass::NodeLost => format!("the pod lost its node{node}{told}"),
        FailureClass::SpotInterrupted => {
            format!("the node{node} went away, and the pod demands spot nodes: its instance was reclaimed{told}")
        }
        FailureClass::OutOfMemory => {
            with_container(view, is_out_of_memory, "was killed for using more memory than allowed")
        }
        _ => with_container(view, |end| end.exit_code != 0, "failed"),
    }
}

/// Names the container that is to blame and what it said.
pub(super) fn with_container(view: &View, is_it: impl Fn(&Termination) -> bool, what: &str) -> String {
    let blamed = view
        .containers
        .iter()
        .find_map(|container| container.termination().filter(|end| is_it(end)).map(|end| (&container.name, end)));
    match blamed {
        Some((name, end)) if end.exit_code == 0 => {
            format!("container {name} ended with exit code 0, but a process in it {what}")
        }
        Some((name, end)) => {
            let message = end.message.trim();
            let said = if message.is_empty() { String::new() } else { format!(": {message}") };
            format!("container {name} {what} with exit code {}{said}", end.exit_code)
        }
        None if view.message.is_empty() => format!("the pod {what}"),
        None => format!("the pod {what}: {}", view.message),
    }
}

pub(super) fn container_outcome(container: &ContainerView) -> ContainerOutcome {
    let (reason, message) = match &container.state {
        ContainerState::Waiting { reason, message } => (reason.clone(), message.clone()),
        ContainerState::Running { .. } => (String::new(), String::new()),
        ContainerState::Terminated(end) => (end.reason.clone(), end.message.clone()),
    };
    let end = container.termination();
    ContainerOutcome {
        container: container.name.clone(),
        role: container.role,
        exit_code: end.map(|end| end.exit_code),
        signal: end.and_then(|end| end.signal),
        reason,
        message,
        restarts: container.restarts,
        started: container.started(),
        ended: end.and_then(|end| end.ended),
    }
}

/// A container waits like this at every start.
pub(super) fn is_ordinary(reason: &str) -> bool {
    matches!(reason, "" | "PodInitializing" | "ContainerCreating")
}

/// Whether an image cannot be had, by the kubelet's words.
pub(super) fn is_image_trouble(reason: &str) -> bool {
    matches!(
        reason,
        "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
    )
}

/// What is wrong with an image, in the same words from the first failure on: the kubelet goes back and forth between the
/// failure and the pause before the next try, which repeats it.
pub(super) fn image_trouble(message: &str) -> &str {
    message.split_once("ErrImagePull: ").map_or(message, |(_, cause)| cause)
}

/// No time will make it start: waiting for a deadline would only waste it.
pub(super) fn is_hopeless(view: &View) -> bool {
    view.containers.iter().any(
        |container| matches!(&container.state, ContainerState::Waiting { reason, .. } if reason == "InvalidImageName"),
    )
}

/// The class of an execution that did not start in time.
pub(super) fn start_deadline_class(view: &View) -> FailureClass {
    let waits = |container: &ContainerView| matches!(&container.state, ContainerState::Waiting { reason, .. } if is_image_trouble(reason));
    if view.unschedulable.is_some() {
        FailureClass::Unschedulable
    } else if view.containers.iter().any(waits) {
        FailureClass::ImagePull
    } else {
        FailureClass::StartDeadline
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
pub(super) mod tests;
