//! A job of AWS Batch as a caller asks for it. Which queue it may go to, and what AWS Batch cannot be told, is its backend's business.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use podbroker_proto::v1 as wire;
use serde_json::{Map, Value};

use super::time::optional_duration;
use crate::error::Error;
use crate::execution::{BatchWork, EvaluateOnExit};

/// The limits of AWS Batch.
const ARRAY: RangeInclusive<u32> = 2..=10_000;
const ATTEMPTS: RangeInclusive<u32> = 1..=10;
const PRIORITY: RangeInclusive<u32> = 1..=9_999;
const TIMEOUT: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_secs(2_147_483_647);
const MAX_DEPENDENCIES: usize = 20;
/// 50, without those of the broker.
const MAX_TAGS: usize = 48;
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;
const MAX_CONDITIONS: usize = 5;
const MAX_PATTERN: usize = 512;
/// Longer than so many conditions can be.
const MAX_CONDITION_BYTES: usize = 32 << 10;
/// Longer than any name or ARN.
const MAX_NAME: usize = 256;

/// The job, checked as far as one can without the target.
pub(super) fn batch(work: wire::BatchWorkload, max_bytes: usize) -> Result<BatchWork, Error> {
    let wire::BatchWorkload {
        job_definition,
        job_queue,
        parameters,
        eks_properties_override_json,
        array_size,
        depends_on_job_ids,
        share_identifier,
        scheduling_priority,
        attempts,
        attempt_timeout,
        tags,
        evaluate_on_exit_json,
    } = work;
    resource("workload.batch.job_definition", &job_definition)?;
    if !job_queue.is_empty() {
        resource("workload.batch.job_queue", &job_queue)?;
    }
    dependencies(&depends_on_job_ids)?;
    if !share_identifier.is_empty() {
        resource("workload.batch.share_identifier", &share_identifier)?;
    }
    let attempt_timeout = optional_duration("workload.batch.attempt_timeout", attempt_timeout)?;
    if attempt_timeout.is_some_and(|timeout| !TIMEOUT.contains(&timeout)) {
        return Err(Error::invalid_request("workload.batch.attempt_timeout", "must be at least 60 s"));
    }
    if parameters.contains_key("") {
        return Err(Error::invalid_request("workload.batch.parameters", "a parameter needs a name"));
    }
    Ok(BatchWork {
        job_definition,
        job_queue: some(job_queue),
        parameters: parameters.into_iter().collect(),
        eks_properties_override: overrides(&eks_properties_override_json, max_bytes)?,
        array_size: number("workload.batch.array_size", array_size, ARRAY)?,
        depends_on: depends_on_job_ids,
        share_identifier: some(share_identifier),
        scheduling_priority: number("workload.batch.scheduling_priority", scheduling_priority, PRIORITY)?
            .and_then(|priority| i32::try_from(priority).ok()),
        evaluate_on_exit: conditions(&evaluate_on_exit_json, attempts)?,
        attempts: number("workload.batch.attempts", attempts, ATTEMPTS)?,
        attempt_timeout,
        tags: checked_tags(tags)?,
    })
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A number where 0 means that nothing was said.
fn number(field: &'static str, value: i32, range: RangeInclusive<u32>) -> Result<Option<u32>, Error> {
    match u32::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) if range.contains(&value) => Ok(Some(value)),
        _ => Err(Error::invalid_request(field, format!("must be {} to {}", range.start(), range.end()))),
    }
}

/// A name of AWS Batch, with or without a revision, or an ARN.
fn resource(field: &'static str, text: &str) -> Result<(), Error> {
    let is_name = text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_:/.".contains(&c));
    if text.is_empty() || text.len() > MAX_NAME || !is_name {
        return Err(Error::invalid_request(field, "must be a name of AWS Batch or an ARN"));
    }
    Ok(())
}

fn dependencies(ids: &[String]) -> Result<(), Error> {
    const FIELD: &str = "workload.batch.depends_on_job_ids";
    if ids.len() > MAX_DEPENDENCIES {
        return Err(Error::invalid_request(FIELD, format!("at most {MAX_DEPENDENCIES}")));
    }
    ids.iter().try_for_each(|id| resource(FIELD, id))
}

fn overrides(json: &[u8], max_bytes: usize) -> Result<Map<String, Value>, Error> {
    const FIELD: &str = "eksPropertiesOverride";
    if json.is_empty() {
        return Ok(Map::new());
    }
    if json.len() > max_bytes {
        let why = format!("it has {} bytes; at most {max_bytes} are possible", json.len());
        return Err(Error::invalid_spec(FIELD, why));
    }
    serde_json::from_slice(json)
        .map_err(|error| Error::invalid_spec(FIELD, format!("it must be a JSON object: {error}")))
}

/// When another attempt is made.
fn conditions(json: &[u8], attempts: i32) -> Result<Vec<EvaluateOnExit>, Error> {
    let refuse = |why: String| Err(Error::invalid_request("workload.batch.evaluate_on_exit_json", why));
    if json.is_empty() {
        return Ok(Vec::new());
    }
    if attempts == 0 {
        return refuse("needs `attempts`, which says how many there may be".to_owned());
    }
    if json.len() > MAX_CONDITION_BYTES {
        return refuse(format!("at most {MAX_CONDITION_BYTES} bytes"));
    }
    let conditions: Vec<EvaluateOnExit> = match serde_json::from_slice(json) {
        Ok(conditions) => conditions,
        Err(error) => return refuse(format!("must be a JSON list as AWS Batch has it: {error}")),
    };
    if conditions.len() > MAX_CONDITIONS {
        return refuse(format!("at most {MAX_CONDITIONS} conditions"));
    }
    for condition in &conditions {
        let EvaluateOnExit { on_status_reason, on_reason, on_exit_code, action } = condition;
        if !["RETRY", "EXIT"].contains(&action.to_ascii_uppercase().as_str()) {
            return refuse("`action` must be RETRY or EXIT".to_owned());
        }
        let mut patterns = [on_status_reason, on_reason, on_exit_code].into_iter().flatten().peekable();
        if patterns.peek().is_none() {
            return refuse("a condition needs one of onStatusReason, onReason and onExitCode".to_owned());
        }
        if patterns.any(|pattern| pattern.is_empty() || pattern.chars().count() > MAX_PATTERN) {
            return refuse(format!("a pattern has 1 to {MAX_PATTERN} characters"));
        }
    }
    Ok(conditions)
}

fn checked_tags(tags: HashMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    let refuse = |why: String| Err(Error::invalid_request("workload.batch.tags", why));
    if tags.len() > MAX_TAGS {
        return refuse(format!("at most {MAX_TAGS}, not {}", tags.len()));
    }
    for (key, value) in &tags {
        let shown: String = key.chars().take(80).collect();
        if key.is_empty() || key.chars().count() > MAX_TAG_KEY || value.chars().count() > MAX_TAG_VALUE {
            return refuse(format!(
                "{shown:?}: a key has 1 to {MAX_TAG_KEY} characters, a value at most {MAX_TAG_VALUE}"
            ));
        }
        if key.starts_with("podbroker.io/") || key.to_lowercase().starts_with("aws:") {
            return refuse(format!("{shown:?}: keys under podbroker.io/ and aws: belong to others"));
        }
    }
    Ok(tags.into_iter().collect())
}
