//! How often AWS Batch is asked: one bucket of tokens for all targets of an account and region.
//!
//! An account has 50 calls a second for everybody in it, and nobody says how many are left. So the rate starts low, is halved by an
//! answer that it was too much, and grows slowly while there is none.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// In calls per second.
const START: f64 = 10.0;
/// The account's limit is 50; two replicas and other users of the account have room beside each other.
const MOST: f64 = 20.0;
/// Slow enough for any outage, and still an answer every two seconds.
const LEAST: f64 = 0.5;
/// In calls per second, each second.
const GROWTH: f64 = 0.5;
/// In calls that may go at once after a rest.
const BURST: f64 = 10.0;
/// Calls that were on their way together are told the same thing together: that counts once.
const ONCE_IN: Duration = Duration::from_secs(1);

/// Hands out the right to call.
#[derive(Debug)]
pub(super) struct Limiter {
    bucket: Mutex<Bucket>,
    /// Held while somebody waits, on purpose: whoever came first goes first.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
    halved: Option<Instant>,
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = BURST.min(self.tokens + self.rate * seconds);
        self.rate = MOST.min(self.rate + GROWTH * seconds);
    }
}

impl Limiter {
    pub(super) fn new() -> Self {
        let bucket = Bucket { rate: START, tokens: BURST, filled: Instant::now(), halved: None };
        Self { bucket: Mutex::new(bucket), turn: tokio::sync::Mutex::default() }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to make one call.
    pub(super) async fn take(&self) {
        let _turn = self.turn.lock().await;
        while let Some(wait) = self.try_take() {
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait, or nothing if the right was had.
    fn try_take(&self) -> Option<Duration> {
        let mut bucket = self.bucket();
        bucket.fill(Instant::now());
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return None;
        }
        let seconds = (1.0 - bucket.tokens) / bucket.rate;
        // No wait is shorter than what a timer can tell.
        Some(Duration::from_secs_f64(seconds).max(Duration::from_millis(1)))
    }

    /// AWS Batch said that it was too much.
    pub(super) fn throttled(&self) {
        let now = Instant::now();
        let mut bucket = self.bucket();
        bucket.fill(now);
        if bucket.halved.is_none_or(|halved| now.saturating_duration_since(halved) >= ONCE_IN) {
            bucket.rate = LEAST.max(bucket.rate / 2.0);
            bucket.tokens = 0.0;
            bucket.halved = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn calls_in(limiter: &Limiter, time: Duration) -> u32 {
        let end = Instant::now() + time;
        let mut calls = 0;
        while tokio::time::timeout_at(end, limiter.take()).await.is_ok() {
            calls += 1;
        }
        calls
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_starts_at_ten_and_grows_to_twenty_a_second() {
        let limiter = Limiter::new();
        let first = calls_in(&limiter, Duration::from_secs(1)).await;
        assert!((18..=22).contains(&first), "ten at once and ten in a second, not {first}");
        calls_in(&limiter, Duration::from_secs(30)).await;
        let later = calls_in(&limiter, Duration::from_secs(10)).await;
        assert!((190..=210).contains(&later), "{later}");
    }

    #[tokio::test(start_paused = true)]
    async fn too_much_halves_it_once_for_all_that_were_on_their_way() {
        let limiter = Limiter::new();
        calls_in(&limiter, Duration::from_mins(1)).await;
        for _ in 0..30 {
            limiter.throttled();
        }
        let calls = calls_in(&limiter, Duration::from_secs(1)).await;
        assert!((8..=12).contains(&calls), "{calls}");
        for _ in 0..20 {
            tokio::time::sleep(ONCE_IN).await;
            limiter.throttled();
        }
        let calls = calls_in(&limiter, Duration::from_secs(4)).await;
        assert!((2..=10).contains(&calls), "{calls}");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(calls_in(&limiter, Duration::from_secs(10)).await >= 190, "it recovers");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_came_first_goes_first() {
        let limiter = Arc::new(Limiter::new());
        calls_in(&limiter, Duration::from_millis(1)).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting: Vec<_> = (0..5)
            .map(|number| {
                let (limiter, order) = (Arc::clone(&limiter), Arc::clone(&order));
                async move {
                    limiter.take().await;
                    order.lock().unwrap().push(number);
                }
            })
            .collect();
        futures::future::join_all(waiting).await;
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    }
}
