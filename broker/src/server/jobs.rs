//! From a target's queue to what runs its jobs.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::targets::{credentials_mode, role_settings};
use crate::backend::batch::{self, Accounts};
use crate::backend::job::{JobCounters, Jobs};
use crate::backend::pod::{JobKind, RecordSettings};
use crate::config::{Config, Executions, Target};
use crate::identity::eks::{self, BatchAccess, BatchSettings, Definitions, EventsQueue, LogGroupName};
use crate::telemetry::BatchCounters;

/// What is counted about jobs, for all targets.
#[derive(Clone, Default)]
pub(super) struct Counters {
    /// What is asked of AWS Batch.
    pub(super) requests: BatchCounters,
    /// What happens to jobs.
    pub(super) jobs: Arc<JobCounters>,
}

/// A create of a Job that was not answered is settled after this. Its name decides, so nothing depends on it; a create may take a
/// third of it.
const SETTLE_JOBS: Duration = Duration::from_mins(1);

/// How a target's executions are carried when they are jobs; nothing for a target of pods.
pub(super) fn records(target: &Target, counters: &Counters) -> Option<RecordSettings> {
    let counters = Arc::clone(&counters.jobs);
    match (&target.batch, target.executions) {
        (Some(own), _) => {
            let (settle, queue_deadline) = (own.settle, own.queue_deadline);
            Some(RecordSettings { kind: JobKind::Batch, settle, queue_deadline, counters })
        }
        (None, Executions::Jobs) => {
            Some(RecordSettings { kind: JobKind::Cluster, settle: SETTLE_JOBS, queue_deadline: None, counters })
        }
        (None, Executions::Pods) => None,
    }
}

/// Starts what runs the jobs of a target in its namespace; nothing for a target without a queue of AWS Batch. Asks nobody for anything yet.
pub(super) async fn start(
    config: &Config,
    target: &Target,
    namespace: &str,
    accounts: &mut Accounts,
    counters: &BatchCounters,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Option<Arc<dyn Jobs>> {
    let own = target.batch.as_ref()?;
    let definitions = if own.register_definitions { Definitions::Registered } else { Definitions::Given };
    let mode = credentials_mode(config.aws.credentials);
    let role = role_settings(config, target);
    let aws = eks::aws(mode, &target.region).await;
    let events = own.events_queue().map(|(account, name)| EventsQueue {
        url: own.events_queue_url.clone().unwrap_or_default(),
        account: account.to_owned(),
        name: name.to_owned(),
    });
    let logs = own.log_group().map(|group| LogGroupName {
        identifier: group.identifier.to_owned(),
        name: group.name.to_owned(),
        account: group.account.map(str::to_owned),
    });
    let region = target.region.clone();
    let access = BatchAccess::new(&aws, BatchSettings { region, mode, role, definitions, events, logs });
    let settings = batch::Settings {
        instance: config.instance.clone(),
        target: target.name.clone(),
        namespace: namespace.to_owned(),
        cluster: target.cluster.clone(),
        queue: own.queue.clone(),
        more_queues: own.more_queues.clone(),
        job_definition: own.job_definition.clone(),
        definitions,
        log_streams: own.log_stream_prefix.clone(),
    };
    info!(target = %target.name, queue = own.queue, region = target.region, "executions are jobs of AWS Batch");
    Some(batch::start(settings, access, accounts, counters.clone(), tasks, stop))
}
