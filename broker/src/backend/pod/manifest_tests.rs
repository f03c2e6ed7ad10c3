use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::execution::{PolicyDefaults, PolicyRequest, SubmitMode, Workload, spec_digest};

fn settings() -> PodSettings {
    PodSettings {
        instance: "main".parse().unwrap(),
        target: "prod".parse().unwrap(),
        namespace: "remote".to_owned(),
        defaults: PolicyDefaults::default(),
        result_image: "busybox:1".to_owned(),
        finalizer: Finalizer::Keep,
        records: None,
    }
}

fn built(manifest: Value, policies: &PolicyRequest) -> Result<Value, Error> {
    let settings = settings();
    let Value::Object(manifest) = manifest else { panic!("a manifest is an object") };
    let address = Address {
        instance: settings.instance.clone(),
        tenant: "default".parse().unwrap(),
        target: settings.target.clone(),
        id: "etl.load@1".parse().unwrap(),
    };
    let submit = Submit {
        id: address.id.clone(),
        submit_before: "2026-11-21T08:00:00Z".parse().unwrap(),
        workload: Workload::Pod(manifest),
        labels: BTreeMap::from([("dag".to_owned(), "etl".to_owned())]),
        policies: policies.clone(),
        group: None,
        mode: SubmitMode::Create,
        subject: "airflow".to_owned(),
    };
    let digest = spec_digest(&submit.workload, &submit.labels, policies, None);
    build(&settings, &address, 1, &submit, &policies.resolve(&settings.defaults)?, &digest)
}

fn simple() -> Value {
    json!({ "spec": { "containers": [{ "name": "base", "image": "busybox" }] } })
}

fn field_of(error: &Error) -> String {
    match error {
        Error::InvalidSpec { violations } => violations[0].field.clone(),
        Error::InvalidRequest { field, .. } => (*field).to_owned(),
        other => panic!("{other}"),
    }
}

