//! Another attempt after an end through no fault of the application: the policy and its limits.
//!
//! An attempt that has started no container has done nothing, so another one is free of side effects; how many there may be
//! is bounded all the same. After one that has started a container another one repeats work, and the caller must want that.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::spec::in_range;
use super::{FailureClass, PolicyError};

/// What a caller may name. Other classes are the application's, the caller's or the broker's own doing.
const RETRYABLE: [FailureClass; 8] = [
    FailureClass::Evicted,
    FailureClass::Preempted,
    FailureClass::SpotInterrupted,
    FailureClass::NodeLost,
    FailureClass::StartDeadline,
    FailureClass::ImagePull,
    FailureClass::Unschedulable,
    FailureClass::PodDeleted,
];

/// What is taken when nothing is named: the infrastructure took the pod away. Not among them are a start that took too long,
/// since the deadline would count anew, and a deletion, since somebody wanted it.
const DEFAULT_CLASSES: [FailureClass; 4] =
    [FailureClass::Evicted, FailureClass::Preempted, FailureClass::SpotInterrupted, FailureClass::NodeLost];

/// More than anybody needs, and few enough for the objects of one execution.
const ATTEMPTS: RangeInclusive<u32> = 1..=20;
const DEFAULT_ATTEMPTS: u32 = 1;
const DEFAULT_FREE_ATTEMPTS: u32 = 5;
const BACKOFF: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);
const DEFAULT_BACKOFF: Duration = Duration::from_secs(10);

/// The policy as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct InfraRetryRequest {
    /// Which classes start another attempt; empty for the default.
    pub classes: Vec<FailureClass>,
    /// How many there may be in all once a container has started.
    pub max_attempts: Option<u32>,
    /// How many there may be in all while none has.
    pub max_free_attempts: Option<u32>,
    /// The pause before the next one.
    pub backoff: Option<Duration>,
}

/// The policy with every default resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InfraRetry {
    /// Which classes start another attempt.
    pub classes: Vec<FailureClass>,
    /// How many there may be in all once a container has started.
    pub max_attempts: u32,
    /// How many there may be in all while none has.
    pub max_free_attempts: u32,
    /// The pause before the next one, from the end of the last.
    pub backoff: Duration,
}

/// Whether an execution can have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// No attempt has started a container.
    None,
    /// One has, or may have.
    Possible,
}

impl InfraRetryRequest {
    /// Applies the defaults and checks the ranges of the contract.
    pub fn resolve(&self) -> Result<InfraRetry, PolicyError> {
        if let Some(class) = self.classes.iter().find(|class| !RETRYABLE.contains(class)) {
            let why = format!("{class:?} is not among the classes that may start another attempt");
            return Err(PolicyError { field: "policies.infra_retry.failure_classes", why });
        }
        let attempts = |field, value: Option<u32>| match value {
            Some(value) if !ATTEMPTS.contains(&value) => {
                Err(PolicyError { field, why: format!("must be {} to {}", ATTEMPTS.start(), ATTEMPTS.end()) })
            }
            value => Ok(value),
        };
        let max_attempts = attempts("policies.infra_retry.max_attempts", self.max_attempts)?;
        let max_attempts = max_attempts.unwrap_or(DEFAULT_ATTEMPTS);
        let max_free_attempts = attempts("policies.infra_retry.max_free_attempts", self.max_free_attempts)?;
        let mut classes = self.classes.clone();
        if classes.is_empty() {
            classes.extend(DEFAULT_CLASSES);
        }
        let backoff = in_range("policies.infra_retry.backoff", self.backoff, BACKOFF)?;
        Ok(InfraRetry {
            classes,
            max_attempts,
            max_free_attempts: max_free_attempts.unwrap_or_else(|| DEFAULT_FREE_ATTEMPTS.max(max_attempts)),
            backoff: backoff.unwrap_or(DEFAULT_BACKOFF),
        })
    }
}

impl InfraRetry {
    /// Whether another attempt follows one of this class, when so many were made.
    pub fn allows(&self, class: FailureClass, made: u32, effect: Effect) -> bool {
        let limit = match effect {
            Effect::None => self.max_free_attempts,
            Effect::Possible => self.max_attempts,
        };
        self.classes.contains(&class) && made < limit
    }
}

/// Another attempt was due and cannot be made. Written into the object, so that every replica reads the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedAttempt {
    /// Its number.
    pub number: u32,
    /// How the execution ended by that; without one the end of the attempt before stands.
    pub class: Option<FailureClass>,
    /// Why, for a person.
    pub message: String,
    /// When, by the API server's clock.
    pub at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_free_while_no_container_has_started_and_nothing_after() {
        let policy = InfraRetryRequest::default().resolve().unwrap();
        assert!(policy.allows(FailureClass::Evicted, 1, Effect::None));
        assert!(policy.allows(FailureClass::NodeLost, 4, Effect::None));
        assert!(!policy.allows(FailureClass::Evicted, 5, Effect::None));
        assert!(!policy.allows(FailureClass::Evicted, 1, Effect::Possible));
        for class in [FailureClass::Application, FailureClass::StartDeadline, FailureClass::PodDeleted] {
            assert!(!policy.allows(class, 1, Effect::None), "{class:?}");
        }
    }

    #[test]
    fn a_caller_that_wants_more_attempts_gets_as_many_free_ones() {
        let policy = InfraRetryRequest { max_attempts: Some(8), ..InfraRetryRequest::default() }.resolve().unwrap();
        assert!(policy.allows(FailureClass::Evicted, 7, Effect::Possible));
        assert!(policy.allows(FailureClass::Evicted, 7, Effect::None));
        assert!(!policy.allows(FailureClass::Evicted, 8, Effect::Possible));
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_its_field() {
        let cases = [
            (InfraRetryRequest { max_attempts: Some(21), ..Default::default() }, "max_attempts"),
            (InfraRetryRequest { max_free_attempts: Some(21), ..Default::default() }, "max_free_attempts"),
            (InfraRetryRequest { backoff: Some(Duration::from_hours(2)), ..Default::default() }, "backoff"),
            (InfraRetryRequest { classes: vec![FailureClass::Application], ..Default::default() }, "failure_classes"),
            (
                InfraRetryRequest { classes: vec![FailureClass::CancelledByCaller], ..Default::default() },
                "failure_classes",
            ),
        ];
        for (request, field) in cases {
            assert_eq!(request.resolve().unwrap_err().field, format!("policies.infra_retry.{field}"));
        }
    }
}
