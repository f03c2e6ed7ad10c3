//! One watch of one execution: its states, its lines, its result, its end, as one stream with a cursor after each event.
//!
//! The stream owns everything it needs and spawns nothing: dropping it ends the reading. It tells the outcome as soon as the
//! deciding containers have ended, then what is left of the lines, then END. Until END a final state is shown as ENDING. The
//! lines of an attempt that another one follows are read to their end beside those of the next, for as long as the drain
//! deadline allows; then it is told as ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{AbortHandle, BoxStream, SelectAll, abortable};
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

use super::attempts::{Attempts, Latest};
use super::chunk::LogItem;
use super::following::Following;
use super::hub::Hub;
use super::logs::Sources;
use super::notices::{self, Keyed};
use super::place::{LogStart, ReadMode};
use super::view::{ContainerView, View};
use super::{collect, describe, status};
use crate::backend::EventStream;
use crate::execution::{
    Completeness, Cursor, Event, EventKind, Execution, Follow, Gap, GapReason, Instance, InstancePosition, LogChunk,
    LogMode, NoResult, Notice, Outcome, Position, ResultSource, Severity, StreamKey, WatchOptions,
};

/// A value or the words for why there is none.
type ResultValue = Result<bytes::Bytes, NoResult>;

/// Follows an execution from a cursor on.
pub(super) fn watch(
    hub: Arc<Hub>,
    sources: Sources,
    following: Following,
    cursor: Cursor,
    options: WatchOptions,
) -> EventStream {
    let mut watcher = Watcher::new(hub, sources, following, cursor, options);
    async_stream::stream! {
        loop {
            while watcher.has_news {
                for event in watcher.look() {
                    yield Ok(event);
                }
            }
            if watcher.is_finished() {
                for event in watcher.finish() {
                    yield Ok(event);
                }
                return;
            }
            for event in watcher.wait().await {
                yield Ok(event);
            }
        }
    }
    .boxed()
}

struct Watcher {
    hub: Arc<Hub>,
    sources: Sources,
    following: Following,
    /// The hub has let go of the execution: there will be nothing new.
    closed: bool,
    /// There is something to look at. Lines alone are not.
    has_news: bool,
    cursor: Cursor,
    options: WatchOptions,
    told: Option<Execution>,
    readers: SelectAll<BoxStream<'static, (StreamKey, LogItem)>>,
    /// Those that were begun; an instance is read once.
    begun: HashSet<StreamKey>,
    /// Those that have not ended.
    open: HashMap<StreamKey, Open>,
    result: Option<BoxFuture<'static, ResultValue>>,
    outcome: Option<Outcome>,
    /// The rest is not waited for after this.
    drain_until: Option<Instant>,
    /// The same for each attempt that is over and was followed by another.
    drains: HashMap<u32, Instant>,
    drained: bool,
}

/// An instance that is being read.
struct Open {
    instance: Instance,
    reading: AbortHandle,
}

