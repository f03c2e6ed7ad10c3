//! The words of the broker: what to run, where it stands, how it ended, what a watcher is told.
//!
//! Everything here is a plain value. Nothing does I/O, knows a clock, Kubernetes, AWS, gRPC or the wire format, so that the
//! rules can be tested with nothing. A value that exists is valid: it is parsed once, at the edge.

mod cursor;
mod digest;
mod event;
mod group;
mod id;
mod retry;
mod spec;
mod state;

pub use cursor::{Cursor, CursorError, InstancePosition, Position, StreamKey};
pub use digest::{json_digest, sha256_hex, spec_digest};
pub use event::{
    Completeness, Event, EventKind, Follow, Gap, GapReason, LogChunk, LogLine, LogMode, NoResult, Notice, Severity,
    WatchOptions,
};
pub use group::{Group, GroupAction};
pub use id::{Address, ExecutionId, ExecutionName, GroupAddress, GroupId, IdError, InstanceId, TargetName, Tenant};
pub use retry::{Effect, InfraRetry, InfraRetryRequest, RefusedAttempt};
pub use spec::{
    BatchWork, EvaluateOnExit, FinishAction, LONGEST_ORPHAN, Policies, PolicyDefaults, PolicyError, PolicyRequest,
    RESULT_PATH, ResultSource, Submit, SubmitMode, Workload,
};
pub use state::{
    Attempt, CancelIntent, ContainerOutcome, ContainerRole, Execution, FailureClass, Instance, Outcome, State,
};
