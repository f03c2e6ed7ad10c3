//! Who the broker is to AWS before it assumes anything.
//!
//! The mode is explicit. The SDK's own chain falls through silently from a missing web identity to the node's role, which then
//! gets all the rights that were meant for a workload; here a mode that does not find its credentials says so.

use aws_config::Region;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::provider::SharedCredentialsProvider;

/// Where the base credentials come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CredentialsMode {
    /// The first of environment, profile, web identity and container that has any. Never the node's role.
    #[default]
    Chain,
    /// A service account's web identity (`AWS_ROLE_ARN`, `AWS_WEB_IDENTITY_TOKEN_FILE`).
    Irsa,
    /// EKS Pod Identity (`AWS_CONTAINER_CREDENTIALS_FULL_URI`).
    PodIdentity,
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
    Env,
    /// The instance metadata service: the node's role.
    Imds,
}

impl CredentialsMode {
    /// What to look at when it has no credentials.
    pub(in crate::identity) fn hint(self) -> &'static str {
        match self {
            Self::Chain => {
                "give the broker's pod a workload identity (a service account with an IAM role, or a pod identity \
                 association), or set AWS_ACCESS_KEY_ID; the node's role is used only with credentials = \"imds\""
            }
            Self::Irsa => {
                "annotate the broker's service account with eks.amazonaws.com/role-arn and restart its pod: AWS_ROLE_ARN and \
                 AWS_WEB_IDENTITY_TOKEN_FILE must be set, and the role must trust the cluster's OIDC provider for that account"
            }
            Self::PodIdentity => {
                "make a pod identity association for the broker's service account, check that the agent runs on the node, \
                 and restart the pod"
            }
            Self::Env => "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary keys, AWS_SESSION_TOKEN",
            Self::Imds => "attach an instance profile to the node, and allow pods to reach the metadata service",
        }
    }
}

pub(super) fn provider(mode: CredentialsMode, region: Region, timeouts: TimeoutConfig) -> SharedCredentialsProvider {
    let config = ProviderConfig::without_region().with_region(Some(region)).with_timeout_config(timeouts);
    let web_identity = || WebIdentityTokenCredentialsProvider::builder().configure(&config).build();
    let container = || EcsCredentialsProvider::builder().configure(&config).build();
    match mode {
        CredentialsMode::Irsa => SharedCredentialsProvider::new(web_identity()),
        CredentialsMode::PodIdentity => SharedCredentialsProvider::new(container()),
        CredentialsMode::Env => SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new()),
        CredentialsMode::Imds => {
            SharedCredentialsProvider::new(ImdsCredentialsProvider::builder().configure(&config).build())
        }
        CredentialsMode::Chain => SharedCredentialsProvider::new(
            CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new())
                .or_else("Profile", ProfileFileCredentialsProvider::builder().configure(&config).build())
                .or_else("WebIdentityToken", web_identity())
                .or_else("Container", container()),
        ),
    }
}
