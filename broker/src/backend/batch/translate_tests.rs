use proptest::prelude::*;

use super::*;

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("no object: {value}") };
    object
}

fn translate(manifest: Value, definitions: Definitions) -> Result<Translated, Vec<String>> {
    pod(&object(manifest), "jobs", definitions).map_err(|violations| {
        let mut fields: Vec<_> = violations.into_iter().map(|violation| violation.field).collect();
        fields.sort();
        fields
    })
}

fn refused(manifest: Value, definitions: Definitions) -> Vec<String> {
    translate(manifest, definitions).unwrap_err()
}

#[test]
fn what_a_submit_can_say_is_said_by_the_names_of_the_containers() {
    let translated = translate(
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "wish", "namespace": "jobs", "labels": { "a": "1" }, "annotations": { "b": "2" } },
            "spec": {
                "restartPolicy": "Never", "hostNetwork": false, "affinity": {}, "activeDeadlineSeconds": 90,
                "initContainers": [{ "name": "first", "image": "i" }],
                "containers": [{ "name": "base", "image": "i", "command": ["c"], "args": ["a"], "ports": [],
                    "env": [{ "name": "A", "value": "1" }], "resources": { "limits": { "memory": "1Gi", "cpu": "500m" } } }],
            },
        }),
        Definitions::Given,
    );
    let at_submit = json!({
        "metadata": { "namespace": "jobs", "labels": { "a": "1" }, "annotations": { "b": "2" } },
        "initContainers": [{ "name": "first", "image": "i" }],
        "containers": [{ "name": "base", "image": "i", "command": ["c"], "args": ["a"],
            "env": [{ "name": "A", "value": "1" }], "resources": { "limits": { "memory": "1024Mi", "cpu": "0.5" } } }],
    });
    assert_eq!(translated, Ok(Translated { at_submit: object(at_submit), definition: None, deadline: Some(90) }));
}

#[test]
fn everything_that_a_submit_cannot_say_is_refused_at_once() {
    let manifest = json!({
        "kind": "Job",
        "status": { "phase": "Running" },
        "metadata": { "namespace": "other", "finalizers": ["x"], "labels": { "podbroker.io/a": "1", "long": "l".repeat(64) },
            "annotations": { "long": "a".repeat(256) } },
        "spec": {
            "serviceAccountName": "s", "nodeSelector": { "a": "b" }, "tolerations": [{ "key": "k" }], "hostNetwork": true,
            "terminationGracePeriodSeconds": 60, "activeDeadlineSeconds": 0, "volumes": [{ "name": "v", "emptyDir": {} }],
            "initContainers": [{ "name": "base", "restartPolicy": "Always" }],
            "containers": [
                { "name": "base", "envFrom": [{ "secretRef": { "name": "s" } }], "volumeMounts": [{ "name": "v" }] },
                { "image": "i", "env": [{ "name": "AWS_BATCH_X" }, { "name": "A", "valueFrom": {} }, { "value": "1" }],
                  "resources": { "requests": { "memory": "100M" }, "claims": [{ "name": "c" }] }, "lifecycle": { "preStop": {} } },
            ],
        },
    });
    assert_eq!(
        refused(manifest, Definitions::Given),
        [
            "kind",
            "metadata.annotations[long]",
            "metadata.finalizers",
            "metadata.labels[long]",
            "metadata.labels[podbroker.io/a]",
            "metadata.namespace",
            "spec.activeDeadlineSeconds",
            "spec.containers[0].envFrom",
            "spec.containers[0].volumeMounts",
            "spec.containers[1].env[0].name",
            "spec.containers[1].env[2].name",
            "spec.containers[1].lifecycle",
            "spec.containers[1].name",
            "spec.containers[1].resources.claims",
            "spec.containers[1].resources.requests[memory]",
            "spec.hostNetwork",
            "spec.initContainers[0].name",
            "spec.initContainers[0].restartPolicy",
            "spec.nodeSelector",
            "spec.serviceAccountName",
            "spec.terminationGracePeriodSeconds",
            "spec.tolerations",
            "spec.volumes",
            "status",
        ]
    );
}

