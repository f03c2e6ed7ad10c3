//! The lines of a container that the cluster has no longer, from where a shipper has put them.
//!
//! It is asked when the pod is gone and not before. Shipping takes some seconds, so what is not there yet is waited for, with growing
//! pauses, and for no longer than lines take on their way. Nothing says that all of them came, so the instance is never told as
//! complete: where lines come from there a notice says so, where none do the gap stays, with what was found. `entry` reads what was
//! shipped, `join` finds where it goes on.

mod entry;
mod join;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::debug;

use self::entry::Entry;
use self::join::Join;
use super::super::chunk::LogItem;
use super::super::place::ReadMode;
use crate::backend::log_group::{LogGroup, LogGroupError, ShippedContainer, ShippedEvent};
use crate::execution::{Completeness, Gap, InstancePosition, Notice, Severity};

/// How long the first line is waited for. Fluent Bit looks for new files every 10 seconds and sends every 5 where AWS has set it up.
/// Within the usual drain deadline of 30 seconds.
const FIRST: Duration = Duration::from_secs(20);

/// How long another one is waited for.
const NEXT: Duration = Duration::from_secs(12);

/// So long after a container's end, in nanoseconds, all that will come is taken to be there, and nothing is waited for.
const SHIPPED_BY_THEN: i64 = 120_000_000_000;

/// Between two questions, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// What is wanted of what was shipped.
pub(in crate::backend::pod) struct Wanted {
    pub(in crate::backend::pod) of: ShippedContainer,
    pub(in crate::backend::pod) position: InstancePosition,
    pub(in crate::backend::pod) since: Option<Timestamp>,
    pub(in crate::backend::pod) mode: ReadMode,
    /// When the container ended, by the cluster's clock and in nanoseconds since 1970, and what time it is.
    pub(in crate::backend::pod) ended: Option<i64>,
    pub(in crate::backend::pod) now: i64,
    /// What is told if nothing is there.
    pub(in crate::backend::pod) gap: Gap,
}

impl Wanted {
    /// It may not all be there yet.
    fn is_under_way(&self) -> bool {
        let is_late = self.ended.is_some_and(|ended| self.now.saturating_sub(ended) > SHIPPED_BY_THEN);
        self.mode == ReadMode::Follow && !is_late
    }
}

/// Reads what was shipped of an instance. The stream does nothing while it is not polled and ends with `LogItem::End`.
pub(in crate::backend::pod) fn read(group: Arc<dyn LogGroup>, wanted: Wanted) -> impl Stream<Item = LogItem> + Send {
    let mut reading = Reading::new(group, &wanted);
    let Wanted { position, since, gap, .. } = wanted;
    let mut join = Join::new(gap.instance.clone(), position, since);
    async_stream::stream! {
        let from = join.from();
        let (mut is_told, mut is_over, mut early) = (false, false, Vec::new());
        while !is_over {
            if let Some(events) = reading.next(from).await {
                for event in events {
                    join.take(Entry::of(event));
                }
            } else {
                join.settle();
                is_over = true;
            }
            early.extend(join.take_ready());
            if join.lines() == 0 {
                // If no line comes there is one gap, which says more.
                early.truncate(1);
                continue;
            }
            if !is_told {
                is_told = true;
                yield LogItem::Notice(reading.notice());
            }
            for item in early.drain(..) {
                yield item;
            }
        }
        if let Some(words) = reading.words(join.lines()) {
            let message = format!("{}; {words}", gap.message);
            yield LogItem::Gap(Gap { message, ..gap });
        }
        yield LogItem::End(Completeness::Cut);
    }
}

/// What was asked, and what is known from that.
struct Reading {
    group: Arc<dyn LogGroup>,
    of: ShippedContainer,
    stream: Option<String>,
    next: Option<String>,
    is_under_way: bool,
    until: Instant,
    pause: Duration,
    failed: Option<LogGroupError>,
    /// Streams that were found where there should be one.
    too_many: Option<usize>,
}

