//! Where callers connect.
//!
//! A Unix socket appears at its path with its final mode, 0600: it is made in a folder that only we can enter and then moved.
//! A socket that is left from a killed process is replaced, one that somebody listens on is not.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use super::grpc::{self, Transport, TransportError};
use super::tls;
use crate::api::Api;
use crate::config::Listen;

/// Why nothing can listen there.
#[derive(Debug, Error)]
pub enum ListenerError {
    /// The address is taken, or not ours.
    #[error("cannot listen at {at}")]
    Bind {
        /// The address.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// Another process serves there.
    #[error("cannot listen at unix:{}: another process listens there", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("cannot listen at unix:{}: there is a file that is no socket", .path.display())]
    NoSocket {
        /// The file.
        path: PathBuf,
    },
}

/// A bound listener.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    pub(super) async fn bind(listen: &Listen) -> Result<Self, ListenerError> {
        let failed = |source| ListenerError::Bind { at: listen.to_string(), source };
        match listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp).map_err(failed),
            Listen::Unix(path) => {
                make_room(path).await?;
                bind_private(path).map(|listener| Self::Unix(listener, path.clone())).map_err(failed)
            }
        }
    }

    /// As a client would write it, with the real port.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".to_owned(), |at| at.to_string()),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// Removes the socket when it is dropped.
    pub(super) fn socket_file(&self) -> Option<SocketFile> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, path) => SocketFile::of(path),
        }
    }

    pub(super) async fn serve(
        self,
        api: Api,
        transport: Transport,
        draining: CancellationToken,
    ) -> Result<(), TransportError> {
        match self {
            Self::Tcp(listener) => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                match transport.tls.clone() {
                    None => grpc::serve(api, incoming, transport, draining).await,
                    Some(tls) => grpc::serve(api, tls::handshakes(incoming, tls), transport, draining).await,
                }
            }
            Self::Unix(listener, _) => grpc::serve(api, UnixListenerStream::new(listener), transport, draining).await,
        }
    }
}

/// Removes what a killed process has left.
async fn make_room(path: &Path) -> Result<(), ListenerError> {
    let failed = |source| ListenerError::Bind { at: format!("unix:{}", path.display()), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenerError::NoSocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(failed),
        Ok(_) => Err(ListenerError::InUse { path: path.to_owned() }),
        Err(error) => Err(failed(error)),
    }
}

fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Short, since a socket's path has at most 107 bytes.
    let private = folder.join(format!(".{:x}", rand::random::<u32>()));
    std::fs::DirBuilder::new().mode(0o700).create(&private)?;
    let made = private.join("s");
    let listener = UnixListener::bind(&made).and_then(|listener| {
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&made, path)?;
        Ok(listener)
    });
    if listener.is_err() {
        // What went wrong is said by the first error.
        let _ = std::fs::remove_file(&made);
    }
    std::fs::remove_dir(&private)?;
    listener
}

/// A socket in the file system, removed when this is dropped unless somebody else has put another in its place.
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> Option<Self> {
        Some(Self { path: path.to_owned(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path) == Some(self.inode)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
