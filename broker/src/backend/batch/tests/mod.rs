//! What goes over the wire, against an HTTP double of AWS Batch and STS.

mod checks;
mod descriptions;
mod events;
mod log_group;
mod submits;

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

fn queue(state: &str) -> Value {
    json!({ "jobQueues": [{ "jobQueueName": "queue", "jobQueueArn": "arn", "state": state, "status": "VALID", "priority": 1,
        "computeEnvironmentOrder": [{ "order": 1, "computeEnvironment": "c" }] }] })
}

fn definitions(containers: &Value) -> Value {
    json!({ "jobDefinitions": [{ "jobDefinitionName": "pods", "jobDefinitionArn": "arn", "revision": 3, "type": "container",
        "status": "ACTIVE", "eksProperties": { "podProperties": { "containers": containers } } }] })
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

fn summary(id: &str, name: &str, created: i64) -> Value {
    json!({ "jobId": id, "jobName": name, "createdAt": created, "status": "RUNNABLE" })
}

fn detail(id: &str, key: &str, created: i64, state: &str) -> Value {
    json!({ "jobId": id, "jobName": "etl-1", "jobQueue": "queue", "jobDefinition": "d", "startedAt": 0, "createdAt": created,
        "status": state, "tags": { "podbroker.io/attempt": key } })
}

fn environment(namespace: &str) -> Value {
    json!({ "computeEnvironments": [{ "computeEnvironmentName": "c", "computeEnvironmentArn": "arn", "state": "ENABLED",
        "status": "VALID", "serviceRole": "the-role", "eksConfiguration": { "kubernetesNamespace": namespace,
        "eksClusterArn": "arn:aws:eks:us-east-1:111122223333:cluster/demo" } }] })
}

fn fix_of<'a>(checks: &'a [(&'static str, String, Verdict, String)], link: &str) -> &'a str {
    match checks.iter().find(|(name, ..)| *name == link) {
        Some((_, _, Verdict::Failed { fix } | Verdict::Warned { fix }, _)) => fix,
        other => panic!("{link}: {other:?} of {checks:#?}"),
    }
}
