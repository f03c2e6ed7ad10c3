//! Writes one execution: takes part in a watch of it and makes segments of what it hears.
//!
//! A generation belongs to one writer and is written by nobody else. A segment comes first and then the index that names it,
//! so what the index names is there. The outcome comes last of all: who finds it finds everything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::path::Path;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::index::{Ended, PAGE, Page, json, page_name, segment_name};
use super::record;
use super::segment::{Marks, Segment};
use super::store::{Made, StoreError};
use super::trouble::{LONGEST_PAUSE, Pause, Waiting};
use super::{Archive, mark::Mark};
use crate::backend::Backend;
use crate::error::Error;
use crate::execution::{Address, Cursor, Event, EventKind, Execution, Follow, LogMode, WatchOptions};

/// A stopping broker writes what it has for so long; the next one reads the rest from the cluster.
const LAST_WORD: Duration = Duration::from_secs(3);

/// How the writing of an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All of it is in the archive.
    Durable,
    /// There is nothing to follow any more.
    Gone,
}

/// Whether what was heard is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Yes,
    /// The broker stops.
    No,
}

/// Everything, to the end.
const EVERYTHING: WatchOptions = WatchOptions {
    logs: LogMode::Lines,
    containers: Vec::new(),
    tail_lines: None,
    since: None,
    follow: Follow::UntilTheEnd,
    max_log_bytes: None,
};

pub(super) struct Writer {
    archive: Arc<Archive>,
    address: Address,
    hash: String,
    generation: u32,
    segment: Segment,
    marks: Marks,
    /// The latest page of the index.
    page: Page,
    /// While the store does not take what it has.
    waiting: Option<Waiting>,
}

impl Writer {
    pub(super) fn new(archive: Arc<Archive>, address: Address, generation: u32, cursor: Vec<u8>) -> Self {
        let hash = address.hash();
        let known = Cursor::decode(&cursor, &hash).map(|cursor| cursor.streams).unwrap_or_default();
        let marks = known.into_iter().map(|(key, position)| (key, Mark::of(position))).collect();
        let segment = Segment::new(Arc::clone(&archive.budget), cursor);
        Self { archive, address, hash, generation, segment, marks, page: Page::default(), waiting: None }
    }

