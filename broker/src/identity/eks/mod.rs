//! Credentials for an EKS cluster: workload identity → assumed role → presigned token → Kubernetes user.
//!
//! ```text
//! base        who the broker is to AWS, by an explicit mode
//!   └ session   the target's role, assumed once for everybody, renewed early
//!       ├ cluster  endpoint and authorities by DescribeCluster, cached
//!       └ token    a presigned GetCallerIdentity, pure
//!           └ client  puts a token on each request; a 401 renews it once, a TLS failure the cluster once
//! ```
//!
//! No credential leaves this module but as a sensitive header. Nothing is asked of AWS before the first request, so a broker
//! starts while AWS is away. `explain` walks the same links for `podbroker check`.

mod base;
mod batch;
mod client;
mod clock;
mod cluster;
mod explain;
mod failure;
mod partition;
mod policy;
mod session;
mod standing;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use thiserror::Error;

pub use base::CredentialsMode;
pub use batch::{BatchAccess, BatchFailure, BatchSettings, Definitions, EventsQueue, Happened, LogGroupName, happened};
pub use explain::{LINKS, Link};
pub use partition::{RegionError, StsEndpoint};
pub use token::{Audience, EksToken, presign};

use self::clock::AwsClock;
use self::cluster::{Cluster, Clusters};
use self::session::RoleSession;
use self::standing::Record;
use self::token::Tokens;
use super::Connection;

/// How a target's EKS cluster is reached.
#[derive(Debug, Clone)]
pub struct EksSettings {
    /// The cluster's name.
    pub cluster: String,
    /// What the token is signed for; the cluster's name but for local clusters on Outposts, which use their id.
    pub cluster_id: String,
    /// The cluster's region.
    pub region: String,
    /// The role to assume; the base credentials themselves without.
    pub role: Option<RoleSettings>,
    /// Which of the region's STS endpoints the token is for.
    pub sts: StsEndpoint,
    /// Endpoint and authorities that are known; DescribeCluster is asked without.
    pub fixed: Option<FixedCluster>,
}

/// How a target's role is assumed.
#[derive(Debug, Clone)]
pub struct RoleSettings {
    /// The role's ARN.
    pub arn: String,
    /// For the cluster's audit log: an access entry's user name carries it.
    pub session_name: String,
    /// What the trust policy may ask for. Not secret, and not shown either.
    pub external_id: Option<String>,
    /// Stays with every session that is made from this one.
    pub source_identity: Option<String>,
    /// Session tags.
    pub tags: BTreeMap<String, String>,
    /// What the session may do at most.
    pub policy: SessionPolicy,
    /// How long a session lives; chained roles get an hour at most.
    pub duration: std::time::Duration,
}

/// What a session may do at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionPolicy {
    /// What it is for, whatever the role allows: DescribeCluster on the one cluster, since a token needs no permission,
    /// objects below one folder of the archive's bucket, or jobs of AWS Batch.
    Narrow,
    /// All that the role allows.
    Unrestricted,
}

/// A cluster that need not be described.
#[derive(Debug, Clone)]
pub struct FixedCluster {
    /// The API server's URL.
    pub endpoint: String,
    /// Its authorities, PEM, one or several.
    pub authorities: Vec<u8>,
}

/// Which link of the chain broke, and whether time may mend it.
#[derive(Debug, Error)]
#[error("{link}: {what}")]
pub struct ChainError {
    /// The link's name, as `podbroker check` has it.
    pub link: &'static str,
    /// What is to be mended.
    pub trouble: Trouble,
    /// What is wrong there.
    pub what: String,
    /// Whether time may mend it.
    pub hope: Hope,
    /// What AWS or the network said.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What is to be mended at a broken link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The broker is nobody to AWS.
    NoCredentials,
    /// The role does not let the broker in.
    Trust,
    /// The role takes no session with tags.
    Tags,
    /// The role takes no source identity.
    SourceIdentity,
    /// The region's STS is switched off.
    RegionOff,
    /// The request for a session is not valid.
    Request,
    /// STS does not answer.
    StsAway,
    /// The role may not describe the cluster.
    Describe,
    /// There is no such cluster.
    NoCluster,
    /// The cluster is there and not ready.
    NotActive,
    /// EKS does not answer.
    EksAway,
    /// Endpoint or authorities are not usable.
    Address,
    /// The token cannot be made.
    Unmade,
    /// The cluster refuses the token.
    Refused,
}

