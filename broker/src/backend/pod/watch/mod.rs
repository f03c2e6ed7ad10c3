//! One watch of one execution: its states, its lines, its result, its end, as one stream with a cursor after each event.
//!
//! The stream owns everything it needs and spawns nothing: dropping it ends the reading. It tells the outcome as soon as the
//! deciding containers have ended, then what is left of the lines, then END. Until END a final state is shown as ENDING. The
//! lines of an attempt that another one follows are read to their end beside those of the next; then it is told as ended.
//!
//! The drain deadline ends reading, never telling: what has ended is given up once nothing of it came for so long while it was
//! waited for, and what runs on is read for so long and told up to there. The time that a watcher takes for itself counts for
//! nothing.

mod reading;
mod told;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use futures::stream::{self, BoxStream, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use tokio::time::Instant;

use self::reading::Open;
use self::told::Told;
use super::attempts::{Attempts, Latest};
use super::chunk::LogItem;
use super::following::Following;
use super::hub::Hub;
use super::logs::Sources;
use super::notices::{self, Keyed};
use super::record::is_untold;
use super::view::View;
use super::{collect, describe, status};
use crate::backend::EventStream;
use crate::execution::{
    Cursor, Event, EventKind, Follow, GapReason, InstancePosition, LogChunk, LogLine, LogMode, NoResult, Notice,
    Outcome, Position, ResultSource, Severity, StreamKey, WatchOptions,
};

/// A value or the words for why there is none.
type ResultValue = Result<bytes::Bytes, NoResult>;

/// The key of the notice that not all containers are followed; there is only one.
const TOO_MANY: u32 = 1;

/// Follows an execution from a cursor on.
pub(super) fn watch(
    hub: Arc<Hub>,
    sources: Arc<Sources>,
    following: Following,
    cursor: Cursor,
    options: WatchOptions,
) -> EventStream {
    let mut watcher = Watcher::new(hub, sources, following, cursor, options);
    // What is said at a time goes on as one: an event that the generator itself held would take its room in every watch for ever.
    let said = async_stream::stream! {
        loop {
            while watcher.has_news {
                yield watcher.look();
            }
            if watcher.is_finished() {
                yield watcher.finish();
                return;
            }
            yield watcher.wait().await;
        }
    };
    said.flat_map(|events| stream::iter(events).map(Ok)).boxed()
}

/// There are tens of thousands at a time, so what all of them have in common is shared, and what few of them need is boxed.
struct Watcher {
    hub: Arc<Hub>,
    sources: Arc<Sources>,
    following: Following,
    /// The hub has let go of the execution: there will be nothing new.
    closed: bool,
    /// There is something to look at. Lines alone are not.
    has_news: bool,
    cursor: Cursor,
    options: WatchOptions,
    told: Option<Told>,
    readers: SelectAll<BoxStream<'static, (StreamKey, LogItem)>>,
    /// Those that were begun; an instance is read once.
    begun: HashSet<StreamKey>,
    /// Those that have not ended.
    open: HashMap<StreamKey, Open>,
    result: Option<BoxFuture<'static, ResultValue>>,
    outcome: Option<Outcome>,
    /// Attempts up to this one are over.
    over: u32,
    /// What runs on after the outcome is read until then; unset once that has been.
    runs_until: Option<Instant>,
    /// No instance is begun any more.
    is_stopped: bool,
    /// How long the result was waited for since the outcome.
    without_result: Duration,
    /// For so long it is waited for that somebody knows why an attempt ended; unset where nobody waits for that.
    without_cause: Option<Duration>,
}

/// What a watcher waited for.
enum Happened {
    Changed {
        closed: bool,
    },
    Result(ResultValue),
    /// Nothing, for so long that something is to be given up.
    Nothing,
    /// What runs on has had its time.
    RanOn,
    Item(StreamKey, LogItem),
}

impl Watcher {
    fn new(hub: Arc<Hub>, sources: Arc<Sources>, following: Following, cursor: Cursor, options: WatchOptions) -> Self {
        Self {
            hub,
            sources,
            following,
            closed: false,
            has_news: true,
            cursor,
            options,
            told: None,
            readers: SelectAll::new(),
            begun: HashSet::new(),
            open: HashMap::new(),
            result: None,
            outcome: None,
            over: 0,
            runs_until: None,
            is_stopped: false,
            without_result: Duration::ZERO,
            without_cause: None,
        }
    }

    fn event(&self, kind: EventKind) -> Event {
        Event { cursor: self.cursor.clone(), kind }
    }

