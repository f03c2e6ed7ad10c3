//! A cluster with records, a batch service, and replicas between them: both are played, and what they answer is written by the
//! test.

mod batch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::api::{PodApi, Run};
use super::super::attempts::Attempts;
use super::super::carrier::Carrier;
use super::super::clock::ServerClock;
use super::super::events::{Access, Early};
use super::super::hub::{Hub, tests};
use super::super::view::View;
use super::super::{PodBackend, PodSettings, Spool, SpoolLimits, manifest};
use super::{JobKind, Ledger, RecordSettings, Runner};
use crate::backend::job::{Job, JobCounters, Jobs};
use crate::execution::{
    Address, BatchWork, CancelIntent, FailureClass, PolicyDefaults, PolicyRequest, Submit, SubmitMode, Workload,
};
use crate::identity::Connection;

pub(super) use self::batch::{Answer, Batch, attempt, job};

pub(super) const SETTLE: Duration = Duration::from_secs(30);

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_248_000 + second).unwrap()
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap()
}

/// An API server with the records of one namespace.
struct Cluster {
    now: Timestamp,
    version: u64,
    records: BTreeMap<String, Value>,
}

impl Cluster {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let path = path.strip_prefix("/api/v1/namespaces/n/").unwrap_or_default();
        if path.starts_with("pods/") && path.ends_with("/log") {
            return (200, json!("2026-11-21T08:00:10.5Z hello\n2026-11-21T08:00:11Z world\n"));
        }
        let Some(name) = path.strip_prefix("configmaps") else {
            return match path {
                "pods" | "events" => (200, json!({ "metadata": { "resourceVersion": "1" }, "items": [] })),
                _ => refused(404, "NotFound"),
            };
        };
        let name = name.trim_start_matches('/').to_owned();
        if name.is_empty() && *method == Method::GET {
            let items: Vec<_> = self.records.values().collect();
            return (200, json!({ "metadata": { "resourceVersion": self.version.to_string() }, "items": items }));
        }
        self.version += 1;
        if *method == Method::POST {
            let name = body["metadata"]["name"].as_str().unwrap().to_owned();
            if self.records.contains_key(&name) {
                return refused(409, "AlreadyExists");
            }
            let mut record = body.clone();
            record["metadata"]["uid"] = json!(format!("uid-{}", self.version));
            record["metadata"]["creationTimestamp"] = json!(self.now);
            return self.put(&name, record);
        }
        let Some(mut record) = self.records.get(&name).cloned() else { return refused(404, "NotFound") };
        if *method == Method::GET {
            return (200, record);
        }
        let wanted = if *method == Method::DELETE { &body["preconditions"] } else { &body["metadata"] };
        for field in ["uid", "resourceVersion"] {
            if !wanted[field].is_null() && wanted[field] != record["metadata"][field] {
                return refused(409, "Conflict");
            }
        }
        if *method == Method::DELETE {
            record["metadata"]["deletionTimestamp"] = json!(self.now);
        } else {
            for (key, value) in body["metadata"]["annotations"].as_object().into_iter().flatten() {
                record["metadata"]["annotations"][key] = value.clone();
            }
            if body["metadata"].get("$deleteFromPrimitiveList/finalizers").is_some() {
                record["metadata"]["finalizers"] = json!([]);
            }
        }
        let is_held = record["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
        if !record["metadata"]["deletionTimestamp"].is_null() && !is_held {
            self.records.remove(&name);
            return (200, record);
        }
        self.put(&name, record)
    }

    fn put(&mut self, name: &str, mut record: Value) -> (u16, Value) {
        record["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.records.insert(name.to_owned(), record.clone());
        (200, record)
    }
}

fn refused(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason }))
}

pub(super) fn settings() -> PodSettings {
    let records = RecordSettings {
        kind: JobKind::Batch,
        settle: SETTLE,
        queue_deadline: None,
        counters: Arc::new(JobCounters::default()),
    };
    PodSettings { records: Some(records), ..tests::settings() }
}

pub(super) fn address() -> Address {
    let PodSettings { instance, target, .. } = settings();
    Address { instance, tenant: "default".parse().unwrap(), target, id: "x".parse().unwrap() }
}

