//! Requests to AWS Batch for one target: each waits for its turn, is counted, and fails in our words.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_batch::Client;
use aws_sdk_batch::error::{ProvideErrorMetadata, SdkError};
use thiserror::Error;

use super::limits::Limiter;
use crate::error::{Error, Refusal};
use crate::execution::TargetName;
use crate::identity::eks::{BatchAccess, BatchFailure, Happened, Hope, happened};
use crate::telemetry::BatchCounters;

/// A request of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    SubmitJob,
    TerminateJob,
    DescribeJobs,
    ListJobs,
    RegisterJobDefinition,
    DescribeJobDefinitions,
    DescribeJobQueues,
    DescribeComputeEnvironments,
}

/// In the submit of an execution, which is tried again by itself, and must not take so long that it is taken for lost.
const PATIENCE: Duration = Duration::from_millis(400);

impl Operation {
    /// How long it waits for its turn; without an end if nothing is said.
    fn patience(self) -> Option<Duration> {
        matches!(self, Self::SubmitJob | Self::RegisterJobDefinition).then_some(PATIENCE)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SubmitJob => "SubmitJob",
            Self::TerminateJob => "TerminateJob",
            Self::DescribeJobs => "DescribeJobs",
            Self::ListJobs => "ListJobs",
            Self::RegisterJobDefinition => "RegisterJobDefinition",
            Self::DescribeJobDefinitions => "DescribeJobDefinitions",
            Self::DescribeJobQueues => "DescribeJobQueues",
            Self::DescribeComputeEnvironments => "DescribeComputeEnvironments",
        }
    }
}

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) operation: Operation,
    pub(super) failure: BatchFailure,
    /// Whether it may have been carried out all the same.
    pub(super) happened: Happened,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.failure.sentence("AWS Batch", self.operation.name()))
    }
}

impl Failed {
    /// The policy of the role, of a boundary or of an organization says no.
    pub(super) fn is_denied(&self) -> bool {
        matches!(&self.failure, BatchFailure::Refused { code, .. } if is_denied(code))
    }

    /// As the error of a call.
    pub(super) fn into_error(self, target: &TargetName) -> Error {
        let (target, operation, text) = (target.to_string(), self.operation.name(), self.to_string());
        let denied = self.is_denied();
        match self.failure {
            BatchFailure::Refused { .. } => {
                let refusal = if denied { Refusal::Forbidden } else { Refusal::AdmissionDenied };
                Error::Refused { refusal, message: text }
            }
            BatchFailure::Throttled(_) | BatchFailure::Away(_) => {
                Error::Backend { target, operation, source: Said(text).into() }
            }
            BatchFailure::NoSession(error) => match error.hope {
                Hope::Lasting => Error::CredentialsRefused { target, link: error.link, source: error.into() },
                Hope::Passing => Error::CredentialsUnavailable { target, source: error.into() },
            },
        }
    }
}

/// Whether that is AWS's word for what a policy does not allow.
pub(super) fn is_denied(code: &str) -> bool {
    DENIED.contains(&code)
}

const DENIED: [&str; 3] = ["AccessDeniedException", "AccessDenied", "UnauthorizedOperation"];

#[derive(Debug, Error)]
#[error("{0}")]
struct Said(String);

/// The requests of one target.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) access: BatchAccess,
    pub(super) target: TargetName,
    pub(super) counters: BatchCounters,
    pub(super) limiter: Arc<Limiter>,
}

impl Calls {
    pub(super) fn client(&self) -> &Client {
        self.access.client()
    }

    /// Makes a request when it is its turn.
    pub(super) async fn make<T, E>(
        &self,
        operation: Operation,
        request: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, Failed>
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        if !self.take_turn(operation).await {
            self.counters.request(operation.name(), "no-turn");
            let failure = BatchFailure::Throttled("too many of the broker's own requests wait".to_owned());
            return Err(Failed { operation, failure, happened: Happened::No });
        }
        let error = match request.await {
            Ok(answer) => {
                self.counters.request(operation.name(), "ok");
                return Ok(answer);
            }
            Err(error) => error,
        };
        let failed = Failed { operation, failure: self.access.failure(&error).await, happened: happened(&error) };
        if matches!(failed.failure, BatchFailure::Throttled(_)) {
            self.limiter.throttled();
        }
        self.counters.request(operation.name(), failed.failure.outcome());
        Err(failed)
    }

    async fn take_turn(&self, operation: Operation) -> bool {
        if let Some(patience) = operation.patience() {
            return tokio::time::timeout(patience, self.limiter.take()).await.is_ok();
        }
        self.limiter.take().await;
        true
    }

    pub(super) fn error(&self, failed: Failed) -> Error {
        failed.into_error(&self.target)
    }
}
