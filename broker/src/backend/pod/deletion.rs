//! Whether a deletion came before or after the end of a pod's containers.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::view::{ContainerView, Presence, View};

/// What a deletion had to do with the end of the containers. The kubelet's last delete overwrites the time of the first one, so
/// time alone does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    /// There was none, or it is under way.
    Open,
    /// The kubelet's last word on the pod takes the deletion into account: it came before the end.
    BeforeTheEnd,
    /// The kubelet had said its last word before.
    AfterTheEnd,
    /// It is done, and the cluster is too old (before 1.34) to say more.
    Unknown,
}

impl Deletion {
    pub(super) fn of(metadata: &ObjectMeta, status: &PodStatus) -> Self {
        if metadata.deletion_timestamp.is_none() || metadata.deletion_grace_period_seconds != Some(0) {
            return Self::Open;
        }
        // A deletion counts up the generation, and a status names the generation that it is about.
        match (metadata.generation, status.observed_generation) {
            (Some(generation), Some(observed)) if observed >= generation => Self::BeforeTheEnd,
            (Some(_), Some(_)) => Self::AfterTheEnd,
            _ => Self::Unknown,
        }
    }
}

/// Whether it is not known yet what ended a program: it ended with 0 in the very second in which somebody else had the pod ended,
/// as one that catches the signal does, and the kubelet has not said its last word on the pod.
pub(super) fn is_in_doubt(view: &View, kill: Option<Timestamp>) -> bool {
    let by_others = view.cancel.is_none() && view.released.is_none() && view.delete_requested.is_some();
    let is_under_way = view.presence == Presence::Present && view.deletion == Deletion::Open;
    let Some(kill) = kill.filter(|_| by_others && is_under_way) else { return false };
    let mut ends = view.deciding().filter_map(ContainerView::termination);
    ends.any(|end| end.exit_code == 0 && end.ended.is_some_and(|ended| ended.as_second() == kill.as_second()))
}
