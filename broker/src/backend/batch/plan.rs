//! From an attempt to the requests that make its job: a pure function.
//!
//! What is planned is JSON in the shapes of the API, so that a validation can show it, and `wire` sends exactly that.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Settings;
use super::fields::{Dialect, OVERRIDE, Taker};
use super::translate::{self, Translated};
use crate::backend::job::Work;
use crate::error::{Error, FieldViolation};
use crate::execution::{BatchWork, Policies, ResultSource, Workload, json_digest, sha256_hex};
use crate::identity::eks::Definitions;

/// On jobs and on definitions: the installation that made them. Policies of IAM may ask for it.
pub(super) const INSTANCE_TAG: &str = "podbroker.io/instance";
/// On jobs: the attempt in full.
pub(super) const KEY_TAG: &str = "podbroker.io/attempt";
/// On definitions: the digest of what they say.
pub(super) const DIGEST_TAG: &str = "podbroker.io/digest";

/// In bytes of JSON; the limits of AWS Batch.
const MAX_SUBMIT: usize = 30 << 10;
const MAX_DEFINITION: usize = 24 << 10;
/// AWS Batch takes no shorter timeout.
const SHORTEST_TIMEOUT: Duration = Duration::from_mins(1);
/// The limits of AWS Batch.
const MAX_NAME: usize = 128;
const MAX_TAGS: usize = 50;
const MAX_TAG_VALUE: usize = 256;

/// What is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// `SubmitJob`.
    pub(super) submit: Map<String, Value>,
    /// `RegisterJobDefinition`, which goes before it unless there is that definition.
    pub(super) definition: Option<Map<String, Value>>,
}

impl Plan {
    pub(super) fn to_json(&self) -> Value {
        let mut json = json!({ "SubmitJob": self.submit });
        if let Some(definition) = &self.definition {
            json["RegisterJobDefinition"] = json!(definition);
        }
        json
    }
}

/// The value of the key's tag. Tags hold 256 characters and not every one of them; what does not fit is told apart by its digest.
pub(super) fn key_tag(key: &str) -> String {
    let fits =
        key.len() <= MAX_TAG_VALUE && key.bytes().all(|c| c.is_ascii_alphanumeric() || b" _.:/=+-@".contains(&c));
    if fits { key.to_owned() } else { format!("sha256:{}", sha256_hex(key.as_bytes())) }
}

/// Plans an attempt's job; an error has every field that AWS Batch cannot take.
pub(super) fn plan(settings: &Settings, work: &Work<'_>) -> Result<Plan, Error> {
    let mut plan = match work.workload {
        Workload::Pod(manifest) => of_pod(settings, manifest, work.policies)?,
        Workload::Batch(batch) => of_batch(settings, batch, work.policies)?,
        Workload::Job(_) => {
            let why = format!(
                "the target {} runs jobs of AWS Batch; a Job needs one with executions = \"jobs\"",
                settings.target
            );
            return Err(Error::invalid_request("workload.job", why));
        }
    };
    let is_name = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if work.name.is_empty() || work.name.len() > MAX_NAME || !work.name.bytes().all(is_name) {
        return Err(Error::bug(format!("{:?} is no name for a job", work.name)));
    }
    plan.submit.insert("jobName".to_owned(), json!(work.name));
    for (key, value) in [(INSTANCE_TAG, settings.instance.to_string()), (KEY_TAG, key_tag(work.key))] {
        plan.submit.entry("tags").or_insert_with(|| json!({}))[key] = json!(value);
    }
    for (key, value) in work.labels {
        plan.submit["eksPropertiesOverride"]["podProperties"]["metadata"]["labels"][key] = json!(value);
    }
    let too_long = |what: &str, value: &Map<String, Value>, limit: usize| {
        let size = json!(value).to_string().len();
        let why = format!("the {what} has {size} bytes; AWS Batch takes {limit}");
        (size > limit).then(|| FieldViolation { field: String::new(), why })
    };
    let mut violations: Vec<_> = too_long("job", &plan.submit, MAX_SUBMIT).into_iter().collect();
    violations.extend(plan.definition.as_ref().and_then(|text| too_long("definition", text, MAX_DEFINITION)));
    if violations.is_empty() { Ok(plan) } else { Err(Error::InvalidSpec { violations }) }
}

