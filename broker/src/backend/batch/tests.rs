//! What goes over the wire, against an HTTP double of AWS Batch and STS.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::*;
use crate::backend::Verdict;
use crate::backend::job::JobState;
use crate::backend::log_group::{LogGroupError, ShippedContainer, ShippedEvent};
use crate::execution::{BatchWork, EvaluateOnExit, Policies, PolicyDefaults, PolicyRequest};
use crate::identity::eks::{BatchSettings, CredentialsMode, EventsQueue, LogGroupName, RoleSettings, SessionPolicy};

/// What the double does with a request.
enum Answer {
    Json(u16, Value),
    /// An error of a kind that the header names.
    Refusal(u16, &'static str, &'static str),
    /// The connection breaks after the request was read.
    Cut,
    /// Nothing comes.
    Silence,
}

#[derive(Default)]
struct Script {
    answers: HashMap<String, VecDeque<Answer>>,
    requests: Vec<(String, Value, String)>,
}

type Shared = Arc<Mutex<Script>>;

struct Double {
    address: SocketAddr,
    script: Shared,
    stop: CancellationToken,
    events: Option<EventsQueue>,
    logs: Option<LogGroupName>,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn handle(State(script): State<Shared>, request: Request) -> Response {
    // SQS has all its operations at one path.
    let target = request.headers().get("x-amz-target").map(|value| value.to_str().unwrap());
    let path = target.unwrap_or(request.uri().path()).trim_start_matches("/v1/").to_owned();
    let signed =
        request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    let answer = {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        script.requests.push((path.clone(), body, signed));
        script.answers.get_mut(&path).and_then(VecDeque::pop_front)
    };
    let response = |status: u16| Response::builder().status(status);
    match answer {
        Some(Answer::Json(status, Value::String(xml))) => response(status).body(Body::from(xml)),
        Some(Answer::Json(status, json)) => response(status).body(Body::from(json.to_string())),
        Some(Answer::Refusal(status, kind, said)) => {
            response(status).header("x-amzn-ErrorType", kind).body(Body::from(json!({ "message": said }).to_string()))
        }
        Some(Answer::Cut) => {
            let broken = futures::stream::once(async { Err::<bytes::Bytes, _>(std::io::Error::other("cut")) });
            response(200).header("content-length", "100").body(Body::from_stream(broken))
        }
        Some(Answer::Silence) => std::future::pending().await,
        None => response(200).body(Body::from("{}")),
    }
    .unwrap()
}

impl Double {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, script, stop) = (listener.local_addr().unwrap(), Shared::default(), CancellationToken::new());
        let app = axum::Router::new().fallback(handle).with_state(Arc::clone(&script));
        let serve = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
        TaskTracker::new().spawn(async move { serve.await.unwrap() });
        Self { address, script, stop, events: None, logs: None }
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    fn answer(&self, operation: &str, answer: Answer) {
        self.script().answers.entry(operation.to_owned()).or_default().push_back(answer);
    }

    fn json(&self, operation: &str, json: Value) {
        self.answer(operation, Answer::Json(200, json));
    }

    /// What was asked of an operation, and forgotten with that.
    fn requests(&self, operation: &str) -> Vec<Value> {
        let mut script = self.script();
        let all = std::mem::take(&mut script.requests);
        let (these, others) = all.into_iter().partition(|(path, _, _)| path == operation);
        script.requests = others;
        Vec::into_iter(these).map(|(_, body, _)| body).collect()
    }

    fn access(&self, role: Option<RoleSettings>) -> BatchAccess {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(1))
            .operation_attempt_timeout(Duration::from_millis(1_500))
            .build();
        let aws = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "AKIDBASE", "s", None, None, "tests",
            )))
            .timeout_config(timeouts)
            .endpoint_url(format!("http://{}", self.address))
            .build();
        let (mode, definitions) = (CredentialsMode::Env, Definitions::Given);
        let (events, logs) = (self.events.clone(), self.logs.clone());
        let region = "us-east-1".to_owned();
        BatchAccess::new(&aws, BatchSettings { region, mode, role, definitions, events, logs })
    }

    fn jobs(&self, settings: Settings) -> Arc<dyn Jobs> {
        self.jobs_as(settings, None)
    }

    fn jobs_as(&self, settings: Settings, role: Option<RoleSettings>) -> Arc<dyn Jobs> {
        let (access, counters) = (self.access(role), BatchCounters::default());
        start(settings, access, &mut Accounts::default(), counters, &TaskTracker::new(), &self.stop)
    }
}

fn policies() -> Policies {
    PolicyRequest::default().resolve(&PolicyDefaults::default()).unwrap()
}

fn batch() -> Workload {
    Workload::Batch(Box::new(BatchWork { job_definition: "etl".to_owned(), ..BatchWork::default() }))
}

