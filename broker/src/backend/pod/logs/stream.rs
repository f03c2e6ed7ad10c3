//! Reads one container instance from the API, from a position on, each line once and in order.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::time::Instant;
use tracing::debug;

use super::super::api::LogRequest;
use super::super::chunk::{CHUNK_DELAY, Chunk, LogItem};
use super::super::kubelet_error::KubeletError;
use super::super::lines::Splitter;
use super::super::place::{LogStart, Place};
use super::continuity::Arrival;
use super::reader::{Broke, Kind, MISSING_TRIES, Opening, Reader, SEARCH, Taken};
use super::shipped;
use super::source::{BrokeOff, LogSource};
use super::status::{Kept, Status};
use crate::backend::log_group::LogGroup;
use crate::execution::{Completeness, InstancePosition, Position};

/// A stream that is silent for so long is opened again. TCP keep-alive notices a dead peer within two minutes; this is for
/// a proxy in between that is alive and has forgotten us.
const IDLE: Duration = Duration::from_mins(10);

/// The kubelet ends a follow about a second after its container. One that is silent for so long then was forgotten by
/// somebody in between.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A read that does not wait for the container is made again after such a silence: before its watch gives it up, which it does
/// after half a minute if nothing else is asked for. The next one has twice as long: the kubelet may have to look through a large
/// file before it finds where to begin.
const SILENT_READ: Duration = Duration::from_secs(10);

/// Between two questions that were not answered.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads an instance. The stream does nothing while it is not polled and ends with `LogItem::End`.
#[expect(clippy::too_many_lines, reason = "one loop that yields; its decisions are the reader's")]
pub(super) fn read(
    source: Arc<dyn LogSource>,
    group: Option<Arc<dyn LogGroup>>,
    status: Status,
    start: LogStart,
) -> impl Stream<Item = LogItem> + Send {
    let mut reader = Reader::new(source, status, &start);
    async_stream::stream! {
        let mut silent_read = SILENT_READ;
        loop {
            let open = match reader.open().await {
                Opening::Open(open) => open,
                Opening::End(gap, completeness) => {
                    if let Some((group, wanted)) = reader.wanted(group.as_ref(), gap.as_ref()) {
                        let mut shipped = std::pin::pin!(shipped::read(group, wanted));
                        while let Some(item) = shipped.next().await {
                            yield item;
                        }
                        return;
                    }
                    if let Some(gap) = gap {
                        yield LogItem::Gap(gap);
                    }
                    yield LogItem::End(completeness);
                    return;
                }
            };
            let (kind, mut body) = (open.kind, open.body);
            let mut splitter = Splitter::default();
            let mut chunk = Chunk::new(reader.place.position());
            let mut ask = Ask::Early;
            let mut waiting = Instant::now();
            let (mut looked_further, mut has_lines) = (false, false);
            let mut arrival = Arrival { now: reader.source.now(), waited: Duration::ZERO };
            let mut broke = 'answer: loop {
                while let Some(line) = splitter.next_line() {
                    has_lines = true;
                    let before = reader.place.position();
                    let Taken::Line(verdict, gap) = reader.take(&line, kind, &mut arrival).await else {
                        break 'answer Broke::NotFound;
                    };
                    if let Some(gap) = gap {
                        if chunk.first_at.is_some() {
                            yield chunk.take(before);
                        }
                        yield LogItem::Gap(gap);
                    }
                    reader.hand_on(verdict, line, &mut chunk);
                    if chunk.is_full() {
                        yield chunk.take(reader.place.position());
                    }
                }
                let wants_proof = kind == Kind::Follow && reader.wants_proof();
                let is_settled = (reader.place.is_found() || looked_further) && !wants_proof;
                let idle = match (kind, ask) {
                    _ if !is_settled => SEARCH,
                    (Kind::Whole, _) => silent_read,
                    (Kind::Follow, Ask::Early) => IDLE,
                    (Kind::Follow, Ask::AtItsEnd) => LAST_WORDS,
                };
                let flush = chunk.first_at.map_or_else(|| Instant::now() + idle, |first| first + CHUNK_DELAY);
                let piece = tokio::select! {
                    // What has arrived is taken first.
                    biased;
                    piece = tokio::time::timeout_at(flush, body.next()) => piece,
                    () = reader.quiet_after_the_end(), if kind == Kind::Follow && ask == Ask::Early => {
                        if chunk.first_at.is_some() {
                            yield chunk.take(reader.place.position());
                        }
                        if let Some(mut rest) = reader.finish().await {
                            if let Some(first) = rest.take_first() {
                                yield first;
                            }
                            if rest.first_at.is_some() {
                                yield rest.take(reader.place.position());
                            }
                            yield LogItem::End(Completeness::Complete);
                            return;
                        }
                        ask = Ask::AtItsEnd;
                        continue;
                    }
                };
                arrival = Arrival { now: reader.source.now(), waited: waiting.elapsed() };
                match piece {
                    Ok(Some(Ok(bytes))) => {
                        waiting = Instant::now();
                        splitter.push(&bytes);
                    }
                    Ok(Some(Err(error))) => {
                        debug!(error = &*error as &dyn std::error::Error, "a log stream broke off");
                        break Broke::Error;
                    }
                    Ok(None) => break Broke::End,
                    Err(_) if chunk.first_at.is_some() => yield chunk.take(reader.place.position()),
                    Err(_) if !reader.place.is_found() && !looked_further => {
                        if reader.look_further().await {
                            break Broke::NotFound;
                        }
                        looked_further = true;
                    }
                    Err(_) if wants_proof => {
                        if !reader.prove_catching_up().await {
                            debug!("a log stream is silent, and the current file has more");
                            break Broke::Error;
                        }
                    }
                    Err(_) => {
                        if kind == Kind::Whole {
                            silent_read *= 2;
                        }
                        break Broke::Error;
                    }
                }
            };
            // The end of a read without follow is the end of the file. What a follow leaves behind may be half a line.
            let rest = splitter.rest();
            let has_rest = !matches!(rest, Ok(None));
            let rest = match rest {
                // A follow that has brought lines goes on as after any other end.
                Err(error) if broke == Broke::End && (kind == Kind::Whole || !has_lines) => {
                    if chunk.first_at.is_some() {
                        yield chunk.take(reader.place.position());
                    }
                    reader.refuse(error, has_lines);
                    continue;
                }
                rest => rest.ok().flatten(),
            };
            if (kind, broke) == (Kind::Whole, Broke::End)
                && let Some(line) = rest
            {
                match reader.take(&line, kind, &mut arrival).await {
                    Taken::Line(verdict, gap) => {
                        if let Some(gap) = gap {
                            yield LogItem::Gap(gap);
                        }
                        reader.hand_on(verdict, line, &mut chunk);
                    }
                    Taken::NotFound => broke = Broke::NotFound,
                }
            }
            if broke == Broke::End && reader.look_further().await {
                broke = Broke::NotFound;
            }
            reader.note_end(kind, broke, has_rest, arrival);
            if chunk.first_at.is_some() {
                yield chunk.take(reader.place.position());
            }
            if (kind, broke) == (Kind::Whole, Broke::End) {
                if let Some(gap) = reader.lost_at_the_end() {
                    yield LogItem::Gap(gap);
                }
                yield LogItem::End(Completeness::Complete);
                return;
            }
            reader.pause_after(broke).await;
        }
    }
}