fn of_pod(settings: &Settings, manifest: &Map<String, Value>, policies: &Policies) -> Result<Plan, Error> {
    if settings.definitions == Definitions::Given && settings.job_definition.is_none() {
        let why = format!("the target {} has no job definition for pods; use workload.batch", settings.target);
        return Err(Error::invalid_request("workload.pod", why));
    }
    let mut violations = refused_policies(policies, None);
    let unknown = policies.deciding_containers.iter().filter(|name| {
        let containers = manifest.get("spec").and_then(|spec| spec.get("containers")).and_then(Value::as_array);
        !containers.into_iter().flatten().any(|container| container.get("name").is_some_and(|other| other == *name))
    });
    violations.extend(unknown.map(|name| FieldViolation {
        field: "policies.deciding_containers".to_owned(),
        why: format!("{name:?} is none of the manifest's containers"),
    }));
    let Translated { at_submit, definition, deadline } =
        match translate::pod(manifest, &settings.namespace, settings.definitions) {
            Ok(translated) => translated,
            Err(more) => {
                timeout(&mut violations, policies, None, "");
                violations.extend(more);
                return Err(Error::InvalidSpec { violations });
            }
        };
    let deadline = deadline.map(Duration::from_secs);
    let timeout = timeout(&mut violations, policies, deadline, "spec.activeDeadlineSeconds");
    if !violations.is_empty() {
        return Err(Error::InvalidSpec { violations });
    }
    let definition = definition.map(|properties| definition_of(settings, &properties));
    let name =
        definition.as_ref().map_or_else(|| json!(settings.job_definition), |made| made["jobDefinitionName"].clone());
    let mut submit = Map::new();
    submit.insert("jobQueue".to_owned(), json!(settings.queue));
    submit.insert("jobDefinition".to_owned(), name);
    // Every attempt is an object of the broker's own, which retries by itself.
    submit.insert("retryStrategy".to_owned(), json!({ "attempts": 1 }));
    submit.extend(timeout);
    submit.insert("eksPropertiesOverride".to_owned(), json!({ "podProperties": at_submit }));
    Ok(Plan { submit, definition })
}

fn definition_of(settings: &Settings, properties: &Map<String, Value>) -> Map<String, Value> {
    let properties = json!({ "podProperties": properties });
    let digest = json_digest(&properties);
    let mut definition = Map::new();
    definition.insert("jobDefinitionName".to_owned(), json!(format!("podbroker-{}", &digest[..32])));
    definition.insert("type".to_owned(), json!("container"));
    definition.insert("eksProperties".to_owned(), properties);
    definition.insert("tags".to_owned(), json!({ INSTANCE_TAG: settings.instance.as_str(), DIGEST_TAG: digest }));
    definition
}

