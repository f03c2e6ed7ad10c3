//! Where a reader of the archive stands in each log, and what it has to say next.
//!
//! Pure: records go in, events come out. The records of several writers may come one writer after the other; what was told is
//! passed over by its mark. A place that cannot be proved to follow on the one before is told as a gap.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::index::Stretch;
use super::mark::Mark;
use super::record::{Record, Said, value};
use super::segment::key;
use crate::execution::{
    Completeness, ContainerRole, Cursor, Event, EventKind, Follow, Gap, GapReason, Instance, InstancePosition,
    LogChunk, LogLine, LogMode, Notice, Position, ResultSource, Severity, StreamKey, WatchOptions,
};

/// More kinds of notices than this are no kinds, and longer names no names.
const MAX_CODES: usize = 256;
const MAX_CODE: usize = 64;

/// The notice that something of the archive is lost.
const DAMAGED: &str = "ARCHIVE_DAMAGED";

/// A place in one log.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    /// Behind the last entry that was told or passed over.
    pub(super) mark: Mark,
    /// The same as a position.
    place: InstancePosition,
    /// So many entries behind it are not wanted.
    pub(super) skip: u64,
    /// The watcher had nothing of it when it came.
    pub(super) fresh: bool,
    /// The content of the entry at the mark, until it was seen again.
    check: Option<u32>,
    /// What is to be told if the next entry does not prove to follow on the mark.
    doubt: Option<Gap>,
    /// The last gap that was told, so that a second writer's is not.
    told: Option<(Mark, GapReason)>,
}

/// A reader of one execution.
pub(super) struct Reader {
    pub(super) cursor: Cursor,
    pub(super) options: WatchOptions,
    pub(super) seats: HashMap<StreamKey, Seat>,
    /// Those that lines were told of and no end.
    open: HashMap<StreamKey, Instance>,
    /// Keys of the notices that were told in this reading; the cursor keeps only the latest.
    notices: HashSet<u32>,
}

impl Reader {
    pub(super) fn new(cursor: Cursor, options: WatchOptions) -> Self {
        let seat = |position: &InstancePosition| Seat {
            mark: Mark::of(*position),
            place: *position,
            skip: position.skip.into(),
            fresh: false,
            check: match position.position {
                Position::At { check, .. } => Some(check),
                Position::Start | Position::Complete => None,
            },
            doubt: None,
            told: None,
        };
        let seats = cursor.streams.iter().map(|(key, position)| (key.clone(), seat(position))).collect();
        Self { cursor, options, seats, open: HashMap::new(), notices: HashSet::new() }
    }

    /// Where a log is read.
    pub(super) fn seat(&mut self, key: &StreamKey) -> &mut Seat {
        // Of an attempt that it has seen ending the watcher has had everything.
        let place = self.cursor.stream(key);
        let mark = Mark::of(place);
        let fresh = || Seat { mark, place, skip: 0, fresh: mark < Mark::END, check: None, doubt: None, told: None };
        self.seats.entry(key.clone()).or_insert_with(fresh)
    }

    /// Whether lines of a container are wanted.
    pub(super) fn wants(&self, container: &str) -> bool {
        self.options.logs == LogMode::Lines
            && (self.options.containers.is_empty() || self.options.containers.iter().any(|one| one == container))
    }

    fn event(&self, kind: EventKind) -> Event {
        Event { cursor: self.cursor.clone(), kind }
    }

    /// A copy that was to close a gap has ended. What comes next must meet its end, or the gap is told after all.
    pub(super) fn doubt(&mut self, gap: Gap) {
        let seat = self.seat(&key(&gap.instance));
        if seat.mark < Mark::END {
            seat.doubt = Some(gap);
        }
    }

    /// What a record says that was not said yet.
    pub(super) fn take(&mut self, record: Record) -> Vec<Event> {
        match record {
            Record::Lines { instance, before, lines } => self.lines(instance, before, lines),
            Record::Said(said) => self.said(said),
        }
    }

