//! Finds the line of the position again in what a read that goes on brings.
//!
//! At first only the last lines of the file are asked for, whatever their times are; if the line is not among them, all of the
//! file. If it is not there either, a clock may have gone back: the file with the latest time is gone, and that of the last
//! line may be there. Whoever has read that line himself looks for it by its own time and content.

use std::sync::Arc;

use futures::StreamExt as _;

use super::super::chunk::{CHUNK_BYTES, Chunk};
use super::super::kubelet_error::KubeletError;
use super::super::lines::Splitter;
use super::super::place::{Lost, Place, Verdict};
use super::continuity::Continuity;
use super::reader::{Kind, Reader, STATUS_DELAY};
use super::shipped::Wanted;
use crate::backend::log_group::LogGroup;
use crate::execution::{Gap, GapReason, LogLine};

/// How many lines a read that goes on asks for at first: a second or two of a busy container, and 100 kB of usual lines.
const TAIL_LINES: u64 = 1000;

/// An answer with fewer lines than were asked for, none of them nearly as long as what a runtime cuts into entries (16 KiB),
/// is the whole file.
const SHORT_LINE: usize = 8 << 10;

/// How much of the file the next answer is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Its last lines.
    Tail,
    All,
    /// All of it, which was looked through for the last line that was had: that is so far down, or not there with 0.
    Known(Known),
}

/// A line, to be recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) nanos: i64,
    /// Of its content; a line that only a position tells has none.
    pub(super) check: Option<u32>,
}

impl Last {
    pub(super) fn of(line: &LogLine) -> Self {
        Self { nanos: line.nanos, check: Some(crc32fast::hash(&line.content)) }
    }
}

/// A file that was looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Its first line.
    pub(super) head: Last,
    /// How many lines there are up to the last one that was had, with it; 0 if that is not there.
    pub(super) lines: u64,
}

impl Reader {
    /// Where to read on if the pod is gone and its lines were shipped; the latest lines only are known to the kubelet alone.
    pub(super) fn wanted(
        &self,
        group: Option<&Arc<dyn LogGroup>>,
        gap: Option<&Gap>,
    ) -> Option<(Arc<dyn LogGroup>, Wanted)> {
        let gap = gap.filter(|gap| gap.reason == GapReason::PodDeleted)?.clone();
        if self.place.is_fresh() && self.tail_lines.is_some() {
            return None;
        }
        let (position, since, mode) = (self.place.position(), self.place.not_before(), self.mode);
        let (of, ended, now) = (self.status.shipped(), self.status.finished(), self.source.now());
        Some((Arc::clone(group?), Wanted { of, position, since, mode, ended, now, gap }))
    }

    /// How many of the last lines to ask for.
    pub(super) fn lines_of(&self, reach: Reach, place: &Place) -> Option<u64> {
        match reach {
            _ if place.is_fresh() => self.tail_lines,
            Reach::Tail if place.nanos().is_some() => Some(TAIL_LINES),
            Reach::Tail | Reach::All | Reach::Known(_) => None,
        }
    }

    /// An answer begins.
    pub(super) fn begin(&mut self, reach: Reach) {
        self.began = self.place.clone();
        (self.reach, self.reached, self.searched, self.repeated) = (Reach::Tail, reach, 0, 0);
        (self.begins_with, self.brought, self.passed_by, self.unanswered) = (None, 0, 0, 0);
        self.continuity = Continuity::new(self.source.now());
        if let Reach::Known(_) = reach {
            self.place.begin_behind();
        } else {
            self.place.begin();
        }
    }

    /// The open answer ended with an error in place of the lines, or of those after what it has brought. The next opening deals
    /// with it as with one that was answered at once.
    pub(super) fn refuse(&mut self, error: KubeletError, has_lines: bool) {
        if !has_lines {
            (self.reach, self.place) = (self.reached, self.began.clone());
        }
        self.refused = Some(error.into());
    }

    /// What is missing at the end of the file.
    pub(super) fn lost_at_the_end(&mut self) -> Option<Gap> {
        let is_empty = matches!(std::mem::replace(&mut self.reached, Reach::All), Reach::Known(_));
        let lost = self.place.end().or(is_empty.then_some(Lost::Gone))?;
        self.lost(lost, None)
    }

    /// The answer was silent for a while, or has ended. Whether another one may tell more about where the position is.
    pub(super) async fn look_further(&mut self) -> bool {
        if self.place.is_found() {
            return false;
        }
        self.reach = match self.reached {
            Reach::Tail => Reach::All,
            // After a clock went back the file with the latest time may be gone, and that of the last line be there.
            Reach::All if self.searched > 0 => match self.known().await {
                Some(known) => Reach::Known(known),
                None => return false,
            },
            Reach::All | Reach::Known(_) => return false,
        };
        self.place = self.began.clone();
        true
    }

    /// The answer is only the end of the file, and the line of the position may be before it.
    pub(super) fn tail_is_too_short(&self, line: &LogLine) -> bool {
        let is_asked_for = self.lines_of(Reach::Tail, &self.began).is_some() && !self.began.is_fresh();
        let is_behind = self.place.nanos().is_some_and(|latest| line.nanos > latest);
        let may_be_cut = self.searched == 0 && self.place.may_be_cut_by(line);
        is_asked_for && (is_behind || may_be_cut || self.searched > TAIL_LINES)
    }

    /// The last read, while the follow is still open; what is left of the log, or nothing if that cannot be said. A follow reads
    /// through rotated files and a read does not, so where the read does not find its place the follow is believed.
    pub(super) async fn finish(&mut self) -> Option<Chunk> {
        let mut place = self.place.clone();
        place.begin();
        let kept = self.status.look().place;
        let mut body = self.ask(Kind::Whole, &place, self.lines_of(Reach::Tail, &place), kept).await.ok()?;
        let (mut splitter, mut rest) = (Splitter::default(), Chunk::new(place.position()));
        let (mut lines, mut longest, mut may_be_cut) = (0, 0, false);
        loop {
            let piece = tokio::time::timeout(STATUS_DELAY, body.next()).await.ok()?;
            let is_over = piece.is_none();
            if let Some(bytes) = piece {
                splitter.push(&bytes.ok()?);
            }
            while let Some(line) = splitter.next(is_over).ok()? {
                may_be_cut |= lines == 0 && place.may_be_cut_by(&line);
                (lines, longest) = (lines + 1, longest.max(line.content.len()));
                match place.take(&line) {
                    (_, Some(_)) => return None,
                    (Verdict::HandOn, None) => rest.push(line),
                    (Verdict::PassOver, None) if rest.lines.is_empty() => rest.before = place.position(),
                    (Verdict::PassOver, None) => {}
                }
            }
            if rest.bytes > CHUNK_BYTES {
                // So much more is no rest.
                return None;
            }
            if is_over {
                break;
            }
        }
        let is_whole = lines < TAIL_LINES && longest < SHORT_LINE;
        if place.end().is_some() || (may_be_cut && !is_whole) {
            return None;
        }
        self.place = place;
        Some(rest)
    }
}
