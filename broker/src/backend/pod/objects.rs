//! What is read and changed of the carriers of an execution: found again, marked, and told to end.

use std::sync::Arc;

use serde_json::{Value, json};

use super::attempts::Attempts;
use super::carrier::Carrier;
use super::view::View;
use super::{PodBackend, describe, names, record};
use crate::error::Error;
use crate::execution::{Address, CancelIntent, Policies, Workload};

impl PodBackend {
    /// The labels say that it belongs to this installation and this target.
    pub(super) fn is_ours(&self, pod: &Carrier) -> bool {
        let label = |key: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
        label(names::INSTANCE_LABEL) == Some(self.settings.instance.as_str())
            && label(names::TARGET_LABEL) == Some(self.settings.target.as_str())
    }

    /// The execution, from the index or, since another replica may just have created it, from the cluster.
    pub(super) async fn find(&self, address: &Address) -> Result<Arc<Attempts>, Error> {
        if let Some(attempts) = self.hub.get(&address.hash()) {
            return Ok(attempts);
        }
        let name = address.pod_name(1);
        let missing = || Error::NoSuchExecution { name: address.name().to_string() };
        let pod = match self.api.get::<Carrier>(&name).await {
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
            match self.api.get::<Carrier>(&next).await {
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

    /// Checks that the job of a record can be asked for, and notes who is about to. Returns what would be sent; nothing if the
    /// carrier is no record.
    pub(super) fn prepare(
        &self,
        carrier: &mut Value,
        workload: &Workload,
        policies: &Policies,
    ) -> Result<Option<Vec<u8>>, Error> {
        self.runner.as_ref().map(|runner| runner.prepare(carrier, workload, policies)).transpose()
    }

    /// Asks whether a Job of the cluster would be taken, so that a refusal answers its submit; others are refused by their own
    /// create, or, those of AWS Batch, later.
    pub(super) async fn admit(&self, carrier: &Value, workload: &Workload, policies: &Policies) -> Result<(), Error> {
        match &self.runner {
            Some(runner) if self.settings.runs_cluster_jobs() => runner.validate(carrier, workload, policies).await,
            _ => Ok(()),
        }
    }

    /// Begins what follows the creation of a carrier.
    pub(super) fn begin(&self, attempts: &Attempts) {
        if let Some(runner) = &self.runner {
            runner.begin(attempts);
        }
    }

    /// The latest pod as JSON; on a target with jobs nothing while there is none, or when it is gone.
    pub(super) async fn read_pod(&self, attempts: &Attempts) -> Result<Option<Vec<u8>>, Error> {
        let latest = attempts.latest();
        let name = &latest.pod_name;
        let read = match latest.record() {
            None => self.api.get(name).await,
            Some(record) => match record.parts.last() {
                Some(part) => self.api.get_pod(&part.view.pod_name, name).await,
                None => return Ok(None),
            },
        };
        let pod: Value = match read {
            Ok(pod) => pod,
            Err(error) if error.code() == Some(404) && latest.record().is_some() => return Ok(None),
            Err(error) if error.code() == Some(404) => {
                let name = describe::address(&self.settings, latest).name().to_string();
                return Err(Error::NoSuchExecution { name });
            }
            Err(error) => return Err(self.error("read a pod", error)),
        };
        serde_json::to_vec(&pod).map(Some).map_err(|error| Error::bug(error.to_string()))
    }

    /// The latest Job of the cluster as JSON; nothing where there is none, or when it is gone.
    pub(super) async fn read_job(&self, attempts: &Attempts) -> Result<Option<Vec<u8>>, Error> {
        let record = attempts.latest().record();
        let Some((name, uid)) = record.and_then(|record| record::of_cluster(record.job_id())) else { return Ok(None) };
        match self.api.get_job::<Value>(name).await {
            Ok(job) if job["metadata"]["uid"] == uid => {
                serde_json::to_vec(&job).map(Some).map_err(|error| Error::bug(error.to_string()))
            }
            Ok(_) => Ok(None),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(self.error("read a Job", error)),
        }
    }

    /// Changes a carrier and takes in the answer. Returns the execution after it.
    pub(super) async fn patch(&self, view: &View, patch: Value) -> Result<Arc<Attempts>, Error> {
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
    pub(super) async fn end(
        &self,
        view: &View,
        intent: CancelIntent,
        grace: Option<u64>,
    ) -> Result<Arc<Attempts>, Error> {
        let text = serde_json::to_string(&intent).map_err(|error| Error::bug(error.to_string()))?;
        let annotations = json!({ names::CANCEL: text });
        if view.record().is_some() {
            let marked = self.patch(view, json!({ "metadata": { "annotations": annotations } })).await?;
            if let Some(runner) = &self.runner {
                runner.end_soon(&marked);
            }
            return Ok(marked);
        }
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

    /// Asks for the end of an execution that has no outcome. Returns it as it is then.
    pub(super) async fn stop(
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
    pub(super) async fn end_the_rest(&self, view: &View, mut annotations: Value) -> Result<Arc<Attempts>, Error> {
        if view.is_terminal() || view.node.is_empty() || view.record().is_some() {
            return self.patch(view, json!({ "metadata": { "annotations": annotations } })).await;
        }
        if view.decided.is_none() {
            annotations[names::DECIDED] = json!(self.api.clock().now());
        }
        let spec = json!({ "activeDeadlineSeconds": 1 });
        self.patch(view, json!({ "metadata": { "annotations": annotations }, "spec": spec })).await
    }
}
