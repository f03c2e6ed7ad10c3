//! What a watcher is told.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Attempt, Cursor, Execution, Instance, Outcome, ResultSource};

/// One item of a watch, with the position after it.
#[derive(Debug, Clone)]
pub struct Event {
    /// Where to go on after this event.
    pub cursor: Cursor,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum EventKind {
    /// The execution as it is now; always the first event.
    StateChanged(Box<Execution>),
    /// An attempt's object was created.
    AttemptStarted(Attempt),
    /// An attempt ended; another may follow.
    AttemptEnded(Attempt, Outcome),
    /// Lines of one container instance.
    LogChunk(LogChunk),
    /// Lines are missing.
    LogGap(Gap),
    /// Nothing more comes from this instance; whether all of it was sent.
    LogStreamEnd(Instance, Completeness),
    /// Something a person should know.
    Notice(Notice),
    /// The value handed back, or why there is none.
    Result(ResultSource, Result<Bytes, NoResult>),
    /// It is over and everything was sent. Always the last event.
    End(Box<Execution>),
}

/// Why there is no value although one was asked for; the text is for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoResult {
    /// No container wrote one.
    Missing(String),
    /// There is one, or there may be, and it cannot be had.
    Unreadable(String),
}

impl NoResult {
    /// The text of it.
    pub fn problem(&self) -> &str {
        match self {
            Self::Missing(problem) | Self::Unreadable(problem) => problem,
        }
    }
}

/// Whether every line of a container instance was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Completeness {
    /// All of it, apart from the gaps that were reported.
    Complete,
    /// The reading was given up.
    Cut,
}

/// Lines of one container instance.
#[derive(Debug, Clone)]
pub struct LogChunk {
    /// Whose lines they are.
    pub instance: Instance,
    /// At least one.
    pub lines: Vec<LogLine>,
    /// The position before the chunk: a cursor between two of its lines counts from here.
    pub before: Cursor,
}

/// One line, or a piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Nanoseconds since 1970, as the container runtime stamped them.
    pub nanos: i64,
    /// Without the final newline; any bytes.
    pub content: Bytes,
    /// It belongs to the line of the piece before.
    pub continues: bool,
    /// The line goes on in the next piece.
    pub partial: bool,
}

impl LogLine {
    /// What it counts in the byte budget of a watch: its content and the line's end.
    pub fn bytes(&self) -> u64 {
        self.content.len() as u64 + 1
    }

    /// Whether it fits into a budget of which so much is used.
    pub fn fits(&self, used: u64, budget: Option<u64>) -> bool {
        budget.is_none_or(|budget| used.saturating_add(self.bytes()) <= budget)
    }
}

/// Lines are missing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Of which instance.
    pub instance: Instance,
    /// Why.
    pub reason: GapReason,
    /// The time of the last line before it.
    pub after: Option<Timestamp>,
    /// The time of the first line after it.
    pub before: Option<Timestamp>,
    /// At least so many; 0 when nothing is known.
    pub lines_at_least: u64,
    /// For a person.
    pub message: String,
}

/// Why lines are missing; explained in `event.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "each is explained once, in the contract")]
pub enum GapReason {
    Rotated,
    PodDeleted,
    ResumeAmbiguous,
    BudgetExceeded,
    DrainDeadline,
    Refused,
    SlowReader,
}

/// Something a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// `UPPER_SNAKE_CASE`, for a program.
    pub code: &'static str,
    /// For a person.
    pub message: String,
    /// How much it matters.
    pub severity: Severity,
}

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Something is wrong.
    Warning,
}

/// What a watcher wants to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchOptions {
    /// Lines and gaps too.
    pub logs: LogMode,
    /// Of these containers only; empty for all.
    pub containers: Vec<String>,
    /// Only the last so many lines of each instance.
    pub tail_lines: Option<u64>,
    /// Only lines of this moment or later.
    pub since: Option<Timestamp>,
    /// What to do when everything so far was sent.
    pub follow: Follow,
    /// At most so many bytes of lines; what a log has beyond that is a gap.
    pub max_log_bytes: Option<u64>,
}

/// Whether lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogMode {
    /// Yes.
    Lines,
    /// States only.
    None,
}

/// What to do when everything so far was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Wait for more.
    UntilTheEnd,
    /// End the stream.
    SoFar,
}
