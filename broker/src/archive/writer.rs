//! Writes one execution: takes part in a watch of it and makes segments of what it hears.
//!
//! A generation belongs to one writer and is written by nobody else. A segment comes first and then the index that names it,
//! so what the index names is there. The outcome comes last of all: who finds it finds everything.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::index::{Claim, Ended, MAX_GENERATION, PAGE, Page, generations, json, page_name, segment_name, text};
use super::record;
use super::segment::{Marks, Segment};
use super::store::{Made, StoreError};
use super::{Archive, mark::Mark};
use crate::backend::Backend;
use crate::error::Error;
use crate::execution::{Address, Cursor, Event, EventKind, Execution, Follow, LogMode, WatchOptions};

/// The pause after a failure, doubled up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
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

impl Archive {
    /// Sees to it that one execution gets into the archive, whoever writes it.
    pub(super) async fn keep(
        self: Arc<Self>,
        backend: Arc<dyn Backend>,
        address: Address,
        urge: Arc<Notify>,
        gone: CancellationToken,
        stop: CancellationToken,
    ) {
        let mut pause = Pause::default();
        loop {
            let work = self.claim(&address, &urge);
            let claimed = tokio::select! {
                claimed = work => claimed,
                () = gone.cancelled() => return,
                () = stop.cancelled() => return,
            };
            let writer = match claimed {
                Ok(Some(writer)) => writer,
                Ok(None) => return self.is_durable(&address),
                Err(error) => {
                    self.counters.failures.inc();
                    warn!(execution = %address.name(), error = &error as &dyn std::error::Error, "cannot be archived yet");
                    if !pause.wait(&stop).await {
                        return;
                    }
                    continue;
                }
            };
            if writer.run(&*backend, &stop).await == Ending::Durable {
                self.is_durable(&address);
                self.counters.executions.inc();
            }
            return;
        }
    }

    /// A writer for the next generation; `None` when the outcome is there. Waits while another writer is at it, until that
    /// one is dead or it is urgent: then it may have finished, or be stuck.
    pub(super) async fn claim(
        self: &Arc<Self>,
        address: &Address,
        urge: &Notify,
    ) -> Result<Option<Writer>, StoreError> {
        let hash = address.hash();
        loop {
            if self.outcome(&self.store, address).await?.is_some() {
                return Ok(None);
            }
            let mut known = generations(&self.store, &hash).await?;
            if let Some(last) = known.last()
                && last.claim.writer != self.life.me()
            {
                let number = last.number;
                tokio::select! {
                    () = self.life.until_dead(&self.store, &last.claim.writer) => {}
                    () = urge.notified() => {}
                }
                if self.outcome(&self.store, address).await?.is_some() {
                    return Ok(None);
                }
                // It has come further meanwhile, and another one may have been faster than we are.
                known = generations(&self.store, &hash).await?;
                if known.last().is_none_or(|last| last.number != number) {
                    continue;
                }
            }
            let number = known.last().map_or(0, |last| last.number) + 1;
            if number > MAX_GENERATION {
                return Err(StoreError::Full { path: self.store.execution(&hash) });
            }
            let cursor = known.iter().rev().find_map(super::index::Generation::cursor).unwrap_or_default();
            // The day first: what no day knows of would never expire.
            self.store.put(&self.store.day(&super::expire::today(), &hash), "").await?;
            let claim = Claim { writer: self.life.me().to_owned(), cursor: text(&cursor) };
            let path = self.store.generation(&hash, number, "claim.json");
            if self.store.create(&path, json(&claim)).await? == Made::Now {
                debug!(execution = %address.name(), generation = number, "archiving");
                return Ok(Some(Writer::new(Arc::clone(self), address.clone(), number, cursor)));
            }
        }
    }
}

pub(super) struct Writer {
    archive: Arc<Archive>,
    address: Address,
    hash: String,
    generation: u32,
    segment: Segment,
    marks: Marks,
    /// The latest page of the index.
    page: Page,
}

impl Writer {
    pub(super) fn new(archive: Arc<Archive>, address: Address, generation: u32, cursor: Vec<u8>) -> Self {
        let hash = address.hash();
        let known = Cursor::decode(&cursor, &hash).map(|cursor| cursor.streams).unwrap_or_default();
        let marks = known.into_iter().map(|(key, position)| (key, Mark::of(position))).collect();
        let segment = Segment::new(Arc::clone(&archive.budget), cursor);
        Self { archive, address, hash, generation, segment, marks, page: Page::default() }
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
    async fn end(&mut self, execution: Execution, stop: &CancellationToken) -> Ending {
        if self.write(stop).await == Written::No {
            return Ending::Gone;
        }
        let path = self.archive.store.outcome(&self.hash);
        let content = json(&Ended { execution });
        let mut pause = Pause::default();
        loop {
            match self.archive.store.create(&path, content.clone()).await {
                Ok(_) => {
                    info!(execution = %self.address.name(), "archived");
                    return Ending::Durable;
                }
                Err(error) => self.failed(&error),
            }
            if !pause.wait(stop).await {
                return Ending::Gone;
            }
        }
    }

    /// Writes the segment, and tries until it is written. The watch is not asked for more meanwhile: its reader keeps what comes.
    pub(super) async fn write(&mut self, stop: &CancellationToken) -> Written {
        let Some((records, mut held, mut entry)) = self.segment.close() else { return Written::Yes };
        if self.page.segments.len() == PAGE {
            self.page = Page { first: self.page.first + u32::try_from(PAGE).unwrap_or(u32::MAX), segments: Vec::new() };
        }
        let number = self.page.first + u32::try_from(self.page.segments.len()).unwrap_or(u32::MAX);
        let content = bytes::Bytes::from(record::compress(&records).await);
        drop(records);
        held.set(content.len());
        entry.bytes = content.len() as u64;
        self.page.segments.push(entry);
        let store = &self.archive.store;
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
            if !pause.wait(stop).await {
                return Written::No;
            }
        }
        self.archive.counters.segments.inc();
        self.archive.counters.bytes.inc_by(content.len() as u64);
        Written::Yes
    }

    fn failed(&self, error: &StoreError) {
        self.archive.counters.failures.inc();
        warn!(execution = %self.address.name(), error = error as &dyn std::error::Error, "cannot write to the archive");
    }

    /// The broker stops: what was heard is written if that goes quickly.
    async fn last_word(&mut self) -> Ending {
        let stopped = CancellationToken::new();
        stopped.cancel();
        let _ = tokio::time::timeout(LAST_WORD, self.write(&stopped)).await;
        Ending::Gone
    }
}

/// Pauses that grow.
#[derive(Debug, Default)]
struct Pause(u32);

impl Pause {
    /// Waits; false when it is time to stop.
    async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(self.0.min(10)));
        self.0 += 1;
        let jitter = pause.mul_f64(rand::random_range(0.5..1.0));
        stop.run_until_cancelled(tokio::time::sleep(jitter)).await.is_some()
    }
}
