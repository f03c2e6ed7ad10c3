//! A log group of CloudWatch Logs, into which somebody ships the lines of a target's pods.
//!
//! It is read with the target's role and only where the cluster has lines no longer: a few requests at a time for all containers
//! of a target, each for a page of at most 1 MiB.

use async_trait::async_trait;
use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::Semaphore;

use super::calls::is_denied;
use super::inspect::Problem;
use super::log_stream::{is_of, prefix};
use crate::backend::log_group::{LogGroup, LogGroupError, ShippedContainer, ShippedEvent, ShippedPage};
use crate::identity::eks::{BatchAccess, BatchFailure, LogGroupName};
use crate::telemetry::BatchCounters;

/// An account may make 25 requests a second of each kind in a region, and others read there too.
const AT_ONCE: usize = 4;

/// More streams that begin alike than a pod has containers.
const STREAMS: i32 = 50;

const DESCRIBE: &str = "DescribeLogStreams";
const READ: &str = "GetLogEvents";

/// One log group, and how the streams in it are called.
pub(super) struct CloudWatch {
    access: BatchAccess,
    client: Client,
    group: LogGroupName,
    pattern: String,
    namespace: String,
    counters: BatchCounters,
    turns: Semaphore,
}

impl CloudWatch {
    /// Nothing for a target without one.
    pub(super) fn new(access: &BatchAccess, pattern: &str, namespace: &str, counters: &BatchCounters) -> Option<Self> {
        let (group, client) = access.log_group()?;
        let (access, counters) = (access.clone(), counters.clone());
        let (pattern, namespace, turns) = (pattern.to_owned(), namespace.to_owned(), Semaphore::new(AT_ONCE));
        Some(Self { access, client, group, pattern, namespace, counters, turns })
    }

    /// Whether it is there and can be read. No stream has that name, so that nothing is read.
    pub(super) async fn check(&self) -> Result<String, Problem> {
        const NO_STREAM: &str = "podbroker-check";
        self.streams(NO_STREAM).await.map_err(|failure| self.problem(DESCRIBE, &failure))?;
        let read = self.events(NO_STREAM, None, None).await.map(drop);
        match read {
            Err(failure) if !is_missing(&failure) => Err(self.problem(READ, &failure)),
            Ok(()) | Err(_) => {
                Ok("its streams can be found and read, where lines of a pod that is gone are wanted".to_owned())
            }
        }
    }

    fn problem(&self, operation: &'static str, failure: &BatchFailure) -> Problem {
        let region = self.access.region();
        let fix = match failure {
            BatchFailure::NoSession(error) => self.access.fix(error),
            BatchFailure::Refused { code, .. } if is_denied(code) => {
                "allow logs:DescribeLogStreams and logs:GetLogEvents on the log group in the role's permission policy, or leave \
                 batch.log_group out"
                    .to_owned()
            }
            BatchFailure::Refused { .. } => {
                format!("check batch.log_group: the log group must be in {region} and in the role's account; or leave it out")
            }
            BatchFailure::Throttled(_) => "wait: the account makes more calls to CloudWatch Logs than it may".to_owned(),
            BatchFailure::Away(_) => format!(
                "CloudWatch Logs in {region} cannot be reached: check the way out of the broker's network (NAT, or a VPC \
                 endpoint for CloudWatch Logs)"
            ),
        };
        Problem::new(failure.sentence(SERVICE, operation), fix)
    }

    async fn streams(&self, prefix: &str) -> Result<Vec<String>, BatchFailure> {
        let request = self.client.describe_log_streams().limit(STREAMS).log_stream_name_prefix(prefix);
        let request = match &self.group.account {
            Some(_) => request.log_group_identifier(&self.group.identifier),
            None => request.log_group_name(&self.group.identifier),
        };
        let answer = self.make(DESCRIBE, request.send()).await?;
        Ok(answer.log_streams.unwrap_or_default().into_iter().filter_map(|stream| stream.log_stream_name).collect())
    }

    async fn events(&self, stream: &str, from: Option<i64>, next: Option<&str>) -> Result<ShippedPage, BatchFailure> {
        let request = self.client.get_log_events().log_stream_name(stream).start_from_head(true);
        let request = request.set_start_time(from).set_next_token(next.map(str::to_owned));
        let request = match &self.group.account {
            Some(_) => request.log_group_identifier(&self.group.identifier),
            None => request.log_group_name(&self.group.identifier),
        };
        let answer = self.make(READ, request.send()).await?;
        let events = answer.events.unwrap_or_default().into_iter().map(|event| ShippedEvent {
            millis: event.timestamp.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
        });
        // The end of a stream is told by the token that was sent.
        let is_last = answer.next_forward_token.is_none() || answer.next_forward_token.as_deref() == next;
        Ok(ShippedPage { events: events.collect(), next: answer.next_forward_token, is_last })
    }

    async fn make<T, E>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, BatchFailure>
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        // It is never closed.
        let _turn = self.turns.acquire().await;
        let failure = match request.await {
            Ok(answer) => {
                self.counters.request(operation, "ok");
                return Ok(answer);
            }
            Err(error) => self.access.failure(&error).await,
        };
        self.counters.request(operation, failure.outcome());
        Err(failure)
    }

    fn error(&self, operation: &'static str, failure: &BatchFailure) -> LogGroupError {
        let Problem { what, fix } = self.problem(operation, failure);
        match failure {
            BatchFailure::Refused { .. } => LogGroupError::Refused(format!("{what}; {fix}")),
            _ => LogGroupError::Away(what),
        }
    }
}

const SERVICE: &str = "CloudWatch Logs";

/// The group or the stream is not there.
fn is_missing(failure: &BatchFailure) -> bool {
    matches!(failure, BatchFailure::Refused { code, .. } if code == "ResourceNotFoundException")
}

#[async_trait]
impl LogGroup for CloudWatch {
    fn name(&self) -> &str {
        &self.group.name
    }

    async fn find(&self, of: &ShippedContainer) -> Result<Vec<String>, LogGroupError> {
        let Some(prefix) = prefix(&self.pattern, of, &self.namespace) else {
            let why =
                "the node of the pod is not known, and the names of streams begin with it (batch.log_stream_prefix)";
            return Err(LogGroupError::Refused(why.to_owned()));
        };
        let found = self.streams(&prefix).await.map_err(|failure| self.error(DESCRIBE, &failure))?;
        Ok(found.into_iter().filter(|name| is_of(name, &prefix)).collect())
    }

    async fn page(&self, stream: &str, from: Option<i64>, next: Option<&str>) -> Result<ShippedPage, LogGroupError> {
        self.events(stream, from, next).await.map_err(|failure| self.error(READ, &failure))
    }
}
