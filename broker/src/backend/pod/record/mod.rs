//! Attempts that are jobs: what a target that runs them has beyond one that runs pods.
//!
//! A *record*, a `ConfigMap`, stands where the pod of a pod target would: same name, labels, annotations and finalizer. So whatever
//! is decided by those, from the 409 that arbitrates between two replicas to the release, is decided as it is for pods. What a
//! pod's spec and status would say comes from two other places: the job, as `Jobs` describes it, and the pods that are made for
//! it, the *parts*, which the hub watches by our labels.
//!
//! `ledger` brings the three together, `merge` makes views of them, `status` says what they mean and `verdict` how an attempt
//! ended, which is written into the record once. `runs` says whose lines there are to read, and whose are lost. `next` decides what is due for a record, and `runner` does it: `submitting` for
//! a job that is to be made, `settling` for one of which nobody knows whether it was.

mod ledger;
mod merge;
mod named;
mod next;
mod part;
#[cfg(test)]
#[path = "tests/mod.rs"]
mod play;
mod runner;
mod runs;
mod settling;
mod status;
mod submitting;
mod verdict;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub(super) use self::ledger::Ledger;
pub(super) use self::next::Step;
pub(super) use self::part::{Part, job_id, of_cluster, real_name};
pub(super) use self::runner::Runner;
pub(super) use self::runs::{Log, Run, UNKNOWN, runs};
pub(super) use self::status::{Queue, queue, status};
pub(super) use self::verdict::is_untold;
use super::PodSettings;
use super::names::{DOUBT, JOB, OUTCOME, SUBMITTING};
use super::view::View;
use crate::backend::job::{Job, JobCounters, JobState};
use crate::error::Error;
use crate::execution::{Outcome, Policies, ResultSource, Workload};

/// Whose the jobs of a target are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Of AWS Batch.
    Batch,
    /// Of the cluster itself (`batch/v1`).
    Cluster,
}

/// How a target runs jobs.
#[derive(Debug, Clone)]
pub struct RecordSettings {
    /// Whose they are.
    pub kind: JobKind,
    /// So long after a submit that was not answered its job is looked for. Longer than a submit may be under way, and than it
    /// takes until a list of jobs has it.
    pub settle: Duration,
    /// A job that waits in its queue for longer is ended; absent for never.
    pub queue_deadline: Option<Duration>,
    /// What is counted.
    pub counters: Arc<JobCounters>,
}

/// What a record has beyond other carriers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Who submits the job.
    pub(super) submitting: Submitting,
    /// The job.
    pub(super) made: Option<Made>,
    /// There may be others.
    pub(super) doubt: Option<Doubt>,
    /// How it ended.
    pub(super) written: Option<Written>,
    /// The job as it was described last.
    pub(super) job: Option<Arc<Job>>,
    /// When this replica heard that the job has ended.
    pub(super) ended: Option<Timestamp>,
    /// The job that a pod with the record's labels names, while none is noted here.
    pub(super) heard: Option<String>,
    /// The pods of this attempt.
    pub(super) parts: Vec<Arc<Part>>,
    /// Which of the job's own attempts this is.
    pub(super) turn: Turn,
    /// A pod of a later one was seen, so that no other of this one will be.
    pub(super) is_passed: bool,
}

/// Which of a job's own attempts a view is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The latest.
    Latest,
    /// One that the job has tried again after; its index from 0.
    Earlier(usize),
}

/// Who submits a job, in an annotation of its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Submitting {
    /// The replica.
    pub(super) by: String,
    /// When it took that on, by the API server's clock.
    pub(super) at: Timestamp,
    /// From 1; each that takes it on counts up.
    #[serde(rename = "try")]
    pub(super) number: u32,
}

/// The job of a record, in an annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) id: String,
    /// When that was known.
    pub(super) at: Timestamp,
}

/// A submit was not answered, in an annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Doubt {
    /// When the last one of which nobody knows was taken for that.
    pub(super) since: Timestamp,
    /// How often others than the known job were looked for since.
    pub(super) swept: u32,
    /// Those that were found, and ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) others: Vec<String>,
}

/// How an attempt ended, in an annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    #[serde(flatten)]
    pub(super) outcome: Outcome,
    pub(super) started: Option<Timestamp>,
    pub(super) ended: Option<Timestamp>,
    /// When it was written.
    pub(super) at: Timestamp,
    /// The pod of the latest of the job's own attempts.
    #[serde(default)]
    pub(super) pod: PodName,
    /// Those before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) earlier: Vec<Earlier>,
    /// Of an array: how many children it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) children: Option<u32>,
    /// Nobody knew the job any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_forgotten: bool,
}

/// One of a job's own attempts that was not the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Earlier {
    pub(super) outcome: Outcome,
    pub(super) pod: PodName,
}

/// A pod by its names; empty for arrays, and where there was none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct PodName {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) node: String,
}