fn pod(spec: &Value) -> Workload {
    let Value::Object(manifest) = json!({ "spec": spec }) else { unreachable!() };
    Workload::Pod(manifest)
}

fn registering() -> Settings {
    Settings { job_definition: None, definitions: Definitions::Registered, ..settings_for_tests() }
}

const KEY: &str = "etl-1/4f6c";

fn work<'a>(workload: &'a Workload, policies: &'a Policies) -> Work<'a> {
    Work { name: "etl-1", key: KEY, workload, policies, labels: &[] }
}

async fn submit(jobs: &Arc<dyn Jobs>, workload: &Workload) -> Submission {
    jobs.submit(&work(workload, &policies())).await
}

fn planned(jobs: &Arc<dyn Jobs>, workload: &Workload) -> Value {
    serde_json::from_slice(&jobs.plan(&work(workload, &policies())).unwrap()).unwrap()
}

fn of_violations(error: Error) -> Vec<String> {
    let Error::InvalidSpec { violations } = error else { panic!("{error}") };
    violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn what_is_sent_is_what_was_planned() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    double.json("submitjob", json!({ "jobId": "j-1", "jobName": "etl-1" }));
    let mut full = BatchWork {
        job_definition: "etl:3".to_owned(),
        parameters: [("p".to_owned(), "v".to_owned())].into(),
        array_size: Some(20),
        depends_on: vec!["a".to_owned(), "b".to_owned()],
        share_identifier: Some("team".to_owned()),
        scheduling_priority: Some(7),
        attempts: Some(2),
        evaluate_on_exit: vec![EvaluateOnExit {
            on_status_reason: Some("Host EC2*".to_owned()),
            on_reason: Some("r".to_owned()),
            on_exit_code: Some("1*".to_owned()),
            action: "RETRY".to_owned(),
        }],
        attempt_timeout: Some(Duration::from_secs(61)),
        tags: [("t".to_owned(), "v".to_owned())].into(),
        ..BatchWork::default()
    };
    let overrides = json!({ "podProperties": {
        "containers": [{ "name": "Default", "image": "i", "command": ["c"], "args": ["a", "b"],
            "env": [{ "name": "A", "value": "1" }, { "name": "B" }],
            "resources": { "limits": { "cpu": "1", "memory": "512Mi" }, "requests": { "nvidia.com/gpu": "1" } } }],
        "initContainers": [{ "name": "first", "args": [] }],
        "metadata": { "labels": { "l": "1" }, "annotations": { "a": "2" } },
    } });
    full.eks_properties_override = overrides.as_object().unwrap().clone();
    let workload = Workload::Batch(Box::new(full));
    let Submission::Made { id } = submit(&jobs, &workload).await else { panic!() };
    assert_eq!(id, "j-1");
    assert_eq!(double.requests("submitjob"), [planned(&jobs, &workload)["SubmitJob"].clone()]);
}

