//! What one reader has read of one container instance, for all who watch it.
//!
//! The reader appends and never waits for a watcher. What no longer fits into memory goes to disk, oldest first; what does not
//! fit there either is dropped, and who had not had it is told how much. What everybody had is kept only as far as memory
//! allows, for the watcher that comes a moment later.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tracing::warn;

use super::super::chunk::LogItem;
use super::spool::{Piece, Segment, Spool, cost};
use crate::execution::{Completeness, Gap, LogLine, Position};

/// The items of one stream, numbered from 0.
pub(super) struct Shared {
    spool: Arc<Spool>,
    state: Mutex<State>,
    /// How many items were appended, and one more at the end of all.
    appended: watch::Sender<u64>,
    watchers: watch::Sender<usize>,
}

struct State {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    /// Slots before this one are not in memory.
    in_memory: u64,
    /// Where the first slot begins.
    floor: Floor,
    memory: u64,
    /// What each watcher takes next.
    next: HashMap<u64, u64>,
    watchers_ever: u64,
    closed: bool,
}

/// Where something begins in the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    pub(super) position: Position,
    /// Lines before it.
    pub(super) lines: u64,
    /// The time of the first line after it, if there is one.
    pub(super) nanos: Option<i64>,
}

struct Slot {
    body: Body,
    before: Position,
    after: Position,
    lines_before: u64,
    count: u64,
    nanos: Option<i64>,
}

#[derive(Clone)]
enum Body {
    Memory(Arc<[LogLine]>),
    Disk(Piece),
    Gap(Gap),
    End(Completeness),
}

/// What is there for a watcher.
enum Look {
    /// An item, the positions around it, and the lines up to its end.
    At((Body, Position, Position, u64)),
    NotYet,
    Overrun,
    Closed,
}

/// What a watcher gets.
pub(super) enum Taken {
    Lines {
        lines: Arc<[LogLine]>,
        before: Position,
        after: Position,
    },
    Gap(Gap),
    End(Completeness),
    /// What comes next was dropped.
    Overrun,
    /// The reader went away before the end.
    Closed,
}

