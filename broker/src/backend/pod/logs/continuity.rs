//! Whether the lines of an open follow can be what the container wrote, one after the other.
//!
//! The kubelet follows a file by its name. If two rotations pass before it looks again, the file between them is never read;
//! if it looks twice for one rotation, a file is read twice. It says neither. But a file is written
//! for some time before it is rotated (three seconds are the least `containerLogMonitorInterval` that a kubelet takes), so one that
//! was passed over leaves a hole in the times, and one that is repeated begins with a line from before. Nearly always there is a harmless
//! reason: the container was silent, or two of its streams were stamped before they took turns. Only what cannot be told
//! apart from here is a doubt, which the current file settles: a file that has the line before the hole has no hole, and one that
//! is read again has the last line that was had. What the file does not settle is a gap, never silence.
//!
//! Times are compared with the cluster's clock to tell what was late. By how much the node's clock is behind is learnt from the
//! steps that are seen; a clock that is behind by more than `PROMPT` otherwise makes every line look late, which costs requests,
//! and at worst a gap at a rotation where nothing is missing.

use std::time::Duration;

/// A hole that could hide a file. The kubelet looks for files to rotate every three seconds at most often, but it may be late
/// for one look and not for the next.
const HOLE: i64 = 250_000_000;

/// A line that was handed over so soon after it was written may not have been held up. The server's clock is known to about a
/// second.
const PROMPT: i64 = 1_500_000_000;

/// A line that took so much longer than the fastest was held up, perhaps for the life of a file: where the node is busy, one
/// that is written fast was seen to live for less than a second.
const HELD_UP: i64 = 250_000_000;

/// A wait so long for a line that was written about as much later than the one before it means that the kubelet had nothing
/// more to read. A busy machine waits as long in the midst of a file, but hardly ever just where its writer did.
const WAITED: Duration = Duration::from_millis(100);

/// Shorter waits of that kind tell the same when there were some of them.
const SHORT_WAIT: Duration = Duration::from_millis(10);
const SHORT_WAITS: u32 = 3;

/// An end so long after the last bytes is that of a follow that had read its file to the end. The kubelet reads what is written
/// within milliseconds; a container that has written, its file that was rotated, and its end all within less are told apart from
/// a connection that was lost in the midst of the file by nothing, and give a gap.
const SILENT: i64 = 25_000_000;

/// How much earlier than its predecessor a line may be, before it is looked into: a thread's turn on a busy node.
const FIRST_STEP: i64 = 100_000_000;

/// So much is no thread's turn.
const LARGEST_TURN: i64 = 1_000_000_000;

/// What is remembered of an open follow.
#[derive(Debug, Clone)]
pub(super) struct Continuity {
    /// When it was opened, or found to be in the current file. What it has brought since, of lines before that, is in one file.
    opened: i64,
    latest: Option<Latest>,
    /// The kubelet came to the end of a file since then, so that from now on it is told of rotations. The first lines do not show
    /// it: on a busy node a kubelet was seen to bring the first 20 ms of a container's log and then, three seconds later, the
    /// next file.
    caught_up: bool,
    short_waits: u32,
    /// How much earlier a line may be than the one before it.
    step: i64,
    /// The same while the kubelet is held up: only then it may read a file again, which may be a short one.
    late_step: i64,
    /// The container writes the same line more than once at one moment.
    pub(super) has_equals: bool,
    /// The node's clock is behind by so much, at least: it went back under our eyes.
    behind: i64,
    /// The lag of a line that was not held up: what the two clocks differ by.
    base: i64,
}

/// The line before.
#[derive(Debug, Clone, Copy)]
struct Latest {
    nanos: i64,
    lag: i64,
}

/// What is to be settled before a line is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// A file may have been passed over before it.
    Hole,
    /// It is earlier: it may be the first line of a file that was read before.
    Step,
}

/// When bytes came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// By the cluster's clock.
    pub(super) now: i64,
    /// How long they were waited for.
    pub(super) waited: Duration,
}

impl Continuity {
    pub(super) fn new(opened: i64) -> Self {
        Self {
            opened,
            latest: None,
            caught_up: false,
            short_waits: 0,
            step: FIRST_STEP,
            late_step: 0,
            has_equals: false,
            behind: 0,
            base: i64::MAX,
        }
    }

    /// The time of the line before.
    pub(super) fn latest(&self) -> Option<i64> {
        self.latest.map(|latest| latest.nanos)
    }

    /// Whether a line may follow the one before it.
    pub(super) fn doubt(&self, nanos: i64) -> Option<Doubt> {
        let latest = self.latest?;
        let step = nanos.saturating_sub(latest.nanos);
        let most = if self.is_prompt(latest) { self.step } else { self.late_step };
        if step < -most {
            return Some(Doubt::Step);
        }
        (step >= HOLE && nanos > self.opened && !self.was_prompt()).then_some(Doubt::Hole)
    }

