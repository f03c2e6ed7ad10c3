//! The gRPC server: the contract, health (`grpc.health.v1`) and reflection on one transport.
//!
//! Health and reflection need no token: probes have none, and the contract is public. When the replica drains, health says
//! `NOT_SERVING`, the listener closes, streams end, calls finish; then health watches end too, which would otherwise hold
//! their connections.

use std::fmt;
use std::time::Duration;

use futures::Stream;
use podbroker_proto::FILE_DESCRIPTOR_SET;
use podbroker_proto::v1::broker_service_server::{BrokerServiceServer, SERVICE_NAME};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_reflection::server::Builder as Reflection;

use super::tls::{self, TlsError};
use crate::api::Api;
use crate::config::{Limits, Tls};

/// A peer that has vanished is noticed after the sum of both, and its watches are ended.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// Why the transport cannot be used.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    pub(super) tls: Option<TlsAcceptor>,
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
            .max_connection_age(limits.max_connection_age.mul_f64(rand::random_range(0.9..=1.1)))
            .max_connection_age_grace(limits.max_connection_age_grace)
            .max_concurrent_streams(limits.max_streams_per_connection);
        let tls = tls.map(tls::acceptor).transpose()?;
        Ok(Self { server, tls, max_request_bytes: limits.max_request_bytes })
    }
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
