//! A client of podbroker.
//!
//! [`Client`] makes the calls and tries them again where the contract allows it. [`Watch`] follows one execution
//! and [`WatchMany`] many, through restarts of the broker, as one sequence of events. Every failure is an [`Error`] with
//! the reason that the broker gave. Messages are those of the contract, in [`proto`].
//!
//! ```no_run
//! # async fn example() -> Result<(), podbroker_client::Error> {
//! use podbroker_client::{Client, Settings, proto};
//!
//! let client = Client::new(Settings::new("http://127.0.0.1:50051"))?;
//! let name = "targets/default/executions/example".to_owned();
//! let mut watch = client.watch(proto::WatchExecutionRequest { name, ..Default::default() });
//! while let Some(event) = watch.next().await {
//!     println!("{:?}", event?);
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod connection;
mod encoded;
mod error;
mod position;
mod retry;
mod settings;
mod watch;
mod watch_many;

pub use client::{Checks, Client};
pub use error::{Code, Error, FieldViolation, REASON_CERTIFICATE, REASON_CLIENT_SETTINGS};
pub use podbroker_proto::v1 as proto;
pub use settings::{ClientCertificate, Secret, Settings, Token};
pub use watch::Watch;
pub use watch_many::{Followed, Follower, WatchMany};

/// The cursor after the `line`-th line of a chunk, 1 for the first. A caller that has dealt with only a part of a chunk
/// continues there.
pub fn cursor_after(chunk: &proto::LogChunk, line: u32) -> Vec<u8> {
    [chunk.line_cursor.as_ref(), &line.to_be_bytes()].concat()
}
