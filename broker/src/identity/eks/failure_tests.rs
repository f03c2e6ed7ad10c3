use aws_sdk_sts::error::ErrorMetadata;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

use super::*;

type WebIdentityError = SdkError<AssumeRoleWithWebIdentityError>;

fn response(status: u16) -> HttpResponse {
    HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::empty())
}

fn metadata(code: &str, said: &str) -> ErrorMetadata {
    ErrorMetadata::builder().code(code).message(said).build()
}

fn answered(status: u16, code: &str) -> SdkError<AssumeRoleError> {
    SdkError::service_error(AssumeRoleError::generic(metadata(code, "a sentence")), response(status))
}

fn web(status: u16, code: &str) -> WebIdentityError {
    SdkError::service_error(AssumeRoleWithWebIdentityError::generic(metadata(code, "a sentence")), response(status))
}

/// As the SDK tells of credentials that did not come: inside of a failure to send.
fn unsigned(error: CredentialsError) -> SdkError<AssumeRoleError> {
    SdkError::dispatch_failure(ConnectorError::other(error.into(), None))
}

#[test]
fn what_aws_has_answered_lasts_unless_it_asks_for_patience() {
    let cases = [
        (403, "AccessDenied", false),
        (400, "ValidationError", false),
        (403, "RegionDisabledException", false),
        (400, "Throttling", true),
        (429, "TooManyRequestsException", true),
        (503, "ServiceUnavailable", true),
        (500, "InternalFailure", true),
        (400, "IDPCommunicationError", true),
    ];
    for (status, code, passes) in cases {
        let failure = of_call(&answered(status, code));
        assert_eq!(matches!(failure, Failure::Away(_)), passes, "{code}: {failure:?}");
    }
}

#[test]
fn nobody_who_answers_passes() {
    for error in [
        SdkError::<AssumeRoleError>::timeout_error("too slow"),
        SdkError::dispatch_failure(ConnectorError::io("refused".into())),
        SdkError::dispatch_failure(ConnectorError::timeout("too slow".into())),
        SdkError::dispatch_failure(ConnectorError::other("the identity resolver timed out".into(), None)),
    ] {
        assert!(matches!(of_call(&error), Failure::Away(_)), "{error:?}");
    }
}

#[test]
fn credentials_that_do_not_come_are_told_from_a_refused_call() {
    let missing = unsigned(CredentialsError::not_loaded("no variable is set"));
    assert_eq!(of_call(&missing), Failure::Unsigned(Unsigned::Missing("no variable is set".to_owned())));
    let wrong = unsigned(CredentialsError::invalid_configuration("no URL"));
    assert_eq!(of_call(&wrong), Failure::Unsigned(Unsigned::Unusable("no URL".to_owned())));
}

#[test]
fn an_outage_below_the_web_identity_passes_and_its_refusal_does_not() {
    let refused = unsigned(CredentialsError::provider_error(web(403, "AccessDenied")));
    assert_eq!(of_call(&refused), Failure::Unsigned(Unsigned::Refused("AccessDenied: a sentence".to_owned())));
    for inner in [
        web(503, "ServiceUnavailable"),
        web(400, "Throttling"),
        web(400, "IDPCommunicationError"),
        WebIdentityError::dispatch_failure(ConnectorError::io("reset".into())),
    ] {
        let failure = of_call(&unsigned(CredentialsError::provider_error(inner)));
        assert!(matches!(failure, Failure::Unsigned(Unsigned::Away(_))), "{failure:?}");
    }
    // The words of an outage in the sentence of a refusal do not make it one.
    let told =
        AssumeRoleWithWebIdentityError::generic(metadata("AccessDenied", "ServiceUnavailable, timeout, Throttling"));
    let failure = of_call(&unsigned(CredentialsError::provider_error(SdkError::service_error(told, response(403)))));
    assert!(matches!(failure, Failure::Unsigned(Unsigned::Refused(_))), "{failure:?}");
}

#[test]
fn a_token_file_that_is_not_there_lasts() {
    let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
    let failure = of_call(&unsigned(CredentialsError::provider_error(missing)));
    assert!(matches!(failure, Failure::Unsigned(Unsigned::Unusable(_))), "{failure:?}");
    let busy = std::io::Error::from(std::io::ErrorKind::TimedOut);
    let failure = of_call(&unsigned(CredentialsError::provider_error(busy)));
    assert!(matches!(failure, Failure::Unsigned(Unsigned::Away(_))), "{failure:?}");
}

#[test]
fn causes_are_told_for_people() {
    let error = SdkError::<AssumeRoleError>::dispatch_failure(ConnectorError::io(
        std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into(),
    ));
    let Failure::Away(told) = of_call(&error) else { panic!("another failure") };
    assert_eq!(told, "dispatch failure: io error: connection refused");
}
