//! A replica that goes away: streams end early and say so, calls finish, and the server ends by itself.

use podbroker_proto::v1 as wire;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::scripted::{Surprise, state_changed};
use crate::world::{World, reason, submit_request, watch_request};

fn assert_draining(status: &Status) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::Unavailable, "DRAINING"));
    assert!(status.get_details_retry_info().is_some(), "the next replica answers");
}

#[tokio::test]
async fn watches_end_with_draining_and_then_the_server_ends() {
    let world = World::new();
    let (x, y) = (world.alpha.expect_watch("x"), world.alpha.expect_watch("y"));
    let mut one = world.client().await.watch_execution(watch_request("alpha", "x")).await.unwrap().into_inner();
    let (asks, requests) = tokio::sync::mpsc::channel(1);
    let requests = ReceiverStream::new(requests);
    let mut many = world.client().await.watch_executions(requests).await.unwrap().into_inner();
    let add = wire::watch_executions_request::Request::Add(watch_request("alpha", "y"));
    asks.send(wire::WatchExecutionsRequest { request: Some(add) }).await.unwrap();
    for (events, id) in [(&x, "x"), (&y, "y")] {
        events.send(Ok(state_changed("alpha", id))).await.unwrap();
    }
    one.message().await.unwrap().unwrap();
    many.message().await.unwrap().unwrap();

    world.draining.cancel();

    assert_draining(&one.message().await.unwrap_err());
    assert_draining(&many.message().await.unwrap_err());
    x.closed().await;
    y.closed().await;
    world.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_is_under_way_is_finished_first() {
    let world = World::new();
    let mut client = world.client().await;
    world.alpha.surprise(Surprise::Wait);
    let call = world.tasks.spawn(async move { client.submit_execution(submit_request("alpha", "x")).await });
    world.alpha.waiting.notified().await;

    world.draining.cancel();
    tokio::task::yield_now().await;
    assert!(!world.server.is_finished());
    world.alpha.go_on.notify_one();

    assert!(call.await.unwrap().unwrap().into_inner().created);
    world.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn health_says_not_serving_and_its_watches_end() {
    let world = World::new();
    let mut client = world.client().await;
    let mut health = HealthClient::new(world.channel().await);
    let request = HealthCheckRequest { service: "podbroker.v1.BrokerService".to_owned() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    world.alpha.surprise(Surprise::Wait);
    let call = world.tasks.spawn(async move { client.submit_execution(submit_request("alpha", "x")).await });
    world.alpha.waiting.notified().await;

    world.draining.cancel();

    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    world.alpha.go_on.notify_one();
    call.await.unwrap().unwrap();
    while watch.message().await.is_ok_and(|message| message.is_some()) {}
    world.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn nobody_gets_in_any_more() {
    let world = World::new();
    let mut client = world.client().await;
    client.list_targets(wire::ListTargetsRequest {}).await.unwrap();
    world.draining.cancel();
    let World { server, .. } = world;
    server.await.unwrap().unwrap();
    assert_eq!(client.list_targets(wire::ListTargetsRequest {}).await.unwrap_err().code(), Code::Unavailable);
}
