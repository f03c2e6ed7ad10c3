//! Errors as the contract says them. One row per variant, the rows of the table on top of `broker_service.proto`; a new
//! variant does not compile until it has one.
//!
//! What the caller gets is the message and the reason. Causes go to the log, by [`chain`].

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::error::{Error, Refusal};

/// The domain of every reason.
const DOMAIN: &str = "podbroker.io";

/// A status travels in HTTP/2 headers, which many clients and proxies limit to 8 KiB; the message is in it twice, once
/// percent-encoded.
const MAX_MESSAGE: usize = 1024;
/// In bytes, of all together: as many as fit, since a caller wants to mend them all at once.
const MAX_VIOLATIONS: usize = 4096;
const MAX_VIOLATION: usize = 256;
/// What a cluster says may be as long as it likes.
const MAX_LOGGED: usize = 16 << 10;

/// How an error is said on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) code: Code,
    pub(super) reason: &'static str,
    /// When to try again; unset when that is of no use.
    pub(super) retry_after: Option<Duration>,
}

pub(super) fn row(error: &Error) -> Row {
    let never = |code, reason| Row { code, reason, retry_after: None };
    let after = |code, reason, seconds| Row { code, reason, retry_after: Some(Duration::from_secs(seconds)) };
    match error {
        Error::InvalidRequest { .. } => never(Code::InvalidArgument, "INVALID_REQUEST"),
        Error::InvalidSpec { .. } => never(Code::InvalidArgument, "INVALID_SPEC"),
        Error::InvalidCursor(_) => never(Code::InvalidArgument, "INVALID_CURSOR"),
        Error::Unauthenticated { .. } => never(Code::Unauthenticated, "UNAUTHENTICATED"),
        Error::NotAllowed { .. } => never(Code::PermissionDenied, "TARGET_NOT_ALLOWED"),
        Error::NoSuchTarget { .. } => never(Code::NotFound, "NO_SUCH_TARGET"),
        Error::NoSuchExecution { .. } => never(Code::NotFound, "NO_SUCH_EXECUTION"),
        Error::Expired { .. } => never(Code::NotFound, "EXPIRED"),
        Error::IdReused { .. } => never(Code::AlreadyExists, "EXECUTION_ID_REUSED"),
        Error::SubmitWindowClosed { .. } => never(Code::FailedPrecondition, "SUBMIT_WINDOW_CLOSED"),
        Error::Refused { refusal, .. } => match refusal {
            Refusal::Forbidden => never(Code::FailedPrecondition, "FORBIDDEN_BY_CLUSTER"),
            Refusal::NamespaceNotFound => never(Code::FailedPrecondition, "NAMESPACE_NOT_FOUND"),
            Refusal::AdmissionDenied => never(Code::FailedPrecondition, "ADMISSION_DENIED"),
            // A quota is freed by the end of a pod, which takes a while.
            Refusal::Quota => after(Code::ResourceExhausted, "QUOTA", 30),
        },
        Error::ClaimSuperseded { .. } => never(Code::FailedPrecondition, "CLAIM_SUPERSEDED"),
        // A pod that is told to end takes its grace to do so.
        Error::GroupBusy { .. } => after(Code::Unavailable, "GROUP_BUSY", 2),
        Error::CredentialsRefused { .. } => never(Code::FailedPrecondition, "CREDENTIALS_REFUSED"),
        Error::CredentialsUnavailable { .. } => after(Code::Unavailable, "CREDENTIALS_UNAVAILABLE", 5),
        Error::Backend { .. } => after(Code::Unavailable, "BACKEND_UNAVAILABLE", 2),
        Error::NotInStep { .. } => after(Code::Unavailable, "BACKEND_UNAVAILABLE", 1),
        Error::Archive { .. } => after(Code::Unavailable, "ARCHIVE_UNAVAILABLE", 5),
        Error::Unsupported { .. } => never(Code::Unimplemented, "UNSUPPORTED_FEATURE"),
        Error::Overloaded { retry_after } => {
            Row { code: Code::ResourceExhausted, reason: "OVERLOADED", retry_after: Some(*retry_after) }
        }
        // The next replica answers at once.
        Error::Draining => after(Code::Unavailable, "DRAINING", 0),
        Error::Bug { .. } => never(Code::Internal, "INTERNAL"),
    }
}

/// The status that the caller gets.
pub(super) fn status(error: &Error, request_id: &str) -> Status {
    let Row { code, reason, retry_after } = row(error);
    let metadata = HashMap::from([("request_id".to_owned(), request_id.to_owned())]);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    let violations = violations(error);
    if !violations.is_empty() {
        details.set_bad_request(violations);
    }
    Status::with_error_details(code, message(error), details)
}

/// The sentence for the caller.
pub(super) fn message(error: &Error) -> String {
    cut(error.to_string(), MAX_MESSAGE)
}

fn violations(error: &Error) -> Vec<FieldViolation> {
    match error {
        Error::InvalidRequest { field, why } => vec![FieldViolation::new(*field, cut(why.clone(), MAX_VIOLATION))],
        Error::InvalidSpec { violations } => {
            let (mut said, mut size) = (Vec::new(), 0);
            for one in violations {
                let (field, why) = (cut(one.field.clone(), MAX_VIOLATION), cut(one.why.clone(), MAX_VIOLATION));
                size += field.len() + why.len();
                if size > MAX_VIOLATIONS {
                    said.push(FieldViolation::new("", format!("and {} more", violations.len() - said.len())));
                    break;
                }
                said.push(FieldViolation::new(field, why));
            }
            said
        }
        Error::InvalidCursor(why) => vec![FieldViolation::new("cursor", why.to_string())],
        _ => Vec::new(),
    }
}

fn cut(mut text: String, at: usize) -> String {
    if text.len() > at {
        text.truncate(text.floor_char_boundary(at));
        text.push_str(" ...");
    }
    text
}

/// The name of a code, as the contract writes it.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The error with all its causes, for the log.
pub(super) fn chain(error: &Error) -> String {
    let mut text = match error {
        Error::Bug { what } => format!("{error}: {what}"),
        other => other.to_string(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    cut(text, MAX_LOGGED)
}
