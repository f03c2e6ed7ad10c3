//! Jobs of AWS Batch as callers ask for them: what reaches the backend, and the name of each field that is wrong.

use std::time::Duration;

use podbroker::execution::{BatchWork, EvaluateOnExit, Workload};
use podbroker_proto::v1 as wire;
use serde_json::json;
use tonic::{Code, Status};

use crate::scripted::Seen;
use crate::world::{World, fields, reason, submit_request};

type Change = fn(&mut wire::BatchWorkload);

fn request(change: impl FnOnce(&mut wire::BatchWorkload)) -> wire::SubmitExecutionRequest {
    let mut work = wire::BatchWorkload { job_definition: "etl:3".to_owned(), ..wire::BatchWorkload::default() };
    change(&mut work);
    let workload = wire::Workload { workload: Some(wire::workload::Workload::Batch(work)) };
    wire::SubmitExecutionRequest { workload: Some(workload), ..submit_request("alpha", "x") }
}

async fn submitted(world: &World, request: wire::SubmitExecutionRequest) -> BatchWork {
    world.client().await.submit_execution(request).await.unwrap();
    let Some(Seen::Submit(_, submit)) = world.alpha.seen().pop() else { panic!("nothing was submitted") };
    let Workload::Batch(work) = submit.workload else { panic!("{:?}", submit.workload) };
    *work
}

#[tokio::test]
async fn every_field_reaches_the_backend() {
    let world = World::with_features(vec!["batch"]);
    let full = request(|work| {
        *work = wire::BatchWorkload {
            job_definition: "arn:aws:batch:us-east-1:111122223333:job-definition/etl:3".to_owned(),
            job_queue: "queue".to_owned(),
            parameters: [("date".to_owned(), "today".to_owned())].into(),
            eks_properties_override_json: br#"{"podProperties":{"containers":[{"name":"a"}]}}"#.to_vec(),
            array_size: 20,
            depends_on_job_ids: vec!["1-2".to_owned()],
            share_identifier: "team".to_owned(),
            scheduling_priority: 9,
            attempts: 3,
            attempt_timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            tags: [("team".to_owned(), "data".to_owned())].into(),
            evaluate_on_exit_json: br#"[{"onExitCode":"1*","action":"RETRY"}]"#.to_vec(),
        };
    });
    let overrides = json!({ "podProperties": { "containers": [{ "name": "a" }] } });
    let expected = BatchWork {
        job_definition: "arn:aws:batch:us-east-1:111122223333:job-definition/etl:3".to_owned(),
        job_queue: Some("queue".to_owned()),
        parameters: [("date".to_owned(), "today".to_owned())].into(),
        eks_properties_override: overrides.as_object().unwrap().clone(),
        array_size: Some(20),
        depends_on: vec!["1-2".to_owned()],
        share_identifier: Some("team".to_owned()),
        scheduling_priority: Some(9),
        attempts: Some(3),
        evaluate_on_exit: vec![EvaluateOnExit {
            on_exit_code: Some("1*".to_owned()),
            action: "RETRY".to_owned(),
            ..EvaluateOnExit::default()
        }],
        attempt_timeout: Some(Duration::from_mins(1)),
        tags: [("team".to_owned(), "data".to_owned())].into(),
    };
    assert_eq!(submitted(&world, full).await, expected);
    let least = BatchWork { job_definition: "etl:3".to_owned(), ..BatchWork::default() };
    assert_eq!(submitted(&world, request(|_| ())).await, least);
}

async fn refused(world: &World, change: Change) -> Status {
    world.client().await.submit_execution(request(change)).await.unwrap_err()
}

#[tokio::test]
async fn each_field_that_is_wrong_is_named() {
    let world = World::with_features(vec!["batch"]);
    let cases: &[(&str, Change)] = &[
        ("job_definition", |work| work.job_definition = String::new()),
        ("job_definition", |work| work.job_definition = "a b".to_owned()),
        ("job_definition", |work| work.job_definition = "x".repeat(257)),
        ("job_queue", |work| work.job_queue = "a*".to_owned()),
        ("parameters", |work| work.parameters = [(String::new(), String::new())].into()),
        ("array_size", |work| work.array_size = 1),
        ("array_size", |work| work.array_size = 10_001),
        ("array_size", |work| work.array_size = -1),
        ("depends_on_job_ids", |work| work.depends_on_job_ids = vec![String::new()]),
        ("depends_on_job_ids", |work| work.depends_on_job_ids = vec!["a".to_owned(); 21]),
        ("share_identifier", |work| work.share_identifier = "a b".to_owned()),
        ("scheduling_priority", |work| work.scheduling_priority = 10_000),
        ("attempts", |work| work.attempts = 11),
        ("attempt_timeout", |work| work.attempt_timeout = Some(prost_types::Duration { seconds: 59, nanos: 0 })),
        ("attempt_timeout", |work| work.attempt_timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 })),
        ("tags", |work| work.tags = [("podbroker.io/instance".to_owned(), String::new())].into()),
        ("tags", |work| work.tags = [("AWS:x".to_owned(), String::new())].into()),
        ("tags", |work| work.tags = [("a".to_owned(), "x".repeat(257))].into()),
        ("tags", |work| work.tags = (0..49).map(|tag| (tag.to_string(), String::new())).collect()),
    ];
    for (field, change) in cases {
        let status = refused(&world, *change).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{field}");
        assert_eq!(fields(&status), [format!("workload.batch.{field}")], "{status:?}");
    }
    for change in [
        |work: &mut wire::BatchWorkload| work.eks_properties_override_json = b"[]".to_vec(),
        |work: &mut wire::BatchWorkload| work.eks_properties_override_json = vec![b' '; (256 << 10) + 1],
    ] {
        let status = refused(&world, change).await;
        assert_eq!(reason(&status), "INVALID_SPEC");
        assert_eq!(fields(&status), ["eksPropertiesOverride"]);
    }
    assert!(world.alpha.seen().is_empty());
}

#[tokio::test]
async fn a_broker_with_aws_batch_says_so() {
    let with = World::with_features(vec!["batch"]);
    let info = with.client().await.get_server_info(wire::GetServerInfoRequest {}).await.unwrap().into_inner();
    assert!(info.features.contains(&"batch".to_owned()));
    let mut required = request(|_| ());
    required.required_features = vec!["batch".to_owned()];
    submitted(&with, required).await;
    let status = World::new().client().await.submit_execution(request(|_| ())).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "UNSUPPORTED_FEATURE"));
}
