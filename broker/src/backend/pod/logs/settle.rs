//! Settles what `continuity` doubts, by reading the current file.

use std::time::Duration;

use futures::StreamExt as _;
use tracing::debug;

use super::super::api::LogRequest;
use super::super::lines::Splitter;
use super::super::place::Place;
use super::continuity::{Doubt, End, bridges};
use super::reader::{Kind, Reader};
use super::search::{Known, Last};
use super::status::Kept;
use crate::execution::{Gap, GapReason, InstancePosition, LogLine};

/// How much of a file's first line is read to recognize it.
const HEAD_BYTES: u64 = 1024;

/// How often and how long the first line of a file is asked for; lines wait meanwhile.
const HEAD_TRIES: u32 = 3;
const HEAD_DEADLINE: Duration = Duration::from_secs(3);

/// How long a piece of a file is waited for.
const PIECE_DEADLINE: Duration = Duration::from_secs(3);

/// The least that is in a file that is rotated; its limit is 10 MiB where nobody has set another.
const ROTATED_BYTES: usize = 16 << 10;

/// How often a silent follow is found to be behind, a second after the other, until it is opened again.
const PASSED_BY: u32 = 3;

/// How often that is asked without an answer.
const UNANSWERED: u32 = 10;

/// What came of a doubt.
pub(super) enum Settled {
    /// The line follows, or begins what is read again, with a gap before it or without.
    GoOn(Option<Gap>),
    /// It cannot be said where the line belongs.
    AskAgain,
}

/// What a file has.
#[derive(Debug, Default)]
struct File {
    head: Option<Last>,
    /// How many lines there are up to the last one that was had, with it; 0 without it.
    up_to_last: u64,
    /// How often the last one that was had is there.
    lasts: u64,
    /// The line in doubt is there.
    has_line: bool,
}

impl Reader {
    /// Settles a doubt about a line that an open follow brings.
    pub(super) async fn settle(&mut self, doubt: Doubt, line: &LogLine) -> Settled {
        match doubt {
            Doubt::Hole => {
                // If the file has begun before the hole, both of its sides are in it.
                let now = self.source.now();
                let head = self.head().await;
                let mut is_one = head.zip(self.continuity.latest()).is_some_and(|(head, latest)| head.nanos <= latest);
                if !is_one {
                    // It may not look so where a clock went back.
                    let Some(file) = self.file(None, None).await else { return Settled::AskAgain };
                    is_one = file.lasts > 0;
                }
                if is_one {
                    self.continuity.is_in_one_file(now);
                } else {
                    self.begins_with = Some(Last::of(line));
                }
                Settled::GoOn((!is_one).then(|| self.passed_over(line)))
            }
            Doubt::Step => {
                let it = Last::of(line);
                // A line that was written twice at one moment is there twice.
                let is_same = self.last == Some(it);
                let Some(file) = self.file(None, Some(it)).await else { return Settled::AskAgain };
                let is_head = file.head == Some(it);
                self.begins_with = is_head.then_some(it).or(self.begins_with);
                let gap = if is_head && file.lasts > 0 && !(is_same && file.lasts > 1) {
                    debug!(lines = file.up_to_last, "the kubelet reads a log file again");
                    self.repeated = file.up_to_last;
                    None
                } else if file.has_line {
                    // A new file begins with an earlier time, and has not the last line; one before it may have been passed over.
                    let is_next = file.lasts > 0 || (is_head && self.continuity.was_prompt());
                    let gap = (!is_next).then(|| self.passed_over(line));
                    self.continuity.has_equals |= is_same;
                    self.continuity.step_was_real(line.nanos);
                    gap
                } else {
                    // The file was rotated meanwhile. A new answer begins with a file that is known.
                    return Settled::AskAgain;
                };
                Settled::GoOn(gap)
            }
        }
    }

    /// Whether it is worth a look that the kubelet has come to the end of its file: a file that was rotated before that is passed
    /// over, and the follow is silent until the next rotation. A file as short as that of most containers is not rotated.
    pub(super) fn wants_proof(&self) -> bool {
        let may_be_rotated = !self.is_whole();
        let may_be_told = self.unanswered < UNANSWERED;
        may_be_rotated
            && may_be_told
            && self.place.is_found()
            && !self.continuity.has_caught_up()
            && self.continuity.latest().is_some()
    }

