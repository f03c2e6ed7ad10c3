//! The token that an EKS cluster takes as a proof of who we are: a presigned GetCallerIdentity.
//!
//! `presign` is a pure function of keys, place and time. What it makes is checked against the rules of the verifier
//! (aws-iam-authenticator, `pkg/token`) before anybody sees it, since the verifier answers every breach with the same 401.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use tokio::sync::Mutex as AsyncMutex;

use super::session::RoleSession;
use super::{ChainError, EksSettings, Hope, Trouble};

const PREFIX: &str = "k8s-aws-v1.";

/// The verifier refuses more, before it looks at anything else.
const MAX_BYTES: usize = 4096;

/// A cluster takes a token for 15 minutes after its time stamp; the last one is for clocks and for the way.
const LIFE: Duration = Duration::from_mins(14);

/// A token dies with the credentials that signed it; this much before, it is not used any more.
const MARGIN: Duration = Duration::from_mins(1);

/// What the verifier lets pass, each once.
const PARAMETERS: [&str; 9] = [
    "Action",
    "Version",
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
];

/// What a token is for.
#[derive(Debug, Clone)]
pub struct Audience {
    /// The region of the STS host.
    pub region: String,
    /// The STS host of the region.
    pub host: String,
    /// The cluster's name, which is signed and not in the URL.
    pub cluster: String,
}

/// A bearer token, ready for a request.
pub struct EksToken {
    header: HeaderValue,
    /// Not used after this.
    pub(super) good_until: SystemTime,
    /// Renewed after this, if that is possible.
    renew_at: SystemTime,
}

impl EksToken {
    /// The `Authorization` header; marked sensitive, so that nothing prints it.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

impl std::fmt::Debug for EksToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EksToken").field("good_until", &self.good_until).finish_non_exhaustive()
    }
}

/// Makes a token; its life is bounded by that of the credentials.
pub fn presign(credentials: &Credentials, audience: &Audience, now: SystemTime) -> Result<EksToken, ChainError> {
    let url = presigned_url(credentials, audience, now).map_err(|source| lasting("cannot sign a token", source))?;
    verify(&url, audience).map_err(|what| lasting(what, "a rule of the verifier"))?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&url));
    if token.len() > MAX_BYTES {
        let what = format!(
            "the token has {} bytes and a cluster takes {MAX_BYTES}: the role session's own token is too long; shorten the \
             session policy, the session tags and the tags that the workload identity passes on",
            token.len()
        );
        return Err(lasting(what, "the session token is too long"));
    }
    let mut header =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|source| lasting("cannot sign a token", source))?;
    header.set_sensitive(true);
    let end = now + LIFE;
    let good_until = credentials.expiry().map_or(end, |expiry| end.min(expiry - MARGIN));
    let life = good_until.duration_since(now).unwrap_or_default();
    Ok(EksToken { header, good_until, renew_at: now + life.mul_f64(0.8) })
}

fn lasting(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ChainError {
    ChainError {
        link: "token",
        trouble: Trouble::Unmade,
        what: what.into(),
        hope: Hope::Lasting,
        source: Some(source.into()),
    }
}

fn presigned_url(
    credentials: &Credentials,
    audience: &Audience,
    now: SystemTime,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    // STS does not look at it; the verifier wants it there, and 60 is what every client says.
    settings.expires_in = Some(Duration::from_mins(1));
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&audience.region)
        .name("sts")
        .time(now)
        .settings(settings)
        .build()?
        .into();
    let url = format!("https://{}/?Action=GetCallerIdentity&Version=2011-06-15", audience.host);
    let headers = [("x-k8s-aws-id", audience.cluster.as_str())];
    let signable = SignableRequest::new("GET", &url, headers.into_iter(), SignableBody::empty())?;
    let (instructions, _) = sign(signable, &parameters)?.into_parts();
    let mut request = http::Request::get(&url).body(())?;
    instructions.apply_to_request_http1x(&mut request);
    Ok(request.uri().to_string())
}

/// Checks a presigned URL as the verifier will.
fn verify(url: &str, audience: &Audience) -> Result<(), &'static str> {
    let rest = url.strip_prefix("https://").ok_or("the token's URL is not https")?;
    let (host, query) = rest.split_once("/?").ok_or("the token's URL has another path than /")?;
    if host != audience.host || host.contains(':') {
        return Err("the token's URL has another host than the region's STS");
    }
    let mut seen = Vec::new();
    for pair in query.split('&') {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if !PARAMETERS.contains(&name) {
            return Err("the token's URL has a parameter that the verifier refuses");
        }
        if seen.contains(&name) {
            return Err("the token's URL has a parameter twice");
        }
        seen.push(name);
    }
    // The session token is missing only for long-lived keys.
    let needed = PARAMETERS.iter().filter(|name| **name != "X-Amz-Security-Token");
    if needed.clone().any(|name| !seen.contains(name)) {
        return Err("the token's URL lacks a parameter");
    }
    Ok(())
}

/// The current token of a target, made again when it is due or was refused.
pub(super) struct Tokens {
    session: Arc<RoleSession>,
    audience: Audience,
    current: Mutex<Option<Arc<EksToken>>>,
    /// Held across the making, on purpose: a hundred requests make one token.
    making: AsyncMutex<()>,
}

impl Tokens {
    pub(super) fn new(session: Arc<RoleSession>, settings: &EksSettings, host: String) -> Self {
        let audience = Audience { region: settings.region.clone(), host, cluster: settings.cluster_id.clone() };
        Self { session, audience, current: Mutex::new(None), making: AsyncMutex::new(()) }
    }

    fn current(&self) -> Option<Arc<EksToken>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, token: Option<Arc<EksToken>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// A token for a request that is made now.
    pub(super) async fn get(&self) -> Result<Arc<EksToken>, ChainError> {
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        let _making = self.making.lock().await;
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        let made = match self.session.credentials().await {
            Ok(credentials) => presign(&credentials, &self.audience, SystemTime::now()).map(Arc::new),
            Err(error) => Err(error),
        };
        match made {
            Ok(token) => {
                self.set(Some(Arc::clone(&token)));
                Ok(token)
            }
            // One that is due to be renewed is good for a while.
            Err(error) => self.current().filter(|token| SystemTime::now() < token.good_until).ok_or(error),
        }
    }

    fn fresh(&self) -> Option<Arc<EksToken>> {
        self.current().filter(|token| SystemTime::now() < token.renew_at)
    }

    /// A cluster refused this token. Forgets it, and doubts the session behind it, unless somebody has renewed it in the meantime.
    pub(super) async fn refused(&self, token: &Arc<EksToken>) {
        let _making = self.making.lock().await;
        if self.current().is_some_and(|current| Arc::ptr_eq(&current, token)) {
            self.set(None);
            self.session.doubt().await;
        }
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
