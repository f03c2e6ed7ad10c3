//! AWS Batch by a target's role: a session of its own that runs jobs and does nothing else, and how its calls fail.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_batch::error::{ProvideErrorMetadata, SdkError};

use super::explain::{Link, lifetime, role_fix};
use super::failure::{self, Failure};
use super::session::{RoleSession, SessionProvider};
use super::{ChainError, CredentialsMode, Hope, RoleSettings, SessionPolicy, Trouble, policy};

/// Whose AWS Batch is used.
#[derive(Debug, Clone)]
pub struct BatchSettings {
    /// The region of its queues.
    pub region: String,
    /// Where the broker's own credentials come from.
    pub mode: CredentialsMode,
    /// The role to assume; the broker's own credentials without.
    pub role: Option<RoleSettings>,
    /// Who writes job definitions.
    pub definitions: Definitions,
    /// Where events of jobs come from, if they do.
    pub events: Option<EventsQueue>,
    /// Where lines of their pods are shipped to, if they are.
    pub logs: Option<LogGroupName>,
}

/// A log group of CloudWatch Logs in the region of the jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGroupName {
    /// What a request says: the name, or the ARN of one in another account.
    pub identifier: String,
    /// Its name.
    pub name: String,
    /// Whose it is, where the ARN is used; else the role's account.
    pub account: Option<String>,
}

/// A queue of SQS in the region of the jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsQueue {
    /// What SQS calls it.
    pub url: String,
    /// Whose it is.
    pub account: String,
    /// Its name.
    pub name: String,
}

/// Who writes job definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Definitions {
    /// People; the broker uses those that there are.
    Given,
    /// The broker too, for pods.
    Registered,
}

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// SQS answers after 20 seconds at the latest.
const LONG_POLL: Duration = Duration::from_secs(30);

/// A way into AWS Batch; cheap to clone.
#[derive(Clone)]
pub struct BatchAccess {
    client: aws_sdk_batch::Client,
    events: aws_sdk_sqs::Client,
    logs: aws_sdk_cloudwatchlogs::Client,
    sts: aws_sdk_sts::Client,
    session: Arc<RoleSession>,
    settings: Arc<BatchSettings>,
}

impl std::fmt::Debug for BatchAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchAccess").field("region", &self.settings.region).finish_non_exhaustive()
    }
}

/// How a call of AWS Batch failed.
#[derive(Debug)]
pub enum BatchFailure {
    /// It was answered, and would be answered the same again.
    Refused {
        /// AWS's word for it.
        code: String,
        /// AWS's sentence.
        said: String,
    },
    /// The account has made too many calls.
    Throttled(String),
    /// Nobody answered, or the answer was that something is broken there.
    Away(String),
    /// The credentials do not come, or are not taken.
    NoSession(ChainError),
}

impl BatchFailure {
    /// In a word, for counters.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Throttled(_) => "throttled",
            Self::Away(_) => "away",
            Self::NoSession(_) => "no-session",
        }
    }

    /// In a sentence, for people; `service` is the one that was called.
    pub fn sentence(&self, service: &str, operation: &str) -> String {
        match self {
            Self::Refused { code, said } => format!("{service} refuses {operation}: {code}: {said}"),
            Self::Throttled(why) => format!("{service} has no room for {operation} now: {why}"),
            Self::Away(why) => format!("{service} does not answer {operation}: {why}"),
            Self::NoSession(error) => format!("{operation}: {error}"),
        }
    }
}

/// Whether a call that failed may have been carried out all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It was not.
    No,
    /// Nobody knows.
    Perhaps,
}

impl BatchAccess {
    /// Asks nobody for anything yet.
    pub fn new(aws: &SdkConfig, settings: BatchSettings) -> Self {
        let narrow = settings.role.as_ref().filter(|role| role.policy == SessionPolicy::Narrow);
        let events = settings.events.as_ref();
        let logs = settings.logs.as_ref();
        let policy =
            narrow.and_then(|role| policy::batch(&role.arn, &settings.region, settings.definitions, events, logs));
        let session = RoleSession::new(aws, aws_sdk_sts::Client::new(aws), settings.role.clone(), policy);
        let session = Arc::new(session);
        // The session is its own cache, with rules of its own.
        let config = aws_sdk_batch::config::Builder::from(aws)
            .credentials_provider(SessionProvider(Arc::clone(&session)))
            .identity_cache(aws_sdk_batch::config::IdentityCache::no_cache())
            .build();
        let events = aws_sdk_sqs::config::Builder::from(aws)
            .credentials_provider(SessionProvider(Arc::clone(&session)))
            .identity_cache(aws_sdk_sqs::config::IdentityCache::no_cache())
            // A request waits for messages, and who asks has a rhythm of its own.
            .timeout_config(long_poll())
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        let logs = aws_sdk_cloudwatchlogs::config::Builder::from(aws)
            .credentials_provider(SessionProvider(Arc::clone(&session)))
            .identity_cache(aws_sdk_cloudwatchlogs::config::IdentityCache::no_cache())
            .build();
        let sts = aws_sdk_sts::config::Builder::from(aws)
            .credentials_provider(SessionProvider(Arc::clone(&session)))
            .identity_cache(aws_sdk_sts::config::IdentityCache::no_cache())
            .build();
        Self {
            client: aws_sdk_batch::Client::from_conf(config),
            events: aws_sdk_sqs::Client::from_conf(events),
            logs: aws_sdk_cloudwatchlogs::Client::from_conf(logs),
            sts: aws_sdk_sts::Client::from_conf(sts),
            session,
            settings: Arc::new(settings),
        }
    }

