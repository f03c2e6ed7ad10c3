//! The process: takes the configuration apart, starts the parts, and ends them in order.
//!
//! It wires and decides nothing. Every task is on one tracker and ends with one of two tokens: `draining` when this replica is
//! going away (streams end, calls finish), `stop` when nothing is left to serve. A part that ends by itself ends the process with
//! the reason, since half a broker is worse than none. The first SIGTERM or SIGINT drains, a second one gives up at once.

mod admin;
mod archive;
mod grpc;
mod jobs;
mod listener;
mod signals;
mod targets;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::listener::Listener;
use self::signals::Signals;
use crate::api::{Api, RequestLimits, Settings};
use crate::auth::Authenticator;
use crate::backend::pod::{Spool, SpoolLimits};
use crate::config::{Config, Executions, Limits, Logs};
use crate::telemetry::{ArchiveCounters, Metrics};

pub use self::archive::ArchiveError;
pub use self::grpc::{Transport, TransportError, serve};
pub use self::listener::ListenerError;
pub use self::targets::{TargetError, held_pods, own_machine};
pub use self::tls::TlsError;

/// How long background tasks have to notice that they are to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How the process ended after it had started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it was asked to.
    Drained,
    /// A second signal cut it short.
    Aborted,
}

/// Why the process could not start, or ended by itself.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The listener cannot be had.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// A target cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The transport cannot be set up, or ended.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The admin endpoint cannot be had, or ended.
    #[error("the admin endpoint {at} failed")]
    Admin {
        /// Its address.
        at: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Signals cannot be listened for.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// A part ended although nobody asked it to.
    #[error("the {part} ended by itself")]
    EndedByItself {
        /// Which one.
        part: &'static str,
        /// The panic, if it was one.
        source: Option<JoinError>,
    },
}

/// Serves until a signal.
pub async fn run(config: Config) -> Result<Ended, ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let (draining, stop, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
    let transport = Transport::new(&config.limits, config.tls.as_ref())?;
    let listener = Listener::bind(&config.listen).await?;
    let admin = admin::bind(config.admin_listen).await?;
    let spool = spool(&config.logs, &tasks);
    let (counters, jobs) = (ArchiveCounters::default(), jobs::Counters::default());
    let connected = async {
        let archive = archive::open(&config, &counters, &tasks, &stop).await?;
        let targets = targets::connect(&config, &spool, archive.as_ref(), &jobs, &tasks, &stop).await?;
        Ok::<_, ServeError>((targets, archive))
    };
    let (targets, archive) = tokio::select! {
        connected = connected => connected?,
        name = signals.next() => {
            info!(signal = name, "stopped before it was ready");
            return Ok(Ended::Drained);
        }
    };
    let metrics = Metrics::new(&targets, spool).with_archive(&counters);
    let metrics = Arc::new(metrics.with_batch(&jobs.requests).with_jobs(Arc::clone(&jobs.jobs)));
    let authenticator = config.authenticator();
    let auth = describe(&authenticator);
    let api = Api::new(settings(&config), authenticator, targets, Arc::clone(&metrics), draining.clone());

    let address = listener.address();
    let socket_file = listener.socket_file();
    let mut serving = tasks.spawn(listener.serve(api, transport, draining.clone()));
    let mut admin = tasks.spawn(admin::serve(admin, metrics, archive, draining.clone(), stop.clone()));
    info!(
        version = env!("CARGO_PKG_VERSION"),
        instance = %config.instance,
        tls = config.tls.is_some(),
        auth,
        "podbroker is ready on {address}"
    );

    tokio::select! {
        name = signals.next() => info!(signal = name, "draining; a second signal ends at once"),
        ended = &mut serving => return Err(by_itself("gRPC server", ended)),
        ended = &mut admin => return Err(by_itself("admin endpoint", ended)),
    }
    draining.cancel();
    let ended = drain(serving, &config.limits, &mut signals).await;
    drop(socket_file);
    stop.cancel();
    tasks.close();
    if ended == Ended::Drained && tokio::time::timeout(STOP_LIMIT, tasks.wait()).await.is_err() {
        warn!(tasks = tasks.len(), "some tasks did not stop in time");
    }
    info!(ended = ?ended, "podbroker has ended");
    Ok(ended)
}

async fn drain(mut serving: JoinHandle<Result<(), TransportError>>, limits: &Limits, signals: &mut Signals) -> Ended {
    tokio::select! {
        done = tokio::time::timeout(limits.drain, &mut serving) => {
            if done.is_err() {
                warn!(limit = ?limits.drain, "some calls did not end in time and are cut");
                serving.abort();
            }
            Ended::Drained
        }
        name = signals.next() => {
            warn!(signal = name, "a second signal: open calls are cut");
            Ended::Aborted
        }
    }
}

fn settings(config: &Config) -> Settings {
    let Limits { max_request_bytes, max_manifest_bytes, max_calls, max_watches, .. } = config.limits;
    let limits = RequestLimits { max_request_bytes, max_manifest_bytes };
    let has_batch = config.targets.iter().any(|target| target.batch.is_some());
    let has_jobs = config.targets.iter().any(|target| target.executions == Executions::Jobs);
    let optional = [
        ("archive", config.archive.is_some()),
        ("batch", has_batch),
        ("batch-evaluate-on-exit", has_batch),
        ("job", has_jobs),
    ];
    let features = optional.into_iter().filter_map(|(name, is_on)| is_on.then_some(name)).collect();
    Settings { instance: config.instance.clone(), limits, max_calls, max_watches, features }
}

fn spool(logs: &Logs, tasks: &TaskTracker) -> Arc<Spool> {
    let Logs { memory_per_stream, memory, disk, folder } = logs.clone();
    Spool::new(SpoolLimits { memory_per_stream, memory, disk, folder }, tasks.clone())
}

fn describe(authenticator: &Authenticator) -> String {
    match authenticator {
        Authenticator::Open => "none: open to this machine".to_owned(),
        Authenticator::Tokens(tokens) => format!("bearer: {} tokens", tokens.len()),
    }
}

fn by_itself<E: Into<ServeError>>(part: &'static str, ended: Result<Result<(), E>, JoinError>) -> ServeError {
    match ended {
        Ok(Ok(())) => ServeError::EndedByItself { part, source: None },
        Ok(Err(error)) => error.into(),
        Err(panic) => ServeError::EndedByItself { part, source: Some(panic) },
    }
}
