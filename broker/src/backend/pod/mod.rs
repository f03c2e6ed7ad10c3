//! Runs executions as pods of one namespace.
//!
//! `manifest` makes the pod, `submit` creates it once, `hub` watches all of them, `view` is what is kept of one and `attempts` of
//! an execution, `status` says what it means, `watch` tells it, with the lines from `logs` and the result from `collect`.
//! `reconcile` deletes what was released and ends what did not start in time, and by `orphans` what nobody follows. `group`,
//! `seat`, `member` and `claim` let executions take each other's place. Requests go through `api`, and its refusals become errors in `refusal`.

mod another;
mod api;
mod attempts;
mod check;
mod chunk;
mod claim;
mod clock;
mod collect;
mod deletion;
mod describe;
mod events;
mod feed;
mod following;
mod group;
mod hub;
mod intake;
mod lines;
mod logs;
mod manifest;
mod member;
mod names;
mod node;
mod notices;
mod orphans;
mod packing;
mod place;
mod reconcile;
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
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info, info_span};

use self::api::PodApi;
use self::attempts::Attempts;
use self::clock::ServerClock;
use self::following::Interest;
use self::hub::Hub;
use self::logs::Logs;
use self::view::View;
use super::{Backend, Cancel, Check, EventStream, Filter, Health, Keeper, Presence, Submitted, View as Depth};
use crate::error::{Error, Refusal};
use crate::execution::{
    Address, CancelIntent, Execution, ExecutionId, FailureClass, InstanceId, PolicyDefaults, State, Submit, TargetName,
    Tenant, WatchOptions,
};
use crate::identity::{Connection, eks};

pub use self::logs::{Spool, SpoolLimits, SpoolUse};
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
}

/// Runs executions as pods.
pub struct PodBackend {
    settings: Arc<PodSettings>,
    api: PodApi,
    hub: Arc<Hub>,
    logs: Arc<Logs>,
    chain: Option<Arc<eks::Chain>>,
    /// The name of this process's Lease.
    replica: String,
    words: orphans::Words,
    keeper: Option<Arc<dyn Keeper>>,
}

