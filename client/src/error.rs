//! What can go wrong with a call, in the words of the contract.
//!
//! Every failure is one [`Error`]: the code and the reason of the table in `broker_service.proto`, a sentence for a
//! person, and what the broker said about trying again. A failure that never reached the broker, such as a refused
//! connection, has the code UNAVAILABLE and no reason, so a caller needs no second kind of error. Failed executions are
//! not errors: they are data in the answer.

use std::fmt;
use std::time::{Duration, SystemTime};

use tonic_types::StatusExt;

/// The domain of every reason that a broker of this kind gives.
const DOMAIN: &str = "podbroker.io";

/// Where a broker may put the request's id, besides the detail `RequestInfo`.
const REQUEST_ID_KEYS: [&str; 2] = ["request_id", "x-request-id"];

/// The reason of an error about the [`Settings`](crate::Settings): nothing was sent.
pub const REASON_CLIENT_SETTINGS: &str = "CLIENT_SETTINGS";

/// The reason of an error about the broker's certificate: nothing was sent.
pub const REASON_CERTIFICATE: &str = "CERTIFICATE_NOT_TRUSTED";

/// A code of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of https://grpc.io/docs/guides/status-codes/")]
pub enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    /// The name in the documents of gRPC, such as `UNAVAILABLE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The code of a number in a message; an unknown number is UNKNOWN, as gRPC demands.
    pub fn from_number(number: i32) -> Self {
        tonic::Code::from_i32(number).into()
    }
}

impl From<tonic::Code> for Code {
    fn from(code: tonic::Code) -> Self {
        match code {
            tonic::Code::Cancelled => Self::Cancelled,
            // OK is no error; a status that claims so all the same is broken.
            tonic::Code::Ok | tonic::Code::Unknown => Self::Unknown,
            tonic::Code::InvalidArgument => Self::InvalidArgument,
            tonic::Code::DeadlineExceeded => Self::DeadlineExceeded,
            tonic::Code::NotFound => Self::NotFound,
            tonic::Code::AlreadyExists => Self::AlreadyExists,
            tonic::Code::PermissionDenied => Self::PermissionDenied,
            tonic::Code::ResourceExhausted => Self::ResourceExhausted,
            tonic::Code::FailedPrecondition => Self::FailedPrecondition,
            tonic::Code::Aborted => Self::Aborted,
            tonic::Code::OutOfRange => Self::OutOfRange,
            tonic::Code::Unimplemented => Self::Unimplemented,
            tonic::Code::Internal => Self::Internal,
            tonic::Code::Unavailable => Self::Unavailable,
            tonic::Code::DataLoss => Self::DataLoss,
            tonic::Code::Unauthenticated => Self::Unauthenticated,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A field that the broker refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path, such as `workload.pod.spec.containers[0].image`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The code of gRPC.
    pub code: Code,
    /// The reason, as in the table of errors; empty when the failure is not the broker's own.
    pub reason: String,
    /// One or two sentences for a person.
    pub message: String,
    /// The same request may succeed later.
    pub retryable: bool,
    /// How long to wait before, if the broker said so.
    pub retry_delay: Option<Duration>,
    /// The fields that are refused.
    pub field_violations: Box<[FieldViolation]>,
    /// Finds the request in the broker's log; empty if the broker gave none.
    pub request_id: Box<str>,
    /// Since when there was no answer, for an error that was tried again until the caller's patience ended.
    pub since: Option<SystemTime>,
    /// The connection failed, or something between here and the broker answered in its place.
    pub(crate) transport: bool,
}

impl Error {
    /// An error about what this process was told to do. Nothing was sent.
    pub(crate) fn settings(message: impl Into<String>) -> Self {
        Self::local(Code::InvalidArgument, REASON_CLIENT_SETTINGS, message)
    }

    /// An answer that breaks the contract.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::local(Code::Internal, "", message)
    }

    /// The broker did not answer in time.
    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Self { retryable: true, transport: true, ..Self::local(Code::DeadlineExceeded, "", message) }
    }

    /// The connection broke, or went silent.
    pub(crate) fn disconnected(message: impl Into<String>) -> Self {
        Self { retryable: true, transport: true, ..Self::local(Code::Unavailable, "", message) }
    }

