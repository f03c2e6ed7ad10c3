use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::JobKind;
use super::super::play::{SETTLE, at, attempt, ends, intent, job, pod, record, views};
use super::*;
use crate::backend::job::{Job, JobState};
use crate::execution::PolicyRequest;

fn settings(queue_deadline: Option<u64>) -> RecordSettings {
    RecordSettings {
        kind: JobKind::Batch,
        settle: SETTLE,
        queue_deadline: queue_deadline.map(Duration::from_secs),
        counters: Arc::default(),
    }
}

fn due(
    extra: &[(&str, Value)],
    job: Option<Job>,
    pods: &[Value],
    queue_deadline: Option<u64>,
) -> Option<(Timestamp, Step)> {
    let views = views(record(&PolicyRequest::default(), extra), job, pods);
    let view = views.last().unwrap();
    next(view, view.record().unwrap(), &settings(queue_deadline))
}

#[test]
fn the_table_of_steps() {
    let no_job = ("job", json!(null));
    let doubt = |swept: u32| ("submit-in-doubt", json!({ "since": at(50), "swept": swept }));
    let written = (
        "outcome-is",
        json!({
            "state": "SUCCEEDED", "class": null, "reason": "", "message": "", "containers": [], "exit_code": 0,
            "started": null, "ended": at(90), "at": at(95),
        }),
    );
    let cancel = ("cancel", intent());
    let run = || Some(job("job-1", JobState::Running));
    let runnable = || Some(job("job-1", JobState::Runnable));
    let ended = || Some(Job { attempts: vec![attempt("p", Some(0), "")], ..job("job-1", JobState::Succeeded) });
    let p = || vec![pod("p", "job-1", 1, 7, ends(0, "Completed"))];
    let cases = [
        (vec![no_job.clone()], None, vec![], None, Some((at(30), Step::Settle))),
        (vec![no_job.clone(), cancel.clone()], None, vec![], None, Some((at(30), Step::Settle))),
        (vec![no_job.clone(), written.clone()], None, vec![], None, None),
        // A pod names the job.
        (vec![no_job.clone()], None, p(), None, Some((at(0), Step::Adopt))),
        (vec![no_job.clone(), doubt(0)], None, p(), None, Some((at(30), Step::Settle))),
        (vec![], None, vec![], None, None),
        (vec![], run(), vec![], None, None),
        (vec![cancel.clone()], run(), vec![], None, Some((at(1), Step::End))),
        (vec![cancel.clone()], None, vec![], None, Some((at(1), Step::End))),
        (vec![], ended(), p(), None, Some((at(30), Step::Conclude))),
        (vec![], ended(), vec![], None, Some((at(35), Step::Conclude))),
        (vec![cancel.clone()], ended(), p(), None, Some((at(30), Step::Conclude))),
        (vec![written.clone()], ended(), p(), None, None),
        // A queue's deadline is for what waits in it.
        (vec![], runnable(), vec![], Some(600), Some((at(600), Step::EndQueued))),
        (vec![], run(), vec![], Some(600), None),
        (vec![], None, vec![], Some(600), None),
        (vec![cancel.clone()], runnable(), vec![], Some(0), Some((at(1), Step::End))),
        // Others are looked for twice.
        (vec![doubt(0)], run(), vec![], None, Some((at(80), Step::Sweep))),
        (vec![doubt(0), cancel], run(), vec![], None, Some((at(1), Step::End))),
        (vec![doubt(1)], run(), vec![], None, None),
        (vec![doubt(0), written.clone()], run(), vec![], None, Some((at(80), Step::Sweep))),
        (vec![doubt(1), written.clone()], run(), vec![], None, Some((at(95), Step::Sweep))),
        (vec![doubt(0), no_job, written.clone()], None, vec![], None, Some((at(125), Step::Sweep))),
        (vec![doubt(2), written], run(), vec![], None, None),
    ];
    for (index, (extra, job, pods, queue, expected)) in cases.into_iter().enumerate() {
        assert_eq!(due(&extra, job.clone(), &pods, queue), expected, "{index}: {extra:?} {job:?}");
    }
}
