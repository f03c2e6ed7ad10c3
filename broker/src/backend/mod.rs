//! The ways to run an execution. A backend belongs to one target and knows nothing of callers' rights: whoever asks was
//! checked before.
//!
//! What every backend promises is the contract: submit is exactly-once, a stream never lies, dropping a stream ends
//! nothing but the stream. To add a backend, implement the trait and give it a kind in the configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::Error;
use crate::execution::{Address, Event, Execution, ExecutionId, State, Submit, Tenant, WatchOptions};

pub mod batch;
mod census;
pub mod job;
pub mod log_group;
pub mod pod;

pub use census::{Census, Presence};

/// A stream of events; it ends after END, or without END when everything so far was asked for.
pub type EventStream = BoxStream<'static, Result<Event, Error>>;

/// What a submit led to.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// The execution; for a validation what would have been created, with `pod_json`.
    pub execution: Execution,
    /// Proves that this submit owns it.
    pub claim: String,
    /// Whether this call created it.
    pub origin: Origin,
}

/// Whether a submit created its execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It did.
    Created,
    /// It was there.
    Found,
}

/// How much of an execution is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// What the broker knows.
    Basic,
    /// With the whole object, which costs a request.
    Full,
}

/// Which executions are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// All of these labels.
    pub labels: BTreeMap<String, String>,
    /// One of these states; empty for any.
    pub states: Vec<State>,
    /// Only ids after this one.
    pub after: Option<ExecutionId>,
    /// At most so many.
    pub limit: usize,
}

/// A request for the end of an execution.
#[derive(Debug, Clone)]
pub struct Cancel {
    /// Who asks.
    pub subject: String,
    /// Why.
    pub reason: String,
    /// The claim, if the caller has one.
    pub claim: Option<String>,
    /// Time for the containers after SIGTERM.
    pub grace: Option<Duration>,
}

/// Whether a target can be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The first list has not been read.
    Starting,
    /// In step with the cluster.
    Serving,
    /// The cluster does not answer.
    Unreachable(String),
    /// The cluster refuses the broker; time does not mend that.
    Refused(String),
}

/// One link of the chain from the broker to a running pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Stable and kebab-case.
    pub link: &'static str,
    /// `verb resource` for a permission, else empty.
    pub subject: String,
    /// How it went.
    pub verdict: Verdict,
    /// Who we are there, or what was found.
    pub detail: String,
}

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not; this is what to do.
    Failed {
        /// What to do.
        fix: String,
    },
    /// It does not, and pods run all the same.
    Warned {
        /// What to do.
        fix: String,
    },
    /// A link before it is broken.
    Skipped,
}

/// The verbs. Executions of another tenant do not exist for any of them.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Starts an execution, exactly once.
    async fn submit(&self, tenant: &Tenant, request: Submit) -> Result<Submitted, Error>;

    /// Reads one.
    async fn get(&self, tenant: &Tenant, id: &ExecutionId, view: View) -> Result<Execution, Error>;

    /// Lists some, in the order of their ids.
    async fn list(&self, tenant: &Tenant, filter: &Filter) -> Result<Vec<Execution>, Error>;

    /// Follows one, from a cursor as the watcher sent it (empty for the beginning).
    async fn watch(
        &self,
        tenant: &Tenant,
        id: &ExecutionId,
        cursor: &[u8],
        options: WatchOptions,
    ) -> Result<EventStream, Error>;

    /// The same as `watch` for who keeps a copy of everything and is no caller: nothing is kept for its reading, and what nobody else
    /// follows counts as left alone.
    async fn copy(
        &self,
        tenant: &Tenant,
        id: &ExecutionId,
        cursor: &[u8],
        options: WatchOptions,
    ) -> Result<EventStream, Error>;

    /// Asks for its end.
    async fn cancel(&self, tenant: &Tenant, id: &ExecutionId, request: Cancel) -> Result<Execution, Error>;

    /// The caller has all it wants.
    async fn release(&self, tenant: &Tenant, id: &ExecutionId, claim: Option<&str>) -> Result<Execution, Error>;

    /// Which executions of all tenants it has: all first, then what changes. Ends with the backend.
    fn census(&self) -> BoxStream<'static, Presence>;

    /// Whether it can be used now; asks nobody.
    fn health(&self) -> Health;

    /// Walks the chain from the broker to a running pod.
    fn check(&self) -> BoxStream<'static, Check>;
}

/// Says when an execution that has ended may be deleted: what is to outlive it must be written elsewhere first.
pub trait Keeper: Send + Sync + 'static {
    /// Asked about an execution whose deletion is due, again and again while the answer is no. It asks nobody, so a yes may
    /// come late and never too early; it comes some time after the first question at the latest.
    fn may_go(&self, address: &Address) -> Parting;
}

/// Whether an execution may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// It may.
    Go,
    /// Not yet; ask again.
    Stay,
}
