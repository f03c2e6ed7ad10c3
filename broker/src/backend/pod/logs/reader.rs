//! Where the reading of one container instance stands: what to ask the API for next, and what an answer proves.
//!
//! A follow is opened when the container has started, and read until it ends. Its end proves nothing: the status says whether
//! the container has ended. If so, one last read from the position brings what the follow did not; if not, the follow is
//! opened again there. The line of the position itself must be found again, unchanged: if it is not, the file was rotated
//! away, lines may be missing, and a gap says so. That an open follow has passed over a file or repeats one is noticed by
//! `continuity` and settled in `settle`.
//!
//! A read that goes on asks for the last lines of the file, and for all of it if the position is not among them. It never
//! asks for lines since a moment: the kubelet compares each line on its own, and leaves out in silence what it writes while
//! the node's clock is behind that moment.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::debug;

use super::super::api::{ApiError, LogRequest};
use super::super::chunk::Chunk;
use super::super::place::{LogStart, Lost, Place, ReadMode, Verdict};
use super::continuity::{Arrival, Continuity, Doubt, End, bridges};
use super::search::{Last, Reach};
use super::settle::Settled;
use super::source::{Body, LogSource};
use super::status::{Gone, Kept, Life, Status};
use crate::execution::{Completeness, Gap, GapReason, LogLine, Position};

/// After a clean end of a follow the kubelet usually reports the container's end within its relist period of one second.
/// Waiting twice that for the status saves a request for every container that ends.
pub(super) const STATUS_DELAY: Duration = Duration::from_secs(2);

/// A follow that brings nothing for so long after the container's end probably has brought everything.
const QUIET: Duration = Duration::from_millis(25);

/// The pause after a failure, doubled up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often an answer that the log is not there is believed only half, once the container has ended.
pub(super) const MISSING_TRIES: u32 = 3;

/// How long a cluster that does not know the broker is asked again: longer than it takes to renew a session.
const UNAUTHENTICATED: Duration = Duration::from_mins(2);

/// An answer that is silent for so long without the line of the position is looked into.
pub(super) const SEARCH: Duration = Duration::from_secs(1);

/// How the reading of one answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broke {
    End,
    Error,
    /// It does not have the line of the position, which may be elsewhere in the file.
    NotFound,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The end of the answer is the end of the follow only.
    Follow,
    /// The end of the answer is the end of the file.
    Whole,
}

/// What to do about a line.
pub(super) enum Taken {
    Line(Verdict, Option<Gap>),
    /// The answer does not say; the line is to be read again.
    NotFound,
}

/// An answer.
pub(super) struct Open {
    pub(super) kind: Kind,
    pub(super) body: Body,
}

/// What became of asking.
pub(super) enum Opening {
    Open(Open),
    End(Option<Gap>, Completeness),
}

/// The reading of one instance.
pub(super) struct Reader {
    pub(super) source: Arc<dyn LogSource>,
    pub(super) status: Status,
    pub(super) tail_lines: Option<u64>,
    pub(super) mode: ReadMode,
    pub(super) place: Place,
    pub(super) continuity: Continuity,
    /// The last line that was had.
    pub(super) last: Option<Last>,
    pub(super) reach: Reach,
    /// What the open answer has, and the place before it.
    pub(super) reached: Reach,
    pub(super) began: Place,
    /// Lines that were passed over since, before the position was found.
    pub(super) searched: u64,
    /// So many lines are read for the second time.
    pub(super) repeated: u64,
    /// The line before which a file was passed over, if one was: the next file begins with it, and may be read again.
    pub(super) begins_with: Option<Last>,
    /// Bytes of lines that the open answer has brought.
    pub(super) brought: usize,
    /// How often it was silent although the current file had more.
    pub(super) passed_by: u32,
    /// How often nobody could tell.
    pub(super) unanswered: u32,
    /// How the latest follow ended by itself, if it had brought whole lines and then nothing for a while.
    pub(super) ended_by_itself: Option<End>,
    /// The same, with the last line that was had then. It counts where the log is gone before it can be looked at again.
    read_out: Option<(End, Option<Last>)>,
    pause: Duration,
    missing: u32,
    /// The latest answer ended with this in place of lines.
    pub(super) refused: Option<ApiError>,
    /// Since when the cluster does not know the broker.
    refused_since: Option<Instant>,
}

impl Reader {
    pub(super) fn new(source: Arc<dyn LogSource>, status: Status, start: &LogStart) -> Self {
        let LogStart { position, tail_lines, since, mode } = *start;
        let place = Place::new(position, since);
        Self {
            continuity: Continuity::new(source.now()),
            source,
            status,
            tail_lines,
            mode,
            last: place.nanos().map(|nanos| Last { nanos, check: None }),
            reach: Reach::Tail,
            reached: Reach::Tail,
            began: place.clone(),
            searched: 0,
            repeated: 0,
            begins_with: None,
            brought: 0,
            passed_by: 0,
            unanswered: 0,
            place,
            ended_by_itself: None,
            read_out: None,
            pause: FIRST_PAUSE,
            missing: 0,
            refused: None,
            refused_since: None,
        }
    }

