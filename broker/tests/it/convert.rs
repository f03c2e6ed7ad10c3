//! Requests that are wrong: each is refused with the name of its field and reaches no backend.

use podbroker_proto::v1 as wire;
use tonic::{Code, Status};

use crate::world::{World, by_name, fields, name, pod, reason, submit_request};

type Change = fn(&mut wire::SubmitExecutionRequest);

fn policies(request: &mut wire::SubmitExecutionRequest) -> &mut wire::Policies {
    request.policies.get_or_insert_default()
}

fn length(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

fn json(text: &str) -> Option<wire::Workload> {
    pod(wire::pod_workload::Manifest::Json(text.into()))
}

async fn refused(world: &World, change: Change) -> Status {
    let mut request = submit_request("alpha", "x");
    change(&mut request);
    world.client().await.submit_execution(request).await.unwrap_err()
}

#[tokio::test]
async fn each_malformed_field_is_named() {
    let world = World::new();
    let cases: &[(&str, Change)] = &[
        ("target", |r| r.target = None),
        ("target", |r| r.target = Some(wire::TargetSelector { selector: None })),
        ("target.name", |r| r.target = by_name("No Label")),
        ("target.name", |r| r.target = by_name("")),
        ("execution_id", |r| r.execution_id = String::new()),
        ("execution_id", |r| r.execution_id = "-x".to_owned()),
        ("execution_id", |r| r.execution_id = "x/y".to_owned()),
        ("execution_id", |r| r.execution_id = "x".repeat(201)),
        ("submit_before", |r| r.submit_before = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 })),
        ("submit_before", |r| r.submit_before = Some(prost_types::Timestamp { seconds: 0, nanos: -1 })),
        ("submit_before", |r| r.submit_before = Some(prost_types::Timestamp { seconds: 7_258_118_400, nanos: 0 })),
        ("workload", |r| r.workload = None),
        ("workload", |r| r.workload = Some(wire::Workload { workload: None })),
        ("workload", |r| {
            let pod = wire::PodWorkload { manifest: None };
            r.workload = Some(wire::Workload { workload: Some(wire::workload::Workload::Pod(pod)) });
        }),
        ("labels", |r| r.labels = [("no key".to_owned(), String::new())].into()),
        ("labels", |r| r.labels = [("key".to_owned(), "no value".to_owned())].into()),
        ("labels", |r| r.labels = [("podbroker.io/tenant".to_owned(), "other".to_owned())].into()),
        ("labels", |r| r.labels = (0..17).map(|i| (format!("k{i}"), String::new())).collect()),
        ("policies.deadlines.start", |r| policies(r).deadlines.get_or_insert_default().start = length(-1, 0)),
        ("policies.deadlines.run", |r| policies(r).deadlines.get_or_insert_default().run = length(0, -1)),
        ("policies.deadlines.run", |r| policies(r).deadlines.get_or_insert_default().run = length(i64::MAX, 0)),
        ("policies.finish.action", |r| policies(r).finish.get_or_insert_default().action = 99),
        ("policies.finish.ttl", |r| policies(r).finish.get_or_insert_default().ttl = length(1, 1_000_000_000)),
        ("policies.result.source", |r| policies(r).result.get_or_insert_default().source = -1),
        ("policies.result.max_bytes", |r| policies(r).result.get_or_insert_default().max_bytes = -1),
        ("policies.deciding_containers", |r| policies(r).deciding_containers = vec!["No Name".to_owned()]),
        ("policies.drain_deadline", |r| policies(r).drain_deadline = length(-1, 0)),
        ("must_exist", |r| (r.must_exist, r.validate_only) = (true, true)),
    ];
    for (index, (field, change)) in cases.iter().enumerate() {
        let status = refused(&world, *change).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{index}");
        assert_eq!(fields(&status), [*field], "{index}: {status:?}");
    }
    assert!(world.alpha.seen().is_empty());
}

#[tokio::test]
async fn a_manifest_that_is_none_is_an_invalid_spec() {
    let world = World::new();
    let cases: &[Change] = &[
        |r| r.workload = json(""),
        |r| r.workload = json("[]"),
        |r| r.workload = json("{\"a\":"),
        |r| r.workload = json(&"[".repeat(1000)),
        |r| r.workload = json(&format!("{{\"a\":\"{}\"}}", "x".repeat(256 << 10))),
        |r| r.workload = pod(wire::pod_workload::Manifest::Json(vec![0xff])),
        |r| {
            let nan = prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(f64::NAN)) };
            let fields = [("n".to_owned(), nan)].into();
            r.workload = pod(wire::pod_workload::Manifest::Struct(prost_types::Struct { fields }));
        },
    ];
    for (index, change) in cases.iter().enumerate() {
        let status = refused(&world, *change).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_SPEC"), "{index}");
        assert_eq!(fields(&status).len(), 1, "{index}");
    }
    assert!(world.alpha.seen().is_empty());
}

