//! Calls: when they are tried again, what is sent, and over which connection.

use std::time::Duration;

use podbroker_client::proto::ExecutionState::Running;
use podbroker_client::{Code, FieldViolation, Settings, Token, proto};
use tokio::time::Instant;
use tonic_types::{ErrorDetails, StatusExt};

use crate::broker::{Answer, Broker, Script, Step, end, execution, lines, refusal, state};

fn broker_of_gets(gets: Vec<Answer<proto::Execution>>) -> Broker {
    Broker::start(Script { gets: gets.into(), ..Default::default() })
}

fn get() -> proto::GetExecutionRequest {
    proto::GetExecutionRequest { name: "targets/t/executions/e".to_owned(), ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_tried_again_while_the_broker_is_away() {
    let away = || Answer::Fail(refusal(tonic::Code::Unavailable, "CREDENTIALS_UNAVAILABLE", None));
    let broker = broker_of_gets(vec![away(), away(), away(), Answer::Give(execution(Running))]);
    assert_eq!(broker.client().get(get()).await.unwrap(), execution(Running));
    broker.seen(|seen| assert_eq!(seen.gets, 4));
}

#[tokio::test(start_paused = true)]
async fn a_call_is_not_tried_again_where_that_is_of_no_use() {
    for (code, reason, retry_delay) in [
        (tonic::Code::NotFound, "NO_SUCH_EXECUTION", None),
        (tonic::Code::FailedPrecondition, "CLAIM_SUPERSEDED", None),
        (tonic::Code::ResourceExhausted, "QUOTA", Some(Duration::from_secs(1))),
        (tonic::Code::ResourceExhausted, "OVERLOADED", None),
        (tonic::Code::Internal, "INTERNAL", None),
    ] {
        let broker = broker_of_gets(vec![Answer::Fail(refusal(code, reason, retry_delay))]);
        let error = broker.client().get(get()).await.unwrap_err();
        assert_eq!((error.reason.as_str(), error.retry_delay), (reason, retry_delay));
        assert_eq!(error.retryable, code == tonic::Code::ResourceExhausted, "{reason}");
        broker.seen(|seen| assert_eq!(seen.gets, 1, "{reason}"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_delay_that_the_broker_asks_for_is_kept() {
    let wait = Duration::from_secs(30);
    let overloaded = refusal(tonic::Code::ResourceExhausted, "OVERLOADED", Some(wait));
    let broker = broker_of_gets(vec![Answer::Fail(overloaded), Answer::Give(execution(Running))]);
    let begin = Instant::now();
    broker.client().get(get()).await.unwrap();
    assert!(begin.elapsed() >= wait, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_left_at_its_deadline_and_tried_again() {
    let broker = broker_of_gets(vec![Answer::Hang, Answer::Give(execution(Running))]);
    let begin = Instant::now();
    broker.client().get(get()).await.unwrap();
    assert!((30..31).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn tries_end_after_retry_for() {
    let broker = broker_of_gets((0..100).map(|_| Answer::Hang).collect());
    let begin = Instant::now();
    let error = broker.client().get(get()).await.unwrap_err();
    assert_eq!(error.code, Code::DeadlineExceeded);
    assert!(error.retryable);
    assert!((115..=121).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_repeated_submit_is_the_same_bytes() {
    let away = || Answer::Fail(refusal(tonic::Code::Unavailable, "BACKEND_UNAVAILABLE", None));
    let answer = proto::SubmitExecutionResponse { claim: "mine".to_owned(), ..Default::default() };
    let submits = vec![away(), away(), Answer::Give(answer.clone())];
    let broker = Broker::start(Script { submits: submits.into(), ..Default::default() });
    let labels = (0..16).map(|number| (format!("key-{number}"), "value".to_owned())).collect();
    let request = proto::SubmitExecutionRequest { execution_id: "e".to_owned(), labels, ..Default::default() };
    assert_eq!(broker.client().submit(request).await.unwrap(), answer);
    let sent = broker.seen(|seen| seen.submits.clone());
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|bytes| *bytes == sent[0]));
    // Five bytes of framing come first.
    let decoded: proto::SubmitExecutionRequest = prost::Message::decode(&sent[0][5..]).unwrap();
    let submit_before = decoded.submit_before.unwrap().seconds;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((590..=600).contains(&(submit_before - i64::try_from(now).unwrap())));
}

#[tokio::test(start_paused = true)]
async fn an_error_says_what_the_broker_said() {
    let mut details = ErrorDetails::with_error_info("INVALID_SPEC", "podbroker.io", []);
    details.add_bad_request_violation("workload.pod.spec.containers[0].imge", "unknown field");
    details.set_request_info("r-17", "");
    let status = tonic::Status::with_error_details(tonic::Code::InvalidArgument, "one field is unknown", details);
    let broker = broker_of_gets(vec![Answer::Fail(status)]);
    let error = broker.client().get(get()).await.unwrap_err();
    let field = "workload.pod.spec.containers[0].imge".to_owned();
    assert_eq!(*error.field_violations, [FieldViolation { field, description: "unknown field".to_owned() }]);
    assert_eq!((error.code, &*error.request_id), (Code::InvalidArgument, "r-17"));
    assert_eq!(error.to_string(), "one field is unknown");
    assert!(!error.retryable);
}

#[tokio::test(start_paused = true)]
async fn the_token_is_sent_with_each_request() {
    let token = Some(Token::Value(podbroker_client::Secret::new("s3cret")));
    let broker = broker_of_gets(vec![Answer::Give(execution(Running))]);
    let client = broker.client_with(Settings { token, ..Settings::new("http://localhost:1") });
    client.get(get()).await.unwrap();
    client.server_info().await.unwrap();
    broker.seen(|seen| {
        assert_eq!(seen.authorizations, [Some("Bearer s3cret".to_owned()), Some("Bearer s3cret".to_owned())]);
        assert!(seen.user_agents.iter().all(|agent| agent.starts_with("podbroker-client/")), "{:?}", seen.user_agents);
    });
}

#[tokio::test(start_paused = true)]
async fn a_check_arrives_one_by_one() {
    let broker = Broker::start(Script::default());
    let mut checks = broker.client().check_target(proto::TargetSelector::default()).await.unwrap();
    let mut links = Vec::new();
    while let Some(check) = checks.next().await {
        links.push(check.unwrap().link);
    }
    assert_eq!(links, ["caller", "target"]);
}

#[tokio::test(start_paused = true)]
async fn lines_have_a_connection_of_their_own() {
    let watches = vec![
        vec![Step::Send(state("1", Running)), Step::Hang],
        vec![Step::Send(state("1", Running)), Step::Hang],
        vec![Step::Send(state("1", Running)), Step::Hang],
    ];
    let script = Script { watches: watches.into(), ..Default::default() };
    let broker = Broker::start(script);
    let client = broker.client();
    let request = |logs: proto::LogMode| {
        let options = proto::WatchOptions { logs: logs.into(), ..Default::default() };
        proto::WatchExecutionRequest { options: Some(options), ..Default::default() }
    };
    client.server_info().await.unwrap();
    let mut states = client.watch(request(proto::LogMode::None));
    states.next().await.unwrap().unwrap();
    broker.seen(|seen| assert_eq!(seen.connections, 1, "states share the connection of the calls"));
    let mut first = client.watch(request(proto::LogMode::Lines));
    first.next().await.unwrap().unwrap();
    let mut second = client.watch(request(proto::LogMode::Unspecified));
    second.next().await.unwrap().unwrap();
    broker.seen(|seen| assert_eq!(seen.connections, 2, "streams of lines share another"));
}

#[tokio::test(start_paused = true)]
async fn unread_lines_hold_back_nobody_else() {
    // More than twice the window of a stream, unread.
    let flood = || (0..40).map(|_| Step::Send(lines("2", &["x".repeat(64 << 10).as_str()])));
    let mut watches = Vec::new();
    for _ in 0..20 {
        watches.push(std::iter::once(Step::Send(state("1", Running))).chain(flood()).collect());
    }
    watches.push(vec![Step::Send(state("1", Running)), Step::Send(end("2"))]);
    let broker = Broker::start(Script { watches: watches.into(), ..Default::default() });
    let client = broker.client();
    let mut unread = Vec::new();
    for _ in 0..20 {
        let mut watch = client.watch(proto::WatchExecutionRequest::default());
        watch.next().await.unwrap().unwrap();
        unread.push(watch);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut read = client.watch(proto::WatchExecutionRequest::default());
    read.next().await.unwrap().unwrap();
    assert_eq!(read.next().await.unwrap().unwrap().cursor, "2");
    client.server_info().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn more_streams_than_a_connection_takes_get_another() {
    let watches = (0..150).map(|_| vec![Step::Send(state("1", Running)), Step::Hang]).collect();
    let broker = Broker::start(Script { watches, ..Default::default() });
    let client = broker.client();
    let mut watches = Vec::new();
    for _ in 0..150 {
        let mut watch = client.watch(proto::WatchExecutionRequest::default());
        watch.next().await.unwrap().unwrap();
        watches.push(watch);
    }
    broker.seen(|seen| assert_eq!(seen.connections, 2));
}
