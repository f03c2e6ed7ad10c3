//! The few requests that the broker makes to an API server, each with its deadline.
//!
//! Written against plain HTTP paths, since the typed client cannot send a caller's pod without cutting it to the fields it
//! knows, cannot ask for strict field validation on a create, rounds `sinceTime` up, and repeats what must not be repeated.
//! Each answer's `Date` header keeps `ServerClock` in step.

use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::core::Status;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{ObjectList, WatchEvent};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use super::PodSettings;
use super::carrier::{Carrier, Carriers, PODS};
use super::clock::ServerClock;
use super::names::group;
use super::selection::Selection;
use crate::identity::eks::{ChainError, Hope};

/// An API server that has not answered with headers by then will be asked again. Longer than the slowest admission
/// webhook may take by default (10 s, twice).
const ANSWER_DEADLINE: Duration = Duration::from_secs(25);

/// How long the API server keeps a watch open. It ends watches by itself after 30 to 60 minutes; a shorter life spreads
/// the load of a fleet of them and bounds how long a silently dead one is believed.
pub(super) const WATCH_SECONDS: u32 = 290;

/// A server that asks to be left alone for longer than this is asked all the same.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Objects of one page of a list.
const LIST_PAGE: u32 = 500;

/// Why a request failed.
#[derive(Debug, Error)]
pub(super) enum ApiError {
    /// The API server understood and said no.
    #[error("the API server answered {}: {}", .0.code, .0.message)]
    Refused(Box<Status>),
    /// It did not answer, or not with sense.
    #[error("{what}")]
    Transport {
        /// What happened.
        what: &'static str,
        /// Why.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl ApiError {
    fn transport(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Transport { what, source: Some(source.into()) }
    }

    /// The HTTP status, if there was an answer.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(status) => Some(status.code),
            Self::Transport { .. } => None,
        }
    }

    /// The link before the cluster that broke, if that is why nobody answered.
    pub(super) fn chain(&self) -> Option<&ChainError> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(chain) = error.downcast_ref() {
                return Some(chain);
            }
            cause = error.source();
        }
        None
    }

    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(status) => {
                let seconds = status.details.as_ref().map(|details| details.retry_after_seconds);
                seconds
                    .filter(|seconds| *seconds > 0)
                    .map(|seconds| Duration::from_secs(seconds.into()).min(LONGEST_WAIT))
            }
            Self::Transport { .. } => None,
        }
    }

    /// Asking again may help: nobody answered, or the server said later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Transport { .. } => self.chain().is_none_or(|chain| chain.hope == Hope::Passing),
            Self::Refused(status) => {
                // 409 with the reason Conflict is a lost race inside the server, such as on a quota; a name that is taken
                // has the reason AlreadyExists.
                matches!(status.code, 429 | 500 | 502 | 503 | 504)
                    || (status.code == 409 && status.reason == "Conflict")
            }
        }
    }
}

/// What part of a container's log is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogRequest<'a> {
    /// The container.
    pub(super) container: &'a str,
    /// Keep the stream open while the container runs.
    pub(super) follow: bool,
    /// The instance before the latest restart.
    pub(super) previous: bool,
    /// Seconds since 1970 to start at.
    pub(super) since: Option<i64>,
    /// Only the last lines.
    pub(super) tail_lines: Option<u64>,
    /// Only so many bytes.
    pub(super) limit_bytes: Option<u64>,
}

/// The carriers and the pods of one namespace, and what happens to them.
#[derive(Clone)]
pub(super) struct PodApi {
    client: kube::Client,
    namespace: String,
    carriers: Carriers,
    /// `podbroker/1.2.3 (instance)`; the execution is added per request.
    agent: String,
    clock: ServerClock,
}

impl PodApi {
    pub(super) fn new(client: kube::Client, settings: &PodSettings, clock: ServerClock) -> Self {
        let PodSettings { instance, namespace, .. } = settings;
        let agent = format!("podbroker/{} ({instance})", env!("CARGO_PKG_VERSION"));
        Self { client, namespace: namespace.clone(), carriers: settings.carriers(), agent, clock }
    }

    /// The API server's time.
    pub(super) fn clock(&self) -> &ServerClock {
        &self.clock
    }

    /// The path of all objects of a resource.
    pub(super) fn all(&self, resource: &str) -> String {
        let group = match group(resource) {
            "" => "/api".to_owned(),
            group => format!("/apis/{group}"),
        };
        format!("{group}/v1/namespaces/{}/{resource}", self.namespace)
    }

    fn carriers(&self) -> String {
        self.all(self.carriers.resource())
    }

