//! The manifest, in either of its two forms, as untyped JSON: what it means is the cluster's business.

use prost_types::value::Kind;
use serde_json::{Map, Number, Value};

use podbroker_proto::v1::{job_workload, pod_workload::Manifest};

use crate::error::Error;

/// The manifest as an object, checked for its form and size.
pub(super) fn manifest(manifest: Manifest, max_bytes: usize) -> Result<Map<String, Value>, Error> {
    match manifest {
        Manifest::Json(json) => {
            within(json.len(), max_bytes)?;
            // Depth is limited by serde_json, to 128.
            serde_json::from_slice(&json)
                .map_err(|error| Error::invalid_spec("", format!("it must be a JSON object: {error}")))
        }
        Manifest::Struct(fields) => {
            let object = object(fields, "")?;
            let size = serde_json::to_vec(&object).map_err(|error| Error::bug(format!("JSON to text: {error}")))?.len();
            within(size, max_bytes)?;
            Ok(object)
        }
    }
}

/// The same of a Job.
pub(super) fn of_job(manifest: job_workload::Manifest, max_bytes: usize) -> Result<Map<String, Value>, Error> {
    self::manifest(
        match manifest {
            job_workload::Manifest::Json(json) => Manifest::Json(json),
            job_workload::Manifest::Struct(fields) => Manifest::Struct(fields),
        },
        max_bytes,
    )
}

fn within(size: usize, max_bytes: usize) -> Result<(), Error> {
    if size > max_bytes {
        return Err(Error::invalid_spec("", format!("it has {size} bytes; at most {max_bytes} are possible")));
    }
    Ok(())
}

fn object(fields: prost_types::Struct, path: &str) -> Result<Map<String, Value>, Error> {
    fields
        .fields
        .into_iter()
        .map(|(key, field)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            Ok((key, value(field, &path)?))
        })
        .collect()
}

/// Depth is limited by the decoder of protobuf, to 100.
fn value(field: prost_types::Value, path: &str) -> Result<Value, Error> {
    Ok(match field.kind {
        None => return Err(Error::invalid_spec(path, "it has no value")),
        Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::NumberValue(value)) => Value::Number(number(value, path)?),
        Some(Kind::StructValue(fields)) => Value::Object(object(fields, path)?),
        Some(Kind::ListValue(list)) => {
            let items = list.values.into_iter().enumerate();
            Value::Array(items.map(|(index, item)| value(item, &format!("{path}[{index}]"))).collect::<Result<_, _>>()?)
        }
    })
}

/// Every number of a Struct is a double; Kubernetes wants ports and counts as integers.
fn number(value: f64, path: &str) -> Result<Number, Error> {
    // Beyond 2^53 a double does not hold every integer, so that what was meant is not known.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number under 2^53")]
        return Ok(Number::from(value as i64));
    }
    Number::from_f64(value).ok_or_else(|| Error::invalid_spec(path, "it must be a finite number"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 4096;

    fn wrap(kind: Kind) -> prost_types::Value {
        prost_types::Value { kind: Some(kind) }
    }

    fn from_struct(name: &str, kind: Option<Kind>) -> Result<Map<String, Value>, Error> {
        let fields = [(name.to_owned(), prost_types::Value { kind })].into();
        manifest(Manifest::Struct(prost_types::Struct { fields }), LIMIT)
    }

    #[test]
    fn whole_doubles_become_integers_and_others_stay() {
        for (number, json) in [
            (8080.0, "8080"),
            (-1.0, "-1"),
            (-0.0, "0"),
            (1.5, "1.5"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (9_007_199_254_740_992.0, "9007199254740992.0"),
            (1e300, "1e+300"),
        ] {
            let object = from_struct("n", Some(Kind::NumberValue(number))).unwrap();
            assert_eq!(object["n"].to_string(), json);
        }
    }

    #[test]
    fn numbers_that_json_does_not_have_are_refused_with_their_path() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let list = prost_types::ListValue { values: vec![wrap(Kind::NumberValue(number))] };
            let Err(Error::InvalidSpec { violations }) = from_struct("a", Some(Kind::ListValue(list))) else {
                panic!()
            };
            assert_eq!(violations[0].field, "a[0]");
        }
        assert!(from_struct("a", None).is_err());
    }

    #[test]
    fn text_keeps_every_number_and_must_be_an_object() {
        let object =
            manifest(Manifest::Json(br#"{"a":18446744073709551615,"b":-9223372036854775808}"#.to_vec()), LIMIT);
        assert_eq!(
            serde_json::to_string(&object.unwrap()).unwrap(),
            r#"{"a":18446744073709551615,"b":-9223372036854775808}"#
        );
        let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
        for text in ["", "[]", "1", "null", "{", "{} {}", "{\"a\":\"\u{1}\"}", &format!("{{\"a\":{deep}}}")] {
            assert!(matches!(manifest(Manifest::Json(text.into()), LIMIT), Err(Error::InvalidSpec { .. })), "{text}");
        }
        assert!(manifest(Manifest::Json(vec![0xff, 0xfe]), LIMIT).is_err());
    }

    #[test]
    fn both_forms_have_the_same_limit() {
        let text = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8)).into_bytes();
        assert!(manifest(Manifest::Json(text(LIMIT)), LIMIT).is_ok());
        assert!(manifest(Manifest::Json(text(LIMIT + 1)), LIMIT).is_err());
        assert!(from_struct("a", Some(Kind::StringValue("x".repeat(LIMIT - 8)))).is_ok());
        assert!(from_struct("a", Some(Kind::StringValue("x".repeat(LIMIT - 7)))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_answered_without_a_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = manifest(Manifest::Json(text), LIMIT);
        }

        #[test]
        fn any_number_is_answered_without_a_panic(bits: u64) {
            let _ = number(f64::from_bits(bits), "n");
        }
    }
}