#[tokio::test]
async fn what_this_version_does_not_have_is_refused_and_never_ignored() {
    let world = World::new();
    let cases: &[(&str, Change)] = &[
        ("batch", |r| {
            let batch = wire::workload::Workload::Batch(wire::BatchWorkload::default());
            r.workload = Some(wire::Workload { workload: Some(batch) });
        }),
        ("group", |r| r.group = Some(wire::Group::default())),
        ("infra-retry", |r| policies(r).infra_retry = Some(wire::InfraRetryPolicy::default())),
        ("orphan", |r| policies(r).orphan = Some(wire::OrphanPolicy::default())),
        ("archive", |r| r.required_features = vec!["archive".to_owned()]),
        ("teleport", |r| r.required_features = vec!["teleport".to_owned()]),
    ];
    for (feature, change) in cases {
        let status = refused(&world, *change).await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unimplemented, "UNSUPPORTED_FEATURE"),
            "{feature}"
        );
        assert!(status.message().contains(feature), "{}", status.message());
    }
    assert!(world.alpha.seen().is_empty());
}

#[tokio::test]
async fn the_other_calls_name_their_fields_too() {
    let world = World::new();
    let mut client = world.client().await;
    let ok = name("alpha", "x");
    let watch = |change: fn(&mut wire::WatchOptions)| {
        let mut options = wire::WatchOptions::default();
        change(&mut options);
        wire::WatchExecutionRequest { name: name("alpha", "x"), options: Some(options), cursor: Vec::new() }
    };
    let cancel = |change: fn(&mut wire::CancelExecutionRequest)| {
        let mut request = wire::CancelExecutionRequest { name: name("alpha", "x"), ..Default::default() };
        change(&mut request);
        request
    };
    let list = |change: fn(&mut wire::ListExecutionsRequest)| {
        let mut request = wire::ListExecutionsRequest { target: by_name("alpha"), ..Default::default() };
        change(&mut request);
        request
    };
    let mut refusals = Vec::new();
    for bad in
        ["", "x", "targets/alpha", "targets/alpha/executions/", "targets/../executions/x", "targets/A/executions/x"]
    {
        let request = wire::GetExecutionRequest { name: bad.to_owned(), view: 0 };
        refusals.push(("name", client.get_execution(request).await.unwrap_err()));
    }
    refusals.push(("view", client.get_execution(wire::GetExecutionRequest { name: ok, view: 7 }).await.unwrap_err()));
    for (field, request) in [
        ("options.logs", watch(|options| options.logs = 9)),
        ("options.tail_lines", watch(|options| options.tail_lines = -1)),
        ("options.max_log_bytes", watch(|options| options.max_log_bytes = i64::MIN)),
        ("options.containers", watch(|options| options.containers = vec![String::new()])),
        (
            "options.since",
            watch(|options| options.since = Some(prost_types::Timestamp { seconds: i64::MIN, nanos: 0 })),
        ),
    ] {
        refusals.push((field, client.watch_execution(request).await.unwrap_err()));
    }
    for (field, request) in [
        ("claim", cancel(|request| request.claim = "c".repeat(257))),
        ("reason", cancel(|request| request.reason = "r".repeat(1025))),
        ("grace", cancel(|request| request.grace = length(3601, 0))),
        ("grace", cancel(|request| request.grace = length(1, 1))),
        ("grace", cancel(|request| request.grace = length(-1, 0))),
    ] {
        refusals.push((field, client.cancel_execution(request).await.unwrap_err()));
    }
    for (field, request) in [
        ("page_size", list(|request| request.page_size = -1)),
        ("page_size", list(|request| request.page_size = 1001)),
        ("page_token", list(|request| request.page_token = "not ours".to_owned())),
        ("page_token", list(|request| request.page_token = "_w".to_owned())),
        ("states", list(|request| request.states = vec![0])),
        ("states", list(|request| request.states = vec![99])),
        ("labels", list(|request| request.labels = [("no key".to_owned(), String::new())].into())),
    ] {
        refusals.push((field, client.list_executions(request).await.unwrap_err()));
    }
    for (field, status) in refusals {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{field}");
        assert_eq!(fields(&status), [field], "{status:?}");
    }
    assert!(world.alpha.seen().is_empty());
}
