//! One watch on the wire: events as they come, a heartbeat in silence, and an early end when this replica goes away.
//!
//! Without that end an open watch would hold a stopping broker for hours. Nothing is lost by it: the caller goes on at the next
//! replica with the cursor of its last event. The next event is asked for only when the transport has taken the one before, so a
//! slow caller slows its own watch and nobody's memory grows.

use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use podbroker_proto::v1 as wire;
use tokio_util::sync::CancellationToken;

use super::{WatchPermit, convert};
use crate::backend::EventStream;
use crate::error::Error;
use crate::execution::{Event, EventKind};
use crate::telemetry::Metrics;

/// The contract's promise to callers, which take a longer silence for a broken connection.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// The events of a backend for the wire.
pub(super) fn events(
    mut events: EventStream,
    permit: WatchPermit,
    draining: CancellationToken,
    metrics: std::sync::Arc<Metrics>,
) -> impl Stream<Item = Result<wire::Event, Error>> + Send {
    async_stream::stream! {
        let _permit = permit;
        let mut drained = pin!(draining.cancelled());
        loop {
            let next = tokio::select! {
                biased;
                () = &mut drained => {
                    yield Err(Error::Draining);
                    return;
                }
                next = tokio::time::timeout(HEARTBEAT, events.next()) => next,
            };
            match next {
                Ok(Some(Ok(event))) => {
                    count(&metrics, &event);
                    yield Ok(convert::event(event));
                }
                Ok(Some(Err(error))) => {
                    yield Err(error);
                    return;
                }
                Ok(None) => return,
                Err(_silence) => yield Ok(convert::heartbeat()),
            }
        }
    }
}

/// Counts the lines of an event that is about to be sent.
pub(super) fn count(metrics: &Metrics, event: &Event) {
    if let EventKind::LogChunk(chunk) = &event.kind {
        metrics.lines_sent(chunk.lines.len(), chunk.lines.iter().map(|line| line.content.len()).sum());
    }
}
