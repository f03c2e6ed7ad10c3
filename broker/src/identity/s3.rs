//! A bucket of S3, opened with the broker's own credentials or with a session of a role.
//!
//! Who the broker is to AWS is said once, for targets and for the bucket (`[aws] credentials`). A role is one of a target's,
//! in a session of its own that reaches the archive's folder and nothing else. Where S3 is, is said by the
//! variables that every SDK knows: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`. An endpoint that was named so
//! is asked by path, since few stores beside AWS have a host name per bucket.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::ProvideRegion as _;
use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_types::service_config::ServiceConfigKey;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{BackoffConfig, CredentialProvider, ObjectStore, RetryConfig};
use thiserror::Error;
use tokio::sync::Mutex;

use super::eks::{CredentialsMode, FolderSession, Hope, RoleSettings, aws};

/// A peer that does not take a connection, or says nothing for so long, is away.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// S3 asks its callers to try again after a 503. What lasts longer is dealt with by whoever waits for the answer.
const TRIES: usize = 3;

/// In bytes; no answer to a question of ours is larger: objects of the archive have 16 MiB at most, pages of a listing 1000 names.
const MAX_ANSWER: usize = 17 << 20;
/// In bytes; what is kept of the words of a refusal.
const MAX_WORDS: usize = 300;

/// Credentials that end sooner are renewed before they are used.
const EARLY: Duration = Duration::from_mins(5);

/// Why a bucket cannot be opened.
#[derive(Debug, Error)]
pub enum BucketError {
    /// Nobody said where it is.
    #[error("the region of the bucket is not known: set archive.region, or AWS_REGION")]
    NoRegion,
    /// The system's certificates cannot be read.
    #[error("the system's certificate authorities cannot be read")]
    Authorities(#[source] std::io::Error),
    /// The settings do not fit together.
    #[error("the bucket {bucket} cannot be used")]
    Settings {
        /// The bucket's name.
        bucket: String,
        /// Why.
        source: object_store::Error,
    },
}

/// Which bucket, and who the broker is to it.
#[derive(Debug, Clone)]
pub struct BucketSettings {
    /// Its name.
    pub bucket: String,
    /// The folder in it that is used.
    pub root: String,
    /// Its region; that of the environment without.
    pub region: Option<String>,
    /// Where the broker's own credentials come from.
    pub mode: CredentialsMode,
    /// The role to assume for it; the broker's own credentials without.
    pub role: Option<BucketRole>,
}

/// A role that reaches a bucket.
#[derive(Debug, Clone)]
pub struct BucketRole {
    /// How it is assumed.
    pub settings: RoleSettings,
    /// Whose STS is asked.
    pub region: String,
}

/// Opens a bucket. Asks nobody for anything yet.
pub async fn bucket(settings: BucketSettings) -> Result<Arc<dyn ObjectStore>, BucketError> {
    let BucketSettings { bucket, root, region, mode, role } = settings;
    let region = match region {
        Some(region) => region,
        None => EnvironmentVariableRegionProvider::new()
            .region()
            .await
            .as_ref()
            .map(Region::to_string)
            .ok_or(BucketError::NoRegion)?,
    };
    let here = aws(mode, &region).await;
    let keys = match role {
        Some(BucketRole { settings, region }) => {
            let aws = aws(mode, &region).await;
            Some(Keys::Role(Box::new(FolderSession::new(&aws, settings, &bucket, &root))))
        }
        None => here.credentials_provider().map(|provider| Keys::Own {
            provider,
            hint: mode.hint(),
            known: Mutex::default(),
        }),
    };
    let keys = keys.map(Arc::new);
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: TRIES, retry_timeout: ANSWER_LIMIT };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&bucket)
        .with_region(region)
        .with_retry(retry)
        .with_client_options(ClientOptions::new())
        .with_http_connector(Connector { http: http()?, keys: keys.clone() });
    if let Some(keys) = keys {
        builder = builder.with_credentials(keys);
    }
    if let Some(endpoint) = endpoint(&here) {
        builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
    } else {
        builder = builder.with_virtual_hosted_style_request(true);
    }
    let store = builder.build().map_err(|source| BucketError::Settings { bucket, source })?;
    Ok(Arc::new(store))
}

