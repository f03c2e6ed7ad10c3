//! From a caller's Job to the one that is created: a pure function.
//!
//! As for a pod, the caller's manifest stays as it is apart from what the contract says the broker sets, and what the API server
//! checks anyway is left to it. What would break a promise of ours is refused here, all of it at once.

use serde_json::{Map, Value, json};

use super::super::PodSettings;
use super::super::manifest::{SERVER_SET, short};
use super::super::names::{INSTANCE_LABEL, KEY, PREFIX, TARGET_LABEL};
use crate::backend::job::Work;
use crate::error::{Error, FieldViolation};
use crate::execution::{RESULT_PATH, ResultSource, Workload};

/// The pods of an Indexed Job are named by it and their index, which must make a DNS label together: so much is left for both dashes,
/// an index and what the API server adds.
const LONGEST_NAME: usize = 50;

/// What `spec.managedBy` says of a Job that the cluster's own controller runs.
const OWN_CONTROLLER: &str = "kubernetes.io/job-controller";

/// The name of a record's Job: the end of the record's name, which tells executions and attempts apart.
pub(super) fn name(record: &str) -> &str {
    let cut = record.len().saturating_sub(LONGEST_NAME);
    record.get(cut..).unwrap_or(record).trim_start_matches('-')
}

/// The Job that is created for a record.
pub(super) fn build(settings: &PodSettings, work: &Work<'_>) -> Result<Value, Error> {
    let Workload::Job(manifest) = work.workload else {
        let why = format!("the target {} runs Jobs; this needs another target", settings.target);
        return Err(Error::invalid_request("workload", why));
    };
    let mut job = manifest.clone();
    let mut wrong = Wrong::default();
    wrong.fixed(&mut job, "apiVersion", "batch/v1");
    wrong.fixed(&mut job, "kind", "Job");
    wrong.absent(&mut job, "status", "status", "is written by the cluster; leave it out");
    if let Some(metadata) = wrong.object(&mut job, "metadata", "metadata") {
        own_metadata(settings, metadata, &mut wrong);
        metadata.remove("name");
        metadata.remove("generateName");
        metadata.insert("name".to_owned(), json!(name(work.name)));
        metadata.insert("namespace".to_owned(), json!(settings.namespace));
        label(metadata, work.labels, &mut wrong, "metadata");
        if let Some(annotations) = wrong.object(metadata, "annotations", "metadata.annotations") {
            annotations.insert(KEY.to_owned(), json!(work.key));
        }
        metadata.insert("ownerReferences".to_owned(), owner(work));
    }
    match job.get_mut("spec") {
        Some(Value::Object(spec)) => check_spec(spec, work, &mut wrong),
        _ => wrong.add("spec", "is required and must be an object"),
    }
    if wrong.0.is_empty() { Ok(Value::Object(job)) } else { Err(Error::InvalidSpec { violations: wrong.0 }) }
}

/// The record: the garbage collector takes the Job away when that goes.
fn owner(work: &Work<'_>) -> Value {
    let uid = work.key.rsplit('/').next().unwrap_or_default();
    json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": work.name, "uid": uid }])
}

fn own_metadata(settings: &PodSettings, metadata: &mut Map<String, Value>, wrong: &mut Wrong) {
    for field in SERVER_SET {
        wrong.absent(metadata, field, &format!("metadata.{field}"), "is written by the cluster; leave it out");
    }
    let why = "belongs to podbroker, which lets a Job go with its record; leave it out";
    wrong.absent(metadata, "ownerReferences", "metadata.ownerReferences", why);
    match metadata.remove("namespace") {
        None | Some(Value::Null) => {}
        Some(Value::String(namespace)) if namespace.is_empty() || namespace == settings.namespace => {}
        Some(other) => {
            let (target, namespace) = (&settings.target, &settings.namespace);
            let why = format!("the target {target} runs Jobs in {namespace:?}, not in {}", short(&other));
            wrong.add("metadata.namespace", why);
        }
    }
    reserved(metadata, "metadata", wrong);
}

/// Labels and annotations of ours that somebody else writes.
fn reserved(metadata: &mut Map<String, Value>, path: &str, wrong: &mut Wrong) {
    for field in ["labels", "annotations"] {
        let path = format!("{path}.{field}");
        let Some(all) = wrong.object(metadata, field, &path) else { continue };
        for key in all.keys().filter(|key| key.starts_with(PREFIX)) {
            wrong.add(format!("{path}[{key}]"), "belongs to podbroker; leave it out");
        }
    }
}

fn label(metadata: &mut Map<String, Value>, ours: &[(String, String)], wrong: &mut Wrong, path: &str) {
    if let Some(labels) = wrong.object(metadata, "labels", &format!("{path}.labels")) {
        labels.extend(ours.iter().map(|(key, value)| (key.clone(), json!(value))));
    }
}

