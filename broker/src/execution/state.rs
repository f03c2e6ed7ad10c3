//! Where an execution stands and how it ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Address, Policies};

/// Where an execution or an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// The cluster does not try to place it yet.
    Queued,
    /// The object exists; no deciding container has started.
    Pending,
    /// A deciding container has started.
    Running,
    /// The outcome is known; lines, the result or other containers are still on their way.
    Ending,
    /// Every deciding container ended with exit code 0.
    Succeeded,
    /// It ended otherwise.
    Failed,
    /// It ended because the caller asked for it.
    Cancelled,
}

impl State {
    /// Nothing changes after this.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Why an execution did not succeed; the meaning of each stands in `execution.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "each is explained once, in the contract")]
pub enum FailureClass {
    Application,
    OutOfMemory,
    Deadline,
    StartDeadline,
    Evicted,
    Preempted,
    SpotInterrupted,
    NodeLost,
    ImagePull,
    Unschedulable,
    InvalidSpec,
    AdmissionDenied,
    Quota,
    PodDeleted,
    CancelledByCaller,
    Orphaned,
    Broker,
}

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ContainerRole {
    /// Runs before the others, to its end.
    Init,
    /// An init container that goes on running beside the others.
    Sidecar,
    /// Its end decides the outcome.
    Deciding,
    /// Any other container.
    Other,
}

/// How one container ended, or where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerOutcome {
    /// Its name.
    pub container: String,
    /// What it is for.
    pub role: ContainerRole,
    /// Unset while it has not ended.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The cluster's word for it.
    pub reason: String,
    /// The termination message, or why it waits.
    pub message: String,
    /// How often it was restarted.
    pub restarts: u32,
    /// When it started, in whole seconds.
    pub started: Option<Timestamp>,
    /// When it ended, in whole seconds.
    pub ended: Option<Timestamp>,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// A final state.
    pub state: State,
    /// Why it did not succeed; unset exactly when it did.
    pub class: Option<FailureClass>,
    /// The cluster's short word; may be empty.
    pub reason: String,
    /// One or two sentences for a person.
    pub message: String,
    /// Every container that the cluster reported.
    pub containers: Vec<ContainerOutcome>,
    /// The exit code that decided.
    pub exit_code: Option<i32>,
}

/// One pod or job made for an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// Where it stands.
    pub state: State,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// Empty while it has no node.
    pub node_name: String,
    /// The job's id; empty where attempts are pods, and while none was made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub job_id: String,
    /// The name of the cluster's Job; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub job_name: String,
}

/// The life of one container between two restarts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Instance {
    /// The attempt, 1 for the first.
    pub attempt: u32,
    /// The container's name.
    pub container: String,
    /// 0 before the first restart.
    pub restart: u32,
    /// What the container is for.
    pub role: ContainerRole,
}

/// Who asked for the end of an execution, and why. Written into the object, so that every replica reads the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelIntent {
    /// The subject, or `podbroker` for a policy.
    pub by: String,
    /// The reason given.
    pub reason: String,
    /// What the end is to be called.
    pub class: FailureClass,
    /// When, by the API server's clock.
    pub at: Timestamp,
}

/// One request to run something, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Which one it is.
    pub address: Address,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    pub state: State,
    /// Why it stands there; may be empty.
    pub state_reason: String,
    /// How it ended, from ENDING on.
    pub outcome: Option<Outcome>,
    /// Oldest first, never empty.
    pub attempts: Vec<Attempt>,
    /// With every default resolved.
    pub policies: Policies,
    /// When the object was created.
    pub created: Option<Timestamp>,
    /// When the first deciding container started.
    pub started: Option<Timestamp>,
    /// When the last deciding container ended.
    pub ended: Option<Timestamp>,
    /// The digest of the request.
    pub digest: String,
    /// Set when somebody asked for its end.
    pub cancel: Option<CancelIntent>,
    /// Set when it was released.
    pub released: Option<Timestamp>,
    /// The whole pod as JSON, when it was asked for. Never stored: it holds what the caller put into the environment.
    #[serde(skip)]
    pub pod_json: Option<Vec<u8>>,
    /// The whole Job of the cluster as JSON, likewise.
    #[serde(skip)]
    pub job_json: Option<Vec<u8>>,
}

impl Execution {
    /// As a watch shows it before its end to who has seen so many attempts ending: a final state is told last.
    #[must_use]
    pub fn before_the_end(mut self, attempts_ended: u32) -> Self {
        let ending = |state: &mut State| {
            if state.is_final() {
                *state = State::Ending;
            }
        };
        ending(&mut self.state);
        let open = self.attempts.iter_mut().filter(|attempt| attempt.number > attempts_ended);
        open.for_each(|attempt| ending(&mut attempt.state));
        self
    }
}
