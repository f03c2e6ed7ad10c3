//! The client against a scripted broker in memory: a real server of the contract, real HTTP/2, no network, paused time.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod broker;
mod calls;
mod connection;
mod settings;
mod watch;
mod watch_many;
