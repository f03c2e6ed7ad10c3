//! From a pod's manifest to what AWS Batch can be told of it: a pure function that drops nothing silently.
//!
//! A given job definition is the target's template: of the pod go along names, images, commands, arguments, variables, resources,
//! labels and annotations, by the names of its containers, and everything else in the pod is refused with its path. Where the broker
//! may register definitions, it writes one for what a submit cannot say: volumes, mounts, security, the service account.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::fields::{Dialect, SPEC, SPEC_OVERRIDE, Shape, Taker, join};
use super::quantity;
use crate::error::FieldViolation;
use crate::identity::eks::Definitions;

/// The limit of AWS Batch for each of the two lists.
const MAX_CONTAINERS: usize = 10;
/// In characters; the limit of AWS Batch.
const MAX_ANNOTATION: usize = 255;
/// In characters; the limit of Kubernetes.
const MAX_LABEL: usize = 63;
/// What AWS Batch keeps for itself.
const RESERVED_VARIABLE: &str = "AWS_BATCH";
const RESERVED_LABELS: [(&str, &str); 2] = [("podbroker.io/", "podbroker"), ("batch.amazonaws.com/", "AWS Batch")];
/// What AWS Batch takes; Kubernetes has None too.
const DNS_POLICIES: [&str; 3] = ["Default", "ClusterFirst", "ClusterFirstWithHostNet"];

/// A pod in the words of AWS Batch.
#[derive(Debug, PartialEq)]
pub(super) struct Translated {
    /// `podProperties` of the override.
    pub(super) at_submit: Map<String, Value>,
    /// `podProperties` of a definition that is to be registered.
    pub(super) definition: Option<Map<String, Value>>,
    /// `activeDeadlineSeconds`.
    pub(super) deadline: Option<u64>,
}

/// The pod as AWS Batch runs it in the namespace, or every field that it cannot have.
pub(super) fn pod(
    manifest: &Map<String, Value>,
    namespace: &str,
    definitions: Definitions,
) -> Result<Translated, Vec<FieldViolation>> {
    let mut taker = Taker::new(Dialect::Kubernetes);
    let mut rest = manifest.clone();
    for (field, expected) in [("apiVersion", "v1"), ("kind", "Pod")] {
        if rest.remove(field).is_some_and(|value| !value.is_null() && value != expected) {
            taker.refuse(field, format!("must be {expected:?}"));
        }
    }
    let metadata = metadata(&mut taker, rest.remove("metadata").unwrap_or_default(), namespace);
    let (spec, deadline) = spec(&mut taker, rest.remove("spec").unwrap_or_default(), definitions);
    // Whatever else there is has no place in AWS Batch.
    taker.object(&[], &rest, "");
    if !taker.violations.is_empty() {
        return Err(taker.violations);
    }
    Ok(match definitions {
        Definitions::Given => Translated { at_submit: with(spec, metadata), definition: None, deadline },
        Definitions::Registered => {
            let (definition, at_submit) = split(spec);
            Translated { at_submit: with(at_submit, metadata), definition: Some(definition), deadline }
        }
    })
}

fn with(mut properties: Map<String, Value>, metadata: Map<String, Value>) -> Map<String, Value> {
    properties.insert("metadata".to_owned(), Value::Object(metadata));
    properties
}

/// What changes from one execution to the next goes along with each submit, so that one definition serves them all.
fn split(mut spec: Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    let mut at_submit = Map::new();
    for list in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = spec.get_mut(list) else { continue };
        let mut varying = Vec::new();
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let mut changes = Map::new();
            for field in ["command", "args", "env"] {
                changes.extend(container.remove_entry(field));
            }
            if !changes.is_empty() {
                changes.insert("name".to_owned(), container.get("name").cloned().unwrap_or_default());
                varying.push(Value::Object(changes));
            }
        }
        if !varying.is_empty() {
            at_submit.insert(list.to_owned(), Value::Array(varying));
        }
    }
    // AWS Batch's own default is the host's network, Kubernetes' is not.
    spec.entry("hostNetwork").or_insert(json!(false));
    (spec, at_submit)
}

fn metadata(taker: &mut Taker, metadata: Value, namespace: &str) -> Map<String, Value> {
    let mut fields = match metadata {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        _ => {
            taker.refuse("metadata", "must be an object");
            return Map::new();
        }
    };
    // The record of the execution bears the wish, as a pod does elsewhere.
    fields.remove("name");
    fields.remove("generateName");
    let allowed = &[("labels", Shape::TextMap), ("annotations", Shape::TextMap), ("namespace", Shape::Text)];
    let mut kept = taker.object(allowed, &fields, "metadata");
    check_metadata(taker, &kept, namespace, "metadata");
    kept.insert("namespace".to_owned(), json!(namespace));
    kept
}

