//! Members of groups after they took their seat: found again, changed by their holder, and deleted in the right order.

use std::sync::Arc;

use serde_json::{Value, json};
use tracing::info;

use super::api::ApiError;
use super::attempts::Attempts;
use super::carrier::Carrier;
use super::names::{EXECUTION_LABEL, FINALIZER, GROUP_LABEL};
use super::selection::Selection;
use super::view::View;
use super::{PodBackend, claim, describe};
use crate::error::Error;
use crate::execution::Address;

/// A pod changes a few times a second at most.
const PATCH_TRIES: u32 = 5;

/// What is done with the first pod of a member that nobody needs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// It is deleted.
    Delete,
    /// Others may delete it.
    LetGo,
}

impl PodBackend {
    /// Everybody in the group, by the cluster's word.
    pub(super) async fn list_group(&self, hash: &str) -> Result<Vec<Arc<Attempts>>, ApiError> {
        self.learn_all(&self.hub.pods.with_label(GROUP_LABEL, hash)).await
    }

    /// All executions of these pods, by the cluster's word.
    pub(super) async fn learn_all(&self, pods: &Selection) -> Result<Vec<Arc<Attempts>>, ApiError> {
        let mut found: Vec<Arc<Attempts>> = Vec::new();
        let learn = |pod: Carrier| {
            let Ok(attempts) = self.hub.learn(&pod) else { return };
            // The pods of one execution come one by one; the last answer has all of them.
            let address = |attempts: &Attempts| describe::address(&self.settings, attempts.oldest());
            found.retain(|other| address(other) != address(&attempts));
            found.push(attempts);
        };
        self.api.list(pods, learn).await?;
        Ok(found)
    }

    /// A claim that was given must be that of the execution's holder.
    pub(super) async fn check_claim(
        &self,
        address: &Address,
        attempts: &Attempts,
        claim: Option<&str>,
    ) -> Result<(), Error> {
        let Some(claim) = claim else { return Ok(()) };
        let first = attempts.oldest();
        let mut held = claim::held(first);
        // What is written to the first pod is refused if the claims were changed; what is written to a later one is not.
        if first.membership.is_some() && attempts.latest().attempt != first.attempt {
            match self.api.get::<Carrier>(&first.pod_name).await {
                Ok(pod) => held = claim::held(&View::of(&pod).map_err(Error::bug)?),
                Err(error) if error.code() == Some(404) => {}
                Err(error) => return Err(self.error("read a pod", error)),
            }
        }
        if claim == held { Ok(()) } else { Err(Error::ClaimSuperseded { name: address.name().to_string() }) }
    }

    /// Changes the pod of a member whose claims are those that were judged.
    pub(super) async fn patch_member(&self, view: &View, mut patch: Value) -> Result<Arc<Attempts>, Error> {
        let mut version = view.version;
        for _ in 0..PATCH_TRIES {
            patch["metadata"]["resourceVersion"] = json!(version.to_string());
            match self.api.patch(&view.pod_name, &view.uid, patch.clone()).await {
                Ok(pod) => return self.hub.learn(&pod).map_err(Error::bug),
                Err(error) if error.code() == Some(409) => {}
                Err(error) => return Err(self.error("change a pod", error)),
            }
            // Most changes are the kubelet's, and do not matter.
            let pod: Carrier = self.api.get(&view.pod_name).await.map_err(|error| self.error("read a pod", error))?;
            let now = View::of(&pod).map_err(Error::bug)?;
            self.hub.learn(&pod).map_err(Error::bug)?;
            if now.uid != view.uid || now.membership != view.membership {
                // Somebody may have taken over: the caller is to look again.
                break;
            }
            version = now.version;
        }
        Err(Error::NotInStep { target: self.settings.target.to_string() })
    }

    /// The execution with this address, if it is a member of some group; its pod's name does not tell.
    pub(super) async fn find_member(&self, address: &Address) -> Result<Option<Arc<Attempts>>, Error> {
        let pods = self.hub.pods.with_label(EXECUTION_LABEL, &address.hash());
        let found = self.learn_all(&pods).await.map_err(|error| self.error("list the pods of an execution", error))?;
        Ok(found.into_iter().find(|attempts| describe::address(&self.settings, attempts.oldest()) == *address))
    }

    /// Deletes the pod of a member that nobody needs any more, or leaves it to others, unless a later member stands on it.
    pub(super) async fn vacate(&self, view: &View, leave: Leave) -> Result<(), Error> {
        // Without a successor's mark none was ever made, and with one the mark is older than any create may take.
        if let Some(membership) = view.membership.as_deref().filter(|membership| membership.superseded.is_some()) {
            let members = self.list_group(&membership.group).await;
            let members = members.map_err(|error| self.error("list the pods of a group", error))?;
            if members.iter().any(|member| member.oldest().is_later(membership)) {
                return Err(Error::NotInStep { target: self.settings.target.to_string() });
            }
        }
        // Each step names the version that was judged: whoever attaches or starts a successor in between keeps the pod.
        let mut version = view.version;
        if view.has_finalizer {
            let removed = self.api.remove_finalizer(&view.pod_name, &view.uid, FINALIZER, Some(version)).await;
            let pod = match removed {
                Ok(pod) => pod,
                Err(error) if error.code() == Some(404) => return Ok(()),
                Err(error) => return Err(self.error("take the finalizer off a pod", error)),
            };
            version = View::of(&pod).map_err(Error::bug)?.version;
        }
        if leave == Leave::LetGo || view.delete_requested.is_some() {
            return Ok(());
        }
        info!(execution = %view.id, pod = view.pod_name, "deleting");
        match self.api.delete_version(&view.pod_name, &view.uid, version).await {
            Err(error) if error.code() != Some(404) => Err(self.error("delete a pod", error)),
            _ => Ok(()),
        }
    }
}
