//! The configuration: one TOML file, read once, every value parsed into its type.
//!
//! An unknown key is an error and never ignored: a misspelt limit would be no limit. Every error names the file, the key, the
//! reason and, where it can be told, the line. `config.example.toml` shows every key and is the reference.
//! Values are checked here; files that they point at, and clusters, are tried by `server` at the start.

mod archive;
mod batch;
mod check;
mod duration;
mod eks;
mod error;
mod executions;
mod listen;
mod logs;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::auth::{AllowedTargets, Authenticator, Caller, TokenDigest};
use crate::execution::{FinishAction, InstanceId, PolicyDefaults, ResultSource, TargetName, Tenant};
use crate::target::{Kind, Place};

pub use archive::{Archive, ArchiveUrl};
pub use batch::{Batch, LOG_STREAM_PREFIX, LogGroup};
pub use eks::{Aws, Credentials, Eks, SessionPolicy};
pub use error::ConfigError;
pub use executions::Executions;
pub use listen::{AdminListen, Listen, ListenError};
pub use logs::Logs;

/// The commented file with every key.
pub const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The installation's id.
    pub instance: InstanceId,
    /// Where callers connect.
    pub listen: Listen,
    /// Where metrics and probes are answered.
    pub admin_listen: AdminListen,
    /// The listener's certificate.
    pub tls: Option<Tls>,
    /// Who may call; empty for a listener that is open to its own machine.
    pub tokens: Vec<Token>,
    /// How the broker is known to AWS.
    pub aws: Aws,
    /// Where logs and outcomes are kept beyond their pods; nowhere without.
    pub archive: Option<Archive>,
    /// Where executions run.
    pub targets: Vec<Target>,
    /// How much of everything.
    pub limits: Limits,
    /// How much of the logs is held.
    pub logs: Logs,
}

/// The listener's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain as PEM, the server's own first.
    pub certificate: PathBuf,
    /// Its private key as PEM.
    pub key: PathBuf,
}

/// One bearer token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Of the token's text.
    pub sha256: TokenDigest,
    /// Who holds it.
    pub subject: String,
    /// Whose executions it can see and make.
    #[serde(default = "default_tenant")]
    pub tenant: Tenant,
    /// Names of targets, or `*` for every one; nothing without.
    #[serde(default)]
    pub targets: Vec<String>,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What callers call it.
    pub name: TargetName,
    /// How its credentials are made.
    pub kind: TargetKind,
    /// The kubeconfig file; the usual lookup without.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; the current one without.
    pub context: Option<String>,
    /// The namespace; that of the context or the service account without.
    pub namespace: Option<String>,
    /// For selectors, and for EKS.
    #[serde(default)]
    pub cluster: String,
    /// For selectors, and for EKS.
    #[serde(default)]
    pub region: String,
    /// For selectors, and for EKS.
    #[serde(default)]
    pub role_arn: String,
    /// More for EKS.
    pub eks: Option<Eks>,
    /// Its executions are jobs of AWS Batch.
    pub batch: Option<Batch>,
    /// What its executions are where they are no jobs of AWS Batch.
    #[serde(default)]
    pub executions: Executions,
    /// The image of the sidecar that hands a result back.
    #[serde(default = "default_result_image")]
    pub result_image: String,
    /// What happens to a pod after its end.
    #[serde(default = "default_finish")]
    pub finish: FinishAction,
    /// How long an unreleased execution is kept.
    #[serde(default = "default_ttl", with = "duration")]
    pub ttl: Duration,
    /// Where a result comes from.
    #[serde(default = "default_result")]
    pub result: ResultSource,
    /// Whether pods carry the finalizer that keeps their outcome.
    #[serde(default = "default_finalizer")]
    pub finalizer: bool,
}

/// How a target's credentials are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// From a kubeconfig file.
    Kubeconfig,
    /// The broker's own service account.
    InCluster,
    /// An EKS cluster, by an assumed role.
    Eks,
}

