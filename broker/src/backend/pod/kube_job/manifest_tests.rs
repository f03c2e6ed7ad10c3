use serde_json::json;

use super::super::super::hub::tests::settings;
use super::*;
use crate::error::Error;
use crate::execution::{PolicyDefaults, PolicyRequest};

const RECORD: &str = "etl-slgvmirenqmnjaxo-1";

fn labels() -> Vec<(String, String)> {
    vec![("podbroker.io/attempt".to_owned(), "1".to_owned())]
}

fn built(manifest: &Value, policies: &PolicyRequest) -> Result<Value, Error> {
    let policies = policies.resolve(&PolicyDefaults::default()).unwrap();
    let workload = Workload::Job(manifest.as_object().unwrap().clone());
    let key = format!("{RECORD}/uid-1");
    build(&settings(), &Work { name: RECORD, key: &key, workload: &workload, policies: &policies, labels: &labels() })
}

fn fields(manifest: &Value, policies: &PolicyRequest) -> Vec<String> {
    let Err(Error::InvalidSpec { violations }) = built(manifest, policies) else { panic!("it was accepted") };
    violations.into_iter().map(|violation| violation.field).collect()
}

fn minimal() -> Value {
    json!({ "spec": { "template": { "spec": { "containers": [{ "name": "main", "image": "a" }] } } } })
}

#[test]
fn a_job_gets_its_name_its_record_and_our_labels() {
    let mut manifest = minimal();
    manifest["metadata"] = json!({ "name": "mine", "labels": { "team": "a" }, "namespace": settings().namespace });
    let job = built(&manifest, &PolicyRequest::default()).unwrap();
    assert_eq!((job["apiVersion"].as_str(), job["kind"].as_str()), (Some("batch/v1"), Some("Job")));
    let metadata = &job["metadata"];
    assert_eq!(metadata["name"], RECORD);
    assert_eq!(metadata["labels"], json!({ "team": "a", "podbroker.io/attempt": "1" }));
    assert_eq!(metadata["annotations"], json!({ "podbroker.io/record": format!("{RECORD}/uid-1") }));
    let owner = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": RECORD, "uid": "uid-1" }]);
    assert_eq!(metadata["ownerReferences"], owner);
    assert_eq!(job["spec"]["template"]["metadata"]["labels"], json!({ "podbroker.io/attempt": "1" }));
    assert_eq!(job["spec"]["template"]["spec"]["restartPolicy"], "Never");
    assert!(job["spec"].get("activeDeadlineSeconds").is_none());
}

