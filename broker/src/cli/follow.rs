//! Shows the events of a watch.
//!
//! Lines go to standard output as the bytes that they are; everything else is a remark. As JSON, every event is an object of
//! its own on standard output.

use std::time::Duration;

use podbroker_client::proto::event::Event as Kind;
use podbroker_client::{Error, Watch, proto};

use super::screen::Screen;
use super::{Failure, Format, json, text};

/// When a line says which container it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    Never,
    Always,
    /// As soon as a second container has something to say.
    WhenMixed,
}

/// Whether a line says when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    Hidden,
    Shown,
}

/// What is shown besides the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Talk {
    /// Lines, states and notices.
    All,
    /// Lines, and what is wrong with them.
    Lines,
    /// Nothing.
    None,
}

/// A broker that is away for shorter is not worth a remark.
const PATIENCE: Duration = Duration::from_secs(3);

/// Shows events in the order in which they come.
pub(crate) struct Show {
    prefix: Prefix,
    times: Times,
    talk: Talk,
    /// The container whose line has not ended yet.
    unfinished: Option<String>,
    first_container: Option<String>,
    last_state: Option<proto::ExecutionState>,
    has_told_trouble: bool,
}

impl Show {
    pub(crate) fn new(prefix: Prefix, times: Times, talk: Talk) -> Self {
        Self { prefix, times, talk, unfinished: None, first_container: None, last_state: None, has_told_trouble: false }
    }

    /// The next event of the watch. Says so when the broker is away for longer. Safe to drop and call again.
    pub(crate) async fn next(&mut self, watch: &mut Watch, screen: &mut Screen) -> Option<Result<proto::Event, Error>> {
        loop {
            match tokio::time::timeout(PATIENCE, watch.next()).await {
                Ok(event) => {
                    if std::mem::take(&mut self.has_told_trouble) && event.as_ref().is_some_and(Result::is_ok) {
                        screen.tell("the broker is back");
                    }
                    return event;
                }
                Err(_) => {
                    if let Some(error) = watch.trouble().filter(|_| !self.has_told_trouble) {
                        screen.tell(&format!("the broker is away and waited for: {error}"));
                        self.has_told_trouble = true;
                    }
                }
            }
        }
    }

    /// Shows one event. The end is not shown, since what it means is the command's to say.
    pub(crate) fn show(&mut self, event: &proto::Event, screen: &mut Screen) -> Result<(), Failure> {
        if screen.format == Format::Json {
            screen.json(&json::event(event))?;
            return Ok(screen.flush()?);
        }
        match event.event.as_ref() {
            Some(Kind::LogChunk(chunk)) if self.talk != Talk::None => self.lines(chunk, screen)?,
            Some(Kind::LogGap(gap)) if self.talk != Talk::None => self.gap(gap, screen)?,
            Some(Kind::Notice(notice)) if self.talk == Talk::All => screen.tell(&notice.message),
            Some(Kind::StateChanged(change)) if self.talk == Talk::All => self.state(change, screen),
            Some(Kind::AttemptEnded(ended)) if self.talk == Talk::All => {
                let (number, outcome) = (ended.attempt.as_ref().map(|attempt| attempt.number), ended.outcome.as_ref());
                if let Some((number, outcome)) = number.zip(outcome).filter(|(number, _)| *number > 1) {
                    screen.tell(&format!("attempt {number} ended: {}", outcome.message));
                }
            }
            Some(Kind::Result(result)) if self.talk != Talk::Lines => {
                self.end_line(screen)?;
                if result.problem.is_empty() {
                    screen.write(&result.content)?;
                    if !result.content.ends_with(b"\n") {
                        screen.write(b"\n")?;
                    }
                    if !result.not_json.is_empty() {
                        screen.tell(&format!("the result is not JSON: {}", result.not_json));
                    }
                } else {
                    screen.tell(&format!("no result: {}", result.problem));
                }
            }
            Some(Kind::End(_)) => self.end_line(screen)?,
            _ => {}
        }
        Ok(screen.flush()?)
    }

    fn state(&mut self, change: &proto::StateChanged, screen: &mut Screen) {
        let Some(execution) = &change.execution else { return };
        // How it ended is the last thing that a command says, after the remaining lines.
        let is_over = execution.outcome.is_some();
        // Why it stands where it stands comes as notices.
        if !is_over && self.last_state != Some(execution.state()) {
            screen.tell(&text::state(execution.state()));
            self.last_state = Some(execution.state());
        }
    }

    fn gap(&mut self, gap: &proto::LogGap, screen: &mut Screen) -> Result<(), Failure> {
        self.end_line(screen)?;
        let container = gap.instance.as_ref().map_or("", |instance| instance.container.as_str());
        let count = match gap.lines_at_least {
            0 => String::new(),
            count => format!("at least {count} "),
        };
        let message = if gap.message.is_empty() {
            text::words(gap.reason().as_str_name(), "GAP_REASON_")
        } else {
            gap.message.clone()
        };
        screen.tell(&format!("{count}lines of {container} are missing here: {message}"));
        Ok(())
    }

