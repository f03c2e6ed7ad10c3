//! What EventBridge puts into a queue about jobs: read strictly, and believed in nothing but that a job is worth a question.

use serde::Deserialize;
use serde_json::Value;

use super::job;
use crate::backend::job::JobState;

const SOURCE: &str = "aws.batch";
const KIND: &str = "Batch Job State Change";
/// In characters. Ids of AWS Batch are UUIDs, those of children with an index behind.
const LONGEST_ID: usize = 64;

/// A change of a job, as somebody says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The job's id; a child has `:index` behind that of its parent.
    pub(super) job: String,
    /// Where it stood then.
    pub(super) state: JobState,
}

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// A job of the region has changed.
    Change(Event),
    /// An event of something else, or of elsewhere.
    Foreign,
    /// No event, or none of that kind's shape.
    Malformed(&'static str),
}

/// What all events have: <https://docs.aws.amazon.com/eventbridge/latest/userguide/aws-events.html>.
#[derive(Deserialize)]
struct Envelope {
    source: String,
    #[serde(rename = "detail-type")]
    kind: String,
    region: String,
    account: String,
    detail: Value,
}

/// Of `JobDetail`, which an event has in it; AWS may add fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    job_id: String,
    job_arn: String,
    status: String,
}

/// Reads the body of a message.
pub(super) fn read(body: &str, region: &str) -> Message {
    let Ok(event) = serde_json::from_str::<Envelope>(body) else { return Message::Malformed("no event") };
    if event.source != SOURCE || event.kind != KIND || event.region != region {
        return Message::Foreign;
    }
    let Ok(detail) = serde_json::from_value::<Detail>(event.detail) else {
        return Message::Malformed("no id, ARN or status");
    };
    let Some(state) = job::state(&detail.status.as_str().into()) else {
        return Message::Malformed("an unknown status");
    };
    if !is_id(&detail.job_id) {
        return Message::Malformed("no id of a job");
    }
    // In any partition.
    let place = format!(":batch:{region}:{}:job/{}", event.account, detail.job_id);
    if !detail.job_arn.starts_with("arn:") || !detail.job_arn.ends_with(&place) {
        return Message::Malformed("an ARN of another job");
    }
    Message::Change(Event { job: detail.job_id, state })
}

fn is_id(text: &str) -> bool {
    let (id, index) = text.split_once(':').unwrap_or((text, "0"));
    let is_index = !index.is_empty() && index.bytes().all(|c| c.is_ascii_digit());
    let is_id = !id.is_empty() && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    text.len() <= LONGEST_ID && is_id && is_index
}

/// An event as EventBridge sends it.
#[cfg(test)]
pub(super) fn event_for_tests(job: &str, status: &str) -> Value {
    let arn = format!("arn:aws:batch:us-east-1:111122223333:job/{job}");
    serde_json::json!({
        "version": "0", "id": "c8f9c4b5-76e5-d76a-f980-7011e206042b", "source": SOURCE, "detail-type": KIND, "region": "us-east-1",
        "account": "111122223333", "time": "2026-01-11T23:36:40Z", "resources": [arn],
        "detail": { "jobArn": arn, "jobId": job, "jobName": "etl", "status": status, "attempts": [], "isTerminated": false },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const JOB: &str = "4c7599ae-0a82-49aa-ba5a-4727fcce14a8";

    fn of(event: &Value) -> Message {
        read(&event.to_string(), "us-east-1")
    }

    fn changed(path: &str, value: Value) -> Value {
        let mut event = event_for_tests(JOB, "FAILED");
        *event.pointer_mut(path).unwrap() = value;
        event
    }

    #[test]
    fn a_change_names_its_job_and_where_it_stands() {
        let change = |job: &str, state| Message::Change(Event { job: job.to_owned(), state });
        assert_eq!(of(&event_for_tests(JOB, "FAILED")), change(JOB, JobState::Failed));
        let child = format!("{JOB}:9999");
        assert_eq!(of(&event_for_tests(&child, "SUCCEEDED")), change(&child, JobState::Succeeded));
    }

    #[test]
    fn events_of_something_else_or_of_elsewhere_are_foreign() {
        for (path, value) in [
            ("/source", "aws.ecs"),
            ("/source", "my.app"),
            ("/detail-type", "Batch Job Queue Blocked"),
            ("/region", "eu-central-1"),
        ] {
            assert_eq!(of(&changed(path, json!(value))), Message::Foreign, "{path} {value}");
        }
    }

    #[test]
    fn what_has_not_the_shape_of_an_event_is_malformed() {
        for (path, value) in [
            ("/detail", json!([])),
            ("/detail/jobId", json!(7)),
            ("/detail/jobId", json!("")),
            ("/detail/jobId", json!("a/b")),
            ("/detail/jobId", json!("a:")),
            ("/detail/jobId", json!("another")),
            ("/detail/jobArn", json!(JOB)),
            ("/detail/jobArn", json!(format!("arn:aws:batch:us-east-1:444455556666:job/{JOB}"))),
            ("/detail/status", json!("DONE")),
            ("/account", json!(null)),
        ] {
            let read = of(&changed(path, value.clone()));
            assert!(matches!(read, Message::Malformed(_)), "{path} {value}: {read:?}");
        }
        for body in ["", "{}", "null", "[]", "hello", "{\"Type\": \"Notification\"}"] {
            assert_eq!(read(body, "us-east-1"), Message::Malformed("no event"), "{body}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_makes_it_panic(body in ".{0,200}", id in ".{0,80}", status in ".{0,10}") {
            read(&body, "us-east-1");
            if let Message::Change(event) = of(&event_for_tests(&id, &status)) {
                prop_assert!(is_id(&event.job));
            }
        }
    }
}
