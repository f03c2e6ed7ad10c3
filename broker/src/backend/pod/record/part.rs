//! A pod that was made for a job. Which job, which child of an array and which of the job's own attempts it is for stands in the
//! environment that AWS Batch gives each container, and is never guessed from names.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::super::carrier::Carrier;
use super::super::names::{ATTEMPT_LABEL, EXECUTION_LABEL};
use super::super::view::{Nature, Presence, View};

/// <https://docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html>
const JOB_ID: &str = "AWS_BATCH_JOB_ID";
const ARRAY_INDEX: &str = "AWS_BATCH_JOB_ARRAY_INDEX";
const JOB_ATTEMPT: &str = "AWS_BATCH_JOB_ATTEMPT";

/// A pod of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backend::pod) struct Part {
    /// As if it were the carrier: with the names that its containers have.
    pub(in crate::backend::pod) view: Arc<View>,
    /// The job's id, without that of the child.
    pub(super) job: String,
    /// Which child of an array it is for.
    pub(super) index: Option<u32>,
    /// Which of the job's own attempts, from 1; of an array's child, of its own.
    pub(super) turn: u32,
}

/// What a part says of itself before its record is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) job: String,
    pub(super) index: Option<u32>,
    pub(super) turn: u32,
}

impl Origin {
    /// Nothing if the pod is none of a job's.
    pub(super) fn of(pod: &Carrier) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let id = variable(spec, JOB_ID)?;
        // A child's id is that of its parent, a colon, and its index.
        let (job, index) = id.split_once(':').map_or((id, None), |(job, index)| (job, index.parse().ok()));
        let index = variable(spec, ARRAY_INDEX).and_then(|index| index.parse().ok()).or(index);
        let turn = variable(spec, JOB_ATTEMPT).and_then(|turn| turn.parse().ok()).unwrap_or(1);
        Some(Self { job: job.to_owned(), index, turn: u32::max(turn, 1) })
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

/// The record that a pod belongs to by our labels: the execution's hash, and the number in the record's name.
pub(super) fn owner(pod: &Carrier) -> Option<(String, u32)> {
    let labels = pod.metadata.labels.as_ref()?;
    Some((labels.get(EXECUTION_LABEL)?.clone(), labels.get(ATTEMPT_LABEL)?.parse().ok()?))
}

impl Part {
    /// A pod of that record's job.
    pub(super) fn new(record: &View, pod: &Carrier, origin: Origin, earlier: Option<&Self>) -> Self {
        let Origin { job, index, turn } = origin;
        let mut view = View {
            nature: Nature::Part,
            pod_name: pod.metadata.name.clone().unwrap_or_default(),
            // A child of an array has attempts of its own, which show as restarts of its containers.
            attempt: if index.is_some() { record.attempt } else { record.attempt + (turn - 1) },
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
        if index.is_some() {
            view.containers.iter_mut().for_each(|container| container.restarts += turn - 1);
        }
        if let Some(earlier) = earlier {
            view.inherit(&earlier.view, view.created.unwrap_or_default());
            // The kubelet's own delete writes a later time into it.
            let first = earlier.view.delete_requested.filter(|_| earlier.view.uid == view.uid);
            view.delete_requested = first.or(view.delete_requested);
        }
        Self { view: Arc::new(view), job, index, turn }
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
        match self.index {
            Some(index) => format!("{index}/{container}"),
            None => container.to_owned(),
        }
    }

    /// The restart that the first run of its containers is told as.
    pub(super) fn first_run(&self) -> u32 {
        if self.index.is_some() { self.turn - 1 } else { 0 }
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
