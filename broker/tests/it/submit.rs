//! What of a request reaches the backend, and what comes back.

use std::time::Duration;

use jiff::Timestamp;
use podbroker::auth::Authenticator;
use podbroker::backend::View;
use podbroker::config::Limits;
use podbroker::execution::{FailureClass, FinishAction, InfraRetryRequest, ResultSource, SubmitMode, Workload};
use podbroker_proto::v1 as wire;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::scripted::{Seen, Surprise};
use crate::world::{World, by_name, name, pod, reason, submit_request};

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

async fn submitted(world: &World, request: wire::SubmitExecutionRequest) -> podbroker::execution::Submit {
    world.client().await.submit_execution(request).await.unwrap();
    match world.alpha.seen().pop() {
        Some(Seen::Submit(_, submit)) => *submit,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn everything_that_was_asked_for_reaches_the_backend() {
    let world = World::new();
    let policies = wire::Policies {
        deadlines: Some(wire::Deadlines { start: seconds(5), run: seconds(7) }),
        finish: Some(wire::FinishPolicy { action: wire::FinishAction::Keep.into(), ttl: seconds(90) }),
        result: Some(wire::ResultPolicy { source: wire::ResultSource::Sidecar.into(), max_bytes: 17 }),
        deciding_containers: vec!["base".to_owned()],
        drain_deadline: seconds(3),
        infra_retry: Some(wire::InfraRetryPolicy {
            failure_classes: vec![wire::FailureClass::Evicted.into()],
            max_attempts: 2,
            max_free_attempts: 0,
            backoff: seconds(4),
        }),
        orphan: Some(wire::OrphanPolicy { cancel_after: seconds(400) }),
    };
    let at = Timestamp::now() + Duration::from_mins(1);
    let submit_before = prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() };
    let request = wire::SubmitExecutionRequest {
        submit_before: Some(submit_before),
        labels: [("team".to_owned(), "data".to_owned())].into(),
        policies: Some(policies),
        ..submit_request("alpha", "run.1")
    };

    let submit = submitted(&world, request).await;

    assert_eq!(submit.id.as_str(), "run.1");
    assert_eq!(submit.submit_before, at);
    let Workload::Pod(manifest) = &submit.workload else { panic!("{:?}", submit.workload) };
    assert_eq!(serde_json::to_string(manifest).unwrap(), r#"{"spec":{}}"#);
    assert_eq!(submit.labels["team"], "data");
    assert_eq!(submit.mode, SubmitMode::Create);
    assert_eq!(submit.subject, "local");
    let policies = submit.policies;
    assert_eq!(policies.start_deadline, Some(Duration::from_secs(5)));
    assert_eq!(policies.run_deadline, Some(Duration::from_secs(7)));
    assert_eq!(policies.finish, Some(FinishAction::Keep));
    assert_eq!(policies.ttl, Some(Duration::from_secs(90)));
    assert_eq!(policies.result, Some(ResultSource::Sidecar));
    assert_eq!(policies.result_max_bytes, Some(17));
    assert_eq!(policies.deciding_containers, ["base"]);
    assert_eq!(policies.drain_deadline, Some(Duration::from_secs(3)));
    let infra_retry = InfraRetryRequest {
        classes: vec![FailureClass::Evicted],
        max_attempts: Some(2),
        max_free_attempts: None,
        backoff: Some(Duration::from_secs(4)),
    };
    assert_eq!(policies.infra_retry, Some(infra_retry));
    assert_eq!(policies.orphan_after, Some(Duration::from_secs(400)));
}

#[tokio::test]
async fn what_was_not_said_is_left_to_the_target() {
    let world = World::new();
    let request = wire::SubmitExecutionRequest {
        policies: Some(wire::Policies { finish: Some(wire::FinishPolicy::default()), ..Default::default() }),
        ..submit_request("alpha", "x")
    };
    let before = Timestamp::now();

    let submit = submitted(&world, request).await;

    assert_eq!(submit.policies, podbroker::execution::PolicyRequest::default());
    let window = submit.submit_before.duration_since(before).as_secs();
    assert!((600..660).contains(&window), "{window}");
}

#[tokio::test]
async fn both_forms_of_a_manifest_are_the_same() {
    let world = World::new();
    let number = |value| prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(value)) };
    let fields = [("port".to_owned(), number(8080.0)), ("share".to_owned(), number(0.5))].into();
    let as_struct = wire::pod_workload::Manifest::Struct(prost_types::Struct { fields });
    let as_json = wire::pod_workload::Manifest::Json(br#"{"port":8080,"share":0.5}"#.to_vec());

    let mut manifests = Vec::new();
    for manifest in [as_struct, as_json] {
        let request = wire::SubmitExecutionRequest { workload: pod(manifest), ..submit_request("alpha", "x") };
        let Workload::Pod(manifest) = submitted(&world, request).await.workload else { panic!("a pod") };
        manifests.push(manifest);
    }

    assert_eq!(manifests[0], manifests[1]);
    assert!(manifests[0]["port"].is_i64());
}

#[tokio::test]
async fn the_answer_says_what_there_is() {
    let world = World::new();
    let mut client = world.client().await;
    let create = client.submit_execution(submit_request("alpha", "x")).await.unwrap();
    assert_eq!(create.metadata().get("x-request-id").unwrap().len(), 16);
    let create = create.into_inner();
    let execution = create.execution.unwrap();
    assert!(create.created);
    assert_eq!((create.claim.as_str(), execution.name.as_str()), ("claim-1", "targets/alpha/executions/x"));
    assert_eq!((execution.target.as_str(), execution.tenant.as_str()), ("alpha", "default"));
    assert_eq!(execution.state(), wire::ExecutionState::Running);
    assert_eq!(execution.attempts[0].pod_namespace, "pods");
    assert_eq!(execution.create_time, Some(prost_types::Timestamp { seconds: 0, nanos: 0 }));
    assert_eq!(execution.policies.unwrap().finish.unwrap().ttl, seconds(86_400));

    let request = wire::SubmitExecutionRequest { validate_only: true, ..submit_request("alpha", "x") };
    let validated = client.submit_execution(request).await.unwrap().into_inner();
    assert_eq!(validated.execution.unwrap().name, "");
    let seen = world.alpha.seen();
    let [Seen::Submit(_, first), Seen::Submit(_, second)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((first.mode, second.mode), (SubmitMode::Create, SubmitMode::ValidateOnly));
}

#[tokio::test]
async fn a_page_leads_to_the_next_one_and_the_last_to_none() {
    let world = World::new();
    world.alpha.has(&["a", "b", "c", "d", "e"]);
    let mut client = world.client().await;
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            wire::ListExecutionsRequest { target: by_name("alpha"), page_size: 2, page_token, ..Default::default() };
        let answer = client.list_executions(request).await.unwrap().into_inner();
        pages.push(answer.executions.into_iter().map(|one| one.execution_id).collect::<Vec<_>>());
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(
        world.alpha.seen().iter().all(
            |seen| matches!(seen, Seen::List(tenant, filter) if tenant.as_str() == "default" && filter.limit == 3)
        )
    );
    assert_eq!(pages, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
}

#[tokio::test]
async fn a_full_last_page_has_no_next_one() {
    let world = World::new();
    world.alpha.has(&["a", "b"]);
    let request = wire::ListExecutionsRequest { target: by_name("alpha"), page_size: 2, ..Default::default() };
    let answer = world.client().await.list_executions(request).await.unwrap().into_inner();
    assert_eq!((answer.executions.len(), answer.next_page_token.as_str()), (2, ""));
}

#[tokio::test]
async fn the_other_calls_reach_the_backend_as_they_were_made() {
    let world = World::new();
    let mut client = world.client().await;
    let name = name("beta", "x");
    let full = wire::ExecutionView::Full.into();
    client.get_execution(wire::GetExecutionRequest { name: name.clone(), view: full }).await.unwrap();
    let cancel = wire::CancelExecutionRequest {
        name: name.clone(),
        claim: "c".to_owned(),
        reason: "enough".to_owned(),
        grace: seconds(9),
    };
    client.cancel_execution(cancel).await.unwrap();
    client.release_execution(wire::ReleaseExecutionRequest { name, claim: String::new() }).await.unwrap();

    let seen = world.beta.seen();
    let [Seen::Get(one, get, View::Full), Seen::Cancel(two, cancelled, cancel), Seen::Release(three, released, None)] =
        seen.as_slice()
    else {
        panic!("{seen:?}")
    };
    assert!([one, two, three].iter().all(|tenant| tenant.as_str() == "default"));
    assert!([get, cancelled, released].iter().all(|id| id.as_str() == "x"));
    assert_eq!(
        (cancel.reason.as_str(), cancel.claim.as_deref(), cancel.subject.as_str()),
        ("enough", Some("c"), "local")
    );
    assert_eq!(cancel.grace, Some(Duration::from_secs(9)));
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_next_call_is_served() {
    let world = World::new();
    let mut client = world.client().await;
    world.alpha.surprise(Surprise::Panic);

    let status = client.submit_execution(submit_request("alpha", "x")).await.unwrap_err();

    assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "INTERNAL"));
    assert!(!status.message().contains("as the test said"));
    client.submit_execution(submit_request("alpha", "x")).await.unwrap();
}

#[tokio::test]
async fn a_call_too_many_is_told_to_come_back() {
    let world = World::with(Authenticator::Open, &Limits { max_calls: 1, ..Limits::default() });
    let (mut first, mut second) = (world.client().await, world.client().await);
    world.alpha.surprise(Surprise::Wait);
    let waiting = world.tasks.spawn(async move { first.submit_execution(submit_request("alpha", "x")).await });
    world.alpha.waiting.notified().await;

    let status = second.submit_execution(submit_request("alpha", "y")).await.unwrap_err();

    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    world.alpha.go_on.notify_one();
    waiting.await.unwrap().unwrap();
    second.submit_execution(submit_request("alpha", "y")).await.unwrap();
}

#[tokio::test]
async fn a_compressed_request_is_understood_and_a_bomb_is_not() {
    let limits = Limits { max_request_bytes: 1 << 20, ..Limits::default() };
    let world = World::with(Authenticator::Open, &limits);
    let mut client = world.client().await.send_compressed(CompressionEncoding::Gzip);
    client.submit_execution(submit_request("alpha", "x")).await.unwrap();

    let json = vec![b' '; 64 << 20];
    let request = wire::SubmitExecutionRequest {
        workload: pod(wire::pod_workload::Manifest::Json(json)),
        ..submit_request("alpha", "x")
    };
    let status = client.submit_execution(request).await.unwrap_err();

    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted | Code::Internal), "{status:?}");
    assert_eq!(world.alpha.seen().len(), 1);
}

#[tokio::test]
async fn what_was_served_is_counted() {
    let world = World::new();
    let mut client = world.client().await;
    client.list_targets(wire::ListTargetsRequest {}).await.unwrap();
    let _ = client.submit_execution(submit_request("gamma", "x")).await.unwrap_err();

    let text = world.metrics.text().unwrap();

    for line in [
        r#"podbroker_calls_total{rpc="ListTargets",code="OK"} 1"#,
        r#"podbroker_calls_total{rpc="SubmitExecution",code="NOT_FOUND"} 1"#,
        r#"podbroker_target_serving{target="alpha"} 1"#,
        "podbroker_open_watches 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|said| said == line), "{line} is not in\n{text}");
    }
}