    fn carrier(&self, name: &str) -> String {
        format!("{}/{name}", self.carriers())
    }

    /// Creates a carrier. Unknown and doubled fields are refused, not dropped.
    pub(super) async fn create(&self, pod: &Value, execution: &str, run: Run) -> Result<Value, ApiError> {
        let dry = match run {
            Run::Real => "",
            Run::Dry => "&dryRun=All",
        };
        let path = format!("{}?fieldValidation=Strict&fieldManager=podbroker{dry}", self.carriers());
        self.json(self.request(Method::POST, &path, execution).json(pod)?).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T, ApiError> {
        self.json(self.request(Method::GET, &self.carrier(name), name).empty()?).await
    }

    /// A pod, whatever carries the attempt that it was made for.
    pub(super) async fn get_pod(&self, name: &str, execution: &str) -> Result<Value, ApiError> {
        let path = format!("{}/{name}", self.all(PODS));
        self.json(self.request(Method::GET, &path, execution).empty()?).await
    }

    /// Changes a carrier by a JSON merge patch, if it still is the one with that uid.
    pub(super) async fn patch(&self, name: &str, uid: &str, mut patch: Value) -> Result<Carrier, ApiError> {
        patch["metadata"]["uid"] = json!(uid);
        let url = format!("{}?fieldManager=podbroker", self.carrier(name));
        let request = self.request(Method::PATCH, &url, name);
        self.json(request.typed("application/merge-patch+json").json(&patch)?).await
    }

    /// Takes our finalizer away and leaves those of others; with a version, if nobody has changed the carrier since.
    pub(super) async fn remove_finalizer(
        &self,
        name: &str,
        uid: &str,
        finalizer: &str,
        version: Option<u64>,
    ) -> Result<Carrier, ApiError> {
        let mut patch = json!({ "metadata": { "uid": uid, "$deleteFromPrimitiveList/finalizers": [finalizer] } });
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = json!(version.to_string());
        }
        let url = format!("{}?fieldManager=podbroker", self.carrier(name));
        let request = self.request(Method::PATCH, &url, name);
        self.json(request.typed("application/strategic-merge-patch+json").json(&patch)?).await
    }

    /// Deletes a carrier, if it still is the one with that uid.
    pub(super) async fn delete(&self, name: &str, uid: &str, grace: Option<u64>) -> Result<(), ApiError> {
        let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": uid } });
        if let Some(grace) = grace {
            options["gracePeriodSeconds"] = json!(grace);
        }
        self.delete_with(name, &options).await
    }

