//! Runs executions as pods of one namespace.
//!
//! `manifest` makes the pod, `submit` creates it once, `hub` watches all of them, `view` is what is kept of one and `attempts` of
//! an execution, `status` says what it means, `watch` tells it, with the lines from `logs` and the result from `collect`.
//! `reconcile` deletes what was released and ends what did not start in time, and by `orphans` what nobody follows. `group`,
//! `seat`, `member` and `claim` let executions take each other's place. Requests go through `api`, and its refusals become errors in `refusal`.

mod another;
mod api;
mod attempts;
mod carrier;
mod check;
mod chunk;
mod claim;
mod clock;
mod collect;
mod container;
mod deletion;
mod describe;
mod events;
mod feed;
mod following;
mod group;
mod hub;
mod intake;
mod kube_job;
mod kubelet_error;
mod lines;
mod logs;
mod manifest;
mod member;
mod names;
mod node;
mod notices;
mod objects;
mod orphans;
mod packing;
mod place;
mod reconcile;
mod record;
mod refusal;
mod result;
mod roster;
mod schedule;
mod seat;
mod selection;
mod status;
mod submit;
mod uninstall;
mod view;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info, info_span};

use self::api::PodApi;
use self::carrier::Carriers;
use self::clock::ServerClock;
use self::following::Interest;
use self::hub::Hub;
use self::kube_job::KubeJobs;
use self::logs::{Logs, Sources};
use self::record::Runner;
use super::job::Jobs;
use super::{Backend, Cancel, Check, EventStream, Filter, Health, Keeper, Presence, Submitted, View as Depth};
use crate::error::{Error, Refusal};
use crate::execution::{
    Address, CancelIntent, Execution, ExecutionId, FailureClass, InstanceId, PolicyDefaults, State, Submit, TargetName,
    Tenant, WatchOptions,
};
use crate::identity::{Connection, eks};

pub use self::logs::{Spool, SpoolLimits, SpoolUse};
pub use self::record::{JobKind, RecordSettings};
pub use self::uninstall::HeldPods;

/// Whether pods get the finalizer that keeps their outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalizer {
    /// They do.
    Keep,
    /// They do not: whoever deletes a pod while no broker looks takes its outcome along.
    Off,
}

/// What a pod target is.
#[derive(Debug, Clone)]
pub struct PodSettings {
    /// The installation.
    pub instance: InstanceId,
    /// The target's name.
    pub target: TargetName,
    /// Where the pods are.
    pub namespace: String,
    /// For policies that a caller leaves open.
    pub defaults: PolicyDefaults,
    /// An image with `sh`, `base64` and `sha256sum`, for the container that hands the result back.
    pub result_image: String,
    /// Whether outcomes are protected.
    pub finalizer: Finalizer,
    /// Set where attempts are jobs, which are carried by records, and not pods of ours.
    pub records: Option<RecordSettings>,
}

impl PodSettings {
    fn carriers(&self) -> Carriers {
        if self.records.is_some() { Carriers::Records } else { Carriers::Pods }
    }

    fn runs_cluster_jobs(&self) -> bool {
        self.records.as_ref().is_some_and(|records| records.kind == JobKind::Cluster)
    }
}

/// Runs executions as pods.
pub struct PodBackend {
    settings: Arc<PodSettings>,
    api: PodApi,
    hub: Arc<Hub>,
    sources: Arc<Sources>,
    chain: Option<Arc<eks::Chain>>,
    /// The name of this process's Lease.
    replica: String,
    words: orphans::Words,
    keeper: Option<Arc<dyn Keeper>>,
    /// Does what is due for records, on a target that runs jobs.
    runner: Option<Arc<Runner>>,
}

