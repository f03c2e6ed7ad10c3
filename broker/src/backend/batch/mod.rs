//! Runs jobs of AWS Batch on EKS for the engine, which knows executions and their objects in the cluster.
//!
//! ```text
//! plan         an attempt → requests, pure; `translate` a pod by the lists of `fields`, `quantity` its resources
//!   └ submission  one SubmitJob, never repeated; `definition` registers what a pod needs; `wire` is JSON → the SDK's types
//! find         the jobs of an attempt, however many were made
//! describe     one task for all jobs of an account, by `pace`, a hundred at a time; `changes` are for the engine
//! receive      hastens `describe` by what `event` reads out of a queue
//! log_group    reads what was shipped of pods that are gone; `log_stream` is how that is called, pure
//! check        the links from the broker to a job; `inspect` reads descriptions, pure; `probe` tries a submit that makes nothing
//! calls        every request: its turn (`limits`), its count, its failure in our words
//! ```
//!
//! Nothing here is remembered that AWS Batch does not know: what the engine follows it follows anew after a start.

mod calls;
mod changes;
mod check;
mod definition;
mod describe;
mod event;
mod fields;
mod find;
mod inspect;
mod job;
mod limits;
mod log_group;
mod log_stream;
mod pace;
mod plan;
mod probe;
mod quantity;
mod receive;
mod submission;
#[cfg(test)]
mod tests;
mod translate;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info_span};

use self::calls::{Calls, Operation};
use self::changes::Changes;
use self::definition::Registered;
use self::describe::Describer;
use self::limits::Limiter;
use self::log_group::CloudWatch;
use self::plan::Plan;
use self::receive::{Receiver, Sqs};
use super::Check;
use super::job::{Job, Jobs, Submission, Work};
use crate::backend::log_group::LogGroup;
use crate::error::{Error, FieldViolation};
use crate::execution::{FailureClass, InstanceId, TargetName, Workload};
use crate::identity::eks::{BatchAccess, BatchFailure, Definitions};
use crate::telemetry::BatchCounters;

/// In characters; AWS Batch takes no longer reason.
const MAX_REASON: usize = 1024;

/// What a target with AWS Batch is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The installation.
    pub instance: InstanceId,
    /// The target's name.
    pub target: TargetName,
    /// Where its jobs' pods are.
    pub namespace: String,
    /// The name of the EKS cluster; empty if nobody says.
    pub cluster: String,
    /// The queue for jobs that name none.
    pub queue: String,
    /// Others that callers may name.
    pub more_queues: Vec<String>,
    /// The template for pods.
    pub job_definition: Option<String>,
    /// Whether definitions are written for pods instead.
    pub definitions: Definitions,
    /// What the names of the streams in its log group begin with; see `log_stream`.
    pub log_streams: String,
}

impl Settings {
    fn queues(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.queue).chain(&self.more_queues).map(String::as_str)
    }
}

/// What targets share: the right to call by account and region, the task that describes jobs by role and region, and the one that
/// receives events by queue.
#[derive(Debug, Default)]
pub struct Accounts {
    limiters: HashMap<(String, String), Arc<Limiter>>,
    describers: HashMap<(String, String), Arc<Describer>>,
    receivers: HashMap<String, Arc<Receiver>>,
}