#[test]
fn everything_that_is_wrong_is_named() {
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "status": {},
        "metadata": {
            "uid": "x", "namespace": "elsewhere", "ownerReferences": [{}], "labels": { "podbroker.io/a": "b" },
            "annotations": [],
        },
        "spec": {
            "selector": {}, "manualSelector": true, "managedBy": "kueue.x-k8s.io/multikueue", "parallelism": 0,
            "ttlSecondsAfterFinished": 5,
            "template": { "metadata": { "annotations": { "podbroker.io/c": "d" } }, "spec": { "containers": [] } },
        },
    });
    let policies = PolicyRequest { deciding_containers: vec!["base".to_owned()], ..PolicyRequest::default() };
    let mut found = fields(&manifest, &policies);
    found.sort();
    found.dedup();
    let expected = [
        "apiVersion",
        "kind",
        "metadata.annotations",
        "metadata.labels[podbroker.io/a]",
        "metadata.namespace",
        "metadata.ownerReferences",
        "metadata.uid",
        "policies.deciding_containers",
        "spec.managedBy",
        "spec.manualSelector",
        "spec.parallelism",
        "spec.selector",
        "spec.template.metadata.annotations[podbroker.io/c]",
        "spec.template.spec.containers",
        "spec.ttlSecondsAfterFinished",
        "status",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_is_missing_is_named() {
    for (manifest, field) in [
        (json!({}), "spec"),
        (json!({ "spec": {} }), "spec.template"),
        (json!({ "spec": { "template": {} } }), "spec.template.spec"),
        (json!({ "spec": { "template": { "spec": {} } } }), "spec.template.spec.containers"),
        (json!({ "spec": { "template": [] } }), "spec.template"),
    ] {
        assert_eq!(fields(&manifest, &PolicyRequest::default()), [field], "{manifest}");
    }
}

#[test]
fn a_ttl_that_is_as_long_as_the_policy_and_what_the_cluster_may_decide_pass() {
    let policies = PolicyRequest { ttl: Some(std::time::Duration::from_mins(5)), ..PolicyRequest::default() };
    let mut manifest = minimal();
    manifest["spec"]["ttlSecondsAfterFinished"] = json!(300);
    manifest["spec"]["managedBy"] = json!(OWN_CONTROLLER);
    manifest["spec"]["suspend"] = json!(true);
    manifest["spec"]["manualSelector"] = json!(false);
    manifest["spec"]["selector"] = Value::Null;
    manifest["spec"]["anything"] = json!({ "newer": "than we know" });
    let job = built(&manifest, &policies).unwrap();
    assert_eq!(job["spec"]["suspend"], json!(true));
    assert_eq!(job["spec"]["anything"], json!({ "newer": "than we know" }));
}

#[test]
fn the_shorter_of_two_deadlines_is_the_jobs() {
    let run = |seconds| PolicyRequest {
        run_deadline: Some(std::time::Duration::from_millis(seconds)),
        ..PolicyRequest::default()
    };
    let mut manifest = minimal();
    assert_eq!(built(&manifest, &run(1_500)).unwrap()["spec"]["activeDeadlineSeconds"], json!(2));
    manifest["spec"]["activeDeadlineSeconds"] = json!(60);
    assert_eq!(built(&manifest, &run(90_000)).unwrap()["spec"]["activeDeadlineSeconds"], json!(60));
    assert_eq!(built(&manifest, &run(30_000)).unwrap()["spec"]["activeDeadlineSeconds"], json!(30));
}

#[test]
fn a_result_is_the_last_word_of_the_one_container_that_decides() {
    let mut policies = PolicyRequest { result: Some(ResultSource::TerminationMessage), ..PolicyRequest::default() };
    let mut manifest = minimal();
    let job = built(&manifest, &policies).unwrap();
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["terminationMessagePath"], RESULT_PATH);
    let both = json!([{ "name": "main", "image": "a" }, { "name": "other", "image": "a" }]);
    manifest["spec"]["template"]["spec"]["containers"] = both;
    assert_eq!(fields(&manifest, &policies), ["policies.result.source"]);
    policies.deciding_containers = vec!["other".to_owned()];
    let job = built(&manifest, &policies).unwrap();
    let containers = &job["spec"]["template"]["spec"]["containers"];
    assert!(containers[0].get("terminationMessagePath").is_none());
    assert_eq!(containers[1]["terminationMessagePath"], RESULT_PATH);
}

#[test]
fn a_pod_is_refused_where_jobs_run() {
    let policies = PolicyRequest::default().resolve(&PolicyDefaults::default()).unwrap();
    let workload = Workload::Pod(minimal().as_object().unwrap().clone());
    let work = Work { name: RECORD, key: "a/b", workload: &workload, policies: &policies, labels: &labels() };
    let error = build(&settings(), &work).unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { field: "workload", .. }), "{error}");
}

#[test]
fn a_long_name_keeps_its_end() {
    assert_eq!(name(RECORD), RECORD);
    let long = "a-very-long-name-of-a-task-that-goes-on--slgvmirenqmnjaxo-12-1";
    let short = name(long);
    assert!(short.len() <= LONGEST_NAME && long.ends_with(short) && !short.starts_with('-'), "{short}");
}

#[test]
fn what_a_check_tries_is_a_job_that_could_be_ours() {
    let sample = sample(&settings());
    assert_eq!(sample["metadata"]["labels"], sample["spec"]["template"]["metadata"]["labels"]);
    assert_eq!(sample["metadata"]["namespace"], settings().namespace);
}