pub(super) fn submit(policies: &PolicyRequest) -> Submit {
    let work = BatchWork { job_definition: "etl:3".to_owned(), ..BatchWork::default() };
    Submit {
        id: address().id,
        submit_before: at(600),
        workload: Workload::Batch(Box::new(work)),
        labels: BTreeMap::new(),
        policies: policies.clone(),
        group: None,
        mode: SubmitMode::Create,
        subject: "ann".to_owned(),
    }
}

/// One cluster, one batch service, and any number of replicas.
pub(super) struct World {
    cluster: Arc<Mutex<Cluster>>,
    pub(super) batch: Arc<Batch>,
    pub(super) counters: Arc<JobCounters>,
    pub(super) queue_deadline: Option<Duration>,
}

/// One process of the broker.
pub(super) struct Replica {
    pub(super) hub: Arc<Hub>,
    pub(super) runner: Arc<Runner>,
    api: PodApi,
    tasks: TaskTracker,
    cluster: Arc<Mutex<Cluster>>,
}

impl World {
    pub(super) fn new() -> Self {
        let cluster = Cluster { now: at(0), version: 100, records: BTreeMap::new() };
        let (batch, counters) = (Arc::default(), Arc::default());
        Self { cluster: Arc::new(Mutex::new(cluster)), batch, counters, queue_deadline: None }
    }

    fn client(&self) -> kube::Client {
        let cluster = Arc::clone(&self.cluster);
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = Arc::clone(&cluster);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                if head.uri.query().is_some_and(|query| query.contains("watch=true")) {
                    // Nothing is told but by answers, and by the test.
                    std::future::pending::<()>().await;
                }
                let mut cluster = lock(&cluster);
                let date = cluster.now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
                let (code, answer) = cluster.answer(&head.method, head.uri.path(), &body);
                let bytes = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned).into_bytes();
                let response = Response::builder().status(code).header("date", date);
                Ok::<_, std::convert::Infallible>(response.body(Body::from(bytes)).unwrap())
            }
        });
        kube::Client::new(service, "n")
    }

    fn settings(&self) -> PodSettings {
        let mut settings = settings();
        let records = settings.records.as_mut().unwrap();
        (records.counters, records.queue_deadline) = (Arc::clone(&self.counters), self.queue_deadline);
        settings
    }

    pub(super) fn replica(&self, name: &str) -> Replica {
        let (settings, clock) = (self.settings(), ServerClock::default());
        let api = PodApi::new(self.client(), &settings, clock.clone());
        let jobs: Arc<dyn Jobs> = Arc::<Batch>::clone(&self.batch);
        let hub = Arc::new(Hub::new(Arc::new(settings), clock, Some(Arc::clone(&jobs))));
        let tasks = TaskTracker::new();
        let parts = (api.clone(), Arc::clone(&hub));
        let runner = Runner::new(parts, jobs, name.to_owned(), tasks.clone(), CancellationToken::new()).unwrap();
        Replica { hub, runner, api, tasks, cluster: Arc::clone(&self.cluster) }
    }

    /// A whole backend, in step with the cluster.
    pub(super) async fn backend(&self, stop: &CancellationToken) -> Arc<PodBackend> {
        let connection =
            Connection { client: self.client(), namespace: "n".to_owned(), endpoint: String::new(), chain: None };
        let tasks = TaskTracker::new();
        let spool = Spool::new(SpoolLimits::default(), tasks.clone());
        let jobs: Arc<dyn Jobs> = Arc::<Batch>::clone(&self.batch);
        let backend = PodBackend::start(self.settings(), connection, spool, None, Some(jobs), &tasks, stop);
        while !backend.hub.is_in_step() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        backend
    }

    /// Time passes at the cluster.
    pub(super) fn pass(&self, seconds: i64) {
        let mut cluster = lock(&self.cluster);
        cluster.now = cluster.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    /// What lets time pass from elsewhere.
    pub(super) fn passing(&self, seconds: i64) -> impl FnOnce() + Send + 'static {
        let cluster = Arc::clone(&self.cluster);
        move || {
            let mut cluster = lock(&cluster);
            cluster.now = cluster.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap();
        }
    }

    /// What writes an annotation into the only record, as somebody else would.
    pub(super) fn writing(&self, key: &'static str, value: &Value) -> impl FnOnce() + Send + 'static {
        let (cluster, value) = (Arc::clone(&self.cluster), value.to_string());
        move || {
            let mut cluster = lock(&cluster);
            let name = cluster.records.keys().next().unwrap().clone();
            let mut record = cluster.records[&name].clone();
            record["metadata"]["annotations"][key] = json!(value);
            cluster.version += 1;
            cluster.put(&name, record);
        }
    }

    /// Somebody writes an annotation into the only record.
    pub(super) fn write(&self, key: &'static str, value: &Value) {
        self.writing(key, value)();
    }

    /// Somebody deletes the only record; with its finalizer, too, if he does so by force.
    pub(super) fn delete(&self, by_force: bool) {
        let mut cluster = lock(&self.cluster);
        let name = cluster.records.keys().next().unwrap().clone();
        let path = format!("/api/v1/namespaces/n/configmaps/{name}");
        cluster.answer(&Method::DELETE, &path, &json!({}));
        if by_force {
            let without = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["podbroker.io/outcome"] } });
            cluster.answer(&Method::PATCH, &path, &without);
        }
    }

    /// Whether there is a record.
    pub(super) fn has_record(&self) -> bool {
        !lock(&self.cluster).records.is_empty()
    }

    /// An annotation of the only record.
    pub(super) fn annotation(&self, key: &str) -> Option<Value> {
        let cluster = lock(&self.cluster);
        let record = cluster.records.values().next()?;
        let text = record["metadata"]["annotations"][key].as_str()?;
        Some(serde_json::from_str(text).unwrap())
    }

    /// How the only record ended: state and class.
    pub(super) fn outcome(&self) -> Option<(String, Option<String>)> {
        let outcome = self.annotation("podbroker.io/outcome-is")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some((text(&outcome["state"]).unwrap(), text(&outcome["class"])))
    }
}