    /// The open answer is of a file from its beginning that is too short to have been rotated.
    pub(super) fn is_whole(&self) -> bool {
        self.began.nanos().is_none() && self.brought < ROTATED_BYTES
    }

    /// The container ended when the follow did, which had brought everything.
    pub(super) fn is_read_out(&self, end: End) -> bool {
        bridges(end, self.status.finished(), self.last.map_or(0, |last| last.nanos), None)
    }

    /// Looks whether a follow that is silent has brought all of the current file. False if the file has more, again and again.
    pub(super) async fn prove_catching_up(&mut self) -> bool {
        match self.file(Some(1), None).await {
            Some(file) if file.lasts > 0 => self.continuity.is_at_the_end(),
            // It may have been written in this moment.
            Some(_) => self.passed_by += 1,
            None => self.unanswered += 1,
        }
        self.passed_by < PASSED_BY
    }

    fn passed_over(&self, line: &LogLine) -> Gap {
        let message = "the kubelet may have passed over a rotated file here; lines may be missing";
        self.gap(GapReason::ResumeAmbiguous, Some(line.nanos), message)
    }

    /// Looks for the last line that was had in the current file; nothing if that cannot be said.
    pub(super) async fn known(&mut self) -> Option<Known> {
        self.last.filter(|last| last.check.is_some())?;
        let file = self.file(None, None).await?;
        // The very same line several times at the very same moment cannot be told apart.
        (file.lasts < 2).then_some(Known { head: file.head?, lines: file.up_to_last })
    }

    /// A follow has ended cleanly. If the container has, a rotation that hides what it wrote last has been: none comes later. Keeps
    /// that end as a proof only if the last line is in the current file no more.
    pub(super) async fn prove_the_end(&mut self) {
        if self.ended_by_itself.is_none() {
            return;
        }
        // Nearly always it is the last line of the file, too.
        let mut file = self.file(Some(1), None).await;
        if file.as_ref().is_some_and(|file| file.lasts == 0) {
            file = self.file(None, None).await;
        }
        if file.is_none_or(|file| file.lasts > 0) {
            self.ended_by_itself = None;
        }
    }

    /// What is in the current file, or in its last lines; nothing if that cannot be read.
    async fn file(&mut self, tail_lines: Option<u64>, wanted: Option<Last>) -> Option<File> {
        let kept = self.status.look().place;
        let whole = Place::new(InstancePosition::default(), None);
        let mut body = self.ask(Kind::Whole, &whole, tail_lines, kept).await.ok()?;
        let (mut splitter, mut lines, mut is_over) = (Splitter::default(), 0, false);
        let mut file = File::default();
        while !is_over {
            match tokio::time::timeout(PIECE_DEADLINE, body.next()).await.ok()? {
                Some(bytes) => splitter.push(&bytes.ok()?),
                None => is_over = true,
            }
            while let Some(line) = splitter.next(is_over).ok()? {
                let it = Last::of(&line);
                file.head.get_or_insert(it);
                lines += 1;
                file.has_line |= wanted == Some(it);
                if self.last == Some(it) {
                    file.up_to_last = lines;
                    file.lasts += 1;
                }
            }
        }
        Some(file)
    }

    /// The beginning of the first line of the current file, if it can be had soon.
    async fn head(&mut self) -> Option<LogLine> {
        let pod_name = self.status.pod_name();
        for _ in 0..HEAD_TRIES {
            // The container may have been restarted meanwhile.
            let kept = self.status.look().place;
            let request = LogRequest {
                container: self.status.container(),
                follow: false,
                previous: kept == Kept::Previous,
                since: None,
                tail_lines: None,
                limit_bytes: Some(HEAD_BYTES),
            };
            let read = async {
                let mut body = self.source.log(&pod_name, &request).await.ok()?;
                let mut splitter = Splitter::default();
                while let Some(bytes) = body.next().await {
                    splitter.push(&bytes.ok()?);
                }
                splitter.next(true).ok().flatten()
            };
            if let Ok(Some(head)) = tokio::time::timeout(HEAD_DEADLINE, read).await {
                return Some(head);
            }
        }
        None
    }
}
