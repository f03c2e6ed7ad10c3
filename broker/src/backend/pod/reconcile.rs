//! Does what is due: deletes pods that were released or forgotten, and ends those that did not start in time.
//!
//! Every replica does this from its own watch; there is no leader. Each act is a request that only one of them can win and
//! that harms nothing when it comes twice. What is due, and when, is a pure function of a view and the API server's time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::PodBackend;
use super::names::FINALIZER;
use super::status;
use super::view::{Presence, View};
use crate::error::Error;
use crate::execution::{CancelIntent, FinishAction, State};

/// Another watcher of a released execution has so long to read the rest.
const RELEASE_GRACE: SignedDuration = SignedDuration::from_secs(5);

/// A create that was sent just before `submit_before` may arrive this much later: the deadline of the request, and the
/// difference of two clocks. Nothing is deleted before, so that it meets its object.
const SUBMIT_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// Due work is looked for at least so often, also when nothing changed: the API server's clock may have moved.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// A replica waits up to this much longer, so that not all of them do the same at once.
const JITTER: Duration = Duration::from_secs(1);

/// What is to be done with a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// It did not start in time.
    EndForStart,
    /// Nobody needs it any more.
    Delete,
    /// Others may delete it.
    LetGo,
}

/// What is to be done with a pod next, and from when on.
fn due(view: &View) -> Option<(Timestamp, Act)> {
    if view.presence == Presence::Gone {
        return None;
    }
    let now = status::status(view);
    let add = |time: Timestamp, duration: SignedDuration| time.saturating_add(duration).unwrap_or(Timestamp::MAX);
    let Some(outcome) = &now.outcome else {
        if now.state != State::Pending || view.cancel.is_some() {
            return None;
        }
        if status::is_hopeless(view) {
            return Some((view.created?, Act::EndForStart));
        }
        let deadline = view.policies.start_deadline?;
        return Some((add(view.created?, SignedDuration::try_from(deadline).ok()?), Act::EndForStart));
    };
    if !status::is_over(view) {
        return None;
    }
    let act = match view.policies.finish {
        FinishAction::Delete => Act::Delete,
        FinishAction::DeleteSucceeded if outcome.state == State::Succeeded => Act::Delete,
        // Somebody has deleted it already; only the finalizer holds it.
        _ if view.delete_requested.is_some() => Act::Delete,
        FinishAction::DeleteSucceeded | FinishAction::Keep if view.has_finalizer => Act::LetGo,
        FinishAction::DeleteSucceeded | FinishAction::Keep => return None,
    };
    let wanted = match view.released {
        Some(released) => add(released, RELEASE_GRACE),
        None => add(
            now.ended.or(view.delete_requested).or(view.created)?,
            SignedDuration::try_from(view.policies.ttl).ok()?,
        ),
    };
    Some((wanted.max(add(view.submit_before, SUBMIT_SKEW)), act))
}

impl PodBackend {
    /// Does what is due until it is told to stop.
    pub(super) async fn reconcile(&self, stop: &CancellationToken) {
        // Uids of pods that were let go. The answer to that request does not say that the pod is gone, and until the watch does,
        // it would be sent again.
        let mut let_go = HashSet::new();
        loop {
            let next = if self.hub.is_in_step() { self.do_what_is_due(&mut let_go).await } else { LONGEST_SLEEP };
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = self.hub.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Returns how long there is nothing more to do.
    async fn do_what_is_due(&self, let_go: &mut HashSet<String>) -> Duration {
        let now = self.api.clock().now();
        let mut next = LONGEST_SLEEP;
        let views: Vec<_> =
            self.hub.all().iter().flat_map(|attempts| attempts.iter().cloned().collect::<Vec<_>>()).collect();
        let_go.retain(|uid| views.iter().any(|view| view.uid == *uid));
        for view in views.into_iter().filter(|view| !let_go.contains(&view.uid)).collect::<Vec<_>>() {
            let Some((at, act)) = due(&view) else { continue };
            match Duration::try_from(at.duration_since(now)) {
                Ok(wait) if !wait.is_zero() => next = next.min(wait + rand::random_range(Duration::ZERO..JITTER)),
                // In the past, or now.
                _ => match self.act(&view, act).await {
                    Ok(()) if act == Act::EndForStart => {}
                    Ok(()) => drop(let_go.insert(view.uid.clone())),
                    Err(error) => {
                        let execution = &view.id;
                        warn!(%execution, error = &error as &dyn std::error::Error, "what is due could not be done");
                        // It stays due; a cluster that refuses is not asked in a hurry.
                        next = next.min(Duration::from_secs(5));
                    }
                },
            }
        }
        next
    }

    async fn act(&self, view: &Arc<View>, act: Act) -> Result<(), Error> {
        match act {
            Act::EndForStart => {
                info!(execution = %view.id, "the start deadline passed");
                let intent = CancelIntent {
                    by: "podbroker".to_owned(),
                    reason: status::status(view).reason,
                    class: status::start_deadline_class(view),
                    at: self.api.clock().now(),
                };
                self.end(view, intent, None).await.map(drop)
            }
            Act::Delete => {
                info!(execution = %view.id, pod = view.pod_name, "deleting");
                if view.delete_requested.is_none() {
                    let deleted = self.api.delete(&view.pod_name, &view.uid, None).await;
                    self.unless_gone("delete a pod", deleted)?;
                }
                self.let_go(view).await
            }
            Act::LetGo => self.let_go(view).await,
        }
    }

    /// Takes the finalizer away.
    async fn let_go(&self, view: &View) -> Result<(), Error> {
        if !view.has_finalizer {
            return Ok(());
        }
        let removed = self.api.remove_finalizer(&view.pod_name, &view.uid, FINALIZER).await;
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
