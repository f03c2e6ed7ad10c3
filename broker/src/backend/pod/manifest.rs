//! From a request to the object that is created: a pure function.
//!
//! The caller's manifest stays as it is, untyped, apart from what the contract says the broker sets. What the API server
//! checks anyway is left to it; what would break a promise of ours is refused here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::carrier::{Carrier, Carriers};
use super::names::{
    ATTEMPT_LABEL, CANCEL, CLAIMS, DECIDED, DIGEST, DOUBT, EXECUTION_LABEL, FINALIZER, ID, INSTANCE_LABEL, JOB, LABELS,
    MANIFEST, OUTCOME, POLICIES, PREFIX, REFUSED, RELEASED, RESULT_NAME, STOP, SUBMIT_BEFORE, SUBMITTED_BY, SUBMITTING,
    SUPERSEDED, TARGET_LABEL, TENANT_LABEL, WAITS, WISHED_NAME,
};
use super::result;
use super::view::View;
use super::{Finalizer, PodSettings, packing, record};
use crate::error::Error;
use crate::execution::{Address, Policies, PolicyRequest, ResultSource, Submit, SubmitMode, Workload};

/// What the API server allows all annotations of an object to be together.
const ANNOTATION_LIMIT: usize = 256 << 10;

/// Metadata that only the API server may write.
pub(super) const SERVER_SET: [&str; 8] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
    "generation",
];

/// The carrier of an attempt.
pub(super) fn build(
    settings: &PodSettings,
    address: &Address,
    attempt: u32,
    submit: &Submit,
    policies: &Policies,
    digest: &str,
) -> Result<Value, Error> {
    if policies.infra_retry.is_some() && settings.finalizer == Finalizer::Off {
        let why = "needs the end of each attempt, and the target does not keep it (finalizer = false)";
        return Err(Error::invalid_request("policies.infra_retry", why));
    }
    let (mut pod, wished_name) = match (settings.carriers(), &submit.workload) {
        (Carriers::Records, workload) => record::object(settings, workload, policies)?,
        (Carriers::Pods, Workload::Pod(manifest)) => pod(settings, manifest, policies)?,
        (Carriers::Pods, Workload::Batch(_)) => {
            let why = format!("the target {} runs pods; a job needs a target with a job queue", settings.target);
            return Err(Error::invalid_request("workload.batch", why));
        }
        (Carriers::Pods, Workload::Job(_)) => {
            let why =
                format!("the target {} runs pods; a Job needs a target with executions = \"jobs\"", settings.target);
            return Err(Error::invalid_request("workload.job", why));
        }
    };
    let metadata = object(&mut pod, "metadata", "metadata")?;
    metadata.insert("name".to_owned(), json!(address.pod_name(attempt)));
    let labels = object(metadata, "labels", "metadata.labels")?;
    for (key, value) in [
        (INSTANCE_LABEL, address.instance.as_str()),
        (TARGET_LABEL, address.target.as_str()),
        (TENANT_LABEL, address.tenant.as_str()),
        (EXECUTION_LABEL, &address.hash()),
        (ATTEMPT_LABEL, &attempt.to_string()),
    ] {
        labels.insert(key.to_owned(), json!(value));
    }
    let annotations = object(metadata, "annotations", "metadata.annotations")?;
    let mut annotate = |key: &str, value: String| annotations.insert(key.to_owned(), Value::String(value));
    annotate(ID, address.id.to_string());
    annotate(SUBMITTED_BY, submit.subject.clone());
    annotate(SUBMIT_BEFORE, submit.submit_before.to_string());
    annotate(DIGEST, digest.to_owned());
    annotate(POLICIES, to_json(policies)?);
    annotate(LABELS, to_json(&submit.labels)?);
    annotate(MANIFEST, packing::pack(&submit.workload)?);
    if let Some(name) = wished_name {
        annotate(WISHED_NAME, name);
    }
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > ANNOTATION_LIMIT {
        let why = format!(
            "the annotations, with the packed manifest that the broker keeps among them, take {size} bytes; \
             Kubernetes allows {ANNOTATION_LIMIT}"
        );
        return Err(Error::invalid_spec("metadata.annotations", why));
    }
    if settings.finalizer == Finalizer::Keep {
        array(metadata, "finalizers", "metadata.finalizers")?.push(json!(FINALIZER));
    }
    Ok(Value::Object(pod))
}