    /// Looks at the latest attempts, starts what they make possible, and says what is new.
    fn look(&mut self) -> Vec<Event> {
        self.has_news = false;
        let attempts = Arc::clone(&self.following.attempts.borrow_and_update());
        let latest = attempts.latest();
        let mut events = Vec::new();
        let execution = describe::execution(self.hub.settings(), &attempts);
        if self.outcome.is_none() && execution.outcome.is_some() {
            self.outcome.clone_from(&execution.outcome);
            self.runs_until = Some(Instant::now() + latest.policies.drain_deadline);
        }
        let shown = execution.before_the_end(self.cursor.attempts_ended);
        let now = Told { attempts: Arc::clone(&attempts), attempts_ended: self.cursor.attempts_ended };
        let before = self.told.replace(now).map(|told| told.shown(self.hub.settings()));
        if before.as_ref() != Some(&shown) {
            events.push(self.event(EventKind::StateChanged(Box::new(shown.clone()))));
        }
        for attempt in shown.attempts {
            if self.cursor.attempts_started < attempt.number {
                self.cursor.attempts_started = attempt.number;
                events.push(self.event(EventKind::AttemptStarted(attempt)));
            }
        }
        for Keyed { key, notice } in notices::notices(latest) {
            if self.cursor.add_notice(key) {
                events.push(self.event(EventKind::Notice(notice)));
            }
        }
        if self.options.logs == LogMode::Lines {
            for view in attempts.iter() {
                if let Some(record) = view.record() {
                    events.extend(self.read_runs(view, record));
                } else {
                    events.extend(self.miss_instances(view));
                    self.begin_reading(view);
                }
            }
        }
        if self.has_most() && self.cursor.add_notice(TOO_MANY) {
            let message = "the lines of the first 2000 containers are followed, and not those of the others".to_owned();
            let notice = Notice { code: "LOGS_LIMITED", message, severity: Severity::Warning };
            events.push(self.event(EventKind::Notice(notice)));
        }
        self.begin_result(latest);
        events.extend(self.end_attempts(&attempts));
        events
    }

    /// Says of each attempt whose end is not the execution's that it ended, once its lines were sent or are given up.
    fn end_attempts(&mut self, attempts: &Attempts) -> Vec<Event> {
        let mut events = Vec::new();
        if self.options.follow == Follow::SoFar {
            return events;
        }
        let has_ended = attempts.standing().latest == Latest::HasEnded;
        self.over = attempts.latest().attempt - u32::from(!has_ended);
        let ended = self.cursor.attempts_ended + 1..=self.over;
        let waited = self.without_cause.take().unwrap_or_default();
        for view in attempts.iter().filter(|view| ended.contains(&view.attempt)) {
            if self.open.keys().any(|key| key.attempt == view.attempt) {
                // They are told in their order.
                break;
            }
            if self.outcome.is_none() && waited < self.patience() && view.record().is_some_and(is_untold) {
                self.without_cause = Some(waited);
                break;
            }
            self.has_news = true;
            let status = status::status(view);
            let attempt = describe::attempt(view, status.state);
            self.cursor.end_attempt(attempt.number);
            events.extend(status.outcome.map(|outcome| self.event(EventKind::AttemptEnded(attempt, outcome))));
        }
        events
    }

    /// Starts to fetch the result once it can be had.
    fn begin_result(&mut self, view: &View) {
        if self.cursor.result_sent || self.result.is_some() || self.outcome.is_none() {
            return;
        }
        self.result = match view.policies.result {
            ResultSource::None => None,
            ResultSource::TerminationMessage => {
                Some(futures::future::ready(collect::termination_message(view)).boxed())
            }
            ResultSource::Sidecar => collect::from_sidecar(&self.sources.api, view),
        };
    }

    fn result_source(&self) -> ResultSource {
        self.told.as_ref().map_or(ResultSource::None, |told| told.policies().result)
    }

    fn needs_result(&self) -> bool {
        self.result_source() != ResultSource::None && !self.cursor.result_sent
    }

    /// Everything that will be said has been said, but for the end.
    fn is_finished(&self) -> bool {
        let has_ended = self.options.follow == Follow::SoFar || self.outcome.is_some();
        has_ended && self.open.is_empty() && !self.waits_for_result()
    }

    fn waits_for_result(&self) -> bool {
        let can_come = self.options.follow == Follow::UntilTheEnd && self.without_result < self.patience();
        can_come && self.outcome.is_some() && self.needs_result()
    }

    /// How long something is waited for without anything of it coming, once it has ended.
    fn patience(&self) -> Duration {
        self.told.as_ref().map_or(Duration::MAX, |told| told.policies().drain_deadline)
    }

    /// Waits until something happens, and says it.
    async fn wait(&mut self) -> Vec<Event> {
        let began = Instant::now();
        // Boxed, since most wait for neither.
        let patience = OptionFuture::from(self.time_left().map(|left| Box::pin(tokio::time::sleep(left))));
        let runs_until = self.runs_until.filter(|_| self.options.follow == Follow::UntilTheEnd);
        let ran_on = OptionFuture::from(runs_until.map(|until| Box::pin(tokio::time::sleep_until(until))));
        let result = async {
            match &mut self.result {
                Some(result) => result.await,
                None => std::future::pending().await,
            }
        };
        let attempts = &mut self.following.attempts;
        let happened = tokio::select! {
            // What is known already is said before what is new, and a flood of lines holds back neither a state nor the end.
            biased;
            changed = attempts.changed(), if !self.closed => Happened::Changed { closed: changed.is_err() },
            value = result => Happened::Result(value),
            Some(()) = patience => Happened::Nothing,
            Some(()) = ran_on => Happened::RanOn,
            Some((key, item)) = self.readers.next(), if !self.open.is_empty() => Happened::Item(key, item),
        };
        self.note_wait(began.elapsed(), &happened);
        match happened {
            Happened::Changed { closed } => {
                self.closed = closed;
                self.has_news = !closed;
                Vec::new()
            }
            Happened::Result(value) => self.tell_result(value),
            Happened::Nothing => self.give_up(),
            Happened::RanOn => self.stop_what_runs(),
            Happened::Item(key, item) => self.tell_log(&key, item),
        }
    }