#[tokio::test]
async fn a_definition_is_registered_as_planned_and_once_for_all_pods_of_its_kind() {
    let double = Double::start().await;
    let jobs = double.jobs(registering());
    let workload = |argument: &str| {
        pod(&json!({
            "serviceAccountName": "s", "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet",
            "imagePullSecrets": [{ "name": "p" }], "shareProcessNamespace": true,
            "volumes": [
                { "name": "a", "emptyDir": { "medium": "Memory", "sizeLimit": "1Gi" } },
                { "name": "b", "hostPath": { "path": "/b" } },
                { "name": "c", "secret": { "secretName": "s", "optional": true } },
                { "name": "d", "persistentVolumeClaim": { "claimName": "c", "readOnly": false } },
                { "name": "e", "emptyDir": {} },
            ],
            "initContainers": [{ "name": "first", "image": "i" }],
            "containers": [{ "name": "base", "image": "i", "imagePullPolicy": "Always", "args": [argument],
                "resources": { "requests": { "cpu": "1" } },
                "volumeMounts": [{ "name": "a", "mountPath": "/a", "subPath": "x", "readOnly": true }],
                "securityContext": { "runAsUser": 1, "runAsGroup": 2, "privileged": false, "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true, "runAsNonRoot": true } }],
        }))
    };
    let plan = planned(&jobs, &workload("1"));
    double.json("registerjobdefinition", json!({ "jobDefinitionName": "x", "jobDefinitionArn": "arn", "revision": 4 }));
    for id in ["j-1", "j-2"] {
        double.json("submitjob", json!({ "jobId": id, "jobName": "etl-1" }));
        assert!(matches!(submit(&jobs, &workload(id)).await, Submission::Made { .. }));
    }
    assert_eq!(double.requests("registerjobdefinition"), [plan["RegisterJobDefinition"].clone()]);
    let name = plan["RegisterJobDefinition"]["jobDefinitionName"].as_str().unwrap();
    let used: Vec<_> = double.requests("submitjob").iter().map(|job| job["jobDefinition"].clone()).collect();
    assert_eq!(used, [json!(format!("{name}:4")), json!(format!("{name}:4"))]);

    // Another replica finds it, by what it says and not by its name alone.
    let digest = plan["RegisterJobDefinition"]["tags"]["podbroker.io/digest"].clone();
    let definition = |revision: u32, digest: Value| {
        json!({ "jobDefinitionName": name, "jobDefinitionArn": "arn", "revision": revision, "type": "container", "status": "ACTIVE",
            "tags": { "podbroker.io/digest": digest } })
    };
    let found = [definition(4, digest.clone()), definition(5, digest), definition(6, json!("other"))];
    double.json("describejobdefinitions", json!({ "jobDefinitions": found }));
    let another = double.jobs(registering());
    double.json("submitjob", json!({ "jobId": "j-3", "jobName": "etl-1" }));
    submit(&another, &workload("3")).await;
    assert_eq!(double.requests("registerjobdefinition").len(), 0);
    assert_eq!(double.requests("submitjob")[0]["jobDefinition"], json!(format!("{name}:5")));
}

#[tokio::test]
async fn a_submit_is_sent_once_whatever_comes_of_it() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    let cases: [(Answer, &str); 9] = [
        (Answer::Json(200, json!({ "jobId": "j", "jobName": "n" })), "made"),
        (Answer::Json(200, json!({})), "unknown"),
        (Answer::Refusal(500, "ServerException", "oh"), "unknown"),
        (Answer::Cut, "unknown"),
        (Answer::Silence, "unknown"),
        (Answer::Refusal(429, "TooManyRequestsException", "slow down"), "not made"),
        (Answer::Refusal(403, "ExpiredTokenException", "over"), "not made"),
        (Answer::Refusal(400, "ClientException", "no such queue"), "refused InvalidSpec"),
        (Answer::Refusal(403, "AccessDeniedException", "no"), "refused AdmissionDenied"),
    ];
    for (answer, expected) in cases {
        double.answer("submitjob", answer);
        let said = match submit(&jobs, &batch()).await {
            Submission::Made { .. } => "made".to_owned(),
            Submission::Refused { class, message } => {
                assert!(message.starts_with("AWS Batch refuses SubmitJob: "), "{message}");
                format!("refused {class:?}")
            }
            Submission::NotMade(_) => "not made".to_owned(),
            Submission::Unknown(_) => "unknown".to_owned(),
        };
        assert_eq!(said, expected);
        assert_eq!(double.requests("submitjob").len(), 1, "{expected}");
    }
}

#[tokio::test]
async fn where_nobody_listens_nothing_is_made() {
    let mut double = Double::start().await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    double.address = free.local_addr().unwrap();
    drop(free);
    let jobs = double.jobs(settings_for_tests());
    let Submission::NotMade(error) = submit(&jobs, &batch()).await else { panic!() };
    assert!(matches!(error, Error::Backend { operation: "SubmitJob", .. }), "{error:?}");
}

#[tokio::test]
async fn a_definition_that_was_deregistered_is_registered_anew_and_a_bad_one_is_refused() {
    let double = Double::start().await;
    let jobs = double.jobs(registering());
    let workload = pod(&json!({ "containers": [{ "name": "base", "image": "i" }] }));
    double.json("registerjobdefinition", json!({ "jobDefinitionName": "x", "jobDefinitionArn": "arn", "revision": 1 }));
    double.answer("submitjob", Answer::Refusal(400, "ClientException", "bad"));
    // It was registered just now: another one would be as bad.
    assert!(matches!(submit(&jobs, &workload).await, Submission::Refused { class: FailureClass::InvalidSpec, .. }));
    double.answer("registerjobdefinition", Answer::Refusal(403, "AccessDeniedException", "no"));
    let other = pod(&json!({ "containers": [{ "name": "base", "image": "j" }] }));
    let Submission::Refused { class, message } = submit(&jobs, &other).await else { panic!() };
    assert_eq!(class, FailureClass::AdmissionDenied);
    assert!(message.contains("RegisterJobDefinition"), "{message}");
    assert_eq!(double.requests("submitjob").len(), 1);
}

fn summary(id: &str, name: &str, created: i64) -> Value {
    json!({ "jobId": id, "jobName": name, "createdAt": created, "status": "RUNNABLE" })
}

fn detail(id: &str, key: &str, created: i64, state: &str) -> Value {
    json!({ "jobId": id, "jobName": "etl-1", "jobQueue": "queue", "jobDefinition": "d", "startedAt": 0, "createdAt": created,
        "status": state, "tags": { "podbroker.io/attempt": key } })
}

#[tokio::test]
async fn the_jobs_of_an_attempt_are_found_oldest_first_with_those_that_are_not_described_yet() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    double.answer("listjobs", Answer::Refusal(500, "ServerException", "again"));
    double.json(
        "listjobs",
        json!({ "jobSummaryList": [summary("new", "etl-1", 30), summary("case", "ETL-1", 1)], "nextToken": "t" }),
    );
    double.json("listjobs", json!({ "jobSummaryList": [summary("other", "etl-1", 5), summary("old", "etl-1", 10)] }));
    double.json("listjobs", json!({ "jobSummaryList": [summary("urgent", "etl-1", 20)] }));
    double.json("describejobs", json!({ "jobs": [
        detail("old", KEY, 10, "RUNNING"), detail("other", "etl-1/another", 5, "RUNNING"), detail("urgent", KEY, 20, "FAILED"),
    ] }));
    let found = jobs.find("etl-1", KEY).await.unwrap();
    let ids: Vec<_> = found.iter().map(|job| (job.id.as_str(), job.state, job.key.as_str())).collect();
    assert_eq!(
        ids,
        [("old", JobState::Running, KEY), ("urgent", JobState::Failed, KEY), ("new", JobState::Runnable, KEY),]
    );
    let filter = json!([{ "name": "JOB_NAME", "values": ["etl-1"] }]);
    let page = json!({ "jobQueue": "queue", "filters": filter });
    assert_eq!(
        double.requests("listjobs"),
        [
            page.clone(),
            page,
            json!({ "jobQueue": "queue", "filters": filter, "nextToken": "t" }),
            json!({ "jobQueue": "urgent", "filters": filter }),
        ]
    );
    assert_eq!(double.requests("describejobs"), [json!({ "jobs": ["new", "old", "other", "urgent"] })]);
}

#[tokio::test]
async fn an_end_says_why_and_one_that_is_forgotten_has_ended() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    jobs.end("j", &"é".repeat(2_000)).await.unwrap();
    jobs.end("j", "").await.unwrap();
    double.answer("terminatejob", Answer::Refusal(400, "ClientException", "Job j does not exist."));
    jobs.end("j", "why").await.unwrap();
    double.answer("terminatejob", Answer::Refusal(403, "AccessDeniedException", "no"));
    let denied = jobs.end("j", "why").await.unwrap_err();
    assert!(denied.to_string().contains("TerminateJob"), "{denied}");
    let reasons: Vec<_> =
        double.requests("terminatejob").into_iter().map(|request| request["reason"].clone()).collect();
    assert_eq!(reasons, [json!("é".repeat(1_024)), json!("ended by podbroker"), json!("why"), json!("why")]);
}

