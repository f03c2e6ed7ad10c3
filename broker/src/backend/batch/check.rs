//! Walks the part of the chain that goes through AWS Batch: who we are there, the queues, their compute environments and who makes
//! pods for them, the job definition, and whether we may look at jobs and submit them. Nothing is made.

use std::sync::Arc;

use aws_sdk_batch::types::{ComputeEnvironmentDetail, JobQueueDetail};
use futures::Stream;

use super::calls::{Calls, Failed, Operation, is_denied};
use super::describe::Describe as _;
use super::inspect::{self, Problem};
use super::log_group::CloudWatch;
use super::receive::{self, Receiver, Standing};
use super::{Settings, definition, find, probe};
use crate::backend::log_group::LogGroup as _;
use crate::backend::{Check, Verdict};
use crate::identity::eks::{BatchFailure, Definitions};

const QUEUE: &str = "batch-queue";
const ENVIRONMENT: &str = "batch-compute-environment";
const SERVICE_ROLE: &str = "batch-service-role";
const DEFINITION: &str = "batch-definition";
const JOBS: &str = "batch-jobs";
const SUBMIT: &str = "batch-submit";
const EVENTS: &str = "batch-events";
const LOGS: &str = "batch-logs";

/// No job has it.
pub(super) const NO_JOB: &str = "00000000-0000-0000-0000-000000000000";

/// After the first broken link those that build on it are skipped.
pub(super) fn check(
    settings: Arc<Settings>,
    calls: Arc<Calls>,
    receiver: Option<Arc<Receiver>>,
    group: Option<Arc<CloudWatch>>,
) -> impl Stream<Item = Check> + Send {
    async_stream::stream! {
        let identity = calls.access.explain().await;
        let is_known = identity.fix.is_none();
        let problem = identity.fix.map(|fix| Problem::new(identity.detail.clone(), fix));
        yield result(identity.name, "", problem.map_or(Ok(identity.detail), Err));
        if !is_known {
            for link in [QUEUE, ENVIRONMENT, SERVICE_ROLE, DEFINITION, JOBS, SUBMIT] {
                yield skipped(link, "");
            }
            if receiver.is_some() {
                yield skipped(EVENTS, "");
            }
            if group.is_some() {
                yield skipped(LOGS, "");
            }
            return;
        }
        let mut usable = Vec::new();
        for name in settings.queues() {
            let found = match queue(&calls, name).await {
                Ok(found) => found,
                Err(problem) => {
                    yield result(QUEUE, name, Err(problem));
                    for link in [ENVIRONMENT, SERVICE_ROLE] {
                        yield skipped(link, "");
                    }
                    continue;
                }
            };
            let problem = inspect::queue(&found);
            if problem.is_none() {
                usable.push((name, probe::Shares::of(&found)));
            }
            yield result(QUEUE, name, problem.map_or_else(|| Ok(takes_jobs(&found)), Err));
            for check in check_environments(&settings, &calls, environments(&found)).await {
                yield check;
            }
        }
        let mut is_runnable = false;
        if let Some(name) = &settings.job_definition {
            let check = check_definition(&settings, &calls, name).await;
            is_runnable = !matches!(check.verdict, Verdict::Failed { .. });
            yield check;
        } else if settings.definitions == Definitions::Registered {
            let detail = "definitions for pods are registered when they are needed (batch:RegisterJobDefinition)";
            yield result(DEFINITION, "", Ok(detail.to_owned()));
        }
        yield result(JOBS, "", check_jobs(&settings, &calls).await);
        // Without a definition there is nothing that could be submitted.
        if let Some(definition) = &settings.job_definition {
            for queue in settings.queues() {
                let shares = usable.iter().find(|(name, _)| *name == queue).map(|(_, shares)| *shares);
                yield match shares.filter(|_| is_runnable) {
                    Some(shares) => {
                        result(SUBMIT, queue, probe::submit(&settings, &calls, queue, shares, definition).await)
                    }
                    None => skipped(SUBMIT, queue),
                };
            }
        }
        if let Some(receiver) = receiver {
            yield events(&receiver);
        }
        if let Some(group) = group {
            yield logs(&group).await;
        }
    }
}

/// What the receiver says: to ask the queue here would take its events away. Jobs run without them.
fn events(receiver: &Receiver) -> Check {
    let (verdict, detail) = match receiver.standing() {
        Standing::Receives => (Verdict::Passed, "events of jobs are received".to_owned()),
        Standing::Asks => (Verdict::Passed, "the queue is asked for the first time".to_owned()),
        Standing::Fails { what, fix } => (Verdict::Warned { fix }, what),
    };
    Check { link: EVENTS, subject: receiver.name.clone(), verdict, detail }
}

