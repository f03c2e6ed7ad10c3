//! Many executions over one stream, for triggerers and schedulers.
//!
//! Each execution has a stream of its own at its backend, and all are merged. Nothing is queued here: an event leaves a
//! backend when the transport can take it. What one execution costs is counted like any other watch, so the number of all is
//! bounded. An error of one execution is said as its failure and ends only that one.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use futures::stream::{AbortHandle, Abortable, SelectAll, abortable};
use futures::{FutureExt as _, Stream, StreamExt as _};
use podbroker_proto::v1 as wire;
use tonic::Status;
use wire::watch_executions_request::Request;
use wire::watch_executions_response::Item;

use super::stream::{HEARTBEAT, count};
use super::{Inner, WatchPermit, convert, status};
use crate::auth::Caller;
use crate::backend::EventStream;
use crate::error::Error;
use crate::execution::Event;

/// What one execution's stream says.
enum Said {
    Event(Box<Event>),
    Failure(Error),
    /// Nothing more comes.
    Gone,
}

/// The executions that are followed now.
struct Followed {
    api: Arc<Inner>,
    caller: Caller,
    streams: SelectAll<Abortable<Watch>>,
    /// By name; ends the stream of one.
    handles: HashMap<Arc<str>, AbortHandle>,
}

/// One execution until its end or its first error. Written by hand, since there are tens of thousands at a time: a generator would
/// keep room for the opening as long as it lives.
struct Watch {
    name: Arc<str>,
    step: Step,
}

/// How far it has come.
enum Step {
    Opening(BoxFuture<'static, Result<(WatchPermit, EventStream), Error>>),
    Open {
        _permit: WatchPermit,
        events: EventStream,
    },
    /// That is still to be said.
    Ended,
    Over,
}

/// The events of all that the requests add.
pub(super) fn events(
    api: Arc<Inner>,
    caller: Caller,
    requests: impl Stream<Item = Result<wire::WatchExecutionsRequest, Status>> + Send,
) -> impl Stream<Item = Result<wire::WatchExecutionsResponse, Error>> + Send {
    async_stream::stream! {
        let draining = api.draining.clone();
        let mut drained = pin!(draining.cancelled());
        let mut requests = pin!(requests.fuse());
        let mut followed = Followed { api, caller, streams: SelectAll::new(), handles: HashMap::new() };
        while !(requests.is_done() && followed.streams.is_empty()) {
            tokio::select! {
                () = &mut drained => {
                    yield Err(Error::Draining);
                    return;
                }
                request = requests.next(), if !requests.is_done() => {
                    // The end of the requests is no end of the watch: what was added is followed to its end.
                    if let Some(request) = request && let Err(error) = followed.apply(request) {
                        yield Err(error);
                        return;
                    }
                }
                said = followed.streams.next(), if !followed.streams.is_empty() => {
                    if let Some(response) = said.and_then(|(name, said)| followed.response(&name, said)) {
                        yield Ok(response);
                    }
                }
                () = tokio::time::sleep(HEARTBEAT) => {
                    let item = Some(Item::Event(convert::heartbeat()));
                    yield Ok(wire::WatchExecutionsResponse { name: String::new(), item });
                }
            }
        }
    }
}

impl Followed {
    fn apply(&mut self, request: Result<wire::WatchExecutionsRequest, Status>) -> Result<(), Error> {
        // Too large, or no message at all: the transport ends the requests with this.
        let request = request.map_err(|status| Error::invalid_request("request", status.message()))?;
        match request.request {
            Some(Request::Add(request)) => self.add(request),
            Some(Request::Remove(name)) => self.remove(&name),
            None => return Err(Error::invalid_request("request", "add or remove is needed")),
        }
        Ok(())
    }

    fn add(&mut self, request: wire::WatchExecutionRequest) {
        let name: Arc<str> = request.name.as_str().into();
        self.remove(&name);
        let watch = Watch::new(Arc::clone(&name), Arc::clone(&self.api), self.caller.clone(), request);
        let (stream, handle) = abortable(watch);
        self.streams.push(stream);
        self.handles.insert(name, handle);
    }

    fn remove(&mut self, name: &str) {
        if let Some(handle) = self.handles.remove(name) {
            handle.abort();
        }
    }

    fn response(&mut self, name: &str, said: Said) -> Option<wire::WatchExecutionsResponse> {
        let item = match said {
            Said::Event(event) => {
                count(&self.api.metrics, &event);
                Item::Event(convert::event(*event))
            }
            Said::Failure(error) => {
                tracing::info!(execution = name, error = status::chain(&error), "cannot follow an execution");
                Item::Failure(failure(&error))
            }
            Said::Gone => {
                self.handles.remove(name);
                return None;
            }
        };
        Some(wire::WatchExecutionsResponse { name: name.to_owned(), item: Some(item) })
    }
}

impl Watch {
    fn new(name: Arc<str>, api: Arc<Inner>, caller: Caller, request: wire::WatchExecutionRequest) -> Self {
        let opening = async move {
            let permit = api.watch_permit()?;
            Ok((permit, open(&api, &caller, request).await?))
        };
        Self { name, step: Step::Opening(opening.boxed()) }
    }
}

impl Stream for Watch {
    type Item = (Arc<str>, Said);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (step, said) = match &mut self.step {
                Step::Opening(opening) => match ready!(opening.poll_unpin(context)) {
                    Ok((permit, events)) => (Step::Open { _permit: permit, events }, None),
                    Err(error) => (Step::Ended, Some(Said::Failure(error))),
                },
                Step::Open { events, .. } => match ready!(events.poll_next_unpin(context)) {
                    Some(Ok(event)) => {
                        return Poll::Ready(Some((Arc::clone(&self.name), Said::Event(Box::new(event)))));
                    }
                    Some(Err(error)) => (Step::Ended, Some(Said::Failure(error))),
                    None => (Step::Ended, None),
                },
                Step::Ended => (Step::Over, Some(Said::Gone)),
                Step::Over => return Poll::Ready(None),
            };
            self.step = step;
            if let Some(said) = said {
                return Poll::Ready(Some((Arc::clone(&self.name), said)));
            }
        }
    }
}

async fn open(api: &Inner, caller: &Caller, request: wire::WatchExecutionRequest) -> Result<EventStream, Error> {
    let (name, cursor, options) = convert::watch(request)?;
    let target = api.targets.named(caller, &name.target)?;
    target.backend.watch(&caller.tenant, &name.id, &cursor, options).await
}

fn failure(error: &Error) -> wire::WatchFailure {
    let row = status::row(error);
    wire::WatchFailure {
        code: row.code.into(),
        reason: row.reason.to_owned(),
        message: status::message(error),
        retry_delay: row.retry_after.map(convert::wire_duration),
    }
}