#[test]
fn a_pod_has_the_name_the_marks_and_the_finalizer_of_its_execution() {
    let pod = built(simple(), &PolicyRequest::default()).unwrap();
    let metadata = &pod["metadata"];
    let name = metadata["name"].as_str().unwrap();
    assert!(name.starts_with("etl-load-1-") && name.ends_with("-1"), "{name}");
    assert_eq!(metadata["namespace"], "remote");
    assert_eq!(metadata["finalizers"], json!(["podbroker.io/outcome"]));
    let labels = &metadata["labels"];
    assert_eq!(labels["podbroker.io/instance"], "main");
    assert_eq!(labels["podbroker.io/target"], "prod");
    assert_eq!(labels["podbroker.io/tenant"], "default");
    assert_eq!(labels["podbroker.io/attempt"], "1");
    assert!(name.contains(labels["podbroker.io/execution"].as_str().unwrap()));
    let annotations = &metadata["annotations"];
    assert_eq!(annotations["podbroker.io/execution-id"], "etl.load@1");
    assert_eq!(annotations["podbroker.io/submitted-by"], "airflow");
    assert_eq!(annotations["podbroker.io/submit-before"], "2026-11-21T08:00:00Z");
    assert_eq!(annotations["podbroker.io/labels"], r#"{"dag":"etl"}"#);
    assert_eq!(pod["spec"]["restartPolicy"], "Never");
}

#[test]
fn what_the_caller_sent_stays_as_it_is_also_what_we_do_not_know() {
    let mut manifest = simple();
    manifest["spec"]["somethingNew"] = json!({ "deep": [1, 2.5, null, "x"] });
    manifest["spec"]["containers"][0]["anotherNewThing"] = json!(true);
    manifest["metadata"] = json!({ "labels": { "team": "a" }, "annotations": { "b": "c" }, "finalizers": ["x/y"] });
    let pod = built(manifest.clone(), &PolicyRequest::default()).unwrap();
    assert_eq!(pod["spec"]["somethingNew"], manifest["spec"]["somethingNew"]);
    assert_eq!(pod["spec"]["containers"], manifest["spec"]["containers"]);
    assert_eq!(pod["metadata"]["labels"]["team"], "a");
    assert_eq!(pod["metadata"]["annotations"]["b"], "c");
    assert_eq!(pod["metadata"]["finalizers"], json!(["x/y", "podbroker.io/outcome"]));
    let packed = pod["metadata"]["annotations"]["podbroker.io/manifest"].as_str().unwrap();
    let Some(Workload::Pod(unpacked)) = packing::unpack(packed) else { panic!("a pod") };
    assert_eq!(Value::Object(unpacked), manifest);
}

#[test]
fn a_wished_name_becomes_a_note() {
    for wish in [json!({ "name": "my-pod" }), json!({ "generateName": "my-pod" })] {
        let mut manifest = simple();
        manifest["metadata"] = wish;
        let pod = built(manifest, &PolicyRequest::default()).unwrap();
        assert_ne!(pod["metadata"]["name"], "my-pod");
        assert_eq!(pod["metadata"].get("generateName"), None);
        assert_eq!(pod["metadata"]["annotations"]["podbroker.io/requested-name"], "my-pod");
    }
}

#[test]
fn what_would_break_a_promise_is_refused_with_its_path() {
    let with = |path: &str, value: Value| {
        let mut manifest = simple();
        if manifest.get("metadata").is_none() {
            manifest["metadata"] = json!({});
        }
        *manifest.pointer_mut(path.rsplit_once('/').unwrap().0).unwrap() = {
            let mut parent = manifest.pointer(path.rsplit_once('/').unwrap().0).unwrap().clone();
            parent[path.rsplit_once('/').unwrap().1] = value;
            parent
        };
        manifest
    };
    let cases = [
        (with("/kind", json!("Job")), "kind"),
        (with("/apiVersion", json!("v2")), "apiVersion"),
        (with("/status", json!({ "phase": "Running" })), "status"),
        (with("/spec", json!(null)), "spec"),
        (with("/spec/containers", json!([])), "spec.containers"),
        (with("/spec/containers", json!("x")), "spec.containers"),
        (with("/spec/restartPolicy", json!("Always")), "spec.restartPolicy"),
        (with("/metadata/namespace", json!("other")), "metadata.namespace"),
        (with("/metadata/uid", json!("u")), "metadata.uid"),
        (with("/metadata/labels", json!({ "podbroker.io/tenant": "x" })), "metadata.labels[podbroker.io/tenant]"),
        (with("/metadata/labels", json!([])), "metadata.labels"),
        (
            with("/metadata/annotations", json!({ "podbroker.io/cancel": "x" })),
            "metadata.annotations[podbroker.io/cancel]",
        ),
    ];
    for (manifest, field) in cases {
        assert_eq!(field_of(&built(manifest, &PolicyRequest::default()).unwrap_err()), field);
    }
}

#[test]
fn a_manifest_that_does_not_fit_beside_its_copy_is_refused() {
    let mut manifest = simple();
    // Digits of a hash chain do not pack well.
    let mut noise = String::new();
    for seed in 0..6000 {
        let (seed, policies) = (json!({ "n": seed }), PolicyRequest::default());
        let seed = Workload::Pod(seed.as_object().unwrap().clone());
        noise += &spec_digest(&seed, &BTreeMap::new(), &policies, None);
    }
    manifest["spec"]["containers"][0]["args"] = json!([noise]);
    assert_eq!(field_of(&built(manifest, &PolicyRequest::default()).unwrap_err()), "metadata.annotations");
}

#[test]
fn the_shorter_run_deadline_counts_and_fractions_are_rounded_up() {
    let policies = PolicyRequest { run_deadline: Some(Duration::from_millis(90_500)), ..PolicyRequest::default() };
    assert_eq!(built(simple(), &policies).unwrap()["spec"]["activeDeadlineSeconds"], 91);
    let mut manifest = simple();
    manifest["spec"]["activeDeadlineSeconds"] = json!(60);
    assert_eq!(built(manifest, &policies).unwrap()["spec"]["activeDeadlineSeconds"], 60);
}

#[test]
fn the_result_sidecar_shares_a_folder_with_the_deciding_containers_only() {
    let manifest = json!({ "spec": {
        "initContainers": [{ "name": "setup" }],
        "containers": [{ "name": "base" }, { "name": "proxy" }],
    } });
    let policies = PolicyRequest {
        result: Some(ResultSource::Sidecar),
        deciding_containers: vec!["base".to_owned()],
        ..PolicyRequest::default()
    };
    let pod = built(manifest, &policies).unwrap();
    let init = pod["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(init.last().unwrap()["name"], "podbroker-result");
    assert_eq!(init.last().unwrap()["restartPolicy"], "Always");
    assert_eq!(init.len(), 2);
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"], "/airflow/xcom");
    assert_eq!(pod["spec"]["containers"][1].get("volumeMounts"), None);
    assert_eq!(pod["spec"]["volumes"][0]["name"], "podbroker-result");
}

#[test]
fn a_termination_message_result_needs_one_deciding_container() {
    let two = json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } });
    let mut policies = PolicyRequest { result: Some(ResultSource::TerminationMessage), ..PolicyRequest::default() };
    assert_eq!(field_of(&built(two.clone(), &policies).unwrap_err()), "policies.result.source");
    policies.deciding_containers = vec!["b".to_owned()];
    let pod = built(two, &policies).unwrap();
    assert_eq!(pod["spec"]["containers"][1]["terminationMessagePath"], "/airflow/xcom/return.json");
    assert_eq!(pod["spec"]["containers"][0].get("terminationMessagePath"), None);
}

