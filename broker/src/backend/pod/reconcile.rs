//! Does what is due: makes another attempt, ends what did not start in time, deletes pods that were released or forgotten.
//!
//! Every replica does this from its own watch; there is no leader. Each act is a request that only one of them can win and
//! that harms nothing when it comes twice. What is due, and when, is a pure function of an execution's attempts and the API
//! server's time. It is asked for again only for what has changed, so that the cost does not grow with what is known.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::PodBackend;
use super::attempts::Attempts;
use super::clock::add;
use super::following::Followed;
use super::member::Leave;
use super::names::FINALIZER;
use super::record::{Record, Step};
use super::schedule::Schedule;
use super::view::{Presence, View};
use super::{claim, describe, status};
use crate::backend::Parting;
use crate::error::Error;
use crate::execution::{CancelIntent, FailureClass, FinishAction, State};

/// Another watcher of a released execution has so long to read the rest.
const RELEASE_GRACE: SignedDuration = SignedDuration::from_secs(5);

/// Due work is looked for at least so often, also when nothing changed: the API server's clock may have moved.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// A replica waits up to this much longer, so that not all of them do the same at once.
const JITTER_MILLIS: i64 = 1000;

/// A pod that the archive does not have yet is asked about again after this.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(2);

/// The pause after a failure, doubled up to the maximum while failures of one execution follow each other.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_mins(2);

/// So many executions are dealt with at once, and so many before the clock is looked at again. Many may fall due together,
/// and a slow answer for one must not keep the others.
const AT_ONCE: usize = 16;
const IN_ONE_TURN: usize = 64;

/// What is to be done with an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    /// Its latest attempt did not start in time.
    EndForStart,
    /// Nobody follows it.
    EndAlone,
    /// It was stopped between two attempts while another replica made the next one.
    Stop(CancelIntent),
    /// Another attempt follows.
    Next(u32),
    /// It has its outcome, nobody needs it any more, and a container beside the deciding ones runs on.
    EndTheRest,
    /// Something about one of its jobs.
    Record(u32, Step),
    /// Nobody needs it any more.
    Delete,
    /// Others may delete it.
    LetGo,
}

/// What is to be done with an execution next, and from when on.
fn due(attempts: &Attempts, followed: Followed) -> Option<(Timestamp, Act)> {
    let (standing, latest) = (attempts.standing(), attempts.latest());
    if let Some(next) = standing.next {
        return next.due.map(|due| (due, Act::Next(next.number)));
    }
    let Some(outcome) = &standing.status.outcome else {
        return to_be_ended(attempts, standing.status.state, followed);
    };
    let ttl = SignedDuration::try_from(latest.policies.ttl).ok()?;
    if !status::is_over(latest) {
        let goes = match latest.policies.finish {
            FinishAction::Delete => true,
            FinishAction::DeleteSucceeded => outcome.state == State::Succeeded,
            FinishAction::Keep => false,
        };
        let is_due = goes && latest.decided.is_none();
        return is_due.then_some((add(standing.status.ended?, ttl), Act::EndTheRest));
    }
    let mut present = attempts.iter().filter(|view| view.presence == Presence::Present);
    let act = match latest.policies.finish {
        FinishAction::Delete => Act::Delete,
        FinishAction::DeleteSucceeded if outcome.state == State::Succeeded => Act::Delete,
        FinishAction::DeleteSucceeded | FinishAction::Keep if present.any(|view| view.has_finalizer) => Act::LetGo,
        FinishAction::DeleteSucceeded | FinishAction::Keep => return None,
    };
    let ended = standing.status.ended.or(latest.delete_requested).or(latest.created);
    let released = attempts.iter().find_map(|view| view.released);
    let wanted = match released {
        Some(released) => add(released, RELEASE_GRACE),
        None => add(ended?, ttl),
    };
    // Whoever reads the rest of it here reads it to its end, or to the drain deadline.
    let drained = match followed {
        Followed::Here => add(released.or(ended)?, SignedDuration::try_from(latest.policies.drain_deadline).ok()?),
        Followed::NotHere { .. } => Timestamp::MIN,
    };
    // A create of a later attempt that another replica has on its way meets its object too.
    let made = if latest.attempt == 1 { Timestamp::MIN } else { add(latest.created?, claim::CREATE_SKEW) };
    Some((wanted.max(drained).max(made).max(claim::kept_until(attempts.oldest())), act))
}

/// What has no outcome yet.
fn to_be_ended(attempts: &Attempts, state: State, followed: Followed) -> Option<(Timestamp, Act)> {
    let latest = attempts.latest();
    if latest.cancel.is_some() {
        return None;
    }
    if let Some(intent) = attempts.stop() {
        return Some((intent.at, Act::Stop(intent.clone())));
    }
    let start = if state == State::Pending { start_ends(latest).map(|at| (at, Act::EndForStart)) } else { None };
    let alone = match followed {
        Followed::NotHere { alone } => alone.map(|from| (from, Act::EndAlone)),
        Followed::Here => None,
    };
    start.into_iter().chain(alone).min_by_key(|(at, _)| *at)
}

