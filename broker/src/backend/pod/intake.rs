//! Hands the hub what its feeds bring: the target's pods, and the events of pods.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use tracing::{debug, warn};

use super::api::ApiError;
use super::carrier::Carrier;
use super::events::{self, Access, PodEvent};
use super::feed::{Intake, health_after};
use super::hub::Hub;
use super::view::View;
use crate::backend::Health;

/// How long a role that does not allow to read events is left alone.
const EVENTS_PAUSE: Duration = Duration::from_mins(10);

impl Hub {
    /// Takes in what an event says of a pod.
    pub(super) fn hear(&self, about: &ObjectReference, event: PodEvent) {
        let (Some(name), Some(uid)) = (&about.name, &about.uid) else { return };
        let mut state = self.state();
        let waiting = state.waiting.get(name).and_then(|(hash, attempt)| {
            let view = state.executions.get(hash)?.number(*attempt)?;
            (view.uid == *uid).then(|| (hash.clone(), View::clone(view)))
        });
        if let Some((hash, mut view)) = waiting {
            if events::keep(&mut view.events, event) {
                state.put(&hash, Arc::new(view));
            }
            return;
        }
        let news = state.ledger.as_mut().and_then(|ledger| ledger.hear(name, uid, &event));
        match news {
            Some(news) => state.take_news(news),
            None => state.early.push(uid.clone(), event),
        }
    }

    /// Notes whether events can be read, and tells those who wait for a pod.
    pub(super) fn allow_events(&self, access: Access) {
        let mut state = self.state();
        if state.access == access {
            return;
        }
        state.access = access;
        for (hash, attempt) in state.waiting.values().cloned().collect::<Vec<_>>() {
            let view = state.executions.get(&hash).and_then(|attempts| attempts.number(attempt)).cloned();
            if let Some(view) = view {
                state.put(&hash, Arc::new(View { access, ..View::clone(&view) }));
            }
        }
    }
}

/// Takes the target's carriers in.
pub(super) struct PodIntake<'a> {
    hub: &'a Hub,
    /// The names that the list under way has brought.
    listed: HashSet<String>,
}

impl<'a> PodIntake<'a> {
    pub(super) fn new(hub: &'a Hub) -> Self {
        Self { hub, listed: HashSet::new() }
    }
}

impl Intake for PodIntake<'_> {
    type Object = Carrier;

    fn version(pod: &Carrier) -> Option<String> {
        pod.metadata.resource_version.clone()
    }

    fn begin_list(&mut self) {
        self.listed.clear();
    }

    fn list(&mut self, pod: Carrier) {
        self.hub.apply(&pod);
        self.listed.extend(pod.metadata.name);
    }

    fn end_list(&mut self, version: u64) {
        self.hub.keep_listed(&std::mem::take(&mut self.listed), version);
    }

    fn open(&mut self) {
        self.hub.set_health(Health::Serving);
    }

    fn put(&mut self, pod: Carrier) {
        self.hub.apply(&pod);
    }

    fn remove(&mut self, pod: Carrier) {
        self.hub.forget(&pod);
    }

    fn reach(&mut self, version: u64) {
        self.hub.reach(version);
    }

    fn fail(&mut self, error: &ApiError) -> Duration {
        warn!(error = error as &dyn std::error::Error, "the target's pods cannot be watched");
        self.hub.set_health(health_after(error));
        Duration::ZERO
    }
}

/// Takes the events of pods in.
pub(super) struct EventIntake<'a> {
    hub: &'a Hub,
}

impl<'a> EventIntake<'a> {
    pub(super) fn new(hub: &'a Hub) -> Self {
        Self { hub }
    }
}

impl Intake for EventIntake<'_> {
    type Object = Event;

    fn version(event: &Event) -> Option<String> {
        event.metadata.resource_version.clone()
    }

    fn begin_list(&mut self) {}

    fn list(&mut self, event: Event) {
        self.put(event);
    }

    fn end_list(&mut self, _: u64) {}

    fn open(&mut self) {
        debug!("the events of the target's pods are followed");
        self.hub.allow_events(Access::Open);
    }

    fn put(&mut self, event: Event) {
        if let Some(kept) = PodEvent::of(&event) {
            self.hub.hear(&event.involved_object, kept);
        }
    }

    /// An event is thrown away when it is old, which says nothing about the pod.
    fn remove(&mut self, _: Event) {}

    fn reach(&mut self, _: u64) {}

    fn fail(&mut self, error: &ApiError) -> Duration {
        if error.code() != Some(403) {
            // The pods' watch says what is wrong with the cluster.
            debug!(error = error as &dyn std::error::Error, "the events of the target's pods cannot be followed now");
            return Duration::ZERO;
        }
        warn!(
            error = error as &dyn std::error::Error,
            "the role does not allow to read events: why a pod waits for volumes, images and networks is not told"
        );
        self.hub.allow_events(Access::Refused);
        EVENTS_PAUSE
    }
}
