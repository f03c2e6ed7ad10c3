use futures::FutureExt as _;
use serde_json::json;

use super::super::super::api::ApiError;
use super::super::super::feed::Intake as _;
use super::super::feeding::JobIntake;
use super::*;
use crate::backend::job::JobState;

fn job(version: u64, active: u32) -> JobObject {
    serde_json::from_value(json!({
        "metadata": { "name": "j", "uid": "u", "resourceVersion": version.to_string() },
        "status": { "active": active, "ready": active },
    }))
    .unwrap()
}

fn next(index: &Index) -> Option<JobState> {
    index.next().now_or_never().map(|job| job.state)
}

#[test]
fn only_what_is_followed_is_told_and_only_once() {
    let index = Index::default();
    index.put(&job(1, 0));
    assert_eq!(next(&index), None);
    assert!(index.follow("j/u"));
    assert_eq!(next(&index), Some(JobState::Starting));
    index.put(&job(2, 0));
    assert_eq!(next(&index), None, "nothing is new");
    index.put(&job(3, 1));
    assert_eq!(next(&index), Some(JobState::Running));
    index.forget("j/u");
    index.put(&job(4, 0));
    assert_eq!(next(&index), None);
}

#[test]
fn an_older_version_changes_nothing() {
    let index = Index::default();
    index.follow("j/u");
    index.put(&job(3, 1));
    index.put(&job(2, 0));
    assert_eq!((next(&index), next(&index)), (Some(JobState::Running), None));
}

#[test]
fn what_nobody_has_seen_is_to_be_found_out_about_by_who_asked_first() {
    let index = Index::default();
    assert!(!index.follow("j/u"));
    assert!(index.follow("j/u"));
    assert!(index.is_missed("j/u"));
    index.put_vanished(crate::backend::pod::kube_job::object::vanished("j/u", "j"));
    assert!(!index.is_missed("j/u"));
    assert_eq!(next(&index), Some(JobState::Failed));
    // A late word of the watch does not bring it back.
    index.put(&job(9, 1));
    assert_eq!(next(&index), None);
}

#[test]
fn what_a_list_does_not_have_is_no_more_unless_it_is_newer() {
    let index = Index::default();
    index.follow("j/u");
    index.put(&job(5, 1));
    assert_eq!(next(&index), Some(JobState::Running));
    index.keep(&HashSet::new(), 4);
    assert_eq!(next(&index), None, "it was made while the list was read");
    index.keep(&HashSet::from(["j/u".to_owned()]), 6);
    assert_eq!(next(&index), None);
    index.keep(&HashSet::new(), 6);
    assert_eq!(next(&index), Some(JobState::Failed));
}

#[test]
fn a_deleted_job_is_told_with_its_last_word() {
    let index = Index::default();
    index.follow("j/u");
    let mut last = serde_json::to_value(json!({
        "metadata": { "name": "j", "uid": "u", "resourceVersion": "8" },
        "status": { "conditions": [{ "type": "Complete", "status": "True" }] },
    }))
    .unwrap();
    index.remove(&serde_json::from_value(last.take()).unwrap());
    assert_eq!(next(&index), Some(JobState::Succeeded));
}

#[test]
fn a_watch_that_fails_says_so_until_it_is_open_again() {
    let refusal = |code: u16| {
        let status = json!({ "status": "Failure", "code": code, "reason": "", "message": "no" });
        ApiError::Refused(serde_json::from_value(status).unwrap())
    };
    let index = Index::default();
    assert_eq!(index.health(), Health::Starting);
    let mut intake = JobIntake::new(&index);
    intake.begin_list();
    intake.end_list(1);
    assert_eq!(index.health(), Health::Serving);
    intake.fail(&refusal(403));
    assert!(matches!(index.health(), Health::Refused(why) if why.contains("403: no")));
    intake.fail(&refusal(500));
    assert!(matches!(index.health(), Health::Unreachable(_)));
    intake.open();
    assert_eq!(index.health(), Health::Serving);
}