impl Replica {
    /// Creates the record and begins what follows.
    pub(super) async fn create(&self) {
        let submit = submit(&PolicyRequest::default());
        let policies = submit.policies.resolve(&PolicyDefaults::default()).unwrap();
        self.tell_time().await;
        let mut record = manifest::build(self.hub.settings(), &address(), 1, &submit, &policies, "digest").unwrap();
        self.runner.prepare(&mut record, &submit.workload, &policies).unwrap();
        let created = self.api.create(&record, "x", Run::Real).await.unwrap();
        let created: Carrier = serde_json::from_value(created).unwrap();
        let attempts = self.hub.learn(&created).unwrap();
        self.runner.begin(&attempts);
        self.rest().await;
    }

    /// The clock is set by any answer.
    async fn tell_time(&self) {
        let _ = self.api.get::<Carrier>("nobody").await;
    }

    /// Waits for what was begun.
    pub(super) async fn rest(&self) {
        while !self.tasks.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Hears what the watch would tell.
    pub(super) async fn hear(&self) {
        self.tell_time().await;
        let (records, version) = {
            let cluster = lock(&self.cluster);
            (cluster.records.clone(), cluster.version)
        };
        for record in records.values() {
            self.hub.apply(&serde_json::from_value(record.clone()).unwrap());
        }
        self.hub.keep_listed(&records.into_keys().collect(), version);
    }

    /// Does what is due now, by what was heard before. Returns what that was.
    pub(super) async fn turn(&self) -> Vec<super::Step> {
        let mut done = Vec::new();
        self.runner.end_abandoned();
        self.rest().await;
        while let Some((at, number, step)) = self.attempts().and_then(|attempts| self.runner.due(&attempts)) {
            if at > self.hub.clock.now() || done.len() > 10 {
                break;
            }
            done.push(step);
            self.runner.act_soon(&self.attempts().unwrap(), number, step);
            self.rest().await;
        }
        done
    }

    /// The only execution.
    pub(super) fn attempts(&self) -> Option<Arc<Attempts>> {
        self.hub.all().pop()
    }

    pub(super) fn latest(&self) -> Arc<View> {
        Arc::clone(self.attempts().unwrap().latest())
    }
}

/// An intent as a cancel writes it.
pub(super) fn intent() -> Value {
    let intent = CancelIntent {
        by: "ann".to_owned(),
        reason: "enough".to_owned(),
        class: FailureClass::CancelledByCaller,
        at: at(1),
    };
    serde_json::to_value(intent).unwrap()
}

/// A pod of the only record's job, as AWS Batch makes it.
#[expect(clippy::needless_pass_by_value, reason = "literals read better without a reference")]
pub(super) fn pod(name: &str, job: &str, turn: u32, version: u64, status: Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "n", "uid": name, "resourceVersion": version.to_string(),
            "creationTimestamp": at(5),
            "labels": {
                "podbroker.io/instance": "main", "podbroker.io/target": "prod", "podbroker.io/tenant": "default",
                "podbroker.io/execution": address().hash(), "podbroker.io/attempt": "1",
                "batch.amazonaws.com/job-id": job.split(':').next().unwrap(),
            },
        },
        "spec": {
            "nodeName": "node1", "restartPolicy": "Never",
            "containers": [{ "name": "main", "env": [
                { "name": "AWS_BATCH_JOB_ID", "value": job },
                { "name": "AWS_BATCH_JOB_ATTEMPT", "value": turn.to_string() },
            ] }],
        },
        "status": status,
    })
}