/// Whether the current file has the line of the position. Asks until there is an answer.
pub(super) async fn has(source: &Arc<dyn LogSource>, status: &mut Status, position: Position) -> bool {
    let mut missing = 0;
    loop {
        let standing = status.look();
        if standing.gone.is_some() || missing == MISSING_TRIES {
            return false;
        }
        match file_has(source, status, standing.place, position).await {
            Ok(answer) => return answer,
            Err(error) => {
                debug!(error = &*error, "a log cannot be read yet");
                missing += u32::from(error.is::<KubeletError>());
                let _ = tokio::time::timeout(PAUSE, status.changed()).await;
            }
        }
    }
}

async fn file_has(
    source: &Arc<dyn LogSource>,
    status: &Status,
    kept: Kept,
    position: Position,
) -> Result<bool, BrokeOff> {
    let whole = LogRequest {
        container: status.container(),
        follow: false,
        previous: kept == Kept::Previous,
        since: None,
        tail_lines: None,
        limit_bytes: None,
    };
    let mut body = match source.log(&status.pod_name(), &whole).await {
        Err(error) if matches!(error.code(), Some(400..=404)) => return Ok(false),
        body => body?,
    };
    let mut place = Place::new(InstancePosition { position, skip: 0 }, None);
    place.begin();
    let (mut splitter, mut is_over) = (Splitter::default(), false);
    while !is_over {
        match tokio::time::timeout(SILENT_READ, body.next()).await? {
            Some(bytes) => splitter.push(&bytes?),
            None => is_over = true,
        }
        while let Some(line) = splitter.next(is_over)? {
            if place.take(&line).1.is_some() {
                return Ok(false);
            }
            if place.is_found() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// When the last read is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// As soon as the follow is quiet.
    Early,
    /// That was tried, and the follow knew more than the file: it is read to its end.
    AtItsEnd,
}
