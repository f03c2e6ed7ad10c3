//! When to try again.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::Error;

const FIRST_DELAY: Duration = Duration::from_millis(100);

/// A broker that is away for long is asked every few seconds, so that its return is noticed soon.
const LAST_DELAY: Duration = Duration::from_secs(5);

/// Growing pauses with chance in them, so that many callers do not come back in one moment.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause before the next try: between half and all of a time that doubles, and at least what the broker asked for.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let full = FIRST_DELAY.saturating_mul(1 << self.failures.min(10)).min(LAST_DELAY);
        self.failures = self.failures.saturating_add(1);
        let own = full.mul_f64(rand::random_range(0.5..=1.0));
        asked.map_or(own, |asked| own.max(asked.mul_f64(rand::random_range(1.0..=1.25))))
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Makes a call until it succeeds, its failure is final, or the next try would be later than `retry_for` after the first.
/// No try takes longer than `call_timeout`. The call must be idempotent.
pub(crate) async fn retry<T, F>(
    call_timeout: Duration,
    retry_for: Duration,
    mut call: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let begin = Instant::now();
    let mut backoff = Backoff::default();
    let mut limit = call_timeout;
    loop {
        let error = match within(limit, call()).await {
            Ok(answer) => return Ok(answer),
            Err(error) if !error.is_worth_retrying() => return Err(error),
            Err(error) => error,
        };
        let delay = backoff.next(error.retry_delay);
        let left = retry_for.saturating_sub(begin.elapsed());
        if delay >= left {
            return Err(error.after(begin.elapsed()));
        }
        tracing::debug!(code = %error.code, reason = error.reason, ?delay, "the call is tried again");
        tokio::time::sleep(delay).await;
        limit = call_timeout.min(left.saturating_sub(delay).max(Duration::from_secs(1)));
    }
}

/// A deadline for one network call.
pub(crate) async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Error::timeout(format!("the broker did not answer within {} s", limit.as_secs_f64()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds_and_stay_there() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.next(None)).collect();
        assert!(pauses[0] >= Duration::from_millis(50) && pauses[0] <= Duration::from_millis(100));
        assert!(pauses[1] >= Duration::from_millis(100) && pauses[1] <= Duration::from_millis(200));
        assert!(pauses[39] >= Duration::from_millis(2500) && pauses[39] <= Duration::from_secs(5));
    }

    #[test]
    fn a_pause_is_never_shorter_than_what_the_broker_asked_for() {
        let asked = Duration::from_secs(7);
        let pause = Backoff::default().next(Some(asked));
        assert!(pause >= asked && pause <= Duration::from_millis(8750));
    }
}
