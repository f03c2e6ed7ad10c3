//! The lines of one container instance, from a position on, each once and in order.
//!
//! A follow is opened when the container has started, and read until it ends. Its end proves nothing: the status says whether
//! the container has ended. If so, one last read from the position brings what the follow did not; if not, the follow is
//! opened again there. The API can only be asked for whole seconds, so a read begins with the second of the position and
//! passes over what was had. The line of the position itself must be among it, unchanged: if it is not, the file was rotated
//! away, lines may be missing, and a gap says so.
//!
//! A node's clock that goes back does not move a position back. What is written until it has caught up is read live, but not
//! found again by a read that begins anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::api::{ApiError, LogRequest, PodApi};
use super::chunk::{CHUNK_BYTES, CHUNK_DELAY, Chunk, LogItem};
use super::lines::Splitter;
use super::place::{LogStart, Lost, Place, ReadMode, Verdict};
use super::view::{ContainerState, Presence, View};
use crate::execution::{Completeness, Gap, GapReason, Instance, LogLine, Position};

/// After a clean end of a follow the kubelet usually reports the container's end within its relist period of one second.
/// Waiting twice that for the status saves a request for every container that ends.
const STATUS_DELAY: Duration = Duration::from_secs(2);

/// A follow that brings nothing for so long after the container's end probably has brought everything.
const QUIET: Duration = Duration::from_millis(25);

/// The pause after a failure, doubled up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A stream that is silent for so long is opened again. TCP keep-alive notices a dead peer within two minutes; this is for
/// a proxy in between that is alive and has forgotten us.
const IDLE: Duration = Duration::from_mins(10);

/// How often an answer that the log is not there is believed only half, once the container has ended.
const MISSING_TRIES: u32 = 3;

