//! Where a cluster's API server is and whom it lets vouch for it: DescribeCluster, cached.
//!
//! A cluster changes its authorities now and then, with both in the answer for a while. So all certificates of the answer are
//! trusted, and a TLS failure asks once more before it is believed. While EKS is away the last answer serves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_eks::error::SdkError;
use aws_sdk_eks::operation::describe_cluster::DescribeClusterError;
use aws_sdk_eks::types::ClusterStatus;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::Mutex as AsyncMutex;
use tracing::{info, warn};
use x509_cert::der::Decode as _;

use super::failure::{self, Failure};
use super::session::{RoleSession, SessionProvider};
use super::{ChainError, EksSettings, Hope, Trouble};

/// How long an answer is taken as it is. A cluster keeps its endpoint, and a new authority shows by a TLS failure, so this is
/// only for what nobody has thought of.
const TTL: Duration = Duration::from_hours(4);

/// After a failure the next try is so much later, while the last answer serves.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// After a TLS failure the cluster is described anew, but not more often than this.
const DOUBT_AFTER: Duration = Duration::from_secs(5);

/// The same after a failure to connect: most are outages of the way, but a cluster that was made anew under its old name has
/// another endpoint.
const LOOK_AFTER: Duration = Duration::from_mins(10);

/// What is known of a cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    /// `https://...`, without a path.
    pub(super) endpoint: String,
    /// The authorities' certificates, DER.
    pub(super) authorities: Vec<Vec<u8>>,
    /// As EKS says it; `fixed` for a cluster that is not asked about.
    pub(super) status: String,
}

impl Cluster {
    /// When the first of its authorities ends; unset when a certificate cannot be read.
    pub(super) fn authorities_end(&self) -> Option<SystemTime> {
        let ends = self.authorities.iter().map(|der| {
            let certificate = x509_cert::Certificate::from_der(der).ok()?;
            Some(certificate.tbs_certificate().validity().not_after.to_system_time())
        });
        ends.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// The authorities by their names and ends.
    pub(super) fn authorities_named(&self) -> String {
        let names = self.authorities.iter().map(|der| {
            let Ok(certificate) = x509_cert::Certificate::from_der(der) else {
                return "one that cannot be read".to_owned();
            };
            let facts = certificate.tbs_certificate();
            let end = jiff::Timestamp::try_from(facts.validity().not_after.to_system_time());
            let end = end.map_or_else(|_| "an unknown day".to_owned(), |end| end.strftime("%Y-%m-%d").to_string());
            format!("{}, valid until {end}", facts.subject())
        });
        names.collect::<Vec<_>>().join("; ")
    }
}

/// Why what is known of a cluster may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Its certificate is not vouched for by the authorities.
    Tls,
    /// Nobody is at the endpoint.
    Connect,
}

/// The cluster of one target.
pub(super) struct Clusters {
    eks: aws_sdk_eks::Client,
    settings: Arc<EksSettings>,
    known: Mutex<Option<Known>>,
    /// Held across DescribeCluster, on purpose: a hundred requests ask once.
    asking: AsyncMutex<()>,
}

#[derive(Clone)]
struct Known {
    cluster: Arc<Cluster>,
    asked: Instant,
    ask_again: Instant,
}

impl Clusters {
    pub(super) fn new(aws: &SdkConfig, session: &Arc<RoleSession>, settings: Arc<EksSettings>) -> Self {
        // The session is its own cache, with rules of its own.
        let config = aws_sdk_eks::config::Builder::from(aws)
            .credentials_provider(SessionProvider(Arc::clone(session)))
            .identity_cache(aws_sdk_eks::config::IdentityCache::no_cache())
            .build();
        Self {
            eks: aws_sdk_eks::Client::from_conf(config),
            settings,
            known: Mutex::new(None),
            asking: AsyncMutex::new(()),
        }
    }

    fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    /// The cluster as it was described within some hours, or as far as it can be known.
    pub(super) async fn get(&self) -> Result<Arc<Cluster>, ChainError> {
        self.get_asked_after(None).await
    }

    /// The cluster as it is now, since what was known has led into a failure.
    pub(super) async fn doubt(&self, why: Doubt) -> Result<Arc<Cluster>, ChainError> {
        let age = match why {
            Doubt::Tls => DOUBT_AFTER,
            Doubt::Connect => LOOK_AFTER,
        };
        self.get_asked_after(Instant::now().checked_sub(age)).await
    }

