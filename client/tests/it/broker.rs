//! A broker that does what the test says, and remembers what it was asked.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use podbroker_client::proto::broker_service_server::{BrokerService, BrokerServiceServer};
use podbroker_client::proto::event::Event as Kind;
use podbroker_client::{Client, Settings, proto};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::Service;

/// What one opened stream does.
#[expect(clippy::large_enum_variant, reason = "most steps are the large one")]
pub(crate) enum Step {
    Send(proto::Event),
    Pause(Duration),
    Fail(Status),
    /// The connection breaks.
    Cut,
    /// Neither sends nor ends.
    Hang,
}

/// Answers that are sent at once.
pub(crate) type Burst = Vec<Result<proto::WatchExecutionsResponse, Status>>;

/// What one call does.
pub(crate) enum Answer<T> {
    Give(T),
    Fail(Status),
    Hang,
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) watches: VecDeque<Vec<Step>>,
    pub(crate) gets: VecDeque<Answer<proto::Execution>>,
    pub(crate) submits: VecDeque<Answer<proto::SubmitExecutionResponse>>,
    /// For each stream over many executions, what each of its requests is answered with.
    pub(crate) many: VecDeque<Vec<Burst>>,
}

/// What the broker was asked.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) watches: Vec<proto::WatchExecutionRequest>,
    pub(crate) many: Vec<proto::WatchExecutionsRequest>,
    /// The bytes of each submit, as they came.
    pub(crate) submits: Vec<Vec<u8>>,
    pub(crate) gets: usize,
    pub(crate) authorizations: Vec<Option<String>>,
    pub(crate) user_agents: Vec<String>,
    pub(crate) connections: usize,
}

/// The broker. Dropping it ends all its tasks.
#[derive(Clone)]
pub(crate) struct Broker {
    state: Arc<State>,
    accept: mpsc::Sender<std::io::Result<DuplexStream>>,
    _server: Arc<JoinSet<()>>,
}

struct State {
    script: Mutex<Script>,
    seen: Mutex<Seen>,
    wires: Mutex<JoinSet<()>>,
    connect_delay: Mutex<Duration>,
    silence: tokio::sync::Notify,
}

impl Broker {
    pub(crate) fn start(script: Script) -> Self {
        Self::start_on(tonic::transport::Server::builder(), script)
    }

    /// One whose connections are asked to end at `age`, and are cut when `grace` has passed too.
    pub(crate) fn start_ageing(age: Duration, grace: Duration, script: Script) -> Self {
        let server = tonic::transport::Server::builder().max_connection_age(age).max_connection_age_grace(grace);
        Self::start_on(server, script)
    }

    fn start_on(mut transport: tonic::transport::Server, script: Script) -> Self {
        let state = Arc::new(State {
            script: Mutex::new(script),
            seen: Mutex::default(),
            wires: Mutex::default(),
            connect_delay: Mutex::default(),
            silence: tokio::sync::Notify::new(),
        });
        let (accept, incoming) = mpsc::channel(16);
        let service =
            Recorder { inner: BrokerServiceServer::new(Scripted(Arc::clone(&state))), state: Arc::clone(&state) };
        let mut server = JoinSet::new();
        server.spawn(async move {
            let routes = transport.add_service(service);
            routes.serve_with_incoming(ReceiverStream::new(incoming)).await.expect("the scripted broker serves");
        });
        Self { state, accept, _server: Arc::new(server) }
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(Settings::new("http://127.0.0.1:1"))
    }

    /// Each connection runs through a wire of its own, so that it can be cut.
    pub(crate) fn client_with(&self, settings: Settings) -> Client {
        let (state, accept) = (Arc::clone(&self.state), self.accept.clone());
        let connector = move || {
            let (state, accept) = (Arc::clone(&state), accept.clone());
            async move {
                let delay = *state.connect_delay.lock().unwrap();
                tokio::time::sleep(delay).await;
                let (client, mut near) = tokio::io::duplex(1 << 16);
                let (mut far, server) = tokio::io::duplex(1 << 16);
                accept.send(Ok(server)).await.map_err(|_| std::io::ErrorKind::ConnectionRefused)?;
                state.seen.lock().unwrap().connections += 1;
                let shared = Arc::clone(&state);
                state.wires.lock().unwrap().spawn(async move {
                    // A wire ends when either side hangs up; how is not its business.
                    let carried = tokio::io::copy_bidirectional(&mut near, &mut far);
                    tokio::select! {
                        _ = carried => {}
                        () = shared.silence.notified() => std::future::pending().await,
                    }
                });
                Ok(client)
            }
        };
        Client::with_connector(settings, connector).expect("the settings are valid")
    }

