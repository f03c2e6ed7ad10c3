//! What a pod says of its node. The broker reads no nodes: its role ends at the namespace.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, PodCondition, PodSpec, PodStatus};

/// Who ended the pod from outside: its `DisruptionTarget` condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disruption {
    /// Such as `PreemptionByScheduler`.
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) since: Option<Timestamp>,
}

impl Disruption {
    pub(super) fn of(condition: &PodCondition) -> Self {
        Self {
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
            since: condition.last_transition_time.as_ref().map(|time| time.0),
        }
    }
}

/// Whether the node of a pod answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeContact {
    Held,
    /// Nothing was heard of it. What runs there may run on.
    Lost,
}

impl NodeContact {
    /// The node controller turns the readiness of the pod off and changes nothing else; the kubelet gives a reason when it
    /// does so.
    pub(super) fn of(status: &PodStatus) -> Self {
        let find = |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
        let is_silent = find("Ready").is_some_and(|ready| {
            let by_kubelet = ready.reason.as_ref().is_some_and(|reason| !reason.is_empty());
            ready.status == "Unknown" || (ready.status == "False" && !by_kubelet)
        });
        let were_ready = find("ContainersReady").is_some_and(|ready| ready.status == "True");
        if is_silent && were_ready { Self::Lost } else { Self::Held }
    }
}

/// On what kind of nodes a pod may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capacity {
    Any,
    /// Only on nodes that the provider may take back at any time.
    Spot,
}

/// How providers label such nodes.
const SPOT: [(&str, &str); 5] = [
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("karpenter.sh/capacity-type", "spot"),
    ("cloud.google.com/gke-spot", "true"),
    ("cloud.google.com/gke-preemptible", "true"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
];

impl Capacity {
    /// What the pod demands of its node. A toleration only says that it may be on such a one.
    pub(super) fn of(spec: &PodSpec) -> Self {
        let selected = spec.node_selector.iter().flatten().any(|(key, value)| SPOT.contains(&(key, value)));
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
        let is_spot = |wish: &NodeSelectorRequirement| {
            let values: Vec<_> = wish.values.iter().flatten().collect();
            wish.operator == "In" && !values.is_empty() && values.iter().all(|value| SPOT.contains(&(&wish.key, value)))
        };
        // One of the terms has to hold, so each of them must demand it.
        let demanded = required.is_some_and(|selector| {
            let terms = &selector.node_selector_terms;
            !terms.is_empty() && terms.iter().all(|term| term.match_expressions.iter().flatten().any(is_spot))
        });
        if selected || demanded { Self::Spot } else { Self::Any }
    }
}
