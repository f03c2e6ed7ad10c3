//! One watch over one execution, however often the stream behind it breaks.
//!
//! A stream that stops without END, fails in a way that may pass, or stays silent for longer than three heartbeats is
//! opened anew with the cursor of the last event that was handed out. The caller sees one sequence of events: none twice,
//! none left out, heartbeats never. Only a refusal that time does not mend ends it early, or `retry_for` without contact.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::connection::{Lane, Lease};
use crate::position::{Position, Verdict};
use crate::retry::Backoff;
use crate::{Client, Error, proto};

/// Three heartbeats of the contract, which come each 15 s.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);

/// The events of one execution. See [`Client::watch`].
#[must_use = "nothing is followed until `next` is awaited"]
pub struct Watch {
    client: Client,
    position: Position,
    contact: Contact,
    phase: Phase,
}

enum Phase {
    /// For the next try to open a stream; at once, if there is no time.
    Waiting(Option<Instant>),
    Opening(BoxFuture<'static, Result<Box<Open>, Error>>),
    Open(Box<Open>),
    Over,
}

struct Open {
    stream: tonic::Streaming<proto::WatchExecutionResponse>,
    /// When the broker will have been silent for too long.
    silent_at: Instant,
    _lease: Lease,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("name", &self.name()).field("ended", &self.has_ended()).finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(client: Client, request: proto::WatchExecutionRequest) -> Self {
        let position = Position::new(request);
        Self { client, position, contact: Contact::default(), phase: Phase::Waiting(None) }
    }

    /// Gives up when the broker could not be reached for so long. Without this the watch never gives up on it.
    pub fn retry_for(mut self, limit: Duration) -> Self {
        self.contact.retry_for = Some(limit);
        self
    }

    /// The name of the execution.
    pub fn name(&self) -> &str {
        self.position.name()
    }

    /// The position after the last event that was handed out.
    pub fn cursor(&self) -> &[u8] {
        self.position.cursor()
    }

    /// Whether `next` has nothing more to say.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Why there is no contact now, while the watch waits for the broker to come back.
    pub fn trouble(&self) -> Option<&Error> {
        self.contact.trouble.as_ref().map(|(_, error)| error)
    }

    /// The next event; `None` after END, after an error, and after the end of a watch that does not follow.
    ///
    /// Safe to drop and call again: nothing is lost, and what was under way goes on.
    pub async fn next(&mut self) -> Option<Result<proto::Event, Error>> {
        loop {
            match self.step().await {
                Ok(Some(Verdict::Deliver(event))) => {
                    self.contact.made_progress();
                    return Some(Ok(event));
                }
                Ok(Some(Verdict::DeliverLast(event))) => {
                    self.phase = Phase::Over;
                    return Some(Ok(event));
                }
                Ok(Some(Verdict::Alive)) => self.contact.made_progress(),
                Ok(Some(Verdict::Repeated)) => {}
                Ok(None) => return None,
                Err(error) => match self.contact.lost(error) {
                    Ok(until) => self.phase = Phase::Waiting(Some(until)),
                    Err(error) => {
                        self.phase = Phase::Over;
                        return Some(Err(error));
                    }
                },
            }
        }
    }

    /// Goes on to the next event of a stream, and opens one if there is none. `None`: it is over.
    async fn step(&mut self) -> Result<Option<Verdict>, Error> {
        loop {
            match &mut self.phase {
                Phase::Over => return Ok(None),
                Phase::Waiting(until) => {
                    if let Some(until) = *until {
                        sleep_until(until).await;
                    }
                    self.phase = Phase::Opening(self.open());
                }
                // Kept between two calls of `next`, so that a caller with short patience gets a stream nevertheless.
                Phase::Opening(opening) => self.phase = Phase::Open(opening.await?),
                Phase::Open(open) => match open.message().await? {
                    Some(event) => {
                        self.contact.made();
                        return Ok(Some(self.position.take(event)));
                    }
                    None if self.position.is_no_follow() => self.phase = Phase::Over,
                    None => return Err(Error::disconnected("the broker ended the stream before the execution's end")),
                },
            }
        }
    }

    fn open(&mut self) -> BoxFuture<'static, Result<Box<Open>, Error>> {
        let lane = if self.position.has_lines() { Lane::Logs } else { Lane::Calls };
        let limit = self.contact.limit(self.client.settings().call_timeout);
        let (client, request) = (self.client.clone(), self.position.request());
        Box::pin(async move {
            let rpc = |mut stub: crate::client::Stub, request| async move { stub.watch_execution(request).await };
            let (lease, stream) = client.open_once(lane, limit, request, rpc).await?;
            Ok(Box::new(Open { stream, silent_at: Instant::now() + SILENCE, _lease: lease }))
        })
    }
}

impl Open {
    async fn message(&mut self) -> Result<Option<proto::Event>, Error> {
        match timeout_at(self.silent_at, self.stream.message()).await {
            Err(_) => Err(silent()),
            Ok(Err(status)) => Err(Error::from_status(&status)),
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(answer))) => {
                self.silent_at = Instant::now() + SILENCE;
                // An answer without an event says as much as a heartbeat.
                Ok(Some(answer.event.unwrap_or_default()))
            }
        }
    }
}

pub(crate) fn silent() -> Error {
    Error::disconnected(format!("the broker was silent for {} s", SILENCE.as_secs()))
}

/// How the connection to the broker has gone so far.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    pub(crate) retry_for: Option<Duration>,
    backoff: Backoff,
    /// When it was lost, and the last failure since.
    trouble: Option<(Instant, Error)>,
    /// The broker has sent something at least once.
    was_made: bool,
}

impl Contact {
    /// A message came.
    pub(crate) fn made(&mut self) {
        self.trouble = None;
        self.was_made = true;
    }

    /// The message said something new, so whatever broke the stream before is behind us.
    pub(crate) fn made_progress(&mut self) {
        self.backoff.reset();
    }

    /// The stream failed: when to try again, or the error if that is of no use.
    pub(crate) fn lost(&mut self, error: Error) -> Result<Instant, Error> {
        let now = Instant::now();
        // A broker that was reached before is being replaced, whatever the way there says meanwhile.
        let may_pass = error.is_worth_retrying() || (self.was_made && error.transport);
        if !may_pass {
            return Err(error);
        }
        let lost_at = self.trouble.as_ref().map_or(now, |(at, _)| *at);
        let again_at = now + self.backoff.next(error.retry_delay);
        if self.retry_for.is_some_and(|limit| again_at >= lost_at + limit) {
            return Err(error.after(now - lost_at));
        }
        tracing::debug!(code = %error.code, reason = error.reason, "the watch is opened anew");
        self.trouble = Some((lost_at, error));
        Ok(again_at)
    }

    /// How long opening a stream may take.
    pub(crate) fn limit(&self, call_timeout: Duration) -> Duration {
        match (self.retry_for, &self.trouble) {
            (Some(limit), Some((lost_at, _))) => call_timeout.min(limit.saturating_sub(lost_at.elapsed())),
            _ => call_timeout,
        }
    }
}