/// The carrier of a later attempt, from that of the first; the error is for a person. What the broker wrote about the execution
/// goes along, and what it wrote about the attempt does not; neither does the packed manifest, which the first one keeps.
pub(super) fn build_next(
    settings: &PodSettings,
    address: &Address,
    (number, name): (u32, &str),
    first: &Carrier,
) -> Result<Value, String> {
    let view = View::of(first)?;
    let none = BTreeMap::new();
    let annotations = first.metadata.annotations.as_ref().unwrap_or(&none);
    let submit = Submit {
        id: view.id,
        submit_before: view.submit_before,
        workload: workload(first)?,
        labels: view.labels,
        policies: PolicyRequest::default(),
        group: None,
        mode: SubmitMode::Create,
        subject: annotations.get(SUBMITTED_BY).cloned().unwrap_or_default(),
    };
    let built = build(settings, address, number, &submit, &view.policies, &view.digest);
    let mut pod = built.map_err(|error| error.to_string())?;
    pod["metadata"]["name"] = json!(name);
    let ours = |map: &BTreeMap<String, String>| {
        let ours = map.iter().filter(|(key, _)| key.starts_with(PREFIX) && !OF_ONE_ATTEMPT.contains(&key.as_str()));
        ours.map(|(key, value)| (key.clone(), json!(value))).collect::<Vec<_>>()
    };
    let labels = first.metadata.labels.as_ref().unwrap_or(&none);
    for (field, from) in [("labels", labels), ("annotations", annotations)] {
        if let Some(into) = pod["metadata"][field].as_object_mut() {
            into.remove(MANIFEST);
            into.extend(ours(from));
        }
    }
    Ok(pod)
}

/// What the first attempt keeps of what is to be run.
pub(super) fn workload(first: &Carrier) -> Result<Workload, &'static str> {
    let annotations = first.metadata.annotations.as_ref();
    let packed = annotations.and_then(|annotations| annotations.get(MANIFEST));
    packing::unpack(packed.ok_or("the first attempt's manifest is missing")?)
        .ok_or("the first attempt's manifest is damaged")
}

/// Labels and annotations that a later attempt does not take from the first.
const OF_ONE_ATTEMPT: [&str; 14] = [
    ATTEMPT_LABEL,
    MANIFEST,
    CANCEL,
    STOP,
    WAITS,
    REFUSED,
    DECIDED,
    RELEASED,
    CLAIMS,
    SUPERSEDED,
    SUBMITTING,
    JOB,
    DOUBT,
    OUTCOME,
];

fn to_json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::bug(format!("cannot write JSON: {error}")))
}

/// The caller's pod, as it is created but for what the broker writes into its metadata, and the name that was asked for.
fn pod(
    settings: &PodSettings,
    manifest: &Map<String, Value>,
    policies: &Policies,
) -> Result<(Map<String, Value>, Option<String>), Error> {
    let mut pod = manifest.clone();
    fixed(&mut pod, "apiVersion", "v1")?;
    fixed(&mut pod, "kind", "Pod")?;
    if pod.remove("status").is_some_and(|status| !status.is_null()) {
        return Err(Error::invalid_spec("status", "is written by the cluster; leave it out"));
    }
    let wished_name = metadata(settings, &mut pod)?;
    spec(settings, &mut pod, policies)?;
    Ok((pod, wished_name))
}

/// A field that may be missing but may not be something else.
fn fixed(pod: &mut Map<String, Value>, field: &str, expected: &str) -> Result<(), Error> {
    match pod.get(field) {
        None | Some(Value::Null) => {}
        Some(Value::String(value)) if value == expected => {}
        Some(other) => return Err(Error::invalid_spec(field, format!("must be {expected:?}, not {}", short(other)))),
    }
    pod.insert(field.to_owned(), json!(expected));
    Ok(())
}

/// Checks the caller's metadata and takes away what is replaced. Returns the name that was asked for.
fn metadata(settings: &PodSettings, pod: &mut Map<String, Value>) -> Result<Option<String>, Error> {
    let metadata = object(pod, "metadata", "metadata")?;
    for field in SERVER_SET {
        if metadata.remove(field).is_some_and(|value| !value.is_null()) {
            return Err(Error::invalid_spec(format!("metadata.{field}"), "is written by the cluster; leave it out"));
        }
    }
    match metadata.remove("namespace") {
        None | Some(Value::Null) => {}
        Some(Value::String(namespace)) if namespace.is_empty() || namespace == settings.namespace => {}
        Some(other) => {
            let (target, namespace) = (&settings.target, &settings.namespace);
            let why = format!("the target {target} runs pods in {namespace:?}, not in {}", short(&other));
            return Err(Error::invalid_spec("metadata.namespace", why));
        }
    }
    metadata.insert("namespace".to_owned(), json!(settings.namespace));
    for field in ["labels", "annotations"] {
        let path = format!("metadata.{field}");
        let reserved = object(metadata, field, &path)?.keys().find(|key| key.starts_with(PREFIX)).cloned();
        if let Some(key) = reserved {
            return Err(Error::invalid_spec(format!("{path}[{key}]"), "belongs to podbroker; leave it out"));
        }
    }
    let wishes = [metadata.remove("name"), metadata.remove("generateName")];
    Ok(wishes.into_iter().flatten().find_map(|wish| wish.as_str().map(|name| name.chars().take(253).collect())))
}

