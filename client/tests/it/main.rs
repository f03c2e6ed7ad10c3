//! The client against a scripted broker in memory: a real server of the contract, real HTTP/2, no network, paused time.

mod broker;
mod calls;
mod settings;
mod watch;
mod watch_many;
