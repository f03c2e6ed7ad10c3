//! Walks the AWS part of the chain for a person: who we are at each link, or what is broken and what to do.

use std::time::SystemTime;

use aws_sdk_sts::error::DisplayErrorContext;

use super::{Chain, ChainError, CredentialsMode};

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
    fn held(name: &'static str, detail: String) -> Self {
        Self { name, detail, fix: None }
    }

    fn broken(name: &'static str, detail: String, fix: String) -> Self {
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
            links.push(Link::broken("token", short(&error.what), TOKEN_FIX.to_owned()));
        }
        links
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
        match aws_sdk_sts::Client::new(&self.aws).get_caller_identity().send().await {
            Ok(answer) => Link::held(name, format!("AWS knows the broker as {}", answer.arn().unwrap_or("nobody"))),
            Err(error) => {
                let text = DisplayErrorContext(&error).to_string();
                let fix = if text.contains("RegionDisabled") {
                    REGION_FIX
                } else if text.contains("credential") {
                    self.mode.hint()
                } else {
                    STS_FIX
                };
                Link::broken(name, short(&text), fix.to_owned())
            }
        }
    }

    async fn role(&self) -> Link {
        let name = LINKS[1];
        let Some(role) = &self.settings.role else {
            return Link::held(name, "no role is configured: the broker's own identity is used".to_owned());
        };
        match self.session.describe().await {
            Ok((arn, expiry)) => Link::held(name, format!("assumed {arn}, {}", lifetime(expiry))),
            Err(error) => {
                let fix = role_fix(&error.what, &role.arn);
                Link::broken(error.link, told(&error), fix)
            }
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
            Err(error) => {
                let fix = cluster_fix(&error, &self.settings.cluster, &self.settings.region);
                Link::broken(error.link, told(&error), fix)
            }
        }
    }
}

const TOKEN_FIX: &str = "leave out session tags and the session policy, switch off the tags that a pod identity passes on \
                         (disableSessionTags), or assume a role whose sessions carry less";

const STS_FIX: &str = "STS cannot be reached or refuses: check the region of the target, the way out of the broker's network \
                       (NAT, or a VPC endpoint for STS), and the machine's clock";

const REGION_FIX: &str =
    "activate STS for that region in the account's settings (IAM, account settings), or use another region";

fn role_fix(what: &str, arn: &str) -> String {
    if what.contains("sts:TagSession") {
        format!(
            "allow sts:TagSession beside sts:AssumeRole in the trust policy of {arn}: the session carries tags, and tags that a pod identity adds count too"
        )
    } else if what.contains("sts:SetSourceIdentity") {
        format!("allow sts:SetSourceIdentity in the trust policy of {arn}, or leave source_identity out of the target")
    } else if what.contains("not allowed to assume") {
        format!(
            "let the trust policy of {arn} name the broker's identity, with the same external id if it asks for one, and let the broker's own policy allow sts:AssumeRole on it"
        )
    } else if what.contains("switched off") {
        REGION_FIX.to_owned()
    } else if what.contains("credentials") {
        CredentialsMode::Chain.hint().to_owned()
    } else if what.contains("does not answer") {
        STS_FIX.to_owned()
    } else {
        format!("mend what STS names in the settings of the target or of the role {arn}")
    }
}

fn cluster_fix(error: &ChainError, cluster: &str, region: &str) -> String {
    if error.what.contains("not allowed to describe") {
        format!(
            "allow eks:DescribeCluster on the cluster {cluster} in the role's permission policy; a session policy or a boundary may take it away too"
        )
    } else if error.what.contains("there is no cluster") {
        format!("check the name {cluster}, the region {region} and the account of the role")
    } else if error.what.contains("not ACTIVE") {
        "wait until the cluster is ACTIVE, or create it anew if it has failed".to_owned()
    } else if error.what.contains("does not answer") {
        "EKS cannot be reached: check the way out of the broker's network (NAT, or a VPC endpoint for EKS), or configure endpoint and certificate_authority".to_owned()
    } else if error.link == "role" {
        role_fix(&error.what, cluster)
    } else {
        "check the cluster's endpoint and certificate authority".to_owned()
    }
}

fn lifetime(expiry: Option<SystemTime>) -> String {
    match expiry.and_then(|expiry| expiry.duration_since(SystemTime::now()).ok()) {
        Some(left) => format!("for {} more minutes", left.as_secs() / 60),
        None => "without an end".to_owned(),
    }
}

fn told(error: &ChainError) -> String {
    match &error.source {
        Some(source) if error.what.contains("does not answer") => short(&format!("{}: {source}", error.what)),
        _ => short(&error.what),
    }
}

/// What AWS's library says of an error goes on for pages.
fn short(text: &str) -> String {
    text.chars().take(400).collect()
}
