//! The API server by plain HTTP, with a user name of its own.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Failure, now, say_ready, told_to_end};

/// Where the API server is, and who asks.
#[derive(clap::Args)]
pub(crate) struct Access {
    #[arg(long)]
    server: String,
    /// PEM: the authority, the user's certificate, its key
    #[arg(long)]
    authority: PathBuf,
    #[arg(long)]
    certificate: PathBuf,
    #[arg(long)]
    key: PathBuf,
}

pub(crate) struct Api {
    server: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Api {
    pub(crate) fn new(access: &Access) -> Result<Self, Failure> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&access.authority)?)?;
        let chain = vec![CertificateDer::from_pem_file(&access.certificate)?];
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&access.key)?)?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { server: access.server.clone(), client })
    }

    /// One request, whose answer is read and must be a success.
    pub(crate) async fn call(
        &self,
        method: http::Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, Failure> {
        let answer = self.send(method, path, content_type, body).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(body)
    }

    async fn send(
        &self,
        method: http::Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<http::Response<hyper::body::Incoming>, Failure> {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.server));
        if !content_type.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        Ok(self.client.request(request.body(Full::new(Bytes::from(body)))?).await?)
    }
}

#[derive(clap::Args)]
pub(crate) struct Observe {
    #[command(flatten)]
    access: Access,
    #[arg(long)]
    namespace: String,
}

/// When ends were told.
#[derive(Serialize)]
pub(crate) struct Observed {
    /// By pod: nanoseconds since 1970.
    ends: HashMap<String, i64>,
}

#[derive(Deserialize)]
struct Listed {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: String,
}

#[derive(Deserialize)]
struct Changed {
    object: Pod,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    phase: String,
}

impl Observe {
    pub(crate) async fn run(self) -> Result<Observed, Failure> {
        let api = Api::new(&self.access)?;
        let pods = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let listed = api.call(http::Method::GET, &format!("{pods}?limit=1"), "", Vec::new()).await?;
        let mut version = serde_json::from_slice::<Listed>(&listed)?.metadata.resource_version;
        let mut observed = Observed { ends: HashMap::new() };
        let mut end = std::pin::pin!(told_to_end());
        let mut is_first = true;
        loop {
            let path = format!("{pods}?watch=1&resourceVersion={version}");
            let mut body = api.send(http::Method::GET, &path, "", Vec::new()).await?.into_body();
            if std::mem::take(&mut is_first) {
                say_ready()?;
            }
            let mut rest = Vec::new();
            loop {
                let frame = tokio::select! {
                    told = &mut end => {
                        told?;
                        return Ok(observed);
                    }
                    frame = body.frame() => frame,
                };
                let Some(frame) = frame else { break };
                let moment = now();
                rest.extend_from_slice(&frame?.into_data().unwrap_or_default());
                let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
                for line in rest[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let Pod { metadata, status } = serde_json::from_slice::<Changed>(line)?.object;
                    version = metadata.resource_version;
                    if status.phase == "Succeeded" {
                        observed.ends.entry(metadata.name).or_insert(moment);
                    }
                }
                rest.drain(..whole);
            }
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct End {
    #[command(flatten)]
    access: Access,
    #[arg(long)]
    namespace: String,
    /// What `submit --names` wrote
    #[arg(long)]
    names: PathBuf,
    #[arg(long)]
    count: usize,
    /// So many in a second
    #[arg(long)]
    rate: u32,
}

/// What was ended.
#[derive(Serialize)]
pub(crate) struct Ended {
    count: usize,
    seconds: f64,
}

impl End {
    pub(crate) async fn run(self) -> Result<Ended, Failure> {
        let api = Api::new(&self.access)?;
        let status = json!({"status": {"phase": "Succeeded", "containerStatuses": [{
            "name": "main", "image": "none", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "reason": "Completed"}},
        }]}});
        let status = status.to_string();
        let begin = tokio::time::Instant::now();
        let mut clock = tokio::time::interval(Duration::from_secs(1) / self.rate);
        let mut count = 0;
        // Spread over all, so that each connection has its share.
        let lines: Vec<String> = BufReader::new(fs::File::open(&self.names)?).lines().collect::<Result<_, _>>()?;
        let step = (lines.len() / self.count).max(1);
        for line in lines.iter().step_by(step).take(self.count) {
            let name: Value = serde_json::from_str(line)?;
            let pod = name["pod"].as_str().unwrap_or_default();
            clock.tick().await;
            let path = format!("/api/v1/namespaces/{}/pods/{pod}/status", self.namespace);
            let kind = "application/merge-patch+json";
            api.call(http::Method::PATCH, &path, kind, status.clone().into_bytes()).await?;
            count += 1;
        }
        Ok(Ended { count, seconds: begin.elapsed().as_secs_f64() })
    }
}
