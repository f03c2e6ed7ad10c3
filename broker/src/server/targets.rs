//! From the configuration's targets to backends that run.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::config::{Kubeconfig, KubeconfigError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::jobs;
use crate::archive::{Archive, Archived};
use crate::backend::batch::Accounts;
use crate::backend::job::Jobs;
use crate::backend::pod::{Finalizer, HeldPods, PodBackend, PodSettings, Spool};
use crate::backend::{Backend, Keeper};
use crate::config::{Config, Credentials, SessionPolicy, Target, TargetKind};
use crate::error::Error;
use crate::execution::{PolicyDefaults, TargetName};
use crate::identity::{self, Connection, IdentityError, eks};
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
    /// The file with a cluster's authorities cannot be read.
    #[error("the target {target} cannot be used: cannot read {}", path.display())]
    Authorities {
        /// The target's name.
        target: TargetName,
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
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
    spool: &Arc<Spool>,
    archive: Option<&Arc<Archive>>,
    counters: &jobs::Counters,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Registry, TargetError> {
    let mut targets = Vec::with_capacity(config.targets.len());
    let mut accounts = Accounts::default();
    for target in &config.targets {
        let connection = connection(config, target).await?;
        let mut settings = settings(config, target, &connection);
        settings.records = jobs::records(target, counters);
        let jobs =
            jobs::start(config, target, &settings.namespace, &mut accounts, &counters.requests, tasks, stop).await;
        targets.push(start((target, settings), connection, jobs, Arc::clone(spool), archive, tasks, stop));
    }
    Ok(Registry::new(targets))
}

/// Looks for what an installation holds at each of these targets; none for all of them.
pub async fn held_pods(
    config: &Config,
    names: &[TargetName],
) -> Result<Vec<(TargetName, Result<HeldPods, Error>)>, TargetError> {
    let mut held = Vec::new();
    for target in config.targets.iter().filter(|target| names.is_empty() || names.contains(&target.name)) {
        let connection = connection(config, target).await?;
        let mut settings = settings(config, target, &connection);
        settings.records = jobs::records(target, &jobs::Counters::default());
        held.push((target.name.clone(), HeldPods::find(settings, connection).await));
    }
    Ok(held)
}

async fn connection(config: &Config, target: &Target) -> Result<Connection, TargetError> {
    tokio::time::timeout(CONNECT_LIMIT, identity(config, target))
        .await
        .map_err(|_| TargetError::Slow { target: target.name.clone() })?
}

async fn identity(config: &Config, target: &Target) -> Result<Connection, TargetError> {
    let connection = match target.kind {
        TargetKind::Kubeconfig => {
            identity::from_kubeconfig(target.kubeconfig.as_deref(), target.context.as_deref()).await
        }
        TargetKind::InCluster => identity::in_cluster(),
        TargetKind::Eks => {
            let mode = credentials_mode(config.aws.credentials);
            let aws = eks::aws(mode, &target.region).await;
            eks::eks(&aws, mode, eks_settings(config, target)?)
        }
    };
    connection.map_err(|source| TargetError::Identity { target: target.name.clone(), source })
}

pub(super) fn credentials_mode(credentials: Credentials) -> eks::CredentialsMode {
    match credentials {
        Credentials::Chain => eks::CredentialsMode::Chain,
        Credentials::Irsa => eks::CredentialsMode::Irsa,
        Credentials::PodIdentity => eks::CredentialsMode::PodIdentity,
        Credentials::Env => eks::CredentialsMode::Env,
        Credentials::Imds => eks::CredentialsMode::Imds,
    }
}

/// The role of a target, if it has one.
pub(super) fn role_settings(config: &Config, target: &Target) -> Option<eks::RoleSettings> {
    let more = target.eks.clone().unwrap_or_default();
    (!target.role_arn.is_empty()).then(|| eks::RoleSettings {
        arn: target.role_arn.clone(),
        session_name: more.session_name.unwrap_or_else(|| session_name(config)),
        external_id: more.external_id,
        source_identity: more.source_identity,
        tags: more.session_tags,
        policy: match more.session_policy {
            SessionPolicy::DescribeCluster => eks::SessionPolicy::Narrow,
            SessionPolicy::None => eks::SessionPolicy::Unrestricted,
        },
        duration: more.session_duration.unwrap_or(Duration::from_hours(1)),
    })
}

fn eks_settings(config: &Config, target: &Target) -> Result<eks::EksSettings, TargetError> {
    let more = target.eks.clone().unwrap_or_default();
    let role = role_settings(config, target);
    let fixed = match (more.endpoint, more.certificate_authority) {
        (Some(endpoint), Some(path)) => {
            let authorities = std::fs::read(&path).map_err(|source| TargetError::Authorities {
                target: target.name.clone(),
                path,
                source,
            })?;
            Some(eks::FixedCluster { endpoint, authorities })
        }
        _ => None,
    };
    Ok(eks::EksSettings {
        cluster_id: more.cluster_id.unwrap_or_else(|| target.cluster.clone()),
        cluster: target.cluster.clone(),
        region: target.region.clone(),
        role,
        sts: match (more.fips, more.dual_stack) {
            (false, false) => eks::StsEndpoint::Regional,
            (true, false) => eks::StsEndpoint::Fips,
            (false, true) => eks::StsEndpoint::DualStack,
            (true, true) => eks::StsEndpoint::FipsDualStack,
        },
        fixed,
    })
}

/// Names the installation in the cluster's audit log. AssumeRole takes 64 characters.
fn session_name(config: &Config) -> String {
    format!("podbroker-{}", config.instance).chars().take(64).collect()
}

fn start(
    (target, settings): (&Target, PodSettings),
    connection: Connection,
    jobs: Option<Arc<dyn Jobs>>,
    spool: Arc<Spool>,
    archive: Option<&Arc<Archive>>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> target::Target {
    let (namespace, endpoint) = (&settings.namespace, connection.endpoint.clone());
    let kind = target::Kind::from(target.kind);
    info!(target = %target.name, ?kind, namespace, endpoint, "a target");
    let place = target.place(namespace);
    let keeper = archive.map(|archive| Arc::clone(archive) as Arc<dyn Keeper>);
    let pods = PodBackend::start(settings, connection, spool, keeper, jobs, tasks, stop);
    let backend: Arc<dyn Backend> = match archive {
        None => pods,
        Some(archive) => {
            archive.follow(Arc::<PodBackend>::clone(&pods), target.name.as_str(), tasks, stop);
            Arc::new(Archived::new(pods, Arc::clone(archive), target.name.clone()))
        }
    };
    target::Target { name: target.name.clone(), kind, place, backend }
}

fn settings(config: &Config, target: &Target, connection: &Connection) -> PodSettings {
    PodSettings {
        instance: config.instance.clone(),
        target: target.name.clone(),
        namespace: target.namespace.clone().unwrap_or_else(|| connection.namespace.clone()),
        defaults: PolicyDefaults { shortest_orphan: config.limits.shortest_orphan, ..target.defaults() },
        result_image: target.result_image.clone(),
        finalizer: if target.finalizer { Finalizer::Keep } else { Finalizer::Off },
        records: None,
    }
}
