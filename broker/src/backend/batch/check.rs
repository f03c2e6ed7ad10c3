//! Walks the part of the chain that goes through AWS Batch: who we are there, the queues, their compute environments, the job
//! definition, and whether we may look at jobs. Nothing is made.

use std::sync::Arc;

use futures::Stream;

use super::calls::{Calls, Failed, Operation};
use super::describe::Describe as _;
use super::inspect::{self, Problem};
use super::{Settings, definition, find};
use crate::backend::{Check, Verdict};
use crate::identity::eks::{BatchFailure, Definitions};

const QUEUE: &str = "batch-queue";
const ENVIRONMENT: &str = "batch-compute-environment";
const DEFINITION: &str = "batch-definition";
const JOBS: &str = "batch-jobs";

/// No job has it.
const NO_JOB: &str = "00000000-0000-0000-0000-000000000000";

pub(super) fn check(settings: Arc<Settings>, calls: Arc<Calls>) -> impl Stream<Item = Check> + Send {
    async_stream::stream! {
        let identity = calls.access.explain().await;
        let is_known = identity.fix.is_none();
        let problem = identity.fix.map(|fix| Problem::new(identity.detail.clone(), fix));
        yield result(identity.name, "", problem.map_or(Ok(identity.detail), Err));
        // Without an identity nothing else is tried.
        for link in [QUEUE, ENVIRONMENT, DEFINITION, JOBS].into_iter().filter(|_| !is_known) {
            yield skipped(link);
        }
        for queue in settings.queues().filter(|_| is_known) {
            let (checked, environments) = check_queue(&calls, queue).await;
            yield result(QUEUE, queue, checked);
            for check in check_environments(&settings, &calls, environments).await {
                yield check;
            }
        }
        if let Some(name) = settings.job_definition.as_ref().filter(|_| is_known) {
            yield result(DEFINITION, name, check_definition(&calls, name).await);
        } else if is_known && settings.definitions == Definitions::Registered {
            let detail = "definitions for pods are registered when they are needed (batch:RegisterJobDefinition)";
            yield result(DEFINITION, "", Ok(detail.to_owned()));
        }
        if is_known {
            yield result(JOBS, "", check_jobs(&settings, &calls).await);
        }
    }
}

type Checked = Result<String, Problem>;

fn result(link: &'static str, subject: &str, checked: Checked) -> Check {
    let (verdict, detail) = match checked {
        Ok(detail) => (Verdict::Passed, detail),
        Err(Problem { what, fix }) => (Verdict::Failed { fix }, what),
    };
    Check { link, subject: subject.to_owned(), verdict, detail }
}

fn skipped(link: &'static str) -> Check {
    let detail = "not tried, because a link before it is broken".to_owned();
    Check { link, subject: String::new(), verdict: Verdict::Skipped, detail }
}

fn broken(calls: &Calls, failed: &Failed) -> Problem {
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

/// The queue, and the names of its compute environments.
async fn check_queue(calls: &Calls, queue: &str) -> (Checked, Vec<String>) {
    let request = calls.client().describe_job_queues().job_queues(queue).send();
    let queues = match calls.make(Operation::DescribeJobQueues, request).await {
        Ok(answer) => answer.job_queues.unwrap_or_default(),
        Err(failed) => return (Err(broken(calls, &failed)), Vec::new()),
    };
    let Some(detail) = queues.into_iter().next() else {
        return (Err(no_queue(calls, queue)), Vec::new());
    };
    let environments: Vec<_> = detail
        .compute_environment_order
        .iter()
        .flatten()
        .filter_map(|order| order.compute_environment.clone())
        .collect();
    let checked = match inspect::queue(&detail) {
        Some(problem) => Err(problem),
        None => Ok(format!("the queue takes jobs, with {} compute environments", environments.len())),
    };
    (checked, environments)
}

fn no_queue(calls: &Calls, queue: &str) -> Problem {
    let what = format!("there is no queue {queue} in {}", calls.access.region());
    Problem::new(what, "check batch.queue, the region of the target and the account of the role")
}

async fn check_environments(settings: &Settings, calls: &Calls, names: Vec<String>) -> Vec<Check> {
    if names.is_empty() {
        return vec![skipped(ENVIRONMENT)];
    }
    let request = calls.client().describe_compute_environments().set_compute_environments(Some(names)).send();
    let environments = match calls.make(Operation::DescribeComputeEnvironments, request).await {
        Ok(answer) => answer.compute_environments.unwrap_or_default(),
        Err(failed) => return vec![result(ENVIRONMENT, "", Err(broken(calls, &failed)))],
    };
    let of_one = |environment: &aws_sdk_batch::types::ComputeEnvironmentDetail| {
        let name = environment.compute_environment_name.clone().unwrap_or_default();
        let role = environment.service_role.as_deref().unwrap_or("the service-linked role");
        let held = format!("it runs jobs in the namespace {}, as {role}", settings.namespace);
        let problem = inspect::environment(environment, &settings.cluster, &settings.namespace);
        let checked = problem.map_or(Ok(held), Err);
        result(ENVIRONMENT, &name, checked)
    };
    environments.iter().map(of_one).collect()
}

async fn check_definition(calls: &Calls, name: &str) -> Checked {
    let found = definition::describe(calls, name).await.map_err(|failed| broken(calls, &failed))?;
    let Some(definition) = found else {
        let what = format!("there is no active job definition {name}");
        return Err(Problem::new(what, "register it, or correct batch.job_definition"));
    };
    if let Some(problem) = inspect::definition(&definition) {
        return Err(problem);
    }
    let [main, init] = inspect::containers(&definition).unwrap_or_default();
    let init = if init.is_empty() { String::new() } else { format!(", after {}", init.join(", ")) };
    Ok(format!("{} runs {}{init}", inspect::full_name(&definition), main.join(", ")))
}

async fn check_jobs(settings: &Settings, calls: &Calls) -> Checked {
    find::find(calls, [settings.queue.as_str()].into_iter(), "podbroker-check", "")
        .await
        .map_err(|failed| broken(calls, &failed))?;
    calls.describe(&[NO_JOB.to_owned()]).await.map_err(|failed| broken(calls, &failed))?;
    Ok("jobs can be listed and described; whether they may be submitted and ended shows when one is".to_owned())
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
