//! What the cluster's events say about pods that have not started: what the kubelet and the controllers do or cannot do, and
//! write into no status.
//!
//! One watch per target beside that of the pods. Events only explain: no state and no outcome depends on them, since they are
//! thrown away after an hour and a role may not show them. Of a pod the latest of each kind is kept, and only until it runs.

use std::collections::VecDeque;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;

use super::selection::Selection;
use super::status::is_ordinary;
use super::view::{ContainerState, View};

/// What is going on, in the order in which a pod meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happening {
    /// An autoscaler adds a node for it.
    ScalingUp,
    /// A volume cannot be attached or mounted.
    VolumeNotReady,
    /// The runtime or the network cannot make its sandbox.
    SandboxFailed,
    /// An image is being pulled.
    PullingImage,
}

/// An event, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodEvent {
    pub(super) happening: Happening,
    /// The container that it is about; may be empty.
    pub(super) container: Box<str>,
    /// The words of whoever wrote it.
    pub(super) message: Box<str>,
    at: Timestamp,
}

/// Whether events can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// They can, or it is not known yet.
    Open,
    /// The role does not allow it.
    Refused,
}

/// Events of pods that the watch has not told yet, by the pod's uid, oldest first.
#[derive(Default)]
pub(super) struct Early(VecDeque<(String, PodEvent)>);

/// Events of the namespace's other pods pass through here too.
const MAX_EARLY: usize = 256;

impl Early {
    pub(super) fn push(&mut self, uid: String, event: PodEvent) {
        self.0.push_back((uid, event));
        if self.0.len() > MAX_EARLY {
            self.0.pop_front();
        }
    }

    /// Moves the events of a pod to it.
    pub(super) fn take(&mut self, uid: &str, events: &mut Vec<PodEvent>) {
        self.0.retain(|(about, event)| {
            let is_its = about == uid;
            if is_its {
                keep(events, event.clone());
            }
            !is_its
        });
    }
}

/// The events of pods. What is never read stays at the server: most of what it has about healthy pods, and what a pod's status
/// says too.
pub(super) fn selection() -> Selection {
    let unread =
        ["Scheduled", "FailedScheduling", "Pulled", "Created", "Started", "Killing", "Failed", "BackOff", "Unhealthy"];
    let mut fields = "involvedObject.kind=Pod".to_owned();
    for reason in unread {
        fields.push_str(",reason!=");
        fields.push_str(reason);
    }
    Selection { resource: "events", labels: None, fields: Some(fields) }
}

impl PodEvent {
    /// What is kept of an event; `None` if it explains nothing.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let happening = match event.reason.as_deref()? {
            // The cluster autoscaler, and Karpenter.
            "TriggeredScaleUp" | "Nominated" => Happening::ScalingUp,
            "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => Happening::VolumeNotReady,
            "FailedCreatePodSandBox" | "NetworkNotReady" => Happening::SandboxFailed,
            "Pulling" => Happening::PullingImage,
            _ => return None,
        };
        let path = event.involved_object.field_path.as_deref().unwrap_or_default();
        let container = path.split_once('{').map_or("", |(_, name)| name.trim_end_matches('}'));
        let times = [
            event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0),
            event.last_timestamp.as_ref().map(|time| time.0),
            event.event_time.as_ref().map(|time| time.0),
            event.metadata.creation_timestamp.as_ref().map(|time| time.0),
        ];
        Some(Self {
            happening,
            container: container.into(),
            message: event.message.as_deref().unwrap_or_default().trim().into(),
            at: times.into_iter().flatten().max().unwrap_or_default(),
        })
    }

    /// It says that something takes long, and not why: the kubelet's sum of volumes that are not there, and its own copy of an
    /// object that is not in step yet. Another event has the cause.
    fn is_vague(&self) -> bool {
        self.message.starts_with("Unable to attach or mount volumes")
            || (self.message.contains("failed to sync ") && self.message.contains(" cache: timed out"))
    }
}

/// Whether a pod is still on its way to run, so that events explain something.
pub(super) fn matter(view: &View) -> bool {
    !view.is_terminal() && view.deciding().all(|container| !container.has_run())
}

/// Keeps the latest event of each kind, and the latest words that name a cause. Returns whether that changed anything.
pub(super) fn keep(events: &mut Vec<PodEvent>, event: PodEvent) -> bool {
    let Some(known) = events.iter_mut().find(|known| known.happening == event.happening) else {
        events.push(event);
        return true;
    };
    // A list has no order: the cause may come after what is vague and newer.
    let names_cause = known.is_vague() && !event.is_vague();
    if *known == event || (event.at < known.at && !names_cause) {
        return false;
    }
    let at = event.at.max(known.at);
    let keeps_words = event.is_vague() && !known.is_vague();
    let next = if keeps_words { PodEvent { at, ..known.clone() } } else { PodEvent { at, ..event } };
    let is_news = *known != next;
    *known = next;
    is_news
}

/// The event that says why the pod does not run: the latest, if the pod has not come further since.
pub(super) fn latest(view: &View) -> Option<&PodEvent> {
    if !matter(view) {
        return None;
    }
    let waits = |name: &str| {
        view.containers
            .iter()
            .filter(|container| name.is_empty() || container.name == name)
            .any(|container| matches!(&container.state, ContainerState::Waiting { reason, .. } if is_ordinary(reason)))
    };
    let latest = view.events.iter().max_by_key(|event| (event.at, event.happening))?;
    let holds = match latest.happening {
        Happening::ScalingUp => view.node.is_empty(),
        Happening::VolumeNotReady | Happening::SandboxFailed => {
            view.containers.iter().all(|container| !container.has_run()) && waits("")
        }
        Happening::PullingImage => waits(&latest.container),
    };
    holds.then_some(latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_pods_that_never_come_take_no_room() {
        let (happening, container, message) = (Happening::VolumeNotReady, "".into(), "no".into());
        let event = PodEvent { happening, container, message, at: Timestamp::UNIX_EPOCH };
        let mut early = Early::default();
        for number in 0..2 * MAX_EARLY {
            early.push(format!("of another program {number}"), event.clone());
        }
        assert_eq!(early.0.len(), MAX_EARLY);
    }
}