impl Record {
    /// What the annotations of a carrier say; nothing if it is no record.
    pub(super) fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        fn read<T: for<'a> Deserialize<'a>>(text: Option<&String>) -> Option<T> {
            text.and_then(|text| serde_json::from_str(text).ok())
        }
        Some(Self {
            submitting: read(annotations.get(SUBMITTING))?,
            made: read(annotations.get(JOB)),
            doubt: read(annotations.get(DOUBT)),
            written: read(annotations.get(OUTCOME)),
            job: None,
            ended: None,
            heard: None,
            parts: Vec::new(),
            turn: Turn::Latest,
            is_passed: false,
        })
    }

    /// The id of its job; empty while none is known.
    pub(super) fn job_id(&self) -> &str {
        self.made.as_ref().map_or("", |made| made.id.as_str())
    }

    /// It is a Job of the cluster.
    pub(super) fn is_of_cluster(&self) -> bool {
        of_cluster(self.job_id()).is_some()
    }

    /// The name and the uid of the pod, as far as there is one pod and it is known.
    pub(super) fn pod(&self) -> (String, String) {
        if self.is_array() && !(self.is_of_cluster() && self.parts.len() == 1) {
            return (String::new(), String::new());
        }
        if let Some(part) = self.parts.last() {
            return (part.view.pod_name.clone(), part.view.uid.clone());
        }
        let pod = self.written.as_ref().and_then(|written| match self.turn {
            Turn::Latest => Some(&written.pod),
            Turn::Earlier(index) => written.earlier.get(index).map(|earlier| &earlier.pod),
        });
        pod.map(|pod| (pod.name.clone(), pod.uid.clone())).unwrap_or_default()
    }

    /// The name of the pod of an attempt that has one, seen here or told of by the job; empty if nobody knows it.
    pub(super) fn told_pod(&self) -> String {
        let (name, _) = self.pod();
        let attempts = self.job.as_ref().map_or(&[][..], |job| &job.attempts);
        let told = match self.turn {
            Turn::Latest => attempts.last(),
            Turn::Earlier(index) => attempts.get(index),
        };
        let told = told.filter(|_| name.is_empty() && !self.is_array());
        told.map_or(name, |told| told.pod_name.clone())
    }

    /// When the job ended, if that is known.
    pub(super) fn ended_at(&self) -> Option<Timestamp> {
        let written = self.written.as_ref().and_then(|written| written.ended);
        written.or_else(|| self.job.as_ref().and_then(|job| job.stopped))
    }

    /// The pod with that uid.
    pub(super) fn part(&self, uid: &str) -> Option<Arc<View>> {
        self.parts.iter().find(|part| part.view.uid == uid).map(|part| Arc::clone(&part.view))
    }

    /// The job is over by its own word. One that nobody knows any more is not while a pod of it lives.
    pub(super) fn has_ended(&self) -> bool {
        let Some(job) = &self.job else { return false };
        let lives = || self.parts.iter().any(|part| !part.has_said_all());
        matches!(job.state, JobState::Succeeded | JobState::Failed) && !(job.is_forgotten() && lives())
    }

    /// The job has children, which have pods each.
    pub(super) fn is_array(&self) -> bool {
        self.size().is_some() || self.parts.iter().any(|part| part.slot.is_some())
    }

    /// How many children the job has, if it is known to have any. How many pods a Job of the cluster makes nobody knows before.
    pub(super) fn size(&self) -> Option<u32> {
        if self.is_of_cluster() {
            return None;
        }
        let children = self.job.as_ref().and_then(|job| job.children.as_ref());
        let told = children.map(|children| children.iter().map(|(_, count)| count).sum());
        told.or_else(|| self.written.as_ref()?.children)
    }

    /// A container may have run of which no more is known than that.
    pub(super) fn may_have_run(&self) -> bool {
        self.written.as_ref().is_some_and(|written| written.is_forgotten || written.started.is_some())
    }
}

/// The record of a workload but for what the broker writes into its metadata, and the name that was asked for.
pub(super) fn object(
    settings: &PodSettings,
    workload: &Workload,
    policies: &Policies,
) -> Result<(Map<String, Value>, Option<String>), Error> {
    if policies.result == ResultSource::Sidecar {
        let why = "a job cannot have the container that hands the result back; use TERMINATION_MESSAGE, or let the program \
                   print what is to be read";
        return Err(Error::invalid_request("policies.result.source", why));
    }
    let wished_name = match workload {
        Workload::Batch(work) => {
            if work.attempts.is_some_and(|attempts| attempts > 1) && policies.infra_retry.is_some() {
                let why =
                    "cannot be combined with retry attempts of the job itself: one of the two makes further attempts";
                return Err(Error::invalid_spec("policies.infra_retry", why));
            }
            None
        }
        Workload::Job(manifest) => {
            let limit = manifest.get("spec").and_then(|spec| spec.get("backoffLimit"));
            if policies.infra_retry.is_some() && limit.and_then(Value::as_u64) != Some(0) {
                let why = "needs a Job with spec.backoffLimit 0: one of the two makes further attempts";
                return Err(Error::invalid_spec("policies.infra_retry", why));
            }
            wished(manifest)
        }
        Workload::Pod(manifest) => wished(manifest),
    };
    let Value::Object(record) = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "namespace": settings.namespace },
    }) else {
        return Err(Error::bug("a record is an object"));
    };
    Ok((record, wished_name))
}

/// The name that a manifest asks for.
fn wished(manifest: &Map<String, Value>) -> Option<String> {
    let metadata = manifest.get("metadata");
    let wish = |field: &str| metadata?.get(field)?.as_str().map(|name| name.chars().take(253).collect());
    wish("name").or_else(|| wish("generateName"))
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;
