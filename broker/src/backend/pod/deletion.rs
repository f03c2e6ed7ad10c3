//! Whether a deletion came before or after the end of a pod's containers.

use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

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