    fn said(&mut self, said: Said) -> Vec<Event> {
        let kind = match said {
            Said::AttemptStarted(attempt) if self.cursor.attempts_started < attempt.number => {
                self.cursor.attempts_started = attempt.number;
                EventKind::AttemptStarted(attempt)
            }
            Said::AttemptEnded(attempt, outcome) if self.cursor.attempts_ended < attempt.number => {
                self.cursor.end_attempt(attempt.number);
                EventKind::AttemptEnded(attempt, outcome)
            }
            Said::Format(_) | Said::AttemptStarted(_) | Said::AttemptEnded(..) => return Vec::new(),
            Said::Gap { gap, at } => return self.gap(gap, at),
            Said::StreamEnd(instance, completeness) => return self.stream_end(instance, completeness),
            Said::Notice { key, code, message, severity } => {
                if !self.notices.insert(key) || !self.cursor.add_notice(key) {
                    return Vec::new();
                }
                EventKind::Notice(Notice { code: kept(code), message, severity })
            }
            Said::Result { source, content, problem } => {
                let wanted = source != ResultSource::None && self.options.follow == Follow::UntilTheEnd;
                if self.cursor.result_sent || !wanted {
                    return Vec::new();
                }
                self.cursor.result_sent = true;
                EventKind::Result(source, value(content, problem))
            }
        };
        vec![self.event(kind)]
    }

    /// A part of the archive cannot be read, and with it these lines and perhaps more.
    pub(super) fn damaged(&mut self, streams: &[Stretch]) -> Vec<Event> {
        let mut events = Vec::new();
        let key = crc32fast::hash(DAMAGED.as_bytes());
        if self.notices.insert(key) && self.cursor.add_notice(key) {
            let message = "a part of what the archive has of this execution cannot be read".to_owned();
            events.push(self.event(EventKind::Notice(Notice { code: DAMAGED, message, severity: Severity::Warning })));
        }
        for stretch in streams {
            let key = stretch.key();
            if !self.wants(&key.container) || self.seat(&key).mark >= stretch.after {
                continue;
            }
            let role = self.open.get(&key).map_or(ContainerRole::Deciding, |instance| instance.role);
            let instance =
                Instance { attempt: key.attempt, container: key.container.clone(), restart: key.restart, role };
            let seat = self.seat(&key);
            seat.mark = stretch.after;
            (seat.check, seat.doubt) = (None, None);
            events.push(self.event(EventKind::LogGap(unproved(&instance))));
        }
        events
    }

    fn gap(&mut self, gap: Gap, at: Mark) -> Vec<Event> {
        if !self.wants(&gap.instance.container) {
            return Vec::new();
        }
        let seat = self.seat(&key(&gap.instance));
        if at < seat.mark || seat.told == Some((at, gap.reason)) {
            return Vec::new();
        }
        seat.told = Some((at, gap.reason));
        // The entry at the mark is not looked for behind a gap.
        (seat.check, seat.doubt) = (None, None);
        vec![self.event(EventKind::LogGap(gap))]
    }

    fn stream_end(&mut self, instance: Instance, completeness: Completeness) -> Vec<Event> {
        let key = key(&instance);
        if self.options.follow == Follow::SoFar || !self.wants(&instance.container) {
            return Vec::new();
        }
        let seat = self.seat(&key);
        if seat.mark == Mark::END {
            return Vec::new();
        }
        let doubt = seat.doubt.take();
        seat.mark = Mark::END;
        self.open.remove(&key);
        let mut events: Vec<_> = doubt.map(|gap| self.event(EventKind::LogGap(gap))).into_iter().collect();
        self.cursor.set_stream(&key, InstancePosition { position: Position::Complete, skip: 0 });
        events.push(self.event(EventKind::LogStreamEnd(instance, completeness)));
        events
    }

