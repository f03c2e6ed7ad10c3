//! Lines that were shipped to a log group.

use super::*;

/// A double with a log group, and jobs that know it.
async fn with_logs(role: Option<RoleSettings>, account: Option<&str>) -> (Double, Arc<dyn Jobs>) {
    let mut double = Double::start().await;
    let name = "/aws/containerinsights/demo/application".to_owned();
    let identifier = match account {
        Some(account) => format!("arn:aws:logs:us-east-1:{account}:log-group:{name}"),
        None => name.clone(),
    };
    double.logs = Some(LogGroupName { identifier, name, account: account.map(str::to_owned) });
    let jobs = double.jobs_as(one_queue(), role);
    (double, jobs)
}

fn shipped() -> ShippedContainer {
    ShippedContainer { pod: "aws-batch.a".to_owned(), node: "n1".to_owned(), container: "main".to_owned() }
}

const STREAMS: &str = "Logs_20140328.DescribeLogStreams";
const EVENTS: &str = "Logs_20140328.GetLogEvents";

#[tokio::test]
async fn lines_are_read_from_the_log_group_by_a_session_that_may_do_that() {
    let (double, jobs) = with_logs(Some(role()), None).await;
    double.json("/", json!(SESSION));
    let group = jobs.log_group().unwrap();
    let id = "0123456789abcdef".repeat(4);
    let name = |container: &str| json!({ "logStreamName": format!("aws-batch.a_{container}-{id}") });
    double.json(STREAMS, json!({ "logStreams": [name("main"), name("main-2")] }));
    let found = group.find(&shipped()).await.unwrap();
    assert_eq!(found, [format!("aws-batch.a_main-{id}")]);
    let asked = json!({ "logGroupName": group.name(), "logStreamNamePrefix": "aws-batch.a_main-", "limit": 50 });
    assert_eq!(double.requests(STREAMS), [asked]);
    let session = double.requests("/")[0].as_str().unwrap().to_owned();
    assert!(session.contains("logs%3AGetLogEvents") && session.contains("demo%2Fapplication%3A%2A"), "{session}");

    let event = json!({ "timestamp": 7, "message": "hello", "ingestionTime": 8 });
    double.json(EVENTS, json!({ "events": [event], "nextForwardToken": "f/1", "nextBackwardToken": "b/0" }));
    double.json(EVENTS, json!({ "events": [], "nextForwardToken": "f/2" }));
    double.json(EVENTS, json!({ "events": [], "nextForwardToken": "f/2" }));
    let page = group.page(&found[0], Some(5), None).await.unwrap();
    assert_eq!(page.events, [ShippedEvent { millis: 7, message: "hello".to_owned() }]);
    assert_eq!((page.next.as_deref(), page.is_last), (Some("f/1"), false));
    // An empty page is the last one only if it leads to itself.
    assert!(!group.page(&found[0], Some(5), Some("f/1")).await.unwrap().is_last);
    assert!(group.page(&found[0], Some(5), Some("f/2")).await.unwrap().is_last);
    let asked = json!({
        "logGroupName": group.name(), "logStreamName": found[0], "startTime": 5, "startFromHead": true, "nextToken": "f/2",
    });
    assert_eq!(double.requests(EVENTS)[2], asked);
}

#[tokio::test]
async fn a_log_group_of_another_account_is_named_by_its_arn() {
    let (double, jobs) = with_logs(None, Some("444455556666")).await;
    let group = jobs.log_group().unwrap();
    assert_eq!(group.find(&shipped()).await, Ok(Vec::new()));
    group.page("s", None, None).await.unwrap();
    let arn = "arn:aws:logs:us-east-1:444455556666:log-group:/aws/containerinsights/demo/application";
    for operation in [STREAMS, EVENTS] {
        let asked = &double.requests(operation)[0];
        assert_eq!((&asked["logGroupIdentifier"], &asked["logGroupName"]), (&json!(arn), &Value::Null));
    }
}

#[tokio::test]
async fn a_log_group_that_does_not_let_us_in_says_so_and_one_that_is_away_may_come_back() {
    let (double, jobs) = with_logs(None, None).await;
    let group = jobs.log_group().unwrap();
    double.answer(STREAMS, Answer::Refusal(400, "AccessDeniedException", "not authorized"));
    let error = group.find(&shipped()).await.unwrap_err();
    assert!(
        matches!(&error, LogGroupError::Refused(why)
        if why.contains("refuses DescribeLogStreams: AccessDeniedException") && why.contains("allow logs:")),
        "{error}"
    );
    for _ in 0..5 {
        double.answer(EVENTS, Answer::Refusal(503, "ServiceUnavailableException", "later"));
    }
    let error = group.page("s", None, None).await.unwrap_err();
    assert!(matches!(&error, LogGroupError::Away(_)), "{error}");
}

#[tokio::test]
async fn a_check_tells_whether_the_log_group_can_be_read() {
    let (double, jobs) = with_logs(None, None).await;
    let last = |checks: Vec<(&'static str, String, Verdict, String)>| checks.into_iter().last().unwrap();
    double
        .answer(EVENTS, Answer::Refusal(400, "ResourceNotFoundException", "The specified log stream does not exist."));
    let (link, subject, verdict, _) = last(checked(&double, &jobs).await);
    assert_eq!((link, subject.as_str()), ("batch-logs", "/aws/containerinsights/demo/application"));
    assert_eq!(verdict, Verdict::Passed);
    for (operation, code, fix) in [
        (STREAMS, "ResourceNotFoundException", "check batch.log_group"),
        (STREAMS, "AccessDeniedException", "allow logs:DescribeLogStreams"),
        (EVENTS, "AccessDeniedException", "allow logs:DescribeLogStreams"),
    ] {
        double.answer(operation, Answer::Refusal(400, code, "no"));
        let (_, _, verdict, detail) = last(checked(&double, &jobs).await);
        assert!(
            matches!(&verdict, Verdict::Warned { fix: said } if said.contains(fix)),
            "{code}: {verdict:?} {detail}"
        );
        double.requests(EVENTS);
    }
}