fn check_spec(spec: &mut Map<String, Value>, work: &Work<'_>, wrong: &mut Wrong) {
    let policies = work.policies;
    wrong.absent(spec, "selector", "spec.selector", "is made by the cluster; leave it out");
    if spec.get("manualSelector") == Some(&json!(true)) {
        wrong.add("spec.manualSelector", "would let the Job count pods that are not its own; leave it out");
    }
    if let Some(by) = spec.get("managedBy").filter(|by| !by.is_null() && **by != OWN_CONTROLLER) {
        wrong.add("spec.managedBy", format!("{} does not run it in this cluster; leave it out", short(by)));
    }
    if spec.get("parallelism").and_then(Value::as_i64) == Some(0) {
        wrong.add("spec.parallelism", "a Job that may have no pods never ends; to hold it back, use spec.suspend");
    }
    if let Some(ttl) = spec.get("ttlSecondsAfterFinished").and_then(Value::as_u64)
        && ttl < policies.ttl.as_secs()
    {
        let why = format!(
            "the cluster would delete the Job after {ttl} s, and it is kept for {} s (policies.finish.ttl) until its end is \
             acknowledged; lengthen this, shorten that, or leave this out",
            policies.ttl.as_secs()
        );
        wrong.add("spec.ttlSecondsAfterFinished", why);
    }
    if let Some(deadline) = policies.run_deadline {
        // The shorter of two deadlines is the one that is kept anyway.
        let seconds = deadline.as_secs() + u64::from(deadline.subsec_nanos() > 0);
        let given = spec.get("activeDeadlineSeconds").and_then(Value::as_u64).unwrap_or(u64::MAX);
        spec.insert("activeDeadlineSeconds".to_owned(), json!(seconds.min(given)));
    }
    match spec.get_mut("template") {
        Some(Value::Object(template)) => check_template(template, work, wrong),
        _ => wrong.add("spec.template", "is required and must be an object"),
    }
}

fn check_template(template: &mut Map<String, Value>, work: &Work<'_>, wrong: &mut Wrong) {
    if let Some(metadata) = wrong.object(template, "metadata", "spec.template.metadata") {
        reserved(metadata, "spec.template.metadata", wrong);
        label(metadata, work.labels, wrong, "spec.template.metadata");
    }
    let Some(Value::Object(pod)) = template.get_mut("spec") else {
        return wrong.add("spec.template.spec", "is required and must be an object");
    };
    if pod.get("restartPolicy").is_none_or(Value::is_null) {
        pod.insert("restartPolicy".to_owned(), json!("Never"));
    }
    let Some(Value::Array(containers)) = pod.get_mut("containers") else {
        return wrong.add("spec.template.spec.containers", "needs at least one container with a name");
    };
    let names: Vec<_> =
        containers.iter().filter_map(|container| container.get("name")?.as_str().map(str::to_owned)).collect();
    if names.is_empty() {
        wrong.add("spec.template.spec.containers", "needs at least one container with a name");
    }
    let policies = work.policies;
    for name in policies.deciding_containers.iter().filter(|name| !names.contains(name)) {
        let why = format!("{name:?} is none of the manifest's containers: {}", names.join(", "));
        wrong.add("policies.deciding_containers", why);
    }
    if policies.result == ResultSource::TerminationMessage {
        let deciding = if policies.deciding_containers.is_empty() { &names } else { &policies.deciding_containers };
        print_result(containers, deciding, wrong);
    }
}

/// Lets the one container that decides hand its result back as its last word.
fn print_result(containers: &mut [Value], deciding: &[String], wrong: &mut Wrong) {
    let [deciding] = deciding else {
        let why = "TERMINATION_MESSAGE needs exactly one deciding container; name it in policies.deciding_containers";
        return wrong.add("policies.result.source", why);
    };
    for container in containers.iter_mut().filter_map(Value::as_object_mut) {
        if container.get("name").and_then(Value::as_str) == Some(deciding) {
            container.insert("terminationMessagePath".to_owned(), json!(RESULT_PATH));
            container.insert("terminationMessagePolicy".to_owned(), json!("File"));
        }
    }
}

/// A Job for a dry run.
pub(super) fn sample(settings: &PodSettings) -> Value {
    let labels = json!({ INSTANCE_LABEL: settings.instance.as_str(), TARGET_LABEL: settings.target.as_str() });
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": "podbroker-check", "namespace": settings.namespace, "labels": labels },
        "spec": { "backoffLimit": 0, "template": { "metadata": { "labels": labels }, "spec": {
            "restartPolicy": "Never",
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "check",
                "image": settings.result_image,
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        } } },
    })
}

/// What is wrong, so far.
#[derive(Debug, Default)]
struct Wrong(Vec<FieldViolation>);

impl Wrong {
    fn add(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.0.push(FieldViolation { field: field.into(), why: why.into() });
    }

    /// A field that may be missing but may not be something else.
    fn fixed(&mut self, parent: &mut Map<String, Value>, field: &str, expected: &str) {
        match parent.get(field) {
            Some(other) if !other.is_null() && other != expected => {
                self.add(field, format!("must be {expected:?}, not {}", short(other)));
            }
            _ => {
                parent.insert(field.to_owned(), json!(expected));
            }
        }
    }

    /// A field that must not be there.
    fn absent(&mut self, parent: &mut Map<String, Value>, field: &str, path: &str, why: &str) {
        if parent.remove(field).is_some_and(|value| !value.is_null()) {
            self.add(path, why);
        }
    }

    /// The object at a field, made if it is missing.
    fn object<'a>(
        &mut self,
        parent: &'a mut Map<String, Value>,
        field: &str,
        path: &str,
    ) -> Option<&'a mut Map<String, Value>> {
        let value = parent.entry(field.to_owned()).or_insert(Value::Null);
        if value.is_null() {
            *value = json!({});
        }
        if !value.is_object() {
            self.add(path, "must be an object");
        }
        value.as_object_mut()
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
