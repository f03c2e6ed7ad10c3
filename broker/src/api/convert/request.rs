//! Requests in our words.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use podbroker_proto::v1 as wire;
use wire::target_selector::Selector as WireSelector;
use wire::workload::Workload;

use super::RequestLimits;
use super::batch::batch;
use super::enums::{class, finish, group_action, known, result_source, state};
use super::label::{is_dns_label, labels};
use super::manifest::{manifest, of_job};
use super::time::{duration, optional_duration, timestamp};
use crate::auth::Caller;
use crate::backend::{Cancel, Filter, View};
use crate::error::Error;
use crate::execution::{
    self, ExecutionId, ExecutionName, Follow, Group, InfraRetryRequest, LogMode, PolicyRequest, Submit, SubmitMode,
    WatchOptions,
};
use crate::target::{Place, Selector};

/// For a caller that says no time: as long as an ordinary client tries.
const DEFAULT_SUBMIT_WINDOW: SignedDuration = SignedDuration::from_mins(10);
const MAX_SUBMIT_WINDOW: SignedDuration = SignedDuration::from_hours(24);
const MAX_CLAIM_BYTES: usize = 256;
const MAX_REASON_BYTES: usize = 1024;
const MAX_GRACE: Duration = Duration::from_hours(1);
const DEFAULT_PAGE: i32 = 100;
const MAX_PAGE: i32 = 1000;
/// The feature without which no target runs jobs of AWS Batch.
const BATCH: &str = "batch";
/// The feature without which no target runs Jobs of its cluster.
const JOB: &str = "job";
/// More than any pod has.
const MAX_CONTAINERS: usize = 256;

/// Which target a request means.
pub(in crate::api) fn selector(selector: Option<wire::TargetSelector>) -> Result<Selector, Error> {
    match selector.and_then(|selector| selector.selector) {
        None => Err(Error::invalid_request("target", "a name or a place is needed")),
        Some(WireSelector::Name(name)) => {
            Ok(Selector::Name(name.parse().map_err(|error| Error::invalid_id("target.name", &error))?))
        }
        Some(WireSelector::Place(wire::TargetPlace { cluster, region, role_arn, namespace })) => {
            Ok(Selector::Place(Place { cluster, region, role_arn, namespace }))
        }
    }
}

/// Which execution a request means.
pub(in crate::api) fn name(name: &str) -> Result<ExecutionName, Error> {
    name.parse().map_err(|error| Error::invalid_id("name", &error))
}

/// What is to be run.
pub(in crate::api) fn submit(
    request: wire::SubmitExecutionRequest,
    caller: &Caller,
    limits: RequestLimits,
    features: &[&str],
    now: Timestamp,
) -> Result<Submit, Error> {
    supported(&request, features)?;
    let mode = match (request.validate_only, request.must_exist) {
        (false, false) => SubmitMode::Create,
        (false, true) => SubmitMode::MustExist,
        (true, false) => SubmitMode::ValidateOnly,
        (true, true) => return Err(Error::invalid_request("must_exist", "cannot be combined with validate_only")),
    };
    let workload = match request.workload.and_then(|workload| workload.workload) {
        Some(Workload::Pod(wire::PodWorkload { manifest: Some(pod) })) => {
            execution::Workload::Pod(manifest(pod, limits.max_manifest_bytes)?)
        }
        Some(Workload::Batch(work)) => execution::Workload::Batch(Box::new(batch(work, limits.max_manifest_bytes)?)),
        Some(Workload::Job(wire::JobWorkload { manifest: Some(job) })) => {
            execution::Workload::Job(of_job(job, limits.max_manifest_bytes)?)
        }
        Some(
            Workload::Pod(wire::PodWorkload { manifest: None }) | Workload::Job(wire::JobWorkload { manifest: None }),
        )
        | None => {
            return Err(Error::invalid_request("workload", "a pod's manifest or a job is needed"));
        }
    };
    Ok(Submit {
        id: request.execution_id.parse().map_err(|error| Error::invalid_id("execution_id", &error))?,
        submit_before: submit_before(request.submit_before, now)?,
        workload,
        labels: labels(request.labels)?,
        policies: policies(request.policies.unwrap_or_default())?,
        group: request.group.as_ref().map(group).transpose()?,
        mode,
        subject: caller.subject.clone(),
    })
}