fn of_batch(settings: &Settings, work: &BatchWork, policies: &Policies) -> Result<Plan, Error> {
    let mut violations = refused_policies(policies, work.attempts);
    let queue = work.job_queue.as_deref().unwrap_or(&settings.queue);
    let Some(queue) = settings.queues().find(|known| same_queue(known, queue)) else {
        let known = settings.queues().collect::<Vec<_>>().join(", ");
        let why = format!("the target {} has no queue {queue}; it has {known}", settings.target);
        return Err(Error::invalid_request("workload.batch.job_queue", why));
    };
    if work.tags.len() + 2 > MAX_TAGS {
        let why = format!("at most {}: AWS Batch takes {MAX_TAGS}, and two are the broker's", MAX_TAGS - 2);
        violations.push(FieldViolation { field: "workload.batch.tags".to_owned(), why });
    }
    let timeout = timeout(&mut violations, policies, work.attempt_timeout, "workload.batch.attempt_timeout");
    let overrides = overrides(&mut violations, &work.eks_properties_override, &settings.namespace);
    if !violations.is_empty() {
        return Err(Error::InvalidSpec { violations });
    }
    let mut submit = Map::new();
    submit.insert("jobQueue".to_owned(), json!(queue));
    submit.insert("jobDefinition".to_owned(), json!(work.job_definition));
    submit.insert("eksPropertiesOverride".to_owned(), overrides);
    submit.extend(timeout);
    let mut add = |field: &str, value: Option<Value>| submit.extend(value.map(|value| (field.to_owned(), value)));
    add("parameters", (!work.parameters.is_empty()).then(|| json!(work.parameters)));
    add("arrayProperties", work.array_size.map(|size| json!({ "size": size })));
    let dependencies: Vec<_> = work.depends_on.iter().map(|id| json!({ "jobId": id })).collect();
    add("dependsOn", (!dependencies.is_empty()).then(|| json!(dependencies)));
    add("shareIdentifier", work.share_identifier.as_ref().map(|share| json!(share)));
    add("schedulingPriorityOverride", work.scheduling_priority.map(|priority| json!(priority)));
    // Two that retry would multiply: with the broker's own policy the definition's does not count.
    let attempts = work.attempts.or_else(|| policies.infra_retry.is_some().then_some(1));
    let mut retry = attempts.map(|attempts| json!({ "attempts": attempts }));
    if let Some(retry) = retry.as_mut().filter(|_| !work.evaluate_on_exit.is_empty()) {
        retry["evaluateOnExit"] = json!(work.evaluate_on_exit);
    }
    add("retryStrategy", retry);
    add("tags", (!work.tags.is_empty()).then(|| json!(work.tags)));
    Ok(Plan { submit, definition: None })
}

/// A queue may be called by its name or by its ARN.
fn same_queue(one: &str, other: &str) -> bool {
    let name = |queue: &str| queue.rsplit_once(":job-queue/").map_or(queue, |(_, name)| name).to_owned();
    let both_arns = one.starts_with("arn:") && other.starts_with("arn:");
    if both_arns { one == other } else { name(one) == name(other) }
}

fn overrides(violations: &mut Vec<FieldViolation>, given: &Map<String, Value>, namespace: &str) -> Value {
    let mut taker = Taker::new(Dialect::Batch);
    let mut overrides = taker.value(&OVERRIDE, &Value::Object(given.clone()), "eksPropertiesOverride");
    let properties = overrides.as_object_mut().map(|overrides| overrides.entry("podProperties").or_insert(json!({})));
    if let Some(properties) = properties.and_then(Value::as_object_mut) {
        const PATH: &str = "eksPropertiesOverride.podProperties";
        translate::check_containers(&mut taker, properties, PATH);
        let metadata = properties.entry("metadata").or_insert(json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            translate::check_metadata(&mut taker, metadata, namespace, &format!("{PATH}.metadata"));
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
    }
    violations.append(&mut taker.violations);
    overrides
}

/// What a policy asks for that jobs cannot have.
fn refused_policies(policies: &Policies, attempts: Option<u32>) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    let mut refuse = |field: &str, why: &str| {
        violations.push(FieldViolation { field: field.to_owned(), why: why.to_owned() });
    };
    if policies.result == ResultSource::Sidecar {
        let why = "a sidecar that waits keeps a job of AWS Batch from ending; use TERMINATION_MESSAGE";
        refuse("policies.result.source", why);
    }
    if policies.infra_retry.is_some() && attempts.is_some_and(|attempts| attempts > 1) {
        refuse("policies.infra_retry", "cannot be combined with attempts of AWS Batch: one of the two retries");
    }
    violations
}

/// The shortest of the times that a job may take, as the field of the request.
fn timeout(
    violations: &mut Vec<FieldViolation>,
    policies: &Policies,
    own: Option<Duration>,
    path: &str,
) -> Option<(String, Value)> {
    for (field, value) in [("policies.deadlines.run", policies.run_deadline), (path, own)] {
        if value.is_some_and(|value| value < SHORTEST_TIMEOUT) {
            violations.push(FieldViolation {
                field: field.to_owned(),
                why: format!("must be at least {} s: AWS Batch takes no shorter timeout", SHORTEST_TIMEOUT.as_secs()),
            });
        }
    }
    let shortest = [policies.run_deadline, own].into_iter().flatten().min()?;
    let seconds = shortest.as_secs() + u64::from(shortest.subsec_nanos() > 0);
    Some(("timeout".to_owned(), json!({ "attemptDurationSeconds": seconds })))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