    /// The client, which signs with the session.
    pub fn client(&self) -> &aws_sdk_batch::Client {
        &self.client
    }

    /// The queue of events, and a client for it that signs with the session and tries once.
    pub fn events(&self) -> Option<(EventsQueue, aws_sdk_sqs::Client)> {
        self.settings.events.clone().map(|queue| (queue, self.events.clone()))
    }

    /// The log group, and a client for it that signs with the session.
    pub fn log_group(&self) -> Option<(LogGroupName, aws_sdk_cloudwatchlogs::Client)> {
        self.settings.logs.clone().map(|group| (group, self.logs.clone()))
    }

    /// The role's ARN; none for the broker's own identity.
    pub fn role(&self) -> Option<&str> {
        self.settings.role.as_ref().map(|role| role.arn.as_str())
    }

    /// The region of its queues.
    pub fn region(&self) -> &str {
        &self.settings.region
    }

    /// How a call failed. A session that AWS has withdrawn is renewed for the next one.
    pub async fn failure<E>(&self, error: &SdkError<E>) -> BatchFailure
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        // The session's own failure is the cause that matters, and it names its own link.
        if let Some(ChainError { link, trouble, what, hope, source }) = failure::find(error) {
            let source = source.as_ref().map(|source| source.to_string().into());
            return BatchFailure::NoSession(ChainError {
                link,
                trouble: *trouble,
                what: what.clone(),
                hope: *hope,
                source,
            });
        }
        match failure::of_call(error) {
            Failure::Unsigned(unsigned) => BatchFailure::NoSession(failure::without_base(unsigned)),
            Failure::Away(why) if is_throttled(error) => BatchFailure::Throttled(why),
            Failure::Away(why) => BatchFailure::Away(why),
            Failure::Refused { code, said } if NOT_TAKEN.contains(&code.as_str()) => {
                self.session.doubt().await;
                let what = format!("AWS does not take the session: {}", failure::sentence(&code, &said));
                BatchFailure::NoSession(ChainError {
                    link: "role",
                    trouble: Trouble::Refused,
                    what,
                    hope: Hope::Passing,
                    source: None,
                })
            }
            Failure::Refused { code, said } => BatchFailure::Refused { code, said },
        }
    }

    /// Who the session is to AWS, and until when; or what is broken, and what to do.
    pub async fn explain(&self) -> Link {
        const NAME: &str = "batch-identity";
        let expiry = match self.session.describe().await {
            Ok((_, expiry)) => expiry,
            Err(error) => return Link::broken(NAME, error.to_string(), self.fix(&error)),
        };
        match self.sts.get_caller_identity().send().await {
            Ok(answer) => {
                let arn = answer.arn().unwrap_or("nobody");
                Link::held(NAME, format!("AWS knows us as {arn}, {}", lifetime(expiry)))
            }
            Err(error) => {
                let detail = match failure::of_call(&error) {
                    Failure::Unsigned(unsigned) => failure::without_base(unsigned).what,
                    Failure::Away(why) => format!("STS does not answer: {why}"),
                    Failure::Refused { code, said } => failure::sentence(&code, &said),
                };
                Link::broken(NAME, detail, super::explain::STS_FIX.to_owned())
            }
        }
    }

    /// What to do about a session that does not come.
    pub fn fix(&self, error: &ChainError) -> String {
        let arn = self.role().unwrap_or("the target's role");
        role_fix(error.trouble, arn, self.settings.mode).unwrap_or_else(|| {
            "wait: the next call is made with a new session; if it lasts, look at the role".to_owned()
        })
    }
}

/// What is not set here is taken from the timeouts of short calls, so all of them are.
fn long_poll() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(LONG_POLL)
        .operation_attempt_timeout(LONG_POLL)
        .operation_timeout(LONG_POLL)
        .build()
}

/// What AWS says of credentials that have ended, or that it has withdrawn.
const NOT_TAKEN: [&str; 5] = [
    "ExpiredTokenException",
    "ExpiredToken",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
];

fn is_throttled<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let SdkError::ServiceError(service) = error else { return false };
    failure::asks_for_patience(service.raw().status().as_u16(), service.err().code().unwrap_or_default())
}

/// Whether a call that failed may have been carried out all the same.
pub fn happened<E>(error: &SdkError<E>) -> Happened
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let no = match error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::DispatchFailure(failure) => {
            let unsigned = failure::find::<aws_credential_types::provider::error::CredentialsError>(error).is_some();
            let unconnected = failure::find::<hyper_util::client::legacy::Error>(error)
                .is_some_and(hyper_util::client::legacy::Error::is_connect);
            unsigned || unconnected || failure.is_user()
        }
        // Whoever says that it is too much, or not allowed, has looked at the request before doing it.
        SdkError::ServiceError(service) => {
            (400..500).contains(&service.raw().status().as_u16()) && service.raw().status().as_u16() != 408
                || is_throttled(error)
        }
        _ => false,
    };
    if no { Happened::No } else { Happened::Perhaps }
}
