//! The session of a role, for a target's cluster or for the archive's bucket: assumed once, whoever asks; renewed early; never used when it is about to die.
//!
//! The SDK's own provider is not used: it has no source identity, is not cached when it is asked directly, and hands out
//! credentials with seconds left, with which a token would die in seconds too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_sts::error::SdkError;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::types::Tag;
use tokio::sync::Mutex as AsyncMutex;
use tracing::{info, warn};

use super::failure::{self, Failure, Unsigned};
use super::{ChainError, Hope, RoleSettings, Trouble};

/// Renewed when less is left, so that an outage of STS of that length is not noticed by anybody.
const RENEW_BEFORE: Duration = Duration::from_mins(20);

/// Not used when less is left: a token made now must live for a while.
const FLOOR: Duration = Duration::from_mins(2);

/// A session that was just assumed is not to blame for a refusal: a cluster that refuses everything must not make the broker
/// assume the role for every request.
const BLAMELESS: Duration = Duration::from_mins(1);

/// While a renewal fails and the session still lives, it is tried again after so long and not at every request.
const RETRY_AFTER: Duration = Duration::from_secs(15);

/// One session.
pub(super) struct RoleSession {
    sts: aws_sdk_sts::Client,
    base: Option<SharedCredentialsProvider>,
    /// The role; the base credentials themselves without.
    role: Option<RoleSettings>,
    /// What it may do at most.
    policy: Option<String>,
    current: Mutex<Option<Session>>,
    /// Held across AssumeRole, on purpose: five hundred requests on a cold broker assume the role once.
    assuming: AsyncMutex<()>,
}

#[derive(Clone)]
struct Session {
    credentials: Credentials,
    /// The assumed role's ARN, with the session name; empty for base credentials.
    arn: String,
    renew_at: SystemTime,
    made_at: SystemTime,
}

impl Session {
    fn is_alive(&self, now: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|expiry| expiry > now + FLOOR)
    }
}

impl RoleSession {
    pub(super) fn new(
        aws: &SdkConfig,
        sts: aws_sdk_sts::Client,
        role: Option<RoleSettings>,
        policy: Option<String>,
    ) -> Self {
        Self {
            sts,
            base: aws.credentials_provider(),
            role,
            policy,
            current: Mutex::new(None),
            assuming: AsyncMutex::new(()),
        }
    }

    fn current(&self) -> Option<Session> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, session: Option<Session>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// Credentials that live for at least two minutes.
    pub(super) async fn credentials(&self) -> Result<Credentials, ChainError> {
        self.session().await.map(|session| session.credentials)
    }

    /// The session's ARN and its end; for people.
    pub(super) async fn describe(&self) -> Result<(String, Option<SystemTime>), ChainError> {
        self.session().await.map(|session| (session.arn, session.credentials.expiry()))
    }

    /// A cluster refused what was signed with it: the next request assumes the role anew, unless that was just done. While STS
    /// is away the session stays: it may be the cluster that cannot ask STS either.
    pub(super) async fn doubt(&self) {
        let _assuming = self.assuming.lock().await;
        let now = SystemTime::now();
        let is_old = |session: &Session| session.made_at.elapsed().is_ok_and(|age| age > BLAMELESS);
        if let Some(session) = self.current().filter(|session| is_old(session) && now < session.renew_at) {
            self.set(Some(Session { renew_at: now, ..session }));
        }
    }

    async fn session(&self) -> Result<Session, ChainError> {
        if let Some(session) = self.fresh() {
            return Ok(session);
        }
        let _assuming = self.assuming.lock().await;
        if let Some(session) = self.fresh() {
            return Ok(session);
        }
        let made = match &self.role {
            Some(role) => self.assume(role).await,
            None => self.base_credentials().await,
        };
        match made {
            Ok(session) => {
                self.set(Some(session.clone()));
                Ok(session)
            }
            Err(error) => match self.current() {
                Some(mut session) if session.is_alive(SystemTime::now()) => {
                    warn!(error = &error as &dyn std::error::Error, "the role session could not be renewed yet");
                    session.renew_at = SystemTime::now() + RETRY_AFTER;
                    self.set(Some(session.clone()));
                    Ok(session)
                }
                _ => Err(error),
            },
        }
    }

    fn fresh(&self) -> Option<Session> {
        let now = SystemTime::now();
        self.current().filter(|session| now < session.renew_at && session.is_alive(now))
    }

    async fn base_credentials(&self) -> Result<Session, ChainError> {
        let missing = || failure::without_base(Unsigned::Missing("none are configured".to_owned()));
        let provider = self.base.as_ref().ok_or_else(missing)?;
        let came = provider.provide_credentials().await;
        let credentials = came.map_err(|error| failure::without_base(failure::of_credentials(&error)))?;
        let now = SystemTime::now();
        let renew_at = renew_at(now, credentials.expiry());
        Ok(Session { credentials, arn: String::new(), renew_at, made_at: now })
    }

