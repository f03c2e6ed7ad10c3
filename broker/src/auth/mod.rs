//! Who asks: turns what a request carries into a verified [`Caller`].
//!
//! Nothing is allowed by default. A caller has a subject (for logs and annotations), a tenant (whose executions it can see)
//! and the targets it may use; all three come from the configuration and none from the request. A listener without
//! tokens knows one caller, its own machine; `server` refuses to open such a listener to others.

mod token;

use std::collections::BTreeSet;

use subtle::ConstantTimeEq as _;

use crate::error::Error;
use crate::execution::{TargetName, Tenant};

pub use token::{Token, TokenDigest, TokenDigestError};

/// The subject of every caller on a listener that is open to its own machine.
pub const LOCAL_SUBJECT: &str = "local";
const LOCAL_TENANT: &str = "default";

/// A verified caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is, for people.
    pub subject: String,
    /// Whose executions it can see and make.
    pub tenant: Tenant,
    /// Where it may run something.
    pub targets: AllowedTargets,
}

/// The targets that a caller may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedTargets {
    /// Each one, also those that are configured later.
    All,
    /// These, and no other.
    Only(BTreeSet<TargetName>),
}

impl AllowedTargets {
    /// Whether a target is among them.
    pub fn contains(&self, target: &TargetName) -> bool {
        match self {
            Self::All => true,
            Self::Only(targets) => targets.contains(target),
        }
    }
}

impl Caller {
    /// The one caller of a listener that is open to its own machine.
    #[expect(clippy::missing_panics_doc, reason = "a constant")]
    pub fn local() -> Self {
        let tenant = LOCAL_TENANT.parse().expect("a constant DNS label");
        Self { subject: LOCAL_SUBJECT.to_owned(), tenant, targets: AllowedTargets::All }
    }
}

/// How callers are verified.
#[derive(Debug, Clone)]
pub enum Authenticator {
    /// Whoever reaches the listener is the machine's own user.
    Open,
    /// A bearer token, of which only the digest is known here.
    Tokens(Vec<(TokenDigest, Caller)>),
}

impl Authenticator {
    /// The caller behind the `authorization` metadata of a request.
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Caller, Error> {
        match self {
            Self::Open => Ok(Caller::local()),
            Self::Tokens(known) => {
                let value = authorization.ok_or(Error::Unauthenticated {
                    why: "a token is needed: send it as `authorization: Bearer <token>`",
                })?;
                let presented = bearer(value)
                    .ok_or(Error::Unauthenticated { why: "the authorization metadata must be `Bearer <token>`" })?;
                find(known, &TokenDigest::of(presented))
                    .ok_or(Error::Unauthenticated { why: "the token is not known to this broker" })
            }
        }
    }
}

/// The scheme's name is case-insensitive (RFC 9110, section 11.1); the token is taken as it is.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Compares with every known digest, so that the time taken tells nothing about which one is near.
fn find(known: &[(TokenDigest, Caller)], presented: &TokenDigest) -> Option<Caller> {
    known.iter().fold(None, |found, (digest, caller)| {
        let same: bool = digest.as_bytes().ct_eq(presented.as_bytes()).into();
        if same { Some(caller.clone()) } else { found }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> (Token, Authenticator) {
        let token = Token::random();
        let caller = Caller {
            subject: "airflow".to_owned(),
            tenant: "data".parse().unwrap(),
            targets: AllowedTargets::Only(["a".parse().unwrap()].into()),
        };
        let authenticator = Authenticator::Tokens(vec![(token.digest(), caller)]);
        (token, authenticator)
    }

    #[test]
    fn a_known_token_is_its_caller_whatever_the_case_of_the_scheme() {
        let (token, authenticator) = tokens();
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let caller = authenticator.authenticate(Some(&format!("{scheme} {}", token.expose()))).unwrap();
            assert_eq!(caller.subject, "airflow");
        }
    }

    #[test]
    fn anything_else_is_refused_and_never_repeated() {
        let (token, authenticator) = tokens();
        let other = format!("Bearer {}", Token::random().expose());
        let basic = format!("Basic {}", token.expose());
        for value in
            [None, Some(""), Some("Bearer"), Some("Bearer "), Some(token.expose()), Some(&*other), Some(&*basic)]
        {
            let Err(Error::Unauthenticated { why }) = authenticator.authenticate(value) else { panic!("{value:?}") };
            assert!(!why.contains(token.expose()));
        }
    }

    #[test]
    fn no_tokens_at_all_let_nobody_in() {
        assert!(Authenticator::Tokens(Vec::new()).authenticate(Some("Bearer x")).is_err());
    }

    #[test]
    fn a_caller_without_targets_may_use_none() {
        assert!(!AllowedTargets::Only(BTreeSet::new()).contains(&"a".parse().unwrap()));
    }
}