/// Refuses what this version does not have. To ignore it would be to run something else than was asked for.
fn supported(request: &wire::SubmitExecutionRequest, features: &[&str]) -> Result<(), Error> {
    let has = |feature: &str| crate::api::FEATURES.contains(&feature) || features.contains(&feature);
    if let Some(feature) = request.required_features.iter().find(|feature| !has(feature)) {
        return Err(unsupported(&feature.chars().take(64).collect::<String>()));
    }
    let needed = match request.workload.as_ref().and_then(|workload| workload.workload.as_ref()) {
        Some(Workload::Batch(_)) => Some(BATCH),
        Some(Workload::Job(_)) => Some(JOB),
        Some(Workload::Pod(_)) | None => None,
    };
    needed.filter(|feature| !has(feature)).map_or(Ok(()), |feature| Err(unsupported(feature)))
}

fn unsupported(feature: &str) -> Error {
    Error::Unsupported { feature: feature.to_owned() }
}

/// Whether the moment has passed is found out by the backend, which knows the cluster's clock.
fn submit_before(value: Option<prost_types::Timestamp>, now: Timestamp) -> Result<Timestamp, Error> {
    const FIELD: &str = "submit_before";
    let Some(moment) = timestamp(FIELD, value)? else {
        return now.checked_add(DEFAULT_SUBMIT_WINDOW).map_err(|error| Error::bug(error.to_string()));
    };
    if moment.duration_since(now) > MAX_SUBMIT_WINDOW {
        return Err(Error::invalid_request(FIELD, "must be at most 24 hours ahead"));
    }
    Ok(moment)
}

fn group(group: &wire::Group) -> Result<Group, Error> {
    Ok(Group {
        id: group.group_id.parse().map_err(|error| Error::invalid_id("group.group_id", &error))?,
        action: group_action("group.action", group.action)?,
        not_before: timestamp("group.not_before", group.not_before)?,
    })
}

/// Ranges are checked where the target's defaults are known.
fn policies(policies: wire::Policies) -> Result<PolicyRequest, Error> {
    let deadlines = policies.deadlines.unwrap_or_default();
    let end = policies.finish.unwrap_or_default();
    let result = policies.result.unwrap_or_default();
    containers("policies.deciding_containers", &policies.deciding_containers)?;
    Ok(PolicyRequest {
        start_deadline: optional_duration("policies.deadlines.start", deadlines.start)?,
        run_deadline: optional_duration("policies.deadlines.run", deadlines.run)?,
        finish: finish("policies.finish.action", end.action)?,
        ttl: optional_duration("policies.finish.ttl", end.ttl)?,
        result: result_source("policies.result.source", result.source)?,
        result_max_bytes: number("policies.result.max_bytes", result.max_bytes)?,
        deciding_containers: policies.deciding_containers,
        drain_deadline: optional_duration("policies.drain_deadline", policies.drain_deadline)?,
        infra_retry: policies.infra_retry.map(infra_retry).transpose()?,
        orphan_after: policies.orphan.map(orphan_after).transpose()?,
    })
}

/// A policy that says no time would be none at all.
fn orphan_after(policy: wire::OrphanPolicy) -> Result<Duration, Error> {
    const FIELD: &str = "policies.orphan.cancel_after";
    optional_duration(FIELD, policy.cancel_after)?.ok_or_else(|| Error::invalid_request(FIELD, "must be set"))
}

fn infra_retry(policy: wire::InfraRetryPolicy) -> Result<InfraRetryRequest, Error> {
    let classes = policy.failure_classes.into_iter();
    Ok(InfraRetryRequest {
        classes: classes
            .map(|number| class("policies.infra_retry.failure_classes", number))
            .collect::<Result<_, _>>()?,
        max_attempts: number("policies.infra_retry.max_attempts", policy.max_attempts)?,
        max_free_attempts: number("policies.infra_retry.max_free_attempts", policy.max_free_attempts)?,
        backoff: optional_duration("policies.infra_retry.backoff", policy.backoff)?,
    })
}