/// Reads an instance. The stream does nothing while it is not polled and ends with `LogItem::End`.
pub(super) fn read(
    api: PodApi,
    view: watch::Receiver<Arc<View>>,
    instance: Instance,
    start: LogStart,
) -> impl Stream<Item = LogItem> + Send {
    let mut reader = Reader::new(api, view, instance, &start);
    async_stream::stream! {
        loop {
            let open = match reader.open().await {
                Opening::Open(open) => open,
                Opening::End(gap, completeness) => {
                    if let Some(gap) = gap {
                        yield LogItem::Gap(gap);
                    }
                    yield LogItem::End(completeness);
                    return;
                }
            };
            let kind = open.kind;
            let mut body = std::pin::pin!(open.body);
            let mut splitter = Splitter::default();
            let mut chunk = Chunk::new(reader.place.position());
            let mut ask = Ask::Early;
            let broke = loop {
                while let Some(line) = splitter.next_line() {
                    if let Some(gap) = reader.take(line, &mut chunk) {
                        yield LogItem::Gap(gap);
                    }
                    if chunk.bytes >= CHUNK_BYTES {
                        yield chunk.take(reader.place.position());
                    }
                }
                let flush = chunk.first_at.map_or_else(|| Instant::now() + IDLE, |first| first + CHUNK_DELAY);
                let piece = tokio::select! {
                    // What has arrived is taken first.
                    biased;
                    piece = tokio::time::timeout_at(flush, body.next()) => piece,
                    () = reader.quiet_after_the_end(), if kind == Kind::Follow && ask == Ask::Early => {
                        if chunk.first_at.is_some() {
                            yield chunk.take(reader.place.position());
                        }
                        if let Some(mut rest) = reader.finish().await {
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
                match piece {
                    Ok(Some(Ok(bytes))) => splitter.push(&bytes),
                    Ok(Some(Err(error))) => {
                        debug!(error = &error as &dyn std::error::Error, "a log stream broke off");
                        break Broke::Error;
                    }
                    Ok(None) => break Broke::End,
                    Err(_) if chunk.first_at.is_some() => yield chunk.take(reader.place.position()),
                    Err(_) => break Broke::Error,
                }
            };
            // The end of a read without follow is the end of the file. What a follow leaves behind may be half a line.
            if (kind, broke) == (Kind::Whole, Broke::End)
                && let Some(line) = splitter.rest()
                && let Some(gap) = reader.take(line, &mut chunk)
            {
                yield LogItem::Gap(gap);
            }
            if chunk.first_at.is_some() {
                yield chunk.take(reader.place.position());
            }
            if (kind, broke) == (Kind::Whole, Broke::End) {
                if let Some(lost) = reader.place.end() {
                    yield LogItem::Gap(reader.lost(lost));
                }
                yield LogItem::End(Completeness::Complete);
                return;
            }
            reader.pause_after(broke).await;
        }
    }
}

/// How the reading of one answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broke {
    End,
    Error,
}

/// When the last read is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// As soon as the follow is quiet.
    Early,
    /// That was tried, and the follow knew more than the file: it is read to its end.
    AtItsEnd,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The end of the answer is the end of the follow only.
    Follow,
    /// The end of the answer is the end of the file.
    Whole,
}

struct Open<S> {
    kind: Kind,
    body: S,
}

enum Opening<S> {
    Open(Open<S>),
    End(Option<Gap>, Completeness),
}

struct Reader {
    api: PodApi,
    view: watch::Receiver<Arc<View>>,
    instance: Instance,
    tail_lines: Option<u64>,
    mode: ReadMode,
    place: Place,
    /// Time of the last line that was handed on.
    last_nanos: Option<i64>,
    pause: Duration,
    missing: u32,
}

impl Reader {
    fn new(api: PodApi, view: watch::Receiver<Arc<View>>, instance: Instance, start: &LogStart) -> Self {
        let LogStart { position, tail_lines, since, mode } = *start;
        Self {
            api,
            view,
            instance,
            tail_lines,
            mode,
            place: Place::new(position, since),
            last_nanos: None,
            pause: FIRST_PAUSE,
            missing: 0,
        }
    }

    /// Asks for the log from the position on, and again until there is an answer that says something.
    async fn open(&mut self) -> Opening<impl Stream<Item = Result<Bytes, kube::Error>> + use<>> {
        if self.place.position().position == Position::Complete {
            return Opening::End(None, Completeness::Complete);
        }
        loop {
            let (has_ended, previous, gone) = self.look();
            if gone {
                return Opening::End(
                    Some(self.gap(GapReason::PodDeleted, "the pod was gone before its log was read to the end")),
                    Completeness::Cut,
                );
            }
            let kind = if has_ended || self.mode == ReadMode::SoFar { Kind::Whole } else { Kind::Follow };
            let request = LogRequest {
                container: &self.instance.container,
                follow: kind == Kind::Follow,
                previous,
                since: self.place.since(),
                tail_lines: self.tail_lines.filter(|_| self.place.is_fresh()),
            };
            let pod_name = self.view.borrow().pod_name.clone();
            match self.api.log(&pod_name, &request).await {
                Ok(body) => {
                    self.place.begin();
                    return Opening::Open(Open { kind, body });
                }
                Err(error) => {
                    if let Some(end) = self.give_up(&error, has_ended) {
                        return Opening::End(Some(end), Completeness::Cut);
                    }
                    debug!(error = &error as &dyn std::error::Error, "a log cannot be read yet");
                    self.wait().await;
                }
            }
        }
    }

    /// Whether the instance has ended, whether it is the one before the latest restart, whether the pod is gone.
    fn look(&mut self) -> (bool, bool, bool) {
        let view = self.view.borrow_and_update();
        let Some(container) = view.container(&self.instance.container) else { return (true, false, false) };
        let restarted = container.restarts > self.instance.restart;
        let ended = restarted || matches!(container.state, ContainerState::Terminated(_)) || view.is_terminal();
        // The kubelet keeps one instance back. A container that waits for its restart counts up when it starts.
        let waits = matches!(container.state, ContainerState::Waiting { .. }) && container.last.is_some();
        (ended || waits, restarted && !waits, view.presence == Presence::Gone)
    }

    /// Waits until the status says that the container has ended, and a moment more, which starts again with every piece that
    /// the follow brings. The kubelet looks only once a second whether a follow is to end; the runtime has written everything
    /// before it reports the end.
    async fn quiet_after_the_end(&mut self) {
        while !self.look().0 {
            if self.view.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        tokio::time::sleep(QUIET).await;
    }

    /// The last read, while the follow is still open; what is left of the log, or nothing if that cannot be said. A follow reads
    /// through rotated files and a read does not, so where the read does not find its place the follow is believed.
    async fn finish(&mut self) -> Option<Chunk> {
        let mut place = self.place.clone();
        place.begin();
        let (_, previous, _) = self.look();
        let request = LogRequest {
            container: &self.instance.container,
            follow: false,
            previous,
            since: place.since(),
            tail_lines: self.tail_lines.filter(|_| place.is_fresh()),
        };
        let pod_name = self.view.borrow().pod_name.clone();
        let mut body = std::pin::pin!(self.api.log(&pod_name, &request).await.ok()?);
        let (mut splitter, mut rest) = (Splitter::default(), Chunk::new(place.position()));
        loop {
            let piece = tokio::time::timeout(STATUS_DELAY, body.next()).await.ok()?;
            let is_over = piece.is_none();
            if let Some(bytes) = piece {
                splitter.push(&bytes.ok()?);
            }
            loop {
                let line = match splitter.next_line() {
                    None if is_over => splitter.rest(),
                    line => line,
                };
                let Some(line) = line else { break };
                match place.take(&line) {
                    (_, Some(_)) => return None,
                    (Verdict::HandOn, None) => rest.push(line),
                    (Verdict::PassOver, None) if rest.lines.is_empty() => rest.before = place.position(),
                    (Verdict::PassOver, None) => {}
                }
            }
            if rest.bytes > CHUNK_BYTES {
                // So much more is no rest.
                return None;
            }
            if is_over {
                break;
            }
        }
        if place.end().is_some() {
            return None;
        }
        self.place = place;
        self.last_nanos = rest.lines.last().map(|line| line.nanos).or(self.last_nanos);
        Some(rest)
    }

    /// Whether an error is the last word. The kubelet's status runs behind the container, so at the beginning 400 and 404
    /// mean nothing.
    fn give_up(&mut self, error: &ApiError, has_ended: bool) -> Option<Gap> {
        match error.code() {
            Some(401 | 403) => {
                let message = format!("the cluster refuses the broker the log: {error}; it needs get on pods/log");
                Some(self.gap(GapReason::Refused, message))
            }
            Some(400 | 404) if has_ended => {
                self.missing += 1;
                let message = "the log was gone before it was read to the end";
                (self.missing >= MISSING_TRIES).then(|| self.gap(GapReason::PodDeleted, message))
            }
            _ => None,
        }
    }

    /// Hands a line on, unless it was had before.
    fn take(&mut self, line: LogLine, chunk: &mut Chunk) -> Option<Gap> {
        let (verdict, lost) = self.place.take(&line);
        match verdict {
            Verdict::HandOn => {
                self.last_nanos = Some(line.nanos);
                chunk.push(line);
            }
            Verdict::PassOver if chunk.lines.is_empty() => chunk.before = self.place.position(),
            Verdict::PassOver => {}
        }
        lost.map(|lost| self.lost(lost))
    }

    fn lost(&self, lost: Lost) -> Gap {
        match lost {
            Lost::Changed => self.gap(GapReason::ResumeAmbiguous, "the last line that was read is another one now"),
            Lost::Gone => {
                self.gap(GapReason::Rotated, "the log was rotated while nobody read it; lines may be missing here")
            }
        }
    }

    async fn pause_after(&mut self, broke: Broke) {
        match broke {
            // Most ends of a follow are ends of the container, and the status will say so in a moment.
            Broke::End => {
                let limit = Instant::now() + STATUS_DELAY;
                while !self.look().0 {
                    match tokio::time::timeout_at(limit, self.view.changed()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) | Err(_) => return,
                    }
                }
            }
            Broke::Error => self.wait().await,
        }
    }

    /// Waits a while, or until the pod changes.
    async fn wait(&mut self) {
        let jitter = self.pause.mul_f64(rand::random_range(0.5..1.0));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        let _ = tokio::time::timeout(jitter, async {
            // A closed channel has nothing more to tell, and must not make this a busy loop.
            if self.view.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await;
    }

    fn gap(&self, reason: GapReason, message: impl Into<String>) -> Gap {
        Gap {
            instance: self.instance.clone(),
            reason,
            after: self.last_nanos.and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok()),
            before: None,
            lines_at_least: 0,
            message: message.into(),
        }
    }
}
