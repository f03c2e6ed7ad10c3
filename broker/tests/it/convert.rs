//! Requests that are wrong: each is refused with the name of its field and reaches no backend. And what an execution and
//! its events look like on the wire.

use std::time::Duration;

use bytes::Bytes;
use podbroker::execution::{
    CancelIntent, Completeness, ContainerOutcome, ContainerRole, Cursor, Event, EventKind, FailureClass, FinishAction,
    Gap, GapReason, InfraRetry, Instance, NoResult, Notice, Outcome, ResultSource, Severity, State,
};
use podbroker_proto::v1 as wire;
use tonic::{Code, Status};
use wire::event::Event as Kind;

use crate::scripted::execution;
use crate::world::{World, by_name, fields, name, pod, reason, submit_request, watch_request};

type Change = fn(&mut wire::SubmitExecutionRequest);

fn policies(request: &mut wire::SubmitExecutionRequest) -> &mut wire::Policies {
    request.policies.get_or_insert_default()
}

fn infra_retry(request: &mut wire::SubmitExecutionRequest) -> &mut wire::InfraRetryPolicy {
    policies(request).infra_retry.get_or_insert_default()
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
        ("policies.infra_retry.failure_classes", |r| infra_retry(r).failure_classes = vec![99]),
        ("policies.infra_retry.failure_classes", |r| infra_retry(r).failure_classes = vec![0]),
        ("policies.infra_retry.max_attempts", |r| infra_retry(r).max_attempts = -1),
        ("policies.infra_retry.max_free_attempts", |r| infra_retry(r).max_free_attempts = -1),
        ("policies.infra_retry.backoff", |r| infra_retry(r).backoff = length(-1, 0)),
        ("policies.orphan.cancel_after", |r| policies(r).orphan = Some(wire::OrphanPolicy::default())),
        ("policies.orphan.cancel_after", |r| {
            policies(r).orphan = Some(wire::OrphanPolicy { cancel_after: length(-1, 0) });
        }),
        ("group.group_id", |r| r.group = Some(wire::Group::default())),
        ("group.action", |r| {
            r.group = Some(wire::Group { group_id: "g".to_owned(), action: 99, ..Default::default() });
        }),
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

fn moment(seconds: i64, nanos: i32) -> Option<jiff::Timestamp> {
    Some(jiff::Timestamp::new(seconds, nanos).unwrap())
}

fn wire_moment(seconds: i64, nanos: i32) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos })
}

fn outcome() -> Outcome {
    let container = ContainerOutcome {
        container: "base".to_owned(),
        role: ContainerRole::Deciding,
        exit_code: Some(137),
        signal: Some(9),
        reason: "OOMKilled".to_owned(),
        message: "too much".to_owned(),
        restarts: 2,
        started: moment(10, 0),
        ended: moment(20, 0),
    };
    Outcome {
        state: State::Failed,
        class: Some(FailureClass::OutOfMemory),
        reason: "OOMKilled".to_owned(),
        message: "killed for memory".to_owned(),
        containers: vec![container],
        exit_code: Some(137),
    }
}

fn wire_outcome() -> wire::Outcome {
    let container = wire::ContainerOutcome {
        container: "base".to_owned(),
        role: wire::ContainerRole::Deciding.into(),
        exit_code: Some(137),
        signal: Some(9),
        reason: "OOMKilled".to_owned(),
        message: "too much".to_owned(),
        restart_count: 2,
        start_time: wire_moment(10, 0),
        end_time: wire_moment(20, 0),
    };
    wire::Outcome {
        state: wire::ExecutionState::Failed.into(),
        failure_class: wire::FailureClass::OutOfMemory.into(),
        reason: "OOMKilled".to_owned(),
        message: "killed for memory".to_owned(),
        containers: vec![container],
        exit_code: Some(137),
    }
}

