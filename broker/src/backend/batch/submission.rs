//! Asks for a job once, and tells what that led to: made, refused, certainly not made, or nobody knows.

use aws_sdk_batch::config::Builder;
use aws_sdk_batch::config::retry::RetryConfig;
use serde_json::json;

use super::calls::{Calls, Failed, Operation};
use super::definition::Registered;
use super::plan::Plan;
use super::wire;
use crate::backend::job::Submission;
use crate::execution::FailureClass;
use crate::identity::eks::{BatchFailure, Happened};

/// Submits what was planned.
pub(super) async fn submit(calls: &Calls, registered: &Registered, mut plan: Plan) -> Submission {
    if let Some(definition) = &plan.definition {
        match registered.revision(calls, definition).await {
            Ok(revision) => plan.submit.insert("jobDefinition".to_owned(), json!(revision)),
            // Whatever became of the definition, there is no job.
            Err(failed) => return of_failure(calls, Failed { happened: Happened::No, ..failed }),
        };
    }
    // The API has no token that would make a repetition harmless.
    let once = Builder::new().retry_config(RetryConfig::disabled());
    let request = wire::submit(calls.client().submit_job(), &plan.submit).customize().config_override(once).send();
    let failed = match Box::pin(calls.make(Operation::SubmitJob, request)).await {
        Ok(answer) => match answer.job_id {
            Some(id) if !id.is_empty() => return Submission::Made { id },
            _ => Failed {
                operation: Operation::SubmitJob,
                failure: BatchFailure::Away("it was answered without the job's id".to_owned()),
                happened: Happened::Perhaps,
            },
        },
        Err(failed) => failed,
    };
    let is_refused = matches!(failed.failure, BatchFailure::Refused { .. }) && !failed.is_denied();
    if is_refused && plan.definition.as_ref().is_some_and(|definition| registered.doubt(definition)) {
        return Submission::NotMade(calls.error(failed));
    }
    of_failure(calls, failed)
}

fn of_failure(calls: &Calls, failed: Failed) -> Submission {
    if failed.happened == Happened::Perhaps {
        return Submission::Unknown(calls.error(failed));
    }
    if !matches!(failed.failure, BatchFailure::Refused { .. }) {
        return Submission::NotMade(calls.error(failed));
    }
    let class = if failed.is_denied() { FailureClass::AdmissionDenied } else { FailureClass::InvalidSpec };
    Submission::Refused { class, message: failed.to_string() }
}