impl Watcher {
    fn new(hub: Arc<Hub>, sources: Sources, following: Following, cursor: Cursor, options: WatchOptions) -> Self {
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
            drain_until: None,
            drains: HashMap::new(),
            drained: false,
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
            self.drain_until = Some(Instant::now() + latest.policies.drain_deadline);
        }
        let shown = execution.before_the_end(self.cursor.attempts_ended);
        if self.told.as_ref() != Some(&shown) {
            self.told = Some(shown.clone());
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
                self.begin_reading(view);
            }
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
        let ended = self.cursor.attempts_ended + 1..attempts.latest().attempt + u32::from(has_ended);
        for view in attempts.iter().filter(|view| ended.contains(&view.attempt)) {
            let until = Instant::now() + view.policies.drain_deadline;
            let until = *self.drains.entry(view.attempt).or_insert(until);
            if until <= Instant::now() {
                events.extend(self.give_up(Some(view.attempt)));
            }
            if self.open.keys().any(|key| key.attempt == view.attempt) {
                // They are told in their order.
                break;
            }
            self.drains.remove(&view.attempt);
            self.has_news = true;
            let status = status::status(view);
            let attempt = describe::attempt(view, status.state);
            self.cursor.end_attempt(attempt.number);
            events.extend(status.outcome.map(|outcome| self.event(EventKind::AttemptEnded(attempt, outcome))));
        }
        events
    }

    /// Starts to read each wanted instance that has run and was not begun yet.
    fn begin_reading(&mut self, view: &Arc<View>) {
        for container in &view.containers {
            let wanted = self.options.containers.is_empty() || self.options.containers.contains(&container.name);
            if !wanted || container.is_hidden() || !container.has_run() {
                continue;
            }
            // The kubelet keeps the instance before the latest one too; what is older is gone.
            for restart in container.restarts.saturating_sub(1)..=container.restarts {
                self.begin_instance(view, container, restart);
            }
        }
    }

    fn begin_instance(&mut self, view: &Arc<View>, container: &ContainerView, restart: u32) {
        let key = StreamKey { attempt: view.attempt, container: container.name.clone(), restart };
        let position = self.cursor.stream(&key);
        if position.position == Position::Complete || !self.begun.insert(key.clone()) {
            return;
        }
        let role = container.role;
        let instance = Instance { attempt: view.attempt, container: container.name.clone(), restart, role };
        let with_cursor = position != InstancePosition::default();
        let start = LogStart {
            position,
            tail_lines: self.options.tail_lines.filter(|_| !with_cursor),
            since: self.options.since.filter(|_| !with_cursor),
            mode: match self.options.follow {
                Follow::UntilTheEnd => ReadMode::Follow,
                Follow::SoFar => ReadMode::SoFar,
            },
        };
        let pod = self.hub.follow_pod(view);
        let (items, reading) = abortable(self.sources.logs.read(pod, instance.clone(), start));
        self.open.insert(key.clone(), Open { instance, reading });
        self.readers.push(items.map(move |item| (key.clone(), item)).boxed());
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

    fn needs_result(&self) -> bool {
        let policy = self.told.as_ref().map_or(ResultSource::None, |execution| execution.policies.result);
        policy != ResultSource::None && !self.cursor.result_sent
    }

    /// Everything that will be said has been said, but for the end.
    fn is_finished(&self) -> bool {
        match self.options.follow {
            Follow::SoFar => self.open.is_empty(),
            Follow::UntilTheEnd => {
                self.outcome.is_some() && (self.drained || (self.open.is_empty() && !self.needs_result()))
            }
        }
    }

    /// Waits until something happens, and says it.
    async fn wait(&mut self) -> Vec<Event> {
        let drain_until = self.drain_until.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
        let attempt_drained = self.drains.values().min().copied().unwrap_or(drain_until);
        let result = async {
            match &mut self.result {
                Some(result) => result.await,
                None => std::future::pending().await,
            }
        };
        let attempts = &mut self.following.attempts;
        let closed = self.closed;
        tokio::select! {
            // What is known already is said before what is new, and a flood of lines holds back neither a state nor the end.
            biased;
            changed = attempts.changed(), if !closed => {
                self.closed = changed.is_err();
                self.has_news = changed.is_ok();
                Vec::new()
            }
            value = result => self.tell_result(value),
            () = tokio::time::sleep_until(drain_until), if self.outcome.is_some() => {
                self.drained = true;
                Vec::new()
            }
            () = tokio::time::sleep_until(attempt_drained), if !self.drains.is_empty() => {
                self.has_news = true;
                Vec::new()
            }
            Some((key, item)) = self.readers.next(), if !self.open.is_empty() => self.tell_log(&key, item),
        }
    }

    fn tell_result(&mut self, value: ResultValue) -> Vec<Event> {
        self.result = None;
        self.cursor.result_sent = true;
        let source = self.told.as_ref().map_or(ResultSource::None, |execution| execution.policies.result);
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
            LogItem::Lines { lines, before, after } => {
                self.cursor.set_stream(key, before);
                let before = self.cursor.clone();
                self.cursor.set_stream(key, after);
                if lines.is_empty() {
                    return Vec::new();
                }
                self.cursor.log_bytes += lines.iter().map(|line| line.content.len() as u64 + 1).sum::<u64>();
                let mut events = vec![self.event(EventKind::LogChunk(LogChunk { instance, lines, before }))];
                if self.options.max_log_bytes.is_some_and(|limit| self.cursor.log_bytes >= limit) {
                    events.extend(self.stop_reading(
                        None,
                        GapReason::BudgetExceeded,
                        "the watch's byte budget is used up",
                    ));
                    self.options.logs = LogMode::None;
                }
                events
            }
            LogItem::End(completeness) => {
                self.open.remove(key);
                self.has_news = !self.drains.is_empty();
                if self.options.follow == Follow::SoFar {
                    // The container may still run; nothing has ended but this look at it.
                    return Vec::new();
                }
                self.cursor.set_stream(key, InstancePosition { position: Position::Complete, skip: 0 });
                vec![self.event(EventKind::LogStreamEnd(instance, completeness))]
            }
        }
    }

    /// The drain deadline passed.
    fn give_up(&mut self, attempt: Option<u32>) -> Vec<Event> {
        let message = "the drain deadline passed before the rest could be read";
        self.stop_reading(attempt, GapReason::DrainDeadline, message)
    }

    /// Gives up what is still being read, of one attempt or of all.
    fn stop_reading(&mut self, attempt: Option<u32>, reason: GapReason, message: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let given_up = |key: &StreamKey| attempt.is_none_or(|attempt| attempt == key.attempt);
        for (key, Open { instance, reading }) in self.open.extract_if(|key, _| given_up(key)).collect::<Vec<_>>() {
            reading.abort();
            let gap = Gap {
                instance: instance.clone(),
                reason,
                after: None,
                before: None,
                lines_at_least: 0,
                message: message.to_owned(),
            };
            events.push(self.event(EventKind::LogGap(gap)));
            self.cursor.set_stream(&key, InstancePosition { position: Position::Complete, skip: 0 });
            events.push(self.event(EventKind::LogStreamEnd(instance, Completeness::Cut)));
        }
        events
    }

    /// The last events.
    fn finish(&mut self) -> Vec<Event> {
        if self.options.follow == Follow::SoFar {
            return Vec::new();
        }
        let mut events = self.give_up(None);
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