    fn lines(&mut self, chunk: &proto::LogChunk, screen: &mut Screen) -> Result<(), Failure> {
        let container = chunk.instance.as_ref().map_or("", |instance| instance.container.as_str());
        if self.unfinished.as_ref().is_some_and(|unfinished| unfinished != container) {
            self.end_line(screen)?;
        }
        let first = self.first_container.get_or_insert_with(|| container.to_owned());
        if self.prefix == Prefix::WhenMixed && first != container {
            self.prefix = Prefix::Always;
        }
        for line in &chunk.lines {
            // A piece joins what is on the screen already, unless that was cut off by another container's line.
            if self.unfinished.is_none() || !line.continues {
                self.end_line(screen)?;
                if self.prefix == Prefix::Always {
                    screen.write(format!("[{container}] ").as_bytes())?;
                }
                if self.times == Times::Shown {
                    screen.write(text::nanos(line.time_unix_nanos).as_bytes())?;
                    screen.write(b" ")?;
                }
            }
            screen.write(&line.content)?;
            if line.partial {
                self.unfinished = Some(container.to_owned());
            } else {
                self.unfinished = None;
                screen.write(b"\n")?;
            }
        }
        Ok(())
    }

    fn end_line(&mut self, screen: &mut Screen) -> Result<(), Failure> {
        if self.unfinished.take().is_some() {
            screen.write(b"\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::screen::tests::Paper;
    use super::*;

    fn chunk(container: &str, lines: &[(&[u8], bool, bool)]) -> proto::Event {
        let line = |(content, continues, partial): &(&[u8], bool, bool)| proto::LogLine {
            time_unix_nanos: 1,
            content: content.to_vec().into(),
            continues: *continues,
            partial: *partial,
        };
        let instance = proto::ContainerInstance { container: container.to_owned(), ..Default::default() };
        let lines = lines.iter().map(line).collect();
        let chunk = proto::LogChunk { instance: Some(instance), lines, line_cursor: "".into() };
        proto::Event { cursor: "c".into(), event: Some(Kind::LogChunk(chunk)) }
    }

    fn shown(show: &mut Show, events: &[proto::Event]) -> (Vec<u8>, String) {
        let (out, err) = (Paper::default(), Paper::default());
        let mut screen = Screen::of(Format::Text, out.clone(), err.clone());
        for event in events {
            show.show(event, &mut screen).unwrap();
        }
        (out.bytes(), err.text())
    }

    #[test]
    fn lines_are_shown_as_the_bytes_that_they_are() {
        let mut show = Show::new(Prefix::WhenMixed, Times::Hidden, Talk::All);
        let (out, err) = shown(&mut show, &[chunk("a", &[(b"\xff\x00", false, false), (b"", false, false)])]);
        assert_eq!(out, b"\xff\x00\n\n");
        assert_eq!(err, "");
    }

    #[test]
    fn the_pieces_of_a_long_line_are_one_line() {
        let mut show = Show::new(Prefix::Always, Times::Hidden, Talk::All);
        let events =
            [chunk("a", &[(b"one ", false, true)]), chunk("a", &[(b"line", true, false), (b"x", false, false)])];
        assert_eq!(shown(&mut show, &events).0, b"[a] one line\n[a] x\n");
    }

    #[test]
    fn a_line_of_another_container_does_not_join_a_piece() {
        let mut show = Show::new(Prefix::Always, Times::Hidden, Talk::All);
        let events = [
            chunk("a", &[(b"one ", false, true)]),
            chunk("b", &[(b"other", false, false)]),
            chunk("a", &[(b"line", true, false)]),
        ];
        assert_eq!(shown(&mut show, &events).0, b"[a] one \n[b] other\n[a] line\n");
    }

    #[test]
    fn containers_are_named_once_there_are_two() {
        let mut show = Show::new(Prefix::WhenMixed, Times::Shown, Talk::All);
        let events = [chunk("a", &[(b"1", false, false)]), chunk("b", &[(b"2", false, false)])];
        let time = "1970-01-01T00:00:00.000000001Z";
        let expected = format!("{time} 1\n[b] {time} 2\n");
        assert_eq!(shown(&mut show, &events).0, expected.as_bytes());
    }

    #[test]
    fn a_gap_is_never_hidden_among_the_lines() {
        let instance = Some(proto::ContainerInstance { container: "a".to_owned(), ..Default::default() });
        let gap =
            proto::LogGap { instance, lines_at_least: 7, message: "rotated away".to_owned(), ..Default::default() };
        let gap = proto::Event { cursor: "c".into(), event: Some(Kind::LogGap(gap)) };
        let mut show = Show::new(Prefix::Never, Times::Hidden, Talk::Lines);
        let (out, err) = shown(&mut show, &[chunk("a", &[(b"cut", false, true)]), gap]);
        assert_eq!(out, b"cut\n");
        assert_eq!(err, "podbroker: at least 7 lines of a are missing here: rotated away\n");
    }

    #[test]
    fn a_result_is_all_that_a_quiet_command_shows() {
        let result = proto::Result { content: b"{\"a\":1}\n".to_vec(), ..Default::default() };
        let result = proto::Event { cursor: "c".into(), event: Some(Kind::Result(result)) };
        let mut show = Show::new(Prefix::Never, Times::Hidden, Talk::None);
        let (out, err) = shown(&mut show, &[chunk("a", &[(b"line", false, false)]), result]);
        assert_eq!(out, b"{\"a\":1}\n");
        assert_eq!(err, "");
        let broken = proto::Result { content: b"[1".to_vec(), not_json: "it ends".to_owned(), ..Default::default() };
        let broken = proto::Event { cursor: "c".into(), event: Some(Kind::Result(broken)) };
        let (out, err) = shown(&mut show, &[broken]);
        assert_eq!((out.as_slice(), err.as_str()), (&b"[1\n"[..], "podbroker: the result is not JSON: it ends\n"));
    }
}
