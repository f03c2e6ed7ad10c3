//! From a view to what callers are told: the execution, its attempt, and what is worth a notice.

use super::PodSettings;
use super::status::{self, Status, image_trouble, is_image_trouble};
use super::view::{ContainerState, View};
use crate::execution::{Address, Attempt, Execution, Notice, Severity};

/// The address of the execution that a pod belongs to.
pub(super) fn address(settings: &PodSettings, view: &View) -> Address {
    Address {
        instance: settings.instance.clone(),
        tenant: view.tenant.clone(),
        target: settings.target.clone(),
        id: view.id.clone(),
    }
}

/// The execution as the view shows it.
pub(super) fn execution(settings: &PodSettings, view: &View) -> Execution {
    let Status { state, reason, outcome, started, ended } = status::status(view);
    Execution {
        address: address(settings, view),
        labels: view.labels.clone(),
        state,
        state_reason: reason,
        attempts: vec![Attempt {
            number: view.attempt,
            state,
            pod_name: view.pod_name.clone(),
            pod_namespace: view.namespace.clone(),
            pod_uid: view.uid.clone(),
            node_name: view.node.clone(),
        }],
        outcome,
        policies: view.policies.clone(),
        created: view.created,
        started,
        ended,
        digest: view.digest.clone(),
        cancel: view.cancel.clone(),
        released: view.released,
        pod_json: None,
    }
}

/// What a person should know about it now, most important first.
pub(super) fn notice(view: &View) -> Option<Notice> {
    if let Some(intent) = &view.cancel {
        let because = if intent.reason.is_empty() { String::new() } else { format!(": {}", intent.reason) };
        let message = format!("{} asked for its end{because}", intent.by);
        return Some(Notice { code: "CANCEL_REQUESTED", message, severity: Severity::Info });
    }
    if let Some(why) = &view.unschedulable {
        let message = format!("no node can take the pod: {why}");
        return Some(Notice { code: "UNSCHEDULABLE", message, severity: Severity::Warning });
    }
    view.containers.iter().find_map(|container| match &container.state {
        ContainerState::Waiting { reason, message } if is_image_trouble(reason) => {
            let cause = image_trouble(message);
            let message = format!("the image of container {} cannot be had: {cause}", container.name);
            Some(Notice { code: "IMAGE_PULL_FAILED", message, severity: Severity::Warning })
        }
        _ if container.restarts > 0 && !container.is_hidden() => {
            let message = format!("container {} was restarted, {} times so far", container.name, container.restarts);
            Some(Notice { code: "CONTAINER_RESTARTED", message, severity: Severity::Info })
        }
        _ => None,
    })
}
