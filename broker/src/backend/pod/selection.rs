//! What of a namespace is listed and watched.

use super::carrier::PODS;
use super::names::{INSTANCE_LABEL, JOB_LABEL, JOB_NAME, JOBS, TARGET_LABEL};
use super::{JobKind, PodSettings};

/// Which objects of the namespace a list or a watch is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    /// The resource in a path, such as `pods`.
    pub(super) resource: &'static str,
    /// A selector for labels.
    pub(super) labels: Option<String>,
    /// A selector for fields.
    pub(super) fields: Option<String>,
}

impl Selection {
    /// All carriers of an installation's target.
    pub(super) fn of_carriers(settings: &PodSettings) -> Self {
        let labels = format!("{INSTANCE_LABEL}={},{TARGET_LABEL}={}", settings.instance, settings.target);
        Self { resource: settings.carriers().resource(), labels: Some(labels), fields: None }
    }

    /// All pods that were made for the jobs of a target.
    pub(super) fn of_parts(settings: &PodSettings) -> Self {
        let made_by = match settings.records.as_ref().map(|records| records.kind) {
            Some(JobKind::Cluster) => JOB_NAME,
            Some(JobKind::Batch) | None => JOB_LABEL,
        };
        let labels = format!("{INSTANCE_LABEL}={},{TARGET_LABEL}={},{made_by}", settings.instance, settings.target);
        Self { resource: PODS, labels: Some(labels), fields: None }
    }

    /// All Jobs of the cluster that were made for records.
    pub(super) fn of_jobs(settings: &PodSettings) -> Self {
        let labels = format!("{INSTANCE_LABEL}={},{TARGET_LABEL}={}", settings.instance, settings.target);
        Self { resource: JOBS, labels: Some(labels), fields: None }
    }

    /// Those of them that have this label too.
    pub(super) fn with_label(&self, label: &str, value: &str) -> Self {
        let labels = self.labels.as_deref().map(|labels| format!("{labels},")).unwrap_or_default();
        Self { labels: Some(format!("{labels}{label}={value}")), ..self.clone() }
    }
}
