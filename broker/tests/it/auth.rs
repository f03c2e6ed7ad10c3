//! Who may call, and where they may run something.

use podbroker::auth::{AllowedTargets, Authenticator, Caller, Token};
use podbroker::config::Limits;
use podbroker_proto::v1 as wire;
use tonic::{Code, Request};
use wire::CheckStatus::{Failed, Passed, Skipped};

use crate::scripted::Seen;
use crate::world::{World, by_name, by_place, name, reason, submit_request};

fn caller(subject: &str, targets: AllowedTargets) -> (Token, Caller) {
    (
        Token::random(),
        Caller { subject: subject.to_owned(), tenant: format!("{subject}-team").parse().unwrap(), targets },
    )
}

fn only(targets: &[&str]) -> AllowedTargets {
    AllowedTargets::Only(targets.iter().map(|target| target.parse().unwrap()).collect())
}

fn world(callers: &[&(Token, Caller)]) -> World {
    let tokens = callers.iter().map(|(token, caller)| (token.digest(), caller.clone())).collect();
    World::with(Authenticator::Tokens(tokens), &Limits::default())
}

fn with<T>(token: &Token, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {}", token.expose()).parse().unwrap());
    request
}

#[tokio::test]
async fn a_call_without_a_known_token_reaches_no_backend() {
    let known = caller("a", AllowedTargets::All);
    let world = world(&[&known]);
    let mut client = world.client().await;

    let without = client.submit_execution(submit_request("alpha", "x")).await.unwrap_err();
    let unknown = client.submit_execution(with(&Token::random(), submit_request("alpha", "x"))).await.unwrap_err();

    for status in [without, unknown] {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "UNAUTHENTICATED"));
    }
    let watch = wire::WatchExecutionRequest { name: name("alpha", "x"), ..Default::default() };
    assert_eq!(client.watch_execution(watch).await.unwrap_err().code(), Code::Unauthenticated);
    let many = client.watch_executions(futures::stream::empty()).await.unwrap_err();
    assert_eq!(many.code(), Code::Unauthenticated);
    assert!(world.alpha.seen().is_empty());
}

#[tokio::test]
async fn subject_and_tenant_come_from_the_token() {
    let known = caller("airflow", AllowedTargets::All);
    let world = world(&[&known]);
    let mut client = world.client().await;

    client.submit_execution(with(&known.0, submit_request("alpha", "x"))).await.unwrap();

    let seen = world.alpha.seen();
    let Seen::Submit(tenant, submit) = &seen[0] else { panic!("{seen:?}") };
    assert_eq!((tenant.as_str(), submit.subject.as_str()), ("airflow-team", "airflow"));
    let info = client.get_server_info(with(&known.0, wire::GetServerInfoRequest {})).await.unwrap().into_inner();
    assert_eq!((info.caller_subject.as_str(), info.caller_tenant.as_str()), ("airflow", "airflow-team"));
    assert_eq!(info.features, ["infra-retry", "group", "orphan"]);
}

#[tokio::test]
async fn a_target_that_is_not_allowed_is_refused_for_every_call() {
    let known = caller("a", only(&["beta"]));
    let world = world(&[&known]);
    let mut client = world.client().await;
    let token = &known.0;
    let name = name("alpha", "x");

    let refusals = [
        client.submit_execution(with(token, submit_request("alpha", "x"))).await.unwrap_err(),
        client.get_execution(with(token, wire::GetExecutionRequest { name: name.clone(), view: 0 })).await.unwrap_err(),
        client
            .list_executions(with(
                token,
                wire::ListExecutionsRequest { target: by_name("alpha"), ..Default::default() },
            ))
            .await
            .unwrap_err(),
        client
            .cancel_execution(with(token, wire::CancelExecutionRequest { name: name.clone(), ..Default::default() }))
            .await
            .unwrap_err(),
        client
            .release_execution(with(token, wire::ReleaseExecutionRequest { name: name.clone(), ..Default::default() }))
            .await
            .unwrap_err(),
        client
            .watch_execution(with(token, wire::WatchExecutionRequest { name, ..Default::default() }))
            .await
            .unwrap_err(),
    ];

    for status in refusals {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "TARGET_NOT_ALLOWED"));
        assert_eq!(status.message(), "a may not use the target alpha");
    }
    assert!(world.alpha.seen().is_empty());
}

