//! Where a watch stands: pure bookkeeping over the events of one execution.
//!
//! It decides which events are handed out, and what to ask for after the stream broke, so that the parts of a broken watch
//! make one whole: no event twice, none left out.

use bytes::Bytes;

use crate::proto;
use crate::proto::event::Event as Kind;

/// What has been handed out of one execution's events.
#[derive(Debug)]
pub(crate) struct Position {
    request: proto::WatchExecutionRequest,
    /// The last state that was handed out.
    state: Option<proto::Execution>,
    /// The stream was opened anew, and its first event repeats the state.
    repeats_state: bool,
    sent_bytes: i64,
}

/// What to do with an event.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Hand it out.
    Deliver(proto::Event),
    /// Hand it out, and nothing after it.
    DeliverLast(proto::Event),
    /// It is known already, and no sign of progress.
    Repeated,
    /// It says nothing, but that the broker goes on.
    Alive,
}

impl Position {
    pub(crate) fn new(request: proto::WatchExecutionRequest) -> Self {
        Self { request, state: None, repeats_state: false, sent_bytes: 0 }
    }

    pub(crate) fn name(&self) -> &str {
        &self.request.name
    }

    pub(crate) fn cursor(&self) -> &[u8] {
        &self.request.cursor
    }

    /// Whether the broker ends the stream without an end of the execution.
    pub(crate) fn is_no_follow(&self) -> bool {
        self.request.options.as_ref().is_some_and(|options| options.no_follow)
    }

    pub(crate) fn has_lines(&self) -> bool {
        self.request.options.as_ref().is_none_or(|options| options.logs() != proto::LogMode::None)
    }

    /// What to ask for, now that a stream is opened.
    pub(crate) fn request(&mut self) -> proto::WatchExecutionRequest {
        self.repeats_state = self.state.is_some();
        let mut request = self.request.clone();
        if let Some(options) = request.options.as_mut().filter(|options| options.max_log_bytes > 0) {
            // The budget is for the whole watch; the broker counts from each beginning.
            match options.max_log_bytes - self.sent_bytes {
                left @ 1.. => options.max_log_bytes = left,
                _ => options.set_logs(proto::LogMode::None),
            }
        }
        request
    }

    /// Takes the next event of the stream.
    pub(crate) fn take(&mut self, event: proto::Event) -> Verdict {
        let Some(kind) = &event.event else {
            // An event of a newer contract: nobody here can read it.
            self.advance(&event.cursor);
            return Verdict::Alive;
        };
        if matches!(kind, Kind::Heartbeat(_)) {
            return Verdict::Alive;
        }
        self.advance(&event.cursor);
        let is_first = std::mem::take(&mut self.repeats_state);
        match kind {
            Kind::StateChanged(change) if is_first && change.execution == self.state => return Verdict::Repeated,
            Kind::StateChanged(change) => self.state.clone_from(&change.execution),
            Kind::LogChunk(chunk) => {
                let bytes: usize = chunk.lines.iter().map(|line| line.content.len()).sum();
                self.sent_bytes = self.sent_bytes.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            Kind::LogGap(gap) if gap.reason() == proto::GapReason::BudgetExceeded => self.sent_bytes = i64::MAX,
            Kind::End(_) => return Verdict::DeliverLast(event),
            _ => {}
        }
        Verdict::Deliver(event)
    }

    fn advance(&mut self, cursor: &Bytes) {
        if !cursor.is_empty() {
            self.request.cursor = cursor.to_vec();
        }
    }
}
