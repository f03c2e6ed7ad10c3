//! Does what is due for records. Every replica does it from its own watch, as the reconciler does for all carriers: what only one
//! may do is a patch that names the version it was decided on.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span, info, warn};

use super::super::api::{ApiError, PodApi};
use super::super::attempts::Attempts;
use super::super::carrier::Carrier;
use super::super::clock::add;
use super::super::hub::Hub;
use super::super::names::{
    ATTEMPT_LABEL, CANCEL, EXECUTION_LABEL, INSTANCE_LABEL, OUTCOME, SUBMITTING, TARGET_LABEL, TENANT_LABEL,
};
use super::super::view::View;
use super::super::{PodSettings, describe, refusal, status};
use super::next::next;
use super::verdict::{intended, judge};
use super::{Record, RecordSettings, Step, Submitting, Turn, Written};
use crate::backend::Check;
use crate::backend::job::{Jobs, Work};
use crate::error::Error;
use crate::execution::{CancelIntent, FailureClass, Policies, Workload};

/// The end of a job is asked for again after this, until it has ended.
const END_AGAIN: SignedDuration = SignedDuration::from_secs(15);

/// What could not be done is left alone for so long.
const PAUSE: Duration = Duration::from_secs(5);

/// What must be done is tried again ever more slowly, but no more slowly than this.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// A record's uid before it has one: a plan is about the shape only.
const NO_UID: &str = "00000000-0000-0000-0000-000000000000";

/// What a replica does for the records of a target.
pub(in crate::backend::pod) struct Runner {
    pub(super) settings: Arc<PodSettings>,
    pub(super) records: RecordSettings,
    pub(super) api: PodApi,
    pub(super) hub: Arc<Hub>,
    pub(super) jobs: Arc<dyn Jobs>,
    pub(super) replica: String,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Records, by uid, whose job is being submitted or looked for here.
    in_hand: Mutex<HashSet<String>>,
    /// Those whose job this process has begun to submit. What became of that is not asked for by beginning again.
    pub(super) begun: Mutex<HashSet<String>>,
    /// When the end of a record's job was asked for last, by uid. It may be forgotten.
    asked: Mutex<HashMap<String, Timestamp>>,
}

/// A record in hand, until it is dropped.
pub(super) struct InHand {
    runner: Arc<Runner>,
    uid: String,
    hash: String,
}

impl Drop for InHand {
    fn drop(&mut self) {
        lock(&self.runner.in_hand).remove(&self.uid);
        self.runner.hub.touch(&self.hash);
    }
}

pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds the lock.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner {
    pub(in crate::backend::pod) fn new(
        (api, hub): (PodApi, Arc<Hub>),
        jobs: Arc<dyn Jobs>,
        replica: String,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Option<Arc<Self>> {
        let settings = Arc::clone(hub.settings());
        let records = settings.records.clone()?;
        let (in_hand, begun, asked) = (Mutex::default(), Mutex::default(), Mutex::default());
        Some(Arc::new(Self { settings, records, api, hub, jobs, replica, tasks, stop, in_hand, begun, asked }))
    }

    /// Checks that a record's job can be asked for, and notes who is about to. Returns what would be sent.
    pub(in crate::backend::pod) fn prepare(
        &self,
        record: &mut Value,
        workload: &Workload,
        policies: &Policies,
    ) -> Result<Vec<u8>, Error> {
        let submitting = Submitting { by: self.replica.clone(), at: self.api.clock().now(), number: 1 };
        record["metadata"]["annotations"][SUBMITTING] = json!(text(&submitting)?);
        let (name, key, labels) = ask_for(record);
        self.jobs.plan(&Work { name: &name, key: &key, workload, policies, labels: &labels })
    }

    /// Asks whether the job that a record is for would be taken.
    pub(in crate::backend::pod) async fn validate(
        &self,
        record: &Value,
        workload: &Workload,
        policies: &Policies,
    ) -> Result<(), Error> {
        let (name, key, labels) = ask_for(record);
        self.jobs.validate(&Work { name: &name, key: &key, workload, policies, labels: &labels }).await
    }

    /// Takes a record in hand, unless it is already.
    pub(super) fn take_in_hand(self: &Arc<Self>, view: &View) -> Option<InHand> {
        let is_free = lock(&self.in_hand).insert(view.uid.clone());
        is_free.then(|| InHand { runner: Arc::clone(self), uid: view.uid.clone(), hash: self.hash(view) })
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let work = async move { stop.run_until_cancelled(work).await };
        self.tasks.spawn(work.instrument(Span::current()));
    }

    /// What is due for the records of an execution: from when on, which attempt, and what.
    pub(in crate::backend::pod) fn due(&self, attempts: &Attempts) -> Option<(Timestamp, u32, Step)> {
        let due = attempts.iter().filter_map(|view| {
            let record = view.record().filter(|_| !lock(&self.in_hand).contains(&view.uid))?;
            let (at, step) = next(view, record, &self.records)?;
            let again = lock(&self.asked).get(&view.uid).map(|asked| add(*asked, END_AGAIN));
            let at = if step == Step::End { at.max(again.unwrap_or(Timestamp::MIN)) } else { at };
            Some((at, view.attempt, step))
        });
        due.min_by_key(|(at, ..)| *at)
    }

    /// Does it, beside everything else: AWS may be slow, and one record must not keep the others. What fails is due again.
    pub(in crate::backend::pod) fn act_soon(self: &Arc<Self>, attempts: &Attempts, number: u32, step: Step) {
        let Some(hand) = attempts.number(number).and_then(|view| self.take_in_hand(view)) else { return };
        let (runner, attempts) = (Arc::clone(self), attempts.clone());
        self.spawn(async move {
            if let Err(error) = runner.act(&attempts, number, step).await {
                tell(&attempts, step, &error);
                tokio::time::sleep(PAUSE).await;
            }
            drop(hand);
        });
    }

    async fn act(&self, attempts: &Attempts, number: u32, step: Step) -> Result<(), Error> {
        let Some(view) = attempts.number(number) else { return Ok(()) };
        let Some(record) = view.record() else { return Ok(()) };
        let renounced = |class, reason: String| CancelIntent {
            by: "podbroker".to_owned(),
            reason,
            class,
            at: self.api.clock().now(),
        };
        match step {
            Step::Adopt => self.adopt_heard(view, record).await,
            Step::Settle => self.settle(view).await,
            Step::Sweep => self.sweep(view, record).await,
            Step::End => self.ask_for_the_end(view).await,
            Step::Renounce => {
                info!(execution = %view.id, "ending a job whose record somebody has deleted");
                let why = "somebody deleted the record of the job".to_owned();
                self.intend(view, renounced(FailureClass::PodDeleted, why)).await
            }
            Step::EndQueued => {
                info!(execution = %view.id, "ending a job that has waited in its queue for too long");
                let why = status::status(view).reason;
                self.intend(view, renounced(FailureClass::StartDeadline, why)).await
            }
            Step::Conclude => self.conclude(attempts, view).await,
        }
    }

    /// Writes down that a job is to end, and asks for it.
    async fn intend(&self, view: &View, intent: CancelIntent) -> Result<(), Error> {
        let Some(attempts) = self.write(view, &[(CANCEL, text(&intent)?)]).await? else { return Ok(()) };
        match attempts.number(view.attempt) {
            Some(view) => self.ask_for_the_end(view).await,
            None => Ok(()),
        }
    }

    /// Asks for the end of a record's job soon, for the intent that is written in it. What fails is repeated by the reconciler.
    pub(in crate::backend::pod) fn end_soon(self: &Arc<Self>, attempts: &Attempts) {
        let (runner, view) = (Arc::clone(self), Arc::clone(attempts.latest()));
        self.spawn(async move {
            if let Err(error) = runner.ask_for_the_end(&view).await {
                warn!(execution = %view.id, error = &error as &dyn std::error::Error, "a job's end could not be asked for yet");
            }
        });
    }

    async fn ask_for_the_end(&self, view: &View) -> Result<(), Error> {
        let id = view.record().map(Record::job_id).filter(|id| !id.is_empty());
        let (Some(id), Some(intent)) = (id, &view.cancel) else { return Ok(()) };
        let now = self.api.clock().now();
        {
            // Who cancels asks at once, and so does the reconciler, which sees that.
            let mut asked = lock(&self.asked);
            if asked.get(&view.uid).is_some_and(|asked| now < add(*asked, END_AGAIN)) {
                return Ok(());
            }
            asked.insert(view.uid.clone(), now);
        }
        self.jobs.end(id, &intended(intent)).await?;
        self.jobs.hasten(id);
        Ok(())
    }

    /// Ends the jobs of records that went.
    pub(in crate::backend::pod) fn end_abandoned(self: &Arc<Self>) {
        for id in self.hub.take_abandoned() {
            let runner = Arc::clone(self);
            self.spawn(async move {
                warn!(job = id, "the record of a job was deleted; ending the job");
                // Nothing in the cluster tells of this job any more, so nobody else would do it.
                let mut pause = PAUSE;
                while let Err(error) = runner.jobs.end(&id, "podbroker: the record of this job was deleted").await {
                    warn!(job = id, error = &error as &dyn std::error::Error, "a job without a record runs on");
                    tokio::time::sleep(pause.mul_f64(rand::random_range(1.0..1.5))).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
            });
        }
    }

    async fn conclude(&self, attempts: &Attempts, view: &View) -> Result<(), Error> {
        let views: Vec<&View> = attempts.iter().map(|view| &**view).filter(|other| other.uid == view.uid).collect();
        match judge(&views, self.api.clock().now()) {
            Some(written) => self.write_outcome(view, &written).await.map(drop),
            None => Ok(()),
        }
    }

    /// Writes how an attempt ended; only the first who does so counts.
    pub(super) async fn write_outcome(&self, view: &View, written: &Written) -> Result<Option<Arc<Attempts>>, Error> {
        lock(&self.asked).remove(&view.uid);
        let attempts = self.write(view, &[(OUTCOME, text(written)?)]).await?;
        if attempts.is_some() {
            info!(execution = %view.id, attempt = view.attempt, state = ?written.outcome.state, "a job has ended");
        }
        Ok(attempts)
    }

    /// Writes annotations into a record that nobody has changed since. `None` if somebody has, or it is gone; what it is now is
    /// known then.
    pub(super) async fn write(
        &self,
        view: &View,
        annotations: &[(&str, String)],
    ) -> Result<Option<Arc<Attempts>>, Error> {
        let annotations: Value = annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let metadata = json!({ "annotations": annotations, "resourceVersion": view.version.to_string() });
        match self.api.patch(&view.pod_name, &view.uid, json!({ "metadata": metadata })).await {
            Ok(record) => self.hub.learn(&record).map(Some).map_err(Error::bug),
            Err(error) if matches!(error.code(), Some(404 | 409)) => {
                self.read(view).await?;
                Ok(None)
            }
            Err(error) => Err(self.error("change a record", error)),
        }
    }

    /// The record as the cluster has it; `None` if it is gone.
    pub(super) async fn read(&self, view: &View) -> Result<Option<Arc<View>>, Error> {
        Ok(self.fetch(view).await?.map(|(view, _)| view))
    }

    /// The same, with the whole object.
    pub(super) async fn fetch(&self, view: &View) -> Result<Option<(Arc<View>, Carrier)>, Error> {
        match self.api.get::<Carrier>(&view.pod_name).await {
            Ok(record) if record.metadata.uid.as_deref() == Some(view.uid.as_str()) => {
                let attempts = self.hub.learn(&record).map_err(Error::bug)?;
                Ok(latest_of(&attempts, &view.uid).map(|view| (view, record)))
            }
            Ok(_) => Ok(None),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(self.error("read a record", error)),
        }
    }

    /// The links from the broker to a running job behind those to the cluster.
    pub(in crate::backend::pod) fn check(&self) -> BoxStream<'static, Check> {
        self.jobs.check()
    }

    pub(super) fn hash(&self, view: &View) -> String {
        describe::address(&self.settings, view).hash()
    }

    pub(super) fn error(&self, operation: &'static str, error: ApiError) -> Error {
        refusal::error(&self.settings.target, operation, error)
    }
}

fn tell(attempts: &Attempts, step: Step, error: &Error) {
    let execution = &attempts.oldest().id;
    warn!(%execution, ?step, error = error as &dyn std::error::Error, "what is due for a job could not be done");
}

/// The view that speaks for a record.
pub(super) fn latest_of(attempts: &Attempts, uid: &str) -> Option<Arc<View>> {
    let speaks = |view: &&Arc<View>| view.uid == uid && view.record().is_some_and(|record| record.turn == Turn::Latest);
    attempts.iter().find(speaks).cloned()
}

pub(super) fn text(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::bug(error.to_string()))
}

