//! A pod that was made for a job. Which job, which child of an array and which of the job's own attempts it is for stands in the
//! environment that AWS Batch gives each container. On a pod of a Job of the cluster it stands in the labels of its controller,
//! which say nothing of attempts: the pods of such a Job are told apart by what the API server has added to their names.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::super::carrier::Carrier;
use super::super::names::{ATTEMPT_LABEL, EXECUTION_LABEL, JOB_NAME};
use super::super::view::{Nature, Presence, View};

/// <https://docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html>
const JOB_ID: &str = "AWS_BATCH_JOB_ID";
const ARRAY_INDEX: &str = "AWS_BATCH_JOB_ARRAY_INDEX";
const JOB_ATTEMPT: &str = "AWS_BATCH_JOB_ATTEMPT";

/// The labels of the Job controller; an index has only a pod of an Indexed Job.
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/>
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A pod of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backend::pod) struct Part {
    /// As if it were the carrier: with the names that its containers have.
    pub(in crate::backend::pod) view: Arc<View>,
    /// The job's id, without that of the child.
    pub(super) job: String,
    /// What tells it apart where one attempt has several pods: which child of an array it is for, or which pod of a Job it is.
    pub(super) slot: Option<String>,
    /// Which of the job's own attempts, from 1; of an array's child, of its own.
    pub(super) turn: u32,
}

/// What a part says of itself before its record is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) job: String,
    pub(super) slot: Option<String>,
    pub(super) turn: u32,
}

impl Origin {
    /// Nothing if the pod is none of a job's.
    pub(super) fn of(pod: &Carrier) -> Option<Self> {
        Self::of_cluster(pod).or_else(|| Self::of_batch(pod))
    }

    /// What the Job controller says.
    fn of_cluster(pod: &Carrier) -> Option<Self> {
        let label = |key: &str| pod.metadata.labels.as_ref()?.get(key);
        let job = job_id(label(JOB_NAME)?, label(CONTROLLER_UID)?);
        let random = pod.metadata.name.as_deref()?.rsplit('-').next()?;
        let slot = match label(COMPLETION_INDEX) {
            Some(index) => format!("{index}-{random}"),
            None => random.to_owned(),
        };
        Some(Self { job, slot: Some(slot), turn: 1 })
    }

    /// What AWS Batch says.
    fn of_batch(pod: &Carrier) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let id = variable(spec, JOB_ID)?;
        // A child's id is that of its parent, a colon, and its index.
        let (job, index) = id.split_once(':').map_or((id, None), |(job, index)| (job, index.parse().ok()));
        let index: Option<u32> = variable(spec, ARRAY_INDEX).and_then(|index| index.parse().ok()).or(index);
        let turn = variable(spec, JOB_ATTEMPT).and_then(|turn| turn.parse().ok()).unwrap_or(1);
        Some(Self { job: job.to_owned(), slot: index.map(|index| index.to_string()), turn: u32::max(turn, 1) })
    }
}

fn variable<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a str> {
    let inits = spec.init_containers.iter().flatten();
    let of = |container: &'a Container| {
        let found = container.env.iter().flatten().find(|variable| variable.name == name);
        found.and_then(|variable| variable.value.as_deref()).filter(|value| !value.is_empty())
    };
    spec.containers.iter().chain(inits).find_map(of)
}

/// The id of a Job of the cluster: its name may be taken anew, and its uid alone finds nothing. That of AWS Batch has no slash.
pub(in crate::backend::pod) fn job_id(name: &str, uid: &str) -> String {
    format!("{name}/{uid}")
}

/// The name and the uid of a Job of the cluster, from its id; nothing for one of AWS Batch.
pub(in crate::backend::pod) fn of_cluster(id: &str) -> Option<(&str, &str)> {
    id.split_once('/')
}

/// The record that a pod belongs to by our labels: the execution's hash, and the number in the record's name.
pub(super) fn owner(pod: &Carrier) -> Option<(String, u32)> {
    let labels = pod.metadata.labels.as_ref()?;
    Some((labels.get(EXECUTION_LABEL)?.clone(), labels.get(ATTEMPT_LABEL)?.parse().ok()?))
}

impl Part {
    /// A pod of that record's job.
    pub(super) fn new(record: &View, pod: &Carrier, origin: Origin, earlier: Option<&Self>) -> Self {
        let Origin { job, slot, turn } = origin;
        let mut view = View {
            nature: Nature::Part,
            pod_name: pod.metadata.name.clone().unwrap_or_default(),
            // A child of an array has attempts of its own, which show as restarts of its containers.
            attempt: if slot.is_some() { record.attempt } else { record.attempt + (turn - 1) },
            cancel: None,
            stop: None,
            refused: None,
            waits: None,
            decided: None,
            released: None,
            has_finalizer: false,
            presence: Presence::Present,
            ..record.clone()
        }
        .showing(pod);
        if slot.is_some() {
            view.containers.iter_mut().for_each(|container| container.restarts += turn - 1);
        }
        if let Some(earlier) = earlier {
            view.inherit(&earlier.view, view.created.unwrap_or_default());
            // The kubelet's own delete writes a later time into it.
            let first = earlier.view.delete_requested.filter(|_| earlier.view.uid == view.uid);
            view.delete_requested = first.or(view.delete_requested);
        }
        Self { view: Arc::new(view), job, slot, turn }
    }

    /// The same with another view of its pod.
    pub(super) fn with(&self, view: View) -> Self {
        Self { view: Arc::new(view), ..self.clone() }
    }

    /// How one of its containers is called in events, cursors and outcomes. A container's name is a DNS label, so the slash is
    /// unambiguous.
    pub(in crate::backend::pod) fn shown(&self, container: &str) -> String {
        #[cfg(test)]
        super::named::work::add();
        match &self.slot {
            Some(slot) => format!("{slot}/{container}"),
            None => container.to_owned(),
        }
    }

    /// The restart that the first run of its containers is told as.
    pub(super) fn first_run(&self) -> u32 {
        if self.slot.is_some() { self.turn - 1 } else { 0 }
    }

    /// Nothing more is to come from its status.
    pub(super) fn has_said_all(&self) -> bool {
        self.view.is_terminal() || self.view.containers.iter().all(|container| container.termination().is_some())
    }

    /// What matters to whoever describes jobs: how many of its containers have started and ended, and whether it is there.
    pub(super) fn gist(&self) -> (usize, usize, Presence, Option<Timestamp>) {
        let containers = || self.view.containers.iter();
        let started = containers().filter(|container| container.has_run()).count();
        let ended = containers().filter(|container| container.termination().is_some()).count();
        (started, ended, self.view.presence, self.view.delete_requested)
    }
}

/// The name that a container has in its pod.
pub(in crate::backend::pod) fn real_name(shown: &str) -> &str {
    shown.rsplit('/').next().unwrap_or(shown)
}
