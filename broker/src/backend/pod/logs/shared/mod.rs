//! What one reader has read of one container instance, for all who watch it.
//!
//! The reader appends and never waits for a watcher. What no longer fits into memory goes to disk, oldest first; what does not
//! fit there either is dropped, and who had not had it is told how much. What a watcher has not had that went before the end is
//! kept a while for its return. What everybody had is kept only as far as memory allows, for one that comes a moment later.

mod subscription;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

pub(super) use self::subscription::Subscription;
use super::super::chunk::LogItem;
use super::spool::{Files, Piece, Spool, cost};
use crate::execution::{Completeness, Gap, LogLine, Notice, Position};

/// Bytes that may be on the way to a watcher: more than the window of a client's stream and what is buffered before it.
const UNDER_WAY: u64 = 2 << 20;

/// The items of one stream, numbered from 0.
pub(super) struct Shared {
    spool: Arc<Spool>,
    state: Mutex<State>,
    /// How many items were appended, and one more at the end of all.
    appended: watch::Sender<u64>,
    watchers: watch::Sender<Watchers>,
}

/// Who watches.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watchers {
    pub(super) here: usize,
    /// Until when one may return that went before it had everything.
    pub(super) expected: Option<Instant>,
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
    /// From where on those may want it again that went before the end, and until when they may return.
    left: Vec<(u64, Instant)>,
    /// Bytes of all slots that ever were.
    bytes: u64,
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
    /// In all slots before it.
    bytes_before: u64,
    count: u64,
    nanos: Option<i64>,
}

impl Slot {
    fn without_lines(body: Body, at: Position, lines_before: u64, bytes_before: u64) -> Self {
        Self { body, before: at, after: at, lines_before, bytes_before, count: 0, nanos: None }
    }
}

#[derive(Clone)]
enum Body {
    Memory(Arc<[LogLine]>),
    Disk(Piece),
    Gap(Gap),
    Notice(Notice),
    End(Completeness),
}

/// What a watcher gets.
pub(super) enum Taken {
    Lines {
        lines: Arc<[LogLine]>,
        before: Position,
        after: Position,
    },
    Gap(Gap),
    Notice(Notice),
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
            left: Vec::new(),
            bytes: 0,
            watchers_ever: 0,
            closed: false,
        };
        let shared = Arc::new(Self {
            spool,
            state: Mutex::new(state),
            appended: watch::Sender::new(0),
            watchers: watch::Sender::default(),
        });
        (Arc::clone(&shared), Appender { shared, files: Files::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who watches, from now on.
    pub(super) fn watchers(&self) -> watch::Receiver<Watchers> {
        self.watchers.subscribe()
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
        let bytes_before = state.bytes;
        let slot = match item {
            LogItem::Lines { lines, before, after } => {
                let bytes = cost(&lines);
                state.memory += bytes;
                state.bytes += bytes;
                self.spool.hold(bytes);
                let (count, nanos) = (lines.len() as u64, lines.first().map(|line| line.nanos));
                let (before, after) = (before.position, after.position);
                Slot { body: Body::Memory(lines.into()), before, after, lines_before, bytes_before, count, nanos }
            }
            LogItem::Gap(gap) => Slot::without_lines(Body::Gap(gap), before, lines_before, bytes_before),
            LogItem::Notice(notice) => Slot::without_lines(Body::Notice(notice), before, lines_before, bytes_before),
            LogItem::End(end) => Slot::without_lines(Body::End(end), before, lines_before, bytes_before),
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
        while let Some(Body::Gap(_) | Body::Notice(_)) = state.slots.front().map(|slot| &slot.body) {
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
    /// What the slowest watcher takes next, or would if it returned.
    fn slowest(&mut self) -> u64 {
        let end = self.first + self.slots.len() as u64;
        let now = Instant::now();
        self.left.retain(|(_, until)| *until > now);
        let left = self.left.iter().map(|(from, _)| *from);
        self.next.values().copied().chain(left).min().unwrap_or(end)
    }

    fn watchers(&self) -> Watchers {
        Watchers { here: self.next.len(), expected: self.left.iter().map(|(_, until)| *until).max() }
    }

    /// Bytes of all slots before that one.
    fn bytes_before(&self, number: u64) -> u64 {
        let index = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.slots.get(index).map_or(self.bytes, |slot| slot.bytes_before)
    }

    /// Notes that a watcher went before the end: from where on it may want everything again.
    fn leave(&mut self, next: u64, until: Instant) {
        let arrived = self.bytes_before(next).saturating_sub(UNDER_WAY);
        let index = self.slots.partition_point(|slot| slot.bytes_before < arrived);
        self.left.push((next.min(self.first + index as u64), until));
    }

    /// Drops what every watcher has had, unless there is memory for it. What is on disk stays until it must have arrived: a watcher
    /// that is slow has much under way when its connection breaks.
    fn trim(&mut self, spool: &Spool) {
        let slowest = self.slowest();
        let arrived = self.bytes_before(slowest).saturating_sub(UNDER_WAY);
        while self.first < slowest {
            let may_go = if self.first < self.in_memory {
                self.bytes_before(self.first + 1) <= arrived
            } else {
                spool.is_too_much(self.memory)
            };
            if !may_go {
                break;
            }
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
    files: Files,
}

impl Appender {
    /// One more item. Waits for the disk at most.
    pub(super) async fn append(&mut self, item: LogItem) {
        self.shared.push(item);
        while let Some((number, lines)) = self.shared.too_much() {
            let spool = &self.shared.spool;
            if let Some(piece) = spool.write(&mut self.files, lines).await {
                self.shared.spilled(number, piece);
            } else {
                self.files.close();
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