#[test]
fn a_definition_says_what_a_submit_cannot_and_stays_the_same_for_other_arguments() {
    let manifest = |argument: &str| {
        json!({
            "metadata": { "labels": { "run": argument } },
            "spec": {
                "serviceAccountName": "s",
                "imagePullSecrets": [{ "name": "p" }],
                "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c", "readOnly": true } }],
                "initContainers": [{ "name": "first", "image": "i" }],
                "containers": [{ "name": "base", "image": "i", "args": [argument], "imagePullPolicy": "Always",
                    "volumeMounts": [{ "name": "v", "mountPath": "/v" }], "securityContext": { "runAsUser": 5 },
                    "resources": { "requests": { "cpu": "1" } } }],
            },
        })
    };
    let one = translate(manifest("1"), Definitions::Registered).unwrap();
    let two = translate(manifest("2"), Definitions::Registered).unwrap();
    assert_eq!(one.definition, two.definition);
    assert_eq!(
        one.definition,
        Some(object(json!({
            "serviceAccountName": "s",
            "imagePullSecrets": [{ "name": "p" }],
            "hostNetwork": false,
            "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c", "readOnly": true } }],
            "initContainers": [{ "name": "first", "image": "i" }],
            "containers": [{ "name": "base", "image": "i", "imagePullPolicy": "Always",
                "volumeMounts": [{ "name": "v", "mountPath": "/v" }], "securityContext": { "runAsUser": 5 },
                "resources": { "requests": { "cpu": "1" } } }],
        })))
    );
    assert_eq!(
        Value::Object(two.at_submit),
        json!({
            "metadata": { "namespace": "jobs", "labels": { "run": "2" } },
            "containers": [{ "name": "base", "args": ["2"] }],
        })
    );
}

#[test]
fn what_a_definition_cannot_say_is_refused_too() {
    let manifest = json!({ "spec": {
        "dnsPolicy": "None",
        "securityContext": { "fsGroup": 5 },
        "volumes": [
            { "name": "a", "configMap": { "name": "c" } },
            { "name": "b", "secret": { "secretName": "s", "items": [{ "key": "k" }], "defaultMode": 420 } },
            { "name": "c" },
        ],
        "containers": [{ "name": "base", "securityContext": { "capabilities": { "drop": ["ALL"] } },
            "volumeMounts": [{ "name": "v", "mountPath": "/v", "mountPropagation": "None" }] }],
    } });
    assert_eq!(
        refused(manifest, Definitions::Registered),
        [
            "spec.containers[0].image",
            "spec.containers[0].securityContext.capabilities",
            "spec.containers[0].volumeMounts[0].mountPropagation",
            "spec.dnsPolicy",
            "spec.securityContext",
            "spec.volumes[0]",
            "spec.volumes[0].configMap",
            "spec.volumes[1].secret.items",
            "spec.volumes[2]",
        ]
    );
}

