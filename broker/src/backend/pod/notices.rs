//! What a person should know about an execution now: why it does not run yet, what was asked of it, what happens to its node.
//!
//! Each notice has a key, so that a watcher hears of it once, however often the kubelet tries again and however often the
//! watcher comes back. Numbers and ids in the cluster's words are left out of the key: they differ from try to try.

use super::events::{self, Access, Happening};
use super::node::NodeContact;
use super::record::{Queue, queue};
use super::status::{image_trouble, is_image_trouble, is_ordinary};
use super::view::{ContainerState, ContainerView, View};
use crate::execution::{ContainerRole, FailureClass, Notice, Severity};

/// A notice, and what tells it apart from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keyed {
    pub(super) key: u32,
    pub(super) notice: Notice,
}

/// All that is worth a notice now, most important first.
pub(super) fn notices(view: &View) -> Vec<Keyed> {
    let mut notices = asked(view);
    if !view.is_terminal() {
        notices.extend(node(view));
        notices.extend(hindrances(view));
        notices.extend(view.containers.iter().filter_map(restarted));
        notices.extend(unexplained(view));
    }
    // What stood in the way of one attempt may stand in the way of the next, and is news then.
    for keyed in &mut notices {
        keyed.key ^= view.attempt;
    }
    notices
}

/// Events would explain more.
fn unexplained(view: &View) -> Option<Keyed> {
    let message = "the target's role does not allow to read events, so volumes, images and networks that a pod waits for are \
                   not told: add the verbs list and watch on events";
    (view.access == Access::Refused && events::matter(view))
        .then(|| keyed("EVENTS_NOT_READABLE", "", "", Severity::Info, message.to_owned()))
}

/// Why it does not run, in one line; empty when there is nothing to say.
pub(super) fn why(view: &View) -> String {
    let mut notices = node(view).into_iter().chain(hindrances(view));
    notices.next().map(|keyed| keyed.notice.message).unwrap_or_default()
}

/// `about` is the container or nothing; `words` are those of the cluster that make it another notice when they change.
fn keyed(code: &'static str, about: &str, words: &str, severity: Severity, message: String) -> Keyed {
    let key = crc32fast::hash(format!("{code} {about} {}", gist(words)).as_bytes());
    Keyed { key, notice: Notice { code, message, severity } }
}