impl PodBackend {
    /// Starts the target's watch and its reconciler, which end with `stop`. The keeper is asked before a pod is deleted.
    pub fn start(
        settings: PodSettings,
        connection: Connection,
        spool: Arc<Spool>,
        keeper: Option<Arc<dyn Keeper>>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let Connection { client, chain, .. } = connection;
        let clock = ServerClock::default();
        let settings = Arc::new(settings);
        let hub = Arc::new(Hub::new(Arc::clone(&settings), clock.clone()));
        let api = PodApi::new(client, &settings.namespace, settings.instance.as_str(), clock);
        let logs = Logs::new(api.clone(), spool, tasks, stop);
        let replica = format!("podbroker-{:016x}", rand::random::<u64>());
        let words = orphans::Words::default();
        let backend = Arc::new(Self { settings, api, hub, logs, chain, replica, words, keeper });
        let span = info_span!("target", name = %backend.settings.target);
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

    /// The labels say that it belongs to this installation and this target.
    fn is_ours(&self, pod: &Pod) -> bool {
        let label = |key: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
        label(names::INSTANCE_LABEL) == Some(self.settings.instance.as_str())
            && label(names::TARGET_LABEL) == Some(self.settings.target.as_str())
    }

    /// The execution, from the index or, since another replica may just have created it, from the cluster.
    async fn find(&self, address: &Address) -> Result<Arc<Attempts>, Error> {
        if let Some(attempts) = self.hub.get(&address.hash()) {
            return Ok(attempts);
        }
        let name = address.pod_name(1);
        let missing = || Error::NoSuchExecution { name: address.name().to_string() };
        let pod = match self.api.get::<Pod>(&name).await {
            Ok(pod) => pod,
            Err(error) if error.code() == Some(404) => return self.find_member(address).await?.ok_or_else(missing),
            Err(error) => return Err(self.error("read a pod", error)),
        };
        let view = View::of(&pod).map_err(|_| missing())?;
        if !self.is_ours(&pod) || describe::address(&self.settings, &view) != *address {
            return Err(missing());
        }
        let mut attempts = self.hub.learn(&pod).map_err(Error::bug)?;
        // It may have gone on since then.
        while let Some(next) = attempts.standing().next.and_then(|next| attempts.pod_name(next.number)) {
            match self.api.get::<Pod>(&next).await {
                Ok(pod) if self.is_ours(&pod) => match self.hub.learn(&pod).map_err(Error::bug)? {
                    more if more.latest().attempt > attempts.latest().attempt => attempts = more,
                    _ => break,
                },
                Ok(_) => break,
                Err(error) if error.code() == Some(404) => break,
                Err(error) => return Err(self.error("read a pod", error)),
            }
        }
        Ok(attempts)
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

    /// Changes a pod and takes in the answer. Returns the execution after it.
    async fn patch(&self, view: &View, patch: Value) -> Result<Arc<Attempts>, Error> {
        if view.membership.is_some() {
            return self.patch_member(view, patch).await;
        }
        let pod = self
            .api
            .patch(&view.pod_name, &view.uid, patch)
            .await
            .map_err(|error| self.error("change a pod", error))?;
        self.hub.learn(&pod).map_err(Error::bug)
    }

    /// Asks for the end of what has not ended. Returns the execution after it.
    async fn end(&self, view: &View, intent: CancelIntent, grace: Option<u64>) -> Result<Arc<Attempts>, Error> {
        let text = serde_json::to_string(&intent).map_err(|error| Error::bug(error.to_string()))?;
        let annotations = json!({ names::CANCEL: text });
        // The kubelet ends a pod whose deadline has passed with the pod's own grace, and keeps exit codes and logs. A pod
        // without a node has no kubelet, and another grace than its own needs a delete.
        if !view.node.is_empty() && grace.is_none() {
            let spec = json!({ "activeDeadlineSeconds": 1 });
            return self.patch(view, json!({ "metadata": { "annotations": annotations }, "spec": spec })).await;
        }
        let marked = self.patch(view, json!({ "metadata": { "annotations": annotations } })).await?;
        match self.api.delete(&view.pod_name, &view.uid, grace).await {
            Ok(()) => Ok(marked),
            Err(error) if error.code() == Some(404) => Ok(marked),
            Err(error) => Err(self.error("delete a pod", error)),
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
            let pod: Value = match self.api.get(&attempts.latest().pod_name).await {
                Ok(pod) => pod,
                Err(error) if error.code() == Some(404) => {
                    return Err(Error::NoSuchExecution { name: address.name().to_string() });
                }
                Err(error) => return Err(self.error("read a pod", error)),
            };
            execution.pod_json = Some(serde_json::to_vec(&pod).map_err(|error| Error::bug(error.to_string()))?);
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
        check::check(Arc::clone(&self.settings), self.api.clone(), self.chain.clone()).boxed()
    }
}

impl PodBackend {
    /// Asks for the end of an execution that has no outcome. Returns it as it is then.
    async fn stop(
        &self,
        attempts: &Attempts,
        intent: CancelIntent,
        grace: Option<u64>,
    ) -> Result<Arc<Attempts>, Error> {
        let view = attempts.latest();
        if view.cancel.is_none() && attempts.standing().next.is_none() {
            return self.end(view, intent, grace).await;
        }
        // This attempt ends without us; what counts is that it is the last.
        let text = serde_json::to_string(&intent).map_err(|error| Error::bug(error.to_string()))?;
        self.patch(view, json!({ "metadata": { "annotations": { names::STOP: text } } })).await
    }

    /// Writes annotations to an execution whose outcome is known, and ends what still runs in its pod, in one request.
    async fn end_the_rest(&self, view: &View, mut annotations: Value) -> Result<Arc<Attempts>, Error> {
        if view.is_terminal() || view.node.is_empty() {
            return self.patch(view, json!({ "metadata": { "annotations": annotations } })).await;
        }
        if view.decided.is_none() {
            annotations[names::DECIDED] = json!(self.api.clock().now());
        }
        let spec = json!({ "activeDeadlineSeconds": 1 });
        self.patch(view, json!({ "metadata": { "annotations": annotations }, "spec": spec })).await
    }
}
