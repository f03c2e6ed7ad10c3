//! Which instances a watcher reads, and how long it waits for their lines.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{AbortHandle, abortable};
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Happened, Watcher};
use crate::backend::log_group::ShippedContainer;
use crate::backend::pod::chunk::LogItem;
use crate::backend::pod::place::{LogStart, Place, ReadMode};
use crate::backend::pod::record::{Log, Record, Run, UNKNOWN, real_name, runs};
use crate::backend::pod::view::{ContainerState, ContainerView, View};
use crate::execution::{
    Completeness, ContainerRole, Event, EventKind, Follow, Gap, GapReason, Instance, InstancePosition, Position,
    StreamKey,
};

/// More than any pod has; half of what a cursor may name.
const MOST_INSTANCES: usize = 2000;

/// An instance that is being read.
pub(super) struct Open {
    pub(super) instance: Instance,
    pub(super) reading: AbortHandle,
    /// Ends it behind what was read.
    pub(super) stop: CancellationToken,
    /// How long it was waited for since something of it came, or since it has ended.
    pub(super) silent: Duration,
}

impl Watcher {
    /// Starts to read each wanted instance that has run and was not begun yet.
    pub(super) fn begin_reading(&mut self, view: &Arc<View>) {
        for container in &view.containers {
            if !self.wants(container) {
                continue;
            }
            // The kubelet keeps the instance before the latest one too.
            for restart in container.restarts.saturating_sub(1)..=container.restarts {
                self.begin_instance(view, container.role, &container.name, restart);
            }
        }
    }

    /// The same for the containers of a job, which are in pods of their own. Also says of what ran in pods that nobody can read
    /// any more that its lines are lost.
    pub(super) fn read_runs(&mut self, view: &View, record: &Record) -> Vec<Event> {
        let mut events = Vec::new();
        let heard: Vec<_> = self.cursor.streams.iter().filter(|(key, _)| key.attempt == view.attempt).collect();
        let heard: Vec<_> = heard.iter().map(|(key, _)| (key.container.as_str(), key.restart)).collect();
        for Run { container, restart, role, log } in runs(view, record, &heard) {
            let key = StreamKey { attempt: view.attempt, container, restart };
            let is_unknown = matches!(&log, Log::Lost(..)) && real_name(&key.container) == UNKNOWN;
            if !(self.is_named(&key.container) || is_unknown) || self.begun.contains(&key) || !self.has_room(&key) {
                continue;
            }
            match log {
                Log::Of(pod) => self.begin_instance(&pod, role, &key.container, restart),
                Log::Lost(reason, message) => {
                    let is_read = self.cursor.stream(&key).position == Position::Complete;
                    if !is_read && self.misses() && self.begun.insert(key.clone()) {
                        let (attempt, container) = (view.attempt, key.container.clone());
                        let instance = Instance { attempt, container, restart, role };
                        if !self.begin_shipped(view, record, &instance, reason, &message) {
                            events.extend(self.cut(&key, instance, reason, message));
                        }
                    }
                }
            }
        }
        events
    }

    /// Reads what was shipped of a container whose pod nobody has seen; false where nobody ships, or where it is not known what it
    /// would be called there.
    fn begin_shipped(
        &mut self,
        view: &View,
        record: &Record,
        instance: &Instance,
        reason: GapReason,
        message: &str,
    ) -> bool {
        let pod = record.told_pod();
        if reason != GapReason::PodDeleted || pod.is_empty() || instance.container == UNKNOWN {
            return false;
        }
        let Instance { attempt, restart, .. } = *instance;
        let key = StreamKey { attempt, container: instance.container.clone(), restart };
        let position = self.cursor.stream(&key);
        let of =
            ShippedContainer { pod, node: view.node.clone(), container: real_name(&instance.container).to_owned() };
        let gap = self.gap(&key, instance.clone(), reason, message.to_owned());
        let Some(items) = self.sources.logs.read_shipped(of, position, record.ended_at(), gap) else { return false };
        self.follow_items(key, instance.clone(), CancellationToken::new(), items);
        true
    }

    fn follow_items(
        &mut self,
        key: StreamKey,
        instance: Instance,
        stop: CancellationToken,
        items: impl Stream<Item = LogItem> + Send + 'static,
    ) {
        let (items, reading) = abortable(items);
        self.open.insert(key.clone(), Open { instance, reading, stop, silent: Duration::ZERO });
        self.readers.push(items.map(move |item| (key.clone(), item)).boxed());
    }

    /// Who wants the latest lines, or what there is now, misses nothing.
    fn misses(&self) -> bool {
        let options = &self.options;
        options.follow == Follow::UntilTheEnd && options.tail_lines.is_none() && options.since.is_none()
    }

    /// Whether one more instance can be followed. A cursor names all of them, and an array may have thousands.
    fn has_room(&self, key: &StreamKey) -> bool {
        let is_known = self.begun.contains(key) || self.cursor.streams.iter().any(|(known, _)| known == key);
        is_known || !self.has_most()
    }

    /// So many instances are followed that there may be others which are not.
    pub(super) fn has_most(&self) -> bool {
        self.begun.len().max(self.cursor.streams.len()) >= MOST_INSTANCES
    }

