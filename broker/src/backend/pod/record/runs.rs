//! Whose lines there are: the runs of a job's containers, each with the pod that has its log, or with why nobody can read it.
//!
//! AWS Batch deletes a pod soon after its end, and the watch may be cut meanwhile, or begin later. So a container is believed to
//! have run when its pod says so, when the job does, or when an execution that succeeded cannot have done without it. What has
//! run in a pod that nobody saw is lost, and that is said: of an array child by child, unless the array was ended from outside,
//! since most of its children never ran then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::container::{ContainerState, ContainerView};
use super::super::status::is_ordinary;
use super::super::view::{Phase, Presence, View};
use super::part::{Part, real_name};
use super::{Record, Turn};
use crate::execution::{ContainerRole, FailureClass, GapReason, State};

/// A container of which not even the name is known is called so.
pub(in crate::backend::pod) const UNKNOWN: &str = "unknown";

/// One run of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backend::pod) struct Run {
    /// What the container is called to callers.
    pub(in crate::backend::pod) container: String,
    pub(in crate::backend::pod) restart: u32,
    pub(in crate::backend::pod) role: ContainerRole,
    pub(in crate::backend::pod) log: Log,
}

/// Where the lines of a run are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backend::pod) enum Log {
    /// In that pod.
    Of(Arc<View>),
    /// Nowhere.
    Lost(GapReason, String),
}

/// The runs that may have written lines, by what is known of an attempt; those that have a pod first. The caller has heard of
/// some before, by name and restart, perhaps from a copy.
pub(in crate::backend::pod) fn runs(view: &View, record: &Record, heard: &[(&str, u32)]) -> Vec<Run> {
    let known: HashMap<_, _> = view.containers.iter().map(|container| (container.name.as_str(), container)).collect();
    let facts = Facts::of(view, record);
    let mut found = Vec::new();
    // By the name of a container: the first and the latest run of it in each pod.
    let mut met: HashMap<String, Vec<(u32, u32)>> = HashMap::new();
    for part in &record.parts {
        let mut is_next = true;
        for container in part.view.containers.iter().filter(|container| !container.is_hidden()) {
            let shown = part.shown(&container.name);
            let told = known.get(shown.as_str()).filter(|told| told.restarts == container.restarts);
            let has_run = container.has_run()
                || told.is_some_and(|told| told.has_run())
                || told.is_some_and(|told| facts.must_have_run(part, container, told))
                || (is_next && facts.may_have_run(part, container));
            // What comes behind an init container that has not ended cannot have begun.
            is_next &= container.role != ContainerRole::Init || container.termination().is_some();
            // The kubelet keeps the run before the latest one too.
            let first = part.first_run().max(container.restarts.saturating_sub(1));
            met.entry(shown.clone()).or_default().push((part.first_run(), container.restarts));
            let begun = (first..=container.restarts).filter(|restart| *restart < container.restarts || has_run);
            found.extend(begun.map(|restart| Run {
                container: shown.clone(),
                restart,
                role: container.role,
                log: Log::Of(Arc::clone(&part.view)),
            }));
        }
    }
    found.extend(view.containers.iter().flat_map(|container| {
        let met = met.get(&container.name).map_or(&[][..], Vec::as_slice);
        facts.lost(container, met)
    }));
    found.extend(facts.heard_of(heard, &known, &met));
    found.extend(facts.unseen(view, record, &known, heard));
    found
}

/// What is known of an attempt as a whole.
struct Facts {
    /// No pod of it will be seen that was not seen yet.
    is_over: bool,
    succeeded: bool,
    /// It was ended from outside, perhaps before all of it had begun.
    was_ended: bool,
}

impl Facts {
    fn of(view: &View, record: &Record) -> Self {
        let written = record.written.as_ref().filter(|_| record.turn == Turn::Latest).map(|written| &written.outcome);
        let is_passed = record.turn != Turn::Latest && record.is_passed;
        let from_outside = |class| {
            use FailureClass::{CancelledByCaller, Orphaned, PodDeleted, StartDeadline};
            matches!(class, CancelledByCaller | Orphaned | PodDeleted | StartDeadline)
        };
        Self {
            is_over: record.written.is_some() || view.presence == Presence::Gone || is_passed,
            succeeded: written.is_some_and(|outcome| outcome.state == State::Succeeded),
            was_ended: written.and_then(|outcome| outcome.class).is_some_and(from_outside),
        }
    }

    /// The pod has not said that the container has run, but it has.
    fn must_have_run(&self, part: &Part, container: &ContainerView, told: &ContainerView) -> bool {
        // An end without a beginning is the kubelet's invention for a container that never ran.
        let is_open = self.is_over && container.termination().is_none() && part.view.phase != Phase::Failed;
        is_open && (self.succeeded || has_ended(told))
    }

