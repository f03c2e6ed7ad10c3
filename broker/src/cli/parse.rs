//! The words of the command line: names of executions, pairs, spans of time, moments.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use podbroker_client::proto::ExecutionState;
use prost_types::Timestamp;

/// The name of an execution, given in full or as `TARGET/ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [target, id] | ["targets", target, "executions", id] if !target.is_empty() && !id.is_empty() => {
                Ok(Self(format!("targets/{target}/executions/{id}")))
            }
            _ => Err("a name is TARGET/ID or targets/TARGET/executions/ID".to_owned()),
        }
    }
}

/// The short form of a name, as people type it.
pub(crate) fn short_name(name: &str) -> String {
    match name.split('/').collect::<Vec<_>>()[..] {
        ["targets", target, "executions", id] => format!("{target}/{id}"),
        _ => name.to_owned(),
    }
}

/// `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// A span of time: numbers with units, such as `90s`, `5m`, `1h30m`, `2d` or `500ms`; a bare number means seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no span of time; write 90s, 5m, 1h30m or 2d");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            "d" => Duration::from_hours(24),
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        total = unit.checked_mul(number).and_then(|span| total.checked_add(span)).ok_or_else(wrong)?;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// A moment: so long ago, or as RFC 3339 writes it.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let ago = duration(text).map_err(|_| format!("`{text}` is no moment; write 10m or 2026-01-31T08:00:00Z"))?;
    let moment = SystemTime::now().checked_sub(ago).ok_or_else(|| format!("`{text}` is too long ago"))?;
    Ok(moment.into())
}

/// A state by its name, in any case.
pub(crate) fn state(text: &str) -> Result<ExecutionState, String> {
    let name = format!("EXECUTION_STATE_{}", text.to_ascii_uppercase());
    ExecutionState::from_str_name(&name)
        .filter(|state| *state != ExecutionState::Unspecified)
        .ok_or_else(|| "a state is queued, pending, running, ending, succeeded, failed or cancelled".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_in_full_or_in_short() {
        let name = Name("targets/t/executions/e:1".to_owned());
        assert_eq!("t/e:1".parse(), Ok(name.clone()));
        assert_eq!("targets/t/executions/e:1".parse(), Ok(name.clone()));
        assert_eq!(short_name(&name.0), "t/e:1");
        for wrong in ["", "t", "t/", "/e", "a/b/c", "targets/t/executions/", "targets/t/jobs/e"] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_span_of_time_has_units() {
        for (text, millis) in
            [("90", 90_000), ("90s", 90_000), ("5m", 300_000), ("1h30m", 5_400_000), ("2d", 172_800_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("1s500ms"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "m", "5x", "-5m", "5 m", "m5", "5m3", "99999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_moment_is_absolute_or_ago() {
        assert_eq!(moment("2026-01-31T08:00:00Z").unwrap().to_string(), "2026-01-31T08:00:00Z");
        let now: Timestamp = SystemTime::now().into();
        assert!((599..=601).contains(&(now.seconds - moment("10m").unwrap().seconds)));
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn a_pair_may_hold_an_equals_sign_in_its_value() {
        assert_eq!(pair("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("A="), Ok(("A".to_owned(), String::new())));
        assert!(pair("A").is_err() && pair("=b").is_err());
    }

    #[test]
    fn a_state_is_named_in_any_case() {
        assert_eq!(state("running"), Ok(ExecutionState::Running));
        assert_eq!(state("FAILED"), Ok(ExecutionState::Failed));
        assert!(state("unspecified").is_err() && state("").is_err());
    }
}
