//! What the broker keeps of a carrier: a small value, not the object.
//!
//! A view is made from each version that the watch or an answer brings; the object is dropped at once. Everything that
//! is said about an execution is a function of its view.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};

use super::carrier::Carrier;
use super::claim::Membership;
use super::container::containers;
use super::deletion::Deletion;
use super::events::{self, Access, PodEvent};
use super::manifest::{read_labels, read_time};
use super::names::{
    ATTEMPT_LABEL, CANCEL, CLAIMS, DECIDED, DIGEST, FINALIZER, GENERATION_LABEL, GROUP_LABEL, ID, LABELS, POLICIES,
    REFUSED, RELEASED, STOP, SUBMIT_BEFORE, SUPERSEDED, TENANT_LABEL, WAITS,
};
use super::node::{Capacity, Disruption, NodeContact};
use super::record::Record;
use crate::execution::{CancelIntent, ContainerRole, ExecutionId, Policies, RefusedAttempt, Tenant};

pub(super) use super::container::{ContainerState, ContainerView, Termination};

/// What a view is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nature {
    /// A pod that carries its attempt.
    Pod,
    /// A record, and what is known of the job behind it. What the rest of the view says of containers and nodes comes from there.
    Record(Arc<Record>),
    /// A pod that was made for a job.
    Part,
}

/// A carrier with its attempt, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) nature: Nature,
    /// The carrier's name.
    pub(super) pod_name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    /// The API server orders versions of objects by it; 0 if it says something that is no number.
    pub(super) version: u64,
    pub(super) tenant: Tenant,
    pub(super) id: ExecutionId,
    pub(super) attempt: u32,
    /// Only members of a group have one.
    pub(super) membership: Option<Box<Membership>>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) policies: Policies,
    pub(super) digest: String,
    pub(super) submit_before: Timestamp,
    pub(super) created: Option<Timestamp>,
    pub(super) node: String,
    /// Who asked for the end of this attempt.
    pub(super) cancel: Option<CancelIntent>,
    /// Who asked for the end of the execution after this attempt.
    pub(super) stop: Option<CancelIntent>,
    /// Why no other one follows this attempt.
    pub(super) refused: Option<RefusedAttempt>,
    /// Why the one that follows has to wait.
    pub(super) waits: Option<Box<RefusedAttempt>>,
    pub(super) decided: Option<Timestamp>,
    pub(super) released: Option<Timestamp>,
    /// When somebody asked for its deletion; once the kubelet is done with it, when that was.
    pub(super) delete_requested: Option<Timestamp>,
    /// Whether its containers were told to end by that deletion.
    pub(super) deletion: Deletion,
    pub(super) has_finalizer: bool,
    /// The object is no more; this is the last that was seen of it.
    pub(super) presence: Presence,
    pub(super) phase: Phase,
    /// `status.reason`, such as `Evicted` or `DeadlineExceeded`.
    pub(super) reason: String,
    /// `status.message`.
    pub(super) message: String,
    /// The scheduler's sentence, while it cannot place the pod.
    pub(super) unschedulable: Option<String>,
    /// What holds it back before the scheduler looks at it: the names of its scheduling gates.
    pub(super) gates: Vec<String>,
    /// When it was let out of a queue, as far as that is known. A start deadline does not run before.
    pub(super) queued_until: Option<Timestamp>,
    /// The node on which the scheduler makes room for it by ending others; empty if it does not.
    pub(super) nominated: String,
    /// The `DisruptionTarget` condition.
    pub(super) disruption: Option<Box<Disruption>>,
    /// Whether its node answers.
    pub(super) contact: NodeContact,
    /// On what kind of nodes it may be.
    pub(super) capacity: Capacity,
    /// What events say of it, until it runs.
    pub(super) events: Vec<PodEvent>,
    /// Whether events can be read.
    pub(super) access: Access,
    /// When the run deadline passes, by the kubelet's count.
    pub(super) deadline: Option<Timestamp>,
    /// `spec.restartPolicy` is `OnFailure`: a failed container starts again.
    pub(super) restarts: Restarts,
    /// Init containers first, as in the spec.
    pub(super) containers: Vec<ContainerView>,
}