/// A number where zero means that nothing was said.
fn number<T, N>(field: &'static str, value: N) -> Result<Option<T>, Error>
where
    T: TryFrom<N> + Default + PartialEq,
{
    let value = T::try_from(value).map_err(|_| Error::invalid_request(field, "must not be negative"))?;
    Ok((value != T::default()).then_some(value))
}

fn containers(field: &'static str, names: &[String]) -> Result<(), Error> {
    if names.len() > MAX_CONTAINERS {
        return Err(Error::invalid_request(field, format!("at most {MAX_CONTAINERS}")));
    }
    match names.iter().find(|name| !is_dns_label(name)) {
        Some(name) => {
            let name: String = name.chars().take(64).collect();
            Err(Error::invalid_request(field, format!("{name:?} is not a container's name")))
        }
        None => Ok(()),
    }
}

/// What is to be followed, from where, and how much of it.
pub(in crate::api) fn watch(
    request: wire::WatchExecutionRequest,
) -> Result<(ExecutionName, Vec<u8>, WatchOptions), Error> {
    let options = request.options.unwrap_or_default();
    containers("options.containers", &options.containers)?;
    let options = WatchOptions {
        logs: match known("options.logs", options.logs)? {
            wire::LogMode::Unspecified | wire::LogMode::Lines => LogMode::Lines,
            wire::LogMode::None => LogMode::None,
        },
        containers: options.containers,
        tail_lines: number("options.tail_lines", options.tail_lines)?,
        since: timestamp("options.since", options.since)?,
        follow: if options.no_follow { Follow::SoFar } else { Follow::UntilTheEnd },
        max_log_bytes: number("options.max_log_bytes", options.max_log_bytes)?,
    };
    Ok((name(&request.name)?, request.cursor, options))
}

/// How much is to be read.
pub(in crate::api) fn view(number: i32) -> Result<View, Error> {
    Ok(match known("view", number)? {
        wire::ExecutionView::Unspecified | wire::ExecutionView::Basic => View::Basic,
        wire::ExecutionView::Full => View::Full,
    })
}

/// Which executions are to be listed. The limit is one more than the page holds, to see whether there is another page.
pub(in crate::api) fn list(request: wire::ListExecutionsRequest) -> Result<(Selector, Filter), Error> {
    let page = match request.page_size {
        0 => DEFAULT_PAGE,
        size @ 1..=MAX_PAGE => size,
        _ => return Err(Error::invalid_request("page_size", format!("must be 0 to {MAX_PAGE}"))),
    };
    let limit = usize::try_from(page).map_err(|error| Error::bug(error.to_string()))? + 1;
    let states = request.states.into_iter().map(|number| state("states", number)).collect::<Result<_, _>>()?;
    let filter = Filter { labels: labels(request.labels)?, states, after: page_token(&request.page_token)?, limit };
    Ok((selector(request.target)?, filter))
}

fn page_token(token: &str) -> Result<Option<ExecutionId>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let decoded = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let id = decoded.and_then(|text| text.parse().ok());
    id.map(Some).ok_or_else(|| Error::invalid_request("page_token", "is not one of this broker's"))
}

/// The token of the page behind this id.
pub(in crate::api) fn next_page_token(last: &ExecutionId) -> String {
    URL_SAFE_NO_PAD.encode(last.as_str())
}

/// What is to be ended, and how.
pub(in crate::api) fn cancel(
    request: wire::CancelExecutionRequest,
    caller: &Caller,
) -> Result<(ExecutionName, Cancel), Error> {
    if request.reason.len() > MAX_REASON_BYTES {
        return Err(Error::invalid_request("reason", format!("at most {MAX_REASON_BYTES} bytes")));
    }
    let grace = duration("grace", request.grace)?;
    if grace.is_some_and(|grace| grace.subsec_nanos() != 0 || grace > MAX_GRACE) {
        return Err(Error::invalid_request("grace", "must be whole seconds, at most 3600"));
    }
    let cancel =
        Cancel { subject: caller.subject.clone(), reason: request.reason, claim: claim(request.claim)?, grace };
    Ok((name(&request.name)?, cancel))
}

/// What its caller is done with.
pub(in crate::api) fn release(
    request: wire::ReleaseExecutionRequest,
) -> Result<(ExecutionName, Option<String>), Error> {
    Ok((name(&request.name)?, claim(request.claim)?))
}

fn claim(claim: String) -> Result<Option<String>, Error> {
    if claim.len() > MAX_CLAIM_BYTES {
        return Err(Error::invalid_request("claim", format!("at most {MAX_CLAIM_BYTES} bytes")));
    }
    Ok((!claim.is_empty()).then_some(claim))
}
