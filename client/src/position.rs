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
    /// The cursor of the last event.
    cursor: Vec<u8>,
    /// What was handed out before the first line, if lines start late (`tail_lines`, `since`). The broker ignores that
    /// wish when it gets a cursor, so until then the watch is begun anew, and what it repeats is left out here.
    prelude: Option<Prelude>,
    /// The last state that was handed out.
    state: Option<proto::Execution>,
    /// The stream was opened anew, and its first event repeats the state.
    repeats_state: bool,
    /// Lines that were to come are left out, since the budget for them is used up.
    is_over_budget: bool,
}

/// The events before the first line.
#[derive(Debug, Default)]
struct Prelude {
    shown: Vec<Kind>,
    /// Those that the stream, opened anew, has not repeated yet.
    expected: Vec<Kind>,
}

/// A prelude with more events than this is resumed by the cursor, and may then show more lines than were asked for.
const MAX_PRELUDE: usize = 100;

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
        let starts_late = request.options.as_ref().is_some_and(|it| it.tail_lines > 0 || it.since.is_some());
        let prelude = (starts_late && request.cursor.is_empty()).then(Prelude::default);
        let cursor = request.cursor.clone();
        Self { request, cursor, prelude, state: None, repeats_state: false, is_over_budget: false }
    }

    pub(crate) fn name(&self) -> &str {
        &self.request.name
    }

    pub(crate) fn cursor(&self) -> &[u8] {
        &self.cursor
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
        match &mut self.prelude {
            Some(prelude) => prelude.expected.clone_from(&prelude.shown),
            None => request.cursor.clone_from(&self.cursor),
        }
        // The budget itself stays: the cursor has what was used of it.
        if let Some(options) = request.options.as_mut().filter(|_| self.is_over_budget) {
            options.set_logs(proto::LogMode::None);
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
        if self.is_repeated(kind) {
            return Verdict::Repeated;
        }
        match kind {
            Kind::StateChanged(change) if is_first && change.execution == self.state => return Verdict::Repeated,
            Kind::StateChanged(change) => self.state.clone_from(&change.execution),
            Kind::LogGap(gap) if gap.reason() == proto::GapReason::BudgetExceeded => self.is_over_budget = true,
            Kind::End(_) => return Verdict::DeliverLast(event),
            _ => {}
        }
        Verdict::Deliver(event)
    }

    fn is_repeated(&mut self, kind: &Kind) -> bool {
        let Some(prelude) = &mut self.prelude else { return false };
        if let Some(place) = prelude.expected.iter().position(|expected| expected == kind) {
            prelude.expected.swap_remove(place);
            return true;
        }
        let is_of_lines = matches!(kind, Kind::LogChunk(_) | Kind::LogGap(_) | Kind::LogStreamEnd(_));
        if is_of_lines || prelude.shown.len() == MAX_PRELUDE {
            self.prelude = None;
        } else {
            prelude.shown.push(kind.clone());
        }
        false
    }

    fn advance(&mut self, cursor: &Bytes) {
        if !cursor.is_empty() {
            self.cursor = cursor.to_vec();
        }
    }
}
