//! The gRPC server: the contract, health (`grpc.health.v1`) and reflection on one transport.
//!
//! Health and reflection need no token: probes have none, and the contract is public. When the replica drains, health says
//! `NOT_SERVING`, the listener closes, streams end, calls finish; then health watches end too, which would otherwise hold
//! their connections.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use futures::Stream;
use podbroker_proto::FILE_DESCRIPTOR_SET;
use podbroker_proto::v1::broker_service_server::{BrokerServiceServer, SERVICE_NAME};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::Connected;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_reflection::server::Builder as Reflection;

use crate::api::Api;
use crate::config::{Limits, Tls};

/// A peer that has vanished is noticed after the sum of both, and its watches are ended.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// A peer that does not finish its handshake holds no connection for longer.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Why the transport cannot be used.
#[derive(Debug, Error)]
pub enum TransportError {
    /// A file of the certificate cannot be read.
    #[error("tls.{key}: cannot read {}", .file.display())]
    CertificateFile {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The files are no certificate and its key.
    #[error("tls: the certificate and the key cannot be used; both must be PEM and belong together")]
    Certificate(#[source] tonic::transport::Error),
    /// The contract's own description is damaged.
    #[error("cannot serve reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the gRPC server failed")]
    Server(#[source] tonic::transport::Error),
}

/// How connections are served.
#[derive(Clone)]
pub struct Transport {
    server: Server,
    max_request_bytes: usize,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("max_request_bytes", &self.max_request_bytes).finish_non_exhaustive()
    }
}

impl Transport {
    /// With these limits and, if there is one, this certificate.
    pub fn new(limits: &Limits, tls: Option<&Tls>) -> Result<Self, TransportError> {
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(limits.max_streams_per_connection);
        let server = match tls {
            None => server,
            Some(tls) => {
                let identity = Identity::from_pem(read("certificate", &tls.certificate)?, read("key", &tls.key)?);
                let tls = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE_LIMIT);
                server.tls_config(tls).map_err(TransportError::Certificate)?
            }
        };
        Ok(Self { server, max_request_bytes: limits.max_request_bytes })
    }
}

fn read(key: &'static str, file: &std::path::Path) -> Result<Vec<u8>, TransportError> {
    std::fs::read(file).map_err(|source| TransportError::CertificateFile { key, file: file.to_owned(), source })
}

/// Serves connections until `draining`, and then until the last call has ended.
pub async fn serve<I, IO, E>(
    api: Api,
    incoming: I,
    transport: Transport,
    draining: CancellationToken,
) -> Result<(), TransportError>
where
    I: Stream<Item = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(SERVICE_NAME, ServingStatus::Serving).await;
    let reflection = || Reflection::configure().register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET);
    let service = BrokerServiceServer::new(api.clone())
        .max_decoding_message_size(transport.max_request_bytes)
        .accept_compressed(CompressionEncoding::Gzip);
    let Transport { mut server, .. } = transport;
    let router = server
        .add_service(service)
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(TransportError::Reflection)?)
        .add_service(reflection().build_v1alpha().map_err(TransportError::Reflection)?);
    let (drained, reporter) = (draining.clone(), health.clone());
    let signal = async move {
        drained.cancelled().await;
        for service in ["", SERVICE_NAME] {
            reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
    };
    let end_of_health = async {
        draining.cancelled().await;
        api.idle().await;
        for service in ["", SERVICE_NAME] {
            health.clone().clear_service_status(service).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        served = router.serve_with_incoming_shutdown(incoming, signal) => served.map_err(TransportError::Server),
        never = end_of_health => never,
    }
}