/// Whether time may mend a broken link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hope {
    /// It may: an outage, throttling.
    Passing,
    /// It will not: somebody has to change something.
    Lasting,
}

/// The SDK's settings for a region, with one of the ways to base credentials.
pub async fn aws(mode: CredentialsMode, region: &str) -> SdkConfig {
    let region = Region::new(region.to_owned());
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(std::time::Duration::from_secs(3))
        .operation_attempt_timeout(std::time::Duration::from_secs(8))
        .operation_timeout(std::time::Duration::from_secs(20))
        .build();
    aws_config::defaults(BehaviorVersion::latest())
        .region(region.clone())
        .credentials_provider(base::provider(mode, region, timeouts.clone()))
        .timeout_config(timeouts)
        .load()
        .await
}

/// A way into an EKS cluster. Asks nobody for anything yet.
pub fn eks(aws: &SdkConfig, mode: CredentialsMode, settings: EksSettings) -> Result<Connection, super::IdentityError> {
    let settings = Arc::new(settings);
    let host = partition::sts_host(&settings.region, settings.sts).map_err(super::IdentityError::Region)?;
    let clock = AwsClock::default();
    let config = aws_sdk_sts::config::Builder::from(aws).interceptor(clock.clone()).build();
    let sts = aws_sdk_sts::Client::from_conf(config);
    let narrow = settings.role.as_ref().filter(|role| role.policy == SessionPolicy::Narrow);
    let policy = narrow.and_then(|role| policy::describe_cluster(&role.arn, &settings.region, &settings.cluster));
    let session = Arc::new(RoleSession::new(aws, sts.clone(), settings.role.clone(), policy));
    let tokens = Arc::new(Tokens::new(Arc::clone(&session), &settings, host));
    let clusters = Arc::new(Clusters::new(aws, &session, Arc::clone(&settings)));
    let standing = Record::default();
    let chain =
        Arc::new(Chain { sts, clock, mode, settings: Arc::clone(&settings), session, clusters, tokens, standing });
    let endpoint = match &settings.fixed {
        Some(fixed) => fixed.endpoint.clone(),
        None => format!("EKS cluster {} in {}", settings.cluster, settings.region),
    };
    let client = client::connect(Arc::clone(&chain));
    Ok(Connection { client, namespace: "default".to_owned(), endpoint, chain: Some(chain) })
}

/// A role's session for one folder of a bucket; apart from the one for a cluster, which must not reach it.
pub struct FolderSession(RoleSession);

impl std::fmt::Debug for FolderSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FolderSession")
    }
}

impl FolderSession {
    /// Asks nobody for anything yet. `root` is the folder.
    pub fn new(aws: &SdkConfig, role: RoleSettings, bucket: &str, root: &str) -> Self {
        let narrow = role.policy == SessionPolicy::Narrow;
        let policy = if narrow { policy::folder(&role.arn, bucket, root) } else { None };
        Self(RoleSession::new(aws, aws_sdk_sts::Client::new(aws), Some(role), policy))
    }

    /// Credentials that live for at least two minutes.
    pub(in crate::identity) async fn credentials(&self) -> Result<Credentials, ChainError> {
        self.0.credentials().await
    }

    /// The bucket refused what was signed with it: the next request assumes the role anew, unless that was just done.
    pub(in crate::identity) async fn doubt(&self) {
        self.0.doubt().await;
    }
}

/// The links of one target, alive.
pub struct Chain {
    sts: aws_sdk_sts::Client,
    clock: AwsClock,
    mode: CredentialsMode,
    settings: Arc<EksSettings>,
    session: Arc<RoleSession>,
    clusters: Arc<Clusters>,
    tokens: Arc<Tokens>,
    standing: Record,
}

impl Chain {
    async fn cluster(&self) -> Result<Arc<Cluster>, ChainError> {
        self.clusters.get().await
    }
}