impl Reading {
    fn new(group: Arc<dyn LogGroup>, wanted: &Wanted) -> Self {
        let is_under_way = wanted.is_under_way();
        let mut reading = Self {
            group,
            of: wanted.of.clone(),
            stream: None,
            next: None,
            is_under_way,
            until: Instant::now(),
            pause: FIRST_PAUSE,
            failed: None,
            too_many: None,
        };
        reading.wait_for(FIRST);
        reading
    }

    fn wait_for(&mut self, time: Duration) {
        self.pause = FIRST_PAUSE;
        self.until = Instant::now() + if self.is_under_way { time } else { Duration::ZERO };
    }

    /// More events; `None` if no more are expected, or none can be had.
    async fn next(&mut self, from: Option<i64>) -> Option<Vec<ShippedEvent>> {
        loop {
            match self.ask(from).await {
                Ok(Asked::Events(events)) => {
                    self.failed = None;
                    self.wait_for(NEXT);
                    return Some(events);
                }
                Ok(Asked::More) => {
                    self.failed = None;
                    continue;
                }
                Ok(Asked::Nothing) => self.failed = None,
                Err(error) => {
                    debug!(error = &error as &dyn std::error::Error, "a log group cannot be read");
                    let is_lasting = matches!(error, LogGroupError::Refused(_));
                    self.failed = Some(error);
                    if is_lasting {
                        return None;
                    }
                }
            }
            if Instant::now() >= self.until || self.too_many.is_some() {
                return None;
            }
            let pause = self.pause.mul_f64(rand::random_range(0.75..1.0));
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            tokio::time::sleep_until(self.until.min(Instant::now() + pause)).await;
        }
    }

    async fn ask(&mut self, from: Option<i64>) -> Result<Asked, LogGroupError> {
        let Some(stream) = &self.stream else {
            let mut found = self.group.find(&self.of).await?;
            match found.len() {
                0 => return Ok(Asked::Nothing),
                1 => self.stream = found.pop(),
                count => {
                    self.too_many = Some(count);
                    return Ok(Asked::Nothing);
                }
            }
            return Ok(Asked::More);
        };
        let page = self.group.page(stream, from, self.next.as_deref()).await?;
        self.next = page.next.or(self.next.take());
        Ok(match (page.events.is_empty(), page.is_last) {
            (false, _) => Asked::Events(page.events),
            (true, false) => Asked::More,
            (true, true) => Asked::Nothing,
        })
    }

    fn notice(&self) -> Notice {
        let Self { group, of, stream, .. } = self;
        let (group, stream) = (group.name(), stream.as_deref().unwrap_or_default());
        let message = format!(
            "lines of container {} of the pod {} come from the log group {group}, stream {stream}, since the pod was gone before \
             they were read; what the shipper left out, or had not put there yet, is not shown",
            of.container, of.pod
        );
        Notice { code: "LINES_FROM_LOG_GROUP", message, severity: Severity::Warning }
    }

    /// What is to be said at the end of the gap's message; nothing if there is no gap.
    fn words(&self, lines: u64) -> Option<String> {
        let group = self.group.name();
        if let Some(error) = &self.failed {
            return Some(format!("the log group {group} cannot be read: {error}"));
        }
        if let Some(count) = self.too_many {
            return Some(format!(
                "the log group {group} has {count} streams of this container, and which is its own is not known"
            ));
        }
        match &self.stream {
            _ if lines > 0 => None,
            Some(stream) => Some(format!("the log group {group} has nothing more of it in the stream {stream}")),
            None => Some(format!("the log group {group} has no stream of it")),
        }
    }
}

/// What an answer had.
enum Asked {
    Events(Vec<ShippedEvent>),
    /// Nothing yet, and there is more to ask for.
    More,
    /// All that there is was read.
    Nothing,
}
