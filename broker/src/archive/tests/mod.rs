//! The archive on a store in memory, with a backend that says what the test says: `reading` is what callers are told of it,
//! `writing` what becomes of it, `outage` what a store that breaks does to it, and `load` what a thousand executions cost.

mod faulty;
mod load;
mod outage;
mod play;
mod reading;
mod writing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use object_store::memory::InMemory;
use proptest::prelude::*;
use tokio::task::JoinHandle;

use self::faulty::{Fault, Faulty};
use self::play::*;
use super::index::{Claim, generations, json, text};
use super::keep::Case;
use super::mark::Mark;
use super::writer::Writer;
use super::*;
use crate::backend::{Backend, Cancel, Check, EventStream, Filter, Health, Origin, Presence, Submitted, View};
use crate::error::Error;
use crate::execution::{
    Attempt, Completeness, ContainerOutcome, ContainerRole, Cursor, Event, EventKind, ExecutionId, FinishAction,
    Follow, Gap, GapReason, Instance, InstancePosition, LogChunk, LogLine, LogMode, Notice, Outcome, Policies,
    Position, ResultSource, Severity, State, StreamKey, Submit, Tenant, WatchOptions,
};
