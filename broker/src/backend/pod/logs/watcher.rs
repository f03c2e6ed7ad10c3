//! One watcher of one container instance: what it wants of the shared stream, and what it reads by itself before that.
//!
//! A watcher that stands where the stream is held takes it from there. One that stands before that reads the file by itself,
//! up to the line at which the stream begins: positions are in the log's own order, whoever counts them, so that line is
//! recognized. What is neither in the file nor in the stream is a gap. The same way goes a watcher that was so slow that the
//! stream had to drop what it had not had.

use std::cmp::Ordering;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::super::chunk::LogItem;
use super::super::place::{LogStart, Place, ReadMode, Verdict, after_line, compare};
use super::Logs;
use super::reader::gap;
use super::shared::{Floor, Taken};
use super::status::Status;
use super::stream;
use crate::execution::{Completeness, Gap, GapReason, InstancePosition, LogLine, Position};

/// Reads an instance for one watcher. The stream does nothing while it is not polled and ends with `LogItem::End`: behind the
/// last line, or behind what was read by the time that `stop` was cancelled, with a gap.
#[expect(clippy::too_many_lines, reason = "one loop that yields; what it does is in the order in which it happens")]
pub(super) fn watch(
    logs: Arc<Logs>,
    status: Status,
    start: LogStart,
    stop: CancellationToken,
) -> impl Stream<Item = LogItem> + Send {
    async_stream::stream! {
        let mut status = status;
        let by_itself =
            |status: &Status, start: LogStart| stream::read(Arc::clone(&logs.source), logs.group.clone(), status.clone(), start);
        if start.mode == ReadMode::SoFar || start.position.position == Position::Complete {
            let mut items = std::pin::pin!(by_itself(&status, start));
            while let Some(item) = items.next().await {
                yield item;
            }
            return;
        }
        let mut at = start.position;
        let mut count = Count::Exact;
        if start.tail_lines.is_some() || start.since.is_some() {
            // Where that begins in the log is known to the file only.
            let mut items = std::pin::pin!(by_itself(&status, LogStart { mode: ReadMode::SoFar, ..start }));
            while let Some(Some(item)) = stop.run_until_cancelled(items.next()).await {
                match item {
                    LogItem::Lines { after, .. } => at = after,
                    LogItem::End(Completeness::Complete) => break,
                    LogItem::Gap(_) | LogItem::Notice(_) | LogItem::End(Completeness::Cut) => {}
                }
                let is_end = matches!(item, LogItem::End(_));
                yield item;
                if is_end {
                    return;
                }
            }
            if start.tail_lines.is_some() {
                count = Count::FromTheMiddle;
            }
        }
        let mut subscription = logs.join(&status, at.position);
        let mut missing = None;
        let mut until = None;
        loop {
            let mut floor = subscription.floor();
            if compare(at.position, floor.position) == Ordering::Less {
                let mut meeting = Meeting::new(at, floor.position);
                // Without a line to go on from, only a file that has the line where the stream begins is before it: times do not
                // tell, once a clock went back.
                let mut is_before = at.position != Position::Start;
                {
                    let alone = LogStart { position: at, tail_lines: None, since: None, mode: ReadMode::SoFar };
                    let mut items = std::pin::pin!(by_itself(&status, alone));
                    while let Some(Some(item)) = stop.run_until_cancelled(items.next()).await {
                        match &item {
                            // The file begins too late, and how much was dropped is known exactly.
                            LogItem::Gap(_) if missing.is_some() => break,
                            LogItem::Gap(gap) => is_before &= gap.reason != GapReason::Rotated,
                            LogItem::Lines { .. } if !is_before => {
                                is_before = stream::has(&logs.source, &mut status, floor.position).await;
                                if !is_before {
                                    break;
                                }
                            }
                            // What was shipped has the line where the stream begins, if anything does.
                            LogItem::Notice(_) => is_before = true,
                            LogItem::Lines { .. } | LogItem::End(_) => {}
                        }
                        let (item, go_on) = meeting.take(item);
                        if let Some(item) = item {
                            yield item;
                        }
                        if !go_on {
                            break;
                        }
                    }
                }
                // The stream may have gone on; what comes next is still what came next before.
                floor.nanos = subscription.floor().nanos;
                if let Some(gap) = meeting.gap(&status, &floor, count, missing) {
                    let was_stopped = stop.is_cancelled() && missing.is_none();
                    yield LogItem::Gap(if was_stopped { stopped(&status, meeting.at) } else { gap });
                }
                at = meeting.end(floor.position);
            }
            missing = None;
            let mut place = Place::new(at, start.since);
            place.begin_at(floor.position);
            loop {
                if until.is_some_and(|until| subscription.is_at(until)) {
                    subscription.finish();
                    yield LogItem::Gap(stopped(&status, at));
                    yield LogItem::End(Completeness::Cut);
                    return;
                }
                let taken = tokio::select! {
                    biased;
                    () = stop.cancelled(), if until.is_none() => {
                        until = Some(subscription.end());
                        continue;
                    }
                    taken = subscription.next() => taken,
                };
                match taken {
                    Taken::Lines { lines, before, after } if place.is_settled() => {
                        at = exact(after);
                        yield LogItem::Lines { lines: lines.to_vec(), before: exact(before), after: at };
                    }
                    Taken::Lines { lines, .. } => {
                        let (items, lost) = filter(&mut place, &lines);
                        if let Some(before) = lost && count == Count::Exact {
                            yield LogItem::Gap(not_found(&status, at, Some(before)));
                        }
                        at = place.position();
                        if let Some(items) = items {
                            yield items;
                        }
                    }
                    Taken::Gap(gap) if place.is_found() => yield LogItem::Gap(gap),
                    Taken::Gap(_) => {}
                    Taken::Notice(notice) => yield LogItem::Notice(notice),
                    Taken::End(completeness) => {
                        subscription.finish();
                        if place.end().is_some() && count == Count::Exact {
                            yield LogItem::Gap(not_found(&status, at, None));
                        }
                        yield LogItem::End(completeness);
                        return;
                    }
                    Taken::Overrun => {
                        missing = Some(subscription.rejoin());
                        break;
                    }
                    Taken::Closed => {
                        if logs.stop.is_cancelled() {
                            std::future::pending::<()>().await;
                        }
                        subscription = logs.join(&status, at.position);
                        until = None;
                        break;
                    }
                }
            }
        }
    }
}

