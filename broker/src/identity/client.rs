//! The HTTP client for an API server.
//!
//! Put together here instead of by `kube::Client::try_from`, because that one repeats a POST that was answered with 429, 503
//! or 504, and hyper repeats a request whose pooled connection died. A create must be repeated by the one who knows that it
//! is idempotent, and by nobody else.

use std::time::Duration;

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::{Body, ConfigExt as _};
use tower::{BoxError, ServiceBuilder};

use super::{Connection, IdentityError};

/// A connection to an API server that takes longer than this will not come.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A peer that vanished without a word is noticed after some of these; watches are silent for minutes.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Shorter than what load balancers in front of API servers allow an idle connection, so that they do not cut one that is
/// just being used.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// A client that puts the config's credentials on each request and never repeats one.
pub(super) fn connect(config: &Config) -> Result<Connection, IdentityError> {
    let endpoint = config.cluster_url.to_string();
    let client = build(config)
        .map_err(|source| IdentityError::Client { endpoint: endpoint.clone(), source: Box::new(source) })?;
    Ok(Connection { client, namespace: config.default_namespace.clone(), endpoint, chain: None })
}

fn build(config: &Config) -> kube::Result<kube::Client> {
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http_client(config)?);
    Ok(kube::Client::new(service, config.default_namespace.clone()))
}

/// HTTP over connections of our own settings.
pub(super) type HttpClient = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Body>;

/// The transport to the config's cluster, without credentials.
pub(super) fn http_client(config: &Config) -> kube::Result<HttpClient> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_DEADLINE));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(3));
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    Ok(hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .retry_canceled_requests(false)
        .build(tls))
}
