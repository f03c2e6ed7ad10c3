//! What a check finds, and by which role.

use super::*;

#[tokio::test]
async fn requests_are_signed_by_a_session_of_the_role_that_runs_jobs_only() {
    let double = Double::start().await;
    let jobs = double.jobs_as(settings_for_tests(), Some(role()));
    double.json("/", json!(SESSION));
    for _ in 0..2 {
        jobs.end("j", "why").await.unwrap();
    }
    let asked = double.requests("/");
    assert_eq!(asked.len(), 1, "the role is assumed once");
    let asked = asked[0].as_str().unwrap();
    assert!(
        asked.contains("Action=AssumeRole") && asked.contains("batch%3ASubmitJob") && !asked.contains("eks%3A"),
        "{asked}"
    );
    let signed: Vec<_> = double.script().requests.iter().map(|(_, _, signed)| signed.clone()).collect();
    assert!(signed.len() == 2 && signed.iter().all(|signed| signed.contains("Credential=ASIASESSION/")), "{signed:?}");
}

#[tokio::test]
async fn a_role_that_does_not_let_us_in_is_named_with_its_link() {
    let double = Double::start().await;
    let jobs = double.jobs_as(settings_for_tests(), Some(role()));
    let refusal = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>";
    for _ in 0..8 {
        double.answer("/", Answer::Json(403, json!(refusal)));
    }
    let Submission::NotMade(error) = submit(&jobs, &batch()).await else { panic!() };
    assert!(matches!(&error, Error::CredentialsRefused { target, link: "role", .. } if target == "jobs"), "{error:?}");
    let checks: Vec<_> = jobs.check().collect().await;
    assert!(matches!(&checks[0].verdict, Verdict::Failed { fix } if fix.contains("trust policy")), "{checks:?}");
    assert!(checks[1..].iter().all(|check| check.verdict == Verdict::Skipped) && checks.len() == 7);
}

#[tokio::test]
async fn a_check_walks_from_the_identity_to_a_submit_that_makes_nothing() {
    let double = Double::start().await;
    let jobs = double.jobs(one_queue());
    let checks = checked(&double, &jobs).await;
    let links: Vec<_> = checks.iter().map(|(link, subject, ..)| (*link, subject.as_str())).collect();
    assert_eq!(
        links,
        [
            ("batch-identity", ""),
            ("batch-queue", "queue"),
            ("batch-compute-environment", "c"),
            ("batch-service-role", "c"),
            ("batch-definition", "pods"),
            ("batch-jobs", ""),
            ("batch-submit", "queue"),
        ]
    );
    let broken = |(link, _, verdict, _): &&(&str, String, Verdict, String)| {
        *verdict != Verdict::Passed && *link != "batch-definition"
    };
    assert_eq!(checks.iter().find(broken), None);
    assert!(checks[0].3.contains("assumed-role/Jobs/podbroker"));
    // The double's definition says nothing of the network.
    assert!(checks[4].3.starts_with("pods:3 runs base; "), "{}", checks[4].3);
    assert!(fix_of(&checks, "batch-definition").contains("hostNetwork: false"));
    assert_eq!(checks[6].3, "jobs from pods may be submitted");
    assert_eq!(double.requests("describecomputeenvironments"), [json!({ "computeEnvironments": ["c"] })]);
    assert_eq!(double.requests("submitjob").len(), 1);
    assert_eq!(double.requests("terminatejob").len(), 0);
}

#[tokio::test]
async fn a_check_says_what_is_wrong_behind_the_identity_and_how_to_mend_it() {
    let double = Double::start().await;
    let jobs = double.jobs(one_queue());

    double.json("describejobqueues", queue("DISABLED"));
    double.json("describecomputeenvironments", environment("other"));
    double.answer("listjobs", Answer::Refusal(403, "AccessDeniedException", "no"));
    let checks = checked(&double, &jobs).await;
    assert_eq!(fix_of(&checks, "batch-queue"), "enable the queue");
    assert_eq!(fix_of(&checks, "batch-compute-environment"), "set the target's namespace to other");
    assert!(fix_of(&checks, "batch-jobs").starts_with("allow batch:ListJobs"));
    assert_eq!(checks.last().unwrap().2, Verdict::Skipped, "a queue that is disabled refuses every submit");

    double.json("describejobqueues", json!({ "jobQueues": [] }));
    double.json("describejobdefinitions", json!({ "jobDefinitions": [] }));
    let checks = checked(&double, &jobs).await;
    assert!(fix_of(&checks, "batch-queue").starts_with("check batch.queue"));
    assert_eq!((&checks[2].2, &checks[3].2), (&Verdict::Skipped, &Verdict::Skipped));
    assert_eq!(fix_of(&checks, "batch-definition"), "register it, or correct batch.job_definition");

    double.json("describecomputeenvironments", json!({ "computeEnvironments": [] }));
    let checks = checked(&double, &jobs).await;
    assert_eq!(fix_of(&checks, "batch-compute-environment"), "take it out of the queue's order");
    assert_eq!(double.requests("submitjob").len(), 1, "only where the queue takes jobs and the definition is there");
}

#[tokio::test]
async fn a_check_finds_out_that_jobs_may_not_be_submitted_and_ends_one_that_is_taken_all_the_same() {
    let double = Double::start().await;
    let jobs = double.jobs(one_queue());
    double.answer("submitjob", Answer::Refusal(403, "AccessDeniedException", "not this tag"));
    let checks = checked(&double, &jobs).await;
    let fix = fix_of(&checks, "batch-submit");
    assert!(fix.contains("batch:SubmitJob") && fix.contains("podbroker.io/instance=main"), "{fix}");

    double.json("submitjob", json!({ "jobId": "j-1", "jobName": "podbroker-check" }));
    let checks = checked(&double, &jobs).await;
    let (.., verdict, detail) = checks.last().unwrap();
    assert!(*verdict == Verdict::Passed && detail.contains("j-1") && detail.contains("is being ended"), "{detail}");
    let ended = double.requests("terminatejob");
    assert_eq!(ended, [json!({ "jobId": "j-1", "reason": "podbroker: made by a check" })]);
}