/// Jobs are told apart by this: the record's name, and its uid, since the name may be taken anew.
pub(super) fn key(name: &str, uid: &str) -> String {
    format!("{name}/{uid}")
}

/// The name, the key and the labels of the job that a record is for.
fn ask_for(record: &Value) -> (String, String, Vec<(String, String)>) {
    let metadata = &record["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    let label = |key: &str| Some((key.to_owned(), metadata["labels"][key].as_str()?.to_owned()));
    let key = key(&name, metadata["uid"].as_str().unwrap_or(NO_UID));
    (name, key, LABELS.iter().filter_map(|key| label(key)).collect())
}

/// What the pods of a job must have so that the watch finds them, and finds their record.
const LABELS: [&str; 5] = [INSTANCE_LABEL, TARGET_LABEL, TENANT_LABEL, EXECUTION_LABEL, ATTEMPT_LABEL];

impl Runner {
    /// The same labels, for the record of a view.
    pub(super) fn labels(&self, view: &View, number: u32) -> Vec<(String, String)> {
        let address = describe::address(&self.settings, view);
        let (hash, number) = (address.hash(), number.to_string());
        let values = [address.instance.as_str(), address.target.as_str(), address.tenant.as_str(), &hash, &number];
        LABELS.iter().zip(values).map(|(key, value)| ((*key).to_owned(), value.to_owned())).collect()
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
