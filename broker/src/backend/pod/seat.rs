//! A submit to a group takes its seat: attaches to a member, or starts the next one.
//!
//! The decision is `group`'s. What makes it safe although other replicas decide at the same time, and although what this one
//! knows may be old:
//!
//! - To attach is a PATCH with the version of the object that was judged, and so is to mark the newest member before its
//!   successor is created: whoever judged something older is refused and looks again, now at the cluster.
//! - A member is deleted only while there is no later one and no create of one can be under way (`claim::kept_until`, `vacate`).
//!   So the first name is free only if the group is empty, and no name becomes free below a later one: a create that was decided
//!   long ago meets the object that took its place, and starts nothing.
//! - A submit that is repeated finds its own object or its own claim, both of which stay until after its window.

use std::sync::Arc;
use std::time::Duration;

use kube::core::response;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::info;

use super::api::{ApiError, Run};
use super::attempts::Attempts;
use super::carrier::Carrier;
use super::group::{Decision, Member, Standing, Tie, decide};
use super::names::{CLAIMS, GENERATION_LABEL, GROUP, GROUP_LABEL, SUPERSEDED};
use super::submit::{FIRST_PAUSE, LONGEST_PAUSE, TRY_FOR, is_missing_namespace};
use super::view::View;
use super::{PodBackend, claim, describe, manifest};
use crate::backend::{Origin, Submitted};
use crate::error::Error;
use crate::execution::{
    Address, CancelIntent, FailureClass, Group, GroupAddress, PolicyError, State, Submit, SubmitMode, Tenant,
};

/// As many as a pod's name has room for.
const MAX_GENERATION: u32 = 9999;

/// A submit to a group on its way.
struct Joining<'a> {
    request: &'a Submit,
    group: &'a Group,
    seat: GroupAddress,
    address: Address,
    digest: &'a str,
}

/// What a look at the group led to.
enum Turn {
    Done(Box<Submitted>),
    /// The cluster has to be asked before this is said.
    Unsure,
}

/// Why a turn led to nothing.
enum Failed {
    ForGood(Error),
    Request(&'static str, ApiError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::ForGood(error)
    }
}

impl From<PolicyError> for Failed {
    fn from(error: PolicyError) -> Self {
        Self::ForGood(error.into())
    }
}

/// Where the members were read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Index,
    Cluster,
}