#[test]
fn a_deciding_container_must_exist() {
    let policies = PolicyRequest { deciding_containers: vec!["bsae".to_owned()], ..PolicyRequest::default() };
    let error = built(simple(), &policies).unwrap_err();
    assert!(error.to_string().contains("\"bsae\" is none of the manifest's containers: base"), "{error}");
}

#[test]
fn a_later_attempt_is_made_from_the_manifest_as_it_was_sent_and_not_from_the_live_pod() {
    let policies =
        PolicyRequest { infra_retry: Some(crate::execution::InfraRetryRequest::default()), ..PolicyRequest::default() };
    let mut live = built(simple(), &policies).unwrap();
    let sent = live["spec"].clone();
    // What the cluster and others have written into it since then.
    live["spec"]["nodeName"] = json!("node1");
    live["spec"]["containers"][0]["image"] = json!("mirror/busybox");
    live["metadata"]["uid"] = json!("u");
    let written = ["cancel", "stop", "waiting-attempt", "released-at", "of-the-execution"];
    for (key, value) in written.map(|key| (key, "{}")) {
        live["metadata"]["annotations"][format!("podbroker.io/{key}")] = json!(value);
    }
    let first: Carrier = serde_json::from_value(live.clone()).unwrap();
    let address = describe_address(&first);

    let next = build_next(&settings(), &address, (2, "x-2"), &first).unwrap();

    assert_eq!(next["spec"], sent);
    let metadata = &next["metadata"];
    assert_eq!(metadata["name"], "x-2");
    assert_eq!(metadata["labels"]["podbroker.io/attempt"], "2");
    assert_eq!(metadata["labels"]["podbroker.io/execution"], live["metadata"]["labels"]["podbroker.io/execution"]);
    assert_eq!(metadata["finalizers"], json!(["podbroker.io/outcome"]));
    let annotations = &metadata["annotations"];
    for key in ["execution-id", "spec-digest", "policies", "labels", "submit-before", "of-the-execution"] {
        let key = format!("podbroker.io/{key}");
        assert_eq!(annotations[&key], live["metadata"]["annotations"][&key], "{key}");
    }
    for key in ["cancel", "stop", "waiting-attempt", "released-at", "manifest"] {
        assert_eq!(annotations[format!("podbroker.io/{key}")], Value::Null, "{key}");
    }
    for damage in [None, Some("bm8gZ3ppcA=="), Some("!")] {
        let mut damaged = first.clone();
        let annotations = damaged.metadata.annotations.as_mut().unwrap();
        annotations.remove("podbroker.io/manifest");
        annotations.extend(damage.map(|damage| ("podbroker.io/manifest".to_owned(), damage.to_owned())));
        let why = build_next(&settings(), &address, (2, "x-2"), &damaged).unwrap_err();
        assert!(why.starts_with("the first attempt's manifest is"), "{why}");
    }
}

fn describe_address(pod: &Carrier) -> Address {
    super::super::describe::address(&settings(), &View::of(pod).unwrap())
}

#[test]
fn another_attempt_needs_the_finalizer() {
    let policies =
        PolicyRequest { infra_retry: Some(crate::execution::InfraRetryRequest::default()), ..PolicyRequest::default() };
    let policies = policies.resolve(&PolicyDefaults::default()).unwrap();
    let off = PodSettings { finalizer: Finalizer::Off, ..settings() };
    let first: Carrier = serde_json::from_value(built(simple(), &PolicyRequest::default()).unwrap()).unwrap();
    let Value::Object(manifest) = simple() else { panic!("a manifest is an object") };
    let submit = Submit {
        id: "x".parse().unwrap(),
        submit_before: "2026-11-21T08:00:00Z".parse().unwrap(),
        workload: Workload::Pod(manifest),
        labels: BTreeMap::new(),
        policies: PolicyRequest::default(),
        group: None,
        mode: SubmitMode::Create,
        subject: String::new(),
    };
    let error = build(&off, &describe_address(&first), 1, &submit, &policies, "d").unwrap_err();
    assert_eq!(field_of(&error), "policies.infra_retry");
}