/// A pod's status with its one container waiting, running or ended.
pub(super) fn waits() -> Value {
    status_of("Pending", json!({ "waiting": { "reason": "ContainerCreating" } }))
}

pub(super) fn runs() -> Value {
    status_of("Running", json!({ "running": { "startedAt": at(10) } }))
}

pub(super) fn ends(exit_code: i32, reason: &str) -> Value {
    let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
    let end =
        json!({ "exitCode": exit_code, "reason": reason, "startedAt": at(10), "finishedAt": at(20), "message": "bye" });
    status_of(phase, json!({ "terminated": end }))
}

#[expect(clippy::needless_pass_by_value, reason = "literals read better without a reference")]
fn status_of(phase: &str, state: Value) -> Value {
    json!({ "phase": phase, "containerStatuses": [{
        "name": "main", "state": state, "restartCount": 0, "image": "", "imageID": "", "ready": false,
    }] })
}

pub(super) fn carrier(object: &Value) -> Carrier {
    serde_json::from_value(object.clone()).unwrap()
}

/// A record whose job is `job-1`, with these annotations too.
pub(super) fn record(policies: &PolicyRequest, extra: &[(&str, Value)]) -> View {
    let (submit, settings) = (submit(policies), settings());
    let policies = submit.policies.resolve(&PolicyDefaults::default()).unwrap();
    let mut record = manifest::build(&settings, &address(), 1, &submit, &policies, "digest").unwrap();
    let metadata = &mut record["metadata"];
    (metadata["uid"], metadata["resourceVersion"]) = (json!("u"), json!("7"));
    metadata["creationTimestamp"] = json!(at(0));
    let submitting = json!({ "by": "a", "at": at(0), "try": 1 });
    let made = json!({ "id": "job-1", "at": at(1) });
    for (key, value) in
        [("submitting", &submitting), ("job", &made)].into_iter().chain(extra.iter().map(|(k, v)| (*k, v)))
    {
        metadata["annotations"][format!("podbroker.io/{key}")] = json!(value.to_string());
    }
    View::of(&carrier(&record)).unwrap()
}

/// The attempts of that record with this job and these pods, as the hub puts them together.
pub(super) fn views(bare: View, job: Option<Job>, pods: &[Value]) -> Vec<View> {
    let mut ledger = Ledger::new(Arc::new(Batch::default()));
    let hash = address().hash();
    ledger.take_record(&hash, bare.clone(), &mut Early::default(), Access::Open);
    for pod in pods {
        ledger.take_pod(&carrier(pod), &mut Early::default(), Access::Open);
    }
    if let Some(job) = job {
        ledger.describe(job, at(30));
    }
    ledger.take_record(&hash, bare, &mut Early::default(), Access::Open)
}
