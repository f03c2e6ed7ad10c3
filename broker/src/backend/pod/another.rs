//! Makes another attempt.
//!
//! Any replica may do it, and the name lets one win. Before the create both ends of the chain, the first attempt and the
//! latest one, are read again: what the watch has told may be older than a cancel. A cancel that still comes in between is
//! found in the objects afterwards, and ends what was made. A refusal that may pass is written down when it first comes, so
//! that every replica can say what is waited for; one that lasts is written down, too, and is then the outcome.

use std::time::Duration;

use kube::core::response;
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};

use super::api::{ApiError, Run};
use super::attempts::{Attempts, Next};
use super::carrier::Carrier;
use super::view::View;
use super::{PodBackend, describe, manifest, names};
use crate::error::{Error, Refusal};
use crate::execution::{FailureClass, RefusedAttempt};

/// What was read is believed for so long. A process that was stopped in between decides anew.
const FRESH: Duration = Duration::from_secs(10);

/// A quota or a permission that is missing may come back. So long after it was due an attempt is tried, or up to its start
/// deadline if that is set.
const PATIENCE: Duration = Duration::from_mins(10);

impl PodBackend {
    /// Makes the attempt with that number, if it is still due.
    pub(super) async fn make_attempt(&self, known: &Attempts, number: u32) -> Result<(), Error> {
        let read = Instant::now();
        let Some(first) = self.read_again(&known.oldest().pod_name).await? else { return Ok(()) };
        let mut attempts = self.hub.learn(&first).map_err(Error::bug)?;
        if attempts.latest().attempt > 1 {
            let Some(latest) = self.read_again(&attempts.latest().pod_name).await? else { return Ok(()) };
            attempts = self.hub.learn(&latest).map_err(Error::bug)?;
        }
        let now = self.api.clock().now();
        let due = match attempts.standing().next {
            Some(Next { number: next, due: Some(due) }) if next == number && due <= now => due,
            _ => return Ok(()),
        };
        let address = describe::address(self.hub.settings(), attempts.oldest());
        let Some(name) = attempts.pod_name(number) else { return Ok(()) };
        let mut pod = match manifest::build_next(self.hub.settings(), &address, (number, &name), &first) {
            Ok(pod) => pod,
            Err(why) => return self.refuse(&attempts, number, None, why).await,
        };
        let workload = manifest::workload(&first).map_err(Error::bug)?;
        if let Err(error) = self.prepare(&mut pod, &workload, &attempts.oldest().policies) {
            return self.refuse(&attempts, number, Some(FailureClass::InvalidSpec), error.to_string()).await;
        }
        if read.elapsed() > FRESH {
            return Err(Error::NotInStep { target: self.settings.target.to_string() });
        }
        let error = match self.api.create(&pod, &name, Run::Real).await {
            Ok(created) => {
                info!(execution = %address.name(), pod = name, "another attempt was made");
                let created = serde_json::from_value(created).map_err(|error| Error::bug(error.to_string()))?;
                let attempts = self.hub.learn(&created).map_err(Error::bug)?;
                self.begin(&attempts);
                return Ok(());
            }
            Err(ApiError::Refused(status)) if status.reason == response::reason::ALREADY_EXISTS => {
                return self.meet(&attempts, number, &name).await;
            }
            Err(error) => self.error("create a pod", error),
        };
        let patience = attempts.oldest().policies.start_deadline.unwrap_or(PATIENCE);
        let is_late = Duration::try_from(now.duration_since(due)).is_ok_and(|waited| waited > patience);
        let class = match &error {
            Error::InvalidSpec { .. } => FailureClass::InvalidSpec,
            Error::Refused { refusal: Refusal::AdmissionDenied, .. } => FailureClass::AdmissionDenied,
            Error::Refused { refusal: Refusal::Quota, .. } => FailureClass::Quota,
            Error::Refused { .. } => FailureClass::Broker,
            _ => return Err(error),
        };
        if matches!(class, FailureClass::Quota | FailureClass::Broker) && !is_late {
            self.put_off(&attempts, number, class, &error).await;
            return Err(error);
        }
        self.refuse(&attempts, number, Some(class), error.to_string()).await
    }

    /// A pod as it is now; `None` if it is no more.
    async fn read_again(&self, name: &str) -> Result<Option<Carrier>, Error> {
        match self.api.get::<Carrier>(name).await {
            Ok(pod) => Ok(Some(pod)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(self.error("read a pod", error)),
        }
    }

    /// The name is taken: by another replica's create, by an earlier one of ours whose answer was lost, or by a stranger.
    async fn meet(&self, attempts: &Attempts, number: u32, name: &str) -> Result<(), Error> {
        let Some(pod) = self.read_again(name).await? else {
            // It was there a moment ago. The next turn decides anew.
            return Err(Error::NotInStep { target: self.settings.target.to_string() });
        };
        let view = View::of(&pod).ok().filter(|_| self.is_ours(&pod));
        let oldest = attempts.oldest();
        let is_it = view.is_some_and(|view| {
            view.attempt == number
                && view.digest == oldest.digest
                && view.id == oldest.id
                && view.tenant == oldest.tenant
        });
        if is_it {
            return self.hub.learn(&pod).map(drop).map_err(Error::bug);
        }
        let why = format!("the name {name} is taken by another pod");
        self.refuse(attempts, number, None, why).await
    }

    /// Writes down that the attempt has to wait, if that is not known yet. It is tried again, whatever becomes of this.
    async fn put_off(&self, attempts: &Attempts, number: u32, class: FailureClass, error: &Error) {
        let latest = attempts.latest();
        if latest.waits.as_ref().is_some_and(|waits| waits.number == number) {
            return;
        }
        let waits = RefusedAttempt {
            number,
            class: Some(class),
            message: brief(&error.to_string()),
            at: self.api.clock().now(),
        };
        let Ok(text) = serde_json::to_string(&waits) else { return };
        if let Err(error) = self.patch(latest, json!({ "metadata": { "annotations": { names::WAITS: text } } })).await {
            let error: &dyn std::error::Error = &error;
            warn!(execution = %latest.id, number, error, "that another attempt waits cannot be told");
        }
    }

    /// Writes down that the attempt cannot be made.
    async fn refuse(
        &self,
        attempts: &Attempts,
        number: u32,
        class: Option<FailureClass>,
        message: String,
    ) -> Result<(), Error> {
        let latest = attempts.latest();
        warn!(execution = %latest.id, number, message, "another attempt cannot be made");
        let refused = RefusedAttempt { number, class, message: brief(&message), at: self.api.clock().now() };
        let text = serde_json::to_string(&refused).map_err(|error| Error::bug(error.to_string()))?;
        self.patch(latest, json!({ "metadata": { "annotations": { names::REFUSED: text } } })).await.map(drop)
    }
}

/// What is told to people and kept in an object: a webhook may say much.
fn brief(message: &str) -> String {
    message.chars().take(1024).collect()
}
