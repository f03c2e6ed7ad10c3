//! Who owns an execution: the submit that created it, or the last one that attached to it.
//!
//! The claimants of a member of a group stand in an annotation of its first pod, oldest first; each is written with the version
//! of the object as precondition, so that the last one wins durably. A claimant is the hash of the address that its own submit
//! would have had: a repeated submit finds itself there, and does not take the claim back from somebody later.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use super::clock::add;
use super::view::View;

/// A create that was sent just before `submit_before` may arrive this much later: the deadline of the request, and the
/// difference of two clocks. Nothing is deleted before, so that it meets its object.
pub(super) const CREATE_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// So long after an execution was superseded it is not deleted. The create of its successor is sent within `BASIS_LIFE` of that
/// and arrives `CREATE_SKEW` later at the latest; until then the name of the successor must not be free to be made from
/// another state of the group.
const SUPERSEDED_GRACE: SignedDuration = SignedDuration::from_secs(120);

/// More than any execution has; an annotation has an end too.
const MAX_CLAIMS: usize = 100;

/// What a member of a group has beyond other executions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Membership {
    /// The hash of the group's address.
    pub(super) group: String,
    /// From 1; the next one takes the place of this.
    pub(super) generation: u32,
    /// Who attached to it.
    pub(super) claims: Claims,
    /// A submit was about to start the next one.
    pub(super) superseded: Option<Timestamp>,
}

/// Those who attached to an execution, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Claims(Vec<Claimant>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Claimant {
    hash: String,
    /// The end of its submit window, in seconds since 1970. Until then it may repeat its submit.
    until: i64,
}

impl Claims {
    fn contains(&self, hash: &str) -> bool {
        self.0.iter().any(|claimant| claimant.hash == hash)
    }

    /// With one more. `None` when there are too many that may still repeat their submit.
    pub(super) fn with(&self, hash: &str, submit_before: Timestamp, now: Timestamp) -> Option<Self> {
        let mut claims = self.0.clone();
        while claims.len() >= MAX_CLAIMS {
            let over = now.saturating_sub(CREATE_SKEW).unwrap_or(Timestamp::MIN).as_second();
            let oldest = claims.iter().position(|claimant| claimant.until < over)?;
            claims.remove(oldest);
        }
        // Rounded up, so that it is not shorter than the window.
        claims.push(Claimant { hash: hash.to_owned(), until: submit_before.as_second().saturating_add(1) });
        Some(Self(claims))
    }
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Claimant { hash, until }) in self.0.iter().enumerate() {
            write!(f, "{}{hash}/{until}", if index > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Claims {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let claimant = |text: &str| {
            let (hash, until) = text.split_once('/')?;
            Some(Claimant { hash: hash.to_owned(), until: until.parse().ok()? })
        };
        let claims: Option<_> = text.split_ascii_whitespace().map(claimant).collect();
        claims.map(Self).ok_or("the annotation with the claims is damaged")
    }
}

/// The claim of whoever holds the execution now; `first` is its first pod.
pub(super) fn held(first: &View) -> String {
    let last = first.membership.as_ref().and_then(|membership| membership.claims.0.last());
    token(first, last.map(|claimant| claimant.hash.as_str()))
}

/// The claim of the submit with this hash, if it attached to the execution.
pub(super) fn of_claimant(first: &View, hash: &str) -> Option<String> {
    let membership = first.membership.as_ref()?;
    membership.claims.contains(hash).then(|| token(first, Some(hash)))
}

/// The claim of the submit that created the execution.
pub(super) fn of_creator(first: &View) -> String {
    token(first, None)
}

/// An execution has one first object, so its uid is proof enough that the holder's submit led to it.
fn token(first: &View, claimant: Option<&str>) -> String {
    match claimant {
        None => format!("1.{}", first.uid),
        Some(hash) => format!("1.{}.{hash}", first.uid),
    }
}

/// Until then the object stays, so that a submit that comes late meets it.
pub(super) fn kept_until(view: &View) -> Timestamp {
    let mut until = add(view.submit_before, CREATE_SKEW);
    if let Some(membership) = &view.membership {
        let last = membership.claims.0.iter().map(|claimant| claimant.until).max();
        if let Some(last) = last.and_then(|second| Timestamp::from_second(second).ok()) {
            until = until.max(add(last, CREATE_SKEW));
        }
        if let Some(superseded) = membership.superseded {
            until = until.max(add(superseded, SUPERSEDED_GRACE));
        }
    }
    until
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn claims_survive_writing_and_reading() {
        let claims = Claims::default().with("a", at(5), at(0)).unwrap().with("b", at(6), at(0)).unwrap();
        assert_eq!(claims.to_string(), "a/6 b/7");
        assert_eq!(claims.to_string().parse(), Ok(claims));
        assert_eq!("".parse(), Ok(Claims::default()));
        assert!("a".parse::<Claims>().is_err() && "a/x".parse::<Claims>().is_err());
    }

    #[test]
    fn a_full_list_forgets_only_those_who_cannot_come_again() {
        let mut claims = Claims::default();
        for index in 0..MAX_CLAIMS {
            claims = claims.with(&format!("c{index}"), at(1000), at(0)).unwrap();
        }
        assert_eq!(claims.with("next", at(1000), at(0)), None);
        assert_eq!(claims.with("next", at(1000), at(1050)), None);
        let claims = claims.with("next", at(5000), at(1062)).unwrap();
        assert!(claims.contains("next") && !claims.contains("c0") && claims.contains("c1"));
    }
}
