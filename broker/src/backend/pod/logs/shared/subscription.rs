//! What one watcher takes of a stream.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::super::LINGER;
use super::{Body, Floor, Shared, Taken};
use crate::execution::Position;

/// What is there for a watcher.
enum Look {
    /// An item, the positions around it, and the lines up to its end.
    At((Body, Position, Position, u64)),
    NotYet,
    Overrun,
    Closed,
}

/// One watcher of a stream.
pub(in super::super) struct Subscription {
    shared: Arc<Shared>,
    id: u64,
    next: u64,
    /// Lines before the next slot.
    lines: u64,
    appended: watch::Receiver<u64>,
    /// It wants no more.
    is_done: bool,
}

impl Shared {
    /// One more watcher. What is held from now on stays until it was taken, or until there is no room.
    pub(in super::super) fn join(self: &Arc<Self>) -> Subscription {
        let mut state = self.state();
        state.watchers_ever += 1;
        let (id, first, lines) = (state.watchers_ever, state.first, state.floor.lines);
        state.next.insert(id, first);
        self.watchers.send_replace(state.watchers());
        let appended = self.appended.subscribe();
        drop(state);
        Subscription { shared: Arc::clone(self), id, next: first, lines, appended, is_done: false }
    }
}

impl Subscription {
    /// Nothing is kept for it. One that is dropped without this was taken away, and may return.
    pub(in super::super) fn finish(mut self) {
        self.is_done = true;
    }

    /// Where what comes next begins.
    pub(in super::super) fn floor(&self) -> Floor {
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

    /// The number behind all that was appended so far.
    pub(in super::super) fn end(&self) -> u64 {
        let state = self.shared.state();
        state.first + state.slots.len() as u64
    }

    /// Whether everything before that number was taken.
    pub(in super::super) fn is_at(&self, end: u64) -> bool {
        self.next >= end
    }

    /// After an overrun: goes on with the oldest that is held, and says how many lines were dropped before it.
    pub(in super::super) fn rejoin(&mut self) -> u64 {
        let mut state = self.shared.state();
        let first = state.first;
        state.next.insert(self.id, first);
        let missing = state.floor.lines.saturating_sub(self.lines);
        self.lines = state.floor.lines;
        self.next = first;
        missing
    }

    /// What comes next. Can be dropped while it waits.
    pub(in super::super) async fn next(&mut self) -> Taken {
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
                Body::Notice(notice) => Taken::Notice(notice),
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
        if !self.is_done {
            state.leave(self.next, Instant::now() + LINGER);
        }
        state.trim(&self.shared.spool);
        self.shared.watchers.send_replace(state.watchers());
    }
}
