//! What the process says about itself: log events and metrics.
//!
//! Logs go to standard error, one event per line, one span per request. The level is for our own events; libraries are heard
//! from WARN on, whatever is asked for, since some of them print what they send.

mod archive;
mod batch;
mod metrics;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

pub use archive::ArchiveCounters;
pub use batch::{BatchCounters, BatchEvent};
pub use metrics::{Metrics, Rpc, WatchGuard};

/// How log events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The least important events that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogLevel {
    /// Defects of the broker.
    Error,
    /// What somebody should look at.
    Warn,
    /// One event per call.
    #[default]
    Info,
    /// Why things are as they are.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Starts logging, panics included. Once per process.
pub fn start_logging(format: LogFormat, level: LogLevel) -> Result<(), TryInitError> {
    let level = LevelFilter::from(level);
    let filter = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("podbroker", level);
    let writer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        LogFormat::Text => writer.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => writer.json().with_current_span(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let said = panic.payload_as_str().unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(place, said, %backtrace, "a task panicked");
    }));
    Ok(())
}
