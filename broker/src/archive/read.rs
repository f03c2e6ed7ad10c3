//! Reads an execution from the archive, as a watch would tell it.
//!
//! The writers' copies are read one after the other; what one has told is passed over in the next. Where one has a gap and a
//! later one has the lines, the later one is read there first. Of a segment only one record is in memory beside its compressed
//! bytes, and segments that have nothing new are not fetched.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::Archive;
use super::index::{Entry, Generation, cursor, generations, segment_name};
use super::mark::Mark;
use super::record::{Record, Records, Said};
use super::seat::Reader;
use super::segment::key;
use super::store::StoreError;
use crate::error::Error;
use crate::execution::{Address, Completeness, Cursor, Event, EventKind, Gap, LogMode, StreamKey, WatchOptions};

/// What is being read of one generation.
struct Frame {
    /// Its place in the list.
    generation: usize,
    /// The next segment.
    next: usize,
    records: Option<Records>,
    /// To close this gap; nothing else is wanted.
    only: Option<Gap>,
}

impl Frame {
    fn new(generation: usize, only: Option<Gap>) -> Self {
        Self { generation, next: 0, records: None, only }
    }
}

/// One reading of one execution.
pub(super) struct Replay {
    archive: Arc<Archive>,
    address: Address,
    hash: String,
    generations: Vec<Generation>,
    reader: Reader,
    /// The last one is read first.
    frames: Vec<Frame>,
    /// To be told before the next record.
    told: Vec<Event>,
    _permit: OwnedSemaphorePermit,
}

impl Archive {
    /// Reads what is there of an execution from a cursor on. Ends with what there is; whoever reads it knows whether that is all.
    pub(super) async fn replay(
        self: &Arc<Self>,
        address: &Address,
        cursor: Cursor,
        options: WatchOptions,
    ) -> Result<Replay, Error> {
        let permit = Arc::clone(&self.readers)
            .try_acquire_owned()
            .map_err(|_| Error::Overloaded { retry_after: std::time::Duration::from_secs(2) })?;
        let hash = address.hash();
        let generations = generations(&self.reading, &hash).await?;
        let frames = (0..generations.len()).rev().map(|generation| Frame::new(generation, None)).collect();
        let (archive, address) = (Arc::clone(self), address.clone());
        let mut reader = Reader::new(cursor, options);
        let is_damaged = generations.iter().any(|generation| generation.damaged);
        let told = if is_damaged { reader.damaged(&[]) } else { Vec::new() };
        Ok(Replay { archive, address, hash, generations, reader, frames, told, _permit: permit })
    }
}

impl Replay {
    /// Leaves out all but the last so many lines of each log that the cursor does not know yet.
    pub(super) async fn keep_last(&mut self, lines: u64) -> Result<(), Error> {
        let mut totals: HashMap<StreamKey, u64> = HashMap::new();
        if let [only] = &self.generations[..] {
            for stretch in only.segments.iter().flat_map(|entry| &entry.streams) {
                let total = totals.entry(stretch.key()).or_default();
                *total = total.saturating_add(stretch.lines);
            }
        } else {
            // Two writers may have written the same lines, so they are counted as they would be told.
            let options = WatchOptions { tail_lines: None, max_log_bytes: None, ..self.reader.options.clone() };
            let counting = self.archive.replay(&self.address, self.reader.cursor.clone(), options).await?;
            let mut events = std::pin::pin!(counting.events());
            while let Some(event) = events.next().await {
                if let EventKind::LogChunk(chunk) = event?.kind {
                    *totals.entry(key(&chunk.instance)).or_default() += chunk.lines.len() as u64;
                }
            }
        }
        for (key, total) in totals {
            if !self.reader.seats.contains_key(&key) {
                self.reader.seat(&key).skip = total.saturating_sub(lines);
            }
        }
        Ok(())
    }

    /// Whether there is anything of a log behind a cursor.
    pub(super) fn has_beyond(&self, key: &StreamKey, cursor: &Cursor) -> bool {
        let mark = Mark::of(cursor.stream(key));
        self.generations.iter().any(|generation| generation.after(key) > Some(mark))
    }

    /// Whether there is anything at all.
    pub(super) fn is_empty(&self) -> bool {
        self.generations.iter().all(|generation| generation.segments.is_empty())
    }

    /// What it says, one event after the other.
    pub(super) fn events(mut self) -> impl Stream<Item = Result<Event, Error>> + Send {
        async_stream::try_stream! {
            loop {
                let record = self.next().await?;
                for event in std::mem::take(&mut self.told) {
                    yield event;
                }
                let Some(record) = record else { break };
                for event in self.reader.take(record) {
                    yield event;
                }
            }
        }
    }

