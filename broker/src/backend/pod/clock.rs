//! The API server's time, kept by the `Date` header of its answers.
//!
//! What is decided by time (a submit window, a deadline, a retention) is compared with the times in objects, which the API
//! server wrote. The broker's own clock may be wrong, and two replicas' clocks may differ; this one they share. Between two
//! answers it goes on by the machine's monotonic clock: nobody sets that one, so no step of the machine's time ends anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Instant;

use http::HeaderMap;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};

/// Follows the API server's clock to about a second; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ServerClock {
    /// This machine's time when the clock was made, and since when that is.
    begin: Timestamp,
    running_since: Instant,
    /// Milliseconds that the server is ahead of what has become of that.
    ahead: Arc<AtomicI64>,
    is_known: Arc<AtomicBool>,
}

impl Default for ServerClock {
    fn default() -> Self {
        Self::begun_at(Timestamp::now())
    }
}

impl ServerClock {
    fn begun_at(begin: Timestamp) -> Self {
        let (ahead, is_known) = (Arc::default(), Arc::default());
        Self { begin, running_since: Instant::now(), ahead, is_known }
    }

    /// The API server's time now; before its first answer this machine's.
    pub(super) fn now(&self) -> Timestamp {
        self.own()
            .saturating_add(SignedDuration::from_millis(self.ahead.load(Ordering::Relaxed)))
            .unwrap_or(Timestamp::MAX)
    }

    fn own(&self) -> Timestamp {
        let running = SignedDuration::try_from(self.running_since.elapsed()).unwrap_or(SignedDuration::MAX);
        add(self.begin, running)
    }

    /// Whether the server has answered.
    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Takes note of an answer.
    pub(super) fn learn(&self, headers: &HeaderMap) {
        let date = headers.get(http::header::DATE).and_then(|value| value.to_str().ok());
        // RFC 9110 dates end in the obsolete zone name GMT, which RFC 2822 allows too.
        if let Some(date) = date.and_then(|text| DateTimeParser::new().parse_timestamp(text).ok()) {
            // The header says whole seconds, cut off; half a second more is right on average.
            let ahead = date.as_millisecond() + 500 - self.own().as_millisecond();
            // Less than the header can tell is no difference, and an unmoved clock is the steadier one.
            let known = self.ahead.load(Ordering::Relaxed);
            if ahead.abs_diff(known) >= 1500 {
                self.ahead.store(ahead, Ordering::Relaxed);
            }
            self.is_known.store(true, Ordering::Relaxed);
        }
    }
}

/// A moment later by so much, or the last one there is.
pub(super) fn add(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(date: &str) -> ServerClock {
        let clock = ServerClock::default();
        let mut headers = HeaderMap::new();
        headers.insert(http::header::DATE, date.parse().unwrap());
        clock.learn(&headers);
        clock
    }

    #[test]
    fn the_servers_date_counts_and_not_ours() {
        let now = told("Sun, 06 Nov 1994 08:49:37 GMT").now();
        let said: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        assert!(now.duration_since(said).abs() < SignedDuration::from_mins(5), "{now}");
        assert!(told("Sun, 06 Nov 1994 08:49:37 GMT").is_known() && !ServerClock::default().is_known());
    }

    #[test]
    fn a_wrong_time_of_this_machine_is_set_right_and_small_differences_are_none() {
        let clock = ServerClock::begun_at("2020-01-01T00:00:00Z".parse().unwrap());
        let learn = |date: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::DATE, date.parse().unwrap());
            clock.learn(&headers);
            clock.ahead.load(Ordering::Relaxed)
        };
        assert_eq!(learn("Wed, 01 Jan 2020 00:00:00 GMT"), 0);
        let far = learn("Wed, 01 Jan 2020 01:00:00 GMT");
        assert!((3_500_000..=3_600_500).contains(&far), "{far}");
        assert_eq!(learn("Wed, 01 Jan 2020 01:00:01 GMT"), far);
    }

    #[test]
    fn nonsense_is_passed_over() {
        let clock = told("yesterday");
        assert!(clock.now().duration_since(Timestamp::now()).abs() < SignedDuration::from_mins(5));
    }
}