/// What a watcher of `x` at `alpha` is told.
async fn told(world: &World, kind: EventKind) -> wire::event::Event {
    let events = world.alpha.expect_watch("x");
    let mut stream = world.client().await.watch_execution(watch_request("alpha", "x")).await.unwrap().into_inner();
    events.send(Ok(Event { cursor: Cursor::start("h".to_owned()), kind })).await.unwrap();
    stream.message().await.unwrap().unwrap().event.unwrap().event.unwrap()
}

#[tokio::test]
async fn an_execution_says_everything_that_is_known_of_it() {
    let world = World::new();
    let mut known = execution("alpha", "default", "x");
    known.labels.insert("team".to_owned(), "data".to_owned());
    known.state = State::Ending;
    known.state_reason = "lines are on their way".to_owned();
    known.outcome = Some(outcome());
    known.created = moment(1, 5);
    known.started = moment(2, 6);
    known.ended = moment(-1, -500_000_000);
    known.released = moment(4, 8);
    known.pod_json = Some(b"{}".to_vec());
    known.job_json = Some(br#"{"kind":"Job"}"#.to_vec());
    known.policies.start_deadline = Some(Duration::from_millis(1500));
    known.policies.finish = FinishAction::DeleteSucceeded;
    known.policies.result = ResultSource::TerminationMessage;
    known.policies.deciding_containers = vec!["base".to_owned()];
    known.policies.infra_retry = Some(InfraRetry {
        classes: vec![FailureClass::NodeLost],
        max_attempts: 2,
        max_free_attempts: 3,
        backoff: Duration::from_secs(4),
    });
    known.policies.orphan_after = Some(Duration::from_mins(10));
    known.cancel = Some(CancelIntent {
        by: "me".to_owned(),
        reason: "enough".to_owned(),
        class: FailureClass::CancelledByCaller,
        at: moment(3, 7).unwrap(),
    });

    let Kind::End(wire::End { execution: Some(said) }) = told(&world, EventKind::End(Box::new(known.clone()))).await
    else {
        panic!()
    };

    let expected = wire::Execution {
        name: "targets/alpha/executions/x".to_owned(),
        execution_id: "x".to_owned(),
        target: "alpha".to_owned(),
        tenant: "default".to_owned(),
        labels: [("team".to_owned(), "data".to_owned())].into(),
        state: wire::ExecutionState::Ending.into(),
        state_reason: "lines are on their way".to_owned(),
        outcome: Some(wire_outcome()),
        attempts: vec![wire::Attempt {
            number: 1,
            state: wire::ExecutionState::Running.into(),
            pod_name: known.address.pod_name(1),
            pod_namespace: "pods".to_owned(),
            pod_uid: "uid".to_owned(),
            node_name: "node".to_owned(),
            batch_job_id: String::new(),
            job_name: "job".to_owned(),
        }],
        policies: Some(wire::Policies {
            deadlines: Some(wire::Deadlines { start: length(1, 500_000_000), run: None }),
            finish: Some(wire::FinishPolicy {
                action: wire::FinishAction::DeleteSucceeded.into(),
                ttl: length(86_400, 0),
            }),
            result: Some(wire::ResultPolicy { source: wire::ResultSource::TerminationMessage.into(), max_bytes: 1 }),
            deciding_containers: vec!["base".to_owned()],
            infra_retry: Some(wire::InfraRetryPolicy {
                failure_classes: vec![wire::FailureClass::NodeLost.into()],
                max_attempts: 2,
                max_free_attempts: 3,
                backoff: length(4, 0),
            }),
            orphan: Some(wire::OrphanPolicy { cancel_after: length(600, 0) }),
            drain_deadline: length(30, 0),
        }),
        create_time: wire_moment(1, 5),
        start_time: wire_moment(2, 6),
        // The wire counts nanoseconds forward.
        end_time: wire_moment(-2, 500_000_000),
        spec_digest: "d".repeat(64),
        cancel: Some(wire::CancelIntent {
            requested_by: "me".to_owned(),
            reason: "enough".to_owned(),
            failure_class: wire::FailureClass::CancelledByCaller.into(),
            request_time: wire_moment(3, 7),
        }),
        release_time: wire_moment(4, 8),
        pod_json: b"{}".to_vec(),
        job_json: br#"{"kind":"Job"}"#.to_vec(),
    };
    assert_eq!(said, expected);
}

#[tokio::test]
async fn every_other_kind_of_event_says_what_happened() {
    let world = World::new();
    let instance = || Instance { attempt: 3, container: "side".to_owned(), restart: 4, role: ContainerRole::Sidecar };
    let wire_instance = || {
        let role = wire::ContainerRole::Sidecar.into();
        Some(wire::ContainerInstance { attempt: 3, container: "side".to_owned(), restart: 4, role })
    };
    let attempt = execution("alpha", "default", "x").attempts.remove(0);

    let Kind::AttemptStarted(said) = told(&world, EventKind::AttemptStarted(attempt.clone())).await else { panic!() };
    let wire_attempt = said.attempt;
    assert_eq!(wire_attempt.as_ref().unwrap().pod_name, attempt.pod_name);
    assert_eq!(
        told(&world, EventKind::AttemptEnded(attempt, outcome())).await,
        Kind::AttemptEnded(wire::AttemptEnded { attempt: wire_attempt, outcome: Some(wire_outcome()) })
    );
    let gap = Gap {
        instance: instance(),
        reason: GapReason::ResumeAmbiguous,
        after: moment(1, 0),
        before: moment(2, 0),
        lines_at_least: u64::MAX,
        message: "who knows".to_owned(),
    };
    assert_eq!(
        told(&world, EventKind::LogGap(gap)).await,
        Kind::LogGap(wire::LogGap {
            instance: wire_instance(),
            reason: wire::GapReason::ResumeAmbiguous.into(),
            after: wire_moment(1, 0),
            before: wire_moment(2, 0),
            lines_at_least: i64::MAX,
            message: "who knows".to_owned(),
        })
    );
    for (completeness, complete) in [(Completeness::Complete, true), (Completeness::Cut, false)] {
        assert_eq!(
            told(&world, EventKind::LogStreamEnd(instance(), completeness)).await,
            Kind::LogStreamEnd(wire::LogStreamEnd { instance: wire_instance(), complete })
        );
    }
    let notice = Notice { code: "UNSCHEDULABLE", message: "no node".to_owned(), severity: Severity::Warning };
    assert_eq!(
        told(&world, EventKind::Notice(notice)).await,
        Kind::Notice(wire::Notice {
            code: "UNSCHEDULABLE".to_owned(),
            message: "no node".to_owned(),
            severity: wire::NoticeSeverity::Warning.into(),
        })
    );
    for (value, content, problem, not_json) in [
        (Ok(Bytes::from_static(b"1")), b"1".as_slice(), "", ""),
        (Ok(Bytes::from_static(b"\n")), b"\n".as_slice(), "", ""),
        (Ok(Bytes::from_static(b"{\"a\": NaN}")), b"{\"a\": NaN}".as_slice(), "", "expected value at line 1 column 7"),
        (Ok(Bytes::from_static(b"[1\n")), b"[1\n".as_slice(), "", "EOF while parsing a list at line 2 column 0"),
        (
            Ok(Bytes::from_static(b"\"\xff\"")),
            b"\"\xff\"".as_slice(),
            "",
            "it is not UTF-8: invalid utf-8 sequence of 1 bytes from index 1",
        ),
        (Err(NoResult::Missing("missing".to_owned())), b"".as_slice(), "missing", ""),
    ] {
        assert_eq!(
            told(&world, EventKind::Result(ResultSource::Sidecar, value)).await,
            Kind::Result(wire::Result {
                source: wire::ResultSource::Sidecar.into(),
                content: content.to_vec(),
                problem: problem.to_owned(),
                not_json: not_json.to_owned(),
            })
        );
    }
}