    pub(crate) fn seen<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        read(&self.state.seen.lock().unwrap())
    }

    pub(crate) fn connect_slowly(&self, delay: Duration) {
        *self.state.connect_delay.lock().unwrap() = delay;
    }

    /// The connections that are open now carry nothing any more and stay open, as behind a firewall that forgot them.
    pub(crate) fn fall_silent(&self) {
        self.state.silence.notify_waiters();
    }
}

struct Scripted(Arc<State>);

impl Scripted {
    async fn answer<T>(&self, next: impl FnOnce(&mut Script) -> Option<Answer<T>>) -> Result<Response<T>, Status> {
        let answer = next(&mut self.0.script.lock().unwrap());
        match answer {
            Some(Answer::Give(answer)) => Ok(Response::new(answer)),
            Some(Answer::Fail(status)) => Err(status),
            Some(Answer::Hang) => std::future::pending().await,
            None => Err(Status::data_loss("the script is over")),
        }
    }
}

type EventStream<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[async_trait::async_trait]
impl BrokerService for Scripted {
    type WatchExecutionStream = EventStream<proto::WatchExecutionResponse>;
    type WatchExecutionsStream = EventStream<proto::WatchExecutionsResponse>;
    type CheckTargetStream = EventStream<proto::CheckTargetResponse>;

    async fn submit_execution(
        &self,
        _: Request<proto::SubmitExecutionRequest>,
    ) -> Result<Response<proto::SubmitExecutionResponse>, Status> {
        self.answer(|script| script.submits.pop_front()).await
    }

