//! TLS of the listener, with a certificate that may change while the broker runs.
//!
//! A projected volume or a certificate controller replaces the files in place. A handshake looks at them, at most every few
//! seconds, and reads them again when they are others; so there is nothing to signal and nothing that polls. Connections that are
//! open keep what they began with. Files that do not belong together, as in the middle of a replacement, are left aside, and the
//! certificate before them serves on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::{Stream, StreamExt as _};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::Tls;

/// A peer that does not finish its handshake holds no connection for longer.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Handshakes at a time; more wait in the listener's own queue. A flood of silent peers costs as many sockets.
const HANDSHAKES: usize = 4096;
/// A kubelet takes a minute to project a new certificate, and those who replace them do so days before the old one ends.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

const ALPN_H2: &[u8] = b"h2";

/// Why the certificate cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("tls.{key}: cannot read {}", .file.display())]
    File {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("tls.{key}: {} holds no PEM of that kind", .file.display())]
    Pem {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        file: PathBuf,
    },
    /// The files are no certificate and its key.
    #[error("tls: the certificate and the key cannot be used; both must be PEM and belong together")]
    Unusable(#[source] rustls::Error),
}

/// Reads the files for the first time.
pub(super) fn acceptor(files: &Tls) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let certificate = ChangingCertificate::read(files, Arc::clone(&provider))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols.push(ALPN_H2.to_vec());
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Connections that have finished their handshakes. A handshake that fails ends its own connection and nothing else.
pub(super) fn handshakes<IO>(
    incoming: impl Stream<Item = io::Result<IO>>,
    acceptor: TlsAcceptor,
) -> impl Stream<Item = io::Result<TlsStream<IO>>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = move |accepted: io::Result<IO>| {
        let acceptor = acceptor.clone();
        async move {
            let connection = match accepted {
                Ok(connection) => connection,
                Err(error) => return Some(Err(error)),
            };
            match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(connection)).await {
                Ok(Ok(stream)) => Some(Ok(stream)),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a TLS handshake failed");
                    None
                }
                Err(_) => {
                    tracing::debug!("a TLS handshake took too long");
                    None
                }
            }
        }
    };
    incoming.map(handshake).buffer_unordered(HANDSHAKES).filter_map(std::future::ready)
}

/// The certificate as the files have it now.
struct ChangingCertificate {
    files: Tls,
    provider: Arc<CryptoProvider>,
    kept: Mutex<Kept>,
}

struct Kept {
    certificate: Arc<CertifiedKey>,
    mark: Mark,
    looked_at: Instant,
}

/// What tells a file from the one before it: when it was written, and how long it is.
type Mark = [(Option<SystemTime>, u64); 2];

impl std::fmt::Debug for ChangingCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangingCertificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ChangingCertificate {
    fn read(files: &Tls, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let mark = mark(files);
        let certificate = Arc::new(read(files, &provider)?);
        let kept = Mutex::new(Kept { certificate, mark, looked_at: Instant::now() });
        Ok(Self { files: files.clone(), provider, kept })
    }

    /// Reading two small local files blocks for less time than the handshake's own signature takes.
    fn current(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(kept.looked_at) >= LOOK_INTERVAL {
            kept.looked_at = now;
            let mark = mark(&self.files);
            if mark != kept.mark {
                match read(&self.files, &self.provider) {
                    Ok(certificate) => {
                        kept.certificate = Arc::new(certificate);
                        kept.mark = mark;
                        tracing::info!("the certificate has changed");
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "the new certificate is left aside");
                    }
                }
            }
        }
        Arc::clone(&kept.certificate)
    }
}

impl ResolvesServerCert for ChangingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current(Instant::now()))
    }
}

fn mark(files: &Tls) -> Mark {
    [&files.certificate, &files.key].map(|file| {
        let metadata = std::fs::metadata(file).ok();
        (metadata.as_ref().and_then(|it| it.modified().ok()), metadata.map_or(0, |it| it.len()))
    })
}

fn read(files: &Tls, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let not_pem = |key, file: &Path| TlsError::Pem { key, file: file.to_owned() };
    let chain = CertificateDer::pem_slice_iter(&content("certificate", &files.certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| not_pem("certificate", &files.certificate))?;
    if chain.is_empty() {
        return Err(not_pem("certificate", &files.certificate));
    }
    let key = PrivateKeyDer::from_pem_slice(&content("key", &files.key)?).map_err(|_| not_pem("key", &files.key))?;
    CertifiedKey::from_der(chain, key, provider).map_err(TlsError::Unusable)
}

fn content(key: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|source| TlsError::File { key, file: file.to_owned(), source })
}