#[tokio::test]
async fn what_is_followed_is_described_and_its_change_told() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    let mut changes = jobs.changes();
    let described = json!({ "jobs": [detail("a", KEY, 1, "FAILED"), detail("b", KEY, 2, "RUNNING")] });
    double.json("describejobs", described);
    jobs.follow("a");
    jobs.follow("b");
    jobs.hasten("a");
    let told =
        tokio::time::timeout(Duration::from_secs(5), changes.by_ref().take(2).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(
        told.iter().map(|job| (job.id.as_str(), job.state)).collect::<Vec<_>>(),
        [("a", JobState::Failed), ("b", JobState::Running),]
    );
    assert_eq!(double.requests("describejobs"), [json!({ "jobs": ["a", "b"] })]);
}

fn queue(state: &str) -> Value {
    json!({ "jobQueues": [{ "jobQueueName": "queue", "jobQueueArn": "arn", "state": state, "status": "VALID", "priority": 1,
        "computeEnvironmentOrder": [{ "order": 1, "computeEnvironment": "c" }] }] })
}

fn definitions(containers: &Value) -> Value {
    json!({ "jobDefinitions": [{ "jobDefinitionName": "pods", "jobDefinitionArn": "arn", "revision": 3, "type": "container",
        "status": "ACTIVE", "eksProperties": { "podProperties": { "containers": containers } } }] })
}

#[tokio::test]
async fn a_validation_asks_whether_queue_and_definition_would_take_it() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    let policies = policies();
    let base = pod(&json!({ "containers": [{ "name": "base" }], "initContainers": [{ "name": "first" }] }));
    double.json("describejobqueues", queue("ENABLED"));
    double.json("describejobdefinitions", definitions(&json!([{ "name": "base", "image": "i" }])));
    let error = jobs.validate(&work(&base, &policies)).await.unwrap_err();
    assert_eq!(of_violations(error), ["spec.initContainers[0].name"]);
    double.json("describejobqueues", queue("DISABLED"));
    double.json("describejobdefinitions", json!({ "jobDefinitions": [] }));
    let error = jobs.validate(&work(&batch(), &policies)).await.unwrap_err();
    assert_eq!(of_violations(error), ["workload.batch.job_queue", "workload.batch.job_definition"]);
    double.json("describejobqueues", queue("ENABLED"));
    double.json("describejobdefinitions", definitions(&json!([{ "name": "base", "image": "i" }])));
    let base = pod(&json!({ "containers": [{ "name": "base" }] }));
    jobs.validate(&work(&base, &policies)).await.unwrap();
    assert_eq!(double.requests("submitjob").len(), 0);
    assert_eq!(double.requests("describejobqueues")[0], json!({ "jobQueues": ["queue"] }));
    let asked = json!({ "jobDefinitionName": "pods", "status": "ACTIVE" });
    assert_eq!(double.requests("describejobdefinitions")[0], asked);
}

