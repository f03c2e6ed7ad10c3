//! Takes events of jobs out of a queue of SQS that EventBridge fills, so that a change is known soon even where there is no pod.
//!
//! An event is a reason to ask, never an answer: one that says that a job we follow has ended has that job described at once, and
//! what `DescribeJobs` says then is the truth. So one that is forged, late, repeated or lost does no harm: it costs a description, of
//! which there are at most four a second for all events together, or the change is known when the job would be described anyway. Ends
//! only: what comes before, the pods tell sooner.
//!
//! Every message is deleted, whatever it is, and counted by what it was. Of several replicas one gets each; it writes the outcome into
//! the record, where the others see it. There is one receiver for a queue, by the role of the first target that has it, and it ends with
//! the process: what it had not deleted then comes again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::describe::{Describer, Heard};
use super::event::{self, Message};
use crate::backend::job::JobState;
use crate::identity::eks::{BatchAccess, BatchFailure, EventsQueue};
use crate::telemetry::{BatchCounters, BatchEvent};

/// In seconds; the longest that SQS waits for a message before it says that there is none.
const WAIT: i32 = 20;
/// In seconds; after it a message that was not deleted comes again. They are dealt with in milliseconds.
const HIDDEN: i32 = 30;
/// As many as SQS hands out, and deletes, at once.
const PAGE: i32 = 10;
/// The pause after a failure: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The pause after an answer without messages that came at once, as none should: it must not be asked for without end.
const EMPTY_PAUSE: Duration = Duration::from_secs(1);

/// A message as it was handed out.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) body: String,
    /// What deletes it.
    pub(super) handle: String,
}

/// A request to SQS that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) operation: &'static str,
    pub(super) failure: BatchFailure,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.failure.sentence("SQS", self.operation))
    }
}

/// Whoever hands out messages.
#[async_trait]
pub(super) trait Queue: Send + Sync {
    /// The next ones; none after a while in which there was none.
    async fn receive(&self) -> Result<Vec<Received>, Failed>;

    /// Takes messages out for good.
    async fn delete(&self, handles: &[String]) -> Result<(), Failed>;
}

/// A queue of SQS, by the session of a target's role.
pub(super) struct Sqs {
    pub(super) access: BatchAccess,
    pub(super) client: aws_sdk_sqs::Client,
    pub(super) queue: EventsQueue,
}

#[async_trait]
impl Queue for Sqs {
    async fn receive(&self) -> Result<Vec<Received>, Failed> {
        let request = self.client.receive_message().queue_url(&self.queue.url).max_number_of_messages(PAGE);
        match request.wait_time_seconds(WAIT).visibility_timeout(HIDDEN).send().await {
            Ok(answer) => Ok(answer.messages.into_iter().flatten().filter_map(received).collect()),
            Err(error) => Err(Failed { operation: "ReceiveMessage", failure: self.access.failure(&error).await }),
        }
    }

    async fn delete(&self, handles: &[String]) -> Result<(), Failed> {
        const OPERATION: &str = "DeleteMessageBatch";
        let entry = |(number, handle): (usize, &String)| {
            let entry = aws_sdk_sqs::types::DeleteMessageBatchRequestEntry::builder();
            entry.id(number.to_string()).receipt_handle(handle).build().ok()
        };
        let entries: Vec<_> = handles.iter().enumerate().filter_map(entry).collect();
        let request = self.client.delete_message_batch().queue_url(&self.queue.url).set_entries(Some(entries));
        match request.send().await {
            // One that could not be deleted comes again, which does no harm.
            Ok(answer) => match answer.failed.iter().find(|failed| !failed.sender_fault) {
                Some(failed) => {
                    let why = failed.message.clone().unwrap_or_else(|| failed.code.clone());
                    Err(Failed { operation: OPERATION, failure: BatchFailure::Away(why) })
                }
                None => Ok(()),
            },
            Err(error) => Err(Failed { operation: OPERATION, failure: self.access.failure(&error).await }),
        }
    }
}

fn received(message: aws_sdk_sqs::types::Message) -> Option<Received> {
    Some(Received { handle: message.receipt_handle?, body: message.body.unwrap_or_default() })
}