    fn lines(&mut self, instance: Instance, before: Mark, lines: Vec<LogLine>) -> Vec<Event> {
        if !self.wants(&instance.container) {
            return Vec::new();
        }
        let key = key(&instance);
        let (since, budget) = (self.options.since, self.options.max_log_bytes);
        let (mut bytes, mut over_budget) = (self.cursor.log_bytes, false);
        let seat = self.seat(&key);
        let since = since.filter(|_| seat.fresh);
        if before == seat.mark {
            (seat.check, seat.doubt) = (None, None);
        } else if before > seat.mark && seat.told.is_none_or(|(at, _)| at != seat.mark) {
            seat.doubt.get_or_insert_with(|| unproved(&instance));
        }
        let (mut mark, mut first, mut gap) = (before, seat.place, None);
        let mut wanted: Vec<LogLine> = Vec::new();
        for line in lines {
            mark = mark.after(line.nanos);
            if mark <= seat.mark {
                if mark == seat.mark {
                    let changed = seat.check.take().is_some_and(|check| check != crc32fast::hash(&line.content));
                    seat.doubt = changed.then(|| unproved(&instance));
                }
                continue;
            }
            if seat.check.take().is_some() {
                seat.doubt.get_or_insert_with(|| unproved(&instance));
            }
            seat.mark = mark;
            let place = mark.position(&line.content);
            let too_early = since.is_some_and(|since| i128::from(line.nanos) < since.as_nanosecond());
            if wanted.is_empty() && (too_early || seat.skip > 0) {
                seat.skip = seat.skip.saturating_sub(1);
                (seat.place, first) = (place, place);
                continue;
            }
            over_budget = !line.fits(bytes, budget);
            if over_budget {
                break;
            }
            bytes += line.bytes();
            seat.place = place;
            if let Some(doubt) = seat.doubt.take() {
                gap = Some(Gap { before: Timestamp::from_nanosecond(line.nanos.into()).ok(), ..doubt });
            }
            wanted.push(line);
        }
        let (place, skip) = (seat.place, seat.skip);
        let mut events = Vec::new();
        if let Some(gap) = gap {
            events.push(self.event(EventKind::LogGap(gap)));
        }
        if wanted.is_empty() {
            if skip == 0 {
                self.cursor.set_stream(&key, place);
            }
        } else {
            self.cursor.set_stream(&key, InstancePosition { skip: 0, ..first });
            let before = self.cursor.clone();
            self.cursor.set_stream(&key, place);
            self.cursor.log_bytes = bytes;
            self.open.insert(key.clone(), instance.clone());
            let chunk = LogChunk { instance: instance.clone(), lines: wanted, before };
            events.push(self.event(EventKind::LogChunk(chunk)));
        }
        if over_budget {
            events.extend(self.exceed(&key, instance));
        }
        events
    }

    /// The watch's byte budget has no room for the next line of a log.
    fn exceed(&mut self, key: &StreamKey, instance: Instance) -> Vec<Event> {
        self.open.remove(key);
        let seat = self.seat(key);
        let after = Mark::of(seat.place);
        (seat.mark, seat.doubt) = (Mark::END, None);
        let after = (after > Mark::START).then(|| Timestamp::from_nanosecond(after.nanos.into()).ok()).flatten();
        let message = "the watch's byte budget is used up".to_owned();
        let gap = Gap { reason: GapReason::BudgetExceeded, after, message, ..unproved(&instance) };
        let mut events = vec![self.event(EventKind::LogGap(gap))];
        if self.options.follow == Follow::UntilTheEnd {
            self.cursor.set_stream(key, InstancePosition { position: Position::Complete, skip: 0 });
            events.push(self.event(EventKind::LogStreamEnd(instance, Completeness::Cut)));
        }
        events
    }
}

fn unproved(instance: &Instance) -> Gap {
    Gap {
        instance: instance.clone(),
        reason: GapReason::ResumeAmbiguous,
        after: None,
        before: None,
        lines_at_least: 0,
        message: "what the archive has of this log does not prove to go on where the reading stood".to_owned(),
    }
}

/// The code for as long as the process lives. Only our own brokers write the archive, and they have few.
fn kept(code: String) -> &'static str {
    static CODES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut codes = CODES.lock().unwrap_or_else(PoisonError::into_inner);
    match codes.iter().find(|one| **one == code) {
        Some(known) => known,
        None if codes.len() < MAX_CODES && code.len() <= MAX_CODE => {
            let code: &'static str = code.leak();
            codes.push(code);
            code
        }
        None => "NOTICE",
    }
}
