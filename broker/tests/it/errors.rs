//! The table of errors on top of `broker_service.proto`, and what is really sent.

use std::collections::BTreeSet;
use std::time::Duration;

use podbroker::error::{Error, FieldViolation, Refusal};
use podbroker::execution::CursorError;
use podbroker_proto::v1 as wire;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::scripted::Surprise;
use crate::world::{World, fields, name};

const CONTRACT: &str = include_str!("../../../proto/podbroker/v1/broker_service.proto");

/// What the log may know and the caller may not.
const SECRET: &str = "arn:aws:iam::1:role/secret";

/// Code, reason and "try again" of each row.
fn table() -> Vec<[String; 3]> {
    let rows = CONTRACT.lines().filter_map(|line| line.strip_prefix("// | ")).skip(1);
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    rows.map(|row| cells(row)[..3].to_vec().try_into().unwrap()).collect()
}

fn every_error() -> Vec<Error> {
    let target = || "alpha".to_owned();
    let name = || "x".to_owned();
    let source = || SECRET.into();
    let message = || "said the API server".to_owned();
    let refused = |refusal| Error::Refused { refusal, message: message() };
    vec![
        Error::invalid_request("name", "is wrong"),
        Error::invalid_spec("spec.x", "is unknown"),
        Error::InvalidCursor(CursorError::OtherExecution),
        Error::Unauthenticated { why: "no" },
        Error::NotAllowed { caller: name(), target: target() },
        Error::NoSuchTarget { what: "has the name x".to_owned() },
        Error::NoSuchExecution { name: name() },
        Error::Expired { name: name() },
        Error::IdReused { id: name() },
        Error::SubmitWindowClosed { submit_before: jiff::Timestamp::UNIX_EPOCH },
        refused(Refusal::Forbidden),
        refused(Refusal::NamespaceNotFound),
        refused(Refusal::AdmissionDenied),
        refused(Refusal::Quota),
        Error::ClaimSuperseded { name: name() },
        Error::GroupBusy { name: name() },
        Error::CredentialsRefused { target: target(), link: "assume", source: source() },
        Error::CredentialsUnavailable { target: target(), source: source() },
        Error::Backend { target: target(), operation: "create", source: source() },
        Error::NotInStep { target: target() },
        Error::archive(SECRET),
        Error::Unsupported { feature: "batch".to_owned() },
        Error::Overloaded { retry_after: Duration::from_secs(3) },
        Error::Draining,
        Error::bug(SECRET),
    ]
}

async fn sent(world: &World, error: Error) -> Status {
    world.alpha.surprise(Surprise::Fail(error));
    let request = wire::GetExecutionRequest { name: name("alpha", "x"), view: 0 };
    world.client().await.get_execution(request).await.unwrap_err()
}

fn code_name(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[tokio::test]
async fn every_error_is_sent_as_its_row_of_the_contract_and_every_row_has_its_error() {
    let world = World::new();
    let table = table();
    let mut met = BTreeSet::new();
    for error in every_error() {
        let text = error.to_string();
        let status = sent(&world, error).await;
        let info = status.get_details_error_info().unwrap();
        let row =
            table.iter().find(|row| row[1] == info.reason).unwrap_or_else(|| panic!("{} has no row", info.reason));
        assert_eq!(code_name(status.code()), row[0], "{text}");
        assert_eq!(info.domain, "podbroker.io");
        assert_eq!(status.get_details_retry_info().is_some(), row[2] != "no", "{text}");
        assert_eq!(status.message(), text);
        let request_id = status.metadata().get("x-request-id").unwrap().to_str().unwrap();
        assert_eq!(info.metadata["request_id"], request_id);
        assert!(!format!("{status:?}").contains(SECRET), "{text} tells the caller what is for the log");
        assert!(!String::from_utf8_lossy(status.details()).contains(SECRET), "{text}");
        met.insert(info.reason);
    }
    assert_eq!(met, table.iter().map(|row| row[1].clone()).collect());
    assert!(table.len() > 20, "the table was not found");
}

#[tokio::test]
async fn each_field_of_a_refused_manifest_is_named() {
    let world = World::new();
    let violation = |field: &str| FieldViolation { field: field.to_owned(), why: "is unknown".to_owned() };
    let violations = vec![violation("spec.x"), violation("spec.containers[0].y")];
    let status = sent(&world, Error::InvalidSpec { violations }).await;
    assert_eq!(fields(&status), ["spec.x", "spec.containers[0].y"]);
}

#[tokio::test]
async fn an_endless_message_is_cut_so_that_it_fits_into_the_headers() {
    let world = World::new();
    let message = "ä\n%".repeat(10_000);
    let status = sent(&world, Error::Refused { refusal: Refusal::AdmissionDenied, message: message.clone() }).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().starts_with("the cluster refuses: ä\n%ä") && status.message().ends_with(" ..."));

    let long = |index| FieldViolation { field: format!("spec.{}[{index}]", "f".repeat(5000)), why: message.clone() };
    let status = sent(&world, Error::InvalidSpec { violations: (0..50).map(long).collect() }).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(!fields(&status).is_empty());
}
