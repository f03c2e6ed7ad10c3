//! The pods of one execution, one for each attempt, and what they say of it together: pure functions.
//!
//! The latest attempt speaks for the execution. When it ended in a way that the caller's policy names, another one follows:
//! which one, and from when on, is decided by the objects alone, so that any replica may make it, and makes the same one.
//! What stops that is written into the objects too.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::record::Record;
use super::status::{self, Status, is_over};
use super::view::{Presence, View};
use crate::execution::{CancelIntent, Effect, FailureClass, Outcome, State};

/// The attempts of one execution, oldest first; never empty. Pods that are no more stay among them as long as one is left, so
/// that what is known of the execution does not change while it is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempts {
    oldest: Arc<View>,
    later: Vec<Arc<View>>,
}

/// Where an execution stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) status: Status,
    pub(super) next: Option<Next>,
    /// How much the latest attempt has to do with it.
    pub(super) latest: Latest,
}

/// The attempt that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) number: u32,
    /// From when on it may be made; unset while the one before is not over in the API.
    pub(super) due: Option<Timestamp>,
}

/// What the latest attempt is to its execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Latest {
    /// Its end is that of the execution.
    Speaks,
    /// It is over, and the execution goes on or was ended after it.
    HasEnded,
}

impl Attempts {
    /// An execution with this pod only.
    pub(super) fn of(view: Arc<View>) -> Self {
        Self { oldest: view, later: Vec::new() }
    }

    /// The first attempt that is known. It carries what later ones are made from.
    pub(super) fn oldest(&self) -> &Arc<View> {
        &self.oldest
    }

    /// The last attempt that was made.
    pub(super) fn latest(&self) -> &Arc<View> {
        self.later.last().unwrap_or(&self.oldest)
    }