impl PodBackend {
    /// Joins the group of the request.
    pub(super) async fn join(
        &self,
        tenant: &Tenant,
        request: &Submit,
        group: &Group,
        digest: &str,
    ) -> Result<Submitted, Error> {
        let address = self.address(tenant, &request.id);
        let Address { instance, tenant, target, .. } = address.clone();
        let seat = GroupAddress { instance, tenant, target, id: group.id.clone() };
        let joining = Joining { request, group, seat, address, digest };
        let give_up = Instant::now() + TRY_FOR;
        let mut pause = FIRST_PAUSE;
        let mut known = self.hub.group(&joining.seat.hash());
        loop {
            let turn = match known.take() {
                Some(members) => self.take_seat(&joining, &members, Source::Index).await,
                None => match self.list_group(&joining.seat.hash()).await {
                    Ok(members) => self.take_seat(&joining, &members, Source::Cluster).await,
                    Err(error) => Err(Failed::Request("list the pods of a group", error)),
                },
            };
            let (operation, error) = match turn {
                Ok(Turn::Done(submitted)) => return Ok(*submitted),
                Ok(Turn::Unsure) => continue,
                Err(Failed::ForGood(error)) => return Err(error),
                Err(Failed::Request(operation, error)) => (operation, error),
            };
            // Somebody else was faster, or an answer was lost: look again.
            let passing = error.is_passing()
                || error.code() == Some(409)
                || (error.code() == Some(404) && !is_missing_namespace(&error));
            if !passing || Instant::now() + pause > give_up {
                return Err(self.error(operation, error));
            }
            info!(execution = %joining.address.name(), error = &error as &dyn std::error::Error, "the group is read again");
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn take_seat(
        &self,
        joining: &Joining<'_>,
        members: &[Arc<Attempts>],
        source: Source,
    ) -> Result<Turn, Failed> {
        let Joining { request, group, address, .. } = joining;
        let own = address.hash();
        let judged: Vec<_> = members.iter().filter_map(|member| self.judge(member, address, &own)).collect();
        let member = |wanted: u32| {
            let is_it = |member: &&Arc<Attempts>| generation(member.oldest()) == Some(wanted);
            members.iter().find(is_it).ok_or_else(|| Error::bug("a decision about nobody"))
        };
        let decision = decide(&judged, group);
        if let Decision::Found(generation) = decision {
            return Ok(Turn::Done(self.found_member(joining, member(generation)?)?.into()));
        }
        if request.mode == SubmitMode::MustExist {
            return match source {
                Source::Index => Ok(Turn::Unsure),
                Source::Cluster => Err(Error::NoSuchExecution { name: address.name().to_string() }.into()),
            };
        }
        if self.api.clock().now() > request.submit_before {
            return Err(Error::SubmitWindowClosed { submit_before: request.submit_before }.into());
        }
        let submitted = match decision {
            Decision::Found(generation) => self.found_member(joining, member(generation)?)?,
            Decision::Attach(generation) => self.attach(joining, member(generation)?).await?,
            Decision::Start { after: None } => self.start_member(joining, 1).await?,
            Decision::Start { after: Some(newest) } => {
                if newest >= MAX_GENERATION {
                    let why = format!("has {MAX_GENERATION} executions; release them");
                    return Err(Error::invalid_request("group.group_id", why).into());
                }
                // What is wrong with the request is said before anything is marked.
                self.pod_of(joining, newest + 1)?;
                self.supersede(member(newest)?).await?;
                self.start_member(joining, newest + 1).await?
            }
            Decision::Wait { end, on } => {
                for generation in end {
                    self.end_for(joining, member(generation)?).await?;
                }
                let name = describe::address(&self.settings, member(on)?.oldest()).name().to_string();
                return Err(Error::GroupBusy { name }.into());
            }
        };
        Ok(Turn::Done(submitted.into()))
    }

    fn judge(&self, attempts: &Attempts, address: &Address, own: &str) -> Option<Member> {
        let first = attempts.oldest();
        let membership = first.membership.as_ref()?;
        let execution = describe::execution(&self.settings, attempts);
        // One that is being deleted ends, unless another attempt follows.
        let is_vanishing = attempts.latest().delete_requested.is_some() && attempts.standing().next.is_none();
        let is_told_to_end = execution.cancel.is_some() || is_vanishing;
        let standing = match &execution.outcome {
            None if is_told_to_end => Standing::Ending,
            None => Standing::Active,
            Some(outcome)
                if outcome.state == State::Succeeded
                    && execution.released.is_none()
                    && membership.superseded.is_none() =>
            {
                Standing::Succeeded
            }
            Some(_) => Standing::Over,
        };
        let is_own = execution.address == *address || claim::of_claimant(first, own).is_some();
        let tie = if is_own { Tie::Own } else { Tie::None };
        Some(Member { generation: membership.generation, standing, created: first.created, tie })
    }

    /// What an earlier try of this submit got.
    fn found_member(&self, joining: &Joining<'_>, member: &Attempts) -> Result<Submitted, Error> {
        match claim::of_claimant(member.oldest(), &joining.address.hash()) {
            // Somebody else's request, and whether this one is the same was not asked when it attached.
            Some(claim) => {
                let execution = describe::execution(&self.settings, member);
                Ok(Submitted { execution, claim, origin: Origin::Found })
            }
            None => self.found(&joining.address, member, joining.digest),
        }
    }

    /// Becomes the holder of a member's claim.
    async fn attach(&self, joining: &Joining<'_>, member: &Attempts) -> Result<Submitted, Failed> {
        let (first, hash) = (member.oldest(), joining.address.hash());
        let membership = first.membership.as_ref().ok_or_else(|| Error::bug("a member without a group"))?;
        let submit_before = joining.request.submit_before;
        let claims = membership
            .claims
            .with(&hash, submit_before, self.api.clock().now())
            .ok_or(Error::Overloaded { retry_after: Duration::from_secs(30) })?;
        let attempts = self.mark(first, CLAIMS, &claims.to_string(), "take over an execution").await?;
        let execution = describe::execution(&self.settings, &attempts);
        info!(execution = %execution.address.name(), by = %joining.address.id, "attached");
        let claim = claim::of_claimant(attempts.oldest(), &hash).unwrap_or_default();
        Ok(Submitted { execution, claim, origin: Origin::Found })
    }

    /// Makes sure that a member is the newest one, and that it stays until its successor's create has arrived.
    async fn supersede(&self, member: &Attempts) -> Result<(), Failed> {
        let now = self.api.clock().now().to_string();
        self.mark(member.oldest(), SUPERSEDED, &now, "mark the newest execution of a group").await.map(drop)
    }

    /// Writes an annotation to an object that nobody has changed in between.
    async fn mark(
        &self,
        view: &View,
        key: &str,
        value: &str,
        operation: &'static str,
    ) -> Result<Arc<Attempts>, Failed> {
        let patch = json!({
            "metadata": { "annotations": { key: value }, "resourceVersion": view.version.to_string() },
        });
        let pod = self
            .api
            .patch(&view.pod_name, &view.uid, patch)
            .await
            .map_err(|error| Failed::Request(operation, error))?;
        Ok(self.hub.learn(&pod).map_err(Error::bug)?)
    }

    async fn end_for(&self, joining: &Joining<'_>, member: &Arc<Attempts>) -> Result<(), Error> {
        info!(execution = %member.oldest().id, by = %joining.address.id, "cancelling for another of its group");
        let intent = CancelIntent {
            by: joining.request.subject.clone(),
            reason: format!("{} takes its place", joining.address.id),
            class: FailureClass::CancelledByCaller,
            at: self.api.clock().now(),
        };
        self.stop(member, intent, None).await.map(drop)
    }

    /// The pod of the member with this generation.
    fn pod_of(&self, joining: &Joining<'_>, generation: u32) -> Result<Value, Error> {
        let Joining { request, seat, address, digest, .. } = joining;
        let policies = request.policies.resolve(&self.settings.defaults)?;
        let mut pod = manifest::build(&self.settings, address, 1, request, &policies, digest)?;
        let metadata = &mut pod["metadata"];
        metadata["name"] = json!(seat.pod_name(generation, 1));
        metadata["labels"][GROUP_LABEL] = json!(seat.hash());
        metadata["labels"][GENERATION_LABEL] = json!(generation.to_string());
        metadata["annotations"][GROUP] = json!(seat.id.as_str());
        self.prepare(&mut pod, &request.workload, &policies)?;
        Ok(pod)
    }

    async fn start_member(&self, joining: &Joining<'_>, generation: u32) -> Result<Submitted, Failed> {
        const OPERATION: &str = "create a pod";
        let pod = self.pod_of(joining, generation)?;
        let policies = joining.request.policies.resolve(&self.settings.defaults)?;
        self.admit(&pod, &joining.request.workload, &policies).await?;
        let name = joining.seat.pod_name(generation, 1);
        match self.api.create(&pod, &name, Run::Real).await {
            Ok(created) => {
                info!(execution = %joining.address.name(), pod = name, "created");
                Ok(self.created(&joining.address, created)?)
            }
            Err(ApiError::Refused(status)) if status.reason == response::reason::ALREADY_EXISTS => {
                let taken: Carrier = self.api.get(&name).await.map_err(|error| Failed::Request(OPERATION, error))?;
                let hash = joining.seat.hash();
                let is_member = View::of(&taken)
                    .is_ok_and(|view| view.membership.is_some_and(|membership| membership.group == hash));
                if !is_member || !self.is_ours(&taken) {
                    // Another installation's, or a stranger's that took the name.
                    return Err(Error::IdReused { id: joining.address.id.to_string() }.into());
                }
                Err(Failed::Request(OPERATION, ApiError::Refused(status)))
            }
            Err(error) => Err(Failed::Request(OPERATION, error)),
        }
    }
}

fn generation(view: &View) -> Option<u32> {
    view.membership.as_ref().map(|membership| membership.generation)
}
