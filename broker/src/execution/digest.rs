//! The digest of a request: whether a repeated id means the same thing.
//!
//! Version 1 is SHA-256 over `podbroker-spec-v1`, a newline, and the request as JSON without spaces, the keys of every
//! object in the order of their bytes: `{"labels":..,"manifest":..,"policies":..}` as the caller sent them, before any
//! default is applied, with `"batch":..` in place of the manifest for a job from a job definition, `"job":..` for a
//! Job of the cluster, and with `"group":..`, its id, when there is one. Left out, because a caller that repeats itself may say
//! them differently: `metadata.name` and `metadata.generateName` (replaced anyway), `submit_before`, `required_features`, the
//! way of submitting and what is done about others of the group.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{GroupId, PolicyRequest, Workload};

/// The digest as 64 lower-case hex digits.
pub fn spec_digest(
    workload: &Workload,
    labels: &BTreeMap<String, String>,
    policies: &PolicyRequest,
    group: Option<&GroupId>,
) -> String {
    let mut request = json!({ "labels": labels, "policies": policies });
    match workload {
        Workload::Pod(manifest) => request["manifest"] = nameless(manifest),
        Workload::Batch(work) => request["batch"] = json!(work),
        Workload::Job(manifest) => request["job"] = nameless(manifest),
    }
    if let Some(group) = group {
        request["group"] = Value::from(group.as_str());
    }
    let mut text = String::from("podbroker-spec-v1\n");
    canonical(&mut text, &request);
    sha256_hex(text.as_bytes())
}

/// A manifest without the names that are replaced anyway.
fn nameless(manifest: &Map<String, Value>) -> Value {
    let mut manifest = manifest.clone();
    if let Some(Value::Object(metadata)) = manifest.get_mut("metadata") {
        metadata.remove("name");
        metadata.remove("generateName");
    }
    Value::Object(manifest)
}

/// The digest of a JSON value, whatever the order of its keys, as 64 lower-case hex digits.
pub fn json_digest(value: &Value) -> String {
    let mut text = String::new();
    canonical(&mut text, value);
    sha256_hex(text.as_bytes())
}

/// SHA-256 as 64 lower-case hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Writes JSON with sorted keys. `serde_json` sorts only as long as nobody in the build turns on its insertion order.
fn canonical(out: &mut String, value: &Value) {
    match value {
        Value::Object(object) => {
            let sorted: BTreeMap<_, _> = object.iter().collect();
            out.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(out, &Value::String(key.clone()));
                out.push(':');
                canonical(out, value);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(out, item);
            }
            out.push(']');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::BatchWork;

    fn digest(manifest: &str) -> String {
        of(&Workload::Pod(serde_json::from_str(manifest).unwrap()))
    }

    fn of(workload: &Workload) -> String {
        spec_digest(workload, &BTreeMap::new(), &PolicyRequest::default(), None)
    }

    #[test]
    fn the_digest_of_a_job_is_over_all_of_it_and_never_that_of_a_pod() {
        let work = BatchWork { job_definition: "etl:3".to_owned(), ..BatchWork::default() };
        let job = of(&Workload::Batch(Box::new(work.clone())));
        assert_eq!(job, of(&Workload::Batch(Box::new(work.clone()))));
        for other in [
            BatchWork { job_definition: "etl:4".to_owned(), ..work.clone() },
            BatchWork { array_size: Some(2), ..work.clone() },
            BatchWork { attempts: Some(2), ..work.clone() },
            BatchWork { parameters: [("a".to_owned(), "b".to_owned())].into(), ..work.clone() },
        ] {
            assert_ne!(of(&Workload::Batch(Box::new(other))), job);
        }
        assert_ne!(digest(&serde_json::to_string(&work).unwrap()), job);
    }

    #[test]
    fn the_group_counts() {
        let digest = |group: Option<&str>| {
            let group = group.map(|id| id.parse().unwrap());
            spec_digest(&Workload::Pod(Map::new()), &BTreeMap::new(), &PolicyRequest::default(), group.as_ref())
        };
        assert_ne!(digest(None), digest(Some("a")));
        assert_ne!(digest(Some("a")), digest(Some("b")));
    }

    #[test]
    fn the_digest_of_version_1_is_frozen() {
        assert_eq!(
            digest(r#"{"spec":{"containers":[{"name":"base","image":"busybox","args":["a",1,1.5,null]}]}}"#),
            "5495b32d53731375ee30dd5a2759555aa8fd32fac97ed199d39d2b72b9b6e7f2"
        );
    }

    #[test]
    fn the_order_of_keys_and_the_wished_name_do_not_count() {
        let a = r#"{"metadata":{"name":"x","labels":{"a":"1","b":"2"}},"spec":{}}"#;
        let b = r#"{"spec":{},"metadata":{"labels":{"b":"2","a":"1"},"generateName":"y-"}}"#;
        assert_eq!(digest(a), digest(b));
    }

    #[test]
    fn anything_else_counts() {
        let base = digest(r#"{"metadata":{},"spec":{"n":1}}"#);
        for other in [r#"{"metadata":{},"spec":{"n":2}}"#, r#"{"metadata":{},"spec":{"n":"1"}}"#, r#"{"metadata":{}}"#]
        {
            assert_ne!(digest(other), base);
        }
    }
}
