//! What the broker keeps of a container.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self, ContainerStatus, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::names::RESULT_NAME;
use crate::execution::{ContainerRole, Policies};

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerView {
    pub(super) name: String,
    pub(super) role: ContainerRole,
    pub(super) restarts: u32,
    pub(super) state: ContainerState,
    /// How the instance before the latest restart ended.
    pub(super) last: Option<Termination>,
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContainerState {
    Waiting { reason: String, message: String },
    Running { started: Option<Timestamp> },
    Terminated(Termination),
}

/// How a container instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Termination {
    pub(super) exit_code: i32,
    pub(super) signal: Option<i32>,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) started: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
}

impl ContainerView {
    /// When its current instance started.
    pub(super) fn started(&self) -> Option<Timestamp> {
        match &self.state {
            ContainerState::Waiting { .. } => None,
            ContainerState::Running { started } => *started,
            ContainerState::Terminated(termination) => termination.started,
        }
    }

    /// How its current instance ended.
    pub(super) fn termination(&self) -> Option<&Termination> {
        match &self.state {
            ContainerState::Terminated(termination) => Some(termination),
            ContainerState::Waiting { .. } | ContainerState::Running { .. } => None,
        }
    }

    /// It has run at some time, so it may have written lines.
    pub(super) fn has_run(&self) -> bool {
        match &self.state {
            ContainerState::Waiting { .. } => self.last.is_some(),
            ContainerState::Running { .. } => true,
            // Without a start time the kubelet made the end up: the container never ran.
            ContainerState::Terminated(termination) => termination.started.is_some() || self.last.is_some(),
        }
    }

    /// The broker added it; callers are not shown it.
    pub(super) fn is_hidden(&self) -> bool {
        self.name == RESULT_NAME
    }
}

/// All containers of a pod, init containers first.
pub(super) fn containers(spec: &PodSpec, status: &PodStatus, policies: &Policies) -> Vec<ContainerView> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let role = match container.restart_policy.as_deref() {
            Some("Always") => ContainerRole::Sidecar,
            _ => ContainerRole::Init,
        };
        container_view(&container.name, role, status.init_container_statuses.as_deref())
    });
    let deciding = &policies.deciding_containers;
    let main = spec.containers.iter().map(|container| {
        let decides = deciding.is_empty() || deciding.contains(&container.name);
        let role = if decides { ContainerRole::Deciding } else { ContainerRole::Other };
        container_view(&container.name, role, status.container_statuses.as_deref())
    });
    init.chain(main).collect()
}

fn container_view(name: &str, role: ContainerRole, statuses: Option<&[ContainerStatus]>) -> ContainerView {
    let status = statuses.into_iter().flatten().find(|status| status.name == name);
    ContainerView {
        name: name.to_owned(),
        role,
        restarts: status.and_then(|status| u32::try_from(status.restart_count).ok()).unwrap_or(0),
        state: status.and_then(|status| status.state.as_ref()).map_or_else(ContainerState::unknown, ContainerState::of),
        last: status.and_then(|status| status.last_state.as_ref()?.terminated.as_ref()).map(Termination::of),
    }
}

impl ContainerState {
    /// The kubelet has said nothing yet.
    fn unknown() -> Self {
        Self::Waiting { reason: String::new(), message: String::new() }
    }

    fn of(state: &v1::ContainerState) -> Self {
        if let Some(terminated) = &state.terminated {
            return Self::Terminated(Termination::of(terminated));
        }
        if let Some(running) = &state.running {
            return Self::Running { started: running.started_at.as_ref().map(|time| time.0) };
        }
        let Some(waiting) = &state.waiting else { return Self::unknown() };
        let (reason, message) = (&waiting.reason, &waiting.message);
        Self::Waiting { reason: reason.clone().unwrap_or_default(), message: message.clone().unwrap_or_default() }
    }
}

impl Termination {
    fn of(state: &v1::ContainerStateTerminated) -> Self {
        let real = |time: &Option<Time>| time.as_ref().map(|time| time.0).filter(|time| *time > Timestamp::UNIX_EPOCH);
        Self {
            exit_code: state.exit_code,
            signal: state.signal.filter(|signal| *signal != 0),
            reason: state.reason.clone().unwrap_or_default(),
            message: state.message.clone().unwrap_or_default(),
            started: real(&state.started_at),
            ended: real(&state.finished_at),
        }
    }
}