    /// All, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<View>> {
        std::iter::once(&self.oldest).chain(&self.later)
    }

    /// The attempt with that number.
    pub(super) fn number(&self, attempt: u32) -> Option<&Arc<View>> {
        self.iter().find(|view| view.attempt == attempt)
    }

    /// With this pod instead of the one with its number, or beside the others.
    pub(super) fn with(&self, view: Arc<View>) -> Self {
        let others = self.iter().filter(|other| other.attempt != view.attempt).cloned();
        let mut views: Vec<_> = others.chain([Arc::clone(&view)]).collect();
        views.sort_by_key(|view| view.attempt);
        let mut views = views.into_iter();
        Self { oldest: views.next().unwrap_or(view), later: views.collect() }
    }

    /// None of its pods exists any more.
    pub(super) fn is_gone(&self) -> bool {
        self.iter().all(|view| view.presence == Presence::Gone)
    }

    /// The name of an attempt's pod: that of the first one with another number.
    pub(super) fn pod_name(&self, number: u32) -> Option<String> {
        self.oldest.pod_name.strip_suffix("-1").map(|stem| format!("{stem}-{number}"))
    }

    /// Who asked for the end of the execution, and not only of one attempt.
    pub(super) fn stop(&self) -> Option<&CancelIntent> {
        let between = self.iter().rev().find_map(|view| view.stop.as_ref());
        between.or_else(|| self.iter().rev().filter_map(|view| view.cancel.as_ref()).find(|intent| is_final(intent)))
    }

    /// Where the execution stands.
    pub(super) fn standing(&self) -> Standing {
        let latest = self.latest();
        let mut status = status::status(latest);
        if !self.later.is_empty() {
            let earlier = self.iter().filter_map(|view| status::status(view).started);
            status.started = earlier.min();
        }
        let speaks = |status| Standing { status, next: None, latest: Latest::Speaks };
        let Some(number) = self.wanted(&status) else { return speaks(status) };
        let over = is_over(latest);
        let latest_is = if over { Latest::HasEnded } else { Latest::Speaks };
        let refused = latest.refused.as_ref().filter(|refused| refused.number == number);
        let ended = match (self.stop(), refused) {
            (Some(intent), _) => Some((intent.class, stopped(intent))),
            (None, Some(refused)) => match refused.class {
                Some(class) => Some((class, format!("attempt {number} was refused: {}", refused.message))),
                None => return speaks(status),
            },
            (None, None) if !self.can_go_on() => return speaks(status),
            (None, None) => None,
        };
        let before = format!("attempt {} ended: {}", latest.attempt, status.reason);
        let Some((class, message)) = ended else {
            let follows = match latest.waits.as_ref().filter(|waits| waits.number == number) {
                Some(waits) => format!("attempt {number} waits: {}", waits.message),
                None => format!("attempt {number} follows"),
            };
            status.reason = format!("{before}; {follows}");
            status.state = if !over && status.started.is_some() { State::Running } else { State::Pending };
            status.outcome = None;
            status.ended = None;
            let due = over.then(|| self.due(latest)).flatten();
            return Standing { status, next: Some(Next { number, due }), latest: latest_is };
        };
        let state = if class == FailureClass::CancelledByCaller { State::Cancelled } else { State::Failed };
        let message = format!("{message}; {before}");
        status.state = if over { state } else { State::Ending };
        status.reason.clone_from(&message);
        status.outcome = status.outcome.map(|outcome| Outcome { state, class: Some(class), message, ..outcome });
        Standing { status, next: None, latest: latest_is }
    }

    /// The attempt that the policy wants after the latest one.
    fn wanted(&self, latest: &Status) -> Option<u32> {
        let policy = self.oldest.policies.infra_retry.as_ref()?;
        let class = latest.outcome.as_ref()?.class?;
        let effect = if self.iter().any(|view| may_have_started(view)) { Effect::Possible } else { Effect::None };
        let made = self.latest().attempt;
        policy.allows(class, made, effect).then_some(made + 1)
    }

    /// Everything is there that another attempt needs, and nobody has begun to take it away. What is deleted loses the
    /// finalizer of its first attempt first.
    fn can_go_on(&self) -> bool {
        let (oldest, latest) = (&self.oldest, self.latest());
        let is_kept = |view: &View| view.presence == Presence::Present && view.has_finalizer && view.released.is_none();
        oldest.attempt == 1 && is_kept(oldest) && is_kept(latest) && oldest.digest == latest.digest
    }

    fn due(&self, latest: &View) -> Option<Timestamp> {
        let backoff = self.oldest.policies.infra_retry.as_ref()?.backoff;
        ended_at(latest)?.checked_add(SignedDuration::try_from(backoff).ok()?).ok()
    }
}

/// When an attempt ended, as far as the API knows.
pub(super) fn ended_at(view: &View) -> Option<Timestamp> {
    let disrupted = view.disruption.as_ref().and_then(|disruption| disruption.since);
    status::status(view).ended.or(disrupted).or(view.delete_requested).or(view.created)
}

/// A container has run, or may have: of a node that was lost the last word may never have come.
fn may_have_started(view: &View) -> bool {
    let has_run = view.containers.iter().any(|container| !container.is_hidden() && container.has_run());
    let lost = |class| matches!(class, FailureClass::NodeLost | FailureClass::SpotInterrupted);
    let is_lost = || status::status(view).outcome.and_then(|outcome| outcome.class).is_some_and(lost);
    let may_have_run = view.record().is_some_and(Record::may_have_run);
    has_run || may_have_run || (!view.node.is_empty() && is_lost())
}

/// An intent that means the execution. A start deadline means one attempt only.
fn is_final(intent: &CancelIntent) -> bool {
    matches!(intent.class, FailureClass::CancelledByCaller | FailureClass::Orphaned)
}

/// What a stop between two attempts means, for a person.
fn stopped(intent: &CancelIntent) -> String {
    let because = if intent.reason.is_empty() { String::new() } else { format!(": {}", intent.reason) };
    match intent.class {
        FailureClass::Orphaned => format!("nobody followed it any more{because}"),
        _ => format!("cancelled by {}{because}", intent.by),
    }
}

#[cfg(test)]
#[path = "attempts_tests.rs"]
pub(super) mod tests;
