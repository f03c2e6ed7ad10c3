//! From what a shipper has sent to what the container wrote: pure.
//!
//! Fluent Bit sends its record as JSON, with the line in `log` and, where its parser for the runtime's format was used, the runtime's
//! own time to the nanosecond in `time`. With `log_key log` it sends the line alone; then the event's time is all there is,
//! in milliseconds. Both are told apart by what only a record has: a program may print JSON with a `log` of its own.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::backend::log_group::ShippedEvent;

/// CloudWatch Logs and Fluent Bit take no longer event, so a record that is as long and is no JSON any more was cut. Fluent Bit cuts at
/// 262,118 bytes, with its own words behind them.
/// <https://github.com/fluent/fluent-bit/blob/master/plugins/out_cloudwatch_logs/cloudwatch_api.h>
const LONGEST: usize = 256_000;

/// One thing that was shipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) time: Time,
    /// Lines; more than one where the shipper has joined them.
    pub(super) content: Bytes,
    /// The runtime has cut the line here, and its rest is in the next entry.
    pub(super) is_partial: bool,
    /// The shipper has cut it, and the rest is nowhere.
    pub(super) is_cut: bool,
}

/// When it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    /// By the runtime, in nanoseconds since 1970.
    Exact(i64),
    /// In milliseconds since 1970.
    Coarse(i64),
}

impl Time {
    pub(super) fn nanos(self) -> i64 {
        match self {
            Self::Exact(nanos) => nanos,
            Self::Coarse(millis) => millis.saturating_mul(MILLI),
        }
    }
}

/// Nanoseconds in a millisecond.
pub(super) const MILLI: i64 = 1_000_000;

/// A record of Fluent Bit.
#[derive(Deserialize)]
struct Record {
    log: String,
    time: Option<String>,
    stream: Option<String>,
    kubernetes: Option<IgnoredAny>,
    /// `P` or `F`, as the parser that comes with the reading of CRI logs calls it.
    #[serde(rename = "_p")]
    tag: Option<String>,
    /// The same, as the parser in the usual configuration files calls it.
    logtag: Option<String>,
}

impl Record {
    fn of(message: &str) -> Option<Self> {
        if !message.starts_with('{') {
            return None;
        }
        let record: Self = serde_json::from_str(message).ok()?;
        let is_shipped = record.kubernetes.is_some() || matches!(record.stream.as_deref(), Some("stdout" | "stderr"));
        is_shipped.then_some(record)
    }
}

impl Entry {
    pub(super) fn of(event: ShippedEvent) -> Self {
        let ShippedEvent { millis, message } = event;
        let Some(record) = Record::of(&message) else {
            let is_cut = message.len() >= LONGEST;
            let content = Bytes::from(strip(message));
            return Self { time: Time::Coarse(millis), content, is_partial: false, is_cut };
        };
        let time = record.time.as_deref().and_then(exact).filter(|nanos| is_near(*nanos, millis));
        Self {
            time: time.map_or(Time::Coarse(millis), Time::Exact),
            content: Bytes::from(strip(record.log)),
            is_partial: record.tag.or(record.logtag).as_deref() == Some("P"),
            is_cut: false,
        }
    }
}

/// A line has no newline of its own; Docker's parser leaves it in.
fn strip(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

/// Only what has nanoseconds is the runtime's: a record may have a `time` from elsewhere.
fn exact(text: &str) -> Option<i64> {
    let (_, fraction) = text.split_once('.')?;
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let time: Timestamp = text.parse().ok()?;
    (digits >= 7).then(|| i64::try_from(time.as_nanosecond()).ok()).flatten()
}

/// The event's time is the record's, or that of its reading soon after. One that is far off is the program's own.
fn is_near(nanos: i64, millis: i64) -> bool {
    const HOUR: i64 = 3_600_000;
    millis.abs_diff(nanos.div_euclid(MILLI)) < HOUR.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const AT: i64 = 1_795_248_000_123;

    fn entry(message: &str) -> Entry {
        Entry::of(ShippedEvent { millis: AT, message: message.to_owned() })
    }

    fn record(more: &serde_json::Value) -> Entry {
        let mut record = json!({ "log": "hello", "stream": "stdout", "kubernetes": { "pod_name": "p" } });
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry(&record.to_string())
    }

    #[test]
    fn a_record_is_a_line_with_the_time_of_the_runtime() {
        let found = record(&json!({ "time": "2026-11-21T08:00:00.123456789Z", "_p": "F" }));
        assert_eq!(found.time, Time::Exact(1_795_248_000_123_456_789));
        assert_eq!((&found.content[..], found.is_partial, found.is_cut), (&b"hello"[..], false, false));
    }

    #[test]
    fn a_time_that_is_not_the_runtime_s_does_not_count() {
        for time in ["2026-11-21T08:00:00.123Z", "yesterday", "2020-01-01T08:00:00.123456789Z", ""] {
            assert_eq!(record(&json!({ "time": time })).time, Time::Coarse(AT), "{time}");
        }
        assert_eq!(record(&json!({})).time, Time::Coarse(AT));
    }

    #[test]
    fn a_piece_of_a_line_is_told_by_either_tag() {
        for (more, is_partial) in [(json!({ "_p": "P" }), true), (json!({ "logtag": "P" }), true), (json!({}), false)] {
            assert_eq!(record(&more).is_partial, is_partial, "{more}");
        }
    }

    #[test]
    fn what_a_program_prints_is_its_line_also_if_it_looks_like_a_record() {
        for line in
            ["plain", "", "{", r#"{"log": "x"}"#, r#"{"log": 7, "stream": "stdout"}"#, r#"{"stream": "stdout"}"#, "[]"]
        {
            let found = entry(line);
            assert_eq!((&found.content[..], found.time), (line.as_bytes(), Time::Coarse(AT)), "{line}");
        }
        assert_eq!(&entry("with its end\n").content[..], b"with its end");
        assert_eq!(&record(&json!({ "log": "two\n\n" })).content[..], b"two\n");
    }

    #[test]
    fn a_record_that_was_cut_is_told_as_that() {
        let whole = json!({ "log": "x".repeat(LONGEST), "stream": "stdout" }).to_string();
        assert!(!entry(&whole).is_cut);
        assert!(entry(&whole[..LONGEST]).is_cut);
        assert!(!entry(&whole[..100]).is_cut);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(message in ".*", millis: i64) {
            let found = Entry::of(ShippedEvent { millis, message });
            let _ = found.time.nanos();
        }
    }
}
