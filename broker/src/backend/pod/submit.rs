//! Exactly-once submit: the name decides.
//!
//! A create that was answered with anything but success may still have happened, so it is repeated: the second try meets its
//! own object. An object that is there already is compared and never believed. Nothing is created after `submit_before`, by
//! the API server's clock.

use std::time::Duration;

use kube::core::response;
use serde_json::Value;
use tokio::time::Instant;
use tracing::info;

use super::api::{ApiError, Run};
use super::attempts::Attempts;
use super::carrier::Carrier;
use super::view::View;
use super::{PodBackend, claim, describe, manifest, refusal};
use crate::backend::{Origin, Submitted};
use crate::error::Error;
use crate::execution::{Address, Execution, State, Submit, SubmitMode, Tenant, spec_digest};

/// How long one call tries. Its caller has a deadline too, and repeats the call; this is for a lost answer.
pub(super) const TRY_FOR: Duration = Duration::from_secs(8);
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3);

impl PodBackend {
    pub(super) async fn submit_pod(&self, tenant: &Tenant, request: Submit) -> Result<Submitted, Error> {
        let address = self.address(tenant, &request.id);
        let group = request.group.as_ref();
        let digest = spec_digest(&request.workload, &request.labels, &request.policies, group.map(|group| &group.id));
        let name = address.pod_name(1);
        if request.mode != SubmitMode::ValidateOnly
            && let Some(attempts) = self.hub.get(&address.hash())
        {
            return self.found(&address, &attempts, &digest);
        }
        if request.mode != SubmitMode::ValidateOnly
            && let Some(group) = group
        {
            return self.join(tenant, &request, group, &digest).await;
        }
        if request.mode == SubmitMode::MustExist {
            return match self.api.get::<Carrier>(&name).await {
                Ok(pod) => self.found_pod(&address, &pod, &digest),
                Err(error) if error.code() == Some(404) => {
                    Err(Error::NoSuchExecution { name: address.name().to_string() })
                }
                Err(error) => Err(self.error("read a pod", error)),
            };
        }
        let policies = request.policies.resolve(&self.settings.defaults)?;
        let mut pod = manifest::build(&self.settings, &address, 1, &request, &policies, &digest)?;
        let plan = self.prepare(&mut pod, &request.workload, &policies)?;
        if request.mode == SubmitMode::ValidateOnly {
            if let Some(runner) = &self.runner {
                runner.validate(&pod, &request.workload, &policies).await?;
            }
            return self.validate(&address, &pod, &digest, plan).await;
        }
        if let Err(error) = self.admit(&pod, &request.workload, &policies).await {
            // What was made before may have used up what would refuse it now.
            return match self.api.get::<Carrier>(&name).await {
                Ok(pod) => self.found_pod(&address, &pod, &digest),
                Err(_) => Err(error),
            };
        }
        self.create(&address, &request, &pod, &digest).await
    }

    async fn create(&self, address: &Address, request: &Submit, pod: &Value, digest: &str) -> Result<Submitted, Error> {
        let name = address.pod_name(1);
        let give_up = Instant::now() + TRY_FOR;
        let mut pause = FIRST_PAUSE;
        if !self.api.clock().is_known() {
            // Nothing was heard from the API server yet, and our own clock may be wrong. Whatever the answer is, it has a date.
            let _ = self.api.get::<Carrier>(&name).await;
        }
        loop {
            if self.api.clock().now() > request.submit_before {
                return Err(Error::SubmitWindowClosed { submit_before: request.submit_before });
            }
            let error = match self.api.create(pod, &name, Run::Real).await {
                Ok(created) => {
                    info!(execution = %address.name(), pod = name, "created");
                    return self.created(address, created);
                }
                Err(ApiError::Refused(status)) if status.reason == response::reason::ALREADY_EXISTS => {
                    match self.api.get::<Carrier>(&name).await {
                        Ok(pod) => return self.found_pod(address, &pod, digest),
                        // It was deleted in between, or nobody answers: the create will tell.
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let passing = error.is_passing() || error.code() == Some(404) && !is_missing_namespace(&error);
            if !passing || Instant::now() + pause > give_up {
                return Err(self.error("create a pod", error));
            }
            info!(execution = %address.name(), error = &error as &dyn std::error::Error, "the create is repeated");
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn validate(
        &self,
        address: &Address,
        pod: &Value,
        digest: &str,
        plan: Option<Vec<u8>>,
    ) -> Result<Submitted, Error> {
        let answer = self
            .api
            .create(pod, &address.pod_name(1), Run::Dry)
            .await
            .map_err(|error| self.error("validate a pod", error))?;
        let text = serde_json::to_vec(&answer).map_err(|error| Error::bug(error.to_string()))?;
        let pod: Carrier = serde_json::from_value(answer).map_err(|error| Error::bug(error.to_string()))?;
        let view = View::of(&pod).map_err(Error::bug)?;
        let execution = Execution {
            // Of a job what would be sent.
            pod_json: Some(plan.unwrap_or(text)),
            digest: digest.to_owned(),
            state: State::Pending,
            ..describe::execution(&self.settings, &Attempts::of(view.into()))
        };
        Ok(Submitted { execution, claim: String::new(), origin: Origin::Found })
    }

    pub(super) fn created(&self, address: &Address, answer: Value) -> Result<Submitted, Error> {
        let pod: Carrier = serde_json::from_value(answer).map_err(|error| Error::bug(error.to_string()))?;
        let attempts = self.hub.learn(&pod).map_err(|problem| Error::bug(format!("{}: {problem}", address.name())))?;
        self.begin(&attempts);
        let execution = describe::execution(&self.settings, &attempts);
        Ok(Submitted { execution, claim: claim::of_creator(attempts.oldest()), origin: Origin::Created })
    }

    fn found_pod(&self, address: &Address, pod: &Carrier, digest: &str) -> Result<Submitted, Error> {
        let taken = || Error::IdReused { id: address.id.to_string() };
        // Another installation's, or a stranger's that took the name: not ours to hand out.
        if !self.is_ours(pod) {
            return Err(taken());
        }
        let attempts = self.hub.learn(pod).map_err(|_| taken())?;
        self.found(address, &attempts, digest)
    }

    pub(super) fn found(&self, address: &Address, attempts: &Attempts, digest: &str) -> Result<Submitted, Error> {
        let view = attempts.oldest();
        if describe::address(&self.settings, view) != *address || view.digest != digest {
            return Err(Error::IdReused { id: address.id.to_string() });
        }
        // The answer to our own create may have been lost.
        self.begin(attempts);
        let execution = describe::execution(&self.settings, attempts);
        Ok(Submitted { execution, claim: claim::of_creator(view), origin: Origin::Found })
    }

    pub(super) fn error(&self, operation: &'static str, error: ApiError) -> Error {
        refusal::error(&self.settings.target, operation, error)
    }
}

pub(super) fn is_missing_namespace(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused(status) if status.message.contains("namespaces \""))
}
