//! What only EKS targets have, and how the broker gets its own AWS credentials.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::error::Problem;
use super::{Target, TargetKind};

/// AWS, for all EKS targets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Aws {
    /// Where the broker's own credentials come from.
    pub credentials: Credentials,
}

/// Where the broker's own AWS credentials come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Credentials {
    /// The first of environment, profile, web identity and container that has any.
    #[default]
    Chain,
    /// A service account's web identity.
    Irsa,
    /// EKS Pod Identity.
    PodIdentity,
    /// Environment variables.
    Env,
    /// The node's role.
    Imds,
}

/// How an EKS target's role is assumed and its cluster found, besides `cluster`, `region` and `role_arn`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Eks {
    /// What the trust policy asks for.
    pub external_id: Option<String>,
    /// The session's name; `podbroker-` and the instance without.
    pub session_name: Option<String>,
    /// Stays with all sessions made from this one.
    pub source_identity: Option<String>,
    /// Session tags.
    pub session_tags: BTreeMap<String, String>,
    /// What the session may do at most.
    pub session_policy: SessionPolicy,
    /// How long a session lives.
    #[serde(with = "super::duration::option")]
    pub session_duration: Option<Duration>,
    /// What the token is signed for; the cluster's name without.
    pub cluster_id: Option<String>,
    /// Use the FIPS endpoint of STS in the token.
    pub fips: bool,
    /// Use the dual-stack endpoint of STS in the token.
    pub dual_stack: bool,
    /// The API server's URL, if DescribeCluster is not to be asked.
    pub endpoint: Option<String>,
    /// A PEM file with the cluster's authorities; belongs to `endpoint`.
    pub certificate_authority: Option<PathBuf>,
}

/// What a session may do at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum SessionPolicy {
    /// DescribeCluster on the one cluster.
    #[default]
    DescribeCluster,
    /// All that the role allows.
    None,
}

impl Target {
    pub(super) fn check_eks(&self) -> Result<(), Problem> {
        if self.kind != TargetKind::Eks {
            return match self.eks {
                Some(_) => Err(Problem::new("eks", "only applies to the kind \"eks\"")),
                None => Ok(()),
            };
        }
        for (key, value) in [("cluster", &self.cluster), ("region", &self.region)] {
            if value.is_empty() {
                return Err(Problem::new(key, "is needed for the kind \"eks\""));
            }
        }
        if !self.role_arn.is_empty() && !is_role_arn(&self.role_arn) {
            return Err(Problem::new("role_arn", NO_ROLE_ARN));
        }
        self.eks.as_ref().map_or(Ok(()), Eks::check)
    }
}

impl Eks {
    /// The limits are those of AssumeRole.
    fn check(&self) -> Result<(), Problem> {
        for (key, value) in [("session_name", &self.session_name), ("source_identity", &self.source_identity)] {
            if value.as_ref().is_some_and(|value| !is_name(value)) {
                return Err(Problem::new(format!("eks.{key}"), "must be 2 to 64 letters, digits or any of _+=,.@-"));
            }
        }
        if self.external_id.as_ref().is_some_and(|id| !(2..=1224).contains(&id.len())) {
            return Err(Problem::new("eks.external_id", "must be 2 to 1224 characters"));
        }
        if self.session_tags.len() > 50 {
            return Err(Problem::new("eks.session_tags", "must be at most 50"));
        }
        let hour = Duration::from_hours(1);
        if self.session_duration.is_some_and(|time| !(Duration::from_mins(15)..=12 * hour).contains(&time)) {
            return Err(Problem::new(
                "eks.session_duration",
                "must be \"15m\" to \"12h\"; a chained role gets \"1h\" at most",
            ));
        }
        match (&self.endpoint, &self.certificate_authority) {
            (Some(endpoint), Some(_)) if endpoint.starts_with("https://") => Ok(()),
            (Some(_), Some(_)) => Err(Problem::new("eks.endpoint", "must begin with https://")),
            (None, None) => Ok(()),
            _ => Err(Problem::new("eks.endpoint", "and eks.certificate_authority belong together")),
        }
    }
}

fn is_name(text: &str) -> bool {
    (2..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"_+=,.@-".contains(&c))
}

pub(super) const NO_ROLE_ARN: &str = "must be a role's ARN, such as arn:aws:iam::111122223333:role/Name";

pub(super) fn is_role_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [arn, partition, iam, region, account, resource] = parts[..] else { return false };
    arn == "arn"
        && partition.starts_with("aws")
        && iam == "iam"
        && region.is_empty()
        && account.len() == 12
        && account.bytes().all(|digit| digit.is_ascii_digit())
        && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty())
}
