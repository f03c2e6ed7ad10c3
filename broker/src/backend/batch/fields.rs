//! Which fields AWS Batch has for a pod, and taking them out of JSON: what it does not have is found, with the path of each.
//!
//! The lists are those of the API's model: `EksPodPropertiesOverride`, what a submit may say, and `EksPodProperties`, what a job
//! definition may say.

use serde_json::{Map, Value};

use crate::error::FieldViolation;

/// What a value must look like.
#[derive(Debug)]
pub(super) enum Shape {
    Text,
    Whole,
    Flag,
    Texts,
    TextMap,
    List(&'static Self),
    Object(&'static [(&'static str, Self)]),
}

use Shape::{Flag, List, Object, Text, TextMap, Texts, Whole};

const VARIABLE: Shape = Object(&[("name", Text), ("value", Text)]);
const RESOURCES: Shape = Object(&[("limits", TextMap), ("requests", TextMap)]);
const METADATA: Shape = Object(&[("labels", TextMap), ("annotations", TextMap), ("namespace", Text)]);

const CONTAINER_OVERRIDE: Shape = Object(&[
    ("name", Text),
    ("image", Text),
    ("command", Texts),
    ("args", Texts),
    ("env", List(&VARIABLE)),
    ("resources", RESOURCES),
]);

const POD_OVERRIDE: Shape = Object(&[
    ("containers", List(&CONTAINER_OVERRIDE)),
    ("initContainers", List(&CONTAINER_OVERRIDE)),
    ("metadata", METADATA),
]);

/// `eksPropertiesOverride` of `SubmitJob`.
pub(super) const OVERRIDE: Shape = Object(&[("podProperties", POD_OVERRIDE)]);

/// What of a pod's spec can be said at submit.
pub(super) const SPEC_OVERRIDE: Shape =
    Object(&[("containers", List(&CONTAINER_OVERRIDE)), ("initContainers", List(&CONTAINER_OVERRIDE))]);

const MOUNT: Shape = Object(&[("name", Text), ("mountPath", Text), ("subPath", Text), ("readOnly", Flag)]);

const SECURITY: Shape = Object(&[
    ("runAsUser", Whole),
    ("runAsGroup", Whole),
    ("privileged", Flag),
    ("allowPrivilegeEscalation", Flag),
    ("readOnlyRootFilesystem", Flag),
    ("runAsNonRoot", Flag),
]);

const CONTAINER: Shape = Object(&[
    ("name", Text),
    ("image", Text),
    ("imagePullPolicy", Text),
    ("command", Texts),
    ("args", Texts),
    ("env", List(&VARIABLE)),
    ("resources", RESOURCES),
    ("volumeMounts", List(&MOUNT)),
    ("securityContext", SECURITY),
]);

const VOLUME: Shape = Object(&[
    ("name", Text),
    ("hostPath", Object(&[("path", Text)])),
    ("emptyDir", Object(&[("medium", Text), ("sizeLimit", Text)])),
    ("secret", Object(&[("secretName", Text), ("optional", Flag)])),
    ("persistentVolumeClaim", Object(&[("claimName", Text), ("readOnly", Flag)])),
]);

/// What of a pod's spec a job definition can say.
pub(super) const SPEC: Shape = Object(&[
    ("containers", List(&CONTAINER)),
    ("initContainers", List(&CONTAINER)),
    ("volumes", List(&VOLUME)),
    ("serviceAccountName", Text),
    ("hostNetwork", Flag),
    ("dnsPolicy", Text),
    ("imagePullSecrets", List(&Object(&[("name", Text)]))),
    ("shareProcessNamespace", Flag),
]);

/// Values that are what Kubernetes takes when nothing is said, as JSON. Clients fill them in, and they ask for nothing.
const DEFAULTS: [(&str, &str); 16] = [
    ("automountServiceAccountToken", "true"),
    ("defaultMode", "420"),
    ("dnsPolicy", "\"ClusterFirst\""),
    ("enableServiceLinks", "true"),
    ("hostIPC", "false"),
    ("hostNetwork", "false"),
    ("hostPID", "false"),
    ("restartPolicy", "\"Never\""),
    ("schedulerName", "\"default-scheduler\""),
    ("shareProcessNamespace", "false"),
    ("stdin", "false"),
    ("stdinOnce", "false"),
    ("terminationGracePeriodSeconds", "30"),
    ("terminationMessagePath", "\"/dev/termination-log\""),
    ("terminationMessagePolicy", "\"File\""),
    ("tty", "false"),
];

/// Whose fields they are, which decides what may be left out unsaid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A pod of Kubernetes, as clients write it: with empty fields and defaults.
    Kubernetes,
    /// AWS Batch's own.
    Batch,
}

impl Dialect {
    fn says_nothing(self, field: &str, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) => true,
            (Self::Batch, _) => false,
            (Self::Kubernetes, Value::Array(items)) => items.is_empty(),
            (Self::Kubernetes, Value::Object(fields)) => fields.is_empty(),
            (Self::Kubernetes, Value::String(text)) if text.is_empty() => true,
            (Self::Kubernetes, value) => DEFAULTS.contains(&(field, value.to_string().as_str())),
        }
    }

    /// Whether a field that AWS Batch has is not there. An empty list of Kubernetes is none; an `emptyDir` is one by being there.
    fn is_absent(self, field: &str, value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => self == Self::Kubernetes && items.is_empty(),
            Value::Object(fields) => self == Self::Kubernetes && fields.is_empty() && field != "emptyDir",
            _ => false,
        }
    }

    fn unknown(self) -> &'static str {
        match self {
            Self::Kubernetes => "AWS Batch cannot be told this",
            Self::Batch => "is no field of AWS Batch for EKS here",
        }
    }
}