const IDENTITY: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
    <Arn>arn:aws:sts::111122223333:assumed-role/Jobs/podbroker</Arn><UserId>A</UserId><Account>111122223333</Account>\
    </GetCallerIdentityResult></GetCallerIdentityResponse>";

const SESSION: &str = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
    <AccessKeyId>ASIASESSION</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
    <Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";

fn role() -> RoleSettings {
    RoleSettings {
        arn: "arn:aws:iam::111122223333:role/Jobs".to_owned(),
        session_name: "podbroker".to_owned(),
        external_id: None,
        source_identity: None,
        tags: std::collections::BTreeMap::new(),
        policy: SessionPolicy::Narrow,
        duration: Duration::from_hours(1),
    }
}

#[tokio::test]
async fn requests_are_signed_by_a_session_of_the_role_that_runs_jobs_only() {
    let double = Double::start().await;
    let jobs = double.jobs_as(settings_for_tests(), Some(role()));
    double.json("/", json!(SESSION));
    for _ in 0..2 {
        jobs.end("j", "why").await.unwrap();
    }
    let asked = double.requests("/");
    assert_eq!(asked.len(), 1, "the role is assumed once");
    let asked = asked[0].as_str().unwrap();
    assert!(
        asked.contains("Action=AssumeRole") && asked.contains("batch%3ASubmitJob") && !asked.contains("eks%3A"),
        "{asked}"
    );
    let signed: Vec<_> = double.script().requests.iter().map(|(_, _, signed)| signed.clone()).collect();
    assert!(signed.len() == 2 && signed.iter().all(|signed| signed.contains("Credential=ASIASESSION/")), "{signed:?}");
}

#[tokio::test]
async fn a_role_that_does_not_let_us_in_is_named_with_its_link() {
    let double = Double::start().await;
    let jobs = double.jobs_as(settings_for_tests(), Some(role()));
    let refusal = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>";
    for _ in 0..8 {
        double.answer("/", Answer::Json(403, json!(refusal)));
    }
    let Submission::NotMade(error) = submit(&jobs, &batch()).await else { panic!() };
    assert!(matches!(&error, Error::CredentialsRefused { target, link: "role", .. } if target == "jobs"), "{error:?}");
    let checks: Vec<_> = jobs.check().collect().await;
    assert!(matches!(&checks[0].verdict, Verdict::Failed { fix } if fix.contains("trust policy")), "{checks:?}");
    assert!(checks[1..].iter().all(|check| check.verdict == Verdict::Skipped) && checks.len() == 7);
}

fn environment(namespace: &str) -> Value {
    json!({ "computeEnvironments": [{ "computeEnvironmentName": "c", "computeEnvironmentArn": "arn", "state": "ENABLED",
        "status": "VALID", "serviceRole": "the-role", "eksConfiguration": { "kubernetesNamespace": namespace,
        "eksClusterArn": "arn:aws:eks:us-east-1:111122223333:cluster/demo" } }] })
}

fn one_queue() -> Settings {
    Settings { more_queues: Vec::new(), ..settings_for_tests() }
}

/// What a check says when everything is there but what was answered otherwise before.
async fn checked(double: &Double, jobs: &Arc<dyn Jobs>) -> Vec<(&'static str, String, Verdict, String)> {
    double.json("/", json!(IDENTITY));
    double.json("describejobqueues", queue("ENABLED"));
    double.json("describecomputeenvironments", environment("jobs"));
    double.json("describejobdefinitions", definitions(&json!([{ "name": "base", "image": "i" }])));
    double.answer("submitjob", Answer::Refusal(400, "ClientException", "no scheduling policy"));
    let checks: Vec<_> = jobs.check().collect().await;
    double.script().answers.retain(|operation, _| operation.starts_with("AmazonSQS"));
    checks.into_iter().map(|check| (check.link, check.subject, check.verdict, check.detail)).collect()
}

