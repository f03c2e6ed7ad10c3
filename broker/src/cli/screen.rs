//! Where a command writes: answers to standard output, remarks to standard error.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::Format;

pub(crate) struct Screen {
    pub(crate) format: Format,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// Whether somebody may be asked.
    is_interactive: bool,
}

impl Screen {
    /// Standard output and standard error of this process.
    pub(crate) fn of_process(format: Format) -> Self {
        // A terminal shows each line at once; a pipe or a file is written in large pieces, and flushed between events.
        let is_interactive = io::stdin().is_terminal() && io::stderr().is_terminal();
        let out = Box::new(io::BufWriter::with_capacity(64 << 10, io::stdout()));
        Self { format, out, err: Box::new(io::stderr()), is_interactive }
    }

    #[cfg(test)]
    pub(crate) fn of(format: Format, out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        Self { format, out: Box::new(out), err: Box::new(err), is_interactive: false }
    }

    pub(crate) fn is_interactive(&self) -> bool {
        self.is_interactive
    }

    /// Bytes of an answer, unchanged.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// A line of an answer.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// An object of an answer, on one line.
    pub(crate) fn json(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value}")
    }

    /// Rows of words, in columns as wide as they need to be.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([head[column].chars().count()]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let head = head.iter().map(ToString::to_string).collect();
        for row in std::iter::once(&head).chain(rows) {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            self.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }

    /// What was written so far is seen now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// A remark for a person. Where nobody can see it, it is lost, and the command goes on.
    pub(crate) fn tell(&mut self, remark: &str) {
        let _ = self.out.flush();
        let _ = writeln!(self.err, "podbroker: {remark}");
    }

    /// Nobody answered: what is told next stands on a line of its own.
    pub(crate) fn drop_question(&mut self) {
        let _ = writeln!(self.err);
    }

    /// A question for a person, who answers on the same line.
    pub(crate) fn ask(&mut self, question: &str) {
        let _ = self.out.flush();
        let _ = write!(self.err, "\npodbroker: {question} ");
        let _ = self.err.flush();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written, for a test to look at.
    #[derive(Clone, Default)]
    pub(crate) struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.lock().unwrap().clone()
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.bytes()).unwrap()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let paper = Paper::default();
        let mut screen = Screen::of(Format::Text, paper.clone(), Paper::default());
        let rows = [vec!["a".to_owned(), "RUNNING".to_owned()], vec!["longer".to_owned(), String::new()]];
        screen.table(&["NAME", "STATE"], &rows).unwrap();
        assert_eq!(paper.text(), "NAME    STATE\na       RUNNING\nlonger\n");
    }
}
