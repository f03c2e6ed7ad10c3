//! What is refused before anything is sent.

use std::io::Write;

use podbroker_client::{Client, Code, Error, REASON_CLIENT_SETTINGS, Secret, Settings, Token};

use crate::broker::{Broker, Script};

fn with_token(endpoint: &str) -> Result<Client, Error> {
    let token = Some(Token::Value(Secret::new("s3cret")));
    Client::new(Settings { token, ..Settings::new(endpoint) })
}

#[test]
fn a_token_goes_only_where_nobody_can_read_it() {
    for endpoint in ["http://broker.example:50051", "http://10.0.0.7:50051", "http://localhost.example:1"] {
        let error = with_token(endpoint).unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument, REASON_CLIENT_SETTINGS));
        assert!(error.message.contains("read it") && !error.message.contains("s3cret"), "{error}");
        assert!(Client::new(Settings::new(endpoint)).is_ok(), "without a token there is nothing to read");
    }
    for endpoint in ["http://127.0.0.1:50051", "http://[::1]:50051", "http://localhost:50051", "unix:/run/broker.sock"]
    {
        with_token(endpoint).unwrap();
    }
}

#[test]
fn an_address_that_means_nothing_is_refused() {
    for endpoint in ["", "broker:50051", "ftp://broker", "http://", "unix:relative", "http://h/path", "http://u:p@h"] {
        let error = Client::new(Settings::new(endpoint)).unwrap_err();
        assert_eq!(error.reason, REASON_CLIENT_SETTINGS, "{endpoint}");
        assert!(!error.message.contains("u:p"), "{error}");
    }
}

#[test]
fn settings_of_tls_without_tls_are_refused() {
    let settings = Settings { server_name: Some("broker".to_owned()), ..Settings::new("http://127.0.0.1:1") };
    assert_eq!(Client::new(settings).unwrap_err().reason, REASON_CLIENT_SETTINGS);
}

#[test]
fn a_ca_file_without_a_certificate_is_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"not a certificate").unwrap();
    let ca_file = Some(file.path().to_owned());
    let error = Client::new(Settings { ca_file, ..Settings::new("https://broker.example") }).unwrap_err();
    assert!(error.message.contains("no PEM certificate"), "{error}");
}

#[test]
fn no_token_is_shown() {
    let settings = Settings { token: Some(Token::Value(Secret::new("s3cret"))), ..Settings::new("http://127.0.0.1:1") };
    let client = Client::new(settings.clone()).unwrap();
    assert!(!format!("{settings:?} {client:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_token_file_is_read_again_when_it_changes() {
    let broker = Broker::start(Script::default());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "one\n").unwrap();
    let token = Some(Token::File(path.clone()));
    let client = broker.client_with(Settings { token, ..Settings::new("http://127.0.0.1:1") });
    client.server_info().await.unwrap();
    std::fs::write(&path, "another\n").unwrap();
    client.server_info().await.unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(client.server_info().await.unwrap_err().reason, REASON_CLIENT_SETTINGS);
    let expected = ["Bearer one", "Bearer another"].map(|value| Some(value.to_owned()));
    broker.seen(|seen| assert_eq!(seen.authorizations, expected));
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = format!("unix:{}", directory.path().join("none.sock").display());
    let settings = Settings { retry_for: std::time::Duration::ZERO, ..Settings::new(endpoint) };
    let error = Client::new(settings).unwrap().server_info().await.unwrap_err();
    assert_eq!((error.code, error.retryable, error.reason.as_str()), (Code::Unavailable, true, ""));
    assert!(error.message.contains("none.sock failed: No such file"), "{error}");
}
