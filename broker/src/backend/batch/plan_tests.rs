use super::*;
use crate::backend::batch::settings_for_tests as settings;
use crate::execution::{InfraRetryRequest, PolicyDefaults, PolicyRequest};

const KEY: &str = "main/default/jobs/etl@1/1";

fn policies() -> Policies {
    PolicyRequest::default().resolve(&PolicyDefaults::default()).unwrap()
}

fn planned(settings: &Settings, workload: &Workload, policies: &Policies) -> Result<Plan, Error> {
    let labels = [("podbroker.io/attempt".to_owned(), "1".to_owned())];
    plan(settings, &Work { name: "etl-1", key: KEY, workload, policies, labels: &labels })
}

fn fields(planned: Result<Plan, Error>) -> Vec<String> {
    match planned.unwrap_err() {
        Error::InvalidSpec { violations } => violations.into_iter().map(|violation| violation.field).collect(),
        Error::InvalidRequest { field, .. } => vec![field.to_owned()],
        other => panic!("{other}"),
    }
}

fn pod(spec: &Value) -> Workload {
    let Value::Object(manifest) = json!({ "spec": spec }) else { unreachable!() };
    Workload::Pod(manifest)
}

fn batch(change: impl FnOnce(&mut BatchWork)) -> Workload {
    let mut work = BatchWork { job_definition: "etl:3".to_owned(), ..BatchWork::default() };
    change(&mut work);
    Workload::Batch(Box::new(work))
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!() };
    object
}

#[test]
fn a_pod_is_one_attempt_of_the_configured_definition() {
    let mut policies = policies();
    policies.run_deadline = Some(Duration::from_millis(90_500));
    let workload = pod(&json!({ "containers": [{ "name": "base", "args": ["a"] }], "activeDeadlineSeconds": 300 }));
    let plan = planned(&settings(), &workload, &policies).unwrap();
    assert_eq!(
        plan.to_json(),
        json!({ "SubmitJob": {
            "jobName": "etl-1",
            "jobQueue": "queue",
            "jobDefinition": "pods",
            "retryStrategy": { "attempts": 1 },
            "timeout": { "attemptDurationSeconds": 91 },
            "tags": { "podbroker.io/instance": "main", "podbroker.io/attempt": KEY },
            "eksPropertiesOverride": { "podProperties": {
                "containers": [{ "name": "base", "args": ["a"] }],
                "metadata": { "namespace": "jobs", "labels": { "podbroker.io/attempt": "1" } },
            } },
        } })
    );
}

#[test]
fn a_job_is_what_was_asked_for_with_the_broker_s_marks_on_it() {
    let workload = batch(|work| {
        work.job_queue = Some("arn:aws:batch:us-east-1:111122223333:job-queue/urgent".to_owned());
        work.parameters = [("date".to_owned(), "2026-11-22".to_owned())].into();
        work.array_size = Some(20);
        work.depends_on = vec!["j-1".to_owned()];
        work.share_identifier = Some("team".to_owned());
        work.scheduling_priority = Some(5);
        work.attempts = Some(3);
        work.attempt_timeout = Some(Duration::from_mins(2));
        work.tags = [("team".to_owned(), "data".to_owned())].into();
        work.eks_properties_override = object(json!({ "podProperties": {
            "containers": [{ "name": "Default", "command": ["c"], "resources": { "limits": { "memory": "1Gi" } } }],
            "metadata": { "labels": { "a": "b" } },
        } }));
    });
    assert_eq!(
        planned(&settings(), &workload, &policies()).unwrap().to_json(),
        json!({ "SubmitJob": {
            "jobName": "etl-1",
            "jobQueue": "urgent",
            "jobDefinition": "etl:3",
            "parameters": { "date": "2026-11-22" },
            "arrayProperties": { "size": 20 },
            "dependsOn": [{ "jobId": "j-1" }],
            "shareIdentifier": "team",
            "schedulingPriorityOverride": 5,
            "retryStrategy": { "attempts": 3 },
            "timeout": { "attemptDurationSeconds": 120 },
            "tags": { "team": "data", "podbroker.io/instance": "main", "podbroker.io/attempt": KEY },
            "eksPropertiesOverride": { "podProperties": {
                "containers": [{ "name": "Default", "command": ["c"], "resources": { "limits": { "memory": "1024Mi" } } }],
                "metadata": { "namespace": "jobs", "labels": { "a": "b", "podbroker.io/attempt": "1" } },
            } },
        } })
    );
}

#[test]
fn what_is_not_asked_for_is_left_to_the_definition() {
    let plan = planned(&settings(), &batch(|_| ()), &policies()).unwrap();
    let fields: Vec<_> = plan.submit.keys().map(String::as_str).collect();
    assert_eq!(fields, ["eksPropertiesOverride", "jobDefinition", "jobName", "jobQueue", "tags"]);
}

