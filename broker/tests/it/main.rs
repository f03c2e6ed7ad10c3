//! The broker as its callers see it: a real client and a real server in memory, or the program itself; behind them a backend
//! that does what the test says. No cluster is needed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(clippy::unnecessary_wraps, reason = "every message in a message is optional")]

mod auth;
mod batch;
mod boundaries;
mod config;
mod convert;
mod drain;
mod errors;
mod many;
mod program;
mod scripted;
mod submit;
mod watch;
mod world;
