//! The broker's own service account in the cluster that it runs in.

use super::{Connection, IdentityError, client};

/// Uses the service account's projected token, which is read again when it was rotated.
pub fn in_cluster() -> Result<Connection, IdentityError> {
    let config = kube::Config::incluster().map_err(IdentityError::InCluster)?;
    client::connect(&config)
}
