//! The object that carries an attempt: on most targets the pod itself, on one that runs jobs a `ConfigMap`, the record.
//!
//! Both have the same names, labels, annotations and finalizer, so that everything that is said by those is the same for both.

use k8s_openapi::api::core::v1::{PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// What is read of a carrier.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Carrier {
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    /// A record has none.
    pub(super) spec: Option<PodSpec>,
    /// A record has none.
    pub(super) status: Option<PodStatus>,
}

/// What the carriers of a target are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carriers {
    Pods,
    Records,
}

impl Carriers {
    /// The resource in a path.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Pods => PODS,
            Self::Records => "configmaps",
        }
    }
}

/// The resource of pods, whatever carries them.
pub(super) const PODS: &str = "pods";