/// Whether the object still exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Present,
    Gone,
}

/// Whether the kubelet starts a failed container again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restarts {
    Never,
    OnFailure,
}

/// `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl View {
    /// The view of a pod, or what is wrong with it: somebody else may have changed or made up our labels and annotations.
    pub(super) fn of(pod: &Carrier) -> Result<Self, &'static str> {
        let metadata = &pod.metadata;
        let none = BTreeMap::new();
        let labels = metadata.labels.as_ref().unwrap_or(&none);
        let annotations = metadata.annotations.as_ref().unwrap_or(&none);
        let json = |key: &str| annotations.get(key);
        let policies: Policies = json(POLICIES)
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or("the annotation with the policies is missing or damaged")?;
        let bare = Self {
            nature: Record::of(annotations).map_or(Nature::Pod, |record| Nature::Record(Arc::new(record))),
            pod_name: metadata.name.clone().ok_or("the pod has no name")?,
            namespace: String::new(),
            uid: String::new(),
            version: 0,
            tenant: labels.get(TENANT_LABEL).and_then(|t| t.parse().ok()).ok_or("the tenant's label is damaged")?,
            id: json(ID).and_then(|id| id.parse().ok()).ok_or("the annotation with the execution id is damaged")?,
            attempt: labels.get(ATTEMPT_LABEL).and_then(|n| n.parse().ok()).ok_or("the attempt's label is damaged")?,
            membership: membership(labels, annotations)?.map(Box::new),
            labels: json(LABELS)
                .and_then(|text| read_labels(text))
                .ok_or("the annotation with the labels is damaged")?,
            digest: json(DIGEST).cloned().unwrap_or_default(),
            submit_before: read_time(json(SUBMIT_BEFORE)).ok_or("the annotation with the submit window is damaged")?,
            created: None,
            node: String::new(),
            cancel: json(CANCEL).and_then(|text| serde_json::from_str(text).ok()),
            stop: json(STOP).and_then(|text| serde_json::from_str(text).ok()),
            refused: json(REFUSED).and_then(|text| serde_json::from_str(text).ok()),
            waits: json(WAITS).and_then(|text| serde_json::from_str(text).ok()),
            decided: read_time(json(DECIDED)),
            released: read_time(json(RELEASED)),
            delete_requested: None,
            deletion: Deletion::Open,
            has_finalizer: metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER),
            presence: Presence::Present,
            phase: Phase::Pending,
            reason: String::new(),
            message: String::new(),
            unschedulable: None,
            gates: Vec::new(),
            queued_until: None,
            nominated: String::new(),
            disruption: None,
            contact: NodeContact::Held,
            capacity: Capacity::Any,
            events: Vec::new(),
            access: Access::Open,
            deadline: None,
            restarts: Restarts::Never,
            containers: Vec::new(),
            policies,
        };
        Ok(bare.showing(pod))
    }

    /// The same attempt, with what an object says of itself apart from our labels and annotations.
    pub(super) fn showing(self, object: &Carrier) -> Self {
        let metadata = &object.metadata;
        let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
        let (spec, status) = (object.spec.as_ref().unwrap_or(&no_spec), object.status.as_ref().unwrap_or(&no_status));
        let condition = |kind: &str, value: &str| {
            status.conditions.iter().flatten().find(|condition| condition.type_ == kind && condition.status == value)
        };
        let gates: Vec<_> = spec.scheduling_gates.iter().flatten().map(|gate| gate.name.clone()).collect();
        let unschedulable = condition("PodScheduled", "False")
            .filter(|c| gates.is_empty() && c.reason.as_deref() != Some("SchedulingGated"))
            .map(|c| c.message.clone().unwrap_or_default());
        let since = |c: &PodCondition| c.last_transition_time.as_ref().map(|time| time.0);
        let disruption = condition("DisruptionTarget", "True").map(|c| Box::new(Disruption::of(c)));
        // Kueue lets a pod go just before the scheduler finds its place.
        let is_kueues = metadata.labels.iter().flatten().any(|(key, _)| key.starts_with("kueue.x-k8s.io/"));
        let queued_until = condition("PodScheduled", "True").filter(|_| is_kueues).and_then(since);
        let deadline = status
            .start_time
            .as_ref()
            .zip(spec.active_deadline_seconds)
            .and_then(|(start, seconds)| start.0.checked_add(jiff::SignedDuration::from_secs(seconds)).ok());
        let restarts = match spec.restart_policy.as_deref() {
            Some("Never") => Restarts::Never,
            _ => Restarts::OnFailure,
        };
        let grace = jiff::SignedDuration::from_secs(metadata.deletion_grace_period_seconds.unwrap_or(0));
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            node: spec.node_name.clone().unwrap_or_default(),
            // The API server writes the moment of the end of the grace; the request was that much earlier.
            delete_requested: metadata.deletion_timestamp.as_ref().map(|t| t.0.saturating_sub(grace).unwrap_or(t.0)),
            deletion: Deletion::of(metadata, status),
            phase: phase(status),
            reason: status.reason.clone().unwrap_or_default(),
            message: status.message.clone().unwrap_or_default(),
            unschedulable,
            gates,
            queued_until,
            nominated: status.nominated_node_name.clone().unwrap_or_default(),
            disruption,
            contact: NodeContact::of(status),
            capacity: Capacity::of(spec),
            deadline,
            restarts,
            containers: containers(spec, status, &self.policies),
            ..self
        }
    }

    /// What is behind it, if it is a record.
    pub(super) fn record(&self) -> Option<&Record> {
        match &self.nature {
            Nature::Record(record) => Some(record),
            Nature::Pod | Nature::Part => None,
        }
    }

    /// Takes over what an earlier view of the same pod knew and the object does not say.
    pub(super) fn inherit(&mut self, earlier: &Self, now: Timestamp) {
        if self.uid != earlier.uid {
            return;
        }
        if events::matter(self) {
            self.events.clone_from(&earlier.events);
        }
        let was_let_go = !earlier.gates.is_empty() && self.gates.is_empty();
        self.queued_until = earlier.queued_until.or(was_let_go.then_some(now)).or(self.queued_until);
    }

    /// From when on a start deadline counts.
    pub(super) fn start_counts_from(&self) -> Option<Timestamp> {
        // A job is not late while it waits in its queue.
        self.queued_until.or(self.created.filter(|_| self.record().is_none()))
    }

    /// The container with that name.
    pub(super) fn container(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The containers whose end decides.
    pub(super) fn deciding(&self) -> impl Iterator<Item = &ContainerView> {
        self.containers.iter().filter(|container| container.role == ContainerRole::Deciding)
    }

    /// It comes after that member in the same group.
    pub(super) fn is_later(&self, than: &Membership) -> bool {
        self.membership.as_ref().is_some_and(|own| own.group == than.group && own.generation > than.generation)
    }

    /// The cluster will change nothing any more.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed) || self.presence == Presence::Gone
    }
}

fn membership(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Result<Option<Membership>, &'static str> {
    let Some(group) = labels.get(GROUP_LABEL) else { return Ok(None) };
    let generation =
        labels.get(GENERATION_LABEL).and_then(|n| n.parse().ok()).ok_or("the generation's label is damaged")?;
    Ok(Some(Membership {
        group: group.clone(),
        generation,
        claims: annotations.get(CLAIMS).map(|text| text.parse()).transpose()?.unwrap_or_default(),
        superseded: read_time(annotations.get(SUPERSEDED)),
    }))
}

fn phase(status: &PodStatus) -> Phase {
    match status.phase.as_deref() {
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        Some("Unknown") => Phase::Unknown,
        _ => Phase::Pending,
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
