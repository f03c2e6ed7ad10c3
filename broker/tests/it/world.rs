//! A broker in memory: the real service on a real HTTP/2 server, reached through pipes instead of sockets.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use podbroker::api::{Api, RequestLimits, Settings};
use podbroker::auth::Authenticator;
use podbroker::backend::Backend;
use podbroker::backend::pod::{Spool, SpoolLimits};
use podbroker::config::Limits;
use podbroker::server::{self, Transport, TransportError};
use podbroker::target::{Kind, Place, Registry, Target};
use podbroker::telemetry::Metrics;
use podbroker_proto::v1 as wire;
use podbroker_proto::v1::broker_service_client::BrokerServiceClient;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

use crate::scripted::Scripted;

/// A broker with the targets `alpha` and `beta`.
pub(crate) struct World {
    pub(crate) alpha: Arc<Scripted>,
    pub(crate) beta: Arc<Scripted>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) draining: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) server: JoinHandle<Result<(), TransportError>>,
    doors: mpsc::Sender<std::io::Result<DuplexStream>>,
}

impl World {
    /// Open to everybody.
    pub(crate) fn new() -> Self {
        Self::with(Authenticator::Open, &Limits::default())
    }

    pub(crate) fn with(authenticator: Authenticator, limits: &Limits) -> Self {
        Self::build(authenticator, limits, Vec::new())
    }

    /// Open to everybody, with optional parts of the contract.
    pub(crate) fn with_features(features: Vec<&'static str>) -> Self {
        Self::build(Authenticator::Open, &Limits::default(), features)
    }

    fn build(authenticator: Authenticator, limits: &Limits, features: Vec<&'static str>) -> Self {
        let (alpha, beta) = (Arc::new(Scripted::new("alpha")), Arc::new(Scripted::new("beta")));
        let targets = Registry::new([
            target("alpha", "one", Arc::<Scripted>::clone(&alpha)),
            target("beta", "two", Arc::<Scripted>::clone(&beta)),
        ]);
        let metrics = Arc::new(Metrics::new(&targets, Spool::new(SpoolLimits::default(), TaskTracker::new())));
        let draining = CancellationToken::new();
        let settings = Settings {
            instance: "test".parse().unwrap(),
            limits: RequestLimits {
                max_request_bytes: limits.max_request_bytes,
                max_manifest_bytes: limits.max_manifest_bytes,
            },
            max_calls: limits.max_calls,
            max_watches: limits.max_watches,
            features,
        };
        let api = Api::new(settings, authenticator, targets, Arc::clone(&metrics), draining.clone());
        let (doors, incoming) = mpsc::channel(8);
        let transport = Transport::new(limits, None).unwrap();
        let tasks = TaskTracker::new();
        let server = tasks.spawn(server::serve(api, ReceiverStream::new(incoming), transport, draining.clone()));
        Self { alpha, beta, metrics, draining, tasks, server, doors }
    }

    /// A connection of its own.
    pub(crate) async fn channel(&self) -> Channel {
        let doors = self.doors.clone();
        let connect = tower::service_fn(move |_| {
            let doors = doors.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(64 << 10);
                doors.send(Ok(theirs)).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(ours))
            }
        });
        Endpoint::from_static("http://in.memory").connect_with_connector(connect).await.unwrap()
    }

    pub(crate) async fn client(&self) -> BrokerServiceClient<Channel> {
        BrokerServiceClient::new(self.channel().await)
    }
}

fn target(name: &str, namespace: &str, backend: Arc<dyn Backend>) -> Target {
    let place = Place { namespace: namespace.to_owned(), region: "here".to_owned(), ..Place::default() };
    Target { name: name.parse().unwrap(), kind: Kind::Kubeconfig, place, backend }
}

/// The name of an execution.
pub(crate) fn name(target: &str, id: &str) -> String {
    format!("targets/{target}/executions/{id}")
}

pub(crate) fn by_name(target: &str) -> Option<wire::TargetSelector> {
    let selector = Some(wire::target_selector::Selector::Name(target.to_owned()));
    Some(wire::TargetSelector { selector })
}

pub(crate) fn by_place(place: wire::TargetPlace) -> Option<wire::TargetSelector> {
    Some(wire::TargetSelector { selector: Some(wire::target_selector::Selector::Place(place)) })
}

/// The smallest request that is accepted.
pub(crate) fn submit_request(target: &str, id: &str) -> wire::SubmitExecutionRequest {
    wire::SubmitExecutionRequest {
        target: by_name(target),
        execution_id: id.to_owned(),
        workload: pod(wire::pod_workload::Manifest::Json(br#"{"spec":{}}"#.to_vec())),
        ..wire::SubmitExecutionRequest::default()
    }
}

pub(crate) fn pod(manifest: wire::pod_workload::Manifest) -> Option<wire::Workload> {
    let pod = wire::PodWorkload { manifest: Some(manifest) };
    Some(wire::Workload { workload: Some(wire::workload::Workload::Pod(pod)) })
}

pub(crate) fn watch_request(target: &str, id: &str) -> wire::WatchExecutionRequest {
    wire::WatchExecutionRequest { name: name(target, id), ..wire::WatchExecutionRequest::default() }
}

/// The reason of a status.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The fields that a status complains about.
pub(crate) fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}