    /// The line before was handed over as it was written, and no file is passed over behind it.
    pub(super) fn was_prompt(&self) -> bool {
        self.caught_up && self.latest.is_some_and(|latest| self.is_prompt(latest))
    }

    fn is_prompt(&self, latest: Latest) -> bool {
        latest.lag < PROMPT && latest.lag.saturating_sub(self.base) < HELD_UP
    }

    /// A line was taken.
    pub(super) fn take(&mut self, nanos: i64, arrival: Arrival) {
        let lag = arrival.now.saturating_sub(nanos);
        // No line comes before it was written, so it shows how far behind the clock is at most.
        self.behind = self.behind.min(lag.max(0));
        let lag = lag.saturating_sub(self.behind);
        self.base = self.base.min(lag);
        if lag < PROMPT && self.waited_as_the_writer_did(nanos, arrival.waited) {
            self.short_waits += 1;
            self.caught_up |= arrival.waited >= WAITED || self.short_waits >= SHORT_WAITS;
            // Clocks drift apart, and one line may have been held up.
            self.base += (lag - self.base) / 8;
        }
        self.latest = Some(Latest { nanos, lag });
    }

    fn waited_as_the_writer_did(&self, nanos: i64, waited: Duration) -> bool {
        let step = self.latest.map_or(0, |latest| nanos.saturating_sub(latest.nanos));
        waited >= SHORT_WAIT && i128::from(step) * 2 >= i128::try_from(waited.as_nanos()).unwrap_or(i128::MAX)
    }

    /// Whether it is known that the kubelet came to the end of a file.
    pub(super) fn has_caught_up(&self) -> bool {
        self.caught_up
    }

    /// The last line was found to be the last of the current file: whatever comes now is told to the kubelet, however late that
    /// line was.
    pub(super) fn is_at_the_end(&mut self) {
        self.caught_up = true;
        self.latest = self.latest.map(|latest| Latest { lag: self.base.min(0), ..latest });
    }

    /// A follow that ends now: what that end says.
    pub(super) fn end(&self, arrival: Arrival) -> End {
        let at = arrival.now.saturating_sub(self.behind);
        let waited = i64::try_from(arrival.waited.as_nanos()).unwrap_or(i64::MAX);
        End { at, was_silent: waited >= SILENT, knew_all: self.was_prompt() }
    }

    /// The current file has the line before.
    pub(super) fn is_in_one_file(&mut self, now: i64) {
        self.opened = self.opened.max(now.saturating_sub(self.behind).saturating_sub(PROMPT));
    }

    /// A line from before was no repetition. Two streams that take turns do so again, and need no look from now on; each clock
    /// that goes back does.
    pub(super) fn step_was_real(&mut self, nanos: i64) {
        let step = self.latest.map_or(0, |latest| latest.nanos.saturating_sub(nanos));
        if step < LARGEST_TURN {
            self.step = self.step.max(2 * step);
            self.late_step = self.late_step.max(2 * step);
        }
        self.behind = self.behind.saturating_add(step);
        // The clock also went back by the time between the two lines.
        self.base = i64::MAX;
    }
}

/// The end of a follow that ended by itself, with its file read to the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// By the node's clock.
    at: i64,
    /// The kubelet had nothing more to read.
    was_silent: bool,
    /// It had kept up: only the newest file can be unread.
    knew_all: bool,
}

impl End {
    /// There was only one file, so that none can be unread.
    pub(super) fn of_one_file(self) -> Self {
        Self { knew_all: true, ..self }
    }
}

/// The kubelet looks every second whether the container of a follow has ended, and the API tells that end to the second.
const AFTER_THE_END: i64 = 3_000_000_000;