/// How the entries of one moment were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Exact,
    /// From somewhere in the log: the first moment may have had entries before.
    FromTheMiddle,
}

/// A position behind which nothing was handed on.
fn exact(position: Position) -> InstancePosition {
    InstancePosition { position, skip: 0 }
}

/// Passes over what the watcher has had. Also tells the time of the first line, if the position was not found before it.
fn filter(place: &mut Place, lines: &[LogLine]) -> (Option<LogItem>, Option<i64>) {
    let (mut handed, mut before, mut lost) = (Vec::new(), place.position(), None);
    for line in lines {
        let (verdict, problem) = place.take(line);
        lost = lost.or(problem.map(|_| line.nanos));
        match verdict {
            Verdict::HandOn => handed.push(line.clone()),
            Verdict::PassOver if handed.is_empty() => before = place.position(),
            Verdict::PassOver => {}
        }
    }
    let items = (!handed.is_empty()).then(|| LogItem::Lines { lines: handed, before, after: place.position() });
    (items, lost)
}

fn not_found(status: &Status, at: InstancePosition, before: Option<i64>) -> Gap {
    let after = Place::new(at, None).nanos();
    gap(status, GapReason::ResumeAmbiguous, after, before, 0, "the last line that was read was not found again")
}

fn stopped(status: &Status, at: InstancePosition) -> Gap {
    let after = Place::new(at, None).nanos();
    let message = "the container runs on after the outcome, and was followed until the drain deadline";
    gap(status, GapReason::DrainDeadline, after, None, 0, message)
}

/// A watcher's own reading, up to where the shared stream begins.
struct Meeting {
    at: InstancePosition,
    until: Position,
    /// Lines that were handed on.
    lines: u64,
    /// A gap was told behind the last of them.
    told: bool,
}

impl Meeting {
    fn new(at: InstancePosition, until: Position) -> Self {
        Self { at, until, lines: 0, told: false }
    }

    /// What of an item is before the meeting point, and whether more may be.
    fn take(&mut self, item: LogItem) -> (Option<LogItem>, bool) {
        match item {
            LogItem::Gap(gap) => {
                self.told = true;
                (Some(LogItem::Gap(gap)), true)
            }
            LogItem::Notice(notice) => (Some(LogItem::Notice(notice)), true),
            LogItem::End(_) => (None, false),
            LogItem::Lines { mut lines, before, after } => {
                self.at = before;
                if compare(before.position, self.until) != Ordering::Less {
                    return (None, false);
                }
                let (mut kept, mut position) = (lines.len(), after.position);
                if compare(position, self.until) == Ordering::Greater {
                    (kept, position) = (0, before.position);
                    for line in &lines {
                        let next = after_line(position, line);
                        if compare(next, self.until) == Ordering::Greater {
                            break;
                        }
                        (kept, position) = (kept + 1, next);
                    }
                    lines.truncate(kept);
                }
                let go_on =
                    compare(position, self.until) == Ordering::Less && compare(after.position, self.until).is_lt();
                if kept == 0 {
                    return (None, go_on);
                }
                self.at = exact(position);
                self.lines += kept as u64;
                self.told = false;
                (Some(LogItem::Lines { lines, before, after: self.at }), go_on)
            }
        }
    }

    /// What is missing between the two, if they did not meet.
    fn gap(&self, status: &Status, floor: &Floor, count: Count, missing: Option<u64>) -> Option<Gap> {
        let (after, before) = (Place::new(self.at, None).nanos(), floor.nanos);
        match compare(self.at.position, floor.position) {
            Ordering::Greater => None,
            Ordering::Equal if self.at.position == floor.position => None,
            _ if count == Count::FromTheMiddle && missing.is_none() => None,
            _ => Some(match missing {
                Some(missing) => {
                    let missing = missing.saturating_sub(self.lines).max(1);
                    let message = "this watch read too slowly, and the broker had no room to keep the lines";
                    gap(status, GapReason::SlowReader, after, before, missing, message)
                }
                None if self.told => return None,
                None => {
                    let message = "the log was rotated before this watch could read it; lines are missing here";
                    gap(status, GapReason::Rotated, after, before, 1, message)
                }
            }),
        }
    }

    /// Where the watcher stands then.
    fn end(&self, floor: Position) -> InstancePosition {
        match compare(self.at.position, floor) {
            Ordering::Greater => self.at,
            Ordering::Equal | Ordering::Less => exact(floor),
        }
    }
}