#[test]
fn only_one_of_the_two_retries() {
    let mut policies = policies();
    policies.infra_retry = Some(InfraRetryRequest::default().resolve().unwrap());
    let one = planned(&settings(), &batch(|_| ()), &policies).unwrap();
    assert_eq!(one.submit["retryStrategy"], json!({ "attempts": 1 }));
    assert!(planned(&settings(), &batch(|work| work.attempts = Some(1)), &policies).is_ok());
    let both = planned(&settings(), &batch(|work| work.attempts = Some(2)), &policies);
    assert_eq!(fields(both), ["policies.infra_retry"]);
}

#[test]
fn everything_that_cannot_be_is_said_at_once() {
    let mut policies = policies();
    policies.run_deadline = Some(Duration::from_secs(59));
    policies.result = ResultSource::Sidecar;
    policies.deciding_containers = vec!["other".to_owned()];
    let spec = json!({ "containers": [{ "name": "base", "ports": [{ "containerPort": 1 }] }] });
    assert_eq!(
        fields(planned(&settings(), &pod(&spec), &policies)),
        [
            "policies.result.source",
            "policies.deciding_containers",
            "policies.deadlines.run",
            "spec.containers[0].ports",
        ]
    );
    let workload = batch(|work| {
        work.attempt_timeout = Some(Duration::from_secs(1));
        work.tags = (0..49).map(|tag| (tag.to_string(), String::new())).collect();
        work.eks_properties_override =
            object(json!({ "podProperties": { "volumes": [], "metadata": { "namespace": "x" } } }));
    });
    assert_eq!(
        fields(planned(&settings(), &workload, &policies)),
        [
            "policies.result.source",
            "workload.batch.tags",
            "policies.deadlines.run",
            "workload.batch.attempt_timeout",
            "eksPropertiesOverride.podProperties.volumes",
            "eksPropertiesOverride.podProperties.metadata.namespace",
        ]
    );
}

#[test]
fn another_queue_than_the_target_s_is_refused() {
    for (queue, is_known) in [
        ("queue", true),
        ("urgent", true),
        ("arn:aws:batch:us-east-1:111122223333:job-queue/queue", true),
        ("arn:aws:batch:us-east-1:111122223333:job-queue/other", false),
        ("other", false),
        ("", false),
    ] {
        let planned = planned(&settings(), &batch(|work| work.job_queue = Some(queue.to_owned())), &policies());
        assert_eq!(planned.is_ok(), is_known, "{queue}");
    }
    let mut settings = settings();
    settings.job_definition = None;
    let pod = pod(&json!({ "containers": [{ "name": "base" }] }));
    assert_eq!(fields(planned(&settings, &pod, &policies())), ["workload.pod"]);
}

#[test]
fn a_registered_definition_is_named_by_what_it_says() {
    let mut settings = settings();
    (settings.job_definition, settings.definitions) = (None, Definitions::Registered);
    let workload = |image: &str, argument: &str| {
        pod(
            &json!({ "containers": [{ "name": "base", "image": image, "args": [argument] }], "volumes": [{ "name": "v", "emptyDir": {} }] }),
        )
    };
    let definition = |image: &str, argument: &str| {
        let plan = planned(&settings, &workload(image, argument), &policies()).unwrap();
        let definition = plan.definition.unwrap();
        assert_eq!(plan.submit["jobDefinition"], definition["jobDefinitionName"]);
        definition
    };
    let one = definition("i", "1");
    assert_eq!(one, definition("i", "2"));
    assert_ne!(one["jobDefinitionName"], definition("j", "1")["jobDefinitionName"]);
    let name = one["jobDefinitionName"].as_str().unwrap();
    assert_eq!(name, format!("podbroker-{}", &one["tags"]["podbroker.io/digest"].as_str().unwrap()[..32]));
    assert_eq!(one["eksProperties"]["podProperties"]["volumes"], json!([{ "name": "v", "emptyDir": {} }]));
}

#[test]
fn what_is_too_long_for_aws_batch_is_refused_with_its_size() {
    let planned = planned(
        &settings(),
        &batch(|work| {
            work.parameters = [("p".to_owned(), "x".repeat(30 << 10))].into();
        }),
        &policies(),
    );
    let Err(Error::InvalidSpec { violations }) = planned else { panic!() };
    assert!(violations[0].why.contains("AWS Batch takes 30720"), "{violations:?}");
}

#[test]
fn a_key_that_no_tag_can_hold_is_told_by_its_digest() {
    assert_eq!(key_tag(KEY), KEY);
    let (tilde, long) = (key_tag("a~b"), key_tag(&"k".repeat(257)));
    assert!(tilde.starts_with("sha256:") && tilde.len() == 71 && tilde != long);
}
