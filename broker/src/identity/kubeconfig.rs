//! Credentials from a kubeconfig file.

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};

use super::{Connection, IdentityError, client};

/// Uses a context of a kubeconfig; without a path the files of `KUBECONFIG` or `~/.kube/config`, without a context the
/// current one.
pub async fn from_kubeconfig(path: Option<&Path>, context: Option<&str>) -> Result<Connection, IdentityError> {
    let fail = |source| IdentityError::Kubeconfig { path: path.map(Path::to_path_buf), source };
    let file = match path {
        Some(path) => Kubeconfig::read_from(path).map_err(fail)?,
        None => Kubeconfig::read().map_err(fail)?,
    };
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = kube::Config::from_custom_kubeconfig(file, &options).await.map_err(fail)?;
    client::connect(&config)
}