fn spec(settings: &PodSettings, pod: &mut Map<String, Value>, policies: &Policies) -> Result<(), Error> {
    let Some(Value::Object(spec)) = pod.get_mut("spec") else {
        return Err(Error::invalid_spec("spec", "is required and must be an object"));
    };
    match spec.get("restartPolicy") {
        None | Some(Value::Null) => {
            spec.insert("restartPolicy".to_owned(), json!("Never"));
        }
        Some(Value::String(policy)) if policy == "Always" => {
            let why = "a pod that always restarts never ends; use Never or OnFailure";
            return Err(Error::invalid_spec("spec.restartPolicy", why));
        }
        Some(_) => {}
    }
    let names: Vec<String> = array(spec, "containers", "spec.containers")?
        .iter()
        .filter_map(|container| container.get("name")?.as_str().map(str::to_owned))
        .collect();
    if names.is_empty() {
        return Err(Error::invalid_spec("spec.containers", "needs at least one container with a name"));
    }
    if let Some(unknown) = policies.deciding_containers.iter().find(|name| !names.contains(name)) {
        let why = format!("{unknown:?} is none of the manifest's containers: {}", names.join(", "));
        return Err(Error::invalid_request("policies.deciding_containers", why));
    }
    if let Some(deadline) = policies.run_deadline {
        // The shorter of two deadlines is the one that is kept anyway.
        let seconds = deadline.as_secs() + u64::from(deadline.subsec_nanos() > 0);
        let given = spec.get("activeDeadlineSeconds").and_then(Value::as_u64).unwrap_or(u64::MAX);
        spec.insert("activeDeadlineSeconds".to_owned(), json!(seconds.min(given)));
    }
    let deciding = if policies.deciding_containers.is_empty() { &names } else { &policies.deciding_containers };
    match policies.result {
        ResultSource::None => Ok(()),
        ResultSource::Sidecar => add_result_sidecar(settings, spec, deciding, policies.result_max_bytes),
        ResultSource::TerminationMessage => set_termination_message(spec, deciding),
    }
}

fn add_result_sidecar(
    settings: &PodSettings,
    spec: &mut Map<String, Value>,
    deciding: &[String],
    max_bytes: u32,
) -> Result<(), Error> {
    for (field, path) in
        [("containers", "spec.containers"), ("initContainers", "spec.initContainers"), ("volumes", "spec.volumes")]
    {
        if array(spec, field, path)?.iter().any(|item| item.get("name").and_then(Value::as_str) == Some(RESULT_NAME)) {
            return Err(Error::invalid_spec(path, format!("the name {RESULT_NAME} belongs to podbroker")));
        }
    }
    let mount = json!({ "name": RESULT_NAME, "mountPath": result::FOLDER });
    for container in array(spec, "containers", "spec.containers")? {
        if let Some(container) = container.as_object_mut()
            && container.get("name").and_then(Value::as_str).is_some_and(|name| deciding.iter().any(|d| d == name))
        {
            array(container, "volumeMounts", "spec.containers[].volumeMounts")?.push(mount.clone());
        }
    }
    array(spec, "volumes", "spec.volumes")?.push(json!({ "name": RESULT_NAME, "emptyDir": {} }));
    let sidecar = result::sidecar(&settings.result_image, max_bytes);
    // The last of the init containers: it runs beside the main containers only, and delays no other init container.
    array(spec, "initContainers", "spec.initContainers")?.push(sidecar);
    Ok(())
}

fn set_termination_message(spec: &mut Map<String, Value>, deciding: &[String]) -> Result<(), Error> {
    let [deciding] = deciding else {
        let why = "TERMINATION_MESSAGE needs exactly one deciding container; name it in policies.deciding_containers";
        return Err(Error::invalid_request("policies.result.source", why));
    };
    for container in array(spec, "containers", "spec.containers")? {
        if let Some(container) = container.as_object_mut()
            && container.get("name").and_then(Value::as_str) == Some(deciding)
        {
            container.insert("terminationMessagePath".to_owned(), json!(crate::execution::RESULT_PATH));
            container.insert("terminationMessagePolicy".to_owned(), json!("File"));
        }
    }
    Ok(())
}

/// The object at a field, made if it is missing.
fn object<'a>(
    parent: &'a mut Map<String, Value>,
    field: &str,
    path: &str,
) -> Result<&'a mut Map<String, Value>, Error> {
    let value = parent.entry(field.to_owned()).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut().ok_or_else(|| Error::invalid_spec(path, "must be an object"))
}

/// The array at a field, made if it is missing.
fn array<'a>(parent: &'a mut Map<String, Value>, field: &str, path: &str) -> Result<&'a mut Vec<Value>, Error> {
    let value = parent.entry(field.to_owned()).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().ok_or_else(|| Error::invalid_spec(path, "must be an array"))
}

/// A value for an error message; hostile ones are long.
pub(super) fn short(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

/// The caller's labels as `build` wrote them.
pub(super) fn read_labels(annotation: &str) -> Option<BTreeMap<String, String>> {
    serde_json::from_str(annotation).ok()
}

/// A moment as `build` wrote it.
pub(super) fn read_time(annotation: Option<&String>) -> Option<Timestamp> {
    annotation?.parse().ok()
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
