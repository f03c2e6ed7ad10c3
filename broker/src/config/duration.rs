//! Lengths of time as people write them: a whole number and one unit, `30s`, `10m`, `24h`, `7d`.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, de};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| {
        de::Error::custom("must be a whole number and a unit, such as \"30s\", \"10m\", \"24h\", \"7d\"")
    })
}

/// The same, where it may be left out.
pub(super) mod option {
    use std::time::Duration;

    use serde::Deserializer;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    if !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_a_number_and_a_unit() {
        for (text, seconds) in [("0s", 0), ("30s", 30), ("10m", 600), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "s", "30", "-1s", "+1s", "1.5h", "1h30m", "30 s", "30S", "1ä", "99999999999999999d"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