    /// The pod went before anybody could say whether the container has run.
    fn may_have_run(&self, part: &Part, container: &ContainerView) -> bool {
        let was_begun = matches!(&container.state, ContainerState::Waiting { reason, .. } if is_ordinary(reason));
        let went = part.view.presence == Presence::Gone && !part.view.node.is_empty();
        self.is_over && was_begun && went && !matches!(part.view.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Runs of a container that no pod has which was met, or not any more.
    fn lost(&self, container: &ContainerView, met: &[(u32, u32)]) -> Vec<Run> {
        let name = &container.name;
        let gone = |restart: u32| {
            let is_latest = restart == container.restarts;
            if is_latest && !(self.is_over && (container.has_run() || has_ended(container))) {
                return None;
            }
            let end = container.termination().filter(|_| is_latest).map(|end| end.exit_code);
            let ended = end.map_or_else(String::new, |code| format!("; it ended with exit code {code}"));
            let message = format!("the pod of container {name} was gone before the broker had seen it{ended}");
            Some((GapReason::PodDeleted, message))
        };
        let runs = (0..=container.restarts).filter_map(|restart| {
            let of = met.iter().find(|(first, latest)| (first..=latest).contains(&&restart));
            let (reason, message) = match of {
                Some((_, latest)) if restart + 2 == *latest => (
                    GapReason::Rotated,
                    format!(
                        "container {name} was restarted {latest} times, and the node keeps the lines of its last two runs \
                         only; those of runs before may be missing"
                    ),
                ),
                Some(_) => return None,
                None => gone(restart)?,
            };
            Some(Run { container: name.clone(), restart, role: container.role, log: Log::Lost(reason, message) })
        });
        runs.collect()
    }

    /// What only the caller has heard of: perhaps not to its end.
    fn heard_of(
        &self,
        heard: &[(&str, u32)],
        known: &HashMap<&str, &ContainerView>,
        met: &HashMap<String, Vec<(u32, u32)>>,
    ) -> Vec<Run> {
        let is_new = |(name, restart): &&(&str, u32)| {
            let is_known = known.get(name).is_some_and(|container| *restart <= container.restarts);
            self.is_over && !is_known && !met.contains_key(*name)
        };
        let lost = |(name, restart): &(&str, u32)| {
            let message = format!("the pod of container {name} was gone before its log was read to the end");
            let log = Log::Lost(GapReason::PodDeleted, message);
            let role = known.get(name).map_or(ContainerRole::Deciding, |container| container.role);
            Run { container: (*name).to_owned(), restart: *restart, role, log }
        };
        heard.iter().filter(is_new).map(lost).collect()
    }

    /// What has run although nothing at all is known of it.
    fn unseen(
        &self,
        view: &View,
        record: &Record,
        known: &HashMap<&str, &ContainerView>,
        heard: &[(&str, u32)],
    ) -> Vec<Run> {
        if !self.is_over {
            return Vec::new();
        }
        let lost = |container: String, role, message: String| Run {
            container,
            restart: 0,
            role,
            log: Log::Lost(GapReason::PodDeleted, message),
        };
        let Some(size) = record.size() else {
            let is_bare = known.is_empty() && heard.is_empty() && record.parts.is_empty() && !record.is_array();
            let has_run = is_bare && (self.succeeded || record.may_have_run());
            let message =
                "the job's pod was gone before the broker had seen it, and the names of its containers are not known";
            let run = has_run.then(|| lost(UNKNOWN.to_owned(), ContainerRole::Deciding, message.to_owned()));
            return run.into_iter().collect();
        };
        let index_of = |name: &&str| name.split_once('/').and_then(|(index, _)| index.parse::<u32>().ok());
        let names = known.keys().chain(heard.iter().map(|(name, _)| name));
        let seen: HashSet<_> = names.filter_map(index_of).collect();
        let unseen: Vec<_> = (0..size).filter(|index| !seen.contains(index)).collect();
        if unseen.is_empty() {
            return Vec::new();
        }
        if self.was_ended {
            let message = format!(
                "of {} of the array's {size} children no pod was seen before the array was ended; lines of those that had begun \
                 are missing",
                unseen.len()
            );
            return vec![lost(UNKNOWN.to_owned(), ContainerRole::Deciding, message)];
        }
        // All children are made from one definition.
        let mut like: Vec<(&str, ContainerRole)> = Vec::new();
        for container in view.containers.iter().filter(|container| container.has_run()) {
            if !like.iter().any(|(name, _)| *name == real_name(&container.name)) {
                like.push((real_name(&container.name), container.role));
            }
        }
        if like.is_empty() {
            like.push((UNKNOWN, ContainerRole::Deciding));
        }
        let of = |index: u32| {
            let message = format!("the pod of child {index} was gone before the broker had seen it");
            like.iter().map(move |(name, role)| lost(format!("{index}/{name}"), *role, message.clone()))
        };
        unseen.into_iter().flat_map(of).collect()
    }
}

/// The job knows how it ended.
fn has_ended(container: &ContainerView) -> bool {
    container.termination().is_some()
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
