//! From the configuration's targets to backends that run.

use std::path::Path;
use std::time::Duration;

use kube::config::{Kubeconfig, KubeconfigError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::backend::pod::{Finalizer, PodBackend, PodSettings};
use crate::config::{Config, Target, TargetKind};
use crate::execution::TargetName;
use crate::identity::{self, Connection, IdentityError};
use crate::target::{self, Registry};

/// Long enough for a kubeconfig's own credential program; a start that hangs is worse than one that fails.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Where Kubernetes puts a pod's own credentials.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Why a target cannot be used.
#[derive(Debug, Error)]
pub enum TargetError {
    /// There is no way into its cluster.
    #[error("the target {target} cannot be used")]
    Identity {
        /// The target's name.
        target: TargetName,
        /// Why.
        source: IdentityError,
    },
    /// Its credentials do not come.
    #[error("the target {target} cannot be used: its credentials did not come within {} s", CONNECT_LIMIT.as_secs())]
    Slow {
        /// The target's name.
        target: TargetName,
    },
    /// The kind is known, and not in this version.
    #[error(
        "the target {target} cannot be used: this version has no EKS targets; use \"kubeconfig\" or \"in-cluster\""
    )]
    NoEks {
        /// The target's name.
        target: TargetName,
    },
    /// Started without a configuration where there is no cluster to be seen.
    #[error(
        "no configuration was given, there is no kubeconfig, and this is no pod; set KUBECONFIG, or give --config FILE \
         (`podbroker config example` prints one)"
    )]
    NoCluster,
}

/// The configuration of a broker that was given none: the cluster that kubectl would use, or the one it runs in.
#[expect(clippy::missing_panics_doc, reason = "a constant")]
pub fn own_machine() -> Result<Config, TargetError> {
    let kind = match Kubeconfig::read() {
        // What is wrong with it is said when it is used.
        Err(error) if is_missing(&error) => {
            if !Path::new(SERVICE_ACCOUNT).exists() {
                return Err(TargetError::NoCluster);
            }
            info!("no configuration and no kubeconfig: the target `default` is the cluster that this pod runs in");
            TargetKind::InCluster
        }
        read => {
            let context = read.ok().and_then(|file| file.current_context).unwrap_or_default();
            info!(context, "no configuration: the target `default` is the current context of the kubeconfig");
            TargetKind::Kubeconfig
        }
    };
    Ok(Config::without_file(Target::new("default".parse().expect("a constant DNS label"), kind)))
}

fn is_missing(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Starts the backend of each target. A cluster that does not answer is no reason not to start; credentials that cannot be
/// read are.
pub(super) async fn connect(
    config: &Config,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Registry, TargetError> {
    let mut targets = Vec::with_capacity(config.targets.len());
    for target in &config.targets {
        let connection = tokio::time::timeout(CONNECT_LIMIT, identity(target))
            .await
            .map_err(|_| TargetError::Slow { target: target.name.clone() })??;
        targets.push(start(config, target, connection, tasks, stop));
    }
    Ok(Registry::new(targets))
}

async fn identity(target: &Target) -> Result<Connection, TargetError> {
    let connection = match target.kind {
        TargetKind::Kubeconfig => {
            identity::from_kubeconfig(target.kubeconfig.as_deref(), target.context.as_deref()).await
        }
        TargetKind::InCluster => identity::in_cluster(),
        TargetKind::Eks => return Err(TargetError::NoEks { target: target.name.clone() }),
    };
    connection.map_err(|source| TargetError::Identity { target: target.name.clone(), source })
}

fn start(
    config: &Config,
    target: &Target,
    connection: Connection,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> target::Target {
    let Connection { client, namespace, endpoint } = connection;
    let namespace = target.namespace.clone().unwrap_or(namespace);
    let kind = target::Kind::from(target.kind);
    info!(target = %target.name, ?kind, namespace, endpoint, "a target");
    let place = target.place(&namespace);
    let settings = PodSettings {
        instance: config.instance.clone(),
        target: target.name.clone(),
        namespace,
        defaults: target.defaults(),
        result_image: target.result_image.clone(),
        finalizer: if target.finalizer { Finalizer::Keep } else { Finalizer::Off },
    };
    let backend = PodBackend::start(settings, client, tasks, stop);
    target::Target { name: target.name.clone(), kind, place, backend }
}