    fn tell_result(&mut self, value: ResultValue) -> Vec<Event> {
        self.result = None;
        self.cursor.result_sent = true;
        let source = self.result_source();
        let mut events = Vec::new();
        if let Err(NoResult::Missing(problem)) = &value {
            let message = problem.clone();
            let notice = Notice { code: "RESULT_MISSING", message, severity: Severity::Warning };
            events.push(self.event(EventKind::Notice(notice)));
        }
        events.push(self.event(EventKind::Result(source, value)));
        events
    }

    fn tell_log(&mut self, key: &StreamKey, item: LogItem) -> Vec<Event> {
        let Some(instance) = self.open.get(key).map(|open| open.instance.clone()) else { return Vec::new() };
        match item {
            LogItem::Gap(gap) => vec![self.event(EventKind::LogGap(gap))],
            LogItem::Notice(notice) => {
                // Once for a container, whoever tells it.
                let about = format!("{} {} {} {}", notice.code, key.attempt, key.container, key.restart);
                let is_new = self.cursor.add_notice(crc32fast::hash(about.as_bytes()));
                is_new.then(|| self.event(EventKind::Notice(notice))).into_iter().collect()
            }
            LogItem::Lines { mut lines, before, after } => {
                let (all, budget) = (lines.len(), self.options.max_log_bytes);
                let mut sent = self.cursor.log_bytes;
                let fits = |line: &LogLine| {
                    let fits = line.fits(sent, budget);
                    sent += line.bytes();
                    fits
                };
                lines.truncate(lines.iter().map(fits).position(|fits| !fits).unwrap_or(all));
                self.cursor.set_stream(key, before);
                let begin = self.cursor.clone();
                let told = InstancePosition {
                    skip: before.skip.saturating_add(u32::try_from(lines.len()).unwrap_or(u32::MAX)),
                    ..before
                };
                self.cursor.set_stream(key, if lines.len() < all { told } else { after });
                self.cursor.log_bytes += lines.iter().map(LogLine::bytes).sum::<u64>();
                let (told, last) = (lines.len(), lines.last().map(|line| line.nanos));
                let mut events = Vec::new();
                if told > 0 {
                    events.push(self.event(EventKind::LogChunk(LogChunk { instance, lines, before: begin })));
                }
                if told < all {
                    events.extend(self.exceed(key, last));
                }
                events
            }
            LogItem::End(completeness) => {
                self.open.remove(key);
                self.has_news = key.attempt <= self.over;
                if self.options.follow == Follow::SoFar {
                    // The container may still run; nothing has ended but this look at it.
                    return Vec::new();
                }
                self.cursor.set_stream(key, InstancePosition { position: Position::Complete, skip: 0 });
                vec![self.event(EventKind::LogStreamEnd(instance, completeness))]
            }
        }
    }

    /// The byte budget has no room for the next line of a log.
    fn exceed(&mut self, of: &StreamKey, last: Option<i64>) -> Vec<Event> {
        self.has_news = true;
        let message = "the watch's byte budget is used up";
        let mut events = self.stop_reading(|key| key == of, GapReason::BudgetExceeded, message);
        if let (Some(nanos), Some(Event { kind: EventKind::LogGap(gap), .. })) = (last, events.first_mut()) {
            gap.after = Timestamp::from_nanosecond(i128::from(nanos)).ok();
        }
        events
    }

    /// The last events.
    fn finish(&mut self) -> Vec<Event> {
        if self.options.follow == Follow::SoFar {
            return Vec::new();
        }
        let mut events = Vec::new();
        if self.needs_result() {
            let problem = "the drain deadline passed before the result could be read".to_owned();
            events.extend(self.tell_result(Err(NoResult::Unreadable(problem))));
        }
        let attempts = Arc::clone(&self.following.attempts.borrow());
        events.extend(self.end_attempts(&attempts));
        let mut execution = describe::execution(self.hub.settings(), &attempts);
        // Containers that do not decide may still run; what was decided is not changed by how they end.
        execution.outcome.clone_from(&self.outcome);
        if let Some(outcome) = &self.outcome {
            execution.state = outcome.state;
            // One that was told as ended has ended in its own way.
            if let Some(attempt) = execution.attempts.last_mut().filter(|last| last.number > self.cursor.attempts_ended)
            {
                attempt.state = outcome.state;
                self.cursor.end_attempt(attempt.number);
                let (attempt, outcome) = (attempt.clone(), outcome.clone());
                events.push(self.event(EventKind::AttemptEnded(attempt, outcome)));
            }
        }
        events.push(self.event(EventKind::End(Box::new(execution))));
        events
    }
}
