//! From the bytes of a log to its lines, without copying them.
//!
//! A line is what the kubelet sends with `timestamps=true`: an RFC 3339 time with nanoseconds, one space, the content, a
//! newline. The content may be empty and may be any bytes. A long line is cut into pieces of `PIECE` bytes, always at the
//! same places, so that a position counted in pieces means the same when the line is read again.

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use super::kubelet_error::KubeletError;
use crate::execution::LogLine;

/// The longest piece of a line: what fits into one message of 64 KiB.
pub(super) const PIECE: usize = 64 << 10;

/// A time stamp has 30 to 35 characters. More without a space is content.
const STAMP: usize = 40;

/// `2026-11-21T08:00:00`, which many stamps in a row have in common.
const SECOND: usize = 19;

/// Splits a log into lines as its bytes arrive.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    buffer: BytesMut,
    /// The time of the line was taken off the buffer; what follows is content.
    inside: bool,
    /// The line began without a time.
    is_untimed: bool,
    /// The time of the line, or of the one before for a line that comes without.
    nanos: i64,
    /// The piece before was cut off the same line.
    continues: bool,
    /// Up to here the buffer holds no newline.
    searched: usize,
    /// The beginning of the latest stamp up to its second, and what it means.
    second: Option<([u8; SECOND], i64)>,
}

impl Splitter {
    /// Takes in what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line or piece that is complete.
    pub(super) fn next_line(&mut self) -> Option<LogLine> {
        self.take_stamp()?;
        let newline = memchr::memchr(b'\n', &self.buffer[self.searched..]).map(|at| at + self.searched);
        match newline {
            Some(end) if end <= PIECE => {
                let content = self.buffer.split_to(end).freeze();
                let _ = self.buffer.split_to(1);
                Some(self.finish(content, false))
            }
            _ if self.buffer.len() > PIECE => {
                let content = self.buffer.split_to(PIECE).freeze();
                Some(self.finish(content, true))
            }
            _ => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    /// The next line; once the log is over, what is left of it is the last one. An error if that is not the container's.
    pub(super) fn next(&mut self, is_over: bool) -> Result<Option<LogLine>, KubeletError> {
        match self.next_line() {
            None if is_over => self.rest(),
            line => Ok(line),
        }
    }

    /// What is left when the log ended for good: a last line without a newline. An error if it is not the container's.
    pub(super) fn rest(&mut self) -> Result<Option<LogLine>, KubeletError> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        if !self.inside {
            self.split_stamp(self.buffer.len());
        }
        let content = self.buffer.split().freeze();
        let is_whole = self.is_untimed && !self.continues;
        match KubeletError::of(&content) {
            Some(error) if is_whole => Err(error),
            _ => Ok(Some(self.finish(content, false))),
        }
    }

    /// Reads the time at the beginning of a line; `None` while it is not whole.
    fn take_stamp(&mut self) -> Option<()> {
        if self.inside {
            return Some(());
        }
        let head = self.buffer.len().min(STAMP);
        let end = self.buffer[..head].iter().position(|byte| *byte == b' ' || *byte == b'\n');
        match end {
            Some(end) => self.split_stamp(end),
            None if head == STAMP => self.split_stamp(0),
            None => return None,
        }
        Some(())
    }

    /// Takes the time off the buffer if the bytes up to `end` are one. If not, they are content: after a cut inside of a long
    /// line the kubelet sends its rest without a time.
    fn split_stamp(&mut self, end: usize) {
        let nanos = self.nanos_of(end);
        self.is_untimed = nanos.is_none();
        if let Some(nanos) = nanos {
            let space = usize::from(self.buffer.get(end) == Some(&b' '));
            let _ = self.buffer.split_to(end + space);
            self.nanos = nanos;
        }
        self.inside = true;
        self.searched = 0;
    }

    /// The time that the bytes up to `end` are. Parsing it takes longer than all else that is done to a line, so the part that
    /// seldom changes is parsed once.
    fn nanos_of(&mut self, end: usize) -> Option<i64> {
        let stamp = &self.buffer[..end];
        let (second, rest) = stamp.split_first_chunk::<SECOND>()?;
        if let (Some((known, start)), [b'.', digits @ .., b'Z']) = (&self.second, rest)
            && known == second
            && digits.len() == 9
            && digits.iter().all(u8::is_ascii_digit)
        {
            return Some(start + digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')));
        }
        let time: Timestamp = std::str::from_utf8(stamp).ok()?.parse().ok()?;
        let nanos = i64::try_from(time.as_nanosecond()).ok()?;
        let start = nanos.checked_sub(nanos.rem_euclid(1_000_000_000))?;
        self.second = rest.ends_with(b"Z").then_some((*second, start));
        Some(nanos)
    }

    fn finish(&mut self, content: Bytes, partial: bool) -> LogLine {
        let continues = std::mem::replace(&mut self.continues, partial);
        self.inside = partial;
        self.searched = 0;
        LogLine { nanos: self.nanos, content, continues, partial }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(parts: &[&[u8]]) -> Vec<LogLine> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for part in parts {
            splitter.push(part);
            while let Some(line) = splitter.next_line() {
                lines.push(line);
            }
        }
        lines.extend(splitter.rest().expect("the log was read"));
        lines
    }

    fn contents(lines: &[LogLine]) -> Vec<Vec<u8>> {
        lines.iter().map(|line| line.content.to_vec()).collect()
    }

    const T: &str = "2026-11-21T08:00:00.123456789Z ";

    #[test]
    fn a_line_has_its_time_to_the_nanosecond_and_its_bytes() {
        let lines = split(&[T.as_bytes(), b"\xff\x00 two  spaces \r\n"]);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].nanos, 1_795_248_000_123_456_789);
        assert_eq!(&lines[0].content[..], b"\xff\x00 two  spaces \r");
        assert!(!lines[0].partial && !lines[0].continues);
    }

