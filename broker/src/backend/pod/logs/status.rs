//! What the pod's status says about one container instance.

use std::sync::Arc;

use tokio::sync::watch;

use super::super::record::real_name;
use super::super::view::{ContainerState, Nature, Presence, View};
use crate::backend::log_group::ShippedContainer;
use crate::execution::Instance;

/// An instance whose status is watched.
#[derive(Clone)]
pub(super) struct Status {
    view: watch::Receiver<Arc<View>>,
    pub(super) instance: Instance,
}

/// What it says now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) life: Life,
    pub(super) place: Kept,
    pub(super) gone: Option<Gone>,
}

/// Why nothing can be read of it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// The pod is no more.
    Pod,
    /// The kubelet keeps the logs of the container's later runs.
    Replaced,
}

/// Whether the instance may still write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    Ended,
}

/// Where the kubelet keeps the instance's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Current,
    /// It is the one before the latest restart.
    Previous,
}

impl Status {
    pub(super) fn new(view: watch::Receiver<Arc<View>>, instance: Instance) -> Self {
        Self { view, instance }
    }

    pub(super) fn pod_name(&self) -> String {
        self.view.borrow().pod_name.clone()
    }

    pub(super) fn pod_uid(&self) -> String {
        self.view.borrow().uid.clone()
    }

    /// What its stream is called by, where lines are shipped.
    pub(super) fn shipped(&self) -> ShippedContainer {
        let (pod, node) = (self.pod_name(), self.view.borrow().node.clone());
        ShippedContainer { pod, node, container: self.container().to_owned() }
    }

    /// The container's name in its pod.
    pub(super) fn container(&self) -> &str {
        real_name(&self.instance.container)
    }

    /// The pod is deleted soon after its end, as everybody knows: nobody can read anything of it later.
    pub(super) fn is_short_lived(&self) -> bool {
        self.view.borrow().nature == Nature::Part
    }

    /// Looks at the latest status.
    pub(super) fn look(&mut self) -> Standing {
        let view = self.view.borrow_and_update();
        let pod = (view.presence == Presence::Gone).then_some(Gone::Pod);
        let Some(container) = view.container(real_name(&self.instance.container)) else {
            return Standing { life: Life::Ended, place: Kept::Current, gone: pod };
        };
        let later = container.restarts.saturating_sub(self.instance.restart);
        let restarted = later > 0;
        let ended = restarted || matches!(container.state, ContainerState::Terminated(_)) || view.is_terminal();
        // The kubelet keeps one instance back. A container that waits for its restart counts up when it starts, and until then
        // both of what the kubelet gives are the run that ended last.
        let waits = matches!(container.state, ContainerState::Waiting { .. }) && container.last.is_some();
        let is_replaced = later > u32::from(!waits);
        Standing {
            life: if ended || waits { Life::Ended } else { Life::Open },
            place: if restarted && !waits { Kept::Previous } else { Kept::Current },
            gone: pod.or(is_replaced.then_some(Gone::Replaced)),
        }
    }

    /// Waits for another status; for ever if there will be none.
    pub(super) async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// When the instance ended, if that is known: nanoseconds since 1970, of the beginning of the second.
    pub(super) fn finished(&self) -> Option<i64> {
        let view = self.view.borrow();
        let container = view.container(self.container())?;
        let end = match container.restarts.checked_sub(self.instance.restart)? {
            0 => container.termination().or(container.last.as_ref()),
            1 => container.last.as_ref(),
            _ => None,
        };
        i64::try_from(end?.ended?.as_nanosecond()).ok()
    }

    /// Waits until the instance has ended.
    pub(super) async fn ended(&mut self) {
        while self.look().life == Life::Open {
            self.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::status::tests::{pod, view_of};
    use super::*;
    use serde_json::json;

    fn look(restarts: u32, state: &serde_json::Value, restart: u32) -> Standing {
        let ended = json!({ "terminated": { "exitCode": 1, "startedAt": "2026-11-21T08:00:00Z" } });
        let view = view_of(&pod(json!({ "phase": "Running", "containerStatuses": [{
            "name": "base", "state": state, "lastState": if restarts > 0 { ended } else { json!({}) },
            "restartCount": restarts, "image": "", "imageID": "", "ready": false,
        }] })));
        let (_sender, view) = watch::channel(Arc::new(view));
        let role = crate::execution::ContainerRole::Deciding;
        Status::new(view, Instance { attempt: 1, container: "base".to_owned(), restart, role }).look()
    }

    #[test]
    fn only_the_runs_that_the_kubelet_gives_are_asked_for() {
        let running = json!({ "running": { "startedAt": "2026-11-21T08:01:00Z" } });
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        for (restarts, state, restart, gone, place) in [
            (0, &running, 0, None, Kept::Current),
            (2, &running, 2, None, Kept::Current),
            (2, &running, 1, None, Kept::Previous),
            (2, &running, 0, Some(Gone::Replaced), Kept::Previous),
            // Until the next run has begun, what the kubelet gives is the last one, however it is asked.
            (2, &waiting, 2, None, Kept::Current),
            (2, &waiting, 1, Some(Gone::Replaced), Kept::Current),
        ] {
            let standing = look(restarts, state, restart);
            assert_eq!((standing.gone, standing.place), (gone, place), "run {restart} of {restarts}, {state}");
        }
    }
}