    async fn assume(&self, role: &RoleSettings) -> Result<Session, ChainError> {
        let tags = role.tags.iter().map(|(key, value)| {
            Tag::builder().key(key).value(value).build().map_err(|error| ChainError {
                link: "role",
                trouble: Trouble::Request,
                what: "a session tag is not valid".to_owned(),
                hope: Hope::Lasting,
                source: Some(error.into()),
            })
        });
        let tags = tags.collect::<Result<Vec<_>, _>>()?;
        let seconds = i32::try_from(role.duration.as_secs()).unwrap_or(3600);
        let answer = self
            .sts
            .assume_role()
            .role_arn(&role.arn)
            .role_session_name(&role.session_name)
            .set_external_id(role.external_id.clone())
            .set_source_identity(role.source_identity.clone())
            .set_tags((!tags.is_empty()).then_some(tags))
            .set_policy(self.policy.clone())
            .duration_seconds(seconds)
            .send()
            .await
            .map_err(|error| assume_error(role, &error))?;
        let now = SystemTime::now();
        let broken = |what: &str| ChainError {
            link: "role",
            trouble: Trouble::StsAway,
            what: what.to_owned(),
            hope: Hope::Passing,
            source: None,
        };
        let keys = answer.credentials().ok_or_else(|| broken("STS gave no credentials"))?;
        let expiry = SystemTime::try_from(*keys.expiration()).map_err(|_| broken("STS gave no expiry"))?;
        let credentials = Credentials::new(
            keys.access_key_id(),
            keys.secret_access_key(),
            Some(keys.session_token().to_owned()),
            Some(expiry),
            "podbroker",
        );
        let arn = answer.assumed_role_user().map(|user| user.arn().to_owned()).unwrap_or_default();
        info!(role = role.arn, session = arn, "assumed the role");
        Ok(Session { credentials, arn, renew_at: renew_at(now, Some(expiry)), made_at: now })
    }
}

/// When to renew: well before the end, but not at once where sessions are short.
fn renew_at(now: SystemTime, expiry: Option<SystemTime>) -> SystemTime {
    let Some(expiry) = expiry else {
        // Credentials without an end may still be changed, by whoever wrote them into the environment or a file.
        return now + Duration::from_hours(1);
    };
    let life = expiry.duration_since(now).unwrap_or_default();
    expiry - RENEW_BEFORE.min(life / 3)
}

fn assume_error(role: &RoleSettings, error: &SdkError<AssumeRoleError>) -> ChainError {
    let arn = &role.arn;
    let (code, said) = match failure::of_call(error) {
        Failure::Unsigned(unsigned) => return failure::without_base(unsigned),
        Failure::Away(why) => {
            let what = format!("STS does not answer for {arn}: {why}");
            return ChainError {
                link: "role",
                trouble: Trouble::StsAway,
                what,
                hope: Hope::Passing,
                source: failure::request(error),
            };
        }
        Failure::Refused { code, said } => (code, said),
    };
    let (link, trouble, what) = match code.as_str() {
        // What is missing has no code of its own.
        "AccessDenied" => {
            let trouble = match &said {
                said if said.contains("sts:TagSession") => Trouble::Tags,
                said if said.contains("sts:SetSourceIdentity") => Trouble::SourceIdentity,
                _ => Trouble::Trust,
            };
            ("role", trouble, format!("not allowed to assume {arn}: {said}"))
        }
        "InvalidClientTokenId" | "UnrecognizedClientException" | "SignatureDoesNotMatch" => (
            "workload-identity",
            Trouble::NoCredentials,
            format!("AWS does not know the broker's own credentials: {said}"),
        ),
        "ExpiredToken" | "ExpiredTokenException" => {
            ("workload-identity", Trouble::NoCredentials, format!("the broker's own credentials have expired: {said}"))
        }
        "RegionDisabledException" => {
            ("role", Trouble::RegionOff, format!("STS is switched off in the region for that account: {said}"))
        }
        "PackedPolicyTooLarge" | "PackedPolicyTooLargeException" | "MalformedPolicyDocument" | "ValidationError" => {
            ("role", Trouble::Request, format!("STS refuses the request for {arn}: {said}"))
        }
        _ => ("role", Trouble::Request, format!("STS refuses to assume {arn}: {}", failure::sentence(&code, &said))),
    };
    ChainError { link, trouble, what, hope: Hope::Lasting, source: failure::request(error) }
}

/// The session for the SDK's clients.
pub(super) struct SessionProvider(pub(super) Arc<RoleSession>);

impl std::fmt::Debug for SessionProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionProvider")
    }
}

impl ProvideCredentials for SessionProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.0.credentials().await.map_err(CredentialsError::provider_error) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_renewed_well_before_its_end_but_not_at_once() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(renew_at(now, Some(now + Duration::from_hours(1))), now + Duration::from_mins(40));
        assert_eq!(renew_at(now, Some(now + Duration::from_mins(15))), now + Duration::from_mins(10));
        assert!(renew_at(now, None) > now);
    }
}