    /// The cursor after what it has heard.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor::decode(self.segment.cursor(), &self.hash).unwrap_or_else(|_| Cursor::start(self.hash.clone()))
    }

    /// Takes in what no watch says.
    pub(super) fn take(&mut self, event: Event) {
        self.segment.take(event, &mut self.marks);
    }

    pub(super) async fn run(mut self, backend: &dyn Backend, stop: &CancellationToken) -> Ending {
        let mut pause = Pause::default();
        loop {
            let cursor = self.segment.cursor().to_vec();
            match backend.copy(&self.address.tenant, &self.address.id, &cursor, EVERYTHING).await {
                Ok(mut events) => {
                    let opened = Instant::now();
                    if let Some(ending) = self.listen(&mut events, stop).await {
                        return ending;
                    }
                    if opened.elapsed() > LONGEST_PAUSE {
                        pause = Pause::default();
                    }
                }
                Err(Error::NoSuchExecution { .. } | Error::Expired { .. }) => {
                    warn!(execution = %self.address.name(), "gone before all of it was archived");
                    self.write(stop).await;
                    return Ending::Gone;
                }
                Err(error) => debug!(error = &error as &dyn std::error::Error, "cannot be followed yet"),
            }
            if !pause.wait(stop).await {
                return self.last_word().await;
            }
        }
    }

    /// Hears a watch to its end. `None` when it broke off.
    pub(super) async fn listen(
        &mut self,
        events: &mut crate::backend::EventStream,
        stop: &CancellationToken,
    ) -> Option<Ending> {
        loop {
            let due = self.segment.since().map(|since| since + self.archive.settings.flush);
            let event = tokio::select! {
                event = events.next() => event,
                () = stop.cancelled() => return Some(self.last_word().await),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.write(stop).await;
                    continue;
                }
            };
            match event {
                Some(Ok(Event { kind: EventKind::End(execution), .. })) => {
                    return Some(self.end(*execution, stop).await);
                }
                Some(Ok(event)) => self.segment.take(event, &mut self.marks),
                Some(Err(error)) => {
                    debug!(error = &error as &dyn std::error::Error, "a watch broke off; resuming");
                    return None;
                }
                None => return None,
            }
            let pressed = self.archive.budget.presses(self.segment.len());
            if pressed || self.segment.len() >= self.archive.settings.segment_bytes {
                self.write(stop).await;
            }
        }
    }

    /// Writes what is left, and how it ended.
    pub(super) async fn end(&mut self, execution: Execution, stop: &CancellationToken) -> Ending {
        if self.write(stop).await == Written::No {
            return Ending::Gone;
        }
        let path = self.archive.store.outcome(&self.hash);
        let content = json(&Ended { execution });
        let mut pause = Pause::default();
        loop {
            match self.make_outcome(&path, content.clone()).await {
                Ok(true) => {
                    self.worked();
                    info!(execution = %self.address.name(), "archived");
                    return Ending::Durable;
                }
                Ok(false) => {}
                Err(error) => self.failed(&error),
            }
            if !pause.wait_for(&self.archive.store, stop).await {
                return Ending::Gone;
            }
        }
    }

    /// Says whether the outcome is there now. S3 says of a conflict in which nobody has made it what it says of one that is
    /// there, so only what can be read is there.
    async fn make_outcome(&self, path: &Path, content: Bytes) -> Result<bool, StoreError> {
        let store = &self.archive.store;
        Ok(store.create(path, content).await? == Made::Now || store.get(path).await?.is_some())
    }

    /// Writes the segment, and tries until it is written. The watch is not asked for more meanwhile: its reader keeps what comes.
    pub(super) async fn write(&mut self, stop: &CancellationToken) -> Written {
        let Some((records, mut held, mut entry)) = self.segment.close() else { return Written::Yes };
        if self.page.segments.len() == PAGE {
            self.page = Page { first: self.page.first + u32::try_from(PAGE).unwrap_or(u32::MAX), segments: Vec::new() };
        }
        let number = self.page.first + u32::try_from(self.page.segments.len()).unwrap_or(u32::MAX);
        let content = Bytes::from(record::compress(&records).await);
        drop(records);
        held.set(content.len());
        entry.bytes = content.len() as u64;
        self.page.segments.push(entry);
        let store = Arc::clone(&self.archive.store);
        let segment = store.generation(&self.hash, self.generation, &segment_name(number));
        let index = store.generation(&self.hash, self.generation, &page_name(number as usize / PAGE));
        let page = json(&self.page);
        let mut pause = Pause::default();
        loop {
            let written = async {
                store.put(&segment, content.clone()).await?;
                store.put(&index, page.clone()).await
            };
            match written.await {
                Ok(()) => break,
                Err(error) => self.failed(&error),
            }
            if !pause.wait_for(&store, stop).await {
                return Written::No;
            }
        }
        self.worked();
        self.archive.counters.segments.inc();
        self.archive.counters.bytes.inc_by(content.len() as u64);
        Written::Yes
    }

    fn failed(&mut self, error: &StoreError) {
        debug!(execution = %self.address.name(), error = error as &dyn std::error::Error, "cannot be written yet");
        self.waiting.get_or_insert_with(|| self.archive.trouble.wait());
        self.archive.trouble.failed(error);
    }

    fn worked(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.done();
        }
    }

    /// The broker stops: what was heard is written if that goes quickly.
    async fn last_word(&mut self) -> Ending {
        let stopped = CancellationToken::new();
        stopped.cancel();
        let _ = tokio::time::timeout(LAST_WORD, self.write(&stopped)).await;
        Ending::Gone
    }
}