/// Words without what differs from try to try: numbers, ports, ids in hexadecimal.
fn gist(words: &str) -> String {
    let is_id = |word: &str| {
        word.bytes().all(|byte| byte.is_ascii_digit())
            || (word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let parts = words.split(|c: char| !c.is_ascii_alphanumeric());
    parts.filter(|word| !word.is_empty() && !is_id(word)).collect::<Vec<_>>().join(" ")
}

/// What was asked of it.
fn asked(view: &View) -> Vec<Keyed> {
    let mut notices = Vec::new();
    if let Some(refused) = &view.refused {
        let message = format!("attempt {} cannot be made: {}", refused.number, refused.message);
        let about = refused.number.to_string();
        notices.push(keyed("ATTEMPT_REFUSED", &about, &refused.message, Severity::Warning, message));
    }
    if let Some(waits) = view.waits.as_ref().filter(|_| view.refused.is_none() && view.stop.is_none()) {
        let code = if waits.class == Some(FailureClass::Quota) { "QUOTA" } else { "ATTEMPT_WAITS" };
        let message = format!("attempt {} waits and is tried again: {}", waits.number, waits.message);
        notices.push(keyed(code, &waits.number.to_string(), "", Severity::Warning, message));
    }
    if let Some(intent) = view.stop.as_ref().or(view.cancel.as_ref()) {
        let because = if intent.reason.is_empty() { String::new() } else { format!(": {}", intent.reason) };
        let message = format!("{} asked for its end{because}", intent.by);
        notices.push(keyed("CANCEL_REQUESTED", "", &message, Severity::Info, message.clone()));
    }
    if view.is_terminal() {
        // The outcome says it.
        return notices;
    }
    if let Some(disruption) = &view.disruption {
        let said = if disruption.message.is_empty() { String::new() } else { format!(": {}", disruption.message) };
        let message = format!("the cluster ends the pod, {}{said}", disruption.reason);
        notices.push(keyed("DISRUPTION", "", &disruption.reason, Severity::Warning, message));
    } else if view.delete_requested.is_some() && view.cancel.is_none() && view.released.is_none() {
        let message = "somebody deleted the pod; its containers are being ended".to_owned();
        notices.push(keyed("DELETE_REQUESTED", "", "", Severity::Warning, message));
    }
    notices
}

/// Its node does not answer. The containers may run on, so this is never an outcome.
fn node(view: &View) -> Option<Keyed> {
    let message = || format!("the node {} does not answer; the pod may still run there", view.node);
    (view.contact == NodeContact::Lost && !view.is_terminal())
        .then(|| keyed("NODE_UNREACHABLE", &view.node, "", Severity::Warning, message()))
}

/// What keeps it from running, most important first.
fn hindrances(view: &View) -> Vec<Keyed> {
    let mut found = Vec::new();
    if !view.gates.is_empty() {
        found.push(queued(view));
    }
    found.extend(queue(view).and_then(in_queue));
    let latest = events::latest(view);
    if let Some(words) = &view.unschedulable {
        if latest.is_some_and(|event| event.happening == Happening::ScalingUp) {
            found.extend(latest.map(happening));
        }
        if !view.nominated.is_empty() {
            let message = format!("pods of lower priority make room for it on the node {}", view.nominated);
            found.push(keyed("PREEMPTING", &view.nominated, "", Severity::Info, message));
        }
        let message = format!("no node can take the pod: {words}");
        found.push(keyed("UNSCHEDULABLE", "", words, Severity::Warning, message));
        return found;
    }
    found.extend(view.containers.iter().filter_map(waits));
    found.extend(latest.map(happening));
    found.extend(init(view));
    found
}

/// A job that has no pod yet.
fn in_queue(queue: Queue<'_>) -> Option<Keyed> {
    match queue {
        // That is over in a moment.
        Queue::Submitting | Queue::Waits("") => None,
        Queue::InDoubt => {
            let message = "nobody answered whether the job was made; it is being looked for".to_owned();
            Some(keyed("SUBMIT_IN_DOUBT", "", "", Severity::Warning, message))
        }
        Queue::Waits(words) => {
            let severity = if words.starts_with("MISCONFIGURATION") { Severity::Warning } else { Severity::Info };
            Some(keyed("QUEUED", "", words, severity, format!("the job waits in its queue: {words}")))
        }
    }
}

fn queued(view: &View) -> Keyed {
    let gates = view.gates.join(", ");
    let message = if view.gates.iter().any(|gate| gate.starts_with("kueue.x-k8s.io/")) {
        format!("Kueue holds it until its queue admits it (scheduling gate {gates})")
    } else {
        format!("it is held back by the scheduling gate {gates}")
    };
    keyed("QUEUED", &gates, "", Severity::Info, message)
}

fn happening(event: &events::PodEvent) -> Keyed {
    let (code, severity, what) = match event.happening {
        Happening::ScalingUp => ("SCALING_UP", Severity::Info, "a node is being added for it"),
        Happening::VolumeNotReady => ("VOLUME_NOT_READY", Severity::Warning, "a volume is not ready"),
        Happening::SandboxFailed => ("SANDBOX_FAILED", Severity::Warning, "its sandbox or network cannot be made"),
        Happening::PullingImage => ("PULLING_IMAGE", Severity::Info, ""),
    };
    let message = match event.happening {
        // `Pulling image "name"`.
        Happening::PullingImage if event.container.is_empty() => lower_first(&event.message),
        Happening::PullingImage => format!("container {}: {}", event.container, lower_first(&event.message)),
        _ => format!("{what}: {}", event.message),
    };
    keyed(code, &event.container, &event.message, severity, message)
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

/// A container that cannot start, and why.
fn waits(container: &ContainerView) -> Option<Keyed> {
    let ContainerState::Waiting { reason, message } = &container.state else { return None };
    let name = &container.name;
    if is_image_trouble(reason) {
        let cause = image_trouble(message);
        let message = format!("the image of container {name} cannot be had: {cause}");
        return Some(keyed("IMAGE_PULL_FAILED", name, cause, Severity::Warning, message));
    }
    if is_ordinary(reason) {
        return None;
    }
    let said = if message.is_empty() { String::new() } else { format!(": {message}") };
    let told = format!("container {name} waits, {reason}{said}");
    Some(keyed("CONTAINER_WAITING", name, reason, Severity::Warning, told))
}

/// Which of the init containers runs.
fn init(view: &View) -> Option<Keyed> {
    let inits: Vec<_> = view.containers.iter().filter(|container| container.role == ContainerRole::Init).collect();
    let running = inits.iter().position(|container| matches!(container.state, ContainerState::Running { .. }))?;
    let name = &inits[running].name;
    let message = format!("init container {name} runs, {} of {}", running + 1, inits.len());
    Some(keyed("INIT_CONTAINER", name, "", Severity::Info, message))
}

fn restarted(container: &ContainerView) -> Option<Keyed> {
    let (name, times) = (&container.name, container.restarts);
    let message = || format!("container {name} was restarted, {times} times so far");
    (times > 0 && !container.is_hidden())
        .then(|| keyed("CONTAINER_RESTARTED", &format!("{name} {times}"), "", Severity::Info, message()))
}

#[cfg(test)]
#[path = "notices_tests.rs"]
mod tests;