    fn local(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            retryable: false,
            retry_delay: None,
            field_violations: Box::default(),
            request_id: Box::default(),
            since: None,
            transport: false,
        }
    }

    /// Reads a status with its google.rpc details.
    pub(crate) fn from_status(status: &tonic::Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().filter(|info| info.domain == DOMAIN).map(|info| info.reason.clone());
        let from_broker = reason.is_some();
        let mut error = Self {
            code: status.code().into(),
            reason: reason.unwrap_or_default(),
            message: status.message().to_owned(),
            retryable: false,
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
            field_violations: details.bad_request().map_or_else(Box::default, |bad| {
                let one = |violation: &tonic_types::FieldViolation| FieldViolation {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                };
                bad.field_violations.iter().map(one).collect()
            }),
            request_id: request_id(status, details.request_info().map(|info| info.request_id.as_str())),
            since: None,
            transport: false,
        };
        if !from_broker {
            error.judge_transport(status);
        }
        error.retryable |= matches!(error.code, Code::Unavailable | Code::DeadlineExceeded)
            || (error.code == Code::ResourceExhausted && matches!(error.reason.as_str(), "OVERLOADED" | "QUOTA"));
        if error.reason == REASON_CERTIFICATE {
            error.retryable = false;
        }
        if error.message.is_empty() {
            error.message = format!("the broker answered with {} and nothing else", error.code);
        }
        error
    }

    /// Reads the failure of one item of a stream that goes on.
    pub(crate) fn from_watch_failure(failure: crate::proto::WatchFailure) -> Self {
        let retry_delay = failure.retry_delay.and_then(|delay| Duration::try_from(delay).ok());
        let code = Code::from_number(failure.code);
        let retryable = code == Code::Unavailable || (code == Code::ResourceExhausted && retry_delay.is_some());
        let message =
            if failure.message.is_empty() { format!("the broker cannot follow it: {code}") } else { failure.message };
        Self { retryable, retry_delay, ..Self::local(code, &failure.reason, message) }
    }

    /// A status without a reason of ours was made on the way: by the HTTP/2 library here, or by a proxy.
    fn judge_transport(&mut self, status: &tonic::Status) {
        let cause = std::error::Error::source(status);
        self.transport = cause.is_some()
            || matches!(
                self.code,
                Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted
            );
        if !self.transport {
            return;
        }
        self.retryable = true;
        // The status says "transport error" and its causes what that was.
        let causes: Vec<String> = chain(cause).map(ToString::to_string).collect();
        if let Some(last) = causes.last().filter(|last| !self.message.contains(last.as_str())) {
            self.message = format!("{}: {last}", self.message);
        }
        if chain(cause).any(is_bad_certificate) {
            REASON_CERTIFICATE.clone_into(&mut self.reason);
        } else if cause.is_some() {
            self.code = Code::Unavailable;
        }
    }

    /// Says for how long this had been tried again.
    pub(crate) fn after(mut self, tried: Duration) -> Self {
        self.since = SystemTime::now().checked_sub(tried);
        self
    }

    /// Says which connection it was that failed.
    pub(crate) fn over(mut self, endpoint: &str) -> Self {
        if self.transport {
            self.message = format!("the connection to {endpoint} failed: {}", self.message);
        }
        self
    }

    /// Whether the client itself tries again: what the broker refuses for longer is the caller's to decide.
    pub(crate) fn is_worth_retrying(&self) -> bool {
        match self.code {
            _ if self.reason == REASON_CERTIFICATE => false,
            Code::Unavailable | Code::DeadlineExceeded => true,
            Code::ResourceExhausted => self.reason == "OVERLOADED" && self.retry_delay.is_some(),
            _ => self.transport,
        }
    }
}

/// The error and its causes, outermost first.
fn chain<'a>(
    error: Option<&'a (dyn std::error::Error + 'static)>,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error, |error| {
        // An io::Error hides what it was made from behind its own `source`.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inner.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| error.source())
    })
}

fn is_bad_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref::<rustls::Error>(), Some(rustls::Error::InvalidCertificate(_)))
}

fn request_id(status: &tonic::Status, detail: Option<&str>) -> Box<str> {
    let metadata = || REQUEST_ID_KEYS.iter().find_map(|key| status.metadata().get(*key)?.to_str().ok());
    detail.filter(|id| !id.is_empty()).or_else(metadata).unwrap_or_default().into()
}
