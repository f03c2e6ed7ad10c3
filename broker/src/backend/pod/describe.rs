//! From views to what callers are told: the execution and its attempts.

use super::attempts::Attempts;
use super::status::{self, Status};
use super::view::View;
use super::{PodSettings, record};
use crate::execution::{Address, Attempt, Execution, State};

/// The address of the execution that a pod belongs to.
pub(super) fn address(settings: &PodSettings, view: &View) -> Address {
    Address {
        instance: settings.instance.clone(),
        tenant: view.tenant.clone(),
        target: settings.target.clone(),
        id: view.id.clone(),
    }
}

/// The execution as its attempts show it.
pub(super) fn execution(settings: &PodSettings, attempts: &Attempts) -> Execution {
    let (oldest, latest) = (attempts.oldest(), attempts.latest());
    let Status { state, reason, outcome, started, ended } = attempts.standing().status;
    let made = attempts.iter().map(|view| attempt(view, status::status(view).state)).collect();
    Execution {
        address: address(settings, oldest),
        labels: oldest.labels.clone(),
        state,
        state_reason: reason,
        attempts: made,
        outcome,
        policies: oldest.policies.clone(),
        created: oldest.created,
        started,
        ended,
        digest: oldest.digest.clone(),
        cancel: attempts.stop().or(latest.cancel.as_ref()).cloned(),
        released: attempts.iter().find_map(|view| view.released),
        pod_json: None,
        job_json: None,
    }
}

/// One attempt.
pub(super) fn attempt(view: &View, state: State) -> Attempt {
    let (pod_name, pod_uid, job_id, job_name) = match view.record() {
        None => (view.pod_name.clone(), view.uid.clone(), String::new(), String::new()),
        Some(record) => {
            let (name, uid) = record.pod();
            match record::of_cluster(record.job_id()) {
                Some((job, _)) => (name, uid, String::new(), job.to_owned()),
                None => (name, uid, record.job_id().to_owned(), String::new()),
            }
        }
    };
    Attempt {
        number: view.attempt,
        state,
        pod_name,
        pod_namespace: view.namespace.clone(),
        pod_uid,
        node_name: view.node.clone(),
        job_id,
        job_name,
    }
}