#[tokio::test]
async fn a_caller_without_targets_sees_and_finds_none() {
    let known = caller("a", only(&[]));
    let world = world(&[&known]);
    let mut client = world.client().await;

    let targets = client.list_targets(with(&known.0, wire::ListTargetsRequest {})).await.unwrap().into_inner().targets;
    assert!(targets.is_empty());
    let place = by_place(wire::TargetPlace { namespace: "one".to_owned(), ..Default::default() });
    let request = wire::ListExecutionsRequest { target: place, ..Default::default() };
    let status = client.list_executions(with(&known.0, request)).await.unwrap_err();
    // Not "may not use": a place tells nobody about the targets of others.
    assert_eq!(reason(&status), "NO_SUCH_TARGET");
}

#[tokio::test]
async fn a_place_means_the_only_target_that_matches_among_the_callers() {
    let both = caller("both", AllowedTargets::All);
    let one = caller("one", only(&["beta"]));
    let world = world(&[&both, &one]);
    let mut client = world.client().await;
    let list = |place| wire::ListExecutionsRequest { target: by_place(place), ..Default::default() };
    let here = wire::TargetPlace { region: "here".to_owned(), ..Default::default() };
    let two = wire::TargetPlace { namespace: "two".to_owned(), ..here.clone() };

    client.list_executions(with(&both.0, list(two.clone()))).await.unwrap();
    client.list_executions(with(&one.0, list(here.clone()))).await.unwrap();
    assert_eq!((world.alpha.seen().len(), world.beta.seen().len()), (0, 2));

    let ambiguous = client.list_executions(with(&both.0, list(here))).await.unwrap_err();
    assert_eq!(reason(&ambiguous), "INVALID_REQUEST");
    assert!(ambiguous.message().contains("alpha and beta"), "{}", ambiguous.message());
    let role = wire::TargetPlace { role_arn: "arn:aws:iam::1:role/x".to_owned(), ..two };
    assert_eq!(reason(&client.list_executions(with(&both.0, list(role))).await.unwrap_err()), "NO_SUCH_TARGET");
}

#[tokio::test]
async fn a_check_answers_what_is_wrong_with_the_caller_and_goes_no_further() {
    let known = caller("a", only(&["beta"]));
    let world = world(&[&known]);
    let mut client = world.client().await;
    let mut check = async |target: &str| {
        let request = with(&known.0, wire::CheckTargetRequest { target: by_name(target) });
        let mut stream = client.check_target(request).await.unwrap().into_inner();
        let mut links = Vec::new();
        while let Some(answer) = stream.message().await.unwrap() {
            let check = answer.check.unwrap();
            links.push((check.link.clone(), check.status(), !check.fix.is_empty()));
        }
        links
    };
    let link = |link: &str, status, has_fix| (link.to_owned(), status, has_fix);

    for target in ["alpha", "gamma"] {
        let mut expected = vec![link("caller", Passed, false), link("target", Failed, true)];
        let rest = ["workload-identity", "role", "cluster", "connect", "token", "permission", "create"];
        expected.extend(rest.map(|rest| link(rest, Skipped, false)));
        assert_eq!(check(target).await, expected, "{target}");
    }
    let walked = ["caller", "target", "connect"].map(|passed| link(passed, Passed, false));
    assert_eq!(check("beta").await, [walked.as_slice(), &[link("identity", Failed, true)]].concat());
}

#[tokio::test]
async fn probes_and_reflection_need_no_token() {
    let world = world(&[]);
    let mut health = tonic_health::pb::health_client::HealthClient::new(world.channel().await);
    for service in ["", "podbroker.v1.BrokerService"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    }
}
