//! How far the machine's clock is from AWS's, by the `Date` of AWS's answers.
//!
//! The SDK corrects the time of its own signatures by itself and says nothing. A token bears the machine's time, and the
//! cluster answers one that is off by minutes with a 401 that has no reason.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_sts::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_sts::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// STS takes a signature whose time is this far from its own.
const TAKEN: Duration = Duration::from_mins(5);

/// Less is the way of the answer, and no matter.
const NOTED: Duration = Duration::from_mins(1);

/// The machine's clock beside AWS's.
#[derive(Clone, Default)]
pub(super) struct AwsClock(Arc<AtomicI64>);

impl AwsClock {
    pub(super) fn skew(&self) -> Skew {
        Skew(self.0.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for AwsClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AwsClock").field(&self.skew()).finish()
    }
}

impl Intercept for AwsClock {
    fn name(&self) -> &'static str {
        "AwsClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if let Some(date) = context.response().headers().get("date")
            && let Some(skew) = Skew::of(date, SystemTime::now())
        {
            self.0.store(skew.0, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Seconds that AWS is ahead of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skew(i64);

impl Skew {
    fn of(date: &str, now: SystemTime) -> Option<Self> {
        let date = DateTime::from_str(date, Format::HttpDate).ok()?;
        Some(Self(date.secs() - DateTime::from(now).secs()))
    }

    /// Whether AWS and clusters refuse what bears the machine's time.
    pub(super) fn is_too_much(self) -> bool {
        self.0.unsigned_abs() >= TAKEN.as_secs()
    }

    /// In words; nothing while it does not matter.
    pub(super) fn words(self) -> Option<String> {
        let seconds = self.0.unsigned_abs();
        let minutes = (seconds + 30) / 60;
        let plural = if minutes == 1 { "" } else { "s" };
        let side = if self.0 > 0 { "behind" } else { "ahead of" };
        (seconds >= NOTED.as_secs()).then(|| format!("this machine's clock is {minutes} minute{plural} {side} AWS's"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skew(date: &str) -> Skew {
        // 2026-11-20T08:30:15Z.
        Skew::of(date, SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_163_415)).unwrap()
    }

    #[test]
    fn a_clock_that_is_wrong_by_minutes_is_said() {
        assert_eq!(skew("Fri, 20 Nov 2026 08:30:15 GMT").words(), None);
        assert_eq!(skew("Fri, 20 Nov 2026 08:31:00 GMT").words(), None);
        let behind = skew("Fri, 20 Nov 2026 08:50:13 GMT");
        assert_eq!(behind.words().unwrap(), "this machine's clock is 20 minutes behind AWS's");
        assert!(behind.is_too_much());
        let ahead = skew("Fri, 20 Nov 2026 08:29:10 GMT");
        assert_eq!(ahead.words().unwrap(), "this machine's clock is 1 minute ahead of AWS's");
        assert!(!ahead.is_too_much());
    }

    #[test]
    fn what_is_no_date_says_nothing() {
        assert_eq!(Skew::of("yesterday", SystemTime::UNIX_EPOCH), None);
    }
}
