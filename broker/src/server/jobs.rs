//! From a target's queue to what runs its jobs.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::targets::{credentials_mode, role_settings};
use crate::backend::batch::{self, Accounts};
use crate::backend::job::Jobs;
use crate::config::{Config, Target};
use crate::identity::eks::{self, BatchAccess, BatchSettings, Definitions};
use crate::telemetry::BatchCounters;

/// Starts what runs the jobs of a target in its namespace; nothing for a target without a queue. Asks nobody for anything yet.
pub async fn start(
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
    let access = BatchAccess::new(&aws, BatchSettings { region: target.region.clone(), mode, role, definitions });
    let settings = batch::Settings {
        instance: config.instance.clone(),
        target: target.name.clone(),
        namespace: namespace.to_owned(),
        cluster: target.cluster.clone(),
        queue: own.queue.clone(),
        more_queues: own.more_queues.clone(),
        job_definition: own.job_definition.clone(),
        definitions,
    };
    info!(target = %target.name, queue = own.queue, region = target.region, "executions are jobs of AWS Batch");
    Some(batch::start(settings, access, accounts, counters.clone(), tasks, stop))
}
