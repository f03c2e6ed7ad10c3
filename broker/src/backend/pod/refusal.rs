//! From what an API server says to an error of ours: a pure function.
//!
//! Kubernetes has no machine-readable word for most reasons of a 403, so their sentences are matched. Each is a constant of
//! the API server's source and stable for years; a sentence that is not known is an admission controller's.

use kube::core::Status;

use super::api::ApiError;
use crate::error::{Error, FieldViolation, Refusal};
use crate::execution::TargetName;
use crate::identity::eks::Hope;

/// The error of a request that failed for good.
pub(super) fn error(target: &TargetName, operation: &'static str, error: ApiError) -> Error {
    let target = target.to_string();
    match error {
        ApiError::Refused(status) => refused(target, operation, *status),
        transport @ ApiError::Transport { .. } => match transport.chain().map(|chain| (chain.link, chain.hope)) {
            None => Error::Backend { target, operation, source: Box::new(transport) },
            Some((link, Hope::Lasting)) => Error::CredentialsRefused { target, link, source: Box::new(transport) },
            Some((_, Hope::Passing)) => Error::CredentialsUnavailable { target, source: Box::new(transport) },
        },
    }
}

fn refused(target: String, operation: &'static str, status: Status) -> Error {
    let message = status.message.clone();
    let refusal = |refusal| Error::Refused { refusal, message: message.clone() };
    match status.code {
        400 | 422 if is_admission(&message) => refusal(Refusal::AdmissionDenied),
        400 | 413 | 422 => Error::InvalidSpec { violations: violations(&status) },
        401 => Error::CredentialsRefused {
            target,
            link: "the API server",
            source: Box::new(ApiError::Refused(Box::new(status))),
        },
        403 if message.contains("exceeded quota") => refusal(Refusal::Quota),
        403 if message.contains("because it is being terminated") => refusal(Refusal::NamespaceNotFound),
        // "User "x" cannot create resource "pods" in API group "" in the namespace "y""
        403 if message.contains(" cannot ") && message.contains(" resource \"") => refusal(Refusal::Forbidden),
        403 => refusal(Refusal::AdmissionDenied),
        404 if message.contains("namespaces \"") => refusal(Refusal::NamespaceNotFound),
        _ if is_admission(&message) && !message.contains("failed calling webhook") => refusal(Refusal::AdmissionDenied),
        _ => Error::Backend { target, operation, source: Box::new(ApiError::Refused(Box::new(status))) },
    }
}

/// A webhook or a policy said no; both may choose any code.
fn is_admission(message: &str) -> bool {
    message.contains("denied the request")
        || message.contains("denied request")
        || message.contains("ValidatingAdmissionPolicy")
}

/// The fields that the API server names.
fn violations(status: &Status) -> Vec<FieldViolation> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let named: Vec<_> = causes
        .filter(|cause| !cause.field.is_empty())
        .map(|cause| FieldViolation { field: cause.field.clone(), why: cause.message.clone() })
        .collect();
    if !named.is_empty() {
        return named;
    }
    let strict = strict_violations(&status.message);
    if !strict.is_empty() {
        return strict;
    }
    vec![FieldViolation { field: String::new(), why: status.message.clone() }]
}

/// Strict field validation puts its finds into one sentence: `... strict decoding error: unknown field "spec.foo",
/// duplicate field "spec.bar"`.
fn strict_violations(message: &str) -> Vec<FieldViolation> {
    let Some((_, finds)) = message.split_once("strict decoding error: ") else { return Vec::new() };
    let mut violations = Vec::new();
    for find in finds.split(", ") {
        let mut parts = find.splitn(3, '"');
        if let (Some(what), Some(path)) = (parts.next(), parts.next()) {
            let why = match what.trim() {
                "unknown field" => "the cluster does not know this field; check its spelling and its place".to_owned(),
                other => other.to_owned(),
            };
            violations.push(FieldViolation { field: path.to_owned(), why });
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn of(code: u16, message: &str) -> Error {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        error(&"prod".parse().unwrap(), "create a pod", ApiError::Refused(Box::new(status)))
    }

    #[test]
    fn each_unknown_field_is_named_with_its_path() {
        let message = r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.containers[0].imagee", unknown field "spec.foo""#;
        let Error::InvalidSpec { violations } = of(400, message) else { panic!("another error") };
        let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["spec.containers[0].imagee", "spec.foo"]);
    }

    #[test]
    fn the_causes_of_an_invalid_object_are_its_violations() {
        let cause = StatusCause {
            reason: "FieldValueRequired".to_owned(),
            message: "Required value".to_owned(),
            field: "spec.containers[0].image".to_owned(),
        };
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![cause],
            retry_after_seconds: 0,
        };
        let status =
            Status { code: 422, message: "Pod is invalid".to_owned(), details: Some(details), ..Status::default() };
        let Error::InvalidSpec { violations } =
            error(&"prod".parse().unwrap(), "create a pod", ApiError::Refused(Box::new(status)))
        else {
            panic!("another error")
        };
        assert_eq!(violations[0].field, "spec.containers[0].image");
    }

    #[test]
    fn the_sentences_of_the_api_server_are_told_apart() {
        let cases = [
            (
                403,
                r#"pods is forbidden: User "a" cannot create resource "pods" in API group "" in the namespace "n""#,
                "FORBIDDEN",
            ),
            (
                403,
                r#"pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0"#,
                "QUOTA",
            ),
            (
                403,
                r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true"#,
                "ADMISSION",
            ),
            (
                403,
                r#"pods "x" is forbidden: error looking up service account n/y: serviceaccount "y" not found"#,
                "ADMISSION",
            ),
            (
                422,
                r#"pods "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"#,
                "ADMISSION",
            ),
            (400, r#"admission webhook "w.example.com" denied the request: no"#, "ADMISSION"),
            (404, r#"namespaces "n" not found"#, "NAMESPACE"),
            (
                403,
                r#"pods "x" is forbidden: unable to create new content in namespace n because it is being terminated"#,
                "NAMESPACE",
            ),
            (500, r#"Internal error occurred: failed calling webhook "w": failed to call webhook: timeout"#, "BACKEND"),
            (503, "the server is currently unable to handle the request", "BACKEND"),
            (401, "Unauthorized", "CREDENTIALS"),
        ];
        for (code, message, expected) in cases {
            let found = match of(code, message) {
                Error::Refused { refusal: Refusal::Forbidden, .. } => "FORBIDDEN",
                Error::Refused { refusal: Refusal::Quota, .. } => "QUOTA",
                Error::Refused { refusal: Refusal::AdmissionDenied, .. } => "ADMISSION",
                Error::Refused { refusal: Refusal::NamespaceNotFound, .. } => "NAMESPACE",
                Error::Backend { .. } => "BACKEND",
                Error::CredentialsRefused { .. } => "CREDENTIALS",
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expected, "{message}");
        }
    }
}
