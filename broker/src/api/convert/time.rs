//! Moments and lengths of time.

use std::time::Duration;

use jiff::Timestamp;

use crate::error::Error;

pub(super) fn wire_timestamp(moment: Timestamp) -> prost_types::Timestamp {
    // The wire counts nanoseconds forward, also before 1970.
    let (second, nanos) = (moment.as_second(), moment.subsec_nanosecond());
    let (seconds, nanos) = if nanos < 0 { (second - 1, nanos + 1_000_000_000) } else { (second, nanos) };
    prost_types::Timestamp { seconds, nanos }
}

pub(in crate::api) fn wire_duration(length: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: length.subsec_nanos().cast_signed() }
}

pub(super) fn timestamp(
    field: &'static str,
    value: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, Error> {
    let Some(value) = value else { return Ok(None) };
    if !(0..1_000_000_000).contains(&value.nanos) {
        return Err(Error::invalid_request(field, "its nanos must be 0 to 999,999,999"));
    }
    Timestamp::new(value.seconds, value.nanos)
        .map(Some)
        .map_err(|_| Error::invalid_request(field, "must be a moment of the years 1 to 9999"))
}

/// A length of time that is not negative.
pub(super) fn duration(field: &'static str, value: Option<prost_types::Duration>) -> Result<Option<Duration>, Error> {
    let Some(prost_types::Duration { seconds, nanos }) = value else { return Ok(None) };
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        // The limit of google.protobuf.Duration: about 10,000 years.
        (Ok(seconds @ ..=315_576_000_000), Ok(nanos @ ..1_000_000_000)) => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(Error::invalid_request(field, "must be a valid length of time that is not negative")),
    }
}

/// A length of time where zero means that nothing was said.
pub(super) fn optional_duration(
    field: &'static str,
    value: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Error> {
    Ok(duration(field, value)?.filter(|length| !length.is_zero()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_moment_survives_the_wire(nanos in Timestamp::MIN.as_nanosecond()..Timestamp::MAX.as_nanosecond()) {
            let moment = Timestamp::from_nanosecond(nanos).unwrap();
            let wire = wire_timestamp(moment);
            prop_assert!((0..1_000_000_000).contains(&wire.nanos));
            prop_assert_eq!(timestamp("f", Some(wire)).unwrap(), Some(moment));
        }

        #[test]
        fn any_numbers_are_answered_without_a_panic(seconds: i64, nanos: i32) {
            let length = duration("f", Some(prost_types::Duration { seconds, nanos }));
            prop_assert!(length.is_err() || seconds >= 0 && nanos >= 0);
            let _ = timestamp("f", Some(prost_types::Timestamp { seconds, nanos }));
        }
    }

    #[test]
    fn negative_and_overflowing_lengths_are_refused() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (1, 1_000_000_000), (i64::MAX, 0), (315_576_000_001, 0)] {
            assert!(duration("f", Some(prost_types::Duration { seconds, nanos })).is_err(), "{seconds} {nanos}");
        }
    }

    #[test]
    fn a_length_of_zero_says_nothing() {
        let zero = prost_types::Duration { seconds: 0, nanos: 0 };
        assert_eq!(optional_duration("f", Some(zero)).unwrap(), None);
        assert_eq!(duration("f", Some(zero)).unwrap(), Some(Duration::ZERO));
    }
}