    /// Asks for the log from the position on, and again until there is an answer that says something.
    pub(super) async fn open(&mut self) -> Opening {
        if self.place.position().position == Position::Complete {
            return Opening::End(None, Completeness::Complete);
        }
        loop {
            let standing = self.status.look();
            match standing.gone {
                None => {}
                Some(Gone::Pod) => {
                    let message = "the pod was gone before its log was read to the end";
                    return self.gone(GapReason::PodDeleted, message);
                }
                Some(Gone::Replaced) => {
                    let message = "the container was restarted, and the node keeps the lines of later runs only";
                    return self.gone(GapReason::Rotated, message);
                }
            }
            let kind = match (standing.life, self.mode) {
                (Life::Open, ReadMode::Follow) => Kind::Follow,
                (Life::Ended, _) | (_, ReadMode::SoFar) => Kind::Whole,
            };
            let (reach, place) = (self.reach, &self.place);
            let answer = match self.refused.take() {
                Some(error) => Err(error),
                None => self.ask(kind, place, self.lines_of(reach, place), standing.place).await,
            };
            match answer {
                Ok(body) => {
                    self.refused_since = None;
                    self.begin(reach);
                    return Opening::Open(Open { kind, body });
                }
                Err(error) => {
                    if let Some(end) = self.give_up(&error, standing.life) {
                        return end;
                    }
                    debug!(error = &error as &dyn std::error::Error, "a log cannot be read yet");
                    self.wait().await;
                }
            }
        }
    }

    pub(super) async fn ask(
        &self,
        kind: Kind,
        place: &Place,
        tail_lines: Option<u64>,
        kept: Kept,
    ) -> Result<Body, ApiError> {
        let request = LogRequest {
            container: self.status.container(),
            follow: kind == Kind::Follow,
            previous: kept == Kept::Previous,
            since: place.since(),
            tail_lines,
            limit_bytes: None,
        };
        self.source.log(&self.status.pod_name(), &request).await
    }

    /// Waits until the status says that the container has ended, and a moment more, which starts again with every piece that
    /// the follow brings. The kubelet looks only once a second whether a follow is to end; the runtime has written everything
    /// before it reports the end.
    pub(super) async fn quiet_after_the_end(&mut self) {
        self.status.ended().await;
        tokio::time::sleep(QUIET).await;
    }

    /// Whether an error is the last word. The kubelet's status runs behind the container, so at the beginning 400 and 404
    /// mean nothing.
    fn give_up(&mut self, error: &ApiError, life: Life) -> Option<Opening> {
        match error.code() {
            // Credentials are renewed meanwhile, or the cluster's authenticator is mended; a role is not.
            Some(401) if self.refused_since.get_or_insert_with(Instant::now).elapsed() < UNAUTHENTICATED => None,
            Some(401 | 403) => {
                let message = format!("the cluster refuses the broker the log: {error}; it needs get on pods/log");
                Some(Opening::End(Some(self.gap(GapReason::Refused, None, message)), Completeness::Cut))
            }
            Some(400 | 404) if life == Life::Ended => {
                self.missing += 1;
                let message = "the log was gone before it was read to the end";
                (self.missing >= MISSING_TRIES).then(|| self.gone(GapReason::PodDeleted, message))
            }
            _ => None,
        }
    }

    /// Nothing can be read any more. The kubelet removes the log of a pod that was deleted soon after its end, so the last read
    /// often comes too late; a follow that had kept up and ended with its container has brought everything.
    fn gone(&self, reason: GapReason, message: &'static str) -> Opening {
        match self.read_out {
            Some((end, last)) if last == self.last && self.is_read_out(end) => {
                Opening::End(None, Completeness::Complete)
            }
            _ => Opening::End(Some(self.gap(reason, None, message)), Completeness::Cut),
        }
    }

