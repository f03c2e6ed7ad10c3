//! The measuring clients of the benchmark; each command prints one line of JSON when it has ended.
//!
//! Those of a broker use the client crate as any program does. Those of the API server are plain HTTP/1.1 with keep-alive:
//! the yardstick that the broker is held against. They are compiled, so that on a small machine the measuring takes little
//! from what is measured. SIGTERM ends a command that has no end of its own; it then reports what it has.

mod cluster;
mod distribution;
mod lines;
mod many;
mod submits;

use std::error::Error;
use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

/// Whatever goes wrong ends the command; the benchmark shows the sentence.
type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reads the lines of executions through a broker
    Lines(lines::FromBroker),
    /// Reads lines from standard input, as `kubectl logs` prints them
    Piped(lines::Piped),
    /// Submits executions to a broker
    Submit(submits::Submit),
    /// Creates the same pods at the API server
    Create(submits::Create),
    /// Follows many executions over a few connections and notes when each one's end is told
    Follow(many::Follow),
    /// Watches pods at the API server and notes when each one's end is told
    Observe(cluster::Observe),
    /// Ends pods of nodes that nobody plays, at a fixed rate, by writing their status
    End(cluster::End),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Lines(command) => report(command.run()).await,
        Command::Piped(command) => report(command.run()).await,
        Command::Submit(command) => report(command.run()).await,
        Command::Create(command) => report(command.run()).await,
        Command::Follow(command) => report(command.run()).await,
        Command::Observe(command) => report(command.run()).await,
        Command::End(command) => report(command.run()).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "podbroker-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn report<T: Serialize>(command: impl Future<Output = Result<T, Failure>>) -> Result<(), Failure> {
    let report = serde_json::to_string(&command.await?)?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

/// Tells the benchmark that what shall be measured may begin.
fn say_ready() -> Result<(), Failure> {
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    output.flush()?;
    Ok(())
}

/// Resolves when somebody wants the command to end.
async fn told_to_end() -> Result<(), Failure> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

/// Nanoseconds since 1970, as the container runtime stamps lines.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
