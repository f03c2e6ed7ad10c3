//! Walks the AWS part of the chain for a person: who we are at each link, or what is broken and what to do.

use std::time::SystemTime;

use aws_sdk_sts::error::SdkError;
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityError;

use super::client::is_certificate_trouble;
use super::failure::{self, Failure};
use super::{Chain, ChainError, CredentialsMode, FixedCluster, Hope, Trouble};

/// One link, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: &'static str,
    /// Who we are there, or what was said.
    pub detail: String,
    /// What to do; unset when it holds.
    pub fix: Option<String>,
}

impl Link {
    pub(super) fn held(name: &'static str, detail: String) -> Self {
        Self { name, detail, fix: None }
    }

    pub(super) fn broken(name: &'static str, detail: String, fix: String) -> Self {
        Self { name, detail, fix: Some(fix) }
    }
}

/// The links that `explain` walks, in order.
pub const LINKS: [&str; 3] = ["workload-identity", "role", "cluster"];

impl Chain {
    /// The links up to the first that is broken.
    pub async fn explain(&self) -> Vec<Link> {
        let mut links = Vec::new();
        for link in [self.workload_identity().await, self.role().await, self.described().await] {
            let stop = link.fix.is_some();
            links.push(link);
            if stop {
                break;
            }
        }
        if links.iter().all(|link| link.fix.is_none())
            && let Err(error) = self.tokens.get().await
            && error.link == "token"
        {
            links.push(self.broken(error));
        }
        links
    }