    /// The next record that may say something new.
    async fn next(&mut self) -> Result<Option<Record>, Error> {
        while let Some(frame) = self.frames.last_mut() {
            // Unpacking is work, and many records may be passed over.
            tokio::task::consume_budget().await;
            let record = match frame.records.as_mut().map(Records::next) {
                Some(Ok(record)) => record,
                Some(Err(error)) => {
                    self.damaged(&error);
                    None
                }
                None => None,
            };
            let Some(frame) = self.frames.last_mut() else { break };
            let generation = frame.generation;
            let Some(record) = record else {
                self.next_segment().await?;
                continue;
            };
            let only = frame.only.as_ref().map(|gap| key(&gap.instance));
            match &record {
                Record::Lines { instance, .. } if only.as_ref().is_none_or(|only| key(instance) == *only) => {}
                Record::Said(Said::Gap { gap, at }) if only.as_ref().is_none_or(|only| key(&gap.instance) == *only) => {
                    let key = key(&gap.instance);
                    if *at >= self.reader.seat(&key).mark
                        && let Some(later) = self.later(generation, &key, *at)
                    {
                        self.frames.push(Frame::new(later, Some(gap.clone())));
                        continue;
                    }
                }
                Record::Said(Said::StreamEnd(instance, completeness))
                    if only.as_ref().is_none_or(|only| key(instance) == *only) =>
                {
                    let key = key(instance);
                    let mark = self.reader.seat(&key).mark;
                    if *completeness == Completeness::Cut && self.later(generation, &key, mark).is_some() {
                        continue;
                    }
                }
                Record::Said(_) if only.is_none() => {}
                _ => continue,
            }
            return Ok(Some(record));
        }
        Ok(None)
    }

    /// The segment that is being read cannot be read on.
    fn damaged(&mut self, error: &(dyn std::error::Error + 'static)) {
        let Some(frame) = self.frames.last_mut() else { return };
        frame.records = None;
        let Some(generation) = self.generations.get(frame.generation) else { return };
        let Some(number) = frame.next.checked_sub(1) else { return };
        warn!(
            execution = %self.address.name(), generation = generation.number, segment = number,
            error, "a part of the archive cannot be read"
        );
        let Some(entry) = generation.segments.get(number) else { return };
        // A later copy may have what is missing; what it has not is told as a gap all the same.
        let is_last_copy = frame.generation + 1 == self.generations.len();
        let streams = if is_last_copy { &entry.streams[..] } else { &[] };
        self.told.extend(self.reader.damaged(streams));
    }

    /// A later generation that has what is missing behind a mark.
    fn later(&self, than: usize, key: &StreamKey, mark: Mark) -> Option<usize> {
        let began = |generation: &Generation| {
            let start = Cursor::decode(&cursor(&generation.claim.cursor), &self.hash).unwrap_or_default();
            Mark::of(start.stream(key))
        };
        let has = |generation: &Generation| began(generation) <= mark && generation.after(key) > Some(mark);
        (than + 1..self.generations.len()).find(|index| self.generations.get(*index).is_some_and(has))
    }

    /// Goes to the next segment of the frame that may have something new, or leaves the frame.
    async fn next_segment(&mut self) -> Result<(), Error> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        frame.records = None;
        let Some(generation) = self.generations.get(frame.generation) else { return Ok(()) };
        let is_only_copy = self.generations.len() == 1;
        while let Some(entry) = generation.segments.get(frame.next) {
            let number = u32::try_from(frame.next).unwrap_or(u32::MAX);
            frame.next += 1;
            if is_stale(&mut self.reader, entry, frame.only.as_ref(), is_only_copy) {
                continue;
            }
            let path = self.archive.reading.generation(&self.hash, generation.number, &segment_name(number));
            // It was there when the index was read: it has expired in between.
            let expired = || Error::Expired { name: self.address.name().to_string() };
            match self.archive.reading.get(&path).await {
                Ok(Some(segment)) => frame.records = Some(Records::new(segment)),
                Ok(None) => Err(expired())?,
                Err(error @ StoreError::Damaged { .. }) => self.damaged(&error),
                Err(error) => Err(error)?,
            }
            return Ok(());
        }
        if let Some(gap) = self.frames.pop().and_then(|frame| frame.only) {
            self.reader.doubt(gap);
        }
        Ok(())
    }
}

/// A segment that says nothing new. Of the only copy, lines that are not wanted are passed over as one.
fn is_stale(reader: &mut Reader, entry: &Entry, only: Option<&Gap>, is_only_copy: bool) -> bool {
    let only = only.map(|gap| key(&gap.instance));
    if entry.said && only.is_none() {
        return false;
    }
    if reader.options.logs == LogMode::None {
        return true;
    }
    let mut passed = Vec::new();
    for stretch in &entry.streams {
        let key = stretch.key();
        if only.as_ref().is_some_and(|only| key != *only) || !reader.wants(&key.container) {
            continue;
        }
        let seat = reader.seat(&key);
        if seat.mark >= stretch.after {
            continue;
        }
        if !is_only_copy || !seat.fresh || seat.skip < stretch.lines {
            return false;
        }
        passed.push((key, stretch.after, stretch.lines));
    }
    for (key, after, lines) in passed {
        let seat = reader.seat(&key);
        seat.mark = after;
        seat.skip = seat.skip.saturating_sub(lines);
    }
    true
}