/// Starts what runs a target's jobs. Its tasks end with `stop`.
pub fn start(
    settings: Settings,
    access: BatchAccess,
    accounts: &mut Accounts,
    counters: BatchCounters,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Arc<dyn Jobs> {
    let (role, region) = (access.role().unwrap_or_default().to_owned(), access.region().to_owned());
    // Roles of one account share what the account may do; without a role it is the broker's own.
    let account = role.split(':').nth(4).unwrap_or_default().to_owned();
    let limiter =
        Arc::clone(accounts.limiters.entry((account, region.clone())).or_insert_with(|| Arc::new(Limiter::new())));
    let calls = Arc::new(Calls { access, target: settings.target.clone(), counters, limiter });
    let describer = accounts.describers.entry((role, region.clone())).or_insert_with(|| {
        let describer = Arc::new(Describer::new());
        let (describing, calls, stop) = (Arc::clone(&describer), Arc::clone(&calls), stop.clone());
        let run = async move { describing.run(&*calls, &stop).await };
        tasks.spawn(run.instrument(info_span!("batch", region)));
        describer
    });
    let describer = Arc::clone(describer);
    let receiver = calls.access.events().map(|(queue, client)| {
        let receiver = accounts.receivers.entry(queue.url.clone()).or_insert_with(|| {
            let receiver = Arc::new(Receiver::new(&queue, &region, calls.counters.clone()));
            let (receiving, calls, stop) = (Arc::clone(&receiver), Arc::clone(&calls), stop.clone());
            let span = info_span!("events", queue = queue.name);
            let queue = Sqs { access: calls.access.clone(), client, queue };
            let run = async move { receiving.run(&queue, &|failed| check::events_fix(&calls, failed), &stop).await };
            tasks.spawn(run.instrument(span));
            receiver
        });
        receiver.join(&describer);
        Arc::clone(receiver)
    });
    let group = CloudWatch::new(&calls.access, &settings.log_streams, &settings.namespace, &calls.counters);
    Arc::new(Batch {
        settings: Arc::new(settings),
        calls,
        describer,
        receiver,
        group: group.map(Arc::new),
        changes: Arc::default(),
        registered: Registered::default(),
    })
}

/// Runs the jobs of one target.
struct Batch {
    settings: Arc<Settings>,
    calls: Arc<Calls>,
    describer: Arc<Describer>,
    receiver: Option<Arc<Receiver>>,
    group: Option<Arc<CloudWatch>>,
    changes: Arc<Changes>,
    registered: Registered,
}

#[async_trait]
impl Jobs for Batch {
    fn plan(&self, work: &Work<'_>) -> Result<Vec<u8>, Error> {
        let plan = plan::plan(&self.settings, work)?;
        Ok(plan.to_json().to_string().into_bytes())
    }

    async fn validate(&self, work: &Work<'_>) -> Result<(), Error> {
        let plan = plan::plan(&self.settings, work)?;
        let text = |field: &str| plan.submit.get(field).and_then(Value::as_str);
        let definition = text("jobDefinition").filter(|_| plan.definition.is_none());
        let found = check::problems(&self.calls, text("jobQueue").unwrap_or_default(), definition).await;
        let found = found.map_err(|failed| self.calls.error(failed))?;
        let mut violations = Vec::new();
        for (problem, field) in [(found.queue, "job_queue"), (found.definition, "job_definition")] {
            let field = match work.workload {
                Workload::Batch(_) => format!("workload.batch.{field}"),
                // What a pod has no field for is the target's.
                Workload::Pod(_) | Workload::Job(_) => String::new(),
            };
            violations.extend(problem.map(|problem| FieldViolation { field, why: problem.what }));
        }
        if let Some(containers) = found.containers {
            violations.extend(unknown_containers(&plan, work.workload, &containers));
        }
        if violations.is_empty() { Ok(()) } else { Err(Error::InvalidSpec { violations }) }
    }

    async fn submit(&self, work: &Work<'_>) -> Submission {
        match plan::plan(&self.settings, work) {
            Ok(plan) => submission::submit(&self.calls, &self.registered, plan).await,
            Err(error) => Submission::Refused { class: FailureClass::InvalidSpec, message: error.to_string() },
        }
    }

    async fn find(&self, name: &str, key: &str) -> Result<Vec<Job>, Error> {
        let found = find::find(&self.calls, self.settings.queues(), name, key).await;
        found.map_err(|failed| self.calls.error(failed))
    }

    async fn end(&self, id: &str, reason: &str) -> Result<(), Error> {
        let reason = match reason.trim() {
            "" => "ended by podbroker".to_owned(),
            reason => reason.chars().take(MAX_REASON).collect(),
        };
        let request = self.calls.client().terminate_job().job_id(id).reason(reason).send();
        match self.calls.make(Operation::TerminateJob, request).await {
            Ok(_) => Ok(()),
            // It has ended so long ago that it is forgotten.
            Err(failed) if is_gone(&failed.failure) => Ok(()),
            Err(failed) => Err(self.calls.error(failed)),
        }
    }

    fn follow(&self, id: &str) {
        self.describer.follow(id, &self.changes);
    }

    fn hasten(&self, id: &str) {
        self.describer.hasten(id);
    }

    fn forget(&self, id: &str) {
        self.describer.forget(id);
    }

    fn changes(&self) -> BoxStream<'static, Job> {
        Arc::clone(&self.changes).stream()
    }

    fn log_group(&self) -> Option<Arc<dyn LogGroup>> {
        self.group.clone().map(|group| group as Arc<dyn LogGroup>)
    }

    fn check(&self) -> BoxStream<'static, Check> {
        let (settings, calls) = (Arc::clone(&self.settings), Arc::clone(&self.calls));
        check::check(settings, calls, self.receiver.clone(), self.group.clone()).boxed()
    }
}

/// AWS Batch has no word of its own for it.
fn is_gone(failure: &BatchFailure) -> bool {
    let BatchFailure::Refused { said, .. } = failure else { return false };
    let said = said.to_lowercase();
    ["not found", "does not exist", "doesn't exist"].iter().any(|words| said.contains(words))
}

/// Containers that the definition does not have: their overrides would change nothing.
fn unknown_containers(plan: &Plan, workload: &Workload, known: &[Vec<String>; 2]) -> Vec<FieldViolation> {
    let path = match workload {
        Workload::Pod(_) | Workload::Job(_) => "spec",
        Workload::Batch(_) => "eksPropertiesOverride.podProperties",
    };
    let pod = plan.submit.get("eksPropertiesOverride").and_then(|overrides| overrides.get("podProperties"));
    let mut violations = Vec::new();
    for (list, known) in ["containers", "initContainers"].into_iter().zip(known) {
        let containers = pod.and_then(|pod| pod.get(list)).and_then(Value::as_array).into_iter().flatten();
        for (index, container) in containers.enumerate() {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            if !known.iter().any(|other| other == name) {
                let why = format!("the job definition has no {name:?} among its {list}: {}", known.join(", "));
                violations.push(FieldViolation { field: format!("{path}.{list}[{index}].name"), why });
            }
        }
    }
    violations
}

#[cfg(test)]
pub(in crate::backend::batch) fn settings_for_tests() -> Settings {
    Settings {
        instance: "main".parse().unwrap(),
        target: "jobs".parse().unwrap(),
        namespace: "jobs".to_owned(),
        cluster: "demo".to_owned(),
        queue: "queue".to_owned(),
        more_queues: vec!["urgent".to_owned()],
        job_definition: Some("pods".to_owned()),
        definitions: Definitions::Given,
        log_streams: "{pod}_{container}-".to_owned(),
    }
}