/// How much of everything.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest request message, in bytes.
    pub max_request_bytes: usize,
    /// The largest manifest, in bytes of JSON.
    pub max_manifest_bytes: usize,
    /// How many calls that are not watches may run at once.
    pub max_calls: usize,
    /// How many executions may be followed at once.
    pub max_watches: usize,
    /// How many calls one connection may have open.
    pub max_streams_per_connection: u32,
    /// How old a connection may be before its caller is asked to make another, which a load balancer may give to another
    /// replica. Each replica takes up to a tenth less or more.
    #[serde(with = "duration")]
    pub max_connection_age: Duration,
    /// How long the calls and watches of such a connection may go on. A watch that is cut goes on by its cursor.
    #[serde(with = "duration")]
    pub max_connection_age_grace: Duration,
    /// How long a stopping broker waits for open calls.
    #[serde(with = "duration")]
    pub drain: Duration,
    /// The shortest time that a caller may ask for until an execution that nobody follows is ended. The replicas tell each
    /// other whom they follow three times in the shortest time in use, so a short one costs requests.
    #[serde(with = "duration")]
    pub shortest_orphan: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_bytes: 4 << 20,
            max_manifest_bytes: 256 << 10,
            max_calls: 1000,
            max_watches: 20_000,
            max_streams_per_connection: 1000,
            max_connection_age: Duration::from_mins(30),
            max_connection_age_grace: Duration::from_secs(30),
            // Kubernetes kills 30 s after the signal, unless told otherwise.
            drain: Duration::from_secs(20),
            shortest_orphan: PolicyDefaults::default().shortest_orphan,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: "default".parse().expect("a constant DNS label"),
            listen: Listen::default(),
            admin_listen: AdminListen::Off,
            tls: None,
            tokens: Vec::new(),
            aws: Aws::default(),
            archive: None,
            targets: Vec::new(),
            limits: Limits::default(),
            logs: Logs::default(),
        }
    }
}

fn default_tenant() -> Tenant {
    "default".parse().expect("a constant DNS label")
}

fn default_result_image() -> String {
    "busybox:1.37".to_owned()
}

fn default_finish() -> FinishAction {
    PolicyDefaults::default().finish
}

fn default_ttl() -> Duration {
    PolicyDefaults::default().ttl
}

fn default_result() -> ResultSource {
    PolicyDefaults::default().result
}

fn default_finalizer() -> bool {
    true
}

impl Config {
    /// Reads and checks a file. Relative paths in it start at its folder.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::read(file, source))?;
        let mut config = Self::parse(file, &text)?;
        config.resolve_paths(file.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Reads and checks a text; the file's name is for errors.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::syntax(file, text, &error))?;
        config.check().map_err(|problem| problem.in_file(file))?;
        Ok(config)
    }

    /// The configuration of a broker that was given no file: one target, open to its own machine.
    pub fn without_file(target: Target) -> Self {
        Self { targets: vec![target], ..Self::default() }
    }

    /// How callers are verified.
    pub fn authenticator(&self) -> Authenticator {
        if self.tokens.is_empty() {
            return Authenticator::Open;
        }
        Authenticator::Tokens(self.tokens.iter().map(|token| (token.sha256, token.caller())).collect())
    }

    fn resolve_paths(&mut self, folder: &Path) {
        let tls = self.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]);
        let kubeconfigs = self.targets.iter_mut().filter_map(|target| target.kubeconfig.as_mut());
        for path in tls.chain(kubeconfigs).chain(&mut self.logs.folder) {
            *path = folder.join(&*path);
        }
        let eks = self.targets.iter_mut().filter_map(|target| target.eks.as_mut());
        for path in eks.filter_map(|eks| eks.certificate_authority.as_mut()) {
            *path = folder.join(&*path);
        }
    }
}

impl Token {
    fn caller(&self) -> Caller {
        let targets = if self.targets.iter().any(|name| name == "*") {
            AllowedTargets::All
        } else {
            // `check` has parsed them.
            AllowedTargets::Only(self.targets.iter().filter_map(|name| name.parse().ok()).collect::<BTreeSet<_>>())
        };
        Caller { subject: self.subject.clone(), tenant: self.tenant.clone(), targets }
    }
}

impl Target {
    /// A target of a kind with every default.
    pub fn new(name: TargetName, kind: TargetKind) -> Self {
        Self {
            name,
            kind,
            kubeconfig: None,
            context: None,
            namespace: None,
            cluster: String::new(),
            region: String::new(),
            role_arn: String::new(),
            eks: None,
            batch: None,
            executions: Executions::default(),
            result_image: default_result_image(),
            finish: default_finish(),
            ttl: default_ttl(),
            result: default_result(),
            finalizer: default_finalizer(),
        }
    }

    /// The defaults of its executions.
    pub fn defaults(&self) -> PolicyDefaults {
        PolicyDefaults { finish: self.finish, ttl: self.ttl, result: self.result, ..PolicyDefaults::default() }
    }

    /// Its parts, once the namespace is known.
    pub fn place(&self, namespace: &str) -> Place {
        Place {
            cluster: self.cluster.clone(),
            region: self.region.clone(),
            role_arn: self.role_arn.clone(),
            namespace: namespace.to_owned(),
        }
    }
}

impl From<TargetKind> for Kind {
    fn from(kind: TargetKind) -> Self {
        match kind {
            TargetKind::Kubeconfig => Self::Kubeconfig,
            TargetKind::InCluster => Self::InCluster,
            TargetKind::Eks => Self::Eks,
        }
    }
}