impl Shared {
    /// A stream that begins at a position, and what fills it.
    pub(super) fn new(spool: Arc<Spool>, position: Position) -> (Arc<Self>, Appender) {
        spool.stream_opened();
        let state = State {
            slots: VecDeque::new(),
            first: 0,
            in_memory: 0,
            floor: Floor { position, lines: 0, nanos: None },
            memory: 0,
            next: HashMap::new(),
            watchers_ever: 0,
            closed: false,
        };
        let shared = Arc::new(Self {
            spool,
            state: Mutex::new(state),
            appended: watch::Sender::new(0),
            watchers: watch::Sender::new(0),
        });
        (Arc::clone(&shared), Appender { shared, file: None })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many watch, from now on.
    pub(super) fn watchers(&self) -> watch::Receiver<usize> {
        self.watchers.subscribe()
    }

    /// One more watcher. What is held from now on stays until it was taken, or until there is no room.
    pub(super) fn join(self: &Arc<Self>) -> Subscription {
        let mut state = self.state();
        state.watchers_ever += 1;
        let (id, first, lines) = (state.watchers_ever, state.first, state.floor.lines);
        state.next.insert(id, first);
        self.watchers.send_replace(state.next.len());
        let appended = self.appended.subscribe();
        drop(state);
        Subscription { shared: Arc::clone(self), id, next: first, lines, appended }
    }

    /// Lets go of what is only kept for those who may come.
    pub(super) fn trim(&self) {
        self.state().trim(&self.spool);
    }

    fn push(&self, item: LogItem) {
        let mut state = self.state();
        let (before, lines_before) = match state.slots.back() {
            Some(last) => (last.after, last.lines_before + last.count),
            None => (state.floor.position, state.floor.lines),
        };
        let slot = match item {
            LogItem::Lines { lines, before, after } => {
                let bytes = cost(&lines);
                state.memory += bytes;
                self.spool.hold(bytes);
                let (count, nanos) = (lines.len() as u64, lines.first().map(|line| line.nanos));
                let (before, after) = (before.position, after.position);
                Slot { body: Body::Memory(lines.into()), before, after, lines_before, count, nanos }
            }
            LogItem::Gap(gap) => {
                Slot { body: Body::Gap(gap), before, after: before, lines_before, count: 0, nanos: None }
            }
            LogItem::End(completeness) => {
                Slot { body: Body::End(completeness), before, after: before, lines_before, count: 0, nanos: None }
            }
        };
        state.slots.push_back(slot);
        drop(state);
        self.appended.send_modify(|count| *count += 1);
    }

    /// The oldest lines that are to leave memory, with their number.
    fn too_much(&self) -> Option<(u64, Arc<[LogLine]>)> {
        let mut state = self.state();
        state.trim(&self.spool);
        if !self.spool.is_too_much(state.memory) {
            return None;
        }
        loop {
            let number = state.in_memory.max(state.first);
            let slot = state.slots.get(usize::try_from(number - state.first).ok()?)?;
            if let Body::Memory(lines) = &slot.body {
                return Some((number, Arc::clone(lines)));
            }
            state.in_memory = number + 1;
        }
    }

    fn spilled(&self, number: u64, piece: Piece) {
        let mut state = self.state();
        let Some(index) = number.checked_sub(state.first).and_then(|index| usize::try_from(index).ok()) else { return };
        let Some(slot) = state.slots.get_mut(index) else { return };
        if let Body::Memory(lines) = std::mem::replace(&mut slot.body, Body::Disk(piece)) {
            let bytes = cost(&lines);
            state.memory -= bytes;
            self.spool.release(bytes);
        }
        state.in_memory = number + 1;
    }

    /// Makes room by dropping what is oldest: a whole file of it, since a part of one frees nothing.
    fn drop_oldest(&self) {
        let mut state = self.state();
        // A gap goes with lines behind it, so that who was to be told of it is told of them.
        while let Some(Body::Gap(_)) = state.slots.front().map(|slot| &slot.body) {
            state.pop(&self.spool);
        }
        let file = match state.slots.front().map(|slot| &slot.body) {
            Some(Body::Disk(piece)) => Some(piece.clone()),
            _ => None,
        };
        let slowest = state.slowest();
        let mut dropped = 0;
        loop {
            let unread = state.first >= slowest;
            dropped += state.pop(&self.spool).filter(|_| unread).unwrap_or(0);
            match (state.slots.front().map(|slot| &slot.body), &file) {
                (Some(Body::Disk(next)), Some(file)) if next.is_beside(file) => {}
                _ => break,
            }
        }
        drop(state);
        if dropped > 0 {
            self.spool.lines_dropped(dropped);
            warn!(lines = dropped, "log lines are dropped that a slow watcher has not had; there is no room for them");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.spool.release(self.state().memory);
        self.spool.stream_closed();
    }
}

impl State {
    /// What the slowest watcher takes next.
    fn slowest(&self) -> u64 {
        let end = self.first + self.slots.len() as u64;
        self.next.values().copied().min().unwrap_or(end)
    }

    /// Drops what every watcher has had, unless there is memory for it.
    fn trim(&mut self, spool: &Spool) {
        let slowest = self.slowest();
        while self.first < slowest && (self.first < self.in_memory || spool.is_too_much(self.memory)) {
            self.pop(spool);
        }
    }

    /// Drops the first slot; how many lines it had.
    fn pop(&mut self, spool: &Spool) -> Option<u64> {
        let slot = self.slots.pop_front()?;
        if let Body::Memory(lines) = &slot.body {
            let bytes = cost(lines);
            self.memory -= bytes;
            spool.release(bytes);
        }
        self.first += 1;
        self.floor = Floor { position: slot.after, lines: slot.lines_before + slot.count, nanos: None };
        Some(slot.count)
    }
}

/// Fills a stream. Dropping it closes the stream.
pub(super) struct Appender {
    shared: Arc<Shared>,
    /// What is written to.
    file: Option<Arc<Segment>>,
}

impl Appender {
    /// One more item. Waits for the disk at most.
    pub(super) async fn append(&mut self, item: LogItem) {
        self.shared.push(item);
        while let Some((number, lines)) = self.shared.too_much() {
            let spool = &self.shared.spool;
            if let Some(piece) = spool.write(&mut self.file, lines).await {
                self.shared.spilled(number, piece);
            } else {
                // A file that is written to would not be given back.
                self.file = None;
                self.shared.drop_oldest();
            }
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.appended.send_modify(|count| *count += 1);
    }
}

/// One watcher of a stream.
pub(super) struct Subscription {
    shared: Arc<Shared>,
    id: u64,
    next: u64,
    /// Lines before the next slot.
    lines: u64,
    appended: watch::Receiver<u64>,
}

impl Subscription {
    /// Where what comes next begins.
    pub(super) fn floor(&self) -> Floor {
        let state = self.shared.state();
        let index = self.next.checked_sub(state.first).and_then(|index| usize::try_from(index).ok());
        let from = index.unwrap_or(0).min(state.slots.len());
        let nanos = state.slots.iter().skip(from).find_map(|slot| slot.nanos);
        match state.slots.get(from) {
            Some(slot) => Floor { position: slot.before, lines: slot.lines_before, nanos },
            None => state.slots.back().map_or(state.floor, |last| Floor {
                position: last.after,
                lines: last.lines_before + last.count,
                nanos,
            }),
        }
    }

    /// After an overrun: goes on with the oldest that is held, and says how many lines were dropped before it.
    pub(super) fn rejoin(&mut self) -> u64 {
        let mut state = self.shared.state();
        let first = state.first;
        state.next.insert(self.id, first);
        let missing = state.floor.lines.saturating_sub(self.lines);
        self.lines = state.floor.lines;
        self.next = first;
        missing
    }

    /// What comes next. Can be dropped while it waits.
    pub(super) async fn next(&mut self) -> Taken {
        loop {
            self.appended.borrow_and_update();
            let (body, before, after, lines) = match self.look() {
                Look::At(slot) => slot,
                Look::Overrun => return Taken::Overrun,
                Look::Closed => return Taken::Closed,
                Look::NotYet => {
                    // The sender lives in what this holds.
                    let _ = self.appended.changed().await;
                    continue;
                }
            };
            let taken = match body {
                Body::Memory(lines) => Taken::Lines { lines, before, after },
                Body::Gap(gap) => Taken::Gap(gap),
                Body::End(completeness) => Taken::End(completeness),
                Body::Disk(piece) => match self.shared.spool.read(piece).await {
                    Ok(lines) => Taken::Lines { lines, before, after },
                    Err(error) => {
                        warn!(error = &error as &dyn std::error::Error, "log lines cannot be read from disk again");
                        self.skip_unreadable(lines);
                        return Taken::Overrun;
                    }
                },
            };
            self.pass(lines);
            return taken;
        }
    }

    fn look(&self) -> Look {
        let state = self.shared.state();
        let Some(index) = self.next.checked_sub(state.first) else { return Look::Overrun };
        match usize::try_from(index).ok().and_then(|index| state.slots.get(index)) {
            Some(slot) => Look::At((slot.body.clone(), slot.before, slot.after, slot.lines_before + slot.count)),
            None if state.closed => Look::Closed,
            None => Look::NotYet,
        }
    }

    /// The next slot was taken.
    fn pass(&mut self, lines: u64) {
        self.next += 1;
        self.lines = lines;
        let mut state = self.shared.state();
        state.next.insert(self.id, self.next);
        state.trim(&self.shared.spool);
    }

    /// The next slot is lost, and with it what is before it: nobody can have it any more.
    fn skip_unreadable(&mut self, lines: u64) {
        let had = self.lines;
        self.shared.spool.lines_dropped(lines.saturating_sub(had));
        let mut state = self.shared.state();
        while state.first <= self.next && state.pop(&self.shared.spool).is_some() {}
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.next.remove(&self.id);
        state.trim(&self.shared.spool);
        self.shared.watchers.send_replace(state.next.len());
    }
}
