//! Joins what was shipped to what was read before: which entries are new, and whether that can be proved. Pure.
//!
//! Where entries have the runtime's own time, they are what the kubelet would give, and `Place` finds its line among them. Where
//! they have milliseconds only, the last line that was read is looked for by its content among those of its millisecond, and
//! of the second after it, since some shippers stamp a line when they read it. What is not found, or found more than once, is a gap
//! that says so; of several the last one counts, so that no line comes twice.
//!
//! A log group is in the order of its times, and a position tells no more than the latest time that was read. So a line that was written
//! behind the position with an earlier time, as where two streams of a container were stamped before they took turns, counts as read.

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use super::super::super::chunk::{Chunk, LogItem};
use super::super::super::lines::PIECE;
use super::super::super::place::{Place, Verdict};
use super::entry::{Entry, MILLI, Time};
use crate::execution::{Gap, GapReason, Instance, InstancePosition, LogLine, Position};

/// So much later than it was written a line may be stamped, in milliseconds.
const WINDOW: i64 = 1000;

/// Bytes of lines that are held while the last one is looked for; a container that writes so much in a second is not told apart.
const HELD: usize = 1 << 20;

const NOT_FOUND: &str = "the last line that was read was not found again in the log group; lines may be missing here";
const NOT_ALONE: &str = "the last line that was read is in the log group more than once at its moment, or at another one; lines may \
                         be missing here";
const CUT: &str = "the shipper has cut a long line here, and its rest is nowhere";

/// Where the reading of what was shipped stands.
pub(super) struct Join {
    instance: Instance,
    place: Place,
    /// Without the runtime's times the line of the position is looked for among these.
    held: Option<Held>,
    chunk: Chunk,
    ready: Vec<LogItem>,
    /// The beginning of a line whose rest is to come, and its time.
    line: Option<(i64, BytesMut)>,
    /// Pieces of it were handed on.
    continues: bool,
    /// New lines there were.
    lines: u64,
}

/// Lines from the moment of the position on.
struct Held {
    millis: i64,
    check: u32,
    lines: Vec<(i64, LogLine)>,
    bytes: usize,
}

impl Join {
    pub(super) fn new(instance: Instance, position: InstancePosition, since: Option<Timestamp>) -> Self {
        let mut place = Place::new(position, since);
        place.begin();
        let held = match position.position {
            // At a whole millisecond these are the shipper's own times, and are found as such.
            Position::At { nanos, check, .. } if nanos.rem_euclid(MILLI) != 0 => {
                Some(Held { millis: nanos.div_euclid(MILLI), check, lines: Vec::new(), bytes: 0 })
            }
            _ => None,
        };
        let (chunk, ready, line) = (Chunk::new(position), Vec::new(), None);
        Self { instance, place, held, chunk, ready, line, continues: false, lines: 0 }
    }

    /// From when on it needs what was shipped: milliseconds since 1970.
    pub(super) fn from(&self) -> Option<i64> {
        self.place
            .nanos()
            .map(|nanos| nanos.div_euclid(MILLI))
            .or_else(|| Some(self.place.since()?.saturating_mul(1000)))
    }

    /// New lines so far.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// What can be told.
    pub(super) fn take_ready(&mut self) -> Vec<LogItem> {
        self.flush();
        std::mem::take(&mut self.ready)
    }

    pub(super) fn take(&mut self, entry: Entry) {
        let Entry { time, content, is_partial, is_cut } = entry;
        if is_cut {
            self.end_line(time);
            self.settle();
            self.tell_gap(None, 1, CUT);
            return;
        }
        if !is_partial && self.line.is_none() {
            for part in content.split(|byte| *byte == b'\n') {
                self.pieces(time, content.slice_ref(part), true);
            }
            return;
        }
        let (nanos, mut line) = self.line.take().unwrap_or_else(|| (time.nanos(), BytesMut::new()));
        line.extend_from_slice(&content);
        let first = match time {
            Time::Exact(_) => Time::Exact(nanos),
            Time::Coarse(_) => Time::Coarse(nanos.div_euclid(MILLI)),
        };
        let rest = self.pieces(first, line.freeze(), !is_partial);
        self.line = rest.map(|rest| (nanos, BytesMut::from(&rest[..])));
    }

    /// Nothing more may come: what was held back is decided on.
    pub(super) fn settle(&mut self) {
        if let Some((nanos, line)) = self.line.take() {
            let time = if nanos.rem_euclid(MILLI) == 0 { Time::Coarse(nanos / MILLI) } else { Time::Exact(nanos) };
            self.pieces(time, line.freeze(), true);
        }
        self.decide();
    }

