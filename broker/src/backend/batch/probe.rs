//! Finds out whether a job may be submitted without one being made, since AWS Batch knows no dry run.
//!
//! What is sent is a submit as any other, with the target's queue, definition, tags and namespace, so that policies say to it what
//! they would say to any other, and with a mistake: a share identifier where the queue has no scheduling policy, or none where it
//! has one, which AWS Batch says it does not take. Whoever may not submit is told that; whoever may is told of the mistake. Should
//! such a job be taken all the same, it waits for a job that does not exist, never runs, and is ended.

use aws_sdk_batch::types::JobQueueDetail;

use super::calls::{Calls, Operation};
use super::check::{Checked, NO_JOB};
use super::definition::Registered;
use super::inspect::Problem;
use super::plan::{self, INSTANCE_TAG};
use super::{Settings, submission};
use crate::backend::job::{Submission, Work};
use crate::execution::{BatchWork, FailureClass, PolicyDefaults, PolicyRequest, Workload};

/// The name of a job that is never made, and the share that it would have.
const NAME: &str = "podbroker-check";

/// Whether jobs of a queue have shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shares {
    /// Each must name its own.
    Needed,
    /// None may.
    Refused,
}

impl Shares {
    pub(super) fn of(queue: &JobQueueDetail) -> Self {
        match queue.scheduling_policy_arn.as_deref() {
            None | Some("") => Self::Refused,
            Some(_) => Self::Needed,
        }
    }
}

/// Whether jobs from a definition may be submitted to a queue that takes jobs.
pub(super) async fn submit(
    settings: &Settings,
    calls: &Calls,
    queue: &str,
    shares: Shares,
    definition: &str,
) -> Checked {
    let plan = planned(settings, queue, shares, definition)?;
    match submission::submit(calls, &Registered::default(), plan).await {
        Submission::Refused { class: FailureClass::AdmissionDenied, message } => {
            let fix = format!(
                "allow batch:SubmitJob on the queue {queue} and the job definition {definition}, and batch:TagResource on jobs, for \
                 requests with the tag {INSTANCE_TAG}={} and the namespace {}",
                settings.instance, settings.namespace
            );
            Err(Problem::new(message, fix))
        }
        Submission::Refused { .. } => Ok(format!("jobs from {definition} may be submitted")),
        Submission::Made { id } => {
            let request = calls.client().terminate_job().job_id(&id).reason("podbroker: made by a check").send();
            let ended = calls.make(Operation::TerminateJob, request).await;
            let ended = ended.map_or_else(|failed| failed.to_string(), |_| "it is being ended".to_owned());
            Ok(format!(
                "jobs from {definition} may be submitted; the job {id}, which can never run, was taken: {ended}"
            ))
        }
        Submission::NotMade(error) | Submission::Unknown(error) => {
            Err(Problem::new(error.to_string(), "try again: AWS Batch did not say whether jobs may be submitted"))
        }
    }
}

fn planned(settings: &Settings, queue: &str, shares: Shares, definition: &str) -> Result<plan::Plan, Problem> {
    let policies = PolicyRequest::default().resolve(&PolicyDefaults::default());
    let policies = policies.map_err(|error| Problem::new(error.to_string(), "this is a defect of the broker"))?;
    let workload = Workload::Batch(Box::new(BatchWork {
        job_definition: definition.to_owned(),
        job_queue: Some(queue.to_owned()),
        share_identifier: (shares == Shares::Refused).then(|| NAME.replace('-', "")),
        depends_on: vec![NO_JOB.to_owned()],
        ..BatchWork::default()
    }));
    let work = Work { name: NAME, key: NAME, workload: &workload, policies: &policies, labels: &[] };
    plan::plan(settings, &work)
        .map_err(|error| Problem::new(error.to_string(), "correct the batch table of the target"))
}

#[cfg(test)]
mod tests {
    use super::super::settings_for_tests;
    use super::*;

    #[test]
    fn what_is_sent_is_a_job_like_any_other_that_can_neither_be_taken_nor_run() {
        let settings = settings_for_tests();
        let of = |shares| planned(&settings, "urgent", shares, "pods").unwrap().submit;
        let job = of(Shares::Refused);
        assert_eq!((&job["jobQueue"], &job["jobDefinition"]), (&"urgent".into(), &"pods".into()));
        assert_eq!(job["tags"][INSTANCE_TAG], "main");
        assert_eq!(job["eksPropertiesOverride"]["podProperties"]["metadata"]["namespace"], "jobs");
        assert_eq!(job["dependsOn"][0]["jobId"], NO_JOB);
        assert_eq!(job["shareIdentifier"], "podbrokercheck");
        assert_eq!(of(Shares::Needed).get("shareIdentifier"), None);
    }

    #[test]
    fn a_queue_with_a_scheduling_policy_has_shares() {
        let of = |arn: Option<&str>| {
            Shares::of(&JobQueueDetail::builder().set_scheduling_policy_arn(arn.map(str::to_owned)).build())
        };
        assert_eq!(of(None), Shares::Refused);
        assert_eq!(of(Some("arn:aws:batch:us-east-1:111122223333:scheduling-policy/p")), Shares::Needed);
    }
}