/// When what has not started is ended for that.
fn start_ends(latest: &View) -> Option<Timestamp> {
    if latest.record().is_some_and(Record::has_ended) {
        return None;
    }
    if status::is_hopeless(latest) {
        return latest.created;
    }
    let deadline = latest.policies.start_deadline?;
    Some(add(latest.start_counts_from()?, SignedDuration::try_from(deadline).ok()?))
}

/// What a reconciler knows besides what the hub knows. All of it may be forgotten.
#[derive(Default)]
struct Memory {
    schedule: Schedule,
    /// Executions with which something could not be done: not before when, and after which pause.
    failed: HashMap<String, (Timestamp, Duration)>,
    /// The uids of pods that were let go. The answer to that request does not say that the pod is gone, and until the watch
    /// does, it would be sent again.
    let_go: HashMap<String, HashSet<String>>,
}

impl PodBackend {
    /// Does what is due until it is told to stop.
    pub(super) async fn reconcile(&self, stop: &CancellationToken) {
        let mut memory = Memory::default();
        loop {
            let turn = async {
                let next = if self.hub.is_in_step() { self.turn(&mut memory).await } else { LONGEST_SLEEP };
                tokio::select! {
                    () = tokio::time::sleep(next) => {}
                    () = self.hub.changed() => {}
                }
            };
            tokio::select! {
                () = turn => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Returns how long there is nothing more to do.
    async fn turn(&self, memory: &mut Memory) -> Duration {
        if let Some(runner) = &self.runner {
            runner.end_abandoned();
        }
        for hash in self.hub.take_changed() {
            self.plan(memory, &hash);
        }
        let now = self.api.clock().now();
        let mut acts = Vec::new();
        for hash in memory.schedule.take(now, IN_ONE_TURN) {
            let Some(attempts) = self.hub.get(&hash) else { continue };
            match self.due(memory, &hash, &attempts) {
                // Nothing that is not archived yet is deleted.
                Some((at, act)) if at <= now && self.may_go(&act, &attempts) == Parting::Stay => {
                    memory.schedule.set(&hash, add(now, ASK_AGAIN));
                }
                Some((at, act)) if at <= now => acts.push((hash, attempts, act)),
                Some((at, _)) => memory.schedule.set(&hash, at),
                None => {}
            }
        }
        let acts = acts.into_iter().map(async |(hash, attempts, act)| {
            let done = self.act(&attempts, &act).await;
            (hash, attempts, act, done)
        });
        let mut acts = std::pin::pin!(futures::stream::iter(acts).buffer_unordered(AT_ONCE));
        while let Some((hash, attempts, act, done)) = acts.next().await {
            match done {
                Ok(()) => {
                    memory.failed.remove(&hash);
                    if matches!(act, Act::Delete | Act::LetGo) {
                        let uids = attempts.iter().map(|view| view.uid.clone());
                        memory.let_go.entry(hash).or_default().extend(uids);
                    }
                }
                Err(error) => {
                    let execution = &attempts.latest().id;
                    warn!(%execution, error = &error as &dyn std::error::Error, "what is due could not be done");
                    let before = memory.failed.get(&hash).map(|(_, pause)| *pause);
                    // It stays due; a cluster that refuses is not asked in a hurry.
                    let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
                    let again = add(now, SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX));
                    memory.schedule.set(&hash, again);
                    memory.failed.insert(hash, (again, pause));
                }
            }
        }
        let wait = memory.schedule.next().map(|moment| moment.duration_since(self.api.clock().now()));
        // In the past, or now, if it does not fit.
        wait.map_or(LONGEST_SLEEP, |wait| Duration::try_from(wait).unwrap_or_default().min(LONGEST_SLEEP))
    }

    /// An execution has changed: something else may be due.
    fn plan(&self, memory: &mut Memory, hash: &str) {
        let Some(attempts) = self.hub.get(hash) else {
            memory.schedule.clear(hash);
            memory.failed.remove(hash);
            memory.let_go.remove(hash);
            self.hub.orphans.forget(hash);
            return;
        };
        let Some((at, act)) = self.due(memory, hash, &attempts) else { return memory.schedule.clear(hash) };
        // Where somebody waits for it, which job it is and how that ended is written down at once.
        let is_waited_for =
            matches!(act, Act::Record(_, Step::Adopt | Step::Conclude)) && self.hub.is_followed(hash) == Followed::Here;
        let jitter = if is_waited_for { 0 } else { rand::random_range(0..JITTER_MILLIS) };
        let jitter = SignedDuration::from_millis(jitter);
        let not_before = memory.failed.get(hash).map_or(Timestamp::MIN, |(moment, _)| *moment);
        memory.schedule.set(hash, add(at, jitter).max(not_before));
    }

    fn due(&self, memory: &Memory, hash: &str, attempts: &Attempts) -> Option<(Timestamp, Act)> {
        let of_record = self.runner.as_ref().and_then(|runner| runner.due(attempts));
        let of_record = of_record.map(|(at, number, step)| (at, Act::Record(number, step)));
        let (at, act) = match (due(attempts, self.hub.is_followed(hash)), of_record) {
            // What may have jobs that nobody knows of is kept until they were looked for.
            (Some((_, Act::Delete | Act::LetGo)), Some(of_record)) => of_record,
            (any, of_record) => any.into_iter().chain(of_record).min_by_key(|(at, _)| *at)?,
        };
        if matches!(act, Act::Delete | Act::LetGo) && self.hub.has_later(attempts.oldest()) {
            // When that one is gone, the hub says that this one has changed.
            return None;
        }
        let let_go = memory.let_go.get(hash);
        let is_done = |view: &View| let_go.is_some_and(|uids| uids.contains(&view.uid));
        let is_left = attempts.iter().any(|view| view.presence == Presence::Present && !is_done(view));
        is_left.then_some((at, act))
    }

    fn may_go(&self, act: &Act, attempts: &Attempts) -> Parting {
        match (act, &self.keeper) {
            (Act::Delete | Act::LetGo, Some(keeper)) => {
                keeper.may_go(&describe::address(&self.settings, attempts.oldest()))
            }
            _ => Parting::Go,
        }
    }

    async fn act(&self, attempts: &Attempts, act: &Act) -> Result<(), Error> {
        let latest = attempts.latest();
        match act {
            Act::EndForStart => {
                info!(execution = %latest.id, "the start deadline passed");
                let intent = CancelIntent {
                    by: "podbroker".to_owned(),
                    reason: status::status(latest).reason,
                    class: status::start_deadline_class(latest),
                    at: self.api.clock().now(),
                };
                self.end(latest, intent, None).await.map(drop)
            }
            Act::EndAlone => self.end_alone(attempts).await,
            Act::Stop(intent) => {
                info!(execution = %latest.id, "stopping an attempt that was made while its execution was stopped");
                let intent = CancelIntent { at: self.api.clock().now(), ..intent.clone() };
                self.end(latest, intent, None).await.map(drop)
            }
            Act::EndTheRest => {
                info!(execution = %latest.id, "ending what runs on after the outcome");
                self.end_the_rest(latest, serde_json::json!({})).await.map(drop)
            }
            Act::Next(number) => self.make_attempt(attempts, *number).await,
            Act::Record(number, step) => {
                if let Some(runner) = &self.runner {
                    runner.act_soon(attempts, *number, *step);
                }
                Ok(())
            }
            Act::Delete | Act::LetGo => {
                // The first attempt goes first: without it no other one is made, whatever is left of the rest. The latest one,
                // which has the outcome, goes last.
                for view in attempts.iter().filter(|view| view.presence == Presence::Present) {
                    if view.membership.is_some() && view.attempt == 1 {
                        self.vacate(view, if *act == Act::Delete { Leave::Delete } else { Leave::LetGo }).await?;
                        continue;
                    }
                    if *act == Act::Delete && view.delete_requested.is_none() {
                        info!(execution = %view.id, pod = view.pod_name, "deleting");
                        let deleted = self.api.delete(&view.pod_name, &view.uid, None).await;
                        self.unless_gone("delete a pod", deleted)?;
                    }
                    self.let_go(view).await?;
                }
                Ok(())
            }
        }
    }

    /// Ends what nobody follows, by the word of every replica.
    async fn end_alone(&self, attempts: &Attempts) -> Result<(), Error> {
        let hash = describe::address(&self.settings, attempts.oldest()).hash();
        let alone = self.is_left_alone(&hash).await;
        if !alone.map_err(|error| self.error("read who is followed", error))? {
            // What is known now says when it is due.
            self.hub.touch(&hash);
            return Ok(());
        }
        let latest = attempts.latest();
        let after = latest.policies.orphan_after.unwrap_or_default();
        info!(execution = %latest.id, "ending what nobody follows");
        let intent = CancelIntent {
            by: "podbroker".to_owned(),
            reason: format!("nobody followed it for {} s", after.as_secs()),
            class: FailureClass::Orphaned,
            at: self.api.clock().now(),
        };
        self.stop(attempts, intent, None).await.map(drop)
    }

    /// Takes the finalizer away.
    async fn let_go(&self, view: &View) -> Result<(), Error> {
        if !view.has_finalizer {
            return Ok(());
        }
        let removed = self.api.remove_finalizer(&view.pod_name, &view.uid, FINALIZER, None).await;
        self.unless_gone("take the finalizer off a pod", removed.map(drop))
    }

    /// Another replica was faster, or another object has the name now: both are what was wanted.
    fn unless_gone(&self, operation: &'static str, done: Result<(), super::api::ApiError>) -> Result<(), Error> {
        match done {
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
            done => done.map_err(|error| self.error(operation, error)),
        }
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
