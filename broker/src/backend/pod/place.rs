//! Where a reader stands in a log: which lines it has had, and whether it can prove that none are missing.
//!
//! Times come with nanoseconds, and requests with whole seconds. So a read that goes on brings the beginning of the second
//! again, which is passed over up to the line of the position. That line must be there, with the content that it had. If a
//! later one comes first, the file begins behind the position: it was rotated.

use std::cmp::Ordering;

use jiff::Timestamp;

use crate::execution::{InstancePosition, LogLine, Position};

const NANOS: i64 = 1_000_000_000;

/// Which part of an instance's log is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogStart {
    pub(super) position: InstancePosition,
    pub(super) tail_lines: Option<u64>,
    pub(super) since: Option<Timestamp>,
    pub(super) mode: ReadMode,
}

/// When the reading ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadMode {
    /// When the container has ended and everything was read.
    Follow,
    /// When what is there now was read.
    SoFar,
}

/// A place in one instance's log.
#[derive(Debug, Clone)]
pub(super) struct Place {
    position: InstancePosition,
    /// Lines before this are not wanted.
    not_before: Option<Timestamp>,
    /// How many entries of the position's very time are still to be found in this read; 0 when the place was found.
    pass_over: u32,
}

/// What to do with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is new.
    HandOn,
    /// It was had, or is not wanted.
    PassOver,
}

/// What cannot be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The line of the position has another content.
    Changed,
    /// The line of the position is not there.
    Gone,
}

impl Place {
    pub(super) fn new(position: InstancePosition, not_before: Option<Timestamp>) -> Self {
        Self { position, not_before, pass_over: 0 }
    }

    /// Behind the last line that was handed on or passed over.
    pub(super) fn position(&self) -> InstancePosition {
        self.position
    }

