//! Where a reader stands in a log: which lines it has had, and whether it can prove that none are missing.
//!
//! A position is the latest time that was seen, the count of entries from the first one of that time on, and a checksum of
//! the last of them. Times go backwards: two streams of a container are stamped before they take turns, and a node's clock
//! may be set. So what follows the latest time is counted, whatever its own time is.
//!
//! A read that goes on brings lines again, which are passed over up to the line of the position. That line must be there,
//! with the content that it had. If a later one comes first, the file begins behind the position: it was rotated.

use std::cmp::Ordering;

use jiff::Timestamp;

use crate::execution::{InstancePosition, LogLine, Position};

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
    /// What of the position is still to be found in this read.
    search: Search,
}

/// How far the line of the position was found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// It was.
    Found,
    /// The first entry with the latest time was not.
    Anchor,
    /// That was, and so many entries after it were not.
    Behind(u32),
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
        Self { position, not_before, search: Search::Found }
    }

    /// Behind the last line that was handed on or passed over.
    pub(super) fn position(&self) -> InstancePosition {
        self.position
    }

    /// Nothing was read yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.position == InstancePosition::default()
    }

    /// Every further line is handed on.
    pub(super) fn is_settled(&self) -> bool {
        self.search == Search::Found && self.position.skip == 0 && self.not_before.is_none()
    }

    /// The place of the position is known in this read.
    pub(super) fn is_found(&self) -> bool {
        self.search == Search::Found
    }

    /// Lines before this are not wanted.
    pub(super) fn not_before(&self) -> Option<Timestamp> {
        self.not_before
    }

    /// The latest time that was seen.
    pub(super) fn nanos(&self) -> Option<i64> {
        match self.position.position {
            Position::At { nanos, .. } => Some(nanos),
            Position::Start | Position::Complete => None,
        }
    }

    /// The checksum of the last entry.
    pub(super) fn check(&self) -> Option<u32> {
        match self.position.position {
            Position::At { check, .. } => Some(check),
            Position::Start | Position::Complete => None,
        }
    }

    /// The second to ask for, since 1970; nothing for the whole file. What was written after a position may have any time.
    pub(super) fn since(&self) -> Option<i64> {
        match self.position.position {
            Position::At { .. } => None,
            Position::Start | Position::Complete => self.not_before.map(Timestamp::as_second),
        }
    }

    /// A read begins, at the beginning of the file or somewhere before the position.
    pub(super) fn begin(&mut self) {
        self.search = match self.position.position {
            Position::At { .. } => Search::Anchor,
            Position::Start | Position::Complete => Search::Found,
        };
    }

    /// A read begins of which every line is new.
    pub(super) fn begin_behind(&mut self) {
        self.search = Search::Found;
    }

    /// Whether an answer that begins with this line may have been cut off within what is searched for.
    pub(super) fn may_be_cut_by(&self, first: &LogLine) -> bool {
        self.search != Search::Found && self.nanos().is_none_or(|latest| latest <= first.nanos)
    }

    /// What comes next is the entry after `there`, a position that is not behind this one.
    pub(super) fn begin_at(&mut self, there: Position) {
        self.search = match (there, self.position.position) {
            (Position::At { nanos: at, ordinal: had, .. }, Position::At { nanos: wanted, ordinal: count, .. })
                if at == wanted =>
            {
                match entries(count).saturating_sub(entries(had)) {
                    0 => Search::Found,
                    left => Search::Behind(left),
                }
            }
            (_, Position::At { .. }) => Search::Anchor,
            (_, Position::Start | Position::Complete) => Search::Found,
        };
    }

    /// The next line of the read.
    pub(super) fn take(&mut self, line: &LogLine) -> (Verdict, Option<Lost>) {
        let check = crc32fast::hash(&line.content);
        let mut lost = None;
        if let Position::At { nanos: latest, ordinal, check: expected } = self.position.position
            && self.search != Search::Found
        {
            if line.nanos > latest {
                lost = self.end();
            } else {
                let changed = self.look_for(line.nanos, latest, ordinal) && check != expected;
                return (Verdict::PassOver, changed.then_some(Lost::Changed));
            }
        }
        self.position.position = after(self.position.position, line.nanos, check);
        let too_early = self.not_before.is_some_and(|moment| i128::from(line.nanos) < moment.as_nanosecond());
        if too_early || self.position.skip > 0 {
            self.position.skip = self.position.skip.saturating_sub(1);
            return (Verdict::PassOver, lost);
        }
        (Verdict::HandOn, lost)
    }

    /// The read has ended, or has come to a line behind the position: was the position found?
    pub(super) fn end(&mut self) -> Option<Lost> {
        (std::mem::replace(&mut self.search, Search::Found) != Search::Found).then_some(Lost::Gone)
    }

    /// Goes on with the search by one entry that is not later than the latest; whether that was the last one.
    fn look_for(&mut self, nanos: i64, latest: i64, ordinal: u32) -> bool {
        self.search = match self.search {
            Search::Anchor if nanos < latest => Search::Anchor,
            Search::Anchor => behind(entries(ordinal) - 1),
            Search::Behind(left) => behind(left - 1),
            Search::Found => Search::Found,
        };
        self.search == Search::Found
    }
}

/// So many entries are still to be found.
fn behind(left: u32) -> Search {
    if left == 0 { Search::Found } else { Search::Behind(left) }
}

/// The position behind one more entry.
fn after(position: Position, nanos: i64, check: u32) -> Position {
    match position {
        // A clock that went back does not take the position with it: the next read would bring what was had.
        Position::At { nanos: latest, ordinal, .. } if nanos <= latest => {
            Position::At { nanos: latest, ordinal: entries(ordinal).saturating_add(1), check }
        }
        _ => Position::At { nanos, ordinal: 1, check },
    }
}

/// The position behind a line.
pub(super) fn after_line(position: Position, line: &LogLine) -> Position {
    after(position, line.nanos, crc32fast::hash(&line.content))
}

fn entries(ordinal: u32) -> u32 {
    ordinal.max(1)
}

/// Which of two positions in one log is further.
pub(super) fn compare(a: Position, b: Position) -> Ordering {
    let key = |position| match position {
        Position::Start => (0, 0, 0),
        Position::At { nanos, ordinal, .. } => (1, nanos, entries(ordinal)),
        Position::Complete => (2, 0, 0),
    };
    key(a).cmp(&key(b))
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