/// Jobs run without it, and lines of pods that are there come from the cluster.
async fn logs(group: &CloudWatch) -> Check {
    let (verdict, detail) = match group.check().await {
        Ok(detail) => (Verdict::Passed, detail),
        Err(Problem { what, fix }) => (Verdict::Warned { fix }, what),
    };
    Check { link: LOGS, subject: group.name().to_owned(), verdict, detail }
}

/// What to do when events cannot be received; jobs are described as without them.
pub(super) fn events_fix(calls: &Calls, failed: &receive::Failed) -> String {
    let region = calls.access.region();
    match &failed.failure {
        BatchFailure::NoSession(error) => calls.access.fix(error),
        BatchFailure::Refused { code, .. } if is_denied(code) => {
            "allow sqs:ReceiveMessage and sqs:DeleteMessage on the queue in the role's permission policy, or leave \
             batch.events_queue_url out"
                .to_owned()
        }
        BatchFailure::Refused { .. } => {
            format!("check batch.events_queue_url: the queue must be in {region}; or leave it out")
        }
        BatchFailure::Throttled(_) => "wait: the account makes more calls to SQS than it may".to_owned(),
        BatchFailure::Away(_) => format!(
            "SQS in {region} cannot be reached: check the way out of the broker's network (NAT, or a VPC endpoint for SQS)"
        ),
    }
}

pub(super) type Checked = Result<String, Problem>;

fn result(link: &'static str, subject: &str, checked: Checked) -> Check {
    let (verdict, detail) = match checked {
        Ok(detail) => (Verdict::Passed, detail),
        Err(Problem { what, fix }) => (Verdict::Failed { fix }, what),
    };
    Check { link, subject: subject.to_owned(), verdict, detail }
}

fn skipped(link: &'static str, subject: &str) -> Check {
    let detail = "not tried, because a link before it is broken".to_owned();
    Check { link, subject: subject.to_owned(), verdict: Verdict::Skipped, detail }
}

pub(super) fn broken(calls: &Calls, failed: &Failed) -> Problem {
    let operation = failed.operation.name();
    let fix = match &failed.failure {
        BatchFailure::NoSession(error) => calls.access.fix(error),
        BatchFailure::Refused { .. } if failed.is_denied() => format!(
            "allow batch:{operation} in the role's permission policy; a session policy or a boundary may take it away too"
        ),
        BatchFailure::Refused { .. } => {
            "check the name, the region of the target and the account of the role".to_owned()
        }
        BatchFailure::Throttled(_) => "wait: the account makes more calls to AWS Batch than it may".to_owned(),
        BatchFailure::Away(_) => format!(
            "AWS Batch in {} cannot be reached: check the target's region and the way out of the broker's network (NAT, or a VPC \
             endpoint for AWS Batch)",
            calls.access.region()
        ),
    };
    Problem::new(failed.to_string(), fix)
}

/// The queue as it is described.
async fn queue(calls: &Calls, name: &str) -> Result<JobQueueDetail, Problem> {
    let request = calls.client().describe_job_queues().job_queues(name).send();
    let answer = calls.make(Operation::DescribeJobQueues, request).await.map_err(|failed| broken(calls, &failed))?;
    answer.job_queues.into_iter().flatten().next().ok_or_else(|| no_queue(calls, name))
}

fn no_queue(calls: &Calls, queue: &str) -> Problem {
    let what = format!("there is no queue {queue} in {}", calls.access.region());
    Problem::new(what, "check batch.queue, the region of the target and the account of the role")
}

fn environments(queue: &JobQueueDetail) -> Vec<String> {
    let orders = queue.compute_environment_order.iter().flatten();
    orders.filter_map(|order| order.compute_environment.clone()).collect()
}

fn takes_jobs(queue: &JobQueueDetail) -> String {
    match environments(queue).len() {
        1 => "the queue takes jobs, with 1 compute environment".to_owned(),
        count => format!("the queue takes jobs, with {count} compute environments"),
    }
}