    /// Says of instances that nobody read in time, and that the kubelet has no longer, that their lines are lost: once, at the
    /// last of them.
    pub(super) fn miss_instances(&mut self, view: &View) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.misses() {
            return events;
        }
        for container in &view.containers {
            let Some(restart) = container.restarts.checked_sub(2).filter(|_| self.wants(container)) else { continue };
            let key = StreamKey { attempt: view.attempt, container: container.name.clone(), restart };
            let position = self.cursor.stream(&key);
            if position.position == Position::Complete || !self.begun.insert(key.clone()) {
                continue;
            }
            let role = container.role;
            let instance = Instance { attempt: view.attempt, container: container.name.clone(), restart, role };
            let message = format!(
                "container {} was restarted {} times, and the node keeps the lines of its last two runs only; those of runs \
                 before may be missing",
                container.name, container.restarts
            );
            events.extend(self.cut(&key, instance, GapReason::Rotated, message));
        }
        events
    }

    pub(super) fn wants(&self, container: &ContainerView) -> bool {
        self.is_named(&container.name) && !container.is_hidden() && container.has_run()
    }

    /// A caller that names a container of an array's children means that of each child, or that of one by its whole name.
    fn is_named(&self, shown: &str) -> bool {
        let wanted = &self.options.containers;
        wanted.is_empty() || wanted.iter().any(|name| name == shown || name == real_name(shown))
    }

    /// `shown` is what the container is called to callers.
    pub(super) fn begin_instance(&mut self, view: &Arc<View>, role: ContainerRole, shown: &str, restart: u32) {
        let key = StreamKey { attempt: view.attempt, container: shown.to_owned(), restart };
        let position = self.cursor.stream(&key);
        if position.position == Position::Complete || self.is_stopped || !self.begun.insert(key.clone()) {
            return;
        }
        let instance = Instance { attempt: view.attempt, container: shown.to_owned(), restart, role };
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
        let stop = CancellationToken::new();
        let items = self.sources.logs.read(pod, instance.clone(), start, stop.clone());
        self.follow_items(key, instance, stop, items);
    }

    /// An instance is waited for no longer than that: it has ended, or what there is now is wanted.
    pub(super) fn is_limited(&self, key: &StreamKey) -> bool {
        self.options.follow == Follow::SoFar || self.outcome.is_some() || key.attempt <= self.over
    }

    /// How much longer it is worth to wait for anything.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let limited = self.open.iter().filter(|(key, _)| self.is_limited(key)).map(|(_, open)| open.silent);
        let result = self.waits_for_result().then_some(self.without_result);
        let longest = limited.chain(result).chain(self.without_cause).max()?;
        Some(self.patience().saturating_sub(longest))
    }

    pub(super) fn note_wait(&mut self, waited: Duration, happened: &Happened) {
        // While it runs it may be silent for as long as it likes: what counts begins when it is waited for.
        let mut opened = std::mem::take(&mut self.open);
        for (key, open) in &mut opened {
            let came = matches!(happened, Happened::Item(of, _) if of == key);
            open.silent = if came || !self.is_limited(key) { Duration::ZERO } else { open.silent + waited };
        }
        self.open = opened;
        if self.outcome.is_some() {
            self.without_result += waited;
        }
        if let Some(without_cause) = &mut self.without_cause {
            *without_cause += waited;
        }
    }

    /// Gives up what was waited for too long.
    pub(super) fn give_up(&mut self) -> Vec<Event> {
        let patience = self.patience();
        let late = self.open.iter().filter(|(key, open)| open.silent >= patience && self.is_limited(key));
        let late: HashSet<_> = late.map(|(key, _)| key.clone()).collect();
        self.has_news = true;
        let message = "nothing more of it could be read before the drain deadline";
        self.stop_reading(|key| late.contains(key), GapReason::DrainDeadline, message)
    }

    /// Reads no more of containers that run on after the outcome. What was read of them is told.
    pub(super) fn stop_what_runs(&mut self) -> Vec<Event> {
        self.runs_until = None;
        self.is_stopped = true;
        let attempts = self.following.attempts.borrow();
        let latest = attempts.latest();
        for (key, open) in &self.open {
            let container = latest.container(&key.container).filter(|_| key.attempt == latest.attempt);
            if container.is_some_and(|container| matches!(container.state, ContainerState::Running { .. })) {
                open.stop.cancel();
            }
        }
        Vec::new()
    }

    /// Gives up instances that are still being read.
    pub(super) fn stop_reading(
        &mut self,
        which: impl Fn(&StreamKey) -> bool,
        reason: GapReason,
        message: &str,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for (key, Open { instance, reading, .. }) in self.open.extract_if(|key, _| which(key)).collect::<Vec<_>>() {
            reading.abort();
            events.extend(self.cut(&key, instance, reason, message.to_owned()));
        }
        events
    }

    /// Lines are missing behind those that were told.
    fn gap(&self, key: &StreamKey, instance: Instance, reason: GapReason, message: String) -> Gap {
        let after = Place::new(self.cursor.stream(key), None).nanos();
        let after = after.and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok());
        Gap { instance, reason, after, before: None, lines_at_least: 0, message }
    }

    /// The lines of an instance end here, with some missing.
    pub(super) fn cut(
        &mut self,
        key: &StreamKey,
        instance: Instance,
        reason: GapReason,
        message: String,
    ) -> Vec<Event> {
        let gap = self.gap(key, instance.clone(), reason, message);
        let mut events = vec![self.event(EventKind::LogGap(gap))];
        if self.options.follow == Follow::UntilTheEnd {
            self.cursor.set_stream(key, InstancePosition { position: Position::Complete, skip: 0 });
            events.push(self.event(EventKind::LogStreamEnd(instance, Completeness::Cut)));
        }
        events
    }
}
