//! Quantities of Kubernetes as AWS Batch takes them: memory in whole MiB, processors in quarters, devices whole.

use serde_json::{Map, Value};

use super::fields::Taker;

/// In bytes.
const MEBI: u128 = 1 << 20;
/// In MiB; AWS Batch takes no less.
const LEAST_MEMORY: u128 = 4;
/// In thousandths of a processor.
const QUARTER: u128 = 250;

/// A quantity in thousandths; none for what is no quantity, or no multiple of a thousandth.
fn thousandths(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u128 = match unit {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Longer ones are no quantity that anything has, and would overflow.
    if number.len() > 18 || (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let scaled = digits.checked_mul(factor)?;
    scaled.is_multiple_of(scale).then(|| scaled / scale)
}

/// One resource as AWS Batch writes it, or what it must be.
fn written(resource: &str, text: &str) -> Result<String, &'static str> {
    let value = thousandths(text);
    match resource {
        "memory" => value
            .filter(|value| value.is_multiple_of(1_000 * MEBI) && *value >= LEAST_MEMORY * 1_000 * MEBI)
            .map(|value| format!("{}Mi", value / (1_000 * MEBI)))
            .ok_or("must be whole MiB, at least 4Mi: AWS Batch takes nothing finer"),
        "cpu" => value
            .filter(|value| value.is_multiple_of(QUARTER) && *value > 0)
            .map(|value| {
                let fraction = match value % 1_000 {
                    250 => ".25",
                    500 => ".5",
                    750 => ".75",
                    _ => "",
                };
                format!("{}{fraction}", value / 1_000)
            })
            .ok_or("must be a multiple of 0.25: AWS Batch takes nothing finer"),
        "nvidia.com/gpu" => value
            .filter(|value| value.is_multiple_of(1_000))
            .map(|value| (value / 1_000).to_string())
            .ok_or("must be a whole number"),
        _ => Err("cannot be said to AWS Batch: it knows memory, cpu and nvidia.com/gpu"),
    }
}

/// Checks the resources of a container and writes them as AWS Batch does. In a definition's own words nothing is changed.
pub(super) fn resources(taker: &mut Taker, resources: &mut Map<String, Value>, path: &str) {
    for side in ["limits", "requests"] {
        let Some(Value::Object(amounts)) = resources.get_mut(side) else { continue };
        for (resource, amount) in amounts {
            let Some(text) = amount.as_str() else { continue };
            match written(resource, text) {
                Ok(written) => *amount = Value::String(written),
                Err(why) => taker.refuse(format!("{path}.{side}[{resource}]"), why),
            }
        }
    }
    let both = |resource: &str| {
        let amount = |side: &str| thousandths(resources.get(side)?.get(resource)?.as_str()?);
        Some((amount("limits")?, amount("requests")?))
    };
    for resource in ["memory", "nvidia.com/gpu"] {
        if both(resource).is_some_and(|(limit, request)| limit != request) {
            taker.refuse(
                format!("{path}.limits[{resource}]"),
                format!("must be {path}.requests[{resource}] in AWS Batch"),
            );
        }
    }
    if both("cpu").is_some_and(|(limit, request)| limit < request) {
        taker.refuse(format!("{path}.limits[cpu]"), format!("must be at least {path}.requests[cpu]"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::backend::batch::fields::Dialect;

    #[test]
    fn what_batch_can_say_is_written_its_way() {
        for (resource, text, expected) in [
            ("memory", "4Mi", "4Mi"),
            ("memory", "1Gi", "1024Mi"),
            ("memory", "1.5Gi", "1536Mi"),
            ("memory", "1073741824", "1024Mi"),
            ("memory", "1048576k", "1000Mi"),
            ("cpu", "250m", "0.25"),
            ("cpu", "0.5", "0.5"),
            ("cpu", "2", "2"),
            ("cpu", "1750m", "1.75"),
            ("nvidia.com/gpu", "1", "1"),
        ] {
            assert_eq!(written(resource, text).as_deref(), Ok(expected), "{resource} {text}");
        }
    }

    #[test]
    fn what_batch_cannot_say_is_refused() {
        for (resource, text) in [
            ("memory", "3Mi"),
            ("memory", "100M"),
            ("memory", "1"),
            ("memory", ""),
            ("memory", "-4Mi"),
            ("memory", "1e9"),
            ("cpu", "100m"),
            ("cpu", "0"),
            ("cpu", "0.3"),
            ("cpu", "1.2.3"),
            ("nvidia.com/gpu", "500m"),
            ("ephemeral-storage", "1Gi"),
        ] {
            assert!(written(resource, text).is_err(), "{resource} {text}");
        }
    }

    #[test]
    fn memory_and_devices_are_reserved_as_they_are_limited() {
        let check = |value: Value| {
            let mut taker = Taker::new(Dialect::Kubernetes);
            let Value::Object(mut value) = value else { panic!() };
            resources(&mut taker, &mut value, "r");
            taker.violations.into_iter().map(|violation| violation.field).collect::<Vec<_>>()
        };
        assert_eq!(check(json!({ "limits": { "memory": "1Gi" }, "requests": { "memory": "1024Mi" } })), [""; 0]);
        assert_eq!(check(json!({ "limits": { "cpu": "2" }, "requests": { "cpu": "500m" } })), [""; 0]);
        assert_eq!(
            check(json!({ "limits": { "memory": "2Gi" }, "requests": { "memory": "1Gi" } })),
            ["r.limits[memory]"]
        );
        assert_eq!(check(json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "2" } })), ["r.limits[cpu]"]);
        assert_eq!(check(json!({ "requests": { "hugepages-2Mi": "2Mi" } })), ["r.requests[hugepages-2Mi]"]);
    }

    proptest! {
        #[test]
        fn any_text_is_answered_without_a_panic(text in "[0-9.a-zA-Z-]{0,24}") {
            for resource in ["memory", "cpu", "nvidia.com/gpu"] {
                let _ = written(resource, &text);
            }
        }

        #[test]
        fn memory_means_the_same_afterwards(mebi in 4_u128..1_000_000) {
            let bytes = (mebi * MEBI).to_string();
            prop_assert_eq!(written("memory", &bytes), Ok(format!("{mebi}Mi")));
        }
    }
}
