//! From a target's settings to a Kubernetes client that holds its credentials.
//!
//! Nobody above this module sees a credential. The client is made once per target and lives as long as the broker: tokens
//! are put on each request, not into the client. Kinds of identity are files beside this one: `kubeconfig` and
//! `in_cluster` today; an EKS role session belongs here too.

mod client;
pub mod eks;
mod in_cluster;
mod kubeconfig;
pub mod s3;

use std::sync::Arc;

use thiserror::Error;

pub use in_cluster::in_cluster;
pub use kubeconfig::from_kubeconfig;

/// A way into a cluster.
#[derive(Clone)]
pub struct Connection {
    /// The client; cheap to clone.
    pub client: kube::Client,
    /// The namespace that the credentials name as their own.
    pub namespace: String,
    /// The API server's address, for logs. Carries no credential.
    pub endpoint: String,
    /// The links before the cluster, where there are any.
    pub chain: Option<Arc<eks::Chain>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client: _, namespace, endpoint, chain: _ } = self;
        f.debug_struct("Connection").field("namespace", namespace).field("endpoint", endpoint).finish_non_exhaustive()
    }
}

/// Why there is no way into a cluster.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The kubeconfig cannot be read, or the context is not in it.
    #[error("cannot use the kubeconfig{}: check the path, the context's name and the files that it points at", place(.path.as_deref()))]
    Kubeconfig {
        /// The file, if one was named.
        path: Option<std::path::PathBuf>,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// The region is none.
    #[error(transparent)]
    Region(eks::RegionError),
    /// This process does not run in a pod with a service account.
    #[error("not in a cluster: the service account's files or KUBERNETES_SERVICE_HOST are missing")]
    InCluster(#[source] kube::config::InClusterError),
    /// The certificates or the credentials cannot be used.
    #[error("cannot make a client for {endpoint}: check its certificates and credentials")]
    Client {
        /// The API server's address.
        endpoint: String,
        /// What is wrong.
        source: Box<kube::Error>,
    },
}

fn place(path: Option<&std::path::Path>) -> String {
    path.map(|path| format!(" {}", path.display())).unwrap_or_default()
}