/// Checks labels, annotations and the namespace, of a pod or of AWS Batch's own metadata.
pub(super) fn check_metadata(taker: &mut Taker, metadata: &Map<String, Value>, namespace: &str, path: &str) {
    match metadata.get("namespace") {
        None | Some(Value::Null) => {}
        Some(Value::String(asked)) if asked.is_empty() || asked == namespace => {}
        Some(_) => taker.refuse(join(path, "namespace"), format!("the target runs jobs in {namespace:?}")),
    }
    for (field, limit) in [("labels", MAX_LABEL), ("annotations", MAX_ANNOTATION)] {
        for (key, value) in metadata.get(field).and_then(Value::as_object).into_iter().flatten() {
            let path = format!("{}[{key}]", join(path, field));
            if let Some((_, owner)) = RESERVED_LABELS.iter().find(|(prefix, _)| key.starts_with(prefix)) {
                taker.refuse(path, format!("belongs to {owner}; leave it out"));
            } else if value.as_str().is_some_and(|text| text.chars().count() > limit) {
                taker.refuse(path, format!("must be at most {limit} characters in AWS Batch"));
            }
        }
    }
}

fn spec(taker: &mut Taker, spec: Value, definitions: Definitions) -> (Map<String, Value>, Option<u64>) {
    let Value::Object(mut fields) = spec else {
        taker.refuse("spec", "is required and must be an object");
        return (Map::new(), None);
    };
    let deadline = match fields.remove("activeDeadlineSeconds") {
        None | Some(Value::Null) => None,
        Some(value) => value.as_u64().filter(|seconds| *seconds > 0).or_else(|| {
            taker.refuse("spec.activeDeadlineSeconds", "must be a positive whole number");
            None
        }),
    };
    let shape = match definitions {
        Definitions::Given => &SPEC_OVERRIDE,
        Definitions::Registered => &SPEC,
    };
    let Value::Object(mut kept) = taker.value(shape, &Value::Object(fields), "spec") else {
        return (Map::new(), None);
    };
    check_containers(taker, &mut kept, "spec");
    let none = kept.get("containers").is_none_or(|list| list.as_array().is_none_or(Vec::is_empty));
    if none {
        taker.refuse("spec.containers", "needs at least one container with a name");
    }
    if definitions == Definitions::Registered {
        check_definition(taker, &kept);
    }
    (kept, deadline)
}

/// Checks what both kinds of containers have, of a pod or of AWS Batch's own override, and writes quantities its way.
pub(super) fn check_containers(taker: &mut Taker, properties: &mut Map<String, Value>, path: &str) {
    let mut names = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = properties.get_mut(list) else { continue };
        let path = join(path, list);
        if containers.len() > MAX_CONTAINERS {
            taker.refuse(&path, format!("at most {MAX_CONTAINERS} in AWS Batch"));
        }
        for (index, container) in containers.iter_mut().enumerate() {
            let path = format!("{path}[{index}]");
            let Value::Object(container) = container else { continue };
            match container.get("name") {
                Some(Value::String(name)) if !name.is_empty() => {
                    if !names.insert(name.clone()) {
                        taker.refuse(join(&path, "name"), "is another container's too");
                    }
                }
                // What is of another kind was found before.
                Some(Value::Null) => {}
                _ => taker.refuse(join(&path, "name"), "is needed: containers are told apart by it"),
            }
            for (index, variable) in container.get("env").and_then(Value::as_array).into_iter().flatten().enumerate() {
                let path = format!("{path}.env[{index}].name");
                match variable.get("name").and_then(Value::as_str) {
                    Some(name) if name.starts_with(RESERVED_VARIABLE) => {
                        taker.refuse(path, format!("names that begin with {RESERVED_VARIABLE} belong to AWS Batch"));
                    }
                    None | Some("") => taker.refuse(path, "is needed"),
                    Some(_) => {}
                }
            }
            if let Some(Value::Object(resources)) = container.get_mut("resources") {
                quantity::resources(taker, resources, &join(&path, "resources"));
            }
        }
    }
}

fn check_definition(taker: &mut Taker, spec: &Map<String, Value>) {
    for list in ["containers", "initContainers"] {
        let containers = spec.get(list).and_then(Value::as_array).into_iter().flatten();
        for (index, container) in containers.enumerate() {
            if container.get("image").and_then(Value::as_str).is_none_or(str::is_empty) {
                taker.refuse(format!("spec.{list}[{index}].image"), "is needed");
            }
        }
    }
    for (index, volume) in spec.get("volumes").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if volume.as_object().is_some_and(|volume| volume.len() != 2) {
            let why =
                "needs a name and one of emptyDir, hostPath, secret, persistentVolumeClaim: AWS Batch has no other";
            taker.refuse(format!("spec.volumes[{index}]"), why);
        }
    }
    if let Some(policy) = spec.get("dnsPolicy").and_then(Value::as_str)
        && !DNS_POLICIES.contains(&policy)
    {
        taker.refuse("spec.dnsPolicy", format!("must be one of {} in AWS Batch", DNS_POLICIES.join(", ")));
    }
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
