//! The API server's time, kept by the `Date` header of its answers.
//!
//! What is decided by time (a submit window, a deadline, a retention) is compared with the times in objects, which the API
//! server wrote. The broker's own clock may be wrong, and two replicas' clocks may differ; this one they share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use http::HeaderMap;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};

/// Follows the API server's clock to about a second; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerClock {
    /// Milliseconds that the server is ahead of this machine.
    ahead: Arc<AtomicI64>,
    is_known: Arc<AtomicBool>,
}

impl ServerClock {
    /// The API server's time now; before its first answer this machine's.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::now()
            .saturating_add(SignedDuration::from_millis(self.ahead.load(Ordering::Relaxed)))
            .unwrap_or(Timestamp::MAX)
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
            let ahead = date.as_millisecond() + 500 - Timestamp::now().as_millisecond();
            // Less than the header can tell is no difference, and an unmoved clock is the steadier one.
            self.ahead.store(if ahead.abs() < 1500 { 0 } else { ahead }, Ordering::Relaxed);
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
    fn nonsense_is_passed_over() {
        let clock = told("yesterday");
        assert!(clock.now().duration_since(Timestamp::now()).abs() < SignedDuration::from_mins(5));
    }
}
