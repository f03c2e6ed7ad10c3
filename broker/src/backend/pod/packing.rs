//! What to run, as it is kept in the first carrier of an execution: gzip, base64. The live object was changed by admission, or
//! is a record, and cannot make another attempt.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::execution::Workload;

/// More than any workload has: what is longer was made to hurt.
const UNPACKED_LIMIT: u64 = 8 << 20;

/// Stands in front of a job from a job definition. No pod has a field of that name.
const BATCH: &str = "batch";

/// Stands in front of a Job of the cluster, likewise.
const JOB: &str = "job";

/// Packs a workload: a pod's manifest as it is, and a job under its name.
pub(super) fn pack(workload: &Workload) -> Result<String, Error> {
    let bytes = match workload {
        Workload::Pod(manifest) => serde_json::to_vec(manifest),
        Workload::Batch(work) => serde_json::to_vec(&json!({ BATCH: work })),
        Workload::Job(manifest) => serde_json::to_vec(&json!({ JOB: manifest })),
    };
    let bytes = bytes.map_err(|error| Error::bug(format!("cannot write JSON: {error}")))?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let packed = gzip.write_all(&bytes).and_then(|()| gzip.finish());
    packed.map(|bytes| BASE64_STANDARD.encode(bytes)).map_err(|error| Error::bug(format!("cannot pack: {error}")))
}

/// The workload as it was packed.
pub(super) fn unpack(packed: &str) -> Option<Workload> {
    let bytes = BASE64_STANDARD.decode(packed).ok()?;
    let mut object: Map<String, Value> =
        serde_json::from_reader(GzDecoder::new(bytes.as_slice()).take(UNPACKED_LIMIT)).ok()?;
    if object.len() == 1 {
        if let Some(work) = object.remove(BATCH) {
            return serde_json::from_value(work).ok().map(Workload::Batch);
        }
        if let Some(manifest) = object.remove(JOB) {
            return serde_json::from_value(manifest).ok().map(Workload::Job);
        }
    }
    Some(Workload::Pod(object))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::execution::BatchWork;

    #[test]
    fn a_workload_comes_back_as_it_was() {
        let Value::Object(manifest) = json!({ "spec": { "containers": [{ "name": "base" }] }, "batch": null }) else {
            panic!("a manifest is an object")
        };
        let work = BatchWork {
            job_definition: "etl:3".to_owned(),
            parameters: [("day".to_owned(), "2026-11-21".to_owned())].into(),
            array_size: Some(20),
            attempts: Some(3),
            attempt_timeout: Some(Duration::from_secs(90)),
            ..BatchWork::default()
        };
        for workload in [
            Workload::Pod(manifest.clone()),
            Workload::Pod(Map::new()),
            Workload::Batch(Box::new(work)),
            Workload::Job(manifest),
            Workload::Job(Map::new()),
        ] {
            assert_eq!(unpack(&pack(&workload).unwrap()), Some(workload));
        }
    }

    #[test]
    fn what_somebody_else_wrote_is_no_workload() {
        for text in ["", "!", "aGVsbG8="] {
            assert_eq!(unpack(text), None, "{text}");
        }
    }
}
