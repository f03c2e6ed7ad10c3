//! What can go wrong with a call: one variant, one row of the table on top of `broker_service.proto`.
//!
//! An error has two readers. The caller gets the message and the reason; what the cluster said word for word, with the
//! chain of causes, goes to the log as `source`. A failed execution is no error.

use std::time::Duration;

use thiserror::Error;

use crate::execution::{CursorError, IdError, PolicyError};

/// The cause of an error, as the library below gave it; for the log only.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// One field of a request or a manifest, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// A path such as `spec.containers[0].image`; empty when it cannot be told.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

/// Why the API server refused a request that it understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// RBAC does not let the broker do it.
    Forbidden,
    /// The namespace does not exist.
    NamespaceNotFound,
    /// An admission controller said no.
    AdmissionDenied,
    /// A quota is used up.
    Quota,
}

/// Why a call failed.
#[derive(Debug, Error)]
pub enum Error {
    /// A field of the request is malformed.
    #[error("{field}: {why}")]
    InvalidRequest {
        /// The field of the request message.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The manifest is refused.
    #[error("the manifest is invalid: {}", summary(.violations))]
    InvalidSpec {
        /// At least one.
        violations: Vec<FieldViolation>,
    },
    /// The cursor is of no use.
    #[error(transparent)]
    InvalidCursor(#[from] CursorError),
    /// No credential, or an unknown one.
    #[error("{why}")]
    Unauthenticated {
        /// What was missing, never what was sent.
        why: &'static str,
    },
    /// The caller may not use that target.
    #[error("{caller} may not use the target {target}")]
    NotAllowed {
        /// The caller's subject.
        caller: String,
        /// The target's name.
        target: String,
    },
    /// No configured target matches.
    #[error("no target {what}; `podbroker targets` lists those that you may use")]
    NoSuchTarget {
        /// What was asked for.
        what: String,
    },
    /// There is no such execution.
    #[error("there is no execution {name}")]
    NoSuchExecution {
        /// Its name.
        name: String,
    },
    /// It existed and is gone.
    #[error("the execution {name} existed and is gone, and so are its lines")]
    Expired {
        /// Its name.
        name: String,
    },
    /// The id stands for another request.
    #[error("the execution id {id} stands for another request; choose another id, or repeat the request unchanged")]
    IdReused {
        /// The id.
        id: String,
    },
    /// The time to submit has passed.
    #[error(
        "submit_before ({submit_before}) has passed and nothing was created; look with must_exist, or use a new id"
    )]
    SubmitWindowClosed {
        /// The moment.
        submit_before: jiff::Timestamp,
    },
    /// The cluster refuses.
    #[error("the cluster refuses: {message}")]
    Refused {
        /// On what ground.
        refusal: Refusal,
        /// The API server's sentence.
        message: String,
    },
    /// A newer claim holds it.
    #[error("a newer claim holds the execution {name}")]
    ClaimSuperseded {
        /// Its name.
        name: String,
    },
    /// Somebody of the group has to end first.
    #[error("the execution {name} of the group has to end first; it was told to")]
    GroupBusy {
        /// Its name.
        name: String,
    },
    /// The target's credentials are refused.
    #[error("the credentials of the target {target} are refused at {link}")]
    CredentialsRefused {
        /// The target's name.
        target: String,
        /// Where in the chain.
        link: &'static str,
        /// What was said there.
        source: Source,
    },
    /// The credentials cannot be had now.
    #[error("the credentials of the target {target} cannot be had now")]
    CredentialsUnavailable {
        /// The target's name.
        target: String,
        /// Why.
        source: Source,
    },
    /// The cluster does not answer.
    #[error("the cluster of the target {target} does not answer: {operation}")]
    Backend {
        /// The target's name.
        target: String,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: Source,
    },
    /// The broker has not read the first list of the target yet.
    #[error("the broker is not in step with the target {target} yet")]
    NotInStep {
        /// The target's name.
        target: String,
    },
    /// The archive does not answer.
    #[error("the archive does not answer")]
    Archive {
        /// Why.
        source: Source,
    },
    /// The broker does not have that feature.
    #[error("this broker does not have the feature {feature}")]
    Unsupported {
        /// Its name.
        feature: String,
    },
    /// Too much to do.
    #[error("the broker has too much to do")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// This replica is going away.
    #[error("this replica is going away; call again")]
    Draining,
    /// A defect of the broker.
    #[error("the broker has a defect; its log has the details")]
    Bug {
        /// What does not hold, for the log.
        what: String,
    },
}

fn summary(violations: &[FieldViolation]) -> String {
    let text = |violation: &FieldViolation| match violation.field.as_str() {
        "" => violation.why.clone(),
        field => format!("{field}: {}", violation.why),
    };
    violations.iter().map(text).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// A malformed field of the request.
    pub fn invalid_request(field: &'static str, why: impl Into<String>) -> Self {
        Self::InvalidRequest { field, why: why.into() }
    }

    /// One wrong field of the manifest.
    pub fn invalid_spec(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::InvalidSpec { violations: vec![FieldViolation { field: field.into(), why: why.into() }] }
    }

    /// The archive does not answer, or what it has cannot be read.
    pub fn archive(source: impl Into<Source>) -> Self {
        Self::Archive { source: source.into() }
    }

    /// Something that cannot be, and is.
    pub fn bug(what: impl Into<String>) -> Self {
        Self::Bug { what: what.into() }
    }

    /// An id of the request that is not one.
    pub fn invalid_id(field: &'static str, error: &IdError) -> Self {
        Self::invalid_request(field, error.to_string())
    }
}

impl From<PolicyError> for Error {
    fn from(error: PolicyError) -> Self {
        Self::InvalidRequest { field: error.field, why: error.why }
    }
}
