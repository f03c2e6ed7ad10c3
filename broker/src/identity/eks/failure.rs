//! How a call of AWS failed, by the types of its causes and not by their words.
//!
//! The SDK nests: a call that could not be signed is a dispatch failure, inside of which is what the credentials' provider
//! says, inside of which may be a refused call of its own. What decides is the innermost one that AWS has answered.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::RequestId as _;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;

use super::{ChainError, Hope, Trouble};

/// A cause that goes on for pages helps nobody.
const MAX_CAUSES: usize = 400;

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// AWS has answered, and would answer the same again.
    Refused {
        /// AWS's word for it.
        code: String,
        /// AWS's sentence.
        said: String,
    },
    /// Nobody answered, or AWS asks for patience.
    Away(String),
    /// The credentials to sign the call with did not come.
    Unsigned(Unsigned),
}

/// Why there are no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unsigned {
    /// Nobody has given any.
    Missing(String),
    /// What was given cannot be used.
    Unusable(String),
    /// AWS does not take what they are made from.
    Refused(String),
    /// They are made elsewhere, and nobody answers there.
    Away(String),
}

/// Reads the failure of a call.
pub(super) fn of_call<E>(error: &SdkError<E>) -> Failure
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    if let Some(inner) = find::<CredentialsError>(error) {
        return Failure::Unsigned(of_credentials(inner));
    }
    match error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or("an error without a code").to_owned();
            let said = service.err().message().unwrap_or_default().to_owned();
            if is_passing(service.raw().status().as_u16(), &code) {
                Failure::Away(sentence(&code, &said))
            } else {
                Failure::Refused { code, said }
            }
        }
        // The request itself cannot be made of the settings.
        SdkError::ConstructionFailure(_) => Failure::Refused { code: String::new(), said: causes(error) },
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            Failure::Refused { code: String::new(), said: causes(error) }
        }
        _ => Failure::Away(causes(error)),
    }
}

/// Reads why credentials did not come.
pub(super) fn of_credentials(error: &CredentialsError) -> Unsigned {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => Unsigned::Missing(inner(error)),
        CredentialsError::InvalidConfiguration(_) => Unsigned::Unusable(inner(error)),
        CredentialsError::ProviderTimedOut(_) => Unsigned::Away(inner(error)),
        _ => {
            if let Some(call) = find::<SdkError<AssumeRoleWithWebIdentityError>>(error) {
                of_inner_call(call)
            } else if let Some(call) = find::<SdkError<AssumeRoleError>>(error) {
                of_inner_call(call)
            } else if find::<std::io::Error>(error).is_some_and(is_lasting) {
                Unsigned::Unusable(inner(error))
            } else {
                Unsigned::Away(inner(error))
            }
        }
    }
}

fn of_inner_call<E>(error: &SdkError<E>) -> Unsigned
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match of_call(error) {
        Failure::Refused { code, said } => Unsigned::Refused(sentence(&code, &said)),
        Failure::Away(why) => Unsigned::Away(why),
        Failure::Unsigned(unsigned) => unsigned,
    }
}

/// A file with a token that is not there, or not for us, does not mend itself.
fn is_lasting(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied)
}

/// A failure that may be over the next time; the last word says that STS could not reach the identity provider.
fn is_passing(status: u16, code: &str) -> bool {
    status >= 500 || asks_for_patience(status, code) || matches!(code, "RequestTimeout" | "IDPCommunicationError")
}

/// How the services of AWS say that there were too many requests: by a status, or by a word.
pub(super) fn asks_for_patience(status: u16, code: &str) -> bool {
    status == 429
        || matches!(
            code,
            "Throttling"
                | "ThrottlingException"
                | "RequestLimitExceeded"
                | "RequestThrottled"
                | "TooManyRequestsException"
        )
}

/// The broker's own credentials are the broken link.
pub(super) fn without_base(unsigned: Unsigned) -> ChainError {
    let (trouble, hope, what) = match unsigned {
        Unsigned::Missing(why) => {
            (Trouble::NoCredentials, Hope::Lasting, format!("the broker has no AWS credentials: {why}"))
        }
        Unsigned::Unusable(why) => {
            (Trouble::NoCredentials, Hope::Lasting, format!("the broker's AWS credentials are not set up right: {why}"))
        }
        Unsigned::Refused(why) => {
            (Trouble::NoCredentials, Hope::Lasting, format!("AWS gives the broker no credentials: {why}"))
        }
        Unsigned::Away(why) => {
            (Trouble::StsAway, Hope::Passing, format!("the broker's AWS credentials do not come: {why}"))
        }
    };
    ChainError { link: "workload-identity", trouble, what, hope, source: None }
}

/// AWS's word and sentence.
pub(super) fn sentence(code: &str, said: &str) -> String {
    [code, said].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

/// What AWS's own people ask for.
pub(super) fn request<E>(error: &SdkError<E>) -> Option<Box<dyn Error + Send + Sync>> {
    error.request_id().map(|id| format!("AWS's request {id}").into())
}

/// A cause of a type, anywhere below an error.
pub(super) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// What is below an error whose own words say nothing.
fn inner(error: &(dyn Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), causes)
}

/// The error and its causes in one line, nothing twice.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    if text.len() > MAX_CAUSES {
        text.truncate(text.floor_char_boundary(MAX_CAUSES));
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
#[path = "failure_tests.rs"]
mod tests;
