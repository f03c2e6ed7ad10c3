//! A segment on its way: events are put into it until it is large or old enough to be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::index::{Entry, Stretch, text};
use super::mark::Mark;
use super::record::{self, Said};
use crate::execution::{Event, EventKind, Instance, LogChunk, StreamKey};

/// How much all segments together hold in memory, those that are being written too.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicUsize,
    limit: usize,
    segments: AtomicUsize,
    shown: Gauge,
}

impl Budget {
    pub(super) fn new(limit: usize, shown: Gauge) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), limit, segments: AtomicUsize::new(0), shown })
    }

    /// More is held than there should be, and a segment of this length has half of its share of it. When all that have so
    /// much are written before they get more, all together never hold one and a half times the limit.
    pub(super) fn presses(&self, length: usize) -> bool {
        let share = self.limit / 2 / self.segments.load(Ordering::Relaxed).max(1);
        self.held.load(Ordering::Relaxed) > self.limit && length > share
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// Some bytes of the budget, given back with it.
#[derive(Debug)]
pub(super) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    fn none(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    pub(super) fn set(&mut self, bytes: usize) {
        let Budget { held, shown, .. } = &*self.budget;
        held.fetch_add(bytes, Ordering::Relaxed);
        held.fetch_sub(self.bytes, Ordering::Relaxed);
        shown.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
        shown.dec_by(i64::try_from(self.bytes).unwrap_or(i64::MAX));
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Where each container instance stands.
pub(super) type Marks = std::collections::HashMap<StreamKey, Mark>;

/// What was heard since the last segment.
pub(super) struct Segment {
    budget: Arc<Budget>,
    records: Vec<u8>,
    held: Held,
    cursor: Vec<u8>,
    said: bool,
    streams: Vec<Stretch>,
    since: Option<Instant>,
}

impl Segment {
    pub(super) fn new(budget: Arc<Budget>, cursor: Vec<u8>) -> Self {
        budget.segments.fetch_add(1, Ordering::Relaxed);
        let held = Held::none(Arc::clone(&budget));
        Self { budget, records: Vec::new(), held, cursor, said: false, streams: Vec::new(), since: None }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// When the first of it was heard.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// The cursor after it.
    pub(super) fn cursor(&self) -> &[u8] {
        &self.cursor
    }

    /// Takes in an event. What a replay makes anew, the states and the end, leaves nothing behind.
    pub(super) fn take(&mut self, event: Event, marks: &mut Marks) {
        match event.kind {
            EventKind::StateChanged(_) | EventKind::End(_) => return,
            EventKind::LogChunk(chunk) => self.lines(&chunk, marks),
            EventKind::LogGap(gap) => {
                let at = marks.get(&key(&gap.instance)).copied().unwrap_or(Mark::START);
                self.say(&Said::Gap { gap, at });
            }
            EventKind::AttemptStarted(attempt) => self.say(&Said::AttemptStarted(attempt)),
            EventKind::AttemptEnded(attempt, outcome) => self.say(&Said::AttemptEnded(attempt, outcome)),
            EventKind::LogStreamEnd(instance, completeness) => self.say(&Said::StreamEnd(instance, completeness)),
            EventKind::Notice(notice) => self.say(&Said::Notice {
                // The cursor after it ends with it.
                key: event.cursor.notices.last().copied().unwrap_or_default(),
                code: notice.code.to_owned(),
                message: notice.message,
                severity: notice.severity,
            }),
            EventKind::Result(source, value) => self.say(&Said::result(source, value)),
        }
        self.cursor = event.cursor.encode();
        self.since.get_or_insert_with(Instant::now);
        self.held.set(self.records.len());
    }

    fn begin(&mut self) {
        if self.records.is_empty() {
            record::put(&mut self.records, &Said::FORMAT);
        }
    }

    fn say(&mut self, said: &Said) {
        self.begin();
        self.said = true;
        record::put(&mut self.records, said);
    }

    fn lines(&mut self, chunk: &LogChunk, marks: &mut Marks) {
        self.begin();
        let key = key(&chunk.instance);
        // What the watch has passed over in silence, such as the beginning of a second, is behind the mark already.
        let engine = Mark::of(chunk.before.stream(&key));
        let mark = marks.entry(key.clone()).or_insert(Mark::START);
        let before = (*mark).max(engine);
        record::put_lines(&mut self.records, &chunk.instance, before, &chunk.lines);
        *mark = chunk.lines.iter().fold(before, |mark, line| mark.after(line.nanos));
        let (lines, after) = (chunk.lines.len() as u64, *mark);
        if let Some(stretch) = self.streams.iter_mut().find(|stretch| stretch.key() == key) {
            stretch.lines += lines;
            stretch.after = after;
        } else {
            let StreamKey { attempt, container, restart } = key;
            self.streams.push(Stretch { attempt, container, restart, lines, after });
        }
    }

    /// The segment's content, its part of the budget, and the index entry for it, which gets its size when it is compressed.
    /// Empties it.
    pub(super) fn close(&mut self) -> Option<(Vec<u8>, Held, Entry)> {
        if self.records.is_empty() {
            return None;
        }
        let records = std::mem::take(&mut self.records);
        let held = std::mem::replace(&mut self.held, Held::none(Arc::clone(&self.budget)));
        self.since = None;
        let said = std::mem::take(&mut self.said);
        let streams = std::mem::take(&mut self.streams);
        Some((records, held, Entry { bytes: 0, said, cursor: text(&self.cursor), streams }))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.budget.segments.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which log stream the lines of an instance belong to.
pub(super) fn key(instance: &Instance) -> StreamKey {
    StreamKey { attempt: instance.attempt, container: instance.container.clone(), restart: instance.restart }
}
