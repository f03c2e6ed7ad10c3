//! The calls.
//!
//! Each call has a deadline and is tried again where the contract says so: on UNAVAILABLE, on a broken connection, on a
//! deadline, and on OVERLOADED with a delay. All calls are idempotent, submit because its deadline is fixed
//! before the first try and the very same bytes are sent again.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use crate::connection::{Connections, Dial, Lane, Lease};
use crate::encoded::EncodedCodec;
use crate::proto::broker_service_client::BrokerServiceClient;
use crate::retry::{retry, within};
use crate::settings::{Address, TokenSource};
use crate::{Error, Follower, Settings, Watch, WatchMany, proto};

/// The largest answers are pages of 1,000 executions and pods in full; the etcd behind a cluster holds 1.5 MiB a pod.
const MAX_ANSWER: usize = 32 << 20;

/// Nothing is created later than this after the first try.
const SUBMIT_WINDOW: Duration = Duration::from_mins(10);

const SUBMIT_PATH: &str = "/podbroker.v1.BrokerService/SubmitExecution";

pub(crate) type Stub = BrokerServiceClient<Channel>;

/// A client of one broker. Clones share their connections; nothing is connected until the first call.
///
/// Its methods must be awaited within a Tokio runtime with time and I/O enabled; the connections belong to the runtime
/// of the first call.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    token: TokenSource,
    connections: Connections,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.inner.settings.endpoint).finish_non_exhaustive()
    }
}