/// Whether a read that does not find the last line goes on where a follow ended by itself. A file that was rotated at the
/// container's end is not read by the kubelet's follow, and the one before it is not there for a read.
///
/// The follow must have ended when the container did, and have been silent before that, or the next line follows so closely that
/// it was not cut off in the midst: then nothing is behind the last line in its file, and a file between the two is one that the
/// follow would have read, or one for which there was no time.
///
/// A node that is cut off from the API server ends a follow as cleanly, with lines unread. If that, a rotation and the
/// container's end come together within three seconds, they cannot be told from a rotation at the container's end.
pub(super) fn bridges(end: End, finished: Option<i64>, last: i64, next: Option<i64>) -> bool {
    let was_its_end = finished.is_some_and(|moment| moment <= end.at && end.at - moment < AFTER_THE_END);
    let was_read = end.was_silent || next.is_some_and(|next| next - last < SILENT);
    was_read && was_its_end && next.map_or(end.knew_all, |next| next >= last && (end.knew_all || next - last < HOLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn after(lines: &[(i64, i64, u64)]) -> Continuity {
        let mut continuity = Continuity::new(100 * S);
        // What was there when it was opened.
        continuity.take(50 * S, Arrival { now: 100 * S, waited: Duration::ZERO });
        for (nanos, now, waited) in lines {
            continuity.take(*nanos, Arrival { now: *now, waited: Duration::from_millis(*waited) });
        }
        continuity
    }

    #[test]
    fn a_hole_is_doubted_unless_the_line_before_it_was_prompt_and_the_kubelet_had_caught_up() {
        for (lines, next, doubt) in [
            // Silence of a container that is followed at its pace.
            (vec![(101 * S, 101 * S, 900)], 160 * S, None),
            // It was not seen that the kubelet came to the end of a file.
            (vec![(101 * S, 101 * S, 0)], 104 * S, Some(Doubt::Hole)),
            // The line before came late.
            (vec![(101 * S, 101 * S, 900), (102 * S, 106 * S, 4000)], 106 * S, Some(Doubt::Hole)),
            // What was there at the opening is one file.
            (vec![(10 * S, 101 * S, 0)], 90 * S, None),
            // Less than a file's life.
            (vec![(101 * S, 120 * S, 0)], 101 * S + HOLE - 1, None),
            // Waits in the midst of a file that the kubelet reads more slowly than it is written.
            (
                (0..50).map(|line| (101 * S + line * 1000, 102 * S + line * S / 10, 100)).collect(),
                160 * S,
                Some(Doubt::Hole),
            ),
            // Short waits for what was written in just that time.
            ((0..3).map(|line| (101 * S + line * S / 50, 101 * S + line * S / 50, 20)).collect(), 160 * S, None),
            // One of them may be by chance.
            (vec![(101 * S, 101 * S, 0), (101 * S + S / 50, 101 * S + S / 50, 20)], 160 * S, Some(Doubt::Hole)),
        ] {
            assert_eq!(after(&lines).doubt(next), doubt, "{lines:?} {next}");
        }
    }

    #[test]
    fn a_step_back_is_looked_into_and_a_small_one_is_not() {
        let mut continuity = after(&[(101 * S, 101 * S, 0)]);
        assert_eq!(continuity.doubt(101 * S - FIRST_STEP), None);
        assert_eq!(continuity.doubt(101 * S - FIRST_STEP - 1), Some(Doubt::Step));
        continuity.step_was_real(101 * S - FIRST_STEP - 1);
        assert_eq!(continuity.doubt(101 * S - FIRST_STEP - 1), None);
    }

    #[test]
    fn a_clock_that_went_back_does_not_make_lines_late() {
        let mut continuity = after(&[(101 * S, 101 * S, 900)]);
        let arrival = |now: i64| Arrival { now: now * S, waited: Duration::from_millis(900) };
        continuity.step_was_real(61 * S);
        continuity.take(61 * S, arrival(102));
        assert_eq!(continuity.doubt(161 * S), None);
        // It is set right again, and what comes late is late.
        continuity.take(203 * S, arrival(203));
        continuity.take(204 * S, arrival(210));
        assert_eq!(continuity.doubt(210 * S), Some(Doubt::Hole));
    }

    #[test]
    fn a_file_that_was_begun_at_the_containers_end_is_the_next_one() {
        let end = |at, knew_all| End { at: at * S, was_silent: true, knew_all };
        assert!(bridges(end(12, true), Some(12 * S), 10 * S, Some(11 * S)));
        assert!(bridges(end(12, true), Some(12 * S), 10 * S, None));
        assert!(bridges(end(12, false), Some(12 * S), 10 * S, Some(10 * S + HOLE - 1)));
        assert!(bridges(end(20, true), Some(18 * S), 10 * S, Some(14 * S)), "a file between would have been read");
        assert!(!bridges(end(20, false), Some(18 * S), 10 * S, Some(14 * S)), "a file may be between");
        assert!(!bridges(end(12, false), Some(12 * S), 10 * S, None), "the file that is empty now may not be the next");
        assert!(!bridges(end(12, true), None, 10 * S, Some(11 * S)), "the container has written on");
        assert!(!bridges(end(12, true), Some(13 * S), 10 * S, Some(11 * S)), "the container has written on");
        assert!(!bridges(end(20, true), Some(12 * S), 10 * S, None), "that was another end");
        let not_silent = End { was_silent: false, ..end(12, true) };
        assert!(bridges(not_silent, Some(12 * S), 10 * S, Some(10 * S + SILENT - 1)), "the next line follows closely");
        assert!(!bridges(not_silent, Some(12 * S), 10 * S, None), "the file may not have been read to its end");
    }
}