/// How a receiver fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has asked, and not been answered yet.
    Asks,
    /// Events come, or would.
    Receives,
    /// They do not; this is why, and what to do.
    Fails {
        /// What went wrong last.
        what: String,
        /// What to do.
        fix: String,
    },
}

/// Takes the events out of one queue, for all targets that have it.
#[derive(Debug)]
pub(super) struct Receiver {
    /// The queue's name, for people.
    pub(super) name: String,
    region: String,
    counters: BatchCounters,
    describers: Mutex<Vec<Arc<Describer>>>,
    standing: Mutex<Standing>,
}

impl Receiver {
    pub(super) fn new(queue: &EventsQueue, region: &str, counters: BatchCounters) -> Self {
        let (describers, standing) = (Mutex::default(), Mutex::new(Standing::Asks));
        Self { name: queue.name.clone(), region: region.to_owned(), counters, describers, standing }
    }

    /// What it hears is for this one, too.
    pub(super) fn join(&self, describer: &Arc<Describer>) {
        let mut describers = lock(&self.describers);
        if !describers.iter().any(|other| Arc::ptr_eq(other, describer)) {
            describers.push(Arc::clone(describer));
        }
    }

    pub(super) fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    /// Receives until it is stopped. While that fails it is tried less and less, and jobs are described as if there was no queue.
    pub(super) async fn run(
        &self,
        queue: &dyn Queue,
        fix: &(dyn Fn(&Failed) -> String + Sync),
        stop: &CancellationToken,
    ) {
        stop.run_until_cancelled(async {
            let mut pause = None;
            self.counters.receives_events(&self.name, false);
            loop {
                let began = Instant::now();
                match self.round(queue).await {
                    Ok(count) => {
                        if pause.take().is_some() {
                            info!(queue = self.name, "events of jobs are received again");
                        }
                        if count == 0 && began.elapsed() < EMPTY_PAUSE {
                            tokio::time::sleep(EMPTY_PAUSE).await;
                        }
                    }
                    Err(failed) => {
                        if pause.is_none() {
                            warn!(queue = self.name, error = %failed, "events of jobs cannot be received: all is as without them");
                        }
                        *lock(&self.standing) = Standing::Fails { what: failed.to_string(), fix: fix(&failed) };
                        self.counters.receives_events(&self.name, false);
                        let next = pause.map_or(FIRST_PAUSE, |pause: Duration| LONGEST_PAUSE.min(pause * 2));
                        pause = Some(next);
                        tokio::time::sleep(next).await;
                    }
                }
            }
        })
        .await;
    }

    /// One request for messages, and one that deletes them. Returns how many there were.
    async fn round(&self, queue: &dyn Queue) -> Result<usize, Failed> {
        let received = self.counted("ReceiveMessage", queue.receive().await)?;
        if received.is_empty() {
            self.stands();
            return Ok(0);
        }
        for message in &received {
            self.counters.event(self.take_in(&message.body));
        }
        let handles: Vec<_> = received.into_iter().map(|message| message.handle).collect();
        // Whoever may receive and not delete would hear the same again and again: that does not count as receiving.
        self.counted("DeleteMessageBatch", queue.delete(&handles).await)?;
        self.stands();
        Ok(handles.len())
    }

    fn stands(&self) {
        *lock(&self.standing) = Standing::Receives;
        self.counters.receives_events(&self.name, true);
    }

    fn counted<T>(&self, operation: &'static str, result: Result<T, Failed>) -> Result<T, Failed> {
        let outcome = result.as_ref().map_or_else(|failed| failed.failure.outcome(), |_| "ok");
        self.counters.event_request(operation, outcome);
        result
    }

    /// Has the job of an end described.
    fn take_in(&self, body: &str) -> BatchEvent {
        let event = match event::read(body, &self.region) {
            Message::Change(event) => event,
            Message::Foreign => return BatchEvent::Foreign,
            Message::Malformed(why) => {
                debug!(queue = self.name, why, "a message is no event of a job");
                return BatchEvent::Malformed;
            }
        };
        if !matches!(event.state, JobState::Succeeded | JobState::Failed) {
            return BatchEvent::NoEnd;
        }
        let describers = lock(&self.describers);
        let heard = describers.iter().any(|describer| describer.heard(&event.job) == Heard::Followed);
        if heard { BatchEvent::End } else { BatchEvent::Unfollowed }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "receive_tests.rs"]
mod tests;
