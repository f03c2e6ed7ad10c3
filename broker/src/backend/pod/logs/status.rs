//! What the pod's status says about one container instance.

use std::sync::Arc;

use tokio::sync::watch;

use super::super::view::{ContainerState, Presence, View};
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
    pub(super) gone: bool,
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

    /// Looks at the latest status.
    pub(super) fn look(&mut self) -> Standing {
        let view = self.view.borrow_and_update();
        let gone = view.presence == Presence::Gone;
        let Some(container) = view.container(&self.instance.container) else {
            return Standing { life: Life::Ended, place: Kept::Current, gone };
        };
        let restarted = container.restarts > self.instance.restart;
        let ended = restarted || matches!(container.state, ContainerState::Terminated(_)) || view.is_terminal();
        // The kubelet keeps one instance back. A container that waits for its restart counts up when it starts.
        let waits = matches!(container.state, ContainerState::Waiting { .. }) && container.last.is_some();
        Standing {
            life: if ended || waits { Life::Ended } else { Life::Open },
            place: if restarted && !waits { Kept::Previous } else { Kept::Current },
            gone,
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
        let container = view.container(&self.instance.container)?;
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
