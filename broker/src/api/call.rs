//! One call from its arrival to its end: who asks, one span, one log event, one count, one request id.
//!
//! The request id is ours and random; it stands in the span, in the metadata `x-request-id` of the answer and in the details
//! of an error, so that a caller's report leads to the log. A panic ends the call with INTERNAL and nothing else.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Response, Status};
use tracing::{Instrument as _, Span, field};

use super::status::{self, chain, code_name};
use super::{Api, Inner};
use crate::auth::Caller;
use crate::error::Error;
use crate::telemetry::Rpc;

/// The stream of an answer.
pub(super) type Answers<T> = BoxStream<'static, Result<T, Status>>;

const REQUEST_ID: &str = "x-request-id";

/// A call that has not ended.
pub(super) struct Call {
    api: Arc<Inner>,
    rpc: Rpc,
    request_id: String,
    span: Span,
    started: Instant,
    ended: Ended,
    _open: TaskTrackerToken,
}

#[derive(PartialEq, Eq)]
enum Ended {
    No,
    Yes,
}

impl Api {
    /// Starts a call. Whether the caller is known is part of the work, so that a refusal is logged like any other end.
    pub(super) fn begin(&self, rpc: Rpc, metadata: &MetadataMap) -> (Call, Result<Caller, Error>) {
        let request_id = format!("{:016x}", rand::random::<u64>());
        let span = tracing::info_span!(
            "call",
            request_id,
            rpc = ?rpc,
            caller = field::Empty,
            target = field::Empty,
            execution = field::Empty
        );
        // Binary or non-ASCII metadata is no credential of ours.
        let authorization = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let caller = self.0.authenticator.authenticate(authorization);
        if let Ok(caller) = &caller {
            span.record("caller", &caller.subject);
        }
        let call = Call {
            api: Arc::clone(&self.0),
            rpc,
            request_id,
            span,
            started: Instant::now(),
            ended: Ended::No,
            _open: self.0.open.token(),
        };
        (call, caller)
    }
}

/// Says in the span where the call leads.
pub(super) fn note_target(target: impl std::fmt::Display) {
    Span::current().record("target", field::display(target));
}

/// Says in the span which execution the call is about.
pub(super) fn note_execution(execution: impl std::fmt::Display) {
    Span::current().record("execution", field::display(execution));
}

impl Call {
    /// Does the work and answers with what comes of it.
    pub(super) async fn answer<T>(
        mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        let permit = self.api.call_permit();
        let result = match permit {
            Ok(_permit) => guarded(work).instrument(self.span.clone()).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(value) => {
                self.end(None);
                Ok(self.response(value))
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Does the work and answers with the stream that comes of it.
    pub(super) async fn answer_stream<T, S>(
        mut self,
        work: impl Future<Output = Result<S, Error>>,
    ) -> Result<Response<Answers<T>>, Status>
    where
        T: Send + 'static,
        S: Stream<Item = Result<T, Error>> + Send + 'static,
    {
        match guarded(work).instrument(self.span.clone()).await {
            Ok(stream) => {
                let request_id = self.request_id.clone();
                Ok(with_request_id(Response::new(self.follow(stream).boxed()), &request_id))
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn follow<T>(mut self, stream: impl Stream<Item = Result<T, Error>>) -> impl Stream<Item = Result<T, Status>> {
        async_stream::stream! {
            let mut stream = pin!(AssertUnwindSafe(stream).catch_unwind());
            let span = self.span.clone();
            loop {
                match stream.next().instrument(span.clone()).await {
                    Some(Ok(Ok(item))) => yield Ok(item),
                    Some(Ok(Err(error))) => {
                        yield Err(self.fail(&error));
                        return;
                    }
                    Some(Err(panic)) => {
                        yield Err(self.fail(&panicked(&*panic)));
                        return;
                    }
                    None => break,
                }
            }
            self.end(None);
        }
    }

    fn response<T>(&self, value: T) -> Response<T> {
        with_request_id(Response::new(value), &self.request_id)
    }

    fn fail(&mut self, error: &Error) -> Status {
        self.end(Some(error));
        let mut status = status::status(error, &self.request_id);
        status.metadata_mut().insert(REQUEST_ID, ascii(&self.request_id));
        status
    }

    fn end(&mut self, error: Option<&Error>) {
        let _entered = self.span.clone().entered();
        match error {
            None => {
                let code = self.count(Code::Ok);
                tracing::info!(code, duration_ms = self.duration_ms(), "call ended");
            }
            Some(error) => {
                let row = status::row(error);
                let code = self.count(row.code);
                let (duration_ms, error, reason) = (self.duration_ms(), chain(error), row.reason);
                match (row.code, row.reason) {
                    (Code::Internal, _) => tracing::error!(code, reason, error, duration_ms, "call ended"),
                    (Code::Unavailable | Code::ResourceExhausted, reason) if reason != "DRAINING" => {
                        tracing::warn!(code, reason, error, duration_ms, "call ended");
                    }
                    _ => tracing::info!(code, reason, error, duration_ms, "call ended"),
                }
            }
        }
    }

    fn count(&mut self, code: Code) -> &'static str {
        self.ended = Ended::Yes;
        let name = code_name(code);
        self.api.metrics.call_ended(self.rpc, name, self.started.elapsed().as_secs_f64());
        name
    }

    fn duration_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Call {
    /// The caller hung up, or its deadline passed, before there was an answer.
    fn drop(&mut self) {
        if self.ended == Ended::No {
            let code = self.count(Code::Cancelled);
            let _entered = self.span.clone().entered();
            tracing::info!(code, duration_ms = self.duration_ms(), "call ended");
        }
    }
}

async fn guarded<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::bug(format!("a handler panicked: {}", said.unwrap_or_default()))
}

fn with_request_id<T>(mut response: Response<T>, request_id: &str) -> Response<T> {
    response.metadata_mut().insert(REQUEST_ID, ascii(request_id));
    response
}

fn ascii(request_id: &str) -> AsciiMetadataValue {
    AsciiMetadataValue::try_from(request_id).expect("hex digits are ASCII")
}
