//! Whether a cluster that refuses a fresh token may take one again later.
//!
//! A cluster's verifier asks STS about each token, and answers the same 401 when STS does not answer it. So a 401 to a role
//! that was taken before is an outage until it has gone on for too long; a role that was never taken is refused.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Hope;

/// How long 401s are taken for an outage: as long as a submit waits by default, so that callers wait for it as for any other.
/// An access entry that somebody takes away is told as such after it.
const PATIENCE: Duration = Duration::from_mins(10);

/// What a cluster has made of one target's role so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Standing {
    /// No token was taken yet.
    #[default]
    Unknown,
    /// The last token was taken.
    Taken,
    /// Tokens were taken before; fresh ones are refused since.
    Refused(Instant),
}

impl Standing {
    fn refused(self, now: Instant) -> (Self, Hope) {
        match self {
            Self::Unknown => (Self::Unknown, Hope::Lasting),
            Self::Taken => (Self::Refused(now), Hope::Passing),
            Self::Refused(since) if now.saturating_duration_since(since) < PATIENCE => (self, Hope::Passing),
            Self::Refused(_) => (self, Hope::Lasting),
        }
    }
}

/// The standing of a target's role, shared by all its requests.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<Standing>);

impl Record {
    /// A request was carried out.
    pub(super) fn taken(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Standing::Taken;
    }

    /// A fresh token was answered with 401; says whether that may pass.
    pub(super) fn refused(&self) -> Hope {
        let mut standing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, hope) = standing.refused(Instant::now());
        *standing = next;
        hope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_was_never_taken_is_refused_at_once() {
        assert_eq!(Standing::Unknown.refused(Instant::now()), (Standing::Unknown, Hope::Lasting));
    }

    #[test]
    fn a_role_that_was_taken_is_refused_only_after_a_while() {
        let begin = Instant::now();
        let (first, hope) = Standing::Taken.refused(begin);
        assert_eq!((first, hope), (Standing::Refused(begin), Hope::Passing));
        let (still, hope) = first.refused(begin + PATIENCE / 2);
        assert_eq!((still, hope), (Standing::Refused(begin), Hope::Passing));
        let (over, hope) = still.refused(begin + PATIENCE);
        assert_eq!((over, hope), (Standing::Refused(begin), Hope::Lasting));
    }

    #[test]
    fn a_token_that_is_taken_ends_an_outage() {
        let record = Record::default();
        assert_eq!(record.refused(), Hope::Lasting);
        record.taken();
        assert_eq!(record.refused(), Hope::Passing);
        assert_eq!(record.refused(), Hope::Passing);
        record.taken();
        assert_eq!(*record.0.lock().unwrap(), Standing::Taken);
    }
}