    fn end_line(&mut self, time: Time) {
        if let Some((_, line)) = self.line.take() {
            self.pieces(time, line.freeze(), true);
        }
    }

    /// Hands on a line in the pieces in which the kubelet's would come; what is left of one that goes on.
    fn pieces(&mut self, time: Time, mut content: Bytes, is_whole: bool) -> Option<Bytes> {
        while content.len() > PIECE {
            let piece = content.split_to(PIECE);
            self.piece(time, piece, true);
        }
        if !is_whole {
            return Some(content);
        }
        self.piece(time, content, false);
        None
    }

    fn piece(&mut self, time: Time, content: Bytes, partial: bool) {
        let continues = std::mem::replace(&mut self.continues, partial);
        let line = LogLine { nanos: time.nanos(), content, continues, partial };
        match (&mut self.held, time) {
            (Some(held), Time::Coarse(millis)) => {
                if millis < held.millis {
                    return;
                }
                held.bytes += line.content.len();
                let is_over = millis > held.millis + WINDOW || held.bytes > HELD;
                held.lines.push((millis, line));
                if is_over {
                    self.decide();
                }
            }
            (Some(held), Time::Exact(_)) if held.lines.is_empty() => {
                self.held = None;
                self.line(line);
            }
            (Some(_), Time::Exact(_)) => {
                self.decide();
                self.line(line);
            }
            (None, _) => self.line(line),
        }
    }

    /// Looks for the line of the position among those that are held, and hands on what is behind it.
    fn decide(&mut self) {
        let Some(Held { millis, check, lines, .. }) = self.held.take_if(|held| !held.lines.is_empty()) else { return };
        let is_it = |line: &LogLine| crc32fast::hash(&line.content) == check;
        let matches = |most: i64| {
            let within = lines.iter().enumerate().filter(move |(_, (at, _))| *at <= millis + most);
            within.filter(|(_, (_, line))| is_it(line)).map(|(index, _)| index).collect::<Vec<_>>()
        };
        let (found, problem) = match (&matches(0)[..], &matches(WINDOW)[..]) {
            ([one], _) => (Some(*one), None),
            ([.., last], _) | ([], [.., last]) => (Some(*last), Some(NOT_ALONE)),
            ([], []) => (None, Some(NOT_FOUND)),
        };
        let next = match found {
            Some(index) => index + 1,
            None => lines.iter().position(|(at, _)| *at > millis).unwrap_or(lines.len()),
        };
        self.place.begin_behind();
        if let Some(problem) = problem {
            let before = lines.get(next).map(|(_, line)| line.nanos);
            self.tell_gap(before, 0, problem);
        }
        for (_, line) in lines.into_iter().skip(next) {
            self.line(line);
        }
    }

    fn line(&mut self, line: LogLine) {
        let before = self.place.position();
        let (verdict, lost) = self.place.take(&line);
        if lost.is_some() {
            self.flush_at(before);
            self.ready.push(LogItem::Gap(self.gap(Place::new(before, None).nanos(), Some(line.nanos), 0, NOT_FOUND)));
        }
        match verdict {
            Verdict::HandOn => {
                self.lines += 1;
                self.chunk.push(line);
            }
            Verdict::PassOver if self.chunk.lines.is_empty() => self.chunk.before = self.place.position(),
            Verdict::PassOver => {}
        }
        if self.chunk.is_full() {
            self.flush();
        }
    }

    fn tell_gap(&mut self, before: Option<i64>, lines_at_least: u64, message: &str) {
        self.flush();
        let gap = self.gap(self.place.nanos(), before, lines_at_least, message);
        self.ready.push(LogItem::Gap(gap));
    }

    fn gap(&self, after: Option<i64>, before: Option<i64>, lines_at_least: u64, message: &str) -> Gap {
        let time = |nanos: Option<i64>| nanos.and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok());
        Gap {
            instance: self.instance.clone(),
            reason: GapReason::ResumeAmbiguous,
            after: time(after),
            before: time(before),
            lines_at_least,
            message: message.to_owned(),
        }
    }

    fn flush(&mut self) {
        self.flush_at(self.place.position());
    }

    fn flush_at(&mut self, after: InstancePosition) {
        if self.chunk.first_at.is_some() {
            self.ready.push(self.chunk.take(after));
        }
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
