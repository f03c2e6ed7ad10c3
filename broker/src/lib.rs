//! podbroker: runs pods in remote Kubernetes clusters for callers that hold no cluster credential.
//!
//! `ARCHITECTURE.md` has the picture. A request goes down this list and nothing calls back up:
//! `api` (contract, conversion) → `auth` (who asks) → `target` (where, and whether they may) → `backend` (submit, watch,
//! cancel) → `identity` (a client for the cluster). `execution` has the words that all of them use; `server` wires them.

pub mod api;
pub mod archive;
pub mod auth;
pub mod backend;
pub mod config;
pub mod error;
pub mod execution;
pub mod identity;
pub mod server;
pub mod target;
pub mod telemetry;
