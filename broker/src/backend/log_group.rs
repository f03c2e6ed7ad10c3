//! The words between the engine, which follows logs in the cluster, and a place where a shipper such as Fluent Bit has put copies of
//! their lines. The engine asks it only for what the cluster has no longer. Such a place knows no end of a log: what has not
//! arrived yet and what will never arrive look the same.

use async_trait::async_trait;
use thiserror::Error;

/// A container by what the name of its stream is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShippedContainer {
    /// The pod's name.
    pub pod: String,
    /// The node's name; empty if nobody knows.
    pub node: String,
    /// The container's name in its pod.
    pub container: String,
}

/// What a shipper has put there for one line, or for a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShippedEvent {
    /// Milliseconds since 1970, as the shipper says.
    pub millis: i64,
    /// A record of the shipper as JSON, or the line itself.
    pub message: String,
}

/// Some of a stream, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShippedPage {
    /// The events; a page may have none although others follow.
    pub events: Vec<ShippedEvent>,
    /// Where to go on.
    pub next: Option<String>,
    /// There is nothing behind it now.
    pub is_last: bool,
}

/// Why nothing could be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogGroupError {
    /// It would be the same again; with what to do.
    #[error("{0}")]
    Refused(String),
    /// It may be answered later.
    #[error("{0}")]
    Away(String),
}

/// Gives lines that were shipped.
#[async_trait]
pub trait LogGroup: Send + Sync + 'static {
    /// What it is called.
    fn name(&self) -> &str;

    /// The streams that are of the container; none while nothing has arrived.
    async fn find(&self, of: &ShippedContainer) -> Result<Vec<String>, LogGroupError>;

    /// What a stream has from that moment on, in milliseconds since 1970, or after the page before.
    async fn page(&self, stream: &str, from: Option<i64>, next: Option<&str>) -> Result<ShippedPage, LogGroupError>;
}