    async fn get_asked_after(&self, moment: Option<Instant>) -> Result<Arc<Cluster>, ChainError> {
        let good = |known: &Known| moment.map_or(Instant::now() < known.ask_again, |moment| known.asked > moment);
        if let Some(known) = self.known().filter(good) {
            return Ok(known.cluster);
        }
        let _asking = self.asking.lock().await;
        if let Some(known) = self.known().filter(good) {
            return Ok(known.cluster);
        }
        match self.describe().await {
            Ok(cluster) => {
                let (cluster, asked) = (Arc::new(cluster), Instant::now());
                self.set(Known { cluster: Arc::clone(&cluster), asked, ask_again: asked + TTL });
                Ok(cluster)
            }
            Err(error) => match self.known() {
                Some(mut known) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "the cluster cannot be described; the last answer serves"
                    );
                    known.asked = Instant::now();
                    known.ask_again = known.asked + RETRY_AFTER;
                    self.set(known.clone());
                    Ok(known.cluster)
                }
                None => Err(error),
            },
        }
    }

    async fn describe(&self) -> Result<Cluster, ChainError> {
        let name = &self.settings.cluster;
        if let Some(fixed) = &self.settings.fixed {
            let authorities = certificates(&fixed.authorities)?;
            return Ok(Cluster { endpoint: fixed.endpoint.clone(), authorities, status: "fixed".to_owned() });
        }
        let answer = self
            .eks
            .describe_cluster()
            .name(name)
            .send()
            .await
            .map_err(|error| describe_error(name, &self.settings.region, &error))?;
        let cluster =
            answer.cluster().ok_or_else(|| broken(Trouble::EksAway, Hope::Passing, "EKS gave no cluster", None))?;
        let status = cluster.status().cloned().unwrap_or(ClusterStatus::from("UNKNOWN"));
        let (Some(endpoint), Some(authority)) =
            (cluster.endpoint(), cluster.certificate_authority().and_then(|authority| authority.data()))
        else {
            let hope = if status == ClusterStatus::Creating { Hope::Passing } else { Hope::Lasting };
            let what = format!("the cluster {name} has no endpoint: its status is {status} and not ACTIVE");
            return Err(broken(Trouble::NotActive, hope, what, None));
        };
        let pem = BASE64_STANDARD.decode(authority).map_err(|error| {
            let what = "the cluster's certificate authority is not base64";
            broken(Trouble::Address, Hope::Lasting, what, Some(error.into()))
        })?;
        let authorities = certificates(&pem)?;
        info!(
            cluster = name,
            status = status.as_str(),
            endpoint,
            authorities = authorities.len(),
            "described the cluster"
        );
        Ok(Cluster { endpoint: endpoint.to_owned(), authorities, status: status.as_str().to_owned() })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, ChainError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates: Vec<Vec<u8>> = parsed
        .map_err(|error| {
            let what = "the cluster's certificate authority is not PEM";
            broken(Trouble::Address, Hope::Lasting, what, Some(error.to_string().into()))
        })?
        .into_iter()
        .map(|certificate| certificate.to_vec())
        .collect();
    if certificates.is_empty() {
        let what = "the cluster's certificate authority holds no certificate";
        return Err(broken(Trouble::Address, Hope::Lasting, what, None));
    }
    Ok(certificates)
}

fn broken(
    trouble: Trouble,
    hope: Hope,
    what: impl Into<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
) -> ChainError {
    ChainError { link: "cluster", trouble, what: what.into(), hope, source }
}

fn describe_error(name: &str, region: &str, error: &SdkError<DescribeClusterError>) -> ChainError {
    // The session's own failure is the cause that matters, and it names its own link.
    if let Some(ChainError { link, trouble, what, hope, source }) = failure::find(error) {
        let source = source.as_ref().map(|source| source.to_string().into());
        return ChainError { link, trouble: *trouble, what: what.clone(), hope: *hope, source };
    }
    let (trouble, hope, what) = match failure::of_call(error) {
        Failure::Unsigned(unsigned) => return failure::without_base(unsigned),
        Failure::Away(why) => (Trouble::EksAway, Hope::Passing, format!("EKS does not answer for {name}: {why}")),
        Failure::Refused { code, said } => match code.as_str() {
            "AccessDeniedException" | "AccessDenied" => {
                (Trouble::Describe, Hope::Lasting, format!("not allowed to describe the cluster {name}: {said}"))
            }
            "ResourceNotFoundException" => {
                (Trouble::NoCluster, Hope::Lasting, format!("there is no cluster {name} in {region}"))
            }
            _ => {
                let said = failure::sentence(&code, &said);
                (Trouble::Address, Hope::Lasting, format!("EKS refuses to describe {name}: {said}"))
            }
        },
    };
    broken(trouble, hope, what, failure::request(error))
}