/// Each compute environment of a queue, and who makes pods for it.
async fn check_environments(settings: &Settings, calls: &Calls, names: Vec<String>) -> Vec<Check> {
    if names.is_empty() {
        let problem =
            Problem::new("the queue has no compute environment", "give the queue one on the target's cluster");
        return vec![result(ENVIRONMENT, "", Err(problem)), skipped(SERVICE_ROLE, "")];
    }
    let request = calls.client().describe_compute_environments().set_compute_environments(Some(names.clone())).send();
    let found = match calls.make(Operation::DescribeComputeEnvironments, request).await {
        Ok(answer) => answer.compute_environments.unwrap_or_default(),
        Err(failed) => {
            return vec![result(ENVIRONMENT, "", Err(broken(calls, &failed))), skipped(SERVICE_ROLE, "")];
        }
    };
    names.iter().flat_map(|name| check_environment(settings, name, &found)).collect()
}

/// The name is that of the queue's order, which is an ARN.
fn check_environment(settings: &Settings, name: &str, found: &[ComputeEnvironmentDetail]) -> [Check; 2] {
    let is_it = |one: &&ComputeEnvironmentDetail| {
        [&one.compute_environment_arn, &one.compute_environment_name].iter().any(|own| own.as_deref() == Some(name))
    };
    let Some(environment) = found.iter().find(is_it) else {
        let problem =
            Problem::new(format!("there is no compute environment {name}"), "take it out of the queue's order");
        return [result(ENVIRONMENT, name, Err(problem)), skipped(SERVICE_ROLE, name)];
    };
    let name = environment.compute_environment_name.as_deref().unwrap_or(name);
    let checked = match inspect::environment(environment, &settings.cluster, &settings.namespace) {
        Some(problem) => Err(problem),
        None => Ok(format!("it runs jobs in the namespace {}", settings.namespace)),
    };
    [result(ENVIRONMENT, name, checked), result(SERVICE_ROLE, name, inspect::service_role(environment))]
}

async fn check_definition(settings: &Settings, calls: &Calls, name: &str) -> Check {
    let found = match definition::describe(calls, name).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            let what = format!("there is no active job definition {name} in {}", calls.access.region());
            return result(DEFINITION, name, Err(Problem::new(what, "register it, or correct batch.job_definition")));
        }
        Err(failed) => return result(DEFINITION, name, Err(broken(calls, &failed))),
    };
    let problem = inspect::definition(&found).or_else(|| inspect::definition_namespace(&found, &settings.namespace));
    if let Some(problem) = problem {
        return result(DEFINITION, name, Err(problem));
    }
    let [main, init] = inspect::containers(&found).unwrap_or_default();
    let init = if init.is_empty() { String::new() } else { format!(", after {}", init.join(", ")) };
    let detail = format!("{} runs {}{init}", inspect::full_name(&found), main.join(", "));
    let mut check = result(DEFINITION, name, Ok(detail));
    if let Some(Problem { what, fix }) = inspect::host_network(&found) {
        (check.verdict, check.detail) = (Verdict::Warned { fix }, format!("{}; {what}", check.detail));
    }
    check
}

async fn check_jobs(settings: &Settings, calls: &Calls) -> Checked {
    find::find(calls, [settings.queue.as_str()].into_iter(), "podbroker-check", "")
        .await
        .map_err(|failed| broken(calls, &failed))?;
    calls.describe(&[NO_JOB.to_owned()]).await.map_err(|failed| broken(calls, &failed))?;
    Ok("jobs can be listed and described; whether they may be ended shows when one is".to_owned())
}

/// What would keep the job of a plan from being accepted: of the queue, and of the definition with its containers.
pub(super) async fn problems(calls: &Calls, queue: &str, name: Option<&str>) -> Result<Found, Failed> {
    let request = calls.client().describe_job_queues().job_queues(queue).send();
    let queues = calls.make(Operation::DescribeJobQueues, request).await?.job_queues.unwrap_or_default();
    let queue = queues.first().map_or_else(|| Some(no_queue(calls, queue)), inspect::queue);
    let Some(name) = name else { return Ok(Found { queue, definition: None, containers: None }) };
    let Some(found) = definition::describe(calls, name).await? else {
        let what = format!("there is no active job definition {name} in {}", calls.access.region());
        return Ok(Found { queue, definition: Some(Problem::new(what, "register it")), containers: None });
    };
    let containers =
        inspect::containers(&found).map(|lists| lists.map(|list| list.into_iter().map(str::to_owned).collect()));
    Ok(Found { queue, definition: inspect::definition(&found), containers })
}

/// What was found of a queue and a definition.
pub(super) struct Found {
    pub(super) queue: Option<Problem>,
    pub(super) definition: Option<Problem>,
    /// The names of the definition's containers and init containers.
    pub(super) containers: Option<[Vec<String>; 2]>,
}