    async fn watch_execution(
        &self,
        request: Request<proto::WatchExecutionRequest>,
    ) -> Result<Response<Self::WatchExecutionStream>, Status> {
        self.0.seen.lock().unwrap().watches.push(request.into_inner());
        let steps = self.0.script.lock().unwrap().watches.pop_front();
        let steps = steps.ok_or_else(|| Status::data_loss("the script is over"))?;
        let state = Arc::clone(&self.0);
        let stream = futures::stream::iter(steps).filter_map(move |step| {
            let state = Arc::clone(&state);
            async move {
                match step {
                    Step::Send(event) => Some(Ok(proto::WatchExecutionResponse { event: Some(event) })),
                    Step::Fail(status) => Some(Err(status)),
                    Step::Pause(time) => {
                        tokio::time::sleep(time).await;
                        None
                    }
                    Step::Cut => {
                        // What was sent before must leave first: the wire passes it on while time goes by.
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        state.wires.lock().unwrap().abort_all();
                        std::future::pending().await
                    }
                    Step::Hang => std::future::pending().await,
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn watch_executions(
        &self,
        request: Request<tonic::Streaming<proto::WatchExecutionsRequest>>,
    ) -> Result<Response<Self::WatchExecutionsStream>, Status> {
        let state = Arc::clone(&self.0);
        let answers = state.script.lock().unwrap().many.pop_front();
        let mut answers = answers.ok_or_else(|| Status::data_loss("the script is over"))?.into_iter();
        let stream = request.into_inner().flat_map(move |request| {
            state.seen.lock().unwrap().many.extend(request);
            futures::stream::iter(answers.next().unwrap_or_default())
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_execution(
        &self,
        _: Request<proto::GetExecutionRequest>,
    ) -> Result<Response<proto::GetExecutionResponse>, Status> {
        self.0.seen.lock().unwrap().gets += 1;
        let answer = self.answer(|script| script.gets.pop_front()).await?;
        Ok(Response::new(proto::GetExecutionResponse { execution: Some(answer.into_inner()) }))
    }

    async fn list_executions(
        &self,
        _: Request<proto::ListExecutionsRequest>,
    ) -> Result<Response<proto::ListExecutionsResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn cancel_execution(
        &self,
        _: Request<proto::CancelExecutionRequest>,
    ) -> Result<Response<proto::CancelExecutionResponse>, Status> {
        Ok(Response::new(proto::CancelExecutionResponse::default()))
    }

    async fn release_execution(
        &self,
        _: Request<proto::ReleaseExecutionRequest>,
    ) -> Result<Response<proto::ReleaseExecutionResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn list_targets(
        &self,
        _: Request<proto::ListTargetsRequest>,
    ) -> Result<Response<proto::ListTargetsResponse>, Status> {
        Err(Status::unimplemented("not in this script"))
    }

    async fn check_target(
        &self,
        _: Request<proto::CheckTargetRequest>,
    ) -> Result<Response<Self::CheckTargetStream>, Status> {
        let checks = ["caller", "target"].map(|link| proto::Check { link: link.to_owned(), ..Default::default() });
        let answers = checks.map(|check| Ok(proto::CheckTargetResponse { check: Some(check) }));
        Ok(Response::new(Box::pin(futures::stream::iter(answers))))
    }

    async fn get_server_info(
        &self,
        _: Request<proto::GetServerInfoRequest>,
    ) -> Result<Response<proto::GetServerInfoResponse>, Status> {
        Ok(Response::new(proto::GetServerInfoResponse { version: "1.2.3".to_owned(), ..Default::default() }))
    }
}

/// Keeps what only the bytes and headers of a request show.
#[derive(Clone)]
struct Recorder {
    inner: BrokerServiceServer<Scripted>,
    state: Arc<State>,
}

impl tonic::server::NamedService for Recorder {
    const NAME: &'static str = <BrokerServiceServer<Scripted> as tonic::server::NamedService>::NAME;
}

impl Service<http::Request<Body>> for Recorder {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (mut inner, state) = (self.inner.clone(), Arc::clone(&self.state));
        let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        {
            let mut seen = state.seen.lock().unwrap();
            seen.authorizations.push(header("authorization"));
            seen.user_agents.extend(header("user-agent"));
        }
        Box::pin(async move {
            if !request.uri().path().ends_with("/SubmitExecution") {
                return inner.call(request).await;
            }
            let (head, body) = request.into_parts();
            let bytes = body.collect().await.expect("the body is read").to_bytes();
            state.seen.lock().unwrap().submits.push(bytes.to_vec());
            let body = Body::new(http_body_util::Full::new(bytes));
            inner.call(http::Request::from_parts(head, body)).await
        })
    }
}

/// A failure as a broker reports it.
pub(crate) fn refusal(code: Code, reason: &str, retry_delay: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, "podbroker.io", []);
    if let Some(delay) = retry_delay {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, format!("{reason} it is"), details)
}

pub(crate) fn execution(state: proto::ExecutionState) -> proto::Execution {
    let labels = [("a", "1"), ("b", "2"), ("c", "3")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    proto::Execution {
        name: "targets/t/executions/e".to_owned(),
        state: state.into(),
        labels: labels.into(),
        ..Default::default()
    }
}

fn event(cursor: &str, kind: Kind) -> proto::Event {
    proto::Event { cursor: cursor.to_owned().into(), event: Some(kind) }
}

pub(crate) fn state(cursor: &str, state: proto::ExecutionState) -> proto::Event {
    event(cursor, Kind::StateChanged(proto::StateChanged { execution: Some(execution(state)) }))
}

pub(crate) fn lines(cursor: &str, lines: &[&str]) -> proto::Event {
    let line = |line: &&str| proto::LogLine { content: (*line).to_owned().into(), ..Default::default() };
    let lines = lines.iter().map(line).collect();
    let line_cursor = format!("{cursor}-line-").into();
    event(cursor, Kind::LogChunk(proto::LogChunk { instance: None, lines, line_cursor }))
}

pub(crate) fn over_budget(cursor: &str) -> proto::Event {
    let reason = proto::GapReason::BudgetExceeded.into();
    event(cursor, Kind::LogGap(proto::LogGap { reason, ..Default::default() }))
}

pub(crate) fn heartbeat() -> proto::Event {
    event("", Kind::Heartbeat(proto::Heartbeat {}))
}

pub(crate) fn end(cursor: &str) -> proto::Event {
    event(cursor, Kind::End(proto::End { execution: Some(execution(proto::ExecutionState::Succeeded)) }))
}
