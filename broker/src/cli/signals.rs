//! What the terminal and the operating system ask of a command that runs for long.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// A wish from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Ctrl-C, or SIGINT.
    Interrupt,
    /// SIGTERM or SIGHUP.
    Terminate,
}

impl Wish {
    /// The exit code of a shell for a program that the signal ended.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on these signals do not end the process by themselves.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next wish. Loses none when it is dropped.
    pub(crate) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Interrupt,
            _ = self.terminate.recv() => Wish::Terminate,
            _ = self.hang_up.recv() => Wish::Terminate,
        }
    }
}

/// The next line that is typed. `None` at the end of the input.
///
/// The thread behind it ends with the line or with the process: a read from a terminal cannot be called off, and one of
/// Tokio's own threads would hold up the end of the process.
pub(crate) async fn typed_line() -> Option<String> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        if io::stdin().read_line(&mut line).is_ok_and(|length| length > 0) {
            // Nobody waits any more when a signal was quicker.
            let _ = sender.send(line);
        }
    });
    receiver.await.ok()
}