    #[test]
    fn stamps_of_one_second_and_of_others_are_read_alike() {
        for stamps in [
            ["2026-11-21T08:00:00.000000000Z", "2026-11-21T08:00:00.999999999Z", "2026-11-21T08:00:01.5Z"],
            ["1969-12-31T23:59:59.000000001Z", "1969-12-31T23:59:59.000000002Z", "1969-12-31T23:59:59.25Z"],
            ["2026-11-21T08:00:00.000000000Z", "2026-11-21T08:00:00.1+02:00", "2026-11-21T08:00:00.123456789Z"],
        ] {
            let text = stamps.map(|stamp| format!("{stamp} x\n")).concat();
            let expected: Vec<_> =
                stamps.iter().map(|stamp| stamp.parse::<Timestamp>().unwrap().as_nanosecond()).collect();
            let read: Vec<_> = split(&[text.as_bytes()]).iter().map(|line| i128::from(line.nanos)).collect();
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn an_empty_line_is_a_line() {
        assert_eq!(contents(&split(&[format!("{T}\n{T}x\n").as_bytes()])), [b"".to_vec(), b"x".to_vec()]);
    }

    #[test]
    fn a_last_line_without_a_newline_is_given_at_the_end_only() {
        let mut splitter = Splitter::default();
        splitter.push(format!("{T}half").as_bytes());
        assert_eq!(splitter.next_line(), None);
        assert_eq!(splitter.rest().unwrap().unwrap().content, "half");
        assert_eq!(splitter.rest().unwrap(), None);
    }

    #[test]
    fn bytes_without_a_time_are_content() {
        assert_eq!(contents(&split(&[b"the rest of something\n"])), [b"the rest of something".to_vec()]);
    }

    #[test]
    fn a_line_as_long_as_a_piece_is_one_line_and_one_byte_more_makes_two() {
        for (length, expected) in [(PIECE - 1, 1), (PIECE, 1), (PIECE + 1, 2), (PIECE * 2, 2), (PIECE * 2 + 1, 3)] {
            let lines = split(&[format!("{T}{}\n{T}next\n", "x".repeat(length)).as_bytes()]);
            assert_eq!(lines.len(), expected + 1, "{length}");
            assert_eq!(lines[..expected].iter().map(|line| line.content.len()).sum::<usize>(), length);
            for (index, line) in lines[..expected].iter().enumerate() {
                assert_eq!((line.continues, line.partial), (index > 0, index + 1 < expected), "{length} {index}");
            }
            assert_eq!(lines[expected].content, "next");
        }
    }

    const SENTENCE: &str =
        "failed to try resolving symlinks in path \"/var/log/pods/n_x-1_u/base/0.log\": lstat: no such file";

    /// What is left at the end, after the lines before it.
    fn rest(parts: &[&[u8]]) -> (usize, Result<Option<LogLine>, KubeletError>) {
        let (mut splitter, mut lines) = (Splitter::default(), 0);
        for part in parts {
            splitter.push(part);
            while splitter.next_line().is_some() {
                lines += 1;
            }
        }
        (lines, splitter.rest())
    }

    #[test]
    fn what_the_kubelet_writes_in_place_of_lines_is_no_line_wherever_it_is_cut() {
        for before in [String::new(), format!("{T}one\n"), format!("{T}\u{fc}\n{T}\n")] {
            let text = format!("{before}{SENTENCE}");
            for cut in 0..=text.len() {
                let (lines, rest) = rest(&[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
                assert_eq!(lines, before.lines().count());
                assert_eq!(rest.unwrap_err().to_string(), format!("the kubelet wrote: {SENTENCE}"), "{cut}");
            }
        }
    }

    #[test]
    fn a_container_may_write_what_the_kubelet_does() {
        for (text, count) in [
            // With its time, and without a newline too.
            (format!("{T}{SENTENCE}\n"), 1),
            (format!("{T}{SENTENCE}"), 0),
            (format!("{T}x\n{T}{SENTENCE}"), 1),
            // The rest of a line that the wanted time has cut has a newline at its end.
            (format!("{SENTENCE}\n{T}x\n"), 2),
            (format!("{SENTENCE}\n"), 1),
            // Or it begins otherwise.
            (format!("it {SENTENCE}"), 0),
            (format!("{T}{}{SENTENCE}", "x".repeat(PIECE + 1)), 1),
            (format!("{}{SENTENCE}", "x".repeat(PIECE)), 1),
        ] {
            let (lines, rest) = rest(&[text.as_bytes()]);
            assert_eq!(lines, count, "{text}");
            let rest = rest.unwrap();
            assert_eq!(rest.is_some(), !text.ends_with('\n'), "{text}");
            assert!(rest.is_none_or(|line| line.content.ends_with(SENTENCE.as_bytes())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn wherever_the_network_cuts_the_lines_are_the_same(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>().prop_filter("newline", |b| *b != b'\n'), 0..50), 1..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let whole: Vec<u8> = contents.iter().flat_map(|line| [T.as_bytes(), line, b"\n"].concat()).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
            prop_assert_eq!(self::contents(&split(&parts)), contents);
        }
    }
}
