//! `podbroker.target`.

use podbroker_client::proto;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{Class, fields, tuple};

const MODULE: &str = "podbroker.target";

/// The targets that the caller may use.
pub(crate) fn targets(py: Python<'_>, targets: Vec<proto::Target>) -> PyResult<Bound<'_, PyAny>> {
    tuple(py, targets, target).map(Bound::into_any)
}

/// One check, or None after the last.
pub(crate) fn check(py: Python<'_>, check: Option<proto::Check>) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "Check");
    static STATUS: Class = Class::new(MODULE, "CheckStatus");
    let Some(check) = check else { return Ok(py.None().into_bound(py)) };
    let status = proto::CheckStatus::try_from(check.status).ok();
    CLASS.make(&fields!(py,
        link: check.link,
        subject: check.subject,
        status: STATUS.member(py, status.map(|status| status.as_str_name()), "CHECK_STATUS_")?,
        detail: check.detail,
        fix: check.fix,
    ))
}

/// What a broker says about itself.
pub(crate) fn server_info(py: Python<'_>, info: proto::GetServerInfoResponse) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "ServerInfo");
    CLASS.make(&fields!(py,
        version: info.version,
        instance: info.instance,
        features: PyTuple::new(py, info.features)?,
        max_request_bytes: info.max_request_bytes,
        max_manifest_bytes: info.max_manifest_bytes,
        caller_subject: info.caller_subject,
        caller_tenant: info.caller_tenant,
    ))
}

fn target(py: Python<'_>, target: proto::Target) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "Target");
    static KIND: Class = Class::new(MODULE, "TargetKind");
    static HEALTH: Class = Class::new(MODULE, "TargetHealth");
    let kind = proto::TargetKind::try_from(target.kind).ok();
    let health = proto::TargetHealth::try_from(target.health).ok();
    CLASS.make(&fields!(py,
        name: target.name,
        kind: KIND.member(py, kind.map(|kind| kind.as_str_name()), "TARGET_KIND_")?,
        place: place(py, target.place.unwrap_or_default())?,
        health: HEALTH.member(py, health.map(|health| health.as_str_name()), "TARGET_HEALTH_")?,
        health_reason: target.health_reason,
    ))
}

fn place(py: Python<'_>, place: proto::TargetPlace) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: Class = Class::new(MODULE, "TargetPlace");
    CLASS.make(&fields!(py,
        cluster: place.cluster,
        region: place.region,
        role_arn: place.role_arn,
        namespace: place.namespace,
    ))
}
