//! How to reach a broker, and as whom.
//!
//! A bearer token is sent only where nobody can read it: over TLS, to this machine, or through a unix socket. Anything
//! else is refused when the client is made, before a byte is sent. No token appears in `Debug`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::Error;

/// How to reach a broker. Start from [`Settings::new`] and set what differs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// `http://host:port`, `https://host:port` or `unix:/absolute/path`.
    pub endpoint: String,
    /// Who the caller is; none for a broker that is open to its own machine.
    pub token: Option<Token>,
    /// PEM certificates that the broker's certificate must lead to. Unset: those of this machine. Only with https.
    pub ca_file: Option<PathBuf>,
    /// Proves who the caller is in the TLS handshake. Only with https.
    pub client_certificate: Option<ClientCertificate>,
    /// The name in the broker's certificate, where it is not the host of the endpoint. Only with https.
    pub server_name: Option<String>,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long one try of a call may take; for a stream, until it begins.
    pub call_timeout: Duration,
    /// How long a call is tried again, counted from its first try.
    pub retry_for: Duration,
}

impl Settings {
    /// The settings for an endpoint: no token, 10 s to connect, 30 s for a try, 2 min of tries.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            token: None,
            ca_file: None,
            client_certificate: None,
            server_name: None,
            connect_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            retry_for: Duration::from_mins(2),
        }
    }
}

/// A certificate and its key, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// The certificate, followed by those that lead to a known authority.
    pub certificate_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// A bearer token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Token {
    /// The token itself.
    Value(Secret),
    /// A file that holds it, read again when it changes, as a kubelet replaces projected tokens.
    File(PathBuf),
}

/// A string that is never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where the broker is, as parsed from [`Settings::endpoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Plain(http::Uri),
    Tls(http::Uri),
    Unix(String),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !Path::new(path).is_absolute() {
                return Err(Error::settings(format!("`{text}`: the path of a unix socket is absolute: unix:/path")));
            }
            return Ok(Self::Unix(path.to_owned()));
        }
        let uri: http::Uri = text.parse().map_err(|cause| Error::settings(format!("`{text}`: {cause}")))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(Error::settings(format!("`{text}`: no host")));
        }
        if uri.path() != "/" && !uri.path().is_empty() || uri.query().is_some() {
            return Err(Error::settings(format!("`{text}`: only a host and a port, no path")));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(Error::settings("the address may not hold a user or a password"));
        }
        match uri.scheme_str() {
            Some("http") => Ok(Self::Plain(uri)),
            Some("https") => Ok(Self::Tls(uri)),
            _ => Err(Error::settings(format!("`{text}`: must start with http://, https:// or unix:"))),
        }
    }
}

impl Address {
    /// Refuses to send a token where others can read it.
    pub(crate) fn check_token_is_safe(&self) -> Result<(), Error> {
        match self {
            Self::Plain(uri) if !is_this_machine(uri) => Err(Error::settings(format!(
                "a token is not sent to {uri} because anybody on the way could read it: use https, or an address of \
                 this machine"
            ))),
            Self::Plain(_) | Self::Tls(_) | Self::Unix(_) => Ok(()),
        }
    }
}

fn is_this_machine(uri: &http::Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Hands out the token for each request.
pub(crate) enum TokenSource {
    None,
    Value(Secret),
    File { path: PathBuf, seen: Mutex<Option<Seen>> },
}

/// A file's token, and what the file looked like when it was read.
pub(crate) struct Seen {
    mark: (Option<SystemTime>, u64),
    token: Secret,
}

impl TokenSource {
    pub(crate) fn new(token: Option<Token>) -> Self {
        match token {
            None => Self::None,
            Some(Token::Value(secret)) => Self::Value(secret),
            Some(Token::File(path)) => Self::File { path, seen: Mutex::new(None) },
        }
    }

    /// The value of the `authorization` header, marked as sensitive.
    pub(crate) fn authorization(&self) -> Result<Option<tonic::metadata::AsciiMetadataValue>, Error> {
        let token = match self {
            Self::None => return Ok(None),
            Self::Value(secret) => secret.clone(),
            Self::File { path, seen } => read_token(path, seen)?,
        };
        let mut value = tonic::metadata::AsciiMetadataValue::try_from(format!("Bearer {}", token.0))
            .map_err(|_| Error::settings("the token holds characters that no header can carry"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Reads the file if it changed. The read blocks for the time of one small local file, which is less than handing it to
/// another thread would cost.
fn read_token(path: &Path, seen: &Mutex<Option<Seen>>) -> Result<Secret, Error> {
    let failed = |cause: std::io::Error| Error::settings(format!("the token file {}: {cause}", path.display()));
    let metadata = std::fs::metadata(path).map_err(failed)?;
    let mark = (metadata.modified().ok(), metadata.len());
    let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(seen) = seen.as_ref().filter(|seen| seen.mark == mark) {
        return Ok(seen.token.clone());
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let token = Secret(text.trim().to_owned());
    if token.0.is_empty() {
        return Err(Error::settings(format!("the token file {} is empty", path.display())));
    }
    *seen = Some(Seen { mark, token: token.clone() });
    Ok(token)
}