#[test]
fn what_airflows_operator_always_sends_is_refused_nowhere() {
    // `KubernetesPodOperator` of the provider 10.25 with an image, a command and arguments, and nothing else.
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "report-x1", "annotations": {}, "labels": { "dag_id": "d", "kubernetes_pod_operator": "True" } },
        "spec": {
            "affinity": {}, "hostNetwork": false, "imagePullSecrets": [], "initContainers": [], "nodeSelector": {},
            "restartPolicy": "Never", "securityContext": {}, "tolerations": [], "volumes": [],
            "containers": [{ "name": "base", "image": "i", "command": ["sh", "-c"], "args": ["a"], "env": [], "envFrom": [],
                "ports": [], "terminationMessagePolicy": "File", "volumeMounts": [] }],
        },
    });
    let metadata = json!({ "namespace": "jobs", "labels": { "dag_id": "d", "kubernetes_pod_operator": "True" } });
    let given = translate(manifest.clone(), Definitions::Given).unwrap();
    let whole = json!([{ "name": "base", "image": "i", "command": ["sh", "-c"], "args": ["a"] }]);
    assert_eq!(Value::Object(given.at_submit), json!({ "metadata": metadata, "containers": whole }));
    let registered = translate(manifest, Definitions::Registered).unwrap();
    let varying = json!([{ "name": "base", "command": ["sh", "-c"], "args": ["a"] }]);
    assert_eq!(Value::Object(registered.at_submit), json!({ "metadata": metadata, "containers": varying }));
    let fixed = json!({ "containers": [{ "name": "base", "image": "i" }], "hostNetwork": false });
    assert_eq!(registered.definition.map(Value::Object), Some(fixed));
}

#[test]
fn a_manifest_of_another_form_is_refused() {
    for manifest in [
        json!({}),
        json!({ "spec": [] }),
        json!({ "spec": { "containers": [] } }),
        json!({ "spec": {}, "metadata": 1 }),
    ] {
        assert!(translate(manifest.clone(), Definitions::Given).is_err(), "{manifest}");
    }
}

/// Fields that AWS Batch knows and others, with values of each kind.
fn fields(depth: u32) -> BoxedStrategy<Value> {
    let name = prop::sample::select(vec![
        "name",
        "image",
        "command",
        "args",
        "env",
        "resources",
        "limits",
        "cpu",
        "value",
        "labels",
        "annotations",
        "volumes",
        "emptyDir",
        "hostPath",
        "path",
        "securityContext",
        "runAsUser",
        "nodeSelector",
        "tolerations",
        "ports",
        "lifecycle",
        "hostNetwork",
        "serviceAccountName",
        "volumeMounts",
        "mountPath",
        "initContainers",
        "containers",
        "priorityClassName",
    ]);
    let leaf = prop_oneof![
        Just(json!(true)),
        Just(json!(7)),
        Just(json!("x")),
        Just(json!("1")),
        Just(json!(["x"])),
        Just(json!({ "a": "b" })),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = fields(depth - 1);
    prop_oneof![
        2 => leaf,
        3 => prop::collection::btree_map(name.prop_map(str::to_owned), inner.clone(), 1..5)
            .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        1 => prop::collection::vec(inner, 1..3).prop_map(Value::Array),
    ]
    .boxed()
}

/// Every value that says something, with the last name on the way to it.
fn leaves(value: &Value, name: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| leaves(value, name, found)),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, name, found)),
        leaf => found.push((name.to_owned(), leaf.to_string())),
    }
}

proptest! {
    #[test]
    fn nothing_is_dropped_silently(container in fields(3), spec in fields(2), registered: bool) {
        let mut manifest = json!({ "spec": { "containers": [{ "name": "base", "image": "i" }] } });
        if let (Value::Object(container), Value::Object(spec)) = (container, spec) {
            manifest["spec"]["containers"][0].as_object_mut().unwrap().extend(container);
            manifest["spec"].as_object_mut().unwrap().extend(spec);
        }
        let definitions = if registered { Definitions::Registered } else { Definitions::Given };
        if let Ok(translated) = translate(manifest.clone(), definitions) {
            let (mut said, mut told) = (Vec::new(), Vec::new());
            leaves(&manifest["spec"], "", &mut said);
            leaves(&Value::Object(translated.at_submit), "", &mut told);
            leaves(&Value::Object(translated.definition.unwrap_or_default()), "", &mut told);
            for leaf in said {
                let at = told.iter().position(|other| *other == leaf);
                prop_assert!(at.is_some(), "{:?} of {} is gone", leaf, manifest);
                told.swap_remove(at.unwrap());
            }
        }
    }
}
