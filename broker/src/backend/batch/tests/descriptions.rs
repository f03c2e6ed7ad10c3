//! What is found and described.

use super::*;

#[tokio::test]
async fn the_jobs_of_an_attempt_are_found_oldest_first_with_those_that_are_not_described_yet() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    double.answer("listjobs", Answer::Refusal(500, "ServerException", "again"));
    double.json(
        "listjobs",
        json!({ "jobSummaryList": [summary("new", "etl-1", 30), summary("case", "ETL-1", 1)], "nextToken": "t" }),
    );
    double.json("listjobs", json!({ "jobSummaryList": [summary("other", "etl-1", 5), summary("old", "etl-1", 10)] }));
    double.json("listjobs", json!({ "jobSummaryList": [summary("urgent", "etl-1", 20)] }));
    double.json("describejobs", json!({ "jobs": [
        detail("old", KEY, 10, "RUNNING"), detail("other", "etl-1/another", 5, "RUNNING"), detail("urgent", KEY, 20, "FAILED"),
    ] }));
    let found = jobs.find("etl-1", KEY).await.unwrap();
    let ids: Vec<_> = found.iter().map(|job| (job.id.as_str(), job.state, job.key.as_str())).collect();
    assert_eq!(
        ids,
        [("old", JobState::Running, KEY), ("urgent", JobState::Failed, KEY), ("new", JobState::Runnable, KEY),]
    );
    let filter = json!([{ "name": "JOB_NAME", "values": ["etl-1"] }]);
    let page = json!({ "jobQueue": "queue", "filters": filter });
    assert_eq!(
        double.requests("listjobs"),
        [
            page.clone(),
            page,
            json!({ "jobQueue": "queue", "filters": filter, "nextToken": "t" }),
            json!({ "jobQueue": "urgent", "filters": filter }),
        ]
    );
    assert_eq!(double.requests("describejobs"), [json!({ "jobs": ["new", "old", "other", "urgent"] })]);
}

#[tokio::test]
async fn an_end_says_why_and_one_that_is_forgotten_has_ended() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    jobs.end("j", &"é".repeat(2_000)).await.unwrap();
    jobs.end("j", "").await.unwrap();
    double.answer("terminatejob", Answer::Refusal(400, "ClientException", "Job j does not exist."));
    jobs.end("j", "why").await.unwrap();
    double.answer("terminatejob", Answer::Refusal(403, "AccessDeniedException", "no"));
    let denied = jobs.end("j", "why").await.unwrap_err();
    assert!(denied.to_string().contains("TerminateJob"), "{denied}");
    let reasons: Vec<_> =
        double.requests("terminatejob").into_iter().map(|request| request["reason"].clone()).collect();
    assert_eq!(reasons, [json!("é".repeat(1_024)), json!("ended by podbroker"), json!("why"), json!("why")]);
}

#[tokio::test]
async fn what_is_followed_is_described_and_its_change_told() {
    let double = Double::start().await;
    let jobs = double.jobs(settings_for_tests());
    let mut changes = jobs.changes();
    let described = json!({ "jobs": [detail("a", KEY, 1, "FAILED"), detail("b", KEY, 2, "RUNNING")] });
    double.json("describejobs", described);
    jobs.follow("a");
    jobs.follow("b");
    jobs.hasten("a");
    let told =
        tokio::time::timeout(Duration::from_secs(5), changes.by_ref().take(2).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(
        told.iter().map(|job| (job.id.as_str(), job.state)).collect::<Vec<_>>(),
        [("a", JobState::Failed), ("b", JobState::Running),]
    );
    assert_eq!(double.requests("describejobs"), [json!({ "jobs": ["a", "b"] })]);
}
