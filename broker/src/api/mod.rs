//! The contract on the wire: authentication, conversion both ways, streams, status codes.
//!
//! A handler is a list of steps: who asks, what do they want, at which target, let its backend do it, say it in the words of
//! the contract. Everything a request can get wrong is found in `convert`; every error gets its code in `status`. Nothing
//! here knows how an execution is run or where the settings come from.

mod call;
mod check;
mod convert;
mod service;
mod status;
mod stream;
mod watch_many;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Authenticator;
use crate::error::Error;
use crate::execution::InstanceId;
use crate::target::Registry;
use crate::telemetry::{Metrics, WatchGuard};

pub use convert::RequestLimits;

/// What the broker's contract needs to be answered; one for the process.
#[derive(Debug, Clone)]
pub struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    authenticator: Authenticator,
    targets: Registry,
    metrics: Arc<Metrics>,
    /// Cancelled when this replica is going away.
    draining: CancellationToken,
    calls: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    /// One token for each call that has not ended.
    open: TaskTracker,
}

/// What of the configuration the contract is about.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The installation's id.
    pub instance: InstanceId,
    /// What a request may be.
    pub limits: RequestLimits,
    /// How many calls that are not watches may run at once.
    pub max_calls: usize,
    /// How many executions may be followed at once.
    pub max_watches: usize,
    /// The optional parts of the contract that are switched on.
    pub features: Vec<&'static str>,
}

/// The optional parts of the contract that this version has.
const FEATURES: [&str; 3] = ["infra-retry", "group", "orphan"];

/// The right to follow one execution.
#[derive(Debug)]
struct WatchPermit {
    _permit: OwnedSemaphorePermit,
    _guard: WatchGuard,
}

impl Api {
    /// Puts the parts together.
    pub fn new(
        settings: Settings,
        authenticator: Authenticator,
        targets: Registry,
        metrics: Arc<Metrics>,
        draining: CancellationToken,
    ) -> Self {
        let calls = Arc::new(Semaphore::new(settings.max_calls));
        let watches = Arc::new(Semaphore::new(settings.max_watches));
        let open = TaskTracker::new();
        Self(Arc::new(Inner { settings, authenticator, targets, metrics, draining, calls, watches, open }))
    }

    /// Waits until no call is open. New ones are not waited for, so ask when this replica drains.
    pub async fn idle(&self) {
        self.0.open.close();
        self.0.open.wait().await;
    }
}

impl Inner {
    fn call_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.calls).try_acquire_owned().map_err(|_| overloaded())
    }

    fn watch_permit(&self) -> Result<WatchPermit, Error> {
        let permit = Arc::clone(&self.watches).try_acquire_owned().map_err(|_| overloaded())?;
        Ok(WatchPermit { _permit: permit, _guard: self.metrics.watch_opened() })
    }
}

fn overloaded() -> Error {
    // Long enough for other calls to end, short enough for a person to wait.
    Error::Overloaded { retry_after: std::time::Duration::from_secs(2) }
}
