//! The wire's messages and our words, both ways. Whatever a request can get wrong is found here, with the name of the field;
//! what leaves here is valid.

mod batch;
mod enums;
mod event;
mod execution;
mod label;
mod manifest;
mod request;
mod time;

use podbroker_proto::v1 as wire;

use crate::backend::{Check, Health, Verdict};
use crate::target::Target;

pub(super) use event::{event, heartbeat};
pub(super) use execution::execution;
pub(super) use request::{cancel, list, name, next_page_token, release, selector, submit, view, watch};
pub(super) use time::wire_duration;

/// What a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// The largest message, in bytes; the transport keeps it.
    pub max_request_bytes: usize,
    /// The largest manifest, in bytes of JSON.
    pub max_manifest_bytes: usize,
}

/// A target as callers see it.
pub(super) fn target(target: &Target) -> wire::Target {
    let (health, health_reason) = match target.backend.health() {
        Health::Starting => (wire::TargetHealth::Starting, String::new()),
        Health::Serving => (wire::TargetHealth::Serving, String::new()),
        Health::Unreachable(reason) | Health::Refused(reason) => (wire::TargetHealth::Unreachable, reason),
    };
    wire::Target {
        name: target.name.to_string(),
        kind: enums::wire_kind(target.kind).into(),
        place: Some(wire::TargetPlace {
            cluster: target.place.cluster.clone(),
            region: target.place.region.clone(),
            role_arn: target.place.role_arn.clone(),
            namespace: target.place.namespace.clone(),
        }),
        health: health.into(),
        health_reason,
    }
}

/// One link of the chain.
pub(super) fn check(check: Check) -> wire::CheckTargetResponse {
    let (status, fix) = match check.verdict {
        Verdict::Passed => (wire::CheckStatus::Passed, String::new()),
        Verdict::Failed { fix } => (wire::CheckStatus::Failed, fix),
        Verdict::Warned { fix } => (wire::CheckStatus::Warning, fix),
        Verdict::Skipped => (wire::CheckStatus::Skipped, String::new()),
    };
    let Check { link, subject, detail, verdict: _ } = check;
    let check = wire::Check { link: link.to_owned(), subject, status: status.into(), detail, fix };
    wire::CheckTargetResponse { check: Some(check) }
}

/// Counts of the wire are signed; ours that do not fit are far beyond anything real.
fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