fn fix_of<'a>(checks: &'a [(&'static str, String, Verdict, String)], link: &str) -> &'a str {
    match checks.iter().find(|(name, ..)| *name == link) {
        Some((_, _, Verdict::Failed { fix } | Verdict::Warned { fix }, _)) => fix,
        other => panic!("{link}: {other:?} of {checks:#?}"),
    }
}

#[tokio::test]
async fn a_check_walks_from_the_identity_to_a_submit_that_makes_nothing() {
    let double = Double::start().await;
    let jobs = double.jobs(one_queue());
    let checks = checked(&double, &jobs).await;
    let links: Vec<_> = checks.iter().map(|(link, subject, ..)| (*link, subject.as_str())).collect();
    assert_eq!(
        links,
        [
            ("batch-identity", ""),
            ("batch-queue", "queue"),
            ("batch-compute-environment", "c"),
            ("batch-service-role", "c"),
            ("batch-definition", "pods"),
            ("batch-jobs", ""),
            ("batch-submit", "queue"),
        ]
    );
    let broken = |(link, _, verdict, _): &&(&str, String, Verdict, String)| {
        *verdict != Verdict::Passed && *link != "batch-definition"
    };
    assert_eq!(checks.iter().find(broken), None);
    assert!(checks[0].3.contains("assumed-role/Jobs/podbroker"));
    // The double's definition says nothing of the network.
    assert!(checks[4].3.starts_with("pods:3 runs base; "), "{}", checks[4].3);
    assert!(fix_of(&checks, "batch-definition").contains("hostNetwork: false"));
    assert_eq!(checks[6].3, "jobs from pods may be submitted");
    assert_eq!(double.requests("describecomputeenvironments"), [json!({ "computeEnvironments": ["c"] })]);
    assert_eq!(double.requests("submitjob").len(), 1);
    assert_eq!(double.requests("terminatejob").len(), 0);
}

#[tokio::test]
async fn a_check_says_what_is_wrong_behind_the_identity_and_how_to_mend_it() {
    let double = Double::start().await;
    let jobs = double.jobs(one_queue());

    double.json("describejobqueues", queue("DISABLED"));
    double.json("describecomputeenvironments", environment("other"));
    double.answer("listjobs", Answer::Refusal(403, "AccessDeniedException", "no"));
    let checks = checked(&double, &jobs).await;
    assert_eq!(fix_of(&checks, "batch-queue"), "enable the queue");
    assert_eq!(fix_of(&checks, "batch-compute-environment"), "set the target's namespace to other");
    assert!(fix_of(&checks, "batch-jobs").starts_with("allow batch:ListJobs"));
    assert_eq!(checks.last().unwrap().2, Verdict::Skipped, "a queue that is disabled refuses every submit");

    double.json("describejobqueues", json!({ "jobQueues": [] }));
    double.json("describejobdefinitions", json!({ "jobDefinitions": [] }));
    let checks = checked(&double, &jobs).await;
    assert!(fix_of(&checks, "batch-queue").starts_with("check batch.queue"));
    assert_eq!((&checks[2].2, &checks[3].2), (&Verdict::Skipped, &Verdict::Skipped));
    assert_eq!(fix_of(&checks, "batch-definition"), "register it, or correct batch.job_definition");

    double.json("describecomputeenvironments", json!({ "computeEnvironments": [] }));
    let checks = checked(&double, &jobs).await;
    assert_eq!(fix_of(&checks, "batch-compute-environment"), "take it out of the queue's order");
    assert_eq!(double.requests("submitjob").len(), 1, "only where the queue takes jobs and the definition is there");
}

#[tokio::test]
async fn a_check_finds_out_that_jobs_may_not_be_submitted_and_ends_one_that_is_taken_all_the_same() {
    let double = Double::start().await;
    let jobs = double.jobs(one_queue());
    double.answer("submitjob", Answer::Refusal(403, "AccessDeniedException", "not this tag"));
    let checks = checked(&double, &jobs).await;
    let fix = fix_of(&checks, "batch-submit");
    assert!(fix.contains("batch:SubmitJob") && fix.contains("podbroker.io/instance=main"), "{fix}");

    double.json("submitjob", json!({ "jobId": "j-1", "jobName": "podbroker-check" }));
    let checks = checked(&double, &jobs).await;
    let (.., verdict, detail) = checks.last().unwrap();
    assert!(*verdict == Verdict::Passed && detail.contains("j-1") && detail.contains("is being ended"), "{detail}");
    let ended = double.requests("terminatejob");
    assert_eq!(ended, [json!({ "jobId": "j-1", "reason": "podbroker: made by a check" })]);
}

/// A double with a queue of events, and what one request for messages is.
async fn with_events() -> (Double, Value) {
    let mut double = Double::start().await;
    let url = "https://sqs.us-east-1.amazonaws.com/111122223333/events".to_owned();
    let asked = json!({ "QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 30, "WaitTimeSeconds": 20 });
    double.events = Some(EventsQueue { url, account: "111122223333".to_owned(), name: "events".to_owned() });
    (double, asked)
}

#[tokio::test]
async fn an_end_that_a_queue_tells_of_is_described_and_the_message_deleted_by_the_role_s_session() {
    let (double, asked) = with_events().await;
    double.json("/", json!(SESSION));
    let event = event::event_for_tests("a", "FAILED").to_string();
    double.json("describejobs", json!({ "jobs": [detail("a", KEY, 1, "FAILED")] }));
    let message = |handle: &str, body: &str| json!({ "MessageId": handle, "ReceiptHandle": handle, "Body": body });
    let jobs = double.jobs_as(settings_for_tests(), Some(role()));
    let mut changes = jobs.changes();
    jobs.follow("a");
    double.json("AmazonSQS.ReceiveMessage", json!({ "Messages": [message("h-1", &event), message("h-2", "hello")] }));
    double.json("AmazonSQS.DeleteMessageBatch", json!({ "Successful": [], "Failed": [] }));
    double.answer("AmazonSQS.ReceiveMessage", Answer::Silence);
    let told = tokio::time::timeout(Duration::from_secs(5), changes.next()).await.unwrap().unwrap();
    assert_eq!((told.id.as_str(), told.state), ("a", JobState::Failed));
    assert_eq!(double.requests("AmazonSQS.ReceiveMessage")[0], asked);
    let deleted = json!({ "QueueUrl": asked["QueueUrl"],
        "Entries": [{ "Id": "0", "ReceiptHandle": "h-1" }, { "Id": "1", "ReceiptHandle": "h-2" }] });
    assert_eq!(double.requests("AmazonSQS.DeleteMessageBatch"), [deleted]);
    let session = double.requests("/")[0].as_str().unwrap().to_owned();
    assert!(session.contains("sqs%3AReceiveMessage") && session.contains("111122223333%3Aevents"), "{session}");
}

#[tokio::test]
async fn a_check_tells_how_the_receiver_fares_and_leaves_the_events_to_it() {
    let (double, _) = with_events().await;
    double.answer("AmazonSQS.ReceiveMessage", Answer::Refusal(403, "AccessDeniedException", "no"));
    let jobs = double.jobs(one_queue());
    let failed = async {
        loop {
            let checks = checked(&double, &jobs).await;
            if matches!(checks.last().unwrap().2, Verdict::Warned { .. }) {
                return checks;
            }
        }
    };
    let checks = tokio::time::timeout(Duration::from_secs(5), failed).await.unwrap();
    let last = checks.last().unwrap();
    assert_eq!((last.0, last.1.as_str()), ("batch-events", "events"));
    assert!(fix_of(&checks, "batch-events").starts_with("allow sqs:ReceiveMessage"));
}

#[tokio::test]
async fn targets_with_one_queue_of_events_have_one_receiver() {
    let (double, _) = with_events().await;
    let mut accounts = Accounts::default();
    for name in ["A", "B"] {
        let role = RoleSettings { arn: format!("arn:aws:iam::111122223333:role/{name}"), ..role() };
        let (access, tasks) = (double.access(Some(role)), TaskTracker::new());
        start(settings_for_tests(), access, &mut accounts, BatchCounters::default(), &tasks, &double.stop);
    }
    assert_eq!((accounts.receivers.len(), accounts.describers.len()), (1, 2));
}

#[tokio::test]
async fn roles_of_an_account_share_its_limit_and_one_role_its_descriptions() {
    let double = Double::start().await;
    let mut accounts = Accounts::default();
    let mut start_as = |name: Option<&str>| {
        let arn = |name: &str| format!("arn:aws:iam::111122223333:role/{name}");
        let role = name.map(|name| RoleSettings { arn: arn(name), ..role() });
        let (access, tasks) = (double.access(role), TaskTracker::new());
        start(settings_for_tests(), access, &mut accounts, BatchCounters::default(), &tasks, &double.stop);
    };
    for name in [Some("A"), Some("A"), Some("B"), None] {
        start_as(name);
    }
    assert_eq!((accounts.limiters.len(), accounts.describers.len()), (2, 3));
}

/// A double with a log group, and jobs that know it.
async fn with_logs(role: Option<RoleSettings>, account: Option<&str>) -> (Double, Arc<dyn Jobs>) {
    let mut double = Double::start().await;
    let name = "/aws/containerinsights/demo/application".to_owned();
    let identifier = match account {
        Some(account) => format!("arn:aws:logs:us-east-1:{account}:log-group:{name}"),
        None => name.clone(),
    };
    double.logs = Some(LogGroupName { identifier, name, account: account.map(str::to_owned) });
    let jobs = double.jobs_as(one_queue(), role);
    (double, jobs)
}

fn shipped() -> ShippedContainer {
    ShippedContainer { pod: "aws-batch.a".to_owned(), node: "n1".to_owned(), container: "main".to_owned() }
}

const STREAMS: &str = "Logs_20140328.DescribeLogStreams";
const EVENTS: &str = "Logs_20140328.GetLogEvents";

#[tokio::test]
async fn lines_are_read_from_the_log_group_by_a_session_that_may_do_that() {
    let (double, jobs) = with_logs(Some(role()), None).await;
    double.json("/", json!(SESSION));
    let group = jobs.log_group().unwrap();
    let id = "0123456789abcdef".repeat(4);
    let name = |container: &str| json!({ "logStreamName": format!("aws-batch.a_{container}-{id}") });
    double.json(STREAMS, json!({ "logStreams": [name("main"), name("main-2")] }));
    let found = group.find(&shipped()).await.unwrap();
    assert_eq!(found, [format!("aws-batch.a_main-{id}")]);
    let asked = json!({ "logGroupName": group.name(), "logStreamNamePrefix": "aws-batch.a_main-", "limit": 50 });
    assert_eq!(double.requests(STREAMS), [asked]);
    let session = double.requests("/")[0].as_str().unwrap().to_owned();
    assert!(session.contains("logs%3AGetLogEvents") && session.contains("demo%2Fapplication%3A%2A"), "{session}");

    let event = json!({ "timestamp": 7, "message": "hello", "ingestionTime": 8 });
    double.json(EVENTS, json!({ "events": [event], "nextForwardToken": "f/1", "nextBackwardToken": "b/0" }));
    double.json(EVENTS, json!({ "events": [], "nextForwardToken": "f/2" }));
    double.json(EVENTS, json!({ "events": [], "nextForwardToken": "f/2" }));
    let page = group.page(&found[0], Some(5), None).await.unwrap();
    assert_eq!(page.events, [ShippedEvent { millis: 7, message: "hello".to_owned() }]);
    assert_eq!((page.next.as_deref(), page.is_last), (Some("f/1"), false));
    // An empty page is the last one only if it leads to itself.
    assert!(!group.page(&found[0], Some(5), Some("f/1")).await.unwrap().is_last);
    assert!(group.page(&found[0], Some(5), Some("f/2")).await.unwrap().is_last);
    let asked = json!({
        "logGroupName": group.name(), "logStreamName": found[0], "startTime": 5, "startFromHead": true, "nextToken": "f/2",
    });
    assert_eq!(double.requests(EVENTS)[2], asked);
}

#[tokio::test]
async fn a_log_group_of_another_account_is_named_by_its_arn() {
    let (double, jobs) = with_logs(None, Some("444455556666")).await;
    let group = jobs.log_group().unwrap();
    assert_eq!(group.find(&shipped()).await, Ok(Vec::new()));
    group.page("s", None, None).await.unwrap();
    let arn = "arn:aws:logs:us-east-1:444455556666:log-group:/aws/containerinsights/demo/application";
    for operation in [STREAMS, EVENTS] {
        let asked = &double.requests(operation)[0];
        assert_eq!((&asked["logGroupIdentifier"], &asked["logGroupName"]), (&json!(arn), &Value::Null));
    }
}

#[tokio::test]
async fn a_log_group_that_does_not_let_us_in_says_so_and_one_that_is_away_may_come_back() {
    let (double, jobs) = with_logs(None, None).await;
    let group = jobs.log_group().unwrap();
    double.answer(STREAMS, Answer::Refusal(400, "AccessDeniedException", "not authorized"));
    let error = group.find(&shipped()).await.unwrap_err();
    assert!(
        matches!(&error, LogGroupError::Refused(why)
        if why.contains("refuses DescribeLogStreams: AccessDeniedException") && why.contains("allow logs:")),
        "{error}"
    );
    for _ in 0..5 {
        double.answer(EVENTS, Answer::Refusal(503, "ServiceUnavailableException", "later"));
    }
    let error = group.page("s", None, None).await.unwrap_err();
    assert!(matches!(&error, LogGroupError::Away(_)), "{error}");
}

#[tokio::test]
async fn a_check_tells_whether_the_log_group_can_be_read() {
    let (double, jobs) = with_logs(None, None).await;
    let last = |checks: Vec<(&'static str, String, Verdict, String)>| checks.into_iter().last().unwrap();
    double
        .answer(EVENTS, Answer::Refusal(400, "ResourceNotFoundException", "The specified log stream does not exist."));
    let (link, subject, verdict, _) = last(checked(&double, &jobs).await);
    assert_eq!((link, subject.as_str()), ("batch-logs", "/aws/containerinsights/demo/application"));
    assert_eq!(verdict, Verdict::Passed);
    for (operation, code, fix) in [
        (STREAMS, "ResourceNotFoundException", "check batch.log_group"),
        (STREAMS, "AccessDeniedException", "allow logs:DescribeLogStreams"),
        (EVENTS, "AccessDeniedException", "allow logs:DescribeLogStreams"),
    ] {
        double.answer(operation, Answer::Refusal(400, code, "no"));
        let (_, _, verdict, detail) = last(checked(&double, &jobs).await);
        assert!(
            matches!(&verdict, Verdict::Warned { fix: said } if said.contains(fix)),
            "{code}: {verdict:?} {detail}"
        );
        double.requests(EVENTS);
    }
}
