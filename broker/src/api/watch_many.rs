//! Many executions over one stream, for triggerers and schedulers.
//!
//! Each execution has a stream of its own at its backend, and all are merged. Nothing is queued here: an event leaves a
//! backend when the transport can take it. What one execution costs is counted like any other watch, so the number of all is
//! bounded. An error of one execution is said as its failure and ends only that one.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures::stream::{AbortHandle, BoxStream, SelectAll, abortable};
use futures::{Stream, StreamExt as _};
use podbroker_proto::v1 as wire;
use tonic::Status;
use wire::watch_executions_request::Request;
use wire::watch_executions_response::Item;

use super::stream::{HEARTBEAT, count};
use super::{Inner, convert, status};
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
    streams: SelectAll<BoxStream<'static, (String, Said)>>,
    /// By name; ends the stream of one.
    handles: HashMap<String, AbortHandle>,
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
                    if let Some(response) = said.and_then(|(name, said)| followed.response(name, said)) {
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
        let name = request.name.clone();
        self.remove(&name);
        let (stream, handle) = abortable(follow(Arc::clone(&self.api), self.caller.clone(), request));
        let label = name.clone();
        self.streams.push(stream.map(move |said| (label.clone(), said)).boxed());
        self.handles.insert(name, handle);
    }

    fn remove(&mut self, name: &str) {
        if let Some(handle) = self.handles.remove(name) {
            handle.abort();
        }
    }

    fn response(&mut self, name: String, said: Said) -> Option<wire::WatchExecutionsResponse> {
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
                self.handles.remove(&name);
                return None;
            }
        };
        Some(wire::WatchExecutionsResponse { name, item: Some(item) })
    }
}

/// One execution until its end or its first error.
fn follow(
    api: Arc<Inner>,
    caller: Caller,
    request: wire::WatchExecutionRequest,
) -> impl Stream<Item = Said> + Send + 'static {
    async_stream::stream! {
        let opened = async {
            let permit = api.watch_permit()?;
            Ok((permit, open(&api, &caller, request).await?))
        };
        match opened.await {
            Ok((_permit, mut events)) => {
                while let Some(event) = events.next().await {
                    match event {
                        Ok(event) => yield Said::Event(Box::new(event)),
                        Err(error) => {
                            yield Said::Failure(error);
                            break;
                        }
                    }
                }
            }
            Err(error) => yield Said::Failure(error),
        }
        yield Said::Gone;
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
