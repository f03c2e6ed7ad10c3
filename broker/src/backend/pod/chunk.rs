//! Lines on their way into a message: together up to a size and for a moment, since a message for each line would cost more
//! than the line.

use std::time::Duration;

use tokio::time::Instant;

use super::place::after_line;
use crate::execution::{Completeness, Gap, InstancePosition, LogLine, Notice, Position};

/// A message is sent when so many bytes are together, or so long after its first line.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// See `CHUNK_BYTES`.
pub(super) const CHUNK_DELAY: Duration = Duration::from_millis(50);

/// What a line costs in a message besides its content.
const LINE_OVERHEAD: usize = 32;

/// What the reading of an instance brings.
#[derive(Debug, Clone)]
pub(super) enum LogItem {
    /// Lines, with the positions before and after them.
    Lines {
        lines: Vec<LogLine>,
        before: InstancePosition,
        after: InstancePosition,
    },
    Gap(Gap),
    /// Something a person should know of the lines behind it.
    Notice(Notice),
    /// The last item.
    End(Completeness),
}

/// Lines on their way into one message.
pub(super) struct Chunk {
    pub(super) lines: Vec<LogLine>,
    pub(super) bytes: usize,
    pub(super) first_at: Option<Instant>,
    pub(super) before: InstancePosition,
}

impl Chunk {
    pub(super) fn new(before: InstancePosition) -> Self {
        Self { lines: Vec::new(), bytes: 0, first_at: None, before }
    }

    pub(super) fn push(&mut self, line: LogLine) {
        self.first_at.get_or_insert_with(Instant::now);
        self.bytes += line.content.len() + LINE_OVERHEAD;
        self.lines.push(line);
    }

    /// Whether it is to be sent now. The first line of a log goes alone: who has had some lines of a message is behind its
    /// beginning, and the beginning of a log is another line once the file was rotated.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= CHUNK_BYTES || (self.before.position == Position::Start && !self.lines.is_empty())
    }

    /// The first line of a log, if there are more behind it.
    pub(super) fn take_first(&mut self) -> Option<LogItem> {
        if self.lines.len() < 2 || self.before.position != Position::Start {
            return None;
        }
        let first = self.lines.remove(0);
        let after = InstancePosition { position: after_line(self.before.position, &first), skip: 0 };
        let before = std::mem::replace(&mut self.before, after);
        Some(LogItem::Lines { lines: vec![first], before, after })
    }

    pub(super) fn take(&mut self, after: InstancePosition) -> LogItem {
        let chunk = std::mem::replace(self, Self::new(after));
        LogItem::Lines { lines: chunk.lines, before: chunk.before, after }
    }
}