/// The endpoint that the environment or the profile names; the one for S3 goes before the one for everything.
fn endpoint(aws: &SdkConfig) -> Option<String> {
    let key =
        ServiceConfigKey::builder().service_id("s3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build().ok()?;
    let own = aws.service_config().and_then(|config| config.load_config(key));
    own.or_else(|| aws.endpoint_url().map(str::to_owned))
}

/// Credentials as the store wants them.
#[derive(Debug)]
enum Keys {
    /// The SDK's: asked for once, and again before they end.
    Own { provider: SharedCredentialsProvider, hint: &'static str, known: Mutex<Option<Known>> },
    /// A session's, which renews itself.
    Role(Box<FolderSession>),
}

/// What S3 says to credentials that have ended, or that AWS has withdrawn.
const OVER: [&str; 4] = ["ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "TokenRefreshRequired"];

#[derive(Debug)]
struct Known {
    credential: Arc<AwsCredential>,
    ends: Option<SystemTime>,
}

impl Keys {
    /// S3 does not take them any more.
    async fn doubt(&self) {
        match self {
            Self::Own { known, .. } => *known.lock().await = None,
            Self::Role(session) => session.doubt().await,
        }
    }
}

#[async_trait]
impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let (provider, hint, known) = match self {
            Self::Own { provider, hint, known } => (provider, hint, known),
            Self::Role(session) => {
                return session.credentials().await.map(|made| Arc::new(credential(&made))).map_err(|error| {
                    match error.hope {
                        Hope::Passing => object_store::Error::Generic { store: "S3", source: error.into() },
                        // Who has no session is not let in, as with a session that the bucket does not take.
                        Hope::Lasting => {
                            object_store::Error::Unauthenticated { path: String::new(), source: error.into() }
                        }
                    }
                });
            }
        };
        let mut known = known.lock().await;
        let fresh = |known: &&Known| known.ends.is_none_or(|ends| ends > SystemTime::now() + EARLY);
        if let Some(known) = known.as_ref().filter(fresh) {
            return Ok(Arc::clone(&known.credential));
        }
        let made = provider.provide_credentials().await.map_err(|source| object_store::Error::Generic {
            store: "S3",
            source: format!("the broker has no AWS credentials: {hint}; {source}").into(),
        })?;
        let credential = Arc::new(credential(&made));
        *known = Some(Known { credential: Arc::clone(&credential), ends: made.expiry() });
        Ok(credential)
    }
}

fn credential(made: &Credentials) -> AwsCredential {
    AwsCredential {
        key_id: made.access_key_id().to_owned(),
        secret_key: made.secret_access_key().to_owned(),
        token: made.session_token().map(str::to_owned),
    }
}

type Http = Client<hyper_rustls::HttpsConnector<Tcp>, HttpRequestBody>;

/// One pool of connections, on the same TLS as all else.
fn http() -> Result<Http, BucketError> {
    let mut tcp = Tcp::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let tls = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
        .map_err(BucketError::Authorities)?
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_mins(1))
        .build(tls))
}

#[derive(Debug)]
struct Connector {
    http: Http,
    keys: Option<Arc<Keys>>,
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service { http: self.http.clone(), keys: self.keys.clone() }))
    }
}

#[derive(Debug)]
struct Service {
    http: Http,
    keys: Option<Arc<Keys>>,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = tokio::time::timeout(ANSWER_LIMIT, self.http.request(request))
            .await
            .map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?
            .map_err(|error| {
                let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
                HttpError::new(kind, error)
            })?;
        let (parts, body) = answer.into_parts();
        // Objects are small: a whole one is read here, so that no stream of ours can stall inside of the store.
        let bytes: Bytes = tokio::time::timeout(ANSWER_LIMIT, Limited::new(body, MAX_ANSWER).collect())
            .await
            .map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?
            .map_err(|error| HttpError::new(HttpErrorKind::Interrupted, Broken(error)))?
            .to_bytes();
        let bytes = if parts.status.is_success() { bytes } else { self.refused(&bytes).await };
        let body = http_body_util::Full::new(bytes).map_err(|never| match never {});
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

impl Service {
    /// What is handed on of a refusal. When it is the credentials' fault, the next request has others.
    async fn refused(&self, answer: &[u8]) -> Bytes {
        let (code, message) = code_and_message(answer);
        if let Some(keys) = self.keys.as_ref().filter(|_| OVER.contains(&&*code)) {
            keys.doubt().await;
        }
        format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>").into()
    }
}

/// The answer was cut off, or is too large.
#[derive(Debug, Error)]
#[error("the answer could not be read")]
struct Broken(#[source] Box<dyn std::error::Error + Send + Sync>);

/// A refusal without what S3 repeats of the request: `InvalidToken` has the session token in it, and `SignatureDoesNotMatch`
/// the signed headers, with that token among them. The words end up in logs.
fn code_and_message(answer: &[u8]) -> (String, String) {
    let answer = String::from_utf8_lossy(answer);
    let element = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>"))?;
        let (words, _) = rest.split_once(&format!("</{name}>"))?;
        Some(words.chars().filter(|c| !matches!(c, '<' | '>')).take(MAX_WORDS).collect::<String>())
    };
    (element("Code").unwrap_or_default(), element("Message").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_does_not_repeat_the_request() {
        let answer = "<?xml version=\"1.0\"?><Error><Code>InvalidToken</Code><Message>The provided token is malformed</Message>\
                      <Token-0>SECRET</Token-0><CanonicalRequest>x-amz-security-token:SECRET</CanonicalRequest></Error>";
        let (code, message) = code_and_message(answer.as_bytes());
        assert_eq!((&*code, &*message), ("InvalidToken", "The provided token is malformed"));
        assert_eq!(code_and_message(b"SECRET"), (String::new(), String::new()));
    }
}