    /// What to do about a failed request, if it is the chain that broke, or the trust in the cluster's certificate.
    pub async fn fix_of(&self, error: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<String> {
        if let Some(chain) = failure::find::<ChainError>(error) {
            return Some(self.fix(chain));
        }
        if !is_certificate_trouble(error) {
            return None;
        }
        let cluster = self.cluster().await.ok()?;
        Some(authority_fix(&cluster.authorities_named(), self.settings.fixed.as_ref()))
    }

    /// Says once in the log who the broker is to AWS.
    pub async fn announce(&self) {
        let Link { detail, fix, .. } = self.workload_identity().await;
        match fix {
            None => tracing::info!(detail, "workload identity"),
            Some(fix) => tracing::warn!(detail, fix, "the broker is nobody to AWS yet"),
        }
    }

    async fn workload_identity(&self) -> Link {
        let name = LINKS[0];
        let arn = match self.sts.get_caller_identity().send().await {
            Ok(answer) => answer.arn().unwrap_or("nobody").to_owned(),
            Err(error) => return self.broken(caller_error(&error)),
        };
        let who = format!("AWS knows the broker as {arn}");
        let skew = self.clock.skew();
        match skew.words() {
            None => Link::held(name, who),
            Some(words) if skew.is_too_much() => {
                Link::broken(name, format!("{who}, but {words}"), CLOCK_FIX.to_owned())
            }
            Some(words) => Link::held(name, format!("{who}; {words}")),
        }
    }

    async fn role(&self) -> Link {
        let name = LINKS[1];
        if self.settings.role.is_none() {
            return Link::held(name, "no role is configured: the broker's own identity is used".to_owned());
        }
        match self.session.describe().await {
            Ok((arn, expiry)) => Link::held(name, format!("assumed {arn}, {}", lifetime(expiry))),
            Err(error) => self.broken(error),
        }
    }

    async fn described(&self) -> Link {
        let name = LINKS[2];
        match self.cluster().await {
            Ok(cluster) => {
                let authorities = cluster.authorities.len();
                let until = cluster.authorities_end().and_then(|end| jiff::Timestamp::try_from(end).ok());
                let detail = format!(
                    "{} is {}, at {}, with {authorities} certificate {}{}",
                    self.settings.cluster,
                    cluster.status,
                    cluster.endpoint,
                    if authorities == 1 { "authority" } else { "authorities" },
                    until.map(|end| format!(", valid until {}", end.strftime("%Y-%m-%d"))).unwrap_or_default(),
                );
                Link::held(name, detail)
            }
            Err(error) => self.broken(error),
        }
    }

    fn broken(&self, error: ChainError) -> Link {
        let fix = self.fix(&error);
        Link::broken(error.link, error.what, fix)
    }

    fn fix(&self, error: &ChainError) -> String {
        let (cluster, region) = (&self.settings.cluster, &self.settings.region);
        let arn = self.settings.role.as_ref().map_or("the target's role", |role| &role.arn);
        if let Some(fix) = role_fix(error.trouble, arn, self.mode) {
            return fix;
        }
        match error.trouble {
            Trouble::Describe => format!(
                "allow eks:DescribeCluster on the cluster {cluster} in the role's permission policy; a session policy or a boundary may take it away too"
            ),
            Trouble::NoCluster => {
                format!("check the name {cluster}, the region {region} and the account of the role")
            }
            Trouble::NotActive => "wait until the cluster is ACTIVE, or create it anew if it has failed".to_owned(),
            Trouble::EksAway => EKS_FIX.to_owned(),
            Trouble::Address => "check the cluster's endpoint and certificate authority".to_owned(),
            Trouble::Unmade => TOKEN_FIX.to_owned(),
            _ => REFUSED_FIX.to_owned(),
        }
    }
}

/// What to do when it is the role's session that broke, or what is before it.
pub(super) fn role_fix(trouble: Trouble, arn: &str, mode: CredentialsMode) -> Option<String> {
    Some(match trouble {
        Trouble::NoCredentials => mode.hint().to_owned(),
        Trouble::Trust => format!(
            "let the trust policy of {arn} name the broker's identity, with the same external id if it asks for one, and let the broker's own policy allow sts:AssumeRole on it"
        ),
        Trouble::Tags => format!(
            "allow sts:TagSession beside sts:AssumeRole in the trust policy of {arn}: the session carries tags, and tags that a pod identity adds count too"
        ),
        Trouble::SourceIdentity => format!(
            "allow sts:SetSourceIdentity in the trust policy of {arn}, or leave source_identity out of the target"
        ),
        Trouble::RegionOff => REGION_FIX.to_owned(),
        Trouble::Request => format!("mend what STS names in the settings of the target or of the role {arn}"),
        Trouble::StsAway => STS_FIX.to_owned(),
        _ => return None,
    })
}

/// The broker is not known to AWS.
fn caller_error(error: &SdkError<GetCallerIdentityError>) -> ChainError {
    let (trouble, hope, what) = match failure::of_call(error) {
        Failure::Unsigned(unsigned) => return failure::without_base(unsigned),
        Failure::Away(why) => (Trouble::StsAway, Hope::Passing, format!("STS does not answer: {why}")),
        Failure::Refused { code, said } => {
            let trouble = if code == "RegionDisabledException" { Trouble::RegionOff } else { Trouble::NoCredentials };
            let said = failure::sentence(&code, &said);
            (trouble, Hope::Lasting, format!("AWS refuses the broker's own credentials: {said}"))
        }
    };
    ChainError { link: LINKS[0], trouble, what, hope, source: failure::request(error) }
}

fn authority_fix(authorities: &str, fixed: Option<&FixedCluster>) -> String {
    let source = if fixed.is_some() { "certificate_authority of the target" } else { "DescribeCluster" };
    let renewal = if fixed.is_some() {
        "take the cluster's new bundle, or leave endpoint and certificate_authority out"
    } else {
        "check that the endpoint is this cluster's"
    };
    format!(
        "the endpoint's certificate must be signed by what {source} names ({authorities}): {renewal}; if something in between ends TLS (a proxy, a firewall), let the endpoint through"
    )
}

const TOKEN_FIX: &str = "leave out session tags and the session policy, switch off the tags that a pod identity passes on \
                         (disableSessionTags), or assume a role whose sessions carry less";

pub(super) const STS_FIX: &str = "STS cannot be reached or refuses: check the region of the target, the way out of the broker's network \
                       (NAT, or a VPC endpoint for STS), and the machine's clock";

const EKS_FIX: &str = "EKS cannot be reached: check the way out of the broker's network (NAT, or a VPC endpoint for EKS), or \
                       configure endpoint and certificate_authority";

const CLOCK_FIX: &str = "set the clock of the broker's machine (NTP): a token bears its time, and AWS takes none that is off by \
                         five minutes or more";

const REFUSED_FIX: &str = "wait: the cluster's authenticator cannot reach STS, or it does not know the role any more. If it lasts, \
                           look at the role's access entry or its line in aws-auth, which a role that was made anew has lost";

const REGION_FIX: &str =
    "activate STS for that region in the account's settings (IAM, account settings), or use another region";

pub(super) fn lifetime(expiry: Option<SystemTime>) -> String {
    match expiry.and_then(|expiry| expiry.duration_since(SystemTime::now()).ok()) {
        Some(left) => format!("for {} more minutes", left.as_secs() / 60),
        None => "without an end".to_owned(),
    }
}