/// Takes the fields of a shape out of an object, and finds what cannot be taken.
#[derive(Debug)]
pub(super) struct Taker {
    pub(super) dialect: Dialect,
    pub(super) violations: Vec<FieldViolation>,
}

impl Taker {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, violations: Vec::new() }
    }

    pub(super) fn refuse(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.violations.push(FieldViolation { field: field.into(), why: why.into() });
    }

    /// What is there of an object's fields.
    pub(super) fn object(
        &mut self,
        fields: &'static [(&'static str, Shape)],
        object: &Map<String, Value>,
        path: &str,
    ) -> Map<String, Value> {
        let mut taken = Map::new();
        for (field, value) in object {
            let path = join(path, field);
            match fields.iter().find(|(name, _)| name == field) {
                Some(_) if self.dialect.is_absent(field, value) => {}
                Some((_, shape)) => {
                    taken.insert(field.clone(), self.value(shape, value, &path));
                }
                None if self.dialect.says_nothing(field, value) => {}
                None => self.refuse(path, self.dialect.unknown()),
            }
        }
        taken
    }

    /// The value, if it has the shape.
    pub(super) fn value(&mut self, shape: &'static Shape, value: &Value, path: &str) -> Value {
        let wanted = match (shape, value) {
            (Text, Value::String(_)) | (Flag, Value::Bool(_)) => return value.clone(),
            (Whole, Value::Number(number)) if number.is_i64() => return value.clone(),
            (Texts, Value::Array(items)) => {
                let items = items.iter().enumerate();
                return items.map(|(index, item)| self.value(&Text, item, &format!("{path}[{index}]"))).collect();
            }
            (List(shape), Value::Array(items)) => {
                let items = items.iter().enumerate();
                return items.map(|(index, item)| self.value(shape, item, &format!("{path}[{index}]"))).collect();
            }
            (TextMap, Value::Object(entries)) => {
                let taken = entries
                    .iter()
                    .map(|(key, value)| (key.clone(), self.value(&Text, value, &format!("{path}[{key}]"))));
                return Value::Object(taken.collect());
            }
            (Object(fields), Value::Object(object)) => return Value::Object(self.object(fields, object, path)),
            (Text, _) => "a string",
            (Flag, _) => "true or false",
            (Whole, _) => "a whole number",
            (Texts | List(_), _) => "a list",
            (TextMap | Object(_), _) => "an object",
        };
        self.refuse(path, format!("must be {wanted}"));
        Value::Null
    }
}

pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(dialect: Dialect, shape: &'static Shape, value: &Value) -> (Value, Vec<String>) {
        let mut taker = Taker::new(dialect);
        let kept = taker.value(shape, value, "x");
        (kept, taker.violations.into_iter().map(|violation| violation.field).collect())
    }

    #[test]
    fn every_field_that_is_unknown_or_of_another_kind_is_found() {
        let value = json!({ "podProperties": {
            "containers": [{ "name": "a", "image": 5, "env": [{ "name": "A", "valueFrom": {} }], "ports": [] }],
            "metadata": { "labels": { "a": 1 } },
            "volumes": [],
        }, "more": 1 });
        let (_, mut refused) = take(Dialect::Batch, &OVERRIDE, &value);
        refused.sort();
        assert_eq!(
            refused,
            [
                "x.more",
                "x.podProperties.containers[0].env[0].valueFrom",
                "x.podProperties.containers[0].image",
                "x.podProperties.containers[0].ports",
                "x.podProperties.metadata.labels[a]",
                "x.podProperties.volumes",
            ]
        );
    }

    #[test]
    fn what_kubernetes_takes_anyway_asks_for_nothing() {
        let pod = json!({
            "containers": [{ "name": "a", "terminationMessagePolicy": "File", "ports": [], "workingDir": "" }],
            "restartPolicy": "Never", "affinity": {}, "tolerations": [], "nodeSelector": null, "hostNetwork": false,
        });
        let (taken, refused) = take(Dialect::Kubernetes, &SPEC_OVERRIDE, &pod);
        assert_eq!((taken, refused.len()), (json!({ "containers": [{ "name": "a" }] }), 0));
        let (_, refused) =
            take(Dialect::Kubernetes, &SPEC_OVERRIDE, &json!({ "hostNetwork": true, "restartPolicy": "OnFailure" }));
        assert_eq!(refused, ["x.hostNetwork", "x.restartPolicy"]);
    }

    #[test]
    fn what_is_taken_is_as_it_was() {
        let value = json!({ "podProperties": {
            "containers": [{ "name": "a", "image": "i", "command": ["c"], "args": [], "env": [{ "name": "A", "value": "" }],
                "resources": { "limits": { "cpu": "1" }, "requests": {} } }],
            "metadata": { "labels": {}, "annotations": { "a": "b" }, "namespace": "n" },
        } });
        assert_eq!(take(Dialect::Batch, &OVERRIDE, &value), (value, vec![]));
    }
}
