//! Takes an installation's finalizers off the pods of a target, for when its broker goes for good.
//!
//! Nothing is deleted and nothing is ended. A pod that somebody has deleted already goes at once, and what still runs runs on;
//! nobody keeps its outcome then.

use futures::{StreamExt as _, TryStreamExt as _};
use tracing::debug;

use super::api::PodApi;
use super::carrier::Carrier;
use super::clock::ServerClock;
use super::names::{FINALIZER, OUTCOME};
use super::selection::Selection;
use super::{PodSettings, refusal};
use crate::error::Error;
use crate::identity::Connection;

/// Requests at a time.
const AT_ONCE: usize = 16;

/// The pods of a target that carry an installation's finalizer.
pub struct HeldPods {
    settings: PodSettings,
    api: PodApi,
    /// Names and uids.
    pods: Vec<(String, String)>,
    running: usize,
}

impl HeldPods {
    /// Looks for them; changes nothing.
    pub async fn find(settings: PodSettings, connection: Connection) -> Result<Self, Error> {
        let clock = ServerClock::default();
        let api = PodApi::new(connection.client, &settings, clock);
        let selection = Selection::of_carriers(&settings);
        let (mut pods, mut running) = (Vec::new(), 0);
        let note = |pod: Carrier| {
            if is_held(&pod) {
                running += usize::from(!is_over(&pod));
                pods.push((pod.metadata.name.unwrap_or_default(), pod.metadata.uid.unwrap_or_default()));
            }
        };
        let listed = api.list(&selection, note).await;
        listed.map_err(|error| refusal::error(&settings.target, "list pods", error))?;
        Ok(Self { settings, api, pods, running })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pods.len()
    }

    /// How many of them have not ended.
    pub fn running(&self) -> usize {
        self.running
    }

    /// The namespace that they are in.
    pub fn namespace(&self) -> &str {
        &self.settings.namespace
    }

    /// Takes the finalizers off. What is done stays done when one of them fails.
    pub async fn let_go(self) -> Result<(), Error> {
        let Self { settings, api, pods, .. } = self;
        let (settings, api) = (&settings, &api);
        let requests = pods.into_iter().map(async |(name, uid)| {
            match api.remove_finalizer(&name, &uid, FINALIZER, None).await {
                // It is gone, or another one has its name: there is nothing of ours.
                Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
                done => {
                    debug!(pod = name, "the finalizer was taken off");
                    done.map(drop).map_err(|error| refusal::error(&settings.target, "change a pod", error))
                }
            }
        });
        futures::stream::iter(requests).buffer_unordered(AT_ONCE).try_collect().await
    }
}

fn is_held(pod: &Carrier) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

fn is_over(pod: &Carrier) -> bool {
    if pod.metadata.annotations.iter().flatten().any(|(key, _)| key == OUTCOME) {
        return true;
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
