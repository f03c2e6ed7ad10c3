//! What of a namespace is listed and watched.

use super::names::{INSTANCE_LABEL, TARGET_LABEL};
use crate::execution::{InstanceId, TargetName};

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
    /// All pods of an installation's target.
    pub(super) fn of_pods(instance: &InstanceId, target: &TargetName) -> Self {
        let labels = format!("{INSTANCE_LABEL}={instance},{TARGET_LABEL}={target}");
        Self { resource: "pods", labels: Some(labels), fields: None }
    }

    /// Those of them that have this label too.
    pub(super) fn with_label(&self, label: &str, value: &str) -> Self {
        let labels = self.labels.as_deref().map(|labels| format!("{labels},")).unwrap_or_default();
        Self { labels: Some(format!("{labels}{label}={value}")), ..self.clone() }
    }
}