impl Client {
    /// Checks the settings and reads the certificate files. Connects to nothing; needs no runtime.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let dial: Dial = Arc::new(tonic::transport::Endpoint::connect_lazy);
        Self::with_dial(settings, &dial)
    }

    /// A client whose connections are made by `connector`, for example through a tunnel. TLS, if the endpoint says so,
    /// is spoken on top of what it returns.
    pub fn with_connector<C, F, S>(settings: Settings, connector: C) -> Result<Self, Error>
    where
        C: Fn() -> F + Clone + Send + Sync + 'static,
        F: Future<Output = std::io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let dial: Dial = Arc::new(move |endpoint| {
            let connector = connector.clone();
            endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
                let stream = connector();
                async move { stream.await.map(TokioIo::new) }
            }))
        });
        Self::with_dial(settings, &dial)
    }

    fn with_dial(settings: Settings, dial: &Dial) -> Result<Self, Error> {
        let address: Address = settings.endpoint.parse()?;
        if settings.token.is_some() {
            address.check_token_is_safe()?;
        }
        let connections = Connections::new(&settings, &address, dial)?;
        let token = TokenSource::new(settings.token.clone());
        Ok(Self { inner: Arc::new(Inner { settings, token, connections }) })
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Starts an execution, exactly once. Without `submit_before` it is set to 10 minutes from now.
    pub async fn submit(
        &self,
        mut request: proto::SubmitExecutionRequest,
    ) -> Result<proto::SubmitExecutionResponse, Error> {
        request.submit_before.get_or_insert_with(|| (SystemTime::now() + SUBMIT_WINDOW).into());
        // Encoded once: a map has no order of its own, so a second encoding could differ.
        let encoded = Bytes::from(request.encode_to_vec());
        let path = PathAndQuery::from_static(SUBMIT_PATH);
        retry(self.inner.settings.call_timeout, self.inner.settings.retry_for, || async {
            let lease = self.inner.connections.lease(Lane::Calls);
            let mut grpc = tonic::client::Grpc::new(lease.channel.clone()).max_decoding_message_size(MAX_ANSWER);
            grpc.ready().await.map_err(|cause| self.failed(&tonic::Status::from_error(cause.into())))?;
            let answer = grpc.unary(self.request(encoded.clone())?, path.clone(), EncodedCodec::default()).await;
            answer.map(tonic::Response::into_inner).map_err(|status| self.failed(&status))
        })
        .await
    }

    /// Reads one execution.
    pub async fn get(&self, request: proto::GetExecutionRequest) -> Result<proto::Execution, Error> {
        let answer = self.call(request, |mut stub, request| async move { stub.get_execution(request).await }).await?;
        answer.execution.ok_or_else(no_execution)
    }

    /// Lists one page of the caller's executions at one target.
    pub async fn list(&self, request: proto::ListExecutionsRequest) -> Result<proto::ListExecutionsResponse, Error> {
        self.call(request, |mut stub, request| async move { stub.list_executions(request).await }).await
    }

    /// Asks for the end of an execution; it arrives on the watch.
    pub async fn cancel(&self, request: proto::CancelExecutionRequest) -> Result<proto::Execution, Error> {
        let answer =
            self.call(request, |mut stub, request| async move { stub.cancel_execution(request).await }).await?;
        answer.execution.ok_or_else(no_execution)
    }

    /// Says that the caller has all that it wants: the finish policy applies now.
    pub async fn release(&self, request: proto::ReleaseExecutionRequest) -> Result<proto::Execution, Error> {
        let answer =
            self.call(request, |mut stub, request| async move { stub.release_execution(request).await }).await?;
        answer.execution.ok_or_else(no_execution)
    }

    /// Lists the targets that the caller may use.
    pub async fn list_targets(&self) -> Result<Vec<proto::Target>, Error> {
        let request = proto::ListTargetsRequest {};
        let answer = self.call(request, |mut stub, request| async move { stub.list_targets(request).await }).await?;
        Ok(answer.targets)
    }

    /// Walks the chain from the caller to a running pod at one target. A broken link is an answer.
    pub async fn check_target(&self, target: proto::TargetSelector) -> Result<Checks, Error> {
        let request = proto::CheckTargetRequest { target: Some(target) };
        let (lease, stream) = self
            .open(Lane::Calls, request, |mut stub, request| async move { stub.check_target(request).await })
            .await?;
        Ok(Checks { stream, limit: self.inner.settings.call_timeout, _lease: lease })
    }

    /// Says what the broker is and can do.
    pub async fn server_info(&self) -> Result<proto::GetServerInfoResponse, Error> {
        let request = proto::GetServerInfoRequest {};
        self.call(request, |mut stub, request| async move { stub.get_server_info(request).await }).await
    }

    /// Follows one execution until its end, through restarts of the broker. Nothing is sent before the first `next`.
    pub fn watch(&self, request: proto::WatchExecutionRequest) -> Watch {
        Watch::new(self.clone(), request)
    }

    /// Follows many executions over one stream. Nothing is sent before the first `next`.
    pub fn watch_many(&self) -> (Follower, WatchMany) {
        WatchMany::new(self.clone())
    }

    /// A stream's request, made once and with the deadline of a call.
    pub(crate) async fn open_once<Q, R, F>(
        &self,
        lane: Lane,
        limit: Duration,
        message: Q,
        rpc: impl FnOnce(Stub, tonic::Request<Q>) -> F,
    ) -> Result<(Lease, R), Error>
    where
        F: Future<Output = Result<tonic::Response<R>, tonic::Status>>,
    {
        let lease = self.inner.connections.lease(lane);
        let request = self.request(message)?;
        let opening = async { rpc(stub(&lease), request).await.map_err(|status| self.failed(&status)) };
        let answer = within(limit, opening).await?;
        Ok((lease, answer.into_inner()))
    }

    async fn open<Q: Clone, R, F>(
        &self,
        lane: Lane,
        message: Q,
        rpc: impl Fn(Stub, tonic::Request<Q>) -> F,
    ) -> Result<(Lease, R), Error>
    where
        F: Future<Output = Result<tonic::Response<R>, tonic::Status>>,
    {
        let Settings { call_timeout, retry_for, .. } = self.inner.settings;
        retry(call_timeout, retry_for, || self.open_once(lane, call_timeout, message.clone(), &rpc)).await
    }

    async fn call<Q: Clone, R, F>(&self, message: Q, rpc: impl Fn(Stub, tonic::Request<Q>) -> F) -> Result<R, Error>
    where
        F: Future<Output = Result<tonic::Response<R>, tonic::Status>>,
    {
        self.open(Lane::Calls, message, rpc).await.map(|(_, answer)| answer)
    }

    fn failed(&self, status: &tonic::Status) -> Error {
        Error::from_status(status).over(&self.inner.settings.endpoint)
    }

    fn request<Q>(&self, message: Q) -> Result<tonic::Request<Q>, Error> {
        let mut request = tonic::Request::new(message);
        if let Some(value) = self.inner.token.authorization()? {
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

fn stub(lease: &Lease) -> Stub {
    Stub::new(lease.channel.clone()).max_decoding_message_size(MAX_ANSWER)
}

fn no_execution() -> Error {
    Error::malformed("the broker answered without an execution")
}

/// The checks of a target, as they are made.
pub struct Checks {
    stream: tonic::Streaming<proto::CheckTargetResponse>,
    limit: Duration,
    _lease: Lease,
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

impl Checks {
    /// The next check; `None` after the last. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Result<proto::Check, Error>> {
        let message = async { self.stream.message().await.map_err(|status| Error::from_status(&status)) };
        match within(self.limit, message).await {
            Ok(Some(answer)) => {
                Some(answer.check.ok_or_else(|| Error::malformed("the broker answered without a check")))
            }
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