impl PodBackend {
    /// Starts the target's watch and its reconciler, which end with `stop`. The keeper is asked before a pod is deleted. A target
    /// that runs jobs has `settings.records`, and who runs them; those of the cluster are run here.
    pub fn start(
        settings: PodSettings,
        connection: Connection,
        spool: Arc<Spool>,
        keeper: Option<Arc<dyn Keeper>>,
        jobs: Option<Arc<dyn Jobs>>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let Connection { client, chain, .. } = connection;
        let clock = ServerClock::default();
        let settings = Arc::new(settings);
        let api = PodApi::new(client, &settings, clock.clone());
        let jobs =
            if settings.runs_cluster_jobs() { Some(KubeJobs::start(&api, &settings, tasks, stop)) } else { jobs };
        let hub = Arc::new(Hub::new(Arc::clone(&settings), clock, jobs.clone()));
        let group = jobs.as_ref().and_then(|jobs| jobs.log_group());
        let logs = Logs::new(api.clone(), group, spool, tasks, stop);
        let sources = Arc::new(Sources { logs, api: api.clone() });
        let replica = format!("podbroker-{:016x}", rand::random::<u64>());
        let words = orphans::Words::default();
        let span = info_span!("target", name = %settings.target);
        let runner = jobs.as_ref().and_then(|jobs| {
            let parts = (api.clone(), Arc::clone(&hub));
            Runner::new(parts, Arc::clone(jobs), replica.clone(), tasks.clone(), stop.clone())
        });
        if let Some(jobs) = jobs {
            let (listening, listen_stop) = (Arc::clone(&hub), stop.clone());
            let listen = async move { listen_stop.run_until_cancelled(listening.watch_jobs(&*jobs)).await };
            tasks.spawn(listen.instrument(span.clone()));
        }
        let backend = Arc::new(Self { settings, api, hub, sources, chain, replica, words, keeper, runner });
        if let Some(chain) = backend.chain.clone() {
            let announce_stop = stop.clone();
            let announce = async move { announce_stop.run_until_cancelled(chain.announce()).await };
            tasks.spawn(announce.instrument(span.clone()));
        }
        let (watching, watch_stop) = (Arc::clone(&backend), stop.clone());
        tasks.spawn(async move { watching.hub.run(&watching.api, &watch_stop).await }.instrument(span.clone()));
        let (reconciling, reconcile_stop) = (Arc::clone(&backend), stop.clone());
        tasks.spawn(async move { reconciling.reconcile(&reconcile_stop).await }.instrument(span.clone()));
        let (telling, telling_stop) = (Arc::clone(&backend), stop.clone());
        tasks.spawn(async move { telling.tell_followed(&telling_stop).await }.instrument(span));
        backend
    }

    fn address(&self, tenant: &Tenant, id: &ExecutionId) -> Address {
        Address {
            instance: self.settings.instance.clone(),
            tenant: tenant.clone(),
            target: self.settings.target.clone(),
            id: id.clone(),
        }
    }

    /// Why what the watch would know is not known.
    fn not_in_step(&self) -> Error {
        match self.hub.health() {
            Health::Refused(message) => Error::Refused { refusal: Refusal::Forbidden, message },
            Health::Starting | Health::Serving | Health::Unreachable(_) => {
                Error::NotInStep { target: self.settings.target.to_string() }
            }
        }
    }
}

#[async_trait]
impl Backend for PodBackend {
    async fn submit(&self, tenant: &Tenant, request: Submit) -> Result<Submitted, Error> {
        self.submit_pod(tenant, request).await
    }

    async fn get(&self, tenant: &Tenant, id: &ExecutionId, depth: Depth) -> Result<Execution, Error> {
        let address = self.address(tenant, id);
        let attempts = self.find(&address).await?;
        let mut execution = describe::execution(&self.settings, &attempts);
        if depth == Depth::Full {
            execution.pod_json = self.read_pod(&attempts).await?;
            execution.job_json = self.read_job(&attempts).await?;
        }
        Ok(execution)
    }