    /// Looks at a line: whether it is new, and whether lines are missing before it.
    pub(super) async fn take(&mut self, line: &LogLine, kind: Kind, arrival: &mut Arrival) -> Taken {
        let mut gap = None;
        if let Reach::Known(known) = self.reached {
            // The file may have been rotated since it was looked through.
            let is_other = known.head != Last::of(line);
            self.reached = Reach::All;
            if is_other && known.lines > 0 {
                self.place = self.began.clone();
                return Taken::NotFound;
            }
            self.repeated = known.lines;
            if known.lines == 0 {
                gap = self.lost(Lost::Gone, Some(line.nanos));
            }
        }
        if self.repeated > 0 {
            self.repeated -= 1;
            return Taken::Line(Verdict::PassOver, None);
        }
        let was_found = self.place.is_found();
        if self.reached == Reach::Tail && !was_found && self.tail_is_too_short(line) {
            self.reach = Reach::All;
            self.place = self.began.clone();
            return Taken::NotFound;
        }
        if kind == Kind::Follow {
            // The very same line again is one in doubt, too.
            let is_like = |other: Last| other.nanos == line.nanos && other == Last::of(line);
            let is_again = self.last.is_some_and(is_like) || self.begins_with.is_some_and(is_like);
            let is_again = is_again && !line.continues && !self.continuity.has_equals;
            if was_found
                && let Some(doubt) = is_again.then_some(Doubt::Step).or_else(|| self.continuity.doubt(line.nanos))
            {
                match self.settle(doubt, line).await {
                    Settled::GoOn(found) => gap = gap.or(found),
                    Settled::AskAgain => return Taken::NotFound,
                }
                if self.repeated > 0 {
                    self.repeated -= 1;
                    return Taken::Line(Verdict::PassOver, gap);
                }
            }
            self.brought = self.brought.saturating_add(line.content.len());
            self.passed_by = 0;
            self.continuity.take(line.nanos, *arrival);
            arrival.waited = Duration::ZERO;
        }
        let (verdict, lost) = self.place.take(line);
        gap = gap.or_else(|| lost.and_then(|lost| self.lost(lost, Some(line.nanos))));
        if self.place.is_found() {
            self.last = Some(Last { nanos: line.nanos, check: self.place.check() });
        } else {
            self.searched += 1;
        }
        Taken::Line(verdict, gap)
    }

    pub(super) fn hand_on(&mut self, verdict: Verdict, line: LogLine, chunk: &mut Chunk) {
        match verdict {
            Verdict::HandOn => {
                (self.pause, self.missing) = (FIRST_PAUSE, 0);
                chunk.push(line);
            }
            Verdict::PassOver if chunk.lines.is_empty() => chunk.before = self.place.position(),
            Verdict::PassOver => {}
        }
    }

    pub(super) fn note_end(&mut self, kind: Kind, broke: Broke, has_rest: bool, arrival: Arrival) {
        if kind == Kind::Whole || broke == Broke::NotFound {
            return;
        }
        // A kubelet or a connection that goes away can end an answer as cleanly as the end of the container does, in the midst
        // of it: not at a line's end, or before the container's.
        let by_itself = broke == Broke::End && !has_rest && self.place.is_found();
        self.ended_by_itself = by_itself.then(|| self.continuity.end(arrival));
        self.read_out =
            self.ended_by_itself.filter(|_| self.last.is_some() || self.status.is_short_lived()).map(|end| {
                let end = if self.status.is_short_lived() && self.is_whole() { end.of_one_file() } else { end };
                (end, self.last)
            });
    }

    pub(super) fn lost(&self, lost: Lost, next: Option<i64>) -> Option<Gap> {
        let (reason, message) = match lost {
            Lost::Changed => (GapReason::ResumeAmbiguous, "the last line that was read is another one now"),
            Lost::Gone => {
                if let (Some(end), Some(last), 0) = (self.ended_by_itself, self.last, self.searched)
                    && bridges(end, self.status.finished(), last.nanos, next)
                {
                    return None;
                }
                (GapReason::Rotated, "the log was rotated while nobody read it; lines may be missing here")
            }
        };
        Some(self.gap(reason, next, message))
    }

    pub(super) async fn pause_after(&mut self, broke: Broke) {
        match broke {
            // Most ends of a follow are ends of the container, and the status will say so in a moment.
            Broke::End => {
                self.prove_the_end().await;
                let _ = tokio::time::timeout(STATUS_DELAY, self.status.ended()).await;
            }
            Broke::Error => self.wait().await,
            Broke::NotFound => {}
        }
    }

    /// Waits a while, or until the pod changes.
    async fn wait(&mut self) {
        let jitter = self.pause.mul_f64(rand::random_range(0.5..1.0));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        let _ = tokio::time::timeout(jitter, self.status.changed()).await;
    }

    pub(super) fn gap(&self, reason: GapReason, next: Option<i64>, message: impl Into<String>) -> Gap {
        gap(&self.status, reason, self.last.map(|last| last.nanos), next, 0, message)
    }
}

/// A gap between two moments.
pub(super) fn gap(
    status: &Status,
    reason: GapReason,
    after: Option<i64>,
    before: Option<i64>,
    lines_at_least: u64,
    message: impl Into<String>,
) -> Gap {
    let time = |nanos: Option<i64>| nanos.and_then(|nanos| Timestamp::from_nanosecond(i128::from(nanos)).ok());
    Gap {
        instance: status.instance.clone(),
        reason,
        after: time(after),
        before: time(before),
        lines_at_least,
        message: message.into(),
    }
}