    /// Deletes a carrier, if nobody has changed it since.
    pub(super) async fn delete_version(&self, name: &str, uid: &str, version: u64) -> Result<(), ApiError> {
        let preconditions = json!({ "uid": uid, "resourceVersion": version.to_string() });
        let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions });
        self.delete_with(name, &options).await
    }

    async fn delete_with(&self, name: &str, options: &Value) -> Result<(), ApiError> {
        let request = self.request(Method::DELETE, &self.carrier(name), name).json(options)?;
        self.json::<Value>(request).await.map(drop)
    }

    /// Reads a list to its end, page by page, and hands over each object. Returns the version of the list.
    pub(super) async fn list<T: DeserializeOwned + Clone>(
        &self,
        selection: &Selection,
        mut take: impl FnMut(T),
    ) -> Result<String, ApiError> {
        let mut params = ListParams::default().limit(LIST_PAGE);
        (params.label_selector, params.field_selector) = (selection.labels.clone(), selection.fields.clone());
        loop {
            let request = kube::core::Request::new(self.all(selection.resource)).list(&params);
            let page: ObjectList<T> = self.json(self.with_agent(request)?).await?;
            page.items.into_iter().for_each(&mut take);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }

    /// Changes after a resource version, until the server ends the stream.
    pub(super) async fn watch<T: DeserializeOwned + Clone>(
        &self,
        selection: &Selection,
        version: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, kube::Error>> + use<T>, ApiError> {
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        (params.label_selector, params.field_selector) = (selection.labels.clone(), selection.fields.clone());
        let request = kube::core::Request::new(self.all(selection.resource)).watch(&params, version);
        match tokio::time::timeout(ANSWER_DEADLINE, self.client.request_events(self.with_agent(request)?)).await {
            Ok(Ok(events)) => Ok(events),
            Ok(Err(kube::Error::Api(status))) => Err(ApiError::Refused(status)),
            Ok(Err(error)) => Err(ApiError::transport("the watch could not be opened", error)),
            Err(late) => Err(ApiError::transport("the API server did not answer a watch in time", late)),
        }
    }

    /// A container's log with the runtime's timestamps, as the bytes come.
    pub(super) async fn log(
        &self,
        name: &str,
        log: &LogRequest<'_>,
    ) -> Result<impl Stream<Item = Result<Bytes, kube::Error>> + use<>, ApiError> {
        let mut path = format!("{}/{name}/log?timestamps=true&container={}", self.all(PODS), log.container);
        if log.follow {
            path.push_str("&follow=true");
        }
        if log.previous {
            path.push_str("&previous=true");
        }
        if let Some(since) = log.since.and_then(|second| jiff::Timestamp::from_second(second).ok()) {
            // Whole seconds only: the API server cuts fractions off, so a fraction would only look as if it counted.
            path.push_str("&sinceTime=");
            path.push_str(&since.to_string().replace(':', "%3A"));
        }
        for (option, limit) in [("tailLines", log.tail_lines), ("limitBytes", log.limit_bytes)] {
            if let Some(limit) = limit {
                path.push_str(&["&", option, "=", &limit.to_string()].concat());
            }
        }
        let response = self.send(self.request(Method::GET, &path, name).empty()?).await?;
        Ok(response.into_body().into_data_stream())
    }

    /// A request to any other path of the API server; a patch is a server-side apply.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let is_apply = method == Method::PATCH;
        let request = self.request(method, path, "check");
        let request = if is_apply { request.typed("application/apply-patch+yaml") } else { request };
        self.json(match body {
            Some(body) => request.json(body)?,
            None => request.empty()?,
        })
        .await
    }

    pub(super) fn request(&self, method: Method, path: &str, execution: &str) -> RequestBuilder {
        let agent = format!("{} execution/{execution}", self.agent);
        let request = Request::builder().method(method).uri(path).header(header::USER_AGENT, agent);
        RequestBuilder { request, content_type: "application/json" }
    }

    fn with_agent(
        &self,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Request<Vec<u8>>, ApiError> {
        let mut request = request.map_err(|error| ApiError::transport("cannot build a request", error))?;
        let agent = HeaderValue::from_str(&self.agent);
        request
            .headers_mut()
            .insert(header::USER_AGENT, agent.map_err(|error| ApiError::transport("cannot build a request", error))?);
        Ok(request)
    }

    pub(super) async fn json<T: DeserializeOwned>(&self, request: Request<Vec<u8>>) -> Result<T, ApiError> {
        let response = self.send(request).await?;
        let body = tokio::time::timeout(ANSWER_DEADLINE, response.into_body().collect())
            .await
            .map_err(|late| ApiError::transport("the API server did not finish its answer in time", late))?
            .map_err(|error| ApiError::transport("the API server broke its answer off", error))?
            .to_bytes();
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::transport("the API server's answer is not what it should be", error))
    }

    /// Sends a request and waits for the headers. An answer that is no success becomes its Status.
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, ApiError> {
        let response = tokio::time::timeout(ANSWER_DEADLINE, self.client.send(request.map(Body::from)))
            .await
            .map_err(|late| ApiError::transport("the API server did not answer in time", late))?
            .map_err(|error| ApiError::transport("the API server cannot be reached", error))?;
        self.clock.learn(response.headers());
        let code = response.status();
        if code.is_success() {
            return Ok(response);
        }
        let body = tokio::time::timeout(ANSWER_DEADLINE, response.into_body().collect()).await;
        let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(ApiError::Refused(Box::new(status(code, &body))))
    }
}

/// The Status of an answer; proxies in front of an API server answer with something else.
fn status(code: StatusCode, body: &[u8]) -> Status {
    match serde_json::from_slice::<Status>(body) {
        Ok(status) if status.code != 0 => status,
        _ => {
            let text: String = String::from_utf8_lossy(body).chars().take(300).collect();
            Status { code: code.as_u16(), message: text, ..Status::default() }
        }
    }
}

/// Whether a create is to take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    Real,
    Dry,
}

pub(super) struct RequestBuilder {
    request: http::request::Builder,
    content_type: &'static str,
}

impl RequestBuilder {
    pub(super) fn typed(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }

    pub(super) fn json(self, body: &Value) -> Result<Request<Vec<u8>>, ApiError> {
        let request = self.request.header(header::CONTENT_TYPE, self.content_type);
        request
            .body(body.to_string().into_bytes())
            .map_err(|error| ApiError::transport("cannot build a request", error))
    }

    pub(super) fn empty(self) -> Result<Request<Vec<u8>>, ApiError> {
        self.request.body(Vec::new()).map_err(|error| ApiError::transport("cannot build a request", error))
    }
}
