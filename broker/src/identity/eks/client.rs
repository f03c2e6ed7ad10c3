//! The HTTP client of an EKS target: a token on each request, renewed once when it is refused, and the cluster described anew
//! once when TLS fails or nobody is at the endpoint.
//!
//! Both repetitions are safe for every method: a request that was answered with 401, or whose handshake failed, was not carried
//! out.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use kube::client::Body;
use tower::{BoxError, Service};
use tracing::info;

use super::super::client::{HttpClient, http_client};
use super::cluster::{Cluster, Doubt};
use super::{Chain, ChainError, Hope, Trouble};

/// A Kubernetes client that walks the chain for each request.
pub(super) fn connect(chain: Arc<Chain>) -> kube::Client {
    kube::Client::new(EksService { chain, line: Arc::default() }, "default")
}

/// The way to the cluster as it was described last.
struct Line {
    cluster: Arc<Cluster>,
    http: HttpClient,
}

#[derive(Clone)]
struct EksService {
    chain: Arc<Chain>,
    line: Arc<Mutex<Option<Arc<Line>>>>,
}

impl Service<Request<Body>> for EksService {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        async move { service.send(request).await }.boxed()
    }
}

impl EksService {
    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let (parts, body) = request.into_parts();
        // Requests are small, and one that is repeated must be whole.
        let body = body.collect().await?.to_bytes();
        let (mut token_renewed, mut cluster_doubted) = (Tried::No, Tried::No);
        loop {
            let line = self.line(self.chain.cluster().await?)?;
            let token = self.chain.tokens.get().await?;
            let mut request = Request::new(Body::from(body.to_vec()));
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = at(&line.cluster.endpoint, &parts.uri)?;
            *request.headers_mut() = parts.headers.clone();
            request.headers_mut().insert(header::AUTHORIZATION, token.header());
            match line.http.request(request).await {
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && token_renewed == Tried::No => {
                    info!("the cluster refused the token; trying once more with a new one");
                    token_renewed = Tried::Yes;
                    self.chain.tokens.refused(&token).await;
                }
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED => return self.refused(response),
                Ok(response) => {
                    if response.status().is_success() {
                        self.chain.standing.taken();
                    }
                    return Ok(response);
                }
                Err(error) => {
                    let doubt = doubt(&error).filter(|_| cluster_doubted == Tried::No);
                    let Some(doubt) = doubt else { return Err(error.into()) };
                    cluster_doubted = Tried::Yes;
                    if self.chain.clusters.doubt(doubt).await? == line.cluster {
                        return Err(error.into());
                    }
                    info!("the cluster is described differently now; trying once more");
                }
            }
        }
    }

    /// What a 401 to a fresh token means.
    fn refused(&self, response: Response<Incoming>) -> Result<Response<Incoming>, BoxError> {
        match self.chain.standing.refused() {
            Hope::Lasting => Ok(response),
            Hope::Passing => Err(ChainError {
                link: "token",
                trouble: Trouble::Refused,
                what: "the cluster answers 401 to a fresh token of a role that it took before".to_owned(),
                hope: Hope::Passing,
                source: None,
            }
            .into()),
        }
    }

    /// The client for a cluster; a new one when it was described differently.
    fn line(&self, cluster: Arc<Cluster>) -> Result<Arc<Line>, ChainError> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = line.as_ref().filter(|line| line.cluster == cluster) {
            return Ok(Arc::clone(line));
        }
        let broken = |what: &str, source: BoxError| ChainError {
            link: "cluster",
            trouble: Trouble::Address,
            what: what.to_owned(),
            hope: Hope::Lasting,
            source: Some(source),
        };
        let uri: Uri = cluster
            .endpoint
            .parse()
            .map_err(|error: http::uri::InvalidUri| broken("the cluster's endpoint is no URL", error.into()))?;
        let mut config = kube::Config::new(uri);
        config.root_cert = Some(cluster.authorities.clone());
        let http =
            http_client(&config).map_err(|error| broken("the cluster's authorities are not usable", error.into()))?;
        let made = Arc::new(Line { cluster, http });
        *line = Some(Arc::clone(&made));
        Ok(made)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tried {
    No,
    Yes,
}

/// The path of a request at an endpoint.
fn at(endpoint: &str, uri: &Uri) -> Result<Uri, http::uri::InvalidUri> {
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    format!("{}{path}", endpoint.trim_end_matches('/')).parse()
}

/// What a failed request says of the cluster's description.
fn doubt(error: &hyper_util::client::legacy::Error) -> Option<Doubt> {
    if is_certificate_trouble(error) {
        Some(Doubt::Tls)
    } else if error.is_connect() {
        Some(Doubt::Connect)
    } else {
        None
    }
}

/// The peer's certificate was not accepted, by what rustls says somewhere in the chain of causes.
pub(super) fn is_certificate_trouble(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref::<rustls::Error>() {
        return true;
    }
    // An io::Error does not show what it wraps as its source, and TLS errors come in two of them, one in the other.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let inner = inner.map(|inner| inner as &(dyn std::error::Error + 'static));
    inner.or_else(|| error.source()).is_some_and(is_certificate_trouble)
}
