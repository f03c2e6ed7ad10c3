//! Ends that a queue of events tells of, and what targets share.

use super::*;

/// A double with a queue of events, and what one request for messages is.
async fn with_events() -> (Double, Value) {
    let mut double = Double::start().await;
    let url = "https://sqs.us-east-1.amazonaws.com/111122223333/events".to_owned();
    let asked = json!({ "QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 30, "WaitTimeSeconds": 20 });
    double.events = Some(EventsQueue { url, account: "111122223333".to_owned(), name: "events".to_owned() });
    (double, asked)
}

#[tokio::test]
async fn an_end_that_a_queue_tells_of_is_described_and_the_message_deleted_by_the_role_s_session() {
    let (double, asked) = with_events().await;
    double.json("/", json!(SESSION));
    let event = event::event_for_tests("a", "FAILED").to_string();
    double.json("describejobs", json!({ "jobs": [detail("a", KEY, 1, "FAILED")] }));
    let message = |handle: &str, body: &str| json!({ "MessageId": handle, "ReceiptHandle": handle, "Body": body });
    let jobs = double.jobs_as(settings_for_tests(), Some(role()));
    let mut changes = jobs.changes();
    jobs.follow("a");
    double.json("AmazonSQS.ReceiveMessage", json!({ "Messages": [message("h-1", &event), message("h-2", "hello")] }));
    double.json("AmazonSQS.DeleteMessageBatch", json!({ "Successful": [], "Failed": [] }));
    double.answer("AmazonSQS.ReceiveMessage", Answer::Silence);
    let told = tokio::time::timeout(Duration::from_secs(5), changes.next()).await.unwrap().unwrap();
    assert_eq!((told.id.as_str(), told.state), ("a", JobState::Failed));
    assert_eq!(double.requests("AmazonSQS.ReceiveMessage")[0], asked);
    let deleted = json!({ "QueueUrl": asked["QueueUrl"],
        "Entries": [{ "Id": "0", "ReceiptHandle": "h-1" }, { "Id": "1", "ReceiptHandle": "h-2" }] });
    assert_eq!(double.requests("AmazonSQS.DeleteMessageBatch"), [deleted]);
    let session = double.requests("/")[0].as_str().unwrap().to_owned();
    assert!(session.contains("sqs%3AReceiveMessage") && session.contains("111122223333%3Aevents"), "{session}");
}

#[tokio::test]
async fn a_check_tells_how_the_receiver_fares_and_leaves_the_events_to_it() {
    let (double, _) = with_events().await;
    double.answer("AmazonSQS.ReceiveMessage", Answer::Refusal(403, "AccessDeniedException", "no"));
    let jobs = double.jobs(one_queue());
    let failed = async {
        loop {
            let checks = checked(&double, &jobs).await;
            if matches!(checks.last().unwrap().2, Verdict::Warned { .. }) {
                return checks;
            }
        }
    };
    let checks = tokio::time::timeout(Duration::from_secs(5), failed).await.unwrap();
    let last = checks.last().unwrap();
    assert_eq!((last.0, last.1.as_str()), ("batch-events", "events"));
    assert!(fix_of(&checks, "batch-events").starts_with("allow sqs:ReceiveMessage"));
}

#[tokio::test]
async fn targets_with_one_queue_of_events_have_one_receiver() {
    let (double, _) = with_events().await;
    let mut accounts = Accounts::default();
    for name in ["A", "B"] {
        let role = RoleSettings { arn: format!("arn:aws:iam::111122223333:role/{name}"), ..role() };
        let (access, tasks) = (double.access(Some(role)), TaskTracker::new());
        start(settings_for_tests(), access, &mut accounts, BatchCounters::default(), &tasks, &double.stop);
    }
    assert_eq!((accounts.receivers.len(), accounts.describers.len()), (1, 2));
}

#[tokio::test]
async fn roles_of_an_account_share_its_limit_and_one_role_its_descriptions() {
    let double = Double::start().await;
    let mut accounts = Accounts::default();
    let mut start_as = |name: Option<&str>| {
        let arn = |name: &str| format!("arn:aws:iam::111122223333:role/{name}");
        let role = name.map(|name| RoleSettings { arn: arn(name), ..role() });
        let (access, tasks) = (double.access(role), TaskTracker::new());
        start(settings_for_tests(), access, &mut accounts, BatchCounters::default(), &tasks, &double.stop);
    };
    for name in [Some("A"), Some("A"), Some("B"), None] {
        start_as(name);
    }
    assert_eq!((accounts.limiters.len(), accounts.describers.len()), (2, 3));
}