    /// Nothing was read yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.position == InstancePosition::default()
    }

    /// The second to ask for, since 1970.
    pub(super) fn since(&self) -> Option<i64> {
        match self.position.position {
            Position::At { nanos, .. } => Some(nanos.div_euclid(NANOS)),
            Position::Start | Position::Complete => self.not_before.map(Timestamp::as_second),
        }
    }

    /// A read begins at `since`.
    pub(super) fn begin(&mut self) {
        self.pass_over = match self.position.position {
            Position::At { ordinal, .. } => ordinal,
            Position::Start | Position::Complete => 0,
        };
    }

    /// The next line of the read.
    pub(super) fn take(&mut self, line: &LogLine) -> (Verdict, Option<Lost>) {
        let check = crc32fast::hash(&line.content);
        let mut lost = None;
        if let Position::At { nanos: had, check: expected, .. } = self.position.position
            && self.pass_over > 0
        {
            match line.nanos.cmp(&had) {
                Ordering::Less => return (Verdict::PassOver, None),
                Ordering::Equal => {
                    self.pass_over -= 1;
                    let changed = self.pass_over == 0 && check != expected;
                    return (Verdict::PassOver, changed.then_some(Lost::Changed));
                }
                Ordering::Greater => lost = self.end(),
            }
        }
        self.advance(line.nanos, check);
        let too_early = self.not_before.is_some_and(|moment| i128::from(line.nanos) < moment.as_nanosecond());
        if too_early || self.position.skip > 0 {
            self.position.skip = self.position.skip.saturating_sub(1);
            return (Verdict::PassOver, lost);
        }
        (Verdict::HandOn, lost)
    }

    /// The read has ended, or has come to a line behind the position: was the position found?
    pub(super) fn end(&mut self) -> Option<Lost> {
        (std::mem::take(&mut self.pass_over) > 0).then_some(Lost::Gone)
    }

    fn advance(&mut self, nanos: i64, check: u32) {
        self.position.position = match self.position.position {
            // A clock that went back does not take the position with it: the next read would bring what was had.
            unmoved @ Position::At { nanos: had, .. } if nanos < had => unmoved,
            Position::At { nanos: had, ordinal, .. } if nanos == had => {
                Position::At { nanos, ordinal: ordinal.saturating_add(1), check }
            }
            _ => Position::At { nanos, ordinal: 1, check },
        };
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn line(nanos: i64, content: &str) -> LogLine {
        LogLine { nanos, content: Bytes::from(content.to_owned()), continues: false, partial: false }
    }

    /// Reads a file from a position on as the API would give it; returns what was handed on and what was lost.
    fn read(place: &mut Place, file: &[LogLine]) -> (Vec<LogLine>, Vec<Lost>) {
        let since = place.since().unwrap_or(i64::MIN);
        place.begin();
        let (mut handed, mut lost) = (Vec::new(), Vec::new());
        for line in file.iter().filter(|line| line.nanos.div_euclid(NANOS) >= since) {
            let (verdict, problem) = place.take(line);
            lost.extend(problem);
            if verdict == Verdict::HandOn {
                handed.push(line.clone());
            }
        }
        lost.extend(place.end());
        (handed, lost)
    }

    fn fresh() -> Place {
        Place::new(InstancePosition::default(), None)
    }

    #[test]
    fn a_file_that_was_rotated_behind_the_position_is_read_on_without_a_gap() {
        let file: Vec<_> = (0..10).map(|n| line(5 * NANOS + n, &n.to_string())).collect();
        let mut place = fresh();
        assert_eq!(read(&mut place, &file[..6]).0.len(), 6);
        // The rotated part is gone, but the last line that was read is the first of what is left.
        assert_eq!(read(&mut place, &file[5..]), (file[6..].to_vec(), vec![]));
    }

    #[test]
    fn a_file_that_was_rotated_past_the_position_has_a_gap() {
        let file: Vec<_> = (0..10).map(|n| line(5 * NANOS + n, &n.to_string())).collect();
        let mut place = fresh();
        read(&mut place, &file[..4]);
        assert_eq!(read(&mut place, &file[6..]), (file[6..].to_vec(), vec![Lost::Gone]));
        let mut place = fresh();
        read(&mut place, &file[..4]);
        assert_eq!(read(&mut place, &[]), (vec![], vec![Lost::Gone]));
    }

    #[test]
    fn a_changed_line_at_the_position_is_noticed() {
        let mut place = fresh();
        read(&mut place, &[line(7, "a")]);
        assert_eq!(read(&mut place, &[line(7, "b"), line(8, "c")]), (vec![line(8, "c")], vec![Lost::Changed]));
    }

    #[test]
    fn lines_before_the_wanted_moment_are_passed_over_and_counted() {
        let moment = Timestamp::from_nanosecond(5).unwrap();
        let mut place = Place::new(InstancePosition::default(), Some(moment));
        let file = [line(4, "a"), line(5, "b"), line(5, "c")];
        assert_eq!(read(&mut place, &file).0, file[1..]);
        assert_eq!(read(&mut place, &file), (vec![], vec![]));
    }

    proptest! {
        #[test]
        fn wherever_the_reading_stops_each_line_comes_once(
            steps in prop::collection::vec((0_i64..3, "[ab]{0,2}"), 1..60),
            stops in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..4), 0..8),
        ) {
            // Many lines share a time, and many a content, as the pieces of a long line do.
            let mut nanos = 0;
            let file: Vec<_> = steps.iter().map(|(step, content)| {
                nanos += step * NANOS / 3;
                line(nanos, content)
            }).collect();
            let mut stops: Vec<_> = stops.iter().map(|(index, back)| (index.index(file.len()), *back)).collect();
            stops.sort_unstable();
            stops.push((file.len(), 0));
            let mut place = fresh();
            let mut handed = Vec::new();
            for (stop, taken) in stops {
                // The watcher has dealt with some lines of the chunk, and goes on from the position before it.
                let before = place.position();
                let (lines, lost) = read(&mut place, &file[..stop.max(handed.len())]);
                prop_assert_eq!(lost, vec![]);
                if stop < file.len() {
                    let taken = (taken as usize).min(lines.len());
                    handed.extend_from_slice(&lines[..taken]);
                    let skip = before.skip + u32::try_from(taken).unwrap();
                    place = Place::new(InstancePosition { skip, ..before }, None);
                } else {
                    handed.extend(lines);
                }
            }
            prop_assert_eq!(handed, file);
        }
    }
}