    async fn list(&self, tenant: &Tenant, filter: &Filter) -> Result<Vec<Execution>, Error> {
        if !self.hub.is_in_step() {
            return Err(self.not_in_step());
        }
        let mut all: Vec<_> = self
            .hub
            .all()
            .into_iter()
            .filter(|attempts| {
                let view = attempts.oldest();
                view.tenant == *tenant
                    && filter.labels.iter().all(|(key, value)| view.labels.get(key) == Some(value))
                    && filter.after.as_ref().is_none_or(|after| view.id > *after)
            })
            .collect();
        all.sort_by(|a, b| a.oldest().id.cmp(&b.oldest().id));
        Ok(all
            .iter()
            .map(|attempts| describe::execution(&self.settings, attempts))
            .filter(|execution| filter.states.is_empty() || filter.states.contains(&execution.state))
            .take(filter.limit)
            .collect())
    }

    async fn watch(
        &self,
        tenant: &Tenant,
        id: &ExecutionId,
        cursor: &[u8],
        options: WatchOptions,
    ) -> Result<EventStream, Error> {
        self.tell(tenant, id, cursor, options, Interest::Caller).await
    }

    async fn copy(
        &self,
        tenant: &Tenant,
        id: &ExecutionId,
        cursor: &[u8],
        options: WatchOptions,
    ) -> Result<EventStream, Error> {
        self.tell(tenant, id, cursor, options, Interest::Copy).await
    }

    async fn cancel(&self, tenant: &Tenant, id: &ExecutionId, request: Cancel) -> Result<Execution, Error> {
        let address = self.address(tenant, id);
        let attempts = self.find(&address).await?;
        self.check_claim(&address, &attempts, request.claim.as_deref()).await?;
        let execution = describe::execution(&self.settings, &attempts);
        let view = attempts.latest();
        if execution.outcome.is_some() {
            if execution.state == State::Ending && execution.cancel.is_none() {
                // The outcome stands; what still runs beside it is to end too.
                let ended = self.end_the_rest(view, json!({})).await?;
                return Ok(describe::execution(&self.settings, &ended));
            }
            return Ok(execution);
        }
        let can_go_on = view.policies.infra_retry.is_some();
        if attempts.stop().is_some() || (view.cancel.is_some() && !can_go_on) {
            return Ok(execution);
        }
        info!(execution = %address.name(), by = request.subject, "cancelling");
        let intent = CancelIntent {
            by: request.subject,
            reason: request.reason,
            class: FailureClass::CancelledByCaller,
            at: self.api.clock().now(),
        };
        let ended = self.stop(&attempts, intent, request.grace.map(|grace| grace.as_secs())).await?;
        Ok(describe::execution(&self.settings, &ended))
    }

    async fn release(&self, tenant: &Tenant, id: &ExecutionId, claim: Option<&str>) -> Result<Execution, Error> {
        let address = self.address(tenant, id);
        let attempts = self.find(&address).await?;
        self.check_claim(&address, &attempts, claim).await?;
        let execution = describe::execution(&self.settings, &attempts);
        if execution.released.is_some() {
            return Ok(execution);
        }
        if execution.outcome.is_none() {
            return Err(Error::invalid_request("name", "the execution has not ended; cancel it first"));
        }
        let mut annotations = json!({});
        annotations[names::RELEASED] = json!(self.api.clock().now());
        let released = self.end_the_rest(attempts.latest(), annotations).await?;
        Ok(describe::execution(&self.settings, &released))
    }

    fn census(&self) -> BoxStream<'static, Presence> {
        self.hub.census()
    }

    fn health(&self) -> Health {
        self.hub.health()
    }

    fn check(&self) -> BoxStream<'static, Check> {
        let checks = check::check(Arc::clone(&self.settings), self.api.clone(), self.chain.clone());
        match &self.runner {
            Some(runner) => checks.chain(runner.check()).boxed(),
            None => checks.boxed(),
        }
    }
}
